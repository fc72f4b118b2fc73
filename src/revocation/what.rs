use std::fmt;

#[cfg(feature = "revocation-admin")]
use crate::mention::{Mention, Telling};
use crate::{
    clock::Instants,
    error::ConfigError,
    principal::{Principal, RevocationKind, mark_of},
};

/// The longest issuer and the longest id, in bytes.
const MAX_LEN: usize = 2_048;

/// The credentials of this crate's authenticators that ask no store of revocations.
const NO_TOKENS: [&str; 2] = ["api_key", "client_cert"];

/// What no longer counts, of one issuer.
///
/// ```
/// use portcullis::revocation::{Revocation, RevocationKind};
///
/// let token = Revocation::token("https://id.example.com", "4711")?.until(1_800_000_900);
/// assert_eq!((token.kind(), token.value()), (RevocationKind::Token, "4711"));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "it counts once a store was told"]
pub struct Revocation {
    kind: RevocationKind,
    issuer: Box<str>,
    value: Box<str>,
    issued_until: Option<u64>,
    until: Option<u64>,
}

impl Revocation {
    /// One token, by its `jti`. Say its `exp` with [`until`](Self::until), and it takes no room for longer.
    ///
    /// # Errors
    /// If a text is empty, longer than 2 048 bytes or has NUL in it; so with all of these.
    pub fn token(issuer: &str, jti: &str) -> Result<Self, ConfigError> {
        Self::new(RevocationKind::Token, issuer, jti)
    }

    /// All tokens of a session, by its `sid`. Tokens without this claim are not met.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn session(issuer: &str, sid: &str) -> Result<Self, ConfigError> {
        Self::new(RevocationKind::Session, issuer, sid)
    }

    /// All tokens of a subject that were issued at or before this second of the issuer's clock: "log out everywhere". Tokens
    /// that are issued later are good, also to who has a refresh token still: end that at the provider first.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn subject(issuer: &str, sub: &str, issued_until: u64) -> Result<Self, ConfigError> {
        Ok(Self::new(RevocationKind::Subject, issuer, sub)?.issued_until(issued_until))
    }

    /// All tokens that an application got, by its `client_id`, or `azp` where a token has none. The profiles of
    /// [providers](crate::jwt::Provider) that call it otherwise say so; in an ID token that has neither it is the audience. Tokens
    /// of workloads name no client.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn client(issuer: &str, client_id: &str) -> Result<Self, ConfigError> {
        Self::new(RevocationKind::Client, issuer, client_id)
    }

    /// All tokens that this key of the issuer's key set verifies, whatever `kid` they name.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn key(issuer: &str, kid: &str) -> Result<Self, ConfigError> {
        Self::new(RevocationKind::Key, issuer, kid)
    }

    /// The token that a principal came with, until it ends. None if it has no id, or the principal came with an API key, which is
    /// revoked in its own store, or a client certificate: nobody would ask about these, and they would count on.
    pub fn of_token(principal: &Principal) -> Option<Self> {
        if is_no_token(principal) {
            return None;
        }
        let token = Self::token(principal.issuer(), principal.credential_id()?).ok()?;
        Some(principal.expires_at().into_iter().fold(token, Self::until))
    }

    /// All tokens that a principal has by now.
    ///
    /// # Errors
    /// As [`token`](Self::token), and if the principal came with an API key or a client certificate, which no revocation of
    /// tokens ends.
    pub fn of_subject(principal: &Principal, at: Instants) -> Result<Self, ConfigError> {
        if is_no_token(principal) {
            let problem = "is no token, and does not end by a revocation of tokens";
            return Err(ConfigError::new("credential of a revocation", principal.credential(), problem));
        }
        // The issuer's clock may be ahead: the token that asks is one of those that are meant.
        let last = at.unix_seconds().max(principal.revocation_marks().issue_time());
        Self::subject(principal.issuer(), principal.subject(), last)
    }

    pub(super) fn new(kind: RevocationKind, issuer: &str, value: &str) -> Result<Self, ConfigError> {
        for (setting, text) in [("issuer of a revocation", issuer), ("id of a revocation", value)] {
            if text.is_empty() || text.len() > MAX_LEN || text.contains('\0') {
                let shown = format!("a text of {} bytes", text.len());
                return Err(ConfigError::new(setting, shown, "must have 1 to 2048 bytes, none of them NUL"));
            }
        }
        Ok(Self { kind, issuer: issuer.into(), value: value.into(), issued_until: None, until: None })
    }

    /// Meets only tokens that were issued at or before this second. Default: all, future ones included.
    pub const fn issued_until(mut self, unix_seconds: u64) -> Self {
        self.issued_until = Some(unix_seconds);
        self
    }

    /// Says when the last token that it meets ends, in seconds since the Unix epoch: its `exp`. It is kept for 15 min beyond
    /// that, for leeways. Default: for ever for a key or a client whose future tokens it meets; else as long as the
    /// [state](super::RevocationLimits::kept_for) keeps one.
    pub const fn until(mut self, unix_seconds: u64) -> Self {
        self.until = Some(unix_seconds);
        self
    }

    /// When it ends. A key or a client that is revoked for good would have good tokens again once that lapsed.
    pub(super) fn end_with(&self, limits: &super::RevocationLimits, at: Instants) -> u64 {
        let for_good = matches!(self.kind, RevocationKind::Key | RevocationKind::Client) && self.issued_until.is_none();
        self.until.unwrap_or_else(|| if for_good { u64::MAX } else { limits.end_from(at) })
    }

    /// What it is about.
    #[must_use]
    pub const fn kind(&self) -> RevocationKind {
        self.kind
    }

    /// The issuer whose tokens it meets.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The id: of a token, a session, a subject, a client or a key.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The last second of issue that it meets; none if it meets all.
    #[must_use]
    pub const fn last_issue(&self) -> Option<u64> {
        self.issued_until
    }

    /// When the last token that it meets ends, if that was said.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.until
    }

    /// As [`Display`](fmt::Display) shows it, with who is mentioned.
    #[cfg(feature = "revocation-admin")]
    pub(crate) fn telling(&self) -> Telling {
        let (issuer, value) = (&*self.issuer, &*self.value);
        let told = Telling::default().text(self.kind.as_str()).text(" ");
        let told = match self.kind {
            RevocationKind::Subject | RevocationKind::Client => told.name(Mention::Subject, issuer, value),
            RevocationKind::Token | RevocationKind::Session => told.name(Mention::CredentialId, issuer, value),
            RevocationKind::Key => told.text(&format!("{value:?}")),
        };
        let told = told.text(&format!(" of {issuer:?}"));
        match self.issued_until {
            Some(second) => told.text(&format!(", issued until {second}")),
            None => told,
        }
    }

    pub(super) fn hash(&self) -> u64 {
        mark_of(self.kind, &self.issuer, &self.value)
    }
}

fn is_no_token(principal: &Principal) -> bool {
    NO_TOKENS.contains(&principal.credential())
}

/// For records: the kind, the id and the issuer.
impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {:?}", self.kind.as_str(), self.value, self.issuer)?;
        match self.issued_until {
            Some(second) => write!(f, ", issued until {second}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{PrincipalKind, TokenMarks};

    #[cfg(feature = "revocation-admin")]
    #[test]
    fn what_is_told_is_what_is_shown() {
        let of = [
            Revocation::token("https://id.test", "j\"1"),
            Revocation::session("https://id.test", "s"),
            Revocation::subject("https://id.test", "alice", 7),
            Revocation::client("https://id.test", "web"),
            Revocation::key("https://id.test", "k"),
        ];
        for (revocation, mentions) in of.into_iter().zip([true, true, true, true, false]) {
            let revocation = revocation.unwrap();
            let told = revocation.telling();
            assert_eq!(told.plain(), revocation.to_string());
            let hidden = told.with_hidden(|_, within, value| {
                assert_eq!((within, value), ("https://id.test", revocation.value()));
                Some("p-1".to_owned())
            });
            assert_eq!(hidden.contains(r#" "p-1" of "#), mentions, "{hidden}");
        }
    }

    #[test]
    fn the_token_that_asks_is_one_of_all() {
        let now = Instants::new(1_800_000_000_000_000_000, 0);
        for (issued, last) in [(1_799_999_990, 1_800_000_000), (1_800_000_030, 1_800_000_030)] {
            let mut alice = Principal::builder(PrincipalKind::User, "i", "alice", "jwt");
            alice.set_marks(TokenMarks::new("i").issued_at(issued));
            let all = Revocation::of_subject(&alice.build(), now).unwrap();
            assert_eq!(all.last_issue(), Some(last), "an issuer whose clock is ahead");
        }
    }
}
