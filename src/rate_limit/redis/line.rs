//! The task that speaks with Redis: one call at a time, for all that wait.

use std::{sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use redis::{RedisError, RedisResult, Script, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    ask::{self, Answer, Ask, Failure, MOST, What},
    leases::Table,
    state::{RedisState, Tally},
};
use crate::{
    log,
    redis::{Connection, Target, is_away},
    retry::waits,
};

/// How long a connection may take. Nobody waits for it that long.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a command that is refused is spoken of.
const SELDOM: Duration = Duration::from_secs(60);
const SCRIPT: &str = include_str!("take.lua");

/// What the store and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) timeout: Duration,
    pub(super) in_cluster: bool,
    /// How much longer than its debt a key lives: none where the server's own clock counts.
    pub(super) outlives: Duration,
    pub(super) leases: Option<Table>,
    pub(super) tally: Tally,
}

#[derive(Debug)]
pub(super) enum Order {
    Take(Ask),
    GiveBack(oneshot::Sender<()>),
}

struct Line {
    shared: Arc<Shared>,
    script: Script,
    connection: Option<Connection>,
    waits: ExponentialBackoff,
    /// Not to be connected before.
    patient: Option<Instant>,
    next_sweep: Option<Instant>,
    complained: Option<Instant>,
}

pub(super) async fn run(shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut line = Line::new(shared);
    while line.turn(&mut orders).await {}
}

impl Line {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            next_sweep: shared.leases.as_ref().and_then(|table| Instant::now().checked_add(table.hold() / 2)),
            script: Script::new(SCRIPT),
            connection: None,
            waits: waits(),
            patient: None,
            complained: None,
            shared,
        }
    }

    /// Waits for orders, and does what was ordered by then. False once nobody is left who could order.
    async fn turn(&mut self, orders: &mut mpsc::Receiver<Order>) -> bool {
        let first = match self.wake() {
            Some(until) => tokio::time::timeout_at(until, orders.recv()).await,
            None => Ok(orders.recv().await),
        };
        let (mut asks, mut ending) = (Vec::new(), Vec::new());
        let mut order = match first {
            Ok(Some(order)) => Some(order),
            Ok(None) => {
                self.give_back().await;
                return false;
            }
            Err(_) => None,
        };
        while let Some(next) = order {
            match next {
                Order::Take(ask) if ask.is_wanted() => asks.push(ask),
                Order::Take(_) => {}
                Order::GiveBack(done) => ending.push(done),
            }
            order = if asks.len() < MOST { orders.try_recv().ok() } else { None };
        }
        self.serve(asks).await;
        if !ending.is_empty() {
            self.give_back().await;
            for done in ending {
                let _ = done.send(());
            }
        }
        true
    }

    /// When there is something to do that nobody asks for. While Redis is away no lease can be given back.
    fn wake(&self) -> Option<Instant> {
        if self.shared.tally.state() == RedisState::Away {
            return Some(self.patient.unwrap_or_else(|| Instant::now() + self.shared.timeout));
        }
        self.next_sweep
    }

    async fn serve(&mut self, mut asks: Vec<Ask>) {
        if self.shared.tally.state() == RedisState::Away {
            self.deliver(asks, |_| Err(Failure::Away));
            self.look_again().await;
            return;
        }
        asks.extend(self.unused());
        if asks.is_empty() {
            return;
        }
        if !self.is_connected() && !self.connect().await {
            self.deliver(asks, |_| Err(Failure::Away));
            return;
        }
        self.send(asks).await;
    }

    fn is_connected(&mut self) -> bool {
        self.connection.take_if(|connection| !connection.is_open());
        self.connection.is_some()
    }

    /// Leases that end.
    fn unused(&mut self) -> Vec<Ask> {
        let Some(table) = &self.shared.leases else { return Vec::new() };
        let now = Instant::now();
        if self.next_sweep.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.next_sweep = now.checked_add(table.hold() / 2);
        table.unused(now, false)
    }

    async fn give_back(&mut self) {
        let all = self.shared.leases.as_ref().map(|table| table.unused(Instant::now(), true)).unwrap_or_default();
        if !all.is_empty() && self.is_connected() {
            self.send(all).await;
        }
    }

    /// Tries whether it is back.
    async fn look_again(&mut self) {
        if self.patient.is_some_and(|until| Instant::now() < until) {
            return;
        }
        if !self.is_connected() {
            self.connect().await;
            return;
        }
        let answer = match &mut self.connection {
            Some(connection) => {
                timeout(self.shared.timeout, redis::cmd("PING").exec_async(&mut connection.commands)).await
            }
            None => return,
        };
        match answer {
            Ok(Ok(())) => self.is_up(),
            Ok(Err(error)) => self.is_away(&error.to_string()),
            Err(_) => self.is_away("no answer in time"),
        }
    }

    async fn connect(&mut self) -> bool {
        let connected = timeout(CONNECT, async {
            let mut connection = self.shared.target.connect().await?;
            // Who needs a password that it did not get learns it here.
            redis::cmd("PING").exec_async(&mut connection.commands).await?;
            Ok::<_, RedisError>(connection)
        });
        match connected.await {
            Ok(Ok(connection)) => {
                self.connection = Some(connection);
                Tally::add(&self.shared.tally.connections, 1);
                self.is_up();
                true
            }
            Ok(Err(error)) => {
                self.is_away(&error.to_string());
                false
            }
            Err(_) => {
                self.is_away("no connection in time");
                false
            }
        }
    }

    fn is_up(&mut self) {
        (self.patient, self.waits) = (None, waits());
        if self.shared.tally.set(RedisState::Up) == RedisState::Away {
            log::warn("rate limits: Redis answers again");
        }
    }

    fn is_away(&mut self, why: &str) {
        let tally = &self.shared.tally;
        Tally::add(&tally.failures, 1);
        self.connection = None;
        let wait = if self.patient.is_none() { Duration::ZERO } else { self.waits.next().unwrap_or(CONNECT) };
        self.patient = Instant::now().checked_add(wait);
        if tally.set(RedisState::Away) != RedisState::Away {
            log::error(&format!("rate limits: Redis does not answer: {why}"));
        }
    }

    async fn send(&mut self, asks: Vec<Ask>) {
        let Some(connection) = &mut self.connection else { return };
        let tally = &self.shared.tally;
        let taking = asks.iter().filter(|ask| ask.what != What::Give);
        Tally::add(&tally.asked, taking.clone().count());
        let given = asks.iter().filter(|ask| ask.what == What::Give).map(|ask| u64::from(ask.most)).sum::<u64>();
        Tally::add(&tally.returned, usize::try_from(given).unwrap_or(usize::MAX));
        let answers = timeout(self.shared.timeout, call(&self.shared, &self.script, connection, &asks)).await;
        match answers {
            Ok(Ok(answers)) => {
                self.is_up();
                self.complain(answers.complaint);
                let mut answers = answers.of_asks.into_iter();
                self.deliver(asks, |_| answers.next().unwrap_or(Err(Failure::Corrupt)));
            }
            Ok(Err(error)) => {
                self.is_away(&error.to_string());
                self.deliver(asks, |_| Err(Failure::Away));
            }
            Err(_) => {
                self.is_away("no answer in time");
                self.deliver(asks, |_| Err(Failure::Away));
            }
        }
    }

    /// A server that refuses what it is asked is set up wrongly, or its keys are somebody else's.
    fn complain(&mut self, complaint: Option<String>) {
        let now = Instant::now();
        if let Some(complaint) = complaint
            && self.complained.is_none_or(|last| now.saturating_duration_since(last) >= SELDOM)
        {
            self.complained = Some(now);
            log::error(&format!("rate limits: Redis answers nonsense: {complaint}"));
        }
    }

    fn deliver(&self, asks: Vec<Ask>, mut answer: impl FnMut(&Ask) -> Result<Answer, Failure>) {
        let now = Instant::now();
        for mut ask in asks {
            let answer = answer(&ask);
            if answer == Err(Failure::Corrupt) {
                Tally::add(&self.shared.tally.corrupt, 1);
            }
            if let Some(table) = &self.shared.leases {
                let kept = table.fill(&mut ask, answer, now);
                Tally::add(&self.shared.tally.leased, usize::try_from(kept).unwrap_or(usize::MAX));
            }
            if let Some(reply) = ask.reply {
                // Who no longer waits does not want to know.
                let _ = reply.send(answer);
            }
        }
    }
}

/// One for each draw, in their order.
struct Answers {
    of_asks: Vec<Result<Answer, Failure>>,
    complaint: Option<String>,
}

/// Asks all of it, by the script's hash first.
async fn call(
    shared: &Shared,
    script: &Script,
    connection: &mut Connection,
    asks: &[Ask],
) -> Result<Answers, RedisError> {
    let mut answers = Answers { of_asks: vec![Err(Failure::Corrupt); asks.len()], complaint: None };
    let mut calls = ask::calls(asks, shared.in_cluster);
    let outlives = u64::try_from(shared.outlives.as_millis()).unwrap_or(u64::MAX);
    for (command, text) in [("EVALSHA", script.get_hash()), ("EVAL", SCRIPT)] {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for call in &calls {
            pipeline.add_command(call.command(command, text, asks, outlives));
        }
        Tally::add(&shared.tally.calls, calls.len());
        let results: Vec<RedisResult<Value>> = pipeline.query_async(&mut connection.commands).await?;
        let mut again = Vec::new();
        for (call, result) in std::mem::take(&mut calls).into_iter().zip(results) {
            match result.map(|value| ask::answers(&value, call.asks.len())) {
                Ok(Some(told)) => {
                    for (index, told) in call.asks.iter().zip(told) {
                        if told == Err(Failure::Corrupt) {
                            let held = asks.get(*index).and_then(|ask| ask.counts.first());
                            answers.complaint = held.map(|count| format!("{:?} or its like is no count", count.name));
                        }
                        if let Some(answer) = answers.of_asks.get_mut(*index) {
                            *answer = told;
                        }
                    }
                }
                Ok(None) => answers.complaint = Some("an answer of another shape".into()),
                Err(error) if error.code() == Some("NOSCRIPT") => again.push(call),
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => answers.complaint = Some(error.to_string()),
            }
        }
        if again.is_empty() {
            break;
        }
        calls = again;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{Leases, RedisLimits};

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_a_few_turns_with_leases_and_without() {
        for leases in [None, Some(Leases::new())] {
            // Nobody listens there.
            let builder = RedisLimits::builder("redis+unix:///nowhere/redis.sock");
            let builder = match leases {
                Some(leases) => builder.leases(leases),
                None => builder,
            };
            let limits = builder.build().unwrap();
            let mut line = Line::new(Arc::clone(&limits.inner.shared));
            let (_sender, mut orders) = mpsc::channel(1);
            let (start, mut turns) = (Instant::now(), 0);
            line.shared.tally.set(RedisState::Away);
            while start.elapsed() < Duration::from_secs(60) {
                turns += 1;
                assert!(turns < 200, "{leases:?}: {turns} in {:?}", start.elapsed());
                assert!(line.turn(&mut orders).await);
            }
            assert!(turns > 5, "{leases:?}: {turns}: it is tried again");
        }
    }
}
