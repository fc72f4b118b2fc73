//! The file that lines are written to: opened anew when it is renamed away, rotated, kept for a while.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

#[cfg(feature = "audit-chain")]
use crate::audit::json_lines::rotated::rotated_files;
use crate::{
    audit::json_lines::{
        Rotation,
        clock_watch::ClockWatch,
        lock::{is_elsewhere, is_removed},
        rotated::{last_line, modified, name_after_all, past_their_time, period},
        target::Target,
    },
    clock::{Clock, Instants, SystemClock},
    error::ConfigError,
    file, log,
};

/// Where the file is, if its path is a symbolic link: files that are rotated lie beside it, and the link stays.
fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A file by its path.
pub(super) struct TargetFile {
    path: PathBuf,
    file: File,
    len: u64,
    rotation: Rotation,
    syncs: bool,
    torn: u64,
    /// In which period of [`Rotation::every`] it was begun.
    period: u64,
    /// Up to where the disk has room.
    allocated: u64,
    /// Whether somebody else was seen to write to it, or to cut it.
    has_others: bool,
    /// Whether nobody else may write to it, nor to those that follow it.
    is_claimed: bool,
    /// Why no file can be begun, while the one that is open has no name any more: what is written to it is gone.
    removed: Option<io::Error>,
    clock: ClockWatch,
    failed: log::Seldom,
}

impl TargetFile {
    pub(super) fn open(path: PathBuf, rotation: Rotation, syncs: bool) -> Result<Self, ConfigError> {
        Self::open_as(path, rotation, syncs, false)
    }

    /// As [`open`](Self::open), for one writer alone.
    #[cfg(feature = "audit-chain")]
    pub(super) fn claim(path: PathBuf, rotation: Rotation, syncs: bool) -> Result<Self, ConfigError> {
        let target = Self::open_as(path, rotation, syncs, true)?;
        let before = rotated_files(&followed(&target.path)).ok().and_then(|mut files| files.pop());
        if before.is_some_and(|before| super::lock::is_claimed(&before)) {
            return Err(refusal(
                &target.path,
                io::Error::new(io::ErrorKind::ResourceBusy, "the file before it is locked"),
            ));
        }
        Ok(target)
    }

    fn open_as(path: PathBuf, rotation: Rotation, syncs: bool, is_claimed: bool) -> Result<Self, ConfigError> {
        let refuse = |problem: &str, error: io::Error| {
            ConfigError::new("audit file", path.display().to_string(), problem).caused_by(error)
        };
        let file = append_to(&path, is_claimed, OpenOptions::new()).map_err(|error| refusal(&path, error))?;
        let metadata = file.metadata().map_err(|error| refuse("cannot be examined", error))?;
        let rotates = rotation.size.is_some() || rotation.every.is_some();
        if !metadata.is_file() && (syncs || rotates) {
            let problem = "is no regular file, which alone can be forced to the disk and rotated";
            return Err(ConfigError::new("audit file", path.display().to_string(), problem));
        }
        let len = if metadata.is_file() { metadata.len() } else { 0 };
        if syncs {
            file::sync_folder(&followed(&path))
                .map_err(|error| refuse("is in a folder that cannot be forced to the disk", error))?;
        }
        // What cannot be read, a pipe for example, is not torn.
        let torn = if len > 0 { torn_bytes(&path).unwrap_or(0) } else { 0 };
        let now = SystemClock.now();
        let written = if len > 0 { modified(&metadata) } else { None };
        let began = written.map_or(now.unix_nanos(), |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let period = period(rotation.every, began);
        let mut clock = ClockWatch::new(now);
        // Also where nothing is in the file yet, because it was just begun.
        let last_line = rotation.keep_for.and_then(|_| written.or_else(|| last_line(&followed(&path))));
        if let Some(last_line) = last_line {
            clock = clock.continuing(last_line);
        }
        Ok(Self {
            path,
            file,
            len,
            rotation,
            syncs,
            torn,
            period,
            allocated: 0,
            has_others: false,
            is_claimed,
            removed: None,
            clock,
            failed: log::Seldom::new(),
        })
    }

    /// Whether the path leads to another file by now, or to none. Where nobody can tell, the file itself says whether it has a
    /// name.
    fn is_gone(&self) -> bool {
        is_elsewhere(&self.path, &self.file) || is_removed(&self.file)
    }

    fn is_due(&self, now: Instants, coming: usize) -> bool {
        let coming = u64::try_from(coming).unwrap_or(u64::MAX);
        let too_large = self.rotation.size.is_some_and(|size| self.len.saturating_add(coming) > size);
        let period = period(self.rotation.every, now.unix_nanos());
        // Of the period before, it may be a clock that is a little behind; of one long before, it was ahead and is right by now.
        self.len > 0 && (too_large || period > self.period || period.saturating_add(1) < self.period)
    }

    fn rotate(&mut self, now: Instants) -> io::Result<()> {
        self.close()?;
        let path = followed(&self.path);
        let name = name_after_all(&path, now)?;
        fs::rename(path, name)
    }

    /// Gives back the room that was kept and not needed, and forces the rest to the disk.
    fn close(&mut self) -> io::Result<()> {
        self.give_room_back()?;
        if self.syncs { self.file.sync_all() } else { Ok(()) }
    }

    /// Only who has the file alone may: else what others write meanwhile would be cut off. What stays is room, and no bytes.
    fn give_room_back(&mut self) -> io::Result<()> {
        if self.allocated <= self.len || self.has_others || !(self.is_claimed || share(&self.file)) {
            return Ok(());
        }
        let is_own = (self.is_claimed || is_alone(&self.file)) && self.file.metadata()?.len() == self.len;
        let given = if is_own { self.file.set_len(self.len) } else { Ok(()) };
        self.allocated = if is_own { 0 } else { self.allocated };
        // It is written on where no other can be begun.
        if !self.is_claimed {
            share(&self.file);
        }
        given
    }

    fn begin(&mut self, now: Instants) -> io::Result<()> {
        let was_file = self.file.metadata()?.is_file();
        let mut options = OpenOptions::new();
        if was_file {
            never_waiting(&mut options);
        }
        let file = append_to(&self.path, self.is_claimed, options)?;
        let metadata = file.metadata()?;
        if was_file && !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is there now is no regular file"));
        }
        // Before it is the one: on an error the one before is written on, and this one is begun by whoever comes next.
        if self.syncs {
            file::sync_folder(&followed(&self.path))?;
        }
        self.len = if metadata.is_file() { metadata.len() } else { 0 };
        // Somebody else may have begun it.
        self.torn = if self.len > 0 { torn_bytes(&self.path).unwrap_or(0) } else { 0 };
        (self.file, self.allocated, self.has_others) = (file, 0, false);
        self.period = period(self.rotation.every, now.unix_nanos());
        Ok(())
    }

    /// Removes rotated files that are too many or too old.
    fn clean_up(&self, now: Instants) -> io::Result<()> {
        let Rotation { keep_files, keep_for, .. } = self.rotation;
        let keep_for = keep_for.filter(|_| self.clock.ages_count(now));
        let past_their_time = past_their_time(&followed(&self.path), keep_files, keep_for, now)?;
        past_their_time.iter().try_for_each(fs::remove_file)
    }
}

impl Target for TargetFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = &self.removed {
            return Err(io::Error::new(
                error.kind(),
                format!("the file was removed, and no other can be begun: {error}"),
            ));
        }
        let count = self.file.write(bytes)?;
        self.len = self.len.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn prepare(&mut self, now: Instants, coming: usize) -> bool {
        if self.rotation.keep_for.is_some() {
            self.clock.look(now);
        }
        let prepared = if self.is_gone() {
            self.close().and_then(|()| self.begin(now)).map(|()| true)
        } else if self.is_due(now, coming) {
            self.rotate(now).and_then(|()| self.begin(now)).map(|()| {
                if let Err(error) = self.clean_up(now) {
                    log::warn(&format!("an old audit file cannot be removed: {error}"));
                }
                true
            })
        } else {
            Ok(false)
        };
        self.removed = None;
        prepared.unwrap_or_else(|error| {
            let path = self.path.display();
            if is_removed(&self.file) {
                self.failed.error(now, &format!("audit file {path} was removed, and no other can be begun: {error}"));
                self.removed = Some(error);
            } else {
                let text = format!("audit file {path} cannot be begun anew, the old one is written on: {error}");
                self.failed.error(now, &text);
            }
            false
        })
    }

    fn torn(&self) -> u64 {
        self.torn
    }

    #[cfg(feature = "audit-chain")]
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let before = rotated_files(&followed(&self.path))?.pop();
        Ok(before.into_iter().chain([self.path.clone()]).collect())
    }

    #[cfg(target_os = "linux")]
    fn keep_room(&mut self, bytes: u64) -> Option<bool> {
        /// So much more at once, so that the file is not in many pieces.
        const STEP: u64 = 1 << 20;
        let metadata = self.file.metadata().ok()?;
        if metadata.is_file() && metadata.len() != self.len {
            // Who cut it took the room as well.
            self.allocated = if metadata.len() < self.len { 0 } else { self.allocated };
            (self.len, self.has_others) = (metadata.len(), true);
        }
        let end = self.len.saturating_add(bytes);
        if end <= self.allocated {
            return Some(true);
        }
        let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
        for end in [end.saturating_add(STEP), end] {
            match rustix::fs::fallocate(&self.file, flags, self.len, end.saturating_sub(self.len)) {
                Ok(()) => {
                    self.allocated = end;
                    return Some(true);
                }
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODEV | rustix::io::Errno::SPIPE) => return None,
                Err(_) => {}
            }
        }
        Some(false)
    }
}

impl Drop for TargetFile {
    fn drop(&mut self) {
        let _ = self.give_room_back();
    }
}

/// A pipe without a reader is an error then, and stops nobody.
fn never_waiting(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let _ = options;
}

fn append_to(path: &Path, is_claimed: bool, mut options: OpenOptions) -> io::Result<File> {
    let file = file::owned(options.append(true).create(true)).open(path)?;
    #[cfg(feature = "audit-chain")]
    if is_claimed {
        super::lock::claim(path, &file)?;
        return Ok(file);
    }
    let _ = is_claimed;
    share(&file);
    Ok(file)
}

fn refusal(path: &Path, error: io::Error) -> ConfigError {
    let problem = match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "is written by another process, and a chain has one writer: wait for its end, or give each a file of its own"
        }
        _ => "cannot be opened for appending",
    };
    ConfigError::new("audit file", path.display().to_string(), problem).caused_by(error)
}

/// Tells those who would give room back that somebody writes to it (`flock`: nobody else needs to care). False where that cannot
/// be told, as over a network, and then nobody knows whether they have it alone.
#[cfg(target_os = "linux")]
fn share(file: &File) -> bool {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
}

/// Whether nobody else told so, and until [`share`] is called nobody will.
#[cfg(target_os = "linux")]
fn is_alone(file: &File) -> bool {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Elsewhere no room is kept that could be given back.
#[cfg(not(target_os = "linux"))]
const fn share(_: &File) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
const fn is_alone(_: &File) -> bool {
    false
}

/// The bytes after the last line feed.
fn torn_bytes(path: &Path) -> io::Result<u64> {
    let tail = tail(path)?;
    let torn = tail.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
    Ok(u64::try_from(torn).unwrap_or(u64::MAX))
}

/// The end of a file that is long enough for some lines.
fn tail(path: &Path) -> io::Result<Vec<u8>> {
    const TAIL: u64 = 64 << 10;
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Vec::new());
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_end_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        for (text, torn) in [("", 0), ("a\n", 0), ("a\nbc\n", 0), ("a\nbc", 2), ("abc", 3)] {
            fs::write(&path, text).unwrap();
            assert_eq!(torn_bytes(&path).unwrap(), torn, "{text:?}");
        }
    }
}
