use crate::{
    clock::Instants,
    error::{ConfigError, StoreErrorKind},
    principal::TokenMarks,
    revocation::{Revocation, RevocationKind, RevocationStore, Standing},
};

const ISSUER: &str = "https://conformance.example.com";
const OTHER: &str = "https://other.example.com";
/// How long after now what the suite revokes twice ends, in seconds.
const LONG: u64 = 3_600;
const SHORT: u64 = 60;
/// How long before now the earlier log-out of somebody was who logs out twice, in seconds.
const EARLIER: u64 = 30;
/// How often the suite looks whether another process has learned of a revocation.
const LOOKS: usize = 1_000;

/// Checks what every [`RevocationStore`] must do: once [`revoke`](RevocationStore::revoke) has returned, the state of this
/// process meets exactly what was revoked, of this issuer alone; it stays so when other things are revoked, and until the end;
/// what is revoked twice is met for the longer of both, and what has ended is refused. [`revocation_store_that_is_shared`] asks other
/// processes too.
///
/// `run` is a text that no run before had with this store. The state must be trusted at `at`.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn revocation_store(store: &dyn RevocationStore, run: &str, at: Instants) {
    assert!(store.state().is_fresh(at), "the suite needs a state that is trusted");
    let now = at.unix_seconds();
    let value = |kind: RevocationKind| format!("{run}-{}", kind.as_str());
    let standing = |issuer: &str, kind, value: &str| store.state().check_marks(&marks(issuer, kind, value, at), at);
    for kind in RevocationKind::ALL {
        assert_eq!(standing(ISSUER, kind, &value(kind)), Standing::Good, "what nobody revoked is good");
    }
    for (count, kind) in RevocationKind::ALL.into_iter().enumerate() {
        let value_of = value(kind);
        let revoked = match revocation(kind, &value_of, at) {
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

    if let Ok(ended) = Revocation::token(ISSUER, &format!("{run}-ended")) {
        let refused = store.revoke(&ended.until(now.saturating_sub(LONG)), at).await.map_err(|error| error.kind());
        assert_eq!(
            refused,
            Err(StoreErrorKind::Conflict),
            "what has ended is not called revoked: RevocationState::check_end tells"
        );
    }

    revoke_twice(store, run, at).await;
    for (value, kind) in twice(run) {
        let met = store.state().check_marks(&marks(ISSUER, kind, &value, at), shortly_before_the_end(at));
        assert_eq!(met, Standing::Revoked(kind), "{value}: what is revoked twice is met until the later end");
    }
}

/// Checks what a [`RevocationStore`] must do whose revocations several processes share: all of [`revocation_store`], and that
/// every other process learns of them and does not forget them sooner, one that runs already as well as one that starts later; and
/// that what nobody revoked stays good there: of another issuer, as another kind, in another case.
///
/// `open` opens the store as one more process would, and gives it once its state is trusted; `pause` is what the suite waits with
/// between two looks at a process that runs, 10 ms for example: after a thousand looks it gives up. `run` is a text that no run
/// before had with the store.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn revocation_store_that_is_shared<S: RevocationStore>(
    open: impl AsyncFn() -> S,
    pause: impl AsyncFn(),
    run: &str,
    at: Instants,
) {
    let (here, there) = (open().await, open().await);
    revocation_store(&here, run, at).await;
    let once = RevocationKind::ALL.map(|kind| (format!("{run}-{}", kind.as_str()), kind, at));
    let twice = twice(run).map(|(value, kind)| (value, kind, shortly_before_the_end(at)));
    let revoked: Vec<_> = once.into_iter().chain(twice).collect();

    let later = open().await;
    for (value, kind, asked) in &revoked {
        let met = later.state().check_marks(&marks(ISSUER, *kind, value, at), *asked);
        assert_eq!(met, Standing::Revoked(*kind), "{value}: a process that starts later knows what was revoked");
    }
    for kind in RevocationKind::ALL {
        let value = format!("{run}-{}", kind.as_str());
        let is_good = |issuer: &str, kind, value: &str| {
            later.state().check_marks(&marks(issuer, kind, value, at), at) == Standing::Good
        };
        assert!(is_good(OTHER, kind, &value), "another issuer's {value} is good for a process that starts later");
        for other in RevocationKind::ALL.into_iter().filter(|other| *other != kind) {
            assert!(
                is_good(ISSUER, other, &value),
                "{value} as a {other:?}: what was revoked as another kind is good for a process that starts later"
            );
        }
        let folded =
            if value == value.to_ascii_uppercase() { value.to_ascii_lowercase() } else { value.to_ascii_uppercase() };
        assert!(
            is_good(ISSUER, kind, &folded),
            "{folded} was not revoked, and is good for a process that starts later"
        );
    }
    let mut looks = 0;
    for (value, kind, asked) in &revoked {
        let marks = marks(ISSUER, *kind, value, at);
        while there.state().check_marks(&marks, *asked) != Standing::Revoked(*kind) {
            assert!(looks < LOOKS, "{value}: a process that runs learns of what another revoked");
            looks += 1;
            pause().await;
        }
    }
}

/// What is revoked until two different times, in either order.
fn twice(run: &str) -> impl Iterator<Item = (String, RevocationKind)> {
    let each = |kind: RevocationKind| ["long-first", "short-first"].map(|name| (name, kind));
    RevocationKind::ALL
        .into_iter()
        .flat_map(each)
        .map(move |(name, kind)| (format!("{run}-{}-{name}", kind.as_str()), kind))
}

async fn revoke_twice(store: &dyn RevocationStore, run: &str, at: Instants) {
    for (value, kind) in twice(run) {
        let ends = if value.ends_with("-long-first") { [LONG, SHORT] } else { [SHORT, LONG] };
        for end in ends {
            if let Ok(mut revocation) = revocation(kind, &value, at) {
                // The earlier one of the same subject meets fewer tokens: both its ends move.
                if kind == RevocationKind::Subject && end == SHORT && value.ends_with("-short-first") {
                    revocation = revocation.issued_until(at.unix_seconds().saturating_sub(EARLIER));
                }
                let revocation = revocation.until(at.unix_seconds().saturating_add(end));
                let revoked = store.revoke(&revocation, at).await;
                assert!(revoked.is_ok(), "what is revoked may be revoked again: {revoked:?}");
            }
        }
    }
}

/// By the wall clock; a state is trusted by the other one.
const fn shortly_before_the_end(at: Instants) -> Instants {
    let long = LONG.saturating_sub(1).saturating_mul(1_000_000_000);
    Instants::new(at.unix_nanos().saturating_add(long), at.monotonic_nanos())
}

fn revocation(kind: RevocationKind, value: &str, at: Instants) -> Result<Revocation, ConfigError> {
    match kind {
        RevocationKind::Token => Revocation::token(ISSUER, value),
        RevocationKind::Session => Revocation::session(ISSUER, value),
        RevocationKind::Subject => Revocation::subject(ISSUER, value, at.unix_seconds()),
        RevocationKind::Client => Revocation::client(ISSUER, value),
        RevocationKind::Key => Revocation::key(ISSUER, value),
    }
}

/// The marks of a token that was issued ten seconds ago.
fn marks(issuer: &str, kind: RevocationKind, value: &str, at: Instants) -> TokenMarks {
    let marks = TokenMarks::new(issuer).issued_at(at.unix_seconds().saturating_sub(10));
    match kind {
        RevocationKind::Token => marks.token(value),
        RevocationKind::Session => marks.session(value),
        RevocationKind::Subject => marks.subject(value),
        RevocationKind::Client => marks.client(value),
        RevocationKind::Key => marks.key(value),
    }
}
