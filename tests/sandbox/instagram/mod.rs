//! What people do towards a professional account, as the contract page prints it (instagram contract page, section 2).
//! There are no delivery receipts, and echoes come with the messages.

use super::messaging::{self, Moment, attachment};
use serde_json::{Value, json};

super::kinds! {
    /// Everything the contract page documents as arriving from Instagram by webhook, and what integrators have seen.
    Kind {
        Text = "text",
        Quote = "quote",
        StoryReply = "story_reply",
        ExpiredStoryReply = "expired_story_reply",
        QuickReply = "quick_reply",
        Image = "image",
        Images = "images",
        Video = "video",
        Audio = "audio",
        File = "file",
        StoryMention = "story_mention",
        Post = "post",
        Share = "share",
        Reel = "reel",
        Story = "story",
        LikeHeart = "like_heart",
        Ephemeral = "ephemeral",
        Template = "template",
        ShopQuestion = "shop_question",
        AdReply = "ad_reply",
        Unsupported = "unsupported",
        Postback = "postback",
        FirstPostback = "first_postback",
        Standby = "standby",
        Unheard = "unheard",
        // From here on no message with an id of its own of a person.
        Echo = "echo",
        EchoOfApp = "echo_of_app",
        Note = "note",
        BarePostback = "bare_postback",
        Edit = "edit",
        Reaction = "reaction",
        ReactionRemoved = "reaction_removed",
        Deleted = "deleted",
        Read = "read",
        Referral = "referral",
        OptIn = "opt_in",
        Comment = "comment",
        CommentOfLogin = "comment_of_login",
        ThreadPassed = "thread_passed",
        EmptyEntry = "empty_entry",
        UnheardEvent = "unheard_event",
    }
}

impl Kind {
    /// Whether it is a message of a person with an id of its own.
    pub fn is_message(self) -> bool {
        self < Self::Echo
    }

    /// Whether its text is the person's own and comes as it was written.
    pub fn carries_text(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Quote
                | Self::StoryReply
                | Self::ExpiredStoryReply
                | Self::QuickReply
                | Self::ShopQuestion
                | Self::AdReply
                | Self::Standby
        )
    }

    /// Whether it is about the account's own messages: they have to exist.
    pub(super) fn is_status(self) -> bool {
        self == Self::Read
    }
}

/// The whole webhook for these happenings.
pub(super) fn webhook(moments: &[(Kind, Moment<'_>)]) -> Value {
    let Some((first, moment)) = moments.first() else { return json!({"object": "instagram", "entry": []}) };
    let (account, at_ms) = (moment.account, moment.at_ms);
    let comment = || {
        json!({"id": comment_id(at_ms), "text": moment.text,
            "from": {"id": moment.person, "username": "ring.fan"},
            "media": {"id": "18000000000000099", "media_product_type": "FEED"}})
    };
    let alone = |mut entry: Value| {
        entry["id"] = json!(account.id);
        json!({"object": "instagram", "entry": [entry]})
    };
    match first {
        Kind::EmptyEntry => return alone(json!({"time": at_ms})),
        Kind::Comment => {
            return alone(json!({"time": at_ms / 1000, "changes": [{"field": "comments", "value": comment()}]}));
        }
        Kind::CommentOfLogin => {
            return alone(json!({"time": at_ms / 1000, "field": "comments", "value": comment()}));
        }
        _ => {}
    }
    let list = |kind: Kind| if kind == Kind::Standby { "standby" } else { "messaging" };
    let events = moments.iter().map(|(kind, moment)| (list(*kind), event(*kind, moment)));
    if moments.len() > 1 && at_ms % 3 == 0 && moments.iter().all(|(kind, _)| *kind != Kind::Standby) {
        return messaging::webhook_in_one_entry("instagram", account, events.map(|(_, event)| event).collect(), at_ms);
    }
    messaging::webhook("instagram", account, events.collect(), at_ms)
}

/// The id of the comment that was written then.
pub fn comment_id(at_ms: i64) -> String {
    format!("179{:014}", at_ms % 100_000_000_000_000)
}

/// One element of `messaging[]` or `standby[]`.
fn event(kind: Kind, moment: &Moment<'_>) -> Value {
    let text = moment.text;
    let cdn = |asset: u32| json!({"url": format!("https://lookaside.fbsbx.com/ig_messaging_cdn/?asset_id={}{asset}&signature=x", moment.at_ms)});
    match kind {
        Kind::Text | Kind::Standby => moment.message(json!({"text": text})),
        Kind::Quote => moment.message(json!({"text": text, "reply_to": {"mid": moment.about}})),
        Kind::StoryReply => moment.message(json!({"text": text, "reply_to": {"story": {"id": "18000000000000012",
            "url": "https://lookaside.fbsbx.com/ig_messaging_cdn/?asset_id=18000000000000012"}}})),
        Kind::ExpiredStoryReply => {
            moment.message(json!({"text": text, "reply_to": {"story": {"id": "18000000000000013"}}}))
        }
        Kind::QuickReply => moment.message(json!({"text": text, "quick_reply": {"payload": "METAL_AG"}})),
        Kind::Image => moment.attachment("image", Some(cdn(1))),
        Kind::Images => {
            let images: Vec<Value> = (1..=4).map(|asset| attachment("image", Some(cdn(asset)))).collect();
            moment.message(json!({"attachments": images}))
        }
        Kind::Video => moment.attachment("video", Some(cdn(1))),
        Kind::Audio => moment.attachment("audio", Some(cdn(1))),
        Kind::File => moment.attachment("file", Some(cdn(1))),
        Kind::StoryMention => moment.attachment("story_mention", Some(cdn(2))),
        Kind::Post => moment.attachment(
            "ig_post",
            Some(json!({"title": "New drop", "url": cdn(3)["url"], "ig_post_media_id": "18000000000000099"})),
        ),
        Kind::Share => moment.attachment("share", Some(cdn(4))),
        Kind::Reel => moment.attachment(
            "ig_reel",
            Some(json!({"url": cdn(5)["url"], "title": "How we cast", "reel_video_id": "18000000000000098"})),
        ),
        Kind::Story => moment.attachment("ig_story", Some(cdn(6))),
        Kind::LikeHeart => moment.attachment("like_heart", None),
        Kind::Ephemeral => moment.attachment("ephemeral", None),
        Kind::Template => moment.attachment(
            "template",
            Some(json!({"generic": {"elements": [{"title": "Silver ring", "subtitle": "48 EUR"}]}})),
        ),
        Kind::ShopQuestion => moment.message(json!({"text": text, "referral": {"product": {"id": "9001"}}})),
        Kind::AdReply => moment.message(json!({"text": text, "referral": {"ref": "autumn", "ad_id": "6045246247433",
            "source": "ADS", "type": "OPEN_THREAD", "ads_context_data": {"ad_title": "Rings", "photo_url":
            "https://scontent.example/ad.jpg", "post_id": "77"}}})),
        Kind::Unsupported => moment.message(json!({"is_unsupported": true})),
        Kind::Postback => {
            moment.by_person("postback", json!({"mid": moment.id, "title": "Opening hours", "payload": "HOURS"}))
        }
        Kind::FirstPostback => moment.by_person(
            "postback",
            json!({"mid": moment.id, "title": "Prices", "payload": "PRICES",
                "referral": {"ref": "bio-link", "source": "SHORTLINKS", "type": "OPEN_THREAD"}}),
        ),
        Kind::BarePostback => moment.by_person("postback", json!({"title": "Opening hours", "payload": "HOURS"})),
        Kind::Unheard => moment.attachment("hologram", Some(json!({"depth": 3}))),
        Kind::Echo => moment.echo(json!({"text": text})),
        Kind::EchoOfApp => moment.echo(json!({"text": text, "app_id": super::messenger::APP_ID})),
        // What an account sends to itself.
        Kind::Note => {
            let mut note = moment.by_account("message", json!({"mid": moment.id, "text": text, "is_echo": true, "is_self": true}));
            note["recipient"] = json!({"id": moment.account.id});
            note
        }
        Kind::Edit => {
            moment.by_person("message_edit", json!({"mid": moment.about, "text": text, "num_edit": moment.nth_edit}))
        }
        Kind::Reaction => moment.by_person(
            "reaction",
            json!({"mid": moment.about, "action": "react", "reaction": "love", "emoji": "❤"}),
        ),
        Kind::ReactionRemoved => moment.by_person("reaction", json!({"mid": moment.about, "action": "unreact"})),
        Kind::Deleted => moment.by_person("message", json!({"mid": moment.about, "is_deleted": true})),
        Kind::Read => moment.by_person("read", json!({"mid": moment.about})),
        Kind::Referral => moment
            .by_person("referral", json!({"ref": "bio-link", "source": "SHORTLINKS", "type": "OPEN_THREAD"})),
        Kind::OptIn => moment.by_person(
            "optin",
            json!({"type": "notification_messages", "payload": "weekly-deals", "notification_messages_token": "90110022003300",
                "token_expiry_timestamp": 1_826_366_400_000_u64, "user_token_status": "NOT_REFRESHED", "title": "Weekly deals"}),
        ),
        Kind::ThreadPassed => moment.by_person(
            "pass_thread_control",
            json!({"previous_owner_app_id": "1217981644879628", "new_owner_app_id": "263902037430900", "metadata": ""}),
        ),
        Kind::EmptyEntry | Kind::Comment | Kind::CommentOfLogin | Kind::UnheardEvent => {
            moment.by_person("event_of_tomorrow", json!({"shape": ["unknown", 1, null]}))
        }
    }
}
