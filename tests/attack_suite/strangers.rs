//! Services that authenticate everybody, and let somebody do what only another role may.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, Method, Request};
use portcullis::{
    guard::{authenticated, deny, require, role},
    jwt::JwtAuthenticator,
    stack::Stack,
    testing::{
        TestIssuer, TestToken,
        attack::{ATTACKS, AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

use super::{Memory, answer, decoded, fixture};

fn is_guest(request: &Request<Body>) -> bool {
    let value = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let claims = decoded(value.split('.').nth(1).unwrap_or_default());
    // A good one: no forged token of the suite is a guest's.
    claims["roles"][0] == "guest"
}

/// The service of the other tests, whose hole is open to guests alone.
async fn run(hole: &'static str) -> AttackReport {
    let fixture = Arc::new(fixture());
    let memory = Arc::new(Memory::default());
    let profile = fixture.profile("");
    let service = service_fn(move |request: Request<Body>| {
        let (fixture, memory) = (Arc::clone(&fixture), Arc::clone(&memory));
        let hole = if is_guest(&request) { hole } else { "none" };
        async move { Ok::<_, Infallible>(answer(hole, &fixture, &memory, request).await) }
    });
    attack_suite(service, profile).run().await
}

#[tokio::test]
async fn what_opens_a_route_to_somebody_alone_is_found() {
    let of_paths = ATTACKS.iter().map(|(attack, _)| *attack).filter(|attack| attack.starts_with("path-"));
    let of_fields = ["identity-header", "proxy-address", "proxy-certificate", "proxy-path"];
    for hole in of_paths.chain(["method-head", "method-case", "preflight-guard"]).chain(of_fields) {
        let report = run(hole).await;
        let found = report.findings().iter().find(|finding| finding.attack() == hole);
        let found = found.unwrap_or_else(|| panic!("{hole}: {report}"));
        assert!(found.sent().ends_with(", by somebody who may not"), "{hole}: {report}");
    }
}

/// A service that takes who is calling from the token, and what else it knows of the caller from the request.
async fn run_believing(name: &'static str, value: &'static str) -> AttackReport {
    let fixture = Arc::new(fixture());
    let profile = fixture.profile("");
    let service = service_fn(move |mut request: Request<Body>| {
        let fixture = Arc::clone(&fixture);
        let is_told = request.headers().get(name).is_some_and(|told| told == value);
        if is_told && is_guest(&request) {
            let clerk = format!("Bearer {}", fixture.issuer.token().role("clerk").mint());
            request.headers_mut().insert("authorization", clerk.parse().unwrap());
        }
        async move { fixture.app.clone().oneshot(request).await }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn what_a_field_says_of_somebody_counts_nothing() {
    for (name, value) in [("x-user-roles", "clerk"), ("x-remote-user", "alice"), ("x-user-id", "alice")] {
        let report = run_believing(name, value).await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        let sent = format!("{name}: {value}, by somebody who may not");
        assert_eq!(found, [("identity-header", sent.as_str())], "{report}");
    }
}

/// A table that hides what it knows, with a line below a wider one; and what a layer in front of it tells all the same.
/// What a service makes of the answer to a method and path.
type Tells = fn(&Method, &str, &mut Response);

async fn run_hidden(tells: Tells, hides: bool) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let guarded = |name: &str| require(role(name).unwrap());
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("GET /orders", guarded("clerk").hide())
        .route("ANY /files/{*path}", require(authenticated()))
        .route("GET /files/ledger", guarded("clerk"));
    let app = if hides { app.fallback(deny().hide()) } else { app };
    let router = Router::new().route("/orders", get(async || "orders")).route("/files/ledger", get(async || "ledger"));
    let app = app.build().unwrap().protect(router);
    let profile = Profile::new()
        .route("GET /orders", ["clerk"])
        .unwrap()
        .route("GET /files/ledger", ["clerk"])
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    let service = service_fn(move |request: Request<Body>| {
        let app = app.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let mut answer = app.oneshot(request).await.unwrap().into_response();
            tells(&method, &path, &mut answer);
            Ok::<Response, Infallible>(answer)
        }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn what_is_there_is_told_by_no_guise() {
    for hides in [true, false] {
        let report = run_hidden(|_, _, _| {}, hides).await;
        assert!(report.is_clean(), "{hides}: {report}");
    }
    let told: [(&str, Tells); 7] = [
        ("a preflight, without a credential", |method, path, answer| {
            if method == Method::OPTIONS && path == "/orders" {
                *answer.status_mut() = StatusCode::FORBIDDEN;
            }
        }),
        ("an encoded letter, without a credential", |_, path, answer| {
            if path == "/%6Frders" {
                *answer.status_mut() = StatusCode::BAD_REQUEST;
            }
        }),
        ("a letter encoded twice, without a credential", |_, path, answer| {
            if path == "/%256Frders" {
                *answer.status_mut() = StatusCode::BAD_REQUEST;
            }
        }),
        ("a slash at the end, without a credential", |_, path, answer| {
            if path == "/orders/" {
                *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            }
        }),
        ("a slash at the end, without a credential", |_, path, answer| {
            if path == "/orders/" {
                answer.headers_mut().insert("x-upstream", HeaderValue::from_static("orders"));
            }
        }),
        ("a preflight, without a credential", |method, path, answer| {
            if method == Method::OPTIONS && path == "/orders" {
                answer.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
            }
        }),
        ("an encoded letter, without a credential", |_, path, answer| {
            if path == "/%6Frders" {
                *answer.body_mut() = Body::empty();
            }
        }),
    ];
    for (sent, tells) in told {
        let report = run_hidden(tells, true).await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        assert_eq!(found, [("existence-route", sent)], "{report}");
    }
}

/// Everybody may make an order, and only clerks may delete them all, which can be done once.
async fn run_override(follows: Option<&'static str>) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let (there, number) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(1)));
    let made = async move || (StatusCode::CREATED, format!("order {}", number.fetch_add(1, Ordering::SeqCst)));
    let deleted = async move || match there.swap(false, Ordering::SeqCst) {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    };
    let router = Router::new().route("/orders", post(made).delete(deleted));
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("POST /orders", require(authenticated()))
        .route("DELETE /orders", require(role("clerk").unwrap()))
        .build()
        .unwrap()
        .protect(router);
    let profile = Profile::new()
        .route("DELETE /orders", ["clerk"])
        .unwrap()
        .route("POST /orders", ["clerk", "guest"])
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    let service = service_fn(move |mut request: Request<Body>| {
        let (app, issuer) = (app.clone(), issuer.clone());
        async move {
            let named = follows.and_then(|field| request.headers().get(field)).map(|method| method.as_bytes().to_vec());
            if let Some(named) = named.filter(|_| request.method() == Method::POST && is_guest(&request)) {
                // The guard saw a POST; what comes after it does not.
                *request.method_mut() = Method::from_bytes(&named).unwrap();
                let clerk = format!("Bearer {}", issuer.token().role("clerk").mint());
                request.headers_mut().insert("authorization", clerk.parse().unwrap());
            }
            Ok::<Response, Infallible>(app.oneshot(request).await.unwrap().into_response())
        }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn another_method_in_a_header_is_found_where_a_method_is_listed() {
    let report = run_override(None).await;
    assert!(report.is_clean(), "{report}");
    assert!(report.sent().any(|(attack, count)| attack == "method-override" && count > 1), "{report:?}");
    for field in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let report = run_override(Some(field)).await;
        let found = report.findings().iter().find(|finding| finding.attack() == "method-override");
        let sent = found.map(|finding| (finding.route(), finding.sent()));
        let expected = format!("{field}: DELETE, by somebody who may not");
        assert_eq!(sent, Some(("POST /orders", expected.as_str())), "{report}");
    }
}

/// Everybody who is somebody gets every tenant's things, and every order.
async fn run_unchecked(profile: impl FnOnce(Profile, &dyn Fn(&str) -> TestToken) -> Profile) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("GET /tenants/{tenant}", require(authenticated()))
        .route("GET /me", require(authenticated()))
        .route("GET /orders", require(role("clerk").unwrap()))
        .build()
        .unwrap()
        .protect(Router::new().fallback(get(async || "here you are")));
    let token = |role: &str| issuer.token().role(role).tenant("acme");
    let profile = profile(Profile::new(), &token);
    attack_suite(app, profile).run::<Body, _>().await
}

#[tokio::test]
async fn a_stranger_whose_token_is_not_taken_proves_nothing() {
    let (line, clerk) = ("GET /tenants/acme", "clerk");
    let other_tenant = |profile: Profile, token: &dyn Fn(&str) -> TestToken, stranger: TestToken| {
        profile.other_tenant(line, token(clerk), stranger.tenant("globex")).unwrap()
    };
    let report = run_unchecked(|profile, token| other_tenant(profile, token, token("guest"))).await;
    assert_eq!(report.findings()[0].attack(), "tenant-crossing", "{report}");
    let of = |report: &AttackReport| {
        let found = report.findings().iter();
        found
            .map(|found| (found.attack().to_owned(), found.route().to_owned(), found.sent().to_owned()))
            .collect::<Vec<_>>()
    };
    let control = |route: &str, sent: &str| [("control".to_owned(), route.to_owned(), sent.to_owned())];
    let report = run_unchecked(|profile, token| other_tenant(profile, token, token("guest").expired())).await;
    assert_eq!(of(&report), control(line, "somebody of another tenant"), "{report}");

    let hidden = |profile: Profile, token: &dyn Fn(&str) -> TestToken| {
        profile.hidden(line, "GET /tenants/none", token(clerk), token("guest").audience("billing")).unwrap()
    };
    let report = run_unchecked(hidden).await;
    assert_eq!(of(&report), control(line, "a stranger"), "{report}");

    let orders = |profile: Profile, token: &dyn Fn(&str) -> TestToken, guest: TestToken| {
        profile.route("GET /orders", [clerk]).unwrap().role(clerk, token(clerk)).role("guest", guest)
    };
    let report = run_unchecked(|profile, token| orders(profile, token, token("guest"))).await;
    assert!(report.is_clean(), "{report}");
    let report = run_unchecked(|profile, token| orders(profile, token, token("guest").expired())).await;
    assert_eq!(of(&report), control("every route", "somebody of the role guest"), "{report}");
    // Who may use another route is in the good requests there.
    let elsewhere = |profile: Profile, token: &dyn Fn(&str) -> TestToken| {
        orders(profile, token, token("guest").expired()).route("GET /me", ["guest", clerk]).unwrap()
    };
    let report = run_unchecked(elsewhere).await;
    assert!(of(&report).contains(&control("GET /me", "somebody of the role guest, which may")[0]), "{report}");
    assert!(report.findings().iter().all(|finding| finding.route() == "GET /me"), "{report}");
}
