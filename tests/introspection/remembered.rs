//! What is remembered, for how long, and how often the provider is asked.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use portcullis::{
    Clock, Ended, Instants, Now, RequestHead, StoreError, SystemClock,
    authn::{Authenticator, Outcome},
    http_client::{FetchLimits, HttpFetch},
    jwt::TokenCache,
    testing::TestClock,
};

use super::provider::{AT, Provider, active, bearer, json, now, principal, request, status};
use crate::support::NOW;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_hundred_at_once_ask_once() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    for (round, token, expected) in [(1, "good", 200), (2, "bad", 401)] {
        provider.hold();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let tokens = tokens.clone();
                tokio::spawn(async move { status(&bearer(&tokens, token, SystemClock::new().now()).await).0 })
            })
            .collect();
        provider.now_replies(|asked| match asked.form["token"].as_str() {
            "good" => json(active(r#""exp":9000000000,"iat":1700000000"#)),
            _ => json(r#"{"active":false}"#),
        });
        provider.called(round).await;
        provider.open();
        for task in tasks {
            assert_eq!(task.await.unwrap(), expected);
        }
        assert_eq!(provider.calls(), round, "{token}");
    }
}

#[tokio::test]
async fn if_who_asks_goes_away_the_next_one_asks() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    provider.hold();
    let ask = || {
        let tokens = tokens.clone();
        tokio::spawn(async move { status(&bearer(&tokens, "good", AT).await).0 })
    };
    let first = ask();
    provider.called(1).await;
    let second = ask();
    tokio::task::yield_now().await;
    first.abort();
    provider.called(2).await;
    provider.open();
    assert_eq!(second.await.unwrap(), 200);
    assert_eq!(provider.calls(), 2);
}

#[tokio::test]
async fn a_good_token_is_answered_at_once_for_a_minute() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    assert!(matches!(now(&tokens, "good", clock.now()), Now::Wait));
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 200);
    for _ in 0..60 {
        assert!(matches!(now(&tokens, "good", clock.now()), Now::Known(Outcome::Verified(_))));
        assert_eq!(provider.calls(), 1);
        clock.advance(SECOND);
    }
    assert!(matches!(now(&tokens, "good", clock.now()), Now::Wait));
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 200);
    assert_eq!(provider.calls(), 2);
    let stats = tokens.cache_stats().unwrap();
    assert_eq!((stats.hits, stats.misses, stats.entries), (60, 2, 1));
    // Revoked at the provider: refused once the time is over, and not before.
    provider.now_says(r#"{"active":false}"#);
    clock.advance(59 * SECOND);
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 200);
    clock.advance(SECOND);
    assert_eq!(status(&bearer(&tokens, "good", clock.now()).await).0, 401);
}

#[tokio::test]
async fn a_hit_allocates_nothing() {
    let provider = Provider::usual().await;
    let (alone, beside) = (provider.tokens(), super::shapes::both(&provider));
    for (name, tokens) in [("alone", &alone as &dyn Authenticator), ("beside JWTs", &beside)] {
        let request = request("Bearer", "good-token-of-alice");
        let head = RequestHead::of(&request);
        assert!(matches!(tokens.authenticate(&head, AT).await, Outcome::Verified(_)));
        for _ in 0..2 {
            let allocated = allocation_counter::measure(|| {
                assert!(matches!(tokens.authenticate_now(&head, AT), Now::Known(Outcome::Verified(_))));
            });
            assert_eq!(allocated.count_total, 0, "{name}");
        }
    }
    assert_eq!(provider.calls(), 2);
}

#[tokio::test]
async fn nothing_is_remembered_past_exp() {
    let provider = Provider::saying(active(&format!(r#""exp":{}"#, NOW + 10))).await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
    clock.advance(Duration::from_millis(9_999));
    assert!(matches!(now(&tokens, "t", clock.now()), Now::Known(Outcome::Verified(_))));
    clock.advance(Duration::from_millis(1));
    assert!(matches!(now(&tokens, "t", clock.now()), Now::Wait));
    // The provider's clock is behind, and it says still that the token is active: within the leeway that counts, each time anew.
    for call in 2..5 {
        assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
        assert_eq!(provider.calls(), call);
    }
    clock.advance(60 * SECOND);
    assert_eq!(status(&bearer(&tokens, "t", clock.now()).await), (401, "token expired".to_owned()));
    // A wall clock that goes back makes nothing last longer.
    let tokens = provider.tokens();
    clock.set_unix(NOW);
    assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
    clock.set_unix(NOW - 5);
    assert!(matches!(now(&tokens, "t", clock.now()), Now::Wait));
}

#[tokio::test]
async fn without_an_end_of_its_own_a_token_is_remembered_for_the_time_alone() {
    let provider = Provider::saying(active(r#""exp":null"#)).await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.builder().without_exp().remember_for(5 * SECOND).build().unwrap();
    for _ in 0..5 {
        assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
        assert_eq!(provider.calls(), 1);
        clock.advance(SECOND);
    }
    assert_eq!(status(&bearer(&tokens, "t", clock.now()).await).0, 200);
    assert_eq!(provider.calls(), 2);
}

/// What a stream goes by that outlasts its request.
#[tokio::test]
async fn without_an_end_of_its_own_a_token_counts_until_it_would_be_asked_about_again() {
    let provider = Provider::saying(active(r#""exp":null"#)).await;
    let clock = TestClock::at_unix(NOW);
    for cached in [true, false] {
        let builder = provider.builder().without_exp().remember_for(5 * SECOND);
        let tokens = if cached { builder } else { builder.without_cache() }.build().unwrap();
        provider.now_says(active(r#""exp":null"#));
        let endless = principal(bearer(&tokens, "t", clock.now()).await);
        for second in 0..5 {
            assert_eq!(endless.counts(clock.now()).await, Ok(()), "{second}");
            clock.advance(SECOND);
        }
        assert_eq!(endless.counts_now(clock.now()), Now::Known(Err(Ended::Expired)));
        // One with an end counts until then.
        provider.now_says(active(&format!(r#""exp":{}"#, NOW + 1_000)));
        let other = principal(bearer(&tokens, "u", clock.now()).await);
        clock.advance(60 * SECOND);
        assert_eq!(other.counts(clock.now()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_at_once_for_two_seconds() {
    let provider = Provider::usual().await;
    let clock = TestClock::at_unix(NOW);
    let tokens = provider.tokens();
    for call in 1..4 {
        assert!(matches!(now(&tokens, "bad", clock.now()), Now::Wait));
        assert_eq!(status(&bearer(&tokens, "bad", clock.now()).await).0, 401);
        clock.advance(Duration::from_millis(1_999));
        assert!(matches!(now(&tokens, "bad", clock.now()), Now::Known(Outcome::Refused(_))));
        assert_eq!(provider.calls(), call);
        // Real time passed besides, from the request to the refusal: the exact end is the next test's.
        clock.advance(SECOND);
    }
    // One that becomes good meanwhile.
    provider.now_says(active(""));
    assert_eq!(status(&bearer(&tokens, "bad", clock.now()).await).0, 200);
}

/// A provider that knows no token, and takes a second and a half to say so.
#[derive(Debug)]
struct Slow;

#[async_trait::async_trait]
impl HttpFetch for Slow {
    async fn fetch(&self, _: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Ok(Response::new(Bytes::from_static(br#"{"active":false}"#)))
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_refusal_begins_when_it_comes() {
    let tokens = Provider::usual().await.builder().http(Slow).build().unwrap();
    let later = |millis: u64| Instants::new(AT.unix_nanos() + millis * 1_000_000, millis * 1_000_000);
    assert_eq!(status(&bearer(&tokens, "bad", AT).await).0, 401);
    for known in [0, 1_500, 2_000, 3_499] {
        assert!(matches!(now(&tokens, "bad", later(known)), Now::Known(Outcome::Refused(_))), "{known}");
    }
    assert!(matches!(now(&tokens, "bad", later(3_500)), Now::Wait));
    // Who waited for another's question, and asked in its place, waited for both.
    let first = bearer(&tokens, "worse", AT);
    let second = bearer(&tokens, "worse", AT);
    let hang_up = async { tokio::time::timeout(SECOND, first).await.unwrap_err() };
    assert_eq!(status(&tokio::join!(hang_up, second).1).0, 401);
    assert!(matches!(now(&tokens, "worse", later(4_499)), Now::Known(Outcome::Refused(_))));
    assert!(matches!(now(&tokens, "worse", later(4_500)), Now::Wait));
}

#[tokio::test]
async fn random_tokens_push_out_no_good_one() {
    let provider = Provider::usual().await;
    let tokens =
        provider.builder().cache(TokenCache::new().max_entries(64)).max_refused(64).max_in_flight(10).build().unwrap();
    for number in 0..32 {
        assert_eq!(status(&bearer(&tokens, &format!("good-{number}"), AT).await).0, 200);
    }
    for number in 0..2_000 {
        assert_eq!(status(&bearer(&tokens, &format!("random-{number}"), AT).await).0, 401);
    }
    let calls = provider.calls();
    for number in 0..32 {
        assert!(matches!(now(&tokens, &format!("good-{number}"), AT), Now::Known(Outcome::Verified(_))), "{number}");
    }
    assert_eq!(provider.calls(), calls);
    assert_eq!(tokens.cache_stats().unwrap().evictions, 0);
    let known = (0..2_000).filter(|number| matches!(now(&tokens, &format!("random-{number}"), AT), Now::Known(_)));
    assert!(known.count() <= 64 + 4, "they are bounded");
}

#[tokio::test]
async fn all_is_forgotten_when_it_is_said() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    assert_eq!(status(&bearer(&tokens, "good", AT).await).0, 200);
    assert_eq!(status(&bearer(&tokens, "bad", AT).await).0, 401);
    tokens.forget_all();
    assert!(matches!(now(&tokens, "good", AT), Now::Wait) && matches!(now(&tokens, "bad", AT), Now::Wait));
}

#[tokio::test]
async fn a_good_answer_on_its_way_is_forgotten_as_well() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    provider.hold();
    let before = tokio::spawn({
        let tokens = tokens.clone();
        async move { status(&bearer(&tokens, "good", AT).await).0 }
    });
    provider.called(1).await;
    tokens.forget_all();
    provider.open();
    assert_eq!(before.await.unwrap(), 200);
    assert!(matches!(now(&tokens, "good", AT), Now::Wait));
    assert_eq!((status(&bearer(&tokens, "good", AT).await).0, provider.calls()), (200, 2));
    assert!(matches!(now(&tokens, "good", AT), Now::Known(Outcome::Verified(_))), "what was asked since is remembered");
}

#[tokio::test]
async fn a_refusal_on_its_way_is_forgotten_as_well() {
    let provider = Provider::usual().await;
    let tokens = provider.tokens();
    provider.hold();
    let before = tokio::spawn({
        let tokens = tokens.clone();
        async move { status(&bearer(&tokens, "bad", AT).await).0 }
    });
    provider.called(1).await;
    tokens.forget_all();
    provider.open();
    assert_eq!(before.await.unwrap(), 401);
    assert!(matches!(now(&tokens, "bad", AT), Now::Wait));
    provider.now_says(active(""));
    assert_eq!(status(&bearer(&tokens, "bad", AT).await).0, 200);
}

#[tokio::test]
async fn without_a_cache_each_request_asks() {
    let provider = Provider::usual().await;
    let tokens = provider.builder().without_cache().build().unwrap();
    for call in 1..4 {
        assert_eq!(status(&bearer(&tokens, "good", AT).await).0, 200);
        assert_eq!(provider.calls(), call);
    }
    assert!(tokens.cache_stats().is_none());
}

#[tokio::test]
async fn tokens_that_differ_in_one_bit_are_two_tokens() {
    let provider = Provider::start(|asked| match asked.form["token"].as_str() {
        "good0" => json(active("")),
        _ => json(r#"{"active":false}"#),
    })
    .await;
    let tokens = provider.tokens();
    assert_eq!(status(&bearer(&tokens, "good0", AT).await).0, 200);
    for other in ["good1", "Good0", "good0=", "good00", "good"] {
        assert_eq!(status(&bearer(&tokens, other, AT).await).0, 401, "{other}");
    }
    assert_eq!(provider.calls(), 6);
}
