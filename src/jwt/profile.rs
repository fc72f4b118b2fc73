//! What one issuer's tokens must be.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{
    jwt::{
        Algorithm, KeySet, Refusal,
        claims::Claims,
        json::Shape,
        keys::Keys,
        token::{Header, Typ},
    },
    principal::{Principal, PrincipalKind},
};

/// The most keys that one token is tried with.
const MAX_TRIES: usize = 4;

/// Why no key of a set verifies a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The set does not have the key that the token names, or none that fits.
    Unknown,
    Final(Refusal),
}

pub(super) const NO_KEY: &str = "the issuer has no key for this kid and alg";

/// Token kinds whose rules exclude each other (RFC 8725 §3.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// RFC 9068; `untyped`: also with `typ` of `JWT` or without one.
    Access { untyped: bool },
    /// OpenID Connect Core §2.
    Id,
}

/// How scopes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeForm {
    /// RFC 8693 §4.2: one string, with spaces.
    Text,
    Array,
}

/// An accepted configuration of one issuer. The mapped claims are places among the authenticator's names.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) issuer: Arc<str>,
    pub(super) keys: Keys,
    pub(super) kind: TokenKind,
    pub(super) audience: Box<str>,
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) scope: (usize, ScopeForm),
    pub(super) roles: Option<usize>,
    pub(super) tenant: Option<usize>,
}

/// The place of `scope` among the names of mapped claims.
pub(super) const SCOPE: usize = 0;

impl Profile {
    /// Checks all that can be checked without the signature. It can only refuse.
    pub(super) fn check(
        &self,
        header: &Header<'_>,
        claims: &Claims<'_>,
        now: Duration,
        leeway: Duration,
    ) -> Result<(), Refusal> {
        self.check_kind(header.typ, claims)?;
        if !self.algorithms.contains(&header.algorithm) {
            return Err(Refusal("alg is not allowed for the issuer"));
        }
        self.check_audience(claims)?;
        if claims.sub.as_deref().is_none_or(str::is_empty) {
            return Err(Refusal("sub is missing"));
        }
        self.check_times(claims, now, leeway)
    }

    fn check_kind(&self, typ: Typ, claims: &Claims<'_>) -> Result<(), Refusal> {
        match (self.kind, typ) {
            (TokenKind::Access { .. }, Typ::AccessToken) => Ok(()),
            (TokenKind::Access { untyped: true }, Typ::Jwt | Typ::Absent) if claims.of_id_token => {
                Err(Refusal("an ID token in place of an access token"))
            }
            (TokenKind::Access { untyped: true }, Typ::Jwt | Typ::Absent) => Ok(()),
            (TokenKind::Id, Typ::Jwt | Typ::Absent) if claims.mapped(SCOPE).is_some() => {
                Err(Refusal("an access token in place of an ID token"))
            }
            (TokenKind::Id, Typ::Jwt | Typ::Absent) => Ok(()),
            (TokenKind::Access { .. }, Typ::Jwt | Typ::Absent | Typ::Other) => Err(Refusal("typ is not at+jwt")),
            (TokenKind::Id, Typ::AccessToken | Typ::Other) => Err(Refusal("typ is not that of an ID token")),
        }
    }

    fn check_audience(&self, claims: &Claims<'_>) -> Result<(), Refusal> {
        let (ours, count) = claims.audience(&self.audience);
        if !ours {
            return Err(Refusal("token is for another audience"));
        }
        // OpenID Connect Core §3.1.3.7 (4, 5).
        match (self.kind, claims.azp.as_deref()) {
            (TokenKind::Id, Some(azp)) if *azp != *self.audience => Err(Refusal("azp is another client")),
            (TokenKind::Id, None) if count > 1 => Err(Refusal("several audiences without azp")),
            (TokenKind::Id | TokenKind::Access { .. }, _) => Ok(()),
        }
    }

    fn check_times(&self, claims: &Claims<'_>, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        let Some(exp) = claims.exp else { return Err(Refusal("exp is missing")) };
        if now >= exp.saturating_add(leeway) {
            return Err(Refusal("token expired"));
        }
        let latest = now.saturating_add(leeway);
        if claims.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(Refusal("token is not valid yet"));
        }
        if claims.iat.is_some_and(|iat| iat > latest) {
            return Err(Refusal("token was issued in the future"));
        }
        match (self.max_lifetime, claims.iat) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Refusal("iat is missing, which the maximum lifetime needs")),
            (Some(longest), Some(iat)) if exp.saturating_sub(iat) > longest => {
                Err(Refusal("token lives longer than allowed"))
            }
            (Some(_), Some(_)) => Ok(()),
        }
    }

    /// Checks the signature with the issuer's own keys, and of those with the ones of the header's algorithm. An error
    /// that [may pass](NoKey::Unknown) says that newer keys may do better.
    pub(super) fn check_signature(
        keys: &KeySet,
        header: &Header<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NoKey> {
        let key_id = header.key_id.as_deref();
        let mut tried = false;
        for key in keys.candidates(header.algorithm, key_id).take(MAX_TRIES) {
            if key.verifies(message, signature) {
                return Ok(());
            }
            tried = true;
        }
        match key_id {
            Some(id) if keys.has_id(id) => {}
            None if tried => {}
            Some(_) | None => return Err(NoKey::Unknown),
        }
        Err(NoKey::Final(Refusal(if tried { "signature is not good" } else { NO_KEY })))
    }

    /// Makes the principal of a token that passed. `text` is the claims' JSON.
    pub(super) fn principal(&self, claims: &Claims<'_>, text: &str) -> Result<Principal, Refusal> {
        let scopes = self.scopes(claims)?;
        let roles = self.roles(claims)?;
        let tenant = self.tenant(claims)?;
        let subject = claims.sub.as_deref().unwrap_or_default();
        let kind =
            if claims.client_id.as_deref() == Some(subject) { PrincipalKind::Service } else { PrincipalKind::User };
        let mut principal = Principal::builder(kind, Arc::clone(&self.issuer), subject, "jwt")
            .scopes(scopes)
            .roles(roles.iter().map(AsRef::as_ref))
            .methods(claims.amr.iter().map(AsRef::as_ref))
            .claims(text);
        if let Some(jti) = claims.jti.as_deref() {
            principal = principal.credential_id(jti);
        }
        if let Some(tenant) = tenant {
            principal = principal.tenant(tenant);
        }
        if let Some(exp) = claims.exp {
            principal = principal.expires_at(exp.as_secs());
        }
        Ok(principal.build())
    }

    fn scopes<'c>(&self, claims: &'c Claims<'_>) -> Result<Vec<&'c str>, Refusal> {
        let (place, form) = self.scope;
        match (claims.mapped(place), form) {
            (None, _) => Ok(Vec::new()),
            (Some(Shape::Text(text)), ScopeForm::Text) => {
                Ok(text.split(' ').filter(|scope| !scope.is_empty()).collect())
            }
            (Some(Shape::Texts(texts)), ScopeForm::Array) => Ok(texts.iter().map(AsRef::as_ref).collect()),
            (Some(_), ScopeForm::Text) => Err(Refusal("the scope claim is not a string")),
            (Some(_), ScopeForm::Array) => Err(Refusal("the scope claim is not an array of strings")),
        }
    }

    fn roles<'c, 'a>(&self, claims: &'c Claims<'a>) -> Result<&'c [Cow<'a, str>], Refusal> {
        match self.roles.and_then(|place| claims.mapped(place)) {
            None => Ok(&[]),
            Some(Shape::Texts(roles)) => Ok(roles),
            Some(_) => Err(Refusal("the roles claim is not an array of strings")),
        }
    }

    /// A tenant that the profile names is required: a token without one belongs to nobody.
    fn tenant<'c>(&self, claims: &'c Claims<'_>) -> Result<Option<&'c str>, Refusal> {
        let Some(place) = self.tenant else { return Ok(None) };
        match claims.mapped(place) {
            Some(Shape::Text(tenant)) if !tenant.is_empty() => Ok(Some(tenant)),
            Some(_) => Err(Refusal("the tenant claim is not a string")),
            None => Err(Refusal("the tenant claim is missing")),
        }
    }
}
