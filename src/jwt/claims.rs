//! Reads the claims of a token (RFC 7519 §4) in one pass.

use std::{borrow::Cow, time::Duration};

use serde::de::MapAccess;

use crate::jwt::{
    Refusal,
    date::Date,
    json::{self, Members, Shape, Value},
};

/// What is read of the claims. A claim that is kept here and is of the wrong JSON type refuses the token, used or not.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    pub(super) iss: Option<Cow<'a, str>>,
    pub(super) sub: Option<Cow<'a, str>>,
    pub(super) aud: Option<Shape<'a>>,
    pub(super) exp: Option<Duration>,
    pub(super) nbf: Option<Duration>,
    pub(super) iat: Option<Duration>,
    pub(super) jti: Option<Cow<'a, str>>,
    pub(super) azp: Option<Cow<'a, str>>,
    pub(super) client_id: Option<Cow<'a, str>>,
    pub(super) amr: Vec<Cow<'a, str>>,
    /// A claim that only ID tokens have (OpenID Connect Core §2, §3.3.2.11).
    pub(super) of_id_token: bool,
    /// The claims that a profile maps, by their place among the names.
    mapped: Vec<(usize, Shape<'a>)>,
}

impl<'a> Claims<'a> {
    /// Reads the claims, and those of these names besides.
    pub(super) fn read(text: &'a str, names: &[Box<str>]) -> Result<Self, Refusal> {
        let mut reading = Reading { claims: Self::default(), names };
        json::read(text, &mut reading, Refusal("claims are not a JSON object"))?;
        Ok(reading.claims)
    }

    /// The value of the claim at this place among the names.
    pub(super) fn mapped(&self, place: usize) -> Option<&Shape<'a>> {
        self.mapped.iter().find(|(at, _)| *at == place).map(|(_, shape)| shape)
    }

    /// The audiences: whether this one is among them, and how many there are.
    pub(super) fn audience(&self, audience: &str) -> (bool, usize) {
        match &self.aud {
            Some(Shape::Text(text)) => (text == audience, 1),
            Some(Shape::Texts(texts)) => (texts.iter().any(|text| text == audience), texts.len()),
            Some(Shape::Other) | None => (false, 0),
        }
    }
}

/// The claims that are read here under their registered meaning; a profile cannot map one as something else.
pub(super) const REGISTERED: [&str; 16] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "azp",
    "client_id",
    "amr",
    "cnf",
    "nonce",
    "at_hash",
    "c_hash",
    "events",
    "token_introspection",
];

struct Reading<'a, 'n> {
    claims: Claims<'a>,
    names: &'n [Box<str>],
}

impl<'de> Members<'de> for Reading<'de, '_> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, mut value: Value<'_, 'de, A>) -> Result<(), A::Error> {
        let claims = &mut self.claims;
        match name {
            "iss" => claims.iss = Some(value.text(Refusal("iss is not a string"))?),
            "sub" => claims.sub = Some(value.text(Refusal("sub is not a string"))?),
            "aud" => claims.aud = Some(value.typed(Refusal("aud is neither a string nor an array of strings"))?),
            "exp" => claims.exp = Some(value.typed::<Date>(Refusal("exp is not a date"))?.0),
            "nbf" => claims.nbf = Some(value.typed::<Date>(Refusal("nbf is not a date"))?.0),
            "iat" => claims.iat = Some(value.typed::<Date>(Refusal("iat is not a date"))?.0),
            "jti" => claims.jti = Some(value.text(Refusal("jti is not a string"))?),
            "azp" => claims.azp = Some(value.text(Refusal("azp is not a string"))?),
            "client_id" => claims.client_id = Some(value.text(Refusal("client_id is not a string"))?),
            "amr" => match value.typed(Refusal("amr is not an array of strings"))? {
                Shape::Texts(methods) => claims.amr = methods,
                Shape::Text(_) | Shape::Other => return Err(value.refuse(Refusal("amr is not an array of strings"))),
            },
            "cnf" => return Err(value.refuse(Refusal("token is bound to a key (cnf), which is not checked here"))),
            "events" => return Err(value.refuse(Refusal("a security event or logout token"))),
            "token_introspection" => return Err(value.refuse(Refusal("an introspection response"))),
            "nonce" | "at_hash" | "c_hash" => {
                claims.of_id_token = true;
                return value.skip();
            }
            _ => match self.names.iter().position(|mapped| **mapped == *name) {
                Some(place) => claims.mapped.push((place, value.shape()?)),
                None => return value.skip(),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Claims<'_>, Refusal> {
        Claims::read(text, &["scope".into(), "roles".into()])
    }

    #[test]
    fn reads_what_there_is() {
        let claims = read(
            r#"{"iss":"i","sub":"s","aud":["a","b"],"exp":2,"nbf":1.5,"iat":1e0,"jti":"j","azp":"z","client_id":"c",
                "amr":["pwd","mfa"],"roles":["clerk"],"scope":7,"address":{"city":["x"]}}"#,
        )
        .unwrap();
        assert_eq!(claims.iss.as_deref(), Some("i"));
        assert_eq!(claims.audience("b"), (true, 2));
        assert_eq!(claims.audience("c"), (false, 2));
        assert_eq!(claims.exp, Some(Duration::from_secs(2)));
        assert_eq!(claims.nbf, Some(Duration::from_millis(1500)));
        assert_eq!(claims.iat, Some(Duration::from_secs(1)));
        assert_eq!(claims.amr, ["pwd", "mfa"]);
        assert_eq!(claims.mapped(0), Some(&Shape::Other));
        assert_eq!(claims.mapped(1), Some(&Shape::Texts(vec!["clerk".into()])));
        assert!(!claims.of_id_token);
    }

    #[test]
    fn wrong_types_refuse() {
        let dates = ["\"1\"", "-1", "1e999", "null", "[1]", "true"];
        let texts = ["1", "null", "[\"a\"]", "{}", "false"];
        for (names, values) in
            [(["exp", "nbf", "iat"].as_slice(), dates.as_slice()), (&["iss", "sub", "jti", "azp"], &texts)]
        {
            for name in names {
                for value in values {
                    let text = format!(r#"{{"{name}":{value}}}"#);
                    assert!(read(&text).is_err(), "{text}");
                }
            }
        }
        for text in [
            r#"{"aud":5}"#,
            r#"{"aud":null}"#,
            r#"{"aud":[1]}"#,
            r#"{"aud":{"a":"a"}}"#,
            r#"{"amr":"pwd"}"#,
            r#"{"amr":[["pwd"]]}"#,
            r#"{"cnf":{}}"#,
            r#"{"cnf":null}"#,
            r#"{"events":{}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
