//! What the guard leaves in the trail, and what the stack learns of a rule.

use std::time::Duration;

use async_trait::async_trait;
use http::Request;

use super::*;
use crate::{
    clock::Instants,
    guard::{Rule, all, any, authenticated, check, deny, not, policy, public, role, scope},
    policy::{AccessQuery, StepUp, Verdict},
    principal::{Principal, PrincipalKind},
    rejection::RejectionKind,
};

#[derive(Debug)]
struct Slow;

#[async_trait]
impl PolicyBackend for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        if query.action() == "masked at once" { Now::Known(Verdict::allow().obliging("mask")) } else { Now::Wait }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match query.action() {
            "masked" => Verdict::allow().by("rule 7").obliging("mask"),
            "strong" => Verdict::step_up(StepUp::max_age(Duration::from_secs(60))),
            action if query.route() == Some("/orders/{id}") => Verdict::allow().because(action.to_owned()),
            _ => Verdict::deny("no route"),
        }
    }
}

fn envelope(subject: Option<&str>) -> Envelope {
    let mut envelope = Envelope::new(Instants::new(0, 0));
    assert!(envelope.enter(Stage::Authentication).is_ok());
    envelope.subject = subject.map(|subject| {
        Principal::builder(PrincipalKind::User, "https://id.example.com", subject, "jwt").roles([subject]).build()
    });
    envelope.route = Some("/orders/{id}".into());
    envelope
}

/// Asks as the gate and the stack do, and tells each decision as `backend action decision`.
async fn trail_of(rule: impl Into<Rule>, subject: Option<&str>) -> (Result<(), RejectionKind>, Vec<String>) {
    let (rule, mut envelope) = (rule.into(), envelope(subject));
    let request = Request::get("/orders/1").body(()).unwrap();
    let head = RequestHead::of(&request);
    let answer = match rule.decide_now(&head, &mut envelope) {
        Now::Known(answer) => answer,
        Now::Wait => {
            assert!(envelope.trail.decisions.is_empty(), "what waits is recorded once, when it is answered");
            rule.decide(head, &mut envelope).await
        }
    };
    let told =
        envelope.trail.decisions.iter().map(|fact| {
            format!("{} {} {}", fact.backend, fact.action.as_deref().unwrap_or("-"), fact.decision().as_str())
        });
    (answer.map_err(|rejection| rejection.kind()), told.collect())
}

type Row<'a> = (&'a str, Rule, Result<(), RejectionKind>, &'a [&'a str]);

#[tokio::test]
async fn each_decision_is_recorded_once() {
    let clerk = || role("clerk").unwrap();
    let slow = |action: &str| require(policy(action).unwrap()).with_policy(Slow);
    let mixed = all((clerk(), policy("x").unwrap(), not(scope("s").unwrap())));
    let rows: Vec<Row<'_>> = vec![
        ("public", public(), Ok(()), &["public - allow"]),
        ("deny", deny(), Err(RejectionKind::Forbidden), &["deny - deny"]),
        ("identity", require(authenticated()).into(), Ok(()), &["authenticated - allow"]),
        ("role", require(clerk()).into(), Ok(()), &["role clerk allow"]),
        ("scope", require(scope("s").unwrap()).into(), Err(RejectionKind::InsufficientScope), &["scope s deny"]),
        ("check", require(check("c", |_, _| true)).into(), Ok(()), &["check c allow"]),
        (
            "not",
            require(not(clerk())).into(),
            Err(RejectionKind::Forbidden),
            &["role clerk allow", "guard not(role clerk) deny"],
        ),
        (
            "settled early",
            require(any((clerk(), policy("x").unwrap()))).with_policy(Slow).into(),
            Ok(()),
            &["role clerk allow", "guard any(role clerk, policy x) allow"],
        ),
        ("waits", slow("x").into(), Ok(()), &["slow x allow"]),
        (
            "waits amid others",
            require(mixed).with_policy(Slow).into(),
            Ok(()),
            &[
                "role clerk allow",
                "scope s deny",
                "slow x allow",
                "guard all(role clerk, policy x, not(scope s)) allow",
            ],
        ),
        (
            "what the rest settles is not asked",
            require(any((all((policy("masked").unwrap(), role("boss").unwrap())), policy("x").unwrap())))
                .with_policy(Slow)
                .into(),
            Ok(()),
            &["role boss deny", "slow x allow", "guard any(all(policy masked, role boss), policy x) allow"],
        ),
        (
            "nor what an answer settles with the rest",
            require(all((policy("strong").unwrap(), policy("masked").unwrap(), scope("s").unwrap())))
                .with_policy(Slow)
                .into(),
            Err(RejectionKind::Forbidden),
            &["scope s deny", "slow strong deny", "guard all(policy strong, policy masked, scope s) deny"],
        ),
        (
            "nor what comes behind that",
            require(any((policy("x").unwrap(), policy("masked at once").unwrap(), clerk(), authenticated())))
                .with_policy(Slow)
                .into(),
            Ok(()),
            &["role clerk allow", "guard any(policy x, policy masked at once, role clerk, authenticated) allow"],
        ),
        ("obligation", slow("masked").into(), Err(RejectionKind::Misconfigured), &["slow masked deny"]),
    ];
    for (name, rule, expected, facts) in rows {
        assert_eq!(
            trail_of(rule, Some("clerk")).await,
            (expected, facts.iter().map(ToString::to_string).collect()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn nobody_is_nobody_whatever_the_rule() {
    for (name, rule, expected) in [
        ("public", public(), Ok(())),
        ("deny", deny(), Err(RejectionKind::Unauthenticated)),
        ("not", require(not(authenticated())).into(), Err(RejectionKind::Unauthenticated)),
        ("a policy", require(policy("x").unwrap()).with_policy(Slow).into(), Err(RejectionKind::Unauthenticated)),
    ] {
        assert_eq!(trail_of(rule, None).await.0, expected, "{name}");
    }
}

#[test]
fn reasons_and_rules_reach_the_trail() {
    let mut envelope = envelope(Some("clerk"));
    let request = Request::get("/").body(()).unwrap();
    let guard = require(role("boss").unwrap());
    assert!(matches!(guard.decide_now(&RequestHead::of(&request), &mut envelope), Now::Known(Err(_))));
    assert_eq!(envelope.trail.decisions[0].verdict.reasons(), ["not held"]);
    assert!(envelope.trail.decisions[0].verdict.rules().is_empty());
}

#[cfg(feature = "rbac")]
#[test]
fn a_permission_is_recorded_without_copies() {
    let text = "version = \"1\"\npermissions = [\"p\"]\n[roles.clerk]\ngrants = [\"p\"]";
    let policy = crate::policy::Rbac::from_toml(text).unwrap();
    let permission = policy.permission("p").unwrap();
    let guard = require(&permission);
    let mut envelope = envelope(Some("clerk"));
    let request = Request::get("/").body(()).unwrap();
    assert!(matches!(guard.decide_now(&RequestHead::of(&request), &mut envelope), Now::Known(Ok(()))));
    let fact = &envelope.trail.decisions[0];
    assert!(Arc::ptr_eq(fact.action.as_ref().unwrap(), permission.shared_name()), "shared, not copied");
    assert_eq!(fact.verdict.rules(), [std::sync::Arc::from(r#"role "clerk""#)]);
    assert_eq!((fact.backend, fact.verdict.version().map(|version| &**version)), ("rbac", Some("1")));
}

#[cfg(feature = "rbac")]
#[test]
fn the_stack_finds_what_it_must_check() {
    let text = "version = \"1\"\npermissions = [\"p\", \"q\"]\n[roles.clerk]\ngrants = [\"p\", \"q\"]";
    let rbac = crate::policy::Rbac::from_toml(text).unwrap();
    let [p, q] = ["p", "q"].map(|name| rbac.permission(name).unwrap());
    let clerk = rbac.role("clerk").unwrap();
    let rule = Rule::from(require(all((p, not(any((q, &clerk)))))));
    assert_eq!(rule.permissions().iter().map(|permission| permission.name()).collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(rule.roles().iter().map(|role| role.name()).collect::<Vec<_>>(), ["clerk"]);
    assert!(rule.permissions().iter().all(|permission| permission.belongs_to(&rbac)));
    assert_eq!(rule.to_string(), "all(permission p, not(any(permission q, role clerk or one that inherits it)))");
    let asks = || require(any((authenticated(), policy("x").unwrap())));
    for (name, rule, needs_policy, needs_identity) in [
        ("public", public(), false, false),
        ("deny", deny(), false, false),
        ("handles", rule, false, true),
        ("asks", asks().into(), true, true),
        ("brings its own", asks().with_policy(rbac).into(), false, true),
    ] {
        assert_eq!((rule.needs_policy(), rule.needs_identity()), (needs_policy, needs_identity), "{name}");
    }
}
