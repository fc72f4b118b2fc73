use std::sync::Arc;

use http::{HeaderMap, Method, header};

use crate::{
    clock::Instants, error::ConfigError, guard::Rule, head::RequestHead, stack::path::readings,
    template::has_old_parameter,
};

/// The longest route template, in bytes.
const MAX_TEMPLATE_LEN: usize = 1024;

/// The most parameters of a template: the matcher has a letter for each, and panics at the last of them.
const MAX_PARAMETERS: usize = 25;

/// Which rule holds for which method and path. Closed: what it does not name is refused.
#[derive(Debug)]
pub(super) struct RouteTable {
    paths: matchit::Router<usize>,
    /// The same templates, decoded.
    decoded: matchit::Router<usize>,
    entries: Vec<Entry>,
    /// Whether a template ends with a slash, `/` itself apart.
    slashed: bool,
    /// Whether a template reads otherwise when it is decoded.
    encoded: bool,
    /// Whether a parameter with text before it has a slash behind it: for the matcher it may be empty.
    infixed: bool,
    fallback: Option<Rule>,
}

/// One path template and the rules of its methods.
#[derive(Debug)]
struct Entry {
    template: Arc<str>,
    methods: Vec<(Method, Rule)>,
    any: Option<Rule>,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) method: Option<&'a Method>,
    pub(super) template: &'a str,
    pub(super) rule: &'a Rule,
}

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.map_or("ANY", Method::as_str), self.template)
    }
}

/// Where a table has a path: found once for each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// How the table reads a request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As one path, or as a target that no line is about.
    Clear,
    /// As more than one path, or as none, whatever the lines are.
    Ambiguous,
    /// As a path that another line names when it is decoded, or when a slash at its end is trimmed or added, or that a line is found for
    /// by a parameter of nothing: neither the line that matches nor the fallback is about it.
    OfAnother,
}

/// What the table says about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) template: Option<&'a Arc<str>>,
    pub(super) rule: Option<&'a Rule>,
}

/// What the matcher has against a path.
fn unmatched(source: &matchit::InsertError) -> String {
    match source {
        matchit::InsertError::Conflict { with } => {
            format!("meets {with:?}, which takes the same paths: write both alike")
        }
        matchit::InsertError::InvalidParamSegment => {
            "has text behind a parameter, or a second one, in one segment".into()
        }
        matchit::InsertError::InvalidParam => "has a parameter without a name, or braces that do not match".into(),
        matchit::InsertError::InvalidCatchAll => "has {*rest} elsewhere than at its end".into(),
        _ => "is not a path that can be matched".into(),
    }
}

impl RouteTable {
    /// Reads the lines of a table: `METHOD /path/{parameter}`, the method `ANY` for all of them.
    pub(super) fn new(lines: Vec<(String, Rule)>, fallback: Option<Rule>) -> Result<Self, ConfigError> {
        let mut table = Self::without_lines(fallback);
        for (line, rule) in lines {
            table.add(&line, rule)?;
        }
        Ok(table)
    }

    fn without_lines(fallback: Option<Rule>) -> Self {
        let (paths, decoded) = (matchit::Router::new(), matchit::Router::new());
        Self { paths, decoded, entries: Vec::new(), slashed: false, encoded: false, infixed: false, fallback }
    }

    fn add(&mut self, line: &str, rule: Rule) -> Result<(), ConfigError> {
        let refuse = |problem: &str| ConfigError::new("route", format!("{line:?}"), problem);
        let (method, path) = line.split_once(' ').ok_or_else(|| refuse("must be a method, one space and a path"))?;
        if !path.starts_with('/') || path.len() > MAX_TEMPLATE_LEN || !path.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(refuse("must have a path of visible ASCII that starts with / and has at most 1024 bytes"));
        }
        if has_old_parameter(path) {
            return Err(refuse(
                "must write a parameter as {id} and the rest of a path as {*rest}, not as :id and *rest",
            ));
        }
        match parameters(path) {
            None => return Err(refuse("must write the name of a parameter without braces")),
            Some(0..=MAX_PARAMETERS) => {}
            Some(_) => return Err(refuse("has more than 25 parameters")),
        }
        let unusual = path.contains('?') || ["%7B", "%7b", "%7D", "%7d"].iter().any(|brace| path.contains(brace));
        let decoded = match readings(path).as_deref() {
            Some([]) if !unusual => path.to_owned(),
            Some([once]) if !unusual => once.clone(),
            _ => {
                return Err(refuse(
                    "must have a path without query, dot segments, empty segments, ;, \\ or encoded delimiters",
                ));
            }
        };
        let index = self.entry(path, decoded).map_err(|source| refuse(&unmatched(&source)).caused_by(source))?;
        let Some(entry) = self.entries.get_mut(index) else { return Err(refuse("is not a path that can be matched")) };
        let method = match method {
            "ANY" => {
                return match entry.any.replace(rule) {
                    None => Ok(()),
                    Some(_) => Err(refuse("stands twice")),
                };
            }
            "HEAD" => return Err(refuse("must not name HEAD: it is decided as GET")),
            "TRACE" => return Err(refuse("names a method that is never allowed")),
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

    fn entry(&mut self, path: &str, decoded: String) -> Result<usize, matchit::InsertError> {
        if let Some(index) = self.entries.iter().position(|entry| *entry.template == *path) {
            return Ok(index);
        }
        let index = self.entries.len();
        self.paths.insert(path, index)?;
        self.encoded |= path != decoded;
        self.decoded.insert(decoded, index)?;
        self.slashed |= path.len() > 1 && path.ends_with('/');
        let has_text_before =
            |segment: &str| segment.contains('{') && (!segment.starts_with('{') || segment.starts_with("{{"));
        self.infixed |= path.rsplit('/').skip(1).any(has_text_before);
        self.entries.push(Entry { template: path.into(), methods: Vec::new(), any: None });
        Ok(index)
    }

    /// Where the table has a path.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        line(&self.paths, path).map(Place)
    }

    /// The rule for a request. HEAD is decided as GET; TRACE never has one, and CONNECT only where a line names it.
    pub(super) fn find(&self, method: &Method, place: Option<Place>) -> Found<'_> {
        let entry = place.and_then(|Place(index)| self.entries.get(index));
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        let rule = match entry {
            _ if *asked == Method::TRACE => None,
            Some(entry) => {
                let any = entry.any.as_ref().filter(|_| *asked != Method::CONNECT);
                entry.methods.iter().find(|(held, _)| held == asked).map(|(_, rule)| rule).or(any)
            }
            None if *asked == Method::CONNECT => None,
            None => self.fallback.as_ref(),
        };
        Found { template: entry.map(|entry| &entry.template), rule }
    }

    /// How a request target reads to whoever decodes or normalises it. What does not start with a slash is no path (RFC 9112
    /// §3.2): no line names it, and whoever adds the slash inside would have asked the fallback alone.
    pub(super) fn reading(&self, method: &Method, path: &str) -> Reading {
        if !path.starts_with('/') {
            // A CONNECT that no line names is refused by whoever looks for its rule.
            let is_of_server = *method == Method::OPTIONS && path == "*";
            return if is_of_server || *method == Method::CONNECT { Reading::Clear } else { Reading::Ambiguous };
        }
        match readings(path) {
            None => Reading::Ambiguous,
            Some(readings) if self.is_of_another(path, &readings) => Reading::OfAnother,
            Some(_) if self.infixed && self.has_empty_parameter(path) => Reading::OfAnother,
            Some(_) => Reading::Clear,
        }
    }

    /// Whether a line is found by a parameter of nothing, as `/v{version}/x` is for `/v/x`: no line is about that path, and the fallback
    /// is not either, for a router with the same matcher takes it to the handler of the line.
    fn has_empty_parameter(&self, path: &str) -> bool {
        self.paths.at(path).is_ok_and(|found| found.params.iter().any(|(_, value)| value.is_empty()))
    }

    /// Whether another line is about what a path reads when it is decoded, or when a slash at its end is trimmed or added.
    fn is_of_another(&self, path: &str, readings: &[String]) -> bool {
        let may_be_trimmed = path.len() > 1 && path.ends_with('/');
        if readings.is_empty() && !may_be_trimmed && !self.slashed && !self.encoded {
            return false;
        }
        let named = line(&self.paths, path);
        // A path that is not encoded may be what an encoded template reads.
        let itself = Some(path).filter(|_| readings.is_empty() && self.encoded);
        let mut readings = itself.into_iter().chain(readings.iter().map(String::as_str));
        self.is_another_by_slash(&self.paths, path, named)
            || readings.any(|reading| {
                line(&self.decoded, reading) != named || self.is_another_by_slash(&self.decoded, reading, named)
            })
    }

    /// Whether there is another line for a path without the slash at its end, or with one. Not where the line that holds is
    /// about this very spelling, nor where nothing holds for the path: it is refused then.
    fn is_another_by_slash(&self, paths: &matchit::Router<usize>, path: &str, named: Option<usize>) -> bool {
        if named.is_none() && self.fallback.is_none() {
            return false;
        }
        let template = |index: usize| self.entries.get(index).map_or("", |entry| &*entry.template);
        let other = match path.strip_suffix('/') {
            Some(trimmed) => line(paths, trimmed),
            // A line that takes the rest of a path is about it with any end.
            None if self.slashed => line(paths, &format!("{path}/")).filter(|other| template(*other).ends_with('/')),
            None => None,
        };
        match (named.map(template), other.map(template)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(held), Some(other)) => {
                let is_spelled = !held.contains('{') || held.trim_end_matches('/') == other.trim_end_matches('/');
                !is_spelled
            }
        }
    }

    pub(super) const fn fallback(&self) -> Option<&Rule> {
        self.fallback.as_ref()
    }

    /// Whether the fallback hides what the table knows.
    pub(super) fn hides(&self) -> bool {
        self.fallback.as_ref().is_some_and(Rule::hides)
    }

    /// Each line: the method (none for `ANY`), the template and the rule.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.entries.iter().flat_map(|entry| {
            let methods = entry.methods.iter().map(|(method, rule)| (Some(method), rule));
            let all = methods.chain(entry.any.as_ref().map(|rule| (None, rule)));
            all.map(|(method, rule)| Line { method, template: &entry.template, rule })
        })
    }

    /// Tells which rules are only tried out.
    pub(super) fn announce(&self, at: Instants) {
        for (line, rule) in self.rules() {
            if let Some(guard) = rule.guard() {
                guard.announce(at, &line);
            }
        }
    }

    /// Each rule, and what it stands for: its line, or the fallback.
    pub(super) fn rules(&self) -> impl Iterator<Item = (String, &Rule)> {
        let lines = self.lines().map(|line| (line.to_string(), line.rule));
        lines.chain(self.fallback().map(|rule| ("fallback".to_owned(), rule)))
    }
}

/// What is wrong with the lines of a table, each with where it begins; a table of them would tell the first alone.
#[cfg(feature = "config")]
pub(crate) fn mistakes_of<'l>(lines: impl Iterator<Item = (usize, &'l str, &'l Rule)>) -> Vec<(usize, ConfigError)> {
    let mut table = RouteTable::without_lines(None);
    let check = |(start, line, rule): (usize, &str, &Rule)| {
        let added = table.add(line, rule.clone()).and_then(|()| {
            let (_, template) = line.split_once(' ').unwrap_or_default();
            rule.check_route(template).map_err(|problem| ConfigError::new("route", format!("{line:?}"), problem))
        });
        Some((start, added.err()?))
    };
    lines.filter_map(check).collect()
}

/// How many parameters a path has. `None` if the name of one has a brace: `{a}}b}` is one parameter to the matcher, and to a guard it
/// ends at the first `}`.
fn parameters(path: &str) -> Option<usize> {
    let (mut count, mut rest) = (0_usize, path);
    while let Some((_, after)) = rest.split_once('{') {
        if let Some(text) = after.strip_prefix('{') {
            rest = text;
            continue;
        }
        // One that does not end, the matcher refuses.
        let Some((name, text)) = after.split_once('}') else { break };
        if name.contains('{') || text.starts_with('}') {
            return None;
        }
        (count, rest) = (count.saturating_add(1), text);
    }
    Some(count)
}

/// The line that a path is of.
fn line(paths: &matchit::Router<usize>, path: &str) -> Option<usize> {
    paths.at(path).ok().map(|found| *found.value)
}

/// The method of a line, none for `ANY`, and its template. `None` if it is no line.
pub(super) fn split_line(line: &str) -> Option<(Option<Method>, String)> {
    let (method, template) = line.split_once(' ')?;
    let method = if method == "ANY" { None } else { Some(Method::from_bytes(method.as_bytes()).ok()?) };
    Some((method, template.to_owned()))
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
            ("not ASCII", "GET /caf\u{e9}"),
            ("space", "GET /or ders"),
            ("dot segment", "GET /orders/../admin"),
            ("empty segment", "GET //orders"),
            ("open brace", "GET /orders/{id"),
            ("encoded brace", "GET /orders/%7Bid%7D"),
            ("brace in a name", "GET /orders/{a}}b}"),
            ("opening brace in a name", "GET /orders/{a{{b}"),
            ("brace behind a parameter", "GET /orders/{{{id}}}"),
            ("encoded twice", "GET /caf%25C3%25A9"),
            ("parameter of old", "GET /orders/:id"),
            ("parameter of old, first", "GET /:tenant/orders"),
            ("rest of old", "ANY /files/*rest"),
            ("rest of old, without a name", "ANY /*"),
            ("HEAD", "HEAD /orders"),
            ("TRACE", "TRACE /orders"),
            ("empty", ""),
        ] {
            let error = table(&[line]).unwrap_err();
            assert_eq!((error.setting(), error.value()), ("route", format!("{line:?}").as_str()), "{name}");
        }
        for (count, fits) in [(25, true), (26, false), (27, false), (200, false)] {
            assert_eq!(table(&[&format!("GET {}", "/{a}".repeat(count))]).is_ok(), fits, "{count} parameters");
            let line = format!("GET {}/{{*rest}}", "/{a}".repeat(count - 1));
            assert_eq!(table(&[&line]).is_ok(), fits, "{count} with the rest");
        }
        for (length, fits) in [(1024, true), (1025, false), (1026, false)] {
            assert_eq!(table(&[&format!("GET /{}", "a".repeat(length - 1))]).is_ok(), fits, "{length} bytes");
        }
        assert!(table(&["GET /orders", "GET /orders"]).is_err(), "twice");
        for (lines, problem) in [
            (["GET /orders/{id}", "PUT /orders/{order}"], "meets \"/orders/{id}\", which takes the same paths"),
            (["GET /a/{x}", "GET /a/{*rest}"], "meets \"/a/{x}\""),
            (["GET /", "GET /{a}-{b}"], "in one segment"),
            (["GET /", "GET /{}"], "without a name"),
            (["GET /", "GET /{*rest}/a"], "elsewhere than at its end"),
        ] {
            let error = table(&lines).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(lines[1]), "{lines:?}: {error}");
        }
        assert!(table(&["GET /orders", "GET /%6Frders"]).is_err(), "two spellings of one path");
        assert!(table(&["GET /caf%C3%A9", "GET /100%25", "GET /{id}"]).is_ok());
        assert!(table(&["POST /orders:cancel", "GET /a*", "GET /{*rest}"]).is_ok());
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
            assert_eq!(table.find(&method, table.place(path)).rule.is_some(), has_rule, "{name}");
        }
    }

    #[test]
    fn a_target_reads_as_a_path_or_is_ambiguous() {
        let lines = ["GET /orders", "ANY /files/{*path}", "ANY /files/own/{*path}", "GET /%7Euser", "GET /"];
        let lines = lines.map(|line| (line.to_owned(), deny()));
        let table = RouteTable::new(lines.to_vec(), Some(public())).unwrap();
        for (name, method, target, expected) in [
            ("path", Method::GET, "/orders", Reading::Clear),
            ("root", Method::GET, "/", Reading::Clear),
            ("not named", Method::GET, "/else", Reading::Clear),
            ("not named, with a slash", Method::GET, "/else/", Reading::Clear),
            ("server", Method::OPTIONS, "*", Reading::Clear),
            ("server, another method", Method::GET, "*", Reading::Ambiguous),
            ("server, and more", Method::OPTIONS, "*/orders", Reading::Ambiguous),
            ("host", Method::CONNECT, "", Reading::Clear),
            ("host, another method", Method::GET, "", Reading::Ambiguous),
            ("no slash", Method::GET, "orders", Reading::Ambiguous),
            ("no slash, OPTIONS", Method::OPTIONS, "orders", Reading::Ambiguous),
            ("no slash, deeper", Method::GET, "files/own/x", Reading::Ambiguous),
            ("query alone", Method::GET, "?orders", Reading::Ambiguous),
            ("encoded slash", Method::GET, "%2Forders", Reading::Ambiguous),
            ("dot segments", Method::GET, "/else/../orders", Reading::Ambiguous),
            ("decoded", Method::GET, "/%6Frders", Reading::OfAnother),
            ("decoded, under a wider line", Method::GET, "/files/%6Fwn/x", Reading::OfAnother),
            ("decoded, and of no other", Method::GET, "/files/%6Ewo/x", Reading::Clear),
            ("trimmed", Method::GET, "/orders/", Reading::OfAnother),
            ("as the line reads", Method::GET, "/~user", Reading::OfAnother),
            ("as the line is spelled", Method::GET, "/%7Euser", Reading::Clear),
            ("as it is spelled in other letters", Method::GET, "/%7euser", Reading::OfAnother),
        ] {
            assert_eq!(table.reading(&method, target), expected, "{name}");
        }
    }

    #[test]
    fn a_parameter_is_never_of_nothing() {
        for (line, good, bad) in [
            ("GET /v{version}/x", "/v2/x", "/v/x"),
            ("GET /orders{id}/", "/orders7/", "/orders/"),
            ("GET /{{{id}/x", "/{7/x", "/{/x"),
            ("GET /a{b}/c{d}/e", "/ab/cd/e", "/ab/c/e"),
        ] {
            let table = RouteTable::new(vec![(line.to_owned(), deny())], Some(public())).unwrap();
            assert_eq!(table.reading(&Method::GET, good), Reading::Clear, "{good}");
            assert_eq!(table.reading(&Method::GET, bad), Reading::OfAnother, "{bad}");
        }
    }

    #[test]
    fn the_fallback_holds_for_paths_that_are_not_named() {
        let table = RouteTable::new(vec![("GET /orders".to_owned(), deny())], Some(public())).unwrap();
        assert!(table.find(&Method::GET, table.place("/else")).rule.is_some());
        assert!(
            table.find(&Method::POST, table.place("/orders")).rule.is_none(),
            "a method that no rule names is refused"
        );
    }
}
