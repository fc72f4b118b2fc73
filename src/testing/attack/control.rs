//! Good requests: they show what a route answers whom it lets in, and so which answers are no refusals.

use bytes::Bytes;
use http::{HeaderName, Method, Request, header};

use super::{
    answer::{Answer, outline},
    profile::Route,
    run::{Run, keyed, with},
};

/// What is no attack: a suite whose good requests are refused proves nothing.
pub(super) const CONTROL: &str = "control";

/// What two answers have in common that come of the same.
#[derive(Clone, Debug)]
pub(super) struct Print {
    status: u16,
    body: Bytes,
    place: String,
}

impl Print {
    pub(super) fn of(answer: &Answer) -> Self {
        let place = answer.headers.get(header::LOCATION).and_then(|place| place.to_str().ok()).unwrap_or_default();
        // What has just been made has another number each time.
        let segments = place.split('/').map(|segment| match segment.contains(|c: char| c.is_ascii_digit()) {
            true => "#",
            false => segment,
        });
        Self { status: answer.status, body: answer.body.clone(), place: segments.collect::<Vec<_>>().join("/") }
    }

    fn is_good(&self) -> bool {
        (200..400).contains(&self.status)
    }
}

/// An answer that is a refusal only if good requests of the route are answered in another way.
#[derive(Debug)]
pub(super) struct Doubtful {
    pub(super) attack: &'static str,
    pub(super) route: String,
    pub(super) sent: String,
    /// Whether it was sent to the method and path of the route, and not to others like them.
    pub(super) here: bool,
    pub(super) print: Print,
}

/// What good requests of the route under way were answered, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Bearings {
    route: Option<(Method, String)>,
    good: Vec<Print>,
    /// How many of the good requests, and of the doubtful answers, came while nothing had been used up.
    early: Option<(usize, usize)>,
    doubtful: Vec<Doubtful>,
}

impl Bearings {
    pub(super) fn is_here(&self, request: &Request<Bytes>) -> bool {
        let here = |(method, path): &(Method, String)| method == request.method() && path == request.uri().path();
        self.route.as_ref().is_some_and(here)
    }

    /// Whether a body is one that a good request got, but for numbers in it.
    pub(super) fn has_body(&self, body: &[u8]) -> bool {
        self.good.iter().any(|good| good.is_good() && outline(&good.body) == outline(body))
    }

    pub(super) fn doubt(&mut self, doubtful: Doubtful) {
        if self.route.is_some() {
            self.doubtful.push(doubtful);
        }
    }

    /// Whether an answer is one that a good request of the status `like` got, as far as such answers do not differ.
    fn is_like(&self, like: &Print, print: &Print) -> bool {
        let same_status = self.good.iter().filter(|good| good.status == like.status);
        let (fixed, placed) = same_status.fold((true, true), |(fixed, placed), good| {
            (fixed && good.body == like.body, placed && good.place == like.place)
        });
        like.status == print.status && (!fixed || like.body == print.body) && (!placed || like.place == print.place)
    }

    /// The doubtful answers that good requests got as well.
    fn let_in(&mut self) -> Vec<Doubtful> {
        let (good, doubtful) = self.early.unwrap_or((self.good.len(), self.doubtful.len()));
        let all = std::mem::take(&mut self.doubtful);
        let is_let_in = |(number, answer): &(usize, Doubtful)| {
            // What a good request has used up is not there for whoever comes after it, and was for whoever came before.
            let among = if *number < doubtful { good } else { self.good.len() };
            // Nothing is at other paths: what is said of that is not what is said of things that were used up.
            let tells = |like: &&Print| answer.here || like.is_good();
            self.good.iter().take(among).filter(tells).any(|like| self.is_like(like, &answer.print))
        };
        all.into_iter().enumerate().filter(is_let_in).map(|(_, answer)| answer).collect()
    }
}

/// Requests that prove nothing: the first of them, and how many came after it.
#[derive(Debug)]
pub(super) struct Unproved {
    route: String,
    sent: String,
    more: u32,
}

impl Run {
    /// Begins with a route.
    pub(super) fn begin(&mut self, route: &Route) {
        self.bearings = Bearings { route: Some((route.method.clone(), route.path.clone())), ..Bearings::default() };
    }

    /// Sends a good request. The first one of a route must be answered `2xx` or `3xx`, and so must all of a safe method;
    /// what an unsafe one has used up may be gone for the next one, but it must not be refused.
    pub(super) async fn good(&mut self, route: &Route, sent: &str, request: Request<Bytes>) -> Answer {
        let answer = self.exchange(CONTROL, request).await;
        let print = Print::of(&answer);
        let is_good = print.is_good() || self.is_as_far_as_it_gets(route, &print);
        let used_up = !route.method.is_safe() && self.opened.contains(&route.line());
        let is_refused = matches!(answer.status, 0 | 400 | 401 | 403 | 405 | 415 | 422 | 429 | 500..);
        if !is_good && (is_refused || !used_up) {
            let expected = match answer.status {
                429 => "2xx or 3xx, and no limit: nothing is proved here; give whoever sends it a larger quota",
                _ => "2xx or 3xx: nothing is proved here; give a body, or a thing that is there",
            };
            self.find(CONTROL, &route.line(), sent, expected, answer.status.to_string());
        }
        if is_good {
            self.opened.insert(route.line());
        }
        // A safe method uses nothing up: one that gets nowhere is no mark of what is let in.
        if is_good || !route.method.is_safe() {
            self.bearings.good.push(print);
        }
        answer
    }

    /// In process nothing can be upgraded, and a WebSocket is not opened.
    fn is_as_far_as_it_gets(&self, route: &Route, print: &Print) -> bool {
        route.websocket && (print.status == 101 || (print.status == 426 && self.network.is_none()))
    }

    /// Good requests of all who may use the route.
    pub(super) async fn controls(&mut self, route: &Route) {
        let doubtful = self.bearings.doubtful.len();
        let sent_before = self.report.sent.get(CONTROL).copied();
        if route.public
            && let Some(request) = self.ask(route)
        {
            self.good(route, "nobody, where everybody may", request).await;
        }
        for (words, who) in self.users(route) {
            let Some(request) = self.ask(route) else { continue };
            let request = self.by(request, &who);
            let request = self.with_origin(request, "https://mallory.invalid");
            let answer = self.good(route, &words, request).await;
            self.kept_and_shared(route, &answer);
            // A page of another site may cause it as well, and must not see what comes of it.
            if who.is_by_browser()
                && route.method.is_safe()
                && !route.websocket
                && let Some(request) = self.ask(route)
            {
                let request = self.caused_elsewhere(request, &who, "https://mallory.invalid");
                let answer = self.send("cors-origin", request).await;
                self.kept_and_shared(route, &answer);
            }
        }
        for (name, key) in self.keys().into_iter().filter(|_| route.keys) {
            let Some(request) = self.ask(route) else { continue };
            let request = with(keyed(request, &name, &key), "origin", "https://mallory.invalid");
            let answer = self.good(route, &format!("a good key in {name}"), request).await;
            self.kept_and_shared(route, &answer);
        }
        if self.report.sent.get(CONTROL).copied() == sent_before {
            let expected = "a token for a role that may, route_for_keys, or other_owner: nothing is proved here";
            self.find(CONTROL, &route.line(), "a good request", expected, "nobody who may send it".to_owned());
        }
        self.bearings.early = Some((self.bearings.good.len(), doubtful));
    }

    /// Whether the tokens of those who were refused are good ones: of others, every refusal says nothing. Those of roles that may
    /// use a route are in the good requests.
    pub(super) fn strangers_are_somebody(&mut self) {
        for (role, _) in std::mem::take(&mut self.crossed).into_iter().filter(|(_, is_taken)| !is_taken) {
            if !self.profile.routes.iter().any(|route| route.allowed.contains(&role)) {
                self.not_taken("every route", &format!("somebody of the role {role}"));
            }
        }
    }

    /// A stranger whose token is none to the service is refused for that.
    pub(super) fn not_taken(&mut self, route: &str, who: &str) {
        let expected = "a token that the service takes, and another refusal than 401: nothing is proved here";
        self.find(CONTROL, route, who, expected, "401".to_owned());
    }

    /// A limit or an outage answered, and what the service would have done without is not known.
    pub(super) fn leave_unproved(&mut self, attack: &'static str, route: &str, sent: &str, status: u16) {
        let first = || Unproved { route: route.to_owned(), sent: sent.to_owned(), more: 0 };
        let met = self.unproved.entry((attack, status));
        met.and_modify(|met| met.more = met.more.saturating_add(1)).or_insert_with(first);
    }

    /// Finds the attacks that a limit or an outage answered.
    pub(super) fn tell_unproved(&mut self) {
        for ((attack, status), Unproved { route, sent, more }) in std::mem::take(&mut self.unproved) {
            let words = if sent.is_empty() { String::new() } else { format!(" {sent},") };
            let sent = format!("{attack},{words} and {more} more");
            let expected =
                "an answer of no limit and no outage: nothing is proved here; give whoever sends it a larger quota";
            self.find(CONTROL, &route, &sent, expected, status.to_string());
        }
    }

    /// Whom an answer to somebody might reach besides.
    fn kept_and_shared(&mut self, route: &Route, answer: &Answer) {
        if !Print::of(answer).is_good() {
            return;
        }
        let text = |name: HeaderName| {
            answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
        };
        self.report.sent.entry("cache-shared").or_default();
        let kept = text(header::CACHE_CONTROL);
        if !kept.contains("private") && !kept.contains("no-store") {
            self.find("cache-shared", &route.line(), "a good credential", "Cache-Control: private or no-store", kept);
        }
        self.report.sent.entry("cors-origin").or_default();
        let origin = text(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        if origin == "https://mallory.invalid" && text(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) == "true" {
            self.find("cors-origin", &route.line(), "a foreign Origin", "no leave to read with credentials", origin);
        }
    }

    /// Ends with a route: asks once more, and holds what is in doubt against what good requests got.
    pub(super) async fn end(&mut self, route: &Route) {
        // Twice: what two answers to the same do not share is no mark of it.
        for _ in 0..2 {
            let Some(request) = self.ask(route) else { break };
            if route.public {
                self.good(route, "nobody, after the attacks", request).await;
            } else if let Some(who) = self.somebody(route) {
                let request = self.by(request, &who);
                self.good(route, "a good token after the attacks", request).await;
            } else if let Some((name, key)) = self.keys().into_iter().next().filter(|_| route.keys) {
                self.good(route, "a good key after the attacks", keyed(request, &name, &key)).await;
            }
        }
        self.settle();
    }

    /// Finds the attacks that were answered as good requests are.
    pub(super) fn settle(&mut self) {
        for Doubtful { attack, route, sent, print, .. } in self.bearings.let_in() {
            let got = format!("{}, as a good request", print.status);
            self.find(attack, &route, &sent, "a refusal: 401, 403, or what no good request gets", got);
        }
        self.bearings = Bearings::default();
    }
}
