//! What the benches share: contenders that take turns, and a table of the ratios between them.
//!
//! On a noisy machine the ratios are what can be compared. Contenders run in short slices, one after the other; a ratio is
//! the median over the rounds of (contender / reference in the same round).

#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

pub mod provider;
mod rounds;

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, routing::get};
use http::{Request, Response};
use portcullis::{Connection, TlsVersion};
#[allow(unused_imports, reason = "each bench uses a part of it")]
pub use rounds::{Timed, measure, random, time};
use tower::{Service, util::BoxCloneSyncService};

pub type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// One thing to measure: a service, and the requests that it gets.
pub struct Contender {
    pub name: &'static str,
    pub app: App,
    pub status: u16,
    count: usize,
    make: Box<dyn Fn(usize) -> Request<Body>>,
}

impl Contender {
    pub fn new<S>(name: &'static str, app: S, request: &Request<()>) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self::with_requests(name, app, std::slice::from_ref(request))
    }

    /// It gets all of these, in random order.
    pub fn with_requests<S>(name: &'static str, app: S, requests: &[Request<()>]) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let requests: Vec<_> = requests.iter().map(|request| request.clone().map(|()| Body::empty())).collect();
        Self::with_made_requests(name, app, requests.len(), move |index| copy(&requests[index]))
    }

    /// It gets so many, each of which is made when it is needed.
    pub fn with_made_requests<S>(
        name: &'static str,
        app: S,
        count: usize,
        make: impl Fn(usize) -> Request<Body> + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        // The box is the same for all contenders, the bare router included.
        Self { name, app: BoxCloneSyncService::new(app), status: 200, count, make: Box::new(make) }
    }

    pub fn refused(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sends each request once, whatever the answers are.
    pub fn send_each(&self) {
        (0..self.count).for_each(|index| drop(send(&self.app, (self.make)(index))));
    }

    /// Sends each request once, and checks that each gets this status.
    pub fn send_each_as(&self, status: u16) {
        for index in 0..self.count {
            assert_eq!(send(&self.app, (self.make)(index)).status(), status, "{}", self.name);
        }
    }

    /// Sends each request once, and checks the answers.
    pub fn warm_up(&self) {
        self.send_each_as(self.status);
    }

    pub fn a_request(&self) -> Request<Body> {
        (self.make)(random(self.count))
    }

    pub fn timed(&self) -> Timed<'_> {
        Timed {
            name: self.name,
            slice: Box::new(move |count| {
                let batches = count.div_ceil(BATCH).max(1);
                let mut taken = 0.0;
                for _ in 0..batches {
                    let requests: Vec<_> = (0..BATCH).map(|_| self.a_request()).collect();
                    taken += time(|| {
                        for request in requests {
                            black_box(send(&self.app, request));
                        }
                    });
                }
                taken / (batches * BATCH) as f64
            }),
            once: Box::new(|| {
                let request = self.a_request();
                allocation_counter::measure(|| drop(black_box(send(&self.app, request)))).count_total
            }),
        }
    }
}

/// Few at a time: a request that was just read from a socket is in the processor's cache.
const BATCH: usize = 64;

/// Bodies cannot be cloned; heads can.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copied = Request::new(Body::empty());
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    copied.headers_mut().extend(request.headers().iter().map(|(name, value)| {
        // Fresh bytes for each request, as from a socket.
        (name.clone(), http::HeaderValue::from_bytes(value.as_bytes()).expect("came from a header"))
    }));
    *copied.extensions_mut() = request.extensions().clone();
    copied
}

/// Sends one request as a server does: clone, ready, call, poll to the end.
pub fn send(app: &App, request: Request<Body>) -> Response<Body> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut app = app.clone();
    assert!(app.poll_ready(&mut cx).is_ready());
    match pin!(app.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("the answer is in memory"),
    }
}

/// `count NAME REQUESTS` on the command line sends so many requests through one contender, for callgrind and perf to look at.
pub fn counted(contenders: &[Contender]) -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [command, name, requests] = &arguments[..] else { return false };
    if command != "count" {
        return false;
    }
    let contender = contenders.iter().find(|contender| contender.name == name).expect("a contender's name");
    contender.warm_up();
    let mut left: usize = requests.parse().expect("a number");
    while left > 0 {
        let batch = left.min(BATCH);
        send_all(contender, (0..batch).map(|_| contender.a_request()).collect());
        left -= batch;
    }
    true
}

/// The part that callgrind counts.
#[inline(never)]
fn send_all(contender: &Contender, requests: Vec<Request<Body>>) {
    for request in requests {
        assert_eq!(send(&contender.app, request).status(), contender.status);
    }
}

pub fn router() -> Router {
    Router::new().route("/orders", get(async || "orders"))
}

pub fn base() -> Request<()> {
    let mut request = Request::get("/orders").header("host", "api.example.com").body(()).expect("a request");
    request
        .extensions_mut()
        .insert(Connection::tls("198.51.100.7:52100".parse().expect("an address"), TlsVersion::Tls13));
    request
}

pub fn with(name: &'static str, value: &str) -> Request<()> {
    let mut request = base();
    request.headers_mut().insert(name, value.parse().expect("a header value"));
    request
}

pub fn bearer(token: &str) -> Request<()> {
    with("authorization", &format!("Bearer {token}"))
}
