//! Key stores in SQL databases, through sqlx.
//!
//! Both databases hold the same two tables; what is said to them is the same text, but for where they differ.

mod admin;
mod columns;
mod page;
#[cfg(feature = "api-key-postgres")]
pub(super) mod postgres;
#[cfg(feature = "api-key-sqlite")]
pub(super) mod sqlite;
mod statements;
mod watcher;
