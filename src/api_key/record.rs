mod packed;
mod principal;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ipnet::IpNet;

use self::{
    packed::{Environment, Time},
    principal::Kept,
};
use crate::{
    api_key::{HashScheme, KeyHash, KeyId, LastUse, Owner, RecordFields, Revocation, bounds, format},
    error::ConfigError,
};

/// What a store keeps of a key: everything but the secret. Times are whole seconds since the Unix epoch.
///
/// [`NewApiKey`](crate::api_key::NewApiKey) makes one for a new key; a store of yours makes one from a row, by
/// [`RecordFields`], which says what the bounds are.
#[repr(C)] // a request for a key that was not used for long waits for memory: what it needs comes first, in two lines
pub struct ApiKeyRecord {
    hash: KeyHash,
    expires: Time,
    not_before: Time,
    /// What most records have none of.
    rare: Option<Box<Rare>>,
    /// Made at the first request that uses the key, then shared.
    principal: OnceLock<Kept>,
    /// The minute in which a use was last noted, counted from one.
    noted: AtomicU32,
    id: KeyId,
    environment: Environment,
    scheme: HashScheme,
    facts: Facts,
}

/// What a request does not need, once its principal is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    created: u64,
    owner: Owner,
    name: Box<str>,
    plan: Option<Box<str>>,
    scopes: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
    last_used: Option<LastUse>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    addresses: Box<[IpNet]>,
    metadata: Box<[(Box<str>, Box<str>)]>,
    revocation: Option<Revocation>,
    rotated_from: Option<KeyId>,
    rotated_to: Option<KeyId>,
}

impl ApiKeyRecord {
    /// Every record comes through here.
    pub(super) fn checked(fields: RecordFields) -> Result<Self, ConfigError> {
        let RecordFields {
            id,
            scheme,
            hash,
            name,
            subject,
            tenant,
            plan,
            scopes,
            roles,
            environment,
            addresses,
            created,
            not_before,
            expires,
            rotated_from,
            rotated_to,
            revoked,
            last_used,
            metadata,
        } = fields;
        let owner = Owner::checked(subject, tenant)?;
        bounds::name(&name)?;
        plan.as_deref().map_or(Ok(()), bounds::plan)?;
        bounds::scopes(scopes.iter().map(String::as_str))?;
        bounds::roles(roles.iter().map(String::as_str))?;
        environment.as_deref().map_or(Ok(()), format::check_environment)?;
        bounds::addresses(&addresses)?;
        bounds::metadata(metadata.iter().map(|(name, value)| (&**name, &**value)))?;
        bounds::time("API key creation time", created)?;
        bounds::time("API key start", not_before.unwrap_or(0))?;
        bounds::time("API key end", expires.unwrap_or(0))?;
        bounds::time("API key last use", last_used.map_or(0, |last| last.at()))?;
        if scheme == HashScheme::LegacySha256 && id != hash.legacy_id() {
            return Err(ConfigError::new("API key id", id.to_string(), "is not the one of this legacy hash"));
        }
        for other in [rotated_from, rotated_to].into_iter().flatten() {
            if other == id {
                return Err(ConfigError::new("API key rotation", id.to_string(), "cannot replace itself"));
            }
        }

        let boxed = |texts: Vec<String>| texts.into_iter().map(String::into_boxed_str).collect();
        let rare = Rare {
            addresses: addresses.into(),
            metadata: metadata.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            revocation: revoked,
            rotated_from,
            rotated_to,
        };
        let facts = Facts {
            created,
            owner,
            name: name.into(),
            plan: plan.map(Into::into),
            scopes: boxed(scopes),
            roles: boxed(roles),
            last_used,
        };
        Ok(Self {
            hash,
            expires: Time::new(expires),
            not_before: Time::new(not_before),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            principal: OnceLock::new(),
            noted: AtomicU32::new(0),
            id,
            environment: Environment::new(environment.as_deref()),
            scheme,
            facts,
        })
    }

    /// The record as plain data.
    #[must_use]
    pub fn fields(&self) -> RecordFields {
        let mut fields = RecordFields::new(*self.id(), *self.hash(), self.subject(), self.created(), self.expires());
        fields.scheme = self.scheme();
        fields.name = self.name().to_owned();
        fields.tenant = self.tenant().map(str::to_owned);
        fields.plan = self.plan().map(str::to_owned);
        fields.scopes = self.scopes().iter().map(|scope| scope.to_string()).collect();
        fields.roles = self.roles().iter().map(|role| role.to_string()).collect();
        fields.environment = self.environment().map(str::to_owned);
        fields.addresses = self.addresses().to_vec();
        fields.not_before = self.not_before();
        fields.rotated_from = self.rotated_from().copied();
        fields.rotated_to = self.rotated_to().copied();
        fields.revoked = self.revocation().cloned();
        fields.last_used = self.last_used();
        fields.metadata = self.metadata().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields
    }

    /// The public id.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The hash that a presented key is compared with.
    #[must_use]
    pub const fn hash(&self) -> &KeyHash {
        &self.hash
    }

    /// How the hash was made.
    #[must_use]
    pub const fn scheme(&self) -> HashScheme {
        self.scheme
    }

    /// What the key is called; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Whose key it is.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.facts.owner
    }

    /// The owner's name.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.facts.owner.subject()
    }

    /// The tenant that the owner belongs to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.facts.owner.tenant()
    }

    /// The rate plan that the key is on.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.facts.plan.as_deref()
    }

    /// The environment that the key is for.
    #[must_use]
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_str()
    }

    /// What the key may be used for.
    #[must_use]
    pub fn scopes(&self) -> &[Box<str>] {
        &self.facts.scopes
    }

    /// The roles that the key acts in.
    #[must_use]
    pub fn roles(&self) -> &[Box<str>] {
        &self.facts.roles
    }

    /// The networks that the key may be used from; none is anywhere.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        self.rare.as_deref().map_or(&[], |rare| &rare.addresses)
    }

    /// When the key was made.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.facts.created
    }

    /// When the key begins to be accepted; None is from the start.
    #[must_use]
    pub fn not_before(&self) -> Option<u64> {
        self.not_before.get()
    }

    /// When the key ends; None is never.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.expires.get()
    }

    /// When and why the key was revoked, if it was.
    #[must_use]
    pub fn revocation(&self) -> Option<&Revocation> {
        self.rare.as_deref().and_then(|rare| rare.revocation.as_ref())
    }

    /// The key that this one replaces.
    #[must_use]
    pub fn rotated_from(&self) -> Option<&KeyId> {
        self.rare.as_deref().and_then(|rare| rare.rotated_from.as_ref())
    }

    /// The key that replaces this one.
    #[must_use]
    pub fn rotated_to(&self) -> Option<&KeyId> {
        self.rare.as_deref().and_then(|rare| rare.rotated_to.as_ref())
    }

    /// When and from where the key was last used, as far as was written.
    #[must_use]
    pub const fn last_used(&self) -> Option<LastUse> {
        self.facts.last_used
    }

    /// What else the owner keeps with the key, by ascending name.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let entries: &[(Box<str>, Box<str>)] = self.rare.as_deref().map_or(&[], |rare| &rare.metadata);
        entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// When the key ended or will end: when it was revoked or when it expires, whichever is first. None is never.
    #[must_use]
    pub fn ended(&self) -> Option<u64> {
        self.revocation().map(Revocation::at).into_iter().chain(self.expires()).min()
    }

    /// Whether the key is accepted at this time, in seconds since the Unix epoch, as far as its record tells: it is not
    /// revoked, has begun and has not ended. No leeway: the clock that is compared with is the one that the key was made by.
    #[must_use]
    pub fn is_active(&self, unix_seconds: u64) -> bool {
        self.refusal(unix_seconds).is_none()
    }

    /// The record of the key, revoked. A first revocation stays.
    #[must_use]
    pub fn revoked(&self, revocation: &Revocation) -> Self {
        let mut revoked = self.clone();
        if revoked.revocation().is_none() {
            revoked.rare().revocation = Some(revocation.clone());
        }
        revoked
    }

    /// The record of the key, used. A later use stays.
    #[must_use]
    pub fn used(&self, last: LastUse) -> Self {
        let mut used = self.clone();
        if used.last_used().is_none_or(|known| known.at() <= last.at()) {
            used.facts.last_used = Some(last);
        }
        used
    }

    pub(super) fn replacing(mut self, old: KeyId) -> Self {
        self.rare().rotated_from = Some(old);
        self
    }

    pub(super) fn replaced_by(&self, new: KeyId, ends: u64) -> Self {
        let mut old = self.clone();
        old.rare().rotated_to = Some(new);
        old.expires = Time::new(Some(old.expires().map_or(ends, |end| end.min(ends))));
        old.principal = OnceLock::new(); // it carries the end
        old
    }

    /// Whether no use was noted in this minute yet; it is from here on.
    pub(super) fn is_first_use_in_a_while(&self, now: u64) -> bool {
        let minute = u32::try_from(now / 60).unwrap_or(u32::MAX).saturating_add(1);
        // Read first: a key that is used often is not written to by every request.
        self.noted.load(Ordering::Relaxed) != minute && self.noted.swap(minute, Ordering::Relaxed) != minute
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Why the key is not accepted at this time, for the operator; None if it is.
    pub(super) fn refusal(&self, now: u64) -> Option<&'static str> {
        if self.revocation().is_some() {
            return Some("revoked");
        }
        if self.expires().is_some_and(|end| now >= end) {
            return Some("expired");
        }
        if self.not_before().is_some_and(|start| now < start) {
            return Some("not valid yet");
        }
        None
    }

    /// Whether the key may be used from there. An address that is not known is in no network.
    pub(super) fn allows(&self, address: Option<IpAddr>) -> bool {
        let networks = self.addresses();
        networks.is_empty() || address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
    }
}

impl Clone for ApiKeyRecord {
    fn clone(&self) -> Self {
        Self {
            hash: self.hash,
            expires: self.expires,
            not_before: self.not_before,
            rare: self.rare.clone(),
            principal: self.principal.clone(),
            noted: AtomicU32::new(self.noted.load(Ordering::Relaxed)),
            id: self.id,
            environment: self.environment,
            scheme: self.scheme,
            facts: self.facts.clone(),
        }
    }
}

impl fmt::Debug for ApiKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKeyRecord").field(&self.fields()).finish()
    }
}

impl PartialEq for ApiKeyRecord {
    fn eq(&self, other: &Self) -> bool {
        let lived = |record: &Self| (record.expires, record.not_before, record.scheme);
        (self.id, self.hash, self.environment, &self.rare, &self.facts)
            == (other.id, other.hash, other.environment, &other.rare, &other.facts)
            && lived(self) == lived(other)
    }
}

impl Eq for ApiKeyRecord {}

#[cfg(test)]
mod tests;
