use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{
    clock::Instants,
    error::{ConfigError, StoreError},
    http_client::{
        Endpoint, FetchLimits, HttpClient, HttpFetch, HttpsFetch, LastAnswer, Media, bearer, may_be_the_questions_fault,
    },
    log::{Seldom, chain, one_line},
    secret::Secret,
};

/// A decision point on the network, and how it is asked: for [`Opa`](crate::policy::Opa) and
/// [`AuthZen`](crate::policy::AuthZen).
///
/// | setting | default |
/// |---|---|
/// | [`limits`](Self::limits) | 200 ms from the start of a request to the last byte of the answer, connecting included; 256 KiB |
/// | [`max_in_flight`](Self::max_in_flight) | 64 requests at once; one more is not sent and waits for nothing |
/// | [`bearer`](Self::bearer) | no credential |
///
/// `https` alone, no redirects, one attempt; connections are kept and used again. What goes wrong is
/// [`cannot decide`](crate::policy::Decision::CannotDecide), for a client `503`; the cause is in the record and in the log,
/// there at most once a minute.
///
/// ```
/// use portcullis::{Secret, policy::DecisionPoint};
///
/// # let token = "t0ken".to_owned();
/// let point = DecisionPoint::at("https://opa.internal:8181").bearer(Secret::from(token));
/// # let _ = point;
/// ```
#[must_use = "a decision point does nothing until a policy asks it"]
pub struct DecisionPoint {
    url: String,
    client: Option<Arc<dyn HttpFetch>>,
    limits: FetchLimits,
    bearer: Option<Secret>,
    max_in_flight: usize,
    http_on_loopback: bool,
}

/// Without the URL, which may hold a password until it is refused for that.
impl fmt::Debug for DecisionPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (&self.limits, self.max_in_flight, self.http_on_loopback);
        f.debug_tuple("DecisionPoint").field(&fields).finish()
    }
}

impl DecisionPoint {
    /// How long a request may take unless it is said.
    pub const DEFAULT_TIME: Duration = Duration::from_millis(200);
    /// The largest answer unless it is said.
    pub const DEFAULT_BYTES: usize = 256 * 1024;
    /// The most requests at once unless it is said.
    pub const DEFAULT_IN_FLIGHT: usize = 64;

    /// The decision point below this URL: `https`, without a query. The API's own path is put behind it.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            client: None,
            limits: FetchLimits::new(Self::DEFAULT_TIME, Self::DEFAULT_BYTES),
            bearer: None,
            max_in_flight: Self::DEFAULT_IN_FLIGHT,
            http_on_loopback: false,
        }
    }

    /// Sends requests with this client. Default: an [`HttpsFetch`] that trusts the system's certificates and keeps as many
    /// connections as requests may be on their way.
    pub fn http(mut self, client: impl HttpFetch) -> Self {
        self.client = Some(Arc::new(client));
        self
    }

    /// Sets the limits of a request. Default 200 ms and 256 KiB: a decision is waited for by a request. Over them it cannot be decided,
    /// `503`.
    pub const fn limits(mut self, limits: FetchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sends this token (RFC 6750 §2.1) with each question.
    pub fn bearer(mut self, token: Secret) -> Self {
        self.bearer = Some(token);
        self
    }

    /// Sets how many requests may be on their way at once, 1 to 10 000. A question beyond it cannot be decided: a decision
    /// point that is slow must not pile up requests here.
    pub const fn max_in_flight(mut self, most: usize) -> Self {
        self.max_in_flight = most;
        self
    }

    /// Takes an `http` URL whose host is this machine: a sidecar, or tests.
    ///
    /// # Security
    /// Whoever can listen on the port then decides.
    pub const fn dangerous_http_on_loopback(mut self) -> Self {
        self.http_on_loopback = true;
        self
    }

    /// Puts the paths behind the URL, in order.
    pub(super) fn open<const N: usize>(self, paths: [&str; N]) -> Result<(Arc<Point>, [Endpoint; N]), ConfigError> {
        let base = Endpoint::parse(&self.url, self.http_on_loopback)?;
        if self.url.contains('?') {
            return Err(ConfigError::new("decision point", format!("{:?}", base.shown()), "has a query"));
        }
        self.limits.check("questions to a decision point")?;
        if self.max_in_flight == 0 || self.max_in_flight > 10_000 {
            let value = self.max_in_flight.to_string();
            return Err(ConfigError::new("requests in flight to a decision point", value, "is not 1 to 10000"));
        }
        if let Some(token) = &self.bearer {
            bearer(token)?;
        }
        let parse =
            |path: &str| Endpoint::parse(&format!("{}{path}", self.url.trim_end_matches('/')), self.http_on_loopback);
        let mut endpoints = Vec::with_capacity(N);
        for path in paths {
            endpoints.push(parse(path)?);
        }
        let endpoints = endpoints
            .try_into()
            .map_err(|_| ConfigError::new("decision point", "its paths", "are not as many as were named"))?;
        let client = match self.client {
            Some(client) => client,
            None => Arc::new(HttpsFetch::builder().keep_connections(self.max_in_flight).build()?),
        };
        let point = Point {
            name: base.shown().into(),
            client: HttpClient::new(client, self.limits),
            bearer: self.bearer,
            in_flight: Semaphore::new(self.max_in_flight),
            max_in_flight: self.max_in_flight,
            last: LastAnswer::default(),
            told: Seldom::new(),
        };
        Ok((Arc::new(point), endpoints))
    }
}

/// A decision point that is asked.
pub(super) struct Point {
    name: Arc<str>,
    client: HttpClient,
    bearer: Option<Secret>,
    in_flight: Semaphore,
    max_in_flight: usize,
    last: LastAnswer,
    told: Seldom,
}

impl Point {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends a question, reads the answer, and checks that it is one. An error says why there is none, to the operator.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        to: &Endpoint,
        question: &serde_json::Value,
        at: Instants,
        check: impl FnOnce(&T) -> Result<(), String> + Send,
    ) -> Result<T, String> {
        // Nobody waits here. That is no failure of the decision point: it may well answer those that are on their way.
        let Ok(_place) = self.in_flight.try_acquire() else {
            let cause = format!("{}: {} questions are on their way already", self.name, self.max_in_flight);
            self.told.error(at, &format!("a decision point is not asked: {cause}"));
            return Err(cause);
        };
        let answered = match self.send(to, question).await {
            Ok(body) => read(to, &body).and_then(|answer| match check(&answer) {
                Ok(()) => Ok(answer),
                Err(problem) => Err(Lapse { blame: Blame::Either, cause: format!("{to}: {problem}") }),
            }),
            Err(lapse) => Err(lapse),
        };
        match answered {
            Ok(answer) => {
                self.last.came();
                Ok(answer)
            }
            Err(lapse) => {
                let cause = one_line(&lapse.cause);
                match lapse.blame {
                    Blame::Point => self.last.failed(cause.as_str(), at),
                    Blame::Either => self.last.doubted(cause.as_str(), at),
                    Blame::Question => {}
                }
                self.told.error(at, &format!("a decision point does not decide: {cause}"));
                Err(cause)
            }
        }
    }

    async fn send(&self, to: &Endpoint, question: &serde_json::Value) -> Result<bytes::Bytes, Lapse> {
        let ours = |cause: String| Lapse { blame: Blame::Point, cause };
        let mut headers = HeaderMap::new();
        let mut authorization = None;
        if let Some(token) = &self.bearer {
            let value = bearer(token).map_err(|error| ours(error.to_string()))?;
            authorization = value.to_str().ok().and_then(|value| value.split(' ').nth(1)).map(str::to_owned);
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = serde_json::to_vec(question).map_err(|error| ours(format!("the question is no JSON: {error}")))?;
        let sent = self.client.post(to, Media::Json, body, headers).await;
        let (parts, body) = sent.map_err(|error| ours(format!("{to}: {}", cause(&error))))?.into_parts();
        if parts.status == StatusCode::OK {
            return Ok(body);
        }
        let mut said = String::from_utf8_lossy(&body).into_owned();
        if let Some(token) = authorization {
            // A gateway's page of errors may repeat what it was sent.
            said = said.replace(&token, "***");
        }
        let blame = match parts.status {
            status if may_be_the_questions_fault(status) => Blame::Question,
            StatusCode::INTERNAL_SERVER_ERROR => Blame::Either,
            _ => Blame::Point,
        };
        Err(Lapse { blame, cause: format!("{to} answers {}: {said}", parts.status.as_u16()) })
    }
}

/// Why a question has no answer.
struct Lapse {
    blame: Blame,
    cause: String,
}

/// Where the fault lies. A client that puts odd things into its requests must not make the decision point look away.
enum Blame {
    Point,
    Question,
    /// Its policy fails, or answers in another form, at this question at least.
    Either,
}

/// Reads a JSON object; a member of it that stands twice is refused, and within it where the type says so.
fn read<T: DeserializeOwned>(to: &Endpoint, body: &[u8]) -> Result<T, Lapse> {
    // An array would be read as well, member by member; and of a text that is skipped, no octet would be looked at.
    let body = std::str::from_utf8(body).ok().filter(|body| body.trim_ascii_start().starts_with('{'));
    let Some(body) = body else {
        return Err(Lapse { blame: Blame::Point, cause: format!("{to}: the answer is no JSON object") });
    };
    serde_json::from_str(body).map_err(|error| {
        // What is JSON comes from the policy; what is none, from somebody else.
        let blame = if error.is_data() { Blame::Either } else { Blame::Point };
        Lapse { blame, cause: format!("{to}: the answer cannot be read: {error}") }
    })
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point").field("name", &self.name).field("client", &self.client).finish_non_exhaustive()
    }
}

/// How a decision point is doing, as the questions found it; looking asks it nothing. A clone looks at the same.
#[derive(Clone, Debug)]
#[must_use]
pub struct PointHealth {
    point: Arc<Point>,
}

impl PointHealth {
    /// How long a question that had no answer says that the decision point is away. It may be back, and nobody has asked.
    pub const RECENT: Duration = LastAnswer::RECENT;

    pub(super) const fn of(point: Arc<Point>) -> Self {
        Self { point }
    }

    /// The URL.
    #[must_use]
    pub fn name(&self) -> &str {
        self.point.name()
    }

    /// Why the last question had no answer, for the operator; none if it had one, or none was asked.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.point.last.failure()
    }

    /// The same if that question was asked within the last [`RECENT`](Self::RECENT) seconds.
    #[must_use]
    pub fn recent_failure(&self, at: Instants) -> Option<Arc<str>> {
        self.point.last.recent_failure(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_json_object() {
        #[derive(serde::Deserialize)]
        struct Answer {
            result: bool,
        }
        let to = Endpoint::parse("https://pdp.internal", false).unwrap();
        let read = |body: &[u8]| read::<Answer>(&to, body).map(|answer| answer.result).map_err(|lapse| lapse.blame);
        for good in ["{\"result\":true}", " {\"x\":[1e999,\"\u{e9}\"],\"result\":true}\n"] {
            assert!(matches!(read(good.as_bytes()), Ok(true)), "{good}");
        }
        for (name, bad) in [
            ("nothing", &b""[..]),
            ("a list", b"[true]"),
            ("two objects", b"{\"result\":true}{}"),
            ("not UTF-8", b"{\"result\":true,\"x\":\"\xff\"}"),
        ] {
            assert!(matches!(read(bad), Err(Blame::Point)), "{name}");
        }
        assert!(matches!(read(b"{\"result\":1}"), Err(Blame::Either)), "of another type");
    }
}
