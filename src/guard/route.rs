//! The route that matched: its template, and the parameters of the path.

use std::{borrow::Cow, sync::Arc};

use crate::{context::Envelope, error::ConfigError, guard::resource::NoResource, head::RequestHead, log};

/// Who matched the route that a guard goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MatchedBy {
    /// The table of the stack that asks the guard, on the path that the stack sees.
    Table,
    /// A router around the guard, or else the table of a stack outside.
    Outside,
}

/// The template of the route that matched, where that is another one than the request's. A request without one gets this one.
pub(super) fn other_template(head: &RequestHead<'_>, by: MatchedBy, envelope: &mut Envelope) -> Option<Arc<str>> {
    let matched = match by {
        MatchedBy::Table => None,
        MatchedBy::Outside => matched_path(head),
    }?;
    match &envelope.route {
        Some(table) if **table == *matched => None,
        Some(table) => {
            static DIFFERENT: log::Seldom = log::Seldom::new();
            DIFFERENT.error(
                envelope.at,
                &format!("the stack's table takes a request for {table:?}, and the router for {matched:?}"),
            );
            Some(matched.into())
        }
        None => {
            envelope.route = Some(matched.into());
            None
        }
    }
}

/// What an axum router around the guard matched.
#[cfg(feature = "axum")]
fn matched_path<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    head.extension::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
const fn matched_path<'a>(_: &RequestHead<'a>) -> Option<&'a str> {
    None
}

/// The path that was matched: a nested router sees a part of it alone.
pub(super) fn path<'a>(head: &RequestHead<'a>, by: MatchedBy) -> &'a str {
    match by {
        MatchedBy::Table => head.path(),
        MatchedBy::Outside => original_path(head).unwrap_or_else(|| head.path()),
    }
}

#[cfg(feature = "axum")]
fn original_path<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    head.extension::<axum::extract::OriginalUri>().map(|original| original.0.path())
}

#[cfg(not(feature = "axum"))]
const fn original_path<'a>(_: &RequestHead<'a>) -> Option<&'a str> {
    None
}

/// The parameters of a path, decoded.
#[derive(Debug)]
pub(crate) struct Params<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    pub(crate) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Takes the parameters of a template from a path that matches it.
    ///
    /// # Errors
    /// [`WrongRoute`](NoResource::WrongRoute) if it does not, [`NotNamed`](NoResource::NotNamed) if a parameter is no UTF-8
    /// text when it is decoded.
    ///
    /// A template is segments between slashes: text, in which `{{` and `}}` are braces, with at most one `{name}` in it, or
    /// `{*name}` for the rest of the path.
    pub(crate) fn of(template: &'a str, path: &'a str) -> Result<Self, NoResource> {
        let raw = raw(template, path).ok_or(NoResource::WrongRoute)?;
        let params = raw.into_iter().map(|(name, value)| Some((name, decoded(value)?)));
        params.collect::<Option<_>>().map(Self).ok_or(NoResource::NotNamed)
    }

    /// The value of a parameter. `None` if its name stands twice: a handler may act on the other one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut held = self.0.iter().filter(|(held, _)| *held == name);
        match (held.next(), held.next()) {
            (Some((_, value)), None) => Some(&**value),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// Puts the parameters in for their names. What is made of several tells their values: no two requests make one text of
    /// different ones.
    ///
    /// # Errors
    /// [`WrongRoute`](NoResource::WrongRoute) if one is missing, [`NotNamed`](NoResource::NotNamed) if a value holds the text that
    /// ends it.
    pub(crate) fn fill(&self, template: &str) -> Result<String, NoResource> {
        let mut filled = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(NoResource::WrongRoute)?;
            let value = self.get(name).ok_or(NoResource::WrongRoute)?;
            filled.push_str(before);
            if let Some((ending, _)) = after.split_once('{')
                && !ends_at_first(value, ending)
            {
                return Err(NoResource::NotNamed);
            }
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// Whether a value ends where the text after it first stands. A value may also end with that text's beginning.
fn ends_at_first(value: &str, ending: &str) -> bool {
    [value, ending].concat().find(ending) == Some(value.len())
}

/// The parameters as they stand in the path. `None` if it does not match.
fn raw<'a>(template: &'a str, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut params = Vec::new();
    let (mut template, mut path) = (template.strip_prefix('/')?, path.strip_prefix('/')?);
    loop {
        let (segment, template_rest) = split(template);
        if let Some(name) = segment.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
            params.push((name, path));
            return Some(params);
        }
        let (part, path_rest) = split(path);
        let (before, name, after) = placeholder(segment)?;
        let value = part.strip_prefix(&*before)?.strip_suffix(&*after)?;
        match name {
            Some(name) => params.push((name, value)),
            None if value.is_empty() => {}
            None => return None,
        }
        match (template_rest, path_rest) {
            (Some(more), Some(rest)) => (template, path) = (more, rest),
            (None, None) => return Some(params),
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)))
}

/// The text before a segment's parameter, its name, and the text after; only text if there is none. In a segment without a
/// parameter all of it stands before.
fn placeholder(segment: &str) -> Option<(Cow<'_, str>, Option<&str>, Cow<'_, str>)> {
    if !segment.contains(['{', '}']) {
        return Some((segment.into(), None, "".into()));
    }
    let (mut before, mut after, mut name) = (String::new(), String::new(), None);
    let mut rest = segment;
    while let Some(first) = rest.chars().next() {
        let text = if name.is_none() { &mut before } else { &mut after };
        if let Some(more) = rest.strip_prefix("{{") {
            text.push('{');
            rest = more;
        } else if let Some(more) = rest.strip_prefix("}}") {
            text.push('}');
            rest = more;
        } else if let Some(more) = rest.strip_prefix('{') {
            let (found, more) = more.split_once('}')?;
            if name.replace(found).is_some() {
                return None;
            }
            rest = more;
        } else {
            text.push(first);
            rest = rest.get(first.len_utf8()..)?;
        }
    }
    Some((before.into(), name, after.into()))
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let digit = |digit: Option<&u8>| char::from(*digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        rest = match (byte, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                after.get(2..).unwrap_or_default()
            }
            _ => {
                bytes.push(*byte);
                after
            }
        };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Checks a text in which `{name}` stands for a parameter.
pub(super) fn check_template(setting: &str, template: &str) -> Result<(), ConfigError> {
    let refuse = |problem: &str| Err(ConfigError::new(setting, format!("{template:?}"), problem));
    if template.is_empty() {
        return refuse("must not be empty");
    }
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { return refuse("has a brace that is not closed") };
        if name.is_empty() || name.contains(['{', '*']) || before.contains('}') {
            return refuse("must have the name of a parameter between braces");
        }
        if after.starts_with('{') {
            return refuse("has two parameters and nothing between them: nobody could tell where one ends");
        }
        rest = after;
    }
    if rest.contains('}') { refuse("has a brace that is not opened") } else { Ok(()) }
}

/// The names between braces.
pub(super) fn names_of(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|after| after.split_once('}')).map(|(name, _)| name)
}

/// The parameters that a route's template has.
#[cfg(feature = "stack")]
pub(crate) fn parameters_of(template: &str) -> Vec<&str> {
    template
        .split('/')
        .filter_map(|segment| match segment.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
            Some(rest) => Some(rest),
            None => placeholder(segment)?.1,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(template: &str, path: &str) -> Option<String> {
        let params = Params::of(template, path).ok()?;
        Some(params.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn parameters_are_read_where_the_path_matches() {
        for (template, path, expected) in [
            ("/", "/", Some("")),
            ("/orders", "/orders", Some("")),
            ("/orders", "/orders/", None),
            ("/orders", "/order", None),
            ("/orders/{id}", "/orders/42", Some("id=42")),
            ("/orders/{id}", "/orders/", Some("id=")),
            ("/orders/{id}", "/orders", None),
            ("/orders/{id}", "/orders/42/items", None),
            ("/orders/{id}", "/Orders/42", None),
            ("/t/{tenant}/orders/{id}", "/t/acme/orders/42", Some("tenant=acme id=42")),
            ("/files/{*rest}", "/files/a/b%20c", Some("rest=a/b c")),
            ("/v{version}/x", "/v2/x", Some("version=2")),
            ("/{name}.json", "/a.b.json", Some("name=a.b")),
            ("/{name}.json", "/a.xml", None),
            ("/{{x}}", "/{x}", Some("")),
            ("/{{{x}}}", "/{7}", Some("x=7")),
            ("/orders/{id}", "/orders/a%2Fb", Some("id=a/b")),
            ("/orders/{id}", "/orders/caf%C3%A9", Some("id=café")),
            ("/orders/{id}", "/orders/%E9", None),
            ("/orders/{id}", "/orders/%4", Some("id=%4")),
            ("/orders/{id}", "/orders/%+4", Some("id=%+4")),
            ("orders", "orders", None),
            ("/{a}{b}", "/x", None),
        ] {
            assert_eq!(told(template, path).as_deref(), expected, "{template} {path}");
        }
    }

    #[test]
    fn templates_are_filled_whole_or_not_at_all() {
        use NoResource::{NotNamed, WrongRoute};
        let params = Params::of("/t/{tenant}/orders/{id}", "/t/ac-me-/orders/4{id}2").unwrap();
        for (template, expected) in [
            ("{id}", Ok("4{id}2")),
            ("{tenant}/{id}", Ok("ac-me-/4{id}2")),
            ("{id}-{tenant}", Ok("4{id}2-ac-me-")),
            ("all", Ok("all")),
            ("{other}", Err(WrongRoute)),
            ("{id", Err(WrongRoute)),
            ("{tenant}-{id}", Err(NotNamed)),
            ("{tenant}--{id}", Err(NotNamed)),
            ("{tenant}{id}", Err(NotNamed)),
        ] {
            assert_eq!(params.fill(template).as_deref().map_err(|why| *why), expected, "{template}");
        }
        for (template, sound) in [
            ("{id}", true),
            ("a-{b}-{c}", true),
            ("", false),
            ("{", false),
            ("}", false),
            ("{}", false),
            ("a}{b}", false),
            ("{b}{c}", false),
            ("{*x}", false),
        ] {
            assert_eq!(check_template("t", template).is_ok(), sound, "{template}");
        }
        assert_eq!(names_of("{a}/x{b}").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[cfg(feature = "stack")]
    #[test]
    fn the_parameters_of_a_route() {
        assert_eq!(parameters_of("/a/{b}/v{c}.json/{{d}}/{*rest}"), ["b", "c", "rest"]);
    }

    proptest! {
        /// What matchit finds, this finds: the same values for the same names.
        #[cfg(feature = "stack")]
        #[test]
        fn it_reads_what_the_matcher_reads(
            template in "(/[ab]{1,2}|/\\{x\\}|/[ab]\\{y\\}|/\\{z\\}[ab]|/\\{\\{a\\}\\}){1,4}(/\\{\\*rest\\})?",
            path in "(/[ab{}]{1,3}){1,5}",
        ) {
            let mut router = matchit::Router::new();
            prop_assume!(router.insert(template.as_str(), ()).is_ok());
            let found = router.at(&path).ok().map(|found| {
                found.params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            });
            if found.is_some() {
                prop_assert_eq!(told(&template, &path), found, "{} {}", template, path);
            }
        }

        #[test]
        fn what_is_made_of_several_parameters_tells_their_values(
            ending in "[-a]{1,3}",
            one in ("[-a]{0,4}", "[-a]{0,4}"),
            other in ("[-a]{0,4}", "[-a]{0,4}"),
        ) {
            let template = format!("{{x}}{ending}{{y}}");
            let filled = |(x, y): &(String, String)| {
                Params(vec![("x", x.into()), ("y", y.into())]).fill(&template)
            };
            if let (Ok(first), Ok(second)) = (filled(&one), filled(&other)) {
                prop_assert_eq!(first == second, one == other, "{} and {}", first, second);
            }
        }

        #[test]
        fn nothing_panics(template in "\\PC{0,30}", path in "\\PC{0,30}") {
            let _ = Params::of(&template, &path);
            let _ = check_template("t", &template);
        }
    }
}
