//! Headers of good tokens: an issuer writes the same one again and again, and reading it costs as much as many a check.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use arc_swap::{ArcSwapOption, Guard};
use foldhash::quality::RandomState;

use crate::jwt::{
    Algorithm,
    token::{Header, Typ},
};

/// How many are remembered at a time. Another one that falls into its place drives a header out.
const PLACES: usize = 16;
/// The longest that is remembered, in characters.
const MAX_LEN: usize = 512;

/// What reading a header's very text gives, for headers of tokens whose signature was good: no client can fill this up.
#[derive(Default)]
pub(super) struct Headers {
    places: [ArcSwapOption<Known>; PLACES],
    seed: RandomState,
}

/// A header that was read.
struct Known {
    encoded: Box<str>,
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    typ: Typ,
}

/// What is remembered at the place of a header: it, another one, or none.
pub(super) struct Remembered(Guard<Option<Arc<Known>>>);

impl Remembered {
    /// The header, if it is the one with this text.
    pub(super) fn header(&self, encoded: &str) -> Option<Header<'_>> {
        let known = self.0.as_ref().filter(|known| *known.encoded == *encoded)?;
        let key_id = known.key_id.as_deref().map(Cow::Borrowed);
        Some(Header { algorithm: known.algorithm, key_id, typ: known.typ })
    }
}

impl Headers {
    /// Looks for the header with this text, as it stands in a token.
    pub(super) fn look(&self, encoded: &str) -> Remembered {
        Remembered(self.place(encoded).load())
    }

    /// Remembers the header of a token that is good.
    pub(super) fn remember(&self, encoded: &str, header: &Header<'_>) {
        if encoded.len() <= MAX_LEN {
            let key_id = header.key_id.as_deref().map(Box::from);
            let known = Known { encoded: encoded.into(), algorithm: header.algorithm, key_id, typ: header.typ };
            self.place(encoded).store(Some(Arc::new(known)));
        }
    }

    fn place(&self, encoded: &str) -> &ArcSwapOption<Known> {
        let mut hasher = self.seed.build_hasher();
        hasher.write(encoded.as_bytes());
        let [lowest, ..] = hasher.finish().to_le_bytes();
        let [first, ..] = &self.places;
        self.places.get(usize::from(lowest) % PLACES).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::token::read_header;

    #[test]
    fn a_header_is_what_reading_its_text_gives() {
        let headers = Headers::default();
        let texts = [
            r#"{"alg":"ES256"}"#.to_owned(),
            r#"{"alg":"RS256","typ":"at+jwt","kid":"a"}"#.to_owned(),
            r#"{"alg":"RS256","typ":"at+jwt","kid":"b"}"#.to_owned(),
            format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(MAX_LEN)),
        ];
        for text in &texts {
            // What stands for the encoded text does not matter here.
            assert!(headers.look(text).header(text).is_none(), "{text}");
            headers.remember(text, &read_header(text).unwrap());
            let remembered = headers.look(text);
            let shown = remembered.header(text).map(|header| format!("{header:?}"));
            let read = (text.len() <= MAX_LEN).then(|| format!("{:?}", read_header(text).unwrap()));
            assert_eq!(shown, read, "{text}");
            assert!(remembered.header(&text.replacen('"', "", 1)).is_none());
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let headers = Headers::default();
        let text = |number: usize| format!(r#"{{"alg":"ES256","kid":"{number}"}}"#);
        for number in 0..1000 {
            headers.remember(&text(number), &read_header(&text(number)).unwrap());
            assert!(headers.look(&text(number)).header(&text(number)).is_some(), "{number}");
        }
        let kept = (0..1000).filter(|number| headers.look(&text(*number)).header(&text(*number)).is_some()).count();
        assert!((PLACES / 2..=PLACES).contains(&kept), "{kept}");
    }
}
