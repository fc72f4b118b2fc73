//! A service with the routers of administration inside, as the manual's page on tests says to attack it.

use std::sync::Arc;

use axum::{Router, body::Body, routing::get};
use portcullis::{
    Clock, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    authn::one_of,
    guard::{require, role},
    jwt::{Algorithm, Issuer, JwtAuthenticator},
    key_admin::{self, KeyAdmin},
    policy::Rbac,
    revocation::MemoryRevocations,
    revocation_admin::{self, RevocationAdmin},
    stack::Stack,
    testing::{
        TestIssuer, TestToken,
        attack::{AttackReport, Finding, PathValues, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use serde_json::json;

const POLICY: &str = r#"
    version = "1"
    permissions = [
        "keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:disable-owner", "keys:any-owner", "keys:grant-any",
        "tokens:revoke", "tokens:revoke-many",
    ]
    [roles.operator]
    grants = ["*"]
    [roles.clerk]
"#;

/// Somebody of no tenant, whom all of administration is for.
fn token(issuer: &TestIssuer, subject: &str, role: &str) -> TestToken {
    issuer.token().subject(subject).role(role).without("tenant")
}

async fn run(opens: bool) -> AttackReport {
    let issuer = TestIssuer::new("orders-api");
    let trusted = Issuer::with_keys(issuer.name(), issuer.clone());
    let trusted = trusted.access_tokens("orders-api").algorithms([Algorithm::ES256]).roles_claim("roles");
    let (store, tokens) = (Arc::new(MemoryKeyStore::new()), Arc::new(MemoryRevocations::new()));
    let jwt = JwtAuthenticator::builder().issuer(trusted).revocations(Arc::clone(&tokens)).build().unwrap();
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let now = SystemClock::new().now();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (_, record) = keys.issuer().issue(&store, NewApiKey::for_subject("shipping"), now).await.unwrap();
        ids.push(record.id().to_string());
    }
    let stack = |policy: &str| {
        let rules = key_admin::rules("/admin").into_iter().chain(revocation_admin::rules("/admin"));
        let stack = Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(one_of((jwt.clone(), keys.clone())))
            .policy(Rbac::from_toml(policy).unwrap())
            .route("GET /orders", require(role("clerk").unwrap()));
        rules.fold(stack, |stack, (line, rule)| stack.route(line, rule)).build().unwrap()
    };
    // The table of before somebody changed the policy, as reviewers have agreed to it.
    let matrix = stack(POLICY).matrix(["operator", "clerk"]);
    let changed = POLICY.replace("[roles.clerk]", "[roles.clerk]\n grants = [\"tokens:revoke\"]");
    let stack = if opens { stack(&changed) } else { stack(POLICY) };
    let app = Router::new().route("/orders", get(async || "orders")).nest(
        "/admin",
        KeyAdmin::new(store)
            .with_issuer(keys.issuer())
            .router()
            .merge(RevocationAdmin::new(tokens, [issuer.name().to_owned()]).router()),
    );

    let values = PathValues::new([("key_id", ids[0].as_str())])
        .at("POST /admin/keys/{key_id}/rotate", [("key_id", ids[1].as_str())])
        .at("POST /admin/keys/{key_id}/revoke", [("key_id", ids[2].as_str())])
        .without(["POST /admin/log-out-everywhere"]);
    let rotate = format!("POST /admin/keys/{}/rotate", ids[1]);
    let revoke = format!("POST /admin/keys/{}/revoke", ids[2]);
    let mut profile = Profile::new()
        .role("operator", token(&issuer, "olga", "operator"))
        .role("clerk", token(&issuer, "alice", "clerk"))
        .matrix(&matrix, values)
        .unwrap();
    for (line, body) in [
        ("POST /admin/keys", json!({ "subject": "made-by-a-test" })),
        (&rotate, json!({})),
        (&revoke, json!({ "reason": "a test" })),
        ("POST /admin/owners/disable", json!({ "subject": "nobody-else", "tenant": null, "reason": "a test" })),
        ("POST /admin/owners/enable", json!({ "subject": "nobody-else", "tenant": null })),
        ("POST /admin/tokens/revoke", json!({ "issuer": issuer.name(), "jti": "no-such-token" })),
        ("POST /admin/sessions/revoke", json!({ "issuer": issuer.name(), "sid": "no-such-session" })),
        ("POST /admin/subjects/revoke", json!({ "issuer": issuer.name(), "sub": "nobody-else" })),
        ("POST /admin/clients/revoke", json!({ "issuer": issuer.name(), "client_id": "no-such-client" })),
        ("POST /admin/keys/revoke", json!({ "issuer": issuer.name(), "kid": "no-such-key" })),
    ] {
        profile = profile.body(line, "application/json", body.to_string()).unwrap();
    }
    attack_suite(stack.protect(app), profile).run::<Body, _>().await
}

#[tokio::test]
async fn administration_is_attacked_with_bodies_and_keys_of_its_own() {
    let report = run(false).await;
    assert!(report.is_clean(), "{report}");
    let report = run(true).await;
    for line in ["POST /admin/tokens/revoke", "POST /admin/sessions/revoke", "POST /admin/subjects/revoke"] {
        let crosses = |finding: &Finding| finding.attack() == "role-crossing" && finding.route() == line;
        assert!(report.findings().iter().any(crosses), "{line}: {report}");
    }
}
