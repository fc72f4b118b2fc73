use std::fmt::Debug;

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    error::StoreError,
    now::Now,
    policy::{AccessQuery, Attributes},
};

/// The name of an entity of Cedar: its type with the namespace, and its id. The id may be any text; it is compared byte for
/// byte and never parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CedarUid {
    kind: String,
    id: String,
}

impl CedarUid {
    /// Names an entity, such as `Shop::User` and `alice`.
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// The type with its namespace.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// An entity of Cedar: its name, its attributes, and the entities that it is in.
///
/// Values are JSON, read as the schema says: a text is an `ipaddr` or a `datetime` where one is declared, and an entity is
/// `{"type": "User", "id": "alice"}`. A list is a set.
///
/// ```
/// use portcullis::policy::{CedarEntity, CedarUid};
///
/// let alice = CedarEntity::new("User", "alice").with("department", "sales").within(CedarUid::new("Team", "north"));
/// assert_eq!(alice.uid().id(), "alice");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CedarEntity {
    uid: CedarUid,
    attributes: Attributes,
    parents: Vec<CedarUid>,
}

impl CedarEntity {
    /// Names an entity: its type with the namespace, and its id.
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { uid: CedarUid::new(kind, id), attributes: Attributes::new(), parents: Vec::new() }
    }

    /// Adds an attribute. The value of a name that is there already is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.set(name.into().into(), value.into());
        self
    }

    /// Says that it is in another one: a team, a folder.
    #[must_use]
    pub fn within(mut self, parent: CedarUid) -> Self {
        self.parents.push(parent);
        self
    }

    /// Its name.
    #[must_use]
    pub const fn uid(&self) -> &CedarUid {
        &self.uid
    }

    /// Its attributes.
    #[must_use]
    pub const fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// What it is in.
    #[must_use]
    pub fn parents(&self) -> &[CedarUid] {
        &self.parents
    }
}

/// Where entities come from that are in no file: users and their teams, documents and their folders.
///
/// # Contract
/// - Asked for an entity, it gives that one, and whatever a policy may want to know of others on the way: the groups that it
///   is in and those that they are in, and entities that its attributes name. Each name stands once.
/// - Of an entity that it does not know it gives nothing. That is no error: the policy decides by what the question tells.
/// - What it cannot find out is an error, and the verdict is [`cannot decide`](crate::policy::Decision::CannotDecide).
/// - [`entities_now`](Self::entities_now) and [`entities`](Self::entities) give the same.
/// - Ids come from clients: any text of any length, to be compared and not interpreted.
///
/// Bound the time that it waits; nothing here does. The conformance suite (feature `conformance`) checks what can be checked.
#[async_trait]
pub trait EntitySource: Debug + Send + Sync + 'static {
    /// Answers without waiting, if it can.
    fn entities_now(&self, wanted: &CedarUid, query: &AccessQuery<'_>) -> Now<Result<Vec<CedarEntity>, StoreError>> {
        let _ = (wanted, query);
        Now::Wait
    }

    /// Answers.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn entities(&self, wanted: &CedarUid, query: &AccessQuery<'_>) -> Result<Vec<CedarEntity>, StoreError>;

    /// A number that grows whenever the answers may differ from those before. `None`, always, says that it cannot be told.
    fn generation(&self) -> Option<u64> {
        None
    }
}
