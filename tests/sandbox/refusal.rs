//! A provider's "no": codes, HTTP statuses and the error body. WhatsApp's table is here (contract page, section 12); the others'
//! are beside what they refuse.

use super::{messaging, platform::Api, twilio};
use http::StatusCode;
use serde_json::json;
use std::borrow::Cow;

/// One refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whose.
    pub api: Api,
    /// What a caller is to decide on.
    pub code: u32,
    /// Half of the code at Messenger and Instagram. Deprecated for WhatsApp, still sent with token errors.
    pub subcode: Option<u32>,
    /// As the error page documents it; the same code may come with another.
    pub status: StatusCode,
    /// WhatsApp's `error_data.details`: the second thing to decide on. The text, with the others.
    pub details: Cow<'static, str>,
}

impl Refusal {
    /// A refusal of WhatsApp's with the HTTP status the contract gives this code.
    pub fn new(code: u32, details: impl Into<Cow<'static, str>>) -> Self {
        Self { api: Api::Whatsapp, code, subcode: None, status: documented(code).0, details: details.into() }
    }

    /// Any provider's, with the status and the text its contract gives this code.
    pub fn of(api: Api, code: u32, subcode: Option<u32>) -> Self {
        let (status, text) = match api {
            Api::Whatsapp => (documented(code).0.as_u16(), details(code)),
            Api::Messenger | Api::Instagram => messaging::documented(code, subcode),
            Api::Twilio => twilio::documented(code),
            Api::Botmaster => (code.try_into().unwrap_or(500), "Something went wrong"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        Self { api, code, subcode, status, details: text.into() }
    }

    /// What says that the provider is out of order; `code` is WhatsApp's or, if it is one of theirs, Meta's.
    pub(super) fn unavailable(api: Api, code: u32) -> Self {
        match api {
            Api::Whatsapp => Self::new(code, "Please try again."),
            Api::Messenger | Api::Instagram => Self::of(api, if matches!(code, 1 | 2 | 1200) { code } else { 2 }, None),
            Api::Twilio => Self::of(api, 20_503, None),
            Api::Botmaster => Self::of(api, 503, None),
        }
    }

    /// Whether it says that there was too much, not that something was wrong.
    pub(super) fn is_throttle(&self) -> bool {
        match self.api {
            Api::Twilio => self.code == 20_429,
            Api::Botmaster => self.code == 429,
            _ => matches!(self.code, 4 | 17 | 32 | 613 | 80_002 | 80_006 | 80_007 | 80_008 | 130_429 | 131_056),
        }
    }

    /// With this text instead.
    pub(super) fn saying(mut self, details: impl Into<Cow<'static, str>>) -> Self {
        self.details = details.into();
        self
    }

    /// An unknown or misspelt parameter, or a body that cannot be read.
    pub fn invalid(details: impl Into<Cow<'static, str>>) -> Self {
        Self::new(100, details)
    }

    /// A required parameter that is not there.
    pub fn missing(name: &str) -> Self {
        Self::new(131_008, format!("The parameter {name} is required."))
    }

    /// A parameter whose value cannot be.
    pub fn wrong(details: impl Into<Cow<'static, str>>) -> Self {
        Self::new(131_009, details)
    }

    pub(super) fn with_subcode(mut self, subcode: u32) -> Self {
        self.subcode = Some(subcode);
        self
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap_or(self.status);
        self
    }

    /// The error body as this provider writes it.
    pub fn body(&self, trace: u64) -> String {
        match self.api {
            Api::Whatsapp => self.whatsapp(trace),
            Api::Messenger | Api::Instagram => self.messaging(trace),
            Api::Twilio => {
                let more_info = format!("https://www.twilio.com/docs/errors/{}", self.code);
                json!({"code": self.code, "message": self.details, "more_info": more_info, "status": self.status.as_u16()})
                    .to_string()
            }
            Api::Botmaster => json!({"success": false, "message": self.details}).to_string(),
        }
    }

    fn messaging(&self, trace: u64) -> String {
        let mut error = json!({
            "message": format!("(#{}) {}", self.code, self.details),
            "type": "OAuthException",
            "code": self.code,
            "fbtrace_id": format!("B{trace:016x}"),
        });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        if self.status.is_server_error() {
            error["is_transient"] = json!(true);
        }
        json!({ "error": error }).to_string()
    }

    fn whatsapp(&self, trace: u64) -> String {
        let mut error = json!({
            "message": format!("(#{}) {}", self.code, title(self.code)),
            "type": "OAuthException",
            "code": self.code,
            "fbtrace_id": format!("A{trace:016x}"),
        });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        // Graph's own errors (token, permission, unknown object) carry no WhatsApp details.
        if !matches!(self.code, 0 | 3 | 10 | 33 | 104 | 190 | 200..=299 | 803) {
            error["error_data"] = json!({"messaging_product": "whatsapp", "details": self.details});
        }
        if matches!(self.code, 2 | 131_000 | 131_016 | 131_057 | 133_004) {
            error["is_transient"] = json!(true);
        }
        json!({ "error": error }).to_string()
    }
}

/// The short text that goes with a code, also used as title and message in `errors[]` of webhooks.
pub fn title(code: u32) -> &'static str {
    documented(code).1
}

/// The usual `details` of codes that arrive in a `failed` status.
pub fn details(code: u32) -> &'static str {
    match code {
        130_429 => {
            "Message failed to send because there were too many messages sent from this phone number in a short period of time"
        }
        131_026 => "Message Undeliverable.",
        131_047 => {
            "Message failed to send because more than 24 hours have passed since the customer last replied to this number."
        }
        131_049 => "In order to maintain a healthy ecosystem engagement, the message failed to be delivered.",
        131_050 => "The recipient has chosen to stop receiving marketing messages from this business.",
        131_053 => "Media upload error: the media could not be processed.",
        131_056 => {
            "Message failed to send because there were too many messages sent from this phone number to the same phone number in a short period of time."
        }
        132_015 => "The template is paused because of its quality.",
        other => title(other),
    }
}

/// HTTP status and text of a code, by the table of the contract page (section 12.2).
fn documented(code: u32) -> (StatusCode, &'static str) {
    let (status, text) = match code {
        0 => (401, "Authentication failed"),
        1 => (400, "Invalid request or possible server error"),
        2 => (503, "Temporary downtime"),
        3 => (500, "Capability or permissions issue"),
        4 => (400, "Application request limit reached"),
        10 => (403, "Permission denied"),
        33 => (400, "The business phone number has been deleted"),
        100 => (400, "Invalid parameter"),
        104 => (401, "An access token is required to request this resource."),
        190 => (401, "Error validating access token"),
        200..=299 => (403, "Permission not granted or removed"),
        368 => (403, "Temporarily blocked for policies violations"),
        803 => (404, "Some of the aliases you requested do not exist"),
        80_007 => (400, "Rate limit issues"),
        130_429 => (400, "Rate limit hit"),
        130_472 => (400, "User's number is part of an experiment"),
        130_497 => (403, "Business account is restricted from messaging users in this country."),
        131_000 => (500, "Something went wrong"),
        131_005 => (403, "Access denied"),
        131_008 => (400, "Required parameter is missing"),
        131_009 => (400, "Parameter value is not valid"),
        131_016 => (500, "Service unavailable"),
        131_021 => (400, "Recipient cannot be sender"),
        131_026 => (400, "Message undeliverable"),
        131_030 => (400, "Recipient phone number not in allowed list"),
        131_031 => (403, "Account has been locked"),
        131_037 => (400, "WhatsApp provided number needs display name approval before message can be sent."),
        131_042 => (400, "Business eligibility payment issue"),
        131_045 => (500, "Incorrect certificate"),
        131_047 => (400, "Re-engagement message"),
        131_048 => (400, "Spam rate limit hit"),
        131_049 => (400, "This message was not delivered to maintain healthy ecosystem engagement."),
        131_050 => (400, "User has stopped marketing messages"),
        131_051 => (400, "Message type unknown"),
        131_052 => (400, "Media download error"),
        131_053 => (400, "Media upload error"),
        131_055 => (400, "Method not allowed"),
        131_056 => (400, "(Business Account, Consumer Account) pair rate limit hit"),
        131_057 => (500, "Account in maintenance mode"),
        131_059 => (400, "Invalid or expired cursor"),
        131_060 => (400, "This message is unavailable"),
        131_062 => (400, "Business-scoped user ids are not supported for this message"),
        131_063 => (400, "Marketing templates are disabled on Cloud API"),
        131_064 => (400, "Limited for template misclassification"),
        132_000 => (400, "Number of parameters does not match the expected number of params"),
        132_001 => (404, "Template name does not exist in the translation"),
        132_005 => (400, "Translated text too long"),
        132_007 => (400, "Template format character policy violated"),
        132_008 | 132_012 => (400, "Parameter format does not match format in the created template"),
        132_015 => (400, "Template is paused"),
        132_016 => (400, "Template is disabled"),
        132_018 => (400, "Template parameters are not valid"),
        133_004 => (503, "Server temporarily unavailable"),
        133_010 => (400, "Account not registered"),
        137_000 => (400, "Recipient identity key hash mismatch"),
        2_388_019 => (400, "Template limit exceeded"),
        2_388_299 => (400, "Variables can't be at the start or end of the template"),
        _ => (400, "Request failed"),
    };
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_names_the_code_and_the_details() {
        let refusal = Refusal::new(131_056, details(131_056));
        let body: serde_json::Value = serde_json::from_str(&refusal.body(1)).unwrap();
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        assert_eq!(body["error"]["code"], 131_056);
        assert_eq!(body["error"]["type"], "OAuthException");
        assert_eq!(body["error"]["error_data"]["messaging_product"], "whatsapp");
        assert!(body["error"]["message"].as_str().unwrap().starts_with("(#131056) "));
    }

    #[test]
    fn token_errors_are_401_and_carry_the_subcode() {
        let refusal = Refusal::new(190, "expired").with_subcode(463);
        let body: serde_json::Value = serde_json::from_str(&refusal.body(1)).unwrap();
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["error"]["error_subcode"], 463);
    }
}
