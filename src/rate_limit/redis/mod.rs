//! Limits that several processes share, in Redis or Valkey.

mod ask;
mod builder;
mod call;
mod leases;
mod line;
mod link;
mod name;
mod state;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use self::{
    ask::{Ask, Failure, What},
    leases::Slice,
    line::{Order, Shared},
};
pub use self::{
    builder::{RedisLimitsBuilder, WhenAway},
    leases::Leases,
    state::{RedisCounts, RedisState},
};
use crate::{
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    now::Now,
    rate_limit::{Draw, LatestTime, MAX_CHARGES, MemoryLimits, Quota, RateLimitStore, Taken, draw::Charges},
    redis::{BACKEND, RedisServer},
};

/// The most decisions that wait for the task. Beyond it they are decided as if Redis were away.
const QUEUE: usize = 8_192;

/// Counts in Redis (from 7 on) or Valkey, for all processes that ask the same server.
///
/// # What is asked
/// One call of a script takes from all quotas of a decision, or from none; decisions that wait at the same time share a call.
/// The server's clock counts, unless [`callers_time`](RedisLimitsBuilder::callers_time) was said. It counts in microseconds:
/// the time between two requests is rounded up to whole ones, so a key has no more than a million a second.
///
/// Keys are `portcullis:{4f1c…}:7:default:client:net=192.0.2.1/32`: a prefix of your choice, a hash tag, the policy's name, and the
/// [key as text](crate::rate_limit::LimitKey), or its SHA-256 if it is longer than 200 bytes. They hold who asks, so the server is to be
/// guarded like other personal data. A key lives as long as its debt, or up to a second longer. All keys of a limiter's decision have one
/// hash tag, so a node of a cluster can decide about it; see [`in_cluster`](RedisLimitsBuilder::in_cluster). An account needs
/// `+time +mget +get +exists +set +incrby +del +evalsha +eval +ping`, and these keys.
///
/// [`Leases`] let a process answer most decisions itself.
///
/// # When Redis is away
/// No decision waits longer than the time-out, 50 ms by default. Once one did, or the connection is lost, or Redis says that
/// it cannot answer (it loads, is full, is a replica), nobody waits any more: decisions are made as [`WhenAway`] says, and marked
/// (`limit_degraded` in the audit record, [`LimitCounts::degraded`](crate::rate_limit::LimitCounts::degraded),
/// [`RedisCounts::degraded`]). It is tried again at once, then after 0.1 s up to 10 s, and asked again when it answers. What a
/// decision took that was not waited for is lost to its key.
///
/// A key that holds something else than a count, and a command that Redis refuses, are an error of the store: `503`, unless
/// the limiter [admits](crate::rate_limit::OnStoreError::Admit) on errors. [`RedisCounts::corrupt`] counts them.
///
/// It needs a tokio runtime with timers, in which its task runs until the last clone is dropped. Where there is none, Redis is away.
///
/// ```
/// use portcullis::rate_limit::{Leases, Quota, RateLimitLayer, RedisLimits};
///
/// let shared = RedisLimits::builder("redis://limits:secret@127.0.0.1").leases(Leases::new()).build()?;
/// let limit = RateLimitLayer::per_principal(Quota::per_minute(600))?.with_store(shared.clone());
/// # let _ = limit;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisLimits {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    prefix: String,
    callers_time: bool,
    /// Of the callers of this process.
    latest: LatestTime,
    when_away: WhenAway,
    memory: MemoryLimits,
    /// To the task, once there is one.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
}

impl RedisLimits {
    /// Starts with the server, or its address.
    pub fn builder(server: impl Into<RedisServer>) -> RedisLimitsBuilder {
        RedisLimitsBuilder::new(server.into())
    }

    /// Whether Redis answers.
    #[must_use]
    pub fn state(&self) -> RedisState {
        self.inner.shared.tally.state()
    }

    /// What decides while Redis is away.
    #[must_use]
    pub fn when_away(&self) -> WhenAway {
        self.inner.when_away
    }

    /// What it and its clones did so far.
    #[must_use]
    pub fn counts(&self) -> RedisCounts {
        self.inner.shared.tally.counts()
    }

    /// Gives back what the leases hold, for a process that ends in order. Dropping the last clone does the same if its runtime
    /// goes on.
    ///
    /// # Cancel safety
    /// It may be dropped; then it goes on unwaited for.
    pub async fn give_back(&self) {
        let (done, wait) = oneshot::channel();
        if let Some(orders) = self.inner.orders()
            && orders.send(Order::GiveBack(done)).await.is_ok()
        {
            let _ = wait.await;
        }
    }
}

impl Inner {
    /// The way to the task, which is started if there is none, or if its runtime has ended.
    fn orders(&self) -> Option<mpsc::Sender<Order>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = orders.as_ref().filter(|orders| !orders.is_closed()) {
            return Some(orders.clone());
        }
        let runtime = Handle::try_current().ok()?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.shared.tally.set(RedisState::Connecting);
        runtime.spawn(line::run(Arc::clone(&self.shared), receiver));
        *orders = Some(sender.clone());
        Some(sender)
    }

    fn count(count: &AtomicU64) {
        count.fetch_add(1, Relaxed);
    }

    /// What needs no question; none if Redis is to be asked.
    fn local(&self, draw: &Draw<'_>, at: Instants) -> Option<Result<Taken, StoreError>> {
        let charges = draw.charges();
        if charges.is_empty() || charges.len() > MAX_CHARGES {
            return Some(Ok(Taken::too_costly(0)));
        }
        if let Some(index) = charges.iter().position(|charge| draw.cost().get() > charge.quota().burst_size()) {
            return Some(Ok(Taken::too_costly(index)));
        }
        if let Some(leases) = &self.shared.leases
            && let Some((taken, fetch)) = leases.spend(draw, Instant::now())
        {
            Self::count(&self.shared.tally.in_process);
            if let Some(slice) = fetch {
                self.fetch(draw, slice, at);
            }
            return Some(Ok(taken.aside()));
        }
        (self.shared.tally.state() == RedisState::Away && self.is_running()).then(|| self.without_redis(draw, at))
    }

    /// Whether a task looks for Redis.
    fn is_running(&self) -> bool {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().is_some_and(|orders| !orders.is_closed())
    }

    fn ask(&self, draw: &Draw<'_>, slice: Option<Slice>, at: Instants) -> Result<Ask, Taken> {
        let counts = ask::counts(draw, &self.prefix).map_err(Taken::too_costly)?;
        let what = if draw.counts_refused() { What::Count } else { What::Take };
        let cost = draw.cost().get();
        let most = slice.map_or(cost, |slice| slice.most);
        let mut ask = Ask::new(counts, what, (cost, most), self.callers_time.then(|| self.latest.catch_up(at)));
        ask.lease = slice.map(|slice| slice.key);
        Ok(ask)
    }

    /// Fetches the next slice while the last one is used. If it does not come, the next decision asks.
    fn fetch(&self, draw: &Draw<'_>, slice: Slice, at: Instants) {
        if let (Ok(mut ask), Some(orders)) = (self.ask(draw, Some(slice), at), self.orders()) {
            ask.least = 1;
            let _ = orders.try_send(Order::Take(ask));
        }
    }

    async fn ask_redis(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let slice = self.shared.leases.as_ref().and_then(|leases| leases.plan(draw, Instant::now()));
        let mut ask = match self.ask(draw, slice, at) {
            Ok(ask) => ask,
            Err(refused) => return Ok(refused),
        };
        let (reply, answer) = oneshot::channel();
        ask.reply = Some(reply);
        // Without a runtime there is nobody to wait with.
        let sent = Handle::try_current().is_ok()
            && self.orders().is_some_and(|orders| orders.try_send(Order::Take(ask)).is_ok());
        if !sent {
            return self.without_redis(draw, at);
        }
        match timeout(self.shared.timeout, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer.taken()),
            Ok(Ok(Err(Failure::Corrupt))) => Err(StoreError::new(StoreErrorKind::Corrupt, BACKEND)),
            // Its task has ended, with its runtime.
            Ok(Ok(Err(Failure::Away)) | Err(_)) => self.without_redis(draw, at),
            Err(_) => {
                self.shared.doubt();
                self.without_redis(draw, at)
            }
        }
    }

    fn without_redis(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        Self::count(&self.shared.tally.degraded);
        let WhenAway::InProcess { percent } = self.when_away else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, BACKEND));
        };
        let share = |quota: &Quota| quota.share(percent, draw.cost().get());
        let quotas: Vec<Quota> = draw.charges().iter().map(|charge| share(charge.quota())).collect();
        let charges = draw.charges().iter().zip(&quotas);
        let charges = charges
            .fold(Charges::none(), |charges, (charge, quota)| charges.add(*charge.key(), std::slice::from_ref(quota)));
        let scaled = Draw::new(charges.as_slice()).with_cost(draw.cost());
        let scaled = if draw.counts_refused() { scaled.counting_refused() } else { scaled };
        Ok(self.memory.take_from(&scaled, at.monotonic_nanos()).degraded())
    }
}

#[async_trait]
impl RateLimitStore for RedisLimits {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        self.inner.local(draw, at).map_or(Now::Wait, Now::Known)
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        match self.inner.local(draw, at) {
            Some(answer) => answer,
            None => self.inner.ask_redis(draw, at).await,
        }
    }
}

impl fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        f.debug_struct("RedisLimits")
            .field("target", &inner.shared.target)
            .field("prefix", &inner.prefix)
            .field("timeout", &inner.shared.timeout)
            .field("when_away", &inner.when_away)
            .field("leases", &inner.shared.leases)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
