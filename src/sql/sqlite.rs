//! The way to an SQLite file: permissions, connections, tables, and whether the name still leads to it.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{OpenError, Work, failed, unavailable};
use crate::{
    error::{StoreError, StoreErrorKind},
    file::{WRITTEN_BY_ALL, identity, mode, owned, refuse_open},
    log,
};

pub(crate) const BACKEND: &str = "sqlite";
/// Takes the lock for writing before it looks, so that of two who change one thing the second one sees what the first did.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Between two attempts at a file that others hold.
const PAUSE: Duration = Duration::from_millis(10);

/// How a store wants its file.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) path: PathBuf,
    /// Whose file it is, for the log.
    pub(crate) whose: &'static str,
    pub(crate) acquire_timeout: Duration,
    pub(crate) busy_timeout: Duration,
    /// Whether it may make the file and change its tables.
    pub(crate) may_migrate: bool,
}

/// A file that is open, with one connection that makes the changes.
pub(crate) struct Opened {
    pub(crate) writer: SqlitePool,
    pub(crate) place: Place,
    opening: Opening,
    options: SqliteConnectOptions,
}

impl Opening {
    /// Opens the file, with the tables of the version that is needed; the table `schema` has it. `writer` is the pool for the one
    /// connection that makes the changes: a write-ahead log, `synchronous = FULL`.
    pub(crate) async fn open(
        self,
        writer: PoolOptions<Sqlite>,
        schema: &'static str,
        migrations: &[(u32, &'static str)],
    ) -> Result<Opened, OpenError> {
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
        // SQLite does not wait by itself where several open a new file and each would switch it to a write-ahead log.
        let patient = Instant::now() + self.busy_timeout;
        let writer = loop {
            let options = options.clone();
            // A file that is not to be changed may be somebody else's database.
            let options = if self.may_migrate { options.journal_mode(SqliteJournalMode::Wal) } else { options };
            match writer.clone().connect_with(options).await {
                Err(error) if is_busy(&error) && Instant::now() < patient => sleep(PAUSE).await,
                opened => break opened.map_err(sql)?,
            }
        };
        let mut connection = writer.acquire().await.map_err(sql)?;
        migrate(&mut connection, schema, migrations, self.may_migrate).await?;
        let mode = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection);
        let mode: String = mode.await.map_err(sql)?;
        if mode != "wal" {
            return Err(self.unusable(io::Error::other("it cannot have a write-ahead log")).into());
        }
        drop(connection);
        Ok(Opened { writer, place, opening: self, options })
    }

    /// Connections that stay: a file does not hang up.
    pub(crate) fn pool(&self, connections: u32) -> PoolOptions<Sqlite> {
        PoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
    }

    /// Makes the file unless it is there, for its owner alone, if it may be made: SQLite by itself would let everybody read it.
    fn must_be_private(&self, path: &Path) -> io::Result<()> {
        if !self.may_migrate {
            return self.refuse_open_file(path);
        }
        match owned(OpenOptions::new().write(true).create_new(true)).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.refuse_open_file(path),
            made => made.map(drop),
        }
    }

    /// Whoever may write the file may let anybody in.
    fn refuse_open_file(&self, path: &Path) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        refuse_open(&metadata, WRITTEN_BY_ALL).map_err(io::Error::other)?;
        if mode(&metadata) & 0o077 != 0 {
            log::warn(&format!("{}: others than its owner may open {path:?}", self.whose));
        }
        Ok(())
    }

    fn unusable(&self, error: io::Error) -> StoreError {
        unavailable(BACKEND, error.to_string()).about(format!("{:?}", self.path))
    }
}

impl Opened {
    /// More connections to the same file, which change nothing.
    pub(crate) async fn readers(&self, connections: u32) -> Result<SqlitePool, StoreError> {
        let options = self.options.clone().pragma("query_only", "1");
        let readers = self.opening.pool(connections).connect_with(options).await;
        readers.map_err(|error| failed(BACKEND, error).about(format!("{:?}", self.opening.path)))
    }
}

/// The file that is open, by its name and by what it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(&fs::metadata(path)?) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the name leads to the file that is open. SQLite would go on with what has no name any more.
    pub(crate) async fn is_there(&self) -> Result<bool, StoreError> {
        let place = self.clone();
        let looked = spawn_blocking(move || match fs::metadata(&place.path) {
            Ok(metadata) => Ok(identity(&metadata) == place.file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        });
        let looked = looked.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        looked.map_err(|error| unavailable(BACKEND, error.to_string()))
    }
}

pub(crate) fn replaced() -> StoreError {
    unavailable(BACKEND, "the file was replaced, or removed, and what is open is no file any more")
}

/// Works on the one connection that makes the changes.
pub(crate) async fn write<T>(
    writer: &SqlitePool,
    work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T>,
) -> Result<T, StoreError> {
    let mut connection = writer.acquire().await.map_err(sql)?;
    let answer = work(&mut connection).await;
    // On a full disk SQLite may have ended the transaction by itself, and the connection would begin no other one.
    if answer.as_ref().is_err_and(|error| error.kind() != StoreErrorKind::Conflict) {
        let _ = connection.close().await;
    }
    answer
}

/// Makes a change in a task of its own: whoever waits for it may give up, the change does not. After the limit nobody knows.
pub(crate) async fn finished<T: Send + 'static>(
    limit: Duration,
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    match timeout(limit, tokio::spawn(change)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(unavailable(BACKEND, error.to_string())),
        Err(_) => Err(unavailable(BACKEND, "the change takes too long, and may still take effect")),
    }
}

/// A number that is another one when somebody else changed the database, as long as this connection is asked.
pub(crate) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await.map_err(sql)
}

/// Whether somebody else holds the file (`SQLITE_BUSY`, of whatever kind).
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// Makes the tables what they have to be, if it may, and checks that they are.
async fn migrate(
    connection: &mut SqliteConnection,
    schema: &'static str,
    migrations: &[(u32, &'static str)],
    may: bool,
) -> Result<(), OpenError> {
    let needed = migrations.len().try_into().unwrap_or(u32::MAX);
    let found = version(connection, schema).await?;
    if found >= needed || !may {
        return OpenError::check_version(BACKEND, found, needed);
    }
    let mut transaction = connection.begin_with(BEGIN).await.map_err(sql)?;
    let found = version(&mut transaction, schema).await?; // another process may have been first
    for (_, text) in migrations.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*text).execute(&mut *transaction).await.map_err(sql)?;
    }
    let found = version(&mut transaction, schema).await?;
    transaction.commit().await.map_err(sql)?;
    OpenError::check_version(BACKEND, found, needed)
}

async fn version(connection: &mut SqliteConnection, schema: &'static str) -> Result<u32, StoreError> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1)";
    let exists = sqlx::query_scalar::<_, bool>(exists).bind(schema);
    if !exists.fetch_one(&mut *connection).await.map_err(sql)? {
        return Ok(0);
    }
    let version = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT max(version) FROM {schema}")));
    let version: Option<i64> = version.fetch_one(connection).await.map_err(sql)?;
    u32::try_from(version.unwrap_or(0))
        .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, BACKEND).about("the version of the tables"))
}

fn sql(error: sqlx::Error) -> StoreError {
    failed(BACKEND, error)
}
