use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    audit::{AuditSink, guard::Entry},
    body::ResponseBody,
    clock::{Clock, SystemClock},
    context::{SecurityContext, Stage},
    gate::report,
    head::RequestHead,
    rejection::Rejection,
};

/// Applies [`Audit`]. See the [module docs](super) for an example. A clone costs one reference count and shares the sink.
#[must_use]
#[derive(Clone, Debug)]
pub struct AuditLayer {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl AuditLayer {
    /// Hands each record to this sink. To keep a hand on it, for a flush before the process ends, pass an `Arc` of it.
    pub fn new(sink: impl AuditSink) -> Self {
        Self { shared: Arc::new(Shared { sink: Arc::new(sink), clock: Arc::new(SystemClock::new()) }) }
    }

    /// Reads the time from this clock: when a request comes, and when its record is written.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.shared).clock = Arc::new(clock);
        self
    }

    /// Begins the record of a request. How to go on is in the docs of `guard`.
    pub(crate) fn open(&self, context: SecurityContext, head: &RequestHead<'_>) -> Entry {
        Entry::open(Arc::clone(&self.shared), context, head)
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit { inner, audit: self.clone() }
    }
}

/// Middleware that [`AuditLayer`] applies.
#[derive(Clone, Debug)]
pub struct Audit<S> {
    inner: S,
    audit: AuditLayer,
}

impl<S, B, R> Service<Request<B>> for Audit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: ResponseBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = SecurityContext::of_or_open(request.extensions_mut(), &*self.audit.shared.clock);
        let (audited_outside, entered) = enter(&context);
        // A second audit layer refuses, and leaves the record to the first.
        let mut entry = (!audited_outside).then(|| self.audit.open(context, &RequestHead::of(&request)));
        let state = match entered {
            Ok(()) => {
                if let Some(entry) = &mut entry {
                    entry.entering();
                }
                let inner = self.inner.call(request);
                if let Some(entry) = &mut entry {
                    entry.left();
                }
                State::Forward { inner }
            }
            Err(rejection) => State::Refuse { rejection },
        };
        ResponseFuture { state, entry }
    }
}

/// Marks the stage. True if an audit layer outside of this one writes the record.
fn enter(context: &SecurityContext) -> (bool, Result<(), Rejection>) {
    let mut envelope = context.lock();
    let audited_outside = envelope.has_run(Stage::Audit);
    let entered = envelope.enter(Stage::Audit);
    if let Err(rejection) = &entered {
        report(Stage::Audit, rejection, envelope.at.unix_seconds());
        envelope.refused = Some(rejection.clone());
    }
    (audited_outside, entered)
}

pin_project! {
    /// Response future of [`Audit`].
    pub struct ResponseFuture<F> {
        // First: it drops before the entry, so that a waiting decision has put the facts back when the record is made.
        #[pin]
        state: State<F>,
        entry: Option<Entry>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Forward { #[pin] inner: F },
        Refuse { rejection: Rejection },
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: ResponseBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = match this.state.project() {
            StateProj::Forward { inner } => {
                if let Some(entry) = this.entry.as_mut() {
                    entry.entering();
                }
                let polled = inner.poll(cx);
                if let Some(entry) = this.entry.as_mut() {
                    entry.left();
                }
                ready!(polled)
            }
            StateProj::Refuse { rejection } => Ok(rejection.to_response()),
        };
        Poll::Ready(match (answer, this.entry.take()) {
            (Ok(response), Some(entry)) => Ok(entry.finish_with(response)),
            (Err(error), Some(entry)) => {
                entry.fail();
                Err(error)
            }
            (answer, None) => answer,
        })
    }
}
