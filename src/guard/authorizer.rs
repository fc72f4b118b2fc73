use std::{fmt, net::IpAddr, sync::Arc};

use http::{Extensions, Method};

use crate::{
    challenge::Challenge,
    client::ClientInfo,
    clock::{Clock, Instants, SystemClock},
    context::{Envelope, SecurityContext, Stage, misordered},
    error::ConfigError,
    gate,
    guard::{
        evaluate::{NO_POLICY, hold_to_obligations},
        layer::REALM,
    },
    now::Now,
    policy::{AccessQuery, Attributes, Decision, Directive, PolicyBackend, Resource, StepUp, Verdict, scheme_of},
    principal::Principal,
    rejection::{Rejection, RejectionKind},
    trail::DecisionFact,
};

/// Asks the policy from within a handler, where the thing that is acted upon is known.
///
/// A route's requirement is decided before the handler has read anything; whether *this* order may be cancelled by *this*
/// principal is the handler's question (OWASP API1:2023). Each answer goes into the audit record, or, after
/// the head of the response, when that is written, into entries of its own, repeats by their number.
///
/// ```
/// use http::Extensions;
/// use portcullis::{Rejection, guard::Authorizer, policy::Resource};
///
/// async fn cancel_order(request: &Extensions, id: u64) -> Result<(), Rejection> {
///     let authz = Authorizer::of(request)?;
///     let order = Resource::new("order", id).owned_by("https://id.example.com", "alice");
///     authz.check("orders:cancel", &order).await?;
///     Ok(())
/// }
/// ```
///
/// The question carries subject, client, action, thing, attributes, address and time; and method and route template where they
/// are known: axum's extractor knows them, elsewhere [`for_method`](Self::for_method) says the method.
///
/// The time is that of the question: the request's, and what has passed since the `Authorizer` was made, or what
/// [a clock](Self::with_clock) says. So one that is asked again and again in a long exchange hears of what changed meanwhile.
#[derive(Clone)]
pub struct Authorizer {
    context: SecurityContext,
    subject: Principal,
    scheme: Option<&'static str>,
    client: Option<Principal>,
    policy: Arc<dyn PolicyBackend>,
    address: Option<IpAddr>,
    time: Time,
    fulfilled: Arc<[Box<str>]>,
    attributes: Attributes,
    method: Option<Method>,
    route: Option<Arc<str>>,
    hides: bool,
    realm: Arc<str>,
    /// Whether a permission left it to the handler to ask whose the thing is.
    is_awaited: bool,
}

/// What time it is for a question.
#[derive(Clone)]
enum Time {
    /// That of the request, as its layers read it, and what has passed since this reading.
    Since {
        request: Instants,
        read: Instants,
    },
    By(Arc<dyn Clock>),
}

impl Time {
    fn now(&self) -> Instants {
        match self {
            Self::Since { request, read } => {
                let passed = SystemClock.now().monotonic_nanos().saturating_sub(read.monotonic_nanos());
                Instants::new(
                    request.unix_nanos().saturating_add(passed),
                    request.monotonic_nanos().saturating_add(passed),
                )
            }
            Self::By(clock) => clock.now(),
        }
    }
}

impl Authorizer {
    /// Takes identity and policy from the context of a request.
    ///
    /// # Errors
    /// - [`Unauthenticated`](RejectionKind::Unauthenticated) (`401`) if the request is anonymous.
    /// - [`Misconfigured`](RejectionKind::Misconfigured) (`500`) if no authentication layer ran outside, or no policy is set.
    pub fn of(extensions: &Extensions) -> Result<Self, Rejection> {
        let Some(context) = SecurityContext::of(extensions) else {
            let rejection =
                misordered("an Authorizer is asked for where no layer ran: add the layers outside the handler");
            gate::report(Stage::Guard, &rejection, SystemClock.now());
            return Err(rejection);
        };
        let authorizer = Self::open(context);
        if let Err(rejection) = &authorizer {
            gate::report(Stage::Guard, rejection, context.at());
        }
        authorizer
    }

    fn open(context: &SecurityContext) -> Result<Self, Rejection> {
        // Before the look: a clone asks for the lock itself.
        let shared = context.clone();
        context.with(|envelope| Self::read(shared, envelope))
    }

    fn read(context: SecurityContext, envelope: &Envelope) -> Result<Self, Rejection> {
        if !envelope.has_run(Stage::Authentication) {
            return Err(misordered("no authentication outside a handler that takes an Authorizer: add an AuthnLayer"));
        }
        let subject = envelope.authenticated()?.clone();
        let policy = envelope.policy.clone().ok_or_else(|| misordered(NO_POLICY))?;
        Ok(Self {
            context,
            subject,
            scheme: envelope.scheme,
            client: envelope.client_identity.clone(),
            policy,
            address: envelope.client.as_ref().and_then(ClientInfo::vouched_address),
            time: Time::Since { request: envelope.at, read: SystemClock.now() },
            fulfilled: Arc::default(),
            attributes: Attributes::new(),
            method: None,
            route: envelope.route.clone(),
            hides: false,
            realm: REALM.into(),
            is_awaited: envelope.trail.owner_unasked().is_some(),
        })
    }

    /// Reads the time of each question from this clock: the one that was given to the stack, where it is not the system's. Default:
    /// the request's time, and what has passed since.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.time = Time::By(Arc::new(clock));
        self
    }

    /// Declares that the handler fulfils these obligations, beside those of earlier calls. An allow that obliges to any other is
    /// refused.
    #[must_use]
    pub fn fulfilling<T: Into<Box<str>>>(mut self, obligations: impl IntoIterator<Item = T>) -> Self {
        let earlier = self.fulfilled.iter().cloned();
        self.fulfilled = earlier.chain(obligations.into_iter().map(Into::into)).collect();
        self
    }

    /// Hides that the thing exists from those who may not act on it: what would be a `403` is a
    /// [`NotFound`](RejectionKind::NotFound), `404`, as the handler answers where there is no such thing.
    #[must_use]
    pub const fn hiding(mut self) -> Self {
        self.hides = true;
        self
    }

    /// Names the protection space in the challenge that asks for a step-up. The default is `api`.
    ///
    /// # Errors
    /// If the realm is empty or has a character that a challenge cannot carry; see [`Challenge::new`](crate::Challenge::new).
    pub fn with_realm(mut self, realm: &str) -> Result<Self, ConfigError> {
        Challenge::new("Bearer", realm)?;
        self.realm = realm.into();
        Ok(self)
    }

    /// Who asks.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.subject
    }

    /// Says the request's method, so that policies hear of method and route. HEAD is asked about as GET.
    #[must_use]
    pub fn for_method(mut self, method: &Method) -> Self {
        self.method = Some(if *method == Method::HEAD { Method::GET } else { method.clone() });
        self
    }

    /// Says the route's template; the one that a stack or a guard outside found is known already.
    #[cfg(feature = "axum")]
    pub(crate) fn on_route(mut self, template: Option<&str>) -> Self {
        if let Some(template) = template.filter(|template| self.route.as_deref() != Some(template)) {
            self.route = Some(template.into());
        }
        self
    }

    /// Adds what the application knows of the circumstances; policies see it beside the attributes of the thing. What was added before
    /// stays, but the value of a name that is there already is replaced.
    #[must_use]
    pub fn with_attributes(mut self, attributes: Attributes) -> Self {
        attributes.into_pairs().for_each(|(name, value)| self.attributes.set(name, value));
        self
    }

    /// Demands that the policy allows the action on this thing, or on none in particular (`None`). What the allow asks of
    /// the handler is in the [`Permit`].
    ///
    /// # Errors
    /// - [`Forbidden`](RejectionKind::Forbidden) (`403`) if it denies, or `404` if [`hiding`](Self::hiding); an action that the policy
    ///   does not know is denied, and an RBAC policy logs it as an error.
    /// - [`InsufficientAuthentication`](RejectionKind::InsufficientAuthentication) (`401`) if it denies until the person proves who
    ///   they are [more strongly, or again](crate::policy::Verdict::step_up), with a challenge that says how (RFC 9470).
    /// - [`Unavailable`](RejectionKind::Unavailable) (`503`) if it cannot decide.
    /// - [`Misconfigured`](RejectionKind::Misconfigured) (`500`) if it allows with an obligation that nobody declared to
    ///   [fulfil](Self::fulfilling).
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves nothing in the record.
    pub async fn check<'a>(
        &self,
        action: &str,
        resource: impl Into<Option<&'a Resource>> + Send,
    ) -> Result<Permit, Rejection> {
        let verdict = self.ask(action, resource.into()).await;
        self.conclude(action, verdict)
    }

    /// Demands that the policy allows the action on each of these things: one permit for each, in their order. The policy is
    /// asked about all of them at once.
    ///
    /// # Errors
    /// As [`check`](Self::check). A refusal of one thing outweighs that another cannot be decided.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves nothing in the record.
    pub async fn check_all(&self, action: &str, resources: &[Resource]) -> Result<Vec<Permit>, Rejection> {
        let verdicts = self.ask_all(action, resources).await;
        let (permits, refusals): (Vec<_>, Vec<_>) =
            verdicts.into_iter().map(|verdict| self.conclude(action, verdict)).partition(Result::is_ok);
        // A denial that nothing helps against comes first, then one that a step-up helps against.
        let weight = |refusal: &Rejection| match refusal.kind() {
            RejectionKind::Unavailable => 2,
            RejectionKind::InsufficientAuthentication => 1,
            _ => 0,
        };
        match refusals.into_iter().filter_map(Result::err).min_by_key(weight) {
            Some(refusal) => Err(refusal),
            None => Ok(permits.into_iter().flatten().collect()),
        }
    }

    /// Keeps the things on which the policy allows the action, in their order: for lists. `resource` says what the policy
    /// shall know of a thing. The policy is asked about all of them at once.
    ///
    /// An allow with an obligation that nobody declared to [fulfil](Self::fulfilling) is a denial here. What the allows ask
    /// otherwise is not told: ask [`check`](Self::check) where it matters.
    ///
    /// # Errors
    /// [`Unavailable`](RejectionKind::Unavailable) (`503`) if the policy cannot decide about one of them: a list that is too
    /// short in silence is no answer.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves nothing in the record.
    pub async fn filter<T: Send>(
        &self,
        action: &str,
        things: Vec<T>,
        resource: impl Fn(&T) -> Resource + Send,
    ) -> Result<Vec<T>, Rejection> {
        let resources: Vec<Resource> = things.iter().map(resource).collect();
        let decisions: Vec<Decision> = self
            .ask_all(action, &resources)
            .await
            .into_iter()
            .map(|verdict| self.record(action, verdict, true).0)
            .collect();
        if decisions.contains(&Decision::CannotDecide) {
            return Err(self.cannot_decide(action));
        }
        let kept = things.into_iter().zip(decisions).filter(|(_, decision)| *decision == Decision::Allow);
        Ok(kept.map(|(thing, _)| thing).collect())
    }

    /// Asks whether the policy allows the action on this thing, or on none in particular (`None`), to show or hide something
    /// for example. An allow with an obligation that nobody declared to [fulfil](Self::fulfilling) is a denial here.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves nothing in the record.
    pub async fn allows<'a>(&self, action: &str, resource: impl Into<Option<&'a Resource>> + Send) -> Decision {
        let verdict = self.ask(action, resource.into()).await;
        // What comes of it is the handler's own affair.
        self.record(action, verdict, false).0
    }

    fn query<'q>(&'q self, action: &'q str, resource: Option<&'q Resource>, at: Instants) -> AccessQuery<'q> {
        let mut query =
            AccessQuery::new(&self.subject, action, at).with_client(self.client.as_ref()).with_address(self.address);
        if let Some(method) = &self.method {
            query = query.with_route(method.as_str(), self.route.as_deref());
        }
        if !self.attributes.is_empty() {
            query = query.with_attributes(&self.attributes);
        }
        match resource {
            Some(resource) => query.on(resource),
            None => query,
        }
    }

    async fn ask(&self, action: &str, resource: Option<&Resource>) -> Verdict {
        if resource.is_some() {
            self.asks_about_things();
        }
        let query = self.query(action, resource, self.time.now());
        match self.policy.decide_now(&query) {
            Now::Known(verdict) => verdict,
            Now::Wait => self.policy.decide(&query).await,
        }
    }

    /// One verdict for each thing, whatever the backend answers.
    async fn ask_all(&self, action: &str, resources: &[Resource]) -> Vec<Verdict> {
        self.asks_about_things();
        if resources.is_empty() {
            return Vec::new();
        }
        let at = self.time.now();
        let queries: Vec<AccessQuery<'_>> =
            resources.iter().map(|resource| self.query(action, Some(resource), at)).collect();
        let verdicts = self.policy.decide_all(&queries).await;
        if verdicts.len() == queries.len() {
            return verdicts;
        }
        let reason = format!("{} answers for {} questions", verdicts.len(), queries.len());
        vec![Verdict::cannot_decide(reason); queries.len()]
    }

    /// What a permission left to the handler is in its hands.
    fn asks_about_things(&self) {
        if self.is_awaited {
            self.context.with(|envelope| envelope.trail.handler_asks());
        }
    }

    fn record(&self, action: &str, verdict: Verdict, enforced: bool) -> (Decision, Option<Rejection>) {
        let (verdict, unfulfilled) = hold_to_obligations(verdict, &self.fulfilled);
        let decision = verdict.decision();
        let fact = DecisionFact::of_handler(self.policy.name(), action, verdict);
        self.context.decided(if enforced { fact } else { fact.unenforced() });
        (decision, unfulfilled)
    }

    fn conclude(&self, action: &str, verdict: Verdict) -> Result<Permit, Rejection> {
        let permit = Permit { obligations: verdict.obligations().into(), advice: verdict.advice().into() };
        let at = self.time.now();
        let demand = verdict.step_up_demand().filter(|demand| !demand.is_met_by(&self.subject, at)).cloned();
        let (decision, unfulfilled) = self.record(action, verdict, true);
        if let Some(rejection) = unfulfilled {
            gate::report(Stage::Guard, &rejection, at);
            return Err(rejection);
        }
        match decision {
            Decision::Allow => Ok(permit),
            Decision::Deny => {
                if let Some(demand) = demand.filter(|_| !self.hides)
                    && let Some(scheme) = scheme_of(&self.subject, self.scheme)
                {
                    return Err(self.step_up(action, &demand, scheme));
                }
                let kind = if self.hides { RejectionKind::NotFound } else { RejectionKind::Forbidden };
                Err(Rejection::new(kind, format!("{} denies {action:?}", self.policy.name())))
            }
            Decision::CannotDecide => Err(self.cannot_decide(action)),
        }
    }

    fn step_up(&self, action: &str, demand: &StepUp, scheme: &str) -> Rejection {
        let reason = format!("{} denies {action:?} until the step-up: {demand}", self.policy.name());
        // Cannot fail: the realm was checked, and classes are of the allowed characters.
        let challenges = demand.challenges(scheme, &self.realm).unwrap_or_default();
        Rejection::new(RejectionKind::InsufficientAuthentication, reason).with_challenges(challenges)
    }

    fn cannot_decide(&self, action: &str) -> Rejection {
        Rejection::new(RejectionKind::Unavailable, format!("{} cannot decide {action:?}", self.policy.name()))
    }
}

/// What an allow asks of the handler: obligations, all of which it declared to [fulfil](Authorizer::fulfilling), and advice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    obligations: Box<[Directive]>,
    advice: Box<[Directive]>,
}

impl Permit {
    /// What the handler must do.
    #[must_use]
    pub fn obligations(&self) -> &[Directive] {
        &self.obligations
    }

    /// The first obligation of this name.
    #[must_use]
    pub fn obligation(&self, name: &str) -> Option<&Directive> {
        self.obligations.iter().find(|obligation| obligation.name() == name)
    }

    /// What the handler may do.
    #[must_use]
    pub fn advice(&self) -> &[Directive] {
        &self.advice
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("subject", &self.subject)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
