//! API keys, bad ones, and good ones in ways in which none is taken.

use super::{
    caller::Caller,
    profile::Route,
    run::{Run, bearing, keyed},
};

/// Keys that are like a good one.
fn altered_forms(key: &str) -> Vec<(&'static str, String)> {
    let shorter: String = key.chars().take(key.chars().count().saturating_sub(1)).collect();
    let last = if key.ends_with('0') { "1" } else { "0" };
    let half: String = key.chars().take(key.chars().count() / 2).collect();
    let forms = [
        ("the last character changed", format!("{shorter}{last}")),
        ("without the last character", shorter),
        ("a character more", format!("{key}0")),
        ("half of the key", half),
    ];
    // Where a key has a checksum, no other one gets as far as the comparison of secrets.
    let forged = with_another_secret(key).map(|forged| ("another secret, with the checksum that fits", forged));
    forms.into_iter().chain(forged).collect()
}

#[cfg(feature = "api-key")]
fn with_another_secret(key: &str) -> Option<String> {
    crate::api_key::ApiKeyFormat::with_another_secret(key)
}

#[cfg(not(feature = "api-key"))]
const fn with_another_secret(_: &str) -> Option<String> {
    None
}

/// Keys that are not the whole key, and the whole key in the URL.
pub(super) async fn altered(run: &mut Run, route: &Route) {
    for (name, key) in run.keys() {
        for (sent, altered) in altered_forms(&key) {
            if let Some(request) = run.ask(route) {
                run.refused("key-altered", sent, keyed(request, &name, &altered)).await;
            }
        }
        for parameter in ["api_key", "apikey", "key"] {
            if let Some(request) = run.ask_at(route, &route.asking(parameter, &key)) {
                run.refused("credential-in-url", parameter, request).await;
            }
        }
    }
}

/// A good key in company, and over plain HTTP.
pub(super) async fn carried(run: &mut Run, route: &Route) {
    if !route.keys {
        return;
    }
    for (name, key) in run.keys() {
        let Some(request) = run.ask(route) else { return };
        let altered = altered_forms(&key).pop().map(|(_, altered)| altered).unwrap_or_default();
        for (sent, first, second) in [
            ("a good key twice", &key, &key),
            ("a good key, an altered one", &key, &altered),
            ("an altered key, a good one", &altered, &key),
        ] {
            let twice = keyed(keyed(run.again(&request), &name, first), &name, second);
            run.refused("credential-twice", sent, twice).await;
        }
        let bearer = run.somebody(route).filter(|who| who.is_bearer() && name != http::header::AUTHORIZATION);
        if let Some(good) = bearer.as_ref().and_then(Caller::test_token) {
            for (sent, key, token) in [
                ("a good key, a good token", &key, good.clone()),
                ("a good key, a forged token", &key, good.clone().by_foreign_key()),
                ("an altered key, a good token", &altered, good.clone()),
            ] {
                let both = bearing(keyed(run.again(&request), &name, key), &run.mint(&token));
                run.refused("credential-twice", sent, both).await;
            }
        }
        run.plainly("a good key", |run| keyed(run.again(&request), &name, &key)).await;
    }
}
