//! What limits count by, and how much: keys, missing and over-long ones, costs, plans; with attacks on each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{HeaderMap, Request, StatusCode};
use portcullis::{
    Challenge, Clock, Connection, Principal, PrincipalKind, Rejection, RejectionKind, ShadowMode, TlsVersion,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    evidence::{EvidenceLayer, TrustedProxies},
    rate_limit::{LimitBy, MAX_KEY_LEN, OnMissingKey, Plans, Quota, RateLimitLayer},
};
use support::{Probe, Still, get, send, with};
use tower::{Layer, ServiceExt};

fn hourly(by: LimitBy, count: u32) -> RateLimitLayer {
    RateLimitLayer::per(by, Quota::per_hour(count)).unwrap().with_clock(Still)
}

fn get_from(address: &str) -> Request<()> {
    let mut request = Request::get("/orders").body(()).unwrap();
    let peer = (address.parse::<IpAddr>().unwrap(), 52_100).into();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

/// `x-who: issuer|subject|tenant|credential|plan`; what is empty is left out.
fn who() -> AuthnLayer {
    let authenticator = authenticate_fn(Challenge::new("Who", "tests").unwrap(), |head, _| {
        let Some(who) = head.headers().get("x-who") else { return Outcome::Absent };
        let who: Vec<&str> = who.to_str().unwrap().split('|').collect();
        let (kind, claims) = match who[0] {
            "keys" => (PrincipalKind::Key, None),
            _ => (
                PrincipalKind::Service,
                Some(format!(r#"{{"tier": "{}", "group": {{"name": "{}"}}}}"#, who[4], who[2])),
            ),
        };
        let principal = Principal::builder(kind, who[0], who[1], "who");
        let mut principal = claims.into_iter().fold(principal, |principal, claims| principal.claims(claims));
        if !who[2].is_empty() {
            principal = principal.tenant(who[2]);
        }
        if !who[3].is_empty() {
            principal = principal.credential_id(who[3]);
        }
        if !who[4].is_empty() {
            principal = principal.plan(who[4]);
        }
        Outcome::verified(principal.build())
    });
    AuthnLayer::new(authenticator).allow_anonymous().dangerous_plain_http()
}

fn is(who: &str) -> Request<()> {
    with(get("/orders"), "x-who", who)
}

async fn statuses(layer: &RateLimitLayer, requests: Vec<Request<()>>) -> Vec<u16> {
    let service = layer.layer(Probe::default());
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(send(&service, request).await.status().as_u16());
    }
    statuses
}

async fn statuses_inside(layer: &RateLimitLayer, requests: Vec<Request<()>>) -> Vec<u16> {
    let service = who().layer(layer.layer(Probe::default()));
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(send(&service, request).await.status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn each_kind_of_key_tells_what_it_says_apart() {
    for (name, by, whos, expected) in [
        (
            "principal",
            LimitBy::principal(),
            ["a|alice|t|c1|", "a|alice|t|c2|", "b|alice|t|c1|", "a|bob|t|c1|"],
            [200, 429, 200, 200],
        ),
        (
            "same subject, two tenants",
            LimitBy::principal(),
            ["a|alice|t|c1|", "a|alice|u|c1|", "a|alice||c1|", "a|alice|u|c2|"],
            [200, 200, 200, 429],
        ),
        (
            "credential",
            LimitBy::credential(),
            ["a|alice|t|c1|", "a|bob|u|c1|", "a|alice|t|c2|", "b|alice|t|c1|"],
            [200, 429, 200, 200],
        ),
        (
            "credential without id",
            LimitBy::credential(),
            ["a|alice|||", "a|alice|t||", "a|bob|||", "a|alice|t||"],
            [200, 200, 200, 429],
        ),
        (
            "tenant",
            LimitBy::tenant(),
            ["a|alice|t|c1|", "a|bob|t|c2|", "a|alice|u|c1|", "b|alice|t|c1|"],
            [200, 429, 200, 200],
        ),
        (
            "tenant and principal",
            LimitBy::tenant().and(LimitBy::principal()).unwrap(),
            ["a|alice|t||", "a|bob|t||", "a|alice|u||", "a|alice|t|x|"],
            [200, 200, 200, 429],
        ),
        (
            "a claim",
            LimitBy::identity(|principal| {
                let claims: serde_json::Value = principal.claims().ok()?;
                Some(claims["group"]["name"].as_str()?.to_owned())
            }),
            ["a|alice|t||", "b|bob|t||", "a|alice|u||", "a|bob|u||"],
            [200, 429, 200, 429],
        ),
    ] {
        let requests = whos.into_iter().map(is).collect();
        assert_eq!(statuses_inside(&hourly(by, 1), requests).await, expected, "{name}");
    }
}

#[tokio::test]
async fn header_route_and_closure_are_keys_before_anybody_is_known() {
    let device = |name: &str| with(get("/orders"), "x-device", name);
    let by_device = hourly(LimitBy::header("X-Device").unwrap(), 1);
    assert_eq!(statuses(&by_device, vec![device("1"), device("2"), device("1")]).await, [200, 200, 429]);

    let by_method = hourly(LimitBy::request(|request| Some(request.head().method().to_string())), 1);
    let head = || Request::head("/").body(()).unwrap();
    assert_eq!(statuses(&by_method, vec![get("/"), head(), get("/x")]).await, [200, 200, 429]);

    let both = LimitBy::source().and(LimitBy::header("x-device").unwrap()).unwrap();
    let from = |address, name| with(get_from(address), "x-device", name);
    let requests = vec![from("192.0.2.1", "1"), from("192.0.2.2", "1"), from("192.0.2.1", "2"), from("192.0.2.1", "1")];
    assert_eq!(statuses(&hourly(both, 1), requests).await, [200, 200, 200, 429]);

    let by_address = hourly(LimitBy::request(|request| Some(request.address()?.to_string())), 1);
    let requests = vec![get_from("192.0.2.1"), get_from("::ffff:192.0.2.1"), get_from("192.0.2.2")];
    assert_eq!(statuses(&by_address, requests).await, [200, 429, 200]);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_route_is_its_template() {
    use axum::{Router, body::Body, routing::get};

    let limit = hourly(LimitBy::source().and(LimitBy::route()).unwrap(), 1);
    let app = Router::new().route("/orders/{id}", get("order")).route("/health", get("ok")).route_layer(limit);
    let ask = async |path: &str| {
        let request = get_from("192.0.2.1").map(|()| Body::empty());
        let (mut parts, body) = request.into_parts();
        parts.uri = path.parse().unwrap();
        app.clone().oneshot(Request::from_parts(parts, body)).await.unwrap().status().as_u16()
    };
    assert_eq!([ask("/orders/1").await, ask("/orders/2").await, ask("/health").await], [200, 429, 200]);
}

#[tokio::test]
async fn paths_without_a_template_share_one_key() {
    let requests = (0..4).map(|number| get(&format!("/guess/{number}"))).collect();
    assert_eq!(statuses(&hourly(LimitBy::route(), 2), requests).await, [200, 200, 429, 429]);
}

#[tokio::test]
async fn what_lacks_a_key_is_refused_shared_or_passed_as_chosen() {
    let no_address = || {
        let mut request = Request::new(());
        request.extensions_mut().insert(Connection::unaddressed());
        request
    };
    type Make = fn() -> LimitBy;
    let outside: [(&str, Make, u16); 3] = [
        ("source", LimitBy::source, 500),
        ("header", || LimitBy::header("x-device").unwrap(), 400),
        ("closure", || LimitBy::request(|_| None), 400),
    ];
    for (name, by, refused) in outside {
        let requests = || (0..3).map(|_| no_address()).collect::<Vec<_>>();
        assert_eq!(statuses(&hourly(by(), 2), requests()).await, [refused; 3], "{name}: refused by default");
        let shared = hourly(by(), 2).on_missing_key(OnMissingKey::Share);
        assert_eq!(statuses(&shared, requests()).await, [200, 200, 429], "{name}: shared");
        let passed = hourly(by(), 2).on_missing_key(OnMissingKey::Pass);
        assert_eq!(statuses(&passed, requests()).await, [200; 3], "{name}: passed");
    }
    let inside: [(&str, Make, &str); 4] = [
        ("principal", LimitBy::principal, ""),
        ("tenant", LimitBy::tenant, "a|alice|||"),
        ("closure", || LimitBy::identity(|_| None), "a|alice|||"),
        ("one of two", || LimitBy::principal().and(LimitBy::tenant()).unwrap(), "a|alice|||"),
    ];
    for (name, by, whom) in inside {
        let requests = || (0..3).map(|_| if whom.is_empty() { get("/") } else { is(whom) }).collect::<Vec<_>>();
        // Who is not known at all is the guard's to refuse.
        let expected = if whom.is_empty() { [200; 3] } else { [403; 3] };
        assert_eq!(statuses_inside(&hourly(by(), 2), requests()).await, expected, "{name}: by default");
        let refused = hourly(by(), 2).on_missing_key(OnMissingKey::Refuse);
        assert_eq!(statuses_inside(&refused, requests()).await, [403; 3], "{name}: refused");
        let shared = hourly(by(), 2).on_missing_key(OnMissingKey::Share);
        assert_eq!(statuses_inside(&shared, requests()).await, [200, 200, 429], "{name}: shared");
        let passed = hourly(by(), 2).on_missing_key(OnMissingKey::Pass);
        assert_eq!(statuses_inside(&passed, requests()).await, [200; 3], "{name}: passed");
    }
    // Nobody can claim to be those who lack a key.
    let shared = hourly(LimitBy::header("x-device").unwrap(), 1).on_missing_key(OnMissingKey::Share);
    let requests = vec![get("/"), with(get("/"), "x-device", "missing"), get("/")];
    assert_eq!(statuses(&shared, requests).await, [200, 200, 429]);
}

#[tokio::test]
async fn a_key_that_is_too_long_or_twofold_is_refused_and_takes_nothing() {
    let (longest, longer) = ("x".repeat(MAX_KEY_LEN), "x".repeat(MAX_KEY_LEN + 1));
    let by_device = hourly(LimitBy::header("x-device").unwrap(), 1);
    let device = |name: &str| with(get("/"), "x-device", name);
    let requests =
        vec![device(&longer), device(&longest), device(&longest), device(&longer), with(device("1"), "x-device", "2")];
    assert_eq!(statuses(&by_device, requests).await, [400, 200, 429, 400, 400]);

    let long = hourly(LimitBy::request(|_| Some("ü".repeat(MAX_KEY_LEN))), 1);
    assert_eq!(statuses(&long, vec![get("/"), get("/")]).await, [400, 400]);

    // A principal's names are as long as its authenticator takes.
    let whom = format!("{}|{}|||", "i".repeat(3_000), "s".repeat(3_000));
    assert_eq!(statuses_inside(&hourly(LimitBy::principal(), 1), vec![is(&whom), is(&whom)]).await, [200, 429]);
}

#[tokio::test]
async fn a_closure_that_panics_refuses_its_request_and_no_other() {
    let by = LimitBy::request(|request| {
        assert!(!request.head().headers().contains_key("x-poison"), "a bug in the owner's closure");
        Some("all".to_owned())
    });
    let costly = RateLimitLayer::per(LimitBy::source(), Quota::per_hour(3)).unwrap().with_cost_by(|request| {
        assert!(!request.head().headers().contains_key("x-poison"), "a bug in the owner's closure");
        1
    });
    for layer in [hourly(by, 3), costly] {
        let service = layer.layer(Probe::default());
        for _ in 0..10 {
            assert_eq!(send(&service, with(get("/"), "x-poison", "1")).await.status(), 503);
        }
        let mut after = Vec::new();
        for _ in 0..4 {
            after.push(send(&service, get("/")).await.status().as_u16());
        }
        assert_eq!(after, [200, 200, 200, 429], "nothing was taken, and no lock is stuck");
    }
}

#[tokio::test]
async fn a_48_has_sixteen_times_the_quota_of_a_64() {
    let limit = || RateLimitLayer::per_client(Quota::per_hour(2)).unwrap().with_clock(Still);
    let service = limit().layer(Probe::default());
    let mut passed = 0;
    for subnet in 0..100 {
        for host in 0..3 {
            let response = send(&service, get_from(&format!("2001:db8:1:{subnet:x}::{host}"))).await;
            if response.status() == StatusCode::OK {
                passed += 1;
            } else {
                assert_eq!(
                    response.headers()["ratelimit"],
                    r#""client";r=0;t=1800"#.replace("1800", if subnet < 16 { "1800" } else { "113" })
                );
            }
        }
    }
    assert_eq!(passed, 32);
    assert_eq!(send(&service, get_from("2001:db8:2::1")).await.status(), StatusCode::OK, "another site is not touched");
    assert_eq!(send(&service, get_from("192.0.2.1")).await.status(), StatusCode::OK);

    let service = limit().dangerous_without_wide_networks().layer(Probe::default());
    for subnet in 0..100 {
        assert_eq!(send(&service, get_from(&format!("2001:db8:1:{subnet:x}::1"))).await.status(), StatusCode::OK);
    }

    // One noisy /64 that is refused again and again takes nothing from its site.
    let service = limit().layer(Probe::default());
    for _ in 0..1_000 {
        send(&service, get_from("2001:db8:1:1::1")).await;
    }
    for subnet in 2..17 {
        assert_eq!(send(&service, get_from(&format!("2001:db8:1:{subnet:x}::1"))).await.status(), StatusCode::OK);
        assert_eq!(send(&service, get_from(&format!("2001:db8:1:{subnet:x}::1"))).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_have_a_price() {
    let fixed = RateLimitLayer::per_client(Quota::per_hour(10)).unwrap().with_clock(Still).with_cost(4).unwrap();
    assert_eq!(statuses(&fixed, vec![get("/"), get("/"), get("/")]).await, [200, 200, 429]);
    assert!(fixed.with_cost(0).is_err());

    let by_path =
        RateLimitLayer::per_client(Quota::per_hour(10)).unwrap().with_clock(Still).with_cost_by(
            |request| match request.head().path() {
                "/health" => 0,
                "/search" => 5,
                "/export" => 11,
                "/everything" => u32::MAX,
                _ => 1,
            },
        );
    let service = by_path.layer(Probe::default());
    let ask = async |path: &str| send(&service, get(path)).await;
    assert_eq!(ask("/search").await.headers()["ratelimit"], r#""client";r=5;t=1800"#);
    for path in ["/export", "/everything"] {
        let refused = ask(path).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(!refused.headers().contains_key("retry-after"), "it would never pass");
        assert_eq!(refused.extensions().get::<Rejection>().unwrap().reason(), "costs more than the whole quota");
    }
    assert_eq!(ask("/search").await.status(), StatusCode::OK, "what is refused costs nothing");
    let free = ask("/health").await;
    assert_eq!((free.status(), free.headers().contains_key("ratelimit")), (StatusCode::OK, false));
    let refused = ask("/search").await;
    assert_eq!(refused.headers()["retry-after"], "1800", "five come back in half an hour");
    assert_eq!(ask("/").await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn refused_requests_count_if_told_so() {
    let layer = hourly(LimitBy::source(), 2).counting_refused();
    let service = layer.layer(Probe::default());
    let mut waits = Vec::new();
    for _ in 0..5 {
        let response = send(&service, get("/")).await;
        waits.push(response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned()));
    }
    assert_eq!(waits.iter().flatten().collect::<Vec<_>>(), ["1800", "1800", "1800"]);
    assert_eq!(layer.counts().refused, 3);
}

fn limit_of(headers: &HeaderMap) -> (&str, &str) {
    (headers["ratelimit-policy"].to_str().unwrap(), headers["ratelimit"].to_str().unwrap())
}

#[tokio::test]
async fn each_principal_is_held_to_its_plan() {
    let plans = Plans::new([Quota::per_minute(2)])
        .unwrap()
        .with("gold", [Quota::per_minute(60), Quota::per_day(1_000).named("day")])
        .unwrap()
        .with("free", [Quota::per_hour(1)])
        .unwrap();
    let limit = RateLimitLayer::per_principal(&plans).unwrap().with_clock(Still);
    let service = who().layer(limit.layer(Probe::default()));
    let ask = async |whom: &str| send(&service, is(whom)).await;

    for (whom, policy, left) in [
        ("a|alice|||gold", r#""default";q=60;w=60, "day";q=1000;w=86400"#, r#""default";r=59;t=1"#),
        ("a|bob|||free", r#""default";q=1;w=3600"#, r#""default";r=0;t=3600"#),
        ("a|carol|||", r#""default";q=2;w=60"#, r#""default";r=1;t=30"#),
        ("a|dave|||platinum", r#""default";q=2;w=60"#, r#""default";r=1;t=30"#),
    ] {
        let response = ask(whom).await;
        assert_eq!(limit_of(response.headers()), (policy, left), "{whom}");
    }
    assert_eq!(ask("a|bob|||free").await.status(), StatusCode::TOO_MANY_REQUESTS);

    // Half of bob's new minute is used up: an hour of debt is a whole burst of the larger quota, and no more.
    plans.set("free", [Quota::per_hour(4).burst(4)]).unwrap();
    assert_eq!(ask("a|bob|||free").await.headers()["retry-after"], "900");
    // A change of plan is no way out.
    plans.set("gold", [Quota::per_minute(10), Quota::per_day(1_000).named("day")]).unwrap();
    assert_eq!(limit_of(ask("a|alice|||gold").await.headers()).1, r#""default";r=8;t=7"#, "one of sixty is a second");
    assert_eq!(limit_of(ask("a|alice|||").await.headers()).1, r#""default";r=0;t=37"#);
    plans.remove("gold");
    assert_eq!(ask("a|alice|||gold").await.status(), StatusCode::TOO_MANY_REQUESTS);
    plans.set_default([Quota::per_minute(60)]).unwrap();
    assert_eq!(limit_of(ask("a|alice|||gold").await.headers()).1, r#""default";r=22;t=38"#);

    assert!(plans.set("gold", [Quota::per_minute(0)]).is_err());
    assert_eq!(ask("a|alice|||gold").await.status(), StatusCode::OK, "what is not accepted changes nothing");
    assert!(RateLimitLayer::per_principal(&plans).unwrap().and(Quota::per_day(1).named("day")).is_err());
    assert!(format!("{limit:?}").contains("free"));
}

#[tokio::test]
async fn a_key_on_a_shorter_plan_pays_no_debt_of_a_longer_one() {
    let plans = Plans::new([Quota::per_minute(5)]).unwrap().with("day", [Quota::per_day(4)]).unwrap();
    let limit = RateLimitLayer::per_principal(&plans).unwrap().with_clock(Still);
    let service = who().layer(limit.layer(Probe::default()));
    let ask = async |whom: &str| send(&service, is(whom)).await;
    for _ in 0..4 {
        assert_eq!(ask("a|alice||one|day").await.status(), StatusCode::OK);
    }
    for other in ["a|alice||two|", "a|alice||two|", "a|alice||one|day"] {
        assert_eq!(ask(other).await.status(), StatusCode::TOO_MANY_REQUESTS, "{other}");
    }
    let refused = ask("a|alice||one|day").await;
    assert_eq!(refused.headers()["retry-after"], "21600", "four a day is one in six hours");
    assert_eq!(ask("a|alice||two|").await.headers()["retry-after"], (86_400 - 48).to_string());
    // The owner made it smaller for all of them: a whole burst is left of it.
    plans.set("day", [Quota::per_minute(4)]).unwrap();
    assert_eq!(ask("a|alice||one|day").await.headers()["retry-after"], "15");
    assert_eq!(ask("a|alice||two|").await.headers()["retry-after"], "12");
}

#[tokio::test]
async fn a_plan_may_stand_in_a_claim_or_be_asked_for() {
    let asked = Arc::new(AtomicU32::new(0));
    let plans = || Plans::new([Quota::per_hour(1)]).unwrap().with("gold", [Quota::per_hour(50)]).unwrap();
    let counter = Arc::clone(&asked);
    let by = plans().by(move |principal| {
        counter.fetch_add(1, Ordering::SeqCst);
        (principal.subject() == "alice").then(|| "gold".to_owned())
    });
    for (name, plans, gold, plain) in [
        ("claim", plans().by_claim("tier"), "a|alice|||gold", "a|bob|||"),
        ("claim, of a key", plans().by_claim("tier"), "keys|billing|||gold", "keys|other|||"),
        ("no such claim", plans().by_claim("group"), "a|alice|||gold", "a|alice|||gold"),
        ("closure", by, "a|alice|||", "a|bob|||gold"),
    ] {
        let limit = RateLimitLayer::per_principal(plans).unwrap().with_clock(Still);
        let service = who().layer(limit.layer(Probe::default()));
        if gold != plain {
            let response = send(&service, is(gold)).await;
            assert_eq!(limit_of(response.headers()).1, r#""default";r=49;t=72"#, "{name}");
        }
        let response = send(&service, is(plain)).await;
        assert_eq!(limit_of(response.headers()).1, r#""default";r=0;t=3600"#, "{name}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn bad_keys_are_named() {
    let error = LimitBy::header("x device").unwrap_err().to_string();
    assert!(error.starts_with("limit key: \"x device\" is no header field"), "{error}");
    let four = LimitBy::source().and(LimitBy::route()).unwrap().and(LimitBy::principal()).unwrap();
    let five = four.and(LimitBy::tenant()).unwrap().and(LimitBy::credential());
    assert_eq!(five.unwrap_err().to_string(), "limit key: 5 parts is more than four");
    let shown = format!("{:?}", LimitBy::header("X-Device").unwrap().and(LimitBy::request(|_| None)).unwrap());
    assert_eq!(shown, "LimitBy { parts: [Header(x-device), Request] }");
}

/// A store outside keeps a key as text: whoever reads it there would have the credential.
#[test]
fn no_field_of_a_credential_is_a_key() {
    for field in ["Authorization", "cookie", "X-API-Key", "dpop", "sec-websocket-protocol"] {
        let error = LimitBy::header(field).unwrap_err();
        assert_eq!((error.setting(), error.value()), ("limit key", &*format!("{field:?}")));
        assert!(error.to_string().contains("LimitBy::credential"), "{error}");
    }
    assert!(LimitBy::header("x-api-key-id").is_ok(), "another field");
}

#[tokio::test]
async fn a_key_that_needs_an_identity_outside_authentication_never_passes() {
    for by in [LimitBy::principal(), LimitBy::tenant(), LimitBy::source().and(LimitBy::identity(|_| None)).unwrap()] {
        for choice in [OnMissingKey::Share, OnMissingKey::Pass, OnMissingKey::Refuse] {
            let layer = hourly(by.clone(), 5).on_missing_key(choice);
            let response = send(&layer.layer(Probe::default()), get("/")).await;
            let rejection = response.extensions().get::<Rejection>().unwrap();
            assert_eq!(rejection.kind(), RejectionKind::Misconfigured, "{by:?} {choice:?}");
        }
    }
}

/// A client behind a proxy at a Unix socket writes a header that does not parse: its mistake, and nobody needs to be told.
#[tokio::test]
async fn who_has_no_address_by_a_header_of_their_own_is_told_so() {
    let many = |element: &str, separator: &str| vec![element; 65].join(separator);
    let long = format!("192.0.2.1{}", " ".repeat(9_000));
    let lists = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().and_unix_sockets();
    let pairs = TrustedProxies::forwarded(["10.0.12.7"]).unwrap().and_unix_sockets();
    let strict = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
    let (list, pair) = ("x-forwarded-for", "forwarded");
    for (name, proxies, field, value, expected) in [
        ("an address", &lists, list, "192.0.2.1", [200, 200]),
        ("more than 64", &lists, list, &many("192.0.2.1", ", "), [400, 200]),
        ("more than 8 KiB", &lists, list, &long, [400, 200]),
        ("no address", &lists, list, "?", [400, 200]),
        ("more than 64", &pairs, pair, &many("for=192.0.2.1", ", "), [400, 200]),
        ("an open quote", &pairs, pair, "for=\"192.0.2.1", [400, 200]),
        ("the proxy tells nothing", &lists, "x-other", "1", [500, 500]),
        ("the proxy tells that it does not know", &lists, list, "unknown", [500, 500]),
        ("the proxy tells nothing", &pairs, "x-other", "1", [500, 500]),
        ("whoever it is", &strict, list, "?", [500, 500]),
    ] {
        let evidence = EvidenceLayer::new(proxies.clone()).with_clock(Still);
        let request = || {
            let mut request = with(Request::get("/orders").body(()).unwrap(), field, value);
            request.extensions_mut().insert(Connection::unix_socket());
            request
        };
        let limit = || RateLimitLayer::per_client(Quota::per_hour(1)).unwrap();
        let until = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
        let statuses = [limit(), limit().shadow(until)].map(|limit| {
            let service = evidence.layer(limit.layer(Probe::default()));
            async move { send(&service, request()).await }
        });
        for (status, expected) in statuses.into_iter().zip(expected) {
            let response = status.await;
            assert_eq!(response.status().as_u16(), expected, "{name}");
            let kind = response.extensions().get::<Rejection>().map(Rejection::kind);
            let said = match expected {
                400 => Some(RejectionKind::InvalidRequest),
                500 => Some(RejectionKind::Misconfigured),
                _ => None,
            };
            assert_eq!(kind, said, "{name}");
        }
    }
}
