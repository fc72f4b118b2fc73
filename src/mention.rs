//! Texts for records that mention people: where a text names whom is kept with it, so that a record hides that as it hides its own
//! fields.

use std::{borrow::Cow, fmt, ops::Range};

use crate::principal::Principal;

/// What a mention is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mention {
    /// A name at an issuer.
    Subject,
    Tenant,
    /// The public id of a credential.
    CredentialId,
    /// A reason that an operator, or whoever administers, has for something.
    Reason,
}

/// A text, and where it mentions somebody.
#[derive(Clone, Default)]
pub(crate) struct Telling {
    plain: String,
    /// In their order.
    mentions: Vec<Mentioned>,
}

#[derive(Clone)]
struct Mentioned {
    what: Mention,
    within: Box<str>,
    value: Box<str>,
    /// Where the text has it, without quotes.
    at: Range<usize>,
}

impl Telling {
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.plain.push_str(text);
        self
    }

    /// A name in quotes. `within` is the issuer that it belongs to, by which a record tells it from the same name elsewhere.
    pub(crate) fn name(self, what: Mention, within: &str, value: &str) -> Self {
        let escaped = format!("{value:?}");
        let between = escaped.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        self.text("\"").mention(what, within, value, between).text("\"")
    }

    /// An id or a text as it is.
    pub(crate) fn bare(self, what: Mention, within: &str, value: &str) -> Self {
        self.mention(what, within, value, value)
    }

    fn mention(mut self, what: Mention, within: &str, value: &str, written: &str) -> Self {
        let start = self.plain.len();
        self.plain.push_str(written);
        let at = start..self.plain.len();
        self.mentions.push(Mentioned { what, within: within.into(), value: value.into(), at });
        self
    }

    /// What somebody gives as a reason: a text that may name anybody.
    #[cfg(any(feature = "api-key-admin", feature = "revocation-admin"))]
    pub(crate) fn reason(reason: &str) -> Self {
        Self::default().bare(Mention::Reason, "", reason)
    }

    /// Who acts.
    pub(crate) fn principal(principal: &Principal) -> Self {
        let issuer = principal.issuer();
        Self::default().name(Mention::Subject, issuer, principal.subject()).text(&format!(" of {issuer:?}"))
    }

    pub(crate) fn then(mut self, other: Self) -> Self {
        let start = self.plain.len();
        self.plain.push_str(&other.plain);
        self.mentions.extend(other.mentions.into_iter().map(|mut later| {
            later.at = later.at.start.saturating_add(start)..later.at.end.saturating_add(start);
            later
        }));
        self
    }

    /// The whole text, with nobody hidden.
    pub(crate) fn plain(&self) -> &str {
        &self.plain
    }

    /// The text with what `hidden` has in the place of a mention; None leaves the mention as it is.
    pub(crate) fn with_hidden(&self, hidden: impl Fn(Mention, &str, &str) -> Option<String>) -> Cow<'_, str> {
        if self.mentions.is_empty() {
            return Cow::Borrowed(&self.plain);
        }
        let (mut shown, mut done) = (String::with_capacity(self.plain.len()), 0);
        for Mentioned { what, within, value, at } in &self.mentions {
            if let Some(hidden) = hidden(*what, within, value) {
                shown.push_str(self.plain.get(done..at.start).unwrap_or_default());
                shown.push_str(&hidden);
                done = at.end;
            }
        }
        shown.push_str(self.plain.get(done..).unwrap_or_default());
        Cow::Owned(shown)
    }
}

/// A text that mentions nobody.
impl From<String> for Telling {
    fn from(plain: String) -> Self {
        Self { plain, mentions: Vec::new() }
    }
}

impl From<&str> for Telling {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Box<str>> for Telling {
    fn from(text: Box<str>) -> Self {
        text.into_string().into()
    }
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.plain, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_are_hidden_one_by_one() {
        let told = Telling::default()
            .text("revoke ")
            .then(Telling::default().name(Mention::Subject, "https://id.test", "al\"ice").text(" of "))
            .then("id".into())
            .text(" by ")
            .bare(Mention::CredentialId, "keys", "k1");
        assert_eq!(told.plain(), r#"revoke "al\"ice" of id by k1"#);
        assert_eq!(told.with_hidden(|_, _, _| None), told.plain());
        let subjects = |what, within: &str, value: &str| {
            assert!(what != Mention::Subject || (within, value) == ("https://id.test", "al\"ice"));
            (what == Mention::Subject).then(|| "p-1".to_owned())
        };
        assert_eq!(told.with_hidden(subjects), r#"revoke "p-1" of id by k1"#);
        assert_eq!(
            told.with_hidden(|_, _, _| Some("[omitted]".to_owned())),
            r#"revoke "[omitted]" of id by [omitted]"#
        );
        // Whatever it begins with.
        let told = Telling::from("key ").bare(Mention::CredentialId, "keys", "k1").text(" of ");
        let told = told.then(Telling::from("owner ").name(Mention::Subject, "keys", "shop")).then(".".into());
        assert_eq!(told.plain(), r#"key k1 of owner "shop"."#);
        assert_eq!(told.with_hidden(|_, _, _| None), told.plain());
        assert_eq!(
            told.with_hidden(|what, _, _| (what == Mention::Subject).then(|| "p".into())),
            r#"key k1 of owner "p"."#
        );
        assert_eq!(told.with_hidden(|_, _, _| Some(String::new())), r#"key  of owner ""."#);
        assert!(matches!(Telling::from("x").with_hidden(|_, _, _| Some(String::new())), Cow::Borrowed("x")));
    }
}
