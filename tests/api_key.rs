//! API keys over the public API: through the layer, and at the authenticator where time matters.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response, StatusCode, header};
use portcullis::{
    Clock, Instants, Now, PrincipalKind, RejectionKind, RequestHead, SystemClock,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyFormat, ApiKeyRecord, KeyHash, KeyIssuer, KeyLife, MAX_TIME,
        MemoryKeyStore, NewApiKey, RecordFields, Revocation,
    },
    authn::{Authenticator, AuthnLayer, Outcome},
    gate::Gate,
};
use proptest::prelude::*;
use support::{NOW, Probe, get, send, text, with};
use tower::{Layer, Service};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

fn at(seconds: u64) -> Instants {
    Instants::new(seconds * 1_000_000_000, 0)
}

/// Puts a key into the store that the layer, which reads the real clock, accepts too.
fn add(store: &MemoryKeyStore, key: NewApiKey) -> ApiKey {
    let (key, record) = key.mint(SystemClock::new().now()).unwrap();
    store.add(record).unwrap();
    key
}

fn billing() -> NewApiKey {
    NewApiKey::for_subject("billing")
}

fn acme() -> KeyIssuer {
    KeyIssuer::new().with_format(ApiKeyFormat::new("acme").unwrap())
}

fn leaked() -> Revocation {
    Revocation::new(NOW, "leaked").unwrap()
}

fn with_hash(key: &ApiKey, hash: KeyHash) -> ApiKeyRecord {
    RecordFields::new(key.id(), hash, "billing", NOW, None).check().unwrap()
}

fn protect(authenticator: impl Authenticator) -> Gate<Probe, AuthnLayer> {
    AuthnLayer::new(authenticator).dangerous_plain_http().layer(Probe::default())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Status and header fields: all that a client sees of a refusal but its body, which is empty.
async fn seen_by_client<S, R>(service: &S, request: Request<()>) -> (StatusCode, Vec<(String, String)>, String)
where
    S: Service<Request<()>, Response = Response<R>, Error = std::convert::Infallible> + Clone,
    R: http_body::Body,
    R::Error: std::fmt::Debug,
{
    let response = send(service, request).await;
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (response.status(), headers, text(response).await)
}

#[tokio::test]
async fn a_key_is_taken_in_each_place() {
    let store = MemoryKeyStore::new();
    let key = add(&store, billing());
    let key = key.expose();
    let service = protect(ApiKeyAuthenticator::new(store));
    for (name, header, value) in [
        ("own header", "x-api-key", key.to_owned()),
        ("own scheme", "authorization", format!("ApiKey {key}")),
        ("own scheme in lower case", "authorization", format!("apikey {key}")),
        ("Bearer", "authorization", format!("Bearer {key}")),
        ("Basic", "authorization", basic(key, "")),
    ] {
        let response = send(&service, with(get("/"), header, &value)).await;
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "private", "{name}");
        assert_eq!(text(response).await, "billing", "{name}");
    }
}

#[tokio::test]
async fn every_bad_key_gets_the_same_answer() {
    let store = MemoryKeyStore::new();
    let good = add(&store, billing());
    let good = good.expose();
    let revoked = add(&store, billing());
    store.revoke(&revoked.id(), &leaked()).await.unwrap();
    let early = add(&store, billing().not_before(MAX_TIME).lives(KeyLife::Never));
    let (expired, record) = billing().lives(KeyLife::For(Duration::from_secs(60))).mint(at(1_000)).unwrap();
    store.add(record).unwrap();
    let (unknown, _) = billing().mint(AT).unwrap();
    let (other_prefix, record) = acme().mint(billing(), AT).unwrap();
    store.add(record).unwrap();
    let usurped = {
        // A well-formed key whose id is in the store with the hash of another secret.
        let (key, _) = billing().mint(AT).unwrap();
        let (_, other) = billing().mint(AT).unwrap();
        store.add(with_hash(&key, *other.hash())).unwrap();
        key
    };
    let mut flipped = good.to_owned();
    flipped.replace_range(30..31, if good.as_bytes()[30] == b'0' { "1" } else { "0" });
    let mut truncated = good.to_owned();
    truncated.pop();

    let service = protect(ApiKeyAuthenticator::new(store));
    let expected = seen_by_client(&service, with(get("/"), "x-api-key", unknown.expose())).await;
    assert_eq!(expected.0, 401);
    assert_eq!(expected.1, [("www-authenticate".to_owned(), r#"ApiKey realm="api", error="invalid_key""#.to_owned())]);
    assert_eq!(expected.2, "");
    for (name, key) in [
        ("wrong secret", usurped.expose()),
        ("revoked", revoked.expose()),
        ("not valid yet", early.expose()),
        ("expired", expired.expose()),
        ("of another prefix", other_prefix.expose()),
        ("one character flipped", &flipped),
        ("truncated", &truncated),
        ("longer", &format!("{good}0")),
        ("upper case", &good.to_uppercase()),
        ("a space after it", &format!("{good} x")),
        ("twice in one line", &format!("{good},{good}")),
        ("the id alone", good.rsplit_once('_').unwrap().0),
        ("noise", "pc"),
        ("long noise", &"a".repeat(16 * 1024)),
    ] {
        let request = with(get("/"), "x-api-key", key);
        assert_eq!(seen_by_client(&service, request).await, expected, "{name} in X-API-Key");
        if !key.contains([' ', ',']) {
            let request = with(get("/"), "authorization", &format!("ApiKey {key}"));
            let answer = seen_by_client(&service, request).await;
            if key.len() > 16 * 1024 - "ApiKey ".len() {
                assert_eq!(answer.0, 400, "{name} in Authorization");
            } else {
                assert_eq!(answer, expected, "{name} in Authorization");
            }
        }
    }
    assert_eq!(send(&service, with(get("/"), "x-api-key", good)).await.status(), 200);
}

#[tokio::test]
async fn attacks_on_the_places() {
    let store = MemoryKeyStore::new();
    let (key, second) = (add(&store, billing()), add(&store, billing()));
    let (key, second) = (key.expose(), second.expose());
    let service = protect(ApiKeyAuthenticator::new(store));
    let bearer = format!("Bearer {key}");
    let own = |request| with(request, "x-api-key", key);

    for (name, request, status) in [
        ("X-API-Key twice", own(own(get("/"))), 400),
        ("two keys in X-API-Key", with(own(get("/")), "x-api-key", second), 400),
        ("X-API-Key and Bearer, the same key", with(own(get("/")), "authorization", &bearer), 400),
        ("X-API-Key and ApiKey", with(own(get("/")), "authorization", &format!("ApiKey {second}")), 400),
        ("X-API-Key and Basic", with(own(get("/")), "authorization", &basic(key, "")), 400),
        ("a good key and a bad one", with(own(get("/")), "authorization", "Bearer pc_v1_bad"), 400),
        ("a good key and a malformed Authorization", with(own(get("/")), "authorization", "Bearer"), 400),
        ("Authorization twice", with(with(get("/"), "authorization", &bearer), "authorization", &bearer), 400),
        ("empty", with(get("/"), "x-api-key", ""), 400),
        ("beyond 16 KiB", with(get("/"), "x-api-key", &"a".repeat(16 * 1024 + 1)), 400),
        (
            "beyond 16 KiB in Authorization",
            with(get("/"), "authorization", &format!("ApiKey {}", "a".repeat(16 * 1024))),
            400,
        ),
        ("not ASCII", with(get("/"), "x-api-key", "pc_v1_ä"), 400),
        ("in the query string", get(&format!("/?api_key={key}&x-api-key={key}&access_token={key}")), 401),
        ("in a cookie", with(get("/"), "cookie", &format!("x-api-key={key}")), 401),
        ("no key at all", get("/"), 401),
        ("Bearer of somebody else", with(get("/"), "authorization", "Bearer eyJhbGciOiJub25lIn0.e30."), 401),
        ("a scheme of somebody else", with(get("/"), "authorization", &format!("Token {key}")), 401),
        ("Basic with a password", with(get("/"), "authorization", &basic(key, "x")), 401),
        ("Basic with the key as password", with(get("/"), "authorization", &basic("", key)), 401),
        ("Basic of a person", with(get("/"), "authorization", &basic("alice", "hunter2")), 401),
        ("Basic without padding", with(get("/"), "authorization", "Basic cGM6e"), 401),
    ] {
        let response = send(&service, request).await;
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401, "{name}");
    }
}

#[test]
fn what_is_not_ours_is_absent_and_what_is_ours_is_refused() {
    let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new());
    let ask = |name: &'static str, value: &str| {
        let request = with(get("/"), name, value);
        match authenticator.authenticate_now(&RequestHead::of(&request), AT) {
            Now::Known(Outcome::Absent) => None,
            Now::Known(Outcome::Refused(rejection)) => Some(rejection.kind()),
            other => panic!("{name}: {other:?}"),
        }
    };
    for value in
        ["Bearer eyJh.e30.sig", "Bearer pcv1", "Bearer pc", "Bearer acme_v1_x", "Digest pc_v1_x", &basic("alice", "")]
    {
        assert_eq!(ask("authorization", value), None, "{value}");
    }
    for value in ["Bearer pc_", "bearer pc_v2_x", "ApiKey x", &basic("pc_", ""), &basic("pc_v1_x", "pw")] {
        assert_eq!(ask("authorization", value), Some(RejectionKind::InvalidCredential), "{value}");
    }
    assert_eq!(ask("x-api-key", "eyJh.e30.sig"), Some(RejectionKind::InvalidCredential));
}

#[test]
fn time_is_the_argument() {
    let store = Arc::new(MemoryKeyStore::new());
    let day = KeyLife::For(Duration::from_secs(86_400));
    let (key, record) = billing().not_before(NOW + 60).lives(day).mint(AT).unwrap();
    store.add(record).unwrap();
    let authenticator = ApiKeyAuthenticator::new(Arc::clone(&store));
    let request = with(get("/"), "x-api-key", key.expose());
    let reason = |seconds| match authenticator.authenticate_now(&RequestHead::of(&request), at(seconds)) {
        Now::Known(Outcome::Verified(_)) => "verified".to_owned(),
        Now::Known(Outcome::Refused(rejection)) => rejection.reason().to_owned(),
        other => panic!("{other:?}"),
    };
    for (seconds, expected) in [
        (NOW, "not valid yet"),
        (NOW + 59, "not valid yet"),
        (NOW + 60, "verified"),
        (NOW + 60 + 86_399, "verified"),
        (NOW + 60 + 86_400, "expired"),
        (0, "not valid yet"),
    ] {
        let reason = reason(seconds);
        let reason = reason.strip_prefix(&format!("API key {}: ", key.id())).unwrap_or(&reason);
        assert_eq!(reason, expected, "at {seconds}");
    }
}

#[tokio::test]
async fn the_operator_learns_why() {
    let store = MemoryKeyStore::new();
    let good = add(&store, billing());
    let revoked = add(&store, billing());
    store.revoke(&revoked.id(), &leaked()).await.unwrap();
    let (unknown, _) = billing().mint(AT).unwrap();
    let (usurped, other) = (billing().mint(AT).unwrap().0, billing().mint(AT).unwrap().1);
    // Revoked as well: who does not know the secret does not make the log say so.
    store.add(with_hash(&usurped, *other.hash()).revoked(&leaked())).unwrap();
    let authenticator = ApiKeyAuthenticator::new(store);
    for (key, expected) in [
        (good.expose().get(..70).unwrap(), "API key: malformed, or of another format".to_owned()),
        (unknown.expose(), format!("API key {}: unknown id", unknown.id())),
        (usurped.expose(), format!("API key {}: wrong secret", usurped.id())),
        (revoked.expose(), format!("API key {}: revoked", revoked.id())),
    ] {
        let request = with(get("/"), "x-api-key", key);
        let Outcome::Refused(rejection) = authenticator.authenticate(&RequestHead::of(&request), AT).await else {
            panic!("{expected}: not refused");
        };
        assert_eq!((rejection.kind(), rejection.reason()), (RejectionKind::InvalidCredential, &*expected));
    }
}

#[tokio::test]
async fn revoking_counts_from_the_next_request_on() {
    let store = Arc::new(MemoryKeyStore::new());
    let key = add(&store, billing());
    let service = protect(ApiKeyAuthenticator::new(Arc::clone(&store)));
    let request = || with(get("/"), "x-api-key", key.expose());
    assert_eq!(send(&service, request()).await.status(), 200);
    assert!(store.revoke(&key.id(), &leaked()).await.unwrap());
    assert_eq!(send(&service, request()).await.status(), 401);
}

#[test]
fn the_principal_says_what_the_record_says() {
    let store = MemoryKeyStore::new();
    let wanted = billing().tenant("acme").plan("gold").role("clerk").scope("orders:read");
    let (key, record) = acme().mint(wanted, AT).unwrap();
    store.add(record.clone()).unwrap();
    let authenticator = ApiKeyAuthenticator::new(store)
        .with_format(ApiKeyFormat::new("acme").unwrap())
        .with_realm("orders")
        .unwrap()
        .with_store_name("partners")
        .unwrap();
    let request = with(get("/"), "x-api-key", key.expose());
    let Now::Known(Outcome::Verified(identity)) = authenticator.authenticate_now(&RequestHead::of(&request), AT) else {
        panic!("not verified");
    };
    let principal = identity.in_slot(portcullis::Slot::Subject).unwrap();
    assert_eq!(
        (principal.kind(), principal.issuer(), principal.subject()),
        (PrincipalKind::Key, "partners", "billing")
    );
    assert_eq!((principal.credential(), principal.credential_id()), ("api_key", Some(key.id().to_string().as_str())));
    assert_eq!((principal.tenant(), principal.plan()), (Some("acme"), Some("gold")));
    assert!(principal.has_role("clerk") && principal.has_scope("orders:read"));
    assert_eq!(principal.expires_at(), record.expires());
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let store = Arc::new(MemoryKeyStore::new());
    let (key, record) = billing().mint(AT).unwrap();
    store.add(record.clone()).unwrap();
    let secret = key.expose().rsplit_once('_').unwrap().1;
    let authenticator = ApiKeyAuthenticator::new(Arc::clone(&store));
    let good = with(get("/"), "x-api-key", key.expose());
    let bad = with(get("/"), "authorization", &format!("Bearer {}x", key.expose()));
    let answers = (
        authenticator.authenticate_now(&RequestHead::of(&good), AT),
        authenticator.authenticate_now(&RequestHead::of(&bad), AT),
    );
    let hash: String = record.hash().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let hash_as_list = format!("{:?}", record.hash().as_bytes());
    let layer = AuthnLayer::new(authenticator.clone());
    let shown = format!("{key:?} {record:?} {store:?} {authenticator:?} {answers:?} {layer:?} {:#?}", record.hash());
    for (name, hidden) in [("secret", secret), ("hash", &hash), ("hash as a list", &hash_as_list)] {
        assert!(!shown.contains(hidden), "{name}");
    }

    let seen = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&seen);
    let handler = tower::service_fn(move |request: Request<()>| {
        *shared.lock().unwrap() = format!("{request:?}");
        async { Ok::<_, std::convert::Infallible>(Response::new(String::new())) }
    });
    let service = AuthnLayer::new(authenticator).dangerous_plain_http().layer(handler);
    let key_now = add(&store, billing());
    assert_eq!(send(&service, with(get("/"), "x-api-key", key_now.expose())).await.status(), 200);
    let shown = seen.lock().unwrap().clone();
    assert!(shown.contains("x-api-key"));
    assert!(!shown.contains(key_now.expose()), "the header is marked sensitive");
}

proptest! {
    #[test]
    fn no_header_value_panics_or_passes(bytes in proptest::collection::vec(any::<u8>(), 0..120), place in 0..4_usize) {
        let (name, before) = [
            (header::HeaderName::from_static("x-api-key"), "pc_"),
            (header::AUTHORIZATION, "ApiKey pc_v1_"),
            (header::AUTHORIZATION, "Bearer pc_"),
            (header::AUTHORIZATION, "Basic cGNf"),
        ][place].clone();
        let value = [before.as_bytes(), &bytes].concat();
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new());
            let mut request = get("/");
            request.headers_mut().insert(name, value);
            let outcome = authenticator.authenticate_now(&RequestHead::of(&request), AT);
            prop_assert!(matches!(outcome, Now::Known(Outcome::Refused(_) | Outcome::Absent)));
        }
    }

    #[test]
    fn any_key_with_one_character_changed_is_refused(place in 0..71_usize, put in "[0-9a-zA-Z_]") {
        let store = MemoryKeyStore::new();
        let (key, record) = billing().mint(AT).unwrap();
        store.add(record).unwrap();
        let authenticator = ApiKeyAuthenticator::new(store);
        let mut text = key.expose().to_owned();
        text.replace_range(place..=place, &put);
        let verified = matches!(
            authenticator.authenticate_now(&RequestHead::of(&with(get("/"), "x-api-key", &text)), AT),
            Now::Known(Outcome::Verified(_))
        );
        prop_assert_eq!(verified, text == key.expose());
    }
}
