//! Tokens that name a key which is not there.

use std::time::Duration;

use portcullis::{
    Clock, Now, RequestHead,
    authn::Authenticator,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, KeySet,
        keys::{KeySource, LiveKeys, Refresh},
    },
};
use tokio::{
    task::JoinSet,
    time::{advance, sleep},
};

use super::origin::{House, ISSUER, Origin, SET, Script, Signer, TokioClock, seconds, set_of, status};

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_found_by_the_request_that_needs_it() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    origin.serve(SET, set_of(&[old.jwk(), new.jwk()]));
    assert_eq!(house.status(&new.token()).await, 503, "fetched a moment ago: not known, and not refused");
    advance(seconds(30)).await;
    assert_eq!(house.status_now(&new.token()), 503, "who cannot wait is not told that the token is bad");
    assert_eq!(house.status(&new.token()).await, 200);
    assert_eq!(origin.fetches(), 2);
    assert_eq!(house.status_now(&new.token()), 200);
    assert_eq!(house.status_now(&old.token()), 200);
    assert_eq!(house.keys.generation(house.now()), Some(2));

    origin.serve(SET, set_of(&[new.jwk()]));
    while origin.fetches() == 2 {
        sleep(seconds(1)).await;
    }
    assert_eq!(house.status(&old.token()).await, 503, "the key is gone; whether it came back is not known");
    sleep(seconds(31)).await;
    assert_eq!(house.status(&old.token()).await, 401);
    assert_eq!(house.status_now(&old.token()), 401, "and that is remembered");
}

/// A remembered token goes with its key, at the moment in which the set changes; those of other issuers stay.
#[tokio::test(start_paused = true)]
async fn what_is_remembered_ends_with_the_keys_that_verified_it() {
    let (old, new, theirs) = (Signer::new(0, "a"), Signer::new(1, "a"), Signer::new(2, "a"));
    let (origin, other, clock) = (Origin::serving(&[old.jwk()]), "https://other.example.com", TokioClock::new());
    let keys = LiveKeys::jwks_url(SET).http(origin.clone()).clock(clock.clone()).build().unwrap();
    let fixed = KeySet::from_jwks(&set_of(&[theirs.jwk()])).unwrap();
    let profiles = [Issuer::with_keys(ISSUER, keys.clone()), Issuer::fixed(other, fixed)]
        .map(|issuer| issuer.access_tokens("orders-api").algorithms([Algorithm::ES256]));
    let [first, second] = profiles;
    let jwt = JwtAuthenticator::builder().issuer(first).issuer(second).build().unwrap();
    keys.load().await.unwrap();
    let verdict = |token: &str| status(jwt.verify(token, clock.now()));
    let (ours, theirs) = (old.token(), theirs.token_of(other, 9_000_000_000));
    for hits in [0, 2] {
        assert_eq!((verdict(&ours), verdict(&theirs)), (200, 200));
        assert_eq!(jwt.cache_stats().unwrap().hits, hits);
    }

    // Another key by the same name: nothing but the set's change tells the two apart.
    origin.serve(SET, set_of(&[new.jwk()]));
    while keys.generation(clock.now()) == Some(1) {
        assert_eq!(verdict(&ours), 200, "until the set changes");
        sleep(seconds(1)).await;
    }
    let before = jwt.cache_stats().unwrap().hits;
    assert_eq!((verdict(&ours), verdict(&new.token())), (401, 200));
    assert_eq!(verdict(&theirs), 200);
    assert_eq!(jwt.cache_stats().unwrap().hits, before + 1, "theirs alone");
}

#[tokio::test(start_paused = true)]
async fn a_kid_that_is_absent_is_remembered_for_a_while() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    let bogus = Signer::new(1, "bogus").token();
    advance(seconds(31)).await;
    assert_eq!(house.status(&bogus).await, 401);
    assert_eq!(origin.fetches(), 2);
    for _ in 0..29 {
        advance(seconds(1)).await;
        assert_eq!(house.status(&bogus).await, 401);
        assert_eq!(house.status_now(&bogus), 401);
    }
    assert_eq!(origin.fetches(), 2);
    advance(seconds(2)).await;
    assert_eq!(house.status(&bogus).await, 401);
    assert_eq!(origin.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_bogus_kids_cost_few_fetches_and_hurt_nobody() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    let good = old.token();
    let mut request = http::Request::new(());
    request.headers_mut().insert("authorization", format!("Bearer {good}").parse().unwrap());
    let mut refused = [0, 0];
    for number in 0..10_000 {
        if number % 100 == 0 {
            advance(seconds(1)).await;
        }
        match house.status(&Signer::new(2, &format!("bogus-{number}")).token()).await {
            401 => refused[0] += 1,
            503 => refused[1] += 1,
            other => panic!("{other}"),
        }
        let at_once = house.jwt.authenticate_now(&RequestHead::of(&request), house.now());
        assert!(matches!(at_once, Now::Known(portcullis::authn::Outcome::Verified(_))), "{number}: {at_once:?}");
    }
    // 100 s: one in 30 s.
    assert!((3..=5).contains(&origin.fetches()), "{}", origin.fetches());
    assert_eq!(refused.iter().sum::<usize>(), 10_000);
    assert!(refused[0] <= 4, "{refused:?}");

    // A key that is rotated amid the flood is found within half a minute.
    origin.serve(SET, set_of(&[new.jwk()]));
    let mut waited = 0;
    while house.status(&new.token()).await != 200 {
        advance(seconds(1)).await;
        waited += 1;
        for number in 0..20 {
            let _ = house.status(&Signer::new(2, &format!("more-{waited}-{number}")).token()).await;
        }
    }
    assert!(waited <= 31, "{waited} s");
}

/// Whether its keys have names or not: an issuer's tokens may name none.
#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_found_by_a_token_that_names_none() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let unnamed = |key: &Signer| key.jwk().replace(&format!(r#""kid":"{}","#, key.kid), "");
    for (name, before, after) in
        [("named", old.jwk(), new.jwk()), ("unnamed", unnamed(&old), unnamed(&new)), ("one", unnamed(&old), new.jwk())]
    {
        let origin = Origin::serving(&[&before]);
        let house = House::loaded(&origin).await;
        let (of_old, of_new) = (old.nameless(9_000_000_000), new.nameless(9_000_000_000));
        assert_eq!(house.status(&of_old).await, 200, "{name}");
        origin.serve(SET, set_of(&[&after]));
        assert_eq!(house.status(&of_new).await, 503, "{name}: fetched a moment ago: not known, and not refused");
        advance(seconds(30)).await;
        assert_eq!(house.status_now(&of_new), 503, "{name}: who cannot wait is not told that the token is bad");
        assert_eq!(house.status(&of_new).await, 200, "{name}");
        assert_eq!((house.status_now(&of_new), origin.fetches()), (200, 2), "{name}");
        assert_eq!(house.status(&of_old).await, 503, "{name}: whether the old key came back is not known");
        advance(seconds(30)).await;
        assert_eq!((house.status(&of_old).await, origin.fetches()), (401, 3), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_forged_tokens_without_a_kid_cost_few_fetches_and_hurt_nobody() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    let mut refused = [0, 0];
    for number in 0..10_000 {
        if number % 100 == 0 {
            advance(seconds(1)).await;
        }
        match house.status(&Signer::new(2, "c").nameless(8_000_000_000 + number)).await {
            401 => refused[0] += 1,
            503 => refused[1] += 1,
            other => panic!("{other}"),
        }
        if number % 10 == 0 {
            assert_eq!(house.status_now(&old.nameless(9_000_000_000 + number)), 200, "{number}: not seen before");
        }
    }
    // 100 s: one in 30 s, as for made-up kids.
    assert!((3..=5).contains(&origin.fetches()), "{}", origin.fetches());
    assert_eq!(refused.iter().sum::<usize>(), 10_000);
    assert!(refused[0] <= 4, "{refused:?}: refused is who waited for an answer");

    // Keys that are rotated amid the flood are found within half a minute, and nobody is told before that their token is bad.
    origin.serve(SET, set_of(&[new.jwk()]));
    let (mut waited, mut last) = (0, 0);
    while last != 200 {
        advance(seconds(1)).await;
        waited += 1;
        for number in 0..20 {
            let kid = format!("more-{waited}-{number}");
            let _ = house.status(&Signer::new(2, "c").nameless(7_000_000_000 + waited * 100 + number)).await;
            let _ = house.status(&Signer::new(2, &kid).token()).await;
        }
        last = house.status(&new.nameless(9_000_000_000)).await;
        assert!(last == 200 || last == 503, "{waited} s: {last}");
    }
    assert!(waited <= 31, "{waited} s");
    assert_eq!(house.status_now(&new.token()), 200, "one that names it as well");
}

/// All who name no key ask for the same: they take the place of one kid.
#[tokio::test(start_paused = true)]
async fn tokens_without_a_kid_share_one_place_among_those_that_wait() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    origin.delay(seconds(4));
    advance(seconds(31)).await;
    let mut waiting = JoinSet::new();
    let wait_for = |kid: Option<String>| {
        let (keys, at) = (house.keys.clone(), house.now());
        async move { keys.refresh_for(kid.as_deref(), 1, at).await }
    };
    let kids = (0..4).map(|number| Some(format!("bogus-{number}")));
    for kid in std::iter::repeat_n(None, 1_000).chain(kids) {
        waiting.spawn(wait_for(kid));
        tokio::task::yield_now().await;
    }
    let Refresh::Unavailable(later) = wait_for(Some("bogus-4".to_owned())).await else { panic!("a sixth waits") };
    assert_eq!(later.retry_after(), Duration::from_secs(10));
    // An empty kid is a name like any other.
    assert!(matches!(wait_for(Some(String::new())).await, Refresh::Unavailable(_)));
    assert!(waiting.join_all().await.iter().all(|answer| *answer == Refresh::LookAgain));
    assert_eq!(origin.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_fetch() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    origin.serve(SET, set_of(&[old.jwk(), new.jwk()]));
    origin.delay(seconds(1));
    advance(seconds(31)).await;
    let mut requests = JoinSet::new();
    for _ in 0..1_000 {
        let (jwt, token, at) = (house.jwt.clone(), new.token(), house.now());
        requests.spawn(async move { jwt.verify_waiting(&token, at).await.is_ok() });
    }
    assert!(requests.join_all().await.into_iter().all(|verified| verified));
    assert_eq!(origin.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_requests_share_one_fetch() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    origin.delay(seconds(1));
    let house = House::of(&origin);
    let mut requests = JoinSet::new();
    for _ in 0..1_000 {
        let (jwt, token, at) = (house.jwt.clone(), key.token(), house.now());
        requests.spawn(async move { jwt.verify_waiting(&token, at).await.is_ok() });
    }
    assert!(requests.join_all().await.into_iter().all(|verified| verified));
    assert_eq!(origin.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn five_kids_may_wait_and_the_sixth_is_told_to_come_back() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    origin.delay(seconds(4));
    advance(seconds(31)).await;
    let mut waiting = JoinSet::new();
    let wait_for = |number: usize| {
        let (keys, at) = (house.keys.clone(), house.now());
        async move { keys.refresh_for(Some(&format!("bogus-{number}")), 1, at).await }
    };
    for number in 0..5 {
        waiting.spawn(wait_for(number));
        tokio::task::yield_now().await;
        // Later than the fetch.
        advance(Duration::from_millis(1)).await;
    }
    let Refresh::Unavailable(later) = wait_for(5).await else { panic!("a sixth kid waits") };
    assert_eq!(later.retry_after(), Duration::from_secs(10), "one comes back every 10 s");
    let again = wait_for(0).await;
    assert_eq!(again, Refresh::NothingNew, "a kid that is asked for costs nothing");
    let answers = waiting.join_all().await;
    let told = answers
        .iter()
        .filter(|answer| matches!(answer, Refresh::Unavailable(later) if later.retry_after().as_secs() == 26));
    assert_eq!(told.count(), 4, "the origin was asked before they came: {answers:?}");
    assert!(answers.contains(&Refresh::LookAgain), "the first one");
    assert_eq!(origin.fetches(), 2);
}

/// A token whose key was rotated in since the origin was asked is good, and is not told otherwise.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_under_way_says_nothing_of_a_key_that_came_later() {
    let (old, new, bogus) = (Signer::new(0, "a"), Signer::new(1, "b"), Signer::new(2, "bogus"));
    let nameless = new.jwk().replace(r#""kid":"b","#, "");
    let rows = [
        ("a fetch for another kid", true, vec![old.jwk()], &bogus, 401, 503),
        ("the first fetch", false, vec![old.jwk()], &old, 200, 503),
        ("the first fetch brings a key that answers to any kid", false, vec![old.jwk(), nameless], &old, 200, 200),
        ("the first fetch brings it", false, vec![old.jwk(), new.jwk()], &old, 200, 200),
    ];
    for (name, loaded, before, first, of_first, of_later) in rows {
        let origin = Origin::serving(&before);
        let house = House::of(&origin);
        if loaded {
            house.keys.load().await.unwrap();
            advance(seconds(31)).await;
        }
        origin.delay(seconds(4));
        let (jwt, token, at) = (house.jwt.clone(), first.token(), house.now());
        let waiting = tokio::spawn(async move { status(jwt.verify_waiting(&token, at).await) });
        while origin.fetches() == usize::from(loaded) {
            tokio::task::yield_now().await;
        }
        origin.serve(SET, set_of(&[old.jwk(), new.jwk()]));
        advance(seconds(1)).await;
        let later = house.jwt.verify_waiting(&new.token(), house.now()).await;
        if let Err(rejection) = &later {
            assert_eq!(
                rejection.to_response::<()>().headers()["retry-after"],
                "26",
                "{name}: 30 s after the fetch began"
            );
        }
        assert_eq!((waiting.await.unwrap(), status(later)), (of_first, of_later), "{name}");
        origin.delay(seconds(0));
        advance(seconds(26)).await;
        assert_eq!(house.status(&new.token()).await, 200, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_does_not_take_the_fetch_along() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    origin.serve(SET, set_of(&[new.jwk()]));
    origin.delay(seconds(1));
    advance(seconds(31)).await;
    let token = new.token();
    let gone = tokio::time::timeout(Duration::from_millis(1), house.jwt.verify_waiting(&token, house.now()));
    assert!(gone.await.is_err());
    sleep(seconds(1)).await;
    assert_eq!(house.status_now(&token), 200);
    assert_eq!(origin.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_while_the_origin_is_down() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let house = House::loaded(&origin).await;
    origin.script(SET, Script::Down("away"));
    advance(seconds(31)).await;
    assert_eq!(house.status(&new.token()).await, 503, "not known, so not refused");
    assert_eq!(origin.fetches(), 2);
    assert_eq!(house.status_now(&old.token()), 200);
    origin.serve(SET, set_of(&[new.jwk()]));
    sleep(seconds(61)).await;
    assert_eq!(house.status_now(&new.token()), 200, "the failed refresh is repeated");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_anyway_is_not_fetched_for() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    let bogus = Signer::new(1, "bogus");
    advance(seconds(31)).await;
    let header = |kid: &str| format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{kid}"}}"#);
    let claims = r#"{"iss":"https://id.example.com","sub":"a","aud":"another","exp":9000000000}"#;
    let mut forged = key.token();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let rows = [
        ("unknown issuer", bogus.token_of("https://evil.example.com", 9_000_000_000)),
        ("issuer with a slash", bogus.token_of(&format!("{ISSUER}/"), 9_000_000_000)),
        ("expired", bogus.token_of(ISSUER, 1_700_000_001)),
        ("another audience", bogus.sign(&header("bogus"), claims)),
        ("a known kid, a bad signature", forged),
        ("a known kid, another key", Signer::new(1, "a").token()),
        ("no kid, another audience", bogus.sign(r#"{"alg":"ES256","typ":"at+jwt"}"#, claims)),
        ("a kid that is too long", Signer::new(1, &"k".repeat(300)).token()),
        ("not a token", "a.b.c".to_owned()),
    ];
    for (name, token) in rows {
        assert_eq!(house.status(&token).await, 401, "{name}");
        assert_eq!(house.status_now(&token), 401, "{name}");
    }
    assert_eq!(origin.fetches(), 1);
}
