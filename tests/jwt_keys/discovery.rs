//! Metadata of issuers: OpenID Connect Discovery and RFC 8414.

use http::StatusCode;
use portcullis::jwt::{
    Provider,
    keys::{LiveKeys, LiveKeysBuilder},
};
use tokio::time::sleep;

use super::origin::{House, ISSUER, Origin, SET, Script, Signer, seconds, set_of};

const OPENID: &str = "https://id.example.com/.well-known/openid-configuration";

fn metadata(issuer: &str, set: &str) -> String {
    format!(
        r#"{{"issuer":"{issuer}","jwks_uri":"{set}","id_token_signing_alg_values_supported":["none","HS256","RS256"]}}"#
    )
}

fn discover(origin: &Origin) -> LiveKeysBuilder {
    LiveKeys::discover(ISSUER).http(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn finds_the_set() {
    let key = Signer::new(0, "a");
    let rows = [
        ("openid", ISSUER, OPENID),
        ("openid, a slash at the end", "https://id.example.com/", OPENID),
        ("openid, a path", "https://id.example.com/t/1", "https://id.example.com/t/1/.well-known/openid-configuration"),
        (
            "openid, a path with a slash at the end",
            "https://id.example.com/t/1/",
            "https://id.example.com/t/1/.well-known/openid-configuration",
        ),
        ("rfc 8414", ISSUER, "https://id.example.com/.well-known/oauth-authorization-server"),
        (
            "rfc 8414, a path",
            "https://id.example.com/t/1",
            "https://id.example.com/.well-known/oauth-authorization-server/t/1",
        ),
    ];
    for (name, issuer, place) in rows {
        let origin = Origin::serving(&[key.jwk()]);
        origin.serve(place, format!("{}\n", metadata(issuer, SET)));
        let keys = LiveKeys::discover(issuer).http(origin.clone()).build().unwrap();
        assert!(keys.load().await.is_ok(), "{name}");
        for request in origin.requests() {
            let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
            assert_eq!(names, ["accept"], "{name}: nothing else is sent");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_refused() {
    let key = Signer::new(0, "a");
    let rows = [
        ("a slash more", metadata("https://id.example.com/", SET), "issuer is"),
        ("another case", metadata("https://ID.example.com", SET), "issuer is"),
        ("another issuer", metadata("https://evil.example.com", SET), "issuer is"),
        ("no issuer", format!(r#"{{"jwks_uri":"{SET}"}}"#), "no issuer"),
        ("issuer of another type", format!(r#"{{"issuer":["{ISSUER}"],"jwks_uri":"{SET}"}}"#), "issuer"),
        ("issuer twice", format!(r#"{{"issuer":"{ISSUER}","issuer":"{ISSUER}","jwks_uri":"{SET}"}}"#), "twice"),
        ("no set", format!(r#"{{"issuer":"{ISSUER}"}}"#), "no jwks_uri"),
        ("set on another host", metadata(ISSUER, "https://evil.example.com/jwks"), "evil.example.com"),
        ("set on another port", metadata(ISSUER, "https://id.example.com:8443/jwks"), "origin"),
        ("set on a host below", metadata(ISSUER, "https://a.id.example.com/jwks"), "origin"),
        ("set over http", metadata(ISSUER, "http://id.example.com/jwks"), "jwks_uri"),
        ("set in a file", metadata(ISSUER, "file:///etc/passwd"), "jwks_uri"),
        ("set at a relative place", metadata(ISSUER, "/jwks"), "jwks_uri"),
        ("set with a user name", metadata(ISSUER, "https://id.example.com@evil.example.com/jwks"), "jwks_uri"),
        ("a page", "<html>".to_owned(), "JSON"),
        ("an array", "[]".to_owned(), "JSON"),
    ];
    for (name, document, cause) in rows {
        let origin = Origin::serving(&[key.jwk()]);
        origin.serve(OPENID, document);
        // RFC 8414 is for metadata that is missing, not for metadata that is bad.
        origin.serve("https://id.example.com/.well-known/oauth-authorization-server", metadata(ISSUER, SET));
        let house = House::of_keys(discover(&origin));
        assert_eq!(house.status(&key.token()).await, 503, "{name}");
        assert!(house.cause().contains(cause), "{name}: {}", house.cause());
        assert_eq!(origin.fetches(), 1, "{name}: what it names is not touched");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_allowed_by_name() {
    let key = Signer::new(0, "a");
    let elsewhere = "https://keys.example.net/jwks";
    let origin = Origin::default();
    origin.serve(elsewhere, set_of(&[key.jwk()]));
    origin.serve(OPENID, metadata(ISSUER, elsewhere));
    let house = House::of_keys(discover(&origin).allow_host("example.net"));
    assert_eq!(house.status(&key.token()).await, 503, "a host above does not count");
    let house = House::of_keys(discover(&origin).allow_host("KEYS.example.net"));
    assert_eq!(house.status(&key.token()).await, 200);
}

/// Two signers, and who follows a set that has the first one's key.
async fn followed() -> (Signer, Signer, Origin, House) {
    let (old, new, origin) = (Signer::new(0, "a"), Signer::new(1, "b"), Origin::default());
    origin.answer(SET, StatusCode::OK, &[("etag", "\"v1\"")], set_of(&[old.jwk()]));
    origin.serve(OPENID, metadata(ISSUER, SET));
    let house = House::of_keys(discover(&origin));
    house.keys.load().await.unwrap();
    (old, new, origin, house)
}

/// Whoever cannot be reached mostly does not answer at all.
#[tokio::test(start_paused = true)]
async fn metadata_that_hangs_leaves_time_for_the_set() {
    let (old, new, origin, house) = followed().await;
    origin.script(OPENID, Script::Hang);
    origin.answer(SET, StatusCode::OK, &[("etag", "\"v2\"")], set_of(&[old.jwk(), new.jwk()]));
    sleep(seconds(500)).await;
    assert_eq!(house.status_now(&new.token()), 200, "{}", house.cause());
}

#[tokio::test(start_paused = true)]
async fn a_set_that_moves_is_followed_and_metadata_may_be_away() {
    let (old, new, origin, house) = followed().await;
    origin.script(OPENID, Script::Down("away"));
    origin.answer(SET, StatusCode::OK, &[("etag", "\"v2\"")], set_of(&[old.jwk(), new.jwk()]));
    sleep(seconds(490)).await;
    assert_eq!(house.status_now(&new.token()), 200, "{}", house.cause());

    let moved = "https://id.example.com/moved";
    origin.serve(OPENID, metadata(ISSUER, moved));
    origin.serve(moved, set_of(&[new.jwk()]));
    sleep(seconds(490)).await;
    assert_ne!(house.status_now(&old.token()), 200);
    assert_eq!(house.status_now(&new.token()), 200);
    let last = origin.requests().pop().unwrap();
    assert_eq!((last.uri().to_string().as_str(), last.headers().get("if-none-match")), (moved, None));

    origin.serve(OPENID, metadata("https://evil.example.com", SET));
    sleep(seconds(490)).await;
    assert!(house.cause().contains("issuer is"), "{}", house.cause());
    assert_eq!(house.status_now(&new.token()), 200, "kept");
}

/// Two servers may give two documents one `ETag`: what was not taken must not be confirmed by it.
#[tokio::test(start_paused = true)]
async fn a_validator_stays_with_its_url() {
    let (_, new, origin, house) = followed().await;
    let moved = "https://id.example.com/moved";
    let asked_with = |origin: &Origin, url: &str| {
        let requests = origin.requests();
        let last = requests.iter().rev().find(|request| request.uri() == url).unwrap();
        last.headers().get("if-none-match").cloned()
    };
    origin.serve(OPENID, metadata(ISSUER, moved));
    origin.answer(moved, StatusCode::OK, &[("etag", "\"v1\"")], r#"{"keys":[]}"#);
    sleep(seconds(490)).await;
    assert!(house.cause().contains("no key"), "{}", house.cause());
    assert_eq!(asked_with(&origin, SET), None, "it was asked once");
    sleep(seconds(490)).await;
    assert_eq!(asked_with(&origin, moved), None, "its set was never taken");

    origin.answer(moved, StatusCode::OK, &[("etag", "\"v2\"")], set_of(&[new.jwk()]));
    sleep(seconds(490)).await;
    assert_eq!(house.status_now(&new.token()), 200, "{}", house.cause());
    for _ in 0..2 {
        origin.answer(moved, StatusCode::NOT_MODIFIED, &[("etag", "\"v2\"")], "");
        sleep(seconds(490)).await;
        assert_eq!(asked_with(&origin, moved).unwrap(), "\"v2\"");
        assert_eq!((house.status_now(&new.token()), house.cause().as_str()), (200, ""));
    }
    // Back at the first place, the validator of the second says nothing.
    origin.serve(OPENID, metadata(ISSUER, SET));
    sleep(seconds(490)).await;
    assert_eq!(asked_with(&origin, SET), None);
}

/// What a provider is known to publish is fetched without a word more.
#[tokio::test(start_paused = true)]
async fn the_keys_of_a_provider_are_where_it_says() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const OTHER: &str = "11111111-2222-4333-8444-555555555555";
    const COMMON: &str = "https://login.microsoftonline.com/common/discovery";
    let firebase = "https://securetoken.google.com/shop".to_owned();
    let (v1, v2) =
        (format!("https://sts.windows.net/{TENANT}/"), format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    let google = || Provider::google(["web"]).unwrap();
    let entra_v1 = || Provider::entra_v1([TENANT, OTHER], "api://a").unwrap();
    let of_tenant = format!("https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys");
    let account = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
    let rows = [
        (
            "google",
            google(),
            "https://accounts.google.com",
            "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
            true,
        ),
        ("firebase", Provider::firebase("shop").unwrap(), &firebase, account.to_owned(), true),
        ("entra", Provider::entra([TENANT], "a").unwrap(), &v2, of_tenant, true),
        ("entra v1", entra_v1(), &v1, format!("{COMMON}/keys"), true),
        ("entra v1, its old host", entra_v1(), &v1, "https://login.windows.net/common/discovery/keys".to_owned(), true),
        ("entra, several", Provider::entra([TENANT, OTHER], "a").unwrap(), "", format!("{COMMON}/v2.0/keys"), true),
        ("a host of another", google(), "https://accounts.google.com", format!("{COMMON}/keys"), false),
        ("a host below", google(), "https://accounts.google.com", "https://storage.googleapis.com/k".to_owned(), false),
    ];
    for (name, provider, issuer, set, found) in rows {
        let origin = Origin::default();
        origin.serve(
            &format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            metadata(issuer, &set),
        );
        origin.serve(&set, set_of(&[Signer::new(0, "a").jwk()]));
        let keys = provider.live_keys().http(origin.clone()).build().unwrap();
        assert_eq!(keys.load().await.is_ok(), found, "{name}");
    }
}
