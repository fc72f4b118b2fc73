//! Who is calling, from where and over what: the facts of a connection, and what was concluded from them.

mod certificate;
mod connection;
#[cfg(feature = "client-cert")]
mod der;
#[cfg(feature = "client-cert")]
mod distinguished_name;
mod version;
#[cfg(feature = "client-cert")]
mod x509;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

pub use certificate::ClientCertificate;
pub use connection::Connection;
use connection::TlsFacts;
pub use version::TlsVersion;
#[cfg(feature = "client-cert")]
pub(crate) use x509::{CertificateFacts, Usage, sha256};

/// The address by which a client is bounded and counted: of IPv4 where an IPv6 address stands for one, as a mapped one does and one of
/// a translator before the service (`64:ff9b::/96`, RFC 6052 §2.1), or all who come through it would be one network.
#[inline]
pub(crate) fn source(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => address.to_canonical(),
    }
}

/// How the client's address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// It is the other end of the connection.
    Connection,
    /// A trusted proxy said so, in a header.
    Proxy,
    /// A trusted proxy announced it before the first byte of the connection, in the PROXY protocol.
    ProxyProtocol,
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
            Self::ProxyProtocol => "proxy_protocol",
            Self::MalformedProxyHeader => "malformed_proxy_header",
        }
    }
}

/// Who is calling, over what: the one answer that TLS enforcement, limits, address rules, the authenticator of client
/// certificates and records all use.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientInfo {
    address: Option<IpAddr>,
    source: AddressSource,
    secure: bool,
    tls: Option<TlsVersion>,
    host: Option<Box<str>>,
    /// Of the client's own connection; none behind a proxy, whose TLS is not the client's.
    facts: Option<Arc<TlsFacts>>,
    /// What a trusted proxy says of the client's certificate.
    forwarded: ForwardedCertificate,
}

/// What a trusted proxy's header says of its client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForwardedCertificate {
    #[default]
    None,
    #[cfg(feature = "client-cert")]
    Known(ClientCertificate),
    /// There is one, and it cannot be believed.
    #[cfg(feature = "client-cert")]
    Malformed(&'static str),
}

impl ClientInfo {
    /// What the connection alone tells.
    #[must_use]
    pub fn from_connection(mut connection: Connection) -> Self {
        let facts = connection.take_facts();
        Self { facts, ..Self::of_connection(&connection) }
    }

    /// The same of one that stays where it is: a copy of it costs more than what is read.
    #[inline]
    pub(crate) fn of_connection(connection: &Connection) -> Self {
        Self {
            address: connection.peer().map(|peer| peer.ip().to_canonical()),
            source: match connection.announcing_proxy() {
                Some(_) => AddressSource::ProxyProtocol,
                None => AddressSource::Connection,
            },
            secure: connection.is_secure(),
            tls: connection.tls_version(),
            host: None,
            facts: connection.facts().cloned(),
            forwarded: ForwardedCertificate::None,
        }
    }

    /// What a trusted proxy tells; the TLS version stays unknown.
    pub(crate) fn from_proxy(
        address: Option<IpAddr>,
        source: AddressSource,
        secure: bool,
        host: Option<Box<str>>,
        forwarded: ForwardedCertificate,
    ) -> Self {
        let address = address.map(|address| address.to_canonical());
        Self { address, source, secure, tls: None, host, facts: None, forwarded }
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
            AddressSource::Connection | AddressSource::Proxy | AddressSource::ProxyProtocol => self.address,
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

    /// The TLS version, where this process terminated TLS or the PROXY protocol told.
    #[must_use]
    pub const fn tls_version(&self) -> Option<TlsVersion> {
        self.tls
    }

    /// The host that the client asked for, where a trusted proxy tells.
    #[must_use]
    pub fn forwarded_host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The server name that the client asked for in its handshake (SNI), where this process terminated TLS or the PROXY
    /// protocol told.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.facts.as_ref()?.server_name.as_deref()
    }

    /// The protocol that the handshake agreed on (ALPN), such as `h2`.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.facts.as_ref()?.alpn.as_deref()
    }

    /// The cipher suite.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<&str> {
        self.facts.as_ref()?.cipher_suite.as_deref()
    }

    /// The client's certificate: of its own connection, or as a trusted proxy forwarded it.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        #[cfg(feature = "client-cert")]
        if let ForwardedCertificate::Known(certificate) = &self.forwarded {
            return Some(certificate);
        }
        self.facts.as_ref()?.certificate.as_ref()
    }

    /// Why a certificate that a trusted proxy forwarded is not believed.
    #[cfg(feature = "client-cert")]
    pub(crate) const fn malformed_certificate(&self) -> Option<&'static str> {
        match self.forwarded {
            ForwardedCertificate::Malformed(reason) => Some(reason),
            ForwardedCertificate::None | ForwardedCertificate::Known(_) => None,
        }
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
    fn what_stands_for_an_address_of_ipv4_is_that() {
        for (address, meant) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("64:ff9b::192.0.2.1", "192.0.2.1"),
            ("64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.2.1"),
            ("64:ff9b:0:1::192.0.2.1", "64:ff9b:0:1::192.0.2.1"),
            ("::192.0.2.1", "::192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(source(address.parse().unwrap()), meant.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let peer = "[::ffff:198.51.100.7]:443".parse().unwrap();
        let client = ClientInfo::from_connection(Connection::plain(peer));
        assert_eq!(client.address(), Some("198.51.100.7".parse().unwrap()));
        assert!(!client.is_secure());
    }

    #[test]
    fn an_announced_client_is_told_as_such() {
        let peer = "198.51.100.7:1".parse().unwrap();
        let connection = Connection::plain(peer).announced_by("10.0.12.7".parse().unwrap()).with_tls_at_proxy(None);
        let client = ClientInfo::from_connection(connection);
        assert_eq!((client.source(), client.is_secure()), (AddressSource::ProxyProtocol, true));
        assert_eq!((client.tls_version(), client.vouched_address()), (None, client.address()));
    }
}
