//! A provider that gives no answer that can be used: `503`, never `401`, and nothing is remembered of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, response::IntoResponse};
use http::{Response, StatusCode};
use portcullis::{
    Clock, Instants, Now,
    authn::Outcome,
    health::{Condition, Health},
    http_client::FetchLimits,
    jwt::introspection::Introspection,
    revocation::{RevocationLimits, RevocationState, RevocationStore},
    testing::TestClock,
};
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt;

use super::provider::{AT, AUDIENCE, ISSUER, Provider, active, bearer, client, json, now, status};
use crate::support::NOW;

const SHORT: Duration = Duration::from_millis(300);

fn saying(status: u16, text: &'static str) -> impl Fn() -> Response<Body> + Send + Sync + 'static {
    move || (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], text).into_response()
}

#[tokio::test]
async fn what_is_no_answer_is_503_and_not_remembered() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    let deep = format!(r#"{{"active":true,"a":{}1{}}}"#, "[".repeat(20), "]".repeat(20));
    let large = format!(r#"{{"active":true,"a":"{}"}}"#, "x".repeat(70_000));
    let jwt = "eyJhbGciOiJFUzI1NiIsInR5cCI6InRva2VuLWludHJvc3BlY3Rpb24rand0In0.e30.AA";
    type Reply = Box<dyn Fn() -> Response<Body> + Send + Sync>;
    let text = |text: String| -> Reply { Box::new(move || json(text.clone())) };
    let of = |status, text| -> Reply { Box::new(saying(status, text)) };
    let rows: Vec<(&str, Reply)> = vec![
        ("nothing", text(String::new())),
        ("a page", text("<html>good</html>".to_owned())),
        ("an array", text(format!("[{}]", active("")))),
        ("true", text("true".to_owned())),
        ("two documents", text(format!("{0}{0}", active("")))),
        ("cut off", text(active("").trim_end_matches('}').to_owned())),
        ("active twice", text(r#"{"active":false,"active":true}"#.to_owned())),
        ("twice inside", text(r#"{"active":true,"a":{"b":1,"b":2}}"#.to_owned())),
        ("too deep", text(deep)),
        ("too large", text(large)),
        ("a signed answer (RFC 9701)", text(jwt.to_owned())),
        ("not UTF-8", Box::new(|| Response::new(Body::from(&b"{\"active\":true,\"a\":\"\xff\"}"[..])))),
        ("201", of(201, r#"{"active":true}"#)),
        ("204", of(204, "")),
        ("302", of(302, r#"{"active":true}"#)),
        ("400", of(400, r#"{"error":"invalid_request"}"#)),
        ("400 without a code", of(400, "bad token-of-alice")),
        ("401", of(401, r#"{"error":"invalid_client"}"#)),
        ("403", of(403, "")),
        ("404", of(404, "")),
        ("429", of(429, "")),
        ("500", of(500, r#"{"active":true}"#)),
        ("502", of(502, "<html>token-of-alice</html>")),
        ("503", of(503, r#"{"active":false}"#)),
    ];
    for (name, reply) in rows {
        provider.now_replies(move |_| reply());
        for _ in 0..2 {
            let calls = provider.calls();
            let (status, reason) = status(&bearer(&tokens, "token-of-alice", AT).await);
            assert_eq!(status, 503, "{name}: {reason}");
            assert!(!reason.contains("token-of-alice"), "{name}: {reason}");
            assert_eq!(provider.calls(), calls + 1, "{name}: asked again");
        }
    }
    provider.now_says(active(""));
    assert_eq!(status(&bearer(&tokens, "token-of-alice", AT).await).0, 200, "with the next answer");
}

#[tokio::test]
async fn its_retry_after_is_handed_on_within_a_minute() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    for (sent, told) in [("7", "7"), ("3600", "60"), ("0", "1"), ("soon", "1"), ("-1", "1")] {
        provider.now_replies(move |_| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", sent)], "").into_response());
        let Outcome::Refused(refused) = bearer(&tokens, "t", AT).await else { panic!("{sent}") };
        assert_eq!(refused.to_response::<()>().headers()["retry-after"], told);
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/introspect", listener.local_addr().unwrap());
    drop(listener);
    let tokens = Introspection::builder().issuer(ISSUER).audience(AUDIENCE).client(client());
    let tokens = tokens.endpoint(endpoint).dangerous_http_on_loopback().build().unwrap();
    assert_eq!(status(&bearer(&tokens, "t", AT).await).0, 503);
}

#[tokio::test]
async fn one_that_hangs_is_given_up_in_time() {
    let provider = Provider::usual().await;
    provider.hold();
    let tokens = provider.builder().limits(FetchLimits::new(SHORT, 1024)).build().unwrap();
    let begun = tokio::time::Instant::now();
    let (refused, reason) = status(&bearer(&tokens, "good", AT).await);
    assert_eq!(refused, 503, "{reason}");
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT * 10);
    provider.open();
    assert_eq!(status(&bearer(&tokens, "good", AT).await).0, 200);
}

#[tokio::test]
async fn what_is_remembered_outlives_an_outage_for_its_time() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 200);
    provider.now_replies(|_| StatusCode::BAD_GATEWAY.into_response());
    assert_eq!(status(&bearer(&tokens, "good-too", clock.now()).await).0, 503);
    clock.advance(Duration::from_secs(59));
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 503);
}

#[tokio::test]
async fn no_more_questions_than_the_bound_are_on_their_way() {
    let provider = Provider::usual().await;
    let tokens = provider.builder().max_in_flight(2).build().unwrap();
    provider.hold();
    let waiting: Vec<_> = ["good-1", "good-2"]
        .into_iter()
        .map(|token| {
            let tokens = tokens.clone();
            tokio::spawn(async move { status(&bearer(&tokens, token, AT).await).0 })
        })
        .collect();
    provider.called(2).await;
    let (refused, reason) = status(&bearer(&tokens, "good-3", AT).await);
    assert_eq!((refused, reason.contains("too many")), (503, true), "{reason}");
    assert_eq!(provider.calls(), 2);
    // Who asks about the same waits with them; who goes away gives the place back.
    let same = tokio::spawn({
        let tokens = tokens.clone();
        async move { status(&bearer(&tokens, "good-1", AT).await).0 }
    });
    tokio::task::yield_now().await;
    provider.open();
    for task in waiting {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(same.await.unwrap(), 200);
    assert_eq!(status(&bearer(&tokens, "good-3", AT).await).0, 200);
    assert_eq!(provider.calls(), 3);
}

/// Keeps the text of every event.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?}"));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if event.metadata().target() == "portcullis" {
            self.0.lock().unwrap().push(text.0);
        }
    }
}

#[tokio::test]
async fn the_operator_is_told_whose_fault_it_is_once_a_minute() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let take = || std::mem::take(&mut *lines.0.lock().unwrap());
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    for (status_sent, body, expected) in [
        (401, r#"{"error":"invalid_client"}"#, "refuses this service's own credentials"),
        (400, r#"{"error":"invalid_client"}"#, "refuses this service's own credentials"),
        (403, r#"{"error":"insufficient_scope"}"#, "refuses this service's own credentials"),
        (403, "<html></html>", "an opaque token cannot be checked"),
        (500, "secret-token", "an opaque token cannot be checked"),
        (502, "secret-token", "no opaque token can be checked"),
    ] {
        clock.advance(Duration::from_secs(60));
        let reply = saying(status_sent, body);
        provider.now_replies(move |_| reply());
        for _ in 0..3 {
            assert_eq!(status(&bearer(&tokens, "secret-token", clock.now()).await).0, 503);
        }
        let [line] = <[String; 1]>::try_from(take()).unwrap();
        assert!(line.contains(expected) && line.contains(&status_sent.to_string()), "{line}");
        assert!(!line.contains("secret-token") && !line.contains("s3cret"), "{line}");
    }
}

#[tokio::test]
async fn health_tells_what_the_last_question_found() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    let health = Health::new().watch_introspection(tokens.clone());
    let condition = || health.look(clock.now()).condition();
    assert_eq!(condition(), Condition::Ready, "nobody has asked yet");
    for reply in [saying(502, ""), saying(200, "[]"), saying(401, "")] {
        provider.now_replies(move |_| reply());
        assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 503);
        assert_eq!(condition(), Condition::Failing);
        clock.advance(Duration::from_secs(10));
        assert_eq!(condition(), Condition::Stale);
        assert!(tokens.failure().is_some());
        provider.now_says(r#"{"active":false}"#);
        assert_eq!(status(&bearer(&tokens, "bad", clock.now()).await).0, 401);
        assert_eq!(condition(), Condition::Ready);
        clock.advance(Duration::from_secs(10));
    }
    let report = health.look(clock.now());
    assert_eq!(report.sources().next().unwrap().0, format!("introspection:http://{}/introspect", provider.address));
}

/// Revocations of which nobody knows anything yet.
#[derive(Debug)]
struct Blind(RevocationState);

#[async_trait::async_trait]
impl RevocationStore for Blind {
    fn state(&self) -> &RevocationState {
        &self.0
    }

    async fn revoke(
        &self,
        _: &portcullis::revocation::Revocation,
        _: portcullis::Instants,
    ) -> Result<(), portcullis::StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn while_nobody_knows_what_was_revoked_the_provider_is_not_asked() {
    let provider = Provider::usual().await;
    let state = RevocationState::fed(RevocationLimits::new());
    let tokens = provider.builder().revocations(Blind(state)).build().unwrap();
    let (refused, reason) = status(&bearer(&tokens, "good", AT).await);
    assert_eq!((refused, provider.calls()), (503, 0), "{reason}");
    assert!(matches!(now(&tokens, "good", AT), Now::Wait));
}

/// What was known when the request came may be too old once the provider has answered.
#[tokio::test]
async fn revocations_are_looked_up_by_the_time_after_the_answer() {
    let provider = Provider::usual().await;
    let state = RevocationState::fed(RevocationLimits::new().max_age(Duration::from_millis(100)));
    state.confirm(AT);
    let tokens = provider.builder().revocations(Blind(state.clone())).build().unwrap();
    assert_eq!(status(&bearer(&tokens, "good-1", AT).await).0, 200);
    provider.hold();
    let (other, waiting) = (tokens.clone(), tokio::spawn(async move { status(&bearer(&tokens, "good-2", AT).await) }));
    provider.called(2).await;
    tokio::time::sleep(SHORT).await;
    provider.open();
    assert_eq!(waiting.await.unwrap().0, 503);
    state.confirm(Instants::new(AT.unix_nanos(), u64::MAX / 2));
    assert_eq!(status(&bearer(&other, "good-2", AT).await).0, 200);
}
