//! An object of JSON within bounds, written as it is read.

use std::borrow::Cow;

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

use crate::audit::{AuditDecision, entry::time, record::SCHEMA_VERSION, text::shorten};

/// How much of an entry is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The longest path and the longest other text, in bytes.
    pub(super) path: usize,
    pub(super) text: usize,
    /// The longest list.
    pub(super) items: usize,
    pub(super) truncated: bool,
}

impl Bounds {
    /// As much as the accessors tell.
    pub(crate) const FULL: Self = Self { path: usize::MAX, text: usize::MAX, items: usize::MAX, truncated: false };
    /// From the most to the least, which always fits into [`MAX_ENTRY_LEN`](crate::audit::MAX_ENTRY_LEN).
    pub(crate) const ALL: [Self; 4] = [
        Self::FULL,
        Self { path: 512, text: 96, items: 4, truncated: true },
        Self { path: 256, text: 32, items: 2, truncated: true },
        Self { path: 128, text: 16, items: 1, truncated: true },
    ];
}

/// An entry within bounds.
pub(crate) struct Shown<'a, T> {
    pub(crate) entry: &'a T,
    pub(crate) bounds: Bounds,
}

impl<'a, T> Shown<'a, T> {
    pub(super) const fn with<U>(&self, entry: &'a U) -> Shown<'a, U> {
        Shown { entry, bounds: self.bounds }
    }

    /// An object within an entry, which says for all that it was cut.
    pub(super) fn inner<S: Serializer>(&self, serializer: S) -> Result<Object<S::SerializeMap>, S::Error> {
        Ok(Object { map: serializer.serialize_map(None)?, bounds: Bounds { truncated: false, ..self.bounds } })
    }
}

/// An object under construction.
pub(super) struct Object<M> {
    pub(super) map: M,
    pub(super) bounds: Bounds,
}

impl<M: SerializeMap> Object<M> {
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), M::Error> {
        self.map.serialize_entry(name, value)
    }

    pub(super) fn put_if<T: Serialize>(&mut self, name: &'static str, value: Option<T>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(name, &value))
    }

    pub(super) fn text(&mut self, name: &'static str, text: Cow<'_, str>) -> Result<(), M::Error> {
        self.put(name, &*shorten(text, self.bounds.text))
    }

    pub(super) fn text_if(&mut self, name: &'static str, text: Option<Cow<'_, str>>) -> Result<(), M::Error> {
        text.map_or(Ok(()), |text| self.text(name, text))
    }

    pub(super) fn count(&mut self, name: &'static str, count: impl Into<u64>) -> Result<(), M::Error> {
        let count = count.into();
        if count == 0 { Ok(()) } else { self.put(name, &count) }
    }

    /// A list, left out if it is empty. It is gone through twice.
    pub(super) fn list<F, I, T>(&mut self, name: &'static str, make: F) -> Result<(), M::Error>
    where
        F: Fn() -> I,
        I: Iterator<Item = T>,
        for<'t> Shown<'t, T>: Serialize,
    {
        if make().next().is_none() { Ok(()) } else { self.put(name, &List { make, bounds: self.bounds }) }
    }

    /// Decisions, and the number of those that are not told: where there is room for a few, first what was refused, what the
    /// request depended on, and one of each kind.
    pub(super) fn decisions<'d, F, I>(&mut self, make: F, lost: u32) -> Result<(), M::Error>
    where
        F: Fn() -> I,
        I: ExactSizeIterator<Item = AuditDecision<'d>>,
    {
        if make().len() <= self.bounds.items {
            self.list("decisions", make)?;
            return self.count("decisions_lost", lost);
        }
        let all: Vec<_> = make().collect();
        let rank = |at: usize, decision: &AuditDecision<'_>| {
            let is_first = !all.iter().take(at).any(|before| before.is_like(decision));
            (!is_first, !decision.is_refusal(), !decision.is_enforced())
        };
        let mut ranked: Vec<_> =
            all.iter().enumerate().map(|(at, decision)| (rank(at, decision), at, decision)).collect();
        ranked.sort_by_key(|(rank, at, _)| (*rank, *at));
        ranked.truncate(self.bounds.items);
        ranked.sort_by_key(|(_, at, _)| *at);
        self.list("decisions", || ranked.iter().map(|(_, _, decision)| **decision))?;
        let untold = u32::try_from(all.len().saturating_sub(ranked.len())).unwrap_or(u32::MAX);
        self.count("decisions_lost", lost.saturating_add(untold))
    }

    pub(super) fn end(mut self) -> Result<M::Ok, M::Error> {
        if self.bounds.truncated {
            self.put("truncated", &true)?;
        }
        self.map.end()
    }
}

struct List<F> {
    make: F,
    bounds: Bounds,
}

impl<F, I, T> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator<Item = T>,
    for<'t> Shown<'t, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for item in (self.make)().take(self.bounds.items) {
            list.serialize_element(&Shown { entry: &item, bounds: self.bounds })?;
        }
        list.end()
    }
}

pub(super) fn begin<S: Serializer>(
    serializer: S,
    entry: &'static str,
    unix_nanos: u64,
    bounds: Bounds,
) -> Result<Object<S::SerializeMap>, S::Error> {
    let mut object = Object { map: serializer.serialize_map(None)?, bounds };
    object.put("schema", &SCHEMA_VERSION)?;
    object.put("entry", entry)?;
    object.put("time", time(unix_nanos).as_str())?;
    Ok(object)
}
