//! 100 roles with 10 permissions each: a table of bits, a set by hand, and casbin, which tries its 1 000 rules in turn.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    hint::black_box,
};

use casbin::{CachedEnforcer, CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use portcullis::policy::Rbac;

use super::{allows, person, query, role, timed};
use crate::rounds::measure;

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

fn granted(role: usize) -> impl Iterator<Item = String> {
    (0..10).map(move |n| format!("things{role:02}:do{n}"))
}

fn document() -> String {
    let all: Vec<String> = (0..100).flat_map(granted).map(|name| format!("{name:?}")).collect();
    let mut text = format!("version = \"1\"\npermissions = [{}]\n", all.join(", "));
    for number in 0..100 {
        let grants: Vec<String> = granted(number).map(|name| format!("{name:?}")).collect();
        writeln!(text, "[roles.{}]\ngrants = [{}]", role(number), grants.join(", ")).expect("a text");
    }
    text
}

async fn enforcers() -> (Enforcer, CachedEnforcer) {
    let rules: Vec<Vec<String>> =
        (0..100).flat_map(|number| granted(number).map(move |action| vec![role(number), action])).collect();
    let model = || async { DefaultModel::from_str(MODEL).await.expect("a model") };
    let mut plain = Enforcer::new(model().await, MemoryAdapter::default()).await.expect("an enforcer");
    plain.add_policies(rules.clone()).await.expect("rules");
    let mut cached = CachedEnforcer::new(model().await, MemoryAdapter::default()).await.expect("an enforcer");
    cached.add_policies(rules).await.expect("rules");
    (plain, cached)
}

pub fn table() {
    let policy = Rbac::from_toml(&document()).expect("a policy");
    let principal = person(&role(50));
    let (held, other) = ("things50:do5", "things51:do5");
    let handle = policy.permission(held).expect("a permission");
    let sets: HashMap<String, HashSet<String>> =
        (0..100).map(|number| (role(number), granted(number).collect())).collect();
    let by_hand = |action: &str| {
        principal.roles().any(|role| sets.get(role).is_some_and(|permissions| permissions.contains(black_box(action))))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (plain, cached) = runtime.block_on(enforcers());
    let subject = role(50);
    measure(&[
        timed("by hand: HashMap of HashSets", || assert!(by_hand(held))),
        timed("Rbac, a permission that is held", || assert!(black_box(&handle).is_held_by(black_box(&principal)))),
        timed("Rbac, verdict by name", || assert!(allows(&policy, &query(&principal, held)))),
        timed("Rbac, verdict by name, denied", || assert!(!allows(&policy, &query(&principal, other)))),
        timed("casbin, allowed by rule 506 of 1 000", || {
            assert!(plain.enforce((subject.as_str(), black_box(held))).expect("an answer"));
        }),
        timed("casbin, denied", || {
            assert!(!plain.enforce((subject.as_str(), black_box(other))).expect("an answer"));
        }),
        timed("casbin, CachedEnforcer, hit", || {
            assert!(cached.enforce((subject.as_str(), black_box(held))).expect("an answer"));
        }),
    ])
    .print("roles, one decision", "by hand: HashMap of HashSets");
}
