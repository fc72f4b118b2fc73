//! Signing keys, a scripted origin of key sets, and a clock that follows tokio's.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use jsonwebtoken::EncodingKey;
use portcullis::{
    Clock, Instants, Rejection, StoreError, StoreErrorKind,
    http_client::{FetchLimits, HttpFetch},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator,
        keys::{KeySource, LiveKeys, LiveKeysBuilder},
    },
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

pub const ISSUER: &str = "https://id.example.com";
pub const SET: &str = "https://id.example.com/jwks";

/// Seconds that tests count in.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A clock that follows tokio's, which tests pause. It starts an hour after the process did.
#[derive(Clone, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instants {
        let passed = u64::try_from((self.0.elapsed() + seconds(3_600)).as_nanos()).unwrap();
        Instants::new(1_800_000_000_000_000_000 + passed, passed)
    }
}

/// An ES256 key with an id.
#[derive(Clone)]
pub struct Signer {
    pair: &'static KeyPair,
    pub kid: String,
}

pub static PAIRS: LazyLock<[KeyPair; 3]> =
    LazyLock::new(|| std::array::from_fn(|_| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()));

impl Signer {
    pub fn new(place: usize, kid: &str) -> Self {
        Self { pair: &PAIRS[place], kid: kid.to_owned() }
    }

    pub fn jwk(&self) -> String {
        let raw = self.pair.public_key_raw();
        let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(&raw[1..33]), BASE64_URL_SAFE_NO_PAD.encode(&raw[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{}","x":"{x}","y":"{y}"}}"#, self.kid)
    }

    /// A token that is good until 2255.
    pub fn token(&self) -> String {
        self.token_of(ISSUER, 9_000_000_000)
    }

    pub fn token_of(&self, issuer: &str, exp: u64) -> String {
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{}"}}"#, self.kid);
        let claims = format!(
            r#"{{"iss":"{issuer}","sub":"alice","aud":"orders-api","exp":{exp},"iat":1700000000,"client_id":"web","jti":"t"}}"#
        );
        self.sign(&header, &claims)
    }

    /// A token that names no key, and differs from others by when it ends.
    pub fn nameless(&self, exp: u64) -> String {
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"alice","aud":"orders-api","exp":{exp},"iat":1700000000,"client_id":"web","jti":"t"}}"#
        );
        self.sign(r#"{"alg":"ES256","typ":"at+jwt"}"#, &claims)
    }

    pub fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }
}

pub fn set_of<S: AsRef<str>>(keys: &[S]) -> String {
    let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// What the origin does with a request.
#[derive(Clone)]
pub enum Script {
    Answer(StatusCode, HeaderMap, Bytes),
    /// No answer at all, for a reason.
    Down(&'static str),
    Hang,
    Panic,
}

/// Answers by URL, counts, and remembers what it was asked with.
#[derive(Clone, Default)]
pub struct Origin(Arc<Inner>);

#[derive(Default)]
struct Inner {
    pages: Mutex<HashMap<String, Script>>,
    delay: Mutex<Duration>,
    fetches: AtomicUsize,
    requests: Mutex<Vec<Request<Bytes>>>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin")
    }
}

impl Origin {
    pub fn serving<S: AsRef<str>>(keys: &[S]) -> Self {
        let origin = Self::default();
        origin.serve(SET, set_of(keys));
        origin
    }

    pub fn serve(&self, url: &str, body: impl Into<Bytes>) {
        self.answer(url, StatusCode::OK, &[], body);
    }

    pub fn answer(&self, url: &str, status: StatusCode, fields: &[(&'static str, &str)], body: impl Into<Bytes>) {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        self.script(url, Script::Answer(status, headers, body.into()));
    }

    pub fn script(&self, url: &str, script: Script) {
        self.0.pages.lock().unwrap().insert(url.to_owned(), script);
    }

    pub fn delay(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    pub fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Request<Bytes>> {
        self.0.requests.lock().unwrap().clone()
    }

    /// How many hold this origin besides the test.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

#[async_trait]
impl HttpFetch for Origin {
    async fn fetch(&self, request: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let url = request.uri().to_string();
        self.0.requests.lock().unwrap().push(request);
        // What is asked for is what there is now, however long it takes to get there.
        let script = self.0.pages.lock().unwrap().get(&url).cloned();
        let delay = *self.0.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let missing = Script::Answer(StatusCode::NOT_FOUND, HeaderMap::new(), Bytes::new());
        match script.unwrap_or(missing) {
            Script::Answer(status, headers, body) => {
                let mut response = Response::new(body);
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok(response)
            }
            Script::Down(why) => Err(StoreError::new(StoreErrorKind::Unavailable, "origin").caused_by(why)),
            Script::Hang => std::future::pending().await,
            Script::Panic => panic!("a client that panics"),
        }
    }
}

/// An authenticator, its keys, its origin and its clock.
pub struct House {
    pub jwt: JwtAuthenticator,
    pub keys: LiveKeys,
    pub clock: TokioClock,
}

impl House {
    pub fn of(origin: &Origin) -> Self {
        Self::with(origin, |keys| keys)
    }

    pub fn with(origin: &Origin, options: impl FnOnce(LiveKeysBuilder) -> LiveKeysBuilder) -> Self {
        Self::of_keys(options(LiveKeys::jwks_url(SET).http(origin.clone())))
    }

    pub fn of_keys(keys: LiveKeysBuilder) -> Self {
        let clock = TokioClock::new();
        let keys = keys.clock(clock.clone()).build().unwrap();
        Self { jwt: authenticator(keys.clone()), keys, clock }
    }

    pub async fn loaded(origin: &Origin) -> Self {
        let house = Self::of(origin);
        house.keys.load().await.unwrap();
        house
    }

    pub fn now(&self) -> Instants {
        self.clock.now()
    }

    /// The status of a token when waiting is fine.
    pub async fn status(&self, token: &str) -> u16 {
        status(self.jwt.verify_waiting(token, self.now()).await)
    }

    /// The status of a token at once.
    pub fn status_now(&self, token: &str) -> u16 {
        status(self.jwt.verify(token, self.now()))
    }

    pub fn cause(&self) -> String {
        self.keys.health(self.now()).cause().unwrap_or_default().to_owned()
    }
}

pub fn authenticator(keys: impl KeySource) -> JwtAuthenticator {
    let issuer = Issuer::with_keys(ISSUER, keys).access_tokens("orders-api").algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer).build().unwrap()
}

pub fn status<T>(result: Result<T, Rejection>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(rejection) => {
            let response = rejection.to_response::<()>();
            let status = response.status();
            let retry_after = response.headers().contains_key("retry-after");
            assert_eq!(retry_after, status == StatusCode::SERVICE_UNAVAILABLE, "Retry-After goes with 503");
            let challenge = response.headers().contains_key("www-authenticate");
            assert_eq!(challenge, status == StatusCode::UNAUTHORIZED, "a challenge goes with 401");
            status.as_u16()
        }
    }
}
