use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{Inner, PostgresRevocations, listen, work};
use crate::{
    clock::{Clock, SystemClock},
    revocation::{RevocationLimits, rows::Shared, state::check_shared},
    sql::{
        OpenError, check_wait,
        postgres::{Database, Source, migrate},
    },
};

/// Configures [`PostgresRevocations`].
///
/// | setting | default |
/// |---|---|
/// | limits | 100 000 revocations, kept for 24 h, trusted for 5 s |
/// | time-out | 2 s |
/// | migrations | run |
/// | clock | [`SystemClock`] |
#[must_use]
#[derive(Clone, Debug)]
pub struct PostgresRevocationsBuilder {
    source: Source,
    timeout: Duration,
    migrate: bool,
    limits: RevocationLimits,
    clock: Arc<dyn Clock>,
}

impl PostgresRevocationsBuilder {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            timeout: Duration::from_secs(2),
            migrate: true,
            limits: RevocationLimits::new(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How long a revocation waits for a connection, and anything for an answer, 1 ms to 60 s. Default 2 s. A pool that was there
    /// keeps its own time for the first.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Changes no tables and makes none; connecting fails if they are not of the version that is needed. The account needs
    /// `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `portcullis_revocations`, `UPDATE` on `portcullis_revocation_lock` and on the
    /// sequence `portcullis_revocation_numbers`, and `SELECT` on `portcullis_revocation_schema`; a service that revokes nothing,
    /// `SELECT` alone.
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

    /// Connects, and starts to load.
    ///
    /// # Errors
    /// If the time-out is not 1 ms to 60 s, the state would be trusted for less than 100 ms or more than 1 h, the address is none, the server
    /// does not answer, or the tables are of another version and may not or cannot be migrated.
    pub async fn connect(self) -> Result<PostgresRevocations, OpenError> {
        check_wait("PostgreSQL time-out", self.timeout)?;
        check_shared(&self.limits)?;
        let pool = self.source.pool(2, self.timeout, self.timeout)?;
        migrate(&pool, work::SCHEMA, work::MIGRATIONS, self.migrate).await?;
        let shared = Shared::new(self.timeout, self.limits, self.clock);
        let (sender, loaded) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::run(Arc::clone(&shared), pool.clone(), sender));
        let database = Database { pool, statement_timeout: self.timeout };
        Ok(PostgresRevocations { inner: Arc::new(Inner { shared, database, loaded, _listener: tasks }) })
    }
}
