use std::time::Duration;

use crate::{
    api_key::{ApiKey, ApiKeyAdmin, ApiKeyFormat, ApiKeyRecord, record::Grant},
    clock::Instants,
    error::{ConfigError, StoreError},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

/// Makes keys: says whose a new key is and what it may be used for.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{Clock, SystemClock, api_key::{MemoryKeyStore, NewApiKey}};
///
/// let store = MemoryKeyStore::new();
/// let (key, record) = NewApiKey::for_subject("billing")
///     .name("nightly export")
///     .scope("orders:read")
///     .issue(&store, SystemClock::new().now())
///     .await?;
/// println!("shown once, kept nowhere: {}", key.expose());
/// println!("to revoke it later: {}", record.id());
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct NewApiKey {
    format: ApiKeyFormat,
    grant: Grant,
    scopes: Vec<Box<str>>,
    roles: Vec<Box<str>>,
    not_before: Option<u64>,
    life: KeyLife,
}

impl NewApiKey {
    /// A key that belongs to `subject` and may do nothing yet.
    pub fn for_subject(subject: impl Into<Box<str>>) -> Self {
        Self {
            format: ApiKeyFormat::default(),
            grant: Grant::new(subject.into()),
            scopes: Vec::new(),
            roles: Vec::new(),
            not_before: None,
            life: KeyLife::default(),
        }
    }

    /// Writes the key in this format; the prefix `pc` otherwise.
    pub fn format(mut self, format: ApiKeyFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets what the key is called, for people; empty otherwise.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.grant.name = name.into();
        self
    }

    /// Sets the tenant that the owner belongs to.
    pub fn tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.grant.tenant = Some(tenant.into());
        self
    }

    /// Sets the rate plan.
    pub fn plan(mut self, plan: impl Into<Box<str>>) -> Self {
        self.grant.plan = Some(plan.into());
        self
    }

    /// Adds a scope.
    pub fn scope(mut self, scope: impl Into<Box<str>>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// Adds a role.
    pub fn role(mut self, role: impl Into<Box<str>>) -> Self {
        self.roles.push(role.into());
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

    /// Makes the key and its record, and stores nothing: for a store that is filled by other means.
    ///
    /// # Errors
    /// [`IssueError::Config`] if the subject, a tenant, a plan or a role is empty, a scope is not a scope-token (RFC 6749
    /// §3.3), or the life is shorter than a second or ends beyond the range of `u64`. [`IssueError::Random`] if the
    /// operating system gives no random bytes.
    pub fn mint(self, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError> {
        self.check()?;
        let created = at.unix_seconds();
        let expires = self.end(created)?;
        let Self { format, mut grant, scopes, roles, not_before, .. } = self;
        grant.scopes = scopes.into();
        grant.roles = roles.into();

        let key = format.generate().map_err(|_| IssueError::Random)?;
        let record = ApiKeyRecord::granted(key.id(), key.hash(), grant, created, expires);
        Ok((key, not_before.into_iter().fold(record, ApiKeyRecord::with_not_before)))
    }

    /// Makes the key and stores its record.
    ///
    /// # Errors
    /// As [`mint`](Self::mint), and [`IssueError::Store`] if the store fails. The key is then lost, and of no use unless
    /// the store kept the record in spite of its error.
    pub async fn issue<S>(self, store: &S, at: Instants) -> Result<(ApiKey, ApiKeyRecord), IssueError>
    where
        S: ApiKeyAdmin + ?Sized,
    {
        let (key, record) = self.mint(at)?;
        store.insert(record.clone()).await?;
        Ok((key, record))
    }

    fn check(&self) -> Result<(), ConfigError> {
        not_empty("API key subject", &self.grant.subject)?;
        for (setting, value) in [("API key tenant", &self.grant.tenant), ("API key plan", &self.grant.plan)] {
            value.as_deref().map_or(Ok(()), |value| not_empty(setting, value))?;
        }
        for role in &self.roles {
            not_empty("API key role", role)?;
        }
        let token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        match self.scopes.iter().find(|scope| scope.is_empty() || !scope.bytes().all(token)) {
            Some(scope) => {
                Err(ConfigError::new("API key scope", format!("{scope:?}"), "must be a scope-token (RFC 6749 §3.3)"))
            }
            None => Ok(()),
        }
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
        start.checked_add(life.as_secs()).map(Some).ok_or_else(|| problem("is too long; say KeyLife::Never"))
    }
}

fn not_empty(setting: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(ConfigError::new(setting, "\"\"", "must not be empty"));
    }
    Ok(())
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
        for (setting, wrong) in [
            ("API key subject", NewApiKey::for_subject("")),
            ("API key tenant", new().tenant("")),
            ("API key plan", new().plan("")),
            ("API key role", new().role("")),
            ("API key scope", new().scope("orders:read orders:write")),
            ("API key scope", new().scope("")),
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
        let asked = NewApiKey::for_subject("billing").name("ci").tenant("acme").plan("gold");
        let (key, record) =
            asked.scope("orders:read").scope("orders:write").role("clerk").not_before(2_000).mint(AT).unwrap();
        assert_eq!((record.id(), record.hash()), (&key.id(), &key.hash()));
        assert_eq!((record.subject(), record.name()), ("billing", "ci"));
        assert_eq!((record.tenant(), record.plan()), (Some("acme"), Some("gold")));
        assert_eq!(record.scopes(), ["orders:read".into(), "orders:write".into()]);
        assert_eq!(record.roles(), ["clerk".into()]);
        assert_eq!((record.not_before(), record.revocation()), (Some(2_000), None));
        let secret = key.expose().rsplit_once('_').unwrap().1;
        assert!(!format!("{record:?}").contains(secret));
    }
}
