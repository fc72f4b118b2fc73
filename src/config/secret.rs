//! Secrets, which a document names and does not hold.

use std::{borrow::Cow, env, fmt, fs::File, io::Read};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use crate::{
    file::{OPEN_TO_ALL, refuse_open},
    secret::Secret,
};

/// The longest secret, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretRef {
    Env(String),
    File { path: String, readable: bool },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    env: Option<String>,
    file: Option<String>,
    #[serde(default)]
    dangerous_readable_by_all: bool,
}

const HOW: &str = "write { env = \"NAME\" } or { file = \"/run/secrets/name\" }";

fn stands_here<E: de::Error>() -> E {
    E::custom(format!("a secret stands in the document, where it must not be: {HOW}"))
}

/// Whether a variable may be called so, as shells have it.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "where a secret is: {HOW}")
            }

            // What stands there is a secret, most likely: it goes nowhere.
            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretRef, E> {
                Err(stands_here())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretRef, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                match (written.env, written.file) {
                    (Some(name), None) if !is_name(&name) => {
                        let problem = "the text after env is no name of a variable, and a secret must not stand there";
                        Err(de::Error::custom(format!("{problem}: {HOW}")))
                    }
                    (None, Some(path)) if path.contains("://") => {
                        let problem = "the text after file is no path, and a secret must not stand there";
                        Err(de::Error::custom(format!("{problem}: {HOW}")))
                    }
                    (Some(name), None) if !written.dangerous_readable_by_all => Ok(SecretRef::Env(name)),
                    (None, Some(path)) => Ok(SecretRef::File { path, readable: written.dangerous_readable_by_all }),
                    _ => Err(de::Error::custom(format!("must say one place of the secret: {HOW}"))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where a secret is: a document holds none.",
            "oneOf": [
                { "type": "object", "additionalProperties": false, "required": ["env"],
                  "properties": { "env": {
                    "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "description": "An environment variable."
                } } },
                { "type": "object", "additionalProperties": false, "required": ["file"],
                  "properties": {
                    "file": { "type": "string", "description": "A file that not everybody may read. One line end is cut off." },
                    "dangerous_readable_by_all": { "type": "boolean", "description": "Takes a file that everybody may read." }
                } },
            ],
        })
    }
}

/// Why there is no secret: its place, and what to do.
pub(super) type NoSecret = (String, String);

impl SecretRef {
    /// Reads it, without the line end that editors and shells put behind it.
    pub(super) fn read(&self) -> Result<Secret, NoSecret> {
        let bytes = match self {
            Self::Env(name) => {
                let refuse = |problem: &str| (self.place(), problem.to_owned());
                let text = env::var_os(name).ok_or_else(|| refuse("is not set: set it in the environment"))?;
                text.into_string().map_err(|_| refuse("is not UTF-8: set it to a text"))?.into_bytes()
            }
            Self::File { path, readable } => {
                let refuse = |problem: String| (self.place(), problem);
                let unreadable = |error| refuse(format!("cannot be read: {error}"));
                let file = File::open(path).map_err(unreadable)?;
                if !readable {
                    let or = "or dangerous_readable_by_all = true where the directory keeps others out";
                    refuse_open(&file.metadata().map_err(unreadable)?, OPEN_TO_ALL)
                        .map_err(|problem| refuse(format!("{problem}, {or}")))?;
                }
                let mut bytes = Zeroizing::new(Vec::new());
                file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_LEN) {
                    return Err(refuse(format!("is longer than {MAX_LEN} bytes: name the file of the secret alone")));
                }
                std::mem::take(&mut *bytes)
            }
        };
        let mut bytes = Zeroizing::new(bytes);
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err((self.place(), "is empty: put the secret there".to_owned()));
        }
        Ok(Secret::new(std::mem::take(&mut *bytes)))
    }

    /// As [`read`](Self::read), where it must be a text.
    pub(super) fn read_text(&self) -> Result<Zeroizing<String>, NoSecret> {
        let secret = self.read()?;
        let text = secret.expose_str().ok_or_else(|| (self.place(), "is not UTF-8: put a text there".to_owned()))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("variable {name:?}"),
            Self::File { path, .. } => format!("{path:?}"),
        }
    }
}
