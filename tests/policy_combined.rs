//! Several policies as one, a policy in the shadow, and verdicts that are remembered.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Response};
use portcullis::{
    Challenge, Clock, Instants, Now, Principal, PrincipalKind, RequestHead, StoreError, SystemClock,
    audit::{AuditEntry, AuditLayer, AuditSink, Lost},
    authn::{AuthnLayer, Outcome, authenticate_fn},
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    guard::{Authorizer, authenticated, policy, require},
    policy::{
        AccessQuery, Attributes, Cached, Combined, Decision, PolicyBackend, QueryParts, Rbac, Resource, Shadow, StepUp,
        Verdict,
    },
    testing::TestClock,
};
use tower::{Layer, ServiceExt};

fn principal(subject: &str, roles: &[&str]) -> Principal {
    Principal::builder(PrincipalKind::User, "https://id.example.com", subject, "jwt").roles(roles).build()
}

fn at(seconds: u64) -> Instants {
    Instants::new(seconds * 1_000_000_000, seconds * 1_000_000_000)
}

/// What a policy may say; the fourth is a denial for want of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Allow,
    Deny,
    Nothing,
    CannotDecide,
}

const ALL: [Said; 4] = [Said::Allow, Said::Deny, Said::Nothing, Said::CannotDecide];

/// Says one thing, with a rule, a version, an obligation and a number of its own; at once, or after waiting.
#[derive(Debug)]
struct Says(Said, usize, bool);

impl Says {
    fn verdict(&self) -> Verdict {
        let verdict = match self.0 {
            Said::Allow => Verdict::allow(),
            Said::Deny => Verdict::deny("no"),
            Said::Nothing => Verdict::not_applicable("nothing"),
            Said::CannotDecide => Verdict::cannot_decide("away"),
        };
        verdict.by(format!("rule {}", self.1)).of_version(self.1.to_string()).obliging(format!("do {}", self.1))
    }
}

#[async_trait]
impl PolicyBackend for Says {
    fn name(&self) -> &'static str {
        "says"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        if self.2 { Now::Wait } else { Now::Known(self.verdict()) }
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        self.verdict()
    }
}

/// The tables, written down apart from the code: by what is among the answers, and for the first that applies by order.
fn expected(how: &str, said: &[Said]) -> Decision {
    let any = |one| said.contains(&one);
    let (allow, deny, unknown) = (Decision::Allow, Decision::Deny, Decision::CannotDecide);
    match how {
        "deny_overrides" if any(Said::Deny) => deny,
        "deny_overrides" if any(Said::CannotDecide) => unknown,
        "deny_overrides" if any(Said::Allow) => allow,
        "deny_overrides" => deny,
        "first_applicable" => match said.iter().find(|one| **one != Said::Nothing) {
            Some(Said::Allow) => allow,
            Some(Said::CannotDecide) => unknown,
            _ => deny,
        },
        "all_of" if any(Said::Deny) || any(Said::Nothing) => deny,
        "all_of" if any(Said::CannotDecide) => unknown,
        "all_of" => allow,
        "any_of" if any(Said::Allow) => allow,
        "any_of" if any(Said::CannotDecide) => unknown,
        "any_of" => deny,
        other => unreachable!("{other}"),
    }
}

fn combined(how: &str, said: &[Said], waits: bool) -> Combined {
    let mut parts = said.iter().enumerate().map(|(number, said)| Says(*said, number, waits));
    let first = parts.next().unwrap();
    parts.fold(start(how, first), Combined::with)
}

fn start(how: &str, first: impl PolicyBackend) -> Combined {
    match how {
        "deny_overrides" => Combined::deny_overrides(first),
        "first_applicable" => Combined::first_applicable(first),
        "all_of" => Combined::all_of(first),
        _ => Combined::any_of(first),
    }
}

#[tokio::test]
async fn the_truth_tables_of_one_two_and_three_policies() {
    let alice = principal("alice", &[]);
    let query = AccessQuery::new(&alice, "x", at(1));
    let mut lists: Vec<Vec<Said>> = ALL.iter().map(|one| vec![*one]).collect();
    for a in ALL {
        for b in ALL {
            lists.push(vec![a, b]);
            lists.extend(ALL.map(|c| vec![a, b, c]));
        }
    }
    assert_eq!(lists.len(), 4 + 16 + 64);
    for how in ["deny_overrides", "first_applicable", "all_of", "any_of"] {
        for said in &lists {
            let policy = combined(how, said, false);
            let Now::Known(verdict) = policy.decide_now(&query) else { panic!("all answer at once") };
            assert_eq!(verdict.decision(), expected(how, said), "{how} {said:?}");
            assert_eq!(verdict, policy.decide(&query).await, "{how} {said:?}");
            assert_eq!([verdict.clone(), verdict.clone()], *policy.decide_all(&[query, query]).await, "{how} {said:?}");
            let waiting = combined(how, said, true);
            assert_eq!(waiting.decide_now(&query), Now::Wait);
            assert_eq!(verdict, waiting.decide(&query).await, "{how} {said:?}");
            // Only who said what was decided stands in it, with what they ask for.
            for (number, one) in said.iter().enumerate() {
                let says = Says(*one, number, false).verdict();
                let named = verdict.rules().contains(&format!("rule {number}").into());
                let obliges = verdict.obligations().iter().any(|directive| directive.name() == format!("do {number}"));
                assert_eq!(named, obliges, "{how} {said:?}");
                assert!(!named || says.decision() == verdict.decision(), "{how} {said:?}: {number}");
            }
            assert!(!verdict.rules().is_empty());
        }
    }
    let all = combined("all_of", &[Said::Allow, Said::Allow], false);
    let verdict = all.decide(&query).await;
    assert_eq!((verdict.rules().len(), verdict.obligations().len()), (2, 2));
    assert_eq!(verdict.version().map(|version| &**version), Some("0, 1"));
    // What demands all says no by itself, however it came to it: around it nothing may overrule it as silence.
    let nested = Combined::deny_overrides(combined("all_of", &[Said::Nothing, Said::Deny], false)).with(Says(
        Said::Allow,
        9,
        false,
    ));
    assert_eq!(nested.decide(&query).await.decision(), Decision::Deny);
    let nested = Combined::deny_overrides(combined("any_of", &[Said::Nothing, Said::Nothing], false)).with(Says(
        Said::Allow,
        9,
        false,
    ));
    assert_eq!(nested.decide(&query).await.decision(), Decision::Allow);
}

/// Denies firmly, as one to whom the question is applicable or not.
#[derive(Debug)]
struct Firm {
    applicable: bool,
}

#[async_trait]
impl PolicyBackend for Firm {
    fn name(&self) -> &'static str {
        "firm"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        let verdict = if self.applicable { Verdict::deny("nobody") } else { Verdict::not_applicable("unknown") };
        Now::Known(verdict.firm())
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => panic!("it answers at once"),
        }
    }
}

/// No answer of another policy makes of a firm denial one that a `not` turns, unless that one judges in its place.
#[tokio::test]
async fn a_firm_denial_stays_firm() {
    let alice = principal("alice", &[]);
    let query = AccessQuery::new(&alice, "x", at(1));
    let says = |said| Says(said, 1, false);
    let firm = |applicable| Firm { applicable };
    for how in ["deny_overrides", "first_applicable", "all_of", "any_of"] {
        for applicable in [true, false] {
            let alone = start(how, firm(applicable)).decide(&query).await;
            assert!(alone.is_firm(), "{alone:?}");
            let twice = start(how, firm(applicable)).with(firm(false)).decide(&query).await;
            assert!(twice.is_firm(), "{twice:?}");
            let nothing = start(how, firm(applicable)).with(says(Said::Nothing)).decide(&query).await;
            assert!(nothing.is_firm(), "{nothing:?}");
        }
        let plain = start(how, says(Said::Deny)).decide(&query).await;
        assert!(!plain.is_firm(), "{plain:?}");
    }
    for (name, policy, expected) in [
        ("outweighed", Combined::any_of(firm(true)).with(says(Said::Deny)), true),
        ("outweighs", Combined::any_of(says(Said::Deny)).with(firm(true)), true),
        ("a step-up opens another way", Combined::any_of(firm(true)).with(StepsUp), true),
        ("the other way round", Combined::any_of(StepsUp).with(firm(true)), true),
        ("left to the other", Combined::any_of(firm(false)).with(says(Said::Deny)), false),
        ("left to the next", Combined::first_applicable(firm(false)).with(says(Said::Deny)), false),
        ("another denies", Combined::deny_overrides(firm(false)).with(says(Said::Deny)), false),
        ("beside an allow", Combined::deny_overrides(says(Said::Allow)).with(firm(true)), true),
        ("all must allow", Combined::all_of(says(Said::Allow)).with(firm(false)), true),
        ("one does", Combined::any_of(firm(true)).with(says(Said::Allow)), false),
        ("nested", Combined::all_of(Combined::any_of(says(Said::Nothing)).with(firm(true))), true),
    ] {
        let verdict = policy.decide(&query).await;
        assert_eq!(verdict.is_firm(), expected, "{name}: {verdict:?}");
        assert_eq!(policy.decide_all(&[query]).await, std::slice::from_ref(&verdict), "{name}");
        assert_eq!(policy.decide_now(&query), Now::Known(verdict), "{name}");
    }
}

/// Denies until a step-up.
#[derive(Debug)]
struct StepsUp;

#[async_trait]
impl PolicyBackend for StepsUp {
    fn name(&self) -> &'static str {
        "steps_up"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(Verdict::step_up(StepUp::acr(["gold"]).unwrap()))
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::step_up(StepUp::acr(["gold"]).unwrap())
    }
}

const ROLES: &str = r#"
    version = "1"
    permissions = ["orders:read", "orders:cancel"]
    [roles.clerk]
    grants = ["orders:read"]
"#;

fn rbac() -> Rbac {
    Rbac::from_toml(ROLES).unwrap()
}

fn fixture() -> PolicyFixture {
    let clerk = principal("alice", &["clerk"]);
    PolicyFixture::new(PolicyQuestion::new(clerk.clone(), "orders:read"), PolicyQuestion::new(clerk, "orders:cancel"))
}

#[tokio::test]
async fn combinations_shadows_and_caches_conform() {
    policy_backend(&Combined::deny_overrides(rbac()).with(rbac()), fixture()).await;
    policy_backend(&Combined::first_applicable(rbac()).with(rbac()), fixture()).await;
    policy_backend(&Combined::all_of(rbac()).with(Slow::new(rbac())), fixture()).await;
    policy_backend(&Combined::any_of(Slow::new(rbac())).with(rbac()), fixture()).await;
    policy_backend(&Shadow::new(rbac(), Slow::new(rbac())), fixture()).await;
    policy_backend(&Shadow::new(rbac(), Bad::Panics), fixture()).await;
    policy_backend(&Shadow::new(Slow::new(rbac()), Bad::PanicsLater), fixture()).await;
    policy_backend(&Cached::new(rbac()).unwrap(), fixture()).await;
    policy_backend(&Cached::new(Slow::new(rbac())).unwrap(), fixture()).await;
}

/// Answers as another policy, after waiting, and counts what it is asked.
#[derive(Debug)]
struct Slow<P> {
    policy: P,
    asked: AtomicUsize,
    gate: tokio::sync::Semaphore,
}

impl<P> Slow<P> {
    fn new(policy: P) -> Self {
        Self { policy, asked: AtomicUsize::new(0), gate: tokio::sync::Semaphore::new(1_000) }
    }
}

#[async_trait]
impl<P: PolicyBackend> PolicyBackend for Slow<P> {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.asked.fetch_add(1, SeqCst);
        let _passed = self.gate.acquire().await;
        tokio::task::yield_now().await;
        self.policy.decide(query).await
    }

    fn generation(&self) -> Option<u64> {
        self.policy.generation()
    }

    fn parts(&self) -> QueryParts {
        self.policy.parts()
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }
}

#[derive(Debug)]
enum Bad {
    Panics,
    PanicsLater,
    Hangs,
    Undecided,
}

#[async_trait]
impl PolicyBackend for Bad {
    fn name(&self) -> &'static str {
        "bad"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        match self {
            Self::Panics => panic!("on purpose"),
            Self::PanicsLater | Self::Hangs => Now::Wait,
            Self::Undecided => Now::Known(Verdict::cannot_decide("away")),
        }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait if matches!(self, Self::Hangs) => std::future::pending().await,
            Now::Wait => panic!("on purpose"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shadow_changes_nothing_and_delays_no_longer_than_it_may() {
    let clerk = principal("alice", &["clerk"]);
    let query = AccessQuery::new(&clerk, "orders:read", at(1));
    for bad in [Bad::Panics, Bad::PanicsLater, Bad::Hangs, Bad::Undecided] {
        let name = format!("{bad:?}");
        let hangs = matches!(bad, Bad::Hangs);
        let policy = Shadow::new(rbac(), bad);
        let start = tokio::time::Instant::now();
        let verdict = policy.decide(&query).await;
        assert_eq!(verdict.decision(), Decision::Allow, "{name}");
        assert_eq!(verdict.rules(), [Arc::from("role \"clerk\"")], "{name}");
        let expected = Duration::from_millis(if hangs { 20 } else { 0 });
        let took = start.elapsed();
        assert!(took >= expected && took <= expected + Duration::from_millis(2), "{name}: {took:?}");
        assert_eq!((policy.stats().compared, policy.stats().differences), (1, 1), "{name}");
        let list = policy.decide_all(&[query, query]).await;
        assert!(list.len() == 2 && list.iter().all(Verdict::is_allow), "{name}");
    }
    let never = Shadow::new(rbac(), Bad::Hangs).waiting(Duration::ZERO);
    assert!(never.decide(&query).await.is_allow());
    let same = Shadow::new(rbac(), Slow::new(rbac()));
    assert!(same.decide(&query).await.is_allow());
    assert_eq!((same.stats().compared, same.stats().differences), (1, 0));
}

#[test]
fn a_shadow_that_waits_without_a_timer_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let policy = Shadow::new(rbac(), Bad::Hangs);
    let clerk = principal("alice", &["clerk"]);
    let verdict = runtime.block_on(policy.decide(&AccessQuery::new(&clerk, "orders:read", at(1))));
    assert!(verdict.is_allow(), "{verdict:?}");
    assert_eq!((policy.stats().compared, policy.stats().unanswered), (1, 1));
}

/// Keeps the records, as JSON.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<serde_json::Value>>>);

#[async_trait]
impl AuditSink for Kept {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.0.lock().unwrap().push(serde_json::to_value(&entry).unwrap());
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The status, and the decisions in the record of a request that a guard with this policy judges.
async fn recorded(policies: impl PolicyBackend) -> (u16, Vec<serde_json::Value>) {
    let kept = Kept::default();
    let challenge = Challenge::new("Test", "test").unwrap();
    let decide = AuthnLayer::new(authenticate_fn(challenge, |_: &RequestHead<'_>, _| {
        Outcome::verified(principal("alice", &["clerk"]))
    }))
    .dangerous_plain_http();
    let guard = require(policy("orders:read").unwrap()).with_policy(policies);
    let inner =
        tower::service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new())));
    let service = AuditLayer::new(kept.clone()).layer(decide.layer(guard.layer(inner)));
    let response = service.oneshot(Request::get("/orders").body(()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    drop(response);
    let decisions = kept.0.lock().unwrap()[0]["decisions"].as_array().unwrap().clone();
    (status, decisions)
}

#[tokio::test]
async fn a_difference_is_in_the_audit_record_and_is_not_enforced() {
    let (status, decisions) = recorded(Shadow::new(rbac(), Says(Said::Deny, 7, false))).await;
    assert_eq!((status, decisions.len()), (200, 2), "{decisions:?}");
    assert_eq!((&decisions[0]["decision"], decisions[0].get("enforced")), (&"allow".into(), Some(&true.into())));
    assert_eq!((&decisions[1]["decision"], &decisions[1]["enforced"]), (&"deny".into(), &false.into()));
    assert_eq!((&decisions[1]["backend"], &decisions[1]["rule"]), (&"says".into(), &"rule 7".into()));
}

/// Also where the verdict beside which it stands is outweighed by another one.
#[tokio::test]
async fn a_difference_inside_a_combination_is_in_the_audit_record() {
    let shadowed = || Shadow::new(rbac(), Says(Said::Deny, 7, false));
    for (name, policy, expected) in [
        ("outweighed by a later one", Combined::all_of(shadowed()).with(Says(Said::Deny, 8, false)), 403),
        ("outweighed by an earlier one", Combined::all_of(Says(Said::CannotDecide, 8, false)).with(shadowed()), 503),
        ("one of several", Combined::all_of(shadowed()).with(rbac()), 200),
    ] {
        let (status, decisions) = recorded(policy).await;
        let differs = |decision: &&serde_json::Value| decision["enforced"] == false && decision["rule"] == "rule 7";
        assert_eq!((status, decisions.iter().filter(differs).count()), (expected, 1), "{name}: {decisions:?}");
    }
}

#[tokio::test]
async fn what_is_remembered_is_given_again_for_at_most_five_seconds() {
    let policy = Cached::new(Slow::new(rbac())).unwrap();
    let clerk = principal("alice", &["clerk"]);
    let asked = || policy.policy().asked.load(SeqCst);
    let ask = |seconds| {
        let (policy, clerk) = (&policy, &clerk);
        async move { policy.decide(&AccessQuery::new(clerk, "orders:read", at(seconds))).await.decision() }
    };
    assert_eq!(policy.decide_now(&AccessQuery::new(&clerk, "orders:read", at(10))), Now::Wait);
    assert_eq!((ask(10).await, ask(14).await, asked()), (Decision::Allow, Decision::Allow, 1));
    let at_once = policy.decide_now(&AccessQuery::new(&clerk, "orders:read", at(14)));
    assert!(matches!(at_once, Now::Known(verdict) if verdict.is_allow()));
    assert_eq!((ask(15).await, asked()), (Decision::Allow, 2));
    // A reload makes it void at once.
    policy.policy().policy.replace_with_toml(&ROLES.replace("grants", "denies")).unwrap();
    assert_eq!((ask(15).await, asked()), (Decision::Deny, 3));
    policy.flush();
    assert_eq!((ask(15).await, asked()), (Decision::Deny, 4));
    let mut list = Vec::new();
    for action in ["orders:read", "orders:cancel", "orders:read"] {
        list.push(AccessQuery::new(&clerk, action, at(15)));
    }
    assert_eq!(policy.decide_all(&list).await.len(), 3);
    assert_eq!(asked(), 5, "one of three was not remembered");
}

/// Says what it is told, reads all but the time, and counts.
#[derive(Debug, Default)]
struct Counting {
    asked: AtomicUsize,
    undecided: bool,
    generation: AtomicU64,
    holds: Option<Duration>,
}

#[async_trait]
impl PolicyBackend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        self.asked.fetch_add(1, SeqCst);
        Now::Known(if self.undecided {
            Verdict::cannot_decide("away")
        } else {
            Verdict::allow().by("r").obliging("mask").of_version("1")
        })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => unreachable!(),
        }
    }

    fn generation(&self) -> Option<u64> {
        Some(self.generation.load(SeqCst))
    }

    fn parts(&self) -> QueryParts {
        QueryParts::ALL.without(QueryParts::TIME)
    }

    fn holds_for(&self) -> Option<Duration> {
        self.holds
    }
}

/// A handler that asks in a loop, for as long as its exchange goes on, hears of what changed.
#[tokio::test]
async fn a_question_that_is_asked_in_a_loop_has_its_own_time() {
    let policy =
        Arc::new(Cached::new(Counting { holds: Some(Duration::from_secs(2)), ..Counting::default() }).unwrap());
    let clock = TestClock::at_unix(1_800_000_000);
    let challenge = Challenge::new("Test", "test").unwrap();
    let authn = AuthnLayer::new(authenticate_fn(challenge, |_: &RequestHead<'_>, _| {
        Outcome::verified(principal("alice", &["clerk"]))
    }))
    .dangerous_plain_http();
    let guard = require(authenticated()).with_policy(Arc::clone(&policy));
    let (told, asked) = (clock.clone(), Arc::clone(&policy));
    let inner = tower::service_fn(move |request: Request<()>| {
        let (told, asked) = (told.clone(), Arc::clone(&asked));
        async move {
            let authz = Authorizer::of(request.extensions()).unwrap().with_clock(told.clone()).fulfilling(["mask"]);
            for (second, expected) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)] {
                authz.check("read", None).await.unwrap();
                assert_eq!(asked.asked(), expected, "{second}");
                told.advance(Duration::from_secs(1));
            }
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }
    });
    let service = authn.layer(guard.layer(inner));
    assert_eq!(service.oneshot(Request::get("/").body(()).unwrap()).await.unwrap().status(), 200);
}

/// Says when it was asked.
#[derive(Debug, Default)]
struct Times(Mutex<Vec<Instants>>);

#[async_trait]
impl PolicyBackend for Times {
    fn name(&self) -> &'static str {
        "times"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.0.lock().unwrap().push(query.at());
        Verdict::allow()
    }
}

#[tokio::test]
async fn the_time_of_a_question_goes_on_from_the_request() {
    let policy = Arc::new(Times::default());
    let challenge = Challenge::new("Test", "test").unwrap();
    let authn = AuthnLayer::new(authenticate_fn(challenge, |_: &RequestHead<'_>, _| {
        Outcome::verified(principal("alice", &["clerk"]))
    }))
    .dangerous_plain_http();
    let guard = require(authenticated()).with_policy(Arc::clone(&policy));
    let inner = tower::service_fn(async |request: Request<()>| {
        let authz = Authorizer::of(request.extensions()).unwrap();
        authz.check("read", None).await.unwrap();
        let read = SystemClock::new().now();
        while SystemClock::new().now().since(read) < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        authz.check_all("read", &[Resource::new("order", 1), Resource::new("order", 2)]).await.unwrap();
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    });
    let service = authn.layer(guard.layer(inner));
    assert_eq!(service.oneshot(Request::get("/").body(()).unwrap()).await.unwrap().status(), 200);
    let times = policy.0.lock().unwrap();
    assert!(times[1].since(times[0]) >= Duration::from_millis(2), "{times:?}");
    assert!(times[1].unix_nanos() - times[0].unix_nanos() >= 2_000_000, "{times:?}");
    assert_eq!(times[1], times[2], "one reading for the questions that are asked together");
}

#[test]
fn what_is_newer_than_the_question_is_not_fresh_for_ever() {
    let policy = Cached::new(Counting { holds: Some(Duration::from_secs(2)), ..Counting::default() }).unwrap();
    let alice = principal("alice", &[]);
    // The question's time, and how often the policy was asked by then.
    for (time, expected) in [(100, 1), (99, 1), (98, 2), (100, 3)] {
        assert!(matches!(policy.decide_now(&AccessQuery::new(&alice, "x", at(time))), Now::Known(_)));
        assert_eq!(policy.asked(), expected, "{time}");
    }
}

#[tokio::test]
async fn what_may_not_be_remembered_is_not() {
    assert!(Cached::new(Counting::default()).is_err(), "undeclared");
    assert!(Cached::new(Counting { holds: Some(Duration::ZERO), ..Counting::default() }).is_err(), "for no time");
    assert!(Cached::max_verdicts(rbac(), 0).is_err());
    let undecided = Counting { holds: Some(Duration::MAX), undecided: true, ..Counting::default() };
    let policy = Cached::new(undecided).unwrap();
    let alice = principal("alice", &[]);
    for _ in 0..3 {
        let query = AccessQuery::new(&alice, "x", at(1));
        assert_eq!(policy.decide(&query).await.decision(), Decision::CannotDecide);
        assert!(matches!(policy.decide_now(&query), Now::Known(_)));
    }
    assert_eq!(policy.policy().asked.load(SeqCst), 6);
}

#[test]
fn questions_that_differ_in_a_declared_part_are_two() {
    let policy = Cached::new(Counting { holds: Some(Duration::MAX), ..Counting::default() }).unwrap();
    let build = |subject: &str, roles: &[&str], scopes: &[&str]| {
        Principal::builder(PrincipalKind::User, "i", subject, "jwt").roles(roles).scopes(scopes).build()
    };
    let people = [
        build("a", &["b"], &["c"]),
        build("ab", &[], &["c"]),
        build("a", &["b", "c"], &[]),
        build("a", &["bc"], &[]),
        build("a", &[], &["b", "c"]),
        build("a", &[], &["b c"]),
    ];
    let things = [
        Resource::new("order", "1"),
        Resource::new("order1", ""),
        Resource::new("order", "1").with("x", "1"),
        Resource::new("order", "1").with("x", 1),
        Resource::new("order", "1").in_tenant("x"),
        Resource::new("order", "1").owned_by("i", "a"),
    ];
    let facts = [Attributes::new().with("x", "y"), Attributes::new().with("x\":\"y", "")];
    let mut queries = Vec::new();
    for person in &people {
        for action in ["x", "xa", ""] {
            let query = AccessQuery::new(person, action, at(1));
            queries.push(query);
            queries.extend(things.iter().map(|thing| query.on(thing)));
            queries.extend(facts.iter().map(|facts| query.with_attributes(facts)));
            queries.push(query.with_client(Some(&people[0])));
            queries.push(query.with_route("GET", None));
            queries.push(query.with_route("GET", Some("/")));
            queries.push(query.with_address(Some([127, 0, 0, 1].into())));
        }
    }
    for query in queries.iter().chain(&queries) {
        assert!(matches!(policy.decide_now(query), Now::Known(_)));
    }
    assert_eq!(policy.policy().asked.load(SeqCst), queries.len(), "each once, and none for another");
    // One that takes too much room is asked each time.
    let long = "x".repeat(2_000);
    for _ in 0..2 {
        assert!(matches!(policy.decide_now(&AccessQuery::new(&people[0], &long, at(1))), Now::Known(_)));
    }
    assert_eq!(policy.policy().asked.load(SeqCst), queries.len() + 2);
    let hit = allocation_counter::measure(|| drop(policy.decide_now(&queries[0])));
    assert_eq!(hit.count_total, 0, "a hit does not allocate, obligations or not");
}

#[tokio::test]
async fn who_asks_the_same_waits_for_one_answer() {
    let policy = Arc::new(Cached::new(Slow::new(rbac())).unwrap());
    let closed = policy.policy().gate.acquire_many(1_000).await.unwrap();
    let ask = |policy: &Arc<Cached<Slow<Rbac>>>| {
        let policy = Arc::clone(policy);
        tokio::spawn(async move {
            let clerk = principal("alice", &["clerk"]);
            policy.decide(&AccessQuery::new(&clerk, "orders:read", at(1))).await.decision()
        })
    };
    let first = ask(&policy);
    while policy.policy().asked.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let waiting: Vec<_> = (0..20).map(|_| ask(&policy)).collect();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(policy.policy().asked.load(SeqCst), 1);
    // Who asks goes away: another one takes over.
    first.abort();
    assert!(first.await.is_err());
    while policy.policy().asked.load(SeqCst) == 1 {
        tokio::task::yield_now().await;
    }
    // The policy is replaced while the answer is on its way: what comes then is not for who asks from now on.
    policy.policy().policy.replace_with_toml(&ROLES.replace("grants", "denies")).unwrap();
    let late = ask(&policy);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    drop(closed);
    for one in waiting {
        assert_eq!(one.await.unwrap(), Decision::Deny);
    }
    assert_eq!(late.await.unwrap(), Decision::Deny);
}

/// Denies clerks until they have proved who they are by `gold`; waits if it is told to.
#[derive(Debug)]
struct Gold {
    waits: bool,
    asked: AtomicUsize,
}

impl Gold {
    fn new(waits: bool) -> Self {
        Self { waits, asked: AtomicUsize::new(0) }
    }

    fn answer(&self, query: &AccessQuery<'_>) -> Verdict {
        self.asked.fetch_add(1, SeqCst);
        match query.action() {
            _ if !query.subject().has_role("clerk") => Verdict::deny("no clerk"),
            "open" => Verdict::allow(),
            _ => Verdict::step_up(StepUp::acr(["gold"]).unwrap()),
        }
    }
}

#[async_trait]
impl PolicyBackend for Gold {
    fn name(&self) -> &'static str {
        "gold"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        if self.waits { Now::Wait } else { Now::Known(self.answer(query)) }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        self.answer(query)
    }

    fn parts(&self) -> QueryParts {
        QueryParts::ROLES
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Whether a denial asks for a step-up depends on who asks, and when: it is not for the next one.
#[tokio::test]
async fn a_denial_that_looks_at_a_step_up_is_not_remembered() {
    let clerk = |acr: &str| {
        Principal::builder(PrincipalKind::User, "https://id.example.com", acr, "jwt").roles(["clerk"]).acr(acr).build()
    };
    let (gold, bronze) = (clerk("gold"), clerk("bronze"));
    let demands = |verdict: &Verdict| (verdict.decision(), verdict.step_up_demand().is_some());
    for how in ["deny_overrides", "first_applicable", "all_of", "any_of"] {
        for waits in [false, true] {
            let nested = start(how, start(how, Gold::new(waits)).with(Says(Said::Deny, 1, true)));
            for (name, policy) in [("alone", start(how, Gold::new(waits))), ("nested", nested)] {
                // Beside a plain denial there is none to ask for, but where one way is enough.
                let is_asked = name == "alone" || ["first_applicable", "any_of"].contains(&how);
                let policy = Held(policy);
                let policy = Cached::new(policy).unwrap();
                for (who, expected) in [(&gold, false), (&bronze, is_asked), (&gold, false), (&bronze, is_asked)] {
                    let query = AccessQuery::new(who, "x", at(1));
                    let verdict = policy.decide(&query).await;
                    assert_eq!(demands(&verdict), (Decision::Deny, expected), "{how}, {name}, {waits}");
                    let listed = policy.decide_all(&[query]).await;
                    assert_eq!(demands(&listed[0]), (Decision::Deny, expected), "{how}, {name}, {waits}, listed");
                    if let Now::Known(verdict) = policy.decide_now(&query) {
                        assert_eq!(demands(&verdict), (Decision::Deny, expected), "{how}, {name}, at once");
                    }
                }
                // At the same time: neither waits for the other's answer.
                let [a, b] = [AccessQuery::new(&gold, "x", at(1)), AccessQuery::new(&bronze, "x", at(1))];
                let (a, b) = tokio::join!(policy.decide(&a), policy.decide(&b));
                assert_eq!((demands(&a).1, demands(&b).1), (false, is_asked), "{how}, {name}, {waits}, together");
            }
            // An allow, and a denial that nothing helps against, are remembered as ever.
            for (roles, action) in [(&["clerk"][..], "open"), (&[], "x")] {
                let policy = Cached::new(start(how, Gold::new(waits))).unwrap();
                let who = principal("alice", roles);
                for _ in 0..3 {
                    policy.decide(&AccessQuery::new(&who, action, at(1))).await;
                }
                assert_eq!(policy.asked(), 1, "{how}, {action}");
            }
        }
    }
}

/// Holds what another policy says, and says that it goes by roles.
#[derive(Debug)]
struct Held<P>(P);

#[async_trait]
impl<P: PolicyBackend> PolicyBackend for Held<P> {
    fn name(&self) -> &'static str {
        "held"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        self.0.decide_now(query)
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.0.decide(query).await
    }

    fn parts(&self) -> QueryParts {
        QueryParts::ROLES
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Somebody far away, who has no generation, lets everybody do everything.
#[derive(Debug)]
struct Elsewhere;

#[async_trait]
impl PolicyBackend for Elsewhere {
    fn name(&self) -> &'static str {
        "elsewhere"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        Verdict::allow()
    }

    fn parts(&self) -> QueryParts {
        QueryParts::SUBJECT
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

#[tokio::test]
async fn what_a_reload_takes_away_is_not_remembered_beside_a_policy_that_has_no_generation() {
    assert_eq!(Combined::all_of(Elsewhere).with(Elsewhere).generation(), None);
    for combine in [Combined::all_of, Combined::deny_overrides, Combined::first_applicable] {
        let local = rbac();
        let together = combine(local.clone()).with(Combined::all_of(Elsewhere).with(local.clone()));
        let before = together.generation().unwrap();
        let policy = Cached::new(together).unwrap();
        let clerk = principal("alice", &["clerk"]);
        let query = AccessQuery::new(&clerk, "orders:read", at(1));
        for _ in 0..2 {
            assert!(policy.decide(&query).await.is_allow());
        }
        assert_eq!(policy.asked(), 1);
        let barred = "version = '2'\npermissions = ['orders:read']\n[roles.clerk]\ndenies = ['orders:read']";
        local.replace_with_toml(barred).unwrap();
        assert!(policy.generation().unwrap() > before);
        for _ in 0..2 {
            assert_eq!(policy.decide(&query).await.decision(), Decision::Deny);
            assert_eq!(policy.decide_all(&[query]).await[0].decision(), Decision::Deny);
        }
    }
}

/// Reads roles; once it is reloaded, the address instead, and then the time as well.
#[derive(Debug, Default)]
struct Learning {
    generation: AtomicU64,
    asked: AtomicUsize,
}

#[async_trait]
impl PolicyBackend for Learning {
    fn name(&self) -> &'static str {
        "learning"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        self.asked.fetch_add(1, SeqCst);
        let allows = match self.generation.load(SeqCst) {
            0 => query.subject().has_role("clerk"),
            1 => query.address() == Some([192, 0, 2, 1].into()),
            _ => [10, 12].contains(&query.at().unix_seconds()),
        };
        Now::Known(if allows { Verdict::allow() } else { Verdict::deny("no") })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => panic!("it answers at once"),
        }
    }

    fn generation(&self) -> Option<u64> {
        Some(self.generation.load(SeqCst))
    }

    fn parts(&self) -> QueryParts {
        match self.generation.load(SeqCst) {
            0 => QueryParts::ROLES,
            1 => QueryParts::ADDRESS,
            _ => QueryParts::ADDRESS.and(QueryParts::TIME),
        }
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Denies everybody; once it is reloaded, it allows one address. It says so when it is told to.
#[derive(Debug, Default)]
struct Reloading {
    generation: AtomicU64,
    answers: tokio::sync::Notify,
}

#[async_trait]
impl PolicyBackend for Reloading {
    fn name(&self) -> &'static str {
        "reloading"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.answers.notified().await;
        let allows = self.generation.load(SeqCst) == 1 && query.address() == Some([192, 0, 2, 1].into());
        if allows { Verdict::allow() } else { Verdict::deny("no") }
    }

    fn generation(&self) -> Option<u64> {
        Some(self.generation.load(SeqCst))
    }

    fn parts(&self) -> QueryParts {
        match self.generation.load(SeqCst) {
            0 => QueryParts::ROLES,
            _ => QueryParts::ADDRESS,
        }
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Both wait for one answer while nothing tells them apart; the newer policy, whose answer comes, does.
#[tokio::test]
async fn an_answer_of_a_newer_policy_is_for_who_asked_it() {
    let policy = Arc::new(Cached::new(Reloading::default()).unwrap());
    let ask = |last: u8| {
        let policy = Arc::clone(&policy);
        tokio::spawn(async move {
            let clerk = principal("alice", &["clerk"]);
            policy.decide(&AccessQuery::new(&clerk, "x", at(10)).with_address(Some([192, 0, 2, last].into()))).await
        })
    };
    let settle = async || {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    };
    let first = ask(1);
    settle().await;
    let second = ask(2);
    settle().await;
    policy.policy().generation.store(1, SeqCst);
    policy.policy().answers.notify_one();
    settle().await;
    policy.policy().answers.notify_one();
    assert_eq!((first.await.unwrap().is_allow(), second.await.unwrap().is_allow()), (true, false));
}

/// What a verdict is remembered by is what the policy reads now, and not what it read when the cache was made.
#[tokio::test]
async fn a_reload_may_change_what_the_policy_reads() {
    let policy = Cached::new(Learning::default()).unwrap();
    let clerk = principal("alice", &["clerk"]);
    let ask = async |last: u8, seconds: u64| {
        let query = AccessQuery::new(&clerk, "x", at(seconds)).with_address(Some([192, 0, 2, last].into()));
        let Now::Known(at_once) = policy.decide_now(&query) else { panic!("it answers at once") };
        assert_eq!(at_once, policy.decide(&query).await);
        assert_eq!(policy.decide_all(&[query]).await, std::slice::from_ref(&at_once));
        at_once.is_allow()
    };
    let asked = || policy.policy().asked.load(SeqCst);
    assert!(ask(1, 10).await && ask(2, 10).await);
    assert_eq!(asked(), 1);
    policy.policy().generation.store(1, SeqCst);
    assert!(ask(1, 10).await && !ask(2, 10).await && ask(1, 11).await);
    assert_eq!(asked(), 3);
    policy.policy().generation.store(2, SeqCst);
    assert!(ask(1, 10).await && !ask(1, 11).await && ask(1, 12).await);
    assert_eq!(asked(), 12, "what depends on the time is asked each time");
}
