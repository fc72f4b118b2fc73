use std::{borrow::Cow, sync::Arc};

use super::{
    Afterwards, NO_PEER, misordered,
    request_id::RequestId,
    stage::{Marks, Stage},
};
use crate::{
    challenge::Challenges,
    client::{ClientInfo, Connection},
    clock::Instants,
    policy::PolicyBackend,
    principal::{Principal, Slot},
    rejection::{Rejection, RejectionKind},
    trail::{DecisionFact, Trail},
};

/// What is in the context. Filled by one stage after the other, in the order of [`Stage`].
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) at: Instants,
    pub(crate) request_id: RequestId,
    pub(crate) client: Option<ClientInfo>,
    pub(crate) subject: Option<Principal>,
    pub(crate) client_identity: Option<Principal>,
    /// The scheme that a challenge names to the subject, where it is not that of a token in `Authorization`.
    pub(crate) scheme: Option<&'static str>,
    /// What a `401` from further inside offers, where the request is anonymous.
    pub(crate) challenges: Challenges,
    /// The refusal of a credential that only counts where an identity is needed.
    pub(crate) refused_if_needed: Option<Box<Rejection>>,
    /// How long the stages have waited, by the clock of a stack or by their own. Limits count by what time it is; everything else goes
    /// by when the request came.
    #[cfg(feature = "rate-limit")]
    pub(crate) waited: std::time::Duration,
    /// How many attempts at authentication were counted as in vain before it had to wait.
    #[cfg(feature = "rate-limit")]
    pub(crate) failed_attempts: u8,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) policy: Option<Arc<dyn PolicyBackend>>,
    pub(crate) trail: Trail,
    /// The stage that decides, and the one that refused; none while what is inside has the request.
    pub(crate) deciding: Option<Stage>,
    /// Whether that is because it panicked.
    pub(crate) panicked: bool,
    /// Which stage refused the request, and why, once one did.
    pub(crate) refused: Option<(Stage, RejectionKind, Cow<'static, str>)>,
    /// Whether a proxy that is believed sent the request, so that its word on request ids counts.
    pub(crate) by_trusted_proxy: bool,
    /// Whether the handler asked how long the identities count.
    #[cfg(feature = "lifetime")]
    pub(crate) lifetime_taken: bool,
    /// There once the record is written, if somebody may still decide or note.
    pub(crate) afterwards: Option<Arc<dyn Afterwards>>,
    marks: Marks,
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            at: Instants::new(0, 0),
            request_id: RequestId::NONE,
            client: None,
            subject: None,
            client_identity: None,
            scheme: None,
            challenges: Challenges::none(),
            refused_if_needed: None,
            #[cfg(feature = "rate-limit")]
            waited: std::time::Duration::ZERO,
            #[cfg(feature = "rate-limit")]
            failed_attempts: 0,
            route: None,
            policy: None,
            trail: Trail::default(),
            deciding: None,
            panicked: false,
            refused: None,
            by_trusted_proxy: false,
            #[cfg(feature = "lifetime")]
            lifetime_taken: false,
            afterwards: None,
            marks: Marks::default(),
        }
    }
}

impl Envelope {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn new(at: Instants) -> Self {
        Self { at, request_id: RequestId::next(), ..Self::default() }
    }

    /// What others see while a decision that waits has this one.
    pub(super) fn stand_in(&self) -> Self {
        let (at, request_id, marks, afterwards) = (self.at, self.request_id, self.marks, self.afterwards.clone());
        Self { at, request_id, marks, afterwards, ..Self::default() }
    }

    /// The time, as far as stages have waited since the request came.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn present(&self) -> Instants {
        self.at.later(self.waited)
    }

    /// Marks a stage as run; refuses if one that belongs inside it ran before it, or one that it needs did not.
    pub(crate) fn enter(&mut self, stage: Stage) -> Result<(), Rejection> {
        if self.marks.any_inside(stage) || (stage.stands_once() && self.marks.has(stage)) {
            return Err(misordered(stage.misordered()));
        }
        self.marks.set(stage);
        Ok(())
    }

    /// Enters a stage that decides from now on.
    pub(crate) fn begin(&mut self, stage: Stage) -> Result<(), Rejection> {
        self.enter(stage)?;
        self.deciding = Some(stage);
        Ok(())
    }

    /// What was asked lets the request pass.
    pub(crate) fn passed(&mut self) {
        self.deciding = None;
    }

    pub(crate) fn has_run(&self, stage: Stage) -> bool {
        self.marks.has(stage)
    }

    pub(crate) fn identity(&self, slot: Slot) -> Option<&Principal> {
        match slot {
            Slot::Subject => self.subject.as_ref(),
            Slot::Client => self.client_identity.as_ref(),
        }
    }

    /// Who is calling: what the evidence layer found, else what the connection tells, kept from here on.
    ///
    /// Without a peer address there is no answer, and a rule that needs one refuses.
    pub(crate) fn client_or_connection(
        &mut self,
        connection: impl FnOnce() -> Option<Connection>,
    ) -> Result<&ClientInfo, Rejection> {
        if self.client.is_none() {
            self.client = connection().map(ClientInfo::from_connection);
        }
        self.client.as_ref().ok_or_else(|| misordered(NO_PEER))
    }

    /// The identity that a rule needs, or the `401` that asks for one.
    pub(crate) fn authenticated(&self) -> Result<&Principal, Rejection> {
        self.subject.as_ref().ok_or_else(|| match &self.refused_if_needed {
            Some(rejection) => Rejection::clone(rejection),
            None => {
                Rejection::new(RejectionKind::Unauthenticated, "no credential").with_challenges(self.challenges.clone())
            }
        })
    }

    pub(crate) fn decided(&mut self, fact: DecisionFact) {
        self.trail.decided(fact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope::new(Instants::new(0, 0))
    }

    #[test]
    fn a_stage_outside_its_place_is_refused() {
        let mut right = envelope();
        for stage in [Stage::Audit, Stage::Evidence, Stage::Tls, Stage::Authentication, Stage::Guard, Stage::Guard] {
            assert!(right.enter(stage).is_ok(), "{stage:?}");
        }
        for (outer, inner) in
            [(Stage::Authentication, Stage::Tls), (Stage::Guard, Stage::Authentication), (Stage::Tls, Stage::Tls)]
        {
            let mut wrong = envelope();
            assert!(wrong.enter(outer).is_ok());
            assert_eq!(
                wrong.enter(inner).unwrap_err().kind(),
                RejectionKind::Misconfigured,
                "{outer:?} outside {inner:?}"
            );
        }
    }
}
