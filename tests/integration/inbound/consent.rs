//! Who does not want to be written to, and from when on that binds.

use super::{Stage, ada, message, orders, person, said, second};
use chrono::{DateTime, Utc};
use serde_json::json;
use shared::{
    db::{
        audit::Actor,
        campaigns::{self, NewCampaign},
        outbound::{
            grant::{Answer, Grant, Held, Judged, Obstacle, Room, grant},
            outcomes::{OPTED_OUT, Patience, Place, Record, What, record},
        },
        suppressions,
    },
    domain::{
        campaigns::{Action, Audience, CampaignContent},
        channel::{Channel, Provider},
        consent::{Consent, Purpose},
        content::{OutboundContent, Template},
        events::{ConsentChange, Event},
        ids::{ApiTokenId, AttemptId, CampaignId, ContactId, MessageId},
        messages::MessageKind,
        people::{AliasKind, Person},
        sends::SendState,
    },
    jobs::campaign::{CampaignJob, Task},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use workers::{campaign::CampaignWorker, worker::Worker};

const PATIENCE: Patience = Patience { turn: Duration::from_secs(30), evidence: Duration::from_secs(300) };

fn nth(n: usize) -> Person {
    person(AliasKind::WhatsappId, &format!("4915{n:09}"))
}

impl Stage {
    /// People who wrote once, long ago.
    async fn people(&mut self, count: usize) -> Vec<ContactId> {
        let hello = |n: usize| said(&nth(n), &format!("wamid.hello.{n}"), "Hello", second(0));
        self.apply(&(0..count).map(|n| self.webhook(vec![hello(n)])).collect::<Vec<_>>()).await;
        let mut contacts = Vec::new();
        for n in 0..count {
            contacts.push(self.contact(&nth(n)).await.unwrap());
        }
        contacts
    }

    /// A campaign to everybody that runs, with everybody frozen.
    pub(super) async fn campaign(&self) -> CampaignId {
        let content = OutboundContent::Template(Template {
            name: "spring".into(),
            language: "en_US".into(),
            ..Template::default()
        });
        let content = CampaignContent::new(content).unwrap();
        let mut tx = self.request().await;
        let new = NewCampaign {
            name: "Spring",
            channel_account_id: self.account,
            content: &content,
            audience: &Audience::All,
            weight: 1,
            author: ApiTokenId::new(),
            template: None,
        };
        let id = campaigns::create(&mut tx, &new).await.unwrap();
        campaigns::change(&mut tx, id, Action::Start, Actor::Operator).await.unwrap();
        tx.commit().await.unwrap();
        self.step(Task::Freeze { campaign_id: id, after: None }).await;
        id
    }

    async fn step(&self, task: Task) {
        let mut tx = self.fleet().await;
        let job = CampaignJob { tenant_id: self.tenant, task };
        CampaignWorker::new(self.workers.clone()).apply(&mut tx, &[job]).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(super) async fn release(&self) {
        self.step(Task::Release { account: self.account }).await;
    }

    async fn queued(&mut self) -> Vec<MessageId> {
        sqlx::query_scalar("SELECT message_id FROM sends WHERE state IN ('waiting', 'queued') ORDER BY message_id")
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
    }

    async fn ask(&self, messages: &[MessageId]) -> Vec<Judged> {
        let held = |id: &MessageId| Held { tenant_id: self.tenant, message_id: *id, attempt_id: AttemptId::new() };
        let held: Vec<Held> = messages.iter().map(held).collect();
        let mut tx = self.fleet().await;
        let room = Room { per_account: 1000, left: Vec::new() };
        let judged = grant(&mut tx, &held, Duration::from_secs(20), &room).await.unwrap();
        tx.commit().await.unwrap();
        judged
    }

    /// What senders write down of what they were granted, and of what they were told not to send.
    async fn settle(&self, judged: &[Judged]) {
        let records: Vec<Record> = judged
            .iter()
            .filter_map(|judged| {
                let what = match &judged.answer {
                    Answer::Granted(grant) => accepted(judged.message_id, grant),
                    Answer::NotNow(Obstacle::OptedOut) => What::Refused { code: OPTED_OUT, reason: "no".into() },
                    Answer::NotNow(_) => return None,
                };
                let place = Some(Place {
                    channel_account_id: judged.channel_account_id,
                    channel: judged.channel,
                    account_revision: judged.account_revision,
                    probe: false,
                    serial: false,
                    conversation_id: judged.conversation_id,
                });
                Some(Record { tenant_id: self.tenant, message_id: judged.message_id, place, what, slice: None })
            })
            .collect();
        loop {
            let mut tx = self.fleet().await;
            match record(&mut tx, &records, PATIENCE).await {
                Ok(()) => return drop(tx.commit().await.unwrap()),
                Err(error) if error.kind() == shared::db::Kind::Contention => continue,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn wishes(&mut self) -> serde_json::Value {
        self.row(
            "SELECT coalesce(jsonb_agg(jsonb_build_array(channel, purpose, state, source) ORDER BY channel, purpose), '[]')
            FROM suppressions",
        )
        .await
    }

    pub(super) async fn expect_books_to_agree(&self, id: CampaignId) {
        let mut tx = self.request().await;
        let books = campaigns::ledger::ledger(&mut tx, id).await.unwrap().expect("it is there");
        assert_eq!(books.disagreements, Vec::<String>::new(), "{books:?}");
    }
}

fn accepted(message_id: MessageId, grant: &Grant) -> What {
    What::Accepted { attempt_id: grant.attempt_id, provider_message_id: format!("wamid.sent.{message_id}") }
}

#[tokio::test]
async fn a_word_ends_what_waits_and_keeps_out_what_would_come() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let contacts = stage.people(3).await;
    let first = stage.campaign().await;
    stage.release().await;
    assert_eq!(stage.queued().await.len(), 3);
    stage.tell(vec![said(&nth(0), "wamid.stop", " Stop. ", Utc::now())]).await;
    assert_eq!(stage.wishes().await, json!([["whatsapp", "marketing", "opted_out", "keyword"]]));
    // What waited is ended in the same transaction, and the word itself is a message like others.
    let ended = "SELECT jsonb_agg(jsonb_build_array(state, code)) FROM sends WHERE state NOT IN ('queued')";
    assert_eq!(stage.row(ended).await, json!([["failed", "opted_out"]]));
    assert_eq!(stage.count("SELECT count(*) FROM messages WHERE text = ' Stop. '").await, 1);
    assert_eq!(stage.count("SELECT failed FROM campaign_counts").await, 1);
    stage.expect_books_to_agree(first).await;
    // What somebody asks for all the same is not granted.
    stage.execute("UPDATE sends SET state = 'queued', code = NULL WHERE state = 'failed'").await;
    let queued = stage.queued().await;
    let judged = stage.ask(&queued).await;
    let refused = judged.iter().filter(|judged| matches!(judged.answer, Answer::NotNow(Obstacle::OptedOut))).count();
    let granted = judged.iter().filter(|judged| matches!(judged.answer, Answer::Granted(_))).count();
    assert_eq!((refused, granted), (1, 2));
    // Another campaign leaves the person out when it freezes; one who opts out later, when it would be their turn.
    let second_campaign = stage.campaign().await;
    stage.tell(vec![said(&nth(1), "wamid.stop.1", "Stop", Utc::now())]).await;
    stage.release().await;
    let skipped: Vec<(ContactId, String)> = sqlx::query_as(
        "SELECT contact_id, skip_reason FROM campaign_recipients WHERE campaign_id = $1 AND state = 'skipped' ORDER BY contact_id",
    )
    .bind(second_campaign)
    .fetch_all(&mut stage.admin)
    .await
    .unwrap();
    assert_eq!(skipped, [(contacts[0], "opted_out".to_owned()), (contacts[1], "opted_out".to_owned())]);
    stage.expect_books_to_agree(second_campaign).await;
}

#[tokio::test]
async fn an_agents_answer_goes_unless_nothing_may() {
    for (provider, goes) in [(Provider::Whatsapp, true), (Provider::Twilio, false)] {
        let mut stage = Stage::on(provider).await;
        let kind = if provider == Provider::Twilio { AliasKind::Phone } else { AliasKind::WhatsappId };
        let ada = person(kind, "+15557770123");
        let send = stage.send(&ada, SendState::Queued, None).await;
        stage.tell(vec![said(&ada, "SM1", "STOP", Utc::now())]).await;
        assert_eq!(stage.state(send.message_id).await, SendState::Queued, "what an agent wrote is not ended by itself");
        let judged = stage.ask(&[send.message_id]).await;
        assert_eq!(matches!(judged[0].answer, Answer::Granted(_)), goes, "{provider}: {:?}", judged[0].answer);
    }
}

#[tokio::test]
async fn what_was_said_last_holds_in_whatever_order_it_comes() {
    for order in orders(4) {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let tapped = message(&ada(), "wamid.4", MessageKind::Button, Some("Stop"), second(4));
        let mut events = [
            Some(said(&ada(), "wamid.1", "STOP", second(1))),
            Some(said(&ada(), "wamid.2", "start", second(2))),
            Some(said(&ada(), "wamid.3", "please stop by tomorrow", second(3))),
            Some(Event::Message(Box::new(tapped))),
        ];
        for what in &order {
            stage.tell(vec![events[*what].take().unwrap()]).await;
        }
        let wishes = |marketing| {
            json!([["whatsapp", "all", "opted_in", "keyword"], ["whatsapp", "marketing", marketing, "keyword"]])
        };
        assert_eq!(stage.wishes().await, wishes("opted_out"), "{order:?}");
        stage.tell(vec![said(&ada(), "wamid.5", "START", second(5))]).await;
        assert_eq!(stage.wishes().await, wishes("opted_in"), "{order:?}");
        // Played again, and said long ago, it is no news.
        let all = stage.everything().await;
        stage.apply(&[stage.replay(vec![said(&ada(), "wamid.1", "STOP", second(1))])]).await;
        assert_eq!(stage.everything().await, all, "{order:?}");
    }
}

#[tokio::test]
async fn a_providers_word_counts_as_the_persons_own_and_a_hand_is_audited() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let change = |consent, at| {
        Event::Consent(ConsentChange {
            person: ada(),
            purpose: Purpose::Marketing,
            consent,
            source: "user_preferences",
            at,
        })
    };
    stage.tell(vec![change(Consent::OptedOut, second(1))]).await;
    assert_eq!(stage.wishes().await, json!([["whatsapp", "marketing", "opted_out", "user_preferences"]]));
    let contact = stage.contact(&ada()).await.expect("somebody who is not known yet does not want it either");
    let by_hand = async |consent| {
        let mut tx = stage.request().await;
        let (channel, purpose) = (Channel::Whatsapp, Purpose::Marketing);
        let set =
            suppressions::set_by_hand(&mut tx, contact, channel, purpose, consent, Actor::Operator).await.unwrap();
        tx.commit().await.unwrap();
        set
    };
    assert!(by_hand(Consent::OptedIn).await);
    assert!(!by_hand(Consent::OptedIn).await, "again it is no change");
    stage.tell(vec![change(Consent::OptedOut, second(2))]).await;
    assert_eq!(stage.wishes().await, json!([["whatsapp", "marketing", "opted_in", "by hand"]]), "that was before");
    let audited = "SELECT jsonb_agg(jsonb_build_array(action, details ->> 'before', details ->> 'after')) FROM audit";
    assert_eq!(stage.row(audited).await, json!([["contact.opted_in", "opted_out", "opted_in"]]));
}

#[tokio::test]
async fn who_says_start_undoes_also_what_was_ended_by_hand() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let contact = stage.contact(&ada()).await.unwrap();
    for purpose in Purpose::ALL {
        let mut tx = stage.request().await;
        let (channel, consent) = (Channel::Whatsapp, Consent::OptedOut);
        suppressions::set_by_hand(&mut tx, contact, channel, *purpose, consent, Actor::Operator).await.unwrap();
        tx.commit().await.unwrap();
    }
    stage.execute("UPDATE suppressions SET since = '2020-01-01'").await;
    stage.tell(vec![said(&ada(), "wamid.2", "START", second(2))]).await;
    let wishes = json!([["whatsapp", "all", "opted_in", "keyword"], ["whatsapp", "marketing", "opted_in", "keyword"]]);
    assert_eq!(stage.wishes().await, wishes);
}

/// People opt out at any moment while two campaigns are released, granted and sent: what is granted to somebody is granted before
/// the commit of what they said.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_of_a_campaign_is_granted_to_who_has_opted_out() {
    const PEOPLE: usize = 200;
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let contacts = stage.people(PEOPLE).await;
    // So many that there are always some to be released, some that wait, and some on their way.
    sqlx::query(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, burst) VALUES ($1, 'account', $2, 60, 60, 30)",
    )
    .bind(stage.tenant)
    .bind(stage.account)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    let campaigns = [stage.campaign().await, stage.campaign().await, stage.campaign().await];
    stage.release().await;
    let over = Arc::new(AtomicBool::new(false));
    let since: Arc<Mutex<BTreeMap<ContactId, DateTime<Utc>>>> = Arc::default();
    let waiting: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new((0..PEOPLE).collect()));
    let stage = Arc::new(stage);
    let opting_out = (0..3).map(|_| {
        let (stage, waiting, since, contacts) = (stage.clone(), waiting.clone(), since.clone(), contacts.clone());
        async move {
            loop {
                let next = {
                    let mut waiting = waiting.lock().unwrap();
                    let place = rand::random_range(0..waiting.len().max(1));
                    (!waiting.is_empty()).then(|| waiting.swap_remove(place))
                };
                let Some(n) = next else { return };
                let stop = said(&nth(n), &format!("wamid.stop.{n}"), "STOP", Utc::now());
                let committed = stage.apply(&[stage.webhook(vec![stop])]).await;
                since.lock().unwrap().insert(contacts[n], committed);
            }
        }
    });
    let sending = (0..3).map(|_| {
        let (stage, over) = (stage.clone(), over.clone());
        async move {
            let mut fleet = stage.database.admin().await;
            while !over.load(Ordering::SeqCst) {
                let some: Vec<MessageId> = sqlx::query_scalar(
                    "SELECT message_id FROM sends WHERE state IN ('waiting', 'queued') ORDER BY random() LIMIT 20",
                )
                .fetch_all(&mut fleet)
                .await
                .unwrap();
                let judged = stage.ask(&some).await;
                stage.settle(&judged).await;
            }
        }
    });
    let releasing = async {
        while !over.load(Ordering::SeqCst) {
            stage.release().await;
        }
    };
    let all_have = async {
        futures_util::future::join_all(opting_out).await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(all_have, releasing, futures_util::future::join_all(sending));
    // Whatever is left is asked for until it has been its turn at the meter.
    stage.release().await;
    let mut admin = stage.database.admin().await;
    loop {
        let left: Vec<MessageId> =
            sqlx::query_scalar("SELECT message_id FROM sends WHERE state IN ('waiting', 'queued')")
                .fetch_all(&mut admin)
                .await
                .unwrap();
        if left.is_empty() {
            break;
        }
        let judged = stage.ask(&left).await;
        stage.settle(&judged).await;
    }
    let granted: Vec<(ContactId, DateTime<Utc>)> = sqlx::query_as(
        "SELECT v.contact_id, max(s.granted_at)
        FROM sends s JOIN conversations v ON v.tenant_id = s.tenant_id AND v.id = s.conversation_id
        WHERE s.granted_at IS NOT NULL GROUP BY 1",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let since = since.lock().unwrap().clone();
    assert_eq!(since.len(), PEOPLE);
    for (contact, granted_at) in &granted {
        assert!(granted_at <= &since[contact], "granted {granted_at}, and opted out by {}", since[contact]);
    }
    let ended: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sends WHERE code = 'opted_out'").fetch_one(&mut admin).await.unwrap();
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM sends WHERE state IN ('waiting', 'queued', 'sending')")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(!granted.is_empty() && ended > 0, "both happened: {} granted, {ended} ended", granted.len());
    assert_eq!(open, 0, "nothing is left open");
    for id in campaigns {
        stage.expect_books_to_agree(id).await;
    }
}
