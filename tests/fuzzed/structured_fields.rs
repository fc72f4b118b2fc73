//! The fields `RateLimit-Policy` and `RateLimit`. Whatever a quota is called and holds, they are lists of RFC 9651 that a second
//! reader understands, with that name and those numbers; or the quota is refused.

use std::{convert::Infallible, pin::pin, task};

use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Connection, TlsVersion,
    rate_limit::{Quota, RateLimitLayer},
    tls::TlsLayer,
};
use tower::{Layer, ServiceExt, service_fn};

/// The first line is the name of a quota; then its count and its burst. True if it is one.
pub fn check(text: &str) -> bool {
    let mut lines = text.split('\n');
    let name = lines.next().unwrap_or_default();
    let mut number = || lines.next().and_then(|line| line.trim().parse::<u32>().ok());
    let (count, burst) = (number().unwrap_or(1), number());
    let quota = Quota::per_minute(count).named(name.to_owned());
    let quota = burst.map_or(quota.clone(), |burst| quota.burst(burst));
    let Ok(layer) = RateLimitLayer::per_client(quota) else { return false };
    let handler =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default())));
    let mut request = Request::new(());
    request.extensions_mut().insert(Connection::tls(([198, 51, 100, 7], 52_100).into(), TlsVersion::Tls13));
    let Ok(response) = now(TlsLayer::require().layer(layer.layer(handler)).oneshot(request));
    let field = |field: &str| list(response.headers().get(field)?.to_str().expect("ASCII"));
    let (Some(policy), Some(limit)) = (field("ratelimit-policy"), field("ratelimit")) else {
        panic!("{:?} is no list", response.headers())
    };
    let [(of, values)] = &policy[..] else { panic!("{policy:?}") };
    assert_eq!((of.as_str(), &values[..]), (name, &[("q".to_owned(), u64::from(count)), ("w".to_owned(), 60)][..]));
    let [(of, values)] = &limit[..] else { panic!("{limit:?}") };
    assert_eq!(of, name);
    let left = u64::from(burst.unwrap_or(count)) - 1;
    assert_eq!(values.iter().find(|(key, _)| key == "r"), Some(&("r".to_owned(), left)), "one of them was taken");
    true
}

/// What a future answers that never has to wait.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut task::Context::from_waker(task::Waker::noop())) {
        task::Poll::Ready(output) => output,
        task::Poll::Pending => panic!("waits, and everything is in memory"),
    }
}

/// A string and the integers that are its parameters.
type Item = (String, Vec<(String, u64)>);

/// Reads a list of strings with integers for parameters (RFC 9651 §4.2.1, as far as these fields go).
fn list(text: &str) -> Option<Vec<Item>> {
    let mut rest = text;
    let mut items = Vec::new();
    loop {
        let mut name = String::new();
        let mut characters = rest.strip_prefix('"')?.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 2,
                (_, '\\') => match characters.next()?.1 {
                    escaped @ ('"' | '\\') => name.push(escaped),
                    _ => return None,
                },
                (_, plain @ ' '..='~') => name.push(plain),
                _ => return None,
            }
        };
        rest = rest.get(end..)?;
        let mut parameters = Vec::new();
        while let Some(after) = rest.strip_prefix(';') {
            let (key, value) = after.split_once('=')?;
            let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
            let (digits, after) = value.split_at(end);
            if digits.is_empty() || digits.len() > 15 || !key.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return None;
            }
            parameters.push((key.to_owned(), digits.parse().ok()?));
            rest = after;
        }
        items.push((name, parameters));
        if rest.is_empty() {
            return Some(items);
        }
        rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
    }
}
