//! Files on the disk: in which folder they stand, and how far they are open to others.

use std::{
    fs::{Metadata, OpenOptions},
    path::Path,
};

/// The folder that a file stands in, or is to stand in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Which file it is, whatever its name: another one has another number. None where the system has no such thing.
pub(crate) fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    };
    #[cfg(not(unix))]
    let identity = {
        let _ = metadata;
        None
    };
    identity
}

/// Makes sure that a new name in the folder of a file outlives a crash.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { std::fs::File::open(folder(path))?.sync_all() } else { Ok(()) }
}

/// What is made is for its owner alone.
pub(crate) fn owned(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// A Unix mode by which everybody may write.
pub(crate) const WRITTEN_BY_ALL: u32 = 0o002;
/// A Unix mode by which everybody may do something.
pub(crate) const OPEN_TO_ALL: u32 = 0o007;

/// Refuses a file whose mode has one of these bits, and says why. Elsewhere than on Unix there is no mode, and nothing is refused.
///
/// It takes what the system says of the file and not the file: closing a database that SQLite has open as well would undo its locks.
pub(crate) fn refuse_open(metadata: &Metadata, forbidden: u32) -> Result<(), String> {
    let mode = mode(metadata);
    if mode & forbidden == 0 {
        return Ok(());
    }
    let what = if forbidden & 0o005 == 0 { "written" } else { "read or written" };
    Err(format!("may be {what} by everybody (mode {mode:04o}): say chmod 0600"))
}

/// The permissions of the file; none at all where there is no such thing.
pub(crate) fn mode(metadata: &Metadata) -> u32 {
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    #[cfg(not(unix))]
    let mode = {
        let _ = metadata;
        0
    };
    mode & 0o777
}
