//! What the listeners know of a connection: client certificates, the PROXY protocol, a new server certificate.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[cfg(feature = "tracing")]
#[path = "support/lines.rs"]
mod lines;
#[path = "transport_listener/reload.rs"]
mod reload;
mod support;

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Connection,
    evidence::ProxyProtocol,
    tls::{CertificateReloader, ClientRoots, HandshakeFailures, ProxiedListener, ServerCertificate, TlsListener},
};
use support::certs::{Authority, Issued, client};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};
use tower::{ServiceExt, service_fn};

const LOCAL: [&str; 1] = ["127.0.0.1"];
/// The longest time that a handshake may be told to take.
const LONGEST: Duration = Duration::from_secs(120);

struct Server {
    address: SocketAddr,
    roots: Vec<String>,
    failures: HandshakeFailures,
    reloader: CertificateReloader,
}

/// What is logged, from before the first handshake fails: whether a line is wanted is found out once.
#[cfg(feature = "tracing")]
static LOG: std::sync::LazyLock<lines::Lines> = std::sync::LazyLock::new(|| {
    let said = lines::Lines::default();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), said.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    said
});

/// Answers with what is known of the connection.
fn app() -> Router {
    #[cfg(feature = "tracing")]
    std::sync::LazyLock::force(&LOG);
    Router::new().route(
        "/",
        get(async |ConnectInfo(connection): ConnectInfo<Connection>| {
            let certificate = connection.client_certificate().map(|certificate| certificate.der().unwrap().len());
            format!(
                "{} {:?} {:?} {:?} {:?} {:?} {}",
                connection.peer().unwrap().ip(),
                connection.announcing_proxy(),
                connection.tls_version(),
                connection.server_name(),
                connection.alpn().map(String::from_utf8_lossy),
                connection.cipher_suite(),
                certificate.map_or_else(|| "-".to_owned(), |len| len.to_string()),
            )
        }),
    )
}

async fn serve(change: impl FnOnce(TlsListener) -> TlsListener) -> Server {
    let authority = Authority::new("servers");
    let certificate = authority.server(&["localhost", "other.localhost"]).for_server();
    serve_with(certificate, &authority, change).await
}

async fn serve_with(
    certificate: ServerCertificate,
    authority: &Authority,
    change: impl FnOnce(TlsListener) -> TlsListener,
) -> Server {
    let listener = change(TlsListener::bind("127.0.0.1:0", certificate).await.unwrap());
    let server = Server {
        address: listener.local_addr().unwrap(),
        roots: vec![authority.pem.clone()],
        failures: listener.failed_handshakes(),
        reloader: listener.certificate_reloader(),
    };
    tokio::spawn(async move { portcullis::axum::serve(listener, app()).await });
    server
}

struct Client<'a> {
    name: &'static str,
    identity: Option<&'a Issued>,
    tls12: bool,
    /// What is sent before the handshake.
    before: &'a [u8],
}

const CLIENT: Client<'_> = Client { name: "localhost", identity: None, tls12: false, before: b"" };

impl Server {
    fn connector(&self, client: &Client<'_>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[if client.tls12 { &TLS12 } else { &TLS13 }])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client.identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![issued.der.clone().into()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, client: &Client<'_>) -> io::Result<TlsStream<TcpStream>> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.write_all(client.before).await?;
        self.connector(client).connect(ServerName::try_from(client.name).unwrap(), tcp).await
    }

    /// What the handler says. In TLS 1.3 a refused certificate shows only when something is read.
    async fn ask(&self, client: &Client<'_>) -> Option<String> {
        let stream = self.connect(client).await.ok()?;
        let mut sender = http1(stream).await?;
        say(&mut sender).await
    }
}

async fn http1<T>(stream: T) -> Option<SendRequest<Empty<Bytes>>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

async fn say(sender: &mut SendRequest<Empty<Bytes>>) -> Option<String> {
    let request = Request::get("/").header("host", "localhost").body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.ok()?;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_facts_of_a_handshake() {
    let server = serve(|listener| listener).await;
    let answer = server.ask(&CLIENT).await.unwrap();
    let expected =
        r#"127.0.0.1 None Some(Tls13) Some("localhost") Some("http/1.1") Some("TLS13_AES_256_GCM_SHA384") -"#;
    assert_eq!(answer, expected);
    let answer = server.ask(&Client { name: "other.localhost", tls12: true, ..CLIENT }).await.unwrap();
    assert!(answer.contains(r#"Some(Tls12) Some("other.localhost")"#), "{answer}");
    assert!(answer.contains("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), "{answer}");
}

#[tokio::test]
async fn client_certificates() {
    let (ours, theirs) = (Authority::new("clients"), Authority::new("others"));
    let roots = ClientRoots::from_pem(ours.pem.as_bytes()).unwrap();
    let mut expired = client(&["billing.internal"], &[]);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut for_servers = client(&["billing.internal"], &[]);
    for_servers.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let good = ours.issue(&client(&["billing.internal"], &[]));
    let cases = [
        ("ours", Some(good), true, true),
        ("another authority's", Some(theirs.issue(&client(&["billing.internal"], &[]))), false, false),
        ("expired", Some(ours.issue(&expired)), false, false),
        ("a server's", Some(ours.issue(&for_servers)), false, false),
        ("none", None, false, true),
    ];
    let required = serve(|listener| listener.require_client_certificates(&roots)).await;
    let optional = serve(|listener| listener.with_http2().accept_client_certificates(&roots)).await;
    for tls12 in [false, true] {
        for (name, identity, with_required, with_optional) in &cases {
            let client = Client { identity: identity.as_ref(), tls12, ..CLIENT };
            let shown = identity.as_ref().map_or("-".to_owned(), |issued| issued.der.len().to_string());
            for (server, passes) in [(&required, *with_required), (&optional, *with_optional)] {
                let answer = server.ask(&client).await;
                assert_eq!(answer.is_some(), passes, "{name}: {answer:?}");
                assert!(answer.is_none_or(|answer| answer.ends_with(&format!(" {shown}"))), "{name}");
            }
        }
    }
    assert_eq!((required.failures.count(), optional.failures.count()), (8, 6));
}

#[tokio::test]
async fn authorities_of_clients_change_while_the_listener_serves() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let names = client(&["billing.internal"], &[]);
    let (of_old, of_new) = (old.issue(&names), new.issue(&names));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clients.pem");
    std::fs::write(&file, &old.pem).unwrap();
    let mut reloader = None;
    let server = serve(|listener| {
        let listener = listener.require_client_certificates(&ClientRoots::from_pem_file(&file).unwrap()).with_http2();
        reloader = Some(listener.client_roots_reloader());
        listener
    })
    .await;
    let reloader = reloader.unwrap();
    let passes = async || {
        let passes = async |issued| server.ask(&Client { identity: issued, ..CLIENT }).await.is_some();
        (passes(Some(&of_old)).await, passes(Some(&of_new)).await, passes(None).await)
    };
    assert_eq!(passes().await, (true, false, false));
    assert!(!reloader.reload().unwrap(), "it holds the same");

    let stays = server.connector(&Client { identity: Some(&of_old), ..CLIENT });
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut stays = http1(stays.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()).await.unwrap();
    say(&mut stays).await.unwrap();

    std::fs::write(&file, [old.pem.as_str(), new.pem.as_str()].concat()).unwrap();
    assert!(reloader.reload().unwrap());
    assert_eq!(passes().await, (true, true, false));
    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(reloader.reload().unwrap_err().setting(), "client roots");
        assert_eq!(passes().await, (true, true, false), "those before count on");
    }
    std::fs::write(&file, &new.pem).unwrap();
    assert!(reloader.reload().unwrap());
    assert_eq!(passes().await, (false, true, false));
    assert!(say(&mut stays).await.is_some(), "what is open stays open");

    reloader.replace(ClientRoots::from_pem(old.pem.as_bytes()).unwrap()).unwrap();
    assert_eq!(passes().await, (true, false, false));
    assert!(reloader.reload().unwrap_err().to_string().contains("did not come from a file"));
}

#[tokio::test]
async fn authorities_of_clients_are_read_again_at_an_interval() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let of_new = new.issue(&client(&["billing.internal"], &[]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clients.pem");
    std::fs::write(&file, &old.pem).unwrap();
    let mut reloader = None;
    let server = serve(|listener| {
        let listener = listener.require_client_certificates(&ClientRoots::from_pem_file(&file).unwrap());
        reloader = Some(listener.client_roots_reloader());
        listener
    })
    .await;
    let reloader = reloader.unwrap();
    let early = reloader.clone().reload_every(Duration::ZERO).unwrap_err().to_string();
    assert_eq!(early, "reload of client roots: 0ns must be 10 ms to a day");
    let elsewhere = reloader.clone();
    let elsewhere = std::thread::spawn(move || elsewhere.reload_every(Duration::from_secs(1)).unwrap_err().to_string());
    assert!(elsewhere.join().unwrap().contains("needs a tokio runtime"));

    // A real task reads real files: asked again until it did, at most for ten seconds.
    let until = async |done: &dyn Fn() -> bool| {
        let waits = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), waits).await.is_ok());
    };
    reloader.clone().reload_every(Duration::from_millis(20)).unwrap();
    assert_eq!(reloader.failing(), None);
    std::fs::write(&file, "nonsense").unwrap();
    until(&|| reloader.failing().is_some_and(|cause| cause.contains("has no certificate in it"))).await;
    std::fs::write(&file, &new.pem).unwrap();
    until(&|| reloader.failing().is_none()).await;
    assert!(server.ask(&Client { identity: Some(&of_new), ..CLIENT }).await.is_some());

    std::fs::write(&file, "nonsense").unwrap();
    until(&|| reloader.failing().is_some()).await;
    reloader.replace(ClientRoots::from_pem(old.pem.as_bytes()).unwrap()).unwrap();
    std::fs::write(&file, &new.pem).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(reloader.failing(), None, "from memory: there is no file to look at");
    assert!(server.ask(&Client { identity: Some(&of_new), ..CLIENT }).await.is_none(), "and they stay");
}

#[tokio::test]
async fn who_looks_at_authorities_no_more_can_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clients.pem");
    std::fs::write(&file, &Authority::new("clients").pem).unwrap();
    let mut reloader = None;
    let _server = serve(|listener| {
        let listener = listener.require_client_certificates(&ClientRoots::from_pem_file(&file).unwrap());
        reloader = Some(listener.client_roots_reloader());
        listener
    })
    .await;
    let reloader = reloader.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    {
        let _inside = runtime.enter();
        reloader.clone().reload_every(Duration::from_secs(3600)).unwrap();
    }
    assert_eq!(reloader.failing(), None);
    runtime.shutdown_background();
    assert!(reloader.failing().unwrap().contains("nobody looks"));
}

#[tokio::test]
async fn who_asks_for_no_certificates_has_no_authorities_to_change() {
    let mut reloader = None;
    let _server = serve(|listener| {
        reloader = Some(listener.client_roots_reloader());
        listener
    })
    .await;
    let roots = ClientRoots::from_pem(Authority::new("clients").pem.as_bytes()).unwrap();
    let reloader = reloader.unwrap();
    assert!(reloader.replace(roots).unwrap_err().to_string().contains("asks clients for no certificates"));
    assert!(reloader.reload().is_err());
    assert!(reloader.reload_every(Duration::from_secs(1)).unwrap_err().to_string().contains("has no file to look at"));
}

/// rustls verifies no certificate again when a session is resumed.
#[tokio::test]
async fn where_certificates_are_asked_for_no_session_is_resumed() {
    let ours = Authority::new("clients");
    let roots = ClientRoots::from_pem(ours.pem.as_bytes()).unwrap();
    let issued = ours.issue(&client(&["billing.internal"], &[]));
    let with_certificate = issued.der.len().to_string();
    for (name, server, identity, second) in [
        ("none", serve(|listener| listener).await, None, "Resumed"),
        ("required", serve(|listener| listener.require_client_certificates(&roots)).await, Some(&issued), "Full"),
        ("optional", serve(|listener| listener.accept_client_certificates(&roots)).await, Some(&issued), "Full"),
        (
            "and then HTTP/2",
            serve(|listener| listener.require_client_certificates(&roots).with_http2()).await,
            Some(&issued),
            "Full",
        ),
    ] {
        for tls12 in [false, true] {
            let connector = server.connector(&Client { identity, tls12, ..CLIENT });
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let tcp = TcpStream::connect(server.address).await.unwrap();
                let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let certificate = identity.map_or("-", |_| &*with_certificate);
                assert!(answer.ends_with(&format!(" {certificate}")), "{name}: {answer}");
                kinds.push(format!("{:?}", stream.get_ref().1.handshake_kind().unwrap()));
            }
            assert_eq!(kinds, ["Full", second], "{name}, TLS 1.2: {tls12}");
        }
    }
}

/// A PROXY header of version 2 for IPv4.
#[test]
fn roots_without_a_certificate_say_so() {
    for pem in [&b""[..], b"nope", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let error = ClientRoots::from_pem(pem).unwrap_err();
        assert_eq!(error.to_string(), "client roots: (PEM) has no certificate in it");
    }
    let error = ClientRoots::from_pem_file("/nonexistent/ca.pem").unwrap_err();
    assert!(format!("{error:#}").contains("cannot be read: No such file"), "{error:#}");
}

fn proxied(source: [u8; 4], fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + fields.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &source, &[127, 0, 0, 1], &[0xcb, 0x84, 0x01, 0xbb], fields].concat()
}

/// `PP2_TYPE_SSL` of a client that spoke TLS 1.2 to the proxy.
const SSL: &[u8] = b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLSv1.2";
/// The same of one that spoke none.
const NO_SSL: &[u8] = b"\x20\x00\x05\0\0\0\0\0";

#[tokio::test]
async fn the_proxy_protocol_before_tls() {
    let server = serve(|listener| listener.with_proxy_protocol(ProxyProtocol::v2(LOCAL).unwrap())).await;
    let ask = async |before: &[u8]| server.ask(&Client { before, ..CLIENT }).await;
    let answer = ask(&proxied([198, 51, 100, 7], b"")).await.unwrap();
    assert!(answer.starts_with(r#"198.51.100.7 Some(127.0.0.1) Some(Tls13) Some("localhost")"#), "{answer}");
    let answer = ask(&proxied([198, 51, 100, 7], SSL)).await.unwrap();
    assert_eq!(answer, "198.51.100.7 Some(127.0.0.1) Some(Tls12) None None None -", "the proxy's word alone");
    let answer = ask(&proxied([198, 51, 100, 7], NO_SSL)).await.unwrap();
    assert_eq!(answer, "198.51.100.7 Some(127.0.0.1) None None None None -", "it was plain HTTP");
    let answer = ask(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").await.unwrap();
    assert!(answer.starts_with("127.0.0.1 None Some(Tls13)"), "the proxy for itself: {answer}");
    assert_eq!(server.failures.count(), 0);
    for (name, before) in [
        ("none", &b""[..]),
        ("version 1", b"PROXY TCP4 198.51.100.7 127.0.0.1 52100 443\r\n"),
        ("twice", &[proxied([198, 51, 100, 7], b""), proxied([203, 0, 113, 1], b"")].concat()),
        ("garbage", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00"),
    ] {
        assert!(ask(before).await.is_none(), "{name}");
    }
    assert_eq!(server.failures.count(), 4);
}

/// What a proxy says of TLS counts also where it names no address: the handshake that follows is its own.
#[tokio::test]
async fn the_proxy_protocol_without_an_address() {
    let ours = Authority::new("clients");
    let roots = ClientRoots::from_pem(ours.pem.as_bytes()).unwrap();
    let proxies = ProxyProtocol::v2(LOCAL).unwrap();
    let server = serve(|listener| listener.accept_client_certificates(&roots).with_proxy_protocol(proxies)).await;
    let of_proxy = ours.issue(&client(&["proxy.internal"], &[]));
    for (name, family, addresses) in [("unspecified", 0x00, vec![]), ("Unix socket", 0x31, vec![b'/'; 216])] {
        let header = |fields: &[u8]| {
            let block = [&addresses, fields].concat();
            let length = u16::try_from(block.len()).unwrap().to_be_bytes();
            [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, &block].concat()
        };
        let ask = async |before: &[u8]| {
            let client = Client { before, identity: Some(&of_proxy), ..CLIENT };
            server.ask(&client).await.unwrap()
        };
        let plain = "127.0.0.1 None None None None None -";
        assert_eq!(ask(&header(NO_SSL)).await, plain, "{name}: it was plain HTTP");
        assert_eq!(ask(&header(SSL)).await, plain, "{name}: whose TLS it was, nobody says");
        let passed_through = ask(&header(b"")).await;
        assert!(passed_through.starts_with("127.0.0.1 None Some(Tls13)"), "{name}: {passed_through}");
        assert!(passed_through.ends_with(&format!(" {}", of_proxy.der.len())), "{name}: {passed_through}");
    }
    assert_eq!(server.failures.count(), 0);
}

/// All come from the proxy; those who count are behind it.
#[tokio::test]
async fn a_flood_behind_a_proxy_keeps_out_nobody_else_behind_it() {
    let server = serve(|listener| {
        let bounded = listener.with_handshake_bounds(NonZeroUsize::new(16).unwrap(), LONGEST).unwrap();
        bounded.with_proxy_protocol(ProxyProtocol::v2(LOCAL).unwrap())
    })
    .await;
    let announce = async |source| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&proxied(source, b"")).await.unwrap();
        stream
    };
    let slow = announce([198, 51, 100, 7]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(announce([203, 0, 113, 66]).await);
        // A proxy's header is read before the next connection comes.
        let quick = server.ask(&Client { before: &proxied([192, 0, 2, 1], b""), ..CLIENT }).await;
        assert!(quick.is_some());
    }
    let mut end = [0; 1];
    assert!(matches!(silent[0].read(&mut end).await, Ok(0) | Err(_)), "the oldest of the flood is given up");
    assert_eq!(slow.try_read(&mut end).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the slow one is waited for");
}

#[tokio::test]
async fn a_stranger_may_not_speak_the_proxy_protocol() {
    let server = serve(|listener| listener.with_proxy_protocol(ProxyProtocol::v2(["10.0.12.7"]).unwrap())).await;
    for before in [&b""[..], &proxied([198, 51, 100, 7], b"")] {
        assert!(server.ask(&Client { before, ..CLIENT }).await.is_none());
    }
    assert_eq!(server.failures.count(), 2);
}

/// The client learns little of why, and the count nothing.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn the_log_says_why_a_handshake_failed() {
    let ours = Authority::new("clients");
    let roots = ClientRoots::from_pem(ours.pem.as_bytes()).unwrap();
    let required = serve(|listener| listener.require_client_certificates(&roots)).await;
    let theirs = Authority::new("others").issue(&client(&["billing.internal"], &[]));
    let strangers = ProxyProtocol::v2(["10.0.12.7"]).unwrap();
    let proxies = serve(|listener| listener.with_proxy_protocol(strangers)).await;
    let spoken = serve(|listener| listener.with_proxy_protocol(ProxyProtocol::v2(LOCAL).unwrap())).await;
    for (server, client, cause) in [
        (&required, CLIENT, "peer sent no certificates"),
        (&required, Client { identity: Some(&theirs), ..CLIENT }, "invalid peer certificate: UnknownIssuer"),
        (&proxies, CLIENT, "it is none of those that may speak the PROXY protocol"),
        (&spoken, CLIENT, "does not begin with the signature"),
        (&required, Client { before: b"GET / HTTP/1.1\r\n\r\n", ..CLIENT }, "received corrupt message"),
    ] {
        let before = LOG.here().len();
        assert!(server.ask(&client).await.is_none(), "{cause}");
        let lines: Vec<_> = LOG.here().into_iter().skip(before).collect();
        let is_it = |line: &String| {
            line.starts_with("DEBUG a handshake with 127.0.0.1 failed: ") && line.contains(cause) && line.len() < 520
        };
        assert!(lines.len() == 1 && lines.iter().all(is_it), "{cause}: {lines:?}");
    }
    let before = LOG.here().len();
    assert!(
        required
            .ask(&Client { identity: Some(&ours.issue(&client(&["billing.internal"], &[]))), ..CLIENT })
            .await
            .is_some()
    );
    assert_eq!(LOG.here().len(), before, "of good ones nothing is said");
}

async fn plain(address: SocketAddr, before: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(before).await.ok()?;
    say(&mut http1(stream).await?).await
}

#[tokio::test]
async fn the_proxy_protocol_without_tls() {
    let listener = ProxiedListener::bind("127.0.0.1:0", ProxyProtocol::v2(LOCAL).unwrap()).await.unwrap();
    let (address, failures) = (listener.local_addr().unwrap(), listener.failed_handshakes());
    tokio::spawn(async move { portcullis::axum::serve(listener, app()).await });
    let answer = plain(address, &proxied([198, 51, 100, 7], b"")).await.unwrap();
    assert_eq!(answer, "198.51.100.7 Some(127.0.0.1) None None None None -");
    let fields = [SSL, b"\x02\x00\x09localhost\x01\x00\x02h2"].concat();
    let answer = plain(address, &proxied([198, 51, 100, 7], &fields)).await.unwrap();
    assert_eq!(answer, r#"198.51.100.7 Some(127.0.0.1) Some(Tls12) Some("localhost") Some("h2") None -"#);
    assert!(plain(address, b"").await.is_none(), "no header");
    assert_eq!(failures.count(), 1);
}

#[tokio::test]
async fn a_handshake_has_time_and_not_all_the_time() {
    for (time, taken) in [(0, false), (99, false), (100, true), (120_000, true), (120_001, false)] {
        let listener = ProxiedListener::bind("127.0.0.1:0", ProxyProtocol::v2(LOCAL).unwrap()).await.unwrap();
        let bounded = listener.with_handshake_bounds(NonZeroUsize::MIN, Duration::from_millis(time));
        assert_eq!(bounded.is_ok(), taken, "{time}: {bounded:?}");
    }
    for (most, taken) in [(4_096, true), (4_097, false)] {
        let listener = ProxiedListener::bind("127.0.0.1:0", ProxyProtocol::v2(LOCAL).unwrap()).await.unwrap();
        let bounded = listener.with_handshake_bounds(NonZeroUsize::new(most).unwrap(), LONGEST);
        assert_eq!(bounded.is_ok(), taken, "{most}: {bounded:?}");
    }
}

#[tokio::test]
async fn a_header_that_never_ends_keeps_nobody_waiting() {
    let listener = ProxiedListener::bind("127.0.0.1:0", ProxyProtocol::v2(LOCAL).unwrap()).await.unwrap();
    let listener = listener.with_handshake_bounds(NonZeroUsize::new(2).unwrap(), LONGEST).unwrap();
    let (address, failures) = (listener.local_addr().unwrap(), listener.failed_handshakes());
    tokio::spawn(async move { portcullis::axum::serve(listener, app()).await });
    let header = proxied([198, 51, 100, 7], b"");
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&header[..20]).await.unwrap();
        silent.push(stream);
    }
    assert!(plain(address, &header).await.is_some());
    let mut end = [0; 1];
    assert!(matches!(silent[0].read(&mut end).await, Ok(0) | Err(_)), "the oldest is given up");
    assert!((1..=2).contains(&failures.count()), "{}", failures.count());
}

/// Without axum: each request of a connection gets its facts.
#[tokio::test]
async fn a_server_of_hyper() {
    let authority = Authority::new("servers");
    let mut listener = TlsListener::bind("127.0.0.1:0", authority.server(&["localhost"]).for_server()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (failures, reloader) = (listener.failed_handshakes(), listener.certificate_reloader());
    tokio::spawn(async move {
        loop {
            let (stream, connection) = listener.accept().await;
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(connection.clone()));
                app().oneshot(request)
            });
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await
            });
        }
    });
    let server = Server { address, roots: vec![authority.pem], failures, reloader };
    let answer = server.ask(&CLIENT).await.unwrap();
    assert!(answer.starts_with(r#"127.0.0.1 None Some(Tls13) Some("localhost")"#), "{answer}");
}
