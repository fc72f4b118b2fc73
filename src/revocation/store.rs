use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Revocation, RevocationState};
use crate::{clock::Instants, error::StoreError};

/// Takes revocations, keeps them, and brings those of others into this process.
///
/// Requests never ask the store: they ask its [`RevocationState`], in memory. A store of your own writes what it is told to a
/// place that all processes share, and has a task that [adds](RevocationState::add) what is new there and
/// [confirms](RevocationState::confirm) that nothing is missing.
///
/// # Contract
/// - Once [`revoke`](Self::revoke) has returned `Ok`, the state of this process refuses what was revoked, and every other
///   process learns of it. An error says that it may not count anywhere. What has ended by `at`, leeways included, is one
///   ([`Conflict`](crate::StoreErrorKind::Conflict)): [`RevocationState::check_end`].
/// - [`state`](Self::state) gives the same state each time. What the store cannot vouch for any more it does not confirm.
/// - A revocation is not taken back, and not forgotten before it ends. The conformance suite (feature `conformance`) checks it.
///
/// # Cancel safety
/// A future of [`revoke`](Self::revoke) that is dropped may have taken effect.
#[async_trait]
pub trait RevocationStore: fmt::Debug + Send + Sync + 'static {
    /// What the requests of this process ask.
    fn state(&self) -> &RevocationState;

    /// Revokes.
    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<R: RevocationStore + ?Sized> RevocationStore for $pointer<R> {
            fn state(&self) -> &RevocationState {
                (**self).state()
            }

            async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
                (**self).revoke(revocation, at).await
            }
        }
    )*};
}

forward!(Arc, Box);
