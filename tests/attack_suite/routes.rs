//! Routes whose good answers look like refusals, or are good for once: a hole shows there too.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, post},
};
use http::{Request, header};
use portcullis::{
    guard::{require, role},
    jwt::JwtAuthenticator,
    stack::Stack,
    testing::{
        TestIssuer,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use serde_json::{Value, json};
use tower::{ServiceExt, service_fn};

use super::careless;

/// What the service does wrong, if anything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hole {
    None,
    /// It takes tokens that have ended.
    Expired,
    /// It takes nobody's tokens any more once it has met garbage.
    Stumbles,
}

/// Orders that are made of JSON, one that can be deleted once, and checkouts that lead on to what they have made.
fn router() -> Router {
    let there = Arc::new(AtomicBool::new(true));
    let number = Arc::new(AtomicU32::new(1));
    Router::new()
        .route("/orders", post(async |Json(order): Json<Value>| (StatusCode::CREATED, order["item"].to_string())))
        .route(
            "/orders/{id}",
            delete(async move |Path(id): Path<u32>| match there.swap(false, Ordering::SeqCst) {
                true => StatusCode::NO_CONTENT.into_response(),
                false => (StatusCode::NOT_FOUND, format!("no order {id}")).into_response(),
            }),
        )
        .route(
            "/checkouts",
            post(async move || {
                let place = format!("/checkouts/{}", number.fetch_add(1, Ordering::SeqCst));
                (StatusCode::SEE_OTHER, [(header::LOCATION, place)])
            }),
        )
}

/// Runs the suite on one route.
async fn run(hole: Hole, line: &str, body: bool) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let clerk = || require(role("clerk").unwrap());
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("POST /orders", clerk())
        .route("DELETE /orders/{id}", clerk())
        .route("POST /checkouts", clerk())
        .build()
        .unwrap()
        .protect(router());
    let mut profile = Profile::new()
        .route(line, ["clerk"])
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    if body {
        profile = profile.body(line, "application/json", json!({ "item": "winch" }).to_string()).unwrap();
    }
    let fallen = Arc::new(AtomicBool::new(false));
    let service = service_fn(move |mut request: Request<Body>| {
        let (app, issuer, fallen) = (app.clone(), issuer.clone(), Arc::clone(&fallen));
        async move {
            let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
            if hole == Hole::Expired && careless("token-expired", &issuer, &token, &Mutex::default()) {
                let good = format!("Bearer {}", issuer.token().role("clerk").mint());
                request.headers_mut().insert("authorization", good.parse().unwrap());
            }
            fallen.fetch_or(hole == Hole::Stumbles && token == "null.null.null", Ordering::SeqCst);
            if fallen.load(Ordering::SeqCst) && !token.is_empty() {
                let refusal = [("www-authenticate", "Bearer")];
                return Ok::<Response, Infallible>((StatusCode::UNAUTHORIZED, refusal).into_response());
            }
            Ok(app.oneshot(request).await.unwrap())
        }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

fn attacks(report: &AttackReport) -> Vec<&str> {
    report.findings().iter().map(|finding| finding.attack()).collect()
}

#[tokio::test]
async fn a_hole_shows_whatever_a_good_request_is_answered() {
    for (line, body) in [("POST /orders", true), ("DELETE /orders/1", false), ("POST /checkouts", false)] {
        let report = run(Hole::None, line, body).await;
        assert!(report.is_clean(), "{report}");
        let report = run(Hole::Expired, line, body).await;
        assert!(attacks(&report).contains(&"token-expired"), "{report}");
        assert!(attacks(&report).iter().all(|attack| *attack == "token-expired"), "{report}");
    }
}

/// Without a body nothing gets as far as the order, good or bad: that is told, and so is who got as far as the good ones.
#[tokio::test]
async fn where_good_requests_get_nowhere_nothing_is_proved() {
    let report = run(Hole::None, "POST /orders", false).await;
    assert!(!report.is_clean() && attacks(&report).iter().all(|attack| *attack == "control"), "{report}");
    assert_eq!(report.findings()[0].got(), "415");
    let report = run(Hole::Expired, "POST /orders", false).await;
    let expired = report.findings().iter().find(|finding| finding.attack() == "token-expired").unwrap();
    assert_eq!(expired.got(), "415, as a good request", "{report}");
}

#[tokio::test]
async fn good_requests_are_good_after_the_attacks_as_well() {
    let report = run(Hole::Stumbles, "POST /checkouts", false).await;
    let after = report.findings().iter().find(|finding| finding.sent() == "a good token after the attacks");
    assert_eq!(after.map(|finding| (finding.attack(), finding.got())), Some(("control", "401")), "{report}");
}
