//! What a store in Redis did, and how it is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Whether Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisState {
    /// Nobody has asked it yet, or the first connection is being made. Decisions wait for it, no longer than the time-out.
    Connecting,
    /// It answers.
    Up,
    /// It does not. Nobody waits for it; it is tried again in the background.
    Away,
}

/// What a store in Redis did since it was made, for a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisCounts {
    /// Decisions that were sent to Redis.
    pub asked: u64,
    /// Calls that they took: decisions that wait together share one.
    pub calls: u64,
    /// Decisions from a [lease](super::Leases), and refusals that Redis had already told the time of.
    pub in_process: u64,
    /// Requests that the [leases](super::Leases) took ahead.
    pub leased: u64,
    /// Of those, the ones that were given back unused.
    pub returned: u64,
    /// Decisions without Redis, since it was away.
    pub degraded: u64,
    /// Time-outs, lost connections, and answers that it cannot decide now.
    pub failures: u64,
    /// Answers that make no sense: a key that holds something else, a refused command.
    pub corrupt: u64,
    /// Connections that were made.
    pub connections: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) asked: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) in_process: AtomicU64,
    pub(super) leased: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) degraded: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) connections: AtomicU64,
    state: AtomicU8,
}

impl Tally {
    pub(super) fn add(count: &AtomicU64, number: usize) {
        count.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn counts(&self) -> RedisCounts {
        RedisCounts {
            asked: self.asked.load(Relaxed),
            calls: self.calls.load(Relaxed),
            in_process: self.in_process.load(Relaxed),
            leased: self.leased.load(Relaxed),
            returned: self.returned.load(Relaxed),
            degraded: self.degraded.load(Relaxed),
            failures: self.failures.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }

    pub(super) fn state(&self) -> RedisState {
        match self.state.load(Relaxed) {
            0 => RedisState::Connecting,
            1 => RedisState::Up,
            _ => RedisState::Away,
        }
    }

    /// Gives the state before.
    pub(super) fn set(&self, state: RedisState) -> RedisState {
        let before = self.state();
        let number = match state {
            RedisState::Connecting => 0,
            RedisState::Up => 1,
            RedisState::Away => 2,
        };
        self.state.store(number, Relaxed);
        before
    }
}
