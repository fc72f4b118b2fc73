//! A proxy that nobody has named.

use std::net::IpAddr;

use super::strip::any_forwarding;
use crate::{client::Connection, clock::Instants, head::RequestHead, log};

/// Tells, once a minute, of who forwards requests and is not believed. Only of a neighbour's address: whoever comes from elsewhere is
/// a client that writes such fields, and there is nothing to mend.
#[cold]
pub(super) fn tell(head: &RequestHead<'_>, at: Instants) {
    static SAID: log::Seldom = log::Seldom::new();
    let peer = head.see_connection(Connection::peer).flatten().map(|peer| peer.ip().to_canonical());
    if let Some(peer) = peer.filter(|peer| is_near(*peer))
        && any_forwarding(head.headers())
    {
        SAID.warn(at, || {
            format!(
                "{peer} sends forwarding headers and is no trusted proxy, so that all who come through it are one client: name it with \
                 .proxies(..), if it overwrites what clients send"
            )
        });
    }
}

/// Whether an address is of this machine or of a network without addresses of the Internet.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours() {
        for (address, near) in [
            ("127.0.0.1", true),
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("192.168.7.7", true),
            ("169.254.1.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("198.51.100.7", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_near(address.parse().unwrap()), near, "{address}");
        }
    }
}
