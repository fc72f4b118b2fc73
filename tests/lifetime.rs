//! What outlasts its request ends with the credential: at its expiry, when it is revoked, and while nobody can say.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response, Sse, sse},
    routing::get,
};
use http::{StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use mint::{AUDIENCE, HEADER, ISSUER, P256_OF_ANOTHER, key, token};
use portcullis::{
    Clock, Connection, Ended, Instants, Now, Principal, PrincipalKind, Rejection, TlsVersion, Voucher,
    api_key::{ApiKeyAdmin, ApiKeyAuthenticator, KeyLife, MemoryKeyStore, NewApiKey, Owner},
    audit::{AuditEntry, AuditLayer},
    authn::{AuthnLayer, one_of},
    conformance,
    event::EventKind,
    guard::{authenticated, public, require},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, Key, KeySet,
        keys::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh},
    },
    lifetime::Lifetime,
    revocation::{MemoryRevocations, Revocation, RevocationLimits, RevocationState, RevocationStore},
    stack::{Stack, StackBuilder},
    testing::{Captured, TestClock},
};
use support::{NOW, text};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tokio_stream::StreamExt;
use tower::{Layer, ServiceExt};

/// Good until an hour from now, and a minute of leeway.
const CLAIMS: &str = r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":1800003600,"iat":1799999990,"client_id":"web","jti":"t-1","sid":"s-1"}"#;
const EXPIRY: u64 = 3_600 + 60;

fn jwt(store: &Arc<MemoryRevocations>) -> JwtAuthenticator {
    let keys = KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer).revocations(Arc::clone(store)).build().unwrap()
}

fn bearer(path: &str) -> Request {
    let token = token(Algorithm::ES256, HEADER, CLAIMS);
    let mut request =
        Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    request
}

/// A number each second, without end.
fn ticks() -> impl tokio_stream::Stream<Item = u64> + Send + 'static {
    struct Ticks(u64, Pin<Box<tokio::time::Sleep>>);
    impl tokio_stream::Stream for Ticks {
        type Item = u64;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
            std::task::ready!(self.1.as_mut().poll(cx));
            let next = self.1.deadline() + Duration::from_secs(1);
            self.1.as_mut().reset(next);
            self.0 += 1;
            Poll::Ready(Some(self.0))
        }
    }
    Ticks(0, Box::pin(tokio::time::sleep(Duration::ZERO)))
}

/// Answers, and then nothing for ever: what a quiet stream of events looks like.
fn quiet() -> impl tokio_stream::Stream<Item = u64> + Send + 'static {
    tokio_stream::iter([0]).chain(tokio_stream::pending())
}

fn events<S: tokio_stream::Stream<Item = u64> + Send + 'static>(numbers: S) -> Response {
    Sse::new(numbers.map(|number| Ok::<_, Infallible>(sse::Event::default().data(number.to_string())))).into_response()
}

fn raw(content_type: &'static str) -> Response {
    let body = Body::from_stream(ticks().map(|number| Ok::<_, Infallible>(Bytes::from(format!("{number}\n")))));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn router() -> Router {
    Router::new()
        .route("/events", get(async || events(ticks())))
        .route("/quiet", get(async || events(quiet())))
        .route("/public", get(async || events(ticks())))
        .route("/grpc", get(async || raw("application/grpc+proto")))
        .route("/grpc-web", get(async || raw("application/grpc-web")))
        .route("/download", get(async || raw("application/octet-stream")))
}

struct World {
    store: Arc<MemoryRevocations>,
    clock: TestClock,
    audit: Captured,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::new(MemoryRevocations::new()), clock: TestClock::at_unix(NOW), audit: Captured::new() }
    }

    fn stack(&self) -> StackBuilder {
        Stack::builder()
            .dangerous_plain_http()
            .clock(self.clock.clone())
            .authenticate(jwt(&self.store))
            .route("GET /public", public())
            .route("GET /events", require(authenticated()))
            .route("GET /quiet", require(authenticated()))
            .route("GET /socket", require(authenticated()))
            .fallback(require(authenticated()))
    }

    async fn revoke(&self) {
        self.store.revoke(&Revocation::subject(ISSUER, "alice", NOW).unwrap(), self.clock.now()).await.unwrap();
    }

    /// Why exchanges ended, as the audit trail has it.
    fn causes(&self) -> Vec<(String, String, bool)> {
        // The events of other tests are heard as well.
        let own: Vec<_> = self.audit.records().iter().map(|record| Some(record.request_id())).collect();
        let mut causes = Vec::new();
        for entry in self.audit.entries() {
            if let AuditEntry::Event(event) = entry
                && event.kind() == EventKind::ExchangeEnded
                && own.contains(&event.request_id())
            {
                let cause = event.details().find(|(name, _)| *name == "cause").unwrap().1.into_owned();
                causes.push((event.about().into_owned(), cause, event.by().is_some()));
            }
        }
        causes
    }
}

/// Reads on for as long as it takes, and gives up after two hours. The clock that the stack reads moves with tokio's.
async fn read(body: Body, clock: &TestClock) -> (Vec<Bytes>, Option<http::HeaderMap>, Option<Duration>) {
    let started = Instant::now();
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            clock.advance(Duration::from_secs(1));
        }
    };
    let reading = async {
        let (mut data, mut trailers, mut body) = (Vec::new(), None, body);
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(body.frame().await.is_none(), "over is over");
        (data, trailers)
    };
    let answer = timeout(Duration::from_secs(7_200), async {
        tokio::select! { answer = reading => answer, () = ticking => unreachable!() }
    });
    match answer.await {
        Ok((data, trailers)) => (data, trailers, Some(started.elapsed())),
        Err(_) => (Vec::new(), None, None),
    }
}

async fn ask(
    app: &(impl tower::Service<Request, Response = Response, Error = Infallible> + Clone),
    path: &str,
) -> Body {
    let response = app.clone().oneshot(bearer(path)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.into_body()
}

#[tokio::test(start_paused = true)]
async fn events_end_when_the_token_does_leeway_included() {
    for audited in [true, false] {
        for path in ["/events", "/quiet"] {
            let world = World::new();
            let stack = world.stack();
            let stack = if audited { stack.audit(AuditLayer::new(world.audit.clone())) } else { stack };
            let app = stack.build().unwrap().protect(router());
            let (data, trailers, took) = read(ask(&app, path).await, &world.clock).await;
            let took = took.unwrap_or_else(|| panic!("{path} goes on")).as_secs();
            assert!((EXPIRY..=EXPIRY + 1).contains(&took), "{path}: {took}");
            assert!(trailers.is_none() && !data.is_empty());
            if path == "/events" {
                assert!((3_655..=EXPIRY as usize + 1).contains(&data.len()), "{}", data.len());
            }
            if audited {
                assert_eq!(world.causes(), [(path.to_owned(), "expired".to_owned(), true)]);
            }
            // And a new request is refused, as it would have been a moment before.
            assert_eq!(app.oneshot(bearer(path)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_end_within_a_second_of_a_revocation() {
    for path in ["/events", "/quiet"] {
        let world = World::new();
        let app = world.stack().audit(AuditLayer::new(world.audit.clone())).build().unwrap().protect(router());
        let body = ask(&app, path).await;
        let revoked = async {
            tokio::time::sleep(Duration::from_millis(100_500)).await;
            world.revoke().await;
        };
        let ((.., took), ()) = tokio::join!(read(body, &world.clock), revoked);
        let took = took.unwrap_or_else(|| panic!("{path} goes on"));
        assert!(took >= Duration::from_millis(100_500) && took <= Duration::from_millis(101_600), "{path}: {took:?}");
        assert_eq!(world.causes(), [(path.to_owned(), "revoked".to_owned(), true)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_client_is_told_so_in_the_trailers() {
    let world = World::new();
    let app = world.stack().build().unwrap().protect(router());
    let body = ask(&app, "/grpc").await;
    world.revoke().await;
    let (data, trailers, _) = read(body, &world.clock).await;
    assert!(data.is_empty(), "nothing is handed out that comes after");
    let trailers = trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"16".parse().unwrap(), &"The credential is not accepted.".parse().unwrap())
    );
}

/// The answer to a call that was admitted, and whose work is done: a log-out, say. A stream is told from it by its second message,
/// or by what is not there yet.
#[tokio::test(start_paused = true)]
async fn a_grpc_answer_that_is_there_is_given() {
    const GRPC: &str = "application/grpc";
    let trailers = || Some(http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]));
    for (name, content_type, messages, end, ends, given, status) in [
        ("an answer", GRPC, &["done"][..], trailers(), true, &["done"][..], Some("0")),
        ("without trailers", GRPC, &["done"], None, true, &["done"], None),
        ("two messages", GRPC, &["one", "two"], trailers(), true, &[], Some("16")),
        ("the end is not there yet", GRPC, &["one"], None, false, &[], Some("16")),
        ("no gRPC", "text/event-stream", &["one"], None, true, &[], None),
    ] {
        let world = World::new();
        let store = Arc::clone(&world.store);
        let log_out = async move || {
            let at = Instants::new(NOW * 1_000_000_000, 0);
            store.revoke(&Revocation::subject(ISSUER, "alice", NOW).unwrap(), at).await.unwrap();
            let messages = messages.iter().map(|text| Frame::data(Bytes::from_static(text.as_bytes())));
            let frames = messages.chain(end.map(Frame::trailers)).map(Ok::<_, Infallible>);
            let rest = if ends { 0 } else { usize::MAX };
            let frames = tokio_stream::iter(frames).chain(tokio_stream::pending().take(rest));
            ([(header::CONTENT_TYPE, content_type)], Body::new(http_body_util::StreamBody::new(frames))).into_response()
        };
        let app = world.stack().build().unwrap().protect(router().route("/log-out", get(log_out)));
        let (data, trailers, took) = read(ask(&app, "/log-out").await, &world.clock).await;
        assert!(took.is_some(), "{name}: it goes on");
        assert_eq!(data, given, "{name}");
        let told = trailers.map(|trailers| trailers["grpc-status"].clone());
        assert_eq!(told, status.map(|status| status.parse().unwrap()), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_message_comes_before_the_error_behind_it() {
    for (name, ends, given) in [("it counts", NOW + 60, true), ("it ended", NOW - 60, false)] {
        let frames = [Ok(Frame::data(Bytes::from_static(b"one"))), Err("cut off")];
        let body = http_body_util::StreamBody::new(tokio_stream::iter(frames));
        let lifetime = Lifetime::of_principal(alice().expires_at(ends).build()).with_clock(TestClock::at_unix(NOW));
        let mut body = pin!(lifetime.limit_body(body).for_grpc());
        if given {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one", "{name}");
            assert_eq!(body.frame().await.unwrap().unwrap_err(), "cut off", "{name}");
        } else {
            assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["grpc-status"], "16", "{name}");
        }
        assert!(body.frame().await.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_to_end_goes_on() {
    let world = World::new();
    let app = world.stack().build().unwrap().protect(router());
    let outliving = world.stack().dangerous_streams_outlive_credentials().build().unwrap().protect(router());
    let mut anonymous = bearer("/public");
    anonymous.headers_mut().remove(header::AUTHORIZATION);
    let bodies = [
        ("by choice", ask(&outliving, "/events").await),
        ("by choice, gRPC", ask(&outliving, "/grpc").await),
        ("another type", ask(&app, "/download").await),
        ("trailers that the client would not read", ask(&app, "/grpc-web").await),
        ("anonymous", app.clone().oneshot(anonymous).await.unwrap().into_body()),
    ];
    world.revoke().await;
    for (name, body) in bodies {
        assert_eq!(read(body, &world.clock).await.2, None, "{name}");
    }
    // On a public route as well, who came with a credential is held to it.
    let fresh = World::new();
    let app = fresh.stack().build().unwrap().protect(router());
    let body = ask(&app, "/public").await;
    fresh.revoke().await;
    assert!(read(body, &fresh.clock).await.2.is_some());
}

/// A store that lost its connection.
#[derive(Debug)]
struct Fed(RevocationState);

#[async_trait::async_trait]
impl RevocationStore for Fed {
    fn state(&self) -> &RevocationState {
        &self.0
    }

    async fn revoke(&self, _: &Revocation, _: Instants) -> Result<(), portcullis::StoreError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_nothing_goes_on() {
    let (clock, state) = (TestClock::at_unix(NOW), RevocationState::fed(RevocationLimits::new()));
    state.confirm(clock.now());
    let keys = KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let jwt = JwtAuthenticator::builder().issuer(issuer).revocations(Fed(state.clone())).build().unwrap();
    let stack = Stack::builder().dangerous_plain_http().clock(clock.clone()).authenticate(jwt);
    let app = stack.fallback(require(authenticated())).build().unwrap().protect(router());
    let (_, trailers, took) = read(ask(&app, "/grpc").await, &clock).await;
    assert_eq!(trailers.unwrap()["grpc-status"], "14", "UNAVAILABLE: it may be tried again");
    let took = took.unwrap().as_secs();
    assert!((5..=6).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn keys_end_as_tokens_do() {
    let clock = TestClock::at_unix(NOW);
    let store = Arc::new(MemoryKeyStore::new());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let stack = Stack::builder().dangerous_plain_http().clock(clock.clone());
    let both = one_of((jwt(&Arc::new(MemoryRevocations::new())), keys));
    let app = stack.authenticate(both).fallback(require(authenticated())).build().unwrap().protect(router());
    for how in ["expired", "revoked", "owner disabled"] {
        let life = KeyLife::For(Duration::from_secs(30));
        let (key, record) = NewApiKey::for_subject(how).lives(life).mint(clock.now()).unwrap();
        store.insert(record.clone()).await.unwrap();
        let mut request = bearer("/quiet");
        request.headers_mut().remove(header::AUTHORIZATION);
        request.headers_mut().insert("x-api-key", key.expose().parse().unwrap());
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let revocation = portcullis::api_key::Revocation::new(clock.now().unix_seconds(), "lost").unwrap();
        match how {
            "revoked" => drop(store.revoke(record.id(), &revocation).await.unwrap()),
            "owner disabled" => drop(store.disable_owner(&Owner::new(how).unwrap(), &revocation).await.unwrap()),
            _ => {}
        }
        let took = read(response.into_body(), &clock).await.2.unwrap_or_else(|| panic!("{how}: goes on")).as_secs();
        let expected = if how == "expired" { 30..=31 } else { 0..=1 };
        assert!(expected.contains(&took), "{how}: {took}");
    }
}

/// Keys that an operator moves.
#[derive(Debug, Default)]
struct Moving(Mutex<Option<KeySnapshot>>);

impl Moving {
    fn set(&self, keys: impl IntoIterator<Item = Key>) {
        let mut held = self.0.lock().unwrap();
        let generation = held.as_ref().map_or(1, |held| held.generation() + 1);
        *held = Some(KeySnapshot::new(KeySet::new(keys).unwrap(), generation));
    }

    fn lose(&self) {
        *self.0.lock().unwrap() = None;
    }
}

#[async_trait::async_trait]
impl KeySource for Moving {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        self.0.lock().unwrap().clone().ok_or_else(|| KeysUnavailable::new("too old", Duration::from_secs(1)))
    }

    async fn refresh_for(&self, _: Option<&str>, _: u64, at: Instants) -> Refresh {
        self.snapshot(at).map_or_else(Refresh::Unavailable, |_| Refresh::NothingNew)
    }

    fn health(&self, _: Instants) -> KeyHealth {
        KeyHealth::ready(1)
    }
}

fn trusted() -> Key {
    key(Algorithm::ES256).with_id("k-1")
}

fn of_another() -> Key {
    Key::from_pem(Algorithm::ES256, P256_OF_ANOTHER.public_key_pem()).unwrap().with_id("k-2")
}

fn following(keys: impl KeySource, store: Option<&Arc<MemoryRevocations>>) -> JwtAuthenticator {
    let issuer = Issuer::with_keys(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let jwt = JwtAuthenticator::builder().issuer(issuer);
    store.map_or_else(|| jwt.clone(), |store| jwt.clone().revocations(Arc::clone(store))).build().unwrap()
}

/// A thief of the signing key has a token that ends far away; the operator takes the key out of the set.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_key_that_signed_its_token() {
    type Move = fn(&Moving);
    let until_expiry = EXPIRY..=EXPIRY + 1;
    let rows: [(&str, Move, Option<&str>, u16); 6] = [
        ("withdrawn", |keys| keys.set([of_another()]), Some("16"), 401),
        ("another key under its id", |keys| keys.set([of_another().with_id("k-1")]), Some("16"), 401),
        ("no keys that are trusted", Moving::lose, Some("14"), 503),
        ("refreshed, the same", |keys| keys.set([trusted()]), None, 200),
        ("a newer one beside it", |keys| keys.set([of_another(), trusted()]), None, 200),
        ("without its id", |keys| keys.set([key(Algorithm::ES256)]), None, 200),
    ];
    for revocations in [false, true] {
        for (name, change, ended, status) in &rows {
            let name = format!("{name}, revocations: {revocations}");
            let (world, keys) = (World::new(), Arc::new(Moving::default()));
            keys.set([trusted()]);
            let jwt = following(Arc::clone(&keys), revocations.then_some(&world.store));
            let stack = Stack::builder().dangerous_plain_http().clock(world.clock.clone()).authenticate(jwt);
            let stack = stack.audit(AuditLayer::new(world.audit.clone())).route("GET /grpc", require(authenticated()));
            let app = stack.fallback(require(authenticated())).build().unwrap().protect(router());
            // The second stream is of a token that was remembered.
            drop(ask(&app, "/grpc").await);
            let body = ask(&app, "/grpc").await;
            let moved = async {
                tokio::time::sleep(Duration::from_millis(100_500)).await;
                change(&keys);
                assert_eq!(
                    app.clone().oneshot(bearer("/download")).await.unwrap().status().as_u16(),
                    *status,
                    "{name}"
                );
            };
            let ((_, trailers, took), ()) = tokio::join!(read(body, &world.clock), moved);
            let (trailers, took) = (trailers.unwrap(), took.unwrap());
            assert_eq!(trailers["grpc-status"], ended.unwrap_or("16"), "{name}");
            match ended {
                None => assert!(until_expiry.contains(&took.as_secs()), "{name}: {took:?}"),
                Some(_) => assert!((100_500..=101_600).contains(&took.as_millis()), "{name}: {took:?}"),
            }
            let cause = match ended {
                None => "expired",
                Some("14") => "unknown",
                Some(_) => "revoked",
            };
            assert_eq!(world.causes(), [("/grpc".to_owned(), cause.to_owned(), true)], "{name}");
        }
    }
}

/// A newer token goes on with the same exchange, and only that of the same principal does.
#[tokio::test(start_paused = true)]
async fn a_newer_token_renews_the_lifetime_of_its_exchange() {
    let world = World::new();
    let clock = world.clock.clone();
    let renewing = async move |lifetime: Lifetime| {
        let lifetime = lifetime.with_clock(clock.clone());
        let newer =
            |principal: portcullis::PrincipalBuilder| lifetime.renewed_by(principal.expires_at(NOW + 90).build());
        let of = |issuer, subject| Principal::builder(PrincipalKind::User, issuer, subject, "test");
        for stranger in [of(ISSUER, "bob"), of("https://other.example", "alice"), of(ISSUER, "alice").tenant("other")] {
            assert_eq!(newer(stranger).err().map(|rejection| rejection.status()), Some(StatusCode::UNAUTHORIZED));
        }
        let mut renewed = newer(alice()).unwrap();
        clock.advance(Duration::from_secs(89));
        assert_eq!(renewed.check(), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(renewed.ended().await, Ended::Expired);
    };
    let stack = world.stack().audit(AuditLayer::new(world.audit.clone())).build().unwrap();
    let app = stack.protect(Router::new().route("/socket", get(renewing)));
    drop(ask(&app, "/socket").await);
    assert_eq!(world.causes(), [("/socket".to_owned(), "expired".to_owned(), true)]);
}

/// Whose token came without a request is named all the same.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_exchange_without_a_request_names_whose_it_was() {
    let audit = Captured::new();
    let _listens = AuditLayer::new(audit.clone());
    let nobody = Principal::builder(PrincipalKind::User, ISSUER, "without-a-request", "test").expires_at(NOW).build();
    let mut lifetime = Lifetime::of_principal(nobody).with_clock(TestClock::at_unix(NOW));
    assert_eq!(lifetime.ended().await, Ended::Expired);
    let is_its_own = |entry: &AuditEntry| match entry {
        AuditEntry::Event(event) => {
            event.kind() == EventKind::ExchangeEnded
                && event.by().is_some_and(|principal| principal.subject() == "without-a-request")
        }
        _ => false,
    };
    assert_eq!(audit.entries().iter().filter(|entry| is_its_own(entry)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_hears_of_a_key_that_is_gone() {
    let (clock, keys) = (TestClock::at_unix(NOW), Arc::new(Moving::default()));
    keys.set([trusted()]);
    let store = Arc::new(MemoryRevocations::new());
    let jwt = following(Arc::clone(&keys), Some(&store));
    let with_id = r#"{"alg":"ES256","typ":"at+jwt","kid":"k-1"}"#;
    let lifetime = |header: &str| {
        let principal = jwt.verify(&token(Algorithm::ES256, header, CLAIMS), clock.now()).unwrap();
        Lifetime::of_principal(principal).with_clock(clock.clone())
    };
    let (mut by_id, mut by_any) = (lifetime(with_id), lifetime(HEADER));
    // The id belongs to somebody else now: a token that names it is refused, one that names none is not.
    keys.set([key(Algorithm::ES256).with_id("k-3"), of_another().with_id("k-1")]);
    assert_eq!((by_id.check(), by_any.check()), (Err(Ended::Revoked), Ok(())));
    assert_eq!(by_id.ended().await, Ended::Revoked);
    // What is revoked is so whatever becomes of the keys.
    store.revoke(&Revocation::subject(ISSUER, "alice", NOW).unwrap(), clock.now()).await.unwrap();
    assert_eq!(by_any.check(), Err(Ended::Revoked));
    keys.lose();
    assert_eq!(by_any.ended().await, Ended::Revoked);
    // Keys that are given stay: nothing ends but by its time.
    let fixed = JwtAuthenticator::builder()
        .issuer(
            Issuer::fixed(ISSUER, KeySet::new([trusted()]).unwrap())
                .access_tokens(AUDIENCE)
                .algorithms([Algorithm::ES256]),
        )
        .build()
        .unwrap();
    let principal = fixed.verify(&token(Algorithm::ES256, with_id, CLAIMS), clock.now()).unwrap();
    let lifetime = Lifetime::of_principal(principal).with_clock(clock.clone());
    assert_eq!(lifetime.check(), Ok(()));
    clock.advance(Duration::from_secs(EXPIRY + 10));
    assert_eq!(lifetime.check(), Err(Ended::Expired));
}

/// Keys that are fetched: the refresh that finds the key gone ends the stream, with no request that asks for it.
#[cfg(feature = "jwt-remote")]
#[tokio::test(start_paused = true)]
async fn fetched_keys_end_what_they_signed() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use portcullis::{
        StoreError, StoreErrorKind,
        jwt::keys::{Fetched, JwkSource, LiveKeys},
    };

    #[derive(Clone, Debug)]
    struct Published(Arc<Mutex<Option<String>>>);

    #[async_trait::async_trait]
    impl JwkSource for Published {
        fn name(&self) -> &str {
            "published"
        }

        async fn fetch(&self, _: Option<&str>) -> Result<Fetched, StoreError> {
            let set = self.0.lock().unwrap().clone();
            set.map(Fetched::set).ok_or_else(|| StoreError::new(StoreErrorKind::Unavailable, "published"))
        }
    }

    let jwk = |pair: &rcgen::KeyPair, id: &str| {
        let pem = pair.public_key_pem();
        let spki =
            BASE64_STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
        let (x, y) = spki[spki.len() - 64..].split_at(32);
        let (x, y) = (mint::encode(x), mint::encode(y));
        format!(r#"{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"{id}","x":"{x}","y":"{y}"}}"#)
    };
    let (own, other) = (jwk(&mint::P256, "k-1"), jwk(&P256_OF_ANOTHER, "k-2"));
    let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let rows = [
        ("withdrawn", Some(set(&[&other])), Some("16"), 100..=165),
        ("kept beside a newer one", Some(set(&[&other, &own])), None, EXPIRY..=EXPIRY + 1),
        ("the origin is away until the trust is over", None, Some("14"), 640..=701),
    ];
    for (name, next, ended, expected) in rows {
        let clock = TestClock::at_unix(NOW);
        let published = Published(Arc::new(Mutex::new(Some(set(&[&own])))));
        let keys = LiveKeys::from_source(published.clone()).clock(clock.clone());
        let keys = keys.fresh_for(Duration::from_secs(60)).trust_for(Duration::from_secs(600)).build().unwrap();
        keys.load().await.unwrap();
        let stack = Stack::builder().dangerous_plain_http().clock(clock.clone()).authenticate(following(keys, None));
        let app = stack.fallback(require(authenticated())).build().unwrap().protect(router());
        let body = ask(&app, "/grpc").await;
        let moved = async {
            tokio::time::sleep(Duration::from_millis(100_500)).await;
            *published.0.lock().unwrap() = next;
        };
        let ((_, trailers, took), ()) = tokio::join!(read(body, &clock), moved);
        assert_eq!(trailers.unwrap()["grpc-status"], ended.unwrap_or("16"), "{name}");
        let took = took.unwrap().as_secs();
        assert!(expected.contains(&took), "{name}: {took}");
    }
}

fn alice() -> portcullis::PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "test")
}

/// Must be asked over the network.
#[derive(Debug)]
struct Remote(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Voucher for Remote {
    async fn vouches(&self, _: &Principal, _: Instants) -> Result<(), Ended> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if asked < 3 { Ok(()) } else { Err(Ended::Revoked) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_far_away_is_asked_less_often() {
    let alice = alice().vouched_by(Arc::new(Remote(0.into()))).build();
    assert_eq!(alice.counts_now(Instants::new(0, 0)), Now::Wait);
    let started = Instant::now();
    assert_eq!(Lifetime::of_principal(alice).with_clock(TestClock::at_unix(NOW)).ended().await, Ended::Revoked);
    assert_eq!(started.elapsed().as_secs(), 30, "the fourth time");
    let alice = self::alice().vouched_by(Arc::new(Remote(0.into()))).build();
    let started = Instant::now();
    Lifetime::of_principal(alice).checking_every(Duration::from_secs(2)).ended().await;
    assert_eq!(started.elapsed().as_secs(), 6);
}

/// A store of keys that is asked over the network, slowly; and one that never answers.
#[derive(Debug, Default)]
struct FarAway {
    revoked: std::sync::atomic::AtomicBool,
    hangs: bool,
    asked: std::sync::atomic::AtomicUsize,
}

impl FarAway {
    fn lifetime(self: &Arc<Self>, ends: u64) -> Lifetime {
        let voucher: Arc<dyn Voucher> = Arc::clone(self) as _;
        Lifetime::of_principal(alice().expires_at(ends).vouched_by(voucher).build())
            .with_clock(TokioClock(Instant::now()))
    }

    fn revoke(&self) {
        self.revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Voucher for FarAway {
    async fn vouches(&self, _: &Principal, _: Instants) -> Result<(), Ended> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let revoked = self.revoked.load(std::sync::atomic::Ordering::SeqCst);
        if revoked { Err(Ended::Revoked) } else { Ok(()) }
    }
}

/// As the paused time of the runtime has it.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Instants {
        let passed = u64::try_from(self.0.elapsed().as_nanos()).unwrap();
        Instants::new(NOW * 1_000_000_000 + passed, passed)
    }
}

/// Frames come faster than a store answers: each turn of the handler's loop drops the question of the turn before.
#[tokio::test(start_paused = true)]
async fn a_client_that_floods_does_not_put_off_the_end() {
    let (store, started) = (Arc::new(FarAway::default()), Instant::now());
    let mut lifetime = store.lifetime(NOW + 86_400);
    let mut messages = 0;
    let ended = loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_millis(1)) => messages += 1,
            ended = lifetime.ended() => break ended,
        }
        if messages == 5_000 {
            store.revoke();
        }
        assert!(messages < 60_000, "a minute after, and still open");
    };
    assert_eq!((ended, store.asked()), (Ended::Revoked, 2), "asked at each pause, not at each message");
    assert!(started.elapsed() <= Duration::from_secs(21), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_hides_no_expiry() {
    let store = Arc::new(FarAway { hangs: true, ..FarAway::default() });
    let started = Instant::now();
    let ended = timeout(Duration::from_secs(60), store.lifetime(NOW + 5).ended()).await;
    assert_eq!((ended, started.elapsed().as_secs()), (Ok(Ended::Expired), 5));
    // And it cannot say whether the credential counts.
    let started = Instant::now();
    let ended = timeout(Duration::from_secs(60), store.lifetime(NOW + 86_400).ended()).await;
    assert_eq!((ended, started.elapsed().as_secs()), (Ok(Ended::Unknown), 10));
}

/// Always has one more, as where a handler copies from memory. (`tokio_stream::iter` is pending now and then.)
struct Always;

impl tokio_stream::Stream for Always {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Ok(Bytes::from_static(b"x"))))
    }
}

async fn items_until_the_end(mut next: impl AsyncFnMut() -> Option<()>, store: &FarAway) -> Duration {
    let started = Instant::now();
    while next().await.is_some() {
        let passed = started.elapsed();
        if passed >= Duration::from_secs(15) {
            store.revoke();
        }
        assert!(passed < Duration::from_secs(60), "three quarters of a minute after, and still open");
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_always_ready_does_not_put_off_the_end() {
    let store = Arc::new(FarAway::default());
    let numbers = store.lifetime(NOW + 86_400).limit(Always, |_| None);
    let mut numbers = pin!(numbers);
    let took = items_until_the_end(async || numbers.next().await.map(drop), &store).await;
    assert!((15..=26).contains(&took.as_secs()), "{took:?}");
    assert!(store.asked() <= 3, "asked at each pause, not at each item: {}", store.asked());

    let store = Arc::new(FarAway::default());
    let mut body = store.lifetime(NOW + 86_400).limit_body(Body::from_stream(Always)).for_grpc();
    let mut trailers = None;
    let next = async || {
        let frame = body.frame().await?.unwrap();
        frame.into_trailers().map_or(Some(()), |ended| {
            trailers = Some(ended);
            None
        })
    };
    let took = items_until_the_end(next, &store).await;
    assert!((15..=26).contains(&took.as_secs()), "{took:?}");
    assert_eq!(trailers.unwrap()["grpc-status"], "16");
    // Who asks for one message has the store asked no second time.
    let store = Arc::new(FarAway::default());
    let one = store.lifetime(NOW + 86_400).limit(tokio_stream::iter([1]), |_| None);
    assert_eq!((one.collect::<Vec<i32>>().await.len(), store.asked()), (1, 0));
}

/// Nothing in the loop waits for anything else, and there is one thread: the runtime still gets its turn.
#[tokio::test]
async fn who_never_waits_lets_the_store_answer() {
    let store = Arc::new(FarAway::default());
    store.revoke();
    let lifetime = store.lifetime(NOW + 86_400).checking_every(Duration::from_millis(100));
    let mut numbers = pin!(lifetime.limit(Always, |_| None));
    let started = Instant::now();
    while numbers.next().await.is_some() {
        assert!(started.elapsed() < Duration::from_secs(30), "still open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_an_item_of_the_cause() {
    let clock = TestClock::at_unix(NOW);
    let lifetime = || Lifetime::of_principal(alice().expires_at(NOW + 10).build()).with_clock(clock.clone());
    let limited = lifetime().limit(ticks().map(Ok), |ended| Some(Err(Rejection::from(ended))));
    let mut limited = pin!(limited);
    assert_eq!(limited.next().await.unwrap().unwrap(), 1);
    assert!(lifetime().check().is_ok());
    clock.advance(Duration::from_secs(10));
    assert_eq!(lifetime().check(), Err(Ended::Expired));
    let last = limited.next().await.unwrap().unwrap_err();
    assert_eq!(last.status(), StatusCode::UNAUTHORIZED);
    assert!(limited.next().await.is_none() && limited.next().await.is_none());

    // Without an item, and at once where it has ended already.
    let over = lifetime().limit(tokio_stream::iter([1, 2, 3]), |_| None);
    assert_eq!(over.collect::<Vec<i32>>().await, [0; 0]);
    // A stream that ends by itself has no item of a cause.
    let whole = Lifetime::of_principal(alice().build()).limit(tokio_stream::iter([1, 2]), |_| Some(9));
    assert_eq!(whole.collect::<Vec<i32>>().await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_clock_may_be_set() {
    let clock = TestClock::at_unix(NOW);
    let mut lifetime = Lifetime::of_principal(alice().expires_at(NOW + 86_400).build()).with_clock(clock.clone());
    let started = Instant::now();
    let set = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        clock.set_unix(NOW + 90_000);
    };
    let (ended, ()) = tokio::join!(lifetime.ended(), set);
    assert_eq!(ended, Ended::Expired);
    assert!(started.elapsed() <= Duration::from_secs(61), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_is_anonymous_has_none() {
    let app = Router::new().route("/", get(async |lifetime: Lifetime| lifetime.principal().subject().to_owned()));
    let world = World::new();
    let layer = AuthnLayer::new(jwt(&world.store)).allow_anonymous().dangerous_plain_http();
    let layered = layer.layer(app.clone());
    let anonymous = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(layered.oneshot(anonymous).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let nothing_outside = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(app.clone().oneshot(nothing_outside).await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    let stack = Stack::builder().dangerous_plain_http().clock(world.clock).authenticate(jwt(&world.store));
    let app = stack.fallback(require(authenticated())).build().unwrap().protect(app);
    assert_eq!(text(app.oneshot(bearer("/")).await.unwrap()).await, "alice");
}

#[test]
fn a_runtime_without_a_timer_is_as_good_as_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let lifetime = Lifetime::of_principal(alice().expires_at(NOW + 60).build()).with_clock(TestClock::at_unix(NOW));
    runtime.block_on(async {
        let mut numbers = lifetime.limit(tokio_stream::pending::<u64>(), |_| Some(0));
        let mut next = |cx: &mut Context<'_>| tokio_stream::Stream::poll_next(Pin::new(&mut numbers), cx).is_pending();
        let waits = std::future::poll_fn(|cx| Poll::Ready(next(cx))).await;
        assert!(waits, "nothing has ended");
    });
}

#[tokio::test]
async fn vouchers_keep_their_contract() {
    let (at, store) = (Instants::new(NOW * 1_000_000_000, 0), MemoryRevocations::new());
    store.revoke(&Revocation::token(ISSUER, "bad").unwrap(), at).await.unwrap();
    let (good, bad) = (alice().credential_id("good").build(), alice().credential_id("bad").build());
    conformance::voucher(store.state(), &good, &bad, at).await;
    let forwarding: Arc<dyn Voucher> = Arc::new(store.state().clone());
    conformance::voucher(&forwarding, &good, &bad, at).await;
    conformance::voucher(&(Box::new(forwarding) as Box<dyn Voucher>), &good, &bad, at).await;
}

/// A WebSocket as the wire has it: an upgrade, then bytes in both directions.
#[tokio::test]
async fn an_upgraded_connection_ends_by_its_handler() {
    let world = World::new();
    let clock = world.clock.clone();
    let upgrade = async move |lifetime: Lifetime, mut request: Request| {
        let mut lifetime = lifetime.with_clock(clock.clone()).checking_every(Duration::from_millis(100));
        let upgrading = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrading.await.unwrap());
            let mut message = [0; 4];
            loop {
                tokio::select! {
                    ended = lifetime.ended() => {
                        io.write_all(format!("1008 {}", ended.as_str()).as_bytes()).await.unwrap();
                        io.shutdown().await.unwrap();
                        break;
                    }
                    read = io.read_exact(&mut message) => {
                        read.unwrap();
                        io.write_all(&message).await.unwrap();
                    }
                }
            }
        });
        (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")])
    };
    let stack = world.stack().audit(AuditLayer::new(world.audit.clone())).build().unwrap();
    let app = stack.protect(Router::new().route("/socket", get(upgrade)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let token = token(Algorithm::ES256, HEADER, CLAIMS);
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    for _ in 0..2 {
        client.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        client.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");
    }
    world.revoke().await;
    let mut rest = String::new();
    timeout(Duration::from_secs(60), client.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "1008 revoked");
    assert_eq!(world.audit.records()[0].status(), Some(101));
    assert_eq!(world.causes(), [("/socket".to_owned(), "revoked".to_owned(), true)]);
}

/// Whether the record of an upgrade says that nothing ends the connection.
#[tokio::test]
async fn an_upgrade_without_a_lifetime_is_told_of() {
    async fn forgets() -> StatusCode {
        StatusCode::SWITCHING_PROTOCOLS
    }
    async fn takes(_: Lifetime) -> StatusCode {
        StatusCode::SWITCHING_PROTOCOLS
    }
    async fn stays() -> StatusCode {
        StatusCode::OK
    }
    for (name, method, path, signed_in, told) in [
        ("forgotten", "GET", "/forgets", true, true),
        ("taken", "GET", "/takes", true, false),
        ("no upgrade", "GET", "/stays", true, false),
        ("what CONNECT opens", "CONNECT", "/stays", true, true),
        ("nobody whose credential could end", "GET", "/forgets", false, false),
    ] {
        for audited in [true, false] {
            let world = World::new();
            let mut stack = world.stack().route("CONNECT /stays", public()).route("GET /stays", public());
            for path in ["GET /forgets", "GET /takes"] {
                stack = stack.route(path, public());
            }
            if audited {
                stack = stack.audit(AuditLayer::new(world.audit.clone()));
            }
            let router = Router::new().route("/forgets", get(forgets)).route("/takes", get(takes));
            let app = stack.build().unwrap().protect(router.route("/stays", axum::routing::any(stays)));
            let mut request = Request::builder().method(method).uri(path);
            if signed_in {
                request =
                    request.header("authorization", format!("Bearer {}", token(Algorithm::ES256, HEADER, CLAIMS)));
            }
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(Connection::tls("192.0.2.1:1".parse().unwrap(), TlsVersion::Tls13));
            let status = app.oneshot(request).await.unwrap().status();
            assert!(status.is_success() || status == 101, "{name}: {status}");
            let flags: Vec<_> = world.audit.records().iter().flat_map(|record| record.flags().to_vec()).collect();
            assert_eq!(flags.contains(&"lifetime_not_taken"), audited && told, "{name} {flags:?}");
        }
    }
}
