//! The one request extension: what the layers tell each other, the handler and the record.

mod envelope;
mod held;
mod request_id;
mod stage;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use http::Extensions;

use crate::{
    client::ClientInfo,
    clock::{Clock, Instants},
    mention::Telling,
    policy::Directive,
    principal::{Principal, Slot},
    rejection::{Rejection, RejectionKind},
    trail::{DecisionFact, cut},
};

pub(crate) use envelope::Envelope;
use held::Held;
pub use request_id::RequestId;
pub(crate) use stage::Stage;

/// What the layers found out about a request. It travels in the request extensions and is shared by its clones.
///
/// Only this crate's layers can make or change one, so what a handler reads here was decided by a layer. A handler may
/// add notes for the audit record.
///
/// ```
/// use portcullis::SecurityContext;
///
/// async fn handler(request: http::Request<String>) -> String {
///     match SecurityContext::of(request.extensions()) {
///         Some(context) => {
///             context.note("report", "monthly");
///             context.principal().map_or("nobody".into(), |principal| principal.subject().to_owned())
///         }
///         None => "no layer ran".into(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct SecurityContext {
    held: Held,
}

impl SecurityContext {
    /// Finds the context of a request. None means that no layer of this crate ran outside.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Who acts; the [`Slot::Subject`].
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        self.identity(Slot::Subject)
    }

    /// The identity in a slot.
    #[must_use]
    pub fn identity(&self, slot: Slot) -> Option<Principal> {
        self.with(|envelope| envelope.identity(slot).cloned())
    }

    /// Who is calling, from where and over what.
    #[must_use]
    pub fn client(&self) -> Option<ClientInfo> {
        self.with(|envelope| envelope.client.clone())
    }

    /// The id that this crate gave the request; records show it.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.with(|envelope| envelope.request_id)
    }

    /// When the request came.
    #[must_use]
    pub fn at(&self) -> Instants {
        self.with(|envelope| envelope.at)
    }

    /// What the guards' policies oblige the handler to; the guards declared all of it as fulfilled.
    #[must_use]
    pub fn obligations(&self) -> Vec<Directive> {
        self.with(|envelope| envelope.trail.rare().directives.obligations.clone())
    }

    /// What the guards' policies advise the handler to do.
    #[must_use]
    pub fn advice(&self) -> Vec<Directive> {
        self.with(|envelope| envelope.trail.rare().directives.advice.clone())
    }

    /// Adds a fact to the audit record. At most [`MAX_NOTES`](crate::trail::MAX_NOTES) are kept, each name and value cut to
    /// [`MAX_NOTE_LEN`](crate::trail::MAX_NOTE_LEN) bytes. Never note a secret.
    ///
    /// After the head of the answer, when the record is written, a note is an entry of its own: so many in a minute.
    pub fn note(&self, name: &str, value: &str) {
        self.note_telling(name, cut(value).into());
    }

    /// The same for a value that may mention somebody.
    pub(crate) fn note_telling(&self, name: &str, told: Telling) {
        let after = self.with(|envelope| match &envelope.afterwards {
            Some(afterwards) => Some((Arc::clone(afterwards), told)),
            None => {
                envelope.trail.note_telling(name, told);
                None
            }
        });
        // The lock is let go before a sink is called.
        if let Some((afterwards, told)) = after {
            afterwards.noted(name, told);
        }
    }

    /// Adds a decision to the audit record, or to what comes after it.
    #[cfg(feature = "guard")]
    pub(crate) fn decided(&self, fact: DecisionFact) {
        let after = self.with(|envelope| match &envelope.afterwards {
            Some(afterwards) => Some((Arc::clone(afterwards), fact)),
            None => {
                envelope.decided(fact);
                None
            }
        });
        if let Some((afterwards, fact)) = after {
            afterwards.decided(fact);
        }
    }

    /// Whether somebody else has it too.
    #[cfg(feature = "audit")]
    pub(crate) fn is_shared(&self) -> bool {
        self.held.is_shared()
    }

    pub(crate) fn open(at: Instants) -> Self {
        let mut held = Held::empty();
        held.with_mut(|envelope| (envelope.at, envelope.request_id) = (at, RequestId::next()));
        Self { held }
    }

    /// The request's context, or a new one that this call puts there.
    pub(crate) fn of_or_open<'e>(extensions: &'e mut Extensions, clock: &dyn Clock) -> &'e mut Self {
        extensions.get_or_insert_with(|| Self::open(clock.now()))
    }

    /// Looks into the envelope, or changes it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Envelope) -> T) -> T {
        self.held.with(change)
    }

    /// The same for who owns the context: without a lock where nobody has a clone.
    pub(crate) fn with_mut<T>(&mut self, change: impl FnOnce(&mut Envelope) -> T) -> T {
        self.held.with_mut(change)
    }

    /// Takes the envelope out for a decision that waits. It goes back on drop, also when the request is given up.
    pub(crate) fn check_out(&self) -> CheckedOut {
        let envelope = self.with(|kept| {
            let absent = kept.stand_in();
            std::mem::replace(kept, absent)
        });
        CheckedOut { envelope, context: self.clone() }
    }
}

impl fmt::Debug for SecurityContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|envelope| {
            f.debug_struct("SecurityContext")
                .field("request_id", &envelope.request_id)
                .field("client", &envelope.client)
                .field("subject", &envelope.subject)
                .finish_non_exhaustive()
        })
    }
}

/// The envelope of a request whose decision waits.
#[derive(Debug)]
pub(crate) struct CheckedOut {
    envelope: Envelope,
    context: SecurityContext,
}

impl Deref for CheckedOut {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

impl DerefMut for CheckedOut {
    fn deref_mut(&mut self) -> &mut Envelope {
        &mut self.envelope
    }
}

impl Drop for CheckedOut {
    fn drop(&mut self) {
        let Self { envelope, context } = self;
        context.with_mut(|kept| {
            std::mem::swap(kept, envelope);
            if kept.afterwards.is_none() {
                kept.afterwards = envelope.afterwards.take();
            }
            // What somebody outside noted in the meantime.
            kept.trail.append(std::mem::take(&mut envelope.trail));
        });
    }
}

/// Takes what comes after the record of a request is written.
pub(crate) trait Afterwards: Send + Sync {
    fn decided(&self, fact: DecisionFact);

    fn noted(&self, name: &str, told: Telling);
}

impl fmt::Debug for dyn Afterwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Afterwards")
    }
}

/// The peer address is missing; the text says how to mend it.
pub(crate) const NO_PEER: &str = "no peer address in the request: serve the application with portcullis::axum::serve, or insert a \
     portcullis::Connection into the request extensions";

/// The context of a request that went through authentication, for handlers.
#[cfg(any(feature = "axum", feature = "lifetime", feature = "tonic"))]
pub(crate) fn authenticated_context(extensions: &Extensions) -> Result<&SecurityContext, Rejection> {
    const NO_AUTHENTICATION: &str = "a handler asks for the principal, and no authentication ran outside it: wrap the service with a Stack or an AuthnLayer";
    match SecurityContext::of(extensions) {
        Some(context) if context.with(|envelope| envelope.has_run(Stage::Authentication)) => Ok(context),
        context => {
            let rejection = misordered(NO_AUTHENTICATION);
            let at = context.map_or_else(|| crate::clock::SystemClock.now(), SecurityContext::at);
            crate::gate::report(Stage::Guard, &rejection, at);
            Err(rejection)
        }
    }
}

/// Refuses because the layers are put together wrongly. Whoever answers with it logs it.
pub(crate) fn misordered(fix: &'static str) -> Rejection {
    Rejection::new(RejectionKind::Misconfigured, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(context: &SecurityContext) -> Vec<String> {
        context.with(|envelope| envelope.trail.rare().notes.iter().map(|(name, _)| name.to_string()).collect())
    }

    #[test]
    fn an_envelope_comes_back_when_a_waiting_decision_is_dropped() {
        let context = SecurityContext::open(Instants::new(0, 0));
        let mut out = context.check_out();
        out.trail.note("found", "while waiting");
        drop(out);
        assert_eq!(notes(&context), ["found"]);
    }

    #[test]
    fn what_others_add_while_a_decision_waits_is_kept() {
        let context = SecurityContext::open(Instants::new(0, 0));
        context.note("before", "1");
        let mut out = context.check_out();
        assert!(context.principal().is_none(), "nobody sees an identity in the meantime");
        context.note("meanwhile", "2");
        context.with(|envelope| envelope.decided(DecisionFact::new("test", None, crate::policy::Verdict::allow())));
        out.trail.note("inside", "3");
        drop(out);
        assert_eq!(notes(&context), ["before", "inside", "meanwhile"]);
        assert_eq!(context.with(|envelope| envelope.trail.decisions.len()), 1);
    }

    #[test]
    fn a_context_is_changed_whether_it_is_shared_or_not() {
        let mut context = SecurityContext::open(Instants::new(7, 0));
        let id = context.request_id();
        context.with_mut(|envelope| envelope.trail.note("alone", ""));
        context.note("locked", "");
        let clone = context.clone();
        context.with_mut(|envelope| envelope.trail.note("shared", ""));
        clone.clone().note("by a clone's clone", "");
        drop(context);
        assert_eq!(notes(&clone), ["alone", "locked", "shared", "by a clone's clone"]);
        assert_eq!((clone.request_id(), clone.at()), (id, Instants::new(7, 0)));
    }
}
