//! Decision points on the network: OPA's data API and AuthZEN, over real sockets; servers that answer badly; Cerbos, which is
//! installed by `tests/run`.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "test code, helpers included"
)]

#[path = "support/mod.rs"]
mod support;

#[path = "policy_remote/authzen.rs"]
mod authzen;
#[path = "policy_remote/cerbos.rs"]
mod cerbos;
#[path = "policy_remote/hostile.rs"]
mod hostile;
#[path = "policy_remote/opa.rs"]
mod opa;
#[path = "policy_remote/server.rs"]
mod server;
