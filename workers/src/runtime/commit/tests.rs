//! Batches against a store that fails by script.

use super::{collect as collect_effects, *};
use crate::runtime::held::Settled;
use crate::worker::Placed;
use chrono::DateTime;
use shared::{
    health::Readiness,
    jobs::Job,
    queue::{Delivery, topology::INBOUND},
};
use std::{
    collections::HashSet,
    sync::Mutex as StdMutex,
    time::{Duration, Instant as StdInstant},
};

/// What a batch does: stored, or an error, or a panic, by its effects and by how often the store was asked before.
type Script = fn(effects: &[u32], asked: usize) -> Result<(), Kind>;

#[derive(Default)]
struct Seen {
    asked: usize,
    stored: Vec<(Placement, Vec<u32>)>,
}

struct Scripted {
    script: Script,
    /// More effects than this at once are never answered.
    answers: usize,
    seen: Arc<StdMutex<Seen>>,
}

impl Store for Scripted {
    type Effect = u32;

    async fn store(&self, placement: &Placement, _: &[TenantId], effects: &[u32]) -> db::Result<Vec<OutboxRow>> {
        let asked = {
            let mut seen = self.seen.lock().unwrap();
            seen.asked += 1;
            seen.asked - 1
        };
        if effects.len() > self.answers {
            std::future::pending::<()>().await;
        }
        (self.script)(effects, asked).map_err(|kind| db::Error::made_up(kind, "storing"))?;
        self.seen.lock().unwrap().stored.push((placement.clone(), effects.to_vec()));
        Ok(Vec::new())
    }

    async fn announce(&self, _: &Placement, _: Vec<OutboxRow>) {}
}

struct Stage {
    collect: UnboundedSender<Collected<u32>>,
    disposals: UnboundedReceiver<Disposal>,
    lane: UnboundedSender<Settled>,
    acks: UnboundedReceiver<Settled>,
    ledger: Arc<Ledger>,
    pause: Pause,
    readiness: Readiness,
    seen: Arc<StdMutex<Seen>>,
    life: Lifecycle,
}

fn stage(script: Script, part: fn(&u32) -> Option<Part>, linger: Duration) -> Stage {
    stage_that_answers(usize::MAX, script, part, linger)
}

fn stage_that_answers(answers: usize, script: Script, part: fn(&u32) -> Option<Part>, linger: Duration) -> Stage {
    let (collect, collected) = unbounded_channel();
    let (desk, disposals) = unbounded_channel();
    let (lane, acks) = unbounded_channel();
    let (ledger, readiness, seen) = (Arc::new(Ledger::default()), Readiness::default(), Arc::default());
    let pause = Pause::new(readiness.condition("work"));
    let life = Lifecycle::new(Duration::from_secs(5));
    let committing = Committing {
        worker: "toy",
        store: Scripted { script, answers, seen: Arc::clone(&seen) },
        part,
        // As heavy as it says, from a hundred.
        weight: |effect| if *effect < 100 { 1 } else { *effect as usize },
        batch: 100,
        batch_weight: 1000,
        answer_timeout: Duration::from_millis(100),
        linger,
        committers: 2,
        after_commit: None,
        ledger: ledger.clone(),
        pause: pause.clone(),
        desk,
    };
    life.spawn(collect_effects(collected, Arc::new(committing), life.clone()));
    Stage { collect, disposals, lane, acks, ledger, pause, readiness, seen, life }
}

impl Stage {
    /// A job that is done, with these effects in the primary placement.
    fn done(&self, tag: u64, effects: &[u32]) -> Arc<Held> {
        self.done_in(tag, effects.iter().map(|effect| (Placement::primary(), *effect)).collect())
    }

    fn done_in(&self, tag: u64, effects: Vec<(Placement, u32)>) -> Arc<Held> {
        let held = self.start(tag);
        let tenant = TenantId::new();
        let effects = effects.into_iter().map(|(placement, effect)| Placed { placement, tenant, effect }).collect();
        assert!(held.settle());
        assert!(self.collect.send(Collected { held: held.clone(), effects }).is_ok());
        held
    }

    fn start(&self, tag: u64) -> Arc<Held> {
        let job = Job::new("toy", 1, None, DateTime::UNIX_EPOCH, "");
        let delivery = Delivery::made_up(job, &INBOUND, tag, 1);
        Held::start(delivery, self.lane.clone(), &self.ledger, true)
    }

    /// The tags acknowledged next, so many of them.
    async fn acked(&mut self, count: usize) -> HashSet<u64> {
        let mut tags = HashSet::new();
        for _ in 0..count {
            let settled = tokio::time::timeout(Duration::from_secs(5), self.acks.recv()).await;
            let Some(Settled::Ack { tag, .. }) = settled.expect("acknowledged in time") else {
                panic!("nothing is given back")
            };
            tags.insert(tag);
        }
        tags
    }

    async fn disposal(&mut self) -> Disposal {
        let disposal = tokio::time::timeout(Duration::from_secs(5), self.disposals.recv()).await;
        disposal.expect("disposed of in time").expect("the committers are there")
    }

    fn stored(&self) -> Vec<u32> {
        let mut stored: Vec<u32> = self.seen.lock().unwrap().stored.iter().flat_map(|(_, e)| e.clone()).collect();
        stored.sort_unstable();
        stored
    }

    /// Nothing is left to acknowledge or to dispose of.
    async fn stays_quiet(mut self) -> bool {
        drop(self.collect);
        let ended = self.life.drained().await;
        ended && self.disposals.try_recv().is_err() && self.acks.try_recv().is_err()
    }
}

const LINGER: Duration = Duration::from_millis(20);

fn whole(_: &u32) -> Option<Part> {
    None
}

fn by_part(effect: &u32) -> Option<Part> {
    Some(Part { job: Job::new("part", 1, None, DateTime::UNIX_EPOCH, effect.to_string()) })
}

#[tokio::test]
async fn bad_effects_stand_alone_and_the_rest_is_stored() {
    let bad: Script = |effects, _| if effects.iter().any(|e| [3, 7].contains(e)) { Err(Kind::Data) } else { Ok(()) };
    let mut stage = stage(bad, whole, LINGER);
    for effect in 0..10 {
        stage.done(u64::from(effect), &[effect]);
    }
    assert_eq!(stage.acked(8).await, HashSet::from([0, 1, 2, 4, 5, 6, 8, 9]));
    assert_eq!(stage.stored(), [0, 1, 2, 4, 5, 6, 8, 9]);
    for _ in 0..2 {
        let Disposal::Dead { held, label: "data", .. } = stage.disposal().await else { panic!("dead by its data") };
        assert!([3, 7].contains(&held.delivery().tag));
        // Only once the dead letter is safe.
        assert!(stage.acks.try_recv().is_err());
        held.close();
        assert_eq!(stage.acked(1).await, HashSet::from([held.delivery().tag]));
    }
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn what_a_job_says_bit_by_bit_is_gathered() {
    let mut stage = stage(|_, _| Ok(()), whole, Duration::from_millis(200));
    let (held, tenant) = (stage.start(1), TenantId::new());
    let say = |effect| {
        held.open();
        let effects = vec![Placed { placement: Placement::primary(), tenant, effect }];
        assert!(stage.collect.send(Collected { held: held.clone(), effects }).is_ok());
    };
    for effect in 0..5 {
        say(effect);
        // The committer has its turn, and waits for more.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(held.settle());
    held.close();
    stage.acked(1).await;
    assert_eq!(stage.seen.lock().unwrap().stored, [(Placement::primary(), vec![0, 1, 2, 3, 4])]);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn of_a_job_with_several_effects_only_the_bad_part_is_dead() {
    let mut stage = stage(|effects, _| if effects.contains(&2) { Err(Kind::Data) } else { Ok(()) }, by_part, LINGER);
    stage.done(1, &[1, 2, 3]);
    let Disposal::DeadPart { held, job, .. } = stage.disposal().await else { panic!("a part is dead") };
    assert_eq!(&job.body[..], b"2");
    assert!(stage.acks.try_recv().is_err(), "acknowledged before the part was safe");
    held.close();
    assert_eq!(stage.acked(1).await, HashSet::from([1]));
    assert_eq!(stage.stored(), [1, 3]);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn a_job_whose_every_effect_is_bad_is_dead_once() {
    let mut stage = stage(|_, _| Err(Kind::Data), whole, LINGER);
    stage.done(1, &[1, 2, 3]);
    let Disposal::Dead { held, .. } = stage.disposal().await else { panic!("dead by its data") };
    held.close();
    assert_eq!(stage.acked(1).await, HashSet::from([1]));
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn contention_tries_the_same_batch_again_and_nobody_notices() {
    let mut stage = stage(|_, asked| if asked < 5 { Err(Kind::Contention) } else { Ok(()) }, whole, LINGER);
    stage.done(1, &[1]);
    stage.done(2, &[2]);
    stage.acked(2).await;
    assert_eq!(stage.stored(), [1, 2]);
    assert!(!stage.pause.is_paused());
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn an_outage_of_ours_pauses_and_charges_nobody() {
    let mut stage = stage(|_, asked| if asked < 3 { Err(Kind::Ours) } else { Ok(()) }, whole, LINGER);
    stage.done(1, &[1]);
    tokio::time::timeout(Duration::from_secs(5), stage.pause.entered()).await.unwrap();
    assert!(!stage.readiness.is_ready());
    assert!(stage.readiness.report().conditions["work"].starts_with("database: storing"));
    stage.acked(1).await;
    assert_eq!(stage.stored(), [1]);
    assert!(stage.readiness.is_ready() && !stage.pause.is_paused());
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn contention_without_end_becomes_an_outage() {
    let mut stage = stage(|_, asked| if asked < 12 { Err(Kind::Contention) } else { Ok(()) }, whole, LINGER);
    stage.done(1, &[1]);
    tokio::time::timeout(Duration::from_secs(5), stage.pause.entered()).await.unwrap();
    stage.acked(1).await;
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn a_panic_while_storing_charges_the_job_it_belongs_to() {
    panics::install();
    let mut stage = stage(|effects, _| if effects.contains(&2) { panic!("ouch") } else { Ok(()) }, whole, LINGER);
    (1..=3).for_each(|effect| drop(stage.done(u64::from(effect), &[effect])));
    assert_eq!(stage.acked(2).await, HashSet::from([1, 3]));
    let Disposal::Failed { held, error, after: None } = stage.disposal().await else { panic!("it failed") };
    assert!(held.delivery().tag == 2 && error.contains("ouch"), "{error}");
    held.close();
    stage.acked(1).await;
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn a_panic_while_storing_charges_the_part_it_belongs_to() {
    panics::install();
    let mut stage = stage(|effects, _| if effects.contains(&2) { panic!("ouch") } else { Ok(()) }, by_part, LINGER);
    stage.done(1, &[1, 2, 3]);
    let Disposal::FailedPart { held, job, error } = stage.disposal().await else { panic!("a part failed") };
    assert!(&job.body[..] == b"2" && error.contains("ouch"), "{error}");
    assert!(stage.acks.try_recv().is_err(), "acknowledged before the part was safe");
    held.close();
    stage.acked(1).await;
    assert_eq!(stage.stored(), [1, 3]);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn a_job_is_acknowledged_when_every_placement_has_committed() {
    let script: Script = |effects, asked| match effects {
        [2] if asked < 3 => Err(Kind::Ours),
        _ => Ok(()),
    };
    let mut stage = stage(script, whole, LINGER);
    stage.done_in(1, vec![(Placement::primary(), 1), (Placement::named("big"), 2)]);
    tokio::time::timeout(Duration::from_secs(5), stage.pause.entered()).await.unwrap();
    assert!(stage.acks.try_recv().is_err(), "one placement has not committed");
    stage.acked(1).await;
    let stored = std::mem::take(&mut stage.seen.lock().unwrap().stored);
    assert_eq!(stored, [(Placement::primary(), vec![1]), (Placement::named("big"), vec![2])]);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn what_comes_together_is_stored_together() {
    let mut stage = stage(|_, _| Ok(()), whole, Duration::from_millis(500));
    let other = stage.start(9);
    (1..=5).for_each(|effect| drop(stage.done(u64::from(effect), &[effect])));
    stage.acked(5).await;
    assert_eq!(stage.seen.lock().unwrap().asked, 1);
    drop(other);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn nobody_lingers_for_jobs_that_cannot_come() {
    let mut stage = stage(|_, _| Ok(()), whole, Duration::from_secs(60));
    let started = StdInstant::now();
    stage.done(1, &[1]);
    stage.acked(1).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn a_batch_is_no_heavier_than_it_may_be() {
    let mut stage = stage(|_, _| Ok(()), whole, LINGER);
    stage.done(1, &[400, 500, 600, 5000, 1]);
    stage.acked(1).await;
    let stored: Vec<_> = stage.seen.lock().unwrap().stored.iter().map(|(_, effects)| effects.clone()).collect();
    assert_eq!(stored, [vec![400, 500], vec![600], vec![5000], vec![1]]);
    assert!(stage.stays_quiet().await);
}

#[tokio::test]
async fn what_cannot_be_stored_in_time_is_stored_in_parts_and_nobody_is_charged() {
    let mut stage = stage_that_answers(3, |_, _| Ok(()), whole, LINGER);
    stage.done(1, &[1, 2, 3, 4, 5]);
    stage.done(2, &[6, 7]);
    assert_eq!(stage.acked(2).await, HashSet::from([1, 2]));
    assert_eq!(stage.stored(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(!stage.pause.is_paused());
    assert!(stage.stays_quiet().await);
}

#[test]
fn weights_are_cut_in_order_and_none_is_left_out() {
    for (weights, expected) in [
        (vec![], vec![(0, 0)]),
        (vec![7], vec![(0, 1)]),
        (vec![70], vec![(0, 1)]),
        (vec![5, 5, 1], vec![(0, 2), (2, 3)]),
        (vec![70, 1, 9, 1], vec![(0, 1), (1, 3), (3, 4)]),
    ] {
        let mut portions: Vec<_> = cut(&weights, 10).iter().map(|portion| (portion.start, portion.end)).collect();
        portions.reverse();
        assert_eq!(portions, expected, "{weights:?}");
    }
}
