#![expect(clippy::expect_used, reason = "test code stops where it cannot go on; nothing here depends on a client")]

use std::sync::Arc;

use crate::{
    api_key::{ApiKey, ApiKeyAuthenticator, KeyLife, MemoryKeyStore, NewApiKey, Revocation},
    clock::{Clock, SystemClock},
};

/// API keys for tests: a store in memory, good keys in it, and bad ones of every kind.
///
/// ```
/// use portcullis::{api_key::NewApiKey, authn::AuthnLayer, testing::TestKeys};
///
/// let keys = TestKeys::new();
/// let (good, revoked) = (keys.good(NewApiKey::for_subject("billing").role("clerk")), keys.revoked("billing"));
/// let layer = AuthnLayer::new(keys.authenticator());
/// # let _ = (good, revoked, layer);
/// ```
#[derive(Clone, Debug)]
pub struct TestKeys {
    store: Arc<MemoryKeyStore>,
    clock: Arc<dyn Clock>,
}

impl Default for TestKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl TestKeys {
    /// An empty store, by the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::new())
    }

    /// An empty store, by this clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        super::not_for_production();
        Self { store: Arc::new(MemoryKeyStore::new()), clock: Arc::new(clock) }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<MemoryKeyStore> {
        Arc::clone(&self.store)
    }

    /// An authenticator that takes its keys.
    pub fn authenticator(&self) -> ApiKeyAuthenticator {
        ApiKeyAuthenticator::new(self.store())
    }

    /// A good key, as text.
    ///
    /// # Panics
    /// If what it is for is out of the bounds of a record.
    #[must_use]
    pub fn good(&self, new: NewApiKey) -> String {
        let (key, record) = new.mint(self.clock.now()).expect("a key with these settings");
        self.store.add(record).expect("ids are random");
        text(&key)
    }

    /// A key of this subject that has ended: it was good for one second, two hours ago.
    ///
    /// # Panics
    /// As [`good`](Self::good).
    #[must_use]
    pub fn ended(&self, subject: &str) -> String {
        let begin = self.clock.now().unix_seconds().saturating_sub(7_200);
        let life = KeyLife::For(std::time::Duration::from_secs(1));
        let new = NewApiKey::for_subject(subject).not_before(begin).lives(life);
        let past = crate::Instants::new(begin.saturating_mul(1_000_000_000), 0);
        let (key, record) = new.mint(past).expect("a key with these settings");
        self.store.add(record).expect("ids are random");
        text(&key)
    }

    /// A key of this subject that is good in an hour.
    ///
    /// # Panics
    /// As [`good`](Self::good).
    #[must_use]
    pub fn not_yet_good(&self, subject: &str) -> String {
        let later = self.clock.now().unix_seconds().saturating_add(3_600);
        self.good(NewApiKey::for_subject(subject).not_before(later))
    }

    /// A key of this subject that was revoked.
    ///
    /// # Panics
    /// As [`good`](Self::good).
    #[must_use]
    pub fn revoked(&self, subject: &str) -> String {
        let now = self.clock.now();
        let (key, record) = NewApiKey::for_subject(subject).mint(now).expect("a key with these settings");
        let revocation = Revocation::new(now.unix_seconds(), "for a test").expect("a short reason");
        self.store.add(record.revoked(&revocation)).expect("ids are random");
        text(&key)
    }

    /// A key of the right form that is not in the store.
    ///
    /// # Panics
    /// Never: its settings are fixed.
    #[must_use]
    pub fn unknown(&self) -> String {
        let (key, _) = NewApiKey::for_subject("nobody").mint(self.clock.now()).expect("a key with these settings");
        text(&key)
    }
}

fn text(key: &ApiKey) -> String {
    key.expose().to_owned()
}
