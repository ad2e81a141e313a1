//! What a send takes: the segments of a text message, a rate of its own for films and recordings, and one for all of a provider's account.

use super::{Stage, make_account};
use shared::{
    db::outbound::grant::{Answer, Judged, Obstacle},
    domain::ids::{ChannelAccountId, MessageId},
};
use uuid::Uuid;

fn granted(answers: &[Judged]) -> usize {
    answers.iter().filter(|j| matches!(j.answer, Answer::Granted(_))).count()
}

impl Stage {
    async fn limit(&mut self, scope: &str, key: Uuid, rate: f64, burst: Option<i32>) {
        sqlx::query(
            "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, wanted, burst) VALUES ($1, $2, $3, $4, $4, $4, $5)",
        )
        .bind(self.tenant)
        .bind(scope)
        .bind(key)
        .bind(rate)
        .bind(burst)
        .execute(&mut self.admin)
        .await
        .unwrap();
    }

    async fn sends(&mut self, account: ChannelAccountId, count: usize) -> Vec<MessageId> {
        let mut sends = Vec::new();
        for _ in 0..count {
            sends.push(self.lone_send().await.1);
        }
        sqlx::query("UPDATE sends SET channel_account_id = $1 WHERE message_id = ANY ($2)")
            .bind(account)
            .bind(sends.iter().map(|id| id.0).collect::<Vec<_>>())
            .execute(&mut self.admin)
            .await
            .unwrap();
        sends
    }
}

#[tokio::test]
async fn a_text_message_takes_as_much_as_it_has_segments() {
    let mut stage = Stage::new().await;
    stage.limit("account", stage.account.0, 20.0, Some(10)).await;
    let sends = stage.sends(stage.account, 6).await;
    stage.execute("UPDATE sends SET units = 3").await;
    assert_eq!(granted(&stage.ask(&sends).await), 3, "ten at once are three of three segments");
}

#[tokio::test]
async fn what_has_more_segments_than_a_second_goes_when_nothing_is_owed_and_is_paid_back() {
    let mut stage = Stage::new().await;
    stage.limit("account", stage.account.0, 1.0, None).await;
    let sends = stage.sends(stage.account, 2).await;
    stage.execute("UPDATE sends SET units = 5").await;
    let answers = stage.ask(&sends).await;
    assert_eq!(granted(&answers), 1);
    let answers = stage.ask(&sends[1..]).await;
    let Answer::NotNow(Obstacle::Rate(wait)) = &answers[0].answer else { panic!("{answers:?}") };
    assert!((3.5..=5.5).contains(&wait.as_secs_f64()), "five segments at one a second: {wait:?}");
}

#[tokio::test]
async fn films_and_recordings_have_a_rate_of_their_own_and_hold_up_nothing_else() {
    let mut stage = Stage::new().await;
    stage.limit("account", stage.account.0, 40.0, Some(20)).await;
    stage.limit("heavy", stage.account.0, 4.0, Some(2)).await;
    let heavy = stage.sends(stage.account, 5).await;
    stage.execute("UPDATE sends SET heavy = true").await;
    let light = stage.sends(stage.account, 5).await;
    let all: Vec<MessageId> = heavy.iter().chain(&light).copied().collect();
    let answers = stage.ask(&all).await;
    let is_granted =
        |id: &MessageId| answers.iter().any(|j| j.message_id == *id && matches!(j.answer, Answer::Granted(_)));
    assert_eq!(
        (heavy.iter().filter(|id| is_granted(id)).count(), light.iter().filter(|id| is_granted(id)).count()),
        (2, 5)
    );
}

#[tokio::test]
async fn accounts_of_one_provider_account_share_its_rate() {
    let mut stage = Stage::new().await;
    let other = make_account(&mut stage.admin, stage.tenant).await;
    let portfolio = Uuid::now_v7();
    sqlx::query("INSERT INTO portfolios (tenant_id, id, provider, external_id) VALUES ($1, $2, 'twilio', 'AC1')")
        .bind(stage.tenant)
        .bind(portfolio)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    sqlx::query("UPDATE channel_accounts SET portfolio_id = $1")
        .bind(portfolio)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.limit("provider_account", portfolio, 10.0, Some(5)).await;
    let (ours, others) = (stage.sends(stage.account, 4).await, stage.sends(other, 4).await);
    let all: Vec<MessageId> = ours.into_iter().chain(others).collect();
    assert_eq!(granted(&stage.ask(&all).await), 5, "of both together");
}
