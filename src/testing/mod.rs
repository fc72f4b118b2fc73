//! For test code: never enable the feature `testing` in a production build.

mod clock;

pub use clock::TestClock;
