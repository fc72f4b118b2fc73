//! An authenticator of HS256 tokens, and a second opinion on what it accepts.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use portcullis::{
    Principal, Secret,
    jwt::{Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, Key, KeySet},
};
use serde_json::Value;

use super::memory::{NOW, at};

const SECRET: [u8; 32] = [7; 32];
pub const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "orders-api";
pub const LEEWAY: f64 = 60.0;

/// A header that is accepted.
pub const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;
/// Claims that are accepted.
pub const CLAIMS: &str = r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":1800000600,"iat":1700000000,"client_id":"web","jti":"t-1","tenant":"acme"}"#;

static MAC: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, &SECRET));

static TOKENS: LazyLock<JwtAuthenticator> = LazyLock::new(|| taking().build().unwrap());

/// The issuer of all tokens here, with its one key.
pub fn issuer() -> Issuer {
    let key = Key::hmac(Algorithm::HS256, Secret::new(SECRET.to_vec())).unwrap().with_id("a");
    Issuer::fixed(ISSUER, KeySet::new([key]).unwrap())
}

/// Takes the issuer's access tokens.
pub fn taking() -> JwtAuthenticatorBuilder {
    let profile = issuer().access_tokens(AUDIENCE).algorithms([Algorithm::HS256]);
    JwtAuthenticator::builder().issuer(profile.roles_claim("roles").tenant_claim("tenant"))
}

/// Signs a token of these parts.
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac::sign(&MAC, message.as_bytes());
    format!("{message}.{}", encode(signature))
}

/// The token with one bit off in its signature.
pub fn forged(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    signature[0] ^= 1;
    format!("{message}.{}", encode(signature))
}

/// Verifies a token. What is accepted has three parts and a good signature by another implementation's count, and is
/// accepted again.
pub fn verify(token: &str) -> Option<Principal> {
    let principal = TOKENS.verify(token, at()).ok()?;
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{} parts", parts.len()) };
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    hmac::verify(&MAC, format!("{header}.{claims}").as_bytes(), &signature).unwrap();
    assert!(TOKENS.verify(token, at()).is_ok(), "the second time");
    Some(principal)
}

/// Signs a token of these parts and verifies it, and again with one bit off in its signature. Whether it is accepted.
pub fn sign_and_verify(header: &[u8], claims: &[u8]) -> bool {
    let token = sign(header, claims);
    let principal = verify(&token);
    if let Some(principal) = &principal {
        check(header, claims, principal);
    }
    assert!(verify(&forged(&token)).is_none());
    principal.is_some()
}

/// A second reader finds in the JSON what is asked for, and what the principal has.
fn check(header: &[u8], claims: &[u8], principal: &Principal) {
    let (header, claims): (Value, Value) =
        (serde_json::from_slice(header).unwrap(), serde_json::from_slice(claims).unwrap());
    assert_eq!(header["alg"], "HS256");
    let typ = header["typ"].as_str().unwrap().to_ascii_lowercase();
    assert!(matches!(&*typ, "at+jwt" | "application/at+jwt"));
    for name in ["crit", "b64", "zip", "enc", "jwk"] {
        assert!(header.get(name).is_none(), "{name}");
    }
    assert!(header.get("kid").is_none_or(|kid| kid == "a"));
    let cty = header.get("cty").map_or("", |cty| cty.as_str().unwrap()).to_ascii_lowercase();
    assert!(!matches!(&*cty, "jwt" | "application/jwt"));
    assert_eq!(claims["iss"], ISSUER);
    let ours = match &claims["aud"] {
        Value::Array(all) => all.contains(&AUDIENCE.into()) && all.iter().all(Value::is_string),
        one => one == AUDIENCE,
    };
    assert!(ours);
    assert!(!principal.subject().is_empty());
    assert_eq!(claims["sub"], principal.subject());
    assert_eq!(claims["tenant"].as_str(), principal.tenant());
    assert_eq!(claims["jti"].as_str(), principal.credential_id());
    assert!(claims["client_id"].is_string());
    for name in ["cnf", "events", "token_introspection"] {
        assert!(claims.get(name).is_none(), "{name}");
    }
    let scopes = claims.get("scope").map_or("", |scope| scope.as_str().unwrap());
    let scopes: Vec<&str> = scopes.split(' ').filter(|scope| !scope.is_empty()).collect();
    assert!(principal.scopes().iter().all(|scope| scopes.contains(&scope)));
    let roles = claims.get("roles").map_or(&[][..], |roles| roles.as_array().unwrap());
    assert!(principal.roles().iter().all(|role| roles.contains(&role.into())));
    let now = NOW as f64;
    assert!(claims["exp"].as_f64().unwrap() > now - LEEWAY);
    assert!(claims["iat"].is_number());
    for name in ["nbf", "iat", "auth_time"] {
        assert!(claims.get(name).is_none_or(|at| at.as_f64().unwrap() <= now + LEEWAY), "{name}");
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
