use std::{
    fmt::{self, Debug},
    sync::Arc,
};

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
///   jump. A clock that went back grants nothing that it granted before; no reading opens a quota or panics. A reading may be older
///   than others: a request waited on its way. What others took meanwhile stays taken: count by the
///   [`LatestTime`](super::LatestTime), or by a clock of your own.
///
/// [`Draw::take`] is the arithmetic; it cannot tell such a reading from a clock that was set back. The conformance suites
/// (feature `conformance`) check the rest.
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
///
/// Two machine words, which travel in registers: a check takes less time than a few copies of a larger answer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Taken {
    /// After a grant, until the quota is whole; after a refusal, until it grants.
    nanos: u64,
    /// From the left: what remains (32 bits), the charge (8), flags (8).
    rest: u64,
}

impl Taken {
    const GRANTED: u64 = 1;
    const REFUSED: u64 = 2;
    const DEGRADED: u64 = 4;
    const ASIDE: u64 = 8;

    /// Granted. `charge` is the index of the tightest charge: its quota has `remaining` requests left, rounded down, and is
    /// whole again in `reset_nanos` if nothing else is taken.
    #[inline]
    pub const fn granted(charge: usize, remaining: u32, reset_nanos: u64) -> Self {
        Self { nanos: reset_nanos, rest: ((remaining as u64) << 16) | index(charge) | Self::GRANTED }
    }

    /// Refused. `charge` is the index of the charge that refuses, of several the one that lasts longest: the same draw is
    /// granted `retry_after_nanos` from now, if nothing else is taken.
    #[inline]
    pub const fn refused(charge: usize, retry_after_nanos: u64) -> Self {
        Self { nanos: retry_after_nanos, rest: index(charge) | Self::REFUSED }
    }

    /// Refused for good: the cost is more than the whole burst of this charge, so that waiting does not help.
    #[inline]
    pub const fn too_costly(charge: usize) -> Self {
        Self { nanos: 0, rest: index(charge) }
    }

    /// Says that this is not the count that it should be: the shared store did not answer, and another one did. The record
    /// shows it.
    pub const fn degraded(mut self) -> Self {
        self.rest |= Self::DEGRADED;
        self
    }

    /// Says that the shared store had no part in it, so that it tells nothing of how that is.
    #[cfg(any(feature = "rate-limit-redis", feature = "throttle"))]
    pub(crate) const fn aside(mut self) -> Self {
        self.rest |= Self::ASIDE;
        self
    }

    /// Whether it tells how the store is: what is refused for good is told without asking.
    pub(crate) const fn tells_of_store(&self) -> bool {
        !self.is(Self::ASIDE) && (self.is(Self::GRANTED) || self.is(Self::REFUSED))
    }

    const fn is(&self, flag: u64) -> bool {
        self.rest & flag != 0
    }

    /// Whether the request may pass.
    #[inline]
    #[must_use]
    pub const fn is_granted(&self) -> bool {
        self.is(Self::GRANTED)
    }

    /// Whether another count than the right one answered.
    #[inline]
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.is(Self::DEGRADED)
    }

    /// The index of the charge that the other numbers are of.
    #[must_use]
    pub const fn charge(&self) -> usize {
        let [_, charge, ..] = self.rest.to_le_bytes();
        charge as usize
    }

    /// How many more requests that charge's quota grants at once; zero after a refusal.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        let [_, _, a, b, c, d, ..] = self.rest.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// After a grant, the nanoseconds until that quota is whole again.
    #[must_use]
    pub const fn reset_nanos(&self) -> Option<u64> {
        if self.is(Self::GRANTED) { Some(self.nanos) } else { None }
    }

    /// After a refusal, the nanoseconds to wait; none if waiting does not help.
    #[must_use]
    pub const fn retry_after_nanos(&self) -> Option<u64> {
        if self.is(Self::REFUSED) { Some(self.nanos) } else { None }
    }
}

impl Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = match (self.reset_nanos(), self.retry_after_nanos()) {
            (Some(reset), _) => {
                let mut shown = f.debug_struct("Granted");
                shown.field("remaining", &self.remaining()).field("reset_nanos", &reset);
                shown
            }
            (None, Some(wait)) => {
                let mut shown = f.debug_struct("Refused");
                shown.field("retry_after_nanos", &wait);
                shown
            }
            (None, None) => f.debug_struct("TooCostly"),
        };
        shown.field("charge", &self.charge()).field("degraded", &self.is_degraded()).finish()
    }
}

/// In its place. There are at most eight charges.
#[inline]
const fn index(charge: usize) -> u64 {
    let charge = if charge > 0xff { 0xff } else { charge };
    (charge as u64) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for charge in [0, 1, 7, 255] {
            for (taken, numbers) in [
                (Taken::granted(charge, u32::MAX, u64::MAX), (true, u32::MAX, Some(u64::MAX), None)),
                (Taken::granted(charge, 0, 0), (true, 0, Some(0), None)),
                (Taken::refused(charge, u64::MAX), (false, 0, None, Some(u64::MAX))),
                (Taken::refused(charge, 0), (false, 0, None, Some(0))),
                (Taken::too_costly(charge), (false, 0, None, None)),
            ] {
                for (taken, degraded) in [(taken, false), (taken.degraded(), true)] {
                    let told = (taken.is_granted(), taken.remaining(), taken.reset_nanos(), taken.retry_after_nanos());
                    assert_eq!((told, taken.charge(), taken.is_degraded()), (numbers, charge, degraded), "{taken:?}");
                }
            }
        }
        assert_eq!(Taken::refused(usize::MAX, 1).charge(), 255);
        assert_eq!(
            format!("{:?}", Taken::granted(1, 2, 3).degraded()),
            "Granted { remaining: 2, reset_nanos: 3, charge: 1, degraded: true }"
        );
    }
}
