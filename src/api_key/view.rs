use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::api_key::{HashScheme, Hit, KeyId, LastUse, Revocation};

/// What a key is at a given time, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: accepted, or one of four reasons why not")]
pub enum KeyStatus {
    /// Accepted.
    Active,
    /// Not valid yet.
    Pending,
    /// Past its end.
    Expired,
    /// Revoked.
    Revoked,
    /// Its owner is disabled.
    Disabled,
}

impl KeyStatus {
    /// The status of a key at this time, in seconds since the Unix epoch. What lasts is said before what may pass: a revoked
    /// key of a disabled owner is revoked.
    #[must_use]
    pub fn of(hit: &Hit, unix_seconds: u64) -> Self {
        let record = hit.record();
        if record.revocation().is_some() {
            Self::Revoked
        } else if record.expires().is_some_and(|end| end <= unix_seconds) {
            Self::Expired
        } else if hit.owner_disabled() {
            Self::Disabled
        } else if record.is_active(unix_seconds) {
            Self::Active
        } else {
            Self::Pending
        }
    }

    /// The word for it: `active`, `pending`, `expired`, `revoked` or `disabled`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A record as administrators see it, as JSON: everything but the hash. Times are seconds since the Unix epoch; a key without
/// an end has `"expires": "never"`. What a record does not have is left out.
///
/// ```
/// use portcullis::{Instants, api_key::{Hit, KeyView, NewApiKey}};
///
/// let at = Instants::new(1_800_000_000 * 1_000_000_000, 0);
/// let (_, record) = NewApiKey::for_subject("billing").tenant("acme").mint(at)?;
/// let view = serde_json::to_value(KeyView::new(&Hit::new(record.into()), at.unix_seconds()))?;
/// assert_eq!((&view["status"], &view["subject"]), (&"active".into(), &"billing".into()));
/// assert!(view.get("hash").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Serialize)]
pub struct KeyView<'a> {
    id: &'a KeyId,
    status: KeyStatus,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a str>,
    scopes: &'a [Box<str>],
    roles: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    #[serde(skip_serializing_if = "<[IpNet]>::is_empty")]
    addresses: &'a [IpNet],
    created: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    #[serde(serialize_with = "end")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_from: Option<&'a KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_to: Option<&'a KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<&'a Revocation>,
    owner_disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<LastUse>,
    scheme: HashScheme,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
}

impl<'a> KeyView<'a> {
    /// The record as it stands at this time, in seconds since the Unix epoch.
    #[must_use]
    pub fn new(hit: &'a Hit, unix_seconds: u64) -> Self {
        let record = hit.record();
        Self {
            id: record.id(),
            status: KeyStatus::of(hit, unix_seconds),
            name: record.name(),
            subject: record.subject(),
            tenant: record.tenant(),
            plan: record.plan(),
            scopes: record.scopes(),
            roles: record.roles(),
            environment: record.environment(),
            addresses: record.addresses(),
            created: record.created(),
            not_before: record.not_before(),
            expires: record.expires(),
            rotated_from: record.rotated_from(),
            rotated_to: record.rotated_to(),
            revoked: record.revocation(),
            owner_disabled: hit.owner_disabled(),
            last_used: record.last_used(),
            scheme: record.scheme(),
            metadata: record.metadata().collect(),
        }
    }
}

fn end<S: Serializer>(end: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match end {
        Some(unix_seconds) => serializer.serialize_u64(*unix_seconds),
        None => serializer.serialize_str("never"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::{KeyHash, RecordFields};

    fn fields() -> RecordFields {
        let (id, hash) = (KeyId::from_bytes([1; 10]), KeyHash::from_bytes([0xab; 32]));
        RecordFields { not_before: Some(200), ..RecordFields::new(id, hash, "billing", 100, Some(300)) }
    }

    #[test]
    fn the_status_says_first_what_lasts() {
        let revoked = || RecordFields { revoked: Some(Revocation::new(150, "").unwrap()), ..fields() };
        for (name, fields, disabled, at, expected) in [
            ("not begun", fields(), false, 199, "pending"),
            ("begun", fields(), false, 200, "active"),
            ("the last second", fields(), false, 299, "active"),
            ("ended", fields(), false, 300, "expired"),
            ("owner disabled", fields(), true, 200, "disabled"),
            ("owner disabled, not begun", fields(), true, 199, "disabled"),
            ("owner disabled, ended", fields(), true, 300, "expired"),
            ("revoked", revoked(), false, 200, "revoked"),
            ("revoked, owner disabled, ended", revoked(), true, 300, "revoked"),
        ] {
            let hit = Hit::new(fields.check().unwrap().into()).with_owner_disabled(disabled);
            let status = KeyStatus::of(&hit, at);
            assert_eq!(status.as_str(), expected, "{name}");
            assert_eq!(status == KeyStatus::Active, hit.is_active(at), "{name}: as the store filters");
            assert_eq!(serde_json::to_value(status).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn the_hash_is_not_shown() {
        let hit = Hit::new(fields().check().unwrap().into());
        let json = serde_json::to_string(&KeyView::new(&hit, 200)).unwrap();
        assert!(!json.contains("abab") && !json.contains("hash"), "{json}");
        assert!(json.contains(r#""expires":300"#) && !json.contains("tenant"), "{json}");
        let endless = RecordFields { expires: None, ..fields() };
        let hit = Hit::new(endless.check().unwrap().into());
        assert!(serde_json::to_string(&KeyView::new(&hit, 200)).unwrap().contains(r#""expires":"never""#));
    }
}
