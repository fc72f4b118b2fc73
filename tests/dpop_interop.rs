//! Proofs that a library makes which is not ours, openid-client, for tokens of oidc-provider, over HTTPS and with nonces on both
//! sides. `tests/run` installs the two; `tests/interop/node/dpop_client.mjs` says what the client can be told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

#[path = "support/provider.rs"]
mod provider;

use std::{path::Path, process::Stdio, time::Duration};

use axum::{Router, routing::get};
use portcullis::{
    Principal, SystemClock,
    guard::{authenticated, require},
    jwt::{
        Issuer, JwtAuthenticator,
        bound::{Dpop, Nonces},
    },
    stack::Stack,
    tls::{ServerCertificate, TlsLayer, TlsListener},
};
use provider::{ALGORITHMS, ORDERS, Provider, within};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// A service over HTTPS that takes bound tokens alone, each with a proof that has a nonce of its own. Its URL.
async fn service(provider: &Provider) -> String {
    let folder = provider.folder();
    let certificate = ServerCertificate::from_pem_files(folder.join("cert.pem"), folder.join("key.pem")).unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let nonces = Nonces::random().unwrap().lifetime(Duration::from_secs(120)).unwrap();
    let keys = provider.keys(SystemClock::new());
    let issuer = Issuer::with_keys(&provider.issuer, keys).access_tokens("orders-api").algorithms(ALGORITHMS);
    let dpop = Dpop::at([&url]).unwrap().nonces(nonces).required();
    let app = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(JwtAuthenticator::builder().issuer(issuer).dpop(dpop).build().unwrap())
        .fallback(require(authenticated()))
        .build()
        .unwrap()
        .protect(Router::new().route("/orders", get(orders).post(orders)));
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
    url
}

async fn orders(principal: Principal) -> String {
    principal.subject().to_owned()
}

struct Client {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Client {
    async fn start(provider: &Provider, service: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command.arg(root.join("tests/interop/node/dpop_client.mjs")).arg(root.join("target/interop/node"));
        command.args([&provider.issuer, service]).env("NODE_EXTRA_CA_CERTS", provider.folder().join("authority.pem"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = within("the client", output.next_line()).await.unwrap();
        assert_eq!(first.as_deref(), Some("ready"), "the client does not start; run tests/run once");
        Self { input, output, _process: process }
    }

    async fn tell(&mut self, command: &str) -> Value {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = within(command, self.output.next_line()).await.unwrap();
        let answer = answer.unwrap_or_else(|| panic!("{command}: the client ended"));
        serde_json::from_str(&answer).unwrap()
    }

    /// The answers that it got, and the error of each challenge.
    async fn answers(&mut self, command: &str) -> Vec<(u64, String)> {
        let told = self.tell(command).await;
        let error = |answer: &Value| {
            let challenge = answer["challenge"].as_str().unwrap_or_default();
            challenge.split_once("error=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default().to_owned()
        };
        told.as_array().unwrap().iter().map(|answer| (answer["status"].as_u64().unwrap(), error(answer))).collect()
    }
}

fn said(answers: &[(u16, &str)]) -> Vec<(u64, String)> {
    answers.iter().map(|(status, error)| (u64::from(*status), (*error).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node.js with oidc-provider and openid-client; tests/run installs them"]
async fn a_client_that_is_not_ours_proves_its_key() {
    let provider = Provider::start().await;
    let url = service(&provider).await;
    let mut client = Client::start(&provider, &url).await;
    let ok = said(&[(200, "")]);
    let with_nonce = said(&[(401, "use_dpop_nonce"), (200, "")]);
    let no_proof = said(&[(401, "invalid_dpop_proof")]);
    for (number, algorithm) in ["ES256", "RS256", "PS256"].into_iter().enumerate() {
        let token = client.tell(&format!("token {ORDERS} {algorithm}")).await;
        assert_eq!(token["type"].as_str().map(str::to_lowercase).as_deref(), Some("dpop"), "{algorithm}");

        // Nobody told the client that it needs a nonce: it learns it, and calls again by itself.
        let told = client.answers("call GET /orders").await;
        assert!(number > 0 || told == with_nonce, "{told:?}");
        assert_eq!(told.last(), ok.last(), "{algorithm}: {told:?}");
        // It knows one by now.
        let called = client.tell("call GET /orders?page=2&q=a%20b").await;
        assert_eq!((called.as_array().unwrap().len(), &called[0]["status"]), (1, &200.into()), "{algorithm}: {called}");
        assert_eq!(called[0]["body"], "shop", "{algorithm}");
        assert_eq!(client.answers("call POST /orders").await, ok, "{algorithm}");

        // The proof of the call before is used up, and it is one of POST.
        assert_eq!(client.answers("replay POST /orders").await, no_proof, "{algorithm}");
        assert_eq!(client.answers("replay GET /orders").await, no_proof, "{algorithm}");
        // The token alone is nothing, and neither is it with another key.
        assert_eq!(client.answers("bearer GET /orders").await, said(&[(401, "invalid_token")]), "{algorithm}");
        let stranger = client.answers("stranger GET /orders").await;
        assert_eq!(stranger.last(), said(&[(401, "invalid_token")]).last(), "{algorithm}: {stranger:?}");
        assert_eq!(client.answers("call GET /orders").await, ok, "{algorithm}: its owner goes on");
    }
    // A token for somebody else, with proofs that are right.
    client.tell("token urn:billing-api:ES256 ES256").await;
    let billing = client.answers("call GET /orders").await;
    assert_eq!(billing.last(), said(&[(401, "invalid_token")]).last(), "{billing:?}");
}
