//! For test code: never enable the feature `testing` in a production build.

#[cfg(feature = "audit")]
mod audit;
mod clock;

#[cfg(feature = "audit")]
pub use audit::{Captured, sample_record};
pub use clock::TestClock;
