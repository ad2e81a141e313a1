//! The processes of one program, of which there can be more or fewer.

use super::process::Process;
use std::time::Duration;

/// Processes of one program. Dropping it kills them.
pub struct Pool(pub(super) Vec<Process>);

/// Longer than any grace period.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

impl Pool {
    /// Runs so many from here on: more are started, the last ones are told to end. Whether those that were did so in time, with
    /// status 0.
    ///
    /// # Panics
    /// If there is none to go by.
    pub async fn scale(&mut self, count: usize) -> bool {
        let mut ended_well = true;
        while self.0.len() > count.max(1) {
            let process = self.0.pop().expect("there are more than wanted");
            ended_well &= process.stop(ENDS_WITHIN).await.is_some_and(|exit| exit.code == Some(0));
        }
        for number in self.0.len()..count {
            let plan = self.0[0].plan.nth(number);
            self.0.push(Process::start(plan));
        }
        ended_well
    }

    /// kill -9 of one of them, which is started again. Whether it ended in time.
    pub async fn kill(&self, nth: usize, within: Duration) -> bool {
        let process = &self.0[nth % self.0.len()];
        let before = process.exits().len();
        process.signal("KILL");
        process.ended(before, within).await.is_some()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.iter().for_each(Process::kill);
    }
}
