//! The route table matches as axum's router does, for any templates and any request target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, extract::MatchedPath, routing::any};
use http::{Method, Request, Response};
use portcullis::{
    guard::{authenticated, public, require},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use proptest::prelude::*;
use support::{Probe, get, test_scheme, with};
use tower::{Service, ServiceExt};

/// The answer of a service that never waits.
fn at_once<S>(service: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match pin!(service.oneshot(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("it waits"),
    }
}

/// Tells which template matched.
fn router(templates: &[String]) -> Router {
    templates.iter().fold(Router::new(), |router, template| {
        router.route(
            template,
            any(async |matched: MatchedPath| {
                let mut response = Response::new(Body::empty());
                response.headers_mut().insert("matched", matched.as_str().parse().unwrap());
                response
            }),
        )
    })
}

fn matched(response: &Response<Body>) -> Option<&str> {
    response.headers().get("matched").map(|value| value.to_str().unwrap())
}

fn base() -> StackBuilder {
    Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme())
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{1,2}",
        2 => Just("{x}".to_owned()),
        1 => Just("{y}".to_owned()),
        1 => "[ab]\\{x\\}",
        1 => "\\{x\\}[ab]",
        1 => Just("{{a}}".to_owned()),
        1 => Just("%61".to_owned()),
        1 => Just("%C3%A9".to_owned()),
    ]
}

fn template() -> impl Strategy<Value = String> {
    let end = prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("/{*rest}")];
    (prop::collection::vec(segment(), 0..4), end).prop_map(|(segments, end)| {
        let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if path.is_empty() && end.is_empty() { "/".to_owned() } else { path + end }
    })
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ab]{1,2}",
        1 => Just(String::new()),
        1 => Just("%61".to_owned()),
        1 => Just("%C3%A9".to_owned()),
        1 => Just("{a}".to_owned()),
        1 => Just("%2F".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just("x".to_owned()),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_names_a_template_if_and_only_if_axum_routes_there(
        templates in prop::collection::vec(template(), 1..6),
        paths in prop::collection::vec(path(), 1..8),
    ) {
        let built = templates.iter().fold(base(), |builder, template| builder.route(format!("ANY {template}"), public())).build();
        let Ok(stack) = built else { return Ok(()) };
        let Ok(router) = catch_unwind(AssertUnwindSafe(|| router(&templates))) else {
            return Err(TestCaseError::fail(format!("the table takes what axum refuses: {templates:?}")));
        };
        for path in paths {
            let request = || get(&path).map(|()| Body::empty());
            let alone = at_once(router.clone(), request());
            // Everything passes the table's own rules; only its lines decide what reaches the router.
            let protected = at_once(stack.protect(router.clone()), request());
            match protected.status().as_u16() {
                200 => prop_assert_eq!(matched(&protected), matched(&alone), "{} of {:?}", path, templates),
                401 => prop_assert!(alone.status() == 404, "{} of {:?} is not named", path, templates),
                400 if path.contains("//") || path.contains("..") || path.contains('%') => {}
                // Another line is about the path with one slash more, or less, at its end.
                400 => {
                    let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
                    let other = at_once(router.clone(), get(&other).map(|()| Body::empty()));
                    prop_assert!(other.status() == 200 && matched(&other) != matched(&alone), "{} of {:?}", path, templates);
                }
                status => prop_assert!(false, "{} for {} of {:?}", status, path, templates),
            }
            prop_assert_eq!(protected.status() == 200, alone.status() == 200 && protected.status() != 400);
        }
    }
}

/// Request targets that are no paths, and paths in absolute form (RFC 9112 §3.2).
#[tokio::test]
async fn request_targets_of_every_form() {
    let closed = base().route("ANY /{*rest}", public()).route("GET /guarded", require(authenticated()));
    let open = || base().route("GET /guarded", require(authenticated())).fallback(public());
    for (name, builder, method, target, status) in [
        ("asterisk", closed, "OPTIONS", "*", 401),
        ("asterisk, with a fallback", open(), "OPTIONS", "*", 200),
        ("asterisk, another method", open(), "GET", "*", 200),
        ("authority", open(), "CONNECT", "host.example:443", 401),
        ("authority, another method", open(), "GET", "host.example:443", 200),
        ("authority with the name of a path", open(), "GET", "guarded", 200),
        ("CONNECT to a path", open(), "CONNECT", "/else", 401),
        ("absolute", open(), "GET", "http://other.example/guarded", 401),
        ("absolute, with user and port", open(), "GET", "https://u@other.example:8443/guarded?x=1", 401),
        ("absolute, without a path", open(), "GET", "http://other.example", 200),
        ("absolute, dot segments", open(), "GET", "http://other.example/a/../guarded", 400),
        ("a query of the same name", open(), "GET", "/guarded?/else", 401),
        ("HEAD", open(), "HEAD", "/guarded", 401),
        ("lower case is another method", open(), "get", "/guarded", 401),
        ("a long path", open(), "GET", &"/a".repeat(8_000), 200),
    ] {
        let probe = Probe::default();
        let app = builder.build().unwrap().protect(probe.clone());
        let mut request = get("/");
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = target.parse().unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(probe.seen.calls(), usize::from(status == 200), "{name}");
    }
    let app = open().build().unwrap().protect(Probe::default());
    let mut lower = with(get("/guarded"), "authorization", "Test alice");
    *lower.method_mut() = Method::from_bytes(b"get").unwrap();
    assert_eq!(app.oneshot(lower).await.unwrap().status(), 403, "which no line names");
}

/// A WebSocket over HTTP/2 is a CONNECT with a path (RFC 8441): a line must name it, neither `ANY` nor the fallback does.
#[tokio::test]
async fn connect_passes_only_where_a_line_names_it() {
    let stack = base()
        .route("CONNECT /ws", public())
        .route("GET /ws", public())
        .route("CONNECT /only", public())
        .route("CONNECT /guarded", require(authenticated()))
        .route("ANY /any", public())
        .fallback(public())
        .build()
        .unwrap();
    let probe = Probe::default();
    let app = stack.protect(probe.clone());
    for (method, target, status) in [
        (Method::CONNECT, "/ws", 200),
        (Method::CONNECT, "/only", 200),
        (Method::GET, "/only", 401),
        (Method::CONNECT, "/guarded", 401),
        (Method::CONNECT, "/any", 401),
        (Method::CONNECT, "/else", 401),
        (Method::CONNECT, "host.example:443", 401),
        (Method::CONNECT, "ws", 401),
    ] {
        let mut request = get("/");
        *request.uri_mut() = target.parse().unwrap();
        *request.method_mut() = method.clone();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{method} {target}");
    }
    assert_eq!(probe.seen.calls(), 2);
    assert!(base().route("TRACE /ws", public()).build().is_err());
}
