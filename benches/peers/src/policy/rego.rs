//! 1 000 roles in data, looked up by name, against regorus alone: its interpreter, its compiled policies and its register machine.

use std::hint::black_box;

use portcullis::policy::{QueryParts, Rego};
use regorus::{CompiledPolicy, Engine, Value};
use serde_json::{Map, json};

use super::{allows, person, query, role, timed};
use crate::ratio::measure;

const POLICY: &str = "
package orders

default allow := false

allow if {
    some role in input.subject.roles
    data.grants[role][input.action]
}
";

pub const DECISION: &str = "data.orders.allow";

fn data() -> String {
    let grants: Map<_, _> = (0..1_000).map(|number| (role(number), json!({ "orders:read": true }))).collect();
    json!({ "grants": grants }).to_string()
}

pub fn policy() -> Rego {
    let builder = Rego::builder(DECISION).policy("orders.rego", POLICY).data("grants.json", data());
    builder.reads(QueryParts::ROLES).build().expect("a policy")
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine.add_policy("orders.rego".to_owned(), POLICY.to_owned()).expect("a policy");
    engine.add_data(Value::from_json_str(&data()).expect("data")).expect("data");
    engine
}

fn compiled() -> CompiledPolicy {
    engine().compile_with_entrypoint(&DECISION.into()).expect("a policy")
}

pub fn table() {
    let policy = policy();
    let principal = person(&role(500));
    let query = query(&principal, "orders:read");

    let input = || {
        let mut subject = Value::new_object();
        let map = subject.as_object_mut().expect("an object");
        map.insert("roles".into(), vec![Value::from(role(500))].into());
        let mut input = Value::new_object();
        let map = input.as_object_mut().expect("an object");
        map.insert("action".into(), "orders:read".into());
        map.insert("subject".into(), subject);
        input
    };
    let (ready, allow) = (input(), Value::Bool(true));
    let bare = std::cell::RefCell::new({
        let mut engine = engine();
        engine.compile_with_entrypoint(&DECISION.into()).expect("a policy");
        engine
    });
    let by_engine = |input: Value| {
        let mut engine = bare.borrow_mut();
        engine.set_input(input);
        assert_eq!(engine.eval_rule(DECISION.to_owned()).expect("a decision"), allow);
    };
    let compiled = compiled();
    let by_compiled = |input: Value| assert_eq!(compiled.eval_with_input(black_box(input)).expect("a decision"), allow);
    measure(&[
        timed("regorus Engine, input made before", || by_engine(black_box(&ready).clone())),
        timed("regorus Engine, input made for each", || by_engine(input())),
        timed("regorus CompiledPolicy, input made before", || by_compiled(black_box(&ready).clone())),
        timed("Rego", || assert!(allows(&policy, &query))),
    ])
    .print("Rego, one decision, indexed by role", "regorus Engine, input made before");
}
