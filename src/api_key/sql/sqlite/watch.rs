//! Finds out what other processes changed.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Database;
use crate::{api_key::KeyChange, log};

/// Looks every so often, for ever.
pub(super) async fn watch(database: Arc<Database>, every: Duration, mut seen: (u64, i64)) {
    loop {
        sleep(every).await;
        match database.version().await {
            Ok(version) if version == seen && !database.feed.is_lost() => {}
            Ok(version) => {
                seen = version;
                database.feed.publish(&KeyChange::Everything);
            }
            Err(error) => {
                if !database.feed.is_lost() {
                    log::warn(&format!("API keys: what other processes change is not seen for now: {error}"));
                    database.feed.publish(&KeyChange::Lost);
                }
            }
        }
    }
}
