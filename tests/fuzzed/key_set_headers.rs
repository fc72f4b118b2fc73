//! The input is the header fields of an answer with a key set, one a line. The set is fresh for as long as a second reader of
//! `Cache-Control` and `Age` finds, within a minute and a day; if this reader cannot read it, within these bounds. The next fetch
//! has the `ETag` as it came, or none, and what the next answer says counts as the first one's did.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use portcullis::{
    Clock, Instants, StoreError,
    http_client::{FetchLimits, HttpFetch},
    jwt::keys::{KeySource, LiveKeys, Refresh},
};

use super::memory::{append, clock, now};

const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * 60;
/// What the keys are fresh for if nobody says so.
const UNSAID: u64 = 600;

/// Answers a set with these fields, or that it has not changed to whoever knows it.
#[derive(Clone, Debug)]
struct Origin {
    headers: HeaderMap,
    asked: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
}

#[async_trait]
impl HttpFetch for Origin {
    async fn fetch(&self, request: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        let known = request.headers().get(header::IF_NONE_MATCH).map(|value| value.as_bytes().to_vec());
        let mut response = match known {
            Some(_) => Response::builder().status(304).body(Bytes::new()).unwrap(),
            None => Response::new(Bytes::from_static(SET.as_bytes())),
        };
        *response.headers_mut() = self.headers.clone();
        self.asked.lock().unwrap().push(known);
        Ok(response)
    }
}

/// Panics if something of that does not hold. True if the fields say how long the set is fresh.
pub fn check(data: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    append(&mut headers, data);
    let said = fresh_for(&headers);
    let (least, most) = match said {
        Some(said) => (said.unwrap_or(UNSAID).clamp(MINUTE, DAY), said.unwrap_or(UNSAID).clamp(MINUTE, DAY)),
        None => (MINUTE, DAY),
    };
    let etag = headers.get(header::ETAG).map(|value| value.as_bytes().to_vec());
    let etag = etag.filter(|etag| etag.len() <= 256 && etag.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));

    let (time, origin) = (clock(), Origin { headers, asked: Arc::default() });
    let keys = LiveKeys::jwks_url("https://id.example.com/jwks").http(origin.clone()).clock(time.clone()).build();
    let keys = keys.unwrap();
    assert!(now(keys.load()).is_ok());
    for _ in 0..2 {
        let start = time.now();
        let is_due = |millis: u64| keys.snapshot(after(start, millis)).unwrap().is_due();
        // It is refreshed after 70 to 80 percent of its life.
        assert!(!is_due(least * 690) && is_due(most * 810), "{said:?}");
        time.advance(Duration::from_millis(most * 810));
        assert_eq!(now(keys.refresh_for(None, 1, time.now())), Refresh::LookAgain);
    }
    assert_eq!(*origin.asked.lock().unwrap(), [None, etag.clone(), etag]);
    matches!(said, Some(Some(_)))
}

fn after(start: Instants, millis: u64) -> Instants {
    let nanos = millis * 1_000_000;
    Instants::new(start.unix_nanos() + nanos, start.monotonic_nanos() + nanos)
}

/// The seconds, if they are said (RFC 9111 §4.2). None if the fields are not of their grammar (§5.2).
fn fresh_for(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut directives = Vec::new();
    for value in headers.get_all(header::CACHE_CONTROL) {
        directives.extend(list(value.as_bytes())?);
    }
    if directives.iter().any(|(name, _)| ["no-store", "no-cache"].contains(&&**name)) {
        return Some(Some(0));
    }
    let ages = directives.iter().filter(|(name, _)| name == "max-age");
    let shortest = ages.map(|(_, argument)| argument.as_deref().and_then(number).unwrap_or(0)).min();
    let age = headers.get(header::AGE).and_then(|age| number(age.as_bytes().trim_ascii())).unwrap_or(0);
    Some(shortest.map(|seconds| seconds.saturating_sub(age)))
}

fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: &u8| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// Directives with their arguments, by a list's grammar (RFC 9110 §5.6.1); what is escaped in quotes keeps its backslash.
fn list(mut rest: &[u8]) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_ascii();
        let end = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        let name = std::str::from_utf8(&rest[..end]).unwrap().to_ascii_lowercase();
        rest = &rest[end..];
        let mut argument = None;
        if let Some(after) = rest.strip_prefix(b"=") {
            let end = match after {
                [b'"', inside @ ..] => {
                    let mut escaped = false;
                    let end = inside.iter().position(|byte| {
                        let ends = !escaped && *byte == b'"';
                        escaped = !escaped && *byte == b'\\';
                        ends
                    })?;
                    argument = Some(inside[..end].to_vec());
                    end + 2
                }
                _ => {
                    let end = after.iter().position(|byte| !is_token(*byte)).unwrap_or(after.len());
                    argument = Some(after[..end].to_vec()).filter(|token| !token.is_empty());
                    argument.as_ref()?;
                    end
                }
            };
            rest = &after[end..];
        }
        if name.is_empty() && argument.is_some() {
            return None;
        }
        if !name.is_empty() {
            found.push((name, argument));
        }
        match rest.trim_ascii_start() {
            [] => return Some(found),
            [b',', more @ ..] => rest = more,
            _ => return None,
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
