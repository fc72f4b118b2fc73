//! Which store a text means. A store of yours is one arm more.

use std::{path::Path, sync::Arc};

use portcullis::api_key::{ApiKeyAdmin, MemoryKeyStore, RecordFields};

use crate::Failure;

/// The forms that [`open`] knows.
pub(crate) const HELP: &str = "Where the keys are: memory:FILE, records as JSON, one a line, to try things out";

pub(crate) async fn open(store: &str) -> Result<Arc<dyn ApiKeyAdmin>, Failure> {
    match store.split_once(':') {
        Some(("memory", file)) => memory(Path::new(file)),
        // Not shown: it may be an address with a password in it.
        _ => Err(Failure::Usage(format!("no such kind of store. {HELP}"))),
    }
}

/// What is changed in it is gone when the command ends.
fn memory(file: &Path) -> Result<Arc<dyn ApiKeyAdmin>, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Failure::Store(format!("{shown}: {error}")))?;
    let store = MemoryKeyStore::new();
    for (number, line) in text.lines().enumerate() {
        let at = |problem: String| Failure::Store(format!("{shown}, line {}: {problem}", number + 1));
        let fields: RecordFields = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
        let record = fields.check().map_err(|error| at(error.to_string()))?;
        store.add(record).map_err(|error| at(error.to_string()))?;
    }
    Ok(Arc::new(store))
}
