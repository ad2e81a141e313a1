//! Each conversation's messages in the order in which they were accepted, on several channels at once, while providers refuse, fail
//! and break off and senders die.

use crate::{CLOSING, SOON, quick, soon_again};
use futures_util::future::join_all;
use std::time::Duration;
use support::{
    books,
    channels::{Line, Stage, Way},
    lateness::lateness,
    programs::Program,
    sandbox::{Script, behaviour::Span},
    traffic::Talks,
};

/// Each with its code for too much.
const WAYS: [(Way, u32); 3] = [(Way::Whatsapp, 130_429), (Way::Messenger, 613), (Way::Sms, 20_429)];
const PEOPLE: u32 = 8;
const MESSAGES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_conversation_are_taken_in_order_whatever_fails() {
    let quiet = |b: &mut support::sandbox::Behaviour| {
        (b.queues, b.high_volume_per_second) = (false, None);
        b.latency_ms = Span { min: 10, max: 60 };
    };
    let fleet = quick().count(Program::Outbound, 2).behaviour(quiet).start().await;
    soon_again(&fleet).await;
    let stage = Stage::of(&fleet, WAYS.map(|(way, _)| Line::new(way, Some(1000.0)))).await;
    let mut people = Vec::new();
    for (way, _) in WAYS {
        people.extend(stage.acquaint(&fleet, way, PEOPLE).await);
    }
    fleet.sandbox.behave(|b| {
        (b.unavailable_rate, b.cut_before_rate, b.cut_after_rate) = (0.15, 0.03, 0.03);
        (b.gateway_error_rate, b.truncate_rate) = (0.03, 0.03);
        (b.reorder_rate, b.duplicate_rate) = (0.1, 0.1);
    });
    let accepting = join_all(people.iter().map(|someone| {
        let fleet = &fleet;
        async move {
            let mut accepted = Vec::new();
            for nth in 0..MESSAGES {
                accepted.push(fleet.reply(someone.conversation(), &format!("number {nth}")).await);
            }
            accepted
        }
    }));
    let troubles = async {
        for (way, code) in WAYS {
            fleet.sandbox.order(Script::once(way.api(), code).times(2));
            let process = fleet.process(Program::Outbound);
            let before = process.exits().len();
            process.signal("KILL");
            assert!(process.ended(before, SOON).await.is_some(), "it ends");
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let (accepted, ()) = tokio::join!(accepting, troubles);
    let books = books::close(&fleet, &accepted.concat(), CLOSING).await;
    books.assert_agree();
    assert_eq!(books.accepted, people.len() * MESSAGES);
    let (requests, taken) = fleet.sandbox.ledger().counts();
    assert!(requests > taken + 10, "much went wrong: {requests} calls, {taken} taken");
    assert_eq!(lateness(&fleet).await.late, Vec::<String>::new());
}
