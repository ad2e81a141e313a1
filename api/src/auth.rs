//! Who asks: a bearer token of one tenant, `mj_<id>_<secret>`. Only SHA-256 digests are stored: the secret is 256 random
//! bits, so there is nothing to guess and nothing to slow down. Whatever is wrong, the answer is the same 401, so that nobody
//! learns which tenants and tokens exist.

use crate::{
    error::{Error, Kind, Problem},
    state::App,
};
use axum::{
    extract::{FromRequestParts, OriginalUri, RawPathParams},
    http::{HeaderMap, header, request::Parts},
};
use moka::future::Cache;
use sha2::{Digest, Sha256};
use shared::{
    cache::Decision,
    db::{self, Databases, Placement, TenantTx, audit::Actor, tenants::Tenant, tokens::Token},
    domain::{
        ids::{ApiTokenId, TenantId},
        permissions::Permission,
        tenants::Slug,
    },
};
use std::{marker::PhantomData, sync::Arc, time::Duration};
use subtle::ConstantTimeEq;

const PREFIX: &str = "mj_";
const SECRET_BYTES: usize = 32;
/// A token revoked is refused, and one just made is known, after so long at most.
const REMEMBERED: Duration = Duration::from_secs(10);
const TOKENS: u64 = 10_000;

/// A permission as a type, so that a handler's signature says what it needs.
pub trait Needs: Send + Sync + 'static {
    /// The permission.
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($name:ident),+ $(,)?) => {$(
        #[doc = concat!("Needs [`Permission::", stringify!($name), "`].")]
        pub struct $name;
        impl Needs for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )+};
}
needs!(
    ContactsRead,
    ContactsWrite,
    ConversationsRead,
    MessagesRead,
    MessagesSend,
    CampaignsRead,
    CampaignsWrite,
    AccountsRead,
    AccountsWrite,
    LimitsRead,
    LimitsWrite,
    TemplatesRead,
    TemplatesWrite,
    AuditRead,
    WebhooksRead,
    WebhooksReplay
);

/// Somebody who may do what the handler needs. Taking one authenticates, limits the rate and checks the permission.
pub struct Caller<N> {
    /// For which tenant.
    pub tenant_id: TenantId,
    /// Where its data lives.
    pub placement: Placement,
    /// With which token.
    pub token_id: ApiTokenId,
    needs: PhantomData<N>,
}

impl<N> Caller<N> {
    /// As who a change is recorded.
    pub fn actor(&self) -> Actor {
        Actor::Token(self.token_id)
    }

    /// A transaction that sees the caller's tenant.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn begin(&self, app: &App) -> db::Result<TenantTx> {
        app.tenant(&self.placement, self.tenant_id).await
    }
}

/// A token as its owner holds it.
pub struct BearerToken {
    /// Its readable part.
    pub id: ApiTokenId,
    /// SHA-256 of all of it.
    pub digest: [u8; 32],
}

impl BearerToken {
    /// Makes a token. The text is shown once and never again.
    pub fn generate() -> (Self, String) {
        let id = ApiTokenId::new();
        let text = format!("{PREFIX}{}_{}", id.0.simple(), hex::encode(rand::random::<[u8; SECRET_BYTES]>()));
        (Self { id, digest: Sha256::digest(&text).into() }, text)
    }

    /// Reads a token; `None` if it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let whole = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(|b| b.is_ascii_hexdigit());
        let id = id.parse().ok().filter(|_| whole)?;
        Some(Self { id, digest: Sha256::digest(text).into() })
    }
}

/// What is known of tenants and tokens, for a few seconds.
pub struct Tokens {
    known: Cache<(String, ApiTokenId), Option<Arc<Known>>>,
    databases: Databases,
}

struct Known {
    tenant: Tenant,
    token: Token,
}

impl Tokens {
    /// Nothing is known yet.
    pub fn new(databases: Databases) -> Self {
        Self { known: Cache::builder().max_capacity(TOKENS).time_to_live(REMEMBERED).build(), databases }
    }

    async fn find(&self, slug: &str, id: ApiTokenId) -> Result<Option<Arc<Known>>, Arc<db::Error>> {
        self.known.try_get_with((slug.to_owned(), id), load(&self.databases, slug, id)).await
    }
}

async fn load(databases: &Databases, slug: &str, id: ApiTokenId) -> db::Result<Option<Arc<Known>>> {
    let mut control = databases.control().await?;
    let tenant = db::tenants::find(&mut control, slug).await?;
    control.commit().await?;
    let Some(tenant) = tenant else { return Ok(None) };
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let token = db::tokens::find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(token.map(|token| Arc::new(Known { tenant, token })))
}

impl<N: Needs> FromRequestParts<App> for Caller<N> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let slug = slug(parts).await.ok_or_else(unauthorized)?;
        let bearer = bearer(&parts.headers).ok_or_else(unauthorized)?;
        let known = app.tokens.find(slug.as_str(), bearer.id).await.map_err(|error| {
            tracing::error!(%error, "nobody can be authenticated");
            Problem::new(Kind::Unavailable).retry_after(Duration::from_secs(2))
        })?;
        let same = |known: &Known| bool::from(known.token.digest.ct_eq(&bearer.digest));
        let known = known.filter(|known| same(known) && known.token.is_valid(app.clock.now()));
        let Known { tenant, token } = &*known.ok_or_else(unauthorized)?;
        if let Decision::Refused(wait) = app.rates.ask(token.id.0).await {
            let detail = "This token has used up its rate; see Retry-After.";
            return Err(Problem::new(Kind::RateLimited).detail(detail).retry_after(wait).into());
        }
        if !token.permissions.contains(&N::PERMISSION) {
            let detail = format!("This needs the permission {}.", N::PERMISSION);
            return Err(Problem::new(Kind::Forbidden).detail(detail).into());
        }
        Ok(Self { tenant_id: tenant.id, placement: tenant.placement.clone(), token_id: token.id, needs: PhantomData })
    }
}

/// The tenant's name in the path; `None` if nobody can have it. If something else in the path is not UTF-8, none of its
/// parameters can be had, and the name is taken as it stands there.
async fn slug(parts: &mut Parts) -> Option<Slug> {
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => params.iter().find(|(name, _)| *name == "tenant")?.1.parse().ok(),
        Err(_) => {
            let OriginalUri(uri) = parts.extensions.get()?;
            uri.path().strip_prefix("/api/")?.split('/').next()?.parse().ok()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<BearerToken> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| BearerToken::parse(token.trim()))?
}

fn unauthorized() -> Problem {
    Problem::new(Kind::Unauthorized).detail("The token is missing, unknown, expired, revoked, or not of this tenant.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest() {
        let (token, text) = BearerToken::generate();
        let read = BearerToken::parse(&text).unwrap();
        assert_eq!((read.id, read.digest), (token.id, token.digest));
        assert_eq!(text.len(), 3 + 32 + 1 + 64);
        let (other, _) = BearerToken::generate();
        assert_ne!(other.digest, token.digest);
    }

    #[test]
    fn what_has_not_the_form_is_no_token() {
        let (_, text) = BearerToken::generate();
        for wrong in
            ["", "mj_", "mj_x_y", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.replace("mj_", "mk_")]
        {
            assert!(BearerToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
