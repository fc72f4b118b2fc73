//! Keys that do not fit what a profile takes, and RSA keys that do not say what they are for.

use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use portcullis::{
    Clock,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator,
        keys::{LiveKeys, LiveKeysBuilder},
    },
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tokio::time::sleep;

use super::origin::{ISSUER, Origin, SET, Signer, TokioClock, seconds, set_of, status};

struct Rsa(KeyPair);

impl Rsa {
    fn new() -> Self {
        Self(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
    }

    fn jwk(&self, members: &str) -> String {
        let pair = RsaKeyPair::from_pkcs8(&self.0.serialize_der()).unwrap();
        let n = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().modulus().big_endian_without_leading_zero());
        format!(r#"{{"kty":"RSA","use":"sig","kid":"r","n":"{n}","e":"AQAB"{members}}}"#)
    }

    fn token(&self, algorithm: Algorithm) -> String {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"r"}}"#);
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"alice","aud":"orders-api","exp":9000000000,"iat":1700000000,"client_id":"web","jti":"t"}}"#
        );
        let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_rsa_pem(self.0.serialize_pem().as_bytes()).unwrap();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm.name().parse().unwrap());
        format!("{message}.{}", signature.unwrap())
    }
}

fn jwt(keys: LiveKeysBuilder, algorithms: &[Algorithm]) -> (JwtAuthenticator, TokioClock) {
    let clock = TokioClock::new();
    let keys = keys.clock(clock.clone()).build().unwrap();
    let issuer = Issuer::with_keys(ISSUER, keys).access_tokens("orders-api").algorithms(algorithms.iter().copied());
    (JwtAuthenticator::builder().issuer(issuer).build().unwrap(), clock)
}

#[tokio::test(start_paused = true)]
async fn an_rsa_key_without_alg_is_for_the_algorithm_that_is_said() {
    let rsa = Rsa::new();
    let (rs, ps) = (Algorithm::RS256, Algorithm::PS256);
    let rows = [
        ("by default", None, "", rs, ps),
        ("as said", Some(ps), "", ps, rs),
        ("the key's own word comes first", Some(ps), r#","alg":"RS256""#, rs, ps),
        ("another hash", Some(Algorithm::RS512), "", Algorithm::RS512, rs),
    ];
    for (name, said, members, good, bad) in rows {
        let origin = Origin::serving(&[rsa.jwk(members)]);
        let keys = LiveKeys::jwks_url(SET).http(origin);
        let keys = said.into_iter().fold(keys, LiveKeysBuilder::rsa_without_alg);
        let (jwt, clock) = jwt(keys, &[good, bad]);
        assert_eq!(status(jwt.verify_waiting(&rsa.token(good), clock.now()).await), 200, "{name}");
        assert_eq!(status(jwt.verify_waiting(&rsa.token(bad), clock.now()).await), 401, "{name}: one algorithm a key");
    }
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
        let error = LiveKeys::jwks_url(SET).rsa_without_alg(algorithm).build().unwrap_err().to_string();
        assert!(error.contains(algorithm.name()), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_without_a_key_that_fits_is_told() {
    let rsa = Rsa::new();
    let signer = Signer::new(0, "a");
    let elsewhere = signer.jwk().replacen('{', r#"{"issuer":"https://elsewhere.example","#, 1);
    let rows = [
        ("RSA, taken for RS256", set_of(&[rsa.jwk("")]), Algorithm::PS256, false),
        ("another type", set_of(&[signer.jwk()]), Algorithm::PS256, false),
        ("another issuer's", set_of(&[elsewhere]), Algorithm::ES256, false),
        ("one of two", set_of(&[rsa.jwk(""), signer.jwk()]), Algorithm::ES256, true),
    ];
    for (name, set, algorithm, fits) in rows {
        let origin = Origin::default();
        origin.serve(SET, set);
        let (jwt, clock) = jwt(LiveKeys::jwks_url(SET).http(origin.clone()), &[algorithm]);
        jwt.fail_fast(clock.now()).await.unwrap();
        let told = |jwt: &JwtAuthenticator| {
            let (_, health) = jwt.readiness(clock.now()).next().unwrap();
            (health.is_ready(), health.cause().unwrap_or_default().to_owned())
        };
        let (ready, cause) = told(&jwt);
        assert!(ready, "{name}: it may be one issuer of many");
        assert_eq!(cause.contains("no key of the set is for"), !fits, "{name}: {cause}");
        // It ends with a set that has one.
        origin.serve(SET, set_of(&[rsa.jwk(r#","alg":"PS256""#), signer.jwk()]));
        sleep(seconds(490)).await;
        assert_eq!(told(&jwt), (true, String::new()), "{name}");
    }
}

#[test]
fn a_set_that_is_fetched_has_no_secrets() {
    for keys in [LiveKeys::jwks_url(SET), LiveKeys::discover(ISSUER), LiveKeys::jwks_file("keys.json")] {
        let keys = keys.build().unwrap();
        let issuer = Issuer::with_keys(ISSUER, keys).access_tokens("orders-api").algorithms([Algorithm::HS256]);
        let error = JwtAuthenticator::builder().issuer(issuer).build().unwrap_err().to_string();
        assert!(error.contains("HS256") && error.contains("no key"), "{error}");
    }
}
