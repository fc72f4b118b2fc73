//! Databases that stores use through sqlx: what goes wrong, and the ways to them.

#[cfg(any(feature = "api-key-postgres", feature = "revocation-postgres"))]
pub(crate) mod postgres;
#[cfg(any(feature = "api-key-sqlite", feature = "revocation-sqlite"))]
pub(crate) mod sqlite;

use std::{ops::RangeInclusive, pin::Pin, time::Duration};

use thiserror::Error;

use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// What is done on a connection.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// How long somebody may wait. Less than 1 ms would be no limit to PostgreSQL (`statement_timeout`), and it refuses one of months.
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

pub(crate) fn check_wait(setting: &'static str, time: Duration) -> Result<(), ConfigError> {
    if WAITS.contains(&time) {
        return Ok(());
    }
    Err(ConfigError::new(setting, format!("{time:?}"), "is not 1 ms to 60 s"))
}

/// A store that cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tables are of another version than this library needs: older, and it was not to migrate them, or newer.
    #[error("{backend}: the tables have version {found}, and {needed} is needed: {}", advice(*.found, *.needed))]
    #[non_exhaustive]
    Version {
        /// The backend's name.
        backend: &'static str,
        /// The version that is there; 0 is none at all.
        found: u32,
        /// The version that this library needs.
        needed: u32,
    },
}

fn advice(found: u32, needed: u32) -> &'static str {
    if found < needed { "run the migrations after it" } else { "a newer release of this library made them" }
}

impl OpenError {
    /// Whether the tables are the ones that are needed.
    pub(crate) fn check_version(backend: &'static str, found: u32, needed: u32) -> Result<(), Self> {
        if found == needed { Ok(()) } else { Err(Self::Version { backend, found, needed }) }
    }
}

/// What a failure of the database is to the caller.
pub(crate) fn failed(backend: &'static str, error: sqlx::Error) -> StoreError {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        // The pool tries again until then, and keeps to itself why it had to.
        return unavailable(
            backend,
            "no connection in time: the database cannot be reached, or all connections are in use",
        );
    }
    let kind = match &error {
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => StoreErrorKind::Corrupt,
        sqlx::Error::Database(error) if error.code().is_some_and(|code| is_corruption(&code)) => {
            StoreErrorKind::Corrupt
        }
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, backend).caused_by(error)
}

pub(crate) fn unavailable(backend: &'static str, why: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, backend).caused_by(why.into())
}

/// SQLite's SQLITE_CORRUPT and SQLITE_NOTADB with all their kinds; PostgreSQL's data_corrupted and index_corrupted.
fn is_corruption(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 11 | 26),
        Ok(_) | Err(_) => matches!(code, "XX001" | "XX002"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_is_told_from_absence() {
        for (code, corrupt) in
            [("11", true), ("267", true), ("26", true), ("5", false), ("517", false), ("XX001", true), ("08006", false)]
        {
            assert_eq!(is_corruption(code), corrupt, "{code}");
        }
    }

    #[test]
    fn a_version_that_is_not_the_one_says_what_to_do() {
        assert!(OpenError::check_version("test", 2, 2).is_ok());
        for (found, advice) in [(0, "run the migrations"), (3, "a newer release")] {
            let error = OpenError::check_version("test", found, 2).unwrap_err().to_string();
            assert!(error.contains(advice) && error.contains(&format!("version {found}")), "{error}");
        }
    }
}
