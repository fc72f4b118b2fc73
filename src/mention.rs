//! Texts for records that mention people: which part of a text names whom is kept with it, so that a record hides that part as it
//! hides its own fields.

use std::{borrow::Cow, fmt, fmt::Write};

use crate::principal::Principal;

/// What a part of a text tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mention {
    /// A name at an issuer.
    Subject,
    Tenant,
    /// The public id of a credential.
    CredentialId,
    /// An operator's reason for a refusal.
    Reason,
}

/// A text, and its parts where some of them mention somebody.
#[derive(Clone, Default)]
pub(crate) struct Telling {
    plain: String,
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Text(Box<str>),
    Mention { what: Mention, within: Box<str>, value: Box<str>, quoted: bool },
}

impl Telling {
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.plain.push_str(text);
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// A name in quotes. `within` is the issuer that it belongs to, by which a record tells it from the same name elsewhere.
    pub(crate) fn name(mut self, what: Mention, within: &str, value: &str) -> Self {
        let _ = write!(self.plain, "{value:?}");
        self.parts.push(Part::Mention { what, within: within.into(), value: value.into(), quoted: true });
        self
    }

    /// An id or a text as it is.
    pub(crate) fn bare(mut self, what: Mention, within: &str, value: &str) -> Self {
        self.plain.push_str(value);
        self.parts.push(Part::Mention { what, within: within.into(), value: value.into(), quoted: false });
        self
    }

    /// Who acts.
    pub(crate) fn principal(principal: &Principal) -> Self {
        let issuer = principal.issuer();
        Self::default().name(Mention::Subject, issuer, principal.subject()).text(&format!(" of {issuer:?}"))
    }

    pub(crate) fn then(mut self, other: Self) -> Self {
        if other.parts.is_empty() {
            return self.text(&other.plain);
        }
        self.plain.push_str(&other.plain);
        self.parts.extend(other.parts);
        self
    }

    /// The whole text, with nobody hidden.
    pub(crate) fn plain(&self) -> &str {
        &self.plain
    }

    /// The text with what `hidden` has in the place of a mention; None leaves the mention as it is.
    pub(crate) fn with_hidden(&self, hidden: impl Fn(Mention, &str, &str) -> Option<String>) -> Cow<'_, str> {
        if self.parts.is_empty() {
            return Cow::Borrowed(&self.plain);
        }
        let mut shown = String::with_capacity(self.plain.len());
        for part in &self.parts {
            // A string takes all.
            let _ = match part {
                Part::Text(text) => shown.write_str(text),
                Part::Mention { what, within, value, quoted } => match (hidden(*what, within, value), *quoted) {
                    (Some(hidden), true) => write!(shown, "\"{hidden}\""),
                    (Some(hidden), false) => shown.write_str(&hidden),
                    (None, true) => write!(shown, "{value:?}"),
                    (None, false) => shown.write_str(value),
                },
            };
        }
        Cow::Owned(shown)
    }
}

/// A text that mentions nobody.
impl From<String> for Telling {
    fn from(plain: String) -> Self {
        Self { plain, parts: Vec::new() }
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
        assert!(matches!(Telling::from("x").with_hidden(|_, _, _| Some(String::new())), Cow::Borrowed("x")));
    }
}
