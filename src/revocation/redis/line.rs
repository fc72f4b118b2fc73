//! The task that hears what others revoke.

use std::{mem, sync::Arc, time::Duration};

use redis::{PushInfo, PushKind, Script, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{Shared, new_life};
use crate::{
    error::{StoreError, StoreErrorKind},
    log,
    redis::{BACKEND, Connection, failed, unavailable},
    retry,
    revocation::{Revocation, entry::Entry, state::MARGIN},
};

/// The first line makes it a script that writes: a replica, which may be behind, refuses it.
const READ: &str = concat!("#!lua flags=allow-oom\n", include_str!("forget.lua"), include_str!("read.lua"));
/// How many are read at once.
const PAGE: usize = 1_000;
/// After a push for nothing, the next one waits so long: whoever may publish does not say how often everybody asks.
const REST: Duration = Duration::from_millis(10);

/// The life of the data and the highest number of it, kept from one connection to the next, to tell when some of it is lost.
#[derive(Default)]
struct Seen {
    life: String,
    highest: u64,
}

/// What is known: everything up to a number.
struct Line<'a> {
    shared: &'a Shared,
    connection: MultiplexedConnection,
    script: Script,
    seen: &'a mut Seen,
    number: u64,
}

pub(super) async fn run(shared: Arc<Shared>, commands: watch::Sender<Option<MultiplexedConnection>>) {
    let (mut waits, mut said, mut seen) = (retry::waits(), false, Seen::default());
    loop {
        let error = match timeout(shared.timeout, connect(&shared)).await {
            Ok(Ok((connection, pushes))) => {
                let follow = follow(&shared, &connection, &mut seen, pushes, &commands, || {
                    if said {
                        log::warn("revocations: Redis answers again, and all that it has is known");
                    }
                    (waits, said) = (retry::waits(), false);
                });
                follow.await
            }
            Ok(Err(error)) => error,
            Err(_) => unavailable("no connection in time"),
        };
        commands.send_replace(None);
        if !said {
            said = true;
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            log::error(&format!("revocations: what others revoke is not heard: {error}: {why}"));
        }
        sleep(waits.next().unwrap_or(Duration::from_secs(1))).await;
    }
}

async fn connect(shared: &Shared) -> Result<(Connection, mpsc::Receiver<()>), StoreError> {
    // One that waits stands for all: the question that it leads to comes after them.
    let (sender, receiver) = mpsc::channel(1);
    let heard = move |push: PushInfo| {
        // A connection that is closed answers no question.
        if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
            let _ = sender.try_send(());
        }
    };
    let mut connection = shared.target.connect_to_listen(heard).await.map_err(failed)?;
    connection.commands.subscribe(&shared.channel).await.map_err(failed)?;
    Ok((connection, receiver))
}

/// Loads what there is, and what comes, until something fails.
async fn follow(
    shared: &Shared,
    connection: &Connection,
    seen: &mut Seen,
    mut pushes: mpsc::Receiver<()>,
    commands: &watch::Sender<Option<MultiplexedConnection>>,
    loaded: impl FnOnce(),
) -> StoreError {
    let mut line = Line { shared, connection: connection.commands.clone(), script: Script::new(READ), seen, number: 0 };
    if let Err(error) = line.catch_up().await {
        return error;
    }
    loaded();
    commands.send_replace(Some(connection.commands.clone()));
    let pause = shared.limits.trusted_for() / 5;
    let (mut due, mut rested) = (Instant::now() + pause, Instant::now());
    loop {
        match timeout_at(due, pushes.recv()).await {
            // A hint, whatever it says: a channel may be anybody's, where the keys are not.
            Ok(Some(())) => {
                sleep_until(rested).await;
                let _ = pushes.try_recv();
            }
            Ok(None) => return unavailable("the connection is closed"),
            Err(_) => {}
        }
        due = Instant::now() + pause;
        match line.catch_up().await {
            Ok(true) => {}
            Ok(false) => rested = Instant::now() + REST,
            Err(error) => return error,
        }
    }
}

impl Line<'_> {
    /// Reads what is new, and says so. No if there is nothing.
    async fn catch_up(&mut self) -> Result<bool, StoreError> {
        let mut any = false;
        loop {
            let before = self.shared.clock.now();
            let answer = timeout(self.shared.timeout, self.ask()).await;
            let answer = answer.map_err(|_| unavailable("no answer in time"))??;
            let [life, number, entries @ ..] = &*answer else { return Err(nonsense("an answer of another shape")) };
            let Ok(last) = number.parse::<u64>() else {
                self.distrust();
                return Err(nonsense("some of its keys are missing"));
            };
            if *life != self.seen.life {
                if !self.seen.life.is_empty() {
                    log::error(
                        "revocations: Redis has lost its data: processes that start now do not know what was revoked",
                    );
                }
                self.seen.life.clone_from(life);
                self.seen.highest = last;
                if mem::take(&mut self.number) > 0 {
                    continue;
                }
            }
            self.seen.highest = self.seen.highest.max(last);
            let (pairs, _) = entries.as_chunks::<2>();
            any |= !pairs.is_empty();
            self.add(&pairs.iter().map(|[_, entry]| entry.as_str()).collect::<Vec<_>>())?;
            if pairs.len() < PAGE {
                self.number = last;
                self.shared.state.confirm(before);
                return Ok(any);
            }
            let read = pairs.last().and_then(|[number, _]| number.parse().ok());
            self.number = read.ok_or_else(|| nonsense("an answer of another shape"))?;
        }
    }

    async fn ask(&mut self) -> Result<Vec<String>, StoreError> {
        let mut call = self.script.prepare_invoke();
        for key in &self.shared.keys {
            call.key(key);
        }
        call.arg(MARGIN).arg(self.number).arg(PAGE).arg(self.shared.clock.now().unix_seconds());
        call.arg(&self.seen.life).arg(self.seen.highest).arg(new_life()?);
        call.invoke_async(&mut self.connection).await.map_err(failed)
    }

    /// What cannot be taken in is missing: nothing is trusted until it can.
    fn add(&self, entries: &[&str]) -> Result<(), StoreError> {
        let revocations: Option<Vec<Revocation>> = entries.iter().map(|entry| Entry::read_text(entry)).collect();
        let added = match revocations {
            Some(revocations) if revocations.is_empty() => Ok(()),
            Some(revocations) => self.shared.state.add(&revocations, self.shared.clock.now()),
            None => Err(nonsense("an entry that this release cannot read")),
        };
        added.inspect_err(|_| self.distrust())
    }

    fn distrust(&self) {
        self.shared.state.distrust(self.shared.clock.now());
    }
}

fn nonsense(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, BACKEND).caused_by(why)
}
