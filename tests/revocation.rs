//! Revoked tokens are refused from the next request on, remembered ones included; and while nobody can say, so is everything.

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

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{StatusCode, header};
use mint::{AUDIENCE, HEADER, ISSUER, key, token};
use portcullis::{
    Instants, Principal, PrincipalKind, StoreError, StoreErrorKind, conformance,
    jwt::{Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet},
    revocation::{
        MemoryRevocations, Revocation, RevocationKind, RevocationLimits, RevocationState, RevocationStore, Standing,
        TokenMarks,
    },
};
use support::NOW;

const CLAIMS: &str = r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":1800003600,"iat":1799999990,"client_id":"web","jti":"t-1","sid":"s-1"}"#;

fn at(seconds: u64) -> Instants {
    Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000)
}

fn builder() -> JwtAuthenticatorBuilder {
    let keys = KeySet::new([key(Algorithm::ES256).with_id("k-1")]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer)
}

fn es256(claims: &str) -> String {
    token(Algorithm::ES256, HEADER, claims)
}

fn status(jwt: &JwtAuthenticator, token: &str, at: Instants) -> (u16, String) {
    match jwt.verify(token, at) {
        Ok(_) => (200, String::new()),
        Err(rejection) => (rejection.status().as_u16(), rejection.reason().to_owned()),
    }
}

/// A revocation of each kind that meets [`CLAIMS`], and how the operator learns of it.
fn each_kind() -> [(Revocation, &'static str); 5] {
    [
        (Revocation::token(ISSUER, "t-1").unwrap(), "token is revoked"),
        (Revocation::session(ISSUER, "s-1").unwrap(), "the token's session is revoked"),
        (Revocation::subject(ISSUER, "alice", NOW).unwrap(), "the subject's tokens are revoked"),
        (Revocation::client(ISSUER, "web").unwrap(), "the client's tokens are revoked"),
        // The token's header names no kid: what counts is the key that verifies it.
        (Revocation::key(ISSUER, "k-1").unwrap(), "the key that signed the token is revoked"),
    ]
}

#[tokio::test]
async fn each_kind_is_refused_remembered_or_not() {
    let token = es256(CLAIMS);
    for (revocation, reason) in each_kind() {
        for (name, builder) in [("cached", builder()), ("not cached", builder().without_cache())] {
            let store = Arc::new(MemoryRevocations::new());
            let jwt = builder.revocations(Arc::clone(&store)).build().unwrap();
            assert_eq!(status(&jwt, &token, at(0)).0, 200, "{name}");
            assert_eq!(status(&jwt, &token, at(0)).0, 200, "{name}, again");
            store.revoke(&revocation, at(0)).await.unwrap();
            for _ in 0..3 {
                assert_eq!(status(&jwt, &token, at(0)), (401, reason.to_owned()), "{name}: {revocation}");
            }
            let fresh = self::builder().revocations(Arc::clone(&store)).build().unwrap();
            assert_eq!(status(&fresh, &token, at(0)), (401, reason.to_owned()), "never seen before: {revocation}");
        }
    }
}

#[tokio::test]
async fn what_is_meant_for_others_meets_nobody() {
    let store = Arc::new(MemoryRevocations::new());
    let jwt = builder().revocations(Arc::clone(&store)).build().unwrap();
    let token = es256(CLAIMS);
    for revocation in [
        Revocation::token("https://id.example.com/", "t-1").unwrap(),
        Revocation::token(ISSUER, "s-1").unwrap(),
        Revocation::session(ISSUER, "t-1").unwrap(),
        Revocation::subject(ISSUER, "alic", NOW).unwrap(),
        Revocation::subject(ISSUER, "web", NOW).unwrap(),
        Revocation::client(ISSUER, "alice").unwrap(),
        Revocation::key(ISSUER, "").err().map(|_| Revocation::key(ISSUER, "k-2").unwrap()).unwrap(),
        Revocation::subject(ISSUER, "alice", 1_799_999_989).unwrap(), // a second before it was issued
    ] {
        store.revoke(&revocation, at(0)).await.unwrap();
        assert_eq!(status(&jwt, &token, at(0)).0, 200, "{revocation}");
    }
    store.revoke(&Revocation::subject(ISSUER, "alice", 1_799_999_990).unwrap(), at(0)).await.unwrap();
    assert_eq!(status(&jwt, &token, at(0)).0, 401);
    let later = es256(&CLAIMS.replace("1799999990", "1799999991").replace("t-1", "t-2"));
    assert_eq!(status(&jwt, &later, at(0)).0, 200, "who logs in again is in");
}

#[tokio::test]
async fn the_client_learns_no_more_than_of_any_bad_token() {
    let store = Arc::new(MemoryRevocations::new());
    let jwt = builder().revocations(Arc::clone(&store)).build().unwrap();
    let (good, bad) = (es256(CLAIMS), format!("{}x", es256(CLAIMS)));
    assert!(jwt.verify(&good, at(0)).is_ok());
    store.revoke(&Revocation::token(ISSUER, "t-1").unwrap(), at(0)).await.unwrap();
    let ask = |token: &str| jwt.verify(token, at(0)).unwrap_err().to_response::<()>();
    let (revoked, bad) = (ask(&good), ask(&bad));
    assert_eq!((revoked.status(), bad.status()), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    assert_eq!(revoked.headers(), bad.headers());
    assert!(revoked.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
}

#[test]
fn no_token_outlives_its_revocation() {
    let limits = RevocationLimits::new().kept_for(Duration::from_secs(3_600));
    let jwt = builder().revocations(MemoryRevocations::with_limits(limits)).build().unwrap();
    for (name, claims, expected) in [
        ("as long as revocations are kept", CLAIMS.replace("1800003600", "1800003590"), (200, "")),
        ("longer", CLAIMS.replace("1800003600", "1800003591"), (401, "token lives longer than revocations are kept")),
        (
            "a session of another type",
            CLAIMS.replace("\"s-1\"", "7").replace("3600", "3500"),
            (401, "sid is not a string"),
        ),
    ] {
        assert_eq!(status(&jwt, &es256(&claims), at(0)), (expected.0, expected.1.to_owned()), "{name}");
    }
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]).may_lack(["iat"]);
    let builder = JwtAuthenticator::builder().issuer(issuer);
    let undated = es256(&CLAIMS.replace(r#""iat":1799999990,"#, ""));
    assert_eq!(status(&builder.clone().build().unwrap(), &undated, at(0)).0, 200);
    let jwt = builder.revocations(MemoryRevocations::new()).build().unwrap();
    assert_eq!(status(&jwt, &undated, at(0)), (401, "iat is missing, which revocations need".to_owned()));
}

/// A store that is fed by hand.
#[derive(Debug)]
struct ByHand(RevocationState);

#[async_trait]
impl RevocationStore for ByHand {
    fn state(&self) -> &RevocationState {
        &self.0
    }

    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        self.0.add([revocation], at)
    }
}

#[tokio::test]
async fn while_nobody_can_say_nothing_passes() {
    let state = RevocationState::fed(RevocationLimits::new().capacity(1));
    let jwt = builder().revocations(ByHand(state.clone())).build().unwrap();
    let token = es256(CLAIMS);
    let blind = |at| {
        let rejection = jwt.verify(&token, at).unwrap_err();
        assert_eq!(
            (rejection.status().as_u16(), rejection.retry_after()),
            (503, Some(Duration::from_secs(1))),
            "{rejection:?}"
        );
    };
    blind(at(0));
    state.confirm(at(0));
    assert_eq!(status(&jwt, &token, at(4)).0, 200);
    blind(at(5)); // also for a token that is remembered
    state.confirm(at(6));
    assert_eq!(status(&jwt, &token, at(6)).0, 200);
    state.distrust(at(6));
    blind(at(6));
    assert_eq!(status(&jwt, &es256(&CLAIMS.replace("orders-api", "billing")), at(6)).0, 401, "bad for another reason");
    state.add([&Revocation::token(ISSUER, "t-1").unwrap()], at(6)).unwrap();
    state.confirm(at(7));
    assert_eq!(status(&jwt, &token, at(6)).0, 401, "revoked while it was blind");
    // It has room for twice as many as there may be.
    state.add([&Revocation::token(ISSUER, "t-2").unwrap()], at(6)).unwrap();
    let error = state.add([&Revocation::token(ISSUER, "t-3").unwrap()], at(6)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    assert_eq!(status(&jwt, &token, at(6)).0, 401, "a full state forgets nothing");
}

#[tokio::test]
async fn what_has_ended_by_this_clock_is_not_said_to_be_revoked() {
    let store = MemoryRevocations::new();
    let bad = Revocation::token(ISSUER, "t-1").unwrap().until(NOW + 600);
    let error = store.revoke(&bad, at(100_000)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
    store.revoke(&bad, at(1_500)).await.unwrap(); // its leeway counts
}

/// The clock of a process that is fed was ahead when it heard of them.
#[test]
fn what_is_heard_of_while_the_clock_is_ahead_counts_once_it_is_right() {
    let state = RevocationState::fed(RevocationLimits::new().capacity(1));
    let token = |jti: &str| Revocation::token(ISSUER, jti).unwrap();
    let standing = |jti: &str| state.check_marks(&TokenMarks::new(ISSUER).token(jti), at(10));
    state.add([&token("a").until(NOW + 600)], at(100_000)).unwrap();
    state.confirm(at(9));
    assert_eq!(standing("a"), Standing::Revoked(RevocationKind::Token));
    // Where there is no room, what has ended makes it, the new ones first.
    state.add([&token("b").until(NOW + 600), &token("c").until(NOW + 600), &token("d")], at(100_000)).unwrap();
    assert_eq!((state.len(), standing("d")), (2, Standing::Revoked(RevocationKind::Token)));
}

#[test]
fn trust_does_not_come_back_by_a_question_from_before_it_was_lost() {
    let state = RevocationState::fed(RevocationLimits::new());
    let standing = || state.check_marks(&TokenMarks::new(ISSUER).token("a"), at(11));
    state.confirm(at(8));
    state.distrust(at(10));
    for asked in [7, 9, 10] {
        state.confirm(at(asked));
        assert_eq!(standing(), Standing::Unknown, "asked at {asked}");
    }
    state.distrust(at(9)); // told late
    state.confirm(at(10));
    assert_eq!(standing(), Standing::Unknown);
    state.confirm(at(11));
    assert_eq!(standing(), Standing::Good);
}

#[tokio::test]
async fn what_has_ended_does_not_come_back_with_another_one() {
    let store = MemoryRevocations::new();
    // Suspended for an hour, whatever is issued.
    let hour = Revocation::subject(ISSUER, "alice", u64::MAX).unwrap().until(NOW + 3_600);
    store.revoke(&hour, at(0)).await.unwrap();
    let marks = |issued| TokenMarks::new(ISSUER).subject("alice").issued_at(NOW + issued);
    assert_eq!(store.state().check_marks(&marks(10_000), at(10_000)), Standing::Good, "it has ended");
    // A week later: log out everywhere.
    let week = 604_800;
    store.revoke(&Revocation::subject(ISSUER, "alice", NOW + week).unwrap(), at(week)).await.unwrap();
    assert_eq!(store.state().check_marks(&marks(week), at(week)), Standing::Revoked(RevocationKind::Subject));
    assert_eq!(store.state().check_marks(&marks(week + 60), at(week + 60)), Standing::Good, "she has logged in again");
}

#[tokio::test]
async fn stores_keep_their_contract() {
    for store in [
        Box::new(MemoryRevocations::new()) as Box<dyn RevocationStore>,
        Box::new(Arc::new(MemoryRevocations::default())),
        Box::new(ByHand(RevocationState::own(RevocationLimits::new()))),
    ] {
        conformance::revocation_store(&store, "first", at(0)).await;
        conformance::revocation_store(&store, "second", at(0)).await;
    }
}

#[test]
fn texts_that_no_store_could_keep() {
    let long = "x".repeat(2_049);
    for (name, issuer, value) in [
        ("no issuer", "", "t-1"),
        ("no id", ISSUER, ""),
        ("NUL", ISSUER, "t\0"),
        ("too long", ISSUER, &*long),
        ("too long an issuer", &*long, "t-1"),
    ] {
        let error = Revocation::token(issuer, value).unwrap_err();
        assert!(error.setting().contains("of a revocation") && !error.to_string().contains("xxx"), "{name}: {error}");
    }
}

/// Nobody asks a store of revocations about a key or a certificate: whoever is told that it ended would believe it.
#[test]
fn what_is_no_token_does_not_end_by_a_revocation() {
    let came_with = |kind, credential| {
        Principal::builder(kind, "https://id.example.com", "alice", credential).credential_id("c-1").build()
    };
    for (kind, credential, is_token) in [
        (PrincipalKind::User, "jwt", true),
        (PrincipalKind::User, "introspection", true),
        (PrincipalKind::User, "session", true),
        (PrincipalKind::Key, "api_key", false),
        (PrincipalKind::Service, "client_cert", false),
    ] {
        let principal = came_with(kind, credential);
        let (token, subject) = (Revocation::of_token(&principal), Revocation::of_subject(&principal, at(0)));
        assert_eq!((token.is_some(), subject.is_ok()), (is_token, is_token), "{credential}");
        assert!(is_token || subject.unwrap_err().to_string().contains(credential), "{credential}");
    }
}
