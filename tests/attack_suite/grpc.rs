//! Services of gRPC, which refuse and fail with `200` and a status of their own.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    SecurityContext, Slot,
    guard::public,
    jwt::JwtAuthenticator,
    stack::Stack,
    testing::{
        TestIssuer,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::service_fn;

const METHOD: &str = "POST /pay.Payments/Transfer";
const MESSAGE: &[u8] = b"\0\0\0\0\x02\x08\x01";

type Answers = fn() -> Response<Body>;

/// Refused or failed before anything was sent ("Trailers-Only").
fn failed(code: &'static str) -> Response<Body> {
    let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
    head.body(Body::empty()).unwrap()
}

/// A message, and what came of the call after it, if it is said.
fn messages(code: Option<&'static str>) -> Response<Body> {
    let trailers =
        code.map(|code| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))]));
    let body = Full::new(Bytes::from_static(MESSAGE)).with_trailers(async move { trailers.map(Ok::<_, Infallible>) });
    let head = Response::builder().header("content-type", "application/grpc+proto").header("cache-control", "no-store");
    head.body(Body::new(body)).unwrap()
}

/// A service whose handler refuses, in this way, whoever is none of its clerks, and answers its clerks so.
async fn run(stranger: Answers, clerk: Answers) -> AttackReport {
    let issuer = TestIssuer::new("payments");
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route(METHOD, public())
        .build()
        .unwrap();
    let service = stack.protect(service_fn(move |request: Request<Body>| async move {
        let who = SecurityContext::of(request.extensions()).and_then(|context| context.identity(Slot::Subject));
        Ok::<_, Infallible>(match who {
            None => failed("16"),
            Some(who) if who.has_role("clerk") => clerk(),
            Some(_) => stranger(),
        })
    }));
    let profile = Profile::new()
        .route(METHOD, ["clerk"])
        .and_then(|profile| profile.body(METHOD, "application/grpc", MESSAGE))
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    attack_suite(service, profile).run::<Body, _>().await
}

fn found(report: &AttackReport) -> Vec<&str> {
    let mut found: Vec<_> = report.findings().iter().map(|finding| finding.attack()).collect();
    found.dedup();
    found
}

#[tokio::test]
async fn what_a_handler_refuses_is_refused() {
    let good = || messages(Some("0"));
    for denied in [|| failed("7"), || messages(Some("7"))] {
        let report = run(denied, good).await;
        // No route refuses as this handler does where nobody is known, which tells that the method is there.
        assert_eq!(found(&report), ["existence-route"], "{report}");
    }
    for let_in in [good, || messages(None), || failed("13")] {
        let report = run(let_in, good).await;
        assert!(found(&report).contains(&"role-crossing"), "a guest is let in, or gets as far as a fault: {report}");
    }
}

#[tokio::test]
async fn a_good_call_that_fails_is_no_success() {
    let clerks: [(&str, Answers); 5] = [
        ("the message is none that it takes", || failed("3")),
        ("denied", || failed("7")),
        ("fails behind its message", || messages(Some("13"))),
        ("ends without a status", || messages(None)),
        ("a status that is no number", || failed("OK")),
    ];
    for (name, clerk) in clerks {
        let report = run(|| failed("7"), clerk).await;
        assert!(found(&report).contains(&"control"), "{name}: {report}");
    }
}
