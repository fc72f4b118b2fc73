//! Examples beside servers that are not ours: an OpenID provider, nginx, Redis.

use http::StatusCode;
use portcullis::{
    SystemClock,
    jwt::Algorithm,
    testing::{
        TestIssuer,
        attack::{Profile, attack_url},
    },
};

#[path = "../support/foreign.rs"]
mod foreign;
#[path = "../support/provider.rs"]
mod provider;
#[path = "../support/redis.rs"]
mod redis;

use super::{
    clean,
    running::{Guide, Running, shell, within},
};

#[tokio::test]
#[ignore = "needs curl, Node.js with oidc-provider and the built examples; tests/run has them"]
async fn openid() {
    let mut provider = provider::Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("authority.pem");
    std::fs::write(&roots, &provider.authority).unwrap();
    let issuer = provider.issuer.clone();
    let arguments = ["--issuer", &issuer, "--audience", "orders-api", "--roots", roots.to_str().unwrap()];
    let mut running = Running::start_with("openid", &arguments, &[]).await;
    let id_token = provider.tokens_of_alice().await["id_token"].as_str().unwrap().to_owned();
    for (name, token) in [
        ("TOKEN", provider.token(provider::ORDERS).await),
        ("ID_TOKEN", id_token),
        ("OTHER", provider.token("urn:billing-api:ES256").await),
    ] {
        running.exports.push((name.to_owned(), token));
    }
    running.try_guide(&Guide::read("openid")).await;

    // Alice lets her client cancel as well.
    let client = provider.http.clone();
    let ask = async |method: &str, path: &str, token: &str| {
        let url = format!("http://{}{path}", running.address);
        let request = client.request(method.parse().unwrap(), url).bearer_auth(token);
        let response = within(path, request.send()).await.unwrap();
        (response.status(), response.text().await.unwrap())
    };
    let alice = provider.tokens_of_alice().await["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ask("DELETE", "/orders/1", &alice).await.0, StatusCode::OK);
    assert_eq!(ask("GET", "/me", &alice).await, (StatusCode::OK, format!("alice of {issuer}\n")));
    running.process.kill().await.unwrap();
}

/// Its keys are fetched, and so key ids that nobody has are asked for within a budget.
#[tokio::test]
#[ignore = "needs the built examples; tests/run has them"]
async fn openid_is_clean() {
    let server = TestIssuer::serve("orders-api", [Algorithm::ES256], SystemClock::new()).await.unwrap();
    let issuer = server.issuer();
    let arguments = ["--issuer", issuer.name(), "--audience", "orders-api", "--dangerous-http-on-loopback"];
    let mut running = Running::start_with("openid", &arguments, &[]).await;
    let token = |scope: &str| issuer.token().subject("alice").scope(scope);
    let profile = Profile::new()
        .public("GET /health")
        .unwrap()
        .route("GET /orders", ["reader"])
        .unwrap()
        .role("reader", token("orders:read"))
        .role("stranger", token("billing:read"));
    let suite = attack_url(&format!("http://{}", running.address), profile).unwrap();
    clean("openid", suite, &["token-key-id", "token-expired", "role-crossing"]).await;
    running.process.kill().await.unwrap();
}

/// The service, and nginx with the file of the example, on ports of their own.
async fn behind_nginx() -> (Running, foreign::Running, [String; 2], tempfile::TempDir) {
    let mut running = Running::start("behind_nginx").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    running.exports.push(("TLS".to_owned(), path.clone()));
    shell(&Guide::read("behind_nginx").certificate.unwrap(), &running.exports).await;
    let (secure, plain) = (foreign::free_port(), foreign::free_port());
    let written = std::fs::read_to_string("examples/behind_nginx/nginx.conf").unwrap();
    let placed = written
        .replace("127.0.0.1:3000", &running.address)
        .replace("127.0.0.1:8443", &format!("127.0.0.1:{secure}"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{plain}"));
    std::fs::write(folder.path().join("nginx.conf"), placed).unwrap();
    let arguments = ["-p", &path, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; master_process off;"];
    let nginx = foreign::Running::start("nginx", &arguments, &[secure, plain]);
    (running, nginx, [format!("localhost:{secure}"), format!("localhost:{plain}")], folder)
}

#[tokio::test]
#[ignore = "needs nginx, curl, openssl and the built examples; tests/run has them"]
async fn behind_nginx_it_knows_who_is_calling() {
    let (mut running, _nginx, [secure, plain], _folder) = behind_nginx().await;
    let addresses = [("localhost:8443", &*secure), ("localhost:8080", &*plain), ("localhost:3000", &*running.address)];
    Guide::read("behind_nginx").try_all(&addresses, &running.exports).await;

    // From another address, which is the client's own: nginx appends it, and what the client wrote before it counts nothing.
    let curl = "curl -sS --interface 127.0.0.2 --cacert $TLS/certificate.pem";
    for spoof in [
        "",
        "-H 'X-Forwarded-For: 203.0.113.7'",
        "-H 'X-Forwarded-For: 203.0.113.7' -H 'X-Forwarded-For: 127.0.0.1'",
        "-H 'Forwarded: for=203.0.113.7;proto=http'",
        "-H 'X-Real-IP: 203.0.113.7' -H 'X-Forwarded-Proto: http'",
    ] {
        let script = format!("{curl} https://{secure}/address {spoof}");
        assert_eq!(shell(&script, &running.exports).await, "127.0.0.2\n", "{spoof}");
    }
    // Around nginx, from an address that is no proxy's.
    let around = format!("{curl} -o /dev/null -w '%{{http_code}}' http://{}/address", running.address);
    assert_eq!(shell(&format!("{around} -H 'X-Forwarded-Proto: https'"), &running.exports).await, "403");
    running.process.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nginx, openssl and the built examples; tests/run has them"]
async fn behind_nginx_is_clean() {
    let (mut running, _nginx, [secure, _], folder) = behind_nginx().await;
    let (_, key) = running.exports.iter().find(|(name, _)| name == "KEY").unwrap();
    let profile = Profile::new().public("GET /address").unwrap().route_for_keys("GET /orders").unwrap();
    let suite = attack_url(&format!("https://{secure}"), profile.api_key("x-api-key", key)).unwrap();
    let roots = std::fs::read_to_string(folder.path().join("certificate.pem")).unwrap();
    clean("behind_nginx", suite.roots(&roots), &["control", "key-altered", "credential-twice"]).await;
    running.process.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs curl, Redis and the built examples; tests/run has them"]
async fn shared_limits() {
    let mut redis = redis::Server::start();
    let address = redis.address();
    let start = async || Running::start_with("shared_limits", &[], &[("REDIS", &address)]).await;
    let (mut first, mut second) = (start().await, start().await);
    let addresses = [("localhost:3000", &*first.address), ("localhost:3001", &*second.address)];
    Guide::read("shared_limits").try_all(&addresses, &[]).await;

    let status = async |process: &Running| {
        let url = format!("http://{}/report", process.address);
        let script = format!("curl -s -o /dev/null -w '%{{http_code}}' {url}");
        shell(&script, &[]).await
    };
    // Half of the quota each, in memory, while it is away; nobody is turned away for that.
    redis.kill();
    for process in [&first, &second] {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(status(process).await);
        }
        assert_eq!(statuses, ["200", "200", "200", "429", "429"]);
    }
    // Back, and with nothing in it: the shared quota is whole again.
    redis.restart();
    for process in [&first, &second] {
        let back = async {
            while status(process).await != "200" {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        within("the shared quota again", back).await;
    }
    first.process.kill().await.unwrap();
    second.process.kill().await.unwrap();
}
