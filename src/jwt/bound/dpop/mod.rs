//! Proof of possession with each request (RFC 9449).

mod memory;
mod nonce;
mod proof;
#[cfg(feature = "dpop-redis")]
mod redis;
mod replay;
mod url;
#[cfg(test)]
mod vectors;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "axum")]
use axum::extract::OriginalUri;
use http::{HeaderName, HeaderValue, header};
use subtle::ConstantTimeEq;

pub use memory::MemoryReplays;
pub use nonce::Nonces;
#[cfg(feature = "dpop-redis")]
pub use redis::{RedisReplays, RedisReplaysBuilder};
pub use replay::{ProofUse, Remembered, ReplayStore};
use url::Url;

use crate::{
    challenge::{Challenge, Challenges},
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{Algorithm, Refusal, bound::confirmation, crypto::sha256},
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// How old a proof may be.
const MAX_AGE: Duration = Duration::from_secs(30);
/// How far ahead of ours the client's clock may be.
const MAX_AHEAD: Duration = Duration::from_secs(5);
const PROOF: HeaderName = HeaderName::from_static("dpop");
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Takes tokens with the scheme `DPoP`, each request with a proof that its sender has the key that the token is bound to
/// (RFC 9449). Give it to [`JwtAuthenticatorBuilder::dpop`](crate::jwt::JwtAuthenticatorBuilder::dpop).
///
/// A proof passes when (RFC 9449 §4.3)
/// 1. the field `DPoP` stands once, and is a signed JWT of at most 8 KiB with `jti`, `htm`, `htu`, `iat` and `ath`,
/// 2. its `typ` is `dpop+jwt`, compared as a media type (RFC 7515 §4.1.9), its `alg` on the list, and its `jwk` a public key for it
///    without any private member,
/// 3. `htm` is the method, byte for byte,
/// 4. `htu` is the URL of the request, query and fragment apart, after normalisation (RFC 3986 §6.2.2, §6.2.3): at one of our
///    own URLs, never at the host that the request names for itself,
/// 5. `nonce` is one that we gave, if [`nonces`](Self::nonces) are demanded,
/// 6. `iat` is at most 30 s in the past and 5 s in the future,
/// 7. `ath` is the hash of the token, and the token's `cnf.jkt` the thumbprint of the key,
/// 8. the signature is good,
/// 9. the proof was not used before.
///
/// They are checked in this order, cheap ones first; the token itself before. What the client learns is the same for 1 to 4, 6,
/// 8 and 9: `401` and `error="invalid_dpop_proof"`. Another key than the token's is `invalid_token`, a nonce that is missing
/// or too old `use_dpop_nonce`, with a new one in `DPoP-Nonce`.
///
/// Proofs are remembered in a [`MemoryReplays`], which clones share, unless you give [another store](Self::replays): with several
/// processes behind one name, one that they share. Give all authenticators of one name clones of one `Dpop`.
///
/// ```
/// use portcullis::jwt::bound::{Dpop, Nonces};
///
/// let dpop = Dpop::at(["https://api.example.com"])?.nonces(Nonces::random()?).required();
/// # let _ = dpop;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Dpop {
    place: Place,
    algorithms: Vec<Algorithm>,
    required: bool,
    nonces: Option<Nonces>,
    replays: Arc<dyn ReplayStore>,
}

/// Where proofs must be for.
#[derive(Clone, Debug)]
enum Place {
    Urls(Vec<Base>),
    ForwardedHost,
}

/// A URL that clients know us by.
#[derive(Clone, Debug)]
struct Base {
    origin: String,
    /// In front of the request's path: empty, or a path without slash at its end.
    prefix: String,
}

impl Dpop {
    /// Takes proofs for these URLs of ours, as clients see them: `https://api.example.com`, at least one. A path at the end is
    /// what a proxy takes away before the request gets here. Where there are several, the host that a trusted proxy tells or
    /// the request names says which of them is meant, if it is one of them.
    ///
    /// # Errors
    /// If there is none; if one is no URL, or has user information, a query or a fragment; if one is not `https`, unless its
    /// host is `localhost`, `127.0.0.1` or `[::1]`.
    pub fn at<T: AsRef<str>>(urls: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let bases = urls.into_iter().map(|url| Base::read(url.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if bases.is_empty() {
            return Err(ConfigError::new("DPoP URL", "[]", "must be at least one"));
        }
        Ok(Self::new(Place::Urls(bases)))
    }

    /// Takes proofs for the host that a trusted proxy says the client asked for, with the scheme that it says; a request
    /// without such word is refused. For proxies that serve many hosts, and only those: one that hands on any host lets a
    /// proof for another server pass here.
    pub fn at_forwarded_host() -> Self {
        Self::new(Place::ForwardedHost)
    }

    fn new(place: Place) -> Self {
        use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, RS256};
        let algorithms = vec![ES256, EdDSA, ES384, ES512, PS256, RS256];
        Self { place, algorithms, required: false, nonces: None, replays: Arc::new(MemoryReplays::new()) }
    }

    /// Allows these signature algorithms and no other. Default: ES256, EdDSA, ES384, ES512, PS256, RS256. The challenge names
    /// them.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Refuses tokens that are not bound to a key. By default they pass as `Bearer`, as before; one that is bound never does.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Demands a nonce of ours in each proof. The first request of a client is then answered with `401` and the nonce to use;
    /// once a nonce gets old, answers carry the next one. By default none is demanded.
    pub fn nonces(mut self, nonces: Nonces) -> Self {
        self.nonces = Some(nonces);
        self
    }

    /// Remembers proofs here. Default [`MemoryReplays::new`].
    pub fn replays(mut self, store: impl ReplayStore) -> Self {
        self.replays = Arc::new(store);
        self
    }

    pub(in crate::jwt) const fn is_required(&self) -> bool {
        self.required
    }

    /// The algorithms, as a challenge and metadata name them.
    pub(in crate::jwt) fn algorithm_names(&self) -> Vec<&'static str> {
        self.algorithms.iter().map(|algorithm| algorithm.name()).collect()
    }

    /// Finishes it. `offer` is the challenge with the scheme `DPoP`.
    pub(in crate::jwt) fn build(self, offer: &Challenge) -> Result<Prover, ConfigError> {
        if self.algorithms.is_empty() {
            return Err(ConfigError::new("DPoP algorithms", "none", "must be at least one"));
        }
        if let Some(symmetric) = self.algorithms.iter().find(|algorithm| algorithm.is_symmetric()) {
            return Err(ConfigError::new("DPoP algorithms", symmetric.name(), "is symmetric: it proves nothing"));
        }
        let with_error = |error| offer.clone().with("error", error).map(|challenge| [challenge].into_iter().collect());
        Ok(Prover {
            place: self.place,
            algorithms: self.algorithms.into(),
            nonces: self.nonces,
            replays: self.replays,
            invalid_token: with_error("invalid_token")?,
            invalid_proof: with_error("invalid_dpop_proof")?,
            use_nonce: with_error("use_dpop_nonce")?,
        })
    }
}

impl Base {
    fn read(text: &str) -> Result<Self, ConfigError> {
        let refuse = |problem| Err(ConfigError::new("DPoP URL", format!("{text:?}"), problem));
        let Some(Url { origin, path }) = Url::read(text).filter(|_| !text.contains(['?', '#'])) else {
            return refuse("is not a URL of scheme, host and path");
        };
        let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
        let is_local =
            |local: &str| origin.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        if !origin.starts_with("https://") && !local.into_iter().any(is_local) {
            return refuse("is not https");
        }
        Ok(Self { origin, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Whether this is the URL byte for byte, of a path that is in its normal form whatever it says.
    fn is_spelled(&self, htu: &str, path: &str) -> bool {
        let here = htu.strip_prefix(&*self.origin).and_then(|rest| rest.strip_prefix(&*self.prefix));
        here == Some(path) && [&self.prefix, path].into_iter().all(url::is_normal)
    }

    fn is(&self, htu: &Url, path: &str) -> bool {
        self.origin == htu.origin
            && url::path_of(&format!("{}{path}", self.prefix)).is_some_and(|path| path == htu.path)
    }
}

impl Place {
    /// Whether this is the only URL that there is, byte for byte.
    fn is_spelled(&self, htu: &str, head: &RequestHead<'_>) -> bool {
        match self {
            Self::Urls(bases) => matches!(bases.as_slice(), [only] if only.is_spelled(htu, path(head))),
            Self::ForwardedHost => false,
        }
    }

    fn is(&self, htu: &Url, head: &RequestHead<'_>) -> bool {
        let path = path(head);
        let told = head.client().and_then(|client| client.forwarded_host());
        match self {
            Self::ForwardedHost => {
                let scheme = if head.client().is_some_and(|client| client.is_secure()) { "https" } else { "http" };
                let origin = told.and_then(|host| url::origin(scheme, host));
                origin.is_some_and(|origin| Base { origin, prefix: String::new() }.is(htu, path))
            }
            Self::Urls(bases) => match bases.as_slice() {
                [only] => only.is(htu, path),
                // What the request says of itself can only leave some of our own URLs out.
                several => {
                    let named = told.or_else(|| named_host(head)).unwrap_or_default();
                    let is_named = |base: &&Base| {
                        let scheme = base.origin.split(':').next().unwrap_or_default();
                        url::origin(scheme, named).is_some_and(|origin| origin == base.origin)
                    };
                    let any_named = several.iter().any(|base| is_named(&base));
                    several.iter().filter(|base| !any_named || is_named(base)).any(|base| base.is(htu, path))
                }
            },
        }
    }
}

/// The path as the client sent it, also inside a nested router.
fn path<'a>(head: &RequestHead<'a>) -> &'a str {
    #[cfg(feature = "axum")]
    if let Some(OriginalUri(uri)) = head.extension::<OriginalUri>() {
        return uri.path();
    }
    head.path()
}

fn named_host<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    let authority = head.uri().authority().map(|authority| authority.as_str());
    authority.or_else(|| head.headers().get(header::HOST)?.to_str().ok())
}

/// An accepted configuration.
pub(in crate::jwt) struct Prover {
    place: Place,
    algorithms: Box<[Algorithm]>,
    nonces: Option<Nonces>,
    replays: Arc<dyn ReplayStore>,
    invalid_token: Challenges,
    invalid_proof: Challenges,
    use_nonce: Challenges,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover")
            .field("place", &self.place)
            .field("algorithms", &self.algorithms)
            .field("nonces", &self.nonces)
            .field("replays", &self.replays)
            .finish_non_exhaustive()
    }
}

/// The next nonce, if the client had better use another one from now on.
type NextNonce = Option<(HeaderName, HeaderValue)>;

/// Why a proof does not pass.
enum Fault {
    Proof(Refusal),
    /// The proof may be good, for another token.
    Token(Refusal),
    /// Not looked at: too many of its source were bad.
    Spared(Box<Rejection>),
    Nonce,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Proof(refusal)
    }
}

impl Prover {
    /// The refusal of a token that came with the scheme `DPoP`.
    pub(in crate::jwt) fn refuse_token(&self, rejection: Rejection) -> Rejection {
        match rejection.kind() {
            RejectionKind::InvalidCredential => rejection.with_challenges(self.invalid_token.clone()),
            _ => rejection,
        }
    }

    /// Checks the proof of a request with this token, which is good itself, and uses it up.
    pub(in crate::jwt) async fn check(
        &self,
        principal: &Principal,
        token: &str,
        head: &RequestHead<'_>,
        at: Instants,
    ) -> Result<NextNonce, Rejection> {
        let (used, next) = self.check_proof(principal, token, head, at).map_err(|fault| self.refuse(fault, at))?;
        let answer = match self.replays.remember_now(&used, at) {
            Now::Known(answer) => answer,
            Now::Wait => self.replays.remember(&used, at).await,
        };
        match answer {
            Ok(Remembered::Fresh) => Ok(next),
            Ok(Remembered::Seen) => Err(self.refuse(Refusal("the proof was used before").into(), at)),
            Ok(Remembered::TooMany) => {
                let reason = "one key has too many proofs in the replay store";
                Err(Rejection::new(RejectionKind::RateLimited, reason).with_retry_after(Duration::from_secs(1)))
            }
            Err(error) => {
                let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
                Err(Rejection::new(RejectionKind::Unavailable, format!("replay store: {error}")).with_retry_after(wait))
            }
        }
    }

    fn check_proof(
        &self,
        principal: &Principal,
        token: &str,
        head: &RequestHead<'_>,
        at: Instants,
    ) -> Result<(ProofUse, NextNonce), Fault> {
        let mut lines = head.headers().get_all(&PROOF).iter();
        let text = match (lines.next(), lines.next()) {
            (Some(only), None) => only.to_str().map_err(|_| Refusal("the proof is not visible ASCII"))?,
            (None, _) => return Err(Refusal("the request has no proof (DPoP)").into()),
            (Some(_), Some(_)) => return Err(Refusal("DPoP stands twice").into()),
        };
        let bound = principal.confirmation().and_then(|confirmation| confirmation.key_thumbprint());
        let bound =
            bound.ok_or(Fault::Token(Refusal("the token is bound to no key, and came with the scheme DPoP")))?;

        let mut buffer = proof::buffer(text)?;
        let proof = proof::read(text, &mut buffer, &self.algorithms)?;
        if *proof.htm != *head.method().as_str() {
            return Err(Refusal("the proof is for another method").into());
        }
        // Most clients write the URL as we do, and then there is nothing to normalise.
        if !self.place.is_spelled(&proof.htu, head) {
            let htu = Url::read(&proof.htu).ok_or(Refusal("the proof's htu is not a URL"))?;
            if !self.place.is(&htu, head) {
                return Err(Refusal("the proof is for another URL").into());
            }
        }
        let next = match &self.nonces {
            None => None,
            Some(nonces) => {
                match proof.nonce.as_deref().map_or(nonce::Taken::Refused, |nonce| nonces.take(nonce, at)) {
                    nonce::Taken::Current => None,
                    nonce::Taken::Previous => Some((NONCE, nonces.current(at).value())),
                    nonce::Taken::Refused => return Err(Fault::Nonce),
                }
            }
        };
        let now = Duration::from_nanos(at.unix_nanos());
        let until = proof.iat.saturating_add(MAX_AGE);
        if now >= until {
            return Err(Refusal("the proof is too old").into());
        }
        if proof.iat > now.saturating_add(MAX_AHEAD) {
            return Err(Refusal("the proof is from the future").into());
        }
        let ath = confirmation::hash(&proof.ath).ok_or(Refusal("the proof's ath is not a SHA-256 in base64url"))?;
        if !bool::from(ath.ct_eq(&sha256(token.as_bytes()))) {
            return Err(Refusal("the proof is for another token").into());
        }
        let thumbprint = proof.thumbprint()?;
        if !bool::from(thumbprint.ct_eq(bound)) {
            return Err(Fault::Token(Refusal("the token is bound to another key than the proof's")));
        }
        let attempt = head.attempt();
        attempt.before(None).map_err(|rejection| Fault::Spared(Box::new(rejection)))?;
        proof.check_signature().inspect_err(|_| attempt.failed(None))?;
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        Ok((ProofUse::new(thumbprint, &proof.jti, until), next))
    }

    fn refuse(&self, fault: Fault, at: Instants) -> Rejection {
        let refuse = |reason, challenges: &Challenges| {
            Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(challenges.clone())
        };
        match fault {
            Fault::Proof(Refusal(reason)) => refuse(reason, &self.invalid_proof),
            Fault::Token(Refusal(reason)) => refuse(reason, &self.invalid_token),
            Fault::Spared(rejection) => *rejection,
            Fault::Nonce => {
                let rejection = refuse("the proof has no nonce that is good", &self.use_nonce)
                    .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                match &self.nonces {
                    Some(nonces) => rejection.with_header(NONCE, nonces.current(at).value()),
                    None => rejection,
                }
            }
        }
    }
}
