//! Instagram's error codes, as its contract's section 7 lists them, row by row, whichever login an account came by:
//! `(code, error_subcode)` counts, never the text or the HTTP status.

use crate::providers::meta::refusal::{Product, Reaction, Row, row, sub};

/// Instagram, as far as its answers go.
pub(super) const PRODUCT: Product = Product { name: "Instagram", codes: CODES };

/// Every code of the contract, in ascending order. Behind each: the contract's reaction, and why ours differs.
pub const CODES: &[Row] = {
    use Reaction::*;
    &[
        row(1, Unclear, "Instagram reported a fault and did not say whether it took the message."), // RETRY few times; "unknown" leaves open what happened
        row(2, Again, "Instagram had a fault for a moment."),                                       // RETRY few times
        row(4, SlowApp, "The app has reached its limit of calls."),                                 // SLOW: the app's
        sub(
            10,
            2534022,
            Window,
            "The person last wrote more than 24 hours ago; nothing can be sent until they write again.",
        ), // WINDOW
        sub(
            10,
            2018278,
            Window,
            "The person last wrote more than 24 hours ago; nothing can be sent until they write again.",
        ), // WINDOW
        sub(
            10,
            2534077,
            AccountDown,
            "The link between the Instagram account and its Page cannot be verified; connect it again.",
        ), // PAUSE
        row(10, AccountDown, "The permission to send for the Instagram account is missing or was removed."), // PAUSE
        row(17, SlowAccount, "The access token's user has reached a limit of calls."),              // SLOW
        row(32, SlowAccount, "The account's Page has reached a limit of calls."),                   // SLOW
        sub(
            100,
            33,
            Refused,
            "Instagram does not know the person or a message that is referred to, or may not use it.",
        ), // FAIL/PAUSE: mostly one message's
        sub(100, 2018001, Refused, "Instagram knows no such person for this account."),             // FAIL-USER
        sub(100, 2534014, Refused, "Instagram knows no such person for this account."),             // FAIL-USER
        sub(100, 2018008, Once, "Instagram could not fetch the message's file."), // FAIL (re-upload once)
        sub(100, 2018294, Once, "Instagram could not fetch the message's film in time."), // FAIL (re-upload once)
        sub(100, 2018047, Refused, "The message's file is not of the type it was sent as."), // FAIL
        sub(100, 2018074, File, "Instagram no longer knows the message's file."), // FAIL (re-upload once)
        sub(100, 2018109, Refused, "The message's file is too large."),           // FAIL
        sub(100, 2534013, AccountDown, "The Page is not linked to an Instagram account."), // PAUSE
        sub(100, 2534015, OurMistake, "The message is not valid for its type."),  // BUG
        sub(
            100,
            2534025,
            Refused,
            "The comment cannot be answered privately: it was already, or is too old or deleted.",
        ), // FAIL
        sub(100, 2534029, AccountDown, "The business may not use the messaging API."), // PAUSE
        sub(100, 2534037, Thread, "Another app controls the conversation."),      // hold; request control
        sub(100, 2534068, Refused, "Several pictures cannot be sent in one message here; send them one by one."), // send images one by one
        row(100, OurMistake, "Instagram did not understand the request: a parameter is invalid."), // BUG/FAIL
        row(190, AccountDown, "The account's access token has expired or was revoked."), // PAUSE; refresh/re-login
        sub(
            200,
            1545041,
            Unavailable,
            "The person cannot be reached: they have blocked the account or are not there any more.",
        ), // FAIL-USER
        sub(200, 2534041, AccountDown, "The account's owner has turned off \"Allow access to messages\"."), // PAUSE, tell the owner
        row(200, AccountDown, "A permission to send for the account is missing."),                          // PAUSE
        row(230, Refused, "The person has not consented to this."), // ignore profile: not on a send
        row(368, AccountDown, "Instagram has blocked the account for violating its policies."), // PAUSE
        row(551, Unavailable, "The person cannot be reached: they have blocked the account or are not there any more."), // FAIL-USER, with 1545041
        row(613, SlowAccount, "The account has reached a limit of calls."), // SLOW, with 2534040
        row(9010, Refused, "The person cannot be reached."),                // FAIL-USER
        row(36103, AccountDown, "The account may not use the API."),        // PAUSE
        row(80002, SlowAccount, "The account has reached its limit of calls for 24 hours."), // SLOW
        row(80006, SlowAccount, "The account has reached its limit of calls for 24 hours."), // SLOW
        row(2018300, Thread, "Another app controls the conversation."),     // hold
        row(9000001, Refused, "The message was deleted."),                  // FAIL
    ]
};

/// What a code means, as a sentence for a person. `code` may carry a subcode: `10/2534022`.
pub fn report_reason(code: &str) -> Option<&'static str> {
    let (code, subcode) = code.split_once('/').map_or((code, None), |(code, subcode)| (code, Some(subcode)));
    let subcode = subcode.and_then(|subcode| subcode.parse().ok());
    PRODUCT.find(code.parse().ok()?, subcode).map(|row| row.sentence)
}
