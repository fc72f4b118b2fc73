//! Tokens of a certified OpenID provider, oidc-provider, over HTTPS: from discovery to key rotation and outages.

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::time::Duration;

use http::StatusCode;
use portcullis::{
    Clock, Instants, Principal, PrincipalKind, Rejection, SystemClock,
    authn::AuthnLayer,
    http_client::HttpsFetch,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, KeySet,
        keys::{KeySource, LiveKeys},
    },
    testing::TestClock,
};
use provider::{ALGORITHMS, ORDERS, Provider, within};
use support::{Probe, get, send, text, with};
use tokio::time::sleep;
use tower::Layer;

/// A clock that shows the time and stands still there: providers date tokens by the real one, and fetches are half a minute
/// apart.
fn clock() -> TestClock {
    TestClock::at_unix(now().unix_seconds())
}

fn now() -> Instants {
    SystemClock::new().now()
}

fn status(verified: &Result<Principal, Rejection>) -> u16 {
    verified.as_ref().map_or_else(|rejection| rejection.to_response::<()>().status().as_u16(), |_| 200)
}

fn scopes(principal: &Principal) -> Vec<&str> {
    principal.scopes().iter().map(AsRef::as_ref).collect()
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn its_tokens_are_accepted() {
    let mut provider = Provider::start().await;
    let (jwt, _) = provider.trusting("orders-api", SystemClock::new());
    let service = AuthnLayer::new(jwt.clone()).dangerous_plain_http().layer(Probe::default());
    // Nothing was loaded: the first request discovers the issuer and gets its keys.
    for algorithm in ALGORITHMS {
        let token = provider.token(&format!("urn:orders-api:{algorithm}")).await;
        let request = with(get("/orders"), "authorization", &format!("Bearer {token}"));
        let response = send(&service, request).await;
        assert_eq!(response.status(), StatusCode::OK, "{algorithm}");
        assert_eq!(text(response).await, "shop", "{algorithm}");

        let principal = jwt.verify(&token, now()).unwrap();
        assert_eq!(principal.kind(), PrincipalKind::Service, "{algorithm}: the client acts for itself");
        assert_eq!((principal.issuer(), principal.credential()), (provider.issuer.as_str(), "jwt"));
        assert_eq!(scopes(&principal), ["orders:read"]);
        assert!(principal.credential_id().is_some() && principal.expires_at() > Some(now().unix_seconds()));
        let claims: serde_json::Value = principal.claims().unwrap();
        assert_eq!(claims["client_id"], "shop");
    }
    assert_eq!(provider.fetches().await, 1);

    let tokens = provider.tokens_of_alice().await;
    let principal = jwt.verify(tokens["access_token"].as_str().unwrap(), now()).unwrap();
    assert_eq!((principal.kind(), principal.subject()), (PrincipalKind::User, "alice"));
    assert_eq!(scopes(&principal), ["orders:read", "orders:write"]);
    assert_eq!(provider.fetches().await, 1);
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn what_is_not_for_us_is_refused() {
    let mut provider = Provider::start().await;
    let (orders, keys) = provider.trusting("orders-api", SystemClock::new());
    orders.fail_fast(now()).await.unwrap();
    let refused = async |what: &str, jwt: &JwtAuthenticator, token: &str, because: &str| {
        let verdict = jwt.verify_waiting(token, now()).await;
        assert_eq!(status(&verdict), 401, "{what}");
        let reason = verdict.unwrap_err().reason().to_owned();
        assert!(reason.contains(because), "{what}: {reason}");
    };
    let good = provider.token(ORDERS).await;
    assert!(orders.verify(&good, now()).is_ok());

    let billing = provider.token("urn:billing-api:ES256").await;
    refused("an access token of another resource", &orders, &billing, "audience").await;
    let (for_billing, _) = provider.trusting("billing-api", SystemClock::new());
    assert!(for_billing.verify_waiting(&billing, now()).await.is_ok());
    refused("a token for us where billing is meant", &for_billing, &good, "audience").await;

    // Kinds: each is good where it belongs.
    let tokens = provider.tokens_of_alice().await;
    let (access, id) = (tokens["access_token"].as_str().unwrap(), tokens["id_token"].as_str().unwrap());
    let client = Issuer::with_keys(&provider.issuer, keys.clone()).id_tokens("shop").algorithms([Algorithm::ES256]);
    let client = JwtAuthenticator::builder().issuer(client).build().unwrap();
    assert_eq!(client.verify(id, now()).unwrap().subject(), "alice");
    refused("an ID token", &orders, id, "typ").await;
    refused("an access token in place of an ID token", &client, access, "typ").await;
    // The audience of the API is the client's id, and types do not count: what is left is the nonce.
    let lax = Issuer::with_keys(&provider.issuer, keys.clone()).access_tokens("shop").algorithms([Algorithm::ES256]);
    let lax = lax.dangerous_untyped().may_lack(["client_id", "jti"]);
    let lax = JwtAuthenticator::builder().issuer(lax).build().unwrap();
    refused("an ID token, untyped", &lax, id, "an ID token in place of an access token").await;

    let algorithms = Issuer::with_keys(&provider.issuer, keys).access_tokens("orders-api");
    let only_rsa = algorithms.algorithms([Algorithm::RS256, Algorithm::PS256]);
    let only_rsa = JwtAuthenticator::builder().issuer(only_rsa).build().unwrap();
    refused("an algorithm that is not on the list", &only_rsa, &good, "alg").await;

    // The right keys under another issuer's name.
    let set = provider.http.get(format!("{}/jwks", provider.issuer)).send().await.unwrap().text().await.unwrap();
    let set = KeySet::from_jwks(&set).unwrap();
    assert_eq!((set.keys().len(), set.skipped().len()), (4, 0));
    for name in [format!("{}/", provider.issuer), provider.issuer.to_uppercase()] {
        let issuer = Issuer::fixed(&name, set.clone()).access_tokens("orders-api").algorithms(ALGORITHMS);
        let jwt = JwtAuthenticator::builder().issuer(issuer).build().unwrap();
        refused(&name, &jwt, &good, "iss").await;
    }
    // Its metadata speaks for nobody else.
    let http = HttpsFetch::with_roots(&provider.authority).unwrap();
    let slash = LiveKeys::discover(format!("{}/", provider.issuer)).http(http).build().unwrap();
    assert!(slash.load().await.unwrap_err().cause().contains("issuer is"));

    let [header, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = provider.token(ORDERS).await;
    let [_, other_claims, other_signature] = other.split('.').collect::<Vec<_>>().try_into().unwrap();
    assert!(orders.verify(&other, now()).is_ok());
    for forged in [
        format!("{header}.{other_claims}.{signature}"),
        format!("{header}.{claims}.{other_signature}"),
        format!("{header}.{claims}.{}", signature.chars().rev().collect::<String>()),
    ] {
        refused("a forged token", &orders, &forged, "").await;
    }
    for cut in 1..4 {
        let (cut, _) = good.split_at(good.len() - cut);
        refused("a cut token", &orders, cut, "").await;
    }
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn keys_that_rotate_are_followed() {
    let mut provider = Provider::start().await;
    let clock = clock();
    let (jwt, keys) = provider.trusting("orders-api", clock.clone());
    let of = async |token: &str| status(&jwt.verify_waiting(token, clock.now()).await);
    let half_a_minute = Duration::from_secs(31);
    let old = provider.token(ORDERS).await;
    assert_eq!(of(&old).await, 200);
    assert_eq!(keys.generation(clock.now()), Some(1));

    provider.tell("rotate ES256").await;
    let new = provider.token(ORDERS).await;
    assert_eq!(of(&new).await, 503, "the set was fetched a moment ago: not known, and not refused");
    assert_eq!(provider.fetches().await, 1);
    clock.advance(half_a_minute);
    assert_eq!(of(&new).await, 200);
    assert_eq!((provider.fetches().await, keys.generation(clock.now())), (2, Some(2)));
    assert_eq!(of(&old).await, 200, "its key is still in the set");
    assert_eq!(of(&provider.token(ORDERS).await).await, 200);
    assert_eq!(provider.fetches().await, 2);

    // The old key goes. Its tokens pass until the set is fetched, which a token of yet another key sees to.
    let kid = "ES256-3";
    assert_eq!(provider.tell(&format!("drop {kid}")).await, kid);
    provider.tell("rotate RS256").await;
    let third = provider.token("urn:orders-api:RS256").await;
    assert_eq!(of(&old).await, 200);
    clock.advance(half_a_minute);
    assert_eq!(of(&third).await, 200);
    assert_eq!(provider.fetches().await, 3);
    assert_eq!(of(&old).await, 503, "the key is gone, and the cache with it; whether it came back is not known");
    clock.advance(half_a_minute);
    assert_eq!(of(&old).await, 401);
    assert_eq!(status(&jwt.verify(&old, clock.now())), 401, "and that is remembered");
    assert_eq!((of(&new).await, of(&third).await), (200, 200));
    assert_eq!(provider.fetches().await, 4);
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn an_outage_takes_no_keys_away() {
    let mut provider = Provider::start().await;
    let clock = clock();
    let (jwt, keys) = provider.trusting("orders-api", clock.clone());
    let of = async |token: &str| status(&jwt.verify_waiting(token, clock.now()).await);
    let (seen, unseen) = (provider.token(ORDERS).await, provider.token("urn:orders-api:RS256").await);
    assert_eq!(of(&seen).await, 200);
    provider.tell("rotate EdDSA").await;
    let rotated = provider.token("urn:orders-api:EdDSA").await;

    provider.tell("stop").await;
    clock.advance(Duration::from_secs(31));
    assert_eq!((of(&seen).await, of(&unseen).await), (200, 200), "known keys");
    assert_eq!(of(&rotated).await, 503, "an unknown key, and nobody to ask");
    assert!(keys.health(clock.now()).is_ready() && keys.health(clock.now()).cause().is_some());
    // Also once the set is stale.
    clock.advance(Duration::from_secs(11 * 60));
    assert_eq!((of(&seen).await, of(&unseen).await), (200, 200), "known keys, stale");

    // Who starts amid the outage has no keys, is not ready, and says so.
    let (late, _) = provider.trusting("orders-api", SystemClock::new());
    assert!(late.fail_fast(now()).await.is_err());
    let verdict = late.verify_waiting(&seen, now()).await;
    assert_eq!(status(&verdict), 503);
    assert!(verdict.unwrap_err().to_response::<()>().headers().contains_key("retry-after"));
    assert!(!late.is_ready(now()));

    provider.tell("start").await;
    // By itself: no request has to come, and nothing is started anew.
    let ready = async {
        while !late.is_ready(now()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("keys after the outage", ready).await;
    assert_eq!(status(&late.verify(&rotated, now())), 200);
    clock.advance(Duration::from_secs(61));
    assert_eq!(of(&rotated).await, 200, "{:?}", keys.health(clock.now()));
    assert_eq!(keys.health(clock.now()).cause(), None);
}
