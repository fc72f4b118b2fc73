use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use http::{
    HeaderValue, Method,
    uri::{Authority, PathAndQuery},
};

use super::{caller::Caller, values::PathValues};
use crate::{error::ConfigError, policy::Matrix};

/// What the suite has to know of a service: its routes, who may use them, and how to be somebody.
#[must_use]
#[derive(Clone, Default)]
pub struct Profile {
    pub(super) routes: Vec<Route>,
    /// Every line of the matrices, those that are left out too: a method, or `ANY`, and a path with parameters.
    lines: Vec<(String, String)>,
    bodies: BTreeMap<String, (HeaderValue, Bytes)>,
    pub(super) people: BTreeMap<String, Caller>,
    pub(super) keys: Vec<(String, String)>,
    pub(super) things: Vec<Thing>,
    pub(super) limit: Option<u32>,
    pub(super) one_time: bool,
    pub(super) secrets: Vec<String>,
    pub(super) host: Option<HeaderValue>,
    pub(super) origin: Option<HeaderValue>,
}

/// A method and a path to ask for, and what is asked for there.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    query: Option<String>,
    pub(super) public: bool,
    pub(super) allowed: Vec<String>,
    /// Whether the good API keys may use it.
    pub(super) keys: bool,
    /// None: whoever is not allowed.
    pub(super) denied: Option<Vec<String>>,
    /// Whether its requests ask for a WebSocket.
    pub(super) websocket: bool,
}

/// A thing of somebody.
#[derive(Clone)]
pub(super) struct Thing {
    pub(super) exists: Route,
    pub(super) from: Stranger,
    pub(super) owner: Caller,
    pub(super) stranger: Caller,
}

/// Whom a thing is kept from, and how.
#[derive(Clone)]
pub(super) enum Stranger {
    OfAnotherTenant,
    WithThingsOfTheirOwn,
    /// Who must not know it from this one, which is not there.
    WhoKnowsNothing(Route),
}

impl Thing {
    pub(super) const fn missing(&self) -> Option<&Route> {
        match &self.from {
            Stranger::WhoKnowsNothing(missing) => Some(missing),
            Stranger::OfAnotherTenant | Stranger::WithThingsOfTheirOwn => None,
        }
    }
}

impl Route {
    fn parse(line: &str) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| ConfigError::new("attack profile", format!("{line:?}"), problem);
        let (method, target) = line.split_once(' ').ok_or_else(|| refuse("must be a method, one space and a path"))?;
        if !target.starts_with('/') || target.contains(['{', '}']) {
            return Err(refuse("must have a path that can be asked for: values in place of parameters"));
        }
        // Nothing of it may be dropped or spelled otherwise on the way, as a fragment is.
        if !target.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == target) {
            return Err(refuse("must have a path as URLs have it, without spaces and fragments"));
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| refuse("must start with a method"))?;
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
        let (path, allowed) = (path.to_owned(), Vec::new());
        Ok(Self { method, path, query, public: false, allowed, keys: false, denied: None, websocket: false })
    }

    /// Whether the first good request may leave nothing for others to ask for.
    pub(super) fn uses_up(&self) -> bool {
        self.method == Method::DELETE
    }

    /// Whether this role must be refused.
    pub(super) fn denies(&self, role: &str) -> bool {
        let is_named = |roles: &[String]| roles.iter().any(|named| named == role);
        !self.public && !is_named(&self.allowed) && self.denied.as_deref().is_none_or(is_named)
    }

    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target())
    }

    /// The path and the query.
    pub(super) fn target(&self) -> String {
        self.at(&self.path)
    }

    /// The query at another path.
    pub(super) fn at(&self, path: &str) -> String {
        self.query.as_ref().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// With one more parameter in the query.
    pub(super) fn asking(&self, name: &str, value: &str) -> String {
        let separator = if self.query.is_some() { '&' } else { '?' };
        format!("{}{separator}{name}={value}", self.target())
    }
}

/// Whether a path is one of a line with parameters.
fn is_at(line: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for expected in line.split('/') {
        if expected.starts_with("{*") {
            return segments.next().is_some();
        }
        let is_parameter = expected.starts_with('{') && expected.ends_with('}');
        match segments.next() {
            Some(segment) if segment == expected || (is_parameter && !segment.is_empty()) => {}
            Some(_) | None => return false,
        }
    }
    segments.next().is_none()
}

impl Profile {
    /// Every route that it names.
    fn named(&self) -> impl Iterator<Item = &Route> {
        let of_things = self.things.iter().flat_map(|thing| std::iter::once(&thing.exists).chain(thing.missing()));
        self.routes.iter().chain(of_things)
    }

    /// Each method that it names, and the path that it names it for.
    #[cfg(feature = "testing-network")]
    pub(super) fn listed(&self) -> impl Iterator<Item = (Method, String)> {
        self.named().map(|route| (route.method.clone(), route.path.clone()))
    }

    /// Whether a line is there for the method at this path, also if the profile asks for it at another one.
    pub(super) fn lists(&self, method: &str, path: &str) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        self.routes.iter().any(|route| route.path == path && route.method.as_str() == method)
            || self.lines.iter().any(|(listed, line)| (listed == method || listed == "ANY") && is_at(line, path))
    }

    /// What requests of a route carry, and its type.
    pub(super) fn body_of(&self, line: &str) -> Option<&(HeaderValue, Bytes)> {
        self.bodies.get(line)
    }

    /// A service without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route that everybody may use: a method and a path, as in `GET /health`.
    ///
    /// # Errors
    /// If it is none, or has a parameter in place of a value.
    pub fn public(mut self, line: &str) -> Result<Self, ConfigError> {
        let route = self.taken(line)?;
        self.routes.push(Route { public: true, ..route });
        Ok(self)
    }

    /// Adds a route that these roles may use, and nobody else: `GET /orders/1`.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn route<'r>(mut self, line: &str, roles: impl IntoIterator<Item = &'r str>) -> Result<Self, ConfigError> {
        let allowed = roles.into_iter().map(str::to_owned).collect();
        let route = self.taken(line)?;
        self.routes.push(Route { allowed, ..route });
        Ok(self)
    }

    /// Adds a route that the good [API keys](Self::api_key) may use. Where roles may use it too, name it in
    /// [`route`](Self::route) as well.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn route_for_keys(mut self, line: &str) -> Result<Self, ConfigError> {
        let route = self.taken(line)?;
        self.routes.push(Route { keys: true, ..route });
        Ok(self)
    }

    /// The route of the line as it is so far.
    fn taken(&mut self, line: &str) -> Result<Route, ConfigError> {
        let new = Route::parse(line)?;
        let held = self.routes.iter().position(|route| route.line() == new.line());
        Ok(held.map_or(new, |held| self.routes.remove(held)))
    }

    /// Adds a route whose requests ask for a WebSocket (RFC 6455 §4.1), which these roles may open: `GET /feed`. The good answer
    /// is `101`, or, in process, where nothing can be opened, the `426` that axum gives there.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn websocket<'r>(self, line: &str, roles: impl IntoIterator<Item = &'r str>) -> Result<Self, ConfigError> {
        let mut profile = self.route(line, roles)?;
        if let Some(route) = profile.routes.last_mut() {
            route.websocket = true;
        }
        Ok(profile)
    }

    /// Adds each guarded route of a [matrix of a stack](crate::stack::Stack::matrix), with these values in place of
    /// parameters: `&[("id", "1")]` for all lines, or [`PathValues`]. What there `depends` on more than the role is asked for by
    /// nobody: where it does for every role, name the route before, with a role that may, or a thing of
    /// [one owner](Self::other_owner) at that line. Routes of `ANY`, those that are public, and those that the profile has
    /// already, are left out.
    ///
    /// # Errors
    /// If a parameter has no value, or the values name what is not there.
    pub fn matrix(mut self, matrix: &Matrix, values: impl Into<PathValues>) -> Result<Self, ConfigError> {
        let values = values.into();
        values.check(matrix)?;
        let lines = matrix.columns().iter().filter_map(|column| column.split_once(' '));
        self.lines.extend(lines.map(|(method, path)| (method.to_owned(), path.to_owned())));
        let is_asked_for =
            |column: &&String| !column.starts_with("ANY ") && !matrix.is_public(column) && !values.leaves_out(column);
        for column in matrix.columns().iter().filter(is_asked_for) {
            let route = Route::parse(&values.fill(column))?;
            let is_named = |held: &Route| held.line() == route.line() && !(held.keys && held.allowed.is_empty());
            if self.routes.iter().any(is_named) {
                continue;
            }
            let route = self.taken(&route.line())?;
            let having = |cell: &str| -> Vec<String> {
                matrix.rows().filter(|role| matrix.cell(role, column) == Some(cell)).map(str::to_owned).collect()
            };
            self.routes.push(Route { allowed: having("yes"), denied: Some(having("")), ..route });
        }
        Ok(self)
    }

    /// Gives the requests of a route a body, without which the service does not get as far as doing what it is asked:
    /// `POST /orders`, `application/json`. The route must be in the profile already.
    ///
    /// # Errors
    /// If there is no such route, or the type is none.
    pub fn body(mut self, line: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| ConfigError::new("attack profile", format!("{line:?}"), problem);
        let content_type = HeaderValue::from_str(content_type).map_err(|_| refuse("has a body of no type"))?;
        if !self.named().any(|route| route.line() == line) {
            return Err(refuse("has a body and is no route of the profile: name the route first"));
        }
        self.bodies.insert(line.to_owned(), (content_type, body.into()));
        Ok(self)
    }

    /// Says how to be somebody of a role: with this token, or as this [`Caller`].
    pub fn role(mut self, role: &str, who: impl Into<Caller>) -> Self {
        self.people.insert(role.to_owned(), who.into());
        self
    }

    /// Adds a good API key, and the header field that it comes in. [`route_for_keys`](Self::route_for_keys) says what it is good
    /// for.
    pub fn api_key(mut self, header: &str, key: &str) -> Self {
        self.keys.push((header.to_owned(), key.to_owned()));
        self
    }

    /// Adds a thing of one tenant, somebody who may get it, and somebody of another tenant, or of none, who must not.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn other_tenant(
        self,
        line: &str,
        owner: impl Into<Caller>,
        stranger: impl Into<Caller>,
    ) -> Result<Self, ConfigError> {
        self.thing(line, Stranger::OfAnotherTenant, owner.into(), stranger.into())
    }

    /// Adds a thing of one person, who may get it, and somebody of the same tenant and with the same roles, who has things like
    /// it and must not get this one. Name one for each line whose answer depends on whose the thing is, those that change it too.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn other_owner(
        self,
        line: &str,
        owner: impl Into<Caller>,
        stranger: impl Into<Caller>,
    ) -> Result<Self, ConfigError> {
        self.thing(line, Stranger::WithThingsOfTheirOwn, owner.into(), stranger.into())
    }

    fn thing(mut self, line: &str, from: Stranger, owner: Caller, stranger: Caller) -> Result<Self, ConfigError> {
        self.things.push(Thing { exists: Route::parse(line)?, from, owner, stranger });
        Ok(self)
    }

    /// Adds a thing that exists and one that does not, somebody who may see the first, and somebody who may see neither,
    /// nor which is which.
    ///
    /// # Errors
    /// As [`public`](Self::public).
    pub fn hidden(
        self,
        exists: &str,
        missing: &str,
        owner: impl Into<Caller>,
        stranger: impl Into<Caller>,
    ) -> Result<Self, ConfigError> {
        let from = Stranger::WhoKnowsNothing(Route::parse(missing)?);
        self.thing(exists, from, owner.into(), stranger.into())
    }

    /// Says after how many requests at once a client address is refused, so that the limit is attacked as well.
    pub const fn limit(mut self, requests: u32) -> Self {
        self.limit = Some(requests);
        self
    }

    /// Says that a token is good for one request alone, so that replay is attacked as well.
    pub const fn one_time(mut self) -> Self {
        self.one_time = true;
        self
    }

    /// Says which host the requests are for, with a port if it is another than that of the scheme: `api.example.com`. They have
    /// no `Host` otherwise, and a service that answers for certain [hosts](crate::tls::TlsLayer::hosts) alone refuses all. Over
    /// the network it is that of the URL.
    ///
    /// # Errors
    /// If it is no host.
    pub fn host(mut self, host: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::new("attack profile", format!("{host:?}"), "must be a host, or host:port");
        let is_host = host.parse::<Authority>().is_ok_and(|parsed| {
            let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
            !parsed.host().is_empty() && format!("{}{port}", parsed.host()) == host
        });
        let value = HeaderValue::from_str(host).ok().filter(|_| is_host);
        self.host = Some(value.ok_or_else(refuse)?);
        Ok(self)
    }

    /// Says of which origin the pages are that cause requests of [browsers](Caller::by_browser), `https://app.example.com`: their
    /// requests say it in `Origin`. Otherwise they say `Sec-Fetch-Site: same-origin`, and a service that only looks at `Origin`
    /// refuses them.
    ///
    /// # Errors
    /// If it is no origin: a scheme and a host, with a port if it is another than that of the scheme.
    pub fn origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        let refuse = || {
            ConfigError::new("attack profile", format!("{origin:?}"), "must be an origin: https://host, without a path")
        };
        let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
            matches!(scheme, "https" | "http") && host.parse::<Authority>().is_ok_and(|parsed| parsed.as_str() == host)
        });
        let value = HeaderValue::from_str(origin).ok().filter(|_| is_origin && !origin.contains('@'));
        self.origin = Some(value.ok_or_else(refuse)?);
        Ok(self)
    }

    /// Adds a text that no refusal may show, such as the name of an internal host.
    pub fn secret(mut self, text: &str) -> Self {
        self.secrets.push(text.to_owned());
        self
    }
}

/// Without keys, secrets and bodies.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |routes: &mut dyn Iterator<Item = &Route>| routes.map(Route::line).collect::<Vec<_>>();
        f.debug_struct("Profile")
            .field("routes", &lines(&mut self.routes.iter()))
            .field("roles", &self.people.keys().collect::<Vec<_>>())
            .field("key_headers", &self.keys.iter().map(|(header, _)| header).collect::<Vec<_>>())
            .field("things", &lines(&mut self.things.iter().map(|thing| &thing.exists)))
            .field("limit", &self.limit)
            .field("one_time", &self.one_time)
            .field("host", &self.host)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_line() {
        for (line, path, is_one) in [
            ("/notes", "/notes", true),
            ("/notes", "/notes/1", false),
            ("/notes/{id}", "/notes/1", true),
            ("/notes/{id}", "/notes", false),
            ("/notes/{id}", "/notes/", false),
            ("/notes/{id}", "/notes/1/lines", false),
            ("/notes/{id}/lines", "/notes/1/lines", true),
            ("/files/{*rest}", "/files/a/b", true),
            ("/files/{*rest}", "/files", false),
        ] {
            assert_eq!(is_at(line, path), is_one, "{line} {path}");
        }
    }
}
