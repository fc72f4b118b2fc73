//! The task that hears what others revoke.

use std::{error::Error, sync::Arc};

use sqlx::postgres::{PgConnectOptions, PgListener};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Shared,
    work::{self, PAGE, Told},
};
use crate::{
    error::StoreError,
    log, retry,
    revocation::Revocation,
    sql::{
        failed,
        postgres::{BACKEND, HELLO, PATIENCE, listener},
        unavailable,
    },
};

const CHANNEL: &str = "portcullis_revocations";

pub(super) async fn run(shared: Arc<Shared>, server: Arc<PgConnectOptions>, loaded: watch::Sender<bool>) {
    let (mut waits, mut said) = (retry::waits(), false);
    loop {
        let error = match listener(&server, PATIENCE, CHANNEL).await {
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

/// Everything up to a number is known.
struct Line<'a> {
    shared: &'a Shared,
    listener: PgListener,
    number: i64,
}

/// Loads what there is, and what comes, until something fails.
async fn follow(shared: &Shared, listener: PgListener, loaded: impl FnOnce()) -> StoreError {
    let mut line = Line { shared, listener, number: 0 };
    if let Err(error) = line.catch_up().await {
        return error;
    }
    loaded();
    let pause = shared.limits.trusted_for() / 5;
    let mut due = Instant::now() + pause;
    loop {
        let done = match timeout_at(due, line.listener.try_recv()).await {
            Ok(Ok(Some(told))) if told.payload() == HELLO => Ok(()),
            Ok(Ok(Some(told))) => match line.take(told.payload()) {
                Ok(true) => Ok(()),
                Ok(false) => line.catch_up().await,
                Err(error) => Err(error),
            },
            Ok(Ok(None)) => Err(unavailable(BACKEND, "the listening connection closed")),
            Ok(Err(error)) => Err(failed(BACKEND, error)),
            Err(_) => Ok(()),
        };
        // Also where pushes come without a pause: they say nothing of those that were lost.
        let asked = match done {
            Ok(()) if Instant::now() >= due => {
                due = Instant::now() + pause;
                line.catch_up().await
            }
            done => done,
        };
        if let Err(error) = asked {
            return error;
        }
    }
}

impl Line<'_> {
    /// Takes what was told. No if it does not say it, or if something before it may be missing: numbers have gaps where a
    /// transaction was rolled back.
    fn take(&mut self, payload: &str) -> Result<bool, StoreError> {
        let Ok(told) = serde_json::from_str::<Told>(payload) else { return Ok(false) };
        let revocation = told.revocation().ok_or_else(work::unreadable);
        self.add(&[revocation.inspect_err(|_| self.shared.state.distrust())?])?;
        // Known, or numbered anew because a backup was put back: adding what is there changes nothing.
        if told.0 <= self.number {
            return Ok(true);
        }
        // One that is ahead counts at once; what is between is read.
        let follows = told.0 == self.number.saturating_add(1);
        if follows {
            self.number = told.0;
        }
        Ok(follows)
    }

    /// Reads what is new, and says so. On the listening connection: as long as it answers, it also tells.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let before = self.shared.clock.now();
            let read = sqlx::query(work::READ).bind(self.number).bind(i64::from(PAGE)).fetch_all(&mut self.listener);
            let rows = timeout(self.shared.timeout, read).await;
            let rows = rows.map_err(|_| unavailable(BACKEND, "no answer in time"))?;
            let rows = rows.map_err(|error| failed(BACKEND, error))?;
            let read: Result<Vec<_>, _> = rows.iter().map(work::read).collect();
            let read = read.inspect_err(|_| self.shared.state.distrust())?;
            let (numbers, revocations): (Vec<i64>, Vec<Revocation>) = read.into_iter().unzip();
            self.add(&revocations)?;
            self.number = numbers.last().copied().unwrap_or(self.number);
            if usize::try_from(PAGE).is_ok_and(|page| revocations.len() < page) {
                self.shared.state.confirm(before);
                return Ok(());
            }
        }
    }

    /// What cannot be taken in is missing: nothing is trusted until it can.
    fn add(&self, revocations: &[Revocation]) -> Result<(), StoreError> {
        if revocations.is_empty() {
            return Ok(());
        }
        let state = &self.shared.state;
        state.add(revocations, self.shared.clock.now()).inspect_err(|_| state.distrust())
    }
}
