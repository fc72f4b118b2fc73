//! JWTs and opaque tokens side by side.

use portcullis::{
    Now, RequestHead,
    authn::{Authenticator, Outcome, one_of},
    conformance::{self, AuthenticatorFixture},
    jwt::{
        Algorithm, CookiePlace, CsrfRules, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet,
        introspection::{ByShape, by_shape},
    },
};

use super::provider::{AT, Provider, ask, bearer, now, principal, request, status};
use crate::mint::{AUDIENCE, CLAIMS, HEADER, ISSUER, claims_but, key, token, with_claims};

pub fn jwts() -> JwtAuthenticatorBuilder {
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(issuer).realm("orders")
}

pub fn both(provider: &Provider) -> ByShape {
    by_shape(jwts().build().unwrap(), provider.tokens()).unwrap()
}

#[tokio::test]
async fn each_token_goes_its_way() {
    let provider = Provider::usual().await;
    let tokens = both(&provider);
    let jwt = with_claims(CLAIMS);
    let identity = principal(bearer(&tokens, &jwt, AT).await);
    assert_eq!((identity.credential(), provider.calls()), ("jwt", 0));
    for opaque in ["good-opaque", "good_at_with.one-dot", "good.with.dots"] {
        assert!(matches!(now(&tokens, opaque, AT), Now::Wait));
        for _ in 0..2 {
            assert_eq!(principal(bearer(&tokens, opaque, AT).await).credential(), "introspection", "{opaque}");
        }
        assert!(matches!(now(&tokens, opaque, AT), Now::Known(Outcome::Verified(_))));
    }
    assert_eq!(provider.calls(), 3);
    assert_eq!(status(&bearer(&tokens, "bad", AT).await).0, 401);
    // One challenge, whichever way it went.
    assert_eq!(tokens.challenges().len(), 1);
    for token in [with_claims(&claims_but("aud", "\"other\"")), "bad".to_owned()] {
        let Outcome::Refused(refused) = bearer(&tokens, &token, AT).await else { panic!() };
        let challenge = refused.to_response::<()>().headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert_eq!(challenge, r#"Bearer realm="orders", error="invalid_token""#);
    }
    assert!(tokens.verify(&jwt, AT).await.is_ok() && tokens.verify("good-opaque", AT).await.is_ok());
    assert!(tokens.verify("bad", AT).await.is_err());
}

#[tokio::test]
async fn a_jwt_that_is_refused_is_never_introspected() {
    // The provider would say yes to everything.
    let provider = Provider::saying(super::provider::active("")).await;
    let tokens = both(&provider);
    let good = with_claims(CLAIMS);
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let (header, rest) = good.split_once('.').unwrap();
    for (name, token) in [
        ("expired", with_claims(&claims_but("exp", "1700000100"))),
        ("another audience", with_claims(&claims_but("aud", "\"billing-api\""))),
        ("another issuer", with_claims(&claims_but("iss", "\"https://evil.example\""))),
        ("another type", token(Algorithm::ES256, &HEADER.replace("at+jwt", "JWT"), CLAIMS)),
        (
            "an answer of introspection",
            token(Algorithm::ES256, &HEADER.replace("at+jwt", "token-introspection+jwt"), CLAIMS),
        ),
        ("no algorithm", format!("{}.{rest}", "eyJhbGciOiJub25lIn0")),
        ("no signature", format!("{unsigned}.")),
        ("a forged signature", format!("{unsigned}.{}", "A".repeat(86))),
        ("a header that is none", format!("ey{header}.{rest}")),
        ("five parts", format!("{good}.a.b")),
    ] {
        let (status, reason) = status(&bearer(&tokens, &token, AT).await);
        assert_eq!((status, provider.calls()), (401, 0), "{name}: {reason}");
    }
}

#[tokio::test]
async fn a_cookie_and_a_header_field_take_both_kinds() {
    let provider = Provider::usual().await;
    let place = CookiePlace::new("__Host-session", CsrfRules::same_origin()).unwrap();
    let jwt = jwts().cookie(place).header("x-token").build().unwrap();
    let tokens = by_shape(jwt, provider.tokens()).unwrap();
    for (token, expected) in [(with_claims(CLAIMS), "jwt"), ("good-opaque".to_owned(), "introspection")] {
        let cookie = http::Request::get("/").header("cookie", format!("__Host-session={token}"));
        let cookie = cookie.header("sec-fetch-site", "same-origin").body(()).unwrap();
        let field = http::Request::get("/").header("x-token", &token).body(()).unwrap();
        for request in [cookie, field] {
            assert_eq!(principal(ask(&tokens, &request, AT).await).credential(), expected);
        }
    }
    let bad = http::Request::get("/").header("cookie", "__Host-session=bad").header("sec-fetch-site", "same-origin");
    let outcome = ask(&tokens, &bad.body(()).unwrap(), AT).await;
    assert!(matches!(outcome, Outcome::RefusedIfNeeded(_)), "{outcome:?}");
}

#[tokio::test]
async fn beside_it_in_one_of_each_takes_its_own() {
    let provider = Provider::usual().await;
    let tokens = one_of((jwts().build().unwrap(), provider.tokens()));
    assert_eq!(principal(bearer(&tokens, &with_claims(CLAIMS), AT).await).credential(), "jwt");
    assert_eq!(principal(bearer(&tokens, "good-opaque", AT).await).credential(), "introspection");
}

#[tokio::test]
async fn alone_it_takes_jwts_if_that_is_said() {
    let provider = Provider::saying(super::provider::active("")).await;
    let jwt = with_claims(CLAIMS);
    let head = request("Bearer", &jwt);
    assert!(matches!(provider.tokens().authenticate(&RequestHead::of(&head), AT).await, Outcome::Absent));
    let all = provider.builder().jwts_too().build().unwrap();
    assert_eq!(principal(bearer(&all, &jwt, AT).await).credential(), "introspection");
    assert!(by_shape(jwts().build().unwrap(), all).is_err());
}

#[tokio::test]
async fn a_jwt_that_is_remembered_is_still_not_its_own_in_a_request() {
    let provider = Provider::saying(super::provider::active("")).await;
    let tokens = provider.tokens();
    let jwt = with_claims(&claims_but("aud", "\"other\""));
    // By another way than a request it was asked about, and is remembered.
    assert!(tokens.verify(&jwt, AT).await.is_ok() && tokens.verify(&jwt, AT).await.is_ok());
    assert_eq!(provider.calls(), 1);
    assert!(matches!(now(&tokens, &jwt, AT), Now::Known(Outcome::Absent)));
    let both = one_of((tokens, jwts().build().unwrap()));
    assert_eq!(status(&bearer(&both, &jwt, AT).await).0, 401, "whose it is has refused it");
    assert_eq!(provider.calls(), 1);
}

#[tokio::test]
async fn what_is_the_others_to_say_is_refused() {
    let provider = Provider::usual().await;
    for builder in [
        provider.builder().certificate_bound(),
        provider.builder().realm("mine"),
        provider.builder().resource_metadata("https://api.example.com/.well-known/oauth-protected-resource"),
    ] {
        let error = by_shape(jwts().build().unwrap(), builder.build().unwrap()).unwrap_err().to_string();
        assert!(error.contains("JwtAuthenticator's to say"), "{error}");
    }
}

#[tokio::test]
async fn the_suite_of_authenticators() {
    let provider = Provider::usual().await;
    let fixture = AuthenticatorFixture::new(AT)
        .discloses()
        .good(request("Bearer", &with_claims(CLAIMS)))
        .good(request("Bearer", "good-token-of-alice-that-is-long"))
        .bad(request("Bearer", &with_claims(&claims_but("exp", "1700000100"))))
        .bad(request("Bearer", "token-of-nobody-that-is-long"))
        .absent(http::Request::new(()))
        .absent(request("Basic", "YWxpY2U6c2VjcmV0"));
    conformance::authenticator(&both(&provider), &fixture).await;
}
