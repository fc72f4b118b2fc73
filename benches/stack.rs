//! What the layers cost, against a bare axum router in the same run.
//!
//! Criterion measures each contender by itself. On a noisy machine the ratios are what can be compared, so a table of
//! them comes first: contenders take turns in short slices, and a ratio is the median over the rounds of (contender /
//! bare router in the same round). `cargo bench --bench stack -- ratios` prints the table alone.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use criterion::{BatchSize, Criterion};
use http::{Request, Response};
use portcullis::{
    Challenge, Clock, Connection, Principal, PrincipalKind, Secret, StoreError, SystemClock, TlsVersion,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    audit::{AuditLayer, AuditRecord, AuditSink, Lost},
    authn::{AuthnLayer, Outcome, authenticate_fn, one_of},
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, require},
    jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
    policy::Rbac,
    problem::ProblemLayer,
    rate_limit::{Quota, RateLimitLayer},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use tower::{Layer, Service, ServiceBuilder, layer::layer_fn, util::BoxCloneSyncService};

type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// One thing to measure: a service, and the request that it gets.
struct Contender {
    name: &'static str,
    app: App,
    request: Request<Body>,
    status: u16,
}

impl Contender {
    fn new<S>(name: &'static str, app: S, request: &Request<()>) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        // The box is the same for all contenders, the bare router included.
        Self { name, app: BoxCloneSyncService::new(app), request: request.clone().map(|()| Body::empty()), status: 200 }
    }

    fn refused(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn requests(&self, count: usize) -> Vec<Request<Body>> {
        (0..count).map(|_| copy(&self.request)).collect()
    }
}

/// Bodies cannot be cloned; heads can.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copied = Request::new(Body::empty());
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    copied.headers_mut().extend(request.headers().iter().map(|(name, value)| {
        // Fresh bytes for each request, as from a socket.
        (name.clone(), http::HeaderValue::from_bytes(value.as_bytes()).expect("came from a header"))
    }));
    *copied.extensions_mut() = request.extensions().clone();
    copied
}

/// Sends one request as a server does: clone, ready, call, poll to the end.
fn send(app: &App, request: Request<Body>) -> Response<Body> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut app = app.clone();
    assert!(app.poll_ready(&mut cx).is_ready());
    match pin!(app.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("the answer is in memory"),
    }
}

#[derive(Debug)]
struct Discard;

#[async_trait::async_trait]
impl AuditSink for Discard {
    fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
        black_box(record);
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

const POLICY: &str = r#"
version = "1"
permissions = ["orders:list"]
[roles.clerk]
grants = ["orders:list"]
"#;

fn router() -> Router {
    Router::new().route("/orders", get(async || "orders"))
}

fn base() -> Request<()> {
    let mut request = Request::get("/orders").header("host", "api.example.com").body(()).expect("a request");
    request
        .extensions_mut()
        .insert(Connection::tls("198.51.100.7:52100".parse().expect("an address"), TlsVersion::Tls13));
    request
}

fn with(name: &'static str, value: &str) -> Request<()> {
    let mut request = base();
    request.headers_mut().insert(name, value.parse().expect("a header value"));
    request
}

/// A provider in miniature.
struct Provider {
    algorithm: jsonwebtoken::Algorithm,
    signing: jsonwebtoken::EncodingKey,
    verifying: Key,
}

impl Provider {
    fn es256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
        Self {
            algorithm: jsonwebtoken::Algorithm::ES256,
            signing: jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a signing key"),
            verifying: Key::from_pem(Algorithm::ES256, pair.public_key_pem().as_bytes()).expect("a key"),
        }
    }

    fn hs256() -> Self {
        Self {
            algorithm: jsonwebtoken::Algorithm::HS256,
            signing: jsonwebtoken::EncodingKey::from_secret(&[7; 32]),
            verifying: Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32])).expect("a key"),
        }
    }

    fn token(&self, seconds: i64) -> String {
        let now = SystemClock::new().now().unix_seconds();
        let mut header = jsonwebtoken::Header::new(self.algorithm);
        header.typ = Some("at+jwt".to_owned());
        let claims = serde_json::json!({
            "iss": "https://id.example.com", "aud": "orders-api", "sub": "alice", "client_id": "web", "jti": "4f1c",
            "iat": now - 7200, "exp": now.saturating_add_signed(seconds), "scope": "orders:read orders:write",
            "roles": ["clerk"], "email": "alice@example.com", "name": "Alice Example", "locale": "en-GB",
            "sid": "0a1b2c3d4e5f", "auth_time": now - 7200,
        });
        jsonwebtoken::encode(&header, &claims, &self.signing).expect("a token")
    }

    fn authenticator(&self) -> JwtAuthenticator {
        let algorithm =
            if self.algorithm == jsonwebtoken::Algorithm::ES256 { Algorithm::ES256 } else { Algorithm::HS256 };
        let keys = KeySet::new([self.verifying.clone()]).expect("keys");
        let issuer = Issuer::fixed("https://id.example.com", keys)
            .access_tokens("orders-api")
            .algorithms([algorithm])
            .roles_claim("roles");
        JwtAuthenticator::builder().issuer(issuer).build().expect("an authenticator")
    }
}

fn fixed_principal() -> AuthnLayer {
    let alice =
        Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "test").roles(["clerk"]).build();
    let challenge = Challenge::new("Test", "bench").expect("a challenge");
    AuthnLayer::new(authenticate_fn(challenge, move |_, _| Outcome::verified(alice.clone()))).dangerous_plain_http()
}

fn quota() -> Quota {
    Quota::per_second(1_000_000_000)
}

fn all_stages(builder: StackBuilder) -> Stack {
    let policy = Rbac::from_toml(POLICY).expect("a policy");
    let list = policy.permission("orders:list").expect("a permission");
    builder
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(Discard))
        .limit_clients(quota())
        .limit_principals(quota())
        .policy(policy)
        .route("GET /orders", require(list))
        .build()
        .expect("a stack")
}

fn key_store(keys: usize) -> (Arc<MemoryKeyStore>, String) {
    let store = Arc::new(MemoryKeyStore::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut shown = String::new();
    for _ in 0..keys {
        let issue = NewApiKey::for_subject("billing").role("clerk").issue(&store, SystemClock::new().now());
        shown = runtime.block_on(issue).expect("a key").0.expose().to_owned();
    }
    (store, shown)
}

fn contenders() -> Vec<Contender> {
    fn noop<S>(inner: S) -> S {
        inner
    }
    let policy = Rbac::from_toml(POLICY).expect("a policy");
    let list = policy.permission("orders:list").expect("a permission");
    let (es256, hs256) = (Provider::es256(), Provider::hs256());
    let bearer = |token: &str| with("authorization", &format!("Bearer {token}"));
    let (store, key) = key_store(10_000);
    let keys = || ApiKeyAuthenticator::new(Arc::clone(&store));
    let jwt = |provider: &Provider| AuthnLayer::new(provider.authenticator()).dangerous_plain_http();
    let by_token = es256.token(3600);
    let six = ServiceBuilder::new()
        .layer(layer_fn(noop))
        .layer(layer_fn(noop))
        .layer(layer_fn(noop))
        .layer(layer_fn(noop))
        .layer(layer_fn(noop))
        .layer(layer_fn(noop));
    let no_op_router = (0..6).fold(router(), |router, _| router.layer(layer_fn(noop)));
    let table = || all_stages(Stack::builder().authenticate(keys()));

    vec![
        Contender::new("bare axum router", router(), &base()),
        Contender::new("bare axum router again (noise)", router(), &base()),
        Contender::new("six no-op layers around it", six.service(router()), &base()),
        Contender::new("six no-op layers by Router::layer", no_op_router, &base()),
        Contender::new("evidence alone", EvidenceLayer::new(TrustedProxies::none()).layer(router()), &base()),
        Contender::new("TLS enforcement alone", TlsLayer::require().layer(router()), &base()),
        Contender::new(
            "limit per client alone",
            RateLimitLayer::per_client(quota()).expect("a quota").layer(router()),
            &base(),
        ),
        Contender::new("problem details alone", ProblemLayer::new().layer(router()), &base()),
        Contender::new("audit alone", AuditLayer::new(Discard).layer(router()), &base()),
        Contender::new("authentication alone, fixed principal", fixed_principal().layer(router()), &base()),
        Contender::new(
            "the same and a limit per principal",
            fixed_principal().layer(RateLimitLayer::per_principal(quota()).expect("a quota").layer(router())),
            &base(),
        ),
        Contender::new("the same and a guard", fixed_principal().layer(require(list.clone()).layer(router())), &base()),
        Contender::new(
            "API key alone, 10 000 keys",
            AuthnLayer::new(keys()).dangerous_plain_http().layer(router()),
            &with("x-api-key", &key),
        ),
        Contender::new("JWT alone, HS256", jwt(&hs256).layer(router()), &bearer(&hs256.token(3600))),
        Contender::new("JWT alone, ES256", jwt(&es256).layer(router()), &bearer(&by_token)),
        Contender::new("JWT refused: garbage", jwt(&es256).layer(router()), &bearer("a.b.c")).refused(401),
        Contender::new("JWT refused: expired, ES256", jwt(&es256).layer(router()), &bearer(&es256.token(-3600)))
            .refused(401),
        Contender::new("all stages by protect, API key", table().protect(router()), &with("x-api-key", &key)),
        Contender::new(
            "all stages by protect, JWT ES256",
            all_stages(Stack::builder().authenticate(one_of((es256.authenticator(), keys())))).protect(router()),
            &bearer(&by_token),
        ),
        Contender::new("all stages by Router::layer, API key", router().layer(table()), &with("x-api-key", &key)),
        Contender::new(
            "the same and a guard on the route",
            router().route_layer(require(authenticated())).layer(table()),
            &with("x-api-key", &key),
        ),
        Contender::new("refused by all stages: no credential", table().protect(router()), &base()).refused(401),
    ]
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
fn slice(contender: &Contender, count: usize) -> f64 {
    let requests = contender.requests(count);
    let start = Instant::now();
    for request in requests {
        black_box(send(&contender.app, request));
    }
    nanos(start.elapsed()) / count as f64
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratios(contenders: &[Contender]) {
    const ROUNDS: usize = 31;
    let counts: Vec<usize> =
        contenders.iter().map(|contender| (2e6 / slice(contender, 50)).max(20.0) as usize).collect();
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..ROUNDS {
        // Every round starts at another contender, so that none profits from its neighbours.
        for offset in 0..contenders.len() {
            let index = (round + offset) % contenders.len();
            rounds[index].push(slice(&contenders[index], counts[index]));
        }
    }
    println!("{:<42} {:>9} {:>10} {:>7} {:>7}", "contender", "ns", "added ns", "ratio", "allocs");
    let bare = rounds[0].clone();
    for (contender, taken) in contenders.iter().zip(&rounds) {
        let mut ratio: Vec<f64> = taken.iter().zip(&bare).map(|(taken, bare)| taken / bare).collect();
        let mut added: Vec<f64> = taken.iter().zip(&bare).map(|(taken, bare)| taken - bare).collect();
        let request = copy(&contender.request);
        let allocations = allocation_counter::measure(|| drop(black_box(send(&contender.app, request)))).count_total;
        println!(
            "{:<42} {:>9.0} {:>10.0} {:>7.3} {:>7}",
            contender.name,
            median(&mut taken.clone()),
            median(&mut added),
            median(&mut ratio),
            allocations
        );
    }
    println!();
}

fn main() {
    let contenders = contenders();
    for contender in &contenders {
        let response = send(&contender.app, copy(&contender.request));
        assert_eq!(response.status(), contender.status, "{}", contender.name);
    }
    ratios(&contenders);
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("stack");
    for contender in &contenders {
        group.bench_function(contender.name, |bencher| {
            bencher.iter_batched(
                || copy(&contender.request),
                |request| send(&contender.app, request),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
