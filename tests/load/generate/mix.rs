//! Signed webhooks of all providers in one stream: of five, three are reports about messages that had been sent and two are
//! messages. Like those of [`super::payload`] they are a function of the serial number and are put together in place. Ids of
//! messages that had been sent are made here, too: whoever prepares a side's database asks for the same.
//!
//! Every report is news about a message of its own: delivered for the first half of a platform's reports, read for the second;
//! Instagram, which tells of reading alone, has twice the messages. So each report is one row changed and one row added, on both
//! sides, in whatever order they are stored.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;

use super::payload::{FIRST_PHONE_NUMBER_ID, name, number, spread, text};

/// Of so many webhooks …
const ROUND: u64 = 5;
/// … so many are messages.
const MESSAGES: u64 = 2;

pub(crate) const PAGE: &str = "100900000000001";
pub(crate) const PROFESSIONAL: &str = "17841400000000055";
pub(crate) const SMS: &str = "+15035550199";
pub(crate) const TWILIO_WHATSAPP: &str = "whatsapp:+15035550198";
const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";

/// What stands in front of the paths in the URLs that Twilio signs.
pub(crate) const PUBLIC_URL: &str = "https://hooks.example.com";

/// An account that webhooks are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Door {
    Whatsapp,
    Messenger,
    Instagram,
    Sms,
    TwilioWhatsapp,
}

/// Which account the nth of ten webhooks is about.
const TENTH: [Door; 10] = [
    Door::Whatsapp,
    Door::Messenger,
    Door::Instagram,
    Door::Whatsapp,
    Door::Sms,
    Door::Whatsapp,
    Door::Messenger,
    Door::Instagram,
    Door::Whatsapp,
    Door::TwilioWhatsapp,
];

/// What is mixed, beside the payloads' own settings.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// Reports there can be of every tenth: half as many messages had been sent for it.
    pub(crate) reports: u64,
    /// When those messages had been sent: Unix seconds.
    pub(crate) sent_at: i64,
}

/// A message that had been sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) door: Door,
    /// As the provider names who got it.
    pub(crate) recipient: String,
    pub(crate) provider_message_id: String,
}

impl Mix {
    /// How many webhooks there can be before their reports are no news any more.
    pub(crate) fn most(&self) -> u64 {
        self.reports * TENTH.len() as u64 / (ROUND - MESSAGES) * ROUND
    }

    /// Every message that had been sent.
    pub(crate) fn known(self, run: &str) -> impl Iterator<Item = Known> {
        let run = run.to_owned();
        TENTH.into_iter().enumerate().flat_map(move |(tenth, door)| {
            let run = run.clone();
            (0..self.sent(door)).map(move |nth| Known {
                door,
                recipient: recipient(door, tenth as u64, nth),
                provider_message_id: sent_id(door, &run, tenth as u64, nth),
            })
        })
    }

    /// How many had been sent for each tenth of this account.
    fn sent(self, door: Door) -> u64 {
        if door == Door::Instagram { self.reports } else { self.reports.div_ceil(2) }
    }
}

impl Door {
    pub(crate) const ALL: [Self; 5] =
        [Self::Whatsapp, Self::Messenger, Self::Instagram, Self::Sms, Self::TwilioWhatsapp];

    /// As in URLs and in SQL.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
            Self::Sms | Self::TwilioWhatsapp => "twilio",
        }
    }

    /// The account's id at its provider.
    pub(crate) fn account(self) -> String {
        match self {
            Self::Whatsapp => FIRST_PHONE_NUMBER_ID.to_string(),
            Self::Messenger => PAGE.to_owned(),
            Self::Instagram => PROFESSIONAL.to_owned(),
            Self::Sms => SMS.to_owned(),
            Self::TwilioWhatsapp => TWILIO_WHATSAPP.to_owned(),
        }
    }
}

/// Writes HTTP requests.
pub(crate) struct Writer {
    mix: Mix,
    run: String,
    people: u64,
    sha256: Hmac<Sha256>,
    sha1: Hmac<Sha1>,
    host: String,
    texts: Vec<String>,
    body: Vec<u8>,
}

impl Writer {
    /// `host` is where the requests go; one secret signs all.
    pub(crate) fn new(mix: Mix, payloads: &super::payload::Payloads, host: &str) -> Self {
        let secret = payloads.app_secret.as_bytes();
        Self {
            mix,
            run: payloads.run.clone(),
            people: payloads.people,
            sha256: Hmac::new_from_slice(secret).expect("HMAC takes keys of every length"),
            sha1: Hmac::new_from_slice(secret).expect("HMAC takes keys of every length"),
            host: host.to_owned(),
            texts: (0..256).map(text).collect(),
            body: Vec::with_capacity(2_048),
        }
    }

    /// Replaces `request` by the request with this serial number.
    pub(crate) fn write(&mut self, serial: u64, request: &mut Vec<u8>) {
        let (round, place) = (serial / ROUND, serial % ROUND);
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let door = if place < MESSAGES {
            self.message(round * MESSAGES + place, &mut body)
        } else {
            self.report(round * (ROUND - MESSAGES) + place - MESSAGES, &mut body)
        };
        self.finish(door, &body, request);
        self.body = body;
    }

    fn message(&self, nth: u64, body: &mut Vec<u8>) -> Door {
        let door = TENTH[(spread(nth ^ 0xd00d) % 10) as usize];
        let person = spread(nth) % self.people;
        let text = &self.texts[(spread(nth ^ 0x5eed) % 256) as usize];
        match door {
            Door::Whatsapp => {
                super::payload::open(body, 0, person);
                super::payload::message(body, &self.run, nth, person, text);
                super::payload::close(body);
            }
            Door::Messenger | Door::Instagram => {
                open_messaging(body, door, &scoped(door, person));
                append(body, &[r#","message":{"mid":""#]);
                self.mid(body, nth);
                append(body, &[r#"","text":""#, text, r#""}}]}]}"#]);
            }
            Door::Sms | Door::TwilioWhatsapp => {
                let sid = sid(&self.run, 1, nth);
                // Texts have JSON's escape for é.
                let text = text.replace("\\u00e9", "%C3%A9").replace(' ', "+");
                let address = address(door, person);
                if door == Door::Sms {
                    append(
                        body,
                        &[
                            "ToCountry=US&ToState=OR&ToCity=&ToZip=&FromCountry=US&FromState=OR&FromCity=PORTLAND&FromZip=97201&",
                        ],
                    );
                }
                append(
                    body,
                    &["SmsMessageSid=", &sid, "&SmsSid=", &sid, "&MessageSid=", &sid, "&AccountSid=", ACCOUNT_SID],
                );
                append(body, &["&SmsStatus=received&NumMedia=0&NumSegments=1&Body=", &text]);
                append(body, &["&From=", &form(&address), "&To=", &form(&door.account())]);
                if door == Door::TwilioWhatsapp {
                    append(body, &["&ProfileName=", name(person).0, "&WaId=", &address["whatsapp:+".len()..]]);
                    append(body, &["&MessageType=text&ReferralNumMedia=0&Forwarded=false&FrequentlyForwarded=false"]);
                }
                append(body, &["&ApiVersion=2010-04-01"]);
            }
        }
        door
    }

    fn report(&self, nth: u64, body: &mut Vec<u8>) -> Door {
        let tenth = nth % TENTH.len() as u64;
        let door = TENTH[tenth as usize];
        let of_tenth = nth / TENTH.len() as u64;
        let sent = self.mix.sent(door);
        let (which, is_read) = (of_tenth % sent, door == Door::Instagram || of_tenth >= sent);
        let id = sent_id(door, &self.run, tenth, which);
        let to = recipient(door, tenth, which);
        let state = if is_read { "read" } else { "delivered" };
        match door {
            Door::Whatsapp => {
                append(
                    body,
                    &[
                        r#"{"object":"whatsapp_business_account","entry":[{"id":"210000000000007","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15557770000","phone_number_id":""#,
                    ],
                );
                append(
                    body,
                    &[
                        &door.account(),
                        r#""},"statuses":[{"id":""#,
                        &id,
                        r#"","status":""#,
                        state,
                        r#"","timestamp":""#,
                    ],
                );
                number(body, now_ms() / 1_000, 10);
                append(body, &[r#"","recipient_id":""#, &to, r#"","recipient_user_id":"US.80"#, &to]);
                append(
                    body,
                    &[
                        r#"","pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":"utility"}}]},"field":"messages"}]}]}"#,
                    ],
                );
            }
            Door::Messenger if !is_read => {
                open_messaging(body, door, &to);
                append(body, &[r#","delivery":{"mids":[""#, &id, r#""],"watermark":"#]);
                number(body, self.mix.sent_at as u64 * 1_000 + 900, 13);
                append(body, &[r#"}}]}]}"#]);
            }
            Door::Messenger => {
                open_messaging(body, door, &to);
                append(body, &[r#","read":{"watermark":"#]);
                number(body, self.mix.sent_at as u64 * 1_000 + 900, 13);
                append(body, &[r#"}}]}]}"#]);
            }
            Door::Instagram => {
                open_messaging(body, door, &to);
                append(body, &[r#","read":{"mid":""#, &id, r#""}}]}]}"#]);
            }
            Door::Sms | Door::TwilioWhatsapp => {
                if door == Door::TwilioWhatsapp {
                    let event = if is_read { "READ" } else { "DELIVERED" };
                    append(
                        body,
                        &[
                            "ChannelPrefix=whatsapp&ChannelInstallSid=XE00000000000000000000000000000003&EventType=",
                            event,
                            "&",
                        ],
                    );
                }
                // Nobody reads a text message so that it could be told: there the second half did not arrive after all.
                let state = if door == Door::Sms && is_read { "undelivered" } else { state };
                append(body, &["SmsSid=", &id, "&SmsStatus=", state, "&MessageStatus=", state, "&To=", &form(&to)]);
                append(
                    body,
                    &[
                        "&MessageSid=",
                        &id,
                        "&AccountSid=",
                        ACCOUNT_SID,
                        "&From=",
                        &form(&door.account()),
                        "&ApiVersion=2010-04-01",
                    ],
                );
            }
        }
        door
    }

    fn mid(&self, body: &mut Vec<u8>, nth: u64) {
        append(body, &["m_", &self.run, "-in-"]);
        number(body, nth, 12);
    }

    fn finish(&self, door: Door, body: &[u8], request: &mut Vec<u8>) {
        request.clear();
        append(
            request,
            &[
                "POST /webhooks/",
                door.provider(),
                " HTTP/1.1\r\nHost: ",
                &self.host,
                "\r\nAccept: */*\r\nContent-Type: ",
            ],
        );
        match door {
            Door::Sms | Door::TwilioWhatsapp => {
                append(request, &["application/x-www-form-urlencoded; charset=utf-8\r\nX-Twilio-Signature: "]);
                append(request, &[&self.twilio_signature(body)]);
                append(
                    request,
                    &[
                        "\r\nI-Twilio-Idempotency-Token: 3f1f8f0e-0000-4000-8000-000000000000\r\nUser-Agent: TwilioProxy/1.1",
                    ],
                );
            }
            Door::Whatsapp | Door::Messenger | Door::Instagram => {
                let mut mac = self.sha256.clone();
                mac.update(body);
                let mut signature = [0; 64];
                hex::encode_to_slice(mac.finalize().into_bytes(), &mut signature).expect("32 bytes are 64 digits");
                append(
                    request,
                    &["application/json\r\nUser-Agent: facebookexternalua\r\nX-Hub-Signature-256: sha256="],
                );
                request.extend_from_slice(&signature);
            }
        }
        append(request, &["\r\nContent-Length: "]);
        number(request, body.len() as u64, 1);
        append(request, &["\r\n\r\n"]);
        request.extend_from_slice(body);
    }

    /// Over the URL and the parameters in the order of their names (twilio contract page, section 4).
    fn twilio_signature(&self, body: &[u8]) -> String {
        let mut parameters: Vec<_> = url::form_urlencoded::parse(body).collect();
        parameters.sort_unstable();
        let mut mac = self.sha1.clone();
        mac.update(PUBLIC_URL.as_bytes());
        mac.update(b"/webhooks/twilio");
        for (name, value) in parameters {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
        BASE64.encode(mac.finalize().into_bytes())
    }
}

/// Up to the recipient; what follows begins with a comma.
fn open_messaging(body: &mut Vec<u8>, door: Door, person: &str) {
    let object = if door == Door::Messenger { "page" } else { "instagram" };
    let account = door.account();
    let now = now_ms();
    append(body, &[r#"{"object":""#, object, r#"","entry":[{"id":""#, &account, r#"","time":"#]);
    number(body, now, 13);
    append(body, &[r#","messaging":[{"timestamp":"#]);
    number(body, now, 13);
    append(body, &[r#","sender":{"id":""#, person, r#""},"recipient":{"id":""#, &account, r#""}"#]);
}

/// Those who had been written to are others than those who write: each got one message.
fn recipient(door: Door, tenth: u64, nth: u64) -> String {
    let person = 10_000_000 + tenth * 1_000_000 + nth;
    match door {
        Door::Whatsapp => format!("155{person:08}"),
        Door::Messenger | Door::Instagram => scoped(door, person),
        Door::Sms | Door::TwilioWhatsapp => address(door, person),
    }
}

fn scoped(door: Door, person: u64) -> String {
    let first = if door == Door::Messenger { "24" } else { "98" };
    format!("{first}0000{person:011}")
}

fn address(door: Door, person: u64) -> String {
    match door {
        Door::TwilioWhatsapp => format!("whatsapp:+4917{person:08}"),
        _ => format!("+1503{person:08}"),
    }
}

fn sent_id(door: Door, run: &str, tenth: u64, nth: u64) -> String {
    match door {
        Door::Whatsapp => format!("wamid.HBgLMTU1NTc3NzAxNDIVAgARGBI{run}{tenth:01}{nth:013}AA=="),
        Door::Messenger | Door::Instagram => format!("m_{run}-out-{tenth}-{nth:012}"),
        Door::Sms | Door::TwilioWhatsapp => sid(run, 2 + tenth, nth),
    }
}

fn sid(run: &str, kind: u64, nth: u64) -> String {
    format!("SM{run}{kind:08x}{nth:016x}")
}

fn form(value: &str) -> String {
    value.replace('+', "%2B").replace(':', "%3A")
}

fn append(to: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        to.extend_from_slice(part.as_bytes());
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;
    use crate::generate::payload::Payloads;

    const MIX: Mix = Mix { reports: 300, sent_at: 1_794_826_800 };

    fn requests(serials: std::ops::Range<u64>) -> Vec<(String, String)> {
        let payloads = Payloads { app_secret: "secret".into(), run: "abcd1234".into(), people: 500, numbers: 1 };
        let mut writer = Writer::new(MIX, &payloads, "127.0.0.1:8080");
        let mut request = Vec::new();
        serials
            .map(|serial| {
                writer.write(serial, &mut request);
                let text = String::from_utf8(request.clone()).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("Content-Length: {}", body.len())));
                (head.to_owned(), body.to_owned())
            })
            .collect()
    }

    #[test]
    fn three_of_five_are_reports_and_every_report_is_news_once() {
        let known: HashSet<String> = MIX.known("abcd1234").map(|known| known.provider_message_id).collect();
        let people: HashSet<(Door, String)> =
            MIX.known("abcd1234").map(|known| (known.door, known.recipient)).collect();
        assert_eq!(known.len(), people.len());
        let mut news = HashSet::new();
        let mut reports = 0;
        for (head, body) in requests(0..MIX.most()) {
            if head.contains("twilio") {
                let form: HashMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
                if let Some(status) = form.get("MessageStatus") {
                    assert!(known.contains(&form["MessageSid"]));
                    reports += u64::from(news.insert((form["MessageSid"].clone(), status.clone())));
                }
                continue;
            }
            let body: Value = serde_json::from_str(&body).unwrap();
            let status = &body["entry"][0]["changes"][0]["value"]["statuses"][0];
            let event = &body["entry"][0]["messaging"][0];
            let about = match (&status["id"], &event["delivery"]["mids"][0], &event["read"]) {
                (Value::String(id), ..) => Some((id.clone(), status["status"].to_string())),
                (_, Value::String(id), _) => Some((id.clone(), "delivered".into())),
                (.., read) if read["mid"].is_string() => Some((read["mid"].as_str().unwrap().into(), "read".into())),
                (.., read) if read.is_object() => Some((event["sender"]["id"].to_string(), "read".into())),
                _ => None,
            };
            if let Some((id, state)) = about {
                assert!(known.contains(&id) || id.contains("24"), "{id}");
                reports += u64::from(news.insert((id, state)));
            }
        }
        assert_eq!(reports, MIX.reports * 10);
        assert_eq!(reports * 5, MIX.most() * 3);
    }

    #[test]
    fn every_platform_is_there_and_signed() {
        let mut paths: HashMap<String, usize> = HashMap::new();
        for (head, body) in requests(0..1_000) {
            *paths.entry(head.split(' ').nth(1).unwrap().to_owned()).or_default() += 1;
            if let Some(signature) = head.split("sha256=").nth(1).and_then(|rest| rest.split("\r\n").next()) {
                let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
                mac.update(body.as_bytes());
                assert_eq!(signature, hex::encode(mac.finalize().into_bytes()));
            }
            let size = body.len();
            assert!((180..1_200).contains(&size), "{size} bytes: {body}");
        }
        assert!((350..450).contains(&paths["/webhooks/whatsapp"]), "{paths:?}");
        assert!(
            ["messenger", "instagram", "twilio"].iter().all(|name| paths[&format!("/webhooks/{name}")] > 150),
            "{paths:?}"
        );
    }
}
