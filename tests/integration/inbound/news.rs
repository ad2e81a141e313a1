//! What providers tell of accounts and templates, in any order.

use super::{Stage, make_account, orders, second};
use serde_json::{Value, json};
use shared::domain::{
    channel::Provider,
    events::{AccountChange, AccountNews, Event, TemplateChange},
};

fn news(change: AccountNews, display_address: Option<&str>, at: i64) -> Event {
    let display_address = display_address.map(str::to_owned);
    Event::Account(AccountChange { change, display_address, field: "account_update".into(), at: second(at) })
}

fn down() -> AccountNews {
    AccountNews::Down { code: "DISABLED".into(), reason: "it is disabled".into() }
}

impl Stage {
    async fn account_row(&mut self) -> Value {
        sqlx::query_scalar(
            "SELECT jsonb_build_object('state', state, 'code', down_code, 'quality', quality, 'revision', revision,
                'rate', (SELECT rate FROM limits WHERE key = a.id))
            FROM channel_accounts a WHERE id = $1",
        )
        .bind(self.account)
        .fetch_one(&mut self.admin)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn the_latest_news_holds_in_whatever_order_it_comes() {
    for order in orders(4) {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let told = [
            vec![news(AccountNews::Quality("RED".into()), None, 1), news(AccountNews::Throughput(80.0), None, 1)],
            vec![news(AccountNews::Quality("GREEN".into()), None, 2), news(AccountNews::Throughput(20.0), None, 2)],
            vec![news(AccountNews::Up, None, 3)],
            vec![news(down(), None, 4)],
        ];
        let mut told: Vec<_> = told.into_iter().map(Some).collect();
        for what in &order {
            stage.tell(told[*what].take().unwrap()).await;
        }
        let row = stage.account_row().await;
        assert_eq!((&row["state"], &row["code"]), (&json!("down"), &json!("DISABLED")), "{order:?}");
        assert_eq!((&row["quality"], &row["rate"]), (&json!("GREEN"), &json!(20)), "{order:?}");
        stage.tell(vec![news(AccountNews::Up, None, 5)]).await;
        assert_eq!(stage.account_row().await["state"], "active", "{order:?}");
        let woken = "SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8')::jsonb ->> 'task' = 'wake_account'";
        assert_eq!(stage.count(woken).await, 1, "{order:?}: what waited for it is woken once");
    }
}

#[tokio::test]
async fn what_an_operator_has_set_is_the_most_and_what_he_has_disabled_stays_so() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    sqlx::query(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, wanted) VALUES ($1, 'account', $2, 50, 50, 50)",
    )
    .bind(stage.tenant)
    .bind(stage.account)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    for (at, told, holds) in [(1, 1000.0, 50), (2, 20.0, 20), (3, 80.0, 50)] {
        stage.tell(vec![news(AccountNews::Throughput(told), None, at)]).await;
        assert_eq!(stage.account_row().await["rate"], json!(holds), "told {told}");
    }
    stage.execute("UPDATE channel_accounts SET state = 'disabled'").await;
    stage.tell(vec![news(down(), None, 4), news(AccountNews::Up, None, 5)]).await;
    assert_eq!(stage.account_row().await["state"], "disabled");
}

#[tokio::test]
async fn what_throttling_has_lowered_is_over_when_the_provider_says_later_that_as_much_is_allowed() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    sqlx::query(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, wanted, lowered_at)
        VALUES ($1, 'account', $2, 80, 10, 80, $3)",
    )
    .bind(stage.tenant)
    .bind(stage.account)
    .bind(second(5))
    .execute(&mut stage.admin)
    .await
    .unwrap();
    let current = "SELECT to_jsonb(current_rate) FROM limits WHERE scope = 'account'";
    for (at, told, holds) in [(4, 1000.0, 10), (6, 40.0, 10), (7, 1000.0, 80)] {
        stage.tell(vec![news(AccountNews::Throughput(told), None, at)]).await;
        assert_eq!(stage.row(current).await, json!(holds), "told {told} at {at}");
    }
}

#[tokio::test]
async fn of_numbers_that_share_an_account_the_one_is_meant_that_is_named() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    make_account(&mut stage.admin, stage.tenant, Provider::Whatsapp, "15550200").await;
    stage.execute("UPDATE channel_accounts SET business_account_id = '9', display_address = '+1 555-' || right(external_id, 4)").await;
    stage.tell(vec![news(AccountNews::Quality("RED".into()), Some("15550200"), 1)]).await;
    let qualities = "SELECT jsonb_object_agg(external_id, quality) FROM channel_accounts";
    assert_eq!(stage.row(qualities).await, json!({"15550100": null, "15550200": "RED"}));
    stage.tell(vec![news(AccountNews::Quality("RED".into()), Some("999"), 2)]).await;
    assert_eq!(stage.row(qualities).await, json!({"15550100": null, "15550200": "RED"}), "nobody is meant");
    stage.tell(vec![news(down(), None, 3)]).await;
    assert_eq!(stage.count("SELECT count(*) FROM channel_accounts WHERE state = 'down'").await, 2, "all are meant");
}

#[tokio::test]
async fn templates_that_are_known_change_and_others_do_not() {
    let change = |name: &str, status: Option<&str>, quality: Option<&str>, at| {
        Event::Template(TemplateChange {
            name: name.into(),
            language: "en_US".into(),
            status: status.map(str::to_owned),
            quality: quality.map(str::to_owned),
            category: None,
            reason: None,
            field: "message_template_status_update".into(),
            at: second(at),
        })
    };
    for order in orders(3) {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        stage
            .execute(
                "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at)
                SELECT tenant_id, id, 'spring', 'en_US', 'PENDING', 'MARKETING', 'Hi', 0, now() - interval '1 day' FROM channel_accounts",
            )
            .await;
        let told = [
            change("spring", Some("APPROVED"), None, 1),
            change("spring", None, Some("RED"), 2),
            change("spring", Some("PAUSED"), None, 3),
        ];
        let mut told: Vec<_> = told.into_iter().map(Some).collect();
        for what in &order {
            stage.tell(vec![told[*what].take().unwrap(), change("autumn", Some("APPROVED"), None, 4)]).await;
        }
        let row = "SELECT jsonb_agg(jsonb_build_array(name, status, quality)) FROM templates";
        assert_eq!(stage.row(row).await, json!([["spring", "PAUSED", "RED"]]), "{order:?}");
        let stale = "SELECT count(*) FROM channel_accounts WHERE templates_stale_at IS NOT NULL";
        assert_eq!(stage.count(stale).await, 1, "one that is not known is asked for");
    }
}

#[tokio::test]
async fn the_column_says_what_the_rule_says() {
    use shared::domain::channel::Channel;
    let mut stage = Stage::on(Provider::Twilio).await;
    for provider in Provider::ALL {
        for id in ["15550300", "whatsapp:+15550300", "+15550300"] {
            let account = make_account(&mut stage.admin, stage.tenant, *provider, &format!("{id}{provider}")).await;
            let channel: String = sqlx::query_scalar("SELECT channel FROM channel_accounts WHERE id = $1")
                .bind(account)
                .fetch_one(&mut stage.admin)
                .await
                .unwrap();
            assert_eq!(channel, Channel::of_account(*provider, id).as_str(), "{provider} {id}");
        }
    }
}
