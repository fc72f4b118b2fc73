//! Sound services that are told from unsound ones only if one looks closely, each beside its careless twin.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_lc_rs::signature;
use axum::{Router, body::Body, response::Response, routing::get};
use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::Request;
use portcullis::{
    SystemClock,
    guard::{public, require, role},
    jwt::{Algorithm, JwtAuthenticator},
    stack::Stack,
    testing::{
        TestIssuer,
        attack::{AttackReport, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use serde_json::Value;
use tower::{ServiceExt, service_fn};

use super::{decoded, point, verified};

/// Runs the suite on a service that takes what `careless` says for a clerk's request.
async fn run(
    issuer: &TestIssuer,
    health: impl Fn(u32) -> String + Clone + Send + Sync + 'static,
    careless: impl Fn(&mut Request<Body>, &str) -> bool + Clone + Send + Sync + 'static,
) -> AttackReport {
    let number = Arc::new(AtomicU32::new(1));
    let router = Router::new()
        .route("/health", get(async move || health(number.fetch_add(1, Ordering::SeqCst))))
        .route("/orders", get(async || "orders 1 and 2"));
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build().unwrap())
        .route("GET /health", public())
        .route("GET /orders", require(role("clerk").unwrap()))
        .build()
        .unwrap()
        .protect(router);
    let profile = Profile::new()
        .public("GET /health")
        .unwrap()
        .route("GET /orders", ["clerk"])
        .unwrap()
        .role("clerk", issuer.token().role("clerk"))
        .role("guest", issuer.token().role("guest"));
    let issuer = issuer.clone();
    let service = service_fn(move |mut request: Request<Body>| {
        let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        if careless(&mut request, &token) {
            let good = format!("Bearer {}", issuer.token().role("clerk").mint());
            request.headers_mut().insert("authorization", good.parse().unwrap());
        }
        let app = app.clone();
        async move { Ok::<Response<_>, Infallible>(app.oneshot(request).await.unwrap()) }
    });
    attack_suite(service, profile).run::<Body, _>().await
}

fn attacks(report: &AttackReport) -> Vec<&str> {
    report.findings().iter().map(|finding| finding.attack()).collect()
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_good_ones() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA, Algorithm::HS256] {
        let issuer = TestIssuer::with("orders-api", [algorithm], SystemClock::new());
        let report = run(&issuer, |_| "ok".to_owned(), |_, _| false).await;
        assert!(report.is_clean(), "{algorithm}: {report}");
        assert!(report.sent().any(|(attack, count)| attack == "token-algorithm-mislabelled" && count > 1));
    }
    // One that checks the signature with the key's algorithm, and not what the token says of it.
    let issuer = TestIssuer::with("orders-api", [Algorithm::RS256], SystemClock::new());
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
    let key = Arc::new(signature::RsaPublicKeyComponents { n: number("n"), e: number("e") });
    let mislabelled = move |_: &mut Request<Body>, token: &str| {
        let Some((message, signed)) = token.rsplit_once('.') else { return false };
        let signed = BASE64_URL_SAFE_NO_PAD.decode(signed).unwrap_or_default();
        let good = key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signed).is_ok();
        let alg = decoded(message.split('.').next().unwrap_or_default())["alg"].clone();
        good && alg.is_string() && alg != "RS256" && message.matches('.').count() == 1
    };
    let report = run(&issuer, |_| "ok".to_owned(), mislabelled).await;
    assert!(attacks(&report).contains(&"token-algorithm-mislabelled"), "{report}");
}

#[tokio::test]
async fn an_open_route_may_answer_otherwise_each_time() {
    let in_numbers = |number: u32| format!("ok since {number} s");
    let in_letters = |number: u32| {
        let letters = number.to_string().bytes().map(|digit| char::from(digit + (b'a' - b'0'))).collect::<String>();
        format!("ok {letters}")
    };
    let follows = |request: &mut Request<Body>, _: &str| {
        let target = request.headers().get("x-original-url").and_then(|value| value.to_str().ok()?.parse().ok());
        target.map(|target| *request.uri_mut() = target).is_some()
    };
    let issuer = TestIssuer::new("orders-api");
    for report in [run(&issuer, in_numbers, |_, _| false).await, run(&issuer, in_letters, |_, _| false).await] {
        assert!(report.is_clean(), "{report}");
    }
    for report in [run(&issuer, in_numbers, follows).await, run(&issuer, in_letters, follows).await] {
        assert!(!report.is_clean() && attacks(&report).iter().all(|attack| *attack == "proxy-path"), "{report}");
    }
}

/// One token, one text: whoever reads a signature in another spelling has two, and remembers or revokes but one of them.
#[tokio::test]
async fn each_other_spelling_of_a_signature_is_found() {
    let issuer = TestIssuer::new("orders-api");
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let trusted = point(&jwks["keys"][0]);
    let spare_bits = |text: &str| {
        let lax = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_encode_padding(false);
        let lax = lax.with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone);
        GeneralPurpose::new(&alphabet::URL_SAFE, lax).decode(text).unwrap_or_default()
    };
    let plus_and_slash =
        |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text.replace('+', "-").replace('/', "_")).unwrap_or_default();
    type Decode = fn(&str) -> Vec<u8>;
    let decoders: [(&str, Decode); 2] =
        [("spare bits of the last character", spare_bits), ("the alphabet with + and /", plus_and_slash)];
    for (sent, decode) in decoders {
        let trusted = trusted.clone();
        let lax = move |_: &mut Request<Body>, token: &str| {
            let Some((message, signed)) = token.rsplit_once('.') else { return false };
            BASE64_URL_SAFE_NO_PAD.decode(signed).is_err() && verified(message, &decode(signed), &trusted)
        };
        let report = run(&issuer, |_| "ok".to_owned(), lax).await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        assert_eq!(found, [("token-signature-reencoded", sent)], "{report}");
    }
}

/// Verifiers that get so far only with a key that they have.
#[tokio::test]
async fn an_unsigned_token_is_found_with_and_without_a_key() {
    let issuer = TestIssuer::new("orders-api");
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let known = jwks["keys"][0]["kid"].clone();
    for kid in [known, Value::Null] {
        let named = kid.clone();
        let by_key = move |_: &mut Request<Body>, token: &str| {
            let header = decoded(token.split('.').next().unwrap_or_default());
            header["kid"] == named && header["alg"].as_str().is_some_and(|alg| alg.eq_ignore_ascii_case("none"))
        };
        let report = run(&issuer, |_| "ok".to_owned(), by_key).await;
        assert!(attacks(&report).contains(&"token-alg-none"), "{kid}: {report}");
    }
}

#[tokio::test]
async fn whoever_trusts_the_certificate_of_a_token_is_found() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
        let issuer = TestIssuer::with("orders-api", [algorithm], SystemClock::new());
        let trusting = move |_: &mut Request<Body>, token: &str| {
            let header = decoded(token.split('.').next().unwrap_or_default());
            let Some(certificate) = header["x5c"][0].as_str() else { return false };
            let der = BASE64_STANDARD.decode(certificate).unwrap();
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
            let key = certificate.public_key().subject_public_key.data.as_ref();
            let (message, signed) = token.rsplit_once('.').unwrap();
            let signed = BASE64_URL_SAFE_NO_PAD.decode(signed).unwrap_or_default();
            let scheme: &dyn signature::VerificationAlgorithm = match algorithm {
                Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
                Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                _ => &signature::ED25519,
            };
            scheme.verify_sig(key, message.as_bytes(), &signed).is_ok()
        };
        let report = run(&issuer, |_| "ok".to_owned(), trusting).await;
        let found: Vec<_> = report.findings().iter().map(|finding| (finding.attack(), finding.sent())).collect();
        assert_eq!(found, [("token-embedded-key", "x5c"), ("token-embedded-key", "x5c, kid")], "{report}");
    }
}

/// One that fetches, and refuses what it gets.
#[tokio::test]
async fn whoever_asks_where_a_token_says_is_found() {
    for (name, scheme, kid) in [("jku", "https", false), ("x5u", "http", false), ("jku", "http", true)] {
        let issuer = TestIssuer::new("orders-api");
        let known = issuer.token().mint();
        let known = decoded(known.split('.').next().unwrap())["kid"].clone();
        let asking = move |_: &mut Request<Body>, token: &str| {
            let header = decoded(token.split('.').next().unwrap_or_default());
            let url: Option<http::Uri> = header[name].as_str().and_then(|url| url.parse().ok());
            let url = url.filter(|url| url.scheme_str() == Some(scheme) && (!kid || header["kid"] != known));
            if let Some(url) = url {
                let address = (url.host().unwrap(), url.port_u16().unwrap());
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let _ = std::io::Read::read(&mut stream, &mut [0]);
            }
            false
        };
        let report = run(&issuer, |_| "ok".to_owned(), asking).await;
        assert!(!report.is_clean() && attacks(&report).iter().all(|attack| *attack == "token-key-url"), "{report}");
        assert_eq!(report.findings()[0].got(), "somebody who asked", "{report}");
    }
}
