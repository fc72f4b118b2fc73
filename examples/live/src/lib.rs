//! A browser application: its session is a token in a cookie. See the README beside this.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Form, Router,
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::header,
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response, Sse, sse::Event},
    routing::{any, get, post},
};
use portcullis::{
    Clock, ConfigError, Principal, Rejection, RejectionKind, SystemClock,
    guard::{authenticated, public, require},
    jwt::{CookiePlace, CsrfRules, JwtAuthenticator},
    lifetime::Lifetime,
    problem::LogInRedirect,
    revocation::{MemoryRevocations, Revocation, RevocationStore},
    stack::Stack,
    testing::TestIssuer,
    tls::TlsLayer,
};
use serde::Deserialize;
use tokio_stream::{Stream, StreamExt, wrappers::IntervalStream};

const COOKIE: &str = "__Host-session";

#[derive(Clone)]
struct Session {
    provider: TestIssuer,
    tokens: JwtAuthenticator,
    revocations: Arc<MemoryRevocations>,
}

/// The whole service, for pages of this origin.
pub fn app(origin: &str) -> Result<Router, ConfigError> {
    let provider = TestIssuer::new("live");
    // One store: what log-out writes is what requests, streams and sockets ask.
    let revocations = Arc::new(MemoryRevocations::new());
    let tokens = JwtAuthenticator::builder()
        .issuer(provider.access_tokens())
        .cookie(CookiePlace::new(COOKIE, CsrfRules::origins([origin])?)?)
        .without_authorization()
        .revocations(Arc::clone(&revocations))
        .build()?;
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for a browser on this machine
        .authenticate(tokens.clone())
        .renderer(LogInRedirect::to("/log-in")?)
        .no_store()
        .route("GET /log-in", public())
        .route("POST /log-in", public())
        .route("POST /log-out", require(authenticated()))
        .route("GET /account", require(authenticated()))
        .route("GET /prices", require(authenticated()))
        // Over HTTP/1.1, and over HTTP/2: `any` below answers both.
        .route("GET /talk", require(authenticated()))
        .route("CONNECT /talk", require(authenticated()))
        .build()?;
    let router = Router::new()
        .route("/log-in", get(ask_who).post(log_in))
        .route("/log-out", post(log_out))
        .route("/account", get(account))
        .route("/prices", get(prices))
        .route("/talk", any(talk))
        .with_state(Session { provider, tokens, revocations });
    Ok(Router::new().fallback_service(stack.protect(router)))
}

#[derive(Deserialize)]
struct Return {
    #[serde(default)]
    return_to: String,
}

impl Return {
    /// Anybody can make a link to the log-in page: where it goes on must be a path of this host.
    fn target(&self) -> &str {
        let path = self.return_to.strip_prefix('/');
        match path {
            Some(rest) if !rest.starts_with(['/', '\\']) && rest.bytes().all(|byte| byte.is_ascii_graphic()) => {
                &self.return_to
            }
            _ => "/account",
        }
    }
}

/// What others wrote, for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A form that keeps `return_to`. A service of yours redirects to its provider here, with `state` and `nonce`.
async fn ask_who(Query(back): Query<Return>) -> Html<String> {
    let escaped = escaped(back.target());
    Html(format!(
        r#"<form method="post" action="/log-in"><input type="hidden" name="return_to" value="{escaped}"><button>Log in as alice</button></form>"#
    ))
}

/// Makes the cookie of the token that came from the provider.
async fn log_in(State(session): State<Session>, Form(back): Form<Return>) -> Result<Response, Rejection> {
    let (token, now) = (session.provider.token().subject("alice").mint(), SystemClock::new().now());
    let expires_at = session.tokens.verify(&token, now)?.expires_at().unwrap_or_default();
    // Not for scripts, for HTTPS alone, for this host alone, not sent along with what other sites post, and gone when the token ends.
    let seconds = expires_at.saturating_sub(now.unix_seconds());
    let cookie = format!("{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(back.target())).into_response())
}

/// Revokes the token before the cookie goes: who copied it has nothing then, and what it opened ends.
async fn log_out(State(session): State<Session>, who: Principal) -> Result<Response, Rejection> {
    let revocation = Revocation::of_token(&who)
        .ok_or_else(|| Rejection::new(RejectionKind::Misconfigured, "a token without jti cannot be revoked"))?;
    let revoked = session.revocations.revoke(&revocation, SystemClock::new().now()).await;
    revoked.map_err(|error| Rejection::new(RejectionKind::Unavailable, error.to_string()))?;
    let ended = [
        (header::SET_COOKIE, format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")),
        (header::HeaderName::from_static("clear-site-data"), r#""cache", "storage""#.to_owned()),
    ];
    Ok((AppendHeaders(ended), Redirect::to("/log-in")).into_response())
}

async fn account(who: Principal) -> Html<String> {
    Html(format!("<h1>{}</h1>{}", escaped(who.subject()), include_str!("account.html")))
}

/// The stack ends it with the session: its type is `text/event-stream`.
async fn prices() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (every, mut price) = (tokio::time::interval(Duration::from_millis(500)), 100_u32);
    Sse::new(IntervalStream::new(every).map(move |_| {
        price += 1;
        Ok(Event::default().data(price.to_string()))
    }))
}

/// No layer can end a socket: its handler takes the [`Lifetime`] of the request.
async fn talk(lifetime: Lifetime, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| echo(socket, lifetime))
}

async fn echo(mut socket: WebSocket, mut lifetime: Lifetime) {
    loop {
        tokio::select! {
            ended = lifetime.ended() => {
                // Policy violation (RFC 6455 §7.4.1).
                let close = CloseFrame { code: 1008, reason: ended.as_str().into() };
                let _ = socket.send(Message::Close(Some(close))).await;
                break;
            }
            message = socket.recv() => {
                let Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) = message else {
                    // Pings are answered by axum.
                    if matches!(message, Some(Ok(Message::Ping(_) | Message::Pong(_)))) { continue }
                    break;
                };
                // Who reads nothing does not hold the loop.
                if tokio::time::timeout(Duration::from_secs(10), socket.send(message)).await.is_err() { break }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis::PrincipalKind;

    use super::*;

    /// The subject is the provider's text, or whatever a user could make it.
    #[tokio::test]
    async fn a_subject_is_text_and_no_markup() {
        let subject = "<script>alert('1')</script>&\"";
        let who = Principal::builder(PrincipalKind::User, "https://id.example.com", subject, "jwt").build();
        let Html(page) = account(who).await;
        assert!(page.starts_with("<h1>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;</h1>"), "{page}");
    }
}
