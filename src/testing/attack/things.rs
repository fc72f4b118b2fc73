//! Things of others, and what one client may ask for.

use super::{
    profile::{Route, Thing},
    run::{Run, bearing, with},
};

/// What strangers get, and what whoever may have it gets after them: that it is there.
pub(super) async fn of_others(run: &mut Run) {
    for Thing { exists, missing, owner, stranger } in run.profile.things.clone() {
        run.begin(&exists);
        let Some(request) = run.ask(&exists) else { continue };
        let request = bearing(request, &run.mint(&stranger));
        match missing {
            None => drop(run.refused("tenant-crossing", "somebody of another tenant", request).await),
            Some(missing) => {
                let there = run.refused("existence-thing", "a stranger", request).await;
                let Some(request) = run.ask(&missing) else { continue };
                let request = bearing(request, &run.mint(&stranger));
                let not_there = run.send("existence-thing", request).await;
                if there.status != not_there.status {
                    let got = format!("{} for the one, {} for {}", there.status, not_there.status, missing.line());
                    run.find("existence-thing", &exists.line(), "a stranger", "one status for both", got);
                }
            }
        }
        if let Some(request) = run.ask(&exists) {
            let request = bearing(request, &run.mint(&owner));
            run.good(&exists, "whoever may have it", request).await;
        }
        run.settle();
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
