use tokio::time::Instant;

use crate::clock::Instants;

/// The time that it was, and how long ago that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instants,
    then: Instant,
}

impl Moment {
    /// It is this time now.
    pub(crate) fn begins(at: Instants) -> Self {
        Self { at, then: Instant::now() }
    }

    /// The time by now.
    pub(crate) fn now(&self) -> Instants {
        self.at.later(self.then.elapsed())
    }
}
