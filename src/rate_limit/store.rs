use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{clock::Instants, error::StoreError, now::Now, rate_limit::Draw};

/// Keeps count: takes a [`Draw`], or says when to come back.
///
/// # Contract
/// - All or nothing: the draw is granted by every charge, and then takes its cost from every charge; or it is refused and
///   takes from none, unless it [counts nevertheless](Draw::counts_refused). Two draws on one charge never interleave: of
///   many at once no more are granted than one after the other.
/// - A charge is known by its key and the name of its quota. The numbers of a quota may change from one draw to the next;
///   what is kept, the moment at which the quota is whole, stays.
/// - What the store does not know has its whole burst. A store must not grow with the number of keys that clients can think
///   up. What is whole may be forgotten; what is in debt may not, and where there is no room left for it, new keys share.
/// - A key counts alone: keys that differ in scope or in a part share nothing. (Two may share by an accident of hashing, if
///   no client can bring it about, and where there is no room left.)
/// - [`take_now`](Self::take_now) takes and answers, or says [`Wait`](Now::Wait) and takes nothing. It gives the answers
///   of [`take`](Self::take).
/// - Time is `at`: the monotonic clock where the counts are this process's own, the wall clock where they are shared. It may
///   jump. A clock that went back grants nothing that it granted before; no reading opens a quota or panics.
///
/// [`Draw::take`] is the arithmetic. The conformance suite (feature `conformance`) checks the rest.
///
/// # Cancel safety
/// A request may be dropped while it waits for [`take`](Self::take); what it took is then lost to its key, or was not
/// taken.
#[async_trait]
pub trait RateLimitStore: Debug + Send + Sync + 'static {
    /// Takes without waiting, if the counts are in memory.
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        let _ = (draw, at);
        Now::Wait
    }

    /// Takes.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot tell; the client sees `503`, unless its owner chose to
    /// [admit](crate::rate_limit::OnStoreError::Admit).
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: RateLimitStore + ?Sized> RateLimitStore for $pointer<T> {
            fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
                (**self).take_now(draw, at)
            }

            async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
                (**self).take(draw, at).await
            }
        }
    )*};
}

forward!(Arc, Box);

/// What a [`RateLimitStore`] answers: granted or refused, by which charge, and the numbers for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Taken {
    charge: usize,
    answer: Answer,
    degraded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Granted { remaining: u32, reset: u64 },
    Refused { retry_after: u64 },
    TooCostly,
}

impl Taken {
    /// Granted. `charge` is the index of the tightest charge: its quota has `remaining` requests left, rounded down, and is
    /// whole again in `reset_nanos` if nothing else is taken.
    pub const fn granted(charge: usize, remaining: u32, reset_nanos: u64) -> Self {
        Self { charge, answer: Answer::Granted { remaining, reset: reset_nanos }, degraded: false }
    }

    /// Refused. `charge` is the index of the charge that refuses, of several the one that lasts longest: the same draw is
    /// granted `retry_after_nanos` from now, if nothing else is taken.
    pub const fn refused(charge: usize, retry_after_nanos: u64) -> Self {
        Self { charge, answer: Answer::Refused { retry_after: retry_after_nanos }, degraded: false }
    }

    /// Refused for good: the cost is more than the whole burst of this charge, so that waiting does not help.
    pub const fn too_costly(charge: usize) -> Self {
        Self { charge, answer: Answer::TooCostly, degraded: false }
    }

    /// Says that this is not the count that it should be: the shared store did not answer, and another one did. The record
    /// shows it.
    pub const fn degraded(mut self) -> Self {
        self.degraded = true;
        self
    }

    /// Whether the request may pass.
    #[must_use]
    pub const fn is_granted(&self) -> bool {
        matches!(self.answer, Answer::Granted { .. })
    }

    /// Whether another count than the right one answered.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// The index of the charge that the other numbers are of.
    #[must_use]
    pub const fn charge(&self) -> usize {
        self.charge
    }

    /// How many more requests that charge's quota grants at once; zero after a refusal.
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
