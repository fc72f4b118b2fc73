//! Answers that a limit or an outage gives hide what the service would have done.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{Router, body::Body, http::StatusCode, response::Response, routing::get};
use http::Request;
use portcullis::{
    guard::{authenticated, public, require, role},
    jwt::JwtAuthenticator,
    rate_limit::{Plans, Quota},
    stack::{Protected, Stack, StackBuilder},
    testing::{
        TestIssuer,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

/// Clerks alone may read orders and reports. Where it is open, the line of the orders forgot that.
fn service(issuer: &TestIssuer, open: bool, limited: impl FnOnce(StackBuilder) -> StackBuilder) -> Protected<Router> {
    let builder = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("GET /health", public())
        .route("GET /reports", require(role("clerk").unwrap()));
    let builder = match open {
        true => builder.route("GET /orders", require(authenticated())),
        false => builder.route("GET /orders", require(role("clerk").unwrap())),
    };
    let router = ["/health", "/orders", "/reports"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(async || "here")));
    limited(builder).build().unwrap().protect(router)
}

fn profile(issuer: &TestIssuer) -> Profile {
    Profile::new()
        .public("GET /health")
        .unwrap()
        .route("GET /reports", ["clerk"])
        .unwrap()
        .route("GET /orders", ["clerk"])
        .unwrap()
        .role("clerk", issuer.token().subject("alice").role("clerk").claim("plan", "gold"))
        .role("guest", issuer.token().subject("mallory").role("guest"))
}

/// The requests that found a limit, by their attack.
fn limited(report: &AttackReport, attack: &str, got: &str) -> bool {
    report.findings().iter().any(|finding| {
        finding.attack() == "control" && finding.sent().starts_with(&format!("{attack},")) && finding.got() == got
    })
}

/// The guest's quota is used up by earlier attacks, and the clerk's is not.
#[tokio::test]
async fn a_hole_behind_a_quota_is_not_clean() {
    for (quota, sees_hole) in [(5, false), (20, false), (50, false), (10_000, true)] {
        for open in [true, false] {
            let issuer = TestIssuer::new("orders-api");
            let plans = Plans::new([Quota::per_hour(quota)]).unwrap();
            let plans = plans.with("gold", [Quota::per_hour(1_000_000)]).unwrap().by_claim("plan");
            let app = service(&issuer, open, |builder| builder.limit_principals(&plans));
            let report = attack_suite(app, profile(&issuer)).run::<Body, _>().await;
            let crosses = report.findings().iter().any(|finding| finding.attack() == "role-crossing");
            assert_eq!(crosses, open && sees_hole, "{quota}, {open}: {report}");
            assert_eq!(limited(&report, "role-crossing", "429"), !sees_hole, "{quota}, {open}: {report}");
            assert_eq!(report.is_clean(), !open && sees_hole, "{quota}, {open}: {report}");
        }
    }
}

/// One finding says it of all requests of an attack, and what to do.
#[tokio::test]
async fn a_limited_attack_is_told_once() {
    let issuer = TestIssuer::new("orders-api");
    let plans = Plans::new([Quota::per_hour(5)]).unwrap();
    let plans = plans.with("gold", [Quota::per_hour(1_000_000)]).unwrap().by_claim("plan");
    let app = service(&issuer, false, |builder| builder.limit_principals(&plans));
    let report = attack_suite(app, profile(&issuer)).run::<Body, _>().await;
    let of_case: Vec<_> =
        report.findings().iter().filter(|finding| finding.sent().starts_with("path-encoded,")).collect();
    let [finding] = of_case.as_slice() else { panic!("{report}") };
    assert_eq!(finding.sent(), "path-encoded, /%72eports, by somebody who may not, and 5 more");
    assert_eq!(finding.route(), "GET /%72eports");
    assert!(finding.expected().contains("a larger quota"), "{finding}");
}

/// One quota for everybody, which the guest uses up before the clerk does.
#[tokio::test]
async fn one_quota_for_everybody_hides_nothing() {
    for quota in [30, 100, 150] {
        let issuer = TestIssuer::new("orders-api");
        let app = service(&issuer, true, |builder| builder.limit_principals(Quota::per_hour(quota)));
        let report = attack_suite(app, profile(&issuer)).run::<Body, _>().await;
        assert!(!report.is_clean(), "{quota}: {report}");
    }
}

/// Comparisons of two answers prove nothing either where both are of a limit or of an outage.
#[tokio::test]
async fn an_outage_that_comes_and_goes_is_not_clean() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let issuer = TestIssuer::new("orders-api");
        let app = service(&issuer, false, |builder| builder);
        let number = Arc::new(AtomicU32::new(0));
        let away = service_fn(move |request: Request<Body>| {
            let app = app.clone();
            // Of a route that is not there alone.
            let is_away = request.uri().path() == "/portcullis-no-such-route";
            number.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut response: Response = app.oneshot(request).await.unwrap();
                if is_away {
                    *response.status_mut() = status;
                }
                Ok::<_, Infallible>(response)
            }
        });
        let report = attack_suite(away, profile(&issuer)).run::<Body, _>().await;
        assert!(limited(&report, "existence-route", status.as_str()), "{report}");
    }
}
