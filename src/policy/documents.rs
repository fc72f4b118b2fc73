//! What a policy is made of: several documents, each of a kind of its own, from files or given as texts.

use std::path::PathBuf;

use crate::{
    error::ConfigError,
    policy::{
        files::{Files, SourceText},
        live::{Live, Versioned},
    },
};

/// The most that one document may have.
pub(super) const MAX_DOCUMENT_LEN: usize = 16 * 1024 * 1024;

/// Documents, in the order in which they were named.
pub(super) struct Documents<K>(Vec<(K, Origin)>);

#[derive(Clone)]
enum Origin {
    File(PathBuf),
    Text(SourceText),
}

impl<K: Copy + PartialEq + Send + Sync + 'static> Documents<K> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add_file(&mut self, kind: K, path: PathBuf) {
        self.0.push((kind, Origin::File(path)));
    }

    pub(super) fn add_text(&mut self, kind: K, name: String, text: String) {
        self.0.push((kind, Origin::Text(SourceText { name, text })));
    }

    /// Compiles them, and again whenever one of the files says something else. They are called by the first file of the kind `main`, in
    /// whatever order they were named. This blocks.
    pub(super) fn live<T: Versioned>(
        self,
        main: K,
        compile: impl Fn(&[(K, SourceText)]) -> Result<T, ConfigError> + Send + Sync + 'static,
    ) -> Result<Live<T>, ConfigError> {
        let paths: Vec<&PathBuf> = self.0.iter().filter_map(|(_, origin)| origin.path()).collect();
        if paths.is_empty() {
            return Ok(Live::new(compile(&self.with_files(&[])?)?));
        }
        let mut kinds = self.0.iter().filter(|(_, origin)| origin.path().is_some()).map(|(kind, _)| *kind);
        let called_by = kinds.position(|kind| kind == main).unwrap_or_default();
        let files = Files::new(paths, MAX_DOCUMENT_LEN).called_by(called_by);
        Live::from_files(files, move |texts| compile(&self.with_files(texts)?))
    }

    fn with_files(&self, texts: &[SourceText]) -> Result<Vec<(K, SourceText)>, ConfigError> {
        let mut read = texts.iter();
        let each = self.0.iter().map(|(kind, origin)| {
            let text = match origin {
                Origin::Text(text) => Some(text),
                Origin::File(_) => read.next(),
            };
            let missing = || ConfigError::new("policy file", texts.len().to_string(), "files were read, too few");
            Ok((*kind, text.cloned().ok_or_else(missing)?))
        });
        each.collect()
    }
}

impl Origin {
    const fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }
}

/// A version for documents that name none: it tells two of them apart, and proves nothing (FNV-1a, 64 bits).
pub(super) fn fingerprint<'a>(texts: impl Iterator<Item = &'a SourceText>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        // What no text has in UTF-8 separates them.
        for byte in text.text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

/// The line of a position in a text, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SourceText {
        SourceText { name: "n".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_fingerprint_tells_texts_apart() {
        assert_eq!(fingerprint([].iter()), "cbf29ce484222325");
        let of = |texts: &[&str]| fingerprint(texts.iter().map(|each| text(each)).collect::<Vec<_>>().iter());
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["a"]), of(&["a"]));
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\n", 0), 1);
        assert_eq!(line_of("a\nb\n", 2), 2);
        assert_eq!(line_of("a\nb\n", 99), 3);
    }
}
