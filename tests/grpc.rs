//! Refusals of gRPC calls, read by tonic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "grpc/real.rs"]
mod real;
mod support;

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt;
use portcullis::{
    Connection, Rejection, RejectionKind, TlsVersion,
    guard::{authenticated, deny, public, require, role, scope},
    problem::ProblemLayer,
    rate_limit::{ConcurrencyLayer, LimitBy, OnStoreError, Quota, RateLimitLayer},
    stack::Stack,
    tls::TlsLayer,
};
use support::{Probe, Still, send, test_scheme, with};
use tonic::{Code, Status, service::Routes};
use tonic_types::StatusExt;
use tower::{Layer, ServiceExt, service_fn};

type Answer = Response<http_body_util::Full<bytes::Bytes>>;

fn call(path: &str) -> Request<()> {
    let request = Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc+proto");
    let mut request = request.body(()).unwrap();
    let peer = "198.51.100.7:52100".parse().unwrap();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

/// What a client makes of it; the answer is one of the shape that gRPC demands.
fn status(answer: &Answer) -> Status {
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    // tonic writes it where there is no such method.
    let length = answer.headers().get("content-length").map(|length| length.to_str().unwrap());
    assert_eq!(
        length,
        (answer.headers()["grpc-status"] == "12" && !answer.headers().contains_key("grpc-message")).then_some("0")
    );
    assert!(answer.body().is_end_stream(), "the head is all");
    Status::from_header_map(answer.headers()).expect("a grpc-status")
}

#[tokio::test]
async fn a_limited_call_is_told_when_to_come_back() {
    let app = Stack::builder()
        .clock(Still)
        .dangerous_plain_http()
        .limit_clients(Quota::per_hour(60).burst(1))
        .fallback(public())
        .build()
        .unwrap()
        .protect(Probe::default());
    assert_eq!(send(&app, call("/orders.Orders/List")).await.status(), StatusCode::OK);
    let answer = send(&app, call("/orders.Orders/List")).await;
    let told = status(&answer);
    assert_eq!((told.code(), told.message()), (Code::ResourceExhausted, "Too many requests; try again later."));
    let retry = told.get_details_retry_info().expect("a RetryInfo");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(60)));
    assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "60000");
    assert_eq!(answer.headers()["ratelimit"], r#""client";r=0;t=60"#, "as metadata");

    // Another client of the same service is answered as ever.
    let mut rest = call("/orders");
    rest.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let answer = send(&app, rest).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert!(!answer.headers().contains_key("grpc-status"));
}

#[tokio::test]
async fn waiting_that_does_not_help_is_told_as_well() {
    let limit = RateLimitLayer::per(LimitBy::route(), Quota::per_hour(1)).unwrap().with_cost(2).unwrap();
    let app = ProblemLayer::new().layer(limit.layer(Probe::default()));
    let answer = send(&app, call("/a.B/C")).await;
    let told = status(&answer);
    assert_eq!(told.code(), Code::ResourceExhausted);
    assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "-1", "do not try again");
    assert!(told.get_details_retry_info().is_none());
}

#[tokio::test]
async fn one_call_too_many_at_the_same_time() {
    let busy = ConcurrencyLayer::per(LimitBy::route(), 1).unwrap();
    let held = busy.layer(service_fn(async |_: Request<()>| std::future::pending().await));
    let mut waiting = Box::pin(async {
        let _: Result<Answer, std::convert::Infallible> = tower::ServiceExt::oneshot(held, call("/a.B/C")).await;
    });
    assert!(
        std::future::Future::poll(waiting.as_mut(), &mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_pending()
    );
    let app = ProblemLayer::new().layer(busy.layer(Probe::default()));
    let told = status(&send(&app, call("/a.B/C")).await);
    assert_eq!(told.code(), Code::ResourceExhausted);
    assert_eq!(told.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn every_refusal_has_a_status() {
    for (kind, code) in [
        (RejectionKind::InvalidRequest, Code::InvalidArgument),
        (RejectionKind::Unauthenticated, Code::Unauthenticated),
        (RejectionKind::InvalidCredential, Code::Unauthenticated),
        (RejectionKind::InsufficientAuthentication, Code::Unauthenticated),
        (RejectionKind::Forbidden, Code::PermissionDenied),
        (RejectionKind::CrossSite, Code::PermissionDenied),
        (RejectionKind::InsufficientScope, Code::PermissionDenied),
        (RejectionKind::NotFound, Code::Unimplemented),
        (RejectionKind::PlainHttp, Code::FailedPrecondition),
        (RejectionKind::Redirect, Code::FailedPrecondition),
        (RejectionKind::Misdirected, Code::FailedPrecondition),
        (RejectionKind::InvalidPath, Code::Unimplemented),
        (RejectionKind::TooEarly, Code::Unavailable),
        (RejectionKind::RateLimited, Code::ResourceExhausted),
        (RejectionKind::Misconfigured, Code::Internal),
        (RejectionKind::Unavailable, Code::Unavailable),
    ] {
        let refuse = service_fn(move |_: Request<()>| {
            let rejection = Rejection::new(kind, "kid 4711 unknown");
            std::future::ready(Ok::<Answer, std::convert::Infallible>(rejection.to_response()))
        });
        let answer = send(&ProblemLayer::new().layer(refuse), call("/a.B/C")).await;
        let told = status(&answer);
        let message = if kind == RejectionKind::NotFound { "" } else { kind.detail() };
        assert_eq!((told.code(), told.message()), (code, message));
        assert!(!format!("{:?}", answer.headers()).contains("4711"));
    }
}

#[tokio::test]
async fn the_stack_refuses_calls_in_their_own_way() {
    let ledger = scope("ledger").unwrap();
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .limit(RateLimitLayer::per_principal(Quota::per_hour(9)).unwrap().on_store_error(OnStoreError::Refuse))
        .route("POST /a.B/Read", require(authenticated()))
        .route("POST /a.B/Ask", require(ledger))
        .build()
        .unwrap()
        .protect(Probe::default());
    let anonymous = send(&app, call("/a.B/Read")).await;
    assert_eq!(status(&anonymous).code(), Code::Unauthenticated);
    assert!(anonymous.headers().contains_key("www-authenticate"), "metadata, like the rest");
    for (path, code) in [
        ("/a.B/Ask", Code::PermissionDenied),
        ("/a.B/Other", Code::PermissionDenied),
        // A method has one spelling.
        ("/x/../a.B/Read", Code::Unimplemented),
        ("/a.B%2FRead", Code::Unimplemented),
    ] {
        let answer = send(&app, with(call(path), "authorization", "Test alice")).await;
        assert_eq!(status(&answer).code(), code, "{path}");
    }
    let answer = send(&app, with(call("/a.B/Read"), "authorization", "Test alice")).await;
    assert!(!answer.headers().contains_key("grpc-status"), "what passes is the service's own");
}

#[tokio::test]
async fn what_is_hidden_looks_like_what_is_not_there() {
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("POST /a.B/Hidden", require(role("manager").unwrap()).hide())
        .route("POST /a.B/Nothing", require(authenticated()))
        .fallback(deny().hide())
        .build()
        .unwrap();
    // tonic's own answer to a method that it does not have.
    let app = stack.protect(Routes::default().into_axum_router());
    let seen = async |path: &str, version: Version| -> (StatusCode, HeaderMap, bytes::Bytes) {
        let mut request = with(call(path), "authorization", "Test alice").map(|()| axum::body::Body::empty());
        *request.version_mut() = version;
        let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    };
    let nothing = seen("/a.B/Nothing", Version::HTTP_2).await;
    assert_eq!((nothing.0, &nothing.1["grpc-status"]), (StatusCode::OK, &"12".parse().unwrap()));
    assert_eq!(seen("/a.B/Hidden", Version::HTTP_2).await, nothing);
    assert_eq!(seen("/a.B/Unknown", Version::HTTP_2).await, nothing);
    // There is no gRPC before HTTP/2, so this is a client that says so to see more.
    for path in ["/a.B/Hidden", "/a.B/Unknown"] {
        let (status, headers, _) = seen(path, Version::HTTP_11).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
    }
}
