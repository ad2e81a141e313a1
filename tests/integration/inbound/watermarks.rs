//! Up to where people received and read.

use super::{Stage, echo, orders, person, second, watermark};
use serde_json::json;
use shared::domain::{
    channel::Provider,
    events::{SendToken, Through},
    people::{AliasKind, Person},
    sends::SendState::{self, Delivered, Read, Sending, Sent},
};

fn ada() -> Person {
    person(AliasKind::MessengerId, "7001")
}

impl Stage {
    /// Sends that the provider took in these seconds.
    async fn sent_in(&mut self, seconds: &[i64]) -> Vec<SendToken> {
        let mut sends = Vec::new();
        for number in seconds {
            sends.push(self.send(&ada(), Sent, Some(second(*number))).await);
        }
        sends
    }

    async fn states(&mut self, sends: &[SendToken]) -> Vec<SendState> {
        let mut states = Vec::new();
        for send in sends {
            states.push(self.state(send.message_id).await);
        }
        states
    }
}

#[tokio::test]
async fn all_that_was_sent_by_then_moves_on_and_nothing_backwards() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let sends = stage.sent_in(&[10, 20, 30]).await;
    stage.tell(vec![watermark(&ada(), Delivered, Through::Time(second(20)), second(21))]).await;
    assert_eq!(stage.states(&sends).await, [Delivered, Delivered, Sent]);
    stage.tell(vec![watermark(&ada(), Read, Through::Time(second(10)), second(22))]).await;
    assert_eq!(stage.states(&sends).await, [Read, Delivered, Sent]);
    stage.tell(vec![watermark(&ada(), Delivered, Through::Time(second(30)), second(31))]).await;
    assert_eq!(stage.states(&sends).await, [Read, Delivered, Delivered]);
    // By a message: it and what was before it.
    let id = format!("sent.{}", sends[1].message_id);
    stage.tell(vec![watermark(&ada(), Read, Through::Message(id), second(40))]).await;
    assert_eq!(stage.states(&sends).await, [Read, Read, Delivered]);
    assert_eq!(stage.trail(sends[1].message_id).await, ["delivered", "read"]);
    let all = stage.everything().await;
    stage
        .apply(&[stage.replay(vec![
            watermark(&ada(), Read, Through::Time(second(10)), second(22)),
            watermark(&ada(), Delivered, Through::Time(second(20)), second(21)),
        ])])
        .await;
    assert_eq!(stage.everything().await, all, "twice is once");
}

#[tokio::test]
async fn the_order_of_receipts_does_not_matter() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let mut ends = Vec::new();
    for order in orders(3) {
        let sends = stage.sent_in(&[10, 20]).await;
        let receipts = [
            watermark(&ada(), Delivered, Through::Time(second(20)), second(25)),
            watermark(&ada(), Read, Through::Time(second(10)), second(26)),
            watermark(&ada(), Read, Through::Time(second(20)), second(27)),
        ];
        let mut receipts: Vec<_> = receipts.into_iter().map(Some).collect();
        for what in &order {
            stage.tell(vec![receipts[*what].take().unwrap()]).await;
        }
        let ids: Vec<_> = sends.iter().map(|send| send.message_id).collect();
        let times: serde_json::Value = sqlx::query_scalar(
            "SELECT jsonb_agg(jsonb_build_array(state, EXTRACT(epoch FROM delivered_at - sent_at), EXTRACT(epoch FROM read_at - sent_at))
                ORDER BY sent_at)
            FROM sends WHERE message_id = ANY ($1)",
        )
        .bind(&ids)
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
        ends.push((order, times));
        stage.execute("TRUNCATE sends CASCADE").await;
        stage.execute("DELETE FROM watermarks").await;
    }
    let (_, first) = ends[0].clone();
    assert_eq!(first[0][0], json!("read"));
    for (order, end) in ends {
        // Seconds apart: the stage reads the clock for each.
        let close = |a: &serde_json::Value, b: &serde_json::Value| {
            a[0] == b[0] && [1, 2].iter().all(|n| (a[*n].as_f64().unwrap() - b[*n].as_f64().unwrap()).abs() <= 2.0)
        };
        assert!(close(&end[0], &first[0]) && close(&end[1], &first[1]), "{order:?}: {end}, not {first}");
    }
}

#[tokio::test]
async fn a_receipt_that_comes_before_the_send_is_written_down_is_not_lost() {
    // What came first, by a time or by the message; and what makes it known: that the sender writes it down, or its echo.
    for by_message in [false, true] {
        for by_echo in [false, true] {
            let mut stage = Stage::on(Provider::Messenger).await;
            let before = stage.sent_in(&[10]).await;
            let token = stage.send(&ada(), Sending, None).await;
            // By a clock that goes a little ahead of ours: it was taken, and then read.
            let read_at = chrono::Utc::now() + chrono::TimeDelta::minutes(5);
            let through = if by_message { Through::Message("m_1".into()) } else { Through::Time(read_at) };
            stage.tell(vec![watermark(&ada(), Read, through, read_at)]).await;
            assert_eq!(stage.state(token.message_id).await, Sending);
            if by_echo {
                stage.tell(vec![echo(&ada(), "m_1", Some(token), second(20))]).await;
            } else {
                stage.accepted(token, "m_1").await;
            }
            let case = format!("by message: {by_message}, by echo: {by_echo}");
            assert_eq!(stage.state(token.message_id).await, Read, "{case}");
            if !(by_message && by_echo) {
                assert_eq!(stage.states(&before).await, [Read], "and what was before it; {case}");
            }
        }
    }
}

#[tokio::test]
async fn strangers_receipts_are_nothing() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let sends = stage.sent_in(&[10]).await;
    let stranger = person(AliasKind::MessengerId, "9999");
    stage.tell(vec![watermark(&stranger, Read, Through::Time(second(20)), second(21))]).await;
    assert_eq!(stage.states(&sends).await, [Sent]);
    assert_eq!(stage.contact(&stranger).await, None);
    assert_eq!(stage.count("SELECT count(*) FROM watermarks").await, 0);
}

#[tokio::test]
async fn a_receipt_leaves_alone_what_was_told_already() {
    let mut stage = Stage::on(Provider::Messenger).await;
    stage.sent_in(&[10, 20]).await;
    stage.tell(vec![watermark(&ada(), Read, Through::Time(second(20)), second(21))]).await;
    let last = stage.sent_in(&[30]).await;
    // Who locks a row writes down that it does.
    let locked = "SELECT jsonb_agg(xmax::text) FROM (SELECT xmax FROM sends ORDER BY sent_at LIMIT 2) AS told";
    let before = stage.row(locked).await;
    stage.tell(vec![watermark(&ada(), Read, Through::Time(second(30)), second(31))]).await;
    assert_eq!(stage.states(&last).await, [Read]);
    assert_eq!(stage.row(locked).await, before);
}
