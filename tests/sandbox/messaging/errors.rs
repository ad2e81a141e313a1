//! HTTP status and text of Messenger's and Instagram's codes (messenger contract page, section 10; instagram, section 7). Most come
//! with 400; what says that it will pass, with 500.

/// By code and subcode; a pair that is not in the tables has its code's text.
pub(crate) fn documented(code: u32, subcode: Option<u32>) -> (u16, &'static str) {
    let status = match (code, subcode) {
        (190, _) => 401,
        (10, None) | (200, None | Some(2_018_021 | 2_018_027 | 2_018_028 | 2_534_041)) => 403,
        (1 | 2 | 1200, None) => 500,
        _ => 400,
    };
    let text = match (code, subcode) {
        (1, Some(1_357_046)) => "Received Invalid JSON reply.",
        (1, _) => "An unknown error occurred.",
        (2, _) => "Service temporarily unavailable.",
        (4, _) => "Application request limit reached.",
        (10, Some(2_018_278 | 2_018_065 | 2_534_022)) => "This message is sent outside of allowed window.",
        (10, Some(2_018_108)) => {
            "This Person Cannot Receive Messages: This person isn't receiving messages from you right now."
        }
        (10, Some(1_893_063)) => "This Page is temporarily restricted from sending messages.",
        (10, Some(2_534_077)) => "The link between the Page and the Instagram account cannot be verified.",
        (10, _) => "Application does not have permission for this action.",
        (17 | 32, _) => "User request limit reached.",
        (100, Some(33)) => "Unsupported request. Object does not exist or cannot be loaded due to missing permissions.",
        (100, Some(2_018_001)) => "No matching user found.",
        (100, Some(2_018_008 | 2_018_294)) => "Failed to fetch the file from the url.",
        (100, Some(2_018_014)) => "Message and sender action cannot be sent together.",
        (100, Some(2_018_047)) => "Upload attachment failure: the type does not match the file.",
        (100, Some(2_018_074)) => "Invalid attachment id.",
        (100, Some(2_018_109)) => "Attachment size exceeds allowable limit.",
        (100, Some(2_018_218)) => "No profile available for this user.",
        (100, Some(2_534_013)) => "The Page is not linked to an Instagram account.",
        (100, Some(2_534_014)) => "No such user.",
        (100, Some(2_534_015)) => "The message data is not valid for this type.",
        (100, Some(2_534_025)) => "The comment is not eligible for a private reply.",
        (100, Some(2_534_029)) => "The business is blocked from the messaging API.",
        (100, Some(2_534_037)) => "The app is not the owner of the thread.",
        (100, Some(2_534_068)) => "Messages of several images are not available.",
        (100, _) => "Invalid parameter.",
        (190, Some(463)) => "Error validating access token: Session has expired.",
        (190, Some(460)) => "Error validating access token: The session has been invalidated.",
        (190, _) => "Error validating access token.",
        (200, Some(1_545_041)) | (551, _) => "This person isn't available right now.",
        (200, Some(2_534_041)) => "The account owner has turned off access to messages.",
        (200, _) => "Requires permission to manage the object.",
        (230, _) => "User consent is required to access user profile.",
        (368, _) => "The action attempted has been deemed abusive or is otherwise disallowed.",
        (613, _) => "Calls to this api have exceeded the rate limit.",
        (1200, _) => "Temporary send message failure. Please try again later.",
        (2022, _) => "Commerce messages are disabled for this Page.",
        (36_103, _) => "The Instagram account is not eligible for the API.",
        (80_002 | 80_006, _) => "There have been too many calls to this account.",
        (2_018_300, _) => "Another app controls this thread.",
        (2_018_321, _) => "An automated flow is running in this thread.",
        (9_000_001, _) => "The message was deleted.",
        _ => "The request failed.",
    };
    (status, text)
}
