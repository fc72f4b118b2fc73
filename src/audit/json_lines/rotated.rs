//! Files that were rotated: their names tell when, and in which order they follow each other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{audit::text::Time, clock::Instants, file};

/// In which period a moment is. All are in one where files are not rotated by time.
pub(super) fn period(every: Option<Duration>, unix_nanos: u64) -> u64 {
    let every = every.and_then(|every| u64::try_from(every.as_nanos()).ok());
    every.and_then(|every| unix_nanos.checked_div(every)).unwrap_or(0)
}

/// The name of a rotated file: the moment without what a file system might not take.
fn rotated(path: &Path, unix_nanos: u64) -> PathBuf {
    let time: String = Time::of(unix_nanos).as_str().chars().filter(|c| !matches!(c, '-' | ':' | 'Z')).collect();
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(time);
    name.into()
}

/// The first number from this one on for which that holds, which holds for all after it.
fn first_after(from: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, u64::MAX);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) { high = middle } else { low = middle.saturating_add(1) }
    }
    low
}

/// The name of the file that is rotated now. It says that this one follows all others, also when two come within one reading of
/// the clock, or it was set back.
///
/// # Errors
/// If the folder cannot be read, or none may follow.
pub(super) fn name_after_all(path: &Path, now: Instants) -> io::Result<PathBuf> {
    let nanos = match rotated_files(path)?.last() {
        Some(newest) => first_after(now.unix_nanos(), |nanos| rotated(path, nanos) > *newest),
        None => now.unix_nanos(),
    };
    let name = rotated(path, nanos);
    if name.exists() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of this time, and none may follow it",
        ));
    }
    Ok(name)
}

/// The files beyond the newest `keep_files`, and those that were closed longer than `keep_for` ago.
pub(super) fn past_their_time(
    path: &Path,
    keep_files: Option<usize>,
    keep_for: Option<Duration>,
    now: Instants,
) -> io::Result<Vec<PathBuf>> {
    let mut files = rotated_files(path)?;
    let surplus = keep_files.map_or(0, |keep| files.len().saturating_sub(keep));
    let mut past: Vec<PathBuf> = files.drain(..surplus).collect();
    if let Some(time) = keep_for {
        let limit = Duration::from_nanos(now.unix_nanos()).saturating_sub(time);
        let oldest = rotated(path, u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let today = rotated(path, now.unix_nanos());
        // The name of one that follows a clock that was ahead tells its place alone; the file system, when it was closed.
        let is_old = |file: &PathBuf| match *file <= today {
            true => *file < oldest,
            false => written(file).is_some_and(|written| written < limit),
        };
        // The last one was closed a moment ago.
        files.pop();
        past.extend(files.into_iter().filter(is_old));
    }
    Ok(past)
}

/// When something was written to the file that was rotated last, if there is one: time since the epoch.
pub(super) fn last_line(path: &Path) -> Option<Duration> {
    written(rotated_files(path).ok()?.last()?)
}

fn written(file: &Path) -> Option<Duration> {
    modified(&fs::metadata(file).ok()?)
}

/// When something was written to it, where the system keeps that.
pub(super) fn modified(metadata: &fs::Metadata) -> Option<Duration> {
    metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()
}

/// The rotated files of a path, in their order.
pub(super) fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in fs::read_dir(file::folder(path))? {
        let found = entry?.file_name();
        let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let is_time = |rest: &[u8]| {
            rest.len() == 26
                && rest.iter().enumerate().all(|(at, byte)| match at {
                    0 | 16 => *byte == b'.',
                    9 => *byte == b'T',
                    _ => byte.is_ascii_digit(),
                })
        };
        if rest.is_some_and(is_time) {
            files.push(path.with_file_name(found));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_told_from_others_and_sort() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let later = rotated(&path, 1_800_000_000_000_000_001);
        assert_eq!(later.file_name().unwrap(), "audit.jsonl.20270115T080000.000000001");
        let earlier = rotated(&path, 1_700_000_000_000_000_000);
        for file in [&later, &path, &earlier, &directory.path().join("audit.jsonl.gz"), &directory.path().join("other")]
        {
            fs::write(file, "x\n").unwrap();
        }
        assert_eq!(rotated_files(&path).unwrap(), [earlier, later]);
    }
}
