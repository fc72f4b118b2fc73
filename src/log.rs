//! The library's own notices, in one place, so that no call site carries a `cfg`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::Instants;

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

    /// The same for what is no mistake, but weaker than it could be.
    #[cfg(feature = "api-key")]
    pub(crate) fn warn(&self, message: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            warn(message);
        }
    }
}

/// An operator's mistake that clients meet as often as they like: said at most once a minute.
#[derive(Debug)]
pub(crate) struct Seldom {
    /// The last minute in which it was said, counted from one.
    minute: AtomicU64,
}

impl Seldom {
    const MINUTE: u64 = 60_000_000_000;

    pub(crate) const fn new() -> Self {
        Self { minute: AtomicU64::new(0) }
    }

    pub(crate) fn error(&self, at: Instants, message: &str) {
        if self.is_due(at) {
            error(message);
        }
    }

    /// The same for what may be no mistake.
    #[cfg(feature = "tls")]
    pub(crate) fn warn(&self, at: Instants, message: impl FnOnce() -> String) {
        if self.is_due(at) {
            warn(&message());
        }
    }

    /// Goes by the monotonic clock. Requests of two minutes that end in turns do not make it speak again and again.
    fn is_due(&self, at: Instants) -> bool {
        let minute = (at.monotonic_nanos() / Self::MINUTE).saturating_add(1);
        self.minute.load(Ordering::Relaxed) < minute && self.minute.fetch_max(minute, Ordering::Relaxed) < minute
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

/// What explains one client's failure to whoever looks for it. Clients make as many as they like: at `debug`, and not made otherwise.
#[cfg(feature = "tls-listener")]
pub(crate) fn debug(message: impl FnOnce() -> String) {
    #[cfg(feature = "tracing")]
    if tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
        tracing::debug!(target: "portcullis", "{}", message());
    }
    #[cfg(not(feature = "tracing"))]
    let _ = message;
}

/// An error and what led to it.
#[cfg(any(feature = "http-client", feature = "api-key"))]
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let _: Result<(), std::convert::Infallible> = crate::error::unsaid(error, |cause| {
        text.push_str(": ");
        text.push_str(cause);
        Ok(())
    });
    text
}

/// A bounded text without control characters: part of it may come from elsewhere.
#[cfg(any(feature = "http-client", feature = "tls-listener"))]
pub(crate) fn one_line(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
