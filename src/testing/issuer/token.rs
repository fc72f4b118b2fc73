use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    TestIssuer,
    signing::{SigningKey, base64, hmac},
};
use crate::jwt::Algorithm;

/// A token to be: good as it comes from [`TestIssuer::token`], and whatever a test makes of it.
///
/// Members are kept as JSON text and in order, so that a token may say things twice, or with the wrong type.
#[must_use]
#[derive(Clone)]
pub struct TestToken {
    issuer: TestIssuer,
    key: Arc<SigningKey>,
    header: Vec<(String, String)>,
    claims: Vec<(String, String)>,
    now: u64,
}

impl TestToken {
    pub(super) fn new(issuer: &TestIssuer) -> Self {
        let (key, now) = (issuer.key(None), issuer.inner.clock.now().unix_seconds());
        let token = Self { issuer: issuer.clone(), key, header: Vec::new(), claims: Vec::new(), now };
        token
            .named_by_key()
            .header("typ", "at+jwt")
            .claim("iss", issuer.name())
            .claim("aud", issuer.audience())
            .claim("client_id", "portcullis-test")
            .tenant("test")
            .anew()
            .subject("somebody")
            .issued_at(now)
            .expires_at(now.saturating_add(3600))
    }

    fn named_by_key(self) -> Self {
        let (name, id) = (self.key.algorithm.name(), self.key.id.clone());
        self.header("alg", name).header("kid", id)
    }

    /// Sets `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Sets `scope`: several are separated by spaces.
    pub fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    /// Sets the role.
    pub fn role(self, role: &str) -> Self {
        self.roles([role])
    }

    /// Sets the roles.
    pub fn roles<'r>(self, roles: impl IntoIterator<Item = &'r str>) -> Self {
        self.claim("roles", roles.into_iter().collect::<Vec<_>>())
    }

    /// Sets the tenant. Default `test`, because [`TestIssuer::access_tokens`] names the claim, and a token without it is refused
    /// then. For somebody of no tenant, use [`without`](Self::without) and trust in tokens that have none.
    pub fn tenant(self, tenant: &str) -> Self {
        self.claim("tenant", tenant)
    }

    /// Sets `aud`.
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Sets `iat`, in seconds since the Unix epoch.
    pub fn issued_at(self, unix_seconds: u64) -> Self {
        self.claim("iat", unix_seconds)
    }

    /// Sets `exp`, in seconds since the Unix epoch.
    pub fn expires_at(self, unix_seconds: u64) -> Self {
        self.claim("exp", unix_seconds)
    }

    /// Lives so long from now.
    pub fn lives(self, life: Duration) -> Self {
        let end = self.now.saturating_add(life.as_secs());
        self.expires_at(end)
    }

    /// Ended an hour ago: beyond any leeway.
    pub fn expired(self) -> Self {
        let now = self.now;
        self.issued_at(now.saturating_sub(7200)).expires_at(now.saturating_sub(3600))
    }

    /// Begins in an hour.
    pub fn not_yet_valid(self) -> Self {
        let begins = self.now.saturating_add(3600);
        self.claim("nbf", begins).lives(Duration::from_secs(7200))
    }

    /// Was issued in an hour.
    pub fn issued_in_future(self) -> Self {
        let issued = self.now.saturating_add(3600);
        self.issued_at(issued).lives(Duration::from_secs(7200))
    }

    /// Sets a claim.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn claim(self, name: &str, value: impl Serialize) -> Self {
        self.raw_claim(name, &serde_json::to_string(&value).expect("a claim is JSON"))
    }

    /// Sets a claim to this JSON text, which nobody looks at.
    pub fn raw_claim(mut self, name: &str, json: &str) -> Self {
        set(&mut self.claims, name, json);
        self
    }

    /// Adds a claim, also if there is one of the name already.
    pub fn claim_again(mut self, name: &str, value: impl Serialize) -> Self {
        self.claims.push((name.to_owned(), serde_json::to_string(&value).expect("a claim is JSON")));
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.retain(|(held, _)| held != name);
        self
    }

    /// Sets a header parameter.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn header(mut self, name: &str, value: impl Serialize) -> Self {
        set(&mut self.header, name, &serde_json::to_string(&value).expect("a parameter is JSON"));
        self
    }

    /// Adds a header parameter, also if there is one of the name already.
    pub fn header_again(mut self, name: &str, value: impl Serialize) -> Self {
        self.header.push((name.to_owned(), serde_json::to_string(&value).expect("a parameter is JSON")));
        self
    }

    /// Leaves a header parameter out.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.retain(|(held, _)| held != name);
        self
    }

    /// Signs with the provider's key of this algorithm, and says so in the header.
    ///
    /// # Panics
    /// If the provider has no key of it.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.key = self.issuer.key(Some(algorithm));
        self.named_by_key()
    }

    /// Signs with a key that the provider had before it [rotated](TestIssuer::rotate) them.
    ///
    /// # Panics
    /// If it has not.
    pub fn by_former_key(mut self) -> Self {
        self.key = self.issuer.former_key();
        self.named_by_key()
    }

    /// Signs with a key that is nobody's, of the same algorithm, under the name of the provider's key.
    pub fn by_foreign_key(mut self) -> Self {
        self.key = Arc::new(SigningKey::generate(self.key.algorithm, self.key.id.clone()));
        self
    }

    /// Puts the public half of the key that signs into the header, as `jwk` (RFC 7515 §4.1.3).
    pub fn embedding_key(self) -> Self {
        let members = self.key.public_members().unwrap_or_else(|| r#""kty":"oct""#.to_owned());
        self.raw_header("jwk", &format!("{{{members}}}"))
    }

    /// Puts a certificate that the key that signs has signed for itself into the header, as `x5c` (RFC 7515 §4.1.6). None for a
    /// shared secret, and without the feature `tls-self-signed`.
    pub(in crate::testing) fn embedding_certificate(self) -> Option<Self> {
        let certificate = BASE64_STANDARD.encode(self.key.certificate()?);
        Some(self.header("x5c", [certificate]))
    }

    fn raw_header(mut self, name: &str, json: &str) -> Self {
        set(&mut self.header, name, json);
        self
    }

    /// Signs.
    #[must_use]
    pub fn mint(&self) -> String {
        let message = self.message();
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    /// Says this `alg`, such as `none` or `nOnE`, and has no signature. It names the provider's key all the same, unless it is
    /// [without](Self::without_header) `kid`.
    #[must_use]
    pub fn unsigned(&self, algorithm: &str) -> String {
        format!("{}.", self.clone().header("alg", algorithm).message())
    }

    /// Signs with HMAC and this secret, and says so in the header.
    #[must_use]
    pub fn by_secret(&self, algorithm: Algorithm, secret: &[u8]) -> String {
        let message = self.clone().header("alg", algorithm.name()).message();
        format!("{message}.{}", base64(hmac(algorithm, secret, message.as_bytes())))
    }

    /// Signs with HMAC and the text of the public key that would verify, in each of its usual forms: the confusion of RS256
    /// with HS256 (RFC 8725 §2.1). None where the key is a shared secret.
    #[must_use]
    pub fn by_public_key_as_secret(&self) -> Vec<String> {
        let Some(spki) = self.key.spki() else { return Vec::new() };
        let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", spki.clone())).replace("\r\n", "\n");
        let jwk = self.key.jwk().unwrap_or_default();
        let trimmed = pem.trim_end().to_owned();
        let crlf = pem.replace('\n', "\r\n");
        [pem.into_bytes(), trimmed.into_bytes(), crlf.into_bytes(), spki, jwk.into_bytes()]
            .iter()
            .map(|secret| self.by_secret(Algorithm::HS256, secret))
            .collect()
    }

    fn message(&self) -> String {
        format!("{}.{}", base64(object(&self.header)), base64(object(&self.claims)))
    }
}

impl std::fmt::Debug for TestToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestToken")
            .field("header", &object(&self.header))
            .field("claims", &object(&self.claims))
            .finish_non_exhaustive()
    }
}

fn set(members: &mut Vec<(String, String)>, name: &str, json: &str) {
    match members.iter_mut().find(|(held, _)| held == name) {
        Some((_, held)) => json.clone_into(held),
        None => members.push((name.to_owned(), json.to_owned())),
    }
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, json)| format!("{}:{json}", serde_json::Value::from(name.as_str()))).collect();
    format!("{{{}}}", members.join(","))
}

impl TestToken {
    pub(in crate::testing) fn issuer_name(&self) -> &str {
        self.issuer.name()
    }

    /// None where it has none, or one of another type.
    pub(in crate::testing) fn subject_name(&self) -> Option<String> {
        let (_, json) = self.claims.iter().find(|(name, _)| name == "sub")?;
        serde_json::from_str(json).ok()
    }

    pub(in crate::testing) fn algorithm_name(&self) -> &'static str {
        self.key.algorithm.name()
    }

    /// Under an id that no token of the issuer has.
    pub(in crate::testing) fn anew(self) -> Self {
        let number = self.issuer.inner.tokens.fetch_add(1, Ordering::Relaxed);
        self.claim("jti", format!("test-{number}"))
    }
}
