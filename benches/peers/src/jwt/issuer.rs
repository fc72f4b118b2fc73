//! Who makes the tokens, and its key in the forms that the contenders read.

use jsonwebtoken::{Algorithm, DecodingKey, jwk::Jwk};
use portcullis::{
    Clock, SystemClock,
    jwt::{JwtAuthenticator, JwtAuthenticatorBuilder, Key, KeySet},
};
use serde_json::{Value, json};

use crate::ratio::provider::{Provider, SECRET};

pub const ISSUER: &str = "https://id.example.com";
pub const AUDIENCE: &str = "orders-api";
const KEY_ID: &str = "k-1";

pub struct Issuer(Provider);

impl Issuer {
    pub fn hs256() -> Self {
        Self(Provider::hs256())
    }

    pub fn rs256() -> Self {
        Self(Provider::rs256())
    }

    pub fn es256() -> Self {
        Self(Provider::es256())
    }

    pub fn algorithm(&self) -> Algorithm {
        self.0.peer_algorithm()
    }

    pub fn is_asymmetric(&self) -> bool {
        !self.0.algorithm.is_symmetric()
    }

    pub fn decoding(&self) -> DecodingKey {
        self.0.decoding.clone()
    }

    /// The public key, or the secret, as a set of one JWK.
    pub fn jwks(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.0.signing, self.algorithm()).expect("a JWK");
        jwk.common.key_id = Some(KEY_ID.to_owned());
        json!({ "keys": [jwk] })
    }

    pub fn secret() -> &'static str {
        str::from_utf8(&SECRET).expect("ASCII")
    }

    /// A token that ends so many seconds from now; with what Keycloak writes as well.
    pub fn token(&self, seconds: i64) -> String {
        let now = SystemClock::new().now().unix_seconds();
        let mut header = jsonwebtoken::Header::new(self.algorithm());
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(KEY_ID.to_owned());
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "web", "jti": "4f1c",
            "iat": now - 7_200, "nbf": now - 7_200, "exp": now.saturating_add_signed(seconds), "scope": "orders:read orders:write",
            "roles": ["clerk"], "email": "alice@example.com", "name": "Alice Example", "locale": "en-GB",
            "sid": "0a1b2c3d4e5f", "auth_time": now - 7_200, "typ": "Bearer", "azp": "web",
        });
        jsonwebtoken::encode(&header, &claims, &self.0.signing).expect("a token")
    }

    pub fn builder(&self) -> JwtAuthenticatorBuilder {
        let keys = if self.is_asymmetric() {
            KeySet::from_jwks(&self.jwks().to_string()).expect("keys")
        } else {
            let secret = portcullis::Secret::new(SECRET.to_vec());
            KeySet::new([Key::hmac(self.0.algorithm, secret).expect("a key").with_id(KEY_ID)]).expect("keys")
        };
        let issuer = portcullis::jwt::Issuer::fixed(ISSUER, keys)
            .access_tokens(AUDIENCE)
            .algorithms([self.0.algorithm])
            .roles_claim("roles");
        JwtAuthenticator::builder().issuer(issuer)
    }
}
