//! The way to PostgreSQL: addresses, connections, tables, notifications.

use std::{ffi::OsStr, fmt, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode},
};
use tokio::time::timeout;

use super::{OpenError, Work, failed, unavailable};
use crate::{
    error::{ConfigError, StoreError, StoreErrorKind},
    log,
    loopback::is_loopback,
};

pub(crate) const BACKEND: &str = "postgres";
/// What a listening connection tells itself first.
pub(crate) const HELLO: &str = "hello";
/// How long a listening connection may be silent before it is tried, and how long an answer may take then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Below that, a connection that was used is not tried before it is used again.
const FRESH: Duration = Duration::from_secs(1);
/// Any number that nobody else locks: `portcull` in ASCII.
const MIGRATION_LOCK: i64 = 0x706f_7274_6375_6c6c;

/// libpq's variable for what an address does not say.
const SSLMODE: &str = "PGSSLMODE";

/// Where connections come from.
#[derive(Clone)]
pub(crate) enum Source {
    Address(String),
    Pool(PgPool),
}

impl Source {
    /// The pool that was there, which keeps its own settings, or one of these.
    pub(crate) fn pool(
        &self,
        connections: u32,
        acquire_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<PgPool, ConfigError> {
        match self {
            // It connects when the tables are looked at, which tells why it cannot.
            Self::Address(address) => {
                Ok(pool(connections, acquire_timeout, statement_timeout).connect_lazy_with(options(address)?))
            }
            Self::Pool(pool) => Ok(pool.clone()),
        }
    }
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

/// Reads the address. Over a network, TLS and the server's certificate are asked for unless somebody said how to connect.
pub(crate) fn options(address: &str) -> Result<PgConnectOptions, ConfigError> {
    let options = read(address, std::env::var_os(SSLMODE).as_deref())?;
    if !is_local(&options) && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        let mode = options.get_ssl_mode();
        log::warn(&format!(
            "PostgreSQL: {mode:?}, as the address or {SSLMODE} says, is weaker than verify-full: whoever stands in between may \
             be taken for the server"
        ));
    }
    Ok(options)
}

fn read(address: &str, variable: Option<&OsStr>) -> Result<PgConnectOptions, ConfigError> {
    let options: PgConnectOptions = address.parse().map_err(|error: sqlx::Error| {
        // The address may have a password.
        let value = format!("a text of {} bytes", address.len());
        ConfigError::new("PostgreSQL address", value, "is no address of a PostgreSQL server").caused_by(error)
    })?;
    if address.contains('#') {
        // What comes after it is no parameter, and must not count as one. In a password it is written %23.
        let value = format!("a text of {} bytes", address.len());
        return Err(ConfigError::new(
            "PostgreSQL address",
            value,
            "has a `#`, after which nothing is read: write it as %23",
        ));
    }
    let (_, parameters) = address.split_once('?').unwrap_or_default();
    let names = |parameter: &str| parameter.starts_with("sslmode=") || parameter.starts_with("ssl-mode=");
    if parameters.split('&').any(names) {
        return Ok(options);
    }
    // sqlx takes what it cannot read for `prefer`, which ends in plain text if whoever answers wants that.
    let mode = match variable {
        Some(said) => Some(sslmode(said)?),
        None if is_local(&options) => None,
        None => Some(PgSslMode::VerifyFull),
    };
    Ok(match mode {
        Some(mode) => options.ssl_mode(mode),
        None => options,
    })
}

fn sslmode(said: &OsStr) -> Result<PgSslMode, ConfigError> {
    let problem = "is none of disable, allow, prefer, require, verify-ca and verify-full";
    let mode = said.to_str().and_then(|said| said.parse().ok());
    mode.ok_or_else(|| ConfigError::new(SSLMODE, format!("{:.64}", format!("{said:?}")), problem))
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some() || host.starts_with('/') || is_loopback(host)
}

/// Connections that are tried after a pause, and whose statements end.
fn pool(connections: u32, acquire_timeout: Duration, statement_timeout: Duration) -> PgPoolOptions {
    let limit = i64::try_from(statement_timeout.as_millis()).unwrap_or(i64::MAX).to_string();
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(acquire_timeout)
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

#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) statement_timeout: Duration,
}

impl Database {
    /// Works in a task of its own: a connection whose answer nobody waits for would have to be tried or closed.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
        after: impl FnOnce() + Send + 'static,
    ) -> Result<T, StoreError> {
        let limit = self.statement_timeout;
        let mut connection = self.pool.acquire().await.map_err(|error| failed(BACKEND, error))?;
        let task = tokio::spawn(async move {
            let answer = timeout(limit, work(&mut connection)).await;
            let answer = answer.unwrap_or_else(|_| {
                // It may never answer: not a connection for anybody else.
                drop(connection.detach());
                Err(unavailable(BACKEND, format!("no answer within {limit:?}")))
            });
            after();
            answer
        });
        task.await.unwrap_or_else(|error| Err(unavailable(BACKEND, error.to_string())))
    }
}

/// Begins to listen, and makes sure that it hears.
pub(crate) async fn listener(
    server: &PgConnectOptions,
    acquire_timeout: Duration,
    channel: &str,
) -> Result<PgListener, StoreError> {
    let sql = |error| failed(BACKEND, error);
    // A pool for each connection: a lost one says goodbye to the server before it leaves its pool, and may do so in vain.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(acquire_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(server.clone());
    let mut listener = PgListener::connect_with(&pool).await.map_err(sql)?;
    // It would listen anew without anybody knowing what it missed.
    listener.eager_reconnect(false);
    let heard = timeout(PATIENCE, async {
        listener.listen(channel).await?;
        let hello = sqlx::query_scalar("SELECT pg_backend_pid() FROM pg_notify($1, $2)").bind(channel).bind(HELLO);
        let own: i32 = hello.fetch_one(&mut listener).await?;
        while let Some(heard) = listener.try_recv().await? {
            if heard.payload() == HELLO && i32::try_from(heard.process_id()) == Ok(own) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    match heard.await {
        Ok(Ok(true)) => Ok(listener),
        Ok(Ok(false)) => Err(unavailable(BACKEND, "the listening connection closed")),
        Ok(Err(error)) => Err(sql(error)),
        Err(_) => Err(unavailable(BACKEND, "notifications do not arrive; is there a pooler in transaction mode?")),
    }
}

/// Makes the tables what they have to be, if it may, and checks that they are. The table `schema` has their version.
pub(crate) async fn migrate(
    pool: &PgPool,
    schema: &'static str,
    migrations: &[(u32, &'static str)],
    may: bool,
) -> Result<(), OpenError> {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return Err(why_none(pool, error).await.into()),
    };
    // Others may be migrating, and tables may be large.
    const LONGEST: Duration = Duration::from_secs(60);
    let migrated = timeout(LONGEST, migrate_on(&mut connection, schema, migrations, may)).await;
    migrated.map_err(|_| unavailable(BACKEND, format!("the migrations are not done within {LONGEST:?}")))?
}

/// Why a pool that has no connection yet gets none: it tells no more than that it waited.
async fn why_none(pool: &PgPool, error: sqlx::Error) -> StoreError {
    let alone = timeout(PATIENCE, PgConnection::connect_with(&pool.connect_options())).await;
    match alone {
        Ok(Err(why)) => sql(why),
        Ok(Ok(_)) | Err(_) => sql(error),
    }
}

async fn migrate_on(
    connection: &mut PgConnection,
    schema: &'static str,
    migrations: &[(u32, &'static str)],
    may: bool,
) -> Result<(), OpenError> {
    let needed = migrations.len().try_into().unwrap_or(u32::MAX);
    let found = version(connection, schema).await?;
    if found >= needed || !may {
        return OpenError::check_version(BACKEND, found, needed);
    }
    let mut transaction = connection.begin().await.map_err(sql)?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await.map_err(sql)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
    lock.execute(&mut *transaction).await.map_err(sql)?;
    let found = version(&mut transaction, schema).await?; // another process may have been first
    for (_, text) in migrations.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*text).execute(&mut *transaction).await.map_err(sql)?;
    }
    let found = version(&mut transaction, schema).await?;
    transaction.commit().await.map_err(sql)?;
    OpenError::check_version(BACKEND, found, needed)
}

async fn version(connection: &mut PgConnection, schema: &'static str) -> Result<u32, StoreError> {
    // Not `to_regclass`: it may remember that there was no such table before this transaction waited for another one.
    let exists = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relname = $1 \
         AND pg_catalog.pg_table_is_visible(oid))";
    let exists = sqlx::query_scalar::<_, bool>(exists).bind(schema);
    if !exists.fetch_one(&mut *connection).await.map_err(sql)? {
        return Ok(0);
    }
    let text = format!("SELECT max(version) FROM {schema}");
    let version = sqlx::query_scalar(sqlx::AssertSqlSafe(text));
    let version: Option<i32> = version.fetch_one(connection).await.map_err(sql)?;
    u32::try_from(version.unwrap_or(0))
        .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, BACKEND).about("the version of the tables"))
}

fn sql(error: sqlx::Error) -> StoreError {
    failed(BACKEND, error)
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
            let mode = read(address, None).unwrap().get_ssl_mode();
            assert_eq!(matches!(mode, PgSslMode::VerifyFull), strict, "{address}: {mode:?}");
        }
    }

    #[tokio::test]
    async fn why_there_is_no_connection_is_told_at_the_start() {
        let server = read("postgres://orders@127.0.0.1:1/orders", None).unwrap();
        let soon = Duration::from_millis(50);
        let pool = pool(1, soon, soon).connect_lazy_with(server);
        let error = migrate(&pool, "schema", &[], false).await.unwrap_err();
        let OpenError::Store(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(format!("{error:#}").contains("refused"), "{error:#}");

        let error = sql(pool.acquire().await.unwrap_err());
        assert!(format!("{error:#}").contains("cannot be reached, or all connections are in use"), "{error:#}");
    }

    /// `sslmode` behind it would be read by nobody, and look as if TLS had been asked for.
    #[test]
    fn an_address_with_a_fragment_is_refused() {
        for address in [
            "postgres://orders@db.example.com/orders#",
            "postgres://orders@db.example.com/orders#?sslmode=verify-full",
            "postgres://orders@db.example.com/orders?application_name=x#&sslmode=verify-full",
            "postgres://orders@localhost/orders#x",
        ] {
            let error = read(address, None).unwrap_err();
            assert!(error.to_string().contains('#') && !format!("{error:?}").contains("db.example"), "{error:?}");
        }
        let escaped = "postgres://orders:a%23b@db.example.com/orders?application_name=%23";
        assert!(matches!(read(escaped, None).unwrap().get_ssl_mode(), PgSslMode::VerifyFull));
    }

    #[test]
    fn the_variable_is_read_strictly() {
        let mode = |address: &str, said: &str| read(address, Some(said.as_ref())).map(|options| options.get_ssl_mode());
        let (elsewhere, here) = ("postgres://orders@db.example.com/orders", "postgres://orders@localhost/orders");
        for (said, expected) in [
            ("disable", "Disable"),
            ("allow", "Allow"),
            ("prefer", "Prefer"),
            ("require", "Require"),
            ("verify-ca", "VerifyCa"),
            ("verify-full", "VerifyFull"),
        ] {
            for address in [elsewhere, here] {
                assert_eq!(format!("{:?}", mode(address, said).unwrap()), expected, "{address}");
            }
        }
        for wrong in ["", " ", "verify_full", "verify-full ", "verifyfull", "true", "1", &"x".repeat(1_000)] {
            for address in [elsewhere, here, "postgres:///orders?host=/run/postgresql"] {
                let error = mode(address, wrong).unwrap_err();
                assert_eq!(error.setting(), "PGSSLMODE", "{address} {wrong:?}");
                assert!(error.value().len() <= 64, "{wrong:?}");
            }
        }
        let said = mode("postgres://orders@db.example.com/orders?sslmode=require", "verify_full").unwrap();
        assert!(matches!(said, PgSslMode::Require), "what the address says counts");
    }

    #[test]
    fn no_address_and_no_password_is_shown() {
        for address in ["hunter2", "postgres://orders:hunter2@host:port/orders", "postgres://x:hunter2@h/?sslmode=off"]
        {
            let error = read(address, None).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
