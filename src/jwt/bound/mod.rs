//! Tokens that are of no use to a thief: the sender must have more than the token.
//!
//! A token whose `cnf` (RFC 7800) names a key or a certificate is refused unless the request proves that its sender has it. That
//! holds for every token that has a `cnf`, whatever is configured; configuration can only demand that every token has one.
//!
//! | `cnf` | the sender must | where |
//! |---|---|---|
//! | `jkt` | sign each request with the key: DPoP (RFC 9449) | `Dpop`, feature `dpop` |
//! | `x5t#S256` | come with the certificate (RFC 8705 §3) | the connection's certificate, or a trusted proxy's word |
//! | anything else | | refused: nothing here checks it |
//!
//! A token with both must meet both. See the manual's page on sender-constrained tokens.

mod certificate;
pub(super) mod confirmation;
#[cfg(feature = "dpop")]
mod dpop;

#[cfg(feature = "dpop")]
pub(super) use dpop::Prover;
#[cfg(feature = "dpop")]
pub use dpop::{Dpop, MemoryReplays, Nonces, ProofUse, Remembered, ReplayStore};
#[cfg(feature = "dpop-redis")]
pub use dpop::{RedisReplays, RedisReplaysBuilder};

use crate::{
    head::RequestHead,
    jwt::Refusal,
    principal::{Confirmation, Principal},
};

/// What every token must be bound to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demands {
    pub(super) key: bool,
    pub(super) certificate: bool,
}

impl Demands {
    /// Whether a token that is bound to this, or to nothing, may be taken from this request. A key is proved elsewhere.
    pub(super) fn check(self, principal: &Principal, head: &RequestHead<'_>) -> Result<(), Refusal> {
        match principal.confirmation() {
            None if self.key => Err(Refusal("the token is bound to no key (cnf.jkt), and must be")),
            None if self.certificate => {
                Err(Refusal("the token is bound to no certificate (cnf.x5t#S256), and must be"))
            }
            None => Ok(()),
            Some(confirmation) => self.check_bound(confirmation, head),
        }
    }

    fn check_bound(self, confirmation: &Confirmation, head: &RequestHead<'_>) -> Result<(), Refusal> {
        match (confirmation.key_thumbprint(), confirmation.certificate_sha256()) {
            (None, _) if self.key => Err(Refusal("the token is bound to no key (cnf.jkt), and must be")),
            (_, Some(bound)) => certificate::check(bound, head),
            (_, None) if self.certificate => {
                Err(Refusal("the token is bound to no certificate (cnf.x5t#S256), and must be"))
            }
            (_, None) => Ok(()),
        }
    }
}
