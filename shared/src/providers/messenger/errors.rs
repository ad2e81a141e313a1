//! Messenger's error codes, as its contract's section 10 lists them, row by row: `(code, error_subcode)` counts, never the text or
//! the HTTP status.

use crate::providers::meta::refusal::{Product, Reaction, Row, row, rows, sub};

/// Messenger, as far as its answers go.
pub(super) const PRODUCT: Product = Product { name: "Messenger", codes: CODES };

/// Every code of the contract, in ascending order but for the last row. Behind each: the contract's reaction, and why ours differs.
pub const CODES: &[Row] = {
    use Reaction::*;
    &[
        sub(1, 1357046, Unclear, "Messenger reported a fault although it may have sent the message."), // do not resend; check echoes
        sub(1, 2018382, OurMistake, "The form's id is wrong."),                                        // BUG
        row(1, Unclear, "Messenger reported a fault and did not say whether it took the message."), // RETRY few, then BUG; "unknown error" leaves open what happened
        sub(2, 2018344, Refused, "The terms for labels are not accepted."),                         // operator
        row(2, Again, "Messenger had a fault for a moment, or the person has blocked the Page."), // RETRY few, then FAIL-USER
        sub(4, 2018354, Refused, "A marketing message came sooner than was agreed."),             // FAIL
        row(4, SlowApp, "The app has reached its limit of calls."),                               // SLOW (app)
        sub(9, 2018352, Refused, "The person was asked too often to opt in."),                    // FAIL, later
        sub(
            10,
            2018278,
            Window,
            "The person last wrote more than 24 hours ago; nothing but an approved message can be sent now.",
        ), // WINDOW
        sub(
            10,
            2018065,
            Window,
            "The person last wrote more than 24 hours ago; nothing but an approved message can be sent now.",
        ), // WINDOW
        sub(
            10,
            2534022,
            Window,
            "The person last wrote more than 24 hours ago; nothing can be sent until they write again.",
        ), // WINDOW
        sub(10, 2018108, Refused, "The person cannot receive messages at present."),              // FAIL-USER, later
        sub(10, 1893063, AccountDown, "Messenger restricts the Page for some time."),             // PAUSE
        sub(10, 1404170, Refused, "The Page may not ask people to opt in."),                      // FAIL
        sub(10, 1893015, Refused, "The person has stopped messages of this topic."),              // FAIL-USER (topic)
        sub(10, 2018336, Refused, "Privacy rules do not allow this in the thread."),              // FAIL
        sub(10, 2534077, AccountDown, "The link between the Page and the Instagram account cannot be verified."), // PAUSE
        row(10, AccountDown, "The permission to send for the Page is missing or was removed."), // PAUSE
        row(17, SlowAccount, "The access token's user has reached a limit of calls."),          // SLOW
        row(32, SlowAccount, "The Page has reached a limit of calls."),                         // SLOW
        sub(
            100,
            33,
            Refused,
            "Messenger does not know the person or a message that is referred to, or may not use it.",
        ), // FAIL/PAUSE: mostly one message's
        sub(100, 2018001, Refused, "Messenger knows no such person on this Page."),             // FAIL-USER
        sub(100, 2018008, Once, "Messenger could not fetch the message's file."),               // RETRY once, then FAIL
        sub(100, 2018294, Once, "Messenger could not fetch the message's film in time."),       // RETRY once, then FAIL
        sub(100, 2018014, OurMistake, "A message and an action were sent together."),           // BUG
        sub(100, 2018047, Refused, "The message's file is not of the type it was sent as."),    // FAIL
        sub(100, 2018074, File, "Messenger no longer knows the message's file."),               // re-upload, then FAIL
        sub(100, 2018109, Refused, "The message's file is too large."),                         // FAIL
        sub(100, 2018164, OurMistake, "An app's id is wrong."),                                 // BUG
        sub(100, 2018320, OurMistake, "A product's id is wrong."),                              // BUG
        sub(100, 2018328, OurMistake, "This needs another version of the API."),                // BUG
        sub(100, 2534013, AccountDown, "The Page is not linked to an Instagram account."),      // PAUSE
        sub(100, 2534014, Refused, "Instagram knows no such person."),                          // FAIL-USER
        sub(100, 2534015, OurMistake, "The message is not valid for its type."),                // BUG
        sub(100, 2534025, Refused, "The comment cannot be answered privately."),                // FAIL
        sub(100, 2534029, AccountDown, "The business may not use the messaging API."),          // PAUSE
        sub(100, 2534037, Thread, "Another app controls the conversation."),                    // hold; request control
        sub(100, 2534068, Refused, "Several pictures cannot be sent in one message here; send them one by one."), // send images one by one
        row(100, OurMistake, "Messenger did not understand the request: a parameter is invalid."), // BUG/FAIL
        row(190, AccountDown, "The Page's access token has expired or was revoked."), // PAUSE, re-authorise
        sub(
            200,
            1545041,
            Unavailable,
            "The person cannot be reached: they have blocked the Page or do not receive messages.",
        ), // FAIL-USER; WINDOW if our own window is closed
        sub(200, 2534041, AccountDown, "The Instagram account's owner has turned off access to its messages."), // PAUSE
        row(200, AccountDown, "A permission to send for the Page is missing, or the app is not live."), // PAUSE, with 2018021, 2018027, 2018028
        row(230, Refused, "The person has not consented to this."), // ignore profile: not on a send
        row(368, AccountDown, "Messenger has blocked the Page for violating its policies."), // PAUSE
        row(551, Unavailable, "The person cannot be reached: they have blocked the Page or do not receive messages."), // FAIL-USER, with 1545041
        sub(613, 1893016, Refused, "The person was asked again to opt in."), // FAIL
        sub(613, 2018338, Refused, "The Page is warned of abusing tags."), // PAUSE tags: answers inside the window may still go out
        row(613, SlowAccount, "The Page has reached a limit of calls."),   // SLOW, with 2534040
        row(1200, Again, "Messenger could not send for a moment."),        // RETRY
        row(2022, AccountDown, "Messages about commerce are disabled for the Page."), // PAUSE
        row(10303, Refused, "The token for linking accounts is not valid."), // FAIL
        row(36103, AccountDown, "The Instagram account may not use the API."), // PAUSE
        row(80006, SlowAccount, "The Page has reached its limit of calls for 24 hours."), // SLOW
        row(2018218, Refused, "The person has no profile."),               // ignore profile: not on a send
        row(2018247, Refused, "The person's profile may not be read."),    // ignore profile: not on a send
        row(2018300, Thread, "Another app controls the conversation."),    // hold; wait for control
        row(2018321, AgainAfter(300), "An automated conversation runs in the thread at present."), // RETRY later
        rows(2018389, 2018396, Refused, "Messenger refused the call."),    // calling only
        row(9000001, Refused, "The message was deleted."),                 // FAIL
        rows(3, 99, Unclear, "Messenger reported a fault and did not say whether it took the message."), // as 1
    ]
};

/// What a code means, as a sentence for a person. `code` may carry a subcode: `10/2018278`.
pub fn report_reason(code: &str) -> Option<&'static str> {
    let (code, subcode) = code.split_once('/').map_or((code, None), |(code, subcode)| (code, Some(subcode)));
    let subcode = subcode.and_then(|subcode| subcode.parse().ok());
    PRODUCT.find(code.parse().ok()?, subcode).map(|row| row.sentence)
}
