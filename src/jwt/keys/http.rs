use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use super::origin::{Fetched, JwkSource};
use crate::{
    error::StoreError,
    http_client::{Endpoint, FetchLimits, HttpFetch, nonsense, unavailable},
};

/// A client, and the limits that it is used with.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) client: Arc<dyn HttpFetch>,
    pub(super) limits: FetchLimits,
}

/// The answer of a server that has the document or says that it did not change.
pub(super) enum Answer {
    Document {
        text: String,
        headers: HeaderMap,
    },
    NotModified {
        headers: HeaderMap,
    },
    /// `4xx`: the document is not there.
    Missing(StatusCode),
}

impl Http {
    /// Gets a JSON document. The content type does not matter: servers get it wrong, and the text is parsed strictly.
    pub(super) async fn get(&self, from: &Endpoint, validator: Option<&str>) -> Result<Answer, StoreError> {
        let mut request = Request::get(from.uri().clone()).header(header::ACCEPT, "application/json");
        if let Some(validator) = validator {
            request = request.header(header::IF_NONE_MATCH, validator);
        }
        let request = request.body(Bytes::new()).map_err(nonsense)?;
        let response = self.client.fetch(request, self.limits).await?;
        let (parts, body) = response.into_parts();
        match parts.status {
            StatusCode::OK if body.len() > self.limits.bytes() => {
                Err(nonsense(format!("{from} answers more than {} bytes", self.limits.bytes())))
            }
            StatusCode::OK => match String::from_utf8(body.into()) {
                Ok(text) => Ok(Answer::Document { text, headers: parts.headers }),
                Err(_) => Err(nonsense(format!("{from} answers what is not UTF-8"))),
            },
            StatusCode::NOT_MODIFIED if validator.is_some() => Ok(Answer::NotModified { headers: parts.headers }),
            status if status.is_redirection() => {
                Err(nonsense(format!("{from} answers {}: redirects are not followed", status.as_u16())))
            }
            status if status.is_client_error() => Ok(Answer::Missing(status)),
            status => Err(unavailable(format!("{from} answers {}", status.as_u16()))),
        }
    }

    /// Gets a JWK Set.
    pub(super) async fn get_set(&self, from: &Endpoint, validator: Option<&str>) -> Result<Fetched, StoreError> {
        match self.get(from, validator).await? {
            Answer::Document { text, headers } => Ok(with_hints(Fetched::set(text), &headers)),
            Answer::NotModified { headers } => Ok(with_hints(Fetched::not_modified(), &headers)),
            Answer::Missing(status) => Err(unavailable(format!("{from} answers {}", status.as_u16()))),
        }
    }
}

fn with_hints(mut fetched: Fetched, headers: &HeaderMap) -> Fetched {
    if let Some(fresh_for) = fresh_for(headers) {
        fetched = fetched.fresh_for(fresh_for);
    }
    match headers.get(header::ETAG).map(HeaderValue::to_str) {
        Some(Ok(etag)) if etag.len() <= 256 => fetched.with_validator(etag),
        Some(_) | None => fetched,
    }
}

/// What `Cache-Control` says (RFC 9111 §4.2), less the `Age`. None without a word on it.
fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        // Arguments may have bytes beyond ASCII in their quotes; no name has, and no number.
        let value = String::from_utf8_lossy(value.as_bytes());
        // Behind quotes without an end anything may stand.
        let Some(directives) = directives(&value) else { return Some(Duration::ZERO) };
        for directive in directives {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let name = name.trim().to_ascii_lowercase();
            match name.as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                // What is not a number is stale (RFC 9111 §4.2.1); of two the shorter counts.
                "max-age" => {
                    let seconds = seconds(argument.trim().trim_matches('"')).unwrap_or(0);
                    max_age = Some(max_age.map_or(seconds, |known: u64| known.min(seconds)));
                }
                _ => {}
            }
        }
    }
    let age = headers.get(header::AGE).and_then(|age| seconds(age.to_str().ok()?.trim())).unwrap_or(0);
    max_age.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// What stands between commas, those within quotes aside (RFC 9110 §5.6.4). None if quotes have no end.
fn directives(value: &str) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped) = (false, false);
    let directives = value.split(|char| {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        char == ',' && !quoted
    });
    let directives = directives.collect();
    (!quoted).then_some(directives)
}

/// Digits alone; too many of them are the largest number (RFC 9111 §1.2.2).
fn seconds(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// A JWK Set at a fixed URL.
#[derive(Debug)]
pub(super) struct JwksUrl {
    pub(super) url: Endpoint,
    pub(super) http: Http,
}

#[async_trait]
impl JwkSource for JwksUrl {
    fn name(&self) -> &str {
        self.url.shown()
    }

    async fn fetch(&self, validator: Option<&str>) -> Result<Fetched, StoreError> {
        self.http.get_set(&self.url, validator).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_is_fresh() {
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(Fields, Option<u64>); 18] = [
            (&[], None),
            (&[("cache-control", "public")], None),
            (&[("cache-control", "public, max-age=300")], Some(300)),
            (&[("cache-control", "Max-Age=\"300\"")], Some(300)),
            (&[("cache-control", "max-age=300"), ("age", "100")], Some(200)),
            (&[("cache-control", "max-age=300"), ("age", "900")], Some(0)),
            (&[("cache-control", "max-age=300"), ("age", "x")], Some(300)),
            (&[("cache-control", "max-age=-1")], Some(0)),
            (&[("cache-control", "max-age=99999999999999999999999")], Some(u64::MAX)),
            (&[("cache-control", "max-age=300"), ("cache-control", "max-age=60")], Some(60)),
            (&[("cache-control", "max-age=300, no-store")], Some(0)),
            (&[("cache-control", "s-maxage=300")], None),
            (&[("cache-control", "private=\"a, max-age=9\", max-age=300")], Some(300)),
            (&[("cache-control", "a=\"b, max-age=9, no-store\"")], None),
            (&[("cache-control", "a=\"\\\", no-store, \\\\\", max-age=300")], Some(300)),
            (&[("cache-control", "a=b\\\", max-age=9\", max-age=300")], Some(300)),
            (&[("cache-control", "a=\"\u{e4}\", no-store")], Some(0)),
            (&[("cache-control", "max-age=300, a=\"no-store")], Some(0)),
        ];
        for (fields, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(fresh_for(&headers), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
