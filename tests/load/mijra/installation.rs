//! A private Mijra: a migrated database with one tenant and its accounts, as a rule WhatsApp numbers, queues of its own, and its
//! programs as children of the harness.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::auth::BearerToken;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use shared::db::{self, channel_accounts::AccountSecrets};
use shared::domain::channel::{InstagramLogin, Provider};
use shared::domain::ids::{ChannelAccountId, TenantId};
use shared::domain::permissions::Permission;
use shared::providers::gateway;
use shared::queue::Broker;
use shared::seal::Keyring;
use support::database::Role;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use url::Url;

use crate::bare::database::PrivateDatabase;
use crate::bare::wire::{ACCOUNT_SID, Way};
use crate::generate::payload::FIRST_PHONE_NUMBER_ID;
use crate::measure::accounts::Watched;
use crate::measure::proc;
use crate::services::Services;

/// How long a program may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// With which the provider is called.
pub(super) const ACCESS_TOKEN: &str = "load";
pub(super) const APP_SECRET: &str = "stand_in_app_secret_01";

pub(super) struct Installation {
    pub(super) services: Services,
    pub(super) database: PrivateDatabase,
    pub(super) broker: Broker,
    pub(super) tenant_id: TenantId,
    pub(super) accounts: Vec<ChannelAccountId>,
    namespace: String,
    secret_keys: String,
    children: Vec<Program>,
}

struct Program {
    name: &'static str,
    child: Child,
    health: SocketAddr,
}

impl Installation {
    /// Makes the database, the tenant and its WhatsApp numbers, and declares the queues. No program runs yet.
    pub(super) async fn create(services: &Services, numbers: u64) -> Result<Self> {
        Self::create_for(services, Way::Whatsapp, numbers, None).await
    }

    /// The same with accounts of some way. A gateway's description says where it is.
    pub(super) async fn create_for(
        services: &Services,
        way: Way,
        accounts_wanted: u64,
        provider: Option<SocketAddr>,
    ) -> Result<Self> {
        let mut database = PrivateDatabase::create(services.database_url.as_str(), "SELECT 1").await?;
        let url = at(&services.database_url, database.name(), None)?;
        let admin = url.as_str().to_owned().into();
        db::migrate(&admin, true).await.context("migrate")?;
        // Roles belong to the whole server: everybody who uses it has the same passwords for them.
        for role in [Role::Api, Role::Worker] {
            db::allow_login(&admin, role.name(), &role.password().into()).await.context("let roles log in")?;
        }
        let key: [u8; 32] = rand::random();
        let secret_keys = format!("load:{}", BASE64.encode(key));
        let keyring = Keyring::parse(&secret_keys.clone().into())?;
        let namespace = format!("load-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let broker = Broker::new(shared::queue::Settings {
            url: services.amqp_url.as_str().to_owned().into(),
            namespace: namespace.clone(),
            process: "load".into(),
        });
        broker.declare().await.context("declare Mijra's queues")?;
        let tenant_id = TenantId::new();
        let mut accounts = Vec::new();
        let conn = database.connection();
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'load', 'Load')")
            .bind(tenant_id)
            .execute(&mut *conn)
            .await?;
        for number in 0..accounts_wanted {
            let id = ChannelAccountId::new();
            let account = Account::of(way, number, provider)?;
            let secrets = serde_json::to_vec(&account.secrets)?;
            let sealed = keyring.seal(&db::channel_accounts::seal_context(id), &secrets);
            sqlx::query(
                "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, business_account_id, sealed_secrets, secret_key_id, gateway)
                VALUES ($1, $2, $3, 'load', $4, $5, $6, $7, $8)",
            )
            .bind(tenant_id)
            .bind(id)
            .bind(account.provider.as_str())
            .bind(&account.external_id)
            .bind(account.business_account_id)
            .bind(&sealed.bytes)
            .bind(&sealed.key_id)
            .bind(&account.gateway)
            .execute(&mut *conn)
            .await?;
            accounts.push(id);
            // The others' webhooks are nobody's here.
            if way != Way::Whatsapp {
                continue;
            }
            let external_id = account.external_id;
            sqlx::query(
                "INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
                VALUES ('whatsapp', 'phone_number_id', $1, $2, $3)",
            )
            .bind(&external_id)
            .bind(tenant_id)
            .bind(id)
            .execute(&mut *conn)
            .await?;
        }
        let services = services.clone();
        Ok(Self { services, database, broker, tenant_id, accounts, namespace, secret_keys, children: Vec::new() })
    }

    /// Limits an account to so many messages a second.
    pub(super) async fn limit(&mut self, account: ChannelAccountId, rate: f64) -> Result<()> {
        sqlx::query(
            "INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, $3, $3)",
        )
        .bind(self.tenant_id)
        .bind(account)
        .bind(rate)
        .execute(self.database.connection())
        .await?;
        Ok(())
    }

    /// A token for the API that may do everything.
    pub(super) async fn token(&mut self) -> Result<String> {
        let (token, text) = BearerToken::generate();
        let permissions: Vec<&str> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
        sqlx::query(
            "INSERT INTO api_tokens (tenant_id, id, name, digest, permissions) VALUES ($1, $2, 'load', $3, $4)",
        )
        .bind(self.tenant_id)
        .bind(token.id)
        .bind(token.digest.as_slice())
        .bind(permissions)
        .execute(self.database.connection())
        .await?;
        Ok(text)
    }

    /// The database's address for a role.
    pub(super) fn url(&self, role: Role) -> Result<String> {
        Ok(at(&self.services.database_url, self.database.name(), Some(role))?.into())
    }

    /// Starts a program and returns where it listens.
    pub(super) async fn start(&mut self, name: &'static str, settings: &[(&str, String)]) -> Result<SocketAddr> {
        let listen = free_address().await?;
        let health = free_address().await?;
        let role = if name == "mijra-api" { Role::Api } else { Role::Worker };
        let url = at(&self.services.database_url, self.database.name(), Some(role))?;
        let child = Command::new(program(name)?)
            .env_clear()
            .env("DATABASE_URL", url.as_str())
            .env("AMQP_URL", self.services.amqp_url.as_str())
            .env("REDIS_URL", self.services.redis_url.as_str())
            .env("MIJRA_NAMESPACE", &self.namespace)
            .env("MIJRA_SECRET_KEYS", &self.secret_keys)
            .env("STORAGE_URL", format!("file://{}", std::env::temp_dir().join(&self.namespace).display()))
            .env("WHATSAPP_APP_SECRET", APP_SECRET)
            .env("WHATSAPP_VERIFY_TOKEN", "load")
            .env("API_LISTEN", listen.to_string())
            .env("HEALTH_LISTEN", health.to_string())
            .env("RUST_LOG", "warn")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.children.push(Program { name, child, health });
        Ok(listen)
    }

    /// Waits until every program says that it is ready.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let client = reqwest::Client::new();
        let began = Instant::now();
        for program in &mut self.children {
            let url = format!("http://{}/readyz", program.health);
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                if let Some(status) = program.child.try_wait()? {
                    bail!("{} ended with {status}", program.name);
                }
                if began.elapsed() > READY_WITHIN {
                    bail!("{} was not ready within {} s", program.name, READY_WITHIN.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Its programs and the servers they use.
    pub(super) fn processes(&self) -> Result<Vec<Watched>> {
        let mut watched = vec![self.services.rabbitmq()?, self.services.postgres()?];
        for program in &self.children {
            watched.push(Watched::part(program.name, program.child.id().context("it runs")?));
        }
        Ok(watched)
    }

    /// The most memory that each of its programs has had so far, in bytes.
    pub(super) fn peaks(&self) -> Vec<(&'static str, u64)> {
        let peak = |program: &Program| Some((program.name, proc::peak_memory_bytes(program.child.id()?)?));
        self.children.iter().filter_map(peak).collect()
    }

    /// The sum of a metric over the programs of a name and all of its labels that hold `label`.
    pub(super) async fn metric(&self, name: &str, metric: &str, label: &str) -> Result<f64> {
        let mut sum = 0.0;
        for program in self.children.iter().filter(|program| program.name == name) {
            let text = reqwest::get(format!("http://{}/metrics", program.health)).await?.text().await?;
            // `name value`, or `name{labels} value`.
            let lines = text.lines().filter_map(|line| line.strip_prefix(metric)?.rsplit_once(' '));
            let ours = lines.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
            let wanted = ours.filter(|(labels, _)| labels.contains(label));
            sum += wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(sum)
    }

    /// Kills the first program of a name (SIGKILL). It is not started again by itself.
    pub(super) async fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.children.iter().position(|program| program.name == name);
        let mut program = self.children.remove(at.with_context(|| format!("no {name} runs"))?);
        program.child.kill().await.with_context(|| format!("kill {name}"))
    }

    /// Sends a signal to the programs of a name.
    pub(super) async fn signal_to(&self, name: &str, signal: &str) -> Result<()> {
        for program in self.children.iter().filter(|program| program.name == name) {
            program.signal(signal).await?;
        }
        Ok(())
    }

    /// Sends a signal to all its programs.
    pub(super) async fn signal(&self, signal: &str) -> Result<()> {
        for program in &self.children {
            program.signal(signal).await?;
        }
        Ok(())
    }

    /// Ends its programs and removes its queues and database.
    pub(super) async fn stop(mut self) -> Result<()> {
        let ended = self.end_programs().await;
        self.broker.remove().await?;
        self.database.remove().await?;
        ended
    }

    async fn end_programs(&mut self) -> Result<()> {
        self.signal("TERM").await?;
        for program in &mut self.children {
            let ended = tokio::time::timeout(STOP_WITHIN, program.child.wait()).await;
            let Ok(status) = ended else {
                program.child.kill().await?;
                bail!("{} did not end within {} s", program.name, STOP_WITHIN.as_secs());
            };
            let status = status?;
            anyhow::ensure!(status.success(), "{} ended with {status}", program.name);
        }
        Ok(())
    }
}

/// An account, as its row and its secrets say it.
struct Account {
    provider: Provider,
    external_id: String,
    business_account_id: Option<&'static str>,
    secrets: AccountSecrets,
    gateway: Option<serde_json::Value>,
}

impl Account {
    /// The nth of a way.
    fn of(way: Way, nth: u64, provider: Option<SocketAddr>) -> Result<Self> {
        let (at, external_id) = match way {
            Way::Whatsapp => (Provider::Whatsapp, (FIRST_PHONE_NUMBER_ID + nth).to_string()),
            Way::Messenger => (Provider::Messenger, format!("1009{nth:011}")),
            Way::Instagram => (Provider::Instagram, format!("178414{nth:011}")),
            Way::TwilioSms => (Provider::Twilio, format!("+1503{nth:07}")),
            Way::TwilioWhatsapp => (Provider::Twilio, format!("whatsapp:+1503{nth:07}")),
            Way::Gateway => (Provider::Gateway, format!("whatsapp:+9198{nth:08}")),
        };
        let gateway = match (way, provider) {
            (Way::Gateway, Some(provider)) => {
                let mut described = gateway::preset("botmaster").context("it is built in")?;
                described.url = format!("http://{provider}/api/v1/?action=send");
                Some(serde_json::to_value(described)?)
            }
            (Way::Gateway, None) => bail!("a gateway's address is not known"),
            _ => None,
        };
        let login = (way == Way::Instagram).then_some(InstagramLogin::Page);
        Ok(Self {
            provider: at,
            external_id,
            business_account_id: (at == Provider::Twilio).then_some(ACCOUNT_SID),
            secrets: AccountSecrets { access_token: ACCESS_TOKEN.into(), login, ..AccountSecrets::default() },
            gateway,
        })
    }
}

impl Program {
    async fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().await?;
        anyhow::ensure!(sent.success(), "{signal} to {}", self.name);
        Ok(())
    }
}

/// A program beside this one.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is not built: cargo build --release --workspace --bins", path.display());
    Ok(path)
}

fn at(server: &Url, database: &str, role: Option<Role>) -> Result<Url> {
    let mut url = server.clone();
    url.set_path(database);
    if let Some(role) = role {
        let named = url.set_username(role.name()).and_then(|()| url.set_password(Some(&role.password())));
        named.map_err(|()| anyhow::anyhow!("a role cannot be named in {server}"))?;
    }
    Ok(url)
}

async fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}
