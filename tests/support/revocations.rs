//! Servers of either kind that processes share revocations in, and tokens to look at through them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "../jwt/mint.rs"]
pub mod mint;
#[path = "postgres.rs"]
pub mod postgres;
#[path = "proxy.rs"]
pub mod proxy;
#[path = "redis.rs"]
pub mod redis;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mint::{AUDIENCE, HEADER, ISSUER, key, token};
use portcullis::{
    Clock, SystemClock,
    jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet},
    revocation::{PostgresRevocations, RedisRevocations, Revocation, RevocationLimits, RevocationStore},
};

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

/// A busy machine is no reason to distrust, where a test is not about that.
pub fn patient() -> RevocationLimits {
    RevocationLimits::new().max_age(Duration::from_secs(30))
}

pub fn impatient() -> RevocationLimits {
    RevocationLimits::new().max_age(Duration::from_secs(1))
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

/// Waits until it is so. Whoever waits in vain fails after a minute.
#[expect(clippy::disallowed_methods, reason = "how long a test waits for real servers")]
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn now() -> portcullis::Instants {
    SystemClock::new().now()
}

pub fn authenticator(store: &Arc<dyn RevocationStore>) -> JwtAuthenticator {
    let keys = KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer).revocations(Arc::clone(store)).build().unwrap()
}

pub fn minted(jti: &str) -> String {
    let (issued, ends) = (now().unix_seconds() - 5, now().unix_seconds() + 3_600);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"sub-{jti}","aud":"{AUDIENCE}","exp":{ends},"iat":{issued},"client_id":"client-{jti}","jti":"{jti}","sid":"sid-{jti}"}}"#
    );
    token(Algorithm::ES256, HEADER, &claims)
}

pub fn status(jwt: &JwtAuthenticator, token: &str) -> u16 {
    jwt.verify(token, now()).map_or_else(|rejection| rejection.status().as_u16(), |_| 200)
}

pub async fn revoke(store: &dyn RevocationStore, jti: &str) {
    store.revoke(&Revocation::token(ISSUER, jti).unwrap(), now()).await.unwrap();
}
