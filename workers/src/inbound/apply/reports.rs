//! What became of our sends: each as its provider reports it, what echoes are evidence of, and up to where people received and read.

use super::{Heard, Inbound, heard, people};
use chrono::{DateTime, Utc};
use shared::{
    db::{
        self, FleetTx,
        inbound::{
            people::{Wanted, known},
            reports::{self, Report},
            watermarks::{self, Mark, Named, Reached},
        },
        outbound::counts::Moved,
    },
    domain::{
        events::{Event, StatusReport, Through, Watermark},
        ids::{MessageId, TenantId},
        sends::SendState,
    },
    providers::aftermath,
};
use std::collections::BTreeSet;

/// What the batch's receipts say.
pub(super) struct Receipts {
    /// Up to where people have received or read.
    marks: Vec<Mark>,
    /// Of messages that are not known yet.
    unknown: Vec<Report>,
    /// That were there before the sends they are about: they are about all before those, too.
    reached: Vec<Reached>,
}

/// Keeps up to where people have received and read. Watermarks are locked before sends.
pub(super) async fn keep_receipts(
    tx: &mut FleetTx,
    effects: &[Inbound],
    evidence: &[Report],
) -> Result<Receipts, db::Error> {
    let receipts = heard(effects, |event| if let Event::Watermark(watermark) = event { Some(watermark) } else { None });
    let (marks, unknown) = marks(tx, &receipts).await?;
    let reached: Vec<Reached> = evidence
        .iter()
        .filter(|report| matches!(report.state, SendState::Delivered | SendState::Read))
        .filter_map(|report| {
            let (tenant_id, message_id) = (report.tenant_id, report.token?.message_id);
            Some(Reached { tenant_id, message_id, state: report.state, at: report.at })
        })
        .collect();
    watermarks::hold(tx, &marks, &reached).await?;
    watermarks::keep(tx, &marks).await?;
    Ok(Receipts { marks, unknown, reached })
}

/// Writes reports down, and then what watermarks say of all sends by then. Returns those of campaigns that moved.
pub(super) async fn apply(
    tx: &mut FleetTx,
    effects: &[Inbound],
    evidence: Vec<Report>,
    receipts: Receipts,
    now: DateTime<Utc>,
) -> Result<Vec<Moved>, db::Error> {
    let statuses = heard(effects, |event| if let Event::Status(status) = event { Some(status) } else { None });
    let Receipts { marks, unknown, reached } = receipts;
    // Their provider's time is known only now: a receipt may have come before.
    let echoed: BTreeSet<(TenantId, MessageId)> =
        evidence.iter().filter_map(|report| Some((report.tenant_id, report.token?.message_id))).collect();
    let mut told: Vec<Report> = statuses.iter().map(|status| report(status, now)).collect();
    told.extend(evidence);
    told.extend(unknown);
    let mut moved = reports::apply(tx, &told).await?;
    moved.extend(watermarks::apply(tx, &marks).await?);
    moved.extend(watermarks::reach(tx, &reached).await?);
    moved.extend(watermarks::catch_up(tx, &echoed).await?);
    Ok(moved)
}

fn report(heard: &Heard<'_, &StatusReport>, now: DateTime<Utc>) -> Report {
    let status = heard.what;
    let provider = heard.webhook.meta.provider;
    // What was long ago, or is told once more, has no consequences any more.
    let code = status.code.as_deref().filter(|_| heard.is_fresh(status.at, now));
    Report {
        tenant_id: heard.tenant_id(),
        channel_account_id: heard.channel_account_id,
        provider_message_id: status.provider_message_id.clone(),
        state: status.state,
        status: status.status.clone(),
        at: status.at,
        code: status.code.clone(),
        reason: status.reason.clone(),
        aftermath: code.and_then(|code| aftermath(provider, code)),
        token: status.token,
    }
}

/// What watermarks of people who are known say. One that names a message which is not known yet is a report on that, which waits
/// for it.
async fn marks(tx: &mut FleetTx, receipts: &[Heard<'_, &Watermark>]) -> Result<(Vec<Mark>, Vec<Report>), db::Error> {
    let wanted: Vec<Wanted> =
        receipts.iter().map(|r| people::wanted(r.account(), &r.what.person, &[], r.what.at)).collect();
    let contacts = known(tx, &wanted).await?;
    let name = |r: &Heard<'_, &Watermark>| match &r.what.through {
        Through::Time(_) => None,
        Through::Message(id) => Some((r.tenant_id(), r.channel_account_id, id.clone())),
    };
    let named: BTreeSet<Named> = receipts.iter().filter_map(name).collect();
    let sent_at = watermarks::sent_at(tx, &named.into_iter().collect::<Vec<_>>()).await?;
    let (mut marks, mut unknown) = (Vec::new(), Vec::new());
    for (receipt, contact) in receipts.iter().zip(contacts) {
        let (tenant_id, channel_account_id) = (receipt.tenant_id(), receipt.channel_account_id);
        let Watermark { state, at, through, .. } = receipt.what;
        let through = match (through, name(receipt).and_then(|name| sent_at.get(&name).copied())) {
            (Through::Time(time), _) => *time,
            (Through::Message(_), Some(time)) => time,
            (Through::Message(id), None) => {
                unknown.push(Report {
                    tenant_id,
                    channel_account_id,
                    provider_message_id: id.clone(),
                    state: *state,
                    status: state.as_str().to_owned(),
                    at: *at,
                    code: None,
                    reason: None,
                    aftermath: None,
                    token: None,
                });
                continue;
            }
        };
        let Some(contact_id) = contact else { continue };
        marks.push(Mark { tenant_id, contact_id, channel_account_id, state: *state, through, at: *at });
    }
    Ok((marks, unknown))
}
