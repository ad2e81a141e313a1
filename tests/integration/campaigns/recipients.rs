//! The people of a campaign, one by one: where each stands and why, page by page.

use super::Stage;
use shared::{
    db::{
        Placement,
        campaigns::recipients::{self, Found, LOOKED_AT, Recipient, Wanted},
    },
    domain::{
        campaigns::RecipientState,
        ids::{CampaignId, ContactId},
    },
};

impl Stage {
    async fn page(&self, id: CampaignId, wanted: &Wanted, after: Option<ContactId>, limit: usize) -> Found {
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let found = recipients::list(&mut tx, id, wanted, after, limit).await.unwrap().expect("it is there");
        tx.commit().await.unwrap();
        found
    }

    /// All pages of so many.
    async fn pages(&self, id: CampaignId, wanted: &Wanted, limit: usize) -> Vec<Recipient> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let found = self.page(id, wanted, after, limit).await;
            assert!(found.recipients.len() <= limit);
            all.extend(found.recipients);
            after = found.next;
            if after.is_none() {
                return all;
            }
        }
    }
}

fn standing(state: RecipientState) -> Wanted {
    Wanted { state: Some(state), code: None }
}

fn ids(recipients: &[Recipient]) -> Vec<ContactId> {
    recipients.iter().map(|person| person.contact_id).collect()
}

#[tokio::test]
async fn each_person_is_listed_once_with_where_they_stand_and_why() {
    let mut stage = Stage::new().await;
    let people = stage.people(12).await;
    stage.execute("UPDATE contacts SET name = NULL WHERE name IN ('Ada 3', 'Ada 8')").await;
    let id = stage.running("Hello {{name}}").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..3], "sent").await;
    stage.end(&messages[3..7], "failed").await;
    sqlx::query("UPDATE sends SET code = CASE WHEN message_id = ANY ($1) THEN '131026' ELSE '470' END, reason = 'not there', failed_at = now() WHERE state = 'failed'")
        .bind(&messages[3..5])
        .execute(&mut stage.admin)
        .await
        .unwrap();

    for limit in [1, 5, 12, 20] {
        let all = stage.pages(id, &Wanted::default(), limit).await;
        assert_eq!(ids(&all), people, "{limit}");
    }
    let skipped = stage.pages(id, &standing(RecipientState::Skipped), 20).await;
    assert_eq!(ids(&skipped), [people[2], people[7]]);
    let person = &skipped[0];
    assert_eq!((person.reason.as_deref(), person.code.as_deref()), (Some("no_name"), None));
    assert_eq!((person.message_id, person.attempts, person.released_at), (None, 0, None));
    assert!(person.address.as_deref().is_some_and(|address| address.starts_with("+4915")), "{person:?}");

    let failed = stage.pages(id, &standing(RecipientState::Failed), 1).await;
    assert_eq!(failed.len(), 4);
    assert!(
        failed.iter().all(|p| p.attempts == 1 && p.reason.as_deref() == Some("not there") && p.failed_at.is_some())
    );
    let with_code = stage.pages(id, &Wanted { state: None, code: Some("131026".into()) }, 20).await;
    assert_eq!(with_code.len(), 2);
    assert!(with_code.iter().all(|p| p.message_id.is_some_and(|message| messages[3..5].contains(&message))));
    for (state, people) in [(RecipientState::Sent, 3), (RecipientState::InFlight, 3), (RecipientState::Read, 0)] {
        let found = stage.pages(id, &standing(state), 2).await;
        assert_eq!(found.len(), people, "{state:?}");
        assert!(found.iter().all(|person| person.state == state.as_str()));
    }
}

#[tokio::test]
async fn a_page_looks_at_a_bounded_number_of_people_and_the_next_goes_on_behind_them() {
    let mut stage = Stage::new().await;
    let people = stage.people(i64::try_from(LOOKED_AT).unwrap() + 2).await;
    let id = stage.running("Hello").await;
    sqlx::query(
        "UPDATE campaign_recipients SET state = 'skipped', skip_reason = 'no_name' WHERE contact_id = ANY ($1)",
    )
    .bind(&people[LOOKED_AT..])
    .execute(&mut stage.admin)
    .await
    .unwrap();
    let skipped = standing(RecipientState::Skipped);
    let first = stage.page(id, &skipped, None, 10).await;
    assert_eq!((first.recipients.len(), first.next), (0, Some(people[LOOKED_AT - 1])));
    let second = stage.page(id, &skipped, first.next, 10).await;
    assert_eq!((ids(&second.recipients), second.next), (people[LOOKED_AT..].to_vec(), None));
}
