//! How counts are called in Redis.

use std::fmt::{self, Write};

use aws_lc_rs::digest::{SHA256, digest};

use crate::rate_limit::{Charge, KeyPart, LimitKey, key::fnv};

/// The longest text of a key that stands in Redis as it is; of a longer one its SHA-256 does.
const MAX_PLAIN: usize = 200;

/// So long are most names at most, in bytes.
const USUAL: usize = 128;

/// `prefix{tag}:policy's name:key`. The tag is the same for all that one decision of a limiter takes from, so that they stand
/// in one slot of a cluster: a number for the key, in which networks are the wide ones around them.
pub(super) fn of(prefix: &str, charge: &Charge<'_>) -> String {
    let (key, name) = (charge.key(), charge.quota().name());
    let mut text = String::with_capacity(USUAL);
    let _ = write!(text, "{}", Widened(key));
    let tag = fnv(text.as_bytes());
    text.clear();
    let _ = write!(text, "{prefix}{{{tag:016x}}}:{}:{name}:", name.len());
    let start = text.len();
    let _ = write!(text, "{key}");
    if text.len().saturating_sub(start) > MAX_PLAIN {
        let long = text.split_off(start);
        text.push_str("sha256=");
        for byte in digest(&SHA256, long.as_bytes()).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

struct Widened<'a>(&'a LimitKey<'a>);

impl fmt::Display for Widened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.scope())?;
        self.0.parts().iter().copied().map(KeyPart::widened).try_for_each(|part| write!(f, ":{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::Quota;

    fn name(scope: &str, parts: &[KeyPart<'_>], quota: &Quota) -> String {
        of("p:", &Charge::new(LimitKey::new(scope, parts), quota))
    }

    fn tag(name: &str) -> &str {
        name.split(['{', '}']).nth(1).unwrap()
    }

    #[test]
    fn a_name_tells_keys_and_policies_apart() {
        let (one, other) = (Quota::per_second(1), Quota::per_day(1).named("day"));
        let part = [KeyPart::Custom("a")];
        let text = name("search", &part, &one);
        assert!(text.starts_with("p:{") && text.ends_with("}:7:default:search:custom=1:a"), "{text}");
        assert_eq!(text, name("search", &part, &Quota::per_hour(9)), "the numbers of a quota do not count");
        assert_ne!(text, name("search", &part, &other));
        assert_eq!(tag(&text), tag(&name("search", &part, &other)));
        assert_ne!(tag(&text), tag(&name("search", &[KeyPart::Custom("b")], &one)));
    }

    #[test]
    fn a_network_and_the_one_around_it_stand_in_one_slot() {
        let quota = Quota::per_second(1);
        let address = "2001:db8:1:2::3".parse().unwrap();
        let inner = name("client", &[KeyPart::network(address)], &quota);
        let around = name("client", &[KeyPart::wide_network(address)], &quota);
        assert_ne!(inner, around);
        assert_eq!(tag(&inner), tag(&around));
    }

    #[test]
    fn what_a_client_writes_moves_no_tag_and_takes_no_room() {
        let quota = Quota::per_second(1);
        let braces = name("x", &[KeyPart::Custom("}{a}")], &quota);
        assert_eq!(tag(&braces).len(), 16);
        let (long, longer) = ("x".repeat(5_000), "x".repeat(5_001));
        let (one, other) =
            (name("x", &[KeyPart::Custom(&long)], &quota), name("x", &[KeyPart::Custom(&longer)], &quota));
        assert!(one.len() < 200 && other.len() < 200);
        assert_ne!(one, other);
    }
}
