//! The PROXY protocol, version 2, binary (haproxy.org, proxy-protocol.txt): what stands before the first byte of a
//! connection that a proxy passes on.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::network::{Network, Width, contain, networks};
use crate::{
    client::{Connection, TlsVersion},
    error::ConfigError,
};

/// The length of what stands before the addresses.
pub(crate) const PREFIX_LEN: usize = 16;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Which proxies speak the PROXY protocol, version 2, to a listener.
///
/// It is configured, never sniffed: every connection must come from one of these and begin with a header. One that does
/// not is dropped, because nobody can tell who it is (proxy-protocol.txt §2 demands it).
///
/// ```
/// use portcullis::evidence::ProxyProtocol;
///
/// let proxies = ProxyProtocol::v2(["10.0.12.7/32"])?;
/// # let _ = proxies;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    networks: Arc<[Network]>,
}

impl ProxyProtocol {
    /// Believes these proxies, addresses or networks.
    ///
    /// # Errors
    /// As [`TrustedProxies::x_forwarded`](super::TrustedProxies::x_forwarded).
    pub fn v2<I: IntoIterator<Item: AsRef<str>>>(proxies: I) -> Result<Self, ConfigError> {
        Ok(Self { networks: networks("PROXY protocol", proxies, Width::Narrow)? })
    }

    /// Whether this address may speak the protocol. IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        contain(&self.networks, address)
    }
}

/// A header of the PROXY protocol, version 2.
///
/// ```
/// use portcullis::evidence::ProxyHeader;
///
/// let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
/// bytes.extend([198, 51, 100, 7, 192, 0, 2, 1, 0xcb, 0x84, 0x01, 0xbb]);
/// let (header, length) = ProxyHeader::parse(&bytes)?.expect("it is complete");
/// assert_eq!((header.source(), length), (Some("198.51.100.7:52100".parse().unwrap()), bytes.len()));
/// assert!(ProxyHeader::parse(&bytes[..20])?.is_none(), "read on");
/// # Ok::<(), portcullis::evidence::ProxyHeaderError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    source: Option<SocketAddr>,
    tls: Option<ProxyTls>,
    authority: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
}

/// What the proxy says of TLS between the client and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyTls {
    /// The client spoke none, or a version that is not safe any more.
    None,
    /// The version, if it is told.
    Some(Option<TlsVersion>),
}

impl ProxyHeader {
    /// Reads a header from the beginning of what was received, and says how long it is. None if there is more to come.
    ///
    /// # Errors
    /// If it is not a header of version 2. The connection must be dropped then.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProxyHeaderError> {
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
            let begun = SIGNATURE.iter().zip(bytes).all(|(expected, byte)| expected == byte);
            return if begun { Ok(None) } else { Err(ProxyHeaderError("does not begin with the signature")) };
        };
        let length = Self::block_len(prefix)?;
        let Some(block) = rest.get(..length) else { return Ok(None) };
        Ok(Some((Self::read(prefix, block)?, PREFIX_LEN.saturating_add(length))))
    }

    /// How many bytes follow the first sixteen.
    pub(crate) fn block_len(prefix: &[u8; PREFIX_LEN]) -> Result<usize, ProxyHeaderError> {
        let [signature @ .., version, _, high, low] = prefix;
        if *signature != SIGNATURE {
            return Err(ProxyHeaderError("does not begin with the signature"));
        }
        if version >> 4 != 2 || version & 0xf > 1 {
            return Err(ProxyHeaderError("is not of version 2, or has an unknown command"));
        }
        Ok(u16::from_be_bytes([*high, *low]).into())
    }

    pub(crate) fn read(prefix: &[u8; PREFIX_LEN], block: &[u8]) -> Result<Self, ProxyHeaderError> {
        let [_, _, _, _, _, _, _, _, _, _, _, _, version, family, _, _] = prefix;
        if version & 0xf == 0 {
            // The proxy speaks for itself, as in a health check: neither family nor block counts, whatever is in them.
            return Ok(Self::default());
        }
        let addresses = match family {
            0x00 => 0,
            0x11 | 0x12 => 12,
            0x21 | 0x22 => 36,
            0x31 | 0x32 => 216,
            _ => return Err(ProxyHeaderError("has an unknown address family")),
        };
        let Some((addresses, extra)) = block.split_at_checked(addresses) else {
            return Err(ProxyHeaderError("is too short for its addresses"));
        };
        let mut header = Self { source: source(*family, addresses), ..Self::default() };
        header.read_extra(prefix, block, extra)?;
        Ok(header)
    }

    fn read_extra(&mut self, prefix: &[u8], block: &[u8], mut extra: &[u8]) -> Result<(), ProxyHeaderError> {
        let mut seen = [false; 256];
        while !extra.is_empty() {
            let (kind, value, rest) = field(extra).ok_or(ProxyHeaderError("has a field that is cut short"))?;
            if kind != NOOP
                && let Some(twice) = seen.get_mut(usize::from(kind))
                && std::mem::replace(twice, true)
            {
                return Err(ProxyHeaderError("has a field that stands twice"));
            }
            match kind {
                ALPN => self.alpn = Some(value.into()),
                AUTHORITY => {
                    let name =
                        std::str::from_utf8(value).map_err(|_| ProxyHeaderError("has a name that is no text"))?;
                    self.authority = (!name.is_empty()).then(|| name.into());
                }
                CRC32C => {
                    // Of the whole header, with zeros in the place of the sum.
                    let before = block.len().saturating_sub(extra.len()).saturating_add(3);
                    let whole = prefix.iter().chain(block.iter().take(before)).chain(&[0; 4]).chain(rest);
                    if value != crc32c(whole).to_be_bytes() {
                        return Err(ProxyHeaderError("has a wrong checksum"));
                    }
                }
                SSL => self.tls = Some(tls(value)?),
                _ => {}
            }
            extra = rest;
        }
        Ok(())
    }

    /// The client's address. None if the proxy speaks for itself (`LOCAL`), or of a family that has no addresses here: then
    /// the connection's own address counts.
    #[must_use]
    pub const fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// The server name that the client asked the proxy for.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The connection that `proxy` announces with this header, before anything is known of what follows.
    #[must_use]
    pub fn connection(&self, proxy: SocketAddr) -> Connection {
        let Some(source) = self.source else { return Connection::plain(proxy) };
        let mut connection = Connection::plain(source).announced_by(proxy.ip().to_canonical());
        if let Some(ProxyTls::Some(version)) = self.tls {
            connection = connection.with_tls_at_proxy(version);
            if let Some(name) = &self.authority {
                connection = connection.with_server_name(name);
            }
            if let Some(protocol) = &self.alpn {
                connection = connection.with_alpn(protocol);
            }
        }
        connection
    }

    /// Whether the proxy says what the client spoke to it. Then TLS between the proxy and this process is not the client's.
    pub(crate) const fn tells_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// What a proxy sent is not a header of the PROXY protocol, version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeaderError(&'static str);

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY protocol header {}", self.0)
    }
}

impl std::error::Error for ProxyHeaderError {}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;

/// Datagrams and Unix sockets have no address that counts here.
fn source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    match (family, addresses) {
        (0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low])).into())
        }
        (0x21, _) => {
            let (address, rest) = addresses.split_first_chunk::<16>()?;
            let [high, low, ..] = rest.get(16..)? else { return None };
            Some(SocketAddr::new(IpAddr::from(*address).to_canonical(), u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    }
}

/// Type, value, and what follows.
fn field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, high, low, rest @ ..] = bytes else { return None };
    let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
    Some((*kind, value, rest))
}

fn tls(value: &[u8]) -> Result<ProxyTls, ProxyHeaderError> {
    let [client, _, _, _, _, fields @ ..] = value else { return Err(ProxyHeaderError("has a short TLS field")) };
    let (mut fields, mut version) = (fields, None);
    while !fields.is_empty() {
        let (kind, value, rest) = field(fields).ok_or(ProxyHeaderError("has a TLS field that is cut short"))?;
        if kind == SSL_VERSION && version.replace(value).is_some() {
            return Err(ProxyHeaderError("has two TLS versions"));
        }
        fields = rest;
    }
    Ok(match (client & 1, version) {
        (0, _) => ProxyTls::None,
        (_, None) => ProxyTls::Some(None),
        (_, Some(b"TLSv1.2")) => ProxyTls::Some(Some(TlsVersion::Tls12)),
        (_, Some(b"TLSv1.3")) => ProxyTls::Some(Some(TlsVersion::Tls13)),
        // Older, or nothing that is known: RFC 8996 takes them for no protection.
        (_, Some(_)) => ProxyTls::None,
    })
}

/// Castagnoli's CRC (RFC 3720 §B.4), a bit at a time: headers are short, and few proxies send one.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: [u8; 12] = [198, 51, 100, 7, 192, 0, 2, 1, 0xcb, 0x84, 0x01, 0xbb];

    fn header(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, block].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    fn with(fields: &[Vec<u8>]) -> Result<ProxyHeader, ProxyHeaderError> {
        let block = [&V4[..], &fields.concat()].concat();
        ProxyHeader::parse(&header(0x21, 0x11, &block)).map(|parsed| parsed.unwrap().0)
    }

    fn proxy() -> SocketAddr {
        "10.0.12.7:40100".parse().unwrap()
    }

    #[test]
    fn addresses() {
        let v6 = |source: &str| {
            let source: std::net::Ipv6Addr = source.parse().unwrap();
            [&source.octets()[..], &[0; 16], &[0xcb, 0x84, 0x01, 0xbb]].concat()
        };
        let client = Some("198.51.100.7:52100");
        for (name, version, family, block, source) in [
            ("IPv4", 0x21, 0x11, V4.to_vec(), client),
            ("IPv4, datagrams", 0x21, 0x12, V4.to_vec(), None),
            ("IPv6", 0x21, 0x21, v6("2001:db8::7"), Some("[2001:db8::7]:52100")),
            ("mapped", 0x21, 0x21, v6("::ffff:198.51.100.7"), client),
            ("Unix socket", 0x21, 0x31, vec![b'/'; 216], None),
            ("unspecified", 0x21, 0x00, vec![], None),
            ("unspecified, with something", 0x21, 0x00, tlv(4, b"x"), None),
            ("the proxy itself", 0x20, 0x00, vec![], None),
            ("the proxy itself, with an address", 0x20, 0x11, V4.to_vec(), None),
            ("the proxy itself, with a family that nobody knows", 0x20, 0xf3, V4.to_vec(), None),
        ] {
            let mut bytes = header(version, family, &block);
            let length = bytes.len();
            bytes.extend(b"GET / HTTP/1.1");
            let (parsed, taken) = ProxyHeader::parse(&bytes).unwrap().unwrap();
            assert_eq!((parsed.source(), taken), (source.map(|source| source.parse().unwrap()), length), "{name}");
            let connection = parsed.connection(proxy());
            assert_eq!(connection.announcing_proxy().is_some(), source.is_some(), "{name}");
            assert_eq!(connection.peer(), Some(parsed.source().unwrap_or(proxy())), "{name}");
            for end in 0..length {
                assert_eq!(ProxyHeader::parse(&bytes[..end]), Ok(None), "{name}, {end} bytes");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        let cut = header(0x21, 0x11, &V4[..11]);
        for (name, bytes) in [
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec()),
            ("version 1", b"PROXY TCP4 198.51.100.7 192.0.2.1 52100 443\r\n".to_vec()),
            ("TLS", vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0]),
            ("version 3", header(0x31, 0x11, &V4)),
            ("unknown command", header(0x22, 0x11, &V4)),
            ("unknown family", header(0x21, 0x41, &V4)),
            ("unknown protocol", header(0x21, 0x13, &V4)),
            ("short block", cut),
            ("IPv6 in a block for IPv4", header(0x21, 0x21, &V4)),
            ("short Unix address", header(0x21, 0x31, &[b'/'; 100])),
        ] {
            assert!(ProxyHeader::parse(&bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn what_the_client_spoke_to_the_proxy() {
        let ssl = |client: u8, version: Option<&str>| {
            let version = version.map(|version| tlv(SSL_VERSION, version.as_bytes())).unwrap_or_default();
            tlv(SSL, &[&[client, 0, 0, 0, 0][..], &version].concat())
        };
        let name = || tlv(AUTHORITY, b"api.example.com");
        let seen = |fields: &[Vec<u8>]| {
            let header = with(fields).unwrap();
            let connection = header.connection(proxy());
            (connection.is_secure(), connection.tls_version(), header.tells_tls())
        };
        assert_eq!(seen(&[]), (false, None, false));
        assert_eq!(seen(&[ssl(1, Some("TLSv1.3"))]), (true, Some(TlsVersion::Tls13), true));
        assert_eq!(seen(&[ssl(7, Some("TLSv1.2")), name()]), (true, Some(TlsVersion::Tls12), true));
        assert_eq!(seen(&[ssl(1, None)]), (true, None, true));
        assert_eq!(seen(&[ssl(0, Some("TLSv1.3"))]), (false, None, true), "the proxy says plain");
        assert_eq!(seen(&[ssl(1, Some("TLSv1.1"))]), (false, None, true), "RFC 8996");
        assert_eq!(seen(&[ssl(1, Some("SSLv3"))]), (false, None, true));

        let header = with(&[ssl(1, None), name(), tlv(ALPN, b"h2")]).unwrap();
        let connection = header.connection(proxy());
        assert_eq!((connection.server_name(), connection.alpn()), (Some("api.example.com"), Some(&b"h2"[..])));
        assert_eq!(with(&[name()]).unwrap().connection(proxy()).server_name(), None, "no TLS, no server name");
    }

    #[test]
    fn fields_are_checked() {
        for (name, fields) in [
            ("cut short", vec![vec![4, 0, 9, 1]]),
            ("no length", vec![vec![4, 0]]),
            ("twice", vec![tlv(ALPN, b"h2"), tlv(ALPN, b"h2")]),
            ("TLS twice", vec![tlv(SSL, &[1, 0, 0, 0, 0]), tlv(SSL, &[0, 0, 0, 0, 0])]),
            ("short TLS", vec![tlv(SSL, &[1, 0, 0, 0])]),
            ("TLS cut short", vec![tlv(SSL, &[1, 0, 0, 0, 0, 0x21, 0, 9])]),
            (
                "two versions",
                vec![tlv(SSL, &[&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x21, b"x")].concat())],
            ),
            ("no text", vec![tlv(AUTHORITY, &[0xff])]),
            ("wrong checksum", vec![tlv(CRC32C, &[0; 4])]),
            ("short checksum", vec![tlv(CRC32C, &[0; 3])]),
        ] {
            assert!(with(&fields).is_err(), "{name}");
        }
        assert!(with(&[tlv(NOOP, &[0; 9]), tlv(NOOP, b""), tlv(0xe0, b"a vendor's"), tlv(5, &[1; 128])]).is_ok());
    }

    #[test]
    fn checksums() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let block = [&V4[..], &tlv(NOOP, b"x"), &tlv(CRC32C, &[0; 4]), &tlv(ALPN, b"h2")].concat();
        let mut bytes = header(0x21, 0x11, &block);
        let sum = crc32c(bytes.iter()).to_be_bytes();
        let at = PREFIX_LEN + V4.len() + 4 + 3;
        bytes[at..at + 4].copy_from_slice(&sum);
        assert!(ProxyHeader::parse(&bytes).is_ok());
        bytes[PREFIX_LEN] ^= 1;
        assert!(ProxyHeader::parse(&bytes).is_err(), "another address");
    }

    #[test]
    fn the_proxies_are_named_narrowly() {
        let proxies = ProxyProtocol::v2(["10.0.12.0/24", "::1"]).unwrap();
        assert!(proxies.contains("::ffff:10.0.12.7".parse().unwrap()));
        assert!(!proxies.contains("198.51.100.7".parse().unwrap()));
        assert_eq!(ProxyProtocol::v2(["0.0.0.0/0"]).unwrap_err().setting(), "PROXY protocol");
        assert!(ProxyProtocol::v2([""; 0]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(version in 0x1f_u8..0x23, family in any::<u8>(), block in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = header(version, family, &block);
            if let Ok(Some((parsed, length))) = ProxyHeader::parse(&bytes) {
                prop_assert_eq!(length, bytes.len());
                let _ = parsed.connection(proxy());
            }
        }

        #[test]
        fn what_is_written_is_read(address in any::<u32>(), port in any::<u16>(), extra in proptest::collection::vec(any::<u8>(), 0..9)) {
            let block = [&address.to_be_bytes()[..], &[0; 4], &port.to_be_bytes(), &[0; 2], &tlv(0xe0, &extra)].concat();
            let (parsed, _) = ProxyHeader::parse(&header(0x21, 0x11, &block)).unwrap().unwrap();
            prop_assert_eq!(parsed.source(), Some((address.to_be_bytes(), port).into()));
        }
    }
}
