//! What is wrong with a document.

use std::{error::Error, fmt, sync::Arc};

use crate::error::ConfigError;

/// One thing that is wrong with a configuration, or may not be what was meant: where, and what to change.
///
/// Its `Display` is one line: `app.toml:12: issuers[0].audience: "" must not be empty`. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: Arc<str>,
    line: Option<usize>,
    field: String,
    value: String,
    advice: String,
}

impl Problem {
    /// The file, or `configuration` for a text.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1; none for what is wrong with the file as a whole.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// The field, as in `issuers[0].audience`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The offending value, or a description of it where it may be secret.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is wrong with it, and what to change.
    #[must_use]
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {} {}", self.field, self.value, self.advice)
    }
}

/// All that is wrong with a configuration, at least one [`Problem`], by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl Error for Problems {}

/// Where the document comes from.
#[derive(Clone)]
pub(super) struct Sheet {
    pub(super) file: Arc<str>,
    pub(super) text: Arc<str>,
    /// Whether `file` is one.
    pub(super) is_file: bool,
}

/// Without the text, in which a secret may stand in the wrong place.
impl fmt::Debug for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sheet").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Gathers what is wrong.
#[derive(Debug)]
pub(super) struct Report<'a> {
    sheet: &'a Sheet,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// What was taken out.
    taken: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) const fn new(sheet: &'a Sheet) -> Self {
        Self { sheet, problems: Vec::new(), warnings: Vec::new(), taken: Vec::new() }
    }

    pub(super) const fn sheet(&self) -> &'a Sheet {
        self.sheet
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes that this field was taken out: what is missing beside it may be what was meant.
    pub(super) fn take_out(&mut self, field: String) {
        self.taken.push(field);
    }

    /// Whether this field, or something in it, was taken out: what is left of it is not what was meant.
    pub(super) fn took_from(&self, field: &str) -> bool {
        self.taken.iter().any(|taken| is_within(taken, field) || is_within(field, taken))
    }

    /// The name of an item as the document has it: what was taken out of the list counts.
    pub(super) fn item(&self, list: &str, index: usize) -> String {
        let inside = |taken: &String| -> Option<usize> {
            taken.strip_prefix(list)?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
        };
        let mut taken: Vec<usize> = self.taken.iter().filter_map(inside).collect();
        taken.sort_unstable();
        let index = taken.into_iter().fold(index, |index, taken| if taken <= index { index + 1 } else { index });
        format!("{list}[{index}]")
    }

    /// Notes that a field is not there.
    pub(super) fn missing(&mut self, at: usize, field: String, advice: String) {
        let beside = |taken: &String| {
            taken.rfind('.').and_then(|dot| taken.get(..=dot)).is_some_and(|table| field.starts_with(table))
        };
        if !self.taken.iter().any(beside) {
            self.add(at, field, "nothing", advice);
        }
    }

    /// Notes that the value of `field`, which stands at this byte, cannot be.
    pub(super) fn add(
        &mut self,
        at: impl Into<Option<usize>>,
        field: impl Into<String>,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let problem = self.problem(at.into(), [field.into(), value.into(), advice.into()]);
        self.problems.push(problem);
    }

    /// Notes that `field`, which stands at this byte, may not be what was meant; nothing is refused for it.
    pub(super) fn warn(
        &mut self,
        at: impl Into<Option<usize>>,
        field: impl Into<String>,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let warning = self.problem(at.into(), [field.into(), value.into(), advice.into()]);
        self.warnings.push(warning);
    }

    fn problem(&self, at: Option<usize>, texts: [String; 3]) -> Problem {
        let line = at.and_then(|at| self.sheet.text.get(..at)).map(|before| before.matches('\n').count() + 1);
        let [field, value, advice] = texts.map(without_login);
        Problem { file: Arc::clone(&self.sheet.file), line, field, value, advice }
    }

    /// The value, or a note of why there is none.
    pub(super) fn take<T>(&mut self, at: usize, field: &str, made: Result<T, ConfigError>) -> Option<T> {
        made.map_err(|error| {
            let source = Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
            self.add(at, field, error.value(), format!("{}{source}", error.problem()));
        })
        .ok()
    }

    /// Notes that a file which is named here is not good: where in it, if the error does not say so, and why.
    pub(super) fn bad_file(&mut self, at: usize, field: &str, path: &str, line: &str, error: &ConfigError) {
        let cause = Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
        self.add(at, field, format!("{path:?}"), format!("is not good: {line}{error}{cause}"));
    }

    /// What may not be what was meant, by line.
    pub(super) fn warnings(&mut self) -> Vec<Problem> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.sort_by_key(|warning| warning.line);
        warnings
    }

    pub(super) fn finish(mut self) -> Result<(), Problems> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems.dedup();
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }
}

/// Whether a field is this one, or something in it.
fn is_within(field: &str, outer: &str) -> bool {
    field.strip_prefix(outer).is_some_and(|rest| matches!(rest.chars().next(), None | Some('.' | '[')))
}

/// An address may hold a password: it is not shown then.
fn without_login(text: String) -> String {
    match text.split_once("://") {
        Some((_, rest)) if rest.contains('@') => "an address with a login".to_owned(),
        _ => text,
    }
}
