use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use async_trait::async_trait;

use crate::{audit::AuditRecord, error::StoreError, log};

/// A record was lost; the sink has counted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit sink lost a record")]
#[non_exhaustive]
pub struct Lost;

impl Lost {
    /// Says that a record was lost.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Default for Lost {
    fn default() -> Self {
        Self::new()
    }
}

/// Where records go.
///
/// # Contract
/// - [`accept`](Self::accept) is called once for each request, on the thread that serves it, often from a destructor. It
///   hands the record on and returns: to a queue, a channel, memory. It must not panic; if it does, the request goes on, and
///   the log says once that records are lost.
/// - Records that one thread hands over are delivered in that order.
/// - Every record is delivered or counted by [`lost`](Self::lost), never both and never neither.
/// - After [`flush`](Self::flush), everything accepted before it was called is delivered or counted as lost.
///
/// The conformance suite (feature `conformance`) checks it.
///
/// ```
/// use std::sync::{atomic::{AtomicU64, Ordering}, mpsc::Sender};
///
/// use async_trait::async_trait;
/// use portcullis::{StoreError, audit::{AuditRecord, AuditSink, Lost}};
///
/// /// Hands records to somebody else in this process, who must keep up: the channel has no end.
/// #[derive(Debug)]
/// struct Channel {
///     sender: Sender<AuditRecord>,
///     lost: AtomicU64,
/// }
///
/// #[async_trait]
/// impl AuditSink for Channel {
///     fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
///         self.sender.send(record).map_err(|_| {
///             self.lost.fetch_add(1, Ordering::Relaxed);
///             Lost::new()
///         })
///     }
///
///     fn lost(&self) -> u64 {
///         self.lost.load(Ordering::Relaxed)
///     }
///
///     async fn flush(&self) -> Result<(), StoreError> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait AuditSink: Debug + Send + Sync + 'static {
    /// Takes a record.
    ///
    /// # Errors
    /// [`Lost`] if the record is lost already.
    fn accept(&self, record: AuditRecord) -> Result<(), Lost>;

    /// How many records were lost since the sink was made.
    fn lost(&self) -> u64;

    /// Waits until every record accepted so far is delivered.
    ///
    /// # Errors
    /// If a record accepted since the last flush could not be delivered.
    ///
    /// # Cancel safety
    /// Dropping it gives up the waiting, nothing else.
    async fn flush(&self) -> Result<(), StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<A: AuditSink + ?Sized> AuditSink for $pointer<A> {
            fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
                (**self).accept(record)
            }

            fn lost(&self) -> u64 {
                (**self).lost()
            }

            async fn flush(&self) -> Result<(), StoreError> {
                (**self).flush().await
            }
        }
    )*};
}

forward!(Arc, Box);

/// Both get every record, whatever becomes of the other's; nest tuples for more. The counts of lost records add up.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: AuditSink, B: AuditSink> AuditSink for (A, B) {
    fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
        let first = accept_quietly(|| self.0.accept(record.clone()));
        self.1.accept(record).and(first)
    }

    fn lost(&self) -> u64 {
        self.0.lost().saturating_add(self.1.lost())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let first = self.0.flush().await;
        self.1.flush().await.and(first)
    }
}

/// Runs code of a sink where a panic must not spread: in a destructor, it would abort the process.
pub(crate) fn accept_quietly(accept: impl FnOnce() -> Result<(), Lost>) -> Result<(), Lost> {
    static PANICKED: log::Once = log::Once::new();
    catch_unwind(AssertUnwindSafe(accept)).unwrap_or_else(|_| {
        // What panicked may have been the log itself.
        let _ = catch_unwind(|| PANICKED.error("an audit sink panicked and lost a record; it is said once"));
        Err(Lost)
    })
}
