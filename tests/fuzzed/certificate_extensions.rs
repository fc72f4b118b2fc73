//! The input is the elements of the extensions of a certificate, which the target puts into one. Whose it is, by DNS name, URI and SPIFFE
//! ID, is what a second reader finds in the extensions; nobody's if it finds that it is an authority's or not for clients.

use std::sync::LazyLock;

use portcullis::{ClientCertificate, client_cert::ClientCertAuthenticator};

use super::{
    der::{Element, certificate, elements, identifier},
    memory::subject_of,
};

static AUTHENTICATORS: LazyLock<[ClientCertAuthenticator; 3]> = LazyLock::new(|| {
    [
        ClientCertAuthenticator::by_dns_name().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_uri().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_spiffe_id(["prod.example"]).unwrap().build().unwrap(),
    ]
});

/// What concerns clients in the extensions.
#[derive(Debug)]
struct Extensions {
    dns: Vec<String>,
    uris: Vec<String>,
    /// Names of other kinds, other extensions, odd purposes or odd bits, which this reader does not read.
    others: bool,
    is_authority: bool,
    signs: bool,
    for_clients: bool,
}

/// Panics if something of that does not hold. True if the certificate is somebody's.
pub fn check(extensions: &[u8]) -> bool {
    let der = certificate(&[], extensions);
    let named = AUTHENTICATORS.each_ref().map(|by| subject_of(by, ClientCertificate::from_der(&der)));
    let Some(found) = read(extensions) else {
        assert_eq!(named, [const { None }; 3], "the second reader does not read it");
        return false;
    };
    if found.others && named == [const { None }; 3] {
        return false;
    }
    let usable = found.for_clients && !found.is_authority;
    let [dns, uri, spiffe] = &named;
    let hosts: Vec<_> = found.dns.iter().filter(|name| is_host(name)).map(|name| name.to_ascii_lowercase()).collect();
    let uris: Vec<_> = found.uris.iter().filter(|uri| is_uri(uri)).cloned().collect();
    let workload = <[String; 1]>::try_from(found.uris.clone()).ok();
    let workload = workload.map(|[uri]| uri).filter(|uri| is_workload(uri) && found.signs);
    assert_eq!(*dns, <[String; 1]>::try_from(hosts).ok().map(|[name]| name).filter(|_| usable), "{found:?}");
    assert_eq!(*uri, <[String; 1]>::try_from(uris).ok().map(|[uri]| uri).filter(|_| usable), "{found:?}");
    assert_eq!(*spiffe, workload.filter(|_| usable), "{found:?}");
    named.iter().any(Option::is_some)
}

fn is_host(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn is_uri(uri: &str) -> bool {
    uri.len() <= 2048
        && uri.bytes().all(|byte| (0x21..0x7f).contains(&byte))
        && uri.split(':').count() > 1
        && !uri.starts_with(':')
}

fn is_workload(uri: &str) -> bool {
    let Some(path) = uri.strip_prefix("spiffe://prod.example/") else { return false };
    let segment = |segment: &str| {
        !["", ".", ".."].contains(&segment)
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    uri.len() <= 2048 && path.split('/').all(segment)
}

/// None if something is malformed that concerns clients, or stands twice.
fn read(extensions: &[u8]) -> Option<Extensions> {
    let mut found = Extensions {
        dns: Vec::new(),
        uris: Vec::new(),
        others: false,
        is_authority: false,
        signs: true,
        for_clients: true,
    };
    let mut seen = Vec::new();
    for (tag, content, _) in elements(extensions)? {
        let (oid, value) = match elements(content).filter(|_| tag == 0x30)?[..] {
            [(6, oid, _), (4, value, _)] | [(6, oid, _), (1, [_], _), (4, value, _)] => (identifier(oid)?, value),
            _ => return None,
        };
        match &*oid {
            "2.5.29.17" => {
                for (tag, name, _) in only(0x30, value)? {
                    let text = || String::from_utf8(name.to_vec()).ok().filter(|name| name.is_ascii());
                    match tag {
                        0x82 => found.dns.push(text()?),
                        0x86 => found.uris.push(text()?),
                        0x81 | 0x87 | 0x88 | 0xa0 | 0xa3..=0xa5 => found.others = true,
                        _ => return None,
                    }
                }
            }
            "2.5.29.19" => match only(0x30, value)?[..] {
                [] | [(2, _, _)] => {}
                [(1, [truth], _)] | [(1, [truth], _), (2, _, _)] => found.is_authority |= *truth != 0,
                _ => return None,
            },
            "2.5.29.15" => {
                let [(3, [unused, bits @ ..], _)] = elements(value)?[..] else { return None };
                let bit = |index: usize| {
                    let written = (8 * bits.len()).saturating_sub(usize::from(*unused));
                    index < written && bits[index / 8] & (0x80 >> (index % 8)) != 0
                };
                // Refused or not: DER has zeros where nothing is written.
                let rest =
                    bits.last().map_or(*unused, |last| last & !(0xff_u8.checked_shl((*unused).into()).unwrap_or(0)));
                found.others |= rest != 0 || *unused > 7;
                found.signs = bit(0);
                found.is_authority |= bit(5) || bit(6);
            }
            "2.5.29.37" => {
                found.for_clients = false;
                for (tag, purpose, _) in only(0x30, value)? {
                    match identifier(purpose).filter(|_| tag == 6) {
                        Some(purpose) => {
                            found.for_clients |= ["1.3.6.1.5.5.7.3.2", "2.5.29.37.0"].contains(&&*purpose);
                        }
                        // Taken or not: it is not the purpose that counts.
                        None if tag == 6 => found.others = true,
                        None => return None,
                    }
                }
            }
            _ => {
                found.others = true;
                continue;
            }
        }
        if seen.contains(&oid) {
            return None;
        }
        seen.push(oid);
    }
    Some(found)
}

/// What is in the element, of which there is no other.
fn only(tag: u8, value: &[u8]) -> Option<Vec<Element<'_>>> {
    match elements(value)?[..] {
        [(found, content, _)] if found == tag => elements(content),
        _ => None,
    }
}
