use std::{sync::Arc, time::Duration};

use super::{PostgresKeyStore, work};
use crate::{
    api_key::{ChangeFeed, sql::watcher::Watcher},
    error::ConfigError,
    sql::{
        OpenError, check_wait,
        postgres::{Database, Source, migrate},
    },
};

/// Configures [`PostgresKeyStore`].
///
/// ```
/// # async fn example() -> Result<(), portcullis::api_key::OpenError> {
/// use std::time::Duration;
/// use portcullis::api_key::PostgresKeyStore;
///
/// let store = PostgresKeyStore::builder("postgres://orders@localhost/orders")
///     .connections(16)
///     .acquire_timeout(Duration::from_millis(500))
///     .connect()
///     .await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct PostgresKeyStoreBuilder {
    source: Source,
    connections: u32,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    migrate: bool,
}

impl PostgresKeyStoreBuilder {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(2),
            migrate: true,
        }
    }

    /// How many connections there are at most, 8 unless said; one more listens. A pool that was there keeps its own number.
    pub const fn connections(mut self, count: u32) -> Self {
        self.connections = count;
        self
    }

    /// How long a question or a change waits for a connection, and a new connection for the server, 1 ms to 60 s: 2 s unless
    /// said. A pool that was there keeps its own.
    pub const fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }

    /// How long an answer may take, 1 ms to 60 s, 2 s unless said. The server is told as well (`statement_timeout`), but for a pool that
    /// was there.
    pub const fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// Changes no tables and makes none; connecting fails if they are not of the version that is needed.
    pub const fn without_migrating(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// If a setting is out of its bounds, the address is none, the server does not answer, or the tables are of another version and may
    /// not or cannot be migrated.
    pub async fn connect(self) -> Result<PostgresKeyStore, OpenError> {
        self.check()?;
        let pool = self.source.pool(self.connections, self.acquire_timeout, self.statement_timeout)?;
        migrate(&pool, work::SCHEMA, work::MIGRATIONS, self.migrate).await?;

        let feed = Arc::new(ChangeFeed::new_lost());
        let database = Database { pool, statement_timeout: self.statement_timeout };
        let watcher = Watcher::new(Arc::clone(&feed));
        let store = PostgresKeyStore { database, acquire_timeout: self.acquire_timeout, feed, watcher };
        store.listen();
        Ok(store)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.connections == 0 {
            return Err(ConfigError::new("PostgreSQL connections", "0", "must be one at least"));
        }
        check_wait("PostgreSQL acquire timeout", self.acquire_timeout)?;
        check_wait("PostgreSQL statement timeout", self.statement_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let builder = PostgresKeyStore::builder("postgres://orders:hunter2@localhost/orders");
        assert!(!format!("{builder:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_setting_out_of_its_bounds_is_refused() {
        let builder = || PostgresKeyStore::builder("postgres://orders@localhost/orders");
        for (builder, setting) in [
            (builder().connections(0), "PostgreSQL connections"),
            (builder().acquire_timeout(Duration::ZERO), "PostgreSQL acquire timeout"),
            (builder().acquire_timeout(Duration::MAX), "PostgreSQL acquire timeout"),
            (builder().statement_timeout(Duration::from_micros(999)), "PostgreSQL statement timeout"),
            (builder().statement_timeout(Duration::from_secs(61)), "PostgreSQL statement timeout"),
        ] {
            let error = builder.connect().await.unwrap_err();
            assert!(matches!(&error, OpenError::Config(error) if error.setting() == setting), "{error:?}");
        }
    }

    #[tokio::test]
    async fn why_nobody_answers_is_told() {
        let builder = PostgresKeyStore::builder("postgres://orders@127.0.0.1:1/orders");
        let error = builder.acquire_timeout(Duration::from_millis(50)).connect().await.unwrap_err();
        let OpenError::Store(error) = error else { panic!("{error}") };
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
    }
}
