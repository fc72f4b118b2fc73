use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, header};

use crate::{
    authn::Claim,
    challenge::Challenge,
    clock::Instants,
    head::RequestHead,
    now::Now,
    principal::{Principal, Slot},
    rejection::Rejection,
    trail::AttemptFact,
};

/// Who was verified: who acts, what acts for them, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    subject: Option<Principal>,
    client: Option<Principal>,
    left_authorization: bool,
    ambient: bool,
    /// The scheme that a challenge names, where it is not that of the subject's token.
    scheme: Option<&'static str>,
    /// Apart, and mostly nowhere: an identity goes from hand to hand, and what is large is copied each time.
    rare: Option<Box<Rare>>,
}

/// What few identities bring along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    /// Header fields that end here.
    pub(crate) stripped: Vec<HeaderName>,
    /// A header field of the response.
    pub(crate) answered: Option<(HeaderName, HeaderValue)>,
    /// Bad credentials that do not count beside this one.
    pub(crate) outweighed: Vec<AttemptFact>,
    /// What an application without a subject is refused for where somebody has to act.
    no_subject_for: Option<BadSubject>,
}

impl Rare {
    pub(crate) fn take_bad_subject(&mut self) -> Option<Rejection> {
        self.no_subject_for.take().map(|bad| bad.0)
    }
}

/// A bad credential of a subject, which came by itself.
#[derive(Clone, Debug)]
struct BadSubject(Rejection);

impl PartialEq for BadSubject {
    fn eq(&self, other: &Self) -> bool {
        self.0.facts() == other.0.facts() && self.0.challenges() == other.0.challenges()
    }
}

impl Eq for BadSubject {}

impl Identity {
    const fn new(subject: Option<Principal>, client: Option<Principal>) -> Self {
        Self { subject, client, left_authorization: false, ambient: false, scheme: None, rare: None }
    }

    /// A subject that an application with an identity of its own acts for.
    #[must_use]
    pub const fn with_client(subject: Principal, client: Principal) -> Self {
        Self::new(Some(subject), Some(client))
    }

    /// An application that acts for a subject whom another authenticator finds. By itself it is anonymous: nobody acts.
    #[must_use]
    pub const fn of_client(client: Principal) -> Self {
        Self::new(None, Some(client))
    }

    /// The identity in a slot.
    #[must_use]
    pub const fn in_slot(&self, slot: Slot) -> Option<&Principal> {
        match slot {
            Slot::Subject => self.subject.as_ref(),
            Slot::Client => self.client.as_ref(),
        }
    }

    /// Says that the credential came from another header field than `Authorization`. A request that carries an
    /// `Authorization` besides has a second credential, which nobody claims, and is refused with `400`.
    #[must_use]
    pub const fn leaving_authorization(mut self) -> Self {
        self.left_authorization = true;
        self
    }

    /// Says that the credential is one that the client's software sends by itself, a cookie or a client certificate. It
    /// only counts where no other credential came: beside one, it is ignored.
    #[must_use]
    pub const fn ambient(mut self) -> Self {
        self.ambient = true;
        self
    }

    /// Says which scheme a challenge names that asks for a better token.
    pub(crate) const fn offered_as(mut self, scheme: Option<&'static str>) -> Self {
        self.scheme = scheme;
        self
    }

    pub(crate) const fn scheme(&self) -> Option<&'static str> {
        self.scheme
    }

    /// Removes this header field from the request that goes on: the credential that stood there has done its work, and nobody
    /// further inside sees it.
    #[must_use]
    pub fn stripping(mut self, field: HeaderName) -> Self {
        self.rare_mut().stripped.push(field);
        self
    }

    /// Adds this header field to the response, and forbids to cache it: what the client needs for its next request, such as a
    /// nonce. The response says `Cache-Control: no-store`, whatever the handler said. One field; a later one replaces it.
    #[must_use]
    pub fn answering(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.rare_mut().answered = Some((name, value));
        self
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) const fn take_rare(&mut self) -> Option<Box<Rare>> {
        self.rare.take()
    }

    /// Keeps for the record which bad credentials came beside it and did not count.
    pub(crate) fn outweigh(&mut self, others: Vec<AttemptFact>) {
        if !others.is_empty() {
            self.rare_mut().outweighed.extend(others);
        }
    }

    pub(crate) fn take_outweighed(&mut self) -> Vec<AttemptFact> {
        self.rare.as_deref_mut().map(|rare| std::mem::take(&mut rare.outweighed)).unwrap_or_default()
    }

    /// Keeps for which bad credential nobody acts.
    pub(crate) fn without_subject_for(mut self, bad: Rejection) -> Self {
        self.rare_mut().no_subject_for = Some(BadSubject(bad));
        self
    }

    pub(crate) const fn is_ambient(&self) -> bool {
        self.ambient
    }

    pub(crate) const fn has_left_authorization(&self) -> bool {
        self.left_authorization
    }

    /// Joins an identity that has only a client to one that has only a subject. `Err` has them back if they are not that.
    pub(crate) fn join(self, other: Self) -> Result<Self, Box<(Self, Self)>> {
        let (acting, beside) = if self.subject.is_some() { (self, other) } else { (other, self) };
        let left_authorization = acting.left_authorization && beside.left_authorization;
        match (acting, beside) {
            (
                mut acting @ Self { subject: Some(_), client: None, .. },
                Self { subject: None, client: client @ Some(_), rare, .. },
            ) => {
                acting.client = client;
                acting.left_authorization = left_authorization;
                if let Some(theirs) = rare {
                    let ours = acting.rare_mut();
                    ours.stripped.extend(theirs.stripped);
                    ours.outweighed.extend(theirs.outweighed);
                    ours.answered = ours.answered.take().or(theirs.answered);
                }
                Ok(acting)
            }
            pair => Err(Box::new(pair)),
        }
    }

    pub(crate) fn into_parts(self) -> (Option<Principal>, Option<Principal>) {
        (self.subject, self.client)
    }
}

impl From<Principal> for Identity {
    fn from(subject: Principal) -> Self {
        Self::new(Some(subject), None)
    }
}

/// What an [`Authenticator`] found.
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: nothing, somebody, or a refusal of either kind")]
pub enum Outcome {
    /// No credential of this authenticator's kind was presented. Not a failure.
    Absent,
    /// The credential is good.
    Verified(Identity),
    /// A credential was presented and is not accepted, or could not be checked. The request is refused; no other
    /// authenticator is asked.
    Refused(Rejection),
    /// As [`Refused`](Self::Refused), for a credential that the client's software sends by itself: a cookie, for example,
    /// that expired. Where anonymous requests pass it counts as absent; where an identity is needed the request is
    /// refused with this. Beside another credential it is ignored.
    RefusedIfNeeded(Rejection),
}

impl Outcome {
    /// The credential is good, and this is its owner.
    pub fn verified(principal: Principal) -> Self {
        Self::Verified(principal.into())
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

/// Finds out who sent a request.
///
/// # Contract
/// - A credential that is not of this kind is [`Absent`](Outcome::Absent); one that is, and is bad, is
///   [`Refused`](Outcome::Refused) with [`InvalidCredential`](crate::RejectionKind::InvalidCredential).
/// - An identity whose credential did not come in `Authorization` says so:
///   [`Identity::leaving_authorization`]. Else a second credential there, which nobody read, would pass.
/// - A credential that clients send by themselves, such as a cookie, is [`ambient`](Identity::ambient) if it is good, and
///   [`RefusedIfNeeded`](Outcome::RefusedIfNeeded) if it is bad.
/// - Who hands credentials to somebody else, to learn whose they are, says so: [`discloses`](Self::discloses).
/// - A backend that fails is [`Unavailable`](crate::RejectionKind::Unavailable), never "bad credential".
/// - [`authenticate_now`](Self::authenticate_now) and [`authenticate`](Self::authenticate) agree.
/// - Time is `at`; an authenticator reads no clock.
///
/// The conformance suite (feature `conformance`) checks it, as far as the fixture has requests for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no authenticator",
    note = "several become one: `one_of((a, b))` takes either credential, `both(a, b)` wants the two"
)]
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// What a `401` offers the client, at least one (RFC 9110 §15.5.2). Asked once, when the layer is made.
    fn challenges(&self) -> Vec<Challenge>;

    /// The header fields that may carry this kind of credential; they are marked sensitive once read. Asked once.
    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![header::AUTHORIZATION]
    }

    /// What it takes for its own, whoever else may know it. Asked when the layer is made and when a stack is built, which fails where
    /// two of them in [`one_of`](crate::authn::one_of) claim the same. Default: nothing, and two of a kind are not told of.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// Whether it would hand the credential in this request's `Authorization` to somebody else, who may not have issued it: to an
    /// introspection endpoint, for example. The form alone may decide. Default: never.
    ///
    /// In [`one_of`](crate::authn::one_of) and [`both`](crate::authn::both) it is asked last then, once nobody else has refused the
    /// request; what another one has verified it does not see: [`RequestHead::authorization`] is none for it. What two would disclose
    /// goes to neither, and the request is refused with `500`.
    ///
    /// # Security
    /// Where it is not said, an API key may go to who can use it. An authenticator that wraps another one says what that says.
    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        let _ = head;
        false
    }

    /// Answers without waiting, if it can.
    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        let _ = (head, at);
        Now::Wait
    }

    /// Answers.
    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<A: Authenticator + ?Sized> Authenticator for $pointer<A> {
            fn challenges(&self) -> Vec<Challenge> {
                (**self).challenges()
            }

            fn credential_headers(&self) -> Vec<HeaderName> {
                (**self).credential_headers()
            }

            fn claims(&self) -> Vec<Claim> {
                (**self).claims()
            }

            fn discloses(&self, head: &RequestHead<'_>) -> bool {
                (**self).discloses(head)
            }

            fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
                (**self).authenticate_now(head, at)
            }

            async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
                (**self).authenticate(head, at).await
            }
        }
    )*};
}

forward!(Arc, Box);

/// Makes an [`Authenticator`] of a function that answers at once.
///
/// ```
/// use portcullis::{Challenge, Principal, PrincipalKind, authn::{Outcome, authenticate_fn}};
///
/// let challenge = Challenge::new("Device", "factory")?;
/// let devices = authenticate_fn(challenge, |head, _at| match head.authorization() {
///     Ok(Some(credential)) if credential.is_scheme("Device") => {
///         Outcome::verified(Principal::builder(PrincipalKind::Service, "factory", credential.token(), "device").build())
///     }
///     Ok(_) => Outcome::Absent,
///     Err(rejection) => Outcome::Refused(rejection),
/// });
/// # let _ = devices;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
pub fn authenticate_fn<F>(challenge: Challenge, answer: F) -> FnAuthenticator<F>
where
    F: Fn(&RequestHead<'_>, Instants) -> Outcome + Send + Sync + 'static,
{
    FnAuthenticator { challenge, answer }
}

/// Made by [`authenticate_fn`].
#[derive(Clone)]
pub struct FnAuthenticator<F> {
    challenge: Challenge,
    answer: F,
}

impl<F> fmt::Debug for FnAuthenticator<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnAuthenticator").field("challenge", &self.challenge).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F> Authenticator for FnAuthenticator<F>
where
    F: Fn(&RequestHead<'_>, Instants) -> Outcome + Send + Sync + 'static,
{
    fn challenges(&self) -> Vec<Challenge> {
        vec![self.challenge.clone()]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        Now::Known((self.answer)(head, at))
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        (self.answer)(head, at)
    }
}
