//! What it costs to know who is calling, and to insist on HTTPS; and the listener next to axum-server's.
//!
//! `cargo bench --bench transport --all-features` prints tables of ratios (see `ratio/mod.rs`); `-- layers` and `-- listener` print one of
//! them. `-- count NAME REQUESTS` sends so many requests through one contender, in a function that callgrind counts;
//! `benches/instructions` does so for all of them.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::Request;
use hyper_util::rt::TokioIo;
use portcullis::{
    ClientCertificate, Connection, TlsVersion,
    authn::AuthnLayer,
    client_cert::ClientCertAuthenticator,
    evidence::{EvidenceLayer, TrustedProxies},
    tls::{Hsts, ServerCertificate, TlsLayer, TlsListener},
};
use ratio::{Contender, Timed, base, router};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, client::Resumption, pki_types::ServerName},
};
use tower::Layer;

/// A request whose connection has every fact.
fn with_facts() -> Request<()> {
    let mut params = CertificateParams::new(["billing.internal".to_owned()]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    let connection = Connection::tls("198.51.100.7:52100".parse().expect("an address"), TlsVersion::Tls13)
        .with_server_name("api.example.com")
        .with_alpn(b"http/1.1")
        .with_cipher_suite("TLS13_AES_256_GCM_SHA384")
        .with_client_certificate(ClientCertificate::from_der(certificate.der()));
    let mut request = base();
    request.extensions_mut().insert(connection);
    request
}

/// The same through a trusted proxy, with these fields.
fn proxied(fields: &[(&'static str, &str)]) -> Request<()> {
    let mut request = base();
    request.extensions_mut().insert(Connection::plain("10.0.12.7:40100".parse().expect("an address")));
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    request
}

fn evidence(proxies: TrustedProxies) -> EvidenceLayer {
    EvidenceLayer::new(proxies)
}

/// TLS enforcement with all that it can be asked for.
fn tls() -> TlsLayer {
    let layer = TlsLayer::require().hsts(Hsts::one_year()).minimum_version(TlsVersion::Tls12);
    layer.hosts(["api.example.com"]).expect("a host")
}

fn contenders() -> Vec<Contender> {
    let x_forwarded = || TrustedProxies::x_forwarded(["10.0.12.0/24"]).expect("networks");
    let forwarded = || TrustedProxies::forwarded(["10.0.12.0/24"]).expect("networks");
    let chain = "198.51.100.7, 10.0.12.9, 10.0.12.8";
    let three = proxied(&[("x-forwarded-for", chain), ("x-forwarded-proto", "https")]);
    let three_elements = "for=198.51.100.7;proto=https, for=10.0.12.9;proto=http, for=10.0.12.8;proto=http";
    let clients = ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).expect("a name").build();
    let clients = AuthnLayer::new(clients.expect("an authenticator"));
    vec![
        Contender::new("bare", router(), &with_facts()),
        Contender::new("evidence", evidence(TrustedProxies::none()).layer(router()), &with_facts()),
        Contender::new("evidence+tls", evidence(TrustedProxies::none()).layer(tls().layer(router())), &with_facts()),
        Contender::new("bare-xff", router(), &three),
        Contender::new("evidence-xff", evidence(x_forwarded()).layer(router()), &three),
        Contender::new("evidence-xff+tls", evidence(x_forwarded()).layer(tls().layer(router())), &three),
        Contender::new(
            "evidence-xff-hops",
            evidence(x_forwarded().with_hops(3).expect("hops")).layer(router()),
            &three,
        ),
        Contender::new(
            "evidence-forwarded",
            evidence(forwarded()).layer(router()),
            &proxied(&[("forwarded", three_elements)]),
        ),
        Contender::new(
            "evidence+tls+client-cert",
            evidence(TrustedProxies::none()).layer(tls().layer(clients.layer(router()))),
            &with_facts(),
        ),
    ]
}

fn layers() {
    let contenders = contenders();
    contenders.iter().for_each(Contender::warm_up);
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    ratio::measure(&timed).print("layers around axum's router", "bare");
}

/// One certificate, its client configuration, and two servers with it.
struct Servers {
    runtime: Runtime,
    connector: TlsConnector,
    ours: SocketAddr,
    theirs: SocketAddr,
}

impl Servers {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name").self_signed(&key);
        let certificate = certificate.expect("a certificate");
        let (chain, key) = (certificate.pem(), key.serialize_pem());

        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let _ = tokio_rustls::rustls::crypto::CryptoProvider::install_default((*provider).clone());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];

        let (ours, theirs) = runtime.block_on(async {
            let certificate = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("a certificate");
            let listener = TlsListener::bind("127.0.0.1:0", certificate).await.expect("a port");
            let ours = listener.local_addr().expect("an address");
            tokio::spawn(async move { portcullis::axum::serve(listener, router()).await });

            let config = axum_server::tls_rustls::RustlsConfig::from_pem(chain.into_bytes(), key.into_bytes());
            let handle = axum_server::Handle::new();
            let server = axum_server::bind_rustls(([127, 0, 0, 1], 0).into(), config.await.expect("a configuration"));
            let server = server.handle(handle.clone());
            let service = router().into_make_service_with_connect_info::<SocketAddr>();
            tokio::spawn(async move { server.serve(service).await });
            (ours, handle.listening().await.expect("an address"))
        });
        Self { runtime, connector: TlsConnector::from(Arc::new(config)), ours, theirs }
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(address).await.expect("a connection");
        tcp.set_nodelay(true).expect("no delay");
        self.connector.connect(ServerName::try_from("localhost").expect("a name"), tcp).await.expect("a handshake")
    }

    async fn client(&self, address: SocketAddr) -> hyper::client::conn::http1::SendRequest<Body> {
        let stream = TokioIo::new(self.connect(address).await);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// A connection, its handshake and one request, each time.
    fn handshakes(&self, name: &'static str, address: SocketAddr) -> Timed<'_> {
        Timed {
            name,
            slice: Box::new(move |count| {
                let taken = ratio::time(|| {
                    self.runtime.block_on(async {
                        for _ in 0..count {
                            ask(&mut self.client(address).await).await;
                        }
                    });
                });
                taken / count as f64
            }),
            once: Box::new(|| 0),
        }
    }

    /// One connection, many requests.
    fn requests(&self, name: &'static str, address: SocketAddr) -> Timed<'_> {
        let client = self.runtime.block_on(self.client(address));
        let client = std::cell::RefCell::new(client);
        Timed {
            name,
            slice: Box::new(move |count| {
                let mut client = client.borrow_mut();
                let taken = ratio::time(|| {
                    self.runtime.block_on(async {
                        for _ in 0..count {
                            ask(&mut client).await;
                        }
                    });
                });
                taken / count as f64
            }),
            once: Box::new(|| 0),
        }
    }
}

async fn ask(client: &mut hyper::client::conn::http1::SendRequest<Body>) {
    let request = Request::get("/orders").header("host", "localhost").body(Body::empty()).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
}

fn listener() {
    let servers = Servers::start();
    let (ours, theirs) = ("TlsListener", "axum-server");
    let again = "axum-server again (noise)";
    let timed = [
        servers.handshakes(theirs, servers.theirs),
        servers.handshakes(again, servers.theirs),
        servers.handshakes(ours, servers.ours),
    ];
    ratio::measure(&timed).print("connection, TLS 1.3 handshake, one request", theirs);
    let timed = [
        servers.requests(theirs, servers.theirs),
        servers.requests(again, servers.theirs),
        servers.requests(ours, servers.ours),
    ];
    ratio::measure(&timed).print("one request of an open connection", theirs);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["layers"] => layers(),
        ["listener"] => listener(),
        _ if ratio::counted(&contenders()) => {}
        _ => {
            layers();
            listener();
        }
    }
}
