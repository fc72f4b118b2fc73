mod key;

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use quick_cache::{UnitWeighter, sync};

use crate::{
    error::ConfigError,
    flight::Flights,
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, QueryParts, ReloadState, Verdict},
};

/// Remembers the verdicts of a policy that says how long they [hold](PolicyBackend::holds_for). It is a policy itself.
///
/// A verdict is given again to a question with the same action and the same [parts](PolicyBackend::parts), compared byte for
/// byte, for as long as the policy says and 5 s at most, by the time of the questions. It is forgotten once the policy's
/// [generation](PolicyBackend::generation) is another one; then the parts may be others, too. Of a combination, that is so once one
/// of its policies has another one, also if the rest, asked elsewhere, has none. `cannot decide` is never remembered,
/// nor a denial of a [`Combined`](crate::policy::Combined) for which a step-up was demanded: whether it is still to be made is another
/// question for each principal. Who asks the same while an answer is on its way waits for that one.
///
/// From memory it answers at once, without a lock that anybody holds for long, and without allocation.
///
/// # Bounds
/// [10 000 verdicts](Self::max_verdicts); a question whose declared parts take more than 1 KiB is asked each time.
///
/// ```
/// # #[cfg(feature = "rbac")]
/// # fn main() -> Result<(), portcullis::ConfigError> {
/// use portcullis::policy::{Cached, Rbac};
///
/// // A policy in memory gains nothing; it is here for the example.
/// let policy = Cached::new(Rbac::from_toml("version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['orders:read']")?)?;
/// # let _ = policy;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "rbac"))]
/// # fn main() {}
/// ```
pub struct Cached<B> {
    policy: B,
    life: u64,
    verdicts: sync::Cache<Box<[u8]>, Entry, UnitWeighter, RandomState>,
    flights: Flights<Box<[u8]>, Entry>,
    flushes: AtomicU64,
    asked: AtomicU64,
}

/// A verdict, and the state of the policy before it was asked.
#[derive(Clone, Debug)]
struct Entry {
    verdict: Verdict,
    state: State,
    asked_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    generation: Option<u64>,
    flushes: u64,
}

/// The longest that any verdict is remembered.
const MAX_LIFE: Duration = Duration::from_secs(5);
const DEFAULT_VERDICTS: usize = 10_000;
const MAX_VERDICTS: usize = 1 << 24;

impl<B: PolicyBackend> Cached<B> {
    /// Remembers this policy's verdicts, 10 000 of them.
    ///
    /// # Errors
    /// If the policy does not say how long its verdicts hold, or says that they depend on the time.
    pub fn new(policy: B) -> Result<Self, ConfigError> {
        Self::max_verdicts(policy, DEFAULT_VERDICTS)
    }

    /// The same with another number of verdicts, 1 to 16 777 216. Beyond it, and a sixteenth to spare, one goes that was not
    /// asked for lately.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the number is out of its bounds.
    pub fn max_verdicts(policy: B, verdicts: usize) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| Err(ConfigError::new("cached policy", policy.name(), problem));
        let Some(life) = policy.holds_for().filter(|life| !life.is_zero()) else {
            return refuse("does not say how long its verdicts hold (PolicyBackend::holds_for)");
        };
        if policy.parts().has(QueryParts::TIME) {
            return refuse("says that its verdicts depend on the time (PolicyBackend::parts)");
        }
        if verdicts == 0 || verdicts > MAX_VERDICTS {
            return Err(ConfigError::new("verdicts of the policy cache", verdicts.to_string(), "is not 1 to 16777216"));
        }
        let life = u64::try_from(life.min(MAX_LIFE).as_nanos()).unwrap_or(u64::MAX);
        let weight = u64::try_from(verdicts.saturating_add(verdicts / 16)).unwrap_or(u64::MAX);
        let cache = sync::Cache::with(
            verdicts,
            weight,
            UnitWeighter,
            RandomState::default(),
            sync::DefaultLifecycle::default(),
        );
        Ok(Self {
            policy,
            life,
            verdicts: cache,
            flights: Flights::default(),
            flushes: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        })
    }

    /// The policy that is asked.
    pub const fn policy(&self) -> &B {
        &self.policy
    }

    /// Forgets all, also what is on its way: for a policy far away that cannot tell that it changed.
    pub fn flush(&self) {
        self.flushes.fetch_add(1, Relaxed);
        self.verdicts.clear();
    }

    /// How many questions went to the policy because no verdict was remembered.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    fn state(&self) -> State {
        State { generation: self.policy.generation(), flushes: self.flushes.load(Relaxed) }
    }

    fn is_good(&self, entry: &Entry, state: State, query: &AccessQuery<'_>) -> bool {
        // In both directions: for who asks by an old time again and again, what came later would never grow old.
        entry.state == state && query.at().monotonic_nanos().abs_diff(entry.asked_at) < self.life
    }

    fn recall(&self, key: &[u8], query: &AccessQuery<'_>) -> Option<Verdict> {
        let entry = self.verdicts.get(key)?;
        self.is_good(&entry, self.state(), query).then_some(entry.verdict)
    }

    fn keep(&self, key: &[u8], entry: &Entry) {
        if entry.verdict.decision() != Decision::CannotDecide && !entry.verdict.is_of_the_moment() {
            self.verdicts.insert(key.into(), entry.clone());
        }
    }

    fn entry(verdict: Verdict, state: State, query: &AccessQuery<'_>) -> Entry {
        Entry { verdict, state, asked_at: query.at().monotonic_nanos() }
    }

    /// The key of a question, if it can be remembered. The state is read before it, and an answer is kept under both: what the
    /// policy reads may change with the state.
    fn key(&self, query: &AccessQuery<'_>) -> Option<Box<[u8]>> {
        let mut key = Vec::new();
        key::write(&mut key, self.policy.parts(), query).then(|| key.into())
    }

    async fn ask(&self, query: &AccessQuery<'_>) -> Verdict {
        self.asked.fetch_add(1, Relaxed);
        match self.policy.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => self.policy.decide(query).await,
        }
    }
}

impl<B: PolicyBackend> fmt::Debug for Cached<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("policy", &self.policy)
            .field("parts", &self.policy.parts())
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Where keys are written, so that a hit does not allocate.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a thread keeps of its room for keys.
const KEPT_ROOM: usize = 4 * key::MAX_KEY;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: PolicyBackend> PolicyBackend for Cached<B> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        // Taken out, so that a policy that is a cache itself finds another one.
        let mut key = KEY.take();
        let state = self.state();
        let fits = key::write(&mut key, self.policy.parts(), query);
        let answer = match fits.then(|| self.recall(&key, query)).flatten() {
            Some(verdict) => Now::Known(verdict),
            None => {
                let answer = self.policy.decide_now(query);
                if let Now::Known(verdict) = &answer {
                    self.asked.fetch_add(1, Relaxed);
                    if fits {
                        self.keep(&key, &Self::entry(verdict.clone(), state, query));
                    }
                }
                answer
            }
        };
        if key.capacity() <= KEPT_ROOM {
            KEY.set(key);
        }
        answer
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        // An answer that was on its way before the policy changed is not for who asks after that.
        let state = self.state();
        let Some(key) = self.key(query) else { return self.ask(query).await };
        if let Some(verdict) = self.recall(&key, query) {
            return verdict;
        }
        let seat = self.flights.board(key.clone());
        let own = AtomicBool::new(false);
        let load = || async {
            own.store(true, Relaxed);
            let entry = Self::entry(self.ask(query).await, state, query);
            self.keep(&key, &entry);
            entry
        };
        let entry = seat.landing(load).await;
        drop(seat);
        // Of a policy that changed on the way, the answer may be that of the newer one, which tells apart what the older one did
        // not.
        let now = self.state();
        let is_fresh = (entry.state == state && state == now) || self.is_good(&entry, now, query);
        if own.load(Relaxed) || (is_fresh && !entry.verdict.is_of_the_moment()) {
            return entry.verdict;
        }
        self.ask(query).await
    }

    /// Asks the policy about those that are not remembered, all at once.
    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let state = self.state();
        let keys: Vec<_> = queries.iter().map(|query| self.key(query)).collect();
        let recalled = queries.iter().zip(&keys).map(|(query, key)| self.recall(key.as_deref()?, query));
        let mut verdicts: Vec<Option<Verdict>> = recalled.collect();
        let missing: Vec<AccessQuery<'_>> =
            verdicts.iter().zip(queries).filter(|(known, _)| known.is_none()).map(|(_, query)| *query).collect();
        if !missing.is_empty() {
            self.asked.fetch_add(u64::try_from(missing.len()).unwrap_or(u64::MAX), Relaxed);
            let answers = self.policy.decide_all(&missing).await;
            if answers.len() != missing.len() {
                let reason = format!("{} answers for {} questions", answers.len(), missing.len());
                return vec![Verdict::cannot_decide(reason); queries.len()];
            }
            let open = verdicts.iter_mut().zip(queries).zip(&keys).filter(|((known, _), _)| known.is_none());
            for (((known, query), key), verdict) in open.zip(answers) {
                if let Some(key) = key {
                    self.keep(key, &Self::entry(verdict.clone(), state, query));
                }
                *known = Some(verdict);
            }
        }
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| Verdict::cannot_decide("no answer"))).collect()
    }

    fn generation(&self) -> Option<u64> {
        self.policy.generation()
    }

    fn version(&self) -> Option<Arc<str>> {
        self.policy.version()
    }

    fn parts(&self) -> QueryParts {
        self.policy.parts()
    }

    fn holds_for(&self) -> Option<Duration> {
        // What is remembered here grows old already: once is enough.
        None
    }

    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        self.policy.check_action(action)
    }

    fn reload_state(&self) -> Option<ReloadState> {
        self.policy.reload_state()
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        self.policy.steps(query)
    }
}
