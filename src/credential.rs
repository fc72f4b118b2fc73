//! Strict reading of the header fields that carry credentials.

#[cfg(any(
    feature = "api-key",
    feature = "audit",
    feature = "jwt",
    feature = "jwt-pure-rust",
    feature = "rate-limit",
    feature = "tls"
))]
pub(crate) mod fields;

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::rejection::{Rejection, RejectionKind};

/// The largest credential that is looked at, in bytes. A longer one refuses the request with `400`.
pub const MAX_CREDENTIAL_LEN: usize = 16 * 1024;

/// A scheme and its token, read from `Authorization`. `Debug` hides the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    scheme: &'a str,
    token: &'a str,
}

impl<'a> Credential<'a> {
    /// The scheme as it was sent; compare with [`is_scheme`](Self::is_scheme).
    #[must_use]
    pub const fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// Whether the scheme is this one, whatever its case (RFC 9110 §11.1).
    #[must_use]
    pub fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The token68 after the scheme.
    #[must_use]
    pub const fn token(&self) -> &'a str {
        self.token
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
    only(headers, name)?.map(text).transpose()
}

/// Reads a field that stands once.
pub(crate) fn text(value: &HeaderValue) -> Result<&str, Rejection> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) if !text.is_empty() && text.len() <= MAX_CREDENTIAL_LEN && is_visible(text) => Ok(text),
        Ok(_) | Err(_) => Err(malformed("a credential header is empty, too long or not visible ASCII")),
    }
}

pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Rejection> {
    let Some(value) = only(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    let bytes = value.as_bytes();
    let form = |(scheme, token): &(&[u8], &[u8])| is_scheme(scheme) && is_token68(token);
    let parts = split(bytes).filter(|_| bytes.len() <= MAX_CREDENTIAL_LEN).filter(form);
    match parts.map(|(scheme, token)| (str::from_utf8(scheme), str::from_utf8(token))) {
        Some((Ok(scheme), Ok(token))) => Ok(Some(Credential { scheme, token })),
        _ => Err(malformed_authorization(value)),
    }
}

/// What of the form it does not have.
#[cold]
fn malformed_authorization(value: &HeaderValue) -> Rejection {
    match text(value) {
        Err(not_text) => not_text,
        Ok(text) if !text.contains(' ') => malformed("Authorization has no space after its scheme"),
        Ok(_) => malformed("Authorization is not a scheme and a token68"),
    }
}

/// What stands before the spaces, and what behind them.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (scheme, mut token) = value.split_at_checked(value.iter().position(|&byte| byte == b' ')?)?;
    while let Some(rest) = token.strip_prefix(b" ") {
        token = rest;
    }
    Some((scheme, token))
}

/// The scheme in `Authorization`, if that stands once and has something behind it, whatever that is.
pub(crate) fn scheme(headers: &HeaderMap) -> Option<&str> {
    let (scheme, _) = split(only(headers, &header::AUTHORIZATION).ok()??.as_bytes())?;
    str::from_utf8(scheme).ok()
}

/// What may be a token behind `scheme` in `Authorization`, if that stands once: nothing else is checked. Only good for finding
/// a token again that was checked when it came first, and for leaving one to somebody else.
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust", feature = "api-key"))]
pub(crate) fn unchecked<'a>(headers: &'a HeaderMap, scheme: &[u8]) -> Option<&'a [u8]> {
    let value = only(headers, &header::AUTHORIZATION).ok()??.as_bytes();
    let (found, rest) = value.split_at_checked(scheme.len())?;
    let mut token = rest.strip_prefix(b" ")?;
    while let Some(rest) = token.strip_prefix(b" ") {
        token = rest;
    }
    // Nearly all write it as it is registered.
    (found == scheme || found.eq_ignore_ascii_case(scheme)).then_some(token)
}

/// What the names of schemes are made of.
fn is_scheme(scheme: &[u8]) -> bool {
    !scheme.is_empty() && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 9110 §11.2).
fn is_token68(mut token: &[u8]) -> bool {
    while let Some(rest) = token.strip_suffix(b"=") {
        token = rest;
    }
    // The range is `-`, `.`, `/` and the digits.
    let fits = |b: u8| b.is_ascii_alphabetic() | (b'-'..=b'9').contains(&b) | (b == b'_') | (b == b'~') | (b == b'+');
    !token.is_empty() && all(token, fits)
}

fn is_visible(text: &str) -> bool {
    all(text.as_bytes(), |b| (b' '..=b'~').contains(&b) | (b == b'\t'))
}

/// Looks at every byte, bad ones or not: without a way out of the loop the processor takes many at once, and a token is
/// nearly always good.
fn all(text: &[u8], fits: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(true, |all, byte| all & fits(*byte))
}

/// Reads all values, not the first: two credentials for one request are never a choice for the server (RFC 9110 §5.3).
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Rejection> {
    // Mostly no field stands twice, and that is told by two numbers.
    if headers.len() == headers.keys_len() {
        return Ok(find(headers, name));
    }
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(malformed("a credential header stands twice"));
    }
    Ok(first)
}

/// Finds a field that does not stand twice. Names are compared sooner than one is hashed, where there are few.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    const FEW: usize = 8;
    if headers.len() > FEW {
        return headers.get(name);
    }
    headers.iter().find_map(|(found, value)| (found == name).then_some(value))
}

fn malformed(reason: &'static str) -> Rejection {
    Rejection::new(RejectionKind::InvalidRequest, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn authorization_is_read_strictly() {
        let good: [(&str, &[u8], &str); 4] = [
            ("plain", b"Bearer abc", "abc"),
            ("lower case scheme", b"bearer abc", "abc"),
            ("several spaces", b"BEARER   abc", "abc"),
            ("padding", b"Bearer abc==", "abc=="),
        ];
        for (name, value, token) in good {
            let headers = headers(&[value]);
            let credential = authorization(&headers).unwrap().unwrap();
            assert!(credential.is_scheme("Bearer"), "{name}");
            assert_eq!(credential.token(), token, "{name}");
        }
        let bad: [(&str, &[&[u8]]); 10] = [
            ("empty", &[b""]),
            ("scheme alone", &[b"Bearer"]),
            ("no token", &[b"Bearer "]),
            ("no scheme", &[b" abc"]),
            ("tab", &[b"Bearer\tabc"]),
            ("two tokens", &[b"Bearer abc def"]),
            ("auth-params", &[b"Bearer token=\"abc\""]),
            ("padding inside", &[b"Bearer a=b"]),
            ("obs-text", &[b"Bearer \xff"]),
            ("two lines", &[b"Bearer abc", b"Bearer abc"]),
        ];
        for (name, values) in bad {
            let rejection = authorization(&headers(values)).unwrap_err();
            assert_eq!(rejection.kind(), RejectionKind::InvalidRequest, "{name}");
        }
    }

    #[test]
    fn every_byte_is_told_apart() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte, b'a'];
            let token68 = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            let visible = (b' '..=b'~').contains(&byte) || byte == b'\t';
            assert_eq!(is_token68(&text), token68, "{byte:#x}");
            assert_eq!(std::str::from_utf8(&text).is_ok_and(is_visible), visible, "{byte:#x}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let value = format!("Bearer {}", "a".repeat(MAX_CREDENTIAL_LEN));
        assert!(authorization(&headers(&[value.as_bytes()])).is_err());
    }

    #[test]
    fn debug_hides_the_token() {
        let headers = headers(&[b"Bearer hunter2"]);
        assert!(!format!("{:?}", authorization(&headers)).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_header_value_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.append(header::AUTHORIZATION, value);
                if let Ok(Some(credential)) = authorization(&headers) {
                    prop_assert!(is_token68(credential.token().as_bytes()));
                }
            }
        }
    }
}
