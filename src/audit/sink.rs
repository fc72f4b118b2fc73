use std::{
    fmt::{self, Debug},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;

use crate::{audit::AuditEntry, error::StoreError, log};

/// An entry was lost, or would be; the sink has counted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit sink lost an entry")]
#[non_exhaustive]
pub struct Lost;

impl Lost {
    /// Says that an entry was lost.
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

/// Where entries go.
///
/// # Contract
/// - [`accept`](Self::accept) is called on the thread that serves the request, often from a destructor. It hands the entry
///   on and returns: to a queue, a channel, memory. It must not panic; if it does, the request goes on, and the log says once
///   that entries are lost.
/// - Entries that one thread hands over are delivered in that order.
/// - Every entry is delivered or counted by [`lost`](Self::lost), never both and never neither. A refusal that nobody was
///   authenticated in may be delivered as one more of an [`AuditRepeats`](crate::audit::AuditRepeats), and is one of those lost
///   if that is.
/// - After [`flush`](Self::flush), everything accepted before it was called is delivered or counted as lost.
/// - A sink that lets no request pass whose record it cannot store implements [`reserve`](Self::reserve) and
///   [`accept_reserved`](Self::accept_reserved); the others leave them alone.
///
/// The conformance suite (feature `conformance`) checks it.
///
/// Most need no sink of their own: the consumer of a [`Channel`](crate::audit::Channel), which keeps the contract, delivers entries
/// wherever it likes. The manual's page on extending writes one from the ground up.
///
/// ```
/// use std::time::Duration;
/// use portcullis::audit::{AuditLayer, AuditSink, Channel, WhenFull};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (channel, mut receiver) = Channel::new(10_000, WhenFull::Discard)?;
/// let sink = std::sync::Arc::new(channel);
/// let audit = AuditLayer::new(std::sync::Arc::clone(&sink));
/// std::thread::spawn(move || {
///     while let Some(entries) = receiver.receive(Duration::from_secs(60)) {
///         // deliver them, in their order; those of a batch that is given up are gone
///     }
/// });
/// // serve ..
/// sink.flush().await?; // until the consumer has taken what was accepted
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait AuditSink: Debug + Send + Sync + 'static {
    /// Takes an entry.
    ///
    /// # Errors
    /// [`Lost`] if it is lost already.
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost>;

    /// How many entries were lost since the sink was made.
    fn lost(&self) -> u64;

    /// Waits until every entry accepted so far is delivered.
    ///
    /// # Errors
    /// If an entry accepted since the last flush could not be delivered.
    ///
    /// # Cancel safety
    /// Dropping it gives up the waiting, nothing else.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Keeps room for the record of a request that begins, if this sink lets no other pass. Default: it needs none.
    ///
    /// # Errors
    /// [`Lost`] if there is no room, or what was handed over lately could not be stored. The request is refused with `503`
    /// before anything else happens, and counts as lost: there is no room to record even that.
    fn reserve(&self) -> Result<Option<Room>, Lost> {
        Ok(None)
    }

    /// Takes an entry that [`reserve`](Self::reserve) kept room for. The answer is held back until the receipt is there.
    fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
        let _ = self.accept(entry);
        drop(room);
        Receipt::done()
    }
}

/// Room for one entry in a sink, which is given back when it is dropped.
pub struct Room(Kept);

enum Kept {
    /// It is kept until it is dropped.
    One(Box<dyn Send + Sync>),
    Pair(Box<(Option<Room>, Option<Room>)>),
}

impl Room {
    /// Room that `guard` keeps until it is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Kept::One(Box::new(guard)))
    }
}

impl Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// Is ready when an entry is stored, or when it is certain that it will not be: the side effects of the request have happened
/// by then, so that it is answered either way, and the sink counts what it lost.
#[must_use]
pub struct Receipt(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl Receipt {
    /// Ready when this is.
    pub fn when(stored: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self(Some(Box::pin(stored)))
    }

    /// Ready at once.
    pub const fn done() -> Self {
        Self(None)
    }

    fn and(self, other: Self) -> Self {
        match (self.0, other.0) {
            (None, waits) | (waits, None) => Self(waits),
            (Some(one), Some(other)) => Self::when(async move {
                one.await;
                other.await;
            }),
        }
    }
}

impl Future for Receipt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            None => Poll::Ready(()),
            Some(stored) => {
                let answer = stored.as_mut().poll(cx);
                if answer.is_ready() {
                    self.0 = None;
                }
                answer
            }
        }
    }
}

impl Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("done", &self.0.is_none()).finish()
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<A: AuditSink + ?Sized> AuditSink for $pointer<A> {
            fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
                (**self).accept(entry)
            }

            fn lost(&self) -> u64 {
                (**self).lost()
            }

            async fn flush(&self) -> Result<(), StoreError> {
                (**self).flush().await
            }

            fn reserve(&self) -> Result<Option<Room>, Lost> {
                (**self).reserve()
            }

            fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
                (**self).accept_reserved(entry, room)
            }
        }
    )*};
}

forward!(Arc, Box);

/// Both get every entry, whatever becomes of the other's; nest tuples for more. The counts of lost entries add up.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: AuditSink, B: AuditSink> AuditSink for (A, B) {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        let first = accept_quietly(|| self.0.accept(entry.clone()));
        self.1.accept(entry).and(first)
    }

    fn lost(&self) -> u64 {
        self.0.lost().saturating_add(self.1.lost())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let first = self.0.flush().await;
        self.1.flush().await.and(first)
    }

    fn reserve(&self) -> Result<Option<Room>, Lost> {
        Ok(match (self.0.reserve()?, self.1.reserve()?) {
            (None, None) => None,
            pair => Some(Room(Kept::Pair(Box::new(pair)))),
        })
    }

    fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
        let (first, second) = match room.0 {
            Kept::Pair(pair) => *pair,
            Kept::One(room) => (Some(Room(Kept::One(room))), None),
        };
        let receipt = hand_over(&self.0, entry.clone(), first);
        receipt.and(hand_over(&self.1, entry, second))
    }
}

/// Hands an entry to a sink, into the room that it kept, if it did.
pub(crate) fn hand_over(sink: &(impl AuditSink + ?Sized), entry: AuditEntry, room: Option<Room>) -> Receipt {
    let mut receipt = Receipt::done();
    let _ = accept_quietly(|| match room {
        Some(room) => {
            receipt = sink.accept_reserved(entry, room);
            Ok(())
        }
        None => sink.accept(entry),
    });
    receipt
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
