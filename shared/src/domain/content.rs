//! What can be said, kind by kind: the same words whoever carries them. Which provider carries what, and within which limits, is
//! said by each provider's `check`; how it is written on the wire, by its `send`.

use super::{
    channel::{Channel, Provider},
    ids::{FileId, MessageId},
    messages::MessageKind,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

macro_rules! contents {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $kind:ident),+ $(,)?) => {
        /// What an agent, an operator or the system wants said. Checked before it is stored; turned into a provider's request at the
        /// call.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "type", rename_all = "snake_case")]
        pub enum OutboundContent { $($(#[$doc])* $name($name)),+ }

        impl OutboundContent {
            /// The names of all types.
            pub const TYPES: &'static [&'static str] = &[$($text),+];

            /// From an object whose `type` says what the other fields are.
            ///
            /// # Errors
            /// Where it is not what it says, by its path.
            pub fn read(mut fields: Map<String, Value>) -> Result<Self, Unreadable> {
                let kind = match fields.remove("type") {
                    Some(Value::String(kind)) => kind,
                    Some(_) => return Err(Unreadable::of_type("must be a text")),
                    None => return Err(Unreadable::of_type(&format!("is needed: one of {}", Self::TYPES.join(", ")))),
                };
                match kind.as_str() {
                    $($text => serde_path_to_error::deserialize(Value::Object(fields)).map(Self::$name).map_err(Unreadable::of),)+
                    _ => Err(Unreadable::of_type(&format!("must be one of {}", Self::TYPES.join(", ")))),
                }
            }

            /// The name of its type.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => $text),+ }
            }

            /// The kind of message this becomes.
            pub fn kind(&self) -> MessageKind {
                match self { $(Self::$name(_) => MessageKind::$kind),+ }
            }
        }
    };
}

contents! {
    /// Free words.
    Text = "text" => Text,
    /// An approved template; on channels with a window, all that may be sent outside of it.
    Template = "template" => Template,
    /// A picture.
    Image = "image" => Image,
    /// A film.
    Video = "video" => Video,
    /// A recording or a voice note.
    Audio = "audio" => Audio,
    /// A file.
    Document = "document" => Document,
    /// A sticker.
    Sticker = "sticker" => Sticker,
    /// Several files, with or without words, as one message.
    Album = "album" => Image,
    /// A place.
    Location = "location" => Location,
    /// Contact cards.
    Contacts = "contacts" => Contacts,
    /// Words with buttons.
    Buttons = "buttons" => Interactive,
    /// Words with a list to choose from.
    List = "list" => Interactive,
    /// Cards beside each other, each with a picture and buttons.
    Cards = "cards" => Interactive,
    /// Words with a button that opens a form.
    Flow = "flow" => Interactive,
    /// A product of a catalogue.
    Product = "product" => Interactive,
    /// Products of a catalogue, in sections.
    ProductList = "product_list" => Interactive,
    /// A catalogue.
    Catalog = "catalog" => Interactive,
    /// Words with a button to tell where one is.
    LocationRequest = "location_request" => Interactive,
    /// Words with a button to tell one's number.
    ContactRequest = "contact_request" => Interactive,
    /// A reaction to a message, set or removed.
    Reaction = "reaction" => Reaction,
    /// A heart.
    Heart = "heart" => Text,
    /// A post of one's own.
    Post = "post" => Share,
}

/// Why something is none of the contents.
#[derive(Debug)]
pub struct Unreadable {
    /// Where (`buttons[1].title`); `.` for the whole.
    pub path: String,
    /// What serde says.
    pub error: serde_json::Error,
}

impl Unreadable {
    fn of(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().to_string();
        Self { path, error: error.into_inner() }
    }

    fn of_type(message: &str) -> Self {
        Self { path: "type".to_owned(), error: serde::de::Error::custom(message) }
    }
}

/// A file to be sent: one that was uploaded, or one that lies where anybody may fetch it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// The id of an uploaded file. This or `link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    pub id: Option<FileId>,
    /// The address of a file that the provider can fetch, `https://…`. This or `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Free words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The words.
    pub text: String,
    /// Whether the first link is shown with a preview (WhatsApp).
    #[serde(default)]
    pub preview_url: bool,
    /// Answers to tap on, gone after the next message (Messenger, Instagram).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quick_replies: Vec<QuickReply>,
}

/// An answer to tap on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum QuickReply {
    /// Words.
    Text {
        /// What is shown.
        title: String,
        /// What comes back when it is tapped.
        payload: String,
        /// A small picture beside the words, `https://…`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image_link: Option<String>,
    },
    /// The person's telephone number, as the provider knows it.
    PhoneNumber {},
    /// The person's e-mail address, as the provider knows it.
    Email {},
}

/// A template with the values of one sending of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TemplateContent)]
pub struct Template {
    // Checked with the rest, so that all that is missing is named at once.
    /// Its name at the provider.
    #[serde(default)]
    #[schema(required = true)]
    pub name: String,
    /// The language's code as the provider spells it. Left out, the recipient's decides, as far as the account's templates are known.
    #[serde(default)]
    #[schema(required = false, example = "en_US")]
    pub language: String,
    /// Among which languages the recipient's decides, instead of `language`: all that the template has, unless given. The first is for
    /// whoever likes none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// The provider's id of it in these languages, by which it is sent where that has no names (Twilio). Filled in when it is accepted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(read_only)]
    pub provider_ids: BTreeMap<String, String>,
    /// Values for the body's numbered variables, in order (`{{1}}`, `{{2}}` …).
    #[serde(default)]
    pub variables: Vec<String>,
    /// Values for the body's named variables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named_variables: BTreeMap<String, String>,
    /// What its header needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<TemplateHeader>,
    /// What its buttons need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<TemplateButton>,
    /// What the cards of a carousel need, each in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<TemplateCard>,
    /// When a limited-time offer ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_expires_at: Option<DateTime<Utc>>,
}

/// What a template's header needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TemplateHeader {
    /// The value of its variable.
    Text {
        /// The value.
        text: String,
        /// The variable's name, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A picture.
    Image {
        /// Which.
        file: FileRef,
    },
    /// A film.
    Video {
        /// Which.
        file: FileRef,
    },
    /// A file.
    Document {
        /// Which.
        file: FileRef,
        /// The name it is shown with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    /// A place.
    Location {
        /// Which.
        location: Location,
    },
}

/// What one of a template's buttons needs. `index` is the button's place, from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TemplateButton {
    /// What comes back when it is tapped.
    QuickReply {
        /// Its place.
        index: u8,
        /// What comes back.
        payload: String,
    },
    /// The end of its address.
    Url {
        /// Its place.
        index: u8,
        /// What is put at the end.
        text: String,
    },
    /// The code to be copied.
    CopyCode {
        /// Its place.
        index: u8,
        /// The code.
        code: String,
    },
    /// What its form begins with.
    Flow {
        /// Its place.
        index: u8,
        /// What comes back with the form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// What the form is filled with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        data: Option<Map<String, Value>>,
    },
    /// The catalogue's picture.
    Catalog {
        /// Its place.
        index: u8,
        /// The product whose picture is shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thumbnail_product_id: Option<String>,
    },
    /// The products shown.
    Products {
        /// Its place.
        index: u8,
        /// The product whose picture is shown.
        thumbnail_product_id: String,
        /// The products.
        sections: Vec<ProductSection>,
    },
}

impl Template {
    /// By what its provider knows it: the id, where one was filled in, else the name.
    pub fn provider_name(&self) -> &str {
        self.provider_ids.get(&self.language).unwrap_or(&self.name)
    }

    /// Says it in one of its languages and no other.
    pub fn settle(&mut self, language: &str) {
        self.language = language.to_owned();
        self.languages.clear();
        self.provider_ids.retain(|of, _| of == language);
    }
}

impl TemplateButton {
    /// The button's place, from 0.
    pub fn index(&self) -> u8 {
        use TemplateButton::*;
        match self {
            QuickReply { index, .. }
            | Url { index, .. }
            | CopyCode { index, .. }
            | Flow { index, .. }
            | Catalog { index, .. }
            | Products { index, .. } => *index,
        }
    }
}

/// What one card of a template's carousel needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateCard {
    /// Its picture or film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<TemplateHeader>,
    /// Values for its words' variables, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// What its buttons need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<TemplateButton>,
}

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Which.
    pub file: FileRef,
    /// The words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

/// A film.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// Which.
    pub file: FileRef,
    /// The words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

/// A recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    /// Which.
    pub file: FileRef,
    /// Whether it is shown as a voice note (WhatsApp: OGG with Opus).
    #[serde(default)]
    pub voice: bool,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Which.
    pub file: FileRef,
    /// The words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The name it is shown with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
}

/// A sticker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticker {
    /// Which.
    pub file: FileRef,
}

/// Several files as one message: pictures on Messenger and Instagram, anything on MMS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Album {
    /// The files.
    pub files: Vec<FileRef>,
    /// The words beside them (MMS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
    /// What the place is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Contact cards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// The cards.
    pub contacts: Vec<ContactCard>,
}

/// A contact card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactCard {
    /// The name.
    pub name: CardName,
    /// Telephone numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phones: Vec<CardPhone>,
    /// E-mail addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emails: Vec<CardEmail>,
    /// Where the person works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<CardOrganization>,
    /// Addresses on the web.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<CardUrl>,
    /// Postal addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<CardAddress>,
    /// `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birthday: Option<String>,
}

/// A name on a card: as it is shown, and at least one part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardName {
    /// As it is shown.
    pub formatted_name: String,
    /// The given name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// The family name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// What stands between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub middle_name: Option<String>,
    /// What stands after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// What stands before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A telephone number on a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardPhone {
    /// The number.
    pub phone: String,
    /// CELL, MAIN, IPHONE, HOME, WORK.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// WhatsApp's id of who has it: the card then offers to write to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wa_id: Option<String>,
}

/// An e-mail address on a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardEmail {
    /// The address.
    pub email: String,
    /// HOME, WORK.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Where somebody works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardOrganization {
    /// The company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<String>,
    /// What they do there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// An address on the web on a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardUrl {
    /// The address.
    pub url: String,
    /// HOME, WORK.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// A postal address on a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CardAddress {
    /// Street and number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub street: Option<String>,
    /// City.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zip: Option<String>,
    /// Country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// ISO 3166-1 alpha-2, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    /// HOME, WORK.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What stands above words with something to tap on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Header {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// A picture.
    Image {
        /// Which.
        file: FileRef,
    },
    /// A film.
    Video {
        /// Which.
        file: FileRef,
    },
    /// A file.
    Document {
        /// Which.
        file: FileRef,
        /// The name it is shown with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
}

/// Words with buttons: up to three to answer with, or one that leads to an address (WhatsApp); up to three of any kind (Messenger,
/// Instagram).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Buttons {
    /// The words.
    pub text: String,
    /// What stands above them (WhatsApp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// What stands below them (WhatsApp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// The buttons.
    pub buttons: Vec<Button>,
}

/// A button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Button {
    /// To answer with.
    Reply {
        /// What is shown.
        title: String,
        /// What comes back when it is tapped.
        id: String,
    },
    /// Leads to an address.
    Url {
        /// What is shown.
        title: String,
        /// Where it leads, `https://…`.
        url: String,
    },
    /// Calls a number (Messenger).
    Call {
        /// What is shown.
        title: String,
        /// The number, E.164 with `+`.
        phone: String,
    },
}

impl Button {
    /// What is shown.
    pub fn title(&self) -> &str {
        match self {
            Button::Reply { title, .. } | Button::Url { title, .. } | Button::Call { title, .. } => title,
        }
    }
}

/// Words with a list to choose from (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The words.
    pub text: String,
    /// The words above them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The words below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// What is on the button that opens the list.
    pub button: String,
    /// The list, in sections.
    pub sections: Vec<ListSection>,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSection {
    /// What stands above it; needed where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What can be chosen.
    pub rows: Vec<ListRow>,
}

/// What can be chosen of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRow {
    /// What comes back when it is chosen.
    pub id: String,
    /// What is shown.
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Cards beside each other (Messenger, Instagram).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cards {
    /// The cards.
    pub cards: Vec<Card>,
}

/// A card: a title and at least one thing more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The title.
    pub title: String,
    /// The words below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtitle: Option<String>,
    /// The picture above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<FileRef>,
    /// Where a tap on the card leads, `https://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its buttons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<Button>,
}

/// Words with a button that opens a form (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// The words.
    pub text: String,
    /// What stands above them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// The words below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// The form's id at the provider.
    pub flow_id: String,
    /// What is on the button.
    pub button: String,
    /// What comes back with the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The screen it begins with; without, the form's own server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<String>,
    /// What the screen is filled with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Map<String, Value>>,
    /// Whether the form is a draft.
    #[serde(default)]
    pub draft: bool,
}

/// A product of a catalogue (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The catalogue.
    pub catalog_id: String,
    /// The product's id in it.
    pub product_id: String,
    /// The words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The words below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
}

/// Products of a catalogue, in sections (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductList {
    /// The words.
    pub text: String,
    /// The words above them.
    pub header: String,
    /// The words below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// The catalogue.
    pub catalog_id: String,
    /// The products.
    pub sections: Vec<ProductSection>,
}

/// Some products of a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductSection {
    /// What stands above them.
    pub title: String,
    /// Their ids in the catalogue.
    pub product_ids: Vec<String>,
}

/// A catalogue (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// The words.
    pub text: String,
    /// The words below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// The product whose picture is shown; without, the catalogue's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail_product_id: Option<String>,
}

/// Words with a button to tell where one is (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationRequest {
    /// The words.
    pub text: String,
}

/// Words with a button to tell one's number (WhatsApp).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactRequest {
    /// The words.
    pub text: String,
}

/// A reaction to a message of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// Our id of the message.
    #[schema(value_type = uuid::Uuid)]
    pub message_id: MessageId,
    /// One emoji; empty to take the reaction back.
    pub emoji: String,
}

/// A heart (Instagram).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heart {}

/// A post of the account's own (Instagram).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// The provider's id of the post.
    pub post_id: String,
}

/// By what a provider limits a message beside its account: what takes longer has a rate of its own (providers/messenger section 8,
/// providers/instagram section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Words, pictures and whatever is light.
    Light,
    /// Recordings and films.
    Heavy,
}

impl OutboundContent {
    /// The words to show in a list.
    pub fn preview(&self) -> String {
        use OutboundContent::*;
        let named = |kind: &str, words: Option<&str>| match words {
            Some(words) if !words.is_empty() => words.to_owned(),
            _ => format!("[{kind}]"),
        };
        match self {
            Text(text) => text.text.clone(),
            Template(template) => {
                let values: Vec<&str> =
                    template.variables.iter().chain(template.named_variables.values()).map(String::as_str).collect();
                let values = values.join(", ");
                if values.is_empty() { format!("[{}]", template.name) } else { format!("[{}] {values}", template.name) }
            }
            Image(image) => named("image", image.caption.as_deref()),
            Video(video) => named("video", video.caption.as_deref()),
            Audio(_) => named("audio", None),
            Document(document) => named("document", document.caption.as_deref().or(document.filename.as_deref())),
            Sticker(_) => named("sticker", None),
            Album(album) => named("files", album.text.as_deref()),
            Location(location) => named("location", location.name.as_deref()),
            Contacts(contacts) => {
                named("contacts", contacts.contacts.first().map(|card| card.name.formatted_name.as_str()))
            }
            Buttons(buttons) => buttons.text.clone(),
            List(list) => list.text.clone(),
            Cards(cards) => named("cards", cards.cards.first().map(|card| card.title.as_str())),
            Flow(flow) => flow.text.clone(),
            Product(product) => named("product", product.text.as_deref()),
            ProductList(products) => products.text.clone(),
            Catalog(catalog) => catalog.text.clone(),
            LocationRequest(request) => request.text.clone(),
            ContactRequest(request) => request.text.clone(),
            Reaction(reaction) => reaction.emoji.clone(),
            Heart(_) => "❤".to_owned(),
            Post(_) => named("post", None),
        }
    }

    /// Whether it may only be sent inside the customer service window: everything but a template, where there is a window.
    pub fn needs_open_window(&self, provider: Provider, channel: Channel) -> bool {
        provider.has_window() && channel.window().is_some() && !matches!(self, OutboundContent::Template(_))
    }

    /// The message of the conversation that it is about.
    pub fn about(&self) -> Option<MessageId> {
        match self {
            OutboundContent::Reaction(reaction) => Some(reaction.message_id),
            _ => None,
        }
    }

    /// By what it is limited beside its account.
    pub fn class(&self) -> Class {
        match self {
            OutboundContent::Audio(_) | OutboundContent::Video(_) => Class::Heavy,
            _ => Class::Light,
        }
    }

    /// Its files, each with the field that names it.
    pub fn files(&self) -> Vec<(String, &FileRef)> {
        use OutboundContent::*;
        match self {
            Image(self::Image { file, .. })
            | Video(self::Video { file, .. })
            | Audio(self::Audio { file, .. })
            | Document(self::Document { file, .. })
            | Sticker(self::Sticker { file }) => vec![("file".to_owned(), file)],
            Album(album) => album.files.iter().enumerate().map(|(i, file)| (format!("files[{i}]"), file)).collect(),
            Buttons(self::Buttons { header: Some(header), .. }) | Flow(self::Flow { header: Some(header), .. }) => {
                header.file().map(|file| ("header.file".to_owned(), file)).into_iter().collect()
            }
            Cards(cards) => cards
                .cards
                .iter()
                .enumerate()
                .filter_map(|(i, card)| Some((format!("cards[{i}].image"), card.image.as_ref()?)))
                .collect(),
            Template(template) => {
                let own = template.header.as_ref().and_then(TemplateHeader::file);
                let cards =
                    template.cards.iter().enumerate().filter_map(|(i, card)| {
                        Some((format!("cards[{i}].header.file"), card.header.as_ref()?.file()?))
                    });
                own.map(|file| ("header.file".to_owned(), file)).into_iter().chain(cards).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Gives every text that a campaign may put a person's name into to `visit`, with the field it stands in.
    pub fn each_text(&mut self, visit: &mut dyn FnMut(&str, &mut String)) {
        use OutboundContent::*;
        fn optional(field: &str, text: &mut Option<String>, visit: &mut dyn FnMut(&str, &mut String)) {
            if let Some(text) = text {
                visit(field, text);
            }
        }
        match self {
            Text(text) => visit("text", &mut text.text),
            Template(template) => {
                for (index, value) in template.variables.iter_mut().enumerate() {
                    visit(&format!("variables[{index}]"), value);
                }
                for (name, value) in &mut template.named_variables {
                    visit(&format!("named_variables.{name}"), value);
                }
                if let Some(TemplateHeader::Text { text, .. }) = &mut template.header {
                    visit("header.text", text);
                }
                for (index, button) in template.buttons.iter_mut().enumerate() {
                    match button {
                        TemplateButton::Url { text, .. } => visit(&format!("buttons[{index}].text"), text),
                        TemplateButton::QuickReply { payload, .. } => {
                            visit(&format!("buttons[{index}].payload"), payload)
                        }
                        TemplateButton::CopyCode { code, .. } => visit(&format!("buttons[{index}].code"), code),
                        _ => {}
                    }
                }
            }
            Image(image) => optional("caption", &mut image.caption, visit),
            Video(video) => optional("caption", &mut video.caption, visit),
            Document(document) => optional("caption", &mut document.caption, visit),
            Album(album) => optional("text", &mut album.text, visit),
            Buttons(buttons) => visit("text", &mut buttons.text),
            List(list) => visit("text", &mut list.text),
            Flow(flow) => visit("text", &mut flow.text),
            Product(product) => optional("text", &mut product.text, visit),
            ProductList(products) => visit("text", &mut products.text),
            Catalog(catalog) => visit("text", &mut catalog.text),
            LocationRequest(request) => visit("text", &mut request.text),
            ContactRequest(request) => visit("text", &mut request.text),
            Audio(_) | Sticker(_) | Location(_) | Contacts(_) | Cards(_) | Reaction(_) | Heart(_) | Post(_) => {}
        }
    }
}

impl Header {
    /// Its file.
    pub fn file(&self) -> Option<&FileRef> {
        match self {
            Header::Image { file } | Header::Video { file } | Header::Document { file, .. } => Some(file),
            Header::Text { .. } => None,
        }
    }
}

impl TemplateHeader {
    /// Its file.
    pub fn file(&self) -> Option<&FileRef> {
        match self {
            TemplateHeader::Image { file } | TemplateHeader::Video { file } | TemplateHeader::Document { file, .. } => {
                Some(file)
            }
            TemplateHeader::Text { .. } | TemplateHeader::Location { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<OutboundContent, (String, String)> {
        let Value::Object(fields) = value else { panic!("an object") };
        OutboundContent::read(fields).map_err(|unreadable| (unreadable.path, unreadable.error.to_string()))
    }

    #[test]
    fn what_earlier_releases_stored_is_read() {
        for stored in [
            json!({"type": "text", "text": "Hello", "preview_url": true}),
            json!({"type": "template", "name": "reminder", "language": "en_US", "variables": ["Ada"]}),
        ] {
            let content: OutboundContent = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(serde_json::to_value(&content).unwrap(), stored, "and written as before");
            assert_eq!(read(stored), Ok(content));
        }
    }

    #[test]
    fn every_type_has_its_name() {
        for name in OutboundContent::TYPES {
            let problem = read(json!({"type": name, "unheard_of": 1})).unwrap_err();
            assert!(problem.1.contains("unheard_of") || problem.1.contains("missing field"), "{name}: {problem:?}");
        }
        let content = read(json!({"type": "heart"})).unwrap();
        assert_eq!((content.type_name(), serde_json::to_value(&content).unwrap()), ("heart", json!({"type": "heart"})));
    }

    #[test]
    fn a_problem_names_its_place() {
        for (value, path, words) in [
            (json!({}), "type", "is needed: one of text, template"),
            (json!({"type": 7}), "type", "must be a text"),
            (json!({"type": "carrier_pigeon"}), "type", "must be one of text"),
            (json!({"type": "text"}), ".", "missing field `text`"),
            (json!({"type": "text", "text": 7}), "text", "invalid type"),
            (
                json!({"type": "list", "text": "x", "button": "y", "sections": [{"rows": [{"id": 7}]}]}),
                "sections[0].rows[0].id",
                "invalid type",
            ),
        ] {
            let (found, error) = read(value).unwrap_err();
            assert!(found == path && error.contains(words), "{found}: {error}");
        }
    }

    #[test]
    fn files_are_found_wherever_they_stand() {
        let fields =
            |value| -> Vec<String> { read(value).unwrap().files().into_iter().map(|(field, _)| field).collect() };
        let file = || json!({"link": "https://files.shop.example/a"});
        for (value, expected) in [
            (json!({"type": "image", "file": file()}), &["file"] as &[_]),
            (json!({"type": "album", "files": [file(), file()]}), &["files[0]", "files[1]"]),
            (
                json!({"type": "buttons", "text": "x", "header": {"type": "image", "file": file()}, "buttons": []}),
                &["header.file"],
            ),
            (json!({"type": "cards", "cards": [{"title": "a"}, {"title": "b", "image": file()}]}), &["cards[1].image"]),
            (
                json!({"type": "template", "name": "n", "language": "en", "header": {"type": "video", "file": file()},
                    "cards": [{"header": {"type": "image", "file": file()}}]}),
                &["header.file", "cards[0].header.file"],
            ),
            (json!({"type": "text", "text": "x"}), &[]),
        ] {
            assert_eq!(fields(value), expected);
        }
    }
}
