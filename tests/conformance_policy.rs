//! The suite for policy backends, on what the crate has and on a backend that is written with public API alone.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use portcullis::{
    Now, Principal, PrincipalKind,
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    policy::{AccessQuery, Attributes, PolicyBackend, QueryParts, Rbac, Resource, Verdict},
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
        "version": "2", "allow_tenantless": true, "permissions": ["orders:read", "orders:cancel"],
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
    HasOfficeHours,
    RestsOnSundays,
    LooksAtTheAddress,
    TrustsTheOffice,
    /// Reads the part of this name, and says that it does not.
    Reads(&'static str),
    ForgetsObligationsInABatch,
    ForgetsObligationsTheSecondTime(AtomicU64),
    TellsOfTheSubject,
    CountsDecisions(AtomicU64),
}

const ID: &str = "https://id.example.com";

/// Whether a backend that reads this part finds there what the fixture's questions do not have.
fn finds_something_else(part: &str, query: &AccessQuery<'_>) -> bool {
    let who = query.subject();
    match part {
        "the owner" => query.resource().is_some_and(|resource| resource.owner().is_some()),
        "the tenant of the thing" => query.resource().is_some_and(|resource| resource.tenant().is_some()),
        "attributes of the thing" => query.resource().is_some_and(|resource| !resource.attributes().is_empty()),
        "the thing" => query.resource().is_some(),
        "the subject" => who.subject() != "alice",
        "the issuer" => who.issuer() != ID,
        "scopes" => !who.scopes().is_empty(),
        "permissions" => !who.permissions().is_empty(),
        "the tenant" => who.tenant().is_some(),
        "acr" => who.acr().is_some(),
        "amr" => who.factors() > 0,
        "auth_time" => who.auth_time().is_some(),
        "the kind" => who.kind() != PrincipalKind::User,
        "the credential" => who.credential() != "jwt",
        "its id" => who.credential_id().is_some(),
        "the plan" => who.plan().is_some(),
        "the end" => who.expires_at().is_some(),
        "claims" => who.claims::<serde_json::Value>().is_ok(),
        "the client" => query.client().is_some(),
        "attributes" => query.attributes().is_some(),
        "attributes, of which there are none" => query.attributes().is_some_and(Attributes::is_empty),
        "the method" => query.method() == Some("DELETE"),
        "the route" => query.route().is_some(),
        other => panic!("{other}"),
    }
}

impl Broken {
    fn verdict(&self, query: &AccessQuery<'_>) -> Verdict {
        let clerk = query.subject().has_role("clerk");
        match (self, query.action()) {
            (_, "orders:cancel") => Verdict::deny("no"),
            (Self::AllowsStrangers, "orders:read") => Verdict::allow(),
            (Self::LooksAtTheClock, _) if query.at().unix_seconds() > 1_800_000_000 => Verdict::deny("too late"),
            (Self::HasOfficeHours, _) if !(8..18).contains(&(query.at().unix_seconds() / 3_600 % 24)) => {
                Verdict::deny("closed")
            }
            // 1970 began on a Thursday.
            (Self::RestsOnSundays, _) if (query.at().unix_seconds() / 86_400 + 4) % 7 == 0 => Verdict::deny("closed"),
            (Self::TrustsTheOffice, _) if query.address() == Some([10, 0, 0, 77].into()) => Verdict::allow(),
            (Self::LooksAtTheAddress, _) if query.address().is_some() => Verdict::cannot_decide("an address"),
            (Self::TellsOfTheSubject, "orders:read") if clerk => {
                Verdict::allow().because(format!("{} is a clerk", query.subject().subject()))
            }
            (Self::Reads(part), _) if finds_something_else(part, query) => Verdict::deny("something else"),
            (_, "orders:read") if clerk => Verdict::allow(),
            (Self::ForgetsObligationsTheSecondTime(asked), "orders:export")
                if clerk && asked.fetch_add(1, Ordering::SeqCst) > 1 =>
            {
                Verdict::allow()
            }
            (_, "orders:export") if clerk => Verdict::allow().obliging("mask"),
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
            Self::ForgetsObligationsInABatch => {
                verdicts.map(|verdict| if verdict.is_allow() { Verdict::allow() } else { verdict }).collect()
            }
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

/// What the suite says of a backend that breaks a rule.
async fn found(broken: impl PolicyBackend) -> String {
    let clerk = |action: &str| PolicyQuestion::new(principal("alice", &["clerk"]), action);
    let fixture = fixture().undecidable(clerk("backend:down")).obliged(clerk("orders:export"));
    let name = format!("{broken:?}");
    let suite = tokio::spawn(async move { policy_backend(&broken, fixture).await });
    let panic = suite.await.expect_err(&name).into_panic();
    let said = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(ToString::to_string));
    said.unwrap_or_default()
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
        (Broken::ForgetsObligationsInABatch, "an obligation: `decide_all` and `decide` must give the same verdict"),
        (Broken::ForgetsObligationsTheSecondTime(AtomicU64::new(0)), "an obligation must get the same answer again"),
        (Broken::TellsOfTheSubject, "subject is not among `parts` and must change no verdict"),
        (Broken::LooksAtTheClock, "time is not among `parts` and must change no verdict"),
        (Broken::HasOfficeHours, "time is not among `parts` and must change no verdict"),
        (Broken::RestsOnSundays, "time is not among `parts` and must change no verdict"),
        (Broken::TrustsTheOffice, "address is not among `parts` and must change no verdict"),
        (Broken::LooksAtTheAddress, "address is not among `parts` and must change no verdict"),
        (Broken::CountsDecisions(AtomicU64::new(0)), "the generation must not change while nothing is reloaded"),
    ] {
        let name = format!("{broken:?}");
        let said = found(broken).await;
        assert!(said.contains(sentence), "{name}: {said}");
    }
}

#[tokio::test]
async fn the_suite_finds_each_part_that_is_read_and_not_named() {
    for (read, part) in [
        ("the owner", "resource facts"),
        ("the tenant of the thing", "resource facts"),
        ("attributes of the thing", "resource facts"),
        ("the thing", "resource"),
        ("the subject", "subject"),
        ("the issuer", "subject"),
        ("scopes", "scopes"),
        ("permissions", "permissions"),
        ("the tenant", "tenant"),
        ("acr", "strength"),
        ("amr", "strength"),
        ("auth_time", "strength"),
        ("the kind", "claims"),
        ("the credential", "claims"),
        ("its id", "claims"),
        ("the plan", "claims"),
        ("the end", "claims"),
        ("claims", "claims"),
        ("the client", "client"),
        ("attributes", "attributes"),
        ("attributes, of which there are none", "attributes"),
        ("the method", "method"),
        ("the route", "route"),
    ] {
        let said = found(Broken::Reads(read)).await;
        assert!(said.contains(&format!(": {part} is not among `parts` and must change no verdict")), "{read}: {said}");
    }
}

/// Says that its verdicts hang on these parts, and lets owners do what they like.
#[derive(Debug)]
struct Owners(QueryParts);

#[async_trait]
impl PolicyBackend for Owners {
    fn name(&self) -> &'static str {
        "owners"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        let owns = query.resource().is_some_and(|resource| resource.is_owned_by(query.subject()));
        match query.action() {
            "orders:read" if owns && query.subject().has_role("clerk") => Verdict::allow(),
            _ => Verdict::deny("not yours"),
        }
    }

    fn parts(&self) -> QueryParts {
        self.0
    }
}

/// Says that its verdicts hang on these parts, and asks whether there is a thing.
#[derive(Debug)]
struct AnyThing(QueryParts);

#[async_trait]
impl PolicyBackend for AnyThing {
    fn name(&self) -> &'static str {
        "any thing"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match (query.action(), query.resource()) {
            ("orders:read", Some(_)) if query.subject().has_role("clerk") => Verdict::allow(),
            _ => Verdict::deny("no thing"),
        }
    }

    fn parts(&self) -> QueryParts {
        self.0
    }
}

/// Both ways: the fixture's question may have a thing without facts, or none.
#[tokio::test]
async fn whether_there_is_a_thing_is_not_among_its_facts() {
    let ask = |action: &str| PolicyQuestion::new(principal("alice", &["clerk"]), action);
    let on = |action: &str| ask(action).on(Resource::new("order", 1));
    let facts = QueryParts::ROLES.and(QueryParts::RESOURCE_FACTS);
    for fixture in [
        PolicyFixture::new(on("orders:read"), on("orders:cancel")),
        PolicyFixture::new(on("orders:read"), ask("orders:read")),
    ] {
        policy_backend(&AnyThing(facts.and(QueryParts::RESOURCE)), fixture.clone()).await;
        let suite = tokio::spawn(async move { policy_backend(&AnyThing(facts), fixture).await });
        let panic = suite.await.unwrap_err().into_panic();
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains(": resource is not among `parts`"), "{said}");
    }
}

#[tokio::test]
async fn a_backend_that_looks_at_owners_names_all_that_it_reads() {
    let order = || Resource::new("order", 1).owned_by(ID, "alice");
    let read = move |name: &str| PolicyQuestion::new(principal(name, &["clerk"]), "orders:read").on(order());
    let all = QueryParts::ROLES.and(QueryParts::SUBJECT).and(QueryParts::RESOURCE_FACTS);
    policy_backend(&Owners(all), PolicyFixture::new(read("alice"), read("bob"))).await;
    for part in [QueryParts::SUBJECT, QueryParts::ROLES, QueryParts::RESOURCE_FACTS] {
        let backend = Owners(all.without(part).and(QueryParts::RESOURCE));
        let suite = tokio::spawn(async move {
            policy_backend(&backend, PolicyFixture::new(read("alice"), read("bob"))).await;
        });
        let panic = suite.await.unwrap_err().into_panic();
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains(&format!("{part} is not among `parts`")), "{part}: {said}");
    }
}
