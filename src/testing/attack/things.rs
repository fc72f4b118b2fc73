//! Things of others, and what one client may ask for.

use std::collections::HashSet;

use http::HeaderName;

use super::{
    answer::Answer,
    profile::{Route, Stranger, Thing},
    run::{Run, with},
};

/// What strangers get, and what whoever may have it gets after them: that it is there.
pub(super) async fn of_others(run: &mut Run, things: &[Thing]) {
    for Thing { exists, from, owner, stranger } in things {
        run.begin(exists);
        let Some(request) = run.ask(exists) else { continue };
        let request = run.by(request, stranger);
        let (attack, who) = match from {
            Stranger::OfAnotherTenant => ("tenant-crossing", "somebody of another tenant"),
            Stranger::WithThingsOfTheirOwn => ("owner-crossing", "somebody whose it is not"),
            Stranger::WhoKnowsNothing(_) => ("existence-thing", "a stranger"),
        };
        let there = run.refused(attack, who, request).await;
        if there.takes_no_token() {
            run.not_taken(&exists.line(), who);
        }
        if let Stranger::WhoKnowsNothing(missing) = from {
            let mut absent = Vec::new();
            for _ in 0..2 {
                let Some(request) = run.ask(missing) else { continue };
                let request = run.by(request, stranger);
                absent.push(run.send(attack, request).await);
            }
            if let [one, two] = absent.as_slice()
                && let Some(what) = told_apart(&there, [one, two], [&exists.target(), &missing.target()])
            {
                let got = format!("{what} {}", missing.line());
                run.find(attack, &exists.line(), who, "one answer for both", got);
            }
        }
        if let Some(request) = run.ask(exists) {
            let request = run.by(request, owner);
            run.good(exists, "whoever may have it", request).await;
        }
        run.settle();
    }
}

/// By what one tells the answer about a thing from those about one that is not there, as far as these agree.
fn told_apart(there: &Answer, [one, two]: [&Answer; 2], [exists, missing]: [&str; 2]) -> Option<String> {
    if there.status != one.status {
        return Some(format!("{} for the one, {} for", there.status, one.status));
    }
    let names = |answer: &Answer| -> HashSet<HeaderName> { answer.headers.keys().cloned().collect() };
    if names(one) == names(two) && names(there) != names(one) {
        return Some("other header fields than for".to_owned());
    }
    let named: Vec<_> = words(exists).into_iter().zip(words(missing)).collect();
    let is_same = |a: &str, b: &str| a == b || named.contains(&(a, b));
    if other_value(there, [one, two], [exists, missing], |a, b| is_same(a, b) || uncounted(a) == uncounted(b)) {
        return Some("other header fields than for".to_owned());
    }
    let text = |answer: &Answer, path: &str| String::from_utf8_lossy(&answer.body).replace(path, "{path}");
    let (there, one, two) = (text(there, exists), text(one, missing), text(two, missing));
    let (of_there, of_one, of_two) = (words(&there), words(&one), words(&two));
    if of_one.len() != of_two.len() {
        return None;
    }
    let is_alike = of_there.len() == of_one.len()
        && between(&there) == between(&one)
        // A word that is another one each time, as the number of a request is, tells nothing.
        && of_there.iter().zip(&of_one).zip(&of_two).all(|((a, b), c)| b != c || is_same(a, b));
    (!is_alike).then(|| "another body than for".to_owned())
}

/// Fields that say what the body says, and the time.
const OF_BODY_AND_TIME: [&str; 8] =
    ["content-length", "content-md5", "content-digest", "repr-digest", "digest", "etag", "date", "expires"];

/// Whether a field that both answers about nothing have alike has another value.
fn other_value(
    there: &Answer,
    [one, two]: [&Answer; 2],
    [exists, missing]: [&str; 2],
    is_same: impl Fn(&str, &str) -> bool,
) -> bool {
    let value = |answer: &Answer, name: &HeaderName, path: &str| {
        let values = answer.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        // A place to go to first has the path as a parameter.
        values.collect::<Vec<_>>().join(", ").replace("%2F", "/").replace(path, "{path}")
    };
    one.headers.keys().filter(|name| !OF_BODY_AND_TIME.contains(&name.as_str())).any(|name| {
        let (there, one, two) = (value(there, name, exists), value(one, name, missing), value(two, name, missing));
        // Counters and clocks go on from one answer to the next.
        uncounted(&one) == uncounted(&two)
            && (between(&there) != between(&one)
                || words(&there).len() != words(&one).len()
                || words(&there).iter().zip(words(&one)).any(|(a, b)| !is_same(a, b)))
    })
}

fn uncounted(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn between(text: &str) -> String {
    text.chars().filter(|c| !c.is_alphanumeric()).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_alphanumeric()).collect()
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
            last = run.exchange(attack, request).await.status;
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
