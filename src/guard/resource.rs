//! The thing that a request is about, read off its head.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{
    error::ConfigError,
    guard::{
        predicate::Fact,
        route::{Params, check_template, names_of},
    },
    head::RequestHead,
    policy::Resource,
};

/// How the thing that a request is about is found in its head; see [`from_path`] and [`from_head`].
///
/// It is given to a guard with [`GuardLayer::on`](crate::guard::GuardLayer::on). A request that names no such thing is
/// refused with `400`, never decided without it.
#[derive(Clone)]
pub struct ResourceSource {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Path { kind: Arc<str>, id: Arc<str>, tenant: Option<Arc<str>> },
    Head { name: &'static str, read: Arc<Read> },
}

type Read = dyn Fn(&RequestHead<'_>, &PathParams<'_>) -> Option<Resource> + Send + Sync;

/// The parameters of a route's path, decoded: `id` of `/orders/{id}`.
#[derive(Debug)]
pub struct PathParams<'a>(pub(crate) &'a Params<'a>);

impl PathParams<'_> {
    /// A parameter. `None` if the route has none of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }
}

/// The thing is named by the path: its type, and its id, in which `{name}` stands for a parameter of the route.
///
/// ```
/// use portcullis::{guard::{from_path, policy, require}, policy::Resource};
///
/// // On the route DELETE /tenants/{tenant}/orders/{id}.
/// let order = from_path("order", "{id}")?.in_tenant("{tenant}")?;
/// let guard = require(policy("orders:cancel")?).on(order);
/// # let _ = guard;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// In an id of several parameters, such as `{region}/{id}`, the text between them ends the first one: a request in which that
/// one's value holds it is refused with `400`, so that no two paths name one thing.
///
/// # Errors
/// If type or id is empty, or the id has a brace that is not closed, or two parameters with nothing between them.
pub fn from_path(kind: &str, id: &str) -> Result<ResourceSource, ConfigError> {
    if kind.is_empty() {
        return Err(ConfigError::new("resource type", "\"\"", "must not be empty"));
    }
    check_template("resource id", id)?;
    Ok(ResourceSource { kind: Kind::Path { kind: kind.into(), id: id.into(), tenant: None } })
}

/// The thing is found by a function of your own: of the head, and of the parameters of the route's path. `name` is what
/// reviewers read. The function must be quick and must not block.
///
/// ```
/// use portcullis::{guard::from_head, policy::Resource};
///
/// let report = from_head("report of the month", |head, path| {
///     let month = path.get("month").filter(|month| month.len() == 7)?;
///     Some(Resource::new("report", month).with("drafts", head.uri().query() == Some("drafts")))
/// });
/// # let _ = report;
/// ```
pub fn from_head<F>(name: &'static str, read: F) -> ResourceSource
where
    F: Fn(&RequestHead<'_>, &PathParams<'_>) -> Option<Resource> + Send + Sync + 'static,
{
    ResourceSource { kind: Kind::Head { name, read: Arc::new(read) } }
}

/// Why there is no thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoResource {
    /// The route has no such parameter, or its template is not known: the guard stands on the wrong route.
    WrongRoute,
    /// The request names none.
    NotNamed,
}

impl ResourceSource {
    /// Says to which tenant the thing belongs; `{name}` stands for a parameter of the route. Only for
    /// [`from_path`]; a function says it of the [`Resource`] itself.
    ///
    /// # Errors
    /// If it is empty, has a brace that is not closed or two parameters with nothing between them, or the thing comes from a
    /// function.
    pub fn in_tenant(mut self, template: &str) -> Result<Self, ConfigError> {
        check_template("resource tenant", template)?;
        match &mut self.kind {
            Kind::Path { tenant, .. } => *tenant = Some(template.into()),
            Kind::Head { name, .. } => {
                return Err(ConfigError::new("resource tenant", *name, "is a function: it must say the tenant itself"));
            }
        }
        Ok(self)
    }

    /// The parameters that a route must have.
    pub(crate) fn parameters(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Path { id, tenant, .. } => {
                names_of(id).chain(tenant.as_deref().into_iter().flat_map(names_of)).collect()
            }
            Kind::Head { .. } => Vec::new(),
        }
    }

    /// Whether it may say this of the thing. A path says which it is, and of which tenant.
    pub(crate) const fn may_tell(&self, fact: Fact) -> bool {
        match (&self.kind, fact) {
            (Kind::Head { .. }, _) => true,
            (Kind::Path { tenant, .. }, Fact::Tenant) => tenant.is_some(),
            (Kind::Path { .. }, Fact::Owner | Fact::Attributes) => false,
        }
    }

    /// Reads the thing off a request.
    pub(crate) fn read(&self, head: &RequestHead<'_>, params: Option<&Params<'_>>) -> Result<Resource, NoResource> {
        match &self.kind {
            Kind::Path { kind, id, tenant } => {
                let params = params.ok_or(NoResource::WrongRoute)?;
                let id = params.fill(id)?;
                let tenant = tenant.as_deref().map(|tenant| params.fill(tenant)).transpose()?;
                if id.is_empty() || tenant.as_deref() == Some("") {
                    return Err(NoResource::NotNamed);
                }
                let resource = Resource::new(Cow::Owned(kind.to_string()), id);
                Ok(match tenant {
                    Some(tenant) => resource.in_tenant(tenant),
                    None => resource,
                })
            }
            Kind::Head { read, .. } => {
                let none = Params::none();
                read(head, &PathParams(params.unwrap_or(&none))).ok_or(NoResource::NotNamed)
            }
        }
    }
}

impl fmt::Display for ResourceSource {
    /// As reviewers read it: `order {id}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Path { kind, id, tenant: None } => write!(f, "{kind} {id}"),
            Kind::Path { kind, id, tenant: Some(tenant) } => write!(f, "{kind} {id} of tenant {tenant}"),
            Kind::Head { name, .. } => f.write_str(name),
        }
    }
}

impl fmt::Debug for ResourceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceSource({self})")
    }
}
