//! Settings, read once when a process starts: from the command line or the environment, in groups that each binary picks
//! from. Nothing else reads the environment. Secrets are [`SecretString`]s and never shown, also not in a message about a
//! mistake in them: they are taken as they are and checked when they are used.

mod secret_url;

pub use secret_url::{SecretUrl, SecretUrls};

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use std::{net::SocketAddr, num::ParseIntError, time::Duration};

/// A setting that cannot be used; says which, and never the secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct Mistake {
    /// Its name in the environment.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What every process has.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// How logs are written, to standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    pub log_format: LogFormat,
    /// Which logs are written, e.g. `info,workers=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_filter: String,
    /// Prefix of queues and cache keys, so that several installations can share a broker and a cache.
    #[arg(long, env = "MIJRA_NAMESPACE", default_value = "mijra")]
    pub namespace: String,
    /// How long stopping may take, in seconds; below what the supervisor allows before it kills. mijra-outbound, unless it is set: as long
    /// as its longest call, and 10 to write it down.
    #[arg(long, env = "GRACE_PERIOD_SECONDS", default_value = "25", value_parser = seconds)]
    pub grace_period: Duration,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// How to reach Postgres.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The control database; tenants are placed here, too, unless told otherwise.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretUrl,
    /// Further databases in which tenants are placed: `name=url,name2=url2`.
    #[arg(long, env = "PLACEMENTS", hide_env_values = true, default_value = "")]
    pub placements: SecretUrls,
    /// Connections to each database, at most.
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_max_connections: u32,
}

/// How to reach RabbitMQ.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// `amqp://user:password@host:port/vhost`, the vhost escaped (`%2f` for `/`).
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: SecretUrl,
}

/// How to reach Redis.
#[derive(Args, Clone, Debug)]
pub struct RedisArgs {
    /// `redis://host:port`.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretUrl,
}

/// The keys that seal secrets at rest.
#[derive(Args, Clone, Debug)]
pub struct SecretArgs {
    /// `id:base64,id2:base64`: the first seals, all open.
    #[arg(long = "secret-keys", env = "MIJRA_SECRET_KEYS", hide_env_values = true)]
    pub secret_keys: SecretString,
}

/// Where we are reached from outside.
#[derive(Args, Clone, Debug)]
pub struct PublicUrlArgs {
    /// Where Mijra is reached from outside: scheme, host and, where it is part of it, port and path. Webhook addresses are shown with
    /// it, and Twilio signs them.
    #[arg(long, env = "PUBLIC_URL", default_value = "http://127.0.0.1:8080", value_parser = public_url)]
    pub public_url: String,
}

/// How to talk with WhatsApp.
#[derive(Args, Clone, Debug)]
pub struct WhatsappArgs {
    /// The app's secret, with which Meta signs webhooks of the platform's path; several, comma-separated, while it is changed.
    #[arg(long, env = "WHATSAPP_APP_SECRET", hide_env_values = true, value_delimiter = ',')]
    pub whatsapp_app_secret: Vec<SecretString>,
    /// The word that the handshake must bring.
    #[arg(long, env = "WHATSAPP_VERIFY_TOKEN", hide_env_values = true)]
    pub whatsapp_verify_token: Option<SecretString>,
}

/// Where providers' APIs are. The product only ever knows a base URL.
#[derive(Args, Clone, Debug)]
pub struct ProviderApis {
    /// Where WhatsApp's API is.
    #[arg(long, env = "WHATSAPP_BASE_URL", default_value = "https://graph.facebook.com")]
    pub whatsapp_base_url: url::Url,
    /// Its version.
    #[arg(long, env = "WHATSAPP_API_VERSION", default_value = "v25.0")]
    pub whatsapp_api_version: String,
    /// Where Messenger's API is, and Instagram's for accounts that log in by their Page.
    #[arg(long, env = "MESSENGER_BASE_URL", default_value = "https://graph.facebook.com")]
    pub messenger_base_url: url::Url,
    /// Its version.
    #[arg(long, env = "MESSENGER_API_VERSION", default_value = "v25.0")]
    pub messenger_api_version: String,
    /// Where Instagram's own API is.
    #[arg(long, env = "INSTAGRAM_BASE_URL", default_value = "https://graph.instagram.com")]
    pub instagram_base_url: url::Url,
    /// Its version.
    #[arg(long, env = "INSTAGRAM_API_VERSION", default_value = "v25.0")]
    pub instagram_api_version: String,
    /// Where Twilio's API is.
    #[arg(long, env = "TWILIO_BASE_URL", default_value = "https://api.twilio.com")]
    pub twilio_base_url: url::Url,
    /// Where Twilio's API of templates is.
    #[arg(long, env = "TWILIO_CONTENT_BASE_URL", default_value = "https://content.twilio.com")]
    pub twilio_content_base_url: url::Url,
    /// Where Twilio's API of senders and typing indicators is.
    #[arg(long, env = "TWILIO_MESSAGING_BASE_URL", default_value = "https://messaging.twilio.com")]
    pub twilio_messaging_base_url: url::Url,
}

impl ProviderApis {
    /// All of them, for who trusts them.
    pub fn bases(&self) -> [&url::Url; 6] {
        [
            &self.whatsapp_base_url,
            &self.messenger_base_url,
            &self.instagram_base_url,
            &self.twilio_base_url,
            &self.twilio_content_base_url,
            &self.twilio_messaging_base_url,
        ]
    }
}

/// Where files are kept.
#[derive(Args, Clone, Debug)]
pub struct StorageArgs {
    /// A folder (`file:///var/lib/mijra`), or a bucket of anything that speaks S3 (`s3://bucket/prefix`).
    #[arg(long, env = "STORAGE_URL", default_value = "file:storage")]
    pub storage_url: String,
    /// S3: where it is, if it is not Amazon's.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    pub aws_endpoint_url: Option<url::Url>,
    /// S3: the bucket's region.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub aws_region: String,
    /// S3: as who we ask; if not set, as the machine we run on.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true)]
    pub aws_access_key_id: Option<SecretString>,
    /// S3: what proves it.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub aws_secret_access_key: Option<SecretString>,
    /// S3: what goes with credentials that last only for a while.
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true)]
    pub aws_session_token: Option<SecretString>,
}

/// How to talk with Messenger.
#[derive(Args, Clone, Debug)]
pub struct MessengerArgs {
    /// The app's secret, with which Meta signs webhooks of the platform's path; several, comma-separated, while it is changed.
    #[arg(long, env = "MESSENGER_APP_SECRET", hide_env_values = true, value_delimiter = ',')]
    pub messenger_app_secret: Vec<SecretString>,
    /// The word that the handshake must bring.
    #[arg(long, env = "MESSENGER_VERIFY_TOKEN", hide_env_values = true)]
    pub messenger_verify_token: Option<SecretString>,
    /// Where the API is.
    #[arg(long, env = "MESSENGER_BASE_URL", default_value = "https://graph.facebook.com")]
    pub messenger_base_url: url::Url,
    /// The API's version.
    #[arg(long, env = "MESSENGER_API_VERSION", default_value = "v25.0")]
    pub messenger_api_version: String,
}

/// How to talk with Instagram. An account that logs in by its Page is reached as the Page is, by [`MessengerArgs`].
#[derive(Args, Clone, Debug)]
pub struct InstagramArgs {
    /// With what webhooks of the platform's path are signed: the Instagram app's secret, the Meta app's, or both, comma-separated.
    #[arg(long, env = "INSTAGRAM_APP_SECRET", hide_env_values = true, value_delimiter = ',')]
    pub instagram_app_secret: Vec<SecretString>,
    /// The word that the handshake must bring.
    #[arg(long, env = "INSTAGRAM_VERIFY_TOKEN", hide_env_values = true)]
    pub instagram_verify_token: Option<SecretString>,
    /// Where the API of accounts with Instagram Login is.
    #[arg(long, env = "INSTAGRAM_BASE_URL", default_value = "https://graph.instagram.com")]
    pub instagram_base_url: url::Url,
    /// The API's version.
    #[arg(long, env = "INSTAGRAM_API_VERSION", default_value = "v25.0")]
    pub instagram_api_version: String,
}

/// How to talk with Twilio.
#[derive(Args, Clone, Debug)]
pub struct TwilioArgs {
    /// The auth tokens with which webhooks of the platform's path are signed, comma-separated: of each account and subaccount, and
    /// during a rotation its primary and secondary one.
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true, value_delimiter = ',')]
    pub twilio_auth_token: Vec<SecretString>,
    /// Where the API is.
    #[arg(long, env = "TWILIO_BASE_URL", default_value = "https://api.twilio.com")]
    pub twilio_base_url: url::Url,
}

/// Where health and metrics are served.
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// Address of `/livez`, `/readyz` and `/metrics`; port 0 takes a free one and logs it.
    #[arg(long, env = "HEALTH_LISTEN", default_value = "127.0.0.1:0")]
    pub health_listen: SocketAddr,
}

fn seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// As it is written, but for a slash at its end: whoever signs it does not normalise it.
fn public_url(text: &str) -> Result<String, String> {
    let url: url::Url = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.query().is_none() && url.fragment().is_none() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("must be an http or https URL without query and fragment".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// Everything at once, as a process would have it.
    #[derive(Parser, Debug)]
    struct Everything {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        broker: BrokerArgs,
        #[command(flatten)]
        redis: RedisArgs,
        #[command(flatten)]
        secrets: SecretArgs,
        #[command(flatten)]
        whatsapp: WhatsappArgs,
        #[command(flatten)]
        storage: StorageArgs,
        #[command(flatten)]
        messenger: MessengerArgs,
        #[command(flatten)]
        instagram: InstagramArgs,
        #[command(flatten)]
        twilio: TwilioArgs,
        #[command(flatten)]
        public_url: PublicUrlArgs,
        #[command(flatten)]
        health: HealthArgs,
    }

    fn parse(more: &[&str]) -> Result<Everything, clap::Error> {
        let all = [
            "test",
            "--database-url=postgres://worker:hunter2@db/mijra",
            "--placements=big=postgres://worker:hunter2@big/mijra",
            "--amqp-url=amqp://mijra:hunter2@mq/%2f",
            "--redis-url=redis://:hunter2@cache",
            "--secret-keys=2026:hunter2",
            "--whatsapp-app-secret=hunter2",
            "--whatsapp-verify-token=hunter2",
            "--aws-access-key-id=hunter2",
            "--aws-secret-access-key=hunter2",
            "--aws-session-token=hunter2",
            "--messenger-app-secret=hunter2,hunter2",
            "--messenger-verify-token=hunter2",
            "--instagram-app-secret=hunter2",
            "--instagram-verify-token=hunter2",
            "--twilio-auth-token=hunter2",
        ];
        Everything::try_parse_from(all.iter().chain(more))
    }

    #[test]
    fn secrets_are_never_shown() {
        let everything = parse(&[]).unwrap();
        let shown = format!("{everything:?} {} {}", everything.database.database_url, everything.broker.amqp_url);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("db/mijra"), "what is no secret helps: {shown}");
    }

    #[test]
    fn a_secret_with_a_mistake_is_not_shown_either() {
        let wrong = parse(&["--placements=hunter3", "--database-url=hunter4"]);
        // Twice the same argument is refused by name; a broken value is only found when it is used.
        assert!(!wrong.unwrap_err().to_string().contains("hunter"));
        let broken: SecretUrls = "big;postgres://u:hunter5@h/d".into();
        let mistake = broken.by_name("PLACEMENTS").unwrap_err();
        assert!(!mistake.to_string().contains("hunter"), "{mistake}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for wrong in [
            "--grace-period=soon",
            "--database-max-connections=0",
            "--health-listen=here",
            "--log-format=xml",
            "--public-url=mijra.example",
            "--public-url=ftp://mijra.example",
            "--public-url=https://mijra.example/?a=b",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        let right = parse(&["--grace-period=3", "--log-format=json"]).unwrap();
        assert_eq!((right.common.grace_period, right.common.log_format), (Duration::from_secs(3), LogFormat::Json));
    }
    #[test]
    fn a_secret_may_be_several_and_a_public_url_stays_as_it_is_written() {
        let more =
            ["--twilio-auth-token=one,two", "--twilio-auth-token=three", "--public-url=https://Mijra.example:443/in/"];
        let everything = parse(&more).unwrap();
        // Those above, and these three.
        assert_eq!(everything.twilio.twilio_auth_token.len(), 4);
        assert_eq!(everything.messenger.messenger_app_secret.len(), 2);
        assert_eq!(everything.public_url.public_url, "https://Mijra.example:443/in");
    }
}
