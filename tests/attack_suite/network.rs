//! What is sent to a service that runs, and does what it is asked.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse};
use portcullis::{
    Clock, SystemClock,
    jwt::JwtAuthenticator,
    testing::{
        TestIssuer,
        attack::{Profile, attack_url},
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
