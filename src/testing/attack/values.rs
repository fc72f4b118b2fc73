use crate::{error::ConfigError, policy::Matrix};

/// What stands in place of the parameters when a [profile](super::Profile::matrix) asks for the lines of a matrix, and which of
/// these it leaves out. An array of names and values will do where every line takes the same ones.
///
/// ```
/// use portcullis::testing::attack::PathValues;
///
/// let values = PathValues::new([("id", "1")])
///     .at("DELETE /orders/{id}", [("id", "3")]) // deletes what no other line asks for
///     .without(["POST /admin/log-out-everywhere"]); // would end the tokens of the profile
/// # let _ = values;
/// ```
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct PathValues {
    everywhere: Vec<(String, String)>,
    by_line: Vec<(String, Vec<(String, String)>)>,
    without: Vec<String>,
}

fn owned<'v>(values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Vec<(String, String)> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl<const N: usize> From<&[(&str, &str); N]> for PathValues {
    fn from(values: &[(&str, &str); N]) -> Self {
        Self::new(values.iter().copied())
    }
}

impl PathValues {
    /// Values that every line takes, each with the name of its parameter: `("id", "1")` for `{id}` and `{*id}`.
    pub fn new<'v>(values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        Self { everywhere: owned(values), ..Self::default() }
    }

    /// Values for one line, as the matrix has it: `DELETE /orders/{id}`. What it does not name it takes from [`new`](Self::new).
    pub fn at<'v>(mut self, line: &str, values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        self.by_line.push((line.to_owned(), owned(values)));
        self
    }

    /// Leaves these lines out, as the matrix has them: nothing is asked for there, and nothing is proved of them.
    pub fn without<L: AsRef<str>>(mut self, lines: impl IntoIterator<Item = L>) -> Self {
        self.without.extend(lines.into_iter().map(|line| line.as_ref().to_owned()));
        self
    }

    /// Whether each line that is named is there, and each parameter of it.
    pub(super) fn check(&self, matrix: &Matrix) -> Result<(), ConfigError> {
        let refuse = |what: String, problem: &str| ConfigError::new("attack profile", what, problem);
        let named = self.by_line.iter().map(|(line, _)| line).chain(&self.without);
        if let Some(line) = named.into_iter().find(|line| !matrix.columns().contains(line)) {
            return Err(refuse(
                format!("{line:?}"),
                "is no line of the matrix: write it as the stack has it, with {parameters}",
            ));
        }
        let mut by_line = self.by_line.iter().flat_map(|(line, values)| values.iter().map(move |value| (line, value)));
        match by_line.find(|(line, (name, _))| !takes(line, name)) {
            Some((line, (name, _))) => Err(refuse(format!("{name:?} at {line:?}"), "is no parameter of the line")),
            None => Ok(()),
        }
    }

    pub(super) fn leaves_out(&self, line: &str) -> bool {
        self.without.iter().any(|left_out| left_out == line)
    }

    /// The line with the values in it.
    pub(super) fn fill(&self, line: &str) -> String {
        let own = self.by_line.iter().filter(|(named, _)| named == line).flat_map(|(_, values)| values);
        own.chain(&self.everywhere).fold(line.to_owned(), |line, (name, value)| {
            line.replace(&format!("{{{name}}}"), value).replace(&format!("{{*{name}}}"), value)
        })
    }
}

fn takes(line: &str, name: &str) -> bool {
    line.contains(&format!("{{{name}}}")) || line.contains(&format!("{{*{name}}}"))
}
