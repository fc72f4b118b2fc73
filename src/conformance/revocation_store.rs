use crate::{
    clock::Instants,
    principal::TokenMarks,
    revocation::{Revocation, RevocationKind, RevocationStore, Standing},
};

const ISSUER: &str = "https://conformance.example.com";
const OTHER: &str = "https://other.example.com";

/// Checks what every [`RevocationStore`] must do: once [`revoke`](RevocationStore::revoke) has returned, the state of this
/// process meets exactly what was revoked, of this issuer alone; it stays so when other things are revoked, and until the end;
/// and what is revoked twice is met for the longer of both.
///
/// `run` is a text that no run before had with this store. The state must be trusted at `at`.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn revocation_store(store: &dyn RevocationStore, run: &str, at: Instants) {
    assert!(store.state().is_fresh(at), "the suite needs a state that is trusted");
    let now = at.unix_seconds();
    let value = |kind: RevocationKind| format!("{run}-{}", kind.as_str());
    let marks = |issuer: &str, kind: RevocationKind, value: &str| {
        let marks = TokenMarks::new(issuer).issued_at(now.saturating_sub(10));
        match kind {
            RevocationKind::Token => marks.token(value),
            RevocationKind::Session => marks.session(value),
            RevocationKind::Subject => marks.subject(value),
            RevocationKind::Client => marks.client(value),
            RevocationKind::Key => marks.key(value),
        }
    };
    let standing = |issuer: &str, kind, value: &str| store.state().check_marks(&marks(issuer, kind, value), at);
    for kind in RevocationKind::ALL {
        assert_eq!(standing(ISSUER, kind, &value(kind)), Standing::Good, "what nobody revoked is good");
    }
    for (count, kind) in RevocationKind::ALL.into_iter().enumerate() {
        let value_of = value(kind);
        let revocation = match kind {
            RevocationKind::Token => Revocation::token(ISSUER, &value_of),
            RevocationKind::Session => Revocation::session(ISSUER, &value_of),
            RevocationKind::Subject => Revocation::subject(ISSUER, &value_of, now),
            RevocationKind::Client => Revocation::client(ISSUER, &value_of),
            RevocationKind::Key => Revocation::key(ISSUER, &value_of),
        };
        let revoked = match revocation {
            Ok(revocation) => store.revoke(&revocation, at).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(revoked, Ok(()), "a {} is revoked", kind.as_str());
        for (place, other) in RevocationKind::ALL.into_iter().enumerate() {
            let expected = if place <= count { Standing::Revoked(other) } else { Standing::Good };
            assert_eq!(standing(ISSUER, other, &value(other)), expected, "{kind:?} was revoked, {other:?} is asked");
            assert_eq!(standing(OTHER, other, &value(other)), Standing::Good, "another issuer's {other:?}");
            let unlike = if other == kind { RevocationKind::Key } else { other };
            let crossed = if unlike == kind { RevocationKind::Token } else { unlike };
            assert_eq!(standing(ISSUER, crossed, &value_of), Standing::Good, "the id of a {kind:?} as a {crossed:?}");
        }
    }
    let subject = value(RevocationKind::Subject);
    let issued =
        |second: u64| store.state().check_marks(&TokenMarks::new(ISSUER).subject(&subject).issued_at(second), at);
    assert_eq!(issued(now), Standing::Revoked(RevocationKind::Subject), "issued in the very second");
    assert_eq!(issued(now.saturating_add(1)), Standing::Good, "issued later");
    // Once more, for less: nothing is taken back.
    if let Ok(weaker) = Revocation::subject(ISSUER, &subject, now.saturating_sub(100)) {
        let again = store.revoke(&weaker.until(now), at).await;
        assert!(again.is_ok(), "what is revoked may be revoked again: {again:?}");
    }
    assert_eq!(issued(now), Standing::Revoked(RevocationKind::Subject), "a weaker revocation takes nothing back");
}
