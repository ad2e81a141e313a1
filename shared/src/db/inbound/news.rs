//! What providers tell of accounts and templates, in whatever order: each kind of news is kept with its provider's time, and what
//! is older than what is known changes nothing.
//!
//! Who wins where an operator has set something: an operator's limit is the most that news may set; what an operator sets or brings
//! back holds until the provider says something later. An account that an operator has disabled stays so.

use crate::{
    db::{campaigns, error::Result, scope::FleetTx},
    domain::{
        channel::Provider,
        events::{AccountNews, TemplateChange},
        ids::{ChannelAccountId, TenantId},
        limits::{MOST_RATE, Scope},
    },
    jobs::campaign::{CampaignJob, Task},
};
use chrono::{DateTime, Utc};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};
use uuid::Uuid;

/// Whose limit, of what.
type LimitKey = (TenantId, Scope, Uuid);
/// When it was told, the rate, and what a message that comes in takes of it.
type LastRate = (DateTime<Utc>, f64, f64);

/// Something that was told of an account.
#[derive(Clone, Copy, Debug)]
pub struct AccountTold<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// The account that was told, or one of those that share the provider's business account.
    pub channel_account_id: ChannelAccountId,
    /// Only the account with this address (digits), where several share the id.
    pub display_address: Option<&'a str>,
    /// What.
    pub news: &'a AccountNews,
    /// The provider's time.
    pub at: DateTime<Utc>,
}

/// Something that was told of a template.
#[derive(Clone, Copy, Debug)]
pub struct TemplateTold<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// The account that was told, or one of those that share the templates.
    pub channel_account_id: ChannelAccountId,
    /// What.
    pub change: &'a TemplateChange,
}

type Account = (TenantId, ChannelAccountId);

/// An account that news is about.
#[derive(Clone, Debug)]
struct Target {
    account: Account,
    provider: Option<Provider>,
    portfolio: Option<Uuid>,
    /// The digits of what customers see.
    digits: String,
}

/// Something with the time it was told; of two the later counts, and of two at the same time always the same one.
type Told<T> = Option<(DateTime<Utc>, T)>;

/// What all news of one account amounts to.
#[derive(Clone, Debug, Default)]
struct Sum<'a> {
    quality: Told<&'a str>,
    /// Whether it can send, or the code and the reason why not: of two at the same time it cannot.
    up: Option<(DateTime<Utc>, Reverse<bool>, &'a str, &'a str)>,
    alert: Told<(&'a str, &'a str)>,
    /// Its senders are to look at it anew.
    revise: bool,
}

/// Changes accounts as their providers say: limits first, then the accounts. What waited for one that is back is woken afterwards.
///
/// # Errors
/// If the database does not answer.
pub async fn apply(tx: &mut FleetTx, told: &[AccountTold<'_>]) -> Result<()> {
    if told.is_empty() {
        return Ok(());
    }
    let accounts: BTreeSet<Account> = told.iter().map(|told| (told.tenant_id, told.channel_account_id)).collect();
    let siblings = siblings(tx, &accounts).await?;
    let mut rates: BTreeMap<LimitKey, LastRate> = BTreeMap::new();
    let mut sums: BTreeMap<Account, Sum<'_>> = BTreeMap::new();
    for told in told {
        let Some(siblings) = siblings.get(&(told.tenant_id, told.channel_account_id)) else { continue };
        for target in meant(siblings, told.display_address) {
            let rate = match told.news {
                AccountNews::Throughput(rate) if *rate > 0.0 => Some((Scope::Account, Some(target.account.1.0), *rate)),
                AccountNews::MessagingLimit(people) => {
                    Some((Scope::Portfolio, target.portfolio, people.map_or(MOST_RATE, f64::from).max(1.0)))
                }
                _ => None,
            };
            if let Some((scope, Some(key), rate)) = rate {
                let cost = target.provider.filter(|_| scope == Scope::Account).map_or(0.0, Provider::inbound_cost);
                let last = rates.entry((told.tenant_id, scope, key)).or_insert((told.at, rate, cost));
                if told.at > last.0 || (told.at == last.0 && rate < last.1) {
                    *last = (told.at, rate, cost);
                }
                continue;
            }
            let sum = sums.entry(target.account).or_default();
            match told.news {
                AccountNews::Quality(word) => sum.quality = sum.quality.max(Some((told.at, word))),
                AccountNews::Down { code, reason } => {
                    sum.up = sum.up.max(Some((told.at, Reverse(false), code, reason)));
                }
                AccountNews::Up => sum.up = sum.up.max(Some((told.at, Reverse(true), "", ""))),
                AccountNews::Alert { code, reason } => sum.alert = sum.alert.max(Some((told.at, (code, reason)))),
                AccountNews::Throughput(_) | AccountNews::MessagingLimit(_) => {}
            }
        }
    }
    for account in set_rates(tx, &rates).await? {
        sums.entry(account).or_default().revise = true;
    }
    change(tx, &sums).await
}

/// Of accounts that share an id the one with this address; all of them if none is named.
fn meant<'a>(siblings: &'a [Target], display_address: Option<&str>) -> Vec<&'a Target> {
    let Some(digits) = display_address else { return siblings.iter().collect() };
    let named: Vec<&Target> = siblings.iter().filter(|target| target.digits == digits).collect();
    match siblings {
        // Nobody has written down what it looks like, and there is no other.
        [only] if named.is_empty() && only.digits.is_empty() => vec![only],
        _ => named,
    }
}

/// The accounts that share each one's business account at the provider; itself, if it has none.
async fn siblings(tx: &mut FleetTx, accounts: &BTreeSet<Account>) -> Result<HashMap<Account, Vec<Target>>> {
    let tenants: Vec<Uuid> = accounts.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = accounts.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT a.tenant_id, a.id AS asked, s.id AS "id!", s.provider AS "provider!", s.portfolio_id,
            regexp_replace(coalesce(s.display_address, ''), '\D', '', 'g') AS "digits!"
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
        JOIN channel_accounts a ON a.tenant_id = asked.tenant_id AND a.id = asked.id
        JOIN channel_accounts s
            ON s.tenant_id = a.tenant_id
            AND (s.id = a.id OR (s.provider = a.provider AND s.business_account_id = a.business_account_id))
        ORDER BY s.tenant_id, s.id"#,
        &tenants,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut siblings: HashMap<Account, Vec<Target>> = HashMap::new();
    for row in rows {
        let tenant_id = TenantId(row.tenant_id);
        siblings.entry((tenant_id, ChannelAccountId(row.asked))).or_default().push(Target {
            account: (tenant_id, ChannelAccountId(row.id)),
            provider: row.provider.parse().ok(),
            portfolio: row.portfolio_id,
            digits: row.digits,
        });
    }
    Ok(siblings)
}

/// Sets what providers allow. Returns the accounts whose rate has changed.
async fn set_rates(tx: &mut FleetTx, rates: &BTreeMap<LimitKey, LastRate>) -> Result<Vec<Account>> {
    if rates.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = rates.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let scopes: Vec<String> = rates.keys().map(|(_, scope, _)| scope.as_str().to_owned()).collect();
    let keys: Vec<Uuid> = rates.keys().map(|(.., key)| *key).collect();
    let times: Vec<DateTime<Utc>> = rates.values().map(|(at, ..)| *at).collect();
    let values: Vec<f64> = rates.values().map(|(_, rate, _)| *rate).collect();
    let costs: Vec<f64> = rates.values().map(|(.., cost)| *cost).collect();
    // In key order, as grants lock them. What throttling has lowered stays so, and creeps back as far as it now may; unless the
    // provider says after it (its times are of seconds) that as much is allowed as before, or more.
    let rows = sqlx::query!(
        r#"INSERT INTO limits AS l (tenant_id, scope, key, rate, current_rate, inbound_cost, told_at, used)
        SELECT tenant_id, scope, key, rate, rate, cost, at, CASE WHEN scope = 'portfolio' THEN (
            SELECT count(*) FROM portfolio_people p WHERE p.tenant_id = told.tenant_id AND p.portfolio_id = told.key
        ) ELSE 0 END
        FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::float8[], $6::float8[])
            AS told (tenant_id, scope, key, at, rate, cost)
        ORDER BY tenant_id, scope, key
        ON CONFLICT (tenant_id, scope, key) DO UPDATE
        SET rate = least(l.wanted, excluded.rate),
            current_rate = CASE
                WHEN l.current_rate >= l.rate
                    OR (least(l.wanted, excluded.rate) >= l.rate AND excluded.told_at >= date_trunc('second', l.lowered_at))
                THEN least(l.wanted, excluded.rate)
                ELSE least(l.current_rate, l.wanted, excluded.rate)
            END,
            -- So many at once are half of what goes in a second, at most.
            burst = CASE WHEN l.scope = 'account' AND l.burst > greatest(1, floor(least(l.wanted, excluded.rate) / 2)) THEN NULL ELSE l.burst END,
            told_at = excluded.told_at
        WHERE l.told_at IS NULL OR excluded.told_at > l.told_at OR (excluded.told_at = l.told_at AND excluded.rate < l.rate)
        RETURNING tenant_id, scope, key"#,
        &tenants,
        &scopes,
        &keys,
        &times,
        &values,
        &costs,
    )
    .fetch_all(tx.conn())
    .await?;
    let of_accounts = rows.into_iter().filter(|row| row.scope == Scope::Account.as_str());
    Ok(of_accounts.map(|row| (TenantId(row.tenant_id), ChannelAccountId(row.key))).collect())
}

async fn change(tx: &mut FleetTx, sums: &BTreeMap<Account, Sum<'_>>) -> Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = sums.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = sums.keys().map(|(_, id)| id.0).collect();
    let text = |text: &str| text.to_owned();
    let qualities: Vec<Option<String>> = sums.values().map(|s| s.quality.map(|(_, word)| text(word))).collect();
    let quality_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.quality.map(|(at, _)| at)).collect();
    let ups: Vec<Option<bool>> = sums.values().map(|s| s.up.map(|(_, Reverse(up), ..)| up)).collect();
    let codes: Vec<Option<String>> = sums.values().map(|s| s.up.map(|(.., code, _)| text(code))).collect();
    let reasons: Vec<Option<String>> = sums.values().map(|s| s.up.map(|(.., reason)| text(reason))).collect();
    let state_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.up.map(|(at, ..)| at)).collect();
    let alerts: Vec<Option<String>> = sums.values().map(|s| s.alert.map(|(_, (code, _))| text(code))).collect();
    let alert_reasons: Vec<Option<String>> = sums.values().map(|s| s.alert.map(|(_, (_, why))| text(why))).collect();
    let alert_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.alert.map(|(at, _)| at)).collect();
    let revised: Vec<bool> = sums.values().map(|s| s.revise).collect();
    let rows = sqlx::query_file!(
        "src/db/inbound/news.sql",
        &tenants,
        &ids,
        &qualities as &[Option<String>],
        &quality_times as &[Option<DateTime<Utc>>],
        &ups as &[Option<bool>],
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
        &state_times as &[Option<DateTime<Utc>>],
        &alerts as &[Option<String>],
        &alert_reasons as &[Option<String>],
        &alert_times as &[Option<DateTime<Utc>>],
        &revised,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in rows.into_iter().filter(|row| row.before == "down" && row.state == "active") {
        let tenant_id = TenantId(row.tenant_id);
        let task = Task::WakeAccount { account: ChannelAccountId(row.id), after: None };
        // Senders wait for this transaction: what waits for the account is looked for in others.
        tx.enqueue(tenant_id, campaigns::QUEUE, CampaignJob { tenant_id, task }.to_job(row.now), None);
    }
    Ok(())
}

/// What all news of one template amounts to.
#[derive(Clone, Debug, Default)]
struct TemplateSum<'a> {
    status: Told<(&'a str, Option<&'a str>)>,
    quality: Told<&'a str>,
    category: Told<&'a str>,
}

/// Changes templates that are known as their provider says. One that is not will be once the account's are fetched, which is asked for.
///
/// # Errors
/// If the database does not answer.
pub async fn apply_to_templates(tx: &mut FleetTx, told: &[TemplateTold<'_>]) -> Result<()> {
    if told.is_empty() {
        return Ok(());
    }
    let mut sums: BTreeMap<(Account, &str, &str), TemplateSum<'_>> = BTreeMap::new();
    for TemplateTold { tenant_id, channel_account_id, change } in told {
        let key = ((*tenant_id, *channel_account_id), change.name.as_str(), change.language.as_str());
        let sum = sums.entry(key).or_default();
        let (at, reason) = (change.at, change.reason.as_deref());
        sum.status = sum.status.max(change.status.as_deref().map(|status| (at, (status, reason))));
        sum.quality = sum.quality.max(change.quality.as_deref().map(|quality| (at, quality)));
        sum.category = sum.category.max(change.category.as_deref().map(|category| (at, category)));
    }
    let tenants: Vec<Uuid> = sums.keys().map(|((tenant_id, _), ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = sums.keys().map(|((_, id), ..)| id.0).collect();
    let names: Vec<String> = sums.keys().map(|(_, name, _)| (*name).to_owned()).collect();
    let languages: Vec<String> = sums.keys().map(|(.., language)| (*language).to_owned()).collect();
    let statuses: Vec<Option<String>> =
        sums.values().map(|s| s.status.map(|(_, (status, _))| status.to_owned())).collect();
    let reasons: Vec<Option<String>> =
        sums.values().map(|s| s.status.and_then(|(_, (_, why))| why).map(str::to_owned)).collect();
    let status_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.status.map(|(at, _)| at)).collect();
    let qualities: Vec<Option<String>> = sums.values().map(|s| s.quality.map(|(_, word)| word.to_owned())).collect();
    let quality_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.quality.map(|(at, _)| at)).collect();
    let categories: Vec<Option<String>> = sums.values().map(|s| s.category.map(|(_, word)| word.to_owned())).collect();
    let category_times: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.category.map(|(at, _)| at)).collect();
    // Before any template is locked: accounts come first. What was fetched since the provider said so is not asked for once more.
    sqlx::query!(
        "WITH stale AS MATERIALIZED (
            SELECT a.tenant_id, a.id, told.at
            FROM (
                SELECT tenant_id, account_id, max(at) AS at
                FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[])
                    AS n (tenant_id, account_id, name, language, at)
                WHERE NOT EXISTS (
                    SELECT FROM templates t
                    WHERE t.tenant_id = n.tenant_id AND t.channel_account_id = n.account_id AND t.name = n.name
                        AND t.language = n.language
                )
                GROUP BY tenant_id, account_id
            ) AS told
            JOIN channel_accounts a ON a.tenant_id = told.tenant_id AND a.id = told.account_id
            WHERE told.at >= date_trunc('second', coalesce(a.templates_stale_at, '-infinity'))
                AND told.at >= date_trunc('second', coalesce(a.templates_synced_at, '-infinity'))
            ORDER BY a.tenant_id, a.id
            FOR NO KEY UPDATE OF a
        )
        UPDATE channel_accounts a
        SET templates_stale_at = clock_timestamp()
        FROM stale
        WHERE a.tenant_id = stale.tenant_id AND a.id = stale.id",
        &tenants,
        &accounts,
        &names,
        &languages,
        &status_times as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    sqlx::query_file!(
        "src/db/inbound/template_news.sql",
        &tenants,
        &accounts,
        &names,
        &languages,
        &statuses as &[Option<String>],
        &reasons as &[Option<String>],
        &status_times as &[Option<DateTime<Utc>>],
        &qualities as &[Option<String>],
        &quality_times as &[Option<DateTime<Utc>>],
        &categories as &[Option<String>],
        &category_times as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
