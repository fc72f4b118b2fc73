//! What an answer must say, and what is made of it.

use axum::response::IntoResponse;
use portcullis::{
    Clock, Principal, PrincipalKind, RejectionKind, Secret,
    conformance::{self, AuthenticatorFixture},
    jwt::introspection::{ClientAuthentication, Introspection, IntrospectionBuilder},
    revocation::{MemoryRevocations, Revocation, RevocationStore},
    revocation_admin::RevocationAdmin,
    testing::TestClock,
};
use proptest::prelude::*;

use super::provider::{
    AT, AUDIENCE, ISSUER, Provider, active, bearer, client, is_good, json, principal, request, status,
};
use crate::support::NOW;

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    texts.collect()
}

#[tokio::test]
async fn a_good_answer_becomes_a_principal() {
    let provider = Provider::saying(active(
        r#""realm_access":{"roles":["clerk","buyer"]},"tenant":"acme","acr":"urn:mfa","amr":["pwd","otp"],
           "auth_time":1799999000"#,
    ))
    .await;
    let tokens = provider.builder().roles_claim(["realm_access", "roles"]).tenant_claim("tenant").build().unwrap();
    for round in ["asked", "remembered"] {
        let alice = principal(bearer(&tokens, "2YotnFZFEjr1zCsicMWpAA", AT).await);
        assert_eq!((alice.kind(), alice.issuer(), alice.subject()), (PrincipalKind::User, ISSUER, "alice"), "{round}");
        assert_eq!((alice.credential(), alice.credential_id()), ("introspection", Some("t-1")));
        assert_eq!(texts(alice.scopes()), ["orders:read", "orders:write"]);
        assert_eq!(texts(alice.roles()), ["clerk", "buyer"]);
        assert_eq!((alice.tenant(), alice.acr()), (Some("acme"), Some("urn:mfa")));
        assert_eq!(texts(alice.methods()), ["pwd", "otp"]);
        assert_eq!((alice.auth_time(), alice.expires_at()), (Some(1_799_999_000), Some(NOW + 3_600)));
        let claims: serde_json::Value = alice.claims().unwrap();
        assert_eq!((&claims["username"], &claims["active"]), (&"Alice".into(), &true.into()));
    }
    let [asked] = provider.asked().try_into().unwrap();
    assert_eq!(asked.form["token"], "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!((asked.form["token_type_hint"].as_str(), asked.form.len()), ("access_token", 2));
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(asked.headers["accept"], "application/json");
}

#[tokio::test]
async fn whoever_acts_for_itself_is_a_service() {
    let provider = Provider::saying(active(r#""sub":"web""#)).await;
    let web = principal(bearer(&provider.tokens(), "t", AT).await);
    assert_eq!((web.kind(), web.subject()), (PrincipalKind::Service, "web"));

    provider.now_says(active(r#""sub":null"#));
    assert_eq!(status(&bearer(&provider.tokens(), "t", AT).await), (401, "sub is missing".to_owned()));
    let tokens = provider.builder().clients_without_sub().build().unwrap();
    let web = principal(bearer(&tokens, "t", AT).await);
    assert_eq!((web.kind(), web.subject()), (PrincipalKind::Service, "web"));
    provider.now_says(active(r#""sub":"""#));
    assert_eq!(status(&bearer(&tokens, "empty", AT).await).0, 401, "an empty one is not a missing one");
    provider.now_says(active(r#""sub":null,"client_id":null"#));
    assert_eq!(status(&bearer(&tokens, "nobody", AT).await).0, 401);
}

#[tokio::test]
async fn what_the_answer_says_against_the_token_is_401() {
    let provider = Provider::usual().await;
    let later = NOW + 61;
    let rows = [
        ("not active", r#"{"active":false}"#.to_owned(), "not active"),
        ("not active, and more", active(r#""active":false"#), "not active"),
        ("a text", active(r#""active":"true""#), "not active"),
        ("a number", active(r#""active":1"#), "not active"),
        ("nothing", "{}".to_owned(), "not active"),
        ("no active", active(r#""active":null"#), "not active"),
        ("another audience", active(r#""aud":"billing-api""#), "another audience"),
        ("other audiences", active(r#""aud":["billing-api","orders-api2"]"#), "another audience"),
        ("no audience", active(r#""aud":null"#), "another audience"),
        ("an empty audience", active(r#""aud":[]"#), "another audience"),
        ("an audience of another type", active(r#""aud":{"orders-api":true}"#), "aud is neither"),
        ("another issuer", active(r#""iss":"https://evil.example""#), "another issuer"),
        ("an issuer with a slash", active(r#""iss":"https://id.example.com/""#), "another issuer"),
        ("an issuer in an array", active(r#""iss":["https://id.example.com"]"#), "iss is not a string"),
        ("expired", active(&format!(r#""exp":{}"#, NOW - 60)), "expired"),
        ("no end", active(r#""exp":null"#), "exp is missing"),
        ("an end in a text", active(r#""exp":"9000000000""#), "exp is not a date"),
        ("not yet", active(&format!(r#""nbf":{later}"#)), "not valid yet"),
        ("issued in the future", active(&format!(r#""iat":{later}"#)), "in the future"),
        ("a refresh token", active(r#""token_type":"refresh_token""#), "token_type"),
        ("a refresh token at Hydra", active(r#""token_use":"refresh_token""#), "token_use"),
        ("a refresh token at Keycloak", active(r#""typ":"Refresh""#), "typ"),
        ("an ID token", active(r#""nonce":"n""#), "ID token"),
        ("an ID token by its hash", active(r#""at_hash":"h""#), "ID token"),
        ("an ID token at Cognito", active(r#""token_use":"id""#), "token_use"),
        ("a logout token", active(r#""events":{"http://schemas.openid.net/event/backchannel-logout":{}}"#), "logout"),
        ("an answer inside", active(r#""token_introspection":{"active":true}"#), "introspection response"),
        ("scopes in an array", active(r#""scope":["orders:read"]"#), "scope"),
        ("no subject", active(r#""sub":null"#), "sub is missing"),
        ("no plan", active(r#""plan":"free""#), "another value"),
    ];
    let tokens = provider.builder().claim_must_be("plan", ["paid"]).build().unwrap();
    for (number, (name, answer, reason)) in rows.into_iter().enumerate() {
        let calls = provider.calls();
        provider.now_says(answer);
        for round in ["asked", "remembered"] {
            let (status, because) = status(&bearer(&tokens, &format!("token-{number}"), AT).await);
            assert_eq!(status, 401, "{name}, {round}: {because}");
            assert!(because.contains(reason), "{name}: {because}");
        }
        assert_eq!(provider.calls(), calls + 1, "{name}");
    }
    provider.now_says(active(""));
    assert_eq!(status(&bearer(&tokens, "good", AT).await).0, 200);
    assert_eq!(tokens.cache_stats().unwrap().entries, 1);
    // With leeway to spare, and without what may be missing.
    for answer in [
        active(&format!(r#""exp":{}"#, NOW - 59)),
        active(&format!(r#""nbf":{},"iat":{}"#, NOW + 60, NOW + 60)),
        active(r#""iss":null,"iat":null,"jti":null,"client_id":null,"token_type":null"#),
        active(r#""aud":["billing-api","orders-api"]"#),
    ] {
        tokens.forget_all();
        provider.now_says(answer.clone());
        assert_eq!(status(&bearer(&tokens, "good", AT).await), (200, String::new()), "{answer}");
    }
}

#[tokio::test]
async fn a_kind_that_the_provider_does_not_introspect_is_401() {
    let provider = Provider::usual().await;
    provider.now_replies(|_| {
        let refused = (http::StatusCode::BAD_REQUEST, r#"{"error":"unsupported_token_type"}"#);
        axum::response::IntoResponse::into_response(refused)
    });
    let tokens = provider.tokens();
    for _ in 0..3 {
        let (status, reason) = status(&bearer(&tokens, "t", AT).await);
        assert_eq!((status, reason.contains("of this kind")), (401, true), "{reason}");
    }
    assert_eq!(provider.calls(), 1);
}

#[tokio::test]
async fn which_clients_may_call_can_be_said() {
    let provider = Provider::usual().await;
    let tokens = provider.builder().claim_must_be("client_id", ["web", "shop"]).without_cache().build().unwrap();
    for (number, (answer, expected)) in [
        (active(r#""client_id":"shop""#), 200),
        (active(r#""client_id":"batch""#), 401),
        (active(r#""client_id":null"#), 401),
    ]
    .into_iter()
    .enumerate()
    {
        provider.now_says(answer);
        assert_eq!(status(&bearer(&tokens, &format!("token-{number}"), AT).await).0, expected);
    }
}

#[tokio::test]
async fn what_was_revoked_is_refused_also_when_it_is_remembered() {
    let provider = Provider::saying(active(r#""sid":"s-1""#)).await;
    let clock = TestClock::at_unix(NOW);
    let store = MemoryRevocations::new();
    let tokens = provider.builder().revocations(store.clone()).build().unwrap();
    assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
    store.state().add(&[Revocation::session(ISSUER, "s-1").unwrap()], clock.now()).unwrap();
    let (refused, reason) = status(&bearer(&tokens, "t", clock.now()).await);
    assert_eq!((refused, reason.as_str()), (401, "the token's session is revoked"));
    assert_eq!(provider.calls(), 1, "it is known already");
    // One that was not seen before.
    assert_eq!(status(&bearer(&tokens, "u", clock.now()).await).0, 401);
    // What could outlive its revocation, or says nothing of its age.
    for answer in [active(r#""iat":null"#), active(r#""exp":9000000000"#)] {
        tokens.forget_all();
        provider.now_says(answer);
        assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 401);
    }
    let endless = provider.builder().revocations(store).without_exp().build().unwrap_err().to_string();
    assert!(endless.contains("without_exp"), "{endless}");
}

#[tokio::test]
async fn a_client_without_sub_is_revoked_by_the_subject_that_it_has() {
    let provider = Provider::saying(active(r#""sub":null"#)).await;
    let clock = TestClock::at_unix(NOW);
    for by in ["everything of a principal", "a subject"] {
        let store = MemoryRevocations::new();
        let tokens = provider.builder().clients_without_sub().revocations(store.clone()).build().unwrap();
        let web = principal(bearer(&tokens, "t", clock.now()).await);
        assert_eq!((web.kind(), web.subject()), (PrincipalKind::Service, "web"));
        let admin = RevocationAdmin::new(store, [ISSUER]);
        match by {
            "a subject" => admin.revoke_subject(ISSUER, "web", clock.now()).await.unwrap(),
            _ => admin.log_out_everywhere(&web, clock.now()).await.unwrap(),
        }
        for (token, round) in [("t", "remembered"), ("u", "asked")] {
            let (refused, reason) = status(&bearer(&tokens, token, clock.now()).await);
            assert_eq!((refused, reason.as_str()), (401, "the subject's tokens are revoked"), "{by}, {round}");
        }
    }
}

#[tokio::test]
async fn the_suite_of_authenticators() {
    let provider = Provider::start(|asked| match &asked.form["token"] {
        token if is_good(token) => json(active("")),
        token if token.starts_with("lost") => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => json(r#"{"active":false}"#),
    })
    .await;
    let fixture = || {
        AuthenticatorFixture::new(AT)
            .discloses()
            .unavailable(request("Bearer", "lost-token-of-alice-that-is-long"))
            .good(request("Bearer", "good-token-of-alice-that-is-long"))
            .good(request("bearer", "good-with.one-dot"))
            .bad(request("Bearer", "token-of-nobody-that-is-long"))
            .absent(http::Request::new(()))
            .absent(request("Basic", "YWxpY2U6c2VjcmV0"))
            .absent(request("Bearer", "eyJhbGciOiJFUzI1NiJ9.e30.AA"))
    };
    conformance::authenticator(&provider.tokens(), &fixture()).await;
    conformance::authenticator(&provider.builder().without_cache().build().unwrap(), &fixture()).await;
}

#[test]
fn mistakes_are_found_when_it_is_built() {
    let secret = || Secret::from("s3cret".to_owned());
    let good = || {
        let builder = Introspection::builder().issuer(ISSUER).endpoint("https://id.example.com/introspect");
        builder.client(client()).audience(AUDIENCE)
    };
    assert!(good().build().is_ok());
    let seconds = std::time::Duration::from_secs;
    type Change = fn(IntrospectionBuilder) -> IntrospectionBuilder;
    let rows: [(&str, Change, &str); 12] = [
        ("no issuer", |builder| builder.issuer(""), "issuer"),
        ("plain http", |builder| builder.endpoint("http://id.example.com/introspect"), "https"),
        ("http elsewhere", |builder| builder.endpoint("http://10.0.0.1/").dangerous_http_on_loopback(), "plain http"),
        ("a password", |builder| builder.endpoint("https://a:b@id.example.com/"), "user name"),
        ("an empty audience", |builder| builder.audience(""), "audience"),
        ("a registered claim", |builder| builder.roles_claim("sub"), "meaning"),
        ("a leeway of hours", |builder| builder.leeway(std::time::Duration::from_secs(301)), "leeway"),
        ("nobody may ask", |builder| builder.max_in_flight(0), "in flight"),
        ("nothing refused", |builder| builder.max_refused(0), "refused"),
        ("metadata in clear", |builder| builder.resource_metadata("http://a.example"), "metadata"),
        ("no lifetime", |builder| builder.max_lifetime(std::time::Duration::ZERO), "lifetime"),
        ("a bad realm", |builder| builder.realm("a\"b"), "realm"),
    ];
    for (name, change, expected) in rows {
        let error = change(good()).build().unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for (time, kept, refused) in
        [(0, false, false), (1, true, true), (5, true, true), (6, true, false), (61, false, false)]
    {
        assert_eq!(good().remember_for(seconds(time)).build().is_ok(), kept, "{time}");
        assert_eq!(good().refused_for(seconds(time)).build().is_ok(), refused, "{time}");
    }
    let bare = || Introspection::builder().issuer(ISSUER);
    let endpoint = "https://id.example.com/introspect";
    assert!(bare().client(client()).audience(AUDIENCE).build().unwrap_err().to_string().contains("endpoint"));
    assert!(bare().endpoint(endpoint).audience(AUDIENCE).build().unwrap_err().to_string().contains("client"));
    assert!(bare().endpoint(endpoint).client(client()).build().unwrap_err().to_string().contains("audience"));
    // Nothing shows what is secret.
    let tokens = good().client(ClientAuthentication::post("a", &secret()).unwrap()).build().unwrap();
    assert!(!format!("{tokens:?}").contains("s3cret"));
    for url in ["https://user:s3cret@id.example.com/introspect", "http://id.example.com/introspect?key=s3cret"] {
        let builder = good().endpoint(url);
        assert!(!format!("{builder:?}").contains("s3cret"), "{builder:?}");
        let error = builder.build().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
    let builder = good().endpoint("https://id.example.com/introspect?key=s3cret");
    assert!(format!("{builder:?}").contains(r#""https://id.example.com/introspect""#), "{builder:?}");
    assert!(!format!("{builder:?} {:?}", builder.clone().build().unwrap()).contains("s3cret"));
}

#[tokio::test]
async fn a_token_by_another_way_is_verified_as_well() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    assert_eq!(tokens.verify("good", AT).await.as_ref().map(Principal::subject).ok(), Some("alice"));
    assert_eq!(tokens.verify("bad", AT).await.unwrap_err().kind(), RejectionKind::InvalidCredential);
    assert_eq!(tokens.verify("good", AT).await.as_ref().map(Principal::subject).ok(), Some("alice"));
    assert_eq!(provider.calls(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the members are, who passes is whom the answer names, and passes for a reason.
    #[test]
    fn no_member_opens_the_door(
        is_active: bool,
        aud in prop::sample::select(vec![r#""orders-api""#, r#""other""#, r#"["other","orders-api"]"#, "7", "null"]),
        iss in prop::sample::select(vec![r#""https://id.example.com""#, r#""https://evil.example""#, "null", "[]"]),
        exp in (NOW - 200)..(NOW + 200),
        nbf in (NOW - 200)..(NOW + 200),
        sub in "[a-z]{0,3}",
    ) {
        let changes = format!(
            r#""active":{is_active},"aud":{aud},"iss":{iss},"exp":{exp},"nbf":{nbf},"sub":"{sub}""#
        );
        let good = is_active
            && aud.contains("orders-api")
            && (iss.contains("id.example.com") || iss == "null")
            && exp + 60 > NOW
            && nbf <= NOW + 60
            && !sub.is_empty();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, subject) = runtime.block_on(async {
            let provider = Provider::saying(active(&changes)).await;
            let outcome = bearer(&provider.tokens(), "t", AT).await;
            let status = status(&outcome).0;
            (status, (status == 200).then(|| principal(outcome).subject().to_owned()))
        });
        prop_assert_eq!(status, if good { 200 } else { 401 }, "{}", changes);
        prop_assert_eq!(subject, good.then_some(sub));
    }
}
