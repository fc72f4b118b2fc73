//! Reads JWKs (RFC 7517). `jsonwebtoken` knows the key types; the members that all of them share are read here, because its
//! own type takes `Ed25519` for an unknown algorithm and does not tell that a private part is there.

use base64::Engine;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, Key, Refusal,
        json::{self, Members, Value},
        token::BASE64,
    },
};

#[derive(Deserialize)]
struct JwkSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk {
    alg: Option<String>,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    /// Whose tokens it signs: a member of Entra's own.
    issuer: Option<Box<str>>,
    /// The private part of RSA, EC and OKP keys; the rest of it of RSA keys (RFC 7518 §6.3.2), of which each gives the key away.
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    #[serde(flatten)]
    material: AlgorithmParameters,
}

impl Jwk {
    fn is_private(&self) -> bool {
        [self.d, self.p, self.q, self.dp, self.dq, self.qi, self.oth].iter().any(Option::is_some)
    }
}

/// What an RSA key without `alg` is for unless it is said: every OpenID provider signs with RS256 (OpenID Connect Discovery §3), and the
/// largest leave `alg` out.
pub(super) const RSA: Algorithm = Algorithm::RS256;

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 100;

/// The usable keys of a set, and why the others are not. An RSA key that does not say what it is for is for `rsa`.
pub(super) fn read_set(json: &str, rsa: Algorithm) -> Result<(Vec<Key>, Vec<ConfigError>), ConfigError> {
    let malformed = || ConfigError::new("JWK Set", "the text", "is not a JSON object with an array `keys`");
    // Without a name for its members an array would do.
    if !json.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(malformed());
    }
    let set: JwkSet<'_> = serde_json::from_str(json).map_err(|error| malformed().caused_by(error))?;
    let (mut keys, mut skipped) = (Vec::new(), Vec::new());
    let count = set.keys.len();
    if count > MAX_KEYS {
        let problem = format!("are more than {MAX_KEYS}: the rest is left out");
        skipped.push(ConfigError::new("JWK Set", format!("{count} keys"), problem));
    }
    for (place, json) in set.keys.into_iter().take(MAX_KEYS).enumerate() {
        match read(&format!("key {place} of the JWK Set"), None, rsa, json.get()) {
            Ok(key) => keys.push(key),
            Err(error) => skipped.push(error),
        }
    }
    Ok((keys, skipped))
}

impl Key {
    /// Reads a public JWK (RFC 7517 §4). Its `kid` becomes the id, its `issuer` the [issuer](Self::issuer).
    ///
    /// The algorithm is the one that is given, else the JWK's `alg`, else that of its curve, and for RSA RS256.
    ///
    /// ```
    /// use portcullis::jwt::{Algorithm, Key};
    ///
    /// let jwk = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// assert_eq!(Key::from_jwk(None, jwk)?.algorithm(), Algorithm::EdDSA);
    /// assert!(Key::from_jwk(Some(Algorithm::ES256), jwk).is_err());
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If the text is not a JWK or has a member twice; if it is private or symmetric (use [`hmac`](Self::hmac)); if its
    /// `use`, `key_ops` or `alg` forbid it; and as [`from_der`](Self::from_der).
    pub fn from_jwk(algorithm: Option<Algorithm>, json: &str) -> Result<Self, ConfigError> {
        read("JWK", algorithm, RSA, json)
    }
}

fn read(setting: &str, algorithm: Option<Algorithm>, rsa: Algorithm, json: &str) -> Result<Key, ConfigError> {
    let refuse = |value: &str, problem: &str| Err(ConfigError::new(setting, value, problem));
    if let Err(Refusal(problem)) = json::read(json, &mut Texts, Refusal("is not a JSON object")) {
        return refuse("the text", problem);
    }
    let jwk: Jwk = match serde_json::from_str(json) {
        Ok(jwk) => jwk,
        Err(error) => return Err(ConfigError::new(setting, "the text", "is not a JWK").caused_by(error)),
    };
    if jwk.is_private() {
        return refuse("a private key", "does not belong here: tokens are verified with the public half");
    }
    if let Some(purpose) = jwk.r#use.as_deref().filter(|purpose| *purpose != "sig") {
        return refuse(&format!("use {purpose:?}"), "is not for signatures (RFC 7517 §4.2)");
    }
    if let Some(operations) = &jwk.key_ops
        && let Err(problem) = check_operations(operations, jwk.r#use.is_some())
    {
        return refuse("key_ops", problem);
    }
    let named = match jwk.alg.as_deref().map(|name| (name, Algorithm::from_name(name))) {
        None => None,
        Some((name, None)) => return refuse(&format!("alg {name:?}"), "is not known"),
        Some((name, Some(named))) if algorithm.is_some_and(|algorithm| algorithm != named) => {
            return refuse(&format!("alg {name:?}"), "is not the algorithm that is asked for");
        }
        Some((_, named)) => named,
    };
    let key = from_material(algorithm.or(named), rsa, &jwk.material).map_err(|error| {
        ConfigError::new(setting, jwk.kid.as_deref().unwrap_or("without kid"), "is not usable").caused_by(error)
    })?;
    let key = key.with_issuer(jwk.issuer);
    Ok(match jwk.kid {
        Some(id) => key.with_id(id),
        None => key,
    })
}

/// RFC 7517 §4.3: what a key is for, in the words of its makers. `signs` says that `use` is `sig`.
fn check_operations(operations: &[String], signs: bool) -> Result<(), &'static str> {
    const OTHERS: [&str; 6] = ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"];
    if operations.iter().all(|operation| operation != "verify") {
        return Err("has no \"verify\" (RFC 7517 §4.3)");
    }
    let mut sorted: Vec<&str> = operations.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err("has a value twice (RFC 7517 §4.3)");
    }
    if signs && OTHERS.iter().any(|other| sorted.contains(other)) {
        return Err("does not agree with use \"sig\" (RFC 7517 §4.3)");
    }
    Ok(())
}

fn from_material(
    algorithm: Option<Algorithm>,
    rsa: Algorithm,
    material: &AlgorithmParameters,
) -> Result<Key, ConfigError> {
    let unknown = |problem: &str| Err(ConfigError::new("JWT key", "its key type", problem));
    match material {
        AlgorithmParameters::RSA(key) => {
            let (n, e) = (number(&key.n)?, number(&key.e)?);
            Key::from_rsa_numbers(algorithm.unwrap_or(rsa), without_zeros(&n), without_zeros(&e))
        }
        AlgorithmParameters::EllipticCurve(key) => {
            let of_curve = match key.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                EllipticCurve::P521 => Algorithm::ES512,
                _ => return unknown("is on a curve that is not supported"),
            };
            Key::from_ec_point(algorithm.unwrap_or(of_curve), &number(&key.x)?, &number(&key.y)?)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Key::from_ed25519_point(algorithm.unwrap_or(Algorithm::EdDSA), &number(&key.x)?)
        }
        AlgorithmParameters::OctetKey(_) => unknown("is symmetric: use Key::hmac"),
        _ => unknown("is not supported, or lacks a member (RFC 7518 §6)"),
    }
}

fn number(text: &str) -> Result<Vec<u8>, ConfigError> {
    BASE64
        .decode(text)
        .map_err(|error| ConfigError::new("JWT key", "a member", "is not base64url without padding").caused_by(error))
}

/// RFC 7518 §6.3.1.1 forbids the zeros, and warns of libraries that write one.
fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// What must be a string and would be taken for one if it were the name of an object's one member.
struct Texts;

impl<'de> Members<'de> for Texts {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        match name {
            "kty" => value.text(Refusal("kty is not a string")).map(drop),
            "crv" => value.text(Refusal("crv is not a string")).map(drop),
            _ => value.skip(),
        }
    }
}
