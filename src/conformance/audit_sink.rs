use std::{collections::HashSet, future::Future, pin::Pin};

use crate::{
    audit::{AuditEntry, AuditEvent, AuditSink, Lost, Room, sample},
    conformance::together::together,
    context::RequestId,
    event::{Event, EventKind},
};

const THREADS: usize = 8;
const RECORDS: usize = 50;
/// More than a sink that gets full may have room for.
const MANY: usize = 2_000;

/// Checks an [`AuditSink`]. `delivered` tells the `request_id` of each record of a request that arrived, in order.
///
/// The sink is new, has nothing to fail on, and has room for 500 records. [`audit_sink_that_is_full`] and
/// [`audit_sink_that_fails`] check the rest of the contract.
///
/// # Panics
/// If the sink breaks a rule of the trait's contract; the text says which.
pub async fn audit_sink(sink: &dyn AuditSink, delivered: impl Fn() -> Vec<String>) {
    assert!(sink.flush().await.is_ok(), "a flush with nothing to deliver succeeds");
    assert!(delivered().is_empty(), "the suite needs a new sink");

    let first = accept(sink, RECORDS);
    flush(sink, "a flush after accepted records succeeds").await;
    assert_eq!(delivered(), first, "records of one thread are delivered in order, all of them by the end of a flush");

    flush(sink, "a second flush succeeds").await;
    assert_eq!(delivered(), first, "a second flush delivers nothing again");

    let ids: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| accept(sink, RECORDS))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    assert_eq!(ids.len(), THREADS, "accept does not panic on any thread");
    flush(sink, "a flush after many threads succeeds").await;
    let after: Vec<String> = delivered().split_off(first.len());
    let distinct: HashSet<&String> = after.iter().collect();
    assert_eq!((after.len(), distinct.len()), (THREADS * RECORDS, THREADS * RECORDS), "each record is delivered once");
    for ids in ids {
        let mine: HashSet<&String> = ids.iter().collect();
        let order: Vec<&String> = after.iter().filter(|id| mine.contains(id)).collect();
        assert!(order.into_iter().eq(&ids), "records of each thread are delivered in its order");
    }
    assert_eq!(sink.lost(), 0, "nothing is counted as lost that was delivered");

    let before = delivered().len();
    match sink.reserve() {
        Err(lost) => assert_eq!(Err(lost), Ok(()), "a sink with room keeps some"),
        Ok(None) => {}
        Ok(Some(given_back)) => {
            drop(given_back);
            let record = sample("/reserved");
            let id = record.request_id().to_string();
            let room = sink.reserve();
            assert!(matches!(room, Ok(Some(_))), "a sink that keeps room once keeps room again");
            if let Ok(Some(room)) = room {
                sink.accept_reserved(record.into(), room).await;
            }
            assert_eq!(delivered().get(before..), Some(&[id][..]), "with the receipt, the record is delivered");
        }
    }
}

/// Checks an [`AuditSink`] that has no more room: every record is delivered or counted as lost, never both and never neither, in
/// order, and once there is room again records are delivered again. One that [keeps room](AuditSink::reserve) for records says when
/// there is none left, and delivers every record that it kept room for, whatever else is handed to it meanwhile.
///
/// The sink is new, and what it delivers to stands still until `release` is called, so that 2 000 records are more than it has room
/// for; one that waits for room should not wait for long. `delivered` is as for [`audit_sink`].
///
/// # Panics
/// If the sink breaks a rule of the trait's contract; the text says which.
pub async fn audit_sink_that_is_full(
    sink: &dyn AuditSink,
    delivered: impl Fn() -> Vec<String>,
    release: impl FnOnce(),
) {
    let (rooms, turned_away) = all_rooms(sink);
    let (mut handed, mut refused) = (Vec::with_capacity(MANY), HashSet::new());
    for _ in 0..MANY {
        let (id, taken) = hand(sink, "/full");
        if taken.is_err() {
            refused.insert(id.clone());
        }
        handed.push(id);
    }
    let mut promised = HashSet::new();
    let mut under_way: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::with_capacity(rooms.len());
    for room in rooms {
        let record = sample("/reserved");
        let id = record.request_id().to_string();
        promised.insert(id.clone());
        handed.push(id);
        under_way.push(Box::pin(sink.accept_reserved(record.into(), room)));
    }
    let counted = usize::try_from(sink.lost()).unwrap_or(usize::MAX);
    assert!(counted >= refused.len(), "what is refused is counted as lost at once: {counted} of {}", refused.len());
    // A request that does not begin for want of room counts as lost, and its record is not handed over.
    let unbegun = turned_away.saturating_add(usize::from(sink.reserve().is_err()));
    release();
    under_way.push(Box::pin(async {
        // Whether what was refused makes a flush fail is the sink's affair.
        let _flushed = sink.flush().await;
    }));
    together(under_way).await;
    let lost = usize::try_from(sink.lost()).unwrap_or(usize::MAX);
    assert!(lost > 0, "the suite needs a sink that gets full");
    let arrived = delivered();
    let distinct: HashSet<&String> = arrived.iter().collect();
    assert_eq!(distinct.len(), arrived.len(), "no record is delivered twice");
    assert!(arrived.iter().all(|id| !refused.contains(id)), "what was refused is not delivered as well");
    assert!(promised.iter().all(|id| distinct.contains(id)), "every record that room was kept for is delivered");
    assert_eq!(
        arrived.len().saturating_add(lost),
        handed.len().saturating_add(unbegun),
        "every record is delivered or counted as lost, never both and never neither"
    );
    let order: Vec<&String> = handed.iter().filter(|id| distinct.contains(id)).collect();
    assert!(order.into_iter().eq(&arrived), "what is delivered of one thread is delivered in order");

    let (id, taken) = hand(sink, "/room");
    assert!(taken.is_ok(), "a sink that has room again accepts a record");
    flush(sink, "a flush after there is room again succeeds").await;
    assert_eq!(delivered().last(), Some(&id), "a sink that has room again delivers");
    let now = usize::try_from(sink.lost()).unwrap_or(usize::MAX);
    assert_eq!(now, lost, "nothing is counted as lost that was delivered");
}

/// Checks an [`AuditSink`] that cannot deliver, because what it delivers to fails each time: a flush says so, and every entry is
/// counted as lost, be it the record of a request or an [event](AuditEntry::Event). One that
/// [keeps room](AuditSink::reserve) for records keeps none after that.
///
/// The sink is new.
///
/// # Panics
/// If the sink breaks a rule of the trait's contract; the text says which.
pub async fn audit_sink_that_fails(sink: &dyn AuditSink) {
    let first = sink.reserve();
    let (keeps_room, mut handed) = (!matches!(first, Ok(None)), u64::from(first.is_err()));
    drop(first);
    for _ in 0..3 {
        let mut accepted = 0_usize;
        for _ in 0..RECORDS {
            accepted = accepted.saturating_add(usize::from(hand(sink, "/failing").1.is_ok()));
            handed = handed.saturating_add(1);
        }
        let event = AuditEvent::new(Event::new(EventKind::KeyRevoked, "conformance"), None);
        accepted = accepted.saturating_add(usize::from(sink.accept(AuditEntry::Event(event)).is_ok()));
        handed = handed.saturating_add(1);
        let flushed = sink.flush().await;
        assert!(flushed.is_err() || accepted == 0, "a flush that could not deliver what was accepted says so");
        assert_eq!(sink.lost(), handed, "what could not be delivered is counted as lost, once, events too");
        if keeps_room {
            assert!(sink.reserve().is_err(), "a sink that could not deliver lately keeps no room");
            handed = handed.saturating_add(1);
            assert_eq!(sink.lost(), handed, "a request that does not begin for want of room counts as lost");
        }
    }
}

/// All the room that the sink keeps, and how many requests did not begin for want of more: none if it keeps no room.
fn all_rooms(sink: &dyn AuditSink) -> (Vec<Room>, usize) {
    let mut rooms = Vec::new();
    while rooms.len() < MANY {
        match sink.reserve() {
            Ok(Some(room)) => rooms.push(room),
            Ok(None) => {
                assert!(rooms.is_empty(), "a sink that keeps room once keeps room again");
                return (rooms, 0);
            }
            Err(_) => return (rooms, 1),
        }
    }
    assert!(rooms.is_empty(), "a sink that is full keeps no more room");
    (rooms, 0)
}

/// Hands over one record.
fn hand(sink: &dyn AuditSink, path: &str) -> (String, Result<(), Lost>) {
    let record = sample(path);
    let id: RequestId = record.request_id();
    (id.to_string(), sink.accept(record.into()))
}

async fn flush(sink: &dyn AuditSink, rule: &str) {
    let flushed = sink.flush().await;
    assert!(flushed.is_ok(), "{rule}: {flushed:?}");
}

fn accept(sink: &dyn AuditSink, records: usize) -> Vec<String> {
    let one = |_| {
        let (id, taken) = hand(sink, "/conformance");
        assert!(taken.is_ok(), "a sink with room accepts a record");
        id
    };
    (0..records).map(one).collect()
}
