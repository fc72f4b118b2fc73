use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{certificate::ClientCertificate, version::TlsVersion};

/// What the server that accepted a connection knows of it. It goes into the request extensions.
///
/// The crate's own `serve` puts it there. A server of your own does it for each request of a connection; a clone costs at
/// most a reference count:
///
/// ```
/// use portcullis::{Connection, TlsVersion};
///
/// let peer = "198.51.100.7:52100".parse().unwrap();
/// let connection = Connection::tls(peer, TlsVersion::Tls13).with_server_name("api.example.com").with_alpn(b"h2");
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(connection);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    peer: Peer,
    /// Who announced the peer's address in the PROXY protocol.
    proxy: Option<IpAddr>,
    secure: bool,
    tls: Option<TlsVersion>,
    facts: Option<Arc<TlsFacts>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Address(SocketAddr),
    UnixSocket,
    Unknown,
}

/// What a handshake settled, besides the version. Made once for a connection and shared by its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFacts {
    pub(super) server_name: Option<Box<str>>,
    pub(super) alpn: Option<Box<[u8]>>,
    pub(super) cipher_suite: Option<Box<str>>,
    pub(super) certificate: Option<ClientCertificate>,
}

impl Connection {
    /// A connection without TLS.
    #[must_use]
    pub const fn plain(peer: SocketAddr) -> Self {
        Self::new(Peer::Address(peer), None)
    }

    /// A connection over TLS that this process terminated.
    #[must_use]
    pub const fn tls(peer: SocketAddr, version: TlsVersion) -> Self {
        Self::new(Peer::Address(peer), Some(version))
    }

    /// A connection over a Unix socket. It has no address, and is a trusted proxy only where
    /// `TrustedProxies::and_unix_sockets` was said.
    #[must_use]
    pub const fn unix_socket() -> Self {
        Self::new(Peer::UnixSocket, None)
    }

    /// A connection that has no address: memory, for example. Never a trusted proxy.
    #[must_use]
    pub const fn unaddressed() -> Self {
        Self::new(Peer::Unknown, None)
    }

    const fn new(peer: Peer, tls: Option<TlsVersion>) -> Self {
        Self { peer, proxy: None, secure: tls.is_some(), tls, facts: None }
    }

    /// Says that the peer's address is not the socket's: a trusted proxy announced it in the PROXY protocol.
    #[must_use]
    pub const fn announced_by(mut self, proxy: IpAddr) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Says that the peer spoke TLS to the proxy that announced it, in this version if the proxy told.
    #[must_use]
    pub const fn with_tls_at_proxy(mut self, version: Option<TlsVersion>) -> Self {
        (self.secure, self.tls) = (true, version);
        self
    }

    /// Adds the server name that the client asked for (SNI, RFC 6066 §3).
    #[must_use]
    pub fn with_server_name(mut self, name: &str) -> Self {
        self.facts_mut().server_name = Some(name.into());
        self
    }

    /// Adds the protocol that was agreed on (ALPN, RFC 7301), such as `h2`.
    #[must_use]
    pub fn with_alpn(mut self, protocol: &[u8]) -> Self {
        self.facts_mut().alpn = Some(protocol.into());
        self
    }

    /// Adds the cipher suite, by its IANA name or as the TLS library calls it.
    #[must_use]
    pub fn with_cipher_suite(mut self, name: &str) -> Self {
        self.facts_mut().cipher_suite = Some(name.into());
        self
    }

    /// Adds the client's certificate. Its chain must have been **verified** to roots that are meant for clients: nothing
    /// further inside does it again.
    #[must_use]
    pub fn with_client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.facts_mut().certificate = Some(certificate);
        self
    }

    fn facts_mut(&mut self) -> &mut TlsFacts {
        Arc::make_mut(self.facts.get_or_insert_default())
    }

    /// The other end's address: the socket's, or what a trusted proxy announced in the PROXY protocol.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        match self.peer {
            Peer::Address(peer) => Some(peer),
            Peer::UnixSocket | Peer::Unknown => None,
        }
    }

    /// Whether the other end came through a Unix socket.
    #[must_use]
    pub const fn is_unix_socket(&self) -> bool {
        matches!(self.peer, Peer::UnixSocket)
    }

    /// The trusted proxy that announced the peer in the PROXY protocol.
    #[must_use]
    pub const fn announcing_proxy(&self) -> Option<IpAddr> {
        self.proxy
    }

    /// Whether the peer speaks TLS, to this process or to the proxy that announced it.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The TLS version, if this process terminated TLS or the announcing proxy told.
    #[must_use]
    pub const fn tls_version(&self) -> Option<TlsVersion> {
        self.tls
    }

    /// The server name that the client asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.facts.as_ref()?.server_name.as_deref()
    }

    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.facts.as_ref()?.alpn.as_deref()
    }

    /// The cipher suite.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<&str> {
        self.facts.as_ref()?.cipher_suite.as_deref()
    }

    /// The client's certificate, verified by whoever terminated TLS.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.facts.as_ref()?.certificate.as_ref()
    }

    pub(super) const fn facts(&self) -> Option<&Arc<TlsFacts>> {
        self.facts.as_ref()
    }

    pub(super) const fn take_facts(&mut self) -> Option<Arc<TlsFacts>> {
        self.facts.take()
    }
}

/// For `into_make_service_with_connect_info::<Connection>()` over plain TCP.
#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, tokio::net::TcpListener>> for Connection {
    fn connect_info(stream: axum::serve::IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Self::plain(*stream.remote_addr())
    }
}

/// For `into_make_service_with_connect_info::<Connection>()` over a Unix socket.
#[cfg(all(feature = "axum", unix))]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, tokio::net::UnixListener>> for Connection {
    fn connect_info(_: axum::serve::IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        Self::unix_socket()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_shared_by_clones_and_not_by_changes() {
        let peer = "198.51.100.7:1".parse().unwrap();
        let first = Connection::tls(peer, TlsVersion::Tls13).with_server_name("a.example");
        let second = first.clone().with_server_name("b.example").with_alpn(b"h2").with_cipher_suite("TLS13_AES");
        assert_eq!((first.server_name(), first.alpn()), (Some("a.example"), None));
        assert_eq!((second.server_name(), second.alpn()), (Some("b.example"), Some(&b"h2"[..])));
        assert_eq!(second.cipher_suite(), Some("TLS13_AES"));
        assert_ne!(first, second);
    }

    #[test]
    fn a_socket_without_address_is_told_apart() {
        assert!(Connection::unix_socket().is_unix_socket() && Connection::unix_socket().peer().is_none());
        assert!(!Connection::unaddressed().is_unix_socket());
    }
}
