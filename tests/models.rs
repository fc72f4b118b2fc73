//! The limiter's cell in every order in which threads may do their steps, and with every value that the memory model allows them to
//! see. The file is the library's own, built with the atomics of loom.

#![allow(clippy::unwrap_used, reason = "test code")]

/// What the cells are made of, here.
mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../src/rate_limit/memory/cell.rs"]
mod cell;

use atomics::Ordering::SeqCst;
use cell::{CLAIMED, Cell, swap, take_back};
use loom::{sync::Arc, thread};

const OURS: u64 = 1;
const THEIRS: u64 = 2;
const NOW: u64 = 100;
const PRICE: u64 = 10;

/// A cell of ours whose quota is whole at this moment.
fn whole_at(moment: u64) -> Arc<Cell> {
    let cell = Cell::default();
    cell.fingerprint.store(OURS, SeqCst);
    cell.tat.store(moment, SeqCst);
    Arc::new(cell)
}

/// Takes one if the moment is no later than `latest`. None if the cell is not ours.
fn take(cell: &Cell, latest: u64) -> Option<bool> {
    loop {
        let before = cell.moment_of(OURS)?;
        if before > latest {
            return Some(false);
        }
        if swap(&cell.tat, before, before.max(NOW) + PRICE) {
            return Some(true);
        }
    }
}

#[test]
fn of_what_is_left_one_takes_the_last() {
    loom::model(|| {
        let cell = whole_at(NOW);
        let threads = [0; 2].map(|_| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || take(&cell, NOW))
        });
        let taken = threads.map(|thread| thread.join().unwrap().unwrap());
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        assert_eq!(cell.moment_of(OURS), Some(NOW + PRICE));
    });
}

#[test]
fn nothing_that_one_took_is_counted_for_the_next_owner() {
    loom::model(|| {
        let cell = whole_at(NOW - 50);
        let claims = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.claim(NOW - 50, THEIRS, NOW + 7))
        };
        let taken = take(&cell, NOW);
        let claimed = claims.join().unwrap();
        // Either it was taken from in time, and could not be given away; or it was given away, and is not ours.
        assert!(claimed != (taken == Some(true)), "claimed {claimed}, taken {taken:?}");
        match claimed {
            true => assert_eq!((cell.moment_of(THEIRS), cell.moment_of(OURS)), (Some(NOW + 7), None)),
            false => assert_eq!(cell.moment_of(OURS), Some(NOW + PRICE)),
        }
    });
}

#[test]
fn of_two_newcomers_one_has_the_cell() {
    loom::model(|| {
        let cell = whole_at(NOW - 50);
        let other = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.claim(NOW - 50, THEIRS, NOW + 7))
        };
        let third = cell.claim(NOW - 50, 3, NOW + 9);
        assert!(third != other.join().unwrap());
        let expected = if third { (Some(NOW + 9), None) } else { (None, Some(NOW + 7)) };
        assert_eq!((cell.moment_of(3), cell.moment_of(THEIRS)), expected);
        assert_ne!(cell.tat.load(SeqCst), CLAIMED);
    });
}

#[test]
fn what_is_taken_back_is_what_was_taken() {
    loom::model(|| {
        // One was taken, and is taken back while another is.
        let cell = whole_at(NOW + PRICE);
        let undoes = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || take_back(&cell.tat, Some((&cell, OURS)), NOW + PRICE, NOW, PRICE))
        };
        assert_eq!(take(&cell, NOW + 10 * PRICE), Some(true));
        undoes.join().unwrap();
        assert_eq!(cell.moment_of(OURS), Some(NOW + PRICE), "one is left of the two");
    });
}
