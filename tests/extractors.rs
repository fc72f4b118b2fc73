//! axum's extractors: what handlers get, and that they refuse where no layer ran.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use axum::{Extension, Router, body::Body, routing::get as route};
use http::{Request, Response};
use portcullis::{
    Principal, PrincipalKind, Rejection,
    RejectionKind::Forbidden,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    axum::Claims,
    guard::{Authorizer, authenticated, public, require},
    policy::{Rbac, Resource},
    stack::Stack,
    tls::TlsLayer,
};
use support::{get, test_scheme, text, with};
use tower::{Layer, Service, ServiceExt};

const POLICY: &str = r#"
version = "1"
permissions = ["orders:read", "orders:cancel"]
[roles.clerk]
grants_own = ["orders:read"]
[roles.manager]
inherits = ["clerk"]
grants = ["orders:read", "orders:cancel"]
"#;

#[derive(serde::Deserialize)]
struct Profile {
    email: String,
}

fn router() -> Router {
    Router::new()
        .route("/unauthorized", route(async || axum::http::StatusCode::UNAUTHORIZED))
        .route(
            "/own-challenge",
            route(async || (axum::http::StatusCode::UNAUTHORIZED, [("www-authenticate", "Own realm=\"x\"")])),
        )
        .route("/me", route(async |principal: Principal| principal.subject().to_owned()))
        .route(
            "/maybe",
            route(async |principal: Option<Principal>| principal.map_or("-".to_owned(), |p| p.subject().to_owned())),
        )
        .route("/mail", route(async |Claims(profile): Claims<Profile>| profile.email.clone()))
        .route(
            "/orders/alices",
            route(async |authz: Authorizer| {
                let order = Resource::new("order", 1).owned_by("https://id.test", "alice");
                authz.check("orders:read", &order).await.map(|_| "order 1")
            }),
        )
        .route(
            "/rejects",
            route(async || Err::<(), _>(Rejection::new(portcullis::RejectionKind::Forbidden, "secret reason"))),
        )
}

fn stack() -> Stack {
    Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(Rbac::from_toml(POLICY).unwrap())
        .route("GET /me", require(authenticated()))
        .route("GET /maybe", public())
        .route("GET /mail", require(authenticated()))
        .route("GET /orders/alices", public())
        .route("GET /rejects", public())
        .route("GET /unauthorized", public())
        .route("GET /own-challenge", public())
        .build()
        .unwrap()
}

async fn call<S>(app: &S, path: &str, credential: Option<&str>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible> + Clone,
{
    let mut request = get(path);
    if let Some(credential) = credential {
        request = with(request, "authorization", credential);
    }
    app.clone().oneshot(request.map(|()| Body::empty())).await.unwrap()
}

#[tokio::test]
async fn handlers_get_the_principal() {
    let app = stack().protect(router());
    assert_eq!(text(call(&app, "/me", Some("Test alice")).await).await, "alice");
    assert_eq!(text(call(&app, "/maybe", Some("Test alice")).await).await, "alice");
    assert_eq!(text(call(&app, "/maybe", None).await).await, "-");
    assert_eq!(call(&app, "/me", None).await.status(), 401);
}

#[tokio::test]
async fn the_authorizer_decides_next_to_the_data() {
    let app = stack().protect(router());
    for (name, credential, status) in [
        ("owner", Some("Test alice"), 200),
        ("manager", Some("Test boss"), 200),
        ("somebody else", Some("Test bob"), 403),
        ("nobody", None, 401),
    ] {
        let response = call(&app, "/orders/alices", credential).await;
        assert_eq!(response.status(), status, "{name}");
        if status == 401 {
            assert!(response.headers().contains_key("www-authenticate"), "{name}");
        }
    }
}

#[tokio::test]
async fn claims_are_read_into_a_type() {
    let with_claims = |claims: &'static str| {
        authenticate_fn(portcullis::Challenge::new("Test", "tests").unwrap(), move |_, _| {
            Outcome::verified(
                Principal::builder(PrincipalKind::User, "https://id.test", "alice", "test").claims(claims).build(),
            )
        })
    };
    let app = |claims| AuthnLayer::new(with_claims(claims)).dangerous_plain_http().layer(router());
    let response = call(&app(r#"{"email":"a@example.com"}"#), "/mail", None).await;
    assert_eq!(text(response).await, "a@example.com");
    assert_eq!(call(&app(r#"{"email":5}"#), "/mail", None).await.status(), 403);
}

#[tokio::test]
async fn without_a_layer_outside_they_refuse() {
    for path in ["/me", "/maybe", "/mail", "/orders/alices"] {
        assert_eq!(call(&router(), path, Some("Test alice")).await.status(), 500, "{path}");
    }
}

#[tokio::test]
async fn a_principal_that_somebody_else_put_there_is_not_believed() {
    let mut request = get("/me").map(|()| Body::empty());
    request.extensions_mut().insert(support::person("mallory"));
    assert_eq!(stack().protect(router()).oneshot(request).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_rejection_from_a_handler_is_rendered_without_its_reason() {
    let response = call(&stack().protect(router()), "/rejects", None).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    // axum wrote the length of the empty body that the handler's rejection had.
    assert!(!response.headers().contains_key("content-length"));
    let body = text(response).await;
    assert!(body.contains("\"forbidden\"") && !body.contains("secret reason"), "{body}");
}

/// The reply to HEAD has the fields of the one to GET, and its length (RFC 9110 §8.6, §9.3.2).
#[tokio::test]
async fn the_reply_to_head_tells_the_length_that_get_would_get() {
    let by_hand = portcullis::problem::ProblemLayer::new().layer(router());
    let of_get = call(&stack().protect(router()), "/rejects", None).await;
    let (content_type, body) = (of_get.headers()["content-type"].clone(), text(of_get).await);
    for response in [
        stack().protect(router()).oneshot(head_of("/rejects")).await.unwrap(),
        by_hand.oneshot(head_of("/rejects")).await.unwrap(),
    ] {
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["content-type"], content_type);
        assert_eq!(response.headers()["content-length"], body.len().to_string().as_str());
        assert_eq!(text(response).await, "");
    }
    // A body of the handler's own, which the router has taken away.
    let own = async || (http::StatusCode::FORBIDDEN, Extension(Rejection::new(Forbidden, "")), "own words");
    let own = portcullis::problem::ProblemLayer::new().layer(Router::new().route("/own", route(own)));
    let response = own.oneshot(head_of("/own")).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["content-length"]), (403, &"9".parse().unwrap()));
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
}

fn head_of(path: &str) -> Request<Body> {
    let mut request = get(path).map(|()| Body::empty());
    *request.method_mut() = http::Method::HEAD;
    request
}

/// RFC 9110 §15.5.2 holds for what handlers answer, too; a challenge of their own is left alone.
#[tokio::test]
async fn a_handlers_own_401_carries_a_challenge() {
    let stacked = stack().protect(router());
    let by_hand = AuthnLayer::new(test_scheme()).allow_anonymous().dangerous_plain_http().layer(router());
    for (path, challenge) in [("/unauthorized", "Test realm=\"tests\""), ("/own-challenge", "Own realm=\"x\"")] {
        for response in [call(&stacked, path, None).await, call(&by_hand, path, None).await] {
            assert_eq!(response.status(), 401, "{path}");
            let challenges: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
            assert_eq!(challenges, [challenge], "{path}");
        }
    }
}
