//! No change to a good token passes, for an algorithm of each kind, neither before nor after the token was remembered.

use std::sync::LazyLock;

use base64::{Engine, prelude::*};
use portcullis::jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet, TokenCache};
use proptest::{prelude::*, sample::Index, test_runner::FileFailurePersistence};

use crate::{
    at,
    mint::{self, AUDIENCE, CLAIMS, ISSUER, claims_but, encode},
    support::NOW,
};

const KINDS: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Two good tokens of each algorithm.
static TOKENS: LazyLock<[[String; 2]; 4]> = LazyLock::new(|| {
    KINDS.map(|algorithm| {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#);
        let claims = [CLAIMS.to_owned(), claims_but("sub", "\"mallory\"")];
        claims.map(|claims| mint::token(algorithm, &header, &claims))
    })
});

fn trusting(algorithm: Algorithm, cache: Option<TokenCache>) -> JwtAuthenticator {
    let issuer = Issuer::fixed(ISSUER, KeySet::new([mint::key(algorithm)]).unwrap());
    let builder = JwtAuthenticator::builder().issuer(issuer.access_tokens(AUDIENCE).algorithms([algorithm]));
    match cache {
        Some(cache) => builder.cache(cache).build().unwrap(),
        None => builder.without_cache().build().unwrap(),
    }
}

/// Who judges the tokens of an algorithm: one that remembers nothing, and two that remember both tokens.
static JUDGES: LazyLock<[[JwtAuthenticator; 3]; 4]> = LazyLock::new(|| {
    std::array::from_fn(|kind| {
        [None, Some(TokenCache::new()), Some(TokenCache::new().digest_keys())].map(|cache| {
            let jwt = trusting(KINDS[kind], cache);
            for token in &TOKENS[kind] {
                assert!(jwt.verify(token, at(NOW)).is_ok());
            }
            assert!(jwt.cache_stats().is_none_or(|stats| stats.entries == 2));
            jwt
        })
    })
});

#[derive(Clone, Debug)]
enum Change {
    /// One bit of a part, decoded.
    Flip(Index, Index, u8),
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    Cut(Index),
    /// A part of the other token in place of this one's.
    Swap(Index),
    /// Two parts change places.
    Exchange(Index, Index),
    Spell(Index, Spelling),
}

/// The same bytes, or the same JSON, in other characters.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    Padded,
    StandardAlphabet,
    SpareBits,
    EncodedTwice,
    SpaceBehind,
    SpaceInside,
    /// `"a"` as `"\u0061"`.
    Escape,
    BytesBehind,
    ZeroInFront,
    PercentEncoded,
}

const SPELLINGS: [Spelling; 10] = [
    Spelling::Padded,
    Spelling::StandardAlphabet,
    Spelling::SpareBits,
    Spelling::EncodedTwice,
    Spelling::SpaceBehind,
    Spelling::SpaceInside,
    Spelling::Escape,
    Spelling::BytesBehind,
    Spelling::ZeroInFront,
    Spelling::PercentEncoded,
];

fn change() -> impl Strategy<Value = Change> {
    let (place, character) = (any::<Index>, || proptest::char::range(' ', '~'));
    let spelling = prop::sample::select(&SPELLINGS[..]);
    prop_oneof![
        3 => (place(), place(), 0..8_u8).prop_map(|(part, byte, bit)| Change::Flip(part, byte, bit)),
        1 => (place(), character()).prop_map(|(place, to)| Change::Replace(place, to)),
        1 => (place(), character()).prop_map(|(place, to)| Change::Insert(place, to)),
        1 => place().prop_map(Change::Remove),
        1 => place().prop_map(Change::Cut),
        2 => place().prop_map(Change::Swap),
        1 => (place(), place()).prop_map(|(one, other)| Change::Exchange(one, other)),
        3 => (place(), spelling).prop_map(|(part, how)| Change::Spell(part, how)),
    ]
}

/// The part with its bytes changed, if it still is base64url.
fn with_bytes(part: &mut String, change: impl FnOnce(&mut Vec<u8>)) {
    if let Ok(mut bytes) = BASE64_URL_SAFE_NO_PAD.decode(part.as_bytes()) {
        change(&mut bytes);
        *part = encode(bytes);
    }
}

fn with_text(part: &mut String, from: &str, to: &str) {
    with_bytes(part, |bytes| {
        if let Ok(text) = str::from_utf8(bytes) {
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    });
}

fn spell(part: &mut String, how: Spelling) {
    match how {
        Spelling::Padded => part.push('='),
        Spelling::StandardAlphabet => *part = part.replace('-', "+").replace('_', "/"),
        Spelling::SpareBits => {
            // The last character of such a length has two or four bits to spare, and they are zero.
            let spare = part.len() % 4 == 2 || part.len() % 4 == 3;
            if let Some(last) = part.pop() {
                part.push(if spare { char::from(last as u8 + 1) } else { last });
            }
        }
        Spelling::EncodedTwice => *part = encode(&*part),
        Spelling::SpaceBehind => with_bytes(part, |bytes| bytes.push(b' ')),
        Spelling::SpaceInside => with_text(part, ":", ": "),
        Spelling::Escape => with_text(part, "a", "\\u0061"),
        Spelling::BytesBehind => with_bytes(part, |bytes| bytes.extend([0; 3])),
        Spelling::ZeroInFront => with_bytes(part, |bytes| bytes.insert(0, 0)),
        Spelling::PercentEncoded => {
            if let Some(first) = part.bytes().next() {
                part.replace_range(..1, &format!("%{first:02X}"));
            }
        }
    }
}

fn apply(token: &str, other: &str, change: &Change) -> String {
    // Earlier changes may have brought characters that are not ASCII: none here does.
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let count = parts.len();
    match change {
        Change::Flip(part, byte, bit) => with_bytes(&mut parts[part.index(count)], |bytes| {
            if !bytes.is_empty() {
                let place = byte.index(bytes.len());
                bytes[place] ^= 1 << bit;
            }
        }),
        Change::Swap(part) => {
            let place = part.index(count);
            parts[place] = other.split('.').nth(place).unwrap_or_default().to_owned();
        }
        Change::Exchange(one, other) => parts.swap(one.index(count), other.index(count)),
        Change::Spell(part, how) => spell(&mut parts[part.index(count)], *how),
        Change::Replace(..) | Change::Insert(..) | Change::Remove(_) | Change::Cut(_) => {
            let mut text: Vec<char> = token.chars().collect();
            match change {
                Change::Insert(place, to) => text.insert(place.index(text.len() + 1), *to),
                Change::Replace(place, to) if !text.is_empty() => {
                    let place = place.index(text.len());
                    text[place] = *to;
                }
                Change::Remove(place) if !text.is_empty() => drop(text.remove(place.index(text.len()))),
                Change::Cut(place) => text.truncate(place.index(text.len() + 1)),
                _ => {}
            }
            return text.into_iter().collect();
        }
    }
    parts.join(".")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_024,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_changed_token_passes(kind in 0..KINDS.len(), changes in prop::collection::vec(change(), 1..4)) {
        let [good, other] = &TOKENS[kind];
        let changed = changes.iter().fold(good.clone(), |token, change| apply(&token, other, change));
        let is_good = changed == *good || changed == *other;
        for jwt in &JUDGES[kind] {
            let hits = || jwt.cache_stats().map(|stats| stats.hits);
            let before = hits();
            prop_assert_eq!(jwt.verify(&changed, at(NOW)).is_ok(), is_good, "{}", changed);
            prop_assert!(is_good || hits() == before, "found in the cache: {}", changed);
        }
    }
}

/// Each spelling of each part, alone: the text differs, so the token is another one.
#[test]
fn no_other_spelling_passes() {
    for (algorithm, [good, _]) in KINDS.into_iter().zip(&*TOKENS) {
        let jwt = trusting(algorithm, Some(TokenCache::new()));
        assert!(jwt.verify(good, at(NOW)).is_ok(), "{algorithm}");
        let mut changed = 0;
        for part in 0..3 {
            for how in SPELLINGS {
                let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
                spell(&mut parts[part], how);
                let token = parts.join(".");
                changed += usize::from(token != *good);
                assert_eq!(jwt.verify(&token, at(NOW)).is_ok(), token == *good, "{algorithm}, part {part}, {how:?}");
            }
        }
        assert!(changed >= 22, "{algorithm}: {changed}");
    }
}
