//! Where a request carries a key.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use zeroize::Zeroizing;

use crate::{
    api_key::{
        ApiKeyFormat, LegacyFormat,
        format::{MAX_TEXT, Presented},
        legacy::MAX_LEGACY,
    },
    credential,
    head::RequestHead,
    rejection::{Rejection, RejectionKind},
};

pub(super) const SCHEME: &str = "ApiKey";

/// The most that is decoded of a Basic credential: the longest key and a colon.
const MOST: usize = if MAX_TEXT > MAX_LEGACY { MAX_TEXT } else { MAX_LEGACY } + 1;

/// Which texts are keys.
#[derive(Clone, Debug)]
pub(super) struct Formats {
    pub(super) own: ApiKeyFormat,
    pub(super) legacy: Option<LegacyFormat>,
    /// Those of authenticators beside.
    pub(super) others: Vec<Others>,
}

/// Whose keys are left to another authenticator.
#[derive(Clone, Debug)]
pub(super) struct Others {
    pub(super) formats: Formats,
    /// The field that it reads.
    pub(super) header: HeaderName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    InOwnField,
    InAuthorization,
}

impl Formats {
    /// Whether somebody meant this to be one of our keys.
    fn claim(&self, text: &[u8]) -> bool {
        self.own.claims(text) || self.legacy.as_ref().is_some_and(|legacy| legacy.claims(text))
    }

    /// What the keys begin with.
    pub(super) fn beginnings(&self) -> Vec<Box<str>> {
        let legacy = self.legacy.iter().map(LegacyFormat::prefix);
        std::iter::once(format!("{}_", self.own.prefix()).into()).chain(legacy.map(Into::into)).collect()
    }

    /// Without those of others.
    pub(super) fn alone(&self) -> Self {
        Self { others: Vec::new(), ..self.clone() }
    }

    /// Whether somebody else reads this text, in that field or in `Authorization`.
    fn leave(&self, text: &[u8], field: &HeaderName) -> bool {
        let reads = |others: &Others| *field == header::AUTHORIZATION || others.header == *field;
        self.others.iter().any(|others| reads(others) && others.formats.claim(text))
    }

    /// What begins like a key of our own is nothing else: a mistyped one does not get to the store as a legacy key.
    fn read(&self, text: &str) -> Option<Presented> {
        match &self.legacy {
            Some(legacy) if !self.own.claims(text.as_bytes()) => legacy.read(text),
            Some(_) | None => self.own.read(text.as_bytes())?.present(),
        }
    }
}

type Key = Option<Presented>;

/// Finds the key: nothing of ours, or a key, or what was meant to be one. Two are refused, also if they are the same.
pub(super) fn find(
    formats: &Formats,
    field: &HeaderName,
    head: &RequestHead<'_>,
) -> Result<Option<(Key, Carried)>, Rejection> {
    let own = credential::only(head.headers(), field)?.filter(|value| !formats.leave(value.as_bytes(), field));
    if let Some(value) = own
        && !head.headers().contains_key(header::AUTHORIZATION)
    {
        // What has the form of a key of our own has no character that a field must not have.
        let key = match formats.own.read(value.as_bytes()) {
            Some(key) => key.present(),
            None => formats.read(credential::text(value)?),
        };
        return Ok(Some((key, Carried::InOwnField)));
    }
    let own = own.map(credential::text).transpose()?.map(|text| (formats.read(text), Carried::InOwnField));
    let other = in_authorization(formats, head)?.map(|key| (key, Carried::InAuthorization));
    match (own, other) {
        (Some(_), Some(_)) => Err(Rejection::new(RejectionKind::InvalidRequest, "API key: presented in two places")),
        (found, None) | (None, found) => Ok(found),
    }
}

fn in_authorization(formats: &Formats, head: &RequestHead<'_>) -> Result<Option<Key>, Rejection> {
    // Somebody else's token, a long one mostly: it is read, and its form checked, by who takes it.
    if credential::unchecked(head.headers(), b"Bearer").is_some_and(|token| !formats.claim(token)) {
        return Ok(None);
    }
    let Some(credential) = head.authorization()? else { return Ok(None) };
    let (scheme, token) = (|scheme| credential.is_scheme(scheme), credential.token());
    Ok(if scheme(SCHEME) && formats.leave(token.as_bytes(), &header::AUTHORIZATION) {
        None
    } else if scheme(SCHEME) || (scheme("Bearer") && formats.claim(token.as_bytes())) {
        Some(formats.read(token))
    } else if scheme("Basic") {
        in_basic(formats, token)
    } else {
        None
    })
}

/// A key as the user name of Basic, with an empty password (RFC 7617 §2). Anything else is somebody's password, not ours,
/// and is let go; a key with a password is ours and bad.
fn in_basic(formats: &Formats, token: &str) -> Option<Key> {
    let mut buffer = Zeroizing::new([0_u8; MOST.div_ceil(3) * 3]);
    // Fails as well if it is too long for a key with a colon after it.
    let length = STANDARD.decode_slice(token, &mut *buffer).ok()?;
    let (user, password) = std::str::from_utf8(buffer.get(..length)?).ok()?.split_once(':')?;
    formats.claim(user.as_bytes()).then(|| if password.is_empty() { formats.read(user) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(own: ApiKeyFormat) -> Formats {
        Formats { own, legacy: None, others: Vec::new() }
    }

    #[test]
    fn basic_is_read_strictly() {
        let format = ApiKeyFormat::new("acme").unwrap(); // a length that base64 pads
        let key = format.generate(None).unwrap().0;
        let (formats, key) = (formats(format), key.expose());
        let encode = |text: &str| STANDARD.encode(text);
        let good = encode(&format!("{key}:"));
        let read = |token: &str| in_basic(&formats, token).map(|key| key.is_some());
        assert_eq!(read(&good), Some(true), "a key and no password");
        for (name, token, expected) in [
            ("a key and a password", encode(&format!("{key}:x")), Some(false)),
            ("meant to be a key", encode("acme_v1_short:"), Some(false)),
            ("a key of another prefix", encode(&format!("{key}:").replace("acme", "pc")), None),
            ("no colon", encode(key), None),
            ("a person", encode("alice:hunter2"), None),
            ("a key as password", encode(&format!(":{key}")), None),
            ("not base64", "!!!!".to_owned(), None),
            ("padding left out", good.trim_end_matches('=').to_owned(), None),
            ("too much padding", format!("{good}="), None),
            ("not UTF-8", STANDARD.encode([0xff, b':']), None),
            ("very long", encode(&format!("{key}:{}", "x".repeat(10_000))), None),
        ] {
            assert_ne!(token, good, "{name}");
            assert_eq!(read(&token), expected, "{name}");
        }
        let longest = ApiKeyFormat::new("abcdefghijklmnop").unwrap().environment("abcdefghijklmnop").unwrap();
        let key = longest.generate(None).unwrap().0;
        let token = encode(&format!("{}:", key.expose()));
        assert!(in_basic(&self::formats(longest), &token).is_some_and(|key| key.is_some()), "the longest key fits");
    }

    #[test]
    fn a_legacy_key_is_read_where_its_prefix_says_so() {
        let legacy = |prefix| Some(LegacyFormat::new(prefix, 40..=128).unwrap());
        let with = |prefix| Formats { own: ApiKeyFormat::default(), legacy: legacy(prefix), others: Vec::new() };
        let key = format!("sk_live_{}", "a".repeat(32));
        assert!(
            with("sk_live_").claim(key.as_bytes()) && with("sk_live_").read(&key).is_some_and(|key| key.is_legacy())
        );
        assert!(!with("").claim(key.as_bytes()), "without a prefix no bearer token is claimed");
        assert!(with("").read(&key).is_some_and(|key| key.is_legacy()));
        assert!(with("pc_").read(&format!("pc_{}", "a".repeat(40))).is_none(), "what begins like an own key is one");
        let longest = format!("sk_live_{}", "a".repeat(120));
        let token = STANDARD.encode(format!("{longest}:"));
        assert!(in_basic(&with("sk_live_"), &token).is_some_and(|key| key.is_some()), "the longest key fits");
    }
}
