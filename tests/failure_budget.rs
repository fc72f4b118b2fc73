//! The budget for bad credentials: it bounds what a flood costs, and shuts nobody out whom the attacker merely names.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use mint::{AUDIENCE, CLAIMS, HEADER, ISSUER, claims_but, key, token};
use portcullis::{
    Challenge, Clock, Connection, Instants, Now, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead,
    Secret, StoreError, StoreErrorKind, TlsVersion,
    api_key::{
        ApiKeyAuthenticator, ApiKeyRecord, ApiKeyStore, Cached, Found, Hit, KeyId, Lookup, MemoryKeyStore, NewApiKey,
    },
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn, both, one_of},
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, require},
    jwt::{
        Algorithm, CookiePlace, CsrfRules, Issuer, JwtAuthenticator, Key, KeySet,
        keys::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh},
    },
    rate_limit::{Draw, FailureBudget, MemoryLimits, Quota, RateLimitLayer, RateLimitStore, Taken},
    stack::Stack,
};
use support::{NOW, Probe, send};
use tower::{Layer, Service};

/// A clock that is moved by hand; clones share the hands.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Instants {
        let nanos = self.0.load(Ordering::SeqCst);
        Instants::new(NOW * 1_000_000_000 + nanos, nanos)
    }
}

/// Its keys; each has an id, unless `other` has none.
fn keys(other: Key) -> KeySet {
    let key = || key(Algorithm::HS256);
    KeySet::new([other, key().with_id("k"), key().with_id("victims-key")]).unwrap()
}

fn jwt(keys: impl KeySource) -> JwtAuthenticator {
    let algorithms = [Algorithm::HS256, Algorithm::HS384];
    let profile = Issuer::with_keys(ISSUER, keys).access_tokens(AUDIENCE).algorithms(algorithms);
    JwtAuthenticator::builder().issuer(profile).leeway(Duration::ZERO).build().unwrap()
}

/// Of this key id, or of none.
fn header(kid: &str) -> String {
    if kid.is_empty() {
        return HEADER.replace("ES256", "HS256");
    }
    HEADER.replace("ES256", "HS256").replace('}', &format!(r#","kid":"{kid}"}}"#))
}

/// A good token of this subject.
fn good(subject: &str) -> String {
    let header = HEADER.replace("ES256", "HS256");
    token(Algorithm::HS256, &header, &claims_but("sub", &format!("\"{subject}\"")))
}

/// A forged one: the signature is of another text.
fn forged(number: usize, kid: &str) -> String {
    let token = token(Algorithm::HS256, &header(kid), &claims_but("jti", &format!("\"{number}\"")));
    let other = good("somebody");
    format!("{}.{}", token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1)
}

fn from(address: &str, token: &str) -> Request<()> {
    let mut request = Request::get("/orders").header("authorization", format!("Bearer {token}")).body(()).unwrap();
    let peer = (address.parse::<IpAddr>().unwrap(), 52_100).into();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

fn guarded(
    budget: &FailureBudget,
    clock: &Hands,
) -> impl Service<Request<()>, Response = Response<http_body_util::Full<bytes::Bytes>>, Error = std::convert::Infallible>
+ Clone {
    guarded_with(keys(key(Algorithm::HS384).with_id("longer")), budget, clock)
}

fn guarded_with(
    keys: impl KeySource,
    budget: &FailureBudget,
    clock: &Hands,
) -> impl Service<Request<()>, Response = Response<http_body_util::Full<bytes::Bytes>>, Error = std::convert::Infallible>
+ Clone {
    Stack::builder()
        .clock(clock.clone())
        .dangerous_plain_http()
        .authenticate(jwt(keys))
        .failure_budget(budget.clone())
        .fallback(require(authenticated()))
        .build()
        .unwrap()
        .protect(Probe::default())
}

const NAT: &str = "198.51.100.7";

#[tokio::test]
async fn a_flood_behind_the_same_address_refuses_no_token_that_is_known() {
    let (budget, clock) = (FailureBudget::new(), Hands::default());
    let service = guarded(&budget, &clock);
    let neighbour = good("neighbour");
    assert_eq!(send(&service, from(NAT, &neighbour)).await.status(), StatusCode::OK);

    // A thousand bad tokens a second, for three seconds; the neighbour asks a hundred times a second.
    let (mut checked, mut spared) = (0, 0);
    for number in 0..3_000 {
        clock.advance(Duration::from_millis(1));
        match send(&service, from(NAT, &forged(number, "k"))).await.status().as_u16() {
            401 => checked += 1,
            429 => spared += 1,
            other => panic!("{other}"),
        }
        if number % 10 == 0 {
            assert_eq!(send(&service, from(NAT, &neighbour)).await.status(), StatusCode::OK, "request {number}");
        }
    }
    // 20 at once and one a second for one key id of one source.
    assert!((22..=24).contains(&checked), "{checked} signatures were checked");
    assert_eq!(spared, 3_000 - checked);
    assert_eq!(budget.counts(), (checked, spared));

    // Somewhere else nobody notices.
    assert_eq!(send(&service, from("192.0.2.1", &good("elsewhere"))).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn while_it_is_empty_unknown_credentials_of_that_source_wait() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_source(Quota::per_minute(6).burst(3)).unwrap();
    let service = guarded(&budget, &clock);
    for number in 0..3 {
        let refused = send(&service, from(NAT, &forged(number, ""))).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert!(refused.headers().contains_key("www-authenticate"));
    }
    for token in [good("new"), forged(9, "k")] {
        let refused = send(&service, from(NAT, &token)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "10");
        assert!(!refused.headers().contains_key("www-authenticate"), "the credential was not looked at");
        assert!(!refused.headers().contains_key("ratelimit"), "it is no quota of anybody's");
    }
    clock.advance(Duration::from_secs(9));
    assert_eq!(send(&service, from(NAT, &good("new"))).await.status(), StatusCode::TOO_MANY_REQUESTS);
    clock.advance(Duration::from_secs(1));
    let token = good("new");
    assert_eq!(send(&service, from(NAT, &token)).await.status(), StatusCode::OK, "what is good takes nothing");
    assert_eq!(send(&service, from(NAT, &good("newer"))).await.status(), StatusCode::OK);
    assert_eq!(send(&service, from(NAT, &forged(10, "k"))).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(&service, from(NAT, &good("newest"))).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(send(&service, from(NAT, &token)).await.status(), StatusCode::OK, "it is known by now");
}

#[tokio::test]
async fn a_victim_that_is_only_named_is_not_shut_out() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_key(Quota::per_minute(6).burst(3)).unwrap();
    let service = guarded(&budget, &clock);
    // Forged tokens of the victim's subject and of its key id, from an address of the attacker's.
    for number in 0..1_000 {
        send(&service, from("203.0.113.66", &forged(number, "victims-key"))).await;
    }
    let header = header("victims-key");
    let claims = claims_but("sub", "\"alice\"");
    let token = token(Algorithm::HS256, &header, &claims);
    assert_eq!(send(&service, from(NAT, &token)).await.status(), StatusCode::OK, "nothing is counted elsewhere");
    assert_eq!(send(&service, from(NAT, &good("alice"))).await.status(), StatusCode::OK);

    // At the attacker's address, another key id is not touched before the source's budget is used up.
    assert_eq!(send(&service, from("203.0.113.66", &good("other"))).await.status(), StatusCode::OK);
    assert_eq!(
        send(&service, from("203.0.113.66", &forged(1, "victims-key"))).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test]
async fn what_costs_nothing_does_not_count() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_source(Quota::per_hour(1)).unwrap();
    let service = guarded(&budget, &clock);
    let header = HEADER.replace("ES256", "HS256");
    let token = |claims: &str| token(Algorithm::HS256, &header, claims);
    let expired = token(&claims_but("exp", "1700000100"));
    let stranger = token(&claims_but("iss", "\"https://evil.example\""));
    let others = token(&claims_but("aud", "\"other-api\""));
    let unknown = forged(1, "no-such-key");
    let longer = HEADER.replace("ES256", "HS384").replace('}', r#","kid":"k"}"#);
    let of_another_algorithm = crate::token(Algorithm::HS384, &longer, CLAIMS);
    for bad in [
        unknown.as_str(),
        &of_another_algorithm,
        &expired,
        &stranger,
        &others,
        "a.b.c",
        "....",
        &CLAIMS.replace(['{', '}', '"', ',', ':'], "."),
    ] {
        for _ in 0..50 {
            let status = send(&service, from(NAT, bad)).await.status();
            assert!([StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST].contains(&status), "{bad}: {status}");
        }
    }
    assert_eq!(budget.counts(), (0, 0));
    assert_eq!(send(&service, from(NAT, &good("alice"))).await.status(), StatusCode::OK);
}

/// A key without an id answers to any id: a made-up one is checked with it, and that costs.
#[tokio::test]
async fn a_made_up_key_id_costs_where_a_key_has_none() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_source(Quota::per_hour(3)).unwrap();
    let service = guarded_with(keys(key(Algorithm::HS256)), &budget, &clock);
    for number in 0..50 {
        let expected = if number < 3 { StatusCode::UNAUTHORIZED } else { StatusCode::TOO_MANY_REQUESTS };
        let bad = forged(number, &format!("made-up-{number}"));
        assert_eq!(send(&service, from(NAT, &bad)).await.status(), expected, "{number}");
    }
    assert_eq!(budget.counts(), (3, 47));
}

/// Keys of which newer ones may be had.
#[derive(Clone, Debug)]
struct Moving {
    now: Arc<Mutex<(KeySet, u64)>>,
    next: Option<KeySet>,
    /// None: the origin never answers.
    refresh: Option<Refresh>,
}

#[async_trait]
impl KeySource for Moving {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        let (keys, generation) = self.now.lock().unwrap().clone();
        Ok(KeySnapshot::new(keys, generation))
    }

    async fn refresh_for(&self, _: Option<&str>, _: u64, _: Instants) -> Refresh {
        if let Some(next) = &self.next {
            *self.now.lock().unwrap() = (next.clone(), 2);
        }
        match &self.refresh {
            Some(refresh) => refresh.clone(),
            None => std::future::pending().await,
        }
    }

    fn health(&self, _: Instants) -> KeyHealth {
        KeyHealth::ready(1)
    }
}

/// A signature that is bad by the keys there are may be good by those that replace them. Once they did not, it counts.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_rotated_in_costs_nothing() {
    let (away, rotated) =
        (Refresh::Unavailable(KeysUnavailable::new("away", Duration::from_secs(1))), header("rotated"));
    let good = token(Algorithm::HS256, &rotated, CLAIMS);
    let strangers = || {
        let stranger = |algorithm| Key::hmac(algorithm, Secret::new(vec![9; 64])).unwrap();
        KeySet::new([stranger(Algorithm::HS256), stranger(Algorithm::HS384)]).unwrap()
    };
    let new = KeySet::new([key(Algorithm::HS256).with_id("rotated"), key(Algorithm::HS384)]).unwrap();
    let rows = [
        ("rotated", Some(new.clone()), Some(Refresh::LookAgain), good.clone(), 200, 0),
        ("forged with the id of a new key", Some(new), Some(Refresh::LookAgain), forged(1, "rotated"), 401, 1),
        ("of no key", Some(strangers()), Some(Refresh::LookAgain), good.clone(), 401, 1),
        ("nothing new", None, Some(Refresh::NothingNew), good.clone(), 401, 1),
        ("nobody says", None, Some(away), good.clone(), 503, 1),
        ("its client goes away", None, None, good, 0, 1),
    ];
    for (name, next, refresh, token, status, count) in rows {
        let budget = FailureBudget::new();
        let keys = Moving { now: Arc::new(Mutex::new((strangers(), 1))), next, refresh };
        let clock = Hands::default();
        let service = guarded_with(keys, &budget, &clock);
        let response = tokio::time::timeout(Duration::from_secs(10), send(&service, from(NAT, &token))).await;
        assert_eq!(response.map_or(0, |response| response.status().as_u16()), status, "{name}");
        assert_eq!(budget.counts(), (count, 0), "{name}");
    }
}

#[tokio::test]
async fn networks_of_ipv6_share_a_budget_and_their_site_has_one_around_it() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_source(Quota::per_hour(2)).unwrap();
    let service = guarded(&budget, &clock);
    let mut checked = 0;
    for number in 0..200 {
        let address = format!("2001:db8:1:{:x}::{number:x}", number / 4);
        if send(&service, from(&address, &forged(number, ""))).await.status() == 401 {
            checked += 1;
        }
    }
    assert_eq!(checked, 32, "two for each /64, and sixteen times two for their /48");
    assert_eq!(send(&service, from("2001:db8:2::1", &good("alice"))).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_an_address_nobody_is_counted() {
    let clock = Hands::default();
    let budget = FailureBudget::new().per_source(Quota::per_hour(1)).unwrap();
    let service = guarded(&budget, &clock);
    for number in 0..10 {
        let mut request = from(NAT, &forged(number, "k"));
        request.extensions_mut().insert(Connection::unaddressed());
        assert_eq!(send(&service, request).await.status(), StatusCode::UNAUTHORIZED);
    }
}

/// A client can bring it about that a proxy at a Unix socket tells no address of it.
#[tokio::test]
async fn whom_a_trusted_proxy_tells_no_address_of_are_one_source() {
    let many = vec!["192.0.2.1"; 65].join(", ");
    let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
    for (name, trusted, fields, counted) in [
        ("malformed", true, &[("x-forwarded-for", "?"), ("x-forwarded-for", &*many)][..], (3, 7)),
        ("taken away", true, &[("x-other", "1")], (3, 7)),
        ("both", true, &[("x-forwarded-for", "?"), ("x-other", "1")], (3, 7)),
        ("a socket that is not trusted", false, &[("x-forwarded-for", "?"), ("x-other", "1")], (0, 0)),
    ] {
        let budget = FailureBudget::new().per_source(Quota::per_hour(3)).unwrap();
        let clock = Hands::default();
        let proxies = if trusted { proxies.clone().and_unix_sockets() } else { proxies.clone() };
        let authn = AuthnLayer::new(jwt(keys(key(Algorithm::HS384).with_id("longer")))).dangerous_plain_http();
        let service = authn.with_failure_budget(budget.clone()).layer(Probe::default());
        let service = EvidenceLayer::new(proxies).with_clock(clock).layer(service);
        let through = |number: usize, field: &str, value: &str| {
            let mut request = from(NAT, &forged(number, "k"));
            request.headers_mut().insert(http::HeaderName::try_from(field).unwrap(), value.parse().unwrap());
            request.extensions_mut().insert(Connection::unix_socket());
            request
        };
        let mut refused = 0;
        for number in 0..10 {
            let (field, value) = fields[number % fields.len()];
            let status = send(&service, through(number, field, value)).await.status();
            refused += u64::from(status == StatusCode::TOO_MANY_REQUESTS);
        }
        assert_eq!(budget.counts(), counted, "{name}");
        assert_eq!(refused, counted.1, "{name}");
        // Who has an address is not shut out by those.
        let status = send(&service, through(11, "x-forwarded-for", "192.0.2.7")).await.status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
    }
}

/// A store of API keys that has to be waited for, and counts how often.
#[derive(Debug)]
struct Remote {
    keys: Arc<MemoryKeyStore>,
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl ApiKeyStore for Remote {
    async fn find(&self, lookup: Lookup) -> Found {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.keys.find(lookup).await
    }
}

fn with_key(address: &str, key: &str) -> Request<()> {
    let mut request = from(address, "x");
    request.headers_mut().remove("authorization");
    request.headers_mut().insert("x-api-key", key.parse().unwrap());
    request
}

/// Who forgot to serve with `ConnectInfo` would have no budget, and not know it.
#[tokio::test]
async fn a_request_without_a_connection_is_refused_as_limits_do() {
    let at = Hands::default().now();
    let keys = Arc::new(MemoryKeyStore::new());
    let (good, _) = NewApiKey::for_subject("billing").issue(&keys, at).await.unwrap();
    let remote = Remote { keys, asked: Arc::default() };
    let (budget, probe) = (FailureBudget::new(), Probe::default());
    let layer = AuthnLayer::new(one_of((jwt(self::keys(key(Algorithm::HS384))), ApiKeyAuthenticator::new(remote))));
    let layer = layer.dangerous_plain_http().allow_anonymous();
    let service = layer.clone().with_failure_budget(budget.clone()).layer(probe.clone());
    let without = |mut request: Request<()>| {
        request.extensions_mut().remove::<Connection>();
        request
    };
    let anonymous = || Request::get("/orders").body(()).unwrap();
    for (name, request) in [
        ("forged", without(from(NAT, &forged(1, "k")))),
        ("good", without(from(NAT, &self::good("alice")))),
        ("one that waits", without(with_key(NAT, good.expose()))),
        ("anonymous", anonymous()),
    ] {
        let response = send(&service, request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{name}");
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::Misconfigured, "{name}");
    }
    assert_eq!((budget.counts(), probe.seen.calls()), ((0, 0), 0));
    let plain = layer.layer(Probe::default());
    assert_eq!(send(&plain, anonymous()).await.status(), StatusCode::OK, "a layer without a budget needs none");
    let mut socket = from(NAT, &self::good("alice"));
    socket.extensions_mut().insert(Connection::unix_socket());
    assert_eq!(send(&service, socket).await.status(), StatusCode::OK, "one that has no address is known");
}

#[tokio::test]
async fn look_ups_of_api_keys_draw_on_it() {
    let at = Hands::default().now();
    let (keys, asked) = (Arc::new(MemoryKeyStore::new()), Arc::new(AtomicU64::new(0)));
    let issue = async |subject: &str| {
        let (shown, _) = NewApiKey::for_subject(subject).issue(&keys, at).await.unwrap();
        shown.expose().to_owned()
    };
    let good = issue("billing").await;
    // Two years ago, for one.
    let long_ago = Instants::new((NOW - 2 * 366 * 86_400) * 1_000_000_000, 0);
    let (ended, _) = NewApiKey::for_subject("old").issue(&keys, long_ago).await.unwrap();
    let others = Arc::new(MemoryKeyStore::new());
    let budget = FailureBudget::new().per_source(Quota::per_hour(5)).unwrap();
    let remote = Remote { keys: Arc::clone(&keys), asked: Arc::clone(&asked) };
    let layer = AuthnLayer::new(ApiKeyAuthenticator::new(remote)).dangerous_plain_http();
    let service = layer.with_failure_budget(budget.clone()).layer(Probe::default());

    for _ in 0..20 {
        assert_eq!(send(&service, with_key(NAT, ended.expose())).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(send(&service, with_key(NAT, &good)).await.status(), StatusCode::OK);
    }
    assert_eq!(budget.counts(), (0, 0), "what ended is nobody's attack");
    let before = asked.load(Ordering::SeqCst);
    for number in 0..50 {
        let (unknown, _) = NewApiKey::for_subject("x").issue(&others, at).await.unwrap();
        let expected = if number < 5 { StatusCode::UNAUTHORIZED } else { StatusCode::TOO_MANY_REQUESTS };
        let response = send(&service, with_key(NAT, unknown.expose())).await;
        assert_eq!(response.status(), expected, "{number}");
        let rejection = response.extensions().get::<Rejection>().unwrap();
        let expected = if number < 5 { RejectionKind::InvalidCredential } else { RejectionKind::RateLimited };
        assert_eq!(rejection.kind(), expected);
    }
    assert_eq!(asked.load(Ordering::SeqCst) - before, 5, "the store was asked five times");
    assert_eq!(send(&service, with_key("192.0.2.1", &good)).await.status(), StatusCode::OK);

    // A store in memory has nothing to spare.
    let layer = AuthnLayer::new(ApiKeyAuthenticator::new(keys)).dangerous_plain_http();
    let service = layer.with_failure_budget(budget).layer(Probe::default());
    assert_eq!(send(&service, with_key(NAT, &good)).await.status(), StatusCode::OK);
}

/// What a store says once it is asked.
#[derive(Debug)]
struct Says {
    /// None: it never answers.
    answer: Option<Found>,
    remembers: bool,
}

#[async_trait]
impl ApiKeyStore for Says {
    async fn find(&self, _: Lookup) -> Found {
        tokio::task::yield_now().await;
        match &self.answer {
            Some(Ok(hit)) => Ok(hit.clone()),
            Some(Err(error)) => Err(StoreError::new(error.kind(), "says")),
            None => std::future::pending().await,
        }
    }

    fn remembers(&self, _: &KeyId) -> bool {
        self.remembers
    }
}

fn is_ready(future: Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A store finishes what it was asked; whoever hangs up before pays as whoever waits.
#[tokio::test]
async fn a_look_up_that_is_not_waited_for_counts_as_one_in_vain() {
    let at = Hands::default().now();
    let keys = MemoryKeyStore::new();
    let (key, record) = NewApiKey::for_subject("billing").issue(&keys, at).await.unwrap();
    let (other, stranger) = NewApiKey::for_subject("x").issue(&keys, at).await.unwrap();
    let found = |record: &ApiKeyRecord| Some(Ok(Some(Hit::new(record.clone().into()))));
    let failed = |kind| Some(Err(StoreError::new(kind, "says")));
    for (name, answer, remembers, text, counted) in [
        ("hangs up", None, false, key.expose(), 1),
        ("hangs up, and the key is remembered", None, true, key.expose(), 0),
        ("unknown", Some(Ok(None)), false, key.expose(), 1),
        ("unknown by now, and remembered", Some(Ok(None)), true, key.expose(), 1),
        ("wrong secret", found(&record), false, other.expose(), 1),
        ("good", found(&record), false, key.expose(), 0),
        ("good, of another id", found(&stranger), false, other.expose(), 0),
        ("the store is away", failed(StoreErrorKind::Unavailable), false, key.expose(), 0),
        ("the store has enough", failed(StoreErrorKind::Throttled), false, key.expose(), 0),
        ("the record is broken", failed(StoreErrorKind::Corrupt), false, key.expose(), 0),
    ] {
        let budget = FailureBudget::new();
        let layer = AuthnLayer::new(ApiKeyAuthenticator::new(Says { answer, remembers })).dangerous_plain_http();
        let service = layer.with_failure_budget(budget.clone()).layer(Probe::default());
        let mut answer = Box::pin(send(&service, with_key(NAT, text)));
        let hangs_up = name.starts_with("hangs up");
        let polls = if hangs_up { 1 } else { 10 };
        let answered = (0..polls).any(|_| is_ready(answer.as_mut()));
        assert_eq!(answered, !hangs_up, "{name}");
        assert_eq!(budget.counts().0, if answered { counted } else { 0 }, "{name}");
        drop(answer);
        assert_eq!(budget.counts(), (counted, 0), "{name}: once");
    }

    // Hanging up is no way past a budget that is empty.
    let budget = FailureBudget::new().per_source(Quota::per_hour(3)).unwrap();
    let layer = AuthnLayer::new(ApiKeyAuthenticator::new(Says { answer: None, remembers: false }));
    let service = layer.dangerous_plain_http().with_failure_budget(budget.clone()).layer(Probe::default());
    for _ in 0..10 {
        let mut request = Box::pin(send(&service, with_key(NAT, key.expose())));
        let _ = is_ready(request.as_mut());
    }
    assert_eq!(budget.counts(), (3, 7));
}

/// What a cache remembers and has to ask for again is no guess, whatever the neighbours do.
#[tokio::test]
async fn a_key_that_is_remembered_passes_while_neighbours_guess() {
    let clock = Hands::default();
    let (keys, asked) = (Arc::new(MemoryKeyStore::new()), Arc::new(AtomicU64::new(0)));
    let others = Arc::new(MemoryKeyStore::new());
    let issue = async |store: &Arc<MemoryKeyStore>| {
        let (shown, _) = NewApiKey::for_subject("billing").issue(store, clock.now()).await.unwrap();
        shown.expose().to_owned()
    };
    let (good, never_seen) = (issue(&keys).await, issue(&keys).await);
    let store = Cached::new(Remote { keys, asked: Arc::clone(&asked) });
    let budget = FailureBudget::new().per_source(Quota::per_hour(5)).unwrap();
    let layer = AuthnLayer::new(ApiKeyAuthenticator::new(store)).dangerous_plain_http().with_failure_budget(budget);
    let layer = layer.with_clock(clock.clone());
    let evidence = EvidenceLayer::new(TrustedProxies::none()).with_clock(clock.clone());
    let service = evidence.layer(layer.layer(Probe::default()));

    assert_eq!(send(&service, with_key(NAT, &good)).await.status(), StatusCode::OK);
    for number in 0..20 {
        let response = send(&service, with_key(NAT, &issue(&others).await)).await;
        let expected = if number < 5 { StatusCode::UNAUTHORIZED } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(response.status(), expected, "{number}");
    }
    clock.advance(Duration::from_secs(60));
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(send(&service, with_key(NAT, &good)).await.status(), StatusCode::OK);
    assert_eq!(asked.load(Ordering::SeqCst), before + 1, "it was asked for again");
    assert_eq!(
        send(&service, with_key(NAT, &never_seen)).await.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "one that nobody used before is as a guess"
    );
}

/// A request that has to wait for one authenticator pays once for what another one found at once.
#[tokio::test]
async fn a_bad_token_beside_a_key_that_is_looked_up_counts_once() {
    let at = Hands::default().now();
    let (keys, asked) = (Arc::new(MemoryKeyStore::new()), Arc::new(AtomicU64::new(0)));
    let (good, _) = NewApiKey::for_subject("shop").issue(&keys, at).await.unwrap();
    let (unknown, _) = NewApiKey::for_subject("x").issue(&Arc::new(MemoryKeyStore::new()), at).await.unwrap();
    let remote = || ApiKeyAuthenticator::new(Remote { keys: Arc::clone(&keys), asked: Arc::clone(&asked) });
    let tokens = jwt(self::keys(key(Algorithm::HS384).with_id("longer")));
    let layer = AuthnLayer::new(both(remote(), tokens)).dangerous_plain_http();
    let both_bring = |key: &str, token: &str| {
        let mut request = from(NAT, token);
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        request
    };
    for (name, key, token, looked_up) in [
        ("a good key, a forged token", &good, forged(1, ""), 1),
        ("an unknown key, a forged token", &unknown, forged(2, ""), 1),
        ("an unknown key", &unknown, self::good("alice"), 1),
    ] {
        // Room for one: a second would be `429`.
        let budget = FailureBudget::new().per_source(Quota::per_hour(1)).unwrap();
        let service = layer.clone().with_failure_budget(budget.clone()).layer(Probe::default());
        let before = asked.load(Ordering::SeqCst);
        let response = send(&service, both_bring(key.expose(), &token)).await;
        assert_eq!((response.status(), budget.counts()), (StatusCode::UNAUTHORIZED, (1, 0)), "{name}");
        assert_eq!(asked.load(Ordering::SeqCst) - before, looked_up, "{name}");
        assert_eq!(send(&service, both_bring(good.expose(), &self::good("bob"))).await.status(), 429, "{name}");
    }

    // A forged cookie, which a good key outweighs.
    let place = || CookiePlace::new("__Host-session", CsrfRules::same_origin()).unwrap();
    let tokens = || {
        let profile = Issuer::fixed(ISSUER, KeySet::new([key(Algorithm::HS256)]).unwrap()).access_tokens(AUDIENCE);
        let builder = JwtAuthenticator::builder().issuer(profile.algorithms([Algorithm::HS256])).cookie(place());
        builder.build().unwrap()
    };
    let budget = FailureBudget::new().per_source(Quota::per_hour(2)).unwrap();
    let layer = AuthnLayer::new(one_of((tokens(), remote()))).dangerous_plain_http();
    let service = layer.with_failure_budget(budget.clone()).layer(Probe::default());
    let mut request = with_key(NAT, good.expose());
    request.headers_mut().insert("cookie", format!("__Host-session={}", forged(3, "")).parse().unwrap());
    assert_eq!(send(&service, request).await.status(), StatusCode::OK);
    assert_eq!(budget.counts(), (1, 0), "counted once");
    let mut request = with_key(NAT, unknown.expose());
    request.headers_mut().insert("cookie", format!("__Host-session={}", forged(4, "")).parse().unwrap());
    assert_eq!(send(&service, request).await.status(), 429, "each credential is counted");
    assert_eq!(budget.counts(), (2, 1));
}

#[test]
fn bad_settings_are_named() {
    assert!(FailureBudget::new().per_source(Quota::per_hour(0)).is_err());
    assert!(FailureBudget::new().per_key(Quota::per_hour(1).burst(0)).is_err());
    assert!(FailureBudget::default().with_capacity(0).is_err());
    let nobody = Stack::builder().failure_budget(FailureBudget::new()).fallback(portcullis::guard::public()).build();
    assert!(nobody.unwrap_err().to_string().starts_with("failure_budget: "));
}

/// Looks a key up in a store that answers when it is told to.
#[derive(Clone, Debug)]
struct Held {
    good: bool,
    /// How many look-ups wait.
    waiting: Arc<AtomicU64>,
    answers: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl Authenticator for Held {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new("Held", "tests").unwrap()]
    }

    async fn authenticate(&self, head: &RequestHead<'_>, _: Instants) -> Outcome {
        if let Err(rejection) = head.attempt().before(None) {
            return rejection.into();
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.answers.acquire().await.unwrap().forget();
        if self.good {
            return Outcome::verified(Principal::builder(PrincipalKind::Service, "tests", "gateway", "held").build());
        }
        head.attempt().failed(None);
        Rejection::new(RejectionKind::InvalidCredential, "unknown").into()
    }
}

/// What fails a second after it came is taken from what the budget is by then: slow look-ups are not free.
#[tokio::test]
async fn failures_count_however_long_they_take() {
    let hands = Hands::default();
    let budget = || FailureBudget::new().per_source(Quota::per_minute(60).burst(3)).unwrap();
    let held = Held { good: false, waiting: Arc::default(), answers: Arc::new(tokio::sync::Semaphore::new(0)) };
    let stack = Stack::builder().clock(hands.clone()).dangerous_plain_http().authenticate(held.clone());
    let stack = stack.failure_budget(budget()).fallback(require(authenticated())).build().unwrap();
    let app = stack.protect(Probe::default());
    let mut tried = 0;
    for expected in [[401; 10], [429; 10]] {
        let requests: Vec<_> = (0..10)
            .map(|_| {
                let app = app.clone();
                tokio::spawn(async move { send(&app, from(NAT, "x")).await.status().as_u16() })
            })
            .collect();
        tried += if expected[0] == 401 { 10 } else { 0 };
        // Those that are refused do not wait.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.waiting.load(Ordering::SeqCst), tried);
        hands.advance(Duration::from_secs(1));
        held.answers.add_permits(10);
        for (request, expected) in requests.into_iter().zip(expected) {
            assert_eq!(request.await.unwrap(), expected);
        }
    }
}

/// Knows at once who says `x-known`, and looks others up.
#[derive(Clone, Debug)]
struct HeldUnlessKnown(Held);

#[async_trait]
impl Authenticator for HeldUnlessKnown {
    fn challenges(&self) -> Vec<Challenge> {
        self.0.challenges()
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, _: Instants) -> Now<Outcome> {
        if !head.headers().contains_key("x-known") {
            return Now::Wait;
        }
        Now::Known(Outcome::verified(Principal::builder(PrincipalKind::Service, "tests", "gateway", "held").build()))
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.authenticate_now(head, at) {
            Now::Known(outcome) => outcome,
            Now::Wait => self.0.authenticate(head, at).await,
        }
    }
}

/// A request whose look-up took longer than the quota needs to be whole again is not counted as if it had come before.
#[tokio::test]
async fn limits_inside_go_by_the_time_after_a_slow_look_up() {
    let hands = Hands::default();
    let held = Held { good: true, waiting: Arc::default(), answers: Arc::new(tokio::sync::Semaphore::new(0)) };
    let authenticator = HeldUnlessKnown(held.clone());
    let stack = Stack::builder().clock(hands.clone()).dangerous_plain_http().authenticate(authenticator);
    let stack = stack.limit(RateLimitLayer::per_principal(Quota::per_second(1)).unwrap());
    let app = stack.fallback(require(authenticated())).build().unwrap().protect(Probe::default());
    let other = app.clone();
    let slow = tokio::spawn(async move { send(&other, from(NAT, "x")).await });
    while held.waiting.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    hands.advance(Duration::from_secs(10));
    let mut known = from(NAT, "x");
    known.headers_mut().insert("x-known", "1".parse().unwrap());
    assert_eq!(send(&app, known).await.status(), 200);
    hands.advance(Duration::from_secs(5));
    held.answers.add_permits(1);
    assert_eq!(slow.await.unwrap().status(), 200, "one in five seconds");
}

/// Counts in memory; while it `waits`, it has to be waited for.
#[derive(Clone, Debug)]
struct SlowLimits {
    waits: Arc<AtomicBool>,
    answers: Arc<tokio::sync::Semaphore>,
    inner: Arc<MemoryLimits>,
}

#[async_trait]
impl RateLimitStore for SlowLimits {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        if self.waits.load(Ordering::SeqCst) { Now::Wait } else { self.inner.take_now(draw, at) }
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        self.answers.acquire().await.unwrap().forget();
        self.inner.take(draw, at).await
    }
}

/// Neither the next limit of the same stage nor the budget inside it counts a request that waited as one of before.
#[tokio::test]
async fn what_comes_after_a_slow_limit_goes_by_the_time_after_it() {
    let hands = Hands::default();
    let (waits, answers) = (Arc::new(AtomicBool::new(true)), Arc::new(tokio::sync::Semaphore::new(0)));
    let store =
        SlowLimits { waits: Arc::clone(&waits), answers: Arc::clone(&answers), inner: Arc::new(MemoryLimits::new()) };
    let slow = RateLimitLayer::per_client(Quota::per_hour(9)).unwrap().with_scope("slow").unwrap().with_store(store);
    let bad = authenticate_fn(Challenge::new("Test", "tests").unwrap(), |head, _| {
        if let Err(rejection) = head.attempt().before(None) {
            return rejection.into();
        }
        head.attempt().failed(None);
        Rejection::new(RejectionKind::InvalidCredential, "bad").into()
    });
    let budget = FailureBudget::new().per_source(Quota::per_second(1)).unwrap();
    let stack = Stack::builder().clock(hands.clone()).dangerous_plain_http().authenticate(bad).failure_budget(budget);
    let stack = stack.limit(slow).limit(RateLimitLayer::per_client(Quota::per_second(1)).unwrap());
    let app = stack.fallback(require(authenticated())).build().unwrap().protect(Probe::default());
    let other = app.clone();
    let first = tokio::spawn(async move { send(&other, from(NAT, "x")).await });
    tokio::task::yield_now().await;
    waits.store(false, Ordering::SeqCst);
    hands.advance(Duration::from_secs(10));
    assert_eq!(send(&app, from(NAT, "x")).await.status(), 401);
    assert_eq!(send(&app, from(NAT, "x")).await.status(), 429, "the next one in this second");
    hands.advance(Duration::from_secs(5));
    answers.add_permits(1);
    assert_eq!(first.await.unwrap().status(), 401, "one in five seconds");
}

/// It is a budget for failures and no limit on look-ups at the same time; those count that fail.
#[tokio::test]
async fn what_is_under_way_at_the_same_time_is_tried_and_counts() {
    let budget = FailureBudget::new().per_source(Quota::per_day(20)).unwrap();
    for (good, status, failed) in [(true, 200, 0), (false, 401, 150)] {
        let held = Held { good, waiting: Arc::default(), answers: Arc::new(tokio::sync::Semaphore::new(0)) };
        let app = AuthnLayer::new(held.clone()).dangerous_plain_http().with_failure_budget(budget.clone());
        let app = app.layer(Probe::default());
        let requests: Vec<_> = (0..150)
            .map(|_| {
                let app = app.clone();
                tokio::spawn(async move { send(&app, from(NAT, "x")).await.status().as_u16() })
            })
            .collect();
        while held.waiting.load(Ordering::SeqCst) < 150 {
            tokio::task::yield_now().await;
        }
        held.answers.add_permits(150);
        for request in requests {
            assert_eq!(request.await.unwrap(), status, "none is refused for those beside it");
        }
        assert_eq!(budget.counts(), (failed, 0));
    }
    let held = Held { good: true, waiting: Arc::default(), answers: Arc::new(tokio::sync::Semaphore::new(1)) };
    let app = AuthnLayer::new(held).dangerous_plain_http().with_failure_budget(budget.clone()).layer(Probe::default());
    assert_eq!(send(&app, from(NAT, "x")).await.status(), StatusCode::TOO_MANY_REQUESTS, "the budget is used up");
}
