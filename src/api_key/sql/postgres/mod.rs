mod builder;
mod listen;
mod work;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};

pub use self::builder::PostgresKeyStoreBuilder;
use super::{admin::admin, statements, watcher::Watcher};
use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyChange, KeyFilter, KeyId, KeyUse, Lookup,
        Owner, Revocation, Rotation,
    },
    clock::Instants,
    error::StoreError,
    sql::{
        OpenError, Work,
        postgres::{Database, Source},
    },
};

/// Keys in PostgreSQL, 11 or later (feature `api-key-postgres`): for services of several processes.
///
/// - **Connection**: TLS with a verified certificate (`sslmode=verify-full`) unless the address says another `sslmode`, or else
///   the variable `PGSSLMODE` does, or the server is on a loopback address or a Unix socket. A variable that is empty or
///   mistyped is an error, and over a network the log warns of whatever is weaker. Certificates are checked against Mozilla's
///   roots, and those of the file that `sslrootcert` names. The server must be the primary one, reached without a pooler in
///   transaction mode: prepared statements and `LISTEN` need a session.
/// - **Time**: a question waits for one of 8 connections for 2 s at most, and is answered within 2 s. Beyond that it is
///   [`Unavailable`](crate::StoreErrorKind::Unavailable), a `503` to clients. A server that comes back is found by the next
///   request; nothing has to be restarted.
/// - **Cost**: a look-up is one prepared statement. A connection that was idle for a second is tried first.
/// - **Changes**: the tables tell of every change to them, those by hand included, with its commit (`NOTIFY` by triggers); its
///   own are also [published](ApiKeyStore::changes) before the method returns. A task listens on a connection of its own, which
///   it tries every 2 s. When that is lost, it publishes [`KeyChange::Lost`], 4 s after the network went silent at the latest;
///   connects again, after 0.1 s to 10 s; and, listening again, publishes [`KeyChange::Everything`] before anything later. It
///   begins as lost, and ends with the store, or with the runtime in which it was connected: then it is lost too, until the next
///   question or change begins it again, in its own runtime.
/// - **Cancel safety**: what was begun is finished, within its time, also if the caller's future is dropped.
///
/// The settings are [`PostgresKeyStoreBuilder`]'s. It needs a tokio runtime with its timer and its network.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::api_key::{ApiKeyAuthenticator, PostgresKeyStore};
///
/// let store = PostgresKeyStore::connect("postgres://orders@db.example.com/orders?sslrootcert=/etc/ssl/db.pem").await?;
/// let authenticator = ApiKeyAuthenticator::new(store);
/// # drop(authenticator);
/// # Ok(())
/// # }
/// ```
pub struct PostgresKeyStore {
    database: Database,
    /// How long the listening connection may take to connect.
    acquire_timeout: Duration,
    feed: Arc<ChangeFeed>,
    watcher: Watcher,
}

impl PostgresKeyStore {
    /// Connects to the server at this address, `postgres://user:password@host:port/database?parameter=value`, and makes the
    /// tables if they are not there. What the address leaves out comes from the variables of libpq (`PGPASSWORD` and so on)
    /// and from the user's `.pgpass`.
    ///
    /// # Errors
    /// If the address is none, the server does not answer, the account may not make tables that are missing, or the tables
    /// are of a newer release.
    pub async fn connect(address: &str) -> Result<Self, OpenError> {
        Self::builder(address).connect().await
    }

    /// Connects, changes no tables and makes none, and only checks their version: for an account that may not change schemas.
    /// It needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `portcullis_api_keys` and `portcullis_disabled_owners`, and
    /// `SELECT` on `portcullis_schema`; a service that only checks keys needs `SELECT` alone.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`OpenError::Version`] also if there are [migrations](Self::migrations) to run.
    pub async fn connect_without_migrating(address: &str) -> Result<Self, OpenError> {
        Self::builder(address).without_migrating().connect().await
    }

    /// Uses a pool of connections that is there, with its own settings, and makes the tables if they are not there. The
    /// listening connection is another one, with the options that the pool has by then.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn with_pool(pool: PgPool) -> Result<Self, OpenError> {
        Self::builder_with_pool(pool).connect().await
    }

    /// Begins with the defaults.
    pub fn builder(address: &str) -> PostgresKeyStoreBuilder {
        PostgresKeyStoreBuilder::new(Source::Address(address.to_owned()))
    }

    /// Begins with the defaults and a pool that is there.
    pub fn builder_with_pool(pool: PgPool) -> PostgresKeyStoreBuilder {
        PostgresKeyStoreBuilder::new(Source::Pool(pool))
    }

    /// What [`connect`](Self::connect) runs to make the tables, by ascending version, to be run by hand: each text once, in a
    /// transaction. It notes its version in the table `portcullis_schema`. Tables and triggers go into the schema that is first
    /// in the `search_path`.
    pub fn migrations() -> impl Iterator<Item = (u32, &'static str)> {
        work::MIGRATIONS.iter().copied()
    }

    fn listen(&self) {
        let (pool, limit) = (&self.database.pool, self.acquire_timeout);
        self.watcher.begin(|| listen::listen(pool.clone(), limit, Arc::clone(&self.feed)));
    }

    /// Makes a change and publishes it.
    async fn change<T: Send + 'static>(
        &self,
        told: Vec<KeyChange>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.listen();
        let feed = Arc::clone(&self.feed);
        let publish = move || told.iter().for_each(|change| feed.publish(change));
        // Also if it failed: it may have taken effect all the same.
        self.database.run(work, publish).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.listen();
        self.database.run(work, || ()).await
    }
}

#[async_trait]
impl ApiKeyStore for PostgresKeyStore {
    async fn find(&self, lookup: Lookup) -> Found {
        self.get(lookup.id()).await
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.feed)
    }
}

admin! { PostgresKeyStore }

/// Without the address, which may have a password.
impl fmt::Debug for PostgresKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.database.pool.connect_options();
        f.debug_struct("PostgresKeyStore")
            .field("host", &options.get_host())
            .field("database", &options.get_database())
            .finish_non_exhaustive()
    }
}
