use std::{io, net::SocketAddr, num::NonZeroUsize, time::Duration};

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};

use super::accepting::{Accepting, Handshake, HandshakeFailures, Source, announced};
use crate::{client::Connection, error::ConfigError, evidence::ProxyProtocol};

/// Accepts connections that a proxy passes on with the PROXY protocol, version 2, and that carry no TLS of their own: the
/// proxy ends it, and says so (`PP2_TYPE_SSL`; HAProxy: `send-proxy-v2-ssl`). Without its word a connection is plain HTTP.
///
/// For `axum::serve` and for hyper. Headers are read beside each other and beside `accept`, within the bounds of
/// [`TlsListener`](super::TlsListener); the networks that are counted are the proxies' own. A connection from somebody else, or without a header, is dropped and
/// [counted](Self::failed_handshakes). Connections have `TCP_NODELAY`, as those of `TlsListener`.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use portcullis::{evidence::ProxyProtocol, tls::ProxiedListener};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let app = Router::new().route("/health", get(async || "ok"));
/// let listener = ProxiedListener::bind("0.0.0.0:8080", ProxyProtocol::v2(["10.0.12.7"])?).await?;
/// portcullis::axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ProxiedListener {
    accepting: Accepting<ProxyHandshake>,
}

#[derive(Clone)]
struct ProxyHandshake(ProxyProtocol);

impl ProxiedListener {
    /// Binds an address, and believes these proxies.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub async fn bind(address: impl ToSocketAddrs, proxies: ProxyProtocol) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, proxies))
    }

    /// Takes over a listener that is bound.
    #[must_use]
    pub fn new(listener: TcpListener, proxies: ProxyProtocol) -> Self {
        Self { accepting: Accepting::new(listener, ProxyHandshake(proxies)) }
    }

    /// How many headers are waited for at once, and how long for each, 100 ms to 120 s; the one that takes longer is dropped and
    /// counted. Default 256 and 10 s: silent clients must not keep others out.
    ///
    /// # Errors
    /// If the time is shorter or longer, or there may be more than 4 096.
    pub fn with_handshake_bounds(mut self, most: NonZeroUsize, timeout: Duration) -> Result<Self, ConfigError> {
        self.accepting.set_bounds(most, timeout)?;
        Ok(self)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.local_addr()
    }

    /// The count of connections that were dropped; it goes on while the listener serves.
    #[must_use]
    pub fn failed_handshakes(&self) -> HandshakeFailures {
        self.accepting.failures()
    }

    /// Waits for the next connection whose header was read.
    ///
    /// # Cancel safety
    /// It may be dropped and called again; nothing is lost.
    pub async fn accept(&mut self) -> (TcpStream, Connection) {
        self.accepting.accept().await
    }
}

impl Handshake for ProxyHandshake {
    type Io = TcpStream;

    /// Whose it is comes with the last byte that is waited for.
    async fn run(self, mut stream: TcpStream, peer: SocketAddr, _: Source) -> io::Result<(TcpStream, Connection)> {
        let (connection, _) = announced(Some(&self.0), &mut stream, peer).await?;
        Ok((stream, connection))
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for ProxiedListener {
    type Io = TcpStream;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.accepting.accept().await
    }

    /// The address that it is bound to, in the shape of a connection; see [`ProxiedListener::local_addr`].
    fn local_addr(&self) -> io::Result<Connection> {
        Self::local_addr(self).map(Connection::plain)
    }
}

#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, ProxiedListener>> for Connection {
    fn connect_info(stream: axum::serve::IncomingStream<'_, ProxiedListener>) -> Self {
        stream.remote_addr().clone()
    }
}
