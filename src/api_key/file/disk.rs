//! Reading whole, writing whole, and one writer at a time.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use crate::private_file::{WRITTEN_BY_ALL, refuse_open};

/// The largest file that is read: some 200 000 keys.
const MAX_LEN: u64 = 64 << 20;

/// How long a writer waits for another process.
const LOCK_TRIES: usize = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// By what a file is known to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    len: u64,
    modified: Option<SystemTime>,
    /// Device, inode and time of the last change of it, where there are such things.
    place: (u64, u64, i64, i64),
}

impl Mark {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Mark {
    fn from(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let place = (0, 0, 0, 0);
        Self { len: metadata.len(), modified: metadata.modified().ok(), place }
    }
}

/// A text, the mark of the file when it was read, and whether the file stood still meanwhile.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) text: String,
    pub(super) mark: Mark,
    pub(super) still: bool,
}

pub(super) fn read(path: &Path) -> io::Result<Reading> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Whoever may write the file may let anybody in.
    refuse_open(&metadata, WRITTEN_BY_ALL).map_err(invalid)?;
    let mark = Mark::from(&metadata);
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(MAX_LEN.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_LEN) {
        return Err(invalid(format!("has more than {MAX_LEN} bytes")));
    }
    let still = Mark::from(&file.metadata()?) == mark;
    let text = String::from_utf8(bytes).map_err(|_| invalid("is not UTF-8"))?;
    Ok(Reading { text, mark, still })
}

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// The file that a path leads to, through symbolic links: these stay, and what they lead to is replaced.
pub(super) fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(folder(path).canonicalize()?.join(name(path)?)),
        found => found,
    }
}

/// Held until dropped, or until the process ends: the system lets go of it then, so it is never stale.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Keeps other writers away, in this process and others. The lock is on a file beside, which stays: the file itself is
/// replaced by each write.
pub(super) fn lock(target: &Path) -> io::Result<Lock> {
    let file = owned(OpenOptions::new().create(true).truncate(false)).open(beside(target, "", ".lock")?)?;
    for _ in 0..LOCK_TRIES {
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(fs4::TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(fs4::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds its lock"))
}

/// A text on the disk that is to take the place of a file.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    placed: bool,
}

/// Writes a text beside the file, readable by the owner alone, down to the disk. Only who holds the lock may.
pub(super) fn stage(target: &Path, text: &str, _: &Lock) -> io::Result<Staged> {
    let path = beside(target, ".", ".tmp")?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // what a crash left
    }
    let mut file = owned(OpenOptions::new().create_new(true)).open(&path)?;
    let staged = Staged { path, placed: false };
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(staged)
}

impl Staged {
    /// Puts it in the file's place. Readers see the old text or the new one.
    pub(super) fn place(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes sure that a new name outlives a crash.
pub(super) fn sync_folder(target: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder(target))?.sync_all() } else { Ok(()) }
}

/// For reading and writing, by the owner alone.
fn owned(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.read(true).write(true)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| invalid("has no name"))
}

fn beside(target: &Path, before: &str, after: &str) -> io::Result<PathBuf> {
    let mut beside = OsString::from(before);
    beside.push(name(target)?);
    beside.push(after);
    Ok(folder(target).join(beside))
}
