//! What is told of customer service windows, and that nobody who follows misses any of it.

use super::{Stage, ada, message, person, said, second};
use crate::queue::until;
use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    db::feed::{self, End, Feed, Filter},
    domain::{
        channel::Provider,
        events::Event,
        feed::Kind,
        messages::MessageKind,
        people::{AliasKind, Person},
    },
};
use sqlx::Connection;
use uuid::Uuid;

fn grace() -> Person {
    person(AliasKind::WhatsappId, "15557770124")
}

impl Stage {
    async fn follow(&self, filter: Filter, after: Option<(i64, Uuid)>) -> Feed {
        let mut tx = self.request().await;
        let feed = feed::list(&mut tx, filter, after, 2).await.unwrap().expect("a place on this database");
        tx.commit().await.unwrap();
        feed
    }

    /// Until no transaction of anybody on this server may still add something in between.
    async fn settle_events(&mut self) {
        let settled =
            "SELECT count(*) FROM events WHERE position >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        until("the events have settled", async || self.count(settled).await == 0).await;
    }

    /// Everything from the beginning, page by page.
    async fn kinds(&mut self) -> Vec<String> {
        self.settle_events().await;
        let (mut kinds, mut after) = (Vec::new(), None);
        loop {
            let Feed { events, next, more } = self.follow(Filter::default(), after).await;
            kinds.extend(events.into_iter().map(|event| event.kind));
            after = Some(next);
            if !more {
                return kinds;
            }
        }
    }

    async fn look(&self) {
        for end in [End::Near(TimeDelta::hours(1)), End::Reached] {
            let mut tx = self.fleet().await;
            assert!(!feed::tell_of_windows(&mut tx, end).await.unwrap(), "all at once");
            tx.commit().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_window_is_told_of_before_it_ends_when_it_has_and_when_it_opens_again() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "one", second(1)), said(&grace(), "wamid.2", "two", second(2))]).await;
    stage.look().await;
    assert_eq!(stage.kinds().await, [""; 0], "of a new conversation it goes without saying");
    let opened = "SELECT count(*) FROM conversations WHERE window_opened_at IS NOT NULL";
    assert_eq!(stage.count(opened).await, 2);

    // An hour and a bit is left, as the clock stood when the first was told.
    let set = "UPDATE clocks SET at = now() - interval '1 minute'";
    stage.execute(set).await;
    stage
        .execute(
            "UPDATE conversations SET window_expires_at = now() + interval '50 minutes'
            WHERE contact_id = (SELECT contact_id FROM contact_aliases WHERE value = '15557770123')",
        )
        .await;
    stage.look().await;
    stage.look().await;
    assert_eq!(stage.kinds().await, ["conversation.window_closing"], "once, and of one");

    stage.execute("UPDATE clocks SET at = now() - interval '1 minute' WHERE name = 'window_closed'").await;
    stage.execute("UPDATE conversations SET window_expires_at = now() - interval '40 seconds' WHERE window_expires_at < now() + interval '1 hour'").await;
    stage.look().await;
    stage.look().await;
    assert_eq!(stage.kinds().await, ["conversation.window_closing", "conversation.window_closed"]);

    // What comes late opens nothing, what is played again is no news, and a further message of an open window is none either.
    let old = Utc::now() - TimeDelta::hours(25);
    let late = said(&ada(), "wamid.3", "late", old);
    let at = second(3);
    let (third, fourth) = (said(&ada(), "wamid.4", "three", at), said(&ada(), "wamid.5", "four", at));
    stage.tell(vec![late]).await;
    assert_eq!(stage.kinds().await.len(), 2);
    stage.tell(vec![third, fourth]).await;
    let all = ["conversation.window_closing", "conversation.window_closed", "conversation.window_opened"];
    assert_eq!(stage.kinds().await, all);
    stage.apply(&[stage.replay(vec![said(&ada(), "wamid.4", "three", second(3))])]).await;
    assert_eq!(stage.kinds().await, all);

    let only = Filter { kind: Some(Kind::WindowOpened), ..Filter::default() };
    let feed = stage.follow(only, None).await;
    assert_eq!(feed.events.len(), 1);
    let ends = feed.events[0].details["window_expires_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
    assert_eq!(ends, Some(at + TimeDelta::days(1)));
    assert!(feed.events[0].conversation_id.is_some());
    let later = Filter { since: Some(Utc::now() + TimeDelta::minutes(1)), ..Filter::default() };
    assert!(stage.follow(later, None).await.events.is_empty());
}

#[tokio::test]
async fn of_what_is_done_with_nothing_ends() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let person = person(AliasKind::MessengerId, "24000000000001");
    stage.tell(vec![said(&person, "m_1", "one", second(1))]).await;
    stage.execute("UPDATE clocks SET at = now() - interval '1 hour'").await;
    stage
        .execute(
            "UPDATE conversations SET state = 'resolved', resolved_at = now() - interval '8 days',
                window_expires_at = now() - interval '10 minutes'",
        )
        .await;
    stage.look().await;
    assert_eq!(stage.kinds().await, [""; 0]);
    // A reaction wakes nobody: the conversation stays resolved, and its window is nobody's concern.
    let reaction = message(&person, "m_2", MessageKind::Reaction, None, second(2));
    stage.tell(vec![Event::Message(Box::new(reaction))]).await;
    assert_eq!(stage.kinds().await, [""; 0]);
}

#[tokio::test]
async fn who_follows_misses_nothing_that_commits_late() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let insert = "INSERT INTO events (tenant_id, kind, details) VALUES ($1, $2, '{}')";
    let mut late = stage.database.admin().await;
    let mut open = late.begin().await.unwrap();
    sqlx::query(insert).bind(stage.tenant).bind("late").execute(&mut *open).await.unwrap();
    sqlx::query(insert).bind(stage.tenant).bind("early").execute(&mut stage.admin).await.unwrap();
    let Feed { events, next, more } = stage.follow(Filter::default(), None).await;
    assert!(events.is_empty() && !more, "what is behind one that may still come waits with it");
    open.commit().await.unwrap();
    stage.settle_events().await;
    let Feed { events, next: end, .. } = stage.follow(Filter::default(), Some(next)).await;
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["late", "early"]);
    assert!(stage.follow(Filter::default(), Some(end)).await.events.is_empty());
}
