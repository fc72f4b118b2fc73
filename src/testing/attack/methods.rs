//! Other methods than those of the profile.

use http::Method;

use super::{
    profile::Route,
    run::{Run, with},
};

/// Where a request names another method than its own.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Methods that the profile does not name for the path, by nobody and by somebody.
pub(super) async fn unlisted(run: &mut Run, route: &Route) {
    let senders = run.strangers(route).into_iter().chain(run.somebody(route).map(|who| (", by somebody", Some(who))));
    let senders: Vec<_> = senders.collect();
    for name in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "PROPFIND"] {
        if run.profile.lists(name, &route.path) {
            continue;
        }
        let Some(request) =
            Method::from_bytes(name.as_bytes()).ok().and_then(|method| run.request(&method, &route.target()))
        else {
            continue;
        };
        for (words, who) in &senders {
            let sent = run.again(&request);
            let sent = run.sent_by(sent, who.as_ref());
            run.refused("method-unlisted", &format!("{name}{words}"), sent).await;
            for field in OVERRIDES.iter().filter(|_| name == "POST").copied() {
                let request = with(run.again(&request), field, route.method.as_str());
                let request = run.sent_by(request, who.as_ref());
                run.refused("method-override", &format!("{field}: {}{words}", route.method), request).await;
            }
        }
    }
}

/// The method of the route, in a header of another request of the path, by somebody who may send that one and not this.
pub(super) async fn overridden(run: &mut Run, route: &Route, routes: &[&Route]) {
    for other in routes.iter().filter(|other| other.path == route.path && other.method != route.method) {
        let of_roles = run.profile.people.iter().find(|(role, _)| other.allowed.contains(role) && route.denies(role));
        let of_roles = of_roles.map(|(_, who)| (", by somebody who may not", Some(who.clone())));
        let senders: Vec<_> = if other.public { run.strangers(route) } else { of_roles.into_iter().collect() };
        for (words, who) in senders {
            let Some(request) = run.ask(other) else { continue };
            let mut without = Vec::new();
            for _ in 0..2 {
                let request = run.again(&request);
                let request = run.sent_by(request, who.as_ref());
                without.push(run.send("method-override", request).await);
            }
            let [one, two] = without.as_slice() else { continue };
            if !(200..400).contains(&one.status) {
                // The good requests of that route say it.
                continue;
            }
            run.opened.insert(other.line());
            for field in OVERRIDES {
                let request = with(run.again(&request), field, route.method.as_str());
                let request = run.sent_by(request, who.as_ref());
                let answer = run.send("method-override", request).await;
                let is_answered = (200..400).contains(&answer.status);
                // Where the request can be made but once, it is refused now, and another answer is not this request's.
                if is_answered && !answer.is_like([one, two]) {
                    let sent = format!("{field}: {}{words}", route.method);
                    let got = format!("{}, and {} without", answer.status, one.status);
                    run.find("method-override", &other.line(), &sent, "what it answers without, or a refusal", got);
                }
            }
        }
    }
}
