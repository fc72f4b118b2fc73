//! Which proxies are believed, and which headers they write.

use std::{
    net::IpAddr,
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::HeaderName;

#[cfg(feature = "client-cert")]
use super::certificate::CertificateHeader;
#[cfg(feature = "stack")]
use super::strip::is_stray;
use super::{
    network::{Network, Width, contain, networks},
    strip::is_alike,
};
use crate::{client::Connection, credential::fields::holds_credentials, error::ConfigError};

/// The most proxies in a row that can be counted: as many as a header may have elements.
const MAX_HOPS: u8 = 64;

/// The proxies whose word about the client counts, and the one family of headers in which they give it.
///
/// Each is written as an address (`10.0.12.7`) or a network (`10.0.12.0/28`). A network wider than `/16` (IPv4) or `/32`
/// (IPv6) is refused: everybody in it could claim any address. IPv4-mapped IPv6 is treated as the IPv4 that it is, here
/// and in requests.
///
/// Exactly one family is read. A proxy that appends to one family passes the other on as the client wrote it.
///
/// ```
/// use portcullis::evidence::TrustedProxies;
///
/// let proxies = TrustedProxies::x_forwarded(["10.0.12.7/32", "2001:db8::7"])?;
/// assert!(proxies.contains("10.0.12.7".parse().unwrap()));
/// assert!(TrustedProxies::x_forwarded(["0.0.0.0/0"]).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Arc<[Network]>,
    unix_sockets: bool,
    family: Option<Family>,
    hops: Option<NonZeroU8>,
    /// Of [`Family::Address`].
    address: Option<HeaderName>,
    scheme: Option<HeaderName>,
    #[cfg(feature = "client-cert")]
    certificate: Option<CertificateHeader>,
    counts: EvidenceCounts,
}

/// The header fields that a proxy describes its client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and the like; by custom.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// One field with one address.
    Address,
}

impl TrustedProxies {
    /// Nobody is believed; the default for a service that clients reach directly.
    pub fn none() -> Self {
        Self {
            networks: Arc::default(),
            unix_sockets: false,
            family: None,
            hops: None,
            address: None,
            scheme: None,
            #[cfg(feature = "client-cert")]
            certificate: None,
            counts: EvidenceCounts::default(),
        }
    }

    /// These proxies are believed in `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    ///
    /// # Errors
    /// If the list is empty, or an item is not an address or network, has bits set outside its prefix
    /// (`10.0.12.7/24`), or is wider than `/16` (IPv4) or `/32` (IPv6).
    pub fn x_forwarded<I: IntoIterator<Item: AsRef<str>>>(networks: I) -> Result<Self, ConfigError> {
        Self::read(networks, Family::XForwarded, Width::Narrow)
    }

    /// These proxies are believed in `Forwarded` (RFC 7239).
    ///
    /// # Errors
    /// As [`x_forwarded`](Self::x_forwarded).
    pub fn forwarded<I: IntoIterator<Item: AsRef<str>>>(networks: I) -> Result<Self, ConfigError> {
        Self::read(networks, Family::Forwarded, Width::Narrow)
    }

    /// These proxies are believed in one field that holds one address, such as `X-Real-IP` or `CF-Connecting-IP`. They
    /// must overwrite it. Nothing is known of the scheme then, so every client counts as one over plain HTTP, unless
    /// [`with_scheme_header`](Self::with_scheme_header) names the field that tells.
    ///
    /// # Errors
    /// As [`x_forwarded`](Self::x_forwarded), or if the field is `X-Forwarded-For` or `Forwarded`, which hold lists, or `Host`, or
    /// one that carries a credential, such as `Authorization`, `Cookie` or `X-API-Key`: what a client sends there would be read as
    /// its address. A `Stack` refuses a field that its authenticator reads as well.
    pub fn address_header<I: IntoIterator<Item: AsRef<str>>>(
        name: HeaderName,
        networks: I,
    ) -> Result<Self, ConfigError> {
        if matches!(name.as_str(), "x-forwarded-for" | "forwarded" | "host") {
            return Err(ConfigError::new("address header", name.as_str(), "is not a field with one address"));
        }
        no_credential("address header", &name)?;
        Ok(Self { address: Some(name), ..Self::read(networks, Family::Address, Width::Narrow)? })
    }

    /// As [`x_forwarded`](Self::x_forwarded), for networks of any width. Everybody in them can pose as any client, and
    /// as a client that came over HTTPS.
    ///
    /// # Errors
    /// As [`x_forwarded`](Self::x_forwarded), but for the width.
    pub fn dangerous_wide_x_forwarded<I: IntoIterator<Item: AsRef<str>>>(networks: I) -> Result<Self, ConfigError> {
        Self::read(networks, Family::XForwarded, Width::Any)
    }

    /// As [`forwarded`](Self::forwarded), for networks of any width. Everybody in them can pose as any client, and as a
    /// client that came over HTTPS.
    ///
    /// # Errors
    /// As [`x_forwarded`](Self::x_forwarded), but for the width.
    pub fn dangerous_wide_forwarded<I: IntoIterator<Item: AsRef<str>>>(networks: I) -> Result<Self, ConfigError> {
        Self::read(networks, Family::Forwarded, Width::Any)
    }

    /// Counts proxies instead of recognising each by its address: the request comes through exactly so many, and only the
    /// last, which connects to this process, must be one of the networks. The client is the element at this place, from
    /// the right. A list that is shorter means that somebody went around a proxy: it counts as malformed.
    ///
    /// For proxies whose addresses change. One that is left out lets the client choose its address.
    ///
    /// # Errors
    /// If the count is not 1 to 64, or the family has no list.
    pub fn with_hops(mut self, count: u8) -> Result<Self, ConfigError> {
        let hops = NonZeroU8::new(count).filter(|count| count.get() <= MAX_HOPS);
        if hops.is_none() || !matches!(self.family, Some(Family::XForwarded | Family::Forwarded)) {
            let problem = "is not accepted: 1 to 64 proxies, of a family that has a list";
            return Err(ConfigError::new("hops", count.to_string(), problem));
        }
        self.hops = hops;
        Ok(self)
    }

    /// Reads the scheme from this field, for [`address_header`](Self::address_header): `https` alone means HTTPS. The
    /// proxy must overwrite it.
    ///
    /// # Errors
    /// If the family is another one, which tells the scheme in a field of its own, or if the field carries a credential.
    pub fn with_scheme_header(mut self, name: HeaderName) -> Result<Self, ConfigError> {
        if self.family != Some(Family::Address) {
            return Err(ConfigError::new("scheme header", name.as_str(), "is read beside an address header alone"));
        }
        no_credential("scheme header", &name)?;
        self.scheme = Some(name);
        Ok(self)
    }

    /// Believes whoever connects through a Unix socket as well: a proxy on this machine. Who may open the socket is up to
    /// the permissions of the file.
    pub const fn and_unix_sockets(mut self) -> Self {
        self.unix_sockets = true;
        self
    }

    /// Believes these proxies about their clients' certificates, too, in this header. They must have **verified** the
    /// certificate, and overwrite the header or remove it where there is none. A `Stack` refuses a field that carries a
    /// credential, or that its authenticator reads.
    #[cfg(feature = "client-cert")]
    pub fn with_client_certificates(mut self, header: CertificateHeader) -> Self {
        self.certificate = Some(header);
        self
    }

    /// Whether the address is one of the proxies. IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        contain(&self.networks, address)
    }

    /// What was removed and what did not parse so far. Take it before the proxies go into a layer or a `Stack`.
    #[must_use]
    pub fn counts(&self) -> EvidenceCounts {
        self.counts.clone()
    }

    pub(super) fn count_malformed(&self) {
        self.counts.0.malformed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_removed(&self) {
        self.counts.0.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// The family that the connection's other end is believed in.
    pub(super) fn believed(&self, connection: &Connection) -> Option<Family> {
        let trusted = match connection.peer() {
            Some(peer) => self.contains(peer.ip()),
            None => self.unix_sockets && connection.is_unix_socket(),
        };
        self.family.filter(|_| trusted)
    }

    pub(super) fn hops(&self) -> Option<usize> {
        self.hops.map(|hops| usize::from(hops.get()))
    }

    /// The fields with the address and with the scheme.
    pub(super) const fn names(&self) -> (Option<&HeaderName>, Option<&HeaderName>) {
        (self.address.as_ref(), self.scheme.as_ref())
    }

    /// The fields that the configuration says proxies write, outside of the families.
    #[cfg(feature = "stack")]
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        #[cfg(feature = "client-cert")]
        let certificate = self.certificate.as_ref().map(CertificateHeader::name);
        #[cfg(not(feature = "client-cert"))]
        let certificate: Option<&HeaderName> = None;
        [self.address.as_ref(), self.scheme.as_ref(), certificate].into_iter().flatten()
    }

    /// Whether no request keeps this field, whoever sends it.
    #[cfg(feature = "stack")]
    pub(crate) fn always_remove(&self, name: &HeaderName) -> bool {
        is_stray(name, self.family, self)
    }

    /// Whether this is one of them.
    pub(super) fn names_field(&self, name: &HeaderName) -> bool {
        #[cfg(feature = "client-cert")]
        if self.certificate.as_ref().is_some_and(|header| header.name() == name) {
            return true;
        }
        self.address.as_ref() == Some(name) || self.scheme.as_ref() == Some(name)
    }

    /// Whether it is such a field, or one that is spelt with underscores for hyphens, or the other way.
    pub(super) fn names_alike(&self, name: &HeaderName) -> bool {
        #[cfg(feature = "client-cert")]
        if self.certificate.as_ref().is_some_and(|header| is_alike(header.name(), name)) {
            return true;
        }
        [&self.address, &self.scheme].into_iter().flatten().any(|named| is_alike(named, name))
    }

    #[cfg(feature = "client-cert")]
    pub(super) const fn certificate_header(&self) -> Option<&CertificateHeader> {
        self.certificate.as_ref()
    }

    fn read<I: IntoIterator<Item: AsRef<str>>>(items: I, family: Family, width: Width) -> Result<Self, ConfigError> {
        let networks = networks("trusted proxies", items, width)?;
        Ok(Self { networks, family: Some(family), ..Self::none() })
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::none()
    }
}

/// Counts what was wrong with the evidence of all requests. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct EvidenceCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    malformed: AtomicU64,
    removed: AtomicU64,
}

impl EvidenceCounts {
    /// Requests whose forwarding or certificate header, from a trusted proxy, did not parse where it matters.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.0.malformed.load(Ordering::Relaxed)
    }

    /// Requests that carried forwarding or identity headers which nobody vouches for; they were removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.0.removed.load(Ordering::Relaxed)
    }
}

/// A field that is believed is also removed from the requests of everybody else, and shown where addresses are.
fn no_credential(setting: &'static str, name: &HeaderName) -> Result<(), ConfigError> {
    if holds_credentials(name) {
        return Err(ConfigError::new(
            setting,
            name.as_str(),
            "carries a credential, and no proxy's word: name another field",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named() {
        let cases: [(&str, &[&str], &str); 11] = [
            ("empty list", &[], "[]"),
            ("name", &["proxy.internal"], "proxy.internal"),
            ("empty item", &["10.0.0.1", ""], ""),
            ("port", &["10.0.0.1:80"], "10.0.0.1:80"),
            ("prefix too long", &["10.0.0.1/33"], "10.0.0.1/33"),
            ("bits outside the prefix", &["10.0.12.7/24"], "10.0.12.7/24"),
            ("everybody", &["0.0.0.0/0"], "0.0.0.0/0"),
            ("wide IPv4", &["10.0.0.0/15"], "10.0.0.0/15"),
            ("wide IPv6", &["2001:da8::/31"], "2001:da8::/31"),
            ("wide in disguise", &["::ffff:10.0.0.0/104"], "::ffff:10.0.0.0/104"),
            ("half mapped", &["::ffff:0:0/95"], "::ffff:0:0/95"),
        ];
        for (name, items, value) in cases {
            let error = TrustedProxies::x_forwarded(items).unwrap_err();
            assert_eq!(error.value(), value, "{name}");
            assert!(TrustedProxies::forwarded(items).is_err(), "{name}");
        }
    }

    #[test]
    fn a_wide_network_needs_the_dangerous_name() {
        let proxies = TrustedProxies::dangerous_wide_x_forwarded(["10.0.0.0/8"]).unwrap();
        assert!(proxies.contains("10.255.0.1".parse().unwrap()));
        assert!(TrustedProxies::dangerous_wide_forwarded(["::/0"]).is_ok());
        assert!(TrustedProxies::dangerous_wide_forwarded(["nonsense"]).is_err());
        assert!(TrustedProxies::dangerous_wide_forwarded([""; 0]).is_err());
    }

    #[test]
    fn mapped_addresses_are_the_same_on_both_sides() {
        for written in ["10.0.12.7", "10.0.12.7/32", "::ffff:10.0.12.7", "::ffff:10.0.12.0/120"] {
            let proxies = TrustedProxies::x_forwarded([written.to_owned()]).unwrap();
            for address in ["10.0.12.7", "::ffff:10.0.12.7"] {
                assert!(proxies.contains(address.parse().unwrap()), "{written} {address}");
            }
            assert!(!proxies.contains("10.0.13.7".parse().unwrap()), "{written}");
        }
    }

    #[test]
    fn nobody_is_nobody() {
        assert!(!TrustedProxies::none().contains("127.0.0.1".parse().unwrap()));
        let local = Connection::plain("127.0.0.1:1".parse().unwrap());
        for connection in [local, Connection::unix_socket(), Connection::unaddressed()] {
            assert_eq!(TrustedProxies::default().believed(&connection), None);
        }
    }
    #[test]
    fn a_unix_socket_is_believed_by_choice_and_memory_never() {
        let alone = TrustedProxies::forwarded(["10.0.12.7"]).unwrap();
        let local = alone.clone().and_unix_sockets();
        assert_eq!(alone.believed(&Connection::unix_socket()), None);
        assert_eq!(local.believed(&Connection::unix_socket()), Some(Family::Forwarded));
        assert_eq!(local.believed(&Connection::unaddressed()), None);
        assert_eq!(TrustedProxies::none().and_unix_sockets().believed(&Connection::unix_socket()), None);
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        let name = HeaderName::from_static;
        let x_forwarded = || TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
        let real_ip = || TrustedProxies::address_header(name("x-real-ip"), ["10.0.12.7"]).unwrap();
        for hops in [0, 65, 255] {
            assert_eq!(x_forwarded().with_hops(hops).unwrap_err().value(), hops.to_string());
        }
        assert!(x_forwarded().with_hops(64).is_ok());
        assert!(real_ip().with_hops(1).is_err(), "there is no list");
        assert!(TrustedProxies::none().with_hops(1).is_err(), "nobody to count from");
        assert!(x_forwarded().with_scheme_header(name("x-scheme")).is_err());
        assert!(real_ip().with_scheme_header(name("x-scheme")).is_ok());
        for list in ["x-forwarded-for", "forwarded", "host"] {
            assert!(TrustedProxies::address_header(name(list), ["10.0.12.7"]).is_err(), "{list}");
        }
        for credential in ["authorization", "proxy-authorization", "cookie", "x-api-key", "dpop"] {
            let error = TrustedProxies::address_header(name(credential), ["10.0.12.7"]).unwrap_err();
            assert_eq!((error.setting(), error.value()), ("address header", credential));
            let error = real_ip().with_scheme_header(name(credential)).unwrap_err();
            assert_eq!((error.setting(), error.value()), ("scheme header", credential));
        }
    }
}
