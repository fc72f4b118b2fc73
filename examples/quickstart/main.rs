//! An orders API over HTTPS on loopback that tells allowed from refused for every reason the library knows.
//!
//! `cargo run --example quickstart --features tls-self-signed,api-key-sqlite` serves it and prints `curl` lines to paste;
//! with `-- --self-test` it sends all of those to itself, prints what was expected and what came, and exits non-zero on a
//! difference. Its keys are in `target/quickstart-keys.db`, or in the file that `--keys FILE`
//! names, so that they survive a restart.

mod api;
mod cases;
mod identity;
mod self_test;

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use portcullis::{
    Clock, EXPOSED_HEADERS, SystemClock,
    api_key::{ApiKeyAdmin, ApiKeyAuthenticator, KeyFilter, KeyLife, MAX_PAGE, NewApiKey, SqliteKeyStore},
    audit::{AuditLayer, AuditSink, JsonLines},
    authn::one_of,
    guard::{authenticated, public, require},
    jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
    policy::Rbac,
    rate_limit::Quota,
    stack::Stack,
    tls::{ServerCertificate, TlsLayer, TlsListener},
};
use tokio::net::TcpListener;
use tower::Layer;
use tower_http::cors::CorsLayer;

use crate::identity::{AUDIENCE, ISSUER, Provider};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type BoxError = Box<dyn Error + Send + Sync>;

/// A folder that nobody else has made, for nobody else to read.
fn new_folder() -> std::io::Result<PathBuf> {
    let since = SystemClock::new().now().unix_nanos();
    let folder = std::env::temp_dir().join(format!("portcullis-quickstart-{}-{since}", std::process::id()));
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&folder)?;
    Ok(folder)
}

/// By Ctrl-C, or by whatever runs services here.
async fn told_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::from_args()?;
    let folder = new_folder()?;

    // Who: tokens of one issuer, or API keys.
    let now = SystemClock::new().now();
    let provider = Provider::new()?;
    let tokens = JwtAuthenticator::builder()
        .issuer(
            Issuer::fixed(ISSUER, KeySet::new([Key::from_pem(Algorithm::ES256, provider.public_pem().as_bytes())?])?)
                .access_tokens(AUDIENCE)
                .algorithms([Algorithm::ES256])
                .roles_claim("roles"),
        )
        .build()?;
    let key_file = options.key_file(&folder)?;
    let key_store = Arc::new(SqliteKeyStore::open(&key_file).await?);
    key_store.purge(now, Duration::ZERO).await?;
    let earlier = key_store.list(&KeyFilter::all().active_at(now.unix_seconds()), None, MAX_PAGE).await?.len();
    // The file has hashes alone: a key of an earlier start is accepted, and cannot be shown again.
    let new = NewApiKey::for_subject("billing-job").name("quickstart").role("clerk").lives(KeyLife::For(DAY));
    let keys = ApiKeyAuthenticator::new(Arc::clone(&key_store));
    let (key, _) = keys.issuer().issue(&key_store, new, now).await?; // in the format that `keys` takes

    // What they may do. A permission that the policy does not know fails here, at start.
    let policy = Rbac::from_toml(include_str!("policy.toml"))?;
    let (list, cancel) = (policy.permission("orders:list")?, policy.permission("orders:cancel")?);

    // The stack. The route table is the page that a reviewer reads; what it does not name is refused.
    let audit_file = folder.join("audit.jsonl");
    let audit = Arc::new(JsonLines::open(&audit_file)?);
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(Arc::clone(&audit)))
        .limit_clients(Quota::per_second(200))
        .authenticate(one_of((tokens, keys)))
        // Refilled slowly, so that a flood by hand is refused however slowly it comes.
        .limit_principals(Quota::per_hour(60).burst(20))
        .policy(policy)
        .route("GET /health", public())
        .route("GET /me", require(authenticated()))
        .route("GET /orders", require(list))
        .route("GET /orders/{id}", require(authenticated()))
        .route("DELETE /orders/{id}", require(cancel))
        .build()?;
    let cors = CorsLayer::new().expose_headers(EXPOSED_HEADERS);
    let app = cors.layer(stack.protect(api::router()));

    // HTTPS on loopback; and a plain port, only to show that it is refused.
    let certificate = ServerCertificate::self_signed(["localhost", "127.0.0.1"])?;
    let certificate_file = folder.join("certificate.pem");
    let certificate_pem = certificate.certificate_pem().to_owned();
    std::fs::write(&certificate_file, &certificate_pem)?;
    let secure = TlsListener::new(TcpListener::bind(options.address(0)).await?, certificate);
    let plain = TcpListener::bind(options.address(1)).await?;
    let origins = cases::Origins { secure: secure.local_addr()?.port(), plain: plain.local_addr()?.port() };

    let (stop, _) = tokio::sync::broadcast::channel::<()>(1);
    let mut server = tokio::spawn({
        let (secure, plain) = (portcullis::axum::serve(secure, app.clone()), portcullis::axum::serve(plain, app));
        let (first, second) = (stop.subscribe(), stop.subscribe());
        async move {
            tokio::try_join!(secure.with_graceful_shutdown(told(first)), plain.with_graceful_shutdown(told(second)))
        }
    });

    let cases = cases::all(&provider, &key, now.unix_seconds())?;
    let mut served = None;
    let passed = if options.self_test {
        Some(self_test::run(&cases, origins, &certificate_pem).await?)
    } else {
        println!("orders API: https://localhost:{}", origins.secure);
        println!("keys: {}", key_file.display());
        if earlier > 0 {
            println!("the file was there: {earlier} unexpired of earlier starts are accepted as well as the new one");
        }
        print_guide(&cases, origins, &certificate_file, &audit_file);
        tokio::select! {
            told = told_to_stop() => told?,
            ended = &mut server => served = Some(ended),
        }
        println!("\nfinishing open requests");
        None
    };

    let _ = stop.send(());
    let served = match served {
        Some(ended) => ended,
        None => server.await,
    };
    // First, whatever became of the server.
    audit.flush().await?;
    served??;
    match passed {
        Some(passed) => self_test::conclude(passed, &cases, &audit_file),
        None => {
            println!("audit records: {}", audit_file.display());
            Ok(())
        }
    }
}

struct Options {
    self_test: bool,
    port: u16,
    keys: Option<PathBuf>,
}

impl Options {
    fn from_args() -> Result<Self, BoxError> {
        let mut options = Self { self_test: false, port: 8443, keys: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--self-test" => (options.self_test, options.port) = (true, 0),
                "--port" => options.port = arguments.next().unwrap_or_default().parse()?,
                "--keys" => options.keys = Some(arguments.next().ok_or("--keys needs a file")?.into()),
                other => {
                    let known = "--self-test, --port N and --keys FILE";
                    return Err(format!("unknown argument {other:?}; known are {known}").into());
                }
            }
        }
        Ok(options)
    }

    /// Where the keys are: the same file at every start, but for a self-test. Not in the folder for temporary files, where
    /// others might put one first.
    fn key_file(&self, folder: &Path) -> Result<PathBuf, BoxError> {
        match &self.keys {
            Some(file) => Ok(file.clone()),
            None if self.self_test => Ok(folder.join("keys.db")),
            None => {
                let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
                std::fs::create_dir_all(&target)?;
                Ok(target.join("quickstart-keys.db"))
            }
        }
    }

    /// The HTTPS port, or one above it; any free port if 0 was asked for.
    fn address(&self, above: u16) -> SocketAddr {
        let port = if self.port == 0 { 0 } else { self.port.saturating_add(above) };
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

async fn told(mut stop: tokio::sync::broadcast::Receiver<()>) {
    let _ = stop.recv().await;
}

fn print_guide(cases: &[cases::Case], origins: cases::Origins, certificate: &Path, audit: &Path) {
    println!("certificate: {}", certificate.display());
    println!("audit records: {}\n", audit.display());
    println!("The key and the tokens are shown here once; the service keeps a hash and a public key.\n");
    for case in cases {
        println!("# {} -> {}\n{}\n", case.name, case.expected, case.curl(origins, certificate));
    }
    println!("Ctrl-C ends the service.");
}
