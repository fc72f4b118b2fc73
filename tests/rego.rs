//! Rego: what OPA documents, the input field by field, decision documents, limits, reload and attacks.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

use std::{fs, path::Path, time::Duration};

use portcullis::{
    Instants, Now, Principal, PrincipalBuilder, PrincipalKind,
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    guard::{from_path, policy, require},
    policy::{
        AccessQuery, Attributes, Decision, PolicyBackend, QueryParts, Rego, Reloaded, Resource, Verdict, explain,
    },
};
use serde_json::{Value, json};
use support::{NOW, on_route};

const ISSUER: &str = "https://id.example.com";

fn person(subject: &str) -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, subject, "jwt")
}

fn at() -> Instants {
    Instants::new(NOW * 1_000_000_000 + 7, 0)
}

fn rego(decision: &'static str, file: &str) -> Rego {
    Rego::builder(decision).policy_file(Path::new("tests/policies").join(file)).build().unwrap()
}

fn now(policy: &Rego, query: &AccessQuery<'_>) -> Verdict {
    match policy.decide_now(query) {
        Now::Known(verdict) => verdict,
        Now::Wait => panic!("Rego never waits"),
    }
}

fn decides(policy: &Rego, subject: &str, action: &str, kind: &'static str, id: &str) -> Decision {
    let (subject, thing) = (person(subject).build(), Resource::new(kind, id));
    now(policy, &AccessQuery::new(&subject, action, at()).on(&thing).with_route("GET", None)).decision()
}

#[test]
fn the_roles_of_the_opa_documentation() {
    let policy = rego("data.rbac.authz.allow", "rbac.rego");
    for (user, action, object, expected) in [
        ("alice", "read", "server123", Decision::Allow),
        ("alice", "write", "server123", Decision::Allow),
        ("bob", "read", "database456", Decision::Allow),
        ("bob", "read", "server123", Decision::Deny),
        ("carol", "read", "server123", Decision::Deny),
    ] {
        assert_eq!(decides(&policy, user, action, "server", object), expected, "{user} {action} {object}");
    }
}

/// In OPA an asterisk stops at a delimiter, whichever it is.
#[test]
fn a_glob_of_actions_matches_no_more_than_it_says() {
    let policy = |delimiters: &str, pattern: &str| {
        let text = format!("package t\nallow if glob.match({pattern:?}, {delimiters}, input.action)\n");
        Rego::builder("data.t.allow").policy("t.rego", text)
    };
    for (pattern, delimiters, action, expected) in [
        ("orders:*", r#"[":"]"#, "orders:read", Decision::Allow),
        ("orders:*", r#"[":"]"#, "orders:items:delete", Decision::Deny),
        ("orders:**", r#"[":"]"#, "orders:items:delete", Decision::Allow),
        ("orders:read", r#"[":"]"#, "orders/read", Decision::Deny),
        ("orders.*", "[]", "orders.items.delete", Decision::Deny),
        ("orders*", "null", "orders:items:delete", Decision::Allow),
        ("[", "[]", "orders:read", Decision::CannotDecide),
        ("orders:*", r#"["::"]"#, "orders:read", Decision::CannotDecide),
    ] {
        let policy = policy(delimiters, pattern).build().unwrap();
        assert_eq!(decides(&policy, "alice", action, "order", "1"), expected, "{pattern} {delimiters} {action}");
    }
    let lenient = policy("[]", "[").lenient_builtins().build().unwrap();
    assert_eq!(decides(&lenient, "alice", "orders:read", "order", "1"), Decision::Deny);
}

/// The interpreter would follow a function that calls itself until the process ends.
#[test]
fn what_calls_itself_is_refused() {
    for (name, text, place) in [
        ("a function", "f(x) := y if { y := f([x]) }\nallow if f(input)", "t.rego:2"),
        ("by its full name", "f(x) := data.t.f([x])\nallow if f(input)", "t.rego:2"),
        ("in brackets", "f(x) := data.t[\"f\"]([x])\nallow if f(input)", "t.rego:2"),
        ("by way of another", "allow if g(input)\nf(x) := [g(x)]\ng(x) := {f(y) | some y in x}", "t.rego:3"),
        ("by an import", "import data.t.f as again\nf(x) := again([x])\nallow if f(input)", "t.rego:3"),
        ("by an imported package", "import data.t\nf(x) := t.f([x])\nallow if f(input)", "t.rego:3"),
        ("in an else", "f(x) := 1 if { x == 1 } else := f(x)\nallow if f(input)", "t.rego:2"),
        ("where nobody calls it", "f(x) := f(x)\nallow if true", "t.rego:2"),
        ("rules", "allow if b\nb if allow", "t.rego"),
        ("by a with", "h(x) := x\nf(x) := y if { y := h(x) with h as f }\nallow if f(input.action) == 1", "t.rego:3"),
        (
            "by a with of full names",
            "h(x) := x\nf(x) := y if { y := h(x) with data.t.h as data.t.f }\nallow if f(input.action) == 1",
            "t.rego:3",
        ),
        (
            "by a with of somebody else",
            "g(x) := h(x)\nh(x) := x\nallow if g(input.action) == 1 with h as g",
            "t.rego:2",
        ),
        (
            "by a with of a built-in function",
            "g(x) := count(x)\nallow if g(input.action) == 1 with count as g",
            "t.rego:2",
        ),
        ("by a default", "default f(_) := f(1)\nf(x) := 7 if x == 12345\nallow if f(input.action) == 1", "t.rego:2"),
    ] {
        let refused = Rego::builder("data.t.allow").policy("t.rego", format!("package t\n{text}\n")).build();
        let error = refused.map(|_| ()).expect_err(name).to_string();
        assert!(error.contains(place), "{name}: {error}");
    }
    let sum = vec!["1"; 300].join(" +\n");
    for (name, text) in [
        ("the same name elsewhere", "f(x) := data.other.f(x)\nallow if f(1)"),
        ("twice", "g(x) := x\nf(x) := g(g(x))\nallow if f(1) == g(1)"),
        ("a built-in function", "count(x) := 1\nallow if count([1]) == 1"),
        ("a long sum", &format!("allow if {sum} == 300")),
        (
            "data in turns",
            "allow if true\nb if { true with data.a as data.b; true with data.b as data.a; true with input.a as input.a }",
        ),
        ("a function in place of another", "g(x) := 2\nf(x) := 1\nallow if f(1) == 2 with f as g"),
    ] {
        let policy = Rego::builder("data.t.allow").policy("t.rego", format!("package t\n{text}\n"));
        let policy = policy.policy("other.rego", "package other\nf(x) := x\n").build().expect(name);
        assert_eq!(decides(&policy, "alice", "read", "order", "1"), Decision::Allow, "{name}");
    }
}

/// The parser goes one step deeper for each, until the process ends: a file that is watched must not do that.
#[test]
fn what_is_nested_too_deeply_is_refused() {
    let nested =
        |open: &str, close: &str, times| format!("x := {}1{}\nallow if x", open.repeat(times), close.repeat(times));
    for (open, close) in [("[", "]"), ("{", "}"), ("- ", ""), ("-", ""), ("[-(", ")]")] {
        let refused = Rego::from_text("data.t.allow", format!("package t\n{}", nested(open, close, 100_000)));
        let error = refused.map(|_| ()).expect_err(open);
        assert!(error.to_string().contains("nested too deeply") && error.setting().ends_with(":2"), "{open}: {error}");
    }
    for (open, close, times) in [("[", "]", 15), ("(", ")", 30), ("{", "}", 15)] {
        let built = Rego::from_text("data.t.allow", format!("package t\n{}", nested(open, close, times)));
        assert!(built.is_ok(), "{open}: {built:?}");
    }
    let texts = format!(
        "package t\n# {open}\nx := \"{open}\\\"{open}\"\ny := `{open}\\`\nallow if {{ x != y }}",
        open = "[".repeat(150)
    );
    assert!(Rego::from_text("data.t.allow", texts).is_ok(), "brackets in texts and comments are none");
}

/// Of two members, OPA refuses both, and others take one.
#[test]
fn data_documents_have_each_member_once() {
    let text = "package t\nallow if not input.subject.id in data.banned";
    let twice = r#"{"banned": ["mallory"], "banned": []}"#;
    let built = Rego::builder("data.t.allow").policy("t.rego", text).data("d.json", twice).build();
    assert!(built.unwrap_err().to_string().contains("a member stands twice"));
}

#[test]
fn data_are_not_where_a_rule_is() {
    for (package, rule, data) in [
        ("a", "deny if true", r#"{"a": {"deny": false}}"#),
        ("a[\"b-c\"]", "deny if true", r#"{"a": {"b-c": {"deny": false}}}"#),
        ("a.b", "default deny := true", r#"{"a": {"b": {"deny": false}}}"#),
        ("a", "deny contains 1", r#"{"a": {"deny": []}}"#),
        ("a", "deny[x] := 1 if x := input.action", r#"{"a": {"deny": {}}}"#),
        ("a", "deny(x) if x", r#"{"a": {"deny": {}}}"#),
    ] {
        let policy = Rego::builder("data.t.allow").policy("t.rego", "package t\nallow if true");
        let policy = policy.policy("a.rego", format!("package {package}\n{rule}"));
        assert!(policy.data("d.json", r#"{"a": {"b": {"c": 1}}}"#).build().is_ok(), "{rule}");
        let policy = Rego::builder("data.t.allow").policy("t.rego", "package t\nallow if true");
        let built = policy.policy("a.rego", format!("package {package}\n{rule}")).data("d.json", data).build();
        assert!(built.unwrap_err().to_string().contains("is defined by a rule, too"), "{rule}");
    }
}

/// Built-in functions that panic at what a client says.
#[test]
fn a_question_that_panics_cannot_be_decided() {
    let text = "package t\nallow if object.subset(input.subject.roles, input.attributes.wanted)";
    let policy = Rego::from_text("data.t.allow", text).unwrap();
    let alice = person("alice").roles(["clerk"]).build();
    let ask = |wanted: Value| {
        let attributes = Attributes::new().with("wanted", wanted);
        now(&policy, &AccessQuery::new(&alice, "a", at()).with_attributes(&attributes))
    };
    for _ in 0..100 {
        assert_eq!(ask(json!([])).reasons()[0].to_string(), "data.t.allow: a built-in function panicked");
        assert_eq!(ask(json!(["clerk"])).decision(), Decision::Allow);
    }
}

/// A function that fails is left out then, with what its `with` replaced.
#[test]
fn lenient_policies_have_no_with() {
    let text = "package t\nallow if input.a == 1 with input.a as 1";
    let policy = || Rego::builder("data.t.allow").policy("t.rego", text);
    assert!(policy().build().is_ok());
    let error = policy().lenient_builtins().build().unwrap_err();
    assert_eq!((error.setting(), error.value()), ("t.rego:2", "with"));
}

#[test]
fn a_rule_is_not_where_a_package_is() {
    for (rule, other, is_good) in [
        ("x := {\"y\": 1}", "t.x", false),
        ("x := {\"y\": 1}", "t.x.z", false),
        ("x.z := 1", "t.x.z", false),
        ("default x := 1", "t.x", false),
        ("x contains 1", "t.x", false),
        ("x := 1", "t.xy", true),
        ("x := 1", "u.x", true),
        ("x.z := 1", "t.x.y", true),
    ] {
        let policy = Rego::builder("data.t.allow").policy("t.rego", format!("package t\nallow if true\n{rule}"));
        let built = policy.policy("o.rego", format!("package {other}\ny := 2")).build();
        assert_eq!(built.is_ok(), is_good, "{rule} {other}: {built:?}");
        assert!(built.err().is_none_or(|error| error.setting() == "t.rego:3"), "{rule} {other}");
    }
}

/// OPA refuses these; the interpreter takes a `not` around a loop for a loop around a `not`, so that whoever is one of two that are banned
/// is not banned.
#[test]
fn what_means_something_else_than_to_opa_is_refused() {
    for (name, text, place, value) in [
        ("a wildcard in a not", "allow if not data.banned[_] == input.subject.id", "t.rego:2", "_"),
        ("in a call", "allow if {\nnot startswith(input.subject.roles[_], \"adm\")\n}", "t.rego:3", "_"),
        ("in an object", "allow if not {\"a\": data.banned[_]} == 1", "t.rego:2", "_"),
        ("a variable", "allow if {\nsome i\nnot data.banned[i] == \"a\"\n}", "t.rego:4", "i"),
        ("in a with", "x if input.a\nallow if not x with input.a as data.banned[_]", "t.rego:3", "_"),
        ("in a comprehension", "allow if count([1 | not data.banned[_] == 1]) == 0", "t.rego:2", "_"),
        ("in one before the bar", "allow if count([[2 | not data.banned[_] == 2] | true]) == 0", "t.rego:2", "_"),
        ("in the value of a rule", "x := [1 | not data.banned[_] == 1]\nallow if x", "t.rego:2", "_"),
        ("in an every", "allow if every x in [1] { not data.banned[_] == x }", "t.rego:2", "_"),
        ("in an else", "allow if false else if not data.banned[_] == 1", "t.rego:2", "_"),
        ("bound in another body", "allow if { data.banned[i] }\nallow if { not data.banned[i] }", "t.rego:3", "i"),
        ("bound in a comprehension", "allow if { x := [1 | data.banned[i]]; not x[i] }", "t.rego:2", "i"),
        (
            "bound by a with",
            "x if true\nallow if { x with input.a as data.banned[i]; not data.banned[i] }",
            "t.rego:3",
            "i",
        ),
        (
            "a value that may be undefined before another",
            "x if input.u\nallow if not x with input.u as data.users[input.subject.id] with input.y as 1",
            "t.rego:3",
            "data.users[input.subject.id]",
        ),
        ("a rule", "u if false\nx if input.u\nallow if not x with input.u as u with input.y as 1", "t.rego:4", "u"),
        ("in an array", "allow if true with input.u as [input.y] with input.y as 1", "t.rego:2", "input.y"),
        // To OPA these deny what the input does not say; the interpreter would allow it.
        ("an index", "allow if not data.banned[input.subject.tenant]", "t.rego:2", "input.subject.tenant"),
        (
            "an index in an index",
            "allow if not data.banned[data.m[input.subject.id]]",
            "t.rego:2",
            "data.m[input.subject.id]",
        ),
        ("an argument", "f(x) if x == \"a\"\nallow if not f(input.subject.tenant)", "t.rego:3", "input.subject.tenant"),
        ("of a built-in function", "allow if not startswith(input.route, \"/a\")", "t.rego:2", "input.route"),
        ("an element", "allow if not input.subject.tenant in input.subject.roles", "t.rego:2", "input.subject.tenant"),
        ("a collection", "allow if not input.subject.id in data.nothing", "t.rego:2", "data.nothing"),
        ("a comparison", "allow if not input.attributes.n > 3", "t.rego:2", "input.attributes.n"),
        ("in a sum", "allow if not input.attributes.n + 1 == 3", "t.rego:2", "input.attributes.n"),
        ("a call in an equation", "f(x) := 1 if x == 1\nallow if not f(1) == 1", "t.rego:3", "f(1)"),
        (
            "an index in an equation",
            "allow if not data.banned[input.attributes.n] == 1",
            "t.rego:2",
            "input.attributes.n",
        ),
        (
            "a rule without a default",
            "who := \"a\" if input.method\nallow if not startswith(who, \"a\")",
            "t.rego:3",
            "who",
        ),
        ("a rule that reads", "who := input.method\nallow if not startswith(who, \"a\")", "t.rego:3", "who"),
        (
            "a field of a variable",
            "allow if { u := input.subject; not startswith(u.tenant, \"a\") }",
            "t.rego:2",
            "u.tenant",
        ),
        (
            "said under a with",
            "allow if { input.route with input.route as \"b\"; not startswith(input.route, \"/a\") }",
            "t.rego:2",
            "input.route",
        ),
        (
            "not said under a with",
            "allow if { input.route; not startswith(input.route, \"/a\") with input as {} }",
            "t.rego:2",
            "input.route",
        ),
        ("a name with a dot", "allow if not data[\"m.x\"] > 1", "t.rego:2", "data[\"m.x\"]"),
        (
            "another body",
            "allow if input.route\nallow if not startswith(input.route, \"/a\")",
            "t.rego:3",
            "input.route",
        ),
        ("an argument twice", "f(a, a) := true\nallow if f(1, 2)", "t.rego:2", "a"),
        ("in a pattern", "f([a, _], _, {\"x\": a}) := true\nallow if f(1, 2, 3)", "t.rego:2", "a"),
    ] {
        let refused = Rego::builder("data.t.allow").policy("t.rego", format!("package t\n{text}\n")).build();
        let error = refused.map(|_| ()).expect_err(name);
        assert_eq!((error.setting(), error.value()), (place, value), "{name}: {error}");
    }
    for (name, text) in [
        ("in", "allow if not input.subject.id in data.banned"),
        ("a rule of its own", "banned if data.banned[_] == input.subject.id\nallow if not banned"),
        ("bound before", "allow if { some i, who in data.banned; not data.banned[i] == \"b\"; who == \"a\" }"),
        ("bound after", "allow if { not data.banned[i] == \"b\"; data.banned[i] == \"a\" }"),
        ("an argument", "f(i) if not data.banned[i] == \"b\"\nallow if f(0)"),
        ("an every", "allow if every i, x in [1] { not data.banned[i] == x }"),
        ("around a comprehension", "allow if { x := \"c\"; not count([1 | data.banned[_] == x]) > 0 }"),
        ("a rule of another module", "allow if not other"),
        ("an import", "import data.banned as b\nallow if not b[0] == \"b\""),
        ("constants", "x if input.u\nallow if x with input.u as [1, \"a\", {2}] with input.y as input.subject"),
        (
            "a variable",
            "x if input.u\nallow if { u := input.subject; x with input.u as u with input.y as [y | some y in [1]] }",
        ),
        (
            "each body of its own",
            "x := 1 if { i := 3; not data.banned[i] } else := [1 | not data.banned[j]] if { j := 3 }\nallow if x == 1",
        ),
        ("what is always there", "allow if not input.subject.id in input.subject.roles"),
        ("a variable for it", "allow if { id := input.resource.id; not startswith(id, \"a\") }"),
        ("said before", "allow if { input.resource.id; not startswith(input.resource.id, \"a\") }"),
        (
            "a default",
            "default who := \"b\"\nwho := \"a\" if input.method == \"b\"\nallow if not startswith(who, \"a\")",
        ),
        ("a constant", "who := \"b\"\nallow if not startswith(who, \"a\")"),
        ("a set", "bad contains 1 if input.method == \"b\"\nallow if not 1 in bad"),
        ("an object", "bad[x] := 1 if { x := input.method; x == \"b\" }\nallow if not 1 in bad"),
        ("a look-up in an equation", "allow if not input.attributes.x == 1"),
        ("a look-up", "allow if not input.attributes.x.y"),
        ("a comprehension", "allow if not count([1 | input.attributes.x]) > 0"),
        ("nothing twice", "f(_, _) := true\nallow if f(1, 2)"),
    ] {
        let policy = Rego::builder("data.t.allow").policy("t.rego", format!("package t\n{text}\n"));
        let policy = policy.policy("u.rego", "package t\nother if false\n").data("d.json", r#"{"banned": ["a", "b"]}"#);
        assert_eq!(decides(&policy.build().expect(name), "alice", "read", "order", "1"), Decision::Allow, "{name}");
    }
}

#[test]
fn the_attributes_of_the_opa_documentation() {
    let policy = rego("data.abac.allow", "abac.rego");
    let buys = |user: &str, ticker: &str, amount: Value| {
        let (user, stock) = (person(user).build(), Resource::new("stock", ticker));
        let attributes = Attributes::new().with("amount", amount);
        now(&policy, &AccessQuery::new(&user, "buy", at()).on(&stock).with_attributes(&attributes)).decision()
    };
    assert_eq!(buys("alice", "MSFT", 1_000_000.into()), Decision::Allow);
    assert_eq!(buys("alice", "AMZN", 4_900_000.into()), Decision::Allow);
    assert_eq!(buys("alice", "AMZN", 5_100_000.into()), Decision::Deny);
    assert_eq!(buys("carol", "MSFT", 3_000_000.into()), Decision::Deny);
    assert_eq!(buys("bob", "MSFT", 1.into()), Decision::Deny);
    assert_eq!(buys("alice", "NONE", 1.into()), Decision::Deny);
}

#[test]
fn the_salaries_of_the_opa_tutorial_and_its_new_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (base, hr, data) = (dir.path().join("base.rego"), dir.path().join("hr.rego"), dir.path().join("hr.json"));
    fs::copy("tests/policies/salaries.rego", &base).unwrap();
    fs::write(&hr, "package httpapi.authz\n").unwrap();
    fs::write(&data, "{}").unwrap();
    let policy =
        Rego::builder("data.httpapi.authz.allow").policy_file(base).policy_file(&hr).data_file(&data).build().unwrap();
    let sees = |who: &str, whose: &str| decides(&policy, who, "salary:read", "salary", whose);
    assert_eq!(sees("alice", "alice"), Decision::Allow);
    assert_eq!(sees("bob", "alice"), Decision::Allow);
    assert_eq!(sees("bob", "charlie"), Decision::Deny);
    assert_eq!(sees("david", "alice"), Decision::Deny);
    let before = policy.version();

    fs::copy("tests/policies/salaries_hr.rego", &hr).unwrap();
    fs::write(&data, r#"{"hr": ["david"]}"#).unwrap();
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    for whose in ["alice", "bob", "charlie", "david"] {
        assert_eq!(sees("david", whose), Decision::Allow, "{whose}");
    }
    assert_eq!(sees("bob", "charlie"), Decision::Deny);
    assert_eq!(policy.generation(), Some(1));
    assert_ne!(policy.version(), before);
}

/// A policy whose reasons are its whole input.
fn mirror(parts: QueryParts) -> Rego {
    let text = "package m\ndecision := {\"allow\": true, \"reasons\": [json.marshal(input)]}\n";
    Rego::builder("data.m.decision").policy("m.rego", text).reads(parts).build().unwrap()
}

fn seen(policy: &Rego, query: &AccessQuery<'_>) -> Value {
    let verdict = now(policy, query);
    assert!(verdict.is_allow(), "{verdict:?}");
    serde_json::from_str(&verdict.reasons()[0]).unwrap()
}

#[test]
fn the_input_field_by_field() {
    let alice = person("alice")
        .roles(["clerk", "boss"])
        .scopes(["orders"])
        .permissions(["orders:read"])
        .tenant("acme")
        .plan("gold")
        .acr("high")
        .methods(["pwd", "otp"])
        .auth_time(NOW - 60)
        .expires_at(NOW + 60)
        .claims(r#"{"sub": "alice", "email": "alice@example.com"}"#)
        .build();
    let app = Principal::builder(PrincipalKind::Service, "https://apps.example", "shop", "api_key").build();
    let order = Resource::new("order", 42).owned_by(ISSUER, "alice").in_tenant("acme").with("status", "open");
    let attributes = Attributes::new().with("ticket", "T-7");
    let query = AccessQuery::new(&alice, "orders:read", at())
        .with_client(Some(&app))
        .on(&order)
        .with_attributes(&attributes)
        .with_route("GET", Some("/orders/{id}"))
        .with_address(Some("192.0.2.7".parse().unwrap()));
    let whole = json!({
        "action": "orders:read",
        "subject": {
            "issuer": ISSUER, "id": "alice", "kind": "user", "credential": "jwt",
            "roles": ["clerk", "boss"], "scopes": ["orders"], "permissions": ["orders:read"],
            "tenant": "acme", "plan": "gold", "acr": "high", "amr": ["pwd", "otp"],
            "auth_time": NOW - 60, "expires_at": NOW + 60,
            "claims": { "sub": "alice", "email": "alice@example.com" },
        },
        "client": {
            "issuer": "https://apps.example", "id": "shop", "kind": "service", "credential": "api_key",
            "roles": [], "scopes": [], "permissions": [], "amr": [],
        },
        "resource": {
            "type": "order", "id": "42", "owner": { "issuer": ISSUER, "id": "alice" }, "tenant": "acme",
            "attributes": { "status": "open" },
        },
        "attributes": { "ticket": "T-7" },
        "method": "GET", "route": "/orders/{id}", "address": "192.0.2.7",
        "time": NOW, "time_ns": NOW * 1_000_000_000 + 7,
    });
    assert_eq!(seen(&mirror(QueryParts::ALL), &query), whole);
    // What a policy does not read is not there.
    assert_eq!(seen(&mirror(QueryParts::NONE), &query), json!({ "action": "orders:read", "subject": {} }));
    let roles = QueryParts::ROLES.and(QueryParts::RESOURCE);
    assert_eq!(mirror(roles).parts(), roles);
    let some = seen(&mirror(roles), &query);
    assert_eq!(some["subject"], json!({ "roles": ["clerk", "boss"] }));
    assert_eq!(some["resource"], json!({ "type": "order", "id": "42" }));

    let nobody = person("bob").build();
    let least = seen(&mirror(QueryParts::ALL), &AccessQuery::new(&nobody, "x", at()));
    let fields: Vec<_> = least.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["action", "subject", "time", "time_ns"], "what is not known is undefined");
}

#[test]
fn what_is_undefined_denies_and_what_fails_cannot_decide() {
    let of = |body: &str| {
        let text = format!("package t\n{body}\n");
        let policy = Rego::builder("data.t.allow").policy("t.rego", text).build().unwrap();
        let alice = person("alice").build();
        let attributes = Attributes::new().with("n", 0).with("address", "no address");
        now(&policy, &AccessQuery::new(&alice, "a", at()).with_attributes(&attributes))
    };
    assert_eq!(of("allow if input.nothing").decision(), Decision::Deny);
    assert_eq!(of("allow := 1").decision(), Decision::Deny);
    assert_eq!(of("allow := \"true\"").decision(), Decision::Deny);
    assert_eq!(of("allow := {\"allow\": \"yes\"}").decision(), Decision::Deny);
    assert_eq!(of("allow if input.subject.id == \"alice\"").decision(), Decision::Allow);
    for failing in [
        // Two values at once.
        "allow := true if input.action == \"a\"\nallow := false if input.subject.id == \"alice\"",
        // A division by zero, and behind `not`, where undefined would allow.
        "allow if 1 / input.attributes.n > 0",
        "deny := 1 if input.action == \"a\"\ndeny := 2 if input.subject.id == \"alice\"\nallow if not deny",
        "allow if { address := input.attributes.address; not net.cidr_contains(\"10.0.0.0/8\", address) }",
    ] {
        let verdict = of(failing);
        assert_eq!(verdict.decision(), Decision::CannotDecide, "{failing}: {verdict:?}");
        assert!(verdict.reasons()[0].starts_with("data.t.allow: "), "{verdict:?}");
    }
}

/// The engine keeps what `with` said in a question that failed; the next one must not be answered by it.
#[test]
fn a_question_that_fails_leaves_nothing_behind() {
    let text = r#"
        package t

        default allow := false

        allow if data.settings.open with input.time as 1

        allow if {
            numbers.range(1, to_number(input.resource.id))[_] > 100 with data.settings as {"open": true}
        }
    "#;
    let closed = r#"{"settings": {"open": false}}"#;
    let policy = Rego::builder("data.t.allow").policy("t.rego", text).data("data.json", closed).build().unwrap();
    for _ in 0..64 {
        assert_eq!(decides(&policy, "alice", "read", "order", "7"), Decision::Deny);
        assert_eq!(decides(&policy, "mallory", "read", "order", "seven"), Decision::CannotDecide);
        assert_eq!(decides(&policy, "mallory", "read", "order", "7"), Decision::Deny);
    }
}

#[test]
fn an_evaluation_is_bounded() {
    let endless = "package t\nallow if count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a + b == 0]) == 0\n";
    let alice = person("alice").build();
    let query = AccessQuery::new(&alice, "a", at());
    let short =
        Rego::builder("data.t.allow").policy("t.rego", endless).max_time(Duration::from_millis(1)).build().unwrap();
    // An engine that was stopped answers the next question.
    assert_eq!(now(&short, &query).decision(), Decision::CannotDecide);
    let verdict = now(&short, &query);
    assert_eq!(verdict.decision(), Decision::CannotDecide);
    assert!(verdict.reasons()[0].contains("time"), "{verdict:?}");
}

#[test]
fn bad_documents_are_refused_with_file_line_and_reason() {
    let good = "package t\ndefault allow := false\n";
    let refused = |decision: &'static str, policy: &str, data: &str| {
        let built = Rego::builder(decision).policy("t.rego", policy).data("data.json", data).build();
        built.expect_err(policy).to_string()
    };
    for (decision, policy, data, parts) in [
        ("data.t.allow", "package t\nallow if {\n  input.x ==\n}\n", "{}", &["t.rego:4:"][..]),
        ("data.t.allow", "package t\nallow if undefined_var\n", "{}", &["t.rego:2:", "undefined_var"]),
        ("data.t.allow", "package t\nallow if no.such_function(1)\n", "{}", &["t.rego:2:", "no.such_function"]),
        ("data.t.deny", good, "{}", &["data.t.deny"]),
        ("t.allow", good, "{}", &["\"t.allow\" must be the path of a rule"]),
        ("data.t.allow", good, "{\n\"a\": }", &["data.json:2"]),
        ("data.t.allow", good, "[1]", &["data.json", "object"]),
        ("data.t.allow", good, r#"{"t": {"allow": true}}"#, &["allow"]),
    ] {
        let error = refused(decision, policy, data);
        assert!(parts.iter().all(|part| error.contains(part)), "{policy:?}: {error}");
    }
    // As a file is that is being written: what it would add must not just be missing.
    for empty in ["", "\n", "# package t\n"] {
        let two = Rego::builder("data.t.allow").policy("t.rego", good).policy("denials.rego", empty).build();
        assert!(two.is_err_and(|error| error.to_string().contains("denials.rego")), "{empty:?}");
        let data = Rego::builder("data.t.allow").policy("t.rego", good).data("barred.json", empty).build();
        assert!(data.is_err_and(|error| error.to_string().contains("barred.json")), "{empty:?}");
    }
}

#[test]
fn a_bad_newer_policy_never_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("t.rego"), dir.path().join("data.json"));
    let text = "package t\nallow if input.subject.id in data.users\n";
    fs::write(&file, text).unwrap();
    fs::write(&data, r#"{"users": ["alice"]}"#).unwrap();
    let policy = Rego::builder("data.t.allow").policy_file(&file).data_file(&data).build().unwrap();
    let allowed = |who: &str| decides(&policy, who, "a", "t", "1") == Decision::Allow;
    assert!(allowed("alice") && !allowed("bob"));
    fs::write(&file, "package t\nallow if {\n").unwrap();
    assert!(policy.reload().unwrap_err().to_string().contains("t.rego:"));
    fs::write(&file, text).unwrap();
    fs::write(&data, "{\"users\": [\"bob\"]").unwrap();
    assert!(policy.reload().unwrap_err().to_string().contains("data.json:1"));
    let state = policy.reload_state().unwrap();
    assert_eq!((state.reloads(), state.failures()), (0, 2));
    assert!(state.failing().unwrap().contains("data.json:1"));
    assert!(allowed("alice") && !allowed("bob"), "the policy that ran stays");
    fs::write(&data, "{\"users\": [\"bob\"]}").unwrap();
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    assert!(!allowed("alice") && allowed("bob"));
    assert!(Rego::from_text("data.t.allow", text).unwrap().reload().is_err());
}

#[test]
fn what_clients_send_is_only_ever_a_value() {
    let policy = rego("data.httpapi.authz.allow", "salaries.rego");
    let long = "a".repeat(1 << 20);
    for id in
        ["alice\" or true", "alice\n", "alice\0", "{\"id\":\"alice\"}", "", "data.httpapi", "ALICE", long.as_str()]
    {
        assert_eq!(decides(&policy, "bob", "salary:read", "salary", id), Decision::Deny, "{id:.40}");
        assert_eq!(decides(&policy, id, "salary:read", "salary", "alice"), Decision::Deny, "{id:.40}");
    }
    // An attribute of another type is not what the rule compares with.
    let policy = rego("data.abac.allow", "abac.rego");
    let (alice, stock) = (person("alice").build(), Resource::new("stock", "MSFT"));
    for amount in [json!("1"), json!([1]), json!({ "a": 1 })] {
        let attributes = Attributes::new().with("amount", amount.clone());
        let verdict = now(&policy, &AccessQuery::new(&alice, "buy", at()).on(&stock).with_attributes(&attributes));
        assert_eq!(verdict.decision(), Decision::Deny, "{amount}: strings, arrays and objects order after numbers");
    }
    let broken = person("alice").claims("{").build();
    let verdict = now(&policy, &AccessQuery::new(&broken, "buy", at()).on(&stock));
    assert_eq!(verdict.decision(), Decision::CannotDecide);
}

#[test]
fn many_threads_ask_one_policy() {
    let policy = rego("data.rbac.authz.allow", "rbac.rego");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(decides(&policy, "alice", "write", "server", "server123"), Decision::Allow);
                    assert_eq!(decides(&policy, "bob", "write", "server", "server123"), Decision::Deny);
                }
            });
        }
    });
}

#[tokio::test]
async fn rego_conforms() {
    let text = "package t\ndefault allow := false\nallow if {\n  input.action == \"orders:read\"\n  \"clerk\" in input.subject.roles\n}\n\
                allow if {\n  input.action == \"broken\"\n  1 / count(input.subject.scopes) > 0\n}\n";
    let clerk = person("alice").roles(["clerk"]).build();
    let question = |action: &str| PolicyQuestion::new(clerk.clone(), action);
    let fixture =
        || PolicyFixture::new(question("orders:read"), question("orders:cancel")).undecidable(question("broken"));
    let all = Rego::from_text("data.t.allow", text).unwrap();
    policy_backend(&all, fixture()).await;
    let read = QueryParts::ROLES.and(QueryParts::SCOPES);
    let some = Rego::builder("data.t.allow").policy("t.rego", text).reads(read).build().unwrap();
    policy_backend(&some, fixture()).await;
    let query = AccessQuery::new(&clerk, "orders:read", at());
    let told = explain(&all, &query).await.to_string();
    assert!(told.contains("rego: allow, by data.t.allow") && told.contains("data.t.allow is true"), "{told}");
}

#[tokio::test]
async fn rego_guards_a_route() {
    let guarded = |who: &'static str, path: &'static str| async move {
        let guard = require(policy("salary:read").unwrap())
            .on(from_path("salary", "{user}").unwrap())
            .with_policy(rego("data.httpapi.authz.allow", "salaries.rego"));
        on_route("/salaries/{user}", guard, person(who), path).await
    };
    assert_eq!(guarded("alice", "/salaries/alice").await, 200);
    assert_eq!(guarded("bob", "/salaries/alice").await, 200);
    assert_eq!(guarded("bob", "/salaries/charlie").await, 403);
    assert_eq!(guarded("bob", "/salaries/alice%22%20or%20true").await, 403);
}
