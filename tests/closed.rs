//! What nobody thought of is refused: routes without a rule, later additions, fallbacks, methods, nested and merged routers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    routing::{any, get, post},
};
use http::{Method, Request, Response};
use portcullis::{
    Connection, TlsVersion,
    guard::{authenticated, public, require, role},
    stack::{Protected, Stack, StackBuilder},
    tls::TlsLayer,
};
use support::test_scheme;
use tower::ServiceExt;

/// Counts how often any handler ran.
#[derive(Clone, Default)]
struct Reached(Arc<AtomicUsize>);

impl Reached {
    fn handler(&self) -> axum::routing::MethodRouter {
        let reached = Arc::clone(&self.0);
        any(async move || {
            reached.fetch_add(1, Ordering::SeqCst);
            "reached"
        })
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn builder() -> StackBuilder {
    Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("GET /open", public())
        .route("GET /guarded", require(authenticated()))
}

fn stack() -> Stack {
    builder().build().unwrap()
}

fn request(method: Method, path: &str, credential: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    if let Some(credential) = credential {
        request.headers_mut().insert("authorization", format!("Test {credential}").parse().unwrap());
    }
    request
}

async fn status(app: &Protected<Router>, method: Method, path: &str, credential: Option<&str>) -> u16 {
    let response: Response<Body> = app.clone().oneshot(request(method, path, credential)).await.unwrap();
    response.status().as_u16()
}

async fn anonymous(app: &Protected<Router>, path: &str) -> u16 {
    status(app, Method::GET, path, None).await
}

#[tokio::test]
async fn a_route_without_a_rule() {
    let reached = Reached::default();
    let app = stack().protect(Router::new().route("/open", reached.handler()).route("/forgotten", reached.handler()));
    assert_eq!(anonymous(&app, "/forgotten").await, 401);
    assert_eq!(status(&app, Method::GET, "/forgotten", Some("alice")).await, 403, "nor for somebody known");
    assert_eq!(reached.count(), 0);
    assert_eq!(anonymous(&app, "/open").await, 200, "the test reaches what is open");
}

#[tokio::test]
async fn a_route_added_after_a_guard() {
    let reached = Reached::default();
    let router = Router::new().route("/guarded", reached.handler()).route_layer(require(authenticated()));
    let app = stack().protect(router.route("/later", reached.handler()));
    assert_eq!(anonymous(&app, "/later").await, 401);
    assert_eq!(anonymous(&app, "/guarded").await, 401);
    assert_eq!(reached.count(), 0);
    assert_eq!(status(&app, Method::GET, "/guarded", Some("alice")).await, 200);
}

#[tokio::test]
async fn the_fallback_of_the_router() {
    let reached = Reached::default();
    let app = stack().protect(Router::new().fallback_service(reached.handler()));
    assert_eq!(anonymous(&app, "/nowhere").await, 401);
    assert_eq!(reached.count(), 0);
}

#[tokio::test]
async fn a_method_that_no_rule_names() {
    let reached = Reached::default();
    let app = stack().protect(Router::new().route("/open", reached.handler()));
    for method in [
        Method::POST,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
        Method::from_bytes(b"PURGE").unwrap(),
    ] {
        assert_eq!(status(&app, method.clone(), "/open", None).await, 401, "{method}");
    }
    assert_eq!(reached.count(), 0);
}

#[tokio::test]
async fn a_method_override_is_not_heard() {
    let app = stack().protect(Router::new().route("/open", post(async || "reached")));
    let mut post = request(Method::POST, "/open", None);
    post.headers_mut().insert("x-http-method-override", "GET".parse().unwrap());
    assert_eq!(app.oneshot(post).await.unwrap().status(), 401);
}

#[tokio::test]
async fn head_is_decided_as_get() {
    let app = stack().protect(Router::new().route("/open", get(async || "x")).route("/guarded", get(async || "x")));
    assert_eq!(status(&app, Method::HEAD, "/open", None).await, 200);
    assert_eq!(status(&app, Method::HEAD, "/guarded", None).await, 401);
    assert_eq!(status(&app, Method::HEAD, "/guarded", Some("alice")).await, 200);
}

#[tokio::test]
async fn merged_and_nested_routers() {
    let reached = Reached::default();
    let inner = || Router::new().route("/guarded", reached.handler()).route("/other", reached.handler());
    let merged = Router::new().route("/open", reached.handler()).merge(inner());
    let nested = Router::new().nest("/api", inner());
    let nested_service = Router::new().nest_service("/api", inner());
    for (name, router, paths) in [
        ("merge", merged, ["/guarded", "/other"]),
        ("nest", nested, ["/api/guarded", "/api/other"]),
        ("nest_service", nested_service, ["/api/guarded", "/api/other"]),
    ] {
        let app = stack().protect(router);
        for path in paths {
            assert_eq!(anonymous(&app, path).await, 401, "{name} {path}");
        }
    }
    assert_eq!(reached.count(), 0);
}

#[tokio::test]
async fn a_rule_for_a_nested_path_is_written_in_full() {
    let router = Router::new().nest("/api", Router::new().route("/orders", get(async || "orders")));
    let app = builder().route("GET /api/orders", require(authenticated())).build().unwrap().protect(router);
    assert_eq!(anonymous(&app, "/api/orders").await, 401);
    assert_eq!(status(&app, Method::GET, "/api/orders", Some("alice")).await, 200);
}

#[tokio::test]
async fn sibling_stacks() {
    let reached = Reached::default();
    let first = Router::new().route("/guarded", reached.handler()).layer(stack());
    let second = Router::new().route("/admin", reached.handler()).layer(
        Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .route("GET /admin", require(role("manager").unwrap()))
            .build()
            .unwrap(),
    );
    let app = first.merge(second);
    let send = async |path: &str, credential| {
        app.clone().oneshot(request(Method::GET, path, credential)).await.unwrap().status().as_u16()
    };
    for path in ["/guarded", "/admin"] {
        assert_eq!(send(path, None).await, 401, "{path}");
    }
    assert_eq!(reached.count(), 0);
    assert_eq!(send("/guarded", Some("alice")).await, 200);
    assert_eq!(send("/admin", Some("alice")).await, 403);
    assert_eq!(send("/admin", Some("boss")).await, 200);
}

#[tokio::test]
async fn a_stack_inside_a_stack_refuses() {
    let reached = Reached::default();
    let inner = Router::new().route("/guarded", reached.handler()).layer(stack());
    let app = stack().protect(inner);
    assert_eq!(status(&app, Method::GET, "/guarded", Some("alice")).await, 500);
    assert_eq!(reached.count(), 0);
}

#[tokio::test]
async fn as_a_layer_of_the_router() {
    let reached = Reached::default();
    let app = Router::new().route("/guarded", reached.handler()).route("/forgotten", reached.handler()).layer(stack());
    for path in ["/guarded", "/forgotten", "/nowhere"] {
        let response = app.clone().oneshot(request(Method::GET, path, None)).await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }
    assert_eq!(reached.count(), 0);
}

#[tokio::test]
async fn a_path_that_could_mean_another_one() {
    let reached = Reached::default();
    let app = builder()
        .route("ANY /files/{*path}", public())
        .build()
        .unwrap()
        .protect(Router::new().fallback_service(reached.handler()));
    for path in [
        "/files/../guarded",
        "/files/%2e%2e/guarded",
        "/files//guarded",
        "/files/a;x=1",
        "/files/%2fguarded",
        "/files/a%00",
    ] {
        assert_eq!(anonymous(&app, path).await, 400, "{path}");
    }
    assert_eq!(reached.count(), 0);
    assert_eq!(anonymous(&app, "/files/a.txt").await, 200);
}

/// A service that serves files decodes the path, unlike a router: the strict rule of `/files/private/..` must hold for
/// every spelling of it.
#[tokio::test]
async fn a_path_that_decodes_to_one_with_another_rule() {
    let reached = Reached::default();
    let app = builder()
        .route("ANY /files/{*path}", public())
        .route("ANY /files/private/{*path}", require(role("manager").unwrap()))
        .route("ANY /files/caf%C3%A9", require(role("manager").unwrap()))
        .build()
        .unwrap()
        .protect(Router::new().fallback_service(reached.handler()));
    for path in [
        "/files/%70rivate/x",
        "/files/%70%72%69%76%61%74%65/x",
        "/files/%2570rivate/x",
        "/%66iles/private/x",
        "/files/caf%c3%a9",
        "/files/caf\u{e9}",
    ] {
        assert_eq!(anonymous(&app, path).await, 401, "{path}: as what no line names");
        assert_eq!(status(&app, Method::GET, path, Some("boss")).await, 403, "{path}: nor for who may use that line");
    }
    for (name, path) in [
        ("no triplet", "/files/%"),
        ("half a triplet", "/files/a%2"),
        ("no digits", "/files/%u0070rivate/x"),
        ("a line feed", "/files/a%0ab"),
        ("delete", "/files/a%7f"),
        ("overlong /", "/files/a%c0%afb"),
        ("no UTF-8", "/files/caf%E9"),
        ("encoded three times", "/files/%25252e%25252e/private/x"),
        ("encoded many times", &format!("/files/%{}2f", "25".repeat(1000))),
    ] {
        assert_eq!(anonymous(&app, path).await, 400, "{name}: {path}");
    }
    assert_eq!(reached.count(), 0);
    for path in [
        "/files/%7Euser",
        "/files/100%25",
        "/files/a%20b",
        "/files/What%3F",
        "/files/caf%C3%A9s",
        "/files/%F0%9F%A6%80",
    ] {
        assert_eq!(anonymous(&app, path).await, 200, "{path}");
    }
    assert_eq!(anonymous(&app, "/files/caf%C3%A9").await, 401, "a rule for an encoded path holds");
    assert_eq!(status(&app, Method::GET, "/files/caf%C3%A9", Some("boss")).await, 200, "in its own spelling");
    assert_eq!(anonymous(&app, "/files/cafés").await, 200, "not encoded, and of one line either way");
}

/// What trims or adds a slash at the end may stand inside, around the router.
#[tokio::test]
async fn a_slash_at_the_end_leads_to_no_wider_rule() {
    let reached = Reached::default();
    let manager = || require(role("manager").unwrap());
    let inner = || Router::new().fallback_service(reached.handler());
    let fallback = builder()
        .route("GET /admin", manager())
        .route("GET /orders/{id}", manager())
        .route("GET /added/", manager())
        .fallback(public())
        .build()
        .unwrap()
        .protect(inner());
    let wide = builder()
        .route("GET /admin", manager())
        .route("GET /orders/{id}", manager())
        .route("GET /added/", manager())
        .route("GET /{*rest}", public())
        .build()
        .unwrap()
        .protect(inner());
    for (name, app) in [("fallback", &fallback), ("wide line", &wide)] {
        for path in ["/admin/", "/orders/7/", "/added", "/%61dmin/", "/%61dded"] {
            assert_eq!(anonymous(app, path).await, 401, "{name}: {path}");
            assert_eq!(status(app, Method::GET, path, Some("boss")).await, 403, "{name}: {path}");
        }
        assert_eq!(anonymous(app, "/admin").await, 401, "{name}");
        assert_eq!(anonymous(app, "/added/").await, 401, "{name}");
    }
    assert_eq!(reached.count(), 0);
    for (name, app) in [("fallback", &fallback), ("wide line", &wide)] {
        for path in ["/else/", "/else", "/a/b/"] {
            assert_eq!(anonymous(app, path).await, 200, "{name}: {path}");
        }
    }
    assert_eq!(anonymous(&fallback, "/").await, 200, "it has nothing to trim");
    let both = builder()
        .route("GET /x", public())
        .route("GET /x/", manager())
        .route("GET /y/{id}", manager())
        .route("GET /y/{id}/", public())
        .fallback(public())
        .build()
        .unwrap()
        .protect(inner());
    for (path, status) in [("/x", 200), ("/x/", 401), ("/y/1", 401), ("/y/1/", 200)] {
        assert_eq!(anonymous(&both, path).await, status, "both are named: {path}");
    }
    let around =
        builder().route("GET /x/", manager()).route("GET /t/{id}/all", public()).route("GET /t/{id}/{*rest}", public());
    let around = around.build().unwrap().protect(inner());
    for (path, status) in [("/t/1/all", 200), ("/t/1/else", 200), ("/x", 401), ("/x/", 401)] {
        assert_eq!(anonymous(&around, path).await, status, "a line for the rest is about both ends: {path}");
    }
    let closed = builder().route("GET /admin", manager()).build().unwrap().protect(inner());
    assert_eq!(anonymous(&closed, "/admin/").await, 401, "refused as what is not named");
}

#[tokio::test]
async fn a_fallback_does_not_hold_for_another_spelling_of_a_named_path() {
    let reached = Reached::default();
    let manager = || require(role("manager").unwrap());
    let stack = builder().route("GET /%7Euser/{*path}", manager()).route("GET /b%61ck", manager()).fallback(public());
    let app = stack.build().unwrap().protect(Router::new().fallback_service(reached.handler()));
    for path in ["/%67uarded", "/~user/x", "/%7euser/x", "/back", "/b%61ck/", "/back/", "/guarded/"] {
        assert_eq!(anonymous(&app, path).await, 401, "{path}");
        assert_eq!(status(&app, Method::GET, path, Some("boss")).await, 403, "{path}");
    }
    assert_eq!(reached.count(), 0);
    for path in ["/else", "/%65lse", "/~users/x", "/else/"] {
        assert_eq!(anonymous(&app, path).await, 200, "{path}");
    }
    for path in ["/%7Euser/x", "/b%61ck"] {
        assert_eq!(anonymous(&app, path).await, 401, "{path}");
        assert_eq!(status(&app, Method::GET, path, Some("boss")).await, 200, "{path}: as the line has it");
    }
}

#[tokio::test]
async fn a_bad_credential_is_refused_even_where_none_is_needed() {
    let app = stack().protect(Router::new().route("/open", get(async || "open")));
    assert_eq!(status(&app, Method::GET, "/open", Some("bad")).await, 401);
    let mut unclaimed = request(Method::GET, "/open", None);
    unclaimed.headers_mut().insert("authorization", "Unknown abc".parse().unwrap());
    assert_eq!(app.oneshot(unclaimed).await.unwrap().status(), 401, "an Authorization that nobody claims");
}
