//! What the tests share: a probe service, a clock, and short ways to send a request and read the answer.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[cfg(feature = "tls-listener")]
pub mod certs;
#[cfg(feature = "tls-listener")]
pub mod foreign;
#[cfg(feature = "audit")]
pub mod kept;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Challenge, Clock, Connection, Instants, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead,
    SecurityContext, StoreError, TlsVersion,
    audit::{AuditEntry, AuditSink, Lost},
    authn::{Authenticator, Outcome, authenticate_fn},
};
use tower::{Service, ServiceExt};

/// A fixed time for tests: 2027-01-15 08:00:00 UTC.
pub const NOW: u64 = 1_800_000_000;

/// A clock that stands still at [`NOW`].
#[derive(Clone, Debug)]
pub struct Still;

impl Clock for Still {
    fn now(&self) -> Instants {
        Instants::new(NOW * 1_000_000_000, 0)
    }
}

/// What a [`Probe`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: AtomicUsize,
    pub clones: AtomicUsize,
}

impl Seen {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn clones(&self) -> usize {
        self.clones.load(Ordering::SeqCst)
    }
}

/// An inner service that answers `200` with the caller's subject (or `-`), counts calls and clones, and panics if it is
/// called without having been found ready.
#[derive(Debug, Default)]
pub struct Probe {
    pub seen: Arc<Seen>,
    ready: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        self.seen.clones.fetch_add(1, Ordering::SeqCst);
        Self { seen: Arc::clone(&self.seen), ready: false }
    }
}

impl<B> Service<Request<B>> for Probe {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let principal = SecurityContext::of(request.extensions()).and_then(SecurityContext::principal);
        let body = principal.map_or_else(|| "-".to_owned(), |principal| principal.subject().to_owned());
        let mut response = Response::new(Full::from(body));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        ready(Ok(response))
    }
}

/// Everybody is this principal.
pub fn everybody(who: Principal) -> impl Authenticator {
    authenticate_fn(Challenge::new("Test", "tests").unwrap(), move |_, _| Outcome::verified(who.clone()))
}

/// The status that a guard on an axum route gives to who is this principal.
#[cfg(feature = "guard")]
pub async fn on_route(
    template: &str,
    guard: portcullis::guard::GuardLayer,
    who: portcullis::PrincipalBuilder,
    path: &str,
) -> u16 {
    let authn = portcullis::authn::AuthnLayer::new(everybody(who.build())).dangerous_plain_http();
    let router = axum::Router::new().route(template, axum::routing::get(async || "handler").layer(guard)).layer(authn);
    router.oneshot(get(path).map(|()| axum::body::Body::empty())).await.unwrap().status().as_u16()
}

/// A GET over TLS 1.3 from 198.51.100.7.
pub fn get(path: &str) -> Request<()> {
    let mut request = Request::get(path).body(()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    request
}

/// The same over plain HTTP.
pub fn get_plain(path: &str) -> Request<()> {
    let mut request = Request::get(path).body(()).unwrap();
    request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
    request
}

/// Adds a header field.
pub fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

/// Sends one request through a clone of the service.
pub async fn send<S, R>(service: &S, request: Request<()>) -> Response<R>
where
    S: Service<Request<()>, Response = Response<R>, Error = Infallible> + Clone,
{
    service.clone().oneshot(request).await.unwrap()
}

/// Reads a body as text.
pub async fn text<R>(response: Response<R>) -> String
where
    R: http_body::Body,
    R::Error: std::fmt::Debug,
{
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Takes `Authorization: Test <subject>`; the subject `boss` has the role `manager`, `bad` is refused, and everybody else has
/// the role `clerk` and the scope `orders:read`.
pub fn test_scheme() -> impl Authenticator {
    let challenge = Challenge::new("Test", "tests").unwrap();
    authenticate_fn(challenge, |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.is_scheme("Test") => match credential.token() {
            "bad" => Rejection::new(RejectionKind::InvalidCredential, "bad test credential").into(),
            subject => Outcome::verified(person(subject)),
        },
        Ok(_) => Outcome::Absent,
        Err(rejection) => rejection.into(),
    })
}

/// The principal that [`test_scheme`] makes.
pub fn person(subject: &str) -> Principal {
    let role = if subject == "boss" { "manager" } else { "clerk" };
    Principal::builder(PrincipalKind::User, "https://id.test", subject, "test")
        .roles([role])
        .scopes(["orders:read"])
        .build()
}

/// The same as [`test_scheme`], for one that has to wait: it is not ready at the first poll.
#[derive(Debug)]
pub struct Waiting<A>(pub A);

#[async_trait::async_trait]
impl<A: Authenticator> Authenticator for Waiting<A> {
    fn challenges(&self) -> Vec<Challenge> {
        self.0.challenges()
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        tokio::task::yield_now().await;
        self.0.authenticate(head, at).await
    }
}

/// An audit sink that keeps nothing.
#[derive(Debug)]
pub struct Discard;

#[async_trait::async_trait]
impl AuditSink for Discard {
    fn accept(&self, _: AuditEntry) -> Result<(), Lost> {
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
