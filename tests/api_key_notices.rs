//! What the log and the audit record say of API keys: the operator learns what the client does not.
//!
//! One test for the log, because what is said once is said once for the process; the other one has peppers, and causes nothing to
//! be said.

#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "support/lines.rs"]
mod lines;
mod support;

use std::sync::Arc;

use http::Response;
use portcullis::{
    Instants, Now, RejectionKind, RequestHead, Secret,
    api_key::{
        ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyFormat, KeyIssuer, KeyLife, MemoryKeyStore, NewApiKey, Owner, Peppers,
        Revocation,
    },
    audit::AuditLayer,
    authn::{Authenticator, Outcome},
    guard::{authenticated, require},
    stack::Stack,
    testing::{Captured, TestClock},
    tls::TlsLayer,
};
use support::{NOW, get, send, with};
use tower::service_fn;
use tracing_subscriber::layer::SubscriberExt;

fn peppers(name: &str, byte: u8) -> Peppers {
    Peppers::new(name.parse().unwrap(), Secret::new(vec![byte; 32])).unwrap()
}

#[test]
fn a_missing_pepper_is_said_once_a_minute_and_no_pepper_once_at_start() {
    let lines = lines::Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(subscriber, || {
        let store = Arc::new(MemoryKeyStore::new());
        let issuer = KeyIssuer::new().with_peppers(peppers("old", 1));
        let (key, record) = issuer.mint(NewApiKey::for_subject("billing"), Instants::new(0, 0)).unwrap();
        store.add(record).unwrap();
        let keys = ApiKeyAuthenticator::new(Arc::clone(&store)).with_peppers(peppers("new", 2));
        let _ = keys.challenges();
        assert!(lines.take().is_empty(), "with a pepper there is nothing to say at start");

        let request = with(get("/"), "x-api-key", key.expose());
        for seconds in [0, 1, 59, 60, 61] {
            let at = Instants::new(seconds * 1_000_000_000, seconds * 1_000_000_000);
            let answer = keys.authenticate_now(&RequestHead::of(&request), at);
            assert!(matches!(answer, Now::Known(Outcome::Refused(_))));
        }
        let said = lines.take();
        let expected = format!("ERROR API key {} was hashed under the pepper old, which is not held", key.id());
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().all(|line| line.starts_with(&expected)), "{said:?}");

        for _ in 0..3 {
            let _ = ApiKeyAuthenticator::new(Arc::clone(&store)).challenges();
        }
        let said = lines.take();
        let [line] = &*said else { panic!("{said:?}") };
        assert!(line.starts_with("WARN API keys are hashed without a pepper"), "{line}");
    });
}

#[tokio::test]
async fn the_record_has_the_reason_and_the_client_has_one_answer() {
    let (clock, records, store) = (TestClock::at_unix(NOW), Captured::new(), Arc::new(MemoryKeyStore::new()));
    let at = Instants::new(NOW * 1_000_000_000, 0);
    let format = |environment| ApiKeyFormat::new("acme").unwrap().environment(environment).unwrap();
    let issuer = |environment| KeyIssuer::new().with_format(format(environment)).with_peppers(peppers("a", 1));
    let live = issuer("live");
    let issue = |issuer: &KeyIssuer, key: NewApiKey, made: Instants| {
        let (key, record) = issuer.mint(key.tenant("acme"), made).unwrap();
        store.add(record).unwrap();
        key
    };
    let billing = || NewApiKey::for_subject("billing");
    let short = billing().lives(KeyLife::For(std::time::Duration::from_secs(60)));
    let elsewhere = billing().address("10.0.0.0/8".parse().unwrap());
    let revoked = issue(&live, billing(), at);
    store.revoke(&revoked.id(), &Revocation::new(NOW, "leaked").unwrap()).await.unwrap();
    let left = issue(&live, NewApiKey::for_subject("left"), at);
    let owner = Owner::new("left").unwrap().in_tenant("acme").unwrap();
    store.disable_owner(&owner, &Revocation::new(NOW, "left").unwrap()).await.unwrap();
    let unknown = live.mint(billing(), at).unwrap().0;
    let good = issue(&live, billing(), at);
    let bad = [
        (unknown, "unknown id"),
        (revoked, "revoked"),
        (issue(&live, short, Instants::new((NOW - 60) * 1_000_000_000, 0)), "expired"),
        (issue(&live, billing().not_before(NOW + 1), at), "not valid yet"),
        (issue(&issuer("test"), billing(), at), "of another environment"),
        (issue(&live, elsewhere, at), "address not allowed"),
        (left, "owner disabled"),
    ];

    let keys = ApiKeyAuthenticator::new(Arc::clone(&store)).with_format(format("live")).with_peppers(peppers("a", 1));
    let app = Stack::builder()
        .clock(clock)
        .audit(AuditLayer::new(records.clone()))
        .tls(TlsLayer::require())
        .authenticate(keys)
        .route("GET /orders", require(authenticated()))
        .build()
        .unwrap()
        .protect(service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(String::from("orders")))));
    assert_eq!(send(&app, with(get("/orders"), "x-api-key", good.expose())).await.status(), 200);
    assert_eq!(records.take().len(), 1);
    let mut answers = Vec::new();
    for (key, reason) in &bad {
        let response = send(&app, with(get("/orders"), "x-api-key", key.expose())).await;
        let mut headers: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let id = records.take();
        let [record] = &*id else { panic!("{reason}: one record a request") };
        assert_eq!(record.rejection(), Some(RejectionKind::InvalidCredential), "{reason}");
        let expected = format!("API key {}: {reason}", key.id());
        assert_eq!(record.rejection_reason(), Some(&*expected));
        let body = response.body().replace(&record.request_id().to_string(), "-");
        assert!(!body.contains(&key.id().to_string()) && !body.contains(reason), "{body}");
        answers.push((response.status(), headers, body));
    }
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
