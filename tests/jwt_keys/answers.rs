//! What an origin may answer, and what becomes of it.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use portcullis::{
    http_client::{FetchLimits, HttpFetch},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator,
        keys::{KeySource, LiveKeys, LiveKeysBuilder},
    },
};
use tokio::time::sleep;

use super::origin::{House, ISSUER, Origin, SET, Script, Signer, authenticator, seconds, set_of, status};

fn answer(status: u16, body: impl Into<Bytes>) -> Script {
    Script::Answer(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), body.into())
}

#[tokio::test(start_paused = true)]
async fn bad_answers_change_nothing_and_are_told() {
    let key = Signer::new(0, "a");
    let good = set_of(&[key.jwk()]);
    let private = key.jwk().replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
    let oct = r#"{"kty":"oct","kid":"s","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#;
    let mut too_long = good.clone();
    too_long.push_str(&" ".repeat(512 * 1024));
    let rows = [
        ("500", answer(500, good.clone()), "500"),
        ("404", answer(404, good.clone()), "404"),
        ("204", answer(204, ""), "204"),
        ("redirect", answer(302, good.clone()), "redirects are not followed"),
        ("304 unasked", answer(304, ""), "304"),
        ("oversize", answer(200, too_long), "more than 524288 bytes"),
        ("a page", answer(200, "<html>Maintenance</html>"), "JSON"),
        ("nothing", answer(200, ""), "JSON"),
        ("not UTF-8", answer(200, vec![0xff, 0xfe, b'{', 0]), "UTF-8"),
        ("an array", answer(200, "[]"), "JSON"),
        ("no keys", answer(200, "{}"), "keys"),
        ("keys twice", answer(200, format!(r#"{{"keys":[{}],"keys":[]}}"#, key.jwk())), "JSON"),
        ("an empty set", answer(200, r#"{"keys":[]}"#), "no key"),
        ("a private key alone", answer(200, set_of(&[&private])), "private"),
        ("a symmetric key alone", answer(200, set_of(&[oct])), "symmetric"),
        ("down", Script::Down("no route to host"), "no route to host"),
    ];
    for (name, script, cause) in rows {
        let origin = Origin::serving(&[key.jwk()]);
        let house = House::loaded(&origin).await;
        origin.script(SET, script.clone());
        sleep(seconds(490)).await;
        // One after 420 s to 480 s; what failed is repeated after 30 s.
        assert!((2..=4).contains(&origin.fetches()), "{name}: {}", origin.fetches());
        assert!(house.cause().contains(cause), "{name}: {}", house.cause());
        assert_eq!(house.status_now(&key.token()), 200, "{name}");
        assert_eq!(house.keys.generation(house.now()), Some(1), "{name}");

        let origin = Origin::default();
        origin.script(SET, script);
        let house = House::of(&origin);
        assert_eq!(house.status(&key.token()).await, 503, "{name}, at first");
        assert!(house.cause().contains(cause), "{name}: {}", house.cause());
    }
}

#[tokio::test(start_paused = true)]
async fn bad_keys_are_skipped_and_the_rest_serve() {
    let key = Signer::new(0, "a");
    let bad = [
        Signer::new(1, "private").jwk().replace("\"kid\"", "\"d\":\"AAAA\",\"kid\""),
        r#"{"kty":"oct","kid":"s","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#.to_owned(),
        r#"{"kty":"RSA","kid":"weak","n":"zGmTVeSJnxVq","e":"AQAB"}"#.to_owned(),
        r#"{"kty":"AKP","alg":"ML-DSA-44","kid":"tomorrow","pub":"AAAA"}"#.to_owned(),
        Signer::new(1, "enc").jwk().replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
        r#"{"kid":"no type"}"#.to_owned(),
        "7".to_owned(),
    ];
    let mut keys = bad.to_vec();
    keys.insert(3, key.jwk());
    let origin = Origin::serving(&keys);
    let house = House::loaded(&origin).await;
    assert_eq!(house.status_now(&key.token()), 200);
    let health = house.keys.health(house.now());
    assert_eq!((health.keys(), health.skipped()), (1, bad.len()));
    for kid in ["private", "enc"] {
        assert_ne!(house.status(&Signer::new(1, kid).token()).await, 200, "{kid}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hundredth_key_is_the_last() {
    let keys: Vec<_> = (0..200).map(|number| Signer::new(0, &format!("k{number}")).jwk()).collect();
    let origin = Origin::serving(&keys);
    let house = House::loaded(&origin).await;
    assert_eq!(house.keys.health(house.now()).keys(), 100);
    assert_eq!(house.keys.health(house.now()).skipped(), 1, "told once");
    assert_eq!(house.status_now(&Signer::new(0, "k99").token()), 200);
    assert_ne!(house.status_now(&Signer::new(0, "k100").token()), 200);
}

#[tokio::test(start_paused = true)]
async fn two_keys_with_one_kid_are_both_tried() {
    let ed25519 = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let (one, other) = (Signer::new(0, "a"), Signer::new(1, "a"));
    let origin = Origin::serving(&[ed25519.to_owned(), one.jwk(), other.jwk()]);
    let house = House::loaded(&origin).await;
    assert_eq!(house.status_now(&one.token()), 200);
    assert_eq!(house.status_now(&other.token()), 200);
    assert_eq!(house.status_now(&Signer::new(2, "a").token()), 401);
}

#[tokio::test(start_paused = true)]
async fn an_algorithm_that_the_profile_does_not_list_stays_out() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let keys = LiveKeys::jwks_url(SET).http(origin.clone()).build().unwrap();
    keys.load().await.unwrap();
    let issuer = Issuer::with_keys(ISSUER, keys).access_tokens("orders-api").algorithms([Algorithm::EdDSA]);
    let jwt = JwtAuthenticator::builder().issuer(issuer).build().unwrap();
    let at = portcullis::Instants::new(1_800_000_000_000_000_000, 0);
    assert_eq!(status(jwt.verify(&key.token(), at)), 401);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_followed() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let house = House::of_keys(LiveKeys::jwks_file(&path));
    assert!(house.keys.load().await.unwrap_err().cause().contains("jwks.json"));
    std::fs::write(&path, set_of(&[old.jwk()])).unwrap();
    // Reading blocks a thread, which stops the paused clock from running ahead.
    sleep(seconds(1)).await;
    assert_eq!(house.status(&old.token()).await, 200);

    std::fs::write(&path, set_of(&[new.jwk()])).unwrap();
    sleep(seconds(2)).await;
    assert_eq!(house.status(&new.token()).await, 200, "an unknown kid is looked for at once");
    assert_eq!(house.keys.generation(house.now()), Some(2));

    std::fs::write(&path, "{\"keys\": [").unwrap();
    sleep(seconds(10)).await;
    assert_eq!(house.status_now(&new.token()), 200, "half a file changes nothing");
    assert!(house.cause().contains("JSON"), "{}", house.cause());

    std::fs::write(&path, set_of(&[old.jwk(), new.jwk()])).unwrap();
    sleep(seconds(70)).await;
    assert_eq!((house.status_now(&old.token()), house.status_now(&new.token())), (200, 200), "{}", house.cause());

    std::fs::write(&path, " ".repeat(600 * 1024)).unwrap();
    sleep(seconds(10)).await;
    assert!(house.cause().contains("bytes"), "{}", house.cause());
}

/// A disk that hangs costs one thread, and not one more for each try.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_hangs_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    // Whoever opens it to read waits until somebody writes.
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let limits = FetchLimits::new(std::time::Duration::from_millis(100), 64 * 1024);
    let keys = LiveKeys::jwks_file(&path).limits(limits).build().unwrap();
    let mut said = String::new();
    for _ in 0..100 {
        said = keys.load().await.unwrap_err().cause().to_owned();
        if said.contains("still being read") {
            break;
        }
        sleep(std::time::Duration::from_millis(20)).await;
    }
    // Lets the thread go, which the end of the test waits for.
    tokio::task::spawn_blocking(move || std::fs::write(&path, "{}")).await.unwrap().unwrap();
    assert!(said.contains("still being read"), "{said}");
}

#[test]
fn configurations_that_are_refused() {
    let url = |url: &str| LiveKeys::jwks_url(url).http(Origin::default());
    let discover = |issuer: &str| LiveKeys::discover(issuer).http(Origin::default());
    let good = || url(SET);
    let rows: Vec<(&str, LiveKeysBuilder, &str)> = vec![
        ("http", url("http://id.example.com/jwks"), "https"),
        ("http, loopback", url("http://127.0.0.1/jwks"), "https"),
        ("http elsewhere", url("http://id.example.com/jwks").dangerous_http_on_loopback(), "http"),
        ("user name", url("https://me:secret@id.example.com/jwks"), "user name"),
        ("issuer that is no URL", discover("accounts.google.com"), "URL"),
        ("issuer with a query", discover("https://id.example.com/?tenant=a"), "query"),
        ("issuer with a fragment", discover("https://id.example.com/#a"), "characters"),
        ("no time", good().limits(FetchLimits::new(seconds(0), 1_024)), "0ns"),
        ("no size", good().limits(FetchLimits::new(seconds(1), 0)), "size"),
        ("fresh for nothing", good().fresh_for(seconds(0)), "fresh"),
        ("fresh too long", good().fresh_for(seconds(25 * 3_600)), "fresh"),
        ("trusted shorter than fresh", good().fresh_for(seconds(60)).trust_for(seconds(59)), "trust"),
        ("trusted for ever", good().trust_for(seconds(u64::MAX)), "trust"),
        ("an allowed URL", discover(ISSUER).allow_host("https://keys.example.com"), "host"),
        ("an allowed path", discover(ISSUER).allow_host("keys.example.com/a"), "host"),
        ("an allowed port", discover(ISSUER).allow_host("keys.example.com:1"), "host"),
        ("an allowed nothing", discover(ISSUER).allow_host(""), "host"),
    ];
    for (name, builder, expected) in rows {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains("secret"), "{name}: {error}");
    }
    let keys = good().build().unwrap();
    let mixed = Issuer::with_keys(ISSUER, keys).access_tokens("a").algorithms([Algorithm::ES256, Algorithm::HS256]);
    assert!(JwtAuthenticator::builder().issuer(mixed).build().is_err());
}

#[test]
fn clients_and_sources_are_objects() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let keys = LiveKeys::jwks_url(SET).http(Origin::default()).build().unwrap();
    shared(&keys);
    shared(&authenticator(keys));
    let _: Option<(Box<dyn HttpFetch>, Box<dyn KeySource>)> = None;
}
