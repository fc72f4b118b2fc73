//! Tokens of a trusted signer whose claims are of the wrong type, or no JSON at all.

use http::StatusCode;
use jsonwebtoken::EncodingKey;

use crate::{
    access, at,
    attacks::{answers, refused},
    bearing,
    mint::{self, CLAIMS, HEADER, claims_but, encode, with_claims},
    support::NOW,
};

/// Each registered claim (RFC 7519 §4.1, RFC 8693 §4.3, OpenID Connect Core §2) with each JSON type that it does not have.
#[tokio::test]
async fn registered_claims_of_every_wrong_type() {
    let jwt = access();
    let values = [
        ("null", "null"),
        ("boolean", "true"),
        ("number", "5"),
        ("date", "1700000000"),
        ("string", "\"a\""),
        ("array of strings", "[\"a\"]"),
        ("array", "[1]"),
        ("empty array", "[]"),
        ("nested array", "[[\"a\"]]"),
        ("object", "{}"),
        ("object like a string", r#"{"String":"alice"}"#),
    ];
    let text: &[&str] = &["string"];
    let date: &[&str] = &["number", "date"];
    let claims = [
        ("iss", text),
        ("sub", text),
        ("aud", &["string", "array of strings", "empty array"]),
        ("exp", date),
        ("nbf", date),
        ("iat", date),
        ("jti", text),
        ("azp", text),
        ("client_id", text),
        ("amr", &["array of strings", "empty array"]),
        ("scope", text),
    ];
    for (claim, right) in claims {
        for (kind, value) in values {
            let token = with_claims(&claims_but(claim, value));
            if right.contains(&kind) {
                let reason = jwt.verify(&token, at(NOW)).err().map(|rejection| rejection.reason().to_owned());
                assert!(!reason.is_some_and(|reason| reason.contains("is not a")), "{claim} may be a {kind}");
            } else {
                refused(&format!("{claim} a {kind}"), &jwt, &token).await;
            }
        }
    }
}

#[tokio::test]
async fn claims_that_are_not_json() {
    let jwt = access();
    let sign = |bytes: &[u8]| {
        let key = EncodingKey::from_ec_pem(mint::P256.serialize_pem().as_bytes()).unwrap();
        let message = format!("{}.{}", encode(HEADER), encode(bytes));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    };
    assert!(jwt.verify(&sign(CLAIMS.as_bytes()), at(NOW)).is_ok());
    let utf16 = |swap: bool| -> Vec<u8> {
        CLAIMS.encode_utf16().flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    let with = |value: &str| CLAIMS.replace("9000000000", value).into_bytes();
    let rows = [
        ("UTF-16, little end first", utf16(false)),
        ("UTF-16, big end first", utf16(true)),
        ("UTF-16 with a mark", [&[0xff, 0xfe], &utf16(false)[..]].concat()),
        ("NaN", with("NaN")),
        ("Infinity", with("Infinity")),
        ("minus Infinity", with("-Infinity")),
        ("hexadecimal", with("0x218711a00")),
        ("a leading zero", with("09000000000")),
        ("a plus", with("+9000000000")),
        ("a point alone", with("9000000000.")),
        ("a comma behind", CLAIMS.replace('}', ",}").into_bytes()),
        ("a comment", CLAIMS.replace('{', "{/**/").into_bytes()),
        ("single quotes", CLAIMS.replace('"', "'").into_bytes()),
        ("a raw line break in a string", CLAIMS.replace("alice", "al\nice").into_bytes()),
        ("an overlong quote", [&CLAIMS.as_bytes()[..1], &[0xc0, 0xa2], &CLAIMS.as_bytes()[2..]].concat()),
    ];
    for (name, claims) in rows {
        refused(name, &jwt, &sign(&claims)).await;
    }
    // A token of 1 MiB, by a trusted signer.
    let large = CLAIMS.replace('}', &format!(r#","x":"{}"}}"#, "a".repeat(786_432)));
    let token = sign(large.as_bytes());
    assert!(token.len() > 1024 * 1024);
    let rejection = jwt.verify(&token, at(NOW)).unwrap_err();
    assert_eq!(rejection.reason(), "token too long");
    answers("1 MiB", &jwt, bearing(&token), "", StatusCode::BAD_REQUEST).await;
}
