use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::{
    audit::{
        AuditDecision, AuditIdentity, AuditRecord, Personal, Privacy, json,
        parts::{decisions, notes},
        schema::{Bounds, Shown},
        text::{Time, told},
    },
    body::BodyEnd,
    clock::{Clock, SystemClock},
    context::RequestId,
    event::{Event, EventKind},
    mention::Telling,
    trail::Trail,
};

/// The longest line that [`AuditEntry::write_json`] writes, in bytes, without its end.
pub const MAX_ENTRY_LEN: usize = 4096;

/// What a sink is given. A clone costs one reference count.
///
/// It serializes to one JSON object whose member `entry` tells the kinds apart; the manual's page on audit has the schema.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuditEntry {
    /// What became of a request (`decided`): one for each, when its answer is known.
    Decided(AuditRecord),
    /// How the body of an answer ended (`completed`), where that was [asked for](crate::audit::AuditLayer::with_completions).
    Completed(AuditCompletion),
    /// What a handler decided or noted after the record of its request was written (`later`).
    Later(AuditLater),
    /// Refusals before authentication of the same source and kind (`repeated`): how many came after the first, in a second.
    Repeated(AuditRepeats),
    /// Something that happened to the service (`event`).
    Event(AuditEvent),
    /// Entries are missing here (`gap`).
    Gap(AuditGap),
}

impl AuditEntry {
    /// The record of a request, if it is one.
    #[must_use]
    pub const fn decided(&self) -> Option<&AuditRecord> {
        match self {
            Self::Decided(record) => Some(record),
            Self::Completed(_) | Self::Later(_) | Self::Repeated(_) | Self::Event(_) | Self::Gap(_) => None,
        }
    }

    /// The word of the member `entry`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Decided(_) => "decided",
            Self::Completed(_) => "completed",
            Self::Later(_) => "later",
            Self::Repeated(_) => "repeated",
            Self::Event(_) => "event",
            Self::Gap(_) => "gap",
        }
    }

    /// Adds it to `out` as one line of JSON, without the line feed, of at most [`MAX_ENTRY_LEN`] bytes. One that would be longer
    /// is told with shorter texts and shorter lists, and has `"truncated":true`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        for bounds in Bounds::ALL {
            out.truncate(begin);
            if json::write(out, &Shown { entry: self, bounds }).is_ok()
                && out.len().saturating_sub(begin) <= MAX_ENTRY_LEN
            {
                return;
            }
        }
    }

    /// How many entries are missing if it is: those that were counted are all in one.
    pub(crate) const fn weight(&self) -> u64 {
        match self {
            Self::Repeated(repeats) => repeats.count(),
            Self::Decided(_) | Self::Completed(_) | Self::Later(_) | Self::Event(_) | Self::Gap(_) => 1,
        }
    }

    /// Whether it tells of a request that nobody was authenticated in: anybody can bring about as many as they like.
    pub(crate) fn is_of_stranger(&self) -> bool {
        match self {
            Self::Decided(record) => record.is_of_stranger(),
            Self::Completed(completion) => completion.0.by_stranger,
            Self::Later(later) => later.0.by_stranger,
            Self::Repeated(_) => true,
            Self::Event(_) | Self::Gap(_) => false,
        }
    }

    /// Whether it tells that a request was refused.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Decided(record) => record.rejection().is_some(),
            Self::Repeated(_) => true,
            Self::Completed(_) | Self::Later(_) | Self::Event(_) | Self::Gap(_) => false,
        }
    }
}

/// How many entries are missing without these.
pub(crate) fn weight<'a>(entries: impl IntoIterator<Item = &'a AuditEntry>) -> u64 {
    entries.into_iter().fold(0, |sum, entry| sum.saturating_add(entry.weight()))
}

impl From<AuditRecord> for AuditEntry {
    fn from(record: AuditRecord) -> Self {
        Self::Decided(record)
    }
}

/// How the body of an answer ended.
#[derive(Clone)]
pub struct AuditCompletion(Arc<Completion>);

pub(crate) struct Completion {
    pub(crate) unix_nanos: u64,
    pub(crate) request_id: RequestId,
    pub(crate) end: BodyEnd,
    pub(crate) duration: Duration,
    pub(crate) bytes: u64,
    pub(crate) grpc_status: Option<u16>,
    /// Whether nobody was authenticated.
    pub(crate) by_stranger: bool,
}

impl AuditCompletion {
    pub(crate) fn new(completion: Completion) -> Self {
        Self(Arc::new(completion))
    }

    /// When the body ended, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.0.unix_nanos
    }

    /// The request's id: that of its record.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.0.request_id
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> BodyEnd {
        self.0.end
    }

    /// The time from the beginning of the request to the end of the body.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.0.duration
    }

    /// How many bytes of the body the server took.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The status of a gRPC call, from the trailers.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        self.0.grpc_status
    }
}

impl fmt::Debug for AuditCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditCompletion")
            .field("request_id", &self.request_id())
            .field("end", &self.end())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// What a handler that outlasts the head of its answer decided or noted after the record of the request was written.
///
/// In a minute of one request, the first decision of each kind has an entry, and so have 32 refusals and 16 notes. What comes more
/// often is counted, and told when that minute is over and something comes, or when the handler lets the request's context go.
/// Decisions are of one kind if backend, action, decision and whether the request depended on them are the same; 16 kinds are
/// told apart in a minute.
#[derive(Clone)]
pub struct AuditLater(Arc<LaterFacts>);

pub(crate) struct LaterFacts {
    pub(crate) unix_nanos: u64,
    pub(crate) request_id: RequestId,
    pub(crate) subject: Option<AuditIdentity>,
    /// Whether nobody was authenticated.
    pub(crate) by_stranger: bool,
    pub(crate) trail: Trail,
    pub(crate) count: Option<u64>,
    pub(crate) privacy: Option<Arc<Privacy>>,
}

impl AuditLater {
    pub(crate) fn new(facts: LaterFacts) -> Self {
        Self(Arc::new(facts))
    }

    /// When it came, or was told if it was only counted, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.0.unix_nanos
    }

    /// The request's id: that of its record.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.0.request_id
    }

    /// Who acted: the subject of the record.
    #[must_use]
    pub fn subject(&self) -> Option<&AuditIdentity> {
        self.0.subject.as_ref()
    }

    /// What was asked, and what the policy said; with what policies in the shadow said.
    #[must_use]
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = AuditDecision<'_>> {
        decisions(&self.0.trail, self.0.privacy.as_deref())
    }

    /// How many decisions like these came without an entry; none if this is the entry of one that came.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.0.count
    }

    /// Whether the policy refused something on which the handler depended.
    #[cfg(feature = "audit-tracing")]
    pub(super) fn is_refusal(&self) -> bool {
        self.decisions().any(|fact| fact.is_refusal())
    }

    /// How many further decisions were neither told nor counted by their kind.
    #[must_use]
    pub fn decisions_lost(&self) -> u32 {
        self.0.trail.rare().decisions_lost
    }

    /// What the handler noted: name and value.
    #[must_use]
    pub fn notes(&self) -> impl ExactSizeIterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        notes(&self.0.trail, self.0.privacy.as_deref())
    }

    /// How many further notes were not kept.
    #[must_use]
    pub fn notes_lost(&self) -> u32 {
        self.0.trail.rare().notes_lost
    }
}

impl fmt::Debug for AuditLater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLater")
            .field("request_id", &self.request_id())
            .field("decisions", &self.decisions().map(|fact| fact.decision()).collect::<Vec<_>>())
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// Refusals that were counted instead of recorded, each like the first, which was.
#[derive(Clone, Debug)]
pub struct AuditRepeats {
    pub(crate) first: AuditRecord,
    pub(crate) count: u64,
    pub(crate) many_sources: bool,
}

impl AuditRepeats {
    /// The record of the first one, which was delivered by itself.
    #[must_use]
    pub const fn first(&self) -> &AuditRecord {
        &self.first
    }

    /// How many came after it.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether they came from several sources: the first one's is one of them. Each IPv4 address and IPv6 /64 is told apart, for each
    /// kind of refusal, until there are 1 024 in a second; what is new then is counted with its IPv4 /24 or IPv6 /48, and after 1 024 of
    /// those, with all others.
    #[must_use]
    pub const fn many_sources(&self) -> bool {
        self.many_sources
    }
}

/// Something that happened to the service.
#[derive(Clone)]
pub struct AuditEvent(Arc<Told>);

struct Told {
    event: Event,
    by: Option<AuditIdentity>,
    privacy: Option<Arc<Privacy>>,
}

impl AuditEvent {
    pub(crate) fn new(event: Event, privacy: Option<&Arc<Privacy>>) -> Self {
        let by = event.principal().cloned().map(|by| AuditIdentity::new(by, privacy.map(Arc::clone)));
        Self(Arc::new(Told { event, by, privacy: privacy.map(Arc::clone) }))
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.0.event.kind()
    }

    /// What it happened to.
    #[must_use]
    pub fn about(&self) -> Cow<'_, str> {
        told(self.0.event.about_told(), self.0.privacy.as_deref(), Privacy::telling)
    }

    /// More about it: names and values.
    #[must_use]
    pub fn details(&self) -> impl ExactSizeIterator<Item = (&'static str, Cow<'_, str>)> {
        let privacy = self.0.privacy.as_deref();
        let hidden = privacy.is_some_and(|privacy| privacy.omits(Personal::Notes));
        let details: &[(&'static str, Telling)] = if hidden { &[] } else { self.0.event.details_told() };
        details.iter().map(move |(name, value)| (*name, told(value, privacy, Privacy::note)))
    }

    /// When a shadow mode that begins will end, in seconds since the Unix epoch: of nobody, so privacy does not hide it.
    #[cfg(feature = "audit-metrics")]
    pub(super) fn shadow_end(&self) -> Option<f64> {
        self.0.event.details().find(|(name, _)| *name == "until").and_then(|(_, end)| end.parse().ok())
    }

    /// When it happened, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.0.event.unix_nanos()
    }

    /// The request that brought it about.
    #[must_use]
    pub fn request_id(&self) -> Option<RequestId> {
        self.0.event.request_id()
    }

    /// Who asked for it.
    #[must_use]
    pub fn by(&self) -> Option<&AuditIdentity> {
        self.0.by.as_ref()
    }
}

impl fmt::Debug for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditEvent").field("kind", &self.kind()).field("about", &self.about()).finish_non_exhaustive()
    }
}

/// Says that entries are missing, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditGap {
    pub(crate) unix_nanos: u64,
    pub(crate) lost: u64,
    pub(crate) torn: u64,
}

impl AuditGap {
    /// When the writer could write again, in nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// How many entries were lost since the last gap: discarded, not written, or never accepted. Refusals that were only
    /// [counted](AuditRepeats::count) are as many as they were.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// The bytes of an entry that is there in part, right before this one.
    #[must_use]
    pub const fn torn(&self) -> u64 {
        self.torn
    }
}

/// A gap that is found now.
pub(crate) fn gap(lost: u64, torn: u64) -> AuditGap {
    AuditGap { unix_nanos: SystemClock.now().unix_nanos(), lost, torn }
}

/// A time, for who writes it.
pub(crate) fn time(unix_nanos: u64) -> Time {
    Time::of(unix_nanos)
}
