//! The providers' wire formats, turned into the domain's words and back. No I/O, no database, no queue: bytes in, values
//! out; [`http`] and [`download`] alone make calls.
//!
//! Every provider's module has the same files and offers the same functions:
//!
//! | file | offers |
//! |---|---|
//! | `verify` | `verify(secret, header, …)`: whether a webhook is genuine, before anything of it is read |
//! | `parse` | `parse(body, received_at)`: a webhook as [`Parsed`] |
//! | `excerpt` | `excerpt(body, accounts)`: what of a webhook is for some of its accounts |
//! | `check` | `check(content)`: what the provider would refuse, for the API |
//! | `send` | `path` and `request`: the call |
//! | `answer` | `outcome(status, retry_after, body)`: what the call's answer means |
//! | `errors` | the provider's codes, what each asks of us and what it means for a person |
//! | `profile` | `path` and `read`: what a person calls themselves, where webhooks do not say it |
//! | `wire` | shapes that several of the others share |
//!
//! What Meta's three products have in common is [`meta`]'s.

pub mod download;
pub mod http;
pub mod instagram;
pub mod messenger;
pub mod meta;
pub mod sending;
pub mod twilio;
pub mod whatsapp;

mod answering;
mod checking;
mod json;
mod lenient;
mod repair;
#[cfg(test)]
mod testing;

use crate::{
    domain::{
        channel::Provider,
        content::OutboundContent,
        events::{Event, Parsed, RouteKey},
        messages::MessageKind,
    },
    jobs::inbound::RawWebhook,
    telemetry::names,
};
use sending::Facts;
use std::collections::HashSet;

/// Everything a provider would refuse in a message that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(provider: Provider, content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    match provider {
        Provider::Whatsapp => whatsapp::check(content, files),
        Provider::Messenger | Provider::Instagram | Provider::Twilio => {
            let message = format!("is nothing that this release can send by {provider}");
            Err(vec![FieldProblem { field: "type".into(), message }])
        }
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

/// The header that carries a provider's signature.
pub fn signature_header(provider: Provider) -> &'static str {
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram => whatsapp::verify::SIGNATURE_HEADER,
        Provider::Twilio => twilio::verify::SIGNATURE_HEADER,
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
    #[error("the signature does not match the body")]
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
}
