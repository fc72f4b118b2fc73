//! Revocations that several processes share, in PostgreSQL.

mod builder;
mod listen;
mod work;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use sqlx::PgPool;
use tokio::{sync::watch, task::JoinSet};

pub use self::builder::PostgresRevocationsBuilder;
use super::{Revocation, RevocationState, RevocationStore, entry::Entry, rows::Shared};
use crate::{
    clock::Instants,
    error::StoreError,
    sql::{
        OpenError,
        postgres::{BACKEND, Database, Source},
    },
};

/// Revocations in PostgreSQL, 11 or later, for all processes that use the same database (feature `revocation-postgres`).
///
/// - **Reaching the others**: triggers tell of every row with its commit (`NOTIFY`), rows written by hand included. A process
///   then reads what is new, and refuses it on the first request after that. It also asks five times within
///   [`max_age`](super::RevocationLimits::max_age), each second by default. What is told is never believed without its row: whoever may
///   connect to the database may tell anything, and services in other schemas of it do.
/// - **PostgreSQL is away**: the state is trusted for `max_age` after it was last known to be whole, 5 s by default; then
///   requests get `503`. Nothing can be revoked meanwhile: [`revoke`](RevocationStore::revoke) fails with
///   [`Unavailable`](crate::StoreErrorKind::Unavailable). It is tried again after 0.1 s up to 10 s. Each new connection begins
///   with everything that the table has, before the state is trusted again.
/// - **Bounds**: at most [`capacity`](super::RevocationLimits::capacity) rows, and as many in each process; give all the same limits.
///   What has ended is removed when something is revoked, by the server's clock and this process' one, whichever is behind.
/// - **Connection**: TLS with a verified certificate (`sslmode=verify-full`) unless the address says another `sslmode`, or else
///   the variable `PGSSLMODE` does (empty or mistyped, it is an error), or the server is on a loopback address or a Unix
///   socket; over a network the log warns of whatever is weaker; the primary server, without a pooler in transaction mode, and
///   without anything that sends reads to a standby: what that answers may be old, and would be trusted. Two connections at
///   most, and one more that listens.
/// - **Cost**: writers wait for each other. All rows are counted, some 20 ms for 100 000, only while as many numbers as there may be
///   rows were given since the oldest row: where keys and clients are revoked for good, or where it is nearly full.
/// - **Rows by hand**: `INSERT INTO portcullis_revocations (kind, issuer, value, issued_until, ends) VALUES ('token', ..)`. Nobody can
///   revoke until that transaction ends. A row that is deleted goes on to count in the processes that know it.
/// - **Restored or replicated**: each row that is written gets a number above all others, by which processes find it, also where the
///   sequence was left behind. Rows that come by replication or with triggers off keep theirs: do not write to both sides.
///
/// A clone is the same store. The last one ends its task. It needs a tokio runtime with timers and network.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{
///     Clock, SystemClock,
///     revocation::{PostgresRevocations, Revocation, RevocationStore},
/// };
///
/// let revocations = PostgresRevocations::connect("postgres://orders@db.example.com/orders").await?;
/// // JwtAuthenticator::builder().revocations(revocations.clone()), and:
/// let now = SystemClock::new().now();
/// revocations.revoke(&Revocation::subject("https://id.example.com", "alice", now.unix_seconds())?, now).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct PostgresRevocations {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    database: Database,
    loaded: watch::Receiver<bool>,
    /// Aborted when dropped.
    _listener: JoinSet<()>,
}

impl PostgresRevocations {
    /// Connects to the server at this address, `postgres://user:password@host:port/database?parameter=value`, and makes the
    /// table if it is not there. Requests get `503` until what there is was [loaded](Self::loaded).
    ///
    /// # Errors
    /// If the address is none, the server does not answer, the account may not make tables that are missing, or the tables
    /// are of a newer release.
    pub async fn connect(address: &str) -> Result<Self, OpenError> {
        Self::builder(address).connect().await
    }

    /// Begins with the defaults.
    pub fn builder(address: &str) -> PostgresRevocationsBuilder {
        PostgresRevocationsBuilder::new(Source::Address(address.to_owned()))
    }

    /// Begins with the defaults and a pool that is there. The listening connection is another one, with the options
    /// that the pool has by then.
    pub fn builder_with_pool(pool: PgPool) -> PostgresRevocationsBuilder {
        PostgresRevocationsBuilder::new(Source::Pool(pool))
    }

    /// What [`connect`](Self::connect) runs to make the table, by ascending version, to be run by hand: each text once, in a
    /// transaction. It notes its version in the table `portcullis_revocation_schema`.
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

#[async_trait]
impl RevocationStore for PostgresRevocations {
    fn state(&self) -> &RevocationState {
        &self.inner.shared.state
    }

    /// Waits for a connection and for an answer, 2 s each, unless [said otherwise](PostgresRevocationsBuilder::timeout).
    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        shared.state.check_end(revocation, at, BACKEND)?;
        let entry = Entry::new(revocation, &shared.limits, at);
        let most = shared.limits.most();
        let database = &self.inner.database;
        database.run(move |connection| Box::pin(work::revoke(connection, entry, most, at)), || ()).await?;
        // If there is no room, the task that reads it as well finds it out, and the state is not trusted.
        shared.state.add([revocation], at)
    }
}

/// Without the address, which may have a password.
impl fmt::Debug for PostgresRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.inner.database.pool.connect_options();
        f.debug_struct("PostgresRevocations")
            .field("host", &options.get_host())
            .field("database", &options.get_database())
            .field("state", &self.inner.shared.state)
            .finish_non_exhaustive()
    }
}
