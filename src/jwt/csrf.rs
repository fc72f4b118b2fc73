use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{error::ConfigError, head::RequestHead};

/// Which requests may be authenticated by a cookie: browsers send it along whoever caused the request, another site
/// included (cross-site request forgery, OWASP ASVS 5.0, 3.5.1).
///
/// Requests with `GET`, `HEAD`, `OPTIONS` or `TRACE` pass, because they change nothing (a service whose `GET` does is not
/// protected), unless they ask for an upgrade, to a WebSocket for example, or bring `Sec-WebSocket-Key`. All others, an
/// extended `CONNECT` among them, pass if the browser says
///
/// - `Sec-Fetch-Site: same-origin`, or `none`: the user typed the address or opened a bookmark (Fetch Metadata), or
/// - an `Origin` that is listed here (RFC 6454 §7), byte for byte.
///
/// A request that says neither is refused, and so is one that says either twice. Programs that are not browsers should send
/// a token in `Authorization`, which needs no such rule.
///
/// ```
/// use portcullis::jwt::CsrfRules;
///
/// let rules = CsrfRules::origins(["https://app.example.com"])?;
/// assert!(CsrfRules::origins(["https://app.example.com/"]).is_err(), "an origin has no path");
/// # let _ = rules;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CsrfRules {
    origins: Box<[Box<str>]>,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl CsrfRules {
    /// Besides requests of the own origin, takes those of these origins: `scheme://host` or `scheme://host:port`, in lower
    /// case, as browsers write it. List the service's own origin too: browsers before 2023 do not all send `Sec-Fetch-Site`.
    /// `http` is only for `localhost` and loopback addresses.
    ///
    /// # Errors
    /// If there is no origin, or one is not of that form: with a path, the scheme's own port, a wildcard, or `null`.
    pub fn origins<T: Into<String>>(origins: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
        if origins.is_empty() {
            return Err(ConfigError::new(
                "CSRF origins",
                "none",
                "must be at least one, or say CsrfRules::same_origin",
            ));
        }
        for origin in &origins {
            check(origin).map_err(|problem| ConfigError::new("CSRF origin", format!("{origin:?}"), problem))?;
        }
        Ok(Self { origins: origins.into_iter().map(Into::into).collect() })
    }

    /// Takes requests of the own origin alone, from browsers that send `Sec-Fetch-Site`.
    #[must_use]
    pub fn same_origin() -> Self {
        Self { origins: Box::default() }
    }

    /// Whether a cookie may speak for the sender of this request.
    pub(super) fn admit(&self, head: &RequestHead<'_>) -> bool {
        let headers = head.headers();
        let safe = matches!(*head.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
        if safe && !headers.contains_key(header::UPGRADE) && !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            return true;
        }
        match (once(headers, &SEC_FETCH_SITE), once(headers, &header::ORIGIN)) {
            (Err(Twice), _) | (_, Err(Twice)) => false,
            (Ok(Some(b"same-origin" | b"none")), _) => true,
            (Ok(_), Ok(Some(origin))) => self.origins.iter().any(|listed| listed.as_bytes() == origin),
            (Ok(_), Ok(None)) => false,
        }
    }
}

struct Twice;

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Twice> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Twice),
    }
}

fn check(origin: &str) -> Result<(), &'static str> {
    const FORM: &str = "must be scheme://host or scheme://host:port in lower case, without a path";
    let (scheme, rest) = origin.split_once("://").ok_or(FORM)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    };
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let of_address = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b':');
    let fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(of_address),
        None => !host.is_empty() && host.bytes().all(of_name),
    };
    if !fits {
        return Err(FORM);
    }
    let default_port = match scheme {
        "https" => "443",
        "http" if matches!(host, "localhost" | "127.0.0.1" | "[::1]") => "80",
        "http" => return Err("must be https: http is for loopback hosts alone"),
        _ => return Err(FORM),
    };
    match port {
        None => Ok(()),
        Some(port) if port == default_port => Err("has the scheme's own port, which browsers leave out"),
        Some(port) if !port.starts_with('0') && port.parse::<u16>().is_ok_and(|_| !port.starts_with('+')) => Ok(()),
        Some(_) => Err(FORM),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "https://[2001:db8::1]",
        ] {
            assert!(CsrfRules::origins([good]).is_ok(), "{good}");
        }
        for bad in [
            "",
            "null",
            "*",
            "app.example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://app.example.com:",
            "https://app.example.com:0",
            "https://app.example.com:+1",
            "https://app.example.com:99999",
            "https://App.example.com",
            "https://user@app.example.com",
            "https://app.example.com?x",
            "http://app.example.com",
            "http://localhost:80",
            "ftp://localhost",
            "chrome-extension://abc",
            "https://[::g]",
        ] {
            assert!(CsrfRules::origins([bad]).is_err(), "{bad}");
        }
        assert!(CsrfRules::origins([""; 0]).is_err());
    }

    #[test]
    fn who_may_be_spoken_for() {
        let listed = CsrfRules::origins(["https://app.example.com", "https://b.example.com"]).unwrap();
        const SITE: &str = "sec-fetch-site";
        const FROM: &str = "origin";
        const APP: (&str, &str) = (FROM, "https://app.example.com");
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(&str, &str, Fields, bool, bool); 26] = [
            ("plain GET", "GET", &[], true, true),
            ("cross-site GET", "GET", &[(SITE, "cross-site")], true, true),
            ("HEAD", "HEAD", &[(SITE, "cross-site")], true, true),
            ("POST that says nothing", "POST", &[], false, false),
            ("same origin", "POST", &[(SITE, "same-origin")], true, true),
            ("by the user", "POST", &[(SITE, "none")], true, true),
            ("same site", "POST", &[(SITE, "same-site")], false, false),
            ("cross site", "POST", &[(SITE, "cross-site")], false, false),
            ("unknown site", "POST", &[(SITE, "other")], false, false),
            ("capitals", "POST", &[(SITE, "Same-Origin")], false, false),
            ("cross site, listed", "POST", &[(SITE, "cross-site"), APP], true, false),
            ("listed", "DELETE", &[APP], true, false),
            ("the second listed", "PUT", &[(FROM, "https://b.example.com")], true, false),
            ("not listed", "POST", &[(FROM, "https://evil.example")], false, false),
            ("null", "POST", &[(FROM, "null")], false, false),
            ("listed, other scheme", "POST", &[(FROM, "http://app.example.com")], false, false),
            ("listed, with more", "POST", &[(FROM, "https://app.example.com.evil.example")], false, false),
            ("listed, in capitals", "POST", &[(FROM, "https://APP.example.com")], false, false),
            ("two origins", "POST", &[APP, (FROM, "https://evil.example")], false, false),
            ("two sites", "POST", &[(SITE, "cross-site"), (SITE, "same-origin")], false, false),
            ("listed, two sites", "POST", &[APP, (SITE, "cross-site"), (SITE, "same-origin")], false, false),
            ("WebSocket", "GET", &[("upgrade", "websocket")], false, false),
            ("WebSocket of a site", "GET", &[("upgrade", "websocket"), (SITE, "cross-site")], false, false),
            ("WebSocket, listed", "GET", &[("upgrade", "websocket"), APP], true, false),
            ("WebSocket without upgrade", "GET", &[("sec-websocket-key", "x")], false, false),
            ("WebSocket over HTTP/2", "CONNECT", &[(FROM, "https://evil.example")], false, false),
        ];
        for (name, method, fields, by_list, by_site) in rows {
            let mut request = Request::new(());
            *request.method_mut() = method.parse().unwrap();
            for (name, value) in fields {
                request.headers_mut().append(*name, value.parse().unwrap());
            }
            let head = RequestHead::of(&request);
            assert_eq!(listed.admit(&head), by_list, "{name}");
            assert_eq!(CsrfRules::same_origin().admit(&head), by_site, "{name}");
        }
    }
}
