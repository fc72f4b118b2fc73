//! The races of threads, in a store that answers without waiting.

use super::{find, insert, life::rotation, plain, record, revocation, valid};
use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, RecordFields},
    clock::Instants,
    conformance::threads::{THREADS, at_once, from_threads},
    error::StoreError,
};

/// How often threads meet.
const ROUNDS: usize = 50;

pub(super) async fn one_wins(store: &dyn ApiKeyAdmin, at: Instants) {
    // A store that waits was asked by tasks.
    if !matches!(at_once(store.insert(plain(at))), Some(Ok(()))) {
        return;
    }
    let ends = at.unix_seconds().saturating_add(60);
    let one =
        |answers: &[Result<bool, StoreError>]| answers.iter().filter(|answer| matches!(answer, Ok(true))).count() == 1;
    for _ in 0..ROUNDS {
        let id = *plain(at).id();
        let same = |_| valid(RecordFields::new(id, *plain(at).hash(), "conformance", at.unix_seconds(), None).check());
        let records: [ApiKeyRecord; THREADS] = std::array::from_fn(same);
        let insert_one = async |number: usize| match records.get(number) {
            Some(record) => store.insert(record.clone()).await.map(|()| true),
            None => Ok(false),
        };
        let Some(inserted) = from_threads(insert_one) else { return };
        assert!(one(&inserted), "of threads that insert one id at the same time one wins: {inserted:?}");

        let new: [ApiKeyRecord; THREADS] = std::array::from_fn(|_| plain(at));
        let Some(old) = record(store, &id, at).await else { continue };
        let rotate_one = async |number: usize| match new.get(number) {
            Some(new) => store.rotate(rotation(&old, new, ends)).await,
            None => Ok(false),
        };
        let Some(rotated) = from_threads(rotate_one) else { return };
        assert!(one(&rotated), "of threads that rotate one key at the same time one wins: {rotated:?}");
        let mut stored = 0;
        for new in &new {
            stored += u32::from(find(store, new.id(), at).await.is_some());
        }
        assert_eq!(stored, 1, "of threads that rotate one key at the same time one wins, with its record and no other");

        let (old, new, leaked) = (plain(at), plain(at), revocation(at, "leaked"));
        insert(store, &old).await;
        let revoke_or_rotate = async |number: usize| match number {
            0 => store.rotate(rotation(&old, &new, ends)).await,
            _ => store.revoke(old.id(), &leaked).await,
        };
        let Some(answers) = from_threads(revoke_or_rotate) else { return };
        let rotated = matches!(answers.first(), Some(Ok(true)));
        let kept = record(store, old.id(), at).await;
        let stands =
            kept.is_some_and(|kept| kept.revocation() == Some(&leaked) && kept.rotated_to().is_some() == rotated);
        assert!(stands, "of threads that revoke one key and rotate it, what each was told stands");
    }
}
