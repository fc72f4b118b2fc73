//! The files of a policy, read together.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::error::ConfigError;

/// One file of a policy, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SourceText {
    /// The path, for errors.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// How often several files are read again before the next look has to do.
const MOST_READINGS: usize = 4;

/// The files of a policy, in the order in which they are read.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    limit: usize,
    /// Which of them they are called by.
    name: usize,
}

impl Files {
    /// `limit` bounds each file, in bytes.
    pub(crate) fn new(paths: impl IntoIterator<Item = impl AsRef<Path>>, limit: usize) -> Self {
        Self { paths: paths.into_iter().map(|path| path.as_ref().to_owned()).collect(), limit, name: 0 }
    }

    /// Calls them by the file at this place, in the place of the first.
    pub(crate) const fn called_by(mut self, place: usize) -> Self {
        self.name = place;
        self
    }

    /// Reads them whole: modification times are too coarse to tell two writes apart. Several that say something else than before are
    /// read until they say the same twice: half of the one version and half of the next is no policy that anybody wrote.
    pub(crate) fn read(&self, before: &[SourceText]) -> Result<Vec<SourceText>, ConfigError> {
        let texts = self.read_once()?;
        if texts.len() < 2 || texts == before {
            return Ok(texts);
        }
        settled(texts, || self.read_once())?
            .ok_or_else(|| ConfigError::new("policy files", self.name(), "and the others change while they are read"))
    }

    /// What they are called together.
    pub(crate) fn name(&self) -> String {
        self.paths.get(self.name).map_or_else(|| "policy".to_owned(), |path| path.display().to_string())
    }

    fn read_once(&self) -> Result<Vec<SourceText>, ConfigError> {
        self.paths.iter().map(|path| read_file("policy file", path, self.limit)).collect()
    }
}

/// What is read twice in a row; nothing if that does not come to pass.
fn settled<T: PartialEq>(
    mut last: T,
    mut read: impl FnMut() -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    for _ in 0..MOST_READINGS {
        let again = read()?;
        if again == last {
            return Ok(Some(again));
        }
        last = again;
    }
    Ok(None)
}

/// Reads a file of at most so many bytes. This blocks.
pub(crate) fn read_file(setting: &str, path: &Path, limit: usize) -> Result<SourceText, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |error: io::Error| ConfigError::new(setting, &name, "cannot be read").caused_by(error);
    // One byte more than is allowed, so that a file that is too long is refused and not cut off.
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(bound).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() > limit {
        return Err(ConfigError::new(setting, name, format!("has more than {limit} bytes")));
    }
    Ok(SourceText { name, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_change_while_they_are_read_are_read_until_they_rest() {
        let say = |number: u32| {
            Ok::<_, ConfigError>(vec![SourceText { name: "policy".to_owned(), text: number.to_string() }])
        };
        let reading = |most: u32| {
            let mut times = 1;
            let read = settled(say(1).unwrap(), || {
                times += 1;
                say(times.min(most))
            });
            (read.unwrap().map(|texts| texts[0].text.clone()), times)
        };
        assert_eq!(reading(1), (Some("1".to_owned()), 2));
        assert_eq!(reading(3), (Some("3".to_owned()), 4));
        assert_eq!(reading(u32::MAX), (None, 5), "left to the next look");
        let dir = tempfile::tempdir().unwrap();
        let paths = ["first", "second"].map(|name| dir.path().join(name));
        paths.iter().for_each(|path| std::fs::write(path, "1").unwrap());
        assert_eq!(Files::new(&paths, 8).read(&[]).unwrap().len(), 2);
    }
}
