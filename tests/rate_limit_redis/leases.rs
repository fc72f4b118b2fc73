//! Slices that a process takes ahead.

use std::time::Duration;

use portcullis::rate_limit::{Leases, Quota, RedisLimits, WhenAway};
use tokio::time::Instant;

use super::{PATIENT, granted, redis::Server, store, take, until};

fn leasing(server: &Server, leases: Leases) -> RedisLimits {
    let builder = RedisLimits::builder(&server.address()).timeout(PATIENT).when_away(WhenAway::Fail);
    builder.leases(leases).build().unwrap()
}

/// As long as a test may take.
fn long() -> Leases {
    Leases::new().held_for(Duration::from_secs(60)).unwrap()
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn most_decisions_are_made_in_process_and_no_more_is_passed_than_the_quota_and_the_slices() {
    let server = Server::start();
    let stores = [leasing(&server, long()), leasing(&server, long())];
    let quota = Quota::per_minute(10_000);
    let (start, mut passed, mut asked) = (Instant::now(), 0, 0);
    while asked < 30_000 {
        for store in &stores {
            passed += u64::from(granted(store, "a", &quota).await);
            asked += 1;
        }
    }
    let came_back = 1 + u64::try_from(start.elapsed().as_micros() / 6_000).unwrap();
    assert!(passed <= 10_000 + came_back, "{passed}: what is taken ahead is taken from the quota");
    assert!(passed >= 10_000, "{passed}: both found what the other left, to the last");
    for store in &stores {
        let counts = store.counts();
        assert!(counts.in_process * 100 >= 15_000 * 95, "{counts:?}");
    }
}

/// The worst that can happen: processes hold a slice each, wait until the quota is whole again, and use both.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_overshoot_is_a_slice_for_each_process() {
    let server = Server::start();
    let stores = [leasing(&server, long()), leasing(&server, long())];
    // A 200th of the burst is 20, which comes back in a tenth of a second.
    let quota = Quota::per_second(200).burst(4_000);
    for store in &stores {
        // Until it holds a slice.
        while store.counts().leased < 40 {
            assert!(granted(store, "a", &quota).await);
        }
    }
    until("the quota is whole", || server.keys().is_empty()).await;
    let start = Instant::now();
    let mut passed = 0;
    for store in &stores {
        while granted(store, "a", &quota).await {
            passed += 1;
        }
    }
    let came_back = 1 + u64::try_from(start.elapsed().as_millis() / 5).unwrap();
    assert!(passed <= 4_000 + 2 * 20 + came_back, "{passed} and {came_back} came back");
    assert!(passed >= 4_000, "{passed}");
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn what_is_not_used_is_given_back() {
    let server = Server::start();
    let quota = Quota::per_day(10_000);
    let exact = store(&server);
    let mut used = 0;
    for end in ["in time", "when it is told to", "with the last clone"] {
        let hold = if end == "in time" { Leases::new().held_for(Duration::from_millis(20)).unwrap() } else { long() };
        let store = leasing(&server, hold);
        while store.counts().leased < 100 {
            used += 1;
            assert!(granted(&store, "a", &quota).await);
        }
        match end {
            "in time" => {
                until("it is given back", || {
                    let counts = store.counts();
                    counts.returned > 0
                })
                .await;
                store.give_back().await;
            }
            "when it is told to" => {
                store.give_back().await;
                assert!(store.counts().returned > 0);
            }
            _ => {
                drop(store);
                // Its task is asked last, so what comes after it sees what it did.
                let all = || server.say("INFO clients").contains("connected_clients:2\r\n");
                until("its task has ended", all).await;
            }
        }
        used += 1;
        let left = take(&exact, "a", std::slice::from_ref(&quota), 1).await.unwrap().remaining();
        // One comes back in 8.64 s, and a busy machine may take that long.
        assert!((10_000 - used..=10_000 - used + 4).contains(&left), "{end}: {left} are left, {used} were used");
    }
}

/// More than one call of the script may hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn slices_of_many_keys_are_given_back_at_once() {
    let server = Server::start();
    let store = leasing(&server, long());
    let quota = Quota::per_day(10_000);
    for tens in 0..900 {
        let tasks: Vec<_> = (0..10)
            .map(|number| {
                let (store, quota) = (store.clone(), quota.clone());
                tokio::spawn(async move {
                    for _ in 0..2 {
                        assert!(granted(&store, &format!("{tens}-{number}"), &quota).await);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let leased = store.counts().leased;
    assert!(leased >= 9_000, "{leased}");
    store.give_back().await;
    let counts = store.counts();
    assert_eq!((counts.returned, counts.corrupt, counts.failures), (leased, 0, 0), "{counts:?}");
    let exact = super::store(&server);
    for number in 0..10 {
        let left = take(&exact, &format!("899-{number}"), std::slice::from_ref(&quota), 1).await.unwrap().remaining();
        // One comes back in 8.64 s, and a busy machine may take that long.
        assert!((9_997..=9_999).contains(&left), "{left}");
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn small_quotas_are_asked_about_each_time() {
    let server = Server::start();
    let store = leasing(&server, long());
    let small = Quota::per_day(3_999);
    for _ in 0..50 {
        assert!(granted(&store, "small", &small).await);
    }
    let both = [Quota::per_day(100_000), Quota::per_hour(100).named("hour")];
    for left in (0..100).rev() {
        assert_eq!(take(&store, "both", &both, 1).await.unwrap().remaining(), left, "exact to the last");
    }
    assert!(!take(&store, "both", &both, 1).await.unwrap().is_granted());
    assert_eq!((store.counts().asked, store.counts().in_process, store.counts().leased), (151, 0, 0));
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_refusal_is_remembered_for_as_long_as_a_slice_is_held() {
    let server = Server::start();
    let store = leasing(&server, long());
    let quota = Quota::per_day(4_000);
    let quotas = std::slice::from_ref(&quota);
    assert!(take(&store, "a", quotas, 4_000).await.unwrap().is_granted());
    let told = take(&store, "a", quotas, 2).await.unwrap().retry_after_nanos().unwrap();
    let asked = store.counts().asked;
    for _ in 0..1_000 {
        let wait = take(&store, "a", quotas, 2).await.unwrap().retry_after_nanos().unwrap();
        assert!(wait <= told && wait > 0);
    }
    assert_eq!(store.counts().asked, asked, "Redis was not asked");
    // One that costs less may pass earlier, and is asked about.
    assert!(!granted(&store, "a", &quota).await);
    assert_eq!(store.counts().asked, asked + 1);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn costs_come_out_of_slices_as_well() {
    let server = Server::start();
    let store = leasing(&server, long());
    let quota = Quota::per_day(40_000);
    let quotas = std::slice::from_ref(&quota);
    let mut spent = 0;
    for cost in (1..=300).cycle().take(600) {
        if take(&store, "a", quotas, cost).await.unwrap().is_granted() {
            spent += cost;
        }
    }
    assert!(spent <= 40_000 + 4, "{spent}");
    store.give_back().await;
    let left = take(&super::store(&server), "a", quotas, 1).await.unwrap();
    if left.is_granted() {
        assert!(spent + left.remaining() < 40_000 + 4, "{spent} and {left:?}");
    }
    assert!(store.counts().in_process > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis; tests/run installs it"]
async fn many_tasks_share_a_slice() {
    let server = Server::start();
    let store = leasing(&server, long());
    let quota = Quota::per_day(20_000);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (store, quota) = (store.clone(), quota.clone());
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..500 {
                    passed += u32::from(granted(&store, "a", &quota).await);
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    store.give_back().await;
    assert!((19_900..=20_004).contains(&passed), "{passed} of 32 000 that were asked for");
}

/// What was leased of the quota before is given back by its numbers, and the debt of a longer one is not its affair.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_lease_of_the_quota_before_forgives_no_debt_of_the_one_after() {
    let server = Server::start();
    let store = leasing(&server, Leases::new());
    let (before, after) = (Quota::per_minute(10_000).named("q"), Quota::per_day(4_000).named("q"));
    for _ in 0..3 {
        assert!(granted(&store, "a", &before).await);
    }
    assert!(store.counts().leased > 0, "{:?}", store.counts());
    let passed = async || {
        let mut passed = 0;
        for _ in 0..5 {
            let taken = take(&store, "a", std::slice::from_ref(&after), 990).await.unwrap();
            passed += if taken.is_granted() { 990 } else { 0 };
        }
        passed
    };
    let first = passed().await;
    assert!((2_970..=3_960).contains(&first), "{first}");
    // By then the lease has been given back.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(passed().await, 0, "{:?}", store.counts());
}
