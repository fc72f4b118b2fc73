//! API key stores behind the layer: those that wait, those that fail, and the futures that are dropped meanwhile.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use http::{Request, StatusCode, header};
use portcullis::{
    Clock, Instants, Now, RejectionKind, RequestHead, StoreError, StoreErrorKind, SystemClock,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyRecord, ApiKeyStore, Found, Hit, KeyId, Lookup, MemoryKeyStore,
        NewApiKey,
    },
    authn::{Authenticator, AuthnLayer, Outcome},
    gate::Gate,
};
use support::{NOW, Probe, get, send, text, with};
use tower::{Layer, Service, ServiceExt};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

fn billing() -> NewApiKey {
    NewApiKey::for_subject("billing")
}

fn protect(authenticator: impl Authenticator) -> Gate<Probe, AuthnLayer> {
    AuthnLayer::new(authenticator).dangerous_plain_http().layer(Probe::default())
}

async fn ready(service: &mut Gate<Probe, AuthnLayer>) -> &mut Gate<Probe, AuthnLayer> {
    ServiceExt::<Request<()>>::ready(service).await.unwrap()
}

/// A store that must wait: it answers at its second poll, or never.
#[derive(Debug)]
struct Remote {
    keys: HashMap<KeyId, Arc<ApiKeyRecord>>,
    answers: bool,
    asked: AtomicUsize,
}

#[async_trait]
impl ApiKeyStore for Remote {
    async fn find(&self, lookup: Lookup) -> Found {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.answers {
            tokio::task::yield_now().await;
        } else {
            std::future::pending::<()>().await;
        }
        Ok(self.keys.get(lookup.id()).cloned().map(Hit::new))
    }
}

fn remote(answers: bool) -> (Arc<Remote>, ApiKey) {
    let (key, record) = billing().mint(SystemClock::new().now()).unwrap();
    let keys = HashMap::from([(*record.id(), Arc::new(record))]);
    (Arc::new(Remote { keys, answers, asked: AtomicUsize::new(0) }), key)
}

#[tokio::test]
async fn a_store_that_waits_gets_the_service_that_was_ready() {
    let (store, key) = remote(true);
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let mut service = AuthnLayer::new(ApiKeyAuthenticator::new(Arc::clone(&store))).dangerous_plain_http().layer(probe);

    // The probe panics if it is called without having been found ready.
    let request = with(get("/"), "x-api-key", key.expose());
    let response = ready(&mut service).await.call(request).await.unwrap();
    assert_eq!(text(response).await, "billing");
    assert_eq!((seen.calls(), seen.clones(), store.asked.load(Ordering::SeqCst)), (1, 1, 1));

    let (unknown, _) = billing().mint(AT).unwrap();
    let request = with(get("/"), "x-api-key", unknown.expose());
    let response = ready(&mut service).await.call(request).await.unwrap();
    assert_eq!((response.status(), seen.calls()), (StatusCode::UNAUTHORIZED, 1));

    // What needs no store neither asks it nor clones.
    for request in [get("/"), with(get("/"), "x-api-key", &format!("{}0", key.expose()))] {
        let response = ready(&mut service).await.call(request).await.unwrap();
        assert_eq!(response.status(), 401);
    }
    assert_eq!((seen.clones(), store.asked.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test]
async fn a_store_in_memory_costs_no_clone_of_the_service() {
    let store = MemoryKeyStore::new();
    let (key, record) = billing().mint(SystemClock::new().now()).unwrap();
    store.add(record).unwrap();
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let mut service = AuthnLayer::new(ApiKeyAuthenticator::new(store)).dangerous_plain_http().layer(probe);
    let request = with(get("/"), "x-api-key", key.expose());
    assert_eq!(ready(&mut service).await.call(request).await.unwrap().status(), 200);
    assert_eq!((seen.calls(), seen.clones()), (1, 0));
}

#[tokio::test]
async fn dropping_a_request_that_waits_is_safe() {
    let (store, key) = remote(false);
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let mut service = AuthnLayer::new(ApiKeyAuthenticator::new(Arc::clone(&store))).dangerous_plain_http().layer(probe);
    for asked in 1..=2 {
        let mut waiting = Box::pin(ready(&mut service).await.call(with(get("/"), "x-api-key", key.expose())));
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(first, "the store never answers");
        drop(waiting);
        assert_eq!((seen.calls(), store.asked.load(Ordering::SeqCst)), (0, asked));
    }
}

/// A store that fails, at once or after a wait.
#[derive(Debug)]
struct Broken {
    at_once: bool,
}

impl Broken {
    fn error() -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, "broken").caused_by("password=hunter2")
    }
}

#[async_trait]
impl ApiKeyStore for Broken {
    fn find_now(&self, _: Lookup) -> Now<Found> {
        if self.at_once { Now::Known(Err(Self::error())) } else { Now::Wait }
    }

    async fn find(&self, _: Lookup) -> Found {
        Err(Self::error())
    }
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_never_a_bad_key() {
    let (key, _) = billing().mint(AT).unwrap();
    for at_once in [true, false] {
        let authenticator = ApiKeyAuthenticator::new(Broken { at_once });
        let request = with(get("/"), "x-api-key", key.expose());
        let Outcome::Refused(rejection) = authenticator.authenticate(&RequestHead::of(&request), AT).await else {
            panic!("not refused");
        };
        assert_eq!(rejection.kind(), RejectionKind::Unavailable);
        assert_eq!(rejection.reason(), "API key: broken: backend unavailable");

        let service = protect(authenticator);
        let response = send(&service, request).await;
        assert_eq!(response.status(), 503);
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
        let noise = with(get("/"), "x-api-key", "noise");
        assert_eq!(send(&service, noise).await.status(), 401, "noise does not reach the store");
    }
}

#[tokio::test]
async fn issuing_stores_the_record_and_a_failing_store_is_an_error() {
    let store: Arc<dyn ApiKeyAdmin> = Arc::new(MemoryKeyStore::new());
    let (key, record) = billing().issue(&*store, AT).await.unwrap();
    assert_eq!(**store.get(&key.id()).await.unwrap().unwrap().record(), record);
    let taken = store.insert(record).await.unwrap_err();
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
}
