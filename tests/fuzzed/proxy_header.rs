//! The input is what stands at the beginning of a connection, and once more the block of a header that is right until there.
//! A header parses to what a second reader finds in it, takes exactly its own length, and waits for each byte of it: byte by byte it is
//! read, or refused, as at once.

use std::net::{IpAddr, SocketAddr};

use portcullis::evidence::ProxyHeader;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    check_header(data);
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    for family in [0x00, 0x11, 0x21, 0x31] {
        check_header(&[SIGNATURE, &[0x21, family], &length.to_be_bytes(), data].concat());
    }
}

fn check_header(bytes: &[u8]) {
    let whole = ProxyHeader::parse(bytes);
    // The first that is not to be waited for is what all of it is.
    let by_bytes = (0..bytes.len()).map(|end| ProxyHeader::parse(&bytes[..end])).find(|parsed| *parsed != Ok(None));
    assert_eq!(by_bytes.unwrap_or_else(|| whole.clone()), whole);
    match ProxyHeader::parse(bytes) {
        Err(_) => {
            // Whoever refuses early would refuse it with more bytes as well.
            assert!(ProxyHeader::parse(&[bytes, &[0; 8]].concat()).is_err());
        }
        Ok(None) => {
            let wanted =
                bytes.get(14..16).map_or(usize::MAX, |length| 16 + u16::from_be_bytes([length[0], length[1]]) as usize);
            assert!(bytes.len() < wanted && bytes.iter().zip(SIGNATURE).all(|(byte, expected)| byte == expected));
        }
        Ok(Some((header, length))) => {
            assert_eq!(length, 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
            assert_eq!(ProxyHeader::parse(&bytes[..length]), Ok(Some((header.clone(), length))));
            assert_eq!(ProxyHeader::parse(&bytes[..length - 1]), Ok(None));
            let (announced, block) = (bytes[12] == 0x21, &bytes[16..length]);
            let source = match bytes[13] {
                0x11 if announced => {
                    let address: [u8; 4] = block[..4].try_into().unwrap();
                    Some(SocketAddr::from((address, u16::from_be_bytes([block[8], block[9]]))))
                }
                0x21 if announced => {
                    let address: [u8; 16] = block[..16].try_into().unwrap();
                    let port = u16::from_be_bytes([block[32], block[33]]);
                    Some(SocketAddr::new(IpAddr::from(address).to_canonical(), port))
                }
                _ => None,
            };
            assert_eq!(header.source(), source);
            let proxy = SocketAddr::from(([10, 0, 12, 7], 40100));
            let connection = header.connection(proxy);
            assert_eq!(connection.peer(), Some(source.unwrap_or(proxy)));
            assert_eq!(connection.announcing_proxy().is_some(), source.is_some());
            // HTTPS needs the field for TLS, with the client's bit.
            let told = block.windows(4).any(|field| field[0] == 0x20 && field[3] & 1 == 1);
            assert!(!connection.is_secure() || told);
            assert!(connection.client_certificate().is_none());
        }
    }
}
