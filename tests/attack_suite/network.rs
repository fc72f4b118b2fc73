//! What is sent to a service that runs, and does what it is asked.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse};
use portcullis::{
    Clock, SystemClock,
    jwt::JwtAuthenticator,
    testing::{
        TestIssuer,
        attack::{Caller, Profile, attack_url},
    },
};

/// Clerks may delete what is there, in the profile one order of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_token_deletes_only_what_the_profile_says() {
    let issuer = TestIssuer::new("orders-api");
    let jwt = Arc::new(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap());
    let seen = Arc::<Mutex<Vec<(String, String, bool)>>>::default();
    let keeps = Arc::clone(&seen);
    let app = Router::new().fallback(async move |request: Request| {
        let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let is_clerk = jwt.verify(token, SystemClock::new().now()).is_ok_and(|principal| principal.has_role("clerk"));
        keeps.lock().unwrap().push((request.method().to_string(), request.uri().path().to_owned(), is_clerk));
        match is_clerk {
            true => (StatusCode::OK, [("cache-control", "no-store")]).into_response(),
            false => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response(),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let profile = Profile::new()
        .route("GET /orders/2", ["clerk"])
        .unwrap()
        .route("DELETE /orders/1", ["clerk"])
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    let report = attack_url(&url, profile).unwrap().run().await.unwrap();
    let seen = seen.lock().unwrap();
    let sent = |method: &str, path: &str, by_clerk| {
        seen.iter().filter(|(m, p, clerk)| m == method && p == path && *clerk == by_clerk).count()
    };
    assert!(sent("DELETE", "/orders/1", true) > 0 && sent("DELETE", "/orders/1", false) > 0, "{report}");
    assert_eq!(sent("DELETE", "/orders/2", true) + sent("DELETE", "/orders/2", false), 0, "{report}");
    for (method, path, is_clerk) in seen.iter() {
        let is_safe = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method.as_str());
        assert!(is_safe || path == "/orders/1" || !is_clerk, "{method} {path}");
    }
}

/// A WebSocket that is opened for its own pages, and, where it asks nobody where a request comes from, for those of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_of_another_site_is_found() {
    for asks in [true, false] {
        let issuer = TestIssuer::new("orders-api");
        let jwt = Arc::new(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap());
        let app = Router::new().fallback(async move |request: Request| {
            let field =
                |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let token = field("cookie").strip_prefix("session=").unwrap_or_default();
            let is_alone = request.headers().get_all("cookie").iter().count() == 1;
            let is_known = is_alone && jwt.verify(token, SystemClock::new().now()).is_ok();
            let is_own = !asks || field("sec-fetch-site") == "same-origin";
            let refusal = |status: StatusCode| (status, [("www-authenticate", "Cookie")]).into_response();
            match (is_known && is_own, field("connection"), field("upgrade")) {
                (false, ..) => refusal(StatusCode::UNAUTHORIZED),
                (true, "Upgrade", "websocket") if request.uri().path() == "/feed" && request.method() == "GET" => {
                    let fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("cache-control", "no-store")];
                    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
                }
                (true, ..) => refusal(StatusCode::FORBIDDEN),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let profile = Profile::new().websocket("GET /feed", ["reader"]).unwrap();
        let profile = profile.role("reader", Caller::cookie("session", issuer.token().role("reader")));
        let report = attack_url(&url, profile).unwrap().run().await.unwrap();
        let found: BTreeSet<_> =
            report.findings().iter().map(|finding| (finding.attack(), finding.route(), finding.got())).collect();
        let expected = BTreeSet::from([("csrf-websocket", "GET /feed", "101")]);
        assert_eq!(found, if asks { BTreeSet::new() } else { expected }, "{report}");
        assert!(report.sent().any(|(attack, count)| attack == "csrf-websocket" && count > 5), "{report}");
    }
}
