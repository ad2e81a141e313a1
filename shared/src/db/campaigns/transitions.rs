//! What a request does to a campaign: its row is moved from state to state, and the job that makes it so is written with it.

use super::{QUEUE, job, note, state};
use crate::{
    db::{TenantTx, audit::Actor, error::Result},
    domain::{
        campaigns::{Action, CampaignState},
        ids::CampaignId,
    },
    jobs::campaign::Task,
};
use serde_json::json;

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is done, or was done before.
    Done,
    /// It cannot be done from this state.
    NotFrom(CampaignState),
}

/// Does something with a campaign. Doing it again changes nothing. `None` if the tenant has no such campaign.
///
/// # Errors
/// If the database does not answer.
pub async fn change(tx: &mut TenantTx, id: CampaignId, action: Action, actor: Actor) -> Result<Option<Changed>> {
    let tenant_id = tx.tenant_id();
    let found = sqlx::query!(
        r#"SELECT state, now() AS "now!" FROM campaigns WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else { return Ok(None) };
    let before = state(&found.state);
    let Some(after) = before.after(action) else { return Ok(Some(Changed::NotFrom(before))) };
    if after == before {
        return Ok(Some(Changed::Done));
    }
    sqlx::query!(
        "UPDATE campaigns
        SET state = $3,
            started_at = CASE WHEN $3 = 'running' THEN coalesce(started_at, now()) ELSE started_at END,
            ended_at = CASE WHEN $3 IN ('completed', 'cancelled') THEN now() END,
            retry_asked_at = CASE WHEN $3 <> 'cancelled' THEN retry_asked_at END, sampled_at = NULL, sampled_before_at = NULL,
            sampled_handed_over = NULL, sampled_before_handed_over = NULL, paused_code = NULL, paused_reason = NULL
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        after.as_str(),
    )
    .execute(tx.conn())
    .await?;
    let details = json!({"before": before.as_str(), "after": after.as_str()});
    note(tx, actor, id, &format!("campaign.{}", action.participle()), details).await?;
    let task = match action {
        Action::Start => Task::Freeze { campaign_id: id, after: None },
        Action::Resume => Task::Wake { campaign_id: id, before: None },
        Action::Cancel => Task::Cancel { campaign_id: id, before: None },
        Action::Complete => Task::Check { campaign_id: id },
        // A grant sees it at once.
        Action::Pause => return Ok(Some(Changed::Done)),
    };
    tx.enqueue(QUEUE, job(tenant_id, task, found.now), None);
    Ok(Some(Changed::Done))
}
