//! A person's profile on Messenger (providers/messenger section 5).

use crate::providers::meta::profile;
pub use crate::providers::meta::profile::{Answer, Profile};

const FIELDS: &str = "id,first_name,last_name,name,profile_pic";

/// The path and query of the call, with its leading slash; the Page's access token goes into the header.
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
        assert_eq!(
            path("v25.0", "24000000000000077"),
            "/v25.0/24000000000000077?fields=id,first_name,last_name,name,profile_pic"
        );
        assert_eq!(
            path("v25.0", "7/../me?x"),
            "/v25.0/7%2F..%2Fme%3Fx?fields=id,first_name,last_name,name,profile_pic"
        );
        let body = br#"{"id":"24000000000000077","first_name":"Ine","last_name":"Dahl","name":"Ine Dahl","profile_pic":"https://platform-lookaside.example/pic"}"#;
        let profile = Profile {
            name: Some("Ine Dahl".into()),
            username: None,
            picture_url: Some("https://platform-lookaside.example/pic".into()),
        };
        assert_eq!(read(200, body), Answer::Profile(profile));
        let Answer::Profile(profile) = read(200, br#"{"id":"7","first_name":"Ine","last_name":"Dahl"}"#) else {
            panic!("a profile")
        };
        assert_eq!(profile.name.as_deref(), Some("Ine Dahl"));
    }
}
