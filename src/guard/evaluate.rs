//! From a requirement to what it comes to: three-valued, at once where everything is in memory.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc};

use http::Method;

use crate::{
    clock::Instants,
    context::misordered,
    guard::{predicate::Predicate, requirement::Node, resource::ResourceSource, truth::Truth},
    head::RequestHead,
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, Resource, Verdict},
    principal::Principal,
    rejection::Rejection,
    trail::{DecisionFact, Trail},
};

/// No policy backend where one is needed; the text says how to mend it.
pub(super) const NO_POLICY: &str =
    "no policy where one must be asked: set it on the stack, or with GuardLayer::with_policy outside";

/// What a requirement is asked about.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) head: RequestHead<'a>,
    pub(super) subject: &'a Principal,
    /// See [`Envelope::scheme`](crate::context::Envelope::scheme).
    pub(super) scheme: Option<&'static str>,
    pub(super) client: Option<&'a Principal>,
    pub(super) policy: Option<&'a dyn PolicyBackend>,
    pub(super) resource: Option<&'a Resource>,
    /// Where the guard finds the resource.
    pub(super) source: Option<&'a ResourceSource>,
    pub(super) route: Option<&'a str>,
    pub(super) address: Option<IpAddr>,
    pub(super) at: Instants,
    pub(super) fulfilled: &'a [Box<str>],
}

impl Ask<'_> {
    /// Whether the predicate looks at what the guard's thing can never tell: a `not` around it would pass everybody.
    fn is_untold(&self, predicate: &Predicate) -> bool {
        self.source.zip(predicate.fact()).is_some_and(|(source, fact)| !source.may_tell(fact))
    }
}

/// What it comes to, and what that would be if the credential carried every scope that is asked for, or the person had proved who
/// they are as strongly and lately as is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) truth: Truth,
    pub(super) with_scopes: Truth,
    pub(super) with_strength: Truth,
}

impl Answer {
    const fn of(truth: Truth) -> Self {
        Self { truth, with_scopes: truth, with_strength: truth }
    }

    fn all(self, fits: impl Fn(Truth) -> bool) -> bool {
        [self.truth, self.with_scopes, self.with_strength].into_iter().all(fits)
    }

    const fn negate(self) -> Self {
        Self {
            truth: self.truth.negate(),
            with_scopes: self.with_scopes.negate(),
            with_strength: self.with_strength.negate(),
        }
    }
}

/// How the parts of a combination join.
#[derive(Clone, Copy)]
enum Join {
    All,
    Any,
}

impl Join {
    const fn start(self) -> Answer {
        match self {
            Self::All => Answer::of(Truth::Yes),
            Self::Any => Answer::of(Truth::No),
        }
    }

    fn add(self, so_far: Answer, next: Answer) -> Answer {
        match self {
            Self::All => Answer {
                truth: so_far.truth.and(next.truth),
                with_scopes: so_far.with_scopes.and(next.with_scopes),
                with_strength: so_far.with_strength.and(next.with_strength),
            },
            Self::Any => Answer {
                truth: so_far.truth.or(next.truth),
                with_scopes: so_far.with_scopes.or(next.with_scopes),
                with_strength: so_far.with_strength.or(next.with_strength),
            },
        }
    }

    /// Whether no further part can change it. A firm denial settles it where it is one like any other: no `not` stands outside.
    fn is_settled(self, so_far: Answer, negated: bool) -> bool {
        match self {
            Self::All => so_far.all(|truth| match truth {
                Truth::No => true,
                Truth::Refused => !negated,
                Truth::Unknown | Truth::Yes => false,
            }),
            Self::Any => so_far.all(|truth| truth == Truth::Yes),
        }
    }
}

/// Decides without waiting, if the parts that can answer at once settle it. `helps` tells that no `not` stands outside:
/// only there more scopes or a stronger proof could help.
pub(super) fn decide_now(node: &Node, ask: &Ask<'_>, trail: &mut Trail, helps: bool) -> Now<Result<Answer, Rejection>> {
    match node {
        Node::All(nodes) => join_now(Join::All, nodes, ask, trail, helps),
        Node::Any(nodes) => join_now(Join::Any, nodes, ask, trail, helps),
        Node::Not(node) => decide_now(node, ask, trail, false).map(|answer| answer.map(Answer::negate)),
        Node::Authenticated => settle(trail, "authenticated", None, Verdict::allow()),
        #[cfg(feature = "rbac")]
        Node::Permission(permission) => {
            if permission.leaves_owner_to_handler(ask.subject, ask.resource) {
                trail.leave_owner_to_handler(permission.shared_name());
            }
            settle(trail, "rbac", Some(permission.shared_name()), permission.verdict(ask.subject, ask.resource))
        }
        #[cfg(feature = "rbac")]
        Node::Role(role) => settle(trail, "role", Some(role.shared_name()), role.verdict(ask.subject, ask.resource)),
        Node::RoleNamed(name) => settle(trail, "role", Some(name), allow_if(ask.subject.has_role(name))),
        Node::Scope(scope) => {
            let held = ask.subject.has_scope(scope);
            settle(trail, "scope", Some(scope), allow_if(held)).map(|answer| {
                answer.map(|answer| if helps { Answer { with_scopes: Truth::Yes, ..answer } } else { answer })
            })
        }
        Node::Strength(strength) => {
            let verdict = allow_if(strength.is_met_by(ask.subject, ask.at));
            settle(trail, "strength", Some(strength.name()), verdict).map(|answer| {
                answer.map(|answer| if helps { Answer { with_strength: Truth::Yes, ..answer } } else { answer })
            })
        }
        Node::Predicate(predicate) if ask.is_untold(predicate) => {
            let verdict = Verdict::cannot_decide("the guard's thing does not tell it");
            settle(trail, "predicate", Some(predicate.name()), verdict)
        }
        Node::Predicate(predicate) => {
            let verdict = match predicate.test(&query(ask, predicate.name())) {
                Decision::Allow => Verdict::allow(),
                Decision::Deny => Verdict::deny("does not hold"),
                Decision::CannotDecide => Verdict::cannot_decide("what it needs is not known"),
            };
            settle(trail, "predicate", Some(predicate.name()), verdict)
        }
        Node::Check(name, test) => settle(trail, "check", Some(name), allow_if(test(ask.subject, &ask.head))),
        Node::Policy(action) => match ask.policy {
            Some(policy) => match policy.decide_now(&query(ask, action)) {
                Now::Known(verdict) => Now::Known(conclude(policy, action, verdict, ask, trail, helps)),
                Now::Wait => Now::Wait,
            },
            None => Now::Known(Err(misordered(NO_POLICY))),
        },
    }
}

fn join_now(
    join: Join,
    nodes: &[Node],
    ask: &Ask<'_>,
    trail: &mut Trail,
    helps: bool,
) -> Now<Result<Answer, Rejection>> {
    let mut so_far = join.start();
    let mut waits = false;
    for node in nodes {
        match decide_now(node, ask, trail, helps) {
            Now::Known(Ok(answer)) => so_far = join.add(so_far, answer),
            // What comes before it may settle it: whether this part is asked at all is known when that has come.
            Now::Known(Err(_)) if waits => return Now::Wait,
            Now::Known(Err(rejection)) => return Now::Known(Err(rejection)),
            Now::Wait => waits = true,
        }
        if join.is_settled(so_far, !helps) {
            return Now::Known(Ok(so_far));
        }
    }
    if waits { Now::Wait } else { Now::Known(Ok(so_far)) }
}

/// Decides what [`decide_now`] could not.
pub(super) fn decide<'a>(
    node: &'a Node,
    ask: &'a Ask<'a>,
    trail: &'a mut Trail,
    helps: bool,
) -> Pin<Box<dyn Future<Output = Result<Answer, Rejection>> + Send + 'a>> {
    Box::pin(async move {
        let (join, nodes) = match node {
            Node::All(nodes) => (Join::All, nodes),
            Node::Any(nodes) => (Join::Any, nodes),
            Node::Not(node) => return decide(node, ask, trail, false).await.map(Answer::negate),
            Node::Policy(action) => return ask_policy(action, ask, trail, helps).await,
            leaf => {
                return match decide_now(leaf, ask, trail, helps) {
                    Now::Known(answer) => answer,
                    Now::Wait => Ok(Answer::of(Truth::Unknown)),
                };
            }
        };
        let mut so_far = join.start();
        let mut waiting = Vec::new();
        for node in nodes {
            let mark = trail.mark();
            match decide_now(node, ask, trail, helps) {
                Now::Known(Ok(answer)) => so_far = join.add(so_far, answer),
                // Whether a part that refuses is asked at all is known when what waits before it has come.
                Now::Known(Err(_)) | Now::Wait => {
                    trail.rewind(mark);
                    waiting.push(node);
                }
            }
            // Nobody is asked about what the rest settles: it costs time, and may oblige to something that does not matter then.
            if join.is_settled(so_far, !helps) {
                return Ok(so_far);
            }
        }
        for node in waiting {
            if join.is_settled(so_far, !helps) {
                break;
            }
            so_far = join.add(so_far, decide(node, ask, &mut *trail, helps).await?);
        }
        Ok(so_far)
    })
}

async fn ask_policy(action: &Arc<str>, ask: &Ask<'_>, trail: &mut Trail, helps: bool) -> Result<Answer, Rejection> {
    let policy = ask.policy.ok_or_else(|| misordered(NO_POLICY))?;
    let verdict = policy.decide(&query(ask, action)).await;
    conclude(policy, action, verdict, ask, trail, helps)
}

/// HEAD is decided as GET: a handler of GET answers both.
fn query<'a>(ask: &Ask<'a>, action: &'a str) -> AccessQuery<'a> {
    let method = match *ask.head.method() {
        Method::HEAD => "GET",
        _ => ask.head.method().as_str(),
    };
    let query = AccessQuery::new(ask.subject, action, ask.at)
        .with_client(ask.client)
        .with_route(method, ask.route)
        .with_address(ask.address);
    match ask.resource {
        Some(resource) => query.on(resource),
        None => query,
    }
}

fn conclude(
    policy: &dyn PolicyBackend,
    action: &Arc<str>,
    verdict: Verdict,
    ask: &Ask<'_>,
    trail: &mut Trail,
    helps: bool,
) -> Result<Answer, Rejection> {
    let (verdict, unfulfilled) = hold_to_obligations(verdict, ask.fulfilled);
    let truth = Truth::of(&verdict);
    // What is met already, and demanded all the same, would be asked for again and again.
    let demanded = verdict.step_up_demand().is_some_and(|demand| !demand.is_met_by(ask.subject, ask.at));
    let with_strength = if demanded && helps { Truth::Yes } else { truth };
    if demanded && helps {
        trail.demanded(&verdict);
    }
    trail.directed(&verdict);
    trail.decided(DecisionFact::new(policy.name(), Some(Arc::clone(action)), verdict));
    unfulfilled.map_or(Ok(Answer { with_strength, ..Answer::of(truth) }), Err)
}

/// Turns an allow into a denial and a refusal if it obliges to something that nobody declared to fulfil.
pub(super) fn hold_to_obligations(verdict: Verdict, fulfilled: &[Box<str>]) -> (Verdict, Option<Rejection>) {
    let is_fulfilled = |name: &str| fulfilled.iter().any(|held| **held == *name);
    let missing = verdict.obligations().iter().find(|obligation| !is_fulfilled(obligation.name()));
    match missing {
        Some(obligation) if verdict.is_allow() => {
            let reason = format!("obligation {:?} is not declared as fulfilled", obligation.name());
            let denied = verdict.but(Decision::Deny).because(reason.clone());
            let rejection = Rejection::new(crate::rejection::RejectionKind::Misconfigured, reason);
            (denied, Some(rejection))
        }
        Some(_) | None => (verdict, None),
    }
}

fn allow_if(held: bool) -> Verdict {
    if held { Verdict::allow() } else { Verdict::deny("not held") }
}

fn settle(
    trail: &mut Trail,
    backend: &'static str,
    action: Option<&Arc<str>>,
    verdict: Verdict,
) -> Now<Result<Answer, Rejection>> {
    let answer = Answer::of(Truth::of(&verdict));
    trail.decided(DecisionFact::new(backend, action.cloned(), verdict));
    Now::Known(Ok(answer))
}
