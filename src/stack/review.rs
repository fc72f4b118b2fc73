//! What a reviewer asks of a stack: does every route have a rule, every rule a route, and who may use which.

use std::{collections::BTreeSet, fmt};

use http::Method;
use serde::Deserialize;

use crate::{
    error::ConfigError,
    guard::{Review, Rule, public},
    log,
    policy::{Decision, Matrix},
    principal::{Principal, PrincipalKind},
    stack::{
        Stack,
        table::{Line, RouteTable, split_line},
    },
};

/// The routes that an application has: what its router knows, to be held against the rules of a stack.
///
/// axum's router cannot list its routes. [`axum::Routes`](crate::axum::Routes) keeps the list while it builds the router;
/// otherwise write it down, or take it from the application's OpenAPI document.
///
/// ```
/// use portcullis::stack::RouteList;
///
/// let routes = RouteList::from_lines(["GET /health", "GET /orders", "DELETE /orders/{id}"])?;
/// assert_eq!(routes.lines().count(), 3);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RouteList {
    /// The method, none for all of them, and the template.
    routes: Vec<(Option<Method>, String)>,
}

impl RouteList {
    /// Takes lines as those of the stack's table: a method or `ANY`, and a path template.
    ///
    /// # Errors
    /// If a line is not of the form that [`StackBuilder::route`](crate::stack::StackBuilder::route) takes.
    pub fn from_lines<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Self, ConfigError> {
        let lines: Vec<String> = lines.into_iter().map(ToOwned::to_owned).collect();
        // The table finds what is wrong with them.
        RouteTable::new(lines.iter().map(|line| (line.clone(), public())).collect(), None)?;
        Ok(Self { routes: lines.iter().filter_map(|line| split_line(line)).collect() })
    }

    /// Takes the paths of an OpenAPI document (3.0, 3.1) in JSON, without the servers' prefixes.
    ///
    /// # Errors
    /// If it is no JSON object with `paths`, a path stands there by reference (`$ref`), so that its methods stand elsewhere, or is not
    /// of the form that a table takes.
    pub fn from_openapi(json: &str) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Api {
            paths: std::collections::BTreeMap<String, serde_json::Value>,
        }
        let api: Api = serde_json::from_str(json)
            .map_err(|error| ConfigError::new("openapi", "the document", "is not understood").caused_by(error))?;
        const METHODS: [&str; 6] = ["get", "put", "post", "delete", "options", "patch"];
        let mut lines = Vec::new();
        // Others are extensions, as they like.
        for (path, item) in api.paths.iter().filter(|(path, _)| !path.starts_with("x-")) {
            let refuse = |problem| Err(ConfigError::new("openapi", format!("{path:?}"), problem));
            let Some(item) = item.as_object() else { return refuse("must be an object of methods") };
            if item.contains_key("$ref") {
                return refuse("stands there by reference ($ref), and its methods elsewhere: write them here");
            }
            let methods = METHODS.iter().filter(|method| item.contains_key(**method));
            lines.extend(methods.map(|method| format!("{} {path}", method.to_ascii_uppercase())));
        }
        Self::from_lines(lines.iter().map(String::as_str))
    }

    /// The lines of both: of your own routes, and of a router that was finished elsewhere, such as that of `key_admin`.
    ///
    /// ```
    /// # #[cfg(feature = "api-key-admin")]
    /// # fn main() -> Result<(), portcullis::ConfigError> {
    /// use portcullis::{key_admin, stack::RouteList};
    ///
    /// let routes = RouteList::from_lines(["GET /orders"])?.and(key_admin::routes("/admin")?);
    /// assert_eq!(routes.lines().count(), 1 + key_admin::rules("/admin").len());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "api-key-admin"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.routes.iter().map(|(method, template)| line(method.as_ref(), template))
    }
}

fn line(method: Option<&Method>, template: &str) -> String {
    format!("{} {template}", method.map_or("ANY", Method::as_str))
}

/// What does not fit between the routes of an application and the rules of a stack; made by [`Stack::report`]. `Display` is
/// the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteReport {
    without_rule: Vec<String>,
    under_another: Vec<(String, String)>,
    without_route: Vec<String>,
}

impl RouteReport {
    /// Routes that no line of the table names: refused, or left to the fallback.
    #[must_use]
    pub fn routes_without_rule(&self) -> &[String] {
        &self.without_rule
    }

    /// Routes that fall under a line of another template, and that line: `GET /orders/new` under `GET /orders/{id}`.
    #[must_use]
    pub fn routes_under_another(&self) -> &[(String, String)] {
        &self.under_another
    }

    /// Lines of the table that no route stands for: a typo, or a route that is gone.
    #[must_use]
    pub fn rules_without_route(&self) -> &[String] {
        &self.without_route
    }

    /// Whether everything fits.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.without_rule.is_empty() && self.under_another.is_empty() && self.without_route.is_empty()
    }

    /// Writes it into the log, one warning a line: what a service does when it starts.
    pub fn log(&self) {
        self.to_string().lines().for_each(log::warn);
    }
}

impl fmt::Display for RouteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for route in &self.without_rule {
            writeln!(f, "a route without a rule: {route}")?;
        }
        for (route, rule) in &self.under_another {
            writeln!(f, "a route under the rule of another: {route}, under {rule}")?;
        }
        for rule in &self.without_route {
            writeln!(f, "a rule without a route: {rule}")?;
        }
        Ok(())
    }
}

/// Stands for the value of any parameter: no template has it as text.
const ANY_VALUE: &str = "portcullis~any";

/// A path that a template matches.
fn sample(template: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    // Braces that are doubled are text.
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(brace);
        path.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            path.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            path.push('}');
            rest = after;
        } else {
            path.push_str(ANY_VALUE);
            rest = from.split_once('}').map_or("", |(_, after)| after);
        }
    }
    path + rest
}

/// A template without the names of its parameters: two that differ in these alone are one.
fn shape(template: &str) -> (String, bool) {
    (sample(template), template.contains("/{*"))
}

impl Stack {
    /// Holds the rules of this stack against the routes of the application: what a service looks at when it starts, and a test
    /// demands to be [clean](RouteReport::is_clean).
    #[must_use]
    pub fn report(&self, routes: &RouteList) -> RouteReport {
        let table = self.table();
        let mut report = RouteReport::default();
        let mut used = BTreeSet::new();
        for (method, template) in &routes.routes {
            // A method that nobody names has the rule of `ANY`, and that alone.
            let any = Method::from_bytes(b"PORTCULLIS-ANY").unwrap_or(Method::GET);
            let found = table.find(method.as_ref().unwrap_or(&any), table.place(&sample(template)));
            let route = line(method.as_ref(), template);
            let (Some(matched), true) = (found.template, found.rule.is_some()) else {
                report.without_rule.push(route);
                if method.is_none() {
                    used.extend(lines_of(table, |line| shape(line.template) == shape(template)));
                }
                continue;
            };
            let of_it = |line: &Line<'_>| {
                *line.template == **matched
                    && (line.method.is_none() || method.is_none() || line.method == method.as_ref())
            };
            // The line of the method alone, if there is one: `ANY` is for the others.
            let lines = lines_of(table, of_it);
            let own = method.as_ref().map(|method| line(Some(method), matched));
            let governing = own.filter(|own| lines.contains(own)).map_or(lines, |own| vec![own]);
            if shape(matched) != shape(template)
                && let Some(rule) = governing.first()
            {
                report.under_another.push((route, rule.clone()));
            }
            used.extend(governing);
        }
        report.without_route = lines_of(table, |_| true).into_iter().filter(|line| !used.contains(line)).collect();
        report
    }

    /// Which role may use which route: a line for each role, a column for each line of the table, for the review that is due
    /// from time to time. Each role is looked at alone; what also depends on scopes, on permissions that a credential carries, on
    /// the request or the thing, also where the handler is left to ask whose the thing is, and what somebody else may yet pass in
    /// shadow mode, is `depends`. So is a policy that must wait, one whose [parts](crate::policy::PolicyBackend::parts) are more than
    /// roles, method and route, and on a line of `ANY` one that reads the method. A guard's own policy is asked in the place of the
    /// stack's.
    ///
    /// ```
    /// use portcullis::{
    ///     Challenge,
    ///     authn::{Outcome, authenticate_fn},
    ///     guard::require,
    ///     policy::Rbac,
    ///     stack::Stack,
    /// };
    ///
    /// let policy = Rbac::from_toml(
    ///     r#"
    ///     version = "1"
    ///     permissions = ["orders:read"]
    ///     roles.clerk = { grants = ["orders:read"] }
    ///     roles.guest = { grants = [] }
    ///     "#,
    /// )?;
    /// let read = policy.permission("orders:read")?;
    /// let stack = Stack::builder()
    ///     .dangerous_plain_http()
    ///     .authenticate(authenticate_fn(Challenge::new("Example", "orders")?, |_, _| Outcome::Absent))
    ///     .policy(policy.clone())
    ///     .route("GET /orders", require(read))
    ///     .build()?;
    /// let matrix = stack.matrix(policy.roles()).to_string();
    /// assert!(matrix.contains("clerk") && matrix.contains("yes"), "{matrix}");
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    #[must_use]
    pub fn matrix(&self, roles: impl IntoIterator<Item = impl Into<Box<str>>>) -> Matrix {
        let table = self.table();
        let open = lines_of(table, |line| line.rule.is_public());
        let mut matrix = Matrix::new("role", lines_of(table, |_| true)).with_public(open);
        for role in roles {
            let role: Box<str> = role.into();
            let subject =
                Principal::builder(PrincipalKind::User, "portcullis", "review", "review").roles([role.clone()]);
            let subject = subject.build();
            let cells = table.lines().map(|line| {
                let method = line.method.map(Method::as_str);
                cell(Review { subject: &subject, policy: self.policy(), method, template: line.template }.of(line.rule))
            });
            matrix.push(role.into(), cells.collect());
        }
        matrix
    }

    /// The rules of the table as reviewers read them: each line and its rule, and the fallback.
    #[must_use]
    pub fn rules(&self) -> Vec<(String, String)> {
        let table = self.table();
        let lines = table.lines().map(|line| (line.to_string(), line.rule.to_string()));
        lines.chain(table.fallback().map(|rule: &Rule| ("fallback".to_owned(), rule.to_string()))).collect()
    }
}

const fn cell(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "yes",
        Decision::Deny => "",
        Decision::CannotDecide => "depends",
    }
}

fn lines_of(table: &RouteTable, which: impl Fn(&Line<'_>) -> bool) -> Vec<String> {
    table.lines().filter(which).map(|line| line.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_matched_by_its_template() {
        for (template, path) in [
            ("/orders", "/orders"),
            ("/orders/{id}", "/orders/portcullis~any"),
            ("/a{b}/{*rest}", "/aportcullis~any/portcullis~any"),
            ("/{{x}}/{y}", "/{x}/portcullis~any"),
        ] {
            assert_eq!(sample(template), path);
            let mut router = matchit::Router::new();
            router.insert(template, ()).unwrap();
            assert!(router.at(path).is_ok(), "{template}");
        }
        assert_eq!(shape("/orders/{id}"), shape("/orders/{number}"));
        assert_ne!(shape("/orders/{id}"), shape("/orders/new"));
        assert_ne!(shape("/orders/{id}"), shape("/orders/{*rest}"));
    }

    #[test]
    fn lists_are_checked() {
        assert!(RouteList::from_lines(["GET /orders", "get /x"]).is_err());
        assert!(RouteList::from_lines(["GET /orders/{id}", "DELETE /orders/{number}"]).is_err());
        let api = r#"{"openapi": "3.1.0", "paths": {
            "/orders": {"get": {}, "post": {}, "parameters": [], "summary": "x"}, "/orders/{id}": {"delete": {}}
        }}"#;
        let lines: Vec<String> = RouteList::from_openapi(api).unwrap().lines().collect();
        assert_eq!(lines, ["GET /orders", "POST /orders", "DELETE /orders/{id}"]);
        for bad in
            ["", "{}", r#"{"paths": []}"#, r#"{"paths": {"orders": {"get": {}}}}"#, r#"{"paths": {"/orders": []}}"#]
        {
            assert!(RouteList::from_openapi(bad).is_err(), "{bad}");
        }
        let elsewhere = r##"{"paths": {"/orders": {"get": {}, "$ref": "#/components/pathItems/orders"}}}"##;
        let error = RouteList::from_openapi(elsewhere).unwrap_err().to_string();
        assert!(error.contains("\"/orders\"") && error.contains("$ref"), "{error}");
        let more = r#"{"paths": {"x-note": "ours", "/orders": {"get": {}}}}"#;
        assert_eq!(RouteList::from_openapi(more).unwrap().lines().count(), 1);
    }
}
