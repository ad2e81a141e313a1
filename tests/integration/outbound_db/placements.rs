//! Two databases, one tenant in each: code that asks for a tenant's transaction never knows which it gets.

use super::{CALL_WITHIN, Given, PATIENCE, ROOM, make_account, make_conversation, make_send};
use shared::{
    db::{
        Placement, conversations, messages,
        outbound::{
            grant::{Answer, Held, grant},
            outcomes::{Place, Record, What, record},
        },
        routing, tenants,
    },
    domain::{
        channel::Channel,
        ids::{AttemptId, TenantId},
        sends::SendState::Queued,
        tenants::Slug,
    },
};
use sqlx::PgConnection;
use std::time::Duration;
use support::{
    database::{Role, database, placement},
    relay::Relay,
};

async fn count(admin: &mut PgConnection, tenant: TenantId) -> i64 {
    let question = "SELECT (SELECT count(*) FROM messages WHERE tenant_id = $1) + (SELECT count(*) FROM send_attempts WHERE tenant_id = $1)";
    sqlx::query_scalar(question).bind(tenant).fetch_one(admin).await.unwrap()
}

#[tokio::test]
async fn a_tenant_placed_elsewhere_lives_there_and_only_there() {
    let (control, elsewhere) = (database().await, placement().await);
    let known = [("elsewhere", &elsewhere)];
    let operator = control.databases_with(Role::Operator, &known);
    let workers = control.databases_with(Role::Worker, &known);
    let api = control.databases_with(Role::Api, &known);
    for databases in [&operator, &workers, &api] {
        databases.check().await.expect("both databases are as they must be");
    }

    let mut admin = control.admin().await;
    sqlx::query("INSERT INTO control.placements (name) VALUES ('elsewhere')").execute(&mut admin).await.unwrap();
    let mut tx = operator.control().await.unwrap();
    let mut created = Vec::new();
    for (slug, place) in [("near", Placement::primary()), ("far", Placement::named("elsewhere"))] {
        let slug: Slug = slug.parse().unwrap();
        created.push((
            tenants::create(&mut tx, &slug, "Somebody", &place).await.unwrap().expect("the name is free"),
            place,
        ));
    }
    tx.commit().await.unwrap();

    let mut admins = [admin, elsewhere.admin().await];
    for (at, (tenant, place)) in created.iter().enumerate() {
        let mut tx = workers.control().await.unwrap();
        assert_eq!(routing::find_placement(&mut tx, *tenant).await.unwrap().as_ref(), Some(place));
        assert_eq!(routing::tenants_of(&mut tx, place).await.unwrap(), [*tenant]);
        tx.commit().await.unwrap();

        let account = make_account(&mut admins[at], *tenant).await;
        let conversation = make_conversation(&mut admins[at], *tenant, account).await;
        let given = Given { conversation, seq: 1, state: Queued, attempt: AttemptId::new() };
        let message = make_send(&mut admins[at], *tenant, account, given).await;

        let mut tx = workers.fleet(place, &[*tenant]).await.unwrap();
        let held = [Held { tenant_id: *tenant, message_id: message, attempt_id: AttemptId::new() }];
        let answers = grant(&mut tx, &held, CALL_WITHIN, &ROOM).await.unwrap();
        let Answer::Granted(granted) = &answers[0].answer else { panic!("{answers:?}") };
        let accepted = What::Accepted { attempt_id: granted.attempt_id, provider_message_id: "wamid.1".into() };
        let place_of_send = Place {
            channel_account_id: account,
            channel: Channel::Whatsapp,
            account_revision: 1,
            probe: false,
            serial: false,
            conversation_id: conversation,
        };
        let records = [Record {
            tenant_id: *tenant,
            message_id: message,
            place: Some(place_of_send),
            what: accepted,
            slice: None,
        }];
        record(&mut tx, &records, PATIENCE).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = api.tenant(place, *tenant).await.unwrap();
        assert!(conversations::find(&mut tx, conversation).await.unwrap().is_some());
        let shown = messages::find(&mut tx, message).await.unwrap().expect("the API shows it");
        assert_eq!(shown.state.as_deref(), Some("sent"));
        tx.commit().await.unwrap();

        let other = created[1 - at].1.clone();
        let mut tx = api.tenant(&other, *tenant).await.unwrap();
        assert!(messages::find(&mut tx, message).await.unwrap().is_none(), "it is not in the other database");
        tx.commit().await.unwrap();
        assert_eq!((count(&mut admins[at], *tenant).await, count(&mut admins[1 - at], *tenant).await), (2, 0));
    }
}

#[tokio::test]
async fn a_placement_that_a_process_does_not_know_is_its_own_fault_and_not_the_jobs() {
    let control = database().await;
    let workers = control.databases(Role::Worker);
    let error =
        workers.fleet(&Placement::named("elsewhere"), &[TenantId::new()]).await.err().expect("it cannot be reached");
    assert_eq!(error.kind(), shared::db::Kind::Ours);
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

#[tokio::test]
async fn a_connection_that_never_answers_again_does_not_keep_its_place() {
    let database = database().await;
    let mut url = database.url(Role::Worker);
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
    let server = tokio::net::lookup_host(server).await.unwrap().next().expect("an address");
    let relay = Relay::to(server).await.unwrap();
    url.set_ip_host(relay.address().ip()).unwrap();
    url.set_port(Some(relay.address().port())).unwrap();
    let settings = shared::db::Settings {
        control: url.to_string().into(),
        placements: [].into(),
        max_connections: 1,
        application_name: "mijra-tests".into(),
    };
    let databases = shared::db::Databases::new(&settings).unwrap();
    let mut tx = databases.control().await.unwrap();
    // As after a failover: nothing comes back any more, and nobody says that the connection is gone.
    relay.forget();
    let question = routing::find_placement(&mut tx, TenantId::new());
    assert!(tokio::time::timeout(Duration::from_millis(100), question).await.is_err());
    drop(tx);
    let asked = async {
        loop {
            if let Ok(mut tx) = databases.control().await
                && routing::find_placement(&mut tx, TenantId::new()).await.is_ok()
            {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("the place is free again");
    assert_eq!(relay.accepted(), 2, "by a new connection");
}
