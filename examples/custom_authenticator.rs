//! A credential of your own: tickets, which are signed by nobody but known to a box office.
//!
//! ```sh
//! cargo run --example custom_authenticator
//! curl -i localhost:3000/seat                                       # 401
//! curl -i localhost:3000/seat -H 'Authorization: Ticket row-7'      # 200
//! curl -i localhost:3000/seat -H 'Authorization: Ticket row-13'     # 401
//! curl -i localhost:3000/seat -H 'Authorization: Ticket closed'     # 503
//! curl -i localhost:3000/stage -H 'Authorization: Ticket row-7'     # 403
//! curl -i localhost:3000/stage -H 'Authorization: Ticket crew'      # 200
//! ```

use std::error::Error;

use axum::{Router, routing::get};
use portcullis::{
    Challenge, Instants, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead,
    authn::{Authenticator, Outcome},
    guard::{authenticated, require, role},
    rate_limit::{FailureBudget, Quota},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

#[derive(Debug)]
struct Tickets;

/// What the box office answers; this one does not always answer.
async fn holder_of(ticket: &str) -> Result<Option<(&'static str, &'static str)>, std::io::Error> {
    match ticket {
        "row-7" => Ok(Some(("alice", "guest"))),
        "crew" => Ok(Some(("bob", "crew"))),
        "closed" => Err(std::io::Error::other("the box office is closed")),
        _ => Ok(None),
    }
}

#[async_trait::async_trait]
impl Authenticator for Tickets {
    fn challenges(&self) -> Vec<Challenge> {
        Challenge::new("Ticket", "theatre").into_iter().collect()
    }

    async fn authenticate(&self, head: &RequestHead<'_>, _: Instants) -> Outcome {
        let credential = match head.authorization() {
            Ok(Some(credential)) if credential.is_scheme("Ticket") => credential,
            Ok(_) => return Outcome::Absent, // somebody else may know better
            Err(rejection) => return Outcome::Refused(rejection),
        };
        let refuse = |kind, why: String| Outcome::Refused(Rejection::new(kind, why));
        // Before the box office is asked: 429 for whoever has guessed too often.
        if let Err(rejection) = head.attempt().before(None) {
            return Outcome::Refused(rejection);
        }
        match holder_of(credential.token()).await {
            Ok(Some((holder, role))) => {
                // The holder, never the ticket: the subject stands in records.
                let holder = Principal::builder(PrincipalKind::User, "box-office", holder, "ticket");
                Outcome::verified(holder.roles([role]).build())
            }
            // A bad credential refuses; it never counts as none.
            Ok(None) => {
                head.attempt().failed(None);
                refuse(RejectionKind::InvalidCredential, "no such ticket".to_owned())
            }
            // Who cannot be asked gives no answer: 503, not 401.
            Err(error) => refuse(RejectionKind::Unavailable, error.to_string()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/seat", get(async |who: Principal| format!("a seat for {}\n", who.subject())))
        .route("/stage", get(async || "mind the trapdoor\n"));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(Tickets)
        .failure_budget(FailureBudget::new().per_source(Quota::per_minute(60))?)
        .route("GET /seat", require(authenticated()))
        .route("GET /stage", require(role("crew")?))
        .build()?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.protect(app)).await?)
}
