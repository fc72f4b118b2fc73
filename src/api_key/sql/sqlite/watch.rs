//! Finds out what other processes changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{BACKEND, Database};
use crate::{api_key::KeyChange, error::StoreError, file::identity, log, sql::unavailable};

/// The file that is open, by its name and by what it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Place {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(&fs::metadata(path)?) })
    }

    /// Whether the name leads to the file that is open. SQLite would go on with what has no name any more.
    async fn is_there(&self) -> Result<bool, StoreError> {
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

/// Looks every so often, for ever. What was not seen before is something new.
pub(super) async fn watch(database: Arc<Database>, mut seen: Option<(u64, i64)>) {
    loop {
        sleep(database.watch_every).await;
        let version = match database.place.is_there().await {
            Ok(true) => {
                database.is_replaced.store(false, SeqCst);
                database.version().await
            }
            Ok(false) => {
                if !database.is_replaced.swap(true, SeqCst) {
                    let path = database.place.path.display();
                    log::error(&format!(
                        "API keys: {path} is not the file any more that is open: start again with the new one"
                    ));
                }
                Err(database.replaced())
            }
            Err(error) => Err(error),
        };
        match version {
            Ok(version) if Some(version) == seen && !database.feed.is_lost() => {}
            Ok(version) => {
                seen = Some(version);
                database.feed.publish(&KeyChange::Everything);
            }
            Err(error) => {
                if !database.feed.is_lost() {
                    log::warn(&format!(
                        "API keys: what other processes change is not seen for now: {}",
                        log::chain(&error)
                    ));
                    database.feed.publish(&KeyChange::Lost);
                }
            }
        }
    }
}
