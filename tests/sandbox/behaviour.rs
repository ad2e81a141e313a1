//! How the provider behaves towards the product: everything that can be changed while it runs.
//! The defaults are those of the contract page: its limits on, statuses on, no faults.

use super::dice::Roll;
use serde::{Deserialize, Serialize};

/// The settings. Rates are shares of the cases, `0.0..=1.0`; an unknown field is refused, so that a typo shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// How long an answer takes, drawn evenly.
    pub latency_ms: Span,
    /// Share of answers that take `slow_ms` instead.
    pub slow_rate: f64,
    /// See `slow_rate`.
    pub slow_ms: u64,

    /// Messages a second and number, in and out together, before 130429; `null` for no limit.
    pub throughput_per_second: Option<u32>,
    /// How many may come at once; `null` for one second's worth.
    pub throughput_burst: Option<u32>,
    /// HTTP status of rate limits: the error page says 400, the published description 429.
    pub throttle_status: u16,
    /// Sent as `Retry-After` with rate limits.
    pub retry_after_s: Option<u32>,
    /// One message in 6 s to a person, 45 at once (131056).
    pub pair_limit: bool,
    /// What happens to free-form messages outside the 24-hour window.
    pub window: WindowRule,
    /// How long a window stays open after a person wrote.
    pub window_s: u64,

    /// Share of sends refused with `refuse_code`.
    pub refuse_rate: f64,
    /// See `refuse_rate`.
    pub refuse_code: u32,
    /// The subcode beside it (Messenger, Instagram).
    pub refuse_subcode: Option<u32>,
    /// Share of sends answered with `unavailable_code`, certainly not processed.
    pub unavailable_rate: f64,
    /// See `unavailable_rate`: 2, 131016, 131057 or 133004; other providers than WhatsApp use their own.
    pub unavailable_code: u32,
    /// Share of sends answered by the edge with an HTML 502 …
    pub gateway_error_rate: f64,
    /// … of which this share was processed all the same.
    pub gateway_processed_share: f64,
    /// Share of connections cut after the request was read, before it is processed.
    pub cut_before_rate: f64,
    /// Share of connections cut after processing, before the answer.
    pub cut_after_rate: f64,
    /// Share of connections cut in the middle of the answer.
    pub truncate_rate: f64,
    /// Share of sends processed and never answered; cut after `hang_ms`.
    pub hang_rate: f64,
    /// See `hang_rate`.
    pub hang_ms: u64,

    /// Whether accepted sends get statuses.
    pub statuses: bool,
    /// Which ones.
    pub status_kinds: Vec<Status>,
    /// From acceptance to `sent`, and from each status to the next.
    pub status_delay_ms: Span,
    /// Share of messages whose first status is sent out before the answer to the send is.
    pub status_before_answer_rate: f64,
    /// Share of delivered messages that are read, too.
    pub read_rate: f64,
    /// Share of read messages without a `delivered` (the chat was open).
    pub skip_delivered_rate: f64,
    /// Share of accepted messages that fail later with one of `fail_later_codes`.
    pub fail_later_rate: f64,
    /// See `fail_later_rate`.
    pub fail_later_codes: Vec<u32>,
    /// Share of template sends answered `held_for_quality_assessment` …
    pub held_rate: f64,
    /// … of which this share is dropped in the end (`failed` 132015).
    pub held_drop_share: f64,

    /// Share of webhooks sent twice.
    pub duplicate_rate: f64,
    /// Share of messages whose statuses go out in the wrong order.
    pub reorder_rate: f64,
    /// How many updates of a number one webhook may carry (the provider's own limit is 1,000).
    pub batch_most: usize,
    /// How long to gather for a batch.
    pub batch_linger_ms: u64,
    /// `\/` instead of `/`, as seen in the field.
    pub escape_slashes: bool,
    /// Which version's shape webhooks have: below 24 statuses carry `conversation`.
    pub webhook_version: u32,
    /// Delay after the second failed delivery of a webhook (the first retry is immediate); doubles each time …
    pub webhook_retry_ms: u64,
    /// … up to this.
    pub webhook_retry_most_ms: u64,
    /// Age at which a webhook is given up: 7 days.
    pub webhook_give_up_s: u64,
    /// How long to wait for the receiver's answer (the provider's own value is not published).
    pub webhook_timeout_ms: u64,

    /// `X-App-Usage` and `X-Business-Use-Case-Usage` on answers.
    pub usage_headers: bool,
    /// Management calls an hour and WABA before 80007.
    pub management_per_hour: u32,
    /// What happens to a WhatsApp message with a media id that is not there (any more) for this number.
    pub unknown_media: UnknownMedia,
    /// How long uploads to WhatsApp can be sent: 30 days.
    pub media_life_s: u64,
    /// How long a created template is looked at before it is approved.
    pub approval_ms: u64,

    /// Messenger and Instagram: calls a second and account before 613, text and the like; `null` for no limit.
    pub messaging_per_second: Option<u32>,
    /// The same for audio and video.
    pub messaging_files_per_second: Option<u32>,
    /// Messages a second, in and out together, above which a Page or account cannot send …
    pub high_volume_per_second: Option<u32>,
    /// … and the code it is told so with: the contract names none.
    pub high_volume_code: u32,
    /// Sends in 24 hours for each person who wrote to the account, before 80006.
    pub calls_per_engaged_person: Option<u32>,
    /// Private replies an hour and account.
    pub private_replies_per_hour: Option<u32>,
    /// Calls a second to the Conversations API.
    pub conversations_per_second: Option<u32>,
    /// How long an account may answer with `HUMAN_AGENT`: 7 days.
    pub human_agent_window_s: u64,
    /// How long an uploaded attachment can be sent: 90 days.
    pub attachment_life_s: u64,
    /// Share of Messenger's delivery receipts without `mids`.
    pub bare_receipt_rate: f64,

    /// Twilio: whether senders drain at their rate; without, everything leaves at once.
    pub queues: bool,
    /// How deep a sender's queue is, in seconds of its rate; `null` for 10 hours, and 4 on WhatsApp.
    pub queue_s: Option<u64>,
    /// Requests at once and account before 20429; `null` for no limit.
    pub concurrent_requests: Option<u32>,
    /// Sends a second and account before 20429: the provider's own figure is not published.
    pub requests_per_second: Option<u32>,

    /// How the gateway words its answers.
    pub gateway_shape: GatewayShape,
}

/// Milliseconds from `min` to `max`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// What happens to a free-form message outside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// 131047 as the answer.
    Refuse,
    /// Accepted, then a `failed` status with 131047.
    FailLater,
    /// Nothing: every message passes.
    Ignore,
}

/// What happens to a message with a media id that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownMedia {
    /// 131009 as the answer.
    Refuse,
    /// Accepted, then a `failed` status with 131053.
    FailLater,
}

/// The ways in which the gateway answers; its clients have seen all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayShape {
    /// `{"success":true,"messageId":…}`; failures with a status of their own.
    Success,
    /// `{"status":"success","id":…}` with `subscription`.
    Status,
    /// `{"status":true,"results":[{"messageId":…}]}`.
    Results,
    /// The first, as the only element of an array.
    Array,
    /// The first, but failures come with 200 and `success:false`, too.
    AlwaysOk,
}

/// What becomes of a message, in the word of the provider that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It left the provider.
    Sent,
    /// It reached the person's device.
    Delivered,
    /// The person saw it.
    Read,
    /// It will not be delivered.
    Failed,
    /// A messaging service gave it to a sender (Twilio).
    Queued,
    /// It is shown in the thread (Messenger, Instagram).
    Echo,
    /// The carrier or WhatsApp did not deliver it (Twilio).
    Undelivered,
}

/// What becomes of one send, drawn once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Normal,
    Refuse,
    Unavailable,
    Gateway { processed: bool },
    CutBefore,
    CutAfter,
    Truncate,
    Hang,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency_ms: Span::default(),
            slow_rate: 0.0,
            slow_ms: 2_000,
            throughput_per_second: Some(80),
            throughput_burst: None,
            throttle_status: 400,
            retry_after_s: None,
            pair_limit: true,
            window: WindowRule::Refuse,
            window_s: 24 * 3600,
            refuse_rate: 0.0,
            refuse_code: 131_000,
            refuse_subcode: None,
            unavailable_rate: 0.0,
            unavailable_code: 131_016,
            gateway_error_rate: 0.0,
            gateway_processed_share: 0.5,
            cut_before_rate: 0.0,
            cut_after_rate: 0.0,
            truncate_rate: 0.0,
            hang_rate: 0.0,
            hang_ms: 60_000,
            statuses: true,
            status_kinds: vec![Status::Queued, Status::Echo, Status::Sent, Status::Delivered, Status::Read],
            status_delay_ms: Span { min: 20, max: 200 },
            status_before_answer_rate: 0.0,
            read_rate: 0.6,
            skip_delivered_rate: 0.1,
            fail_later_rate: 0.0,
            // Whose window is closed is for `window` to say.
            fail_later_codes: vec![131_026, 131_049, 131_053],
            held_rate: 0.0,
            held_drop_share: 0.0,
            duplicate_rate: 0.0,
            reorder_rate: 0.0,
            batch_most: 1,
            batch_linger_ms: 0,
            escape_slashes: false,
            webhook_version: 25,
            webhook_retry_ms: 250,
            webhook_retry_most_ms: 10_000,
            webhook_give_up_s: 7 * 24 * 3600,
            webhook_timeout_ms: 10_000,
            usage_headers: false,
            management_per_hour: 5_000,
            unknown_media: UnknownMedia::FailLater,
            media_life_s: 30 * 24 * 3600,
            approval_ms: 200,
            messaging_per_second: Some(300),
            messaging_files_per_second: Some(10),
            high_volume_per_second: Some(40),
            high_volume_code: 613,
            calls_per_engaged_person: Some(200),
            private_replies_per_hour: Some(750),
            conversations_per_second: Some(2),
            human_agent_window_s: 7 * 24 * 3600,
            attachment_life_s: 90 * 24 * 3600,
            bare_receipt_rate: 0.0,
            queues: true,
            queue_s: None,
            concurrent_requests: Some(100),
            requests_per_second: None,
            gateway_shape: GatewayShape::Success,
        }
    }
}

impl Behaviour {
    /// A provider that takes everything and never reports back, for measuring the product's own speed.
    pub fn fastest() -> Self {
        Self {
            throughput_per_second: None,
            pair_limit: false,
            window: WindowRule::Ignore,
            statuses: false,
            messaging_per_second: None,
            messaging_files_per_second: None,
            high_volume_per_second: None,
            calls_per_engaged_person: None,
            private_replies_per_hour: None,
            conversations_per_second: None,
            queues: false,
            concurrent_requests: None,
            ..Self::default()
        }
    }

    pub(super) fn fate(&self, roll: &mut Roll) -> Fate {
        let shares = [
            (self.cut_before_rate, Fate::CutBefore),
            (self.unavailable_rate, Fate::Unavailable),
            (self.refuse_rate, Fate::Refuse),
            (self.gateway_error_rate, Fate::Gateway { processed: false }),
            (self.cut_after_rate, Fate::CutAfter),
            (self.truncate_rate, Fate::Truncate),
            (self.hang_rate, Fate::Hang),
        ];
        let mut drawn = roll.unit();
        for (rate, fate) in shares {
            if drawn < rate {
                return match fate {
                    Fate::Gateway { .. } => Fate::Gateway { processed: roll.chance(self.gateway_processed_share) },
                    fate => fate,
                };
            }
            drawn -= rate;
        }
        Fate::Normal
    }

    pub(super) fn latency_ms(&self, roll: &mut Roll) -> u64 {
        if roll.chance(self.slow_rate) { self.slow_ms } else { self.latency_ms.draw(roll) }
    }

    /// The sentence that says which setting cannot be.
    pub fn check(&self) -> Result<(), String> {
        let rates = [
            ("slow_rate", self.slow_rate),
            ("refuse_rate", self.refuse_rate),
            ("unavailable_rate", self.unavailable_rate),
            ("gateway_error_rate", self.gateway_error_rate),
            ("gateway_processed_share", self.gateway_processed_share),
            ("cut_before_rate", self.cut_before_rate),
            ("cut_after_rate", self.cut_after_rate),
            ("truncate_rate", self.truncate_rate),
            ("hang_rate", self.hang_rate),
            ("status_before_answer_rate", self.status_before_answer_rate),
            ("read_rate", self.read_rate),
            ("skip_delivered_rate", self.skip_delivered_rate),
            ("fail_later_rate", self.fail_later_rate),
            ("held_rate", self.held_rate),
            ("held_drop_share", self.held_drop_share),
            ("duplicate_rate", self.duplicate_rate),
            ("reorder_rate", self.reorder_rate),
            ("bare_receipt_rate", self.bare_receipt_rate),
        ];
        if let Some((name, rate)) = rates.into_iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            return Err(format!("{name} must lie between 0 and 1, not at {rate}"));
        }
        if !(1..=1_000).contains(&self.batch_most) {
            return Err("batch_most must lie between 1 and 1000".into());
        }
        if self.fail_later_rate > 0.0 && self.fail_later_codes.is_empty() {
            return Err("fail_later_codes must name a code when fail_later_rate is above 0".into());
        }
        let limits = [
            self.throughput_per_second,
            self.throughput_burst,
            self.messaging_per_second,
            self.messaging_files_per_second,
            self.private_replies_per_hour,
            self.conversations_per_second,
            self.requests_per_second,
        ];
        if limits.contains(&Some(0)) {
            return Err("limits must be at least 1, or null for none".into());
        }
        Ok(())
    }
}

impl Span {
    pub(super) fn draw(self, roll: &mut Roll) -> u64 {
        if self.max == 0 { 0 } else { roll.between(self.min, self.max) }
    }
}

impl Status {
    /// As it is written in webhooks.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Failed => "failed",
            Self::Queued => "queued",
            Self::Echo => "echo",
            Self::Undelivered => "undelivered",
        }
    }

    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_come_out_near_their_rates() {
        let behaviour = Behaviour { cut_before_rate: 0.1, cut_after_rate: 0.2, ..Behaviour::default() };
        let mut roll = Roll::new(3);
        let fates: Vec<Fate> = (0..10_000).map(|_| behaviour.fate(&mut roll)).collect();
        let count = |fate| fates.iter().filter(|drawn| **drawn == fate).count();
        assert!((900..1_100).contains(&count(Fate::CutBefore)));
        assert!((1_850..2_150).contains(&count(Fate::CutAfter)));
        assert_eq!(count(Fate::Hang), 0);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let said = Behaviour { hang_rate: 1.5, ..Behaviour::default() }.check().unwrap_err();
        assert!(said.contains("hang_rate"), "{said}");
        assert!(serde_json::from_str::<Behaviour>(r#"{"hang_rat": 0.1}"#).is_err());
    }
}
