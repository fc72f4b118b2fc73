use crate::{
    clock::Instants,
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, Resource, Verdict},
    principal::Principal,
};

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
}

/// What [`policy_backend`] needs to know about the policy that is loaded: one question that it allows, one that it denies,
/// and, if the backend can be brought there, one that it cannot decide.
#[derive(Clone, Debug)]
pub struct PolicyFixture {
    allowed: PolicyQuestion,
    denied: PolicyQuestion,
    undecidable: Option<PolicyQuestion>,
    at: Instants,
}

impl PolicyFixture {
    /// Names a question that is allowed because of what the subject's credential says (a role, say), and one that is denied.
    #[must_use]
    pub const fn new(allowed: PolicyQuestion, denied: PolicyQuestion) -> Self {
        Self { allowed, denied, undecidable: None, at: Instants::new(1_800_000_000_000_000_000, 0) }
    }

    /// Names a question that the backend cannot decide, because whoever it must ask is away.
    #[must_use]
    pub fn undecidable(mut self, question: PolicyQuestion) -> Self {
        self.undecidable = Some(question);
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
/// 5. the answer at once and the answer after waiting are the same, and the same question gets the same answer again.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn policy_backend(backend: &dyn PolicyBackend, fixture: PolicyFixture) {
    let PolicyFixture { allowed, denied, undecidable, at } = fixture;
    assert!(!backend.name().is_empty(), "a backend must have a name: records show it");

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
    ];
    for (name, question, expected) in table {
        let Some(question) = question else { continue };
        let verdict = answer(backend, &question, at, name).await;
        assert_eq!(verdict.decision(), expected, "{name} must be {}", expected.as_str());
        let again = answer(backend, &question, at, name).await;
        assert_eq!(again.decision(), expected, "{name} must get the same answer again");
    }
}

/// Asks in both ways, and demands one answer.
async fn answer(backend: &dyn PolicyBackend, question: &PolicyQuestion, at: Instants, name: &str) -> Verdict {
    let mut query = AccessQuery::new(&question.subject, &question.action, at);
    if let Some(resource) = &question.resource {
        query = query.on(resource);
    }
    let at_once = backend.decide_now(&query);
    let verdict = backend.decide(&query).await;
    if let Now::Known(at_once) = at_once {
        assert_eq!(at_once, verdict, "{name}: `decide_now` and `decide` must give the same verdict");
    }
    verdict
}
