//! When a message that was definitely not sent is tried again: a rule for each [`Class`], which a tenant can change.

use super::outcome::Class;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// When something is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Seconds to wait before each further try, one after the other.
    pub delays: Vec<u32>,
    /// Whether it is tried on and on, at the last delay, while the message is of use; else it is given up after the last.
    #[serde(default)]
    pub endless: bool,
}

/// A tenant's rules; what is not among them is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policy(BTreeMap<Class, Rule>);

/// What comes of one more failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is tried again after this time.
    After(Duration),
    /// It has been tried as often as it may be.
    GiveUp,
}

/// Longer than this nobody waits, so nothing longer can be said.
const LONGEST: u32 = 24 * 60 * 60;
/// So many delays say enough.
const MOST_DELAYS: usize = 20;

impl Rule {
    fn new(delays: &[u32], endless: bool) -> Self {
        Self { delays: delays.to_vec(), endless }
    }

    /// As usual. A fault of the provider's that passes is given half a minute, one and two; one that cannot be reached is tried
    /// for as long as the message is of use.
    pub fn usual(class: Class) -> Self {
        match class {
            Class::Unreachable => Self::new(&[2, 4, 8, 16, 32, 60, 120, 300, 600], true),
            Class::Transient => Self::new(&[30, 60, 120], false),
            Class::Once => Self::new(&[60], false),
            Class::File => Self::new(&[2], false),
            Class::Thread => Self::new(&[60, 300, 900], true),
            // These wait as the provider says, or as their limits do; between them such a time.
            Class::Account | Class::ProviderAccount => Self::new(&[2, 4, 8, 16, 32, 60, 120, 300, 600], true),
            // 4^X seconds, X = 0, 1, 2 … (providers/whatsapp section 11).
            Class::Pair => Self::new(&[1, 4, 16, 64, 256, 1024, 4096], true),
            Class::Day => Self::new(&[3600], true),
            Class::Undelivered => Self::new(&[3600], false),
        }
    }

    /// After it has failed so often before, over so long a time. A wait that is cut short (`at_most`) makes for more tries within the
    /// same time.
    fn next(&self, failed_before: u32, trying_for: Duration, at_most: Option<Duration>) -> Next {
        let patience: u64 = self.delays.iter().copied().map(u64::from).sum();
        let tries = usize::try_from(failed_before).unwrap_or(usize::MAX);
        if !self.endless && tries >= self.delays.len() && trying_for.as_secs() >= patience {
            return Next::GiveUp;
        }
        let seconds = self.delays.get(tries).or(self.delays.last()).copied().unwrap_or(1);
        let wait = Duration::from_secs(seconds.into());
        Next::After(at_most.map_or(wait, |most| wait.min(most)))
    }
}

impl Policy {
    /// The rule for a class.
    pub fn rule(&self, class: Class) -> Rule {
        self.0.get(&class).cloned().unwrap_or_else(|| Rule::usual(class))
    }

    /// After a report that a message was not delivered, when there had been so many before: as the tenant's rule says; without one as the
    /// provider's code does, so often at most.
    pub fn next_of_undelivered(&self, reported_before: u32, times: u32, after: Duration) -> Next {
        let wait = match self.0.get(&Class::Undelivered) {
            Some(rule) => {
                let place = usize::try_from(reported_before).unwrap_or(usize::MAX);
                let last = rule.delays.last().filter(|_| rule.endless);
                rule.delays.get(place).or(last).map(|seconds| Duration::from_secs((*seconds).into()))
            }
            None => (reported_before < times).then_some(after),
        };
        wait.map_or(Next::GiveUp, Next::After)
    }

    /// After one more failure of a class, when there had been so many before, over so long a time.
    pub fn next(&self, class: Class, failed_before: u32, trying_for: Duration, at_most: Option<Duration>) -> Next {
        self.rule(class).next(failed_before, trying_for, at_most)
    }

    /// With another rule for a class; as usual again if there is none.
    pub fn set(&mut self, class: Class, rule: Option<Rule>) {
        match rule {
            Some(rule) => drop(self.0.insert(class, rule)),
            None => drop(self.0.remove(&class)),
        }
    }

    /// Whether somebody may set it so.
    ///
    /// # Errors
    /// Which class has what wrong.
    pub fn check(&self) -> Result<(), (Class, String)> {
        for (class, rule) in &self.0 {
            if rule.delays.is_empty() || rule.delays.len() > MOST_DELAYS {
                return Err((*class, format!("must have 1 to {MOST_DELAYS} delays")));
            }
            if rule.delays.iter().any(|delay| !(1..=LONGEST).contains(delay)) {
                return Err((*class, format!("each delay must be 1 to {LONGEST} seconds")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Next {
        Next::After(Duration::from_secs(seconds))
    }

    #[test]
    fn a_passing_fault_is_given_three_more_tries() {
        let policy = Policy::default();
        let next = |failed, seconds| policy.next(Class::Transient, failed, Duration::from_secs(seconds), None);
        assert_eq!(
            [next(0, 0), next(1, 31), next(2, 92), next(3, 213)],
            [after(30), after(60), after(120), Next::GiveUp]
        );
        let unreachable = policy.next(Class::Unreachable, 5_000, Duration::from_secs(80_000), None);
        assert_eq!(unreachable, after(600), "an outage is no reason to give up");
    }

    #[test]
    fn waits_that_are_cut_short_do_not_shorten_patience() {
        let most = Some(Duration::from_secs(16));
        let next =
            |failed, seconds| Policy::default().next(Class::Transient, failed, Duration::from_secs(seconds), most);
        assert_eq!(
            [next(0, 0), next(3, 50), next(12, 200), next(13, 211)],
            [after(16), after(16), after(16), Next::GiveUp]
        );
    }

    #[test]
    fn a_tenant_may_have_other_rules() {
        let policy: Policy =
            serde_json::from_str(r#"{"transient": {"delays": [5]}, "pair": {"delays": [1], "endless": true}}"#)
                .unwrap();
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(policy.next(Class::Transient, 0, Duration::ZERO, None), after(5));
        assert_eq!(policy.next(Class::Transient, 1, Duration::from_secs(6), None), Next::GiveUp);
        assert_eq!(policy.rule(Class::Once), Rule::usual(Class::Once));
        let hours = |policy: &Policy, before| policy.next_of_undelivered(before, 2, Duration::from_secs(7200));
        assert_eq!([hours(&policy, 0), hours(&policy, 1), hours(&policy, 2)], [after(7200), after(7200), Next::GiveUp]);
        let never: Policy = serde_json::from_str(r#"{"undelivered": {"delays": [60]}}"#).unwrap();
        assert_eq!([hours(&never, 0), hours(&never, 1)], [after(60), Next::GiveUp], "instead of the provider's word");
        for bad in [r#"{"once": {"delays": []}}"#, r#"{"once": {"delays": [0]}}"#, r#"{"once": {"delays": [86401]}}"#] {
            let policy: Policy = serde_json::from_str(bad).unwrap();
            assert_eq!(policy.check().unwrap_err().0, Class::Once, "{bad}");
        }
        assert!(serde_json::from_str::<Policy>(r#"{"sometimes": {"delays": [1]}}"#).is_err());
    }
}
