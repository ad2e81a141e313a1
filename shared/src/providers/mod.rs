//! The providers' wire formats, turned into the domain's words and back. No I/O, no database, no queue: bytes in, values
//! out; [`http`], [`download`] and [`templates`] alone make calls.
//!
//! Every provider's module has the same files and offers the same functions:
//!
//! | file | offers |
//! |---|---|
//! | `verify` | `verify(secret, header, …)`: whether a webhook is genuine, before anything of it is read |
//! | `parse` | `parse(body, received_at)`: a webhook as [`Parsed`] |
//! | `excerpt` | `excerpt(body, accounts)`: what of a webhook is for some of its accounts |
//! | `check` | `check(content, files)`: what the provider would refuse, for the API |
//! | `send` | `path` and `request`: the call |
//! | `answer` | `outcome(message, status, retry_after, body)`: what the call's answer means |
//! | `upload` | the form by which a file is handed over beforehand, where the provider takes files so |
//! | `errors` | the provider's codes, what each asks of us and what it means for a person |
//! | `profile` | `path` and `read`: what a person calls themselves, where webhooks do not say it |
//! | `templates` | the list of templates, and what makes one: the calls are [`templates`]' |
//! | `wire` | shapes that several of the others share |
//!
//! What Meta's three products have in common is [`meta`]'s. A [`gateway`] is described by configuration and calls nobody: it has the
//! files of sending alone.

pub mod download;
pub mod gateway;
pub mod http;
pub mod instagram;
pub mod limits;
pub mod messenger;
pub mod meta;
pub mod sending;
pub mod templates;
pub mod twilio;
pub mod whatsapp;

mod answering;
mod checking;
mod json;
mod lenient;
mod repair;
#[cfg(test)]
mod specs;
#[cfg(test)]
mod testing;

use crate::{
    domain::{
        channel::Provider,
        content::{Button, OutboundContent},
        events::{Event, Parsed, RouteKey},
        messages::MessageKind,
        outcome::Aftermath,
    },
    jobs::inbound::RawWebhook,
    telemetry::names,
};
use sending::{Facts, HandOver, Way};
use std::{collections::HashSet, ops::RangeInclusive};

/// Everything that would be refused in a message and can be seen without asking. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(way: &Way<'_>, content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    match (way.provider, way.gateway) {
        (Provider::Whatsapp, _) => whatsapp::check(content, files),
        (Provider::Messenger, _) => messenger::check(content, files),
        (Provider::Instagram, _) => instagram::check(content, files),
        (Provider::Twilio, _) => twilio::check(way.channel, content, files),
        (Provider::Gateway, Some(config)) => gateway::check(config, content, files),
        (Provider::Gateway, None) => {
            let message = "must wait: the account's gateway is not described".to_owned();
            Err(vec![FieldProblem { field: "channel_account_id".into(), message }])
        }
    }
}

/// How an uploaded file of this content is handed over.
pub fn hand_over(provider: Provider, content: &OutboundContent) -> HandOver {
    use OutboundContent as Is;
    match (provider, content) {
        // Above the button that leads to an address a file stands by its own address (providers/whatsapp section 7.3).
        (Provider::Whatsapp, Is::Buttons(buttons)) if matches!(buttons.buttons[..], [Button::Url { .. }]) => {
            HandOver::Link
        }
        (Provider::Whatsapp, _) => HandOver::Upload,
        (Provider::Messenger, Is::Image(_) | Is::Video(_) | Is::Audio(_) | Is::Document(_)) => HandOver::Fetch,
        (Provider::Messenger | Provider::Instagram | Provider::Twilio | Provider::Gateway, _) => HandOver::Link,
    }
}

/// A row of the table of all providers' codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorRow {
    /// Whose code.
    pub provider: Provider,
    /// The code, or the first and the last of several.
    pub code: String,
    /// The subcode, where it counts.
    pub subcode: Option<u32>,
    /// What it leads to, in a few words.
    pub outcome: String,
    /// What it leads to where a report tells it, beside that the message failed.
    pub reported: String,
    /// What it means, for a person.
    pub sentence: &'static str,
}

/// What every code of every provider means, and what it leads to.
pub fn errors_table() -> Vec<ErrorRow> {
    let span = |codes: &RangeInclusive<u32>| match (codes.start(), codes.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}–{last}"),
    };
    let of_meta = |provider, rows: &'static [meta::refusal::Row]| {
        // Their reports tell of no failures.
        let told =
            |row: &'static meta::refusal::Row| (row.subcode, row.reaction.in_words(), String::new(), row.sentence);
        rows.iter().map(move |row| (provider, &row.codes, told(row)))
    };
    let in_words = |aftermath: Option<Aftermath>| aftermath.map(Aftermath::in_words).unwrap_or_default();
    let whatsapp = whatsapp::errors::CODES.iter().map(|row| {
        let told = (None, row.reaction.in_words(), in_words(row.reaction.aftermath()), row.sentence);
        (Provider::Whatsapp, &row.codes, told)
    });
    let twilio = twilio::errors::CODES.iter().map(|row| {
        let told = match row.reaction {
            twilio::errors::Reaction::Suppress => "nothing more is sent to the person".to_owned(),
            reaction => in_words(reaction.aftermath()),
        };
        (Provider::Twilio, &row.codes, (None, row.reaction.in_words(), told, row.sentence))
    });
    let all = whatsapp
        .chain(of_meta(Provider::Messenger, messenger::errors::CODES))
        .chain(of_meta(Provider::Instagram, instagram::errors::CODES))
        .chain(twilio);
    all.map(|(provider, codes, (subcode, outcome, reported, sentence))| ErrorRow {
        provider,
        code: span(codes),
        subcode,
        outcome: outcome.into_owned(),
        reported,
        sentence,
    })
    .collect()
}

/// What a code leads to with which a provider reports that a message failed, beside that. (That the person wants nothing more is told as
/// [`Event::Consent`].)
pub fn aftermath(provider: Provider, code: &str) -> Option<Aftermath> {
    match provider {
        Provider::Whatsapp => whatsapp::errors::find(code)?.reaction.aftermath(),
        Provider::Twilio => twilio::errors::reaction(code)?.aftermath(),
        Provider::Messenger | Provider::Instagram | Provider::Gateway => None,
    }
}

/// Reads a webhook, whosever it is.
///
/// # Errors
/// Only if it is none of its provider's as a whole.
pub fn parse(webhook: &RawWebhook) -> Result<Parsed, Unreadable> {
    let (body, received_at) = (&webhook.body, webhook.meta.received_at);
    let parsed = match webhook.meta.provider {
        Provider::Whatsapp => whatsapp::parse(body, received_at),
        Provider::Messenger => messenger::parse(body, received_at),
        Provider::Instagram => instagram::parse(body, received_at),
        Provider::Twilio => twilio::parse(body, webhook.meta.query.as_deref(), received_at),
        Provider::Gateway => Err(Unreadable { reason: "a gateway has no webhooks".into() }),
    }?;
    count_unsupported(webhook.meta.provider, &parsed);
    Ok(parsed)
}

/// What a provider has begun to send and we do not know is stored as it came, and noticed by this.
fn count_unsupported(provider: Provider, parsed: &Parsed) {
    let is_one = |event: &&Event| matches!(event, Event::Message(message) if message.kind == MessageKind::Unsupported);
    let unsupported = parsed.parts.iter().flat_map(|part| &part.events).filter(is_one).count();
    if unsupported > 0 {
        metrics::counter!(names::INBOUND_UNSUPPORTED, "provider" => provider.as_str()).increment(unsupported as u64);
    }
}

/// What of a webhook's body is for these accounts: what else it holds is another tenant's business.
pub fn excerpt(webhook: &RawWebhook, accounts: &HashSet<RouteKey>) -> Vec<u8> {
    match webhook.meta.provider {
        Provider::Whatsapp => whatsapp::excerpt(&webhook.body, accounts).into_bytes(),
        Provider::Messenger => messenger::excerpt(&webhook.body, accounts).into_bytes(),
        Provider::Instagram => instagram::excerpt(&webhook.body, accounts).into_bytes(),
        // It is for one number alone.
        Provider::Twilio => webhook.body.to_vec(),
        Provider::Gateway => Vec::new(),
    }
}

/// What of a webhook's request is signed, as far as any provider signs it.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The signature: the value of the header that [`signature_header`] names.
    pub signature: Option<&'a str>,
    /// The URL it was sent to as its sender has it; looked at only where the provider [signs it](signs_url).
    pub url: &'a str,
    /// What the body is, by its header.
    pub content_type: Option<&'a str>,
    /// The body as it came.
    pub body: &'a [u8],
}

/// The header that carries a provider's signature; of one without webhooks there is none, and nothing has that name.
pub fn signature_header(provider: Provider) -> &'static str {
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram => whatsapp::verify::SIGNATURE_HEADER,
        Provider::Twilio => twilio::verify::SIGNATURE_HEADER,
        Provider::Gateway => "",
    }
}

/// Whether the URL is part of what a provider signs.
pub fn signs_url(provider: Provider) -> bool {
    matches!(provider, Provider::Twilio)
}

/// Checks a webhook, whosever it is, with each of the secrets that may have been used: the place of the first that fits.
///
/// # Errors
/// If the signature is missing, malformed or fits none of the secrets.
pub fn verify_any<S: AsRef<[u8]>>(
    provider: Provider,
    secrets: impl IntoIterator<Item = S>,
    request: &SignedRequest,
) -> Result<usize, BadSignature> {
    let SignedRequest { signature, url, content_type, body } = *request;
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram => {
            whatsapp::verify_any(secrets, signature, body)
        }
        Provider::Twilio => twilio::verify_any(secrets, signature, &twilio::Request { url, content_type, body }),
        Provider::Gateway => Err(BadSignature::Missing),
    }
}

/// Why a webhook is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// No signature came with it.
    #[error("the signature is missing")]
    Missing,
    /// The header is not of the provider's form.
    #[error("the signature is malformed")]
    Malformed,
    /// The body was not signed with the secret.
    #[error("the signature does not match what came, for any of the secrets")]
    Wrong,
}

/// Why a webhook as a whole says nothing to us: it is no JSON, or not of the provider's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// What is wrong, without the body's words.
    pub reason: String,
}

/// What is wrong with a field of a message that somebody wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, as in the API's body (`text`, `variables[1]`).
    pub field: String,
    /// What it must be, for a person.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ids::WebhookId, jobs::inbound::Meta};
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn messages_of_unknown_kinds_are_counted() {
        let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{
            "messaging_product":"whatsapp","metadata":{"phone_number_id":"2"},"messages":[
            {"id":"wamid.1","from":"15550001","timestamp":"1795000000","type":"hologram","hologram":{}},
            {"id":"wamid.2","from":"15550001","timestamp":"1795000000","type":"text","text":{"body":"Hi"}}]}}]}]}"#;
        let meta = Meta {
            id: WebhookId::new(),
            provider: Provider::Whatsapp,
            received_at: chrono::DateTime::from_timestamp(1_795_000_000, 0).unwrap(),
            account: None,
            query: None,
            stored: false,
            replay: false,
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || parse(&RawWebhook { meta, body: body.into() })).unwrap();
        let counted = format!("{}{{provider=\"whatsapp\"}} 1", names::INBOUND_UNSUPPORTED);
        assert!(handle.render().contains(&counted), "{}", handle.render());
    }

    /// ERRORS.md is written from the tables: `UPDATE=1 cargo test -p mijra-shared --lib all_errors_are_listed`.
    #[test]
    fn all_errors_are_listed_for_people() {
        let mut page = "# What providers' codes lead to\n\nWritten from the tables in `*/errors.rs` by the test `all_errors_are_listed_for_people`: what the answer to a\nsend leads to; and what follows where the code comes later, with a report that a message failed which had been taken\n(of providers that tell so), beside that it failed. What is told again, or by a replay, leads to nothing more.\n".to_owned();
        let rows = errors_table();
        for provider in Provider::ALL {
            let rows: Vec<_> = rows.iter().filter(|row| row.provider == *provider).collect();
            if rows.is_empty() {
                continue;
            }
            page += &format!(
                "\n## {provider}\n\n| Code | Subcode | Outcome | By a report | Meaning |\n|---|---|---|---|---|\n"
            );
            for ErrorRow { code, subcode, outcome, reported, sentence, .. } in rows {
                let subcode = subcode.map(|subcode| subcode.to_string()).unwrap_or_default();
                page += &format!("| {code} | {subcode} | {outcome} | {reported} | {sentence} |\n");
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/ERRORS.md");
        if option_env!("UPDATE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "ERRORS.md differs from the tables: run this test with UPDATE=1");
    }

    #[test]
    fn a_code_that_a_report_brings_leads_where_the_contract_says() {
        use crate::domain::outcome::{Aftermath as Is, Block, Class};
        let again = |times, after_seconds, in_doubt| Some(Is::Again { times, after_seconds, in_doubt });
        let slow = |class| Some(Is::Slow { class });
        let blocked = |block| Some(Is::TemplateBlocked { block });
        for (provider, codes, expected) in [
            (Provider::Twilio, &["63016"][..], Some(Is::WindowClosed)),
            (
                Provider::Twilio,
                &["30002", "30032", "30033", "30034", "30035", "63001", "63007", "63020", "63051", "63062"],
                Some(Is::AccountDown),
            ),
            (Provider::Twilio, &["30003"], again(2, 7200, false)),
            (Provider::Twilio, &["30008"], again(1, 600, true)),
            (Provider::Twilio, &["30017"], again(3, 1800, false)),
            (Provider::Twilio, &["63010", "63012"], again(3, 60, true)),
            (Provider::Twilio, &["63019"], again(1, 60, false)),
            (Provider::Twilio, &["30001", "30022", "63018"], slow(Class::Account)),
            (Provider::Twilio, &["63017"], slow(Class::ProviderAccount)),
            (Provider::Twilio, &["30023", "30027"], slow(Class::Day)),
            (Provider::Twilio, &["63040"], blocked(Block::Rejected)),
            (Provider::Twilio, &["63041"], blocked(Block::Paused)),
            (Provider::Twilio, &["63042"], blocked(Block::Disabled)),
            (Provider::Twilio, &["21610", "30004", "30005", "30007", "63024", "63049", "30999", "x"], None),
            (Provider::Whatsapp, &["131047"], Some(Is::WindowClosed)),
            (Provider::Whatsapp, &["131042", "131031", "190"], Some(Is::AccountDown)),
            (Provider::Whatsapp, &["132015"], blocked(Block::Paused)),
            (Provider::Whatsapp, &["132016"], blocked(Block::Disabled)),
            (Provider::Whatsapp, &["132007"], blocked(Block::Rejected)),
            (Provider::Whatsapp, &["131064"], blocked(Block::AllTemplates)),
            (Provider::Whatsapp, &["130429"], slow(Class::Account)),
            (Provider::Whatsapp, &["131056"], slow(Class::Pair)),
            (Provider::Whatsapp, &["131026", "131049", "131050", "131053", "131000", "777777"], None),
            (Provider::Messenger, &["190"], None),
        ] {
            for code in codes {
                assert_eq!(aftermath(provider, code), expected, "{provider} {code}");
            }
        }
    }

    #[test]
    fn files_are_handed_over_as_each_provider_takes_them() {
        use crate::providers::testing::sending::content;
        let file = serde_json::json!({"link": "https://a.example/x"});
        let image = || content(serde_json::json!({"type": "image", "file": file}));
        let cards = || content(serde_json::json!({"type": "cards", "cards": [{"title": "a", "image": file}]}));
        let button =
            content(serde_json::json!({"type": "buttons", "text": "x", "header": {"type": "image", "file": file},
            "buttons": [{"type": "url", "title": "Go", "url": "https://a.example"}]}));
        for (provider, content, expected) in [
            (Provider::Whatsapp, image(), HandOver::Upload),
            (Provider::Whatsapp, button, HandOver::Link),
            (Provider::Messenger, image(), HandOver::Fetch),
            (Provider::Messenger, cards(), HandOver::Link),
            (Provider::Instagram, image(), HandOver::Link),
            (Provider::Twilio, image(), HandOver::Link),
            (Provider::Gateway, image(), HandOver::Link),
        ] {
            assert_eq!(hand_over(provider, &content), expected, "{provider} {}", content.type_name());
        }
    }

    #[test]
    fn a_gateway_without_description_takes_nothing_and_calls_nobody() {
        let way = Way { provider: Provider::Gateway, channel: crate::domain::channel::Channel::Sms, gateway: None };
        let text = crate::providers::testing::sending::content(serde_json::json!({"type": "text", "text": "x"}));
        assert_eq!(check(&way, &text, &Facts::new()).unwrap_err()[0].field, "channel_account_id");
        let request = SignedRequest { signature: Some("x"), url: "", content_type: None, body: b"" };
        assert_eq!(verify_any(Provider::Gateway, [b"secret"], &request), Err(BadSignature::Missing));
    }
}
