//! Files that hold keys or secrets: how far they may be open to others.

use std::fs::Metadata;

/// A Unix mode by which everybody may write.
#[cfg(any(feature = "api-key-file", feature = "api-key-sqlite"))]
pub(crate) const WRITTEN_BY_ALL: u32 = 0o002;
/// A Unix mode by which everybody may do something.
#[cfg(any(feature = "audit-chain", feature = "config"))]
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
#[cfg(unix)]
pub(crate) fn mode(metadata: &Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[cfg(not(unix))]
pub(crate) fn mode(_: &Metadata) -> u32 {
    0
}
