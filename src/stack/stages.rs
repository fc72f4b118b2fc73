//! The slots of a stack, and how a request goes through them.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, request::Parts};

use crate::{
    audit::AuditLayer,
    authn::AuthnLayer,
    body::ResponseBody,
    clock::Clock,
    context::{Envelope, Stage},
    evidence::EvidenceLayer,
    gate::{Amend, Refusal, Step, ask_now},
    guard::{GuardLayer, Rule},
    head::RequestHead,
    log,
    now::Now,
    policy::PolicyBackend,
    problem::RejectionRenderer,
    rate_limit::{ConcurrencyLayer, Permit, RateLimitLayer},
    rejection::{Rejection, RejectionKind},
    stack::{
        patience::Patience,
        table::{Place, Reading, RouteTable, is_preflight},
    },
    tls::TlsLayer,
};

/// One slot for each stage.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) renderer: Arc<dyn RejectionRenderer>,
    pub(super) audit: Option<AuditLayer>,
    pub(super) evidence: EvidenceLayer,
    pub(super) tls: Option<TlsLayer>,
    pub(super) client_concurrency: Option<ConcurrencyLayer>,
    pub(super) client_limits: Vec<RateLimitLayer>,
    pub(super) authn: Option<AuthnLayer>,
    pub(super) principal_concurrency: Option<ConcurrencyLayer>,
    pub(super) principal_limits: Vec<RateLimitLayer>,
    pub(super) policy: Option<Arc<dyn PolicyBackend>>,
    pub(super) patience: Patience,
    /// Whether it decides by roles.
    pub(super) by_roles: bool,
    /// Whether streams may outlast their credential.
    pub(super) outlives: bool,
    pub(super) table: RouteTable,
}

/// What the stages that passed a request add to its response.
#[derive(Debug, Default)]
pub(super) struct Memos {
    /// Where the table has the request's path.
    pub(super) place: Option<Place>,
    evidence: Option<<EvidenceLayer as Step>::Memo>,
    tls: Option<<TlsLayer as Step>::Memo>,
    client_permit: Option<Permit>,
    client_limits: Reports,
    authn: Option<<AuthnLayer as Step>::Memo>,
    principal_permit: Option<Permit>,
    principal_limits: Reports,
}

/// What the limits of one stage add. The first takes no room of its own: most stages have no second.
#[derive(Debug, Default)]
struct Reports {
    first: Option<Report>,
    rest: Vec<Report>,
}

type Report = <RateLimitLayer as Step>::Memo;

impl Reports {
    /// How many limits have let the request pass. None of them is asked again.
    fn len(&self) -> usize {
        self.rest.len().saturating_add(usize::from(self.first.is_some()))
    }

    fn push(&mut self, report: Report) {
        if self.first.is_none() {
            self.first = Some(report);
        } else {
            self.rest.push(report);
        }
    }

    fn take(&mut self) -> impl Iterator<Item = Report> {
        std::mem::take(&mut self.rest).into_iter().rev().chain(self.first.take())
    }
}

/// Asks the limits of one stage that were not asked yet.
fn limit_now(
    limits: &[RateLimitLayer],
    head: &RequestHead<'_>,
    envelope: &mut Envelope,
    reports: &mut Reports,
) -> Now<Result<(), Rejection>> {
    for limit in limits.iter().skip(reports.len()) {
        match ask_now(limit, head, envelope) {
            Now::Known(Ok(report)) => reports.push(report),
            Now::Known(Err(rejection)) => return Now::Known(Err(rejection)),
            Now::Wait => return Now::Wait,
        }
    }
    Now::Known(Ok(()))
}

/// Waits for the limit that has to, and for each after it that has to as well.
async fn limit(
    limits: &[RateLimitLayer],
    clock: &dyn Clock,
    request: &Parts,
    envelope: &mut Envelope,
    reports: &mut Reports,
) -> Result<(), Rejection> {
    while let Some(waiting) = limits.get(reports.len()) {
        reports.push(waiting.decide(request.head(), envelope).await?);
        envelope.waited = clock.now().since(envelope.at);
        match limit_now(limits, &request.head(), envelope, reports) {
            Now::Known(answer) => return answer,
            Now::Wait => {}
        }
    }
    Ok(())
}

impl Memos {
    pub(super) fn amend(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        fn add(memo: Option<impl Amend>, status: StatusCode, headers: &mut HeaderMap) {
            if let Some(memo) = memo {
                memo.amend(status, headers);
            }
        }
        // From the inside out, as nested layers would.
        Report::amend_all(self.principal_limits.take().chain(self.client_limits.take()), headers);
        add(self.authn.take(), status, headers);
        add(self.tls.take(), status, headers);
    }

    /// Whether there is anything that [`follow`](Self::follow) would do: a response is large, and not passed on for nothing.
    pub(super) const fn hold_permits(&self) -> bool {
        self.principal_permit.is_some() || self.client_permit.is_some()
    }

    /// Lets the response's body hold the places that the request has.
    pub(super) fn follow<R: ResponseBody>(&mut self, response: Response<R>) -> Response<R> {
        let permits = [self.principal_permit.take(), self.client_permit.take()];
        permits.into_iter().flatten().fold(response, |response, permit| permit.follow(response))
    }
}

/// Counts the request among those that run, once: a stage that had to wait is asked again.
fn admit(
    layer: Option<&ConcurrencyLayer>,
    head: &RequestHead<'_>,
    envelope: &mut Envelope,
    permit: &mut Option<Permit>,
) -> Result<(), Rejection> {
    match layer {
        Some(layer) if permit.is_none() => {
            envelope.begin(layer.stage())?;
            *permit = layer.admit(head, envelope)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A request, with its body or without, as the stages see it and change it.
pub(super) trait Message {
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

/// How far the stages came.
pub(super) enum Progress {
    Passed,
    Refused(Refusal),
    WaitsAt(Stage),
}

impl Stages {
    /// Whether streams end with the credential.
    pub(super) const fn ends_streams(&self) -> bool {
        self.authn.is_some() && !self.outlives
    }

    /// Asks the stages from `stage` on, until one refuses or has to wait. What a stage takes off the request is gone before
    /// the next one looks.
    pub(super) fn advance(
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
                None => {
                    envelope.passed();
                    return Progress::Passed;
                }
            }
        }
    }

    /// Waits for `stage`, then goes on with the ones inside it.
    pub(super) async fn advance_waiting(
        &self,
        mut stage: Stage,
        request: &mut Parts,
        envelope: &mut Envelope,
        memos: &mut Memos,
    ) -> Result<(), Refusal> {
        let mut deadline = self.patience.begin();
        loop {
            deadline.extend(self.throttled(stage));
            match deadline.bound(self.ask(stage, request, envelope, memos)).await {
                Some(answer) => answer.map_err(|rejection| (stage, rejection))?,
                None => return Err((stage, self.late(stage, request, envelope, memos))),
            }
            envelope.waited = self.clock.now().since(envelope.at);
            let Some(inner) = next(stage) else {
                envelope.passed();
                return Ok(());
            };
            match self.advance(inner, request, envelope, memos) {
                Progress::Passed => return Ok(()),
                Progress::Refused(refusal) => return Err(refusal),
                Progress::WaitsAt(waiting) => stage = waiting,
            }
        }
    }

    /// How long a request may wait in a stage for its turn.
    fn throttled(&self, stage: Stage) -> Duration {
        let limits = match stage {
            Stage::ClientLimit => &self.client_limits,
            Stage::PrincipalLimit => &self.principal_limits,
            Stage::Audit | Stage::Problem | Stage::Evidence | Stage::Tls | Stage::Authentication | Stage::Guard => {
                return Duration::ZERO;
            }
        };
        limits.iter().map(RateLimitLayer::longest_wait).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The refusal of a request that waited for too long, and who was waited for.
    fn late(&self, stage: Stage, request: &Parts, envelope: &Envelope, memos: &Memos) -> Rejection {
        static SAID: log::Seldom = log::Seldom::new();
        let limit = |limits: &[RateLimitLayer], passed: &Reports| {
            limits.get(passed.len()).map(|limit| format!("the limit {}", limit.scope()))
        };
        let part = match stage {
            Stage::ClientLimit => limit(&self.client_limits, &memos.client_limits),
            Stage::PrincipalLimit => limit(&self.principal_limits, &memos.principal_limits),
            Stage::Guard => {
                let rule = self.table.find(&request.method, memos.place).rule;
                let own = rule.and_then(Rule::guard).and_then(GuardLayer::own_policy).map(|own| own.policy);
                own.or(self.policy.as_deref()).map(|policy| format!("the policy {}", policy.name()))
            }
            Stage::Audit | Stage::Problem | Stage::Evidence | Stage::Tls | Stage::Authentication => None,
        };
        let part = part.unwrap_or_else(|| stage.as_str().to_owned());
        let reason = format!("{part} did not answer within {:?}", self.patience.time());
        SAID.error(envelope.at, &format!("requests are refused: {reason}"));
        Rejection::new(RejectionKind::Unavailable, reason)
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
            Stage::ClientLimit => {
                let layer = self.client_concurrency.as_ref();
                match admit(layer, &request.head(), envelope, &mut memos.client_permit) {
                    Ok(()) => limit_now(&self.client_limits, &request.head(), envelope, &mut memos.client_limits),
                    Err(rejection) => Now::Known(Err(rejection)),
                }
            }
            Stage::Authentication => step(self.authn.as_ref(), request, envelope, &mut memos.authn),
            Stage::PrincipalLimit => {
                let layer = self.principal_concurrency.as_ref();
                match admit(layer, &request.head(), envelope, &mut memos.principal_permit) {
                    Ok(()) => limit_now(&self.principal_limits, &request.head(), envelope, &mut memos.principal_limits),
                    Err(rejection) => Now::Known(Err(rejection)),
                }
            }
            Stage::Guard => {
                let head = request.head();
                match envelope.begin(Stage::Guard).and_then(|()| self.rule(&head, envelope, memos.place)) {
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
            Stage::ClientLimit => {
                limit(&self.client_limits, &*self.clock, request, envelope, &mut memos.client_limits).await
            }
            Stage::Authentication => step(self.authn.as_ref(), request, envelope, &mut memos.authn).await,
            Stage::PrincipalLimit => {
                limit(&self.principal_limits, &*self.clock, request, envelope, &mut memos.principal_limits).await
            }
            Stage::Guard => {
                let head = request.head();
                self.rule(&head, envelope, memos.place)?.decide(head, envelope).await
            }
        }
    }

    /// The table's rule for a request, or the refusal of what it does not name.
    fn rule(&self, head: &RequestHead<'_>, envelope: &mut Envelope, place: Option<Place>) -> Result<&Rule, Rejection> {
        envelope.policy.clone_from(&self.policy);
        let (rule, reason) = match self.table.reading(head.method(), head.path()) {
            Reading::Clear => (self.table.find(head.method(), place).rule, "no rule for this method and path"),
            Reading::OfAnother => (None, "a path that another line names in another spelling"),
            Reading::Ambiguous => {
                return Err(Rejection::new(RejectionKind::InvalidPath, "a path that could mean another one"));
            }
        };
        if let Some(rule) = rule {
            return Ok(rule);
        }
        // From here on all answers are alike: a status of its own would tell what the table names.
        if is_preflight(head) {
            PREFLIGHTS.error(envelope.at, PREFLIGHT);
        }
        // Without authentication there is no challenge to send, and a 401 must carry one (RFC 9110 §15.5.2).
        if self.authn.is_some() {
            envelope.authenticated()?;
        }
        let kind = if self.table.hides() { RejectionKind::NotFound } else { RejectionKind::Forbidden };
        Err(Rejection::new(kind, reason))
    }
}

const PREFLIGHT: &str = "a CORS preflight reached the stack, so no CorsLayer stands outside it. If pages of other sites are to call this \
     service, put tower-http's CorsLayer around the protected service";

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
