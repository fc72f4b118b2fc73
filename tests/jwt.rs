//! JWTs through the authentication layer: what is accepted, and what it becomes. The attacks stand in `jwt/attacks.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "jwt/attacks.rs"]
mod attacks;
#[path = "jwt/configuration.rs"]
mod configuration;
#[path = "jwt/confusion.rs"]
mod confusion;
#[path = "jwt/json.rs"]
mod json;
#[path = "jwt/mint.rs"]
mod mint;
#[path = "jwt/mutations.rs"]
mod mutations;

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use mint::{ALGORITHMS, AUDIENCE, CLAIMS, HEADER, ISSUER, claims_but, key, token, with_claims, with_header};
use portcullis::{
    Instants, Now, PrincipalKind, RequestHead,
    authn::{Authenticator, AuthnLayer, Outcome},
    gate::Gate,
    jwt::{Algorithm, Issuer, IssuerProfile, IssuerTokens, JwtAuthenticator, KeySet},
};
use support::{NOW, Probe, get, send, text, with};
use tower::Layer;

fn issuer() -> Issuer {
    Issuer::fixed(ISSUER, KeySet::new([key(Algorithm::ES256)]).unwrap())
}

fn es256(tokens: IssuerTokens) -> IssuerProfile {
    tokens.algorithms([Algorithm::ES256])
}

fn trusting(profile: IssuerProfile) -> JwtAuthenticator {
    JwtAuthenticator::builder().issuer(profile).realm("orders").build().unwrap()
}

fn access() -> JwtAuthenticator {
    trusting(es256(issuer().access_tokens(AUDIENCE)))
}

fn at(unix_seconds: u64) -> Instants {
    Instants::new(unix_seconds * 1_000_000_000, 0)
}

fn protected(jwt: JwtAuthenticator) -> (Gate<Probe, AuthnLayer>, Probe) {
    let probe = Probe::default();
    (AuthnLayer::new(jwt).dangerous_plain_http().layer(probe.clone()), probe)
}

fn bearing(token: &str) -> Request<()> {
    with(get("/orders"), "authorization", &format!("Bearer {token}"))
}

fn challenges<B>(response: &Response<B>) -> Vec<&str> {
    response.headers().get_all(header::WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn every_algorithm_is_accepted() {
    for algorithm in ALGORITHMS {
        let issuer = Issuer::fixed(ISSUER, KeySet::new([key(algorithm)]).unwrap());
        let jwt = trusting(issuer.access_tokens(AUDIENCE).algorithms([algorithm]));
        let (service, probe) = protected(jwt);
        let token = token(algorithm, &format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#), CLAIMS);
        let response = send(&service, bearing(&token)).await;
        assert_eq!(response.status(), StatusCode::OK, "{algorithm}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "private", "{algorithm}");
        assert_eq!(text(response).await, "alice", "{algorithm}");
        assert_eq!(probe.seen.calls(), 1, "{algorithm}");
    }
}

#[test]
fn ed25519_goes_by_two_names() {
    let issuer = Issuer::fixed(ISSUER, KeySet::new([key(Algorithm::EdDSA)]).unwrap());
    let jwt = trusting(issuer.access_tokens(AUDIENCE).algorithms([Algorithm::EdDSA]));
    let token = token(Algorithm::EdDSA, r#"{"alg":"Ed25519","typ":"at+jwt"}"#, CLAIMS);
    assert!(jwt.verify(&token, at(NOW)).is_ok());
}

#[test]
fn what_may_vary() {
    let jwt = access();
    let headers = [
        ("long type", r#"{"alg":"ES256","typ":"application/at+jwt"}"#),
        ("type in capitals", r#"{"alg":"ES256","typ":"APPLICATION/AT+JWT"}"#),
        ("white space and order", "{ \"typ\" : \"at+jwt\",\r\n \"alg\":\"ES256\" }"),
        ("unknown parameters", r#"{"alg":"ES256","typ":"at+jwt","a":null,"b":[{"c":1}],"d":{"e":"\u00e9"},"f":1e3}"#),
        ("a kid where no key has an id", r#"{"alg":"ES256","typ":"at+jwt","kid":"any"}"#),
        (
            "an address of keys, which is ignored",
            r#"{"alg":"ES256","typ":"at+jwt","jku":"https://id.example.com/jwks"}"#,
        ),
        ("another content type", r#"{"alg":"ES256","typ":"at+jwt","cty":"text"}"#),
    ];
    for (name, header) in headers {
        assert!(jwt.verify(&with_header(header), at(NOW)).is_ok(), "{name}");
    }
    let claims = [
        ("audience in an array", claims_but("aud", r#"["billing","orders-api"]"#)),
        ("fraction of a second", claims_but("exp", "9000000000.5")),
        ("exponent", claims_but("exp", "9e9")),
        ("unknown claims", claims_but("address", r#"{"street":["a",{"b":null}]}"#)),
        ("escapes", claims_but("sub", r#""\u0061lice""#)),
    ];
    for (name, claims) in claims {
        let principal = jwt.verify(&with_claims(&claims), at(NOW));
        assert_eq!(principal.map(|principal| principal.subject().to_owned()).unwrap(), "alice", "{name}");
    }
}

/// An API that changes its name takes tokens for both names for a while.
#[test]
fn one_of_several_audiences_is_enough() {
    let jwt = trusting(es256(issuer().access_tokens("orders-v2")).or_audience(AUDIENCE));
    for (name, audience, taken) in [
        ("the old one", r#""orders-api""#, true),
        ("the new one", r#""orders-v2""#, true),
        ("among others", r#"["billing","orders-v2"]"#, true),
        ("another", r#""orders""#, false),
        ("none", "[]", false),
    ] {
        let verified = jwt.verify(&with_claims(&claims_but("aud", audience)), at(NOW));
        assert_eq!(verified.is_ok(), taken, "{name}");
    }
    let empty = JwtAuthenticator::builder().issuer(es256(issuer().access_tokens(AUDIENCE)).or_audience("")).build();
    assert!(empty.unwrap_err().to_string().contains("must not be empty"));
}

#[tokio::test]
async fn what_is_not_ours_is_absent() {
    let jwt = access();
    const ASKED: &str = r#"Bearer realm="orders""#;
    const INVALID: &str = r#"Bearer realm="orders", error="invalid_token""#;
    // No error code where another way of authentication was tried (RFC 6750 §3.1).
    for (name, value, told) in [
        ("opaque", "Bearer abc", INVALID),
        ("opaque, with a dot", "Bearer ory_at_abc.def", INVALID),
        ("an API key with two dots", "Bearer SG.abcdefghijklmnop.qrstuvwxyz0123456789", INVALID),
        ("another scheme", "DPoP eyJh.b.c", ASKED),
        ("basic", "Basic YTpi", ASKED),
    ] {
        let request = with(get("/"), "authorization", value);
        let now = jwt.authenticate_now(&RequestHead::of(&request), at(NOW));
        assert!(matches!(now, Now::Known(Outcome::Absent)), "{name}");
        assert!(matches!(jwt.authenticate(&RequestHead::of(&request), at(NOW)).await, Outcome::Absent), "{name}");
        let (service, probe) = protected(access());
        let response = send(&service, request).await;
        assert_eq!((response.status(), challenges(&response)), (StatusCode::UNAUTHORIZED, vec![told]), "{name}");
        assert_eq!(probe.seen.calls(), 0, "{name}");
    }
    let (service, _) = protected(access());
    let response = send(&service, get("/")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(challenges(&response), [r#"Bearer realm="orders""#], "no error without a token (RFC 6750 §3.1)");
}

#[test]
fn scheme_is_case_insensitive() {
    let jwt = access();
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let request = with(get("/"), "authorization", &format!("{scheme} {}", with_claims(CLAIMS)));
        let now = jwt.authenticate_now(&RequestHead::of(&request), at(NOW));
        assert!(matches!(now, Now::Known(Outcome::Verified(_))), "{scheme}");
    }
}

#[test]
fn the_principal_has_what_the_token_says() {
    let profile = es256(issuer().access_tokens(AUDIENCE)).roles_claim("roles").tenant_claim("org");
    let claims = r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":1800000060.9,"iat":1799999999,
        "jti":"t-1","client_id":"shop","scope":"orders:read  orders:write","roles":["clerk","buyer"],"org":"acme",
        "amr":["pwd","otp"],"email":"alice@example.com"}"#;
    let principal = trusting(profile).verify(&with_claims(claims), at(NOW)).unwrap();
    assert_eq!(principal.kind(), PrincipalKind::User);
    assert_eq!((principal.issuer(), principal.subject()), (ISSUER, "alice"));
    assert_eq!((principal.credential(), principal.credential_id()), ("jwt", Some("t-1")));
    assert_eq!(principal.scopes(), ["orders:read", "orders:write"]);
    assert_eq!(principal.roles(), ["clerk", "buyer"]);
    assert_eq!(principal.methods(), ["pwd", "otp"]);
    assert_eq!((principal.tenant(), principal.expires_at()), (Some("acme"), Some(1_800_000_060)));
    let read: serde_json::Value = principal.claims().unwrap();
    assert_eq!(read["email"], "alice@example.com");
}

#[test]
fn a_client_that_acts_for_itself_is_a_service() {
    let principal = access().verify(&with_claims(&claims_but("client_id", r#""alice""#)), at(NOW)).unwrap();
    assert_eq!(principal.kind(), PrincipalKind::Service);
    assert_eq!(access().verify(&with_claims(CLAIMS), at(NOW)).unwrap().kind(), PrincipalKind::User);
}

#[test]
fn mapped_claims_keep_their_types() {
    let array = trusting(es256(issuer().access_tokens(AUDIENCE)).scope_array_claim("scp"));
    let principal = array.verify(&with_claims(&claims_but("scp", r#"["a","b c"]"#)), at(NOW)).unwrap();
    assert_eq!(principal.scopes(), ["a", "b c"]);
    let named =
        |profile: fn(IssuerProfile) -> IssuerProfile| trusting(profile(es256(issuer().access_tokens(AUDIENCE))));
    let rows = [
        ("scopes in an array", named(|profile| profile), claims_but("scope", r#"["a"]"#), "scope claim is not"),
        ("scope a number", named(|profile| profile), claims_but("scope", "1"), "scope claim is not"),
        ("scp a string", array, claims_but("scp", r#""a b""#), "scope claim is not"),
        ("roles a string", named(|p| p.roles_claim("r")), claims_but("r", r#""admin""#), "roles claim is not"),
        ("roles with an object", named(|p| p.roles_claim("r")), claims_but("r", r#"["a",{}]"#), "roles claim is not"),
        ("tenant a number", named(|p| p.tenant_claim("t")), claims_but("t", "1"), "tenant claim is not"),
        ("tenant empty", named(|p| p.tenant_claim("t")), claims_but("t", r#""""#), "tenant claim is not"),
        ("no tenant", named(|p| p.tenant_claim("t")), CLAIMS.to_owned(), "tenant claim is missing"),
    ];
    for (name, jwt, claims, reason) in rows {
        let rejection = jwt.verify(&with_claims(&claims), at(NOW)).unwrap_err();
        assert!(rejection.reason().contains(reason), "{name}: {}", rejection.reason());
    }
}

#[test]
fn times_to_the_second() {
    let strict = |profile: IssuerProfile, leeway| {
        let profile = profile.may_lack(["iat", "client_id", "jti"]);
        JwtAuthenticator::builder().issuer(profile).leeway(Duration::from_secs(leeway)).build().unwrap()
    };
    let plain = || es256(issuer().access_tokens(AUDIENCE));
    let short = || plain().max_lifetime(Duration::from_secs(600));
    let young = || plain().max_age(Duration::from_secs(600));
    let times = |exp: &str, nbf: &str, iat: &str| {
        let claims = format!(r#"{{"iss":"{ISSUER}","sub":"a","aud":"{AUDIENCE}"{exp}{nbf}{iat}}}"#);
        with_claims(&claims)
    };
    let (exp, nbf, iat) = (r#","exp":1800000000"#, r#","nbf":1800000000"#, r#","iat":1800000000"#);
    let late = r#","exp":1800001000"#;
    let rows = [
        ("before exp", strict(plain(), 0), times(exp, "", ""), NOW - 1, None),
        ("at exp", strict(plain(), 0), times(exp, "", ""), NOW, Some("token expired")),
        ("within the leeway", strict(plain(), 60), times(exp, "", ""), NOW + 59, None),
        ("at the end of the leeway", strict(plain(), 60), times(exp, "", ""), NOW + 60, Some("token expired")),
        ("no exp", strict(plain(), 0), times("", "", ""), NOW, Some("exp is missing")),
        ("at nbf", strict(plain(), 0), times(late, nbf, ""), NOW, None),
        ("before nbf", strict(plain(), 0), times(late, nbf, ""), NOW - 1, Some("token is not valid yet")),
        ("before nbf, within the leeway", strict(plain(), 60), times(late, nbf, ""), NOW - 60, None),
        ("at iat", strict(plain(), 0), times(late, "", iat), NOW, None),
        ("before iat", strict(plain(), 0), times(late, "", iat), NOW - 1, Some("token was issued in the future")),
        ("lives too long", strict(short(), 0), times(late, "", iat), NOW, Some("token lives longer than allowed")),
        ("lives long, iat unknown", strict(short(), 0), times(late, "", ""), NOW, Some("iat is missing")),
        ("lives long enough", strict(short(), 0), times(r#","exp":1800000600"#, "", iat), NOW, None),
        ("as old as may be", strict(young(), 0), times(late, "", iat), NOW + 600, None),
        ("too old", strict(young(), 0), times(late, "", iat), NOW + 601, Some("token is older than allowed")),
        ("too old, within the leeway", strict(young(), 60), times(late, "", iat), NOW + 660, None),
        ("too old, leeway spent", strict(young(), 60), times(late, "", iat), NOW + 661, Some("token is older")),
        ("of unknown age", strict(young(), 0), times(late, "", ""), NOW, Some("iat is missing")),
        (
            "logged in later than now",
            strict(plain(), 0),
            times(late, r#","auth_time":1800000001"#, ""),
            NOW,
            Some("auth_time is in the future"),
        ),
        (
            "clock at its end",
            strict(plain(), 300),
            times(r#","exp":9999999999"#, "", ""),
            u64::MAX / 1_000_000_000,
            Some("token expired"),
        ),
    ];
    for (name, jwt, token, now, refused) in rows {
        let reason = jwt.verify(&token, at(now)).err().map(|rejection| rejection.reason().to_owned());
        match refused {
            None => assert_eq!(reason, None, "{name}"),
            Some(refused) => {
                assert!(reason.as_deref().is_some_and(|reason| reason.starts_with(refused)), "{name}: {reason:?}")
            }
        }
    }
}

#[test]
fn what_rfc_9068_requires_is_required_unless_said_otherwise() {
    let tolerant = |claims: &[&str]| trusting(es256(issuer().access_tokens(AUDIENCE)).may_lack(claims.iter().copied()));
    for claim in ["client_id", "iat", "jti"] {
        let token = with_claims(&claims_but(claim, ""));
        let rejection = access().verify(&token, at(NOW)).unwrap_err();
        assert_eq!(rejection.reason(), format!("{claim} is missing"));
        assert!(tolerant(&[claim]).verify(&token, at(NOW)).is_ok(), "{claim}");
        let others: Vec<&str> = ["client_id", "iat", "jti"].into_iter().filter(|other| *other != claim).collect();
        assert!(tolerant(&others).verify(&token, at(NOW)).is_err(), "{claim}");
    }
    let sid = || trusting(es256(issuer().access_tokens(AUDIENCE)).required(["sid"]));
    assert!(sid().verify(&with_claims(CLAIMS), at(NOW)).is_err());
    assert!(sid().verify(&with_claims(&claims_but("sid", r#""s""#)), at(NOW)).is_ok());
}

#[test]
fn id_tokens_by_their_own_rules() {
    let jwt = trusting(es256(issuer().id_tokens("shop")).or_audience("shop-app"));
    let check = |header: &str, claims: &str| {
        jwt.verify(&token(Algorithm::ES256, header, claims), at(NOW))
            .err()
            .map(|rejection| rejection.reason().to_owned())
    };
    let (untyped, typed) = (r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","typ":"JWT"}"#);
    let id = claims_but("aud", r#""shop""#).replace(r#","client_id":"web""#, "").replace(r#""client_id":"web","#, "");
    let with = |more: &str| id.replace("\"shop\"", more);
    let several = "several audiences without azp";
    let others = "token is for others besides us";
    let rows = [
        ("no type", untyped, id.clone(), None),
        ("typed", typed, id.clone(), None),
        ("nonce", typed, with(r#""shop","nonce":"n""#), None),
        ("azp", typed, with(r#""shop","azp":"shop""#), None),
        ("a list of one", typed, with(r#"["shop"]"#), None),
        ("several of ours, with azp", typed, with(r#"["shop","shop-app"],"azp":"shop-app""#), None),
        ("several of ours", typed, with(r#"["shop","shop-app"]"#), Some(several)),
        ("another's as well, with azp", typed, with(r#"["shop","x"],"azp":"shop""#), Some(others)),
        ("another's as well", typed, with(r#"["shop","x"]"#), Some(others)),
        ("another's first", typed, with(r#"["x","shop"],"azp":"shop""#), Some(others)),
        ("one that begins like ours", typed, with(r#"["shop","shop-"],"azp":"shop""#), Some(others)),
        ("an empty one as well", typed, with(r#"["shop",""],"azp":"shop""#), Some(others)),
        ("azp of another", typed, with(r#"["shop","x"],"azp":"x""#), Some(others)),
        ("azp of another, one audience", typed, with(r#""shop","azp":"x""#), Some("azp is another client")),
        ("for another client", typed, with(r#""x","azp":"shop""#), Some("token is for another audience")),
        ("access token", HEADER, id.clone(), Some("typ is not that of an ID token")),
        (
            "access token, untyped",
            typed,
            with(r#""shop","scope":"a""#),
            Some("an access token in place of an ID token"),
        ),
        ("access token by scp", typed, with(r#""shop","scp":["a"]"#), Some("an access token in place of an ID token")),
        (
            "access token by client_id",
            typed,
            with(r#""shop","client_id":"shop""#),
            Some("an access token in place of an ID token"),
        ),
        ("no iat", typed, id.replace("\"iat\"", "\"at\""), Some("iat is missing")),
        ("logout token", typed, with(r#""shop","events":{}"#), Some("a security event or logout token")),
    ];
    for (name, header, claims, refused) in rows {
        assert_eq!(check(header, &claims).as_deref(), refused, "{name}");
    }
}

/// RFC 8693 §4.1: whoever the token was handed to is told, and neither is its subject nor adds to what it may do.
#[test]
fn a_token_that_was_exchanged_is_its_subjects() {
    #[derive(serde::Deserialize)]
    struct Actor {
        sub: String,
    }
    #[derive(serde::Deserialize)]
    struct Delegated {
        act: Actor,
    }
    let act = r#"{"sub":"mallory","iss":"https://id.example.com","scope":"admin","act":{"sub":"root"}}"#;
    let details = r#"[{"type":"payment","actions":["admin"]}]"#;
    let claims = claims_but("act", &format!(r#"{act},"may_act":{act},"authorization_details":{details}"#));
    let principal = access().verify(&with_claims(&claims), at(NOW)).unwrap();
    assert_eq!(principal.subject(), "alice");
    assert!(!principal.has_scope("admin"));
    assert_eq!(principal.claims::<Delegated>().unwrap().act.sub, "mallory");
    let twice = claims_but("act", r#"{"sub":"mallory","sub":"alice"}"#);
    assert!(access().verify(&with_claims(&twice), at(NOW)).is_err());
}

#[test]
fn untyped_access_tokens_are_a_choice() {
    let weak = trusting(es256(issuer().access_tokens(AUDIENCE)).dangerous_untyped());
    let strict = access();
    let rows = [
        ("no type", r#"{"alg":"ES256"}"#, CLAIMS.to_owned(), true),
        ("typed JWT", r#"{"alg":"ES256","typ":"JWT"}"#, CLAIMS.to_owned(), true),
        ("ID token by nonce", r#"{"alg":"ES256","typ":"JWT"}"#, claims_but("nonce", r#""n""#), false),
        ("ID token by at_hash", r#"{"alg":"ES256"}"#, claims_but("at_hash", r#""h""#), false),
        ("ID token by c_hash", r#"{"alg":"ES256"}"#, claims_but("c_hash", r#""h""#), false),
        ("logout token, untyped", r#"{"alg":"ES256"}"#, claims_but("events", "{}"), false),
        ("introspection, untyped", r#"{"alg":"ES256"}"#, claims_but("token_introspection", "{}"), false),
        ("client assertion", r#"{"alg":"ES256"}"#, claims_but("iss", r#""alice""#), false),
        ("logout token", r#"{"alg":"ES256","typ":"logout+jwt"}"#, CLAIMS.to_owned(), false),
        ("proof of possession", r#"{"alg":"ES256","typ":"dpop+jwt"}"#, CLAIMS.to_owned(), false),
    ];
    for (name, header, claims, accepted) in rows {
        let token = token(Algorithm::ES256, header, &claims);
        assert_eq!(weak.verify(&token, at(NOW)).is_ok(), accepted, "{name}");
        assert!(strict.verify(&token, at(NOW)).is_err(), "{name}");
    }
}
