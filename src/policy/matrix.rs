use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Who may do what, for review: a line for each role, a column for each permission or route.
///
/// `Display` is a table in Markdown; it serializes to JSON as an object of objects, role by column, with the empty cells left
/// out. A cell is `yes`, `own` (on the principal's own things), `denied` (whatever other roles grant), `depends` (on more than
/// the role: a scope, the request, the time), or empty.
///
/// Columns keep their order, so that two of them can be compared line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    what: &'static str,
    columns: Vec<String>,
    rows: Vec<(String, Vec<&'static str>)>,
    public: Vec<String>,
}

impl Matrix {
    pub(crate) const fn new(what: &'static str, columns: Vec<String>) -> Self {
        Self { what, columns, rows: Vec::new(), public: Vec::new() }
    }

    /// Says which columns are for everybody.
    #[cfg(feature = "stack")]
    pub(crate) fn with_public(mut self, columns: Vec<String>) -> Self {
        self.public = columns;
        self
    }

    pub(crate) fn push(&mut self, name: String, cells: Vec<&'static str>) {
        self.rows.push((name, cells));
    }

    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The names of the lines.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &str> {
        self.rows.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a column is for everybody, with a credential or without: a public line of a stack. Its cells are `yes`.
    #[must_use]
    pub fn is_public(&self, column: &str) -> bool {
        self.public.iter().any(|name| name == column)
    }

    /// What stands in a cell. `None` if there is no such line or column.
    #[must_use]
    pub fn cell(&self, row: &str, column: &str) -> Option<&'static str> {
        let column = self.columns.iter().position(|name| name == column)?;
        let (_, cells) = self.rows.iter().find(|(name, _)| name == row)?;
        cells.get(column).copied()
    }

    /// The JSON form, indented.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and maps of texts: nothing that cannot be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// The cells of a line that are not empty.
struct Row<'a>(&'a [String], &'a [&'static str]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, cell) in self.0.iter().zip(self.1).filter(|(_, cell)| !cell.is_empty()) {
            map.serialize_entry(column, cell)?;
        }
        map.end()
    }
}

impl Serialize for Matrix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for (name, cells) in &self.rows {
            map.serialize_entry(name, &Row(&self.columns, cells))?;
        }
        map.end()
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.rows.iter().map(|(name, _)| name.chars().count());
        let first = names.chain([self.what.len()]).max().unwrap_or_default();
        let widths: Vec<usize> = self.columns.iter().map(|column| column.chars().count().max(7)).collect();
        write!(f, "| {:first$} |", self.what)?;
        for (column, width) in self.columns.iter().zip(&widths) {
            write!(f, " {column:width$} |")?;
        }
        write!(f, "\n|{:-<1$}|", "", first.saturating_add(2))?;
        for width in &widths {
            write!(f, "{:-<1$}|", "", width.saturating_add(2))?;
        }
        writeln!(f)?;
        for (name, cells) in &self.rows {
            write!(f, "| {name:first$} |")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, " {cell:width$} |")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_and_the_json() {
        let mut matrix = Matrix::new("role", vec!["orders:read".to_owned(), "a".to_owned()]);
        matrix.push("clerk".to_owned(), vec!["own", ""]);
        matrix.push("superintendent".to_owned(), vec!["yes", "denied"]);
        let expected = "\
| role           | orders:read | a       |
|----------------|-------------|---------|
| clerk          | own         |         |
| superintendent | yes         | denied  |
";
        assert_eq!(matrix.to_string(), expected);
        let json: serde_json::Value = serde_json::from_str(&matrix.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "clerk": { "orders:read": "own" }, "superintendent": { "orders:read": "yes", "a": "denied" },
            })
        );
        assert_eq!(matrix.cell("clerk", "a"), Some(""));
        assert_eq!((matrix.cell("clerk", "b"), matrix.cell("boss", "a")), (None, None));
        assert!(matrix.rows().eq(["clerk", "superintendent"]) && matrix.columns().len() == 2);
    }
}
