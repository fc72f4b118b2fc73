//! What records do not show of people, by its type.

use std::{borrow::Cow, fmt, net::IpAddr};

#[cfg(feature = "audit-pseudonyms")]
use aws_lc_rs::hmac;

use crate::mention::{Mention, Telling};
#[cfg(feature = "audit-pseudonyms")]
use crate::{error::ConfigError, secret::Secret};

/// What stands in the place of what is left out.
const OMITTED: &str = "[omitted]";
/// The path parameter that is the public id of a credential, in the lines of `key_admin` and whoever else names one so.
const KEY_ID: &str = "key_id";

/// A type of data in a record that may tell of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Personal {
    /// The name at the issuer, of the subject and of the client identity.
    Subject,
    /// The tenant.
    Tenant,
    /// The client's address.
    Address,
    /// The public id of a credential: a key id, a `jti`. A path shows `{key_id}` for a parameter of that name, as the lines of
    /// `key_admin` have it.
    CredentialId,
    /// The path; the route's template stays.
    Path,
    /// Reasons of refusals, of attempts and of decisions, and those that somebody gives for a change to `key_admin`. They are free
    /// texts: they can be left out, and not be hashed.
    Reasons,
    /// What handlers noted, and the details of events.
    Notes,
    /// The header fields that were asked for, and the ids that the client sent.
    Headers,
}

impl Personal {
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    const fn of(mention: Mention) -> Self {
        match mention {
            Mention::Subject => Self::Subject,
            Mention::Tenant => Self::Tenant,
            Mention::CredentialId => Self::CredentialId,
            Mention::Reason => Self::Reasons,
        }
    }
}

/// What records do not show, or show by a pseudonym only. Without it they show all that the schema has.
///
/// It holds for everything that can be read from a record, in every sink of the layer.
///
/// ```
/// use portcullis::audit::{AuditLayer, JsonLines, Personal, Privacy};
///
/// # fn example() -> Result<(), portcullis::ConfigError> {
/// let privacy = Privacy::new().omit(Personal::Notes).hide_parameters(["token"]);
/// let audit = AuditLayer::new(JsonLines::open("audit.jsonl")?).with_privacy(privacy);
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Default)]
pub struct Privacy {
    omitted: u8,
    pseudonymous: u8,
    parameters: Vec<Box<str>>,
    #[cfg(feature = "audit-pseudonyms")]
    key: Option<hmac::Key>,
}

impl Privacy {
    /// Shows everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out data of this type.
    pub const fn omit(mut self, what: Personal) -> Self {
        self.omitted |= what.bit();
        self
    }

    /// Shows the values of these path parameters as `{name}`: a path such as `/reset/{token}` holds a secret.
    ///
    /// It needs the route's template. Where that is not known, the whole path is `[omitted]`: where no line of a stack matches, such
    /// as `/reset/{token}/` with a slash too many, and with layers by hand around a router, which alone knows its templates. A line
    /// that takes the rest of any path shows it, unless its `{*rest}` is hidden too. A stack does not build with a name that none
    /// of its lines has.
    pub fn hide_parameters<T: Into<Box<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.parameters.extend(names.into_iter().map(Into::into));
        self
    }

    /// Shows a keyed hash (HMAC-SHA-256, the first 128 bits) of data of these types: the same person has the same pseudonym,
    /// and only who has the key can tell whose it is. [`Subject`](Personal::Subject) is hashed together with its issuer. A
    /// [`Path`](Personal::Path) is hashed as a whole, after what [`hide_parameters`](Self::hide_parameters) hides; the route's
    /// template stays. Of [`Notes`](Personal::Notes), the values are hashed.
    ///
    /// A new key breaks the link to what was recorded before, and so does forgetting it.
    ///
    /// # Errors
    /// If the key has fewer than 32 bytes. If [`Reasons`](Personal::Reasons) are among the types: a person is only a part of such a
    /// text, so that its hash would link nothing; [`omit`](Self::omit) them.
    #[cfg(feature = "audit-pseudonyms")]
    pub fn pseudonymise(mut self, key: &Secret, what: impl IntoIterator<Item = Personal>) -> Result<Self, ConfigError> {
        let bytes = key.expose();
        if bytes.len() < 32 {
            let shown = format!("{} bytes", bytes.len());
            return Err(ConfigError::new("pseudonym key", shown, "are too few: at least 32"));
        }
        self.key = Some(hmac::Key::new(hmac::HMAC_SHA256, bytes));
        for what in what {
            if what == Personal::Reasons {
                let problem = "are free texts, whose hashes link nothing: omit them";
                return Err(ConfigError::new("pseudonyms", "Personal::Reasons", problem));
            }
            self.pseudonymous |= what.bit();
        }
        Ok(self)
    }

    pub(crate) const fn omits(&self, what: Personal) -> bool {
        self.omitted & what.bit() != 0
    }

    /// Whether data of this type is shown as it is.
    pub(crate) const fn shows(&self, what: Personal) -> bool {
        (self.omitted | self.pseudonymous) & what.bit() == 0
    }

    /// A text of this type, as records show it. `within` tells apart what has the same name elsewhere.
    pub(crate) fn text<'t>(&self, what: Personal, within: &str, text: &'t str) -> Cow<'t, str> {
        if self.omits(what) {
            Cow::Borrowed(OMITTED)
        } else if self.pseudonymous & what.bit() != 0 {
            self.pseudonym(what, within, text)
        } else {
            Cow::Borrowed(text)
        }
    }

    /// A text with its mentions as records show them.
    pub(crate) fn telling<'t>(&self, told: &'t Telling) -> Cow<'t, str> {
        told.with_hidden(|mention, within, value| {
            let what = Personal::of(mention);
            (!self.shows(what)).then(|| self.text(what, within, value).into_owned())
        })
    }

    /// The value of a note or a detail, as records show it.
    pub(crate) fn note<'t>(&self, told: &'t Telling) -> Cow<'t, str> {
        if self.shows(Personal::Notes) { self.telling(told) } else { self.text(Personal::Notes, "", told.plain()) }
    }

    pub(crate) fn address(&self, address: IpAddr) -> Option<String> {
        if self.omits(Personal::Address) {
            return None;
        }
        Some(self.text(Personal::Address, "", &address.to_string()).into_owned())
    }

    #[cfg(feature = "audit-pseudonyms")]
    fn pseudonym<'t>(&self, what: Personal, within: &str, text: &str) -> Cow<'t, str> {
        use fmt::Write;

        let Some(key) = &self.key else { return Cow::Borrowed(OMITTED) };
        let mut context = hmac::Context::with_key(key);
        context.update(&[what.bit()]);
        context.update(&u64::try_from(within.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(within.as_bytes());
        context.update(text.as_bytes());
        let tag = context.sign();
        let mut shown = String::from("p-");
        for byte in tag.as_ref().iter().take(16) {
            let _ = write!(shown, "{byte:02x}");
        }
        Cow::Owned(shown)
    }

    #[cfg(not(feature = "audit-pseudonyms"))]
    fn pseudonym<'t>(&self, _: Personal, _: &str, _: &str) -> Cow<'t, str> {
        Cow::Borrowed(OMITTED)
    }

    /// The path, as records show it.
    pub(crate) fn path<'p>(&self, path: &'p str, template: Option<&str>) -> Cow<'p, str> {
        if self.omits(Personal::Path) {
            return Cow::Borrowed(OMITTED);
        }
        let Some(shown) = self.without_parameters(path, template) else { return Cow::Borrowed(OMITTED) };
        if self.shows(Personal::Path) { shown } else { Cow::Owned(self.text(Personal::Path, "", &shown).into_owned()) }
    }

    /// The names of the path parameters that are hidden.
    #[cfg(feature = "stack")]
    pub(crate) fn hidden_parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|name| &**name)
    }

    /// The path with the hidden parameters replaced by their names. None if nobody can tell where they are.
    fn without_parameters<'p>(&self, path: &'p str, template: Option<&str>) -> Option<Cow<'p, str>> {
        let Some(template) = template else { return self.parameters.is_empty().then_some(Cow::Borrowed(path)) };
        if !template.split('/').any(|segment| self.hides(segment)) {
            return Some(Cow::Borrowed(path));
        }
        let mut shown = String::with_capacity(path.len());
        let mut parts = path.split('/');
        for (index, expected) in template.split('/').enumerate() {
            // Another path than the template's, as inside a nested router that takes its prefix away: nobody knows what is where.
            let part = parts.next().filter(|part| expected.contains('{') || expected == *part)?;
            if index > 0 {
                shown.push('/');
            }
            // Also a parameter with text around it.
            let hides = self.hides(expected);
            shown.push_str(if hides { expected } else { part });
            if expected.starts_with("{*") {
                let rest = parts.by_ref().filter(|_| !hides);
                rest.for_each(|part| shown.extend(["/", part]));
            }
        }
        parts.next().is_none().then_some(Cow::Owned(shown))
    }

    /// Whether a segment of a template has a parameter that is hidden.
    fn hides(&self, segment: &str) -> bool {
        let Some((_, inner)) = segment.split_once('{') else { return false };
        let name = inner.split_once('}').map_or(inner, |(name, _)| name).trim_start_matches('*');
        let is_hidden_id = name == KEY_ID && !self.shows(Personal::CredentialId);
        is_hidden_id || self.parameters.iter().any(|hidden| **hidden == *name)
    }
}

impl fmt::Debug for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Privacy")
            .field("omitted", &format_args!("{:#010b}", self.omitted))
            .field("pseudonymous", &format_args!("{:#010b}", self.pseudonymous))
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_parameters_are_their_names() {
        let privacy = Privacy::new().hide_parameters(["token", "rest"]);
        for (path, template, shown) in [
            ("/reset/s3cr3t", Some("/reset/{token}"), "/reset/{token}"),
            ("/reset/s3cr3t/again", Some("/reset/{token}/again"), "/reset/{token}/again"),
            ("/r/pre-s3cr3t", Some("/r/pre-{token}"), "/r/pre-{token}"),
            ("/files/a/b/c", Some("/files/{*rest}"), "/files/{*rest}"),
            ("/orders/42", Some("/orders/{id}"), "/orders/42"),
            ("/orders/42", Some("/api/orders/{id}"), "/orders/42"),
            ("/pages/a/b", Some("/pages/{*page}"), "/pages/a/b"),
            ("/reset/s3cr3t/a/b", Some("/reset/{token}/{*page}"), "/reset/{token}/a/b"),
            ("/reset/s3cr3t", None, OMITTED),
            ("/reset/s3cr3t/", Some("/reset/{token}"), OMITTED),
            ("/reset//s3cr3t", Some("/reset/{token}"), OMITTED),
            ("/", Some("/"), "/"),
            ("/reset", Some("/reset/{token}"), OMITTED),
            ("/s3cr3t", Some("/{tenant}/{token}"), OMITTED),
            ("/reset/s3cr3t", Some("/api/reset/{token}"), OMITTED),
        ] {
            assert_eq!(privacy.path(path, template), shown, "{path}");
        }
        assert_eq!(Privacy::new().path("/reset/s3cr3t", None), "/reset/s3cr3t");
        let template = Some("/keys/{key_id}/revoke");
        assert_eq!(Privacy::new().path("/keys/k1/revoke", template), "/keys/k1/revoke");
        let hidden = Privacy::new().omit(Personal::CredentialId);
        assert_eq!(hidden.path("/keys/k1/revoke", template), "/keys/{key_id}/revoke");
        assert_eq!(hidden.path("/keys/k1/revoke/", template), OMITTED);
        assert_eq!(hidden.path("/orders/42", Some("/orders/{id}")), "/orders/42");
        assert_eq!(hidden.path("/keys/k1/revoke/", None), "/keys/k1/revoke/");
        assert_eq!(Privacy::new().omit(Personal::Path).path("/reset", None), OMITTED);
    }

    #[cfg(feature = "audit-pseudonyms")]
    #[test]
    fn a_path_is_hashed_without_what_is_hidden_in_it() {
        let key = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
        let privacy = Privacy::new().hide_parameters(["token"]).pseudonymise(&key, [Personal::Path]).unwrap();
        let template = Some("/reset/{token}");
        let one = privacy.path("/reset/one", template);
        assert!(one.starts_with("p-") && one.len() == 34, "{one}");
        assert_eq!(one, privacy.path("/reset/other", template));
        assert_ne!(one, privacy.path("/orders/one", Some("/orders/{id}")));
        assert_eq!(privacy.path("/reset/one", None), OMITTED);
    }

    #[test]
    fn who_is_mentioned_is_hidden_by_type() {
        let told =
            Telling::default().name(Mention::Subject, "i", "alice").text(" in ").name(Mention::Tenant, "i", "acme");
        assert_eq!(Privacy::new().note(&told), r#""alice" in "acme""#);
        assert_eq!(Privacy::new().omit(Personal::Subject).note(&told), r#""[omitted]" in "acme""#);
        assert_eq!(Privacy::new().omit(Personal::Notes).note(&told), OMITTED);
    }

    #[cfg(feature = "audit-pseudonyms")]
    #[test]
    fn a_pseudonym_is_stable_and_tells_types_and_issuers_apart() {
        let key = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
        let privacy = Privacy::new().pseudonymise(&key, [Personal::Subject, Personal::Tenant]).unwrap();
        let alice = privacy.text(Personal::Subject, "https://id.test", "alice");
        assert!(alice.starts_with("p-") && alice.len() == 34 && !alice.contains("alice"), "{alice}");
        assert_eq!(alice, privacy.text(Personal::Subject, "https://id.test", "alice"));
        for (what, issuer, name) in [
            (Personal::Subject, "https://id.tes", "talice"),
            (Personal::Subject, "https://other.test", "alice"),
            (Personal::Tenant, "https://id.test", "alice"),
            (Personal::Subject, "https://id.test", "bob"),
        ] {
            assert_ne!(alice, privacy.text(what, issuer, name));
        }
        assert_eq!(privacy.text(Personal::CredentialId, "", "k1"), "k1");
        assert!(Privacy::new().pseudonymise(&Secret::new(b"short".to_vec()), []).is_err());
        let refused = Privacy::new().pseudonymise(&key, [Personal::Path, Personal::Reasons]).unwrap_err();
        assert!(refused.to_string().contains("Personal::Reasons"), "{refused}");
        assert!(!format!("{privacy:?}").contains("0123456789abcdef"));
    }
}
