//! Opaque tokens and their introspection (RFC 7662): a provider of our own over real sockets, that answers well and badly. A
//! real provider is in `jwt_provider.rs`.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "test code, helpers included"
)]

#[path = "support/mod.rs"]
mod support;

#[path = "jwt/mint.rs"]
mod mint;

#[path = "introspection/abuse.rs"]
mod abuse;
#[path = "introspection/answers.rs"]
mod answers;
#[path = "introspection/away.rs"]
mod away;
#[path = "introspection/beside.rs"]
mod beside;
#[path = "introspection/bound.rs"]
mod bound;
#[path = "introspection/clients.rs"]
mod clients;
#[path = "introspection/provider.rs"]
mod provider;
#[path = "introspection/remembered.rs"]
mod remembered;
#[path = "introspection/shapes.rs"]
mod shapes;
