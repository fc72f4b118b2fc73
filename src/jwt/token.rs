//! Takes a compact JWS (RFC 7515 §7.1) apart and reads its header.

use std::{borrow::Cow, sync::LazyLock};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurposeConfig},
};
use memchr::{memchr, memrchr};

use crate::{
    credential::MAX_CREDENTIAL_LEN,
    jwt::{
        Algorithm, Refusal,
        json::{self, Members, Value},
    },
};

/// The largest header, in characters of base64url.
const MAX_HEADER_LEN: usize = 4 * 1024;

/// One text for each sequence of bytes (RFC 4648 §3.5): no padding, no bits left over.
pub(super) static BASE64: LazyLock<Strict> = LazyLock::new(|| {
    let strict = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Strict::url_safe(strict);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Strict::new(&base64::alphabet::URL_SAFE, strict);
});

/// Takes many characters at once where the processor can.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Strict = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Strict = base64::engine::GeneralPurpose;

/// Whether a token is shaped like a JWT: it begins as a JSON object in base64url does, and has at least two dots. Others' tokens
/// and API keys have dots too.
pub(super) fn is_jwt(token: &[u8]) -> bool {
    let after_dot = |text: &[u8]| memchr(b'.', text).map(|dot| dot.saturating_add(1));
    matches!(token, [b'e', b'w'..=b'z' | b'0'..=b'9' | b'-' | b'_', ..])
        && after_dot(token).and_then(|rest| after_dot(token.get(rest..)?)).is_some()
}

/// The three parts of a token, still encoded.
pub(super) struct Parts<'a> {
    /// What the signature is over, as it was received.
    pub(super) signed: &'a str,
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
}

pub(super) fn split(token: &str) -> Result<Parts<'_>, Refusal> {
    if token.len() > MAX_CREDENTIAL_LEN {
        return Err(Refusal("token too long"));
    }
    let parts = memrchr(b'.', token.as_bytes()).and_then(|last| {
        let (signed, signature) = (token.get(..last)?, token.get(last.saturating_add(1)..)?);
        let first = memchr(b'.', signed.as_bytes())?;
        Some(Parts { signed, header: signed.get(..first)?, claims: signed.get(first.saturating_add(1)..)?, signature })
    });
    match parts {
        Some(parts) if parts.header.len() > MAX_HEADER_LEN => Err(Refusal("token header too long")),
        Some(parts) if memchr(b'.', parts.claims.as_bytes()).is_some() => {
            Err(Refusal("token has more than three parts"))
        }
        Some(parts) if parts.header.is_empty() || parts.claims.is_empty() => Err(Refusal("token has an empty part")),
        Some(parts) if parts.signature.is_empty() => Err(Refusal("token has no signature")),
        Some(parts) => Ok(parts),
        None => Err(Refusal("token has less than three parts")),
    }
}

/// The decoded bytes of a token, in one allocation.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn for_token(token: &str) -> Self {
        // Each part may take three bytes more than its share while it is decoded.
        Self(vec![0; token.len() + 9])
    }

    pub(super) fn rest(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Decodes a part into the front of what is left of the buffer.
pub(super) fn decode<'b>(part: &str, rest: &mut &'b mut [u8]) -> Result<&'b [u8], Refusal> {
    const MALFORMED: Refusal = Refusal("token is not base64url");
    let length = BASE64.decode_slice(part, rest).map_err(|_| MALFORMED)?;
    let (decoded, left) = std::mem::take(rest).split_at_mut_checked(length).ok_or(MALFORMED)?;
    *rest = left;
    Ok(decoded)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal("token is not UTF-8"))
}

/// What is read of a JOSE header (RFC 7515 §4).
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<Cow<'a, str>>,
    pub(super) typ: Typ,
}

/// The media type of a token (RFC 7515 §4.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typ {
    Absent,
    Jwt,
    /// RFC 9068 §2.1.
    AccessToken,
    /// OpenID Connect Back-Channel Logout 1.0 §2.4.
    Logout,
    Other,
}

impl Typ {
    fn of(typ: &str) -> Self {
        if is_typ(typ, "at+jwt") {
            Self::AccessToken
        } else if is_typ(typ, "logout+jwt") {
            Self::Logout
        } else if is_typ(typ, "jwt") {
            Self::Jwt
        } else {
            Self::Other
        }
    }
}

/// Whether a `typ` is this media type: without regard to case, and to `application/` in front.
pub(super) fn is_typ(typ: &str, name: &str) -> bool {
    const PREFIX: &str = "application/";
    let kind = match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, kind)) if prefix.eq_ignore_ascii_case(PREFIX) => kind,
        Some(_) | None => typ,
    };
    kind.eq_ignore_ascii_case(name)
}

pub(super) fn read_header(text: &str) -> Result<Header<'_>, Refusal> {
    let mut fields = Fields { algorithm: None, key_id: None, typ: Typ::Absent };
    json::read(text, &mut fields, Refusal("token header is not a JSON object"))?;
    let Some(name) = fields.algorithm else { return Err(Refusal("alg is missing")) };
    let algorithm = Algorithm::from_name(&name).ok_or(Refusal("alg is not known"))?;
    Ok(Header { algorithm, key_id: fields.key_id, typ: fields.typ })
}

struct Fields<'a> {
    algorithm: Option<Cow<'a, str>>,
    key_id: Option<Cow<'a, str>>,
    typ: Typ,
}

impl<'de> Members<'de> for Fields<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        match name {
            "alg" => self.algorithm = Some(value.text(Refusal("alg is not a string"))?),
            "kid" => self.key_id = Some(value.text(Refusal("kid is not a string"))?),
            "typ" => self.typ = Typ::of(&value.text(Refusal("typ is not a string"))?),
            "crit" => return Err(Refusal("crit names an extension: none is understood")),
            "b64" => return Err(Refusal("b64 in the header: payload encodings are not taken")),
            "zip" | "enc" => return Err(Refusal("zip or enc in the header: not a signed token")),
            "jwk" => return Err(Refusal("the header brings its own key")),
            "cty" => {
                let cty = value.text(Refusal("cty is not a string"))?;
                if Typ::of(&cty) == Typ::Jwt {
                    return Err(Refusal("cty says that a token is nested inside"));
                }
            }
            // `jku`, `x5u`, `x5c` among them: they never lead to a key.
            _ => return value.skip(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_and_no_other_number() {
        let parts = split("aa.bb.cc").unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!((parts.signed, parts.header, parts.claims, parts.signature), ("aa.bb", "aa", "bb", "cc"));
        let long_header = format!("{}.a.a", "a".repeat(MAX_HEADER_LEN + 1));
        let long_token = format!("a.{}.a", "a".repeat(MAX_CREDENTIAL_LEN));
        for token in ["", "a", "a.b", "a.b.", ".b.c", "a..c", "..", "...", "a.b.c.d", "a.b.c.", ".a.b.c", "a.b.c.d.e"] {
            assert!(split(token).is_err(), "{token}");
        }
        assert!(split(&long_header).is_err() && split(&long_token).is_err());
    }

    #[test]
    fn one_text_for_one_value() {
        for (part, good) in [("AA", true), ("AB", false), ("AA=", false), ("AA==", false), ("A", false), ("AAA", true)]
        {
            assert_eq!(decode(part, &mut Buffer::for_token(part).rest()).is_ok(), good, "{part}");
        }
        for part in ["A A", "AA\n", "A+A/", "é"] {
            assert!(decode(part, &mut Buffer::for_token(part).rest()).is_err(), "{part}");
        }
        assert!(decode("A-_A", &mut Buffer::for_token("A-_A").rest()).is_ok());
    }

    #[test]
    fn types_are_media_types() {
        let rows = [
            ("at+jwt", Typ::AccessToken),
            ("AT+JWT", Typ::AccessToken),
            ("application/at+jwt", Typ::AccessToken),
            ("Application/AT+jwt", Typ::AccessToken),
            ("JWT", Typ::Jwt),
            ("application/jwt", Typ::Jwt),
            ("application/application/jwt", Typ::Other),
            ("logout+jwt", Typ::Logout),
            ("text/jwt", Typ::Other),
            ("at+jwt ", Typ::Other),
            ("application/", Typ::Other),
            ("", Typ::Other),
        ];
        for (typ, expected) in rows {
            assert_eq!(Typ::of(typ), expected, "{typ}");
        }
    }

    #[test]
    fn the_header_of_rfc_7515_a_1() {
        let header = read_header("{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}").unwrap();
        assert_eq!((header.algorithm, header.typ, header.key_id), (Algorithm::HS256, Typ::Jwt, None));
    }

    #[test]
    fn shapes() {
        for (token, jwt) in [
            ("", false),
            ("2YotnFZFEjr1zCsicMWpAA", false),
            ("eyJhbGciOiJFUzI1NiJ9", false),
            ("eyJhbGciOiJFUzI1NiJ9.e30", false),
            ("eyJhbGciOiJFUzI1NiJ9.e30.AA", true),
            ("eyJhbGciOiJFUzI1NiJ9..", true),
            ("ewogImFsZyI6IkVTMjU2In0.e30.AA", true),
            ("e30.e30.AA", true),
            ("eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d", true),
            ("ory_at_abc.def", false),
            ("ory.at.abc", false),
            ("v4.public.abc", false),
            ("ea.b.c", false),
            ("e", false),
            ("...", false),
        ] {
            assert_eq!(is_jwt(token.as_bytes()), jwt, "{token}");
        }
    }
}
