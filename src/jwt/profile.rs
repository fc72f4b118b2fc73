//! What one issuer's tokens must be.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{
    clock::Instants,
    jwt::{
        Algorithm, Key, Refusal,
        claims::Claims,
        json::Shape,
        keys::{KeyHealth, Keys},
        need::{Expected, Need},
        token::{Header, Typ},
    },
    principal::{Confirmation, Principal, PrincipalBuilder, PrincipalKind},
};

pub(super) const NO_KEY: &str = "the issuer has no key for this kid and alg";
const NO_FIT: &str = "no key of the set is for an algorithm of the profile and its issuer";
pub(super) const BAD_SIGNATURE: &str = "signature is not good";

/// Token kinds whose rules exclude each other (RFC 8725 §3.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// RFC 9068; how `typ` may be besides `at+jwt`.
    Access(Untyped),
    /// OpenID Connect Core §2.
    Id,
    /// The identity of a workload, by its platform: `typ` is `JWT` or absent.
    Workload,
    /// OpenID Connect Back-Channel Logout 1.0 §2.4: nobody's identity. `typ` is `logout+jwt`, `JWT` or absent.
    Logout,
}

/// Whether an access token may have a `typ` of `JWT` or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untyped {
    Refused,
    /// If it has no claim that only ID tokens have.
    WithoutIdClaims,
    /// The profile expects another claim that tells it from an ID token.
    ToldByClaim,
}

/// What says that a token is for us: the claim, and the values of which one is enough.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    Audience(Box<[Box<str>]>),
    ClientId(Box<[Box<str>]>),
}

/// How scopes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeForm {
    /// RFC 8693 §4.2: one string, with spaces.
    Text,
    Array,
}

/// When a principal is a program. `P` is the way to a claim, or its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum ServiceIf<P> {
    Always,
    /// `sub` is `client_id` (RFC 9068 §5).
    SubjectIsClientId,
    /// `sub` is this behind `client_id`, or behind `azp` where there is none.
    SubjectIsClientWith(&'static str),
    /// `sub` is the value of this claim.
    SubjectIs(P),
}

/// One `iss` that a profile answers for.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// As it stands in the token.
    pub(super) iss: Box<str>,
    /// As the principal has it.
    pub(super) issuer: Arc<str>,
    /// The claim that must repeat the tenant that is part of `iss`.
    pub(super) tenant: Option<Expected>,
}

/// An accepted configuration of one issuer. Mapped claims are places.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) names: Box<[Name]>,
    pub(super) keys: Keys,
    pub(super) kind: TokenKind,
    pub(super) binding: Binding,
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) scope: (usize, ScopeForm),
    pub(super) roles: Option<usize>,
    pub(super) permissions: Option<usize>,
    pub(super) tenant: Option<usize>,
    /// The claim that names the client, where it is neither `client_id` nor `azp`.
    pub(super) client: Option<usize>,
    /// The claim that tells the token from others, where it is not `jti`.
    pub(super) token_id: Option<usize>,
    pub(super) service_if: ServiceIf<usize>,
    /// Of each, one is enough.
    pub(super) required: Box<[Box<[Need]>]>,
    pub(super) expected: Box<[Expected]>,
    /// A claim, and the value by which it says that the token is bound to a key.
    pub(super) key_bound_if: Option<(usize, &'static str)>,
    pub(super) lacks: Lacks,
    /// What the principal's credential is called.
    pub(super) credential: &'static str,
}

/// What may be missing though every token of an issuer's own has it: for answers about tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lacks {
    /// The token ends only when its issuer says so.
    pub(super) exp: bool,
    /// Then the client acts for itself.
    pub(super) sub: bool,
}

impl Profile {
    /// What the profile is called: its first issuer.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", |name| &name.issuer)
    }

    /// How its keys are doing. A set that changes may lose what fits: then no token passes, whatever else there is.
    pub(super) fn health(&self, at: Instants) -> KeyHealth {
        let fits = |key: &Key| {
            self.algorithms.contains(&key.algorithm()) && self.names.iter().any(|name| key.signs_for(&name.iss))
        };
        let health = self.keys.source().health(at);
        match self.keys.now(at) {
            Ok(held) if health.is_ready() && !held.keys().keys().iter().any(fits) => health.with_cause(NO_FIT),
            Ok(_) | Err(_) => health,
        }
    }

    /// Checks all that can be checked without the signature. It can only refuse.
    pub(super) fn check(
        &self,
        name: &Name,
        header: &Header<'_>,
        claims: &Claims<'_>,
        now: Duration,
        leeway: Duration,
    ) -> Result<(), Refusal> {
        self.check_kind(header.typ, claims)?;
        if !self.algorithms.contains(&header.algorithm) {
            return Err(Refusal("alg is not allowed for the issuer"));
        }
        self.check_claims(name, claims, now, leeway)
    }

    /// Checks what an issuer that was asked says of a token of its own.
    #[cfg(feature = "introspection")]
    pub(super) fn check_answer(&self, claims: &Claims<'_>, now: Duration, leeway: Duration) -> Result<&Name, Refusal> {
        let name = self.names.first().ok_or(Refusal("no issuer is known"))?;
        if claims.iss.as_deref().is_some_and(|iss| *iss != *name.iss) {
            return Err(Refusal("iss is another issuer"));
        }
        self.check_kind(Typ::Absent, claims)?;
        self.check_claims(name, claims, now, leeway).map(|()| name)
    }

    fn check_claims(&self, name: &Name, claims: &Claims<'_>, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        self.check_binding(claims)?;
        // A logout token may name a session in its place.
        if self.kind != TokenKind::Logout && self.subject(claims).is_empty() {
            return Err(Refusal("sub is missing"));
        }
        self.check_times(claims, now, leeway)?;
        for needs in &self.required {
            if !needs.iter().any(|need| need.is_met(claims)) {
                return Err(needs.first().map_or(Refusal("a claim is missing"), |need| need.missing()));
            }
        }
        for expected in self.expected.iter().chain(&name.tenant) {
            expected.check(claims)?;
        }
        if let Some((place, bound)) = self.key_bound_if
            && matches!(claims.mapped(place), Some(Shape::Text(text)) if **text == *bound)
            && claims.cnf.as_ref().and_then(Confirmation::key_thumbprint).is_none()
        {
            return Err(Refusal("the token says that it is bound to a key, and names none (cnf.jkt)"));
        }
        Ok(())
    }

    /// Who the token is about; empty if it says nothing of that.
    pub(super) fn subject<'c>(&self, claims: &'c Claims<'_>) -> &'c str {
        let client = || claims.client_id.as_deref().filter(|_| self.lacks.sub);
        match &claims.sub {
            Some(sub) => sub,
            None => client().unwrap_or_default(),
        }
    }

    /// The client that got the token, if the token says which.
    pub(super) fn client<'c>(&self, claims: &'c Claims<'_>) -> Result<Option<&'c str>, Refusal> {
        match self.client.and_then(|place| claims.mapped(place)) {
            Some(Shape::Text(client)) => return Ok(Some(client)),
            Some(_) => return Err(Refusal("the claim that names the client is not a string")),
            None => {}
        }
        // An ID token without `azp` is for one audience, and that is the client (OpenID Connect Core §2).
        let audience = || claims.only_audience().filter(|_| self.kind == TokenKind::Id);
        Ok(claims.client_id.as_deref().or(claims.azp.as_deref()).or_else(audience))
    }

    /// What tells the token from others of its issuer.
    pub(super) fn token_id<'c>(&self, claims: &'c Claims<'_>) -> Result<Option<&'c str>, Refusal> {
        match self.token_id.and_then(|place| claims.mapped(place)) {
            Some(Shape::Text(id)) => Ok(Some(id)),
            Some(_) => Err(Refusal("the claim that names the token is not a string")),
            None => Ok(claims.jti.as_deref()),
        }
    }

    fn check_kind(&self, typ: Typ, claims: &Claims<'_>) -> Result<(), Refusal> {
        match (self.kind, typ) {
            (TokenKind::Access(_), Typ::AccessToken) => Ok(()),
            (TokenKind::Access(Untyped::WithoutIdClaims), Typ::Jwt | Typ::Absent) if claims.of_id_token => {
                Err(Refusal("an ID token in place of an access token"))
            }
            (TokenKind::Access(Untyped::WithoutIdClaims | Untyped::ToldByClaim), Typ::Jwt | Typ::Absent) => Ok(()),
            (TokenKind::Id, Typ::Jwt | Typ::Absent) if claims.of_access_token => {
                Err(Refusal("an access token in place of an ID token"))
            }
            (TokenKind::Id | TokenKind::Workload, Typ::Jwt | Typ::Absent) => Ok(()),
            (TokenKind::Logout, Typ::Logout | Typ::Jwt | Typ::Absent) if claims.of_id_token => {
                Err(Refusal("an ID token in place of a logout token"))
            }
            (TokenKind::Logout, Typ::Logout | Typ::Jwt | Typ::Absent) => Ok(()),
            (TokenKind::Logout, Typ::AccessToken | Typ::Other) => Err(Refusal("typ is not that of a logout token")),
            (TokenKind::Access(_), Typ::Jwt | Typ::Absent | Typ::Logout | Typ::Other) => {
                Err(Refusal("typ is not at+jwt"))
            }
            (TokenKind::Id, Typ::AccessToken | Typ::Logout | Typ::Other) => {
                Err(Refusal("typ is not that of an ID token"))
            }
            (TokenKind::Workload, Typ::AccessToken | Typ::Logout | Typ::Other) => {
                Err(Refusal("typ is neither JWT nor absent"))
            }
        }
    }

    fn check_binding(&self, claims: &Claims<'_>) -> Result<(), Refusal> {
        let ours = match &self.binding {
            Binding::Audience(ours) => ours,
            // RFC 7519 §4.1.3: whoever is not meant by an `aud` that is there must refuse.
            Binding::ClientId(_) if claims.aud.is_some() => return Err(Refusal("token is for an audience")),
            Binding::ClientId(ours) => {
                let client = claims.client_id.as_deref().ok_or(Refusal("client_id is missing"))?;
                let is_ours = ours.iter().any(|own| **own == *client);
                return if is_ours { Ok(()) } else { Err(Refusal("token is for another client")) };
            }
        };
        let (of_ours, count) = claims.audience(ours);
        if of_ours == 0 {
            return Err(Refusal("token is for another audience"));
        }
        // OpenID Connect Core §3.1.3.7 (3), by which logout tokens go as well (Back-Channel Logout 1.0 §2.6): another client that has the
        // token must not use it here.
        if matches!(self.kind, TokenKind::Id | TokenKind::Logout) && of_ours < count {
            return Err(Refusal("token is for others besides us"));
        }
        // OpenID Connect Core §3.1.3.7 (4, 5).
        match (self.kind, claims.azp.as_deref()) {
            (TokenKind::Id, Some(azp)) if !ours.iter().any(|own| **own == *azp) => {
                Err(Refusal("azp is another client"))
            }
            (TokenKind::Id, None) if count > 1 => Err(Refusal("several audiences without azp")),
            (TokenKind::Id | TokenKind::Access(_) | TokenKind::Workload | TokenKind::Logout, _) => Ok(()),
        }
    }

    fn check_times(&self, claims: &Claims<'_>, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        let exp = self.end(claims).ok_or(Refusal("exp is missing"))?;
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
        if claims.auth_time.is_some_and(|auth_time| auth_time > latest) {
            return Err(Refusal("auth_time is in the future"));
        }
        if let Some(longest) = self.max_lifetime {
            let iat = claims.iat.ok_or(Refusal("iat is missing, which the maximum lifetime needs"))?;
            if exp.saturating_sub(iat) > longest {
                return Err(Refusal("token lives longer than allowed"));
            }
        }
        if let Some(oldest) = self.max_age {
            let iat = claims.iat.ok_or(Refusal("iat is missing, which the maximum age needs"))?;
            if now.saturating_sub(iat) > oldest.saturating_add(leeway) {
                return Err(Refusal("token is older than allowed"));
            }
        }
        Ok(())
    }

    fn end(&self, claims: &Claims<'_>) -> Option<Duration> {
        claims.exp.or_else(|| self.lacks.exp.then_some(Duration::MAX))
    }

    /// When a token that passes [`check`](Self::check) passes it: from the first moment up to the second. None if its claims
    /// set no end.
    pub(super) fn window(&self, claims: &Claims<'_>, leeway: Duration) -> Option<(Duration, Duration)> {
        const MOMENT: Duration = Duration::from_nanos(1);
        let begin = claims.nbf.max(claims.iat).max(claims.auth_time).unwrap_or_default();
        let mut end = self.end(claims)?.saturating_add(leeway);
        if let Some(oldest) = self.max_age {
            // The one bound that is still good itself.
            end = end.min(claims.iat?.saturating_add(oldest).saturating_add(leeway).saturating_add(MOMENT));
        }
        Some((begin.saturating_sub(leeway), end))
    }

    /// Makes the principal of a token that passed. `text` is the claims' JSON.
    #[inline]
    pub(super) fn principal(&self, name: &Name, claims: &Claims<'_>, text: &str) -> Result<PrincipalBuilder, Refusal> {
        let subject = self.subject(claims);
        let kind = self.kind_of(subject, claims)?;
        let mut principal = Principal::of_claims(kind, Arc::clone(&name.issuer), subject, self.credential, text);
        self.set_scopes(claims, &mut principal)?;
        principal.set_roles(texts(self.roles, claims, Refusal("the roles claim is not an array of strings"))?);
        let permissions = texts(self.permissions, claims, Refusal("the permissions claim is not an array of strings"))?;
        principal.set_permissions(permissions);
        principal.set_methods(&claims.amr);
        if let Some(id) = self.token_id(claims)? {
            principal.set_credential_id(id);
        }
        if let Some(acr) = claims.acr.as_deref() {
            principal.set_acr(acr);
        }
        if let Some(auth_time) = claims.auth_time {
            principal.set_auth_time(auth_time.as_secs());
        }
        if let Some(tenant) = self.tenant(claims)? {
            principal.set_tenant(tenant);
        }
        if let Some(confirmation) = claims.cnf {
            principal.set_confirmation(confirmation);
        }
        if let Some(exp) = claims.exp {
            principal.set_expires_at(exp.as_secs());
        }
        Ok(principal)
    }

    fn kind_of(&self, subject: &str, claims: &Claims<'_>) -> Result<PrincipalKind, Refusal> {
        let is_service = match self.service_if {
            ServiceIf::Always => true,
            ServiceIf::SubjectIsClientId => claims.client_id.as_deref() == Some(subject),
            ServiceIf::SubjectIsClientWith(suffix) => {
                let client = claims.client_id.as_deref().or(claims.azp.as_deref());
                client.is_some_and(|client| subject.strip_suffix(suffix) == Some(client))
            }
            ServiceIf::SubjectIs(place) => match claims.mapped(place) {
                Some(Shape::Text(text)) => **text == *subject,
                Some(_) => return Err(Refusal("the claim that names the client is not a string")),
                None => false,
            },
        };
        Ok(if is_service { PrincipalKind::Service } else { PrincipalKind::User })
    }

    fn set_scopes(&self, claims: &Claims<'_>, principal: &mut PrincipalBuilder) -> Result<(), Refusal> {
        let (place, form) = self.scope;
        match (claims.mapped(place), form) {
            (None, _) => {}
            (Some(Shape::Text(text)), ScopeForm::Text) => {
                principal.set_scopes(text.split(' ').filter(|scope| !scope.is_empty()));
            }
            (Some(Shape::Texts(texts)), ScopeForm::Array) => principal.set_scopes(texts),
            (Some(_), ScopeForm::Text) => return Err(Refusal("the scope claim is not a string")),
            (Some(_), ScopeForm::Array) => return Err(Refusal("the scope claim is not an array of strings")),
        }
        Ok(())
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

/// The strings of a mapped claim; none if it is missing.
fn texts<'c, 'a>(place: Option<usize>, claims: &'c Claims<'a>, wrong: Refusal) -> Result<&'c [Cow<'a, str>], Refusal> {
    match place.and_then(|place| claims.mapped(place)) {
        None => Ok(&[]),
        Some(Shape::Texts(texts)) => Ok(texts),
        Some(_) => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        jwt::{Issuer, KeySet, path::Mapped},
        secret::Secret,
    };

    proptest! {
        /// What the cache decides by the window must be what is decided without a cache.
        #[test]
        fn the_window_is_what_the_checks_of_times_say(
            exp in 0_u64..200, nbf in proptest::option::of(0_u64..200), iat in proptest::option::of(0_u64..200),
            auth_time in proptest::option::of(0_u64..200), leeway in 0_u64..60, bound in any::<bool>(),
            oldest in proptest::option::of(1_u64..100),
        ) {
            let key = Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32])).unwrap();
            let issuer = Issuer::fixed("i", KeySet::new([key]).unwrap()).access_tokens("a").algorithms([Algorithm::HS256]);
            let issuer = if bound { issuer.max_lifetime(Duration::from_secs(100)) } else { issuer };
            let issuer = oldest.into_iter().fold(issuer, |issuer, oldest| issuer.max_age(Duration::from_secs(oldest)));
            let mut mapped = Mapped::new();
            let profile = issuer.accept(&mut mapped).unwrap();
            let seconds = Duration::from_secs;
            let date = |name, date: Option<u64>| date.map_or_else(String::new, |date| format!(r#","{name}":{date}"#));
            let dates = [date("nbf", nbf), date("iat", iat), date("auth_time", auth_time)].concat();
            let text = format!(r#"{{"exp":{exp}{dates}}}"#);
            let mut claims = Claims::default();
            claims.read(&text, &mapped).unwrap();
            let good = |now| profile.check_times(&claims, seconds(now), seconds(leeway)).is_ok();
            if (0..400).any(good) {
                let (from, until) = profile.window(&claims, seconds(leeway)).unwrap();
                for now in 0..400 {
                    prop_assert_eq!(good(now), (from..until).contains(&seconds(now)), "at {}", now);
                }
            }
        }
    }
}
