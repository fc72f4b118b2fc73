//! Reads `cnf` (RFC 7800 §3.1).

use base64::Engine;

use crate::{
    jwt::{
        Refusal,
        json::{Members, Value},
        token::BASE64,
    },
    principal::Confirmation,
};

/// Reads the members that are checked here. Any other refuses: a binding that nobody checks would be none.
pub(in crate::jwt) fn read(value: Value<'_, '_>) -> Result<Confirmation, Refusal> {
    let mut reading = Reading { confirmation: Confirmation::new() };
    value.object(&mut reading, Refusal("cnf is not an object"))?;
    if reading.confirmation == Confirmation::new() {
        return Err(Refusal("cnf names nothing"));
    }
    Ok(reading.confirmation)
}

struct Reading {
    confirmation: Confirmation,
}

impl<'de> Members<'de> for Reading {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        const NOT_A_HASH: Refusal = Refusal("cnf has a member that is not a SHA-256 in base64url");
        self.confirmation = match name {
            "jkt" => self.confirmation.with_key_thumbprint(hash(&value.text(NOT_A_HASH)?).ok_or(NOT_A_HASH)?),
            "x5t#S256" => self.confirmation.with_certificate_sha256(hash(&value.text(NOT_A_HASH)?).ok_or(NOT_A_HASH)?),
            _ => return Err(Refusal("cnf binds the token in a way that is not checked here")),
        };
        Ok(())
    }
}

/// The 32 bytes of a hash in base64url without padding.
pub(super) fn hash(text: &str) -> Option<[u8; 32]> {
    // The decoder may write a little more than it decodes.
    let mut bytes = [0; 36];
    if text.len() != 43 || BASE64.decode_slice(text, &mut bytes) != Ok(32) {
        return None;
    }
    bytes.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::json;

    struct Outer(Option<Confirmation>);

    impl<'de> Members<'de> for Outer {
        fn member(&mut self, _: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
            self.0 = Some(super::read(value)?);
            Ok(())
        }
    }

    fn read(cnf: &str) -> Result<Option<Confirmation>, Refusal> {
        let mut outer = Outer(None);
        json::read(&format!(r#"{{"cnf":{cnf}}}"#), &mut outer, Refusal("malformed")).map(|()| outer.0)
    }

    #[test]
    fn bindings_that_are_checked_and_no_other() {
        // RFC 9449 §6.1 and RFC 8705 §3.1.
        let jkt = r#""jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I""#;
        let x5t = r#""x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2""#;
        // The last character of the RFC's own x5t#S256 has bits to spare.
        assert!(read(&format!("{{{x5t}}}")).is_err());
        let x5t = r#""x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0""#;
        let key = read(&format!("{{{jkt}}}")).unwrap().unwrap();
        assert_eq!(key.key_thumbprint().map(|hash| &hash[..4]), Some(&[0xd1, 0x97, 0x0e, 0x08][..]));
        let both = read(&format!("{{{jkt},{x5t}}}")).unwrap().unwrap();
        assert_eq!(both.certificate_sha256().map(|hash| &hash[..4]), Some(&[0x6f, 0x07, 0x0a, 0xd1][..]));
        assert!(both.key_thumbprint().is_some());
        for bad in [
            "{}",
            "null",
            "[]",
            "\"a\"",
            "1",
            r#"{"jwk":{}}"#,
            r#"{"kid":"a"}"#,
            &format!(r#"{{{jkt},"kid":"a"}}"#),
            &format!("{{{jkt},{jkt}}}"),
            r#"{"jkt":1}"#,
            r#"{"jkt":""}"#,
            r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I="}"#,
            r#"{"jkt":"0ZcOCORZNYy+DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#,
            r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4"}"#,
            r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4IAA"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
