use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    audit::{
        AuditSink, Privacy, Receipt,
        guard::{Ear, Entry, Recorder},
    },
    body::ResponseBody,
    clock::{Clock, SystemClock},
    context::{SecurityContext, Stage},
    credential::fields::holds_credentials,
    error::ConfigError,
    event,
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
        let sink: Arc<dyn AuditSink> = Arc::new(sink);
        let recorder = Recorder {
            sink,
            clock: Arc::new(SystemClock::new()),
            privacy: None,
            headers: Box::default(),
            completions: false,
            spans: false,
            ear: None,
        };
        Self { recorder: Arc::new(recorder) }.listening()
    }

    fn edit(mut self, edit: impl FnOnce(&mut Recorder)) -> Self {
        edit(Arc::make_mut(&mut self.recorder));
        self
    }

    /// Hears from now on what happens to the service.
    fn listening(self) -> Self {
        let ear = Arc::new(Ear { sink: Arc::clone(&self.recorder.sink), privacy: self.recorder.privacy.clone() });
        let weak: Weak<Ear> = Arc::downgrade(&ear);
        event::listen(weak);
        self.edit(|recorder| recorder.ear = Some(ear))
    }

    /// Records requests alone, and not what happens to the service ([`event`]). Where several layers of a process write to one
    /// sink, one of them is enough to record that.
    pub fn without_events(self) -> Self {
        self.edit(|recorder| recorder.ear = None)
    }

    /// Writes another entry for each answer with a body, when that ends: how it ended, how many bytes the server took, the
    /// status of a gRPC call. The record of the request is written before, when its head is known; a refusal has no more than that. It
    /// costs two boxes a body.
    pub fn with_completions(self) -> Self {
        self.edit(|recorder| recorder.completions = true)
    }

    /// Hides what records would show of people.
    pub fn with_privacy(self, privacy: Privacy) -> Self {
        let listens = self.recorder.ear.is_some();
        let layer = self.edit(|recorder| recorder.privacy = Some(Arc::new(privacy)));
        if listens { layer.listening() } else { layer }
    }

    /// Records these header fields of requests, such as `User-Agent`: at most eight fields, 256 bytes of each. The values of a
    /// field that is sent several times are joined with `, ` (RFC 9110 §5.3). They are what the client says, and nothing is left
    /// out of them.
    ///
    /// # Errors
    /// If there are more, or one of them is no name of a field, is named twice or is known to hold credentials. A `Stack` also
    /// refuses the fields that its authenticator reads; layers stacked by hand know nothing of yours.
    pub fn with_headers<T: AsRef<str>>(self, names: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let mut headers = Vec::new();
        for name in names {
            let shown = name.as_ref();
            let refuse = |problem| ConfigError::new("audit header", shown, problem);
            let name: HeaderName = shown.parse().map_err(|_| refuse("is no name of a header field"))?;
            if holds_credentials(&name) {
                return Err(refuse("holds credentials, which are never recorded"));
            }
            if headers.contains(&name) {
                return Err(refuse("is named twice"));
            }
            if headers.len() >= MAX_HEADERS {
                return Err(refuse("is one too many: at most 8"));
            }
            headers.push(name);
        }
        Ok(self.edit(|recorder| recorder.headers = headers.into()))
    }

    /// Opens a `tracing` span for each request (target `portcullis::request`, level `INFO`), in which everything inside runs.
    /// Its fields follow the OpenTelemetry semantic conventions for HTTP servers. Without the feature `tracing` it does nothing.
    pub fn with_spans(self) -> Self {
        self.edit(|recorder| recorder.spans = true)
    }

    /// The path parameters that are hidden.
    #[cfg(feature = "stack")]
    pub(crate) fn hidden_parameters(&self) -> impl Iterator<Item = &str> {
        self.recorder.privacy.iter().flat_map(|privacy| privacy.hidden_parameters())
    }

    /// The fields that are recorded.
    #[cfg(feature = "stack")]
    pub(crate) fn headers(&self) -> &[HeaderName] {
        &self.recorder.headers
    }

    /// Reads the time from this clock: when a request comes, and when its record is written.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.edit(|recorder| recorder.clock = Arc::new(clock))
    }

    /// Marks the stage and begins the record. There is no entry where an audit layer outside writes it already; a service
    /// that is refused here answers with the refusal. How to go on is in the docs of `guard`.
    pub(crate) fn begin(
        &self,
        context: SecurityContext,
        head: &RequestHead<'_>,
    ) -> (Option<Entry>, Result<(), Rejection>) {
        let (audited_outside, entered) = enter(&context);
        if audited_outside {
            return (None, entered);
        }
        match self.open(context, head) {
            Ok(entry) => (Some(entry), entered),
            Err(rejection) => (None, entered.and(Err(rejection))),
        }
    }

    /// Begins the record of a request whose stage is marked, or refuses the request if it could not be stored.
    pub(crate) fn open(&self, context: SecurityContext, head: &RequestHead<'_>) -> Result<Entry, Rejection> {
        Entry::open(Arc::clone(&self.recorder), context, head)
    }
}

/// The most header fields that are recorded.
const MAX_HEADERS: usize = 8;

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
        let context = SecurityContext::of_or_open(request.extensions_mut(), &*self.audit.recorder.clock).clone();
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
        ResponseFuture { state, entry, storing: None }
    }
}

/// Marks the stage. True if an audit layer outside of this one writes the record: a second one refuses and leaves it to it.
fn enter(context: &SecurityContext) -> (bool, Result<(), Rejection>) {
    context.with(|envelope| {
        let audited_outside = envelope.has_run(Stage::Audit);
        let entered = envelope.enter(Stage::Audit);
        if let Err(rejection) = &entered {
            refused(Stage::Audit, envelope, rejection);
        }
        (audited_outside, entered)
    })
}

pin_project! {
    /// Response future of [`Audit`].
    pub struct ResponseFuture<F>
    where
        F: Future,
    {
        // First: it drops before the entry, so that a waiting decision has put the facts back when the record is made.
        #[pin]
        state: State<F>,
        entry: Option<Entry>,
        storing: Option<Box<Storing<F::Output>>>,
    }
}

/// An answer that is held back until its record is stored.
pub(crate) struct Storing<T> {
    receipt: Receipt,
    answer: Option<T>,
}

impl<T> Storing<T> {
    /// The answer, if nothing holds it back.
    pub(crate) fn begin(answer: T, receipt: Option<Receipt>) -> Result<T, Box<Self>> {
        match receipt {
            None => Ok(answer),
            Some(receipt) => Err(Box::new(Self { receipt, answer: Some(answer) })),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        ready!(Pin::new(&mut self.receipt).poll(cx));
        // Once it was given away there is nothing to come any more.
        self.answer.take().map_or(Poll::Pending, Poll::Ready)
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Forward { #[pin] inner: F },
        Refuse { rejection: Rejection },
        /// What is inside has answered, and is gone.
        Done,
    }
}

impl<F: Future> fmt::Debug for ResponseFuture<F> {
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
        let mut this = self.project();
        if let Some(storing) = this.storing {
            return storing.poll(cx);
        }
        let answer = match this.state.as_mut().project() {
            StateProj::Forward { inner } => {
                if let Some(entry) = this.entry.as_mut() {
                    entry.entering();
                }
                let polled = inner.poll(cx);
                if polled.is_ready() {
                    // Who answers for a decision that still waits, as a timeout does, has what it holds of the context.
                    this.state.set(State::Done);
                }
                if let Some(entry) = this.entry.as_mut() {
                    entry.left();
                }
                ready!(polled)
            }
            StateProj::Refuse { rejection } => Ok(rejection.to_response()),
            StateProj::Done => return Poll::Pending,
        };
        let (answer, receipt) = match (answer, this.entry.take()) {
            (Ok(response), Some(entry)) => {
                let (response, receipt) = entry.finish_with(response);
                (Ok(response), receipt)
            }
            (Err(error), Some(entry)) => (Err(error), entry.fail()),
            (answer, None) => (answer, None),
        };
        match Storing::begin(answer, receipt) {
            Ok(answer) => Poll::Ready(answer),
            Err(storing) => this.storing.insert(storing).poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, pin::pin, sync::Mutex, task::Waker};

    use async_trait::async_trait;
    use tower::service_fn;

    use super::*;
    use crate::{
        audit::{AuditEntry, AuditOutcome, AuditRecord, Lost},
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

    /// Answers in the place of what waits, and keeps it.
    struct Impatient<F>(F);

    impl<F: Future<Output = Result<Response<String>, Infallible>> + Unpin> Future for Impatient<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            match Pin::new(&mut self.0).poll(cx) {
                Poll::Pending => Poll::Ready(Ok(Response::new("too late".to_owned()))),
                answer @ Poll::Ready(_) => answer,
            }
        }
    }

    #[test]
    fn what_a_waiting_decision_holds_is_in_the_record_when_somebody_else_answers() {
        let kept = Kept::default();
        let inner = service_fn(|_: Request<()>| pending::<Result<Response<String>, Infallible>>());
        let mut waits = Gate::new(inner, Waits);
        let impatient = service_fn(move |request: Request<()>| Impatient(Box::pin(waits.call(request))));
        let mut service = AuditLayer::new(kept.clone()).layer(impatient);
        let mut request = Request::get("/orders/42").body(()).unwrap();
        request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
        let mut future = pin!(service.call(request));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        let records = kept.0.lock().unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].outcome(), AuditOutcome::Allowed);
        assert_eq!(records[0].subject().unwrap().subject(), "alice");
        assert_eq!(records[0].route().as_deref(), Some("/orders/{id}"));
        assert_eq!(records[0].decisions().map(|decision| decision.backend()).collect::<Vec<_>>(), ["first"]);
    }
}
