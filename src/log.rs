//! The library's own notices, in one place, so that no call site carries a `cfg`.

use std::sync::atomic::{AtomicBool, Ordering};

/// An operator's mistake that every request would repeat: said once, at `error`.
#[derive(Debug)]
pub(crate) struct Once(AtomicBool);

impl Once {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn error(&self, message: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            error(message);
        }
    }
}

pub(crate) fn error(message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portcullis", "{message}");
    #[cfg(not(feature = "tracing"))]
    let _ = message;
}

pub(crate) fn warn(message: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "portcullis", "{message}");
    #[cfg(not(feature = "tracing"))]
    let _ = message;
}
