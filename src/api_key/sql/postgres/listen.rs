//! Hears what changes: the notifications of the tables' triggers.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::time::{sleep, timeout};

use super::BACKEND;
use crate::{
    api_key::{
        ChangeFeed, KeyChange, KeyId, Owner,
        sql::error::{failed, unavailable},
    },
    error::StoreError,
    log,
};

const CHANNEL: &str = "portcullis_api_keys";
const HELLO: &str = "hello";

/// How long a connection may be silent before it is tried, and how long an answer may take then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens for ever.
pub(super) async fn listen(server: Arc<PgConnectOptions>, acquire_timeout: Duration, feed: Arc<ChangeFeed>) {
    let (mut waits, mut said) = (waits(), false);
    loop {
        let error = match connect(&server, acquire_timeout).await {
            Ok(listener) => {
                (waits, said) = (self::waits(), false);
                // Whoever loads from here on is told what changes after.
                feed.publish(&KeyChange::Everything);
                follow(listener, &feed).await
            }
            Err(error) => error,
        };
        if !said {
            said = true;
            log::warn(&format!("API keys: changes made elsewhere are not heard for now: {error}"));
        }
        if !feed.is_lost() {
            feed.publish(&KeyChange::Lost);
        }
        sleep(waits.next().unwrap_or(PATIENCE)).await;
    }
}

/// From 0.1 s to 5 s, and up to as much again by chance.
fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Begins to listen, and makes sure that it hears.
async fn connect(server: &PgConnectOptions, acquire_timeout: Duration) -> Result<PgListener, StoreError> {
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
        listener.listen(CHANNEL).await?;
        let hello = sqlx::query_scalar("SELECT pg_backend_pid() FROM pg_notify($1, $2)").bind(CHANNEL).bind(HELLO);
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

    #[test]
    fn waits_grow_and_have_a_bound() {
        let waits: Vec<Duration> = waits().take(50).collect();
        assert!(waits[0] >= Duration::from_millis(100) && waits[0] <= Duration::from_millis(200));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(10)));
        assert!(waits[49] >= Duration::from_secs(5));
    }
}
