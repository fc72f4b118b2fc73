//! How a limiter decides about a request.

use std::{
    hash::BuildHasher,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::{HeaderMap, StatusCode};

use crate::{
    clock::{Clock, Instants},
    context::{Envelope, Stage},
    error::StoreError,
    gate::{Amend, Step},
    head::RequestHead,
    now::Now,
    principal::Principal,
    rate_limit::{
        Charge, Draw, LimitRequest, LimitScope, OnStoreError, RateLimitLayer, Taken,
        by::{Owned, Parts},
        draw::Charges,
        headers::{RATELIMIT, RATELIMIT_POLICY, Told, retry_after},
        layer::{Cost, Mode, Shared, Tiers},
        plan::Tier,
    },
    rejection::{Rejection, RejectionKind},
    trail::{LimitFact, LimitState, Trail},
};

/// What is asked of the store for one request.
struct Asked<'a> {
    parts: Parts<'a>,
    around: Option<Parts<'a>>,
    cost: NonZeroU32,
}

impl Shared {
    fn scope(&self) -> LimitScope<'_> {
        LimitScope::with_hash(&self.scope, self.scope_hash)
    }

    fn tier(&self, principal: Option<&Principal>) -> Arc<Tier> {
        match &self.tiers {
            Tiers::One(tier) => Arc::clone(tier),
            Tiers::Plans(plans) => plans.tier(principal),
        }
    }

    /// What to ask; nothing if the request is not counted here.
    fn asked<'a>(
        &'a self,
        head: &'a RequestHead<'a>,
        envelope: &'a mut Envelope,
        owned: &'a mut Owned,
    ) -> Result<Option<Asked<'a>>, Rejection> {
        let cost = match &self.cost {
            Cost::Fixed(cost) => Some(*cost),
            Cost::By(cost) => NonZeroU32::new(cost(&LimitRequest { head, envelope })),
        };
        // Also for what costs nothing: a limiter in the wrong place says so.
        let parts = self.by.find(head, envelope, owned, self.on_missing)?;
        let (Some(parts), Some(cost)) = (parts, cost) else { return Ok(None) };
        Ok(Some(Asked { around: if self.wide { parts.around() } else { None }, parts, cost }))
    }

    fn charges<'a>(&'a self, tier: &'a Tier, asked: &'a Asked<'_>) -> Charges<'a> {
        let charges = Charges::none().add(asked.parts.key(self.scope()), &tier.quotas);
        match &asked.around {
            Some(around) => charges.add(around.key(self.scope()), &tier.wide),
            None => charges,
        }
    }

    /// Whether it is only tried out.
    fn in_shadow(&self, at: Instants) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.is_on(at, || format!("limit {}", self.scope)))
    }

    /// What becomes of a request over the quota; one that is only tried out delays nobody.
    fn mode(&self, at: Instants) -> &Mode {
        if self.in_shadow(at) { &Mode::Reject } else { &self.mode }
    }

    /// Lets pass, in shadow mode, what could not even be counted.
    fn spare(&self, rejection: Rejection, at: Instants, trail: &mut Trail) -> Result<Report, Rejection> {
        if rejection.kind() == RejectionKind::Misconfigured || !self.in_shadow(at) {
            return Err(rejection);
        }
        self.would_refuse(None, false, trail);
        Ok(Report(None))
    }

    fn would_refuse(&self, retry_after_nanos: Option<u64>, degraded: bool, trail: &mut Trail) {
        if let Some(shadow) = &self.shadow {
            shadow.count();
        }
        trail.flag("limit_would_refuse");
        let (scope, state) = (self.scope.clone(), LimitState::WouldRefuse);
        trail.limited(LimitFact { scope, state, degraded, remaining: None, retry_after_nanos });
    }

    fn draw<'a>(&self, charges: &'a [Charge<'a>], cost: NonZeroU32, mode: &Mode) -> Draw<'a> {
        let draw = Draw::new(charges).with_cost(cost);
        if self.count_refused && !mode.waits() { draw.counting_refused() } else { draw }
    }

    fn conclude(
        &self,
        answer: Result<Taken, StoreError>,
        tier: &Arc<Tier>,
        at: Instants,
        trail: &mut Trail,
    ) -> Result<Report, Rejection> {
        let taken = match answer {
            Ok(taken) => taken,
            Err(error) => return self.failed(&error, trail).or_else(|rejection| self.spare(rejection, at, trail)),
        };
        if taken.is_degraded() {
            self.tally.degraded.fetch_add(1, Relaxed);
            trail.flag("limit_degraded");
        }
        // Else clients could have it told that the store is back, and away again, as often as they like.
        if taken.tells_of_store() {
            self.tally.tell(&self.scope, taken.is_degraded(), false);
        }
        let in_shadow = self.in_shadow(at);
        if in_shadow && !taken.is_granted() {
            self.would_refuse(taken.retry_after_nanos(), taken.is_degraded(), trail);
            return Ok(Report(None));
        }
        let state = if taken.is_granted() { LimitState::Granted } else { LimitState::Refused };
        trail.limited(LimitFact {
            scope: self.scope.clone(),
            state,
            degraded: taken.is_degraded(),
            remaining: taken.is_granted().then(|| taken.remaining()),
            retry_after_nanos: taken.retry_after_nanos(),
        });
        if !taken.is_granted() {
            self.tally.refused.fetch_add(1, Relaxed);
            return Err(self.refuse(&taken, tier, at));
        }
        Ok(Report(if in_shadow { None } else { self.told(&taken, tier, at) }))
    }

    fn told(&self, taken: &Taken, tier: &Tier, at: Instants) -> Option<Told> {
        let (lists, x_fields) = (self.send_fields, self.x_fields);
        let tells = lists || x_fields.is_some();
        tells.then(|| Told { fields: Arc::clone(&tier.fields), taken: *taken, lists, x_fields, at })
    }

    fn failed(&self, error: &StoreError, trail: &mut Trail) -> Result<Report, Rejection> {
        self.tally.failed.fetch_add(1, Relaxed);
        match self.on_store_error {
            OnStoreError::Admit => {
                self.tally.tell(&self.scope, false, true);
                trail.flag("limit_failed_open");
                trail.limited(LimitFact {
                    scope: self.scope.clone(),
                    state: LimitState::FailedOpen,
                    degraded: false,
                    remaining: None,
                    retry_after_nanos: None,
                });
                Ok(Report(None))
            }
            OnStoreError::Refuse => {
                Err(Rejection::new(RejectionKind::Unavailable, format!("rate limit store: {error}")))
            }
        }
    }

    /// Another number of seconds for each that is refused.
    fn jitter(&self, at: Instants) -> u64 {
        let Some((most, seed)) = &self.jitter else { return 0 };
        let chance = seed.hash_one((self.tally.refused.load(Relaxed), at.monotonic_nanos()));
        chance.checked_rem(most.saturating_add(1)).unwrap_or(0)
    }

    fn refuse(&self, taken: &Taken, tier: &Arc<Tier>, at: Instants) -> Rejection {
        let reason = match (&*self.scope, taken.retry_after_nanos()) {
            (_, None) => "costs more than the whole quota".into(),
            ("client", Some(_)) => "over the quota per client".into(),
            ("principal", Some(_)) => "over the quota per principal".into(),
            (scope, Some(_)) => std::borrow::Cow::Owned(format!("over the quota of {scope}")),
        };
        let mut rejection = Rejection::new(RejectionKind::RateLimited, reason);
        if let Some(name) = tier.fields.name(taken) {
            rejection = rejection.with_violated_policy(name);
        }
        if let Some(seconds) = retry_after(taken) {
            let seconds = seconds.saturating_add(self.jitter(at));
            rejection = rejection.with_retry_after(std::time::Duration::from_secs(seconds));
        }
        if let Some(mut told) = self.told(taken, tier, at) {
            if let Some(lists) = told.lists() {
                rejection.push_header(RATELIMIT_POLICY, lists.policy);
                rejection.push_header(RATELIMIT, lists.limit);
            }
            if let Some(fields) = told.x_fields() {
                fields.for_each(|(name, value)| rejection.push_header(name, value));
            }
        }
        rejection
    }
}

impl Step for RateLimitLayer {
    type Memo = Report;

    fn stage(&self) -> Stage {
        if self.shared.by.needs_identity() { Stage::PrincipalLimit } else { Stage::ClientLimit }
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Report, Rejection>> {
        let (shared, at) = (&*self.shared, envelope.present());
        // What most limits are: one key, one quota, one unit. The long way gives the same answer, and moves more around.
        if let (Tiers::One(tier), Cost::Fixed(cost)) = (&shared.tiers, &shared.cost)
            && let [quota] = &*tier.quotas
            && let Some(part) = &shared.by.usual(head, envelope)
            && !(shared.wide && part.has_wider())
        {
            let charges = [Charge::new(shared.scope().key(std::slice::from_ref(part)), quota)];
            let mode = shared.mode(at);
            let answer = mode.take_now(&*shared.store, &shared.draw(&charges, *cost, mode), at);
            return answer.map(|answer| shared.conclude(answer, tier, at, &mut envelope.trail));
        }
        let tier = shared.tier(envelope.subject.as_ref());
        let mut owned = Owned::default();
        let answer = match shared.asked(head, envelope, &mut owned) {
            Ok(Some(asked)) => {
                let take = |charges: &[Charge<'_>]| {
                    let mode = shared.mode(at);
                    mode.take_now(&*shared.store, &shared.draw(charges, asked.cost, mode), at)
                };
                match (&*tier.quotas, &asked.around) {
                    ([quota], None) => take(&[Charge::new(asked.parts.key(shared.scope()), quota)]),
                    _ => take(shared.charges(&tier, &asked).as_slice()),
                }
            }
            Ok(None) => return Now::Known(Ok(Report(None))),
            Err(rejection) => return Now::Known(shared.spare(rejection, at, &mut envelope.trail)),
        };
        answer.map(|answer| shared.conclude(answer, &tier, at, &mut envelope.trail))
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<Report, Rejection> {
        let (shared, at) = (&*self.shared, envelope.present());
        let tier = shared.tier(envelope.subject.as_ref());
        let mut owned = Owned::default();
        let (answer, at) = {
            let asked = match shared.asked(&head, envelope, &mut owned) {
                Ok(Some(asked)) => asked,
                Ok(None) => return Ok(Report(None)),
                Err(rejection) => return shared.spare(rejection, at, &mut envelope.trail),
            };
            let (charges, mode) = (shared.charges(&tier, &asked), shared.mode(at));
            let draw = shared.draw(charges.as_slice(), asked.cost, mode);
            mode.take(&*shared.store, &draw, at, &shared.tally).await
        };
        shared.conclude(answer, &tier, at, &mut envelope.trail)
    }
}

/// What the response tells of the quota.
#[derive(Debug)]
pub(crate) struct Report(Option<Told>);

impl Report {
    /// What several limits tell, the innermost first. The fields are lists, so that the limits share a line of each; lines of
    /// their own would say the same, and cost more.
    #[cfg(feature = "stack")]
    pub(crate) fn amend_all(reports: impl Iterator<Item = Self>, headers: &mut HeaderMap) {
        let mut lines = super::headers::Lines::default();
        reports.for_each(|report| {
            let Some(mut left) = report.0.and_then(|told| lines.take(told)) else { return };
            if left.lists {
                // In their order: those that are on the lines come first.
                std::mem::take(&mut lines).add_to(headers);
                let Some(still) = lines.take(left) else { return };
                left = still;
            }
            tell(&mut left, headers);
        });
        lines.add_to(headers);
    }
}

impl Amend for Report {
    fn amend(self, _: StatusCode, headers: &mut HeaderMap) {
        if let Some(mut told) = self.0 {
            tell(&mut told, headers);
        }
    }
}

fn tell(told: &mut Told, headers: &mut HeaderMap) {
    if let Some(lists) = told.lists() {
        lists.add_to(headers);
    }
    if let Some(fields) = told.x_fields() {
        fields.for_each(|(name, value)| {
            headers.append(name, value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::StoreErrorKind, rate_limit::Quota};

    fn conclude(choice: OnStoreError) -> (Result<Report, Rejection>, Vec<&'static str>) {
        let layer = RateLimitLayer::per_client(Quota::per_second(1)).unwrap().on_store_error(choice);
        let mut envelope = Envelope::new(Instants::new(0, 0));
        let failed = Err(StoreError::new(StoreErrorKind::Unavailable, "elsewhere"));
        let answer = layer.shared.conclude(failed, &layer.shared.tier(None), envelope.at, &mut envelope.trail);
        (answer, envelope.trail.rare().flags.clone())
    }

    #[test]
    fn opening_on_failure_leaves_a_trace() {
        let (answer, flags) = conclude(OnStoreError::Admit);
        assert!(answer.is_ok());
        assert_eq!(flags, ["limit_failed_open"]);
        let (answer, flags) = conclude(OnStoreError::Refuse);
        assert_eq!(answer.unwrap_err().reason(), "rate limit store: elsewhere: backend unavailable");
        assert!(flags.is_empty());
    }

    #[test]
    fn what_is_refused_says_by_which_limit() {
        let client = RateLimitLayer::per_client(Quota::per_second(1)).unwrap();
        let principal = RateLimitLayer::per_principal(Quota::per_second(1)).unwrap();
        let named = principal.clone().with_scope("search").unwrap();
        for (layer, taken, reason) in [
            (&client, Taken::refused(0, 1), "over the quota per client"),
            (&principal, Taken::refused(0, 1), "over the quota per principal"),
            (&named, Taken::refused(0, 1), "over the quota of search"),
            (&principal, Taken::too_costly(0), "costs more than the whole quota"),
        ] {
            let rejection = layer.shared.refuse(&taken, &layer.shared.tier(None), Instants::new(0, 0));
            assert_eq!(rejection.reason(), reason);
        }
    }
}
