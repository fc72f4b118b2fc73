//! The limiter's cell and the change of an issuer's keys, in every order in which threads may do their steps, and with every value that
//! the memory model allows them to see. The files are the library's own, the cell's built with the atomics of loom. What swaps the keys
//! is `arc-swap`'s, and its authors' to prove; here it is a lock.

#![allow(clippy::unwrap_used, reason = "test code")]

/// What the cells are made of, here.
mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../src/rate_limit/memory/cell.rs"]
mod cell;
#[path = "../src/principal/kept.rs"]
#[allow(dead_code, unreachable_pub, reason = "the model needs the terms alone")]
mod kept;

use atomics::Ordering::SeqCst;
use cell::{CLAIMED, Cell, swap, take_back};
use kept::Terms;
use loom::{
    sync::{Arc, Mutex},
    thread,
};

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
        // With so much of a burst that it would take from the next owner's moment as well.
        let taken = take(&cell, NOW + 10 * PRICE);
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

/// What a source of keys holds.
#[derive(Clone, Copy)]
struct Keys {
    generation: u64,
    /// Whether the key is among them that signed the token.
    has_signer: bool,
}

/// An issuer, and what is remembered of the one token that everybody brings.
struct Issuer {
    keys: Mutex<Keys>,
    remembered: Mutex<Option<Terms>>,
}

impl Issuer {
    fn new() -> Arc<Self> {
        let keys = Keys { generation: 1, has_signer: true };
        Arc::new(Self { keys: Mutex::new(keys), remembered: Mutex::new(None) })
    }

    fn keys(&self) -> Keys {
        *self.keys.lock().unwrap()
    }

    /// As a verification goes: what is remembered counts if it is of the keys that are held now; else the keys are taken once, and
    /// what they verify is remembered as theirs, whatever is held by then.
    fn admits(&self) -> bool {
        let remembered = *self.remembered.lock().unwrap();
        if remembered.is_some_and(|terms| terms.are_of(|_| Some(self.keys().generation))) {
            return true;
        }
        let keys = self.keys();
        if keys.has_signer {
            *self.remembered.lock().unwrap() = Terms::new(0, u64::MAX, 0, keys.generation);
        }
        keys.has_signer
    }
}

#[test]
fn once_a_key_is_gone_nobody_is_admitted_by_it() {
    loom::model(|| {
        let issuer = Issuer::new();
        let requests = {
            let issuer = Arc::clone(&issuer);
            thread::spawn(move || (issuer.admits(), issuer.admits()))
        };
        *issuer.keys.lock().unwrap() = Keys { generation: 2, has_signer: false };
        assert!(!issuer.admits(), "also while another request is under way that took the old keys");
        let (first, second) = requests.join().unwrap();
        assert!(first || !second, "what was refused is not admitted again");
        assert!(!issuer.admits());
    });
}

#[test]
fn keys_that_come_back_are_keys_of_another_generation() {
    loom::model(|| {
        let issuer = Issuer::new();
        assert!(issuer.admits());
        let rotates = {
            let issuer = Arc::clone(&issuer);
            thread::spawn(move || {
                for (generation, has_signer) in [(2, false), (3, true)] {
                    *issuer.keys.lock().unwrap() = Keys { generation, has_signer };
                }
            })
        };
        issuer.admits();
        rotates.join().unwrap();
        assert!(issuer.admits());
        assert!(issuer.remembered.lock().unwrap().is_some_and(|terms| terms.are_of(|_| Some(3))));
    });
}
