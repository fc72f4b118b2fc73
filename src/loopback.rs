//! Hosts that are this machine: what is sent to them crosses no wire.

use std::net::IpAddr;

/// Whether a host of an address is a loopback address, in brackets or not, or `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse().is_ok_and(|address: IpAddr| address.is_loopback()) || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_this_machine() {
        for host in ["127.0.0.1", "127.255.0.9", "::1", "[::1]", "localhost", "LocalHost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "localhost.",
            "localhost.example",
            "127.0.0.1.example",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "[localhost]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
