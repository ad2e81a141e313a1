//! What people do towards a Page, and what the Page hears of itself: one shape for each, as the contract page prints it
//! (messenger contract page, section 2).

use super::messaging::{self, Moment, attachment};
use serde_json::{Value, json};

/// The app whose webhooks these are.
pub const APP_ID: u64 = 500_100_000_000_009;
const LIKE: u64 = 369_239_263_222_822;

super::kinds! {
    /// Everything the contract page documents as arriving from Messenger by webhook, and what integrators have seen.
    Kind {
        Text = "text",
        Quote = "quote",
        QuickReply = "quick_reply",
        PhoneReply = "phone_reply",
        Image = "image",
        Images = "images",
        ImageWithText = "image_with_text",
        Video = "video",
        Audio = "audio",
        File = "file",
        Sticker = "sticker",
        Like = "like",
        OldSticker = "old_sticker",
        Link = "link",
        BareLink = "bare_link",
        Reel = "reel",
        Post = "post",
        Location = "location",
        Products = "products",
        Booking = "booking",
        AdReply = "ad_reply",
        ShopQuestion = "shop_question",
        Command = "command",
        Postback = "postback",
        PostbackOfOthers = "postback_of_others",
        FirstPostback = "first_postback",
        Standby = "standby",
        Unheard = "unheard",
        // From here on no message with an id of its own of a person.
        Echo = "echo",
        EchoOfOthers = "echo_of_others",
        EchoOfInbox = "echo_of_inbox",
        EchoOfFile = "echo_of_file",
        EchoOfTemplate = "echo_of_template",
        Edit = "edit",
        Reaction = "reaction",
        ReactionRemoved = "reaction_removed",
        Deleted = "deleted",
        Delivery = "delivery",
        BareDelivery = "bare_delivery",
        Read = "read",
        Referral = "referral",
        AdReferral = "ad_referral",
        OptIn = "opt_in",
        TopicStopped = "topic_stopped",
        TopicResumed = "topic_resumed",
        PluginOptIn = "plugin_opt_in",
        ThreadPassed = "thread_passed",
        ThreadTaken = "thread_taken",
        ThreadRequested = "thread_requested",
        AppRoles = "app_roles",
        Policy = "policy",
        AccountLinked = "account_linked",
        Feedback = "feedback",
        ResponseFeedback = "response_feedback",
        Cart = "cart",
        GamePlay = "game_play",
        EmptyEntry = "empty_entry",
        PageChange = "page_change",
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
                | Self::QuickReply
                | Self::ImageWithText
                | Self::AdReply
                | Self::ShopQuestion
                | Self::Command
                | Self::Standby
        )
    }

    /// Whether it is about the account's own messages: they have to exist.
    pub(super) fn is_status(self) -> bool {
        matches!(self, Self::Delivery | Self::BareDelivery | Self::Read)
    }
}

/// The whole webhook for these happenings.
pub(super) fn webhook(moments: &[(Kind, Moment<'_>)]) -> Value {
    let Some((first, moment)) = moments.first() else { return json!({"object": "page", "entry": []}) };
    let (account, at_ms) = (moment.account, moment.at_ms);
    match first {
        Kind::EmptyEntry => return json!({"object": "page", "entry": [{"id": account.id, "time": at_ms}]}),
        Kind::PageChange => {
            return json!({"object": "page", "entry": [{"id": account.id, "time": at_ms / 1000,
                "changes": [{"field": "feed", "value": {"item": "status", "verb": "add", "post_id": "1_2", "message": "New hours"}}]}]});
        }
        _ => {}
    }
    let list = |kind: Kind| if kind == Kind::Standby { "standby" } else { "messaging" };
    let events = moments.iter().map(|(kind, moment)| (list(*kind), event(*kind, moment)));
    if moments.len() > 1 && at_ms % 3 == 0 && moments.iter().all(|(kind, _)| *kind != Kind::Standby) {
        return messaging::webhook_in_one_entry("page", account, events.map(|(_, event)| event).collect(), at_ms);
    }
    messaging::webhook("page", account, events.collect(), at_ms)
}

/// One element of `messaging[]` or `standby[]`.
fn event(kind: Kind, moment: &Moment<'_>) -> Value {
    let text = moment.text;
    let cdn = |name: &str| json!({"url": format!("https://scontent.example/{}/{name}", moment.at_ms)});
    let ad = || {
        json!({"ref": "autumn", "ad_id": "6045246247433", "source": "ADS", "type": "OPEN_THREAD",
            "ads_context_data": {"ad_title": "Autumn teas", "photo_url": "https://scontent.example/ad.jpg", "post_id": "77"}})
    };
    match kind {
        Kind::Text | Kind::Standby => moment.message(json!({"text": text})),
        Kind::Quote => moment.message(json!({"text": text, "reply_to": {"mid": moment.about}})),
        Kind::QuickReply => moment.message(json!({"text": text, "quick_reply": {"payload": "COLOR_GREEN"}})),
        Kind::PhoneReply => {
            moment.message(json!({"text": "+15557770142", "quick_reply": {"payload": "+15557770142"}}))
        }
        Kind::Image => moment.attachment("image", Some(cdn("one.jpg"))),
        Kind::Images => moment.message(json!({"attachments":
            [attachment("image", Some(cdn("one.jpg"))), attachment("image", Some(cdn("two.jpg"))), attachment("video", Some(cdn("three.mp4")))]})),
        Kind::ImageWithText => {
            moment.message(json!({"text": text, "attachments": [attachment("image", Some(cdn("one.jpg")))]}))
        }
        Kind::Video => moment.attachment("video", Some(cdn("clip.mp4"))),
        Kind::Audio => moment.attachment("audio", Some(cdn("note.mp4"))),
        Kind::File => moment.attachment("file", Some(cdn("contract.pdf"))),
        Kind::Sticker => moment.attachment(
            "sticker",
            Some(json!({"url": "https://scontent.example/s.png", "sticker_id": 144_885_189_040_003_u64})),
        ),
        Kind::Like => {
            moment.attachment("sticker", Some(json!({"url": "https://scontent.example/l.png", "sticker_id": LIKE})))
        }
        Kind::OldSticker => {
            let payload = json!({"url": "https://scontent.example/s.png", "sticker_id": LIKE});
            moment.message(json!({"attachments":
                [attachment("image", Some(payload.clone())), attachment("sticker", Some(payload))], "sticker_id": LIKE}))
        }
        Kind::Link => {
            moment.attachment("fallback", Some(json!({"url": "https://shop.example/t/77", "title": "Teas of autumn"})))
        }
        Kind::BareLink => moment.message(
            json!({"attachments": [{"type": "fallback", "payload": null, "title": "A page", "url": "/l.php?u=x"}]}),
        ),
        Kind::Reel => moment.attachment(
            "ig_reel",
            Some(
                json!({"url": "https://scontent.example/r.mp4", "title": "How we brew", "reel_video_id": "18000000000000077"}),
            ),
        ),
        Kind::Post => {
            moment.attachment("post", Some(json!({"url": "https://scontent.example/p.jpg", "title": "New drop", "id": "12"})))
        }
        Kind::Location => moment.attachment(
            "location",
            Some(json!({"coordinates": {"lat": 41.38792, "long": 2.16992}})),
        ),
        Kind::Products => moment.attachment(
            "template",
            Some(json!({"product": {"elements": [{"id": "9001", "retailer_id": "tea-green-100",
                "image_url": "https://scontent.example/t.jpg", "title": "Green tea", "subtitle": "7.50 EUR"}]}})),
        ),
        Kind::Booking => moment.attachment(
            "appointment_booking",
            Some(json!({"booking_id": "b-1", "status": "PENDING", "start_time": 1_794_920_400, "end_time": 1_794_924_000,
                "timezone": "Europe/Oslo"})),
        ),
        Kind::AdReply => moment.message(json!({"text": text, "referral": ad()})),
        Kind::ShopQuestion => moment.message(json!({"text": text, "referral": {"product": {"id": "9001"}}})),
        Kind::Command => moment.message(json!({"text": text, "commands": [{"name": "hours"}]})),
        Kind::Postback => {
            moment.by_person("postback", json!({"mid": moment.id, "title": "Opening hours", "payload": "HOURS"}))
        }
        Kind::PostbackOfOthers => {
            moment.by_person("postback", json!({"mid": moment.id, "title": "Talk to us"}))
        }
        Kind::FirstPostback => moment.by_person(
            "postback",
            json!({"mid": moment.id, "title": "Get Started", "payload": "GET_STARTED",
                "referral": {"ref": "flyer-12", "source": "SHORTLINK", "type": "OPEN_THREAD"}}),
        ),
        Kind::Unheard => moment.attachment("hologram", Some(json!({"depth": 3}))),
        Kind::Echo => {
            moment.echo(json!({"app_id": APP_ID, "metadata": format!("outbox:{}", moment.id), "text": text}))
        }
        Kind::EchoOfOthers => moment.echo(json!({"app_id": 263_902_037_430_900_u64, "text": text})),
        Kind::EchoOfInbox => moment.echo(json!({"text": text})),
        Kind::EchoOfFile => {
            moment.echo(json!({"app_id": 77, "attachments": [attachment("image", Some(json!({"attachment_id": "770000000000031"})))]}))
        }
        Kind::EchoOfTemplate => moment.echo(json!({"app_id": 77, "attachments": [{"type": "template", "title": "Green tea",
            "payload": {"template_type": "generic", "elements": [{"title": "Green tea", "subtitle": "7.50 EUR"}]}}]})),
        Kind::Edit => {
            moment.by_person("message_edit", json!({"mid": moment.about, "text": text, "num_edit": moment.nth_edit}))
        }
        Kind::Reaction => moment.by_person(
            "reaction",
            json!({"reaction": "love", "emoji": "❤", "action": "react", "mid": moment.about}),
        ),
        Kind::ReactionRemoved => moment.by_person("reaction", json!({"action": "unreact", "mid": moment.about})),
        Kind::Deleted => moment.by_person("message", json!({"mid": moment.about, "is_deleted": true})),
        Kind::Delivery => moment
            .by_person("delivery", json!({"mids": [moment.about], "watermark": moment.watermark_ms, "seq": 37})),
        Kind::BareDelivery => moment.by_person("delivery", json!({"watermark": moment.watermark_ms})),
        Kind::Read => moment.by_person("read", json!({"watermark": moment.watermark_ms})),
        Kind::Referral => moment
            .by_person("referral", json!({"ref": "flyer-12", "source": "SHORTLINK", "type": "OPEN_THREAD"})),
        Kind::AdReferral => moment.by_person("referral", ad()),
        Kind::OptIn => moment.by_person(
            "optin",
            json!({"type": "notification_messages", "payload": "weekly-deals", "notification_messages_token": "90110022003300",
                "notification_messages_timezone": "Europe/Oslo", "token_expiry_timestamp": 1_826_366_400_000_u64,
                "user_token_status": "NOT_REFRESHED", "title": "Weekly deals"}),
        ),
        Kind::TopicStopped => topic(moment, "STOP NOTIFICATIONS"),
        Kind::TopicResumed => topic(moment, "RESUME NOTIFICATIONS"),
        Kind::PluginOptIn => {
            let mut event = moment.of_account("optin", json!({"ref": "checkout", "user_ref": format!("ref-{}", moment.person)}));
            event["sender"] = json!({"user_ref": format!("ref-{}", moment.person)});
            event
        }
        Kind::ThreadPassed => moment.by_person(
            "pass_thread_control",
            json!({"previous_owner_app_id": APP_ID.to_string(), "new_owner_app_id": "263902037430900", "metadata": "needs human"}),
        ),
        Kind::ThreadTaken => moment.by_person(
            "take_thread_control",
            json!({"previous_owner_app_id": "263902037430900", "new_owner_app_id": APP_ID.to_string(), "metadata": ""}),
        ),
        Kind::ThreadRequested => moment.by_person(
            "request_thread_control",
            json!({"requested_owner_app_id": "263902037430900", "metadata": "me"}),
        ),
        Kind::AppRoles => moment.of_account("app_roles", json!({APP_ID.to_string(): ["primary_receiver"]})),
        Kind::Policy => moment.of_account(
            "policy_enforcement",
            json!({"action": "warning", "reason": "The Page sent messages that people reported."}),
        ),
        Kind::AccountLinked => {
            moment.by_person("account_linking", json!({"status": "linked", "authorization_code": "a-1"}))
        }
        Kind::Feedback => moment.by_person(
            "messaging_feedback",
            json!({"feedback_screens": [{"screen_id": 0, "questions": {"q1": {"type": "csat", "payload": "4",
                "follow_up": {"type": "free_form", "payload": "Quick and kind"}}}}]}),
        ),
        Kind::ResponseFeedback => {
            moment.by_person("response_feedback", json!({"feedback": "Good response", "mid": moment.about}))
        }
        Kind::Cart => moment.by_person(
            "order",
            json!({"products": [{"retailer_id": "tea-green-100", "quantity": 2, "unit_price": 7.5, "currency": "EUR"}],
                "note": "please gift-wrap", "source": "catalog"}),
        ),
        Kind::GamePlay => moment.by_person("game_play", json!({"game_id": "g-1", "player_id": "p-1", "score": 12})),
        Kind::EmptyEntry | Kind::PageChange | Kind::UnheardEvent => {
            moment.by_person("event_of_tomorrow", json!({"shape": ["unknown", 1, null]}))
        }
    }
}

fn topic(moment: &Moment<'_>, status: &str) -> Value {
    moment.by_person(
        "optin",
        json!({"type": "notification_messages", "payload": "weekly-deals", "notification_messages_token": "90110022003300",
            "notification_messages_status": status, "title": "Weekly deals"}),
    )
}
