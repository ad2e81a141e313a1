//! `mijra templates create` and `delete`.

use super::{Asking, Desk, owner_of};
use crate::{cli::output::Output, routes::templates::checked_name};
use anyhow::Context;
use secrecy::SecretString;
use serde_json::Value;
use shared::{
    db::{
        audit::Actor,
        templates::{
            local::{self, NewLocal},
            making,
        },
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, FileId, TemplateId},
        languages,
        local_templates::CATEGORIES,
        templates::placeholders,
    },
    providers::templates::{Form, NewTemplate},
};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Create {
    /// Its name.
    name: String,
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// At which account's provider; without, it is one of the tenant's own.
    #[arg(long)]
    account: Option<String>,
    /// Its language's code, such as en or pt_BR.
    #[arg(long)]
    language: String,
    /// At a provider MARKETING, UTILITY or AUTHENTICATION; else greeting, follow_up, reminder, promotional or custom.
    #[arg(long)]
    category: String,
    /// The words, with `{{1}}` or `{{name}}`; of the tenant's own also `{name}`.
    #[arg(long)]
    body: Option<String>,
    /// At a provider: what stands for a variable when it is looked at, `1=Ada`; repeat it.
    #[arg(long = "example", value_parser = example)]
    examples: Vec<(String, String)>,
    /// WhatsApp: the words below.
    #[arg(long)]
    footer: Option<String>,
    /// At a provider, instead of a body: a file with WhatsApp's components or Twilio's types, as JSON.
    #[arg(long)]
    components: Option<PathBuf>,
    /// Of the tenant's own: the id of an uploaded file that goes with the words; repeat it.
    #[arg(long = "file")]
    files: Vec<FileId>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Delete {
    /// The template's id.
    id: TemplateId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    asking: Asking,
}

fn example(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be a variable and its example, such as 1=Ada")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn create(args: Create, out: &Output) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(&args.asking, &args.tenant).await?;
    let Create { name, account, language, category, body, examples, footer, components, files, .. } = args;
    let Some(account) = account else {
        anyhow::ensure!(
            examples.is_empty() && footer.is_none() && components.is_none(),
            "examples, a footer and components are a provider's: say --account"
        );
        anyhow::ensure!(CATEGORIES.contains(&category.as_str()), "--category must be one of {}", CATEGORIES.join(", "));
        let name = checked_name(&name).map_err(|_| anyhow::anyhow!("a name has 1 to 200 characters"))?;
        let language = languages::typed(&language).map_err(|error| anyhow::anyhow!("--language {error}"))?;
        let body = body.unwrap_or_default();
        anyhow::ensure!(!body.trim().is_empty() || !files.is_empty(), "say --body, or --file");
        let mut tx = desk.databases.tenant(&desk.tenant.placement, desk.tenant.id).await?;
        let found = shared::db::files::find(&mut tx, &files).await?;
        let missing = files.iter().find(|id| found.iter().all(|file| file.id != **id));
        anyhow::ensure!(missing.is_none(), "there is no file {}", missing.map(ToString::to_string).unwrap_or_default());
        let new = NewLocal { name, language, category: &category, body: &body, files: &files };
        let id = local::create(&mut tx, &new, Actor::Operator).await?;
        let id = id.with_context(|| format!("there is a template {name} in {language}"))?;
        tx.commit().await?;
        out.say(&serde_json::json!({"id": id, "kind": "local"}), &format!("template {name} in {language} ({id})"))?;
        return Ok(ExitCode::SUCCESS);
    };
    anyhow::ensure!(files.is_empty(), "only a template of the tenant's own has files");
    let found = desk
        .accounts(Some(&account))
        .await?
        .pop()
        .with_context(|| format!("{account} is no account of WhatsApp or Twilio"))?;
    let provider: Provider = found.provider.parse()?;
    let form = match (body, components) {
        (Some(body), None) => Form::Words { body, examples: examples.into_iter().collect::<BTreeMap<_, _>>(), footer },
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            Form::Raw(serde_json::from_str::<Value>(&text).with_context(|| path.display().to_string())?)
        }
        _ => anyhow::bail!("say either --body or --components"),
    };
    let is_named = match &form {
        Form::Raw(raw) => placeholders(&raw.to_string()).iter().any(|name| name.parse::<u32>().is_err()),
        Form::Words { .. } => false,
    };
    let new = NewTemplate { name, language, category, form, is_named };
    if let Err(problems) = new.check(provider) {
        let said: Vec<String> =
            problems.iter().map(|problem| format!("{} {}", problem.field, problem.message)).collect();
        anyhow::bail!("{}", said.join("; "));
    }
    let secrets = desk.open_secrets(&found)?;
    let token = SecretString::from(secrets.access_token.as_str());
    let made = desk.client.make(&owner_of(&found, &secrets, &token)?, &new).await?;
    let template = new.described(provider, &made);
    let mut tx = desk.databases.tenant(&desk.tenant.placement, desk.tenant.id).await?;
    let id = making::keep(&mut tx, found.id, &template, Actor::Operator).await?;
    tx.commit().await?;
    let value =
        serde_json::json!({"id": id, "kind": "provider", "provider_id": made.provider_id, "status": made.status});
    out.say(&value, &format!("template {} in {} is {} ({})", new.name, new.language, made.status, made.provider_id))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn delete(args: Delete, out: &Output) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(&args.asking, &args.tenant).await?;
    let mut tx = desk.databases.tenant(&desk.tenant.placement, desk.tenant.id).await?;
    let found = shared::db::templates::show(&mut tx, args.id).await?;
    let found = found.with_context(|| format!("{} has no template {}", desk.tenant.slug, args.id))?;
    anyhow::ensure!(
        !["QUEUED", "CALLING"].contains(&found.status.as_str()),
        "template {} is being made: delete it once that has come to something",
        found.name
    );
    if local::remove(&mut tx, args.id, Actor::Operator).await? {
        tx.commit().await?;
    } else {
        tx.commit().await?;
        let account = found.channel_account_id.map(ChannelAccountId).context("it belongs to no account")?;
        // What was never made is nothing to its provider.
        if found.status != "REFUSED" {
            let account = desk.accounts(Some(&account.to_string())).await?.pop().context("its account is gone")?;
            let secrets = desk.open_secrets(&account)?;
            let token = SecretString::from(secrets.access_token.as_str());
            let owner = owner_of(&account, &secrets, &token)?;
            desk.client.delete(&owner, &found.name, found.provider_id.as_deref()).await?;
        }
        let mut tx = desk.databases.tenant(&desk.tenant.placement, desk.tenant.id).await?;
        making::forget(&mut tx, account, (args.id, &found.name, &found.language), Actor::Operator).await?;
        tx.commit().await?;
    }
    let value = serde_json::json!({"id": args.id, "deleted": true});
    out.say(&value, &format!("template {} in {} is deleted", found.name, found.language))?;
    Ok(ExitCode::SUCCESS)
}
