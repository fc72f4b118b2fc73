//! Those who may not use a route, in every guise.

use http::Method;

use super::{
    answer::Answer,
    profile::Route,
    run::{Run, with},
};

/// Each role that may not.
pub(super) async fn crossing(run: &mut Run, route: &Route) {
    for (role, who) in run.profile.people.clone() {
        if !route.denies(&role) {
            continue;
        }
        let Some(request) = run.ask(route) else { continue };
        let request = run.by(request, &who);
        let request = run.with_origin(request, "https://mallory.invalid");
        let answer = run.refused("role-crossing", &format!("somebody of the role {role}"), request).await;
        *run.crossed.entry(role).or_default() |= !answer.takes_no_token();
    }
}

/// Nobody, and whether nobody is told what is there.
pub(super) async fn anonymous(run: &mut Run, route: &Route) {
    let Some(request) = run.ask(route) else { return };
    let missing = run.refused("credential-missing", "no credential", request).await;
    if let Some(nowhere) = run.ask_at(route, &route.at(NOWHERE)) {
        let answer = run.send("existence-route", nowhere).await;
        tells(run, route, "no credential", &missing, &answer);
    }
    existence(run, route).await;
}

/// What a proxy might say of whoever calls, said by those who may not.
pub(super) async fn vouched(run: &mut Run, route: &Route) {
    // Whom the service lets in is whom it might take a stranger for.
    let subject = run.somebody(route).and_then(|who| who.test_token()?.subject_name());
    let users: Vec<String> = std::iter::once("admin".to_owned()).chain(subject).collect();
    let roles: Vec<String> = std::iter::once("admin".to_owned()).chain(route.allowed.clone()).collect();
    let ids: Vec<String> = std::iter::once("1".to_owned()).chain(users.iter().skip(1).cloned()).collect();
    let mut fields = Vec::new();
    for (name, values) in [
        ("x-forwarded-user", &users),
        ("x-remote-user", &users),
        ("remote-user", &users),
        ("x-auth-request-user", &users),
        ("x-user-id", &ids),
        ("x-user-roles", &roles),
    ] {
        let field = |value: &String| ("identity-header", name, format!("{name}: {value}"), value.clone());
        fields.extend(values.iter().map(field));
    }
    for (attack, name, value) in [
        ("proxy-address", "x-forwarded-for", "127.0.0.1"),
        ("proxy-address", "x-real-ip", "127.0.0.1"),
        ("proxy-address", "forwarded", "for=127.0.0.1;proto=https"),
        ("proxy-address", "true-client-ip", "10.0.0.1"),
        (
            "proxy-certificate",
            "x-forwarded-client-cert",
            r#"By=spiffe://a;Hash=00;Subject="CN=admin";URI=spiffe://a/admin"#,
        ),
        ("proxy-certificate", "client-cert", ":MIIB:"),
        ("proxy-certificate", "x-ssl-client-verify", "SUCCESS"),
        ("proxy-certificate", "ssl-client-verify", "SUCCESS"),
    ] {
        fields.push((attack, name, name.to_owned(), value.to_owned()));
    }
    for (words, who) in run.strangers(route) {
        for (attack, name, sent, value) in &fields {
            let Some(request) = run.ask(route) else { continue };
            let request = run.sent_by(request, who.as_ref());
            let request = run.with_origin(with(request, name, value), "https://app.invalid");
            run.refused(attack, &format!("{sent}{words}"), request).await;
        }
    }
}

/// Where no service has a route.
const NOWHERE: &str = "/portcullis-no-such-route";

fn tells(run: &mut Run, route: &Route, sent: &str, here: &Answer, nowhere: &Answer) {
    let got = if here.status == nowhere.status {
        here.form_unlike(nowhere)
            .map(|what| format!("{} for both, and another {what} than where nothing is", here.status))
    } else {
        Some(format!("{} here, {} where nothing is", here.status, nowhere.status))
    };
    if let Some(got) = got {
        run.find("existence-route", &route.line(), sent, "one answer for both", got);
    }
}

/// Whether a route is told from nothing by what is asked before its rule is: a preflight, another spelling of its path.
async fn existence(run: &mut Run, route: &Route) {
    let path = route.path.as_str();
    if path.trim_start_matches('/').is_empty() {
        return;
    }
    let mut preflights = Vec::new();
    for target in [path, NOWHERE] {
        let Some(request) = run.request(&Method::OPTIONS, &route.at(target)) else { continue };
        let request = with(request, "origin", "https://app.invalid");
        let request = with(request, "access-control-request-method", route.method.as_str());
        preflights.push(run.send("existence-route", request).await);
    }
    if let [here, nowhere] = &*preflights {
        tells(run, route, "a preflight, without a credential", here, nowhere);
    }
    let slash = |path: &str| format!("{}/", path.trim_end_matches('/'));
    for (sent, respelled) in [
        ("an encoded letter, without a credential", [path, NOWHERE].map(|path| with_first_encoded(path, "%"))),
        ("a letter encoded twice, without a credential", [path, NOWHERE].map(|path| with_first_encoded(path, "%25"))),
        ("a slash at the end, without a credential", [path, NOWHERE].map(slash)),
    ] {
        let mut answers = Vec::new();
        for target in respelled.iter().filter(|target| **target != path) {
            let Some(request) = run.ask_at(route, &route.at(target)) else { continue };
            answers.push(run.send("existence-route", request).await);
        }
        if let [here, nowhere] = &*answers {
            tells(run, route, sent, here, nowhere);
        }
    }
}

/// A path whose first character behind the slashes is encoded, with this in the place of a percent sign.
fn with_first_encoded(path: &str, percent: &str) -> String {
    let rest = path.trim_start_matches('/');
    let first: String = rest.chars().take(1).collect();
    let tail: String = rest.chars().skip(1).collect();
    let encoded: String = first.bytes().map(|byte| format!("{percent}{byte:02X}")).collect();
    format!("/{encoded}{tail}")
}

/// What looks like another method.
pub(super) async fn disguised(run: &mut Run, route: &Route) {
    for (words, who) in run.strangers(route) {
        let preflight = |run: &Run, request| {
            let request = run.sent_by(with(request, "access-control-request-method", "GET"), who.as_ref());
            run.with_origin(request, "https://app.invalid")
        };
        if let Some(request) = run.ask(route) {
            let sent = format!("access-control-request-method{words}");
            let request = preflight(run, request);
            run.refused("preflight-guard", &sent, request).await;
        }
        if let Some(request) = run.request(&Method::OPTIONS, &route.target()) {
            let request = preflight(run, request);
            let answer = run.send("preflight-guard", request).await;
            if (200..300).contains(&answer.status) && !answer.body.is_empty() {
                let (sent, got) =
                    (format!("a preflight{words}"), format!("{} and {} bytes", answer.status, answer.body.len()));
                run.find("preflight-guard", &route.line(), &sent, "no body: nothing of a handler", got);
            }
        }
        if route.method == Method::GET
            && let Some(head) = run.request(&Method::HEAD, &route.target())
        {
            let head = run.sent_by(head, who.as_ref());
            run.refused("method-head", &format!("HEAD{words}"), head).await;
        }
        let lower = route.method.as_str().to_ascii_lowercase();
        let method = Method::from_bytes(lower.as_bytes()).ok();
        if let Some(request) = method.and_then(|lower| run.request(&lower, &route.target())) {
            let request = run.sent_by(request, who.as_ref());
            run.refused("method-case", &format!("{lower}{words}"), request).await;
        }
    }
}

/// Other spellings of the path.
pub(super) async fn paths(run: &mut Run, route: &Route, public: Option<&Route>) {
    let path = route.path.as_str();
    let rest = path.trim_start_matches('/');
    if rest.is_empty() {
        return;
    }
    let upper = path.to_ascii_uppercase();
    let below = public.map_or("/portcullis".to_owned(), |public| public.path.trim_end_matches('/').to_owned());
    for (attack, target) in [
        ("path-double-slash", format!("//{rest}")),
        ("path-double-slash", path.replace('/', "//")),
        ("path-dot-segments", format!("/./{rest}")),
        ("path-dot-segments", format!("{below}/../{rest}")),
        ("path-dot-segments", format!("{below}/%2e%2e/{rest}")),
        ("path-dot-segments", format!("{below}/%252e%252e/{rest}")),
        ("path-encoded", with_first_encoded(path, "%")),
        ("path-encoded", with_first_encoded(path, "%25")),
        ("path-encoded", format!("/%2F{rest}")),
        ("path-trailing-slash", format!("{path}/")),
        ("path-trailing-slash", format!("{path}/.")),
        ("path-case", upper),
        ("path-parameters", format!("{path};x=1")),
        ("path-parameters", format!("{path};/")),
        ("path-backslash", format!("/%5C{rest}")),
        ("path-backslash", format!("{path}%5C")),
        ("path-null", format!("{path}%00")),
        ("path-null", format!("{path}%0A")),
    ] {
        if target == path {
            continue;
        }
        for (words, who) in run.strangers(route) {
            if let Some(request) = run.ask_at(route, &route.at(&target)) {
                let request = run.sent_by(request, who.as_ref());
                run.refused(attack, &format!("{target}{words}"), request).await;
            }
        }
    }
}

/// To another path than the one that is asked for.
pub(super) async fn led(run: &mut Run, route: &Route, public: Option<&Route>) {
    let Some(public) = public else { return };
    for (words, who) in run.strangers(route) {
        let Some(request) = run.ask(public) else { return };
        let mut open = Vec::new();
        for _ in 0..2 {
            let request = run.again(&request);
            let request = run.sent_by(request, who.as_ref());
            open.push(run.send("proxy-path", request).await);
        }
        let [one, two] = open.as_slice() else { return };
        for name in ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-path"] {
            let request = with(run.again(&request), name, &route.target());
            let request = run.sent_by(request, who.as_ref());
            let answer = run.send("proxy-path", request).await;
            // Where no two answers of the open route are alike, only the guarded one's tell.
            let is_guarded = run.bearings.has_body(&answer.body) && !run.bearings.has_body(&one.body);
            if (200..300).contains(&answer.status) && (is_guarded || !answer.is_like([one, two])) {
                let sent = format!("{name}: {}{words}", route.target());
                let got = format!("{} with another body", answer.status);
                run.find("proxy-path", &public.line(), &sent, "what it answers without", got);
            }
        }
    }
}
