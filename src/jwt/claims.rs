//! Reads the claims of a token (RFC 7519 §4) in one pass.

use std::{borrow::Cow, time::Duration};

use crate::{
    jwt::{
        Refusal,
        bound::confirmation,
        json::{self, Found, Members, Shape, Value},
        path::Mapped,
    },
    principal::Confirmation,
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
    pub(super) acr: Option<Cow<'a, str>>,
    pub(super) amr: Vec<Cow<'a, str>>,
    pub(super) auth_time: Option<Duration>,
    /// What the token is bound to.
    pub(super) cnf: Option<Confirmation>,
    /// A claim that only ID tokens have (OpenID Connect Core §2, §3.3.2.11).
    pub(super) of_id_token: bool,
    /// A claim by which access tokens say what they are good for, and no ID token has: `scope`, `scp` (Entra, Okta) or `client_id`
    /// (RFC 9068 §2.2).
    pub(super) of_access_token: bool,
    /// The claims that a profile maps, by their place.
    mapped: Found<'a>,
}

impl<'a> Claims<'a> {
    /// Reads the claims, and those that are mapped besides.
    pub(super) fn read(&mut self, text: &'a str, mapped: &Mapped) -> Result<(), Refusal> {
        json::read(text, &mut Reading { claims: self, mapped }, Refusal("claims are not a JSON object"))
    }

    /// The value of the claim that is mapped to this place.
    pub(super) fn mapped(&self, place: usize) -> Option<&Shape<'a>> {
        self.mapped.iter().find(|(at, _)| *at == place).map(|(_, shape)| shape)
    }

    /// The audiences: how many of them are ours, and how many there are.
    pub(super) fn audience(&self, ours: &[Box<str>]) -> (usize, usize) {
        let is_ours = |audience: &str| ours.iter().any(|own| **own == *audience);
        match &self.aud {
            Some(Shape::Text(text)) => (is_ours(text).into(), 1),
            Some(Shape::Texts(texts)) => (texts.iter().filter(|text| is_ours(text)).count(), texts.len()),
            Some(Shape::Other) | None => (0, 0),
        }
    }

    /// The audience, if there is one alone.
    pub(super) fn only_audience(&self) -> Option<&str> {
        match &self.aud {
            Some(Shape::Text(text)) => Some(text),
            Some(Shape::Texts(texts)) => match texts.as_slice() {
                [text] => Some(text),
                [..] => None,
            },
            Some(Shape::Other) | None => None,
        }
    }

    pub(super) fn has(&self, claim: Registered) -> bool {
        match claim {
            Registered::Nbf => self.nbf.is_some(),
            Registered::Iat => self.iat.is_some(),
            Registered::Jti => self.jti.is_some(),
            Registered::Azp => self.azp.is_some(),
            Registered::ClientId => self.client_id.is_some(),
            Registered::AuthTime => self.auth_time.is_some(),
            Registered::Acr => self.acr.is_some(),
        }
    }

    /// The value of a claim that is a string.
    pub(super) fn text(&self, claim: Registered) -> Option<&str> {
        match claim {
            Registered::Jti => self.jti.as_deref(),
            Registered::Azp => self.azp.as_deref(),
            Registered::ClientId => self.client_id.as_deref(),
            Registered::Acr => self.acr.as_deref(),
            Registered::Nbf | Registered::Iat | Registered::AuthTime => None,
        }
    }
}

/// The registered claims that a profile may require, and those of them that it may expect to be one of several texts. `iss`, `sub`,
/// `exp` and the claim that binds the token to us always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    Nbf,
    Iat,
    Jti,
    Azp,
    ClientId,
    AuthTime,
    Acr,
}

impl Registered {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "nbf" => Self::Nbf,
            "iat" => Self::Iat,
            "jti" => Self::Jti,
            "azp" => Self::Azp,
            "client_id" => Self::ClientId,
            "auth_time" => Self::AuthTime,
            "acr" => Self::Acr,
            _ => return None,
        })
    }

    pub(super) const fn is_text(self) -> bool {
        match self {
            Self::Jti | Self::Azp | Self::ClientId | Self::Acr => true,
            Self::Nbf | Self::Iat | Self::AuthTime => false,
        }
    }

    pub(super) const fn missing(self) -> Refusal {
        Refusal(match self {
            Self::Nbf => "nbf is missing",
            Self::Iat => "iat is missing",
            Self::Jti => "jti is missing",
            Self::Azp => "azp is missing",
            Self::ClientId => "client_id is missing",
            Self::AuthTime => "auth_time is missing",
            Self::Acr => "acr is missing",
        })
    }
}

struct Reading<'r, 'a> {
    claims: &'r mut Claims<'a>,
    mapped: &'r Mapped,
}

impl<'de> Members<'de> for Reading<'_, 'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        const NOT_METHODS: Refusal = Refusal("amr is not an array of strings");
        let claims = &mut *self.claims;
        match name {
            "iss" => claims.iss = Some(value.text(Refusal("iss is not a string"))?),
            "sub" => claims.sub = Some(value.text(Refusal("sub is not a string"))?),
            "aud" => claims.aud = Some(value.texts(Refusal("aud is neither a string nor an array of strings"))?),
            "exp" => claims.exp = Some(value.date(Refusal("exp is not a date"))?),
            "nbf" => claims.nbf = Some(value.date(Refusal("nbf is not a date"))?),
            "iat" => claims.iat = Some(value.date(Refusal("iat is not a date"))?),
            "auth_time" => claims.auth_time = Some(value.date(Refusal("auth_time is not a date"))?),
            "jti" => claims.jti = Some(value.text(Refusal("jti is not a string"))?),
            "azp" => claims.azp = Some(value.text(Refusal("azp is not a string"))?),
            "client_id" => {
                claims.of_access_token = true;
                claims.client_id = Some(value.text(Refusal("client_id is not a string"))?);
            }
            "acr" => claims.acr = Some(value.text(Refusal("acr is not a string"))?),
            "amr" => match value.texts(NOT_METHODS)? {
                Shape::Texts(methods) => claims.amr = methods,
                Shape::Text(_) | Shape::Other => return Err(NOT_METHODS),
            },
            "cnf" => claims.cnf = Some(confirmation::read(value)?),
            "events" if self.mapped.takes_events() => return value.skip(),
            "events" => return Err(Refusal("a security event or logout token")),
            "token_introspection" => return Err(Refusal("an introspection response")),
            "nonce" | "at_hash" | "c_hash" => {
                claims.of_id_token = true;
                return value.skip();
            }
            _ => {
                claims.of_access_token |= matches!(name, "scope" | "scp");
                return match self.mapped.branches().find(name) {
                    Some(branch) => value.pick(branch, &mut claims.mapped),
                    None => value.skip(),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Claims<'_>, Refusal> {
        let mut mapped = Mapped::new();
        for (place, path) in [["roles"].into(), ["a", "b", "c"].into(), ["a", "b", "d"].into(), ["a", "b"].into()]
            .into_iter()
            .enumerate()
        {
            assert_eq!(mapped.place_of(&path).ok(), Some(place + 1));
        }
        let mut claims = Claims::default();
        claims.read(text, &mapped).map(|()| claims)
    }

    #[test]
    fn nested_claims_are_found_where_they_stand() {
        let texts = |text: &'static str| Some(Shape::Texts(vec![text.into()]));
        let other = || Some(Shape::Other);
        let rows = [
            (
                r#"{"a":{"b":{"c":["x"],"d":"y","e":[{"c":1}]},"c":["no"]}}"#,
                texts("x"),
                Some(Shape::Text("y".into())),
                other(),
            ),
            (r#"{"a":{"x":{"b":{"c":["no"]}}},"b":{"c":["no"]},"c":["no"],"a.b.c":["no"]}"#, None, None, None),
            (r#"{"a":{"b":{}}}"#, None, None, other()),
            (r#"{"a":{}}"#, None, None, None),
            (r#"{"a":{"b":["x"]}}"#, other(), other(), texts("x")),
            (r#"{"a":{"b":null}}"#, other(), other(), other()),
            (r#"{"a":"b"}"#, other(), other(), other()),
            (r#"{"a":[{"b":{"c":["no"]}}]}"#, other(), other(), other()),
            (r#"{"a":{"b":{"c":{"x":1},"d":5}}}"#, other(), other(), other()),
            (r#"{"\u0061":{"b":{"\u0063":["x"]}}}"#, texts("x"), None, other()),
        ];
        for (text, c, d, b) in rows {
            let claims = read(text).unwrap();
            assert_eq!(
                (claims.mapped(2), claims.mapped(3), claims.mapped(4)),
                (c.as_ref(), d.as_ref(), b.as_ref()),
                "{text}"
            );
        }
        let deep = format!(r#"{{"a":{{"b":{}1{}}}}}"#, "[".repeat(14), "]".repeat(14));
        let too_deep = format!(r#"{{"a":{{"b":{}1{}}}}}"#, "[".repeat(15), "]".repeat(15));
        assert!(read(&deep).is_ok());
        for (name, text) in [
            ("twice at the top", r#"{"a":{},"a":{}}"#),
            ("twice inside", r#"{"a":{"b":{},"b":{}}}"#),
            ("twice at the end", r#"{"a":{"b":{"c":["x"],"c":["y"]}}}"#),
            ("twice beside", r#"{"a":{"b":{"c":["x"],"z":1,"z":2}}}"#),
            ("twice beside, with an escape", r#"{"a":{"z":1,"\u007a":2,"b":{}}}"#),
            ("NUL in a name", r#"{"a":{"b\u0000":{}}}"#),
            ("too deep", &too_deep),
        ] {
            assert!(read(text).is_err(), "{name}");
        }
    }

    #[test]
    fn reads_what_there_is() {
        let claims = read(
            r#"{"iss":"i","sub":"s","aud":["a","b"],"exp":2,"nbf":1.5,"iat":1e0,"auth_time":1,"jti":"j","azp":"z","client_id":"c",
                "acr":"urn:mfa","amr":["pwd","mfa"],"roles":["clerk"],"scope":7,"address":{"city":["x"]}}"#,
        )
        .unwrap();
        assert_eq!(claims.iss.as_deref(), Some("i"));
        assert_eq!(claims.audience(&["b".into()]), (1, 2));
        assert_eq!(claims.audience(&["c".into()]), (0, 2));
        assert_eq!(claims.audience(&["b".into(), "c".into(), "a".into()]), (2, 2));
        assert_eq!(claims.only_audience(), None);
        assert_eq!(read(r#"{"aud":["a"]}"#).unwrap().only_audience(), Some("a"));
        assert_eq!(read(r#"{"aud":"a"}"#).unwrap().only_audience(), Some("a"));
        assert_eq!(claims.exp, Some(Duration::from_secs(2)));
        assert_eq!(claims.nbf, Some(Duration::from_millis(1500)));
        assert_eq!(claims.iat, Some(Duration::from_secs(1)));
        assert_eq!(claims.acr.as_deref(), Some("urn:mfa"));
        assert_eq!(claims.amr, ["pwd", "mfa"]);
        assert_eq!(claims.mapped(0), Some(&Shape::Other));
        assert_eq!(claims.auth_time, Some(Duration::from_secs(1)));
        assert_eq!(claims.mapped(1), Some(&Shape::Texts(vec!["clerk".into()])));
        assert!(!claims.of_id_token);
    }

    #[test]
    fn wrong_types_refuse() {
        let dates = ["\"1\"", "-1", "1e999", "null", "[1]", "true"];
        let texts = ["1", "null", "[\"a\"]", "{}", "false"];
        for (names, values) in [
            (["exp", "nbf", "iat", "auth_time"].as_slice(), dates.as_slice()),
            (&["iss", "sub", "jti", "azp", "acr"], &texts),
        ] {
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
