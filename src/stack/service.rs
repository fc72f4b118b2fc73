use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    audit::{Entry, Receipt, Storing},
    body::ResponseBody,
    clock::Instants,
    context::{Envelope, SecurityContext, Stage, misordered},
    gate::{contained, contained_waiting, panicked, refused},
    grpc,
    guard::Asked,
    head::RequestHead,
    lifetime::Lifetime,
    log,
    problem::{RenderRequest, render_into, render_rejection},
    rejection::Rejection,
    stack::{
        stages::{Memos, Progress, Stages},
        table::RouteTable,
    },
};

/// The layers of one service, in their order, as one value. See the [module docs](super).
///
/// It is a tower [`Layer`]: `protect(router)`, `Router::layer(stack)`, tonic's `Server::layer` and `ServiceBuilder` all take
/// it. Prefer `protect`: a route that is added to a router after `Router::layer(stack)` is outside of the stack, and open. A clone costs one
/// reference count, and all clones share their limits.
#[must_use]
#[derive(Clone)]
pub struct Stack {
    stages: Arc<Stages>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.stages).finish()
    }
}

impl Stack {
    pub(super) fn new(stages: Stages) -> Self {
        Self { stages: Arc::new(stages) }
    }

    pub(super) fn table(&self) -> &RouteTable {
        &self.stages.table
    }

    pub(super) fn policy(&self) -> Option<Asked<'_>> {
        let policy = self.stages.policy.as_deref()?;
        Some(Asked { policy, by_roles: self.stages.by_roles })
    }

    /// Wraps a finished service, a router for example. Nothing can be added to it afterwards that the stack does not see.
    #[must_use]
    pub fn protect<S>(&self, inner: S) -> Protected<S> {
        Protected { inner, stages: Arc::clone(&self.stages) }
    }
}

impl<S> Layer<S> for Stack {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Protected<S> {
        self.protect(inner)
    }
}

/// A service behind a [`Stack`].
///
/// Serve it with `portcullis::axum::serve(listener, stack.protect(router))`, which tells the layers who is calling. axum's own takes no
/// layered service: "the trait bound `Protected<Router>: Service<IncomingStream<'_, TcpListener>>` is not satisfied" means that one.
/// With it, write `stack.protect(router).into_make_service_with_connect_info::<Connection>()`, of axum's `ServiceExt`.
#[derive(Clone, Debug)]
pub struct Protected<S> {
    inner: S,
    stages: Arc<Stages>,
}

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: ResponseBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let stages = &self.stages;
        let mut finish = Finish::of(stages, &request);
        if let Some(outer) = SecurityContext::of(request.extensions()) {
            let mut rejection = misordered("a stack or another layer of this crate stands outside this stack");
            // Where audit stands outside, the record is written there, and the context is where the refusal is noted.
            let audited_outside = outer.with(|envelope| {
                finish.rendering.is_of(envelope.request_id);
                refused(Stage::Audit, envelope, &rejection);
                envelope.has_run(Stage::Audit)
            });
            if let (false, Some(audit)) = (audited_outside, &stages.audit) {
                match audit.open(outer.clone(), &RequestHead::of(&request)) {
                    Ok(entry) => finish.audit = Some(entry),
                    Err(unstorable) => rejection = unstorable,
                }
            }
            return ResponseFuture { state: State::Refuse { rejection }, finish, storing: None };
        }
        let at = stages.clock.now();
        let mut opened = match &stages.audit {
            Some(audit) => match audit.open(audited(at), &RequestHead::of(&request)) {
                Ok(entry) => Opened::Audited(entry),
                Err(rejection) => {
                    return ResponseFuture { state: State::Refuse { rejection }, finish, storing: None };
                }
            },
            None => Opened::Own(SecurityContext::open(at)),
        };
        let progress = opened.decide(|envelope| {
            finish.rendering.is_of(envelope.request_id);
            let memos = &mut finish.memos;
            memos.place = stages.table.place(request.uri().path());
            envelope.route = stages.table.find(request.method(), memos.place).template.cloned();
            let progress =
                contained(envelope, |envelope| stages.advance(Stage::Evidence, &mut request, envelope, memos))
                    .unwrap_or_else(Progress::Refused);
            if let Progress::Refused((stage, rejection)) = &progress {
                refused(*stage, envelope, rejection);
            }
            progress
        });
        finish.context = opened.kept(stages);
        // Each makes its own future: one that is put together later is moved once more.
        match progress {
            Progress::Passed => {
                finish.audit = opened.put_into(request.extensions_mut());
                let inner = watched(&mut finish.audit, || self.inner.call(request));
                ResponseFuture { state: State::Forward { inner }, finish, storing: None }
            }
            Progress::Refused((_, rejection)) => {
                finish.audit = opened.into_entry();
                ResponseFuture { state: State::Refuse { rejection }, finish, storing: None }
            }
            Progress::WaitsAt(stage) => {
                let (parts, body) = request.into_parts();
                let unready = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, unready);
                let (context, audit) = opened.share();
                finish.audit = audit;
                let memos = std::mem::take(&mut finish.memos);
                let decision = Box::pin(wait(Arc::clone(stages), stage, context, parts, memos));
                ResponseFuture { state: State::Wait { decision, held: Some((ready, body)) }, finish, storing: None }
            }
        }
    }
}

/// The context of a request that a record will be made of.
fn audited(at: Instants) -> SecurityContext {
    let mut context = SecurityContext::open(at);
    // Nothing ran before it.
    let _ = context.with_mut(|envelope| envelope.enter(Stage::Audit));
    context
}

/// The context of a request from its opening on. Only a record shares it before the request goes on.
enum Opened {
    Audited(Entry),
    Own(SecurityContext),
}

impl Opened {
    /// A panic in between is the request's, wherever it is caught.
    fn decide<T>(&mut self, decide: impl FnOnce(&mut Envelope) -> T) -> T {
        match self {
            Self::Own(context) => context.with_mut(decide),
            Self::Audited(entry) => {
                entry.entering();
                let decided = entry.decide(decide);
                entry.left();
                decided
            }
        }
    }

    fn put_into(self, extensions: &mut Extensions) -> Option<Entry> {
        match self {
            Self::Own(context) => {
                extensions.insert(context);
                None
            }
            Self::Audited(entry) => {
                extensions.insert(entry.context().clone());
                Some(entry)
            }
        }
    }

    fn share(self) -> (SecurityContext, Option<Entry>) {
        match self {
            Self::Own(context) => (context, None),
            Self::Audited(entry) => (entry.context().clone(), Some(entry)),
        }
    }

    /// What is needed to end a stream, where no record has it.
    fn kept(&self, stages: &Stages) -> Option<SecurityContext> {
        match self {
            Self::Own(context) if stages.ends_streams() => Some(context.clone()),
            Self::Own(_) | Self::Audited(_) => None,
        }
    }

    fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Own(_) => None,
            Self::Audited(entry) => Some(entry),
        }
    }
}

async fn wait(
    stages: Arc<Stages>,
    stage: Stage,
    context: SecurityContext,
    mut parts: Parts,
    mut memos: Memos,
) -> Waited {
    let answer = {
        let mut envelope = context.check_out();
        let advanced = stages.advance_waiting(stage, &mut parts, &mut envelope, &mut memos);
        contained_waiting(advanced).await.unwrap_or_else(|| Err(panicked(&mut envelope)))
    };
    let answer = match answer {
        Ok(()) => {
            parts.extensions.insert(context);
            Ok(parts)
        }
        Err((stage, rejection)) => {
            context.with(|envelope| refused(stage, envelope, &rejection));
            Err(rejection)
        }
    };
    Waited { memos, answer }
}

/// What came of a decision that waited.
struct Waited {
    memos: Memos,
    answer: Result<Parts, Rejection>,
}

/// Runs what is not ours: a panic in it is the request's, wherever it is caught.
#[inline]
fn watched<T>(audit: &mut Option<Entry>, run: impl FnOnce() -> T) -> T {
    if let Some(audit) = audit {
        audit.entering();
    }
    let done = run();
    if let Some(audit) = audit {
        audit.left();
    }
    done
}

pin_project! {
    /// Response future of [`Protected`].
    pub struct ResponseFuture<S, B, F>
    where
        F: Future,
    {
        #[pin]
        state: State<S, B, F>,
        finish: Finish,
        storing: Option<Box<Storing<F::Output>>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Forward { #[pin] inner: F },
        Refuse { rejection: Rejection },
        Wait { decision: Pin<Box<dyn Future<Output = Waited> + Send>>, held: Option<(S, B)> },
        /// What is inside has answered, and is gone.
        Done,
    }
}

impl<S, B, F: Future> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// What happens to a response on its way out.
struct Finish {
    stages: Arc<Stages>,
    memos: Memos,
    rendering: RenderRequest,
    is_connect: bool,
    audit: Option<Entry>,
    /// That of a request that nobody records.
    context: Option<SecurityContext>,
}

impl Finish {
    /// That of a request which no stage has seen.
    fn of<B>(stages: &Arc<Stages>, request: &Request<B>) -> Self {
        let rendering = RenderRequest::of(request, None);
        let is_connect = request.method() == Method::CONNECT;
        Self { stages: Arc::clone(stages), memos: Memos::default(), rendering, is_connect, audit: None, context: None }
    }

    /// That of a request whose identity may end before what it began.
    fn context(&self) -> Option<&SecurityContext> {
        self.context.as_ref().or_else(|| self.audit.as_ref().map(Entry::context)).filter(|_| self.stages.ends_streams())
    }

    /// Tells of a connection that leaves HTTP, and whose handler never asked how long the identity counts: nothing else can end it.
    fn tell_of_no_lifetime(&self, status: StatusCode) {
        static SAID: log::Seldom = log::Seldom::new();
        let leaves = status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success());
        let Some(context) = self.context().filter(|_| leaves) else { return };
        if context.with(|envelope| envelope.lifetime_taken)
            || Lifetime::of_context(context, &self.stages.clock).is_none()
        {
            return;
        }
        let route = context.with(|envelope| {
            envelope.trail.flag("lifetime_not_taken");
            envelope.route.clone()
        });
        SAID.warn(self.stages.clock.now(), || {
            let route = route.as_deref().unwrap_or("a route without a template");
            format!(
                "{route}: the handler upgraded the connection and took no Lifetime of the request: the connection outlives the \
                 credential, also one that is revoked"
            )
        });
    }

    /// When the answer must end that goes on for longer than the request, and whether it is one of gRPC. A body whose length is
    /// known is none.
    fn lifetime<R: ResponseBody>(&self, response: &Response<R>) -> Option<(Lifetime, bool)> {
        if response.body().size_hint().exact().is_some() {
            return None;
        }
        let is_grpc = grpc::is_answer(response.headers());
        if !is_grpc && !is_event_stream(response.headers()) {
            return None;
        }
        Some((Lifetime::of_context(self.context()?, &self.stages.clock)?, is_grpc))
    }

    fn response<R: ResponseBody>(&mut self, mut response: Response<R>) -> (Response<R>, Option<Receipt>) {
        let status = response.status();
        self.memos.amend(status, response.headers_mut());
        self.tell_of_no_lifetime(status);
        let response = if self.memos.hold_permits() { self.memos.follow(response) } else { response };
        let response = match self.lifetime(&response) {
            None => response,
            Some((lifetime, is_grpc)) => response.map(|body| body.until(lifetime, is_grpc)),
        };
        match self.audit.take() {
            Some(audit) => audit.finish_with(response),
            None => (response, None),
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .split_at_checked(EVENTS.len())
            .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(EVENTS) && matches!(rest, [] | [b';' | b' ', ..]))
    })
}

impl<S, B, R> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: ResponseBody,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let finish = this.finish;
        if let Some(storing) = this.storing {
            return storing.poll(cx);
        }
        let (answer, receipt) = loop {
            match this.state.as_mut().project() {
                StateProj::Forward { inner } => {
                    let answer = ready!(watched(&mut finish.audit, || inner.poll(cx)));
                    // Who answers for a decision that still waits, as a timeout does, has what it holds of the context.
                    watched(&mut finish.audit, || this.state.set(State::Done));
                    break match answer {
                        Ok(mut response) => {
                            let (renderer, rendering) = (&*finish.stages.renderer, &finish.rendering);
                            watched(&mut finish.audit, || render_rejection(renderer, rendering, &mut response));
                            let (response, receipt) = finish.response(response);
                            (Ok(response), receipt)
                        }
                        Err(error) => (Err(error), finish.audit.take().and_then(Entry::fail)),
                    };
                }
                StateProj::Refuse { rejection } => {
                    let mut response = rejection.head();
                    let (renderer, rendering) = (&*finish.stages.renderer, &finish.rendering);
                    watched(&mut finish.audit, || render_into(renderer, rejection, rendering, &mut response));
                    let (response, receipt) = finish.response(response);
                    break (Ok(response), receipt);
                }
                StateProj::Wait { decision, held } => {
                    let waited = ready!(watched(&mut finish.audit, || decision.as_mut().poll(cx)));
                    finish.memos = waited.memos;
                    let next = match (waited.answer, held.take()) {
                        (Ok(parts), Some((mut ready, body))) => {
                            let request = Request::from_parts(parts, body);
                            State::Forward { inner: watched(&mut finish.audit, || ready.call(request)) }
                        }
                        (Err(rejection), _) => State::Refuse { rejection },
                        (Ok(_), None) => State::Refuse { rejection: misordered("polled after it was finished") },
                    };
                    this.state.set(next);
                }
                StateProj::Done => return Poll::Pending,
            }
        };
        match Storing::begin(answer, receipt) {
            Ok(answer) => Poll::Ready(answer),
            Err(storing) => this.storing.insert(storing).poll(cx),
        }
    }
}
