use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{BACKEND, Database, SqliteKeyStore, watch::Place, work};
use crate::{
    api_key::{ChangeFeed, sql::watcher::Watcher},
    error::{ConfigError, StoreError},
    file::{WRITTEN_BY_ALL, mode, owned, refuse_open},
    log,
    sql::{OpenError, check_wait, failed, unavailable},
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
        let path = std::path::absolute(&self.path).map_err(|error| self.unusable(error))?;
        self.must_be_private(&path).map_err(|error| self.unusable(error))?;

        let place = Place::of(&path).map_err(|error| self.unusable(error))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(self.busy_timeout)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full);
        let sql = |error| failed(BACKEND, error).about(format!("{:?}", self.path));
        let writers = Arc::new(AtomicU64::new(0));
        let writer = self.pool(1).after_connect({
            let writers = Arc::clone(&writers);
            move |_, _| {
                writers.fetch_add(1, Ordering::SeqCst);
                Box::pin(async { Ok(()) })
            }
        });
        // SQLite does not wait by itself where several open a new file and each would switch it to a write-ahead log.
        let patient = tokio::time::Instant::now() + self.busy_timeout;
        let writer = loop {
            let options = options.clone();
            // A file that is not to be changed may be somebody else's database.
            let options = if self.migrate { options.journal_mode(SqliteJournalMode::Wal) } else { options };
            match writer.clone().connect_with(options).await {
                Err(error) if is_busy(&error) && tokio::time::Instant::now() < patient => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => break opened.map_err(sql)?,
            }
        };
        let mut connection = writer.acquire().await.map_err(sql)?;
        work::migrate(&mut connection, self.migrate).await?;
        let mode = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection);
        let mode: String = mode.await.map_err(sql)?;
        if mode != "wal" {
            return Err(self.unusable(io::Error::other("it cannot have a write-ahead log")).into());
        }
        drop(connection);

        let readers = self.pool(self.readers).connect_with(options.pragma("query_only", "1")).await.map_err(sql)?;
        let feed = Arc::new(ChangeFeed::new());
        let database = Arc::new(Database {
            readers,
            writer,
            writers,
            statement_timeout: self.statement_timeout,
            change_timeout: self
                .acquire_timeout
                .saturating_add(self.busy_timeout)
                .saturating_add(self.statement_timeout),
            feed: Arc::clone(&feed),
            place,
            watch_every: self.watch_every,
            is_replaced: AtomicBool::new(false),
        });
        let seen = database.version().await?;
        let store = SqliteKeyStore { database, watcher: Watcher::new(feed) };
        store.watch(Some(seen));
        Ok(store)
    }

    /// Makes the file unless it is there, for its owner alone, if it may be made: SQLite by itself would let everybody read it.
    fn must_be_private(&self, path: &Path) -> io::Result<()> {
        if !self.migrate {
            return refuse_open_file(path);
        }
        match owned(OpenOptions::new().write(true).create_new(true)).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_open_file(path),
            made => made.map(drop),
        }
    }

    fn pool(&self, connections: u32) -> PoolOptions<sqlx::Sqlite> {
        PoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            // A file does not hang up.
            .test_before_acquire(false)
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

    fn unusable(&self, error: io::Error) -> StoreError {
        unavailable(BACKEND, error.to_string()).about(format!("{:?}", self.path))
    }
}

/// Whoever may write the file may let anybody in.
fn refuse_open_file(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    refuse_open(&metadata, WRITTEN_BY_ALL).map_err(io::Error::other)?;
    if mode(&metadata) & 0o077 != 0 {
        log::warn(&format!("API keys: others than its owner may open {path:?}"));
    }
    Ok(())
}

/// Whether somebody else holds the file (`SQLITE_BUSY`, of whatever kind).
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
