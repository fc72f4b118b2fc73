//! Sinks in front of a sink, which take some entries out.

use std::{
    fmt,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use crate::{
    audit::{AuditEntry, AuditOutcome, AuditSink, Lost, Receipt, Room},
    error::StoreError,
};

/// Passes on what a function picks. What it does not pick is not lost: its owner did not want it.
///
/// ```
/// use portcullis::audit::{AuditEntry, AuditLayer, Filter, JsonLines};
///
/// # fn example() -> Result<(), portcullis::ConfigError> {
/// let refusals = Filter::new(JsonLines::open("refusals.jsonl")?, |entry| {
///     entry.decided().is_none_or(|record| record.rejection().is_some())
/// });
/// let audit = AuditLayer::new((refusals, JsonLines::open("audit.jsonl")?));
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
pub struct Filter<S, F> {
    sink: S,
    wanted: F,
}

impl<S, F> Filter<S, F>
where
    S: AuditSink,
    F: Fn(&AuditEntry) -> bool + Send + Sync + 'static,
{
    /// Passes on what `picks` picks. It runs on the thread of the request, and must not panic.
    pub const fn new(sink: S, picks: F) -> Self {
        Self { sink, wanted: picks }
    }

    fn picks(&self, entry: &AuditEntry) -> bool {
        (self.wanted)(entry)
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Filter<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// Passes on one of so many requests that went well: allowed, and answered with a status below 400. Everything else, refusals
/// above all, is passed on as it comes.
///
/// ```
/// use portcullis::audit::{AuditLayer, JsonLines, Sample};
///
/// # fn example() -> Result<(), portcullis::ConfigError> {
/// let audit = AuditLayer::new(Sample::one_in(100, JsonLines::open("audit.jsonl")?)?);
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sample<S> {
    sink: S,
    one_in: NonZeroU64,
    seen: AtomicU64,
}

impl<S: AuditSink> Sample<S> {
    /// Passes on the first of each `one_in` successes.
    ///
    /// # Errors
    /// If it is zero.
    pub fn one_in(one_in: u64, sink: S) -> Result<Self, crate::ConfigError> {
        let one_in = NonZeroU64::new(one_in)
            .ok_or_else(|| crate::ConfigError::new("audit sample", "one in 0", "is none: at least one in one"))?;
        Ok(Self { sink, one_in, seen: AtomicU64::new(0) })
    }

    /// How many successes there were, passed on or not.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn picks(&self, entry: &AuditEntry) -> bool {
        let success = entry.decided().is_some_and(|record| {
            record.outcome() == AuditOutcome::Allowed && record.status().is_some_and(|status| status < 400)
        });
        !success || self.seen.fetch_add(1, Ordering::Relaxed) % self.one_in == 0
    }
}

/// Passes on to `sink` what `picks` picks.
macro_rules! select {
    ([$($generics:tt)*] $sink:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($generics)*> AuditSink for $sink {
            fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
                if self.picks(&entry) { self.sink.accept(entry) } else { Ok(()) }
            }

            fn lost(&self) -> u64 {
                self.sink.lost()
            }

            async fn flush(&self) -> Result<(), StoreError> {
                self.sink.flush().await
            }

            fn reserve(&self) -> Result<Option<Room>, Lost> {
                self.sink.reserve()
            }

            fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
                if self.picks(&entry) { self.sink.accept_reserved(entry, room) } else { Receipt::done() }
            }
        }
    };
}

select!([S: AuditSink, F: Fn(&AuditEntry) -> bool + Send + Sync + 'static] Filter<S, F>);
select!([S: AuditSink] Sample<S>);
