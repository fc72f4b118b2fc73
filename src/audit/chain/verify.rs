//! The reader's side of a chain.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};

use super::{Checkpoint, Hash, PublicKey, from_hex, hash_of, parts};

/// What [`verify()`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of the first line that is there.
    pub first: Option<u64>,
    /// The number of the last line that is as it was written, as far as the chain tells.
    pub last: Option<u64>,
    /// The last checkpoint that one of the keys signed: everything up to there is as it was written.
    pub checkpoint: Option<Checkpoint>,
    /// The first line that is not as it was written. Nothing after it was looked at.
    pub problem: Option<Problem>,
    /// Lines without their end, which a crash left behind, and which the next line told of.
    pub torn: Vec<Torn>,
    /// A line without its end at the very end: the process died while it wrote, or somebody cut it off.
    pub torn_tail: Option<Torn>,
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

    /// How many lines at the end no checkpoint covers.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        let covered = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.upto.saturating_add(1));
        self.last.unwrap_or(0).saturating_sub(covered)
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
        for torn in &self.torn {
            writeln!(f, "a line of {} bytes was never finished: {}", torn.bytes, torn.file.display())?;
        }
        if let Some(torn) = &self.torn_tail {
            writeln!(f, "the end is torn: {} bytes of a line in {}", torn.bytes, torn.file.display())?;
        }
        match &self.problem {
            Some(problem) => writeln!(f, "NOT SOUND: {problem}"),
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
            Self::CutOff => f.write_str("missing: the files end before it, and a checkpoint vouches for it"),
        }
    }
}

/// What the verification reads of a line.
#[derive(Deserialize)]
struct Members {
    entry: String,
    #[serde(default)]
    torn: u64,
    previous: Option<String>,
    time: Option<String>,
    key: Option<String>,
    upto: Option<u64>,
    head: Option<String>,
    signature: Option<String>,
}

/// Whether an object begins a line here, for whatever reader: some break lines at more than line feeds.
fn holds_an_object(fragment: &[u8]) -> bool {
    const BREAKS: [char; 9] = ['\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let begins = |piece: &str| {
        let mut values = serde_json::Deserializer::from_str(piece).into_iter::<IgnoredAny>();
        piece.trim_start().starts_with('{') && values.next().is_some_and(|value| value.is_ok())
    };
    String::from_utf8_lossy(fragment).split(BREAKS).any(begins)
}

struct Walk<'a> {
    keys: &'a [PublicKey],
    anchors: Vec<&'a Checkpoint>,
    report: Report,
    /// The number and hash of the last line.
    last: Option<(u64, Hash)>,
    /// Whether the file has a line of the chain up to here.
    is_opened: bool,
    /// Fragments that the next line must tell of: the first one's line, and whether the last one has no end.
    fragment: Option<(Torn, u64, bool)>,
}

/// Reads the files of a chain, in the order in which they were written, and holds them against the chain, the signatures of
/// these keys, and checkpoints that were kept elsewhere. It stops at the first line that is not as it was written.
///
/// Checkpoints that were kept elsewhere must be signed by one of the keys; others are not believed. A line takes as much memory
/// as it is long, and nothing else grows with the files.
///
/// # Errors
/// If a file cannot be read.
pub fn verify<P: AsRef<Path>>(
    files: impl IntoIterator<Item = P>,
    keys: &[PublicKey],
    elsewhere: &[Checkpoint],
) -> io::Result<Report> {
    let mut anchors: Vec<_> = elsewhere.iter().filter(|checkpoint| checkpoint.is_signed_by(keys)).collect();
    anchors.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.upto));
    let mut walk = Walk { keys, anchors, report: Report::default(), last: None, is_opened: false, fragment: None };
    let mut ended = (PathBuf::new(), 0);
    for file in files {
        let path = file.as_ref();
        ended = (path.to_owned(), 0);
        walk.is_opened = false;
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            ended.1 += 1;
            if let Err(problem) = walk.read(path, ended.1, &line) {
                walk.report.problem = Some(problem);
                return Ok(walk.report);
            }
        }
    }
    Ok(walk.end(ended))
}

impl Walk<'_> {
    fn expected(&self) -> u64 {
        self.last.map_or(1, |(seq, _)| seq.saturating_add(1))
    }

    fn problem(&self, file: &Path, line: u64, kind: ProblemKind) -> Problem {
        Problem { file: file.to_owned(), line, seq: self.expected(), kind }
    }

    fn read(&mut self, file: &Path, number: u64, bytes: &[u8]) -> Result<(), Problem> {
        let whole = bytes.strip_suffix(b"\n");
        let line = whole.unwrap_or(bytes);
        let known = parts(line);
        let found = known.filter(|_| whole.is_some());
        // Fragments may come before it, and nothing else.
        if self.last.is_none() && found.is_some() {
            self.begin(file, number, line)?;
        }
        let linked = known.filter(|(seq, hashed, hash)| {
            self.last.is_some_and(|(last, before)| *seq == last.saturating_add(1) && hash_of(&before, hashed) == *hash)
        });
        let Some((seq, _, hash)) = linked.filter(|_| whole.is_some()) else {
            let has_end = whole.is_some();
            // Who is cut off leaves no whole object, unless it is the true line and lacks its line feed alone. What a reader takes
            // for a line must not pass for a fragment.
            if found.is_none() && linked.is_none() && holds_an_object(line) {
                return Err(self.problem(file, number, ProblemKind::Unreadable));
            }
            return self.not_linked(file, number, line, has_end, found.map(|(seq, ..)| seq));
        };
        let members: Members =
            serde_json::from_slice(line).map_err(|_| self.problem(file, number, ProblemKind::Unreadable))?;
        if let Some((torn, at, _)) = self.fragment.take() {
            if members.torn != torn.bytes {
                return Err(self.problem(&torn.file, at, ProblemKind::Unreadable));
            }
            self.report.torn.push(torn);
        }
        if !self.is_opened && members.entry != "opened" {
            return Err(self.problem(file, number, ProblemKind::NotOpened));
        }
        self.is_opened = true;
        if members.entry == "checkpoint" {
            self.checkpoint(file, number, members)?;
        }
        self.last = Some((seq, hash));
        self.report.last = Some(seq);
        self.report.first.get_or_insert(seq);
        self.hold_against_anchors(file, number, seq, &hash)
    }

    /// The first line of all says what it follows.
    fn begin(&mut self, file: &Path, number: u64, line: &[u8]) -> Result<(), Problem> {
        let not_opened = || self.problem(file, number, ProblemKind::NotOpened);
        let members: Members = serde_json::from_slice(line).map_err(|_| not_opened())?;
        let (seq, ..) = parts(line).ok_or_else(not_opened)?;
        let previous =
            members.previous.filter(|_| members.entry == "opened").and_then(|hash| from_hex(hash.as_bytes()));
        let (Some(previous), Some(before)) = (previous, seq.checked_sub(1)) else { return Err(not_opened()) };
        self.last = Some((before, previous));
        Ok(())
    }

    /// A line that does not follow the one before: a fragment that the next line tells of, or a problem.
    fn not_linked(
        &mut self,
        file: &Path,
        number: u64,
        line: &[u8],
        has_end: bool,
        seq: Option<u64>,
    ) -> Result<(), Problem> {
        let expected = self.expected();
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let kind = match seq {
            // Whoever was cut off had written something.
            None if bytes == 0 => ProblemKind::Unreadable,
            None => {
                let (fragment, _, open) =
                    self.fragment.get_or_insert_with(|| (Torn { file: file.to_owned(), bytes: 0 }, number, true));
                fragment.bytes = fragment.bytes.saturating_add(bytes);
                *open = !has_end;
                return Ok(());
            }
            Some(seq) if seq > expected => ProblemKind::Missing { found: seq },
            Some(seq) if seq < expected => ProblemKind::Reordered { found: seq },
            Some(_) => ProblemKind::Altered,
        };
        match self.fragment.take() {
            // No line told of it: it was a line itself.
            Some((torn, at, _)) => Err(self.problem(&torn.file, at, ProblemKind::Unreadable)),
            None => Err(self.problem(file, number, kind)),
        }
    }

    fn checkpoint(&mut self, file: &Path, number: u64, members: Members) -> Result<(), Problem> {
        let Members {
            time: Some(time),
            key: Some(key),
            upto: Some(upto),
            head: Some(head),
            signature: Some(signature),
            ..
        } = members
        else {
            return Err(self.problem(file, number, ProblemKind::BadSignature));
        };
        let checkpoint = Checkpoint { time, key, upto, head, signature };
        if !checkpoint.is_signed_by(self.keys) {
            return Err(self.problem(file, number, ProblemKind::BadSignature));
        }
        let head = from_hex::<32>(checkpoint.head.as_bytes());
        if self.last.is_none_or(|(seq, hash)| seq != checkpoint.upto || Some(hash) != head) {
            return Err(self.problem(file, number, self.contradicted()));
        }
        self.report.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// Which lines it may be that a checkpoint contradicts.
    fn contradicted(&self) -> ProblemKind {
        let signed = self.report.checkpoint.as_ref().map(|checkpoint| checkpoint.upto.saturating_add(1));
        ProblemKind::NotAsSigned { from: signed.or(self.report.first).unwrap_or(1) }
    }

    /// What was kept elsewhere.
    fn hold_against_anchors(&mut self, file: &Path, number: u64, seq: u64, hash: &Hash) -> Result<(), Problem> {
        while let Some(anchor) = self.anchors.pop_if(|anchor| anchor.upto <= seq) {
            // One of before the first file was kept tells nothing of these.
            if anchor.upto == seq && from_hex::<32>(anchor.head.as_bytes()).as_ref() != Some(hash) {
                return Err(Problem { seq, ..self.problem(file, number, self.contradicted()) });
            }
            if anchor.upto == seq && self.report.checkpoint.as_ref().is_none_or(|known| known.upto < seq) {
                self.report.checkpoint = Some(anchor.clone());
            }
        }
        Ok(())
    }

    fn end(mut self, (file, lines): (PathBuf, u64)) -> Report {
        match self.fragment.take() {
            Some((torn, _, true)) => self.report.torn_tail = Some(torn),
            Some((torn, at, false)) => {
                self.report.problem = Some(self.problem(&torn.file, at, ProblemKind::Unreadable));
                return self.report;
            }
            None => {}
        }
        if !self.anchors.is_empty() {
            let next = lines.saturating_add(1);
            self.report.problem = Some(self.problem(&file, next, ProblemKind::CutOff));
        }
        self.report
    }
}
