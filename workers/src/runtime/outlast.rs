//! Asking the database until it answers: an outage of ours is waited out, and so is somebody who is in the way. Only what the
//! data itself is to blame for comes back as an error.

use super::{pause::Pause, settle::ANSWER_TIMEOUT};
use shared::{
    db::{self, Kind},
    retry::Pauses,
};
use std::future::Future;

/// The same question meets somebody else so many times before it counts as an outage.
pub(super) const CONTENTIONS: u32 = 10;

/// Does it again and again; while it fails and the fault is ours, no new work is taken.
///
/// # Errors
/// Errors of [`Kind::Data`] alone.
pub(super) async fn outlast<T, F, Fut>(pause: &Pause, what: &'static str, mut operation: F) -> db::Result<T>
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = db::Result<T>> + Send,
    T: Send,
{
    let (mut outage, mut pauses) = (None, Pauses::for_outage());
    let (mut contended, mut quick) = (0, Pauses::for_contention());
    loop {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, operation()).await;
        let error = match answer.unwrap_or_else(|_| Err(db::Error::timed_out(what))) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match error.kind() {
            Kind::Data => return Err(error),
            Kind::Contention if contended < CONTENTIONS => {
                contended += 1;
                tokio::time::sleep(quick.next_wait()).await;
            }
            Kind::Contention | Kind::Ours => {
                if outage.is_none() {
                    tracing::warn!(%error, what, "the database is away: waiting for it");
                    outage = Some(pause.enter("database", &error.to_string()));
                }
                tokio::time::sleep(pauses.next_wait()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::health::Readiness;
    use std::sync::Mutex;

    /// What comes of a question that fails the first so many times, and of each time it was asked whether new work was
    /// taken.
    async fn outlasted(kind: Kind, failures: usize) -> (db::Result<()>, Vec<bool>) {
        let pause = Pause::new(Readiness::default().condition("work"));
        let asked = Mutex::new(Vec::new());
        let question = || async {
            let mut asked = asked.lock().unwrap();
            asked.push(!pause.is_paused());
            if asked.len() <= failures { Err(db::Error::made_up(kind, "asking")) } else { Ok(()) }
        };
        let answer = outlast(&pause, "asking", question).await;
        assert!(!pause.is_paused(), "it is over");
        (answer, asked.into_inner().unwrap())
    }

    #[tokio::test]
    async fn somebody_in_the_way_is_outlasted_and_nobody_notices() {
        let (answer, asked) = outlasted(Kind::Contention, 5).await;
        assert!(answer.is_ok());
        assert_eq!(asked, [true; 6]);
    }

    #[tokio::test]
    async fn somebody_in_the_way_without_end_becomes_an_outage_and_is_outlasted() {
        let failures = CONTENTIONS as usize + 2;
        let (answer, asked) = outlasted(Kind::Contention, failures).await;
        assert!(answer.is_ok());
        assert_eq!(asked.len(), failures + 1);
        assert!(asked[CONTENTIONS as usize] && !asked[failures], "{asked:?}");
    }

    #[tokio::test]
    async fn an_outage_is_outlasted() {
        let (answer, asked) = outlasted(Kind::Ours, 2).await;
        assert!(answer.is_ok());
        assert_eq!(asked, [true, false, false]);
    }

    #[tokio::test]
    async fn what_the_data_is_to_blame_for_comes_back_at_once() {
        let (answer, asked) = outlasted(Kind::Data, 1).await;
        assert_eq!(answer.unwrap_err().kind(), Kind::Data);
        assert_eq!(asked, [true]);
    }
}
