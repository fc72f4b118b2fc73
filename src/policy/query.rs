use std::{borrow::Cow, net::IpAddr};

use serde_json::Value;

use crate::{clock::Instants, policy::Attributes, principal::Principal};

/// The question: who wants to do what to which thing, and under which circumstances.
///
/// The guard and the [`Authorizer`](crate::guard::Authorizer) fill in all that the request tells. How strongly the subject
/// was authenticated stands in the [`Principal`]: `acr`, `amr` and `auth_time`, as far as its credential says.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuery<'a> {
    subject: &'a Principal,
    client: Option<&'a Principal>,
    action: &'a str,
    resource: Option<&'a Resource>,
    attributes: Option<&'a Attributes>,
    method: Option<&'a str>,
    route: Option<&'a str>,
    address: Option<IpAddr>,
    at: Instants,
}

impl<'a> AccessQuery<'a> {
    /// Asks whether `subject` may do `action`, at the time `at`.
    #[must_use]
    pub const fn new(subject: &'a Principal, action: &'a str, at: Instants) -> Self {
        Self {
            subject,
            client: None,
            action,
            resource: None,
            attributes: None,
            method: None,
            route: None,
            address: None,
            at,
        }
    }

    /// Names what acts for the subject.
    #[must_use]
    pub const fn with_client(mut self, client: Option<&'a Principal>) -> Self {
        self.client = client;
        self
    }

    /// Names the thing.
    #[must_use]
    pub const fn on(mut self, resource: &'a Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Adds what the application knows of the circumstances.
    #[must_use]
    pub const fn with_attributes(mut self, attributes: &'a Attributes) -> Self {
        self.attributes = Some(attributes);
        self
    }

    /// Adds the request's method and route template.
    #[must_use]
    pub const fn with_route(mut self, method: &'a str, route: Option<&'a str>) -> Self {
        self.method = Some(method);
        self.route = route;
        self
    }

    /// Adds the client's address.
    #[must_use]
    pub const fn with_address(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// The same question at another time.
    #[must_use]
    pub const fn at_time(mut self, at: Instants) -> Self {
        self.at = at;
        self
    }

    /// Who acts.
    #[must_use]
    pub const fn subject(&self) -> &'a Principal {
        self.subject
    }

    /// What acts for them, if anything does.
    #[must_use]
    pub const fn client(&self) -> Option<&'a Principal> {
        self.client
    }

    /// What is to be done, such as `orders:cancel`.
    #[must_use]
    pub const fn action(&self) -> &'a str {
        self.action
    }

    /// The thing it is to be done to, where the question names one.
    #[must_use]
    pub const fn resource(&self) -> Option<&'a Resource> {
        self.resource
    }

    /// An attribute of the question itself, not of the thing.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'a Value> {
        self.attributes.and_then(|attributes| attributes.get(name))
    }

    /// The attributes of the question itself.
    #[must_use]
    pub const fn attributes(&self) -> Option<&'a Attributes> {
        self.attributes
    }

    /// The request's method. The guard says `GET` for a HEAD request, which is decided as GET.
    #[must_use]
    pub const fn method(&self) -> Option<&'a str> {
        self.method
    }

    /// The route template, such as `/orders/{id}`.
    #[must_use]
    pub const fn route(&self) -> Option<&'a str> {
        self.route
    }

    /// The client's address; none where a trusted proxy sent a header that does not parse.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The time of the question. A guard asks at that of the request; an [`Authorizer`](crate::guard::Authorizer) at its own, the
    /// request's and what has passed since.
    #[must_use]
    pub const fn at(&self) -> Instants {
        self.at
    }
}

/// The thing that a question is about: its type, its id, and what a policy may want to know of it.
///
/// ```
/// use portcullis::policy::Resource;
///
/// let order = Resource::new("order", "42").owned_by("https://id.example.com", "alice").with("status", "open");
/// assert_eq!(order.attribute("status"), Some(&"open".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    kind: Cow<'static, str>,
    id: String,
    owner: Option<(String, String)>,
    more_owners: Vec<(String, String)>,
    tenant: Option<String>,
    attributes: Attributes,
}

impl Resource {
    /// Names a thing.
    pub fn new(kind: impl Into<Cow<'static, str>>, id: impl ToString) -> Self {
        Self {
            kind: kind.into(),
            id: id.to_string(),
            owner: None,
            more_owners: Vec::new(),
            tenant: None,
            attributes: Attributes::new(),
        }
    }

    /// Says whose it is: a principal is known by issuer and subject together (RFC 8725 §3.8). Said again, it replaces the owner, and no
    /// [other](Self::also_owned_by).
    #[must_use]
    pub fn owned_by(mut self, issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        self.owner = Some((issuer.into(), subject.into()));
        self
    }

    /// Says who owns it as well: the API keys of the person whose it is, for example, which the name of their store and the person's
    /// subject name. They count in the thing's own [tenant](Self::in_tenant) alone: a principal of another tenant owns nothing by this,
    /// nor does one of a tenant own a thing of none, or one of none a thing of a tenant. Within it, to
    /// [`is_owned_by`](Self::is_owned_by), and so to a role policy and to [`owner()`](crate::guard::owner), they are as good as
    /// [the owner](Self::owned_by); Cedar, Rego and decision points are told of the owner alone.
    ///
    /// ```
    /// use portcullis::policy::Resource;
    ///
    /// fn note(id: u64, subject: &str, tenant: &str) -> Resource {
    ///     let note = Resource::new("note", id).in_tenant(tenant);
    ///     note.owned_by("https://id.example.com", subject).also_owned_by("api-keys", subject)
    /// }
    /// # assert_eq!(note(1, "alice", "acme").owner(), Some(("https://id.example.com", "alice")));
    /// ```
    ///
    /// # Security
    /// Only where the names of one issuer and those of the other are the same persons': whoever may make a key for a name, as a holder of
    /// [`ANY_OWNER`](crate::key_admin::ANY_OWNER), then has what belongs to that name in their tenant. Keys of one name in two tenants
    /// have one issuer and subject, so without the tenant an administrator of the one would make a key that owns the other's things.
    #[must_use]
    pub fn also_owned_by(mut self, issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        self.more_owners.push((issuer.into(), subject.into()));
        self
    }

    /// Says to which tenant it belongs.
    ///
    /// # Security
    /// A thing that names no tenant is shared by all: a role policy keeps nobody from it by their tenant.
    #[must_use]
    pub fn in_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Adds an attribute. The value of a name that is there already is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.attributes.set(name.into(), value.into());
        self
    }

    /// The type, such as `order`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it belongs to this principal: as [the owner](Self::owned_by), or as one who [owns it as well](Self::also_owned_by) and is
    /// of its tenant. A thing without an owner belongs to nobody.
    #[must_use]
    pub fn is_owned_by(&self, principal: &Principal) -> bool {
        let is = |(issuer, subject): &(String, String)| issuer == principal.issuer() && subject == principal.subject();
        self.owner.as_ref().is_some_and(is) || (self.more_owners.iter().any(is) && self.tenant() == principal.tenant())
    }

    /// All who own it, by issuer and subject; the [owner](Self::owner) comes first. Whether somebody does,
    /// [`is_owned_by`](Self::is_owned_by) tells: those who own it as well must be of its tenant.
    pub fn owners(&self) -> impl Iterator<Item = (&str, &str)> {
        self.owner.iter().chain(&self.more_owners).map(|(issuer, subject)| (issuer.as_str(), subject.as_str()))
    }

    /// Whose it is: issuer and subject. Who only [owns it as well](Self::also_owned_by) is not told here.
    #[must_use]
    pub fn owner(&self) -> Option<(&str, &str)> {
        self.owner.as_ref().map(|(issuer, subject)| (issuer.as_str(), subject.as_str()))
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// An attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }

    /// All attributes.
    #[must_use]
    pub const fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}
