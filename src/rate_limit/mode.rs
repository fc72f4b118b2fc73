//! What becomes of a request over the quota.

use crate::{
    clock::Instants,
    error::StoreError,
    now::Now,
    rate_limit::{
        Draw, RateLimitStore, Taken,
        layer::{Mode, Tally},
    },
};

impl Mode {
    /// Whether requests wait. One that waits is refused again and again, and that must not count.
    pub(super) const fn waits(&self) -> bool {
        match self {
            Self::Reject => false,
            #[cfg(feature = "throttle")]
            Self::Throttle(_) => true,
        }
    }

    pub(super) fn take_now(
        &self,
        store: &dyn RateLimitStore,
        draw: &Draw<'_>,
        at: Instants,
    ) -> Now<Result<Taken, StoreError>> {
        match self {
            Self::Reject => store.take_now(draw, at),
            #[cfg(feature = "throttle")]
            Self::Throttle(queue) => queue.take_now(store, draw, at),
        }
    }

    /// The answer, and when it was given.
    pub(super) async fn take(
        &self,
        store: &dyn RateLimitStore,
        draw: &Draw<'_>,
        at: Instants,
        tally: &Tally,
    ) -> (Result<Taken, StoreError>, Instants) {
        let _ = tally;
        match self {
            Self::Reject => (store.take(draw, at).await, at),
            #[cfg(feature = "throttle")]
            Self::Throttle(queue) => {
                let start = tokio::time::Instant::now();
                let answer = queue.take(store, draw, at, tally).await;
                (answer, at.later(start.elapsed()))
            }
        }
    }
}
