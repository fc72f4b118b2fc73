//! The reader's side of a chain.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Checkpoint, Hash, Problem, ProblemKind, PublicKey, Report, Torn, from_hex, hash_of, parts, resume::Resumed,
};

/// What the verification reads of a line.
#[derive(Deserialize)]
pub(super) struct Members {
    pub(super) entry: String,
    #[serde(default)]
    torn: u64,
    #[serde(default)]
    unsigned: u64,
    previous: Option<String>,
    time: Option<String>,
    key: Option<String>,
    pub(super) upto: Option<u64>,
    pub(super) head: Option<String>,
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

/// Lines behind the last checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behind {
    pub(super) lines: u64,
    /// All of them but those that open a file.
    pub(super) records: u64,
}

pub(super) struct Walk<'a> {
    keys: &'a [PublicKey],
    anchors: Vec<&'a Checkpoint>,
    /// From which line on the files were kept, if not all of them were.
    retained: Option<u64>,
    pub(super) report: Report,
    /// The number and hash of the last line.
    last: Option<(u64, Hash)>,
    pub(super) behind: Behind,
    /// Whether the file has a line of the chain up to here.
    pub(super) is_opened: bool,
    /// Fragments that the next line must tell of: the first one's line, and whether the last one has no end.
    fragment: Option<(Torn, u64, bool)>,
    /// Set if lines are missing before the first one, which is told if nothing else is wrong.
    begins_later: Option<Problem>,
}

/// Reads the files of a chain, in the order in which they were written, and holds them against the chain, the signatures of
/// these keys, and checkpoints that were kept elsewhere. It stops at the first line that is not as it was written.
///
/// Checkpoints that were kept elsewhere must be signed by one of the keys; others are not believed. One that vouches for a line before
/// the first that is there is a problem, unless [`verify_retained`] says that such lines were removed. A line takes as much memory as it
/// is long, and nothing else grows with the files.
///
/// # Errors
/// If a file cannot be read.
pub fn verify<P: AsRef<Path>>(
    files: impl IntoIterator<Item = P>,
    keys: &[PublicKey],
    elsewhere: &[Checkpoint],
) -> io::Result<Report> {
    walk(files, keys, elsewhere, None)
}

/// As [`verify`], where the files before the one with the line `from` were removed, as
/// [retention](crate::audit::JsonLinesBuilder::keep_files) does: checkpoints that were kept of lines before it are no problem, and it is
/// one if the files begin with a later line. Take the number from what you removed, not from what is there.
///
/// # Errors
/// If a file cannot be read.
pub fn verify_retained<P: AsRef<Path>>(
    files: impl IntoIterator<Item = P>,
    keys: &[PublicKey],
    elsewhere: &[Checkpoint],
    from: u64,
) -> io::Result<Report> {
    walk(files, keys, elsewhere, Some(from))
}

fn walk<P: AsRef<Path>>(
    files: impl IntoIterator<Item = P>,
    keys: &[PublicKey],
    elsewhere: &[Checkpoint],
    retained: Option<u64>,
) -> io::Result<Report> {
    let mut anchors: Vec<_> = elsewhere.iter().filter(|checkpoint| checkpoint.is_signed_by(keys)).collect();
    anchors.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.upto));
    let mut walk = Walk { anchors, retained, ..Walk::new(keys) };
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

impl<'a> Walk<'a> {
    fn new(keys: &'a [PublicKey]) -> Self {
        Self {
            keys,
            anchors: Vec::new(),
            retained: None,
            report: Report::default(),
            last: None,
            behind: Behind::default(),
            is_opened: false,
            fragment: None,
            begins_later: None,
        }
    }

    /// One that begins after a line of this number and hash.
    pub(super) fn after(keys: &'a [PublicKey], link: (u64, Hash)) -> Self {
        Self { last: Some(link), ..Self::new(keys) }
    }

    /// Whether the line follows the last one.
    pub(super) fn goes_on_with(&self, line: &[u8]) -> bool {
        parts(line).is_some_and(|parts| self.is_next(&parts))
    }

    fn is_next(&self, (seq, hashed, hash): &(u64, &[u8], Hash)) -> bool {
        self.last.is_some_and(|(last, before)| *seq == last.saturating_add(1) && hash_of(&before, hashed) == *hash)
    }

    /// Where a writer goes on.
    pub(super) fn resumed(&self) -> Resumed {
        let (seq, hash) = self.last.unwrap_or((0, [0; 32]));
        let torn = self.fragment.as_ref().map_or(0, |(torn, ..)| torn.bytes);
        Resumed { seq, hash, unsigned: self.behind.lines, torn }
    }

    fn expected(&self) -> u64 {
        self.last.map_or(1, |(seq, _)| seq.saturating_add(1))
    }

    fn problem(&self, file: &Path, line: u64, kind: ProblemKind) -> Problem {
        Problem { file: file.to_owned(), line, seq: self.expected(), kind }
    }

    pub(super) fn read(&mut self, file: &Path, number: u64, bytes: &[u8]) -> Result<(), Problem> {
        let whole = bytes.strip_suffix(b"\n");
        let line = whole.unwrap_or(bytes);
        let known = parts(line);
        let found = known.filter(|_| whole.is_some());
        // Fragments may come before it, and nothing else.
        if self.last.is_none() && found.is_some() {
            self.begin(file, number, line)?;
        }
        let linked = known.filter(|parts| self.is_next(parts));
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
        let is_opening = members.entry == "opened";
        if is_opening && members.unsigned > 0 {
            self.report.found_unsigned.push(seq.saturating_sub(members.unsigned)..=seq.saturating_sub(1));
        }
        if members.entry == "checkpoint" {
            self.checkpoint(file, number, members)?;
            self.report.covered = seq;
            self.behind = Behind::default();
        } else {
            self.behind.lines = self.behind.lines.saturating_add(1);
            self.behind.records = self.behind.records.saturating_add(u64::from(!is_opening));
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
        self.report.covered = before;
        let problem = |seq, kind| Problem { file: file.to_owned(), line: number, seq, kind };
        let mut missing = self.retained.filter(|from| *from < seq);
        while let Some(anchor) = self.anchors.pop_if(|anchor| anchor.upto < seq) {
            if anchor.upto < before {
                self.report.missed = self.report.missed.saturating_add(1);
                // The oldest of them comes first.
                missing = missing.or(Some(anchor.upto).filter(|_| self.retained.is_none()));
            } else if from_hex::<32>(anchor.head.as_bytes()) != Some(previous) {
                return Err(problem(seq, ProblemKind::NotAsSigned { from: seq }));
            }
        }
        self.begins_later = missing.map(|missing| problem(missing, ProblemKind::BeginsLater { first: seq }));
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
            if anchor.upto == seq && from_hex::<32>(anchor.head.as_bytes()).as_ref() != Some(hash) {
                return Err(Problem { seq, ..self.problem(file, number, self.contradicted()) });
            }
            if anchor.upto == seq && self.report.checkpoint.as_ref().is_none_or(|known| known.upto < seq) {
                self.report.checkpoint = Some(anchor.clone());
                // What stands behind it need not be the line that holds it.
                self.report.covered = seq;
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
        self.report.problem = self.report.problem.or(self.begins_later);
        self.report
    }
}
