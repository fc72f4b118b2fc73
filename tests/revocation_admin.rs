//! Tokens are revoked over HTTP by who may, and by the provider's back-channel logout; and by nobody else.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body, routing::get};
use http::{Request, header};
use http_body_util::BodyExt;
use mint::{AUDIENCE, HEADER, ISSUER, encode, key, token};
use portcullis::{
    Connection, Instants, Principal, PrincipalKind, Rejection, RejectionKind, Secret, StoreError, StoreErrorKind,
    TlsVersion,
    audit::{AuditEntry, AuditLayer, Personal, Privacy},
    guard::{authenticated, public, require},
    jwt::{Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet, LogoutTokens},
    policy::Rbac,
    revocation::{
        MemoryRevocations, Revocation, RevocationLimits, RevocationState, RevocationStore, Standing, TokenMarks,
    },
    revocation_admin::{self, BackchannelLogout, MAX_BODY, RevocationAdmin, RevokeError},
    stack::Stack,
    testing::Captured,
    tls::TlsLayer,
};
use serde_json::{Value, json};
use support::{NOW, Still};
use tokio::sync::Semaphore;
use tower::ServiceExt;

const CLIENT: &str = "orders-web";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
const POLICY: &str = r#"
version = "1"
permissions = ["tokens:revoke", "tokens:revoke-many"]
[roles.support]
grants = ["tokens:revoke"]
[roles.operator]
grants = ["tokens:revoke", "tokens:revoke-many"]
"#;

/// As many as may be at work in the store at once.
const AT_WORK: u32 = 100;

/// In memory, and away or slow on demand.
#[derive(Debug)]
struct Flaky(MemoryRevocations, AtomicBool, Semaphore);

#[async_trait]
impl RevocationStore for Flaky {
    fn state(&self) -> &RevocationState {
        self.0.state()
    }

    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        let _turn = self.2.acquire().await;
        if self.1.load(SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "flaky").caused_by("inner secret"));
        }
        self.0.revoke(revocation, at).await
    }
}

struct World {
    store: Arc<Flaky>,
    audit: Captured,
    policy: Rbac,
    service: tower::util::BoxCloneSyncService<Request<Body>, http::Response<Body>, std::convert::Infallible>,
}

fn issuer() -> Issuer {
    Issuer::fixed(ISSUER, KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap())
}

impl World {
    fn new(limits: RevocationLimits) -> Self {
        Self::with_audit(limits, |audit| audit)
    }

    fn with_audit(limits: RevocationLimits, edit: impl FnOnce(AuditLayer) -> AuditLayer) -> Self {
        let turns = Semaphore::new(AT_WORK as usize);
        let store = Arc::new(Flaky(MemoryRevocations::with_limits(limits), AtomicBool::new(false), turns));
        let audit = Captured::new();
        let tokens = issuer().access_tokens(AUDIENCE).algorithms([Algorithm::ES256]).roles_claim("roles");
        let jwt = JwtAuthenticator::builder().issuer(tokens).revocations(Arc::clone(&store)).build().unwrap();
        let logout = LogoutTokens::new([issuer().logout_tokens(CLIENT).algorithms([Algorithm::ES256])]).unwrap();
        let endpoint = |store: &Arc<Flaky>| BackchannelLogout::new(logout.clone(), Arc::clone(store));
        let app = Router::new()
            .route("/orders", get(async || "orders"))
            .nest("/admin", RevocationAdmin::new(Arc::clone(&store), [ISSUER]).router())
            .merge(endpoint(&store).router("/logout").unwrap())
            .merge(endpoint(&store).whole_subject().router("/logout/whole").unwrap())
            .merge(endpoint(&store).tokens_live_for(Duration::from_secs(300)).router("/logout/short").unwrap());
        let policy = Rbac::from_toml(POLICY).unwrap();
        let stack = Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .audit(edit(AuditLayer::new(audit.clone())))
            .authenticate(jwt)
            .policy(policy.clone())
            .route("GET /orders", require(authenticated()))
            .route("POST /logout", public())
            .route("POST /logout/whole", public())
            .route("POST /logout/short", public());
        let rules = revocation_admin::rules("/admin").into_iter();
        let stack = rules.fold(stack, |stack, (line, rule)| stack.route(line, rule));
        let service = tower::util::BoxCloneSyncService::new(stack.build().unwrap().protect(app));
        Self { store, audit, policy, service }
    }

    async fn send(&self, line: &str, who: Option<&str>, kind: &str, body: impl Into<Body>) -> (u16, Value) {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path);
        let request =
            who.into_iter().fold(request, |request, token| request.header("authorization", format!("Bearer {token}")));
        let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
        let response = self.service.clone().oneshot(request).await.unwrap();
        if method == "POST" && !matches!(response.status().as_u16(), 401 | 403) {
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store", "{line}: {}", response.status());
        }
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&bytes).contains("inner secret"));
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn admin(&self, who: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(&format!("POST /admin{path}"), Some(who), "application/json", body.to_string()).await
    }

    async fn works(&self, token: &str) -> bool {
        self.send("GET /orders", Some(token), "", "").await.0 == 200
    }

    async fn logout(&self, path: &str, token: &str) -> u16 {
        let form = format!("state=x&logout_token={token}");
        self.send(&format!("POST {path}"), None, "application/x-www-form-urlencoded", form).await.0
    }
}

/// A store that somebody admits people by.
fn asked<S: RevocationStore>(store: S) -> S {
    assert_eq!(store.state().check_marks(&TokenMarks::new(ISSUER), AT), Standing::Good);
    store
}

/// A body that comes once it is sent.
fn pending() -> (Body, tokio::sync::oneshot::Sender<String>) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<String>();
    let body = tokio_stream::StreamExt::then(tokio_stream::once(receiver), |receiver| receiver);
    (Body::from_stream(body), sender)
}

fn access(sub: &str, number: u32, roles: &[&str]) -> String {
    let claims = json!({
        "iss": ISSUER, "sub": sub, "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW - 10, "client_id": format!("web-{sub}"),
        "jti": format!("{sub}-{number}"), "sid": format!("sid-{sub}-{number}"), "roles": roles,
    });
    token(Algorithm::ES256, HEADER, &claims.to_string())
}

fn logout_claims(jti: &str) -> Value {
    json!({"iss": ISSUER, "aud": CLIENT, "iat": NOW - 1, "exp": NOW + 100, "jti": jti, "sid": "sid-alice-1", "sub": "alice", "events": {EVENT: {}}})
}

fn signed(claims: &Value) -> String {
    token(Algorithm::ES256, r#"{"alg":"ES256","typ":"logout+jwt"}"#, &claims.to_string())
}

fn but(mut value: Value, name: &str, other: Value) -> Value {
    if other.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = other;
    }
    value
}

#[tokio::test]
async fn who_may_revokes_each_kind() {
    let world = World::new(RevocationLimits::new());
    let operator = access("root", 1, &["operator"]);
    for (number, (path, name, value, kind)) in [
        ("/tokens/revoke", "jti", "u0-0", "token"),
        ("/sessions/revoke", "sid", "sid-u1-1", "session"),
        ("/subjects/revoke", "sub", "u2", "subject"),
        ("/clients/revoke", "client_id", "web-u3", "client"),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u32::try_from(number).unwrap();
        let token = access(&format!("u{number}"), number, &[]);
        assert!(world.works(&token).await);
        let answer = world.admin(&operator, path, json!({"issuer": ISSUER, name: value})).await;
        assert_eq!(answer, (200, json!({"revoked": kind})));
        assert!(!world.works(&token).await, "{kind}");
        let records = world.audit.take();
        let notes: Vec<String> =
            records.iter().flat_map(|record| record.notes().map(|(name, _)| name.into_owned())).collect();
        assert!(
            notes.iter().any(|name| name == "token.change") && notes.iter().any(|name| name == "tokens.revoked"),
            "{notes:?}"
        );
    }
    assert!(world.works(&operator).await);
    let answer = world.admin(&operator, "/keys/revoke", json!({"issuer": ISSUER, "kid": "k-1"})).await;
    assert_eq!((answer.0, world.works(&operator).await), (200, false));
}

/// What a record hides of people it hides in what the routers note and tell.
#[tokio::test]
async fn who_is_hidden_in_records_is_hidden_in_notes_and_events() {
    let privacy = Privacy::new()
        .omit(Personal::CredentialId)
        .omit(Personal::Reasons)
        .pseudonymise(&Secret::new(vec![7; 32]), [Personal::Subject])
        .unwrap();
    let world = World::with_audit(RevocationLimits::new(), |audit| audit.with_privacy(privacy));
    let (operator, alice) = (access("root", 1, &["operator"]), access("alice", 1, &[]));
    assert!(world.works(&alice).await);
    for (path, name, value) in [
        ("/subjects/revoke", "sub", "alice"),
        ("/tokens/revoke", "jti", "alice-7"),
        ("/sessions/revoke", "sid", "sid-alice-7"),
        ("/clients/revoke", "client_id", "web-alice"),
    ] {
        assert_eq!(world.admin(&operator, path, json!({"issuer": ISSUER, name: value})).await.0, 200);
    }
    assert_eq!(world.admin(&operator, "/log-out-everywhere", json!({})).await.0, 200);
    assert_eq!(world.logout("/logout/whole", &signed(&logout_claims("alice-x"))).await, 200);
    assert_eq!(world.logout("/logout", "alice.not.good").await, 400);

    let (entries, records) = (world.audit.entries(), world.audit.records());
    let text: String = entries
        .iter()
        .map(|entry| {
            let mut line = Vec::new();
            entry.write_json(&mut line);
            String::from_utf8(line).unwrap()
        })
        .collect();
    let alice = records[0].subject().unwrap().subject().into_owned();
    let about = format!(r#"subject "{alice}" of "{ISSUER}", issued until {NOW}"#);
    let note = |record: usize, wanted: &str| {
        let found = records[record].notes().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
        found.unwrap_or_default()
    };
    assert_eq!((note(1, "token.change"), note(1, "tokens.revoked")), (format!("revoke {about}"), about.clone()));
    assert_eq!(note(6, "logout.subject"), alice);
    assert_eq!((note(6, "logout.session").as_str(), note(7, "logout.refused").as_str()), ("[omitted]", "[omitted]"));
    assert!(entries.iter().any(|entry| matches!(entry, AuditEntry::Event(event) if event.about() == about)));
    assert!(text.contains(r#"token \"[omitted]\" of"#) && text.contains(r#"session \"[omitted]\" of"#), "{text}");
    for record in &records {
        let line = serde_json::to_string(record).unwrap();
        assert!(!line.contains("alice") && !line.contains("root"), "{line}");
    }
    let own = records.iter().map(portcullis::audit::AuditRecord::request_id).collect::<Vec<_>>();
    for entry in &entries {
        // Other tests' events are heard, too.
        if let AuditEntry::Event(event) = entry
            && event.request_id().is_some_and(|id| own.contains(&id))
        {
            let line = serde_json::to_string(entry).unwrap();
            assert!(!line.contains("alice") && !line.contains("root"), "{line}");
        }
    }
}

#[tokio::test]
async fn who_may_not_revokes_nothing() {
    let world = World::new(RevocationLimits::new());
    let (clerk, support) = (access("clerk", 1, &[]), access("sue", 1, &["support"]));
    let subject = json!({"issuer": ISSUER, "sub": "sue"});
    assert_eq!(world.send("POST /admin/subjects/revoke", None, "application/json", subject.to_string()).await.0, 401);
    assert_eq!(world.admin(&clerk, "/subjects/revoke", subject.clone()).await.0, 403);
    assert_eq!(
        world.admin(&support, "/clients/revoke", json!({"issuer": ISSUER, "client_id": "web-sue"})).await.0,
        403
    );
    assert_eq!(world.admin(&support, "/keys/revoke", json!({"issuer": ISSUER, "kid": "k-1"})).await.0, 403);
    for (name, body, status, code) in [
        ("no object", "[]".to_owned(), 400, "invalid_body"),
        ("a member that is missing", json!({"issuer": ISSUER}).to_string(), 400, "invalid_body"),
        ("one too many", json!({"issuer": ISSUER, "sub": "a", "sid": "b"}).to_string(), 400, "invalid_body"),
        ("twice", format!(r#"{{"issuer":"{ISSUER}","sub":"a","sub":"b"}}"#), 400, "invalid_body"),
        ("another type", json!({"issuer": ISSUER, "sub": 7}).to_string(), 400, "invalid_body"),
        ("another issuer", json!({"issuer": "https://x.test", "sub": "a"}).to_string(), 422, "invalid_value"),
        ("an empty id", json!({"issuer": ISSUER, "sub": ""}).to_string(), 422, "invalid_value"),
        (
            "the future",
            json!({"issuer": ISSUER, "sub": "a", "issued_until": NOW + 301}).to_string(),
            422,
            "invalid_value",
        ),
        ("too long", " ".repeat(MAX_BODY + 1), 413, "too_large"),
    ] {
        let answer = world.send("POST /admin/subjects/revoke", Some(&support), "application/json", body).await;
        assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{name}");
        let field = match name {
            "another issuer" => Some("issuer"),
            "the future" => Some("issued_until"),
            _ => None,
        };
        assert_eq!(answer.1["field"].as_str(), field, "{name}");
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded"] {
        let path = "POST /admin/subjects/revoke";
        assert_eq!(world.send(path, Some(&support), kind, subject.to_string()).await.0, 415, "{kind}");
        assert_eq!(world.send("POST /admin/log-out-everywhere", Some(&clerk), kind, "").await.0, 415, "{kind}");
    }
    world.store.1.store(true, SeqCst);
    let answer = world.admin(&support, "/subjects/revoke", subject).await;
    assert_eq!((answer.0, answer.1["code"].as_str()), (503, Some("unavailable")));
    assert!(world.store.state().is_empty() && world.works(&clerk).await && world.works(&support).await);
}

/// An answer that says "revoked" where nothing is would end the search for who has the stolen token.
#[tokio::test]
async fn where_no_authenticator_asks_the_store_nothing_is_said_to_be_revoked() {
    for (name, given, status) in
        [("this very store", Some(true), 200), ("another one", Some(false), 500), ("none", None, 500)]
    {
        let store = Arc::new(MemoryRevocations::new());
        let asked = given.map(|same| if same { Arc::clone(&store) } else { Arc::new(MemoryRevocations::new()) });
        let tokens = issuer().access_tokens(AUDIENCE).algorithms([Algorithm::ES256]).roles_claim("roles");
        let jwt = JwtAuthenticator::builder().issuer(tokens);
        let jwt = asked.into_iter().fold(jwt, JwtAuthenticatorBuilder::revocations).build().unwrap();
        let logout = LogoutTokens::new([issuer().logout_tokens(CLIENT).algorithms([Algorithm::ES256])]).unwrap();
        let admin = RevocationAdmin::new(Arc::clone(&store), [ISSUER]);
        let app = Router::new()
            .nest("/admin", admin.clone().router())
            .merge(BackchannelLogout::new(logout, Arc::clone(&store)).router("/logout").unwrap());
        let audit = Captured::new();
        let stack = Stack::builder()
            .clock(Still)
            .audit(AuditLayer::new(audit.clone()))
            .tls(TlsLayer::require())
            .authenticate(jwt)
            .policy(Rbac::from_toml(POLICY).unwrap())
            .route("POST /logout", public());
        let rules = revocation_admin::rules("/admin").into_iter();
        let stack = rules.fold(stack, |stack, (line, rule)| stack.route(line, rule)).build().unwrap();
        let service = stack.protect(app);
        let send = async |path: &str, who: Option<&str>, kind: &str, body: String| {
            let request = Request::post(path).header("content-type", kind);
            let request = who.into_iter().fold(request, |it, who| it.header("authorization", format!("Bearer {who}")));
            let mut request = request.body(Body::from(body)).unwrap();
            request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
            service.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        let root = access("root", 1, &["operator"]);
        for (path, body) in [
            ("/admin/subjects/revoke", json!({"issuer": ISSUER, "sub": "bob"})),
            ("/admin/tokens/revoke", json!({"issuer": ISSUER, "jti": "bob-1"})),
            ("/admin/sessions/revoke", json!({"issuer": ISSUER, "sid": "sid-bob-1"})),
            ("/admin/keys/revoke", json!({"issuer": ISSUER, "kid": "k-9"})),
        ] {
            assert_eq!(send(path, Some(&root), "application/json", body.to_string()).await, status, "{name}: {path}");
        }
        let form = format!("logout_token={}", signed(&logout_claims("l-1")));
        let told = send("/logout", None, "application/x-www-form-urlencoded", form).await;
        assert_eq!(told, status, "{name}: logout");
        let notes =
            audit.records().iter().filter(|record| record.notes().any(|(name, _)| name == "tokens.revoked")).count();
        assert_eq!((notes > 0, store.state().is_empty()), (status == 200, status != 200), "{name}");
        let by_hand = admin.revoke(&Revocation::session(ISSUER, "s").unwrap(), AT).await;
        assert_eq!(by_hand.is_ok(), status == 200, "{name}");
    }
}

/// Whoever holds a stolen token begins to revoke and waits: it is too late once the token was revoked.
#[tokio::test]
async fn who_was_revoked_while_the_body_was_on_its_way_revokes_nothing() {
    let world = World::new(RevocationLimits::new());
    let (support, other) = (access("sue", 1, &["support"]), access("alice", 1, &[]));
    let (body, sender) = pending();
    let answer = world.send("POST /admin/subjects/revoke", Some(&support), "application/json", body);
    let revoke = async {
        tokio::task::yield_now().await;
        let own = Revocation::token(ISSUER, "sue-1").unwrap();
        world.store.revoke(&own, Instants::new(NOW * 1_000_000_000, 0)).await.unwrap();
        sender.send(json!({"issuer": ISSUER, "sub": "alice"}).to_string()).unwrap();
    };
    let (answer, ()) = tokio::join!(answer, revoke);
    assert_eq!((answer.0, world.works(&other).await), (401, true));
}

#[tokio::test]
async fn a_permission_that_is_taken_away_meanwhile_revokes_nothing() {
    let world = World::new(RevocationLimits::new());
    let operator = access("root", 1, &["operator"]);
    let (body, sender) = pending();
    let answer = world.send("POST /admin/keys/revoke", Some(&operator), "application/json", body);
    let demote = async {
        tokio::task::yield_now().await;
        let without = POLICY.replace("version = \"1\"", "version = \"2\"").replace(r#", "tokens:revoke-many"]"#, "]");
        world.policy.replace_with_toml(&without).unwrap();
        sender.send(json!({"issuer": ISSUER, "kid": "k-1"}).to_string()).unwrap();
    };
    let (answer, ()) = tokio::join!(answer, demote);
    assert_eq!((answer.0, world.store.state().len()), (403, 0));
}

/// An hour passes until the body comes, or five minutes: "now" is then.
#[tokio::test(start_paused = true)]
async fn the_time_is_that_of_the_body() {
    for (seconds, status) in [(3_600, 401), (300, 200)] {
        let world = World::new(RevocationLimits::new());
        let support = access("sue", 1, &["support"]);
        let (body, sender) = pending();
        let answer = world.send("POST /admin/subjects/revoke", Some(&support), "application/json", body);
        let later = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            sender.send(json!({"issuer": ISSUER, "sub": "alice"}).to_string()).unwrap();
        };
        let (answer, ()) = tokio::join!(answer, later);
        let marks = TokenMarks::new(ISSUER).subject("alice").issued_at(NOW + 200);
        let at = Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000);
        let standing = world.store.state().check_marks(&marks, at);
        assert_eq!((answer.0, standing != Standing::Good), (status, status == 200), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_logout_is_that_of_the_body() {
    for (seconds, status) in [(3_600, 400), (100, 200)] {
        let world = World::new(RevocationLimits::new());
        let (body, sender) = pending();
        let answer = world.send("POST /logout", None, "application/x-www-form-urlencoded", body);
        let later = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            sender.send(format!("logout_token={}", signed(&logout_claims("l")))).unwrap();
        };
        let (answer, ()) = tokio::join!(answer, later);
        assert_eq!((answer.0, world.store.state().is_empty()), (status, status == 400), "after {seconds} s");
    }
}

/// The end of a token is what somebody wrote.
#[tokio::test]
async fn an_end_that_no_token_has_is_not_believed() {
    let at = |seconds: u64| Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000);
    let store = asked(MemoryRevocations::with_limits(RevocationLimits::new().capacity(1)));
    let admin = RevocationAdmin::new(store.clone(), [ISSUER]);
    for end in [0, NOW - 301] {
        let refused = admin.revoke_token(ISSUER, "a", Some(end), at(0)).await.unwrap_err();
        assert!(refused.to_string().contains("has passed"), "{refused}");
        assert!(store.state().is_empty(), "nothing is said to be revoked that is not");
    }
    admin.revoke_token(ISSUER, "a", Some(NOW - 300), at(0)).await.unwrap();
    let store = asked(MemoryRevocations::with_limits(RevocationLimits::new().capacity(1)));
    let admin = RevocationAdmin::new(store, [ISSUER]);
    admin.revoke_token(ISSUER, "a", Some(u64::MAX), at(0)).await.unwrap();
    assert!(admin.revoke_token(ISSUER, "b", None, at(86_400)).await.is_err(), "a token may still be good");
    admin.revoke_token(ISSUER, "b", None, at(86_400 + 300 + 901)).await.unwrap();
}

#[tokio::test]
async fn everybody_may_log_themselves_out_everywhere() {
    let world = World::new(RevocationLimits::new().capacity(1));
    let (one, two, other) = (access("alice", 1, &[]), access("alice", 2, &[]), access("bob", 1, &[]));
    assert_eq!(world.send("POST /admin/log-out-everywhere", None, "application/json", "").await.0, 401);
    assert_eq!(world.admin(&one, "/log-out-everywhere", json!({"sub": "bob"})).await.0, 400);
    assert!(world.works(&two).await);
    assert_eq!(world.send("POST /admin/log-out-everywhere", Some(&one), "application/json", "").await.0, 200);
    assert_eq!((world.works(&one).await, world.works(&two).await, world.works(&other).await), (false, false, true));
    // Full: it says so, and nothing is revoked.
    let answer = world.admin(&other, "/log-out-everywhere", json!({})).await;
    assert_eq!((answer.0, answer.1["code"].as_str()), (409, Some("conflict")));
    assert!(world.works(&other).await);
}

#[tokio::test]
async fn handlers_of_your_own_revoke_too() {
    let store = asked(Arc::new(MemoryRevocations::new()));
    let admin = RevocationAdmin::new(Arc::clone(&store), [ISSUER]);
    let standing = |marks: TokenMarks| store.state().check_marks(&marks, AT);
    admin.revoke_token(ISSUER, "t-1", Some(NOW + 60), AT).await.unwrap();
    admin.revoke_subject(ISSUER, "alice", AT).await.unwrap();
    assert_ne!(standing(TokenMarks::new(ISSUER).token("t-1")), Standing::Good);
    assert_ne!(standing(TokenMarks::new(ISSUER).subject("alice").issued_at(NOW)), Standing::Good);
    assert_eq!(standing(TokenMarks::new(ISSUER).subject("alice").issued_at(NOW + 1)), Standing::Good);
    let error = admin.revoke_subject("https://x.test", "alice", AT).await.unwrap_err();
    assert!(matches!(error, RevokeError::Config(_)), "{error}");
}

/// What went wrong reaches the client as a status, and nothing else of it does.
#[tokio::test]
async fn a_handler_returns_why_nothing_was_revoked() {
    let alice = Principal::builder(PrincipalKind::User, ISSUER, "alice", "session").build();
    let counts = Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").build();
    let full = asked(MemoryRevocations::with_limits(RevocationLimits::new().capacity(1)));
    full.revoke(&Revocation::session(ISSUER, "s").unwrap(), AT).await.unwrap();
    let away = Flaky(asked(MemoryRevocations::new()), AtomicBool::new(true), Semaphore::new(1));
    let admin = RevocationAdmin::new(MemoryRevocations::new(), [ISSUER]);
    let key = Principal::builder(PrincipalKind::Key, "api-keys", "billing", "api_key").credential_id("k-1").build();
    let is_asked = asked(Arc::new(MemoryRevocations::new()));
    for (name, error, kind, wait) in [
        (
            "an API key, which is no token",
            RevocationAdmin::new(Arc::clone(&is_asked), [ISSUER]).log_out_everywhere(&key, AT).await,
            RejectionKind::InvalidRequest,
            None,
        ),
        (
            "an issuer that is not known",
            admin.revoke_subject("https://x.test", "alice", AT).await,
            RejectionKind::InvalidRequest,
            None,
        ),
        (
            "a store that is full",
            RevocationAdmin::new(full, [ISSUER]).log_out_everywhere(&alice, AT).await,
            RejectionKind::Unavailable,
            Some(Duration::from_secs(1)),
        ),
        (
            "a store that is away",
            RevocationAdmin::new(away, [ISSUER]).log_out_everywhere(&alice, AT).await,
            RejectionKind::Unavailable,
            Some(Duration::from_secs(1)),
        ),
        ("a store that nobody asks", admin.log_out_everywhere(&counts, AT).await, RejectionKind::Misconfigured, None),
    ] {
        let rejection = Rejection::from(error.unwrap_err());
        assert_eq!((rejection.kind(), rejection.retry_after()), (kind, wait), "{name}: {rejection:?}");
        assert!(!rejection.to_string().contains("inner secret"), "{name}");
        assert_eq!(rejection.to_response::<String>().body(), "", "{name}");
    }
    assert!(is_asked.state().is_empty(), "nothing was revoked, and it takes no room");
    // Of a store that a handler asks by itself.
    for (kind, expected) in [
        (StoreErrorKind::Unavailable, RejectionKind::Unavailable),
        (StoreErrorKind::Corrupt, RejectionKind::Unavailable),
        (StoreErrorKind::Conflict, RejectionKind::Unavailable),
        (StoreErrorKind::Throttled, RejectionKind::RateLimited),
    ] {
        let error = StoreError::new(kind, "test").about("key x");
        let rejection = Rejection::from(error.with_retry_after(Duration::from_secs(7)));
        assert_eq!((rejection.kind(), rejection.retry_after()), (expected, Some(Duration::from_secs(7))));
        assert!(rejection.reason().contains("key x") && !rejection.to_string().contains("key x"));
        assert_eq!(Rejection::from(StoreError::new(kind, "test")).retry_after(), None);
    }
}

#[tokio::test]
async fn a_provider_logs_out_a_session_or_a_subject() {
    let world = World::new(RevocationLimits::new());
    let (one, two) = (access("alice", 1, &[]), access("alice", 2, &[]));
    assert_eq!((world.works(&one).await, world.works(&two).await), (true, true));
    let session = signed(&logout_claims("l-1"));
    assert_eq!(world.logout("/logout", &session).await, 200);
    assert_eq!((world.works(&one).await, world.works(&two).await), (false, true), "the session alone");
    assert_eq!(world.logout("/logout", &session).await, 400, "a replay");
    assert_eq!(world.logout("/logout", &signed(&but(logout_claims("l-2"), "sid", Value::Null))).await, 200);
    assert!(!world.works(&two).await, "the subject");
    // Who logs in after the token's iat is in.
    let later = access("alice", 3, &[]);
    let claims = but(logout_claims("l-3"), "iat", (NOW - 20).into());
    let world = World::new(RevocationLimits::new());
    assert_eq!(world.logout("/logout", &signed(&but(claims, "sid", Value::Null))).await, 200);
    assert!(world.works(&later).await);
    // Access tokens of some issuers have no sid.
    assert_eq!(world.logout("/logout/whole", &signed(&logout_claims("l-4"))).await, 200);
    assert!(!world.works(&later).await);
    for typ in [r#"{"alg":"ES256","typ":"JWT"}"#, r#"{"alg":"ES256"}"#] {
        let token = token(Algorithm::ES256, typ, &logout_claims(typ).to_string());
        assert_eq!(world.logout("/logout", &token).await, 200, "{typ}");
    }
}

/// A key that leaked stays in the provider's set until the provider takes it out.
#[tokio::test]
async fn a_revoked_key_logs_nobody_out() {
    let world = World::new(RevocationLimits::new());
    assert_eq!(world.logout("/logout", &signed(&but(logout_claims("l-1"), "sid", "another".into()))).await, 200);
    let known = world.store.state().len();
    for (name, revocation) in [
        ("the session is", Revocation::session(ISSUER, "sid-alice-1").unwrap()),
        ("the subject is", Revocation::subject(ISSUER, "alice", NOW).unwrap()),
    ] {
        world.store.revoke(&revocation, AT).await.unwrap();
        assert_eq!(world.logout("/logout/whole", &signed(&logout_claims(name))).await, 200, "{name}: it ended already");
    }
    world.store.revoke(&Revocation::key(ISSUER, "k-1").unwrap(), AT).await.unwrap();
    for number in 0..5 {
        let claims = but(logout_claims(&format!("forged-{number}")), "sid", format!("sid-{number}").into());
        assert_eq!(world.logout("/logout", &signed(&claims)).await, 400);
    }
    assert_eq!(world.store.state().len(), known + 3, "those that were revoked here, and no other");
    let records = world.audit.records();
    let refused = records.last().unwrap().notes().find(|(name, _)| *name == "logout.refused").unwrap().1;
    assert!(refused.contains("the key that signed the logout token is revoked"), "{refused}");
}

/// A store whose state nobody has fed yet.
#[derive(Debug)]
struct Unfed(RevocationState);

#[async_trait]
impl RevocationStore for Unfed {
    fn state(&self) -> &RevocationState {
        &self.0
    }

    async fn revoke(&self, _: &Revocation, _: Instants) -> Result<(), StoreError> {
        panic!("nobody knows yet whether the key is good")
    }
}

#[tokio::test]
async fn while_nobody_knows_what_is_revoked_nobody_is_logged_out() {
    let tokens = LogoutTokens::new([issuer().logout_tokens(CLIENT).algorithms([Algorithm::ES256])]).unwrap();
    let store = Unfed(RevocationState::fed(RevocationLimits::new()));
    let app = BackchannelLogout::new(tokens, store).with_clock(Still).router("/logout").unwrap();
    let request = Request::post("/logout").header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(Body::from(format!("logout_token={}", signed(&logout_claims("l"))))).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[header::RETRY_AFTER]), (503, &"1".parse().unwrap()));
}

/// Who hangs up while the store works must not hide what they did, and leaves no log-out half done.
#[tokio::test]
async fn a_request_that_is_given_up_is_done_and_told() {
    let world = World::new(RevocationLimits::new());
    let operator = access("root", 1, &["operator"]);
    let body = json!({"issuer": ISSUER, "sub": "gave-up"});
    let claims = but(logout_claims("l-given-up"), "sub", "left-early".into());
    let logout = signed(&but(claims, "sid", "sid-left-early".into()));
    for (who, events) in [("gave-up", 1), ("left-early", 2)] {
        assert!(world.works(&access(who, 1, &[])).await);
        let turns = world.store.2.acquire_many(AT_WORK).await.unwrap();
        {
            let mut request = pin!(async {
                match events {
                    1 => world.admin(&operator, "/subjects/revoke", body.clone()).await.0,
                    _ => world.logout("/logout/whole", &logout).await,
                }
            });
            assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "{who}");
        }
        tokio::task::yield_now().await;
        let told = || {
            let about = |entry: &AuditEntry| match entry {
                AuditEntry::Event(event) => Some(event.about().into_owned()),
                _ => None,
            };
            // Other tests' events are heard, too.
            world.audit.entries().iter().filter_map(about).filter(|about| about.contains(who)).count()
        };
        assert_eq!(told(), 0, "{who}: nothing is done yet");
        drop(turns);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!world.works(&access(who, 1, &[])).await, "{who}");
        assert_eq!(told(), events, "{who}");
    }
}

/// Else who logs in and out all day takes the room of all for a day.
#[tokio::test]
async fn a_log_out_is_kept_as_long_as_tokens_live() {
    for (path, kept) in [("/logout", true), ("/logout/short", false)] {
        let world = World::new(RevocationLimits::new().capacity(1));
        assert_eq!(world.logout(path, &signed(&logout_claims("l-1"))).await, 200);
        assert!(!world.works(&access("alice", 1, &[])).await, "{path}");
        // What a token of five minutes, the leeway of five and two clocks need.
        let later = portcullis::Instants::new((NOW + 300 + 901) * 1_000_000_000, 0);
        let other = world.store.revoke(&Revocation::token(ISSUER, "other").unwrap(), later).await;
        assert_eq!(other.is_err(), kept, "{path}");
    }
}

#[tokio::test]
async fn nobody_else_logs_out_anybody() {
    let world = World::new(RevocationLimits::new());
    let good = || logout_claims("l");
    let typed =
        |typ: &str| token(Algorithm::ES256, &json!({"alg": "ES256", "typ": typ}).to_string(), &good().to_string());
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"none","typ":"logout+jwt"}"#), encode(good().to_string()));
    let forged = format!(
        "{}.{}",
        signed(&good()).rsplit_once('.').unwrap().0,
        signed(&logout_claims("m")).rsplit_once('.').unwrap().1
    );
    for (name, token) in [
        ("no signature", unsigned.clone()),
        ("alg none with a signature", format!("{unsigned}AAAA")),
        ("another signature", forged),
        ("another algorithm", token(Algorithm::HS256, r#"{"alg":"HS256","typ":"logout+jwt"}"#, &good().to_string())),
        ("an access token", access("alice", 1, &[])),
        ("typ of an access token", typed("at+jwt")),
        ("another typ", typed("secevent+jwt")),
        ("another issuer", signed(&but(good(), "iss", "https://x.test".into()))),
        ("another audience", signed(&but(good(), "aud", AUDIENCE.into()))),
        ("another audience as well", signed(&but(good(), "aud", json!([CLIENT, "another"])))),
        ("no audience", signed(&but(good(), "aud", Value::Null))),
        ("expired", signed(&but(good(), "exp", (NOW - 100).into()))),
        ("no exp", signed(&but(good(), "exp", Value::Null))),
        ("no iat", signed(&but(good(), "iat", Value::Null))),
        ("from the future", signed(&but(good(), "iat", (NOW + 100).into()))),
        ("no jti", signed(&but(good(), "jti", Value::Null))),
        ("an empty jti", signed(&but(good(), "jti", "".into()))),
        ("no events", signed(&but(good(), "events", Value::Null))),
        ("events of another shape", signed(&but(good(), "events", json!([EVENT])))),
        ("another event", signed(&but(good(), "events", json!({"urn:x": {}})))),
        ("an event of another shape", signed(&but(good(), "events", json!({EVENT: true})))),
        ("an ID token with a nonce", signed(&but(good(), "nonce", "n".into()))),
        ("nobody", signed(&but(but(good(), "sid", Value::Null), "sub", Value::Null))),
        ("an empty sid", signed(&but(good(), "sid", "".into()))),
        ("a sid of another type", signed(&but(good(), "sid", 7.into()))),
        ("a subject of another type", signed(&but(good(), "sub", json!(["alice"])))),
        ("no token", String::new()),
        ("no token at all", "x".into()),
        ("two tokens", format!("{}&logout_token={}", signed(&good()), signed(&good()))),
    ] {
        assert_eq!(world.logout("/logout", &token).await, 400, "{name}");
        assert!(world.store.state().is_empty(), "{name}");
    }
    let token = format!("logout_token={}", signed(&good()));
    let form = "application/x-www-form-urlencoded";
    for (name, line, kind, body, status) in [
        ("no form", "POST /logout", "application/json", token.clone(), 400),
        ("no type", "POST /logout", "", token.clone(), 400),
        ("too long", "POST /logout", form, format!("{token}&x={}", "x".repeat(MAX_BODY)), 400),
        ("in the query", "POST /logout?logout_token=x", form, String::new(), 400),
    ] {
        let answer = world.send(line, None, kind, body).await;
        assert_eq!((answer.0, &answer.1), (status, &json!({"error": "invalid_request"})), "{name}");
    }
    assert!(world.store.state().is_empty());
    // What failed may be sent again.
    world.store.1.store(true, SeqCst);
    assert_eq!(world.logout("/logout", &signed(&good())).await, 503);
    world.store.1.store(false, SeqCst);
    assert_eq!(world.logout("/logout", &signed(&good())).await, 200);
    // A logout token is nobody's identity.
    assert!(!world.works(&signed(&logout_claims("n"))).await);
    let logout = || issuer().logout_tokens(CLIENT).algorithms([Algorithm::ES256]);
    assert!(JwtAuthenticator::builder().issuer(logout()).build().is_err());
    assert!(LogoutTokens::new([issuer().id_tokens(CLIENT).algorithms([Algorithm::ES256])]).is_err());
    assert!(LogoutTokens::new([]).is_err());
}

/// A provider that was away for long tells of sessions whose tokens are all gone.
#[tokio::test]
async fn a_logout_that_comes_too_late_is_done() {
    // Tokens live for 300 s, and a revocation for 901 s beyond.
    for (age, kept) in [(1_200, 1), (1_201, 0), (3_000, 0)] {
        let world = World::new(RevocationLimits::new().capacity(1));
        let late = signed(&but(logout_claims("late"), "iat", (NOW - age).into()));
        assert_eq!(world.logout("/logout/short", &late).await, 200, "{age} s");
        assert_eq!(world.store.state().len(), kept, "{age} s");
        assert_eq!(world.logout("/logout/short", &late).await, 400, "{age} s: it was used");
    }
    // A store that is full is another matter.
    let world = World::new(RevocationLimits::new().capacity(1));
    assert_eq!(world.logout("/logout/short", &signed(&logout_claims("one"))).await, 200);
    let two = signed(&but(logout_claims("two"), "sid", "sid-alice-2".into()));
    assert_eq!(world.logout("/logout/short", &two).await, 503);
}

/// A store that nobody asks: the button that is pressed after a theft must not say that it worked.
#[tokio::test]
async fn who_still_counts_is_not_told_that_they_are_logged_out() {
    let (asked, other) = (Arc::new(MemoryRevocations::new()), Arc::new(MemoryRevocations::new()));
    for (name, store, expected) in [
        ("the same store", Some(&asked), (200, 401)),
        ("another store", Some(&other), (500, 200)),
        ("no store", None, (500, 200)),
    ] {
        let tokens = issuer().access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
        let jwt = JwtAuthenticator::builder().issuer(tokens);
        let jwt = store.into_iter().fold(jwt, |jwt, store| jwt.revocations(Arc::clone(store))).build().unwrap();
        let app = Router::new()
            .route("/orders", get(async || "orders"))
            .nest("/admin", RevocationAdmin::new(Arc::clone(&asked), [ISSUER]).router());
        let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(jwt);
        let stack = stack.policy(Rbac::from_toml(POLICY).unwrap()).route("GET /orders", require(authenticated()));
        let stack = stack.route("POST /admin/log-out-everywhere", require(authenticated())).build().unwrap();
        let app = stack.protect(app);
        let send = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            let request = request.header("authorization", format!("Bearer {}", access("alice", 1, &[])));
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(Connection::tls("198.51.100.7:1".parse().unwrap(), TlsVersion::Tls13));
            let response = app.clone().oneshot(request).await.unwrap();
            (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
        };
        assert_eq!(send("GET", "/orders").await.0, 200, "{name}");
        let (status, body) = send("POST", "/admin/log-out-everywhere").await;
        assert_eq!((status, send("GET", "/orders").await.0), expected, "{name}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.get("code").is_some_and(|code| code == "misconfigured"), status == 500, "{name}: {body}");
        assert!(!body.to_string().contains("JwtAuthenticator"), "{name}: {body}");

        let alice = Principal::builder(PrincipalKind::User, ISSUER, "alice", "session").build();
        let admin = RevocationAdmin::new(Arc::clone(&asked), [ISSUER]);
        assert!(admin.log_out_everywhere(&alice, AT).await.is_ok(), "one of another authenticator is believed");
    }
}

/// A store that processes share, with two handles in this one: what one is told, the other hears of a moment later.
#[derive(Debug)]
struct Shared(RevocationState);

#[async_trait]
impl RevocationStore for Shared {
    fn state(&self) -> &RevocationState {
        &self.0
    }

    async fn revoke(&self, _: &Revocation, _: Instants) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn another_handle_of_the_store_is_waited_for() {
    for (delay, is_heard) in [(0, true), (50, true), (900, true), (1_500, false)] {
        let heard = RevocationState::own(RevocationLimits::new());
        let alice =
            Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").vouched_by(Arc::new(heard.clone())).build();
        let store = Shared(RevocationState::fed(RevocationLimits::new()));
        let admin = RevocationAdmin::new(Arc::new(store), [ISSUER]);
        let hear = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            heard.add([&Revocation::of_subject(&alice, AT).unwrap()], AT).unwrap();
        };
        let (answer, ()) = tokio::join!(admin.log_out_everywhere(&alice, AT), hear);
        assert_eq!(answer.is_ok(), is_heard, "{delay} ms: {answer:?}");
    }
}
