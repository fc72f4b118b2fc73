use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use portcullis::{
    Instants,
    api_key::{
        ApiKeyRecord, ApiKeyStore, ChangeListener, FileKeyStore, KeyChange, KeyHash, KeyId, Lookup, Owner,
        RecordFields, Revocation,
    },
};
use tempfile::TempDir;

pub const NOW: u64 = 1_800_000_000;
pub const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
pub const FORMATS: [&str; 2] = ["toml", "json"];

pub fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 10])
}

pub fn owner() -> Owner {
    Owner::new("billing").unwrap()
}

pub fn fields(number: u8) -> RecordFields {
    RecordFields::new(id(number), KeyHash::from_bytes([number; 32]), "billing", NOW, None)
}

pub fn record(number: u8) -> ApiKeyRecord {
    fields(number).check().unwrap()
}

pub fn lookup(number: u8) -> Lookup {
    Lookup::new(id(number), AT)
}

pub fn leaked() -> Revocation {
    Revocation::new(NOW, "leaked").unwrap()
}

/// A folder with a file of keys.
pub struct Folder {
    folder: TempDir,
    format: &'static str,
}

impl Folder {
    pub fn new(format: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), format }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn path(&self) -> PathBuf {
        self.file(&format!("keys.{}", self.format))
    }

    pub fn create(&self) -> FileKeyStore {
        FileKeyStore::create(self.path()).unwrap()
    }

    pub fn open(&self) -> FileKeyStore {
        FileKeyStore::open(self.path()).unwrap()
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Writes in place, as a careless editor does.
    pub fn put(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }
}

/// What a store told.
pub struct Heard {
    changes: Arc<Mutex<Vec<KeyChange>>>,
    _listener: Arc<dyn ChangeListener>,
}

impl Heard {
    pub fn of(store: &FileKeyStore) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&changes);
        let listener: Arc<dyn ChangeListener> =
            Arc::new(move |change: &KeyChange| log.lock().unwrap().push(change.clone()));
        store.changes().unwrap().subscribe(Arc::downgrade(&listener));
        let heard = Self { changes, _listener: listener };
        assert_eq!(heard.take(), [KeyChange::Everything]);
        heard
    }

    pub fn len(&self) -> usize {
        self.changes.lock().unwrap().len()
    }

    pub fn take(&self) -> Vec<KeyChange> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

/// Lets seconds of the paused clock pass until the task has seen something. It misses those in which it is at the disk.
pub async fn looked(seen: impl Fn() -> bool) {
    for _ in 0..500 {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            if seen() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    }
    panic!("it was not seen");
}

/// Waits for what a thread does, for ten seconds of real time at most.
pub async fn until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1)); // the disk has no clock that could be paused
        tokio::task::yield_now().await;
    }
    panic!("it did not happen");
}
