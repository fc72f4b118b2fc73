use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use crate::{
    error::ConfigError,
    policy::{
        cedar::{Cedar, compile::compile, source::EntitySource},
        documents::Documents,
    },
    principal::PrincipalKind,
};

/// Assembles a [`Cedar`]; made by [`Cedar::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct CedarBuilder {
    documents: Documents<Kind>,
    settings: Settings,
    source: Option<Arc<dyn EntitySource>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Policies,
    Schema,
    Entities,
    Links,
}

/// How questions become Cedar's.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) version: Option<Arc<str>>,
    pub(super) namespace: Option<String>,
    pub(super) principal_types: BTreeMap<&'static str, String>,
    pub(super) role_type: Option<String>,
    pub(super) resource_types: BTreeMap<String, String>,
    pub(super) no_resource: Option<(String, String)>,
    pub(super) issuer: Option<String>,
}

impl Settings {
    /// A type's name with the namespace, if it has none.
    pub(super) fn full_name(&self, name: &str) -> String {
        match &self.namespace {
            Some(namespace) if !name.contains("::") => format!("{namespace}::{name}"),
            _ => name.to_owned(),
        }
    }

    /// A type's name without the namespace, if it is of it.
    pub(super) fn short_name<'n>(&self, full_name: &'n str) -> Option<&'n str> {
        match &self.namespace {
            Some(namespace) => full_name.strip_prefix(namespace.as_str())?.strip_prefix("::"),
            None => (!full_name.contains("::")).then_some(full_name),
        }
        .filter(|name| !name.contains("::"))
    }
}

impl CedarBuilder {
    pub(super) fn new() -> Self {
        Self { documents: Documents::new(), settings: Settings::default(), source: None }
    }

    /// Adds policies and templates, with a name for errors.
    pub fn policies(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Policies, name.into(), text.into());
        self
    }

    /// Adds policies and templates from a file of at most 16 MiB.
    pub fn policies_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Policies, path.as_ref().to_owned());
        self
    }

    /// Adds a part of the schema, with a name for errors: Cedar's schema language, or its JSON form. A namespace may
    /// stand in several parts, a type or an action in one alone.
    pub fn schema(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Schema, name.into(), text.into());
        self
    }

    /// Adds a part of the schema from a file of at most 16 MiB.
    pub fn schema_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Schema, path.as_ref().to_owned());
        self
    }

    /// Adds entities, with a name for errors: Cedar's JSON array of `uid`, `attrs`, `parents` and `tags`.
    pub fn entities(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Entities, name.into(), json.into());
        self
    }

    /// Adds entities from a file of at most 16 MiB.
    pub fn entities_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Entities, path.as_ref().to_owned());
        self
    }

    /// Adds links of templates, with a name for errors: a JSON array of `template_id`, `link_id` and `args`, as Cedar's command
    /// line has it: `{"template_id": "share", "link_id": "share-1", "args": {"?principal": "User::\"alice\""}}`.
    pub fn links(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Links, name.into(), json.into());
        self
    }

    /// Adds links of templates from a file of at most 16 MiB.
    pub fn links_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Links, path.as_ref().to_owned());
        self
    }

    /// Asks for the entities of each question: its principal and its resource.
    pub fn source(mut self, source: impl EntitySource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Names the version for records. If none is named, one is made of the documents' content, and changes with it.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.settings.version = Some(version.into());
        self
    }

    /// Says in which namespace of the schema the actions stand, and the types that are named without one. None unless it is
    /// said.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.settings.namespace = Some(namespace.into());
        self
    }

    /// Names the entity type of a kind of principals. Unless it is said: `User`, `Service` and `Key`, as far as the schema has
    /// them; a principal of a kind without a type is denied.
    pub fn principal_type(mut self, kind: PrincipalKind, name: impl Into<String>) -> Self {
        self.settings.principal_types.insert(kind.as_str(), name.into());
        self
    }

    /// Names the entity type of roles, which principals are in. `Role` unless it is said, if the schema has it.
    pub fn role_type(mut self, name: impl Into<String>) -> Self {
        self.settings.role_type = Some(name.into());
        self
    }

    /// Names the entity type of a type of resources. Unless it is said, `order` is the type `order` or, if there is none,
    /// `Order`.
    pub fn resource_type(mut self, kind: impl Into<String>, name: impl Into<String>) -> Self {
        self.settings.resource_types.insert(kind.into(), name.into());
        self
    }

    /// Names the entity that questions without a resource are about, such as `Application` and `shop`. Unless it is said, they
    /// are denied.
    pub fn without_resource(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.settings.no_resource = Some((kind.into(), id.into()));
        self
    }

    /// Says that all principals are of this issuer: then the id of a principal is its subject, `User::"alice"`, and a principal
    /// of another issuer is denied. Unless it is said, the id is issuer and subject, `User::"https://id.example.com#alice"`,
    /// with `#` in the issuer as `%23` and `%` as `%25`.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.settings.issuer = Some(issuer.into());
        self
    }

    /// Reads and checks all of it. This blocks if it comes from files: call it at start.
    ///
    /// # Errors
    /// If a file cannot be read or a document does not parse, a policy or an entity does not fit the schema, a name stands
    /// twice, a link has no template, there is no policy or no schema, a document of policies has none, or a type that is named
    /// here is not in the schema. The error names file, line and reason.
    pub fn build(self) -> Result<Cedar, ConfigError> {
        let Self { documents, settings, source } = self;
        let live = documents.live(Kind::Policies, move |texts| compile(texts, &settings))?;
        Ok(Cedar::new(live, source))
    }
}

impl fmt::Debug for CedarBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CedarBuilder").field("source", &self.source).finish_non_exhaustive()
    }
}
