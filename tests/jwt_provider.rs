//! Tokens of a certified OpenID provider, oidc-provider, over HTTPS: from discovery to key rotation and outages. `tests/run`
//! installs it; `tests/interop/node/provider.mjs` starts it and says what it can be told.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests panic as tests do")]

mod support;

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use http::StatusCode;
use portcullis::{
    Clock, Instants, Principal, PrincipalKind, Rejection, Secret, SystemClock,
    authn::AuthnLayer,
    http_client::HttpsFetch,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, KeySet,
        introspection::{ClientAuthentication, Introspection, IntrospectionBuilder, by_shape},
        keys::{KeySource, LiveKeys},
    },
    testing::TestClock,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{Probe, get, send, text, with};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower::Layer;

const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
const ORDERS: &str = "urn:orders-api:ES256";
const CLIENT: (&str, &str) = ("shop", "a%20secret%20of%20the%20shop%2C%20for%20tests%20alone");

/// Gives up after a minute: nothing here takes more than a few seconds.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

/// A provider on loopback, and a client of it. It ends with its input.
struct Provider {
    issuer: String,
    /// The authority of its certificate.
    authority: String,
    http: reqwest::Client,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Provider {
    async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let authority = certify(folder.path());
        let mut command = Command::new("node");
        command.arg(root.join("tests/interop/node/provider.mjs")).arg(root.join("target/interop/node"));
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.kill_on_drop(true).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = within("the provider", output.next_line()).await.unwrap();
        let port = port.unwrap_or_else(|| panic!("the provider does not start; run tests/run once"));
        Self {
            issuer: format!("https://localhost:{port}"),
            http: client(&authority),
            authority,
            input,
            output,
            _process: process,
        }
    }

    /// Tells it something. Its answer.
    async fn tell(&mut self, command: &str) -> String {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = within(command, self.output.next_line()).await.unwrap();
        answer.unwrap_or_else(|| panic!("{command}: the provider ended"))
    }

    /// An answer of the token endpoint.
    async fn grant(&self, form: &[(&str, &str)]) -> serde_json::Value {
        let request = self.http.post(format!("{}/token", self.issuer)).basic_auth(CLIENT.0, Some(CLIENT.1));
        let response = request.form(form).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<serde_json::Value>().await.unwrap());
        assert_eq!(status.as_u16(), 200, "{body}");
        body
    }

    /// An access token that the client gets for itself.
    async fn token(&self, resource: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", resource), ("scope", "orders:read")];
        self.grant(&form).await["access_token"].as_str().unwrap().to_owned()
    }

    /// What the client gets once alice has logged in.
    async fn tokens_of_alice(&mut self) -> serde_json::Value {
        let code = self.tell(&format!("code {ORDERS}")).await;
        let redirect = ("redirect_uri", "https://shop.example.com/callback");
        self.grant(&[("grant_type", "authorization_code"), ("code", &code), redirect, ("resource", ORDERS)]).await
    }

    async fn fetches(&mut self) -> u32 {
        self.tell("fetches").await.parse().unwrap()
    }

    async fn introspections(&mut self) -> u32 {
        self.tell("introspections").await.parse().unwrap()
    }

    /// Opaque tokens for the orders, asked about by this client.
    fn asking(&self, client: ClientAuthentication) -> IntrospectionBuilder {
        Introspection::builder()
            .issuer(&self.issuer)
            .endpoint(format!("{}/token/introspection", self.issuer))
            .http(HttpsFetch::builder().roots(&self.authority).keep_connections(4).build().unwrap())
            .client(client)
            .audience("orders-api")
    }

    /// Revokes a token (RFC 7009), as the client that has it.
    async fn revoke(&self, token: &str) {
        let request = self.http.post(format!("{}/token/revocation", self.issuer));
        let request = request.basic_auth(CLIENT.0, Some(CLIENT.1)).form(&[("token", token)]);
        assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    }

    /// The keys by discovery, and who trusts them for this audience.
    fn trusting(&self, audience: &str, clock: impl Clock) -> (JwtAuthenticator, LiveKeys) {
        let http = HttpsFetch::with_roots(&self.authority).unwrap();
        let keys = LiveKeys::discover(&self.issuer).http(http).clock(clock).build().unwrap();
        let issuer = Issuer::with_keys(&self.issuer, keys.clone()).access_tokens(audience).algorithms(ALGORITHMS);
        (JwtAuthenticator::builder().issuer(issuer).build().unwrap(), keys)
    }
}

/// Leaves a certificate for `localhost` and its key in the folder. The authority that signed it.
fn certify(folder: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), pair.serialize_pem()).unwrap();
    authority.pem()
}

/// A client of the token endpoint, which trusts this authority alone.
fn client(authority: &str) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().pool_max_idle_per_host(0);
    builder.timeout(Duration::from_secs(30)).build().unwrap()
}

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

const OPAQUE: &str = "urn:orders-api:opaque";
const SECRET: &str = "a secret: of the API, 100 % for tests";

fn by_secret() -> ClientAuthentication {
    ClientAuthentication::basic("orders-api", &Secret::from(SECRET.to_owned())).unwrap()
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn opaque_tokens_are_good_until_they_are_revoked_and_the_time_is_over() {
    let mut provider = Provider::start().await;
    let clock = clock();
    // It leaves `sub` out of the tokens that clients get for themselves.
    let tokens = provider.asking(by_secret()).clients_without_sub().build().unwrap();
    let of = async |token: &str| status(&tokens.verify(token, clock.now()).await);
    let (token, other) = (provider.token(OPAQUE).await, provider.token(OPAQUE).await);
    assert!(!token.contains('.'));
    let service = AuthnLayer::new(tokens.clone()).dangerous_plain_http().layer(Probe::default());
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
    clock.advance(Duration::from_secs(2));
    assert_eq!((of(&token).await, provider.introspections().await), (401, 3));
    assert_eq!(of(&other).await, 200, "of the same client, and not revoked");
    // Who wants to know at once.
    let fresh = provider.asking(by_secret()).clients_without_sub().without_cache().build().unwrap();
    assert_eq!(status(&fresh.verify(&other, clock.now()).await), 200);
    provider.revoke(&other).await;
    assert_eq!(status(&fresh.verify(&other, clock.now()).await), 401);
}

#[tokio::test]
#[ignore = "needs Node.js with oidc-provider; tests/run installs it"]
async fn what_its_introspection_says_of_other_tokens_is_refused() {
    let mut provider = Provider::start().await;
    let tokens = provider.asking(by_secret()).build().unwrap();
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
    let clients = provider.asking(by_secret()).clients_without_sub().jwts_too().build().unwrap();
    assert_eq!(of(&clients, &billing).await, 401, "another audience");
    assert_eq!(of(&clients, granted["id_token"].as_str().unwrap()).await, 401, "an ID token");
    let jwt = provider.token(ORDERS).await;
    assert_ne!(of(&clients, &jwt).await, 200, "it does not introspect what it does not keep");

    // Who shows it another secret than ours learns nothing, and that is nobody's fault but ours.
    let wrong = ClientAuthentication::basic("orders-api", &Secret::from("guessed".to_owned())).unwrap();
    let verdict = provider.asking(wrong).build().unwrap().verify(access, now()).await;
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
        let tokens = provider.asking(client).clients_without_sub().build().unwrap();
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
    let tokens = by_shape(jwt, provider.asking(by_secret()).clients_without_sub().build().unwrap()).unwrap();
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
