//! From a request and a guard to what comes of it.

use std::sync::Arc;

use super::GuardLayer;
use crate::{
    client::ClientInfo,
    context::{Envelope, Stage, misordered},
    guard::{
        evaluate::{self, Answer, Ask, NO_POLICY},
        resource::NoResource,
        route::{self, MatchedBy, Params},
        truth::Truth,
    },
    head::RequestHead,
    now::Now,
    policy::{Resource, Verdict, scheme_of},
    rejection::{Rejection, RejectionKind},
    trail::{DecisionFact, GUARD_SHADOW, Mark, Trail},
};

impl GuardLayer {
    /// Sets its policy, and finds the template of the route that matched, where it is not the request's, and the thing that the
    /// request is about, if this guard names one.
    fn resource(
        &self,
        head: &RequestHead<'_>,
        by: MatchedBy,
        envelope: &mut Envelope,
    ) -> Result<(Option<Arc<str>>, Option<Resource>), Rejection> {
        // Before anything is refused: in shadow mode the handler is asked all the same, and asks this policy.
        if let Some(policy) = &self.shared.policy {
            envelope.policy = Some(Arc::clone(policy));
        }
        if !envelope.has_run(Stage::Authentication) {
            return Err(misordered("no authentication outside the guard: add an AuthnLayer outside it"));
        }
        let other = route::other_template(head, by, envelope);
        let Some(source) = &self.shared.resource else {
            return if self.shared.needs_resource {
                Err(misordered("a guard has a condition on the thing, and names none: add GuardLayer::on"))
            } else {
                Ok((other, None))
            };
        };
        envelope.authenticated()?;
        let template = other.as_deref().or(envelope.route.as_deref());
        let params = template.map(|template| Params::of(template, route::path(head, by))).transpose();
        let found = params.and_then(|params| source.read(head, params.as_ref()));
        let found = found.map_err(|why| match why {
            NoResource::WrongRoute => misordered(
                "a guard names a thing by a parameter that its route does not have once, or the route is not known",
            ),
            NoResource::NotNamed => {
                // Before the requirement is judged, so that a `400` would tell everybody of the route.
                let kind = if self.shared.hides { RejectionKind::NotFound } else { RejectionKind::InvalidRequest };
                Rejection::new(kind, format!("the request names no thing: {source}"))
            }
        })?;
        Ok((other, Some(found)))
    }

    /// Checks what must stand before anything is asked, and hands out the question and the trail.
    fn open<'a>(
        &'a self,
        head: &RequestHead<'a>,
        other: Option<&'a str>,
        resource: Option<&'a Resource>,
        envelope: &'a mut Envelope,
    ) -> Result<(Ask<'a>, &'a mut Trail), Rejection> {
        if self.shared.asks_policy && envelope.policy.is_none() {
            return Err(misordered(NO_POLICY));
        }
        envelope.authenticated()?;
        let Envelope { subject, scheme, client_identity, client, route, policy, at, trail, .. } = envelope;
        let Some(subject) = subject.as_ref() else { return Err(misordered("the identity is gone")) };
        let ask = Ask {
            head: head.with_client(client.as_ref()),
            subject,
            scheme: *scheme,
            client: client_identity.as_ref(),
            policy: policy.as_deref(),
            resource,
            source: self.shared.resource.as_ref(),
            route: other.or(route.as_deref()),
            address: client.as_ref().and_then(ClientInfo::vouched_address),
            at: *at,
            fulfilled: &self.shared.fulfilled,
        };
        Ok((ask, trail))
    }

    /// Records the outcome of a combination, and answers the client.
    fn conclude(&self, answer: Answer, trail: &mut Trail, mark: Mark, ask: &Ask<'_>) -> Result<(), Rejection> {
        let shared = &*self.shared;
        if shared.requirement.node().is_combination() {
            let verdict = Verdict::new(answer.truth.decision());
            trail.decided(DecisionFact::new("guard", Some(Arc::clone(&shared.text)), verdict));
        }
        let refuse = |kind, why: &str| Err(Rejection::new(kind, format!("{why} {}", shared.text)));
        match answer {
            Answer { truth: Truth::Yes, .. } => Ok(()),
            Answer { truth: Truth::Unknown, .. } => refuse(RejectionKind::Unavailable, "cannot decide"),
            Answer { truth: Truth::No | Truth::Refused, .. } if shared.hides => {
                refuse(RejectionKind::NotFound, "does not meet")
            }
            Answer { with_scopes: Truth::Yes, .. } => {
                let challenges = scheme_of(ask.subject, ask.scheme)
                    .map(|scheme| shared.insufficient.scope(scheme))
                    .unwrap_or_default();
                refuse(RejectionKind::InsufficientScope, "scopes do not reach for")
                    .map_err(|rejection| rejection.with_challenges(challenges))
            }
            Answer { with_strength: Truth::Yes, .. } => match scheme_of(ask.subject, ask.scheme) {
                Some(scheme) => {
                    refuse(RejectionKind::InsufficientAuthentication, "not proved strongly or lately enough for")
                        .map_err(|rejection| {
                            let demands = trail.demands_since(mark).iter();
                            rejection.with_challenges(shared.insufficient.strength(demands, scheme))
                        })
                }
                None => refuse(RejectionKind::Forbidden, "no log-in makes the credential strong enough for"),
            },
            Answer { truth: Truth::No | Truth::Refused, .. } => refuse(RejectionKind::Forbidden, "does not meet"),
        }
    }

    /// Judges, if the answer is in memory.
    fn judge_now(&self, head: &RequestHead<'_>, by: MatchedBy, envelope: &mut Envelope) -> Now<Result<(), Rejection>> {
        let (other, resource) = match self.resource(head, by, envelope) {
            Ok(found) => found,
            Err(rejection) => return Now::Known(Err(rejection)),
        };
        let (ask, trail) = match self.open(head, other.as_deref(), resource.as_ref(), envelope) {
            Ok(opened) => opened,
            Err(rejection) => return Now::Known(Err(rejection)),
        };
        let mark = trail.mark();
        match evaluate::decide_now(self.shared.requirement.node(), &ask, trail, true) {
            Now::Known(answer) => Now::Known(answer.and_then(|answer| self.conclude(answer, trail, mark, &ask))),
            Now::Wait => {
                trail.rewind(mark);
                Now::Wait
            }
        }
    }

    /// Decides, if the answer is in memory.
    pub(in crate::guard) fn ask_now(
        &self,
        head: &RequestHead<'_>,
        by: MatchedBy,
        envelope: &mut Envelope,
    ) -> Now<Result<(), Rejection>> {
        let mark = envelope.trail.mark();
        self.judge_now(head, by, envelope).map(|answer| self.enforce(answer, mark, envelope))
    }

    /// Decides what [`ask_now`](Self::ask_now) could not.
    pub(in crate::guard) async fn ask(
        &self,
        head: RequestHead<'_>,
        by: MatchedBy,
        envelope: &mut Envelope,
    ) -> Result<(), Rejection> {
        let mark = envelope.trail.mark();
        let answer = self.judge(head, by, envelope).await;
        self.enforce(answer, mark, envelope)
    }

    /// Lets pass what is only tried out.
    fn enforce(&self, answer: Result<(), Rejection>, mark: Mark, envelope: &mut Envelope) -> Result<(), Rejection> {
        let Some(shadow) = &self.shared.shadow else { return answer };
        let about = || {
            let route = envelope.route.as_deref().map_or(String::new(), |route| format!("{route}: "));
            format!("rule {route}{}", self.shared.text)
        };
        if !shadow.is_on(envelope.at, about) {
            return answer;
        }
        match answer {
            Err(rejection) if rejection.kind() == RejectionKind::Misconfigured => Err(rejection),
            Ok(()) => {
                envelope.trail.unenforce(mark);
                Ok(())
            }
            Err(rejection) => {
                shadow.count();
                let trail = &mut envelope.trail;
                let verdict = if rejection.kind() == RejectionKind::Unavailable {
                    Verdict::cannot_decide(rejection.reason().to_owned())
                } else {
                    Verdict::deny(rejection.reason().to_owned())
                };
                trail.unenforce(mark);
                trail.decided(
                    DecisionFact::new(GUARD_SHADOW, Some(Arc::clone(&self.shared.text)), verdict).unenforced(),
                );
                trail.flag("guard_would_refuse");
                Ok(())
            }
        }
    }

    /// Judges what [`judge_now`](Self::judge_now) could not.
    async fn judge(&self, head: RequestHead<'_>, by: MatchedBy, envelope: &mut Envelope) -> Result<(), Rejection> {
        let (other, resource) = self.resource(&head, by, envelope)?;
        let (ask, trail) = self.open(&head, other.as_deref(), resource.as_ref(), envelope)?;
        let mark = trail.mark();
        let answer = evaluate::decide(self.shared.requirement.node(), &ask, trail, true).await?;
        self.conclude(answer, trail, mark, &ask)
    }
}
