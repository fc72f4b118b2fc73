//! Revocations that outlive the process, in an SQLite file.

mod builder;
mod watch;
mod work;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use sqlx::SqlitePool;
use tokio::{sync::watch::Receiver, task::JoinSet};

pub use self::builder::SqliteRevocationsBuilder;
use super::{Revocation, RevocationState, RevocationStore, entry::Entry, rows::Shared};
use crate::{
    clock::Instants,
    error::StoreError,
    sql::{
        OpenError,
        sqlite::{BACKEND, Place, finished, replaced, write},
    },
};

/// Revocations in an SQLite file (feature `revocation-sqlite`): for a service on one machine, of one process or several. They outlive
/// a restart, and need no server. The library brings SQLite with it.
///
/// - **File**: made if it is not there, with the permissions `0600` where the system has them; SQLite gives the files beside
///   it (`-wal`, `-shm`) the same ones. One that everybody may write is refused: who writes it lets in who was logged out. It must
///   be on a local disk: SQLite's locks do not hold on network file systems. It may be the one of
///   [`SqliteKeyStore`](crate::api_key::SqliteKeyStore), where a change of the one makes the other look.
/// - **Durability**: write-ahead log, `synchronous = FULL`: what [`revoke`](RevocationStore::revoke) has answered survives the end of
///   the process, however it ends, and a power failure.
/// - **Reaching the others**: this process refuses it from then on. Every other one looks 4 times a second whether the file was written
///   to, and then reads what is new, rows written by hand included: 250 ms late, and the time to read them.
/// - **The file cannot be read**: the state is trusted for [`max_age`](crate::revocation::RevocationLimits::max_age) after it was last
///   known to be whole, 5 s by default; then requests get `503`. It is tried again after 0.5 s up to 2 s, and read as a whole before the
///   state is trusted again. A row that cannot be read, a file that is damaged, replaced or removed ends the trust at once, for nobody
///   knows what is missing. One that was replaced is not gone on with: restore a backup while no process has the file open.
/// - **Another process writes** for long, or the disk is full: requests go on; `revoke` fails with
///   [`Unavailable`](crate::StoreErrorKind::Unavailable) after 2 s.
/// - **Bounds**: at most [`capacity`](crate::revocation::RevocationLimits::capacity) rows, and as many in each process; give all the
///   same limits. What has ended is removed when something is revoked, by the system's clock and the one of the request, whichever is
///   behind.
/// - **Rows by hand**: `INSERT INTO portcullis_revocations (kind, issuer, value, issued_until, ends) VALUES ('token', ..)`. Nobody can
///   revoke until that transaction ends. A row that is deleted goes on to count in the processes that know it.
/// - **Cost**: requests ask memory alone. A revocation is a transaction that waits for the disk, one after the other. Two connections,
///   each of which is a thread.
/// - **Cancel safety**: a revocation that was begun is finished, and counts, also if the caller's future is dropped.
///
/// A clone is the same store. The last one ends its task. It needs a tokio runtime with its timer, the one that it was opened in.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{
///     Clock, SystemClock,
///     revocation::{Revocation, RevocationStore, SqliteRevocations},
/// };
///
/// let revocations = SqliteRevocations::open("revocations.db").await?;
/// // JwtAuthenticator::builder().revocations(revocations.clone()), and:
/// let now = SystemClock::new().now();
/// revocations.revoke(&Revocation::subject("https://id.example.com", "alice", now.unix_seconds())?, now).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SqliteRevocations {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<Database>,
    loaded: Receiver<bool>,
    /// Aborted when dropped.
    _watcher: JoinSet<()>,
}

struct Database {
    shared: Arc<Shared>,
    /// One connection.
    writer: SqlitePool,
    place: Place,
}

impl SqliteRevocations {
    /// Opens the file, and makes it and its table if they are not there. Requests get `503` until what there is was
    /// [loaded](Self::loaded).
    ///
    /// # Errors
    /// If the file cannot be opened or made, may be written by everybody, is no SQLite database, or its tables are of a newer release.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open().await
    }

    /// Begins with the defaults.
    pub fn builder(path: impl AsRef<Path>) -> SqliteRevocationsBuilder {
        SqliteRevocationsBuilder::new(path.as_ref())
    }

    /// What [`open`](Self::open) runs to make the table, by ascending version, to be run by hand: each text once, in a transaction.
    /// It notes its version in the table `portcullis_revocation_schema`.
    pub fn migrations() -> impl Iterator<Item = (u32, &'static str)> {
        work::MIGRATIONS.iter().copied()
    }

    /// Waits until everything that the table has is here, and the state is trusted for the first time, or again.
    ///
    /// # Cancel safety
    /// It may be dropped.
    pub async fn loaded(&self) {
        let _ = self.inner.loaded.clone().wait_for(|loaded| *loaded).await;
    }
}

impl Database {
    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        let shared = &self.shared;
        let entry = Entry::new(revocation, &shared.limits, at);
        let most = shared.limits.most();
        write(&self.writer, move |connection| Box::pin(work::revoke(connection, entry, most, at))).await?;
        // Meets it from now on, whatever becomes of the file. If there is no room, the task that reads it as well finds it out.
        shared.state.add([revocation], at)?;
        // What has no name any more is forgotten when the last process closes it.
        if self.place.is_there().await? { Ok(()) } else { Err(replaced()) }
    }
}

#[async_trait]
impl RevocationStore for SqliteRevocations {
    fn state(&self) -> &RevocationState {
        &self.inner.database.shared.state
    }

    /// Waits for those that came before it, for another process that writes, and for the disk, 2 s each, unless
    /// [said otherwise](SqliteRevocationsBuilder::timeout).
    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        let database = Arc::clone(&self.inner.database);
        database.shared.state.check_end(revocation, at, BACKEND)?;
        let (limit, revocation) = (database.shared.timeout.saturating_mul(3), revocation.clone());
        finished(limit, async move { database.revoke(&revocation, at).await }).await
    }
}

impl fmt::Debug for SqliteRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = &self.inner.database;
        f.debug_struct("SqliteRevocations")
            .field("file", &database.place.path())
            .field("state", &database.shared.state)
            .finish_non_exhaustive()
    }
}
