//! Reading whole, writing whole, and one writer at a time.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use crate::file::{self, WRITTEN_BY_ALL, folder, refuse_open};

/// The longest text that a key is added to: some 200 000 keys.
const MAX_LEN: usize = 64 << 20;
/// The longest text that is read, and that a change which adds no key may lead to: what is full can still be revoked.
const MAX_READ: usize = 2 * MAX_LEN;

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
    let most = u64::try_from(MAX_READ).unwrap_or(u64::MAX);
    Read::by_ref(&mut file).take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_READ {
        return Err(invalid(format!("has more than {MAX_READ} bytes")));
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
    let file = lock_file(target, &beside(target, "", ".lock")?)?;
    for _ in 0..LOCK_TRIES {
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(fs4::TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(fs4::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds its lock"))
}

/// The lock file, made if there is none.
fn lock_file(target: &Path, path: &Path) -> io::Result<File> {
    match owned(OpenOptions::new().create_new(true)).open(path) {
        Ok(file) => {
            leave_to_owner(&file, target).inspect_err(|_| drop(fs::remove_file(path)))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => owned(&mut OpenOptions::new()).open(path),
        Err(error) => Err(error),
    }
}

/// Gives a new file to who owns the one that it takes the place of, or stands beside: what another user writes, root for
/// example, must not take the keys away from the service. Who may not do that must not write.
#[cfg(unix)]
fn leave_to_owner(file: &File, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let owner = match fs::metadata(target) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if file.metadata()?.uid() == owner.uid() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid())).map_err(|error| {
        io::Error::new(error.kind(), format!("it belongs to user {}: make the change as that user", owner.uid()))
    })
}

/// Lets the group read that reads the file already: a service that has it from root, for example. Everybody else is left out, and so is
/// a group that the writer may not give a file to.
#[cfg(unix)]
fn leave_to_group(file: &File, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    const GROUP_READS: u32 = 0o040;
    let old = match fs::metadata(target) {
        Ok(old) if old.mode() & GROUP_READS != 0 => old,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if file.metadata()?.gid() != old.gid() {
        match fchown(file, None, Some(old.gid())) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            kept => kept?,
        }
    }
    file.set_permissions(fs::Permissions::from_mode(0o600 | GROUP_READS))
}

#[cfg(not(unix))]
fn leave_to_owner(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn leave_to_group(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

/// A text on the disk that is to take the place of a file.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    placed: bool,
}

/// Refuses a text that the next reader would refuse, and one key more where there are too many.
pub(super) fn must_have_room(text: &str, adds_a_key: bool) -> io::Result<()> {
    let most = if adds_a_key { MAX_LEN } else { MAX_READ };
    match text.len() {
        len if len > most => {
            let problem = format!("it would have {len} bytes, which is more than {most}");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, problem))
        }
        _ => Ok(()),
    }
}

/// Writes a text beside the file, for who owns that, down to the disk. Only who holds the lock may.
pub(super) fn stage(target: &Path, text: &str, _: &Lock) -> io::Result<Staged> {
    let path = beside(target, ".", ".tmp")?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // what a crash left
    }
    let mut file = owned(OpenOptions::new().create_new(true)).open(&path)?;
    let staged = Staged { path, placed: false };
    leave_to_owner(&file, target)?;
    leave_to_group(&file, target)?;
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

/// For reading and writing, by the owner alone.
fn owned(options: &mut OpenOptions) -> &mut OpenOptions {
    file::owned(options).read(true).write(true)
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
