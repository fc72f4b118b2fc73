use std::{fmt, sync::OnceLock};

use async_trait::async_trait;
use metrics::{Counter, Histogram, counter, gauge, histogram};

use crate::{
    audit::{AuditDecision, AuditEntry, AuditEvent, AuditOutcome, AuditRecord, AuditSink, Lost, schema::body_end},
    error::StoreError,
    event::EventKind,
    rejection::RejectionKind,
    trail::{GUARD_SHADOW, LimitState},
};

/// Counts what happens, through the crate `metrics`: whatever recorder the application installs gets it.
///
/// | name | kind | labels |
/// |---|---|---|
/// | `portcullis_requests_total` | counter | `outcome`, `layer` (who refused; `none`), `reason` (the kind of refusal; `none`) |
/// | `portcullis_request_duration_seconds` | histogram | `outcome` |
/// | `portcullis_response_body_bytes` | histogram | `end` |
/// | `portcullis_decisions_total` | counter | `backend`, `decision`, `enforced` |
/// | `portcullis_would_refuse_total` | counter | `layer` (`guard`, `limit`), `name` (the requirement, or the limit's scope) |
/// | `portcullis_shadow_until_seconds` | gauge: the end since the Unix epoch while something is in [shadow mode](crate::ShadowMode), then 0 | `about` |
/// | `portcullis_events_total` | counter | `event` |
/// | `portcullis_audit_entries_lost_total` | counter | none |
///
/// All labels have few values, which no client can add to. Put it beside the sink that keeps the records; it needs the recorder
/// to be installed before the stack is built:
///
/// ```
/// use portcullis::audit::{AuditLayer, JsonLines, MetricsSink};
///
/// # fn example() -> Result<(), portcullis::ConfigError> {
/// let audit = AuditLayer::new((MetricsSink::new(), JsonLines::open("audit.jsonl")?));
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
///
/// Gaps are told by the sink that has them, to its own file; watch [`AuditSink::lost`] of that sink for what it lost. Refusals
/// that a sink behind a queue counts together are counted one by one here.
#[derive(Default)]
pub struct MetricsSink {
    /// Of requests that nobody refused, for each outcome: found once.
    passed: [OnceLock<(Counter, Histogram)>; OUTCOMES],
}

const OUTCOMES: usize = 7;

impl MetricsSink {
    /// Creates the sink.
    #[must_use]
    pub const fn new() -> Self {
        Self { passed: [const { OnceLock::new() }; OUTCOMES] }
    }

    fn record(&self, record: &AuditRecord) {
        let outcome = record.outcome().as_str();
        let duration = || histogram!("portcullis_request_duration_seconds", "outcome" => outcome);
        match (record.rejection(), record.refused_by()) {
            (Some(kind), layer) => {
                requests(outcome, layer.unwrap_or("none"), kind.code()).increment(1);
                duration().record(record.latency());
            }
            (None, _) => {
                let Some(known) = self.passed.get(index(record.outcome())) else { return };
                let (count, seconds) = known.get_or_init(|| (requests(outcome, "none", "none"), duration()));
                count.increment(1);
                seconds.record(record.latency());
            }
        }
        for decision in record.decisions() {
            decided(&decision, 1);
            if decision.backend() == GUARD_SHADOW {
                would_refuse("guard", decision.action().unwrap_or_default().into_owned());
            }
        }
        for limit in record.limits().filter(|limit| limit.state() == LimitState::WouldRefuse.as_str()) {
            would_refuse("limit", limit.scope().into_owned());
        }
    }
}

fn decided(decision: &AuditDecision<'_>, times: u64) {
    let enforced = if decision.is_enforced() { "true" } else { "false" };
    counter!(
        "portcullis_decisions_total",
        "backend" => decision.backend(),
        "decision" => decision.decision().as_str(),
        "enforced" => enforced,
    )
    .increment(times);
}

fn would_refuse(layer: &'static str, name: String) {
    counter!("portcullis_would_refuse_total", "layer" => layer, "name" => name).increment(1);
}

/// Shows what is in shadow mode, from its start to its end.
fn shadow(event: &AuditEvent) {
    let until = if event.kind() == EventKind::ShadowStarted {
        event.shadow_end()
    } else {
        (event.kind() == EventKind::ShadowEnded).then_some(0.0)
    };
    if let Some(until) = until {
        gauge!("portcullis_shadow_until_seconds", "about" => event.about().into_owned()).set(until);
    }
}

fn requests(outcome: &'static str, layer: &'static str, reason: &'static str) -> Counter {
    counter!("portcullis_requests_total", "outcome" => outcome, "layer" => layer, "reason" => reason)
}

const fn index(outcome: AuditOutcome) -> usize {
    match outcome {
        AuditOutcome::Allowed => 0,
        AuditOutcome::Denied => 1,
        AuditOutcome::Unauthenticated => 2,
        AuditOutcome::Limited => 3,
        AuditOutcome::Failed => 4,
        AuditOutcome::Aborted => 5,
        AuditOutcome::Panicked => 6,
    }
}

#[async_trait]
impl AuditSink for MetricsSink {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        match entry {
            AuditEntry::Decided(record) => self.record(&record),
            AuditEntry::Completed(completion) => {
                // Exact below 2^53 bytes, which is more than a body has.
                #[expect(clippy::cast_precision_loss, reason = "a histogram takes floating point numbers")]
                let bytes = completion.bytes() as f64;
                histogram!("portcullis_response_body_bytes", "end" => body_end(completion.end())).record(bytes);
            }
            AuditEntry::Later(later) => {
                later.decisions().for_each(|decision| decided(&decision, later.count().unwrap_or(1)));
            }
            AuditEntry::Repeated(repeats) => {
                let first = repeats.first();
                let reason = first.rejection().map_or("none", RejectionKind::code);
                requests(first.outcome().as_str(), first.refused_by().unwrap_or("none"), reason)
                    .increment(repeats.count());
            }
            AuditEntry::Event(event) => {
                shadow(&event);
                counter!("portcullis_events_total", "event" => event.kind().as_str()).increment(1);
            }
            AuditEntry::Gap(gap) => counter!("portcullis_audit_entries_lost_total").increment(gap.lost()),
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl fmt::Debug for MetricsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSink").finish_non_exhaustive()
    }
}
