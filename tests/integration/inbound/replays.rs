//! What is played again, and what is taken back.

use super::{CONVERSATION, Stage, ada, echo, message, orders, said, second};
use serde_json::json;
use shared::domain::{channel::Provider, events::Event, messages::MessageKind, people::Person};

fn revoke(person: &Person, of: &str) -> Event {
    let mut revoke = message(person, &format!("revoke.{of}"), MessageKind::Revoke, None, second(9));
    revoke.refers_to = Some(of.to_owned());
    Event::Message(Box::new(revoke))
}

#[tokio::test]
async fn a_replay_restores_what_was_deleted_and_nothing_else() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let all = || {
        vec![
            said(&ada(), "wamid.1", "one", second(1)),
            said(&ada(), "wamid.2", "two", second(2)),
            echo(&ada(), "wamid.3", None, second(3)),
            said(&ada(), "wamid.4", "STOP", second(4)),
        ]
    };
    stage.tell(all()).await;
    let before = stage.everything().await;
    stage.apply(&[stage.replay(all())]).await;
    assert_eq!(stage.everything().await, before, "replaying everything changes nothing");
    let ids = "SELECT jsonb_agg(jsonb_build_array(id, provider_message_id, text, direction) ORDER BY at) FROM messages";
    let messages = stage.row(ids).await;
    // As it comes from the provider it was received before; only a replay brings it back, one by one or together.
    stage.execute("DELETE FROM messages").await;
    stage.apply(&[stage.webhook(all())]).await;
    assert_eq!(stage.count("SELECT count(*) FROM messages").await, 0);
    let shown = stage.row(CONVERSATION).await;
    for event in all() {
        stage.apply(&[stage.replay(vec![event])]).await;
    }
    assert_eq!(stage.row(ids).await, messages);
    assert_eq!(stage.row(CONVERSATION).await, shown);
    // Also where the conversation is gone: it is not to be read again.
    stage.execute("DELETE FROM messages").await;
    stage.execute("DELETE FROM conversations").await;
    stage.apply(&[stage.replay(all())]).await;
    assert_eq!(stage.row(ids).await, messages);
    let restored = stage.row(CONVERSATION).await;
    assert_eq!((&restored["unread"], &restored["in"], &restored["out"]), (&json!(0), &json!(3), &json!(1)));
    assert_eq!(stage.count("SELECT count(*) FROM received_seconds").await, 0);
}

#[tokio::test]
async fn what_is_taken_back_is_gone_whichever_comes_first() {
    for order in orders(2) {
        for together in [false, true] {
            let mut stage = Stage::on(Provider::Instagram).await;
            let events = [said(&ada(), "mid.1", "my secret", second(1)), revoke(&ada(), "mid.1")];
            let mut events: Vec<Option<Event>> = events.into_iter().map(Some).collect();
            let batch: Vec<_> = order.iter().map(|n| stage.webhook(vec![events[*n].take().unwrap()])).collect();
            for some in batch.chunks(if together { 2 } else { 1 }) {
                stage.apply(some).await;
            }
            let case = format!("{order:?}, together: {together}");
            let left =
                stage.row("SELECT jsonb_agg(jsonb_build_array(kind, text, content) ORDER BY at) FROM messages").await;
            assert_eq!(left[0], json!(["text", null, {}]), "{case}");
            assert_eq!(left[1][0], "revoke", "{case}");
            assert_eq!(stage.row(CONVERSATION).await["last"], json!(null), "{case}");
            let all = stage.everything().await;
            let again = vec![said(&ada(), "mid.1", "my secret", second(1)), revoke(&ada(), "mid.1")];
            stage.apply(&[stage.replay(again)]).await;
            assert_eq!(stage.everything().await, all, "{case}");
        }
    }
}
