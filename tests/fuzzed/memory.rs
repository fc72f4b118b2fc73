//! Everything in memory: a clock that stands still, services that answer at once.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use portcullis::{
    ClientCertificate, Connection, Instants, Now, RequestHead, Slot, TlsVersion,
    authn::{Authenticator, Outcome},
    client_cert::ClientCertAuthenticator,
    testing::TestClock,
};
use tower::{Service, ServiceExt, service_fn};

/// A fixed time: 2027-01-15 08:00:00 UTC.
pub const NOW: u64 = 1_800_000_000;

/// A clock that stands still at [`NOW`].
pub fn clock() -> TestClock {
    TestClock::at_unix(NOW)
}

/// [`NOW`] as a reading.
pub const fn at() -> Instants {
    Instants::new(NOW * 1_000_000_000, 0)
}

/// What a future answers that never has to wait, as none does whose backends are in memory.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits, and everything is in memory"),
    }
}

/// Sends a request.
pub fn send<S>(service: S, request: Request<()>) -> Response<Full<Bytes>>
where
    S: Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let Ok(response) = now(service.oneshot(request));
    response
}

/// Where a [`handler`] leaves the request that reached it.
pub type Reached = Arc<Mutex<Option<Request<()>>>>;

/// A service that keeps the request and answers `200`.
pub fn handler(
    reached: &Reached,
) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + use<> {
    let reached = Arc::clone(reached);
    service_fn(move |request| {
        *reached.lock().unwrap() = Some(request);
        std::future::ready(Ok(Response::new(Full::default())))
    })
}

/// Whom an authenticator finds in the certificate of a connection. None if it refuses it.
pub fn subject_of(authenticator: &ClientCertAuthenticator, certificate: ClientCertificate) -> Option<String> {
    let peer = "198.51.100.7:52100".parse().unwrap();
    let mut request = Request::new(());
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13).with_client_certificate(certificate));
    match authenticator.authenticate_now(&RequestHead::of(&request), at()) {
        Now::Known(Outcome::Verified(identity)) => Some(identity.in_slot(Slot::Subject).unwrap().subject().to_owned()),
        Now::Known(Outcome::RefusedIfNeeded(_)) => None,
        other => panic!("{other:?}"),
    }
}

/// The lines of an input.
pub fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == b'\n')
}

/// Header fields, one a line: names and values.
pub fn fields(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(data).filter_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        Some((name, value[1..].trim_ascii()))
    })
}

/// Puts those of these [`fields`] into a request that HTTP can carry.
pub fn append(headers: &mut HeaderMap, data: &[u8]) {
    for (name, value) in fields(data) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
}
