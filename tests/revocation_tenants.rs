//! Whose tokens a caller of the revocation router reaches: a tenant's people end nobody else's, unless the operator says so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use portcullis::{
    Challenge, Instants, Principal, PrincipalKind,
    authn::{AuthnLayer, Outcome, authenticate_fn, both},
    guard::{authenticated, require},
    policy::Rbac,
    revocation::{MemoryRevocations, RevocationStore, TokenMarks},
    revocation_admin::RevocationAdmin,
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

const STAFF: &str = "https://staff.test";
const SHARED: &str = "https://shared.test";
const OF_ACME: &str = "https://acme.test";
const OF_GLOBEX: &str = "https://globex.test";
const POLICY: &str = "version = '1'\npermissions = ['tokens:revoke', 'tokens:revoke-many']\n\
    [roles.manager]\ngrants = ['tokens:revoke', 'tokens:revoke-many']\n";

fn admin(store: &Arc<MemoryRevocations>) -> RevocationAdmin {
    RevocationAdmin::new(Arc::clone(store), [STAFF, SHARED, OF_ACME, OF_GLOBEX])
        .with_tenant_issuer(OF_ACME, "acme")
        .and_then(|admin| admin.with_tenant_issuer(OF_GLOBEX, "globex"))
        .unwrap()
}

fn of(issuer: &str, tenant: Option<&str>) -> Principal {
    let somebody = Principal::builder(PrincipalKind::User, issuer, "eve", "session").roles(["manager"]);
    tenant.into_iter().fold(somebody, |somebody, tenant| somebody.tenant(tenant)).build()
}

/// What acts for them.
fn gateway(issuer: &str, tenant: Option<&str>) -> Principal {
    let gateway = Principal::builder(PrincipalKind::Service, issuer, "gateway", "session");
    tenant.into_iter().fold(gateway, |gateway, tenant| gateway.tenant(tenant)).build()
}

/// What they are told, and how much is revoked after that.
async fn ask(
    edit: impl FnOnce(RevocationAdmin) -> RevocationAdmin,
    client: Option<Principal>,
    subject: Principal,
    path: &str,
    body: &Value,
) -> (u16, Value, usize) {
    let store = Arc::new(MemoryRevocations::new());
    // Somebody admits people by it.
    let _ = store.state().check_marks(&TokenMarks::new(STAFF), Instants::new(0, 0));
    let guard = require(authenticated()).with_policy(Rbac::from_toml(POLICY).unwrap());
    let inner = guard.layer(edit(admin(&store)).router());
    let is = |who: Principal, name: &str| {
        authenticate_fn(Challenge::new(name, "test").unwrap(), move |_, _| Outcome::verified(who.clone()))
    };
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = match client {
        None => AuthnLayer::new(is(subject, "Subject")).dangerous_plain_http().layer(inner).oneshot(request).await,
        Some(client) => {
            let pair = both(is(client, "Client"), is(subject, "Subject"));
            AuthnLayer::new(pair).dangerous_plain_http().layer(inner).oneshot(request).await
        }
    };
    let (head, body) = response.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default(), store.state().len())
}

fn alice(issuer: &str) -> Value {
    json!({"issuer": issuer, "sub": "alice"})
}

#[tokio::test]
async fn a_tenants_people_end_only_what_belongs_to_their_tenant_alone() {
    for (name, who, issuer, expected) in [
        ("an operator", of(STAFF, None), SHARED, 200),
        ("an operator, in a tenant's own provider", of(STAFF, None), OF_ACME, 200),
        ("a tenant, among all", of(SHARED, Some("acme")), SHARED, 403),
        ("a tenant, the operators", of(SHARED, Some("acme")), STAFF, 403),
        ("a tenant, its own provider", of(SHARED, Some("acme")), OF_ACME, 200),
        ("a tenant, another's provider", of(SHARED, Some("globex")), OF_ACME, 403),
        ("a tenant that nothing belongs to", of(SHARED, Some("initech")), OF_ACME, 403),
        ("a tenant of almost that name", of(SHARED, Some("Acme")), OF_ACME, 403),
        ("a tenant by its provider", of(OF_ACME, None), OF_ACME, 200),
        ("one whose provider names no tenant is no operator", of(OF_ACME, None), SHARED, 403),
        ("nor for another tenant", of(OF_ACME, None), OF_GLOBEX, 403),
        ("a provider that speaks for another tenant", of(OF_ACME, Some("globex")), OF_GLOBEX, 403),
        ("and loses its own by it", of(OF_ACME, Some("globex")), OF_ACME, 403),
        ("a key of a tenant", of("api-keys", Some("acme")), SHARED, 403),
    ] {
        let (status, answer, known) = ask(|admin| admin, None, who, "/subjects/revoke", &alice(issuer)).await;
        assert_eq!((status, known), (expected, usize::from(expected == 200)), "{name}: {answer}");
        if status == 403 {
            let said = (answer["code"].as_str(), answer["field"].as_str());
            assert_eq!(said, (Some("not_held"), Some("issuer")), "{name}: {answer}");
            assert!(!answer.to_string().contains("acme"), "{name}: {answer}");
        }
    }
}

/// What acts for somebody gives them no reach, and neither do they give it theirs.
#[tokio::test]
async fn each_identity_of_the_request_must_reach_it() {
    for (name, client, subject, issuer, expected) in [
        ("operators both", gateway(STAFF, None), of(STAFF, None), SHARED, 200),
        ("a tenant's people by the operators' client", gateway(STAFF, None), of(SHARED, Some("acme")), SHARED, 403),
        ("and their own", gateway(STAFF, None), of(SHARED, Some("acme")), OF_ACME, 200),
        ("an operator by a tenant's client", gateway("api-keys", Some("acme")), of(STAFF, None), SHARED, 403),
        ("two tenants", gateway("api-keys", Some("globex")), of(SHARED, Some("acme")), OF_ACME, 403),
    ] {
        let (status, answer, known) =
            ask(|admin| admin, Some(client), subject, "/subjects/revoke", &alice(issuer)).await;
        assert_eq!((status, known), (expected, usize::from(expected == 200)), "{name}: {answer}");
    }
}

#[tokio::test]
async fn it_holds_for_every_kind() {
    for (path, name) in [
        ("/tokens/revoke", "jti"),
        ("/sessions/revoke", "sid"),
        ("/subjects/revoke", "sub"),
        ("/clients/revoke", "client_id"),
        ("/keys/revoke", "kid"),
    ] {
        for (issuer, expected) in [(SHARED, (403, 0)), (OF_GLOBEX, (403, 0)), (OF_ACME, (200, 1))] {
            let body = json!({"issuer": issuer, name: "x"});
            let (status, answer, known) = ask(|admin| admin, None, of(SHARED, Some("acme")), path, &body).await;
            assert_eq!((status, known), expected, "{path} of {issuer}: {answer}");
        }
    }
}

/// The providers of other tenants are not for guessing.
#[tokio::test]
async fn who_does_not_reach_an_issuer_does_not_learn_whether_it_is_known() {
    let mut answers = Vec::new();
    for issuer in [OF_GLOBEX, "https://unknown.test"] {
        let (status, mut answer, _) =
            ask(|admin| admin, None, of(SHARED, Some("acme")), "/subjects/revoke", &alice(issuer)).await;
        answer.as_object_mut().unwrap().remove("request_id");
        answers.push((status, answer));
    }
    assert_eq!(answers[0], answers[1]);
    let (status, ..) =
        ask(|admin| admin, None, of(STAFF, None), "/subjects/revoke", &alice("https://unknown.test")).await;
    assert_eq!(status, 422, "an operator is told");
}

#[tokio::test]
async fn everybody_still_ends_their_own_and_the_operator_may_lift_it() {
    for who in [of(SHARED, Some("acme")), of(OF_ACME, None), of(STAFF, None)] {
        let (status, answer, known) = ask(|admin| admin, None, who, "/log-out-everywhere", &json!({})).await;
        assert_eq!((status, known), (200, 1), "{answer}");
    }
    let across = RevocationAdmin::allow_across_tenants;
    let (status, _, known) = ask(across, None, of(SHARED, Some("acme")), "/subjects/revoke", &alice(SHARED)).await;
    assert_eq!((status, known), (200, 1));
    let unknown = alice("https://unknown.test");
    assert_eq!(ask(across, None, of(SHARED, Some("acme")), "/subjects/revoke", &unknown).await.0, 422);
}

#[test]
fn an_issuer_belongs_to_one_tenant_and_must_be_known() {
    let store = Arc::new(MemoryRevocations::new());
    // Somebody admits people by it.
    let _ = store.state().check_marks(&TokenMarks::new(STAFF), Instants::new(0, 0));
    for (issuer, tenant) in [
        (OF_ACME, "acme"),
        (OF_ACME, "globex"),
        ("https://unknown.test", "acme"),
        ("acme", SHARED),
        (SHARED, ""),
        ("", "acme"),
    ] {
        let refused = admin(&store).with_tenant_issuer(issuer, tenant).unwrap_err();
        assert!(refused.to_string().contains(&format!("{issuer:?} of {tenant:?}")), "{refused}");
    }
}
