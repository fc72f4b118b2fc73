//! Parts that users plug in, and that panic or never answer: nobody passes, the request is answered in time, and its record says
//! where it was.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "own_parts/broken.rs"]
mod broken;
mod support;

use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use portcullis::{
    Challenge, Connection, Instants, RejectionKind, RequestHead, TlsVersion,
    audit::{AuditLayer, AuditOutcome, AuditRecord},
    authn::{Authenticator, AuthnLayer, Outcome},
    guard::{self, authenticated, require},
    policy::{AccessQuery, PolicyBackend, Verdict},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use self::{
    broken::{Fault, PARTS, Parts},
    support::{Probe, get, kept::Kept},
};

fn around(kept: &Kept, parts: &Parts) -> Stack {
    parts.stack().audit(AuditLayer::new(kept.clone())).build().unwrap()
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Polls a few times, and leaves.
fn give_up(future: impl Future) {
    let mut future = pin!(future);
    for _ in 0..4 {
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

fn sound() -> Parts {
    Parts::new("none", Fault::Hangs)
}

#[test]
fn the_record_of_a_request_that_is_given_up_says_where_it_waited() {
    let kept = Kept::default();
    for part in PARTS.iter().filter(|part| part.waits) {
        let parts = Parts::new(part.name, Fault::Hangs);
        give_up(around(&kept, &parts).protect(Probe::default()).oneshot(parts.request()));
        let record = kept.one(part.name);
        let told = (record.outcome(), record.stopped_in());
        assert_eq!(told, (AuditOutcome::Aborted, Some(part.stage)), "{}", part.name);
        assert_eq!(serde_json::to_value(&record).unwrap()["stopped_in"], part.stage, "{}", part.name);
    }
    let handler = service_fn(|_: Request<()>| pending::<Answer>());
    give_up(around(&kept, &sound()).protect(handler).oneshot(sound().request()));
    let record = kept.one("handler");
    assert_eq!((record.outcome(), record.stopped_in()), (AuditOutcome::Aborted, Some("handler")));
}

#[tokio::test]
async fn a_handler_that_panics_is_left_to_the_server_and_its_record_says_so() {
    let kept = Kept::default();
    let app = around(&kept, &sound()).protect(service_fn(|request: Request<()>| {
        assert!(!request.headers().contains_key("x-poison"), "a bug in the handler");
        ready(Answer::Ok(Response::default()))
    }));
    let poisoned = support::with(sound().request(), "x-poison", "1");
    assert!(tokio::spawn(app.clone().oneshot(poisoned)).await.unwrap_err().is_panic());
    let record = kept.one("panics");
    let told = (record.outcome(), record.status(), record.stopped_in());
    assert_eq!(told, (AuditOutcome::Panicked, None, Some("handler")));
    assert_eq!(app.oneshot(sound().request()).await.unwrap().status(), 200);
    assert_eq!(kept.one("passes").stopped_in(), None, "what was answered stopped nowhere");
}

#[tokio::test]
async fn a_refusal_stopped_nowhere_unless_nobody_took_it() {
    let kept = Kept::default();
    let mut app = around(&kept, &sound()).protect(Probe::default());
    assert_eq!(app.clone().oneshot(get("/orders")).await.unwrap().status(), 401);
    assert_eq!(kept.one("refused").stopped_in(), None);
    drop(ServiceExt::<Request<()>>::ready(&mut app).await.unwrap().call(get("/orders")));
    let record = kept.one("refused, and dropped");
    assert_eq!((record.outcome(), record.stopped_in()), (AuditOutcome::Aborted, Some("guard")));
}

fn unavailable(reason: &str, stage: &'static str) -> (Option<RejectionKind>, Option<String>, Option<&'static str>) {
    (Some(RejectionKind::Unavailable), Some(reason.to_owned()), Some(stage))
}

fn refusal(record: &AuditRecord) -> (Option<RejectionKind>, Option<String>, Option<&'static str>) {
    (record.rejection(), record.rejection_reason().map(str::to_owned), record.refused_by())
}

#[tokio::test]
async fn a_part_that_panics_is_503_and_its_record_says_where() {
    for part in &PARTS {
        for fault in [Fault::PanicsAtOnce, Fault::PanicsLater] {
            if fault == Fault::PanicsLater && !part.waits {
                continue;
            }
            let (name, kept) = (format!("{}, {fault:?}", part.name), Kept::default());
            let parts = Parts::new(part.name, fault);
            let probe = Probe::default();
            let app = around(&kept, &parts).protect(probe.clone());
            for _ in 0..3 {
                let answer = app.clone().oneshot(parts.request()).await.unwrap();
                assert_eq!(answer.status(), 503, "{name}");
                assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
                assert!(!support::text(answer).await.contains("bug"), "{name}: the client learns nothing of it");
                let record = kept.one(&name);
                let told = (record.outcome(), record.status(), record.stopped_in());
                assert_eq!(told, (AuditOutcome::Panicked, Some(503), Some(part.stage)), "{name}");
                assert_eq!(refusal(&record), unavailable(&format!("{} panicked", part.stage), part.stage), "{name}");
            }
            assert_eq!(probe.seen.calls(), 0, "{name}: nobody passed");
            parts.mend();
            assert_eq!(app.oneshot(parts.request()).await.unwrap().status(), 200, "{name}, mended");
            assert_eq!((kept.one(&name).stopped_in(), probe.seen.calls()), (None, 1), "{name}, mended");
        }
    }
}

#[tokio::test]
async fn a_single_layer_whose_part_panics_is_503() {
    let kept = Kept::default();
    let audit = || AuditLayer::new(kept.clone());
    for fault in [Fault::PanicsAtOnce, Fault::PanicsLater] {
        let parts = Parts::new("authenticator", fault);
        let authn = AuthnLayer::new(parts.authenticator()).dangerous_plain_http();
        let app = audit().layer(authn.layer(Probe::default()));
        assert_eq!(app.clone().oneshot(parts.request()).await.unwrap().status(), 503, "{fault:?}");
        let record = kept.one("authenticator");
        assert_eq!((record.outcome(), record.stopped_in()), (AuditOutcome::Panicked, Some("authentication")));
        assert_eq!(refusal(&record), unavailable("authentication panicked", "authentication"));
        parts.mend();
        assert_eq!(app.oneshot(parts.request()).await.unwrap().status(), 200, "{fault:?}");
        kept.one("mended");
    }

    let parts = Parts::new("check", Fault::PanicsAtOnce);
    let authn = AuthnLayer::new(parts.authenticator()).dangerous_plain_http();
    let app = audit().layer(authn.layer(parts.check().layer(Probe::default())));
    assert_eq!(app.oneshot(parts.request()).await.unwrap().status(), 503);
    assert_eq!(refusal(&kept.one("check")), unavailable("guard panicked", "guard"));

    let parts = Parts::new("key of a place", Fault::PanicsAtOnce);
    let places = parts.places();
    let app = audit().layer(places.layer(Probe::default()));
    assert_eq!(app.clone().oneshot(parts.request()).await.unwrap().status(), 503);
    assert_eq!(refusal(&kept.one("places")), unavailable("client_limit panicked", "client_limit"));
    parts.mend();
    assert_eq!((app.oneshot(parts.request()).await.unwrap().status(), places.running()), (StatusCode::OK, 0));
}

/// A panic that unwound through the server would cut the connection, and a proxy would ask the next server the same.
#[tokio::test]
async fn the_connection_stays() {
    let parts = Parts::new("policy", Fault::PanicsAtOnce);
    let handler = service_fn(|_: Request<Incoming>| ready(Answer::Ok(Response::new(Full::from("hello")))));
    let app = parts.stack().build().unwrap().protect(handler);
    let app = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
        app.clone().oneshot(request)
    });
    let (here, there) = tokio::io::duplex(65_536);
    let server = http1::Builder::new().serve_connection(TokioIo::new(there), TowerToHyperService::new(app));
    tokio::spawn(server);
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await.unwrap();
    tokio::spawn(connection);
    let request = || parts.request().map(|()| Empty::<Bytes>::new());
    assert_eq!(client.send_request(request()).await.unwrap().status(), 503);
    parts.mend();
    assert_eq!(client.send_request(request()).await.unwrap().status(), 200);
}

async fn seconds<T>(future: impl Future<Output = T>) -> (u64, T) {
    let start = tokio::time::Instant::now();
    let output = future.await;
    (start.elapsed().as_secs(), output)
}

#[tokio::test(start_paused = true)]
async fn a_part_that_never_answers_is_503_in_time_and_its_record_says_who() {
    for part in PARTS.iter().filter(|part| part.waits) {
        for (time, expected) in [(None, 30), (Some(2), 2)] {
            let (name, kept, probe) = (part.name, Kept::default(), Probe::default());
            let parts = Parts::new(name, Fault::Hangs);
            let stack = parts.stack().audit(AuditLayer::new(kept.clone()));
            let stack = time.into_iter().map(Duration::from_secs).fold(stack, StackBuilder::decide_within);
            let app = stack.build().unwrap().protect(probe.clone());
            for _ in 0..2 {
                let (waited, answer) = seconds(app.clone().oneshot(parts.request())).await;
                assert_eq!((waited, answer.unwrap().status().as_u16()), (expected, 503), "{name}");
                let record = kept.one(name);
                let told = (record.outcome(), record.status(), record.stopped_in());
                assert_eq!(told, (AuditOutcome::Failed, Some(503), None), "{name}");
                let who = match part.stage {
                    "client_limit" => "the limit clients",
                    "principal_limit" => "the limit principals",
                    "guard" => "the policy ledger",
                    stage => stage,
                };
                let reason = format!("{who} did not answer within {expected}s");
                assert_eq!(refusal(&record), unavailable(&reason, part.stage), "{name}");
            }
            assert_eq!(probe.seen.calls(), 0, "{name}: nobody passed");
            parts.mend();
            assert_eq!(app.oneshot(parts.request()).await.unwrap().status(), 200, "{name}, mended");
        }
    }
}

/// Answers after this many seconds.
#[derive(Debug)]
struct Slow<T>(T, u64);

#[async_trait]
impl Authenticator for Slow<Parts> {
    fn challenges(&self) -> Vec<Challenge> {
        self.0.authenticator().challenges()
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        tokio::time::sleep(Duration::from_secs(self.1)).await;
        self.0.authenticator().authenticate(head, at).await
    }
}

#[async_trait]
impl PolicyBackend for Slow<()> {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        tokio::time::sleep(Duration::from_secs(self.1)).await;
        Verdict::allow()
    }
}

fn slow(authenticator: u64, policy: u64) -> StackBuilder {
    let builder = Stack::builder().tls(TlsLayer::require()).authenticate(Slow(sound(), authenticator));
    builder.policy(Slow((), policy)).route("GET /orders", require(guard::policy("orders:read").unwrap()))
}

#[tokio::test(start_paused = true)]
async fn the_time_is_that_of_all_stages_together_and_not_the_handlers() {
    let handler = || {
        service_fn(async |_: Request<()>| {
            tokio::time::sleep(Duration::from_secs(90)).await;
            Answer::Ok(Response::default())
        })
    };
    for (authenticator, policy, expected) in [(14, 15, (119, 200)), (20, 20, (30, 503)), (20, 100, (30, 503))] {
        let app = slow(authenticator, policy).build().unwrap().protect(handler());
        let (waited, answer) = seconds(app.oneshot(sound().request())).await;
        assert_eq!((waited, answer.unwrap().status().as_u16()), expected, "{authenticator} and {policy} s");
    }
}

#[cfg(feature = "throttle")]
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_waits_for_no_part() {
    use portcullis::rate_limit::{Quota, RateLimitLayer, Throttle};

    let turns = || {
        let limit = RateLimitLayer::per_client(Quota::per_minute(1)).unwrap();
        limit.throttle(Throttle::new(Duration::from_secs(60), 8).unwrap())
    };
    let app = slow(1, 20).limit(turns()).build().unwrap().protect(Probe::default());
    assert_eq!(app.clone().oneshot(sound().request()).await.unwrap().status(), 200);
    let (waited, answer) = seconds(app.oneshot(sound().request())).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert!(waited > 50, "{waited} s: it had to wait for its turn");
}

/// Without a timer there is no end, and nothing panics for it.
#[test]
fn without_a_timer_the_waiting_goes_on() {
    let hangs = Parts::new("policy", Fault::Hangs);
    let app = hangs.stack().build().unwrap().protect(Probe::default());
    give_up(app.clone().oneshot(hangs.request()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { give_up(app.oneshot(hangs.request())) });
}

#[test]
fn the_time_has_bounds_and_is_said_once() {
    let build = |times: &[Duration]| {
        let builder = Stack::builder().dangerous_plain_http();
        times.iter().fold(builder, |builder, time| builder.decide_within(*time)).build()
    };
    let (least, most) = (Duration::from_nanos(1), Duration::from_secs(600));
    for times in [vec![], vec![least], vec![most]] {
        assert!(build(&times).is_ok(), "{times:?}");
    }
    for times in [vec![Duration::ZERO], vec![most + least], vec![least, least]] {
        assert_eq!(build(&times).unwrap_err().setting(), "decide_within", "{times:?}");
    }
}

/// Each single layer says when it begins, and when it lets a request pass.
#[tokio::test]
async fn the_record_of_single_layers_says_where_a_request_waited() {
    let kept = Kept::default();
    let audit = || AuditLayer::new(kept.clone());
    let hangs = Parts::new("authenticator", Fault::Hangs);
    let authn = |parts: &Parts| AuthnLayer::new(parts.authenticator()).dangerous_plain_http();
    let guard = || require(authenticated());

    let waits = audit().layer(authn(&hangs).layer(guard().layer(Probe::default())));
    give_up(waits.oneshot(hangs.request()));
    assert_eq!(kept.one("authenticator").stopped_in(), Some("authentication"));

    let handler = service_fn(|_: Request<()>| pending::<Answer>());
    give_up(audit().layer(authn(&sound()).layer(guard().layer(handler))).oneshot(sound().request()));
    assert_eq!(kept.one("handler").stopped_in(), Some("handler"));

    // Somebody between the two answers before the decision is there, as a time-out does.
    let inner = authn(&hangs).layer(Probe::default());
    let impatient = service_fn(move |request: Request<()>| {
        give_up(inner.clone().oneshot(request));
        ready(Answer::Ok(Response::builder().status(504).body(Full::default()).unwrap()))
    });
    assert_eq!(audit().layer(impatient).oneshot(hangs.request()).await.unwrap().status(), 504);
    let record = kept.one("answered by another");
    assert_eq!((record.status(), record.stopped_in()), (Some(504), Some("authentication")));
}
