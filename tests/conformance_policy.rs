//! The suite for policy backends, on what the crate has and on a backend that is written with public API alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use portcullis::{
    Now, Principal, PrincipalKind,
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    policy::{AccessQuery, PolicyBackend, QueryParts, Rbac, Resource, Verdict},
};

fn principal(subject: &str, roles: &[&str]) -> Principal {
    Principal::builder(PrincipalKind::User, "https://id.example.com", subject, "jwt")
        .roles(roles.iter().copied())
        .build()
}

fn rbac() -> Rbac {
    Rbac::from_toml(
        r#"
        version = "1"
        permissions = ["orders:read", "orders:cancel"]
        [roles.clerk]
        grants = ["orders:read"]
        grants_own = ["orders:cancel"]
        "#,
    )
    .unwrap()
}

fn fixture() -> PolicyFixture {
    let clerk = principal("alice", &["clerk"]);
    PolicyFixture::new(PolicyQuestion::new(clerk.clone(), "orders:read"), PolicyQuestion::new(clerk, "orders:cancel"))
}

#[tokio::test]
async fn rbac_conforms_alone_and_behind_pointers() {
    policy_backend(&rbac(), fixture()).await;
    policy_backend(&Arc::new(rbac()), fixture()).await;
    let erased: Arc<dyn PolicyBackend> = Arc::new(rbac());
    policy_backend(&erased, fixture()).await;
    let boxed: Box<dyn PolicyBackend> = Box::new(rbac());
    policy_backend(&boxed, fixture()).await;
}

#[tokio::test]
async fn rbac_conforms_after_a_reload_and_with_all_that_a_policy_can_say() {
    let policy = rbac();
    let full = r#"{
        "version": "2", "permissions": ["orders:read", "orders:cancel"],
        "roles": { "clerk": { "grants": ["*:read"] }, "auditor": { "denies": ["orders:*"] }, "boss": { "grants": ["*"] } },
        "exclusive": [{ "name": "eyes", "roles": ["boss", "clerk"] }],
        "assignments": [
            { "issuer": "https://id.example.com", "subject": "carol", "roles": ["boss"] },
            { "issuer": "https://id.example.com", "subject": "dan", "tenant": "acme", "roles": ["boss"] }
        ]
    }"#;
    policy.replace_with_json(full).unwrap();
    policy_backend(&policy, fixture()).await;
    let cancel = |subject: &str, roles: &[&str]| PolicyQuestion::new(principal(subject, roles), "orders:cancel");
    let of_acme = |question: PolicyQuestion| question.on(Resource::new("order", 1).in_tenant("acme"));
    for (allowed, denied) in [
        (cancel("carol", &[]), cancel("dan", &[])),
        (of_acme(cancel("dan", &[])), of_acme(cancel("erin", &[]))),
        (cancel("erin", &["boss"]), cancel("erin", &["boss", "clerk"])),
        (cancel("erin", &["boss"]), cancel("erin", &["boss", "auditor"])),
    ] {
        policy_backend(&policy, PolicyFixture::new(allowed, denied)).await;
    }
}

#[tokio::test]
async fn rbac_conforms_on_owned_things() {
    let own = Resource::new("order", 1).owned_by("https://id.example.com", "alice");
    let cancel = |subject: &str| PolicyQuestion::new(principal(subject, &["clerk"]), "orders:cancel").on(own.clone());
    policy_backend(&rbac(), PolicyFixture::new(cancel("alice"), cancel("bob"))).await;
}

/// Office hours, asked of somebody far away: it only answers after waiting.
#[derive(Debug)]
struct Remote {
    up: bool,
}

#[async_trait]
impl PolicyBackend for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        if !self.up || query.subject().subject() == "the one it cannot look up" {
            return Verdict::cannot_decide("no answer");
        }
        match query.action() {
            "office:enter" if query.subject().has_role("employee") => Verdict::allow(),
            _ => Verdict::deny("not for you"),
        }
    }
}

#[tokio::test]
async fn a_backend_of_ones_own_that_waits_conforms() {
    let question = |subject, roles: &[&str]| PolicyQuestion::new(principal(subject, roles), "office:enter");
    let fixture = PolicyFixture::new(question("alice", &["employee"]), question("mallory", &["guest"]))
        .undecidable(question("the one it cannot look up", &["employee"]));
    policy_backend(&Remote { up: true }, fixture).await;
}

/// Each breaks one rule; the suite must tell.
#[derive(Debug)]
enum Broken {
    AllowsWhatItDoesNotKnow,
    AllowsStrangers,
    Disagrees,
    OpensOnFailure,
    Nameless,
    AnswersOthersInABatch,
    LosesAnswers,
    LooksAtTheClock,
    LooksAtTheAddress,
    CountsDecisions(AtomicU64),
}

impl Broken {
    fn verdict(&self, query: &AccessQuery<'_>) -> Verdict {
        let clerk = query.subject().has_role("clerk");
        match (self, query.action()) {
            (_, "orders:cancel") => Verdict::deny("no"),
            (Self::AllowsStrangers, "orders:read") => Verdict::allow(),
            (Self::LooksAtTheClock, _) if query.at().unix_seconds() > 1_800_000_000 => Verdict::deny("too late"),
            (Self::LooksAtTheAddress, _) if query.address().is_some() => Verdict::cannot_decide("an address"),
            (_, "orders:read") if clerk => Verdict::allow(),
            (Self::OpensOnFailure, "backend:down") => Verdict::allow(),
            (_, "backend:down") => Verdict::cannot_decide("down"),
            (Self::AllowsWhatItDoesNotKnow, _) if clerk => Verdict::allow(),
            _ => Verdict::deny("no"),
        }
    }
}

#[async_trait]
impl PolicyBackend for Broken {
    fn name(&self) -> &'static str {
        if matches!(self, Self::Nameless) { "" } else { "broken" }
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        match self {
            Self::Disagrees => Now::Known(Verdict::allow()),
            _ => Now::Known(self.verdict(query)),
        }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.verdict(query)
    }

    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let verdicts = queries.iter().map(|query| self.verdict(query));
        match self {
            Self::AnswersOthersInABatch => verdicts.rev().collect(),
            Self::LosesAnswers => verdicts.skip(1).collect(),
            _ => verdicts.collect(),
        }
    }

    fn generation(&self) -> Option<u64> {
        match self {
            Self::CountsDecisions(count) => Some(count.fetch_add(1, Ordering::SeqCst)),
            _ => None,
        }
    }

    fn parts(&self) -> QueryParts {
        QueryParts::ROLES
    }
}

#[tokio::test]
async fn the_suite_finds_each_broken_rule() {
    for (broken, sentence) in [
        (Broken::AllowsWhatItDoesNotKnow, "an action that the policy does not know must be deny"),
        (Broken::AllowsStrangers, "a principal without roles, scopes and permissions must be deny"),
        (Broken::Disagrees, "`decide_now` and `decide` must give the same verdict"),
        (Broken::OpensOnFailure, "the fixture's undecidable question must be cannot_decide"),
        (Broken::Nameless, "a backend must have a name"),
        (Broken::AnswersOthersInABatch, "`decide_all` and `decide` must give the same verdict"),
        (Broken::LosesAnswers, "`decide_all` must give one verdict for each question"),
        (Broken::LooksAtTheClock, "time is not among `parts` and must change no verdict"),
        (Broken::LooksAtTheAddress, "address is not among `parts` and must change no verdict"),
        (Broken::CountsDecisions(AtomicU64::new(0)), "the generation must not change while nothing is reloaded"),
    ] {
        let name = format!("{broken:?}");
        let fixture = fixture().undecidable(PolicyQuestion::new(principal("alice", &["clerk"]), "backend:down"));
        let suite = tokio::spawn(async move { policy_backend(&broken, fixture).await });
        let panic = suite.await.expect_err(&name).into_panic();
        let said = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(ToString::to_string));
        assert!(said.as_deref().unwrap_or_default().contains(sentence), "{name}: {said:?}");
    }
}
