//! How this service shows the endpoint who it is.

use std::{fmt, sync::Arc};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use form_urlencoded::byte_serialize;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    clock::Instants,
    error::ConfigError,
    http_client::bearer,
    jwt::{Algorithm, crypto::Signer},
    secret::Secret,
};

/// How long an assertion is good, in seconds. It is made for one request.
const ASSERTION_LIFE: u64 = 60;

/// How this service authenticates at the introspection endpoint, where only who may introspect learns about tokens (RFC 7662
/// §2.1). A clone costs one reference count; `Debug` shows the way and no secret.
///
/// ```
/// use portcullis::{Secret, jwt::introspection::ClientAuthentication};
///
/// # let secret = "s3cret".to_owned();
/// let client = ClientAuthentication::basic("orders-api", &Secret::from(secret))?;
/// # let _ = client;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ClientAuthentication {
    way: Arc<Way>,
}

enum Way {
    Header(&'static str, HeaderValue),
    /// What is put behind the form, encoded.
    Form(Secret),
    Assertion(Assertion),
}

#[derive(Clone)]
struct Assertion {
    client_id: Box<str>,
    algorithm: Algorithm,
    key: Arc<Signer>,
    key_id: Option<Box<str>>,
    audience: Option<Box<str>>,
}

impl ClientAuthentication {
    /// `client_secret_basic`: the id and the secret in `Authorization`, each form-encoded first (RFC 6749 §2.3.1).
    ///
    /// # Errors
    /// If either is empty.
    pub fn basic(client_id: &str, secret: &Secret) -> Result<Self, ConfigError> {
        check(client_id, secret)?;
        let mut pair = with_room_for(&[client_id.as_bytes(), secret.expose()]);
        pair.extend(byte_serialize(client_id.as_bytes()));
        pair.push(':');
        pair.extend(byte_serialize(secret.expose()));
        let pair = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        let basic = Zeroizing::new(["Basic ", &pair].concat());
        let refuse = |_| ConfigError::new("introspection client", "its id and secret", "are too long for a header");
        let mut value = HeaderValue::from_str(&basic).map_err(refuse)?;
        value.set_sensitive(true);
        Ok(Self::of(Way::Header("basic", value)))
    }

    /// `client_secret_post`: the id and the secret in the form (RFC 6749 §2.3.1). For endpoints that do not take
    /// [`basic`](Self::basic).
    ///
    /// # Errors
    /// If either is empty.
    pub fn post(client_id: &str, secret: &Secret) -> Result<Self, ConfigError> {
        check(client_id, secret)?;
        let mut form = with_room_for(&[client_id.as_bytes(), secret.expose()]);
        put(&mut form, "client_id", client_id.as_bytes());
        put(&mut form, "client_secret", secret.expose());
        Ok(Self::of(Way::Form(Secret::from(std::mem::take(&mut *form)))))
    }

    /// A token of this service's own (RFC 6750 §2.1), as RFC 7662 §2.1 allows it. It is not renewed.
    ///
    /// # Errors
    /// If it is empty or has characters that no token has.
    pub fn bearer(token: &Secret) -> Result<Self, ConfigError> {
        Ok(Self::of(Way::Header("bearer", bearer(token)?)))
    }

    /// `private_key_jwt`: for each request an assertion signed with this key, PKCS #8 in PEM (RFC 7523 §3). It has a `jti` of
    /// its own and is good for 60 s; its `aud` is the issuer, unless [`assertion_audience`](Self::assertion_audience) says
    /// otherwise.
    ///
    /// # Errors
    /// If the id is empty; the text is not one PEM block `PRIVATE KEY`; it is not a key of the algorithm; the algorithm is
    /// symmetric.
    pub fn private_key_jwt(client_id: &str, algorithm: Algorithm, pem: &Secret) -> Result<Self, ConfigError> {
        check_id(client_id)?;
        let refuse = |problem: &str| ConfigError::new("key of the introspection client", "PEM text", problem);
        // Without the parser's own error: it quotes the text.
        let blocks = pem::parse_many(pem.expose()).map_err(|_| refuse("cannot be read"))?;
        let key = match blocks.as_slice() {
            [block] if block.tag() == "PRIVATE KEY" => Signer::from_pkcs8(algorithm, block.contents()),
            [_] => return Err(refuse("is not PKCS #8 (PRIVATE KEY): convert it with `openssl pkcs8 -topk8 -nocrypt`")),
            _ => return Err(refuse("must hold exactly one block")),
        };
        let key = key.map_err(|error| refuse(&format!("is not a private key for {algorithm}")).caused_by(error))?;
        let client_id = client_id.into();
        let assertion = Assertion { client_id, algorithm, key: Arc::new(key), key_id: None, audience: None };
        Ok(Self::of(Way::Assertion(assertion)))
    }

    /// Names the key in the header of assertions (`kid`). Default: no name. Without effect on the other ways.
    #[must_use]
    pub fn assertion_key_id(self, key_id: impl Into<String>) -> Self {
        self.changing(|assertion| assertion.key_id = Some(key_id.into().into()))
    }

    /// Sets the `aud` of assertions. Default: the issuer; some servers want the URL of the endpoint, or of the token endpoint.
    /// Without effect on the other ways.
    #[must_use]
    pub fn assertion_audience(self, audience: impl Into<String>) -> Self {
        self.changing(|assertion| assertion.audience = Some(audience.into().into()))
    }

    fn of(way: Way) -> Self {
        Self { way: Arc::new(way) }
    }

    fn changing(self, change: impl FnOnce(&mut Assertion)) -> Self {
        match &*self.way {
            Way::Assertion(assertion) => {
                let mut assertion = assertion.clone();
                change(&mut assertion);
                Self::of(Way::Assertion(assertion))
            }
            Way::Header(..) | Way::Form(_) => self,
        }
    }

    /// How many bytes it adds to a form, about.
    pub(super) fn room(&self) -> usize {
        match &*self.way {
            Way::Header(..) => 0,
            Way::Form(pairs) => pairs.expose().len().saturating_add(1),
            Way::Assertion(_) => 2048,
        }
    }

    /// Puts the credential into a request. None if an assertion cannot be signed.
    pub(super) fn sign(&self, headers: &mut HeaderMap, form: &mut String, issuer: &str, at: Instants) -> Option<()> {
        match &*self.way {
            Way::Header(_, value) => drop(headers.insert(header::AUTHORIZATION, value.clone())),
            Way::Form(pairs) => {
                form.push('&');
                form.push_str(pairs.expose_str()?);
            }
            Way::Assertion(assertion) => {
                put(form, "client_id", assertion.client_id.as_bytes());
                put(form, "client_assertion_type", b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                put(form, "client_assertion", assertion.make(issuer, at)?.as_bytes());
            }
        }
        Some(())
    }

    const fn name(way: &Way) -> &'static str {
        match way {
            Way::Header(name, _) => name,
            Way::Form(_) => "post",
            Way::Assertion(_) => "private_key_jwt",
        }
    }
}

impl Assertion {
    /// A compact JWS: whoever has it is this service, until it ends.
    fn make(&self, issuer: &str, at: Instants) -> Option<Zeroizing<String>> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let now = at.unix_seconds();
        let mut header = Map::new();
        header.insert("alg".to_owned(), self.algorithm.name().into());
        header.insert("typ".to_owned(), "JWT".into());
        if let Some(key_id) = &self.key_id {
            header.insert("kid".to_owned(), (&**key_id).into());
        }
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), (&*self.client_id).into());
        claims.insert("sub".to_owned(), (&*self.client_id).into());
        claims.insert("aud".to_owned(), self.audience.as_deref().unwrap_or(issuer).into());
        claims.insert("jti".to_owned(), BASE64_URL_SAFE_NO_PAD.encode(random).into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(ASSERTION_LIFE).into());
        let encode = |members: Map<String, Value>| BASE64_URL_SAFE_NO_PAD.encode(Value::from(members).to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?));
        Some(Zeroizing::new([&*signed, ".", &signature].concat()))
    }
}

impl fmt::Debug for ClientAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientAuthentication").field(&Self::name(&self.way)).finish()
    }
}

/// Takes these texts, form-encoded, and their names, without growing into other memory; wiped at the end.
fn with_room_for(texts: &[&[u8]]) -> Zeroizing<String> {
    let room = texts.iter().map(|text| text.len().saturating_mul(3).saturating_add(16)).fold(0, usize::saturating_add);
    Zeroizing::new(String::with_capacity(room))
}

/// Puts a pair into a form.
pub(super) fn put(form: &mut String, name: &str, value: &[u8]) {
    if !form.is_empty() {
        form.push('&');
    }
    form.push_str(name);
    form.push('=');
    form.extend(byte_serialize(value));
}

fn check_id(client_id: &str) -> Result<(), ConfigError> {
    if client_id.is_empty() {
        return Err(ConfigError::new("id of the introspection client", "\"\"", "must not be empty"));
    }
    Ok(())
}

fn check(client_id: &str, secret: &Secret) -> Result<(), ConfigError> {
    check_id(client_id)?;
    if secret.expose().is_empty() {
        return Err(ConfigError::new("secret of the introspection client", "a secret", "is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(client: &ClientAuthentication) -> (HeaderMap, String) {
        let (mut headers, mut form) = (HeaderMap::new(), "token=t".to_owned());
        client.sign(&mut headers, &mut form, "https://id.example.com", Instants::new(7_000_000_000, 0)).unwrap();
        (headers, form)
    }

    #[test]
    fn id_and_secret_are_form_encoded_first() {
        let secret = Secret::from("a b:ü%+".to_owned());
        let (headers, form) = sent(&ClientAuthentication::basic("orders api", &secret).unwrap());
        let value = headers[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(BASE64_STANDARD.decode(value).unwrap(), b"orders+api:a+b%3A%C3%BC%25%2B");
        assert!(headers[header::AUTHORIZATION].is_sensitive());
        assert_eq!(form, "token=t");
        let (headers, form) = sent(&ClientAuthentication::post("orders api", &secret).unwrap());
        assert!(headers.is_empty());
        assert_eq!(form, "token=t&client_id=orders+api&client_secret=a+b%3A%C3%BC%25%2B");
    }

    #[test]
    fn nothing_shows_a_secret_and_what_is_none_is_refused() {
        let secret = || Secret::from("hunter2".to_owned());
        for client in [
            ClientAuthentication::basic("a", &secret()).unwrap(),
            ClientAuthentication::post("a", &secret()).unwrap(),
            ClientAuthentication::bearer(&secret()).unwrap(),
        ] {
            assert!(!format!("{client:?}").contains("hunter2"));
        }
        let empty = || Secret::from(String::new());
        assert!(ClientAuthentication::basic("", &secret()).is_err());
        assert!(ClientAuthentication::basic("a", &empty()).is_err());
        assert!(ClientAuthentication::post("a", &empty()).is_err());
        assert!(ClientAuthentication::bearer(&empty()).is_err());
        assert!(ClientAuthentication::private_key_jwt("a", Algorithm::ES256, &secret()).is_err());
        assert!(ClientAuthentication::private_key_jwt("a", Algorithm::HS256, &secret()).is_err());
    }
}
