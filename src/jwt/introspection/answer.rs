//! Reads what the endpoint says of a token (RFC 7662 §2.2).

use std::borrow::Cow;

use crate::jwt::{
    Refusal,
    claims::Claims,
    json::{self, Members, Shape, Value},
    path::Mapped,
};

/// Why an answer makes no principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is none: the endpoint's fault, and says nothing of the token.
    Junk(Refusal),
    /// It is one that cannot be read, for what it says of this token, maybe: too deep, a member twice.
    Odd(Refusal),
    /// The token is not good.
    Refused(Refusal),
}

impl Fault {
    /// That of a text that cannot be read: pages of errors and signed answers are no objects.
    pub(super) fn of(text: &[u8], problem: Refusal) -> Self {
        let text = text.trim_ascii();
        if text.starts_with(b"{") && text.ends_with(b"}") { Self::Odd(problem) } else { Self::Junk(problem) }
    }
}

/// Reads an answer that says that a token is active, and is an access token.
pub(super) fn read<'a>(text: &'a str, mapped: &Mapped) -> Result<Claims<'a>, Fault> {
    // All of it, strictly, before any of it is believed.
    let mut outline = Outline::default();
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    json::read(text, &mut outline, Refusal("the answer is not a JSON object"))
        .map_err(|problem| Fault::of(text.as_bytes(), problem))?;
    if !outline.active {
        return Err(Fault::Refused(Refusal("the token is not active")));
    }
    let mut claims = Claims::default();
    claims.read(text, mapped).map_err(Fault::Refused)?;
    outline.check_kind(&claims).map_err(Fault::Refused)?;
    Ok(claims)
}

/// What tells whether and of what kind the token is.
#[derive(Debug, Default)]
struct Outline<'a> {
    active: bool,
    token_type: Option<Shape<'a>>,
    token_use: Option<Shape<'a>>,
    typ: Option<Shape<'a>>,
}

impl<'de> Members<'de> for Outline<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        match name {
            // A boolean and nothing else: "true" is no answer that anybody should act on.
            "active" => self.active = value.reads_true()?,
            "token_type" => self.token_type = Some(value.shape()?),
            "token_use" => self.token_use = Some(value.shape()?),
            "typ" => self.typ = Some(value.shape()?),
            _ => return value.skip(),
        }
        Ok(())
    }
}

impl Outline<'_> {
    /// The members that servers tell kinds by; one that is absent says nothing.
    fn check_kind(&self, claims: &Claims<'_>) -> Result<(), Refusal> {
        const TYPES: [&str; 3] = ["bearer", "dpop", "access_token"];
        is_one_of(&self.token_type, &TYPES, Refusal("token_type is not that of an access token"))?;
        // Ory Hydra, Amazon Cognito.
        let uses = ["access_token", "access"];
        is_one_of(&self.token_use, &uses, Refusal("token_use is not that of an access token"))?;
        // Keycloak: `Refresh`, `ID` and more besides.
        let typs = ["bearer", "dpop", "at+jwt", "application/at+jwt", "jwt"];
        is_one_of(&self.typ, &typs, Refusal("typ is not that of an access token"))?;
        // RFC 9449 §6.2.
        let says = |kind: &str| matches!(&self.token_type, Some(Shape::Text(text)) if text.eq_ignore_ascii_case(kind));
        match claims.cnf.as_ref().and_then(|cnf| cnf.key_thumbprint()) {
            None if says("dpop") => Err(Refusal("token_type is DPoP, and the token is bound to no key (cnf.jkt)")),
            Some(_) if says("bearer") => {
                Err(Refusal("the token is bound to a key (cnf.jkt), and token_type is Bearer"))
            }
            None | Some(_) => Ok(()),
        }
    }
}

fn is_one_of(found: &Option<Shape<'_>>, kinds: &[&str], refusal: Refusal) -> Result<(), Refusal> {
    let is = |text: &Cow<'_, str>| kinds.iter().any(|kind| text.eq_ignore_ascii_case(kind));
    match found {
        None => Ok(()),
        Some(Shape::Text(text)) if is(text) => Ok(()),
        Some(_) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<Fault> {
        read(text, &Mapped::new()).err()
    }

    #[test]
    fn active_is_true_and_nothing_else() {
        assert_eq!(fault(r#"{"active":true}"#), None);
        assert_eq!(fault("\n {\"active\":true} \r\n"), None);
        let inactive = Some(Fault::Refused(Refusal("the token is not active")));
        for text in [
            "{}",
            r#"{"active":false}"#,
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":[true]}"#,
            r#"{"active":{"active":true}}"#,
            r#"{"Active":true}"#,
            r#"{"sub":"alice","a":{"active":true}}"#,
            r#"{"active":false,"sub":7,"token_type":"refresh_token"}"#,
        ] {
            assert_eq!(fault(text), inactive, "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_says_nothing_of_the_token() {
        for text in [
            "",
            "true",
            "[]",
            "null",
            r#"[{"active":true}]"#,
            r#"{"active":true"#,
            r#"{"active":true}x"#,
            "<html></html>",
            "eyJhbGciOiJFUzI1NiJ9.e30.AA",
            "\u{feff}{\"active\":true}",
        ] {
            assert!(matches!(fault(text), Some(Fault::Junk(_))), "{text}");
        }
        let deep = format!(r#"{{"active":true,"a":{}1{}}}"#, "[".repeat(16), "]".repeat(16));
        for text in [
            r#"{"active":true}{}"#,
            r#" {"active":truex} "#,
            r#"{"active":false,"active":true}"#,
            r#"{"active":true,"\u0061ctive":true}"#,
            r#"{"active":true,"a":{"b":1,"b":2}}"#,
            r#"{"active":true,"a":"\ud800"}"#,
            &deep,
        ] {
            assert!(matches!(fault(text), Some(Fault::Odd(_))), "{text}");
        }
    }

    #[test]
    fn kinds() {
        let jkt = r#""cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#;
        for (members, good) in [
            (r#""token_type":"Bearer""#, true),
            (r#""token_type":"bearer""#, true),
            (r#""token_type":"access_token""#, true),
            (r#""token_type":"refresh_token""#, false),
            (r#""token_type":"N_A""#, false),
            (r#""token_type":"id_token""#, false),
            (r#""token_type":null"#, false),
            (r#""token_type":["Bearer"]"#, false),
            (r#""token_use":"access""#, true),
            (r#""token_use":"id""#, false),
            (r#""token_use":"refresh_token""#, false),
            (r#""typ":"Bearer""#, true),
            (r#""typ":"Refresh""#, false),
            (r#""typ":"ID""#, false),
            (r#""typ":"Offline""#, false),
            (r#""typ":"logout+jwt""#, false),
            (r#""token_introspection":{}"#, false),
            (r#""events":{}"#, false),
            (r#""token_type":"DPoP""#, false),
            (&format!(r#""token_type":"DPoP",{jkt}"#), true),
            (&format!(r#""token_type":"Bearer",{jkt}"#), false),
            (jkt, true),
        ] {
            let text = format!(r#"{{"active":true,{members}}}"#);
            assert_eq!(fault(&text).is_none(), good, "{text}");
            assert!(!matches!(fault(&text), Some(Fault::Junk(_) | Fault::Odd(_))), "{text}");
        }
    }
}
