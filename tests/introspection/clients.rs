//! How this service shows the endpoint who it is.

use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{DecodingKey, Validation};
use portcullis::{
    Secret,
    jwt::{Algorithm, introspection::ClientAuthentication},
};
use rcgen::KeyPair;
use serde_json::Value;

use super::provider::{AT, Asked, ISSUER, Provider, bearer, json, status};
use crate::{
    mint::{ED25519, P256, P384, P521, RSA},
    support::NOW,
};

async fn sent(client: ClientAuthentication) -> Asked {
    let provider = Provider::usual().await;
    let tokens = provider.builder().client(client).build().unwrap();
    assert_eq!(status(&bearer(&tokens, "good", AT).await).0, 200);
    provider.asked().remove(0)
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

#[tokio::test]
async fn by_a_secret() {
    let basic = sent(ClientAuthentication::basic("orders api", &secret("a:b c&d=é")).unwrap()).await;
    let value = basic.headers["authorization"].to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
    assert_eq!(BASE64_STANDARD.decode(value).unwrap(), b"orders+api:a%3Ab+c%26d%3D%C3%A9");
    assert!(!basic.form.contains_key("client_id") && !basic.form.contains_key("client_secret"));

    let post = sent(ClientAuthentication::post("orders api", &secret("a:b c&d=é")).unwrap()).await;
    assert!(!post.headers.contains_key("authorization"));
    assert_eq!((post.form["client_id"].as_str(), post.form["client_secret"].as_str()), ("orders api", "a:b c&d=é"));
    assert_eq!((post.form["token"].as_str(), post.form.len()), ("good", 4));

    let bearer = sent(ClientAuthentication::bearer(&secret("t0ken")).unwrap()).await;
    assert_eq!((bearer.headers["authorization"].to_str().unwrap(), bearer.form.len()), ("Bearer t0ken", 2));
}

/// What an independent library reads of an assertion, once it has verified it.
fn verified(assertion: &str, algorithm: Algorithm, pair: &KeyPair, audience: &str) -> (Value, Value) {
    let pem = pair.public_key_pem();
    let key = match algorithm.name().split_at(2).0 {
        "RS" | "PS" => DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        "ES" => DecodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        _ => DecodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
    };
    let mut validation = Validation::new(algorithm.name().parse().unwrap());
    validation.set_audience(&[audience]);
    validation.validate_exp = false;
    let token = jsonwebtoken::decode::<Value>(assertion, &key, &validation).unwrap();
    (serde_json::to_value(token.header).unwrap(), token.claims)
}

#[tokio::test]
async fn by_a_private_key() {
    let provider = Provider::usual().await;
    let mut seen = HashSet::new();
    for (algorithm, pair) in [
        (Algorithm::RS256, &*RSA),
        (Algorithm::RS512, &RSA),
        (Algorithm::PS256, &RSA),
        (Algorithm::ES256, &P256),
        (Algorithm::ES384, &P384),
        (Algorithm::EdDSA, &ED25519),
    ] {
        let pem = Secret::from(pair.serialize_pem());
        let client = ClientAuthentication::private_key_jwt("orders-api", algorithm, &pem).unwrap();
        assert!(!format!("{client:?}").contains("PRIVATE"));
        let tokens = provider.builder().client(client.assertion_key_id("k-1")).build().unwrap();
        for token in ["good-1", "good-2"] {
            assert_eq!(status(&bearer(&tokens, token, AT).await).0, 200, "{algorithm}");
            let asked = provider.asked().pop().unwrap();
            assert!(!asked.headers.contains_key("authorization"));
            assert_eq!(asked.form["client_id"], "orders-api");
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            assert_eq!((asked.form["client_assertion_type"].as_str(), asked.form.len()), (kind, 5));
            let (header, claims) = verified(&asked.form["client_assertion"], algorithm, pair, ISSUER);
            assert_eq!((&header["alg"], &header["kid"]), (&algorithm.name().into(), &"k-1".into()));
            assert_eq!((&claims["iss"], &claims["sub"]), (&"orders-api".into(), &"orders-api".into()));
            assert_eq!((claims["iat"].as_u64(), claims["exp"].as_u64()), (Some(NOW), Some(NOW + 60)));
            assert!(seen.insert(claims["jti"].as_str().unwrap().to_owned()), "each has its own jti");
        }
    }
    // Another audience, for servers that want one; ES512 is not among what jsonwebtoken reads.
    let pem = Secret::from(P256.serialize_pem());
    let client = ClientAuthentication::private_key_jwt("a", Algorithm::ES256, &pem).unwrap();
    let asked = sent(client.assertion_audience("https://id.example.com/token")).await;
    verified(&asked.form["client_assertion"], Algorithm::ES256, &P256, "https://id.example.com/token");
    let pem = Secret::from(P521.serialize_pem());
    let asked = sent(ClientAuthentication::private_key_jwt("a", Algorithm::ES512, &pem).unwrap()).await;
    assert_eq!(asked.form["client_assertion"].split('.').nth(2).unwrap().len(), 176);
}

#[test]
fn what_is_no_private_key_is_refused() {
    let pem = |text: String| Secret::from(text);
    let of = |algorithm, text| ClientAuthentication::private_key_jwt("orders-api", algorithm, &pem(text));
    for (name, refused) in [
        ("a public key", of(Algorithm::ES256, P256.public_key_pem())),
        ("a key of another kind", of(Algorithm::ES256, RSA.serialize_pem())),
        ("a key of another curve", of(Algorithm::ES256, P384.serialize_pem())),
        ("a symmetric algorithm", of(Algorithm::HS256, P256.serialize_pem())),
        ("two keys", of(Algorithm::ES256, P256.serialize_pem() + &P256.serialize_pem())),
        ("no PEM", of(Algorithm::ES256, "hunter2".to_owned())),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(!error.contains("BEGIN") && !error.contains("hunter2"), "{name}: {error}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let provider = Provider::start(|asked| {
        assert!(!asked.headers.contains_key("connection"));
        json(r#"{"active":false}"#)
    })
    .await;
    let tokens = provider.tokens();
    for number in 0..20 {
        assert_eq!(status(&bearer(&tokens, &format!("t-{number}"), AT).await).0, 401);
    }
    assert!(provider.connections() <= 2, "{}", provider.connections());
}
