//! Revoking tokens over HTTP: a router for people who administer, and callers who log themselves out everywhere; and the
//! [endpoint](BackchannelLogout) by which an OpenID provider says that somebody is logged out.
//!
//! | route | needs | body |
//! |---|---|---|
//! | `POST /tokens/revoke` | [`REVOKE`] | `{"issuer": text, "jti": text, "exp": seconds}`; `exp` may be left out |
//! | `POST /sessions/revoke` | [`REVOKE`] | `{"issuer": text, "sid": text}` |
//! | `POST /subjects/revoke` | [`REVOKE`] | `{"issuer": text, "sub": text, "issued_until": seconds}`; now, if `issued_until` is left out |
//! | `POST /clients/revoke` | [`REVOKE_MANY`] | `{"issuer": text, "client_id": text}` |
//! | `POST /keys/revoke` | [`REVOKE_MANY`] | `{"issuer": text, "kid": text}` |
//! | `POST /log-out-everywhere` | an identity | none, or `{}`: all tokens that the caller has by now. `Content-Type: application/json` in either case |
//!
//! The answer is `200` with `{"revoked": kind}` once this process refuses what was revoked, and the others are told.
//!
//! # Whose tokens
//! [`REVOKE`] is the right to log out whomever an issuer of [`RevocationAdmin::new`] knows, operators too: a revocation has an issuer, and
//! no tenant. So it is for operators, and the router goes by the tenant of who asks:
//! 1. A caller without a tenant reaches all issuers.
//! 2. A caller of a tenant reaches the issuers that [belong to it alone](RevocationAdmin::with_tenant_issuer); by default none. Whose
//!    own issuer belongs to a tenant is of that tenant, whatever their token says besides; and who is of two reaches nothing.
//! 3. [`allow_across_tenants`](RevocationAdmin::allow_across_tenants) lifts it.
//!
//! What acts for the caller, a client with an identity of its own, counts as they do: each must reach it. Tenants that principals do not
//! [name](Principal::tenant) are not known here: grant the permission to nobody of them. `POST /log-out-everywhere` is for all, and
//! meets the caller's own tokens.
//!
//! Refresh tokens are the provider's, and what they bring later is good: end them there first.
//!
//! "Now" and "by now" are of this clock; of the caller's own tokens, up to the `iat` of the one that asks if that is later. An issuer
//! whose clock is ahead may have dated other tokens after that, by the leeway at most: these are not met. `issued_until` may be up to
//! 300 s ahead, to meet them too, with whatever is issued meanwhile.
//!
//! Put it into your router, inside authentication, and let the policy grant the permissions. The router asks for them itself, so
//! that a forgotten rule opens nothing; [`rules`] are the lines of a stack's route table.
//!
//! # Errors
//! Problem details (RFC 9457) with `code`, `detail`, `request_id`, and, for an issuer or a time, `field`. No answer may be stored
//! (`Cache-Control: no-store`).
//!
//! | status | `code` | when |
//! |---|---|---|
//! | `400` | `invalid_body` | not a JSON object, a member that is unknown, missing, twice or of another type |
//! | `401`, `403` | as [`RejectionKind::code`](crate::RejectionKind::code) | nobody is authenticated; the permission is missing |
//! | `403` | `not_held` | the caller has a tenant, and the issuer is not known to belong to it alone |
//! | `409` | `conflict` | the store is full: what was to be revoked is **not** revoked |
//! | `413` | `too_large` | a body over [`MAX_BODY`] |
//! | `415` | `not_json` | a body that is not `application/json`: a form of another site cannot send that |
//! | `422` | `invalid_value` | an issuer that is not known here (of a caller who logs out, too: an API key has no tokens), a text out of its bounds, a time later than the next five minutes in `issued_until` |
//! | `500` | `misconfigured` | no authenticator of this process asks the store, so that nothing is revoked; or who logged out everywhere counts all the same, because theirs asks another one. The log says so |
//! | `503` | `unavailable` | the store or the policy does not answer: it may or may not be revoked; ask again |
//!
//! # Audit
//! `token.change` says what was asked for, before the store is; `tokens.revoked` that it is done, with `by`; and the event
//! `tokens_revoked` says both. What was out of the caller's reach is noted as `token.refused`. A client that hangs up stops none of it:
//! what comes then comes after the record. What a record hides of
//! subjects and credential ids it hides in them too: of a subject and a client the name, of a token and a session the id.
//!
//! # Example
//! ```
//! # #[cfg(all(feature = "stack", feature = "rbac"))]
//! # fn main() -> Result<(), portcullis::ConfigError> {
//! use std::sync::Arc;
//! use axum::Router;
//! use portcullis::{
//!     Secret, guard::public,
//!     jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet, LogoutTokens},
//!     policy::Rbac,
//!     revocation::MemoryRevocations,
//!     revocation_admin::{self, BackchannelLogout, RevocationAdmin},
//!     stack::Stack,
//!     tls::TlsLayer,
//! };
//!
//! let policy = Rbac::from_toml(r#"
//!     version = "1"
//!     permissions = ["tokens:revoke", "tokens:revoke-many"]
//!     [roles.support]
//!     grants = ["tokens:revoke"]
//! "#)?;
//! let store = Arc::new(MemoryRevocations::new());
//! let provider = || Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))
//!     .and_then(|key| KeySet::new([key]))
//!     .map(|keys| Issuer::fixed("https://id.example.com", keys));
//! let jwt = JwtAuthenticator::builder()
//!     .issuer(provider()?.access_tokens("orders-api").algorithms([Algorithm::HS256]))
//!     .revocations(Arc::clone(&store))
//!     .build()?;
//! let logout = LogoutTokens::new([provider()?.logout_tokens("orders-web").algorithms([Algorithm::HS256])])?;
//!
//! let app = Router::new()
//!     .nest("/admin", RevocationAdmin::new(Arc::clone(&store), ["https://id.example.com"]).router())
//!     .merge(BackchannelLogout::new(logout, store).router("/logout/backchannel")?);
//! let stack = Stack::builder().tls(TlsLayer::require()).authenticate(jwt).policy(policy);
//! let stack = revocation_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
//! let app = stack.route("POST /logout/backchannel", public()).build()?.protect(app);
//! # let _ = app;
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "stack", feature = "rbac")))]
//! # fn main() {}
//! ```

mod backchannel;
mod body;
mod fault;
mod reach;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use ::axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::post,
};
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;

pub use self::backchannel::BackchannelLogout;
use self::fault::away;
#[cfg(feature = "stack")]
use crate::stack::RouteList;
use crate::{
    admin::{self, Caller, Fault, Moment, finished},
    clock::Instants,
    error::{ConfigError, StoreError},
    event::{self, Event, EventKind},
    guard::{Rule, authenticated, deny, policy, require},
    mention::Telling,
    principal::Principal,
    revocation::{Revocation, RevocationKind, RevocationStore},
};

/// The permission to revoke a token, a session, and all tokens of a subject.
pub const REVOKE: &str = "tokens:revoke";
/// The permission to revoke all tokens of a client, and of a signing key.
pub const REVOKE_MANY: &str = "tokens:revoke-many";

/// The longest body, in bytes: 64 KiB.
pub const MAX_BODY: usize = admin::MAX_BODY;

/// The credentials of this crate's authenticators that a revocation ends.
const TOKENS: [&str; 2] = ["jwt", "introspection"];

const NOT_ASKED: &str = "whoever is revoked counts all the same: no authenticator asks the store that tokens are revoked in; give it this \
     very one by JwtAuthenticator::builder().revocations(..)";

/// How far ahead of this clock "issued until" may be, in seconds: as far as an issuer's clock may be.
const AHEAD: u64 = 300;

/// The lines of a stack's route table for the router, nested under `prefix`: empty, or a path without a `/` at its end.
///
/// Each demands its permission of the policy, so that the stack's build fails if there is none.
#[must_use]
pub fn rules(prefix: &str) -> Vec<(String, Rule)> {
    // The names are good ones; a unit test checks it.
    let rule = |permission: &str| policy(permission).map_or_else(|_| deny(), |requirement| require(requirement).into());
    let mut rules: Vec<_> =
        ROUTES.iter().map(|(path, permission)| (format!("POST {prefix}{path}"), rule(permission))).collect();
    rules.push((format!("POST {prefix}{LOG_OUT}"), require(authenticated()).into()));
    rules
}

/// The routes of the router, nested under `prefix` as for [`rules`], for the [report](crate::stack::Stack::report) of a stack: with them
/// it tells what is left over on either side.
///
/// # Errors
/// If the prefix makes no path that a table takes.
#[cfg(feature = "stack")]
pub fn routes(prefix: &str) -> Result<RouteList, ConfigError> {
    let paths = ROUTES.iter().map(|(path, _)| *path).chain([LOG_OUT]);
    let lines: Vec<_> = paths.map(|path| format!("POST {prefix}{path}")).collect();
    RouteList::from_lines(lines.iter().map(String::as_str))
}

const LOG_OUT: &str = "/log-out-everywhere";

const ROUTES: [(&str, &str); 5] = [
    ("/tokens/revoke", REVOKE),
    ("/sessions/revoke", REVOKE),
    ("/subjects/revoke", REVOKE),
    ("/clients/revoke", REVOKE_MANY),
    ("/keys/revoke", REVOKE_MANY),
];

/// Revokes tokens, for handlers of your own and for the [`router`](Self::router). See the [module docs](self).
///
/// The methods ask nobody: a handler that calls them decides who may, and whose tokens.
#[must_use]
#[derive(Clone)]
pub struct RevocationAdmin {
    store: Arc<dyn RevocationStore>,
    /// Each with the tenant that it belongs to alone, if there is one.
    issuers: Arc<BTreeMap<Box<str>, Option<Box<str>>>>,
    across_tenants: bool,
}

impl RevocationAdmin {
    /// Revokes in this store, which the authenticator asks, tokens of these issuers, named as principals name them.
    pub fn new<T: Into<Box<str>>>(store: impl RevocationStore, issuers: impl IntoIterator<Item = T>) -> Self {
        let issuers = issuers.into_iter().map(|issuer| (issuer.into(), None)).collect();
        Self { store: Arc::new(store), issuers: Arc::new(issuers), across_tenants: false }
    }

    /// Says that one of the issuers knows people of this tenant and of no other: the tenant's own identity provider. Whoever of the
    /// tenant has the permission may then revoke its tokens over the [router](Self::router), its clients and keys too. The tenant
    /// is named as principals [name](Principal::tenant) it.
    ///
    /// # Errors
    /// If the issuer is not one of those of [`new`](Self::new), or belongs to a tenant already; or the tenant has no name.
    ///
    /// # Security
    /// All that is revoked takes room of the one store. Limit the requests of a tenant's people, or let the tenant's issuer have an
    /// authenticator and a store of its own.
    pub fn with_tenant_issuer(mut self, issuer: &str, tenant: &str) -> Result<Self, ConfigError> {
        let refused =
            |problem| Err(ConfigError::new("issuer of a tenant", format!("{issuer:?} of {tenant:?}"), problem));
        if tenant.is_empty() {
            return refused("needs the name of the tenant");
        }
        match Arc::make_mut(&mut self.issuers).get_mut(issuer) {
            None => return refused("must be one of the issuers whose tokens are revoked here"),
            Some(Some(_)) => return refused("belongs to a tenant already, and may belong to one alone"),
            Some(owner) => *owner = Some(tenant.into()),
        }
        Ok(self)
    }

    /// Lets callers who have a tenant revoke the tokens of all issuers, over the [router](Self::router), as those without one may.
    /// Default: no.
    ///
    /// # Security
    /// Whoever has [`REVOKE`] then logs out the people of every other tenant, and the operators. Say it where operators have a tenant
    /// of their own and the policy gives the permission to nobody else, or where there is one tenant alone.
    pub const fn allow_across_tenants(mut self) -> Self {
        self.across_tenants = true;
        self
    }

    /// Revokes one token, by its `jti`. With its `exp` it takes no room for longer.
    ///
    /// # Errors
    /// [`RevokeError`], as the other ways to revoke; also if `exp` passed over 300 s ago.
    pub async fn revoke_token(
        &self,
        issuer: &str,
        jti: &str,
        exp: Option<u64>,
        at: Instants,
    ) -> Result<(), RevokeError> {
        let token = Revocation::token(self.known(issuer)?, jti)?;
        self.revoke(&exp.into_iter().fold(token, Revocation::until), at).await
    }

    /// Revokes everything that a subject was issued up to now: logs them out everywhere. Not what an issuer whose clock is ahead
    /// has dated after now; see the [module docs](self).
    ///
    /// # Errors
    /// [`RevokeError`].
    pub async fn revoke_subject(&self, issuer: &str, sub: &str, at: Instants) -> Result<(), RevokeError> {
        self.revoke(&Revocation::subject(self.known(issuer)?, sub, at.unix_seconds())?, at).await
    }

    /// Revokes everything that this principal was issued up to now. Its issuer need not be one of those that were named.
    ///
    /// # Errors
    /// [`RevokeError`]; [`NotAsked`](RevokeError::NotAsked) if the principal counts all the same; of a store that processes share, a second later.
    pub async fn log_out_everywhere(&self, principal: &Principal, at: Instants) -> Result<(), RevokeError> {
        self.revoke(&Revocation::of_subject(principal, at)?, at).await?;
        self.must_have_ended(principal, at).await
    }

    /// Whoever was logged out counts no more, unless their authenticator asks another store, or none. One of your own that gave its
    /// principal no [`Voucher`](crate::Voucher) cannot be told from one that asks with each request, and is believed.
    async fn must_have_ended(&self, principal: &Principal, at: Instants) -> Result<(), RevokeError> {
        if principal.voucher().is_none() && !TOKENS.contains(&principal.credential()) {
            return Ok(());
        }
        let asked = Moment::begins(at);
        // Another handle of what processes share hears of it from there.
        let waits: &[u64] = if self.store.state().is_fed() { &[5, 20, 75, 300, 600] } else { &[] };
        for wait in waits {
            if principal.counts(asked.now()).await.is_err() {
                return Ok(());
            }
            sleep(Duration::from_millis(*wait)).await;
        }
        principal.counts(asked.now()).await.map_or(Ok(()), |()| Err(RevokeError::NotAsked))
    }

    /// Revokes whatever this says.
    ///
    /// # Errors
    /// [`RevokeError`]; [`NotAsked`](RevokeError::NotAsked), and nothing is revoked, if the store is this process's own and no authenticator
    /// here has asked it, or was given it. Of a store that processes share, nobody can tell.
    pub async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), RevokeError> {
        if !self.store.state().counts_for_somebody() {
            return Err(RevokeError::NotAsked);
        }
        Ok(self.store.revoke(&self.while_it_counts(revocation, at)?, at).await?)
    }

    /// A token's own end is its client's word, or a slip of who writes it: one that has passed would revoke nothing, and one that
    /// no accepted token has would keep its room for good.
    fn while_it_counts(&self, revocation: &Revocation, at: Instants) -> Result<Revocation, ConfigError> {
        let (now, revocation) = (at.unix_seconds(), revocation.clone());
        let (RevocationKind::Token, Some(end)) = (revocation.kind(), revocation.end()) else { return Ok(revocation) };
        if end.saturating_add(AHEAD) < now {
            return Err(ConfigError::new("exp of a revocation", end.to_string(), "has passed: the token has ended"));
        }
        let longest = self.store.state().longest_life().as_secs();
        Ok(revocation.until(end.min(now.saturating_add(longest).saturating_add(AHEAD))))
    }

    fn known<'i>(&self, issuer: &'i str) -> Result<&'i str, ConfigError> {
        if self.issuers.contains_key(issuer) {
            return Ok(issuer);
        }
        let shown: String = issuer.chars().take(64).collect();
        Err(ConfigError::new("issuer of a revocation", format!("{shown:?}"), "is not known here"))
    }

    /// The router, for `Router::nest`, or `Router::nest_service` if yours has a state.
    pub fn router(self) -> Router {
        Router::new()
            .route("/tokens/revoke", post(revoke::<body::Token>))
            .route("/sessions/revoke", post(revoke::<body::Session>))
            .route("/subjects/revoke", post(revoke::<body::Subject>))
            .route("/clients/revoke", post(revoke::<body::Client>))
            .route("/keys/revoke", post(revoke::<body::Key>))
            .route(LOG_OUT, post(log_out_everywhere))
            .with_state(self)
    }
}

/// Why nothing was revoked. A handler that answers with a [`Rejection`](crate::Rejection) returns it with `?`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// An issuer that is not known, or a text that no store could keep.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store did not take it. [`Conflict`](crate::StoreErrorKind::Conflict): it is full.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No authenticator asks this store: nothing was revoked. Or it was, and whoever was logged out counts all the same.
    #[error("{NOT_ASKED}")]
    NotAsked,
}

/// What a body asks for.
trait Order: DeserializeOwned + Send {
    const NEEDS: &'static str;

    fn issuer(&self) -> &str;
    fn revocation(&self, at: Instants) -> Result<Revocation, ConfigError>;
}

async fn revoke<O: Order>(State(admin): State<RevocationAdmin>, caller: Caller, request: Request) -> Response {
    answer(&caller, order::<O>(&admin, &caller, request).await)
}

async fn order<O: Order>(admin: &RevocationAdmin, caller: &Caller, request: Request) -> Result<Revocation, Fault> {
    let order: O = body::order(&caller.read_for(O::NEEDS, request).await?)?;
    // First: who does not reach an issuer does not learn whether it is known.
    caller.reach_issuer(admin, order.issuer())?;
    admin.known(order.issuer())?;
    let revocation = order.revocation(caller.at())?;
    if revocation.last_issue().is_some_and(|second| second > caller.at().unix_seconds().saturating_add(AHEAD)) {
        return Err(Fault::value("issued_until must not be in the future.").at("issued_until"));
    }
    caller.revoke(admin, revocation).await
}

async fn log_out_everywhere(State(admin): State<RevocationAdmin>, caller: Caller, request: Request) -> Response {
    answer(&caller, try_log_out(&admin, &caller, request).await)
}

async fn try_log_out(admin: &RevocationAdmin, caller: &Caller, request: Request) -> Result<Revocation, Fault> {
    body::nothing(&caller.read(request).await?)?;
    let principal = caller.principal();
    // Who came with an API key, for one, has no tokens that this could end.
    admin.known(principal.issuer())?;
    let revocation = caller.revoke(admin, Revocation::of_subject(principal, caller.at())?).await?;
    admin.must_have_ended(principal, caller.at()).await?;
    Ok(revocation)
}

fn answer(caller: &Caller, answer: Result<Revocation, Fault>) -> Response {
    #[derive(Serialize)]
    struct Revoked {
        revoked: &'static str,
    }

    caller.respond(answer.map(|revocation| (StatusCode::OK, Revoked { revoked: revocation.kind().as_str() })))
}

impl Caller {
    async fn revoke(&self, admin: &RevocationAdmin, revocation: Revocation) -> Result<Revocation, Fault> {
        // In the record even if the request is given up while the store works.
        self.context().note_telling("token.change", Telling::default().text("revoke ").then(revocation.telling()));
        let (caller, admin) = (self.clone(), admin.clone());
        let work = async move {
            admin.revoke(&revocation, caller.at()).await?;
            caller.tell_revoked(&revocation);
            Ok::<_, RevokeError>(revocation)
        };
        Ok(finished(work).await.map_err(|error| Fault::unavailable(away(error, None)))??)
    }

    /// What was done.
    fn tell_revoked(&self, revocation: &Revocation) {
        let by = self.principal();
        self.context().note_telling("tokens.revoked", revocation.telling());
        self.context().note_telling("by", Telling::principal(by));
        let told = Event::about_whom(EventKind::TokensRevoked, revocation.telling()).at(self.at());
        event::tell(told.by(self.context().request_id(), by.clone()));
    }
}

impl fmt::Debug for RevocationAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationAdmin")
            .field("store", &self.store)
            .field("issuers", &self.issuers)
            .field("across_tenants", &self.across_tenants)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_asks_for_its_permission() {
        let rules = rules("/admin");
        assert_eq!(rules.len(), ROUTES.len() + 1);
        for ((line, rule), (path, permission)) in rules.iter().zip(ROUTES) {
            assert_eq!(
                (line.as_str(), rule.to_string()),
                (&*format!("POST /admin{path}"), format!("policy {permission}"))
            );
        }
        assert_eq!(rules[5].1.to_string(), "authenticated");
    }

    #[cfg(feature = "stack")]
    #[tokio::test]
    async fn every_route_that_is_listed_is_there() {
        use tower::ServiceExt;

        let admin = RevocationAdmin::new(crate::revocation::MemoryRevocations::new(), ["https://id.test"]);
        let app = Router::new().nest("/admin", admin.router());
        for line in routes("/admin").unwrap().lines() {
            let request = Request::post(line.strip_prefix("POST ").unwrap()).body(::axum::body::Body::empty()).unwrap();
            // It is asked without a layer outside.
            let status = app.clone().oneshot(request).await.unwrap().status();
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{line}");
        }
        assert!(routes("admin").is_err());
    }
}
