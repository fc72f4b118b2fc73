use std::{borrow::Cow, fmt};

use serde_json::Value;

use crate::policy::Attributes;

/// Something that a verdict tells the application: a name, and parameters. As an obligation it binds, as advice it does not.
///
/// ```
/// use portcullis::policy::Directive;
///
/// let mask = Directive::new("mask").with("fields", vec!["email", "phone"]);
/// assert_eq!(mask.to_string(), r#"mask {"fields":["email","phone"]}"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    name: Cow<'static, str>,
    parameters: Attributes,
}

impl Directive {
    /// A directive without parameters. Its name is what the application declares to fulfil.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), parameters: Attributes::new() }
    }

    /// Adds a parameter. The value of a name that is there already is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.parameters.set(name.into(), value.into());
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters.
    #[must_use]
    pub const fn parameters(&self) -> &Attributes {
        &self.parameters
    }

    /// A parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Value> {
        self.parameters.get(name)
    }
}

impl From<&'static str> for Directive {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Directive {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for Directive {
    /// The name, and the parameters as JSON if there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.parameters.is_empty() {
            return Ok(());
        }
        write!(f, " {}", serde_json::to_string(&self.parameters).map_err(|_| fmt::Error)?)
    }
}
