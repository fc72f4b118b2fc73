//! Revocations that several processes share, in Redis or Valkey.

mod builder;
mod line;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Script, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

pub use self::builder::RedisRevocationsBuilder;
use super::{Revocation, RevocationLimits, RevocationState, RevocationStore, entry::Entry, state::MARGIN};
use crate::{
    clock::{Clock, Instants},
    error::{StoreError, StoreErrorKind},
    redis::{BACKEND, RedisServer, Target, failed, unavailable},
};

const REVOKE: &str = concat!(include_str!("forget.lua"), include_str!("revoke.lua"));

/// Revocations in Redis (from 7 on) or Valkey, for all processes that use the same server (feature `revocation-redis`).
///
/// - **Reaching the others**: what is revoked is written in one step with a push that says that there is something new. A process
///   then reads it, and refuses it on the first request after that. It also asks five times within
///   [`max_age`](RevocationLimits::max_age), each second by default, whether a push was lost. A push says nothing else and is not
///   believed: whoever may publish in the channel makes processes ask, up to a hundred times a second each, and no more.
/// - **Redis is away**: the state is trusted for `max_age` after it was last known to be whole, 5 s by default; then requests
///   get `503`. Nothing can be revoked meanwhile: [`revoke`](RevocationStore::revoke) fails with
///   [`Unavailable`](StoreErrorKind::Unavailable). It is tried again after 0.1 s up to 10 s. Each new connection begins with
///   everything that Redis has, before the state is trusted again.
/// - **Redis has lost its data**, or the last of it (started again without persistence or with an older snapshot, flushed, an
///   outdated replica took over): processes that run keep what they know, and their logs say so; ones that start afterwards cannot
///   know it. Let it write what it takes before it answers (`appendonly yes`, `appendfsync always`), have a replica that takes over
///   know it (`min-replicas-to-write`), and evict nothing (`maxmemory-policy noeviction`): if some of the keys are missing, no state
///   is trusted, until somebody deletes the rest.
/// - **Bounds**: at most [`capacity`](RevocationLimits::capacity), in Redis and in each process; give all the same limits. What has
///   ended is removed, by the server's clock and this process' one, whichever is behind. A name is 64 bytes, an entry as long as issuer and id.
///
/// The four keys begin with `portcullis:{revocations}:`, in one slot of a cluster, and say who was logged out: guard the server
/// like other personal data. An account needs `+@hash +@sortedset +@scripting +@pubsub +time +ping +hello`, these keys and the
/// channel `portcullis:{revocations}:changes`.
///
/// A clone is the same store. The last one ends its task. It needs a tokio runtime with timers and network.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{
///     Clock, SystemClock,
///     revocation::{RedisRevocations, Revocation, RevocationStore},
/// };
///
/// let revocations = RedisRevocations::builder("rediss://orders:secret@redis.internal").build()?;
/// // JwtAuthenticator::builder().revocations(revocations.clone()), and:
/// let now = SystemClock::new().now();
/// revocations.revoke(&Revocation::subject("https://id.example.com", "alice", now.unix_seconds())?, now).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisRevocations {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    commands: watch::Receiver<Option<MultiplexedConnection>>,
    /// Aborted when dropped.
    _line: JoinSet<()>,
}

/// What the store and its task share.
struct Shared {
    target: Target,
    keys: [String; 4],
    channel: String,
    timeout: Duration,
    limits: RevocationLimits,
    state: RevocationState,
    clock: Arc<dyn Clock>,
}

impl RedisRevocations {
    /// Starts with the server, or its address.
    pub fn builder(server: impl Into<RedisServer>) -> RedisRevocationsBuilder {
        RedisRevocationsBuilder::new(server.into())
    }

    /// Waits until everything that Redis has is here, and the state is trusted for the first time, or again.
    ///
    /// # Cancel safety
    /// It may be dropped.
    pub async fn loaded(&self) {
        let _ = self.inner.commands.clone().wait_for(Option::is_some).await;
    }
}

/// The name of a life that the data may begin.
fn new_life() -> Result<String, StoreError> {
    let mut life = [0; 16];
    aws_lc_rs::rand::fill(&mut life).map_err(|_| unavailable("no random numbers"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(life)))
}

impl Shared {
    async fn revoke(
        &self,
        mut connection: MultiplexedConnection,
        entry: &Entry,
        at: Instants,
    ) -> Result<bool, StoreError> {
        let script = Script::new(REVOKE);
        let mut call = script.prepare_invoke();
        for key in &self.keys {
            call.key(key);
        }
        call.arg(MARGIN).arg(entry.id()).arg(entry.what()).arg(entry.issued_until).arg(entry.until);
        call.arg(self.limits.most()).arg(new_life()?).arg(&self.channel);
        call.arg(at.unix_seconds());
        call.invoke_async(&mut connection).await.map_err(failed)
    }
}

#[async_trait]
impl RevocationStore for RedisRevocations {
    fn state(&self) -> &RevocationState {
        &self.inner.shared.state
    }

    /// Waits for the connection and the answer for 1 s together, unless [said otherwise](RedisRevocationsBuilder::timeout).
    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        let shared = &*self.inner.shared;
        shared.state.check_end(revocation, at, BACKEND)?;
        let entry = Entry::new(revocation, &shared.limits, at);
        let deadline = Instant::now() + shared.timeout;
        let late = |_| unavailable("no answer in time");
        let mut commands = self.inner.commands.clone();
        let connection = timeout_at(deadline, commands.wait_for(Option::is_some)).await;
        let connection = connection.map_err(|_| unavailable("no connection"))?.map(|connection| connection.clone());
        let connection = connection.ok().flatten().ok_or_else(|| unavailable("its runtime has ended"))?;
        if !timeout_at(deadline, shared.revoke(connection, &entry, at)).await.map_err(late)?? {
            let error = StoreError::new(StoreErrorKind::Conflict, BACKEND);
            return Err(error.caused_by(format!("there is room for {} and no more", shared.limits.most())));
        }
        // If there is no room, the push that comes as well finds it out, and the state is not trusted.
        shared.state.add([revocation], at)
    }
}

impl fmt::Debug for RedisRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &*self.inner.shared;
        f.debug_struct("RedisRevocations")
            .field("target", &shared.target)
            .field("state", &shared.state)
            .finish_non_exhaustive()
    }
}
