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
    sync::{Arc, Mutex},
    task::{Context, Waker},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use portcullis::{
    Connection, RejectionKind, StoreError, TlsVersion,
    audit::{AuditEntry, AuditLayer, AuditOutcome, AuditRecord, AuditSink, Lost},
    authn::AuthnLayer,
    guard::{authenticated, require},
    stack::Stack,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use self::{
    broken::{Fault, PARTS, Parts},
    support::{Probe, get},
};

/// Keeps the records.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<AuditRecord>>>);

impl Kept {
    fn one(&self, name: &str) -> AuditRecord {
        let records = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(records.len(), 1, "{name}: exactly one record: {records:?}");
        records[0].clone()
    }

    fn around(&self, parts: &Parts) -> Stack {
        parts.stack().audit(AuditLayer::new(self.clone())).build().unwrap()
    }
}

#[async_trait]
impl AuditSink for Kept {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.0.lock().unwrap().extend(entry.decided().cloned());
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
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
        give_up(kept.around(&parts).protect(Probe::default()).oneshot(parts.request()));
        let record = kept.one(part.name);
        let told = (record.outcome(), record.stopped_in());
        assert_eq!(told, (AuditOutcome::Aborted, Some(part.stage)), "{}", part.name);
        assert_eq!(serde_json::to_value(&record).unwrap()["stopped_in"], part.stage, "{}", part.name);
    }
    let handler = service_fn(|_: Request<()>| pending::<Answer>());
    give_up(kept.around(&sound()).protect(handler).oneshot(sound().request()));
    let record = kept.one("handler");
    assert_eq!((record.outcome(), record.stopped_in()), (AuditOutcome::Aborted, Some("handler")));
}

#[tokio::test]
async fn a_handler_that_panics_is_left_to_the_server_and_its_record_says_so() {
    let kept = Kept::default();
    let app = kept.around(&sound()).protect(service_fn(|request: Request<()>| {
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
    let mut app = kept.around(&sound()).protect(Probe::default());
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
            let app = kept.around(&parts).protect(probe.clone());
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
