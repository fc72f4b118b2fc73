//! The input is a text that might be a key, and also the id and secret of one that is written here by other code. What
//! parses is kept as it was written and has one spelling; what the other code writes parses in its own environment alone; and
//! no header makes a principal while the store is empty, with peppers and legacy keys or without. It is also a record's JSON:
//! what is read is written back the same.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis::{
    Now, RequestHead, Secret,
    api_key::{ApiKeyAuthenticator, ApiKeyFormat, KeyId, LegacyFormat, MemoryKeyStore, Peppers, RecordFields},
    authn::{Authenticator, Outcome},
};

use super::memory::at;

static FORMAT: LazyLock<ApiKeyFormat> = LazyLock::new(ApiKeyFormat::default);
static LIVE: LazyLock<ApiKeyFormat> = LazyLock::new(|| FORMAT.clone().environment("live").expect("an environment"));
static KEYS: LazyLock<[ApiKeyAuthenticator; 3]> = LazyLock::new(|| {
    let plain = ApiKeyAuthenticator::new(MemoryKeyStore::new());
    let peppers = Peppers::new("a".parse().expect("a name"), Secret::new(vec![1; 32])).expect("a pepper");
    let any = plain.clone().accept_legacy(LegacyFormat::new("", 20..=128).expect("a format"));
    let legacy = plain.clone().with_format(LIVE.clone()).with_peppers(peppers);
    [any, legacy.accept_legacy(LegacyFormat::new("sk_", 23..=64).expect("a format")), plain]
});

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        parse(text);
        present("x-api-key", text.as_bytes());
        present("authorization", text.as_bytes());
        record(text);
    }
    present("authorization", format!("Basic {}", BASE64_STANDARD.encode(data)).as_bytes());

    if let Some((id, secret)) = data.get(..35).map(|material| material.split_at(KeyId::LEN)) {
        let hash = digest(&SHA256, &[&[1], id, secret].concat());
        let text = format!("pc_v1_{}_{}{}", base32(id), base32(secret), base32(&hash.as_ref()[..5]));
        let live = text.replacen("pc_", "pc_live_", 1);
        assert!(LIVE.parse(&live).is_some() && LIVE.parse(&text).is_none() && FORMAT.parse(&live).is_none());
        let key = parse(&text).expect("a key with the right checksum");
        assert_eq!((&key.id().as_bytes()[..], &key.hash().as_bytes()[..]), (id, hash.as_ref()));
        present("x-api-key", text.as_bytes());
    }
}

fn parse(text: &str) -> Option<portcullis::api_key::ApiKey> {
    let key = FORMAT.parse(text)?;
    assert_eq!(key.expose(), text);
    assert_eq!(text.split('_').nth(2), Some(&*key.id().to_string()), "one spelling");
    Some(key)
}

fn present(name: &str, value: &[u8]) {
    let Ok(request) = http::Request::get("/").header(name, value).body(()) else { return };
    for keys in &*KEYS {
        match keys.authenticate_now(&RequestHead::of(&request), at()) {
            Now::Known(Outcome::Verified(_)) => panic!("a principal out of an empty store"),
            Now::Known(_) => {}
            Now::Wait => panic!("waits, and the store is in memory"),
        }
    }
}

fn record(json: &str) {
    let Ok(record) = serde_json::from_str::<RecordFields>(json).map(RecordFields::check) else { return };
    let Ok(record) = record else { return };
    let written = serde_json::to_string(&record.fields()).expect("JSON");
    let again = serde_json::from_str::<RecordFields>(&written).map(RecordFields::check);
    assert_eq!(again.expect("what was written").expect("in its bounds"), record);
}

/// Five bits at a time, the first bit first.
fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let digit = |at: usize| (0..5).fold(0, |digit, offset| digit << 1 | usize::from(bit(at + offset)));
    (0..bytes.len() * 8).step_by(5).map(|at| char::from(b"0123456789abcdefghjkmnpqrstvwxyz"[digit(at)])).collect()
}
