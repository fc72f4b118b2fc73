//! The `Forwarded` field (RFC 7239 §4): elements by comma, parameters by semicolon, values as tokens or quoted strings.

use std::borrow::Cow;

use super::node::{Node, is_secure_scheme};

/// The most parameters that an element may have; the RFC names four.
const MAX_PARAMETERS: usize = 16;

/// What one proxy says about its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) node: Node,
    /// Whether `proto` names a scheme that runs over TLS; not so if there is no `proto`.
    pub(super) secure: bool,
    pub(super) host: Option<Cow<'a, str>>,
}

/// The line is not of the grammar; nothing after this point can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one field line. Elements come in the order of the line; after a [`Malformed`] there are none.
///
/// White space around `;` is tolerated, empty elements are skipped (RFC 9110 §5.6.1.2). An element with a parameter that
/// stands twice names [`Node::Invalid`].
pub(super) fn elements(line: &[u8]) -> Elements<'_> {
    Elements { rest: Some(line) }
}

#[derive(Debug)]
pub(super) struct Elements<'a> {
    /// None once the line is used up.
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match element(self.rest.take()?) {
                Err(malformed) => return Some(Err(malformed)),
                Ok((element, rest)) => {
                    self.rest = rest;
                    if element.is_some() {
                        return element.map(Ok);
                    }
                }
            }
        }
    }
}

type Rest<'a> = Option<&'a [u8]>;

/// `[ forwarded-pair ] *( ";" [ forwarded-pair ] )`, up to a comma or the end. None if there is no pair at all.
fn element(mut input: &[u8]) -> Result<(Option<Element<'_>>, Rest<'_>), Malformed> {
    let mut parameters = Parameters::default();
    loop {
        input = input.trim_ascii_start();
        if !matches!(input.first(), None | Some(b';' | b',')) {
            let (name, value, rest) = pair(input)?;
            parameters.add(name, value);
            input = rest.trim_ascii_start();
        }
        match input.split_first() {
            None => return Ok((parameters.finish(), None)),
            Some((b',', rest)) => return Ok((parameters.finish(), Some(rest))),
            Some((b';', rest)) => input = rest,
            Some(_) => return Err(Malformed),
        }
    }
}

/// Name, value, and what follows.
type Pair<'a> = (&'a [u8], Cow<'a, [u8]>, &'a [u8]);

/// `token "=" value`
fn pair(input: &[u8]) -> Result<Pair<'_>, Malformed> {
    let (name, rest) = token(input)?;
    let rest = rest.strip_prefix(b"=").ok_or(Malformed)?;
    if let Some(inside) = rest.strip_prefix(b"\"") {
        let (value, rest) = quoted(inside)?;
        return Ok((name, value, rest));
    }
    let (value, rest) = token(rest)?;
    Ok((name, Cow::Borrowed(value), rest))
}

/// `1*tchar` (RFC 9110 §5.6.2).
fn token(input: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = input.iter().position(|byte| !is_tchar(*byte)).unwrap_or(input.len());
    if end == 0 {
        return Err(Malformed);
    }
    input.split_at_checked(end).ok_or(Malformed)
}

/// The inside of a quoted string and what follows its closing quote (RFC 9110 §5.6.4).
fn quoted(input: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Malformed> {
    let mut value = Cow::Borrowed(&[][..]);
    let mut rest = input;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Malformed)?;
        let (plain, from_mark) = rest.split_at_checked(end).ok_or(Malformed)?;
        if !plain.iter().all(|byte| is_text(*byte)) {
            return Err(Malformed);
        }
        if value.is_empty() {
            value = Cow::Borrowed(plain);
        } else {
            value.to_mut().extend_from_slice(plain);
        }
        match from_mark {
            [b'"', after @ ..] => return Ok((value, after)),
            [_, escaped, after @ ..] if is_text(*escaped) => {
                value.to_mut().push(*escaped);
                rest = after;
            }
            _ => return Err(Malformed),
        }
    }
}

const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What may stand in quotes: tab, printable ASCII, and bytes beyond ASCII.
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// The parameters of one element.
#[derive(Debug, Default)]
struct Parameters<'a> {
    names: [&'a [u8]; MAX_PARAMETERS],
    count: usize,
    broken: bool,
    node: Option<Node>,
    secure: bool,
    host: Option<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    fn add(&mut self, name: &'a [u8], value: Cow<'a, [u8]>) {
        let twice = self.names.iter().take(self.count).any(|seen| seen.eq_ignore_ascii_case(name));
        match self.names.get_mut(self.count) {
            Some(slot) if !twice => *slot = name,
            Some(_) | None => self.broken = true,
        }
        self.count = self.count.saturating_add(1);
        if name.eq_ignore_ascii_case(b"for") {
            self.node = Some(text(&value).map_or(Node::Invalid, Node::strict));
        } else if name.eq_ignore_ascii_case(b"proto") {
            self.secure = text(&value).is_some_and(is_secure_scheme);
        } else if name.eq_ignore_ascii_case(b"host") {
            self.host = owned_text(value);
        }
    }

    fn finish(self) -> Option<Element<'a>> {
        if self.broken {
            return Some(Element { node: Node::Invalid, secure: false, host: None });
        }
        let node = self.node.unwrap_or(Node::Hidden);
        (self.count > 0).then_some(Element { node, secure: self.secure, host: self.host })
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn owned_text(value: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match value {
        Cow::Borrowed(bytes) => text(bytes).map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Result<Vec<Element<'_>>, Malformed> {
        elements(line.as_bytes()).collect()
    }

    fn nodes(line: &str) -> Result<Vec<Node>, Malformed> {
        Ok(read(line)?.into_iter().map(|element| element.node).collect())
    }

    fn address(text: &str) -> Node {
        Node::Address(text.parse().unwrap())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let cases: [(&str, &str, Vec<Node>); 9] = [
            ("§4 hidden", r#"for="_gazonk""#, vec![Node::Hidden]),
            ("§4 IPv6 with port", r#"For="[2001:db8:cafe::17]:4711""#, vec![address("2001:db8:cafe::17")]),
            ("§4 three parameters", "for=192.0.2.60;proto=http;by=203.0.113.43", vec![address("192.0.2.60")]),
            (
                "§4 two elements",
                "for=192.0.2.43, for=198.51.100.17",
                vec![address("192.0.2.43"), address("198.51.100.17")],
            ),
            ("§6.2 port in quotes", r#"for="192.0.2.43:47011""#, vec![address("192.0.2.43")]),
            ("§6.3 hidden names", "for=_hidden, for=_SEVKISEK", vec![Node::Hidden, Node::Hidden]),
            (
                "§7.1 a list",
                r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#,
                vec![address("192.0.2.43"), address("2001:db8:cafe::17"), Node::Hidden],
            ),
            (
                "§7.4 from X-Forwarded-For",
                r#"for=192.0.2.43, for="[2001:db8:cafe::17]""#,
                vec![address("192.0.2.43"), address("2001:db8:cafe::17")],
            ),
            (
                "§7.4 an example",
                r#"for=192.0.2.43,for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"#,
                vec![address("192.0.2.43"), address("198.51.100.17")],
            ),
        ];
        for (name, line, expected) in cases {
            assert_eq!(nodes(line), Ok(expected), "{name}");
        }
    }

    #[test]
    fn parameters() {
        let one = |line| read(line).unwrap().remove(0);
        assert!(one("for=192.0.2.1;proto=https").secure);
        assert!(one("FOR=192.0.2.1;PROTO=HTTPS").secure);
        assert!(one(r#"for=192.0.2.1; proto="h\ttps""#).secure, "an escape stands for what follows it");
        assert!(!one("for=192.0.2.1;proto=http").secure);
        assert!(!one("for=192.0.2.1;proto=httpss").secure);
        assert_eq!(one(r#"host="api.example.com:8443""#).host.as_deref(), Some("api.example.com:8443"));
        assert_eq!(one("proto=https").node, Node::Hidden, "no word about the client");
        assert_eq!(one(r#";;for=192.0.2.1;;secret="a,b;c\"d";"#).node, address("192.0.2.1"));
        assert_eq!(nodes(", ,for=192.0.2.1,,").unwrap(), [address("192.0.2.1")], "empty elements");
        assert_eq!(nodes(""), Ok(vec![]));
    }

    #[test]
    fn invalid_elements_keep_their_place() {
        let many: String = (0..=MAX_PARAMETERS).map(|index| format!("p{index}=x;")).collect();
        for (name, element) in [
            ("duplicate", "for=192.0.2.1;for=192.0.2.2"),
            ("duplicate in another case", "for=192.0.2.1;FOR=192.0.2.1"),
            ("duplicate of a foreign name", "for=192.0.2.1;x=1;X=2"),
            ("bare name", "for=client"),
            ("IPv6 without brackets", r#"for="2001:db8::17""#),
            ("empty value", r#"for="""#),
            ("beyond ASCII", "for=\"\u{e4}\""),
            ("too many parameters", &many),
        ] {
            let line = format!("{element}, for=198.51.100.17;proto=https");
            let read = read(&line).unwrap();
            assert_eq!(read[0].node, Node::Invalid, "{name}");
            assert_eq!((read[1].node, read[1].secure), (address("198.51.100.17"), true), "{name}");
        }
        assert!(!read("proto=https;proto=https").unwrap()[0].secure);
    }

    #[test]
    fn a_broken_line_says_nothing_from_there_on() {
        for (name, line) in [
            ("IPv6 without quotes", "for=[2001:db8::17]"),
            ("port without quotes", "for=192.0.2.43:80"),
            ("open quote", r#"for=192.0.2.1;x=", for=198.51.100.17"#),
            ("open quote that meets the proxy's", r#"for=192.0.2.1;x=", for="[2001:db8::1]""#),
            ("text after the quote", r#"for="_a"b"#),
            ("escape at the end", r#"for="_a\"#),
            ("control character", "for=\"_a\u{7f}\""),
            ("no equals sign", "for"),
            ("no value", "for="),
            ("space around the equals sign", "for =_a"),
            ("two words", "for=_a for=_b"),
            ("slash", "for=a/b"),
        ] {
            let all: Vec<_> = elements(line.as_bytes()).collect();
            assert_eq!(all.last(), Some(&Err(Malformed)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(elements(&line).count() <= line.len());
        }

        #[test]
        fn nothing_that_is_almost_right_panics(line in r#"[a-f=;,"\\ :\[\]_0-9]{0,60}"#) {
            let all: Vec<_> = elements(line.as_bytes()).collect();
            let broken = all.iter().position(Result::is_err);
            prop_assert!(broken.is_none_or(|at| at + 1 == all.len()));
        }
    }
}
