//! Who a batch's people are, when several batches meet the same person for the first time.

use chrono::Utc;
use shared::{
    db::{
        FleetTx, Placement,
        inbound::people::{Wanted, resolve},
    },
    domain::{
        ids::{ChannelAccountId, ContactId, TenantId},
        people::{Alias, AliasKind, Person},
    },
};
use std::time::Duration;
use support::database::{Role, database};

fn wanted(tenant_id: TenantId, aliases: &[(AliasKind, &str)]) -> Wanted {
    let alias = |(kind, value): &(AliasKind, &str)| Alias { kind: *kind, value: (*value).to_owned() };
    let person = Person { aliases: aliases.iter().map(alias).collect(), name: Some("Ada".into()), username: None };
    Wanted { tenant_id, channel_account_id: ChannelAccountId::new(), person, new_aliases: Vec::new(), at: Utc::now() }
}

async fn one(tx: &mut FleetTx, wanted: Wanted) -> ContactId {
    resolve(tx, &[wanted]).await.unwrap().contacts[0].expect("nobody was erased")
}

#[tokio::test]
async fn a_person_whom_two_batches_meet_by_different_names_is_one_contact() {
    let database = database().await;
    let workers = database.databases(Role::Worker);
    let mut admin = database.admin().await;
    let tenant = TenantId::new();
    sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
        .bind(tenant)
        .execute(&mut admin)
        .await
        .unwrap();
    let mut first = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let known = one(&mut first, wanted(tenant, &[(AliasKind::WhatsappBsuid, "DE.1")])).await;
    // The second batch cannot see the first yet, and then waits for it at the name that both claim.
    let mut second = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let names = [
        (AliasKind::WhatsappBsuid, "DE.1"),
        (AliasKind::WhatsappId, "4915107800132"),
        (AliasKind::Phone, "+4915107800132"),
    ];
    let commit = async {
        let blocked =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut admin).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.commit().await.unwrap();
    };
    let (met, ()) = tokio::join!(one(&mut second, wanted(tenant, &names)), commit);
    second.commit().await.unwrap();
    assert_eq!(met, known);
    let owners: Vec<ContactId> =
        sqlx::query_scalar("SELECT DISTINCT contact_id FROM contact_aliases").fetch_all(&mut admin).await.unwrap();
    let contacts: Vec<ContactId> = sqlx::query_scalar("SELECT id FROM contacts").fetch_all(&mut admin).await.unwrap();
    assert_eq!((owners, contacts), (vec![known], vec![known]));
}

#[tokio::test]
async fn a_page_writes_to_its_own_name_of_somebody_whatever_another_page_calls_them() {
    let database = database().await;
    let workers = database.databases(Role::Worker);
    let mut admin = database.admin().await;
    let tenant = TenantId::new();
    sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
        .bind(tenant)
        .execute(&mut admin)
        .await
        .unwrap();
    let phone = (AliasKind::Phone, "+4915107800132");
    let first = wanted(tenant, &[(AliasKind::MessengerId, "psid-of-one"), phone]);
    let second = wanted(tenant, &[phone, (AliasKind::MessengerId, "psid-of-two")]);
    let pages = [first.channel_account_id, second.channel_account_id, ChannelAccountId::new()];
    let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let contact = one(&mut tx, first).await;
    assert_eq!(one(&mut tx, second).await, contact);
    tx.commit().await.unwrap();
    let mut addresses = Vec::new();
    for page in pages {
        let address: Option<String> = sqlx::query_scalar("SELECT address FROM address_of($1, $2, $3, 'messenger')")
            .bind(tenant)
            .bind(contact)
            .bind(page)
            .fetch_optional(&mut admin)
            .await
            .unwrap();
        addresses.push(address);
    }
    assert_eq!(addresses, [Some("psid-of-one".into()), Some("psid-of-two".into()), None]);
}
