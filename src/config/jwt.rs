//! What code says of the authenticator of the document's issuers.

#[cfg(feature = "jwt-remote")]
use crate::jwt::JwtAuthenticatorBuilder;

/// The authenticator.
#[cfg(feature = "jwt-remote")]
pub(super) type Made = crate::jwt::JwtAuthenticator;
/// Nothing makes one.
#[cfg(not(feature = "jwt-remote"))]
pub(super) type Made = Box<dyn crate::authn::Authenticator>;

#[cfg(feature = "jwt-remote")]
type Addition = Box<dyn Fn(JwtAuthenticatorBuilder) -> JwtAuthenticatorBuilder + Send + Sync>;

#[derive(Default)]
pub(super) struct Additions {
    #[cfg(feature = "jwt-remote")]
    added: Vec<Addition>,
}

#[cfg(feature = "jwt-remote")]
impl Additions {
    pub(super) fn add(
        &mut self,
        add: impl Fn(JwtAuthenticatorBuilder) -> JwtAuthenticatorBuilder + Send + Sync + 'static,
    ) {
        self.added.push(Box::new(add));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    pub(super) fn add_to(&self, builder: JwtAuthenticatorBuilder) -> JwtAuthenticatorBuilder {
        self.added.iter().fold(builder, |builder, add| add(builder))
    }
}
