//! Servers of either kind that processes share revocations in, and tokens to look at through them.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "postgres.rs"]
pub mod postgres;
#[path = "proxy.rs"]
pub mod proxy;
#[path = "redis.rs"]
pub mod redis;
#[path = "revocable.rs"]
mod revocable;

use std::sync::Arc;

use portcullis::{
    Clock, SystemClock,
    revocation::{PostgresRevocations, RedisRevocations, RevocationLimits, RevocationStore},
};
pub use revocable::{authenticator, impatient, mint, minted, now, patient, revoke, status, until};

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Redis,
    Postgres,
}

pub const BOTH: [Kind; 2] = [Kind::Redis, Kind::Postgres];

/// A server of either kind, which keeps what it was told when it is started again.
pub enum Server {
    Redis(redis::Server),
    Postgres(postgres::Server),
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Redis => Self::Redis(redis::Server::start_with(&["--appendonly", "yes"])),
            Kind::Postgres => Self::Postgres(postgres::Server::start()),
        }
    }

    pub fn address(&self) -> String {
        match self {
            Self::Redis(server) => server.address(),
            Self::Postgres(server) => server.address(),
        }
    }

    pub fn port(&self) -> u16 {
        let address = self.address();
        let port = address.rsplit(':').next().unwrap().split('/').next().unwrap();
        port.parse().unwrap()
    }

    pub fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.stop(),
        }
    }

    pub fn restart(&mut self) {
        match self {
            Self::Redis(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }

    pub fn freeze(&mut self) {
        match self {
            Self::Redis(server) => server.freeze(),
            Self::Postgres(server) => server.freeze(),
        }
    }

    pub fn thaw(&mut self) {
        match self {
            Self::Redis(server) => server.thaw(),
            Self::Postgres(server) => server.thaw(),
        }
    }
}

pub async fn open(address: &str, limits: RevocationLimits) -> Arc<dyn RevocationStore> {
    let store = start(address, limits).await;
    until("everything is loaded", || store.state().is_fresh(SystemClock::new().now())).await;
    store
}

/// By another clock than the system's.
pub async fn open_by(
    address: &str,
    limits: RevocationLimits,
    clock: &portcullis::testing::TestClock,
) -> Arc<dyn RevocationStore> {
    let store: Arc<dyn RevocationStore> = if address.starts_with("redis") {
        Arc::new(RedisRevocations::builder(address).limits(limits).clock(clock.clone()).build().unwrap())
    } else {
        Arc::new(PostgresRevocations::builder(address).limits(limits).clock(clock.clone()).connect().await.unwrap())
    };
    until("everything is loaded", || store.state().is_fresh(clock.now())).await;
    store
}

/// It may not have loaded anything yet.
pub async fn start(address: &str, limits: RevocationLimits) -> Arc<dyn RevocationStore> {
    if address.starts_with("redis") {
        Arc::new(RedisRevocations::builder(address).limits(limits).build().unwrap())
    } else {
        Arc::new(PostgresRevocations::builder(address).limits(limits).connect().await.unwrap())
    }
}
