//! What a store, its changes and its task have in common.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use super::{
    FileHealth, NAME,
    content::{Content, Draft, Outcome, Uses},
    disk::{self, Lock, Mark, Reading},
    document::{self, Format},
};
use crate::{
    api_key::{ChangeFeed, KeyChange},
    error::{ConfigError, StoreError, StoreErrorKind},
    file, log,
};

/// Why nobody looks at the file.
const BLIND: &str = "what others change is not seen: the runtime has no timer";

/// How often a change is made anew because somebody who takes no lock wrote meanwhile.
const TRIES: usize = 3;

#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    format: Format,
    content: ArcSwap<Content>,
    /// The turn of who changes the file. It is taken before the lock on the disk, which another process may hold for long, and that before
    /// `file`.
    writing: Mutex<()>,
    /// Held by who reads or writes the file, for that time alone.
    file: Mutex<Known>,
    pub(super) uses: Mutex<Uses>,
    pub(super) feed: ChangeFeed,
    cause: Mutex<Option<Arc<str>>>,
    loads: AtomicU64,
    failures: AtomicU64,
    pub(super) has_task: AtomicBool,
    /// Whether nobody will look at the file any more: the task cannot wait, and another one could not either.
    is_blind: AtomicBool,
    /// Dropped with the store, for the task.
    pub(super) alive: watch::Sender<()>,
}

/// What was seen of the file last.
#[derive(Debug)]
struct Known {
    mark: Option<Mark>,
    digest: [u8; 32],
    /// Whether to read it once more: the clock of a file system may be too coarse to tell two writes apart.
    again: bool,
}

/// Why a file is not accepted.
pub(super) struct Refused {
    kind: StoreErrorKind,
    error: ConfigError,
}

impl From<Refused> for ConfigError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl From<Refused> for StoreError {
    fn from(Refused { kind, error }: Refused) -> Self {
        Self::new(kind, NAME).about(error.to_string()).caused_by(error)
    }
}

impl Shared {
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, ConfigError> {
        let format = Format::of(path)?;
        let reading = disk::read(path).map_err(|error| unreadable(path, error).error)?;
        let draft = document::read(&reading.text, format, path)?;
        let known = Known { mark: Some(reading.mark), digest: sha256(&reading.text), again: true };
        Ok(Arc::new(Self {
            path: path.to_owned(),
            format,
            content: ArcSwap::from_pointee(draft.freeze(&Content::default())),
            writing: Mutex::default(),
            file: Mutex::new(known),
            uses: Mutex::default(),
            feed: ChangeFeed::new(),
            cause: Mutex::default(),
            loads: AtomicU64::new(1),
            failures: AtomicU64::new(0),
            has_task: AtomicBool::new(false),
            is_blind: AtomicBool::new(false),
            alive: watch::Sender::new(()),
        }))
    }

    /// Writes a file without keys, unless there is one.
    pub(super) fn create(path: &Path) -> Result<(), ConfigError> {
        let failed = |error: io::Error| unreadable(path, error).error;
        let text =
            document::write(&Content::default(), Format::of(path)?).map_err(|error| failed(io::Error::other(error)))?;
        let target = disk::target(path).map_err(failed)?;
        let lock = disk::lock(&target).map_err(failed)?;
        if Mark::of(&target).is_ok() {
            return Err(ConfigError::new("key file", path.display().to_string(), "exists already"));
        }
        disk::stage(&target, &text, &lock).and_then(|staged| staged.place(&target)).map_err(failed)?;
        file::sync_folder(&target).map_err(failed)
    }

    pub(super) fn content(&self) -> arc_swap::Guard<Arc<Content>> {
        self.content.load()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn health(&self) -> FileHealth {
        FileHealth {
            keys: self.content().len(),
            loads: self.loads.load(Relaxed),
            failures: self.failures.load(Relaxed),
            failing: self.lock(&self.cause).clone().or_else(|| self.is_blind.load(Relaxed).then(|| BLIND.into())),
        }
    }

    /// The task is gone: with its runtime, and the next look-up begins it again; or blind, for good.
    pub(super) fn unwatched(&self, is_blind: bool) {
        // Whoever looks at the file tells before this, or not at all.
        let _file = self.lock(&self.file);
        if is_blind {
            self.is_blind.store(true, Relaxed);
            log::error(&format!("key file: {}: {BLIND}", self.path.display()));
        }
        self.feed.publish(&KeyChange::Lost);
        self.has_task.store(is_blind, Relaxed);
    }

    fn tell(&self, change: &KeyChange) {
        self.feed.publish(change);
        if *change == KeyChange::Everything && self.is_blind.load(Relaxed) {
            self.feed.publish(&KeyChange::Lost);
        }
    }

    /// Looks whether the file has changed, and reads it then.
    pub(super) fn look(&self) {
        let mut known = self.lock(&self.file);
        // What fails is told by `load`.
        if known.again || Mark::of(&self.path).map_or(true, |mark| known.mark != Some(mark)) {
            let _ = self.load(&mut known);
        }
        // Nobody looked for a while, and now somebody does.
        let watched = self.has_task.load(Relaxed) && self.lock(&self.cause).is_none();
        if watched && self.feed.is_lost() {
            self.tell(&KeyChange::Everything);
        }
    }

    /// Writes last uses; if that fails, they wait for the next time.
    pub(super) fn try_flush(&self) {
        if let Err(error) = self.flush() {
            log::warn(&format!("key file: last uses are not written yet: {error}"));
        }
    }

    pub(super) fn reload(&self) -> Result<bool, StoreError> {
        Ok(self.load(&mut self.lock(&self.file))?)
    }

    /// Reads the file and takes it in if it is valid. Whether it was another one.
    fn load(&self, known: &mut Known) -> Result<bool, Refused> {
        let loaded = self.read(known);
        match &loaded {
            Ok(_) => self.well(),
            Err(refused) => self.failed(&refused.error),
        }
        loaded
    }

    fn read(&self, known: &mut Known) -> Result<bool, Refused> {
        let reading = disk::read(&self.path).map_err(|error| {
            known.mark = None;
            unreadable(&self.path, error)
        })?;
        let Reading { text, mark, still } = reading;
        known.again = known.mark != Some(mark) || !still;
        known.mark = Some(mark);
        let digest = sha256(&text);
        if digest == known.digest && self.lock(&self.cause).is_none() {
            return Ok(false);
        }
        let draft = document::read(&text, self.format, &self.path)
            .map_err(|error| Refused { kind: StoreErrorKind::Corrupt, error })?;
        let other = digest != known.digest;
        known.digest = digest;
        let older = self.content.load_full();
        let content = draft.freeze(&older);
        let changes = older.changes(&content);
        self.content.store(Arc::new(content));
        self.loads.fetch_add(1, Relaxed);
        changes.iter().for_each(|change| self.tell(change));
        Ok(other)
    }

    fn well(&self) {
        if self.lock(&self.cause).take().is_some() {
            log::warn(&format!("key file: {} is accepted again", self.path.display()));
            self.tell(&KeyChange::Everything);
        }
    }

    fn failed(&self, error: &ConfigError) {
        self.failures.fetch_add(1, Relaxed);
        let text: Arc<str> = error.to_string().into();
        let before = self.lock(&self.cause).replace(Arc::clone(&text));
        if before.as_deref() != Some(&*text) {
            log::error(&format!("key file: what was read before stays: {text}"));
        }
        if before.is_none() {
            self.feed.publish(&KeyChange::Lost);
        }
    }

    /// Makes a change: in the file, then for requests, then told.
    pub(super) fn change<T>(
        &self,
        make: impl Fn(&mut Draft) -> Result<Outcome<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let _turn = self.lock(&self.writing);
        let mut tries = 0;
        loop {
            tries += 1;
            let target = disk::target(&self.path).map_err(|error| self.unwritable(error))?;
            let lock = disk::lock(&target).map_err(|error| self.unwritable(error))?;
            let mut known = self.lock(&self.file);
            self.load(&mut known)?; // what another process wrote
            let older = self.content.load_full();
            let mut draft = Draft::of(&older);
            let uses = self.lock(&self.uses).clone();
            draft.note(&uses);
            let Outcome { value, modified, changes } = make(&mut draft)?;
            if !modified {
                return Ok(value);
            }
            let content = draft.freeze(&older);
            let adds_a_key = content.records().count() > older.records().count();
            let text = self.text(&content, adds_a_key)?;
            if self.write(&mut known, &target, &lock, &text)? {
                self.lock(&self.uses).written(&uses, &content);
                self.content.store(Arc::new(content));
                changes.iter().for_each(|change| self.tell(change));
                file::sync_folder(&target).map_err(|error| self.unwritable(error))?;
                return Ok(value);
            }
            if tries == TRIES {
                return Err(self.unwritable(io::Error::other("somebody else writes it all the time")));
            }
        }
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let uses = self.lock(&self.uses).clone();
        if uses.is_empty() { Ok(()) } else { self.change(|draft| Ok(draft.note(&uses))) }
    }

    fn text(&self, content: &Content, adds_a_key: bool) -> Result<String, StoreError> {
        let text = document::write(content, self.format).map_err(|error| self.unwritable(io::Error::other(error)))?;
        disk::must_have_room(&text, adds_a_key).map_err(|error| self.unwritable(error))?;
        Ok(text)
    }

    /// False, and nothing was written, if the file is not the one that was read.
    fn write(&self, known: &mut Known, target: &Path, lock: &Lock, text: &str) -> Result<bool, StoreError> {
        let failed = |error| self.unwritable(error);
        let staged = disk::stage(target, text, lock).map_err(failed)?;
        if Mark::of(target).ok() != known.mark {
            return Ok(false);
        }
        staged.place(target).map_err(failed)?;
        (known.mark, known.digest, known.again) = (Mark::of(target).ok(), sha256(text), true);
        Ok(true)
    }

    fn unwritable(&self, error: io::Error) -> StoreError {
        let what = format!("{} cannot be written: {error}", self.path.display());
        StoreError::new(StoreErrorKind::Unavailable, NAME).about(what).caused_by(error)
    }

    pub(super) fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(path: &Path, error: io::Error) -> Refused {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    let problem = format!("cannot be used: {error}");
    Refused { kind, error: ConfigError::new("key file", path.display().to_string(), problem).caused_by(error) }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digest = digest(&SHA256, text.as_bytes());
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digested)| *byte = *digested);
    bytes
}
