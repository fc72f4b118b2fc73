//! Profiles of a matrix whose lines need values of their own, and things that belong to somebody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use portcullis::{
    Principal,
    guard::{authenticated, require, role},
    jwt::JwtAuthenticator,
    policy::Matrix,
    stack::{Protected, Stack},
    testing::{
        TestIssuer,
        attack::{AttackReport, PathValues, Profile, attack_suite},
    },
    tls::TlsLayer,
};

type Notes = Arc<Mutex<BTreeMap<u32, &'static str>>>;

/// Notes that have an owner, and can be deleted once. Where it asks nobody whose a note is, everybody gets at all of them.
fn service(issuer: &TestIssuer, asks_owner: bool) -> (Matrix, Protected<Router>) {
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        // DELETE first: a suite that keeps to the order deletes what the others ask for.
        .route("DELETE /notes/{id}", require(role("manager").unwrap()))
        .route("GET /notes/{id}", require(authenticated()))
        .route("PUT /notes/{id}", require(authenticated()))
        .route("POST /log-out", require(authenticated()))
        .build()
        .unwrap();
    let notes: Notes = Arc::new(Mutex::new(BTreeMap::from([(1, "alice"), (2, "bob"), (3, "alice")])));
    let reach = move |notes: &Notes, who: &Principal, id: u32| match notes.lock().unwrap().get(&id) {
        Some(owner) if !asks_owner || who.has_role("manager") || who.subject() == *owner => StatusCode::OK,
        _ => StatusCode::NOT_FOUND,
    };
    let note =
        get(async move |State(notes): State<Notes>, who: Principal, Path(id): Path<u32>| reach(&notes, &who, id))
            .put(async move |State(notes): State<Notes>, who: Principal, Path(id): Path<u32>| reach(&notes, &who, id))
            .delete(async |State(notes): State<Notes>, Path(id): Path<u32>| match notes.lock().unwrap().remove(&id) {
                Some(_) => StatusCode::NO_CONTENT,
                None => StatusCode::NOT_FOUND,
            });
    let matrix = stack.matrix(["manager", "member"]);
    let router = Router::new().route("/notes/{id}", note).route("/log-out", post(ends_tokens)).with_state(notes);
    (matrix, stack.protect(router))
}

/// No profile of these tests may ask for it.
async fn ends_tokens() -> StatusCode {
    panic!("the tokens of the profile are no longer good")
}

fn people(issuer: &TestIssuer) -> Profile {
    let token = |subject: &str, role: &str| issuer.token().subject(subject).role(role);
    Profile::new().role("manager", token("m", "manager")).role("member", token("alice", "member"))
}

async fn run(asks_owner: bool, profile: impl FnOnce(Profile, &Matrix, &TestIssuer) -> Profile) -> AttackReport {
    let issuer = TestIssuer::new("notes");
    let (matrix, app) = service(&issuer, asks_owner);
    attack_suite(app, profile(people(&issuer), &matrix, &issuer)).run::<Body, _>().await
}

#[tokio::test]
async fn what_is_used_up_is_asked_for_last() {
    let report = run(true, |profile, matrix, issuer| {
        let token = |subject: &str| issuer.token().subject(subject).role("member");
        let values = PathValues::new([("id", "1")]).without(["POST /log-out"]);
        profile
            .matrix(matrix, values)
            .unwrap()
            .hidden("GET /notes/1", "GET /notes/9", token("alice"), token("bob"))
            .unwrap()
            .other_owner("PUT /notes/1", token("alice"), token("bob"))
            .unwrap()
    })
    .await;
    assert!(report.is_clean(), "{report}");
    assert!(report.sent().any(|(attack, _)| attack == "owner-crossing"), "{report}");
}

#[tokio::test]
async fn a_line_has_values_of_its_own() {
    let report = run(true, |profile, matrix, _| {
        let values = PathValues::new([("id", "1")]).at("DELETE /notes/{id}", [("id", "3")]).without(["POST /log-out"]);
        let profile = profile.matrix(matrix, values).unwrap();
        let shown = format!("{profile:?}");
        assert!(shown.contains("DELETE /notes/3") && !shown.contains("DELETE /notes/1"), "{shown}");
        assert!(shown.contains("GET /notes/1") && !shown.contains("log-out"), "{shown}");
        profile
    })
    .await;
    assert!(report.is_clean(), "{report}");
}

#[test]
fn values_name_what_is_there() {
    let issuer = TestIssuer::new("notes");
    let (matrix, _) = service(&issuer, true);
    for (values, said) in [
        (PathValues::new([("id", "1")]).without(["POST /logout"]), "POST /logout"),
        (PathValues::new([("id", "1")]).at("DELETE /notes/3", [("id", "3")]), "DELETE /notes/3"),
        (PathValues::new([("id", "1")]).at("GET /notes/{id}", [("note", "3")]), "note"),
        (PathValues::new([]), "/notes/{id}"),
    ] {
        let error = Profile::new().matrix(&matrix, values).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    assert!(Profile::new().matrix(&matrix, &[("id", "1")]).is_ok());
}

/// What roles may do says nothing of whose a thing is.
#[tokio::test]
async fn a_thing_of_another_owner_is_found() {
    for asks_owner in [true, false] {
        let report = run(asks_owner, |profile, _, issuer| {
            let token = |subject: &str| issuer.token().subject(subject).role("member");
            let profile = profile.route("GET /notes/1", ["member", "manager"]).unwrap();
            let profile = profile.route("PUT /notes/1", ["member", "manager"]).unwrap();
            profile.other_owner("PUT /notes/1", token("alice"), token("bob")).unwrap()
        })
        .await;
        let crosses = report.findings().iter().any(|finding| finding.attack() == "owner-crossing");
        assert_eq!((report.is_clean(), crosses), (asks_owner, !asks_owner), "{report}");
    }
}

/// The stranger of a thing whose token is none proves nothing, and neither does an owner who does not get it.
#[tokio::test]
async fn a_thing_of_nobody_proves_nothing() {
    for (owner, stranger, sent) in [("nobody", "bob", "whoever may have it"), ("alice", "", "somebody whose it is not")]
    {
        let report = run(true, |profile, _, issuer| {
            let token = |subject: &str| issuer.token().subject(subject).role("member");
            profile.other_owner("GET /notes/1", token(owner), token(stranger)).unwrap()
        })
        .await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        assert_eq!(found, [("control", sent)], "{report}");
    }
}
