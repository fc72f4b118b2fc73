//! Denials that say nothing of what was asked, because nobody can judge it or because nothing passes: no `not` around one
//! lets anybody pass.

mod support;

use async_trait::async_trait;
use portcullis::{
    Clock, Now, Principal, PrincipalBuilder, PrincipalKind, ShadowMode,
    guard::{
        Requirement, RouteRules, RuleNames, all, any, authenticated, from_path, not, policy, require, role, scope,
    },
    policy::{AccessQuery, PolicyBackend, Rbac, Verdict},
    stack::Stack,
    tls::TlsLayer,
};
use support::{Probe, Still, get, on_route, send, test_scheme, with};

const ISSUER: &str = "https://id.example.com";

fn somebody(roles: &[&'static str]) -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").roles(roles.iter().copied()).scopes(["held"])
}

async fn status(requirement: impl Into<Requirement>, who: PrincipalBuilder) -> u16 {
    on_route("/orders", require(requirement), who, "/orders").await
}

/// A policy that waits before it answers as another one does.
#[derive(Debug)]
struct Slow<P>(P);

#[async_trait]
impl<P: PolicyBackend> PolicyBackend for Slow<P> {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Wait
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        self.0.decide(query).await
    }
}

/// Denies everything, and firmly what is called so.
#[derive(Debug)]
struct Denying;

#[async_trait]
impl PolicyBackend for Denying {
    fn name(&self) -> &'static str {
        "denying"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let verdict = Verdict::deny("no");
        Now::Known(if query.action() == "firm" { verdict.firm() } else { verdict })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => Verdict::cannot_decide("never"),
        }
    }
}

const BEFORE: &str = "version = '1'\npermissions = ['cancel', 'barred']\n[roles.clerk]\ngrants = ['cancel']\n\
    [roles.contractor]\ngrants = ['barred']\n";
/// The role and the permission have other names.
const RENAMED: &str = "version = '2'\npermissions = ['cancel', 'blocked']\n[roles.clerk]\ngrants = ['cancel']\n\
    [roles.external]\ngrants = ['blocked']\n";

#[tokio::test]
async fn what_a_reload_takes_away_opens_nothing() {
    let policy = Rbac::from_toml(BEFORE).unwrap();
    let cancel = policy.permission("cancel").unwrap();
    let contractor = || Requirement::from(policy.role("contractor").unwrap());
    let barred = || Requirement::from(policy.permission("barred").unwrap());
    let held = || scope("held").unwrap();
    let missing = || scope("missing").unwrap();
    let rows: Vec<(&str, Requirement, u16, u16)> = vec![
        // For a clerk before the reload, and for the contractor after it.
        ("but not contractors", all((cancel.clone(), not(contractor()))), 200, 403),
        ("but not who is barred", all((cancel, not(barred()))), 200, 403),
        ("alone", not(contractor()), 200, 403),
        ("neither", not(any((contractor(), barred()))), 200, 403),
        ("one of two is there", not(any((contractor(), missing()))), 200, 403),
        ("the other way round", not(any((missing(), contractor()))), 200, 403),
        ("not both", not(all((contractor(), held()))), 200, 403),
        ("not both, the other way round", not(all((held(), contractor()))), 200, 403),
        ("deep inside", not(any((missing(), all((held(), any((missing(), contractor()))))))), 200, 403),
        ("not not", not(not(contractor())), 403, 403),
        ("not not not", not(not(not(contractor()))), 200, 403),
        ("another way in", any((not(contractor()), held())), 200, 200),
        // Whatever the role would be, it is not both.
        ("not both, and one is missing", not(all((contractor(), missing()))), 200, 200),
    ];
    for (name, requirement, before, _) in &rows {
        assert_eq!(status(requirement.clone(), somebody(&["clerk"])).await, *before, "before: {name}");
    }
    policy.replace_with_toml(RENAMED).unwrap();
    for (name, requirement, _, after) in &rows {
        assert_eq!(status(requirement.clone(), somebody(&["clerk", "contractor"])).await, *after, "after: {name}");
    }
    policy.replace_with_toml(BEFORE).unwrap();
    for (name, requirement, before, _) in rows {
        assert_eq!(status(requirement, somebody(&["clerk"])).await, before, "back again: {name}");
    }
}

#[tokio::test]
async fn who_may_do_nothing_passes_no_not() {
    let bank = Rbac::from_toml(
        "version = '1'\npermissions = ['write', 'sign']\n[roles.writer]\ngrants = ['write']\n[roles.signer]\n\
         grants = ['sign']\n[roles.reader]\n[[exclusive]]\nname = 'four-eyes'\nroles = ['writer', 'signer']",
    )
    .unwrap();
    let [writer, reader] = ["writer", "reader"].map(|name| bank.role(name).unwrap());
    let write = bank.permission("write").unwrap();
    for (name, requirement) in [
        ("role", not(&writer)),
        ("a role that is not held", not(&reader)),
        ("permission", not(&write)),
        ("any", not(any((reader.clone(), write.clone())))),
        ("all", not(all((writer.clone(), reader.clone())))),
        ("twice", not(not(&writer))),
        ("the policy of the guard", not(policy("write").unwrap())),
    ] {
        let guard = || require(requirement.clone()).with_policy(bank.clone());
        assert_eq!(on_route("/", guard(), somebody(&["writer", "signer"]), "/").await, 403, "{name}");
        let slow = require(requirement.clone()).with_policy(Slow(bank.clone()));
        assert_eq!(on_route("/", slow, somebody(&["writer", "signer"]), "/").await, 403, "{name}, waiting");
    }
    assert_eq!(status(not(&writer), somebody(&["signer"])).await, 200, "who holds one of them is asked as ever");
    assert_eq!(status(not(&write), somebody(&["signer"])).await, 200);
}

#[tokio::test]
async fn a_thing_of_another_tenant_passes_no_not() {
    let policy = Rbac::from_toml(BEFORE).unwrap();
    let [barred, contractor] = [policy.permission("barred").unwrap().into(), policy.role("contractor").unwrap().into()]
        .map(|condition: Requirement| {
            let thing = from_path("order", "{id}").unwrap().in_tenant("{tenant}").unwrap();
            require(all((authenticated(), not(condition)))).on(thing)
        });
    for (name, guard) in [("permission", barred), ("role", contractor)] {
        for (path, expected) in [("/t/acme/orders/1", 200), ("/t/globex/orders/1", 403)] {
            let who = somebody(&["clerk"]).tenant("acme");
            assert_eq!(on_route("/t/{tenant}/orders/{id}", guard.clone(), who, path).await, expected, "{name}, {path}");
        }
    }
}

#[tokio::test]
async fn an_action_that_nobody_knows_passes_no_not() {
    let rbac = Rbac::from_toml(BEFORE).unwrap();
    for (action, expected) in [("barred", 200), ("bared", 403)] {
        let asked = || require(not(policy(action).unwrap()));
        assert_eq!(on_route("/", asked().with_policy(rbac.clone()), somebody(&["clerk"]), "/").await, expected);
        assert_eq!(on_route("/", asked().with_policy(Slow(rbac.clone())), somebody(&["clerk"]), "/").await, expected);
    }
}

#[tokio::test]
async fn a_policy_of_ones_own_says_what_is_firm() {
    for (action, expected) in [("plain", 200), ("firm", 403)] {
        for requirement in [
            not(policy(action).unwrap()),
            not(any((policy(action).unwrap(), role("nobody").unwrap()))),
            not(all((policy(action).unwrap(), authenticated()))),
        ] {
            let guard = require(requirement.clone());
            let at_once = on_route("/", guard.clone().with_policy(Denying), somebody(&[]), "/").await;
            let waiting = on_route("/", guard.with_policy(Slow(Denying)), somebody(&[]), "/").await;
            assert_eq!([at_once, waiting], [expected; 2], "{requirement}");
        }
    }
    assert!(Verdict::deny("no").firm().is_firm() && !Verdict::deny("no").is_firm());
    for other in [Verdict::allow(), Verdict::cannot_decide("away")] {
        assert!(!other.clone().firm().is_firm());
        assert_eq!(other.clone().firm(), other);
    }
}

#[tokio::test]
async fn shadow_mode_counts_it_as_refused() {
    let policy = Rbac::from_toml(BEFORE).unwrap();
    let later = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let guard = require(not(policy.role("contractor").unwrap())).shadow(later);
    let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(test_scheme());
    let app = stack.policy(policy.clone()).route("GET /", guard.clone()).build().unwrap().protect(Probe::default());
    let ask = async || send(&app, with(get("/"), "authorization", "Test boss")).await.status().as_u16();
    assert_eq!((ask().await, guard.would_refuse()), (200, 0));
    policy.replace_with_toml(RENAMED).unwrap();
    assert_eq!((ask().await, guard.would_refuse()), (200, 1));
}

#[tokio::test]
async fn rules_in_a_file_and_the_matrix_say_the_same() {
    let policy = Rbac::from_toml(&BEFORE.replace("clerk", "manager")).unwrap();
    let rules = RouteRules::from_toml(
        "[routes]\n\"GET /role\" = { not = { role = \"contractor\" } }\n\
         \"GET /permission\" = { not = { any = [{ permission = \"barred\" }, { scope = \"missing\" }] } }\n\
         \"GET /policy\" = { not = { policy = \"barred\" } }\n",
        &RuleNames::new().rbac(&policy),
    )
    .unwrap();
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme()).policy(policy.clone());
    let stack = stack.routes(rules).build().unwrap();
    let app = stack.protect(Probe::default());
    let ask = async |path: &str| send(&app, with(get(path), "authorization", "Test boss")).await.status().as_u16();
    let before = stack.matrix(["manager", "contractor"]);
    for (path, status) in [("/role", 200), ("/permission", 200), ("/policy", 200)] {
        assert_eq!(ask(path).await, status, "before: {path}");
    }
    policy.replace_with_toml(&RENAMED.replace("clerk", "manager")).unwrap();
    let after = stack.matrix(["manager", "contractor"]);
    for (path, at_first, then) in [
        ("/role", ["yes", ""], ["", ""]),
        ("/permission", ["depends", ""], ["depends", "depends"]),
        ("/policy", ["yes", ""], ["", ""]),
    ] {
        assert_eq!(ask(path).await, 403, "{path}");
        let line = format!("GET {path}");
        let cells = |matrix: &portcullis::policy::Matrix| {
            ["manager", "contractor"].map(|role| matrix.cell(role, &line).unwrap().to_owned())
        };
        assert_eq!((cells(&before), cells(&after)), (at_first.map(String::from), then.map(String::from)), "{path}");
    }
}

#[test]
fn the_matrix_knows_that_things_may_be_of_another_tenant() {
    let policy = Rbac::from_toml(BEFORE).unwrap();
    let thing = || from_path("order", "{id}").unwrap().in_tenant("{t}").unwrap();
    let bare = || from_path("order", "{id}").unwrap();
    let contractor = policy.role("contractor").unwrap();
    let cancel = policy.permission("cancel").unwrap();
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(policy.clone())
        .route("GET /role/{t}/{id}", require(&contractor).on(thing()))
        .route("GET /not/{t}/{id}", require(not(&contractor)).on(thing()))
        .route("GET /cancel/{t}/{id}", require(&cancel).on(thing()))
        .route("GET /either/{t}/{id}", require(any((contractor.clone(), authenticated()))).on(thing()))
        .route("GET /both/{t}/{id}", require(all((cancel, not(&contractor)))).on(thing()))
        .route("GET /bare/{id}", require(&contractor).on(bare()))
        .route("GET /bare/not/{id}", require(not(&contractor)).on(bare()))
        .build()
        .unwrap();
    let matrix = stack.matrix(["clerk", "contractor"]);
    for (line, clerk, contractor) in [
        ("GET /role/{t}/{id}", "", "depends"),
        ("GET /not/{t}/{id}", "depends", ""),
        ("GET /cancel/{t}/{id}", "depends", ""),
        ("GET /either/{t}/{id}", "yes", "yes"),
        ("GET /both/{t}/{id}", "depends", ""),
        ("GET /bare/{id}", "", "yes"),
        ("GET /bare/not/{id}", "yes", ""),
    ] {
        assert_eq!(
            [matrix.cell("clerk", line), matrix.cell("contractor", line)],
            [Some(clerk), Some(contractor)],
            "{line}"
        );
    }
}
