//! The crate's own client over real sockets, on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use portcullis::{
    Clock,
    http_client::{FetchLimits, HttpsFetch},
    jwt::{
        Issuer,
        keys::{KeySource, LiveKeys, LiveKeysBuilder},
    },
    testing::TestClock,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};

use super::origin::{Signer, authenticator, seconds, set_of, status};

/// What the server answers, by path.
type Page = Box<dyn Fn(&Request) -> Response + Send>;

#[derive(Default)]
struct Site {
    page: Mutex<Option<Page>>,
    fetches: AtomicUsize,
    elsewhere: AtomicUsize,
}

impl Site {
    fn show(&self, page: impl Fn(&Request) -> Response + Send + 'static) {
        *self.page.lock().unwrap() = Some(Box::new(page));
    }

    fn show_set(&self, set: String) {
        self.show(move |_| Response::new(set.clone().into()));
    }
}

async fn answer(State(site): State<Arc<Site>>, request: Request) -> Response {
    if request.uri().path() == "/elsewhere" {
        site.elsewhere.fetch_add(1, Ordering::SeqCst);
    }
    site.fetches.fetch_add(1, Ordering::SeqCst);
    assert!(!request.headers().contains_key("cookie"), "no cookies");
    let page = site.page.lock().unwrap();
    page.as_ref().unwrap()(&request)
}

async fn serve() -> (Arc<Site>, SocketAddr) {
    let site = Arc::new(Site::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&site));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (site, address)
}

fn keys_at(address: SocketAddr) -> LiveKeysBuilder {
    LiveKeys::jwks_url(format!("http://{address}/jwks")).dangerous_http_on_loopback()
}

#[tokio::test]
async fn rotation_outage_and_recovery() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let (site, address) = serve().await;
    site.show_set(set_of(&[old.jwk()]));
    let clock = TestClock::at_unix(1_800_000_000);
    let keys = keys_at(address).clock(clock.clone()).build().unwrap();
    let jwt = authenticator(keys.clone());
    assert_eq!(status(jwt.verify_waiting(&old.token(), clock.now()).await), 200);

    site.show_set(set_of(&[new.jwk()]));
    clock.advance(seconds(31));
    assert_eq!(status(jwt.verify_waiting(&new.token(), clock.now()).await), 200);
    assert_eq!(site.fetches.load(Ordering::SeqCst), 2);

    site.show(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    clock.advance(seconds(31));
    assert_eq!(status(jwt.verify_waiting(&old.token(), clock.now()).await), 503);
    assert!(keys.health(clock.now()).cause().unwrap().contains("500"));
    assert_eq!(status(jwt.verify(&new.token(), clock.now())), 200);

    clock.advance(seconds(24 * 3_600));
    assert_eq!(status(jwt.verify_waiting(&new.token(), clock.now()).await), 503, "too old to be trusted");
    site.show_set(set_of(&[new.jwk()]));
    clock.advance(seconds(61));
    assert_eq!(status(jwt.verify_waiting(&new.token(), clock.now()).await), 200);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (site, address) = serve().await;
    site.show(|_| {
        let response = Response::builder().status(302).header("location", "/elsewhere");
        response.header("set-cookie", "a=b").body(Body::empty()).unwrap()
    });
    let keys = keys_at(address).build().unwrap();
    assert!(keys.load().await.unwrap_err().cause().contains("redirects are not followed"));
    assert_eq!(site.elsewhere.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    struct Endless;
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b' '; 16 * 1024])))))
        }
    }
    let (site, address) = serve().await;
    site.show(|_| Response::new(Body::new(Endless)));
    let keys = keys_at(address).build().unwrap();
    let error = keys.load().await.unwrap_err();
    assert!(error.cause().contains("more than 524288 bytes"), "{error}");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    struct Stalled;
    impl http_body::Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            std::task::Poll::Pending
        }
    }
    let (site, address) = serve().await;
    site.show(|_| Response::new(Body::new(Stalled)));
    let limits = FetchLimits::new(Duration::from_millis(50), 1_024);
    let keys = keys_at(address).limits(limits).build().unwrap();
    assert!(keys.load().await.is_err());
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let keys = keys_at(address).build().unwrap();
    let error = keys.load().await.unwrap_err();
    assert!(error.cause().to_lowercase().contains("connect"), "{error}");
}

/// Serves a key set and metadata over TLS 1.3, as `localhost`, with a certificate of an authority of its own.
async fn serve_tls(set: String) -> (SocketAddr, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let issuer = format!("https://localhost:{}", address.port());
    let metadata = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{issuer}/jwks"}}"#);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, set, metadata) = (acceptor.clone(), set.clone(), metadata.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let text = if request.uri().path() == "/jwks" { set.clone() } else { metadata.clone() };
                    async move { Ok::<_, Infallible>(hyper::Response::new(Full::<Bytes>::from(text))) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    (address, authority.pem())
}

#[tokio::test]
async fn tls_with_an_authority_of_its_own() {
    let key = Signer::new(0, "a");
    let (address, authority) = serve_tls(set_of(&[key.jwk()])).await;
    let issuer = format!("https://localhost:{}", address.port());
    let clock = TestClock::at_unix(1_800_000_000);
    let client = HttpsFetch::with_roots(&authority).unwrap();
    let keys = LiveKeys::discover(&issuer).http(client.clone()).clock(clock.clone()).build().unwrap();
    let profile =
        Issuer::with_keys(&issuer, keys).access_tokens("orders-api").algorithms([portcullis::jwt::Algorithm::ES256]);
    let jwt = portcullis::jwt::JwtAuthenticator::builder().issuer(profile).build().unwrap();
    jwt.fail_fast(clock.now()).await.unwrap();
    assert_eq!(status(jwt.verify(&key.token_of(&issuer, 9_000_000_000), clock.now())), 200);

    // The same server, by a name that its certificate does not have, and for a client that does not know the authority.
    let by_address = LiveKeys::jwks_url(format!("https://{address}/jwks")).http(client).build().unwrap();
    assert!(by_address.load().await.is_err());
    let (_, another) = serve_tls(String::new()).await;
    let stranger = HttpsFetch::with_roots(another).unwrap();
    let keys = LiveKeys::jwks_url(format!("{issuer}/jwks")).http(stranger).build().unwrap();
    let error = keys.load().await.unwrap_err();
    assert!(error.cause().to_lowercase().contains("certificate"), "{error}");
}

/// Plain `http` is let go to this machine alone, and would cross the wire to a proxy, with what is secret in it.
#[tokio::test]
async fn what_is_for_this_machine_does_not_go_through_a_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = HttpsFetch::with_proxy(&format!("http://me:secret@{}", proxy.local_addr().unwrap())).unwrap();
    let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut text = vec![0; 1024];
            let count = stream.read(&mut text).await.unwrap();
            asked.send(String::from_utf8_lossy(&text[..count]).into_owned()).unwrap();
        }
    });
    let key = Signer::new(0, "a");
    let (site, address) = serve().await;
    site.show_set(set_of(&[key.jwk()]));
    let of = |url: String| LiveKeys::jwks_url(url).http(client.clone()).dangerous_http_on_loopback().build().unwrap();
    let port = address.port();
    for host in ["127.0.0.1", "localhost", "LocalHost"] {
        of(format!("http://{host}:{port}/jwks")).load().await.unwrap();
    }
    // Nobody is there.
    for host in ["127.255.0.9", "[::1]", "[0:0:0:0:0:0:0:1]"] {
        assert!(of(format!("http://{host}:{port}/jwks")).load().await.is_err());
    }
    assert!(heard.try_recv().is_err());
    assert!(of("https://id.example.com/jwks".to_owned()).load().await.is_err());
    let heard = heard.recv().await.unwrap();
    assert!(heard.starts_with("CONNECT id.example.com:443 "), "{heard}");
    assert!(heard.to_lowercase().contains("proxy-authorization: basic "), "{heard}");
}

#[test]
fn clients_that_are_refused() {
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let good = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap().cert.pem();
    for pem in ["", "nonsense", bad, &format!("{good}{bad}"), &format!("{bad}{good}")] {
        assert!(HttpsFetch::with_roots(pem).is_err(), "{pem:?}");
    }
    assert!(HttpsFetch::with_roots(good.repeat(2)).is_ok());
    assert!(!HttpsFetch::with_proxy("http://me:secret@").unwrap_err().to_string().contains("secret"));
}
