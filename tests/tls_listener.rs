//! TLS on loopback, from the handshake to the handler.

#![expect(clippy::unwrap_used, reason = "helpers of tests, in a crate of their own")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use portcullis::{
    Connection, TlsVersion,
    tls::{HandshakeFailures, ServerCertificate, TlsLayer, TlsListener},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

struct Server {
    address: SocketAddr,
    certificate: String,
    failures: HandshakeFailures,
}

fn app() -> Router {
    let whoami = |ConnectInfo(connection): ConnectInfo<Connection>| async move {
        format!("{:?} {}", connection.tls_version(), connection.peer().unwrap())
    };
    Router::new().route("/", get(whoami)).layer(TlsLayer::require())
}

async fn serve(http2: bool) -> Server {
    let certificate = ServerCertificate::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let pem = certificate.certificate_pem();
    let mut listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    if http2 {
        listener = listener.with_http2();
    }
    let server =
        Server { address: listener.local_addr().unwrap(), certificate: pem, failures: listener.failed_handshakes() };
    let service = app().into_make_service_with_connect_info::<Connection>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    server
}

impl Server {
    fn connector(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector(versions, alpn).connect(name, tcp).await.unwrap()
    }

    /// What the handler says, and the client's own address.
    async fn ask(&self, versions: &[&'static SupportedProtocolVersion]) -> (String, SocketAddr) {
        let stream = self.connect(versions, &["http/1.1"]).await;
        let own = stream.get_ref().0.local_addr().unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("/").header("host", "localhost").body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (String::from_utf8(body.to_vec()).unwrap(), own)
    }

    async fn works(&self) {
        let (answer, own) = self.ask(&[&TLS13]).await;
        assert_eq!(answer, format!("{:?} {own}", Some(TlsVersion::Tls13)));
    }
}

#[tokio::test]
async fn the_handler_sees_peer_and_version() {
    let server = serve(false).await;
    server.works().await;
    let (answer, own) = server.ask(&[&TLS12]).await;
    assert_eq!(answer, format!("{:?} {own}", Some(TlsVersion::Tls12)));
    let (answer, _) = server.ask(&[&TLS12, &TLS13]).await;
    assert!(answer.contains("Tls13"), "{answer}");
    assert_eq!(server.failures.count(), 0);
}

#[tokio::test]
async fn an_ordinary_client_that_trusts_the_certificate_works() {
    let server = serve(true).await;
    // Installed for reqwest; the listener takes no notice of it.
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(server.certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root).no_proxy().build().unwrap();
    let url = format!("https://localhost:{}/", server.address.port());
    let client = client.get(&url).send().await.unwrap();
    assert_eq!((client.status().as_u16(), client.version()), (200, http::Version::HTTP_2));
    assert!(client.text().await.unwrap().starts_with("Some(Tls13) 127.0.0.1:"));

    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(stranger.get(&url).send().await.is_err(), "nobody trusts the certificate unasked");
}

#[test]
fn a_self_signed_certificate_is_for_names_and_addresses() {
    for names in [&["localhost", "127.0.0.1", "::1"][..], &["*.localhost", "api.example.com"]] {
        assert!(ServerCertificate::self_signed(names).is_ok(), "{names:?}");
    }
    for name in ["https://localhost:8443/", "localhost:8443", "a b", "", "*", "*.127.0.0.1", "[::1]"] {
        let error = ServerCertificate::self_signed(["localhost", name]).unwrap_err();
        assert_eq!(error.value(), format!("{name:?}"));
    }
}

#[tokio::test]
async fn http2_is_offered_only_on_request() {
    for (http2, offers, agreed) in [
        (false, &["h2", "http/1.1"][..], Some(&b"http/1.1"[..])),
        (true, &["h2", "http/1.1"], Some(b"h2")),
        (true, &["http/1.1"], Some(b"http/1.1")),
        (false, &[], None),
    ] {
        let stream = serve(http2).await.connect(&[&TLS13], offers).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{http2} {offers:?}");
    }
}

/// Where it is on, the second small message of a stream waits for the client's delayed acknowledgement of the first: 40 ms.
#[tokio::test]
async fn nagles_algorithm_is_off() {
    let certificate = ServerCertificate::self_signed(["localhost"]).unwrap();
    let pem = certificate.certificate_pem();
    let mut listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Server { address, certificate: pem, failures: listener.failed_handshakes() };
    let versions: [&SupportedProtocolVersion; 1] = [&TLS13];
    let ((stream, _), _) = tokio::join!(listener.accept(), client.connect(&versions, &[]));
    assert!(stream.get_ref().0.nodelay().unwrap());
}

#[tokio::test]
async fn plain_http_gets_no_http_and_hurts_nobody() {
    let server = serve(false).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may come as a reset, with or without a TLS alert before it.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"), "{answer:?}");
    server.works().await;
    assert_eq!(server.failures.count(), 1);
}

#[tokio::test]
async fn an_older_version_does_not_get_through() {
    let server = serve(false).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    // A ClientHello of TLS 1.1: version 3.2, no session, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, no compression, one
    // extension: signature_algorithms with ecdsa_secp256r1_sha256.
    let mut hello = vec![22, 3, 1, 0, 55, 1, 0, 0, 51, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    client.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    // A fatal alert (RFC 8446 §6.2), protocol_version: it was understood, and refused for its version.
    assert_eq!((answer.first(), answer.get(5..)), (Some(&21), Some(&[2, 70][..])));
    server.works().await;
    assert_eq!(server.failures.count(), 1);
}

#[tokio::test]
async fn silent_clients_block_nobody_even_in_numbers() {
    let server = serve(false).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    server.works().await;
    // The listener takes 256 at once, so some of the oldest are gone, and the newest are still waited for.
    let mut end = [0; 1];
    assert!(matches!(silent[0].read(&mut end).await, Ok(0) | Err(_)), "the oldest is given up");
    let waiting = silent.last().unwrap().try_read(&mut end);
    assert_eq!(waiting.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the newest is waited for");
    assert!((45..=50).contains(&server.failures.count()), "{}", server.failures.count());
}

/// Linux has all of 127.0.0.0/8 on its loopback.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flood_of_one_address_does_not_keep_a_slow_client_out() {
    let server = serve(false).await;
    let slow = tokio::net::TcpSocket::new_v4().unwrap();
    slow.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let slow = slow.connect(server.address).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // Whoever answers this has taken all of them.
    server.works().await;
    assert!(server.failures.count() > 300, "{}", server.failures.count());
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = server.connector(&[&TLS13], &["http/1.1"]).connect(name, slow).await;
    assert!(handshake.is_ok(), "the slow one is still waited for");
}

#[tokio::test]
async fn a_handshake_ends_after_ten_seconds() {
    let certificate = ServerCertificate::self_signed(["localhost"]).unwrap();
    let mut listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let failures = listener.failed_handshakes();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::time::pause();
    let accepted = tokio::time::timeout(Duration::from_secs(9), axum::serve::Listener::accept(&mut listener)).await;
    assert!(accepted.is_err());
    assert_eq!(failures.count(), 0);
    let accepted = tokio::time::timeout(Duration::from_secs(2), axum::serve::Listener::accept(&mut listener)).await;
    assert!(accepted.is_err());
    assert_eq!(failures.count(), 1);
}

#[tokio::test]
async fn dropping_the_listener_drops_its_handshakes() {
    let certificate = ServerCertificate::self_signed(["localhost"]).unwrap();
    let mut listener = TlsListener::bind("127.0.0.1:0", certificate).await.unwrap();
    let mut silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    {
        let accept = axum::serve::Listener::accept(&mut listener);
        tokio::select! {
            biased;
            _ = accept => panic!("nobody said anything"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(listener);
    let mut end = [0; 1];
    assert!(matches!(silent.read(&mut end).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_plain_listener_tells_the_peer_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app().into_make_service_with_connect_info::<Connection>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "known to be plain, so refused and not misconfigured: {answer}");
}
