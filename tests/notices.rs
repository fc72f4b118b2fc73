//! What the log says of mistakes in the setup: one clear line, however many requests meet the mistake.
//!
//! One test, because the bound is the process's: its cases follow one another in time, each a minute of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/lines.rs"]
mod lines;
mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Router, body::Body, routing::get as route};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use portcullis::{
    Challenge, Clock, Connection, Instants, Principal, PrincipalKind, RequestHead, TlsVersion,
    audit::AuditLayer,
    authn::{Authenticator, AuthnLayer, Claim, Outcome, one_of},
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, policy, public, require},
    policy::{AccessQuery, PolicyBackend, Rbac, Verdict},
    problem::ProblemLayer,
    rate_limit::{Quota, RateLimitLayer},
    stack::Stack,
    tls::TlsLayer,
};
use support::{Discard, NOW, Probe, everybody, get, test_scheme, with};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tracing_subscriber::layer::SubscriberExt;

type App = BoxCloneSyncService<Request<()>, Response<Full<Bytes>>, Infallible>;

/// A clock that is set by hand, in seconds.
#[derive(Clone, Debug, Default)]
struct ByHand(Arc<AtomicU64>);

impl ByHand {
    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for ByHand {
    fn now(&self) -> Instants {
        let seconds = self.0.load(Ordering::SeqCst);
        Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000)
    }
}

/// Allows everything under an obligation that nobody declared.
#[derive(Debug)]
struct Obliging;

#[async_trait]
impl PolicyBackend for Obliging {
    fn name(&self) -> &'static str {
        "obliging"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::allow().obliging("mask:email")
    }
}

fn boxed<S>(service: S) -> App
where
    S: tower::Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    BoxCloneSyncService::new(service)
}

fn alice(path: &str) -> Request<()> {
    with(get(path), "authorization", "Test alice")
}

/// Two layers in the wrong order, or one without what it needs.
fn misordered(clock: &ByHand) -> Vec<(&'static str, App)> {
    let evidence = || EvidenceLayer::new(TrustedProxies::none()).with_clock(clock.clone());
    let authn = || AuthnLayer::new(test_scheme()).dangerous_plain_http();
    let tls = || TlsLayer::require().with_clock(clock.clone());
    let guard = || require(authenticated());
    let client = || RateLimitLayer::per_client(Quota::per_second(100_000)).unwrap().with_clock(clock.clone());
    let principal = || RateLimitLayer::per_principal(Quota::per_second(100_000)).unwrap();
    let probe = Probe::default;
    vec![
        ("the audit layer stands inside", boxed(evidence().layer(AuditLayer::new(Discard).layer(probe())))),
        ("the problem layer stands inside", boxed(evidence().layer(ProblemLayer::new().layer(probe())))),
        ("the evidence layer stands inside", boxed(tls().layer(evidence().layer(probe())))),
        ("TLS enforcement stands inside", boxed(evidence().layer(authn().layer(tls().layer(probe()))))),
        ("the limit per client stands inside", boxed(evidence().layer(authn().layer(client().layer(probe()))))),
        ("no TLS enforcement outside", boxed(evidence().layer(AuthnLayer::new(test_scheme()).layer(probe())))),
        ("no authentication outside it", boxed(evidence().layer(principal().layer(probe())))),
        ("no authentication outside the guard", boxed(evidence().layer(guard().layer(probe())))),
    ]
}

async fn status(app: &App, request: Request<()>) -> u16 {
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

fn stack(clock: &ByHand) -> App {
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(Obliging)
        .route("GET /open", public())
        .route("GET /obliged", require(policy("read").unwrap()))
        .clock(clock.clone());
    boxed(stack.build().unwrap().protect(Probe::default()))
}

#[tokio::test]
async fn one_line_for_each_mistake_however_many_requests() {
    let lines = lines::Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let clock = ByHand::default();
    let only = |text: &str| {
        let said = lines.take();
        assert_eq!(said.len(), 1, "{text}: {said:#?}");
        assert!(said[0].starts_with("ERROR ") && said[0].contains(text), "{text}: {said:?}");
    };
    // A minute apart, so that no case is silent because of the one before.
    let mut minute = 100;
    let mut later = |clock: &ByHand| {
        minute += 2;
        clock.set(minute * 60);
    };

    // A handler without any layer outside has no request's time to go by, so it comes first.
    let bare: Router = Router::new().route("/", route(async |_: Principal| ""));
    for _ in 0..50 {
        let response = bare.clone().oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
    }
    only("no authentication ran outside it");

    for (text, app) in misordered(&clock) {
        later(&clock);
        for _ in 0..50 {
            assert_eq!(status(&app, alice("/")).await, 500, "{text}");
        }
        only(text);
    }

    let app = stack(&clock);
    later(&clock);
    let without_peer = || Request::get("/open").body(()).unwrap();
    for _ in 0..50 {
        assert_eq!(status(&app, without_peer()).await, 500);
    }
    only("no peer address in the request: serve the application with portcullis::axum::serve");

    later(&clock);
    let preflight = |path: &str| {
        let mut request = with(with(get(path), "origin", "https://a.example"), "access-control-request-method", "GET");
        *request.method_mut() = Method::OPTIONS;
        request
    };
    for number in 0..50 {
        assert_eq!(status(&app, preflight(&format!("/{number}"))).await, 401);
    }
    only("no CorsLayer stands outside it");
    later(&clock);
    assert_eq!(status(&app, preflight("/open")).await, 401);
    only("no CorsLayer stands outside it");

    // A proxy that nobody has named, and a client that writes what proxies do.
    later(&clock);
    let through = |peer: &str, field: &'static str, value: &'static str| {
        let mut request = with(get("/open"), field, value);
        request.extensions_mut().insert(Connection::tls(peer.parse().unwrap(), TlsVersion::Tls13));
        request
    };
    for _ in 0..50 {
        for (peer, field) in [
            ("198.51.100.7:1", "x-forwarded-for"),
            ("10.0.0.1:1", "remote-user"),
            ("10.0.0.1:1", "x-forwarded-for"),
            ("[fd00::1]:1", "forwarded"),
        ] {
            assert_eq!(status(&app, through(peer, field, "for=203.0.113.9")).await, 200);
        }
    }
    let said = lines.take();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].starts_with("WARN 10.0.0.1 sends forwarding headers and is no trusted proxy"), "{said:?}");

    // Two mistakes at once: neither hides the other, and they do not take turns.
    later(&clock);
    for _ in 0..50 {
        assert_eq!(status(&app, without_peer()).await, 500);
        assert_eq!(status(&app, alice("/obliged")).await, 500);
    }
    let mut said = lines.take();
    said.sort();
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("no peer address") && said[1].contains("mask:email"), "{said:#?}");

    // Requests of two minutes that end in turns.
    later(&clock);
    let minutes = [clock.now().monotonic_nanos() / 1_000_000_000, clock.now().monotonic_nanos() / 1_000_000_000 + 60];
    for _ in 0..50 {
        for seconds in minutes {
            clock.set(seconds);
            assert_eq!(status(&app, without_peer()).await, 500);
        }
    }
    let said = lines.take();
    assert_eq!(said.len(), 2, "one for each minute: {said:#?}");
}

/// Takes all tickets for its own.
#[derive(Debug)]
struct Tickets;

#[async_trait]
impl Authenticator for Tickets {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new("Ticket", "tests").unwrap()]
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::all("the field x-ticket", "one reads both kinds")]
    }

    async fn authenticate(&self, _: &RequestHead<'_>, _: Instants) -> Outcome {
        Outcome::Absent
    }
}

/// A layer that stands alone cannot refuse to be built.
#[test]
fn two_authenticators_that_refuse_each_others_credentials_are_told_of() {
    let lines = lines::Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let _ = AuthnLayer::new(one_of((Tickets, test_scheme())));
    assert!(lines.take().is_empty());
    let _ = AuthnLayer::new(one_of((Tickets, Tickets)));
    let said = lines.take();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("ERROR one_of: the field x-ticket is claimed by two"), "{said:?}");
}

/// Whatever it leaves HTTP for outlives the credential: said with the route, once in a minute.
#[tokio::test]
async fn an_upgrade_that_nothing_ends_is_told_once() {
    let lines = lines::Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let clock = ByHand::default();
    let alice = Principal::builder(PrincipalKind::User, "i", "alice", "test").expires_at(NOW * 2).build();
    let stack = Stack::builder()
        .dangerous_plain_http()
        .authenticate(everybody(alice))
        .route("GET /socket/{room}", require(authenticated()))
        .clock(clock.clone());
    let upgrades = service_fn(async |_: Request<()>| {
        let mut answer = Response::new(Full::<Bytes>::default());
        *answer.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        Ok::<_, Infallible>(answer)
    });
    let app = boxed(stack.build().unwrap().protect(upgrades));
    for minute in [900, 901] {
        clock.set(minute * 60);
        for room in 0..50 {
            assert_eq!(status(&app, get(&format!("/socket/{room}"))).await, 101);
        }
        let said = lines.take();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].starts_with("WARN /socket/{room}: ") && said[0].contains("no Lifetime"), "{said:?}");
    }
}

#[test]
fn a_refused_policy_and_a_handle_that_nobody_knows_any_more_are_told_once() {
    let lines = lines::Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |permission: &str, role: &str| {
        let text = format!(
            "version = \"{permission}\"\npermissions = [\"{permission}\"]\n[roles.r]\ngrants = [\"*\"]\ninherits = [{role}]"
        );
        std::fs::write(file.path(), text).unwrap();
    };
    write("orders:read", "");
    let policy = Rbac::from_toml_file(file.path()).unwrap();
    let _read = policy.permission("orders:read").unwrap();
    write("orders:read", "\"boss\"");
    for _ in 0..50 {
        assert!(policy.reload().is_err());
    }
    let said = lines.take();
    let expected = format!(
        "ERROR a newer policy is refused, the one that runs stays: {}: line 5: roles.r.inherits: \"boss\" is not a role of this policy",
        file.path().display()
    );
    assert_eq!(said, [expected]);
    write("orders:list", "");
    for _ in 0..50 {
        policy.reload().unwrap();
    }
    let said = lines.take();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("does not know the permission \"orders:read\" any more, which a handle asks for: denied"));
}

/// Records name the version that decided: two policies of one version are a warning.
#[test]
fn a_version_that_stays_is_told() {
    let lines = lines::Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let warnings = || {
        let is_it = |line: &String| {
            line.starts_with("WARN ") && line.contains("a newer policy has the version of the one before")
        };
        lines.take().into_iter().filter(is_it).collect::<Vec<_>>()
    };
    let text = |version: u8, grants: &str| {
        format!("version = \"{version}\"\npermissions = [\"orders:read\"]\n[roles.clerk]\ngrants = [{grants}]\n")
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text(1, "\"*\"")).unwrap();
    let policy = Rbac::from_toml_file(file.path()).unwrap();
    policy.replace_with_toml(&text(2, "\"*\"")).unwrap();
    assert_eq!(warnings(), [""; 0]);
    policy.replace_with_toml(&text(2, "")).unwrap();
    std::fs::write(file.path(), text(2, "\"orders:*\"")).unwrap();
    policy.reload().unwrap();
    let said = warnings();
    let name = file.path().display().to_string();
    assert!(said.len() == 2 && said.iter().all(|line| line.contains(&name) && line.contains("\"2\"")), "{said:#?}");
}
