//! Each line of the input is a header field, from a trusted proxy or from a client. The record has the ids of a `traceparent`
//! only if the proxy sent it and a second reader of the grammar finds them, both ways; a field that stands twice is nobody's
//! word; and what a client sent is told as its claim, cut off, and never as the proxy's.

use std::borrow::Cow;

use http::{HeaderMap, Request};
use portcullis::{
    Connection,
    audit::{AuditLayer, AuditRecord},
    evidence::{EvidenceLayer, TrustedProxies},
    testing::Captured,
};
use tower::Layer;

use super::memory::{Reached, append, clock, handler, send};

/// As much of a field as a record takes over.
const MOST: usize = 128;

/// Panics if something of that does not hold. Whether a trace was believed.
pub fn check(data: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    append(&mut headers, data);
    let (request_id, traceparent) = (sent(&headers, "x-request-id"), sent(&headers, "traceparent"));

    let stranger = record(&headers, [203, 0, 113, 9]);
    assert!(stranger.trace_id().is_none() && stranger.parent_id().is_none() && stranger.proxy_request_id().is_none());
    same(stranger.client_request_id(), request_id.first().copied());
    same(stranger.client_traceparent(), traceparent.first().copied());

    let proxied = record(&headers, [10, 0, 12, 7]);
    let once = |name: &str| headers.get_all(name).iter().count() < 2;
    let believed = traceparent.first().filter(|_| once("traceparent")).and_then(|field| ids(field));
    assert_eq!(proxied.trace_id().zip(proxied.parent_id()), believed, "{traceparent:?}");
    assert_eq!(proxied.client_traceparent().is_some(), believed.is_none() && !traceparent.is_empty());
    let id = request_id.first().copied();
    let (own, claimed) = if once("x-request-id") { (id, None) } else { (None, id) };
    same(proxied.proxy_request_id(), own);
    same(proxied.client_request_id(), claimed);
    believed.is_some()
}

/// The record of a request of this peer.
fn record(headers: &HeaderMap, peer: [u8; 4]) -> AuditRecord {
    let mut request = Request::new(());
    request.extensions_mut().insert(Connection::plain((peer, 40100).into()));
    headers.clone_into(request.headers_mut());
    let captured = Captured::new();
    let proxies = TrustedProxies::x_forwarded(["10.0.12.0/24"]).unwrap();
    let inner = EvidenceLayer::new(proxies).with_clock(clock()).layer(handler(&Reached::default()));
    send(AuditLayer::new(captured.clone()).with_clock(clock()).layer(inner), request);
    let records = captured.records();
    let [record] = &records[..] else { panic!("{} records", records.len()) };
    let line = serde_json::to_string(record).unwrap();
    assert!(!line.contains(|c: char| c.is_control()), "{line}");
    record.clone()
}

/// Whether it is told as it was sent; what must be escaped only has to be told.
fn same(told: Option<Cow<'_, str>>, sent: Option<&str>) {
    match told.as_deref().zip(sent) {
        Some((told, sent)) => assert!(told == sent || sent.contains('\t') || sent.contains("\\u{"), "{told} {sent}"),
        None => assert!(told.is_none() && sent.is_none()),
    }
}

/// What a record takes over of a field: visible text, by its beginning.
fn sent<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.filter(|text| !text.is_empty()).map(|text| text.get(..MOST).unwrap_or(text)).collect()
}

/// The grammar of Trace Context, read by places.
fn ids(field: &str) -> Option<(&str, &str)> {
    let digits =
        |range| field.get(range).filter(|text: &&str| text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
    let (version, trace, parent) = (digits(0..2)?, digits(3..35)?, digits(36..52)?);
    digits(53..55)?;
    let dashes = [2, 35, 52].iter().all(|place| field.as_bytes()[*place] == b'-');
    let ends = field.len() == 55 || version != "00" && field.as_bytes()[55] == b'-';
    let zero = [trace, parent].iter().any(|id| id.trim_matches('0').is_empty());
    (dashes && ends && !zero && version != "ff").then_some((trace, parent))
}
