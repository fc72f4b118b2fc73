//! Who is calling, from where and over what: the facts of a connection, and what was concluded from them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The version of TLS that a connection negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// What the server that accepted a connection knows of it. It goes into the request extensions.
///
/// The crate's own `serve` puts it there. A server of your own does it for each request of a connection:
///
/// ```
/// use portcullis::{Connection, TlsVersion};
///
/// let mut request = http::Request::new(());
/// let peer = "198.51.100.7:52100".parse().unwrap();
/// request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    peer: Option<SocketAddr>,
    tls: Option<TlsVersion>,
}

impl Connection {
    /// A connection without TLS.
    #[must_use]
    pub const fn plain(peer: SocketAddr) -> Self {
        Self { peer: Some(peer), tls: None }
    }

    /// A connection over TLS that this process terminated.
    #[must_use]
    pub const fn tls(peer: SocketAddr, version: TlsVersion) -> Self {
        Self { peer: Some(peer), tls: Some(version) }
    }

    /// A connection that has no address: a Unix socket, or memory. Never a trusted proxy.
    #[must_use]
    pub const fn unaddressed() -> Self {
        Self { peer: None, tls: None }
    }

    /// The other end's address.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The TLS version, if this process terminated TLS.
    #[must_use]
    pub const fn tls_version(&self) -> Option<TlsVersion> {
        self.tls
    }
}

/// For `into_make_service_with_connect_info::<Connection>()` over plain TCP.
#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, tokio::net::TcpListener>> for Connection {
    fn connect_info(stream: axum::serve::IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Self::plain(*stream.remote_addr())
    }
}

/// How the client's address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// It is the other end of the connection.
    Connection,
    /// A trusted proxy said so.
    Proxy,
    /// A trusted proxy sent something that does not parse, so this is the proxy's own address.
    MalformedProxyHeader,
}

impl AddressSource {
    /// The word that records show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Proxy => "proxy",
            Self::MalformedProxyHeader => "malformed_proxy_header",
        }
    }
}

/// Who is calling, over what: the one answer that TLS enforcement, limits, address rules and records all use.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientInfo {
    address: Option<IpAddr>,
    source: AddressSource,
    secure: bool,
    tls: Option<TlsVersion>,
    host: Option<Box<str>>,
}

impl ClientInfo {
    /// What the connection alone tells.
    #[must_use]
    pub fn from_connection(connection: Connection) -> Self {
        Self {
            address: connection.peer.map(|peer| peer.ip().to_canonical()),
            source: AddressSource::Connection,
            secure: connection.tls.is_some(),
            tls: connection.tls,
            host: None,
        }
    }

    /// What a trusted proxy tells; the TLS version stays unknown.
    pub(crate) fn from_proxy(address: IpAddr, source: AddressSource, secure: bool, host: Option<Box<str>>) -> Self {
        Self { address: Some(address.to_canonical()), source, secure, tls: None, host }
    }

    /// The client's address, IPv4-mapped IPv6 addresses as IPv4. None for a Unix socket or memory.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The address that a rule may go by: none where it is the proxy's own because its header does not parse, which a client
    /// can bring about to look like a neighbour.
    pub(crate) const fn vouched_address(&self) -> Option<IpAddr> {
        match self.source {
            AddressSource::Connection | AddressSource::Proxy => self.address,
            AddressSource::MalformedProxyHeader => None,
        }
    }

    /// How the address was found.
    #[must_use]
    pub const fn source(&self) -> AddressSource {
        self.source
    }

    /// Whether the client speaks HTTPS: TLS that this process terminated, or a trusted proxy's word.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The TLS version, where this process terminated TLS.
    #[must_use]
    pub const fn tls_version(&self) -> Option<TlsVersion> {
        self.tls
    }

    /// The host that the client asked for, where a trusted proxy tells.
    #[must_use]
    pub fn forwarded_host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("address", &self.address)
            .field("source", &self.source)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let peer = "[::ffff:198.51.100.7]:443".parse().unwrap();
        let client = ClientInfo::from_connection(Connection::plain(peer));
        assert_eq!(client.address(), Some("198.51.100.7".parse().unwrap()));
        assert!(!client.is_secure());
    }
}
