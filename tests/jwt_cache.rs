//! The cache of verified tokens: it never answers otherwise than a verification would, and stays within its bounds.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    unreachable_pub,
    dead_code,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, StatusCode};
use mint::{AUDIENCE, CLAIMS, HEADER, ISSUER, claims_but, encode, key, token, with_claims};
use portcullis::{
    Challenge, Instants, Principal,
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn},
    guard::require,
    jwt::{
        Algorithm, CacheStats, Issuer, IssuerProfile, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet, TokenCache,
    },
    policy::Rbac,
    stack::Stack,
    tls::TlsLayer,
};
use proptest::{prelude::*, sample::Index};
use support::{NOW, Probe, get, send, with};
use tower::{Layer, Service};

fn profile(algorithm: Algorithm) -> IssuerProfile {
    let keys = KeySet::new([key(algorithm)]).unwrap();
    Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([algorithm]).roles_claim("roles")
}

fn builder() -> JwtAuthenticatorBuilder {
    JwtAuthenticator::builder().issuer(profile(Algorithm::ES256)).leeway(Duration::ZERO)
}

fn cached() -> JwtAuthenticator {
    builder().build().unwrap()
}

fn digests() -> JwtAuthenticator {
    builder().cache(TokenCache::new().digest_keys()).build().unwrap()
}

/// Each way of keeping tokens, by name.
fn both() -> [(&'static str, JwtAuthenticator); 2] {
    [("tokens", cached()), ("digests", digests())]
}

/// HMACs are quick to make.
fn quick(cache: TokenCache) -> JwtAuthenticator {
    JwtAuthenticator::builder().issuer(profile(Algorithm::HS256)).cache(cache).build().unwrap()
}

fn numbered(number: usize) -> String {
    let claims = claims_but("sub", &format!("\"user-{number}\""));
    token(Algorithm::HS256, r#"{"alg":"HS256","typ":"at+jwt"}"#, &claims)
}

fn at(unix_seconds: u64) -> Instants {
    Instants::new(unix_seconds * 1_000_000_000, 0)
}

fn stats(jwt: &JwtAuthenticator) -> CacheStats {
    jwt.cache_stats().unwrap()
}

/// Hits, misses, entries.
fn counts(jwt: &JwtAuthenticator) -> (u64, u64, usize) {
    let stats = stats(jwt);
    (stats.hits, stats.misses, stats.entries)
}

fn reason(jwt: &JwtAuthenticator, token: &str, at: Instants) -> Option<String> {
    jwt.verify(token, at).err().map(|rejection| rejection.reason().to_owned())
}

#[test]
fn a_token_is_verified_once() {
    for (name, jwt) in both() {
        let token = with_claims(CLAIMS);
        let first = jwt.verify(&token, at(NOW)).unwrap();
        assert_eq!(counts(&jwt), (0, 1, 1), "{name}");
        for again in 1..=5 {
            assert_eq!(jwt.verify(&token, at(NOW)).unwrap(), first, "{name}");
            assert_eq!(counts(&jwt), (again, 1, 1), "{name}");
        }
        assert_eq!(stats(&jwt).evictions, 0, "{name}");
    }
}

#[test]
fn claims_are_read_once_for_each_token() {
    let jwt = cached();
    let (one, other) = (with_claims(CLAIMS), with_claims(&claims_but("sub", "\"bob\"")));
    let read = |token: &str| jwt.verify(token, at(NOW)).unwrap().claims_shared::<serde_json::Value>().unwrap();
    assert!(Arc::ptr_eq(&read(&one), &read(&one)));
    assert_eq!(read(&other)["sub"], "bob");
    assert_eq!(read(&one)["sub"], "alice");
}

#[test]
fn clones_share_a_cache_and_other_authenticators_do_not() {
    let (jwt, other) = (cached(), cached());
    let token = with_claims(CLAIMS);
    assert!(jwt.verify(&token, at(NOW)).is_ok());
    assert!(jwt.clone().verify(&token, at(NOW)).is_ok());
    assert_eq!(counts(&jwt), (1, 1, 1));
    assert_eq!(counts(&other), (0, 0, 0));
}

#[test]
fn without_a_cache_nothing_is_kept_or_counted() {
    let jwt = builder().without_cache().build().unwrap();
    let token = with_claims(CLAIMS);
    assert!(jwt.verify(&token, at(NOW)).is_ok() && jwt.verify(&token, at(NOW)).is_ok());
    assert_eq!(jwt.cache_stats(), None);
    assert!(builder().cache(TokenCache::new().max_entries(0)).build().is_err());
}

#[test]
fn times_hold_for_a_token_that_is_remembered() {
    let token = with_claims(&format!(
        r#"{{"iss":"{ISSUER}","sub":"a","aud":"{AUDIENCE}","exp":{}.5,"nbf":{},"iat":{},"client_id":"web","jti":"t-1"}}"#,
        NOW + 100,
        NOW - 100,
        NOW - 100
    ));
    let nanos = |seconds: u64, nanos: u64| Instants::new(seconds * 1_000_000_000 + nanos, 0);
    for leeway in [0, 60] {
        for keep in [TokenCache::new(), TokenCache::new().digest_keys()] {
            let jwt = builder().leeway(Duration::from_secs(leeway)).cache(keep).build().unwrap();
            let bare = builder().leeway(Duration::from_secs(leeway)).without_cache().build().unwrap();
            let end = NOW + 100 + leeway;
            let rows = [
                ("now", at(NOW), None, 1),
                ("clock set back to nbf", at(NOW - 100 - leeway), None, 1),
                (
                    "clock set back before nbf",
                    nanos(NOW - 101 - leeway, 999_999_999),
                    Some("token is not valid yet"),
                    1,
                ),
                ("and right again", at(NOW), None, 1),
                ("last nanosecond", nanos(end, 499_999_999), None, 1),
                ("exp", nanos(end, 500_000_000), Some("token expired"), 0),
                ("long after", at(end + 1_000_000), Some("token expired"), 0),
                ("clock set back before exp", at(NOW), None, 1),
            ];
            for (name, now, refused, entries) in rows {
                assert_eq!(reason(&jwt, &token, now).as_deref(), refused, "{name}");
                assert_eq!(reason(&bare, &token, now).as_deref(), refused, "{name}, without a cache");
                assert_eq!(stats(&jwt).entries, entries, "{name}");
            }
            assert_eq!((stats(&jwt).hits, stats(&jwt).evictions), (3, 0));
        }
    }
}

#[test]
fn what_is_refused_is_not_remembered() {
    let jwt = cached();
    let good = with_claims(CLAIMS);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let refused = [
        String::new(),
        "a.b.c".to_owned(),
        "a".repeat(20_000),
        with_claims(&claims_but("aud", "\"billing\"")),
        with_claims(&claims_but("exp", "1")),
        format!("{head}.{}", encode([0; 64])),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
    ];
    for round in 1..=2 {
        for token in &refused {
            assert!(jwt.verify(token, at(NOW)).is_err());
        }
        let misses = u64::try_from(refused.len()).unwrap() * round;
        assert_eq!(counts(&jwt), (0, misses, 0));
    }
    assert_eq!(stats(&jwt).bytes, 0);
}

#[test]
fn another_token_with_the_same_end_is_refused() {
    for (name, jwt) in both() {
        let token = with_claims(CLAIMS);
        assert!(jwt.verify(&token, at(NOW)).is_ok());
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let (end, start) = (&signature[signature.len() - 40..], &signature[..signature.len() - 40]);
        let mallory = encode(CLAIMS.replace("alice", "malice"));
        let same_length = encode(CLAIMS.replace("alice", "malic"));
        assert_eq!(same_length.len(), claims.len());
        for forged in [
            format!("{header}.{mallory}.{signature}"),
            format!("{header}.{same_length}.{signature}"),
            format!("{}.{claims}.{signature}", encode(HEADER.replace("at+jwt", "AT+JWT"))),
            format!("{header}.{claims}.{}{end}", start.chars().rev().collect::<String>()),
            format!("{header}.{claims}.{}{end}", "A".repeat(start.len())),
            format!("{}{token}", "A".repeat(4)),
            token[1..].to_owned(),
            end.to_owned(),
        ] {
            assert!(jwt.verify(&forged, at(NOW)).is_err(), "{name}: {forged}");
        }
        assert_eq!(counts(&jwt), (0, 9, 1), "{name}: none of them was found");
        assert!(jwt.verify(&token, at(NOW)).is_ok());
    }
}

#[test]
fn no_other_last_character_passes() {
    let jwt = cached();
    let token = with_claims(CLAIMS);
    jwt.verify(&token, at(NOW)).unwrap();
    let (all_but_last, last) = token.split_at(token.len() - 1);
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.".chars() {
        let changed = format!("{all_but_last}{other}");
        assert_eq!(jwt.verify(&changed, at(NOW)).is_ok(), last == other.to_string(), "{other}");
    }
}

/// Every place of a token, each with one other character.
#[test]
fn no_changed_character_passes() {
    for (name, jwt) in both() {
        let token = with_claims(CLAIMS);
        jwt.verify(&token, at(NOW)).unwrap();
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(jwt.verify(&changed, at(NOW)).is_err(), "{name}: {place}");
        }
        assert_eq!((stats(&jwt).hits, stats(&jwt).entries), (0, 1), "{name}");
    }
}

#[derive(Clone, Debug)]
enum Change {
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let character = proptest::char::range(' ', '~');
    prop_oneof![
        (any::<Index>(), character.clone()).prop_map(|(place, to)| Change::Replace(place, to)),
        (any::<Index>(), character).prop_map(|(place, to)| Change::Insert(place, to)),
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The same answer as without a cache, and, as the cached token is another one, a refusal.
    #[test]
    fn no_mutation_of_a_remembered_token_passes(changes in proptest::collection::vec(change(), 1..4)) {
        let original = numbered(1);
        let mut changed: Vec<char> = original.chars().collect();
        for change in changes {
            let length = changed.len().max(1);
            match change {
                Change::Replace(place, to) if !changed.is_empty() => changed[place.index(length)] = to,
                Change::Insert(place, to) => changed.insert(place.index(length).min(changed.len()), to),
                Change::Remove(place) if !changed.is_empty() => drop(changed.remove(place.index(length))),
                Change::Cut(place) => changed.truncate(place.index(length)),
                Change::Replace(..) | Change::Remove(_) => {}
            }
        }
        let changed: String = changed.into_iter().collect();
        for cache in [TokenCache::new(), TokenCache::new().digest_keys()] {
            let jwt = quick(cache);
            jwt.verify(&original, at(NOW)).unwrap();
            prop_assert_eq!(jwt.verify(&changed, at(NOW)).is_ok(), changed == original);
        }
    }
}

#[test]
fn entries_and_bytes_are_bounded() {
    let size = {
        let jwt = quick(TokenCache::new());
        jwt.verify(&numbered(100), at(NOW)).unwrap();
        stats(&jwt).bytes
    };
    assert!((numbered(100).len()..4096).contains(&size), "{size} bytes for a token");
    for (name, cache, most) in [
        ("one entry", TokenCache::new().max_entries(1), 1),
        ("20 entries", TokenCache::new().max_entries(20), 20),
        ("bytes of 10", TokenCache::new().max_bytes(size * 10), 10),
        ("digests", TokenCache::new().max_entries(20).digest_keys(), 20),
    ] {
        let jwt = quick(cache.clone());
        for number in 100..200 {
            let token = numbered(number);
            let first = jwt.verify(&token, at(NOW)).unwrap();
            assert_eq!(first.subject(), format!("user-{number}"), "{name}");
            assert_eq!(jwt.verify(&token, at(NOW)).unwrap(), first, "{name}");
            assert!(stats(&jwt).entries <= most && stats(&jwt).bytes <= size * most, "{name}");
        }
        let now = stats(&jwt);
        assert_eq!((now.hits, now.misses), (100, 100), "{name}");
        assert_eq!(now.evictions + u64::try_from(now.entries).unwrap(), 100, "{name}");
        assert!(now.entries * 2 > most, "{name}: {} of {most} are used", now.entries);
        // Displaced, not lost: they pass again.
        assert!((100..200).all(|number| jwt.verify(&numbered(number), at(NOW)).is_ok()), "{name}");
    }
    let jwt = quick(TokenCache::new().max_bytes(size - 1));
    assert!(jwt.verify(&numbered(100), at(NOW)).is_ok() && jwt.verify(&numbered(100), at(NOW)).is_ok());
    assert_eq!(counts(&jwt), (0, 2, 0), "a token that does not fit alone");
}

#[test]
fn ended_tokens_make_room_first() {
    // So few that they fit into one bucket, wherever chance puts them.
    let jwt = quick(TokenCache::new().max_entries(3));
    let ending = |number: usize, exp: u64| {
        let claims = claims_but("sub", &format!("\"user-{number}\"")).replace("9000000000", &exp.to_string());
        token(Algorithm::HS256, r#"{"alg":"HS256","typ":"at+jwt"}"#, &claims)
    };
    for number in 0..3 {
        jwt.verify(&ending(number, NOW + 10), at(NOW)).unwrap();
    }
    assert_eq!(stats(&jwt).entries, 3);
    for number in 3..6 {
        jwt.verify(&ending(number, NOW + 1000), at(NOW + 500)).unwrap();
    }
    assert_eq!((stats(&jwt).entries, stats(&jwt).evictions), (3, 0));
}

#[test]
fn debug_shows_no_token() {
    for (name, jwt) in both() {
        let token = with_claims(CLAIMS);
        jwt.verify(&token, at(NOW)).unwrap();
        let shown = format!("{jwt:?} {:#?} {:?}", jwt, builder().cache(TokenCache::new()));
        for part in token.split('.').chain(["alice"]) {
            assert!(!shown.contains(part), "{name}");
        }
        assert!(shown.contains("entries: 1"), "{name}: {shown}");
    }
}

const CLERK_LISTS: &str =
    "version = \"1\"\npermissions = [\"orders:list\"]\n[roles.clerk]\ngrants = [\"orders:list\"]\n";
const CLERK_DOES_NOTHING: &str =
    "version = \"2\"\npermissions = [\"orders:list\"]\n[roles.clerk]\n[roles.boss]\ngrants = [\"orders:list\"]\n";

#[tokio::test]
async fn a_permission_that_the_policy_loses_is_lost_to_remembered_tokens() {
    let jwt = cached();
    let under = |policy: &str| {
        let policy = Rbac::from_toml(policy).unwrap();
        let list = policy.permission("orders:list").unwrap();
        let stack = Stack::builder().tls(TlsLayer::require()).authenticate(jwt.clone()).policy(policy);
        stack.route("GET /orders", require(list)).build().unwrap().protect(Probe::default())
    };
    let bearer = format!("Bearer {}", with_claims(&claims_but("roles", r#"["clerk"]"#)));
    let request = || with(get("/orders"), "authorization", &bearer);
    assert_eq!(send(&under(CLERK_LISTS), request()).await.status(), StatusCode::OK);
    assert_eq!(send(&under(CLERK_DOES_NOTHING), request()).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(send(&under(CLERK_LISTS), request()).await.status(), StatusCode::OK);
    assert_eq!(counts(&jwt), (2, 1, 1), "one verification");
}

fn warm_allocations(jwt: &JwtAuthenticator, token: &str) -> u64 {
    let verify = || -> Principal { jwt.verify(token, at(NOW)).unwrap() };
    verify();
    allocation_counter::measure(|| drop(verify())).count_total
}

#[test]
fn a_hit_allocates_nothing() {
    for (name, jwt) in both() {
        assert_eq!(warm_allocations(&jwt, &with_claims(CLAIMS)), 0, "{name}");
        assert_eq!(stats(&jwt).hits, 1, "{name}");
    }
}

/// Tokens by keys that may change carry who knows of the key: one for all of them.
#[test]
fn keys_that_may_change_cost_no_token_anything() {
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let following = Issuer::with_keys(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let following = JwtAuthenticator::builder().issuer(following).leeway(Duration::ZERO).build().unwrap();
    assert_eq!(warm_allocations(&following, &with_claims(CLAIMS)), 0, "seen before");
    let new = |jwt: &JwtAuthenticator| {
        jwt.verify(&with_claims(&claims_but("jti", r#""t-0""#)), at(NOW)).unwrap();
        let token = with_claims(&claims_but("jti", r#""t-2""#));
        allocation_counter::measure(|| drop(jwt.verify(&token, at(NOW)).unwrap())).count_total
    };
    assert_eq!(new(&following), new(&cached()), "a new one");
}

/// Allocations of one warm request through the layer.
fn through_the_layer(authenticator: impl Authenticator, bearer: &str) -> u64 {
    let mut app = AuthnLayer::new(authenticator).dangerous_plain_http().layer(Quiet);
    let mut send = || {
        let request = with(get("/"), "authorization", bearer);
        let mut cx = Context::from_waker(Waker::noop());
        allocation_counter::measure(|| {
            assert!(app.poll_ready(&mut cx).is_ready());
            let Poll::Ready(Ok(response)) = pin!(app.call(request)).poll(&mut cx) else {
                panic!("the answer is in memory");
            };
            assert_eq!(response.status(), StatusCode::OK);
        })
        .count_total
    };
    send();
    send()
}

#[test]
fn a_hit_allocates_what_the_layer_needs_for_a_principal_that_is_there() {
    let jwt = cached();
    let token = with_claims(CLAIMS);
    let alice = jwt.verify(&token, at(NOW)).unwrap();
    let ready_made =
        authenticate_fn(Challenge::new("Bearer", "api").unwrap(), move |_, _| Outcome::verified(alice.clone()));
    let bearer = format!("Bearer {token}");
    assert_eq!(through_the_layer(jwt.clone(), &bearer), through_the_layer(ready_made, &bearer));
    assert_eq!(stats(&jwt).hits, 2);
}

/// An inner service that allocates nothing.
#[derive(Clone, Debug)]
struct Quiet;

impl Service<Request<()>> for Quiet {
    type Response = http::Response<()>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(())))
    }
}
