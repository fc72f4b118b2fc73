use std::{fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use super::{Inner, RedisRevocations, Shared, line};
use crate::{
    clock::{Clock, SystemClock},
    error::ConfigError,
    redis::{Accepted, RedisServer},
    revocation::{RevocationLimits, RevocationState, state::check_shared},
};

/// Configures [`RedisRevocations`].
///
/// | setting | default |
/// |---|---|
/// | limits | 100 000 revocations, kept for 24 h, trusted for 5 s |
/// | time-out | 1 s |
/// | clock | [`SystemClock`] |
#[must_use]
pub struct RedisRevocationsBuilder {
    server: RedisServer,
    timeout: Duration,
    limits: RevocationLimits,
    clock: Arc<dyn Clock>,
}

impl RedisRevocationsBuilder {
    pub(super) fn new(server: RedisServer) -> Self {
        Self {
            server,
            timeout: Duration::from_secs(1),
            limits: RevocationLimits::new(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How long a revocation waits for Redis, and the task for an answer, 1 ms to 10 s. Default 1 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many there may be, how long they are kept, and how long the state is trusted. All processes should say the same.
    pub const fn limits(mut self, limits: RevocationLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The clock of the layers, if it is not the system's: the age of the state is measured with it.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Checks the settings and starts the task, which connects. Until it has loaded what there is, requests get `503`; see
    /// [`loaded`](RedisRevocations::loaded).
    ///
    /// # Errors
    /// [`ConfigError`] if the address is none or plain TCP to another machine, the prefix is not 1 to 64 visible ASCII
    /// characters without braces, the time-out is not 1 ms to 10 s, the state would be trusted for less than 100 ms, the
    /// certificate authorities cannot be read, or no tokio runtime runs here.
    pub fn build(self) -> Result<RedisRevocations, ConfigError> {
        check_shared(&self.limits)?;
        let Accepted { target, prefix, timeout } = self.server.accept(self.timeout)?;
        let runtime = Handle::try_current()
            .map_err(|error| ConfigError::new("tokio runtime", "none", "must run here").caused_by(error))?;
        let key = |name: &str| format!("{prefix}{{revocations}}:{name}");
        let shared = Arc::new(Shared {
            target,
            keys: ["state", "entries", "ends", "order"].map(key),
            channel: key("changes"),
            timeout,
            limits: self.limits,
            state: RevocationState::fed(self.limits),
            clock: self.clock,
        });
        let (sender, commands) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn_on(line::run(Arc::clone(&shared), sender), &runtime);
        Ok(RedisRevocations { inner: Arc::new(Inner { shared, commands, _line: tasks }) })
    }
}

/// The address may hold a password.
impl fmt::Debug for RedisRevocationsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRevocationsBuilder")
            .field("server", &self.server)
            .field("timeout", &self.timeout)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
