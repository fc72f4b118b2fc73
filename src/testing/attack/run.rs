//! A run under way: what is sent, and what is made of each answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};

use super::{
    AttackReport, Finding, Profile,
    answer::{Answer, Answering},
    caller::{Caller, shown},
    control::{Bearings, Doubtful, Print, Unproved},
    key_place::KeyPlace,
    profile::Route,
    tokens::{UNKNOWN_KID, WITHOUT_KID},
};
use crate::{
    client::{Connection, TlsVersion},
    testing::TestToken,
};

/// Whether the service may have to look for the key of such a token, which has a kid that it does not know or none: where it
/// cannot, or must not ask so often, it may say so.
pub(super) fn seeks_a_key(attack: &str, sent: &str) -> bool {
    let is_unknown = attack == "token-key-url" && sent.ends_with(UNKNOWN_KID);
    attack == "token-key-id" || is_unknown || WITHOUT_KID.contains(&(attack, sent))
}

/// What no refusal shows: signs of code, of a database, of a machine.
const INSIDES: [&str; 10] =
    ["panicked at", ".rs:", "RUST_BACKTRACE", "stack backtrace", "::", "SELECT ", "/home/", "/src/", "Error {", "Err("];

/// A run under way.
pub(super) struct Run {
    send: Box<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>,
    pub(super) profile: Profile,
    pub(super) report: AttackReport,
    pub(super) peers: u32,
    /// The methods that the profile lists, each with its path, where the requests go over the network.
    pub(super) network: Option<HashSet<(Method, String)>>,
    /// What good requests of the route under way are answered.
    pub(super) bearings: Bearings,
    /// The routes that good requests have got at.
    pub(super) opened: BTreeSet<String>,
    /// The roles that were to be refused, and whether the service took the token of each for one.
    pub(super) crossed: BTreeMap<String, bool>,
    /// Where tokens say that their key is. None where the service could not come there.
    pub(super) key_place: Option<KeyPlace>,
    /// How often somebody came there that a finding tells.
    told: usize,
    /// The requests of each attack that a limit or an outage answered.
    pub(super) unproved: BTreeMap<(&'static str, u16), Unproved>,
}

impl Run {
    pub(super) fn new(
        send: impl Fn(Request<Bytes>) -> Answering + Send + Sync + 'static,
        profile: Profile,
        network: Option<HashSet<(Method, String)>>,
        key_place: Option<KeyPlace>,
    ) -> Self {
        Self {
            send: Box::new(send),
            profile,
            report: AttackReport::default(),
            peers: 0,
            network,
            bearings: Bearings::default(),
            opened: BTreeSet::new(),
            crossed: BTreeMap::new(),
            key_place,
            told: 0,
            unproved: BTreeMap::new(),
        }
    }

    /// A request over TLS from an address that was not there before. None if it must not be sent.
    pub(super) fn request(&mut self, method: &Method, target: &str) -> Option<Request<Bytes>> {
        let path = target.split('?').next().unwrap_or_default();
        let is_listed = |listed: &HashSet<_>| method.is_safe() || listed.contains(&(method.clone(), path.to_owned()));
        if !self.network.as_ref().is_none_or(is_listed) {
            return None;
        }
        self.request_to(method, target)
    }

    fn request_to(&mut self, method: &Method, target: &str) -> Option<Request<Bytes>> {
        let mut request = Request::builder().method(method).uri(target).body(Bytes::new()).ok()?;
        request.extensions_mut().insert(Connection::tls(self.peer(), TlsVersion::Tls13));
        if let Some(host) = &self.profile.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        Some(request)
    }

    /// The same once more, from another address.
    pub(super) fn again(&mut self, request: &Request<Bytes>) -> Request<Bytes> {
        let mut again = request.clone();
        again.extensions_mut().insert(Connection::tls(self.peer(), TlsVersion::Tls13));
        again
    }

    /// The request of a route, with its body.
    pub(super) fn ask(&mut self, route: &Route) -> Option<Request<Bytes>> {
        self.ask_at(route, &route.target())
    }

    /// The request of a route of the profile, at another target. Also over the network: where that has another path, nobody who
    /// may use the route sends it.
    pub(super) fn ask_at(&mut self, route: &Route, target: &str) -> Option<Request<Bytes>> {
        let mut request = self.request_to(&route.method, target)?;
        if let Some((content_type, body)) = self.profile.body_of(&route.line()) {
            request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            *request.body_mut() = body.clone();
        }
        Some(if route.websocket { upgrading(request) } else { request })
    }

    fn peer(&mut self) -> std::net::SocketAddr {
        self.peers = self.peers.wrapping_add(1);
        let [_, a, b, c] = self.peers.to_be_bytes();
        // 16 million addresses that are nobody's loopback.
        std::net::SocketAddr::from(([11, a, b, c], 52_100))
    }

    /// Sends what is compared with another answer.
    pub(super) async fn send(&mut self, attack: &'static str, request: Request<Bytes>) -> Answer {
        let route = format!("{} {}", request.method(), request.uri().path());
        let answer = self.exchange(attack, request).await;
        if matches!(answer.status, 429 | 503) {
            self.leave_unproved(attack, &route, "", answer.status);
        }
        answer
    }

    /// Sends what whoever sends it looks at, also if a limit or an outage answers.
    pub(super) async fn exchange(&mut self, attack: &'static str, request: Request<Bytes>) -> Answer {
        *self.report.sent.entry(attack).or_default() += 1;
        (self.send)(request).await
    }

    /// Sends what must be refused, and looks at the refusal as well. What might be no refusal waits for the good requests
    /// of the route.
    pub(super) async fn refused(&mut self, attack: &'static str, sent: &str, request: Request<Bytes>) -> Answer {
        // Without the query, which may be a credential.
        let route = format!("{} {}", request.method(), request.uri().path());
        let here = self.bearings.is_here(&request);
        let credentials = self.credentials(&request);
        let answer = self.exchange(attack, request).await;
        let (expected, may_not_know) = match seeks_a_key(attack, sent) {
            true => ("a refusal (3xx, 4xx, or 503 with Retry-After)", answer.asks_to_come_again()),
            false => ("a refusal (3xx or 4xx)", false),
        };
        if !(300..500).contains(&answer.status) && !may_not_know {
            self.find(attack, &route, sent, expected, answer.status.to_string());
            return answer;
        }
        if answer.status == 429 {
            self.leave_unproved(attack, &route, sent, answer.status);
        } else if !matches!(answer.status, 401 | 403 | 503) {
            let (route, sent) = (route.clone(), sent.to_owned());
            self.bearings.doubt(Doubtful { attack, route, sent, here, print: Print::of(&answer) });
        }
        self.report.sent.entry("leak-body").or_default();
        self.report.sent.entry("refusal-challenge").or_default();
        if answer.status == 401 && !answer.is_grpc && !answer.headers.contains_key(header::WWW_AUTHENTICATE) {
            self.find("refusal-challenge", &route, sent, "a challenge with 401", "none".to_owned());
        }
        let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        // What is secret is told without being shown again.
        let shown = if let Some(inside) = INSIDES.iter().find(|inside| text.contains(**inside)) {
            Some(format!("one with {inside:?}"))
        } else if let Some(number) = self.profile.secrets.iter().position(|secret| text.contains(secret.as_str())) {
            Some(format!("one with the profile's secret number {}", number.saturating_add(1)))
        } else {
            let has_any = credentials.iter().any(|credential| text.contains(credential.as_str()));
            has_any.then(|| "one with a credential".to_owned())
        };
        if let Some(shown) = shown {
            self.find("leak-body", &route, sent, "a refusal that shows nothing", shown);
        }
        answer
    }

    /// What of a request, and of the keys of the profile, no refusal may show.
    fn credentials(&self, request: &Request<Bytes>) -> Vec<String> {
        let fields = |name: &str| {
            let values = request.headers().get_all(name).into_iter();
            values.filter_map(|value| value.to_str().ok()).filter_map(|value| value.split(' ').next_back())
        };
        let tokens = fields("authorization").chain(shown(request));
        let mut credentials: Vec<&str> = tokens.filter(|token| token.len() > 16).collect();
        for (name, key) in &self.profile.keys {
            // Shorter ones may be words.
            credentials.extend(fields(name).chain(key.split(' ').next_back()).filter(|key| key.len() >= 8));
        }
        credentials.into_iter().map(str::to_owned).collect()
    }

    pub(super) fn find(&mut self, attack: &'static str, route: &str, sent: &str, expected: &str, got: String) {
        let shorter = |text: &str| text.chars().take(200).collect();
        let finding =
            Finding { attack, route: shorter(route), sent: shorter(sent), expected: expected.to_owned(), got };
        // Also where nothing could be sent: every form of the report goes by what is there.
        self.report.sent.entry(attack).or_default();
        self.report.findings.push(finding);
    }

    /// Finds whether anybody has asked for a key where a token said that it is.
    pub(super) fn ask_the_key_place(&mut self, route: &str, sent: &str) {
        let asked = self.key_place.as_ref().map_or(0, KeyPlace::asked);
        if asked > self.told {
            self.told = asked;
            self.find("token-key-url", route, sent, "nobody who asks there", "somebody who asked".to_owned());
        }
    }

    /// Sends what is good over plain HTTP, and with every word of a stranger's that it came over another. Not over the
    /// network, where whether the connection is secure is not for the sender to say.
    pub(super) async fn plainly(&mut self, what: &str, good: impl Fn(&mut Self) -> Request<Bytes>) {
        if self.network.is_some() {
            return;
        }
        let unsafely = plain(good(self));
        self.refused("credential-plain-http", &format!("{what} over plain HTTP"), unsafely).await;
        for (name, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-ssl", "on"),
            ("front-end-https", "on"),
            ("x-forwarded-scheme", "https"),
            ("forwarded", "for=192.0.2.1;proto=https"),
        ] {
            let unsafely = with(plain(good(self)), name, value);
            self.refused("proxy-scheme", &format!("{what}, {name}"), unsafely).await;
        }
    }

    /// The good keys, each with the name of its field.
    pub(super) fn keys(&self) -> Vec<(HeaderName, String)> {
        let named = |(name, key): &(String, String)| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, key.clone()));
        self.profile.keys.iter().filter_map(named).collect()
    }

    /// A token to send: where each is good for once, one that was not sent before.
    pub(super) fn mint(&self, token: &TestToken) -> String {
        self.fresh(token).mint()
    }

    /// As somebody, with a good token if they have one.
    pub(super) fn by(&self, request: Request<Bytes>, who: &Caller) -> Request<Bytes> {
        self.showing(request, who, &who.test_token().map(|token| self.mint(token)).unwrap_or_default())
    }

    /// As somebody, with this in place of their token. Where a browser sends it, a page of the service's own has caused it.
    pub(super) fn showing(&self, mut request: Request<Bytes>, who: &Caller, token: &str) -> Request<Bytes> {
        if who.is_by_browser() {
            let headers = request.headers_mut();
            match &self.profile.origin {
                Some(origin) => drop(headers.insert(header::ORIGIN, origin.clone())),
                None => drop(headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"))),
            }
        }
        who.showing(request, token)
    }

    pub(super) fn fresh(&self, token: &TestToken) -> TestToken {
        if self.profile.one_time { token.clone().anew() } else { token.clone() }
    }

    /// As one of the [strangers](Self::strangers).
    pub(super) fn sent_by(&self, request: Request<Bytes>, who: Option<&Caller>) -> Request<Bytes> {
        match who {
            Some(who) => self.by(request, who),
            None => request,
        }
    }

    /// Somebody who may not use the route.
    pub(super) fn stranger(&self, route: &Route) -> Option<Caller> {
        self.profile.people.iter().find(|(role, _)| route.denies(role)).map(|(_, who)| who.clone())
    }

    /// Those who may not use the route, and what to say of them: nobody, and somebody.
    pub(super) fn strangers(&self, route: &Route) -> Vec<(&'static str, Option<Caller>)> {
        let somebody = self.stranger(route).map(|who| (", by somebody who may not", Some(who)));
        std::iter::once(("", None)).chain(somebody).collect()
    }

    /// All who may use the route, each with what to say of them: those of roles, and whoever owns what is there.
    pub(super) fn users(&self, route: &Route) -> Vec<(String, Caller)> {
        let of_roles = self.profile.people.iter().filter(|(role, _)| route.allowed.contains(role));
        let of_roles = of_roles.map(|(role, who)| (format!("somebody of the role {role}, which may"), who.clone()));
        let owners = self.profile.things.iter().filter(|thing| thing.exists.line() == route.line());
        let owner = owners.map(|thing| ("whoever may have it".to_owned(), thing.owner.clone()));
        let users: Vec<_> = of_roles.collect();
        if users.is_empty() { owner.take(1).collect() } else { users }
    }

    /// Somebody who may use the route.
    pub(super) fn somebody(&self, route: &Route) -> Option<Caller> {
        let of_a_role = route.allowed.iter().find_map(|role| self.profile.people.get(role)).cloned();
        of_a_role.or_else(|| self.users(route).into_iter().next().map(|(_, who)| who))
    }

    /// As if a page of another place had a hand in it; where a browser shows who somebody is, that alone would be refused.
    pub(super) fn with_origin(&self, request: Request<Bytes>, place: &str) -> Request<Bytes> {
        if request.headers().contains_key("sec-fetch-site") || request.headers().contains_key(header::ORIGIN) {
            return request;
        }
        with(request, "origin", place)
    }
}

pub(super) fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers_mut().append(HeaderName::from_static(name), value);
    }
    request
}

pub(super) fn bearing(request: Request<Bytes>, token: &str) -> Request<Bytes> {
    with(request, "authorization", &format!("Bearer {token}"))
}

/// The same, asking for a WebSocket (RFC 6455 §4.1).
fn upgrading(request: Request<Bytes>) -> Request<Bytes> {
    [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "cG9ydGN1bGxpcy10ZXN0IQ=="),
    ]
    .into_iter()
    .fold(request, |request, (name, value)| with(request, name, value))
}

pub(super) fn keyed(mut request: Request<Bytes>, name: &HeaderName, key: &str) -> Request<Bytes> {
    if let Ok(value) = HeaderValue::from_str(key) {
        request.headers_mut().append(name, value);
    }
    request
}

/// The same over plain HTTP.
fn plain(mut request: Request<Bytes>) -> Request<Bytes> {
    if let Some(peer) = request.extensions().get::<Connection>().and_then(Connection::peer) {
        request.extensions_mut().insert(Connection::plain(peer));
    }
    request
}
