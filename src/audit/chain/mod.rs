//! Lines that show whether one of them was altered, taken out or moved.
//!
//! Each line carries a number and a hash over the line before it and itself, so that whoever changes one must change all that
//! follow. Now and then a **checkpoint** signs the hash up to there (Ed25519), so that whoever has not the key cannot: what is
//! before a checkpoint stands as it was written. Checkpoints can be sent elsewhere, so that it shows, too, if the end was cut off.
//!
//! [`verify()`] reads the files and names the first line that is not as it was written; the program in
//! `examples/audit_verify` does it from the command line.
//!
//! # What it does not do
//! - Who has the signing key can write another history. Keep the key out of reach of who may write the files, or send the
//!   checkpoints to somebody else at once.
//! - Lines after the last checkpoint are chained, but not signed: who can write the file can replace all of them. That is at most
//!   1 000 lines, or 10 seconds, unless `checkpoint_every` says otherwise. After a crash such lines stay, and
//!   [`Report::found_unsigned`] tells them.
//! - Who can write the file can cut it off behind any of its checkpoints while no process runs; or copy one to its end, so that the next
//!   process goes on from there, and cut out what stands between later on. Checkpoints that were kept elsewhere show both.
//! - A checkpoint is sent when it is written. After a power failure the file may end before it, which looks like a cut.
//! - Whoever has a key that was replaced can go on from where it ended, as long as it stands in [`with_former_keys`](Chain::with_former_keys)
//!   at a start. Take it out once a checkpoint of the new key is in the file that is written to.
//! - Files that were removed from the beginning, as [retention](crate::audit::JsonLinesBuilder::keep_files) does, are missed only where
//!   a checkpoint of them was kept elsewhere, and so are lines before one that says `opened`; [`Report::first`] tells the first number
//!   that is there. [`verify_retained`] takes the number from which on there should be lines.
//!
//! # Form
//! To each object of the [schema](crate::manual::audit), `seq` is added at the beginning and `hash` at the end:
//! `{"seq":7,…,"hash":"<64 hexadecimal digits>"}`. The hash is SHA-256 over the hash of the line before, as 32 bytes, and the
//! line itself up to `,"hash":`. The first line of a file says what it follows: `"entry":"opened"` with `previous`, the hash of
//! the line before, which is zeros at the very beginning; so does the first one after a restart, with `unsigned`, how many lines before it
//! have no checkpoint and were there already. A checkpoint follows at once. It is `"entry":"checkpoint"` with `upto`, the number of the
//! line before it, `head`, the hash of that line, `key`, the id of the key, and `signature`, 64 bytes, over the text
//! `portcullis-audit-checkpoint-v1`, `upto`, `head` and `time`, each followed by a line feed. All bytes are in hexadecimal.
//!
//! # Restarts
//! A process that opens the file signs nothing that others may have put there. It reads back to the last checkpoint, which its own key or
//! one of [`with_former_keys`](Chain::with_former_keys) must have signed; from there on each line must follow from the one before; and no
//! more lines than 1 000, or `checkpoint_every`, may come behind it. Of a file that has no checkpoint, because it was just begun, it reads
//! the one that was rotated last. Anything else is refused when the file is opened, by an error that says which record it is: move the
//! file away with its rotated ones, keep them for whoever looks into it, and a new chain begins.
//!
//! # Crashes
//! A process that dies while it writes leaves a line without its end. That line is never repaired: it stays where it is, the
//! next one is begun behind it and says how many bytes it has, and the verification reports it. A line that lacks its line feed
//! alone is whole, and gets that. What stands there and reads as an object is no such fragment: it was put in. One process writes
//! a chain at a time, which a lock sees to (`flock`, on Unix): a second one is refused when it opens the file. Without the lock it would
//! fork the chain, which the verification finds.
//!
//! ```
//! use portcullis::audit::{JsonLines, chain::{Chain, ChainKey, verify}};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let key = ChainKey::from_file_or_new("/etc/orders/chain.key")?; // the same one after each restart
//! let public = key.public_key();
//! let chain = Chain::new(key).on_checkpoint(|checkpoint| println!("{checkpoint}")); // send it elsewhere
//! let sink = JsonLines::builder().chain(chain).open("audit.jsonl")?;
//! drop(sink);
//! let report = verify(["audit.jsonl"], &[public], &[])?;
//! assert!(report.is_sound());
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod link;
mod report;
mod resume;
mod verify;

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

pub use checkpoint::{ChainKey, Checkpoint, PublicKey};
pub(crate) use link::Linked;
pub use report::{Problem, ProblemKind, Report, Torn};
pub use verify::{verify, verify_retained};

use crate::error::ConfigError;

/// After so many lines a checkpoint is signed, unless said otherwise. So many without one may be there at a start in any case.
const EVERY_ENTRIES: u64 = 1000;
/// How long a line may be told to wait for its signature.
const EVERY_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// How a writer chains its lines.
#[must_use]
#[derive(Clone)]
pub struct Chain {
    key: Arc<ChainKey>,
    former: Vec<PublicKey>,
    every_entries: u64,
    every: Duration,
    send: Option<Arc<SendFn>>,
}

type SendFn = dyn Fn(&Checkpoint) + Send + Sync;

impl Chain {
    /// Signs a checkpoint with this key after each 1 000 lines, or 10 seconds after a line that is not signed yet.
    pub fn new(key: ChainKey) -> Self {
        Self {
            key: Arc::new(key),
            former: Vec::new(),
            every_entries: EVERY_ENTRIES,
            every: Duration::from_secs(10),
            send: None,
        }
    }

    /// Signs a checkpoint after so many lines, or so long after a line that is not signed yet: 1 line at least, and 100 ms to 1 h.
    /// Default 1 000 lines and 10 s.
    ///
    /// # Errors
    /// If there is no line, or the time is shorter or longer.
    pub fn checkpoint_every(mut self, lines: u64, time: Duration) -> Result<Self, ConfigError> {
        let refuse = |value: String, problem: &str| Err(ConfigError::new("audit checkpoints", value, problem));
        if lines == 0 {
            return refuse("0 lines".to_owned(), "must be 1 line at least");
        }
        if !EVERY_BOUNDS.contains(&time) {
            return refuse(format!("{time:?}"), "must be 100ms to 1h");
        }
        (self.every_entries, self.every) = (lines, time);
        Ok(self)
    }

    /// Also goes on after checkpoints of these keys, which this one replaces. Default: none, and a file that ends with theirs is refused.
    pub fn with_former_keys(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.former.extend(keys);
        self
    }

    /// Hands each checkpoint to this function as well, once it is written: on the writer's thread, so it must not wait long.
    pub fn on_checkpoint(mut self, send: impl Fn(&Checkpoint) + Send + Sync + 'static) -> Self {
        self.send = Some(Arc::new(send));
        self
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("key", &self.key.public_key())
            .field("former", &self.former)
            .field("every_entries", &self.every_entries)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// A hash.
pub(crate) type Hash = [u8; 32];

/// What `,"hash":"…"}` takes at the end of a line.
const SUFFIX: usize = 75;

/// The hash of a line that comes after one with the hash `before`.
fn hash_of(before: &Hash, line: &[u8]) -> Hash {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(before);
    context.update(line);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

/// A line in its parts: its number, what is hashed, and the hash that it claims.
fn parts(line: &[u8]) -> Option<(u64, &[u8], Hash)> {
    let (hashed, suffix) = line.split_at_checked(line.len().checked_sub(SUFFIX)?)?;
    let hash = from_hex(suffix.strip_prefix(br#","hash":""#)?.strip_suffix(br#""}"#)?)?;
    let rest = hashed.strip_prefix(br#"{"seq":"#)?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    let number = std::str::from_utf8(digits).ok()?;
    // One number has one text.
    let seq: u64 = number.parse().ok().filter(|seq: &u64| seq.to_string() == number)?;
    Some((seq, hashed, hash))
}
