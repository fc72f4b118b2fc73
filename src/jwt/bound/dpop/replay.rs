use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use async_trait::async_trait;

use crate::{clock::Instants, error::StoreError, jwt::crypto::sha256, now::Now};

/// One use of a proof: whose key made it, which one it is, and until when it could be used again. All of it is of fixed size,
/// whatever the client sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProofUse {
    key: [u8; 32],
    id: [u8; 32],
    until_unix_nanos: u64,
}

impl ProofUse {
    /// The use of the proof `jti` of the key with this thumbprint, which is refused for its age from `until_unix_nanos` on.
    #[must_use]
    pub fn new(key_thumbprint: [u8; 32], jti: &str, until_unix_nanos: u64) -> Self {
        let id = sha256(&[&key_thumbprint, jti.as_bytes()].concat());
        Self { key: key_thumbprint, id, until_unix_nanos }
    }

    /// The thumbprint of the key (RFC 7638, SHA-256).
    #[must_use]
    pub const fn key_thumbprint(&self) -> &[u8; 32] {
        &self.key
    }

    /// A hash (SHA-256) over the key's thumbprint and the proof's `jti`: what makes it one of a kind.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// From when on, in nanoseconds since the Unix epoch, nobody needs to remember it.
    #[must_use]
    pub const fn until_unix_nanos(&self) -> u64 {
        self.until_unix_nanos
    }
}

/// When it ends, alone: the id is the client's, and may be anything.
impl fmt::Debug for ProofUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofUse").field("until_unix_nanos", &self.until_unix_nanos).finish_non_exhaustive()
    }
}

/// What a [`ReplayStore`] says of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: new, known, or no room for more of this key")]
pub enum Remembered {
    /// It was never used, and from now on it was.
    Fresh,
    /// It was used before.
    Seen,
    /// It is not remembered, for its key has as many proofs in the store as one key may: the client sees `429`.
    TooMany,
}

/// Remembers which proofs were used, so that none is used twice (RFC 9449 §11.1).
///
/// # Contract
/// - Of all who ask about one [id](ProofUse::id), in every process that shares the store, exactly one is told
///   [`Fresh`](Remembered::Fresh): asking and remembering are one step.
/// - A proof is remembered at least until [`until_unix_nanos`](ProofUse::until_unix_nanos), and may be forgotten from then on.
///   Who may have forgotten it says [`Seen`](Remembered::Seen): a clock that went back opens nothing.
/// - The store is bounded, as a whole and for each key. A key with too many gets [`TooMany`](Remembered::TooMany); a store
///   that is full fails. Neither forgets a proof that could be used again.
/// - [`remember_now`](Self::remember_now) remembers and answers, or says [`Wait`](Now::Wait) and does nothing.
/// - Time is `at`, its wall clock.
///
/// The conformance suites (feature `conformance`) check it.
///
/// # Cancel safety
/// A request may be dropped while it waits; its proof then counts as used, or not.
#[async_trait]
pub trait ReplayStore: Debug + Send + Sync + 'static {
    /// Remembers without waiting, if it can.
    fn remember_now(&self, proof: &ProofUse, at: Instants) -> Now<Result<Remembered, StoreError>> {
        let _ = (proof, at);
        Now::Wait
    }

    /// Remembers.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot tell, or is full; the client sees `503`.
    async fn remember(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: ReplayStore + ?Sized> ReplayStore for $pointer<T> {
            fn remember_now(&self, proof: &ProofUse, at: Instants) -> Now<Result<Remembered, StoreError>> {
                (**self).remember_now(proof, at)
            }

            async fn remember(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError> {
                (**self).remember(proof, at).await
            }
        }
    )*};
}

forward!(Arc, Box);
