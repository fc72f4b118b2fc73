use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tower::Layer;

#[cfg(feature = "rate-limit")]
use crate::attempt::Attempt;
use crate::{
    authn::{Authenticator, Identity, Outcome, authenticator::Rare, claim},
    challenge::{Challenge, Challenges},
    clock::{Clock, SystemClock},
    context::{Envelope, Stage, misordered},
    credential,
    gate::{Amend, Gate, Step},
    head::RequestHead,
    log,
    now::Now,
    rejection::{Rejection, RejectionKind},
    trail::{AttemptFact, AttemptOutcome},
};

/// Applies an [`Authenticator`]. See the [module docs](crate::authn).
///
/// Anonymous requests are refused with `401` unless [`allow_anonymous`](Self::allow_anonymous) is said. Responses to
/// authenticated requests get `Cache-Control: private` unless the handler set one (RFC 9111 §3.5 protects only
/// `Authorization`); those with a field [for the next request](Identity::answering) get `no-store`, whatever it set.
///
/// ```
/// use portcullis::{Challenge, authn::{AuthnLayer, Outcome, authenticate_fn}};
///
/// let nobody = authenticate_fn(Challenge::new("Device", "factory")?, |_, _| Outcome::Absent);
/// let layer = AuthnLayer::new(nobody).allow_anonymous();
/// # let _ = layer;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct AuthnLayer {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    authenticator: Arc<dyn Authenticator>,
    challenges: Challenges,
    /// The same, for a token in `Authorization` that nobody claims, by its scheme.
    unclaimed: Box<[(&'static str, Challenges)]>,
    /// Those of tokens, for a request that is malformed.
    malformed: Challenges,
    headers: Box<[HeaderName]>,
    allow_anonymous: bool,
    plain_http: bool,
    no_store: bool,
    #[cfg(feature = "rate-limit")]
    budget: Option<crate::rate_limit::FailureBudget>,
    /// That by which requests have their time, where it is known.
    clock: Option<Arc<dyn Clock>>,
}

impl AuthnLayer {
    /// Asks this authenticator. If it is [`one_of`](crate::authn::one_of) two that refuse each other's credentials, the log says so; a
    /// stack does not build then.
    pub fn new(authenticator: impl Authenticator) -> Self {
        if let Err(error) = claim::contradiction(&authenticator.claims()) {
            log::error(&error.to_string());
        }
        let offers = authenticator.challenges();
        let shared = Shared {
            unclaimed: unclaimed(&offers),
            malformed: offers
                .iter()
                .filter(|offer| is_of_tokens(offer))
                .map(|it| with_error(it, "invalid_request"))
                .collect(),
            challenges: offers.into_iter().collect(),
            headers: authenticator.credential_headers().into(),
            authenticator: Arc::new(authenticator),
            allow_anonymous: false,
            plain_http: false,
            no_store: false,
            #[cfg(feature = "rate-limit")]
            budget: None,
            clock: None,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Passes requests without any credential; a guard further inside decides about them. A bad credential is refused
    /// all the same, but for a cookie: browsers send it by themselves, so with a bad one the request is anonymous, and a
    /// guard that needs an identity refuses it for that cookie.
    pub fn allow_anonymous(mut self) -> Self {
        Arc::make_mut(&mut self.shared).allow_anonymous = true;
        self
    }

    /// Reads credentials although nothing outside enforces HTTPS. Whoever can read the wire then has them.
    pub fn dangerous_plain_http(mut self) -> Self {
        Arc::make_mut(&mut self.shared).plain_http = true;
        self
    }

    /// Sends `Cache-Control: no-store` in place of `private`: not even the client's own cache keeps the response. A header
    /// that the handler set stays.
    pub fn no_store(mut self) -> Self {
        Arc::make_mut(&mut self.shared).no_store = true;
        self
    }

    /// Refuses credentials of a source that had too many bad ones, unless they are known. None is set by default. A request of which
    /// nobody told the [`Connection`](crate::Connection) is refused with `500`, as by a limit per client.
    #[cfg(feature = "rate-limit")]
    pub fn with_failure_budget(mut self, budget: crate::rate_limit::FailureBudget) -> Self {
        Arc::make_mut(&mut self.shared).budget = Some(budget);
        self
    }

    /// Reads from this clock when a request comes, if no layer outside does, and how long its credential took to look up. It must be
    /// the one that the outermost layer has. Default: the system's.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.shared).clock = Some(Arc::new(clock));
        self
    }

    /// # Errors
    /// If two authenticators refuse each other's credentials.
    #[cfg(feature = "stack")]
    pub(crate) fn check(&self) -> Result<(), crate::error::ConfigError> {
        claim::contradiction(&self.shared.authenticator.claims())
    }

    /// Who counts the attempts of a request. A connection that nobody told of is a mistake in the setup, which limits refuse as
    /// well; one that has no address is not.
    #[cfg(feature = "rate-limit")]
    fn attempts<'a>(
        &'a self,
        head: &RequestHead<'_>,
        envelope: &mut Envelope,
    ) -> Result<Option<crate::rate_limit::Attempts<'a>>, Rejection> {
        let Some(budget) = &self.shared.budget else { return Ok(None) };
        let at = envelope.present();
        let address = envelope.client_or_connection(|| head.connection())?.address();
        // Behind a trusted proxy a client can bring it about to have none, and must not be spared for that.
        if address.is_none() && !envelope.by_trusted_proxy {
            return Ok(None);
        }
        Ok(Some(budget.attempts(address, at, envelope.failed_attempts)))
    }

    fn conclude(
        &self,
        outcome: Outcome,
        head: &RequestHead<'_>,
        envelope: &mut Envelope,
    ) -> Result<Authenticated, Rejection> {
        let shared = &*self.shared;
        match outcome {
            Outcome::Verified(identity) => self.admit(identity, head, envelope),
            Outcome::Refused(rejection) => {
                self.attempted(AttemptOutcome::Refused, &rejection, head, envelope);
                Err(self.with_challenges(rejection, head))
            }
            Outcome::Absent | Outcome::RefusedIfNeeded(_) if head.headers().contains_key(header::AUTHORIZATION) => {
                // One that is malformed is that first, whoever would have claimed it.
                let rejection = match head.authorization() {
                    Err(malformed) => malformed,
                    Ok(credential) => {
                        let told = credential.and_then(|credential| self.unclaimed(credential.scheme()));
                        Rejection::new(RejectionKind::InvalidCredential, "no authenticator claims this Authorization")
                            .with_challenges(told.unwrap_or(&shared.challenges).clone())
                    }
                };
                self.attempted(AttemptOutcome::Refused, &rejection, head, envelope);
                Err(self.with_challenges(rejection, head))
            }
            Outcome::RefusedIfNeeded(rejection) if shared.allow_anonymous => {
                self.attempted(AttemptOutcome::Ignored, &rejection, head, envelope);
                envelope.refused_if_needed = Some(Box::new(self.with_challenges(rejection, head)));
                Ok(self.passed_anonymously(envelope))
            }
            Outcome::RefusedIfNeeded(rejection) => {
                self.attempted(AttemptOutcome::Refused, &rejection, head, envelope);
                Err(self.with_challenges(rejection, head))
            }
            Outcome::Absent if shared.allow_anonymous => Ok(self.passed_anonymously(envelope)),
            Outcome::Absent => {
                Err(self.with_challenges(Rejection::new(RejectionKind::Unauthenticated, "no credential"), head))
            }
        }
    }

    /// Keeps for the record, if there will be one, which credential came to nothing, by the names of its fields.
    fn attempted(
        &self,
        outcome: AttemptOutcome,
        rejection: &Rejection,
        head: &RequestHead<'_>,
        envelope: &mut Envelope,
    ) {
        if !envelope.has_run(Stage::Audit) {
            return;
        }
        let (kind, reason) = rejection.facts();
        let known = [header::AUTHORIZATION, header::COOKIE];
        let presented = self.shared.headers.iter().chain(&known).filter(|name| head.headers().contains_key(*name));
        let mut fields: Vec<HeaderName> = Vec::new();
        for name in presented {
            if !fields.contains(name) {
                fields.push(name.clone());
            }
        }
        envelope.trail.attempted(AttemptFact { outcome, fields, kind, reason });
    }

    fn admit(
        &self,
        mut identity: Identity,
        head: &RequestHead<'_>,
        envelope: &mut Envelope,
    ) -> Result<Authenticated, Rejection> {
        let mut rare = identity.take_rare();
        if let Some(rare) = &mut rare {
            rare.outweighed.drain(..).for_each(|attempt| envelope.trail.attempted(attempt));
        }
        if identity.has_left_authorization() && head.headers().contains_key(header::AUTHORIZATION) {
            let rejection = Rejection::new(
                RejectionKind::InvalidRequest,
                "a second credential, in Authorization, that nobody claims",
            );
            self.attempted(AttemptOutcome::Refused, &rejection, head, envelope);
            return Err(self.with_challenges(rejection, head));
        }
        envelope.scheme = identity.scheme();
        (envelope.subject, envelope.client_identity) = identity.into_parts();
        let shared = &*self.shared;
        if envelope.subject.is_none() {
            let bad_subject = rare.as_mut().and_then(|rare| rare.take_bad_subject());
            if !shared.allow_anonymous {
                let nobody = || Rejection::new(RejectionKind::Unauthenticated, "an application, and nobody acts");
                return Err(self.with_challenges(bad_subject.unwrap_or_else(nobody), head));
            }
            envelope.refused_if_needed = bad_subject.map(|rejection| Box::new(self.with_challenges(rejection, head)));
            envelope.challenges = shared.challenges.clone();
        }
        let cache = if shared.no_store { Cache::NoStore } else { Cache::Private };
        Ok(Authenticated { cache, challenges: shared.challenges.clone(), rare })
    }

    /// The fields that its authenticator reads.
    #[cfg(feature = "stack")]
    pub(crate) fn credential_headers(&self) -> &[HeaderName] {
        &self.shared.headers
    }

    /// Who needs an identity further inside offers these challenges.
    fn passed_anonymously(&self, envelope: &mut Envelope) -> Authenticated {
        envelope.challenges = self.shared.challenges.clone();
        Authenticated { cache: Cache::Handlers, challenges: self.shared.challenges.clone(), rare: None }
    }

    /// Every `401` carries a challenge (RFC 9110 §15.5.2): the authenticator's own, or else those of this layer. A malformed
    /// `Authorization` gets one if it may have held a token.
    fn with_challenges(&self, rejection: Rejection, head: &RequestHead<'_>) -> Rejection {
        let shared = &*self.shared;
        if !rejection.challenges().values().is_empty() {
            return rejection;
        }
        match rejection.kind() {
            RejectionKind::InvalidRequest if self.may_hold_a_token(head) => {
                rejection.with_challenges(shared.malformed.clone())
            }
            kind if kind.status() == StatusCode::UNAUTHORIZED => rejection.with_challenges(shared.challenges.clone()),
            _ => rejection,
        }
    }

    /// Whether an `Authorization` is there whose scheme is one of tokens, or cannot be told.
    fn may_hold_a_token(&self, head: &RequestHead<'_>) -> bool {
        head.headers().contains_key(header::AUTHORIZATION)
            && credential::scheme(head.headers()).is_none_or(|scheme| self.unclaimed(scheme).is_some())
    }

    /// What is said of a token that nobody claims; none for a scheme that is not offered, of which no error is told (RFC 6750 §3.1).
    fn unclaimed(&self, scheme: &str) -> Option<&Challenges> {
        let of_scheme = self.shared.unclaimed.iter().find(|(offered, _)| offered.eq_ignore_ascii_case(scheme));
        of_scheme.map(|(_, challenges)| challenges)
    }

    /// Whether the layer is put together so that it may look at credentials.
    fn must_be_set_up(&self, envelope: &Envelope) -> Result<(), Rejection> {
        if self.shared.challenges.values().is_empty() {
            return Err(misordered("the authenticator offers no challenge, which every 401 needs (RFC 9110 §15.5.2)"));
        }
        if self.shared.plain_http || envelope.has_run(Stage::Tls) {
            return Ok(());
        }
        Err(misordered("no TLS enforcement outside authentication: add a TlsLayer, or say dangerous_plain_http()"))
    }
}

/// The schemes whose challenges say what is wrong with the token that came (RFC 6750 §3.1, RFC 9449 §7.1); others have no such
/// parameter.
const OF_TOKENS: [&str; 2] = ["Bearer", "DPoP"];

fn is_of_tokens(offer: &Challenge) -> bool {
    OF_TOKENS.iter().any(|scheme| offer.scheme().eq_ignore_ascii_case(scheme))
}

fn with_error(offer: &Challenge, error: &str) -> Challenge {
    offer.clone().with("error", error).unwrap_or_else(|_| offer.clone())
}

/// All that is offered, for each scheme of tokens among it: with the error in the challenge of that one.
fn unclaimed(offers: &[Challenge]) -> Box<[(&'static str, Challenges)]> {
    let told = |scheme: &'static str| {
        let is_of = |offer: &&Challenge| offer.scheme().eq_ignore_ascii_case(scheme);
        let tell = |offer: &Challenge| if is_of(&offer) { with_error(offer, "invalid_token") } else { offer.clone() };
        offers.iter().any(|offer| is_of(&offer)).then(|| (scheme, offers.iter().map(tell).collect()))
    };
    OF_TOKENS.into_iter().filter_map(told).collect()
}

impl<S> Layer<S> for AuthnLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl Step for AuthnLayer {
    type Memo = Authenticated;

    fn stage(&self) -> Stage {
        Stage::Authentication
    }

    fn clock(&self) -> &dyn Clock {
        self.shared.clock.as_deref().unwrap_or(&SystemClock)
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Authenticated, Rejection>> {
        if let Err(rejection) = self.must_be_set_up(envelope) {
            return Now::Known(Err(rejection));
        }
        #[cfg(feature = "rate-limit")]
        let attempts = match self.attempts(head, envelope) {
            Ok(attempts) => attempts,
            Err(rejection) => return Now::Known(Err(rejection)),
        };
        let seen = head.with_client(envelope.client.as_ref());
        #[cfg(feature = "rate-limit")]
        let seen =
            seen.with_attempt(attempts.as_ref().map_or(Attempt::uncounted(), |meter| Attempt::counted_by(meter)));
        match self.shared.authenticator.authenticate_now(&seen, envelope.at) {
            // Before the rest, and not as a whole: an outcome is large, and moving it around takes longer than this.
            Now::Known(Outcome::Verified(identity)) => Now::Known(self.admit(identity, head, envelope)),
            Now::Known(outcome) => Now::Known(self.conclude(outcome, head, envelope)),
            Now::Wait => {
                #[cfg(feature = "rate-limit")]
                {
                    envelope.failed_attempts = attempts.as_ref().map_or(0, |meter| meter.failed_so_far());
                }
                Now::Wait
            }
        }
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<Authenticated, Rejection> {
        #[cfg(feature = "rate-limit")]
        let attempts = self.attempts(&head, envelope)?.map(|attempts| match self.shared.clock.as_deref() {
            Some(clock) => attempts.that_wait(clock, envelope.present()),
            None => attempts.that_wait(&SystemClock, SystemClock.now()),
        });
        let outcome = {
            let head = head.with_client(envelope.client.as_ref());
            #[cfg(feature = "rate-limit")]
            let head =
                head.with_attempt(attempts.as_ref().map_or(Attempt::uncounted(), |meter| Attempt::counted_by(meter)));
            self.shared.authenticator.authenticate(&head, envelope.at).await
        };
        self.conclude(outcome, &head, envelope)
    }

    fn amend_request(&self, memo: &Authenticated, headers: &mut HeaderMap) {
        for name in memo.rare.iter().flat_map(|rare| &rare.stripped) {
            headers.remove(name);
        }
        // All lines: one that stands twice is refused where it is read, but Cookie may (RFC 9113 §8.2.3). A look at each name costs
        // less than a search for each of ours, for as many fields as requests have.
        for (_, value) in headers.iter_mut().filter(|(name, _)| self.shared.headers.contains(name)) {
            value.set_sensitive(true);
        }
    }
}

/// What a response from further inside must carry.
#[derive(Debug)]
pub(crate) struct Authenticated {
    cache: Cache,
    challenges: Challenges,
    /// What ends with the request, and what the response answers it with.
    rare: Option<Box<Rare>>,
}

/// Who may keep the response.
#[derive(Clone, Copy, Debug)]
enum Cache {
    /// It is for nobody in particular: as the handler says.
    Handlers,
    /// It is for one identity alone: as the handler says, or else the client.
    Private,
    /// Or else nobody.
    NoStore,
}

impl Cache {
    /// Constants: a value made here would be checked byte by byte.
    const fn value(self) -> Option<HeaderValue> {
        match self {
            Self::Handlers => None,
            Self::Private => Some(const { HeaderValue::from_static("private") }),
            Self::NoStore => Some(const { HeaderValue::from_static("no-store") }),
        }
    }
}

impl Amend for Authenticated {
    fn amend(self, status: StatusCode, headers: &mut HeaderMap) {
        if let Some((name, value)) = self.rare.and_then(|rare| rare.answered) {
            // It is for this client and its next request, whatever the handler says of the rest (RFC 9449 §8.2).
            headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
            headers.insert(name, value);
        } else if let Some(cache) = self.cache.value()
            // A name is compared sooner than it is hashed; there are few names in a response.
            && headers.keys().all(|name| *name != header::CACHE_CONTROL)
        {
            headers.insert(header::CACHE_CONTROL, cache);
        }
        // A handler's own 401 needs a challenge as well (RFC 9110 §15.5.2); the ones that it sent are left alone.
        if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
            for challenge in self.challenges.values() {
                headers.append(header::WWW_AUTHENTICATE, challenge.clone());
            }
        }
    }
}
