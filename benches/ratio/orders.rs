//! What stands around the router of the benches: a sink and a policy.

#![allow(unreachable_pub, reason = "a part of several benches")]

use std::hint::black_box;

use portcullis::{
    StoreError,
    audit::{AuditEntry, AuditSink, Lost},
    policy::{Permission, Rbac},
};

/// Records are made and dropped: what a writer does with them is another bench's matter.
#[derive(Debug)]
pub struct Discard;

#[async_trait::async_trait]
impl AuditSink for Discard {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        black_box(entry);
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Clerks may list orders.
pub fn policy() -> (Rbac, Permission) {
    let policy = Rbac::from_toml(
        r#"
version = "1"
permissions = ["orders:list"]
[roles.clerk]
grants = ["orders:list"]
"#,
    );
    let policy = policy.expect("a policy");
    let list = policy.permission("orders:list").expect("a permission");
    (policy, list)
}
