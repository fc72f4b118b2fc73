use std::{sync::Arc, time::Duration};

#[cfg(feature = "jwt-remote")]
use crate::jwt::keys::LiveKeys;
use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, ClaimPath, Key, KeySet,
        keys::{KeySource, Keys},
        path::Mapped,
        profile::{Profile, ScopeForm, TokenKind, Untyped},
        rules::{Bind, NameRule, Rules},
    },
};

/// An issuer and its keys. It becomes a usable [`IssuerProfile`] only once the token kind, the audience and the algorithms
/// are said: [`access_tokens`](Self::access_tokens) or [`id_tokens`](Self::id_tokens), then
/// [`algorithms`](IssuerTokens::algorithms). For the providers that many services use, [`Provider`](crate::jwt::Provider)
/// says all three.
///
/// ```
/// use portcullis::{Secret, jwt::{Algorithm, Issuer, Key, KeySet}};
///
/// let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
/// let profile = Issuer::fixed("https://id.example.com", keys).access_tokens("orders-api").algorithms([Algorithm::HS256]);
/// # let _ = profile;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Issuer {
    name: String,
    keys: Keys,
}

impl Issuer {
    /// An issuer whose keys do not change while the service runs. `name` is compared with `iss` byte for byte: a slash at
    /// the end makes another issuer (RFC 7519 §4.1.1).
    pub fn fixed(name: impl Into<String>, keys: KeySet) -> Self {
        Self { name: name.into(), keys: Keys::Fixed(keys) }
    }

    /// An issuer whose keys come from this source, and may change while the service runs. `name` is compared with `iss`
    /// byte for byte.
    pub fn with_keys(name: impl Into<String>, keys: impl KeySource) -> Self {
        Self { name: name.into(), keys: Keys::Source(Arc::new(keys)) }
    }

    /// An issuer whose keys are in a JWK Set file; they change when the file does. For options see
    /// [`LiveKeys::jwks_file`](crate::jwt::keys::LiveKeys::jwks_file).
    ///
    /// # Errors
    /// As [`LiveKeysBuilder::build`](crate::jwt::keys::LiveKeysBuilder::build).
    #[cfg(feature = "jwt-remote")]
    pub fn jwks_file(name: impl Into<String>, path: impl AsRef<std::path::Path>) -> Result<Self, ConfigError> {
        Ok(Self::with_keys(name, LiveKeys::jwks_file(path).build()?))
    }

    /// An issuer whose keys are in the JWK Set at this URL, which is `https`. For options see
    /// [`LiveKeys::jwks_url`](crate::jwt::keys::LiveKeys::jwks_url).
    ///
    /// # Errors
    /// As [`LiveKeysBuilder::build`](crate::jwt::keys::LiveKeysBuilder::build).
    #[cfg(feature = "jwt-remote")]
    pub fn jwks_url(name: impl Into<String>, url: impl Into<String>) -> Result<Self, ConfigError> {
        Ok(Self::with_keys(name, LiveKeys::jwks_url(url).build()?))
    }

    /// An issuer whose metadata says where its keys are. `name` is its URL, byte for byte. For options see
    /// [`LiveKeys::discover`](crate::jwt::keys::LiveKeys::discover).
    ///
    /// # Errors
    /// As [`LiveKeysBuilder::build`](crate::jwt::keys::LiveKeysBuilder::build).
    #[cfg(feature = "jwt-remote")]
    pub fn discover(name: impl Into<String>) -> Result<Self, ConfigError> {
        let name = name.into();
        let keys = LiveKeys::discover(name.clone()).build()?;
        Ok(Self::with_keys(name, keys))
    }

    /// Takes access tokens (RFC 9068) for this audience: `typ` is `at+jwt`, `aud` holds `audience`, byte for byte, and
    /// `client_id`, `iat` and `jti` are there (§2.2; [`may_lack`](IssuerProfile::may_lack) for issuers that leave them out).
    pub fn access_tokens(self, audience: impl Into<String>) -> IssuerTokens {
        let mut rules = Rules::new(TokenKind::Access(Untyped::Refused), Bind::Audience(vec![audience.into()]));
        rules.required = RFC_9068.map(|name| vec![name.into()]).into();
        IssuerTokens { issuer: self, rules }
    }

    /// Takes logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4) for this client, for
    /// [`LogoutTokens`](crate::jwt::LogoutTokens) alone: `typ` is `logout+jwt`, `JWT` or absent, `aud` holds `client_id` and nothing
    /// else, `iat`, `exp` and `jti` are there.
    pub fn logout_tokens(self, client_id: impl Into<String>) -> IssuerTokens {
        let mut rules = Rules::new(TokenKind::Logout, Bind::Audience(vec![client_id.into()]));
        rules.required = LOGOUT.map(|name| vec![name.into()]).into();
        IssuerTokens { issuer: self, rules }
    }

    /// Takes ID tokens (OpenID Connect Core §2) for this client: `typ` is `JWT` or absent, `aud` holds `client_id`, and
    /// `azp` is the client if it is there; with several audiences it must be there. Every audience must be this client or one said
    /// with [`or_audience`](IssuerProfile::or_audience) (§3.1.3.7): any other client has the token too. `iat` is there, and none of
    /// `scope`, `scp` and `client_id`, which access tokens have: an issuer that gives neither kind a `typ` of its own may have one key and
    /// one audience for both.
    ///
    /// An ID token tells a client who logged in. A service that is called with tokens wants
    /// [`access_tokens`](Self::access_tokens).
    pub fn id_tokens(self, client_id: impl Into<String>) -> IssuerTokens {
        let mut rules = Rules::new(TokenKind::Id, Bind::Audience(vec![client_id.into()]));
        rules.required = ID.map(|name| vec![name.into()]).into();
        IssuerTokens { issuer: self, rules }
    }
}

/// What OpenID Connect Core §2 requires besides `iss`, `sub`, `aud` and `exp`.
const ID: [&str; 1] = ["iat"];

/// What OpenID Connect Back-Channel Logout 1.0 §2.4 requires besides `iss`, `aud`, `exp` and `events`.
const LOGOUT: [&str; 2] = ["iat", "jti"];

/// What RFC 9068 §2.2 requires besides `iss`, `exp`, `aud` and `sub`.
const RFC_9068: [&str; 3] = ["client_id", "iat", "jti"];

/// An [`Issuer`] whose kind of token and audience are known. It lacks its [`algorithms`](Self::algorithms).
#[must_use]
#[derive(Clone, Debug)]
pub struct IssuerTokens {
    issuer: Issuer,
    rules: Rules,
}

impl IssuerTokens {
    /// Allows these signature algorithms and no other (RFC 8725 §3.1). Fixed keys must have one for each. Keys that are fetched must say
    /// what they are for, where it is RSA and not RS256; see
    #[cfg_attr(
        feature = "jwt-remote",
        doc = "[`rsa_without_alg`](crate::jwt::keys::LiveKeysBuilder::rsa_without_alg)."
    )]
    #[cfg_attr(not(feature = "jwt-remote"), doc = "`LiveKeysBuilder::rsa_without_alg`.")]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> IssuerProfile {
        self.rules.algorithms = algorithms.into_iter().collect();
        IssuerProfile::new(vec![NameRule::exactly(self.issuer.name)], self.issuer.keys, self.rules)
    }
}

/// What the tokens of one issuer must be, and which claims make up the principal. Checked by
/// [`JwtAuthenticatorBuilder::build`](crate::jwt::JwtAuthenticatorBuilder::build).
///
/// A claim is named by a [`ClaimPath`]: `"roles"` at the top level, `["realm_access", "roles"]` inside an object. A mapped
/// claim of the wrong JSON type refuses the token, and so does something other than an object on the way to it.
#[must_use]
#[derive(Clone, Debug)]
pub struct IssuerProfile {
    names: Vec<NameRule>,
    keys: Keys,
    rules: Rules,
    untyped: bool,
    lacking: Vec<String>,
}

impl IssuerProfile {
    pub(super) const fn new(names: Vec<NameRule>, keys: Keys, rules: Rules) -> Self {
        Self { names, keys, rules, untyped: false, lacking: Vec::new() }
    }

    /// Takes access tokens whose `typ` is `JWT` or absent as well, for issuers that do not follow RFC 9068. What else such
    /// issuers leave out is said by [`may_lack`](Self::may_lack).
    ///
    /// # Security
    /// Such a token is told from an ID token by its audience, and refused if it has a `nonce`, `at_hash` or `c_hash`. Make
    /// sure that no client has the audience as its id. Other types, `logout+jwt` for one, stay refused.
    pub fn dangerous_untyped(mut self) -> Self {
        self.untyped = true;
        self
    }

    /// Takes access tokens that lack these claims, of `client_id`, `iat` and `jti`: RFC 9068 §2.2 requires all three, and not
    /// every issuer sends them. What a [`maximum age`](Self::max_age) or [`lifetime`](Self::max_lifetime) needs stays
    /// required.
    pub fn may_lack<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.lacking.extend(claims.into_iter().map(Into::into));
        self
    }

    /// Takes tokens for this audience as well: an API that changes its name takes both for a while, and Entra's version 1 tokens have
    /// the one that the client asked for. For Cognito's access tokens, and for ID and logout tokens, it is another client's id; an ID or
    /// logout token that is for yet another client as well is refused. Byte for byte; an empty one is an error when the authenticator is
    /// built. Default: the one that the kind of token was said with.
    pub fn or_audience(mut self, audience: impl Into<String>) -> Self {
        self.rules.bind.or(audience.into());
        self
    }

    /// Requires these claims to be there, of whatever value. `iss`, `sub`, `exp` and the claim that binds the token to us are
    /// required anyway.
    pub fn required<T: Into<ClaimPath>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.rules.required.extend(claims.into_iter().map(|claim| vec![claim.into()]));
        self
    }

    /// Requires this claim to be a string, and one of these: the hosted domain `hd` at Google, for example, or the client, `client_id` or
    /// `azp`. Of the registered claims, `acr`, `azp`, `client_id` and `jti` may be named. Several such rules must all hold.
    pub fn claim_must_be<T: Into<String>>(
        mut self,
        claim: impl Into<ClaimPath>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.rules.expected.push((claim.into(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// Reads the scopes from this claim, a string with spaces. Default: `scope` (RFC 9068 §2.2.3).
    pub fn scope_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.scope = Some((claim.into(), ScopeForm::Text));
        self
    }

    /// Reads the scopes from this claim, an array of strings: `scp` at some issuers.
    pub fn scope_array_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.scope = Some((claim.into(), ScopeForm::Array));
        self
    }

    /// Reads the roles from this claim, an array of strings. Default: no roles. A token without the claim has no roles; a
    /// claim of another type refuses the token. There is one such claim: roles that mean different things, those of a realm
    /// and of a client for example, are not thrown together.
    pub fn roles_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.roles = Some(claim.into());
        self
    }

    /// Reads permissions from this claim, an array of strings, as [`roles_claim`](Self::roles_claim). Default: none.
    pub fn permissions_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.permissions = Some(claim.into());
        self
    }

    /// Reads the tenant from this claim, a string. Default: no tenant. Once named it is required: a token without it is
    /// refused. Policies compare tenants by name alone, so of several issuers that assert them, list those that each of them may:
    /// `claim_must_be` on the same claim. The log warns where that is not so.
    pub fn tenant_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.tenant = Some(claim.into());
        self
    }

    /// Refuses tokens that live longer, from `iat` to `exp`; both are then required. Default: any lifetime.
    pub fn max_lifetime(mut self, longest: Duration) -> Self {
        self.rules.max_lifetime = Some(longest);
        self
    }

    /// Refuses tokens that were issued longer ago than this, whatever their `exp`; `iat` is then required. The leeway is
    /// added. Default: any age.
    pub fn max_age(mut self, oldest: Duration) -> Self {
        self.rules.max_age = Some(oldest);
        self
    }

    pub(super) const fn maps_tenant(&self) -> bool {
        self.rules.tenant.is_some()
    }

    /// Whether the tenants that its tokens may assert are listed.
    pub(super) fn has_own_tenants(&self) -> bool {
        let Some(tenant) = &self.rules.tenant else { return true };
        self.rules.expected.iter().any(|(claim, _)| claim == tenant)
            || self.names.iter().all(|name| name.tenant.as_ref().is_some_and(|(claim, _)| claim == tenant))
    }

    pub(super) fn is_of_logout_tokens(&self) -> bool {
        self.rules.kind == TokenKind::Logout
    }

    /// Every `iss` that it is about.
    #[cfg(all(feature = "config", feature = "jwt-remote"))]
    pub(crate) fn issuers(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &*name.iss)
    }

    /// The issuer, for messages.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", |name| &name.iss)
    }

    fn refuse<T>(&self, value: &str, problem: &str) -> Result<T, ConfigError> {
        Err(ConfigError::new(format!("JWT issuer {:?}", self.name()), value, problem))
    }

    /// Checks the profile, and gives the claims that it maps their places.
    pub(super) fn accept(mut self, mapped: &mut Mapped) -> Result<Profile, ConfigError> {
        if self.names.is_empty() || self.names.iter().any(|name| name.iss.is_empty()) {
            return Err(ConfigError::new("JWT issuer", "\"\"", "must not be empty"));
        }
        if self.rules.bind.values().is_empty() || self.rules.bind.values().iter().any(String::is_empty) {
            let setting = format!("audience of JWT issuer {:?}", self.name());
            return Err(ConfigError::new(setting, "\"\"", "must not be empty"));
        }
        self.check_algorithms()?;
        self.apply_relaxations()?;
        if self.rules.kind == TokenKind::Id && self.rules.scope.is_some() {
            return self.refuse("a scope claim", "is for access tokens alone");
        }
        self.rules.profile(self.names, self.keys, mapped)
    }

    fn apply_relaxations(&mut self) -> Result<(), ConfigError> {
        let TokenKind::Access(untyped) = &mut self.rules.kind else {
            return match (self.untyped, self.lacking.is_empty()) {
                (true, _) => self.refuse("dangerous_untyped", "is for access tokens alone"),
                (false, false) => self.refuse("may_lack", "is for access tokens alone"),
                (false, true) => Ok(()),
            };
        };
        if self.untyped && *untyped == Untyped::Refused {
            *untyped = Untyped::WithoutIdClaims;
        }
        for claim in &self.lacking {
            if !RFC_9068.contains(&claim.as_str()) {
                return self.refuse(&format!("may_lack {claim:?}"), "is not one of client_id, iat and jti");
            }
            self.rules.required.retain(|needs| *needs != [ClaimPath::from(claim.as_str())]);
        }
        Ok(())
    }

    fn check_algorithms(&self) -> Result<(), ConfigError> {
        let setting = || format!("algorithms of JWT issuer {:?}", self.name());
        if self.rules.algorithms.is_empty() {
            return Err(ConfigError::new(setting(), "[]", "must name at least one"));
        }
        let keys = match &self.keys {
            Keys::Fixed(keys) => keys,
            Keys::Source(source) => return self.check_live_algorithms(&setting(), source.has_no_secrets()),
        };
        let of_keys = || keys.keys().iter().map(Key::algorithm);
        if let Some(lacking) = self.rules.algorithms.iter().find(|&&algorithm| of_keys().all(|has| has != algorithm)) {
            return Err(ConfigError::new(setting(), lacking.name(), "has no key in the key set"));
        }
        let symmetric = of_keys().filter(|algorithm| algorithm.is_symmetric()).count();
        if symmetric != 0 && symmetric != of_keys().count() {
            let problem = "must not be mixed in one key set (RFC 8725 §2.1)";
            return Err(ConfigError::new(setting(), "symmetric and asymmetric keys", problem));
        }
        Ok(())
    }

    /// Keys that change may bring any algorithm; the list alone says which count.
    fn check_live_algorithms(&self, setting: &str, has_no_secrets: bool) -> Result<(), ConfigError> {
        let of_secrets = self.rules.algorithms.iter().filter(|algorithm| algorithm.is_symmetric());
        if let Some(lacking) = of_secrets.clone().next().filter(|_| has_no_secrets) {
            return Err(ConfigError::new(setting, lacking.name(), "has no key in a set that is published"));
        }
        let symmetric = of_secrets.count();
        if symmetric != 0 && symmetric != self.rules.algorithms.len() {
            let problem = "must not be mixed (RFC 8725 §2.1)";
            return Err(ConfigError::new(setting, "symmetric and asymmetric algorithms", problem));
        }
        Ok(())
    }
}
