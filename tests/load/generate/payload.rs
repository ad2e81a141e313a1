//! Signed WhatsApp webhooks as Meta sends them: one text message each, a wamid that never repeats, from some thousands of
//! people to one or several numbers. Which person writes what is a function of the serial number, so two runs get the
//! same payloads. They are put together in place, for less than a microsecond each, so that a run needs no gigabytes.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// WhatsApp's documented most is 3 MB; a big body here is 2.9 MiB of text messages in one webhook.
const BIG_BODY_BYTES: usize = 29 * 1024 * 1024 / 10;
/// Text of each message in a big body: WhatsApp's longest text is 4,096 characters.
const BIG_TEXT_BYTES: usize = 4_000;

const FIRST_NAMES: [&str; 16] = [
    "Ada", "Bruno", "Chidi", "Dalia", "Emeka", "Farida", "Gustavo", "Hana", "Ivo", "Jamila", "Kofi", "Lucia", "Mateo",
    "Nadia", "Omar", "Priya",
];
/// As Meta writes what is not ASCII: lower-case escapes, which are what is signed.
const LAST_NAMES: [&str; 16] = [
    "Quill",
    "Okafor",
    "Su\\u00e1rez",
    "Lindqvist",
    "Haddad",
    "Moreau",
    "N\\u00fa\\u00f1ez",
    "Tanaka",
    "Petrov",
    "Mwangi",
    "Rossi",
    "Novak",
    "Silva",
    "Kaya",
    "Banerjee",
    "Stone",
];
const WORDS: [&str; 24] = [
    "hello",
    "is",
    "the",
    "blue",
    "one",
    "back",
    "in",
    "stock",
    "order",
    "arrived",
    "yesterday",
    "but",
    "please",
    "my",
    "size",
    "when",
    "shipping",
    "caf\\u00e9",
    "thank",
    "you",
    "refund",
    "address",
    "changed",
    "tomorrow",
];

/// Whose webhooks, and with which secret they are signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payloads {
    /// Where the app's secret signs them.
    pub(crate) app_secret: String,
    /// Eight hexadecimal digits that make this run's wamids differ from every other run's.
    pub(crate) run: String,
    /// How many people write.
    pub(crate) people: u64,
    /// How many phone numbers they write to; person n always writes to the same one.
    pub(crate) numbers: u64,
}

/// The id of the first phone number; those of the others follow it.
pub(crate) const FIRST_PHONE_NUMBER_ID: u64 = 330_000_000_000_000;

/// Writes HTTP requests.
pub(crate) struct Writer {
    payloads: Payloads,
    signing: Hmac<Sha256>,
    head: Vec<u8>,
    texts: Vec<String>,
    big_text: String,
    body: Vec<u8>,
}

impl Writer {
    /// `host` and `path` are where the requests go.
    pub(crate) fn new(payloads: Payloads, host: &str, path: &str) -> Self {
        let signing = Hmac::new_from_slice(payloads.app_secret.as_bytes()).expect("HMAC takes keys of every length");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: facebookexternalua\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nX-Hub-Signature-256: sha256="
        );
        let texts = (0..256).map(text).collect();
        let big_text = WORDS.join(" ").replace('\\', "").repeat(BIG_TEXT_BYTES / 100)[..BIG_TEXT_BYTES].to_owned();
        Self { payloads, signing, head: head.into_bytes(), texts, big_text, body: Vec::with_capacity(2_048) }
    }

    /// Replaces `request` by the request with this serial number: one message.
    pub(crate) fn write(&mut self, serial: u64, request: &mut Vec<u8>) {
        let person = spread(serial) % self.payloads.people;
        let text = &self.texts[(spread(serial ^ 0x5eed) % 256) as usize];
        self.body.clear();
        open(&mut self.body, person % self.payloads.numbers, person);
        message(&mut self.body, &self.payloads.run, serial, person, text);
        close(&mut self.body);
        self.finish(request);
    }

    /// Replaces `request` by a big one: as many messages of one person as fit 2.9 MiB. Returns how many. Their wamids differ
    /// from those of small requests with the same serial number.
    pub(crate) fn write_big(&mut self, serial: u64, request: &mut Vec<u8>) -> u64 {
        const MOST_MESSAGES: u64 = 1_000;
        let person = spread(serial) % self.payloads.people;
        // A run's characters are hexadecimal, so this one is no run's.
        let run = format!("big{}", &self.payloads.run[..5]);
        let mut messages = 0;
        self.body.clear();
        open(&mut self.body, person % self.payloads.numbers, person);
        while self.body.len() + self.big_text.len() + 512 < BIG_BODY_BYTES && messages < MOST_MESSAGES {
            if messages > 0 {
                self.body.push(b',');
            }
            message(&mut self.body, &run, serial * MOST_MESSAGES + messages, person, &self.big_text);
            messages += 1;
        }
        close(&mut self.body);
        self.finish(request);
        messages
    }

    fn finish(&self, request: &mut Vec<u8>) {
        let mut mac = self.signing.clone();
        mac.update(&self.body);
        let mut signature = [0; 64];
        hex::encode_to_slice(mac.finalize().into_bytes(), &mut signature).expect("32 bytes are 64 digits");
        request.clear();
        request.extend_from_slice(&self.head);
        request.extend_from_slice(&signature);
        request.extend_from_slice(b"\r\nContent-Length: ");
        number(request, self.body.len() as u64, 1);
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(&self.body);
    }
}

pub(super) fn open(body: &mut Vec<u8>, to: u64, person: u64) {
    body.extend_from_slice(br#"{"object":"whatsapp_business_account","entry":[{"id":"210000000000007","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"1555777"#);
    number(body, to, 4);
    body.extend_from_slice(br#"","phone_number_id":""#);
    number(body, FIRST_PHONE_NUMBER_ID + to, 15);
    body.extend_from_slice(br#""},"contacts":[{"profile":{"name":""#);
    let (first, last) = name(person);
    body.extend_from_slice(first.as_bytes());
    body.push(b' ');
    body.extend_from_slice(last.as_bytes());
    body.extend_from_slice(br#""},"wa_id":"1555"#);
    number(body, person, 7);
    body.extend_from_slice(br#"","user_id":"US.7031190"#);
    number(body, person, 7);
    body.extend_from_slice(br#""}],"messages":["#);
}

/// A person's first and last name.
pub(super) fn name(person: u64) -> (&'static str, &'static str) {
    let name = spread(person);
    (FIRST_NAMES[(name % 16) as usize], LAST_NAMES[(name / 16 % 16) as usize])
}

pub(super) fn message(body: &mut Vec<u8>, run: &str, serial: u64, person: u64, text: &str) {
    body.extend_from_slice(br#"{"from":"1555"#);
    number(body, person, 7);
    body.extend_from_slice(br#"","from_user_id":"US.7031190"#);
    number(body, person, 7);
    body.extend_from_slice(br#"","id":"wamid.HBgLMTU1NTc3NzAxNDIVAgASGBQz"#);
    body.extend_from_slice(run.as_bytes());
    number(body, serial, 14);
    body.extend_from_slice(br#"AA==","timestamp":""#);
    number(body, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()), 10);
    body.extend_from_slice(br#"","text":{"body":""#);
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(br#""},"type":"text"}"#);
}

pub(super) fn close(body: &mut Vec<u8>) {
    body.extend_from_slice(br#"]},"field":"messages"}]}]}"#);
}

/// Between 20 and about 230 characters of words.
pub(super) fn text(which: u64) -> String {
    let length = 20 + (spread(which) % 210) as usize;
    let mut text = String::new();
    for nth in 0.. {
        if text.len() >= length {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(WORDS[(spread(which * 1_000 + nth) % WORDS.len() as u64) as usize]);
    }
    text
}

/// The decimal digits, with zeros in front up to the width. By hand, because formatting would be half the cost of a request.
pub(super) fn number(to: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while value > 0 {
        first -= 1;
        digits[first] += (value % 10) as u8;
        value /= 10;
    }
    to.extend_from_slice(&digits[first.min(digits.len() - width)..]);
}

/// SplitMix64's finisher: scatters serial numbers over people and texts without any state.
pub(super) fn spread(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn writer() -> Writer {
        let payloads = Payloads {
            app_secret: "stand_in_app_secret_01".into(),
            run: "abcd1234".into(),
            people: 20_000,
            numbers: 3,
        };
        Writer::new(payloads, "127.0.0.1:8080", "/webhooks/whatsapp")
    }

    fn split(request: &[u8]) -> (String, Vec<u8>) {
        let end = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(request[..end].to_vec()).unwrap(), request[end + 4..].to_vec())
    }

    #[test]
    fn a_request_is_signed_measured_and_of_the_providers_size() {
        let mut writer = writer();
        let (mut request, mut bytes) = (Vec::new(), 0);
        for serial in 0..1_000 {
            writer.write(serial, &mut request);
            let (head, body) = split(&request);
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            let mut mac = Hmac::<Sha256>::new_from_slice(b"stand_in_app_secret_01").unwrap();
            mac.update(&body);
            assert!(head.contains(&format!("sha256={}", hex::encode(mac.finalize().into_bytes()))));
            assert!((550..=1_000).contains(&body.len()), "{} bytes", body.len());
            bytes += body.len();
        }
        assert!((600..=800).contains(&(bytes / 1_000)), "{} bytes on average", bytes / 1_000);
    }

    #[test]
    fn every_message_is_new_and_a_person_keeps_name_and_number() {
        let mut writer = writer();
        let (mut request, mut ids, mut people) = (Vec::new(), HashSet::new(), std::collections::HashMap::new());
        for serial in 0..20_000 {
            writer.write(serial, &mut request);
            let body: Value = serde_json::from_slice(&split(&request).1).unwrap();
            let value = &body["entry"][0]["changes"][0]["value"];
            assert!(ids.insert(value["messages"][0]["id"].as_str().unwrap().to_owned()));
            assert_eq!(value["messages"][0]["from"], value["contacts"][0]["wa_id"]);
            let (name, to) =
                (value["contacts"][0]["profile"]["name"].clone(), value["metadata"]["phone_number_id"].clone());
            let person = value["contacts"][0]["wa_id"].as_str().unwrap().to_owned();
            assert_eq!(*people.entry(person).or_insert((name.clone(), to.clone())), (name, to));
        }
        assert!(people.len() > 12_000, "{} people", people.len());
        let last = (FIRST_PHONE_NUMBER_ID + 2).to_string();
        assert!(people.values().any(|(_, to)| to.as_str() == Some(last.as_str())));
    }

    #[test]
    fn a_big_body_is_just_below_the_documented_most() {
        let (mut writer, mut request) = (writer(), Vec::new());
        let messages = writer.write_big(7, &mut request);
        let (_, body) = split(&request);
        assert!(body.len() <= BIG_BODY_BYTES && body.len() > BIG_BODY_BYTES - 8_192, "{} bytes", body.len());
        let body: Value = serde_json::from_slice(&body).unwrap();
        let stored = body["entry"][0]["changes"][0]["value"]["messages"].as_array().unwrap();
        assert_eq!(stored.len() as u64, messages);
        let ids: HashSet<_> = stored.iter().map(|message| message["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len() as u64, messages);
    }
}
