//! A certified OpenID provider, oidc-provider, over HTTPS on loopback. `tests/run` installs it; `tests/interop/node/provider.mjs`
//! starts it and says what it can be told.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use portcullis::{
    Clock,
    http_client::HttpsFetch,
    jwt::{Algorithm, Issuer, JwtAuthenticator, keys::LiveKeys},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

pub const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
pub const ORDERS: &str = "urn:orders-api:ES256";
pub const CLIENT: (&str, &str) = ("shop", "a%20secret%20of%20the%20shop%2C%20for%20tests%20alone");

/// Gives up after a minute: nothing here takes more than a few seconds.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

/// A provider on loopback, and a client of it. It ends with its input.
pub struct Provider {
    pub issuer: String,
    /// The authority of its certificate.
    pub authority: String,
    pub http: reqwest::Client,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    _process: Child,
}

impl Provider {
    pub async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let authority = certify(folder.path());
        let mut command = Command::new("node");
        command.arg(root.join("tests/interop/node/provider.mjs")).arg(root.join("target/interop/node"));
        // It posts to servers of the tests, which have the same certificate.
        command.env("NODE_EXTRA_CA_CERTS", folder.path().join("authority.pem"));
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
            folder,
            _process: process,
        }
    }

    /// Tells it something. Its answer.
    pub async fn tell(&mut self, command: &str) -> String {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = within(command, self.output.next_line()).await.unwrap();
        answer.unwrap_or_else(|| panic!("{command}: the provider ended"))
    }

    /// An answer of the token endpoint.
    pub async fn grant(&self, form: &[(&str, &str)]) -> serde_json::Value {
        let request = self.http.post(format!("{}/token", self.issuer)).basic_auth(CLIENT.0, Some(CLIENT.1));
        let response = request.form(form).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<serde_json::Value>().await.unwrap());
        assert_eq!(status.as_u16(), 200, "{body}");
        body
    }

    /// An access token that the client gets for itself.
    pub async fn token(&self, resource: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", resource), ("scope", "orders:read")];
        self.grant(&form).await["access_token"].as_str().unwrap().to_owned()
    }

    /// What the client gets once alice has logged in.
    pub async fn tokens_of_alice(&mut self) -> serde_json::Value {
        let code = self.tell(&format!("code {ORDERS}")).await;
        let redirect = ("redirect_uri", "https://shop.example.com/callback");
        self.grant(&[("grant_type", "authorization_code"), ("code", &code), redirect, ("resource", ORDERS)]).await
    }

    pub async fn fetches(&mut self) -> u32 {
        self.tell("fetches").await.parse().unwrap()
    }

    pub async fn introspections(&mut self) -> u32 {
        self.tell("introspections").await.parse().unwrap()
    }

    /// Revokes a token (RFC 7009), as the client that has it.
    pub async fn revoke(&self, token: &str) {
        let request = self.http.post(format!("{}/token/revocation", self.issuer));
        let request = request.basic_auth(CLIENT.0, Some(CLIENT.1)).form(&[("token", token)]);
        assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    }

    pub fn keys(&self, clock: impl Clock) -> LiveKeys {
        let http = HttpsFetch::with_roots(&self.authority).unwrap();
        LiveKeys::discover(&self.issuer).http(http).clock(clock).build().unwrap()
    }

    /// The folder with `cert.pem` and `key.pem` for `localhost`, and `authority.pem`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The keys by discovery, and who trusts them for this audience.
    pub fn trusting(&self, audience: &str, clock: impl Clock) -> (JwtAuthenticator, LiveKeys) {
        let keys = self.keys(clock);
        let issuer = Issuer::with_keys(&self.issuer, keys.clone()).access_tokens(audience).algorithms(ALGORITHMS);
        (JwtAuthenticator::builder().issuer(issuer).build().unwrap(), keys)
    }
}

/// Leaves a certificate for `localhost` and its key in the folder. The authority that signed it.
pub fn certify(folder: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own: a certificate that is issued by its own name is a self-signed one to OpenSSL.
    params.distinguished_name.push(DnType::CommonName, "an authority of tests");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), pair.serialize_pem()).unwrap();
    std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    authority.pem()
}

/// A client of the token endpoint, which trusts this authority alone.
pub fn client(authority: &str) -> reqwest::Client {
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
