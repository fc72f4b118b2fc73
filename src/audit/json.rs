//! Writes what the schema serializes as `serde_json` does, byte for byte, in less time: it is most of what an entry costs.
//!
//! A text in which nothing must be escaped, as in nearly all, is copied as a whole; names of members are not even looked at.

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeSeq},
};

use crate::audit::words::{self, below, is};

/// Adds the value to `out`.
///
/// # Errors
/// If it holds something that is in no entry: the schema has texts, whole numbers, truth values, lists and objects.
pub(crate) fn write(out: &mut Vec<u8>, value: &impl Serialize) -> fmt::Result {
    value.serialize(Json { out, is_name: false })
}

struct Json<'o> {
    out: &'o mut Vec<u8>,
    /// Whether it is the name of a member: a word of ours, or the name of a header field, in which nothing must be escaped.
    is_name: bool,
}

/// The items of a list or the members of an object.
struct Parts<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
    end: u8,
}

impl<'o> Parts<'o> {
    fn begin(out: &'o mut Vec<u8>, begin: u8, end: u8) -> Self {
        out.push(begin);
        Self { out, is_first: true, end }
    }

    #[inline]
    fn put(&mut self, value: &(impl Serialize + ?Sized), is_name: bool) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        value.serialize(Json { out: self.out, is_name })
    }

    fn end(self) {
        self.out.push(self.end);
    }
}

impl SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.put(value, false)
    }

    fn end(self) -> fmt::Result {
        Self::end(self);
        Ok(())
    }
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> fmt::Result {
        self.put(key, true)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        value.serialize(Json { out: self.out, is_name: false })
    }

    fn end(self) -> fmt::Result {
        Self::end(self);
        Ok(())
    }
}

macro_rules! numbers {
    ($($name:ident($number:ty)),*) => {$(
        fn $name(self, value: $number) -> fmt::Result {
            serde_json::to_writer(self.out, &value).map_err(|_| fmt::Error)
        }
    )*};
}

macro_rules! in_no_entry {
    ($($name:ident($($argument:ty),*) -> $ok:ty;)*) => {$(
        fn $name(self, $(_: $argument),*) -> Result<$ok, fmt::Error> {
            Err(fmt::Error)
        }
    )*};
}

impl<'o> Serializer for Json<'o> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Parts<'o>;
    type SerializeMap = Parts<'o>;
    type SerializeTuple = Impossible<(), fmt::Error>;
    type SerializeTupleStruct = Impossible<(), fmt::Error>;
    type SerializeTupleVariant = Impossible<(), fmt::Error>;
    type SerializeStruct = Impossible<(), fmt::Error>;
    type SerializeStructVariant = Impossible<(), fmt::Error>;

    #[inline]
    fn serialize_str(self, text: &str) -> fmt::Result {
        if !self.is_name {
            return write_text(self.out, text);
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\":");
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> fmt::Result {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    numbers!(serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64));

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'o>, fmt::Error> {
        Ok(Parts::begin(self.out, b'[', b']'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'o>, fmt::Error> {
        Ok(Parts::begin(self.out, b'{', b'}'))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> fmt::Result {
        Err(fmt::Error)
    }

    in_no_entry! {
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

/// Writes a text with quotation marks. In most nothing must be escaped (RFC 8259 §7).
fn write_text(out: &mut Vec<u8>, text: &str) -> fmt::Result {
    if words::any(text, |word| below(word, b' ') | is(word, b'"') | is(word, b'\\')) {
        return serde_json::to_writer(out, text).map_err(|_| fmt::Error);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderValue, header};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        audit::{AuditEntry, AuditIdentity, AuditRecord, facts::Facts, record::sample_facts},
        client::{ClientInfo, Connection},
        policy::{Basis, Decision, Verdict},
        principal::{Principal, PrincipalKind},
        rejection::RejectionKind,
        trail::{DecisionFact, LimitFact, LimitState},
    };

    fn written(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_written_as_serde_json_does() {
        let mut facts = sample_facts("/orders/%22");
        let all: &mut Facts = &mut facts;
        all.sent_request_id = "a \"claim\"".into();
        all.headers.push((header::USER_AGENT, HeaderValue::from_bytes(b"\"curl\" \\ \xff").unwrap()));
        all.route = Some("/orders/{id}".into());
        all.client = Some(ClientInfo::from_connection(Connection::plain("[2001:db8::1]:52100".parse().unwrap())));
        let alice =
            Principal::builder(PrincipalKind::User, "https://id.example.com", "Zo\u{eb}", "test").tenant("a\\b");
        all.subject = Some(AuditIdentity::new(alice.build(), None));
        (all.rejection, all.grpc_status) = (Some((RejectionKind::Forbidden, "no \"reason\"".into())), Some(7));
        let basis = Basis::new().rule("one").rule("\"two\"").version("7").reason("it is Sunday");
        all.trail.decided(DecisionFact::new(
            "first",
            Some("read".into()),
            Verdict::from_basis(Decision::Deny, basis.into()),
        ));
        all.trail.limited(LimitFact {
            scope: "client".into(),
            state: LimitState::Refused,
            degraded: true,
            remaining: Some(0),
            retry_after_nanos: Some(u64::MAX),
        });
        all.trail.note("found", "a\nline");
        let entry = AuditEntry::from(AuditRecord::new(facts.shareable()));
        let mut line = Vec::new();
        entry.write_json(&mut line);
        assert_eq!(String::from_utf8(line).unwrap(), serde_json::to_string(&entry).unwrap());
    }

    proptest! {
        #[test]
        fn every_text_is_written_as_serde_json_does(text in r#"([ -~]|[\x00-\x1f"\\]|.){0,40}"#) {
            prop_assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn every_value_is_written_as_serde_json_does(
            lists in prop::collection::btree_map("[a-z_]{1,9}", prop::collection::vec(any::<Option<u64>>(), 0..3), 0..4),
        ) {
            let value: BTreeMap<_, _> = lists
                .iter()
                .map(|(name, list)| (name, list.iter().flatten().collect::<Vec<_>>()))
                .collect();
            prop_assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
        }
    }
}
