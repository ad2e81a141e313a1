//! Servers that go away under load and come back.

use crate::{CLOSING, quick};
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
