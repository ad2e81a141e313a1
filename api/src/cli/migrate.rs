//! `mijra migrate`: brings the databases to this release's schema. The one command that logs in as the tables' owner.

use super::output::Output;
use anyhow::Context;
use secrecy::SecretString;
use serde_json::json;
use shared::{
    config::{SecretUrl, SecretUrls},
    db,
};
use std::process::ExitCode;

/// The roles of the programs, with the variable that holds each one's password.
const LOGINS: [(&str, &str); 3] = [
    ("mijra_api", "MIJRA_API_PASSWORD"),
    ("mijra_worker", "MIJRA_WORKER_PASSWORD"),
    ("mijra_operator", "MIJRA_OPERATOR_PASSWORD"),
];

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The control database, as the owner of its tables.
    #[arg(long, env = "MIGRATE_DATABASE_URL", hide_env_values = true)]
    migrate_database_url: Option<SecretUrl>,
    /// Taken if no other is given.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretUrl>,
    /// Further databases, as the owner of their tables: `name=url,name2=url2`.
    #[arg(long, env = "MIGRATE_PLACEMENTS", hide_env_values = true, default_value = "")]
    migrate_placements: SecretUrls,
    /// Let the programs' roles log in, with the passwords below.
    #[arg(long)]
    with_logins: bool,
    #[arg(long, env = "MIJRA_API_PASSWORD", hide_env_values = true)]
    api_password: Option<SecretString>,
    #[arg(long, env = "MIJRA_WORKER_PASSWORD", hide_env_values = true)]
    worker_password: Option<SecretString>,
    #[arg(long, env = "MIJRA_OPERATOR_PASSWORD", hide_env_values = true)]
    operator_password: Option<SecretString>,
}

pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let control =
        args.migrate_database_url.or(args.database_url).context("set MIGRATE_DATABASE_URL or DATABASE_URL")?;
    let mut databases = vec![("primary".to_owned(), control.secret().clone())];
    databases.extend(args.migrate_placements.by_name("MIGRATE_PLACEMENTS")?);
    let passwords = [args.api_password, args.worker_password, args.operator_password];
    let logins: Vec<(&str, SecretString)> = match args.with_logins {
        false => Vec::new(),
        true => LOGINS
            .into_iter()
            .zip(passwords)
            .map(|((role, variable), password)| Ok((role, password.with_context(|| format!("set {variable}"))?)))
            .collect::<anyhow::Result<_>>()?,
    };
    for (name, url) in &databases {
        let migrated = db::migrate(url, name == "primary").await.with_context(|| format!("database {name}"))?;
        for (role, password) in &logins {
            db::allow_login(url, role, password).await.with_context(|| format!("login of {role} in {name}"))?;
        }
        let value =
            json!({"database": name, "control": migrated.control, "tenant": migrated.tenant, "logins": logins.len()});
        let control = migrated.control.map(|version| format!("control {version}, ")).unwrap_or_default();
        out.say(&value, &format!("{name}: {control}tenant {}", migrated.tenant))?;
    }
    Ok(ExitCode::SUCCESS)
}
