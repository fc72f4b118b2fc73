use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyFormat, ApiKeyRecord, HashScheme, KeyId, MAX_TIME, Peppers, RecordFields, Rotation,
    },
    clock::Instants,
    error::{ConfigError, StoreError},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long the old key still works beside the one that replaces it, unless something else is said: 24 hours.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a key is accepted. One year of 365 days unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyLife {
    /// For this long, in whole seconds, from when it is made or, if that is later, from its `not_before`.
    For(Duration),
    /// Until it is revoked. A key that nobody remembers then works for ever.
    Never,
}

impl Default for KeyLife {
    fn default() -> Self {
        Self::For(YEAR)
    }
}

/// Whose a new key is and what it may be used for; [`KeyIssuer`] makes the key. Take the one of the authenticator that is to
/// accept it ([`ApiKeyAuthenticator::issuer`](crate::api_key::ApiKeyAuthenticator::issuer)): under its peppers and in its
/// format.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use portcullis::{Clock, SystemClock, api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey}};
///
/// let store = Arc::new(MemoryKeyStore::new());
/// let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
/// let new = NewApiKey::for_subject("billing").name("nightly export").scope("orders:read");
/// let (key, record) = keys.issuer().issue(&store, new, SystemClock::new().now()).await?;
/// println!("shown once, kept nowhere: {}", key.expose());
/// println!("to revoke it later: {}", record.id());
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct NewApiKey {
    subject: String,
    tenant: Option<String>,
    name: String,
    plan: Option<String>,
    scopes: Vec<String>,
    roles: Vec<String>,
    addresses: Vec<IpNet>,
    metadata: BTreeMap<String, String>,
    not_before: Option<u64>,
    life: KeyLife,
}

impl NewApiKey {
    /// A key that belongs to `subject` and may do nothing yet.
    pub fn for_subject(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            tenant: None,
            name: String::new(),
            plan: None,
            scopes: Vec::new(),
            roles: Vec::new(),
            addresses: Vec::new(),
            metadata: BTreeMap::new(),
            not_before: None,
            life: KeyLife::default(),
        }
    }

    /// Sets what the key is called, for people; empty otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the tenant that the owner belongs to.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the rate plan.
    pub fn plan(mut self, plan: impl Into<String>) -> Self {
        self.plan = Some(plan.into());
        self
    }

    /// Adds a scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// Adds a role.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// Adds a network that the key may be used from; from anywhere if none is added.
    pub fn address(mut self, network: IpNet) -> Self {
        self.addresses.push(network);
        self
    }

    /// Adds something to keep with the key, in the place of what has the same name.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets when the key begins to be accepted, in seconds since the Unix epoch; at once otherwise.
    pub fn not_before(mut self, unix_seconds: u64) -> Self {
        self.not_before = Some(unix_seconds);
        self
    }

    /// Sets how long the key is accepted; one year otherwise.
    pub fn lives(mut self, life: KeyLife) -> Self {
        self.life = life;
        self
    }

    /// Makes the key in the default format and under no pepper, as [`KeyIssuer::new`] does: an authenticator with another
    /// format, or with peppers, does not take it.
    ///
    /// # Errors
    /// As [`KeyIssuer::mint`].
    pub fn mint(self, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError> {
        KeyIssuer::new().mint(self, at)
    }

    /// Makes the key in the default format and under no pepper, as [`mint`](Self::mint) does, and stores its record.
    ///
    /// # Errors
    /// As [`KeyIssuer::issue`].
    pub async fn issue<S>(self, store: &S, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError>
    where
        S: ApiKeyAdmin + ?Sized,
    {
        KeyIssuer::new().issue(store, self, at).await
    }

    fn end(&self, created: u64) -> Result<Option<u64>, ConfigError> {
        let life = match self.life {
            KeyLife::For(life) => life,
            KeyLife::Never => return Ok(None),
        };
        let problem = |problem| ConfigError::new("API key life", format!("{life:?}"), problem);
        if life.as_secs() == 0 {
            return Err(problem("must be a second at least"));
        }
        let start = self.not_before.map_or(created, |start| start.max(created));
        let end = start.checked_add(life.as_secs()).filter(|end| *end <= MAX_TIME);
        end.map(Some).ok_or_else(|| problem("is too long; say KeyLife::Never"))
    }
}

/// Makes keys: in which format, under which pepper, and with which scopes at most.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{
///     Clock, SystemClock,
///     api_key::{ApiKeyFormat, DEFAULT_OVERLAP, KeyIssuer, MemoryKeyStore, NewApiKey},
/// };
///
/// let (store, at) = (MemoryKeyStore::new(), SystemClock::new().now());
/// let issuer = KeyIssuer::new()
///     .with_format(ApiKeyFormat::new("acme")?.environment("live")?)
///     .with_known_scopes(["orders:read", "orders:write"]);
/// let (key, record) = issuer.issue(&store, NewApiKey::for_subject("billing").scope("orders:read"), at).await?;
/// assert!(key.expose().starts_with("acme_live_v1_"));
///
/// let (new, _) = issuer.rotate(&store, record.id(), DEFAULT_OVERLAP, at).await?; // both work for a day
/// assert_ne!(new.id(), key.id());
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct KeyIssuer {
    format: ApiKeyFormat,
    peppers: Option<Peppers>,
    known_scopes: Option<Arc<BTreeSet<Box<str>>>>,
}

impl KeyIssuer {
    /// Keys of the prefix `pc`, of no environment, with whatever scope is asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes keys in this format; their records carry its environment.
    pub fn with_format(mut self, format: ApiKeyFormat) -> Self {
        self.format = format;
        self
    }

    /// Hashes keys under the current one of these peppers; with plain SHA-256 otherwise.
    pub fn with_peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = Some(peppers);
        self
    }

    /// Makes no key with another scope than these: those that the policy knows. A rotation keeps the scopes that the key has.
    pub fn with_known_scopes<T: Into<Box<str>>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.known_scopes = Some(Arc::new(scopes.into_iter().map(Into::into).collect()));
        self
    }

    /// Makes a key and its record, and stores nothing: for a store that is filled by other means.
    ///
    /// # Errors
    /// [`IssueError::Config`] if a field is out of the bounds of [`RecordFields`], a scope is not known, or the life is
    /// shorter than a second or ends after the year 9999. [`IssueError::Random`] if the operating system gives no random
    /// bytes.
    pub fn mint(&self, key: NewApiKey, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError> {
        if let Some(known) = &self.known_scopes
            && let Some(scope) = key.scopes.iter().find(|scope| !known.contains(scope.as_str()))
        {
            return Err(ConfigError::new("API key scope", format!("{scope:?}"), "is not known to the policy").into());
        }
        let created = at.unix_seconds();
        let expires = key.end(created)?;
        let NewApiKey { subject, tenant, name, plan, scopes, roles, addresses, metadata, not_before, life: _ } = key;
        self.make(|made| {
            let fields = RecordFields::new(made.id(), made.hash(), subject, created, expires);
            RecordFields { name, tenant, plan, scopes, roles, addresses, metadata, not_before, ..fields }
        })
    }

    /// Makes a key and stores its record.
    ///
    /// # Errors
    /// As [`mint`](Self::mint), and [`IssueError::Store`] if the store fails. The key is then lost, and of no use unless
    /// the store kept the record in spite of its error.
    pub async fn issue<S>(&self, store: &S, key: NewApiKey, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError>
    where
        S: ApiKeyAdmin + ?Sized,
    {
        let (key, record) = self.mint(key, at)?;
        store.insert(record.clone()).await?;
        Ok((key, record))
    }

    /// Replaces a key by a new one of the same owner, scopes, roles, plan, addresses, name and metadata, which lives as long as
    /// the old one was meant to. The old one ends after `overlap`, in whole seconds, or at its own end if that is first; zero
    /// ends it at once. Of two that rotate one key at the same time, one wins.
    ///
    /// A key of another system says nothing of peppers: rotated by an issuer without them, in a service that has some, it ends,
    /// and nobody takes the new one.
    ///
    /// # Errors
    /// [`IssueError::NoSuchKey`] if there is none; [`IssueError::Ended`] if it is revoked or expired; [`IssueError::Config`] if
    /// it is of another environment than this issuer's, or hashed under a pepper while this issuer has none; [`IssueError::Store`] with
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if it was rotated before, or if the store fails.
    pub async fn rotate<S>(
        &self,
        store: &S,
        old: &KeyId,
        overlap: Duration,
        at: Instants,
    ) -> Result<(ApiKey, ApiKeyRecord), IssueError>
    where
        S: ApiKeyAdmin + ?Sized,
    {
        let hit = store.get(old).await?.ok_or(IssueError::NoSuchKey(*old))?;
        let (key, rotation) = self.mint_rotation(hit.record(), overlap, at)?;
        let record = rotation.record().clone();
        if store.rotate(rotation).await? { Ok((key, record)) } else { Err(IssueError::NoSuchKey(*old)) }
    }

    /// Makes what [`rotate`](Self::rotate) stores, and stores nothing: for who looks at the new record before.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate), but for those of the store.
    pub fn mint_rotation(
        &self,
        old: &ApiKeyRecord,
        overlap: Duration,
        at: Instants,
    ) -> Result<(ApiKey, Rotation), IssueError> {
        let now = at.unix_seconds();
        if old.ended().is_some_and(|end| old.revocation().is_some() || end <= now) {
            return Err(IssueError::Ended(*old.id()));
        }
        let was = old.fields();
        if was.environment.as_deref() != self.format.in_environment() {
            let shown = format!("{:?}", was.environment.unwrap_or_default());
            return Err(ConfigError::new("API key environment", shown, "is not the one of this issuer").into());
        }
        if matches!(was.scheme, HashScheme::HmacSha256 { .. }) && self.peppers.is_none() {
            // Whoever takes keys with peppers takes none without, and the old key ends.
            let problem = "has a pepper, and this issuer has none: nobody would take the new key";
            return Err(ConfigError::new("API key hash", was.scheme.to_string(), problem).into());
        }
        let start = was.not_before.map_or(was.created, |start| start.max(was.created));
        // A key that has not begun is not begun by replacing it.
        let not_before = was.not_before.filter(|start| *start > now);
        let begins = not_before.unwrap_or(now);
        let expires = was.expires.map(|end| begins.saturating_add(end.saturating_sub(start)).min(MAX_TIME));
        let (key, record) = self.make(|made| RecordFields {
            id: made.id(),
            created: now,
            not_before,
            expires,
            rotated_to: None,
            last_used: None,
            ..was
        })?;
        let old_ends = now.saturating_add(overlap.as_secs()).min(MAX_TIME);
        Ok((key, Rotation::new(*old.id(), record, old_ends)?))
    }

    fn make(&self, fields: impl FnOnce(&ApiKey) -> RecordFields) -> Result<(ApiKey, ApiKeyRecord), IssueError> {
        let (key, hash) = self.format.generate(self.peppers.as_ref()).map_err(|_| IssueError::Random)?;
        let mut fields = fields(&key);
        fields.hash = hash;
        fields.scheme = self.peppers.as_ref().map_or(HashScheme::Sha256, Peppers::scheme);
        fields.environment = self.format.in_environment().map(str::to_owned);
        Ok((key, fields.check()?))
    }
}

/// Why a key was not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// Something that was asked for makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// There is no key of this id.
    #[error("no key {0}")]
    NoSuchKey(KeyId),
    /// The key to replace is revoked or expired. Issue a new one.
    #[error("key {0} is revoked or expired")]
    Ended(KeyId),
    /// The store did not take the record.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Instants = Instants::new(1_000_000_000_000, 0);

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let new = || NewApiKey::for_subject("billing");
        let long = |count: usize| "x".repeat(count);
        for (setting, wrong) in [
            ("API key subject", NewApiKey::for_subject("")),
            ("API key subject", NewApiKey::for_subject(long(257))),
            ("API key subject", NewApiKey::for_subject("bil\0ling")),
            ("API key name", new().name(long(257))),
            ("API key name", new().name("two\nlines")),
            ("API key tenant", new().tenant("")),
            ("API key tenant", new().tenant(long(257))),
            ("API key plan", new().plan("")),
            ("API key plan", new().plan(long(65))),
            ("API key role", new().role("")),
            ("API key role", new().role(long(129))),
            ("API key roles", (0..65).fold(new(), |key, _| key.role("clerk"))),
            ("API key scope", new().scope("orders:read orders:write")),
            ("API key scope", new().scope("")),
            ("API key scope", new().scope(long(129))),
            ("API key scopes", (0..129).fold(new(), |key, _| key.scope("a"))),
            ("API key address", new().address("10.0.0.1/8".parse().unwrap())),
            ("API key address", new().address("::ffff:10.0.0.0/104".parse().unwrap())),
            ("API key addresses", (0..65).fold(new(), |key, _| key.address("10.0.0.0/8".parse().unwrap()))),
            ("API key metadata name", new().metadata("", "x")),
            ("API key metadata name", new().metadata(long(65), "x")),
            ("API key metadata value", new().metadata("team", long(513))),
            ("API key metadata", (0..33).fold(new(), |key, n| key.metadata(n.to_string(), ""))),
            ("API key start", new().not_before(MAX_TIME + 1).lives(KeyLife::Never)),
            ("API key life", new().lives(KeyLife::For(Duration::ZERO))),
            ("API key life", new().lives(KeyLife::For(Duration::from_millis(999)))),
            ("API key life", new().lives(KeyLife::For(Duration::MAX))),
        ] {
            match wrong.mint(AT) {
                Err(IssueError::Config(error)) => assert_eq!(error.setting(), setting),
                other => panic!("{setting}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_long_value_is_shown_by_its_beginning() {
        let error = NewApiKey::for_subject("billing").name("ä".repeat(200)).mint(AT).unwrap_err().to_string();
        assert_eq!(error, format!("API key name: \"{}\".. is longer than 256 bytes", "ä".repeat(64)));
    }

    #[test]
    fn a_scope_that_nobody_knows_is_refused_by_name() {
        let issuer = KeyIssuer::new().with_known_scopes(["orders:read"]);
        assert!(issuer.mint(NewApiKey::for_subject("billing").scope("orders:read"), AT).is_ok());
        match issuer.mint(NewApiKey::for_subject("billing").scope("orders:raed"), AT) {
            Err(IssueError::Config(error)) => assert_eq!(error.value(), "\"orders:raed\""),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lives() {
        let day = KeyLife::For(Duration::from_secs(86_400));
        let new = || NewApiKey::for_subject("billing");
        for (name, key, expires) in [
            ("a year unless said", new(), Some(1_000 + 31_536_000)),
            ("a day", new().lives(day), Some(1_000 + 86_400)),
            ("a day from its start", new().lives(day).not_before(5_000), Some(5_000 + 86_400)),
            ("a day, though its start is past", new().lives(day).not_before(10), Some(1_000 + 86_400)),
            ("never", new().lives(KeyLife::Never), None),
        ] {
            let (_, record) = key.mint(AT).unwrap();
            assert_eq!((record.created(), record.expires()), (1_000, expires), "{name}");
        }
    }

    #[test]
    fn the_record_is_what_was_asked_for_and_never_holds_the_secret() {
        let asked = NewApiKey::for_subject("billing").name("ci").tenant("acme").plan("gold").metadata("team", "blue");
        let asked =
            asked.scope("orders:read").scope("orders:write").role("clerk").address("10.0.0.0/8".parse().unwrap());
        let (key, record) = asked.not_before(2_000).mint(AT).unwrap();
        assert_eq!((record.id(), record.hash()), (&key.id(), &key.hash()));
        assert_eq!((record.subject(), record.name()), ("billing", "ci"));
        assert_eq!((record.tenant(), record.plan()), (Some("acme"), Some("gold")));
        assert_eq!(record.scopes(), [Box::from("orders:read"), Box::from("orders:write")]);
        assert_eq!(record.roles(), [Box::from("clerk")]);
        assert_eq!(record.addresses(), ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(record.metadata().collect::<Vec<_>>(), [("team", "blue")]);
        assert_eq!((record.not_before(), record.revocation()), (Some(2_000), None));
        let secret = key.expose().rsplit_once('_').unwrap().1;
        assert!(!format!("{record:?}").contains(secret));
    }
}
