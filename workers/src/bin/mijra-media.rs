//! Files of messages → storage; names and pictures of people; templates of accounts.

use anyhow::Context;
use clap::Args;
use shared::{
    config::{Mistake, ProviderApis, SecretArgs, StorageArgs},
    providers::{
        download::{Downloader, Hosts},
        templates::TemplateClient,
    },
    seal::Keyring,
    storage::Storage,
};
use std::{path::PathBuf, process::ExitCode};
use workers::{
    boot,
    media::{MediaSettings, MediaWorker},
};

#[derive(Args, Debug)]
struct Own {
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    apis: ProviderApis,
    /// Where files may lie besides the providers' own hosts: `files.example.com` (over TLS, at a public address), or
    /// `http://127.0.0.1:8081` for a stand-in, wherever that is.
    #[arg(long, env = "MEDIA_ALLOWED_HOSTS", default_value = "")]
    media_allowed_hosts: String,
    /// So many files are fetched at once.
    #[arg(long, env = "MEDIA_AT_ONCE", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    media_at_once: u16,
    /// What is on its way lies here, on a disk with room for it; beside the files if they are in a folder.
    #[arg(long, env = "MEDIA_INCOMING_FOLDER")]
    media_incoming_folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    boot::run(async |process: &boot::Process<Own>| {
        let own = &process.own;
        let mistake = |setting, problem: String| Mistake { setting, problem };
        let mut hosts = Hosts::parse(&own.media_allowed_hosts)
            .map_err(|error| mistake("MEDIA_ALLOWED_HOSTS", error.to_string()))?;
        own.apis.bases().into_iter().for_each(|base| hosts.trust(base));
        let storage = Storage::open(&own.storage)?;
        let beside = storage.folder().map(|folder| folder.join("incoming"));
        let folder = own.media_incoming_folder.clone().or(beside).unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&folder)
            .map_err(|error| mistake("MEDIA_INCOMING_FOLDER", format!("{}: {error}", folder.display())))?;
        tracing::info!(%storage, incoming = %folder.display(), "files");
        let settings = MediaSettings { apis: own.apis.clone(), at_once: own.media_at_once.into(), folder };
        let keyring = Keyring::parse(&own.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
        let parts = &process.parts;
        Ok(MediaWorker::new(
            parts.databases.clone(),
            keyring,
            (Downloader::new(hosts)?, TemplateClient::new(own.apis.clone())?),
            storage,
            settings,
            &parts.readiness,
            &parts.life,
        ))
    })
}
