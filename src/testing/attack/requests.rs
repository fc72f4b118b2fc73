//! The requests of the suite, route by route.

use http::{HeaderName, HeaderValue, Method, Request, header};

use super::{CONTROL, Run, UNKNOWN_KEYS, profile::Route, tokens};
use crate::{client::Connection, testing::TestToken};

pub(super) async fn all(run: &mut Run) {
    let routes = run.profile.routes.clone();
    let public = routes.iter().find(|route| route.public).cloned();
    for route in &routes {
        controls(run, route).await;
        if !route.public {
            anonymous(run, route, public.as_ref()).await;
            paths(run, route, public.as_ref()).await;
            if let Some(token) = somebody(run, route) {
                forged(run, route, &token).await;
                carried(run, route, &token).await;
            }
            keys(run, route).await;
        }
        methods(run, route, &routes).await;
    }
    things(run).await;
    if let Some(route) = public.or_else(|| routes.first().cloned()) {
        limits(run, &route).await;
    }
}

/// Somebody who may use the route.
fn somebody(run: &Run, route: &Route) -> Option<TestToken> {
    route.allowed.iter().find_map(|role| run.profile.people.get(role)).cloned()
}

fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers_mut().append(HeaderName::from_static(name), value);
    }
    request
}

fn bearing(request: Request<()>, token: &str) -> Request<()> {
    with(request, "authorization", &format!("Bearer {token}"))
}

fn plain(mut request: Request<()>) -> Request<()> {
    if let Some(peer) = request.extensions().get::<Connection>().and_then(Connection::peer) {
        request.extensions_mut().insert(Connection::plain(peer));
    }
    request
}

/// Good requests, and each role at each route.
async fn controls(run: &mut Run, route: &Route) {
    let allows = |status: u16| !matches!(status, 0 | 400 | 401 | 403 | 429 | 500..);
    if route.public {
        let Some(request) = run.request(&route.method, &route.path) else { return };
        let answer = run.send(CONTROL, request).await;
        if !allows(answer.status) {
            run.find(CONTROL, &route.line(), "nobody, where everybody may", "an answer", answer.status.to_string());
        }
        return;
    }
    for (role, token) in run.profile.people.clone() {
        let Some(request) = run.request(&route.method, &route.path) else { continue };
        let request = with(bearing(request, &token.mint()), "origin", "https://mallory.invalid");
        if route.allowed.contains(&role) {
            let answer = run.send(CONTROL, request).await;
            if !allows(answer.status) {
                let sent = format!("somebody of the role {role}, which may");
                run.find(CONTROL, &route.line(), &sent, "an answer", answer.status.to_string());
            }
            let text = |name: HeaderName| {
                answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
            };
            run.report.sent.entry("cache-shared").or_default();
            let kept = text(header::CACHE_CONTROL);
            if !kept.contains("private") && !kept.contains("no-store") {
                run.find("cache-shared", &route.line(), "a good token", "Cache-Control: private or no-store", kept);
            }
            run.report.sent.entry("cors-origin").or_default();
            let origin = text(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            if origin == "https://mallory.invalid" && text(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) == "true" {
                run.find("cors-origin", &route.line(), "a foreign Origin", "no leave to read with credentials", origin);
            }
        } else if route.denied.as_ref().is_none_or(|denied| denied.contains(&role)) {
            run.refused("role-crossing", &format!("somebody of the role {role}"), request).await;
        }
    }
}

/// Nobody, in every guise.
async fn anonymous(run: &mut Run, route: &Route, public: Option<&Route>) {
    let Some(request) = run.request(&route.method, &route.path) else { return };
    let missing = run.refused("credential-missing", "no credential", request.clone()).await;
    for (attack, name, value) in [
        ("identity-header", "x-forwarded-user", "admin"),
        ("identity-header", "x-remote-user", "admin"),
        ("identity-header", "remote-user", "admin"),
        ("identity-header", "x-user-id", "1"),
        ("identity-header", "x-user-roles", "admin"),
        ("identity-header", "x-auth-request-user", "admin"),
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
        ("preflight-guard", "access-control-request-method", "GET"),
    ] {
        let request = with(with(request.clone(), name, value), "origin", "https://app.invalid");
        run.refused(attack, name, request).await;
    }
    if let Some(preflight) = run.request(&Method::OPTIONS, &route.path) {
        let preflight = with(with(preflight, "origin", "https://app.invalid"), "access-control-request-method", "GET");
        let answer = run.send("preflight-guard", preflight).await;
        if (200..300).contains(&answer.status) && !answer.body.is_empty() {
            let got = format!("{} and {} bytes", answer.status, answer.body.len());
            run.find("preflight-guard", &route.line(), "a preflight", "no body: nothing of a handler", got);
        }
    }
    if route.method == Method::GET
        && let Some(head) = run.request(&Method::HEAD, &route.path)
    {
        run.refused("method-head", "HEAD", head).await;
    }
    let lower = route.method.as_str().to_ascii_lowercase();
    if let Some(request) = Method::from_bytes(lower.as_bytes()).ok().and_then(|lower| run.request(&lower, &route.path))
    {
        run.refused("method-case", &lower, request).await;
    }
    if let Some(nowhere) = run.request(&route.method, "/portcullis-no-such-route") {
        let answer = run.send("existence-route", nowhere).await;
        if answer.status != missing.status {
            let got = format!("{} here, {} where nothing is", missing.status, answer.status);
            run.find("existence-route", &route.line(), "no credential", "one status for both", got);
        }
    }
    if let Some(public) = public {
        let open = run.request(&public.method, &public.path);
        let open = match open {
            Some(request) => Some(run.send("proxy-path", request).await),
            None => None,
        };
        for name in ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-path"] {
            let Some(request) = run.request(&public.method, &public.path) else { continue };
            let answer = run.send("proxy-path", with(request, name, &route.path)).await;
            let same = open.as_ref().is_some_and(|open| open.status == answer.status && open.body == answer.body);
            if (200..300).contains(&answer.status) && !same {
                let got = format!("{} with another body", answer.status);
                run.find(
                    "proxy-path",
                    &public.line(),
                    &format!("{name}: {}", route.path),
                    "what it answers without",
                    got,
                );
            }
        }
    }
}

/// Other spellings of the path, by nobody.
async fn paths(run: &mut Run, route: &Route, public: Option<&Route>) {
    let path = route.path.as_str();
    let rest = path.trim_start_matches('/');
    if rest.is_empty() {
        return;
    }
    let upper = path.to_ascii_uppercase();
    let first: String = rest.chars().take(1).collect();
    let tail: String = rest.chars().skip(1).collect();
    let encoded = first.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let below = public.map_or("/portcullis".to_owned(), |public| public.path.trim_end_matches('/').to_owned());
    for (attack, target) in [
        ("path-double-slash", format!("//{rest}")),
        ("path-double-slash", path.replace('/', "//")),
        ("path-dot-segments", format!("/./{rest}")),
        ("path-dot-segments", format!("{below}/../{rest}")),
        ("path-dot-segments", format!("{below}/%2e%2e/{rest}")),
        ("path-dot-segments", format!("{below}/%252e%252e/{rest}")),
        ("path-encoded", format!("/{encoded}{tail}")),
        ("path-encoded", format!("/{}{tail}", encoded.replace('%', "%25"))),
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
        if let Some(request) = run.request(&route.method, &target) {
            run.refused(attack, &target, request).await;
        }
    }
}

async fn forged(run: &mut Run, route: &Route, good: &TestToken) {
    let minted = good.mint();
    // What a service remembers of a good token must not help a bad one.
    let before = match run.request(&route.method, &route.path) {
        Some(request) => Some(run.send(CONTROL, bearing(request, &minted)).await.status),
        None => None,
    };
    let mut unknown = None;
    for (attack, sent, token) in tokens::forgeries(good, &minted) {
        let Some(request) = run.request(&route.method, &route.path) else { continue };
        let answer = run.refused(attack, &sent, bearing(request, &token)).await;
        if UNKNOWN_KEYS.contains(&attack) && answer.asks_to_come_again() {
            unknown = Some(attack);
        }
    }
    // Whoever makes the service look for keys in vain must not take it away from those whose keys it has.
    if let (Some(attack), Some(before)) = (unknown, before)
        && let Some(request) = run.request(&route.method, &route.path)
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
            let Some(request) = run.request(&route.method, &route.path) else { continue };
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
    let Some(request) = run.request(&route.method, &route.path) else { return };
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
        if let Some(request) = run.request(&route.method, &format!("{}?{name}={token}", route.path)) {
            run.refused("credential-in-url", name, request).await;
        }
    }
    if run.network.is_some() {
        // Whether the connection is secure is not for the sender to say there.
        return;
    }
    let unsafely = plain(bearing(request, &token));
    run.refused("credential-plain-http", "a good token over plain HTTP", unsafely.clone()).await;
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-ssl", "on"),
        ("front-end-https", "on"),
        ("x-forwarded-scheme", "https"),
        ("forwarded", "for=192.0.2.1;proto=https"),
    ] {
        run.refused("proxy-scheme", name, with(unsafely.clone(), name, value)).await;
    }
}

async fn keys(run: &mut Run, route: &Route) {
    for (name, key) in run.profile.keys.clone() {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let shorter: String = key.chars().take(key.chars().count().saturating_sub(1)).collect();
        let last = if key.ends_with('0') { "1" } else { "0" };
        let public: String = key.chars().take(key.chars().count() / 2).collect();
        for (sent, altered) in [
            ("the last character changed", format!("{shorter}{last}")),
            ("without the last character", shorter),
            ("a character more", format!("{key}0")),
            ("half of the key", public),
        ] {
            let (Some(mut request), Ok(value)) =
                (run.request(&route.method, &route.path), HeaderValue::from_str(&altered))
            else {
                continue;
            };
            request.headers_mut().insert(name.clone(), value);
            run.refused("key-altered", sent, request).await;
        }
        for parameter in ["api_key", "apikey", "key"] {
            if let Some(request) = run.request(&route.method, &format!("{}?{parameter}={key}", route.path)) {
                run.refused("credential-in-url", parameter, request).await;
            }
        }
    }
}

/// Methods that the profile does not name for the path, by nobody and by somebody.
async fn methods(run: &mut Run, route: &Route, routes: &[Route]) {
    let listed = |method: &str| {
        let method = if method == "HEAD" { "GET" } else { method };
        routes.iter().any(|held| held.path == route.path && held.method.as_str() == method)
    };
    let token = somebody(run, route).map(|token| token.mint());
    for name in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "PROPFIND"].into_iter().filter(|name| !listed(name))
    {
        let Some(request) =
            Method::from_bytes(name.as_bytes()).ok().and_then(|method| run.request(&method, &route.path))
        else {
            continue;
        };
        run.refused("method-unlisted", name, request.clone()).await;
        if let Some(token) = &token {
            run.refused("method-unlisted", name, bearing(request.clone(), token)).await;
        }
        if name == "POST" {
            for field in ["x-http-method-override", "x-http-method", "x-method-override"] {
                let request = with(request.clone(), field, route.method.as_str());
                let request = match &token {
                    Some(token) => bearing(request, token),
                    None => request,
                };
                run.refused("method-override", &format!("{field}: {}", route.method), request).await;
            }
        }
    }
}

async fn things(run: &mut Run) {
    for (route, stranger) in run.profile.tenants.clone() {
        if let Some(request) = run.request(&route.method, &route.path) {
            let request = bearing(request, &stranger.mint());
            run.refused("tenant-crossing", "somebody of another tenant", request).await;
        }
    }
    for (exists, missing, stranger) in run.profile.things.clone() {
        let mut answers = Vec::new();
        for route in [&exists, &missing] {
            let Some(request) = run.request(&route.method, &route.path) else { continue };
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
async fn limits(run: &mut Run, route: &Route) {
    let Some(limit) = run.profile.limit else { return };
    for (attack, spoofs) in [("limit-missing", false), ("limit-address-spoof", true)] {
        let Some(request) = run.request(&route.method, &route.path) else { return };
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
