//! The task that keeps the connection.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use redis::{Script, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Shared, millis};
use crate::{
    clock::{Clock, SystemClock},
    error::StoreError,
    jwt::bound::dpop::MAX_AHEAD,
    log,
    redis::{Connection, failed, unavailable},
    retry,
};

/// How long a connection may take. Nobody waits for it that long.
const CONNECT: Duration = Duration::from_secs(1);
/// Proofs are dated in whole seconds.
const SECOND: Duration = Duration::from_secs(1);
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
}

impl Line {
    /// Whoever found that it does not answer says so, and another one is made.
    pub(super) fn give_up(&self, shared: &Shared) {
        shared.link.send_if_modified(|link| {
            let is_this = matches!(link, Link::Up(line) if line.number == self.number);
            if is_this {
                *link = Link::Connecting;
            }
            is_this
        });
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let (mut waits, mut said, mut number) = (retry::waits(), false, 0_u64);
    let mut link = shared.link.subscribe();
    loop {
        let error = match timeout(CONNECT, begin(&shared)).await {
            Ok(Ok((mut connection, whole_from))) => {
                if said {
                    log::warn("replay store: Redis answers again");
                }
                (waits, said, number) = (retry::waits(), false, number.wrapping_add(1));
                let commands = connection.commands.clone();
                shared.link.send_replace(Link::Up(Line { number, commands, whole_from }));
                until_over(&mut connection, &mut link).await;
                shared.link.send_replace(Link::Connecting);
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => unavailable("no connection in time"),
        };
        shared.link.send_replace(Link::Away);
        if !said {
            said = true;
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            log::error(&format!("replay store: no proof can be taken: {error}: {why}"));
        }
        sleep(waits.next().unwrap_or(CONNECT)).await;
    }
}

/// Waits until the connection is lost, or somebody has given it up.
async fn until_over(connection: &mut Connection, link: &mut watch::Receiver<Link>) {
    let mut lost = pin!(connection.lost());
    let mut given_up = pin!(link.wait_for(|link| !matches!(link, Link::Up(_))));
    poll_fn(|cx| match lost.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => given_up.as_mut().poll(cx).map(drop),
    })
    .await;
}

/// Connects, and sees whether it is the server that it was.
async fn begin(shared: &Shared) -> Result<(Connection, Instant), StoreError> {
    let mut connection = shared.target.connect().await.map_err(failed)?;
    let told: String = redis::cmd("INFO").arg("server").query_async(&mut connection.commands).await.map_err(failed)?;
    let run = told.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim);
    let run = run.filter(|run| !run.is_empty()).ok_or_else(|| unavailable("INFO does not tell its run_id"))?;
    let script = Script::new(BEGIN);
    let mut call = script.key(&shared.life);
    call.arg(run).arg(millis(SystemClock::new().now().unix_nanos()));
    let whole: i64 = call.invoke_async(&mut connection.commands).await.map_err(failed)?;
    let needed = i64::try_from((MAX_AHEAD + SECOND).as_millis()).unwrap_or(i64::MAX);
    let left = u64::try_from(needed.saturating_sub(whole)).unwrap_or(0);
    Ok((connection, Instant::now() + Duration::from_millis(left)))
}
