//! Which proxies are believed, and which headers they write.

use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use crate::error::ConfigError;

/// The widest networks that are accepted without a `dangerous_` name.
const WIDEST_V4: u8 = 16;
const WIDEST_V6: u8 = 32;

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
    networks: Arc<[IpNet]>,
    family: Option<Family>,
}

/// The header fields that a proxy describes its client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and the like; by custom.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl TrustedProxies {
    /// Nobody is believed; the default for a service that clients reach directly.
    pub fn none() -> Self {
        Self { networks: Arc::default(), family: None }
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

    /// Whether the address is one of the proxies. IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    pub(super) const fn family(&self) -> Option<Family> {
        self.family
    }

    fn read<I: IntoIterator<Item: AsRef<str>>>(items: I, family: Family, width: Width) -> Result<Self, ConfigError> {
        let networks = items.into_iter().map(|item| network(item.as_ref(), width)).collect::<Result<Arc<[_]>, _>>()?;
        if networks.is_empty() {
            return Err(error("[]", "must name a proxy; TrustedProxies::none() trusts nobody"));
        }
        Ok(Self { networks, family: Some(family) })
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::none()
    }
}

#[derive(Clone, Copy)]
enum Width {
    Narrow,
    Any,
}

fn network(text: &str, width: Width) -> Result<IpNet, ConfigError> {
    let written: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|source| error(text, "is not an address or a network").caused_by(source))?,
    };
    if written.addr() != written.network() {
        return Err(error(text, "has bits set outside its prefix"));
    }
    let network = unmapped(written).ok_or_else(|| error(text, "is wider than the IPv4 addresses that it maps"))?;
    let widest = match network {
        IpNet::V4(_) => WIDEST_V4,
        IpNet::V6(_) => WIDEST_V6,
    };
    match width {
        Width::Narrow if network.prefix_len() < widest => {
            Err(error(text, &format!("is wider than /{widest}: everybody in it could pose as any client")))
        }
        Width::Narrow | Width::Any => Ok(network),
    }
}

/// `::ffff:10.0.0.0/112` is `10.0.0.0/16`. None if only a part of the network is IPv4.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return Some(network) };
    let Some(v4) = v6.addr().to_ipv4_mapped() else { return Some(network) };
    let prefix = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v4, prefix).ok().map(IpNet::V4)
}

fn error(value: &str, problem: &str) -> ConfigError {
    ConfigError::new("trusted proxies", value, problem)
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
        assert_eq!(TrustedProxies::default().family(), None);
    }
}
