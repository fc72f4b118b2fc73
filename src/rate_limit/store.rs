use std::{fmt::Debug, num::NonZeroU32, sync::Arc};

use async_trait::async_trait;

use crate::{
    clock::Instants,
    error::StoreError,
    now::Now,
    rate_limit::{LimitKey, Quotas},
};

/// Keeps count: takes `cost` from a key under some quotas, or says when to come back.
///
/// # Contract
/// - All or nothing: the request is granted by every quota, and then takes from every quota; or it is refused and takes
///   from none. Two calls for one key never interleave.
/// - A key that the store does not know has its whole burst. A store may forget a key early to stay within its bounds; it
///   must not grow with the number of keys that clients can think up.
/// - A key counts alone: keys that differ in scope, network, issuer or subject share nothing. (Two may share by an accident
///   of hashing, if no client can bring it about.) All calls of one scope bring the same quotas.
/// - [`take_now`](Self::take_now) takes and answers, or says [`Wait`](Now::Wait) and takes nothing. It gives the answers
///   of [`take`](Self::take).
/// - Time is `at`: the monotonic clock where the counts are this process's own, the wall clock where they are shared.
///
/// [`Quotas::take`] is the arithmetic. The conformance suite (feature `conformance`) checks the rest.
///
/// # Cancel safety
/// A request may be dropped while it waits for [`take`](Self::take); what it took is then lost to its key, or was not
/// taken.
#[async_trait]
pub trait RateLimitStore: Debug + Send + Sync + 'static {
    /// Takes without waiting, if the counts are in memory.
    fn take_now(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Now<Result<Taken, StoreError>> {
        let _ = (key, quotas, cost, at);
        Now::Wait
    }

    /// Takes.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot tell; the client sees `503`, unless its owner chose to
    /// [admit](crate::rate_limit::OnStoreError::Admit).
    async fn take(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Result<Taken, StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: RateLimitStore + ?Sized> RateLimitStore for $pointer<T> {
            fn take_now(
                &self,
                key: &LimitKey<'_>,
                quotas: &Quotas,
                cost: NonZeroU32,
                at: Instants,
            ) -> Now<Result<Taken, StoreError>> {
                (**self).take_now(key, quotas, cost, at)
            }

            async fn take(
                &self,
                key: &LimitKey<'_>,
                quotas: &Quotas,
                cost: NonZeroU32,
                at: Instants,
            ) -> Result<Taken, StoreError> {
                (**self).take(key, quotas, cost, at).await
            }
        }
    )*};
}

forward!(Arc, Box);

/// What a [`RateLimitStore`] answers: granted or refused, by which quota, and the numbers for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Taken {
    quota: usize,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Granted { remaining: u32, reset: u64 },
    Refused { retry_after: u64 },
    TooCostly,
}

impl Taken {
    /// Granted. `quota` is the index of the tightest quota: it has `remaining` requests left, rounded down, and is whole
    /// again in `reset_nanos` if nothing else is taken.
    pub const fn granted(quota: usize, remaining: u32, reset_nanos: u64) -> Self {
        Self { quota, answer: Answer::Granted { remaining, reset: reset_nanos } }
    }

    /// Refused. `quota` is the index of the violated quota, of several the one that lasts longest: the same request is
    /// granted `retry_after_nanos` from now, if nothing else is taken.
    pub const fn refused(quota: usize, retry_after_nanos: u64) -> Self {
        Self { quota, answer: Answer::Refused { retry_after: retry_after_nanos } }
    }

    /// Refused for good: the cost is more than the whole burst of this quota, so that waiting does not help.
    pub const fn too_costly(quota: usize) -> Self {
        Self { quota, answer: Answer::TooCostly }
    }

    /// Whether the request may pass.
    #[must_use]
    pub const fn is_granted(&self) -> bool {
        matches!(self.answer, Answer::Granted { .. })
    }

    /// The index of the quota that the other numbers are of.
    #[must_use]
    pub const fn quota(&self) -> usize {
        self.quota
    }

    /// How many more requests that quota grants at once; zero after a refusal.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        match self.answer {
            Answer::Granted { remaining, .. } => remaining,
            Answer::Refused { .. } | Answer::TooCostly => 0,
        }
    }

    /// After a grant, the nanoseconds until that quota is whole again.
    #[must_use]
    pub const fn reset_nanos(&self) -> Option<u64> {
        match self.answer {
            Answer::Granted { reset, .. } => Some(reset),
            Answer::Refused { .. } | Answer::TooCostly => None,
        }
    }

    /// After a refusal, the nanoseconds to wait; none if waiting does not help.
    #[must_use]
    pub const fn retry_after_nanos(&self) -> Option<u64> {
        match self.answer {
            Answer::Refused { retry_after } => Some(retry_after),
            Answer::Granted { .. } | Answer::TooCostly => None,
        }
    }
}
