//! One happening at Messenger, Instagram or Twilio, written by hand: a test says what, the sandbox signs and posts it and keeps
//! its books. WhatsApp's are in `tell`.

use super::{
    accounts::Account,
    instagram,
    ledger::{Flaw, Told},
    messaging::Moment,
    messenger,
    platform::{AccountSpec, Platform},
    provider::Provider,
    sign,
    tell::{self, ToldOff},
    twilio::{
        self, Texter,
        status::{self, Callback, Status},
    },
    webhooks::{InboundWebhook, Parcel},
};
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Something that happens at an account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// Whose API; not WhatsApp's.
    pub platform: Platform,
    /// The account's id.
    pub account: String,
    /// The kind's name ([`messenger::Kind`], [`instagram::Kind`], [`twilio::Kind`]).
    #[serde(default = "text")]
    pub kind: String,
    /// The person's scoped id, or address as in `From`.
    pub person: String,
    /// The profile's name (WhatsApp by way of Twilio).
    #[serde(default)]
    pub name: String,
    /// Text, or caption.
    #[serde(default = "question")]
    pub text: String,
    /// The message's id; made up if there is none.
    #[serde(default)]
    pub id: Option<String>,
    /// The message it refers to.
    #[serde(default)]
    pub about: Option<String>,
    /// Unix milliseconds; now if there is none.
    #[serde(default)]
    pub at_ms: Option<i64>,
    /// Of receipts; `at_ms` if there is none.
    #[serde(default)]
    pub watermark_ms: Option<i64>,
    /// Twilio: instead of a message, a callback with this status about the message `about`, sent to `person`.
    #[serde(default)]
    pub status: Option<Status>,
    /// Twilio: why that message did not arrive.
    #[serde(default)]
    pub code: Option<u32>,
    /// Twilio: the query that the message was to be called back with.
    #[serde(default)]
    pub query: Option<String>,
}

impl Happening {
    /// A text.
    pub fn text(
        platform: Platform,
        account: impl Into<String>,
        person: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self { text: text.into(), ..Self::of(platform, account, "text", person) }
    }

    /// Anything else, by its kind's name.
    pub fn of(platform: Platform, account: impl Into<String>, kind: &str, person: impl Into<String>) -> Self {
        Self {
            platform,
            account: account.into(),
            kind: kind.into(),
            person: person.into(),
            name: String::new(),
            text: question(),
            id: None,
            about: None,
            at_ms: None,
            watermark_ms: None,
            status: None,
            code: None,
            query: None,
        }
    }

    /// A callback about a message that was sent to this address.
    pub fn callback(account: impl Into<String>, to: impl Into<String>, sid: impl Into<String>, status: Status) -> Self {
        let about = Some(sid.into());
        Self { status: Some(status), about, ..Self::of(Platform::Twilio, account, "text", to) }
    }

    /// With this id instead of one made up.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Referring to this message.
    pub fn about(mut self, id: impl Into<String>) -> Self {
        self.about = Some(id.into());
        self
    }

    /// At this time (Unix milliseconds) instead of now.
    pub fn at(mut self, at_ms: i64) -> Self {
        self.at_ms = Some(at_ms);
        self
    }
}

pub(super) async fn happen(provider: &Arc<Provider>, happening: Happening) -> anyhow::Result<ToldOff> {
    let (platform, id) = (happening.platform, &happening.account);
    let account = provider
        .registry
        .account(platform, id)
        .with_context(|| format!("the sandbox has no {platform} account {id}"))?;
    note(provider, &account, &happening);
    let account = provider.resolved(account.spec.clone());
    let webhook = write(provider, &account, happening)?;
    let ids = webhook.told.iter().map(|told| told.id.to_string()).collect();
    let reply = tell::post(provider, webhook).await?;
    Ok(ToldOff { ids, reply })
}

/// What an event that is no message of a person means for the provider's own books: reactions and links that are followed open the
/// window, comments can be answered privately (messenger contract page, section 6; instagram, 3.2).
fn note(provider: &Provider, account: &Account, happening: &Happening) {
    let at_ms = happening.at_ms.unwrap_or_else(|| provider.clock.wall(provider.clock.now_us()).timestamp_millis());
    let at_us = provider.clock.since_start_us(at_ms / 1_000);
    let mut live = account.live();
    match (account.spec.platform, happening.kind.as_str()) {
        (Platform::Messenger | Platform::Instagram, "reaction" | "referral" | "ad_referral" | "bare_postback") => {
            live.desk.wrote(&happening.person, at_us);
        }
        (Platform::Instagram, "comment" | "comment_of_login") => {
            live.desk.comment(&instagram::comment_id(at_ms), &happening.person, at_us);
        }
        _ => {}
    }
}

/// Signs a payload as it is: JSON for Meta's, an object of parameters for Twilio.
pub(super) fn sealed(
    provider: &Provider,
    platform: Platform,
    account: &str,
    payload: &Value,
) -> anyhow::Result<InboundWebhook> {
    let account = provider
        .registry
        .account(platform, account)
        .with_context(|| format!("the sandbox has no {platform} account {account}"))?;
    let account = provider.resolved(account.spec.clone());
    let now_ms = provider.clock.unix(provider.clock.now_us()) * 1_000;
    if platform == Platform::Twilio {
        let parameters = payload.as_object().context("Twilio's parameters are an object of texts")?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parameters = parameters.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let url = account.webhook_url.clone().unwrap_or_default();
        return Ok(webhook(&account, parcel(provider, &account, &url, &parameters), vec![], now_ms));
    }
    let body = sign::emit(payload, provider.behaviour().escape_slashes);
    let parcel = Parcel::json(body, account.secret.as_deref().unwrap_or_default());
    Ok(webhook(&account, parcel, vec![], now_ms))
}

fn write(provider: &Provider, account: &AccountSpec, happening: Happening) -> anyhow::Result<InboundWebhook> {
    let now_ms = provider.clock.wall(provider.clock.now_us()).timestamp_millis();
    let at_ms = happening.at_ms.unwrap_or(now_ms);
    let id = happening.id.clone().unwrap_or_else(|| made_up(provider, account.platform));
    let moment = Moment {
        account,
        person: &happening.person,
        id: &id,
        about: happening.about.as_deref().unwrap_or("m_nobody-knows"),
        text: &happening.text,
        nth_edit: 1,
        at_ms,
        watermark_ms: happening.watermark_ms.unwrap_or(at_ms),
    };
    let (payload, is_message, carries_text, kind) = match account.platform {
        Platform::Messenger => {
            let kind: messenger::Kind = named(&happening.kind)?;
            (messenger::webhook(&[(kind, moment)]), kind.is_message(), kind.carries_text(), kind.name())
        }
        Platform::Instagram => {
            let kind: instagram::Kind = named(&happening.kind)?;
            (instagram::webhook(&[(kind, moment)]), kind.is_message(), kind.carries_text(), kind.name())
        }
        Platform::Twilio => return of_twilio(provider, account, &happening, &id, at_ms),
        Platform::Whatsapp => bail!("what happens on WhatsApp's numbers is told otherwise"),
    };
    let told = Told {
        platform: account.platform,
        id: id.as_str().into(),
        kind,
        person: happening.person.as_str().into(),
        text: carries_text.then(|| happening.text.as_str().into()),
        garbled: false,
        timestamp: at_ms / 1_000,
    };
    let body = sign::emit(&payload, provider.behaviour().escape_slashes);
    let parcel = Parcel::json(body, account.secret.as_deref().unwrap_or_default());
    Ok(webhook(account, parcel, if is_message { vec![told] } else { vec![] }, at_ms))
}

fn of_twilio(
    provider: &Provider,
    account: &AccountSpec,
    happening: &Happening,
    id: &str,
    at_ms: i64,
) -> anyhow::Result<InboundWebhook> {
    let url = account.webhook_url.as_deref().unwrap_or_default();
    if let Some(status) = happening.status {
        let sid = happening.about.as_deref().context("a callback is about a message")?;
        let callback = Callback { account, sid, to: &happening.person, status, code: happening.code };
        let url = status::url(account, url, happening.query.as_deref());
        let parcel = parcel(provider, account, &url, &status::parameters(&callback));
        return Ok(InboundWebhook { statuses: 1, ..webhook(account, parcel, vec![], at_ms) });
    }
    let kind: twilio::Kind = named(&happening.kind)?;
    let plain = happening.person.strip_prefix("whatsapp:").filter(|_| account.is_twilio_whatsapp());
    let texter = Texter {
        address: happening.person.clone(),
        wa_id: plain.and_then(|plain| plain.strip_prefix('+')).map(str::to_owned),
        user_id: plain.filter(|plain| !plain.starts_with('+')).map(str::to_owned),
        name: happening.name.clone(),
    };
    let parameters = twilio::parameters(&twilio::Incoming {
        kind,
        account,
        texter: &texter,
        sid: id,
        about: happening.about.as_deref().unwrap_or_default(),
        text: &happening.text,
        advanced_opt_out: account.messaging_service_sid.is_some(),
    });
    let told = Told {
        platform: Platform::Twilio,
        id: id.into(),
        kind: kind.name(),
        person: texter.wa_id.or(texter.user_id).unwrap_or(texter.address).into(),
        text: kind.carries_text().then(|| happening.text.as_str().into()),
        garbled: false,
        timestamp: at_ms / 1_000,
    };
    let fallback = account.fallback_url.as_deref().map(|fallback| {
        let parameters = twilio::to_fallback(&parameters, url);
        parcel(provider, account, fallback, &parameters)
    });
    Ok(InboundWebhook { fallback, ..webhook(account, parcel(provider, account, url, &parameters), vec![told], at_ms) })
}

fn parcel(provider: &Provider, account: &AccountSpec, url: &str, parameters: &twilio::Parameters) -> Parcel {
    let token = account.secret.as_deref().unwrap_or_default();
    let guid = uuid::Uuid::from_u64_pair(provider.dice.roll().bits(), provider.dice.roll().bits());
    twilio::request(account, token, url, parameters).into_parcel(guid)
}

fn webhook(account: &AccountSpec, parcel: Parcel, told: Vec<Told>, at_ms: i64) -> InboundWebhook {
    InboundWebhook {
        platform: account.platform,
        account: account.id.clone(),
        parcel,
        fallback: None,
        flaw: Flaw::None,
        told,
        statuses: 0,
        at_ms,
        deeds: vec![],
    }
}

fn made_up(provider: &Provider, platform: Platform) -> String {
    let nth = provider.dice.roll().bits();
    match platform {
        Platform::Twilio => twilio::sid("SM", nth, nth),
        _ => format!("m_made-up-{nth:016x}"),
    }
}

fn named<K: for<'a> Deserialize<'a>>(name: &str) -> anyhow::Result<K> {
    serde_json::from_value(Value::from(name)).with_context(|| format!("there is no kind {name}"))
}

fn text() -> String {
    "text".into()
}

fn question() -> String {
    "Is the blue one back in stock?".into()
}
