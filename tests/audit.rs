//! The audit layer over the public API: one record for each request, whatever becomes of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code, helpers included")]

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, Ready, pending, poll_fn, ready},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use portcullis::{
    Challenge, Clock, Instants, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead, SecurityContext,
    StoreError,
    audit::{AuditEntry, AuditLayer, AuditOutcome, AuditRecord, AuditSink, Channel, Lost, WhenFull},
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn},
    body::BodyEnd,
    event::{Event, EventKind, tell},
    problem::ProblemLayer,
    testing::Captured,
};
use support::{NOW, Probe, Still, get, get_plain, kept::Kept, with};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

const CANARY: &str = "canary-7d41";

/// A clock whose hands the test moves.
#[derive(Clone, Debug, Default)]
struct Moved(Arc<AtomicU64>);

impl Moved {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos().try_into().unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn now(&self) -> Instants {
        let since = self.0.load(Ordering::SeqCst);
        Instants::new(NOW * 1_000_000_000 + since, since)
    }
}

fn audit() -> (Kept, AuditLayer) {
    let kept = Kept::default();
    let layer = AuditLayer::new(kept.clone()).with_clock(Still);
    (kept, layer)
}

fn challenge() -> Challenge {
    Challenge::new("Device", "factory").unwrap()
}

/// `Device good` is Alice; any other device is refused.
fn authn() -> AuthnLayer {
    AuthnLayer::new(authenticate_fn(challenge(), |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.token().starts_with("good") => Outcome::verified(
            Principal::builder(PrincipalKind::Service, "factory", "alice", "device")
                .credential_id("device-7")
                .tenant("acme")
                .build(),
        ),
        Ok(Some(_)) => Rejection::new(RejectionKind::InvalidCredential, "device unknown").into(),
        Ok(None) => Outcome::Absent,
        Err(rejection) => rejection.into(),
    }))
    .dangerous_plain_http()
}

fn as_alice(path: &str) -> Request<()> {
    with(get(path), "authorization", "Device good")
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn json(record: &AuditRecord) -> String {
    serde_json::to_string(record).unwrap()
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

#[tokio::test]
async fn an_allowed_request() {
    let (kept, audit) = audit();
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let mut service = audit.layer(authn().layer(probe));
    let clones = seen.clones();
    let response =
        ServiceExt::<Request<()>>::ready(&mut service).await.unwrap().call(as_alice("/orders?page=2")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(seen.clones(), clones, "the inner service is not cloned");
    let record = kept.only();
    assert_eq!(record.outcome(), AuditOutcome::Allowed);
    assert_eq!((record.status(), &*record.method(), &*record.path()), (Some(200), "GET", "/orders"));
    assert_eq!(record.time(), "2027-01-15T08:00:00.000000000Z");
    assert_eq!(record.http_version(), "1.1");
    assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()));
    assert_eq!(record.is_secure(), Some(true));
    let subject = record.subject().unwrap();
    assert_eq!((&*subject.issuer(), &*subject.subject(), subject.credential()), ("factory", "alice", "device"));
    assert_eq!((subject.credential_id().as_deref(), subject.tenant().as_deref()), (Some("device-7"), Some("acme")));
    assert!(record.rejection().is_none());
}

#[tokio::test]
async fn refusals_have_their_class_and_their_reason() {
    let refused = |kind| {
        service_fn(move |_: Request<()>| ready(Answer::Ok(Rejection::new(kind, "by the handler").to_response())))
    };
    for (name, request, handler, outcome, status, reason) in [
        ("no credential", get("/"), RejectionKind::Forbidden, "unauthenticated", 401, "no credential"),
        (
            "bad credential",
            with(get("/"), "authorization", "Device bad"),
            RejectionKind::Forbidden,
            "unauthenticated",
            401,
            "device unknown",
        ),
        (
            "malformed",
            with(get("/"), "authorization", "Device"),
            RejectionKind::Forbidden,
            "unauthenticated",
            400,
            "Authorization has no space after its scheme",
        ),
        ("forbidden", as_alice("/"), RejectionKind::Forbidden, "denied", 403, "by the handler"),
        ("limited", as_alice("/"), RejectionKind::RateLimited, "limited", 429, "by the handler"),
        ("unavailable", as_alice("/"), RejectionKind::Unavailable, "failed", 503, "by the handler"),
    ] {
        let (kept, audit) = audit();
        let service = ServiceBuilder::new().layer(audit).layer(ProblemLayer::new()).layer(authn());
        let response = service.service(refused(handler)).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        let record = kept.only();
        assert_eq!((record.outcome().as_str(), record.status()), (outcome, Some(status)), "{name}");
        assert_eq!(record.rejection_reason(), Some(reason), "{name}");
        assert_eq!(record.subject().is_some(), status != 401 && status != 400, "{name}");
    }
}

#[tokio::test]
async fn a_status_of_the_handlers_own_is_allowed() {
    let (kept, audit) = audit();
    let handler = service_fn(|_: Request<()>| {
        ready(Answer::Ok(Response::builder().status(500).body(Full::from("broken")).unwrap()))
    });
    audit.layer(handler).oneshot(get("/")).await.unwrap();
    assert_eq!((kept.only().outcome(), kept.only().status()), (AuditOutcome::Allowed, Some(500)));
}

#[tokio::test]
async fn a_request_that_is_given_up() {
    let (kept, audit) = audit();
    let clock = Moved::default();
    let handler = service_fn(|request: Request<()>| {
        SecurityContext::of(request.extensions()).unwrap().note("step", "begun");
        pending::<Answer>()
    });
    let mut service = audit.with_clock(clock.clone()).layer(authn().layer(handler));
    let mut future = Box::pin(service.call(as_alice("/slow")));
    assert!(poll_once(future.as_mut()).is_pending());
    assert_eq!(kept.all().len(), 0);
    clock.advance(Duration::from_millis(1500));
    drop(future);
    let record = kept.only();
    assert_eq!((record.outcome(), record.status()), (AuditOutcome::Aborted, None));
    assert_eq!(record.latency(), Duration::from_millis(1500));
    assert_eq!(record.subject().unwrap().subject(), "alice");
    assert_eq!(record.notes().next().unwrap(), ("step".into(), "begun".into()));
}

#[tokio::test]
async fn a_future_that_is_never_polled() {
    let (kept, audit) = audit();
    drop(audit.layer(Probe::default()).oneshot(get("/")));
    assert_eq!(kept.all().len(), 0, "oneshot has not called the service yet");
    let mut service = audit.layer(Probe::default());
    drop(ServiceExt::<Request<()>>::ready(&mut service).await.unwrap().call(get("/")));
    assert_eq!(kept.only().outcome(), AuditOutcome::Aborted);
}

/// Waits for ever.
#[derive(Debug)]
struct Waits;

#[async_trait]
impl Authenticator for Waits {
    fn challenges(&self) -> Vec<Challenge> {
        vec![challenge()]
    }

    async fn authenticate(&self, _: &RequestHead<'_>, _: Instants) -> Outcome {
        pending().await
    }
}

#[tokio::test]
async fn a_request_given_up_while_an_authenticator_waits() {
    let (kept, audit) = audit();
    let notes = tower::util::MapRequestLayer::new(|request: Request<()>| {
        SecurityContext::of(request.extensions()).unwrap().note("before", "authentication");
        request
    });
    let service = ServiceBuilder::new().layer(audit).layer(notes);
    let mut service = service.layer(AuthnLayer::new(Waits).dangerous_plain_http()).service(Probe::default());
    let mut future = Box::pin(service.ready().await.unwrap().call(get("/waits")));
    assert!(poll_once(future.as_mut()).is_pending());
    drop(future);
    let record = kept.only();
    assert_eq!(record.outcome(), AuditOutcome::Aborted);
    assert_eq!(record.path(), "/waits");
    assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()));
    assert_eq!(record.notes().len(), 1, "what was known before the waiting is kept");
}

/// Panics in `call`, in the first poll, or in the second.
fn panics(
    at: usize,
) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone {
    service_fn(move |_: Request<()>| {
        assert!(at != 0, "in call");
        let mut polls = 0;
        poll_fn(move |cx| -> Poll<Answer> {
            polls += 1;
            assert!(polls != at, "in poll {at}");
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
}

#[tokio::test]
async fn a_handler_that_panics() {
    for at in 0..3 {
        let (kept, audit) = audit();
        let service = audit.layer(authn().layer(panics(at)));
        let task = tokio::spawn(service.oneshot(as_alice("/")));
        assert!(task.await.unwrap_err().is_panic(), "{at}");
        let record = kept.only();
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Panicked, None), "{at}");
        assert_eq!(record.subject().unwrap().subject(), "alice", "{at}");
    }
}

#[tokio::test]
async fn a_panic_that_is_caught_outside() {
    for at in 0..3 {
        let (kept, audit) = audit();
        let service = CatchPanicLayer::new().layer(audit.layer(panics(at)));
        let response = service.oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), 500, "{at}");
        assert_eq!(kept.only().outcome(), AuditOutcome::Panicked, "{at}");
    }
}

#[test]
fn a_panic_of_somebody_else_on_the_thread() {
    let (kept, audit) = audit();
    let mut service = audit.layer(service_fn(|_: Request<()>| pending::<Answer>()));
    let mut future = Box::pin(service.call(get("/")));
    assert!(poll_once(future.as_mut()).is_pending());
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _dropped_while_unwinding = future;
        panic!("nothing to do with the request");
    }));
    assert!(caught.is_err());
    assert_eq!(kept.only().outcome(), AuditOutcome::Aborted);
}

#[tokio::test]
async fn an_error_of_the_service_passes_on() {
    let (kept, audit) = audit();
    let fails = service_fn(|_: Request<()>| ready(Err::<Response<Full<Bytes>>, _>(io::Error::other("reset"))));
    let error = audit.layer(fails).oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.to_string(), "reset");
    assert_eq!((kept.only().outcome(), kept.only().status()), (AuditOutcome::Failed, None));
}

/// A body of unknown length that hands out these frames.
#[derive(Debug, Default)]
struct Frames(VecDeque<io::Result<&'static str>>);

impl Frames {
    fn of<const N: usize>(frames: [io::Result<&'static str>; N]) -> UnsyncBoxBody<Bytes, io::Error> {
        Self(frames.into()).boxed_unsync()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(Bytes::from_static(frame?.as_bytes())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

type Streamed = Response<UnsyncBoxBody<Bytes, io::Error>>;

fn streams<const N: usize>(
    frames: fn() -> [io::Result<&'static str>; N],
) -> impl Service<Request<()>, Response = Streamed, Error = Infallible, Future = Ready<Result<Streamed, Infallible>>> {
    service_fn(move |_| ready(Ok(Response::new(Frames::of(frames())))))
}

#[tokio::test]
async fn a_streamed_body_is_recorded_at_its_head_and_again_at_its_end_where_that_is_wanted() {
    let (captured, clock) = (Captured::new(), Moved::default());
    let audit = AuditLayer::new(captured.clone()).with_clock(clock.clone()).with_completions();
    for (name, take, end, bytes) in [
        ("to its end", 3, BodyEnd::Complete, 3),
        ("dropped", 1, BodyEnd::Dropped, 2),
        ("failed", 9, BodyEnd::Failed, 2),
    ] {
        let fails = name == "failed";
        let body = move || {
            let last = if fails { Err(io::Error::other("disk")) } else { Ok("b") };
            ready(Ok::<_, Infallible>(Response::new(Frames::of([Ok("aa"), last]))))
        };
        let mut response = audit.layer(service_fn(move |_: Request<()>| body())).oneshot(get("/")).await.unwrap();
        assert_eq!(captured.records().len(), 1, "{name}: decided at the head");
        assert_eq!(
            (captured.records()[0].outcome(), captured.records()[0].status()),
            (AuditOutcome::Allowed, Some(200))
        );
        let mut taken = 0;
        while taken < take
            && let Some(Ok(_)) = response.frame().await
        {
            taken += 1;
            clock.advance(Duration::from_secs(1));
            assert!(captured.entries().len() == 1 || taken == 2, "{name}");
        }
        drop(response);
        let entries = captured.entries();
        let [AuditEntry::Decided(record), AuditEntry::Completed(completed)] = &entries[..] else {
            panic!("{name}: {entries:?}");
        };
        assert_eq!(completed.request_id(), record.request_id(), "{name}");
        assert_eq!((completed.end(), completed.bytes()), (end, bytes), "{name}");
        assert!(completed.duration() >= Duration::from_secs(1), "{name}");
        let _ = captured.take();
    }
}

/// One record tells of a flood of them, and no line of each.
#[tokio::test]
async fn a_refusal_is_complete_at_its_head() {
    let captured = Captured::new();
    let nobody = authenticate_fn(Challenge::new("Test", "tests").unwrap(), |_, _| Outcome::Absent);
    let layers = ServiceBuilder::new()
        .layer(AuditLayer::new(captured.clone()).with_completions())
        .layer(ProblemLayer::new())
        .layer(AuthnLayer::new(nobody).dangerous_plain_http());
    let app =
        layers.service(service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))))));
    let response = app.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert!(matches!(&captured.entries()[..], [AuditEntry::Decided(_)]), "{:?}", captured.entries());
}

/// A server hands out parts of one buffer, which a field that is kept would keep whole.
#[tokio::test]
async fn a_recorded_field_keeps_nothing_else_in_memory() {
    let captured = Captured::new();
    let audit = AuditLayer::new(captured.clone()).with_headers(["user-agent"]).unwrap();
    let head = Bytes::from(vec![b'a'; 400_000]);
    let mut request = get("/");
    request.headers_mut().insert("user-agent", http::HeaderValue::from_maybe_shared(head.slice(..10)).unwrap());
    audit.layer(Probe::default()).oneshot(request).await.unwrap();
    assert_eq!(captured.records()[0].headers().next().unwrap().1, "aaaaaaaaaa");
    assert!(head.is_unique());
}

#[tokio::test]
async fn trailers_tell_the_status_of_a_grpc_call() {
    let captured = Captured::new();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("7"));
    let handler = service_fn(move |_: Request<()>| {
        let body = Frames::of([Ok("aa")]).with_trailers(ready(Some(Ok(trailers.clone()))));
        ready(Ok::<_, Infallible>(Response::new(body.boxed_unsync())))
    });
    let response = AuditLayer::new(captured.clone()).with_completions().layer(handler).oneshot(get("/")).await.unwrap();
    response.into_body().collect().await.unwrap();
    let entries = captured.entries();
    let [AuditEntry::Decided(_), AuditEntry::Completed(completed)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((completed.bytes(), completed.grpc_status()), (2, Some(7)));
}

/// What hyper delivers to a client to its end over this version of HTTP: the second entry, if there is one.
async fn delivered(version: Version, answer: fn() -> Streamed) -> Option<(BodyEnd, u64, Option<u16>)> {
    let captured = Captured::new();
    let handler = service_fn(move |_: Request<hyper::body::Incoming>| ready(Ok::<_, Infallible>(answer())));
    let app = TowerToHyperService::new(AuditLayer::new(captured.clone()).with_completions().layer(handler));
    let (near, far) = tokio::io::duplex(4_096);
    let (near, far) = (TokioIo::new(near), TokioIo::new(far));
    let request = Request::get("http://orders.test/").body(Full::<Bytes>::default()).unwrap();
    let (response, served) = if version == Version::HTTP_2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(far, app);
        let served = tokio::spawn(server);
        let (mut client, line) = hyper::client::conn::http2::handshake(TokioExecutor::new(), near).await.unwrap();
        tokio::spawn(line);
        (client.send_request(request).await.unwrap(), served)
    } else {
        let served = tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(far, app));
        let (mut client, line) = hyper::client::conn::http1::handshake(near).await.unwrap();
        tokio::spawn(line);
        (client.send_request(request).await.unwrap(), served)
    };
    response.into_body().collect().await.unwrap();
    served.await.unwrap().unwrap();
    let entries = captured.entries();
    match &entries[..] {
        [AuditEntry::Decided(_)] => None,
        [AuditEntry::Decided(_), AuditEntry::Completed(completed)] => {
            Some((completed.end(), completed.bytes(), completed.grpc_status()))
        }
        _ => panic!("{entries:?}"),
    }
}

#[tokio::test]
async fn what_a_server_delivers_to_its_end_is_complete() {
    fn with_length(length: u64, body: UnsyncBoxBody<Bytes, io::Error>) -> Streamed {
        Response::builder().header("content-length", length).body(body).unwrap()
    }
    fn known(text: &'static str) -> UnsyncBoxBody<Bytes, io::Error> {
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
    }
    fn with_status(body: UnsyncBoxBody<Bytes, io::Error>) -> UnsyncBoxBody<Bytes, io::Error> {
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("7"),
        )]);
        body.with_trailers(ready(Some(Ok(trailers)))).boxed_unsync()
    }
    type Answer = fn() -> Streamed;
    let complete = |bytes| Some((BodyEnd::Complete, bytes, None));
    let graded = |bytes| Some((BodyEnd::Complete, bytes, Some(7)));
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    let rows: [(&str, Version, Answer, _); 14] = [
        ("nothing", one, || Response::new(known("")), None),
        ("nothing", two, || Response::new(known("")), None),
        ("a length of 0", one, || with_length(0, Frames::of([])), None),
        ("a status alone", two, || Response::builder().header("grpc-status", "7").body(known("")).unwrap(), None),
        ("a known text", one, || Response::new(known("aab")), complete(3)),
        ("a known text", two, || Response::new(known("aab")), complete(3)),
        ("a stream", one, || Response::new(Frames::of([Ok("aa"), Ok("b")])), complete(3)),
        ("a stream", two, || Response::new(Frames::of([Ok("aa"), Ok("b")])), complete(3)),
        ("a stream with a length", one, || with_length(3, Frames::of([Ok("aa"), Ok("b")])), complete(3)),
        ("a stream with a length", two, || with_length(3, Frames::of([Ok("aa"), Ok("b")])), complete(3)),
        ("a known text and trailers", one, || Response::new(with_status(known("aab"))), complete(3)),
        ("a known text and trailers", two, || Response::new(with_status(known("aab"))), graded(3)),
        ("a stream and trailers", two, || Response::new(with_status(Frames::of([Ok("aa"), Ok("b")]))), graded(3)),
        ("a length and trailers", two, || with_length(2, with_status(Frames::of([Ok("aa")]))), graded(2)),
    ];
    for (name, version, answer, expected) in rows {
        assert_eq!(delivered(version, answer).await, expected, "{name}, {version:?}");
    }
}

#[tokio::test]
async fn what_has_no_body_to_wait_for_is_recorded_at_the_head() {
    for (name, method, status) in [("head", Method::HEAD, 200), ("204", Method::GET, 204), ("304", Method::GET, 304)] {
        let (kept, audit) = audit();
        let inner = streams(|| [Ok("a")]).map_response(move |mut response| {
            *response.status_mut() = status.try_into().unwrap();
            response
        });
        let mut request = get("/");
        *request.method_mut() = method;
        let response = audit.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(kept.only().outcome(), AuditOutcome::Allowed, "{name}");
        drop(response);
        kept.only();
    }
}

#[tokio::test]
async fn a_second_audit_layer_refuses_and_the_outer_one_records() {
    let ((outer, first), (inner, second)) = (audit(), audit());
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let response = first.layer(second.layer(probe)).oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(seen.calls(), 0);
    assert_eq!((inner.all().len(), outer.only().rejection()), (0, Some(RejectionKind::Misconfigured)));
    assert_eq!(outer.only().outcome(), AuditOutcome::Failed);
}

#[tokio::test]
async fn an_audit_layer_inside_another_refuses_and_records_it() {
    let (kept, audit) = audit();
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let response = authn().layer(audit.layer(probe)).oneshot(as_alice("/")).await.unwrap();
    assert_eq!((response.status().as_u16(), seen.calls()), (500, 0));
    assert_eq!(kept.only().rejection(), Some(RejectionKind::Misconfigured));
}

#[tokio::test]
async fn no_secret_is_in_a_record() {
    let (kept, audit) = audit();
    let service = audit.layer(authn().layer(Probe::default()));
    let request = with(get(&format!("/orders?token={CANARY}&x=1")), "authorization", &format!("Device good{CANARY}"));
    let request = with(with(request, "cookie", &format!("session={CANARY}")), "x-api-key", CANARY);
    let bad = with(get(&format!("/?{CANARY}")), "authorization", &format!("Device {CANARY}"));
    for request in [request, bad] {
        service.clone().oneshot(request).await.unwrap();
    }
    let records = kept.all();
    assert_eq!(records.len(), 2);
    for record in &*records {
        assert!(!json(record).contains(CANARY), "{}", json(record));
        assert!(!format!("{record:?}{record:#?}").contains(CANARY));
    }
}

#[tokio::test]
async fn nothing_in_a_request_can_forge_a_line() {
    let (kept, audit) = audit();
    let handler = service_fn(|request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        context.note("agent", "x\r\n{\"outcome\":\"allowed\"}\u{1b}[2J\u{202e}\u{2028}");
        ready(Answer::Ok(
            Rejection::new(RejectionKind::Forbidden, format!("no {}", request.uri().path())).to_response(),
        ))
    });
    let long = "/\u{9b}".repeat(21_000); // nearly 64 KiB, the longest that the crate http takes
    for path in ["/%0d%0a%1b%5b2J", "/a\u{202e}b\u{2028}", &long] {
        let uri = http::Uri::from_maybe_shared(Bytes::from(path.to_owned())).unwrap();
        let mut request = get("/");
        *request.uri_mut() = uri;
        audit.layer(handler).oneshot(request).await.unwrap();
    }
    let records = kept.all();
    assert_eq!(records.len(), 3);
    for record in &*records {
        let line = json(record);
        assert!(line.len() < 4096, "{} bytes", line.len());
        assert!(line.chars().all(|c| c == '…' || c.is_ascii_graphic() || c == ' '), "{line}");
        assert!(record.path().len() <= 1024);
    }
    assert_eq!(records[1].path(), "/a%E2%80%AEb%E2%80%A8");
}

#[tokio::test]
async fn notes_are_bounded() {
    let (kept, audit) = audit();
    let handler = service_fn(|request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        for _ in 0..40 {
            context.note("note", &"v".repeat(100_000));
        }
        ready(Answer::Ok(Response::default()))
    });
    audit.layer(handler).oneshot(get("/")).await.unwrap();
    let record = kept.only();
    assert_eq!((record.notes().len(), record.notes_lost()), (16, 24));
    assert!(json(&record).len() < 16 * 1024);
    let mut line = Vec::new();
    AuditEntry::from(record).write_json(&mut line);
    assert!(line.len() <= 4096 && String::from_utf8(line).unwrap().ends_with(r#""truncated":true}"#));
}

#[tokio::test]
async fn a_request_without_a_connection_is_recorded_too() {
    let (kept, audit) = audit();
    audit.layer(Probe::default()).oneshot(Request::get("/").body(()).unwrap()).await.unwrap();
    assert_eq!((kept.only().address(), kept.only().is_secure()), (None, None));
    audit.layer(Probe::default()).oneshot(get_plain("/")).await.unwrap();
    assert_eq!(kept.all()[1].is_secure(), Some(false));
}

/// Panics, always.
#[derive(Clone, Debug)]
struct Panics;

#[async_trait]
impl AuditSink for Panics {
    fn accept(&self, _: AuditEntry) -> Result<(), Lost> {
        panic!("the sink is broken")
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_sink_that_panics_harms_nobody() {
    let service = AuditLayer::new(Panics).layer(Probe::default());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
    // A panic in a destructor that runs because of a panic would abort the process.
    let service = AuditLayer::new(Panics).layer(panics(1));
    assert!(tokio::spawn(service.oneshot(get("/"))).await.unwrap_err().is_panic());
    let kept = Kept::default();
    let service = AuditLayer::new((Panics, kept.clone())).layer(Probe::default());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
    kept.only();
}

#[tokio::test]
async fn the_layer_fits_a_router() {
    let (kept, audit) = audit();
    let router = axum::Router::new().route("/hello", axum::routing::get(async || "hello"));
    let service = router.layer(authn()).layer(audit);
    let request = as_alice("/hello").map(|()| axum::body::Body::empty());
    assert_eq!(support::text(service.oneshot(request).await.unwrap()).await, "hello");
    assert_eq!((kept.only().outcome(), &*kept.only().path()), (AuditOutcome::Allowed, "/hello"));
}

#[test]
fn the_service_can_be_shared() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    let (_, audit) = audit();
    shared(&audit);
    shared(&audit.layer(Probe::default()));
}

#[cfg(feature = "audit-json-lines")]
mod json_lines {
    use portcullis::audit::JsonLines;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn lines_parse_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let sink = Arc::new(JsonLines::open(&path).unwrap());
        let audit = AuditLayer::new(Arc::clone(&sink)).with_clock(Still);
        for n in 0..50 {
            let service = audit.layer(authn().layer(Probe::default()));
            service.oneshot(as_alice(&format!("/{n}?{CANARY}"))).await.unwrap();
        }
        sink.flush().await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(CANARY));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 50);
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line["path"], format!("/{n}"));
            assert_eq!(line["time"], "2027-01-15T08:00:00.000000000Z");
            assert_eq!(line["subject"]["subject"], "alice");
        }
    }

    #[tokio::test]
    async fn dropping_it_writes_what_is_queued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        for _ in 0..2 {
            let audit = AuditLayer::new(JsonLines::open(&path).unwrap());
            let service = audit.layer(Probe::default());
            drop(audit);
            for _ in 0..100 {
                service.clone().oneshot(get("/")).await.unwrap();
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 200, "appended, nothing lost");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let sink = JsonLines::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(sink);
    }

    #[test]
    fn several_writers_of_one_file_do_not_mix_their_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let link = directory.path().join("link.jsonl");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let link = if cfg!(unix) { &link } else { &path };
        std::thread::scope(|scope| {
            for path in [&path, &path, link] {
                scope.spawn(move || {
                    let audit = AuditLayer::new(JsonLines::open(path).unwrap());
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for _ in 0..300 {
                        runtime.block_on(audit.layer(Probe::default()).oneshot(get("/"))).unwrap();
                    }
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // What other tests do to the service, as events, is heard here too.
        assert_eq!(lines.iter().filter(|line| line["entry"] == "decided").count(), 900);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn flushes_while_records_arrive_wait_for_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let sink = Arc::new(JsonLines::open(&path).unwrap());
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (sink, path) = (Arc::clone(&sink), path.clone());
                tokio::spawn(async move {
                    let audit = AuditLayer::new(Arc::clone(&sink));
                    for _ in 0..25 {
                        let before = std::fs::read_to_string(&path).unwrap().lines().count();
                        audit.layer(Probe::default()).oneshot(get("/")).await.unwrap();
                        sink.flush().await.unwrap();
                        assert!(std::fs::read_to_string(&path).unwrap().lines().count() > before);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((std::fs::read_to_string(&path).unwrap().lines().count(), sink.lost()), (100, 0));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_loses_records_and_says_so_and_refuses_nobody() {
        let sink = Arc::new(JsonLines::open("/dev/full").unwrap());
        let audit = AuditLayer::new(Arc::clone(&sink)).without_events();
        for _ in 0..10 {
            assert_eq!(audit.layer(Probe::default()).oneshot(get("/")).await.unwrap().status(), 200);
        }
        assert!(sink.flush().await.is_err());
        assert_eq!(sink.lost(), 10);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = JsonLines::open("/no/such/directory/audit.jsonl").unwrap_err();
        assert!(error.to_string().contains("/no/such/directory/audit.jsonl"), "{error}");
    }
}

#[cfg(feature = "audit-tracing")]
mod tracing_events {
    use portcullis::audit::TracingSink;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn one_event_for_each_record() {
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::fmt().with_writer(buffer.clone()).with_ansi(false).finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let audit = AuditLayer::new(TracingSink::new()).with_clock(Still);
        let service = audit.layer(authn().layer(Probe::default()));
        service.clone().oneshot(as_alice(&format!("/orders?{CANARY}"))).await.unwrap();
        service.oneshot(with(get("/\u{202e}"), "authorization", &format!("Device {CANARY}"))).await.unwrap();
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for (line, fields) in [
            (
                lines[0],
                [
                    " INFO portcullis::audit:",
                    "outcome=\"allowed\"",
                    "status=200",
                    "subject=\"alice\"",
                    "path=\"/orders\"",
                    "client_address=198.51.100.7",
                ],
            ),
            (
                lines[1],
                [
                    " WARN portcullis::audit:",
                    "outcome=\"unauthenticated\"",
                    "status=401",
                    "rejection=\"invalid_credential\"",
                    "rejection_reason=\"device unknown\"",
                    "path=\"/%E2%80%AE\"",
                ],
            ),
        ] {
            for field in fields {
                assert!(line.contains(field), "{field} in {line}");
            }
        }
        assert!(!text.contains(CANARY));
    }
}

/// What strangers send must not hold up the threads that everybody needs, nor push out what others did.
#[tokio::test]
async fn strangers_have_room_of_their_own() {
    let (channel, mut receiver) = Channel::new(8, WhenFull::Wait(Duration::from_secs(600))).unwrap();
    let channel = Arc::new(channel);
    let kept: Arc<Mutex<Vec<SecurityContext>>> = Arc::default();
    let contexts = Arc::clone(&kept);
    let handler = service_fn(move |request: Request<()>| {
        let waits = request.uri().path() == "/waits";
        contexts.lock().unwrap().extend(SecurityContext::of(request.extensions()).cloned());
        async move {
            if waits {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("healthy")))
        }
    });
    let app = AuditLayer::new(Arc::clone(&channel)).with_completions().layer(authn().allow_anonymous().layer(handler));
    for _ in 0..9 {
        let response = app.clone().oneshot(get("/health")).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        let given_up = std::pin::pin!(app.clone().oneshot(get("/waits")));
        assert!(given_up.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    kept.lock().unwrap().iter().for_each(|context| context.note("frame", "1"));
    assert!(channel.lost() > 0, "the strangers' own");
    assert_eq!(app.oneshot(with(get("/orders"), "authorization", "Device good")).await.unwrap().status(), 200);
    tell(Event::new(EventKind::KeyRevoked, "key of a stolen laptop"));
    let (mut alice, mut revoked) = (false, false);
    for entry in receiver.receive(Duration::ZERO).unwrap() {
        match entry {
            AuditEntry::Decided(record) => alice |= record.subject().is_some(),
            AuditEntry::Event(event) => revoked |= event.about() == "key of a stolen laptop",
            _ => {}
        }
    }
    assert!(alice && revoked, "{alice} {revoked}");
}
