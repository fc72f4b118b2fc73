//! The connection to Redis, and whether Redis is there.

use std::{sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use redis::{RedisError, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::{
    line::Shared,
    state::{RedisState, Tally},
};
use crate::{log, redis::Connection, retry::waits};

/// How long a connection may take. Nobody waits for it that long.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a command that is refused is spoken of.
const SELDOM: Duration = Duration::from_secs(60);

/// Which connection a call went over: the first is 1.
pub(super) type Number = u64;

pub(super) struct Link {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// That of the last one.
    number: Number,
    waits: ExponentialBackoff,
    /// Not to be connected before.
    patient: Option<Instant>,
    complained: Option<Instant>,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, connection: None, number: 0, waits: waits(), patient: None, complained: None }
    }

    /// Before when it makes no sense to look again. None while Redis is there, or nobody knows.
    pub(super) const fn patient(&self) -> Option<Instant> {
        self.patient
    }

    pub(super) fn is_connected(&mut self) -> bool {
        self.connection.take_if(|connection| !connection.is_open());
        self.connection.is_some()
    }

    /// Where a call can be sent, and over which connection that is.
    pub(super) fn commands(&self) -> Option<(Number, MultiplexedConnection)> {
        self.connection.as_ref().map(|connection| (self.number, connection.commands.clone()))
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, number: Number) {
        if self.is_the_last(number) {
            self.is_up();
        }
    }

    /// A call was not answered.
    pub(super) fn failed(&mut self, number: Number, why: &str) {
        if self.is_the_last(number) {
            self.is_away(why);
        }
    }

    /// What became of another call may have ended the connection already.
    const fn is_the_last(&self, number: Number) -> bool {
        self.connection.is_some() && number == self.number
    }

    /// Tries whether it is back.
    pub(super) async fn look_again(&mut self) {
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

    pub(super) async fn connect(&mut self) -> bool {
        let connected = timeout(CONNECT, async {
            let mut connection = self.shared.target.connect().await?;
            // Who needs a password that it did not get learns it here.
            redis::cmd("PING").exec_async(&mut connection.commands).await?;
            Ok::<_, RedisError>(connection)
        });
        match connected.await {
            Ok(Ok(connection)) => {
                self.connection = Some(connection);
                self.number = self.number.saturating_add(1);
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

    /// A server that refuses what it is asked is set up wrongly, or its keys are somebody else's.
    pub(super) fn complain(&mut self, complaint: Option<String>) {
        let now = Instant::now();
        if let Some(complaint) = complaint
            && self.complained.is_none_or(|last| now.saturating_duration_since(last) >= SELDOM)
        {
            self.complained = Some(now);
            log::error(&format!("rate limits: Redis answers nonsense: {complaint}"));
        }
    }
}
