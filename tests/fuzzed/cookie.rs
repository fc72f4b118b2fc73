//! The first line is a method, each other one a header field; `$TOKEN` in them is a good token. A cookie speaks for somebody
//! only if a second reader finds it once, in exactly its name, with that token, in a request that another site cannot have
//! caused, without an `Authorization`; and then it does.

use std::sync::LazyLock;

use http::{HeaderMap, Method, Request};
use portcullis::{
    Now, RejectionKind, RequestHead,
    authn::{Authenticator, Outcome},
    jwt::{CookiePlace, CsrfRules, JwtAuthenticator},
};

use super::{
    jwt::{CLAIMS, HEADER, sign, taking},
    memory::{append, at},
};

const NAME: &str = "__Host-session";
const OURS: &str = "https://app.example.com";

static TOKEN: LazyLock<String> = LazyLock::new(|| sign(HEADER.as_bytes(), CLAIMS.as_bytes()));
static TOKENS: LazyLock<JwtAuthenticator> = LazyLock::new(|| {
    let place = CookiePlace::new(NAME, CsrfRules::origins([OURS]).unwrap()).unwrap();
    taking().cookie(place).build().unwrap()
});

/// Panics if something of that does not hold. Whether somebody is authenticated.
pub fn check(text: &str) -> bool {
    let text = text.replace("$TOKEN", &TOKEN);
    let (method, fields) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return false };
    let mut request = Request::new(());
    *request.method_mut() = method;
    append(request.headers_mut(), fields.as_bytes());
    let Now::Known(outcome) = TOKENS.authenticate_now(&RequestHead::of(&request), at()) else {
        panic!("waits, and everything is in memory")
    };
    let headers = request.headers();
    if headers.contains_key("authorization") {
        // Then that alone counts, whatever it is.
        let sent = all(headers, "authorization");
        let bearer = sent[0].split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        let is_good = sent.len() == 1 && bearer.is_some_and(|(_, token)| token.trim_start_matches(' ') == *TOKEN);
        assert_eq!(matches!(outcome, Outcome::Verified(_)), is_good, "{text:?}");
        return is_good;
    }
    match (outcome, expected(request.method(), headers)) {
        (Outcome::Verified(_), Ok(Some(_))) => true,
        (Outcome::Absent, Ok(None)) => false,
        (Outcome::RefusedIfNeeded(rejection), Err(kind)) if rejection.kind() == kind => false,
        (outcome, expected) => panic!("{outcome:?}, where {expected:?} was expected: {text:?}"),
    }
}

/// The token that counts, or what is wrong with the cookie.
fn expected(method: &Method, headers: &HeaderMap) -> Result<Option<String>, RejectionKind> {
    let cookies = all(headers, "cookie").join(";");
    let named = cookies.split(';').filter_map(|pair| pair.split_once('='));
    let ours = named.filter(|(name, _)| trim(name).eq_ignore_ascii_case(NAME));
    let (name, value) = match ours.collect::<Vec<_>>()[..] {
        [] => return Ok(None),
        [(name, value)] => (trim(name), trim(value)),
        _ => return Err(RejectionKind::InvalidRequest),
    };
    if name != NAME {
        return Err(RejectionKind::InvalidRequest);
    }
    if !may_be_ours(method, headers) {
        return Err(RejectionKind::CrossSite);
    }
    match value {
        value if value == *TOKEN => Ok(Some(value.to_owned())),
        _ => Err(RejectionKind::InvalidCredential),
    }
}

/// Whether a page of ours sent it, or it changes nothing.
fn may_be_ours(method: &Method, headers: &HeaderMap) -> bool {
    let upgrades = headers.contains_key("upgrade") || headers.contains_key("sec-websocket-key");
    if ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method.as_str()) && !upgrades {
        return true;
    }
    let (site, origin) = (all(headers, "sec-fetch-site"), all(headers, "origin"));
    let is_same = site == ["same-origin"] || site == ["none"];
    site.len() < 2 && origin.len() < 2 && (is_same || origin == [OURS])
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The values of a field, an octet a character.
fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.as_bytes().iter().map(|byte| char::from(*byte)).collect()).collect()
}
