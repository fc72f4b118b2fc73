//! Sends every case over real connections and compares.

use std::path::Path;

use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::{
    BoxError,
    cases::{Case, Origins},
};

/// Sends the cases; true if every answer was the expected one.
pub(crate) async fn run(cases: &[Case], origins: Origins, certificate_pem: &str) -> Result<bool, BoxError> {
    // Whoever installed a provider before us is as good.
    let _ = aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(certificate_pem.as_bytes())?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;

    println!("{:<36} {:>8} {:>5}", "case", "expected", "got");
    let mut passed = true;
    for case in cases {
        let got = send(&client, case, origins).await?;
        let verdict = if got == case.expected { "" } else { "  <- differs" };
        println!("{:<36} {:>8} {:>5}{verdict}", case.name, case.expected, got);
        passed &= got == case.expected;
    }
    Ok(passed)
}

/// The status of the last of a case's requests.
async fn send(client: &reqwest::Client, case: &Case, origins: Origins) -> Result<u16, BoxError> {
    let mut status = 0;
    for _ in 0..case.times {
        let mut request = client.request(case.method.parse()?, case.url(origins));
        if let Some((name, value)) = &case.header {
            request = request.header(*name, value);
        }
        status = request.send().await?.status().as_u16();
    }
    Ok(status)
}

/// Compares the audit file with what was sent: one record a request, or one more of those that are counted together.
pub(crate) fn conclude(passed: bool, cases: &[Case], audit_file: &Path) -> Result<(), BoxError> {
    let sent: u32 = cases.iter().map(|case| case.times).sum();
    let mut written: usize = 0;
    for line in std::fs::read_to_string(audit_file)?.lines() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        written += match entry.get("entry").and_then(serde_json::Value::as_str) {
            Some("decided") => 1,
            Some("repeated") => usize::try_from(entry.get("count").and_then(serde_json::Value::as_u64).unwrap_or(0))?,
            _ => 0,
        };
    }
    println!("{:<36} {sent:>8} {written:>5}", "audit records");
    println!("\naudit records: {}", audit_file.display());
    if passed && usize::try_from(sent)? == written { Ok(()) } else { Err("the self-test found a difference".into()) }
}
