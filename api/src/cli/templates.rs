//! `mijra templates sync`: fetches an account's templates from its provider, so that the API can say what is wrong with a message
//! before it is accepted.

use super::{
    output::Output,
    settings::{self, Database},
};
use anyhow::Context;
use secrecy::SecretString;
use shared::{
    clock::Clock,
    config::SecretArgs,
    db::{
        self,
        channel_accounts::{Account, AccountSecrets, seal_context},
        templates::Template,
    },
    domain::{channel::Provider, ids::ChannelAccountId},
    providers::whatsapp::templates::{self, TemplateInfo},
    seal::Keyring,
};
use std::{process::ExitCode, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(30);
/// 6,000 templates at most (contract, section 10.2), in several languages.
const MAX_PAGES: usize = 1000;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Fetch the templates of a tenant's WhatsApp accounts
    Sync(Sync),
}

#[derive(clap::Args, Debug)]
pub(super) struct Sync {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only this account.
    #[arg(long)]
    account: Option<ChannelAccountId>,
    /// Where WhatsApp's API is.
    #[arg(long, env = "WHATSAPP_BASE_URL", default_value = "https://graph.facebook.com")]
    whatsapp_base_url: String,
    /// Its version.
    #[arg(long, env = "WHATSAPP_API_VERSION", default_value = "v25.0")]
    whatsapp_api_version: String,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    secrets: SecretArgs,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    let Command::Sync(args) = command;
    let keyring = Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let accounts = db::channel_accounts::list(&mut tx).await?;
    tx.commit().await?;
    // Another provider's token is none of WhatsApp's business.
    let is_wanted = |account: &Account| {
        account.provider == Provider::Whatsapp.as_str() && args.account.is_none_or(|id| account.id == id)
    };
    let wanted: Vec<Account> = accounts.into_iter().filter(is_wanted).collect();
    anyhow::ensure!(!wanted.is_empty(), "tenant {} has no such WhatsApp account", tenant.slug);
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    for account in wanted {
        let opened = keyring.open(&account.secret_key_id, &seal_context(account.id), &account.sealed_secrets)?;
        let secrets: AccountSecrets =
            serde_json::from_slice(&opened).map_err(|_| anyhow::anyhow!("the opened secrets are not of our form"))?;
        let business_account = account.business_account_id.as_deref().context("the account has no business account")?;
        let path = templates::path(&args.whatsapp_api_version, business_account);
        let url = format!("{}{path}", args.whatsapp_base_url.trim_end_matches('/'));
        let found = fetch(&client, &url, &secrets.access_token.into()).await.context(account.name.clone())?;
        let rows: Vec<Template> = found.into_iter().map(row).collect();
        let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
        db::templates::replace(&mut tx, tenant.id, account.id, &rows, Clock::system().now()).await?;
        tx.commit().await?;
        let approved = rows.iter().filter(|template| can_be_sent(template)).count();
        let value = serde_json::json!({"account": account.id, "templates": rows.len(), "approved": approved});
        out.say(&value, &format!("{}: {} templates, {approved} can be sent", account.name, rows.len()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &reqwest::Client, url: &str, token: &SecretString) -> anyhow::Result<Vec<TemplateInfo>> {
    use secrecy::ExposeSecret;
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let mut query = vec![("fields", templates::FIELDS.to_owned()), ("limit", templates::PAGE_SIZE.to_string())];
        query.extend(after.take().map(|cursor| ("after", cursor)));
        let answer = client.get(url).query(&query).bearer_auth(token.expose_secret()).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if !status.is_success() {
            // The provider's error says what to do; it holds no secret of ours.
            let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            anyhow::bail!("WhatsApp answered {status}: {text}");
        }
        let page = templates::parse_page(&body).context("WhatsApp's answer is not a list of templates")?;
        if page.unreadable > 0 {
            tracing::warn!(elements = page.unreadable, "templates that cannot be read were left out");
        }
        found.extend(page.templates);
        match page.next {
            Some(cursor) => after = Some(cursor),
            None => return Ok(found),
        }
    }
    anyhow::bail!("WhatsApp's list does not end")
}

fn can_be_sent(template: &Template) -> bool {
    template.status == "APPROVED" && template.needs.as_ref().is_none_or(|needs| needs.beyond_us.is_none())
}

fn row(info: TemplateInfo) -> Template {
    let TemplateInfo { name, language, status, category, body, variables, needs } = info;
    Template { name, language, status, category, body, variables, needs: Some(needs.into()) }
}
