//! What becomes of a template that a message or a campaign names: in which language it is said, whether it can be, and what it lacks.
//! A tenant's own is filled in here, and is words like any others from then on.

use crate::error::{self, Problem};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    db::{
        self, TenantTx,
        templates::{Reader, Template, local},
    },
    domain::{
        channel::{Channel, Provider},
        content::{self, OutboundContent},
        ids::{ChannelAccountId, ContactId, FileId, TemplateId},
        languages,
        local_templates::{LocalTemplate, variables},
        templates::Needs,
    },
    providers::twilio,
};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The type of a content that is a tenant's own template.
const LOCAL_TEMPLATE: &str = "local_template";

/// A tenant's own template with the values of one sending of it: its words, and its files, are sent as any others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalTemplateContent {
    /// Its name.
    pub name: String,
    /// The language's code. Left out, the recipient's decides.
    #[serde(default)]
    pub language: Option<String>,
    /// Values for its variables. `name` and `phone` are the recipient's unless given.
    #[serde(default)]
    pub named_variables: BTreeMap<String, String>,
}

/// What can be said: a content, or a template of the tenant's own.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described: the body is read by hand")]
pub(crate) enum Sayable {
    Content(OutboundContent),
    LocalTemplate(TypedLocalTemplate),
}

/// A tenant's own template.
#[derive(Serialize, ToSchema)]
#[schema(as = LocalTemplate)]
pub(crate) struct TypedLocalTemplate {
    /// `local_template`.
    #[schema(example = "local_template")]
    r#type: String,
    #[serde(flatten)]
    template: LocalTemplateContent,
}

/// What is to be said, as it was asked for.
#[derive(Clone, Debug)]
pub(in crate::routes) enum Asked {
    /// As it is, or a provider's template.
    Content(Box<OutboundContent>),
    /// A tenant's own template.
    Local(LocalTemplateContent),
}

/// The account by which it is said.
#[derive(Clone, Copy, Debug)]
pub(in crate::routes) struct By {
    /// Which.
    pub(in crate::routes) account: ChannelAccountId,
    /// At which provider.
    pub(in crate::routes) provider: Provider,
    /// On which channel.
    pub(in crate::routes) channel: Channel,
    /// When its templates were last fetched: never, and the provider decides.
    pub(in crate::routes) synced_at: Option<DateTime<Utc>>,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::routes) enum To {
    /// This contact.
    One(ContactId),
    /// Whoever a campaign goes to: what depends on the person stays open.
    Many,
}

/// What was made of it.
#[derive(Clone, Debug)]
pub(in crate::routes) struct Settled {
    /// What is said.
    pub(in crate::routes) content: OutboundContent,
    /// The template, to be counted; of a campaign a tenant's own alone.
    pub(in crate::routes) template: Option<TemplateId>,
    /// Whether it may only be said while the window is open, although it is a template: nobody has approved it yet.
    pub(in crate::routes) needs_window: bool,
}

/// From a body's fields.
///
/// # Errors
/// Which field is not what it should be.
pub(in crate::routes) fn read(mut fields: Map<String, Value>) -> Result<Asked, Problem> {
    if fields.get("type").and_then(Value::as_str) != Some(LOCAL_TEMPLATE) {
        return super::sending::read_content(fields).map(|content| Asked::Content(Box::new(content)));
    }
    fields.remove("type");
    let read = serde_path_to_error::deserialize(Value::Object(fields));
    read.map(Asked::Local).map_err(|error| crate::extract::refuse(&error.path().to_string(), error.inner()))
}

/// Settles what depends on the account's templates, and on who reads it.
pub(in crate::routes) async fn settle(
    tx: &mut TenantTx,
    by: By,
    to: To,
    asked: &Asked,
) -> db::Result<Result<Settled, Problem>> {
    let plain = |content| Settled { content, template: None, needs_window: false };
    match asked {
        Asked::Local(given) => own(tx, to, given).await,
        Asked::Content(content) => match &**content {
            OutboundContent::Template(given) => provided(tx, by, to, given.clone()).await,
            content => Ok(Ok(plain(content.clone()))),
        },
    }
}

async fn provided(
    tx: &mut TenantTx,
    by: By,
    to: To,
    mut given: content::Template,
) -> db::Result<Result<Settled, Problem>> {
    if !given.language.is_empty() && !given.languages.is_empty() {
        let message = "must be missing beside `language`";
        return Ok(Err(Problem::new(error::Kind::Invalid).field("languages", message)));
    }
    given.provider_ids.clear();
    let known = match by.synced_at {
        Some(_) => db::templates::find(tx, by.account, &given.name).await?,
        None => Vec::new(),
    };
    // What a SID names, Twilio may know before we do.
    let is_unknown = by.synced_at.is_none() || (known.is_empty() && twilio::check::is_content_sid(&given.name));
    let is_open = given.language.is_empty() && (!is_unknown || !given.languages.is_empty());
    let reader = match to {
        To::One(contact) if is_open => db::templates::reader(tx, Some(contact)).await?,
        To::Many if is_open => db::templates::reader(tx, None).await?,
        _ => Reader::default(),
    };
    if is_unknown {
        choose_unknown(&mut given, to, &reader);
        return Ok(Ok(Settled { content: OutboundContent::Template(given), template: None, needs_window: false }));
    }
    Ok(choose(&known, given, by, to, &reader))
}

/// Nothing is known of the template: of the languages that were given one is chosen, and the provider decides about the rest.
fn choose_unknown(given: &mut content::Template, to: To, reader: &Reader) {
    let there: Vec<&str> = given.languages.iter().map(String::as_str).collect();
    let Some(first) = there.first().filter(|_| to != To::Many) else { return };
    let chosen = languages::choose(&liked(reader), &there).unwrap_or(first).to_owned();
    given.settle(&chosen);
}

fn liked(reader: &Reader) -> [Option<&str>; 2] {
    [reader.language.as_deref(), reader.default_language.as_deref()]
}

/// Chooses the language, and checks that what it is said in can be sent and has all that it needs.
fn choose(
    known: &[Template],
    mut given: content::Template,
    by: By,
    to: To,
    reader: &Reader,
) -> Result<Settled, Problem> {
    let refuse = || Problem::new(error::Kind::TemplateUnusable);
    let name = &given.name;
    if known.is_empty() {
        return Err(refuse().field("name", format!("the account has no template {name}")));
    }
    let exists_in = || known.iter().map(|template| template.language.as_str()).collect::<Vec<_>>().join(", ");
    let by_id = known.iter().find(|template| template.provider_id.as_deref() == Some(name.as_str()));
    let there: Vec<&Template> = match by_id {
        // By its id it is one in one language, whatever is said beside it.
        Some(it) => vec![it],
        None if !given.language.is_empty() => {
            known.iter().filter(|template| template.language == given.language).collect()
        }
        None if given.languages.is_empty() => known.iter().collect(),
        None => {
            let mut listed = Vec::with_capacity(given.languages.len());
            for (index, language) in given.languages.iter().enumerate() {
                let Some(found) = known.iter().find(|template| template.language == *language) else {
                    let message = format!("template {name} exists in {}", exists_in());
                    return Err(refuse().field(format!("languages[{index}]"), message));
                };
                listed.push(found);
            }
            listed
        }
    };
    if there.is_empty() {
        return Err(refuse().field("language", format!("template {name} exists in {}", exists_in())));
    }
    // One that was asked for alone says itself why it cannot be; of several those remain that can.
    let usable: Vec<&Template> = match there[..] {
        [only] => vec![usability(only, by).map(|()| only)?],
        _ => there.iter().copied().filter(|template| usability(template, by).is_ok()).collect(),
    };
    if usable.is_empty() {
        let how = |template: &&Template| format!("{} is {}", template.language, template.status);
        let how = there.iter().map(how).collect::<Vec<_>>().join(", ");
        return Err(refuse().field("name", format!("template {name} can be sent in no language: {how}")));
    }
    let codes: Vec<&str> = usable.iter().map(|template| template.language.as_str()).collect();
    let fallback = if given.languages.is_empty() { None } else { codes.first().copied() };
    let undecided = || {
        let message = format!("must be one of {}, or `languages` several of them", codes.join(", "));
        refuse().detail("Neither the recipient's language nor the tenant's default decides.").field("language", message)
    };
    let ids = |of: &[&Template]| -> BTreeMap<String, String> {
        let of = of.iter().filter(|_| by.provider == Provider::Twilio);
        of.filter_map(|template| Some((template.language.clone(), template.provider_id.clone()?))).collect()
    };
    let chosen: Vec<&Template> = match (to, &usable[..]) {
        (_, [only]) => vec![*only],
        (To::One(_), _) => {
            let language = languages::choose(&liked(reader), &codes).or(fallback).ok_or_else(undecided)?;
            usable.iter().copied().filter(|template| template.language == language).take(1).collect()
        }
        (To::Many, _) => {
            // The first is for whoever likes none of them.
            let first = fallback.or_else(|| languages::choose(&liked(reader), &codes)).ok_or_else(undecided)?;
            let mut all = usable.clone();
            all.sort_by_key(|template| template.language != first);
            all
        }
    };
    for template in &chosen {
        lacks(template, &given)?;
    }
    given.provider_ids = ids(&chosen);
    let (template, needs_window) = match &chosen[..] {
        [only] => {
            let language = only.language.clone();
            given.settle(&language);
            (Some(only.id), only.status != "APPROVED" && by.channel == Channel::Whatsapp)
        }
        several => {
            given.languages = several.iter().map(|template| template.language.clone()).collect();
            (None, false)
        }
    };
    let template = template.filter(|_| to != To::Many);
    Ok(Settled { content: OutboundContent::Template(given), template, needs_window })
}

/// Whether a template can be sent at all.
fn usability(template: &Template, by: By) -> Result<(), Problem> {
    let refuse = |why: String| Problem::new(error::Kind::TemplateUnusable).field("name", why);
    let Template { name, language, status, needs, .. } = template;
    // What goes by text message nobody approves; on WhatsApp by Twilio, what nobody has refused can be said while the window is open
    // (providers/twilio section 15).
    let is_free = by.provider == Provider::Twilio
        && (by.channel != Channel::Whatsapp || ["UNSUBMITTED", "RECEIVED", "PENDING"].contains(&status.as_str()));
    let is_ours = ["QUEUED", "CALLING", "REFUSED", "DELETING", "NOT_DELETED"].contains(&status.as_str());
    if is_ours || (status != "APPROVED" && !is_free) {
        return Err(refuse(format!("template {name} in {language} is {status}")));
    }
    match needs.as_ref().and_then(|needs| needs.beyond_us.as_ref()) {
        Some(why) => Err(refuse(format!("template {name} in {language} cannot be sent from here: {why}"))),
        None => Ok(()),
    }
}

/// Whether it is given all that it needs, and no more.
fn lacks(template: &Template, given: &content::Template) -> Result<(), Problem> {
    // One fetched by an earlier release is known by the number of its variables alone.
    let by_number = Needs { variables: usize::try_from(template.variables).unwrap_or(0), ..Needs::default() };
    let needs = template.needs.as_ref().map_or(&by_number, |needs| &needs.0);
    let lacks = needs.lacks(given);
    if lacks.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(error::Kind::Invalid);
    if given.variables.len() != needs.variables {
        let (needed, given, name) = (needs.variables, given.variables.len(), &template.name);
        problem = problem.detail(format!("Template {name} needs {needed} variables, {given} were given."));
    }
    Err(lacks.into_iter().fold(problem, |problem, (field, message)| problem.field(field, message)))
}

/// A tenant's own, filled in.
async fn own(tx: &mut TenantTx, to: To, given: &LocalTemplateContent) -> db::Result<Result<Settled, Problem>> {
    let refuse = || Problem::new(error::Kind::TemplateUnusable);
    let known = local::find(tx, &given.name).await?;
    let name = &given.name;
    if known.is_empty() {
        return Ok(Err(refuse().field("name", format!("the tenant has no template {name} of its own"))));
    }
    let contact = match to {
        To::One(contact) => Some(contact),
        To::Many => None,
    };
    let reader = db::templates::reader(tx, contact).await?;
    let codes: Vec<&str> = known.iter().map(|template| template.language.as_str()).collect();
    let language = match given.language.as_deref() {
        Some(language) => codes.iter().copied().find(|code| code.eq_ignore_ascii_case(language)),
        None => languages::choose(&liked(&reader), &codes),
    };
    let Some(template) = known.iter().find(|template| Some(template.language.as_str()) == language) else {
        return Ok(Err(refuse().field("language", format!("template {name} exists in {}", codes.join(", ")))));
    };
    let mut values = given.named_variables.clone();
    let of_reader = match to {
        To::One(_) => [("name", reader.name.clone()), ("phone", reader.phone.clone())],
        // A campaign fills them in for each person.
        To::Many => ["name", "phone"].map(|name| (name, Some(format!("{{{{{name}}}}}")))),
    };
    let needed = variables(&template.body);
    for (variable, value) in of_reader.into_iter().filter(|(variable, _)| needed.contains(variable)) {
        if let Some(value) = value.filter(|_| !values.contains_key(variable)) {
            values.insert(variable.to_owned(), value);
        }
    }
    let ids: Vec<FileId> = template.files.iter().map(|id| FileId(*id)).collect();
    let files = match files(tx, &ids).await? {
        Ok(files) => files,
        Err(gone) => {
            let message = format!("template {name} names the file {gone}, which is not there any more");
            return Ok(Err(refuse().field("name", message)));
        }
    };
    let content = LocalTemplate { body: &template.body, files: &files }.content(&values);
    Ok(match content {
        Ok(content) => Ok(Settled { content, template: Some(template.id), needs_window: false }),
        Err(lacks) => {
            let start = Problem::new(error::Kind::Invalid);
            Err(lacks.into_iter().fold(start, |problem, (field, message)| problem.field(field, message)))
        }
    })
}

/// These files with their types, in this order; the first that is not there, if one is not.
pub(in crate::routes) async fn files(
    tx: &mut TenantTx,
    ids: &[FileId],
) -> db::Result<Result<Vec<(FileId, String)>, FileId>> {
    let found: BTreeMap<FileId, String> =
        db::files::find(tx, ids).await?.into_iter().map(|file| (file.id, file.content_type)).collect();
    let typed = |id: &FileId| found.get(id).map(|content_type| (*id, content_type.clone())).ok_or(*id);
    Ok(ids.iter().map(typed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TWILIO: By = By {
        account: ChannelAccountId(uuid::Uuid::nil()),
        provider: Provider::Twilio,
        channel: Channel::Whatsapp,
        synced_at: Some(DateTime::UNIX_EPOCH),
    };
    const WHATSAPP: By = By { provider: Provider::Whatsapp, ..TWILIO };
    const ONE: To = To::One(ContactId(uuid::Uuid::nil()));

    fn template(language: &str, status: &str) -> Template {
        Template {
            id: TemplateId::new(),
            name: "reminder".into(),
            language: language.into(),
            status: status.into(),
            body: "Hi {{1}}, see you {{2}}.".into(),
            variables: 2,
            needs: None,
            provider_id: Some(format!("HX{language}")),
        }
    }

    fn given(language: &str, n: usize) -> content::Template {
        content::Template {
            name: "reminder".into(),
            language: language.into(),
            variables: vec!["x".to_owned(); n],
            ..content::Template::default()
        }
    }

    fn reads(language: Option<&str>, default_language: Option<&str>) -> Reader {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Reader { language: text(language), default_language: text(default_language), ..Reader::default() }
    }

    fn fields(problem: &Problem) -> Vec<&str> {
        problem.errors.iter().map(|error| error.field.as_str()).collect()
    }

    fn said(settled: Settled) -> content::Template {
        let OutboundContent::Template(said) = settled.content else { panic!("a template stays one") };
        said
    }

    #[test]
    fn a_template_must_be_known_approved_and_complete() {
        let known = [template("en_US", "APPROVED"), template("de", "PAUSED")];
        let check = |known: &[Template], given| choose(known, given, WHATSAPP, ONE, &Reader::default());
        assert!(check(&known, given("en_US", 2)).is_ok());
        for (known, language, variables, field) in [
            (&known[..0], "en_US", 2, "name"),
            (&known[..], "fr", 2, "language"),
            (&known[..], "de", 2, "name"),
            (&known[..], "en_US", 1, "variables[1]"),
            (&known[..], "en_US", 3, "variables[2]"),
        ] {
            let problem = check(known, given(language, variables)).unwrap_err();
            assert_eq!((problem.status, fields(&problem)), (422, vec![field]));
        }
        let problem = check(&known, given("en_US", 0)).unwrap_err();
        assert_eq!(problem.errors[1].message, "is missing: the value of {{2}}");
    }

    #[test]
    fn the_readers_language_decides_among_those_that_can_be_sent() {
        let known = [template("de", "APPROVED"), template("en_US", "APPROVED"), template("fr", "REJECTED")];
        for (language, default_language, expected) in [
            (Some("de-AT"), None, Some("de")),
            (Some("en"), None, Some("en_US")),
            (Some("fr"), Some("de"), Some("de")),
            (None, Some("en_GB"), Some("en_US")),
            (Some("es"), None, None),
        ] {
            let settled = choose(&known, given("", 2), WHATSAPP, ONE, &reads(language, default_language));
            match expected {
                Some(expected) => {
                    let said = said(settled.unwrap());
                    assert_eq!((said.language.as_str(), said.provider_ids.len()), (expected, 0), "{language:?}");
                }
                None => assert_eq!(fields(&settled.unwrap_err()), ["language"]),
            }
        }
        let among = |languages: &[&str]| content::Template {
            languages: languages.iter().map(|code| (*code).to_owned()).collect(),
            ..given("", 2)
        };
        let nobody = reads(Some("es"), None);
        let settled = choose(&known, among(&["en_US", "de"]), WHATSAPP, ONE, &nobody).unwrap();
        assert_eq!(said(settled).language, "en_US", "the first of those given");
        let problem = choose(&known, among(&["en_US", "it"]), WHATSAPP, ONE, &nobody).unwrap_err();
        assert_eq!(fields(&problem), ["languages[1]"]);
    }

    #[test]
    fn a_campaign_keeps_all_languages_with_what_each_is_sent_by() {
        let known = [template("de", "APPROVED"), template("en", "APPROVED"), template("fr", "REJECTED")];
        let settled = choose(&known, given("", 2), TWILIO, To::Many, &reads(None, Some("en"))).unwrap();
        let kept = said(settled);
        assert_eq!((kept.language.as_str(), &kept.languages[..]), ("", &["en".to_owned(), "de".to_owned()][..]));
        assert_eq!(
            kept.provider_ids,
            [("de".to_owned(), "HXde".to_owned()), ("en".to_owned(), "HXen".to_owned())].into()
        );
        let problem = choose(&known, given("", 2), TWILIO, To::Many, &Reader::default()).unwrap_err();
        assert_eq!(fields(&problem), ["language"], "nobody says what is for everybody else");
        let one = choose(&known, given("de", 2), TWILIO, To::Many, &Reader::default()).unwrap();
        assert_eq!(said(one).provider_name(), "HXde");
    }

    #[test]
    fn by_twilio_what_nobody_has_approved_needs_an_open_window_and_by_text_message_nothing() {
        let by_id = || content::Template { name: "HXen".into(), ..given("whatever", 2) };
        for (status, by, expected) in [
            ("APPROVED", TWILIO, Some(false)),
            ("UNSUBMITTED", TWILIO, Some(true)),
            ("REJECTED", TWILIO, None),
            ("QUEUED", TWILIO, None),
            ("UNSUBMITTED", By { channel: Channel::Sms, ..TWILIO }, Some(false)),
            ("PENDING", WHATSAPP, None),
        ] {
            let settled = choose(&[template("en", status)], by_id(), by, ONE, &Reader::default());
            assert_eq!(settled.as_ref().ok().map(|settled| settled.needs_window), expected, "{status} {by:?}");
            if let Ok(settled) = settled {
                assert_eq!(said(settled).language, "en");
            }
        }
    }

    #[test]
    fn a_tenants_own_is_read_by_its_type() {
        let read = |value: Value| read(value.as_object().cloned().unwrap());
        let own = json!({"type": "local_template", "name": "hello", "named_variables": {"slot": "9:30"}});
        assert!(matches!(read(own), Ok(Asked::Local(_))));
        for (value, field) in [
            (json!({"type": "local_template"}), "name"),
            (json!({"type": "local_template", "name": "x", "variables": []}), "variables"),
            (json!({"type": "text"}), "text"),
        ] {
            assert_eq!(fields(&read(value.clone()).unwrap_err()), [field], "{value}");
        }
    }
}
