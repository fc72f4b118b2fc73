//! How a state follows a table whose rows have ascending numbers, whichever database has it.

use std::{sync::Arc, time::Duration};

use sqlx::{ColumnIndex, Decode, Row, Type};
use tokio::time::timeout;

use super::{Revocation, RevocationLimits, RevocationState, entry::Entry};
use crate::{
    clock::Clock,
    error::{StoreError, StoreErrorKind},
    sql::{failed, unavailable},
};

/// How many are read or removed at once.
pub(super) const PAGE: u32 = 1_000;

/// What a store and its task share.
pub(super) struct Shared {
    pub(super) timeout: Duration,
    pub(super) limits: RevocationLimits,
    pub(super) state: RevocationState,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(super) fn new(timeout: Duration, limits: RevocationLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { timeout, limits, state: RevocationState::fed(limits), clock })
    }

    /// Something is missing here: nothing is trusted until it is not.
    pub(super) fn distrust(&self) {
        self.state.distrust(self.clock.now());
    }
}

/// A connection that reads the table.
pub(super) trait Rows: Send {
    const BACKEND: &'static str;

    /// From this number on, by ascending numbers, [`PAGE`] at most.
    fn page(&mut self, from: i64) -> impl Future<Output = Result<Vec<(i64, Revocation)>, StoreError>> + Send;
}

/// Everything up to a row is known.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    known: Option<(i64, Revocation)>,
}

impl<'a> Line<'a> {
    pub(super) const fn new(shared: &'a Shared) -> Self {
        Self { shared, known: None }
    }

    /// Reads what is new, and says so.
    pub(super) async fn catch_up<R: Rows>(&mut self, rows: &mut R) -> Result<(), StoreError> {
        loop {
            let before = self.shared.clock.now();
            let from = self.known.as_ref().map_or(0, |(number, _)| *number);
            let read = timeout(self.shared.timeout, rows.page(from)).await;
            let read = read.unwrap_or_else(|_| Err(unavailable(R::BACKEND, "no answer in time")));
            let read = read.inspect_err(|error| {
                if error.kind() == StoreErrorKind::Corrupt {
                    self.shared.distrust();
                }
            })?;
            let new = match (&self.known, &*read) {
                (Some(known), [first, new @ ..]) if first == known => new,
                // It is gone, and something came after it.
                (Some((number, _)), [(first, _), ..]) if first > number => &*read,
                // Numbers are given anew, where a backup was put back; or the last row is gone.
                (Some(_), _) => {
                    self.known = None;
                    continue;
                }
                (None, _) => &*read,
            };
            self.add(new.iter().map(|(_, revocation)| revocation))?;
            if let Some(last) = new.last() {
                self.known = Some(last.clone());
            }
            if usize::try_from(PAGE).is_ok_and(|page| read.len() < page) {
                self.shared.state.confirm(before);
                return Ok(());
            }
        }
    }

    /// What cannot be taken in is missing.
    fn add<'r>(&self, revocations: impl ExactSizeIterator<Item = &'r Revocation>) -> Result<(), StoreError> {
        if revocations.len() == 0 {
            return Ok(()); // what was looked up before stays looked up
        }
        self.shared.state.add(revocations, self.shared.clock.now()).inspect_err(|_| self.shared.distrust())
    }
}

/// The number of a row and what it says, from the columns `number, kind, issuer, value, issued_until, ends`. None of a later release
/// is read.
pub(super) fn read<'r, R: Row>(row: &'r R, backend: &'static str) -> Result<(i64, Revocation), StoreError>
where
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
{
    let sql = |error| failed(backend, error);
    let text = |column: usize| row.try_get::<&str, _>(column).map_err(sql);
    let number: i64 = row.try_get(0).map_err(sql)?;
    let (kind, issuer, value) = (text(1)?, text(2)?, text(3)?);
    let issued_until = row.try_get::<Option<i64>, _>(4).map_err(sql)?.map_or(Ok(Entry::ALWAYS), u64::try_from);
    let ends = u64::try_from(row.try_get::<i64, _>(5).map_err(sql)?);
    let read = |issued_until, ends| Entry::read(kind, issuer, value, issued_until, ends);
    let revocation = issued_until.ok().zip(ends.ok()).and_then(|(issued_until, ends)| read(issued_until, ends));
    let unreadable =
        || StoreError::new(StoreErrorKind::Corrupt, backend).about("a revocation that this release cannot read");
    revocation.map(|revocation| (number, revocation)).ok_or_else(unreadable)
}

/// That a table is full.
pub(super) fn no_room(backend: &'static str, most: usize) -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, backend).caused_by(format!("there is room for {most} and no more"))
}

/// A number as databases have it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
