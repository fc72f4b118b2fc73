//! The walk along the proxies, from the connection's peer towards the client.
//!
//! Only what a trusted proxy appended counts, and each appends to the right. So the walk goes from the right, as long as
//! it meets trusted proxies; the first address that is none of them is the client's. What stands left of it was written by
//! the client or by somebody who is not trusted, and is not looked at.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::{
    forwarded,
    host::Host,
    list::{List, MAX_BYTES, MAX_ELEMENTS},
    node::{Node, is_secure_scheme},
    strip::{Strip, is_stray},
    trust::{Family, TrustedProxies},
};

const FORWARDED: HeaderName = http::header::FORWARDED;

/// What the trusted proxies say about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The client's address, or the address of the last proxy that is trusted; none if that one has none.
    pub(super) address: Option<IpAddr>,
    /// The header does not parse where it matters.
    pub(super) malformed: bool,
    pub(super) secure: bool,
    pub(super) host: Option<Box<str>>,
}

impl Found {
    /// What is left when the header makes no sense: the address of the proxy that passed it on, and nothing else.
    const fn malformed(address: Option<IpAddr>) -> Self {
        Self { address, malformed: true, secure: false, host: None }
    }
}

/// Walks from `peer`, which is a trusted proxy: an address, or a Unix socket. Says as well what must be removed.
pub(super) fn walk(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    family: Family,
    proxies: &TrustedProxies,
) -> (Found, Strip) {
    let found = match (family, proxies.hops()) {
        (Family::XForwarded, _) => {
            let mut stray = false;
            let lists = List::of_family(headers, |other| stray |= is_stray(other, Some(family), proxies));
            let strip = if stray { Strip::AllBut(Some(family)) } else { Strip::Nothing };
            return (x_forwarded(lists, peer, proxies), strip);
        }
        (Family::Forwarded, None) => forwarded(headers, peer, proxies),
        (Family::Forwarded, Some(hops)) => forwarded_by_hops(headers, peer, hops),
        (Family::Address, _) => single_address(headers, peer, proxies),
    };
    (found, Strip::needed(headers, Some(family), proxies))
}

fn x_forwarded(lists: [Option<List<'_>>; 3], peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
    let [chain, schemes, hosts] = lists;
    let Some(chain) = chain else { return Found::malformed(peer) };
    let hops = proxies.hops();
    if hops.is_some_and(|hops| chain.len < hops) {
        return Found::malformed(peer);
    }
    let (mut address, mut position) = (peer, 0);
    for (index, element) in chain.rightmost_first.enumerate() {
        position = index;
        // Whether whoever wrote the next element is trusted as well.
        let mut goes_on = hops.is_some_and(|hops| index.saturating_add(1) < hops);
        match Node::lenient(element) {
            Node::Address(next) => {
                address = Some(next);
                goes_on |= hops.is_none() && proxies.contains(next);
            }
            Node::Hidden => {}
            Node::Invalid => return Found::malformed(address),
        }
        if !goes_on {
            break;
        }
    }
    let (Some(schemes), Some(hosts)) = (schemes, hosts) else { return Found::malformed(address) };
    Found {
        address,
        malformed: false,
        secure: schemes.at(position).is_some_and(is_secure_scheme),
        host: hosts.at(position).and_then(checked_host),
    }
}

/// One field, one address. A proxy that overwrites it leaves no second line and no list.
fn single_address(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
    let (address, scheme) = proxies.names();
    let only = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(|text| Some(text.trim_ascii())).map_err(|_| ()),
            (Some(_), Some(_)) => Err(()),
        }
    };
    let address = match address.map_or(Ok(None), only) {
        Ok(None) => peer,
        Ok(Some(text)) => match Node::lenient(text.as_bytes()) {
            Node::Address(address) => Some(address),
            Node::Hidden => peer,
            Node::Invalid => return Found::malformed(peer),
        },
        Err(()) => return Found::malformed(peer),
    };
    match scheme.map_or(Ok(None), only) {
        Ok(scheme) => Found { address, malformed: false, secure: scheme.is_some_and(is_secure_scheme), host: None },
        Err(()) => Found::malformed(address),
    }
}

/// Reads left to right, as quoted strings demand, and keeps the answer that a walk from the right would give: each
/// element that a walk could not pass replaces what was found before.
fn forwarded(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
    let mut last: Option<Stop<'_>> = None;
    let (mut bytes, mut len) = (0_usize, 0_usize);
    for line in headers.get_all(FORWARDED) {
        bytes = bytes.saturating_add(line.len());
        if bytes > MAX_BYTES {
            return Found::malformed(peer);
        }
        for element in forwarded::elements(line.as_bytes()) {
            len = len.saturating_add(1);
            if len > MAX_ELEMENTS {
                return Found::malformed(peer);
            }
            last = Some(Stop::after(last, element, proxies));
        }
    }
    match last {
        None => Found { address: peer, malformed: false, secure: false, host: None },
        Some(Stop { address, element: None }) => Found::malformed(address.or(peer)),
        Some(Stop { address, element: Some(element) }) => Found {
            address: address.or(peer),
            malformed: false,
            secure: element.secure,
            host: element.host.as_deref().and_then(checked_host),
        },
    }
}

/// The element at the place that is that many from the right, if all that stand right of it are valid.
fn forwarded_by_hops(headers: &HeaderMap, peer: Option<IpAddr>, hops: usize) -> Found {
    let elements = || {
        headers.get_all(FORWARDED).iter().flat_map(|line| forwarded::elements(line.as_bytes())).take(MAX_ELEMENTS + 1)
    };
    let bytes = headers.get_all(FORWARDED).iter().fold(0_usize, |bytes, line| bytes.saturating_add(line.len()));
    if bytes > MAX_BYTES {
        return Found::malformed(peer);
    }
    let len = elements().count();
    let Some(before) = len.checked_sub(hops).filter(|_| len <= MAX_ELEMENTS) else { return Found::malformed(peer) };
    let mut counted = elements().skip(before);
    let client = match counted.next() {
        Some(Ok(client)) if client.node != Node::Invalid => client,
        _ => return Found::malformed(peer),
    };
    let mut last = None;
    for proxy in counted {
        match proxy.map(|proxy| proxy.node) {
            Ok(Node::Invalid) | Err(forwarded::Malformed) => return Found::malformed(peer),
            Ok(Node::Hidden) => {}
            Ok(Node::Address(address)) => last = last.or(Some(address)),
        }
    }
    let address = match client.node {
        Node::Address(address) => Some(address),
        Node::Hidden | Node::Invalid => last.or(peer),
    };
    Found { address, malformed: false, secure: client.secure, host: client.host.as_deref().and_then(checked_host) }
}

/// Where a walk from the right would end, if the field ended here.
struct Stop<'a> {
    /// None until a trusted proxy is known that vouches for the element.
    address: Option<IpAddr>,
    /// The element at which the walk ends; None for one that is not valid.
    element: Option<forwarded::Element<'a>>,
}

impl<'a> Stop<'a> {
    fn after(
        before: Option<Self>,
        element: Result<forwarded::Element<'a>, forwarded::Malformed>,
        proxies: &TrustedProxies,
    ) -> Self {
        let Ok(element) = element else { return Self { address: None, element: None } };
        match (element.node, before) {
            (Node::Address(proxy), Some(before)) if proxies.contains(proxy) => {
                Self { address: Some(before.address.unwrap_or(proxy)), ..before }
            }
            (Node::Address(address), _) => Self { address: Some(address), element: Some(element) },
            (Node::Hidden, _) => Self { address: None, element: Some(element) },
            (Node::Invalid, _) => Self { address: None, element: None },
        }
    }
}

fn checked_host(text: &str) -> Option<Box<str>> {
    Host::parse(text).map(|_| text.into())
}

#[cfg(test)]
mod tests;
