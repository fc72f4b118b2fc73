//! The lines of a stack's route table, and in the last line a method and a request target. Every other rule lets everybody in,
//! the rest nobody. Who gets in is let in by a line that a second matcher finds; and a plain path that this matcher finds one
//! line for, slash at its end or not, gets in exactly by that.

use http::{Method, Uri};
use portcullis::{
    guard::{deny, public},
    stack::Stack,
};

use super::routes::reaches;

/// Panics if something of that does not hold. Whether a request got in.
pub fn check(text: &str) -> bool {
    let Some((lines, request)) = text.trim_end_matches('\n').rsplit_once('\n') else { return false };
    let Some((Ok(method), Ok(uri))) =
        request.split_once(' ').map(|(method, target)| (Method::from_bytes(method.as_bytes()), target.parse::<Uri>()))
    else {
        return false;
    };
    let lines: Vec<&str> = lines.split('\n').collect();
    let rules = lines.iter().zip([public(), deny()].into_iter().cycle());
    let stack = Stack::builder().dangerous_plain_http();
    let stack = match rules.fold(stack, |stack, (line, rule)| stack.route(*line, rule)).build() {
        Ok(stack) => stack,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return false;
        }
    };
    let (path, opens) = (uri.path(), |place: usize| place.is_multiple_of(2));
    let found = |path: &str| {
        let lines = lines.iter().map(|line| line.split_once(' ').expect("it was taken")).enumerate();
        let found = lines.filter(|(_, (_, template))| matches(template.as_bytes(), path.as_bytes()));
        found.collect::<Vec<_>>()
    };
    let takes = |(place, (named, _)): &&(usize, (&str, &str))| {
        let asked = if method == Method::HEAD { "GET" } else { method.as_str() };
        opens(*place) && (*named == asked || *named == "ANY" && !["CONNECT", "TRACE"].contains(&asked))
    };
    let reached = reaches(&stack, &method, &uri);
    let here = found(path);
    assert!(!reached || here.iter().any(|line| takes(&line)), "{text:?}");

    let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/') && !path.contains("//");
    let loosely = lines.iter().filter(|line| {
        line.split_once(' ').is_some_and(|(_, template)| matches_from(0, template.as_bytes(), path.as_bytes()))
    });
    // The matcher also finds a parameter of nothing before a slash, which is refused, also where another line would hold.
    if let [line] = &here[..]
        && is_plain
        && loosely.count() == 1
        && found(&other).is_empty()
    {
        // `ANY` beside a method stands in a line of its own, and both have one template.
        assert_eq!(reached, takes(&line), "{text:?}");
    }
    reached
}

/// Whether a template is about a path: `{name}` is one octet or more without a slash, `{*name}` the rest, `{{` a brace.
pub fn matches(template: &[u8], path: &[u8]) -> bool {
    matches_from(1, template, path)
}

/// The same with so many octets at least.
fn matches_from(least: usize, template: &[u8], path: &[u8]) -> bool {
    let rest_matches = |template: &[u8], path: &[u8]| matches_from(least, template, path);
    match template {
        [] => path.is_empty(),
        [b'{', b'{', rest @ ..] => path.strip_prefix(b"{").is_some_and(|path| rest_matches(rest, path)),
        [b'}', b'}', rest @ ..] => path.strip_prefix(b"}").is_some_and(|path| rest_matches(rest, path)),
        [b'{', b'*', ..] => !path.is_empty(),
        [b'{', name @ ..] => {
            let end = name.iter().position(|byte| *byte == b'}').expect("it was taken");
            let segment = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (least..=segment).any(|taken| rest_matches(&name[end + 1..], &path[taken..]))
        }
        [byte, rest @ ..] => path.strip_prefix(&[*byte]).is_some_and(|path| rest_matches(rest, path)),
    }
}
