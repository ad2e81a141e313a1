//! Files that were uploaded to WhatsApp, the only provider that wants that: for how long an id is good, and what may be said of one that
//! is not.

use chrono::TimeDelta;

/// For so long an upload can be sent (contract, section 9).
pub const LIVES: TimeDelta = TimeDelta::days(30);
/// One that is so new cannot be over: a refusal that may be of its id is of something else.
pub const NEW_FOR: TimeDelta = TimeDelta::minutes(10);
/// What a message is reported as failed with that was taken by an id that is over, or whose file WhatsApp cannot use.
pub const FILE_NOT_PROCESSED: &str = "131053";
