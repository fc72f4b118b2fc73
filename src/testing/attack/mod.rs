//! Attacks on a service of your own: what a test sends before anybody else does.
//!
//! [`attack_suite`] takes the finished service, with every layer around it, and a [`Profile`]: its routes, who may use them,
//! and a token for each role. Each attack has a stable id, which [`ATTACKS`] lists and the [`AttackReport`] names.
//! With the feature `testing-network`, `attack_url` sends them to a service that runs.

#[cfg(feature = "testing-network")]
mod network;
mod profile;
mod report;
mod requests;
mod tokens;

use std::{
    fmt::Debug,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt;
use tower::{Service, util::ServiceExt};

#[cfg(feature = "testing-network")]
pub use network::{NetworkSuite, OWNERSHIP_PATH, attack_url};
pub use profile::Profile;
pub use report::{AttackReport, Finding};

use crate::client::{Connection, TlsVersion};

/// Each attack: its id, and what a service does that has the hole.
pub const ATTACKS: &[(&str, &str)] = &[
    ("token-alg-none", "accepts a token whose algorithm is none, in whatever case"),
    ("token-hmac-public-key", "takes the text of a public key for an HMAC secret"),
    ("token-weak-secret", "has an HMAC secret that can be guessed"),
    ("token-algorithm-mislabelled", "does not hold the alg of a token against the key's"),
    ("token-foreign-key", "does not check signatures"),
    ("token-embedded-key", "trusts the key that a token brings along"),
    ("token-key-url", "trusts the place that a token names for its key"),
    ("token-key-id", "takes a kid for more than a name"),
    ("token-unsigned", "takes a missing signature for a good one"),
    ("token-signature-altered", "takes a part of a signature for the whole, or zeros for one"),
    ("token-claims-swapped", "reads other claims than those that were signed"),
    ("token-signature-reencoded", "takes other spellings of a token for the token"),
    ("token-duplicate-header", "accepts a header that says things twice"),
    ("token-duplicate-claim", "accepts claims that say things twice"),
    ("token-critical-header", "ignores extensions that must not be ignored (RFC 7515 §4.1.11)"),
    ("token-type", "accepts tokens that are made for something else (RFC 8725 §3.11)"),
    ("token-expired", "accepts tokens that have ended"),
    ("token-without-expiry", "accepts tokens that never end"),
    ("token-not-yet-valid", "accepts tokens that have not begun"),
    ("token-issued-in-future", "accepts tokens from the future"),
    ("token-issuer", "accepts tokens of other issuers"),
    ("token-audience", "accepts tokens for other audiences"),
    ("token-without-subject", "accepts tokens of nobody"),
    ("token-claim-type", "accepts claims of the wrong type"),
    ("token-garbage", "accepts, or falls over, what is no token"),
    ("token-replay", "accepts a token again that is good for once"),
    ("credential-missing", "lets everybody in: a guard is missing on a route"),
    ("credential-twice", "accepts two credentials and picks one"),
    ("credential-joined", "accepts two credentials in one field"),
    ("credential-scheme", "accepts a token under another scheme"),
    ("credential-in-url", "accepts a credential in the URL, where logs keep it (RFC 9700 §4.3.2)"),
    ("credential-plain-http", "accepts a credential over plain HTTP"),
    ("key-altered", "accepts an API key that is not the whole key"),
    ("identity-header", "believes a header that says who is calling"),
    ("proxy-scheme", "believes a stranger that the connection is secure"),
    ("proxy-address", "believes a stranger that it calls from inside"),
    ("proxy-path", "follows a header to another path than the one that was checked"),
    ("proxy-certificate", "believes a stranger's certificate in a header"),
    ("role-crossing", "lets a role do what it may not"),
    ("tenant-crossing", "gives things of one tenant to another"),
    ("method-unlisted", "answers to methods that nobody listed"),
    ("method-override", "follows a header to another method than the one that was checked"),
    ("method-head", "answers HEAD where GET is guarded"),
    ("method-case", "does not guard a method in another case"),
    ("preflight-guard", "lets whatever looks like a CORS preflight pass the guard"),
    ("cors-origin", "lets every origin read what its user may see"),
    ("path-double-slash", "guards /a and answers //a"),
    ("path-dot-segments", "guards /a and answers /public/../a"),
    ("path-encoded", "guards /a and answers /%61"),
    ("path-trailing-slash", "guards /a and answers /a/"),
    ("path-case", "guards /a and answers /A"),
    ("path-parameters", "guards /a and answers /a;x=1"),
    ("path-backslash", "guards /a and answers \\a, in whatever form"),
    ("path-null", "guards /a and answers /a%00"),
    ("limit-missing", "has no limit, or one that fails open"),
    ("limit-address-spoof", "limits by an address that the client chooses"),
    ("existence-route", "tells the anonymous which routes there are"),
    ("existence-thing", "tells strangers which things there are"),
    ("leak-body", "shows its insides, or the credential, in a refusal"),
    ("refusal-challenge", "sends 401 without a challenge (RFC 9110 §15.5.2)"),
    ("cache-shared", "lets shared caches keep what is for one user"),
];

/// Attacks with keys that the service may have to look for: where it cannot, or must not ask so often, it may say so.
const UNKNOWN_KEYS: &[&str] = &["token-key-id"];

/// What is no attack: a suite whose good requests are refused proves nothing.
const CONTROL: &str = "control";

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Whether it cannot be decided now, and may be later (RFC 9110 §15.6.4, §10.2.3).
    fn asks_to_come_again(&self) -> bool {
        self.status == 503 && self.headers.contains_key(header::RETRY_AFTER)
    }
}

/// Makes the suite that sends every attack to this service. See [`AttackSuite::run`].
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use portcullis::{
///     guard::{public, require, role},
///     jwt::JwtAuthenticator,
///     stack::Stack,
///     testing::{TestIssuer, attack::{Profile, attack_suite}},
///     tls::TlsLayer,
/// };
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = TestIssuer::new("orders-api");
/// let app = Stack::builder()
///     .tls(TlsLayer::require())
///     .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build()?)
///     .route("GET /health", public())
///     .route("GET /orders", require(role("clerk")?))
///     .build()?
///     .protect(service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(Full::from("hello")))));
///
/// let profile = Profile::new()
///     .public("GET /health")?
///     .route("GET /orders", ["clerk"])?
///     .role("clerk", issuer.token().subject("alice").role("clerk"))
///     .role("guest", issuer.token().subject("mallory").role("guest"));
/// let report = attack_suite(app, profile).run().await;
/// assert!(report.is_clean(), "{report}");
/// # Ok(())
/// # }
/// ```
pub fn attack_suite<S>(service: S, profile: Profile) -> AttackSuite<S> {
    super::not_for_production();
    AttackSuite { service, profile }
}

/// Attacks that are ready to be sent; made by [`attack_suite`].
#[must_use]
#[derive(Debug)]
pub struct AttackSuite<S> {
    service: S,
    profile: Profile,
}

impl<S> AttackSuite<S> {
    /// Sends all that the profile gives an occasion for, one after the other, in process. Each request comes over TLS 1.3
    /// from an address of its own, so that limits do not hide what they are not for, but for the attacks on limits.
    pub async fn run<B, R>(self) -> AttackReport
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Debug,
        B: Default + Send + 'static,
        R: http_body::Body + Send,
        R::Data: Send,
        R::Error: Debug,
    {
        // A service need not be `Sync`, and what sends is shared across awaits.
        let service = Mutex::new(self.service);
        let send = move |request: Request<()>| -> Answering {
            let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Box::pin(async move {
                // The error, which need not be `Send`, is let go before the body is awaited.
                let response = service.oneshot(request.map(|()| B::default())).await.ok();
                match response {
                    Some(response) => {
                        let (head, body) = response.into_parts();
                        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        Answer { status: head.status.as_u16(), headers: head.headers, body }
                    }
                    // The connection is closed unanswered: nobody is let in, and a refusal it is not.
                    None => Answer { status: 0, headers: HeaderMap::new(), body: Bytes::new() },
                }
            })
        };
        let (send, report) = (Box::new(send), AttackReport::default());
        let mut run = Run { send, profile: self.profile, report, peers: 0, network: None };
        requests::all(&mut run).await;
        run.report
    }
}

/// A run under way.
struct Run {
    send: Box<dyn Fn(Request<()>) -> Answering + Send + Sync>,
    profile: Profile,
    report: AttackReport,
    peers: u32,
    /// The methods that the profile lists, where the requests go over the network.
    network: Option<Vec<Method>>,
}

impl Run {
    /// A request over TLS from an address that was not there before. None if it must not be sent.
    fn request(&mut self, method: &Method, target: &str) -> Option<Request<()>> {
        let listed = |methods: &Vec<Method>| method.is_safe() || methods.contains(method);
        if !self.network.as_ref().is_none_or(listed) {
            return None;
        }
        let mut request = Request::builder().method(method).uri(target).body(()).ok()?;
        request.extensions_mut().insert(Connection::tls(self.peer(), TlsVersion::Tls13));
        Some(request)
    }

    fn peer(&mut self) -> std::net::SocketAddr {
        self.peers = self.peers.wrapping_add(1);
        let [_, a, b, c] = self.peers.to_be_bytes();
        // 16 million addresses that are nobody's loopback.
        std::net::SocketAddr::from(([11, a, b, c], 52_100))
    }

    async fn send(&mut self, attack: &'static str, request: Request<()>) -> Answer {
        *self.report.sent.entry(attack).or_default() += 1;
        (self.send)(request).await
    }

    /// Sends what must be refused, and looks at the refusal as well.
    async fn refused(&mut self, attack: &'static str, sent: &str, request: Request<()>) -> Answer {
        let route = format!("{} {}", request.method(), request.uri());
        let credential = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credential = credential.and_then(|value| value.split(' ').next_back()).filter(|token| token.len() > 16);
        let credential = credential.map(str::to_owned);
        let answer = self.send(attack, request).await;
        let (expected, may_not_know) = match UNKNOWN_KEYS.contains(&attack) {
            true => ("a refusal (3xx, 4xx, or 503 with Retry-After)", answer.asks_to_come_again()),
            false => ("a refusal (3xx or 4xx)", false),
        };
        if !(300..500).contains(&answer.status) && !may_not_know {
            self.find(attack, &route, sent, expected, answer.status.to_string());
            return answer;
        }
        self.report.sent.entry("leak-body").or_default();
        self.report.sent.entry("refusal-challenge").or_default();
        if answer.status == 401 && !answer.headers.contains_key(header::WWW_AUTHENTICATE) {
            self.find("refusal-challenge", &route, sent, "a challenge with 401", "none".to_owned());
        }
        let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        const INSIDES: [&str; 10] = [
            "panicked at",
            ".rs:",
            "RUST_BACKTRACE",
            "stack backtrace",
            "::",
            "SELECT ",
            "/home/",
            "/src/",
            "Error {",
            "Err(",
        ];
        let shown = INSIDES.iter().map(|text| (*text).to_owned()).chain(self.profile.secrets.clone()).chain(credential);
        if let Some(shown) = shown.into_iter().find(|shown| text.contains(shown.as_str())) {
            let what: String = shown.chars().take(16).collect();
            self.find("leak-body", &route, sent, "a refusal that shows nothing", format!("one with {what:?}"));
        }
        answer
    }

    fn find(&mut self, attack: &'static str, route: &str, sent: &str, expected: &str, got: String) {
        let shorter = |text: &str| text.chars().take(200).collect();
        let finding =
            Finding { attack, route: shorter(route), sent: shorter(sent), expected: expected.to_owned(), got };
        self.report.findings.push(finding);
    }
}
