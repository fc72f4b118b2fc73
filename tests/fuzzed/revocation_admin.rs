//! A request to the router that revokes tokens: a method and a target, the type of its body, the body. Exactly what a second
//! reader finds in it is revoked, by who may, and then the answer is `200`; else nothing is.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use portcullis::{
    Instants, Principal, PrincipalKind, StoreError,
    revocation::{MemoryRevocations, Revocation, RevocationState, RevocationStore, TokenMarks},
    revocation_admin::{RevocationAdmin, rules},
};
use serde_json::{Map, Value};

use super::{
    json,
    jwt::ISSUER,
    memory::NOW,
    router::{Asked, ask},
};

/// How far ahead a time may be, and how far back an end.
const AHEAD: u64 = 300;

/// Keeps what it is told.
#[derive(Debug, Default)]
pub struct Store {
    memory: MemoryRevocations,
    told: Mutex<Vec<Revocation>>,
}

impl Store {
    /// One that somebody admits people by.
    pub fn asked() -> Self {
        let store = Self::default();
        let _ = store.state().check_marks(&TokenMarks::new(ISSUER), Instants::new(0, 0));
        store
    }

    /// What it was told since it was asked last.
    pub fn told(&self) -> Vec<Revocation> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

#[async_trait]
impl RevocationStore for Store {
    fn state(&self) -> &RevocationState {
        self.memory.state()
    }

    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        self.told.lock().unwrap().push(revocation.clone());
        self.memory.revoke(revocation, at).await
    }
}

/// May revoke all there is, and what is somebody's.
static CALLERS: LazyLock<[Principal; 2]> = LazyLock::new(|| {
    ["operator", "support"]
        .map(|role| Principal::builder(PrincipalKind::User, ISSUER, role, "test").roles([role]).build())
});

/// Panics if something of that does not hold. Whether something was revoked.
pub fn check(data: &[u8]) -> bool {
    let Some(asked) = Asked::read(data) else { return false };
    CALLERS.iter().filter(|caller| of(caller, &asked)).count() > 0
}

fn of(caller: &Principal, asked: &Asked) -> bool {
    let store = Arc::new(Store::asked());
    let app = RevocationAdmin::new(Arc::clone(&store), [ISSUER]).router();
    let (status, body) = ask(app, rules(""), caller, asked);
    let answer = json::once(&body).unwrap_or_default();
    match (status, &store.told()[..], expected(caller, asked)) {
        (200, [told], Some(expected)) => {
            assert_eq!((told.kind(), told.issuer(), told.value()), (expected.kind(), ISSUER, expected.value()));
            assert_eq!((told.last_issue(), told.end()), (expected.last_issue(), expected.end()));
            assert_eq!(answer["revoked"], told.kind().as_str());
            true
        }
        (400..500, [], None) => false,
        (status, told, expected) => panic!("{status} {answer}: {told:?}, where {expected:?} was expected: {asked:?}"),
    }
}

/// What is to be revoked.
fn expected(caller: &Principal, asked: &Asked) -> Option<Revocation> {
    let known: (&str, &[&str]) = match asked.uri.path() {
        "/log-out-everywhere" => ("", &[]),
        "/tokens/revoke" => ("jti", &["exp"]),
        "/sessions/revoke" => ("sid", &[]),
        "/subjects/revoke" => ("sub", &["issued_until"]),
        "/clients/revoke" if caller.has_role("operator") => ("client_id", &[]),
        "/keys/revoke" if caller.has_role("operator") => ("kid", &[]),
        _ => return None,
    };
    if asked.method != "POST" || !asked.is_of("application/json") {
        return None;
    }
    let (name, numbers) = known;
    if name.is_empty() {
        let is_empty = asked.body.is_empty() || json::once(&asked.body) == Some(Map::new().into());
        return Revocation::subject(ISSUER, caller.subject(), NOW).ok().filter(|_| is_empty);
    }
    let Value::Object(body) = json::once(&asked.body)? else { return None };
    let fits = |(member, value): (&String, &Value)| match &**member {
        "issuer" => value == ISSUER,
        member if member == name => value.is_string(),
        member => numbers.contains(&member) && value.is_u64(),
    };
    let value = body.get(name)?.as_str()?;
    if !body.contains_key("issuer") || !body.iter().all(fits) {
        return None;
    }
    let number = numbers.first().and_then(|number| body.get(*number)).and_then(Value::as_u64);
    match (name, number) {
        ("jti", Some(end)) if end < NOW - AHEAD => None,
        ("jti", end) => Revocation::token(ISSUER, value).ok().map(|token| {
            // A longer end than any token's would keep its room for good.
            end.map_or(token.clone(), |end| token.until(end.min(NOW + longest() + AHEAD)))
        }),
        ("sub", Some(until)) if until > NOW + AHEAD => None,
        ("sub", until) => Revocation::subject(ISSUER, value, until.unwrap_or(NOW)).ok(),
        ("sid", _) => Revocation::session(ISSUER, value).ok(),
        ("client_id", _) => Revocation::client(ISSUER, value).ok(),
        _ => Revocation::key(ISSUER, value).ok(),
    }
}

/// As long as the store believes that tokens live.
fn longest() -> u64 {
    MemoryRevocations::new().state().longest_life().as_secs()
}
