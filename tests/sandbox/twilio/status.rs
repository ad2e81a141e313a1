//! Status callbacks (twilio contract page, section 3): the URL's query is kept and signed.

use super::{super::platform::AccountSpec, Parameters};
use serde::{Deserialize, Serialize};

/// A status that is told by callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the provider's own word")]
pub enum Status {
    Queued,
    Sending,
    Sent,
    Delivered,
    Read,
    Undelivered,
    Failed,
    Canceled,
}

impl Status {
    /// As in `MessageStatus`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// A callback in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Callback<'a> {
    pub(crate) account: &'a AccountSpec,
    pub(crate) sid: &'a str,
    /// To whom the message went.
    pub(crate) to: &'a str,
    pub(crate) status: Status,
    pub(crate) code: Option<u32>,
}

/// The parameters of a callback.
pub(crate) fn parameters(callback: &Callback<'_>) -> Parameters {
    let Callback { account, sid, to, status, code } = *callback;
    let mut all = Parameters::new();
    let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    let ended = matches!(status, Status::Delivered | Status::Undelivered);
    if ended && !account.is_twilio_whatsapp() {
        add("RawDlrDoneDate", "2611190412");
    }
    if let Some(code) = code {
        add("ErrorCode", &code.to_string());
    }
    for (name, value) in [
        ("SmsSid", sid),
        ("SmsStatus", status.name()),
        ("MessageStatus", status.name()),
        ("To", to),
        ("MessageSid", sid),
    ] {
        add(name, value);
    }
    add("AccountSid", &account.account_sid);
    add("From", &account.id);
    add("ApiVersion", "2010-04-01");
    if let Some(service) = &account.messaging_service_sid {
        add("MessagingServiceSid", service);
    }
    if account.is_twilio_whatsapp() {
        add("ChannelPrefix", "whatsapp");
        add("ChannelInstallSid", "XE00000000000000000000000000000003");
        add("ChannelToAddress", &format!("{}XXXX", &to[..to.len().saturating_sub(4)]));
        match status {
            Status::Delivered => add("EventType", "DELIVERED"),
            Status::Read => add("EventType", "READ"),
            Status::Undelivered => {
                add("EventType", "UNDELIVERED");
                add("ChannelStatusMessage", "failed to send message because you are outside the support window");
            }
            Status::Sent => add("StructuredMessage", "false"),
            _ => {}
        }
    }
    all
}

/// The URL of a message's callbacks: the account's, with the message's own parameter behind what it has.
pub(crate) fn url(account: &AccountSpec, default: &str, query: Option<&str>) -> String {
    let url = account.status_url.as_deref().unwrap_or(default);
    let Some(query) = query else { return url.to_owned() };
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let joint = if url.contains('?') { '&' } else { '?' };
    fragment.map_or_else(|| format!("{url}{joint}{query}"), |fragment| format!("{url}{joint}{query}#{fragment}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::platform::Platform;
    use super::*;

    #[test]
    fn own_parameter_joins_the_query_before_the_overrides() {
        let account = AccountSpec::new(Platform::Twilio, "+15035550199");
        assert_eq!(url(&account, "http://h/s#rc=5", Some("mid=m1:7")), "http://h/s?mid=m1:7#rc=5");
        assert_eq!(url(&account, "http://h/s?a=1", Some("mid=7")), "http://h/s?a=1&mid=7");
    }

    #[test]
    fn carriers_time_is_told_of_text_messages_alone() {
        let names = |id: &str| {
            let account = AccountSpec::new(Platform::Twilio, id);
            let callback = Callback {
                account: &account,
                sid: "SM1",
                to: "whatsapp:+14155550188",
                status: Status::Delivered,
                code: None,
            };
            parameters(&callback).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert!(names("+15035550199").contains(&"RawDlrDoneDate".into()));
        assert!(!names("whatsapp:+15035550199").contains(&"RawDlrDoneDate".into()));
        assert!(names("whatsapp:+15035550199").contains(&"EventType".into()));
    }
}
