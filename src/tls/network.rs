use std::{cmp::Reverse, net::IpAddr};

use crate::client::source;

/// Those who count as one when handshakes are counted: an IPv4 address, or the first half of an IPv6 one, whose owner has all of
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    /// A /48 of IPv6, which one owner may have as well.
    const fn site(self) -> Self {
        match self {
            Self::V4(address) => Self::V4(address),
            Self::V6(half) => Self::V6(half & !0xffff),
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match source(address) {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

/// Who of those who wait, the oldest first, makes room for one more: the oldest of the network that has the most with the one that
/// comes, in the site that has the most.
pub(super) fn makes_room(waiting: impl Iterator<Item = Network>, coming: Network) -> Option<usize> {
    type Place = (Network, usize);
    let mut places: Vec<Place> = waiting.enumerate().map(|(age, network)| (network, age)).collect();
    places.push((coming, usize::MAX));
    places.sort_unstable();
    let oldest = |group: &[Place]| group.iter().map(|(_, age)| *age).min();
    let size = |group: &&[Place]| (group.len(), Reverse(oldest(group)));
    let site = places.chunk_by(|one, other| one.0.site() == other.0.site()).max_by_key(size)?;
    let network = site.chunk_by(|one, other| one.0 == other.0).max_by_key(size)?;
    oldest(network).filter(|age| *age != usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_network_makes_room() {
        for (name, waiting, coming, gone) in [
            ("nobody", &[][..], "192.0.2.1", None),
            ("one each: the oldest", &["192.0.2.1", "192.0.2.2"], "192.0.2.3", Some(0)),
            ("the one with two", &["192.0.2.1", "192.0.2.2", "192.0.2.2"], "192.0.2.3", Some(1)),
            ("the one that comes again", &["192.0.2.1", "192.0.2.2"], "192.0.2.2", Some(1)),
            ("two and two: the older", &["192.0.2.1", "192.0.2.2", "192.0.2.2"], "192.0.2.1", Some(0)),
            ("the mapped form of an address", &["192.0.2.1", "192.0.2.2"], "::ffff:192.0.2.2", Some(1)),
            ("many addresses of a /64", &["2001:db8::1", "2001:db8:1::1", "2001:db8:1::2"], "192.0.2.1", Some(1)),
            ("many /64 of a /48", &["2001:db8::1", "2001:db8:1:1::1", "2001:db8:1:2::1"], "192.0.2.1", Some(1)),
            (
                "the fullest /64 of the fullest /48",
                &["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:2::2"],
                "2001:db8:1:3::1",
                Some(1),
            ),
            ("a /64 and a /48 that begin alike", &["2001:db8:1::1", "2001:db8::1"], "2001:db8::2", Some(1)),
        ] {
            let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap());
            assert_eq!(makes_room(waiting.iter().map(|one| network(one)), network(coming)), gone, "{name}");
        }
    }
}
