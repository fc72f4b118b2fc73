//! The requests of the suite, route by route.

use super::{
    control::CONTROL,
    keys, methods,
    profile::Route,
    run::{Run, UNKNOWN_KEYS, bearing, with},
    strangers, things, tokens,
};
use crate::testing::TestToken;

pub(super) async fn all(run: &mut Run) {
    let routes = run.profile.routes.clone();
    let public = routes.iter().find(|route| route.public).cloned();
    for route in &routes {
        run.begin(route);
        if !route.public {
            // Before the good requests: what those use up, an attack would not find.
            strangers::crossing(run, route).await;
            strangers::anonymous(run, route).await;
            strangers::disguised(run, route).await;
            strangers::paths(run, route, public.as_ref()).await;
            methods::overridden(run, route, &routes).await;
        }
        run.controls(route).await;
        if !route.public {
            strangers::led(run, route, public.as_ref()).await;
            if let Some(token) = run.somebody(route) {
                forged(run, route, &token).await;
                carried(run, route, &token).await;
            }
            keys::altered(run, route).await;
            keys::carried(run, route).await;
        }
        methods::unlisted(run, route, &routes).await;
        run.end(route).await;
    }
    if !run.profile.keys.is_empty() && !routes.iter().any(|route| route.keys) {
        let expected = "a route for them, as route_for_keys names it: nothing is proved of keys";
        run.find(CONTROL, "every route", "the good keys", expected, "none".to_owned());
    }
    things::of_others(run).await;
    if let Some(route) = public.or_else(|| routes.first().cloned()) {
        things::limits(run, &route).await;
    }
}

async fn forged(run: &mut Run, route: &Route, good: &TestToken) {
    let minted = good.mint();
    // What a service remembers of a good token must not help a bad one.
    let before = match run.ask(route) {
        Some(request) => Some(run.send(CONTROL, bearing(request, &minted)).await.status),
        None => None,
    };
    let mut unknown = None;
    for (attack, sent, token) in tokens::forgeries(good, &minted) {
        let Some(request) = run.ask(route) else { continue };
        let answer = run.refused(attack, &sent, bearing(request, &token)).await;
        if UNKNOWN_KEYS.contains(&attack) && answer.asks_to_come_again() {
            unknown = Some(attack);
        }
    }
    // Whoever makes the service look for keys in vain must not take it away from those whose keys it has.
    if let (Some(attack), Some(before)) = (unknown, before)
        && let Some(request) = run.ask(route)
    {
        // One that nobody can have remembered, also where the same claims are signed with the same bytes.
        let another = good.clone().claim("jti", format!("portcullis-another-{}", run.peers));
        let answer = run.send(CONTROL, bearing(request, &another.mint())).await;
        if answer.status != before {
            let (sent, expected) = ("a good token after those of unknown keys", format!("{before}, as before"));
            run.find(attack, &route.line(), sent, &expected, answer.status.to_string());
        }
    }
    if run.profile.one_time {
        let token = good.mint();
        for time in 0..2 {
            let Some(request) = run.ask(route) else { continue };
            let request = bearing(request, &token);
            if time == 0 {
                run.send("token-replay", request).await;
            } else {
                run.refused("token-replay", "a token for the second time", request).await;
            }
        }
    }
}

/// A good token, in ways in which none is taken.
async fn carried(run: &mut Run, route: &Route, good: &TestToken) {
    let token = good.mint();
    let Some(request) = run.ask(route) else { return };
    let other = good.clone().subject("mallory").by_foreign_key().mint();
    for (sent, first, second) in
        [("good, good", &token, &token), ("good, forged", &token, &other), ("forged, good", &other, &token)]
    {
        let twice = bearing(bearing(request.clone(), first), second);
        run.refused("credential-twice", sent, twice).await;
        let joined = with(request.clone(), "authorization", &format!("Bearer {first}, Bearer {second}"));
        run.refused("credential-joined", sent, joined).await;
    }
    for scheme in ["Basic ", "Token ", "JWT ", "Negotiate ", ""] {
        let request = with(request.clone(), "authorization", &format!("{scheme}{token}"));
        run.refused("credential-scheme", &format!("the scheme {scheme:?}"), request).await;
    }
    for name in ["access_token", "token", "jwt", "bearer_token", "id_token"] {
        if let Some(request) = run.ask_at(route, &format!("{}?{name}={token}", route.path)) {
            run.refused("credential-in-url", name, request).await;
        }
    }
    run.plainly("a good token", bearing(request, &token)).await;
}
