//! The requests of the suite, route by route.

use super::{
    caller::Caller,
    control::CONTROL,
    cross_site,
    key_place::KeyPlace,
    keys, methods,
    profile::Route,
    run::{Run, seeks_a_key, with},
    strangers, things, tokens,
};
use crate::testing::TestToken;

pub(super) async fn all(run: &mut Run) {
    let routes = run.profile.routes.clone();
    let public = routes.iter().find(|route| route.public).cloned();
    // A limit is attacked where a route is.
    let is_limited = run.profile.limit.is_some() && !routes.is_empty();
    if routes.iter().all(|route| route.public) && run.profile.things.is_empty() && !is_limited {
        let expected = "a guarded route and who may use it: nothing is proved here";
        run.find(CONTROL, "every route", "the profile", expected, "none".to_owned());
    }
    // What good requests use up is there for all others that ask for it.
    let (last, first): (Vec<_>, Vec<_>) = routes.iter().partition(|route| route.uses_up());
    let (last_things, things): (Vec<_>, Vec<_>) =
        run.profile.things.clone().into_iter().partition(|thing| thing.exists.uses_up());
    for route in &first {
        one(run, route, public.as_ref(), &routes).await;
    }
    things::of_others(run, &things).await;
    for route in &first {
        methods::overridden(run, route, &last).await;
    }
    for route in &last {
        one(run, route, public.as_ref(), &routes).await;
    }
    things::of_others(run, &last_things).await;
    run.strangers_are_somebody();
    if !run.profile.keys.is_empty() && !routes.iter().any(|route| route.keys) {
        let expected = "a route for them, as route_for_keys names it: nothing is proved of keys";
        run.find(CONTROL, "every route", "the good keys", expected, "none".to_owned());
    }
    if let Some(route) = public.or_else(|| routes.first().cloned()) {
        things::limits(run, &route).await;
    }
    run.tell_unproved();
    // Whoever asks there may have answered before.
    run.ask_the_key_place("every route", "a token that names a place for its key, earlier");
}

/// All that is sent for one route.
async fn one(run: &mut Run, route: &Route, public: Option<&Route>, routes: &[Route]) {
    run.begin(route);
    if !route.public {
        // Before the good requests: what those use up, an attack would not find.
        strangers::crossing(run, route).await;
        strangers::anonymous(run, route).await;
        strangers::vouched(run, route).await;
        strangers::disguised(run, route).await;
        strangers::paths(run, route, public).await;
        cross_site::caused(run, route).await;
        let others: Vec<_> = routes.iter().filter(|other| route.uses_up() || !other.uses_up()).collect();
        methods::overridden(run, route, &others).await;
    }
    run.controls(route).await;
    if !route.public {
        strangers::led(run, route, public).await;
        if let Some(who) = run.somebody(route) {
            if let Some(token) = who.test_token() {
                forged(run, route, &who, token).await;
                carried(run, route, &who, token).await;
            }
            if let Some(request) = run.ask(route) {
                let good = |run: &mut Run| {
                    let request = run.again(&request);
                    run.by(request, &who)
                };
                run.plainly("a good token", good).await;
            }
        }
        keys::altered(run, route).await;
        keys::carried(run, route).await;
    }
    methods::unlisted(run, route).await;
    run.end(route).await;
}

async fn forged(run: &mut Run, route: &Route, who: &Caller, good: &TestToken) {
    let minted = run.mint(good);
    // What a service remembers of a good token must not help a bad one.
    let before = match run.ask(route) {
        Some(request) => Some(run.exchange(CONTROL, run.showing(request, who, &minted)).await.status),
        None => None,
    };
    let mut unknown = None;
    let key_place = run.key_place.as_ref().map(KeyPlace::address);
    for (attack, sent, token) in tokens::forgeries(|| run.fresh(good), &minted, run.profile.one_time, key_place) {
        let Some(request) = run.ask(route) else { continue };
        let request = run.showing(request, who, &token);
        let answer = run.refused(attack, &sent, request).await;
        if attack == "token-key-url" {
            run.ask_the_key_place(&route.line(), &sent);
        }
        if seeks_a_key(attack, &sent) && answer.asks_to_come_again() {
            unknown = Some(attack);
        }
    }
    // Whoever makes the service look for keys in vain must not take it away from those whose keys it has.
    if let (Some(attack), Some(before)) = (unknown, before)
        && let Some(request) = run.ask(route)
    {
        // One that nobody can have remembered, also where the same claims are signed with the same bytes.
        let request = run.showing(request, who, &good.clone().anew().mint());
        let answer = run.exchange(CONTROL, request).await;
        if answer.status != before {
            let (sent, expected) = ("a good token after those of unknown keys", format!("{before}, as before"));
            run.find(attack, &route.line(), sent, &expected, answer.status.to_string());
        }
    }
    if run.profile.one_time {
        let token = run.mint(good);
        let Some(request) = run.ask(route) else { return };
        let request = run.showing(request, who, &token);
        run.good(route, "a token for the first time", request.clone()).await;
        run.refused("token-replay", "a token for the second time", request).await;
    }
}

/// A good token, in ways in which none is taken.
async fn carried(run: &mut Run, route: &Route, who: &Caller, good: &TestToken) {
    let Some(request) = run.ask(route) else { return };
    let other = good.clone().subject("mallory").by_foreign_key().mint();
    for (sent, is_first_good, is_second_good) in
        [("good, good", true, true), ("good, forged", true, false), ("forged, good", false, true)]
    {
        for attack in ["credential-twice", "credential-joined"] {
            let token = run.mint(good);
            let of = |is_good| if is_good { &token } else { &other };
            let (first, second) = (of(is_first_good), of(is_second_good));
            let request = run.again(&request);
            let request = match (attack, who.cookie_name()) {
                ("credential-joined", Some(name)) => run.showing(request, who, &format!("{first}; {name}={second}")),
                ("credential-joined", None) if who.is_bearer() => {
                    with(request, "authorization", &format!("Bearer {first}, Bearer {second}"))
                }
                ("credential-twice", cookie) if cookie.is_some() || who.is_bearer() => {
                    let request = run.showing(request, who, first);
                    run.showing(request, who, second)
                }
                // Where the profile's own function puts it is not known.
                _ => continue,
            };
            run.refused(attack, sent, request).await;
        }
    }
    for scheme in ["Basic ", "Token ", "JWT ", "Negotiate ", ""] {
        let request = run.again(&request);
        let request = with(request, "authorization", &format!("{scheme}{}", run.mint(good)));
        run.refused("credential-scheme", &format!("the scheme {scheme:?}"), request).await;
    }
    for name in ["access_token", "token", "jwt", "bearer_token", "id_token"] {
        let target = route.asking(name, &run.mint(good));
        if let Some(request) = run.ask_at(route, &target) {
            run.refused("credential-in-url", name, request).await;
        }
    }
}
