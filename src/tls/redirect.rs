//! Where plain HTTP is sent on to.

use std::{borrow::Cow, fmt::Write};

use http::{HeaderValue, Method, Uri, header};

use super::hosts::Hosts;
use crate::{
    error::ConfigError,
    evidence::Host,
    rejection::{Rejection, RejectionKind},
};

/// The hosts that a redirect may lead to.
#[derive(Clone, Debug)]
pub(super) struct Targets(Box<[Target]>);

#[derive(Clone, Debug)]
struct Target {
    name: Box<str>,
    /// As it is written in `Location`.
    authority: Box<str>,
}

impl Targets {
    pub(super) fn read<I: IntoIterator<Item: AsRef<str>>>(hosts: I) -> Result<Self, ConfigError> {
        let targets = hosts.into_iter().map(|host| Target::read(host.as_ref())).collect::<Result<Box<[_]>, _>>()?;
        if targets.is_empty() {
            return Err(ConfigError::new("redirect hosts", "[]", "must name a host"));
        }
        Ok(Self(targets))
    }

    /// The first target that is none of the hosts that are answered for.
    pub(super) fn outside(&self, hosts: &Hosts) -> Option<&str> {
        let outside = |target: &&Target| Host::parse(&target.authority).is_none_or(|host| !hosts.contain(&host, 443));
        self.0.iter().find(outside).map(|target| &*target.authority)
    }

    /// The redirect for this request, or why there is none. `host` is what the client asked for; its port is ignored.
    pub(super) fn answer(&self, method: &Method, uri: &Uri, host: Option<&str>) -> Result<Rejection, &'static str> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err("plain HTTP, and only GET and HEAD are redirected");
        }
        let host = host.and_then(Host::parse).ok_or("plain HTTP, and no host to redirect to")?;
        let target = self.0.iter().find(|target| target.name.eq_ignore_ascii_case(host.name));
        let target = target.ok_or("plain HTTP, and the host is not one of the redirect hosts")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if !path.starts_with('/') {
            return Err("plain HTTP, and the request target is not a path");
        }
        let location = HeaderValue::try_from(format!("https://{}{}", target.authority, as_uri(path)))
            .map_err(|_| "plain HTTP, and the path does not fit into Location")?;
        Ok(Rejection::new(RejectionKind::Redirect, "plain HTTP").with_header(header::LOCATION, location))
    }
}

/// A request target may hold bytes beyond ASCII, a `Location` may not: they are percent-encoded (RFC 3987 §3.1).
fn as_uri(path: &str) -> Cow<'_, str> {
    if path.is_ascii() {
        return Cow::Borrowed(path);
    }
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii() {
            uri.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    Cow::Owned(uri)
}

impl Target {
    fn read(text: &str) -> Result<Self, ConfigError> {
        match Host::parse(text) {
            Some(host) => Ok(Self { name: host.name.into(), authority: text.into() }),
            None => Err(ConfigError::new("redirect hosts", format!("{text:?}"), "is not a host, or host:port")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        for (name, hosts) in [
            ("empty list", &[][..]),
            ("scheme", &["https://api.example.com"]),
            ("path", &["api.example.com/"]),
            ("wildcard", &["*.example.com"]),
            ("empty item", &["api.example.com", ""]),
        ] {
            assert!(Targets::read(hosts).is_err(), "{name}");
        }
    }

    #[test]
    fn the_target_is_the_list_s() {
        let targets = Targets::read(["api.example.com", "shop.example.com:8443"]).unwrap();
        let location = |host: &str, uri: &str| {
            let answer = targets.answer(&Method::GET, &uri.parse().unwrap(), Some(host))?;
            let response = answer.to_response::<()>();
            assert_eq!(response.status(), 308);
            Ok::<_, &str>(response.headers()[header::LOCATION].to_str().unwrap().to_owned())
        };
        for (name, host, uri, expected) in [
            ("plain", "api.example.com", "/a/b", "https://api.example.com/a/b"),
            ("query", "api.example.com", "/a?next=/b&c", "https://api.example.com/a?next=/b&c"),
            ("encoded", "api.example.com", "/%0d%0aX:%20y", "https://api.example.com/%0d%0aX:%20y"),
            (
                "beyond ASCII",
                "api.example.com",
                "/caf\u{e9}?q=\u{20ac}",
                "https://api.example.com/caf%C3%A9?q=%E2%82%AC",
            ),
            ("request's port", "api.example.com:80", "/", "https://api.example.com/"),
            ("list's port", "shop.example.com:80", "/", "https://shop.example.com:8443/"),
            ("capitals", "API.Example.COM", "/", "https://api.example.com/"),
            ("two slashes", "api.example.com", "//evil.example/", "https://api.example.com//evil.example/"),
            ("absolute form", "api.example.com", "http://evil.example/a", "https://api.example.com/a"),
            ("absolute form without path", "api.example.com", "http://evil.example", "https://api.example.com/"),
        ] {
            assert_eq!(location(host, uri).as_deref(), Ok(expected), "{name}");
        }
        for (name, host, uri) in [
            ("another host", "evil.example", "/"),
            ("below a listed host", "evil.api.example.com", "/"),
            ("a listed host as prefix", "api.example.com.evil.example", "/"),
            ("user info", "api.example.com@evil.example", "/"),
            ("trailing dot", "api.example.com.", "/"),
            ("asterisk", "api.example.com", "*"),
        ] {
            assert!(location(host, uri).is_err(), "{name}");
        }
        assert!(targets.answer(&Method::GET, &Uri::from_static("/"), None).is_err());
        assert!(targets.answer(&Method::POST, &Uri::from_static("/"), Some("api.example.com")).is_err());
    }
}
