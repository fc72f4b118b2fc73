use std::{fmt, net::IpAddr, sync::Arc};

use http::Extensions;

use crate::{
    client::ClientInfo,
    clock::{Clock, Instants, SystemClock},
    context::{SecurityContext, Stage, misordered},
    gate,
    guard::evaluate::{NO_POLICY, hold_to_obligations},
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, Resource, Verdict},
    principal::Principal,
    rejection::{Rejection, RejectionKind},
    trail::DecisionFact,
};

/// Asks the policy from within a handler, where the thing that is acted upon is known.
///
/// A route's requirement is decided before the handler has read anything; whether *this* order may be cancelled by *this*
/// principal is the handler's question (OWASP API1:2023). Each answer goes into the audit record.
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
/// The question carries subject, client, action, thing, address and time; not the method and not the route, which the
/// route's own requirement has.
#[derive(Clone)]
pub struct Authorizer {
    context: SecurityContext,
    subject: Principal,
    client: Option<Principal>,
    policy: Arc<dyn PolicyBackend>,
    address: Option<IpAddr>,
    at: Instants,
    fulfilled: Arc<[Box<str>]>,
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
        let envelope = context.lock();
        if !envelope.has_run(Stage::Authentication) {
            return Err(misordered("no authentication outside a handler that takes an Authorizer: add an AuthnLayer"));
        }
        let subject = envelope.authenticated()?.clone();
        let policy = envelope.policy.clone().ok_or_else(|| misordered(NO_POLICY))?;
        Ok(Self {
            context: context.clone(),
            subject,
            client: envelope.client_identity.clone(),
            policy,
            address: envelope.client.as_ref().and_then(ClientInfo::vouched_address),
            at: envelope.at,
            fulfilled: Arc::default(),
        })
    }

    /// Declares that the handler fulfils these obligations. An allow that obliges to any other is refused.
    #[must_use]
    pub fn fulfilling<T: Into<Box<str>>>(mut self, obligations: impl IntoIterator<Item = T>) -> Self {
        self.fulfilled = obligations.into_iter().map(Into::into).collect();
        self
    }

    /// Who asks.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.subject
    }

    /// Demands that the policy allows the action on this thing, or on none in particular (`None`).
    ///
    /// # Errors
    /// - [`Forbidden`](RejectionKind::Forbidden) (`403`) if it denies; an action that the policy does not know is denied, and
    ///   an RBAC policy logs it as an error.
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
    ) -> Result<(), Rejection> {
        let (decision, unfulfilled) = self.ask(action, resource.into()).await;
        if let Some(rejection) = unfulfilled {
            gate::report(Stage::Guard, &rejection, self.at);
            return Err(rejection);
        }
        let backend = self.policy.name();
        match decision {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(Rejection::new(RejectionKind::Forbidden, format!("{backend} denies {action:?}"))),
            Decision::CannotDecide => {
                Err(Rejection::new(RejectionKind::Unavailable, format!("{backend} cannot decide {action:?}")))
            }
        }
    }

    /// Asks whether the policy allows the action on this thing, or on none in particular (`None`), to show or hide something
    /// for example. An allow with an obligation that nobody declared to [fulfil](Self::fulfilling) is a denial here.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves nothing in the record.
    pub async fn allows<'a>(&self, action: &str, resource: impl Into<Option<&'a Resource>> + Send) -> Decision {
        self.ask(action, resource.into()).await.0
    }

    async fn ask(&self, action: &str, resource: Option<&Resource>) -> (Decision, Option<Rejection>) {
        let mut query = AccessQuery::new(&self.subject, action, self.at)
            .with_client(self.client.as_ref())
            .with_address(self.address);
        if let Some(resource) = resource {
            query = query.on(resource);
        }
        let verdict = match self.policy.decide_now(&query) {
            Now::Known(verdict) => verdict,
            Now::Wait => self.policy.decide(&query).await,
        };
        self.record(action, verdict)
    }

    fn record(&self, action: &str, verdict: Verdict) -> (Decision, Option<Rejection>) {
        let (verdict, unfulfilled) = hold_to_obligations(verdict, &self.fulfilled);
        let decision = verdict.decision();
        self.context.lock().decided(DecisionFact::new(self.policy.name(), Some(action.into()), verdict));
        (decision, unfulfilled)
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
