//! One tenant with an account at every provider, and messages that were sent before; it takes webhooks through the queue and the
//! real inbound worker, two of them at once.

use super::tables::{self, Content};
use crate::queue::{self, soon, until};
use chrono::DateTime;
use shared::{
    clock::Clock,
    domain::{
        channel::Provider,
        events::SendToken,
        ids::{AttemptId, ChannelAccountId, ContactId, ConversationId, MessageId, TenantId, WebhookId},
    },
    health::Readiness,
    jobs::inbound::{self, Meta, RawWebhook},
    lifecycle::Lifecycle,
    queue::topology::INBOUND,
};
use sqlx::{PgConnection, Row};
use std::{collections::HashMap, time::Duration};
use support::{
    database::{Database, Role, database},
    sandbox::{
        AccountSpec, InboundWebhook, Platform,
        mixture::{Accounts, KnownSend},
        registry::NumberSpec,
    },
};
use workers::{
    inbound::InboundWorker,
    runtime::{self, Parts},
};

/// Inbound workers, each with two batches under way.
const WORKERS: usize = 2;
/// Everything is taken within this.
const TAKEN_WITHIN: Duration = Duration::from_secs(150);

/// The accounts, as the providers know them.
pub(super) fn accounts() -> Accounts {
    let number = |id: &str, display: &str| {
        let spec = NumberSpec {
            id: id.into(),
            waba_id: "210000000000007".into(),
            display_phone_number: display.into(),
            country_code: "1".into(),
            webhook_url: None,
            app_secret: None,
        };
        (spec, "secret".to_owned())
    };
    let url = "https://hooks.example.com/webhooks/twilio";
    let other = |platform, id: &str| AccountSpec::new(platform, id).signed_with("secret").at(url);
    Accounts {
        numbers: vec![number("330000000000009", "15557770100"), number("330000000000010", "15557770101")],
        others: vec![
            other(Platform::Messenger, "100900000000001"),
            other(Platform::Instagram, "17841400000000055"),
            other(Platform::Twilio, "+15035550199"),
            AccountSpec {
                messaging_service_sid: Some("MG00000000000000000000000000000002".into()),
                ..other(Platform::Twilio, "+15035550197")
            },
            other(Platform::Twilio, "whatsapp:+15035550198"),
        ],
    }
}

/// A database of its own with the tenant in it.
pub(super) struct World {
    database: Database,
}

impl World {
    /// With these messages sent before, each with the token that was sent along.
    pub(super) async fn with(known: &[KnownSend], tokens: &[SendToken]) -> Self {
        let world = Self { database: database().await };
        let mut admin = world.database.admin().await;
        let tenant = TenantId::new();
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
            .bind(tenant)
            .execute(&mut admin)
            .await
            .unwrap();
        let accounts = add_accounts(&mut admin, tenant).await;
        add_sends(&mut admin, tenant, &accounts, known, tokens).await;
        world
    }

    /// Takes the webhooks of each list one after the other, all lists at once, and waits until nothing is left to do. The time of
    /// arrival of a webhook is its provider's, however often it comes: Twilio gives no other.
    pub(super) async fn take(&self, lists: &[Vec<&InboundWebhook>]) {
        queue::staged(async |queues| {
            let broker = queues.broker();
            let publisher = queues.publisher(&broker).await;
            let life = Lifecycle::new(TAKEN_WITHIN);
            let running: Vec<_> = (0..WORKERS)
                .map(|_| {
                    let databases = self.database.databases(Role::Worker);
                    let parts = Parts {
                        life: life.clone(),
                        databases: databases.clone(),
                        broker: broker.clone(),
                        publisher: publisher.clone(),
                        clock: Clock::system(),
                        readiness: Readiness::default(),
                    };
                    tokio::spawn(runtime::run(InboundWorker::new(databases, Clock::system()), parts))
                })
                .collect();
            until("both workers consume", async || {
                broker.depth(&INBOUND).await.unwrap().consumers as usize == 2 * WORKERS
            })
            .await;
            let publishing = lists.iter().map(async |webhooks| {
                // As the receiver bundles under load.
                for bundle in webhooks.chunks(16) {
                    let raw: Vec<RawWebhook> = bundle.iter().map(|webhook| raw(webhook)).collect();
                    let job = inbound::to_job(&raw, queue::now());
                    publisher.publish(vec![queue::to(&INBOUND, job)]).await.expect("the broker confirms");
                }
            });
            futures_util::future::join_all(publishing).await;
            let all_taken = async {
                while broker.depth(&INBOUND).await.unwrap().ready > 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(TAKEN_WITHIN, all_taken).await.expect("the workers take everything in time");
            life.stop();
            for worker in running {
                let drained =
                    tokio::time::timeout(TAKEN_WITHIN, worker).await.expect("the workers end in time").unwrap();
                assert_eq!(drained.left, 0, "everything taken is finished");
            }
            let depth = soon("the queue is looked at", broker.depth(&INBOUND)).await.unwrap();
            assert_eq!((depth.ready, depth.dead), (0, 0), "nothing is left over and nothing is dead");
        })
        .await;
    }

    /// What there is now.
    pub(super) async fn content(&self) -> Content {
        Content::of(&mut self.database.admin().await).await
    }

    /// Columns nobody has thought of.
    pub(super) async fn unaccounted(&self) -> Vec<String> {
        tables::unaccounted(&mut self.database.admin().await).await
    }
}

fn raw(webhook: &InboundWebhook) -> RawWebhook {
    let parcel = &webhook.parcel;
    let query =
        parcel.url.as_deref().and_then(|url| url.split('#').next()?.split_once('?')).map(|(_, query)| query.to_owned());
    let meta = Meta {
        id: WebhookId::new(),
        provider: provider(webhook.platform),
        received_at: DateTime::from_timestamp_millis(webhook.at_ms).unwrap(),
        account: None,
        query,
        stored: false,
        replay: false,
    };
    RawWebhook { meta, body: parcel.body.clone() }
}

fn provider(platform: Platform) -> Provider {
    platform.name().parse().unwrap()
}

async fn add_accounts(admin: &mut PgConnection, tenant: TenantId) -> HashMap<String, ChannelAccountId> {
    let accounts = accounts();
    let numbers = accounts.numbers.iter().map(|(number, _)| {
        (
            Platform::Whatsapp,
            number.id.as_str(),
            "phone_number_id",
            Some((&number.waba_id, &number.display_phone_number)),
        )
    });
    let others = accounts.others.iter().map(|account| {
        let kind = match account.platform {
            Platform::Messenger => "page_id",
            Platform::Instagram => "instagram_account_id",
            _ => "twilio_sender",
        };
        (account.platform, account.id.as_str(), kind, None)
    });
    let mut ids = HashMap::new();
    for (platform, external_id, kind, business) in numbers.chain(others) {
        let id = ChannelAccountId::new();
        let (business_id, display) = business.unzip();
        sqlx::query(
            "INSERT INTO channel_accounts
                (tenant_id, id, provider, name, external_id, business_account_id, display_address, sealed_secrets, secret_key_id)
            VALUES ($1, $2, $3, $4, $4, $5, $6, '', '')",
        )
        .bind(tenant)
        .bind(id)
        .bind(platform.name())
        .bind(external_id)
        .bind(business_id)
        .bind(display)
        .execute(&mut *admin)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, 80, 80)",
        )
        .bind(tenant)
        .bind(id)
        .execute(&mut *admin)
        .await
        .unwrap();
        let routes = [(kind, Some(external_id)), ("business_account_id", business_id.map(String::as_str))];
        for (kind, external_id) in routes.into_iter().filter_map(|(kind, id)| Some((kind, id?))) {
            sqlx::query(
                "INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(platform.name())
            .bind(kind)
            .bind(external_id)
            .bind(tenant)
            .bind(id)
            .execute(&mut *admin)
            .await
            .unwrap();
        }
        for (name, language) in [("cart_nudge", "en_US")] {
            sqlx::query(
                "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at)
                VALUES ($1, $2, $3, $4, 'APPROVED', 'UTILITY', 'Hi {{1}}', 1, now() - interval '2 days')",
            )
            .bind(tenant)
            .bind(id)
            .bind(name)
            .bind(language)
            .execute(&mut *admin)
            .await
            .unwrap();
        }
        ids.insert(external_id.to_owned(), id);
    }
    ids
}

/// Messages that were sent before: each person's contact, a conversation with each account, and the sends.
async fn add_sends(
    admin: &mut PgConnection,
    tenant: TenantId,
    accounts: &HashMap<String, ChannelAccountId>,
    known: &[KnownSend],
    tokens: &[SendToken],
) {
    let mut contacts: HashMap<(&str, String), ContactId> = HashMap::new();
    let mut conversations: HashMap<(ContactId, ChannelAccountId), (ConversationId, i64)> = HashMap::new();
    for (known, token) in known.iter().zip(tokens) {
        let account = accounts[&known.account];
        let (kind, value) = alias(known);
        let at = DateTime::from_timestamp_millis(known.sent_at_ms).unwrap();
        let contact = match contacts.get(&(kind, value.clone())) {
            Some(contact) => *contact,
            None => {
                let contact = ContactId::new();
                sqlx::query(
                    "WITH contact AS (INSERT INTO contacts (tenant_id, id) VALUES ($1, $2) RETURNING id)
                    INSERT INTO contact_aliases (tenant_id, kind, value, contact_id) SELECT $1, $3, $4, id FROM contact",
                )
                .bind(tenant)
                .bind(contact)
                .bind(kind)
                .bind(&value)
                .execute(&mut *admin)
                .await
                .unwrap();
                contacts.insert((kind, value), contact);
                contact
            }
        };
        let (conversation, seq) = conversations.entry((contact, account)).or_insert((ConversationId::new(), 0));
        *seq += 1;
        sqlx::query(
            "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, messages_out, last_message_at,
                last_message_text, last_message_direction, last_send_seq)
            VALUES ($1, $2, $3, $4, 'open', 'agent', 1, $5, 'known', 'out', 1)
            ON CONFLICT (tenant_id, id) DO UPDATE SET messages_out = conversations.messages_out + 1,
                last_message_at = excluded.last_message_at, last_send_seq = conversations.last_send_seq + 1",
        )
        .bind(tenant)
        .bind(*conversation)
        .bind(contact)
        .bind(account)
        .bind(at)
        .execute(&mut *admin)
        .await
        .unwrap();
        sqlx::query(
            "WITH message AS (
                INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
                VALUES ($1, $2, $3, 'out', 'text', 'known', '{}', $4)
            ), send AS (
                INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient,
                    needs_window, state, attempt_id, attempts, provider_message_id, sent_at)
                VALUES ($1, $2, $3, $5, $6, 'phone', $7, false, 'sent', $8, 1, $9, $4)
            )
            INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id) VALUES ($1, $5, $9, $2)",
        )
        .bind(tenant)
        .bind(token.message_id)
        .bind(*conversation)
        .bind(at)
        .bind(account)
        .bind(*seq)
        .bind(&known.recipient)
        .bind(token.attempt_id)
        .bind(&known.id)
        .execute(&mut *admin)
        .await
        .unwrap();
    }
}

/// By which name the recipient of a message is known.
fn alias(known: &KnownSend) -> (&'static str, String) {
    let on_whatsapp = |name: &str| {
        let kind = if name.contains('.') { "whatsapp_bsuid" } else { "whatsapp_id" };
        (kind, name.trim_start_matches('+').to_owned())
    };
    match (known.platform, known.recipient.strip_prefix("whatsapp:")) {
        (Platform::Whatsapp, _) => on_whatsapp(&known.recipient),
        (Platform::Messenger, _) => ("messenger_id", known.recipient.clone()),
        (Platform::Instagram, _) => ("instagram_id", known.recipient.clone()),
        (Platform::Twilio, Some(name)) => on_whatsapp(name),
        (Platform::Twilio, None) => ("phone", known.recipient.clone()),
    }
}

/// The token of each, made from its number: the same in every database.
pub(super) fn tokens(known: &[KnownSend]) -> Vec<SendToken> {
    let token = |nth: usize| SendToken {
        message_id: MessageId(uuid::Uuid::from_u64_pair(0x0190_0000_0000_7000, 0x8000_0000_0000_0000 | nth as u64)),
        attempt_id: AttemptId(uuid::Uuid::from_u64_pair(0x0190_0000_0000_7001, 0x8000_0000_0000_0000 | nth as u64)),
    };
    (0..known.len()).map(token).collect()
}

/// How often something is so.
pub(super) async fn count(world: &World, query: &'static str) -> i64 {
    let row = sqlx::query(query).fetch_one(&mut world.database.admin().await).await.unwrap();
    row.get(0)
}
