//! What a look at the sources finds, and what probes are told of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::Router;
use http::StatusCode;
use portcullis::{
    Clock, Instants, Secret, StoreError,
    api_key::FileKeyStore,
    audit::{AuditEntry, AuditSink, Lost},
    health::{Condition, Health, LIVE_PATH, READY_PATH, Report, SourceHealth, probes, report_router},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, Key, KeySet,
        keys::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh},
    },
    policy::Rbac,
    rate_limit::{Charge, Draw, KeyPart, LimitKey, Quota, RateLimitStore, RedisLimits, WhenAway},
};
use support::{Still, get, text};
use tower::ServiceExt;

const POLICY: &str = "version = \"1\"\npermissions = [\"orders:read\"]\n[roles.clerk]\ngrants = [\"orders:read\"]\n";

fn look(health: &Health) -> Report {
    health.look(Still.now())
}

/// Each source's name, condition, and whether there is a cause.
fn found(report: &Report) -> Vec<(&str, Condition, bool)> {
    report.sources().map(|(name, health)| (name, health.condition(), health.cause().is_some())).collect()
}

/// Takes nothing.
#[derive(Debug)]
struct Losing(AtomicU64);

#[async_trait]
impl AuditSink for Losing {
    fn accept(&self, _: AuditEntry) -> Result<(), Lost> {
        Err(Lost::new())
    }

    fn lost(&self) -> u64 {
        self.0.load(SeqCst)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn lost_records_are_told_for_a_minute() {
    let sink = Arc::new(Losing(AtomicU64::new(7)));
    let health = Health::new().watch_audit(Arc::clone(&sink));
    let at = |seconds: u64| health.look(Instants::new(0, seconds * 1_000_000_000));
    assert_eq!(at(0).condition(), Condition::Ready, "what was lost before is known");
    sink.0.fetch_add(1, SeqCst);
    assert_eq!((at(10).condition(), at(69).condition()), (Condition::Stale, Condition::Stale));
    assert_eq!(at(70).condition(), Condition::Ready);
    sink.0.fetch_add(1, SeqCst);
    assert_eq!(found(&at(100)), [("audit", Condition::Stale, true)]);
    assert!(at(101).is_ready());
    let report = at(102);
    let (_, health) = report.sources().next().unwrap();
    assert_eq!(health.cause(), Some("entries are lost: 9 since the sink was made"));
}

#[test]
fn the_worst_counts_and_stale_is_ready() {
    let ready = |_| SourceHealth::ready();
    let stale = |_| SourceHealth::stale("old");
    let failing = |_| SourceHealth::failing("gone");
    for (name, health, condition, is_ready) in [
        ("nothing", Health::new(), Condition::Ready, true),
        ("ready", Health::new().watch("a", ready), Condition::Ready, true),
        ("one stale", Health::new().watch("a", ready).watch("b", stale), Condition::Stale, true),
        ("one failing", Health::new().watch("a", failing).watch("b", stale), Condition::Failing, false),
    ] {
        let report = look(&health);
        assert_eq!((report.condition(), report.is_ready()), (condition, is_ready), "{name}");
    }
    assert_eq!(
        look(&Health::new().watch("b", ready).watch("a", stale)).sources().map(|(name, _)| name).collect::<Vec<_>>(),
        ["b", "a"]
    );
    assert_eq!(
        [Condition::Ready, Condition::Stale, Condition::Failing].map(Condition::as_str),
        ["ready", "stale", "failing"]
    );
}

/// Keys that a test gives and takes away.
#[derive(Clone, Debug)]
struct Pushed(Arc<std::sync::Mutex<KeyHealth>>);

#[async_trait]
impl KeySource for Pushed {
    fn snapshot(&self, at: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        let health = self.health(at);
        if !health.is_ready() {
            return Err(KeysUnavailable::new("none", Duration::from_secs(1)));
        }
        let key = Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32])).unwrap();
        Ok(KeySnapshot::new(KeySet::new([key]).unwrap(), 1))
    }

    async fn refresh_for(&self, _: Option<&str>, _: u64, _: Instants) -> Refresh {
        Refresh::NothingNew
    }

    fn health(&self, _: Instants) -> KeyHealth {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn issuers_are_told_apart() {
    let pushed = Pushed(Arc::new(std::sync::Mutex::new(KeyHealth::ready(1))));
    let issuer =
        |name: &str, keys: Pushed| Issuer::with_keys(name, keys).access_tokens("orders").algorithms([Algorithm::HS256]);
    let fixed = Pushed(Arc::new(std::sync::Mutex::new(KeyHealth::ready(1))));
    let jwt = JwtAuthenticator::builder()
        .issuer(issuer("https://one.example.com", pushed.clone()))
        .issuer(issuer("https://two.example.com", fixed))
        .build()
        .unwrap();
    let health = Health::new().watch_tokens(&jwt);
    let (one, two) = ("jwt:https://one.example.com", ("jwt:https://two.example.com", Condition::Ready, false));
    assert_eq!(found(&look(&health)), [(one, Condition::Ready, false), two]);
    *pushed.0.lock().unwrap() = KeyHealth::ready(1).with_cause("refresh: timed out");
    assert_eq!(found(&look(&health)), [(one, Condition::Stale, true), two]);
    *pushed.0.lock().unwrap() = KeyHealth::not_ready("never fetched");
    assert_eq!(found(&look(&health)), [(one, Condition::Failing, true), two]);
}

#[test]
fn a_policy_that_is_refused_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, POLICY).unwrap();
    let policy = Rbac::from_toml_file(&path).unwrap();
    let health = Health::new().watch_policy(policy.clone());
    assert_eq!(found(&look(&health)), [("policy:rbac", Condition::Ready, false)]);
    std::fs::write(&path, "version = 1").unwrap();
    assert!(policy.reload().is_err());
    assert_eq!(found(&look(&health)), [("policy:rbac", Condition::Stale, true)]);
    std::fs::write(&path, POLICY.replace("\"1\"", "\"2\"")).unwrap();
    policy.reload().unwrap();
    assert_eq!(found(&look(&health)), [("policy:rbac", Condition::Ready, false)]);
}

#[tokio::test]
async fn a_broken_file_of_keys_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let store = Arc::new(FileKeyStore::create(&path).unwrap());
    let health = Health::new().watch_key_file(Arc::clone(&store));
    assert_eq!(found(&look(&health)), [("api_keys", Condition::Ready, false)]);
    std::fs::write(&path, "no = keys").unwrap();
    assert!(store.reload().await.is_err());
    assert_eq!(found(&look(&health)), [("api_keys", Condition::Stale, true)]);
}

#[tokio::test]
async fn limits_without_redis_are_stale_or_failing() {
    // Nobody listens where a listener just was.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (when_away, condition) in [(WhenAway::default(), Condition::Stale), (WhenAway::Fail, Condition::Failing)] {
        let builder = RedisLimits::builder(&format!("redis://{closed}")).when_away(when_away);
        let limits = builder.timeout(Duration::from_millis(500)).build().unwrap();
        let health = Health::new().watch_limits(&limits);
        assert_eq!(found(&look(&health)), [("limits", Condition::Ready, false)], "nobody asked yet");
        let (parts, quota) = ([KeyPart::Custom("x")], Quota::per_second(1));
        let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
        let _ = limits.take(&Draw::new(&charges).with_cost(NonZeroU32::MIN), Still.now()).await;
        assert_eq!(found(&look(&health)), [("limits", condition, true)]);
    }
}

async fn answer(app: &Router, path: &str) -> (StatusCode, String) {
    let response = app.clone().oneshot(get(path).map(|_| axum::body::Body::empty())).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status(), text(response).await)
}

#[tokio::test]
async fn probes_say_a_word_and_people_learn_the_cause() {
    const SECRET: &str = "https://internal.example.com: refused";
    let well = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&well);
    let health = Health::new().watch("keys", move |_| match seen.load(SeqCst) {
        true => SourceHealth::ready(),
        false => SourceHealth::failing(SECRET),
    });
    let app = probes(health.clone(), Still).merge(report_router("/operators/health", health, Still).unwrap());

    assert_eq!(answer(&app, READY_PATH).await, (StatusCode::OK, "ready".into()));
    well.store(false, SeqCst);
    assert_eq!(answer(&app, READY_PATH).await, (StatusCode::SERVICE_UNAVAILABLE, "not ready".into()));
    assert_eq!(answer(&app, LIVE_PATH).await, (StatusCode::OK, "live".into()), "a restart would mend nothing");

    let (status, report) = answer(&app, "/operators/health").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let expected = serde_json::json!({
        "condition": "failing",
        "sources": [{"name": "keys", "condition": "failing", "cause": SECRET}],
    });
    assert_eq!(report, expected);
    for path in [READY_PATH, LIVE_PATH] {
        let refused = app.clone().oneshot(http::Request::post(path).body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(refused.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
