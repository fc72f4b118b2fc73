//! Tokens that are bound to a certificate or a key: the answer's `cnf` counts as that of a JWT.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use http::Request;
use portcullis::{
    ClientCertificate, Connection, TlsVersion,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, KeySet,
        bound::Dpop,
        introspection::{Introspection, by_shape},
    },
};
use serde_json::{Value, json};

use super::provider::{AT, Provider, active, ask, bearer, request, status};
use crate::{
    mint::{AUDIENCE, ISSUER, encode, key},
    support::NOW,
};

fn sha256(bytes: &[u8]) -> String {
    encode(digest::digest(&digest::SHA256, bytes))
}

fn over(request: Request<()>, der: Option<&[u8]>) -> Request<()> {
    let mut request = request;
    let connection = Connection::tls("198.51.100.7:1".parse().unwrap(), TlsVersion::Tls13);
    request.extensions_mut().insert(match der {
        Some(der) => connection.with_client_certificate(ClientCertificate::from_der(der)),
        None => connection,
    });
    request
}

#[tokio::test]
async fn a_token_goes_with_its_certificate() {
    let certificate = || rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    let (own, other) = (certificate(), certificate());
    let provider = Provider::saying(active(&format!(r#""cnf":{{"x5t#S256":"{}"}}"#, sha256(own.cert.der())))).await;
    let tokens = provider.tokens();
    let of = async |tokens: &Introspection, der| status(&ask(tokens, &over(request("Bearer", "t"), der), AT).await).0;
    for round in ["asked", "remembered"] {
        assert_eq!(of(&tokens, Some(own.cert.der())).await, 200, "{round}");
        assert_eq!(of(&tokens, Some(other.cert.der())).await, 401, "{round}");
        assert_eq!(of(&tokens, None).await, 401, "{round}");
    }
    assert_eq!(provider.calls(), 1);
    assert!(tokens.verify("t", AT).await.is_err(), "there is no connection to look at");

    let always = provider.builder().certificate_bound().build().unwrap();
    assert_eq!(of(&always, Some(own.cert.der())).await, 200);
    provider.now_says(active(""));
    always.forget_all();
    assert_eq!(of(&always, Some(own.cert.der())).await, 401, "bound to nothing");
}

#[tokio::test]
async fn a_binding_that_nobody_checks_is_none() {
    let provider = Provider::usual().await;
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for cnf in [
        json!({"kid": "k"}),
        json!({"jwk": {}}),
        json!({}),
        json!("x"),
        json!({"jkt": jkt}),
        json!({"jkt": jkt, "kid": "k"}),
    ] {
        for token_type in ["null", r#""DPoP""#, r#""Bearer""#] {
            provider.now_says(active(&format!(r#""cnf":{cnf},"token_type":{token_type}"#)));
            let (status, reason) = status(&bearer(&provider.tokens(), "t", AT).await);
            assert_eq!(status, 401, "{cnf} {token_type}: {reason}");
        }
    }
}

struct Owner(EcdsaKeyPair);

impl Owner {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
    }

    fn jkt(&self) -> String {
        let jwk = self.jwk();
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        sha256(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes())
    }

    fn proof(&self, token: &str, jti: &str) -> String {
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()});
        let claims = json!({
            "jti": jti, "htm": "GET", "htu": "https://api.example.com/orders", "iat": NOW, "ath": sha256(token.as_bytes()),
        });
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }
}

fn with_proof(scheme: &str, token: &str, proof: &str) -> Request<()> {
    let mut request = request(scheme, token);
    request.headers_mut().insert("dpop", proof.parse().unwrap());
    request
}

#[tokio::test]
async fn a_token_goes_with_a_proof_of_its_key() {
    let (owner, thief) = (Owner::new(), Owner::new());
    let bound = active(&format!(r#""token_type":"DPoP","cnf":{{"jkt":"{}"}}"#, owner.jkt()));
    let provider = Provider::saying(bound.clone()).await;
    let dpop = || Dpop::at(["https://api.example.com"]).unwrap();
    let alone = provider.builder().dpop(dpop()).build().unwrap();
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let jwt = JwtAuthenticator::builder().issuer(issuer).dpop(dpop()).build().unwrap();
    let beside = by_shape(jwt.clone(), provider.tokens()).unwrap();
    assert!(by_shape(jwt, alone.clone()).is_err(), "one place for proofs");

    for (name, tokens) in [("alone", &alone as &dyn portcullis::authn::Authenticator), ("beside JWTs", &beside)] {
        let tokens = Box::new(Asking(tokens));
        let of = async |request: Request<()>| tokens.status(&request).await;
        provider.now_says(bound.clone());
        assert_eq!(of(with_proof("DPoP", "t", &owner.proof("t", "1"))).await, 200, "{name}");
        assert_eq!(of(with_proof("DPoP", "t", &owner.proof("t", "1"))).await, 401, "{name}: used before");
        assert_eq!(of(with_proof("DPoP", "t", &owner.proof("t", "2"))).await, 200, "{name}: remembered");
        assert_eq!(of(with_proof("DPoP", "t", &thief.proof("t", "3"))).await, 401, "{name}: a thief");
        assert_eq!(of(with_proof("DPoP", "t", &owner.proof("u", "4"))).await, 401, "{name}: for another token");
        assert_eq!(of(with_proof("Bearer", "t", &owner.proof("t", "5"))).await, 401, "{name}: as a bearer token");
        assert_eq!(of(request("Bearer", "t")).await, 401, "{name}: without a proof");
        assert_eq!(of(request("DPoP", "t")).await, 401, "{name}: the scheme alone");
        provider.now_says(active(""));
        assert_eq!(of(with_proof("DPoP", "plain", &owner.proof("plain", "6"))).await, 401, "{name}: bound to nothing");
        assert_eq!(of(request("Bearer", "plain")).await, 200, "{name}");
    }
    // Who was not told of DPoP takes no such token.
    provider.now_says(bound);
    let tokens = provider.tokens();
    assert_eq!(status(&bearer(&tokens, "t", AT).await).0, 401);
    assert_eq!(status(&ask(&tokens, &with_proof("DPoP", "t", &owner.proof("t", "7")), AT).await).0, 0, "nobody's");
}

struct Asking<'a>(&'a dyn portcullis::authn::Authenticator);

impl Asking<'_> {
    async fn status(&self, request: &Request<()>) -> u16 {
        let head = portcullis::RequestHead::of(request);
        let outcome = match self.0.authenticate_now(&head, AT) {
            portcullis::Now::Known(outcome) => outcome,
            portcullis::Now::Wait => self.0.authenticate(&head, AT).await,
        };
        match &outcome {
            portcullis::authn::Outcome::Refused(rejection) => rejection.to_response::<()>().status().as_u16(),
            outcome => status(outcome).0,
        }
    }
}
