//! Whose tokens a caller of the router may revoke.

use http::StatusCode;

use super::RevocationAdmin;
use crate::{
    admin::{Caller, Fault},
    mention::Telling,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

impl RevocationAdmin {
    /// The tenant that an issuer belongs to alone.
    fn tenant_of(&self, issuer: &str) -> Option<&str> {
        self.issuers.get(issuer)?.as_deref()
    }

    /// Whether somebody may revoke tokens of this issuer. A tenant's own provider is in its hands: what it says of other tenants does
    /// not count, nor does it make operators by saying nothing.
    fn is_reached_by(&self, principal: &Principal, issuer: &str) -> bool {
        let tenants = [principal.tenant(), self.tenant_of(principal.issuer())];
        self.across_tenants || tenants.into_iter().flatten().all(|tenant| self.tenant_of(issuer) == Some(tenant))
    }
}

impl Caller {
    /// Demands that the tokens of this issuer are the caller's to revoke.
    pub(super) fn reach_issuer(&self, admin: &RevocationAdmin, issuer: &str) -> Result<(), Fault> {
        if self.identities().all(|principal| admin.is_reached_by(&principal, issuer)) {
            return Ok(());
        }
        self.context().note_telling("token.refused", Telling::default().text("the issuer is out of reach"));
        let rejection =
            Rejection::new(RejectionKind::Forbidden, "revocation administration: the issuer is out of reach");
        let fault = Fault::new(StatusCode::FORBIDDEN, "not_held", "You do not reach the tokens of this issuer.");
        Err(fault.at("issuer").because(rejection))
    }
}
