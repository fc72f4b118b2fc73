//! The rules of a file as they are written there.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::{Spanned, Value};

use crate::{
    error::ConfigError,
    guard::{Hours, Weekday},
    strict,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) fallback: Option<Spanned<Written>>,
    pub(super) routes: BTreeMap<Spanned<String>, Written>,
}

/// A word, or a table of one condition and what else the rule says.
pub(super) enum Written {
    Word(String),
    Table(Box<Conditions>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Conditions {
    pub(super) permission: Option<String>,
    pub(super) permission_or_owner: Option<String>,
    pub(super) role: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) condition: Option<String>,
    #[serde(deserialize_with = "strict::optional")]
    pub(super) attribute: Option<WrittenAttribute>,
    pub(super) network: Option<Vec<String>>,
    #[serde(deserialize_with = "strict::optional")]
    pub(super) hours: Option<WrittenHours>,
    pub(super) acr: Option<Vec<String>>,
    pub(super) amr: Option<String>,
    pub(super) factors: Option<u8>,
    /// Seconds.
    pub(super) authenticated_within: Option<u64>,
    pub(super) all: Option<Vec<Written>>,
    pub(super) any: Option<Vec<Written>>,
    pub(super) not: Option<Box<Written>>,
    // Of the rule, not of a condition in it.
    pub(super) require: Option<String>,
    pub(super) resource: Option<WrittenResource>,
    pub(super) fulfilling: Option<Vec<String>>,
    pub(super) hide: Option<bool>,
    pub(super) shadow_until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAttribute {
    pub(super) name: String,
    pub(super) value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenHours {
    pub(super) from: String,
    pub(super) until: String,
    pub(super) days: Option<Vec<WrittenDay>>,
    pub(super) offset: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WrittenDay {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

pub(super) enum WrittenResource {
    Named(String),
    Path(WrittenThing),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenThing {
    pub(super) r#type: String,
    pub(super) id: String,
    pub(super) tenant: Option<String>,
}

/// Reads a text as one variant and a table as the other; an untagged enum would lose what is wrong with the table.
macro_rules! word_or_table {
    ($name:ident, $word:path, $table:expr, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct WordOrTable;

                impl<'de> Visitor<'de> for WordOrTable {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, word: &str) -> Result<$name, E> {
                        Ok($word(word.to_owned()))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        Deserialize::deserialize(MapAccessDeserializer::new(map)).map($table)
                    }
                }

                deserializer.deserialize_any(WordOrTable)
            }
        }
    };
}

word_or_table!(Written, Written::Word, |table| Written::Table(Box::new(table)), "a word or a table of one condition");
word_or_table!(WrittenResource, WrittenResource::Named, WrittenResource::Path, "a name or a table of type and id");

impl Conditions {
    /// The names of the conditions that are set.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &'static str> {
        let set = [
            ("permission", self.permission.is_some()),
            ("permission_or_owner", self.permission_or_owner.is_some()),
            ("role", self.role.is_some()),
            ("scope", self.scope.is_some()),
            ("policy", self.policy.is_some()),
            ("condition", self.condition.is_some()),
            ("attribute", self.attribute.is_some()),
            ("network", self.network.is_some()),
            ("hours", self.hours.is_some()),
            ("acr", self.acr.is_some()),
            ("amr", self.amr.is_some()),
            ("factors", self.factors.is_some()),
            ("authenticated_within", self.authenticated_within.is_some()),
            ("all", self.all.is_some()),
            ("any", self.any.is_some()),
            ("not", self.not.is_some()),
            ("require", self.require.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name)
    }
}

impl WrittenHours {
    pub(super) fn read(&self) -> Result<Hours, ConfigError> {
        let mut hours = Hours::between(&self.from, &self.until)?;
        if let Some(days) = &self.days {
            hours = hours.on(days.iter().map(|day| match day {
                WrittenDay::Mon => Weekday::Monday,
                WrittenDay::Tue => Weekday::Tuesday,
                WrittenDay::Wed => Weekday::Wednesday,
                WrittenDay::Thu => Weekday::Thursday,
                WrittenDay::Fri => Weekday::Friday,
                WrittenDay::Sat => Weekday::Saturday,
                WrittenDay::Sun => Weekday::Sunday,
            }))?;
        }
        match &self.offset {
            Some(offset) => hours.at_offset(offset),
            None => Ok(hours),
        }
    }
}
