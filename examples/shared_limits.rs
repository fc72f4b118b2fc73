//! Processes that share a quota, in Redis or Valkey: whichever of them a client asks, it gets as much as it should.
//!
//! Start a Redis, and this twice:
//!
//! ```sh
//! cargo run --example shared_limits --features rate-limit-redis
//! PORT=3001 cargo run --example shared_limits --features rate-limit-redis
//! ```
//!
//! `REDIS` has the address if it is not `redis://127.0.0.1`; another machine's is `rediss://`. Six requests an hour for each client, of both together:
//!
//! ```sh
//! curl -i localhost:3000/report  # 200
//! curl -i localhost:3001/report  # 200
//! curl -i localhost:3000/report  # 200
//! curl -i localhost:3001/report  # 200
//! curl -i localhost:3001/report  # 200
//! curl -i localhost:3000/report  # 200
//! curl -i localhost:3000/report  # 429
//! curl -i localhost:3001/report  # 429
//! curl -i localhost:3001/health  # 200
//! ```
//!
//! Then stop Redis: each of the two goes on with its half of the quota, three an hour, counted in its own memory, and is back at
//! the shared one by itself once Redis answers again.

use std::error::Error;

use axum::{Router, routing::get};
use portcullis::{
    RedisServer,
    guard::public,
    rate_limit::{LimitBy, Quota, RateLimitLayer, RedisLimits, WhenAway},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let redis = std::env::var("REDIS").unwrap_or_else(|_| "redis://127.0.0.1".into());
    let redis = RedisServer::at(&redis).prefix("shared_limits:"); // what shares the quota has the same one, and nothing else
    let shared = RedisLimits::builder(redis)
        .when_away(WhenAway::InProcess { percent: 50 }) // of two processes
        .build()?;
    let report = RateLimitLayer::per(LimitBy::source().and(LimitBy::route())?, Quota::per_hour(6).named("report"))?;

    let app = Router::new().route("/health", get(async || "well\n")).route("/report", get(async || "a report\n"));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .limit(report.with_scope("report")?.with_store(shared))
        .route("GET /health", public())
        .route("GET /report", public())
        .build()?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.protect(app)).await?)
}
