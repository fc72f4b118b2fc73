use std::{fmt, future::poll_fn, num::NonZeroUsize, sync::Arc, task::Poll, time::Duration};

use async_trait::async_trait;

use crate::{
    audit::{
        AuditEntry, AuditSink, Lost, Receipt, Room,
        queue::{Batch, Filled, Queue, Rules},
    },
    error::{ConfigError, StoreError, StoreErrorKind},
};

/// What happens to an entry that a sink has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: lose it, wait, or do not begin")]
pub enum WhenFull {
    /// It is discarded and counted. Nothing slows the service.
    Discard,
    /// The thread that serves the request waits for room, at most for this long; then the entry is discarded and counted. What
    /// tells of a request without an identity does not wait: strangers could stop every thread.
    Wait(Duration),
    /// Room for its record is kept before a request begins; without any it is refused with `503`, and nothing else happens. Its
    /// answer is held back until the record is stored. Other entries are discarded and counted if there is no room.
    Refuse,
}

impl WhenFull {
    /// What holds unless something else is said: it waits for one second.
    pub const DEFAULT: Self = Self::Wait(Duration::from_secs(1));
}

impl Default for WhenFull {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Hands entries to a consumer of your own, through a queue with an end.
///
/// The queue holds so many records, and as many of requests without an identity; an eighth of that number may be refusals, which
/// are counted by source and second. With [`WhenFull::Refuse`], a record counts as stored when the consumer has taken it.
///
/// The consumer is one thread, which takes what there is with [`AuditReceiver::receive`]. When it drops the receiver, what
/// comes from then on is lost and counted.
///
/// ```
/// use std::time::Duration;
/// use portcullis::audit::{AuditLayer, Channel, WhenFull};
///
/// # fn main() -> Result<(), portcullis::ConfigError> {
/// let (channel, mut receiver) = Channel::new(10_000, WhenFull::Discard)?;
/// std::thread::spawn(move || {
///     while let Some(entries) = receiver.receive(Duration::from_secs(60)) {
///         for entry in entries {
///             let mut line = Vec::new();
///             entry.write_json(&mut line);
///             // send it on
///         }
///     }
/// });
/// let audit = AuditLayer::new(channel);
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
pub struct Channel {
    queue: Arc<Queue>,
}

impl Channel {
    /// Makes both ends.
    ///
    /// # Errors
    /// If `records` is zero, or above a million: what waits is in memory.
    pub fn new(records: usize, when_full: WhenFull) -> Result<(Self, AuditReceiver), ConfigError> {
        let Some(records) = NonZeroUsize::new(records) else {
            return Err(ConfigError::new("audit channel", "0", "must hold one record at least"));
        };
        let refusals = NonZeroUsize::new(records.get() / 8).unwrap_or(NonZeroUsize::MIN);
        let rules = Rules { records, refusals, when_full, count_repeats: true, lingers: false };
        rules.validate()?;
        let queue = Arc::new(Queue::new(rules));
        Ok((Self { queue: Arc::clone(&queue) }, AuditReceiver { queue }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for Channel {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.queue.push(entry)
    }

    fn lost(&self) -> u64 {
        self.queue.lost()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        flush(&self.queue, "audit channel").await
    }

    fn reserve(&self) -> Result<Option<Room>, Lost> {
        self.queue.reserve()
    }

    fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
        self.queue.push_reserved(entry, room)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("rules", self.queue.rules()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// Waits until a queue's writer is done with what is there now.
pub(crate) async fn flush(queue: &Queue, backend: &'static str) -> Result<(), StoreError> {
    let mark = queue.mark();
    let failure = poll_fn(|cx| match queue.settled(mark, cx.waker()) {
        Some(failure) => Poll::Ready(failure),
        None => Poll::Pending,
    });
    match failure.await {
        None => Ok(()),
        Some(kind) => Err(StoreError::new(StoreErrorKind::Unavailable, backend).caused_by(std::io::Error::from(kind))),
    }
}

/// The consumer's end of a [`Channel`].
#[derive(Debug)]
pub struct AuditReceiver {
    queue: Arc<Queue>,
}

impl AuditReceiver {
    /// Waits on this thread for entries and takes them, at most 256 at once. Empty if none came for about this long. A gap stands
    /// first where some were lost. None once the channel is dropped and everything was taken.
    pub fn receive(&mut self, at_most: Duration) -> Option<Vec<AuditEntry>> {
        let mut batch = Batch::of(&self.queue);
        let filled = batch.fill(at_most);
        let gap = (batch.gap() > 0).then(|| AuditEntry::Gap(super::entry::gap(batch.gap(), 0)));
        let taken: Vec<_> = gap.into_iter().chain(batch.take_entries()).collect();
        batch.leave();
        match filled {
            Filled::Entries | Filled::Nothing => Some(taken),
            Filled::Closed => (!taken.is_empty()).then_some(taken),
        }
    }
}

impl Drop for AuditReceiver {
    fn drop(&mut self) {
        // What is left is lost, and so is what comes.
        drop(Batch::of(&self.queue));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::record::{sample, sample_facts, sample_of_alice},
        clock::{Clock, SystemClock},
        rejection::RejectionKind,
    };

    fn refusal() -> AuditEntry {
        let mut facts = sample_facts("/flood");
        facts.rejection = Some((RejectionKind::Unauthenticated, "no credential".into()));
        crate::audit::AuditRecord::new(facts.shareable()).into()
    }

    /// From `network` of many, in this second.
    fn refusal_from(network: u16, second: u64) -> AuditEntry {
        let mut facts = sample_facts("/flood");
        facts.unix_nanos = second * 1_000_000_000;
        facts.rejection = Some((RejectionKind::Unauthenticated, "no credential".into()));
        let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, 1);
        let connection = crate::client::Connection::plain((address, 1).into());
        facts.client = Some(crate::client::ClientInfo::from_connection(connection));
        crate::audit::AuditRecord::new(facts.shareable()).into()
    }

    #[test]
    fn a_flood_fills_no_memory_while_nobody_takes_anything_out() {
        let (channel, mut receiver) = Channel::new(8, WhenFull::Discard).unwrap();
        for second in 0..60 {
            for network in 0..200 {
                for _ in 0..2 {
                    let _ = channel.accept(refusal_from(network, second));
                }
            }
        }
        let mut taken = 0;
        while let Some(entries) = receiver.receive(Duration::from_millis(1))
            && !entries.is_empty()
        {
            taken += entries.len();
        }
        // The lanes, and what is told of the last second.
        assert!(taken <= 8 + 1 + 201, "{taken}");
        assert!(channel.lost() > 10_000, "and what is not told is counted: {}", channel.lost());
    }

    /// Strangers must not stop the threads that everybody needs.
    #[test]
    fn the_refusal_of_a_stranger_waits_for_no_room() {
        let (channel, _receiver) = Channel::new(8, WhenFull::Wait(Duration::from_secs(600))).unwrap();
        assert_eq!(channel.accept(refusal_from(0, 7)), Ok(()));
        assert_eq!((1..9).map(|network| channel.accept(refusal_from(network, 7))).filter(Result::is_err).count(), 8);
        assert_eq!(channel.accept(sample_of_alice("/allowed").into()), Ok(()));
    }

    /// Nor do they fill the room that others need, or a flood of refusals that of those who are served.
    #[test]
    fn a_stranger_who_is_served_waits_for_no_room_and_takes_nobodys() {
        let (channel, mut receiver) = Channel::new(8, WhenFull::Wait(Duration::from_secs(600))).unwrap();
        assert_eq!(channel.accept(refusal_from(0, 7)), Ok(()));
        assert_eq!(channel.accept(refusal_from(1, 7)), Err(Lost));
        assert_eq!((0..9).filter(|_| channel.accept(sample("/health").into()).is_ok()).count(), 7);
        assert_eq!((0..8).filter(|_| channel.accept(sample_of_alice("/orders").into()).is_ok()).count(), 8);
        assert_eq!(
            (receiver.receive(Duration::ZERO).unwrap().len(), channel.lost()),
            (1 + 16, 3),
            "a gap, and two lanes"
        );
    }

    /// Where room is kept for every request, what a stranger was served with is stored as anybody's.
    #[test]
    fn room_that_is_kept_is_kept_for_strangers_too_and_takes_none_of_the_events() {
        let (channel, mut receiver) = Channel::new(8, WhenFull::Refuse).unwrap();
        let rooms: Vec<_> = (0..8).map(|_| channel.reserve().unwrap().unwrap()).collect();
        assert!(channel.reserve().is_err(), "no ninth request begins");
        assert_eq!(channel.accept(sample_of_alice("/event").into()), Ok(()), "what comes beside the requests");
        for (room, n) in rooms.into_iter().zip(0..) {
            let entry = if n == 0 { refusal() } else { sample("/health").into() };
            drop(channel.accept_reserved(entry, room));
        }
        assert!(channel.reserve().is_err(), "their records wait");
        assert_eq!((receiver.receive(Duration::ZERO).unwrap().len(), channel.lost()), (1 + 9, 2));
        assert!(channel.reserve().is_ok());
    }

    #[test]
    fn what_is_counted_is_told_after_a_second_however_long_or_often_the_consumer_waits() {
        for patience in [Duration::from_secs(60), Duration::from_millis(10)] {
            let (channel, mut receiver) = Channel::new(8, WhenFull::Discard).unwrap();
            let began = SystemClock.now();
            let told = std::thread::scope(|scope| {
                let told = scope.spawn(move || {
                    let entries = std::iter::from_fn(|| receiver.receive(patience)).flatten();
                    let repeats = entries.filter_map(|entry| match entry {
                        AuditEntry::Repeated(repeats) => Some(repeats.count()),
                        _ => None,
                    });
                    repeats.map(|count| (count, SystemClock.now().since(began))).next()
                });
                assert_eq!(channel.accept(refusal()), Ok(()));
                // The consumer sleeps, with nothing to tell yet.
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(channel.accept(refusal()), Ok(()));
                told.join().unwrap()
            });
            let (count, after) = told.unwrap();
            assert_eq!(count, 1);
            assert!(after > Duration::from_secs(1) && after < Duration::from_secs(30), "{after:?} of {patience:?}");
        }
    }
}
