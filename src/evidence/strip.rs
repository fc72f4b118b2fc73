//! The forwarding headers of a request, and which of them a handler must not see.

use http::{HeaderMap, HeaderName};

use super::trust::Family;

/// What is removed before the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strip {
    Nothing,
    /// Everything but what the configured family's proxy wrote, if it came from one.
    AllBut(Option<Family>),
}

impl Strip {
    /// Looks at each name once; allocates nothing.
    pub(super) fn needed(headers: &HeaderMap, believed: Option<Family>) -> Self {
        if headers.keys().any(|name| is_stray(name, believed)) { Self::AllBut(believed) } else { Self::Nothing }
    }

    pub(super) fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Nothing => {}
            Self::AllBut(believed) => {
                let stray: Vec<HeaderName> =
                    headers.keys().filter(|name| is_stray(name, believed)).map(HeaderName::clone).collect();
                for name in stray {
                    headers.remove(name);
                }
            }
        }
    }
}

/// Whether this crate's layers would take the request for a forwarded one.
pub(crate) fn any_forwarding(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_stray(name, None))
}

fn is_stray(name: &HeaderName, believed: Option<Family>) -> bool {
    match Kind::of(name.as_str()) {
        None => false,
        Some(Kind::Of(family)) => believed != Some(family),
        Some(Kind::Other) => true,
    }
}

/// A forwarding header.
enum Kind {
    Of(Family),
    /// Of no family that can be configured, or spelt so that only a gateway would take it for one.
    Other,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name.as_bytes() {
            b"forwarded" => Some(Self::Of(Family::Forwarded)),
            [b'x', b'-' | b'_', rest @ ..] => Self::of_x(name, rest),
            _ => None,
        }
    }

    fn of_x(name: &str, rest: &[u8]) -> Option<Self> {
        if rest.starts_with(b"forwarded") {
            let family = name.starts_with("x-forwarded-") && !name.contains('_');
            return Some(if family { Self::Of(Family::XForwarded) } else { Self::Other });
        }
        matches!(rest, [b'r', b'e', b'a', b'l', b'-' | b'_', b'i', b'p']).then_some(Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ALL: [&str; 13] = [
        "forwarded",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-forwarded-client-cert",
        "x-real-ip",
        "x_forwarded_for",
        "x-forwarded_for",
        "x_real_ip",
    ];

    fn left(believed: Option<Family>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in ALL.into_iter().chain(["host", "x-request-id", "forwarded-x", "x-real-ip-address"]) {
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }
        let strip = Strip::needed(&headers, believed);
        assert_eq!(strip, Strip::AllBut(believed));
        strip.apply(&mut headers);
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn only_the_believed_family_stays() {
        let others = ["forwarded-x", "host", "x-real-ip-address", "x-request-id"];
        assert_eq!(left(None), others);
        assert_eq!(
            left(Some(Family::Forwarded)),
            ["forwarded", "forwarded-x", "host", "x-real-ip-address", "x-request-id"]
        );
        let x_forwarded = left(Some(Family::XForwarded));
        assert_eq!(x_forwarded.iter().filter(|name| name.starts_with("x-forwarded-")).count(), 7);
        assert_eq!(x_forwarded.len(), 7 + others.len());
    }

    #[test]
    fn nothing_is_removed_where_nothing_is_stray() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        assert_eq!(Strip::needed(&headers, Some(Family::XForwarded)), Strip::Nothing);
        assert!(any_forwarding(&headers));
    }
}
