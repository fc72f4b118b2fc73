use std::{fmt, sync::Arc};

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Role};
use crate::{
    error::ConfigError,
    guard::predicate::{Predicate, Strength},
    head::RequestHead,
    principal::Principal,
};

/// What a request must meet: one condition, or several joined with [`all`], [`any`] and [`not`].
///
/// Every requirement needs an authenticated principal first; without one the answer is `401`, whatever it says. `Display`
/// writes it as reviewers and records read it: `all(permission orders:read, not(role intern))`.
#[derive(Clone, Debug)]
pub struct Requirement {
    node: Node,
}

impl Requirement {
    /// Demands all of a list that is put together at run time. Where the list is known, write [`all`].
    ///
    /// # Errors
    /// If the list is empty: it would pass everybody.
    pub fn all_of(requirements: impl IntoIterator<Item = Self>) -> Result<Self, ConfigError> {
        list("all_of", requirements).map(|nodes| Node::All(nodes).into())
    }

    /// Demands one of a list that is put together at run time. Where the list is known, write [`any`].
    ///
    /// # Errors
    /// If the list is empty: it would pass nobody, which is what [`deny`](crate::guard::deny) says.
    pub fn any_of(requirements: impl IntoIterator<Item = Self>) -> Result<Self, ConfigError> {
        list("any_of", requirements).map(|nodes| Node::Any(nodes).into())
    }

    pub(super) const fn node(&self) -> &Node {
        &self.node
    }
}

fn list(name: &str, requirements: impl IntoIterator<Item = Requirement>) -> Result<Box<[Node]>, ConfigError> {
    let nodes: Box<[Node]> = requirements.into_iter().map(|requirement| requirement.node).collect();
    if nodes.is_empty() {
        return Err(ConfigError::new(name, "[]", "must name at least one requirement"));
    }
    Ok(nodes)
}

/// The test of a [`check`].
pub(super) type Test = dyn Fn(&Principal, &RequestHead<'_>) -> bool + Send + Sync;

#[derive(Clone)]
pub(super) enum Node {
    Authenticated,
    #[cfg(feature = "rbac")]
    Permission(Permission),
    #[cfg(feature = "rbac")]
    Role(Role),
    RoleNamed(Arc<str>),
    Scope(Arc<str>),
    Policy(Arc<str>),
    Check(Arc<str>, Arc<Test>),
    Predicate(Predicate),
    Strength(Strength),
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
}

impl Node {
    pub(super) const fn is_combination(&self) -> bool {
        matches!(self, Self::All(_) | Self::Any(_) | Self::Not(_))
    }

    fn children(&self) -> &[Self] {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes,
            Self::Not(node) => std::slice::from_ref(&**node),
            Self::Authenticated | Self::RoleNamed(_) | Self::Scope(_) | Self::Policy(_) | Self::Check(..) => &[],
            Self::Predicate(_) | Self::Strength(_) => &[],
            #[cfg(feature = "rbac")]
            Self::Permission(_) | Self::Role(_) => &[],
        }
    }

    /// Whether it is a condition that may look at the thing of the guard.
    #[cfg(feature = "stack")]
    pub(super) const fn looks_at_thing(&self) -> bool {
        match self {
            Self::Policy(_) => true,
            Self::Predicate(predicate) => predicate.looks_at_thing(),
            #[cfg(feature = "rbac")]
            Self::Permission(_) | Self::Role(_) => true,
            Self::Authenticated | Self::RoleNamed(_) | Self::Scope(_) | Self::Check(..) | Self::Strength(_) => false,
            Self::All(_) | Self::Any(_) | Self::Not(_) => false,
        }
    }

    /// Shows every condition in it, from left to right.
    pub(super) fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Self)) {
        see(self);
        for node in self.children() {
            node.visit(see);
        }
    }

    /// The scopes to ask for. Of an `any`, those of the first alternative that is nothing but scopes, or else of the first
    /// that has some.
    pub(super) fn scopes<'a>(&'a self, into: &mut Vec<&'a str>) {
        match self {
            Self::Scope(scope) if into.contains(&&**scope) => {}
            Self::Scope(scope) => into.push(scope),
            Self::All(nodes) => nodes.iter().for_each(|node| node.scopes(into)),
            Self::Any(nodes) => {
                let sure = nodes.iter().find(|node| node.is_scopes_only());
                if let Some(node) = sure.or_else(|| nodes.iter().find(|node| node.has_scopes())) {
                    node.scopes(into);
                }
            }
            Self::Not(_) | Self::Authenticated | Self::RoleNamed(_) | Self::Policy(_) | Self::Check(..) => {}
            Self::Predicate(_) | Self::Strength(_) => {}
            #[cfg(feature = "rbac")]
            Self::Permission(_) | Self::Role(_) => {}
        }
    }

    /// The strengths to ask for: classes, and the shortest time since the person proved who they are. As with scopes, none
    /// that stand behind a `not`, and of an `any` those of the first alternative that has some.
    pub(super) fn strengths<'a>(&'a self, into: &mut Vec<&'a Strength>) {
        match self {
            Self::Strength(strength) => into.push(strength),
            Self::All(nodes) => nodes.iter().for_each(|node| node.strengths(into)),
            Self::Any(nodes) => {
                let before = into.len();
                for node in nodes {
                    node.strengths(into);
                    if into.len() > before {
                        return;
                    }
                }
            }
            Self::Not(_) | Self::Authenticated | Self::RoleNamed(_) | Self::Scope(_) | Self::Policy(_) => {}
            Self::Check(..) | Self::Predicate(_) => {}
            #[cfg(feature = "rbac")]
            Self::Permission(_) | Self::Role(_) => {}
        }
    }

    fn is_scopes_only(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().all(Self::is_scopes_only),
            other => matches!(other, Self::Scope(_)),
        }
    }

    fn has_scopes(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::has_scopes),
            other => matches!(other, Self::Scope(_)),
        }
    }
}

impl From<Node> for Requirement {
    fn from(node: Node) -> Self {
        Self { node }
    }
}

#[cfg(feature = "rbac")]
impl From<Permission> for Requirement {
    fn from(permission: Permission) -> Self {
        Node::Permission(permission).into()
    }
}

#[cfg(feature = "rbac")]
impl From<&Permission> for Requirement {
    fn from(permission: &Permission) -> Self {
        permission.clone().into()
    }
}

#[cfg(feature = "rbac")]
impl From<Role> for Requirement {
    fn from(role: Role) -> Self {
        Node::Role(role).into()
    }
}

#[cfg(feature = "rbac")]
impl From<&Role> for Requirement {
    fn from(role: &Role) -> Self {
        role.clone().into()
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.node, f)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Authenticated => return f.write_str("authenticated"),
            #[cfg(feature = "rbac")]
            Self::Permission(permission) if permission.passes_owners() => {
                return write!(f, "permission {} or its owners", permission.name());
            }
            #[cfg(feature = "rbac")]
            Self::Permission(permission) => return write!(f, "permission {}", permission.name()),
            #[cfg(feature = "rbac")]
            Self::Role(role) => return write!(f, "role {} or one that inherits it", role.name()),
            Self::RoleNamed(name) => return write!(f, "role {name}"),
            Self::Scope(scope) => return write!(f, "scope {scope}"),
            Self::Policy(action) => return write!(f, "policy {action}"),
            Self::Check(name, _) => return write!(f, "check {name}"),
            Self::Predicate(predicate) => return f.write_str(predicate.name()),
            Self::Strength(strength) => return f.write_str(strength.name()),
            Self::All(_) => "all(",
            Self::Any(_) => "any(",
            Self::Not(_) => "not(",
        };
        f.write_str(name)?;
        for (position, node) in self.children().iter().enumerate() {
            f.write_str(if position == 0 { "" } else { ", " })?;
            fmt::Display::fmt(node, f)?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Demands an identity, and nothing else.
#[must_use]
pub fn authenticated() -> Requirement {
    Node::Authenticated.into()
}

/// Demands that the credential carries a scope (RFC 6749 §3.3). A request that lacks only scopes is told which
/// (RFC 6750 §3.1).
///
/// # Errors
/// If it is not one scope token: 1 to 256 bytes of printable ASCII without space, `"` and `\`.
pub fn scope(scope: &str) -> Result<Requirement, ConfigError> {
    let token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    named("scope", scope, token, "must be one scope token (RFC 6749 §3.3) of 1 to 256 bytes")
        .map(Node::Scope)
        .map(Into::into)
}

/// Demands that the principal itself asserts a role of exactly this name. Nothing tells a typo; where there is an RBAC
/// policy, take [`Rbac::role`](crate::policy::Rbac::role), which is checked and knows the hierarchy.
///
/// # Errors
/// If the name is empty, longer than 256 bytes or has control characters.
pub fn role(name: &str) -> Result<Requirement, ConfigError> {
    named("role", name, printable, NAME).map(Node::RoleNamed).map(Into::into)
}

/// Asks the policy backend whether the principal may do this action. It may have to wait.
///
/// The backend is that of [`GuardLayer::with_policy`](crate::guard::GuardLayer::with_policy), or the one that a layer
/// outside set. Without any the request is refused with `500`.
///
/// # Errors
/// If the action is empty, longer than 256 bytes or has control characters.
pub fn policy(action: &str) -> Result<Requirement, ConfigError> {
    named("action", action, printable, NAME).map(Node::Policy).map(Into::into)
}

const NAME: &str = "must be 1 to 256 bytes without control characters";

fn printable(byte: u8) -> bool {
    !byte.is_ascii_control()
}

pub(super) fn named_printable(setting: &str, name: &str) -> Result<Arc<str>, ConfigError> {
    named(setting, name, printable, NAME)
}

fn named(setting: &str, name: &str, allowed: fn(u8) -> bool, problem: &str) -> Result<Arc<str>, ConfigError> {
    if name.is_empty() || name.len() > 256 || !name.bytes().all(allowed) {
        return Err(ConfigError::new(setting, format!("{name:?}"), problem));
    }
    Ok(name.into())
}

/// Demands that a test of your own passes. `name` is what records show.
///
/// The test must be quick and must not block: it runs on the request's way.
///
/// ```
/// use portcullis::guard::{check, require};
///
/// let over_http_2 = require(check("http_2", |_principal, head| head.version() == http::Version::HTTP_2));
/// # let _ = over_http_2;
/// ```
pub fn check<F>(name: &'static str, test: F) -> Requirement
where
    F: Fn(&Principal, &RequestHead<'_>) -> bool + Send + Sync + 'static,
{
    Node::Check(name.into(), Arc::new(test)).into()
}

/// Demands all of these: a tuple of two to eight requirements. A denial outweighs one that cannot decide.
#[must_use]
pub fn all(requirements: impl Requirements) -> Requirement {
    Node::All(requirements.nodes().0).into()
}

/// Demands one of these: a tuple of two to eight requirements. One that cannot decide outweighs denials.
#[must_use]
pub fn any(requirements: impl Requirements) -> Requirement {
    Node::Any(requirements.nodes().0).into()
}

/// Demands that this is denied. What cannot be decided stays so, a [firm](crate::policy::Verdict::firm) denial stays a denial, and
/// nobody passes without an identity.
#[must_use]
pub fn not(requirement: impl Into<Requirement>) -> Requirement {
    Node::Not(Box::new(requirement.into().node)).into()
}

/// Requirements to join: a tuple of two to eight, so that none can be empty. For lists that are put together at run time
/// there are [`Requirement::all_of`] and [`Requirement::any_of`].
pub trait Requirements {
    #[doc(hidden)]
    fn nodes(self) -> Nodes;
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Nodes(Box<[Node]>);

macro_rules! requirements {
    ($($type:ident $field:tt),*) => {
        impl<$($type: Into<Requirement>),*> Requirements for ($($type,)*) {
            fn nodes(self) -> Nodes {
                Nodes(Box::new([$(self.$field.into().node),*]))
            }
        }
    };
}

requirements!(A 0, B 1);
requirements!(A 0, B 1, C 2);
requirements!(A 0, B 1, C 2, D 3);
requirements!(A 0, B 1, C 2, D 3, E 4);
requirements!(A 0, B 1, C 2, D 3, E 4, F 5);
requirements!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
requirements!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (name, bad) in [("empty", ""), ("two", "a b"), ("quote", "a\"b"), ("backslash", "a\\b"), ("umlaut", "ä")] {
            assert!(scope(bad).is_err(), "{name}");
        }
        assert!(scope(&"a".repeat(257)).is_err() && scope(&"a".repeat(256)).is_ok());
        assert!(role("").is_err() && role("a\nb").is_err() && role("two words").is_ok());
        assert!(policy("").is_err() && policy("orders:read").is_ok());
        assert!(Requirement::all_of([]).is_err() && Requirement::any_of([]).is_err());
    }

    #[test]
    fn what_a_reviewer_reads() {
        let requirement = all((
            scope("a").unwrap(),
            any((role("clerk").unwrap(), not(check("weekend", |_, _| false)))),
            policy("orders:read").unwrap(),
        ));
        assert_eq!(requirement.to_string(), "all(scope a, any(role clerk, not(check weekend)), policy orders:read)");
    }

    #[test]
    fn the_scopes_to_ask_for() {
        let named = |name| scope(name).unwrap();
        for (name, requirement, expected) in [
            ("one", named("a"), "a"),
            ("all", all((named("a"), named("b"), named("a"))), "a b"),
            ("the first alternative", any((authenticated(), named("a"), named("b"))), "a"),
            ("an alternative that suffices", any((all((named("a"), authenticated())), named("b"))), "b"),
            ("none that suffices", any((authenticated(), all((named("a"), authenticated())))), "a"),
            ("alternatives inside", all((named("a"), any((all((named("b"), named("a"))), named("c"))))), "a b"),
            ("not one that is forbidden", all((named("a"), not(named("b")))), "a"),
            ("none", authenticated(), ""),
        ] {
            let mut scopes = Vec::new();
            requirement.node().scopes(&mut scopes);
            assert_eq!(scopes.join(" "), expected, "{name}");
        }
    }
}
