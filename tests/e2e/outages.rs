//! Servers that go away under load and come back.

use crate::{CLOSING, SOON, quick, until};
use serde_json::{Value, json};
use std::time::Duration;
use support::{
    books,
    fleet::{Fleet, Server},
    programs::Program,
    traffic::Traffic,
};

const SMALL: Traffic =
    Traffic { webhooks_per_second: 20.0, replies_per_second: 20.0, lasts: Duration::from_secs(8), seed: 31 };

async fn under_load(fleet: &Fleet, trouble: impl Future<Output = ()>) {
    let parties = fleet.acquaint(31, 10).await;
    let (accepted, ()) = tokio::join!(SMALL.run(fleet, &parties), trouble);
    let books = books::close(fleet, &accepted, CLOSING).await;
    books.assert_agree();
    fleet.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_broker_connection_is_made_again() {
    let fleet = quick().relay(Server::Broker, &Program::ALL).start().await;
    under_load(&fleet, async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            fleet.relay(Server::Broker).cut();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_goes_away_for_a_while() {
    let builder = Server::ALL.iter().fold(quick(), |builder, server| builder.relay(*server, &Program::ALL));
    let fleet = builder.start().await;
    under_load(&fleet, async {
        for server in Server::ALL {
            tokio::time::sleep(Duration::from_millis(700)).await;
            fleet.relay(server).close();
            tokio::time::sleep(Duration::from_secs(3)).await;
            fleet.relay(server).restore();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_broker_and_database_away_webhooks_are_refused_and_repeated() {
    use support::sandbox::{Person, ledger::Reply};
    let builder = quick().relay(Server::Broker, &[Program::Api]).relay(Server::Postgres, &[Program::Api]);
    let fleet = builder.start().await;
    let parties = fleet.acquaint(32, 2).await;
    fleet.relay(Server::Broker).close();
    let spilled = fleet.tell(&parties[0].person, "the broker is away").await;
    assert_eq!(spilled.reply, Reply::Status(200), "kept in Postgres");
    fleet.relay(Server::Postgres).close();
    let refused = fleet.tell(&Person::nth(32, 1), "both are away").await;
    assert_eq!(refused.reply, Reply::Status(503), "nothing is promised that cannot be kept");
    fleet.relay(Server::Broker).restore();
    // As soon as the publisher has its connection again: secrets and routes are remembered.
    let mut published = false;
    for _ in 0..100 {
        published = fleet.tell(&parties[1].person, "the database is away").await.reply == Reply::Status(200);
        if published {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(published, "the broker alone is enough");
    fleet.relay(Server::Postgres).restore();
    let books = books::close(&fleet, &[], CLOSING).await;
    books.assert_agree();
}

/// Whoever routes to them or wakes somebody up must know soon, also of programs that have nothing to do just then.
const NOTICED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_the_database_says_soon_that_it_is_away_and_that_it_is_back() {
    let fleet = quick().relay(Server::Postgres, &Program::ALL).start().await;
    let says = async |program: Program, condition: &str| {
        let conditions = fleet.process(program).conditions(&fleet.http).await;
        conditions.get(condition).cloned().unwrap_or_default()
    };
    // Cut off, and then without a word.
    for silent in [false, true] {
        let relay = fleet.relay(Server::Postgres);
        if silent {
            relay.stall()
        } else {
            relay.close()
        }
        for program in Program::ALL {
            let away = async || says(program, "database").await.contains("database primary is away");
            until(program.name(), NOTICED, away).await;
            let ready = fleet.process(program).is_ready(&fleet.http).await;
            // Webhooks are accepted as long as the broker is there.
            assert_eq!(ready, program == Program::Api, "{}", program.name());
        }
        relay.restore();
        let late = fleet.ready_within(NOTICED + NOTICED).await;
        assert!(late.is_empty(), "not ready again: {late:?}");
        until("the API says so", NOTICED, async || says(Program::Api, "database").await == "ready").await;
    }
}

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_is_told_what_can_be_learned_and_what_is_away() {
    let fleet = quick().start().await;
    let asked = async |setting: &str, url: &str| -> (Value, String) {
        let output = fleet.try_mijra(&["queues"], &[(setting, url)]).await;
        assert!(!output.status.success(), "{setting} is away");
        let said = serde_json::from_slice(&output.stdout).expect("JSON also then");
        (said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (said, complaint) = asked("DATABASE_URL", &format!("postgres://mijra_operator:x@{NOWHERE}/x")).await;
    for queue in said["queues"].as_array().unwrap() {
        assert!(queue["ready"].is_u64() && queue["in_postgres"].is_null(), "{queue}");
        assert_eq!(queue["bound"], "the database is away", "{queue}");
    }
    assert_eq!((&said["outbox_due"], said["missing"].as_array().unwrap().len()), (&Value::Null, 1), "{said}");
    assert!(said["missing"][0].as_str().unwrap().starts_with("database primary is away: "), "{said}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert_eq!(complaint.matches("refused").count(), 1, "{complaint}");

    let (said, complaint) = asked("AMQP_URL", &format!("amqp://nobody:x@{NOWHERE}/%2f")).await;
    for queue in said["queues"].as_array().unwrap() {
        assert!(queue["ready"].is_null() && queue["in_postgres"].is_array(), "{queue}");
        assert_eq!(queue["bound"], "RabbitMQ is away", "{queue}");
    }
    assert_eq!((&said["outbox_due"], said["missing"].as_array().unwrap().len()), (&json!(0), 1), "{said}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let whole = fleet.mijra(&["queues"]).await;
    assert_eq!(whole["missing"], json!([]));
    until("nothing waits", SOON, async || {
        let queues = fleet.mijra(&["queues"]).await["queues"].clone();
        queues.as_array().unwrap().iter().all(|queue| queue["bound"] == "nothing")
    })
    .await;
}
