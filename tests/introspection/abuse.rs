//! Who makes this service ask in vain pays, and brings nobody else down.

use std::{convert::Infallible, pin::pin};

use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use portcullis::{
    Clock, Connection, MAX_CREDENTIAL_LEN, RejectionKind, TlsVersion,
    guard::{authenticated, require},
    health::{Condition, Health},
    jwt::introspection::Introspection,
    rate_limit::{FailureBudget, Quota},
    stack::Stack,
    testing::TestClock,
};
use tower::Service;

use super::provider::{Provider, active, bearer, json, status};
use crate::support::{NOW, Probe, send};

fn from(address: &str, token: &str) -> Request<()> {
    let mut request = Request::get("/orders").header("authorization", format!("Bearer {token}")).body(()).unwrap();
    let peer = (address.parse::<std::net::IpAddr>().unwrap(), 52_100).into();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

fn guarded(
    tokens: Introspection,
    clock: &TestClock,
) -> impl Service<Request<()>, Response = Response<http_body_util::Full<bytes::Bytes>>, Error = Infallible> + Clone + use<>
{
    let budget = FailureBudget::new().per_source(Quota::per_minute(6).burst(3)).unwrap();
    let stack =
        Stack::builder().clock(clock.clone()).dangerous_plain_http().authenticate(tokens).failure_budget(budget);
    stack.fallback(require(authenticated())).build().unwrap().protect(Probe::default())
}

/// What comes in the first message of a WebSocket has no bound of its own.
#[tokio::test]
async fn a_token_that_is_too_long_is_nobody_s_question() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    let at = TestClock::at_unix(NOW).now();
    let longest = format!("good{}", "a".repeat(MAX_CREDENTIAL_LEN - 4));
    for (token, refused) in [
        (String::new(), Some(RejectionKind::InvalidCredential)),
        (format!("{longest}a"), Some(RejectionKind::InvalidCredential)),
        (longest, None),
    ] {
        let verified = tokens.verify(&token, at).await;
        assert_eq!(verified.err().map(|rejection| rejection.kind()), refused, "{} bytes", token.len());
        assert_eq!(provider.calls(), usize::from(refused.is_none()), "{} bytes", token.len());
    }
}

#[tokio::test]
async fn tokens_that_are_not_active_cost_their_source() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let service = guarded(provider.tokens(), &clock);
    let of = async |address: &str, token: &str| send(&service, from(address, token)).await.status().as_u16();
    assert_eq!(of("198.51.100.7", "good").await, 200);
    for (token, expected) in
        [("bad-1", 401), ("bad-2", 401), ("bad-2", 401), ("bad-3", 401), ("bad-4", 429), ("new", 429)]
    {
        assert_eq!(of("198.51.100.7", token).await, expected, "{token}");
    }
    assert_eq!(provider.calls(), 4, "a token that is remembered costs nothing, and who has nothing left asks nothing");
    assert_eq!(of("198.51.100.7", "good").await, 200, "what is known passes");
    assert_eq!(of("192.0.2.1", "good-too").await, 200, "somewhere else nobody notices");
    // Whose provider is away pays nothing.
    provider.now_replies(|_| axum::response::IntoResponse::into_response(http::StatusCode::BAD_GATEWAY));
    for _ in 0..10 {
        assert_eq!(of("203.0.113.9", "any").await, 503);
    }
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_pays() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let service = guarded(provider.tokens(), &clock);
    let of = async |address: &str, token: &str| send(&service, from(address, token)).await.status().as_u16();
    provider.hold();
    for call in 1..4 {
        let token = format!("bad-{call}");
        tokio::select! {
            status = of("198.51.100.7", &token) => panic!("{status}"),
            () = provider.called(call) => {}
        }
    }
    assert_eq!(of("198.51.100.7", "bad-4").await, 429, "three hung up");
    assert_eq!(provider.calls(), 3);
    // Only who asks pays, and not who waits for the answer to another's question.
    let mut carrier = pin!(of("192.0.2.1", "good"));
    tokio::select! {
        status = &mut carrier => panic!("{status}"),
        () = provider.called(4) => {}
    }
    for _ in 0..10 {
        tokio::select! {
            biased;
            status = of("203.0.113.9", "good") => panic!("{status}"),
            () = tokio::task::yield_now() => {}
        }
    }
    provider.open();
    assert_eq!(carrier.await, 200);
    for token in ["good-1", "good-2", "good-3", "good-4"] {
        assert_eq!(of("203.0.113.9", token).await, 200, "{token}");
        assert_eq!(of("192.0.2.1", token).await, 200, "{token}");
    }
    // Whoever carries a question on pays as well if it hangs up.
    provider.hold();
    let calls = provider.calls();
    {
        let mut second = pin!(of("203.0.113.9", "worse-0"));
        tokio::select! {
            biased;
            status = of("192.0.2.1", "worse-0") => panic!("{status}"),
            status = &mut second => panic!("{status}"),
            () = provider.called(calls + 1) => {}
        }
        tokio::select! {
            status = &mut second => panic!("{status}"),
            () = provider.called(calls + 2) => {}
        }
    }
    for call in 1..3 {
        let token = format!("worse-{call}");
        tokio::select! {
            status = of("203.0.113.9", &token) => panic!("{status}"),
            () = provider.called(calls + 2 + call) => {}
        }
    }
    assert_eq!(of("203.0.113.9", "worse-4").await, 429);
}

#[tokio::test]
async fn a_token_that_the_provider_chokes_on_is_no_outage_and_is_paid_for() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    let health = Health::new().watch_introspection(tokens.clone());
    let condition = || health.look(clock.now()).condition();
    let service = guarded(tokens.clone(), &clock);
    let of = async |address: &str, token: &str| send(&service, from(address, token)).await.status().as_u16();
    let replies = |status: u16, body: &'static str| {
        move |asked: &super::provider::Asked| match asked.form["token"].starts_with("good") {
            true => json(active("")),
            false => {
                (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body).into_response()
            }
        }
    };
    let invalid = r#"{"error":"invalid_request"}"#;
    for (number, (code, body)) in
        [(400, invalid), (400, ""), (413, "<html></html>"), (414, ""), (422, invalid), (431, "")]
            .into_iter()
            .enumerate()
    {
        provider.now_replies(replies(code, body));
        let address = format!("198.51.100.{number}");
        for round in 0..3 {
            assert_eq!(of(&address, "odd").await, 503, "{code} {body} {round}: asked again");
        }
        assert_eq!((condition(), tokens.failure()), (Condition::Ready, None), "{code} {body}");
        assert_eq!(of(&address, "odd").await, 429, "{code} {body}");
        assert_eq!(of("192.0.2.1", &format!("good-{number}")).await, 200, "{code} {body}: nobody else notices");
    }
    // An outage is one all the same, and such a token does not end it.
    let scope = r#"{"error":"insufficient_scope"}"#;
    for (code, body) in [(400, r#"{"error":"invalid_client"}"#), (401, ""), (403, scope), (404, ""), (502, invalid)] {
        provider.now_replies(replies(code, body));
        for _ in 0..5 {
            assert_eq!(of("203.0.113.9", "any").await, 503, "{code} {body}: for nothing");
        }
        assert_eq!(condition(), Condition::Failing, "{code} {body}");
        provider.now_replies(replies(400, invalid));
        assert_eq!(status(&bearer(&tokens, "odd", clock.now()).await).0, 503);
        assert_eq!(condition(), Condition::Failing, "{code} {body}");
        assert_eq!(of("192.0.2.1", &format!("good-{code}-{}", body.len())).await, 200);
        assert_eq!(condition(), Condition::Ready, "{code} {body}");
    }
}

/// A user whose attributes make the answer odd, or a stranger whom a firewall does not like, takes no service out of rotation.
#[tokio::test]
async fn what_one_token_brings_about_leaves_the_service_ready() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    let health = Health::new().watch_introspection(tokens.clone());
    let condition = || health.look(clock.now()).condition();
    let service = guarded(tokens.clone(), &clock);
    let of = async |address: &str, token: &str| send(&service, from(address, token)).await.status().as_u16();
    let replies = |status: u16, body: Vec<u8>| {
        move |asked: &super::provider::Asked| match asked.form["token"].starts_with("good") {
            true => json(active("")),
            false => (StatusCode::from_u16(status).unwrap(), body.clone()).into_response(),
        }
    };
    let deep = format!(r#"{{"active":true,"a":{}1{}}}"#, "[".repeat(20), "]".repeat(20));
    let rows: [(&str, u16, Vec<u8>); 10] = [
        ("large", 200, format!(r#"{{"active":true,"a":"{}"}}"#, "x".repeat(70_000)).into()),
        ("deep", 200, deep.into()),
        ("twice", 200, r#"{"active":true,"a":{"b":1,"b":2}}"#.into()),
        ("a lone surrogate", 200, r#"{"active":true,"name":"\ud800"}"#.into()),
        ("Latin-1", 200, b"{\"active\":true,\"name\":\"J\xfcrgen\"}".into()),
        ("a firewall", 403, "<html>blocked</html>".into()),
        ("a firewall that sends elsewhere", 302, "".into()),
        ("too many", 429, "".into()),
        ("it fails", 500, "".into()),
        ("it fails, and says so", 500, r#"{"error":"server_error"}"#.into()),
    ];
    for (name, code, body) in rows {
        provider.now_replies(replies(code, body.clone()));
        for round in 0..5 {
            assert_eq!(of("203.0.113.9", "../../../etc/passwd").await, 503, "{name} {round}: asked again, for nothing");
        }
        assert_eq!(condition(), Condition::Stale, "{name}");
        assert!(health.look(clock.now()).is_ready() && tokens.failure().is_some(), "{name}");
        assert_eq!(of("192.0.2.1", &format!("good-{name}").replace([' ', ','], "-")).await, 200, "{name}");
        assert_eq!(condition(), Condition::Ready, "{name}: with the next answer");
        // It does not cover up an outage.
        provider.now_replies(|_| StatusCode::BAD_GATEWAY.into_response());
        assert_eq!(of("192.0.2.1", "any").await, 503);
        provider.now_replies(replies(code, body));
        assert_eq!(of("203.0.113.9", "odd").await, 503, "{name}");
        assert_eq!(condition(), Condition::Failing, "{name}");
        clock.advance(Introspection::RECENT);
    }
}
