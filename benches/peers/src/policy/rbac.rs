//! Roles with three permissions each: a table of bits, a set by hand, and casbin, which tries its rules in turn.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    hint::black_box,
};

use casbin::{CachedEnforcer, CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use portcullis::policy::Rbac;

use super::{allows, person, query, role, timed};
use crate::ratio::measure;

const MODEL: &str = "
[request_definition]
r = sub, act
[policy_definition]
p = sub, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.act == p.act
";
const BY_HAND: &str = "by hand: HashMap of HashSets";

fn granted(role: usize) -> impl Iterator<Item = String> {
    (0..3).map(move |n| format!("things{role:04}:do{n}"))
}

fn policy(roles: usize) -> Rbac {
    let all: Vec<String> = (0..roles).flat_map(granted).map(|name| format!("{name:?}")).collect();
    let mut text = format!("version = \"1\"\npermissions = [{}]\n", all.join(", "));
    for number in 0..roles {
        let grants: Vec<String> = granted(number).map(|name| format!("{name:?}")).collect();
        writeln!(text, "[roles.{}]\ngrants = [{}]", role(number), grants.join(", ")).expect("a text");
    }
    Rbac::from_toml(&text).expect("a policy")
}

async fn enforcers(roles: usize) -> (Enforcer, CachedEnforcer) {
    let rules: Vec<Vec<String>> =
        (0..roles).flat_map(|number| granted(number).map(move |action| vec![role(number), action])).collect();
    let model = async || DefaultModel::from_str(MODEL).await.expect("a model");
    let mut plain = Enforcer::new(model().await, MemoryAdapter::default()).await.expect("an enforcer");
    plain.add_policies(rules.clone()).await.expect("rules");
    let mut cached = CachedEnforcer::new(model().await, MemoryAdapter::default()).await.expect("an enforcer");
    cached.add_policies(rules).await.expect("rules");
    (plain, cached)
}

pub fn table() {
    for roles in [10, 100, 1_000] {
        against_casbin(roles);
    }
    many_roles();
}

/// The person has the role in the middle.
fn against_casbin(roles: usize) {
    let policy = policy(roles);
    let subject = role(roles / 2);
    let principal = person(&subject);
    let (held, other) = (format!("things{:04}:do1", roles / 2), format!("things{:04}:do1", roles / 2 + 1));
    let (held, other) = (held.as_str(), other.as_str());
    let handle = policy.permission(held).expect("a permission");
    let sets: HashMap<String, HashSet<String>> =
        (0..roles).map(|number| (role(number), granted(number).collect())).collect();
    let by_hand = |action: &str| {
        principal.roles().any(|role| sets.get(role).is_some_and(|permissions| permissions.contains(black_box(action))))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (plain, cached) = runtime.block_on(enforcers(roles));
    assert!(by_hand(held) && !by_hand(other));
    let asked =
        |enforcer: &Enforcer, action: &str| enforcer.enforce((subject.as_str(), black_box(action))).expect("an answer");
    measure(&[
        timed(BY_HAND, || assert!(by_hand(held))),
        timed("Rbac, a permission that is held", || assert!(black_box(&handle).is_held_by(black_box(&principal)))),
        timed("Rbac, verdict by name", || assert!(allows(&policy, &query(&principal, held)))),
        timed("Rbac, verdict by name, denied", || assert!(!allows(&policy, &query(&principal, other)))),
        timed("casbin, allowed by a rule in the middle", || assert!(asked(&plain, held))),
        timed("casbin, denied", || assert!(!asked(&plain, other))),
        timed("casbin, CachedEnforcer, hit", || {
            assert!(cached.enforce((subject.as_str(), black_box(held))).expect("an answer"));
        }),
    ])
    .print(&format!("{roles} roles, one decision"), BY_HAND);
}

/// The same decision, whatever else the policy has.
fn many_roles() {
    let (few, many) = (policy(64), policy(1_024));
    let (one, other) = (person(&role(32)), person(&role(32)));
    let held = "things0032:do1";
    let (in_few, in_many) = (few.permission(held).expect("held"), many.permission(held).expect("held"));
    measure(&[
        timed("64 roles, a permission that is held", || assert!(black_box(&in_few).is_held_by(black_box(&one)))),
        timed("1 024 roles, a permission that is held", || assert!(black_box(&in_many).is_held_by(black_box(&other)))),
        timed("64 roles, verdict by name", || assert!(allows(&few, &query(&one, held)))),
        timed("1 024 roles, verdict by name", || assert!(allows(&many, &query(&other, held)))),
    ])
    .print("Rbac, few roles and many", "64 roles, a permission that is held");
}
