//! The task that keeps the connection.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use redis::{Script, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{SKEW, Shared, in_millis, millis, until_whole};
use crate::{
    clock::{Clock, SystemClock},
    error::{StoreError, StoreErrorKind},
    log,
    redis::{BACKEND, Connection, failed, unavailable},
    retry,
};

/// How long a connection may take. Nobody waits for it that long.
const CONNECT: Duration = Duration::from_secs(1);
const BEGIN: &str = include_str!("begin.lua");

/// The way to Redis.
#[derive(Clone)]
pub(super) enum Link {
    /// It is being made, and requests wait for it.
    Connecting,
    Up(Line),
    /// Redis does not answer, and nobody waits for it.
    Away,
}

#[derive(Clone)]
pub(super) struct Line {
    /// One more for each connection.
    number: u64,
    pub(super) commands: MultiplexedConnection,
    /// From when on a proof that is made then is told from what was forgotten.
    pub(super) whole_from: Instant,
    /// Whether a request has had an answer in time. To connect is no proof of that: it waits longer.
    answered: Arc<AtomicBool>,
}

impl Line {
    /// Whoever found that it does not answer says so, and how it is with Redis until another one is made.
    pub(super) fn give_up(&self, shared: &Shared, until_then: Link) {
        shared.link.send_if_modified(|link| {
            let is_this = self.is_still(link);
            if is_this {
                *link = until_then;
            }
            is_this
        });
    }

    /// Whoever got an answer says so.
    pub(super) fn has_answered(&self, shared: &Shared) {
        if !self.answered.load(Relaxed) && !self.answered.swap(true, Relaxed) {
            // The task looks at it.
            shared.link.send_if_modified(|link| self.is_still(link));
        }
    }

    /// Whoever was told that Redis has forgotten something says so: it is only then that it remembers everything again.
    pub(super) fn is_whole_in(&self, left: Duration, shared: &Shared) {
        let from = Instant::now() + left;
        shared.link.send_if_modified(|link| match link {
            Link::Up(line) if line.number == self.number && line.whole_from < from => {
                line.whole_from = from;
                true
            }
            Link::Up(_) | Link::Connecting | Link::Away => false,
        });
    }

    fn is_still(&self, link: &Link) -> bool {
        matches!(link, Link::Up(line) if line.number == self.number)
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let (mut waits, mut said, mut number) = (retry::waits(), false, 0_u64);
    let mut link = shared.link.subscribe();
    loop {
        let (error, at_once) = match timeout(CONNECT, begin(&shared)).await {
            Ok(Ok((mut connection, whole_from))) => {
                let (start, answered) = (Instant::now(), Arc::<AtomicBool>::default());
                number = number.wrapping_add(1);
                let commands = connection.commands.clone();
                let line = Line { number, commands, whole_from, answered: Arc::clone(&answered) };
                shared.link.send_replace(Link::Up(line));
                until_over(&mut connection, &mut link, || answered.load(Relaxed)).await;
                let has_answered = answered.load(Relaxed);
                if has_answered {
                    if said {
                        log::warn("replay store: Redis answers again");
                    }
                    (waits, said) = (retry::waits(), false);
                    until_over(&mut connection, &mut link, || false).await;
                }
                let is_slow = matches!(&*link.borrow(), Link::Away);
                let at_once = has_answered || (!is_slow && start.elapsed() > CONNECT);
                if at_once && !is_slow {
                    shared.link.send_replace(Link::Connecting);
                    continue;
                }
                (unavailable(if is_slow { "no answer in time" } else { "the connection does not hold" }), at_once)
            }
            Ok(Err(error)) => (error, false),
            Err(_) => (unavailable("no connection in time"), false),
        };
        shared.link.send_replace(Link::Away);
        if !said {
            said = true;
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            log::error(&format!("replay store: no proof can be taken: {error}: {why}"));
        }
        if !at_once {
            sleep(waits.next().unwrap_or(CONNECT)).await;
        }
    }
}

/// Waits until the connection is lost, or somebody has given it up, or until this is so, which is looked at when the link is sent.
async fn until_over(connection: &mut Connection, link: &mut watch::Receiver<Link>, or: impl Fn() -> bool) {
    let mut lost = pin!(connection.lost());
    let mut given_up = pin!(link.wait_for(|link| !matches!(link, Link::Up(_)) || or()));
    poll_fn(|cx| match lost.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => given_up.as_mut().poll(cx).map(drop),
    })
    .await;
}

/// Connects, and sees whether it is the server that it was. It answers as soon as a request needs it, or it is away: who connects
/// waits longer.
async fn begin(shared: &Shared) -> Result<(Connection, Instant), StoreError> {
    let mut connection = shared.target.connect().await.map_err(failed)?;
    let mut info = redis::cmd("INFO");
    let told = timeout(shared.timeout, info.arg("server").query_async(&mut connection.commands)).await;
    let told: String = told.map_err(|_| unavailable("no answer in time"))?.map_err(failed)?;
    let run = told.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim);
    let run = run.filter(|run| !run.is_empty()).ok_or_else(|| unavailable("INFO does not tell its run_id"))?;
    let script = Script::new(BEGIN);
    let mut call = script.key(&shared.life);
    call.arg(run).arg(millis(SystemClock::new().now().unix_nanos())).arg(in_millis(SKEW));
    let remembered: Option<i64> = call.invoke_async(&mut connection.commands).await.map_err(failed)?;
    let remembered = remembered
        .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, BACKEND).caused_by("its clock is behind ours"))?;
    Ok((connection, Instant::now() + until_whole(remembered)))
}
