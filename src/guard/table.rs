//! Rules of routes as a table in TOML.

mod written;

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

#[cfg(feature = "config")]
use serde::Deserialize;
#[cfg(feature = "config")]
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use self::written::{Conditions, Document, Written, WrittenAttribute, WrittenResource, WrittenThing};
#[cfg(feature = "rbac")]
use crate::policy::Rbac;
use crate::{
    error::ConfigError,
    guard::{
        Requirement, ResourceSource, Rule, acr, amr, attribute, authenticated, authenticated_within, deny, during,
        factors, from_head, from_path, network, not, owner, policy, public, require, role, same_tenant, scope,
    },
    policy::{read_file, toml_to_json},
    shadow::ShadowMode,
};

/// The longest document, in bytes.
const MAX_DOCUMENT_LEN: usize = 4 * 1024 * 1024;

/// The rules of routes, from a table in TOML: what a stack's [`routes`](crate::stack::StackBuilder::routes) takes.
///
/// ```
/// use portcullis::{guard::{RouteRules, RuleNames}, policy::Rbac};
///
/// let rbac = Rbac::from_toml("version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['*']")?;
/// let rules = RouteRules::from_toml(r#"
///     [routes]
///     "GET /health" = "public"
///     "GET /orders/{id}" = { permission = "orders:read", resource = { type = "order", id = "{id}" }, hide = true }
///     "DELETE /orders/{id}" = { all = [{ role = "clerk" }, { not = { network = ["192.0.2.0/24"] } }] }
/// "#, &RuleNames::new().rbac(&rbac))?;
/// assert_eq!(rules.lines().count(), 3);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// What the table does not name is refused, unless it has a `fallback`. The manual's page on the guard lists the conditions.
#[derive(Clone, Debug)]
pub struct RouteRules {
    lines: Vec<(String, Rule)>,
    /// Where in the text each line begins.
    #[cfg(feature = "config")]
    starts: Vec<usize>,
    fallback: Option<Rule>,
}

/// What the names in a table of rules stand for.
#[derive(Clone, Debug, Default)]
pub struct RuleNames {
    #[cfg(feature = "rbac")]
    rbac: Option<Rbac>,
    conditions: BTreeMap<String, Requirement>,
    resources: BTreeMap<String, ResourceSource>,
    /// Whether what is not named here may be named later: such a table is looked at for its other mistakes alone.
    #[cfg(feature = "config")]
    unfinished: bool,
}

impl RuleNames {
    /// No names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Permissions and roles are those of this policy. Without one, there are no permissions, and roles are compared by name.
    ///
    /// What a rule says of them is asked of this policy alone. A stack whose policy is another, or one that this is a part of,
    /// refuses such rules at build: write `policy = "orders:read"` there.
    #[cfg(feature = "rbac")]
    #[must_use]
    pub fn rbac(mut self, policy: &Rbac) -> Self {
        self.rbac = Some(policy.clone());
        self
    }

    /// Names a requirement of your own: `condition = "name"`.
    #[must_use]
    pub fn condition(mut self, name: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.conditions.insert(name.into(), requirement.into());
        self
    }

    /// Names a way of your own to find the thing: `resource = "name"`.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, source: ResourceSource) -> Self {
        self.resources.insert(name.into(), source);
        self
    }
}

#[cfg(feature = "config")]
impl RuleNames {
    /// Takes every name for one that will be told, so that all else that is wrong with a table can be. No rule that is read so may be
    /// asked.
    pub(crate) const fn unfinished(mut self) -> Self {
        self.unfinished = true;
        self
    }

    const fn is_unfinished(&self) -> bool {
        self.unfinished
    }
}

#[cfg(not(feature = "config"))]
impl RuleNames {
    const fn is_unfinished(&self) -> bool {
        let _ = self;
        false
    }
}

impl RouteRules {
    /// Reads a table.
    ///
    /// # Errors
    /// If it is not of its form, or names what there is not: the error has line, route and reason.
    pub fn from_toml(text: &str, names: &RuleNames) -> Result<Self, ConfigError> {
        read(None, text, names)
    }

    /// Reads a table from a file. This blocks: call it at start.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), with the file named; or if the file cannot be read.
    pub fn from_toml_file(path: impl AsRef<Path>, names: &RuleNames) -> Result<Self, ConfigError> {
        let source = read_file("rule file", path.as_ref(), MAX_DOCUMENT_LEN)?;
        read(Some(&source.name), &source.text, names)
    }

    /// The lines of the table, with their rules as reviewers read them.
    pub fn lines(&self) -> impl Iterator<Item = (&str, String)> {
        self.lines.iter().map(|(line, rule)| (line.as_str(), rule.to_string()))
    }

    /// Of these lines, each with where it begins, in that order.
    fn of(mut lines: Vec<(usize, String, Rule)>, fallback: Option<Rule>) -> Self {
        lines.sort_by_key(|(start, ..)| *start);
        Self {
            #[cfg(feature = "config")]
            starts: lines.iter().map(|(start, ..)| *start).collect(),
            lines: lines.into_iter().map(|(_, line, rule)| (line, rule)).collect(),
            fallback,
        }
    }

    #[cfg(feature = "stack")]
    pub(crate) fn into_parts(self) -> (Vec<(String, Rule)>, Option<Rule>) {
        (self.lines, self.fallback)
    }
}

fn read(file: Option<&str>, text: &str, names: &RuleNames) -> Result<RouteRules, ConfigError> {
    let place = |start: Option<usize>, setting: &str| {
        let before = start.and_then(|start| text.get(..start));
        let line = before.map_or(String::new(), |before| format!("line {}: ", before.matches('\n').count() + 1));
        format!("{}{line}{setting}", file.map_or(String::new(), |file| format!("{file}: ")))
    };
    if text.len() > MAX_DOCUMENT_LEN {
        let problem = format!("are too many: a table has at most {MAX_DOCUMENT_LEN}");
        return Err(ConfigError::new(place(None, "rules"), format!("{} bytes", text.len()), problem));
    }
    let document: Document = toml::from_str(text).map_err(|error| {
        let problem = format!("is not a table of rules: {}", error.message().trim_end());
        ConfigError::new(place(error.span().map(|span| span.start), "rules"), "TOML", problem)
    })?;
    let mut lines: Vec<(usize, String, Rule)> = Vec::new();
    for (line, written) in &document.routes {
        let start = line.span().start;
        let rule = names.rule(written).map_err(|error| {
            let problem = format!("has a rule that is not good: {error}");
            ConfigError::new(place(Some(start), "routes"), format!("{:?}", line.get_ref()), problem)
        })?;
        lines.push((start, line.get_ref().clone(), rule));
    }
    let fallback = match &document.fallback {
        None => None,
        Some(written) => Some(names.rule(written.get_ref()).map_err(|error| {
            ConfigError::new(place(Some(written.span().start), "fallback"), "the rule", format!("is not good: {error}"))
        })?),
    };
    Ok(RouteRules::of(lines, fallback))
}

#[cfg(feature = "config")]
impl RouteRules {
    /// Reads a table from a file, and gives its text as well.
    pub(crate) fn with_text(path: &str, names: &RuleNames) -> Result<(Self, String), ConfigError> {
        let source = read_file("rule file", path.as_ref(), MAX_DOCUMENT_LEN)?;
        Ok((read(Some(&source.name), &source.text, names)?, source.text))
    }

    /// The lines with their rules, and where in the text each begins.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (usize, &str, &Rule)> {
        self.starts.iter().zip(&self.lines).map(|(start, (line, rule))| (*start, line.as_str(), rule))
    }

    pub(crate) const fn fallback(&self) -> Option<&Rule> {
        self.fallback.as_ref()
    }

    /// Reads the table out of a longer document: the lines that are good, and each mistake with the byte that it stands at.
    pub(crate) fn among(text: &str, names: &RuleNames) -> (Self, Vec<(usize, ConfigError)>) {
        let (mut lines, mut mistakes) = (Vec::new(), Vec::new());
        let document = match DeTable::parse(text) {
            Ok(document) => document.into_inner(),
            Err(error) => {
                let problem = format!("are not TOML: {}", error.message().trim_end());
                let start = error.span().map_or(0, |span| span.start);
                return (Self::of(lines, None), vec![(start, ConfigError::new("routes", "the rules", problem))]);
            }
        };
        // Each rule by itself: one that cannot be read hides no other.
        let read = |written: &Spanned<DeValue<'_>>| {
            let read = Written::deserialize(ValueDeserializer::from(written.clone()));
            let written = read.map_err(|error| {
                let problem = format!("has a rule that is not good: {}", error.message().trim_end());
                (error.span().map(|span| span.start), problem)
            })?;
            names.rule(&written).map_err(|error| (None, format!("has a rule that is not good: {error}")))
        };
        match document.get("routes").map(Spanned::get_ref) {
            Some(DeValue::Table(routes)) => {
                for (line, written) in routes {
                    let start = line.span().start;
                    match read(written) {
                        Ok(rule) => lines.push((start, line.get_ref().to_string(), rule)),
                        Err((at, problem)) => {
                            let error = ConfigError::new("routes", format!("{:?}", line.get_ref()), problem);
                            mistakes.push((at.unwrap_or(start), error));
                        }
                    }
                }
            }
            Some(_) => {
                let start = document.get("routes").map_or(0, |routes| routes.span().start);
                mistakes.push((start, ConfigError::new("routes", "the rules", "must be a table of lines and rules")));
            }
            None => {}
        }
        let fallback = document.get("fallback").and_then(|written| match read(written) {
            Ok(rule) => Some(rule),
            Err((at, problem)) => {
                let error = ConfigError::new("fallback", "the rule", problem);
                mistakes.push((at.unwrap_or_else(|| written.span().start), error));
                None
            }
        });
        (Self::of(lines, fallback), mistakes)
    }
}

fn refuse(setting: &str, value: impl fmt::Debug, problem: &str) -> ConfigError {
    ConfigError::new(setting, format!("{value:?}"), problem)
}

impl RuleNames {
    fn rule(&self, written: &Written) -> Result<Rule, ConfigError> {
        let table = match written {
            Written::Word(word) if word == "public" => return Ok(public()),
            Written::Word(word) if word == "deny" => return Ok(deny()),
            Written::Word(_) => return self.requirement(written).map(|requirement| require(requirement).into()),
            Written::Table(table) => table,
        };
        let hides = table.hide == Some(true);
        if table.require.as_deref() == Some("deny") {
            let more = table.resource.is_some() || table.fulfilling.is_some() || table.shadow_until.is_some();
            if table.conditions().count() > 1 || more {
                return Err(refuse("require", "deny", "stands beside a condition, which it would make moot"));
            }
            return Ok(if hides { deny().hide() } else { deny() });
        }
        let mut guard = require(self.of_table(table)?);
        if let Some(resource) = &table.resource {
            guard = guard.on(self.source(resource)?);
        }
        if let Some(fulfilled) = &table.fulfilling {
            guard = guard.fulfilling(fulfilled.iter().map(String::as_str));
        }
        if let Some(day) = &table.shadow_until {
            guard = guard.shadow(ShadowMode::until(day)?);
        }
        Ok(if hides { guard.hide() } else { guard }.into())
    }

    fn source(&self, written: &WrittenResource) -> Result<ResourceSource, ConfigError> {
        match written {
            WrittenResource::Named(name) => match self.resources.get(name) {
                Some(source) => Ok(source.clone()),
                None if self.is_unfinished() => Ok(from_head("named later", |_, _| None)),
                None => Err(refuse("resource", name, "is not named by the application")),
            },
            WrittenResource::Path(WrittenThing { r#type, id, tenant }) => {
                let source = from_path(r#type, id)?;
                tenant.as_deref().map_or(Ok(source.clone()), |tenant| source.in_tenant(tenant))
            }
        }
    }

    /// A condition inside a rule.
    fn requirement(&self, written: &Written) -> Result<Requirement, ConfigError> {
        match written {
            Written::Word(word) => word_of(word),
            Written::Table(table) => {
                let of_rule = table.resource.is_some() || table.fulfilling.is_some();
                if of_rule || table.hide.is_some() || table.shadow_until.is_some() {
                    let problem = "stands inside a condition, and belongs to the whole rule";
                    return Err(refuse("resource, hide, fulfilling or shadow_until", "a condition", problem));
                }
                self.of_table(table)
            }
        }
    }

    fn of_table(&self, table: &Conditions) -> Result<Requirement, ConfigError> {
        let named: Vec<&str> = table.conditions().collect();
        let [_one] = named.as_slice() else {
            let problem = "must have exactly one condition: join several with all or any";
            return Err(refuse("condition", named, problem));
        };
        let several =
            |parts: &[Written]| parts.iter().map(|part| self.requirement(part)).collect::<Result<Vec<_>, _>>();
        if let Some(name) = &table.permission {
            return self.permission(name, false);
        }
        if let Some(name) = &table.permission_or_owner {
            return self.permission(name, true);
        }
        if let Some(name) = &table.role {
            return self.role(name);
        }
        if let Some(name) = &table.condition {
            return match self.conditions.get(name) {
                Some(requirement) => Ok(requirement.clone()),
                None if self.is_unfinished() => told_later(),
                None => Err(refuse("condition", name, "is not named by the application")),
            };
        }
        if let Some(parts) = &table.all {
            return Requirement::all_of(several(parts)?);
        }
        if let Some(parts) = &table.any {
            return Requirement::any_of(several(parts)?);
        }
        if let Some(part) = &table.not {
            return self.requirement(part).map(not);
        }
        of_circumstances(table)
    }

    #[cfg(feature = "rbac")]
    fn permission(&self, name: &str, owners: bool) -> Result<Requirement, ConfigError> {
        let rbac = match &self.rbac {
            Some(rbac) => rbac,
            None if self.is_unfinished() => return if owners { Ok(owner()) } else { told_later() },
            None => return Err(refuse("permission", name, "needs a role policy: RuleNames::rbac")),
        };
        let permission = rbac.permission(name)?;
        Ok(if owners { permission.allow_owners() } else { permission }.into())
    }

    #[cfg(not(feature = "rbac"))]
    fn permission(&self, name: &str, _: bool) -> Result<Requirement, ConfigError> {
        let _ = self;
        Err(refuse("permission", name, "needs a role policy: the feature rbac is off"))
    }

    fn role(&self, name: &str) -> Result<Requirement, ConfigError> {
        #[cfg(feature = "rbac")]
        if let Some(rbac) = &self.rbac {
            return rbac.role(name).map(Into::into);
        }
        if self.is_unfinished() { told_later() } else { role(name) }
    }
}

/// Stands for what has no name yet: it may be about a thing, and need not.
fn told_later() -> Result<Requirement, ConfigError> {
    policy("told later")
}

fn word_of(word: &str) -> Result<Requirement, ConfigError> {
    match word {
        "authenticated" => Ok(authenticated()),
        "owner" => Ok(owner()),
        "same_tenant" => Ok(same_tenant()),
        _ => Err(refuse(
            "rule",
            word,
            "is none of authenticated, owner and same_tenant, nor public or deny as a whole rule",
        )),
    }
}

/// The conditions that name nothing of the application's.
fn of_circumstances(table: &Conditions) -> Result<Requirement, ConfigError> {
    if let Some(word) = &table.require {
        return word_of(word);
    }
    if let Some(name) = &table.scope {
        return scope(name);
    }
    if let Some(action) = &table.policy {
        return policy(action);
    }
    if let Some(WrittenAttribute { name, value }) = &table.attribute {
        let value = toml_to_json(value).map_err(|problem| refuse("attribute", name, &problem))?;
        return attribute(name, value);
    }
    if let Some(networks) = &table.network {
        return network(networks.iter().map(String::as_str));
    }
    if let Some(hours) = &table.hours {
        return hours.read().map(during);
    }
    if let Some(classes) = &table.acr {
        return acr(classes.iter().map(String::as_str));
    }
    if let Some(method) = &table.amr {
        return amr(method);
    }
    if let Some(count) = table.factors {
        return factors(count);
    }
    match table.authenticated_within {
        Some(seconds) => Ok(authenticated_within(Duration::from_secs(seconds))),
        None => Err(refuse("condition", "none", "must be one")),
    }
}
