//! A whole service: five middlewares by hand and tower_governor, next to a stack. Both ask for HTTPS, count per address, check a token,
//! ask for a permission, make a record and say that answers are private.

use std::{
    collections::{HashMap, HashSet},
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use jsonwebtoken::{DecodingKey, Validation};
use portcullis::{
    StoreError,
    audit::{AuditEntry, AuditLayer, AuditSink, Lost},
    guard::require,
    policy::Rbac,
    rate_limit::Quota,
    stack::{Protected, Stack},
    tls::TlsLayer,
};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder, key_extractor::PeerIpKeyExtractor};

use crate::ratio::{Contender, base, bearer, measure, provider::Provider, router, send};

const BARE: &str = "bare axum router";
const POLICY: &str = r#"
version = "1"
permissions = ["orders:list"]
[roles.clerk]
grants = ["orders:list"]
"#;

/// What a server that ends TLS would leave in a request.
#[derive(Clone, Copy)]
struct Https;

#[derive(Clone, serde::Deserialize)]
struct Claims {
    sub: String,
    roles: Vec<String>,
}

struct Shared {
    key: DecodingKey,
    validation: Validation,
    grants: HashMap<&'static str, HashSet<&'static str>>,
}

/// A record, which nobody keeps.
#[expect(dead_code, reason = "made as a service would make it")]
struct Record {
    method: String,
    path: String,
    status: u16,
    subject: Option<String>,
    taken: Duration,
}

/// Who was found, for the record.
#[derive(Clone)]
struct Subject(String);

async fn https(request: Request, next: Next) -> Result<Response, StatusCode> {
    if request.extensions().get::<Https>().is_none() {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(next.run(request).await)
}

#[expect(clippy::disallowed_methods, reason = "by hand")]
async fn audit(request: Request, next: Next) -> Response {
    let start = std::time::Instant::now();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let subject = response.extensions().get::<Subject>().map(|subject| subject.0.clone());
    let status = response.status().as_u16();
    black_box(Record { method, path, status, subject, taken: start.elapsed() });
    response
}

async fn authenticate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let field = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = field.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    let decoded = jsonwebtoken::decode::<Claims>(token, &shared.key, &shared.validation);
    let claims = decoded.map_err(|_| StatusCode::UNAUTHORIZED)?.claims;
    let subject = Subject(claims.sub.clone());
    request.extensions_mut().insert(claims);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(subject);
    Ok(response)
}

async fn permit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Result<Response, StatusCode> {
    let claims = request.extensions().get::<Claims>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    let is_granted = |role: &String| shared.grants.get(role.as_str()).is_some_and(|all| all.contains("orders:list"));
    if !claims.roles.iter().any(is_granted) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(next.run(request).await)
}

async fn private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    response
}

fn by_hand(provider: &Provider) -> Router {
    let mut validation = Validation::new(provider.peer_algorithm());
    validation.set_issuer(&["https://id.example.com"]);
    validation.set_audience(&["orders-api"]);
    let grants = HashMap::from([("clerk", HashSet::from(["orders:list"]))]);
    let shared = Arc::new(Shared { key: provider.decoding.clone(), validation, grants });
    let mut config = GovernorConfigBuilder::default();
    let mut config =
        config.period(Duration::from_millis(1)).burst_size(u32::MAX).key_extractor(PeerIpKeyExtractor).use_headers();
    router()
        .layer(from_fn(private))
        .layer(from_fn_with_state(Arc::clone(&shared), permit))
        .layer(from_fn_with_state(shared, authenticate))
        .layer(GovernorLayer::new(config.finish().expect("a configuration")))
        .layer(from_fn(https))
        .layer(from_fn(audit))
}

#[derive(Debug)]
struct Discard;

#[async_trait::async_trait]
impl AuditSink for Discard {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        black_box(entry);
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn stack(provider: &Provider, remembers: bool) -> Protected<Router> {
    let policy = Rbac::from_toml(POLICY).expect("a policy");
    let list = policy.permission("orders:list").expect("a permission");
    let builder = provider.builder();
    let builder = if remembers { builder } else { builder.without_cache() };
    Stack::builder()
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(Discard))
        .limit_clients(Quota::per_second(1_000).burst(u32::MAX))
        .authenticate(builder.build().expect("an authenticator"))
        .policy(policy)
        .route("GET /orders", require(list))
        .build()
        .expect("a stack")
        .protect(router())
}

pub fn table() {
    let prepared = |mut request: Request<()>| {
        let peer: SocketAddr = "198.51.100.7:52100".parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Https);
        request
    };
    let (hs256, es256) = (Provider::hs256(), Provider::es256());
    for (title, provider) in [("a service, HS256", hs256), ("a service, ES256", es256)] {
        let request = prepared(bearer(&provider.token(3_600)));
        let contenders = [
            Contender::new(BARE, router(), &request),
            Contender::new("five from_fn and tower_governor", by_hand(&provider), &request),
            Contender::new("a stack, token never seen", stack(&provider, false), &request),
            Contender::new("a stack, token seen before", stack(&provider, true), &request),
        ];
        let refused = [prepared(base()), prepared(bearer(&provider.token(-3_600)))];
        for contender in &contenders {
            contender.warm_up();
            for request in refused.iter().filter(|_| contender.name != BARE) {
                let status = send(&contender.app, request.clone().map(|()| Body::empty())).status();
                assert_eq!(status.as_u16(), 401, "{}", contender.name);
            }
        }
        let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
        measure(&timed).print(title, BARE);
    }
}
