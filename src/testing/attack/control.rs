//! Good requests: they show what a route answers whom it lets in, and so which answers are no refusals.

use bytes::Bytes;
use http::{HeaderName, Method, Request, header};

use super::{
    profile::Route,
    run::{Answer, Run, bearing, keyed, outline, with},
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

impl Run {
    /// Begins with a route.
    pub(super) fn begin(&mut self, route: &Route) {
        self.bearings = Bearings { route: Some((route.method.clone(), route.path.clone())), ..Bearings::default() };
    }

    /// Sends a good request. The first one of a route must be answered `2xx` or `3xx`, and so must all of a safe method;
    /// what an unsafe one has used up may be gone for the next one, but it must not be refused.
    pub(super) async fn good(&mut self, route: &Route, sent: &str, request: Request<Bytes>) -> Answer {
        let answer = self.send(CONTROL, request).await;
        let print = Print::of(&answer);
        let used_up = !route.method.is_safe() && self.opened.contains(&route.line());
        let is_refused = matches!(answer.status, 0 | 400 | 401 | 403 | 405 | 415 | 422 | 429 | 500..);
        if !print.is_good() && (is_refused || !used_up) {
            let expected = "2xx or 3xx: nothing is proved here; give a body, or a thing that is there";
            self.find(CONTROL, &route.line(), sent, expected, answer.status.to_string());
        }
        if print.is_good() {
            self.opened.insert(route.line());
        }
        self.bearings.good.push(print);
        answer
    }

    /// Good requests of all who may use the route.
    pub(super) async fn controls(&mut self, route: &Route) {
        let doubtful = self.bearings.doubtful.len();
        if route.public
            && let Some(request) = self.ask(route)
        {
            self.good(route, "nobody, where everybody may", request).await;
        }
        for (role, token) in self.profile.people.clone() {
            if !route.allowed.contains(&role) {
                continue;
            }
            let Some(request) = self.ask(route) else { continue };
            let request = with(bearing(request, &self.mint(&token)), "origin", "https://mallory.invalid");
            let answer = self.good(route, &format!("somebody of the role {role}, which may"), request).await;
            self.kept_and_shared(route, &answer);
        }
        for (name, key) in self.keys().into_iter().filter(|_| route.keys) {
            let Some(request) = self.ask(route) else { continue };
            let request = with(keyed(request, &name, &key), "origin", "https://mallory.invalid");
            let answer = self.good(route, &format!("a good key in {name}"), request).await;
            self.kept_and_shared(route, &answer);
        }
        if self.bearings.good.is_empty() {
            let expected = "a token for a role that may, or route_for_keys: nothing is proved here";
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
            } else if let Some(token) = self.somebody(route) {
                self.good(route, "a good token after the attacks", bearing(request, &self.mint(&token))).await;
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
