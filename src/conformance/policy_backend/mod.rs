mod unread;

use crate::{
    clock::Instants,
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, Resource, Verdict},
    principal::Principal,
};

use unread::{Alike, Others, alike};

const STEP_UP: &str = "the fixture's question that a step-up helps";
const OBLIGED: &str = "the fixture's question that is allowed with an obligation";
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
    obliged: Option<PolicyQuestion>,
    at: Instants,
}

impl PolicyFixture {
    /// Names a question that is allowed because of what the subject's credential says (a role, say), and one that is denied.
    #[must_use]
    pub const fn new(allowed: PolicyQuestion, denied: PolicyQuestion) -> Self {
        Self {
            allowed,
            denied,
            undecidable: None,
            step_up: None,
            obliged: None,
            at: Instants::new(1_800_000_000_000_000_000, 0),
        }
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

    /// Names a question that the backend allows with an [obligation](Verdict::obliging).
    #[must_use]
    pub fn obliged(mut self, question: PolicyQuestion) -> Self {
        self.obliged = Some(question);
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
/// 5. the answer at once, the answer after waiting and the answer to several questions are the same, reasons, obligations and all,
///    and the same question gets the same answer again;
/// 6. a question that it denies until a step-up gets such a demand, one that the principal does not meet; no other denial has one;
/// 7. what it does not name among its [`parts`](PolicyBackend::parts) changes no verdict: each part is given other values alone,
///    those of the fixture's other questions among them;
/// 8. it knows the actions that it allows, if it is [asked](PolicyBackend::check_action);
/// 9. its generation does not change while nothing is reloaded.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn policy_backend(backend: &dyn PolicyBackend, fixture: PolicyFixture) {
    let PolicyFixture { allowed, denied, undecidable, step_up, obliged, at } = fixture;
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
        (OBLIGED, obliged, Decision::Allow),
    ];
    let table: Vec<_> = table.into_iter().filter_map(|(name, asked, is)| Some((name, asked?, is))).collect();
    let others = Others::new(table.iter().map(|(_, question, _)| (&question.subject, question.resource.as_ref())));
    let mut answers = Vec::with_capacity(table.len());
    for (name, question, expected) in &table {
        let query = question.query(at);
        let verdict = answer(backend, &query, name).await;
        assert_eq!(verdict.decision(), *expected, "{name} must be {}", expected.as_str());
        if verdict.is_allow() {
            let known = backend.check_action(query.action());
            assert!(known.is_ok(), "{name}: check_action must know an action that is allowed: {known:?}");
        }
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
        assert!(
            *name != OBLIGED || !verdict.obligations().is_empty(),
            "{name} must have the obligation that makes it one"
        );
        assert_eq!(answer(backend, &query, name).await, verdict, "{name} must get the same answer again");
        let principals = others.principals(backend.parts(), query.subject());
        let resources = others.resources(backend.parts(), query.resource());
        for Alike { query, others } in alike(backend.parts(), query, &others, &principals, &resources) {
            if others.is_empty() {
                continue;
            }
            let verdict = answer(backend, &query, name).await;
            for (part, other) in others {
                let other = answer(backend, &other, name).await;
                assert_eq!(other, verdict, "{name}: {part} is not among `parts` and must change no verdict");
            }
        }
        answers.push(verdict);
    }
    let queries: Vec<AccessQuery<'_>> = table.iter().map(|(_, question, _)| question.query(at)).collect();
    let verdicts = backend.decide_all(&queries).await;
    assert_eq!(verdicts.len(), table.len(), "`decide_all` must give one verdict for each question");
    for ((verdict, answer), (name, ..)) in verdicts.iter().zip(&answers).zip(&table) {
        assert_eq!(verdict, answer, "{name}: `decide_all` and `decide` must give the same verdict");
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
