use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Database, SqliteKeyStore, work};
use crate::{
    api_key::{ChangeFeed, sql::watcher::Watcher},
    error::ConfigError,
    sql::{OpenError, check_wait, sqlite::Opening},
};

/// Configures [`SqliteKeyStore`].
///
/// ```
/// # async fn example() -> Result<(), portcullis::api_key::OpenError> {
/// use std::time::Duration;
/// use portcullis::api_key::SqliteKeyStore;
///
/// let store = SqliteKeyStore::builder("keys.db").readers(8).busy_timeout(Duration::from_millis(500)).open().await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct SqliteKeyStoreBuilder {
    path: PathBuf,
    readers: u32,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    busy_timeout: Duration,
    watch_every: Duration,
    migrate: bool,
}

impl SqliteKeyStoreBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            readers: 4,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(2),
            busy_timeout: Duration::from_secs(2),
            watch_every: Duration::from_secs(1),
            migrate: true,
        }
    }

    /// How many connections answer questions, 4 unless said; each is a thread. One more makes the changes.
    pub const fn readers(mut self, count: u32) -> Self {
        self.readers = count;
        self
    }

    /// How long a question or a change waits for a connection, 1 ms to 60 s, 2 s unless said.
    pub const fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }

    /// How long the answer to a question may take, 1 ms to 60 s, 2 s unless said.
    pub const fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// How long a change waits for another process that writes, up to 60 s, 2 s unless said.
    pub const fn busy_timeout(mut self, limit: Duration) -> Self {
        self.busy_timeout = limit;
        self
    }

    /// How often it looks whether another process changed the file, 1 s unless said.
    pub const fn watch_every(mut self, interval: Duration) -> Self {
        self.watch_every = interval;
        self
    }

    /// Changes no tables and makes none, nor a file; opening fails if they are not of the version that is needed.
    pub const fn without_migrating(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Opens the file.
    ///
    /// # Errors
    /// If a setting is out of its bounds, the file cannot be opened, or made, may be written by everybody, or is no SQLite database, or its tables are of another
    /// version and may not or cannot be migrated.
    pub async fn open(self) -> Result<SqliteKeyStore, OpenError> {
        self.check()?;
        let opening = Opening {
            path: self.path,
            whose: "API keys",
            acquire_timeout: self.acquire_timeout,
            busy_timeout: self.busy_timeout,
            may_migrate: self.migrate,
        };
        let writers = Arc::new(AtomicU64::new(0));
        let writer = opening.pool(1).after_connect({
            let writers = Arc::clone(&writers);
            move |_, _| {
                writers.fetch_add(1, Ordering::SeqCst);
                Box::pin(async { Ok(()) })
            }
        });
        let opened = opening.open(writer, work::SCHEMA, work::MIGRATIONS).await?;
        let feed = Arc::new(ChangeFeed::new());
        let database = Arc::new(Database {
            readers: opened.readers(self.readers).await?,
            writer: opened.writer,
            writers,
            statement_timeout: self.statement_timeout,
            change_timeout: self
                .acquire_timeout
                .saturating_add(self.busy_timeout)
                .saturating_add(self.statement_timeout),
            feed: Arc::clone(&feed),
            place: opened.place,
            watch_every: self.watch_every,
            is_replaced: AtomicBool::new(false),
        });
        let seen = database.version().await?;
        let store = SqliteKeyStore { database, watcher: Watcher::new(feed) };
        store.watch(Some(seen));
        Ok(store)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.readers == 0 {
            return Err(ConfigError::new("SQLite readers", "0", "must be one at least"));
        }
        if self.watch_every.is_zero() {
            return Err(ConfigError::new("SQLite watch interval", "0", "must not be zero"));
        }
        check_wait("SQLite acquire timeout", self.acquire_timeout)?;
        check_wait("SQLite statement timeout", self.statement_timeout)?;
        // Not to wait is a choice.
        check_wait("SQLite busy timeout", self.busy_timeout.max(Duration::from_millis(1)))
    }
}
