use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

use super::{Database, Inner, SqliteRevocations, watch as follow, work};
use crate::{
    clock::{Clock, SystemClock},
    error::ConfigError,
    revocation::{RevocationLimits, rows::Shared, state::check_shared},
    sql::{OpenError, check_wait, sqlite::Opening},
};

/// Configures [`SqliteRevocations`].
///
/// | setting | default |
/// |---|---|
/// | limits | 100 000 revocations, kept for 24 h, trusted for 5 s |
/// | time-out | 2 s |
/// | watch interval | 250 ms |
/// | migrations | run |
/// | clock | [`SystemClock`] |
///
/// ```
/// # async fn example() -> Result<(), portcullis::revocation::OpenError> {
/// use std::time::Duration;
/// use portcullis::revocation::{RevocationLimits, SqliteRevocations};
///
/// let limits = RevocationLimits::new().kept_for(Duration::from_secs(3_600));
/// let revocations = SqliteRevocations::builder("revocations.db").limits(limits).open().await?;
/// # drop(revocations);
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct SqliteRevocationsBuilder {
    path: PathBuf,
    timeout: Duration,
    watch_every: Duration,
    migrate: bool,
    limits: RevocationLimits,
    clock: Arc<dyn Clock>,
}

impl SqliteRevocationsBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            timeout: Duration::from_secs(2),
            watch_every: Duration::from_millis(250),
            migrate: true,
            limits: RevocationLimits::new(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How long a revocation waits for those of this process that came before it, for another process that writes, and for the
    /// disk, each 1 ms to 60 s; and how long a question may take. Default 2 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it looks whether another process wrote, 1 ms to 60 s; so late is what another one revokes. Default 250 ms; never
    /// less often than five times within [`max_age`](RevocationLimits::max_age).
    pub const fn watch_every(mut self, interval: Duration) -> Self {
        self.watch_every = interval;
        self
    }

    /// Changes no tables and makes none, nor a file; opening fails if they are not of the version that is needed, or if the file is
    /// gone with all that was revoked.
    pub const fn without_migrating(mut self) -> Self {
        self.migrate = false;
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

    /// Opens the file, and starts to load.
    ///
    /// # Errors
    /// If the time-out or the watch interval is not 1 ms to 60 s, the state would be trusted for less than 100 ms or more than 1 h,
    /// the file cannot be opened, or made, may be written by everybody, or is no SQLite database, or its tables are of another
    /// version and may not or cannot be migrated.
    pub async fn open(self) -> Result<SqliteRevocations, OpenError> {
        self.check()?;
        let opening = Opening {
            path: self.path,
            whose: "revocations",
            acquire_timeout: self.timeout,
            busy_timeout: self.timeout,
            may_migrate: self.migrate,
        };
        let writer = opening.pool(1);
        let opened = opening.open(writer, work::SCHEMA, work::MIGRATIONS).await?;
        let reader = opened.readers(1).await?;
        let shared = Shared::new(self.timeout, self.limits, self.clock);
        let (sender, loaded) = watch::channel(false);
        let every = self.watch_every.min(self.limits.trusted_for() / 5);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::run(Arc::clone(&shared), opened.place.clone(), reader, every, sender));
        let database = Arc::new(Database { shared, writer: opened.writer, place: opened.place });
        Ok(SqliteRevocations { inner: Arc::new(Inner { database, loaded, _watcher: tasks }) })
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_wait("SQLite time-out", self.timeout)?;
        check_wait("SQLite watch interval", self.watch_every)?;
        check_shared(&self.limits)
    }
}
