use std::collections::HashSet;

use crate::{
    audit::{AuditSink, sample},
    context::RequestId,
};

const THREADS: usize = 8;
const RECORDS: usize = 50;

/// Checks an [`AuditSink`]. `delivered` tells the `request_id` of each record of a request that arrived, in order.
///
/// The sink is new, has nothing to fail on, and has room for 500 records.
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

async fn flush(sink: &dyn AuditSink, rule: &str) {
    let flushed = sink.flush().await;
    assert!(flushed.is_ok(), "{rule}: {flushed:?}");
}

fn accept(sink: &dyn AuditSink, records: usize) -> Vec<String> {
    let one = |_| {
        let record = sample("/conformance");
        let id: RequestId = record.request_id();
        assert!(sink.accept(record.into()).is_ok(), "a sink with room accepts a record");
        id.to_string()
    };
    (0..records).map(one).collect()
}
