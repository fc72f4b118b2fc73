use proptest::{prelude::*, sample::Index};

use super::{
    oracle::{self, Tree},
    *,
};

struct Everything;

impl<'de> Members<'de> for Everything {
    fn member(&mut self, _: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        value.skip()
    }
}

/// The members of one level, with the text in them.
struct Shapes<'de>(Vec<(String, Shape<'de>)>);

impl<'de> Members<'de> for Shapes<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        self.0.push((name.to_owned(), value.reader.keep(1)?));
        Ok(())
    }
}

struct Dates(Vec<(String, Option<Duration>)>);

impl<'de> Members<'de> for Dates {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        self.0.push((name.to_owned(), Some(value.date(Refusal("not a date"))?)));
        Ok(())
    }
}

fn check(text: &str) -> Result<(), Refusal> {
    read(text, &mut Everything, Refusal("malformed"))
}

fn nested(levels: usize) -> String {
    format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[test]
fn one_strict_object() {
    let deep = nested(usize::from(MAX_DEPTH));
    let good = [
        ("empty", "{}"),
        ("white space inside", "{ \"a\" :\r\n 1 }"),
        ("the same name in two objects", r#"{"a":{"b":1},"c":{"b":1},"b":[{"a":1},{"a":1}]}"#),
        ("all types", r#"{"a":null,"b":true,"c":-1.5e3,"d":"\u00e9\n","e":[],"f":{}}"#),
        ("a number out of u64", r#"{"a":99999999999999999999999999}"#),
        ("as deep as can be", &deep),
    ];
    for (name, text) in good {
        assert_eq!(check(text), Ok(()), "{name}");
    }

    let too_deep = nested(usize::from(MAX_DEPTH) + 1);
    let bomb = nested(8_000);
    let object_bomb = format!("{}}}", r#"{"a":"#.repeat(2_000));
    let bad = [
        ("nothing", "", "malformed"),
        ("an array", "[]", "malformed"),
        ("a string", r#""{}""#, "malformed"),
        ("a byte order mark", "\u{feff}{}", "malformed"),
        ("white space before", " {}", "malformed"),
        ("white space after", "{}\n", "malformed"),
        ("two objects", "{}{}", "malformed"),
        ("a comma too many", r#"{"a":1,}"#, "malformed"),
        ("a comment", "{/**/}", "malformed"),
        ("not a number", r#"{"a":NaN}"#, "malformed"),
        ("an infinite number", r#"{"a":1e999}"#, "malformed"),
        ("a leading zero", r#"{"a":01}"#, "malformed"),
        ("a lone surrogate", r#"{"a":"\ud800"}"#, "malformed"),
        ("a lone surrogate in a name", r#"{"\udfff":1}"#, "malformed"),
        ("a control character", "{\"a\":\"\n\"}", "malformed"),
        ("cut off", r#"{"a":{}"#, "malformed"),
        ("NUL in a name", r#"{"a\u0000":1}"#, "NUL in a member name"),
        ("NUL in a name further in", r#"{"a":{"\u0000":1}}"#, "NUL in a member name"),
        ("twice", r#"{"a":1,"b":2,"a":1}"#, "a JSON member stands twice"),
        ("twice, once with an escape", r#"{"a":1,"\u0061":1}"#, "a JSON member stands twice"),
        ("twice further in", r#"{"a":[{"b":{"c":1,"c":1}}]}"#, "a JSON member stands twice"),
        ("too deep", &too_deep, "JSON is nested too deep"),
        ("a depth bomb", &bomb, "JSON is nested too deep"),
        ("a depth bomb of objects", &object_bomb, "JSON is nested too deep"),
    ];
    for (name, text, refusal) in bad {
        assert_eq!(check(text), Err(Refusal(refusal)), "{name}");
    }
}

#[test]
fn texts_and_arrays_of_texts() {
    let read = |value: &str| {
        let text = format!(r#"{{"a":{value}}}"#);
        let mut shapes = Shapes(Vec::new());
        read(&text, &mut shapes, Refusal("malformed")).unwrap();
        let (_, shape) = shapes.0.pop().unwrap();
        format!("{shape:?}")
    };
    let rows = [
        (r#""a""#, r#"Text("a")"#),
        (r#""""#, r#"Text("")"#),
        (r#""\u00e9\ud83d\ude00\/\"\\\b\f\n\r\t""#, r#"Text("é😀/\"\\\u{8}\u{c}\n\r\t")"#),
        (r#"["a","\u0062"]"#, r#"Texts(["a", "b"])"#),
        ("[]", "Texts([])"),
        ("[ ]", "Texts([])"),
        ("1", "Other"),
        ("null", "Other"),
        ("[1]", "Other"),
        (r#"["a",["b"]]"#, "Other"),
        ("{}", "Other"),
    ];
    for (value, shape) in rows {
        assert_eq!(read(value), shape, "{value}");
    }
}

/// Escapes and numbers that a reader may take for good, or not.
#[test]
fn what_serde_json_takes_is_taken() {
    let strings = [
        "\\u0000",
        "\\u12",
        "\\u12g4",
        "\\U0041",
        "\\x41",
        "\\'",
        "\\",
        "\\u",
        "\\ud83d",
        "\\ud83dx",
        "\\ud83d\\n",
        "\\ud83d\\u0041",
        "\\ud83d\\ud83d",
        "\\ude00",
        "\\ude00\\ud83d",
        "\\uD83D\\uDE00",
        "\\ud83d\\udbff",
        "\\ud800\\udc00",
        "\\udbff\\udfff",
        "\\uffff",
        "\u{7f}",
        "\u{80}",
        "\u{2028}",
        "\t",
        "é",
    ];
    let numbers = [
        "1234567890",
        "0123456789",
        "12345678901",
        "1234567890.5",
        "1234567890e-1",
        "1234567890E",
        "123456789a",
        "0",
        "-0",
        "00",
        "-00",
        "01",
        "-",
        "--1",
        "+1",
        "1.",
        ".1",
        "1.0",
        "0.0",
        "1e",
        "1e+",
        "1e-",
        "1e5",
        "1E+5",
        "1e05",
        "0e0",
        "-0.0e-0",
        "1e308",
        "1e309",
        "-1e309",
        "1e-999",
        "0e999",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "12345678901234567890123",
        "0x1",
        "1_0",
        "Infinity",
        "NaN",
        "1a",
        "1 1",
        "truefalse",
        "nul",
        "True",
    ];
    let large = ["9".repeat(309), "9".repeat(308), format!("1{}", "0".repeat(400)), format!("0.{}", "0".repeat(400))];
    let strings = strings.iter().map(|text| format!("\"a{text}b\""));
    let values = strings.chain(numbers.iter().map(|text| (*text).to_owned())).chain(large);
    for value in values {
        for text in [format!(r#"{{"a":{value}}}"#), format!(r#"{{"a":[[{value}]],"b":1}}"#)] {
            agree(&text);
        }
        let text = format!(r#"{{"a":{value}}}"#);
        let mut dates = Dates(Vec::new());
        let ours = read(&text, &mut dates, Refusal("malformed")).ok().and_then(|()| dates.0.pop()?.1);
        let theirs = oracle::read(&text).and_then(|_| oracle::date(&value));
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => assert!((ours.as_secs_f64() - theirs).abs() < 1e-6, "{value}"),
            (None, None) => {}
            (ours, theirs) => panic!("{value}: {ours:?}, {theirs:?}"),
        }
    }
}

/// Both take the text, and read the same from it; or neither does.
fn agree(text: &str) {
    let theirs = oracle::read(text);
    assert_eq!(check(text).is_ok(), theirs.is_some(), "{text}");
    let mut shapes = Shapes(Vec::new());
    let ours = read(text, &mut shapes, Refusal("malformed")).ok().map(|()| shapes.0);
    let same = |shape: &Shape<'_>, tree: &Tree| match (shape, tree) {
        (Shape::Text(ours), Tree::Text(theirs)) => ours == theirs,
        (Shape::Texts(ours), Tree::List(theirs)) => {
            let texts = theirs.iter().map(|tree| if let Tree::Text(text) = tree { Some(text.as_str()) } else { None });
            texts.eq(ours.iter().map(|text| Some(&**text)))
        }
        (Shape::Other, Tree::List(theirs)) => theirs.iter().any(|tree| !matches!(tree, Tree::Text(_))),
        (Shape::Other, Tree::Object(_) | Tree::Other) => true,
        (Shape::Text(_) | Shape::Texts(_) | Shape::Other, _) => false,
    };
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{text}");
            for ((own_name, shape), (name, tree)) in ours.iter().zip(&theirs) {
                assert!(own_name == name && same(shape, tree), "{name}: {shape:?}, {tree:?} in {text}");
            }
        }
        (None, None) => {}
        (ours, theirs) => panic!("{ours:?}, {theirs:?} in {text}"),
    }
}

/// JSON as it may be written, with white space, escapes and names that stand twice.
fn json() -> impl Strategy<Value = String> {
    let string = "\"([a-c é]|\\\\[\"\\\\/bfnrtu]|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude0[0-9]){0,12}\"";
    let leaf = prop_oneof![string, "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,3})?", "true|false|null",];
    let value = leaf.prop_recursive(5, 40, 6, move |inner| {
        let gap = "[ \t\n\r]{0,2}";
        let list = proptest::collection::vec((gap, inner.clone(), gap), 0..6).prop_map(|elements| {
            let elements: Vec<String> =
                elements.into_iter().map(|(before, element, after)| before + &element + &after).collect();
            format!("[{}]", elements.join(","))
        });
        prop_oneof![list, object(inner)]
    });
    object(value)
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let gap = "[ \t\n\r]{0,2}";
    let name = "\"([a-d]|\\\\u006[1-4]){0,3}\"";
    proptest::collection::vec((gap, name, gap, gap, value, gap), 0..6).prop_map(|members| {
        let member = |(before, name, colon, behind, value, after): (String, String, String, String, String, String)| {
            format!("{before}{name}{colon}:{behind}{value}{after}")
        };
        format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_panics(text in "\\{[\\[\\]{}\",:0-9a-eu\\\\. +-]{0,200}\\}") {
        agree(&text);
    }

    #[test]
    fn what_serde_json_reads_is_read(text in json()) {
        agree(&text);
    }

    #[test]
    fn what_is_changed_is_read_alike(text in json(), places in proptest::collection::vec((any::<Index>(), any::<Index>()), 1..4)) {
        let mut changed: Vec<char> = text.chars().collect();
        let other: Vec<char> = "{}[]\":,\\\u{0}\u{1f} 0-+.eEtfnu19dé\u{feff}".chars().collect();
        for (place, with) in places {
            let (place, with) = (place.index(changed.len()), with.index(other.len() + 2));
            match with.checked_sub(2) {
                Some(with) => changed[place] = other[with],
                None if with == 0 && changed.len() > 2 => drop(changed.remove(place)),
                None => changed.insert(place, changed[place]),
            }
        }
        agree(&changed.iter().collect::<String>());
    }
}
