//! Two changes of one key at the same time: what a store that looks and then writes back what it saw gets wrong.

use std::{pin::pin, task::Poll};

use super::{find, insert, life::rotation, plain, record, revocation, valid, works};
use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, Hit, KeyUse, LastUse, RecordFields},
    clock::Instants,
    error::{StoreError, StoreErrorKind},
};

pub(super) async fn one_insert_wins(store: &dyn ApiKeyAdmin, at: Instants) {
    let one = plain(at);
    let other = RecordFields::new(*one.id(), *plain(at).hash(), "conformance", at.unix_seconds(), None);
    let other = valid(other.check());
    let (first, second) = both(store.insert(one.clone()), store.insert(other.clone())).await;
    let won = [first, second].map(|answer| has_won(answer.map(|()| true), "who loses an insert gets a conflict"));
    let winner = match won {
        [true, false] => Some(&one),
        [false, true] => Some(&other),
        [true, true] | [false, false] => None,
    };
    assert!(winner.is_some(), "of two inserts of one id at the same time one wins");
    assert!(record(store, one.id(), at).await.as_deref() == winner, "the record of the winner is there, and no other");
}

/// A key is revoked while its use is noted, or while it is rotated.
pub(super) async fn no_revocation_is_lost(store: &dyn ApiKeyAdmin, at: Instants) {
    let now = at.unix_seconds();
    let (ended, last) = (revocation(at, "leaked"), LastUse::new(now.saturating_add(1), None));
    for turned in [false, true] {
        let key = plain(at);
        insert(store, &key).await;
        let uses = [KeyUse::new(*key.id(), last)];
        let (revoked, noted) = in_turn(turned, store.revoke(key.id(), &ended), store.record_uses(&uses)).await;
        assert!(works(revoked), "revoking a key that exists is true");
        works(noted);
        let both = key.revoked(&ended).used(last);
        stands(store, &both, at, "a revocation stands, and so does a use that is noted meanwhile").await;

        let (key, new) = (plain(at), plain(at));
        insert(store, &key).await;
        let rotation = self::rotation(&key, &new, now);
        let shortened = rotation.shorten(&key).unwrap_or_else(|| key.clone());
        let (revoked, rotated) = in_turn(turned, store.revoke(key.id(), &ended), store.rotate(rotation)).await;
        assert!(works(revoked), "revoking a key that exists is true");
        let rotated = has_won(rotated, "a rotation that comes after a revocation is a conflict");
        let old = if rotated { shortened } else { key };
        stands(store, &old.revoked(&ended), at, "a revocation stands, and so does a rotation before it").await;
        assert_eq!(find(store, new.id(), at).await.is_some(), rotated, "the new record is there if its rotation won");
    }
}

/// A key is rotated while its use is noted.
pub(super) async fn no_rotation_is_lost(store: &dyn ApiKeyAdmin, at: Instants) {
    let now = at.unix_seconds();
    let last = LastUse::new(now.saturating_add(1), None);
    for turned in [false, true] {
        let (key, new) = (plain(at), plain(at));
        insert(store, &key).await;
        let (rotation, uses) = (self::rotation(&key, &new, now), [KeyUse::new(*key.id(), last)]);
        let shortened = rotation.shorten(&key).unwrap_or_else(|| key.clone());
        let (rotated, noted) = in_turn(turned, store.rotate(rotation), store.record_uses(&uses)).await;
        works(noted);
        // A store that swaps a whole row if it is as it was may refuse: nothing is lost by that.
        let rotated = has_won(rotated, "a rotation that is refused is a conflict");
        let old = if rotated { shortened } else { key };
        stands(store, &old.used(last), at, "a rotation stands, and so does a use that is noted meanwhile").await;
        assert_eq!(find(store, new.id(), at).await.is_some(), rotated, "the new record is there if its rotation won");
    }
}

/// This is what is found and, with its last use, what there is.
async fn stands(store: &dyn ApiKeyAdmin, wanted: &ApiKeyRecord, at: Instants, why: &str) {
    let found = record(store, wanted.id(), at).await;
    assert_eq!(found.as_deref().and_then(ApiKeyRecord::revocation), wanted.revocation(), "{why}");
    let got = works(store.get(wanted.id()).await);
    assert!(got.as_ref().map(Hit::record).is_some_and(|got| **got == *wanted), "{why}");
}

fn has_won(answer: Result<bool, StoreError>, why: &str) -> bool {
    answer.unwrap_or_else(|error| {
        assert_eq!(error.kind(), StoreErrorKind::Conflict, "{why}");
        false
    })
}

pub(super) async fn one_rotation_wins(store: &dyn ApiKeyAdmin, at: Instants) {
    let (old, one, other) = (plain(at), plain(at), plain(at));
    insert(store, &old).await;
    let ends = at.unix_seconds().saturating_add(60);
    let answers = both(store.rotate(rotation(&old, &one, ends)), store.rotate(rotation(&old, &other, ends))).await;
    let won = <[_; 2]>::from(answers).map(|answer| has_won(answer, "who loses a rotation gets a conflict"));
    assert!(won == [true, false] || won == [false, true], "of two rotations at the same time one wins");
    let successor = record(store, old.id(), at).await.and_then(|record| record.rotated_to().copied());
    for (new, won) in [one, other].iter().zip(won) {
        assert_eq!(find(store, new.id(), at).await.is_some(), won, "the record of the winner is there, and no other");
        assert_eq!(successor == Some(*new.id()), won, "the old record names the winner");
    }
}

/// Both, whose second goes first if `turned`.
async fn in_turn<A: Future, B: Future>(turned: bool, one: A, other: B) -> (A::Output, B::Output) {
    if turned {
        let (second, first) = both(other, one).await;
        return (first, second);
    }
    both(one, other).await
}

/// Polls both until both are done.
async fn both<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(answer) = one.as_mut().poll(cx)
        {
            first = Some(answer);
        }
        if second.is_none()
            && let Poll::Ready(answer) = other.as_mut().poll(cx)
        {
            second = Some(answer);
        }
        match (first.take(), second.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}
