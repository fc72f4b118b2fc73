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
    audit::{
        AuditSink,
        guard::{Entry, Recorder},
    },
    body::ResponseBody,
    clock::{Clock, SystemClock},
    context::{SecurityContext, Stage},
    gate::refused,
    head::RequestHead,
    rejection::Rejection,
};

/// Applies [`Audit`]. See the [module docs](super) for an example. A clone costs one reference count and shares the sink.
#[must_use]
#[derive(Clone, Debug)]
pub struct AuditLayer {
    recorder: Arc<Recorder>,
}

impl AuditLayer {
    /// Hands each record to this sink. To keep a hand on it, for a flush before the process ends, pass an `Arc` of it.
    pub fn new(sink: impl AuditSink) -> Self {
        Self { recorder: Arc::new(Recorder { sink: Arc::new(sink), clock: Arc::new(SystemClock::new()) }) }
    }

    /// Reads the time from this clock: when a request comes, and when its record is written.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.recorder).clock = Arc::new(clock);
        self
    }

    /// Marks the stage and begins the record. There is no entry where an audit layer outside writes it already; a service
    /// that is refused here answers with the refusal. How to go on is in the docs of `guard`.
    pub(crate) fn begin(
        &self,
        context: SecurityContext,
        head: &RequestHead<'_>,
    ) -> (Option<Entry>, Result<(), Rejection>) {
        let (audited_outside, entered) = enter(&context);
        ((!audited_outside).then(|| self.open(context, head)), entered)
    }

    /// Begins the record of a request whose stage is marked.
    pub(crate) fn open(&self, context: SecurityContext, head: &RequestHead<'_>) -> Entry {
        Entry::open(Arc::clone(&self.recorder), context, head)
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
        let context = SecurityContext::of_or_open(request.extensions_mut(), &*self.audit.recorder.clock);
        let (mut entry, entered) = self.audit.begin(context, &RequestHead::of(&request));
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

/// Marks the stage. True if an audit layer outside of this one writes the record: a second one refuses and leaves it to it.
fn enter(context: &SecurityContext) -> (bool, Result<(), Rejection>) {
    let mut envelope = context.lock();
    let audited_outside = envelope.has_run(Stage::Audit);
    let entered = envelope.enter(Stage::Audit);
    if let Err(rejection) = &entered {
        refused(Stage::Audit, &mut envelope, rejection);
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, pin::pin, sync::Mutex, task::Waker};

    use async_trait::async_trait;
    use tower::service_fn;

    use super::*;
    use crate::{
        audit::{AuditOutcome, AuditRecord, Lost},
        client::Connection,
        context::Envelope,
        error::StoreError,
        gate::{Gate, Step},
        now::Now,
        policy::Verdict,
        principal::{Principal, PrincipalKind},
        trail::DecisionFact,
    };

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<AuditRecord>>>);

    #[async_trait]
    impl AuditSink for Kept {
        fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
            self.0.lock().unwrap().push(record);
            Ok(())
        }

        fn lost(&self) -> u64 {
            0
        }

        async fn flush(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    /// Knows somebody, has decided something, and waits for ever.
    #[derive(Clone, Debug)]
    struct Waits;

    impl Step for Waits {
        type Memo = ();

        fn stage(&self) -> Stage {
            Stage::Guard
        }

        fn decide_now(&self, _: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<(), Rejection>> {
            let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt");
            envelope.subject = Some(alice.build());
            Now::Wait
        }

        async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<(), Rejection> {
            envelope.client_or_connection(|| head.connection())?;
            envelope.route = Some("/orders/{id}".into());
            envelope.decided(DecisionFact::new("first", None, Verdict::allow()));
            pending().await
        }
    }

    #[test]
    fn what_a_waiting_decision_holds_is_in_the_record_when_it_is_dropped() {
        let kept = Kept::default();
        let inner = service_fn(|_: Request<()>| pending::<Result<Response<String>, Infallible>>());
        let mut service = AuditLayer::new(kept.clone()).layer(Gate::new(inner, Waits));
        let mut request = Request::get("/orders/42").body(()).unwrap();
        request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
        {
            let mut future = pin!(service.call(request));
            assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(kept.0.lock().unwrap().is_empty());
        }
        let records = kept.0.lock().unwrap();
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!(record.outcome(), AuditOutcome::Aborted);
        assert_eq!(record.subject().unwrap().subject(), "alice");
        assert_eq!(record.route().as_deref(), Some("/orders/{id}"));
        assert_eq!(record.address(), Some("198.51.100.7".parse().unwrap()));
        assert_eq!(record.decisions().map(|decision| decision.backend()).collect::<Vec<_>>(), ["first"]);
    }
}
