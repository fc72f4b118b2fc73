//! The fused stack writes one record for each request, whatever becomes of it, and keeps secrets out of everything.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code, helpers included")]

mod support;

use std::{
    collections::VecDeque,
    future::{Future, pending},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use portcullis::{
    Challenge, Clock, Connection, Instants, Now, Rejection, RejectionKind, RequestHead, StoreError, StoreErrorKind,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    audit::{AuditEntry, AuditLayer, AuditOutcome, AuditRecord, AuditSink, Lost, TracingSink},
    authn::{Authenticator, Outcome, authenticate_fn},
    evidence::TrustedProxies,
    guard::{authenticated, policy, public, require, role},
    policy::{AccessQuery, PolicyBackend, Verdict},
    problem::{ProblemDetails, ProblemLayer, RejectionRenderer, RenderRequest, Rendered},
    rate_limit::{Draw, Quota, RateLimitLayer, RateLimitStore, Taken},
    stack::{Protected, Stack, StackBuilder},
    tls::{Hsts, TlsLayer},
};
use support::{Still, Waiting, get, get_plain, kept::Kept, test_scheme, with};
use tower::{Layer, Service, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tracing_subscriber::fmt::MakeWriter;

const CANARY: &str = "canary-7d41";

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Result<Response<Body>, io::Error>;

fn full(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

/// Ends as the last segment of the path says.
#[derive(Clone, Debug)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let end = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        assert!(end != "panic-in-call", "the handler panics in call");
        Box::pin(async move {
            match &*end {
                "panic-in-poll" => panic!("the handler panics while it is polled"),
                "waits" => pending().await,
                "error" => Err(io::Error::other("the handler fails")),
                "rejects" => Ok(Rejection::new(RejectionKind::Forbidden, "somebody else's order").to_response()),
                "streams" => Ok(Response::new(Frames(["a", "b"].into()).boxed_unsync())),
                _ => Ok(Response::new(full("hello"))),
            }
        })
    }
}

/// A body of unknown length.
struct Frames(VecDeque<&'static str>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

/// Decides by the action: `decides:never` cannot be decided, `panics:now` and `panics:later` panic.
#[derive(Debug)]
struct Ledger;

#[async_trait]
impl PolicyBackend for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        assert!(query.action() != "panics:now", "the policy panics");
        Now::Wait
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        match query.action() {
            "decides:never" => Verdict::cannot_decide("the ledger is closed"),
            "panics:later" => panic!("the policy panics"),
            "waits:ever" => pending().await,
            _ => Verdict::deny("not in the ledger").by("ledger-7"),
        }
    }
}

fn builder(kept: &Kept, authenticator: impl Authenticator) -> StackBuilder {
    let asks = |action| require(policy(action).unwrap());
    Stack::builder()
        .clock(Still)
        .audit(AuditLayer::new(kept.clone()))
        .proxies(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
        .tls(TlsLayer::require().hsts(Hsts::one_year()))
        .authenticate(authenticator)
        .policy(Ledger)
        .route("GET /public/{how}", public())
        .route("GET /orders/{id}", require(authenticated()))
        .route("DELETE /orders/{id}", require(role("manager").unwrap()))
        .route("GET /ledger/denied", asks("ledger:read"))
        .route("GET /ledger/undecided", asks("decides:never"))
        .route("GET /ledger/panic-now", asks("panics:now"))
        .route("GET /ledger/panic-later", asks("panics:later"))
        .route("GET /ledger/waits", asks("waits:ever"))
}

fn app(kept: &Kept) -> Protected<Handler> {
    builder(kept, test_scheme()).build().unwrap().protect(Handler)
}

fn app_that_waits(kept: &Kept) -> Protected<Handler> {
    builder(kept, Waiting(test_scheme())).build().unwrap().protect(Handler)
}

fn as_clerk(path: &str) -> Request<()> {
    with(get(path), "authorization", "Test alice")
}

fn delete(mut request: Request<()>) -> Request<()> {
    *request.method_mut() = Method::DELETE;
    request
}

fn without_connection(mut request: Request<()>) -> Request<()> {
    request.extensions_mut().clear();
    request
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The stack still serves.
async fn works(app: &Protected<Handler>, kept: &Kept, name: &str) {
    assert_eq!(app.clone().oneshot(as_clerk("/orders/42")).await.unwrap().status(), 200, "{name}, then a good one");
    assert_eq!(kept.one(name).outcome(), AuditOutcome::Allowed, "{name}, then a good one");
}

/// Sends a request over which a part panics: it is refused.
async fn refuses(app: &Protected<Handler>, request: impl Fn() -> Request<()>, kept: &Kept, name: &str) -> AuditRecord {
    assert_eq!(app.clone().oneshot(request()).await.unwrap().status(), 503, "{name}");
    let record = kept.one(name);
    let told = (record.outcome(), record.status(), record.rejection());
    assert_eq!(told, (AuditOutcome::Panicked, Some(503), Some(RejectionKind::Unavailable)), "{name}");
    works(app, kept, name).await;
    record
}

/// Sends a request whose handler panics; the panic reaches the caller, or is caught just outside of the stack.
async fn panics(app: &Protected<Handler>, request: impl Fn() -> Request<()>, kept: &Kept, name: &str) -> AuditRecord {
    let caught = CatchPanicLayer::new().layer(app.clone()).oneshot(request()).await.unwrap();
    assert_eq!(caught.status(), 500, "{name}: only this request");
    assert_eq!(kept.one(name).outcome(), AuditOutcome::Panicked, "{name}, caught");
    let loose = tokio::spawn(app.clone().oneshot(request())).await;
    assert!(loose.is_err_and(|error| error.is_panic()), "{name}");
    let record = kept.one(name);
    assert_eq!((record.outcome(), record.status()), (AuditOutcome::Panicked, None), "{name}");
    works(app, kept, name).await;
    record
}

#[tokio::test]
async fn an_allowed_request() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        let response = app.oneshot(as_clerk("/orders/42")).await.unwrap();
        assert_eq!(response.status(), 200);
        let record = kept.one("allowed");
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Allowed, Some(200)));
        assert_eq!(record.route().as_deref(), Some("/orders/{id}"));
        assert_eq!(record.subject().unwrap().subject(), "alice");
        assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()));
        assert!(record.rejection().is_none());
    }
}

/// A policy that never answers.
#[derive(Debug)]
struct Never;

#[async_trait]
impl PolicyBackend for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        pending().await
    }
}

/// Answers for what does not answer at once, and keeps it, as timeouts do.
#[derive(Clone)]
struct Impatient<S> {
    inner: S,
    fails: bool,
}

struct Impatiently<F> {
    inner: Pin<Box<F>>,
    fails: bool,
}

impl<F: Future<Output = Answer>> Future for Impatiently<F> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.inner.as_mut().poll(cx) {
            Poll::Pending if self.fails => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Ready(Ok(Response::builder().status(408).body(full("")).unwrap())),
            answer @ Poll::Ready(_) => answer,
        }
    }
}

impl<S: Service<Request<()>, Response = Response<Body>, Error = io::Error>> Service<Request<()>> for Impatient<S> {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Impatiently<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        Impatiently { inner: Box::pin(self.inner.call(request)), fails: self.fails }
    }
}

#[tokio::test]
async fn who_answers_for_a_decision_that_waits_hides_nobody() {
    let kept = Kept::default();
    for (fails, outcome, status) in [(false, AuditOutcome::Allowed, Some(408)), (true, AuditOutcome::Failed, None)] {
        let guard = require(policy("orders:read").unwrap()).with_policy(Never);
        let inner = Impatient { inner: guard.layer(Handler), fails };
        let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(test_scheme());
        let limit = RateLimitLayer::per_principal(Quota::per_hour(9)).unwrap();
        let stack =
            stack.audit(AuditLayer::new(kept.clone())).limit(limit).route("GET /orders", require(authenticated()));
        let mut app = stack.build().unwrap().protect(inner);
        let answer = app.ready().await.unwrap().call(with(get("/orders"), "authorization", "Test alice")).await;
        assert_eq!(answer.ok().map(|response| response.status().as_u16()), status);
        let record = kept.one("impatient");
        assert_eq!((record.outcome(), record.status()), (outcome, status));
        assert_eq!(record.subject().map(|subject| subject.subject().into_owned()).as_deref(), Some("alice"));
        assert_eq!((record.route().as_deref(), record.limits().count()), (Some("/orders"), 1));
        assert_eq!(record.decisions().count(), 1, "that of the stack's rule");
    }
}

type Row = (&'static str, Request<()>, u16, AuditOutcome, &'static str, &'static str, Option<&'static str>);

#[tokio::test]
async fn every_refusal_is_recorded_once_with_its_route_and_reason() {
    use AuditOutcome::{Denied, Failed, Unauthenticated};
    let (order, ledger) = (Some("/orders/{id}"), Some("/ledger/denied"));
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        let rows: [Row; 12] = [
            (
                "ambiguous path",
                as_clerk("/orders/..%2f"),
                400,
                Denied,
                "invalid_path",
                "a path that could mean another one",
                order,
            ),
            (
                "two credentials",
                with(as_clerk("/orders/42"), "authorization", "Test bob"),
                400,
                Unauthenticated,
                "invalid_request",
                "a credential header stands twice",
                order,
            ),
            ("anonymous", get("/orders/42"), 401, Unauthenticated, "unauthenticated", "no credential", order),
            ("anonymous, no rule", get("/else"), 401, Unauthenticated, "unauthenticated", "no credential", None),
            (
                "bad",
                with(get("/orders/42"), "authorization", "Test bad"),
                401,
                Unauthenticated,
                "invalid_credential",
                "bad test credential",
                order,
            ),
            (
                "unclaimed",
                with(get("/public/x"), "authorization", "Other x"),
                401,
                Unauthenticated,
                "invalid_credential",
                "no authenticator claims this Authorization",
                Some("/public/{how}"),
            ),
            ("rule", delete(as_clerk("/orders/42")), 403, Denied, "forbidden", "does not meet role manager", order),
            (
                "policy",
                as_clerk("/ledger/denied"),
                403,
                Denied,
                "forbidden",
                "does not meet policy ledger:read",
                ledger,
            ),
            ("no rule", as_clerk("/else"), 403, Denied, "forbidden", "no rule for this method and path", None),
            ("plain HTTP", get_plain("/orders/42"), 403, Denied, "plain_http", "plain HTTP", order),
            (
                "no peer",
                without_connection(as_clerk("/orders/42")),
                500,
                Failed,
                "misconfigured",
                "no peer address in the request: serve the application with portcullis::axum::serve, or insert a \
                 portcullis::Connection into the request extensions",
                order,
            ),
            (
                "undecided",
                as_clerk("/ledger/undecided"),
                503,
                Failed,
                "unavailable",
                "cannot decide policy decides:never",
                Some("/ledger/undecided"),
            ),
        ];
        for (name, request, status, outcome, code, reason, route) in rows {
            assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{name}");
            let record = kept.one(name);
            assert_eq!((record.outcome(), record.status()), (outcome, Some(status)), "{name}");
            assert_eq!(record.rejection().map(RejectionKind::code), Some(code), "{name}");
            assert_eq!(record.rejection_reason(), Some(reason), "{name}");
            assert_eq!(record.route().as_deref(), route, "{name}");
        }
    }
}

#[tokio::test]
async fn the_rule_that_refused_is_in_the_record() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        for (request, backend, action, rule) in [
            (delete(as_clerk("/orders/42")), "role", "manager", None),
            (as_clerk("/ledger/denied"), "ledger", "ledger:read", Some("ledger-7")),
        ] {
            app.clone().oneshot(request).await.unwrap();
            let record = kept.one(backend);
            let decisions: Vec<_> = record.decisions().collect();
            assert_eq!(decisions.len(), 1, "{backend}: {decisions:?}");
            assert_eq!(decisions[0].backend(), backend);
            assert_eq!(decisions[0].action().as_deref(), Some(action));
            assert_eq!(decisions[0].rule().as_deref(), rule);
        }
    }
}

#[tokio::test]
async fn a_limited_request() {
    let kept = Kept::default();
    for (name, builder) in [
        ("client", builder(&kept, test_scheme()).limit_clients(Quota::per_minute(1))),
        ("principal", builder(&kept, Waiting(test_scheme())).limit_principals(Quota::per_minute(1))),
    ] {
        let app = builder.build().unwrap().protect(Handler);
        works(&app, &kept, name).await;
        assert_eq!(app.oneshot(as_clerk("/orders/42")).await.unwrap().status(), 429, "{name}");
        let record = kept.one(name);
        assert_eq!((record.outcome(), record.rejection()), (AuditOutcome::Limited, Some(RejectionKind::RateLimited)));
        assert_eq!(record.rejection_reason(), Some(&*format!("over the quota per {name}")));
        assert_eq!(record.route().as_deref(), Some("/orders/{id}"), "{name}");
    }
}

#[tokio::test]
async fn a_stack_inside_a_stack_or_a_layer() {
    let (kept, inner) = (Kept::default(), Kept::default());
    let nested = builder(&kept, test_scheme()).build().unwrap().protect(app(&inner));
    let layered = AuditLayer::new(kept.clone()).layer(app(&inner));
    assert_eq!(nested.oneshot(as_clerk("/orders/42")).await.unwrap().status(), 500);
    let nested = kept.one("nested");
    assert_eq!(layered.oneshot(as_clerk("/orders/42")).await.unwrap().status(), 500);
    for record in [nested, kept.one("layered")] {
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Failed, Some(500)));
        assert_eq!(record.rejection(), Some(RejectionKind::Misconfigured));
    }
    assert!(inner.take().is_empty(), "the outer one writes the record");
}

#[tokio::test]
async fn a_stack_inside_a_layer_that_writes_no_record() {
    let kept = Kept::default();
    let app = TlsLayer::require().layer(app(&kept));
    for _ in 0..2 {
        assert_eq!(app.clone().oneshot(as_clerk("/orders/42")).await.unwrap().status(), 500);
        let record = kept.one("inside TLS enforcement");
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Failed, Some(500)));
        assert_eq!((record.rejection(), &*record.path()), (Some(RejectionKind::Misconfigured), "/orders/42"));
        assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()));
    }
    let around = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme()).fallback(public());
    let app = around.build().unwrap().protect(self::app(&kept));
    assert_eq!(app.oneshot(as_clerk("/orders/42")).await.unwrap().status(), 500);
    assert_eq!(kept.one("inside a stack without audit").rejection(), Some(RejectionKind::Misconfigured));
}

#[tokio::test]
async fn a_rejection_of_the_handler() {
    let kept = Kept::default();
    let response = app(&kept).oneshot(as_clerk("/orders/rejects")).await.unwrap();
    assert_eq!(response.status(), 403);
    let record = kept.one("rejects");
    assert_eq!((record.outcome(), record.rejection_reason()), (AuditOutcome::Denied, Some("somebody else's order")));
}

#[tokio::test]
async fn an_error_of_the_service() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        assert!(app.oneshot(as_clerk("/orders/error")).await.is_err());
        let record = kept.one("error");
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Failed, None));
        assert_eq!(record.subject().unwrap().subject(), "alice");
    }
}

#[tokio::test]
async fn a_handler_that_panics() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        for path in ["/orders/panic-in-call", "/orders/panic-in-poll"] {
            let record = panics(&app, || as_clerk(path), &kept, path).await;
            assert_eq!(record.subject().unwrap().subject(), "alice", "{path}");
            assert_eq!(record.route().as_deref(), Some("/orders/{id}"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_given_up() {
    let kept = Kept::default();
    for (name, app, path, polls, known) in [
        ("never polled", app(&kept), "/orders/42", 0, true),
        ("while the handler runs", app(&kept), "/orders/waits", 1, true),
        ("while the handler runs after a wait", app_that_waits(&kept), "/orders/waits", 2, true),
        ("while an authenticator waits", app_that_waits(&kept), "/orders/42", 1, false),
        ("while a policy waits", app(&kept), "/ledger/waits", 2, true),
    ] {
        {
            let mut future = pin!(app.clone().oneshot(as_clerk(path)));
            if polls == 0 {
                drop(app.clone().call(as_clerk(path)));
            }
            for _ in 0..polls {
                assert!(poll_once(future.as_mut()).is_pending(), "{name}");
            }
            if polls > 0 {
                assert!(kept.all().is_empty(), "{name}");
            }
        }
        let record = kept.one(name);
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Aborted, None), "{name}");
        assert_eq!(record.subject().is_some(), known, "{name}");
        assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()), "{name}");
        assert!(record.route().is_some(), "{name}");
        works(&app, &kept, name).await;
    }
}

#[tokio::test]
async fn a_refusal_that_nobody_waits_for() {
    let kept = Kept::default();
    drop(app(&kept).call(get("/orders/42")));
    let record = kept.one("refused and dropped");
    assert_eq!((record.outcome(), record.rejection()), (AuditOutcome::Aborted, Some(RejectionKind::Unauthenticated)));
}

#[tokio::test]
async fn a_streamed_body() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        let response = app.clone().oneshot(as_clerk("/orders/streams")).await.unwrap();
        assert_eq!(kept.one("at the head").outcome(), AuditOutcome::Allowed);
        assert_eq!(support::text(response).await, "ab");

        let mut response = app.oneshot(as_clerk("/orders/streams")).await.unwrap();
        assert!(response.body_mut().frame().await.is_some());
        drop(response);
        let record = kept.one("dropped");
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Allowed, Some(200)));
    }
}

#[tokio::test]
async fn an_authenticator_that_panics() {
    /// Panics over `Test panic`, at once or later.
    #[derive(Debug)]
    struct Panics<A> {
        inner: A,
        now: bool,
    }

    fn check(head: &RequestHead<'_>) {
        let credential = head.authorization().ok().flatten();
        assert!(credential.is_none_or(|credential| credential.token() != "panic"), "the authenticator panics");
    }

    #[async_trait]
    impl<A: Authenticator> Authenticator for Panics<A> {
        fn challenges(&self) -> Vec<Challenge> {
            self.inner.challenges()
        }

        fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
            if self.now {
                check(head);
                return self.inner.authenticate_now(head, at);
            }
            Now::Wait
        }

        async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
            tokio::task::yield_now().await;
            check(head);
            self.inner.authenticate(head, at).await
        }
    }

    for now in [true, false] {
        let kept = Kept::default();
        let app = builder(&kept, Panics { inner: test_scheme(), now }).build().unwrap().protect(Handler);
        let request = || with(get("/orders/42"), "authorization", "Test panic");
        let record = refuses(&app, request, &kept, "authenticator").await;
        assert!(record.subject().is_none());
        assert_eq!(record.route().as_deref(), Some("/orders/{id}"));
    }
}

#[tokio::test]
async fn a_policy_that_panics() {
    let kept = Kept::default();
    for app in [app(&kept), app_that_waits(&kept)] {
        for path in ["/ledger/panic-now", "/ledger/panic-later"] {
            let record = refuses(&app, || as_clerk(path), &kept, path).await;
            assert_eq!(record.subject().unwrap().subject(), "alice", "{path}");
        }
    }
}

#[tokio::test]
async fn a_limit_store_that_panics_or_fails() {
    /// Panics over one address and fails over another.
    #[derive(Debug)]
    struct Brittle {
        now: bool,
    }

    fn take(draw: &Draw<'_>) -> Result<Taken, StoreError> {
        let key = draw.charges()[0].key().to_string();
        assert!(!key.contains("192.0.2.1"), "the store panics");
        if key.contains("192.0.2.2") {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "brittle").caused_by(CANARY));
        }
        Ok(Taken::granted(0, 1, 0))
    }

    #[async_trait]
    impl RateLimitStore for Brittle {
        fn take_now(&self, draw: &Draw<'_>, _: Instants) -> Now<Result<Taken, StoreError>> {
            if self.now { Now::Known(take(draw)) } else { Now::Wait }
        }

        async fn take(&self, draw: &Draw<'_>, _: Instants) -> Result<Taken, StoreError> {
            tokio::task::yield_now().await;
            take(draw)
        }
    }

    for now in [true, false] {
        let kept = Kept::default();
        let limit = RateLimitLayer::per_client(Quota::per_second(1)).unwrap().with_store(Brittle { now });
        let app = builder(&kept, test_scheme()).limit(limit).build().unwrap().protect(Handler);
        let from = |peer: &str| {
            let mut request = as_clerk("/orders/42");
            let connection = Connection::tls(peer.parse().unwrap(), portcullis::TlsVersion::Tls13);
            request.extensions_mut().insert(connection);
            request
        };
        refuses(&app, || from("192.0.2.1:1"), &kept, "store").await;
        assert_eq!(app.oneshot(from("192.0.2.2:1")).await.unwrap().status(), 503);
        let record = kept.one("store that fails");
        assert_eq!((record.outcome(), record.rejection()), (AuditOutcome::Failed, Some(RejectionKind::Unavailable)));
        assert!(!serde_json::to_string(&record).unwrap().contains(CANARY));
    }
}

#[tokio::test]
async fn a_renderer_that_panics() {
    #[derive(Debug)]
    struct Panics;

    impl RejectionRenderer for Panics {
        fn render(&self, _: &Rejection, _: &RenderRequest) -> Option<Rendered> {
            panic!("the renderer panics")
        }
    }

    let kept = Kept::default();
    for (name, request, status, kind) in [
        ("refused at once", get("/orders/42"), 401, RejectionKind::Unauthenticated),
        ("refused after a wait", as_clerk("/ledger/denied"), 403, RejectionKind::Forbidden),
        ("refused by the handler", as_clerk("/orders/rejects"), 403, RejectionKind::Forbidden),
    ] {
        let app = builder(&kept, test_scheme()).renderer(Panics).build().unwrap().protect(Handler);
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers().contains_key("content-type")),
            (status, false),
            "{name}"
        );
        assert_eq!(support::text(answer).await, "", "{name}");
        let record = kept.one(name);
        assert_eq!((record.status(), record.rejection()), (Some(status), Some(kind)), "{name}");
        assert_ne!(record.outcome(), AuditOutcome::Panicked, "{name}: it is refused as it would have been");
        works(&app, &kept, name).await;
    }
}

#[tokio::test]
async fn a_sink_that_panics() {
    #[derive(Debug)]
    struct Panics;

    #[async_trait]
    impl AuditSink for Panics {
        fn accept(&self, _: AuditEntry) -> Result<(), Lost> {
            panic!("the sink panics")
        }

        fn lost(&self) -> u64 {
            0
        }

        async fn flush(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    let kept = Kept::default();
    let stack = Stack::builder()
        .clock(Still)
        .audit(AuditLayer::new((Panics, kept.clone())))
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("GET /orders/{id}", require(authenticated()));
    let app = stack.build().unwrap().protect(Handler);
    works(&app, &kept, "sink").await;
    assert_eq!(app.clone().oneshot(get("/orders/42")).await.unwrap().status(), 401);
    kept.one("refused");
    drop(app.clone().call(as_clerk("/orders/42")));
    kept.one("dropped");
    panics(&app, || as_clerk("/orders/panic-in-poll"), &kept, "a panic within a panic").await;
}

/// What stands further inside than evidence and TLS enforcement reads what they left, in a stack as in single layers.
#[tokio::test]
async fn nothing_inside_reads_what_was_taken_out() {
    /// Believes a header that only a proxy may write, at once or later, and refuses to see a credential.
    fn gullible() -> impl Authenticator {
        authenticate_fn(Challenge::new("Test", "tests").unwrap(), |head, _| {
            match head.headers().get("x-forwarded-user").map(|user| user.to_str().unwrap()) {
                Some(user) => Outcome::verified(support::person(user)),
                None if head.headers().contains_key("authorization") => {
                    Rejection::new(RejectionKind::InvalidCredential, "saw it").into()
                }
                None => Outcome::Absent,
            }
        })
    }

    let kept = Kept::default();
    let exempt = || TlsLayer::require().exempt(Method::GET, "/public/health").unwrap();
    for waits in [false, true] {
        let stack = Stack::builder()
            .clock(Still)
            .audit(AuditLayer::new(kept.clone()))
            .tls(exempt())
            .route("GET /public/{how}", public())
            .route("GET /orders/{id}", require(authenticated()));
        let stack = if waits { stack.authenticate(Waiting(gullible())) } else { stack.authenticate(gullible()) };
        let app = stack.build().unwrap().protect(Handler);

        let forged = with(get("/orders/42"), "x-forwarded-user", "boss");
        assert_eq!(app.clone().oneshot(forged).await.unwrap().status(), 401, "a stranger's header");
        let record = kept.one("forged");
        assert!(record.subject().is_none());
        assert_eq!(record.flags(), ["forwarding_headers_removed"]);

        let exposed = with(get_plain("/public/health"), "authorization", "Test boss");
        assert_eq!(app.oneshot(exposed).await.unwrap().status(), 200, "the credential is removed, not looked at");
        let record = kept.one("exposed");
        assert!(record.subject().is_none(), "nobody is authenticated over plain HTTP");
        assert_eq!(record.flags(), ["credential_ignored_over_plain_http"]);
        assert_eq!(record.exposed_credentials(), ["authorization"]);
    }
}

/// What crossed the wire in the clear is told by the name of its field, and never by its value.
#[tokio::test]
async fn an_exposed_credential_is_an_event_of_the_record() {
    let kept = Kept::default();
    let app = Stack::builder()
        .clock(Still)
        .audit(AuditLayer::new(kept.clone()))
        .tls(TlsLayer::require().redirect_to(["api.example.com"]).unwrap())
        .authenticate(test_scheme())
        .route("GET /orders/{id}", require(authenticated()))
        .build()
        .unwrap()
        .protect(Handler);
    for (name, host, status) in [("refused", "other.example", 403), ("redirected", "api.example.com", 308)] {
        let request = with(with(get_plain("/orders/42"), "cookie", CANARY), "x-api-key", CANARY);
        let answer = app.clone().oneshot(with(request, "host", host)).await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
        let record = kept.one(name);
        assert_eq!(record.flags(), ["credential_over_plain_http"], "{name}");
        assert_eq!(record.exposed_credentials(), ["cookie", "x-api-key"], "{name}");
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""exposed_credentials":["cookie","x-api-key"]"#) && !json.contains(CANARY), "{json}");
    }
    app.oneshot(get_plain("/orders/42")).await.unwrap();
    assert!(kept.one("nothing to lose").exposed_credentials().is_empty());
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Writes down what `Debug` shows of the request to whoever decides.
fn nosy(shown: &Log, inner: impl Authenticator) -> impl Authenticator {
    let shown = shown.clone();
    authenticate_fn(inner.challenges().remove(0), move |head, at| {
        shown.0.lock().unwrap().extend(format!("{head:?} {:#?}", head.authorization()).bytes());
        match inner.authenticate_now(head, at) {
            Now::Known(outcome) => outcome,
            Now::Wait => panic!("keys in memory need no waiting"),
        }
    })
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let (kept, log) = (Kept::default(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);

    let keys = MemoryKeyStore::new();
    let (key, record) = NewApiKey::for_subject("alice").mint(Clock::now(&Still)).unwrap();
    keys.add(record).unwrap();
    let bearer = format!("Bearer {}", key.expose());
    let secret = key.expose().rsplit('_').next().unwrap().to_owned();
    let secrets = [CANARY, key.expose(), &secret];
    assert!(secret.len() > 20, "the half of the key that must not show");

    let audit = AuditLayer::new((kept.clone(), TracingSink::new()));
    let stack = Stack::builder()
        .clock(Still)
        .audit(audit.clone())
        .tls(TlsLayer::require().exempt(Method::GET, "/health").unwrap())
        .authenticate(nosy(&log, ApiKeyAuthenticator::new(keys)))
        .policy(Ledger)
        .renderer(ProblemDetails::new())
        .route("GET /health", public())
        .route("GET /orders/{id}", require(authenticated()))
        .route("GET /ledger", require(policy("ledger:read").unwrap()))
        .build()
        .unwrap();
    let app = stack.protect(Handler);
    let show = |shown: String| log.0.lock().unwrap().extend(shown.bytes());
    show(format!("{stack:?} {app:#?}"));

    let loaded = |request: Request<()>| with(with(request, "cookie", &format!("id={CANARY}")), "x-secret", CANARY);
    let at = |path: &str| format!("{path}?token={CANARY}");
    let mut sent = 0;
    for (name, request) in [
        ("allowed", with(get(&at("/orders/42")), "authorization", &bearer)),
        ("allowed by its own header", with(get(&at("/orders/42")), "x-api-key", key.expose())),
        ("refused by the policy", with(get(&at("/ledger")), "authorization", &bearer)),
        ("unknown key", with(get(&at("/orders/42")), "x-api-key", CANARY)),
        ("almost the key", with(get(&at("/orders/42")), "x-api-key", &format!("{}x", key.expose()))),
        ("twice", with(with(get(&at("/orders/42")), "x-api-key", key.expose()), "x-api-key", CANARY)),
        ("malformed", with(get(&at("/orders/42")), "authorization", CANARY)),
        ("unclaimed", with(get(&at("/orders/42")), "authorization", &format!("Other {CANARY}"))),
        ("anonymous", get(&at("/orders/42"))),
        ("no rule", with(get(&at("/else")), "authorization", &bearer)),
        ("plain HTTP", with(get_plain(&at("/orders/42")), "authorization", &bearer)),
        ("exempt", with(get_plain(&at("/health")), "authorization", &bearer)),
        ("no peer", without_connection(with(get(&at("/orders/42")), "authorization", &bearer))),
    ] {
        sent += 1;
        let response = app.clone().oneshot(loaded(request.clone())).await.unwrap();
        show(format!("{name}: {response:?} "));
        show(support::text(response).await);
        drop(app.clone().call(loaded(request.clone())));
        let layered = audit.layer(ProblemLayer::new().layer(Handler)).call(loaded(request));
        show(format!("{layered:?}"));
        drop(layered);
    }
    let records = kept.take();
    assert_eq!(records.len(), 3 * sent);
    for record in &records {
        show(format!("{record:?} {:?} {}", record.subject(), serde_json::to_string(record).unwrap()));
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("alice") && text.contains("portcullis::audit"), "{text}");
    for secret in secrets {
        let found = text.find(secret).map(|at| text.get(at.saturating_sub(200)..at + 60).unwrap_or_default());
        assert_eq!(found, None);
    }
}

/// An anonymous client can repeat a preflight as often as it likes.
#[tokio::test]
async fn a_flood_of_preflights_is_not_a_flood_of_log_lines() {
    let (kept, log) = (Kept::default(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let app = app(&kept);
    for _ in 0..100 {
        let mut request = with(get("/else"), "origin", "https://shop.example");
        request.headers_mut().insert("access-control-request-method", http::HeaderValue::from_static("GET"));
        *request.method_mut() = Method::OPTIONS;
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 401);
    }
    assert_eq!(kept.take().len(), 100);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.lines().count() <= 1, "{} lines", text.lines().count());
}

#[tokio::test]
async fn an_audit_layer_inside_the_stack_refuses_and_leaves_the_record_to_it() {
    let (outer, inner) = (Kept::default(), Kept::default());
    let stack = Stack::builder()
        .dangerous_plain_http()
        .audit(AuditLayer::new(outer.clone()))
        .authenticate(test_scheme())
        .route("GET /read", public())
        .build()
        .unwrap();
    let app = stack.protect(AuditLayer::new(inner.clone()).layer(Handler));
    let response = app.oneshot(get("/read")).await.unwrap();
    assert_eq!(response.status(), 500);
    let record = outer.one("the stack's");
    assert_eq!(record.rejection(), Some(RejectionKind::Misconfigured));
    assert!(inner.take().is_empty());
}
