//! The format: strict, versioned, and never valid if its end is missing.

use std::{collections::BTreeMap, fmt::Display, path::Path, sync::Arc};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use toml::Spanned;

use super::content::{Content, Draft};
use crate::{
    api_key::{KeyId, Owner, RecordFields, Revocation},
    error::ConfigError,
    strict::Strict,
};

const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, ConfigError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("json") => Ok(Self::Json),
            _ => Err(ConfigError::new("key file", path.display().to_string(), "ends neither in .toml nor in .json")),
        }
    }
}

/// An owner that is disabled.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disabled {
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    at: u64,
    reason: String,
}

impl Disabled {
    fn check(self) -> Result<(Owner, Revocation), ConfigError> {
        Ok((Owner::checked(self.subject, self.tenant)?, Revocation::new(self.at, &self.reason)?))
    }
}

/// Says that a TOML document is whole: the last table of it. A document that was cut off does not have it, and JSON has its
/// last brace.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {}

#[derive(Serialize)]
struct Written {
    version: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disabled: Vec<Disabled>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<RecordFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    version: u32,
    #[serde(default)]
    disabled: Vec<Spanned<Strict<Disabled>>>,
    #[serde(default)]
    keys: Vec<Spanned<Strict<RecordFields>>>,
    end: Option<Spanned<Strict<End>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    version: u32,
    #[serde(default, borrow)]
    disabled: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    keys: Vec<&'a RawValue>,
}

/// The text of a content.
pub(super) fn write(content: &Content, format: Format) -> Result<String, String> {
    let disabled = content.disabled().iter().map(|(owner, disablement)| Disabled {
        subject: owner.subject().to_owned(),
        tenant: owner.tenant().map(str::to_owned),
        at: disablement.at(),
        reason: disablement.reason().to_owned(),
    });
    let keys = content.records().map(|record| record.fields());
    let end = (format == Format::Toml).then_some(End {});
    let document = Written { version: VERSION, disabled: disabled.collect(), keys: keys.collect(), end };
    match format {
        Format::Toml => toml::to_string(&document).map_err(|error| error.to_string()),
        Format::Json => {
            serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|error| error.to_string())
        }
    }
}

/// The content of a text, or what is wrong with it, by file and line.
pub(super) fn read(text: &str, format: Format, path: &Path) -> Result<Draft, ConfigError> {
    let reader = Reader { text, path };
    match format {
        Format::Toml => reader.toml(),
        Format::Json => reader.json(),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn toml(self) -> Result<Draft, ConfigError> {
        let document: Toml = toml::from_str(self.text).map_err(|error| {
            let offset = error.span().map_or(self.text.len(), |span| span.start);
            let line = self.line_of(offset);
            self.error(line, toml_key(self.text, line), error.message().trim_end())
        })?;
        let end = document.end.as_ref().map(|end| end.span().start);
        let last = document
            .keys
            .iter()
            .map(|key| key.span().start)
            .chain(document.disabled.iter().map(|owner| owner.span().start));
        if end.is_none_or(|end| last.max().is_some_and(|last| last > end)) {
            let problem = "the document is not whole: its last line must be [end]";
            return Err(self.error(self.line_of(self.text.len()), None, problem));
        }
        self.check_version(document.version)?;
        let mut lines = Lines::default();
        for owner in document.disabled {
            self.disable(&mut lines, owner.span().start, owner.into_inner().0)?;
        }
        for key in document.keys {
            self.insert(&mut lines, key.span().start, key.into_inner().0)?;
        }
        Ok(lines.draft)
    }

    fn json(self) -> Result<Draft, ConfigError> {
        let Strict(document): Strict<Json<'_>> =
            serde_json::from_str(self.text).map_err(|error| self.error(error.line(), None, without_place(&error)))?;
        self.check_version(document.version)?;
        let mut lines = Lines::default();
        for raw in document.disabled {
            let (place, owner) = self.json_entry(raw)?;
            self.disable(&mut lines, place, owner)?;
        }
        for raw in document.keys {
            let (place, key) = self.json_entry(raw)?;
            self.insert(&mut lines, place, key)?;
        }
        Ok(lines.draft)
    }

    fn json_entry<'a, T: Deserialize<'a>>(self, raw: &'a RawValue) -> Result<(usize, T), ConfigError> {
        // The entry is a part of the text: where it begins tells its line.
        let place = raw.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        let Strict(entry) = serde_json::from_str(raw.get()).map_err(|error| {
            let line = self.line_of(place).saturating_add(error.line()).saturating_sub(1);
            self.error(line, json_key(raw.get()), without_place(&error))
        })?;
        Ok((place, entry))
    }

    fn check_version(self, version: u32) -> Result<(), ConfigError> {
        if version == VERSION {
            return Ok(());
        }
        let setting = format!("{}: version", self.path.display());
        Err(ConfigError::new(setting, version.to_string(), format!("is not {VERSION}")))
    }

    fn insert(self, lines: &mut Lines, place: usize, fields: RecordFields) -> Result<(), ConfigError> {
        let (id, line) = (fields.id, || self.line_of(place));
        let record = fields.check().map_err(|error| self.error(line(), Some(id), &error).caused_by(error))?;
        if let Some(first) = lines.keys.insert(id, place) {
            let first = self.line_of(first);
            return Err(self.error(line(), Some(id), format!("the key stands in line {first} already")));
        }
        lines.draft.records.insert(id, Arc::new(record));
        Ok(())
    }

    fn disable(self, lines: &mut Lines, place: usize, disabled: Disabled) -> Result<(), ConfigError> {
        let line = || self.line_of(place);
        let (owner, disablement) =
            disabled.check().map_err(|error| self.error(line(), None, &error).caused_by(error))?;
        if let Some(first) = lines.owners.insert(owner.clone(), place) {
            let first = self.line_of(first);
            return Err(self.error(line(), None, format!("the owner {owner:?} stands in line {first} already")));
        }
        lines.draft.disabled.insert(owner, disablement);
        Ok(())
    }

    /// Counted for an error alone: for each entry of a long text it would take minutes.
    fn line_of(self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count().saturating_add(1)
    }

    fn error(self, line: usize, key: Option<KeyId>, problem: impl Display) -> ConfigError {
        let value = key.map_or_else(|| "the text".to_owned(), |id| format!("key {id}"));
        ConfigError::new(format!("{}:{line}", self.path.display()), value, format!("is not accepted: {problem}"))
    }
}

/// What was read, and where it stands in the text.
#[derive(Default)]
struct Lines {
    draft: Draft,
    keys: BTreeMap<KeyId, usize>,
    owners: BTreeMap<Owner, usize>,
}

/// The id that the table around this line has, for the error: the table itself may not be readable.
fn toml_key(text: &str, line: usize) -> Option<KeyId> {
    let is_other = |line: &&str| line.starts_with('[') && !line.starts_with("[keys.");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let (before, after) = lines.split_at_checked(line.min(lines.len()))?;
    let table = before.iter().rev().take_while(|line| !is_other(line));
    let table = table.chain(after.iter().take_while(|line| !is_other(line)));
    let header = before.iter().rev().find(|line| is_other(line));
    header.filter(|header| header.starts_with("[[keys]]"))?;
    table.filter_map(|line| line.strip_prefix("id")?.trim_start().strip_prefix('=')).find_map(|value| {
        let value = value.trim_start().strip_prefix(['"', '\''])?;
        value.split(['"', '\'']).next()?.parse().ok()
    })
}

fn json_key(entry: &str) -> Option<KeyId> {
    #[derive(Deserialize)]
    struct Named {
        id: KeyId,
        #[serde(flatten)]
        _rest: BTreeMap<String, IgnoredAny>,
    }
    serde_json::from_str::<Named>(entry).ok().map(|named| named.id)
}

/// The error without its line, which is that of the entry and not of the file.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "a test cuts its own texts")]
mod tests {
    use super::*;
    use crate::api_key::KeyHash;

    fn key(number: u8) -> RecordFields {
        let mut fields =
            RecordFields::new(KeyId::from_bytes([number; 10]), KeyHash::from_bytes([2; 32]), "billing", 100, None);
        fields.name = "näme".to_owned();
        fields.metadata.insert("team".to_owned(), "blue\n".trim().to_owned());
        fields.revoked = Some(Revocation::new(150, "leaked").unwrap());
        fields
    }

    fn content() -> Content {
        let mut draft = Draft::default();
        for number in [2, 1, 3] {
            draft.insert(key(number).check().unwrap()).unwrap();
        }
        for tenant in [None, Some("acme")] {
            let owner = Owner::checked("billing".to_owned(), tenant.map(str::to_owned)).unwrap();
            draft.disable(owner, Revocation::new(7, "left").unwrap());
        }
        draft.freeze(&Content::default())
    }

    fn parse(text: &str, format: Format) -> Result<Content, ConfigError> {
        read(text, format, Path::new("keys.x")).map(|draft| draft.freeze(&Content::default()))
    }

    fn texts() -> [(Format, String); 2] {
        [Format::Toml, Format::Json].map(|format| (format, write(&content(), format).unwrap()))
    }

    #[test]
    fn what_is_written_is_read() {
        for (format, text) in texts() {
            let read = parse(&text, format).unwrap();
            assert!(read.changes(&content()).is_empty(), "{format:?}");
            assert_eq!((read.len(), read.disabled().len()), (3, 2), "{format:?}");
            assert!(read.find(&key(1).id).unwrap().owner_disabled(), "{format:?}");
            let empty = write(&Content::default(), format).unwrap();
            assert_eq!(parse(&empty, format).unwrap().len(), 0, "{format:?}");
        }
    }

    #[test]
    fn a_text_that_is_cut_off_is_never_valid() {
        for (format, text) in texts() {
            let whole = text.trim_end().len();
            for cut in (0..whole).filter(|cut| text.is_char_boundary(*cut)) {
                assert!(parse(&text[..cut], format).is_err(), "{format:?}, cut at {cut} of {whole}");
            }
            assert!(parse(&text[..whole], format).is_ok());
            let zeros = format!("{}{}", &text[..whole / 2], "\0".repeat(whole / 2));
            assert!(parse(&zeros, format).is_err(), "{format:?}, a block that was not written");
        }
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_key() {
        let [(_, toml), (_, json)] = texts();
        let id = key(2).id.to_string();
        // The second record is broken each time; `near` is what stands in the line that must be named.
        let in_toml = |from: &str, to: &str| {
            let second = toml.find(&format!("id = \"{id}\"")).unwrap();
            let place = second + toml[second..].find(from).unwrap();
            (format!("{}{to}{}", &toml[..place], &toml[place + from.len()..]), toml[..place].matches('\n').count() + 1)
        };
        for (name, (text, line)) in [
            ("an unknown field", in_toml("name = ", "colour = \"red\"\nname = ")),
            ("a hash that is none", in_toml("hash = \"", "hash = \"zz")),
            ("a syntax error", in_toml("subject = ", "subject = = ")),
            ("a wrong type", in_toml("created = 100", "created = \"soon\"")),
            ("an unknown field of a table in it", in_toml("reason = ", "where = \"x\"\nreason = ")),
        ] {
            let error = parse(&text, Format::Toml).unwrap_err().to_string();
            assert!(error.starts_with(&format!("keys.x:{line}: key {id} ")), "{name}: line {line}: {error}");
        }
        let (text, _) = in_toml("subject = \"billing\"", "subject = \"\"");
        let error = parse(&text, Format::Toml).unwrap_err().to_string();
        assert!(error.contains(&format!("key {id} ")) && error.contains("API key subject"), "{error}");

        let second = json.find(&format!("\"id\": \"{id}\"")).unwrap();
        let in_json = |from: &str, to: &str| {
            let place = second + json[second..].find(from).unwrap();
            (format!("{}{to}{}", &json[..place], &json[place + from.len()..]), json[..place].matches('\n').count() + 1)
        };
        for (name, (text, line)) in [
            ("an unknown field", in_json("\"name\"", "\"colour\"")),
            ("a hash that is none", in_json("\"hash\": \"", "\"hash\": \"zz")),
            ("a wrong type", in_json("\"created\": 100", "\"created\": true")),
        ] {
            let error = parse(&text, Format::Json).unwrap_err().to_string();
            assert!(error.starts_with(&format!("keys.x:{line}: key {id} ")), "{name}: line {line}: {error}");
            assert!(!error.contains(" column "), "{name}: {error}");
        }
        let (text, line) = in_json("\"subject\":", "\"subject\"");
        let error = parse(&text, Format::Json).unwrap_err().to_string();
        assert!(error.starts_with(&format!("keys.x:{line}: ")), "{error}");
    }

    #[test]
    fn two_of_one_id_are_refused() {
        for (format, text) in texts() {
            let (one, two) = (key(1).id.to_string(), key(2).id.to_string());
            let error = parse(&text.replace(&two, &one), format).unwrap_err().to_string();
            assert!(error.contains(&one) && error.contains("already"), "{format:?}: {error}");
            let twice = text.replace("tenant = \"acme\"\n", "").replace("\"tenant\": \"acme\",", "");
            let error = parse(&twice, format).unwrap_err().to_string();
            assert!(error.contains("\"billing\"") && error.contains("already"), "{format:?}: {error}");
        }
    }

    #[test]
    fn a_list_is_no_table() {
        for text in
            ["version = 1\ndisabled = [[\"a\", \"acme\", 7, \"left\"]]\n[end]", "version = 1\ndisabled = []\nend = []"]
        {
            assert!(parse(text, Format::Toml).is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_as_strict_as_toml() {
        const KEY: &str = r#"{"id": "000g40r40m30e209", "scheme": "sha256", "subject": "a", "created": 1, "expires": "never",
            "hash": "0202020202020202020202020202020202020202020202020202020202020202"}"#;
        let with = |more: &str| KEY.replacen('{', &format!("{{{more}, "), 1);
        let of = |key: &str| format!(r#"{{"version": 1, "keys": [{key}]}}"#);
        for good in [
            KEY.to_owned(),
            with(r#""revoked": {"at": 7, "reason": ""}, "last_used": {"at": 7}, "metadata": {"a": "b", "c": "b"}"#),
            with(r#""revoked": null"#),
            KEY.replace("\"never\"", "\"n\\u0065ver\""),
        ] {
            parse(&of(&good), Format::Json).unwrap();
        }
        for (name, text) in [
            ("a list for the document", r"[1, [], []]".to_owned()),
            ("a list for an owner", r#"{"version": 1, "disabled": [["a", null, 7, "left"]]}"#.to_owned()),
            ("a list for a key", of(&format!("[{}]", &KEY[1..KEY.len() - 1]))),
            ("a list for a revocation", of(&with(r#""revoked": [7, ""]"#))),
            ("a list for a last use", of(&with(r#""last_used": [7]"#))),
            ("an object for an end", of(&KEY.replace("\"never\"", "{\"never\": null}"))),
            ("metadata twice", of(&with(r#""metadata": {"a": "b", "a": "c"}"#))),
        ] {
            assert!(parse(&text, Format::Json).is_err(), "{name}");
        }
    }

    #[test]
    fn documents_that_are_not_ours() {
        for (name, format, text) in [
            ("nothing", Format::Toml, ""),
            ("nothing", Format::Json, ""),
            ("no version", Format::Toml, "[end]\n"),
            ("no version", Format::Json, "{}"),
            ("another version", Format::Toml, "version = 2\n[end]\n"),
            ("another version", Format::Json, "{\"version\": 2}"),
            ("an unknown field", Format::Toml, "version = 1\nkey = 1\n[end]\n"),
            ("an unknown field", Format::Json, "{\"version\": 1, \"key\": 1}"),
            ("a field twice", Format::Json, "{\"version\": 1, \"version\": 1}"),
            ("text after the end", Format::Json, "{\"version\": 1}{}"),
            (
                "an end that is not the last",
                Format::Toml,
                "version = 1\n[end]\n[[disabled]]\nsubject = \"x\"\nat = 1\nreason = \"\"\n",
            ),
            ("something in the end", Format::Toml, "version = 1\n[end]\nx = 1\n"),
        ] {
            assert!(parse(text, format).is_err(), "{name}, {format:?}");
        }
        assert!(parse("version = 1\n[end]", Format::Toml).is_ok());
        assert!(parse("{\"version\": 1}", Format::Json).is_ok());
    }
}
