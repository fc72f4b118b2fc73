use crate::{
    clock::Instants,
    now::Now,
    policy::{AccessQuery, CedarEntity, CedarUid, EntitySource},
    principal::Principal,
};

/// Ids that no source should have, and that no source should stumble over.
const UNKNOWN: [&str; 6] = [
    "portcullis-conformance-no-such-id",
    "",
    "\" || true || \"",
    "'; DROP TABLE users; --",
    "line\nbreak\0and nul",
    "../../etc/passwd",
];

/// Checks what every [`EntitySource`] must do, given an entity that it knows and somebody who asks:
/// 1. asked for the entity that it knows, it gives that one, and no name twice;
/// 2. of an id that it does not know, whatever is in it and however long it is, it gives no entity of that name, and it is no
///    error;
/// 3. the answer at once and the answer after waiting are the same, and the same question gets the same answer again;
/// 4. its generation does not change while nothing else does.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn entity_source(source: &dyn EntitySource, known: CedarUid, subject: &Principal) {
    let at = Instants::new(1_800_000_000_000_000_000, 0);
    let query = AccessQuery::new(subject, "portcullis-conformance:ask", at);
    let generation = source.generation();

    let entities = answer(source, &known, &query).await;
    assert!(names(&entities).contains(&&known), "asked for an entity that it knows, a source must give that one");
    let again = answer(source, &known, &query).await;
    assert_eq!(again, entities, "the same question must get the same answer again");

    let long = "x".repeat(100_000);
    for id in UNKNOWN.into_iter().chain([&*long]) {
        let unknown = CedarUid::new(known.kind(), id);
        let entities = answer(source, &unknown, &query).await;
        let shown: String = id.chars().take(40).collect();
        assert!(
            !names(&entities).contains(&&unknown),
            "a source must give nothing of an id that it does not know: {shown:?}"
        );
    }
    assert_eq!(source.generation(), generation, "the generation must not change while nothing else does");
}

/// Asks in both ways, and demands one answer.
#[expect(clippy::panic, reason = "a suite reports by panicking")]
async fn answer(source: &dyn EntitySource, wanted: &CedarUid, query: &AccessQuery<'_>) -> Vec<CedarEntity> {
    let at_once = source.entities_now(wanted, query);
    let told = |error| -> Vec<CedarEntity> { panic!("a source that is up must not fail: {error}") };
    let entities = source.entities(wanted, query).await.unwrap_or_else(told);
    if let Now::Known(at_once) = at_once {
        let at_once = at_once.unwrap_or_else(told);
        assert_eq!(at_once, entities, "`entities_now` and `entities` must give the same");
    }
    let mut seen = names(&entities);
    seen.sort_by_key(|uid| (uid.kind(), uid.id()));
    seen.dedup();
    assert_eq!(seen.len(), entities.len(), "a name must stand once in an answer");
    entities
}

fn names(entities: &[CedarEntity]) -> Vec<&CedarUid> {
    entities.iter().map(CedarEntity::uid).collect()
}
