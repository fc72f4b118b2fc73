//! Two authenticators in `one_of` that would refuse each other's credentials, and those that are told apart.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use http::Request;
use portcullis::{
    Challenge, Clock, ConfigError, Instants, RequestHead, SystemClock,
    api_key::{ApiKeyAuthenticator, ApiKeyFormat, LegacyFormat, MemoryKeyStore, NewApiKey},
    authn::{Authenticator, AuthnLayer, Choice, Claim, Outcome, both, one_of},
    client_cert::ClientCertAuthenticator,
    guard::public,
    jwt::{CookiePlace, CsrfRules, JwtAuthenticator},
    stack::Stack,
    testing::TestIssuer,
};
use support::{Probe, get, send, with};
use tower::Layer;

fn built(choice: impl Choice) -> Result<Stack, ConfigError> {
    stacked(one_of(choice))
}

fn stacked(authenticator: impl Authenticator) -> Result<Stack, ConfigError> {
    Stack::builder().dangerous_plain_http().authenticate(authenticator).route("GET /", public()).build()
}

fn keys(prefix: &str) -> ApiKeyAuthenticator {
    ApiKeyAuthenticator::new(MemoryKeyStore::new()).with_format(ApiKeyFormat::new(prefix).unwrap())
}

fn tokens() -> JwtAuthenticator {
    JwtAuthenticator::builder().issuer(TestIssuer::new("orders").access_tokens()).build().unwrap()
}

fn in_cookie(name: &str) -> JwtAuthenticator {
    let cookie = CookiePlace::new(name, CsrfRules::same_origin()).unwrap();
    let issuer = TestIssuer::new("orders").access_tokens();
    JwtAuthenticator::builder().issuer(issuer).cookie(cookie).without_authorization().build().unwrap()
}

fn certificates(name: &str) -> ClientCertAuthenticator {
    ClientCertAuthenticator::by_dns_name().allow([name]).unwrap().build().unwrap()
}

#[test]
fn two_that_refuse_each_others_credentials_do_not_build() {
    for (name, built, value, instead) in [
        ("two of tokens", built((tokens(), tokens())), "a JWT in Authorization", ".issuer(..)"),
        (
            "apart from each other",
            built((tokens(), certificates("a.example"), tokens())),
            "a JWT in Authorization",
            ".issuer(..)",
        ),
        ("inside another", built((one_of((tokens(), keys("aaa"))), tokens())), "a JWT in Authorization", ".issuer(..)"),
        ("as a half", built((both(certificates("a.example"), tokens()), tokens())), "a JWT in", ".issuer(..)"),
        ("one cookie", built((in_cookie("__Host-s"), in_cookie("__Host-s"))), "the cookie __Host-s", ".issuer(..)"),
        ("two of keys", built((keys("aaa"), keys("bbb"))), "the field x-api-key", ".beside("),
        (
            "one told of the other",
            built((keys("aaa").beside(&keys("bbb")).unwrap(), keys("bbb"))),
            "the field",
            ".beside(",
        ),
        (
            "told of another",
            built((keys("aaa").beside(&keys("ccc")).unwrap(), keys("bbb").beside(&keys("aaa")).unwrap())),
            "the field",
            ".beside(",
        ),
        (
            "fields of their own, one scheme",
            built((keys("aaa"), keys("bbb").with_header("x-partner-key".parse().unwrap()).unwrap())),
            "the scheme ApiKey",
            ".beside(",
        ),
        (
            "two of certificates",
            built((certificates("a.example"), certificates("b.example"))),
            "the client certificate",
            "allow(..)",
        ),
        (
            "a vector",
            built(vec![Box::new(tokens()) as Box<dyn Authenticator>, Box::new(tokens())]),
            "a JWT",
            ".issuer(",
        ),
    ] {
        let error = built.expect_err(name);
        assert_eq!(error.setting(), "one_of", "{name}");
        assert!(error.value().starts_with(value) && error.to_string().contains(instead), "{name}: {error}");
    }
}

#[test]
fn those_that_share_nothing_build() {
    let (ours, theirs) = (keys("aaa"), keys("bbb"));
    let certificate = ClientCertAuthenticator::by_dns_name().allow(["b.example"]).unwrap().as_client().build().unwrap();
    for (name, built) in [
        ("keys and tokens", built((keys("aaa"), tokens()))),
        ("another place", built((tokens(), in_cookie("__Host-s")))),
        ("another cookie", built((in_cookie("__Host-s"), in_cookie("__Host-t")))),
        ("told of each other", built((ours.clone().beside(&theirs).unwrap(), theirs.beside(&ours).unwrap()))),
        ("another slot", built((certificates("a.example"), certificate))),
        (
            "a pair with a field for each",
            stacked(both(keys("aaa"), keys("bbb").with_header("x-user-key".parse().unwrap()).unwrap())),
        ),
    ] {
        assert!(built.is_ok(), "{name}: {built:?}");
    }
}

/// Of one's own.
#[derive(Debug)]
struct Tickets;

#[async_trait::async_trait]
impl Authenticator for Tickets {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new("Ticket", "orders").unwrap()]
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::all("the field x-api-key", "one reads both kinds of tickets")]
    }

    async fn authenticate(&self, _: &RequestHead<'_>, _: Instants) -> Outcome {
        Outcome::Absent
    }
}

#[test]
fn an_authenticator_of_ones_own_claims_as_well() {
    assert!(built((Tickets, tokens())).is_ok());
    let error = built((Tickets, Arc::new(Tickets))).unwrap_err();
    assert!(error.to_string().contains("one reads both kinds of tickets"), "{error}");
    let error = built((keys("aaa"), Tickets)).unwrap_err();
    assert!(error.to_string().contains("another field"), "{error}");
}

#[test]
fn keys_that_look_alike_do_not_stand_beside_each_other() {
    let legacy = |prefix| keys("ccc").accept_legacy(LegacyFormat::new(prefix, 40..=60).unwrap());
    for (name, one, other) in [
        ("one prefix", keys("aaa"), keys("aaa")),
        (
            "environments",
            keys("aaa"),
            ApiKeyAuthenticator::new(MemoryKeyStore::new())
                .with_format(ApiKeyFormat::new("aaa").unwrap().environment("test").unwrap()),
        ),
        ("a legacy key like ours", keys("aaa"), legacy("aaa_x")),
        ("a legacy key that ours begin like", keys("aaa"), legacy("aa")),
        ("any legacy key", keys("aaa"), legacy("")),
    ] {
        assert_eq!(one.clone().beside(&other).unwrap_err().setting(), "API key prefix", "{name}");
        assert!(other.beside(&one).is_err(), "{name}");
    }
    assert!(keys("aa").beside(&keys("aab")).is_ok(), "a prefix ends with its _");
}

/// Each key is taken in each place, and what is nobody's is refused.
#[tokio::test]
async fn keys_of_two_stores_share_the_fields() {
    let (ours, theirs) = (Arc::new(MemoryKeyStore::new()), Arc::new(MemoryKeyStore::new()));
    let one = ApiKeyAuthenticator::new(Arc::clone(&ours)).with_format(ApiKeyFormat::new("aaa").unwrap());
    let other = ApiKeyAuthenticator::new(Arc::clone(&theirs)).with_format(ApiKeyFormat::new("bbb").unwrap());
    let now = SystemClock::new().now();
    let ours = one.issuer().issue(&*ours, NewApiKey::for_subject("ours"), now).await.unwrap();
    let theirs = other.issuer().issue(&*theirs, NewApiKey::for_subject("theirs"), now).await.unwrap();
    let (ours, theirs) = (ours.0.expose().to_owned(), theirs.0.expose().to_owned());

    let choice = one_of((one.clone().beside(&other).unwrap(), other.beside(&one).unwrap()));
    let service = AuthnLayer::new(choice).dangerous_plain_http().allow_anonymous().layer(Probe::default());
    let in_field = |key: &str| with(get("/"), "x-api-key", key);
    let under = |scheme: &str, key: &str| with(get("/"), "authorization", &format!("{scheme} {key}"));
    let two = |field: &str, key: &str| with(in_field(field), "authorization", &format!("Bearer {key}"));
    let mistyped = theirs.replace("bbb_", "bbb_x");
    let cases: [(&str, Request<()>, u16); 12] = [
        ("ours, in its field", in_field(&ours), 200),
        ("theirs, in its field", in_field(&theirs), 200),
        ("ours, by its scheme", under("ApiKey", &ours), 200),
        ("theirs, by its scheme", under("ApiKey", &theirs), 200),
        ("ours, as a token", under("Bearer", &ours), 200),
        ("theirs, as a token", under("Bearer", &theirs), 200),
        ("nobody's, in the field", in_field("ccc_v1_x"), 401),
        ("nobody's, by the scheme", under("ApiKey", "ccc_v1_x"), 401),
        ("theirs, mistyped, in the field", in_field(&mistyped), 401),
        ("theirs, under another prefix", in_field(&theirs.replace("bbb_", "aaa_")), 401),
        ("both", two(&ours, &theirs), 400),
        ("both, the other way", two(&theirs, &ours), 400),
    ];
    for (name, request, status) in cases {
        assert_eq!(send(&service, request).await.status(), status, "{name}");
    }
    assert_eq!(send(&service, two(&mistyped, &ours)).await.status(), 401, "a bad one beside a good one");
}

/// Keys of another's format are left to it only in a field that it reads, or nobody would refuse them.
#[tokio::test]
async fn a_key_is_left_to_nobody_who_does_not_read_the_field() {
    let other = keys("bbb").with_header("x-partner-key".parse().unwrap()).unwrap();
    let one = keys("aaa");
    let choice = one_of((one.clone().beside(&other).unwrap(), other.beside(&one).unwrap()));
    let service = AuthnLayer::new(choice).dangerous_plain_http().allow_anonymous().layer(Probe::default());
    for (field, key) in [("x-api-key", "bbb_v1_x"), ("x-partner-key", "aaa_v1_x"), ("x-api-key", "aaa_v1_x")] {
        assert_eq!(send(&service, with(get("/"), field, key)).await.status(), 401, "{field} {key}");
    }
}
