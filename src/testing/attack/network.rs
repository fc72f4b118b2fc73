//! The suite over the network.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{Answer, Answering, AttackReport, KeyPlace, Profile, Run, requests};
use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// Where a service shows that its owner wants it to be attacked.
pub const OWNERSHIP_PATH: &str = "/.well-known/portcullis-attack-suite";

/// What the suite calls itself.
const USER_AGENT: &str = concat!("portcullis-attack-suite/", env!("CARGO_PKG_VERSION"));
/// At most ten requests a second.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a body that are looked at.
const MAX_BODY: usize = 1 << 20;
const BACKEND: &str = "attack suite";

/// Makes the suite that sends the attacks to the service at this URL: `http://` or `https://`, a host, and a port if it is
/// another one than the scheme's. See [`NetworkSuite::run`].
///
/// # Errors
/// If it is no such URL, or has a path.
pub fn attack_url(base: &str, profile: Profile) -> Result<NetworkSuite, ConfigError> {
    super::super::not_for_production();
    let refuse = |problem| ConfigError::new("attacked URL", base, problem);
    let uri: Uri = base.parse().map_err(|_| refuse("is no URL"))?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(refuse("is neither http:// nor https://")),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(|| refuse("has no host, or a password"))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refuse("has a path: the profile names the paths"));
    }
    let mut secret = [0; 16];
    ::aws_lc_rs::rand::fill(&mut secret).map_err(|_| refuse("needs random numbers, and there are none"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let field = HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("has no host"))?;
    let token = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(NetworkSuite { host, port, field, secure, roots: None, profile, token })
}

/// Attacks that are ready to be sent over the network; made by [`attack_url`].
///
/// What an unsafe method has done cannot be undone, so it sends safe methods (RFC 9110 §9.2.1), and others only to the paths that
/// the [`Profile`] lists them for: `DELETE /orders/1` in the profile means that a good token deletes it. Other spellings of such a
/// path are asked for as well, by nobody and by those who may not. It sends at most ten requests a second, under a
/// `User-Agent` of its own, follows no redirect, and reads at most 1 MiB of a body. HTTP/1.1, a connection for each request,
/// paths as they are written.
///
/// What it cannot be over the network it leaves out: another address in each request, plain HTTP where the URL is `https`, a
/// client certificate, and, where the host is not loopback, a place from which the service might fetch a key (`token-key-url`). All
/// comes from one address, so a limit per client that the suite runs into is the finding `control`: attack a service whose limit is
/// larger than what it sends in that time.
///
/// # Security
/// A host that is not loopback is attacked only if it serves the [token](Self::ownership_token) of this very suite at
/// [`OWNERSHIP_PATH`]. The name is looked up once, and the address that it gave is the one that is attacked.
#[must_use]
pub struct NetworkSuite {
    host: String,
    port: u16,
    field: HeaderValue,
    secure: bool,
    roots: Option<String>,
    profile: Profile,
    token: String,
}

impl fmt::Debug for NetworkSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSuite").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl NetworkSuite {
    /// What a host other than loopback must answer at [`OWNERSHIP_PATH`], as text and alone, before it is attacked. Another one in
    /// each suite.
    #[must_use]
    pub fn ownership_token(&self) -> &str {
        &self.token
    }

    /// Trusts these certificate authorities, in PEM, in place of the system's.
    pub fn roots(mut self, pem: &str) -> Self {
        self.roots = Some(pem.to_owned());
        self
    }

    /// Sends the attacks that the profile gives an occasion for, one after the other. It needs a tokio runtime with its timers.
    ///
    /// # Errors
    /// If there is no such host, the host is not loopback and does not serve the token, or the certificate authorities cannot
    /// be read: no attack was sent then. What happens later is in the report.
    ///
    /// # Cancel safety
    /// It may be dropped; then it stops.
    pub async fn run(self) -> Result<AttackReport, StoreError> {
        self.attack(is_loopback).await
    }

    async fn attack(self, needs_no_leave: fn(IpAddr) -> bool) -> Result<AttackReport, StoreError> {
        let wrong = |what: &str| {
            StoreError::new(StoreErrorKind::Unavailable, BACKEND).caused_by(std::io::Error::other(what.to_owned()))
        };
        let looked_up = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let address = looked_up.ok().and_then(|mut found| found.next()).ok_or_else(|| wrong("no such host"))?;
        let tls = if self.secure { Some(self.tls().map_err(wrong)?) } else { None };
        let way = Arc::new(Way { address, field: self.field.clone(), tls, next: Mutex::new(Instant::now()) });
        if !needs_no_leave(address.ip()) {
            let request = Request::get(OWNERSHIP_PATH).body(Bytes::new()).map_err(|_| wrong("no request"))?;
            let answer = way.send(request).await;
            if answer.status != 200 || answer.body.trim_ascii() != self.token.as_bytes() {
                return Err(wrong("the host does not serve the ownership token, and is not attacked"));
            }
        }
        let send = move |request: Request<Bytes>| -> Answering {
            let way = Arc::clone(&way);
            Box::pin(async move { way.send(request).await })
        };
        let listed = self.profile.listed().collect();
        // Only from this machine it can be reached.
        let key_place = if is_loopback(address.ip()) { KeyPlace::open() } else { None };
        let mut run = Run::new(send, self.profile, Some(listed), key_place);
        requests::all(&mut run).await;
        Ok(run.report)
    }

    fn tls(&self) -> Result<(TlsConnector, ServerName<'static>), &'static str> {
        let mut roots = RootCertStore::empty();
        let certificates = match &self.roots {
            Some(pem) => CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| "the certificate authorities cannot be read")?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err("there are no certificate authorities");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| "TLS cannot be set up")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|_| "the host has no name for a certificate")?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The way to the service.
struct Way {
    address: SocketAddr,
    field: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Before that, no request is sent.
    next: Mutex<Instant>,
}

impl Way {
    async fn send(&self, mut request: Request<Bytes>) -> Answer {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn.checked_add(PAUSE).unwrap_or(turn);
            turn
        };
        sleep_until(turn).await;
        request.headers_mut().insert(header::HOST, self.field.clone());
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        // But for who asks for another protocol there.
        request.headers_mut().entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
        timeout(PATIENCE, self.exchange(request)).await.ok().flatten().unwrap_or_else(Answer::unanswered)
    }

    async fn exchange(&self, request: Request<Bytes>) -> Option<Answer> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        match &self.tls {
            Some((connector, name)) => exchange(connector.connect(name.clone(), stream).await.ok()?, request).await,
            None => exchange(stream, request).await,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
) -> Option<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await;
    let answer = match response {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.ok();
            let trailers = body.as_ref().and_then(|body| body.trailers().cloned());
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Some(Answer::of(head, body, trailers.as_ref()))
        }
        Err(_) => None,
    };
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attacked_is_named_whole() {
        for (base, problem) in [
            ("ftp://localhost", "is neither http:// nor https://"),
            ("localhost", "is neither"),
            ("http://user:password@localhost", "has no host, or a password"),
            ("http://localhost/app", "has a path"),
            ("http://localhost/?x", "has a path"),
            ("http://", "is no URL"),
        ] {
            let error = attack_url(base, Profile::new()).expect_err(base).to_string();
            assert!(error.contains(problem), "{base}: {error}");
        }
        let suites =
            ["https://[::1]:8443", "https://[::1]:8443"].map(|base| attack_url(base, Profile::new()).expect("a URL"));
        let [one, other] = &suites;
        assert_eq!((one.host.as_str(), one.port), ("::1", 8443));
        assert_ne!(one.ownership_token(), other.ownership_token(), "each suite has its own");
    }

    /// On loopback, as if it were not.
    #[tokio::test]
    async fn a_foreign_host_is_attacked_only_if_it_serves_the_token() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let (served, requests) = (Arc::<Mutex<String>>::default(), Arc::new(AtomicUsize::new(0)));
        let (text, count) = (Arc::clone(&served), Arc::clone(&requests));
        let router = axum::Router::new().fallback(async move |uri: Uri| {
            count.fetch_add(1, Ordering::SeqCst);
            if uri.path() == OWNERSHIP_PATH { text.lock().unwrap().clone() } else { String::from("ok") }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let suite = || attack_url(&url, Profile::new()).unwrap();

        for other in [String::new(), suite().ownership_token().to_owned()] {
            *served.lock().unwrap() = other;
            assert!(suite().attack(|_| false).await.is_err());
        }
        assert_eq!(requests.load(Ordering::SeqCst), 2, "it asked for the token, and for nothing else");
        let owned = suite();
        *served.lock().unwrap() = format!("{}\n", owned.ownership_token());
        assert!(owned.attack(|_| false).await.is_ok());
        assert!(suite().attack(|_| true).await.is_ok(), "loopback needs no leave");
    }

    #[test]
    fn loopback_is_told_by_the_address() {
        for (address, loopback) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("192.0.2.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_loopback(address.parse().expect("an address")), loopback, "{address}");
        }
    }
}
