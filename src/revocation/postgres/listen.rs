//! The task that hears what others revoke.

use std::{error::Error, sync::Arc};

use sqlx::{PgPool, postgres::PgListener};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Shared,
    work::{self, PAGE},
};
use crate::{
    error::StoreError,
    log, retry,
    revocation::Revocation,
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

/// Everything up to a row is known.
struct Line<'a> {
    shared: &'a Shared,
    listener: PgListener,
    known: Option<(i64, Revocation)>,
}

/// Loads what there is, and what comes, until something fails.
async fn follow(shared: &Shared, listener: PgListener, loaded: impl FnOnce()) -> StoreError {
    let mut line = Line { shared, listener, known: None };
    if let Err(error) = line.catch_up().await {
        return error;
    }
    loaded();
    let pause = shared.limits.trusted_for() / 5;
    let mut due = Instant::now() + pause;
    loop {
        match timeout_at(due, line.listener.try_recv()).await {
            // A hint, whatever it says: a channel belongs to the database, and whoever may connect to that may tell in it. One
            // question answers all that have arrived.
            Ok(Ok(Some(_))) => while line.listener.next_buffered().is_some() {},
            Ok(Ok(None)) => return unavailable(BACKEND, "the listening connection closed"),
            Ok(Err(error)) => return failed(BACKEND, error),
            Err(_) => {}
        }
        due = Instant::now() + pause;
        if let Err(error) = line.catch_up().await {
            return error;
        }
    }
}

impl Line<'_> {
    /// Reads what is new, and says so. On the listening connection: as long as it answers, it also tells.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let before = self.shared.clock.now();
            let from = self.known.as_ref().map_or(0, |(number, _)| *number);
            let read = sqlx::query(work::READ).bind(from).bind(i64::from(PAGE)).fetch_all(&mut self.listener);
            let rows = timeout(self.shared.timeout, read).await;
            let rows = rows.map_err(|_| unavailable(BACKEND, "no answer in time"))?;
            let rows = rows.map_err(|error| failed(BACKEND, error))?;
            let read: Result<Vec<_>, _> = rows.iter().map(work::read).collect();
            let read = read.inspect_err(|_| self.distrust())?;
            let new = match (&self.known, &*read) {
                (Some(known), [first, new @ ..]) if first == known => new,
                // It is gone, and something came after it.
                (Some((number, _)), [(first, _), ..]) if first > number => &*read,
                // Numbers are given anew, where a backup was put back; or the last row is gone.
                (Some(_), _) => {
                    self.known = None;
                    continue;
                }
                (None, _) => &*read,
            };
            self.add(new.iter().map(|(_, revocation)| revocation))?;
            if let Some(last) = new.last() {
                self.known = Some(last.clone());
            }
            if usize::try_from(PAGE).is_ok_and(|page| read.len() < page) {
                self.shared.state.confirm(before);
                return Ok(());
            }
        }
    }

    /// What cannot be taken in is missing: nothing is trusted until it can.
    fn add<'r>(&self, revocations: impl ExactSizeIterator<Item = &'r Revocation>) -> Result<(), StoreError> {
        if revocations.len() == 0 {
            return Ok(()); // what was looked up before stays looked up
        }
        self.shared.state.add(revocations, self.shared.clock.now()).inspect_err(|_| self.distrust())
    }

    fn distrust(&self) {
        self.shared.state.distrust(self.shared.clock.now());
    }
}
