//! From a path to the account it means. The Graph's two hosts are one address here: whose a call is follows from the id in its path,
//! from the token where that is `me`, and from whom it is for where a Page stands for its Instagram account.

use super::super::{
    accounts::Account,
    graph,
    platform::{Api, Platform},
    provider::Provider,
    refusal::Refusal,
    reply::Answered,
    sign,
};
use super::{nodes, send};
use bytes::Bytes;
use http::Method;
use std::sync::Arc;

/// A call as it arrived.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) at_us: u64,
    /// Major version of the API that was called.
    pub(crate) version: u32,
    pub(crate) method: Method,
    pub(crate) path: Vec<String>,
    pub(crate) query: String,
    pub(crate) token: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Call {
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Whether a path means something of Messenger's or Instagram's.
pub(crate) fn names(provider: &Provider, path: &[String]) -> bool {
    let accounts = all(provider);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["me"] | ["me", _] | ["refresh_access_token" | "access_token"] => true,
        [node] => {
            node.starts_with("t_")
                || accounts.iter().any(|account| {
                    let live = account.live();
                    is_named(account, node) || live.desk.said(node).is_some() || live.desk.knows(node)
                })
        }
        [node, ..] => accounts.iter().any(|account| is_named(account, node)),
        [] => false,
    }
}

/// Answers a call that [`names`] knows.
pub(crate) async fn handle(provider: Arc<Provider>, call: Call) -> Answered {
    match (call.method.clone(), call.path.last().map(String::as_str)) {
        (Method::POST, Some("messages")) if call.path.len() == 2 => send::handle(&provider, call).await,
        _ => {
            let at_us = call.at_us;
            Ok(nodes::handle(&provider, &call).await.unwrap_or_else(|refusal| graph::refused(&refusal, at_us)))
        }
    }
}

/// All accounts of both.
pub(super) fn all(provider: &Provider) -> Vec<Arc<Account>> {
    let mut all = provider.registry.accounts_of(Platform::Messenger);
    all.extend(provider.registry.accounts_of(Platform::Instagram));
    all
}

/// The account that a call is about: a person's id or a platform's name decides where its path leaves a choice.
pub(super) fn account(provider: &Provider, call: &Call, person: &str, platform: Option<&str>) -> Option<Arc<Account>> {
    let node = call.path.first()?;
    let mut candidates = all(provider);
    if node == "me" {
        let token = call.token.as_deref().unwrap_or_default();
        let owned: Vec<_> =
            candidates.iter().filter(|account| account.spec.token.as_deref() == Some(token)).cloned().collect();
        candidates = match owned.is_empty() {
            false => owned,
            true => candidates.into_iter().filter(|account| authorize(provider, call, account).is_ok()).collect(),
        };
    } else {
        candidates.retain(|account| is_named(account, node));
    }
    if let Some(platform) = platform {
        candidates.retain(|account| account.spec.platform.name() == platform);
    }
    let knows = candidates.iter().position(|account| account.live().desk.knows(person));
    candidates.into_iter().nth(knows.unwrap_or_default())
}

/// Whether the call's token may act for the account.
pub(super) fn authorize(provider: &Provider, call: &Call, account: &Account) -> Result<(), Refusal> {
    let api = account.spec.platform.into();
    let reach = |id: &str| provider.registry.authorize(call.token.as_deref(), Some(id));
    let reached = match (&account.spec.page_id, reach(&account.id)) {
        (Some(page), Err(_)) => reach(page),
        (_, reached) => reached,
    };
    if let Err(refusal) = reached {
        return Err(in_their_words(api, &refusal));
    }
    if let (Some(given), Some(token)) = (call.parameter("appsecret_proof"), &call.token) {
        let right = sign::signature(provider.secret(&account.spec), token.as_bytes());
        if right.strip_prefix("sha256=") != Some(&given) {
            return Err(Refusal::of(api, 100, None).saying("Invalid appsecret_proof provided in the API argument"));
        }
    }
    Ok(())
}

/// A token's failure as these two say it: what is no permission is 190.
pub(super) fn in_their_words(api: Api, refusal: &Refusal) -> Refusal {
    match refusal.code {
        10 => Refusal::of(api, 10, None),
        200 => Refusal::of(api, 200, None),
        0 => Refusal::of(api, 190, Some(458)),
        _ => Refusal::of(api, 190, refusal.subcode),
    }
}

/// By its own id, or by that of the Page it is linked to.
fn is_named(account: &Account, node: &str) -> bool {
    account.spec.id == node || account.spec.page_id.as_deref() == Some(node)
}
