//! The test kit: its provider is one that the library trusts, in every algorithm, in memory and over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use http::{Request, Response};
use portcullis::{
    Clock, Instants, Principal, PrincipalKind, RejectionKind, RequestHead, SystemClock,
    api_key::NewApiKey,
    audit::AuditLayer,
    authn::{Authenticator, Outcome},
    client_cert::ClientCertAuthenticator,
    conformance,
    guard::{Authorizer, authenticated, policy as by_policy, require, role, scope},
    jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet, keys::LiveKeys},
    policy::{Rbac, Verdict},
    stack::Stack,
    testing::{Answers, Captured, TestAuthority, TestClock, TestIssuer, TestKeys, as_principal},
    tls::{ClientRoots, TlsLayer, TlsListener},
};
use tower::{Layer, ServiceExt, service_fn};

const NOW: u64 = 1_800_000_000;
const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
const ALGORITHMS: [Algorithm; 13] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];

fn trusting(issuer: &TestIssuer) -> JwtAuthenticator {
    JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap()
}

#[test]
fn tokens_of_every_algorithm_are_good() {
    let asymmetric = &ALGORITHMS[3..];
    for algorithms in [&ALGORITHMS[..3], asymmetric] {
        let issuer = TestIssuer::with("orders-api", algorithms.iter().copied(), TestClock::at_unix(NOW));
        let jwt = trusting(&issuer);
        for algorithm in algorithms {
            let token = issuer.token().algorithm(*algorithm).subject("alice").role("clerk").tenant("acme").scope("a b");
            let alice = jwt.verify(&token.mint(), AT).unwrap();
            assert_eq!((alice.subject(), alice.tenant()), ("alice", Some("acme")), "{algorithm}");
            assert!(alice.has_role("clerk") && alice.has_scope("b"), "{algorithm}");
            assert!(jwt.verify(&token.clone().by_foreign_key().mint(), AT).is_err(), "{algorithm}");
        }
    }
    let issuer = TestIssuer::with("orders-api", asymmetric.iter().copied(), TestClock::at_unix(NOW));
    assert_eq!(KeySet::from_jwks(&issuer.jwks()).unwrap().keys().len(), asymmetric.len(), "what is published is read");
}

#[tokio::test]
async fn it_is_a_source_of_keys() {
    conformance::key_source(&TestIssuer::new("orders-api"), AT).await;
    let issuer = TestIssuer::with("orders-api", [Algorithm::ES256], TestClock::at_unix(NOW));
    let jwt = trusting(&issuer);
    let old = issuer.token().mint();
    assert!(jwt.verify(&old, AT).is_ok());
    issuer.rotate();
    assert!(jwt.verify(&old, AT).is_err() && jwt.verify(&issuer.token().by_former_key().mint(), AT).is_err());
    assert!(jwt.verify(&issuer.token().mint(), AT).is_ok());
    // In an outage, who has the keys goes on with them.
    let known = issuer.token().mint();
    issuer.fail();
    issuer.rotate();
    assert!(jwt.verify(&known, AT).is_ok());
    let refused = jwt.verify(&issuer.token().mint(), AT).unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::Unavailable);
    issuer.recover();
    assert!(jwt.verify(&known, AT).is_err() && jwt.verify(&issuer.token().mint(), AT).is_ok());
    issuer.lose_keys();
    conformance::key_source_without_keys(&issuer, AT).await;
    let refused = jwt.verify(&issuer.token().mint(), AT).unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::Unavailable);
    issuer.recover();
    assert!(jwt.verify(&issuer.token().mint(), AT).is_ok());

    let withdraw = || {
        let kid = issuer.keys().keys()[0].id().unwrap().to_owned();
        issuer.rotate();
        kid
    };
    let outage = || issuer.fail();
    conformance::key_source_that_loses_its_origin(&issuer, withdraw, outage, async |_| AT).await;
}

#[tokio::test]
async fn over_loopback() {
    let server = TestIssuer::serve("orders-api", [Algorithm::ES256], SystemClock::new()).await.unwrap();
    let issuer = server.issuer();
    let jwt = || {
        let keys = LiveKeys::discover(issuer.name()).dangerous_http_on_loopback().build().unwrap();
        let profile = Issuer::with_keys(issuer.name(), keys).access_tokens("orders-api").algorithms([Algorithm::ES256]);
        JwtAuthenticator::builder().issuer(profile).build().unwrap()
    };
    let now = SystemClock::new().now();
    let token = issuer.token().mint();
    assert!(jwt().verify_waiting(&token, now).await.is_ok());
    for wrong in [Answers::Status(500), Answers::Text("{}".to_owned()), Answers::Text("not JSON".to_owned())] {
        server.answer(wrong.clone());
        let refused = jwt().verify_waiting(&token, now).await.unwrap_err();
        assert_eq!(refused.kind(), RejectionKind::Unavailable, "{wrong:?}");
    }
    server.answer(Answers::Slow(Duration::from_millis(1)));
    assert!(jwt().verify_waiting(&token, now).await.is_ok());
}

#[tokio::test]
async fn records_are_asserted() {
    let (issuer, records) = (TestIssuer::new("orders-api"), Captured::new());
    let policy = portcullis_policy();
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(records.clone()))
        .authenticate(trusting(&issuer))
        .policy(policy.clone())
        .route("GET /me", require(authenticated()))
        .route("GET /orders", require(policy.permission("orders:list").unwrap()))
        .route("GET /manager", require(role("manager").unwrap()))
        .route("GET /hidden", require(role("manager").unwrap()).hide())
        .route("GET /by-policy", require(by_policy("orders:list").unwrap()))
        .route("GET /scoped", require(scope("orders:write").unwrap()))
        .route("GET /forbidden", require(policy.permission("orders:forbidden").unwrap()))
        .route("GET /handler", require(authenticated()))
        .route("GET /frozen", require(authenticated()))
        .build()
        .unwrap();
    let app = stack.protect(service_fn(async |request: Request<()>| {
        let denied = match request.uri().path() {
            "/frozen" => {
                let _ = Authorizer::of(request.extensions()).unwrap().allows("orders:list", None).await;
                Some(portcullis::Rejection::new(RejectionKind::Forbidden, "the account is frozen"))
            }
            "/handler" => Authorizer::of(request.extensions()).unwrap().check("orders:list", None).await.err(),
            _ => None,
        };
        let answer = || Response::new(http_body_util::Full::<bytes::Bytes>::from("x"));
        Ok::<_, std::convert::Infallible>(denied.map_or_else(answer, |denied| denied.to_response()))
    }));
    let send = async |path: &str| {
        let token = format!("Bearer {}", issuer.token().subject("alice").role("guest").mint());
        let mut request = Request::get(path).header("authorization", token).body(()).unwrap();
        let peer = "198.51.100.7:52100".parse().unwrap();
        request.extensions_mut().insert(portcullis::Connection::tls(peer, portcullis::TlsVersion::Tls13));
        let response = app.clone().oneshot(request).await.unwrap();
        drop(response);
    };
    send("/me").await;
    assert_eq!(records.assert_allowed().subject().unwrap().subject(), "alice");
    send("/orders").await;
    let failed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.clone().assert_denied_by("no such rule")));
    assert!(failed.is_err(), "it can fail");
    send("/orders").await;
    let _ = records.assert_denied_by("permission orders:list");
    send("/orders").await;
    let _ = records.assert_denied_by("orders:list");
    let refused = async |path, kind| {
        send(path).await;
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.clone().assert_refused(kind))).is_ok()
    };
    assert!(refused("/orders", RejectionKind::Forbidden).await && !refused("/orders", RejectionKind::NotFound).await);
    assert!(!refused("/me", RejectionKind::Forbidden).await);
    for (path, by) in [
        ("/manager", "role manager"),
        ("/by-policy", "orders:list"),
        ("/scoped", "scope orders:write"),
        ("/hidden", "role manager"),
        ("/forbidden", "permission orders:forbidden"),
        ("/forbidden", "role \"guest\""),
        ("/handler", "orders:list"),
    ] {
        send(path).await;
        let _ = records.assert_denied_by(by);
    }
    send("/frozen").await;
    let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.assert_denied_by("orders:list")));
    assert!(shown.is_err(), "what was asked to show something denied nothing");
    let empty = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.clone().assert_allowed()));
    assert!(empty.is_err(), "no request, no record");
}

fn portcullis_policy() -> Rbac {
    let text = "version = '1'\npermissions = ['orders:list', 'orders:forbidden']\n\
        [roles.clerk]\ngrants = ['orders:list']\n[roles.guest]\ndenies = ['orders:forbidden']\n";
    Rbac::from_toml(text).unwrap()
}

#[tokio::test]
async fn a_handler_without_tokens() {
    let alice = Principal::builder(PrincipalKind::User, "https://id.invalid", "alice", "test").build();
    let router = axum::Router::new().route("/", axum::routing::get(async |who: Principal| who.subject().to_owned()));
    let app = as_principal(alice).layer(router);
    let response = app.oneshot(Request::new(axum::body::Body::empty())).await.unwrap();
    assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "alice");
    let _ = Verdict::allow();
}

#[tokio::test]
async fn keys_of_every_kind() {
    let keys = TestKeys::with_clock(TestClock::at_unix(NOW));
    let good = keys.good(NewApiKey::for_subject("billing").role("clerk"));
    let authenticator = keys.authenticator();
    let seen = async |key: &str| {
        let request = Request::get("/").header("x-api-key", key).body(()).unwrap();
        authenticator.authenticate(&RequestHead::of(&request), AT).await
    };
    let Outcome::Verified(identity) = seen(&good).await else { panic!("a good key") };
    assert!(identity.in_slot(portcullis::Slot::Subject).unwrap().has_role("clerk"));
    for (name, bad) in [
        ("ended", keys.ended("billing")),
        ("not yet good", keys.not_yet_good("billing")),
        ("revoked", keys.revoked("billing")),
        ("unknown", keys.unknown()),
    ] {
        let Outcome::Refused(rejection) = seen(&bad).await else { panic!("{name}") };
        assert_eq!(rejection.kind(), RejectionKind::InvalidCredential, "{name}");
    }
    assert_eq!(keys.store().len(), 4, "one of them is in no store");
}

#[tokio::test]
async fn certificates_of_servers_and_clients() {
    let (authority, stranger) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    let roots = ClientRoots::from_pem(authority.pem().as_bytes()).unwrap();
    let server = authority.server(["localhost"]).server_certificate();
    let listener = TlsListener::bind("127.0.0.1:0", server).await.unwrap().require_client_certificates(&roots);
    let address = listener.local_addr().unwrap();
    let trusted = ClientCertAuthenticator::by_spiffe_id(["orders.invalid"]).unwrap().build().unwrap();
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(trusted);
    let stack = stack.route("GET /me", require(authenticated())).build().unwrap();
    let me = axum::routing::get(async |who: Principal| who.subject().to_owned());
    let app = stack.protect(axum::Router::new().route("/me", me));
    let in_process = app.clone();
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });

    const NAME: &str = "spiffe://orders.invalid/billing";
    for (name, certificate, good) in [
        ("ours", authority.client([NAME]), true),
        ("ended", authority.ended_client([NAME]), false),
        ("of another authority", stranger.client([NAME]), false),
    ] {
        let identity = format!("{}{}", certificate.pem(), certificate.key_pem());
        let answered = over_tls(address, authority.pem(), &identity).await;
        assert_eq!(answered.as_deref(), good.then_some(NAME), "{name}");
    }
    let mut request = Request::get("/me").body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(authority.client([NAME]).connection());
    assert_eq!(in_process.oneshot(request).await.unwrap().status(), 200, "without a listener");
}

/// Whom each way to go by a certificate takes a client for; the common name is nobody's.
#[tokio::test]
async fn names_of_client_certificates() {
    const NAMES: [&str; 3] = ["billing.internal", "spiffe://orders.invalid/billing", "192.0.2.7"];
    let authority = TestAuthority::new("ours");
    let by_dns = ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap().build().unwrap();
    let by_uri = ClientCertAuthenticator::by_spiffe_id(["orders.invalid"]).unwrap().build().unwrap();
    for (name, names, dns, uri) in [
        ("all kinds", &NAMES[..], 200, 200),
        ("DNS alone", &NAMES[..1], 200, 401),
        ("a URI alone", &NAMES[1..2], 401, 200),
        ("an address alone", &NAMES[2..], 401, 401),
        ("no name", &[], 401, 401),
        ("another's", &["mail.internal"], 401, 401),
    ] {
        for (trusted, expected) in [(by_dns.clone(), dns), (by_uri.clone(), uri)] {
            let stack = Stack::builder().tls(TlsLayer::require()).authenticate(trusted);
            let stack = stack.route("GET /me", require(authenticated())).build().unwrap();
            let app = stack.protect(axum::Router::new().route("/me", axum::routing::get(async || "me")));
            let mut request = Request::get("/me").body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().insert(authority.client(names.iter().copied()).connection());
            assert_eq!(app.oneshot(request).await.unwrap().status(), expected, "{name}");
        }
    }
}

/// What `GET /me` answers whoever has this certificate and key; none if the handshake fails.
async fn over_tls(address: std::net::SocketAddr, roots: &str, identity: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };

    let certificates =
        |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates(roots));
    let config = ClientConfig::builder_with_provider(std::sync::Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_client_auth_cert(certificates(identity), PrivateKeyDer::from_pem_slice(identity.as_bytes()).unwrap())
        .unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.ok()?;
    stream.write_all(b"GET /me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// Whoever verifies while keys change believes the keys of before or of after, and never the former once they are replaced.
#[test]
fn threads_that_verify_while_the_keys_are_swapped() {
    use std::sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    };

    let issuer = TestIssuer::with("orders-api", [Algorithm::HS256], TestClock::at_unix(NOW));
    let jwt = trusting(&issuer);
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let newest = Mutex::new((0, issuer.token().mint()));
    let (good, bad) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while done.load(SeqCst) < 60 {
                    let (generation, token) = newest.lock().unwrap().clone();
                    let before = done.load(SeqCst);
                    let verified = jwt.verify(&token, AT).is_ok();
                    if generation < before {
                        assert!(!verified, "keys {generation} after rotation {before}");
                        bad.fetch_add(1, SeqCst);
                    } else if begun.load(SeqCst) == generation {
                        assert!(verified, "the keys did not change meanwhile");
                        good.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        for generation in 1..=60 {
            // Each side is seen before it goes on.
            let (seen, refused) = (good.load(SeqCst), bad.load(SeqCst));
            while good.load(SeqCst) == seen {
                std::thread::yield_now();
            }
            begun.store(generation, SeqCst);
            issuer.rotate();
            if generation < 60 {
                done.store(generation, SeqCst);
                while bad.load(SeqCst) == refused {
                    std::thread::yield_now();
                }
                *newest.lock().unwrap() = (generation, issuer.token().mint());
            } else {
                done.store(generation, SeqCst);
            }
        }
    });
}

/// The manual's pages name what is there: every attack, and every test of the fault matrix.
#[test]
fn the_pages_name_attacks_and_tests_that_exist() {
    let page = std::fs::read_to_string("docs/testing.md").unwrap();
    for (attack, _) in portcullis::testing::attack::ATTACKS {
        assert!(page.contains(&format!("| `{attack}` |")), "docs/testing.md lacks {attack}");
    }
    let mut sources = std::collections::HashMap::new();
    let mut folders = vec![std::path::PathBuf::from("tests"), "src".into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(path.clone(), std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let page = std::fs::read_to_string("docs/reliability.md").unwrap();
    // What stands between ticks; a link may lead to a function elsewhere.
    let spans = page.split('`').skip(1).step_by(2);
    let named: Vec<(&str, &str)> = spans.filter_map(|word| word.split_once("::")).collect();
    let named: Vec<_> = named.into_iter().filter(|(_, name)| name.contains('_') || *name == "memory").collect();
    assert!(named.len() > 40, "{named:?}");
    for (place, name) in named {
        let function = format!("fn {name}(");
        let is_there = sources.iter().any(|(path, text)| {
            let here =
                path.components().any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == place);
            here && text.split("#[t").skip(1).any(|test| test.split("\n}").next().unwrap_or(test).contains(&function))
        });
        assert!(is_there, "docs/reliability.md names {place}::{name}, which is no test");
    }
}
