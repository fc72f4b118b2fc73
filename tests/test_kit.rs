//! The test kit: its provider is one that the library trusts, in every algorithm, in memory and over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use http::{Request, Response};
use portcullis::{
    Clock, Instants, Principal, PrincipalKind, RejectionKind, SystemClock,
    audit::AuditLayer,
    conformance,
    guard::{authenticated, require},
    jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet, keys::LiveKeys},
    policy::{Rbac, Verdict},
    stack::Stack,
    testing::{Answers, Captured, TestClock, TestIssuer, as_principal},
    tls::TlsLayer,
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
    issuer.fail();
    conformance::key_source_without_keys(&issuer, AT).await;
    let refused = jwt.verify(&issuer.token().mint(), AT).unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::Unavailable);
    issuer.recover();
    assert!(jwt.verify(&issuer.token().mint(), AT).is_ok());
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
        .build()
        .unwrap();
    let app = stack.protect(service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Full::<bytes::Bytes>::from("x")))
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
    let empty = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.clone().assert_allowed()));
    assert!(empty.is_err(), "no request, no record");
}

fn portcullis_policy() -> Rbac {
    Rbac::from_toml("version = \"1\"\npermissions = [\"orders:list\"]\n[roles.clerk]\ngrants = [\"orders:list\"]\n")
        .unwrap()
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
