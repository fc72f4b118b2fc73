use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use crate::{
    api_key::{ApiKeyRecord, HashScheme, KeyHash, KeyId, LastUse, Revocation},
    error::{ConfigError, StoreError, StoreErrorKind},
    strict,
};

/// A record as plain data: what a store writes as columns, TOML or JSON and reads back, and the way to make a record by
/// hand. Times are whole seconds since the Unix epoch, at most [`MAX_TIME`](crate::api_key::MAX_TIME).
///
/// It becomes an [`ApiKeyRecord`] by [`check`](Self::check), or [`decode`](Self::decode) in a store; nothing else makes one,
/// so that every record keeps the bounds:
///
/// | field | bound |
/// |---|---|
/// | `subject`, `tenant` | 1 to 256 bytes |
/// | `name` | at most 256 bytes |
/// | `plan` | 1 to 64 bytes |
/// | `scopes` | at most 128 scope-tokens (RFC 6749 §3.3) of at most 128 bytes |
/// | `roles` | at most 64, of 1 to 128 bytes |
/// | `environment` | `[a-z][a-z0-9]{1,15}`, not `v` and digits |
/// | `addresses` | at most 64 networks, no bits beyond the prefix, IPv4 written as IPv4 |
/// | `metadata` | at most 32 entries; names of 1 to 64 bytes, values of at most 512 |
/// | reason of `revoked` | at most 512 bytes |
///
/// No text has a control character. With serde, unknown fields are errors, the hash is 64 lower-case hexadecimal digits, and
/// `expires` has to be there: a number, or `"never"`.
///
/// ```
/// use portcullis::api_key::{KeyHash, KeyId, RecordFields};
///
/// let (id, hash) = (KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]));
/// let mut fields = RecordFields::new(id, hash, "billing", 1_800_000_000, Some(1_900_000_000));
/// fields.name = "nightly export".to_owned();
/// fields.scopes = vec!["orders:read".to_owned()];
/// let record = fields.clone().check()?;
/// assert_eq!(record.fields(), fields);
///
/// fields.name = "x".repeat(257);
/// assert_eq!(fields.check().unwrap_err().setting(), "API key name");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RecordFields {
    /// The public id.
    pub id: KeyId,
    /// How the hash was made.
    pub scheme: HashScheme,
    /// The hash that a presented key is compared with.
    #[serde(with = "hex")]
    pub hash: KeyHash,
    /// What the key is called; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whose key it is.
    pub subject: String,
    /// The tenant that the owner belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The rate plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What the key may be used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The roles that the key acts in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The environment that the key is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The networks that the key may be used from; none is anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// When the key was made.
    pub created: u64,
    /// When the key begins to be accepted; None is from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// When the key ends; None is never.
    #[serde(with = "end")]
    pub expires: Option<u64>,
    /// The key that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_from: Option<KeyId>,
    /// The key that replaces this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_to: Option<KeyId>,
    /// When and why it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::optional")]
    pub revoked: Option<Revocation>,
    /// When and from where it was last used, as far as was written.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::optional")]
    pub last_used: Option<LastUse>,
    /// What else the owner keeps with the key. Shown to administrators, never to handlers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub metadata: BTreeMap<String, String>,
}

impl RecordFields {
    /// The fields of a key that belongs to `subject`, hashed by [`HashScheme::Sha256`], with nothing else said. `expires` is
    /// when the key ends; None is never.
    #[must_use]
    pub fn new(id: KeyId, hash: KeyHash, subject: impl Into<String>, created: u64, expires: Option<u64>) -> Self {
        Self {
            id,
            scheme: HashScheme::Sha256,
            hash,
            name: String::new(),
            subject: subject.into(),
            tenant: None,
            plan: None,
            scopes: Vec::new(),
            roles: Vec::new(),
            environment: None,
            addresses: Vec::new(),
            created,
            not_before: None,
            expires,
            rotated_from: None,
            rotated_to: None,
            revoked: None,
            last_used: None,
            metadata: BTreeMap::new(),
        }
    }

    /// The fields of a key that another system made, of which `hash` is the unsalted SHA-256 of its whole text:
    /// [`HashScheme::LegacySha256`]. Its id is the hash's first 10 bytes. See
    /// [`LegacyFormat`](crate::api_key::LegacyFormat) for which keys may be imported.
    #[must_use]
    pub fn legacy(hash: KeyHash, subject: impl Into<String>, created: u64, expires: Option<u64>) -> Self {
        let fields = Self::new(hash.legacy_id(), hash, subject, created, expires);
        Self { scheme: HashScheme::LegacySha256, ..fields }
    }

    /// Makes the record.
    ///
    /// # Errors
    /// If a field is out of its bounds; the error names it and its value.
    pub fn check(self) -> Result<ApiKeyRecord, ConfigError> {
        ApiKeyRecord::checked(self)
    }

    /// Makes the record of a row that `backend` keeps.
    ///
    /// # Errors
    /// [`Corrupt`](StoreErrorKind::Corrupt) if a field is out of its bounds; the error names the key.
    pub fn decode(self, backend: &'static str) -> Result<ApiKeyRecord, StoreError> {
        let id = self.id;
        let corrupt = StoreError::new(StoreErrorKind::Corrupt, backend);
        self.check().map_err(|error| corrupt.about(format!("key {id}: {error}")).caused_by(error))
    }
}

/// A hash as 64 hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::api_key::KeyHash;

    pub(super) fn serialize<S: Serializer>(hash: &KeyHash, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = hash.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        serializer.serialize_str(&text)
    }

    /// The error does not show the text: it may be a whole key, put into the wrong place.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        read(&text).ok_or_else(|| D::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }

    fn read(text: &str) -> Option<KeyHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let bytes =
            pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>()?;
        Some(KeyHash::from_bytes(bytes.try_into().ok()?))
    }
}

/// An end that has to be said: a number, or `"never"`.
mod end {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, Unexpected, Visitor},
    };

    pub(super) fn serialize<S: Serializer>(end: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match end {
            Some(unix_seconds) => serializer.serialize_u64(*unix_seconds),
            None => serializer.serialize_str("never"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Option<u64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the Unix epoch, or \"never\"")
            }

            fn visit_u64<E: Error>(self, unix_seconds: u64) -> Result<Option<u64>, E> {
                Ok(Some(unix_seconds))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Option<u64>, E> {
                let unix_seconds = u64::try_from(number);
                unix_seconds.map(Some).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Option<u64>, E> {
                if text == "never" { Ok(None) } else { Err(E::invalid_value(Unexpected::Other("another text"), &self)) }
            }
        }

        deserializer.deserialize_any(Read)
    }
}

/// Texts by their names, each of which stands once: of two the last would count.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Read;

    impl<'de> Visitor<'de> for Read {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some((name, text)) = table.next_entry::<String, String>()? {
                if texts.insert(name, text).is_some() {
                    return Err(A::Error::custom("a name stands twice"));
                }
            }
            Ok(texts)
        }
    }

    from.deserialize_map(Read)
}
