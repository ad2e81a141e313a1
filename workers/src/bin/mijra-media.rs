//! Files of messages → storage; names and pictures of people.

use anyhow::Context;
use clap::Args;
use shared::{
    config::{Mistake, SecretArgs, StorageArgs},
    providers::download::{Downloader, Hosts},
    seal::Keyring,
    storage::Storage,
};
use std::{path::PathBuf, process::ExitCode};
use url::Url;
use workers::{
    boot,
    media::{Apis, MediaSettings, MediaWorker},
};

#[derive(Args, Debug)]
struct Own {
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    storage: StorageArgs,
    /// Where WhatsApp's API is.
    #[arg(long, env = "WHATSAPP_BASE_URL", default_value = "https://graph.facebook.com")]
    whatsapp_base_url: Url,
    /// Its version.
    #[arg(long, env = "WHATSAPP_API_VERSION", default_value = "v25.0")]
    whatsapp_api_version: String,
    /// Where Messenger's API is, and Instagram's for accounts that log in by their Page.
    #[arg(long, env = "MESSENGER_BASE_URL", default_value = "https://graph.facebook.com")]
    messenger_base_url: Url,
    /// Its version.
    #[arg(long, env = "MESSENGER_API_VERSION", default_value = "v25.0")]
    messenger_api_version: String,
    /// Where Instagram's own API is.
    #[arg(long, env = "INSTAGRAM_BASE_URL", default_value = "https://graph.instagram.com")]
    instagram_base_url: Url,
    /// Its version.
    #[arg(long, env = "INSTAGRAM_API_VERSION", default_value = "v25.0")]
    instagram_api_version: String,
    /// Where Twilio's API is.
    #[arg(long, env = "TWILIO_BASE_URL", default_value = "https://api.twilio.com")]
    twilio_base_url: Url,
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
        let apis = [&own.whatsapp_base_url, &own.messenger_base_url, &own.instagram_base_url, &own.twilio_base_url];
        apis.into_iter().for_each(|base| hosts.trust(base));
        let storage = Storage::open(&own.storage)?;
        let beside = storage.folder().map(|folder| folder.join("incoming"));
        let folder = own.media_incoming_folder.clone().or(beside).unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&folder)
            .map_err(|error| mistake("MEDIA_INCOMING_FOLDER", format!("{}: {error}", folder.display())))?;
        tracing::info!(%storage, incoming = %folder.display(), "files");
        let settings = MediaSettings {
            apis: Apis {
                whatsapp: own.whatsapp_base_url.clone(),
                whatsapp_version: own.whatsapp_api_version.clone(),
                messenger: own.messenger_base_url.clone(),
                messenger_version: own.messenger_api_version.clone(),
                instagram: own.instagram_base_url.clone(),
                instagram_version: own.instagram_api_version.clone(),
                twilio: own.twilio_base_url.clone(),
            },
            at_once: own.media_at_once.into(),
            folder,
        };
        let keyring = Keyring::parse(&own.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
        let parts = &process.parts;
        Ok(MediaWorker::new(
            parts.databases.clone(),
            keyring,
            Downloader::new(hosts)?,
            storage,
            settings,
            &parts.readiness,
            &parts.life,
        ))
    })
}
