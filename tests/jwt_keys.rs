//! Key sources and their life cycle: refresh, rotation, outage, floods of unknown kids. Time is tokio's paused clock, the
//! origin a script; `jwt_keys/servers.rs` has the same over sockets.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "helpers of tests are shared and panic as tests do"
)]

#[path = "jwt_keys/answers.rs"]
mod answers;
#[path = "jwt_keys/conformance.rs"]
mod conformance;
#[path = "jwt_keys/discovery.rs"]
mod discovery;
#[path = "jwt_keys/fit.rs"]
mod fit;
#[path = "jwt_keys/life.rs"]
mod life;
#[path = "jwt_keys/origin.rs"]
mod origin;
#[path = "jwt_keys/servers.rs"]
mod servers;
#[path = "jwt_keys/unknown.rs"]
mod unknown;
