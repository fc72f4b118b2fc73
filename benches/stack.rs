//! What the layers cost, against a bare axum router in the same run.
//!
//! Criterion measures each contender by itself. A table of ratios to the bare router comes first (see `ratio/mod.rs`);
//! `cargo bench --bench stack -- ratios` prints the table alone.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a bench stops where it cannot go on"
)]

#[path = "ratio/orders.rs"]
mod orders;
mod ratio;

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use criterion::{BatchSize, Criterion};
use http::{HeaderValue, Request, Response, StatusCode, header};
use orders::{Discard, policy};
use portcullis::{
    Challenge, Clock, Principal, PrincipalKind, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    audit::AuditLayer,
    authn::{AuthnLayer, Outcome, authenticate_fn, one_of},
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, require},
    problem::ProblemLayer,
    rate_limit::{FailureBudget, Quota, RateLimitLayer},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use ratio::{App, Contender, base, bearer, provider::Provider, router, send, with};
use tower::{Layer, Service, ServiceBuilder, layer::layer_fn, service_fn};

fn fixed_principal() -> AuthnLayer {
    let alice =
        Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "test").roles(["clerk"]).build();
    let challenge = Challenge::new("Test", "bench").expect("a challenge");
    AuthnLayer::new(authenticate_fn(challenge, move |_, _| Outcome::verified(alice.clone()))).dangerous_plain_http()
}

/// The least that a refusal costs: it looks at nothing, and has the fields and the kind of body that ours have.
fn refuse_all() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = std::future::Ready<Result<Response<Body>, Infallible>>,
> + Clone {
    const PROBLEM: &str = r#"{"status":401,"title":"Unauthorized","code":"unauthenticated","request_id":"none"}"#;
    service_fn(|request: Request<Body>| {
        drop(request);
        let mut response = Response::new(Body::from(PROBLEM));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let fields = response.headers_mut();
        fields.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"api\", error=\"invalid_token\""),
        );
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        std::future::ready(Ok(response))
    })
}

fn quota() -> Quota {
    Quota::per_second(1_000_000_000)
}

fn all_stages(builder: StackBuilder) -> Stack {
    limited_by(builder, quota(), |limit| limit)
}

/// The same without `RateLimit` and `RateLimit-Policy`.
fn quiet(builder: StackBuilder) -> Stack {
    limited_by(builder, quota(), RateLimitLayer::without_headers)
}

fn limited_by(builder: StackBuilder, clients: Quota, set: fn(RateLimitLayer) -> RateLimitLayer) -> Stack {
    let (policy, list) = policy();
    builder
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(Discard))
        .limit(set(RateLimitLayer::per_client(clients).expect("a quota")))
        .limit(set(RateLimitLayer::per_principal(quota()).expect("a quota")))
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
    let (_, list) = policy();
    let (es256, hs256) = (Provider::es256(), Provider::hs256());
    let (store, key) = key_store(10_000);
    // A record's principal is kept for one authenticator, and its clones.
    let keys = ApiKeyAuthenticator::new(store);
    let keys = || keys.clone();
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
        Contender::new("bare axum router, with a key", router(), &with("x-api-key", &key)),
        Contender::new("bare axum router, with a token", router(), &bearer(&by_token)),
        Contender::new("six no-op layers around it", six.service(router()), &base()),
        Contender::new("six no-op layers by Router::layer", no_op_router, &base()),
        Contender::new("evidence alone", EvidenceLayer::new(TrustedProxies::none()).layer(router()), &base()),
        Contender::new("TLS enforcement alone", TlsLayer::require().layer(router()), &base()),
        Contender::new(
            "limit per client alone",
            RateLimitLayer::per_client(quota()).expect("a quota").layer(router()),
            &base(),
        ),
        Contender::new(
            "limit per client alone, without fields",
            RateLimitLayer::per_client(quota()).expect("a quota").without_headers().layer(router()),
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
            "API key alone, one of 10 000 keys",
            AuthnLayer::new(keys()).dangerous_plain_http().layer(router()),
            &with("x-api-key", &key),
        ),
        Contender::new("JWT alone, HS256, seen before", jwt(&hs256).layer(router()), &bearer(&hs256.token(3600))),
        Contender::new("JWT alone, ES256, seen before", jwt(&es256).layer(router()), &bearer(&by_token)),
        Contender::new("401 by hand, whatever is asked", refuse_all(), &bearer("a.b.c")).refused(401),
        Contender::new("JWT refused: garbage", jwt(&es256).layer(router()), &bearer("a.b.c")).refused(401),
        Contender::new("JWT refused: expired, ES256", jwt(&es256).layer(router()), &bearer(&es256.token(-3600)))
            .refused(401),
        Contender::new("all stages by protect, API key", table().protect(router()), &with("x-api-key", &key)),
        Contender::new(
            "the same, JWT ES256, seen before",
            all_stages(Stack::builder().authenticate(one_of((es256.authenticator(), keys())))).protect(router()),
            &bearer(&by_token),
        ),
        Contender::new(
            "the same, without fields of limits",
            quiet(Stack::builder().authenticate(one_of((es256.authenticator(), keys())))).protect(router()),
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

/// What a flood costs: each request is refused by the whole stack.
fn floods() -> Vec<Contender> {
    let (es256, other) = (Provider::es256(), Provider::es256());
    let (store, key) = key_store(10_000);
    let keys = ApiKeyAuthenticator::new(store);
    let keys = || keys.clone();
    let guarded =
        || all_stages(Stack::builder().authenticate(one_of((es256.authenticator(), keys())))).protect(router());
    let budget = FailureBudget::new().per_source(Quota::per_hour(1)).expect("a quota");
    let budgeted = Stack::builder().failure_budget(budget).authenticate(one_of((es256.authenticator(), keys())));
    let spared = all_stages(budgeted).protect(router());
    let limited = limited_by(Stack::builder().authenticate(keys()), Quota::per_day(1), |limit| limit).protect(router());
    let forged = bearer(&other.token(3600));
    let unknown = {
        let (_, unknown) = key_store(1);
        with("x-api-key", &unknown)
    };
    let mistyped =
        with("x-api-key", &format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' }));
    // What the budgets allow is used up.
    for (app, request) in [(App::new(spared.clone()), &forged), (App::new(limited.clone()), &with("x-api-key", &key))] {
        drop(send(&app, request.clone().map(|()| Body::empty())));
    }
    vec![
        Contender::new("bare axum router, answered", router(), &base()),
        Contender::new("no credential", guarded(), &base()).refused(401),
        Contender::new("a token of nonsense", guarded(), &bearer("a.b.c")).refused(401),
        Contender::new("an expired token", guarded(), &bearer(&es256.token(-3600))).refused(401),
        Contender::new("a forged signature, ES256", guarded(), &forged).refused(401),
        Contender::new("the same, over its failure budget", spared, &forged).refused(429),
        Contender::new("a mistyped API key", guarded(), &mistyped).refused(401),
        Contender::new("an unknown API key, of 10 000", guarded(), &unknown).refused(401),
        Contender::new("over the limit per client", limited, &with("x-api-key", &key)).refused(429),
    ]
}

fn main() {
    let (contenders, floods) = (contenders(), floods());
    if ratio::counted(&contenders) {
        return;
    }
    for (title, contenders) in [("contender", &contenders), ("refused by all stages", &floods)] {
        contenders.iter().for_each(Contender::warm_up);
        let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
        ratio::measure(&timed).print(title, contenders[0].name);
    }
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("stack");
    for contender in &contenders {
        group.bench_function(contender.name, |bencher| {
            bencher.iter_batched(
                || contender.a_request(),
                |request| send(&contender.app, request),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
