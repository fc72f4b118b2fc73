//! Rules and limits that are tried out: what passes, what is told of it, and that it ends.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use http::{Request, Response};
use portcullis::{
    Clock, ConfigError, ShadowMode, SystemClock,
    audit::{AuditEntry, AuditLayer, MetricsSink},
    authn::AuthnLayer,
    event::EventKind,
    guard::{RouteRules, RuleNames, authenticated, require, role},
    policy::Decision,
    rate_limit::{ConcurrencyLayer, Quota, RateLimitLayer},
    stack::Stack,
    testing::{Captured, TestClock},
    tls::TlsLayer,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    Kept,
    support::{NOW, Probe, get, get_plain, send, test_scheme, text, with},
};

/// The day of [`NOW`] is 2027-01-15.
const END: &str = "2027-01-16";
const SECONDS_TO_END: u64 = 16 * 3_600;

fn mode(clock: &TestClock) -> ShadowMode {
    ShadowMode::until_as_of(END, clock.now()).unwrap()
}

/// Everything about this path is tried out but what must not be.
fn stack(path: &str, clock: &TestClock, audit: AuditLayer) -> Stack {
    let limit = RateLimitLayer::per_principal(Quota::per_hour(2)).unwrap().with_scope(path.to_owned()).unwrap();
    Stack::builder()
        .clock(clock.clone())
        .audit(audit)
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .limit(limit.shadow(mode(clock)))
        .route(format!("GET /{path}"), require(role("manager").unwrap()).shadow(mode(clock)))
        .route(format!("GET /{path}/closed"), require(role("manager").unwrap()))
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_is_tried_out_passes_is_recorded_and_ends() {
    let clock = TestClock::at_unix(NOW);
    let captured = Arc::new(Captured::new());
    let all = Arc::new(Captured::new());
    let audit = AuditLayer::new((Arc::clone(&captured), Arc::clone(&all)));
    let app = stack("tried", &clock, audit).protect(Probe::default());
    let ask = |path: &'static str, who: &'static str| with(get(path), "authorization", who);

    let passed = send(&app, ask("/tried", "Test alice")).await;
    assert_eq!((passed.status().as_u16(), text(passed).await.as_str()), (200, "alice"));
    let record = captured.take().pop().unwrap();
    assert!(record.decisions().len() >= 1 && record.decisions().all(|decision| !decision.is_enforced()));
    let would = record.decisions().find(|decision| decision.backend() == "guard-shadow").unwrap();
    assert_eq!((would.decision(), would.action().as_deref()), (Decision::Deny, Some("role manager")));
    assert!(record.flags().contains(&"guard_would_refuse"));

    // The anonymous pass as nobody; a bad credential and plain HTTP do not.
    let nobody = send(&app, get("/tried")).await;
    assert_eq!((nobody.status().as_u16(), text(nobody).await.as_str()), (200, "-"));
    assert_eq!(send(&app, ask("/tried", "Test bad")).await.status(), 401);
    assert_eq!(send(&app, get_plain("/tried")).await.status(), 403);
    // Who may pass is not marked, and a rule beside it enforces.
    let _ = captured.take();
    assert_eq!(send(&app, ask("/tried", "Test boss")).await.status(), 200);
    assert!(!captured.take()[0].flags().contains(&"guard_would_refuse"));
    assert_eq!(send(&app, ask("/tried/closed", "Test alice")).await.status(), 403);
    // The limit of two an hour: one more than that.
    assert_eq!(send(&app, ask("/tried", "Test alice")).await.status(), 200);
    let record = captured.take().pop().unwrap();
    assert!(record.flags().contains(&"limit_would_refuse"));
    assert!(record.limits().any(|limit| limit.state() == "would_refuse"));

    // From the day on, without a restart.
    clock.advance(std::time::Duration::from_secs(SECONDS_TO_END));
    assert_eq!(send(&app, ask("/tried", "Test carol")).await.status(), 403);
    assert_eq!(send(&app, get("/tried")).await.status(), 401);
    assert!(captured.take().iter().all(|record| record.decisions().all(|decision| decision.is_enforced())));
    assert_eq!(send(&app, ask("/tried", "Test boss")).await.status(), 200);
    assert_eq!(send(&app, ask("/tried", "Test boss")).await.status(), 200);
    assert_eq!(send(&app, ask("/tried", "Test boss")).await.status(), 429);

    let told: Vec<(EventKind, String)> = all
        .entries()
        .iter()
        .filter_map(|entry| match entry {
            AuditEntry::Event(event) => Some((event.kind(), event.about().into_owned())),
            _ => None,
        })
        .filter(|(_, about)| about.contains("tried"))
        .collect();
    assert_eq!(
        told,
        [
            (EventKind::ShadowStarted, "rule GET /tried: role manager".to_owned()),
            (EventKind::ShadowStarted, "limit tried".to_owned()),
            (EventKind::ShadowEnded, "limit tried".to_owned()),
            (EventKind::ShadowEnded, "rule GET /tried: role manager".to_owned()),
        ],
        "at start before any request, and at the end"
    );
}

#[tokio::test]
async fn metrics_tell_what_is_tried_out_and_what_it_would_refuse() {
    let kept = Kept::default();
    let _installed = metrics::set_default_local_recorder(&kept);
    let clock = TestClock::at_unix(NOW);
    let app = stack("gauged", &clock, AuditLayer::new(MetricsSink::new())).protect(Probe::default());
    let metric = |name: &str| kept.0.lock().unwrap().get(name).copied();
    let gauge = "portcullis_shadow_until_seconds about=rule GET /gauged: role manager";
    assert_eq!(metric(gauge), Some(mode(&clock).end()), "before any request");
    for _ in 0..3 {
        send(&app, with(get("/gauged"), "authorization", "Test alice")).await;
    }
    assert_eq!(metric("portcullis_would_refuse_total layer=guard name=role manager"), Some(3));
    assert_eq!(metric("portcullis_would_refuse_total layer=limit name=gauged"), Some(1));
    clock.advance(std::time::Duration::from_secs(SECONDS_TO_END));
    send(&app, with(get("/gauged"), "authorization", "Test boss")).await;
    assert_eq!((metric(gauge), metric("portcullis_shadow_until_seconds about=limit gauged")), (Some(0), Some(0)));
}

/// What runs at once is told like a quota: at the start, in the record, in metrics, and at the end.
#[tokio::test]
async fn what_may_run_at_once_is_tried_out_and_told() {
    let kept = Kept::default();
    let _installed = metrics::set_default_local_recorder(&kept);
    let clock = TestClock::at_unix(NOW);
    let captured = Arc::new(Captured::new());
    let at_once = ConcurrencyLayer::per_principal(1).unwrap().named("exports").unwrap().shadow(mode(&clock));
    let app = Stack::builder()
        .clock(clock.clone())
        .audit(AuditLayer::new((Arc::clone(&captured), MetricsSink::new())))
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .limit_concurrency(at_once.clone())
        .route("GET /exports", require(authenticated()))
        .build()
        .unwrap()
        .protect(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::from("exported")))));
    let metric = |name: &str| kept.0.lock().unwrap().get(name).copied();
    let gauge = "portcullis_shadow_until_seconds about=concurrency limit exports";
    assert_eq!(metric(gauge), Some(mode(&clock).end()), "before any request");
    let ask = || with(get("/exports"), "authorization", "Test alice");
    let first = send(&app, ask()).await; // its body is there to be read
    let second = send(&app, ask()).await;
    assert_eq!((first.status().as_u16(), second.status().as_u16(), at_once.would_refuse()), (200, 200, 1));
    drop((first, second));
    let records = captured.take();
    let would = |record: &portcullis::audit::AuditRecord| {
        let limits: Vec<_> = record.limits().map(|limit| (limit.scope().into_owned(), limit.state())).collect();
        (record.flags().contains(&"limit_would_refuse"), limits)
    };
    let told: Vec<_> = records.iter().map(would).filter(|(flag, _)| *flag).collect();
    assert_eq!(told, [(true, vec![("exports".to_owned(), "would_refuse")])]);
    assert_eq!(metric("portcullis_would_refuse_total layer=limit name=exports"), Some(1));
    assert_eq!(at_once.running(), 0);

    clock.advance(std::time::Duration::from_secs(SECONDS_TO_END));
    let first = send(&app, ask()).await;
    assert_eq!((send(&app, ask()).await.status().as_u16(), metric(gauge)), (429, Some(0)));
    drop(first);
}

/// A day that is five ahead by the system's clock.
fn day_ahead() -> String {
    let now = i64::try_from(SystemClock::new().now().unix_seconds()).unwrap();
    jiff::Timestamp::from_second(now + 5 * 86_400).unwrap().strftime("%Y-%m-%d").to_string()
}

/// A guard that stands alone: misordered, it refuses in shadow mode too.
#[tokio::test]
async fn what_is_put_together_wrongly_stays_shut() {
    let guard = require(authenticated()).shadow(ShadowMode::until(&day_ahead()).unwrap());
    assert_eq!(send(&guard.layer(Probe::default()), get("/")).await.status(), 500);
    assert_eq!(guard.would_refuse(), 0);
    let app =
        AuthnLayer::new(test_scheme()).allow_anonymous().dangerous_plain_http().layer(guard.layer(Probe::default()));
    assert_eq!(app.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(guard.would_refuse(), 1);
}

#[test]
fn a_table_of_rules_names_the_end() {
    let read = |rule: &str| RouteRules::from_toml(&format!("[routes]\n'GET /' = {rule}"), &RuleNames::new());
    let rules = read(&format!("{{ role = 'clerk', shadow_until = '{}' }}", day_ahead())).unwrap();
    assert_eq!(rules.lines().next().unwrap().1, "role clerk, in shadow mode");
    for (rule, part) in [
        ("{ role = 'clerk', shadow_until = '2999-01-01' }", "at most 30 days ahead"),
        ("{ role = 'clerk', shadow_until = 'soon' }", "must be a day"),
        ("{ all = [{ role = 'clerk', shadow_until = '2026-01-01' }, 'authenticated'] }", "belongs to the whole rule"),
        ("{ require = 'deny', shadow_until = '2026-01-01' }", "beside a condition"),
    ] {
        let error: ConfigError = read(rule).unwrap_err();
        assert!(error.to_string().contains(part), "{rule}: {error}");
    }
}
