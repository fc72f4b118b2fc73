//! Who writes a file alone.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::file::identity;

/// Whether the path leads to another file by now, or to none.
pub(super) fn is_elsewhere(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => identity(&there) != identity(&open),
        (Err(error), Ok(_)) => error.kind() == io::ErrorKind::NotFound,
        (_, Err(_)) => false,
    }
}

/// Whether no name leads to the file any more, where that can be told. One that was renamed has another one.
pub(super) fn is_removed(file: &File) -> bool {
    #[cfg(unix)]
    return file
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && std::os::unix::fs::MetadataExt::nlink(&metadata) == 0);
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Keeps all others away who write a chain to this file, or who tell that they write to it, until it is closed.
#[cfg(all(unix, feature = "audit-chain"))]
pub(super) fn claim(path: &Path, file: &File) -> io::Result<()> {
    use rustix::{
        fs::{FlockOperation::NonBlockingLockExclusive, flock},
        io::Errno,
    };

    // A pipe is for whoever reads it to guard.
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    match flock(file, NonBlockingLockExclusive) {
        // Whoever rotated it in between writes on in another one.
        Ok(()) if !is_elsewhere(path, file) => Ok(()),
        Ok(()) | Err(Errno::WOULDBLOCK) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is locked")),
        Err(error) => {
            let error = io::Error::from(error);
            Err(io::Error::new(error.kind(), format!("it cannot be locked: {error}")))
        }
    }
}

/// Elsewhere a lock would keep readers away too.
#[cfg(all(not(unix), feature = "audit-chain"))]
pub(super) fn claim(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}

/// Whether somebody writes to what was rotated last: they are about to begin the file that follows.
#[cfg(feature = "audit-chain")]
pub(super) fn is_claimed(path: &Path) -> bool {
    let claimed = File::open(path).and_then(|file| claim(path, &file));
    claimed.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}
