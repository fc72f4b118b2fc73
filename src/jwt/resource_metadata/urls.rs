//! The URLs that stand in the document.

use crate::{error::ConfigError, jwt::resource_metadata::WELL_KNOWN};

/// The longest URL, in bytes.
const MAX_LEN: usize = 2_048;

/// A resource's identifier: host and path of an `https` URL in the one spelling that clients which normalise it leave as it
/// is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identifier<'a> {
    host: &'a str,
    path: &'a str,
}

impl<'a> Identifier<'a> {
    pub(super) fn parse(resource: &'a str) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| ConfigError::new("resource", format!("{resource:?}"), problem);
        let rest = https(resource).ok_or_else(|| refuse("must be an https URL (RFC 9728 §2)"))?;
        if resource.contains('#') {
            return Err(refuse("must have no fragment (RFC 9728 §2)"));
        }
        if resource.contains('?') {
            return Err(refuse("must have no query: a path says which resource it is (RFC 8707 §2)"));
        }
        let (host, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
        if !is_host(host) {
            return Err(refuse("must have a host in lower case, and no user name and no port 443"));
        }
        if !is_path(path) {
            let problem =
                "must have a path of letters, digits and -._~!$&'()+,;=@ without empty segments, \".\" and \"..\"";
            return Err(refuse(problem));
        }
        Ok(Self { host, path: if path == "/" { "" } else { path } })
    }

    /// The path of its metadata: what it ends with, a slash alone excepted, stands behind the well-known path.
    pub(super) fn metadata_path(&self) -> String {
        format!("{WELL_KNOWN}{}", self.path)
    }

    pub(super) fn metadata_url(&self) -> String {
        format!("https://{}{}", self.host, self.metadata_path())
    }
}

/// What follows `https://`; none of what is too long, or has characters that no URL has.
fn https(url: &str) -> Option<&str> {
    let allowed = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    let fits = url.len() <= MAX_LEN && url.bytes().all(allowed);
    url.strip_prefix("https://").filter(|rest| fits && !rest.is_empty())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => match (address.parse::<std::net::Ipv6Addr>(), rest.strip_prefix(':')) {
            (Ok(parsed), port) if parsed.to_string() == address && (port.is_some() || rest.is_empty()) => ("ip", port),
            _ => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let good_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number != 0 && number != 443 && number.to_string() == port)
    });
    good_port && !name.is_empty() && !name.starts_with('.') && name.bytes().all(named)
}

/// Whether a path is its own only spelling, to clients, to axum and to a stack's table.
fn is_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=@".contains(&byte);
    let is_segment = |(last, segment): (bool, &str)| {
        segment != "." && segment != ".." && segment.bytes().all(allowed) && (last || !segment.is_empty())
    };
    let Some(path) = path.strip_prefix('/') else { return path.is_empty() };
    let count = path.split('/').count();
    path.split('/').enumerate().map(|(index, segment)| (index.saturating_add(1) == count, segment)).all(is_segment)
}

/// The identifier of an issuer (RFC 8414 §2).
pub(super) fn check_issuer(issuer: &str) -> Result<(), ConfigError> {
    if https(issuer).is_none_or(|rest| rest.contains(['?', '#', '@'])) {
        let problem = "must be an https URL without query and fragment (RFC 8414 §2)";
        return Err(ConfigError::new("authorization server", format!("{issuer:?}"), problem));
    }
    Ok(())
}

/// A page or a document elsewhere.
pub(super) fn check_page(setting: &'static str, url: Option<&str>) -> Result<(), ConfigError> {
    match url.filter(|url| https(url).is_none_or(|rest| rest.starts_with(['/', '?', '#', '@']))) {
        Some(url) => Err(ConfigError::new(setting, format!("{url:?}"), "must be an https URL")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_metadata_of_a_resource_stands() {
        // Those of RFC 9728 §3.1 among them.
        for (resource, url) in [
            ("https://resource.example.com", "https://resource.example.com/.well-known/oauth-protected-resource"),
            ("https://resource.example.com/", "https://resource.example.com/.well-known/oauth-protected-resource"),
            (
                "https://resource.example.com/resource1",
                "https://resource.example.com/.well-known/oauth-protected-resource/resource1",
            ),
            ("https://a.example:8443/v1/mcp", "https://a.example:8443/.well-known/oauth-protected-resource/v1/mcp"),
            ("https://a.example/v1/", "https://a.example/.well-known/oauth-protected-resource/v1/"),
            ("https://[::1]:8443/a", "https://[::1]:8443/.well-known/oauth-protected-resource/a"),
        ] {
            assert_eq!(Identifier::parse(resource).unwrap().metadata_url(), url);
        }
    }

    #[test]
    fn what_is_no_identifier() {
        for resource in [
            "",
            "https://",
            "http://api.example.com",
            "HTTPS://api.example.com",
            "api.example.com",
            "urn:orders",
            "https:///orders",
            "https://api.example.com#x",
            "https://api.example.com/a#",
            "https://api.example.com?tenant=1",
            "https://api.example.com/a?b",
            "https://API.example.com",
            "https://alice@api.example.com",
            "https://alice:secret@api.example.com/a",
            "https://api.example.com:443",
            "https://api.example.com:0",
            "https://api.example.com:08443",
            "https://api.example.com:99999",
            "https://api.example.com:",
            "https://.example.com",
            "https://[::0]/",
            "https://[::1/",
            "https://[::1]x/",
            "https://api.example.com//a",
            "https://api.example.com/a//b",
            "https://api.example.com/a/../b",
            "https://api.example.com/./b",
            "https://api.example.com/%2e%2e/b",
            "https://api.example.com/{id}",
            "https://api.example.com/:id",
            "https://api.example.com/*",
            "https://api.example.com/a b",
            "https://api.example.com/\u{e4}",
            "https://api.example.com/a\r\nX: y",
        ] {
            assert!(Identifier::parse(resource).is_err(), "{resource}");
        }
        assert!(Identifier::parse(&format!("https://a.example/{}", "x".repeat(MAX_LEN))).is_err());
    }
}
