use std::{io, time::Duration};

#[cfg(feature = "audit-chain")]
use crate::audit::chain::Linked;
use crate::{
    audit::{
        AuditEntry,
        entry::{gap, weight},
        json_lines::target::Target,
    },
    clock::Instants,
};

/// Writes entries as lines, and knows how many it wrote.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The bytes of lines that were never finished, after the last whole one. None of one that lacks its line feed alone.
    torn: u64,
    /// Whether a line feed is due first.
    feeds: bool,
    text: Vec<u8>,
    ends: Vec<End>,
    #[cfg(feature = "audit-chain")]
    chain: Option<Linked>,
}

/// Where a line ends in the text, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: usize,
    pub(crate) line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Entry,
    Gap,
    /// The chain's own.
    #[cfg(feature = "audit-chain")]
    Link,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) lost: u64,
    pub(super) failure: Option<io::Error>,
    /// Whether the gap before it is told.
    pub(super) told: bool,
}

impl Lines {
    /// Begins with a line feed of its own if what is there already ends in so many bytes of a line.
    pub(super) fn new(torn: u64) -> Self {
        Self { torn, feeds: torn > 0, ..Self::default() }
    }

    #[cfg(feature = "audit-chain")]
    pub(super) fn chained(
        mut self,
        chain: Option<crate::audit::chain::Chain>,
        target: &impl Target,
    ) -> Result<Self, crate::ConfigError> {
        if let Some(chain) = chain {
            // Line feeds behind what is no link of the chain do not make it one; and one that lacks nothing but its line feed is.
            let (chain, torn) = Linked::continuing(chain, target.files())?;
            self.torn = torn;
            self.chain = Some(chain);
        }
        Ok(self)
    }

    /// Whether there is something to write although nobody handed anything over.
    pub(super) fn is_due(&self, now: Instants) -> bool {
        self.due_in(now).is_some_and(|time| time.is_zero())
    }

    /// In how long there is something to write although nobody hands anything over, as far as is known.
    #[cfg_attr(not(feature = "audit-chain"), expect(clippy::unused_self, reason = "a chain has something to say"))]
    pub(super) fn due_in(&self, now: Instants) -> Option<Duration> {
        #[cfg(feature = "audit-chain")]
        return self.chain.as_ref().and_then(|chain| chain.due_in(now));
        #[cfg(not(feature = "audit-chain"))]
        {
            let _ = now;
            None
        }
    }

    /// Whether there is something to write before the end.
    #[cfg_attr(not(feature = "audit-chain"), expect(clippy::unused_self, reason = "a chain has something to say"))]
    pub(super) fn has_end(&self) -> bool {
        #[cfg(feature = "audit-chain")]
        return self.chain.as_ref().is_some_and(Linked::has_end);
        #[cfg(not(feature = "audit-chain"))]
        false
    }

    /// Whether the last line is there but for its end, which then comes first, before a file is begun anew.
    const fn lacks_line_feed(&self) -> bool {
        self.feeds && self.torn == 0
    }

    /// Writes a line for each entry, after one for the `lost` that are missing before them.
    pub(super) fn write(
        &mut self,
        entries: &[AuditEntry],
        lost: u64,
        now: Instants,
        last: bool,
        target: &mut impl Target,
    ) -> Written {
        if self.lacks_line_feed() {
            if let (0, failure) = write_text(b"\n", target) {
                return Written { lost: weight(entries), failure, told: lost == 0 };
            }
            self.feeds = false;
        }
        self.compose(entries, lost);
        // A file that cannot be rotated or opened anew is written on.
        let begun = target.prepare(now, self.text.len());
        // So is one that somebody else began, and left in the middle of a line.
        let found = if begun { target.torn() } else { 0 };
        if found > 0 {
            (self.torn, self.feeds) = (self.torn.saturating_add(found), true);
            self.compose(entries, lost);
        }
        let feeds = self.feeds;
        #[cfg(feature = "audit-chain")]
        if let Some(chain) = &mut self.chain {
            chain.link(&mut self.text, &mut self.ends, (self.torn, feeds), begun, now, last);
        }
        let _ = last;
        let is_new = begun && found == 0;
        let begin = usize::from(is_new && feeds);
        if is_new {
            // What is torn in the file before is told once, by a line that is written whole.
            self.feeds = false;
        }
        self.put(begin, entries, target)
    }

    /// Makes the text: the line feed that is due, the gap, and a line for each entry.
    fn compose(&mut self, entries: &[AuditEntry], lost: u64) {
        self.text.clear();
        self.ends.clear();
        if self.feeds {
            self.text.push(b'\n');
        }
        let gap = (lost > 0 || self.torn > 0).then(|| AuditEntry::Gap(gap(lost, self.torn)));
        for entry in gap.iter().chain(entries) {
            entry.write_json(&mut self.text);
            self.text.push(b'\n');
            let line = if matches!(entry, AuditEntry::Gap(_)) { Line::Gap } else { Line::Entry };
            self.ends.push(End { at: self.text.len(), line });
        }
    }

    fn put(&mut self, begin: usize, entries: &[AuditEntry], target: &mut impl Target) -> Written {
        let (written, mut failure) = write_text(self.text.get(begin..).unwrap_or_default(), target);
        let end = begin.saturating_add(written);
        let mut whole = self.ends.iter().filter(|line| line.at <= end).count();
        // What lacks its line feed alone is there, and is a link of its chain.
        let lacks_line_feed = self.ends.get(whole).is_some_and(|line| line.at == end.saturating_add(1));
        whole = whole.saturating_add(usize::from(lacks_line_feed));
        let after = whole.checked_sub(1).and_then(|last| self.ends.get(last)).map(|line| line.at);
        let fragment = u64::try_from(end.saturating_sub(after.unwrap_or(begin))).unwrap_or(u64::MAX);
        match after {
            Some(_) if lacks_line_feed => (self.torn, self.feeds) = (0, true),
            Some(_) => (self.torn, self.feeds) = (fragment, fragment > 0),
            // The line feed that ends a torn line is no part of another one.
            None if self.feeds && fragment > 0 => {
                self.torn = self.torn.saturating_add(fragment.saturating_sub(1));
                self.feeds = fragment > 1;
            }
            None if fragment > 0 => {
                self.torn = self.torn.saturating_add(fragment);
                self.feeds = true;
            }
            None => {}
        }
        // The chain goes on from what was taken: a target with a buffer of its own may deliver it yet, and what it does not is seen to be
        // missing.
        #[cfg(feature = "audit-chain")]
        if let Some(chain) = &mut self.chain {
            chain.settle(whole);
        }
        if failure.is_none()
            && let Err(error) = target.flush()
        {
            // Some of it may be there; who must know the number cannot count on it.
            (whole, failure) = (0, Some(error));
        }
        let told = |line: Line| self.ends.iter().take(whole).filter(|end| end.line == line).count();
        let lost = weight(entries.iter().skip(told(Line::Entry)));
        let has_gap = self.ends.iter().any(|end| end.line == Line::Gap);
        Written { lost, failure, told: !has_gap || told(Line::Gap) > 0 }
    }
}

fn write_text(text: &[u8], target: &mut impl Target) -> (usize, Option<io::Error>) {
    let mut written: usize = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        match target.write(rest) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written = written.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}
