//! The policy as it is written, in TOML or in JSON, with the place of every name.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use crate::{error::ConfigError, strict::Strict};

/// The languages that a policy may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
        }
    }
}

/// Where a document came from, for errors.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) file: Option<&'a str>,
    pub(super) format: Format,
    pub(super) text: &'a str,
}

impl Origin<'_> {
    pub(super) fn error(
        self,
        setting: impl fmt::Display,
        value: impl Into<String>,
        problem: impl Into<String>,
    ) -> ConfigError {
        self.at_line(None, setting, value, problem)
    }

    /// The error of a name, with its line.
    pub(super) fn error_of(self, name: &Placed, setting: impl fmt::Display, problem: impl Into<String>) -> ConfigError {
        let line = name.start.and_then(|start| self.text.get(..start)).map(|before| before.matches('\n').count() + 1);
        self.at_line(line, setting, format!("{:?}", name.value), problem)
    }

    fn at_line(
        self,
        line: Option<usize>,
        setting: impl fmt::Display,
        value: impl Into<String>,
        problem: impl Into<String>,
    ) -> ConfigError {
        let file = self.file.map_or(String::new(), |file| format!("{file}: "));
        let line = line.map_or(String::new(), |line| format!("line {line}: "));
        ConfigError::new(format!("{file}{line}{setting}"), value, problem)
    }
}

/// A text and the byte where it starts, if that is known.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) value: String,
    start: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) version: Placed,
    pub(super) allow_tenantless: bool,
    pub(super) permissions: Vec<Placed>,
    pub(super) roles: Vec<(Placed, RoleDocument)>,
    pub(super) exclusive: Vec<ExclusiveDocument>,
    pub(super) assignments: Vec<AssignmentDocument>,
}

#[derive(Debug)]
pub(super) struct RoleDocument {
    pub(super) inherits: Vec<Placed>,
    pub(super) grants: Vec<Placed>,
    pub(super) grants_own: Vec<Placed>,
    pub(super) denies: Vec<Placed>,
}

#[derive(Debug)]
pub(super) struct ExclusiveDocument {
    pub(super) name: Placed,
    pub(super) roles: Vec<Placed>,
    pub(super) at_most: Option<u8>,
}

#[derive(Debug)]
pub(super) struct AssignmentDocument {
    pub(super) issuer: Placed,
    pub(super) subject: Placed,
    pub(super) tenant: Option<Placed>,
    pub(super) kind: Option<Placed>,
    pub(super) roles: Vec<Placed>,
}

/// Reads a document. Roles come sorted by name.
pub(super) fn read(origin: Origin<'_>) -> Result<Document, ConfigError> {
    let mut document = match origin.format {
        Format::Toml => toml::from_str::<Written<toml::Spanned<String>>>(origin.text)
            .map(|written| written.place(&|name| Placed { start: Some(name.span().start), value: name.into_inner() }))
            .map_err(|error| {
                let before = error.span().and_then(|span| origin.text.get(..span.start));
                not_understood(origin, before.map(|before| before.matches('\n').count() + 1), error.message())
            }),
        Format::Json => serde_json::from_str::<Strict<Written<JsonText>>>(origin.text)
            .map(|Strict(written)| written.place(&|name| name.place(origin.text)))
            .map_err(|error| {
                let text = error.to_string();
                let message = text.split(" at line ").next().unwrap_or_default();
                not_understood(origin, Some(error.line()).filter(|line| *line > 0), message)
            }),
    }?;
    document.roles.sort_by(|(a, _), (b, _)| a.value.cmp(&b.value));
    if let Some([_, (twice, _)]) = document.roles.windows(2).find(|pair| match pair {
        [(a, _), (b, _)] => a.value == b.value,
        _ => false,
    }) {
        return Err(origin.error_of(twice, "roles", "stands twice"));
    }
    Ok(document)
}

/// One line that says what the parser said, and where.
fn not_understood(origin: Origin<'_>, line: Option<usize>, message: &str) -> ConfigError {
    let problem = format!("is not a policy: {}", message.trim_end());
    match line {
        Some(line) => origin.error(format_args!("line {line}"), origin.format.name(), problem),
        None => origin.error("policy", origin.format.name(), problem),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct Written<T> {
    version: T,
    #[serde(default)]
    allow_tenantless: bool,
    permissions: Vec<T>,
    #[serde(default = "Entries::none")]
    roles: Entries<T>,
    #[serde(default = "Vec::new")]
    exclusive: Vec<Strict<WrittenExclusive<T>>>,
    #[serde(default = "Vec::new")]
    assignments: Vec<Strict<WrittenAssignment<T>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct WrittenRole<T> {
    #[serde(default = "Vec::new")]
    inherits: Vec<T>,
    #[serde(default = "Vec::new")]
    grants: Vec<T>,
    #[serde(default = "Vec::new")]
    grants_own: Vec<T>,
    #[serde(default = "Vec::new")]
    denies: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct WrittenExclusive<T> {
    name: T,
    roles: Vec<T>,
    at_most: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct WrittenAssignment<T> {
    issuer: T,
    subject: T,
    tenant: Option<T>,
    kind: Option<T>,
    roles: Vec<T>,
}

impl<T> Written<T> {
    fn place(self, place: &dyn Fn(T) -> Placed) -> Document {
        let all = |names: Vec<T>| names.into_iter().map(place).collect();
        let role = |role: WrittenRole<T>| RoleDocument {
            inherits: all(role.inherits),
            grants: all(role.grants),
            grants_own: all(role.grants_own),
            denies: all(role.denies),
        };
        Document {
            version: place(self.version),
            allow_tenantless: self.allow_tenantless,
            permissions: all(self.permissions),
            roles: self.roles.0.into_iter().map(|(name, written)| (place(name), role(written))).collect(),
            exclusive: self
                .exclusive
                .into_iter()
                .map(|Strict(set)| ExclusiveDocument {
                    name: place(set.name),
                    roles: all(set.roles),
                    at_most: set.at_most,
                })
                .collect(),
            assignments: self
                .assignments
                .into_iter()
                .map(|Strict(written)| AssignmentDocument {
                    issuer: place(written.issuer),
                    subject: place(written.subject),
                    tenant: written.tenant.map(place),
                    kind: written.kind.map(place),
                    roles: all(written.roles),
                })
                .collect(),
        }
    }
}

/// A table of roles as a list, so that a name that stands twice is seen.
struct Entries<T>(Vec<(T, WrittenRole<T>)>);

impl<T> Entries<T> {
    const fn none() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Roles<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Roles<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of roles")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, Strict(role))) = map.next_entry()? {
                    entries.push((name, role));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Roles(PhantomData))
    }
}

/// A text of a JSON document, and where in memory it stands if it has no escapes.
struct JsonText {
    value: String,
    address: Option<usize>,
}

impl JsonText {
    fn place(self, text: &str) -> Placed {
        let start = self.address.and_then(|address| address.checked_sub(text.as_ptr().addr()));
        Placed { value: self.value, start: start.filter(|start| *start <= text.len()) }
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = JsonText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<JsonText, E> {
                Ok(JsonText { value: text.to_owned(), address: Some(text.as_ptr().addr()) })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonText, E> {
                Ok(JsonText { value: text.to_owned(), address: None })
            }
        }

        deserializer.deserialize_str(Text)
    }
}
