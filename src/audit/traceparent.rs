//! The `traceparent` header field (W3C Trace Context §3.2).

/// The ids in a field that is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent<'a> {
    trace_id: &'a str,
    parent_id: &'a str,
}

impl<'a> TraceParent<'a> {
    /// `00-<32 hex digits>-<16>-<2>`, in lower case, ids not zero. What a later version adds after that is not looked at.
    pub(crate) fn parse(field: &'a str) -> Option<Self> {
        let mut parts = field.splitn(4, '-');
        let (version, trace_id, parent_id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let flags = rest.get(..2)?;
        let ends = match rest.get(2..)? {
            "" => true,
            more => version != "00" && more.starts_with('-'),
        };
        let valid = ends
            && is_hex(version, 2)
            && version != "ff"
            && is_hex(trace_id, 32)
            && is_hex(parent_id, 16)
            && is_hex(flags, 2)
            && !is_zero(trace_id)
            && !is_zero(parent_id);
        valid.then_some(Self { trace_id, parent_id })
    }

    pub(crate) const fn trace_id(self) -> &'a str {
        self.trace_id
    }

    pub(crate) const fn parent_id(self) -> &'a str {
        self.parent_id
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_well_formed_counts() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for good in [
            format!("00-{trace}-{span}-01"),
            format!("00-{trace}-{span}-00"),
            format!("01-{trace}-{span}-01"),
            format!("cc-{trace}-{span}-01-what-the-future-will-be-like"),
        ] {
            let parsed = TraceParent::parse(&good).unwrap();
            assert_eq!((parsed.trace_id(), parsed.parent_id()), (trace, span), "{good}");
        }
        for bad in [
            String::new(),
            "00".into(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-01."),
            format!("cc-{trace}-{span}-01.more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}0-{span}-01"),
            format!("00-{trace}-{span}-0é"),
            format!("00-{trace}-{span}-é"),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }
}
