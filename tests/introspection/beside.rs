//! Other credentials beside opaque tokens: nobody's live secret goes to a provider that did not issue it.

use std::sync::Arc;

use portcullis::{
    Challenge, Connection, Now, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead,
    api_key::{ApiKeyAuthenticator, KeyHash, KeyIssuer, LegacyFormat, MemoryKeyStore, NewApiKey, RecordFields},
    authn::{Authenticator, Outcome, authenticate_fn, both, one_of},
    conformance::{self, AuthenticatorFixture},
    guard::{authenticated, require},
    jwt::{
        CookiePlace, CsrfRules,
        introspection::{ByShape, by_shape},
    },
    rate_limit::{FailureBudget, Quota},
    stack::Stack,
    testing::TestClock,
};

use super::{
    provider::{AT, Provider, ask, bearer, now, principal, request, status},
    shapes,
};
use crate::{
    mint::{CLAIMS, with_claims},
    support::{NOW, Probe, Waiting, send},
};

type Boxed = Box<dyn Authenticator>;

/// A store with one key, and the texts of keys that are good, mistyped and unknown.
struct Keys {
    store: Arc<MemoryKeyStore>,
    good: String,
    mistyped: String,
    unknown: String,
}

impl Keys {
    fn new() -> Self {
        let mint = || KeyIssuer::new().mint(NewApiKey::for_subject("billing"), AT).unwrap();
        let store = Arc::new(MemoryKeyStore::new());
        let ((good, record), (unknown, _)) = (mint(), mint());
        store.add(record).unwrap();
        let good = good.expose().to_owned();
        let last = if good.ends_with('0') { "1" } else { "0" };
        let mistyped = format!("{}{last}", good.split_at(good.len() - 1).0);
        Self { store, good, mistyped, unknown: unknown.expose().to_owned() }
    }

    fn at_once(&self) -> ApiKeyAuthenticator {
        ApiKeyAuthenticator::new(Arc::clone(&self.store))
    }

    /// As it is in a stack: at once, from a store that has to be waited for, and inside of others.
    fn all(&self) -> [(&'static str, Boxed); 3] {
        let nobody = authenticate_fn(Challenge::new("Device", "test").unwrap(), |_, _| Outcome::Absent);
        [
            ("at once", Box::new(self.at_once())),
            ("waiting", Box::new(Waiting(self.at_once()))),
            ("inside", Box::new(one_of((nobody, self.at_once())))),
        ]
    }
}

/// Both orders, of both ways to take opaque tokens.
fn combinations(provider: &Provider, keys: &Keys) -> Vec<(String, Boxed)> {
    let mut all: Vec<(String, Boxed)> = Vec::new();
    for shaped in [false, true] {
        for last in [false, true] {
            for (how, keys) in keys.all() {
                let tokens: Boxed = if shaped { Box::new(shapes::both(provider)) } else { Box::new(provider.tokens()) };
                let pair = if last { vec![keys, tokens] } else { vec![tokens, keys] };
                let name = format!("{how}, by_shape: {shaped}, keys last: {}", !last);
                all.push((name, Box::new(one_of(pair))));
            }
        }
    }
    all
}

#[tokio::test]
async fn an_api_key_is_never_handed_to_the_provider() {
    // It would say yes to everything.
    let provider = Provider::saying(super::provider::active("")).await;
    let keys = Keys::new();
    for (name, either) in combinations(&provider, &keys) {
        // Twice: what is remembered by whom must not matter.
        for round in 0..2 {
            let verified = principal(bearer(&either, &keys.good, AT).await);
            assert_eq!((verified.subject(), verified.credential()), ("billing", "api_key"), "{name}, {round}");
            for (kind, key) in [("mistyped", &keys.mistyped), ("unknown", &keys.unknown)] {
                let outcome = bearer(&either, key, AT).await;
                let refused = matches!(&outcome, Outcome::Refused(refused) if refused.status() == 401);
                assert!(refused, "{name}, {round}: {kind}: {outcome:?}");
            }
        }
        assert_eq!(provider.calls(), 0, "{name}");
    }
}

#[tokio::test]
async fn opaque_tokens_and_keys_share_the_field_in_any_order() {
    let keys = Keys::new();
    for number in 0..12 {
        let provider = Provider::usual().await;
        let (name, either) = combinations(&provider, &keys).swap_remove(number);
        for _ in 0..2 {
            assert_eq!(principal(bearer(&either, "good-opaque", AT).await).credential(), "introspection", "{name}");
            assert_eq!(status(&bearer(&either, "bad-opaque", AT).await).0, 401, "{name}");
        }
        assert_eq!(provider.calls(), 2, "{name}: then they are remembered");
        // Two credentials are still two.
        let mut two = request("Bearer", "good-opaque");
        two.headers_mut().insert("x-api-key", keys.good.parse().unwrap());
        let outcome = ask(&either, &two, AT).await;
        assert!(matches!(&outcome, Outcome::Refused(refused) if refused.status() == 400), "{name}: {outcome:?}");
    }
}

/// A key that somebody asked the provider about before, by another way, is known there as refused; keys know better.
#[tokio::test]
async fn what_is_remembered_of_a_key_does_not_count() {
    let (provider, keys) = (Provider::usual().await, Keys::new());
    let tokens = provider.tokens();
    assert!(tokens.verify(&keys.good, AT).await.is_err());
    assert_eq!(provider.calls(), 1);
    let orders: [Boxed; 2] =
        [Box::new(one_of((tokens.clone(), keys.at_once()))), Box::new(one_of((keys.at_once(), tokens)))];
    for either in orders {
        let head = request("Bearer", &keys.good);
        let head = RequestHead::of(&head);
        let Now::Known(Outcome::Verified(_)) = either.authenticate_now(&head, AT) else { panic!("at once") };
        assert!(matches!(either.authenticate(&head, AT).await, Outcome::Verified(_)));
    }
    assert_eq!(provider.calls(), 1);
}

/// The budget of a source does not pay for good keys either.
#[tokio::test]
async fn through_a_stack_a_good_key_costs_nothing() {
    let (provider, keys) = (Provider::usual().await, Keys::new());
    let budget = FailureBudget::new().per_source(Quota::per_minute(6).burst(3)).unwrap();
    let stack = Stack::builder()
        .clock(TestClock::at_unix(NOW))
        .dangerous_plain_http()
        .authenticate(one_of((shapes::both(&provider), keys.at_once())))
        .failure_budget(budget)
        .fallback(require(authenticated()))
        .build()
        .unwrap()
        .protect(Probe::default());
    let of = async |credential: &str| {
        let mut request = request("Bearer", credential);
        request.extensions_mut().insert(Connection::plain(([198, 51, 100, 7], 52_100).into()));
        send(&stack, request).await.status()
    };
    for _ in 0..10 {
        assert_eq!(of(&keys.good).await, 200);
    }
    assert_eq!(provider.calls(), 0);
    assert_eq!(of("good-opaque").await, 200);
    assert_eq!(of(&with_claims(CLAIMS)).await, 200);
}

#[tokio::test]
async fn a_key_of_another_system_is_no_opaque_token() {
    let provider = Provider::usual().await;
    let store = MemoryKeyStore::new();
    let key = format!("sk_live_{}", "a".repeat(32));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let hash = KeyHash::from_bytes(digest.as_ref().try_into().unwrap());
    store.add(RecordFields::legacy(hash, "old", NOW, None).check().unwrap()).unwrap();
    let keys = ApiKeyAuthenticator::new(store).accept_legacy(LegacyFormat::new("sk_live_", 40..=40).unwrap());
    let either = one_of((provider.tokens(), keys));
    assert_eq!(principal(bearer(&either, &key, AT).await).subject(), "old");
    assert_eq!(status_of(&bearer(&either, &key.replace("aaaa", "bbbb"), AT).await), 401);
    assert_eq!(provider.calls(), 0);
}

#[tokio::test]
async fn where_both_are_wanted_a_key_is_no_token_of_its_own() {
    let (provider, keys) = (Provider::usual().await, Keys::new());
    let orders: [Boxed; 2] =
        [Box::new(both(keys.at_once(), provider.tokens())), Box::new(both(provider.tokens(), keys.at_once()))];
    for pair in orders {
        for key in [&keys.good, &keys.mistyped, &keys.unknown] {
            assert_eq!(status_of(&bearer(&pair, key, AT).await), 401);
        }
        assert_eq!(provider.calls(), 0);
    }
    let pair = both(keys.at_once(), provider.tokens());
    let mut two = request("Bearer", "good-opaque");
    two.headers_mut().insert("x-api-key", keys.good.parse().unwrap());
    let Outcome::Verified(identity) = ask(&pair, &two, AT).await else { panic!("two credentials") };
    assert_eq!(identity.in_slot(portcullis::Slot::Subject).unwrap().subject(), "alice");
    assert_eq!(provider.calls(), 1);
    // Whose key is bad is refused before anybody is asked.
    two.headers_mut().insert("x-api-key", keys.unknown.parse().unwrap());
    two.headers_mut().insert("authorization", "Bearer good-other".parse().unwrap());
    for pair in [Box::new(pair) as Boxed, Box::new(both(provider.tokens(), keys.at_once()))] {
        assert_eq!(status_of(&ask(&pair, &two, AT).await), 401);
    }
    assert_eq!(provider.calls(), 1);
}

/// Two providers: neither gets what may be the other's, unless beginnings tell them apart.
#[tokio::test]
async fn two_providers_do_not_get_each_other_s_tokens() {
    let (one, other, keys) = (Provider::usual().await, Provider::usual().await, Keys::new());
    let calls = || (one.calls(), other.calls());
    let undecided: [Boxed; 3] = [
        Box::new(one_of((one.tokens(), other.tokens(), keys.at_once()))),
        Box::new(one_of((one_of((one.tokens(), keys.at_once())), shapes::both(&other)))),
        Box::new(both(one.tokens(), other.tokens())),
    ];
    for (number, tokens) in undecided.iter().enumerate() {
        for _ in 0..2 {
            let outcome = bearer(tokens, "good-opaque", AT).await;
            assert_eq!(status_of(&outcome), 500, "{number}: {outcome:?}");
            let at_once = now(tokens, "good-opaque", AT);
            assert!(matches!(at_once, Now::Known(Outcome::Refused(_))), "{number}: {at_once:?}");
        }
        assert_eq!(status_of(&ask(tokens, &http::Request::new(()), AT).await), 0, "{number}: no credential");
    }
    assert_eq!(status_of(&bearer(&undecided[0], &keys.good, AT).await), 200, "whose it is is known");
    assert_eq!(calls(), (0, 0));

    let tokens = |provider: &Provider, prefixes: &[&str]| {
        provider.builder().only_beginning_with(prefixes.iter().copied()).build().unwrap()
    };
    let orders: [Boxed; 2] = [
        Box::new(one_of((tokens(&one, &["good_a", "bad_a"]), tokens(&other, &["good_b"])))),
        Box::new(one_of((tokens(&other, &["good_b"]), tokens(&one, &["good_a", "bad_a"])))),
    ];
    for (order, either) in orders.iter().enumerate() {
        let called = calls();
        for (token, expected, asked) in [
            ("good_a1", 200, (1, 0)),
            ("good_b1", 200, (1, 1)),
            ("bad_a", 401, (2, 1)),
            // For nobody.
            ("good_c", 0, (2, 1)),
            ("good_", 0, (2, 1)),
            ("Good_a1", 0, (2, 1)),
        ] {
            let outcome = bearer(either, token, AT).await;
            assert_eq!(status_of(&outcome), expected, "{token}, {order}: {outcome:?}");
            assert_eq!(calls(), (called.0 + asked.0, called.1 + asked.1), "{token}, {order}");
        }
    }
}

#[tokio::test]
async fn what_does_not_begin_so_is_nobody_s() {
    let provider = Provider::usual().await;
    let tokens = || provider.builder().only_beginning_with(["good-o"]).build().unwrap();
    let shaped = by_shape(shapes::jwts().build().unwrap(), tokens()).unwrap();
    // By another way it was asked for, and is remembered.
    assert!(shaped.verify("good-other", AT).await.is_ok() && tokens().verify("good-x", AT).await.is_ok());
    assert!(shaped.verify("good-x", AT).await.is_ok());
    let calls = provider.calls();
    assert_eq!(status_of(&bearer(&shaped, "good-x", AT).await), 0);
    assert_eq!(status_of(&bearer(&shaped, "good-other", AT).await), 200);
    assert_eq!(status_of(&bearer(&shaped, &with_claims(CLAIMS), AT).await), 200);
    assert_eq!(provider.calls(), calls);
    for bad in [vec![], vec![""], vec!["good", ""], vec!["a b"], vec!["a="], vec!["ä"]] {
        let error = provider.builder().only_beginning_with(bad.clone()).build().unwrap_err().to_string();
        assert!(error.contains("opaque tokens"), "{bad:?}: {error}");
    }
}

/// Somebody's own authenticator needs no claim of its own to be asked first.
#[tokio::test]
async fn a_token_of_an_authenticator_of_your_own_is_not_disclosed() {
    let provider = Provider::saying(super::provider::active("")).await;
    let mine = || {
        authenticate_fn(Challenge::new("Bearer", "mine").unwrap(), |head, _| match head.authorization() {
            Ok(Some(credential)) if credential.token() == "mine-4711" => {
                Outcome::verified(Principal::builder(PrincipalKind::User, "mine", "me", "mine").build())
            }
            Ok(Some(credential)) if credential.token().starts_with("mine-") => {
                Rejection::new(RejectionKind::InvalidCredential, "not mine").into()
            }
            Ok(_) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        })
    };
    let orders: [Boxed; 4] = [
        Box::new(one_of((provider.tokens(), mine()))),
        Box::new(one_of((mine(), shapes::both(&provider)))),
        Box::new(one_of((provider.tokens(), Waiting(mine())))),
        Box::new(one_of((one_of((provider.tokens(), mine())), shapes::jwts().build().unwrap()))),
    ];
    for (order, either) in orders.iter().enumerate() {
        assert_eq!(principal(bearer(either, "mine-4711", AT).await).subject(), "me", "{order}");
        assert_eq!(status_of(&bearer(either, "mine-0000", AT).await), 401, "{order}");
        assert_eq!(provider.calls(), order, "{order}");
        assert_eq!(principal(bearer(either, "opaque", AT).await).subject(), "alice", "{order}");
    }
}

/// A cookie beside a key that another one took is not looked at, and a field of one's own is a second credential.
#[tokio::test]
async fn other_places_of_tokens_still_count() {
    let (provider, keys) = (Provider::usual().await, Keys::new());
    let place = CookiePlace::new("__Host-session", CsrfRules::same_origin()).unwrap();
    let jwt = shapes::jwts().cookie(place).header("x-token").build().unwrap();
    let tokens = by_shape(jwt, provider.tokens()).unwrap();
    for either in [one_of((tokens.clone(), keys.at_once())), one_of((keys.at_once(), tokens))] {
        let mut with_cookie = request("Bearer", &keys.good);
        with_cookie.headers_mut().insert("cookie", "__Host-session=good-cookie".parse().unwrap());
        with_cookie.headers_mut().insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(principal(ask(&either, &with_cookie, AT).await).subject(), "billing");
        assert_eq!(provider.calls(), 0);
    }
    let either = one_of((keys.at_once(), provider_with_field(&provider)));
    let mut with_field = request("Bearer", &keys.good);
    with_field.headers_mut().insert("x-token", "good-field".parse().unwrap());
    assert_eq!(status_of(&ask(&either, &with_field, AT).await), 400);
    let sent: Vec<_> = provider.asked().iter().map(|asked| asked.form["token"].clone()).collect();
    assert_eq!(sent, ["good-field"]);
}

fn provider_with_field(provider: &Provider) -> ByShape {
    by_shape(shapes::jwts().header("x-token").build().unwrap(), provider.tokens()).unwrap()
}

#[tokio::test]
async fn the_suite_of_authenticators() {
    let (provider, keys) = (Provider::usual().await, Keys::new());
    let fixture = AuthenticatorFixture::new(AT)
        .discloses()
        .good(request("Bearer", "good-token-of-alice-that-is-long"))
        .good(request("Bearer", &keys.good))
        .bad(request("Bearer", &keys.mistyped))
        .bad(request("Bearer", "token-of-nobody-that-is-long"))
        .absent(http::Request::new(()))
        .absent(request("Basic", "YWxpY2U6c2VjcmV0"));
    conformance::authenticator(&one_of((provider.tokens(), keys.at_once())), &fixture).await;
    conformance::authenticator(&one_of((keys.at_once(), provider.tokens())), &fixture).await;
    // One that forgets to hand on what the one inside says.
    let careless = tokio::spawn(async move { conformance::authenticator(&Waiting(provider.tokens()), &fixture).await });
    assert!(careless.await.unwrap_err().is_panic());
}

fn status_of(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection) => rejection.status().as_u16(),
        Outcome::Verified(_) => 200,
        Outcome::Absent => 0,
    }
}
