//! Whether an identity that was good once still is: what a long exchange asks again and again.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    clock::Instants,
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Why an identity counts no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// Its credential has expired, leeway included.
    #[error("the credential has expired")]
    Expired,
    /// Its credential was revoked, or the key that signed it withdrawn.
    #[error("the credential was revoked")]
    Revoked,
    /// Nobody can say whether it was, as where an issuer's keys are too old to be trusted.
    #[error("nobody can say whether the credential still counts")]
    Unknown,
}

impl Ended {
    /// The word that records show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

impl From<Ended> for Rejection {
    /// What a request would get now: `401`, or `503` while nobody can say.
    fn from(ended: Ended) -> Self {
        let (kind, reason) = match ended {
            Ended::Expired => (RejectionKind::InvalidCredential, "the credential expired during the exchange"),
            Ended::Revoked => (RejectionKind::InvalidCredential, "the credential was revoked during the exchange"),
            Ended::Unknown => (RejectionKind::Unavailable, "nobody can say whether the credential still counts"),
        };
        Self::new(kind, reason)
    }
}

#[cfg(feature = "tonic")]
impl From<Ended> for ::tonic::Status {
    /// `UNAUTHENTICATED`, or `UNAVAILABLE` while nobody can say.
    fn from(ended: Ended) -> Self {
        Rejection::from(ended).into()
    }
}

/// Knows whether a principal that an authenticator let in still counts, apart from its expiry: whether it was revoked.
///
/// An authenticator of your own gives it to its principals ([`PrincipalBuilder::vouched_by`](crate::PrincipalBuilder::vouched_by)).
/// Requests do not ask it; exchanges that outlast their request do, some of them each second.
///
/// # Contract
/// - What is revoked stays so. What cannot be found out is [`Ended::Unknown`], never good.
/// - [`vouches_now`](Self::vouches_now) answers from memory or not at all, and agrees with [`vouches`](Self::vouches). The conformance
///   suite (feature `conformance`) checks it.
/// - Time is `at`; no clock is read. It keeps no strong reference to what holds its principals.
#[async_trait]
pub trait Voucher: fmt::Debug + Send + Sync + 'static {
    /// Answers without waiting, if it can.
    fn vouches_now(&self, principal: &Principal, at: Instants) -> Now<Result<(), Ended>> {
        let _ = (principal, at);
        Now::Wait
    }

    /// Answers.
    async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<V: Voucher + ?Sized> Voucher for $pointer<V> {
            fn vouches_now(&self, principal: &Principal, at: Instants) -> Now<Result<(), Ended>> {
                (**self).vouches_now(principal, at)
            }

            async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
                (**self).vouches(principal, at).await
            }
        }
    )*};
}

forward!(Arc, Box);

impl Principal {
    /// Whether it still counts at this moment, if that can be told without waiting: it has not expired, give or take the leeway
    /// that its authenticator allows, and was not revoked as far as its [`Voucher`] knows.
    pub fn counts_now(&self, at: Instants) -> Now<Result<(), Ended>> {
        if at.unix_nanos() >= self.ends_at_nanos() {
            return Now::Known(Err(Ended::Expired));
        }
        self.voucher().map_or(Now::Known(Ok(())), |voucher| voucher.vouches_now(self, at))
    }

    /// Whether it still counts at this moment; see [`counts_now`](Self::counts_now).
    ///
    /// # Errors
    /// [`Ended`] says why it does not.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn counts(&self, at: Instants) -> Result<(), Ended> {
        match (self.counts_now(at), self.voucher()) {
            (Now::Known(answer), _) => answer,
            (Now::Wait, Some(voucher)) => voucher.vouches(self, at).await,
            (Now::Wait, None) => Ok(()),
        }
    }
}
