//! Proofs that several processes remember together, in Redis or Valkey.

mod builder;
mod line;

use std::{
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use redis::Script;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

pub use self::builder::RedisReplaysBuilder;
use self::line::{Line, Link};
use super::{MAX_AGE, MAX_AHEAD, ProofUse, Remembered, ReplayStore};
use crate::{
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    redis::{BACKEND, RedisServer, Target, failed, unavailable},
};

const REMEMBER: &str = include_str!("remember.lua");
/// How long a proof is kept beyond its end: a clock that is set back by less opens nothing.
const KEPT: Duration = Duration::from_secs(30);
/// How far ahead of ours the server's clock may be, and ours of the server's.
const SKEW: Duration = Duration::from_secs(5);
/// How long before its end a proof may have been used first, by the server's clock: by a process whose own is ahead.
const USED_BEFORE_END: Duration = MAX_AGE.saturating_add(MAX_AHEAD).saturating_add(SKEW);
/// How long everything must have been remembered for a proof that is made then: the same without its age, and proofs are dated
/// in whole seconds.
const WHOLE: Duration = MAX_AHEAD.saturating_add(SKEW).saturating_add(Duration::from_secs(1));

/// Remembers proofs in Redis (from 7 on) or Valkey, for all processes that use the same server (feature `dpop-redis`): behind
/// one name a proof may be used once, whichever process it comes to.
///
/// - **One call** of a script, which looks, counts and remembers in one step, for each request with a proof. The server's
///   clock says when a proof has ended; one that is more than 5 s ahead of ours, or behind it, is an error of the store.
/// - **Redis is away**: requests with a proof get `503`, those of other kinds do not ask. Nobody waits longer than the
///   time-out, 200 ms by default; once somebody did, nobody waits until it answers again. It is tried again at once, then after
///   0.1 s up to 10 s. One that is too slow is away, also if it can be connected to. A proof whose answer did not come may be
///   used up.
/// - **Redis has lost its data**: it was started again, another server took its place, it was flushed. What it has forgotten
///   could be used again, so proofs that may be older are refused, with `503` and when to come back: for some 11 s, as long as
///   a client's clock and a process's may be ahead together. The first start ever is the same to it; [`ready`](Self::ready) waits for that. Let it evict
///   nothing (`maxmemory-policy noeviction`): what it evicts is missed by nobody. A proxy that takes another server without
///   ending connections hides that it did.
/// - **Bounds**: of one key at most 1 000 proofs that could be used again, and 2 016 with those that have ended and are kept for
///   30 s, `429` beyond either; of all, what Redis has memory for (`maxmemory`), `503` beyond it. A proof takes some 122 bytes, so
///   one key at most some 250 kB.
///
/// Its keys begin with `portcullis:{dpop}:`, in one slot of a cluster, and end in the thumbprint of a client's key; nothing
/// that a client wrote stands in them. An account needs
/// `+hget +hset +hexists +zscore +zadd +zcount +zremrangebyscore +pttl +pexpireat +evalsha +eval +script|load +time +info`,
/// and these keys.
///
/// A clone is the same store. The last one ends its task. It needs a tokio runtime with timers and network.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::jwt::bound::{Dpop, RedisReplays};
///
/// let replays = RedisReplays::builder("rediss://orders:secret@redis.internal").build()?;
/// let dpop = Dpop::at(["https://api.example.com"])?.replays(replays.clone());
/// # let _ = dpop;
/// // Before the first request is served:
/// replays.ready().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisReplays {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Aborted when dropped.
    _line: JoinSet<()>,
}

/// What the store and its task share.
struct Shared {
    target: Target,
    /// The key that says since when everything is remembered.
    life: String,
    prefix: String,
    timeout: Duration,
    per_key: u32,
    /// Hashed once, and not for each proof.
    remember: Script,
    link: watch::Sender<Link>,
}

impl RedisReplays {
    /// Starts with the server, or its address.
    pub fn builder(server: impl Into<RedisServer>) -> RedisReplaysBuilder {
        RedisReplaysBuilder::new(server.into())
    }

    /// Waits until Redis answers, and has forgotten nothing that a proof made from now on could be mistaken for.
    ///
    /// # Cancel safety
    /// It may be dropped.
    pub async fn ready(&self) {
        let mut link = self.inner.shared.link.subscribe();
        while !self.is_ready() {
            let whole_from = match link.wait_for(|link| matches!(link, Link::Up(_))).await.as_deref() {
                Ok(Link::Up(line)) => line.whole_from,
                Ok(Link::Connecting | Link::Away) | Err(_) => return,
            };
            sleep_until(whole_from).await;
        }
    }

    /// Whether Redis answers, and [`ready`](Self::ready) would not wait. That it has lost its data while the connection stands
    /// is known once a request has met it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(&*self.inner.shared.link.borrow(), Link::Up(line) if line.whole_from <= Instant::now())
    }
}

impl Shared {
    /// The connection, for which nobody waits beyond the deadline.
    async fn line(&self, deadline: Instant) -> Result<Line, StoreError> {
        let mut link = self.link.subscribe();
        let found = timeout_at(deadline, link.wait_for(|link| !matches!(link, Link::Connecting))).await;
        match found.map_err(|_| unavailable("no connection in time"))?.as_deref() {
            Ok(Link::Up(line)) => Ok(line.clone()),
            Ok(Link::Away) => Err(unavailable("it does not answer").with_retry_after(Duration::from_secs(1))),
            Ok(Link::Connecting) | Err(_) => Err(unavailable("no connection")),
        }
    }

    async fn ask(&self, line: &Line, proof: &ProofUse, at: Instants) -> Result<(u8, i64), StoreError> {
        let (id, _) = proof.id().split_at(proof.id().len() / 2);
        let mut key = self.prefix.clone();
        for byte in proof.key_thumbprint() {
            // Text takes what is written to it.
            let _ = write!(key, "{byte:02x}");
        }
        let mut call = self.remember.key(&self.life);
        call.key(key).arg(id).arg(millis(proof.until_unix_nanos())).arg(millis(at.unix_nanos()));
        call.arg(in_millis(KEPT)).arg(in_millis(USED_BEFORE_END)).arg(self.per_key);
        call.arg(in_millis(SKEW));
        call.invoke_async(&mut line.commands.clone()).await.map_err(failed)
    }
}

/// Whole milliseconds, rounded up: a proof is remembered until its end and not less.
const fn millis(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000)
}

/// How long it takes until a proof that is made then is told from what was forgotten, if everything was remembered for so many
/// milliseconds.
fn until_whole(remembered: i64) -> Duration {
    let left = i64::try_from(WHOLE.as_millis()).unwrap_or(i64::MAX).saturating_sub(remembered);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ReplayStore for RedisReplays {
    /// Waits for the connection and the answer for 200 ms together, unless
    /// [said otherwise](RedisReplaysBuilder::timeout).
    async fn remember(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError> {
        let shared = &*self.inner.shared;
        let deadline = Instant::now() + shared.timeout;
        let line = shared.line(deadline).await?;
        let answer = timeout_at(deadline, shared.ask(&line, proof, at)).await;
        let Ok(answer) = answer else {
            line.give_up(shared, Link::Away);
            return Err(unavailable("no answer in time"));
        };
        match &answer {
            Err(error) if error.kind() == StoreErrorKind::Unavailable => line.give_up(shared, Link::Connecting),
            Ok(_) | Err(_) => line.has_answered(shared),
        }
        let corrupt = |why: &str| Err(StoreError::new(StoreErrorKind::Corrupt, BACKEND).caused_by(why));
        match answer? {
            (0, _) => Ok(Remembered::Seen),
            (1, _) => Ok(Remembered::Fresh),
            (2, _) => Ok(Remembered::TooMany),
            (3, remembered) => {
                let left = until_whole(remembered);
                line.is_whole_in(left, shared);
                let wait = Duration::from_secs(in_millis(left).div_ceil(1_000).max(1));
                Err(unavailable("it may have forgotten this proof").with_retry_after(wait))
            }
            (4, now) => {
                let ours = millis(at.unix_nanos()).saturating_add(in_millis(SKEW));
                // It may be forgotten already.
                if u64::try_from(now).is_ok_and(|now| now <= ours) {
                    Ok(Remembered::Seen)
                } else {
                    corrupt("its clock is ahead of ours")
                }
            }
            (5, _) => corrupt("its clock is behind ours"),
            _ => corrupt("an answer of another shape"),
        }
    }
}

impl fmt::Debug for RedisReplays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &*self.inner.shared;
        f.debug_struct("RedisReplays")
            .field("target", &shared.target)
            .field("prefix", &shared.prefix)
            .field("timeout", &shared.timeout)
            .field("per_key", &shared.per_key)
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}
