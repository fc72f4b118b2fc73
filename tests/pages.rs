//! What a browser gets that navigates to a page it may not see, and what everybody else gets there.
#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use portcullis::{
    Rejection, RejectionKind,
    audit::{AuditLayer, AuditOutcome},
    guard::{authenticated, public, require, role},
    problem::{LogInRedirect, ProblemDetails, ProblemLayer, RejectionRenderer, RenderRequest, Rendered},
    stack::Stack,
    testing::Captured,
};
use support::{get, send, test_scheme, text, with};
use tower::{Layer, service_fn};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn browser(path: &str) -> Request<()> {
    with(with(get(path), "accept", HTML), "sec-fetch-mode", "navigate")
}

fn stack(renderer: impl RejectionRenderer, records: &Captured) -> Stack {
    Stack::builder()
        .dangerous_plain_http()
        .audit(AuditLayer::new(records.clone()))
        .authenticate(test_scheme())
        .renderer(renderer)
        .route("GET /login", public())
        .route("GET /account", require(authenticated()))
        .route("POST /account", require(authenticated()))
        .route("GET /reports", require(role("manager").unwrap()))
        .build()
        .unwrap()
}

async fn ask(stack: &Stack, request: Request<()>) -> Response<Full<Bytes>> {
    let inner = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("page"))));
    send(&stack.protect(inner), request).await
}

#[tokio::test]
async fn a_browser_is_sent_to_the_log_in_page() {
    let records = Captured::new();
    let stack = stack(LogInRedirect::to("/login").unwrap(), &records);
    for (target, location) in [
        ("/account", "/login?return_to=/account"),
        (
            "/account?tab=1&next=https://evil.example",
            "/login?return_to=/account%3ftab%3d1%26next%3dhttps%3a//evil.example",
        ),
        ("/unlisted", "/login?return_to=/unlisted"),
        ("/account?%0d%0aset-cookie:a=b", "/login?return_to=/account%3f%250d%250aset-cookie%3aa%3db"),
    ] {
        let answer = ask(&stack, browser(target)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (303, &HeaderValue::from_static(location))
        );
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(answer.headers().contains_key("www-authenticate"), "what a step-up demands stands there");
        let record = records.one();
        assert_eq!((record.outcome(), record.status()), (AuditOutcome::Unauthenticated, Some(303)), "{target}");
        assert_eq!(record.rejection(), Some(RejectionKind::Unauthenticated));
    }
}

#[tokio::test]
async fn nobody_else_is() {
    let records = Captured::new();
    let stack = stack(LogInRedirect::to("/login").unwrap(), &records);
    let mut form = browser("/account");
    *form.method_mut() = http::Method::POST;
    for (name, request, status) in [
        ("a client of an API", with(get("/account"), "accept", "application/json"), 401),
        ("one that takes anything", with(get("/account"), "accept", "*/*"), 401),
        ("one that says nothing", get("/account"), 401),
        ("a script of a page", with(with(get("/account"), "accept", HTML), "sec-fetch-mode", "cors"), 401),
        ("a form", form, 401),
        ("who lacks a role", with(browser("/reports"), "authorization", "Test alice"), 403),
        ("a target that leads elsewhere", browser("//evil.example/account"), 400),
    ] {
        let answer = ask(&stack, request).await;
        assert_eq!(answer.status(), status, "{name}");
        assert!(!answer.headers().contains_key("location"), "{name}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
    }
    assert_eq!(ask(&stack, browser("/login")).await.status(), 200);
}

/// A page that is itself refused would send browsers to itself.
#[tokio::test]
async fn a_log_in_page_that_is_not_open_does_not_go_round() {
    let stack = stack(LogInRedirect::to("/account").unwrap(), &Captured::new());
    for target in ["/account", "/account?return_to=/account"] {
        assert_eq!(ask(&stack, browser(target)).await.status(), 401);
    }
}

#[test]
fn a_log_in_page_is_a_path_or_an_https_url() {
    for page in ["/login", "/", "https://id.example.com/login"] {
        assert!(LogInRedirect::to(page).is_ok(), "{page}");
    }
    for page in [
        "",
        "login",
        "//id.example.com",
        "/\\id.example.com",
        "http://id.example.com",
        "/login?a=1",
        "/login#a",
        "/a b",
    ] {
        assert_eq!(LogInRedirect::to(page).unwrap_err().setting(), "log-in page", "{page}");
    }
}

/// A page of one's own for browsers, and problem details for everybody else.
#[derive(Debug)]
struct Pages;

impl RejectionRenderer for Pages {
    fn render(&self, rejection: &Rejection, request: &RenderRequest) -> Option<Rendered> {
        if !request.accepts_html() {
            return ProblemDetails::new().render(rejection, request);
        }
        Some(Rendered::new(
            HeaderValue::from_static("text/html; charset=utf-8"),
            format!("<h1>{}</h1>", rejection.kind().detail()),
        ))
    }
}

#[tokio::test]
async fn a_page_of_ones_own() {
    let stack = stack(LogInRedirect::to("/login").unwrap().otherwise(Pages), &Captured::new());
    let request = |request| with(request, "authorization", "Test alice");
    let answer = ask(&stack, request(browser("/reports"))).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (403, &HeaderValue::from_static("text/html; charset=utf-8"))
    );
    assert_eq!(text(answer).await, "<h1>The credential does not allow this.</h1>");
    let answer = ask(&stack, request(get("/reports"))).await;
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

/// What a handler refuses is rendered as what the stack refuses, by the layer alone too.
#[tokio::test]
async fn refusals_of_the_handler_are_sent_as_well() {
    let inner = service_fn(async |_: Request<()>| {
        let rejection = Rejection::new(RejectionKind::Unauthenticated, "the session is gone");
        Ok::<_, std::convert::Infallible>(rejection.to_response::<Full<Bytes>>())
    });
    let service = ProblemLayer::with_renderer(LogInRedirect::to("https://id.example.com/login").unwrap()).layer(inner);
    let answer = send(&service, browser("/account")).await;
    assert_eq!(answer.headers()["location"], "https://id.example.com/login?return_to=/account");
    assert_eq!(send(&service, get("/account")).await.status(), 401);
}
