//! Attacks on a service of your own: what a test sends before anybody else does.
//!
//! [`attack_suite`] takes the finished service, with every layer around it, and a [`Profile`]: its routes, who may use them,
//! and a token for each role. Each attack has a stable id, which [`ATTACKS`] lists and the [`AttackReport`] names.
//! With the feature `testing-network`, `attack_url` sends them to a service that runs.

mod answer;
mod caller;
mod control;
mod cross_site;
mod key_place;
mod keys;
mod methods;
#[cfg(feature = "testing-network")]
mod network;
mod profile;
mod report;
mod requests;
mod run;
mod strangers;
mod things;
mod tokens;
mod values;

use std::{
    fmt::Debug,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Mutex, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Service, util::ServiceExt};

pub use caller::Caller;
#[cfg(feature = "testing-network")]
pub use network::{NetworkSuite, OWNERSHIP_PATH, attack_url};
pub use profile::Profile;
pub use report::{AttackReport, Finding};
pub use values::PathValues;

use answer::{Answer, Answering};
use key_place::KeyPlace;
use run::Run;

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
    ("key-altered", "accepts an API key that is not the whole key, or any secret beside a known id"),
    ("identity-header", "believes a header that says who is calling"),
    ("proxy-scheme", "believes a stranger that the connection is secure"),
    ("proxy-address", "believes a stranger that it calls from inside"),
    ("proxy-path", "follows a header to another path than the one that was checked"),
    ("proxy-certificate", "believes a stranger's certificate in a header"),
    ("role-crossing", "lets a role do what it may not"),
    ("tenant-crossing", "gives things of one tenant to another"),
    ("owner-crossing", "gives things of one person to another"),
    ("csrf-origin", "takes a cookie for a request that another site has caused"),
    ("csrf-no-origin", "takes a cookie with an unsafe method, and no word of where the request comes from"),
    ("csrf-websocket", "opens a WebSocket by a cookie for pages of another site"),
    ("method-unlisted", "answers to methods that the profile does not list for the path"),
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

/// Makes the suite that sends every attack to this service. See [`AttackSuite::run`].
///
/// ```
/// use bytes::Bytes;
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
///     .protect(service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::convert::Infallible>(Response::new(Full::from("hello")))));
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
    /// from an address of its own, so that limits do not hide what they are not for, but for the attacks on limits. A port of
    /// loopback is open meanwhile, for whoever fetches a key from where a token says that it is.
    ///
    /// A service that panics has not answered, which is a finding.
    ///
    /// Where the service's body is not made from [`Bytes`], put tower's `map_request` around it. A service that takes requests of any
    /// body, as axum's router does, leaves the compiler to guess which is meant, and it does not guess: write
    /// `run::<axum::body::Body, _>()`, or call `run_axum` (feature `axum`), which does.
    pub async fn run<B, R>(self) -> AttackReport
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Debug,
        B: From<Bytes> + Send + 'static,
        R: http_body::Body + Send,
        R::Data: Send,
        R::Error: Debug,
    {
        // A service need not be `Sync`, and what sends is shared across awaits.
        let service = Mutex::new(self.service);
        let send = move |request: Request<Bytes>| -> Answering {
            let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Box::pin(async move {
                let answer = async move {
                    // The error, which need not be `Send`, is let go before the body is awaited.
                    let (head, body) = service.oneshot(request.map(B::from)).await.ok()?.into_parts();
                    let Ok(body) = body.collect().await else { return Some(Answer::of(head, Bytes::new(), None)) };
                    let trailers = body.trailers().cloned();
                    Some(Answer::of(head, body.to_bytes(), trailers.as_ref()))
                };
                unless_it_panics(answer).await.flatten().unwrap_or_else(Answer::unanswered)
            })
        };
        let mut run = Run::new(send, self.profile, None, KeyPlace::open());
        requests::all(&mut run).await;
        run.report
    }
}

#[cfg(feature = "axum")]
impl<S> AttackSuite<S> {
    /// As [`run`](Self::run), for axum's router, and for what stands around one: requests have axum's body.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use portcullis::{
    ///     guard::{require, role},
    ///     jwt::JwtAuthenticator,
    ///     stack::Stack,
    ///     testing::{TestIssuer, attack::{Profile, attack_suite}},
    ///     tls::TlsLayer,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let issuer = TestIssuer::new("orders-api");
    /// let app = Stack::builder()
    ///     .tls(TlsLayer::require())
    ///     .authenticate(JwtAuthenticator::builder().issuer(issuer.access_tokens()).build()?)
    ///     .route("GET /orders", require(role("clerk")?))
    ///     .build()?
    ///     .protect(Router::new().route("/orders", get(|| async { "hello" })));
    ///
    /// let profile = Profile::new()
    ///     .route("GET /orders", ["clerk"])?
    ///     .role("clerk", issuer.token().subject("alice").role("clerk"));
    /// let report = attack_suite(app, profile).run_axum().await;
    /// assert!(report.is_clean(), "{report}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_axum<R>(self) -> AttackReport
    where
        S: Service<Request<axum::body::Body>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Debug,
        R: http_body::Body + Send,
        R::Data: Send,
        R::Error: Debug,
    {
        self.run::<axum::body::Body, R>().await
    }
}

/// What comes of it; none if it panics, as a server closes the connection then and goes on.
async fn unless_it_panics<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}
