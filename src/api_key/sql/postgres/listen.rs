//! Hears what changes: the notifications of the tables' triggers.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::time::{sleep, timeout};

use crate::{
    api_key::{ChangeFeed, KeyChange, KeyId, Owner},
    error::StoreError,
    log, retry,
    sql::{
        failed,
        postgres::{BACKEND, HELLO, PATIENCE, listener},
        unavailable,
    },
};

const CHANNEL: &str = "portcullis_api_keys";

/// Listens for ever.
pub(super) async fn listen(pool: PgPool, acquire_timeout: Duration, feed: Arc<ChangeFeed>) {
    let (mut waits, mut said) = (retry::waits(), false);
    loop {
        // As the pool connects by now: its owner may give it other credentials.
        let error = match listener(&pool.connect_options(), acquire_timeout, CHANNEL).await {
            Ok(listener) => {
                (waits, said) = (retry::waits(), false);
                // Whoever loads from here on is told what changes after.
                feed.publish(&KeyChange::Everything);
                follow(listener, &feed).await
            }
            Err(error) => error,
        };
        if !said {
            said = true;
            log::warn(&format!("API keys: changes made elsewhere are not heard for now: {}", log::chain(&error)));
        }
        if !feed.is_lost() {
            feed.publish(&KeyChange::Lost);
        }
        sleep(waits.next().unwrap_or(PATIENCE)).await;
    }
}

/// Publishes what is heard, until the connection is lost.
async fn follow(mut listener: PgListener, feed: &ChangeFeed) -> StoreError {
    loop {
        match timeout(PATIENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => publish(&notification, feed),
            Ok(Ok(None)) => return unavailable(BACKEND, "the listening connection closed"),
            Ok(Err(error)) => return failed(BACKEND, error),
            // A network that fails silently closes nothing.
            Err(_) => match timeout(PATIENCE, sqlx::query("SELECT 1").execute(&mut listener)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return failed(BACKEND, error),
                Err(_) => return unavailable(BACKEND, "the listening connection is silent"),
            },
        }
    }
}

fn publish(notification: &PgNotification, feed: &ChangeFeed) {
    if notification.payload() != HELLO {
        feed.publish(&change(notification.payload()));
    }
}

/// What cannot be read may be anything.
fn change(payload: &str) -> KeyChange {
    let change = match payload.split_once(' ') {
        Some(("key", id)) => {
            let id = STANDARD.decode(id).ok().and_then(|bytes| bytes.try_into().ok());
            id.map(|bytes| KeyChange::Key(KeyId::from_bytes(bytes)))
        }
        Some(("owner", owner)) => serde_json::from_str::<Owner>(owner).ok().map(KeyChange::Owner),
        Some(_) | None => None,
    };
    change.unwrap_or(KeyChange::Everything)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_triggers_tell_is_read() {
        let owner = || Owner::new("bil\"ling").unwrap();
        for (payload, expected) in [
            ("key AQEBAQEBAQEBAQ==", KeyChange::Key(KeyId::from_bytes([1; 10]))),
            (r#"owner {"tenant" : null, "subject" : "bil\"ling"}"#, KeyChange::Owner(owner())),
            (
                r#"owner {"tenant" : "acme", "subject" : "bil\"ling"}"#,
                KeyChange::Owner(owner().in_tenant("acme").unwrap()),
            ),
            ("everything", KeyChange::Everything),
            ("key AQEB", KeyChange::Everything),
            ("key", KeyChange::Everything),
            ("owner {}", KeyChange::Everything),
            ("", KeyChange::Everything),
        ] {
            assert_eq!(change(payload), expected, "{payload}");
        }
    }
}
