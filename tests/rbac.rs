//! Role-based access control: what a policy grants, to whom, on what.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{collections::BTreeSet, fmt::Write as _, io::Write as _};

use portcullis::{
    Instants, Now, Principal, PrincipalKind,
    policy::{AccessQuery, Decision, PolicyBackend, Rbac, Resource, Verdict},
};
use proptest::prelude::*;

const ISSUER: &str = "https://id.example.com";

const SHOP: &str = r#"
    version = "2026-11-01"
    permissions = ["orders:list", "orders:read", "orders:cancel", "stock:count", "audit:read"]

    [roles.clerk]
    grants = ["orders:list"]
    grants_own = ["orders:read"]

    [roles.storekeeper]
    inherits = ["clerk"]
    grants = ["stock:count"]

    [roles.cashier]
    inherits = ["clerk"]
    grants = ["orders:read"]

    # Two ways to clerk.
    [roles.manager]
    inherits = ["storekeeper", "cashier"]
    grants = ["orders:cancel"]

    [roles.intern]
"#;

fn principal(roles: &[&str]) -> Principal {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").roles(roles.iter().copied()).build()
}

fn ask(policy: &Rbac, principal: &Principal, action: &str, resource: Option<&Resource>) -> Verdict {
    let mut query = AccessQuery::new(principal, action, Instants::new(0, 0));
    if let Some(resource) = resource {
        query = query.on(resource);
    }
    match policy.decide_now(&query) {
        Now::Known(verdict) => verdict,
        Now::Wait => panic!("rbac never waits"),
    }
}

fn allows(policy: &Rbac, roles: &[&str], action: &str) -> bool {
    ask(policy, &principal(roles), action, None).decision() == Decision::Allow
}

#[test]
fn who_may_do_what() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    for (name, roles, allowed) in [
        ("nobody's role", &[][..], &[][..]),
        ("a role without grants", &["intern"], &[]),
        ("an unknown role", &["root"], &[]),
        ("a role in another case", &["Manager"], &[]),
        ("a role with a space", &["manager "], &[]),
        ("a granted role", &["clerk"], &["orders:list"]),
        ("an inherited grant", &["storekeeper"], &["orders:list", "stock:count"]),
        ("a grant that widens an own one", &["cashier"], &["orders:list", "orders:read"]),
        ("a diamond", &["manager"], &["orders:cancel", "orders:list", "orders:read", "stock:count"]),
        ("two roles", &["cashier", "storekeeper"], &["orders:list", "orders:read", "stock:count"]),
        ("known beside unknown", &["root", "clerk"], &["orders:list"]),
    ] {
        let granted: Vec<String> =
            shop.permissions().into_iter().filter(|action| allows(&shop, roles, action)).collect();
        let granted: BTreeSet<&str> = granted.iter().map(String::as_str).collect();
        assert_eq!(granted, allowed.iter().copied().collect(), "{name}");
    }
}

#[test]
fn an_action_that_the_policy_does_not_know_is_denied() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    for action in ["", "orders", "orders:", "orders:*", "*", "Orders:list", "orders:list ", "orders:delete"] {
        assert!(!allows(&shop, &["manager"], action), "{action:?}");
    }
}

#[test]
fn the_verdict_names_the_rule() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    let verdict = ask(&shop, &principal(&["intern", "manager"]), "orders:list", None);
    assert_eq!(verdict.rules(), [std::sync::Arc::from(r#"role "manager""#)]);
    assert_eq!(verdict.version().unwrap().as_ref(), "2026-11-01");
    assert!(verdict.reasons().is_empty() && verdict.obligations().is_empty());
    let verdict = ask(&shop, &principal(&["intern"]), "orders:list", None);
    assert_eq!((verdict.rules(), verdict.version().unwrap().as_ref()), (&[][..], "2026-11-01"));
    assert_eq!(verdict.reasons(), ["no role grants it"]);
}

#[test]
fn owned_things() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    let clerk = principal(&["clerk"]);
    let order = || Resource::new("order", 42);
    for (name, resource, expected) in [
        ("no thing", None, Decision::Deny),
        ("nobody's", Some(order()), Decision::Deny),
        ("one's own", Some(order().owned_by(ISSUER, "alice")), Decision::Allow),
        ("somebody else's", Some(order().owned_by(ISSUER, "bob")), Decision::Deny),
        ("the same name at another issuer", Some(order().owned_by("https://evil.example", "alice")), Decision::Deny),
        ("an attribute called owner", Some(order().with("owner", "alice")), Decision::Deny),
    ] {
        assert_eq!(ask(&shop, &clerk, "orders:read", resource.as_ref()).decision(), expected, "{name}");
    }
    let own = order().owned_by(ISSUER, "alice");
    assert_eq!(ask(&shop, &clerk, "orders:cancel", Some(&own)).decision(), Decision::Deny, "not granted at all");
    let bobs = order().owned_by(ISSUER, "bob");
    assert_eq!(ask(&shop, &principal(&["cashier"]), "orders:read", Some(&bobs)).decision(), Decision::Allow);
}

#[test]
fn a_tenant_keeps_others_out_whatever_they_hold() {
    let shop = Rbac::from_toml(SHOP).unwrap().trust_credential_permissions();
    let member = |tenant: Option<&str>| {
        let builder = Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt")
            .roles(["manager"])
            .permissions(["audit:read"]);
        tenant.map_or(builder.clone(), |tenant| builder.tenant(tenant)).build()
    };
    let thing = |tenant: Option<&str>| {
        let own = Resource::new("order", 1).owned_by(ISSUER, "alice");
        tenant.map_or(own.clone(), |tenant| own.in_tenant(tenant))
    };
    let open = Rbac::from_toml(&format!("allow_tenantless = true\n{SHOP}")).unwrap().trust_credential_permissions();
    let (allow, deny) = (Decision::Allow, Decision::Deny);
    for (name, asking, owning, expected, tenantless) in [
        ("the same", Some("acme"), Some("acme"), allow, allow),
        ("another", Some("acme"), Some("globex"), deny, deny),
        ("another case", Some("acme"), Some("ACME"), deny, deny),
        ("the thing names none", Some("acme"), None, allow, allow),
        ("the principal has none", None, Some("acme"), deny, allow),
        ("the thing's is empty", None, Some(""), deny, allow),
        ("neither has one", None, None, allow, allow),
    ] {
        for action in ["orders:cancel", "orders:read", "audit:read"] {
            for (policy, expected) in [(&shop, expected), (&open, tenantless)] {
                let verdict = ask(policy, &member(asking), action, Some(&thing(owning)));
                assert_eq!((verdict.decision(), verdict.is_firm()), (expected, expected == deny), "{name}, {action}");
            }
        }
    }
    let verdict = ask(&shop, &member(None), "orders:read", Some(&thing(Some("acme"))));
    assert_eq!(verdict.reasons(), ["the principal has no tenant"]);
    assert!(ask(&shop, &member(None), "orders:read", None).is_allow(), "where no thing is named");
}

#[test]
fn who_has_no_tenant_is_let_in_by_the_document_alone() {
    let who = principal(&["clerk"]);
    let thing = Resource::new("order", 1).in_tenant("acme");
    let text = |said: &str| {
        format!(r#"{{{said} "version": "1", "permissions": ["read"], "roles": {{"clerk": {{"grants": ["read"]}}}}}}"#)
    };
    let policy = Rbac::from_json(&text("")).unwrap();
    for (said, expected) in [
        ("", Decision::Deny),
        (r#""allow_tenantless": true,"#, Decision::Allow),
        (r#""allow_tenantless": false,"#, Decision::Deny),
    ] {
        assert_eq!(
            ask(&Rbac::from_json(&text(said)).unwrap(), &who, "read", Some(&thing)).decision(),
            expected,
            "{said}"
        );
        policy.replace_with_json(&text(said)).unwrap();
        assert_eq!(ask(&policy, &who, "read", Some(&thing)).decision(), expected, "{said}, reloaded");
    }
    for bad in ["null", "1", r#""true""#] {
        assert!(Rbac::from_json(&text(&format!(r#""allow_tenantless": {bad},"#))).is_err(), "{bad}");
    }
}

#[test]
fn permissions_of_the_credential_count_only_by_choice() {
    let bearer = Principal::builder(PrincipalKind::Key, "keys", "k1", "api_key")
        .permissions(["audit:read", "admin:everything"])
        .build();
    let strict = Rbac::from_toml(SHOP).unwrap();
    assert_eq!(ask(&strict, &bearer, "audit:read", None).decision(), Decision::Deny);
    let trusting = strict.clone().trust_credential_permissions();
    let verdict = ask(&trusting, &bearer, "audit:read", None);
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!(verdict.rules(), [std::sync::Arc::from("permission of the credential")]);
    assert_eq!(ask(&trusting, &bearer, "admin:everything", None).decision(), Decision::Deny, "not in the list");
    assert_eq!(ask(&trusting, &bearer, "orders:list", None).decision(), Decision::Deny, "not carried");
    let early = strict.permission("audit:read").unwrap();
    assert!(early.belongs_to(&strict) && !early.belongs_to(&trusting));
}

#[test]
fn handles_are_checked_and_know_their_policy() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    let read = shop.permission("orders:read").unwrap();
    assert_eq!(read.name(), "orders:read");
    assert!(read.belongs_to(&shop.clone()));
    assert!(!read.belongs_to(&Rbac::from_toml(SHOP).unwrap()), "a policy that reads alike is another one");
    let error = shop.permission("order:raed").unwrap_err().to_string();
    assert_eq!(error, r#"permission: "order:raed" is not in policy "2026-11-01"; did you mean "orders:read"?"#);
    let error = shop.role("administrator").unwrap_err().to_string();
    assert_eq!(error, r#"role: "administrator" is not in policy "2026-11-01""#);
    let manager = shop.role("manager").unwrap();
    assert!(manager.belongs_to(&shop));
    assert_eq!(manager.permissions(), ["orders:list", "orders:read", "orders:cancel", "stock:count"]);
    assert_eq!(manager.permissions_own(), ["orders:read"]);
    assert_eq!(shop.roles(), ["cashier", "clerk", "intern", "manager", "storekeeper"]);
    assert_eq!(&*shop.version(), "2026-11-01");
}

#[test]
fn a_file_is_named_in_every_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SHOP.as_bytes()).unwrap();
    assert_eq!(Rbac::from_toml_file(file.path()).unwrap().roles().len(), 5);
    file.write_all(b"\n[roles.thief]\ninherits = [\"boss\"]\n").unwrap();
    let path = file.path().display().to_string();
    let error = Rbac::from_toml_file(file.path()).unwrap_err().to_string();
    let line = std::fs::read_to_string(file.path()).unwrap().lines().count();
    assert_eq!(error, format!("{path}: line {line}: roles.thief.inherits: \"boss\" is not a role of this policy"));
    file.write_all(b"inherit = []").unwrap();
    let error = Rbac::from_toml_file(file.path()).unwrap_err().to_string();
    let line = std::fs::read_to_string(file.path()).unwrap().lines().count();
    let expected = format!("{path}: line {line}: TOML is not a policy: unknown field `inherit`");
    assert!(error.starts_with(&expected), "{error}");
    let error = Rbac::from_toml_file("/does/not/exist.toml").unwrap_err();
    assert_eq!(error.to_string(), "policy file: /does/not/exist.toml cannot be read");
    assert!(std::error::Error::source(&error).is_some());
}

/// A chain of roles, each of which inherits the one before and grants one permission.
fn chain(len: usize) -> String {
    let mut text = "version = \"1\"\npermissions = [".to_owned();
    (0..len).for_each(|n| write!(text, "\"p{n}\", ").unwrap());
    text.push_str("]\n");
    for n in 0..len {
        let junior = n.checked_sub(1).map_or(String::new(), |junior| format!("\"r{junior}\""));
        write!(text, "[roles.r{n}]\ninherits = [{junior}]\ngrants = [\"p{n}\"]\n").unwrap();
    }
    text
}

#[test]
fn a_thousand_roles_in_one_chain() {
    let policy = Rbac::from_toml(&chain(1024)).unwrap();
    for (role, permission, expected) in [
        ("r1023", "p0", true),
        ("r1023", "p1023", true),
        ("r0", "p0", true),
        ("r0", "p1", false),
        ("r511", "p512", false),
    ] {
        assert_eq!(allows(&policy, &[role], permission), expected, "{role} {permission}");
    }
    assert_eq!(policy.role("r1023").unwrap().permissions().len(), 1024);
    // The longest chain that is allowed does not exhaust the stack either, and neither does a circle of that length.
    let longest = chain(4096);
    assert!(allows(&Rbac::from_toml(&longest).unwrap(), &["r4095"], "p0"));
    let circle = longest.replacen("inherits = []", "inherits = [\"r4095\"]", 1);
    assert!(Rbac::from_toml(&circle).unwrap_err().to_string().contains("in a circle"));
}

/// What a role has by definition: its own, and what those that it inherits have.
fn naive(inherits: &[Vec<usize>], grants: &[Vec<usize>], role: usize) -> BTreeSet<usize> {
    let inherited = inherits[role].iter().flat_map(|junior| naive(inherits, grants, *junior));
    grants[role].iter().copied().chain(inherited).collect()
}

const PERMISSIONS: usize = 70;

/// Up to ten roles, each inheriting only earlier ones, so that there is no circle.
fn hierarchies() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<Vec<usize>>)> {
    (1_usize..=10).prop_flat_map(|roles| {
        let inherits: Vec<_> =
            (0..roles).map(|role| proptest::collection::btree_set(0..role.max(1), 0..=role.min(3))).collect();
        let grants = proptest::collection::vec(proptest::collection::btree_set(0..PERMISSIONS, 0..5), roles);
        (inherits, grants).prop_map(|(inherits, grants)| {
            let list = |set: BTreeSet<usize>| set.into_iter().collect::<Vec<_>>();
            let inherits = inherits.into_iter().enumerate();
            let inherits = inherits.map(|(role, set)| set.into_iter().filter(|junior| *junior < role).collect());
            (inherits.collect(), grants.into_iter().map(list).collect())
        })
    })
}

proptest! {
    #[test]
    fn the_closure_is_what_naive_recursion_finds((inherits, grants) in hierarchies()) {
        let names = |prefix: &str, list: &[usize]| {
            list.iter().map(|n| format!("\"{prefix}{n}\"")).collect::<Vec<_>>().join(", ")
        };
        let all: Vec<usize> = (0..PERMISSIONS).collect();
        let mut text = format!("version = \"1\"\npermissions = [{}]\n", names("p", &all));
        // Written from the last to the first: the order in the document must not matter.
        for role in (0..inherits.len()).rev() {
            let (inherits, grants) = (names("r", &inherits[role]), names("p", &grants[role]));
            write!(text, "[roles.r{role}]\ninherits = [{inherits}]\ngrants = [{grants}]\n").unwrap();
        }
        let policy = Rbac::from_toml(&text).unwrap();
        for role in 0..inherits.len() {
            let expected = naive(&inherits, &grants, role);
            let name = format!("r{role}");
            for permission in 0..PERMISSIONS {
                prop_assert_eq!(
                    allows(&policy, &[&name], &format!("p{permission}")),
                    expected.contains(&permission),
                    "role {} permission {}", role, permission
                );
            }
        }
    }

    #[test]
    fn no_document_panics(text in "\\PC{0,200}") {
        let _ = Rbac::from_toml(&text);
    }

    #[test]
    fn no_list_of_roles_panics_or_is_granted(roles in proptest::collection::vec("\\PC{0,20}", 0..10)) {
        let shop = Rbac::from_toml(SHOP).unwrap();
        prop_assume!(roles.iter().all(|role| !shop.roles().contains(role)));
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        prop_assert!(shop.permissions().iter().all(|action| !allows(&shop, &roles, action)));
    }
}
