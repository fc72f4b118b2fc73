//! Where a writer goes on. What stands in the files may be anybody's: the checkpoints of the writer's own key alone tell what is true,
//! and what comes behind the last of them is told as unsigned.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    Hash, ProblemKind, PublicKey, from_hex, parts,
    verify::{Members, Walk},
};
use crate::{audit::MAX_ENTRY_LEN, error::ConfigError};

/// What a line takes at most, with its links.
const LINE: u64 = MAX_ENTRY_LEN as u64 + 1024;
/// What crashes may have left besides.
const FRAGMENTS: u64 = 1 << 20;
const CHUNK: u64 = 64 << 10;

/// How far a chain has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    pub(super) seq: u64,
    pub(super) hash: Hash,
    /// So many lines at the end are behind the last checkpoint.
    pub(super) unsigned: u64,
    /// The bytes behind them that are no line.
    pub(super) torn: u64,
}

/// Reads back to the last checkpoint, which one of the keys must have signed, and from there to the end. At most so many records may be
/// behind it. The files are the one that is written to and, before it, the one that it follows.
pub(super) fn resume(files: &[PathBuf], keys: &[PublicKey], most: u64) -> Result<Resumed, ConfigError> {
    let refuse = |file: &Path, problem: &str| {
        let problem =
            format!("is not gone on with, {problem}: move it away with its rotated files, and a new chain begins");
        ConfigError::new("audit chain", file.display().to_string(), problem)
    };
    let too_many = format!("more than {most} records at its end have no checkpoint, so anybody may have written them");
    let mut room = most.saturating_mul(LINE).saturating_add(FRAGMENTS);
    let mut start = None;
    for (index, file) in files.iter().enumerate().rev() {
        let is_current = index.saturating_add(1) == files.len();
        match last_checkpoint(file, &mut room, is_current).map_err(|error| unread(file, error))? {
            Found::At(at) => start = Some((index, at)),
            Found::Nothing => continue,
            Found::TooFar => return Err(refuse(file, &too_many)),
        }
        break;
    }
    let (first, offset, after) = start.map_or((0, 0, (0, [0; 32])), |(index, (offset, after))| (index, offset, after));
    let mut walk = Walk::after(keys, after);
    let mut has_lines = false;
    for (index, file) in files.iter().enumerate().skip(first) {
        let begin = if index == first { offset } else { 0 };
        walk.is_opened = begin > 0;
        let mut reader = reader(file, begin).map_err(|error| unread(file, error))?;
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(|error| unread(file, error))? > 0 {
            has_lines |= line.ends_with(b"\n");
            // One that lacks its line feed alone is whole: the writer adds that.
            if index.saturating_add(1) == files.len() && !line.ends_with(b"\n") && walk.goes_on_with(&line) {
                line.push(b'\n');
            }
            if let Err(problem) = walk.read(file, 0, &line) {
                let hint = match problem.kind {
                    ProblemKind::BadSignature => " (Chain::with_former_keys takes those that were replaced)",
                    _ => "",
                };
                return Err(refuse(file, &format!("record {}: {}{hint}", problem.seq, problem.kind)));
            }
            line.clear();
        }
    }
    let Some(file) = files.last() else { return Ok(walk.resumed()) };
    match walk.report.checkpoint {
        Some(_) if walk.behind.records > most => Err(refuse(file, &too_many)),
        // A crash leaves that of a first batch, and no record. What was read back may be another file by now.
        None if walk.behind.records > 0 || start.is_some() => {
            Err(refuse(file, "it has no checkpoint, so anybody may have written it"))
        }
        None if walk.behind.lines == 0 && has_lines => Err(refuse(file, "it holds lines that are in no chain")),
        _ => Ok(walk.resumed()),
    }
}

fn unread(file: &Path, error: io::Error) -> ConfigError {
    ConfigError::new("audit chain", file.display().to_string(), "cannot be read to its end").caused_by(error)
}

/// Nothing if it is no file of lines.
fn reader(file: &Path, begin: u64) -> io::Result<BufReader<io::Take<File>>> {
    let mut file = File::open(file)?;
    let metadata = file.metadata()?;
    let len = if metadata.is_file() { metadata.len() } else { 0 };
    if len > 0 {
        file.seek(SeekFrom::Start(begin))?;
    }
    Ok(BufReader::with_capacity(1 << 16, file.take(len.saturating_sub(begin))))
}

enum Found {
    /// Where it begins, and the number and hash of the line that it vouches for.
    At((u64, (u64, Hash))),
    Nothing,
    TooFar,
}

/// The last line that says of itself to be a checkpoint, within so many bytes from the end. What has no line feed counts for one in the
/// file that is written to.
fn last_checkpoint(path: &Path, room: &mut u64, is_current: bool) -> io::Result<Found> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut begin = if metadata.is_file() { metadata.len() } else { 0 };
    let mut bytes = Vec::new();
    let mut is_line = is_current;
    loop {
        while let Some(feed) = bytes.iter().rposition(|byte| *byte == b'\n') {
            let line = bytes.split_off(feed.saturating_add(1));
            bytes.truncate(feed);
            let offset = begin.saturating_add(u64::try_from(feed).unwrap_or(u64::MAX)).saturating_add(1);
            if let Some(vouched) = vouched(&line).filter(|_| is_line) {
                return Ok(Found::At((offset, vouched)));
            }
            is_line = true;
        }
        if begin == 0 {
            return Ok(vouched(&bytes).filter(|_| is_line).map_or(Found::Nothing, |vouched| Found::At((0, vouched))));
        }
        // More at once where a line is long, so that not all of it is moved each time.
        let held = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let chunk = begin.min(held.max(CHUNK));
        let Some(left) = room.checked_sub(chunk.min(*room)).filter(|_| *room > 0) else { return Ok(Found::TooFar) };
        *room = left;
        begin = begin.saturating_sub(chunk);
        file.seek(SeekFrom::Start(begin))?;
        let mut before = Vec::new();
        (&mut file).take(chunk).read_to_end(&mut before)?;
        before.append(&mut bytes);
        bytes = before;
    }
}

/// The line that a checkpoint vouches for, if this is one.
fn vouched(line: &[u8]) -> Option<(u64, Hash)> {
    const ENTRY: &[u8] = br#""entry":"checkpoint""#;
    parts(line)?;
    line.windows(ENTRY.len()).find(|window| *window == ENTRY)?;
    let members: Members = serde_json::from_slice(line).ok()?;
    let head = from_hex(members.head.filter(|_| members.entry == "checkpoint")?.as_bytes())?;
    Some((members.upto?, head))
}
