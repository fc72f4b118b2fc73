//! Many who ask for one key ask the store once.

use std::sync::Arc;

use portcullis::{
    StoreErrorKind,
    api_key::{Cached, KeyCache, KeyChange},
};
use tokio::task::JoinHandle;

use super::slow::{Health, Slow, at, find, known, lookup, record, settle};

type Asked = JoinHandle<Result<bool, StoreErrorKind>>;

fn ask(cached: &Arc<Cached<Slow>>, number: u32) -> Asked {
    let cached = Arc::clone(cached);
    tokio::spawn(async move {
        let found = find(&*cached, lookup(number, at(0))).await;
        found.map(|hit| hit.is_some()).map_err(|error| error.kind())
    })
}

fn closed() -> Arc<Cached<Slow>> {
    let cached = Arc::new(Cached::new(Slow::without_feed()));
    cached.store().add(record(1));
    cached.store().close();
    cached
}

#[tokio::test]
async fn many_questions_for_one_key_are_one() {
    let cached = closed();
    let asked: Vec<Asked> = (0..100).map(|_| ask(&cached, 1)).collect();
    let others: Vec<Asked> = (0..50).map(|_| ask(&cached, 2)).collect();
    settle().await;
    cached.store().open();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Ok(true));
    }
    for asked in others {
        assert_eq!(asked.await.unwrap(), Ok(false));
    }
    let stats = cached.stats();
    assert_eq!((cached.store().asked(), stats.loads, stats.misses, stats.joined), (2, 2, 150, 148));
}

#[tokio::test]
async fn a_failure_is_everybodys_who_waited_and_nobody_elses() {
    let cached = closed();
    cached.store().set(Health::Fails(StoreErrorKind::Unavailable));
    let asked: Vec<Asked> = (0..100).map(|_| ask(&cached, 1)).collect();
    settle().await;
    cached.store().set(Health::Well);
    cached.store().open();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Err(StoreErrorKind::Unavailable));
    }
    assert_eq!(cached.store().asked(), 1, "a hundred who wait do not ask one after the other");
    assert_eq!(ask(&cached, 1).await.unwrap(), Ok(true), "an error is not remembered");
}

#[tokio::test]
async fn an_error_that_is_shared_says_all_that_it_said() {
    let cached = Cached::new(Slow::without_feed());
    cached.store().set(Health::Fails(StoreErrorKind::Corrupt));
    let error = find(&cached, lookup(1, at(0))).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (StoreErrorKind::Corrupt, "slow"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no route to host");
}

#[tokio::test]
async fn when_the_one_who_asks_goes_another_takes_over() {
    let cached = closed();
    let first = ask(&cached, 1);
    settle().await;
    let others: Vec<Asked> = (0..10).map(|_| ask(&cached, 1)).collect();
    settle().await;
    assert_eq!(cached.store().asked(), 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!(cached.store().asked(), 2, "the next one asks, without waiting for a timer");
    others[0].abort();
    settle().await;
    cached.store().open();
    for (index, asked) in others.into_iter().enumerate() {
        match asked.await {
            Ok(found) => assert_eq!(found, Ok(true), "{index}"),
            Err(error) => assert!(index == 0 && error.is_cancelled(), "{index}"),
        }
    }
    assert_eq!(cached.store().asked(), 3);
}

#[tokio::test]
async fn when_all_go_nothing_is_left() {
    let cached = closed();
    for round in 1..=3 {
        let asked: Vec<Asked> = (0..5).map(|_| ask(&cached, 1)).collect();
        settle().await;
        assert_eq!(cached.store().asked(), (round - 1) * 5 + 1);
        for asked in &asked {
            asked.abort();
            settle().await;
        }
        assert_eq!(known(&*cached, 1, at(0)), None);
    }
    cached.store().open();
    assert_eq!(ask(&cached, 1).await.unwrap(), Ok(true));
}

#[tokio::test]
async fn a_question_that_hangs_is_not_joined_for_ever() {
    let cached = closed();
    let hangs = ask(&cached, 1);
    settle().await;
    let later = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { find(&*cached, lookup(1, at(11))).await.unwrap().is_some() }
    });
    settle().await;
    cached.store().open();
    assert_eq!(hangs.await.unwrap(), Ok(true));
    assert!(later.await.unwrap());
    assert_eq!(cached.store().asked(), 2, "an answer older than an answer may be was asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_meet_get_their_answers() {
    let cache = KeyCache::new().misses_per_source(1_000_000, 1_000).misses(1_000_000, 1_000);
    let cached = Arc::new(Cached::with_cache(Slow::with_feed(), &cache).unwrap());
    (0..50).for_each(|number| cached.store().add(record(number)));
    let tasks: Vec<JoinHandle<()>> = (0..8)
        .map(|task| {
            let cached = Arc::clone(&cached);
            tokio::spawn(async move {
                for round in 0..400_u32 {
                    let number = (round * 7 + task) % 60;
                    let found = find(&*cached, lookup(number, at(round.into()))).await.unwrap();
                    assert_eq!(found.is_some(), number < 50);
                    if round % 50 == 0 {
                        cached.store().tell(&KeyChange::Everything);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = cached.stats();
    assert_eq!(stats.hits + stats.negative_hits + stats.misses, 8 * 400);
    assert_eq!(u64::try_from(cached.store().asked()).unwrap(), stats.loads);
}
