use std::io::{self, Write};

use crate::audit::AuditRecord;

/// Writes records as lines, and knows how many it wrote.
pub(crate) struct Lines<W> {
    writer: W,
    /// Whether the last line lacks its end.
    torn: bool,
    text: Vec<u8>,
    /// Where each record's line ends in `text`.
    ends: Vec<usize>,
}

impl<W: Write> Lines<W> {
    /// Begins with a line feed of its own if what is there already is `torn`.
    pub(crate) const fn to(writer: W, torn: bool) -> Self {
        Self { writer, torn, text: Vec::new(), ends: Vec::new() }
    }

    /// Writes a line for each record; tells how many were not written, and why.
    pub(crate) fn write(&mut self, records: &[AuditRecord]) -> (u64, Option<io::Error>) {
        self.text.clear();
        self.ends.clear();
        if self.torn {
            self.text.push(b'\n');
        }
        let mut failure = None;
        for record in records {
            let begin = self.text.len();
            match serde_json::to_writer(&mut self.text, record) {
                Ok(()) => {
                    self.text.push(b'\n');
                    self.ends.push(self.text.len());
                }
                Err(error) => {
                    self.text.truncate(begin);
                    failure = Some(error.into());
                }
            }
        }
        let (written, stopped) = self.write_text();
        if let Some(byte) = written.checked_sub(1).and_then(|last| self.text.get(last)) {
            self.torn = *byte != b'\n';
        }
        let mut delivered = self.ends.iter().filter(|end| **end <= written).count();
        let stopped = stopped.or_else(|| {
            let error = self.writer.flush().err()?;
            // Some of it may be there; who must know the number cannot count on it.
            delivered = 0;
            Some(error)
        });
        let lost = records.len().saturating_sub(delivered);
        (u64::try_from(lost).unwrap_or(u64::MAX), stopped.or(failure))
    }

    fn write_text(&mut self) -> (usize, Option<io::Error>) {
        let mut written: usize = 0;
        while let Some(rest) = self.text.get(written..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => written = written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }
}

/// A writer for tests that fails as planned.
#[cfg(test)]
pub(crate) mod test_disk {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Says how each call of `write` goes: so many bytes, or an error. Then all goes well.
    #[derive(Debug, Default)]
    pub(crate) struct Disk {
        plan: Vec<io::Result<usize>>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    impl Disk {
        pub(crate) fn planned(mut plan: Vec<io::Result<usize>>) -> (Self, Arc<Mutex<Vec<u8>>>) {
            plan.reverse();
            let disk = Self { plan, bytes: Arc::default() };
            let bytes = Arc::clone(&disk.bytes);
            (disk, bytes)
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.plan.pop().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            self.bytes.lock().unwrap().extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(crate) fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    pub(crate) fn paths(bytes: &Mutex<Vec<u8>>) -> Vec<Option<String>> {
        let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        let path = |line| Some(serde_json::from_str::<serde_json::Value>(line).ok()?["path"].as_str()?.to_owned());
        text.lines().map(path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        test_disk::{Disk, full, paths},
        *,
    };
    use crate::audit::record::sample;

    #[test]
    fn what_is_written_in_part_is_counted_to_the_record() {
        let line = serde_json::to_vec(&sample("/0")).unwrap().len() + 1;
        for (name, plan, lost, left) in [
            ("all at once", vec![], 0, vec![Some("/0"), Some("/1"), Some("/later")]),
            ("in pieces", vec![Ok(7), Ok(900)], 0, vec![Some("/0"), Some("/1"), Some("/later")]),
            (
                "interrupted",
                vec![Err(io::ErrorKind::Interrupted.into())],
                0,
                vec![Some("/0"), Some("/1"), Some("/later")],
            ),
            ("nothing", vec![Err(full())], 2, vec![Some("/later")]),
            ("one line", vec![Ok(line), Err(full())], 1, vec![Some("/0"), Some("/later")]),
            ("a line and a half", vec![Ok(line + 9), Err(full())], 1, vec![Some("/0"), None, Some("/later")]),
            ("half a line", vec![Ok(9), Ok(0)], 2, vec![None, Some("/later")]),
        ] {
            let (disk, bytes) = Disk::planned(plan);
            let mut lines = Lines::to(disk, false);
            let (counted, failure) = lines.write(&[sample("/0"), sample("/1")]);
            assert_eq!(counted, lost, "{name}");
            assert_eq!(failure.is_some(), lost > 0, "{name}");
            assert_eq!(lines.write(&[sample("/later")]).0, 0, "{name}");
            let left: Vec<_> = left.into_iter().map(|path| path.map(str::to_owned)).collect();
            assert_eq!(paths(&bytes), left, "{name}");
        }
    }
}
