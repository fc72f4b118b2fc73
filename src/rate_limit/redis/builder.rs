use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Inner, Leases, RedisLimits, leases::Table, line::Shared, state::Tally};
use crate::{
    error::ConfigError,
    rate_limit::{LatestTime, MemoryLimits, gcra::JUMP},
    redis::{Accepted, RedisServer},
};

/// What decides while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenAway {
    /// This process, by counts of its own in memory, with this share of each quota: its part among the processes, or more. A
    /// request that costs more than the share of the burst passes as long as the quota's own burst has room for it.
    InProcess {
        /// Hundredths of the quota, 1 to 100.
        percent: u32,
    },
    /// Nobody: the store fails, and the limiter refuses with `503`, or
    /// [admits](crate::rate_limit::OnStoreError::Admit) if it was told to.
    Fail,
}

impl Default for WhenAway {
    fn default() -> Self {
        Self::InProcess { percent: 50 }
    }
}

/// Configures [`RedisLimits`].
///
/// | setting | default |
/// |---|---|
/// | time-out | 50 ms |
/// | when Redis is away | in process, with 50 % of each quota |
/// | capacity while Redis is away | 65 536 keys in debt |
/// | leases | none: every decision asks |
/// | clock | the server's |
#[must_use]
pub struct RedisLimitsBuilder {
    server: RedisServer,
    timeout: Duration,
    when_away: WhenAway,
    capacity: usize,
    leases: Option<Leases>,
    in_cluster: bool,
    callers_time: bool,
}

impl RedisLimitsBuilder {
    pub(super) fn new(server: RedisServer) -> Self {
        Self {
            server,
            timeout: Duration::from_millis(50),
            when_away: WhenAway::default(),
            capacity: MemoryLimits::DEFAULT_CAPACITY,
            leases: None,
            in_cluster: false,
            callers_time: false,
        }
    }

    /// How long a decision waits, 1 ms to 10 s. Default 50 ms: a limiter must not cost more than what it protects. Longer than this,
    /// Redis is away.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Says what decides while Redis is away. Default: this process, with 50 % of each quota.
    pub const fn when_away(mut self, choice: WhenAway) -> Self {
        self.when_away = choice;
        self
    }

    /// How many keys in debt there is room for in this process while Redis is away. Default 65 536; see
    /// [`MemoryLimits::with_capacity`].
    pub const fn capacity(mut self, counts: usize) -> Self {
        self.capacity = counts;
        self
    }

    /// Takes slices of large quotas ahead. See [`Leases`] for what that costs in exactness.
    pub const fn leases(mut self, leases: Leases) -> Self {
        self.leases = Some(leases);
        self
    }

    /// Sends one call for each hash tag, because a node of a Redis Cluster takes no keys of different slots in one. The
    /// address is that of one node or of a proxy: redirections to other nodes are not followed, and are an error of the store.
    pub const fn in_cluster(mut self) -> Self {
        self.in_cluster = true;
        self
    }

    /// Goes by the wall clock of the process that asks, in place of the server's. The clocks of all of them must agree, and
    /// better than to a minute: a clock that is ahead uses up what others have not got yet. For tests, mostly.
    pub const fn callers_time(mut self) -> Self {
        self.callers_time = true;
        self
    }

    /// Checks the settings. Nothing is connected yet: the first decision does.
    ///
    /// # Errors
    /// [`ConfigError`] if the address is none or plain TCP to another machine, the prefix is not 1 to 64 visible ASCII
    /// characters without braces, the time-out is not 1 ms to 10 s, the share is not 1 to 100, the capacity is out of its
    /// bounds, or the certificate authorities cannot be read.
    pub fn build(self) -> Result<RedisLimits, ConfigError> {
        if let WhenAway::InProcess { percent } = self.when_away
            && !(1..=100).contains(&percent)
        {
            return Err(ConfigError::new("share while Redis is away", format!("{percent} %"), "is not 1 to 100 %"));
        }
        let Accepted { target, prefix, timeout } = self.server.accept(self.timeout)?;
        let shared = Shared {
            target,
            timeout,
            in_cluster: self.in_cluster,
            // What another clock reads as paid, one that is behind by as much as is allowed does not.
            outlives: if self.callers_time { Duration::from_nanos(JUMP) } else { Duration::ZERO },
            leases: self.leases.map(Table::new),
            tally: Tally::default(),
            doubted: Notify::new(),
        };
        let inner = Inner {
            shared: Arc::new(shared),
            prefix,
            callers_time: self.callers_time,
            latest: LatestTime::new(),
            when_away: self.when_away,
            memory: MemoryLimits::with_capacity(self.capacity)?,
            orders: Mutex::default(),
        };
        Ok(RedisLimits { inner: Arc::new(inner) })
    }
}

/// The address may hold a password.
impl fmt::Debug for RedisLimitsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimitsBuilder")
            .field("server", &self.server)
            .field("timeout", &self.timeout)
            .field("when_away", &self.when_away)
            .field("leases", &self.leases)
            .finish_non_exhaustive()
    }
}
