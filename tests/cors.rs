//! tower-http's `CorsLayer` stands outside the stack: it answers preflights, and refusals carry its headers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use http::{Method, Request, Response, header};
use portcullis::{
    EXPOSED_HEADERS,
    guard::{authenticated, require},
    stack::Stack,
    tls::TlsLayer,
};
use support::{Probe, get, send, test_scheme, with};
use tower::Layer;
use tower_http::cors::CorsLayer;

const ORIGIN: &str = "https://shop.example.com";

fn stack() -> Stack {
    Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("GET /orders", require(authenticated()))
        .build()
        .unwrap()
}

fn preflight() -> Request<()> {
    let mut request = with(with(get("/orders"), "origin", ORIGIN), "access-control-request-method", "GET");
    *request.method_mut() = Method::OPTIONS;
    request
}

fn allows<B>(response: &Response<B>) -> bool {
    response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == ORIGIN)
}

#[tokio::test]
async fn a_preflight_is_answered_outside() {
    let probe = Probe::default();
    let cors = CorsLayer::new().allow_origin([ORIGIN.parse().unwrap()]).allow_methods([Method::GET]);
    let app = cors.expose_headers(EXPOSED_HEADERS).layer(stack().protect(probe.clone()));

    let response = send(&app, preflight()).await;
    assert_eq!(response.status(), 200);
    assert!(allows(&response));
    assert_eq!(probe.seen.calls(), 0, "a preflight never reaches the handler");

    let refused = send(&app, with(get("/orders"), "origin", ORIGIN)).await;
    assert_eq!(refused.status(), 401);
    assert!(allows(&refused), "a refusal can be read by the browser application");
    let exposed = refused.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().to_ascii_lowercase();
    for name in ["www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(exposed.split(',').any(|held| held.trim() == name), "{name} in {exposed}");
    }

    let allowed = send(&app, with(with(get("/orders"), "origin", ORIGIN), "authorization", "Test alice")).await;
    assert_eq!(allowed.status(), 200);
    assert!(allows(&allowed));
}

#[tokio::test]
async fn a_preflight_without_a_cors_layer_is_refused() {
    let probe = Probe::default();
    let app = stack().protect(probe.clone());
    let response = send(&app, preflight()).await;
    assert_eq!(response.status(), 401, "as whatever no rule lets in");
    assert_eq!(probe.seen.calls(), 0);
    let plain_options = {
        let mut request = get("/orders");
        *request.method_mut() = Method::OPTIONS;
        request
    };
    assert_eq!(send(&app, plain_options).await.status(), 401, "OPTIONS alone is a method without a rule");
}
