//! Logout tokens of OpenID Connect Back-Channel Logout 1.0.

use std::{
    collections::HashMap,
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::quality::RandomState;
use serde_json::{Map, Value};

use crate::{
    attempt::Attempt,
    clock::Instants,
    error::ConfigError,
    jwt::{IssuerProfile, JwtAuthenticator, Refusal, path::Mapped},
    principal::Principal,
    rejection::{Rejection, RejectionKind},
    revocation::{Revocation, TokenMarks},
};

/// The event, by its name.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// The most logout tokens that are remembered.
const MOST: usize = 10_000;
/// Beyond its end, a token is good for the leeway: 5 min at most.
const MARGIN: u64 = 300;

/// Verifies logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.6), by which a provider says that a session has ended, or
/// all of a subject.
///
/// A token passes when
/// 1. its issuer is one of those that were given, and its signature is good by a key of that issuer and an algorithm of its list
///    (never `none`);
/// 2. `aud` holds our client and nobody else's, and `iat`, `exp` and `jti` are there and hold, with a leeway of 60 s;
/// 3. `typ`, if it is there, is `logout+jwt` or `JWT`;
/// 4. `events` is an object with the member `http://schemas.openid.net/event/backchannel-logout`, which is an object;
/// 5. `sid` or `sub` is there, a string that is not empty; and `nonce`, `at_hash` and `c_hash` are not;
/// 6. it was not [used](Self::note_used) here before. 10 000 uses are remembered, each until its token has ended; beyond that the
///    next ones are not. A replay would end no more than the first use did: [`Logout::revocations`] meet what was issued up to `iat`.
///
/// ```
/// use portcullis::{Secret, jwt::{Algorithm, Issuer, Key, KeySet, LogoutTokens}};
///
/// let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
/// let issuer = Issuer::fixed("https://id.example.com", keys).logout_tokens("orders-web").algorithms([Algorithm::HS256]);
/// let tokens = LogoutTokens::new([issuer])?;
/// # let _ = tokens;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct LogoutTokens {
    verifier: JwtAuthenticator,
    used: Arc<Mutex<Used>>,
}

#[derive(Default)]
struct Used {
    seed: RandomState,
    /// The second from which nobody needs to remember it.
    ends: HashMap<u64, u64>,
}

/// What a provider said: who is logged out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logout {
    issuer: Box<str>,
    sid: Option<Box<str>>,
    sub: Option<Box<str>>,
    jti: Box<str>,
    issued: u64,
    expires: u64,
    marks: TokenMarks,
}

impl LogoutTokens {
    /// Takes the tokens of these issuers, made with [`Issuer::logout_tokens`](crate::jwt::Issuer::logout_tokens).
    ///
    /// # Errors
    /// As [`JwtAuthenticatorBuilder::build`](crate::jwt::JwtAuthenticatorBuilder::build), and if an issuer is one of other tokens.
    pub fn new(issuers: impl IntoIterator<Item = IssuerProfile>) -> Result<Self, ConfigError> {
        let mut builder = JwtAuthenticator::builder().without_cache();
        for issuer in issuers {
            if !issuer.is_of_logout_tokens() {
                return Err(ConfigError::new("logout tokens", "an issuer of other tokens", "must say logout_tokens"));
            }
            builder = builder.issuer(issuer);
        }
        let verifier = builder.build_any(Mapped::new().taking_events())?;
        Ok(Self { verifier, used: Arc::default() })
    }

    /// Verifies a token, and waits for keys where that may help. It does not use it up; see [`note_used`](Self::note_used).
    ///
    /// # Errors
    /// [`InvalidCredential`](RejectionKind::InvalidCredential) whatever is wrong with the token; the reason is for the operator.
    /// [`Unavailable`](RejectionKind::Unavailable) if there are no keys to verify it with.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn verify(&self, token: &str, at: Instants) -> Result<Logout, Rejection> {
        let principal = self.verifier.verify_anything(token, at, Attempt::uncounted()).await?;
        let refuse = |Refusal(reason)| Rejection::new(RejectionKind::InvalidCredential, reason);
        let logout = Logout::read(&principal).map_err(refuse)?;
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.knows(&logout, at) { Err(refuse(Refusal("the logout token was used before"))) } else { Ok(logout) }
    }

    /// Remembers that what a token said is done: from now on it is refused. To be called after, so that a provider may send it
    /// again when that failed.
    pub fn note_used(&self, logout: &Logout, at: Instants) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).note(logout, at);
    }
}

impl Used {
    fn hash(&self, logout: &Logout) -> u64 {
        self.seed.hash_one((&logout.issuer, &logout.jti))
    }

    fn knows(&self, logout: &Logout, at: Instants) -> bool {
        self.ends.get(&self.hash(logout)).is_some_and(|end| at.unix_seconds() < *end)
    }

    fn note(&mut self, logout: &Logout, at: Instants) {
        if self.ends.len() >= MOST {
            self.ends.retain(|_, end| at.unix_seconds() < *end);
        }
        if self.ends.len() < MOST {
            self.ends.insert(self.hash(logout), logout.expires.saturating_add(MARGIN));
        }
    }
}

impl Logout {
    fn read(principal: &Principal) -> Result<Self, Refusal> {
        let claims: Map<String, Value> =
            principal.claims().map_err(|_| Refusal("the claims of the logout token cannot be read"))?;
        let event = claims.get("events").and_then(Value::as_object).and_then(|events| events.get(EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(Refusal("events does not say that somebody is logged out"));
        }
        let text = |name| match claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(Box::from(text.as_str()))),
            Some(_) => Err(Refusal("sid, sub or jti is empty, or not a string")),
        };
        let second = |name| claims.get(name).and_then(Value::as_f64).map_or(0, |second| second as u64);
        let (sid, sub) = (text("sid")?, text("sub")?);
        if sid.is_none() && sub.is_none() {
            return Err(Refusal("the logout token names neither sid nor sub"));
        }
        let jti = text("jti")?.ok_or(Refusal("jti is missing"))?;
        let issuer = principal.issuer().into();
        let marks = principal.revocation_marks().into_owned();
        Ok(Self { issuer, sid, sub, jti, issued: second("iat"), expires: second("exp"), marks })
    }

    /// The issuer, as principals have it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The session that has ended, if one is named.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.sid.as_deref()
    }

    /// Whose sessions: one if [`session`](Self::session) names it, else all.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.sub.as_deref()
    }

    /// When the provider said so (`iat`), in seconds since the Unix epoch.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued
    }

    /// What the token itself can be revoked by: the key that verified it. [`LogoutTokens`] asks no store; whoever has one asks
    /// [`RevocationState::check_marks`](crate::revocation::RevocationState::check_marks), as
    /// [`BackchannelLogout`](crate::revocation_admin::BackchannelLogout) does.
    pub const fn marks(&self) -> &TokenMarks {
        &self.marks
    }

    /// What no longer counts: the session; without one, the subject, for what was issued up to the token's own `iat`. With
    /// `whole_subject`, both where both are named: for issuers whose access tokens have no `sid`.
    ///
    /// # Errors
    /// If a text is longer than 2 048 bytes.
    pub fn revocations(&self, whole_subject: bool) -> Result<Vec<Revocation>, ConfigError> {
        let session = self.sid.as_deref().map(|sid| Revocation::session(&self.issuer, sid));
        let subject = self.sub.as_deref().filter(|_| whole_subject || self.sid.is_none());
        let subject = subject.map(|sub| Revocation::subject(&self.issuer, sub, self.issued));
        session.into_iter().chain(subject).collect()
    }
}

impl fmt::Debug for LogoutTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogoutTokens").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logout(jti: u32, expires: u64) -> Logout {
        let text = |text: &str| Some(text.into());
        let (issuer, jti, marks) = ("i".into(), jti.to_string().into(), TokenMarks::new("i"));
        Logout { issuer, sid: text("s"), sub: text("a"), jti, issued: 7, expires, marks }
    }

    #[test]
    fn uses_are_remembered_until_the_end_and_have_a_bound() {
        let at = |second: u64| Instants::new(second * 1_000_000_000, 0);
        let mut used = Used::default();
        used.note(&logout(0, 100), at(50));
        assert!(used.knows(&logout(0, 100), at(399)) && !used.knows(&logout(0, 100), at(400)));
        assert!(!used.knows(&logout(1, 100), at(50)));
        for jti in 1..20_000 {
            used.note(&logout(jti, 1_000), at(50));
        }
        assert_eq!(used.ends.len(), MOST);
        used.note(&logout(20_000, 1_000), at(500));
        assert!(used.knows(&logout(20_000, 1_000), at(500)), "what has ended made room");
    }

    #[test]
    fn a_session_is_not_the_whole_subject() {
        let kinds = |logout: &Logout, whole| {
            let revocations = logout.revocations(whole).unwrap();
            revocations
                .iter()
                .map(|revocation| (revocation.kind().as_str(), revocation.last_issue()))
                .collect::<Vec<_>>()
        };
        let both = logout(0, 9);
        assert_eq!(kinds(&both, false), [("session", None)]);
        assert_eq!(kinds(&both, true), [("session", None), ("subject", Some(7))]);
        assert_eq!(kinds(&Logout { sid: None, ..both.clone() }, false), [("subject", Some(7))]);
        assert_eq!(kinds(&Logout { sub: None, ..both }, true), [("session", None)]);
    }
}
