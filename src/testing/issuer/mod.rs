//! A provider of identities in the test's own process.
#![expect(clippy::expect_used, reason = "test code stops where it cannot go on; nothing here depends on a client")]

#[cfg(feature = "axum")]
mod serve;
mod signing;
mod token;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

#[cfg(feature = "axum")]
pub use serve::{Answers, IssuerServer};
use signing::SigningKey;
pub use token::TestToken;

use crate::{
    clock::{Clock, Instants, SystemClock},
    jwt::{
        Algorithm, Issuer, IssuerProfile, KeySet,
        keys::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh},
    },
    now::Now,
};

/// An identity provider in miniature: keys that are made anew in each run, a name under `.invalid`, which no network knows
/// (RFC 6761 §6.4), and tokens of every kind, good and bad. Clones are the same provider.
///
/// It is a [`KeySource`] itself, so nothing is fetched; `serve` publishes its keys on loopback as well, for tests of that.
///
/// ```
/// use portcullis::{Clock, SystemClock, jwt::JwtAuthenticator, testing::TestIssuer};
///
/// let issuer = TestIssuer::new("orders-api");
/// let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).build()?;
/// let now = SystemClock::new().now();
/// let alice = issuer.token().subject("alice").role("clerk").scope("orders:read");
/// assert_eq!(jwt.verify(&alice.mint(), now).unwrap().subject(), "alice");
/// assert!(jwt.verify(&alice.clone().expired().mint(), now).is_err());
/// assert!(jwt.verify(&alice.unsigned("nOnE"), now).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct TestIssuer {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    tokens: AtomicU64,
}

struct State {
    keys: Vec<Arc<SigningKey>>,
    former: Vec<Arc<SigningKey>>,
    generation: u64,
    reach: Reach,
}

/// What of the provider those who trust it get.
enum Reach {
    Here,
    /// It gives no answer; what was had before is still there.
    Away(KeySnapshot),
    /// It gives no answer, and nobody has its keys.
    Lost,
}

impl State {
    fn snapshot(&self) -> Result<KeySnapshot, KeysUnavailable> {
        match &self.reach {
            Reach::Here => Ok(KeySnapshot::new(self.key_set(), self.generation)),
            Reach::Away(held) => Ok(held.clone()),
            Reach::Lost => Err(TestIssuer::unavailable()),
        }
    }

    fn key_set(&self) -> KeySet {
        KeySet::new(self.keys.iter().map(|key| key.verifying())).expect("a provider has keys")
    }
}

impl TestIssuer {
    /// A provider that signs access tokens (RFC 9068) for this audience with ES256.
    #[must_use]
    pub fn new(audience: impl Into<String>) -> Self {
        Self::with(audience, [Algorithm::ES256], SystemClock::new())
    }

    /// The same with a key for each of these algorithms, the first of which signs unless a token says otherwise, and with a
    /// clock.
    ///
    /// # Panics
    /// If there is no algorithm.
    #[must_use]
    pub fn with(
        audience: impl Into<String>,
        algorithms: impl IntoIterator<Item = Algorithm>,
        clock: impl Clock,
    ) -> Self {
        // Two providers of one test are two issuers.
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::named(format!("https://id-{number}.portcullis.invalid"), audience.into(), algorithms, Arc::new(clock))
    }

    fn named(
        name: String,
        audience: String,
        algorithms: impl IntoIterator<Item = Algorithm>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        super::not_for_production();
        let algorithms: Vec<Algorithm> = algorithms.into_iter().collect();
        assert!(!algorithms.is_empty(), "a provider needs an algorithm");
        let state = State { keys: generate(&algorithms, 1), former: Vec::new(), generation: 1, reach: Reach::Here };
        let inner = Inner { name, audience, algorithms, clock, state: Mutex::new(state), tokens: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The `aud` of its tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.inner.audience
    }

    /// Trust in its access tokens: with its keys as they are at each moment, its algorithms, and the roles and the tenant
    /// of its tokens.
    pub fn access_tokens(&self) -> IssuerProfile {
        Issuer::with_keys(self.name(), self.clone())
            .access_tokens(self.audience())
            .algorithms(self.inner.algorithms.iter().copied())
            .roles_claim("roles")
            .tenant_claim("tenant")
    }

    /// The JWK Set as it would be published. Shared secrets are not in it.
    #[must_use]
    pub fn jwks(&self) -> String {
        let keys: Vec<String> = self.lock().keys.iter().filter_map(|key| key.jwk()).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// The keys that verify now.
    #[must_use]
    pub fn keys(&self) -> KeySet {
        self.lock().key_set()
    }

    /// Replaces every key. Tokens of the earlier ones are no longer good; [`TestToken::by_former_key`] makes more of them.
    pub fn rotate(&self) {
        let mut state = self.lock();
        state.generation = state.generation.saturating_add(1);
        let new = generate(&self.inner.algorithms, state.generation);
        state.former = std::mem::replace(&mut state.keys, new);
    }

    /// Cannot be reached from now on. The keys that it had are known, as `LiveKeys` keeps them through an outage; a token of any
    /// other key is refused with `503`.
    pub fn fail(&self) {
        let mut state = self.lock();
        if matches!(state.reach, Reach::Here) {
            state.reach = Reach::Away(KeySnapshot::new(state.key_set(), state.generation));
        }
    }

    /// Cannot be reached from now on, and nobody has its keys, as when a service starts during an outage or one lasts too long:
    /// every token is refused with `503`.
    pub fn lose_keys(&self) {
        self.lock().reach = Reach::Lost;
    }

    /// Ends what [`fail`](Self::fail) or [`lose_keys`](Self::lose_keys) began.
    pub fn recover(&self) {
        self.lock().reach = Reach::Here;
    }

    /// A good token for `somebody` of the tenant `test`, without roles and scopes, to be changed before it is minted.
    pub fn token(&self) -> TestToken {
        TestToken::new(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, algorithm: Option<Algorithm>) -> Arc<SigningKey> {
        let state = self.lock();
        let found = state.keys.iter().find(|key| algorithm.is_none_or(|asked| key.algorithm == asked));
        Arc::clone(found.expect("the provider has a key of the algorithm"))
    }

    fn former_key(&self) -> Arc<SigningKey> {
        Arc::clone(self.lock().former.first().expect("the provider has rotated its keys"))
    }

    fn unavailable() -> KeysUnavailable {
        KeysUnavailable::new("the test's provider was told to fail", std::time::Duration::from_secs(1))
    }
}

fn generate(algorithms: &[Algorithm], generation: u64) -> Vec<Arc<SigningKey>> {
    let key = |algorithm: &Algorithm| {
        Arc::new(SigningKey::generate(*algorithm, format!("{}-{generation}", algorithm.name().to_ascii_lowercase())))
    };
    algorithms.iter().map(key).collect()
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestIssuer").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeySource for TestIssuer {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        self.lock().snapshot()
    }

    fn refresh_now(&self, _: Option<&str>, seen: u64, _: Instants) -> Now<Refresh> {
        let state = self.lock();
        Now::Known(match (state.snapshot(), &state.reach) {
            (Err(unavailable), _) => Refresh::Unavailable(unavailable),
            (Ok(held), _) if seen < held.generation() => Refresh::LookAgain,
            (Ok(_), Reach::Here) => Refresh::NothingNew,
            (Ok(_), Reach::Away(_) | Reach::Lost) => Refresh::Unavailable(Self::unavailable()),
        })
    }

    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        match self.refresh_now(kid, seen, at) {
            Now::Known(refresh) => refresh,
            Now::Wait => Refresh::NothingNew,
        }
    }

    fn health(&self, _: Instants) -> KeyHealth {
        const CAUSE: &str = "told to fail";
        match &self.lock().reach {
            Reach::Here => KeyHealth::ready(self.inner.algorithms.len()),
            Reach::Away(held) => KeyHealth::ready(held.keys().keys().len()).with_cause(CAUSE),
            Reach::Lost => KeyHealth::not_ready(CAUSE),
        }
    }
}
