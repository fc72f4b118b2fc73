use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{client::source, error::ConfigError, principal::Principal};

/// The longest scope, in bytes.
pub const MAX_SCOPE_LEN: usize = 64;

/// What quotas are counted against: which limiter, and whose requests.
///
/// It borrows, so that making one allocates nothing. A store in this process may hash it ([`Hash`]); one outside writes it
/// as text ([`Display`](fmt::Display)), which is different for different keys:
///
/// ```
/// use portcullis::rate_limit::{KeyPart, LimitKey};
///
/// let part = KeyPart::network("2001:db8:1:2:a:b:c:d".parse().unwrap());
/// assert_eq!(LimitKey::new("client", &[part]).to_string(), "client:net=2001:db8:1:2::/64");
/// assert_eq!(part, KeyPart::network("2001:db8:1:2::1".parse().unwrap()));
///
/// let alice = KeyPart::Principal { issuer: "https://id.example.com", tenant: Some("acme"), subject: "alice" };
/// let parts = [alice, KeyPart::Route("/orders/{id}")];
/// let key = LimitKey::new("search", &parts);
/// assert_eq!(key.to_string(), "search:sub=22:https://id.example.com,5:alice,4:acme:route=12:/orders/{id}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitKey<'a> {
    scope: LimitScope<'a>,
    parts: &'a [KeyPart<'a>],
}

/// The name of a limiter, read once for all of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitScope<'a> {
    name: &'a str,
    hash: u64,
}

impl<'a> LimitScope<'a> {
    /// The limiter of this name.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self { name, hash: fnv(name.as_bytes()) }
    }

    /// The key of these parts together, in this order. Without parts it is one key for everybody.
    #[inline]
    #[must_use]
    pub const fn key(self, parts: &'a [KeyPart<'a>]) -> LimitKey<'a> {
        LimitKey { scope: self, parts }
    }

    #[inline]
    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) const fn with_hash(name: &'a str, hash: u64) -> Self {
        Self { name, hash }
    }
}

/// FNV-1a, for names that come from the owner, so that nobody looks for two that collide.
pub(super) const fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = tail;
    }
    hash
}

impl<'a> LimitKey<'a> {
    /// The key of these parts together, in this order. Without parts it is one key for everybody.
    #[must_use]
    #[inline]
    pub const fn new(scope: &'a str, parts: &'a [KeyPart<'a>]) -> Self {
        LimitScope::new(scope).key(parts)
    }

    /// Which limiter counts: limiters that share a store and not their counts have different scopes.
    #[must_use]
    #[inline]
    pub const fn scope(&self) -> &'a str {
        self.scope.name
    }

    /// Whose requests are counted.
    #[must_use]
    #[inline]
    pub const fn parts(&self) -> &'a [KeyPart<'a>] {
        self.parts
    }
}

/// One thing that tells requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyPart<'a> {
    /// The client's network. See [`network`](Self::network).
    Network {
        /// Its first address.
        prefix: IpAddr,
        /// How many of the bits count.
        bits: u8,
    },
    /// A principal, known by issuer and subject together (RFC 8725 §3.8), and by its tenant if it has one: the same subject in
    /// two tenants is two principals.
    Principal {
        /// Who vouches for the subject.
        issuer: &'a str,
        /// The tenant in which it has that name.
        tenant: Option<&'a str>,
        /// The name at that issuer, or in that tenant.
        subject: &'a str,
    },
    /// One credential, by its public id: an API key, a token's `jti`.
    Credential {
        /// Who vouches for it.
        issuer: &'a str,
        /// The id there.
        id: &'a str,
    },
    /// A tenant, at the issuer that names it.
    Tenant {
        /// Who vouches for it.
        issuer: &'a str,
        /// The name at that issuer.
        tenant: &'a str,
    },
    /// A route's template, such as `/orders/{id}`.
    Route(&'a str),
    /// What a header field says.
    Header {
        /// The field's name, in lower case.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// What a closure of the owner's made of the request.
    Custom(&'a str),
    /// What a closure of the owner's made of the identity: never the same as a text that anybody may send.
    Identity(&'a str),
    /// What the requests lack that are counted together for it.
    Missing,
}

impl LimitKey<'_> {
    /// The hash under a seed. One address alone, the key of most requests, takes a short way.
    #[inline]
    pub(super) fn hash_with(&self, seed: &impl BuildHasher) -> u64 {
        match self.parts {
            [KeyPart::Network { prefix: IpAddr::V4(v4), bits }] => {
                seed.hash_one((u128::from(self.scope.hash) << 64) | u128::from(v4_word(*v4, *bits)))
            }
            _ => seed.hash_one(self),
        }
    }
}

#[inline]
fn v4_word(v4: Ipv4Addr, bits: u8) -> u64 {
    (u64::from(v4.to_bits()) << 16) | (u64::from(bits) << 8)
}

impl<'a> KeyPart<'a> {
    /// The network of a client: one IPv4 address, or the first 64 bits of an IPv6 address, which is the least that one
    /// subscriber gets. An IPv6 address that stands for one of IPv4 is that: a mapped one, and one of a translator (`64:ff9b::/96`, RFC 6052
    /// §2.1), which nobody has on the Internet.
    #[must_use]
    #[inline]
    pub fn network(address: IpAddr) -> Self {
        match source(address) {
            v4 @ IpAddr::V4(_) => Self::Network { prefix: v4, bits: 32 },
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::Network { prefix: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), bits: 64 }
            }
        }
    }

    /// The network around it: a /24 of IPv4, a /48 of IPv6, which is what one site gets.
    #[must_use]
    pub fn wide_network(address: IpAddr) -> Self {
        match source(address) {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::Network { prefix: Ipv4Addr::new(a, b, c, 0).into(), bits: 24 }
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Self::Network { prefix: Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into(), bits: 48 }
            }
        }
    }

    /// A principal, by issuer, tenant and subject.
    #[must_use]
    pub fn principal(principal: &'a Principal) -> Self {
        Self::Principal { issuer: principal.issuer(), tenant: principal.tenant(), subject: principal.subject() }
    }

    /// Whether it counts for a network around it as well.
    pub(super) const fn has_wider(&self) -> bool {
        matches!(self, Self::Network { prefix: IpAddr::V6(_), .. })
    }

    /// A network as the wide one around it; anything else as it is.
    pub(super) fn widened(self) -> Self {
        match self {
            Self::Network { prefix, .. } => Self::wide_network(prefix),
            other => other,
        }
    }
}

impl Hash for LimitKey<'_> {
    /// In few words of full width: a limiter hashes every request's key.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.scope.hash);
        self.parts.iter().for_each(|part| part.hash(state));
    }
}

impl Hash for KeyPart<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Behind a tag and lengths, so that no choice of texts reads as another key.
        let texts = |state: &mut H, tag: u64, one: &str, other: &str| {
            state.write_u64(tag | ((one.len() as u64) << 8));
            state.write_usize(other.len());
            state.write(one.as_bytes());
            state.write(other.as_bytes());
        };
        match *self {
            Self::Network { prefix: IpAddr::V4(v4), bits } => {
                state.write_u64(v4_word(v4, bits));
            }
            Self::Network { prefix: IpAddr::V6(v6), bits } => {
                state.write_u64(8 | (u64::from(bits) << 8));
                state.write_u128(v6.to_bits());
            }
            Self::Principal { issuer, tenant: None, subject } => texts(state, 1, issuer, subject),
            Self::Principal { issuer, tenant: Some(tenant), subject } => {
                texts(state, 9, issuer, subject);
                state.write_usize(tenant.len());
                state.write(tenant.as_bytes());
            }
            Self::Credential { issuer, id } => texts(state, 2, issuer, id),
            Self::Tenant { issuer, tenant } => texts(state, 3, issuer, tenant),
            Self::Header { name, value } => texts(state, 4, name, value),
            Self::Route(template) => texts(state, 5, template, ""),
            Self::Custom(text) => texts(state, 6, text, ""),
            Self::Identity(text) => texts(state, 10, text, ""),
            Self::Missing => state.write_u64(7),
        }
    }
}

impl fmt::Display for LimitKey<'_> {
    /// `scope`, then `:part` for each part. Every text of a client's stands behind its length, so that no choice of one
    /// reaches into the next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope.name)?;
        self.parts.iter().try_for_each(|part| write!(f, ":{part}"))
    }
}

impl fmt::Display for KeyPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let two = |f: &mut fmt::Formatter<'_>, tag: &str, one: &str, other: &str| {
            write!(f, "{tag}={}:{one},{}:{other}", one.len(), other.len())
        };
        match *self {
            Self::Network { prefix, bits } => write!(f, "net={prefix}/{bits}"),
            Self::Principal { issuer, tenant, subject } => {
                two(f, "sub", issuer, subject)?;
                tenant.map_or(Ok(()), |tenant| write!(f, ",{}:{tenant}", tenant.len()))
            }
            Self::Credential { issuer, id } => two(f, "cred", issuer, id),
            Self::Tenant { issuer, tenant } => two(f, "tenant", issuer, tenant),
            Self::Route(template) => write!(f, "route={}:{template}", template.len()),
            Self::Header { name, value } => two(f, "header", name, value),
            Self::Custom(text) => write!(f, "custom={}:{text}", text.len()),
            Self::Identity(text) => write!(f, "identity={}:{text}", text.len()),
            Self::Missing => f.write_str("missing"),
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
    use std::{collections::HashSet, sync::LazyLock};

    use super::*;

    static BUILD: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);

    #[test]
    fn one_network_is_one_key() {
        for (name, one, other, same, same_wide) in [
            ("one IPv4 address", "192.0.2.1", "192.0.2.1", true, true),
            ("two IPv4 addresses", "192.0.2.1", "192.0.2.2", false, true),
            ("two /24", "192.0.2.1", "192.0.3.1", false, false),
            ("a mapped address", "192.0.2.1", "::ffff:192.0.2.1", true, true),
            ("two mapped addresses", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false, true),
            ("a translated address", "192.0.2.1", "64:ff9b::192.0.2.1", true, true),
            ("two translated addresses", "64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", false, true),
            ("two /24, translated", "64:ff9b::192.0.2.1", "64:ff9b::192.0.3.1", false, false),
            ("a local prefix of translators", "64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.3.1", true, true),
            ("one /64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true, true),
            ("two /64 of one /48", "2001:db8:0:1::1", "2001:db8:0:2::1", false, true),
            ("two /48", "2001:db8:1:1::1", "2001:db8:2:1::1", false, false),
        ] {
            let of = |part: fn(IpAddr) -> KeyPart<'static>, address: &str| part(address.parse().unwrap());
            for (part, same) in
                [(KeyPart::network as fn(IpAddr) -> KeyPart<'static>, same), (KeyPart::wide_network, same_wide)]
            {
                assert_eq!(of(part, one) == of(part, other), same, "{name}");
                assert_eq!(of(part, one).to_string() == of(part, other).to_string(), same, "{name}, as text");
            }
            assert_eq!(of(KeyPart::network, one).widened(), of(KeyPart::wide_network, one));
        }
    }

    #[test]
    fn no_choice_of_text_gives_somebody_elses_key() {
        let principal = |issuer, subject| vec![KeyPart::Principal { issuer, tenant: None, subject }];
        let member = |issuer, tenant, subject| vec![KeyPart::Principal { issuer, tenant: Some(tenant), subject }];
        let keys = [
            principal("a", "b:c"),
            principal("a:b", "c"),
            principal("a", "b"),
            principal("1:a", "b"),
            principal("", "a:b"),
            principal("", "1:a,1:b"),
            principal("net=192.0.2.1/32", ""),
            principal("a", "b,1:t"),
            member("a", "t", "b"),
            member("a", "u", "b"),
            member("a", "", "b"),
            member("a", "b", "t"),
            member("a", "t", ""),
            member("", "t", "ab"),
            member("t", "a", "b"),
            member("a", "t", "b,1:t"),
            [member("a", "t", "b"), member("a", "t", "b")].concat(),
            vec![KeyPart::Tenant { issuer: "a", tenant: "b" }],
            vec![KeyPart::Credential { issuer: "a", id: "b" }],
            vec![KeyPart::Header { name: "a", value: "b" }],
            vec![KeyPart::Custom("a"), KeyPart::Custom("b")],
            vec![KeyPart::Custom("a:custom=1:b")],
            vec![KeyPart::Custom("a")],
            vec![KeyPart::Route("a")],
            vec![KeyPart::Custom("missing")],
            vec![KeyPart::Identity("a")],
            vec![KeyPart::Identity("a:custom=1:b")],
            vec![KeyPart::Missing],
            vec![KeyPart::network("192.0.2.1".parse().unwrap())],
            vec![KeyPart::wide_network("192.0.2.1".parse().unwrap())],
            vec![],
        ];
        let hashes: HashSet<u64> = keys.iter().map(|parts| LimitKey::new("x", parts).hash_with(&*BUILD)).collect();
        assert_eq!(hashes.len(), keys.len());
        let mut texts: HashSet<String> = keys.iter().map(|parts| LimitKey::new("x", parts).to_string()).collect();
        texts.insert(LimitKey::new("y", &keys[0]).to_string());
        assert_eq!(texts.len(), keys.len() + 1);
    }

    #[test]
    fn a_scope_cannot_hold_a_separator() {
        assert!(valid_scope("search-2_b").is_ok());
        for scope in ["", "a:b", "Search", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(valid_scope(scope).unwrap_err().setting(), "scope", "{scope}");
        }
    }
}
