//! Which store a text means. A store of yours is one arm more.

use std::{path::Path, sync::Arc};

use portcullis::api_key::{ApiKeyAdmin, FileKeyStore, OpenError, PostgresKeyStore, SqliteKeyStore};

use crate::{Failure, commands::with_causes};

/// The forms that [`open`] knows.
pub(crate) const HELP: &str =
    "Where the keys are: a file .db (SQLite), .toml or .json, or postgres://user@host/database";

/// Opens a store. It makes what is not there, the tables of a database too, only if that is wanted: the name may be mistyped, and the
/// database somebody else's.
pub(crate) async fn open(store: &str, make: bool) -> Result<Arc<dyn ApiKeyAdmin>, Failure> {
    if store.starts_with("postgres://") || store.starts_with("postgresql://") {
        let builder = PostgresKeyStore::builder(store);
        let opened = if make { builder.connect().await } else { builder.without_migrating().connect().await };
        return opened.map(shared).map_err(|error| failed(&error));
    }
    let path = Path::new(store);
    let is = |ending: &str| path.extension().is_some_and(|extension| extension == ending);
    if !is("db") && !is("toml") && !is("json") {
        // Not shown: it may be an address with a password in it.
        return Err(Failure::Usage(format!("no such kind of store. {HELP}")));
    }
    let missing = !path.exists();
    if missing && !make {
        return Err(Failure::Store(format!("{store} is not there; --new makes it")));
    }
    if is("db") {
        let builder = SqliteKeyStore::builder(path);
        let opened = if make { builder.open().await } else { builder.without_migrating().open().await };
        return opened.map(shared).map_err(|error| Failure::Store(format!("{store}: {}", with_causes(&error))));
    }
    let opened = if missing { FileKeyStore::create(path) } else { FileKeyStore::open(path) };
    opened.map(shared).map_err(|error| Failure::Store(format!("{store}: {error}")))
}

/// What an address, or a variable beside it, says wrong is input; neither is shown but for what is no secret.
fn failed(error: &OpenError) -> Failure {
    match error {
        OpenError::Config(error) => Failure::Usage(error.to_string()),
        error => Failure::Store(with_causes(error)),
    }
}

fn shared(store: impl ApiKeyAdmin) -> Arc<dyn ApiKeyAdmin> {
    Arc::new(store)
}
