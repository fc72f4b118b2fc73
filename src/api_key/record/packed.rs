//! What most records have, in as few bytes as it takes.

use std::num::NonZeroU64;

/// A time that may be left out, in 8 bytes: one more than it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(Option<NonZeroU64>);

impl Time {
    pub(super) fn new(unix_seconds: Option<u64>) -> Self {
        Self(unix_seconds.and_then(|seconds| NonZeroU64::new(seconds.saturating_add(1))))
    }

    pub(super) fn get(self) -> Option<u64> {
        self.0.map(|more| more.get() - 1)
    }
}

/// A word of at most 16 bytes, filled up with zeros; nothing but zeros is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Environment([u8; 16]);

impl Environment {
    /// The environment was checked: it fits.
    pub(super) fn new(environment: Option<&str>) -> Self {
        let mut word = [0; 16];
        word.iter_mut().zip(environment.unwrap_or_default().bytes()).for_each(|(place, byte)| *place = byte);
        Self(word)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        self.0.get(..end).filter(|word| !word.is_empty()).and_then(|word| std::str::from_utf8(word).ok())
    }
}
