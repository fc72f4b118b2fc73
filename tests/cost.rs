//! What a decision costs whose answer is in memory: counted allocations and clones, no times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::Request;
use portcullis::{
    ClientCertificate, Connection, TlsVersion,
    audit::{AuditLayer, AuditSink, JsonLines},
    authn::AuthnLayer,
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, require},
    policy::Rbac,
    rate_limit::{Quota, RateLimitLayer},
    stack::Stack,
    tls::{Hsts, TlsLayer},
};
use support::{Discard, Probe, get, person, with};
use tower::{Layer, Service};

fn quota() -> Quota {
    Quota::per_second(1_000_000)
}

/// An authenticator that allocates nothing: the principal is ready-made.
fn ready_made() -> impl portcullis::authn::Authenticator {
    let alice = person("alice");
    let challenge = portcullis::Challenge::new("Test", "tests").unwrap();
    portcullis::authn::authenticate_fn(challenge, move |_, _| portcullis::authn::Outcome::verified(alice.clone()))
}

/// Allocations of one warm request, polled to its end on the spot.
fn allocations<S>(mut app: S, request: impl Fn() -> Request<()>) -> u64
where
    S: Service<Request<()>, Response: std::fmt::Debug, Error = std::convert::Infallible>,
{
    let mut send = |request| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(app.poll_ready(&mut cx).is_ready());
        let Poll::Ready(Ok(response)) = pin!(app.call(request)).poll(&mut cx) else {
            panic!("the answer is in memory");
        };
        drop(response);
    };
    send(request());
    let measured = request();
    allocation_counter::measure(|| send(measured)).count_total
}

fn added<S>(app: S, request: impl Fn() -> Request<()>, probe: &Probe) -> u64
where
    S: Service<Request<()>, Response: std::fmt::Debug, Error = std::convert::Infallible>,
{
    let bare = allocations(Bare, &request);
    let clones = probe.seen.clones();
    let with_layers = allocations(app, request);
    assert_eq!(probe.seen.clones(), clones, "the inner service was cloned");
    with_layers - bare
}

/// What the probe itself allocates: its body and its header map.
struct Bare;

impl Service<Request<()>> for Bare {
    type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let mut response = http::Response::new(http_body_util::Full::from("alice".to_owned()));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        std::future::ready(Ok(response))
    }
}

/// The context: its memory, and its place in the extensions, which exist already.
const CONTEXT: u64 = 2;

#[test]
fn a_layer_allocates_the_context_and_nothing_else() {
    let probe = Probe::default();
    let authn = || AuthnLayer::new(ready_made()).dangerous_plain_http();
    let seen = [
        ("evidence", added(EvidenceLayer::new(TrustedProxies::none()).layer(probe.clone()), || get("/"), &probe)),
        ("TLS", added(TlsLayer::require().layer(probe.clone()), || get("/"), &probe)),
        ("authentication", added(authn().layer(probe.clone()), || get("/"), &probe)),
        ("guard", added(authn().layer(require(authenticated()).layer(probe.clone())), || get("/"), &probe)),
        (
            "limit without headers",
            added(
                RateLimitLayer::per_client(quota()).unwrap().without_headers().layer(probe.clone()),
                || get("/"),
                &probe,
            ),
        ),
    ];
    for (name, allocations) in seen {
        assert!(allocations <= CONTEXT, "{name}: {allocations}");
    }
}

/// Who is calling, over what, and whether that is enough: the facts are made with the connection, not with the request.
#[test]
fn transport_evidence_and_its_enforcement_allocate_nothing() {
    let probe = Probe::default();
    let tls = || {
        let layer = TlsLayer::require().hsts(Hsts::one_year()).minimum_version(TlsVersion::Tls12);
        layer.hosts(["api.example.com"]).unwrap()
    };
    let with_facts = || {
        let mut request = with(get("/"), "host", "api.example.com");
        let connection = Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13)
            .with_server_name("api.example.com")
            .with_alpn(b"h2")
            .with_client_certificate(ClientCertificate::from_der(b"a certificate"));
        request.extensions_mut().insert(connection);
        request
    };
    let proxied = || {
        let mut request = with(get("/"), "host", "api.example.com");
        request = with(request, "x-forwarded-for", "198.51.100.7, 10.0.12.9, 10.0.12.8");
        request = with(request, "x-forwarded-proto", "https");
        request.extensions_mut().insert(Connection::plain("10.0.12.7:40100".parse().unwrap()));
        request
    };
    let x_forwarded = TrustedProxies::x_forwarded(["10.0.12.0/24"]).unwrap();
    for (name, allocations) in [
        (
            "facts of the connection",
            added(EvidenceLayer::new(TrustedProxies::none()).layer(tls().layer(probe.clone())), with_facts, &probe),
        ),
        (
            "three hops of X-Forwarded-For",
            added(EvidenceLayer::new(x_forwarded).layer(tls().layer(probe.clone())), proxied, &probe),
        ),
    ] {
        assert!(allocations <= CONTEXT, "{name}: {allocations}");
    }
}

#[test]
fn the_whole_stack_allocates_little() {
    let policy =
        Rbac::from_toml("version = \"1\"\npermissions = [\"a:b\"]\n[roles.clerk]\ngrants = [\"a:b\"]\n").unwrap();
    let permission = policy.permission("a:b").unwrap();
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .limit(RateLimitLayer::per_client(quota()).unwrap().without_headers())
        .limit(RateLimitLayer::per_principal(quota()).unwrap().without_headers())
        .authenticate(ready_made())
        .policy(policy)
        .route("GET /", require(permission))
        .build()
        .unwrap();
    let probe = Probe::default();
    let allocations = added(stack.protect(probe.clone()), || with(get("/"), "accept", "*/*"), &probe);
    assert!(allocations <= CONTEXT, "{allocations}");
}

#[test]
fn audit_boxes_no_future_and_clones_no_service() {
    let probe = Probe::default();
    let app = AuditLayer::new(Arc::new(Discard)).layer(probe.clone());
    // What the record itself needs comes on top of the context; none of it is a boxed future.
    let allocations = added(app, || get("/"), &probe);
    assert!(allocations <= CONTEXT + 6, "{allocations}");
}

/// What was written is used again, and what a line looks like is the writer's affair.
#[test]
fn a_record_that_goes_through_a_queue_allocates_nothing_in_the_long_run() {
    let sink = Arc::new(JsonLines::builder().to_writer(std::io::sink()).unwrap());
    let app = AuditLayer::new(Arc::clone(&sink)).layer(Probe::default());
    let request = || with(get("/orders/42?page=7"), "x-request-id", "of the client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..20 {
        for _ in 0..256 {
            allocations(app.clone(), request);
        }
        runtime.block_on(sink.flush()).unwrap();
    }
    let probe = Probe::default();
    let allocations = added(app, request, &probe);
    assert!(allocations <= CONTEXT, "{allocations}");
}
