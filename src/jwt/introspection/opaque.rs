//! Whether an opaque token is good: by what is remembered, or by asking.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use foldhash::fast::RandomState;
use quick_cache::{UnitWeighter, sync};
use tokio::time::Instant;

use super::{
    answer::{self, Fault},
    asking::{Asking, Away, Said},
};
use crate::{
    attempt::{Attempt, Fare},
    clock::Instants,
    credential::MAX_CREDENTIAL_LEN,
    flight::Flights,
    jwt::{
        CacheStats, Refusal,
        authenticator::nanos,
        cache::Cache,
        crypto::sha256,
        entrance::Entrance,
        path::Mapped,
        profile::Profile,
        revoked::{BLIND, Revocations, revoked},
    },
    principal::{Principal, Terms},
    rejection::{Rejection, RejectionKind},
    revocation::Standing,
};

/// What a token is remembered by: of the token itself nothing is kept.
type Digest = [u8; 32];

/// How far the clocks of threads that ask at the same time may be apart: what one has just remembered, the other may use.
const APART: u64 = 1_000_000_000;

/// Opaque tokens of one issuer.
pub(super) struct Opaque {
    pub(super) asking: Asking,
    pub(super) profile: Profile,
    /// The claims that the profile maps.
    pub(super) mapped: Mapped,
    pub(super) leeway: Duration,
    pub(super) revocations: Option<Revocations>,
    pub(super) memory: Memory,
}

/// What is remembered, and who is being asked about.
pub(super) struct Memory {
    good: Option<Cache>,
    remember_for: u64,
    /// Apart from the good ones, so that random tokens push out one another.
    refused: sync::Cache<Digest, Void, UnitWeighter, RandomState>,
    refused_for: u64,
    /// Grows when all is forgotten.
    generation: AtomicU64,
    /// By the generation too: an answer from before is not for who asks after.
    flights: Flights<(Digest, u64), Landed>,
}

/// A token that was refused, and why.
#[derive(Clone, Copy, Debug)]
struct Void {
    refusal: Refusal,
    refused_at: u64,
    generation: u64,
}

/// What was found out about a token.
#[derive(Clone, Debug)]
enum Landed {
    Good(Principal),
    Refused(Refusal),
    Away(Away),
}

impl Memory {
    pub(super) fn new(good: Option<Cache>, remember_for: Duration, most_refused: usize, refused_for: Duration) -> Self {
        // Its shards get unequal shares: with a little to spare, as many as were asked for do fit.
        let weight = u64::try_from(most_refused.saturating_add(most_refused / 16)).unwrap_or(u64::MAX);
        let lifecycle = sync::DefaultLifecycle::default();
        Self {
            good,
            remember_for: nanos(remember_for),
            refused: sync::Cache::with(most_refused, weight, UnitWeighter, RandomState::default(), lifecycle),
            refused_for: nanos(refused_for),
            generation: AtomicU64::new(0),
            flights: Flights::default(),
        }
    }

    pub(super) fn stats(&self) -> Option<CacheStats> {
        self.good.as_ref().map(Cache::stats)
    }

    pub(super) fn forget_all(&self) {
        self.generation.fetch_add(1, Relaxed);
        self.refused.clear();
    }

    #[inline]
    fn good(&self, digest: &Digest, at: Instants) -> Option<Principal> {
        self.good.as_ref()?.get(digest, at, |_| Some(self.generation.load(Relaxed)))
    }

    fn refusal(&self, digest: &Digest, at: Instants) -> Option<Refusal> {
        let void = self.refused.get(digest)?;
        let is_current = void.generation == self.generation.load(Relaxed);
        let age = at.monotonic_nanos().saturating_sub(void.refused_at);
        (is_current && age < self.refused_for).then_some(void.refusal)
    }
}

/// Who asks, and when they came.
#[derive(Clone, Copy)]
struct Asker<'a> {
    attempt: Attempt<'a>,
    at: Instants,
    came: Instant,
}

impl Asker<'_> {
    /// The time by now: after an answer, what was true when they came may be so no more.
    fn now(&self) -> Instants {
        self.at.later(self.came.elapsed())
    }
}

impl Opaque {
    /// What is remembered of a token: without waiting, and for a good one without allocating.
    #[inline]
    pub(super) fn recall(
        &self,
        token: &[u8],
        at: Instants,
        entrance: &Entrance,
    ) -> Option<Result<Principal, Rejection>> {
        self.recall_digest(&sha256(token), at).map(|landed| answer(landed, entrance))
    }

    #[inline]
    fn recall_digest(&self, digest: &Digest, at: Instants) -> Option<Landed> {
        match self.memory.good(digest, at) {
            Some(principal) => Some(self.standing(principal, at)),
            None => self.memory.refusal(digest, at).map(Landed::Refused),
        }
    }

    /// A good token, unless it was revoked since.
    fn standing(&self, principal: Principal, at: Instants) -> Landed {
        let Some(revocations) = &self.revocations else { return Landed::Good(principal) };
        match revocations.standing_of(&principal, at) {
            Standing::Good => Landed::Good(principal),
            Standing::Revoked(kind) => Landed::Refused(revoked(kind)),
            Standing::Unknown => Landed::Away(Away::new(BLIND)),
        }
    }

    /// What is remembered of a token, or else what the endpoint says.
    pub(super) async fn verify(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
        entrance: &Entrance,
    ) -> Result<Principal, Rejection> {
        // What comes in a header field is bounded there, and what comes by another way is not.
        if token.is_empty() || token.len() > MAX_CREDENTIAL_LEN {
            return Err(entrance.invalid_token("token is empty or too long"));
        }
        let digest = sha256(token.as_bytes());
        if let Some(landed) = self.recall_digest(&digest, at) {
            return answer(landed, entrance);
        }
        let asker = Asker { attempt, at, came: Instant::now() };
        if self.revocations.as_ref().is_some_and(|revocations| !revocations.can_say(at)) {
            return Err(Rejection::new(RejectionKind::Unavailable, BLIND).with_retry_after(Duration::from_secs(1)));
        }
        attempt.before(None)?;
        let generation = self.memory.generation.load(Relaxed);
        let seat = self.memory.flights.board((digest, generation));
        let landed = seat.landing(|| self.find_out(token, &digest, generation, asker)).await;
        drop(seat);
        // It may have been asked for by somebody else, and revoked meanwhile.
        answer(
            match landed {
                Landed::Good(principal) => self.standing(principal, asker.now()),
                landed => landed,
            },
            entrance,
        )
    }

    async fn find_out(&self, token: &str, digest: &Digest, generation: u64, asker: Asker<'_>) -> Landed {
        let Asker { attempt, at, .. } = asker;
        // Somebody may have landed since it was looked for.
        if let Some(landed) = self.recall_digest(digest, at) {
            return landed;
        }
        if let Some(good) = &self.memory.good {
            good.missed();
        }
        let mut fare = Fare::new(attempt, None, true);
        let said = self.asking.ask(token, at).await;
        fare.is_due = false;
        let judged = match said {
            Ok(Said::Document(document)) => match std::str::from_utf8(&document) {
                Ok(text) => self.judge(text, digest, generation, asker),
                Err(_) => Err(Fault::of(&document, Refusal("the answer is not UTF-8"))),
            },
            Ok(Said::Never(refusal)) => Err(Fault::Refused(refusal)),
            Ok(Said::NotTaken(away)) => {
                attempt.failed(None);
                return Landed::Away(away);
            }
            Err(away) => return Landed::Away(away),
        };
        if !matches!(judged, Err(Fault::Junk(_) | Fault::Odd(_))) {
            self.asking.last.came();
        }
        match judged {
            Ok(landed) => landed,
            Err(Fault::Junk(Refusal(problem))) => Landed::Away(self.asking.away(at, problem)),
            Err(Fault::Odd(Refusal(problem))) => Landed::Away(self.asking.doubted(at, problem)),
            Err(Fault::Refused(refusal)) => {
                attempt.failed(None);
                let refused_at = asker.now().monotonic_nanos();
                self.memory.refused.insert(*digest, Void { refusal, refused_at, generation });
                Landed::Refused(refusal)
            }
        }
    }

    /// Makes the principal of an answer, and remembers it.
    fn judge(&self, text: &str, digest: &Digest, generation: u64, asker: Asker<'_>) -> Result<Landed, Fault> {
        let at = asker.at;
        let claims = answer::read(text, &self.mapped)?;
        let now = Duration::from_nanos(at.unix_nanos());
        let name = self.profile.check_answer(&claims, now, self.leeway).map_err(Fault::Refused)?;
        if let Some(revocations) = &self.revocations {
            revocations.check_life(&claims).map_err(Fault::Refused)?;
        }
        let mut principal = self.profile.principal(name, &claims, text).map_err(Fault::Refused)?;
        if let Some(revocations) = &self.revocations {
            let marks = revocations.marks(&name.issuer, &self.profile, &claims, None).map_err(Fault::Refused)?;
            match revocations.standing(&marks, asker.now()) {
                Standing::Good => {
                    principal.set_marks(marks);
                    principal.set_voucher(revocations.voucher());
                }
                Standing::Revoked(kind) => return Err(Fault::Refused(revoked(kind))),
                Standing::Unknown => return Ok(Landed::Away(Away::new(BLIND))),
            }
        }
        // The leeway lets pass what the provider has just called active. What is remembered ends with the token itself.
        let window = self.profile.window(&claims, self.leeway);
        if let Some((_, until)) = window {
            let until = nanos(until);
            // Without an end of its own it would never be asked about again: of the token nothing is kept to ask with.
            let asked_again = || at.unix_nanos().saturating_add(self.memory.remember_for);
            principal.set_ends_at(if claims.exp.is_some() { until } else { until.min(asked_again()) });
        }
        let window = window.map(|(from, until)| {
            let asked_at = at.unix_nanos();
            let until = nanos(until.min(claims.exp.unwrap_or(Duration::MAX)));
            let until = until.min(asked_at.saturating_add(self.memory.remember_for));
            (nanos(from).max(asked_at.saturating_sub(APART)), until)
        });
        let terms = window
            .filter(|(_, until)| at.unix_nanos() < *until)
            .and_then(|(from, until)| Terms::new(from, until, 0, generation));
        Ok(Landed::Good(match (&self.memory.good, terms) {
            (Some(good), Some(terms)) => good.insert(digest, principal, terms, at),
            _ => principal.build(),
        }))
    }
}

fn answer(landed: Landed, entrance: &Entrance) -> Result<Principal, Rejection> {
    match landed {
        Landed::Good(principal) => Ok(principal),
        Landed::Refused(Refusal(reason)) => Err(entrance.invalid_token(reason)),
        Landed::Away(away) => Err(away.into()),
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opaque")
            .field("issuer", &self.profile.name())
            .field("asking", &self.asking)
            .field("leeway", &self.leeway)
            .field("remembered", &self.memory.stats())
            .field("revocations", &self.revocations)
            .finish_non_exhaustive()
    }
}
