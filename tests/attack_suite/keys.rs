//! Services of API keys, alone and beside tokens, and profiles that prove nothing.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use http::Request;
use portcullis::{
    Connection, TlsVersion,
    api_key::{ApiKeyFormat, NewApiKey},
    authn::one_of,
    guard::{require, role},
    jwt::JwtAuthenticator,
    stack::Stack,
    testing::{
        TestIssuer, TestKeys, TestToken,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

/// What the service does wrong with keys, if anything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hole {
    None,
    /// It takes nobody's key.
    Shut,
    /// It takes every secret beside an id that it knows.
    IdAlone,
    /// It takes keys over plain HTTP.
    Plain,
    /// It takes the word of whoever sends a key for it that the connection is secure.
    PlainWithAWord,
    /// It takes the first of two keys.
    First,
    /// It looks at no token where there is a key.
    KeyBeforeToken,
    /// It looks at no key where there is a token.
    TokenBeforeKey,
    /// It says which key it refuses.
    Shows,
}

struct Service {
    issuer: TestIssuer,
    key: String,
}

impl Service {
    fn new() -> (Self, Router) {
        let (issuer, keys) = (TestIssuer::new("orders-api"), TestKeys::new());
        let key = keys.good(NewApiKey::for_subject("billing").role("clerk"));
        let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap();
        let app = Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(one_of((jwt, keys.authenticator())))
            .route("GET /orders", require(role("clerk").unwrap()))
            .build()
            .unwrap()
            .protect(Router::new().route("/orders", get(async || "orders")));
        (Self { issuer, key }, Router::new().fallback_service(app))
    }

    fn token(&self, role: &str) -> TestToken {
        self.issuer.token().role(role)
    }

    /// Keys, and tokens beside them.
    fn profile(&self, tokens: bool) -> Profile {
        let profile = Profile::new().api_key("x-api-key", &self.key).route_for_keys("GET /orders").unwrap();
        if !tokens {
            return profile;
        }
        profile.route("GET /orders", ["clerk"]).unwrap().role("clerk", self.token("clerk"))
    }
}

async fn answer(hole: Hole, good: &str, app: Router, mut request: Request<Body>) -> Response {
    let keys: Vec<_> = request.headers().get_all("x-api-key").into_iter().cloned().collect();
    let first = keys.first().map(|key| key.to_str().unwrap().to_owned()).unwrap_or_default();
    let is_secure = request.extensions().get::<Connection>().unwrap().is_secure();
    let secured = |request: &mut Request<Body>| {
        request.extensions_mut().insert(Connection::tls(([11, 0, 0, 1], 1).into(), TlsVersion::Tls13));
    };
    match hole {
        Hole::Shut if !first.is_empty() => {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "ApiKey")]).into_response();
        }
        Hole::IdAlone => {
            let read = |text: &str| ApiKeyFormat::default().parse(text).map(|key| key.id());
            if read(&first).is_some_and(|id| Some(id) == read(good)) && keys.len() == 1 {
                request.headers_mut().insert("x-api-key", good.parse().unwrap());
            }
        }
        Hole::Plain if !is_secure && request.headers().len() == 1 => secured(&mut request),
        Hole::PlainWithAWord if request.headers().contains_key("x-forwarded-proto") => secured(&mut request),
        Hole::First if keys.len() > 1 => drop(request.headers_mut().insert("x-api-key", keys[0].clone())),
        Hole::KeyBeforeToken if !keys.is_empty() => drop(request.headers_mut().remove("authorization")),
        Hole::TokenBeforeKey if request.headers().contains_key("authorization") => {
            request.headers_mut().remove("x-api-key");
        }
        _ => {}
    }
    let mut response = app.oneshot(request).await.unwrap();
    if hole == Hole::Shows && response.status() == StatusCode::UNAUTHORIZED {
        *response.body_mut() = Body::from(format!("no such key: {first}"));
    }
    response
}

async fn run(hole: Hole, profile: impl FnOnce(&Service) -> Profile) -> AttackReport {
    let (service, app) = Service::new();
    let (profile, key) = (profile(&service), Arc::new(service.key));
    let service = service_fn(move |request: Request<Body>| {
        let (app, key) = (app.clone(), Arc::clone(&key));
        async move { Ok::<_, Infallible>(answer(hole, &key, app, request).await) }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn what_is_done_wrong_with_keys_is_found() {
    for tokens in [false, true] {
        let report = run(Hole::None, |service| service.profile(tokens)).await;
        assert!(report.is_clean(), "{report}");
    }
    for (hole, tokens, attack, sent) in [
        (Hole::Shut, false, "control", "a good key in x-api-key"),
        (Hole::IdAlone, false, "key-altered", "another secret, with the checksum that fits"),
        (Hole::Plain, false, "credential-plain-http", "a good key over plain HTTP"),
        (Hole::PlainWithAWord, false, "proxy-scheme", "a good key, x-forwarded-proto"),
        (Hole::First, false, "credential-twice", "a good key twice"),
        (Hole::First, false, "credential-twice", "a good key, an altered one"),
        (Hole::KeyBeforeToken, true, "credential-twice", "a good key, a forged token"),
        (Hole::TokenBeforeKey, true, "credential-twice", "an altered key, a good token"),
        (Hole::Shows, false, "leak-body", "the last character changed"),
    ] {
        let report = run(hole, |service| service.profile(tokens)).await;
        let found =
            |finding: &&portcullis::testing::attack::Finding| finding.attack() == attack && finding.sent() == sent;
        assert!(report.findings().iter().any(|finding| found(&finding)), "{hole:?}, {sent}: {report}");
        let others = report.findings().iter().filter(|finding| finding.attack() != attack);
        assert_eq!(others.count(), 0, "{hole:?}: {report}");
    }
}

#[tokio::test]
async fn what_nobody_of_the_profile_can_open_proves_nothing() {
    let keyless = |service: &Service| Profile::new().route("GET /orders", []).unwrap().role("a", service.token("a"));
    let tokenless = |_: &Service| Profile::new().route("GET /orders", ["clerk"]).unwrap();
    let no_key = |_: &Service| Profile::new().route_for_keys("GET /orders").unwrap();
    let for_nothing = |service: &Service| {
        let profile = Profile::new().route("GET /orders", ["clerk"]).unwrap().role("clerk", service.token("clerk"));
        profile.api_key("x-api-key", &service.key)
    };
    let not_there = |service: &Service| {
        let clerk = service.token("clerk");
        service.profile(true).other_tenant("GET /reports/7", clerk.clone(), service.token("guest")).unwrap()
    };
    let not_there_either = |service: &Service| {
        let clerk = service.token("clerk");
        service.profile(true).hidden("GET /reports/7", "GET /reports/8", clerk, service.token("guest")).unwrap()
    };
    let good = "a good request";
    for (name, report, sent) in [
        ("no role", run(Hole::None, keyless).await, good),
        ("a role without a token", run(Hole::None, tokenless).await, good),
        ("no key", run(Hole::None, no_key).await, good),
        ("a key for nothing", run(Hole::None, for_nothing).await, "the good keys"),
        ("nothing of the tenant's", run(Hole::None, not_there).await, "whoever may have it"),
        ("nothing that is hidden", run(Hole::None, not_there_either).await, "whoever may have it"),
    ] {
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        assert_eq!(found, [("control", sent)], "{name}: {report}");
        let junit = report.to_junit();
        assert!(junit.contains("failures=\"1\"") && junit.contains("name=\"control\">"), "{name}: {junit}");
        assert!(
            report.to_string().contains("1 findings") && report.to_json().contains("\"control\""),
            "{name}: {report}"
        );
    }
}

/// A report is kept by CI, and seen by whoever sees the job.
#[tokio::test]
async fn a_report_shows_no_credential() {
    let (service, app) = Service::new();
    let profile = service.profile(true).secret("db-7.internal");
    let shown = format!("{profile:?} {:?}", attack_suite((), profile.clone()));
    assert!(!shown.contains(&service.key) && !shown.contains("db-7"), "{shown}");
    assert!(shown.contains("GET /orders") && shown.contains("x-api-key"), "{shown}");

    let sent = Arc::<Mutex<Vec<String>>>::default();
    let (keeps, key) = (Arc::clone(&sent), service.key.clone());
    // What it refuses it shows, and without a challenge.
    let careless = service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut said = vec!["db-7.internal".to_owned(), query.split('=').next_back().unwrap_or_default().to_owned()];
        for name in ["authorization", "x-api-key"] {
            let values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            said.extend(values.filter_map(|value| value.split(' ').next_back()).map(str::to_owned));
        }
        keeps.lock().unwrap().extend(said.iter().filter(|said| said.len() > 20).cloned());
        let secrets = if said.len() > 2 { said.split_off(1) } else { said };
        let app = app.clone();
        async move {
            let response = app.oneshot(request).await.unwrap();
            Ok::<Response, Infallible>(match response.status() {
                StatusCode::UNAUTHORIZED => (StatusCode::UNAUTHORIZED, secrets.join(" ")).into_response(),
                _ => response,
            })
        }
    });
    let report = attack_suite(careless, profile).run::<Body, _>().await;
    let finds = |attack: &str, sent: &str| {
        report.findings().iter().any(|finding| finding.attack() == attack && finding.sent() == sent)
    };
    for sent in ["api_key", "access_token"] {
        assert!(finds("refusal-challenge", sent), "{report}");
    }
    assert!(finds("leak-body", "no credential") && finds("leak-body", "the last character changed"), "{report}");
    let sent = sent.lock().unwrap();
    assert!(sent.contains(&key));
    for text in [report.to_string(), report.to_json(), report.to_junit(), format!("{report:?}")] {
        for secret in sent.iter().map(String::as_str).chain(["db-7"]) {
            // Nor the beginning of one.
            assert!(!text.contains(&secret[..secret.len().min(16)]), "{secret}: {text}");
        }
    }
}
