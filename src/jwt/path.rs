//! Where a claim stands among others.

use crate::error::ConfigError;

/// The way to a claim: the name of a member, or several names that lead into objects one after the other. At most
/// eight names.
///
/// One string is one name, whatever characters it has; an array is a way inwards. So a name with dots or a URL needs no
/// quoting, and nothing has to be split:
///
/// ```
/// use portcullis::jwt::ClaimPath;
///
/// let own_name = ClaimPath::from("https://example.com/roles"); // {"https://example.com/roles": [..]}
/// let nested = ClaimPath::from(["realm_access", "roles"]);     // {"realm_access": {"roles": [..]}}
/// let dotted = ClaimPath::from("realm_access.roles");          // {"realm_access.roles": [..]}
/// assert_ne!(nested, dotted);
/// # let _ = own_name;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    names: Vec<String>,
}

impl ClaimPath {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The name, if it is one at the top level.
    pub(super) fn top_level(&self) -> Option<&str> {
        match self.names.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }
}

impl From<&str> for ClaimPath {
    fn from(name: &str) -> Self {
        Self { names: vec![name.to_owned()] }
    }
}

impl From<String> for ClaimPath {
    fn from(name: String) -> Self {
        Self { names: vec![name] }
    }
}

impl<const N: usize> From<[&str; N]> for ClaimPath {
    fn from(names: [&str; N]) -> Self {
        Self { names: names.into_iter().map(str::to_owned).collect() }
    }
}

impl From<Vec<String>> for ClaimPath {
    fn from(names: Vec<String>) -> Self {
        Self { names }
    }
}

/// The most names of a path; far inside the depth that a token may have.
const MAX_NAMES: usize = 8;

/// The claims that any profile of an authenticator maps. Each has a place, a number.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    branches: Branches,
    count: usize,
    events: bool,
}

/// The place of `scope`, which is always read.
pub(super) const SCOPE: usize = 0;

/// Claims that are read under their registered meaning; a profile cannot map one as something else.
const REGISTERED: [&str; 18] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "azp",
    "client_id",
    "acr",
    "amr",
    "auth_time",
    "cnf",
    "nonce",
    "at_hash",
    "c_hash",
    "events",
    "token_introspection",
];

impl Mapped {
    pub(super) fn new() -> Self {
        let scope = Branch { name: "scope".into(), place: Some(SCOPE), below: Branches::default() };
        Self { branches: Branches(vec![scope]), count: 1, events: false }
    }

    /// Takes tokens that tell of an event, a logout for one, which nobody else must take for a token of theirs.
    pub(super) const fn taking_events(mut self) -> Self {
        self.events = true;
        self
    }

    pub(super) const fn takes_events(&self) -> bool {
        self.events
    }

    /// The place of the claim, a new one if nobody mapped it before.
    pub(super) fn place_of(&mut self, path: &ClaimPath) -> Result<usize, ConfigError> {
        let refuse = |problem| Err(ConfigError::new("mapped JWT claim", format!("{:?}", path.names), problem));
        match path.names() {
            [] => return refuse("has no name"),
            names if names.len() > MAX_NAMES => return refuse("has more than eight names"),
            names if names.iter().any(String::is_empty) => return refuse("has an empty name"),
            [first, ..] if REGISTERED.contains(&first.as_str()) => return refuse("has a meaning of its own"),
            [..] => {}
        }
        let mut branches = &mut self.branches;
        let mut place = None;
        for name in path.names() {
            let at = match branches.0.iter().position(|branch| *branch.name == **name) {
                Some(at) => at,
                None => {
                    branches.0.push(Branch { name: name.as_str().into(), place: None, below: Branches::default() });
                    branches.0.len().saturating_sub(1)
                }
            };
            let Some(branch) = branches.0.get_mut(at) else { break };
            place = Some(&mut branch.place);
            branches = &mut branch.below;
        }
        let Some(place) = place else { return refuse("has no name") };
        Ok(*place.get_or_insert_with(|| {
            self.count = self.count.saturating_add(1);
            self.count.saturating_sub(1)
        }))
    }

    pub(super) const fn branches(&self) -> &Branches {
        &self.branches
    }
}

/// The members of one object that lead to mapped claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Branches(Vec<Branch>);

impl Branches {
    /// Few names: comparing them one by one is faster than hashing.
    pub(super) fn find(&self, name: &str) -> Option<&Branch> {
        self.0.iter().find(|branch| *branch.name == *name)
    }
}

/// A member that is mapped, has mapped claims inside, or both.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    name: Box<str>,
    place: Option<usize>,
    below: Branches,
}

impl Branch {
    pub(super) const fn place(&self) -> Option<usize> {
        self.place
    }

    pub(super) const fn below(&self) -> &Branches {
        &self.below
    }

    /// Whether nothing inside it is mapped.
    pub(super) fn is_leaf(&self) -> bool {
        self.below.0.is_empty()
    }

    /// All places inside, this one apart.
    pub(super) fn for_each_below(&self, see: &mut impl FnMut(usize)) {
        for branch in &self.below.0 {
            if let Some(place) = branch.place {
                see(place);
            }
            branch.for_each_below(see);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_place() {
        let mut mapped = Mapped::new();
        let rows: [(ClaimPath, usize); 7] = [
            ("scope".into(), SCOPE),
            ("roles".into(), 1),
            (["realm_access", "roles"].into(), 2),
            ("realm_access.roles".into(), 3),
            (["realm_access", "roles"].into(), 2),
            ("realm_access".into(), 4),
            (["roles"].into(), 1),
        ];
        for (path, place) in rows {
            assert_eq!(mapped.place_of(&path).ok(), Some(place), "{path:?}");
        }
        for path in [
            ClaimPath::from(""),
            Vec::new().into(),
            ["a", ""].into(),
            "aud".into(),
            ["cnf", "jkt"].into(),
            ["a"; MAX_NAMES + 1].into(),
        ] {
            assert!(mapped.place_of(&path).is_err(), "{path:?}");
        }
        assert!(mapped.place_of(&["a"; MAX_NAMES].into()).is_ok());
    }
}
