//! Campaigns: where one stands, to whom it goes, what it says to each of them, and how many are let go at a time.

use super::{
    content::OutboundContent,
    ids::ContactId,
    languages,
    people::{Address, RecipientKind},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a campaign stands: draft → running ⇄ paused → completed, or cancelled. Retrying who failed leads from
/// completed to running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CampaignState {
    /// Nobody has started it.
    Draft,
    /// Its people are frozen, then released.
    Running,
    /// Nobody is released or handed over.
    Paused,
    /// Everybody has been dealt with.
    Completed,
    /// Somebody stopped it for good.
    Cancelled,
}

/// What can be done with a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Freeze the audience and begin.
    Start,
    /// Hold it, for now.
    Pause,
    /// Go on.
    Resume,
    /// Stop it for good.
    Cancel,
    /// Nothing is left to do.
    Complete,
}

impl CampaignState {
    /// All states.
    pub const ALL: &'static [CampaignState] = &[
        CampaignState::Draft,
        CampaignState::Running,
        CampaignState::Paused,
        CampaignState::Completed,
        CampaignState::Cancelled,
    ];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            CampaignState::Draft => "draft",
            CampaignState::Running => "running",
            CampaignState::Paused => "paused",
            CampaignState::Completed => "completed",
            CampaignState::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }

    /// Where an action leads; `None`: it cannot be done from here. What has been done already leads to where it is.
    pub fn after(self, action: Action) -> Option<Self> {
        use CampaignState::*;
        match (action, self) {
            (Action::Start, Draft | Running) => Some(Running),
            (Action::Pause, Running | Paused) => Some(Paused),
            (Action::Resume, Running | Paused) => Some(Running),
            (Action::Cancel, Draft | Running | Paused | Cancelled) => Some(Cancelled),
            (Action::Complete, Running | Completed) => Some(Completed),
            _ => None,
        }
    }

    /// Where trying its failed people again leads; `None`: that cannot be done from here.
    pub fn when_retried(self) -> Option<Self> {
        match self {
            CampaignState::Running | CampaignState::Completed => Some(CampaignState::Running),
            CampaignState::Paused => Some(CampaignState::Paused),
            CampaignState::Draft | CampaignState::Cancelled => None,
        }
    }
}

impl fmt::Display for CampaignState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Action {
    /// What has been done with it then: "it cannot be started".
    pub fn participle(self) -> &'static str {
        match self {
            Action::Start => "started",
            Action::Pause => "paused",
            Action::Resume => "resumed",
            Action::Cancel => "cancelled",
            Action::Complete => "completed",
        }
    }
}

/// Where one person of a campaign stands, as it is shown and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecipientState {
    /// Left out, with a reason.
    Skipped,
    /// Not released yet.
    Waiting,
    /// Released, and neither with the provider nor given up.
    InFlight,
    /// Perhaps with the provider; evidence is awaited.
    Unknown,
    /// For a person to decide.
    Held,
    /// With the provider.
    Sent,
    /// On the person's device.
    Delivered,
    /// Seen.
    Read,
    /// Refused, by the provider or by us.
    Failed,
    /// Taken back before it was sent.
    Cancelled,
}

/// A word that is no [`RecipientState`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be one of {}", RecipientState::ALL.map(RecipientState::as_str).join(", "))]
pub struct UnknownRecipientState;

impl RecipientState {
    /// All states, in the order in which people pass them.
    pub const ALL: [RecipientState; 10] = [
        RecipientState::Skipped,
        RecipientState::Waiting,
        RecipientState::InFlight,
        RecipientState::Unknown,
        RecipientState::Held,
        RecipientState::Sent,
        RecipientState::Delivered,
        RecipientState::Read,
        RecipientState::Failed,
        RecipientState::Cancelled,
    ];

    /// The name in SQL, in the API and at the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            RecipientState::Skipped => "skipped",
            RecipientState::Waiting => "waiting",
            RecipientState::InFlight => "in_flight",
            RecipientState::Unknown => "unknown",
            RecipientState::Held => "held",
            RecipientState::Sent => "sent",
            RecipientState::Delivered => "delivered",
            RecipientState::Read => "read",
            RecipientState::Failed => "failed",
            RecipientState::Cancelled => "cancelled",
        }
    }
}

impl FromStr for RecipientState {
    type Err = UnknownRecipientState;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownRecipientState)
    }
}

/// To whom a campaign goes: `{"all": true}` or `{"contact_ids": […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AudienceFields", into = "AudienceFields")]
pub enum Audience {
    /// Everybody who is a contact when it starts.
    All,
    /// These, in the order of ids, none twice.
    Contacts(Vec<ContactId>),
}

/// An audience as it is written, not checked yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudienceFields {
    /// Everybody; the only value is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// These.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_ids: Option<Vec<ContactId>>,
}

/// Neither everybody nor a list, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be either {{\"all\": true}} or {{\"contact_ids\": […]}} with at least one id")]
pub struct NotAnAudience;

impl TryFrom<AudienceFields> for Audience {
    type Error = NotAnAudience;
    fn try_from(fields: AudienceFields) -> Result<Self, NotAnAudience> {
        match (fields.all, fields.contact_ids) {
            (Some(true), None) => Ok(Audience::All),
            (None, Some(mut ids)) if !ids.is_empty() => {
                ids.sort_unstable();
                ids.dedup();
                Ok(Audience::Contacts(ids))
            }
            _ => Err(NotAnAudience),
        }
    }
}

impl From<Audience> for AudienceFields {
    fn from(audience: Audience) -> Self {
        match audience {
            Audience::All => Self { all: Some(true), contact_ids: None },
            Audience::Contacts(ids) => Self { all: None, contact_ids: Some(ids) },
        }
    }
}

/// Why a person of the audience gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Neither a number nor an id that the account's provider can send to.
    NoAddress,
    /// The words need a name.
    NoName,
    /// The words need a number.
    NoPhone,
    /// They do not want to be written to on this channel.
    OptedOut,
    /// They are another person of the same audience, as it turned out.
    Merged,
}

impl SkipReason {
    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::NoAddress => "no_address",
            SkipReason::NoName => "no_name",
            SkipReason::NoPhone => "no_phone",
            SkipReason::OptedOut => "opted_out",
            SkipReason::Merged => "merged",
        }
    }
}

/// A person as a campaign needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressee {
    /// The name, if known.
    pub name: Option<String>,
    /// Their number, `+` and digits, if there is one.
    pub phone: Option<String>,
    /// How the account's provider reaches them, if it can.
    pub address: Option<Address>,
    /// Whether they have said that they do not want it.
    pub opted_out: bool,
    /// In which language they are written to, if that is known.
    pub language: Option<String>,
    /// In which language the tenant writes to whoever has none.
    pub default_language: Option<String>,
}

/// Longer names are cut: the words around them are what was checked to fit.
const MAX_NAME_CHARACTERS: usize = 200;

/// What a campaign says. Its words may have variables that each person fills in: `{{name}}` and `{{phone}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CampaignContent(OutboundContent);

/// A variable that nobody can fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// In which field of the content.
    pub field: String,
    /// As it is written.
    pub variable: String,
}

impl CampaignContent {
    /// What may be said: every variable is known.
    ///
    /// # Errors
    /// Those that are not.
    pub fn new(mut content: OutboundContent) -> Result<Self, Vec<UnknownVariable>> {
        let mut unknown = Vec::new();
        content.each_text(&mut |field, words| {
            let strangers = pieces(words).into_iter().filter_map(|piece| match piece {
                Piece::Variable(name) if variable(name).is_none() => Some(name.to_owned()),
                _ => None,
            });
            unknown.extend(strangers.map(|variable| UnknownVariable { field: field.to_owned(), variable }));
        });
        if unknown.is_empty() { Ok(Self(content)) } else { Err(unknown) }
    }

    /// What is said to one person.
    ///
    /// # Errors
    /// Why it cannot be said to them.
    pub fn filled(&self, person: &Addressee) -> Result<OutboundContent, SkipReason> {
        if person.opted_out {
            return Err(SkipReason::OptedOut);
        }
        if person.address.is_none() {
            return Err(SkipReason::NoAddress);
        }
        let (mut content, mut missing) = (self.0.clone(), None);
        if let OutboundContent::Template(template) = &mut content
            && let Some(first) = template.languages.first()
        {
            let there: Vec<&str> = template.languages.iter().map(String::as_str).collect();
            let liked = [person.language.as_deref(), person.default_language.as_deref()];
            let chosen = languages::choose(&liked, &there).unwrap_or(first).to_owned();
            template.settle(&chosen);
        }
        content.each_text(&mut |_, words| match fill(words, person) {
            Ok(filled) => *words = filled,
            Err(reason) => missing = missing.or(Some(reason)),
        });
        missing.map_or(Ok(content), Err)
    }

    /// What is said to the person with the longest name and number: if that fits, everything does.
    pub fn longest(&self) -> OutboundContent {
        let longest = Addressee {
            name: Some("x".repeat(MAX_NAME_CHARACTERS)),
            phone: Some("+123456789012345".to_owned()),
            address: Some(Address { kind: RecipientKind::Phone, value: "+123456789012345".to_owned() }),
            opted_out: false,
            language: None,
            default_language: None,
        };
        self.filled(&longest).expect("nothing is missing")
    }
}

#[derive(Clone, Copy)]
enum Variable {
    Name,
    Phone,
}

fn variable(name: &str) -> Option<Variable> {
    match name {
        "name" => Some(Variable::Name),
        "phone" => Some(Variable::Phone),
        _ => None,
    }
}

enum Piece<'a> {
    Words(&'a str),
    /// What stands between two pairs of braces, trimmed.
    Variable(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{")
        && let Some((name, after)) = after.split_once("}}")
    {
        pieces.extend([Piece::Words(before), Piece::Variable(name.trim())]);
        rest = after;
    }
    pieces.push(Piece::Words(rest));
    pieces
}

fn fill(text: &str, person: &Addressee) -> Result<String, SkipReason> {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Words(words) => filled.push_str(words),
            Piece::Variable(name) => match variable(name) {
                Some(Variable::Name) => filled.push_str(&shown(person.name.as_deref()).ok_or(SkipReason::NoName)?),
                Some(Variable::Phone) => filled.push_str(person.phone.as_deref().ok_or(SkipReason::NoPhone)?),
                None => {}
            },
        }
    }
    Ok(filled)
}

/// A name as it can stand in a line: providers refuse newlines, tabs and runs of spaces in a template's variables.
fn shown(name: Option<&str>) -> Option<String> {
    let name: Vec<&str> = name?.split_whitespace().collect();
    let name: String = name.join(" ").chars().take(MAX_NAME_CHARACTERS).collect();
    (!name.is_empty()).then_some(name)
}

/// A running campaign among those that share an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its weight beside the others.
    pub weight: i32,
    /// How many are not released yet.
    pub waiting: i64,
    /// How many are released and neither with the provider nor given up.
    pub in_flight: i64,
}

/// How many of each campaign to release now, so that all together have `outstanding` in flight and none gets more than its part
/// of it. One that has nobody left shares no more, and none starves, however small its share or much of others is in flight.
pub fn credits(outstanding: f64, shares: &[Share]) -> Vec<i64> {
    let weights: i32 = shares.iter().filter(|share| share.waiting > 0).map(|share| share.weight).sum();
    let part = |share: &Share| {
        let all = if share.waiting > 0 { weights } else { weights + share.weight };
        // A float to an integer saturates.
        (outstanding * f64::from(share.weight) / f64::from(all)).floor().max(1.0) as i64
    };
    let credits = shares.iter().map(|share| (part(share) - share.in_flight).clamp(0, share.waiting.max(0))).collect();
    // One that began alone may have more than its part in flight, of which no more than its part counts: where its sends all wait
    // for minutes (its template is not ready, nobody more of its portfolio can be reached), the others do not wait with them.
    let in_flight: i64 = shares.iter().map(|share| share.in_flight.min(part(share))).sum();
    scaled_down(credits, (outstanding as i64).saturating_sub(in_flight))
}

/// The same, together at most so many; of each in proportion, and one at least.
pub fn scaled_down(credits: Vec<i64>, most: i64) -> Vec<i64> {
    let wanted: i64 = credits.iter().sum();
    if wanted <= most {
        return credits;
    }
    let part = most.max(0) as f64 / wanted as f64;
    credits.into_iter().map(|credit| ((credit as f64 * part) as i64).max(credit.min(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::{Template, Text};
    use CampaignState::*;

    fn text(words: &str) -> OutboundContent {
        OutboundContent::Text(Text { text: words.into(), ..Text::default() })
    }

    fn at(kind: RecipientKind, value: &str) -> Address {
        Address { kind, value: value.into() }
    }

    fn ada() -> Addressee {
        Addressee {
            name: Some("Ada".into()),
            phone: Some("+15557770142".into()),
            address: Some(at(RecipientKind::Phone, "+15557770142")),
            ..Addressee::default()
        }
    }

    #[test]
    fn actions_lead_from_some_states_and_doing_one_again_changes_nothing() {
        let table = [
            (Action::Start, [Some(Running), Some(Running), None, None, None]),
            (Action::Pause, [None, Some(Paused), Some(Paused), None, None]),
            (Action::Resume, [None, Some(Running), Some(Running), None, None]),
            (Action::Cancel, [Some(Cancelled), Some(Cancelled), Some(Cancelled), None, Some(Cancelled)]),
            (Action::Complete, [None, Some(Completed), None, Some(Completed), None]),
        ];
        for (action, expected) in table {
            for (state, expected) in CampaignState::ALL.iter().zip(expected) {
                assert_eq!(state.after(action), expected, "{action:?} from {state}");
                if let Some(next) = expected {
                    assert_eq!(next.after(action), Some(next), "{action:?} twice from {state}");
                }
            }
        }
        for (state, expected) in [
            (Draft, None),
            (Running, Some(Running)),
            (Paused, Some(Paused)),
            (Completed, Some(Running)),
            (Cancelled, None),
        ] {
            assert_eq!(state.when_retried(), expected, "{state}");
        }
        for state in CampaignState::ALL {
            assert_eq!(CampaignState::from_name(state.as_str()), Some(*state));
        }
        for state in RecipientState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }

    #[test]
    fn an_audience_is_everybody_or_a_list() {
        let read = |json: &str| serde_json::from_str::<Audience>(json).ok();
        assert_eq!(read(r#"{"all": true}"#), Some(Audience::All));
        let (one, two) = (ContactId::new(), ContactId::new());
        let list = format!(r#"{{"contact_ids": ["{two}", "{one}", "{two}"]}}"#);
        assert_eq!(read(&list), Some(Audience::Contacts(vec![one, two])), "in order and none twice");
        for wrong in ["{}", r#"{"all": false}"#, r#"{"contact_ids": []}"#, r#"{"all": true, "contact_ids": []}"#] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for audience in [Audience::All, Audience::Contacts(vec![one])] {
            let json = serde_json::to_string(&audience).unwrap();
            assert_eq!(read(&json), Some(audience), "{json}");
        }
    }

    #[test]
    fn words_are_filled_in_for_each_person() {
        for (words, expected) in [
            ("Hello", "Hello"),
            ("Hello {{name}}!", "Hello Ada!"),
            ("{{ name }}, {{phone}}{{name}}", "Ada, +15557770142Ada"),
            ("{{", "{{"),
            ("a }} b {{ c", "a }} b {{ c"),
        ] {
            assert_eq!(CampaignContent::new(text(words)).unwrap().filled(&ada()), Ok(text(expected)), "{words}");
        }
        let template = |value: &str| {
            OutboundContent::Template(Template {
                name: "reminder".into(),
                language: "en".into(),
                variables: vec!["Monday".into(), value.into()],
                ..Template::default()
            })
        };
        let content = CampaignContent::new(template("{{name}}")).unwrap();
        assert_eq!(content.filled(&ada()), Ok(template("Ada")));
        let spaced = Addressee { name: Some(" Ada\n\tof      Lovelace ".into()), ..ada() };
        assert_eq!(content.filled(&spaced), Ok(template("Ada of Lovelace")), "as a template's variable may be");
    }

    #[test]
    fn everybody_is_written_to_in_their_language() {
        let ids = [("en".to_owned(), "HX1".to_owned()), ("de".to_owned(), "HX2".to_owned())];
        let template = Template {
            name: "reminder".into(),
            languages: vec!["en".into(), "de".into()],
            provider_ids: ids.into(),
            ..Template::default()
        };
        let content = CampaignContent::new(OutboundContent::Template(template)).unwrap();
        for (language, default_language, expected, id) in
            [(Some("de-AT"), None, "de", "HX2"), (Some("fr"), Some("de"), "de", "HX2"), (None, None, "en", "HX1")]
        {
            let person = Addressee {
                language: language.map(str::to_owned),
                default_language: default_language.map(str::to_owned),
                ..ada()
            };
            let Ok(OutboundContent::Template(said)) = content.filled(&person) else { panic!("a template stays one") };
            let ids = [(expected.to_owned(), id.to_owned())].into();
            assert_eq!((said.language.as_str(), said.languages.len(), said.provider_ids), (expected, 0, ids));
        }
    }

    #[test]
    fn a_name_is_no_place_for_variables() {
        let person = Addressee { name: Some("{{phone}}".into()), ..ada() };
        assert_eq!(CampaignContent::new(text("Hi {{name}}")).unwrap().filled(&person), Ok(text("Hi {{phone}}")));
    }

    #[test]
    fn who_lacks_what_the_words_need_is_skipped_with_the_reason() {
        let nobody = Addressee::default();
        let by_id = Addressee { address: Some(at(RecipientKind::Bsuid, "US.1")), ..Addressee::default() };
        let nameless = Addressee { name: Some(" ".into()), ..ada() };
        for (words, person, expected) in [
            ("Hello", &nobody, Some(SkipReason::NoAddress)),
            ("Hello", &by_id, None),
            ("Hello", &nameless, None),
            ("{{name}}", &nameless, Some(SkipReason::NoName)),
            ("{{name}}", &by_id, Some(SkipReason::NoName)),
            ("{{phone}}", &by_id, Some(SkipReason::NoPhone)),
            ("{{name}}", &nobody, Some(SkipReason::NoAddress)),
        ] {
            let content = CampaignContent::new(text(words)).unwrap();
            assert_eq!(content.filled(person).err(), expected, "{words} to {person:?}");
        }
    }

    #[test]
    fn a_variable_nobody_knows_is_named_with_its_field() {
        let unknown = |field: &str, variable: &str| UnknownVariable { field: field.into(), variable: variable.into() };
        assert_eq!(
            CampaignContent::new(text("{{name}} {{city}} {{1}} {{}}")),
            Err(vec![unknown("text", "city"), unknown("text", "1"), unknown("text", "")])
        );
        let template = OutboundContent::Template(Template {
            name: "a".into(),
            language: "en".into(),
            variables: vec!["{{phone}}".into(), "{{Name}}".into()],
            ..Template::default()
        });
        assert_eq!(CampaignContent::new(template), Err(vec![unknown("variables[1]", "Name")]));
    }

    #[test]
    fn nobody_gets_more_words_than_the_longest() {
        let content = CampaignContent::new(text("{{name}}{{name}}{{phone}}")).unwrap();
        let OutboundContent::Text(Text { text: longest, .. }) = content.longest() else { panic!("a text stays one") };
        assert_eq!(longest.chars().count(), 416);
        let person = Addressee { name: Some("é".repeat(5000)), ..ada() };
        let Ok(OutboundContent::Text(Text { text, .. })) = content.filled(&person) else { panic!("a text stays one") };
        assert!(text.chars().count() <= longest.chars().count());
    }

    #[test]
    fn credit_is_shared_by_weight_among_those_who_have_somebody_left() {
        let share = |weight, waiting, in_flight| Share { weight, waiting, in_flight };
        for (outstanding, shares, expected) in [
            (400.0, vec![share(1, 1000, 0)], vec![400]),
            (400.0, vec![share(1, 1000, 380)], vec![20]),
            (400.0, vec![share(1, 1000, 500)], vec![0]),
            (400.0, vec![share(1, 30, 0)], vec![30]),
            (400.0, vec![share(1, 1000, 0), share(3, 1000, 0)], vec![100, 300]),
            (400.0, vec![share(1, 1000, 0), share(3, 0, 200)], vec![200, 0]),
            (400.0, vec![share(1, 1000, 300), share(1, 1000, 0)], vec![0, 200]),
            (400.0, vec![share(1, 1000, 400), share(1, 1000, 0)], vec![0, 200]),
            (400.0, vec![share(1, 0, 400), share(1, 1000, 0)], vec![0, 200]),
            (5.0, vec![share(1, 1000, 0), share(100, 1000, 0)], vec![1, 4]),
            (5.0, vec![share(1, 1000, 1), share(100, 1000, 4)], vec![0, 0]),
            (400.0, vec![share(1, 0, 0)], vec![0]),
            (400.0, vec![], vec![]),
        ] {
            assert_eq!(credits(outstanding, &shares), expected, "{outstanding} {shares:?}");
        }
    }
}
