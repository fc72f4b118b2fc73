use std::{sync::Arc, time::Duration};

#[cfg(feature = "jwt-remote")]
use crate::jwt::keys::LiveKeys;
use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, Key, KeySet,
        claims::REGISTERED,
        keys::{KeySource, Keys},
        profile::{Profile, SCOPE, ScopeForm, TokenKind},
    },
};

/// An issuer and its keys. It becomes a usable [`IssuerProfile`] only once the token kind, the audience and the algorithms
/// are said: [`access_tokens`](Self::access_tokens) or [`id_tokens`](Self::id_tokens), then
/// [`algorithms`](IssuerTokens::algorithms).
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

    /// Takes access tokens (RFC 9068) for this audience: `typ` is `at+jwt` and `aud` holds `audience`, byte for byte.
    pub fn access_tokens(self, audience: impl Into<String>) -> IssuerTokens {
        IssuerTokens { issuer: self, kind: TokenKind::Access { untyped: false }, audience: audience.into() }
    }

    /// Takes ID tokens (OpenID Connect Core §2) for this client: `typ` is `JWT` or absent, `aud` holds `client_id`, and
    /// `azp` is the client if it is there; with several audiences it must be there.
    ///
    /// An ID token tells a client who logged in. A service that is called with tokens wants
    /// [`access_tokens`](Self::access_tokens).
    pub fn id_tokens(self, client_id: impl Into<String>) -> IssuerTokens {
        IssuerTokens { issuer: self, kind: TokenKind::Id, audience: client_id.into() }
    }
}

/// An [`Issuer`] whose kind of token and audience are known. It lacks its [`algorithms`](Self::algorithms).
#[must_use]
#[derive(Clone, Debug)]
pub struct IssuerTokens {
    issuer: Issuer,
    kind: TokenKind,
    audience: String,
}

impl IssuerTokens {
    /// Allows these signature algorithms and no other (RFC 8725 §3.1). Fixed keys must have one for each.
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> IssuerProfile {
        IssuerProfile {
            name: self.issuer.name,
            keys: self.issuer.keys,
            kind: self.kind,
            audience: self.audience,
            algorithms: algorithms.into_iter().collect(),
            untyped: false,
            scope: None,
            roles: None,
            tenant: None,
            max_lifetime: None,
        }
    }
}

/// What the tokens of one issuer must be, and which claims make up the principal. Checked by
/// [`JwtAuthenticatorBuilder::build`](crate::jwt::JwtAuthenticatorBuilder::build).
#[must_use]
#[derive(Clone, Debug)]
pub struct IssuerProfile {
    name: String,
    keys: Keys,
    kind: TokenKind,
    audience: String,
    algorithms: Vec<Algorithm>,
    untyped: bool,
    scope: Option<(String, ScopeForm)>,
    roles: Option<String>,
    tenant: Option<String>,
    max_lifetime: Option<Duration>,
}

impl IssuerProfile {
    /// Takes access tokens whose `typ` is `JWT` or absent as well, for issuers that do not follow RFC 9068.
    ///
    /// # Security
    /// Such a token is told from an ID token by its audience, and refused if it has a `nonce`, `at_hash` or `c_hash`. Make
    /// sure that no client has the audience as its id. Other types, `logout+jwt` for one, stay refused.
    pub fn dangerous_untyped(mut self) -> Self {
        self.untyped = true;
        self
    }

    /// Reads the scopes from this claim, a string with spaces. Default: `scope` (RFC 9068 §2.2.3).
    pub fn scope_claim(mut self, name: impl Into<String>) -> Self {
        self.scope = Some((name.into(), ScopeForm::Text));
        self
    }

    /// Reads the scopes from this claim, an array of strings: `scp` at some issuers.
    pub fn scope_array_claim(mut self, name: impl Into<String>) -> Self {
        self.scope = Some((name.into(), ScopeForm::Array));
        self
    }

    /// Reads the roles from this claim, an array of strings at the top level. Default: no roles. A token without the claim
    /// has no roles; a claim of another type refuses the token.
    pub fn roles_claim(mut self, name: impl Into<String>) -> Self {
        self.roles = Some(name.into());
        self
    }

    /// Reads the tenant from this claim, a string. Default: no tenant. Once named it is required: a token without it is
    /// refused.
    pub fn tenant_claim(mut self, name: impl Into<String>) -> Self {
        self.tenant = Some(name.into());
        self
    }

    /// Refuses tokens that live longer, from `iat` to `exp`; both are then required. Default: any lifetime.
    pub fn max_lifetime(mut self, longest: Duration) -> Self {
        self.max_lifetime = Some(longest);
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Checks the profile, and adds the claims that it maps to `names`, of which the first is `scope`.
    pub(super) fn accept(self, names: &mut Vec<Box<str>>) -> Result<Profile, ConfigError> {
        if self.name.is_empty() {
            return Err(ConfigError::new("JWT issuer", "\"\"", "must not be empty"));
        }
        if self.audience.is_empty() {
            let setting = format!("audience of JWT issuer {:?}", self.name);
            return Err(ConfigError::new(setting, "\"\"", "must not be empty"));
        }
        self.check_algorithms()?;
        let id_tokens = self.kind == TokenKind::Id;
        if id_tokens && (self.untyped || self.scope.is_some()) {
            let value = if self.untyped { "dangerous_untyped" } else { "a scope claim" };
            return Err(ConfigError::new(format!("JWT issuer {:?}", self.name), value, "is for access tokens alone"));
        }
        if self.max_lifetime == Some(Duration::ZERO) {
            return Err(ConfigError::new("maximum JWT lifetime", "0 s", "would refuse every token"));
        }
        let mut place = |name: String| place_of(name, names);
        let scope = match self.scope {
            None => (SCOPE, ScopeForm::Text),
            Some((name, form)) => (place(name)?, form),
        };
        Ok(Profile {
            roles: self.roles.map(&mut place).transpose()?,
            tenant: self.tenant.map(&mut place).transpose()?,
            scope,
            issuer: Arc::from(self.name),
            keys: self.keys,
            kind: if self.untyped { TokenKind::Access { untyped: true } } else { self.kind },
            audience: self.audience.into(),
            algorithms: self.algorithms.into(),
            max_lifetime: self.max_lifetime,
        })
    }

    fn check_algorithms(&self) -> Result<(), ConfigError> {
        let setting = || format!("algorithms of JWT issuer {:?}", self.name);
        if self.algorithms.is_empty() {
            return Err(ConfigError::new(setting(), "[]", "must name at least one"));
        }
        let Keys::Fixed(keys) = &self.keys else { return self.check_live_algorithms(&setting()) };
        let of_keys = || keys.keys().iter().map(Key::algorithm);
        if let Some(lacking) = self.algorithms.iter().find(|&&algorithm| of_keys().all(|has| has != algorithm)) {
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
    fn check_live_algorithms(&self, setting: &str) -> Result<(), ConfigError> {
        let symmetric = self.algorithms.iter().filter(|algorithm| algorithm.is_symmetric()).count();
        if symmetric != 0 && symmetric != self.algorithms.len() {
            let problem = "must not be mixed (RFC 8725 §2.1)";
            return Err(ConfigError::new(setting, "symmetric and asymmetric algorithms", problem));
        }
        Ok(())
    }
}

fn place_of(name: String, names: &mut Vec<Box<str>>) -> Result<usize, ConfigError> {
    if name.is_empty() || REGISTERED.contains(&name.as_str()) {
        return Err(ConfigError::new("mapped JWT claim", format!("{name:?}"), "is empty or has a meaning of its own"));
    }
    Ok(names.iter().position(|known| **known == *name).unwrap_or_else(|| {
        names.push(name.into());
        names.len().saturating_sub(1)
    }))
}
