//! The first line is a method, a space and a request target, the rest a subject and a note. Whatever they hold, the record
//! is one line of JSON within its bounds, without a character that could forge a line or turn one around.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use portcullis::{
    Challenge, Connection, Principal, PrincipalKind, SecurityContext,
    audit::{AuditEntry, AuditLayer, MAX_ENTRY_LEN, MAX_PATH_LEN, MAX_TEXT_LEN},
    authn::{AuthnLayer, Outcome, authenticate_fn},
    testing::Captured,
};
use tower::{Layer, service_fn};

use super::memory::{clock, send};

/// Panics if something of that does not hold.
pub fn check(data: &str) {
    let (first, text) = data.split_once('\n').unwrap_or((data, ""));
    let (subject, note) = text.split_once('\n').unwrap_or((text, text));
    let Some((Ok(method), Ok(uri))) =
        first.split_once(' ').map(|(method, uri)| (Method::from_bytes(method.as_bytes()), uri.parse::<Uri>()))
    else {
        return;
    };
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    request.extensions_mut().insert(Connection::plain(([198, 51, 100, 7], 52100).into()));

    let handler = {
        let note = note.to_owned();
        service_fn(move |request: Request<()>| {
            SecurityContext::of(request.extensions()).unwrap().note(&note, &note);
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
        })
    };
    let subject = subject.to_owned();
    let everybody = authenticate_fn(Challenge::new("Test", "fuzz").unwrap(), move |_, _| {
        let person = Principal::builder(PrincipalKind::User, "https://id.example.com", &*subject, "test");
        Outcome::verified(person.credential_id(&*subject).tenant(&*subject).build())
    });
    let captured = Captured::new();
    let service = AuthnLayer::new(everybody).dangerous_plain_http().layer(handler);
    assert_eq!(send(AuditLayer::new(captured.clone()).with_clock(clock()).layer(service), request).status(), 200);

    let records = captured.records();
    let [record] = &records[..] else { panic!("{} records", records.len()) };
    let line = serde_json::to_string(record).unwrap();
    assert!(!line.chars().any(forges), "{line:?}");
    assert!(record.path().len() <= MAX_PATH_LEN && record.path().is_ascii() || record.path().ends_with('…'));
    assert!(record.method().len() <= MAX_TEXT_LEN);
    assert!(record.subject().unwrap().subject().len() <= MAX_TEXT_LEN);
    assert!(line.len() <= 16 * 1024, "{}", line.len());
    let mut bounded = Vec::new();
    AuditEntry::from(record.clone()).write_json(&mut bounded);
    assert!(bounded.len() <= MAX_ENTRY_LEN, "{}", bounded.len());
    in_order(&serde_json::from_slice(&bounded).unwrap());
    in_order(&serde_json::from_str(&line).unwrap());
}

/// No text in the record, once its JSON is read, has what the line must not have.
fn in_order(value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => assert!(!text.chars().any(forges), "{text:?}"),
        serde_json::Value::Array(all) => all.iter().for_each(in_order),
        serde_json::Value::Object(members) => members.values().for_each(in_order),
        _ => {}
    }
}

/// Controls, line and paragraph separators, bidirectional controls (UAX #9), byte order mark.
fn forges(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
