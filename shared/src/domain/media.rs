//! Files of messages: their states, how large they may be, how long they may be kept, and what is made of a file that is not what
//! its sender says.

use super::{
    channel::Channel,
    ids::{MediaId, TenantId},
    messages::MessageKind,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Where a file stands. `waiting` leads to any of the others, which are final, but that what is `stored` expires where it may not
/// be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaState {
    /// It is to be fetched.
    Waiting,
    /// We have it.
    Stored,
    /// Its provider would not give it to us, however often we asked.
    Failed,
    /// We do not want it: it is dangerous, too large, or lies where nothing of ours may go.
    Refused,
    /// It is no longer to be had from its provider, or may no longer be kept.
    Expired,
}

impl MediaState {
    /// All of them.
    pub const ALL: &'static [MediaState] =
        &[MediaState::Waiting, MediaState::Stored, MediaState::Failed, MediaState::Refused, MediaState::Expired];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaState::Waiting => "waiting",
            MediaState::Stored => "stored",
            MediaState::Failed => "failed",
            MediaState::Refused => "refused",
            MediaState::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }
}

/// Until when a file of such a message may be kept; `None`: for as long as the message. What belongs to an Instagram story goes with
/// it, after 24 hours (providers/instagram section 2.1).
pub fn keep_until(channel: Channel, kind: MessageKind, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let of_a_story = matches!(kind, MessageKind::StoryMention | MessageKind::StoryReply);
    (channel == Channel::Instagram && of_a_story).then(|| at + TimeDelta::hours(24))
}

const MIB: u64 = 1024 * 1024;

/// How large a file of such a message may be. What providers let people send, with room for what they do not say: a file is
/// turned away because it would never end, not because it is a little larger than we thought.
///
/// WhatsApp: documents up to 100 MB, pictures 5, films and recordings 16, stickers 0.5 (providers/whatsapp section 9). Messenger and
/// Instagram: 25 MB (providers/instagram section 3.1). MMS: 5 MB (providers/twilio section 12).
pub fn max_bytes(channel: Channel, kind: MessageKind) -> u64 {
    use MessageKind::*;
    match (channel, kind) {
        (Channel::Whatsapp, Image) => 16 * MIB,
        (Channel::Whatsapp, Sticker) => 2 * MIB,
        (Channel::Whatsapp, Audio | Video) => 32 * MIB,
        (Channel::Whatsapp, _) => 105 * MIB,
        (Channel::Messenger | Channel::Instagram, _) => 100 * MIB,
        (Channel::Sms, _) => 16 * MIB,
    }
}

/// The key in storage of what has this SHA-256: once for a tenant, and nobody else's.
pub fn object_key(tenant_id: TenantId, sha256: &[u8; 32]) -> String {
    let digest = hex::encode(sha256);
    format!("tenants/{}/{}/{digest}", tenant_id.0, &digest[..2])
}

/// The digest that a provider declared: 64 characters of hex, or base64 (providers/whatsapp section 3.1: both were seen).
pub fn declared_digest(text: &str) -> Option<[u8; 32]> {
    use base64::{Engine, engine::general_purpose};
    let text = text.trim();
    let bytes = match text.len() {
        64 => hex::decode(text).ok(),
        _ => [&general_purpose::STANDARD, &general_purpose::URL_SAFE, &general_purpose::STANDARD_NO_PAD]
            .into_iter()
            .find_map(|base64| base64.decode(text).ok()),
    };
    bytes?.try_into().ok()
}

/// So many of a file's first bytes say what it is.
pub const HEAD_BYTES: usize = 8 * 1024;

/// What is made of a file's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is stored as this.
    Store(String),
    /// It is dangerous: something that runs, in the clothes of something to look at.
    Refuse {
        /// What it says it is.
        declared: String,
        /// What it is.
        found: String,
    },
}

/// What a browser or a machine would run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Active {
    /// In a page: markup and scripts.
    Markup,
    /// On a machine.
    Program,
}

/// What a file is, from what is declared of it and its first bytes. What runs and is declared as something to look at, or to listen
/// to, is refused; any other disagreement is settled by the bytes.
pub fn judge(declared: Option<&str>, head: &[u8]) -> Judgement {
    let declared = declared.and_then(bare_type);
    let found = sniff(head);
    let shown = declared.as_deref().is_some_and(is_shown);
    match found.map(|found| (found, active(found))) {
        Some((found, Some(kind))) => {
            let honest = declared.as_deref().is_none_or(|declared| {
                declared == "application/octet-stream" || active(declared).is_some() || declared.starts_with("text/")
            });
            let dangerous = match kind {
                Active::Markup => shown,
                Active::Program => shown || !(honest || declared.as_deref().is_some_and(is_package)),
            };
            match declared {
                Some(declared) if dangerous => Judgement::Refuse { declared, found: found.to_owned() },
                _ => Judgement::Store(found.to_owned()),
            }
        }
        Some((found, None)) => match declared {
            // The bytes say the family, the declared type which of it.
            Some(declared) if is_of_family(found, &declared) => Judgement::Store(declared),
            _ => Judgement::Store(found.to_owned()),
        },
        // Bytes that no pattern knows are no picture, film or recording; of anything else we believe what is said.
        None => match declared {
            Some(declared) if !shown && active(&declared).is_none() => Judgement::Store(declared),
            _ => Judgement::Store("application/octet-stream".to_owned()),
        },
    }
}

/// `image/jpeg` of `Image/JPEG; q=1`; `None` if it is no type.
fn bare_type(text: &str) -> Option<String> {
    let bare = text.split(';').next()?.trim().to_ascii_lowercase();
    let (family, name) = bare.split_once('/')?;
    let plain = |part: &str| {
        (1..=100).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    (plain(family) && plain(name)).then_some(bare)
}

fn sniff(head: &[u8]) -> Option<&'static str> {
    if is_svg(head) {
        return Some("image/svg+xml");
    }
    infer::get(head).map(|found| found.mime_type())
}

/// Markup that draws: `infer` takes it for XML, or for nothing.
fn is_svg(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    text.starts_with('<') && text.contains("<svg")
}

fn active(content_type: &str) -> Option<Active> {
    match content_type {
        "text/html"
        | "application/xhtml+xml"
        | "image/svg+xml"
        | "text/xml"
        | "application/xml"
        | "text/javascript"
        | "application/javascript" => Some(Active::Markup),
        "text/x-shellscript"
        | "application/x-sh"
        | "application/x-executable"
        | "application/vnd.microsoft.portable-executable"
        | "application/x-msdownload"
        | "application/x-mach-binary"
        | "application/java"
        | "application/java-archive"
        | "application/vnd.android.dex"
        | "application/vnd.android.dey"
        | "application/llvm"
        | "application/wasm" => Some(Active::Program),
        _ => None,
    }
}

/// What is looked at, or listened to, as soon as it is there.
fn is_shown(content_type: &str) -> bool {
    let drawn = content_type == "image/svg+xml";
    !drawn && ["image/", "video/", "audio/"].iter().any(|family| content_type.starts_with(family))
        || content_type == "application/pdf"
}

fn is_package(content_type: &str) -> bool {
    ["application/x-", "application/vnd.android", "application/vnd.debian", "application/zip"]
        .iter()
        .any(|family| content_type.starts_with(family))
}

/// Containers whose first bytes do not say what is in them.
fn is_of_family(found: &str, declared: &str) -> bool {
    match found {
        "application/zip" => {
            declared.starts_with("application/") && declared != "application/octet-stream" && active(declared).is_none()
        }
        "video/mp4" | "video/quicktime" | "audio/m4a" => {
            ["audio/mp4", "video/mp4", "video/3gpp", "audio/3gpp"].contains(&declared)
        }
        "video/webm" | "video/x-matroska" => declared == "audio/webm" || declared == "video/webm",
        "audio/ogg" | "video/ogg" | "audio/opus" => {
            ["audio/ogg", "video/ogg", "audio/opus", "application/ogg"].contains(&declared)
        }
        "application/msword" | "application/x-ole-storage" => {
            declared.starts_with("application/vnd.ms-") || declared == "application/msword"
        }
        _ => false,
    }
}

/// Whether a browser may show it beside what else it shows: what cannot run anything. All else is only to be saved.
pub fn is_safe_inline(content_type: &str) -> bool {
    matches!(
        content_type,
        "image/jpeg"
            | "image/png"
            | "image/gif"
            | "image/webp"
            | "audio/aac"
            | "audio/amr"
            | "audio/mpeg"
            | "audio/mp4"
            | "audio/m4a"
            | "audio/ogg"
            | "audio/opus"
            | "audio/webm"
            | "audio/x-wav"
            | "audio/wav"
            | "video/mp4"
            | "video/3gpp"
            | "video/webm"
            | "video/ogg"
            | "video/quicktime"
    )
}

/// A picture of more pixels than this is stored, and none smaller is made of it: 16 million take 150 MB
/// while they are looked at, at worst.
pub const MOST_PIXELS_DRAWN: u64 = 16_000_000;
/// One of more pixels than this in so few bytes ...
const MOST_PIXELS_OF_A_BOMB: u64 = 50_000_000;
/// ... is made to fill the memory of who opens it. A photograph has 2 to 10 pixels a byte, a drawing some hundred.
const PIXELS_A_BYTE_OF_A_BOMB: u64 = 200;

/// Whether a picture is made to hurt who opens it.
pub fn is_bomb(width: u32, height: u32, size_bytes: u64) -> bool {
    let pixels = u64::from(width) * u64::from(height);
    pixels > MOST_PIXELS_OF_A_BOMB && pixels / size_bytes.max(1) > PIXELS_A_BYTE_OF_A_BOMB
}

/// A thing that a signed link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The file itself.
    File,
    /// A small picture of it.
    Thumbnail,
    /// A file that was uploaded to be sent.
    Upload,
    /// The picture of the contact who has this id.
    Avatar,
}

impl Linked {
    /// Its name in links.
    pub fn as_str(self) -> &'static str {
        match self {
            Linked::File => "file",
            Linked::Thumbnail => "thumbnail",
            Linked::Upload => "upload",
            Linked::Avatar => "avatar",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Linked::File, Linked::Thumbnail, Linked::Upload, Linked::Avatar]
            .into_iter()
            .find(|linked| linked.as_str() == name)
    }
}

/// What is signed of a link.
pub fn link_message(tenant_id: TenantId, id: MediaId, linked: Linked, expires: i64) -> String {
    format!("media link 1\n{}\n{}\n{}\n{expires}", tenant_id.0, id.0, linked.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";
    const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0";
    const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";

    #[test]
    fn files_are_what_their_bytes_say() {
        for (declared, head, expected) in [
            (Some("image/jpeg"), JPEG, "image/jpeg"),
            (Some("image/jpeg"), PNG, "image/png"),
            (Some("IMAGE/PNG; x=1"), PNG, "image/png"),
            (None, PNG, "image/png"),
            (Some("audio/mp4"), MP4, "audio/mp4"),
            (Some("image/jpeg"), MP4, "video/mp4"),
            (Some("application/vnd.oasis.opendocument.text"), ZIP, "application/vnd.oasis.opendocument.text"),
            (Some("image/png"), ZIP, "application/zip"),
            (Some("text/csv"), b"a,b\n1,2\n", "text/csv"),
            (Some("image/jpeg"), b"no picture at all", "application/octet-stream"),
            (Some("not a type"), b"hello", "application/octet-stream"),
            (None, b"hello", "application/octet-stream"),
            (Some("text/plain"), b"<html><script>1</script>", "text/html"),
            (Some("text/html"), b"<!doctype html><p>", "text/html"),
            (Some("application/octet-stream"), EXE, "application/vnd.microsoft.portable-executable"),
            (Some("image/svg+xml"), b"<svg xmlns='x'>", "image/svg+xml"),
        ] {
            assert_eq!(judge(declared, head), Judgement::Store(expected.to_owned()), "{declared:?} {head:?}");
        }
    }

    #[test]
    fn what_runs_in_the_clothes_of_a_picture_is_refused() {
        for (declared, head, found) in [
            ("image/jpeg", &b"  <!DOCTYPE html><script>alert(1)</script>"[..], "text/html"),
            ("image/png", b"\xef\xbb\xbf<?xml version='1.0'?><svg onload='x'>", "image/svg+xml"),
            ("image/png", b"<svg onload='x'>", "image/svg+xml"),
            ("video/mp4", b"<?xml version='1.0'?><a/>", "text/xml"),
            ("audio/ogg", b"#!/bin/sh\nrm -rf /", "text/x-shellscript"),
            ("image/gif", ELF, "application/x-executable"),
            ("application/pdf", EXE, "application/vnd.microsoft.portable-executable"),
            ("application/vnd.ms-excel", EXE, "application/vnd.microsoft.portable-executable"),
        ] {
            let refused = Judgement::Refuse { declared: declared.to_owned(), found: found.to_owned() };
            assert_eq!(judge(Some(declared), head), refused, "{declared}");
        }
    }

    #[test]
    fn nothing_that_runs_is_shown_inline() {
        for active in ["text/html", "image/svg+xml", "application/pdf", "text/plain", "application/wasm", "text/xml"] {
            assert!(!is_safe_inline(active), "{active}");
        }
        assert!(is_safe_inline("image/webp"));
    }

    #[test]
    fn digests_are_read_however_they_are_written() {
        let digest = [0xab; 32];
        for text in [hex::encode(digest), "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=".to_owned()] {
            assert_eq!(declared_digest(&text), Some(digest), "{text}");
        }
        assert_eq!(declared_digest("none"), None);
    }

    #[test]
    fn a_large_photograph_is_no_bomb() {
        assert!(!is_bomb(12_000, 9_000, 20 * MIB));
        assert!(!is_bomb(4_000, 4_000, 1024), "small enough to be drawn");
        assert!(is_bomb(50_000, 50_000, 2 * MIB));
    }

    #[test]
    fn a_story_is_kept_for_a_day_and_the_rest_for_as_long_as_its_message() {
        let at = DateTime::UNIX_EPOCH;
        assert_eq!(keep_until(Channel::Instagram, MessageKind::StoryMention, at), Some(at + TimeDelta::days(1)));
        assert_eq!(keep_until(Channel::Instagram, MessageKind::Image, at), None);
        assert_eq!(keep_until(Channel::Whatsapp, MessageKind::StoryReply, at), None);
    }
}
