use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use crate::{error::ConfigError, principal::Principal};

/// The longest scope, in bytes.
pub const MAX_SCOPE_LEN: usize = 64;

/// What a quota is counted against: which limiter, and whose requests.
///
/// It borrows, so that making one allocates nothing. A store in this process may hash it ([`Hash`]); one outside writes it
/// as text ([`Display`](fmt::Display)), which is different for different keys:
///
/// ```
/// use portcullis::rate_limit::LimitKey;
///
/// let key = |address: &str| LimitKey::client("client", address.parse().unwrap());
/// assert_eq!(key("198.51.100.7").to_string(), "client:198.51.100.7/32");
/// assert_eq!(key("2001:db8:1:2:a:b:c:d").to_string(), "client:2001:db8:1:2::/64");
/// assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2::2"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitKey<'a> {
    scope: &'a str,
    source: LimitSource<'a>,
}

/// Whose requests a [`LimitKey`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitSource<'a> {
    /// The client's network: one IPv4 address, or the first 64 bits of an IPv6 address, which is what one subscriber gets.
    Network(IpAddr),
    /// A principal, known by issuer and subject together (RFC 8725 §3.8).
    Principal {
        /// Who vouches for the subject.
        issuer: &'a str,
        /// The name at that issuer.
        subject: &'a str,
    },
}

impl<'a> LimitKey<'a> {
    /// The key of a client's network. An IPv4-mapped IPv6 address is its IPv4 address.
    #[must_use]
    pub fn client(scope: &'a str, address: IpAddr) -> Self {
        let network = match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        };
        Self { scope, source: LimitSource::Network(network) }
    }

    /// The key of a principal.
    #[must_use]
    pub fn principal(scope: &'a str, principal: &'a Principal) -> Self {
        Self { scope, source: LimitSource::Principal { issuer: principal.issuer(), subject: principal.subject() } }
    }

    /// Which limiter counts: limiters that share a store and not their counts have different scopes.
    #[must_use]
    pub const fn scope(&self) -> &'a str {
        self.scope
    }

    /// Whose requests are counted.
    #[must_use]
    pub const fn source(&self) -> LimitSource<'a> {
        self.source
    }
}

impl fmt::Display for LimitKey<'_> {
    /// `scope:network/bits`, or `scope:<bytes of the issuer>:issuer:subject`. The length keeps an issuer that holds a colon
    /// apart from the subject.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            LimitSource::Network(network @ IpAddr::V4(_)) => write!(f, "{}:{network}/32", self.scope),
            LimitSource::Network(network @ IpAddr::V6(_)) => write!(f, "{}:{network}/64", self.scope),
            LimitSource::Principal { issuer, subject } => {
                write!(f, "{}:{}:{issuer}:{subject}", self.scope, issuer.len())
            }
        }
    }
}

/// A scope is lower-case letters, digits, `-` and `_`, so that it cannot reach into the rest of a key.
pub(super) fn valid_scope(scope: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if !scope.is_empty() && scope.len() <= MAX_SCOPE_LEN && scope.bytes().all(allowed) {
        return Ok(());
    }
    let value = format!("{scope:?}");
    Err(ConfigError::new("scope", value, "is not 1 to 64 lower-case letters, digits, hyphens and underscores"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::principal::PrincipalKind;

    fn principal(issuer: &str, subject: &str) -> Principal {
        Principal::builder(PrincipalKind::User, issuer, subject, "jwt").build()
    }

    #[test]
    fn one_network_is_one_key() {
        for (name, one, other, same) in [
            ("one IPv4 address", "192.0.2.1", "192.0.2.1", true),
            ("two IPv4 addresses", "192.0.2.1", "192.0.2.2", false),
            ("a mapped address", "192.0.2.1", "::ffff:192.0.2.1", true),
            ("two mapped addresses", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("one /64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("two /64 of one /48", "2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            let key = |address: &str| LimitKey::client("client", address.parse().unwrap());
            assert_eq!(key(one) == key(other), same, "{name}");
            assert_eq!(key(one).to_string() == key(other).to_string(), same, "{name}, as text");
        }
    }

    #[test]
    fn no_choice_of_subject_gives_somebody_elses_key() {
        let principals = [
            principal("a", "b:c"),
            principal("a:b", "c"),
            principal("a", "b"),
            principal("1:a", "b"),
            principal("", "a:b"),
            principal("192.0.2.1/32", ""),
            principal("", "192.0.2.1/32"),
        ];
        let mut texts: HashSet<String> =
            principals.iter().map(|principal| LimitKey::principal("x", principal).to_string()).collect();
        texts.insert(LimitKey::client("x", "192.0.2.1".parse().unwrap()).to_string());
        texts.insert(LimitKey::client("y", "192.0.2.1".parse().unwrap()).to_string());
        assert_eq!(texts.len(), principals.len() + 2);
    }

    #[test]
    fn a_scope_cannot_hold_a_separator() {
        assert!(valid_scope("search-2_b").is_ok());
        for scope in ["", "a:b", "Search", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(valid_scope(scope).unwrap_err().setting(), "scope", "{scope}");
        }
    }
}
