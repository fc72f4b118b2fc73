//! Tokens of a trusted signer whose header or claims are of the wrong type, stand twice, or are no JSON at all.

use http::StatusCode;
use jsonwebtoken::EncodingKey;

use crate::{
    access, at,
    attacks::{answers, refused},
    bearing,
    mint::{self, CLAIMS, HEADER, claims_but, encode, with_claims, with_header},
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
        ("auth_time", date),
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

/// The same member twice, equal or not, first or last, spelled out or escaped: two readers could read two tokens.
#[tokio::test]
async fn claims_and_parameters_that_stand_twice() {
    let jwt = access();
    let claims = [
        ("iss", "\"https://id.example.com\"", "\"https://mallory.example\""),
        ("sub", "\"alice\"", "\"mallory\""),
        ("aud", "\"orders-api\"", "[\"billing-api\"]"),
        ("exp", "9000000000", "1"),
        ("nbf", "1", "8000000000"),
        ("iat", "1700000000", "1"),
        ("jti", "\"t-1\"", "\"t-2\""),
        ("client_id", "\"web\"", "\"alice\""),
        ("azp", "\"web\"", "\"shop\""),
        ("scope", "\"orders:read\"", "\"admin\""),
        ("auth_time", "1", "2"),
        ("amr", "[\"pwd\"]", "[\"otp\"]"),
        ("unknown", "1", "{}"),
    ];
    let parameters = [("alg", "\"ES256\"", "\"none\""), ("typ", "\"at+jwt\"", "\"JWT\""), ("kid", "\"a\"", "\"b\"")];
    let pair = |name: &str, one: &str, other: &str| {
        let (first, rest) = name.split_at(1);
        let escaped = format!("\\u{:04x}{rest}", first.as_bytes()[0]);
        [
            format!("\"{name}\":{one},\"{name}\":{one}"),
            format!("\"{name}\":{one},\"{name}\":{other}"),
            format!("\"{name}\":{other},\"{name}\":{one}"),
            format!("\"{name}\":{one},\"{escaped}\":{other}"),
            format!("\"{escaped}\":{other},\"{name}\":{one}"),
        ]
    };
    for (name, one, other) in claims {
        assert!(jwt.verify(&with_claims(&claims_but(name, one)), at(NOW)).is_ok(), "{name}, once");
        for twice in pair(name, one, other) {
            let claims = claims_but(name, "").replacen('{', &format!("{{{twice},"), 1);
            refused(&twice, &jwt, &with_claims(&claims)).await;
        }
    }
    for (name, one, other) in parameters {
        for twice in pair(name, one, other) {
            let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_str(HEADER).unwrap();
            header.remove(name);
            let header = serde_json::to_string(&header).unwrap().replacen('{', &format!("{{{twice},"), 1);
            let header = header.replace(",}", "}");
            refused(&twice, &jwt, &with_header(&header)).await;
        }
    }
}

/// What is not known here is ignored (RFC 7515 §4.1.11 aside), of whatever type: also the parameters that could lead to a key.
#[test]
fn parameters_that_are_not_read_may_be_of_any_type() {
    let values = ["null", "true", "0", "-1.5e-3", "\"\"", "[]", "[null,{\"a\":[1]}]", "{}", "{\"a\":{\"b\":null}}"];
    for name in ["x", "jku", "x5u", "x5c", "x5t", "x5t#S256", "nonce", "url", "iss", "epk", "apu", "p2c", "svt", "é"] {
        for value in values {
            let header = format!(r#"{{"alg":"ES256","{name}":{value},"typ":"at+jwt"}}"#);
            assert!(access().verify(&with_header(&header), at(NOW)).is_ok(), "{header}");
        }
    }
}

/// 4 KiB of header, 16 KiB of token, 16 levels: the last that passes and the first that does not.
#[test]
fn bounds_are_where_they_are_said_to_be() {
    let verdict = |token: &str| access().verify(token, at(NOW)).map_err(|rejection| rejection.reason().to_owned());
    // Padded with spaces inside, which take three bytes for four characters.
    let padded = |json: &str, spaces: usize| json.replacen(',', &format!(",{}", " ".repeat(spaces)), 1);
    let header = padded(HEADER, 4_096 / 4 * 3 - HEADER.len());
    assert_eq!(encode(&header).len(), 4_096);
    assert!(verdict(&with_header(&header)).is_ok());
    let header = padded(&header, 1);
    assert_eq!(encode(&header).len(), 4_098);
    assert_eq!(verdict(&with_header(&header)).unwrap_err(), "token header too long");

    let around = with_claims(CLAIMS).len() - encode(CLAIMS).len();
    let longest =
        (1..).map(|spaces| padded(CLAIMS, spaces)).take_while(|claims| encode(claims).len() + around <= 16_384);
    let longest = longest.last().unwrap();
    assert!((16_381..=16_384).contains(&with_claims(&longest).len()));
    assert!(verdict(&with_claims(&longest)).is_ok());
    assert_eq!(verdict(&with_claims(&padded(&longest, 2))).unwrap_err(), "token too long");

    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = |levels: usize| claims_but("x", &format!("{}1{}", open.repeat(levels), close.repeat(levels)));
        assert!(verdict(&with_claims(&deep(15))).is_ok(), "16 levels with the claims themselves");
        assert_eq!(verdict(&with_claims(&deep(16))).unwrap_err(), "JSON is nested too deep");
    }
}

#[tokio::test]
async fn headers_that_are_not_json() {
    let jwt = access();
    let claims = encode(CLAIMS);
    let sign = |header: &[u8]| {
        let key = EncodingKey::from_ec_pem(mint::P256.serialize_pem().as_bytes()).unwrap();
        let message = format!("{}.{claims}", encode(header));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    };
    assert!(jwt.verify(&sign(HEADER.as_bytes()), at(NOW)).is_ok());
    let with = |value: &str| HEADER.replace('}', &format!(",\"x\":{value}}}")).into_bytes();
    let deep = |levels: usize| with(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    assert!(jwt.verify(&sign(&deep(15)), at(NOW)).is_ok(), "16 levels with the header itself");
    let rows = [
        ("UTF-16", HEADER.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a byte order mark", format!("\u{feff}{HEADER}").into_bytes()),
        ("NaN", with("NaN")),
        ("Infinity", with("-Infinity")),
        ("a number out of range", with("1e999")),
        ("half a pair", with(r#""\ud800""#)),
        ("17 levels", deep(16)),
        ("1 500 levels", deep(1_500)),
        ("NUL in a name", HEADER.replace('}', r#","x\u0000":1}"#).into_bytes()),
        ("nothing", b"{}".to_vec()),
        ("null", b"null".to_vec()),
        ("text", b"\"ES256\"".to_vec()),
    ];
    for (name, header) in rows {
        refused(name, &jwt, &sign(&header)).await;
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
