//! The fused stack against the same layers stacked by hand, with backends that answer at once and with ones that wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use axum::{Router, body::Body, routing::any};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt;
use portcullis::{
    Connection, Instants, Now, Principal, Rejection, RejectionKind, StoreError,
    audit::{AuditLayer, AuditOutcome},
    authn::{Authenticator, AuthnLayer},
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{GuardLayer, all, authenticated, check, policy, public, require, scope},
    policy::{AccessQuery, PolicyBackend, Verdict},
    problem::ProblemLayer,
    rate_limit::{Draw, MemoryLimits, Quota, RateLimitLayer, RateLimitStore, Taken},
    stack::Stack,
    tls::{Hsts, TlsLayer},
};
use support::{Probe, Still, Waiting, get, get_plain, kept::Kept, send, test_scheme, with};
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};

type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// How often each backend was asked.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Allows `read` to everybody and nothing else but to the boss; whether it waits is its owner's choice.
#[derive(Clone, Debug)]
struct Ledger {
    waits: bool,
    asked: Asked,
}

impl Ledger {
    fn verdict(&self, query: &AccessQuery<'_>) -> Verdict {
        self.asked.0.fetch_add(1, Ordering::SeqCst);
        match query.action() {
            "read" => Verdict::allow(),
            "oblige" => Verdict::allow().obliging("mask"),
            "unknown" => Verdict::cannot_decide("away"),
            _ if query.subject().subject() == "boss" => Verdict::allow(),
            _ => Verdict::deny("not theirs"),
        }
    }
}

#[async_trait]
impl PolicyBackend for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        if self.waits { Now::Wait } else { Now::Known(self.verdict(query)) }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        self.verdict(query)
    }
}

/// A memory store that has to be waited for.
#[derive(Debug)]
struct Remote {
    waits: bool,
    limits: MemoryLimits,
    asked: Asked,
}

impl Remote {
    fn new(waits: bool) -> (Self, Asked) {
        let asked = Asked::default();
        (Self { waits, limits: MemoryLimits::new(), asked: asked.clone() }, asked)
    }
}

#[async_trait]
impl RateLimitStore for Remote {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        if self.waits {
            return Now::Wait;
        }
        self.asked.0.fetch_add(1, Ordering::SeqCst);
        self.limits.take_now(draw, at)
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::task::yield_now().await;
        self.asked.0.fetch_add(1, Ordering::SeqCst);
        self.limits.take(draw, at).await
    }
}

/// Which backends have to be waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    client_limit: bool,
    authn: bool,
    principal_limit: bool,
    policy: bool,
}

impl Waits {
    fn every() -> impl Iterator<Item = Self> {
        (0..16).map(|bits: u8| Self {
            client_limit: bits & 1 != 0,
            authn: bits & 2 != 0,
            principal_limit: bits & 4 != 0,
            policy: bits & 8 != 0,
        })
    }

    fn ledger(self) -> Ledger {
        Ledger { waits: self.policy, asked: Asked::default() }
    }

    fn authenticator(self) -> Box<dyn Authenticator> {
        if self.authn { Box::new(Waiting(test_scheme())) } else { Box::new(test_scheme()) }
    }
}

fn proxies() -> TrustedProxies {
    TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap()
}

fn tls() -> TlsLayer {
    TlsLayer::require().hsts(Hsts::one_year()).exempt(Method::GET, "/health").unwrap().with_clock(Still)
}

fn client_limit(waits: bool) -> RateLimitLayer {
    RateLimitLayer::per_client(Quota::per_hour(40)).unwrap().with_store(Remote::new(waits).0).with_clock(Still)
}

fn principal_limit(waits: bool) -> RateLimitLayer {
    RateLimitLayer::per_principal(Quota::per_hour(8)).unwrap().with_store(Remote::new(waits).0).with_clock(Still)
}

/// The guarded paths. `/health`, `/open` and `/rejects` are public.
fn guards() -> Vec<(&'static str, GuardLayer)> {
    let internal = check("internal", |_, head| head.headers().contains_key("x-real-ip"));
    let read = || policy("read").unwrap();
    vec![
        ("/me", require(authenticated())),
        ("/read", require(read())),
        ("/write", require(all((scope("orders:read").unwrap(), policy("write").unwrap())))),
        ("/admin", require(all((scope("admin").unwrap(), read())))),
        ("/oblige", require(policy("oblige").unwrap())),
        ("/unknown", require(policy("unknown").unwrap())),
        ("/internal", require(internal)),
    ]
}

/// Tells what a handler is shown: the names of the header fields, whether the credential is marked, and who acts.
async fn handler(principal: Option<Principal>, headers: HeaderMap) -> Response<Body> {
    let mut names: Vec<&str> = headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    let marked = headers.get(header::AUTHORIZATION).is_some_and(header::HeaderValue::is_sensitive);
    let subject = principal.as_ref().map_or("-", Principal::subject);
    let mut response = Response::new(Body::from(format!("{subject} {marked} {names:?}")));
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, "max-age=1".parse().unwrap());
    response
}

fn open() -> Router {
    Router::new()
        .route("/health", any(handler))
        .route("/open", any(handler))
        .route("/rejects", any(async || Err::<(), _>(Rejection::new(RejectionKind::Forbidden, "a handler's own"))))
}

fn fused(waits: Waits, kept: Kept) -> App {
    let mut builder = Stack::builder()
        .policy(waits.ledger())
        .limit(principal_limit(waits.principal_limit))
        .limit(client_limit(waits.client_limit))
        .authenticate(waits.authenticator())
        .tls(tls())
        .proxies(proxies())
        .audit(AuditLayer::new(kept))
        .clock(Still);
    for path in ["/health", "/open", "/rejects"] {
        builder = builder.route(format!("ANY {path}"), public());
    }
    for (path, guard) in guards() {
        builder = builder.route(format!("ANY {path}"), guard);
    }
    let router = guards().into_iter().fold(open(), |router, (path, _)| router.route(path, any(handler)));
    BoxCloneSyncService::new(builder.build().unwrap().protect(router))
}

fn by_hand(waits: Waits, kept: Kept) -> App {
    let guarded = guards().into_iter().fold(Router::new(), |router, (path, guard)| {
        router.route(
            path,
            any(handler).layer::<_, Infallible>(guard).layer(require(authenticated()).with_policy(waits.ledger())),
        )
    });
    let app = guarded.merge(open());
    let app = principal_limit(waits.principal_limit).layer(app);
    let app = AuthnLayer::new(waits.authenticator()).allow_anonymous().with_clock(Still).layer(app);
    let app = client_limit(waits.client_limit).layer(app);
    let app = tls().layer(app);
    let app = EvidenceLayer::new(proxies()).with_clock(Still).layer(app);
    let app = ProblemLayer::new().layer(app);
    BoxCloneSyncService::new(AuditLayer::new(kept).with_clock(Still).layer(app))
}

fn from_proxy(path: &str) -> Request<()> {
    let mut request = get_plain(path);
    request.extensions_mut().insert(Connection::plain("10.0.12.7:1".parse().unwrap()));
    request
}

fn requests() -> Vec<(&'static str, Request<()>)> {
    let alice = |request| with(request, "authorization", "Test alice");
    let boss = |request| with(request, "authorization", "Test boss");
    let as_method = |mut request: Request<()>, method| {
        *request.method_mut() = method;
        request
    };
    let mut requests = vec![
        ("public", get("/open")),
        ("public, known", alice(get("/open"))),
        ("public, bad", with(get("/open"), "authorization", "Test bad")),
        ("anonymous", get("/me")),
        ("known", alice(get("/me"))),
        ("bad", with(get("/me"), "authorization", "Test bad")),
        ("unclaimed", with(get("/me"), "authorization", "Other x")),
        ("twice", alice(alice(get("/me")))),
        ("HEAD", as_method(alice(get("/me")), Method::HEAD)),
        ("HEAD refused", as_method(get("/me"), Method::HEAD)),
        ("HEAD of a handler's rejection", as_method(get("/rejects"), Method::HEAD)),
        ("a handler's rejection", get("/rejects")),
        ("a handler's rejection, known", boss(get("/rejects"))),
        ("policy allows", alice(get("/read"))),
        ("policy denies", alice(get("/write"))),
        ("policy allows the boss", boss(get("/write"))),
        ("scope missing", alice(get("/admin"))),
        ("obligation", boss(get("/oblige"))),
        ("cannot decide", boss(get("/unknown"))),
        ("no JSON", with(get("/me"), "accept", "text/html")),
        ("plain HTTP", get_plain("/open")),
        ("plain HTTP, exempt", get_plain("/health")),
        ("plain HTTP, exempt, with a credential", alice(get_plain("/health"))),
        ("plain HTTP, exempt, with a bad credential", with(get_plain("/health"), "authorization", "Test bad")),
        ("plain HTTP, exempt, with two", alice(boss(get_plain("/health")))),
        ("plain HTTP, exempt path, HEAD", as_method(get_plain("/health"), Method::HEAD)),
        ("exempt over TLS", alice(get("/health"))),
        ("proxy over TLS", with(alice(from_proxy("/me")), "x-forwarded-proto", "https")),
        ("proxy over plain HTTP", with(alice(from_proxy("/me")), "x-forwarded-proto", "http")),
        ("an address literal", with(boss(get("/me")), "host", "127.0.0.1")),
        (
            "forged, a stranger's word",
            with(with(boss(get("/me")), "x-forwarded-for", "10.1.1.1"), "x-real-ip", "10.1.1.1"),
        ),
        ("forged, asked for by a check", with(boss(get("/internal")), "x-real-ip", "10.1.1.1")),
        ("forged, by way of the proxy", {
            let request = with(boss(from_proxy("/internal")), "x-forwarded-proto", "https");
            with(request, "x-real-ip", "10.1.1.1")
        }),
        ("no connection", alice(Request::get("/me").body(()).unwrap())),
    ];
    // Over both quotas in the end.
    requests.extend((0..6).map(|_| ("alice once more", alice(get("/me")))));
    requests.extend((0..12).map(|_| ("anonymous once more", get("/open"))));
    requests.push(("over the ceiling, known", boss(get("/me"))));
    requests
}

#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    outcome: AuditOutcome,
    rejection: Option<RejectionKind>,
    subject: Option<String>,
    flags: Vec<&'static str>,
}

async fn seen(app: &App, kept: &Kept, request: Request<()>) -> Seen {
    let response = app.clone().oneshot(request.map(|()| Body::empty())).await.unwrap();
    let (parts, body) = response.into_parts();
    let mut headers: Vec<_> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let records = kept.take();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    Seen {
        status: parts.status.as_u16(),
        headers,
        // The id is the request's own.
        body: body.split("\"request_id\"").next().unwrap().to_owned(),
        outcome: record.outcome(),
        rejection: record.rejection(),
        subject: record.subject().map(|subject| subject.subject().into_owned()),
        flags: record.flags().to_vec(),
    }
}

#[tokio::test]
async fn the_fused_stack_answers_as_the_layers_do() {
    for waits in Waits::every() {
        let (kept_fused, kept_by_hand) = (Kept::default(), Kept::default());
        let (fused, by_hand) = (fused(waits, kept_fused.clone()), by_hand(waits, kept_by_hand.clone()));
        let (mut statuses, mut differ) = (Vec::new(), Vec::new());
        for (name, request) in requests() {
            let one = seen(&fused, &kept_fused, request.clone()).await;
            let other = seen(&by_hand, &kept_by_hand, request).await;
            statuses.push(one.status);
            if one != other {
                differ.push(format!("{name}, {waits:?}:\n  fused   {one:?}\n  by hand {other:?}"));
            }
        }
        assert!(differ.is_empty(), "{}", differ.join("\n"));
        for status in [200, 400, 401, 403, 429, 500, 503] {
            assert!(statuses.contains(&status), "no {status} in {statuses:?}");
        }
    }
}

/// A request is given up after every number of polls: one record, nothing reaches the handler, nothing is taken twice.
#[test]
fn a_request_dropped_at_any_point_is_recorded_and_takes_once() {
    let waits = Waits { client_limit: true, authn: true, principal_limit: true, policy: true };
    let mut subjects = Vec::new();
    for polls in 0.. {
        let (kept, probe, ledger) = (Kept::default(), Probe::default(), waits.ledger());
        let ((clients, of_clients), (principals, of_principals)) = (Remote::new(true), Remote::new(true));
        let mut app = Stack::builder()
            .tls(tls())
            .limit(RateLimitLayer::per_client(Quota::per_hour(9)).unwrap().with_store(clients))
            .authenticate(waits.authenticator())
            .limit(RateLimitLayer::per_principal(Quota::per_hour(9)).unwrap().with_store(principals))
            .policy(ledger.clone())
            .audit(AuditLayer::new(kept.clone()))
            .clock(Still)
            .route("GET /read", require(policy("read").unwrap()))
            .build()
            .unwrap()
            .protect(probe.clone());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Service::<Request<()>>::poll_ready(&mut app, &mut cx).is_ready());
        let mut answer = None;
        {
            let mut future = pin!(app.call(with(get("/read"), "authorization", "Test alice")));
            for _ in 0..polls {
                if let Poll::Ready(response) = future.as_mut().poll(&mut cx) {
                    answer = Some(response.unwrap());
                    break;
                }
                assert!(kept.take().is_empty(), "recorded before its end, after {polls} polls");
            }
        }
        let records = kept.take();
        assert_eq!(records.len(), 1, "after {polls} polls");
        assert_eq!(records[0].route().as_deref(), Some("/read"), "after {polls} polls");
        assert_eq!(records[0].address(), Some("198.51.100.7".parse().unwrap()), "after {polls} polls");
        let asked = [&of_clients, &of_principals, &ledger.asked].map(Asked::count);
        assert!(asked.iter().all(|times| *times <= 1), "{asked:?} after {polls} polls");
        subjects.push(records[0].subject().is_some());
        if let Some(response) = answer {
            assert_eq!((response.status().as_u16(), records[0].outcome()), (200, AuditOutcome::Allowed));
            assert_eq!((asked, probe.seen.calls()), ([1, 1, 1], 1));
            for (name, elements) in [("ratelimit-policy", 2), ("ratelimit", 2), ("strict-transport-security", 1)] {
                let lines: Vec<_> = response.headers().get_all(name).iter().collect();
                assert_eq!(lines.len(), 1, "{name}");
                assert_eq!(lines[0].to_str().unwrap().split(", ").count(), elements, "{name}");
            }
            break;
        }
        assert_eq!((records[0].outcome(), probe.seen.calls()), (AuditOutcome::Aborted, 0), "after {polls} polls");
    }
    // Four backends wait once each; who acts is known from the second on.
    assert_eq!(subjects, [false, false, false, true, true, true]);
}

/// The record is the outer layer's, and it must not call the refusal of the inner stack an allowed request.
#[tokio::test]
async fn the_refusal_of_a_stack_inside_another_is_recorded_as_one() {
    let stack = |kept: &Kept| {
        Stack::builder()
            .tls(tls())
            .authenticate(test_scheme())
            .audit(AuditLayer::new(kept.clone()))
            .route("GET /me", require(authenticated()))
            .build()
            .unwrap()
    };
    let (outer, inner, probe) = (Kept::default(), Kept::default(), Probe::default());
    let in_a_stack = BoxCloneSyncService::new(stack(&outer).protect(stack(&inner).protect(probe.clone())));
    let in_a_layer =
        BoxCloneSyncService::new(AuditLayer::new(outer.clone()).layer(stack(&inner).protect(probe.clone())));
    for app in [in_a_stack, in_a_layer] {
        assert_eq!(send(&app, with(get("/me"), "authorization", "Test alice")).await.status(), 500);
        let records = outer.take();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].rejection(), Some(RejectionKind::Misconfigured));
        assert_eq!(records[0].outcome(), AuditOutcome::Failed);
    }
    assert!(inner.take().is_empty());
    assert_eq!(probe.seen.calls(), 0);
}
