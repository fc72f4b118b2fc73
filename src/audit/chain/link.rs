//! The writer's side of a chain.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use super::{
    Chain, Checkpoint, EVERY_ENTRIES, Hash, hash_of, hex,
    resume::{Resumed, resume},
};
use crate::{
    audit::{
        entry::time,
        json_lines::{End, Line},
        record::SCHEMA_VERSION,
    },
    clock::Instants,
    error::ConfigError,
    log,
};

/// How far the chain has come.
#[derive(Clone, Copy, Debug)]
struct State {
    seq: u64,
    hash: Hash,
    /// Lines since the last checkpoint.
    unsigned: u64,
    /// Lines behind the last checkpoint that were there at the start, until it is told.
    found: u64,
    /// Whether the file has no checkpoint yet.
    is_bare: bool,
}

/// A chain that goes on.
#[derive(Debug)]
pub(crate) struct Linked {
    chain: Chain,
    state: State,
    /// Whether the file that is written to has said what it follows.
    opened: bool,
    /// Since when there is a line that no checkpoint covers.
    unsigned_since: Option<Instants>,
    /// What held before the batch that is being written, and since when its first line would be without a checkpoint.
    before: (State, bool, Instants),
    /// What holds after each line of the batch that is being written.
    after: Vec<State>,
    /// The checkpoints in it, by the number of their line in it.
    checkpoints: Vec<(usize, Checkpoint)>,
    plain: Vec<u8>,
    plain_ends: Vec<End>,
}

impl Linked {
    /// Goes on after the last link that is there. The files are the one before, if there is one, and the one that is written to. Also tells
    /// how many bytes come after that link.
    pub(crate) fn continuing(chain: Chain, files: io::Result<Vec<PathBuf>>) -> Result<(Self, u64), ConfigError> {
        let files = files.map_err(|error| {
            ConfigError::new("audit chain", "the folder of the file", "cannot be listed").caused_by(error)
        })?;
        let keys: Vec<_> = [chain.key.public_key()].into_iter().chain(chain.former.iter().copied()).collect();
        let Resumed { seq, hash, unsigned, torn } = resume(&files, &keys, chain.every_entries.max(EVERY_ENTRIES))?;
        let state = State { seq, hash, unsigned: 0, found: unsigned, is_bare: false };
        let linked = Self {
            chain,
            state,
            opened: false,
            unsigned_since: None,
            before: (state, false, Instants::new(0, 0)),
            after: Vec::new(),
            checkpoints: Vec::new(),
            plain: Vec::new(),
            plain_ends: Vec::new(),
        };
        Ok((linked, torn))
    }

    fn is_due(&self, now: Instants) -> bool {
        self.due_in(now).is_some_and(|time| time.is_zero())
    }

    /// In how long a checkpoint is due, if a line has none yet.
    pub(crate) fn due_in(&self, now: Instants) -> Option<Duration> {
        self.unsigned_since.map(|since| self.chain.every.saturating_sub(now.since(since)))
    }

    pub(crate) const fn has_end(&self) -> bool {
        self.state.unsigned > 0
    }

    /// Makes links of the lines in `text`. So many bytes stand there that are no line; `text` begins with a line feed if it
    /// `feeds` them one.
    pub(crate) fn link(
        &mut self,
        text: &mut Vec<u8>,
        ends: &mut Vec<End>,
        (torn, feeds): (u64, bool),
        begun: bool,
        now: Instants,
        last: bool,
    ) {
        std::mem::swap(text, &mut self.plain);
        std::mem::swap(ends, &mut self.plain_ends);
        text.clear();
        ends.clear();
        self.after.clear();
        self.checkpoints.clear();
        self.opened &= !begun;
        self.before = (self.state, self.opened, self.unsigned_since.unwrap_or(now));
        let (plain, plain_ends) = (std::mem::take(&mut self.plain), std::mem::take(&mut self.plain_ends));
        let mut begin = usize::from(feeds);
        text.extend(plain.get(..begin).unwrap_or_default());
        let is_due = self.state.is_bare || self.state.unsigned >= self.chain.every_entries;
        // What comes first tells of what is torn, which a checkpoint does not.
        if !self.opened || (is_due && torn > 0) {
            self.open(text, ends, torn, now);
        }
        // At once, so that whoever goes on after a crash finds in the file itself what its key vouches for.
        if self.state.is_bare || is_due {
            self.checkpoint(text, ends, now);
        }
        for end in &plain_ends {
            let line = plain.get(begin..end.at).and_then(|line| line.strip_suffix(b"\n")).unwrap_or_default();
            self.add(text, ends, line, end.line);
            begin = end.at;
            if self.state.unsigned >= self.chain.every_entries {
                self.checkpoint(text, ends, now);
            }
        }
        if self.state.unsigned > 0 && (last || self.is_due(now)) {
            self.checkpoint(text, ends, now);
        }
        if self.state.unsigned > 0 {
            self.unsigned_since.get_or_insert(now);
        }
        (self.plain, self.plain_ends) = (plain, plain_ends);
    }

    /// Takes a line in: an object, whose first member becomes its number and whose last one its hash.
    fn add(&mut self, text: &mut Vec<u8>, ends: &mut Vec<End>, line: &[u8], kind: Line) {
        let begin = text.len();
        self.state.seq = self.state.seq.saturating_add(1);
        let _ = write!(text, r#"{{"seq":{},"#, self.state.seq);
        let members = line.strip_prefix(b"{").and_then(|line| line.strip_suffix(b"}")).unwrap_or_default();
        text.extend_from_slice(members);
        self.state.hash = hash_of(&self.state.hash, text.get(begin..).unwrap_or_default());
        let _ = writeln!(text, r#","hash":"{}"}}"#, hex(&self.state.hash));
        self.state.unsigned = self.state.unsigned.saturating_add(1);
        self.after.push(self.state);
        ends.push(End { at: text.len(), line: kind });
    }

    fn open(&mut self, text: &mut Vec<u8>, ends: &mut Vec<End>, torn: u64, now: Instants) {
        let number = |name: &str, number| if number > 0 { format!(r#","{name}":{number}"#) } else { String::new() };
        let (torn, unsigned) = (number("torn", torn), number("unsigned", self.state.found));
        let line = format!(
            r#"{{"schema":{SCHEMA_VERSION},"entry":"opened","time":"{}","previous":"{}"{torn}{unsigned}}}"#,
            time(now.unix_nanos()).as_str(),
            hex(&self.state.hash),
        );
        (self.state.found, self.state.is_bare) = (0, true);
        self.add(text, ends, line.as_bytes(), Line::Link);
        self.opened = true;
    }

    fn checkpoint(&mut self, text: &mut Vec<u8>, ends: &mut Vec<End>, now: Instants) {
        let time = time(now.unix_nanos());
        let checkpoint = self.chain.key.sign(self.state.seq, &self.state.hash, time.as_str());
        let line = format!(
            r#"{{"schema":{SCHEMA_VERSION},"entry":"checkpoint","time":"{}","key":"{}","upto":{},"head":"{}","signature":"{}"}}"#,
            checkpoint.time, checkpoint.key, checkpoint.upto, checkpoint.head, checkpoint.signature,
        );
        self.add(text, ends, line.as_bytes(), Line::Link);
        (self.state.unsigned, self.state.is_bare) = (0, false);
        if let Some(after) = self.after.last_mut() {
            *after = self.state;
        }
        self.unsigned_since = None;
        self.checkpoints.push((self.after.len(), checkpoint));
    }

    /// So many lines of the batch were written whole: the chain goes on after them.
    pub(crate) fn settle(&mut self, written: usize) {
        if written < self.after.len() {
            match written.checked_sub(1).and_then(|last| self.after.get(last)) {
                Some(state) => self.state = *state,
                None => (self.state, self.opened) = (self.before.0, self.before.1),
            }
            // A checkpoint that was not written is due still.
            if self.state.unsigned > 0 {
                self.unsigned_since.get_or_insert(self.before.2);
            }
        }
        let Some(send) = &self.chain.send else { return };
        for (_, checkpoint) in self.checkpoints.drain(..).filter(|(line, _)| *line <= written) {
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send(&checkpoint)));
            if sent.is_err() {
                log::error("what takes the checkpoints of an audit chain panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::ChainKey;

    #[test]
    fn a_checkpoint_that_was_not_written_is_due_still() {
        let key = ChainKey::generate().unwrap();
        let chain = Chain::new(key).checkpoint_every(1_000, Duration::from_secs(1)).unwrap();
        let (mut linked, _) = Linked::continuing(chain, Ok(Vec::new())).unwrap();
        let at = |seconds: u64| Instants::new(0, seconds * 1_000_000_000);
        let link = |linked: &mut Linked, entries: &[u8], now: Instants| {
            let mut text = entries.to_vec();
            let mut ends = if text.is_empty() { Vec::new() } else { vec![End { at: text.len(), line: Line::Entry }] };
            linked.link(&mut text, &mut ends, (0, false), false, now, false);
            ends.len()
        };
        let lines = link(&mut linked, b"{\"entry\":\"decided\"}\n", at(0));
        linked.settle(lines);
        assert!(!linked.is_due(at(0)) && linked.is_due(at(1)), "the entry has none yet");
        assert_eq!(link(&mut linked, b"", at(1)), 1, "the checkpoint");
        linked.settle(0);
        assert!(linked.is_due(at(2)), "it could not be written");
        assert_eq!(link(&mut linked, b"", at(2)), 1);
        linked.settle(1);
        assert!(!linked.is_due(at(1_000)));
    }
}
