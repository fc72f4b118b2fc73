//! The conformance suite of audit sinks, run on every sink that keeps what it is given.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

use std::{path::Path, sync::Arc};

use portcullis::{
    audit::{AuditSink, JsonLines},
    conformance::audit_sink,
    testing::Captured,
};
use tempfile::NamedTempFile;

fn captured(sink: &Captured) -> Vec<String> {
    sink.records().iter().map(|record| record.request_id().to_string()).collect()
}

fn written(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let id = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

#[tokio::test]
async fn captured_conforms() {
    let sink = Captured::new();
    audit_sink(&sink, || captured(&sink)).await;
}

#[tokio::test]
async fn json_lines_conforms() {
    let file = NamedTempFile::new().unwrap();
    let sink = JsonLines::open(file.path()).unwrap();
    audit_sink(&sink, || written(file.path())).await;
}

#[tokio::test]
async fn pointers_conform() {
    let sink = Captured::new();
    let shared: Arc<dyn AuditSink> = Arc::new(sink.clone());
    audit_sink(&shared, || captured(&sink)).await;
    let sink = Captured::new();
    let boxed: Box<dyn AuditSink> = Box::new(sink.clone());
    audit_sink(&boxed, || captured(&sink)).await;
}

#[tokio::test]
async fn a_pair_conforms_on_both_sides() {
    for second in [false, true] {
        let (file, first) = (NamedTempFile::new().unwrap(), Captured::new());
        let pair = (first.clone(), JsonLines::open(file.path()).unwrap());
        audit_sink(&pair, || if second { written(file.path()) } else { captured(&first) }).await;
    }
}
