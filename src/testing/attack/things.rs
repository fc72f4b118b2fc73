//! Things of others, and what one client may ask for.

use super::{
    profile::Route,
    run::{Run, bearing, with},
};

pub(super) async fn of_others(run: &mut Run) {
    for (route, stranger) in run.profile.tenants.clone() {
        if let Some(request) = run.ask(&route) {
            let request = bearing(request, &stranger.mint());
            run.refused("tenant-crossing", "somebody of another tenant", request).await;
        }
    }
    for (exists, missing, stranger) in run.profile.things.clone() {
        let mut answers = Vec::new();
        for route in [&exists, &missing] {
            let Some(request) = run.ask(route) else { continue };
            let answer = run.send("existence-thing", bearing(request, &stranger.mint())).await;
            answers.push((answer.status, answer.body.len()));
        }
        if let [there, not_there] = answers.as_slice()
            && there.0 != not_there.0
        {
            let got = format!("{} for the one, {} for {}", there.0, not_there.0, missing.line());
            run.find("existence-thing", &exists.line(), "a stranger", "one status for both", got);
        }
    }
}

/// A client that asks too often: once as it is, and once with another name for itself in each request.
pub(super) async fn limits(run: &mut Run, route: &Route) {
    let Some(limit) = run.profile.limit else { return };
    for (attack, spoofs) in [("limit-missing", false), ("limit-address-spoof", true)] {
        let Some(request) = run.ask(route) else { return };
        let mut last = 0;
        for number in 0..limit.saturating_add(limit / 2).saturating_add(2) {
            let [_, a, b, c] = number.to_be_bytes();
            let address = format!("172.{a}.{b}.{c}");
            let request = if spoofs {
                let request = with(request.clone(), "x-forwarded-for", &address);
                with(with(request, "x-real-ip", &address), "forwarded", &format!("for={address}"))
            } else {
                request.clone()
            };
            last = run.send(attack, request).await.status;
            if last == 429 {
                break;
            }
        }
        if last != 429 {
            let sent = format!("more than {limit} requests of one client");
            run.find(attack, &route.line(), &sent, "429 in the end", last.to_string());
        }
    }
}
