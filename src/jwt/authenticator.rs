use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::HeaderName;

use crate::{
    attempt::{Attempt, Fare},
    authn::{Authenticator, Claim, Outcome},
    challenge::Challenge,
    clock::Instants,
    head::RequestHead,
    jwt::{
        CacheStats, JwtAuthenticatorBuilder, Refusal,
        cache::Cache,
        claims::Claims,
        entrance::{Entrance, Verify},
        fault::{Fault, Gap, KeyFault},
        headers::Headers,
        key_set::NoKey,
        keys::{KeyHealth, Keys, KeysUnavailable, Refresh},
        path::Mapped,
        place::SEVERAL,
        profile::{BAD_SIGNATURE, NO_KEY},
        revoked::{BLIND, Revocations, revoked},
        routes::Routes,
        token::{self, Buffer},
        vouchers::Vouchers,
    },
    now::Now,
    principal::{Principal, Terms},
    rejection::{Rejection, RejectionKind},
    revocation::{Standing, TokenMarks},
};

/// What a client is told to wait where nothing says how long.
const SECOND: Duration = Duration::from_secs(1);

/// Authenticates requests by a JWT in `Authorization: Bearer`, or where the builder says. See the
/// [module docs](crate::jwt).
///
/// It claims a Bearer token that is shaped like a JWT: it begins as a JSON object in base64url does, and has two dots. Another one is
/// somebody else's opaque token or API key, and another scheme somebody else's credential. A header field or cookie that it was given is
/// its own, whatever stands there. It answers at once, unless it has to fetch keys first. A clone costs one reference count.
#[derive(Clone)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) routes: Routes,
    /// The claims that any profile maps.
    pub(super) mapped: Mapped,
    pub(super) leeway: Duration,
    pub(super) entrance: Entrance,
    pub(super) cache: Option<Cache>,
    pub(super) revocations: Option<Revocations>,
    pub(super) headers: Headers,
    pub(super) vouchers: Vouchers,
}

impl JwtAuthenticator {
    /// Starts a configuration.
    pub fn builder() -> JwtAuthenticatorBuilder {
        JwtAuthenticatorBuilder::new()
    }

    pub(super) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Checks a token that came by another way than `Authorization`, in the first message of a WebSocket for example.
    ///
    /// # Errors
    /// [`InvalidCredential`](RejectionKind::InvalidCredential) (`401`) with a Bearer challenge of `invalid_token`, whatever
    /// is wrong; the reason is for the operator and holds nothing of the token. So is a token that is [bound](crate::jwt::bound)
    /// to a key or certificate: nothing here shows that its sender has it. [`Unavailable`](RejectionKind::Unavailable)
    /// (`503`) if keys have to be fetched first: use [`verify_waiting`](Self::verify_waiting) where they may.
    pub fn verify(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        match self.verify_at_once(token, at, Due::Ignored, Attempt::uncounted()) {
            Now::Known(result) => result.and_then(|principal| self.shared.entrance.bound_to_nothing(principal)),
            Now::Wait => Err(KeysUnavailable::new("keys must be fetched first", SECOND).into()),
        }
    }

    /// What the cache of verified tokens has done, and holds now; none without a cache. Costs a walk over the table: for a
    /// metric that is read every few seconds, not for each request.
    #[must_use]
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.shared.cache.as_ref().map(Cache::stats)
    }

    /// Checks a token as [`verify`](Self::verify), and waits for keys where that may help.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); `503` only if the keys cannot be had.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn verify_waiting(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        let verified = self.verify_anything(token, at, Attempt::uncounted()).await;
        verified.and_then(|principal| self.shared.entrance.bound_to_nothing(principal))
    }

    #[cfg(feature = "introspection")]
    pub(super) fn entrance(&self) -> &Entrance {
        &self.shared.entrance
    }

    /// Verifies the token alone, and not what it is bound to.
    pub(super) async fn verify_anything(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
    ) -> Result<Principal, Rejection> {
        let shared = &*self.shared;
        let fault = match shared.verify(token, at, Due::Asked, attempt) {
            Ok(principal) => return Ok(principal),
            Err(fault) => fault,
        };
        let Fault::Keys(fault) = fault else { return Err(shared.refuse(fault)) };
        let fare = fault.fare(attempt);
        #[expect(clippy::disallowed_methods, reason = "how long it waits, not what time it is")]
        let came = Instant::now();
        let refresh = fault.source.refresh_for(fault.kid.as_deref(), fault.seen, at).await;
        shared.after(refresh, token, at.later(came.elapsed()), &fault, fare)
    }

    /// Waits until every issuer has keys: for a service that would rather not start without them. By default it starts, is
    /// not [ready](Self::is_ready), and answers `503` until the keys are there.
    ///
    /// # Errors
    /// If an issuer has none and cannot get any now.
    pub async fn fail_fast(&self, at: Instants) -> Result<(), KeysUnavailable> {
        let sources = self.shared.routes.profiles().iter().map(|profile| profile.keys.source());
        // Each is asked before any is waited for: so all fetch at the same time.
        let missing: Vec<_> = sources.filter(|source| source.snapshot(at).is_err()).collect();
        for source in missing {
            if source.snapshot(at).is_err()
                && let Refresh::Unavailable(cause) = source.refresh_for(None, 0, at).await
            {
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Whether every issuer has keys.
    #[must_use]
    pub fn is_ready(&self, at: Instants) -> bool {
        self.readiness(at).all(|(_, health)| health.is_ready())
    }

    /// How the keys of each issuer are doing, by the issuer's name. Where keys can be had and none fits the profile, they are ready, and
    /// the [cause](KeyHealth::cause) says it.
    pub fn readiness(&self, at: Instants) -> impl Iterator<Item = (&str, KeyHealth)> {
        self.shared.routes.profiles().iter().map(move |profile| (profile.name(), profile.health(at)))
    }

    fn verify_at_once(
        &self,
        token: &str,
        at: Instants,
        due: Due,
        attempt: Attempt<'_>,
    ) -> Now<Result<Principal, Rejection>> {
        match self.shared.find(token.as_bytes(), at) {
            Some(principal) => Now::Known(Ok(principal)),
            None => self.verify_anew_now(token, at, due, attempt),
        }
    }

    fn verify_anew_now(
        &self,
        token: &str,
        at: Instants,
        due: Due,
        attempt: Attempt<'_>,
    ) -> Now<Result<Principal, Rejection>> {
        let shared = &*self.shared;
        match shared.verify_anew(token, at, due, attempt) {
            Ok(principal) => Now::Known(Ok(principal)),
            Err(Fault::Keys(fault)) => fault
                .source
                .refresh_now(fault.kid.as_deref(), fault.seen, at)
                .map(|refresh| shared.after(refresh, token, at, &fault, fault.fare(attempt))),
            Err(fault) => Now::Known(Err(shared.refuse(fault))),
        }
    }
}

/// What to do when keys are good and yet due for a refresh that nobody but the requests can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Asked,
    Ignored,
}

impl Shared {
    /// A token that comes again is looked up. What may change while it lives must be checked on both ways.
    fn verify(&self, token: &str, at: Instants, due: Due, attempt: Attempt<'_>) -> Result<Principal, Fault<'_>> {
        match self.find(token.as_bytes(), at) {
            Some(principal) => Ok(principal),
            None => self.verify_anew(token, at, due, attempt),
        }
    }

    /// Looks for a token that was verified before, and was not revoked since. One that was goes the long way, and is refused
    /// there.
    fn find(&self, token: &[u8], at: Instants) -> Option<Principal> {
        let generation = |issuer| self.routes.profile(issuer)?.keys.source().generation(at);
        let found = self.cache.as_ref()?.get(token, at, generation)?;
        match &self.revocations {
            Some(revocations) if !revocations.clear(&found, at) => None,
            Some(_) | None => Some(found),
        }
    }

    /// Cheap checks come first; the signature, which costs most, comes last and before anything is believed.
    fn verify_anew(&self, token: &str, at: Instants, due: Due, attempt: Attempt<'_>) -> Result<Principal, Fault<'_>> {
        if let Some(cache) = &self.cache {
            cache.missed();
        }
        let parts = token::split(token)?;
        let mut buffer = Buffer::for_token(token);
        let mut rest = buffer.rest();
        let remembered = self.headers.look(parts.header);
        let known = remembered.header(parts.header);
        let is_new = known.is_none();
        let header = match known {
            Some(header) => header,
            None => token::read_header(token::text(token::decode(parts.header, &mut rest)?)?)?,
        };
        let claims_text = token::text(token::decode(parts.claims, &mut rest)?)?;
        let mut claims = Claims::default();
        claims.read(claims_text, &self.mapped)?;
        // The issuer comes first, then its keys: keys are never pooled across issuers (RFC 8725 §3.8).
        let known = claims.iss.as_deref().and_then(|iss| self.routes.find(iss));
        let (issuer, profile, name) = known.ok_or(Refusal("iss is missing or not known"))?;
        profile.check(name, &header, &claims, Duration::from_nanos(at.unix_nanos()), self.leeway)?;
        if let Some(revocations) = &self.revocations {
            // Before the signature: while nobody can say, none needs to be checked.
            if !revocations.can_say(at) {
                return Err(Fault::Blind);
            }
            revocations.check_life(&claims)?;
        }
        let signature = token::decode(parts.signature, &mut rest)?;
        let fault = |seen, gap| {
            let kid = header.key_id.as_deref().map(Box::from);
            Fault::Keys(KeyFault { source: profile.keys.source(), kid, seen, gap })
        };
        let held = profile.keys.now(at).map_err(|_| fault(0, Gap::All))?;
        if held.is_due() && due == Due::Asked {
            return Err(fault(held.generation(), Gap::Refresh));
        }
        let key_id = header.key_id.as_deref();
        attempt.before(key_id).map_err(|rejection| Fault::Spared(Box::new(rejection)))?;
        let key = match held.keys().check_signature(&name.iss, &header, parts.signed.as_bytes(), signature) {
            Ok(key) => key,
            Err(NoKey::Bad) => {
                attempt.failed(key_id);
                return Err(Refusal(BAD_SIGNATURE).into());
            }
            Err(NoKey::Unfit) => return Err(Refusal(NO_KEY).into()),
            Err(NoKey::Unknown { tried }) => return Err(fault(held.generation(), Gap::One { tried })),
        };
        if is_new {
            self.headers.remember(parts.header, &header);
        }
        let mut principal = profile.principal(name, &claims, claims_text)?;
        if let Some(revocations) = &self.revocations {
            let marks = revocations.marks(&name.issuer, profile, &claims, key.id())?;
            match revocations.standing(&marks, at) {
                Standing::Good => principal.set_marks(marks),
                Standing::Revoked(kind) => return Err(revoked(kind).into()),
                Standing::Unknown => return Err(Fault::Blind),
            }
        } else if self.mapped.takes_events() {
            // Who has the store asks about the key, and about nothing else: what a logout ends may have ended already.
            principal.set_marks(key.id().into_iter().fold(TokenMarks::new(&name.issuer), TokenMarks::key));
        }
        if let Keys::Source(source) = &profile.keys {
            principal.set_voucher(self.vouchers.of(source, held.generation(), key, key_id));
        } else if let Some(revocations) = &self.revocations {
            principal.set_voucher(revocations.voucher());
        }
        let window = profile.window(&claims, self.leeway);
        if let Some((_, until)) = window {
            principal.set_ends_at(nanos(until));
        }
        if let (Some(cache), Some((from, until))) = (&self.cache, window)
            && let Some(terms) = Terms::new(nanos(from), nanos(until), issuer, held.generation())
        {
            return Ok(cache.insert(token.as_bytes(), principal, terms, at));
        }
        Ok(principal.build())
    }

    /// The answer once the source was asked for keys: the token gets one more try, and no third.
    fn after(
        &self,
        refresh: Refresh,
        token: &str,
        at: Instants,
        fault: &KeyFault<'_>,
        mut fare: Fare<'_>,
    ) -> Result<Principal, Rejection> {
        match (refresh, fault.gap) {
            (refresh @ Refresh::LookAgain, _) | (refresh, Gap::Refresh) => {
                let verified = self.verify(token, at, Due::Ignored, fare.attempt());
                // A key that was rotated in costs nothing; a signature that is bad by it has been counted.
                fare.is_due = matches!(&verified, Err(Fault::Keys(fault)) if fault.gap.was_tried());
                match (verified, refresh) {
                    // It may have been rotated in: nobody could say.
                    (Err(Fault::Keys(_)), Refresh::Unavailable(cause)) => Err(cause.into()),
                    (verified, _) => verified.map_err(|fault| self.refuse(fault)),
                }
            }
            (Refresh::NothingNew, _) => Err(self.refuse(fault.refusal().into())),
            (Refresh::Unavailable(cause), _) => Err(cause.into()),
        }
    }

    fn refuse(&self, fault: Fault<'_>) -> Rejection {
        let reason = match fault {
            Fault::Refused(Refusal(reason)) => reason,
            Fault::Spared(rejection) => return *rejection,
            Fault::Keys(KeyFault { gap: Gap::All, .. }) => {
                return KeysUnavailable::new("no keys to verify with", SECOND).into();
            }
            Fault::Keys(fault) => fault.refusal().0,
            Fault::Blind => return Rejection::new(RejectionKind::Unavailable, BLIND).with_retry_after(SECOND),
        };
        self.entrance.invalid_token(reason)
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("issuers", &self.shared.routes)
            .field("leeway", &self.shared.leeway)
            .field("places", &self.shared.entrance.places)
            .field("offers", &self.shared.entrance.offers)
            .field("cache", &self.shared.cache)
            .field("revocations", &self.shared.revocations)
            .finish_non_exhaustive()
    }
}

impl Verify for JwtAuthenticator {
    fn takes(&self, token: &str) -> bool {
        token::is_jwt(token.as_bytes())
    }

    #[inline]
    fn recall(&self, token: &[u8], at: Instants) -> Option<Result<Principal, Rejection>> {
        self.shared.find(token, at).map(Ok)
    }

    fn verify_now(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
        recalled: bool,
    ) -> Now<Result<Principal, Rejection>> {
        if recalled {
            self.verify_anew_now(token, at, Due::Asked, attempt)
        } else {
            self.verify_at_once(token, at, Due::Asked, attempt)
        }
    }

    async fn verify(&self, token: &str, at: Instants, attempt: Attempt<'_>) -> Result<Principal, Rejection> {
        self.verify_anything(token, at, attempt).await
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        self.shared.entrance.offers.clone()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        self.shared.entrance.credential_headers()
    }

    fn claims(&self) -> Vec<Claim> {
        let places = &self.shared.entrance.places;
        let tokens = places.authorization.then(|| Claim::all("a JWT in Authorization", SEVERAL));
        tokens.into_iter().chain(places.claims()).collect()
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        self.shared.entrance.authenticate_now(self, head, at)
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.shared.entrance.authenticate(self, head, at).await
    }
}

pub(super) fn nanos(date: Duration) -> u64 {
    u64::try_from(date.as_nanos()).unwrap_or(u64::MAX)
}
