//! Every attack finds the hole that it is for, in a service that is careless in one thing, and none in its careful twin.

#![allow(
    clippy::collapsible_match,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{hmac, signature};
use axum::{
    Router,
    body::Body,
    extract::Path,
    http::StatusCode,
    routing::{delete, get, post},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{Method, Request, Response, Uri, header};
use portcullis::{
    Clock, Connection, Principal, SystemClock, TlsVersion,
    api_key::{ApiKeyAuthenticator, KeyLife, MemoryKeyStore, NewApiKey},
    authn::{AuthnLayer, one_of},
    config::Config,
    guard::{authenticated, public, require, role},
    jwt::{CookiePlace, CsrfRules, JwtAuthenticator},
    policy::Rbac,
    rate_limit::{Quota, RateLimitLayer},
    stack::{Protected, Stack},
    testing::{
        TestAuthority, TestIssuer, TestKeys,
        attack::{ATTACKS, AttackReport, Caller, Profile, attack_suite, attack_url},
    },
    tls::{TlsLayer, TlsListener},
};
use serde_json::Value;
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[path = "attack_suite/admin.rs"]
mod admin;
#[path = "attack_suite/browsers.rs"]
mod browsers;
#[path = "attack_suite/grpc.rs"]
mod grpc;
#[path = "attack_suite/keys.rs"]
mod keys;
#[path = "attack_suite/limited.rs"]
mod limited;
#[path = "attack_suite/network.rs"]
mod network;
#[path = "attack_suite/profiles.rs"]
mod profiles;
#[path = "attack_suite/routes.rs"]
mod routes;
#[path = "attack_suite/sound.rs"]
mod sound;
#[path = "attack_suite/strangers.rs"]
mod strangers;
#[path = "attack_suite/things.rs"]
mod things;

const LIMIT: u32 = 20;
const COOKIE: &str = "__Host-session";
/// The attacks that only some services give an occasion for.
const REPLAY: &str = "token-replay";

struct Fixture {
    issuer: TestIssuer,
    key: String,
    app: Protected<Router>,
}

fn fixture() -> Fixture {
    let issuer = TestIssuer::new("orders-api");
    let keys = MemoryKeyStore::new();
    let new = NewApiKey::for_subject("billing").role("clerk").lives(KeyLife::Never);
    let (key, record) = new.mint(SystemClock::new().now()).unwrap();
    keys.add(record).unwrap();
    let cookie = CookiePlace::new(COOKIE, CsrfRules::same_origin()).unwrap();
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).cookie(cookie).build().unwrap();
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_hour(LIMIT))
        .authenticate(one_of((jwt, ApiKeyAuthenticator::new(keys))))
        .route("GET /health", public())
        .route("GET /orders", require(role("clerk").unwrap()))
        .route("GET /tenants/{tenant}", require(authenticated()))
        .route("GET /things/{id}", require(authenticated()))
        .route("GET /notes/{id}", require(authenticated()))
        .route("POST /cart", require(role("shopper").unwrap()))
        .route("GET /feed", require(role("shopper").unwrap()))
        .build()
        .unwrap();
    let router = Router::new()
        .route("/cart", post(async || "in the cart"))
        .route("/feed", get(feed))
        .route(
            "/notes/{id}",
            get(
                async |principal: Principal| {
                    if principal.subject() == "bob" { StatusCode::FORBIDDEN } else { StatusCode::OK }
                },
            ),
        )
        .route("/health", get(async || "ok"))
        .route("/orders", get(async || "orders"))
        .route(
            "/tenants/{tenant}",
            get(
                async |principal: Principal, Path(tenant): Path<String>| {
                    if principal.tenant() == Some(tenant.as_str()) { StatusCode::OK } else { StatusCode::FORBIDDEN }
                },
            ),
        )
        .route(
            "/things/{id}",
            get(
                async |principal: Principal| {
                    if principal.has_role("clerk") { StatusCode::OK } else { StatusCode::NOT_FOUND }
                },
            ),
        );
    Fixture { issuer, key: key.expose().to_owned(), app: stack.protect(router) }
}

/// As axum answers a WebSocket where nothing can be upgraded.
async fn feed(request: Request<Body>) -> StatusCode {
    match request.headers().contains_key("sec-websocket-key") {
        true => StatusCode::UPGRADE_REQUIRED,
        false => StatusCode::BAD_REQUEST,
    }
}

impl Fixture {
    fn profile(&self, attack: &str) -> Profile {
        self.profile_of("GET /orders", attack)
    }

    fn profile_of(&self, orders: &str, attack: &str) -> Profile {
        let token = || self.issuer.token();
        let profile = Profile::new()
            .public("GET /health")
            .unwrap()
            .route(orders, ["clerk"])
            .unwrap()
            .route_for_keys(orders)
            .unwrap()
            .role("clerk", token().subject("alice").role("clerk"))
            .role("guest", token().subject("bob").role("guest"))
            .api_key("x-api-key", &self.key)
            .other_tenant("GET /tenants/acme", token().tenant("acme"), token().tenant("globex").role("guest"))
            .unwrap()
            .hidden("GET /things/1", "GET /things/2", token().role("clerk"), token().role("guest"))
            .unwrap()
            .other_owner("GET /notes/1", token().subject("alice"), token().subject("bob"))
            .unwrap()
            .role("shopper", Caller::cookie(COOKIE, token().subject("carol").role("shopper")))
            .route("POST /cart", ["shopper"])
            .unwrap()
            .websocket("GET /feed", ["shopper"])
            .unwrap()
            .limit(LIMIT)
            .secret("db-7.internal");
        if attack == REPLAY { profile.one_time() } else { profile }
    }
}

fn decoded(part: &str) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn text(part: &str) -> String {
    String::from_utf8_lossy(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default()).into_owned()
}

fn point(jwk: &Value) -> Vec<u8> {
    let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
    [vec![4], number("x"), number("y")].concat()
}

fn verified(message: &str, signature: &[u8], point: &[u8]) -> bool {
    let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(message.as_bytes(), signature).is_ok()
}

/// A verifier that leaves out the one check of the hole.
fn careless(hole: &str, issuer: &TestIssuer, token: &str, remembered: &Mutex<HashSet<String>>) -> bool {
    if hole == "token-garbage" {
        return token.matches('.').count() != 2;
    }
    let token = if hole == "token-signature-reencoded" { token.trim_end_matches('=') } else { token };
    let Some((message, signed)) = token.rsplit_once('.') else { return false };
    let Some((head, body)) = message.split_once('.') else {
        return hole == "token-unsigned" && decoded(signed)["iss"] == issuer.name();
    };
    let (header, claims) = (decoded(head), decoded(body));
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signed).unwrap_or_default();
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let trusted = point(&jwks["keys"][0]);
    let good = verified(message, &signature, &trusted);
    let by_secret = |secret: &[u8]| {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes(), &signature).is_ok()
    };
    let alg = header["alg"].as_str().unwrap_or_default();
    let kid = header["kid"].as_str().unwrap_or_default();
    let now = SystemClock::new().now().unix_seconds();
    let after = |claim: &str| claims[claim].as_u64().is_some_and(|time| time > now + 60);
    match hole {
        "token-alg-none" => alg.eq_ignore_ascii_case("none"),
        "token-hmac-public-key" => {
            let prefix = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
            let base64 = BASE64_STANDARD.encode([&prefix[..], &trusted].concat());
            let lines: Vec<&str> = [&base64[..64], &base64[64..]].to_vec();
            alg == "HS256"
                && by_secret(
                    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")).as_bytes(),
                )
        }
        "token-weak-secret" => alg == "HS256" && by_secret(b"secret"),
        "token-algorithm-mislabelled" => good && alg != "ES256",
        "token-foreign-key" => claims["iss"] == issuer.name() && alg == "ES256" && signature.len() == 64,
        "token-embedded-key" => verified(message, &signature, &point(&header["jwk"])),
        // Stands for what is fetched from there: a key of whoever wrote the token.
        "token-key-url" => header["jku"].is_string(),
        "token-key-id" => alg == "HS256" && kid.ends_with("/dev/null") && by_secret(b""),
        "token-unsigned" => signature.is_empty() && alg == "ES256",
        "token-signature-altered" => signature.len() == 64 && signature.iter().all(|byte| *byte == 0),
        "token-claims-swapped" => {
            // Remembers good tokens by their signature alone.
            let mut remembered = remembered.lock().unwrap();
            if good {
                remembered.insert(signed.to_owned());
            }
            remembered.contains(signed)
        }
        "token-signature-reencoded" => good,
        "token-duplicate-header" => good && text(head).matches("\"alg\"").count() > 1,
        "token-duplicate-claim" => good && text(body).matches("\"sub\"").count() > 1,
        "token-critical-header" => good && !header["crit"].is_null(),
        "token-type" => good && header["typ"] != "at+jwt",
        "token-expired" => good && claims["exp"].as_u64().is_some_and(|end| end < now),
        "token-without-expiry" => good && claims.get("exp").is_none(),
        "token-not-yet-valid" => good && after("nbf"),
        "token-issued-in-future" => good && after("iat"),
        "token-issuer" => good && claims["iss"] != issuer.name(),
        "token-audience" => good && claims["aud"] != issuer.audience(),
        "token-without-subject" => good && claims["sub"].as_str().is_none_or(str::is_empty),
        "token-claim-type" => good && (claims["exp"].is_string() || claims["sub"].is_number()),
        _ => false,
    }
}

/// What a server in front, or a router further in, makes of a path.
fn normalised(hole: &str, path: &str) -> String {
    match hole {
        "path-double-slash" => path.replace("//", "/"),
        "path-dot-segments" => {
            let mut segments: Vec<&str> = Vec::new();
            for segment in path.split('/').skip(1) {
                match segment {
                    "." => {}
                    ".." => drop(segments.pop()),
                    segment => segments.push(segment),
                }
            }
            format!("/{}", segments.join("/"))
        }
        "path-encoded" => path.replace("%6F", "o"),
        "path-trailing-slash" => path.trim_end_matches('/').to_owned(),
        "path-case" => path.to_ascii_lowercase(),
        "path-parameters" => path.split(';').next().unwrap_or_default().to_owned(),
        "path-backslash" => path.replace("/%5C", "/"),
        "path-null" => path.split("%00").next().unwrap_or_default().to_owned(),
        _ => path.to_owned(),
    }
}

/// A service that is careless in one thing: what it should refuse it hands to the careful one as a good request.
async fn answer(hole: &str, fixture: &Fixture, memory: &Memory, mut request: Request<Body>) -> Response<Body> {
    let clerk = || format!("Bearer {}", fixture.issuer.token().role("clerk").tenant("acme").mint()).parse().unwrap();
    let has = |request: &Request<Body>, name: &str| request.headers().contains_key(name);
    let field = |request: &Request<Body>, name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let authorization = field(&request, "authorization");
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let peer = request.extensions().get::<Connection>().and_then(Connection::peer).unwrap();
    let mut let_in = !token.is_empty() && careless(hole, &fixture.issuer, &token, &memory.signatures);
    match hole {
        "credential-missing" => let_in = path == "/orders" && !has(&request, "authorization"),
        "credential-twice" => {
            if request.headers().get_all("authorization").iter().count() > 1 {
                request.headers_mut().insert("authorization", authorization.parse().unwrap());
            }
        }
        "credential-joined" if authorization.contains(", ") => {
            let first = authorization.split(", ").next().unwrap_or_default();
            request.headers_mut().insert("authorization", first.parse().unwrap());
        }
        "credential-scheme" if !authorization.is_empty() => {
            let token = authorization.rsplit(' ').next().unwrap_or_default();
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        "credential-in-url" => {
            if let Some(token) = query.split('&').find_map(|part| part.strip_prefix("access_token=")) {
                request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
        }
        "credential-plain-http" => {
            request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
        }
        "proxy-scheme" if field(&request, "x-forwarded-proto") == "https" => {
            request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
        }
        "key-altered" => {
            let key = field(&request, "x-api-key");
            if !key.is_empty() && fixture.key.starts_with(&key) {
                request.headers_mut().insert("x-api-key", fixture.key.parse().unwrap());
            }
        }
        "identity-header" => let_in = has(&request, "x-remote-user"),
        "proxy-address" => let_in = field(&request, "x-forwarded-for") == "127.0.0.1",
        "proxy-certificate" => let_in = field(&request, "x-ssl-client-verify") == "SUCCESS",
        "proxy-path" if has(&request, "x-original-url") => {
            *request.uri_mut() = field(&request, "x-original-url").parse().unwrap();
            let_in = true;
        }
        "role-crossing" | "tenant-crossing" => {
            let claims = decoded(token.split('.').nth(1).unwrap_or_default());
            let_in = claims["roles"][0] == "guest" && (hole == "role-crossing") == (path == "/orders");
        }
        "owner-crossing" => {
            let claims = decoded(token.split('.').nth(1).unwrap_or_default());
            let_in = claims["sub"] == "bob" && path == "/notes/1";
        }
        "csrf-origin" if has(&request, "origin") => own_page(&mut request),
        "csrf-no-origin" if !has(&request, "origin") && !has(&request, "sec-fetch-site") => own_page(&mut request),
        "csrf-websocket" if has(&request, "upgrade") => own_page(&mut request),
        "method-unlisted" if method.as_str() == "PURGE" => return Response::new(Body::from("purged")),
        "method-override" if has(&request, "x-http-method-override") => {
            *request.method_mut() = Method::GET;
            let_in = true;
        }
        "method-head" => let_in = method == Method::HEAD,
        "method-case" if method.as_str() == "get" => {
            *request.method_mut() = Method::GET;
            let_in = true;
        }
        "preflight-guard" => let_in = has(&request, "access-control-request-method"),
        "limit-missing" => {
            // Each request is counted for itself, as by a limiter that lost its memory.
            let [_, a, b, c] = memory.requests.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            request.extensions_mut().insert(Connection::tls(([12, a, b, c], 1).into(), TlsVersion::Tls13));
        }
        "limit-address-spoof" => {
            if let Ok(address) = field(&request, "x-forwarded-for").parse::<std::net::IpAddr>() {
                request.extensions_mut().insert(Connection::tls((address, 1).into(), TlsVersion::Tls13));
            }
        }
        "existence-route" if path.contains("no-such-route") => {
            return Response::builder().status(404).body(Body::empty()).unwrap();
        }
        "existence-thing" if path == "/things/1" => {
            return Response::builder().status(403).body(Body::empty()).unwrap();
        }
        _ if hole.starts_with("path-") => {
            let other = normalised(hole, &path);
            if other != path {
                *request.uri_mut() = other.parse::<Uri>().unwrap();
                // The guard looked at the path as it came, found no rule for it, and let it pass.
                let_in = true;
            }
        }
        // The careful service remembers tokens that are good for one request; its twin does not.
        REPLAY => {}
        _ => {}
    }
    if let_in {
        request.headers_mut().insert(header::AUTHORIZATION, clerk());
    }
    let origin = request.headers().get("origin").cloned();
    let mut response = fixture.app.clone().oneshot(request).await.unwrap();
    match hole {
        "cors-origin" => {
            if let Some(origin) = origin {
                response.headers_mut().insert("access-control-allow-origin", origin);
                response.headers_mut().insert("access-control-allow-credentials", "true".parse().unwrap());
            }
        }
        "leak-body" if response.status() == 401 => {
            *response.body_mut() = Body::from("no connection to db-7.internal");
        }
        "refusal-challenge" => drop(response.headers_mut().remove("www-authenticate")),
        "cache-shared" => drop(response.headers_mut().remove("cache-control")),
        _ => {}
    }
    response
}

/// As if a page of the service's own had caused it.
fn own_page(request: &mut Request<Body>) {
    request.headers_mut().remove("origin");
    request.headers_mut().insert("sec-fetch-site", "same-origin".parse().unwrap());
}

#[derive(Default)]
struct Memory {
    signatures: Mutex<HashSet<String>>,
    tokens: Mutex<HashSet<String>>,
    requests: AtomicU32,
}

/// Runs the suite on a service with this hole, under the profile of this attack.
async fn run(hole: &'static str, attack: &str) -> AttackReport {
    run_at("GET /orders", hole, attack).await
}

async fn run_at(orders: &str, hole: &'static str, attack: &str) -> AttackReport {
    let fixture = Arc::new(fixture());
    let memory = Arc::new(Memory::default());
    let profile = fixture.profile_of(orders, attack);
    let one_time = attack == REPLAY && hole != REPLAY;
    let jwt = JwtAuthenticator::builder().issuer(fixture.issuer.access_tokens()).build().unwrap();
    let jwt = Arc::new(jwt);
    let service = service_fn(move |request: Request<Body>| {
        let (fixture, memory, jwt) = (Arc::clone(&fixture), Arc::clone(&memory), Arc::clone(&jwt));
        async move {
            let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let cookie = request.headers().get("cookie").and_then(|value| value.to_str().ok());
            let cookie = cookie.and_then(|cookie| cookie.strip_prefix("__Host-session="));
            let token = value.and_then(|value| value.strip_prefix("Bearer ")).or(cookie).unwrap_or_default();
            if one_time && jwt.verify(token, SystemClock::new().now()).is_ok() {
                // By its id, as RFC 7519 §4.1.7 has it.
                let id = decoded(token.split('.').nth(1).unwrap_or_default())["jti"].to_string();
                if !memory.tokens.lock().unwrap().insert(id) {
                    let refusal = Response::builder().status(401).header("www-authenticate", "Bearer");
                    return Ok::<_, Infallible>(refusal.body(Body::empty()).unwrap());
                }
            }
            Ok(answer(hole, &fixture, &memory, request).await)
        }
    });
    attack_suite(service, profile).run().await
}

#[tokio::test]
async fn every_attack_finds_its_hole() {
    let ids: BTreeSet<&str> = ATTACKS.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), ATTACKS.len(), "an id stands once");
    let mut blind = Vec::new();
    for (id, _) in ATTACKS {
        let report = run(id, id).await;
        if !report.findings().iter().any(|finding| finding.attack() == *id) {
            blind.push(format!("{id}: {report}"));
        }
    }
    assert!(blind.is_empty(), "attacks without a hole that they find: {}", blind.join("\n"));
}

/// With a query, a route has the same path.
#[tokio::test]
async fn a_hole_behind_a_query_is_found() {
    let line = "GET /orders?x=1";
    let report = run_at(line, "none", "").await;
    assert!(report.is_clean(), "{report}");
    let of_paths = ATTACKS.iter().map(|(attack, _)| *attack).filter(|attack| attack.starts_with("path-"));
    for hole in of_paths.chain(["credential-in-url", "method-head", "method-case", "existence-route", "proxy-path"]) {
        let report = run_at(line, hole, "").await;
        assert!(report.findings().iter().any(|finding| finding.attack() == hole), "{hole}: {report}");
    }
    // What is listed for the path is listed for it with a query.
    let fixture = fixture();
    let profile = Profile::new().public("GET /health?a").unwrap().public("HEAD /health").unwrap();
    let report = attack_suite(fixture.app, profile).run::<Body, _>().await;
    assert!(!report.findings().iter().any(|finding| finding.attack() == "method-unlisted"), "{report}");
}

#[tokio::test]
async fn the_careful_twin_is_clean() {
    for attack in ["", REPLAY] {
        let report = run("none", attack).await;
        assert!(report.is_clean(), "{report}");
        let sent: BTreeSet<&str> = report.sent().map(|(attack, _)| attack).collect();
        let unsent: Vec<&str> = ATTACKS.iter().map(|(id, _)| *id).filter(|id| !sent.contains(id)).collect();
        assert_eq!(unsent, if attack.is_empty() { vec![REPLAY] } else { vec![] }, "every attack is sent");
    }
}

/// What a service does with tokens of keys that it does not have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unknown {
    /// As one whose keys are elsewhere, and which may not ask for them so often.
    ComeAgain,
    /// The same, and nothing says that it passes.
    Never,
    /// The same for tokens that have ended.
    AlsoExpired,
    /// The same for everybody who comes after one of them.
    Everybody,
    /// The same, but for whom it remembers.
    AllWhoAreNew,
    /// Everybody who comes after one of them is nobody.
    Forgets,
}

async fn run_unknown(does: Unknown) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap();
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(jwt);
    let stack = stack.route("GET /orders", require(role("clerk").unwrap())).build().unwrap();
    let app = stack.protect(Router::new().route("/orders", get(async || "orders")));
    let (known, seen) = (decoded_kid(&issuer.token().mint()), Arc::new(Mutex::new(false)));
    let remembered = Arc::<Mutex<HashSet<String>>>::default();
    let service = service_fn(move |request: Request<Body>| {
        let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let claims = decoded(token.split('.').nth(1).unwrap_or_default());
        let kid = decoded_kid(&token);
        // A token that names none, of the algorithm of a key that is there, may be of a new one.
        let may_be_new = kid.is_null() && decoded(token.split('.').next().unwrap_or_default())["alg"] == "ES256";
        let is_unknown = (kid.is_string() && kid != known) || may_be_new;
        let now = SystemClock::new().now().unix_seconds();
        let is_refused = match does {
            Unknown::ComeAgain | Unknown::Never => is_unknown,
            Unknown::AlsoExpired => is_unknown || claims["exp"].as_u64().is_some_and(|end| end < now),
            Unknown::Everybody => {
                let mut seen = seen.lock().unwrap();
                *seen |= is_unknown;
                *seen && !token.is_empty()
            }
            Unknown::AllWhoAreNew => {
                let (mut seen, mut remembered) = (seen.lock().unwrap(), remembered.lock().unwrap());
                *seen |= is_unknown;
                // By its claims: of a deterministic algorithm, a token with the same claims is the same token.
                let is_new = remembered.insert(claims.to_string());
                is_unknown || (*seen && is_new && !token.is_empty())
            }
            Unknown::Forgets => {
                let mut seen = seen.lock().unwrap();
                *seen |= is_unknown;
                *seen && !token.is_empty()
            }
        };
        let is_forgotten = does == Unknown::Forgets && !is_unknown;
        let app = app.clone();
        async move {
            if !is_refused {
                return app.oneshot(request).await;
            }
            if is_forgotten {
                let refusal = Response::builder().status(401).header("www-authenticate", "Bearer");
                return Ok(refusal.body(Body::empty()).unwrap());
            }
            let refusal = Response::builder().status(503);
            let refusal = if does == Unknown::Never { refusal } else { refusal.header("retry-after", "10") };
            Ok(refusal.body(Body::empty()).unwrap())
        }
    });
    let profile = Profile::new().route("GET /orders", ["clerk"]).unwrap();
    let profile = profile.role("clerk", issuer.token().role("clerk")).role("guest", issuer.token().role("guest"));
    attack_suite(service, profile).run().await
}

fn decoded_kid(token: &str) -> Value {
    decoded(token.split('.').next().unwrap_or_default())["kid"].clone()
}

#[tokio::test]
async fn only_for_unknown_keys_it_may_be_503_with_a_time() {
    let report = run_unknown(Unknown::ComeAgain).await;
    assert!(report.is_clean(), "{report}");
    let after = "a good token after those of unknown keys";
    for (does, attack, sent, got) in [
        (Unknown::Never, "token-key-id", "a key of nobody", "503"),
        (Unknown::AlsoExpired, "token-expired", "an hour ago", "503"),
        (Unknown::Everybody, "token-key-id", after, "503"),
        (Unknown::AllWhoAreNew, "token-key-id", after, "503"),
        (Unknown::Forgets, "token-key-id", after, "401"),
    ] {
        let report = run_unknown(does).await;
        let found =
            report.findings().iter().find(|finding| finding.attack() == attack && finding.sent().contains(sent));
        assert_eq!(found.map(|finding| finding.got()), Some(got), "{does:?}: {report}");
        let others: BTreeSet<&str> =
            report.findings().iter().map(|finding| finding.attack()).filter(|other| *other != attack).collect();
        // Those that name no key, and those that say where another one is.
        let of_nobody: &[&str] = &["token-embedded-key", "token-foreign-key", "token-key-url"];
        let expected = if does == Unknown::Never { of_nobody } else { &[] };
        let is_for_all = matches!(does, Unknown::Everybody | Unknown::AllWhoAreNew | Unknown::Forgets);
        assert!(is_for_all || others.iter().eq(expected), "{does:?}: {report}");
    }
}

#[tokio::test]
async fn good_requests_that_are_refused_are_a_finding() {
    let fixture = fixture();
    let nobody = Profile::new().public("GET /nowhere").unwrap();
    let report = attack_suite(fixture.app, nobody).run::<Body, _>().await;
    assert_eq!(report.findings()[0].attack(), "control", "{report}");
}

/// A gate in CI that stays green when the profile has lost its routes guards nothing.
#[tokio::test]
async fn where_nothing_is_attacked_nothing_is_clean() {
    let limited = Profile::new().limit(10);
    for profile in [Profile::new(), Profile::new().public("GET /health").unwrap(), limited] {
        let report = attack_suite(fixture().app, profile).run::<Body, _>().await;
        assert!(!report.is_clean(), "{report}");
        let proof = report.findings().iter().find(|finding| finding.sent() == "the profile").unwrap();
        assert_eq!((proof.attack(), proof.got()), ("control", "none"));
        assert!(report.not_sent().any(|attack| attack == "credential-missing"), "{report}");
        assert!(report.to_string().contains("not sent: ") && report.to_json().contains(r#""not_sent""#));
        assert!(report.to_junit().contains(r#"name="credential-missing"><skipped/>"#), "{}", report.to_junit());
    }
}

#[tokio::test]
async fn a_report_is_text_json_and_junit() {
    let report = run("token-expired", "").await;
    let finding = report.findings().iter().find(|finding| finding.attack() == "token-expired").unwrap();
    assert_eq!((finding.route(), finding.got()), ("GET /orders", "200"));
    assert!(
        report
            .to_string()
            .contains("token-expired: GET /orders, an hour ago: expected a refusal (3xx or 4xx), got 200")
    );
    let json: Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["findings"][0]["attack"], "token-expired");
    let junit = report.to_junit();
    assert!(junit.contains(r#"name="token-expired">"#) && junit.contains(r#"name="token-audience"/>"#), "{junit}");
}

#[test]
fn a_profile_is_checked() {
    for line in ["/orders", "GET orders", "GET /orders/{id}", "G@T /orders", "GET /a b", "GET /a#b"] {
        assert!(Profile::new().public(line).is_err(), "{line}");
    }
    let profile = || Profile::new().public("POST /orders").unwrap();
    assert!(profile().body("POST /orders", "application/json", "{}").is_ok());
    assert!(profile().body("PUT /orders", "application/json", "{}").is_err(), "no such route");
    assert!(profile().body("POST /orders", "a\nb", "{}").is_err(), "no such type");
    for host in ["", "api.example.com/", "https://api.example.com", "a@api.example.com", "api example.com", "a:b"] {
        assert!(Profile::new().host(host).is_err(), "{host}");
    }
    assert!(Profile::new().host("api.example.com:8443").is_ok() && Profile::new().host("[::1]:8443").is_ok());
}

/// A service for one host refuses whatever is for another, or for none.
#[tokio::test]
async fn the_requests_are_for_the_host_of_the_profile() {
    let issuer = TestIssuer::new("orders-api");
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap();
    let app = Stack::builder()
        .tls(TlsLayer::require().hosts(["api.example.com"]).unwrap())
        .authenticate(jwt)
        .route("GET /orders", require(role("clerk").unwrap()))
        .build()
        .unwrap()
        .protect(Router::new().route("/orders", get(async || "orders")));
    let profile = || {
        let token = |role: &str| issuer.token().subject(role).role(role);
        let profile = Profile::new().route("GET /orders", ["clerk"]).unwrap();
        profile.role("clerk", token("clerk")).role("guest", token("guest"))
    };
    for (host, is_clean) in [(None, false), (Some("other.example.com"), false), (Some("api.example.com"), true)] {
        let profile = host.map_or_else(profile, |host| profile().host(host).unwrap());
        let report = attack_suite(app.clone(), profile).run::<Body, _>().await;
        assert_eq!(report.is_clean(), is_clean, "{host:?}: {report}");
    }
}

/// Public lines of a stack are no guarded routes, in whatever order a profile names them.
#[tokio::test]
async fn public_lines_of_a_matrix_are_not_guarded() {
    let fixture = fixture();
    let builder = Stack::builder().dangerous_plain_http();
    let builder =
        builder.authenticate(JwtAuthenticator::builder().issuer(fixture.issuer.access_tokens()).build().unwrap());
    let builder = builder.route("GET /health", public()).route("GET /orders", require(role("clerk").unwrap()));
    let matrix = builder.build().unwrap().matrix(["clerk", "guest"]);
    assert!(matrix.is_public("GET /health") && !matrix.is_public("GET /orders") && !matrix.is_public("GET /"));
    let token = |role: &str| fixture.issuer.token().role(role);
    let profile = || Profile::new().role("clerk", token("clerk")).role("guest", token("guest"));
    for (name, profile) in [
        ("the matrix alone", profile().matrix(&matrix, &[]).unwrap()),
        ("before", profile().public("GET /health").unwrap().matrix(&matrix, &[]).unwrap()),
        ("after", profile().matrix(&matrix, &[]).unwrap().public("GET /health").unwrap()),
        (
            "guarded, and then not",
            profile().matrix(&matrix, &[]).unwrap().route("GET /health", []).unwrap().public("GET /health").unwrap(),
        ),
    ] {
        let report = attack_suite(fixture.app.clone(), profile).run::<Body, _>().await;
        assert!(report.is_clean(), "{name}: {report}");
    }
}

/// The job's log has the report then as well.
#[tokio::test]
async fn a_service_that_panics_is_a_finding() {
    let fixture = fixture();
    let profile = fixture.profile("");
    let service = service_fn(move |request: Request<Body>| {
        let app = fixture.app.clone();
        async move {
            let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            assert_ne!(value, Some("Bearer null.null.null"), "no token");
            app.oneshot(request).await
        }
    });
    let report = attack_suite(service, profile).run::<Body, _>().await;
    let found: Vec<_> = report.findings().iter().map(|found| (found.attack(), found.sent(), found.got())).collect();
    assert_eq!(found, [("token-garbage", "null.null.null", "0")], "{report}");
}

/// What the quickstart knows of its issuer, for the handlers that are included.
mod identity {
    pub(crate) const ISSUER: &str = "https://id.quickstart.invalid";
}
#[path = "../examples/quickstart/api.rs"]
mod api;

/// The routes, handlers and policy of the quickstart, with the matrix of its own policy.
#[tokio::test]
async fn the_quickstart_is_clean() {
    let issuer = TestIssuer::new("orders-api");
    let policy = Rbac::from_toml(include_str!("../examples/quickstart/policy.toml")).unwrap();
    let (list, cancel) = (policy.permission("orders:list").unwrap(), policy.permission("orders:cancel").unwrap());
    let roles = policy.roles();
    let token = |role: &str| issuer.token().subject("mallory").role(role);
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_second(200))
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .policy(policy)
        .route("GET /health", public())
        .route("GET /me", require(authenticated()))
        .route("GET /orders", require(list))
        .route("GET /orders/{id}", require(authenticated()))
        .route("DELETE /orders/{id}", require(cancel))
        .build()
        .unwrap();
    let mut profile = Profile::new()
        .public("GET /health")
        .unwrap()
        // The handler asks for ownership, which the table does not know.
        .route("GET /orders/1", ["manager"])
        .unwrap()
        .matrix(&stack.matrix(roles.clone()), &[("id", "1")])
        .unwrap()
        .hidden("GET /orders/1", "GET /orders/9", token("manager"), token("customer"))
        .unwrap();
    for role in &roles {
        profile = profile.role(role, token(role));
    }
    let report = attack_suite(stack.protect(api::router()), profile).run::<Body, _>().await;
    assert!(report.is_clean(), "{report}");
    assert!(report.sent().any(|(attack, count)| attack == "role-crossing" && count > 1), "{report:?}");
}

/// Layers that are stacked by hand, with the guard at the route, as the module docs of the layers show it.
#[tokio::test]
async fn layers_by_hand_are_clean() {
    let issuer = TestIssuer::new("orders-api");
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap();
    let guarded = get(async || "orders").layer(require(role("clerk").unwrap()));
    let app = ServiceBuilder::new()
        .layer(TlsLayer::require())
        .layer(RateLimitLayer::per_client(Quota::per_second(200)).unwrap())
        .layer(AuthnLayer::new(jwt))
        .service(Router::new().route("/orders", guarded));
    let token = |role: &str| issuer.token().subject("alice").role(role);
    let profile = Profile::new().route("GET /orders", ["clerk"]).unwrap();
    let profile = profile.role("clerk", token("clerk")).role("guest", token("guest"));
    let report = attack_suite(app, profile).run::<Body, _>().await;
    assert!(report.is_clean(), "{report}");
}

/// A whole stack from a document, as `examples/config` has it, with the matrix of its own policy.
#[tokio::test]
async fn a_stack_of_a_document_is_clean() {
    let issuer = TestIssuer::new("orders-api");
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("keys.json"), issuer.jwks()).unwrap();
    let text = format!(
        "[tls]\n[[issuers]]\nissuer = '{name}'\naudience = 'orders-api'\nalgorithms = ['ES256']\n\
         roles_claim = 'roles'\nkeys = {{ file = '{dir}/keys.json' }}\n\
         [policy]\nfile = 'examples/config/policy.toml'\n\
         [routes]\n'GET /health' = 'public'\n'GET /orders' = {{ permission = 'orders:list' }}\n\
         'DELETE /orders/{{id}}' = {{ permission = 'orders:cancel' }}\n\
         [quotas.flood]\ncount = 20\nper = 'hour'\n[[limits]]\nby = 'client'\nquotas = ['flood']\n",
        name = issuer.name(),
        dir = files.path().display(),
    );
    let stack = Config::from_toml(&text).unwrap().builder().await.unwrap().build().unwrap();
    let policy = Rbac::from_toml_file("examples/config/policy.toml").unwrap();
    let router = Router::new()
        .route("/health", get(async || "ok"))
        .route("/orders", get(async || "orders"))
        .route("/orders/{id}", delete(async || StatusCode::NO_CONTENT));
    let mut profile = Profile::new().public("GET /health").unwrap().limit(20);
    profile = profile.matrix(&stack.matrix(policy.roles()), &[("id", "1")]).unwrap();
    for role in policy.roles() {
        profile = profile.role(&role, issuer.token().subject("alice").role(&role));
    }
    let unavailable = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&unavailable);
    let app = ServiceBuilder::new()
        .map_response(move |response: Response<_>| {
            counts.fetch_add(u32::from(response.status() == StatusCode::SERVICE_UNAVAILABLE), Ordering::SeqCst);
            response
        })
        .service(stack.protect(router));
    let report = attack_suite(app, profile).run::<Body, _>().await;
    assert!(report.is_clean(), "{report}");
    assert!(
        unavailable.load(Ordering::SeqCst) > 0,
        "key ids that nobody has are asked for at the file, within a budget"
    );
    assert!(report.sent().any(|(attack, count)| attack == "role-crossing" && count > 0), "{report:?}");
}

/// API keys alone, as the manual's page on them begins.
#[tokio::test]
async fn a_service_with_keys_alone_is_clean() {
    let keys = TestKeys::new();
    let key = keys.good(NewApiKey::for_subject("billing").role("clerk"));
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(keys.authenticator())
        .route("GET /health", public())
        .route("GET /orders", require(role("clerk").unwrap()))
        .build()
        .unwrap();
    let router = Router::new().route("/health", get(async || "ok")).route("/orders", get(async || "orders"));
    let profile = Profile::new().public("GET /health").unwrap().route_for_keys("GET /orders").unwrap();
    let report = attack_suite(stack.protect(router), profile.api_key("x-api-key", &key)).run::<Body, _>().await;
    assert!(report.is_clean(), "{report}");
    for sent in ["control", "key-altered", "credential-twice", "credential-plain-http"] {
        assert!(report.sent().any(|(attack, count)| attack == sent && count > 0), "{sent}: {report:?}");
    }
}

/// Serves over TLS on loopback; whoever is to trust it trusts this authority. Keeps the `User-Agent`s and methods that came.
async fn served(app: Router) -> (String, String, Arc<Mutex<Vec<(String, String)>>>) {
    let authority = TestAuthority::new("attacked");
    let listener =
        TlsListener::bind("127.0.0.1:0", authority.server(["localhost"]).server_certificate()).await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let seen = Arc::<Mutex<Vec<(String, String)>>>::default();
    let keeps = Arc::clone(&seen);
    let app = ServiceBuilder::new()
        .map_request(move |request: Request<Body>| {
            let agent = request.headers().get("user-agent").map(|agent| agent.to_str().unwrap().to_owned());
            keeps.lock().unwrap().push((request.method().to_string(), agent.unwrap_or_default()));
            request
        })
        .service(app);
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
    (url, authority.pem().to_owned(), seen)
}

fn over_network(guarded: bool) -> (Router, Profile) {
    let issuer = TestIssuer::new("orders-api");
    let builder = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap());
    let stack = match guarded {
        true => builder.route("GET /orders", require(role("clerk").unwrap())).build().unwrap(),
        false => builder.route("GET /orders", public()).build().unwrap(),
    };
    let app = stack.protect(Router::new().route("/orders", get(async || "orders")));
    let profile = Profile::new().route("GET /orders", ["clerk"]).unwrap();
    let profile = profile.role("clerk", issuer.token().role("clerk")).role("guest", issuer.token().role("guest"));
    (Router::new().fallback_service(app), profile)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the pace of real requests")]
async fn over_the_network_the_careful_are_clean_and_asked_slowly_with_safe_methods() {
    let (app, profile) = over_network(true);
    let (url, roots, seen) = served(app).await;
    let start = std::time::Instant::now();
    let report = attack_url(&url, profile).unwrap().roots(&roots).run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    for attack in ["token-expired", "role-crossing", "path-dot-segments", "credential-in-url"] {
        assert!(report.sent().any(|(sent, count)| sent == attack && count > 0), "{attack}");
    }
    assert!(!report.sent().any(|(sent, _)| sent == "credential-plain-http"), "that is not for the sender to say");
    let seen = seen.lock().unwrap();
    let requests = u32::try_from(seen.len()).unwrap();
    assert!(requests > 100, "{requests}");
    assert!(start.elapsed() >= Duration::from_millis(100) * (requests - 1), "ten a second");
    for (method, agent) in seen.iter() {
        assert!(["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method.as_str()), "{method}");
        assert!(agent.starts_with("portcullis-attack-suite/"), "{agent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_network_a_missing_guard_is_found() {
    let (app, profile) = over_network(false);
    let (url, roots, _) = served(app).await;
    let report = attack_url(&url, profile).unwrap().roots(&roots).run().await.unwrap();
    for attack in ["credential-missing", "role-crossing", "method-head"] {
        assert!(report.findings().iter().any(|finding| finding.attack() == attack), "{attack}: {report}");
    }
}

/// An untrusted certificate is no answer: nothing is sent, and no request passes for refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_network_nothing_is_sent_to_whoever_is_not_trusted() {
    let (app, _) = over_network(false);
    let (url, roots, seen) = served(app).await;
    let others = TestAuthority::new("another");
    let profile = || Profile::new().public("GET /orders").unwrap();
    let report = attack_url(&url, profile()).unwrap().roots(others.pem()).run().await.unwrap();
    assert!(seen.lock().unwrap().is_empty(), "{report}");
    let controls: Vec<_> = report.findings().iter().filter(|finding| finding.attack() == "control").collect();
    assert!(controls.iter().any(|finding| finding.got() == "0"), "{report}");
    assert!(
        report.findings().iter().all(|finding| finding.got() == "0" || finding.sent() == "the profile"),
        "{report}"
    );

    attack_url(&url, profile()).unwrap().roots(&roots).run().await.unwrap();
    assert!(!seen.lock().unwrap().is_empty(), "by the trusted certificate it is the same service");
}
