use std::sync::Arc;

use http::{HeaderMap, Method, header};

use crate::{error::ConfigError, guard::Rule, head::RequestHead};

/// The longest route template, in bytes.
const MAX_TEMPLATE_LEN: usize = 1024;

/// Which rule holds for which method and path. Closed: what it does not name is refused.
#[derive(Debug)]
pub(super) struct RouteTable {
    paths: matchit::Router<usize>,
    entries: Vec<Entry>,
    fallback: Option<Rule>,
}

/// One path template and the rules of its methods.
#[derive(Debug)]
struct Entry {
    template: Arc<str>,
    methods: Vec<(Method, Rule)>,
    any: Option<Rule>,
}

/// What the table says about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) template: Option<&'a Arc<str>>,
    pub(super) rule: Option<&'a Rule>,
}

impl RouteTable {
    /// Reads the lines of a table: `METHOD /path/{parameter}`, the method `ANY` for all of them.
    pub(super) fn new(lines: Vec<(String, Rule)>, fallback: Option<Rule>) -> Result<Self, ConfigError> {
        let mut table = Self { paths: matchit::Router::new(), entries: Vec::new(), fallback };
        for (line, rule) in lines {
            table.add(&line, rule)?;
        }
        Ok(table)
    }

    fn add(&mut self, line: &str, rule: Rule) -> Result<(), ConfigError> {
        let refuse = |problem: &str| ConfigError::new("route", format!("{line:?}"), problem);
        let (method, path) = line.split_once(' ').ok_or_else(|| refuse("must be a method, one space and a path"))?;
        if !path.starts_with('/') || path.len() > MAX_TEMPLATE_LEN || !path.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(refuse("must have a path of visible ASCII that starts with / and has at most 1024 bytes"));
        }
        if path.contains('?') || is_ambiguous(path) {
            return Err(refuse(
                "must have a path without query, dot segments, empty segments, ;, \\ or encoded delimiters",
            ));
        }
        let index = self.entry(path).map_err(|source| refuse("is not a path that can be matched").caused_by(source))?;
        let Some(entry) = self.entries.get_mut(index) else { return Err(refuse("is not a path that can be matched")) };
        let method = match method {
            "ANY" => {
                return match entry.any.replace(rule) {
                    None => Ok(()),
                    Some(_) => Err(refuse("stands twice")),
                };
            }
            "HEAD" => return Err(refuse("must not name HEAD: it is decided as GET")),
            "TRACE" | "CONNECT" => return Err(refuse("names a method that is never allowed")),
            name if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
                Method::from_bytes(name.as_bytes())
                    .map_err(|source| refuse("must start with a method").caused_by(source))?
            }
            _ => return Err(refuse("must start with a method in upper case, or ANY")),
        };
        if entry.methods.iter().any(|(held, _)| *held == method) {
            return Err(refuse("stands twice"));
        }
        entry.methods.push((method, rule));
        Ok(())
    }

    fn entry(&mut self, path: &str) -> Result<usize, matchit::InsertError> {
        if let Some(index) = self.entries.iter().position(|entry| *entry.template == *path) {
            return Ok(index);
        }
        let index = self.entries.len();
        self.paths.insert(path, index)?;
        self.entries.push(Entry { template: path.into(), methods: Vec::new(), any: None });
        Ok(index)
    }

    /// The rule for a request. HEAD is decided as GET; TRACE and CONNECT never have one.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let entry = self.paths.at(path).ok().and_then(|found| self.entries.get(*found.value));
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        let rule = match entry {
            _ if *asked == Method::TRACE || *asked == Method::CONNECT => None,
            Some(entry) => {
                entry.methods.iter().find(|(held, _)| held == asked).map(|(_, rule)| rule).or(entry.any.as_ref())
            }
            None => self.fallback.as_ref(),
        };
        Found { template: entry.map(|entry| &entry.template), rule }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        let entries =
            self.entries.iter().flat_map(|entry| entry.methods.iter().map(|(_, rule)| rule).chain(&entry.any));
        entries.chain(&self.fallback)
    }
}

/// Whether a path may mean another one to whoever decodes or normalises it: empty and dot segments, `;`, backslash, and the
/// encoded forms of these, of `/` and of NUL, also encoded twice, whichever of their characters are encoded.
pub(super) fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b';' | b'\\' | b'.'))
        && !bytes.windows(2).any(|pair| pair == b"//")
    {
        return false;
    }
    path.contains("//")
        || path.contains([';', '\\'])
        || path.split('/').any(|segment| segment == "." || segment == "..")
        || decode(bytes).and_then(|once| decode(&once)).is_none()
}

/// Decodes percent signs once, as the lenient do: one without two digits after it stays. None if a delimiter comes of it.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        let escaped = match after {
            [high, low, after @ ..] if *byte == b'%' => digit(*high).zip(digit(*low)).map(|digits| (digits, after)),
            _ => None,
        };
        let (byte, after) = match escaped {
            Some(((high, low), after)) => (high << 4 | low, after),
            None => (*byte, after),
        };
        if escaped.is_some() && matches!(byte, b'/' | b'.' | b';' | b'\\' | 0) {
            return None;
        }
        decoded.push(byte);
        rest = after;
    }
    Some(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A CORS preflight (Fetch, "CORS-preflight request"): it never carries a credential.
pub(super) fn is_preflight(head: &RequestHead<'_>) -> bool {
    fn has(headers: &HeaderMap, name: http::HeaderName) -> bool {
        headers.contains_key(name)
    }
    *head.method() == Method::OPTIONS
        && has(head.headers(), header::ORIGIN)
        && has(head.headers(), header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{deny, public};

    fn table(lines: &[&str]) -> Result<RouteTable, ConfigError> {
        RouteTable::new(lines.iter().map(|line| ((*line).to_owned(), public())).collect(), None)
    }

    #[test]
    fn a_line_is_a_method_and_a_path() {
        for (name, line) in [
            ("no method", "/orders"),
            ("lower case", "get /orders"),
            ("two spaces", "GET  /orders"),
            ("no slash", "GET orders"),
            ("query", "GET /orders?all"),
            ("dot segment", "GET /orders/../admin"),
            ("empty segment", "GET //orders"),
            ("open brace", "GET /orders/{id"),
            ("HEAD", "HEAD /orders"),
            ("TRACE", "TRACE /orders"),
            ("empty", ""),
        ] {
            let error = table(&[line]).unwrap_err();
            assert_eq!((error.setting(), error.value()), ("route", format!("{line:?}").as_str()), "{name}");
        }
        assert!(table(&["GET /orders", "GET /orders"]).is_err(), "twice");
        assert!(table(&["GET /orders/{id}", "GET /orders/{order}"]).is_err(), "two names for one place");
    }

    #[test]
    fn what_is_not_named_has_no_rule() {
        let table = table(&["GET /orders", "GET /orders/{id}", "ANY /files/{*path}"]).unwrap();
        for (name, method, path, has_rule) in [
            ("named", Method::GET, "/orders", true),
            ("HEAD as GET", Method::HEAD, "/orders", true),
            ("parameter", Method::GET, "/orders/42", true),
            ("any method", Method::PUT, "/files/a/b", true),
            ("other method", Method::POST, "/orders", false),
            ("TRACE", Method::TRACE, "/files/a", false),
            ("other path", Method::GET, "/admin", false),
            ("trailing slash", Method::GET, "/orders/", false),
            ("upper case", Method::GET, "/Orders", false),
            ("encoded letter", Method::GET, "/%6frders", false),
        ] {
            assert_eq!(table.find(&method, path).rule.is_some(), has_rule, "{name}");
        }
    }

    #[test]
    fn the_fallback_holds_for_paths_that_are_not_named() {
        let table = RouteTable::new(vec![("GET /orders".to_owned(), deny())], Some(public())).unwrap();
        assert!(table.find(&Method::GET, "/else").rule.is_some());
        assert!(table.find(&Method::POST, "/orders").rule.is_none(), "a method that no rule names is refused");
    }

    #[test]
    fn ambiguous_paths_are_found() {
        for path in
            ["//a", "/a//b", "/./a", "/a/..", "/a;x=1", "/a\\b", "/%2e%2e/a", "/a%2Fb", "/a%252fb", "/a%00", "/a%5Cb"]
        {
            assert!(is_ambiguous(path), "{path}");
        }
        for (name, path) in [
            ("encoded sign and digits", "/a%25%32%66b"),
            ("encoded first digit", "/a%%32fb"),
            ("encoded last digit", "/a%2%66b"),
            ("encoded dots", "/%%32e%2%65/b"),
            ("encoded semicolon", "/a%3%42b"),
            ("encoded sign and capital", "/a%25%35Cb"),
        ] {
            assert!(is_ambiguous(path), "{name}");
        }
        for path in
            ["/", "/a", "/a/", "/a.json", "/a..b", "/.well-known/x", "/caf%C3%A9", "/100%25", "/%", "/a%2", "/%%"]
        {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
