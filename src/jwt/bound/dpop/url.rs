//! The URL that a proof is for, compared by syntax and scheme (RFC 3986 §6.2.2, §6.2.3; RFC 9449 §4.3).

/// A normalised `http` or `https` URL without query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Scheme, host and port; a default port is left out.
    pub(super) origin: String,
    pub(super) path: String,
}

impl Url {
    /// None for what is no such URL, user information included.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(authority_end)?;
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        Some(Self { origin: origin(scheme, authority)?, path: path_of(path)? })
    }
}

/// Scheme and authority as one, in one form.
pub(super) fn origin(scheme: &str, authority: &str) -> Option<String> {
    let (scheme, default_port) = match scheme {
        scheme if scheme.eq_ignore_ascii_case("https") => ("https", 443),
        scheme if scheme.eq_ignore_ascii_case("http") => ("http", 80),
        _ => return None,
    };
    let port_at = match authority.rfind(']') {
        Some(bracket) => bracket.checked_add(1)?,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(port_at)?;
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return None,
    };
    if !is_host || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut origin = format!("{scheme}://{host}");
    origin.make_ascii_lowercase();
    if !digits.is_empty() {
        let port: u16 = digits.parse().ok()?;
        if port != default_port {
            origin = format!("{origin}:{port}");
        }
    }
    Some(origin)
}

/// A path in one form: escapes in upper case, none where none is needed, no dot segments, and never empty. None if it is no
/// absolute path, or an escape is broken.
pub(super) fn path_of(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("/".to_owned());
    }
    let unescaped = unescape(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = unescaped.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = rest.next() {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => {
                segments.push(segment);
                continue;
            }
        }
        // What a dot segment at the end leads to is a folder.
        if rest.peek().is_none() {
            segments.push("");
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Whether [`path_of`] leaves a path, or a part of one, as it is: by its characters alone, so that some that are normal are not
/// told.
pub(super) fn is_normal(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'~'))
        && (path.is_empty() || path.starts_with('/'))
}

fn unescape(path: &str) -> Option<std::borrow::Cow<'_, str>> {
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    if !path.contains('%') {
        return Some(path.into());
    }
    let mut parts = path.split('%');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (digits, after) = part.split_at_checked(2)?;
        let byte = match digits.as_bytes() {
            [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&digits.to_ascii_uppercase());
        }
        text.push_str(after);
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_in_one_form() {
        let rows = [
            // RFC 3986 §6.2.2.
            ("HTTPS://API.Example.com:443/%7Efoo/./bar/../%2fx", "https://api.example.com", "/~foo/%2Fx"),
            ("https://api.example.com", "https://api.example.com", "/"),
            ("https://api.example.com:/", "https://api.example.com", "/"),
            ("https://api.example.com?q=1#f", "https://api.example.com", "/"),
            ("https://api.example.com/a?b=/../c", "https://api.example.com", "/a"),
            ("https://api.example.com/a#b?c", "https://api.example.com", "/a"),
            ("https://api.example.com:8443/a/", "https://api.example.com:8443", "/a/"),
            ("https://api.example.com:0443/a", "https://api.example.com", "/a"),
            ("http://[2001:DB8::1]:80/A", "http://[2001:db8::1]", "/A"),
            ("http://api.example.com:443/", "http://api.example.com:443", "/"),
            ("https://a/b/%2e%2E/c", "https://a", "/c"),
            ("https://a/b/..", "https://a", "/"),
            ("https://a/b/c/.", "https://a", "/b/c/"),
            ("https://a/../../b", "https://a", "/b"),
            ("https://a/b//c", "https://a", "/b//c"),
            ("https://a/b/...", "https://a", "/b/..."),
            ("https://a/%c3%a4;x=1", "https://a", "/%C3%A4;x=1"),
        ];
        for (text, origin, path) in rows {
            assert_eq!(Url::read(text), Some(Url { origin: origin.into(), path: path.into() }), "{text}");
        }
        for text in [
            "",
            "/orders",
            "api.example.com/orders",
            "ftp://a/",
            "https:/a/b",
            "https://",
            "https:///a",
            "https://u@a/",
            "https://u:p@a/",
            "https://a:x/",
            "https://a:65536/",
            "https://a:1:2/",
            "https://[::1/",
            "https://[::g]/",
            "https://[::1]x/",
            "https://a%2eb/",
            "https://ä/",
            "https://a/%",
            "https://a/%4",
            "https://a/%zz",
            "https://a/%+1",
            "https://a/b c",
            "https://a/b\nc",
        ] {
            assert_eq!(Url::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_called_normal_stays_as_it_is(path in "/?[/a-zA-Z0-9_~.%-]{0,6}") {
            if is_normal(&path) && !path.is_empty() {
                prop_assert_eq!(path_of(&path), Some(path));
            }
        }

        #[test]
        fn normal_is_normal(path in "(/[a-zA-Z.%0-9~é-]{0,6}){0,6}", anything in ".{0,40}") {
            let _ = Url::read(&anything);
            if let Some(once) = path_of(&path) {
                prop_assert_eq!(path_of(&once), Some(once.clone()));
                prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
