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
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    StoreError,
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
