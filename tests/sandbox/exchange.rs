//! One request to send and its answer, whoever the provider is: draw its fate, write down the verdict, then answer, in that order,
//! with nothing to wait for between a judgement and its entry in the ledger. What was decided cannot be changed by a caller who goes
//! away.
//!
//! A provider says what can be seen of a request ([`Seen`]), judges it unless it never arrived ([`Exchange::arrives`]), asks on its
//! way for what was ordered ([`Exchange::interrupt`]), and hands the judgement to [`Exchange::end`].

use super::{
    behaviour::{Behaviour, Fate},
    course::{self, Course, Owner},
    dice::Roll,
    fetch::{self, Fetched},
    ledger::{Acceptance, Answer, Draft, Verdict},
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
    script::Ordered,
};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// What can be seen of a request without judging it.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) api: Api,
    pub(super) account: Arc<str>,
    pub(super) at_us: u64,
    pub(super) recipient: Cow<'a, str>,
    pub(super) kind: &'static str,
    /// The caller's own token.
    pub(super) opaque: Option<Cow<'a, str>>,
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) units: u32,
    pub(super) body: &'a [u8],
}

/// A judgement that is no refusal.
pub(super) enum Judged<'a> {
    Message(Accepted<'a>),
    /// A call that is no message, with its answer.
    Noted(String),
}

/// A message that is taken, and what will come of it.
pub(super) struct Accepted<'a> {
    pub(super) acceptance: Acceptance,
    /// Whose it is, if anything follows.
    pub(super) follows: Option<(Owner, Course)>,
    /// A file that is fetched only now; without it the message takes the other course.
    pub(super) fetched: Option<(Wanted, Course)>,
    /// The ids and links of its files.
    pub(super) files: Vec<String>,
    /// The answer, given the id.
    pub(super) success: Success<'a>,
}

/// A file behind a link, and whether what is there can be sent.
pub(super) struct Wanted {
    pub(super) url: String,
    pub(super) fits: Box<dyn Fn(&Fetched) -> bool + Send>,
}

/// Makes the answer to an accepted message, given its place in the ledger and its id.
pub(super) type Success<'a> = Box<dyn FnOnce(u64, &str) -> reply::Draft + Send + 'a>;

/// A request on its way.
pub(super) struct Exchange {
    pub(super) behaviour: Arc<Behaviour>,
    pub(super) roll: Roll,
    /// On whatever is answered.
    pub(super) headers: Vec<(&'static str, String)>,
    fate: Fate,
}

impl Exchange {
    /// Draws what becomes of a request.
    pub(super) fn begin(provider: &Provider, behaviour: Arc<Behaviour>) -> Self {
        let mut roll = provider.dice.roll();
        let fate = behaviour.fate(&mut roll);
        Self { behaviour, roll, headers: Vec::new(), fate }
    }

    /// Whether the provider looks at it at all.
    pub(super) fn arrives(&self) -> bool {
        !matches!(self.fate, Fate::CutBefore | Fate::Gateway { processed: false } | Fate::Unavailable)
    }

    /// What was ordered for this send: a refusal, or a code that it is to fail with later. To be asked once a request is in order
    /// and before it is counted.
    pub(super) fn interrupt(&self, provider: &Provider, api: Api, account: &str) -> Result<Option<u32>, Refusal> {
        if self.fate == Fate::Refuse {
            let refusal = Refusal::of(api, self.behaviour.refuse_code, self.behaviour.refuse_subcode);
            return Err(if refusal.is_throttle() {
                refusal.with_status(self.behaviour.throttle_status)
            } else {
                refusal
            });
        }
        match provider.scripts.next(api, account) {
            Some(Ordered::Refusal(refusal)) => Err(refusal),
            Some(Ordered::Later(code)) => Ok(Some(code)),
            None => Ok(None),
        }
    }

    /// Records the judgement (none if the request never arrived) and answers.
    pub(super) async fn end(
        mut self,
        provider: &Arc<Provider>,
        seen: Seen<'_>,
        judged: Option<Result<Judged<'_>, Refusal>>,
    ) -> Answered {
        let (api, account) = (seen.api, seen.account.clone());
        let mut first_told = None;
        let (answer, answered) = match judged {
            None => {
                let answer = match self.fate {
                    Fate::CutBefore => Answer::Cut,
                    Fate::Unavailable => Answer::Error,
                    _ => Answer::GatewayError,
                };
                provider.ledger.record(draft(&seen, answer), Verdict::NotProcessed);
                let refusal = Refusal::unavailable(api, self.behaviour.unavailable_code);
                (answer, reply::refused(&refusal, &self.behaviour, &mut self.roll))
            }
            Some(Err(refusal)) => {
                let answer = self.shown(Answer::Error);
                let verdict = Verdict::Refused { code: refusal.code, subcode: refusal.subcode };
                provider.ledger.record(draft(&seen, answer), verdict);
                (answer, reply::refused(&refusal, &self.behaviour, &mut self.roll))
            }
            Some(Ok(Judged::Noted(body))) => {
                let answer = self.shown(Answer::Success);
                provider.ledger.record(draft(&seen, answer), Verdict::Noted);
                (answer, reply::success(body))
            }
            Some(Ok(Judged::Message(accepted))) => {
                let answer = self.shown(Answer::Success);
                let (send, id) = provider.ledger.accept(draft(&seen, answer), accepted.acceptance);
                accepted.files.iter().for_each(|file| provider.handed.named(&id, file));
                let answered = (accepted.success)(send, &id);
                if let Some((owner, course)) = accepted.follows {
                    first_told = match accepted.fetched {
                        None => course::plan(provider, &self.behaviour, &owner, send, &course, &mut self.roll),
                        Some((wanted, otherwise)) => {
                            self.fetch_first(provider, send, owner, wanted, [course, otherwise]);
                            None
                        }
                    };
                }
                (answer, answered)
            }
        };

        if let Some(first_told) = first_told {
            // The receiver may be slow or away: then the answer does not wait for it any longer.
            let _ = tokio::time::timeout(Duration::from_millis(500), first_told).await;
        }
        let latency_ms = self.behaviour.latency_ms(&mut self.roll);
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
        let answered = answered.with_headers(self.headers);
        reply::finish(provider, &self.behaviour, answer, answered, api, &account).await
    }

    /// The message is accepted, and its file is fetched in the background.
    fn fetch_first(&self, provider: &Arc<Provider>, send: u64, owner: Owner, wanted: Wanted, courses: [Course; 2]) {
        let (provider, behaviour, mut roll) = (provider.clone(), self.behaviour.clone(), self.roll.clone());
        // To be waited for like what is on the agenda.
        provider.agenda.begun();
        provider.clone().tasks.spawn(async move {
            let [course, otherwise] = courses;
            let found = fetch::fetch(&provider, &wanted.url, fetch::PATIENCE).await;
            let fits = found.is_ok_and(|found| found.is_none_or(|found| (wanted.fits)(&found)));
            course::plan(&provider, &behaviour, &owner, send, if fits { &course } else { &otherwise }, &mut roll);
            provider.agenda.finished(1);
        });
    }

    /// What the caller gets to see of a verdict whose answer would be `honest`.
    fn shown(&self, honest: Answer) -> Answer {
        match self.fate {
            Fate::CutAfter => Answer::Cut,
            Fate::Truncate => Answer::Truncated,
            Fate::Hang => Answer::Withheld,
            Fate::Gateway { .. } => Answer::GatewayError,
            _ => honest,
        }
    }
}

fn draft<'a>(seen: &'a Seen<'_>, answer: Answer) -> Draft<'a> {
    Draft {
        at_us: seen.at_us,
        provider: seen.api,
        account: seen.account.clone(),
        units: seen.units,
        recipient: &seen.recipient,
        kind: if seen.kind.is_empty() { "unknown" } else { seen.kind },
        body: seen.body,
        opaque: seen.opaque.as_deref(),
        text: seen.text.as_deref(),
        answer,
    }
}
