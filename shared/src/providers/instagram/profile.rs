//! A person's profile on Instagram (providers/instagram section 4).

use crate::providers::meta::profile;
pub use crate::providers::meta::profile::{Answer, Profile};

const FIELDS: &str = "name,username,profile_pic";

/// The path and query of the call, with its leading slash; the account's access token goes into the header. The host is the one
/// of the account's login: a Page's or Instagram's own (providers/instagram section 0).
pub fn path(version: &str, person_id: &str) -> String {
    profile::path(version, person_id, FIELDS)
}

/// What its answer means.
pub fn read(status: u16, body: &[u8]) -> Answer {
    profile::read(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_answer_is_read() {
        assert_eq!(path("v25.0", "980000000000066"), "/v25.0/980000000000066?fields=name,username,profile_pic");
        let body = br#"{"name":"Mina Sato","username":"ring.fan","profile_pic":"https://scontent.example/p.jpg","follower_count":412,"is_user_follow_business":true,"id":"980000000000066"}"#;
        let profile = Profile {
            name: Some("Mina Sato".into()),
            username: Some("ring.fan".into()),
            picture_url: Some("https://scontent.example/p.jpg".into()),
        };
        assert_eq!(read(200, body), Answer::Profile(profile));
        let Answer::Profile(profile) = read(200, br#"{"name":null,"username":"ring.fan","profile_pic":null}"#) else {
            panic!("a profile")
        };
        assert_eq!(profile, Profile { username: Some("ring.fan".into()), ..Profile::default() });
    }
}
