//! Bodies, read strictly: one JSON object, each member at most once, none that is not known.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{Order, REVOKE, REVOKE_MANY};
use crate::{admin::Fault, clock::Instants, error::ConfigError, revocation::Revocation};

pub(super) fn order<T: DeserializeOwned>(json: &[u8]) -> Result<T, Fault> {
    object(json).ok_or_else(|| Fault::body("The body must be one JSON object of the members that are documented."))
}

fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    // An array would be read as well, member by member.
    let is_object = json.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(json).ok().filter(|_| is_object)
}

/// A member that may be left out, and is a number where it is there.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

/// Nothing, or an object without members.
pub(super) fn nothing(json: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    if json.is_empty() {
        return Ok(());
    }
    let Nothing {} = object(json).ok_or_else(|| Fault::body("The body must be empty, or an empty object."))?;
    Ok(())
}

macro_rules! orders {
    ($($name:ident($needs:ident) { $value:ident $(, $more:ident)? } => $revocation:expr;)*) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            issuer: String,
            $value: String,
            $(#[serde(default, deserialize_with = "given")] $more: Option<u64>,)?
        }

        impl Order for $name {
            const NEEDS: &'static str = $needs;

            fn issuer(&self) -> &str {
                &self.issuer
            }

            fn revocation(&self, at: Instants) -> Result<Revocation, ConfigError> {
                let revocation: fn(&Self, Instants) -> Result<Revocation, ConfigError> = $revocation;
                revocation(self, at)
            }
        }
    )*};
}

orders! {
    Token(REVOKE) { jti, exp } => |order, _| {
        let token = Revocation::token(&order.issuer, &order.jti)?;
        Ok(order.exp.into_iter().fold(token, Revocation::until))
    };
    Session(REVOKE) { sid } => |order, _| Revocation::session(&order.issuer, &order.sid);
    Subject(REVOKE) { sub, issued_until } => |order, at| {
        Revocation::subject(&order.issuer, &order.sub, order.issued_until.unwrap_or(at.unix_seconds()))
    };
    Client(REVOKE_MANY) { client_id } => |order, _| Revocation::client(&order.issuer, &order.client_id);
    Key(REVOKE_MANY) { kid } => |order, _| Revocation::key(&order.issuer, &order.kid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_an_object_of_its_members_alone() {
        for good in [r#"{"issuer":"i","jti":"a"}"#, r#" {"exp":7,"jti":"a","issuer":"i"} "#] {
            assert!(order::<Token>(good.as_bytes()).is_ok(), "{good}");
        }
        for (name, bad) in [
            ("nothing", ""),
            ("a list", r#"["i","a",7]"#),
            ("a list, after white space", " \n[\"i\",\"a\",7]"),
            ("two objects", r#"{"issuer":"i","jti":"a"}{}"#),
            ("a member twice", r#"{"issuer":"i","jti":"a","jti":"b"}"#),
            ("one that is not known", r#"{"issuer":"i","jti":"a","sub":"b"}"#),
            ("one missing", r#"{"issuer":"i"}"#),
            ("null for a number", r#"{"issuer":"i","jti":"a","exp":null}"#),
            ("a text for a number", r#"{"issuer":"i","jti":"a","exp":"7"}"#),
        ] {
            assert!(order::<Token>(bad.as_bytes()).is_err(), "{name}");
        }
        assert!(nothing(b"").is_ok() && nothing(b" {} ").is_ok());
        for bad in ["[]", "null", "{\"a\":1}", " "] {
            assert!(nothing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
