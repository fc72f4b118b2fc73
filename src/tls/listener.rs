use std::{fmt, io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ProtocolVersion, ServerConnection},
    server::TlsStream,
};

use super::{
    accepting::{Accepting, Handshake, HandshakeFailures, Source, announced},
    certificate::ServerCertificate,
    client_roots::ClientRoots,
    client_roots_reload::ClientRootsReloader,
    reload::CertificateReloader,
    terms::{Clients, Terms},
};
use crate::{
    client::{ClientCertificate, Connection, TlsVersion},
    error::ConfigError,
    evidence::ProxyProtocol,
};

/// Accepts TLS connections, for `axum::serve` and for hyper.
///
/// TLS 1.3, or 1.2 (RFC 9325 §3.1.1); no early data; ALPN offers `http/1.1`, and `h2` after
/// [`with_http2`](Self::with_http2). Each [`Connection`] knows its peer, TLS version, cipher suite, server name, ALPN, and
/// the client's certificate if there is one. `portcullis::axum::serve`, or
/// `into_make_service_with_connect_info::<Connection>()`, hands it to the requests; with hyper, do it as the
/// [module docs](crate::tls) show.
///
/// Handshakes run beside each other and beside `accept`: a client that stays silent keeps nobody waiting. Each has 10 s.
/// At most 256 run at once; while more come, the oldest of the network that has the most is given up, so that silent clients
/// keep out nobody but themselves. A network is an IPv4 address or an IPv6 /64; of IPv6 networks those of the /48 that has the
/// most. Behind the PROXY protocol it is the network that the header tells, once that is read. A handshake that fails is dropped and
/// [counted](Self::failed_handshakes), and the log says why at `debug`. Dropping the listener ends them all.
///
/// Connections have `TCP_NODELAY` (Nagle's algorithm is off): a small message goes out at once. [`accept`](Self::accept) hands out the
/// socket, for who wants another option of it.
pub struct TlsListener {
    accepting: Accepting<TlsHandshake>,
    terms: Arc<Terms>,
}

#[derive(Clone)]
struct TlsHandshake {
    terms: Arc<Terms>,
    proxies: Option<ProxyProtocol>,
}

impl TlsListener {
    /// Binds an address.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub async fn bind(address: impl ToSocketAddrs, certificate: ServerCertificate) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, certificate))
    }

    /// Takes over a listener that is bound.
    #[must_use]
    pub fn new(listener: TcpListener, certificate: ServerCertificate) -> Self {
        let terms = Arc::new(Terms::new(certificate));
        let handshake = TlsHandshake { terms: Arc::clone(&terms), proxies: None };
        Self { accepting: Accepting::new(listener, handshake), terms }
    }

    /// Offers HTTP/2 as well, and prefers it. Needs axum's feature `http2`; without it such connections fail.
    ///
    /// Not to say it keeps no HTTP/2 out: a client that sends no ALPN may begin to speak it, and a server that knows both, as axum's with
    /// that feature, answers.
    #[must_use]
    pub fn with_http2(self) -> Self {
        self.terms.offer_http2();
        self
    }

    /// Asks every client for a certificate that one of these roots issued, and refuses the handshake of who has none.
    ///
    /// It is verified in each handshake, for no session is resumed then. A connection that is open stays so when the certificate ends;
    /// [`ClientCertAuthenticator`](crate::client_cert::ClientCertAuthenticator) looks at each request.
    #[must_use]
    pub fn require_client_certificates(self, roots: &ClientRoots) -> Self {
        self.terms.ask_clients(Clients::Required(roots.clone()));
        self
    }

    /// Asks every client for a certificate that one of these roots issued, and takes who has none as well. A certificate
    /// of somebody else's refuses the handshake. No session is resumed, as with
    /// [`require_client_certificates`](Self::require_client_certificates).
    #[must_use]
    pub fn accept_client_certificates(self, roots: &ClientRoots) -> Self {
        self.terms.ask_clients(Clients::Accepted(roots.clone()));
        self
    }

    /// Expects the PROXY protocol, version 2, before each handshake, and connections from these proxies alone.
    ///
    /// If the header tells of TLS (`PP2_TYPE_SSL`), the proxy ended the client's and began its own: then only its word
    /// about the client counts, and of this handshake nothing. If it does not, the proxy is taken to pass the client's TLS through.
    /// A proxy that ends it and tells nothing (HAProxy's `send-proxy-v2` without `-ssl`) makes all its clients secure, those of plain HTTP
    /// too, and its own certificate theirs: do not use one.
    #[must_use]
    pub fn with_proxy_protocol(mut self, proxies: ProxyProtocol) -> Self {
        self.accepting.handshake.proxies = Some(proxies);
        self
    }

    /// How many handshakes run at once, and how long each may take, 100 ms to 120 s, the PROXY protocol included; the one that takes
    /// longer is dropped and counted. Default 256 and 10 s: silent clients must not keep others out.
    ///
    /// # Errors
    /// If the time is shorter or longer, or there may be more than 4 096.
    pub fn with_handshake_bounds(mut self, most: NonZeroUsize, timeout: Duration) -> Result<Self, ConfigError> {
        self.accepting.set_bounds(most, timeout)?;
        Ok(self)
    }

    /// Changes the certificate while the listener serves.
    #[must_use]
    pub fn certificate_reloader(&self) -> CertificateReloader {
        self.terms.certificate().clone()
    }

    /// Changes the authorities of clients while the listener serves.
    #[must_use]
    pub fn client_roots_reloader(&self) -> ClientRootsReloader {
        ClientRootsReloader::new(Arc::clone(&self.terms))
    }

    /// The address that it is bound to; the port is the one that the system chose, if it was bound to port 0.
    ///
    /// ```
    /// use portcullis::tls::{ServerCertificate, TlsListener};
    ///
    /// # #[cfg(feature = "tls-self-signed")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TlsListener::bind("127.0.0.1:0", ServerCertificate::self_signed(["localhost"])?).await?;
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tls-self-signed"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.local_addr()
    }

    /// The count of handshakes that failed, timed out or were given up; it goes on while the listener serves.
    #[must_use]
    pub fn failed_handshakes(&self) -> HandshakeFailures {
        self.accepting.failures()
    }

    /// Waits for the next connection whose handshake is done.
    ///
    /// # Cancel safety
    /// It may be dropped and called again; nothing is lost.
    pub async fn accept(&mut self) -> (TlsStream<TcpStream>, Connection) {
        self.accepting.accept().await
    }
}

impl Handshake for TlsHandshake {
    type Io = TlsStream<TcpStream>;

    async fn run(self, mut stream: TcpStream, peer: SocketAddr, source: Source) -> io::Result<(Self::Io, Connection)> {
        let (announced, tells_tls) = announced(self.proxies.as_ref(), &mut stream, peer).await?;
        if let Some(client) = announced.peer() {
            source.is(client.ip());
        }
        let stream = TlsAcceptor::from(self.terms.config()).accept(stream).await?;
        let own = announced.peer().and_then(|client| Connection::from_rustls(client, stream.get_ref().1));
        let own = own.ok_or_else(|| io::Error::other("the client is not known"))?;
        let connection = match announced.announcing_proxy() {
            // Also without an address: this handshake is the proxy's, and so is its certificate.
            _ if tells_tls => announced,
            Some(proxy) => own.announced_by(proxy),
            None => own,
        };
        Ok((stream, connection))
    }
}

impl Connection {
    /// The facts of a rustls connection whose handshake is done: version, cipher suite, server name, ALPN, and the
    /// client's certificate. None if it is not done, or the version is none that is known.
    #[must_use]
    pub fn from_rustls(peer: SocketAddr, connection: &ServerConnection) -> Option<Self> {
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            _ => return None,
        };
        let mut facts = Self::tls(peer, version);
        if let Some(suite) = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()) {
            facts = facts.with_cipher_suite(suite);
        }
        if let Some(name) = connection.server_name() {
            facts = facts.with_server_name(name);
        }
        if let Some(protocol) = connection.alpn_protocol() {
            facts = facts.with_alpn(protocol);
        }
        if let Some([certificate, ..]) = connection.peer_certificates() {
            facts = facts.with_client_certificate(ClientCertificate::from_der(certificate));
        }
        Some(facts)
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.accepting.accept().await
    }

    /// The address that it is bound to, in the shape of a connection; see [`TlsListener::local_addr`].
    fn local_addr(&self) -> io::Result<Connection> {
        Self::local_addr(self).map(Connection::plain)
    }
}

#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, TlsListener>> for Connection {
    fn connect_info(stream: axum::serve::IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener").field("accepting", &self.accepting).finish_non_exhaustive()
    }
}
