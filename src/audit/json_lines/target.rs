//! What lines are written to.

use std::io::{self, Write};
#[cfg(feature = "audit-chain")]
use std::path::PathBuf;

use crate::clock::Instants;

/// Where lines go.
pub(super) trait Target: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    fn flush(&mut self) -> io::Result<()>;

    /// Forces what was written to the disk.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called before so many bytes are written. True if they begin a new file.
    fn prepare(&mut self, now: Instants, coming: usize) -> bool {
        let _ = (now, coming);
        false
    }

    /// The bytes of a line without its end that stood there before.
    fn torn(&self) -> u64 {
        0
    }

    /// The file that was rotated last, if there is one, and the one that is written to, for who continues them.
    #[cfg(feature = "audit-chain")]
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    /// Sees to it that the disk has room for so many bytes more. None if that cannot be known here.
    fn keep_room(&mut self, bytes: u64) -> Option<bool> {
        let _ = bytes;
        None
    }
}

/// A pipe, or memory.
pub(super) struct Plain<W>(pub(super) W);

impl<W: Write + Send> Target for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
