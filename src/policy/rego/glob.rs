//! `glob.match` as OPA documents it. The one of the interpreter takes `:` for no delimiter, and for the same as `/`: a pattern of actions
//! such as `orders:*` would match more than it says.

use std::{fmt::Write, iter::Peekable, str::Chars, sync::Arc};

use quick_cache::sync::Cache;
use regex::{Regex, RegexBuilder};
use regorus::{Engine, Value};
use thiserror::Error;

/// How many patterns are kept compiled.
const KEPT: usize = 64;
/// The most memory of a compiled pattern, and of the states that are made while it is matched, in bytes.
const MAX_SIZE: usize = 64 * 1024;

#[derive(Debug, Error)]
pub(super) enum GlobError {
    #[error("glob.match: {0} must be a string")]
    NoString(&'static str),
    #[error("glob.match: the delimiters must be null or an array of strings of one character")]
    Delimiters,
    #[error("glob.match: the pattern is malformed")]
    Malformed,
    #[error("glob.match: the pattern is too large")]
    TooLarge,
}

/// Gives the engine a `glob.match` of its own. With `lenient`, one that fails is undefined.
pub(super) fn register(engine: &mut Engine, lenient: bool) -> Result<(), impl ToString + use<>> {
    let kept = Arc::new(Cache::new(KEPT));
    let call = move |values: Vec<Value>| match matches(&kept, &values) {
        Err(_) if lenient => Ok(Value::Undefined),
        matched => Ok(Value::Bool(matched?)),
    };
    engine.add_extension("glob.match".to_owned(), 3, Box::new(call))
}

fn matches(kept: &Cache<String, Regex>, values: &[Value]) -> Result<bool, GlobError> {
    let [pattern, delimiters, text] = values else { return Err(GlobError::Malformed) };
    let pattern = pattern.as_string().map_err(|_| GlobError::NoString("the pattern"))?;
    let text = text.as_string().map_err(|_| GlobError::NoString("the text"))?;
    let delimiters = read_delimiters(delimiters)?;
    // How many there are says where the pattern begins.
    let key = format!("{} {delimiters}{pattern}", delimiters.chars().count());
    if let Some(regex) = kept.get(&key) {
        return Ok(regex.is_match(text));
    }
    let regex = compile(pattern, &delimiters)?;
    let matched = regex.is_match(text);
    kept.insert(key, regex);
    Ok(matched)
}

/// One character each; no delimiters if null is given, and a dot if none is named.
fn read_delimiters(given: &Value) -> Result<String, GlobError> {
    if matches!(given, Value::Null) {
        return Ok(String::new());
    }
    let mut delimiters = String::new();
    for item in given.as_array().map_err(|_| GlobError::Delimiters)?.iter() {
        let mut letters = item.as_string().map_err(|_| GlobError::Delimiters)?.chars();
        let (Some(letter), None) = (letters.next(), letters.next()) else { return Err(GlobError::Delimiters) };
        delimiters.push(letter);
    }
    Ok(if delimiters.is_empty() { ".".to_owned() } else { delimiters })
}

fn compile(pattern: &str, delimiters: &str) -> Result<Regex, GlobError> {
    let mut regex = Translation::of(delimiters);
    regex.translate(pattern)?;
    let built = RegexBuilder::new(&regex.text).size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE).build();
    built.map_err(|_| GlobError::TooLarge)
}

/// A pattern as a regular expression of the whole text.
struct Translation {
    text: String,
    /// What `?` stands for.
    one: String,
}

impl Translation {
    fn of(delimiters: &str) -> Self {
        let mut one = ".".to_owned();
        if !delimiters.is_empty() {
            one = "[^".to_owned();
            delimiters.chars().for_each(|letter| put(&mut one, letter));
            one.push(']');
        }
        Self { text: r"\A(?s:".to_owned(), one }
    }

    fn translate(&mut self, pattern: &str) -> Result<(), GlobError> {
        let mut depth = 0_usize;
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '*' if letters.next_if_eq(&'*').is_some() => self.text.push_str(".*"),
                '*' => {
                    self.text.push_str(&self.one);
                    self.text.push('*');
                }
                '?' => self.text.push_str(&self.one),
                '[' => self.class(&mut letters)?,
                '{' => {
                    depth += 1;
                    self.text.push_str("(?:");
                }
                '}' if depth > 0 => {
                    depth -= 1;
                    self.text.push(')');
                }
                ',' if depth > 0 => self.text.push('|'),
                '\\' => put(&mut self.text, letters.next().ok_or(GlobError::Malformed)?),
                letter => put(&mut self.text, letter),
            }
        }
        self.text.push_str(r")\z");
        if depth == 0 { Ok(()) } else { Err(GlobError::Malformed) }
    }

    /// `[abc]`, or `[a-c]` and nothing else in it; with `!` before it, any other character. A delimiter is a character as others.
    fn class(&mut self, letters: &mut Peekable<Chars<'_>>) -> Result<(), GlobError> {
        self.text.push('[');
        if letters.next_if_eq(&'!').is_some() {
            self.text.push('^');
        }
        let mut members = Vec::new();
        loop {
            match letters.next().ok_or(GlobError::Malformed)? {
                ']' => break,
                '\\' => members.push((letters.next().ok_or(GlobError::Malformed)?, true)),
                letter => members.push((letter, false)),
            }
        }
        match members[..] {
            [] => return Err(GlobError::Malformed),
            [(low, _), ('-', false), (high, _)] if low <= high => {
                put(&mut self.text, low);
                self.text.push('-');
                put(&mut self.text, high);
            }
            [_, ('-', false), ..] => return Err(GlobError::Malformed),
            _ => members.into_iter().for_each(|(letter, _)| put(&mut self.text, letter)),
        }
        self.text.push(']');
        Ok(())
    }
}

/// A character that stands for itself, in a class and outside of one.
fn put(regex: &mut String, letter: char) {
    // Writing to a string cannot fail.
    let _ = write!(regex, r"\x{{{:X}}}", u32::from(letter));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(pattern: &str, delimiters: Option<&[&str]>, text: &str) -> Result<bool, GlobError> {
        let delimiters = delimiters.map_or(Value::Null, |delimiters| {
            Value::from(delimiters.iter().map(|&delimiter| Value::from(delimiter)).collect::<Vec<_>>())
        });
        matches(&Cache::new(KEPT), &[pattern.into(), delimiters, text.into()])
    }

    #[test]
    fn what_opa_documents() {
        for (pattern, delimiters, text, expected) in [
            ("*.github.com", Some(&[][..]), "api.github.com", true),
            ("*.github.com", Some(&[]), "api.cdn.github.com", false),
            ("*hub.com", None, "api.cdn.github.com", true),
            ("*:github:com", Some(&[":"]), "api:github:com", true),
            ("api.**.com", Some(&["."]), "api.github.com", true),
            ("api.**.com", Some(&["."]), "api.cdn.github.com", true),
            ("?at", Some(&[]), "cat", true),
            ("?at", Some(&[]), "at", false),
            ("[abc]at", Some(&[]), "bat", true),
            ("[!abc]at", Some(&[]), "cat", false),
            ("[!abc]at", Some(&[]), "lat", true),
            ("[a-c]at", Some(&[]), "cat", true),
            ("[a-c]at", Some(&[]), "lat", false),
            ("[!a-c]at", Some(&[]), "lat", true),
            ("{cat,bat,[fr]at}", Some(&[]), "rat", true),
            ("{cat,bat,[fr]at}", Some(&[]), "at", false),
        ] {
            assert_eq!(ask(pattern, delimiters, text).unwrap(), expected, "{pattern} {delimiters:?} {text}");
        }
    }

    #[test]
    fn a_pattern_matches_no_more_than_it_says() {
        for (pattern, delimiters, text, expected) in [
            ("orders:*", Some(&[":"][..]), "orders:read", true),
            ("orders:*", Some(&[":"]), "orders:items:delete", false),
            ("orders:**", Some(&[":"]), "orders:items:delete", true),
            ("orders:read", Some(&[":"]), "orders/read", false),
            ("orders?read", Some(&[":"]), "orders:read", false),
            ("a/*", Some(&["/", "."]), "a/b.c", false),
            ("a.b", Some(&[]), "axb", false),
            ("a", None, "a\n", false),
            ("*", None, "a\nb", true),
            ("A", None, "a", false),
            ("(a|b)+$", None, "(a|b)+$", true),
            ("(a|b)+$", None, "a", false),
            (r"\*\{\\", None, r"*{\", true),
            (r"\*", None, "a", false),
            ("a,b}", None, "a,b}", true),
            ("{a,{b,c}d}", None, "cd", true),
            (r"[\]^]", None, "^", true),
            ("[ab-c]", None, "-", true),
            ("[a&&b]", None, "&", true),
            ("", None, "", true),
            ("", None, "a", false),
            ("**", Some(&["^", "]", "-", "\\"]), "a^]", true),
            ("*", Some(&["^", "]", "-", "\\"]), "a]", false),
        ] {
            assert_eq!(ask(pattern, delimiters, text).unwrap(), expected, "{pattern} {delimiters:?} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_an_error() {
        for bad in ["[", "[]", "[!]", "[a", "[c-a]", "[a-cx]", "{a", "{{a}", "\\", "[\\"] {
            assert!(matches!(ask(bad, None, "a"), Err(GlobError::Malformed)), "{bad}");
        }
        assert!(matches!(ask("a", Some(&["::"]), "a"), Err(GlobError::Delimiters)));
        assert!(matches!(ask("a", Some(&[""]), "a"), Err(GlobError::Delimiters)));
        let large = "{".repeat(10_000) + &"}".repeat(10_000);
        assert!(matches!(ask(&large, None, "a"), Err(GlobError::TooLarge)));
        let one = Value::from("a");
        for values in [
            [Value::Null, Value::Null, one.clone()],
            [one.clone(), Value::Null, 1.into()],
            [one.clone(), one.clone(), one],
        ] {
            assert!(matches(&Cache::new(KEPT), &values).is_err(), "{values:?}");
        }
    }

    proptest! {
        /// A pattern that quotes every character matches that text alone; no pattern panics.
        #[test]
        fn quoted_patterns_match_themselves(text in any::<String>(), other in any::<String>(), delimiter in any::<char>()) {
            let delimiter = delimiter.to_string();
            let quoted: String = text.chars().flat_map(|letter| ['\\', letter]).collect();
            prop_assert!(ask(&quoted, Some(&[&delimiter]), &text).unwrap());
            prop_assert_eq!(ask(&quoted, Some(&[&delimiter]), &other).unwrap(), text == other);
            drop(ask(&text, Some(&[&delimiter]), &other));
        }
    }
}
