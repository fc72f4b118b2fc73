//! A flood of random ids neither floods the store nor costs those who have keys.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use http::{Request, Response};
use portcullis::{
    Connection, Instants, Now, RejectionKind, RequestHead, StoreErrorKind, TlsVersion,
    api_key::{ApiKey, ApiKeyAuthenticator, ApiKeyStore, Cached, KeyCache, KeyChange, Lookup, NewApiKey},
    authn::{Authenticator, AuthnLayer, Outcome},
};
use tower::{Layer, ServiceExt, service_fn};

use super::slow::{Health, Slow, at, find, found, id, lookup, record, settle};

fn from(address: &str, number: u32, at: Instants) -> Lookup {
    Lookup::new(id(number), at).from_client(Some(address.parse::<IpAddr>().unwrap()))
}

async fn kind(cached: &Cached<Slow>, lookup: Lookup) -> Result<bool, StoreErrorKind> {
    find(cached, lookup).await.map(|hit| hit.is_some()).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_flood_of_random_ids_is_bounded_and_good_keys_pass() {
    let cached = Cached::new(Slow::without_feed());
    for number in 0..100 {
        cached.store().add(record(number));
        assert!(found(&cached, number, at(0)).await);
    }
    let asked = cached.store().asked();
    let (mut absent, mut throttled) = (0, 0);
    for number in 1_000..51_000 {
        match kind(&cached, lookup(number, at(1))).await {
            Ok(found) => absent += usize::from(!found),
            Err(kind) => throttled += usize::from(kind == StoreErrorKind::Throttled),
        }
    }
    // What was given back for the good keys is there again.
    assert_eq!((absent, throttled), (200, 49_800));
    assert_eq!(cached.store().asked(), asked + 200, "the store hears of the budget, not of the flood");
    let stats = cached.stats();
    assert_eq!((stats.keys, stats.absent, stats.evictions, stats.throttled), (100, 200, 0, 49_800));
    for number in 0..100 {
        let at_once = cached.find_now(lookup(number, at(1)));
        assert!(matches!(at_once, Now::Known(Ok(Some(_)))), "a good key of the same source");
    }
    for number in 0..100 {
        assert_eq!(kind(&cached, lookup(number, at(11))).await, Ok(true), "also when it has to be asked for again");
    }
    assert_eq!(kind(&cached, from("203.0.113.9", 60_000, at(1))).await, Ok(false), "others are not throttled");
    assert_eq!(kind(&cached, lookup(1_000, at(1))).await, Ok(false), "what is known to be absent costs nothing");
}

#[tokio::test]
async fn who_is_throttled_is_told_when_to_come_back_and_may() {
    let cache = KeyCache::new().misses_per_source(3, 1);
    let cached = Cached::with_cache(Slow::without_feed(), &cache).unwrap();
    for number in 0..3 {
        assert_eq!(kind(&cached, lookup(number, at(0))).await, Ok(false));
    }
    let throttled = find(&cached, lookup(3, at(0))).await.unwrap_err();
    assert_eq!((throttled.kind(), throttled.backend()), (StoreErrorKind::Throttled, "key cache"));
    assert_eq!(throttled.retry_after().map(|wait| wait.as_secs()), Some(1));
    assert!(matches!(cached.find_now(lookup(3, at(0))), Now::Known(Err(_))), "without waiting");
    assert!(cached.find(lookup(3, at(0))).await.is_err(), "both twins say so");
    assert_eq!(kind(&cached, lookup(3, at(1))).await, Ok(false));
    assert_eq!(kind(&cached, lookup(4, at(1))).await, Err(StoreErrorKind::Throttled));
}

/// What the client of a layer gets: 401 while the budget lasts, 429 after it, and a good key passes all the time.
#[tokio::test]
async fn a_guesser_is_limited_and_its_neighbour_is_not() {
    let cached = Arc::new(Cached::with_cache(Slow::with_feed(), &KeyCache::new().misses_per_source(3, 1)).unwrap());
    let (good, _) = NewApiKey::for_subject("billing").issue(&*cached, at(0)).await.unwrap();
    let authenticator = ApiKeyAuthenticator::new(Arc::clone(&cached));
    let asks = async |key: &ApiKey, peer: &str| {
        let mut request = Request::get("/").header("x-api-key", key.expose()).body(()).unwrap();
        request.extensions_mut().insert(Connection::tls(peer.parse().unwrap(), TlsVersion::Tls13));
        let head = RequestHead::of(&request);
        let outcome = match authenticator.authenticate_now(&head, at(0)) {
            Now::Known(outcome) => outcome,
            Now::Wait => authenticator.authenticate(&head, at(0)).await,
        };
        match outcome {
            Outcome::Verified(_) => None,
            Outcome::Refused(rejection) => Some(rejection.kind()),
            Outcome::Absent | Outcome::RefusedIfNeeded(_) => panic!("there is a key"),
        }
    };
    let guessed = || NewApiKey::for_subject("guesser").mint(at(0)).unwrap().0;
    let (guesser, neighbour) = ("198.51.100.7:1", "198.51.100.8:1");
    for _ in 0..3 {
        assert_eq!(asks(&guessed(), guesser).await, Some(RejectionKind::InvalidCredential));
    }
    assert_eq!(asks(&good, neighbour).await, None, "a key that was not asked for before");
    for _ in 0..10 {
        assert_eq!(asks(&guessed(), guesser).await, Some(RejectionKind::RateLimited));
        assert_eq!(asks(&good, guesser).await, None);
    }
    assert_eq!(asks(&guessed(), neighbour).await, Some(RejectionKind::InvalidCredential));
}

#[tokio::test]
async fn many_sources_together_are_bounded() {
    let cached = Cached::new(Slow::without_feed());
    let mut throttled = 0_usize;
    for number in 0..20_000_u32 {
        let address = IpAddr::from(u128::from(number).to_be_bytes());
        let lookup = Lookup::new(id(number), at(0)).from_client(Some(address.to_canonical()));
        throttled += usize::from(kind(&cached, lookup).await == Err(StoreErrorKind::Throttled));
    }
    assert_eq!(cached.store().asked(), 20_000 - throttled);
    assert!(cached.store().asked() <= 2_000, "{}", cached.store().asked());
    assert!(cached.stats().absent <= 2_000);
}

#[tokio::test]
async fn nobody_in_particular_is_bounded_too() {
    let cached = Cached::new(Slow::without_feed());
    for number in 0..5_000 {
        let _ = find(&cached, Lookup::new(id(number), at(0))).await;
    }
    assert_eq!(cached.store().asked(), 2_000);
}

#[tokio::test]
async fn keys_that_exist_are_looked_up_without_end() {
    let cached =
        Cached::with_cache(Slow::without_feed(), &KeyCache::new().misses_per_source(2, 1).misses(2, 1)).unwrap();
    for number in 0..500 {
        cached.store().add(record(number));
        assert_eq!(kind(&cached, lookup(number, at(0))).await, Ok(true), "{number}");
    }
    assert_eq!(cached.stats().throttled, 0);
}

#[tokio::test]
async fn questions_that_fail_or_are_given_up_are_not_given_back() {
    let cache = KeyCache::new().misses_per_source(5, 1);
    let cached = Arc::new(Cached::with_cache(Slow::without_feed(), &cache).unwrap());
    (0..20).for_each(|number| cached.store().add(record(number)));
    cached.store().set(Health::Fails(StoreErrorKind::Unavailable));
    assert_eq!(kind(&cached, lookup(0, at(0))).await, Err(StoreErrorKind::Unavailable));
    cached.store().set(Health::Well);
    cached.store().close();
    for number in 1..20 {
        let cached = Arc::clone(&cached);
        let asks = tokio::spawn(async move { find(&*cached, lookup(number, at(0))).await.is_ok() });
        settle().await;
        asks.abort();
        let _ = asks.await;
    }
    assert_eq!(cached.store().asked(), 5, "who asks and hangs up does not get more");
}

/// They wait for one answer, and each that hangs up leaves the question to the next.
#[tokio::test]
async fn who_hangs_up_in_turns_does_not_get_more() {
    let cache = KeyCache::new().misses_per_source(5, 1);
    let cached = Arc::new(Cached::with_cache(Slow::without_feed(), &cache).unwrap());
    cached.store().add(record(1));
    cached.store().close();
    let asks = |lookup| {
        let cached = Arc::clone(&cached);
        tokio::spawn(async move { kind(&cached, lookup).await })
    };
    let requests: Vec<_> = (0..100).map(|_| asks(lookup(1, at(0)))).collect();
    settle().await;
    let neighbour = asks(from("203.0.113.9", 1, at(0)));
    settle().await;
    for request in &requests[..50] {
        request.abort();
        settle().await;
    }
    assert_eq!(cached.store().asked(), 5 + 1, "five of the one source, and then the neighbour's");
    let stats = cached.stats();
    assert_eq!((stats.loads, stats.joined, stats.throttled), (6, 100, 95));
    cached.store().open();
    assert_eq!(neighbour.await.unwrap(), Ok(true), "whose own budget is whole");
    for request in requests.into_iter().skip(5) {
        assert_eq!(request.await.unwrap(), Err(StoreErrorKind::Throttled));
    }
}

#[tokio::test]
async fn hanging_up_in_turns_behind_the_layer_is_bounded_too() {
    let cached = Arc::new(Cached::new(Slow::without_feed()));
    cached.store().close();
    let (nobodys, _) = NewApiKey::for_subject("nobody").mint(at(0)).unwrap(); // anybody makes such a text
    let layer = AuthnLayer::new(ApiKeyAuthenticator::new(Arc::clone(&cached))).dangerous_plain_http();
    let service = layer.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new()))));
    let requests: Vec<_> = (0..3_000)
        .map(|_| {
            let mut request = Request::get("/").header("x-api-key", nobodys.expose()).body(()).unwrap();
            request.extensions_mut().insert(Connection::plain("198.51.100.7:1".parse().unwrap()));
            tokio::spawn(service.clone().oneshot(request))
        })
        .collect();
    settle().await;
    for request in requests {
        request.abort();
        let _ = request.await;
    }
    // Ten more for each second that this took.
    let asked = cached.store().asked();
    assert!((1..=1_000).contains(&asked), "{asked}");
}

/// What is asked for again because a change made the answer void is not charged twice.
#[tokio::test]
async fn a_key_that_exists_is_asked_for_again_at_no_charge() {
    let cache = KeyCache::new().misses_per_source(1, 1).misses(1, 1);
    let cached = Arc::new(Cached::with_cache(Slow::with_feed(), &cache).unwrap());
    cached.store().add(record(1));
    cached.store().close();
    let asks = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { kind(&cached, lookup(1, at(0))).await }
    });
    settle().await;
    cached.store().tell(&KeyChange::Key(id(1)));
    assert_eq!(kind(&cached, lookup(2, at(0))).await, Err(StoreErrorKind::Throttled), "one is under way");
    cached.store().open();
    assert_eq!(asks.await.unwrap(), Ok(true));
    assert_eq!(cached.store().asked(), 2);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let cache =
        KeyCache::new().max_keys(1_000).max_absent(500).misses(u32::MAX, 1_000).misses_per_source(u32::MAX, 1_000);
    let cached = Cached::with_cache(Slow::without_feed(), &cache).unwrap();
    for number in 0..10_000 {
        cached.store().add(record(number));
        assert_eq!(kind(&cached, lookup(number, at(0))).await, Ok(true));
        assert_eq!(kind(&cached, lookup(number + 100_000, at(0))).await, Ok(false));
    }
    let stats = cached.stats();
    // A sixteenth to spare, and one more for each shard.
    assert!(stats.keys >= 1_000 && stats.keys <= 1_062 + 64, "{stats:?}");
    assert!(stats.absent >= 500 && stats.absent <= 531 + 64, "{stats:?}");
    assert_eq!(stats.evictions + u64::try_from(stats.keys).unwrap(), 10_000, "{stats:?}");
}
