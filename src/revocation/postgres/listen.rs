//! The task that hears what others revoke.

use std::{error::Error, sync::Arc};

use sqlx::{PgPool, postgres::PgListener};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::work;
use crate::{
    error::StoreError,
    log, retry,
    revocation::{
        Revocation,
        rows::{self, Line, PAGE, Rows, Shared},
    },
    sql::{
        failed,
        postgres::{BACKEND, PATIENCE, listener},
        unavailable,
    },
};

const CHANNEL: &str = "portcullis_revocations";

pub(super) async fn run(shared: Arc<Shared>, pool: PgPool, loaded: watch::Sender<bool>) {
    let (mut waits, mut said) = (retry::waits(), false);
    loop {
        // As the pool connects by now: its owner may give it other credentials.
        let error = match listener(&pool.connect_options(), PATIENCE, CHANNEL).await {
            Ok(listener) => {
                let follow = follow(&shared, listener, || {
                    if said {
                        log::warn("revocations: PostgreSQL answers again, and all that it has is known");
                    }
                    (waits, said) = (retry::waits(), false);
                    loaded.send_replace(true);
                });
                follow.await
            }
            Err(error) => error,
        };
        loaded.send_replace(false);
        if !said {
            said = true;
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            log::error(&format!("revocations: what others revoke is not heard: {error}: {why}"));
        }
        sleep(waits.next().unwrap_or(PATIENCE)).await;
    }
}

/// Loads what there is, and what comes, until something fails.
async fn follow(shared: &Shared, mut listener: PgListener, loaded: impl FnOnce()) -> StoreError {
    let mut line = Line::new(shared);
    if let Err(error) = line.catch_up(&mut listener).await {
        return error;
    }
    loaded();
    let pause = shared.limits.trusted_for() / 5;
    let mut due = Instant::now() + pause;
    loop {
        match timeout_at(due, listener.try_recv()).await {
            // A hint, whatever it says: a channel belongs to the database, and whoever may connect to that may tell in it. One
            // question answers all that have arrived.
            Ok(Ok(Some(_))) => while listener.next_buffered().is_some() {},
            Ok(Ok(None)) => return unavailable(BACKEND, "the listening connection closed"),
            Ok(Err(error)) => return failed(BACKEND, error),
            Err(_) => {}
        }
        due = Instant::now() + pause;
        if let Err(error) = line.catch_up(&mut listener).await {
            return error;
        }
    }
}

/// On the listening connection: as long as it answers, it also tells.
impl Rows for PgListener {
    const BACKEND: &'static str = BACKEND;

    async fn page(&mut self, from: i64) -> Result<Vec<(i64, Revocation)>, StoreError> {
        let read = sqlx::query(work::READ).bind(from).bind(i64::from(PAGE)).fetch_all(self);
        read.await.map_err(|error| failed(BACKEND, error))?.iter().map(|row| rows::read(row, BACKEND)).collect()
    }
}
