//! Finds out what other processes changed.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use tokio::time::sleep;

use super::Database;
use crate::{api_key::KeyChange, log, sql::sqlite::replaced};

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
                    let path = database.place.path().display();
                    log::error(&format!(
                        "API keys: {path} is not the file any more that is open: start again with the new one"
                    ));
                }
                Err(replaced())
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
