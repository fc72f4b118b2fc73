use std::sync::{Arc, OnceLock};

use crate::{
    api_key::{KeyHash, KeyId},
    clock::Instants,
    principal::{Principal, PrincipalKind},
};

/// What a store keeps of a key: everything but the secret. Times are whole seconds since the Unix epoch.
///
/// [`NewApiKey`](crate::api_key::NewApiKey) makes one for a new key; a store of yours makes one from a row.
///
/// ```
/// use portcullis::api_key::{ApiKeyRecord, KeyHash, KeyId};
///
/// let (id, hash) = (KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]));
/// let record = ApiKeyRecord::new(id, hash, "billing", 1_800_000_000, Some(1_900_000_000))
///     .with_name("nightly export")
///     .with_scopes(["orders:read"]);
/// assert_eq!(record.subject(), "billing");
/// ```
#[derive(Clone, Debug)]
pub struct ApiKeyRecord {
    facts: Facts,
    /// Made at the first request that uses the key, then shared.
    principal: OnceLock<Principal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    id: KeyId,
    hash: KeyHash,
    grant: Grant,
    created: u64,
    not_before: Option<u64>,
    expires: Option<u64>,
    revocation: Option<Revocation>,
}

/// Whose a key is and what it may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) subject: Box<str>,
    pub(super) name: Box<str>,
    pub(super) tenant: Option<Box<str>>,
    pub(super) plan: Option<Box<str>>,
    pub(super) scopes: Box<[Box<str>]>,
    pub(super) roles: Box<[Box<str>]>,
}

impl Grant {
    pub(super) fn new(subject: Box<str>) -> Self {
        Self { subject, name: Box::default(), tenant: None, plan: None, scopes: Box::default(), roles: Box::default() }
    }
}

impl ApiKeyRecord {
    /// The record of a key that belongs to `subject`, with no name, tenant, plan, scope or role. `expires` is when the
    /// key ends; None is never.
    #[must_use]
    pub fn new(id: KeyId, hash: KeyHash, subject: impl Into<Box<str>>, created: u64, expires: Option<u64>) -> Self {
        Self::granted(id, hash, Grant::new(subject.into()), created, expires)
    }

    pub(super) fn granted(id: KeyId, hash: KeyHash, grant: Grant, created: u64, expires: Option<u64>) -> Self {
        let facts = Facts { id, hash, grant, created, not_before: None, expires, revocation: None };
        Self { facts, principal: OnceLock::new() }
    }

    /// Sets what the key is called.
    #[must_use]
    pub fn with_name(self, name: impl Into<Box<str>>) -> Self {
        self.change(|facts| facts.grant.name = name.into())
    }

    /// Sets the tenant.
    #[must_use]
    pub fn with_tenant(self, tenant: impl Into<Box<str>>) -> Self {
        self.change(|facts| facts.grant.tenant = Some(tenant.into()))
    }

    /// Sets the rate plan.
    #[must_use]
    pub fn with_plan(self, plan: impl Into<Box<str>>) -> Self {
        self.change(|facts| facts.grant.plan = Some(plan.into()))
    }

    /// Sets the scopes.
    #[must_use]
    pub fn with_scopes<T: Into<Box<str>>>(self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.change(|facts| facts.grant.scopes = scopes.into_iter().map(Into::into).collect())
    }

    /// Sets the roles.
    #[must_use]
    pub fn with_roles<T: Into<Box<str>>>(self, roles: impl IntoIterator<Item = T>) -> Self {
        self.change(|facts| facts.grant.roles = roles.into_iter().map(Into::into).collect())
    }

    /// Sets when the key begins to be accepted.
    #[must_use]
    pub fn with_not_before(self, unix_seconds: u64) -> Self {
        self.change(|facts| facts.not_before = Some(unix_seconds))
    }

    /// Marks the key as revoked.
    #[must_use]
    pub fn with_revocation(self, revocation: Revocation) -> Self {
        self.change(|facts| facts.revocation = Some(revocation))
    }

    /// The public id.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.facts.id
    }

    /// The hash that a presented key is compared with.
    #[must_use]
    pub const fn hash(&self) -> &KeyHash {
        &self.facts.hash
    }

    /// What the key is called; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.grant.name
    }

    /// Whose key it is.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.facts.grant.subject
    }

    /// The tenant that the owner belongs to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.facts.grant.tenant.as_deref()
    }

    /// The rate plan that the key is on.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.facts.grant.plan.as_deref()
    }

    /// What the key may be used for.
    #[must_use]
    pub fn scopes(&self) -> &[Box<str>] {
        &self.facts.grant.scopes
    }

    /// The roles that the key acts in.
    #[must_use]
    pub fn roles(&self) -> &[Box<str>] {
        &self.facts.grant.roles
    }

    /// When the key was made.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.facts.created
    }

    /// When the key begins to be accepted; None is from the start.
    #[must_use]
    pub const fn not_before(&self) -> Option<u64> {
        self.facts.not_before
    }

    /// When the key ends; None is never.
    #[must_use]
    pub const fn expires(&self) -> Option<u64> {
        self.facts.expires
    }

    /// When and why the key was revoked, if it was.
    #[must_use]
    pub const fn revocation(&self) -> Option<&Revocation> {
        self.facts.revocation.as_ref()
    }

    /// Why the key is not accepted at this time, for the operator; None if it is. No leeway: the clock that is compared
    /// with is the one that the key was made by.
    pub(super) fn refusal(&self, at: Instants) -> Option<&'static str> {
        let now = at.unix_seconds();
        if self.facts.revocation.is_some() {
            return Some("API key: revoked");
        }
        if self.facts.expires.is_some_and(|end| now >= end) {
            return Some("API key: expired");
        }
        if self.facts.not_before.is_some_and(|start| now < start) {
            return Some("API key: not valid yet");
        }
        None
    }

    /// Who the key authenticates, as the store of this name vouches for it. Costs one reference count, but for the first
    /// time, and for a second name.
    pub(super) fn principal(&self, store_name: &Arc<str>) -> Principal {
        let kept = self.principal.get_or_init(|| self.new_principal(store_name));
        if kept.issuer() == &**store_name { kept.clone() } else { self.new_principal(store_name) }
    }

    fn new_principal(&self, store_name: &Arc<str>) -> Principal {
        let Facts { id, grant, expires, .. } = &self.facts;
        let issuer = Arc::clone(store_name);
        let mut principal = Principal::builder(PrincipalKind::Key, issuer, &grant.subject, "api_key")
            .credential_id(id.to_string())
            .scopes(&grant.scopes)
            .roles(&grant.roles);
        if let Some(tenant) = &grant.tenant {
            principal = principal.tenant(tenant);
        }
        if let Some(plan) = &grant.plan {
            principal = principal.plan(plan);
        }
        if let Some(end) = expires {
            principal = principal.expires_at(*end);
        }
        principal.build()
    }

    fn change(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts);
        self.principal = OnceLock::new();
        self
    }
}

impl PartialEq for ApiKeyRecord {
    fn eq(&self, other: &Self) -> bool {
        self.facts == other.facts
    }
}

impl Eq for ApiKeyRecord {}

/// When and why a key was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    at: u64,
    reason: Box<str>,
}

impl Revocation {
    /// Revoked at `at`, in seconds since the Unix epoch, for a reason that only operators see.
    #[must_use]
    pub fn new(at: u64, reason: impl Into<Box<str>>) -> Self {
        Self { at, reason: reason.into() }
    }

    /// When, in seconds since the Unix epoch.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ApiKeyRecord {
        ApiKeyRecord::new(KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]), "billing", 100, Some(200))
    }

    fn at(seconds: u64) -> Instants {
        Instants::new(seconds * 1_000_000_000, 0)
    }

    #[test]
    fn a_key_is_accepted_from_its_start_until_its_end() {
        let waiting = record().with_not_before(150);
        for (name, record, seconds, accepted) in [
            ("fresh", record(), 100, true),
            ("the last second", record(), 199, true),
            ("the end itself", record(), 200, false),
            ("the end of time", record(), 18_446_744_073, false),
            ("before its start", waiting.clone(), 149, false),
            ("at its start", waiting, 150, true),
            ("revoked later than now", record().with_revocation(Revocation::new(500, "leaked")), 100, false),
        ] {
            assert_eq!(record.refusal(at(seconds)).is_none(), accepted, "{name}");
        }
    }

    #[test]
    fn the_principal_is_made_once_for_each_store_name() {
        let record = record().with_tenant("acme").with_plan("gold").with_roles(["clerk"]).with_scopes(["orders:read"]);
        let (one, two): (Arc<str>, Arc<str>) = ("api-keys".into(), "partners".into());
        let principal = record.principal(&one);
        assert_eq!((principal.kind(), principal.issuer()), (PrincipalKind::Key, "api-keys"));
        assert_eq!((principal.subject(), principal.credential()), ("billing", "api_key"));
        assert_eq!(principal.credential_id(), Some(record.id().to_string().as_str()));
        assert_eq!((principal.tenant(), principal.plan()), (Some("acme"), Some("gold")));
        assert!(principal.has_role("clerk") && principal.has_scope("orders:read"));
        assert_eq!(principal.expires_at(), Some(200));
        assert_eq!(record.principal(&one), principal);
        assert_eq!(record.principal(&two).issuer(), "partners");
    }

    #[test]
    fn a_change_reaches_the_principal() {
        let name: Arc<str> = "api-keys".into();
        let record = record().with_roles(["manager"]);
        assert!(record.principal(&name).has_role("manager"));
        assert!(!record.with_roles(["clerk"]).principal(&name).has_role("manager"));
    }
}
