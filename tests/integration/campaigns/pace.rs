//! How fast a campaign goes, as it is shown.

use super::Stage;
use shared::{
    db::{Placement, audit::Actor, limits},
    domain::{
        campaigns::{Action, Audience},
        ids::CampaignId,
        limits::{LimitChange, Scope},
    },
};

impl Stage {
    /// Time goes by, as far as the samples know.
    async fn later(&mut self, seconds: i32) {
        sqlx::query("UPDATE campaigns SET sampled_at = sampled_at - make_interval(secs => $1), sampled_before_at = sampled_before_at - make_interval(secs => $1)")
            .bind(f64::from(seconds))
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    async fn hand_over(&mut self, sends: i64) {
        sqlx::query("UPDATE campaign_counts SET handed_over = handed_over + $1")
            .bind(sends)
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    /// A tick of the release, then the rate.
    async fn tick(&self, id: CampaignId) -> f64 {
        self.release().await;
        self.show(id).await.rate
    }
}

/// The clock goes on while a test runs: then it is a little less.
#[track_caller]
fn expect(rate: f64, expected: f64) {
    assert!((expected * 0.8..=expected).contains(&rate), "{rate}, not {expected}");
}

#[tokio::test]
async fn a_campaigns_rate_is_what_was_handed_over_of_late() {
    let mut stage = Stage::new().await;
    stage.people(2000).await;
    let id = stage.running("Hello").await;
    assert_eq!(stage.tick(id).await, 0.0);
    stage.later(8).await;
    stage.hand_over(400).await;
    expect(stage.tick(id).await, 50.0);
    // Each ten seconds a sample is taken, and the one before is kept.
    for (seconds, sends, expected) in [(4, 240, 640.0 / 12.0), (8, 80, 720.0 / 20.0), (8, 0, 80.0 / 16.0), (10, 0, 0.0)]
    {
        stage.later(seconds).await;
        stage.hand_over(sends).await;
        expect(stage.tick(id).await, expected);
    }
    // Nobody samples any more, and nothing goes.
    stage.hand_over(1000).await;
    stage.later(1000).await;
    expect(stage.show(id).await.rate, 1000.0 / 1010.0);
}

#[tokio::test]
async fn a_campaign_that_does_not_run_has_no_rate_and_one_that_goes_on_is_measured_anew() {
    let mut stage = Stage::new().await;
    stage.people(2000).await;
    let id = stage.running("Hello").await;
    stage.tick(id).await;
    stage.later(5).await;
    stage.hand_over(500).await;
    expect(stage.tick(id).await, 100.0);
    stage.act(id, Action::Pause).await;
    assert_eq!(stage.show(id).await.rate, 0.0);
    stage.act(id, Action::Resume).await;
    assert_eq!(stage.tick(id).await, 0.0, "the pause does not count, nor what came before it");
    stage.later(2).await;
    stage.hand_over(40).await;
    expect(stage.tick(id).await, 20.0);
}

#[tokio::test]
async fn until_it_is_measured_a_campaign_is_expected_to_go_at_its_share_of_what_its_account_may_send() {
    let mut stage = Stage::new().await;
    stage.people(2000).await;
    let id = stage.running("Hello").await;
    stage.tick(id).await;
    assert_eq!(stage.show(id).await.pace, Some(20.0));
    let other = stage.draft_to("Hello", &Audience::All, 3).await;
    stage.started(other).await;
    assert_eq!((stage.show(id).await.pace, stage.show(other).await.pace), (Some(5.0), Some(15.0)));
    stage.act(other, Action::Cancel).await;
    for _ in 0..2 {
        stage.hand_over(30).await;
        stage.later(10).await;
        stage.tick(id).await;
    }
    let shown = stage.show(id).await;
    assert_eq!(shown.pace, Some(shown.rate), "as it goes");
    expect(shown.rate, 3.0);

    let mut tx = stage.api.tenant(&Placement::primary(), stage.tenant).await.unwrap();
    let change = LimitChange { rate: 40.0, burst: None, inbound_cost: None };
    let set = limits::set(&mut tx, Scope::Account, stage.account.0, change, Actor::Operator).await.unwrap();
    assert_eq!(set, limits::Set::Done);
    tx.commit().await.unwrap();
    assert_eq!(stage.show(id).await.pace, Some(40.0), "what was measured at another limit says nothing");
    stage.act(id, Action::Pause).await;
    assert_eq!(stage.show(id).await.pace, None);
}
