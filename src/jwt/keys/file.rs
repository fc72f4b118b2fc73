use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::Mutex};

use super::origin::{Fetched, JwkSource, nonsense, unavailable};
use crate::error::StoreError;

/// A JWK Set in a file. It is read whole each time: modification times are too coarse to tell two writes apart.
#[derive(Debug)]
pub(super) struct JwksFile {
    path: PathBuf,
    name: String,
    limit: usize,
    /// Held by whoever reads. Where the disk hangs, one thread hangs with it, and not one more for each try.
    reading: Arc<Mutex<()>>,
}

impl JwksFile {
    pub(super) fn new(path: &Path, limit: usize) -> Self {
        Self { path: path.to_owned(), name: path.display().to_string(), limit, reading: Arc::default() }
    }
}

#[async_trait]
impl JwkSource for JwksFile {
    fn name(&self) -> &str {
        &self.name
    }

    async fn fetch(&self, _: Option<&str>) -> Result<Fetched, StoreError> {
        let Ok(reading) = Arc::clone(&self.reading).try_lock_owned() else {
            return Err(unavailable(format!("{} is still being read since an earlier try", self.name)));
        };
        let (path, limit) = (self.path.clone(), self.limit);
        let read = move || {
            let _reading = reading;
            read(&path, limit)
        };
        let text = match Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(read).await.map_err(unavailable)?,
            Err(_) => read(),
        };
        match text {
            Ok(Some(text)) => Ok(Fetched::set(text)),
            Ok(None) => Err(nonsense(format!("{} has more than {limit} bytes", self.name))),
            Err(error) => Err(unavailable(format!("{} cannot be read: {error}", self.name))),
        }
    }
}

/// The text, unless it is longer than the limit.
fn read(path: &Path, limit: usize) -> io::Result<Option<String>> {
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
