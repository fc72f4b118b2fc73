//! The input is a token, and also a header and claims (one line each) that are signed here. No token passes unless it has
//! three parts and the issuer's signature over what it says; and no signed one unless an independent reader of its JSON
//! finds the algorithm, type, issuer, audience and end that are asked for.
#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Principal, Secret,
    jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
};
use portcullis_fuzz::{NOW, at};
use serde_json::Value;

const SECRET: [u8; 32] = [7; 32];
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "orders-api";
const LEEWAY: f64 = 60.0;

static MAC: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, &SECRET));

static TOKENS: LazyLock<JwtAuthenticator> = LazyLock::new(|| {
    let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(SECRET.to_vec())).unwrap()]).unwrap();
    let profile = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::HS256]);
    JwtAuthenticator::builder().issuer(profile.roles_claim("roles").tenant_claim("tenant")).build().unwrap()
});

fuzz_target!(|text: &str| {
    verify(text);
    if let Some((header, claims)) = text.split_once('\n') {
        let message = format!("{}.{}", encode(header), encode(claims));
        let good = hmac::sign(&MAC, message.as_bytes());
        if let Some(principal) = verify(&format!("{message}.{}", encode(&good))) {
            check(header, claims, &principal);
        }
        let mut bad = good.as_ref().to_vec();
        bad[0] ^= 1;
        assert!(verify(&format!("{message}.{}", encode(bad))).is_none());
    }
});

fn verify(token: &str) -> Option<Principal> {
    let principal = TOKENS.verify(token, at()).ok()?;
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{} parts", parts.len()) };
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    hmac::verify(&MAC, format!("{header}.{claims}").as_bytes(), &signature).unwrap();
    assert!(TOKENS.verify(token, at()).is_ok(), "the second time");
    Some(principal)
}

fn check(header: &str, claims: &str, principal: &Principal) {
    let (header, claims): (Value, Value) =
        (serde_json::from_str(header).unwrap(), serde_json::from_str(claims).unwrap());
    assert_eq!(header["alg"], "HS256");
    let typ = header["typ"].as_str().unwrap().to_ascii_lowercase();
    assert!(matches!(&*typ, "at+jwt" | "application/at+jwt"));
    assert!(header.get("crit").is_none());
    assert_eq!(claims["iss"], ISSUER);
    let ours = match &claims["aud"] {
        Value::Array(all) => all.contains(&AUDIENCE.into()),
        one => one == AUDIENCE,
    };
    assert!(ours);
    assert_eq!(claims["sub"], principal.subject());
    assert_eq!(claims["tenant"].as_str(), principal.tenant());
    let now = NOW as f64;
    assert!(claims["exp"].as_f64().unwrap() > now - LEEWAY);
    for name in ["nbf", "iat"] {
        assert!(claims.get(name).is_none_or(|at| at.as_f64().unwrap() <= now + LEEWAY), "{name}");
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
