use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{task::JoinSet, time::timeout};

use super::{BACKEND, Database, PostgresKeyStore, listen::listen, work};
use crate::{
    api_key::{
        ChangeFeed,
        sql::{
            OpenError,
            error::{failed, unavailable},
        },
    },
    error::ConfigError,
};

/// Below that, a connection that was used is not tried before it is used again.
const FRESH: Duration = Duration::from_secs(1);

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

#[derive(Clone)]
pub(super) enum Source {
    Address(String),
    Pool(PgPool),
}

/// An address may have a password.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address(_) => "Address(..)",
            Self::Pool(_) => "Pool(..)",
        })
    }
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

    /// How long a question or a change waits for a connection, and a new connection for the server: 2 s unless said. A pool
    /// that was there keeps its own.
    pub const fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }

    /// How long an answer may take, 2 s unless said. The server is told as well (`statement_timeout`), but for a pool that
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
    /// If a setting is zero, the address is none, the server does not answer, or the tables are of another version and may
    /// not or cannot be migrated.
    pub async fn connect(self) -> Result<PostgresKeyStore, OpenError> {
        self.check()?;
        let sql = |error| failed(BACKEND, error);
        let pool = match &self.source {
            Source::Address(address) => self.pool().connect_with(options(address)?).await.map_err(sql)?,
            Source::Pool(pool) => pool.clone(),
        };
        let mut connection = pool.acquire().await.map_err(sql)?;
        // Others may be migrating, and tables may be large.
        const LONGEST: Duration = Duration::from_secs(60);
        let migrated = timeout(LONGEST, work::migrate(&mut connection, self.migrate)).await;
        migrated.map_err(|_| unavailable(BACKEND, format!("the migrations are not done within {LONGEST:?}")))??;
        drop(connection);

        let feed = Arc::new(ChangeFeed::new_lost());
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(pool.connect_options(), self.acquire_timeout, Arc::clone(&feed)));
        let database = Database { pool, statement_timeout: self.statement_timeout };
        Ok(PostgresKeyStore { database, feed, _listener: tasks })
    }

    fn pool(&self) -> PgPoolOptions {
        let limit = i64::try_from(self.statement_timeout.as_millis()).unwrap_or(i64::MAX).to_string();
        PgPoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(self.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection: &mut PgConnection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for >= FRESH {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let limit = limit.clone();
                Box::pin(async move {
                    let set = sqlx::query("SELECT set_config('statement_timeout', $1, false)").bind(limit);
                    set.execute(connection).await.map(drop)
                })
            })
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.connections == 0 {
            return Err(ConfigError::new("PostgreSQL connections", "0", "must be one at least"));
        }
        for (setting, value) in [
            ("PostgreSQL acquire timeout", self.acquire_timeout),
            ("PostgreSQL statement timeout", self.statement_timeout),
        ] {
            if value.is_zero() {
                return Err(ConfigError::new(setting, "0", "must not be zero"));
            }
        }
        Ok(())
    }
}

/// Reads the address. Over a network, TLS and the server's certificate are asked for unless somebody said how to connect.
fn options(address: &str) -> Result<PgConnectOptions, ConfigError> {
    let options: PgConnectOptions = address.parse().map_err(|error: sqlx::Error| {
        // The address may have a password.
        let value = format!("a text of {} bytes", address.len());
        ConfigError::new("PostgreSQL address", value, "is no address of a PostgreSQL server").caused_by(error)
    })?;
    let (_, parameters) = address.split_once('?').unwrap_or_default();
    let names = |parameter: &str| parameter.starts_with("sslmode=") || parameter.starts_with("ssl-mode=");
    let said = parameters.split('&').any(names) || std::env::var_os("PGSSLMODE").is_some();
    let host = options.get_host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    Ok(if said || local { options } else { options.ssl_mode(PgSslMode::VerifyFull) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_prove_itself() {
        for (address, strict) in [
            ("postgres://orders@db.example.com/orders", true),
            ("postgres://orders@192.0.2.1/orders", true),
            ("postgres://orders@[2001:db8::1]/orders", true),
            ("postgres://orders@localhost.example.com/orders", true),
            ("postgres://orders:sslmode=disable@db.example.com/sslmode=disable", true),
            ("postgres://orders@db.example.com/orders?application_name=sslmode=disable", true),
            ("postgres://orders@localhost/orders", false),
            ("postgres://orders@127.0.0.1/orders", false),
            ("postgres://orders@[::1]/orders", false),
            ("postgres:///orders?host=/run/postgresql", false),
            ("postgres://orders@db.example.com/orders?sslmode=require", false),
        ] {
            let mode = options(address).unwrap().get_ssl_mode();
            assert_eq!(matches!(mode, PgSslMode::VerifyFull), strict, "{address}: {mode:?}");
        }
    }

    #[test]
    fn no_address_and_no_password_is_shown() {
        for address in ["hunter2", "postgres://orders:hunter2@host:port/orders", "postgres://x:hunter2@h/?sslmode=off"]
        {
            let error = options(address).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let builder = PostgresKeyStore::builder("postgres://orders:hunter2@localhost/orders");
        assert!(!format!("{builder:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_setting_of_nothing_is_refused() {
        let builder = || PostgresKeyStore::builder("postgres://orders@localhost/orders");
        for (builder, setting) in [
            (builder().connections(0), "PostgreSQL connections"),
            (builder().acquire_timeout(Duration::ZERO), "PostgreSQL acquire timeout"),
            (builder().statement_timeout(Duration::ZERO), "PostgreSQL statement timeout"),
        ] {
            let error = builder.connect().await.unwrap_err();
            assert!(matches!(&error, OpenError::Config(error) if error.setting() == setting), "{error:?}");
        }
    }
}
