mod builder;
mod watch;
mod work;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{SqliteConnection, SqlitePool};
use tokio::time::timeout;

pub use self::builder::SqliteKeyStoreBuilder;
use super::{admin::admin, statements, watcher::Watcher};
use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyChange, KeyFilter, KeyId, KeyUse, Lookup,
        Owner, Revocation, Rotation,
    },
    clock::Instants,
    error::StoreError,
    sql::{
        OpenError, Work, failed,
        sqlite::{BACKEND, Place, data_version, finished, replaced, write},
        unavailable,
    },
};

/// Keys in an SQLite file (feature `api-key-sqlite`): for a service on one machine. The library brings SQLite with it.
///
/// - **File**: made if it is not there, with the permissions `0600` where the system has them; SQLite gives the files beside
///   it (`-wal`, `-shm`) the same ones. The file must be on a local disk: SQLite's locks do not hold on network file systems.
/// - **Durability**: write-ahead log, `synchronous = FULL`: a revocation that returned survives a power failure.
/// - **Time**: a question waits for a connection for 2 s at most and is answered within 2 s; a change waits 2 s for
///   another process that writes. Beyond that it is [`Unavailable`](crate::StoreErrorKind::Unavailable), a `503` to clients.
/// - **Cost**: a look-up is one statement on one of 4 connections, each of which is a thread.
/// - **Changes**: its own are [published](ApiKeyStore::changes) before the method returns; those of other processes as
///   [`KeyChange::Everything`], which is found out once a second: 1 s late at most, plus the wait for a change of this
///   process that is under way. If that takes over 2 s, [`KeyChange::Lost`] is published.
/// - **Replaced or removed**: on Unix, as late as changes, everything is [`Unavailable`](crate::StoreErrorKind::Unavailable), and the
///   log says so: restore a backup while no process has the file open.
/// - **Cancel safety**: a change that was begun is finished and published, also if the caller's future is dropped.
///
/// The settings are [`SqliteKeyStoreBuilder`]'s. It needs a tokio runtime with its timer. The task that looks for changes ends
/// with the store, or with the runtime that it was opened in: then [`KeyChange::Lost`] is published, and the next question or
/// change begins it again, in its own runtime.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use portcullis::{Clock, SystemClock, api_key::{ApiKeyAuthenticator, NewApiKey, SqliteKeyStore}};
///
/// let store = Arc::new(SqliteKeyStore::open("keys.db").await?);
/// let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
/// let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject("billing"), SystemClock::new().now()).await?;
/// # drop(key);
/// # Ok(())
/// # }
/// ```
pub struct SqliteKeyStore {
    database: Arc<Database>,
    watcher: Watcher,
}

#[derive(Debug)]
struct Database {
    readers: SqlitePool,
    /// One connection: what it finds changed and did not change itself, another process did.
    writer: SqlitePool,
    /// Counts the writer's connections, of which there is one at a time.
    writers: Arc<AtomicU64>,
    statement_timeout: Duration,
    /// How long a change may take in all before its caller is told that nobody knows.
    change_timeout: Duration,
    feed: Arc<ChangeFeed>,
    place: Place,
    watch_every: Duration,
    /// Whether the name leads to another file than the one that is open.
    is_replaced: AtomicBool,
}

impl SqliteKeyStore {
    /// Opens the file, and makes it and its tables if they are not there.
    ///
    /// # Errors
    /// If the file cannot be opened or made, is no SQLite database, or its tables are of a newer release.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open().await
    }

    /// Opens the file as it is: it changes no tables and makes none, and only checks their version.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::Version`] also if there are [migrations](Self::migrations) to run.
    pub async fn open_without_migrating(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).without_migrating().open().await
    }

    /// Begins with the defaults.
    pub fn builder(path: impl AsRef<Path>) -> SqliteKeyStoreBuilder {
        SqliteKeyStoreBuilder::new(path.as_ref())
    }

    /// What [`open`](Self::open) runs to make the tables, by ascending version, to be run by hand: each text once, in a
    /// transaction. It notes its version in the table `portcullis_schema`.
    pub fn migrations() -> impl Iterator<Item = (u32, &'static str)> {
        work::MIGRATIONS.iter().copied()
    }

    /// Looks for what others change, from what was seen last.
    fn watch(&self, seen: Option<(u64, i64)>) {
        self.watcher.begin(|| watch::watch(Arc::clone(&self.database), seen));
    }

    async fn read<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T>,
    ) -> Result<T, StoreError> {
        self.watch(None);
        self.database.read(work).await
    }

    /// Makes a change and publishes it, also if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        told: Vec<KeyChange>,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.watch(None);
        let database = Arc::clone(&self.database);
        let change = async move {
            let answer = match database.must_be_there() {
                Ok(()) => write(&database.writer, work).await,
                Err(error) => Err(error),
            };
            // Also if it failed: it may have taken effect all the same.
            told.iter().for_each(|change| database.feed.publish(change));
            answer
        };
        finished(self.database.change_timeout, change).await
    }
}

impl Database {
    async fn read<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T>,
    ) -> Result<T, StoreError> {
        self.must_be_there()?;
        let mut connection = self.readers.acquire().await.map_err(|error| failed(BACKEND, error))?;
        let answer = timeout(self.statement_timeout, work(&mut connection)).await;
        answer.unwrap_or_else(|_| Err(unavailable(BACKEND, format!("no answer within {:?}", self.statement_timeout))))
    }

    fn must_be_there(&self) -> Result<(), StoreError> {
        if self.is_replaced.load(Ordering::SeqCst) { Err(replaced()) } else { Ok(()) }
    }

    /// A value that is another one when another process may have changed the file.
    async fn version(&self) -> Result<(u64, i64), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(|error| failed(BACKEND, error))?;
        let version = timeout(self.statement_timeout, data_version(&mut connection)).await;
        let version = version.unwrap_or_else(|_| Err(unavailable(BACKEND, "no answer")))?;
        Ok((self.writers.load(Ordering::SeqCst), version))
    }
}

#[async_trait]
impl ApiKeyStore for SqliteKeyStore {
    async fn find(&self, lookup: Lookup) -> Found {
        self.get(lookup.id()).await
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.database.feed)
    }
}

admin! { SqliteKeyStore }

impl fmt::Debug for SqliteKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.database.writer.connect_options();
        f.debug_struct("SqliteKeyStore").field("file", &options.get_filename()).finish_non_exhaustive()
    }
}
