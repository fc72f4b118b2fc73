//! A provider of identities in miniature.

use jsonwebtoken::{DecodingKey, EncodingKey};
use portcullis::{
    Clock, Secret, SystemClock,
    jwt::{Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, Key, KeySet},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};

pub const SECRET: [u8; 32] = [7; 32];

pub struct Provider {
    pub algorithm: Algorithm,
    /// Of jsonwebtoken.
    pub signing: EncodingKey,
    verifying: Key,
    /// The same for jsonwebtoken.
    pub decoding: DecodingKey,
    /// Empty for HMAC.
    pub spki: Vec<u8>,
}

impl Provider {
    pub fn rs256() -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key pair");
        Self::of(Algorithm::RS256, &pair, EncodingKey::from_rsa_pem, DecodingKey::from_rsa_pem)
    }

    pub fn es256() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key pair");
        Self::of(Algorithm::ES256, &pair, EncodingKey::from_ec_pem, DecodingKey::from_ec_pem)
    }

    pub fn eddsa() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key pair");
        Self::of(Algorithm::EdDSA, &pair, EncodingKey::from_ed_pem, DecodingKey::from_ed_pem)
    }

    pub fn hs256() -> Self {
        Self {
            algorithm: Algorithm::HS256,
            signing: EncodingKey::from_secret(&SECRET),
            verifying: Key::hmac(Algorithm::HS256, Secret::new(SECRET.to_vec())).expect("a key"),
            decoding: DecodingKey::from_secret(&SECRET),
            spki: Vec::new(),
        }
    }

    fn of(
        algorithm: Algorithm,
        pair: &KeyPair,
        signing: fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>,
        decoding: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
    ) -> Self {
        let public = pair.public_key_pem();
        Self {
            algorithm,
            signing: signing(pair.serialize_pem().as_bytes()).expect("a signing key"),
            verifying: Key::from_pem(algorithm, public.as_bytes()).expect("a key"),
            decoding: decoding(public.as_bytes()).expect("a key"),
            spki: pair.subject_public_key_info(),
        }
    }

    pub fn token(&self, seconds: i64) -> String {
        self.token_of("alice", seconds)
    }

    /// A token that ends so many seconds from now.
    pub fn token_of(&self, subject: &str, seconds: i64) -> String {
        let now = SystemClock::new().now().unix_seconds();
        let mut header = jsonwebtoken::Header::new(self.peer_algorithm());
        header.typ = Some("at+jwt".to_owned());
        let claims = serde_json::json!({
            "iss": "https://id.example.com", "aud": "orders-api", "sub": subject, "client_id": "web", "jti": "4f1c",
            "iat": now - 7200, "exp": now.saturating_add_signed(seconds), "scope": "orders:read orders:write",
            "roles": ["clerk"], "email": "alice@example.com", "name": "Alice Example", "locale": "en-GB",
            "sid": "0a1b2c3d4e5f", "auth_time": now - 7200,
        });
        jsonwebtoken::encode(&header, &claims, &self.signing).expect("a token")
    }

    pub fn peer_algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm.name().parse().expect("jsonwebtoken knows it")
    }

    pub fn authenticator(&self) -> JwtAuthenticator {
        self.builder().build().expect("an authenticator")
    }

    pub fn builder(&self) -> JwtAuthenticatorBuilder {
        let keys = KeySet::new([self.verifying.clone()]).expect("keys");
        let issuer = Issuer::fixed("https://id.example.com", keys)
            .access_tokens("orders-api")
            .algorithms([self.algorithm])
            .roles_claim("roles");
        JwtAuthenticator::builder().issuer(issuer)
    }
}
