//! A policy file. What is read is closed: nobody without a role may do anything, and nobody may do what it does not declare.

use portcullis::{
    Instants, Now, Principal, PrincipalKind,
    policy::{AccessQuery, Decision, PolicyBackend, Rbac},
};

const AT: Instants = Instants::new(1_800_000_000_000_000_000, 0);

/// Reads it, as TOML and as JSON, and asks it about all that it spells. True if it is a policy.
pub fn check(text: &str) -> bool {
    let read = [Rbac::from_toml(text), Rbac::from_json(text)];
    let policies: Vec<Rbac> = read
        .into_iter()
        .filter_map(|read| match read {
            Ok(policy) => Some(policy),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                None
            }
        })
        .collect();
    for policy in &policies {
        let roles = policy.roles();
        for role in &roles {
            assert!(text.contains(role.as_str()) || text.contains('\\'), "{role:?} stands nowhere");
        }
        let nobody = person(&[]);
        let stranger = person(&["no-such-role-anywhere"]);
        let boss = person(&roles.iter().map(String::as_str).collect::<Vec<_>>());
        let words = text.split(|c: char| c == '"' || c == '\'' || c.is_whitespace()).take(200);
        for action in words.chain(["no-such-permission:anywhere"]) {
            for somebody in [&nobody, &stranger] {
                assert_ne!(decide(policy, somebody, action), Decision::Allow, "{action:?} to nobody");
            }
            if policy.permission(action).is_err() {
                assert_ne!(decide(policy, &boss, action), Decision::Allow, "{action:?} is not declared");
            }
        }
    }
    !policies.is_empty()
}

fn person(roles: &[&str]) -> Principal {
    Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "test").roles(roles.to_vec()).build()
}

fn decide(policy: &Rbac, somebody: &Principal, action: &str) -> Decision {
    match policy.decide_now(&AccessQuery::new(somebody, action, AT)) {
        Now::Known(verdict) => verdict.decision(),
        Now::Wait => panic!("a policy in memory waits"),
    }
}
