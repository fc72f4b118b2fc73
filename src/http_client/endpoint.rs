use std::{fmt, str::FromStr};

use http::Uri;

use crate::{error::ConfigError, loopback::is_loopback};

/// A URL that may be fetched: `https`, or `http` to this machine where that was chosen. No user name, no fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    uri: Uri,
    text: Box<str>,
}

/// A URL as it was said. What stands before an `@` or in a query may be secret, and is not shown.
#[cfg(any(feature = "introspection", feature = "jwt-remote"))]
#[derive(Clone)]
pub(crate) struct UrlText(pub(crate) String);

#[cfg(any(feature = "introspection", feature = "jwt-remote"))]
impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(Endpoint::shown_of(&self.0).unwrap_or("a URL"), f)
    }
}

impl Endpoint {
    /// Reads a URL. What two readers could take for different hosts is refused.
    pub(crate) fn parse(text: &str, http_on_loopback: bool) -> Result<Self, ConfigError> {
        let shown = Self::shown_of(text).map_or_else(|| "a URL".to_owned(), |shown| format!("{shown:?}"));
        let refuse = |problem: &str| Err(ConfigError::new("URL", &*shown, problem));
        if text.len() > 2048 || !text.bytes().all(|byte| byte.is_ascii_graphic() && !br#"\"<>^`{|}#"#.contains(&byte)) {
            return refuse("is too long, or has characters that a URL to fetch must not have");
        }
        let Ok(uri) = Uri::from_str(text) else { return refuse("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refuse("has no scheme or no host");
        };
        if authority.as_str().contains('@') {
            return refuse("has a user name in it");
        }
        let host = authority.host();
        // What is no number would be read as no port here, and as something else by the client.
        let is_port = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
        let port = authority.as_str().strip_prefix(host).unwrap_or(host);
        if host.is_empty() || !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
            return refuse("has no host, or a port that is not one");
        }
        match scheme {
            "https" => {}
            "http" if http_on_loopback && is_loopback(host) => {}
            "http" if http_on_loopback => return refuse("is plain http to another machine"),
            _ => return refuse("must be https"),
        }
        Ok(Self { text: text.into(), uri })
    }

    /// What may be shown of a URL that was not read yet: what stands before an `@` may be a password, and a query a key.
    pub(crate) fn shown_of(text: &str) -> Option<&str> {
        if text.contains('@') { None } else { text.split(['?', '#']).next() }
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host in lower case.
    pub(crate) fn host(&self) -> String {
        self.uri.host().unwrap_or_default().to_ascii_lowercase()
    }

    /// The path of an issuer, without a slash at its end.
    pub(crate) fn path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// Scheme, host and port (RFC 6454 §4).
    pub(crate) fn origin(&self) -> (&str, String, u16) {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        (scheme, self.host(), port)
    }

    /// Scheme and authority, to put a path behind.
    pub(crate) fn base(&self) -> String {
        let authority = self.uri.authority().map_or("", http::uri::Authority::as_str);
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }

    /// The URL without its query, for logs.
    pub(crate) fn shown(&self) -> &str {
        self.text.split_once('?').map_or(&self.text, |(shown, _)| shown)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_fetched() {
        for url in [
            "https://id.example.com",
            "https://id.example.com:8443/a/b?c=d",
            "https://[::1]/jwks",
            "https://10.0.0.7/x",
        ] {
            assert!(Endpoint::parse(url, false).is_ok(), "{url}");
        }
        for url in [
            "",
            "id.example.com",
            "/jwks",
            "http://id.example.com",
            "http://127.0.0.1/jwks",
            "ftp://id.example.com",
            "file:///etc/passwd",
            "HTTPS//id.example.com",
            "https://",
            "https:///jwks",
            "https://:443/jwks",
            "https://id.example.com:/jwks",
            "https://id.example.com:$8443/jwks",
            "https://id.example.com:+443/jwks",
            "https://id.example.com:99999/jwks",
            "https://id.example.com:443:444/jwks",
            "https://[::1]x/jwks",
            "https://user@id.example.com",
            "https://user:password@id.example.com",
            "https://good.example\\@bad.example",
            "https://id.example.com#@bad.example",
            "https://id.example.com/a b",
            "https://id.example.com/\r\nx",
            "https://id.éxample.com",
        ] {
            assert!(Endpoint::parse(url, false).is_err(), "{url}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for url in ["http://127.0.0.1:80/", "http://127.9.9.9/", "http://[::1]:8080/jwks", "http://localhost/jwks"] {
            assert!(Endpoint::parse(url, true).is_ok(), "{url}");
        }
        for url in
            ["http://10.0.0.1/", "http://localhost.example.com/", "http://0.0.0.0/", "http://127.0.0.1.example.com/"]
        {
            assert!(Endpoint::parse(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn origins_and_what_logs_show() {
        let parse = |url| Endpoint::parse(url, true).unwrap();
        assert_eq!(parse("https://ID.example.com/a").origin(), parse("https://id.example.com:443/b").origin());
        assert_ne!(parse("https://localhost/a").origin(), parse("http://localhost:443/a").origin());
        assert_ne!(parse("https://id.example.com/").origin(), parse("https://id.example.com:444/").origin());
        assert_eq!(parse("https://id.example.com/a?code=secret").to_string(), "https://id.example.com/a");
    }
}
