//! A message in, an answer out, and the same when everybody repeats themselves.

use crate::{CLOSING, SOON, quick, soon_again, until};
use serde_json::json;
use shared::domain::sends::SendState;
use std::time::Duration;
use support::{
    books,
    fleet::VERIFY_TOKEN,
    sandbox::{Incoming, Person, ledger::Reply},
    traffic::Traffic,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_in_and_its_answer_is_read() {
    let fleet = quick().behaviour(|b| (b.read_rate, b.skip_delivered_rate) = (1.0, 0.0)).start().await;
    assert!(fleet.sandbox.handshake(VERIFY_TOKEN).await.unwrap(), "the receiver echoes the challenge");
    let ada = Person::nth(7, 0);
    let told = fleet.tell(&ada, "Is the blue one back in stock?").await;
    assert_eq!(told.reply, Reply::Status(200));
    let conversation = fleet.conversation_with(&ada).await;
    let answer = fleet.reply(conversation, "It is. Shall I keep one for you?").await;
    let books = books::close(&fleet, &[answer], CLOSING).await;
    books.assert_agree();
    assert_eq!((books.stored, books.in_state(SendState::Read)), (1, 1), "{books}");

    let seen = fleet.http.get(format!("{}/api/acme/conversations/{conversation}/messages", fleet.api));
    let seen: serde_json::Value = seen.bearer_auth(&fleet.tenant.token).send().await.unwrap().json().await.unwrap();
    let texts: Vec<&str> = seen["data"].as_array().unwrap().iter().filter_map(|m| m["text"].as_str()).collect();
    assert_eq!(texts, ["It is. Shall I keep one for you?", "Is the blue one back in stock?"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_providers_and_agents_repeat_is_done_once() {
    let fleet = quick().behaviour(|b| b.duplicate_rate = 0.5).start().await;
    let ada = Person::nth(7, 1);
    let incoming = Incoming::text(&ada, "hello").with_id("wamid.repeated");
    for _ in 0..5 {
        let told = fleet.sandbox.tell(&fleet.tenant.number, vec![incoming.clone()]).await.unwrap();
        assert_eq!(told.reply, Reply::Status(200));
    }
    let conversation = fleet.conversation_with(&ada).await;
    let path = format!("/conversations/{conversation}/messages");
    let body = json!({"type": "text", "text": "hi"});
    let tries = (0..8).map(|_| fleet.post(&path, "the-same-key", &body));
    let answers = futures_util::future::join_all(tries).await;
    let mut ids = Vec::new();
    for answer in answers {
        let (status, message) = answer.unwrap();
        assert!(status == 202 || status == 409, "{status}: {message}");
        ids.extend(message["id"].as_str().map(str::to_owned).filter(|_| status == 202));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one key, one message: {ids:?}");
    let (status, problem) = fleet.post(&path, "the-same-key", &json!({"type": "text", "text": "other"})).await.unwrap();
    assert_eq!(status, 422, "the same key for something else: {problem}");
    let accepted = support::fleet::Accepted { message: ids[0].parse().unwrap(), conversation };
    let books = books::close(&fleet, &[accepted], CLOSING).await;
    books.assert_agree();
    assert_eq!((books.told, books.stored), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_that_overtake_the_answer_find_their_send() {
    let fleet = quick()
        .behaviour(|b| {
            b.status_before_answer_rate = 1.0;
            b.reorder_rate = 0.5;
            b.duplicate_rate = 0.2;
            b.latency_ms = support::sandbox::behaviour::Span { min: 30, max: 80 };
        })
        .start()
        .await;
    let parties = fleet.acquaint(3, 10).await;
    let traffic =
        Traffic { webhooks_per_second: 10.0, replies_per_second: 30.0, lasts: Duration::from_secs(3), seed: 3 };
    let accepted = traffic.run(&fleet, &parties).await;
    let books = books::close(&fleet, &accepted, CLOSING).await;
    books.assert_agree();
    assert_eq!(books.held, 0, "{books}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_at_its_worst_loses_and_doubles_nothing() {
    let fleet = quick()
        .behaviour(|b| {
            b.throughput_per_second = Some(60);
            b.unavailable_rate = 0.05;
            b.refuse_rate = 0.02;
            b.refuse_code = 131_026;
            b.gateway_error_rate = 0.03;
            b.cut_before_rate = 0.03;
            b.cut_after_rate = 0.03;
            b.truncate_rate = 0.02;
            b.fail_later_rate = 0.02;
            b.duplicate_rate = 0.1;
            b.reorder_rate = 0.1;
        })
        .rate(80.0)
        .start()
        .await;
    soon_again(&fleet).await;
    let parties = fleet.acquaint(4, 20).await;
    let traffic =
        Traffic { webhooks_per_second: 20.0, replies_per_second: 40.0, lasts: Duration::from_secs(5), seed: 4 };
    let accepted = traffic.run(&fleet, &parties).await;
    let books = books::close(&fleet, &accepted, CLOSING).await;
    books.assert_agree();
    assert!(books.settled_by_evidence > 0, "some answers were lost and some of those messages taken: {books}");
    assert!(books.in_state(SendState::Failed) > 0, "some were refused: {books}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_down_keeps_its_messages_until_it_is_back() {
    use support::sandbox::registry::AccountState;
    let fleet = quick().start().await;
    let parties = fleet.acquaint(5, 4).await;
    assert!(fleet.sandbox.registry().set_account_state(&fleet.tenant.number, AccountState::Unpaid));
    let mut accepted = Vec::new();
    for party in &parties {
        accepted.push(fleet.reply(party.conversation, "are you there?").await);
    }
    let mut admin = fleet.database.admin().await;
    until("the account is down", SOON, async || {
        let state: String =
            sqlx::query_scalar("SELECT state FROM channel_accounts").fetch_one(&mut admin).await.unwrap();
        state == "down"
    })
    .await;
    assert!(fleet.sandbox.registry().set_account_state(&fleet.tenant.number, AccountState::Connected));
    // An operator gives it its token again, which brings it back.
    let number = &fleet.tenant.number;
    let update = [
        ["channel-account", "add", "whatsapp", "--update", "--tenant", "acme", "--phone-number-id", number].as_slice(),
        &["--business-account-id", support::sandbox::WABA, "--rate", "1000"],
    ]
    .concat();
    let updated = fleet.try_mijra(&update, &[("ACCESS_TOKEN", support::sandbox::TOKEN)]).await;
    assert!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
    let books = books::close(&fleet, &accepted, CLOSING).await;
    books.assert_agree();
}
