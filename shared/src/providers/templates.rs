//! The calls by which templates are listed, made and deleted at their provider: WhatsApp's (providers/whatsapp section 10) and Twilio's
//! (providers/twilio section 14). What is said and what an answer means is each provider's module; here is only the wire.

use super::{FieldProblem, twilio, whatsapp};
use crate::{
    config::ProviderApis,
    domain::{
        channel::{Channel, Provider},
        templates::{TemplateInfo, placeholders},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    Client, RequestBuilder,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// A page of a hundred templates with all that is said of them.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// 6,000 templates at most (providers/whatsapp section 10.2), in several languages.
const MAX_PAGES: usize = 1000;
const MAX_NAME_BYTES: usize = 512;
const MAX_BODY_CHARACTERS: usize = 1024;
const MAX_FOOTER_CHARACTERS: usize = 60;
/// What a provider's own form of a template has at most, as JSON.
const MAX_RAW_BYTES: usize = 64 * 1024;

/// What WhatsApp calls a template's purpose.
pub const CATEGORIES: [&str; 3] = ["MARKETING", "UTILITY", "AUTHENTICATION"];

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplatePage {
    /// The templates that could be read.
    pub templates: Vec<TemplateInfo>,
    /// Elements without a name or a language.
    pub unreadable: usize,
    /// What asks for the next page; none on the last.
    pub next: Option<String>,
}

/// A template to be made at a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTemplate {
    /// Its name.
    pub name: String,
    /// The language's code as the provider spells it.
    pub language: String,
    /// One of [`CATEGORIES`].
    pub category: String,
    /// What it says.
    pub form: Form,
    /// Of the provider's own form: whether its variables have names (WhatsApp).
    pub is_named: bool,
}

/// What a template to be made says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Words alone.
    Words {
        /// The words, with `{{1}}`, `{{2}}` … or `{{name}}`.
        body: String,
        /// What stands for each variable when the provider looks at it.
        examples: BTreeMap<String, String>,
        /// The words below them (WhatsApp).
        footer: Option<String>,
    },
    /// In the provider's own form: WhatsApp's `components`, Twilio's `types`.
    Raw(Value),
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The provider's id of it.
    pub provider_id: String,
    /// How it stands, in upper case.
    pub status: String,
    /// As what the provider sees it, if that was said.
    pub category: Option<String>,
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The provider will not have it.
    #[error("the provider refuses it ({code}): {reason}")]
    Refused {
        /// Its code.
        code: String,
        /// The field of ours that it is about, if it says so.
        field: Option<&'static str>,
        /// Its words.
        reason: String,
    },
    /// The account may not.
    #[error("the provider does not let the account do it ({code}): {reason}")]
    NotPermitted {
        /// The provider's code.
        code: String,
        /// Its words.
        reason: String,
    },
    /// It did not answer, or not now. Something may have been done.
    #[error("the provider could not be asked: {reason}")]
    Away {
        /// Why.
        reason: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
}

impl Failed {
    pub(super) fn refused(code: u32, field: Option<&'static str>, words: &str) -> Self {
        Self::Refused { code: code.to_string(), field, reason: cut(words) }
    }

    pub(super) fn not_permitted(code: u32, words: &str) -> Self {
        Self::NotPermitted { code: code.to_string(), reason: cut(words) }
    }

    pub(super) fn away(reason: &str, retry_after: Option<Duration>) -> Self {
        Self::Away { reason: reason.to_owned(), retry_after }
    }

    pub(super) fn unreadable() -> Self {
        Self::away("the answer is not as it is documented", None)
    }

    /// As it is kept with a template: `{"code", "field", "message"}`.
    pub fn problem(&self) -> Value {
        let (code, field, message) = match self {
            Failed::Refused { code, field, reason } => (code.as_str(), *field, reason.as_str()),
            Failed::NotPermitted { code, reason } => (code.as_str(), Some("channel_account_id"), reason.as_str()),
            Failed::Away { reason, .. } => ("away", None, reason.as_str()),
        };
        serde_json::json!({"code": code, "field": field, "message": message})
    }
}

/// Whose templates, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// At which provider.
    pub provider: Provider,
    /// On which channel: what is said by text message need not be approved.
    pub channel: Channel,
    /// The provider's id of the account that templates belong to: WhatsApp's business account, Twilio's account SID.
    pub business_account_id: Option<&'a str>,
    /// Twilio: the SID of the API key whose secret the token is.
    pub username: Option<&'a str>,
    /// The token.
    pub token: &'a SecretString,
}

/// Whether a provider's templates can be fetched from it.
pub fn has_templates(provider: Provider) -> bool {
    matches!(provider, Provider::Whatsapp | Provider::Twilio)
}

/// Asks providers about templates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TemplateClient {
    client: Client,
    apis: ProviderApis,
}

/// An answer, read.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl TemplateClient {
    /// A client of these APIs.
    ///
    /// # Errors
    /// If the TLS backend cannot be set up.
    pub fn new(apis: ProviderApis) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, apis })
    }

    /// All templates of an account.
    ///
    /// # Errors
    /// If the provider did not give all of them.
    pub async fn list(&self, owner: &Owner<'_>) -> Result<Vec<TemplateInfo>, Failed> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let answer = read(self.page(owner, next.as_deref())?).await?;
            let page = match owner.provider {
                Provider::Twilio => {
                    twilio::templates::succeeded(answer.status, answer.retry_after, &answer.body)?;
                    twilio::templates::parse_page(&answer.body)
                }
                _ => {
                    whatsapp::templates::succeeded(answer.status, answer.retry_after, &answer.body)?;
                    whatsapp::templates::parse_page(&answer.body)
                }
            };
            let page = page.map_err(|_| Failed::unreadable())?;
            if page.unreadable > 0 {
                tracing::warn!(elements = page.unreadable, "templates that cannot be read were left out");
            }
            found.extend(page.templates);
            next = page.next;
            if next.is_none() {
                if owner.provider == Provider::Twilio {
                    twilio::templates::distinguish(&mut found);
                }
                return Ok(found);
            }
        }
        Err(Failed::away("its list does not end", None))
    }

    fn page(&self, owner: &Owner<'_>, next: Option<&str>) -> Result<RequestBuilder, Failed> {
        if owner.provider == Provider::Twilio {
            return self.get(owner, &twilio::templates::list_path(next));
        }
        let size = whatsapp::templates::PAGE_SIZE.to_string();
        let mut query = vec![("fields", whatsapp::templates::FIELDS), ("limit", &size)];
        query.extend(next.map(|cursor| ("after", cursor)));
        Ok(self.get(owner, &self.whatsapp_path(owner)?)?.query(&query))
    }

    /// Makes a template. What is made by half is taken back.
    ///
    /// # Errors
    /// If the provider did not.
    pub async fn make(&self, owner: &Owner<'_>, new: &NewTemplate) -> Result<Made, Failed> {
        if owner.provider != Provider::Twilio {
            let call = self.post(owner, &self.whatsapp_path(owner)?, &whatsapp::templates::creation(new))?;
            let answer = read(call).await?;
            return whatsapp::templates::made(answer.status, answer.retry_after, &answer.body);
        }
        let answer = read(self.post(owner, twilio::templates::PATH, &twilio::templates::creation(new))?).await?;
        let mut made = twilio::templates::made(answer.status, answer.retry_after, &answer.body)?;
        if owner.channel != Channel::Whatsapp {
            return Ok(made);
        }
        let path = twilio::templates::approval_path(&made.provider_id);
        let submitted = async {
            let answer = read(self.post(owner, &path, &twilio::templates::submission(new))?).await?;
            twilio::templates::submitted(answer.status, answer.retry_after, &answer.body)
        };
        match submitted.await {
            Ok((status, category)) => {
                (made.status, made.category) = (status, category.or(made.category));
                Ok(made)
            }
            Err(failed) => {
                if let Err(error) = self.delete(owner, &new.name, Some(&made.provider_id)).await {
                    tracing::warn!(%error, "a template that was not submitted stays at its provider");
                }
                Err(failed)
            }
        }
    }

    /// Deletes a template in one language.
    ///
    /// # Errors
    /// If the provider did not. One that is not there any more is deleted (Twilio).
    pub async fn delete(&self, owner: &Owner<'_>, name: &str, provider_id: Option<&str>) -> Result<(), Failed> {
        if owner.provider == Provider::Twilio {
            let path = twilio::templates::content_path(provider_id.unwrap_or(name));
            let answer = read(self.with(owner, self.client.delete(self.url(owner, &path)))?).await?;
            return match twilio::templates::is_gone(answer.status) {
                true => Ok(()),
                false => twilio::templates::succeeded(answer.status, answer.retry_after, &answer.body),
            };
        }
        // Without its id all languages of the name would go, and the name with them for a month (providers/whatsapp section 10.1).
        let Some(id) = provider_id else {
            return Err(Failed::Refused {
                code: "unknown_id".into(),
                field: None,
                reason: "its provider's id is not known: fetch the account's templates first".into(),
            });
        };
        let query = [("name", name), ("hsm_id", id)];
        let url = self.url(owner, &self.whatsapp_path(owner)?);
        let answer = read(self.with(owner, self.client.delete(url))?.query(&query)).await?;
        whatsapp::templates::succeeded(answer.status, answer.retry_after, &answer.body)
    }

    fn whatsapp_path(&self, owner: &Owner<'_>) -> Result<String, Failed> {
        let business_account = owner.business_account_id.ok_or_else(|| Failed::NotPermitted {
            code: "business_account".into(),
            reason: "the account has no business account".into(),
        })?;
        Ok(whatsapp::templates::path(&self.apis.whatsapp_api_version, business_account))
    }

    fn url(&self, owner: &Owner<'_>, path: &str) -> String {
        let base = match owner.provider {
            Provider::Twilio => &self.apis.twilio_content_base_url,
            _ => &self.apis.whatsapp_base_url,
        };
        format!("{}{path}", base.as_str().trim_end_matches('/'))
    }

    fn get(&self, owner: &Owner<'_>, path: &str) -> Result<RequestBuilder, Failed> {
        self.with(owner, self.client.get(self.url(owner, path)))
    }

    fn post(&self, owner: &Owner<'_>, path: &str, body: &Value) -> Result<RequestBuilder, Failed> {
        Ok(self.with(owner, self.client.post(self.url(owner, path)))?.json(body))
    }

    fn with(&self, owner: &Owner<'_>, call: RequestBuilder) -> Result<RequestBuilder, Failed> {
        let unusable = || Failed::NotPermitted {
            code: "credentials".into(),
            reason: "the account's access token cannot be a header's value".into(),
        };
        let token = owner.token.expose_secret();
        let text = match owner.provider {
            Provider::Twilio => {
                let name = owner.username.or(owner.business_account_id).unwrap_or_default();
                format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{token}")))
            }
            _ => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok(call.header(AUTHORIZATION, value))
    }
}

impl NewTemplate {
    /// What would be refused and can be seen without asking.
    ///
    /// # Errors
    /// The problems, each with its field.
    pub fn check(&self, provider: Provider) -> Result<(), Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: &str| {
            problems.push(FieldProblem { field: field.to_owned(), message: message.to_owned() });
        };
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !self.name.bytes().all(is_name) {
            problem("name", "must have 1 to 512 lower-case letters, digits and underscores");
        }
        if crate::domain::languages::typed(&self.language) != Ok(self.language.as_str()) {
            problem("language", "must be a language's code, such as en or pt_BR");
        }
        if !CATEGORIES.contains(&self.category.as_str()) {
            problem("category", "must be MARKETING, UTILITY or AUTHENTICATION");
        }
        match &self.form {
            Form::Raw(raw) => {
                let (is_form, form) = match provider {
                    Provider::Twilio => (raw.is_object(), "must be an object with the content's types"),
                    _ => (raw.is_array(), "must be a list of components"),
                };
                if !is_form {
                    problem("components", form);
                } else if raw.to_string().len() > MAX_RAW_BYTES {
                    problem("components", "must have at most 65536 bytes");
                }
            }
            Form::Words { body, examples, footer } => {
                let names = placeholders(body);
                if body.trim().is_empty() || body.chars().count() > MAX_BODY_CHARACTERS {
                    problem("body", "must have 1 to 1024 characters");
                }
                // Twilio puts them before WhatsApp, too.
                if body.trim().starts_with("{{") || body.trim().ends_with("}}") {
                    problem("body", "must neither begin nor end with a variable");
                }
                let numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
                if !numbers.is_empty() {
                    let counted = (1..).zip(&numbers).all(|(expected, number)| expected == *number);
                    if numbers.len() < names.len() || !counted {
                        problem("body", "must have either names or the numbers 1, 2 … in order as its variables");
                    }
                } else if let Some(name) = names.iter().find(|name| !name.bytes().all(is_name)) {
                    let message =
                        format!("has the variable {name}: lower-case letters, digits and underscores make a name");
                    problem("body", &message);
                }
                for name in names.iter().filter(|name| examples.get(**name).is_none_or(|text| text.trim().is_empty())) {
                    problem(
                        &format!("examples.{name}"),
                        "is missing: what stands for the variable when it is looked at",
                    );
                }
                for name in examples.keys().filter(|name| !names.contains(&name.as_str())) {
                    problem(&format!("examples.{name}"), "is no variable of the body");
                }
                match footer {
                    Some(_) if provider == Provider::Twilio => {
                        problem("footer", "must be missing: Twilio has footers in `components` only");
                    }
                    Some(footer) if footer.trim().is_empty() || footer.chars().count() > MAX_FOOTER_CHARACTERS => {
                        problem("footer", "must have 1 to 60 characters");
                    }
                    Some(footer) if footer.contains("{{") => problem("footer", "must have no variables"),
                    _ => {}
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// As it will be listed, until that is fetched.
    pub fn described(&self, provider: Provider, made: &Made) -> TemplateInfo {
        let description = match provider {
            Provider::Twilio => twilio::templates::creation(self)["types"].take(),
            _ => whatsapp::templates::creation(self)["components"].take(),
        };
        let category = made.category.clone().unwrap_or_else(|| self.category.clone());
        // One that is not made yet has no id, and without one nothing is listed.
        let id = if made.provider_id.is_empty() { "-" } else { made.provider_id.as_str() };
        let described = match provider {
            Provider::Twilio => {
                let element = serde_json::json!({"contents": [{"sid": id, "language": self.language, "types": description,
                    "approval_requests": {"name": self.name, "category": category, "status": made.status}}]});
                first(twilio::templates::parse_page(element.to_string().as_bytes()))
            }
            _ => {
                let format = if self.is_named { "NAMED" } else { "POSITIONAL" };
                let element = serde_json::json!({"data": [{"id": id, "name": self.name, "language": self.language,
                    "status": made.status, "category": category, "parameter_format": format, "components": description}]});
                first(whatsapp::templates::parse_page(element.to_string().as_bytes()))
            }
        };
        TemplateInfo { provider_id: described.provider_id.filter(|id| id != "-"), ..described }
    }
}

fn first(page: Result<TemplatePage, serde_json::Error>) -> TemplateInfo {
    let page = page.expect("it is written as a provider writes it");
    page.templates.into_iter().next().expect("it has a name and a language")
}

async fn read(call: RequestBuilder) -> Result<Answer, Failed> {
    let away = |error: reqwest::Error| {
        let what = if error.is_timeout() { "no answer in time" } else { "the connection could not be made, or broke" };
        Failed::away(what, None)
    };
    let mut answer = call.send().await.map_err(away)?;
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(away)? {
        if body.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(Failed::away("the answer is far too long", None));
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), body })
}

/// The provider's words, which hold no secret of ours.
fn cut(words: &str) -> String {
    let words: String = words.chars().filter(|c| !c.is_control()).take(500).collect();
    if words.is_empty() { "without a word".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(body: &str, examples: &[(&str, &str)]) -> NewTemplate {
        let examples = examples.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        NewTemplate {
            name: "reminder".into(),
            language: "en_US".into(),
            category: "UTILITY".into(),
            is_named: false,
            form: Form::Words { body: body.into(), examples, footer: None },
        }
    }

    fn fields(new: &NewTemplate, provider: Provider) -> Vec<String> {
        let problems = new.check(provider).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn what_would_be_refused_is_named_before_anybody_is_asked() {
        let long = "x".repeat(1025);
        for (new, expected) in [
            (new("Hi {{1}}, on {{2}}.", &[("1", "Ada"), ("2", "Monday")]), &[] as &[&str]),
            (new("Hi {{first_name}}.", &[("first_name", "Ada")]), &[]),
            (new("Hi {{1}}.", &[]), &["examples.1"]),
            (new("Hi {{1}}.", &[("1", "a"), ("2", "b")]), &["examples.2"]),
            (new("{{1}} hello", &[("1", "a")]), &["body"]),
            (new("Hi {{2}}.", &[("2", "a")]), &["body"]),
            (new("Hi {{1}} {{name}}.", &[("1", "a"), ("name", "b")]), &["body"]),
            (new("Hi {{First}}.", &[("First", "a")]), &["body"]),
            (new(&long, &[]), &["body"]),
            (
                NewTemplate { name: "Reminder".into(), language: "english".into(), ..new("Hi", &[]) },
                &["name", "language"],
            ),
            (NewTemplate { category: "utility".into(), ..new("Hi", &[]) }, &["category"]),
            (NewTemplate { form: Form::Raw(serde_json::json!({})), ..new("Hi", &[]) }, &["components"]),
        ] {
            assert_eq!(fields(&new, Provider::Whatsapp), expected, "{new:?}");
        }
        let raw = NewTemplate { form: Form::Raw(serde_json::json!({})), ..new("Hi", &[]) };
        assert_eq!(fields(&raw, Provider::Twilio), [] as [&str; 0]);
    }

    #[test]
    fn what_was_made_is_described_as_it_will_be_listed() {
        let new = new("Hi {{1}}, on {{2}}.", &[("1", "Ada"), ("2", "Monday")]);
        let made = Made { provider_id: "HX1".into(), status: "PENDING".into(), category: None };
        for provider in [Provider::Whatsapp, Provider::Twilio] {
            let described = new.described(provider, &made);
            let shown =
                (described.name.as_str(), described.body.as_str(), described.variables, described.category.as_str());
            assert_eq!(shown, ("reminder", "Hi {{1}}, on {{2}}.", 2, "UTILITY"), "{provider}");
            assert_eq!((described.status.as_str(), described.provider_id.as_deref()), ("PENDING", Some("HX1")));
            let queued = Made { provider_id: String::new(), ..made.clone() };
            let described = new.described(provider, &queued);
            assert_eq!(
                (described.name.as_str(), described.provider_id),
                ("reminder", None),
                "{provider}: not made yet"
            );
        }
    }
}
