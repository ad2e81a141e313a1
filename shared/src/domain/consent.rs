//! Whether a person wants to be written to: for what, and how they say so.

use super::channel::Channel;
use serde::{Deserialize, Serialize};

/// What a person may not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Campaigns and whatever else advertises.
    Marketing,
    /// Anything at all, an agent's answer included: the provider or the law refuses it.
    All,
}

impl Purpose {
    /// All purposes.
    pub const ALL: &'static [Purpose] = &[Purpose::Marketing, Purpose::All];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Marketing => "marketing",
            Purpose::All => "all",
        }
    }

    /// The purpose of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|purpose| purpose.as_str() == name)
    }

    /// What a word like STOP or START is about on a channel. After STOP carriers refuse everything (providers/twilio section 11);
    /// elsewhere people end what is sent to many and are answered when they write. START is about whatever had ended, by whomever; but
    /// what was only tapped may be the word of a menu.
    pub fn of_keyword(channel: Channel, said: Consent, tapped: bool) -> &'static [Self] {
        match (said, channel) {
            (Consent::OptedIn, _) if !tapped => Self::ALL,
            (_, Channel::Sms) => &[Purpose::All],
            (_, Channel::Whatsapp | Channel::Messenger | Channel::Instagram) => &[Purpose::Marketing],
        }
    }
}

/// Whether a person wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Not any more.
    OptedOut,
    /// Again, or explicitly.
    OptedIn,
}

impl Consent {
    /// Both.
    pub const ALL: &'static [Consent] = &[Consent::OptedOut, Consent::OptedIn];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|consent| consent.as_str() == name)
    }

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Consent::OptedOut => "opted_out",
            Consent::OptedIn => "opted_in",
        }
    }
}

/// Words that carriers and Twilio take for the end of everything (providers/twilio section 11), but that people also use for other
/// things, as to leave a menu: they count in text messages alone.
const OUT_OF_TEXT_MESSAGES: &[&str] =
    &["end", "quit", "cancel", "revoke", "cancelar", "annulla", "ret", "alto", "parar"];

/// Words that end it, alone in a message, whatever their case, in the languages of people who get campaigns.
const OUT: &[&str] = &[
    // en
    "stop",
    "stopall",
    "unsubscribe",
    "optout",
    "opt out",
    "opt-out",
    "stop all",
    // de
    "stopp",
    "abmelden",
    "abbestellen",
    "austragen",
    // fr
    "arret",
    "arrêt",
    "desabonner",
    "désabonner",
    "désinscription",
    "desinscription",
    "stop pub",
    // es
    "baja",
    "darse de baja",
    // pt
    "sair",
    "remover",
    "descadastrar",
    // it
    "disiscrivimi",
    "cancellami",
    // nl
    "afmelden",
    "uitschrijven",
    // pl
    "wypisz",
    "rezygnuję",
    "rezygnuje",
    // tr
    "iptal",
    // ru, uk
    "стоп",
    "отписаться",
    "відписатися",
    // ar, he, hi
    "توقف",
    "إيقاف",
    "הסר",
    "रोकें",
    // id, ms
    "berhenti",
    // ja, zh
    "停止",
    "配信停止",
    "退订",
    "退訂",
    "取消订阅",
];

/// Words that begin it again.
const IN: &[&str] = &[
    "start",
    "unstop",
    "subscribe",
    "optin",
    "opt in",
    "opt-in",
    "resume", // en
    "anmelden",
    "starten", // de
    "abonner",
    "reprendre", // fr
    "alta",
    "suscribir", // es
    "voltar",
    "inscrever", // pt
    "iscrivimi", // it
    "aanmelden", // nl
    "старт",
    "подписаться", // ru
    "ابدأ",        // ar
    "開始",
    "订阅",
    "訂閱", // ja, zh
];

/// What the words of a message on this channel say about consent, if the message is such a word and nothing else.
pub fn keyword(channel: Channel, text: &str) -> Option<Consent> {
    let end = |c: char| c.is_whitespace() || matches!(c, '.' | '!' | '"' | '\'' | '„' | '“' | '”' | '。' | '！');
    let word = text.trim_matches(end);
    // No such word is longer; most messages are.
    if word.is_empty() || word.len() > 40 {
        return None;
    }
    let word = word.to_lowercase();
    match () {
        () if OUT.contains(&word.as_str()) => Some(Consent::OptedOut),
        () if channel == Channel::Sms && OUT_OF_TEXT_MESSAGES.contains(&word.as_str()) => Some(Consent::OptedOut),
        () if IN.contains(&word.as_str()) => Some(Consent::OptedIn),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_about_everything_where_it_is_written_and_stop_about_what_the_channel_says() {
        use Consent::{OptedIn, OptedOut};
        for channel in [Channel::Whatsapp, Channel::Messenger, Channel::Instagram] {
            assert_eq!(Purpose::of_keyword(channel, OptedIn, false), Purpose::ALL);
            assert_eq!(Purpose::of_keyword(channel, OptedIn, true), [Purpose::Marketing], "it may be a menu's");
            assert_eq!(Purpose::of_keyword(channel, OptedOut, false), [Purpose::Marketing]);
        }
        assert_eq!(Purpose::of_keyword(Channel::Sms, OptedIn, false), Purpose::ALL);
        assert_eq!(Purpose::of_keyword(Channel::Sms, OptedOut, false), [Purpose::All]);
    }

    #[test]
    fn a_word_alone_says_it_and_a_sentence_does_not() {
        for text in ["STOP", " stop. ", "Stop!", "\"stop\"", "Arrêt", "СТОП", "退订", "opt out", "ABMELDEN"] {
            assert_eq!(keyword(Channel::Whatsapp, text), Some(Consent::OptedOut), "{text}");
        }
        for text in ["START", "unstop", "Alta", "старт"] {
            assert_eq!(keyword(Channel::Whatsapp, text), Some(Consent::OptedIn), "{text}");
        }
        for text in ["", ".", "please stop by tomorrow", "nonstop", "stop it", "yes", "ende", "fin", "stop\nstop"] {
            assert_eq!(keyword(Channel::Whatsapp, text), None, "{text}");
        }
        for text in ["Cancel", "END"] {
            assert_eq!(keyword(Channel::Sms, text), Some(Consent::OptedOut), "{text}");
            assert_eq!(keyword(Channel::Messenger, text), None, "{text}: it may leave a menu");
        }
    }

    #[test]
    fn every_word_is_in_one_list_and_written_as_it_is_looked_for() {
        for word in OUT.iter().chain(OUT_OF_TEXT_MESSAGES).chain(IN) {
            assert_eq!(word.to_lowercase(), **word);
            let lists = [OUT, OUT_OF_TEXT_MESSAGES, IN].iter().filter(|list| list.contains(word)).count();
            assert!(word.len() <= 40 && lists == 1, "{word}");
        }
    }
}
