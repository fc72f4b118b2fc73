use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{ColumnIndex, Database, Decode, Encode, Row, Type, query::Query};

use crate::{
    api_key::{ApiKeyRecord, Hit, KeyHash, KeyId, LastUse, RecordFields, Revocation},
    error::{StoreError, StoreErrorKind},
};

macro_rules! columns {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// A row of the table of keys, as the database has it. Lists and metadata are JSON; no tenant is the empty text.
        #[derive(Debug, PartialEq, Eq)]
        pub(super) struct Columns {
            $($name: $type),*
        }

        impl Columns {
            #[cfg(test)]
            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Reads the first columns of a row, and tells the index of the one after.
            fn read<'r, R: Row>(row: &'r R) -> Result<(Self, usize), sqlx::Error>
            where
                usize: ColumnIndex<R>,
                $($type: Decode<'r, R::Database> + Type<R::Database>),*
            {
                let mut next = 0..;
                let mut index = || next.next().unwrap_or(usize::MAX);
                let columns = Self { $($name: row.try_get(index())?),* };
                Ok((columns, index()))
            }

            /// Gives a statement its first values.
            pub(super) fn bind<'q, DB: Database>(
                self,
                query: Query<'q, DB, DB::Arguments>,
            ) -> Query<'q, DB, DB::Arguments>
            where
                $($type: Encode<'q, DB> + Type<DB>),*
            {
                query$(.bind(self.$name))*
            }
        }

        /// Makes the hit of a row that [`statements`](super::statements) selects.
        pub(super) fn hit<'r, R: Row>(row: &'r R, backend: &'static str) -> Result<Hit, StoreError>
        where
            usize: ColumnIndex<R>,
            bool: Decode<'r, R::Database> + Type<R::Database>,
            $($type: Decode<'r, R::Database> + Type<R::Database>),*
        {
            let id: Vec<u8> = row.try_get(0).map_err(|error| corrupt(backend, "a key without an id").caused_by(error))?;
            let broken = |error: sqlx::Error| corrupt(backend, &format!("key {}", shown(&id))).caused_by(error);
            let (columns, next) = Columns::read(row).map_err(broken)?;
            let owner_disabled: bool = row.try_get(next).map_err(broken)?;
            Ok(Hit::new(columns.decode(backend)?.into()).with_owner_disabled(owner_disabled))
        }
    };
}

columns! {
    id: Vec<u8>,
    scheme: String,
    hash: Vec<u8>,
    name: String,
    subject: String,
    tenant: String,
    plan: Option<String>,
    environment: Option<String>,
    scopes: String,
    roles: String,
    addresses: String,
    metadata: String,
    created: i64,
    not_before: Option<i64>,
    expires: Option<i64>,
    rotated_from: Option<Vec<u8>>,
    rotated_to: Option<Vec<u8>>,
    revoked_at: Option<i64>,
    revoked_reason: Option<String>,
    last_used_at: Option<i64>,
    last_used_from: Option<String>,
}

impl Columns {
    pub(super) fn of(record: &ApiKeyRecord) -> Self {
        let fields = record.fields();
        let list = |texts: Vec<String>| Value::from(texts).to_string();
        let metadata = fields.metadata.into_iter().map(|(name, value)| (name, Value::from(value)));
        Self {
            id: fields.id.as_bytes().to_vec(),
            scheme: fields.scheme.to_string(),
            hash: fields.hash.as_bytes().to_vec(),
            name: fields.name,
            subject: fields.subject,
            tenant: fields.tenant.unwrap_or_default(),
            plan: fields.plan,
            environment: fields.environment,
            scopes: list(fields.scopes),
            roles: list(fields.roles),
            addresses: list(fields.addresses.iter().map(ToString::to_string).collect()),
            metadata: Value::Object(metadata.collect()).to_string(),
            created: seconds(fields.created),
            not_before: fields.not_before.map(seconds),
            expires: fields.expires.map(seconds),
            rotated_from: fields.rotated_from.map(|id| id.as_bytes().to_vec()),
            rotated_to: fields.rotated_to.map(|id| id.as_bytes().to_vec()),
            revoked_at: fields.revoked.as_ref().map(|revocation| seconds(revocation.at())),
            revoked_reason: fields.revoked.as_ref().map(|revocation| revocation.reason().to_owned()),
            last_used_at: fields.last_used.map(|last| seconds(last.at())),
            last_used_from: fields.last_used.and_then(|last| last.address()).map(|address| address.to_string()),
        }
    }

    /// A value that the library could not have written is an error, never a guess.
    fn decode(self, backend: &'static str) -> Result<ApiKeyRecord, StoreError> {
        let key = format!("key {}", shown(&self.id));
        let broken = |column: &str| corrupt(backend, &format!("{key}: column {column}"));
        let id = |column: &str, bytes: Vec<u8>| bytes.try_into().map(KeyId::from_bytes).map_err(|_| broken(column));
        let at = |column: &str, seconds: i64| u64::try_from(seconds).map_err(|_| broken(column));

        let hash: [u8; KeyHash::LEN] = self.hash.try_into().map_err(|_| broken("hash"))?;
        let mut fields = RecordFields::new(
            id("id", self.id)?,
            KeyHash::from_bytes(hash),
            self.subject,
            at("created", self.created)?,
            self.expires.map(|end| at("expires", end)).transpose()?,
        );
        fields.scheme = self.scheme.parse().map_err(|error| broken("scheme").caused_by(error))?;
        fields.name = self.name;
        fields.tenant = (!self.tenant.is_empty()).then_some(self.tenant);
        fields.plan = self.plan;
        fields.environment = self.environment;
        fields.scopes = json(&self.scopes).map_err(|error| broken("scopes").caused_by(error))?;
        fields.roles = json(&self.roles).map_err(|error| broken("roles").caused_by(error))?;
        fields.addresses = json(&self.addresses).map_err(|error| broken("addresses").caused_by(error))?;
        fields.metadata =
            json::<BTreeMap<String, String>>(&self.metadata).map_err(|error| broken("metadata").caused_by(error))?;
        fields.not_before = self.not_before.map(|start| at("not_before", start)).transpose()?;
        fields.rotated_from = self.rotated_from.map(|other| id("rotated_from", other)).transpose()?;
        fields.rotated_to = self.rotated_to.map(|other| id("rotated_to", other)).transpose()?;
        fields.revoked = match (self.revoked_at, self.revoked_reason) {
            (None, None) => None,
            (Some(seconds), Some(reason)) => {
                let revocation = Revocation::new(at("revoked_at", seconds)?, &reason);
                Some(revocation.map_err(|error| broken("revoked_reason").caused_by(error))?)
            }
            (Some(_), None) | (None, Some(_)) => return Err(broken("revoked_reason")),
        };
        fields.last_used = match (self.last_used_at, self.last_used_from) {
            (None, None) => None,
            (Some(seconds), address) => {
                let address = address.map(|text| text.parse()).transpose();
                let address = address.map_err(|error| broken("last_used_from").caused_by(error))?;
                Some(LastUse::new(at("last_used_at", seconds)?, address))
            }
            (None, Some(_)) => return Err(broken("last_used_from")),
        };
        fields.decode(backend)
    }
}

/// No record has a time that is later.
pub(super) fn seconds(unix_seconds: u64) -> i64 {
    i64::try_from(unix_seconds).unwrap_or(i64::MAX)
}

fn json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

fn shown(id: &[u8]) -> String {
    <[u8; KeyId::LEN]>::try_from(id)
        .map_or_else(|_| format!("with an id of {} bytes", id.len()), |id| KeyId::from_bytes(id).to_string())
}

pub(super) fn corrupt(backend: &'static str, about: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, backend).about(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        let mut fields =
            RecordFields::new(KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]), "bil'ling", 100, Some(200));
        fields.tenant = Some("acme".into());
        fields.scopes = vec!["a:read".into(), "b".into()];
        fields.addresses = vec!["10.0.0.0/8".parse().unwrap()];
        fields.metadata.insert("team\"".into(), "blue".into());
        fields.revoked = Some(Revocation::new(150, "").unwrap());
        fields.last_used = Some(LastUse::new(120, Some([198, 51, 100, 7].into())));
        fields.rotated_from = Some(KeyId::from_bytes([3; 10]));
        Columns::of(&fields.check().unwrap())
    }

    #[test]
    fn a_record_comes_back_whole() {
        let record = columns().decode("test").unwrap();
        assert_eq!(Columns::of(&record), columns());
        assert_eq!(record.scopes().len(), 2);
        assert_eq!(columns().scopes, r#"["a:read","b"]"#);
    }

    #[test]
    fn a_broken_row_is_corrupt_and_names_the_key() {
        type Break = fn(&mut Columns);
        let id = KeyId::from_bytes([1; 10]).to_string();
        let cases: [(&str, Break); 17] = [
            ("short hash", |row| row.hash.truncate(31)),
            ("long hash", |row| row.hash.push(0)),
            ("no scheme", |row| row.scheme.clear()),
            ("another scheme", |row| row.scheme = "md5".into()),
            ("no subject", |row| row.subject.clear()),
            ("a control character", |row| row.name = "a\nb".into()),
            ("half a list", |row| row.scopes = "[\"a:read\"".into()),
            ("no list", |row| row.roles = "null".into()),
            ("a list of other things", |row| row.roles = "[1]".into()),
            ("an address that is none", |row| row.addresses = "[\"10.0.0.1/8\"]".into()),
            ("metadata that is a list", |row| row.metadata = "[]".into()),
            ("a time before the epoch", |row| row.expires = Some(-1)),
            ("a time after the end", |row| row.created = i64::MAX),
            ("a short other id", |row| row.rotated_to = Some(vec![1])),
            ("half a revocation", |row| row.revoked_reason = None),
            ("the other half", |row| row.revoked_at = None),
            ("half a use", |row| row.last_used_at = None),
        ];
        for (name, damage) in cases {
            let mut row = columns();
            damage(&mut row);
            let error = row.decode("test").unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{name}");
            assert!(error.to_string().contains(&id), "{name}: {error}");
        }
        let mut row = columns();
        row.id.pop();
        assert!(row.decode("test").unwrap_err().to_string().contains("with an id of 9 bytes"));
    }
}
