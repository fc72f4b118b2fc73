use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use crate::{
    clock::Instants,
    now::Now,
    policy::{AccessQuery, Attributes, Decision, PolicyBackend, QueryParts, Resource, Verdict},
    principal::Principal,
};

const STEP_UP: &str = "the fixture's question that a step-up helps";
/// An action that no policy should know.
const UNKNOWN_ACTION: &str = "portcullis-conformance:no-such-action";

/// One question of a [`PolicyFixture`].
#[derive(Clone, Debug)]
pub struct PolicyQuestion {
    subject: Principal,
    action: String,
    resource: Option<Resource>,
}

impl PolicyQuestion {
    /// May `subject` do `action`?
    pub fn new(subject: Principal, action: impl Into<String>) -> Self {
        Self { subject, action: action.into(), resource: None }
    }

    /// Names the thing that it is done to.
    #[must_use]
    pub fn on(mut self, resource: Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    fn query(&self, at: Instants) -> AccessQuery<'_> {
        let query = AccessQuery::new(&self.subject, &self.action, at);
        match &self.resource {
            Some(resource) => query.on(resource),
            None => query,
        }
    }
}

/// What [`policy_backend`] needs to know about the policy that is loaded: one question that it allows, one that it denies,
/// and, if the backend can be brought there, one that it cannot decide.
#[derive(Clone, Debug)]
pub struct PolicyFixture {
    allowed: PolicyQuestion,
    denied: PolicyQuestion,
    undecidable: Option<PolicyQuestion>,
    step_up: Option<PolicyQuestion>,
    at: Instants,
}

impl PolicyFixture {
    /// Names a question that is allowed because of what the subject's credential says (a role, say), and one that is denied.
    #[must_use]
    pub const fn new(allowed: PolicyQuestion, denied: PolicyQuestion) -> Self {
        Self { allowed, denied, undecidable: None, step_up: None, at: Instants::new(1_800_000_000_000_000_000, 0) }
    }

    /// Names a question that the backend cannot decide, because whoever it must ask is away.
    #[must_use]
    pub fn undecidable(mut self, question: PolicyQuestion) -> Self {
        self.undecidable = Some(question);
        self
    }

    /// Names a question that the backend denies until a [step-up](Verdict::step_up).
    #[must_use]
    pub fn step_up(mut self, question: PolicyQuestion) -> Self {
        self.step_up = Some(question);
        self
    }

    /// Sets the time of the questions; the default is 2027-01-15 08:00:00 UTC.
    #[must_use]
    pub const fn at(mut self, at: Instants) -> Self {
        self.at = at;
        self
    }
}

/// Checks what every [`PolicyBackend`] must do:
/// 1. it has a name;
/// 2. what the policy allows is allowed, what it denies is denied, what it cannot decide is neither;
/// 3. an action that it does not know is denied, also to who may do something else;
/// 4. a principal that brings no roles, scopes and permissions is denied what the allowed one may do;
/// 5. the answer at once, the answer after waiting and the answer to several questions are the same, and the same question
///    gets the same answer again;
/// 6. a question that it denies until a step-up gets such a demand, one that the principal does not meet; no other denial has one;
/// 7. what it does not name among its [`parts`](PolicyBackend::parts) changes no verdict;
/// 8. its generation does not change while nothing is reloaded.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn policy_backend(backend: &dyn PolicyBackend, fixture: PolicyFixture) {
    let PolicyFixture { allowed, denied, undecidable, step_up, at } = fixture;
    assert!(!backend.name().is_empty(), "a backend must have a name: records show it");
    let generation = backend.generation();

    let stranger =
        Principal::builder(allowed.subject.kind(), "portcullis-conformance", "stranger", allowed.subject.credential());
    let unknown = PolicyQuestion { action: UNKNOWN_ACTION.to_owned(), ..allowed.clone() };
    let unprivileged = PolicyQuestion { subject: stranger.build(), ..allowed.clone() };
    let table = [
        ("the fixture's allowed question", Some(allowed), Decision::Allow),
        ("the fixture's denied question", Some(denied), Decision::Deny),
        ("an action that the policy does not know", Some(unknown), Decision::Deny),
        ("a principal without roles, scopes and permissions", Some(unprivileged), Decision::Deny),
        ("the fixture's undecidable question", undecidable, Decision::CannotDecide),
        (STEP_UP, step_up, Decision::Deny),
    ];
    let table: Vec<_> = table.into_iter().filter_map(|(name, asked, is)| Some((name, asked?, is))).collect();
    for (name, question, expected) in &table {
        let query = question.query(at);
        let verdict = answer(backend, &query, name).await;
        assert_eq!(verdict.decision(), *expected, "{name} must be {}", expected.as_str());
        let demand = verdict.step_up_demand();
        assert_eq!(
            demand.is_some(),
            *name == STEP_UP,
            "{name}: what would help is told where it would, and nowhere else"
        );
        assert!(
            demand.is_none_or(|demand| !demand.is_met_by(&question.subject, at)),
            "{name}: a step-up that the principal has made already must not be demanded"
        );
        let again = answer(backend, &query, name).await;
        assert_eq!(again.decision(), *expected, "{name} must get the same answer again");
        for (part, changed) in without_what_is_not_read(backend.parts(), query, at) {
            let decision = answer(backend, &changed, name).await.decision();
            assert_eq!(decision, *expected, "{name}: {part} is not among `parts` and must change no verdict");
        }
    }
    let queries: Vec<AccessQuery<'_>> = table.iter().map(|(_, question, _)| question.query(at)).collect();
    let verdicts = backend.decide_all(&queries).await;
    assert_eq!(verdicts.len(), table.len(), "`decide_all` must give one verdict for each question");
    for (verdict, (name, _, expected)) in verdicts.iter().zip(&table) {
        assert_eq!(verdict.decision(), *expected, "{name}: `decide_all` and `decide` must give the same verdict");
    }
    assert!(backend.decide_all(&[]).await.is_empty(), "no questions must get no verdicts");
    assert_eq!(backend.generation(), generation, "the generation must not change while nothing is reloaded");
}

/// Asks in both ways, and demands one answer.
async fn answer(backend: &dyn PolicyBackend, query: &AccessQuery<'_>, name: &str) -> Verdict {
    let at_once = backend.decide_now(query);
    let verdict = backend.decide(query).await;
    if let Now::Known(at_once) = at_once {
        assert_eq!(at_once, verdict, "{name}: `decide_now` and `decide` must give the same verdict");
    }
    verdict
}

/// The same question, once for each part that is not read, with another value there.
fn without_what_is_not_read<'a>(
    parts: QueryParts,
    query: AccessQuery<'a>,
    at: Instants,
) -> Vec<(&'static str, AccessQuery<'a>)> {
    static ATTRIBUTES: LazyLock<Attributes> =
        LazyLock::new(|| Attributes::new().with("portcullis-conformance", "an attribute"));
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
    let later = Instants::new(at.unix_nanos().saturating_add(YEAR), at.monotonic_nanos().saturating_add(YEAR));
    let changes = [
        ("attributes", QueryParts::ATTRIBUTES, query.with_attributes(&ATTRIBUTES)),
        ("method", QueryParts::METHOD, query.with_route("PORTCULLIS-CONFORMANCE", query.route())),
        ("route", QueryParts::METHOD.and(QueryParts::ROUTE), query.with_route("GET", Some("/portcullis-conformance"))),
        ("address", QueryParts::ADDRESS, query.with_address(Some(ADDRESS))),
        ("time", QueryParts::TIME, query.at_time(later)),
        ("client", QueryParts::CLIENT, query.with_client(Some(query.subject()))),
    ];
    let unread = changes.into_iter().filter(|(_, part, _)| parts.without(*part) == parts);
    unread.map(|(name, _, changed)| (name, changed)).collect()
}

/// In nanoseconds.
const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;
