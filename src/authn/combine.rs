use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, header};

use crate::{
    authn::{Authenticator, Identity, Outcome},
    challenge::{Challenge, Challenges},
    clock::Instants,
    head::RequestHead,
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
    trail::{AttemptFact, AttemptOutcome},
};

/// Takes exactly one credential, of any of these kinds: a tuple of two to four authenticators.
///
/// An application's identity ([`Identity::of_client`]) and a subject's are joined. They are asked in order. A bad credential
/// refuses at once; two good ones refuse with `400` (RFC 6750 §2). A cookie, good or bad, does not count beside a credential that
/// was sent on purpose; of a bad one the audit record tells.
///
/// ```
/// use portcullis::{Challenge, authn::{Outcome, authenticate_fn, one_of}};
///
/// let first = authenticate_fn(Challenge::new("Device", "factory")?, |_, _| Outcome::Absent);
/// let second = authenticate_fn(Challenge::new("Operator", "factory")?, |_, _| Outcome::Absent);
/// let either = one_of((first, second));
/// # let _ = either;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
pub fn one_of(choice: impl Choice) -> OneOf {
    OneOf { authenticators: choice.into_authenticators().into() }
}

/// Two to four authenticators to choose from: a tuple, or a vector.
pub trait Choice {
    /// Boxes them, in order.
    fn into_authenticators(self) -> Vec<Box<dyn Authenticator>>;
}

impl Choice for Vec<Box<dyn Authenticator>> {
    fn into_authenticators(self) -> Self {
        self
    }
}

macro_rules! choice {
    ($($type:ident $field:tt),*) => {
        impl<$($type: Authenticator),*> Choice for ($($type,)*) {
            fn into_authenticators(self) -> Vec<Box<dyn Authenticator>> {
                vec![$(Box::new(self.$field)),*]
            }
        }
    };
}

choice!(A 0, B 1);
choice!(A 0, B 1, C 2);
choice!(A 0, B 1, C 2, D 3);

/// Made by [`one_of`].
#[derive(Clone, Debug)]
pub struct OneOf {
    authenticators: Arc<[Box<dyn Authenticator>]>,
}

/// What was found so far, among several authenticators.
struct Found {
    outcome: Outcome,
    /// Bad credentials that the request would be refused for if nothing else came.
    ambient: Vec<AttemptFact>,
}

impl Found {
    const fn nothing() -> Self {
        Self { outcome: Outcome::Absent, ambient: Vec::new() }
    }

    /// Takes the next outcome in. An error once the request is refused.
    fn add(&mut self, by: &dyn Authenticator, head: &RequestHead<'_>, mut outcome: Outcome) -> Result<(), Rejection> {
        if let Outcome::RefusedIfNeeded(rejection) = &outcome {
            self.ambient.push(ambient(by, head, rejection));
        }
        if let Outcome::Verified(other) = outcome {
            let found = std::mem::replace(&mut self.outcome, Outcome::Absent);
            (self.outcome, outcome) = match found {
                // An application beside a subject: both count.
                Outcome::Verified(one) => match one.join(other) {
                    Ok(pair) => (Outcome::Verified(pair), Outcome::Absent),
                    Err(pair) => (Outcome::Verified(pair.0), Outcome::Verified(pair.1)),
                },
                found => (found, Outcome::Verified(other)),
            };
        }
        let takes_over = match (&self.outcome, &outcome) {
            (Outcome::Verified(one), Outcome::Verified(other)) if one.is_ambient() == other.is_ambient() => {
                return Err(Rejection::new(RejectionKind::InvalidRequest, "two credentials where one is taken"));
            }
            (_, Outcome::Refused(_)) => true,
            (_, Outcome::Absent) => false,
            (Outcome::Absent, _) => true,
            // What was sent on purpose counts; of what was not, the bad one.
            (_, Outcome::Verified(identity)) => !identity.is_ambient(),
            (Outcome::Verified(identity), Outcome::RefusedIfNeeded(_)) => identity.is_ambient(),
            (Outcome::Refused(_) | Outcome::RefusedIfNeeded(_), Outcome::RefusedIfNeeded(_)) => false,
        };
        match outcome {
            Outcome::Refused(rejection) => return Err(rejection),
            outcome if takes_over => {
                if let Outcome::Verified(mut weak) = std::mem::replace(&mut self.outcome, outcome) {
                    self.ambient.extend(weak.take_outweighed());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn conclude(self) -> Outcome {
        match self.outcome {
            Outcome::Verified(mut identity) => {
                identity.outweigh(self.ambient);
                Outcome::Verified(identity)
            }
            outcome => outcome,
        }
    }
}

/// What the record tells of a bad credential that came by itself, and so in another field than `Authorization`.
fn ambient(by: &dyn Authenticator, head: &RequestHead<'_>, rejection: &Rejection) -> AttemptFact {
    let (kind, reason) = rejection.facts();
    let mut fields = by.credential_headers();
    fields.retain(|name| *name != header::AUTHORIZATION && head.headers().contains_key(name));
    AttemptFact { outcome: AttemptOutcome::Ignored, fields, kind, reason }
}

#[async_trait]
impl Authenticator for OneOf {
    fn challenges(&self) -> Vec<Challenge> {
        self.authenticators.iter().flat_map(|authenticator| authenticator.challenges()).collect()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        union(self.authenticators.iter().map(|authenticator| authenticator.credential_headers()))
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        let mut found = Found::nothing();
        for authenticator in self.authenticators.iter() {
            match authenticator.authenticate_now(head, at) {
                Now::Known(outcome) => {
                    if let Err(rejection) = found.add(authenticator, head, outcome) {
                        return Now::Known(rejection.into());
                    }
                }
                Now::Wait => return Now::Wait,
            }
        }
        Now::Known(found.conclude())
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        let mut found = Found::nothing();
        for authenticator in self.authenticators.iter() {
            let outcome = authenticator.authenticate(head, at).await;
            if let Err(rejection) = found.add(authenticator, head, outcome) {
                return rejection.into();
            }
        }
        found.conclude()
    }
}

/// Takes two credentials: one of the application that acts, one of the subject that it acts for.
///
/// Both or none: one without the other is refused with `401`, and so is one credential that both of them take. A half that
/// the client's software sends by itself, such as a certificate, is refused only where an identity is needed.
pub fn both<C: Authenticator, S: Authenticator>(client: C, subject: S) -> Both<C, S> {
    let challenges = client.challenges().into_iter().chain(subject.challenges()).collect();
    Both { client, subject, challenges }
}

/// Made by [`both`].
#[derive(Clone)]
pub struct Both<C, S> {
    client: C,
    subject: S,
    challenges: Challenges,
}

impl<C: fmt::Debug, S: fmt::Debug> fmt::Debug for Both<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Both").field("client", &self.client).field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl<C, S> Both<C, S> {
    fn join(&self, client: Outcome, subject: Outcome) -> Outcome {
        match (client, subject) {
            (Outcome::Refused(rejection), _) | (_, Outcome::Refused(rejection)) => rejection.into(),
            (Outcome::Absent, Outcome::Absent) => Outcome::Absent,
            (Outcome::RefusedIfNeeded(rejection), Outcome::Verified(other))
            | (Outcome::Verified(other), Outcome::RefusedIfNeeded(rejection))
                if !other.is_ambient() =>
            {
                rejection.into()
            }
            (Outcome::RefusedIfNeeded(rejection), _) | (_, Outcome::RefusedIfNeeded(rejection)) => {
                Outcome::RefusedIfNeeded(rejection)
            }
            // The two overlap, and both read the same credential.
            (Outcome::Verified(mut client), Outcome::Verified(mut subject)) => {
                let answered = subject.take_answered().or_else(|| client.take_answered());
                let left_authorization = client.has_left_authorization() && subject.has_left_authorization();
                let ambient = client.is_ambient() && subject.is_ambient();
                let stripped = union([client.stripped().to_vec(), subject.stripped().to_vec()]);
                let outweighed = [client.take_outweighed(), subject.take_outweighed()].concat();
                match (client.into_parts(), subject.into_parts()) {
                    ((Some(client), None) | (None, Some(client)), (Some(subject), None))
                        if is_same_credential(&client, &subject) =>
                    {
                        self.half_is_missing(ambient)
                    }
                    (_, (None, _)) => self.half_is_missing(ambient),
                    ((Some(client), None) | (None, Some(client)), (Some(subject), None)) => {
                        let mut pair =
                            stripped.into_iter().fold(Identity::with_client(subject, client), Identity::stripping);
                        pair.outweigh(outweighed);
                        if left_authorization {
                            pair = pair.leaving_authorization();
                        }
                        if let Some(field) = answered {
                            pair = pair.answering(field.0, field.1);
                        }
                        Outcome::Verified(if ambient { pair.ambient() } else { pair })
                    }
                    _ => Rejection::new(RejectionKind::Misconfigured, "`both` inside `both`: two clients for one slot")
                        .into(),
                }
            }
            (Outcome::Absent, Outcome::Verified(half)) | (Outcome::Verified(half), Outcome::Absent) => {
                self.half_is_missing(half.is_ambient())
            }
        }
    }

    /// Where the half that is there came by itself, nobody tried to authenticate.
    fn half_is_missing(&self, ambient: bool) -> Outcome {
        let rejection = Rejection::new(RejectionKind::Unauthenticated, "one of the two credentials is missing")
            .with_challenges(self.challenges.clone());
        if ambient { Outcome::RefusedIfNeeded(rejection) } else { rejection.into() }
    }
}

#[async_trait]
impl<C: Authenticator, S: Authenticator> Authenticator for Both<C, S> {
    fn challenges(&self) -> Vec<Challenge> {
        self.client.challenges().into_iter().chain(self.subject.challenges()).collect()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        union([self.client.credential_headers(), self.subject.credential_headers()])
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        match (self.client.authenticate_now(head, at), self.subject.authenticate_now(head, at)) {
            (Now::Known(client), Now::Known(subject)) => Now::Known(self.join(client, subject)),
            (Now::Wait, _) | (_, Now::Wait) => Now::Wait,
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        let client = self.client.authenticate(head, at).await;
        let subject = self.subject.authenticate(head, at).await;
        self.join(client, subject)
    }
}

fn is_same_credential(one: &Principal, other: &Principal) -> bool {
    one.is_same_as(other) && one.credential() == other.credential() && one.credential_id() == other.credential_id()
}

fn union(lists: impl IntoIterator<Item = Vec<HeaderName>>) -> Vec<HeaderName> {
    let mut all: Vec<HeaderName> = Vec::new();
    for name in lists.into_iter().flatten() {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
