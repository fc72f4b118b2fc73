//! Networks as they are written, and whether an address is in one.

use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use crate::error::ConfigError;

/// The widest networks that are accepted without a `dangerous_` name.
const WIDEST_V4: u8 = 16;
const WIDEST_V6: u8 = 32;

/// How wide one may be.
#[derive(Clone, Copy)]
pub(super) enum Width {
    Narrow,
    Any,
}

/// A network, ready to be compared with the address of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4 { base: u32, mask: u32 },
    V6 { base: u128, mask: u128 },
}

impl From<IpNet> for Network {
    fn from(network: IpNet) -> Self {
        match network {
            IpNet::V4(v4) => Self::V4 { base: v4.network().to_bits(), mask: v4.netmask().to_bits() },
            IpNet::V6(v6) => Self::V6 { base: v6.network().to_bits(), mask: v6.netmask().to_bits() },
        }
    }
}

/// Whether the address is in one of these. IPv4-mapped IPv6 counts as IPv4.
#[inline]
pub(super) fn contain(networks: &[Network], address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let address = address.to_bits();
            networks.iter().any(|network| matches!(network, Network::V4 { base, mask } if address & mask == *base))
        }
        IpAddr::V6(address) => {
            let address = address.to_bits();
            networks.iter().any(|network| matches!(network, Network::V6 { base, mask } if address & mask == *base))
        }
    }
}

/// Reads addresses and networks, at least one.
pub(super) fn networks<I: IntoIterator<Item: AsRef<str>>>(
    setting: &'static str,
    items: I,
    width: Width,
) -> Result<Arc<[Network]>, ConfigError> {
    let read = |item: I::Item| network(setting, item.as_ref(), width).map(Network::from);
    let networks = items.into_iter().map(read).collect::<Result<Arc<[_]>, _>>()?;
    if networks.is_empty() {
        return Err(ConfigError::new(setting, "[]", "must name a proxy"));
    }
    Ok(networks)
}

fn network(setting: &'static str, text: &str, width: Width) -> Result<IpNet, ConfigError> {
    let error = |value: &str, problem: &str| ConfigError::new(setting, value, problem);
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
