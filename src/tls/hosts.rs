//! Whether a request is for a host that this server answers for, and for the one that the handshake named.

use http::{header, uri::Authority};

use crate::{
    error::ConfigError,
    evidence::Host,
    head::RequestHead,
    rejection::{Rejection, RejectionKind},
};

/// The hosts that are answered for.
#[derive(Clone, Debug)]
pub(super) struct Hosts(Box<[Pattern]>);

#[derive(Clone, Debug)]
struct Pattern {
    /// With a wildcard: what stands right of the asterisk, dot included.
    name: Box<str>,
    any_label: bool,
    port: Option<u16>,
}

impl Hosts {
    pub(super) fn read<I: IntoIterator<Item: AsRef<str>>>(hosts: I) -> Result<Self, ConfigError> {
        let hosts = hosts.into_iter().map(|host| Pattern::read(host.as_ref())).collect::<Result<Box<[_]>, _>>()?;
        if hosts.is_empty() {
            return Err(ConfigError::new("hosts", "[]", "must name a host"));
        }
        Ok(Self(hosts))
    }

    /// `usual_port` is what a host without a port means.
    pub(super) fn contain(&self, host: &Host<'_>, usual_port: u16) -> bool {
        self.0.iter().any(|pattern| pattern.matches(host, usual_port))
    }
}

impl Pattern {
    fn read(text: &str) -> Result<Self, ConfigError> {
        let (name, any_label) = match text.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => (rest, true),
            _ => (text, false),
        };
        match Host::parse(name) {
            Some(host) if !(any_label && host.is_local_or_literal()) => {
                Ok(Self { name: without_dot(host.name).into(), any_label, port: host.port })
            }
            _ => Err(ConfigError::new("hosts", format!("{text:?}"), "is not a host, host:port or *.domain")),
        }
    }

    fn matches(&self, host: &Host<'_>, usual_port: u16) -> bool {
        let name = without_dot(host.name);
        let same = if self.any_label {
            name.find('.').is_some_and(|dot| dot > 0 && same(name.get(dot..).unwrap_or_default(), &self.name))
        } else {
            same(name, &self.name)
        };
        same && self.port.is_none_or(|port| host.port.unwrap_or(usual_port) == port)
    }
}

/// The host that a request is for: what a trusted proxy says, else the request target's authority or `Host`, which agree if
/// both are there (RFC 9113 §8.3.1, RFC 9112 §3.2). The error is the reason why it names none.
pub(super) fn named<'a>(head: &RequestHead<'a>, forwarded: Option<&'a str>) -> Result<Host<'a>, &'static str> {
    let text = match forwarded {
        Some(host) => host,
        None => only_host(head)?,
    };
    Host::parse(text).ok_or("what is asked for is not a host")
}

/// Refuses with `400` what names no single host, and with `421` what names another than the list or the handshake. A host without a
/// port means the usual one of the scheme.
pub(super) fn check(
    named: &Result<Host<'_>, &'static str>,
    listed: Option<&Hosts>,
    usual_port: u16,
    server_name: Option<&str>,
) -> Result<(), Rejection> {
    let misdirected = |reason: &'static str| Err(Rejection::new(RejectionKind::Misdirected, reason));
    let host = named.as_ref().map_err(|reason| Rejection::new(RejectionKind::InvalidRequest, *reason))?;
    if listed.is_some_and(|listed| !listed.contain(host, usual_port)) {
        return misdirected("a host that is not answered for");
    }
    if server_name.is_some_and(|server_name| !same(without_dot(host.name), without_dot(server_name))) {
        return misdirected("another host than the one that the handshake named");
    }
    Ok(())
}

fn only_host<'a>(head: &RequestHead<'a>) -> Result<&'a str, &'static str> {
    let mut lines = head.headers().get_all(header::HOST).iter();
    let host = match (lines.next(), lines.next()) {
        (None, _) => None,
        (Some(line), None) => Some(std::str::from_utf8(line.as_bytes()).map_err(|_| "Host is no text")?),
        (Some(_), Some(_)) => return Err("Host stands twice"),
    };
    match (head.uri().authority().map(Authority::as_str), host) {
        (Some(authority), Some(host)) if !same(authority, host) => Err("the request target and Host name two hosts"),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("no host"),
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// A name with a dot at its end is the same name.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn configuration() {
        for list in [
            &[][..],
            &[""],
            &["https://api.example.com"],
            &["api.example.com/"],
            &["*"],
            &["*.*.example.com"],
            &["a*.example.com"],
            &["*.localhost"],
            &["*.0.0.1"],
        ] {
            assert!(Hosts::read(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn hosts() {
        let list = ["api.example.com", "shop.example.com:8443", "pay.example.com:443", "*.cdn.example.com", "[::1]"];
        let listed = Hosts::read(list).unwrap();
        for (host, listed_host) in [
            ("api.example.com", true),
            ("API.example.com.", true),
            ("api.example.com:8443", true),
            ("shop.example.com:8443", true),
            ("shop.example.com", false),
            ("shop.example.com:443", false),
            ("pay.example.com:443", true),
            ("pay.example.com", true),
            ("pay.example.com:80", false),
            ("a.cdn.example.com", true),
            ("a.b.cdn.example.com", false),
            ("cdn.example.com", false),
            (".cdn.example.com", false),
            ("[::1]:8443", true),
            ("evil.api.example.com", false),
            ("api.example.com.evil.example", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(listed.contain(&Host::parse(host).unwrap(), 443), listed_host, "{host}");
        }
    }

    #[test]
    fn the_request_names_one_host() {
        let status = |uri: &str, hosts: &[&str], forwarded: Option<&str>| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(()).unwrap();
            let listed = Hosts::read(["a.example"]).unwrap();
            let answer = check(&named(&RequestHead::of(&request), forwarded), Some(&listed), 443, Some("a.example"));
            answer.map_or_else(|rejection| rejection.status().as_u16(), |()| 200)
        };
        for (name, uri, hosts, forwarded, expected) in [
            ("Host", "/", &["a.example"][..], None, 200),
            ("authority", "https://a.example/", &[], None, 200),
            ("both", "https://a.example/", &["A.example"], None, 200),
            ("both, and they differ", "https://a.example/", &["b.example"], None, 400),
            ("both, and the ports differ", "https://a.example:8443/", &["a.example"], None, 400),
            ("none", "/", &[], None, 400),
            ("two", "/", &["a.example", "a.example"], None, 400),
            ("no host", "/", &["a.example/b"], None, 400),
            ("user information", "/", &["a.example@b.example"], None, 400),
            ("another", "/", &["b.example"], None, 421),
            ("a proxy's word", "/", &["internal"], Some("a.example"), 200),
            ("a proxy's word, another", "/", &["a.example"], Some("b.example"), 421),
        ] {
            assert_eq!(status(uri, hosts, forwarded), expected, "{name}");
        }
    }
}
