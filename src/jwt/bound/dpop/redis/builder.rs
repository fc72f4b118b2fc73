use std::{sync::Arc, time::Duration};

use redis::Script;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use super::{
    Inner, REMEMBER, RedisReplays, Shared,
    line::{self, Link},
};
use crate::{
    error::ConfigError,
    jwt::bound::MemoryReplays,
    redis::{Accepted, RedisServer},
};

/// Configures [`RedisReplays`].
///
/// | setting | default |
/// |---|---|
/// | proofs of one key | 1 000 |
/// | time-out | 200 ms |
#[derive(Debug)]
#[must_use]
pub struct RedisReplaysBuilder {
    server: RedisServer,
    timeout: Duration,
    per_key: u32,
}

impl RedisReplaysBuilder {
    pub(super) fn new(server: RedisServer) -> Self {
        Self { server, timeout: Duration::from_millis(200), per_key: MemoryReplays::DEFAULT_PER_KEY }
    }

    /// How long a request waits for Redis, 1 ms to 10 s. Then it gets `503`. Default 200 ms.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most proofs of one key that could be used again at one moment, 1 to 1 000 000; beyond it the key's requests get
    /// `429`. With proofs that are good for 35 s, 1 000 are some 28 requests a second without end. With those that have ended
    /// and are kept for 30 s, twice as many and 16: some 122 bytes each. Default 1 000. All processes should say the
    /// same.
    pub const fn per_key(mut self, proofs: u32) -> Self {
        self.per_key = proofs;
        self
    }

    /// Checks the settings and starts the task, which connects. Until it has, requests wait no longer than the time-out; see
    /// [`ready`](RedisReplays::ready).
    ///
    /// # Errors
    /// [`ConfigError`] if the address is none or plain TCP to another machine, the prefix is not 1 to 64 visible ASCII
    /// characters without braces, the time-out is not 1 ms to 10 s, the bound is not 1 to 1 000 000, the certificate
    /// authorities cannot be read, or no tokio runtime runs here.
    pub fn build(self) -> Result<RedisReplays, ConfigError> {
        if !(1..=1_000_000).contains(&self.per_key) {
            return Err(ConfigError::new("proofs of one key", self.per_key.to_string(), "is not 1 to 1000000"));
        }
        let Accepted { target, prefix, timeout } = self.server.accept(self.timeout)?;
        let runtime = Handle::try_current()
            .map_err(|error| ConfigError::new("tokio runtime", "none", "must run here").caused_by(error))?;
        let prefix = format!("{prefix}{{dpop}}:");
        let shared = Arc::new(Shared {
            target,
            life: format!("{prefix}life"),
            prefix,
            timeout,
            per_key: self.per_key,
            remember: Script::new(REMEMBER),
            link: watch::Sender::new(Link::Connecting),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(line::run(Arc::clone(&shared)), &runtime);
        Ok(RedisReplays { inner: Arc::new(Inner { shared, _line: tasks }) })
    }
}
