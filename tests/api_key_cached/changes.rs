//! What changes in the store is void in the cache, also what is on its way.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use portcullis::{
    StoreErrorKind,
    api_key::{ApiKeyAdmin, Cached, KeyChange, KeyFilter, Rotation},
};

use super::slow::{Health, Slow, active, at, find, found, id, known, leaked, lookup, owner, record, settle};

#[tokio::test]
async fn what_is_changed_through_the_cache_counts_at_once() {
    for store in [Slow::with_feed(), Slow::without_feed()] {
        let cached = Cached::new(store);
        assert!(!found(&cached, 1, at(0)).await);
        cached.insert(record(1)).await.unwrap();
        cached.insert(record(2)).await.unwrap();
        assert!(active(&cached, 1, at(0)).await && active(&cached, 2, at(0)).await);

        assert!(cached.disable_owner(&owner(1), &leaked()).await.unwrap());
        assert!(!active(&cached, 1, at(0)).await && active(&cached, 2, at(0)).await);
        assert!(cached.enable_owner(&owner(1)).await.unwrap());
        assert!(active(&cached, 1, at(0)).await);

        assert!(!found(&cached, 3, at(0)).await);
        let rotation = Rotation::new(id(1), record(3), 0).unwrap();
        assert!(cached.rotate(rotation).await.unwrap());
        assert!(!active(&cached, 1, at(0)).await && active(&cached, 3, at(0)).await);

        assert!(cached.revoke(&id(3), &leaked()).await.unwrap());
        assert!(!active(&cached, 3, at(0)).await);
        assert_eq!(cached.list(&KeyFilter::all(), None, 10).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_revocation_whose_fate_is_unknown_is_looked_up_again() {
    let cached = Cached::new(Slow::without_feed());
    cached.store().add(record(1));
    assert!(active(&cached, 1, at(0)).await);
    cached.store().set(Health::Fails(StoreErrorKind::Unavailable));
    assert!(cached.revoke(&id(1), &leaked()).await.is_err());
    assert_eq!(known(&cached, 1, at(0)), None);
    cached.store().set(Health::Well);
    assert!(!active(&cached, 1, at(0)).await);
}

#[tokio::test]
async fn a_change_elsewhere_counts_once_it_is_told() {
    let cached = Cached::new(Slow::with_feed());
    for number in [1, 2, 8] {
        cached.store().add(record(number));
        assert!(active(&cached, number, at(0)).await);
    }
    cached.store().revoke_elsewhere(1).await;
    assert_eq!([1, 2, 8].map(|number| known(&cached, number, at(0))), [None, Some(true), Some(true)]);
    assert!(!active(&cached, 1, at(0)).await);

    cached.store().disable_owner(&owner(8), &leaked()).await.unwrap();
    assert_eq!([2, 8].map(|number| known(&cached, number, at(0))), [Some(true), None], "1 and 8 are of one owner");
    assert!(!active(&cached, 8, at(0)).await);

    assert!(!found(&cached, 5, at(0)).await);
    cached.store().add(record(5));
    assert!(active(&cached, 5, at(0)).await, "a new key is not absent until that is forgotten");

    cached.store().tell(&KeyChange::Everything);
    assert_eq!([1, 2, 8].map(|number| known(&cached, number, at(0))), [None; 3]);
}

#[tokio::test]
async fn without_a_feed_a_change_elsewhere_counts_when_the_answer_is_old() {
    let cached = Cached::new(Slow::without_feed());
    cached.store().add(record(1));
    assert!(active(&cached, 1, at(0)).await);
    cached.store().revoke_elsewhere(1).await;
    assert!(active(&cached, 1, at(9)).await);
    assert!(!active(&cached, 1, at(10)).await);
}

#[tokio::test]
async fn an_answer_on_its_way_is_void_when_the_key_changes() {
    for owner_changes in [false, true] {
        let cached = Arc::new(Cached::new(Slow::with_feed()));
        cached.store().add(record(1));
        cached.store().close();
        let asks = || {
            let cached = Arc::clone(&cached);
            tokio::spawn(async move { active(&cached, 1, at(0)).await })
        };
        let (before, too) = (asks(), asks());
        settle().await;
        if owner_changes {
            cached.store().disable_owner(&owner(1), &leaked()).await.unwrap();
        } else {
            cached.store().revoke_elsewhere(1).await;
        }
        let after = asks();
        settle().await;
        cached.store().open();
        for answer in [before, too, after] {
            assert!(!answer.await.unwrap(), "the old answer is given to nobody, those who asked before included");
        }
        assert!(!active(&cached, 1, at(0)).await, "nor is it remembered");
        assert_eq!(cached.store().asked(), 2);
    }
}

#[tokio::test]
async fn an_absence_on_its_way_is_void_when_the_key_is_inserted() {
    let cached = Arc::new(Cached::new(Slow::with_feed()));
    cached.store().close();
    let waiting = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { found(&cached, 1, at(0)).await }
    });
    settle().await;
    cached.store().add(record(1));
    cached.store().open();
    assert!(waiting.await.unwrap());
    assert_eq!(known(&cached, 1, at(0)), Some(true));
}

#[tokio::test]
async fn a_key_that_changes_all_the_time_is_answered_and_not_remembered() {
    let cached = Arc::new(Cached::new(Slow::with_feed()));
    cached.store().add(record(1));
    cached.store().close();
    let waiting = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { found(&cached, 1, at(0)).await }
    });
    for _ in 0..3 {
        settle().await;
        cached.store().tell(&KeyChange::Key(id(1)));
        cached.store().open();
        tokio::task::yield_now().await;
        cached.store().close();
    }
    settle().await;
    cached.store().open();
    assert!(waiting.await.unwrap());
    assert!(cached.store().asked() <= 3, "{}", cached.store().asked());
}

#[tokio::test]
async fn while_the_feed_is_lost_every_look_up_asks_the_store() {
    let cached = Cached::new(Slow::with_feed());
    cached.store().add(record(1));
    assert!(active(&cached, 1, at(0)).await && !found(&cached, 2, at(0)).await);
    cached.store().tell(&KeyChange::Lost);
    cached.store().tells.store(false, SeqCst);
    assert_eq!([1, 2].map(|number| known(&cached, number, at(0))), [None, None]);
    cached.store().revoke_elsewhere(1).await;
    cached.store().add(record(2));
    assert!(!active(&cached, 1, at(0)).await && active(&cached, 2, at(0)).await);
    let asked = cached.store().asked();
    assert!(found(&cached, 1, at(0)).await && found(&cached, 2, at(0)).await);
    assert_eq!(cached.store().asked(), asked + 2, "what came meanwhile is not trusted either");

    cached.flush();
    assert_eq!(known(&cached, 2, at(0)), None, "only the store says that it tells again");
    cached.store().tells.store(true, SeqCst);
    cached.store().tell(&KeyChange::Everything);
    assert_eq!(known(&cached, 2, at(0)), None, "what was loaded before is void");
    assert!(found(&cached, 2, at(0)).await);
    assert_eq!(known(&cached, 2, at(0)), Some(true));
}

#[tokio::test]
async fn a_feed_that_is_lost_from_the_start_is_not_trusted() {
    let cached = Cached::new(Slow::lost());
    cached.store().add(record(1));
    for asked in 1..4 {
        assert!(found(&cached, 1, at(0)).await);
        assert_eq!(cached.store().asked(), asked);
    }
    cached.store().tell(&KeyChange::Everything);
    assert!(found(&cached, 1, at(0)).await && found(&cached, 1, at(0)).await);
    assert_eq!(cached.store().asked(), 4);
}

#[tokio::test]
async fn an_answer_that_was_asked_for_while_the_feed_was_lost_is_void_when_it_is_back() {
    let cached = Arc::new(Cached::new(Slow::lost()));
    cached.store().add(record(1));
    cached.store().close();
    let waiting = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { active(&cached, 1, at(0)).await }
    });
    settle().await;
    cached.store().tells.store(false, SeqCst);
    cached.store().revoke_elsewhere(1).await;
    cached.store().tells.store(true, SeqCst);
    cached.store().tell(&KeyChange::Everything);
    cached.store().open();
    assert!(!waiting.await.unwrap());
    assert!(!active(&cached, 1, at(0)).await);
}

#[tokio::test]
async fn a_flush_voids_what_is_remembered() {
    let cached = Cached::new(Slow::without_feed());
    cached.store().add(record(1));
    assert!(active(&cached, 1, at(0)).await);
    cached.store().revoke_elsewhere(1).await;
    cached.flush();
    assert!(!find(&cached, lookup(1, at(0))).await.unwrap().unwrap().is_active(super::slow::NOW));
    assert_eq!(known(&cached, 1, at(0)), Some(true), "flushing is for once");
}
