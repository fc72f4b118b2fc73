//! A DPoP proof: a JWT that brings its own key (RFC 9449 §4.2).

use std::{borrow::Cow, time::Duration};

use base64::Engine;

use crate::jwt::{
    Algorithm, Key, Refusal,
    algorithm::{Curve, Family},
    crypto::sha256,
    json::{self, Members, Value},
    token::{self, BASE64, Buffer},
};

/// The longest proof, in characters: one of RSA with 8192 bits fits.
const MAX_LEN: usize = 8 * 1024;

/// A proof that is well-formed. Nothing in it is believed yet.
pub(super) struct Proof<'a> {
    algorithm: Algorithm,
    jwk: Jwk<'a>,
    pub(super) htm: Cow<'a, str>,
    pub(super) htu: Cow<'a, str>,
    pub(super) jti: Cow<'a, str>,
    pub(super) iat: Duration,
    /// The hash of the token that it is for.
    pub(super) ath: Cow<'a, str>,
    pub(super) nonce: Option<Cow<'a, str>>,
    signed: &'a str,
    signature: &'a [u8],
}

/// Room for the decoded bytes of a proof, which is not made for one that is too long.
pub(super) fn buffer(text: &str) -> Result<Buffer, Refusal> {
    if text.len() > MAX_LEN { Err(Refusal("the proof is too long")) } else { Ok(Buffer::for_token(text)) }
}

/// Reads a proof: RFC 9449 §4.3 (2) to (5), and (7).
pub(super) fn read<'a>(text: &'a str, buffer: &'a mut Buffer, algorithms: &[Algorithm]) -> Result<Proof<'a>, Refusal> {
    let parts = token::split(text).map_err(|_| Refusal("the proof is not a signed JWT"))?;
    let mut rest = buffer.rest();
    let mut decode = |part| token::decode(part, &mut rest).map_err(|_| Refusal("the proof is not base64url"));
    let (header, claims, signature) = (decode(parts.header)?, decode(parts.claims)?, decode(parts.signature)?);
    let text = |bytes| token::text(bytes).map_err(|_| Refusal("the proof is not UTF-8"));

    let mut fields = Header::default();
    json::read(text(header)?, &mut fields, Refusal("the proof's header is not a JSON object"))?;
    if !fields.typ.as_deref().is_some_and(|typ| token::is_typ(typ, "dpop+jwt")) {
        return Err(Refusal("the proof's typ is not dpop+jwt"));
    }
    let algorithm =
        fields.alg.as_deref().and_then(Algorithm::from_name).ok_or(Refusal("the proof's alg is not known"))?;
    if !algorithms.contains(&algorithm) {
        return Err(Refusal("the proof's alg is not allowed"));
    }
    let jwk = fields.jwk.ok_or(Refusal("the proof has no jwk"))?;
    if jwk.alg.as_deref().is_some_and(|named| Algorithm::from_name(named) != Some(algorithm)) {
        return Err(Refusal("the proof's jwk is for another alg"));
    }

    let mut found = Claims::default();
    json::read(text(claims)?, &mut found, Refusal("the proof's claims are not a JSON object"))?;
    Ok(Proof {
        algorithm,
        jwk,
        htm: found.htm.ok_or(Refusal("the proof has no htm"))?,
        htu: found.htu.ok_or(Refusal("the proof has no htu"))?,
        jti: found.jti.filter(|jti| !jti.is_empty()).ok_or(Refusal("the proof has no jti"))?,
        iat: found.iat.ok_or(Refusal("the proof has no iat"))?,
        ath: found.ath.ok_or(Refusal("the proof has no ath"))?,
        nonce: found.nonce,
        signed: parts.signed,
        signature,
    })
}

impl Proof<'_> {
    /// The thumbprint of its key (RFC 7638, SHA-256).
    pub(super) fn thumbprint(&self) -> Result<[u8; 32], Refusal> {
        self.jwk.thumbprint()
    }

    /// Whether its signature is good by its own key: RFC 9449 §4.3 (6).
    pub(super) fn check_signature(&self) -> Result<(), Refusal> {
        let key = self.jwk.key(self.algorithm)?;
        if key.verifies(self.signed.as_bytes(), self.signature) {
            Ok(())
        } else {
            Err(Refusal("the proof's signature is not good"))
        }
    }

    /// Whether its key signed another text.
    #[cfg(test)]
    pub(super) fn verifies(&self, text: &str, signature: &str) -> bool {
        let signature = BASE64.decode(signature);
        signature.is_ok_and(|it| self.jwk.key(self.algorithm).is_ok_and(|key| key.verifies(text.as_bytes(), &it)))
    }
}

#[derive(Default)]
struct Header<'a> {
    typ: Option<Cow<'a, str>>,
    alg: Option<Cow<'a, str>>,
    jwk: Option<Jwk<'a>>,
}

impl<'de> Members<'de> for Header<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        match name {
            "typ" => self.typ = Some(value.text(Refusal("the proof's typ is not a string"))?),
            "alg" => self.alg = Some(value.text(Refusal("the proof's alg is not a string"))?),
            "jwk" => {
                let mut jwk = Jwk::default();
                value.object(&mut jwk, Refusal("the proof's jwk is not an object"))?;
                self.jwk = Some(jwk);
            }
            "crit" | "b64" | "zip" | "enc" => return Err(Refusal("the proof asks for more than a signature")),
            _ => return value.skip(),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Claims<'a> {
    jti: Option<Cow<'a, str>>,
    htm: Option<Cow<'a, str>>,
    htu: Option<Cow<'a, str>>,
    iat: Option<Duration>,
    ath: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
}

impl<'de> Members<'de> for Claims<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        const NOT_TEXT: Refusal = Refusal("a claim of the proof is not a string");
        let place = match name {
            "jti" => &mut self.jti,
            "htm" => &mut self.htm,
            "htu" => &mut self.htu,
            "ath" => &mut self.ath,
            "nonce" => &mut self.nonce,
            "iat" => {
                self.iat = Some(value.date(Refusal("the proof's iat is not a date"))?);
                return Ok(());
            }
            _ => return value.skip(),
        };
        *place = Some(value.text(NOT_TEXT)?);
        Ok(())
    }
}

/// The members that make up a public key, as they stand (RFC 7518 §6, RFC 8037 §2).
#[derive(Default)]
struct Jwk<'a> {
    kty: Option<Cow<'a, str>>,
    crv: Option<Cow<'a, str>>,
    x: Option<Cow<'a, str>>,
    y: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    e: Option<Cow<'a, str>>,
    alg: Option<Cow<'a, str>>,
}

impl<'de> Members<'de> for Jwk<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        let place = match name {
            "kty" => &mut self.kty,
            "crv" => &mut self.crv,
            "x" => &mut self.x,
            "y" => &mut self.y,
            "n" => &mut self.n,
            "e" => &mut self.e,
            "alg" => &mut self.alg,
            "d" | "p" | "q" | "dp" | "dq" | "qi" | "oth" | "k" => {
                return Err(Refusal("the proof's jwk has a private part"));
            }
            _ => return value.skip(),
        };
        *place = Some(value.text(Refusal("a member of the proof's jwk is not a string"))?);
        Ok(())
    }
}

const NOT_OF_ALG: Refusal = Refusal("the proof's jwk is not a key for its alg");

/// The members that an algorithm's key has.
enum Material<'a> {
    Ec { curve: &'static str, x: &'a str, y: &'a str },
    Ed25519 { x: &'a str },
    Rsa { n: &'a str, e: &'a str },
}

impl Jwk<'_> {
    /// By key type; whether it is that of the algorithm is told when the key is made.
    fn material(&self) -> Result<Material<'_>, Refusal> {
        match (self.kty.as_deref(), self.crv.as_deref()) {
            (Some("EC"), Some(curve)) => {
                let curve = match curve {
                    "P-256" => "P-256",
                    "P-384" => "P-384",
                    "P-521" => "P-521",
                    _ => return Err(NOT_OF_ALG),
                };
                let (x, y) = (self.x.as_deref().ok_or(NOT_OF_ALG)?, self.y.as_deref().ok_or(NOT_OF_ALG)?);
                Ok(Material::Ec { curve, x, y })
            }
            (Some("OKP"), Some("Ed25519")) => Ok(Material::Ed25519 { x: self.x.as_deref().ok_or(NOT_OF_ALG)? }),
            (Some("RSA"), _) => {
                let (n, e) = (self.n.as_deref().ok_or(NOT_OF_ALG)?, self.e.as_deref().ok_or(NOT_OF_ALG)?);
                Ok(Material::Rsa { n, e })
            }
            _ => Err(NOT_OF_ALG),
        }
    }

    /// The hash over the required members, in the order of their names (RFC 7638 §3.2).
    fn thumbprint(&self) -> Result<[u8; 32], Refusal> {
        // Put together at once: a formatter would take as long as the hash.
        let (text, members) = match self.material()? {
            Material::Ec { curve, x, y } => {
                ([r#"{"crv":""#, curve, r#"","kty":"EC","x":""#, x, r#"","y":""#, y, r#""}"#].concat(), [x, y])
            }
            Material::Ed25519 { x } => ([r#"{"crv":"Ed25519","kty":"OKP","x":""#, x, r#""}"#].concat(), [x, x]),
            Material::Rsa { n, e } => ([r#"{"e":""#, e, r#"","kty":"RSA","n":""#, n, r#""}"#].concat(), [n, e]),
        };
        // Else a member could have a text in it that reads as other members.
        let is_base64url =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !members.into_iter().all(is_base64url) {
            return Err(Refusal("a member of the proof's jwk is not base64url"));
        }
        Ok(sha256(text.as_bytes()))
    }

    fn key(&self, algorithm: Algorithm) -> Result<Key, Refusal> {
        let number =
            |text: &str| BASE64.decode(text).map_err(|_| Refusal("a member of the proof's jwk is not base64url"));
        let key = match (algorithm.family(), self.material()?) {
            (Family::Ec(wanted), Material::Ec { curve, x, y }) if name(wanted) == curve => {
                let (mut room_x, mut room_y) = ([0; COORDINATE], [0; COORDINATE]);
                Key::from_ec_point(algorithm, coordinate(x, &mut room_x)?, coordinate(y, &mut room_y)?)
            }
            (Family::Ed25519, Material::Ed25519 { x }) => Key::from_ed25519_point(algorithm, &number(x)?),
            (Family::Rsa(..), Material::Rsa { n, e }) => Key::from_rsa_numbers(algorithm, &number(n)?, &number(e)?),
            (Family::Ec(_) | Family::Ed25519 | Family::Rsa(..) | Family::Hmac(_), _) => return Err(NOT_OF_ALG),
        };
        key.map_err(|_| NOT_OF_ALG)
    }
}

/// Room for a coordinate of P-521 in base64url, whole groups of it.
const COORDINATE: usize = 66;

fn coordinate<'r>(text: &str, room: &'r mut [u8; COORDINATE]) -> Result<&'r [u8], Refusal> {
    // One that does not fit is of no curve that there is.
    let len = BASE64.decode_slice(text, room).map_err(|_| NOT_OF_ALG)?;
    room.get(..len).ok_or(NOT_OF_ALG)
}

const fn name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P-256",
        Curve::P384 => "P-384",
        Curve::P521 => "P-521",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwk(text: &str) -> Result<Jwk<'_>, Refusal> {
        let mut jwk = Jwk::default();
        json::read(text, &mut jwk, Refusal("malformed")).map(|()| jwk)
    }

    fn thumbprint(text: &str) -> String {
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(jwk(text).unwrap().thumbprint().unwrap())
    }

    #[test]
    fn thumbprints_of_the_rfcs() {
        // RFC 7638 §3.1.
        let rsa = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
        assert_eq!(thumbprint(rsa), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // RFC 8037 §A.3.
        let okp = r#"{"crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP"}"#;
        assert_eq!(thumbprint(okp), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // RFC 9449 §4.1, whose thumbprint stands in §6.1.
        let ec = r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#;
        assert_eq!(thumbprint(ec), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn keys_that_are_none() {
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for value in ["\"AQ\"", "null", "[]"] {
                let text = format!(r#"{{"kty":"EC","crv":"P-256","{private}":{value}}}"#);
                assert!(jwk(&text).is_err(), "{text}");
            }
        }
        for text in [
            r#"{}"#,
            r#"{"kty":"oct"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AQ"}"#,
            r#"{"kty":"EC","crv":"secp256k1","x":"AQ","y":"AQ"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"AQ"}"#,
            r#"{"kty":"RSA","n":"AQ"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","x":"AQ\",\"y\":\"AQ"}"#,
        ] {
            assert!(jwk(text).unwrap().thumbprint().is_err(), "{text}");
        }
    }
}
