//! Tokens of a certified OpenID provider, oidc-provider, over HTTPS: from discovery to key rotation and outages.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    middleware::{Next, from_fn},
    routing,
};
use http::StatusCode;
use portcullis::{
    Clock, Instants, Principal, PrincipalKind, Rejection, Secret, SystemClock,
    authn::AuthnLayer,
    guard::{authenticated, public, require, scope},
    http_client::HttpsFetch,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, KeySet, LogoutTokens, ResourceMetadata,
        introspection::{ClientAuthentication, Introspection, IntrospectionBuilder, by_shape},
        keys::{KeySource, LiveKeys},
    },
    revocation::MemoryRevocations,
    revocation_admin::{BackchannelLogout, MAX_BODY},
    stack::Stack,
    testing::TestClock,
    tls::{ServerCertificate, TlsLayer, TlsListener},
};
use provider::{ALGORITHMS, ORDERS, Provider, within};
use support::{Probe, get, send, text, with};
use tokio::{process::Command, time::sleep};
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

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider and oauth4webapi; tests/run installs them"]
async fn a_client_finds_its_way_from_a_refusal_to_an_answer() {
    let provider = Provider::start().await;
    let file = |name: &str| provider.folder().join(name);
    let certificate = ServerCertificate::from_pem_files(file("cert.pem"), file("key.pem")).unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let resource = format!("https://localhost:{}/v1/orders", listener.local_addr().unwrap().port());

    let metadata = ResourceMetadata::builder(&resource)
        .authorization_server(&provider.issuer)
        .scopes(["orders:read"])
        .name("Orders")
        .build()
        .unwrap();
    let http = HttpsFetch::with_roots(&provider.authority).unwrap();
    let keys = LiveKeys::discover(&provider.issuer).http(http).build().unwrap();
    let issuer = Issuer::with_keys(&provider.issuer, keys).access_tokens(&resource).algorithms(ALGORITHMS);
    let jwt = JwtAuthenticator::builder().issuer(issuer).resource_metadata(&metadata).build().unwrap();
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(jwt)
        .route(metadata.route(), public())
        .route("GET /v1/orders", require(scope("orders:read").unwrap()))
        .build()
        .unwrap();
    let orders = axum::routing::get(async |principal: Principal| principal.subject().to_owned());
    let app = axum::Router::new().route("/v1/orders", orders).merge(metadata.router());
    tokio::spawn(async move { portcullis::axum::serve(listener, stack.protect(app)).await });

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.env("NODE_EXTRA_CA_CERTS", file("authority.pem")).arg(root.join("tests/interop/node/discover.mjs"));
    command.arg(root.join("target/interop/node")).args([&resource, "shop", "a secret of the shop, for tests alone"]);
    let output = within("the client", command.kill_on_drop(true).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["refused"], &told["scheme"], &told["error"]),
        (&401.into(), &"bearer".into(), &"invalid_token".into())
    );
    assert_eq!((&told["named"], &told["found"]), (&metadata.url().into(), &metadata.url().into()));
    assert_eq!(told["metadata"], serde_json::from_str::<serde_json::Value>(metadata.json()).unwrap());
    assert_eq!((&told["status"], &told["body"]), (&200.into(), &"shop".into()));
}

const OPAQUE: &str = "urn:orders-api:opaque";
const SECRET: &str = "a secret: of the API, 100 % for tests";

/// Opaque tokens for the orders, asked about by this client.
fn asking(provider: &Provider, client: ClientAuthentication) -> IntrospectionBuilder {
    Introspection::builder()
        .issuer(&provider.issuer)
        .endpoint(format!("{}/token/introspection", provider.issuer))
        .http(HttpsFetch::builder().roots(&provider.authority).keep_connections(4).build().unwrap())
        .client(client)
        .audience("orders-api")
}

fn by_secret() -> ClientAuthentication {
    ClientAuthentication::basic("orders-api", &Secret::from(SECRET.to_owned())).unwrap()
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn opaque_tokens_are_good_until_they_are_revoked_and_the_time_is_over() {
    let mut provider = Provider::start().await;
    let clock = clock();
    // It leaves `sub` out of the tokens that clients get for themselves.
    let tokens = asking(&provider, by_secret()).clients_without_sub().build().unwrap();
    let of = async |token: &str| status(&tokens.verify(token, clock.now()).await);
    let (token, other) = (provider.token(OPAQUE).await, provider.token(OPAQUE).await);
    assert!(!token.contains('.'));
    let service =
        AuthnLayer::new(tokens.clone()).with_clock(clock.clone()).dangerous_plain_http().layer(Probe::default());
    let response = send(&service, with(get("/orders"), "authorization", &format!("Bearer {token}"))).await;
    assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "shop"));
    let shop = tokens.verify(&token, clock.now()).await.unwrap();
    assert_eq!((shop.kind(), shop.subject()), (PrincipalKind::Service, "shop"));
    assert_eq!((shop.issuer(), shop.credential()), (provider.issuer.as_str(), "introspection"));
    assert_eq!(shop.scopes().collect::<Vec<_>>(), ["orders:read"]);
    assert_eq!(provider.introspections().await, 1);

    provider.revoke(&token).await;
    clock.advance(Duration::from_secs(50));
    assert_eq!((of(&token).await, provider.introspections().await), (200, 1), "remembered");
    clock.advance(Duration::from_secs(11));
    assert_eq!((of(&token).await, provider.introspections().await), (401, 2));
    assert_eq!((of(&token).await, provider.introspections().await), (401, 2), "remembered as well");
    // 2 s from the refusal, which came later than the question by what the provider took.
    clock.advance(Duration::from_secs(5));
    assert_eq!((of(&token).await, provider.introspections().await), (401, 3));
    assert_eq!(of(&other).await, 200, "of the same client, and not revoked");
    // Who wants to know at once.
    let fresh = asking(&provider, by_secret()).clients_without_sub().without_cache().build().unwrap();
    assert_eq!(status(&fresh.verify(&other, clock.now()).await), 200);
    provider.revoke(&other).await;
    assert_eq!(status(&fresh.verify(&other, clock.now()).await), 401);
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn what_its_introspection_says_of_other_tokens_is_refused() {
    let mut provider = Provider::start().await;
    let tokens = asking(&provider, by_secret()).build().unwrap();
    let of = async |tokens: &Introspection, token: &str| status(&tokens.verify(token, now()).await);
    let code = provider.tell(&format!("code {OPAQUE}")).await;
    let redirect = ("redirect_uri", "https://shop.example.com/callback");
    let form = [("grant_type", "authorization_code"), ("code", &code), redirect, ("resource", OPAQUE)];
    let granted = provider.grant(&form).await;
    let access = granted["access_token"].as_str().unwrap();
    let alice = tokens.verify(access, now()).await.unwrap();
    assert_eq!((alice.kind(), alice.subject()), (PrincipalKind::User, "alice"));
    assert_eq!(alice.scopes().collect::<Vec<_>>(), ["orders:read", "orders:write"]);

    let cut = access.split_at(access.len() - 1).0;
    for unknown in ["nobody-has-this-token", cut, "a", "%", "a&token=b"] {
        assert_eq!(of(&tokens, unknown).await, 401, "{unknown}");
    }
    assert_eq!(of(&tokens, &provider.token(OPAQUE).await).await, 401, "no sub, and nobody said that it may be missing");
    let billing = provider.token("urn:billing-api:opaque").await;
    let clients = asking(&provider, by_secret()).clients_without_sub().jwts_too().build().unwrap();
    assert_eq!(of(&clients, &billing).await, 401, "another audience");
    assert_eq!(of(&clients, granted["id_token"].as_str().unwrap()).await, 401, "an ID token");
    let jwt = provider.token(ORDERS).await;
    assert_ne!(of(&clients, &jwt).await, 200, "it does not introspect what it does not keep");

    // Who shows it another secret than ours learns nothing, and that is nobody's fault but ours.
    let wrong = ClientAuthentication::basic("orders-api", &Secret::from("guessed".to_owned())).unwrap();
    let verdict = asking(&provider, wrong).build().unwrap().verify(access, now()).await;
    assert_eq!(status(&verdict), 503);
    assert!(verdict.unwrap_err().reason().contains("our own credentials"));
    provider.tell("stop").await;
    assert_eq!(of(&tokens, access).await, 200, "remembered");
    assert_eq!(of(&tokens, "another").await, 503);
    provider.tell("start").await;
    assert_eq!(of(&tokens, "another").await, 401);
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn it_knows_this_service_by_each_way() {
    let mut provider = Provider::start().await;
    let key = provider.tell("key").await;
    let key = Secret::from(format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"));
    let by_key = || ClientAuthentication::private_key_jwt("orders-api-by-key", Algorithm::ES256, &key).unwrap();
    let endpoint = format!("{}/token/introspection", provider.issuer);
    let post = ClientAuthentication::post("orders-api-by-post", &Secret::from(SECRET.to_owned())).unwrap();
    for (name, client, expected) in [
        ("basic", by_secret(), 200),
        ("post", post, 200),
        ("a key", by_key(), 200),
        ("a key with a name", by_key().assertion_key_id("own"), 200),
        ("an assertion for the endpoint", by_key().assertion_audience(endpoint), 200),
        ("an assertion for somebody else", by_key().assertion_audience("https://other.example"), 503),
        ("a key of another name", by_key().assertion_key_id("other"), 503),
    ] {
        let tokens = asking(&provider, client).clients_without_sub().build().unwrap();
        let token = provider.token(OPAQUE).await;
        let verdict = tokens.verify(&token, now()).await;
        assert_eq!(status(&verdict), expected, "{name}: {:?}", verdict.err());
    }
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn both_kinds_of_its_tokens_side_by_side() {
    let mut provider = Provider::start().await;
    let (jwt, _) = provider.trusting("orders-api", SystemClock::new());
    let tokens = by_shape(jwt, asking(&provider, by_secret()).clients_without_sub().build().unwrap()).unwrap();
    let service = AuthnLayer::new(tokens.clone()).dangerous_plain_http().layer(Probe::default());
    for (resource, expected) in [(ORDERS, 0), (OPAQUE, 1)] {
        let token = provider.token(resource).await;
        for _ in 0..2 {
            let response = send(&service, with(get("/orders"), "authorization", &format!("Bearer {token}"))).await;
            assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "shop"), "{resource}");
        }
        assert_eq!(provider.introspections().await, expected, "{resource}");
    }
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn it_logs_out_who_it_says_and_nobody_else() {
    let mut provider = Provider::start().await;
    let store = Arc::new(MemoryRevocations::new());
    let keys = provider.keys(SystemClock::new());
    let issuer = || Issuer::with_keys(&provider.issuer, keys.clone());
    let orders = issuer().access_tokens("orders-api").algorithms(ALGORITHMS);
    let jwt = JwtAuthenticator::builder().issuer(orders).revocations(Arc::clone(&store)).build().unwrap();
    let tokens = LogoutTokens::new([issuer().logout_tokens("shop").algorithms(ALGORITHMS)]).unwrap();

    // What it posts, and what it is answered.
    let posted = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&posted);
    let keep = from_fn(move |request: Request, next: Next| {
        let kept = Arc::clone(&kept);
        async move {
            let (head, body) = request.into_parts();
            let form = to_bytes(body, MAX_BODY).await.unwrap();
            let response = next.run(Request::from_parts(head, form.clone().into())).await;
            let cache = response.headers()["cache-control"].clone();
            kept.lock().unwrap().push((String::from_utf8(form.to_vec()).unwrap(), response.status().as_u16(), cache));
            response
        }
    });
    let endpoint = || BackchannelLogout::new(tokens.clone(), Arc::clone(&store));
    let logout = endpoint()
        .router("/logout")
        .unwrap()
        .merge(endpoint().whole_subject().router("/logout/whole").unwrap())
        .layer(keep);
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(jwt)
        .route("GET /orders", require(authenticated()))
        .route("POST /logout", public())
        .route("POST /logout/whole", public())
        .build()
        .unwrap();
    let file = |name: &str| provider.folder().join(name);
    let certificate = ServerCertificate::from_pem_files(file("cert.pem"), file("key.pem")).unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let here = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let app = Router::new().route("/orders", routing::get(async || "orders")).merge(logout);
    tokio::spawn(async move { portcullis::axum::serve(listener, stack.protect(app)).await });

    let http = provider.http.clone();
    let of = async |token: &str| {
        http.get(format!("{here}/orders")).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let access = |granted: serde_json::Value| granted["access_token"].as_str().unwrap().to_owned();
    let (seen, unseen) = (access(provider.tokens_of_alice().await), access(provider.tokens_of_alice().await));
    let shop = provider.token(ORDERS).await;
    assert_eq!((of(&seen).await, of(&seen).await, of(&shop).await), (200, 200, 200));

    let told = provider.tell(&format!("logout orders-api {here}/logout")).await;
    assert!(told.contains("400"), "a token for another client: {told}");
    assert_eq!(of(&seen).await, 200);
    // Its access tokens name no session, so the end of one meets none of them.
    assert_eq!(provider.tell(&format!("logout shop {here}/logout session-1")).await, "told");
    assert_eq!(of(&seen).await, 200);
    assert_eq!(provider.tell(&format!("logout shop {here}/logout")).await, "told");
    assert_eq!((of(&seen).await, of(&unseen).await, of(&shop).await), (401, 401, 200));
    // Who logs in again is in, from the next second on.
    sleep(Duration::from_millis(1_100)).await;
    let again = access(provider.tokens_of_alice().await);
    assert_eq!(of(&again).await, 200);
    assert_eq!(provider.tell(&format!("logout shop {here}/logout/whole session-2")).await, "told");
    assert_eq!((of(&again).await, of(&shop).await), (401, 200));

    // The same ones once more, from us.
    let posted = std::mem::take(&mut *posted.lock().unwrap());
    assert_eq!(posted.iter().map(|(_, status, _)| *status).collect::<Vec<_>>(), [400, 200, 200, 200]);
    let because = ["another audience", "used before", "used before", "used before"];
    for ((form, _, cache), because) in posted.into_iter().zip(because) {
        assert_eq!(cache, "no-store");
        let verdict = tokens.verify(form.strip_prefix("logout_token=").unwrap(), now()).await;
        assert!(
            verdict.as_ref().is_err_and(|rejection| rejection.reason().contains(because)),
            "{because}: {verdict:?}"
        );
        let request = http.post(format!("{here}/logout")).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(form).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.text().await.unwrap()),
            (400, r#"{"error":"invalid_request"}"#.into())
        );
    }
}
