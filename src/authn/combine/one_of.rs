use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, header};

use super::{union, whose_it_is};
use crate::{
    authn::{Authenticator, Claim, Identity, Outcome},
    challenge::Challenge,
    clock::Instants,
    head::RequestHead,
    now::Now,
    principal::Slot,
    rejection::{Rejection, RejectionKind},
    trail::{AttemptFact, AttemptOutcome},
};

/// Takes exactly one credential, of any of these kinds: a tuple of two to four authenticators.
///
/// An application's identity ([`Identity::of_client`]) and a subject's are joined. They are asked in order, but for who
/// [would disclose](Authenticator::discloses) the request's `Authorization`: it comes last, and only gets what none of the others has
/// verified or refused, so that no API key goes to an introspection endpoint. Two of that kind get nothing, and the request is
/// refused with `500`. A bad credential refuses at once; two good ones refuse with `400` (RFC 6750 §2). A cookie, good or bad, does not
/// count beside a credential that was sent on purpose, and takes no application's identity away; of a bad one the audit record tells.
///
/// So two authenticators that [claim](Authenticator::claims) the same refuse each other's credentials, and a stack with them does not
/// build: two `JwtAuthenticator`s for `Authorization`, where one takes the tokens of several issuers; two `ApiKeyAuthenticator`s that were
/// not told of each other (`beside`); two `ClientCertAuthenticator`s.
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

/// What was found so far, among several authenticators. Who acts and what acts for them have a place each: what comes by itself
/// for the one takes nothing from the other.
struct Found {
    subject: Candidate,
    client: Candidate,
    /// The first bad credential that came by itself.
    bad: Option<Rejection>,
    /// What the record tells of bad ones.
    ambient: Vec<AttemptFact>,
    /// Somebody has verified what stands in `Authorization`.
    took_authorization: bool,
}

/// The credential for one slot.
struct Candidate {
    identity: Option<Identity>,
    /// Whether a second one came by itself, and none on purpose so far.
    is_doubled: bool,
}

impl Found {
    const fn nothing() -> Self {
        const NONE: Candidate = Candidate { identity: None, is_doubled: false };
        Self { subject: NONE, client: NONE, bad: None, ambient: Vec::new(), took_authorization: false }
    }

    /// The head as those see it whose turn it is.
    fn shown<'h>(&self, head: &RequestHead<'h>, turn: Turn, disclosing: usize) -> Result<RequestHead<'h>, Rejection> {
        match turn {
            Turn::First => Ok(*head),
            Turn::Last if self.took_authorization => Ok(head.without_authorization()),
            Turn::Last if disclosing > 1 => Err(whose_it_is()),
            Turn::Last => Ok(*head),
        }
    }

    /// Takes the next outcome in. An error once the request is refused.
    fn add(&mut self, by: &dyn Authenticator, head: &RequestHead<'_>, outcome: Outcome) -> Result<(), Rejection> {
        match outcome {
            Outcome::Absent => Ok(()),
            Outcome::Verified(identity) => self.add_good(identity),
            Outcome::Refused(rejection) => Err(rejection),
            Outcome::RefusedIfNeeded(rejection) => {
                self.ambient.push(ambient(by, head, &rejection));
                self.bad.get_or_insert(rejection);
                Ok(())
            }
        }
    }

    fn add_good(&mut self, identity: Identity) -> Result<(), Rejection> {
        self.took_authorization |= !identity.has_left_authorization();
        let slot = if identity.in_slot(Slot::Subject).is_some() { &mut self.subject } else { &mut self.client };
        let Some(held) = &mut slot.identity else {
            slot.identity = Some(identity);
            return Ok(());
        };
        let mut weak = match (held.is_ambient(), identity.is_ambient()) {
            (false, false) => return Err(two_credentials()),
            // What was sent on purpose counts.
            (true, false) => {
                slot.is_doubled = false;
                std::mem::replace(held, identity)
            }
            (false, true) => identity,
            // One that is sent on purpose may still come.
            (true, true) => {
                slot.is_doubled = true;
                identity
            }
        };
        self.ambient.extend(weak.take_outweighed());
        Ok(())
    }

    /// What is found is taken out of it: as a whole it is large, and would be moved for each request.
    fn conclude(&mut self) -> Outcome {
        if self.subject.is_doubled || self.client.is_doubled {
            return two_credentials().into();
        }
        // Of what was not sent on purpose, the bad one counts.
        if self.bad.is_some()
            && let Some(mut weak) = self.subject.identity.take_if(|subject| subject.is_ambient())
        {
            self.ambient.extend(weak.take_outweighed());
        }
        let mut identity = match (self.subject.identity.take(), self.client.identity.take()) {
            (None, None) => return self.bad.take().map_or(Outcome::Absent, Outcome::RefusedIfNeeded),
            (Some(subject), None) => subject,
            (None, Some(client)) => match self.bad.take() {
                Some(bad) => client.without_subject_for(bad),
                None => client,
            },
            // An application beside a subject: both count, unless the subject has one of its own.
            (Some(subject), Some(client)) => match subject.join(client) {
                Ok(pair) => pair,
                Err(pair) => match (pair.0.is_ambient(), pair.1.is_ambient()) {
                    (true, false) => pair.1,
                    (false, true) => pair.0,
                    _ => return two_credentials().into(),
                },
            },
        };
        identity.outweigh(std::mem::take(&mut self.ambient));
        Outcome::Verified(identity)
    }
}

fn two_credentials() -> Rejection {
    Rejection::new(RejectionKind::InvalidRequest, "two credentials where one is taken")
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

    fn claims(&self) -> Vec<Claim> {
        self.authenticators.iter().flat_map(|authenticator| authenticator.claims()).collect()
    }

    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        self.how_many_disclose(head) > 0
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        self.answer_now(head, at).unwrap_or_else(|rejection| Now::Known(rejection.into()))
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.answer(head, at).await.unwrap_or_else(Outcome::Refused)
    }
}

impl OneOf {
    fn how_many_disclose(&self, head: &RequestHead<'_>) -> usize {
        self.authenticators.iter().filter(|authenticator| authenticator.discloses(head)).count()
    }

    fn answer_now(&self, head: &RequestHead<'_>, at: Instants) -> Result<Now<Outcome>, Rejection> {
        let (mut found, disclosing) = (Found::nothing(), self.how_many_disclose(head));
        for turn in turns(disclosing) {
            let shown = found.shown(head, *turn, disclosing)?;
            for authenticator in self.authenticators.iter() {
                if !turn.is_of(authenticator, head, disclosing) {
                    continue;
                }
                match authenticator.authenticate_now(&shown, at) {
                    Now::Known(outcome) => found.add(authenticator, head, outcome)?,
                    Now::Wait => return Ok(Now::Wait),
                }
            }
        }
        Ok(Now::Known(found.conclude()))
    }

    async fn answer(&self, head: &RequestHead<'_>, at: Instants) -> Result<Outcome, Rejection> {
        let (mut found, disclosing) = (Found::nothing(), self.how_many_disclose(head));
        for turn in turns(disclosing) {
            let shown = found.shown(head, *turn, disclosing)?;
            for authenticator in self.authenticators.iter() {
                if turn.is_of(authenticator, head, disclosing) {
                    let outcome = authenticator.authenticate(&shown, at).await;
                    found.add(authenticator, head, outcome)?;
                }
            }
        }
        Ok(found.conclude())
    }
}

/// Who is asked when: those that would disclose the credential come last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Last,
}

/// Mostly nobody would, and one turn is enough.
const fn turns(disclosing: usize) -> &'static [Turn] {
    if disclosing == 0 { &[Turn::First] } else { &[Turn::First, Turn::Last] }
}

impl Turn {
    fn is_of(self, authenticator: &dyn Authenticator, head: &RequestHead<'_>, disclosing: usize) -> bool {
        disclosing == 0 || authenticator.discloses(head) == (self == Self::Last)
    }
}
