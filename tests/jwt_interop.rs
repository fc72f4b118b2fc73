//! Tokens made by libraries that are not ours, good and bad. `tests/run` installs the libraries.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

use std::{path::Path, process::Command};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use portcullis::{
    Instants, RejectionKind, Secret,
    jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
};
use serde::Deserialize;

const NOW: Instants = Instants::new(1_800_000_000_000_000_000, 0);

/// What `tests/interop/python/make.py` and `tests/interop/node/make.mjs` print, once for each library.
#[derive(Deserialize)]
struct Document {
    library: String,
    keys: Vec<Material>,
    good: Vec<Token>,
    bad: Vec<Token>,
}

#[derive(Deserialize)]
struct Material {
    algorithm: String,
    kid: Option<String>,
    secret: Option<String>,
    pem: Option<String>,
    der: Option<String>,
    jwk: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Token {
    name: String,
    algorithm: String,
    token: String,
    because: Option<String>,
}

/// The key in every form that it comes in, as an authenticator that trusts it alone.
fn trusting(material: &Material) -> Vec<(&'static str, JwtAuthenticator)> {
    let algorithm = Algorithm::from_name(&material.algorithm).unwrap();
    let decode = |text: &String| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let mut keys = Vec::new();
    if let Some(secret) = &material.secret {
        keys.push(("secret", Key::hmac(algorithm, Secret::new(decode(secret)))));
    }
    if let Some(pem) = &material.pem {
        keys.push(("PEM", Key::from_pem(algorithm, pem)));
    }
    if let Some(der) = &material.der {
        keys.push(("DER", Key::from_der(algorithm, decode(der))));
    }
    if let Some(jwk) = &material.jwk {
        keys.push(("JWK", Key::from_jwk(None, &jwk.to_string())));
    }
    let form = |(form, key): (_, Result<Key, _>)| {
        let key = key.unwrap_or_else(|error| panic!("{form} of {algorithm}: {error:?}"));
        assert_eq!(key.algorithm(), algorithm, "{form}");
        let key = match &material.kid {
            Some(kid) => key.with_id(kid.as_str()),
            None => key,
        };
        (form, authenticator(algorithm, KeySet::new([key]).unwrap()))
    };
    let mut forms: Vec<_> = keys.into_iter().map(form).collect();
    if let Some(jwk) = &material.jwk {
        let set = KeySet::from_jwks(&serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
        forms.push(("JWK Set", authenticator(algorithm, set)));
    }
    forms
}

fn authenticator(algorithm: Algorithm, keys: KeySet) -> JwtAuthenticator {
    let issuer = Issuer::fixed("https://id.example.com", keys);
    JwtAuthenticator::builder().issuer(issuer.access_tokens("orders-api").algorithms([algorithm])).build().unwrap()
}

/// The reasons that a kind of refusal may give: a token that is refused for another one proves nothing.
fn reasons(because: &str) -> &'static [&'static str] {
    match because {
        "form" => &["token has", "token too long", "token is not base64url"],
        "json" => {
            &["claims are not a JSON object", "stands twice", "nested too deep", "not UTF-8", "exp is not a date"]
        }
        "algorithm" => &["alg is not"],
        "header" => &["crit", "b64", "zip or enc", "brings its own key", "nested inside", "typ is not"],
        "claim" => &["iss", "aud", "sub", "exp", "nbf", "not valid yet", "issued in the future", "is bound (cnf)"],
        "signature" => &["signature is not good", "no key for this kid"],
        other => panic!("{other:?} is no kind of reason"),
    }
}

fn judge(printed: &[u8], libraries: &[&str], algorithms: usize) {
    let documents: Vec<Document> = serde_json::from_slice(printed).unwrap();
    assert_eq!(documents.len(), libraries.len());
    for (document, expected) in documents.iter().zip(libraries) {
        let library = &document.library;
        assert!(library.starts_with(expected), "{library}");
        assert_eq!(document.keys.len(), algorithms, "{library}");
        let trusted: Vec<_> = document.keys.iter().map(|key| (key.algorithm.as_str(), trusting(key))).collect();
        let judges = |token: &Token| {
            let (_, forms) = trusted.iter().find(|(algorithm, _)| *algorithm == token.algorithm).unwrap();
            forms.iter().map(|(form, jwt)| (*form, jwt.verify(&token.token, NOW))).collect::<Vec<_>>()
        };
        for (algorithm, forms) in &trusted {
            assert!(
                !forms.is_empty() && document.good.iter().any(|token| token.algorithm == *algorithm),
                "{algorithm}"
            );
        }
        for token in &document.good {
            let what = format!("{library}, {}, {}", token.algorithm, token.name);
            for (form, verdict) in judges(token) {
                let principal = verdict.unwrap_or_else(|rejection| panic!("{what}, {form}: {rejection:?}"));
                assert_eq!(principal.subject(), "alice", "{what}, {form}");
            }
        }
        assert!(document.bad.len() >= 10, "{library}");
        for token in &document.bad {
            let what = format!("{library}, {}, {}", token.algorithm, token.name);
            let expected = reasons(token.because.as_deref().unwrap());
            for (form, verdict) in judges(token) {
                let Err(rejection) = verdict else { panic!("{what}, {form}: accepted") };
                assert_eq!(rejection.kind(), RejectionKind::InvalidCredential, "{what}, {form}");
                let reason = rejection.reason();
                assert!(expected.iter().any(|part| reason.contains(part)), "{what}, {form}: {reason}");
            }
        }
    }
}

fn printed(program: &Path, arguments: &[&Path]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run tests/run once", program.display()));
    assert!(output.status.success(), "run tests/run once: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
#[ignore = "needs Python with PyJWT and jwcrypto; tests/run installs them"]
fn pyjwt_and_jwcrypto() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/interop/python/bin/python");
    judge(&printed(&python, &[&root.join("tests/interop/python/make.py")]), &["PyJWT", "jwcrypto"], 13);
}

#[test]
#[ignore = "needs Node.js with jose; tests/run installs it"]
fn jose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments = [root.join("tests/interop/node/make.mjs"), root.join("target/interop/node")];
    judge(&printed(Path::new("node"), &[&arguments[0], &arguments[1]]), &["jose"], 13);
}
