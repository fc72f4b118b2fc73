//! Whatever a requirement is put together from, it means what three-valued logic says, at once and after waiting.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use async_trait::async_trait;
use portcullis::{
    Challenge, Now, Principal, PrincipalKind,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    guard::{Requirement, check, not, policy, predicate, require, role, scope},
    policy::{AccessQuery, Decision, PolicyBackend, Verdict},
};
use proptest::prelude::*;
use support::{Probe, get, send};
use tower::Layer;

/// A requirement as data, so that it can be worked out in a second way.
#[derive(Clone, Debug)]
enum Expr {
    /// A policy's answer.
    Policy(Decision),
    /// A policy's denial that does not tell whether it holds.
    Firm,
    Role(bool),
    Check(bool),
    /// A condition over the whole question, which may not know either.
    Predicate(Decision),
    Scope(bool),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

const fn known(held: bool) -> Decision {
    if held { Decision::Allow } else { Decision::Deny }
}

impl Expr {
    fn requirement(&self) -> Requirement {
        match self {
            Self::Policy(decision) => policy(decision.as_str()).unwrap(),
            Self::Firm => policy("firm").unwrap(),
            Self::Role(held) => role(if *held { "held" } else { "missing" }).unwrap(),
            Self::Scope(held) => scope(if *held { "held" } else { "missing" }).unwrap(),
            Self::Check(held) => {
                let held = *held;
                check("constant", move |_, _| held)
            }
            Self::Predicate(decision) => {
                let decision = *decision;
                predicate("constant", move |_| decision)
            }
            Self::All(parts) => Requirement::all_of(parts.iter().map(Self::requirement)).unwrap(),
            Self::Any(parts) => Requirement::any_of(parts.iter().map(Self::requirement)).unwrap(),
            Self::Not(part) => not(part.requirement()),
        }
    }

    /// What it says if each firm denial is what is worst for who asks: `negated` tells that this would be an allow.
    fn decision(&self, negated: bool) -> Decision {
        match self {
            Self::Firm => known(negated),
            Self::Policy(decision) | Self::Predicate(decision) => *decision,
            Self::Role(held) | Self::Check(held) | Self::Scope(held) => known(*held),
            Self::All(parts) => parts.iter().map(|part| part.decision(negated)).fold(Decision::Allow, Decision::and),
            Self::Any(parts) => parts.iter().map(|part| part.decision(negated)).fold(Decision::Deny, Decision::or),
            Self::Not(part) => part.decision(!negated).negate(),
        }
    }
}

/// A condition that tells whether it holds, or that it does not know.
fn condition() -> BoxedStrategy<Expr> {
    let decision = || prop_oneof![Just(Decision::Allow), Just(Decision::Deny), Just(Decision::CannotDecide)];
    prop_oneof![
        decision().prop_map(Expr::Policy),
        decision().prop_map(Expr::Predicate),
        any::<bool>().prop_map(Expr::Role),
        any::<bool>().prop_map(Expr::Check),
        any::<bool>().prop_map(Expr::Scope),
    ]
    .boxed()
}

fn put_together(leaf: BoxedStrategy<Expr>) -> impl Strategy<Value = Expr> {
    leaf.prop_recursive(4, 24, 4, |inner| {
        let parts = proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts.clone().prop_map(Expr::All),
            parts.prop_map(Expr::Any),
            inner.prop_map(|part| Expr::Not(Box::new(part))),
        ]
    })
}

/// Decides what its action is called.
#[derive(Debug)]
struct Named {
    waits: bool,
}

impl Named {
    fn answer(query: &AccessQuery<'_>) -> Verdict {
        match query.action() {
            "allow" => Verdict::allow(),
            "deny" => Verdict::deny("so named"),
            "firm" => Verdict::deny("so named").firm(),
            _ => Verdict::cannot_decide("so named"),
        }
    }
}

#[async_trait]
impl PolicyBackend for Named {
    fn name(&self) -> &'static str {
        "named"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        if self.waits { Now::Wait } else { Now::Known(Self::answer(query)) }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        Self::answer(query)
    }
}

/// The status, and whether scopes are asked for.
async fn outcome(requirement: Requirement, waits: bool, anonymous: bool) -> (u16, bool) {
    let authenticator = authenticate_fn(Challenge::new("Device", "factory").unwrap(), move |_, _| {
        let somebody = Principal::builder(PrincipalKind::User, "factory", "d1", "device");
        if anonymous { Outcome::Absent } else { Outcome::verified(somebody.roles(["held"]).scopes(["held"]).build()) }
    });
    let guard = require(requirement).with_policy(Named { waits });
    let layers = AuthnLayer::new(authenticator).allow_anonymous().dangerous_plain_http();
    let response = send(&layers.layer(guard.layer(Probe::default())), get("/")).await;
    let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), challenge.is_some_and(|challenge| challenge.contains(r#"scope="missing""#)))
}

/// The status that it gives to somebody: the same at once and after waiting. Who is nobody gets 401.
fn status(expr: &Expr) -> Result<u16, TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let at_once = runtime.block_on(outcome(expr.requirement(), false, false));
    prop_assert_eq!(runtime.block_on(outcome(expr.requirement(), true, false)), at_once);
    prop_assert!(!at_once.1 || at_once.0 == 403, "scopes are asked for only with 403");
    for waits in [false, true] {
        prop_assert_eq!(runtime.block_on(outcome(expr.requirement(), waits, true)).0, 401);
    }
    Ok(at_once.0)
}

proptest! {
    #[test]
    fn it_means_what_three_valued_logic_says(expr in put_together(condition())) {
        let expected = match expr.decision(false) {
            Decision::Allow => 200,
            Decision::Deny => 403,
            Decision::CannotDecide => 503,
        };
        prop_assert_eq!(status(&expr)?, expected);
    }

    /// It passes whom it would pass if each firm denial were the worst for who asks; the others it refuses in one way or the other.
    #[test]
    fn no_not_turns_a_firm_denial(expr in put_together(prop_oneof![6 => condition(), 1 => Just(Expr::Firm)].boxed())) {
        let status = status(&expr)?;
        prop_assert_eq!(status == 200, expr.decision(false) == Decision::Allow);
        prop_assert!([200, 403, 503].contains(&status), "{}", status);
    }
}
