//! What a verification found.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use super::Checkpoint;

/// What [`verify`](super::verify()) found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of the first line that is there.
    pub first: Option<u64>,
    /// The number of the last line that is as it was written, as far as the chain tells.
    pub last: Option<u64>,
    /// The last checkpoint that one of the keys signed: everything up to there is as it was written.
    pub checkpoint: Option<Checkpoint>,
    /// The first line that is not as it was written. Nothing after it was looked at, unless it is that the files
    /// [begin later](ProblemKind::BeginsLater).
    pub problem: Option<Problem>,
    /// Lines without their end, which a crash left behind, and which the next line told of.
    pub torn: Vec<Torn>,
    /// A line without its end at the very end: the process died while it wrote, or somebody cut it off.
    pub torn_tail: Option<Torn>,
    /// Lines that had no checkpoint when a process began and went on after them, as after a crash. Later checkpoints cover them, and show
    /// that they are as that process found them, not who wrote them.
    pub found_unsigned: Vec<RangeInclusive<u64>>,
    /// How many of the checkpoints that were kept elsewhere vouch for lines before the first that is there, and so for none of these. One
    /// that vouches for the line right before it is held against what the first line says that it follows.
    pub missed: u64,
    /// The number of the last line that a checkpoint covers, or of the one before the first that is there.
    pub(super) covered: u64,
}

impl Report {
    /// Whether nothing is wrong. A torn tail is no proof of an alteration, and is told apart.
    ///
    /// It is no proof either where there is no [`checkpoint`](Self::checkpoint), or many lines are [uncovered](Self::uncovered): whoever can
    /// write the files can make a chain of hashes anew.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.problem.is_none()
    }

    /// How many lines at the end no checkpoint covers. The line that holds a checkpoint is covered by it, where it stands in the file.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        self.last.unwrap_or(0).saturating_sub(self.covered)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (Some(first), Some(last)) => writeln!(f, "lines {first} to {last} are as they were written")?,
            _ => writeln!(f, "no line could be verified")?,
        }
        match &self.checkpoint {
            Some(checkpoint) => {
                let Checkpoint { upto, time, key, .. } = checkpoint;
                writeln!(
                    f,
                    "signed up to line {upto}, at {time}, by key {key}; {} lines after that",
                    self.uncovered()
                )?;
            }
            None => writeln!(f, "nothing is signed by one of the keys: anybody may have written it")?,
        }
        for lines in &self.found_unsigned {
            let (first, last) = (lines.start(), lines.end());
            writeln!(
                f,
                "lines {first} to {last} were found without a signature at a start: whoever could write the file may have written them"
            )?;
        }
        if let (Some(first), 1..) = (self.first, self.missed) {
            let missed = self.missed;
            writeln!(
                f,
                "{missed} checkpoints that were kept elsewhere are of before line {first}, and say nothing of these"
            )?;
        }
        for torn in &self.torn {
            writeln!(f, "a line of {} bytes was never finished: {}", torn.bytes, torn.file.display())?;
        }
        if let Some(torn) = &self.torn_tail {
            writeln!(f, "the end is torn: {} bytes of a line in {}", torn.bytes, torn.file.display())?;
        }
        match &self.problem {
            Some(problem) => writeln!(f, "NOT SOUND: {problem}"),
            // Nothing is wrong with nothing, which proves nothing.
            None if self.last.is_none() => Ok(()),
            None => writeln!(f, "sound"),
        }
    }
}

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The file.
    pub file: PathBuf,
    /// How much of it is there.
    pub bytes: u64,
}

/// The first line that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line in that file, counted from one.
    pub line: u64,
    /// The number that the line should have.
    pub seq: u64,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, seq, kind } = self;
        write!(f, "record {seq} ({}, line {line}): {kind}", file.display())
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Its hash is not that of its text after the line before: one of the two was altered.
    Altered,
    /// It is no line of a chain: altered, or put in.
    Unreadable,
    /// A later line stands here; those in between are missing.
    Missing {
        /// The number of the line that stands here.
        found: u64,
    },
    /// An earlier line stands here, moved or repeated.
    Reordered {
        /// The number of the line that stands here.
        found: u64,
    },
    /// A checkpoint stands here that vouches for another hash than the lines before it have: one of them was altered, and all
    /// hashes after it were made anew. It is one of those after the checkpoint before.
    NotAsSigned {
        /// The number of the first line that it may be.
        from: u64,
    },
    /// A checkpoint stands here that none of the keys signed.
    BadSignature,
    /// The first line of the chain in the file is not the one that opens a file.
    NotOpened,
    /// The files end before a line that a checkpoint which was kept elsewhere vouches for.
    CutOff,
    /// The files begin with a later line than a checkpoint which was kept elsewhere vouches for, or than was
    /// [said](super::verify_retained()).
    BeginsLater {
        /// The number of the first line that is there.
        first: u64,
    },
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered => f.write_str("altered: its hash does not fit its text"),
            Self::Unreadable => f.write_str("altered or put in: it is no line of the chain"),
            Self::Missing { found } => write!(f, "missing: line {found} stands in its place"),
            Self::Reordered { found } => write!(f, "moved: line {found} stands in its place"),
            Self::NotAsSigned { from } => write!(f, "a checkpoint contradicts the lines from {from} to here"),
            Self::BadSignature => f.write_str("a checkpoint that no known key signed"),
            Self::NotOpened => f.write_str("the file does not begin with the line that opens one"),
            Self::BeginsLater { first } => write!(f, "missing: the files begin with line {first}"),
            Self::CutOff => f.write_str("missing: the files end before it, and a checkpoint vouches for it"),
        }
    }
}
