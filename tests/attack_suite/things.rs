//! What strangers can tell a thing that is there from one that is not by.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use http::Request;
use portcullis::{
    Principal,
    guard::{authenticated, require},
    jwt::JwtAuthenticator,
    stack::Stack,
    testing::{
        TestIssuer,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

/// What gives it away that there is a thing 17.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hole {
    None,
    Status,
    Body,
    Length,
    Header,
    HeaderValue,
    /// The stranger gets the one, and something for the other.
    Everything,
}

async fn run(hole: Hole) -> AttackReport {
    let issuer = TestIssuer::new("things-api");
    let number = Arc::new(AtomicU32::new(1));
    let thing = async move |principal: Principal, Path(id): Path<u32>| -> Response {
        if (principal.has_role("owner") && id == 17) || hole == Hole::Everything {
            return format!("thing {id}").into_response();
        }
        // As services do that say what they were asked for, and number their answers.
        let request = number.fetch_add(1, Ordering::SeqCst);
        let status = if hole == Hole::Status && id == 17 { StatusCode::FORBIDDEN } else { StatusCode::NOT_FOUND };
        let what = if hole == Hole::Body && id == 17 { "thing" } else { "such" };
        let end = if hole == Hole::Length && id == 17 { "!" } else { "" };
        let body = format!("no {what} {id}: /things/{id} of request {request}, version 4{end}");
        let mut response = (status, body).into_response();
        // What tells nothing: the path, the time, and what is counted or made anew.
        for (name, value) in [
            ("location", format!("/login?next=%2Fthings%2F{id}")),
            ("etag", format!("\"no-{}\"", if id == 17 { "q" } else { "x" })),
            ("server-timing", format!("all;dur={}", request / 2)),
            ("x-request-id", format!("{:-<1$}", "", request as usize)),
            ("x-reason", if hole == Hole::HeaderValue && id == 17 { "other-tenant" } else { "not-found" }.to_owned()),
        ] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        if hole == Hole::Header && id == 17 {
            response.headers_mut().insert("x-owner", "acme".parse().unwrap());
        }
        response
    };
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("GET /things/{id}", require(authenticated()))
        .build()
        .unwrap()
        .protect(Router::new().route("/things/{id}", get(thing)));
    let (owner, stranger) = (issuer.token().role("owner"), issuer.token().role("guest"));
    let profile = Profile::new().hidden("GET /things/17", "GET /things/4", owner, stranger).unwrap();
    let service = service_fn(move |request: Request<Body>| {
        let app = app.clone();
        async move { Ok::<Response, Infallible>(app.oneshot(request).await.unwrap().into_response()) }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn whatever_tells_that_a_thing_exists_is_found() {
    let report = run(Hole::None).await;
    assert!(report.is_clean(), "{report}");
    for (hole, got) in [
        (Hole::Status, "403 for the one, 404 for GET /things/4"),
        (Hole::Body, "another body than for GET /things/4"),
        (Hole::Length, "another body than for GET /things/4"),
        (Hole::Header, "other header fields than for GET /things/4"),
        (Hole::HeaderValue, "other header fields than for GET /things/4"),
        (Hole::Everything, "200"),
    ] {
        let report = run(hole).await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.got())).collect();
        assert_eq!(found, [("existence-thing", got)], "{hole:?}: {report}");
    }
}
