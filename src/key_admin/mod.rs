//! Administration of API keys over HTTP: a router for axum to create, list, show, rotate and revoke keys, and to disable
//! their owners.
//!
//! | route | permission | body |
//! |---|---|---|
//! | `POST /keys` | [`CREATE`] | [what the key is to be](#creating-a-key) |
//! | `GET /keys` | [`READ`] | none; [filters](#listing) in the query |
//! | `GET /keys/{key_id}` | [`READ`] | none |
//! | `POST /keys/{key_id}/rotate` | [`ROTATE`] | `{"overlap": seconds}`; 24 hours if it is left out |
//! | `POST /keys/{key_id}/revoke` | [`REVOKE`] | `{"reason": text}`; may be left out, but not its `Content-Type: application/json` |
//! | `POST /owners/disable` | [`DISABLE_OWNER`] | `{"subject": text, "tenant": text, "reason": text}` |
//! | `POST /owners/enable` | [`DISABLE_OWNER`] | `{"subject": text, "tenant": text}` |
//!
//! Put it into your router, inside authentication, and let the policy grant the permissions. The router asks for them itself,
//! so that a forgotten rule opens nothing; [`rules`] are the lines of a stack's route table. By hand, a guard outside sets the
//! policy: `require(authenticated()).with_policy(policy)`.
//!
//! # Who may do what to which keys
//! A caller reaches
//! 1. the keys of their own: those whose owner has their subject and tenant, if their issuer is one that
//!    [names owners](KeyAdmin::with_owner_issuers);
//! 2. with [`ANY_OWNER`], those of all owners of their own tenant; a caller without a tenant, those without a tenant;
//! 3. with [`GRANT_ANY`], all.
//!
//! A key out of reach does not exist: `404`, with the body of an id that nobody has. And **nobody hands out what they do not
//! hold**: a new key, and the replacement of an old one, has only scopes and roles that the caller's own credential carries.
//! If the caller acts by an API key, the new one does not outlive it, and works from no network that it does not work from; a
//! key of another store, whose networks are not known here, hands out nothing, and one of another environment neither. A rate plan other
//! than the caller's is not theirs to choose, and a key on another one not theirs to replace; but who acts by a token without a plan
//! replaces their own keys, whatever plan those are on. All of it is lifted by [`GRANT_ANY`]. Only what the credential says counts, not
//! what a policy derives: who has the role `manager` cannot hand out a role that `manager` inherits.
//!
//! **A role may also take something away**: RBAC roles have denials, rules say `not(role(..))`, Cedar forbids. A key without such a role
//! may do more than its maker. Name those roles with [`KeyAdmin::with_binding_roles`]: whoever has one makes and replaces no key
//! without it. What a policy gives or denies to an issuer and a subject by name binds the key only if it names the key store's issuer
//! (`api-keys`) and the key's subject as well.
//!
//! **[`ANY_OWNER`] is the right to act as every subject of the tenant**: who makes a key for `billing` can use it. Where a
//! policy knows subjects, it must know them together with their tenant.
//!
//! **Nobody enables themselves**: only keys are disabled, so that who was disabled may still come with a token. Enabling an owner who
//! is the caller takes [`GRANT_ANY`]; disabling oneself does not. Among others, who reaches an owner lifts whatever disablement they
//! have, also one that an operator made.
//!
//! Tokens have no tenant as keys have: `tokens:revoke`, of the router of `revocation_admin`, is for operators, and not for the role
//! that has [`ANY_OWNER`].
//!
//! # Creating a key
//! A JSON object with these members; others are refused.
//!
//! | member | | if it is left out |
//! |---|---|---|
//! | `subject` | the owner's name | required |
//! | `tenant` | text, or `null` for none | the caller's |
//! | `name` | text | empty |
//! | `plan` | text, or `null` for none | the caller's |
//! | `scopes`, `roles` | lists of texts | none |
//! | `addresses` | list of networks, such as `192.0.2.0/24` | those of the caller's API key, or anywhere |
//! | `not_before` | seconds since the Unix epoch | at once |
//! | `lifetime` | seconds, or `"never"` | one year, but not past the end of the caller's API key |
//! | `metadata` | object of texts | none |
//!
//! The answer is `201` with `{"key": text, "record": object}`: the key itself, this once, and what
//! [`KeyView`](crate::api_key::KeyView) shows of its record. A rotation answers the same with `200`. No answer of the
//! router may be stored (`Cache-Control: no-store`, RFC 9111 §5.2.2.5; what a layer outside refuses is that layer's), and no other
//! answer has a key or a hash in it.
//!
//! # Listing
//! `{"keys": [object], "next": id}`, by ascending id. Ask again with `after=<next>` until there is no `next`; a page may be
//! short before. Filters: `subject`, `name` (a part of it), `environment` and `tenant` (empty for none), `active=true`,
//! `all_tenants=true`, `limit` (1 to 1000; 100 if it is left out).
//!
//! # Errors
//! Problem details (RFC 9457) with `code`, `detail`, `request_id`, and, where one is to blame, `field`. A refusal of the guard
//! gets its body from the layer outside that renders refusals.
//!
//! | status | `code` | when |
//! |---|---|---|
//! | `400` | `invalid_body`, `invalid_query` | not a JSON object, a member that is unknown, missing, twice or of another type; the same for filters |
//! | `401`, `403` | as [`RejectionKind::code`](crate::RejectionKind::code) | nobody is authenticated; the permission is missing |
//! | `403` | `not_held` | the caller does not hold what they want to hand out, or does not reach the owner, or is the owner to enable |
//! | `404` | `no_such_key` | no key of that id, or one out of reach; what is no id |
//! | `409` | `conflict` | rotated before, revoked, or ended: it cannot be rotated |
//! | `413` | `too_large` | a body over [`MAX_BODY`] |
//! | `415` | `not_json` | a body that is not `application/json`: a form of another site cannot send that |
//! | `422` | `invalid_value` | a value out of its bounds, a scope, role or plan that is not known, or keys without a pepper beside yours with one |
//! | `503` | `unavailable` | the store or the policy does not answer; `Retry-After` says when to come back |
//!
//! # Audit
//! Each change leaves notes in the request's record: `key.change` what was asked for, before the store is; and when it is done
//! `key.created`, `key.rotated` (with `key.rotated_to`), `key.revoked`, `owner.disabled` or `owner.enabled`, with `owner` and
//! `by`, and an event of that name. A client that hangs up stops neither the change nor its notes and event, which come after the
//! record then. What changes nothing, such as revoking a key again, is no change that is told. What was out of reach or not held
//! is noted as `key.refused`. What records hide of subjects, tenants and credential ids is hidden in them, and in the events, too;
//! credential ids also in the path, which the lines of [`rules`] tell.
//! An owner's pseudonym is that of the issuer `api-keys`, if it [names owners](KeyAdmin::with_owner_issuers), else of the first of
//! those that do.
//!
//! # Example
//! ```
//! # #[cfg(all(feature = "stack", feature = "rbac"))]
//! # fn main() -> Result<(), portcullis::ConfigError> {
//! use std::sync::Arc;
//! use axum::Router;
//! use portcullis::{
//!     api_key::{ApiKeyAuthenticator, MemoryKeyStore},
//!     key_admin::{self, KeyAdmin},
//!     policy::Rbac,
//!     stack::Stack,
//!     tls::TlsLayer,
//! };
//!
//! let policy = Rbac::from_toml(r#"
//!     version = "1"
//!     permissions = ["keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:disable-owner", "keys:any-owner", "keys:grant-any"]
//!     [roles.developer]
//!     grants = ["keys:create", "keys:read", "keys:rotate", "keys:revoke"]
//!     [roles.tenant-admin]
//!     inherits = ["developer"]
//!     grants = ["keys:any-owner", "keys:disable-owner"]
//!     [roles.operator]
//!     inherits = ["tenant-admin"]
//!     grants = ["keys:grant-any"]
//! "#)?;
//! let store = Arc::new(MemoryKeyStore::new());
//! let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
//! let admin = KeyAdmin::new(store).with_issuer(keys.issuer()).with_known_roles(["developer", "tenant-admin"]);
//! let app = Router::new().nest("/admin", admin.router());
//!
//! let stack = Stack::builder().tls(TlsLayer::require()).authenticate(keys).policy(policy);
//! let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
//! let app = stack.build()?.protect(app);
//! # let _ = app;
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "stack", feature = "rbac")))]
//! # fn main() {}
//! ```

mod body;
mod caller;
mod fault;
mod grant;
mod keys;
mod list;
mod owners;

use std::{collections::BTreeSet, fmt, sync::Arc};

use ::axum::{
    Router,
    routing::{get, post},
};

use crate::{
    api_key::{ApiKeyAdmin, KeyId, KeyIssuer, Owner},
    guard::{Rule, deny, policy, require},
    mention::{Mention, Telling},
};
#[cfg(feature = "stack")]
use crate::{error::ConfigError, stack::RouteList};

/// The permission to create keys.
pub const CREATE: &str = "keys:create";
/// The permission to list keys and to see one.
pub const READ: &str = "keys:read";
/// The permission to rotate keys.
pub const ROTATE: &str = "keys:rotate";
/// The permission to revoke keys.
pub const REVOKE: &str = "keys:revoke";
/// The permission to disable owners, and to enable others again.
pub const DISABLE_OWNER: &str = "keys:disable-owner";
/// The permission to do all that to the keys of other owners of one's own tenant.
pub const ANY_OWNER: &str = "keys:any-owner";
/// The permission to do all that in every tenant, and to hand out what one does not hold.
pub const GRANT_ANY: &str = "keys:grant-any";

/// The longest body, in bytes: 64 KiB.
pub const MAX_BODY: usize = crate::admin::MAX_BODY;

/// The router for administration, with nothing but a store said: keys of the prefix `pc`, and whatever scopes, roles and plans
/// callers hold. See the [module docs](self).
pub fn admin_router(store: impl ApiKeyAdmin) -> Router {
    KeyAdmin::new(store).router()
}

/// The lines of a stack's route table for the router, nested under `prefix`: empty, or a path without a `/` at its end.
///
/// Each demands its permission of the policy, so that the stack's build fails if there is none.
#[must_use]
pub fn rules(prefix: &str) -> Vec<(String, Rule)> {
    let rule = |(line, permission): (&str, &str)| {
        let (method, path) = line.split_once(' ').unwrap_or_default();
        // The names are good ones; a unit test checks it.
        let rule = policy(permission).map_or_else(|_| deny(), |requirement| require(requirement).into());
        (format!("{method} {prefix}{path}"), rule)
    };
    ROUTES.into_iter().map(rule).collect()
}

/// The routes of the router, nested under `prefix` as for [`rules`], for the [report](crate::stack::Stack::report) of a stack: with them
/// it tells what is left over on either side.
///
/// ```
/// use portcullis::{key_admin, stack::RouteList};
///
/// let routes = RouteList::from_lines(["GET /orders"])?.and(key_admin::routes("/admin")?);
/// assert!(routes.lines().any(|line| line == "POST /admin/keys/{key_id}/rotate"));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Errors
/// If the prefix makes no path that a table takes.
#[cfg(feature = "stack")]
pub fn routes(prefix: &str) -> Result<RouteList, ConfigError> {
    let routes = ROUTES.iter().filter_map(|(line, _)| line.split_once(' '));
    let lines: Vec<_> = routes.map(|(method, path)| format!("{method} {prefix}{path}")).collect();
    RouteList::from_lines(lines.iter().map(String::as_str))
}

const ROUTES: [(&str, &str); 7] = [
    ("POST /keys", CREATE),
    ("GET /keys", READ),
    ("GET /keys/{key_id}", READ),
    ("POST /keys/{key_id}/rotate", ROTATE),
    ("POST /keys/{key_id}/revoke", REVOKE),
    ("POST /owners/disable", DISABLE_OWNER),
    ("POST /owners/enable", DISABLE_OWNER),
];

/// What the router needs to know. See the [module docs](self).
#[must_use]
#[derive(Clone)]
pub struct KeyAdmin {
    store: Arc<dyn ApiKeyAdmin>,
    issuer: KeyIssuer,
    owner_issuers: BTreeSet<Box<str>>,
    known_roles: Option<BTreeSet<Box<str>>>,
    binding_roles: BTreeSet<Box<str>>,
    known_plans: Option<BTreeSet<Box<str>>>,
}

impl KeyAdmin {
    /// Administers this store. Keys are made by [`KeyIssuer::new`], and owners are principals of the issuer `api-keys`, unless
    /// something else is said. An authenticator with a format or peppers of its own does not take such keys: give
    /// [its issuer](crate::api_key::ApiKeyAuthenticator::issuer) to [`with_issuer`](Self::with_issuer).
    pub fn new(store: impl ApiKeyAdmin) -> Self {
        Self {
            store: Arc::new(store),
            issuer: KeyIssuer::new(),
            owner_issuers: ["api-keys".into()].into(),
            known_roles: None,
            binding_roles: BTreeSet::new(),
            known_plans: None,
        }
    }

    /// Makes keys with this: it says format, environment, pepper and the scopes that are known. Take the one of the
    /// [authenticator](crate::api_key::ApiKeyAuthenticator::issuer): keys that it does not take are of no use to anybody.
    pub fn with_issuer(mut self, issuer: KeyIssuer) -> Self {
        self.issuer = issuer;
        self
    }

    /// Says whose subjects are the names of key owners, in the place of `api-keys`: the names of key stores
    /// ([`with_store_name`](crate::api_key::ApiKeyAuthenticator::with_store_name)), and the issuers of tokens whose holders
    /// have keys under the subjects of their tokens.
    ///
    /// # Security
    /// Two issuers that name their subjects independently must not both stand here: `alice` of the one would reach the keys
    /// of `alice` of the other.
    pub fn with_owner_issuers<T: Into<Box<str>>>(mut self, issuers: impl IntoIterator<Item = T>) -> Self {
        self.owner_issuers = issuers.into_iter().map(Into::into).collect();
        self
    }

    /// Hands out no other roles than these: those that the policy knows. A rotation keeps the roles that the key has.
    pub fn with_known_roles<T: Into<Box<str>>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.known_roles = Some(roles.into_iter().map(Into::into).collect());
        self
    }

    /// Says which roles take something away: whoever has one hands out no key without it. Default: none.
    ///
    /// Those of an RBAC policy are what
    #[cfg_attr(feature = "rbac", doc = "[`Rbac::roles_that_deny`](crate::policy::Rbac::roles_that_deny)")]
    #[cfg_attr(not(feature = "rbac"), doc = "`Rbac::roles_that_deny`")]
    /// tells; add the roles that your rules name behind a `not`, and those that other policies forbid something. They must be among
    /// the [known ones](Self::with_known_roles). They are fixed here: a policy that is reloaded with a new one needs a restart, or the
    /// role's name beforehand.
    ///
    /// ```
    /// # #[cfg(feature = "rbac")]
    /// # fn main() -> Result<(), portcullis::ConfigError> {
    /// use portcullis::{api_key::MemoryKeyStore, key_admin::KeyAdmin, policy::Rbac};
    ///
    /// let policy = Rbac::from_toml("version = '1'\npermissions = ['pay']\n[roles.clerk]\ngrants = ['pay']\n[roles.trainee]\ndenies = ['pay']")?;
    /// let admin = KeyAdmin::new(MemoryKeyStore::new()).with_binding_roles(policy.roles_that_deny());
    /// # let _ = admin;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "rbac"))]
    /// # fn main() {}
    /// ```
    pub fn with_binding_roles<T: Into<Box<str>>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.binding_roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// Puts keys on no other plans than these: those that the limits know. A rotation keeps the plan that the key has.
    pub fn with_known_plans<T: Into<Box<str>>>(mut self, plans: impl IntoIterator<Item = T>) -> Self {
        self.known_plans = Some(plans.into_iter().map(Into::into).collect());
        self
    }

    /// The issuer of the principals that act by keys of this store, as far as can be told: by it a pseudonym in a note is that of
    /// the record.
    fn store_name(&self) -> &str {
        let own = self.owner_issuers.get("api-keys").or_else(|| self.owner_issuers.first());
        own.map_or("", |name| name)
    }

    /// A key, for records.
    fn key(&self, id: &KeyId) -> Telling {
        Telling::default().bare(Mention::CredentialId, self.store_name(), &id.to_string())
    }

    /// The name of an owner, for records.
    fn subject(&self, owner: &Owner) -> Telling {
        Telling::default().bare(Mention::Subject, self.store_name(), owner.subject())
    }

    /// An owner, for records.
    fn owner(&self, owner: &Owner) -> Telling {
        let told = Telling::default().name(Mention::Subject, self.store_name(), owner.subject());
        match owner.tenant() {
            Some(tenant) => told.text(" in ").name(Mention::Tenant, self.store_name(), tenant),
            None => told,
        }
    }

    /// The router, for `Router::nest`, or `Router::nest_service` if yours has a state.
    pub fn router(self) -> Router {
        Router::new()
            .route("/keys", post(keys::create).get(list::list))
            .route("/keys/{key_id}", get(keys::show))
            .route("/keys/{key_id}/rotate", post(keys::rotate))
            .route("/keys/{key_id}/revoke", post(keys::revoke))
            .route("/owners/disable", post(owners::disable))
            .route("/owners/enable", post(owners::enable))
            .with_state(Arc::new(self))
    }
}

impl fmt::Debug for KeyAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyAdmin")
            .field("store", &self.store)
            .field("issuer", &self.issuer)
            .field("owner_issuers", &self.owner_issuers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_asks_for_its_permission() {
        let rules = rules("/admin");
        assert_eq!(rules.len(), ROUTES.len());
        for ((line, rule), (route, permission)) in rules.iter().zip(ROUTES) {
            let (method, path) = route.split_once(' ').unwrap();
            assert_eq!(*line, format!("{method} /admin{path}"));
            assert_eq!(rule.to_string(), format!("policy {permission}"));
        }
    }

    #[cfg(feature = "stack")]
    #[tokio::test]
    async fn every_route_that_is_listed_is_there() {
        use ::axum::{body::Body, extract::Request};
        use tower::ServiceExt;

        let app = Router::new().nest("/admin", admin_router(crate::api_key::MemoryKeyStore::new()));
        for line in routes("/admin").unwrap().lines() {
            let (method, path) = line.split_once(' ').unwrap();
            let path = path.replace("{key_id}", "0123456789abcdef");
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            // It is asked without a layer outside.
            let status = app.clone().oneshot(request).await.unwrap().status();
            assert_eq!(status, http::StatusCode::INTERNAL_SERVER_ERROR, "{line}");
        }
        assert!(routes("admin").is_err());
    }
}
