//! Proofs of possession. None passes unless a second reader of its JSON finds the key, the request, the token and the time that
//! are asked for, and its owner signed it; nobody can make another one of a good one.

use std::{
    future::Future,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Request};
use portcullis::{
    Instants, RequestHead, Secret, StoreError,
    authn::{Authenticator, Outcome},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, Key, KeySet,
        bound::{Dpop, ProofUse, Remembered, ReplayStore},
    },
};
use serde_json::{Value, json};

const SECRET: [u8; 32] = [7; 32];
const NOW: u64 = 1_800_000_000;

/// Knows no proof, so that each is looked at for what it is.
#[derive(Debug)]
struct Forgetful;

#[async_trait::async_trait]
impl ReplayStore for Forgetful {
    async fn remember(&self, _: &ProofUse, _: Instants) -> Result<Remembered, StoreError> {
        Ok(Remembered::Fresh)
    }
}

/// The owner of a key, the token that is bound to it, and who checks.
struct Bench {
    owner: EcdsaKeyPair,
    token: String,
    judge: JwtAuthenticator,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let owner = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let jwk = jwk(&owner);
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
    let jkt = encode(digest(&SHA256, canonical.as_bytes()));
    let claims = json!({
        "iss": "https://id.example.com", "sub": "alice", "aud": "orders-api", "exp": NOW + 600, "iat": NOW - 600,
        "client_id": "web", "jti": "t-1", "cnf": { "jkt": jkt },
    });
    let message = format!("{}.{}", encode(r#"{"alg":"HS256","typ":"at+jwt"}"#), encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), message.as_bytes());
    let key = Key::hmac(Algorithm::HS256, Secret::new(SECRET.to_vec())).expect("a key");
    let issuer = Issuer::fixed("https://id.example.com", KeySet::new([key]).expect("keys")).access_tokens("orders-api");
    let dpop = Dpop::at(["https://api.example.com"]).expect("a URL").replays(Forgetful);
    let judge = JwtAuthenticator::builder().issuer(issuer.algorithms([Algorithm::HS256])).dpop(dpop).build();
    Bench { owner, token: format!("{message}.{}", encode(tag)), judge: judge.expect("it fits") }
});

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(owner: &EcdsaKeyPair) -> Value {
    let point = owner.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
}

/// A header and claims that are accepted.
pub fn good() -> (String, String) {
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&BENCH.owner) });
    let ath = encode(digest(&SHA256, BENCH.token.as_bytes()));
    let claims = json!({ "jti": "p-1", "htm": "GET", "htu": "https://api.example.com/orders", "iat": NOW, "ath": ath });
    (header.to_string(), claims.to_string())
}

/// The text with `$X`, `$Y` and `$ATH` filled in: the coordinates of the key, and the hash of the token.
pub fn filled(text: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(text) else { return text.to_vec() };
    let jwk = jwk(&BENCH.owner);
    let ath = encode(digest(&SHA256, BENCH.token.as_bytes()));
    let (x, y) = (jwk["x"].as_str().unwrap_or_default(), jwk["y"].as_str().unwrap_or_default());
    text.replace("$X", x).replace("$Y", y).replace("$ATH", &ath).into_bytes()
}

/// Signs a proof of these.
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = BENCH.owner.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    format!("{message}.{}", encode(signature))
}

/// Whether a request with this proof, whatever it is, is admitted. The token is good.
pub fn passes(proof: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(proof) else { return false };
    let mut request = Request::get("/orders?page=2").header("dpop", value).body(()).expect("a request");
    let authorization = HeaderValue::try_from(format!("DPoP {}", BENCH.token)).expect("a field");
    request.headers_mut().insert("authorization", authorization);
    let head = RequestHead::of(&request);
    let future = BENCH.judge.authenticate(&head, Instants::new(NOW * 1_000_000_000, 0));
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => matches!(outcome, Outcome::Verified(_)),
        Poll::Pending => panic!("waits, and everything is in memory"),
    }
}

/// Signs what may be a proof, and again with one bit off in the signature. True if it passes.
pub fn check(header: &[u8], claims: &[u8]) -> bool {
    let proof = sign(header, claims);
    let (message, signature) = proof.rsplit_once('.').expect("three parts");
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    assert!(!passes(format!("{message}.{}", encode(bytes)).as_bytes()), "a signature that is none");
    let passes = passes(proof.as_bytes());
    if passes {
        read_again(header, claims);
    }
    passes
}

/// A second reader finds in the JSON what is asked for.
fn read_again(header: &[u8], claims: &[u8]) {
    let read = |bytes| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let (header, claims) = (read(header), read(claims));
    assert_eq!(header["typ"], "dpop+jwt");
    assert_eq!(header["alg"], "ES256");
    for name in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(name).is_none(), "{name}");
    }
    let ours = jwk(&BENCH.owner);
    for name in ["kty", "crv", "x", "y"] {
        assert_eq!(header["jwk"][name], ours[name], "{name}");
    }
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(header["jwk"].get(name).is_none(), "{name}");
    }
    assert_eq!(claims["htm"], "GET");
    assert!(claims["jti"].as_str().is_some_and(|jti| !jti.is_empty()));
    assert_eq!(claims["ath"], encode(digest(&SHA256, BENCH.token.as_bytes())));
    let iat = claims["iat"].as_f64().expect("a number");
    assert!(iat > NOW as f64 - 30.0 && iat <= NOW as f64 + 5.0, "{iat}");
    let htu = claims["htu"].as_str().expect("text");
    assert_eq!(normal(htu).as_deref(), Some("https://api.example.com/orders"), "{htu}");
}

/// The URL in one form, without query and fragment.
fn normal(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next()?;
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_once('/')?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    if !port.is_empty() && port.parse::<u16>().ok()? != 443 {
        return None;
    }
    let mut text = String::new();
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        if character == '%' {
            let (high, low) = (characters.next()?.to_digit(16)?, characters.next()?.to_digit(16)?);
            text.push(char::from_u32(high * 16 + low).filter(char::is_ascii_graphic)?);
        } else {
            text.push(character);
        }
    }
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Some(format!("{}://{}/{}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase(), segments.join("/")))
}

/// A proof; or its header and its claims, one a line, which are signed here. Panics if something of that does not hold.
pub fn check_input(data: &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            // What a line cannot know: the key, and the hash of the token.
            let (header, claims) = (filled(&data[..end]), filled(&data[end + 1..]));
            check(&header, &claims);
        }
        None => assert!(!passes(data), "nobody signed it"),
    }
}
