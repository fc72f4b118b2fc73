//! Whether a token was revoked.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Instants,
    error::ConfigError,
    jwt::{Refusal, claims::Claims, json::Shape, path::Mapped, profile::Profile},
    principal::Principal,
    revocation::{RevocationKind, RevocationState, RevocationStore, Standing, TokenMarks},
    voucher::Voucher,
};

/// The revocations that an authenticator asks.
#[derive(Debug)]
pub(super) struct Revocations {
    state: RevocationState,
    /// The same, for exchanges that outlast their request.
    voucher: Arc<dyn Voucher>,
    /// Kept for what feeds the state.
    _store: Arc<dyn RevocationStore>,
    /// The place of `sid`.
    sid: usize,
}

impl Revocations {
    pub(super) fn new(store: Arc<dyn RevocationStore>, mapped: &mut Mapped) -> Result<Self, ConfigError> {
        let state = store.state().clone();
        state.note_asked();
        let voucher: Arc<dyn Voucher> = Arc::new(state.clone());
        Ok(Self { state, voucher, _store: store, sid: mapped.place_of(&"sid".into())? })
    }

    /// Whether a token that was good before still is.
    #[inline]
    pub(super) fn clear(&self, principal: &Principal, at: Instants) -> bool {
        self.state.check(principal, at) == Standing::Good
    }

    pub(super) fn state(&self) -> RevocationState {
        self.state.clone()
    }

    pub(super) fn voucher(&self) -> Arc<dyn Voucher> {
        Arc::clone(&self.voucher)
    }

    /// How a token stands that was good before.
    #[cfg(feature = "introspection")]
    #[inline]
    pub(super) fn standing_of(&self, principal: &Principal, at: Instants) -> Standing {
        self.state.check(principal, at)
    }

    pub(super) fn can_say(&self, at: Instants) -> bool {
        self.state.is_fresh(at)
    }

    /// Refuses a token that could outlive its revocation.
    pub(super) fn check_life(&self, claims: &Claims<'_>) -> Result<(), Refusal> {
        let iat = claims.iat.ok_or(Refusal("iat is missing, which revocations need"))?;
        if claims.exp.unwrap_or(Duration::MAX).saturating_sub(iat) > self.state.longest_life() {
            return Err(Refusal("token lives longer than revocations are kept"));
        }
        Ok(())
    }

    /// What the token can be revoked by. The subject is the principal's, which need not be the token's `sub`; `key` is the one that
    /// verified it.
    pub(super) fn marks(
        &self,
        issuer: &str,
        profile: &Profile,
        claims: &Claims<'_>,
        key: Option<&str>,
    ) -> Result<TokenMarks, Refusal> {
        let mut marks = TokenMarks::new(issuer).issued_at(claims.iat.unwrap_or_default().as_secs());
        if let Some(id) = profile.token_id(claims)? {
            marks = marks.token(id);
        }
        marks = match claims.mapped(self.sid) {
            Some(Shape::Text(sid)) => marks.session(sid),
            Some(Shape::Texts(_) | Shape::Other) => return Err(Refusal("sid is not a string")),
            None => marks,
        };
        let subject = profile.subject(claims);
        if !subject.is_empty() {
            marks = marks.subject(subject);
        }
        if let Some(client) = profile.client(claims)? {
            marks = marks.client(client);
        }
        Ok(key.into_iter().fold(marks, TokenMarks::key))
    }

    pub(super) fn standing(&self, marks: &TokenMarks, at: Instants) -> Standing {
        self.state.check_marks(marks, at)
    }
}

/// Why nobody is admitted while nobody knows, for the operator.
pub(super) const BLIND: &str = "the state of the revocations is too old, or was never loaded";

/// Why a revoked token is refused, for the operator.
pub(super) const fn revoked(kind: RevocationKind) -> Refusal {
    Refusal(match kind {
        RevocationKind::Token => "token is revoked",
        RevocationKind::Session => "the token's session is revoked",
        RevocationKind::Subject => "the subject's tokens are revoked",
        RevocationKind::Client => "the client's tokens are revoked",
        RevocationKind::Key => "the key that signed the token is revoked",
    })
}
