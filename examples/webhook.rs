//! Webhooks: a credential that signs the body, as [Standard Webhooks](https://www.standardwebhooks.com) have it.
//!
//! ```sh
//! cargo run --example webhook --features dpop      # prints `export` lines: of a signature that counts for five minutes
//! call() { curl -i -H "webhook-id: 1" -H "webhook-timestamp: $SENT" "$@"; }
//! call localhost:3000/hooks -d 'order 7 is paid'                                        # 401
//! call localhost:3000/hooks -d 'order 9 is paid' -H "webhook-signature: $SIGNATURE"     # 401
//! call localhost:3000/hooks -d 'order 7 is paid' -H "webhook-signature: $LATE"          # 401
//! call localhost:3000/hooks -d 'order 7 is paid' -H "webhook-signature: $SIGNATURE"     # 200
//! call localhost:3000/hooks -d 'order 7 is paid' -H "webhook-signature: $SIGNATURE"     # 401
//! call localhost:3000/hooks -d "$(head -c 66000 /dev/zero | tr '\0' x)"                 # 413
//! ```

use std::{error::Error, time::Duration};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::Request,
    http::{HeaderName, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis::{
    Challenge, Clock, Instants, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead, SystemClock,
    authn::{Authenticator, Identity, Outcome},
    guard::{require, role},
    jwt::bound::{MemoryReplays, ProofUse, Remembered, ReplayStore},
    rate_limit::{FailureBudget, Quota},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::{net::TcpListener, time::timeout};
use tower::{Layer, ServiceBuilder};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const SENT: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How far the sender's time may be from ours, in seconds.
const TOLERANCE: u64 = 5 * 60;

/// What the signature is about. Layers see the head of a request alone, so this is put there by who stands outside of them.
#[derive(Clone)]
struct WholeBody(Bytes);

/// Reads the body for who checks its signature: 64 KiB at most, within 5 seconds, since nobody has said who they are yet.
async fn keep_body(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match timeout(Duration::from_secs(5), to_bytes(body, 64 << 10)).await {
        Ok(Ok(body)) => {
            parts.extensions.insert(WholeBody(body.clone()));
            next.run(Request::from_parts(parts, body.into())).await
        }
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// One sender, whose secret this is.
#[derive(Debug)]
struct Webhooks {
    secret: hmac::Key,
    /// With several processes, `RedisReplays`: a delivery that one of them took is known to all.
    seen: MemoryReplays,
}

fn signed(id: &str, sent: u64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{sent}.").as_bytes(), body].concat()
}

fn bad(why: &'static str) -> Rejection {
    Rejection::new(RejectionKind::InvalidCredential, why)
}

impl Webhooks {
    async fn sender(&self, head: &RequestHead<'_>, at: Instants) -> Result<Option<Principal>, Rejection> {
        let fields = (head.single_header(&ID)?, head.single_header(&SENT)?, head.single_header(&SIGNATURE)?);
        let (Some(id), Some(sent), Some(signatures)) = fields else {
            // A part of a credential is a bad one.
            return if fields.2.is_none() { Ok(None) } else { Err(bad("a field of the signature is missing")) };
        };
        let sent: u64 = sent.parse().map_err(|_| bad("the time is no number"))?;
        if sent.abs_diff(at.unix_seconds()) > TOLERANCE {
            return Err(bad("signed too long ago, or by a clock that is ahead"));
        }
        // Forgotten where somebody puts the stack around the service without `keep_body`: an error of ours, not the sender's.
        let no_body = || Rejection::new(RejectionKind::Misconfigured, "nothing outside of the stack keeps the body");
        let WholeBody(body) = head.extension().ok_or_else(no_body)?;
        head.attempt().before(None)?; // 429 for whoever has guessed too often
        // Several while the secret is replaced: one of them must be good.
        let signed = signed(id, sent, body);
        let is_good = |signature: &str| {
            let bytes = signature.strip_prefix("v1,").and_then(|text| BASE64_STANDARD.decode(text).ok());
            bytes.is_some_and(|bytes| hmac::verify(&self.secret, &signed, &bytes).is_ok())
        };
        if !signatures.split(' ').take(4).any(is_good) {
            head.attempt().failed(None);
            return Err(bad("no signature of this sender"));
        }
        // Each delivery counts once, however its signature is written. One that the sender tries again has another time.
        let until = sent.saturating_add(TOLERANCE + 1).saturating_mul(1_000_000_000);
        match self.seen.remember(&ProofUse::new([0; 32], &format!("{id}.{sent}"), until), at).await {
            Ok(Remembered::Fresh) => {}
            Ok(Remembered::Seen) => return Err(bad("a delivery that was taken before")),
            Ok(Remembered::TooMany) => return Err(Rejection::new(RejectionKind::Unavailable, "too many deliveries")),
            Err(error) => return Err(error.into()),
        }
        let shop = Principal::builder(PrincipalKind::Service, "webhooks", "shop", "webhook");
        Ok(Some(shop.roles(["shop"]).without_step_up().build()))
    }
}

#[async_trait::async_trait]
impl Authenticator for Webhooks {
    fn challenges(&self) -> Vec<Challenge> {
        Challenge::new("Webhook", "orders").into_iter().collect()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![SIGNATURE]
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.sender(head, at).await {
            Ok(Some(sender)) => Outcome::Verified(Identity::from(sender).leaving_authorization()),
            Ok(None) => Outcome::Absent,
            Err(rejection) => Outcome::Refused(rejection),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?; // the sender has it too: from a file, or the environment
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let now = SystemClock::new().now().unix_seconds();
    println!("export SENT={now}");
    for (name, sent) in [("SIGNATURE", now), ("LATE", now - 2 * TOLERANCE)] {
        let signature = hmac::sign(&secret, &signed("1", sent, b"order 7 is paid"));
        println!("export {name}=v1,{}", BASE64_STANDARD.encode(signature));
    }

    let app = Router::new()
        .route("/hooks", post(async |who: Principal, body: String| format!("{}: {body}\n", who.subject())));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(Webhooks { secret, seen: MemoryReplays::new().with_bounds(100_000, 100_000)? }) // all are of one sender
        .failure_budget(FailureBudget::new().per_source(Quota::per_minute(60))?)
        .route("POST /hooks", require(role("shop")?))
        .build()?;
    // Routes without webhooks need a service of their own beside this one: theirs would be read for strangers as well.
    let app = ServiceBuilder::new().layer(from_fn(keep_body)).service(stack.layer(app));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, app).await?)
}
