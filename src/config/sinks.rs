//! Where audit records go.

use std::path::Path;

use crate::{
    audit::{AuditLayer, MAX_WAITING},
    config::{
        document::{Audit, SinkText},
        needed, needed_word,
        problem::Report,
        tree::At,
    },
};

pub(super) fn check(written: &At<Audit>, report: &mut Report<'_>) {
    let audit = &written.value;
    match needed_word(audit.sink, written.at, "audit.sink", report) {
        None => {
            if let Some(path) = &audit.path {
                place_of(path, "audit.path", report);
            }
            check_capacity(audit, report);
        }
        Some(SinkText::Tracing) => {
            if let Some(path) = &audit.path {
                let advice = "is of the sink json-lines: remove it, or set sink = \"json-lines\"";
                report.add(path.at, "audit.path", format!("{:?}", path.value), advice);
            }
            if let Some(capacity) = &audit.capacity {
                let advice = "is of the sink json-lines: remove it, or set sink = \"json-lines\"";
                report.add(capacity.at, "audit.capacity", capacity.value.to_string(), advice);
            }
            if let Some(when_full) = &audit.when_full {
                let advice = "is of the sink json-lines: remove it, or set sink = \"json-lines\"";
                report.add(when_full.at, "audit.when_full", format!("{:?}", when_full.value).to_lowercase(), advice);
            }
            #[cfg(not(feature = "audit-tracing"))]
            super::feature_is_off(written.at, "audit", "audit-tracing", report);
        }
        Some(SinkText::JsonLines) => {
            #[cfg(not(feature = "audit-json-lines"))]
            super::feature_is_off(written.at, "audit", "audit-json-lines", report);
            if let Some(path) = needed(audit.path.as_ref(), written.at, "audit.path", "the sink json-lines", report) {
                place_of(path, "audit.path", report);
            }
            check_capacity(audit, report);
        }
    }
}

fn check_capacity(audit: &Audit, report: &mut Report<'_>) {
    let Some(capacity) = audit.capacity.as_ref().filter(|capacity| !(1..=MAX_WAITING).contains(&capacity.value)) else {
        return;
    };
    let advice = format!("must be 1 to {MAX_WAITING}: records wait in memory for the writer");
    report.add(capacity.at, "audit.capacity", capacity.value.to_string(), advice);
}

/// Notes if a file could not be made there. Nothing is made.
pub(super) fn place_of(path: &At<String>, field: &str, report: &mut Report<'_>) {
    let file = Path::new(&path.value);
    let folder = crate::file::folder(file);
    let value = format!("{:?}", path.value);
    if file.is_dir() || path.value.is_empty() {
        report.add(path.at, field, value, "must be a file, and is none");
    } else if !folder.is_dir() {
        report.add(
            path.at,
            field,
            value,
            format!("is in a directory that is not there: make {:?}", folder.display().to_string()),
        );
    }
}

#[cfg_attr(not(feature = "audit-json-lines"), expect(unused_variables, reason = "files alone can fail to open"))]
pub(super) fn open(written: &At<Audit>, report: &mut Report<'_>) -> Option<AuditLayer> {
    let audit = &written.value;
    match audit.sink? {
        #[cfg(feature = "audit-tracing")]
        SinkText::Tracing => Some(AuditLayer::new(crate::audit::TracingSink::new())),
        #[cfg(feature = "audit-json-lines")]
        SinkText::JsonLines => {
            use std::num::NonZeroUsize;

            use crate::{
                audit::{JsonLines, WhenFull},
                config::document::FullText,
            };

            let path = audit.path.as_ref()?;
            let when_full = audit.when_full.as_ref().map(|when_full| when_full.value);
            let mut sink = JsonLines::builder().when_full(match when_full {
                None | Some(FullText::Wait) => WhenFull::DEFAULT,
                Some(FullText::Discard) => WhenFull::Discard,
            });
            if let Some(capacity) = audit.capacity.as_ref().and_then(|capacity| NonZeroUsize::new(capacity.value)) {
                sink = sink.capacity(capacity);
            }
            report.take(path.at, "audit.path", sink.open(&path.value)).map(AuditLayer::new)
        }
        #[cfg(not(all(feature = "audit-tracing", feature = "audit-json-lines")))]
        _ => None,
    }
}
