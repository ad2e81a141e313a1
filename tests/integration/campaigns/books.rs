//! The books: whatever is wrong in one of the five accounts is named.

use super::Stage;
use shared::{db::campaigns::ledger::Cause, domain::ids::CampaignId};

/// Sixty people, ten of them sent to, one failed before anybody was called, forty-nine in flight.
async fn under_way(stage: &mut Stage) -> CampaignId {
    stage.people(60).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..10], "sent").await;
    stage.end(&messages[10..11], "failed").await;
    stage
        .execute("DELETE FROM send_attempts a USING sends s WHERE s.message_id = a.message_id AND s.state = 'failed'")
        .await;
    stage.execute("UPDATE sends SET attempts = 0 WHERE state = 'failed'").await;
    id
}

#[tokio::test]
async fn whatever_is_wrong_is_named() {
    let mut stage = Stage::new().await;
    let id = under_way(&mut stage).await;
    stage.expect_books_to_agree(id).await;
    let books = stage.books(id).await;
    let line = |state| *books.lines.iter().find(|line| line.state == state).unwrap();
    let (sent, in_flight) = (line("sent"), line("in_flight"));
    assert_eq!((books.frozen, sent.people, sent.attempts, sent.shown), (Some(60), 10, 10, 10));
    assert_eq!((in_flight.people, in_flight.shown), (49, 49));
    stage.execute("UPDATE sends SET code = '131026', reason = 'not there' WHERE state = 'failed'").await;
    let causes = stage.books(id).await.causes;
    let cause = Cause { state: "failed", code: Some("131026".into()), reason: Some("not there".into()), people: 1 };
    assert_eq!(causes, [cause]);
    for (wrong, right, expected) in [
        (
            "UPDATE campaign_counts SET sent = sent + 1",
            "UPDATE campaign_counts SET sent = sent - 1",
            "10 people are sent, and 11 are shown",
        ),
        (
            "UPDATE campaigns SET frozen_count = 59",
            "UPDATE campaigns SET frozen_count = 60",
            "59 people were frozen, and 60 are there",
        ),
        (
            "WITH one AS (SELECT * FROM send_attempts LIMIT 1), kept AS (
                INSERT INTO contacts (tenant_id, id) SELECT tenant_id, message_id FROM one
            )
            DELETE FROM send_attempts a USING one WHERE a.id = one.id",
            "INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
            SELECT c.tenant_id, c.id, gen_random_uuid(), 1, 'accepted', now()
            FROM contacts c
            JOIN sends s ON s.message_id = c.id",
            "1 people are sent and have no attempt",
        ),
        (
            "INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
            SELECT tenant_id, message_id, '00000000-0000-7000-8000-000000000001', 2, 'accepted', now() FROM sends WHERE state = 'sent' LIMIT 1",
            "DELETE FROM send_attempts WHERE id = '00000000-0000-7000-8000-000000000001'",
            "1 people are sent and were taken by the provider twice, and are not shown as possibly doubled",
        ),
        (
            "INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
            SELECT tenant_id, message_id, '00000000-0000-7000-8000-000000000001', 2, 'accepted', now() FROM sends WHERE state = 'queued' LIMIT 1",
            "DELETE FROM send_attempts WHERE id = '00000000-0000-7000-8000-000000000001'",
            "1 people are queued and were taken by the provider all the same",
        ),
    ] {
        stage.execute(wrong).await;
        assert_eq!(stage.books(id).await.disagreements, [expected]);
        stage.execute(right).await;
        stage.expect_books_to_agree(id).await;
    }
    // One that is shown as possibly doubled was somebody's choice.
    stage
        .execute(
            "WITH doubled AS (
                UPDATE sends SET possibly_doubled = true
                WHERE message_id = (SELECT message_id FROM sends WHERE state = 'sent' LIMIT 1)
                RETURNING tenant_id, message_id
            )
            INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
            SELECT tenant_id, message_id, gen_random_uuid(), 2, 'accepted', now() FROM doubled",
        )
        .await;
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn a_lost_send_a_lost_person_and_a_wrong_state_are_named_with_what_is_shown_of_them() {
    let mut stage = Stage::new().await;
    let id = under_way(&mut stage).await;
    stage.execute("UPDATE sends SET state = 'delivered' WHERE state = 'sent'").await;
    assert_eq!(
        stage.books(id).await.disagreements,
        ["0 people are sent, and 10 are shown", "10 people are delivered, and 0 are shown"]
    );
    stage.execute("UPDATE sends SET state = 'sent' WHERE state = 'delivered'").await;
    stage.execute("DELETE FROM sends WHERE state = 'failed'").await;
    assert_eq!(
        stage.books(id).await.disagreements,
        ["1 people are released and have no send", "0 people are failed, and 1 are shown"]
    );
    stage.execute("DELETE FROM campaign_recipients WHERE message_id NOT IN (SELECT message_id FROM sends)").await;
    assert_eq!(
        stage.books(id).await.disagreements,
        ["60 people were frozen, and 59 are there", "0 people are failed, and 1 are shown"]
    );
}
