//! Tokens that must not pass: each is `401` with the challenge, does not reach the inner service, and leaves no trace of
//! itself in the answer.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{Request, StatusCode};
use jsonwebtoken::EncodingKey;
use portcullis::{
    Rejection,
    jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use rcgen::PublicKeyData;

use crate::{
    access, at, bearing, challenges,
    mint::{self, AUDIENCE, CLAIMS, HEADER, ISSUER, claims_but, encode, signed, with_claims, with_header},
    protected,
    support::{NOW, get, send, with},
    trusting,
};

pub async fn refused(name: &str, jwt: &JwtAuthenticator, token: &str) {
    answers(name, jwt, bearing(token), token, StatusCode::UNAUTHORIZED).await;
}

pub async fn answers(name: &str, jwt: &JwtAuthenticator, request: Request<()>, token: &str, status: StatusCode) {
    let (service, probe) = protected(jwt.clone());
    let response = send(&service, request).await;
    assert_eq!(response.status(), status, "{name}");
    assert_eq!(probe.seen.calls(), 0, "{name} reached the service");
    if status == StatusCode::UNAUTHORIZED {
        assert_eq!(challenges(&response), [r#"Bearer realm="orders", error="invalid_token""#], "{name}");
    }
    let rejection = response.extensions().get::<Rejection>().unwrap();
    let shown = format!("{response:?} {rejection:?} {rejection} {}", rejection.reason());
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!shown.contains(part), "{name} shows the token");
    }
    assert!(!shown.contains("alice") && !shown.contains("mallory"), "{name} shows a claim");
}

#[tokio::test]
async fn algorithms_are_not_the_tokens_choice() {
    let jwt = access();
    let header = |algorithm: &str| format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#);
    let casing = |bits: u32| {
        "none".char_indices().map(move |(place, c)| match bits >> place & 1 {
            0 => c,
            _ => c.to_ascii_uppercase(),
        })
    };
    let mut nones: Vec<String> = (0..16).map(|bits| casing(bits).collect()).collect();
    nones.extend(["", " none", "none ", "none\\u0000", "\\u006eone", "null"].map(str::to_owned));
    for none in nones {
        let message = format!("{}.{}", encode(header(&none)), encode(CLAIMS));
        for signature in ["", "AA", &encode([0; 64])] {
            refused(&none, &jwt, &format!("{message}.{signature}")).await;
        }
        refused(&none, &jwt, &mint::token(Algorithm::ES256, &header(&none), CLAIMS)).await;
    }
    for name in ["es256", "ES256 ", "ES512", "ES256K", "HS256", "RS256", "ES384", "EdDSA", "dir", "ML-DSA-44"] {
        refused(name, &jwt, &with_header(&header(name))).await;
    }
    refused("no alg", &jwt, &with_header(r#"{"typ":"at+jwt"}"#)).await;
    refused("alg a number", &jwt, &with_header(r#"{"alg":256,"typ":"at+jwt"}"#)).await;
    refused("alg an array", &jwt, &with_header(r#"{"alg":["ES256"],"typ":"at+jwt"}"#)).await;
}

#[tokio::test]
async fn a_key_is_for_one_algorithm() {
    // The key set has keys for both; each token is signed with a key that is bound to the other algorithm.
    let keys =
        KeySet::new([mint::key(Algorithm::RS256).with_id("a"), mint::key(Algorithm::ES256).with_id("b")]).unwrap();
    let profile = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::RS256, Algorithm::ES256]);
    let jwt = trusting(profile);
    let good = mint::token(Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"a"}"#, CLAIMS);
    assert!(jwt.verify(&good, at(NOW)).is_ok());
    let rows = [
        ("PS256 with the key of RS256", Algorithm::PS256, r#"{"alg":"PS256","typ":"at+jwt","kid":"a"}"#),
        ("RS512 with the key of RS256", Algorithm::RS512, r#"{"alg":"RS512","typ":"at+jwt","kid":"a"}"#),
        ("PS256 that says RS256", Algorithm::PS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"a"}"#),
        ("RS256 that says ES256", Algorithm::RS256, r#"{"alg":"ES256","typ":"at+jwt","kid":"a"}"#),
        ("kid of the other key", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"b"}"#),
        ("unknown kid", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"c"}"#),
        ("empty kid", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":""}"#),
        ("kid a path", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"../../a"}"#),
        ("kid in capitals", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":"A"}"#),
        ("kid a number", Algorithm::RS256, r#"{"alg":"RS256","typ":"at+jwt","kid":1}"#),
    ];
    for (name, algorithm, header) in rows {
        refused(name, &jwt, &mint::token(algorithm, header, CLAIMS)).await;
    }
}

#[tokio::test]
async fn at_most_four_keys_are_tried_and_the_one_that_is_named_comes_first() {
    let right = || mint::key(Algorithm::ES256);
    let wrong = || Key::from_der(Algorithm::ES256, mint::P256_OF_ANOTHER.subject_public_key_info()).unwrap();
    let trust = |keys: Vec<Key>| {
        let issuer = Issuer::fixed(ISSUER, KeySet::new(keys).unwrap());
        trusting(issuer.access_tokens(AUDIENCE).algorithms([Algorithm::ES256]))
    };
    let (nameless, named) = (with_header(HEADER), with_header(r#"{"alg":"ES256","typ":"at+jwt","kid":"a"}"#));
    let wrongs = |count| -> Vec<Key> { (0..count).map(|_| wrong()).collect() };
    let rows = [
        ("the fourth", [wrongs(3), vec![right()]].concat(), &nameless, true),
        ("the fifth", [wrongs(4), vec![right()]].concat(), &nameless, false),
        ("the fifth, by name", [wrongs(4), vec![right().with_id("a")]].concat(), &named, true),
        ("the second of one name", vec![wrong().with_id("a"), right().with_id("a")], &named, true),
        ("a key without a name", vec![wrong().with_id("a"), right()], &named, true),
        ("a key of another name", vec![wrong(), right().with_id("b")], &named, false),
        ("an empty name is a name", vec![wrong(), right().with_id("")], &named, false),
    ];
    for (name, keys, token, accepted) in rows {
        let jwt = trust(keys);
        assert_eq!(jwt.verify(token, at(NOW)).is_ok(), accepted, "{name}");
    }
}

#[tokio::test]
async fn keys_are_not_pooled_across_issuers() {
    let other = "https://other.example.com";
    let ours = KeySet::new([mint::key(Algorithm::ES256).with_id("ours")]).unwrap();
    let key = Key::from_der(Algorithm::ES256, mint::P256_OF_ANOTHER.subject_public_key_info()).unwrap();
    let theirs = KeySet::new([key.with_id("theirs")]).unwrap();
    let jwt = JwtAuthenticator::builder()
        .issuer(Issuer::fixed(ISSUER, ours).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]))
        .issuer(Issuer::fixed(other, theirs).access_tokens("other-api").algorithms([Algorithm::ES256]))
        .realm("orders")
        .build()
        .unwrap();
    let key = EncodingKey::from_ec_pem(mint::P256_OF_ANOTHER.serialize_pem().as_bytes()).unwrap();
    let header = |kid: &str| format!(r#"{{"alg":"ES256","typ":"at+jwt"{kid}}}"#);
    for kid in ["", r#","kid":"theirs""#, r#","kid":"ours""#] {
        let forged = signed(Algorithm::ES256, &key, &header(kid), CLAIMS);
        refused("signed by another issuer we trust", &jwt, &forged).await;
    }
    let theirs = CLAIMS.replace(ISSUER, other);
    refused("their token for us", &jwt, &signed(Algorithm::ES256, &key, &header(""), &theirs)).await;
    let good = signed(Algorithm::ES256, &key, &header(r#","kid":"theirs""#), &theirs.replace(AUDIENCE, "other-api"));
    assert!(jwt.verify(&good, at(NOW)).is_ok());
}

#[tokio::test]
async fn tampered_and_misshapen() {
    let jwt = access();
    let good = with_claims(CLAIMS);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };
    let join = |parts: &[&str]| parts.join(".");
    let evil = encode(CLAIMS.replace("alice", "mallory"));
    let other_header = encode(r#"{"alg":"ES256","typ":"at+jwt","kid":"x"}"#);
    let mut last = signature.to_owned();
    // 64 bytes leave four spare bits in the last character; the next one in the alphabet sets one of them.
    let spare = match last.pop().unwrap() {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        'w' => 'x',
        other => panic!("{other} has spare bits set"),
    };
    last.push(spare);
    let rows = [
        ("other claims", join(&[header, &evil, signature])),
        ("other header", join(&[&other_header, claims, signature])),
        ("other signature", join(&[header, claims, &encode([7; 64])])),
        ("a signature of zeros", join(&[header, claims, &encode([0; 64])])),
        ("no signature", join(&[header, claims, ""])),
        ("two parts", join(&[header, claims])),
        ("four parts", join(&[header, claims, signature, signature])),
        ("five parts", join(&[header, claims, signature, claims, signature])),
        ("an empty header", join(&["", claims, signature])),
        ("empty claims, detached", join(&[header, "", signature])),
        ("dots alone", "..".to_owned()),
        ("one dot", ".".to_owned()),
        ("padded signature", join(&[header, claims, &format!("{signature}==")])),
        ("spare bits", join(&[header, claims, &last])),
        ("a cut signature", join(&[header, claims, &signature[..signature.len() - 2]])),
        ("a longer signature", join(&[header, claims, &format!("{signature}AA")])),
        ("standard alphabet", join(&[header, claims, &BASE64_STANDARD.encode([0xfb; 64])])),
        ("three junk parts", "a.b.c".to_owned()),
        ("claims not UTF-8", join(&[header, &encode([b'{', 0xff, b'}']), signature])),
        ("claims an array", with_claims("[]")),
        ("claims a string", with_claims("\"a\"")),
        ("claims with more behind", with_claims(&format!("{CLAIMS}{{}}"))),
        ("claims with a line break behind", with_claims(&format!("{CLAIMS}\n"))),
        ("claims with a byte order mark", with_claims(&format!("\u{feff}{CLAIMS}"))),
        ("header with more behind", with_header(&format!("{HEADER} {HEADER}"))),
        ("header an array", with_header(&format!("[{HEADER}]"))),
    ];
    for (name, token) in rows {
        refused(name, &jwt, &token).await;
    }
    let broken = [
        ("white space inside", format!("Bearer {header}. {claims}.{signature}")),
        ("a tab inside", format!("Bearer {header}.{claims}\t.{signature}")),
        ("padding inside", format!("Bearer {header}=.{claims}.{signature}")),
        ("JSON serialisation", r#"Bearer {"payload":"a.b"}"#.to_owned()),
        ("longer than 16 KiB", format!("Bearer {header}.{}.{signature}", "A".repeat(17_000))),
    ];
    for (name, value) in broken {
        let request = with(get("/"), "authorization", &value);
        answers(name, &jwt, request, &good, StatusCode::BAD_REQUEST).await;
    }
    let twice = with(bearing(&good), "authorization", &format!("Bearer {good}"));
    answers("two Authorization headers", &jwt, twice, &good, StatusCode::BAD_REQUEST).await;
    let long = with_header(&format!(r#"{{"alg":"ES256","typ":"at+jwt","x":"{}"}}"#, "a".repeat(4_000)));
    refused("a header longer than 4 KiB", &jwt, &long).await;
    assert!(jwt.verify(&format!("{header}.{}.{signature}", "A".repeat(17_000)), at(NOW)).is_err());
}

#[tokio::test]
async fn der_signatures_are_not_jose_signatures() {
    let jwt = access();
    let good = with_claims(CLAIMS);
    let (message, _) = good.rsplit_once('.').unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let der = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(der, &mint::P256.serialize_der()).unwrap();
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    refused("DER", &jwt, &format!("{message}.{}", encode(signature))).await;
}

/// The same residues in other numbers: S + L of Ed25519 (RFC 8032 §5.1.7), R or S of ECDSA that is 0 or n.
#[tokio::test]
async fn signature_numbers_out_of_range() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap()).collect()
    };
    let split = |token: &str| {
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.to_owned(), BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap())
    };
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let issuer = Issuer::fixed(ISSUER, KeySet::new([mint::key(Algorithm::EdDSA)]).unwrap());
    let jwt = trusting(issuer.access_tokens(AUDIENCE).algorithms([Algorithm::EdDSA]));
    let good = mint::token(Algorithm::EdDSA, r#"{"alg":"EdDSA","typ":"at+jwt"}"#, CLAIMS);
    assert!(jwt.verify(&good, at(NOW)).is_ok());
    let (message, mut signature) = split(&good);
    let mut carry = 0_u16;
    for (byte, more) in signature[32..].iter_mut().zip(&order) {
        let sum = u16::from(*byte) + u16::from(*more) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "S + L fits");
    refused("S + L", &jwt, &format!("{message}.{}", encode(signature))).await;

    let (message, signature) = split(&with_claims(CLAIMS));
    let (r, s) = signature.split_at(32);
    let n = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let zero = [0; 32];
    for (name, r, s) in [("R 0", &zero[..], s), ("S 0", r, &zero), ("R n", &n, s), ("S n", r, &n), ("n, n", &n, &n)] {
        refused(name, &access(), &format!("{message}.{}", encode([r, s].concat()))).await;
    }
}

/// The salt of PSS is as long as the hash (RFC 7518 §3.5). Both signatures are good to a verifier that finds the length out;
/// `openssl dgst -sha256 -sigopt rsa_padding_mode:pss` made them.
#[tokio::test]
async fn a_salt_of_another_length() {
    let key = Key::from_pem(Algorithm::PS256, include_str!("pss.pem")).unwrap();
    let issuer = Issuer::fixed(ISSUER, KeySet::new([key]).unwrap());
    let lax = issuer.access_tokens(AUDIENCE).algorithms([Algorithm::PS256]).may_lack(["client_id", "jti"]);
    let jwt = trusting(lax);
    // What was signed.
    let claims =
        r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":9000000000,"iat":1700000000}"#;
    let message = format!("{}.{}", encode(r#"{"alg":"PS256","typ":"at+jwt"}"#), encode(claims));
    let [twenty, thirty_two, none] = include_str!("pss.signatures").lines().collect::<Vec<_>>()[..] else { panic!() };
    assert!(jwt.verify(&format!("{message}.{thirty_two}"), at(NOW)).is_ok());
    for (name, signature) in [("20 bytes", twenty), ("no salt", none)] {
        refused(name, &jwt, &format!("{message}.{signature}")).await;
    }
}

#[tokio::test]
async fn headers_that_ask_for_more() {
    let jwt = access();
    let jwk = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let rows = [
        ("crit", r#""crit":["exp"]"#.to_owned()),
        ("empty crit", r#""crit":[]"#.to_owned()),
        ("crit of no type", r#""crit":null"#.to_owned()),
        ("crit with b64", r#""crit":["b64"],"b64":true"#.to_owned()),
        ("b64", r#""b64":false"#.to_owned()),
        ("zip", r#""zip":"DEF""#.to_owned()),
        ("enc", r#""enc":"A128GCM""#.to_owned()),
        ("nested", r#""cty":"JWT""#.to_owned()),
        ("nested, long", r#""cty":"application/jwt""#.to_owned()),
        ("its own key", format!(r#""jwk":{jwk}"#)),
        ("alg twice", r#""alg":"ES256""#.to_owned()),
        ("twice by escape", r#""\u0061lg":"none""#.to_owned()),
        ("unknown twice", r#""x":1,"x":2"#.to_owned()),
        ("twice further in", r#""x":{"y":1,"y":2}"#.to_owned()),
        ("too deep", format!(r#""x":{}{}"#, "[".repeat(20), "]".repeat(20))),
    ];
    for (name, more) in rows {
        refused(name, &jwt, &with_header(&format!(r#"{{"alg":"ES256","typ":"at+jwt",{more}}}"#))).await;
    }
    // Keys that the token points to, with a signature that they would verify.
    let key = EncodingKey::from_ec_pem(mint::P256_OF_ANOTHER.serialize_pem().as_bytes()).unwrap();
    let point = mint::P256_OF_ANOTHER.public_key_raw();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let certificate = BASE64_STANDARD.encode(mint::P256_OF_ANOTHER.subject_public_key_info());
    for (name, more) in [
        ("jwk", format!(r#""jwk":{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#)),
        ("jku", r#""jku":"https://mallory.example/jwks""#.to_owned()),
        ("x5u", r#""x5u":"https://mallory.example/cert""#.to_owned()),
        ("x5c", format!(r#""x5c":["{certificate}"]"#)),
    ] {
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt",{more}}}"#);
        refused(name, &jwt, &signed(Algorithm::ES256, &key, &header, CLAIMS)).await;
    }
    for typ in
        [r#""JWT""#, r#""jwt""#, r#""application/jwt""#, r#""logout+jwt""#, r#""dpop+jwt""#, r#""at""#, r#""""#, "1"]
    {
        refused(typ, &jwt, &with_header(&format!(r#"{{"alg":"ES256","typ":{typ}}}"#))).await;
    }
    refused("no typ", &jwt, &with_header(r#"{"alg":"ES256"}"#)).await;
}

#[tokio::test]
async fn claims_that_do_not_hold() {
    let jwt = access();
    let deep = format!("{}1{}", "[".repeat(4_000), "]".repeat(4_000));
    let rows = [
        ("iss", r#""https://id.example.com/""#),
        ("iss", r#""https://ID.example.com""#),
        ("iss", r#""http://id.example.com""#),
        ("iss", r#"["https://id.example.com"]"#),
        ("iss", r#""""#),
        ("iss", ""),
        ("aud", ""),
        ("aud", "5"),
        ("aud", "null"),
        ("aud", "[]"),
        ("aud", r#""billing-api""#),
        ("aud", r#""ORDERS-API""#),
        ("aud", r#""orders-api/""#),
        ("aud", r#""orders-api billing-api""#),
        ("aud", r#"["billing-api","orders"]"#),
        ("aud", r#"["orders-api",5]"#),
        ("aud", r#"[["orders-api"]]"#),
        ("aud", r#"{"orders-api":true}"#),
        ("sub", ""),
        ("sub", r#""""#),
        ("sub", "1"),
        ("sub", "null"),
        ("exp", ""),
        ("exp", "1000000000"),
        ("exp", r#""9000000000""#),
        ("exp", "-1"),
        ("exp", "1e999"),
        ("exp", "1e300"),
        ("exp", "9000000000000"),
        ("exp", "18446744073709551615"),
        ("exp", "null"),
        ("exp", "true"),
        ("nbf", "8000000000"),
        ("nbf", r#""0""#),
        ("iat", "8000000000"),
        ("iat", "-5"),
        ("jti", "1"),
        ("cnf", r#"{"jkt":"abc"}"#),
        ("cnf", r#"{"x5t#S256":"abc"}"#),
        ("cnf", "null"),
        ("events", "{}"),
        ("token_introspection", r#"{"active":true}"#),
        ("scope", r#"["orders:read"]"#),
        ("x", &deep),
        ("x", r#"{"a":{"b":1,"b":1}}"#),
        ("x", r#""\ud800""#),
    ];
    for (name, value) in rows {
        refused(&format!("{name} {value:.40}"), &jwt, &with_claims(&claims_but(name, value))).await;
    }
}

#[tokio::test]
async fn id_tokens_and_access_tokens_never_stand_for_each_other() {
    let issuer = || Issuer::fixed(ISSUER, KeySet::new([mint::key(Algorithm::ES256)]).unwrap());
    let access = trusting(issuer().access_tokens("same").algorithms([Algorithm::ES256]));
    let id = trusting(issuer().id_tokens("same").algorithms([Algorithm::ES256]));
    let untyped = trusting(issuer().access_tokens("same").algorithms([Algorithm::ES256]).dangerous_untyped());
    let claims = CLAIMS.replace(AUDIENCE, "same");
    let of_id = claims.replace(r#","client_id":"web""#, "");
    let jwt = r#"{"alg":"ES256","typ":"JWT"}"#;
    let token = |header: &str, claims: &str| mint::token(Algorithm::ES256, header, claims);
    let (access_token, id_token) = (token(HEADER, &claims), token(jwt, &of_id));
    assert!(access.verify(&access_token, at(NOW)).is_ok());
    assert!(id.verify(&id_token, at(NOW)).is_ok());
    refused("ID token as access token", &access, &id_token).await;
    refused("access token as ID token", &id, &access_token).await;
    // An issuer that types neither tells them apart by their claims alone.
    let with = |more: &str| of_id.replacen('{', &format!("{{{more},"), 1);
    assert!(untyped.verify(&token(jwt, &claims), at(NOW)).is_ok());
    for (name, claims) in [
        ("client_id", claims.clone()),
        ("scope", with(r#""scope":"openid""#)),
        ("scp, a string", with(r#""scp":"openid""#)),
        ("scp, an array", with(r#""scp":["openid"]"#)),
        ("scp of no type", with(r#""scp":null"#)),
        ("no iat", of_id.replace(r#""iat":1700000000,"#, "")),
    ] {
        refused(&format!("untyped access token as ID token: {name}"), &id, &token(jwt, &claims)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions")))]

    #[test]
    fn random_text_never_passes(token in "[A-Za-z0-9_.=-]{0,300}") {
        prop_assert!(access().verify(&token, at(NOW)).is_err());
    }

    #[test]
    fn random_json_never_passes(header in ".{0,60}", claims in "[{}\\[\\]\":,a-z0-9]{0,200}") {
        let token = format!("{}.{}.{}", encode(header), encode(claims), encode([1; 64]));
        prop_assert!(access().verify(&token, at(NOW)).is_err());
    }

    #[test]
    fn random_claims_of_a_trusted_signer_never_panic(claims in "\\{(\"(iss|aud|exp|sub|x)\":[\\[\\]{}0-9e.\"a-]{1,9},?){0,5}\\}") {
        prop_assert!(access().verify(&with_claims(&claims), at(NOW)).is_err());
    }
}
