//! The route table matches as axum's router does, for any templates and any request target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, routing::any};
use http::{Method, Request, Response};
use portcullis::{
    guard::{authenticated, public, require},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use proptest::{prelude::*, test_runner::TestRunner};
use support::{Probe, get, test_scheme, with};
use tower::{Service, ServiceExt};

/// The answer of a service that never waits.
fn at_once<S>(service: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match pin!(service.oneshot(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("it waits"),
    }
}

fn base() -> StackBuilder {
    Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme())
}

/// Of a template, or of a path: as it is written, and as it reads when it is decoded once, and once more.
#[derive(Clone, Debug)]
struct Text {
    written: String,
    once: String,
    twice: String,
    /// Whether it means more than one path by its form alone, whatever the table is.
    is_ambiguous: bool,
}

fn part(written: &str, once: &str, twice: &str) -> Text {
    let [written, once, twice] = [written, once, twice].map(str::to_owned);
    Text { written, once, twice, is_ambiguous: false }
}

fn plain(text: &str) -> Text {
    part(text, text, text)
}

/// Which line of a table names a path, by axum's router of its templates as they are written, and of them decoded.
struct Lines {
    templates: Vec<Text>,
    written: Router,
    decoded: Router,
}

impl Lines {
    /// None if axum refuses the templates.
    fn new(templates: Vec<Text>) -> Option<Self> {
        let written = router(templates.iter().map(|template| &*template.written))?;
        let decoded = router(templates.iter().map(|template| &*template.once))?;
        Some(Self { templates, written, decoded })
    }

    /// Whether another line is about what the path reads when somebody decodes it, or trims or adds a slash at its end.
    fn is_of_another(&self, path: &Text, named: Option<usize>) -> bool {
        let decoded = [&path.once, &path.twice].map(|reading| (&self.decoded, reading));
        decoded.iter().any(|(router, reading)| line(router, reading) != named)
            || decoded.iter().chain(&[(&self.written, &path.written)]).any(|(router, reading)| {
                let other = match reading.strip_suffix('/') {
                    Some("") => None,
                    Some(trimmed) => line(router, trimmed),
                    // A line that takes the rest of a path is about it with any end.
                    None => line(router, &format!("{reading}/"))
                        .filter(|other| self.templates[*other].written.ends_with('/')),
                };
                other.is_some_and(|other| !named.is_some_and(|named| self.is_about_this_spelling(named, other)))
            })
    }

    /// A line without parameters is, and so is each of two that differ in the slash alone.
    fn is_about_this_spelling(&self, named: usize, other: usize) -> bool {
        let [named, other] = [named, other].map(|line| &*self.templates[line].written);
        !named.contains('{') || named.trim_end_matches('/') == other.trim_end_matches('/')
    }
}

/// Tells which of the templates matched, and nothing where none did.
fn router<'t>(templates: impl Iterator<Item = &'t str>) -> Option<Router> {
    let fallback = Router::new().fallback(async || Response::new(Body::empty()));
    let add = |router: Router, (line, template): (usize, &str)| {
        let handler = any(async move || Response::builder().header("line", line).body(Body::empty()).unwrap());
        router.route(template, handler)
    };
    catch_unwind(AssertUnwindSafe(|| templates.enumerate().fold(fallback, add))).ok()
}

fn line(router: &Router, path: &str) -> Option<usize> {
    told(&at_once(router.clone(), get(path).map(|()| Body::empty())))
}

fn told(response: &Response<Body>) -> Option<usize> {
    response.headers().get("line").map(|line| line.to_str().unwrap().parse().unwrap())
}

/// Segments that a template and a path may both have.
fn segment() -> impl Strategy<Value = Text> {
    prop_oneof![
        6 => prop_oneof![Just("a"), Just("b"), Just("ab")].prop_map(plain),
        3 => Just(part("%61", "a", "a")),
        2 => Just(part("%C3%A9", "é", "é")),
    ]
}

fn template() -> impl Strategy<Value = Text> {
    let segment = prop_oneof![
        24 => segment(),
        10 => Just(plain("{x}")),
        2 => Just(plain("{y}")),
        4 => Just(plain("a{x}")),
        4 => Just(plain("{{a}}")),
        1 => prop_oneof![Just(plain("{x}a")), Just(plain("{x}:a"))],
        1 => prop_oneof![Just(plain(":x")), Just(plain("*x"))],
    ];
    let end = prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("/{*rest}")];
    (prop::collection::vec(segment, 0..3), end).prop_map(|(segments, end)| {
        let of = |reading: fn(&Text) -> &str| {
            let path: String = segments.iter().flat_map(|segment| ["/", reading(segment)]).collect();
            if path.is_empty() && end.is_empty() { "/".to_owned() } else { path + end }
        };
        part(&of(|text| &text.written), &of(|text| &text.once), &of(|text| &text.twice))
    })
}

fn path() -> impl Strategy<Value = Text> {
    let ambiguous = |text: &str| Just(Text { is_ambiguous: true, ..plain(text) });
    let segment = prop_oneof![
        18 => segment(),
        3 => Just(plain("")),
        2 => Just(part("%2561", "%61", "a")),
        2 => Just(plain("é")),
        2 => Just(plain("{a}")),
        1 => Just(plain("x")),
        1 => Just(plain("a:a")),
        1 => prop_oneof![Just(plain(":x")), Just(plain("*x"))],
        1 => prop_oneof![ambiguous("%2F"), ambiguous(".."), ambiguous("%2e"), ambiguous("%25252e")],
        1 => prop_oneof![ambiguous("a;b"), ambiguous("%E9"), ambiguous("%6")],
    ];
    prop::collection::vec(segment, 0..4).prop_map(|segments| {
        let of =
            |reading: fn(&Text) -> &str| format!("/{}", segments.iter().map(reading).collect::<Vec<_>>().join("/"));
        let has_empty = segments.iter().rev().skip(1).any(|segment| segment.written.is_empty());
        Text {
            is_ambiguous: has_empty || segments.iter().any(|segment| segment.is_ambiguous),
            ..part(&of(|text| &text.written), &of(|text| &text.once), &of(|text| &text.twice))
        }
    })
}

/// Whether a parameter with text beside it stands for nothing, as that of `/a{x}/b` does for `/a/b`.
fn has_empty_parameter(template: &str, path: &str) -> bool {
    template.split('/').zip(path.split('/')).any(|(template, segment)| match template.split_once('{') {
        Some((before, rest)) if !template.contains("{{") && !rest.starts_with('*') => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            segment.len() <= before.len() + after.len()
        }
        _ => false,
    })
}

/// How often something came about.
#[derive(Debug, Default)]
struct Counts {
    built: Cell<u32>,
    named: Cell<u32>,
    unnamed: Cell<u32>,
    ambiguous: Cell<u32>,
    of_another: Cell<u32>,
}

fn count(counter: &Cell<u32>) {
    counter.set(counter.get() + 1);
}

#[test]
fn the_table_names_a_template_if_and_only_if_axum_routes_there() {
    let counts = Counts::default();
    let config = ProptestConfig { cases: 2_000, source_file: Some(file!()), ..ProptestConfig::default() };
    let input = (prop::collection::vec(template(), 1..6), prop::collection::vec(path(), 8..16));
    let checked = TestRunner::new(config).run(&input, |(templates, paths)| {
        let stack = || {
            templates.iter().fold(base(), |stack, template| stack.route(format!("ANY {}", template.written), public()))
        };
        let (closed, open) = (stack().build(), stack().fallback(public()).build());
        let lines = Lines::new(templates.clone());
        prop_assert_eq!(closed.is_ok(), lines.is_some(), "{:?}, by {:?}", closed.err(), templates);
        let (Ok(closed), Ok(open), Some(lines)) = (closed, open, lines) else { return Ok(()) };
        count(&counts.built);
        for path in paths {
            let named = line(&lines.written, &path.written);
            // Everything passes the table's own rules; only its lines decide what reaches the router.
            let (of_closed, of_open) = match named {
                _ if path.is_ambiguous => (400, 400),
                _ if lines.is_of_another(&path, named) => (401, 401),
                // Neither the line is about that, nor the fallback: axum takes it to the line's handler.
                Some(index) if has_empty_parameter(&templates[index].written, &path.written) => (401, 401),
                Some(_) => (200, 200),
                None => (401, 200),
            };
            count(match (of_closed, of_open) {
                (400, _) => &counts.ambiguous,
                (200, _) => &counts.named,
                (_, 200) => &counts.unnamed,
                _ => &counts.of_another,
            });
            for (stack, status) in [(&closed, of_closed), (&open, of_open)] {
                let response =
                    at_once(stack.protect(lines.written.clone()), get(&path.written).map(|()| Body::empty()));
                prop_assert_eq!(response.status(), status, "{:?} of {:?}", path, templates);
                let expected = if status == 200 { named } else { None };
                prop_assert_eq!(told(&response), expected, "{:?} of {:?}", path, templates);
            }
        }
        Ok(())
    });
    checked.unwrap();
    // What is not generated is not checked.
    assert!(counts.built.get() >= 800, "{counts:?}");
    for counter in [&counts.named, &counts.unnamed, &counts.ambiguous, &counts.of_another] {
        assert!(counter.get() >= 300, "{counts:?}");
    }
}

/// Request targets that are no paths, and paths in absolute form (RFC 9112 §3.2).
#[tokio::test]
async fn request_targets_of_every_form() {
    let closed = || base().route("ANY /{*rest}", public()).route("GET /guarded", require(authenticated()));
    let open = || base().route("GET /guarded", require(authenticated())).fallback(public());
    let root = || base().route("GET /", require(authenticated())).fallback(public());
    for (name, builder, method, target, status) in [
        ("asterisk", closed(), "OPTIONS", "*", 401),
        ("asterisk, with a fallback", open(), "OPTIONS", "*", 200),
        ("asterisk, another method", open(), "GET", "*", 400),
        ("asterisk, another method, and no fallback", closed(), "GET", "*", 400),
        ("asterisk, HEAD", open(), "HEAD", "*", 400),
        ("asterisk, in lower case", open(), "options", "*", 400),
        ("a path of an asterisk", open(), "GET", "/*", 200),
        ("authority", open(), "CONNECT", "host.example:443", 401),
        ("authority, another method", open(), "GET", "host.example:443", 400),
        ("authority, OPTIONS", open(), "OPTIONS", "host.example:443", 400),
        ("authority with the name of a path", open(), "GET", "guarded", 400),
        ("authority with the name of a path, and no fallback", closed(), "GET", "guarded", 400),
        ("authority, whose path is empty", root(), "GET", "x", 400),
        ("CONNECT to a path", open(), "CONNECT", "/else", 401),
        ("absolute", open(), "GET", "http://other.example/guarded", 401),
        ("absolute, with user and port", open(), "GET", "https://u@other.example:8443/guarded?x=1", 401),
        ("absolute, without a path", open(), "GET", "http://other.example", 200),
        ("absolute, dot segments", open(), "GET", "http://other.example/a/../guarded", 400),
        ("a query of the same name", open(), "GET", "/guarded?/else", 401),
        ("HEAD", open(), "HEAD", "/guarded", 401),
        ("lower case is another method", open(), "get", "/guarded", 401),
        ("a long path", open(), "GET", &"/a".repeat(8_000), 200),
    ] {
        let probe = Probe::default();
        let app = builder.build().unwrap().protect(probe.clone());
        let mut request = get("/");
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = target.parse().unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(probe.seen.calls(), usize::from(status == 200), "{name}");
    }
    let app = open().build().unwrap().protect(Probe::default());
    let mut lower = with(get("/guarded"), "authorization", "Test alice");
    *lower.method_mut() = Method::from_bytes(b"get").unwrap();
    assert_eq!(app.oneshot(lower).await.unwrap().status(), 403, "which no line names");
}

/// A WebSocket over HTTP/2 is a CONNECT with a path (RFC 8441): a line must name it, neither `ANY` nor the fallback does.
#[tokio::test]
async fn connect_passes_only_where_a_line_names_it() {
    let stack = base()
        .route("CONNECT /ws", public())
        .route("GET /ws", public())
        .route("CONNECT /only", public())
        .route("CONNECT /guarded", require(authenticated()))
        .route("ANY /any", public())
        .fallback(public())
        .build()
        .unwrap();
    let probe = Probe::default();
    let app = stack.protect(probe.clone());
    for (method, target, status) in [
        (Method::CONNECT, "/ws", 200),
        (Method::CONNECT, "/only", 200),
        (Method::GET, "/only", 401),
        (Method::CONNECT, "/guarded", 401),
        (Method::CONNECT, "/any", 401),
        (Method::CONNECT, "/else", 401),
        (Method::CONNECT, "host.example:443", 401),
        (Method::CONNECT, "ws", 401),
    ] {
        let mut request = get("/");
        *request.uri_mut() = target.parse().unwrap();
        *request.method_mut() = method.clone();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{method} {target}");
    }
    assert_eq!(probe.seen.calls(), 2);
    assert!(base().route("TRACE /ws", public()).build().is_err());
}
