use std::fmt;

use async_trait::async_trait;
use http::{HeaderName, header};

use super::{union, whose_it_is};
use crate::{
    authn::{Authenticator, Claim, Identity, Outcome},
    challenge::{Challenge, Challenges},
    clock::Instants,
    head::RequestHead,
    now::Now,
    principal::{Principal, Slot},
    rejection::{Rejection, RejectionKind},
};

/// Takes two credentials: one of the application that acts, one of the subject that it acts for.
///
/// Both or none: one without the other is refused with `401`, and so is one credential that both of them take. `Authorization` stands
/// once, so two that read it make no pair, also where they name its owner differently. A half that the client's software sends by
/// itself, such as a certificate, is refused only where an identity is needed. The application is asked for first; if it is refused,
/// nobody is asked for the subject. Who [would disclose](Authenticator::discloses) the request's
/// `Authorization` comes second, and does not get what the other one has taken or refused; of two, neither gets it (`500`).
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

impl<C: Authenticator, S: Authenticator> Both<C, S> {
    /// `shown` is the head as the second of them saw it.
    fn join(&self, client: Outcome, subject: Outcome, shown: &RequestHead<'_>) -> Outcome {
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
            (Outcome::Verified(client), Outcome::Verified(subject))
                if self.share_authorization(&client, &subject, shown) =>
            {
                self.half_is_missing(client.is_ambient() && subject.is_ambient())
            }
            (Outcome::Verified(mut client), Outcome::Verified(mut subject)) => {
                let left_authorization = client.has_left_authorization() && subject.has_left_authorization();
                let ambient = client.is_ambient() && subject.is_ambient();
                let (client_rare, subject_rare) =
                    (client.take_rare().unwrap_or_default(), subject.take_rare().unwrap_or_default());
                let scheme = subject.scheme();
                let answered = subject_rare.answered.or(client_rare.answered);
                let stripped = union([client_rare.stripped, subject_rare.stripped]);
                let outweighed = [client_rare.outweighed, subject_rare.outweighed].concat();
                match (client.into_parts(), subject.into_parts()) {
                    ((Some(client), None) | (None, Some(client)), (Some(subject), None))
                        if is_same_credential(&client, &subject) =>
                    {
                        self.half_is_missing(ambient)
                    }
                    (_, (None, _)) => self.half_is_missing(ambient),
                    ((Some(client), None) | (None, Some(client)), (Some(subject), None)) => {
                        let pair = Identity::with_client(subject, client).offered_as(scheme);
                        let mut pair = stripped.into_iter().fold(pair, Identity::stripping);
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

    /// Whether both took what stands in `Authorization`, whatever they call it: it stands there once.
    fn share_authorization(&self, client: &Identity, subject: &Identity, shown: &RequestHead<'_>) -> bool {
        let took = |by: &dyn Authenticator, found: &Identity| {
            !found.has_left_authorization() && by.credential_headers().contains(&header::AUTHORIZATION)
        };
        shown.shows_authorization() && took(&self.client, client) && took(&self.subject, subject)
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

    /// What both of them claim makes no pair, and stands once: of two with a field of their own, what else they share does not matter.
    fn claims(&self) -> Vec<Claim> {
        let mut claims = self.client.claims();
        claims.extend(
            self.subject
                .claims()
                .into_iter()
                .filter(|claim| !claims.iter().any(|other| other.is_of(claim)))
                .collect::<Vec<_>>(),
        );
        claims
    }

    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        self.client.discloses(head) || self.subject.discloses(head)
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        let first = match self.first(head) {
            Ok(first) => first,
            Err(rejection) => return Now::Known(rejection.into()),
        };
        let (one, other): (&dyn Authenticator, &dyn Authenticator) = match first {
            Slot::Client => (&self.client, &self.subject),
            Slot::Subject => (&self.subject, &self.client),
        };
        match one.authenticate_now(head, at) {
            Now::Known(Outcome::Refused(rejection)) => Now::Known(rejection.into()),
            Now::Known(found) => {
                let shown = if other.discloses(head) { beside(head, &found) } else { *head };
                other.authenticate_now(&shown, at).map(|second| self.join_in(first, found, second, &shown))
            }
            // Whoever is asked now is asked again.
            Now::Wait => Now::Wait,
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        let first = match self.first(head) {
            Ok(first) => first,
            Err(rejection) => return rejection.into(),
        };
        let (one, other): (&dyn Authenticator, &dyn Authenticator) = match first {
            Slot::Client => (&self.client, &self.subject),
            Slot::Subject => (&self.subject, &self.client),
        };
        match one.authenticate(head, at).await {
            Outcome::Refused(rejection) => rejection.into(),
            found => {
                let shown = if other.discloses(head) { beside(head, &found) } else { *head };
                let second = other.authenticate(&shown, at).await;
                self.join_in(first, found, second, &shown)
            }
        }
    }
}

impl<C: Authenticator, S: Authenticator> Both<C, S> {
    /// For which slot somebody is asked first.
    fn first(&self, head: &RequestHead<'_>) -> Result<Slot, Rejection> {
        match (self.client.discloses(head), self.subject.discloses(head)) {
            (true, true) => Err(whose_it_is()),
            (true, false) => Ok(Slot::Subject),
            (false, _) => Ok(Slot::Client),
        }
    }

    /// Joins what was found for this slot first, and then for the other one.
    fn join_in(&self, first: Slot, found: Outcome, second: Outcome, shown: &RequestHead<'_>) -> Outcome {
        match first {
            Slot::Client => self.join(found, second, shown),
            Slot::Subject => self.join(second, found, shown),
        }
    }
}

fn is_same_credential(one: &Principal, other: &Principal) -> bool {
    one.is_same_as(other) && one.credential() == other.credential() && one.credential_id() == other.credential_id()
}

/// The head for who would disclose what stands there, beside one that was asked before.
fn beside<'h>(head: &RequestHead<'h>, other: &Outcome) -> RequestHead<'h> {
    match other {
        Outcome::Verified(identity) if !identity.has_left_authorization() => head.without_authorization(),
        Outcome::Verified(_) | Outcome::Absent | Outcome::Refused(_) | Outcome::RefusedIfNeeded(_) => *head,
    }
}
