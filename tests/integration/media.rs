//! What is written down of files, people and objects in storage, as the role the workers have.

use chrono::{TimeDelta, Utc};
use shared::{
    db::{
        Databases, FleetTx, Placement,
        audit::Actor,
        media::{
            self, NewMedia,
            again::{Which, fetch_again},
            fetching::{self, Attempt, Claim, Ending, Stored, Why, claim, record},
            objects,
            profiles::{self, Answer, Avatar, Nameless},
        },
        outbox::OutboxRow,
        retention,
    },
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, ContactId, ConversationId, MediaId, MessageId, TenantId},
        media::{MediaState, object_key},
        messages::{MediaRef, MessageKind},
    },
    jobs::media::{MediaJob, Task},
};
use sqlx::{AssertSqlSafe, PgConnection};
use support::database::{Database, Role, database};
use uuid::Uuid;

struct Stage {
    database: Database,
    admin: PgConnection,
    workers: Databases,
    tenant: TenantId,
    account: ChannelAccountId,
    contact: ContactId,
    conversation: ConversationId,
}

impl Stage {
    async fn new() -> Self {
        let database = database().await;
        let mut admin = database.admin().await;
        let (tenant, account, contact, conversation) =
            (TenantId::new(), ChannelAccountId::new(), ContactId::new(), ConversationId::new());
        let rows = format!(
            "INSERT INTO control.tenants (id, slug, name) VALUES ('{tenant}', 'acme', 'Acme');
            INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
            VALUES ('{tenant}', '{account}', 'instagram', 'Shop', '178', 'sealed', 'test');
            INSERT INTO contacts (tenant_id, id) VALUES ('{tenant}', '{contact}');
            INSERT INTO conversations
                (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction)
            VALUES ('{tenant}', '{conversation}', '{contact}', '{account}', 'open', 'inbound', now(), 'in')"
        );
        sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut admin).await.unwrap();
        let workers = database.databases(Role::Worker);
        Self { database, admin, workers, tenant, account, contact, conversation }
    }

    async fn message(&mut self, id: &str) -> MessageId {
        let (tenant, account, conversation) = (self.tenant, self.account, self.conversation);
        let message = MessageId::new();
        let rows = format!(
            "INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, content, provider_message_id, at)
            VALUES ('{tenant}', '{message}', '{conversation}', 'in', 'image', '{{}}', '{id}', now());
            INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id)
            VALUES ('{tenant}', '{account}', '{id}', '{message}')"
        );
        sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut self.admin).await.unwrap();
        message
    }

    /// Writes down the files of a message; the jobs that came of it.
    async fn insert(&self, id: &str, kind: MessageKind, media: &[MediaRef]) -> Vec<Task> {
        let new = NewMedia {
            tenant_id: self.tenant,
            channel_account_id: self.account,
            provider: Provider::Instagram,
            channel: Channel::Instagram,
            kind,
            provider_message_id: id,
            at: Utc::now(),
            media,
        };
        let mut tx = self.workers.fleet(&Placement::primary(), &[self.tenant]).await.unwrap();
        media::insert(&mut tx, &[new]).await.unwrap();
        tasks(tx.commit().await.unwrap())
    }

    /// Fetches a file as if it had these bytes.
    async fn store(&self, media_id: MediaId, digest: u8) -> Vec<Task> {
        let key = object_key(self.tenant, &[digest; 32]);
        let mut tx = self.workers.fleet(&Placement::primary(), &[self.tenant]).await.unwrap();
        let claimed = Uuid::now_v7();
        let found = claim(&mut tx, self.tenant, media_id, claimed, TimeDelta::minutes(5)).await.unwrap();
        assert!(matches!(found, Claim::Ours(_)), "{found:?}");
        assert_eq!(objects::touch(&mut tx, self.tenant, std::slice::from_ref(&key)).await.unwrap(), None);
        let stored = Stored {
            storage_key: key,
            size_bytes: 3,
            sha256: [digest; 32],
            content_type: "image/png".into(),
            filename: None,
            dimensions: Some((1, 2)),
            duration_ms: None,
            thumbnail_key: None,
            remark: None,
        };
        let ending = Ending::Stored(Box::new(stored));
        let attempt = Attempt { tenant_id: self.tenant, media_id, claim: claimed, ending };
        // Twice is once.
        record(&mut tx, &[&attempt]).await.unwrap();
        record(&mut tx, &[&attempt]).await.unwrap();
        tasks(tx.commit().await.unwrap())
    }

    /// Looks at the objects that are due for it; the jobs that came of it.
    async fn check(&self) -> Vec<Task> {
        let mut tx = self.workers.fleet(&Placement::primary(), &[self.tenant]).await.unwrap();
        retention::check_objects(&mut tx).await.unwrap();
        tasks(tx.commit().await.unwrap())
    }

    async fn execute(&mut self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&mut self.admin).await.unwrap();
    }

    async fn text(&mut self, question: &'static str) -> String {
        sqlx::query_scalar::<_, Option<String>>(question).fetch_one(&mut self.admin).await.unwrap().unwrap_or_default()
    }
}

fn tasks(rows: Vec<OutboxRow>) -> Vec<Task> {
    rows.iter().map(|row| MediaJob::from_job(&row.job).unwrap().task).collect()
}

fn file(url: Option<&str>) -> MediaRef {
    MediaRef { url: url.map(str::to_owned), ..MediaRef::default() }
}

fn fetched(tasks: &[Task]) -> MediaId {
    match tasks {
        [Task::Fetch { media_id, .. }] => *media_id,
        other => panic!("one file, not {other:?}"),
    }
}

#[tokio::test]
async fn files_are_written_down_once_and_what_leads_nowhere_says_so() {
    let mut stage = Stage::new().await;
    stage.message("mid.1").await;
    let files = [file(Some("https://a.example/1")), file(None), file(Some("https://a.example/2"))];
    assert_eq!(stage.insert("mid.1", MessageKind::Image, &files).await.len(), 2);
    assert_eq!(stage.insert("mid.1", MessageKind::Image, &files).await, [], "played again, nothing is new");
    assert_eq!(
        stage.insert("mid.unknown", MessageKind::Image, &files).await,
        [],
        "a message that is not there has none"
    );
    let states = "SELECT string_agg(state || coalesce(' ' || code, ''), ', ' ORDER BY position) FROM media";
    assert_eq!(stage.text(states).await, "waiting, failed no_source, waiting");
}

#[tokio::test]
async fn a_file_is_fetched_by_one_at_a_time_and_put_off_with_a_reason() {
    let mut stage = Stage::new().await;
    stage.message("mid.1").await;
    let id = fetched(&stage.insert("mid.1", MessageKind::Image, &[file(Some("https://a.example/1"))]).await);
    let tenant = stage.tenant;
    let begin = async || stage.workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
    let mut tx = begin().await;
    let minutes = TimeDelta::minutes(5);
    assert!(matches!(claim(&mut tx, tenant, id, mine, minutes).await.unwrap(), Claim::Ours(_)));
    tx.commit().await.unwrap();
    let mut tx = begin().await;
    let Claim::Anothers(left) = claim(&mut tx, tenant, id, other, minutes).await.unwrap() else {
        panic!("it is taken");
    };
    assert!(left > TimeDelta::minutes(4) && left <= minutes, "{left}");
    let put_off = |claim| {
        let why = Why { code: "throttled", reason: "Later.".into() };
        let ending = Ending::PutOff { after: TimeDelta::seconds(30), why };
        Attempt { tenant_id: tenant, media_id: id, claim, ending }
    };
    record(&mut tx, &[&put_off(other), &put_off(mine), &put_off(mine)]).await.unwrap();
    assert!(matches!(claim(&mut tx, tenant, id, other, minutes).await.unwrap(), Claim::Ours(_)));
    let over = Ending::Over { state: MediaState::Refused, why: Why { code: "too_large", reason: "No.".into() } };
    record(&mut tx, &[&Attempt { tenant_id: tenant, media_id: id, claim: other, ending: over }]).await.unwrap();
    assert!(matches!(claim(&mut tx, tenant, id, mine, minutes).await.unwrap(), Claim::Over));
    tx.commit().await.unwrap();
    let found = "SELECT state || ' ' || code || ' ' || attempts FROM media";
    assert_eq!(stage.text(found).await, "refused too_large 2", "a stranger's attempt counts for nothing");
    assert_eq!(
        stage.text("SELECT count(*)::text FROM outbox WHERE publish_after > now() + interval '20 s'").await,
        "1"
    );
}

/// Claims a file for no time at all: how many looks at it were lost before.
async fn lost(tx: &mut FleetTx, tenant: TenantId, id: MediaId, as_what: Uuid) -> i32 {
    match claim(tx, tenant, id, as_what, TimeDelta::zero()).await.unwrap() {
        Claim::Ours(file) => file.lost,
        other => panic!("it is free, not {other:?}"),
    }
}

#[tokio::test]
async fn only_a_look_that_nobody_came_back_from_is_counted() {
    let mut stage = Stage::new().await;
    stage.message("mid.1").await;
    let id = fetched(&stage.insert("mid.1", MessageKind::Image, &[file(Some("https://a.example/1"))]).await);
    let tenant = stage.tenant;
    let mut tx = stage.workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(lost(&mut tx, tenant, id, Uuid::now_v7()).await, 0);
    assert_eq!(
        lost(&mut tx, tenant, id, first).await,
        0,
        "a claim alone is no look: a process may end for many reasons"
    );
    for _ in 0..2 {
        fetching::examining(&mut tx, tenant, id, first).await.unwrap();
    }
    assert_eq!(lost(&mut tx, tenant, id, first).await, 0, "asked again after an answer that was lost");
    assert_eq!(lost(&mut tx, tenant, id, second).await, 1, "said twice is said once");
    fetching::examined(&mut tx, tenant, id, second).await.unwrap();
    fetching::examining(&mut tx, tenant, id, second).await.unwrap();
    for _ in 0..2 {
        fetching::examined(&mut tx, tenant, id, second).await.unwrap();
    }
    assert_eq!(lost(&mut tx, tenant, id, third).await, 1, "who came back takes back their own");
    fetching::examining(&mut tx, tenant, id, third).await.unwrap();
    let why = Why { code: "sealing_key_missing", reason: "It waits for us.".into() };
    fetching::release(&mut tx, tenant, id, third, Some(&why)).await.unwrap();
    let fourth = Uuid::now_v7();
    assert_eq!(lost(&mut tx, tenant, id, fourth).await, 1, "what is given back is not lost");
    fetching::examining(&mut tx, tenant, id, fourth).await.unwrap();
    let why = Why { code: "throttled", reason: "Later.".into() };
    let ending = Ending::PutOff { after: TimeDelta::zero(), why };
    record(&mut tx, &[&Attempt { tenant_id: tenant, media_id: id, claim: fourth, ending }]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.text("SELECT claims || ' ' || attempts FROM media").await, "1 1", "nor what failed in good order");
}

#[tokio::test]
async fn a_file_that_was_given_up_is_asked_for_again_by_hand_unless_it_may_not_be_kept() {
    let mut stage = Stage::new().await;
    for id in ["mid.1", "mid.2", "mid.3", "mid.4", "mid.5"] {
        stage.message(id).await;
    }
    let link = [file(Some("https://a.example/1"))];
    let failed = fetched(&stage.insert("mid.1", MessageKind::Image, &link).await);
    stage.insert("mid.2", MessageKind::StoryMention, &link).await;
    let refused = fetched(&stage.insert("mid.3", MessageKind::Image, &link).await);
    stage.insert("mid.4", MessageKind::Image, &[file(None)]).await;
    let elsewhere = fetched(&stage.insert("mid.5", MessageKind::Image, &link).await);
    stage
        .execute("UPDATE media SET state = 'failed', attempts = 9, claims = 4, code = 'gone', settled_at = now()")
        .await;
    stage.execute("UPDATE media SET keep_until = now() WHERE keep_until IS NOT NULL").await;
    // Its host may be allowed by now; what else we do not want, we want no more than before.
    for (id, code) in [(refused, "wrong_type"), (elsewhere, "host_not_allowed")] {
        sqlx::query("UPDATE media SET state = 'refused', code = $2 WHERE id = $1")
            .bind(id)
            .bind(code)
            .execute(&mut stage.admin)
            .await
            .unwrap();
    }
    let api = stage.database.databases(Role::Api);
    let again = async |which: &Which| {
        let mut tx = api.tenant(&Placement::primary(), stage.tenant).await.unwrap();
        let asked = fetch_again(&mut tx, which, None, Actor::Operator).await.unwrap();
        (asked, tasks(tx.commit().await.unwrap()))
    };
    let others = Which { channel_account_id: Some(ChannelAccountId::new()), ..Which::default() };
    assert_eq!(again(&others).await, (vec![], vec![]));
    let later = Which { since: Some(Utc::now() + TimeDelta::hours(1)), ..Which::default() };
    assert_eq!(again(&later).await, (vec![], vec![]));
    let task = |media_id| Task::Fetch { media_id, channel_account_id: Some(stage.account) };
    assert_eq!(again(&Which::default()).await, (vec![failed, elsewhere], vec![task(failed), task(elsewhere)]));
    assert_eq!(again(&Which::default()).await, (vec![], vec![]), "it is being fetched");
    let states = "SELECT string_agg(state, ' ' ORDER BY id) FROM media";
    assert_eq!(stage.text(states).await, "waiting failed refused failed waiting");
    let now = "SELECT DISTINCT attempts || ' ' || claims || ' ' || (asked_at > created_at) || ' ' || (code IS NULL) FROM media WHERE state = 'waiting'";
    assert_eq!(stage.text(now).await, "0 0 true true");
    assert_eq!(
        stage.text("SELECT string_agg(action || ' ' || (details ->> 'files'), ',') FROM audit").await,
        "media.asked_again 2"
    );
}

#[tokio::test]
async fn a_picture_of_somebody_that_is_just_being_deleted_is_asked_for_once_more() {
    let mut stage = Stage::new().await;
    let (tenant, contact) = (stage.tenant, stage.contact);
    let nameless = Nameless {
        tenant_id: tenant,
        contact_id: contact,
        channel_account_id: stage.account,
        provider: Provider::Instagram,
        person_id: "980".into(),
    };
    let mut tx = stage.workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    profiles::ask(&mut tx, &[nameless]).await.unwrap();
    tx.commit().await.unwrap();
    // Nobody has announced it, or it is marked: it is the same.
    let avatar = Avatar { storage_key: object_key(tenant, &[3; 32]), content_type: "image/jpeg".into(), size_bytes: 9 };
    let known = Answer::Known { name: Some("Mina Sato".into()), username: None, avatar: Some(avatar.clone()) };
    let answer = async |stage: &mut Stage| {
        let mut tx = stage.workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
        media::lock(&mut tx, &[], &[(tenant, contact)]).await.unwrap();
        profiles::record(&mut tx, tenant, contact, &known).await.unwrap();
        tasks(tx.commit().await.unwrap())
    };
    assert_eq!(answer(&mut stage).await, [], "not at once");
    let later = "SELECT string_agg(p.state || ' ' || p.code, ',') FROM contact_profiles p
        WHERE EXISTS (SELECT FROM outbox WHERE publish_after > now() + interval '1 minute')";
    assert_eq!(stage.text(later).await, "waiting storage_busy");
    let mut tx = stage.workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    objects::touch(&mut tx, tenant, std::slice::from_ref(&avatar.storage_key)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(answer(&mut stage).await, []);
    assert_eq!(
        stage.text("SELECT state || ' ' || storage_key FROM contact_profiles").await,
        format!("known {}", avatar.storage_key)
    );
    assert_eq!(stage.text("SELECT name FROM contacts").await, "Mina Sato");
}

#[tokio::test]
async fn an_object_that_is_being_let_go_of_is_not_looked_at_before_that_is_over() {
    let mut stage = Stage::new().await;
    stage.message("mid.1").await;
    let id = fetched(&stage.insert("mid.1", MessageKind::Image, &[file(Some("https://a.example/1"))]).await);
    stage.store(id, 1).await;
    stage.execute("UPDATE media_objects SET check_at = now() - interval '1 minute'").await;
    let mut other = stage.database.admin().await;
    sqlx::raw_sql("BEGIN; DELETE FROM media").execute(&mut other).await.unwrap();
    assert_eq!(stage.check().await, []);
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(stage.check().await, [Task::Delete { keys: vec![object_key(stage.tenant, &[1; 32])] }]);
}

#[tokio::test]
async fn an_object_goes_when_nobody_refers_to_it_any_more_and_not_before() {
    let mut stage = Stage::new().await;
    for id in ["mid.1", "mid.2"] {
        stage.message(id).await;
    }
    let link = [file(Some("https://a.example/1"))];
    let story = fetched(&stage.insert("mid.1", MessageKind::StoryMention, &link).await);
    let picture = fetched(&stage.insert("mid.2", MessageKind::Image, &link).await);
    // The same bytes twice: one object.
    assert_eq!((stage.store(story, 7).await, stage.store(picture, 7).await), (vec![], vec![]));
    assert_eq!(stage.text("SELECT count(*)::text FROM media_objects").await, "1");
    stage.execute("UPDATE media_objects SET check_at = now()").await;
    assert_eq!(stage.check().await, [], "both refer to it");
    // A day later.
    stage.execute("UPDATE media SET keep_until = now() WHERE keep_until IS NOT NULL").await;
    let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
    assert_eq!(retention::expire_files(&mut tx).await.unwrap().rows, 1);
    tx.commit().await.unwrap();
    assert_eq!(stage.check().await, [], "the picture still does");
    let key = object_key(stage.tenant, &[7; 32]);
    stage.execute("DELETE FROM messages WHERE provider_message_id = 'mid.2'").await;
    let states = "SELECT string_agg(state || ' ' || coalesce(code, ''), ', ') FROM media";
    assert_eq!(stage.text(states).await, "expired kept_long_enough", "the file went with its message");
    assert_eq!(stage.check().await, [Task::Delete { keys: vec![key.clone()] }]);
    assert_eq!(stage.check().await, [], "it is being deleted");
    let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
    let keys = [key];
    assert!(objects::touch(&mut tx, stage.tenant, &keys).await.unwrap().is_some(), "who wants to store it waits");
    assert_eq!(objects::deletable(&mut tx, stage.tenant, &keys).await.unwrap(), keys);
    assert!(objects::deletable(&mut tx, stage.tenant, &keys).await.unwrap().is_empty(), "one alone deletes it");
    assert!(objects::touch(&mut tx, stage.tenant, &keys).await.unwrap().is_some(), "who wants to store it still waits");
    objects::forget(&mut tx, stage.tenant, &keys).await.unwrap();
    assert_eq!(objects::touch(&mut tx, stage.tenant, &keys).await.unwrap(), None);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_file_whose_object_is_being_deleted_is_fetched_once_more() {
    let mut stage = Stage::new().await;
    stage.message("mid.1").await;
    let id = fetched(&stage.insert("mid.1", MessageKind::Image, &[file(Some("https://a.example/1"))]).await);
    let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
    let claimed = Uuid::now_v7();
    claim(&mut tx, stage.tenant, id, claimed, TimeDelta::minutes(5)).await.unwrap();
    let stored = Stored {
        storage_key: object_key(stage.tenant, &[9; 32]),
        size_bytes: 3,
        sha256: [9; 32],
        content_type: "image/png".into(),
        filename: None,
        dimensions: None,
        duration_ms: None,
        thumbnail_key: None,
        remark: None,
    };
    let ending = Ending::Stored(Box::new(stored));
    record(&mut tx, &[&Attempt { tenant_id: stage.tenant, media_id: id, claim: claimed, ending }]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.text("SELECT state || ' ' || code FROM media").await, "waiting storage_busy");
    assert_eq!(stage.text("SELECT count(*)::text FROM outbox").await, "2");
}

#[tokio::test]
async fn somebody_without_a_name_is_asked_about_once_a_day_and_a_name_stays() {
    let mut stage = Stage::new().await;
    let (tenant, contact) = (stage.tenant, stage.contact);
    let nameless = Nameless {
        tenant_id: tenant,
        contact_id: contact,
        channel_account_id: stage.account,
        provider: Provider::Instagram,
        person_id: "980".into(),
    };
    let workers = stage.workers.clone();
    let ask = async || {
        let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
        profiles::ask(&mut tx, std::slice::from_ref(&nameless)).await.unwrap();
        tasks(tx.commit().await.unwrap())
    };
    let answer = async |answer: Answer| {
        let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
        profiles::record(&mut tx, tenant, contact, &answer).await.unwrap();
        tx.commit().await.unwrap();
    };
    let asked = [Task::Profile { contact_id: contact }];
    assert_eq!((ask().await, ask().await), (asked.to_vec(), vec![]));
    answer(Answer::Unavailable { code: "230".into(), reason: "No consent.".into() }).await;
    assert_eq!(ask().await, [], "not before the day is over");
    stage.execute("UPDATE contact_profiles SET ask_again_at = now()").await;
    assert_eq!(ask().await, asked);
    let known = |name: &str| Answer::Known { name: Some(name.into()), username: Some("ring.fan".into()), avatar: None };
    answer(known("Mina Sato")).await;
    assert_eq!(stage.text("SELECT name || ' ' || username FROM contacts").await, "Mina Sato ring.fan");
    stage.execute("UPDATE contact_profiles SET ask_again_at = now(), state = 'waiting'").await;
    assert_eq!(ask().await, [], "who has a name is not asked about");
    answer(known("Somebody Else")).await;
    assert_eq!(stage.text("SELECT name FROM contacts").await, "Mina Sato");
}
