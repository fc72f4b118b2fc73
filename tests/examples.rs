//! Each example as its reader meets it: a process, the `export` lines that it prints, and the lines of its first comment,
//! pasted into a shell one after another.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code, helpers included"
)]

#[cfg(unix)]
#[path = "examples/real.rs"]
mod real;
#[path = "examples/running.rs"]
mod running;

use std::time::Duration;

use portcullis::testing::attack::{NetworkSuite, Profile, attack_url};
use running::{Guide, Running};
use tokio::time::timeout;

async fn tried(example: &str) {
    let guide = Guide::read(example);
    let mut running = Running::start(example).await;
    running.try_guide(&guide).await;
    running.process.kill().await.unwrap();
}

/// Nothing comes through, and it was tried.
async fn clean(example: &str, suite: NetworkSuite, attacks: &[&str]) {
    let report = timeout(Duration::from_secs(300), suite.run()).await.unwrap().unwrap();
    assert!(report.is_clean(), "{example}: {report}");
    for attack in ["credential-missing", "identity-header", "path-encoded", "method-unlisted"].iter().chain(attacks) {
        assert!(report.sent().any(|(sent, count)| sent == *attack && count > 0), "{example}: {attack}");
    }
}

/// Sends the attacks to an example: the routes that it serves to everybody, those that it guards, and the
/// variable of a key that opens all of them.
async fn attacked(example: &str, open: &[&str], guarded: &[&str], key: &str) {
    let mut running = Running::start(example).await;
    let (_, key) = running.exports.iter().find(|(name, _)| name == key).unwrap();
    let mut profile = Profile::new().api_key("x-api-key", key);
    for route in open {
        profile = profile.public(route).unwrap();
    }
    for route in guarded {
        profile = profile.route_for_keys(route).unwrap();
        if *route == "POST /admin/keys" {
            let key = r#"{"subject": "nightly", "plan": "gold"}"#;
            profile = profile.body(route, "application/json", key).unwrap();
        }
    }
    let suite = attack_url(&format!("http://{}", running.address), profile).unwrap();
    clean(example, suite, &["control", "key-altered", "credential-twice"]).await;
    running.process.kill().await.unwrap();
}

macro_rules! attacked {
    ($($name:ident: $example:literal, $open:expr, $guarded:expr, $key:literal;)*) => {$(
        #[tokio::test]
        #[ignore = "needs the built examples; tests/run has them"]
        async fn $name() {
            attacked($example, &$open, &$guarded, $key).await;
        }
    )*};
}

attacked! {
    api_key_plans_is_clean: "api_key_plans", [], ["GET /report", "GET /admin/keys", "POST /admin/keys"], "GOLD";
    cedar_is_clean: "cedar", [], ["GET /orders/1", "DELETE /orders/1"], "CLERK";
    multi_tenant_is_clean: "multi_tenant", [], ["GET /orders", "GET /orders/1", "DELETE /orders/1"], "MANAGER";
    plain_hyper_is_clean: "plain_hyper", ["GET /health"], ["GET /time"], "KEY";
}

macro_rules! tried {
    ($($example:ident)*) => {$(
        #[tokio::test]
        #[ignore = "needs curl and the built examples; tests/run has both"]
        async fn $example() {
            tried(stringify!($example)).await;
        }
    )*};
}

tried! { api_key_plans cedar custom_authenticator from_fn grpc multi_tenant plain_hyper rego webhook }
