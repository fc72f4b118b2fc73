//! Who has no tenant is kept out of what has one, wherever the role policy is asked.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::convert::Infallible;

use http::{Request, Response};
use portcullis::{
    Principal, PrincipalBuilder, PrincipalKind, RejectionKind,
    authn::AuthnLayer,
    guard::{Authorizer, Requirement, authenticated, from_path, not, policy, require, same_tenant},
    policy::{Rbac, Resource},
};
use support::{everybody, get, on_route, send};
use tower::ServiceBuilder;

const POLICY: &str = r#"
    version = "1"
    permissions = ["docs:read", "docs:edit"]
    [roles.reader]
    grants = ["docs:read"]
    [roles.manager]
    inherits = ["reader"]
    grants = ["docs:*"]
    [[assignments]]
    issuer = "https://id.example.com"
    subject = "carol"
    tenant = "acme"
    roles = ["manager"]
"#;

fn manager() -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").roles(["manager"])
}

/// The policy as it is, and one for operators without a tenant.
fn policies() -> [Rbac; 2] {
    [POLICY.to_owned(), format!("allow_tenantless = true\n{POLICY}")].map(|text| Rbac::from_toml(&text).unwrap())
}

#[tokio::test]
async fn a_guard_keeps_out_who_has_no_tenant() {
    let [closed, open] = policies();
    let carol = Principal::builder(PrincipalKind::User, "https://id.example.com", "carol", "jwt");
    let edit = |policy: &Rbac| -> Requirement { policy.permission("docs:edit").unwrap().into() };
    let reader = |policy: &Rbac| -> Requirement { policy.role("reader").unwrap().into() };
    for (name, requirement, expected) in [
        ("a permission", edit as fn(&Rbac) -> Requirement, 200),
        ("its opposite", |policy| not(policy.permission("docs:edit").unwrap()), 403),
        ("a role", reader, 200),
        ("its opposite", |policy| not(policy.role("reader").unwrap()), 403),
        ("the policy", |_| policy("docs:edit").unwrap(), 200),
        ("the opposite of what it says", |_| not(policy("docs:edit").unwrap()), 403),
    ] {
        let ask = async |policy: &Rbac, who: PrincipalBuilder| {
            let thing = from_path("doc", "{id}").unwrap().in_tenant("{t}").unwrap();
            let guard = require(requirement(policy)).with_policy(policy.clone()).on(thing);
            on_route("/t/{t}/docs/{id}", guard, who, "/t/acme/docs/3").await
        };
        assert_eq!(ask(&closed, manager()).await, 403, "{name}");
        assert_eq!(ask(&closed, carol.clone()).await, 403, "{name}: assigned where the thing is");
        assert_eq!(ask(&closed, manager().tenant("globex")).await, 403, "{name}: of another tenant");
        assert_eq!(ask(&closed, manager().tenant("acme")).await, expected, "{name}: at home");
        for who in [manager(), carol.clone(), manager().tenant("acme")] {
            assert_eq!(ask(&open, who).await, expected, "{name}: a policy for who has no tenant");
        }
        assert_eq!(ask(&open, manager().tenant("globex")).await, 403, "{name}: opens no other boundary");
    }
    // The policy's word is about the policy: the condition has its own.
    let thing = from_path("doc", "{id}").unwrap().in_tenant("{t}").unwrap();
    let both = require(same_tenant()).with_policy(open).on(thing);
    assert_eq!(on_route("/t/{t}/docs/{id}", both, manager(), "/t/acme/docs/3").await, 403);
}

#[tokio::test]
async fn a_handler_gives_no_tenants_things_to_who_has_none() {
    let [closed, open] = policies();
    for (policy, who, expected) in [
        (&closed, manager(), &[3][..]),
        (&closed, manager().tenant("acme"), &[1, 3]),
        (&open, manager(), &[1, 2, 3]),
        (&open, manager().tenant("acme"), &[1, 3]),
    ] {
        let handler = move |request: Request<()>| async move {
            let authz = Authorizer::of(request.extensions()).unwrap();
            let thing = |id: &u32| match id {
                1 => Resource::new("doc", id).in_tenant("acme"),
                2 => Resource::new("doc", id).in_tenant("globex"),
                _ => Resource::new("doc", id),
            };
            assert_eq!(authz.filter("docs:edit", vec![1, 2, 3], thing).await.unwrap(), expected);
            for id in [1, 2, 3] {
                let checked = authz.check("docs:edit", &thing(&id)).await.map_err(|rejection| rejection.kind());
                let allowed = if expected.contains(&id) { Ok(()) } else { Err(RejectionKind::Forbidden) };
                assert_eq!(checked.map(drop), allowed, "{id}");
            }
            Ok::<_, Infallible>(Response::<String>::default())
        };
        let authn = AuthnLayer::new(everybody(who.build())).dangerous_plain_http();
        let guard = require(authenticated()).with_policy(policy.clone());
        let app = ServiceBuilder::new().layer(authn).layer(guard).service_fn(handler);
        assert_eq!(send(&app, get("/x")).await.status(), 200);
    }
}
