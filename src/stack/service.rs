use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response, request::Parts};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    audit::{AuditLayer, Entry},
    authn::AuthnLayer,
    body::ResponseBody,
    clock::Clock,
    context::{Envelope, SecurityContext, Stage, misordered},
    evidence::EvidenceLayer,
    gate::{Amend, Step, ask_now, report},
    guard::Rule,
    head::RequestHead,
    log,
    now::Now,
    policy::PolicyBackend,
    problem::{RejectionRenderer, RenderRequest, render_into, render_rejection},
    rate_limit::RateLimitLayer,
    rejection::{Rejection, RejectionKind},
    stack::table::{RouteTable, is_preflight},
    tls::TlsLayer,
};

/// The layers of one service, in their order, as one value. See the [module docs](super).
///
/// It is a tower [`Layer`]: `protect(router)`, `Router::layer(stack)`, tonic's `Server::layer` and `ServiceBuilder` all take
/// it. A clone costs one reference count, and all clones share their limits.
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

/// One slot for each stage.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) renderer: Arc<dyn RejectionRenderer>,
    pub(super) audit: Option<AuditLayer>,
    pub(super) evidence: EvidenceLayer,
    pub(super) tls: Option<TlsLayer>,
    pub(super) client_limit: Option<RateLimitLayer>,
    pub(super) authn: Option<AuthnLayer>,
    pub(super) principal_limit: Option<RateLimitLayer>,
    pub(super) policy: Option<Arc<dyn PolicyBackend>>,
    pub(super) table: RouteTable,
}

/// What the stages that passed a request add to its response.
#[derive(Debug, Default)]
struct Memos {
    evidence: Option<<EvidenceLayer as Step>::Memo>,
    tls: Option<<TlsLayer as Step>::Memo>,
    client_limit: Option<<RateLimitLayer as Step>::Memo>,
    authn: Option<<AuthnLayer as Step>::Memo>,
    principal_limit: Option<<RateLimitLayer as Step>::Memo>,
}

impl Memos {
    fn amend(&mut self, headers: &mut HeaderMap) {
        fn add(memo: Option<impl Amend>, headers: &mut HeaderMap) {
            if let Some(memo) = memo {
                memo.amend(headers);
            }
        }
        // From the inside out, as nested layers would.
        add(self.principal_limit.take(), headers);
        add(self.authn.take(), headers);
        add(self.client_limit.take(), headers);
        add(self.tls.take(), headers);
    }
}

/// A request, with its body or without, as the stages see it and change it.
trait Message {
    fn head(&self) -> RequestHead<'_>;
    fn headers_mut(&mut self) -> &mut HeaderMap;
}

impl<B> Message for Request<B> {
    fn head(&self) -> RequestHead<'_> {
        RequestHead::of(self)
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl Message for Parts {
    fn head(&self) -> RequestHead<'_> {
        RequestHead::of_parts(self)
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }
}

/// A refusal, and the stage that it comes from.
type Refusal = (Stage, Rejection);

/// How far the stages came.
enum Progress {
    Passed,
    Refused(Refusal),
    WaitsAt(Stage),
}

impl Stages {
    /// Asks the stages from `stage` on, until one refuses or has to wait. What a stage takes off the request is gone before
    /// the next one looks.
    fn advance(
        &self,
        mut stage: Stage,
        request: &mut impl Message,
        envelope: &mut Envelope,
        memos: &mut Memos,
    ) -> Progress {
        loop {
            match self.ask_now(stage, request, envelope, memos) {
                Now::Known(Ok(())) => {}
                Now::Known(Err(rejection)) => return Progress::Refused((stage, rejection)),
                Now::Wait => return Progress::WaitsAt(stage),
            }
            match next(stage) {
                Some(inner) => stage = inner,
                None => return Progress::Passed,
            }
        }
    }

    /// Waits for `stage`, then goes on with the ones inside it.
    async fn advance_waiting(
        &self,
        mut stage: Stage,
        request: &mut Parts,
        envelope: &mut Envelope,
        memos: &mut Memos,
    ) -> Result<(), Refusal> {
        loop {
            self.ask(stage, request, envelope, memos).await.map_err(|rejection| (stage, rejection))?;
            let Some(inner) = next(stage) else { return Ok(()) };
            match self.advance(inner, request, envelope, memos) {
                Progress::Passed => return Ok(()),
                Progress::Refused(refusal) => return Err(refusal),
                Progress::WaitsAt(waiting) => stage = waiting,
            }
        }
    }

    fn ask_now(
        &self,
        stage: Stage,
        request: &mut impl Message,
        envelope: &mut Envelope,
        memos: &mut Memos,
    ) -> Now<Result<(), Rejection>> {
        fn step<T: Step>(
            step: Option<&T>,
            request: &mut impl Message,
            envelope: &mut Envelope,
            memo: &mut Option<T::Memo>,
        ) -> Now<Result<(), Rejection>> {
            let Some(step) = step else { return Now::Known(Ok(())) };
            ask_now(step, &request.head(), envelope)
                .map(|answer| answer.map(|found| step.amend_request(memo.insert(found), request.headers_mut())))
        }
        match stage {
            Stage::Audit | Stage::Problem => Now::Known(Ok(())),
            Stage::Evidence => step(Some(&self.evidence), request, envelope, &mut memos.evidence),
            Stage::Tls => step(self.tls.as_ref(), request, envelope, &mut memos.tls),
            Stage::ClientLimit => step(self.client_limit.as_ref(), request, envelope, &mut memos.client_limit),
            Stage::Authentication => step(self.authn.as_ref(), request, envelope, &mut memos.authn),
            Stage::PrincipalLimit => step(self.principal_limit.as_ref(), request, envelope, &mut memos.principal_limit),
            Stage::Guard => {
                let head = request.head();
                match envelope.enter(Stage::Guard).and_then(|()| self.rule(&head, envelope)) {
                    Ok(rule) => rule.decide_now(&head, envelope),
                    Err(rejection) => Now::Known(Err(rejection)),
                }
            }
        }
    }

    async fn ask(
        &self,
        stage: Stage,
        request: &mut Parts,
        envelope: &mut Envelope,
        memos: &mut Memos,
    ) -> Result<(), Rejection> {
        async fn step<T: Step>(
            step: Option<&T>,
            request: &mut Parts,
            envelope: &mut Envelope,
            memo: &mut Option<T::Memo>,
        ) -> Result<(), Rejection> {
            if let Some(step) = step {
                let found = step.decide(request.head(), envelope).await?;
                step.amend_request(memo.insert(found), request.headers_mut());
            }
            Ok(())
        }
        match stage {
            Stage::Audit | Stage::Problem => Ok(()),
            Stage::Evidence => step(Some(&self.evidence), request, envelope, &mut memos.evidence).await,
            Stage::Tls => step(self.tls.as_ref(), request, envelope, &mut memos.tls).await,
            Stage::ClientLimit => step(self.client_limit.as_ref(), request, envelope, &mut memos.client_limit).await,
            Stage::Authentication => step(self.authn.as_ref(), request, envelope, &mut memos.authn).await,
            Stage::PrincipalLimit => {
                step(self.principal_limit.as_ref(), request, envelope, &mut memos.principal_limit).await
            }
            Stage::Guard => {
                let head = request.head();
                self.rule(&head, envelope)?.decide(head, envelope).await
            }
        }
    }

    /// The table's rule for a request, or the refusal of what it does not name.
    fn rule(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Result<&Rule, Rejection> {
        envelope.policy.clone_from(&self.policy);
        if self.table.is_ambiguous(head.path()) {
            return Err(Rejection::new(RejectionKind::InvalidRequest, "a path that could mean another one"));
        }
        if let Some(rule) = self.table.find(head.method(), head.path()).rule {
            return Ok(rule);
        }
        if is_preflight(head) {
            PREFLIGHTS.error(envelope.at, PREFLIGHT);
            return Err(Rejection::new(RejectionKind::Forbidden, PREFLIGHT));
        }
        // Without authentication there is no challenge to send, and a 401 must carry one (RFC 9110 §15.5.2).
        if self.authn.is_some() {
            envelope.authenticated()?;
        }
        Err(Rejection::new(RejectionKind::Forbidden, "no rule for this method and path"))
    }
}

const PREFLIGHT: &str = "a CORS preflight reached the stack, so no CorsLayer stands outside it: put tower-http's CorsLayer around \
     the protected service";

static PREFLIGHTS: log::Seldom = log::Seldom::new();

/// The stage inside this one.
const fn next(stage: Stage) -> Option<Stage> {
    match stage {
        Stage::Audit => Some(Stage::Problem),
        Stage::Problem => Some(Stage::Evidence),
        Stage::Evidence => Some(Stage::Tls),
        Stage::Tls => Some(Stage::ClientLimit),
        Stage::ClientLimit => Some(Stage::Authentication),
        Stage::Authentication => Some(Stage::PrincipalLimit),
        Stage::PrincipalLimit => Some(Stage::Guard),
        Stage::Guard => None,
    }
}

impl Stack {
    pub(super) fn new(stages: Stages) -> Self {
        Self { stages: Arc::new(stages) }
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
        let (context, request_id, nested) = match SecurityContext::of(request.extensions()) {
            Some(outer) => (outer.clone(), outer.request_id(), true),
            None => {
                let envelope = Envelope::new(stages.clock.now());
                let request_id = envelope.request_id;
                (SecurityContext::new(envelope), request_id, false)
            }
        };
        let rendering = RenderRequest::new(request.method(), request.headers(), Some(request_id));
        let head = RequestHead::of(&request);
        // The record of a nested stack's request is the outer one's, and its context is where the refusal is noted.
        let mut audit = stages.audit.as_ref().filter(|_| !nested).map(|audit| audit.open(context.clone(), &head));
        let mut memos = Memos::default();

        entering(audit.as_mut());
        let progress = if nested {
            Progress::Refused((
                Stage::Audit,
                misordered("a stack or another layer of this crate stands outside this stack"),
            ))
        } else {
            let mut envelope = context.lock();
            envelope.route = stages.table.find(head.method(), head.path()).template.cloned();
            stages.advance(Stage::Evidence, &mut request, &mut envelope, &mut memos)
        };
        let state = match progress {
            Progress::Passed => {
                request.extensions_mut().insert(context);
                State::Forward { inner: self.inner.call(request) }
            }
            Progress::Refused(refusal) => State::Refuse { rejection: refuse(&context, refusal) },
            Progress::WaitsAt(stage) => {
                let (parts, body) = request.into_parts();
                let unready = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, unready);
                let decision = Box::pin(wait(Arc::clone(stages), stage, context, parts, std::mem::take(&mut memos)));
                State::Wait { decision, held: Some((ready, body)) }
            }
        };
        left(audit.as_mut());
        ResponseFuture { state, finish: Finish { stages: Arc::clone(stages), memos, rendering, audit } }
    }
}

fn refuse(context: &SecurityContext, (stage, rejection): Refusal) -> Rejection {
    let mut envelope = context.lock();
    report(stage, &rejection, envelope.at);
    envelope.refused = Some(rejection.clone());
    rejection
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
        stages.advance_waiting(stage, &mut parts, &mut envelope, &mut memos).await
    };
    match answer {
        Ok(()) => {
            parts.extensions.insert(context);
            Waited { memos, answer: Ok(parts) }
        }
        Err(refusal) => Waited { memos, answer: Err(refuse(&context, refusal)) },
    }
}

/// What came of a decision that waited.
struct Waited {
    memos: Memos,
    answer: Result<Parts, Rejection>,
}

/// A panic from here on is the request's, wherever it is caught.
fn entering(audit: Option<&mut Entry>) {
    if let Some(audit) = audit {
        audit.entering();
    }
}

fn left(audit: Option<&mut Entry>) {
    if let Some(audit) = audit {
        audit.left();
    }
}

pin_project! {
    /// Response future of [`Protected`].
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        finish: Finish,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Forward { #[pin] inner: F },
        Refuse { rejection: Rejection },
        Wait { decision: Pin<Box<dyn Future<Output = Waited> + Send>>, held: Option<(S, B)> },
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// What happens to a response on its way out.
struct Finish {
    stages: Arc<Stages>,
    memos: Memos,
    rendering: RenderRequest,
    audit: Option<Entry>,
}

impl Finish {
    fn response<R: ResponseBody>(&mut self, mut response: Response<R>) -> Response<R> {
        self.memos.amend(response.headers_mut());
        match self.audit.take() {
            Some(audit) => audit.finish_with(response),
            None => response,
        }
    }
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
        loop {
            match this.state.as_mut().project() {
                StateProj::Forward { inner } => {
                    entering(finish.audit.as_mut());
                    let answer = inner.poll(cx);
                    left(finish.audit.as_mut());
                    return match ready!(answer) {
                        Ok(mut response) => {
                            entering(finish.audit.as_mut());
                            render_rejection(&*finish.stages.renderer, &finish.rendering, &mut response);
                            left(finish.audit.as_mut());
                            Poll::Ready(Ok(finish.response(response)))
                        }
                        Err(error) => {
                            if let Some(audit) = finish.audit.take() {
                                audit.fail();
                            }
                            Poll::Ready(Err(error))
                        }
                    };
                }
                StateProj::Refuse { rejection } => {
                    let mut response = rejection.head();
                    entering(finish.audit.as_mut());
                    render_into(&*finish.stages.renderer, rejection, &finish.rendering, &mut response);
                    left(finish.audit.as_mut());
                    return Poll::Ready(Ok(finish.response(response)));
                }
                StateProj::Wait { decision, held } => {
                    entering(finish.audit.as_mut());
                    let waited = decision.as_mut().poll(cx);
                    let waited = match waited {
                        Poll::Ready(waited) => waited,
                        Poll::Pending => {
                            left(finish.audit.as_mut());
                            return Poll::Pending;
                        }
                    };
                    finish.memos = waited.memos;
                    let next = match (waited.answer, held.take()) {
                        (Ok(parts), Some((mut ready, body))) => {
                            State::Forward { inner: ready.call(Request::from_parts(parts, body)) }
                        }
                        (Err(rejection), _) => State::Refuse { rejection },
                        (Ok(_), None) => State::Refuse { rejection: misordered("polled after it was finished") },
                    };
                    left(finish.audit.as_mut());
                    this.state.set(next);
                }
            }
        }
    }
}
