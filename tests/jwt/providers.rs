//! One documented token for each provider, and the rules that are its own.

use portcullis::{
    ConfigError, PrincipalKind,
    jwt::{Algorithm, Provider},
};
use serde_json::{Value, json};

use crate::{AT_JWT, Case, JWT, NO_TYP, keys, strings};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const API: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";

pub(crate) fn all() -> Vec<Case> {
    vec![
        google(),
        entra(),
        entra_v1(),
        auth0(),
        okta(),
        cognito_access(),
        cognito_id(),
        keycloak(),
        firebase(),
        github(),
        kubernetes(),
        aks(),
        gitlab(),
    ]
}

fn google() -> Case {
    let claims = json!({"iss": "https://accounts.google.com", "azp": "web.apps.googleusercontent.com",
        "aud": "web.apps.googleusercontent.com", "sub": "110169484474386276334", "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
        "hd": "example.com", "email": "jsmith@example.com", "email_verified": true, "nonce": "0394852-3190485-2490358"});
    let clients = ["web.apps.googleusercontent.com", "android.apps.googleusercontent.com"];
    Case::new("google", Provider::google(clients).unwrap(), JWT, claims)
}

#[test]
fn google_has_two_spellings_and_one_principal() {
    let case = google();
    let bare = case.takes("iss", json!("accounts.google.com"));
    assert!(bare.is_same_as(&case.principal()));
    assert_eq!((bare.issuer(), bare.kind()), ("https://accounts.google.com", PrincipalKind::User));
    for iss in ["http://accounts.google.com", "https://accounts.google.com/", "accounts.google.com.evil.example"] {
        case.refuses("iss", json!(iss), "iss is missing or not known");
    }
    case.takes("azp", json!("android.apps.googleusercontent.com"));
    case.takes("azp", Value::Null);
    case.refuses("azp", json!("other.apps.googleusercontent.com"), "azp is another client");
    case.refuses("scope", json!("openid"), "an access token in place of an ID token");
    case.refuses_header(AT_JWT);

    let profile = Provider::google(["web.apps.googleusercontent.com"]).unwrap().fixed(keys());
    let workspace =
        Case::of("workspace", profile.claim_must_be("hd", ["example.com"]), JWT, google().but("x", json!(1)));
    workspace.principal();
    workspace.refuses("hd", json!("evil.example"), "a claim has another value");
    workspace.refuses("hd", Value::Null, "a claim that the profile expects is missing");
}

fn entra() -> Case {
    let claims = json!({"aud": API, "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "nbf": 1_700_000_000,
        "aio": "AXQAi", "azp": "14a90c0e-0000-4000-8000-000000000000", "azpacr": "0", "name": "Abe Lincoln",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "preferred_username": "abeli@microsoft.com", "rh": "I",
        "scp": "access_as_user orders.read", "roles": ["Orders.Clerk"], "wids": ["b79fbf4d-3ef9-4689-8143-76b194e85509"],
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": TENANT, "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0"});
    Case::new("entra", Provider::entra([OTHER_TENANT, TENANT], API).unwrap(), JWT, claims)
}

#[test]
fn entra_ties_the_tenant_to_the_issuer() {
    let case = entra();
    let principal = case.principal();
    assert_eq!((principal.tenant(), principal.kind()), (Some(TENANT), PrincipalKind::User));
    assert_eq!(principal.issuer(), format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    assert_eq!(strings(principal.scopes()), ["access_as_user", "orders.read"]);
    assert_eq!(strings(principal.roles()), ["Orders.Clerk"]);

    let v2 = |tenant: &str| json!(format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    case.refuses("iss", v2(OTHER_TENANT), "a claim has another value");
    case.refuses("tid", json!(OTHER_TENANT), "a claim has another value");
    case.refuses("tid", Value::Null, "a claim that the profile expects is missing");
    case.refuses("tid", json!([TENANT]), "a claim that the profile expects is not a string");
    for iss in [
        v2("11111111-2222-4333-8444-555555555555"),
        v2("common"),
        v2("organizations"),
        v2("{tenantid}"),
        v2(&TENANT.to_uppercase()),
        v2(""),
        json!(format!("https://sts.windows.net/{TENANT}/")),
        json!(format!("https://login.microsoftonline.com/{TENANT}/v2.0/")),
        json!(format!("https://login.microsoftonline.com/{TENANT}/../{TENANT}/v2.0")),
        json!(format!("https://login.microsoftonline.us/{TENANT}/v2.0")),
    ] {
        case.refuses("iss", iss, "iss is missing or not known");
    }
    case.refuses("ver", json!("1.0"), "a claim has another value");
    case.refuses("azpacr", Value::Null, "a claim that the profile requires is missing");
    case.refuses("azp", Value::Null, "azp is missing");
    case.refuses("nonce", json!("n"), "an ID token in place of an access token");
    case.refuses("scp", json!(["orders.read"]), "the scope claim is not a string");
    case.refuses("roles", json!("Orders.Clerk"), "the roles claim is not an array of strings");

    // Of scp and roles one is enough; an app-only token has no scopes, and its subject is its object id.
    case.takes("roles", Value::Null);
    let app = case.takes("sub", json!("690222be-ff1a-4d56-abd1-7e4f7d38e474"));
    assert_eq!(app.kind(), PrincipalKind::Service);
    let without = Case::new("neither", Provider::entra([TENANT], API).unwrap(), JWT, case.but("scp", Value::Null));
    without.refuses("roles", Value::Null, "a claim that the profile requires is missing");

    let wids = Provider::entra([TENANT], API).unwrap().fixed(keys()).roles_claim("wids");
    let principal = Case::of("wids", wids, JWT, case.but("x", json!(1))).principal();
    assert_eq!(strings(principal.roles()), ["b79fbf4d-3ef9-4689-8143-76b194e85509"]);
}

fn entra_v1() -> Case {
    let claims = json!({"aud": format!("api://{API}"), "iss": format!("https://sts.windows.net/{TENANT}/"), "acr": "1",
        "amr": ["pwd", "mfa"], "appid": "14a90c0e-0000-4000-8000-000000000000", "appidacr": "1", "ver": "1.0",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "scp": "access_as_user", "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H",
        "tid": TENANT, "unique_name": "abeli@microsoft.com", "uti": "Q9wqC3RzGkuR1aXcd0sAAA"});
    Case::new("entra v1", Provider::entra_v1([TENANT], format!("api://{API}")).unwrap(), JWT, claims)
}

#[test]
fn entra_v1_is_a_choice() {
    let case = entra_v1();
    assert_eq!(case.principal().tenant(), Some(TENANT));
    assert_eq!(strings(case.principal().methods()), ["pwd", "mfa"]);
    case.refuses("iss", json!(format!("https://sts.windows.net/{OTHER_TENANT}/")), "iss is missing or not known");
    case.refuses("iss", json!(format!("https://sts.windows.net/{TENANT}")), "iss is missing or not known");
    case.refuses("ver", json!("2.0"), "a claim has another value");
    case.refuses("appid", Value::Null, "a claim that the profile requires is missing");
}

fn auth0() -> Case {
    let claims = json!({"iss": "https://my-domain.auth0.com/", "sub": "auth0|123456", "azp": "my_client_id",
        "aud": ["https://example.com/health-api", "https://my-domain.auth0.com/userinfo"],
        "scope": "openid profile read:patients", "permissions": ["read:patients"],
        "https://example.com/roles": ["doctor"], "org_id": "org_1"});
    let provider = Provider::auth0("my-domain.auth0.com", "https://example.com/health-api").unwrap();
    Case::new("auth0", provider, JWT, claims)
}

#[test]
fn auth0_in_both_dialects() {
    let case = auth0();
    let principal = case.principal();
    assert_eq!(strings(principal.permissions()), ["read:patients"]);
    assert_eq!(strings(principal.scopes()), ["openid", "profile", "read:patients"]);
    assert_eq!((principal.roles().len(), principal.tenant()), (0, None));
    case.takes_header(AT_JWT);
    assert_eq!(case.takes("sub", json!("my_client_id@clients")).kind(), PrincipalKind::Service);
    assert_eq!(case.takes("sub", json!("other@clients")).kind(), PrincipalKind::User);
    case.refuses("azp", Value::Null, "azp is missing");
    case.refuses("permissions", json!("read:patients"), "the permissions claim");
    case.refuses("nonce", json!("n"), "an ID token in place of an access token");
    case.refuses("iss", json!("https://other.auth0.com/"), "iss is missing or not known");

    let provider = || Provider::auth0("my-domain.auth0.com", "https://example.com/health-api").unwrap();
    let mut claims = case.but("azp", Value::Null);
    claims["client_id"] = json!("my_client_id");
    claims["sub"] = json!("my_client_id@clients");
    let rfc = Case::new("auth0 RFC 9068", provider(), AT_JWT, claims);
    assert_eq!(rfc.principal().kind(), PrincipalKind::Service);

    let own = provider().fixed(keys()).roles_claim("https://example.com/roles").tenant_claim("org_id");
    let own = Case::of("auth0 with roles", own, JWT, case.but("x", json!(1)));
    assert_eq!((strings(own.principal().roles()), own.principal().tenant()), (vec!["doctor"], Some("org_1")));
    own.refuses("org_id", Value::Null, "the tenant claim is missing");
}

fn okta() -> Case {
    let claims = json!({"ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "iss": "https://shop.okta.com/oauth2/default", "aud": "api://default", "cid": "nmdP1fcyvdVO11AL7ECm",
        "uid": "00ugrenMeqvYla4HW0g3", "scp": ["openid", "orders.read"], "sub": "jane@example.com", "groups": ["Clerks"]});
    Case::new("okta", Provider::okta("https://shop.okta.com/oauth2/default", "api://default").unwrap(), NO_TYP, claims)
}

#[test]
fn okta_writes_scopes_as_an_array() {
    let case = okta();
    let principal = case.principal();
    assert_eq!(strings(principal.scopes()), ["openid", "orders.read"]);
    assert_eq!((strings(principal.roles()), principal.kind()), (vec!["Clerks"], PrincipalKind::User));
    assert!(principal.credential_id().is_some_and(|id| id.starts_with("AT.")));
    assert_eq!(case.takes("sub", json!("nmdP1fcyvdVO11AL7ECm")).kind(), PrincipalKind::Service);
    case.takes("groups", Value::Null);
    case.refuses("scp", json!("openid orders.read"), "the scope claim is not an array of strings");
    case.refuses("groups", json!({"Clerks": true}), "the roles claim");
    case.refuses("cid", Value::Null, "a claim that the profile requires is missing");
    case.refuses("cid", json!(5), "the claim that names the client is not a string");
    case.refuses("jti", Value::Null, "jti is missing");
    case.refuses("at_hash", json!("x"), "an ID token in place of an access token");
    case.refuses("iss", json!("https://shop.okta.com"), "iss is missing or not known");
    case.refuses("iss", json!("https://shop.okta.com/oauth2/other"), "iss is missing or not known");
}

fn cognito_access() -> Case {
    let claims = json!({"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["clerks"], "version": 2,
        "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example", "client_id": "xxxxxxxxxxxxexample",
        "origin_jti": "aaaa", "event_id": "bbbb", "token_use": "access", "scope": "phone openid profile email",
        "auth_time": 1_676_312_777, "jti": "cccc", "username": "my-test-user"});
    let clients = ["another", "xxxxxxxxxxxxexample"];
    Case::new("cognito access", Provider::cognito_access("us-west-2_example", clients).unwrap(), NO_TYP, claims)
}

#[test]
fn cognito_access_tokens_are_bound_by_client_id() {
    let case = cognito_access();
    let principal = case.principal();
    assert_eq!((strings(principal.roles()), principal.kind()), (vec!["clerks"], PrincipalKind::User));
    assert_eq!(strings(principal.scopes()), ["phone", "openid", "profile", "email"]);
    assert_eq!(case.takes("sub", json!("xxxxxxxxxxxxexample")).kind(), PrincipalKind::Service);
    case.takes("cognito:groups", Value::Null);
    case.refuses("client_id", json!("another-service"), "token is for another client");
    case.refuses("client_id", json!(["another"]), "client_id is not a string");
    case.refuses("client_id", Value::Null, "client_id is missing");
    case.refuses("aud", json!("xxxxxxxxxxxxexample"), "token is for an audience");
    case.refuses("token_use", json!("id"), "a claim has another value");
    case.refuses("token_use", json!("ACCESS"), "a claim has another value");
    case.refuses("token_use", json!(true), "a claim that the profile expects is not a string");
    case.refuses("token_use", Value::Null, "a claim that the profile expects is missing");
    case.refuses("cognito:groups", json!("clerks"), "the roles claim");
    let other = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_other";
    case.refuses("iss", json!(other), "iss is missing or not known");
}

fn cognito_id() -> Case {
    let claims = json!({"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["clerks"],
        "email_verified": true, "cognito:preferred_role": "arn:aws:iam::111122223333:role/my-test-role",
        "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example", "cognito:username": "my-test-user",
        "nonce": "abcdefg", "origin_jti": "aaaa", "aud": "xxxxxxxxxxxxexample", "event_id": "bbbb", "token_use": "id",
        "auth_time": 1_676_312_777, "jti": "cccc", "email": "my-test-user@example.com"});
    Case::new("cognito id", Provider::cognito_id("us-west-2_example", ["xxxxxxxxxxxxexample"]).unwrap(), NO_TYP, claims)
}

#[test]
fn cognito_id_tokens_are_of_their_own_use() {
    let case = cognito_id();
    assert_eq!(strings(case.principal().roles()), ["clerks"]);
    case.refuses("token_use", json!("access"), "a claim has another value");
    case.refuses("token_use", Value::Null, "a claim that the profile expects is missing");
    case.refuses("aud", json!("other"), "token is for another audience");
}

fn keycloak() -> Case {
    let claims = json!({"jti": "trtcc:312ee6", "iss": "https://login.example.com/realms/shop", "typ": "Bearer",
        "aud": ["orders-api", "account"], "sub": "7ddaf89f-69eb-4ecf-a9ca-acba11121986", "azp": "web", "acr": "1",
        "nonce": "an old Keycloak puts it here too", "sid": "b2d4", "allowed-origins": ["/*"],
        "realm_access": {"roles": ["offline_access", "realm-admin"]}, "scope": "email profile",
        "resource_access": {"orders-api": {"roles": ["clerk"]}, "account": {"roles": ["manage-account"]},
            "billing.api": {"roles": ["manager"]}}});
    let provider = Provider::keycloak("https://login.example.com/realms/shop", "orders-api").unwrap();
    Case::new("keycloak", provider, JWT, claims)
}

#[test]
fn keycloak_roles_are_those_of_one_client() {
    let case = keycloak();
    let principal = case.principal();
    assert_eq!(strings(principal.roles()), ["clerk"]);
    for role in ["manage-account", "manager", "realm-admin"] {
        assert!(!principal.has_role(role), "{role} belongs to somebody else");
    }
    case.takes_header(AT_JWT);
    for typ in ["ID", "Refresh", "Offline", "Logout", "bearer", "dpop"] {
        case.refuses("typ", json!(typ), "a claim has another value");
    }
    case.refuses("typ", Value::Null, "a claim that the profile expects is missing");
    case.refuses("typ", json!("DPoP"), "the token says that it is bound to a key, and names none");
    case.refuses("azp", Value::Null, "azp is missing");
    case.refuses("iss", json!("https://login.example.com/realms/other"), "iss is missing or not known");
    case.refuses("iss", json!("http://login.example.com/realms/shop"), "iss is missing or not known");
    let roles = ["resource_access", "orders-api"];
    assert!(case.takes(roles, Value::Null).roles().is_empty());
    // A service account is a user of Keycloak's, and by its name alone nobody becomes a service.
    for claim in ["preferred_username", "client_id"] {
        assert_eq!(case.takes(claim, json!("service-account-web")).kind(), PrincipalKind::User);
    }
    assert!(case.takes("resource_access", Value::Null).roles().is_empty());
    case.refuses(roles, json!(["clerk"]), "the roles claim");
    case.refuses("resource_access", json!("orders-api"), "the roles claim");
    case.refuses(["resource_access", "orders-api", "roles"], json!("clerk"), "the roles claim");

    let provider = || Provider::keycloak("https://login.example.com/realms/shop", "orders-api").unwrap();
    let realm = provider().fixed(keys()).roles_claim(["realm_access", "roles"]);
    let realm = Case::of("realm roles", realm, JWT, case.but("x", json!(1)));
    assert_eq!(strings(realm.principal().roles()), ["offline_access", "realm-admin"]);
    let dotted = provider().fixed(keys()).roles_claim(["resource_access", "billing.api", "roles"]);
    assert_eq!(strings(Case::of("dots", dotted, JWT, case.but("x", json!(1))).principal().roles()), ["manager"]);
}

fn firebase() -> Case {
    let claims = json!({"iss": "https://securetoken.google.com/my-project", "aud": "my-project",
        "auth_time": 1_700_000_000, "user_id": "uid-1", "sub": "uid-1", "email": "a@example.com", "roles": ["clerk"],
        "firebase": {"identities": {"email": ["a@example.com"]}, "sign_in_provider": "password", "tenant": "acme-x1"}});
    Case::new("firebase", Provider::firebase("my-project").unwrap(), JWT, claims)
}

#[test]
fn firebase_is_bound_to_the_project() {
    let case = firebase();
    assert_eq!((case.principal().tenant(), case.principal().roles().len()), (None, 0));
    case.refuses("aud", json!("other-project"), "token is for another audience");
    case.refuses("iss", json!("https://securetoken.google.com/other-project"), "iss is missing or not known");
    case.refuses("iss", json!("https://session.firebase.google.com/my-project"), "iss is missing or not known");
    case.refuses("auth_time", json!(2_000_000_000), "auth_time is in the future");
    case.refuses("auth_time", json!("1700000000"), "auth_time is not a date");
    case.refuses("auth_time", Value::Null, "auth_time is missing");
    let own = Provider::firebase("my-project").unwrap().fixed(keys());
    let own = own.tenant_claim(["firebase", "tenant"]).roles_claim("roles");
    let own = Case::of("firebase tenants", own, JWT, case.but("x", json!(1)));
    assert_eq!((own.principal().tenant(), strings(own.principal().roles())), (Some("acme-x1"), vec!["clerk"]));
    own.refuses(["firebase", "tenant"], Value::Null, "the tenant claim is missing");
    own.refuses("firebase", json!("acme-x1"), "the tenant claim is not a string");
}

fn github() -> Case {
    let claims = json!({"jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
        "aud": "https://deploy.example.com", "ref": "refs/heads/main", "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org", "actor_id": "12", "repository_visibility": "private", "repository_id": "74",
        "repository_owner_id": "65", "run_id": "example-run-id", "runner_environment": "github-hosted",
        "iss": "https://token.actions.githubusercontent.com", "nbf": 1_700_000_000});
    let provider = Provider::github_actions("https://deploy.example.com", ["65", "66"]).unwrap();
    Case::new("github actions", provider, JWT, claims)
}

#[test]
fn github_actions_are_those_of_our_repositories() {
    let case = github();
    let principal = case.principal();
    assert_eq!((principal.kind(), principal.tenant()), (PrincipalKind::Service, Some("65")));
    case.refuses("repository_owner_id", json!("650"), "a claim has another value");
    case.refuses("repository_owner_id", json!(65), "a claim that the profile expects is not a string");
    case.refuses("repository_owner_id", Value::Null, "a claim that the profile expects is missing");
    case.refuses("repository_id", Value::Null, "a claim that the profile requires is missing");
    case.refuses("aud", json!("https://github.com/octo-org"), "token is for another audience");
    case.refuses("iss", json!("https://token.actions.githubusercontent.com/octo-org"), "iss is missing or not known");
    case.refuses_header(AT_JWT);
    let main = Provider::github_actions("https://deploy.example.com", ["65"]).unwrap().fixed(keys());
    let main = Case::of("main alone", main.claim_must_be("ref", ["refs/heads/main"]), JWT, case.but("x", json!(1)));
    main.principal();
    main.refuses("ref", json!("refs/pull/7/merge"), "a claim has another value");
}

fn kubernetes() -> Case {
    let claims = json!({"aud": ["orders", "https://kubernetes.default.svc"], "iss": "https://kubernetes.default.svc",
        "jti": "ea28ed49", "nbf": 1_700_000_000, "sub": "system:serviceaccount:shop:web",
        "kubernetes.io": {"namespace": "shop", "node": {"name": "n1"}, "pod": {"name": "web-0", "uid": "5e0bd49b"},
            "serviceaccount": {"name": "web", "uid": "14ee3fa4"}, "warnafter": 1_700_003_607}});
    Case::new("kubernetes", Provider::kubernetes("https://kubernetes.default.svc", "orders").unwrap(), NO_TYP, claims)
}

const AKS: &str =
    "https://eastus.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/1d6cc3f1-6b0e-4c3c-8f0e-9f0d0d6e4a11/";

fn aks() -> Case {
    let claims = kubernetes().but("iss", json!(AKS));
    Case::new("aks", Provider::kubernetes(AKS, "orders").unwrap(), NO_TYP, claims)
}

#[test]
fn the_slash_of_aks_is_a_part_of_its_name() {
    let case = aks();
    assert_eq!(case.principal().issuer(), AKS);
    case.refuses("iss", json!(AKS.trim_end_matches('/')), "iss is missing or not known");
    kubernetes().refuses("iss", json!("https://kubernetes.default.svc/"), "iss is missing or not known");
}

#[test]
fn kubernetes_namespaces_are_tenants() {
    let case = kubernetes();
    let principal = case.principal();
    assert_eq!((principal.kind(), principal.tenant()), (PrincipalKind::Service, Some("shop")));
    case.refuses("aud", json!(["https://kubernetes.default.svc"]), "token is for another audience");
    case.refuses("kubernetes.io", Value::Null, "a claim that the profile requires is missing");
    case.refuses(["kubernetes.io", "serviceaccount"], Value::Null, "a claim that the profile requires is missing");
    case.refuses(["kubernetes.io", "namespace"], Value::Null, "the tenant claim is missing");
    case.refuses(["kubernetes.io", "namespace"], json!(["shop"]), "the tenant claim is not a string");
    case.refuses("iss", json!("kubernetes/serviceaccount"), "iss is missing or not known");
}

fn gitlab() -> Case {
    let claims = json!({"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "ref": "feature-branch-1",
        "project_path": "my-group/my-project", "user_id": "1", "user_login": "sample-user", "pipeline_id": "574",
        "user_access_level": "developer", "job_id": "302", "ref_type": "branch", "ref_protected": "false",
        "runner_id": 1, "groups_direct": ["mygroup/mysubgroup"], "jti": "c82eeb0c", "iss": "https://gitlab.example.com",
        "nbf": 1_700_000_000, "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
        "aud": "https://vault.example.com"});
    let provider = Provider::gitlab_ci("https://gitlab.example.com", "https://vault.example.com", ["72"]).unwrap();
    Case::new("gitlab", provider, JWT, claims)
}

#[test]
fn gitlab_jobs_are_those_of_our_groups() {
    let case = gitlab();
    let principal = case.principal();
    assert_eq!((principal.kind(), principal.tenant()), (PrincipalKind::Service, Some("72")));
    case.refuses("namespace_id", json!("73"), "a claim has another value");
    case.refuses("namespace_id", Value::Null, "a claim that the profile expects is missing");
    case.refuses("project_id", Value::Null, "a claim that the profile requires is missing");
    case.refuses("aud", json!("https://gitlab.example.com"), "token is for another audience");
    case.refuses("iss", json!("https://gitlab.com"), "iss is missing or not known");
}

#[test]
fn what_a_provider_needs_is_checked() {
    let none: [&str; 0] = [];
    let rows: Vec<(&str, Result<Provider, ConfigError>)> = vec![
        ("client", Provider::google(none)),
        ("client", Provider::google(["a", ""])),
        ("tenant", Provider::entra(none, API)),
        ("tenant", Provider::entra(["common"], API)),
        ("tenant", Provider::entra(["example.com"], API)),
        ("tenant", Provider::entra([TENANT.to_uppercase()], API)),
        ("tenant", Provider::entra_v1([format!("{TENANT}/../x")], API)),
        ("audience", Provider::entra([TENANT], "")),
        ("domain", Provider::auth0("", "api")),
        ("domain", Provider::auth0("https://my-domain.auth0.com", "api")),
        ("domain", Provider::auth0("my-domain.auth0.com/", "api")),
        ("audience", Provider::auth0("my-domain.auth0.com", "")),
        ("/oauth2/", Provider::okta("https://shop.okta.com", "api")),
        ("slash", Provider::okta("https://shop.okta.com/oauth2/default/", "api")),
        ("https://", Provider::okta("shop.okta.com/oauth2/default", "api")),
        ("pool", Provider::cognito_access("example", ["a"])),
        ("pool", Provider::cognito_access("us-west-2_a/b", ["a"])),
        ("pool", Provider::cognito_id("evil.example/_a", ["a"])),
        ("client", Provider::cognito_id("us-west-2_a", none)),
        ("/realms/", Provider::keycloak("https://login.example.com", "a")),
        ("slash", Provider::keycloak("https://login.example.com/realms/shop/", "a")),
        ("plain", Provider::keycloak("https://u@login.example.com/realms/shop", "a")),
        ("client", Provider::keycloak("https://login.example.com/realms/shop", "")),
        ("project", Provider::firebase("")),
        ("project", Provider::firebase("a/b")),
        ("owner", Provider::github_actions("a", none)),
        ("octo-org", Provider::github_actions("a", ["octo-org"])),
        ("audience", Provider::github_actions("", ["65"])),
        ("issuer", Provider::kubernetes("kubernetes/serviceaccount", "a")),
        ("audience", Provider::kubernetes("https://kubernetes.default.svc", "")),
        ("instance", Provider::gitlab_ci("gitlab.com", "a", ["1"])),
        ("slash", Provider::gitlab_ci("https://gitlab.com/", "a", ["1"])),
        ("my-group", Provider::gitlab_ci("https://gitlab.com", "a", ["my-group"])),
    ];
    for (place, (part, built)) in rows.into_iter().enumerate() {
        let error = built.err().unwrap_or_else(|| panic!("row {place} is accepted")).to_string();
        assert!(error.contains(part), "row {place}: {error}");
    }
    // Other algorithms are a choice, and need a key.
    let other = Provider::firebase("a").unwrap().algorithms([Algorithm::ES256]).fixed(keys());
    let built = portcullis::jwt::JwtAuthenticator::builder().issuer(other).build();
    assert!(built.unwrap_err().to_string().contains("ES256"));
}
