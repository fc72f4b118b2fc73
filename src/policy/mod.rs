//! Policies: one question, one verdict, many backends.
//!
//! A [`PolicyBackend`] is asked whether a principal may do an action on a resource; the [`Verdict`] is allow, deny, or
//! cannot decide. The guard (requirements on routes) and the authorizer (questions from a handler) both ask it.
#![cfg_attr(feature = "rbac", doc = "\n[`Rbac`] is one: roles and permissions from a TOML document.")]

mod attributes;
mod backend;
#[cfg(feature = "policy-cached")]
mod cached;
#[cfg(feature = "cedar")]
mod cedar;
mod combine;
#[cfg(any(feature = "rego", feature = "policy-remote"))]
mod decision;
mod directive;
#[cfg(any(feature = "cedar", feature = "rego"))]
mod documents;
mod explain;
#[cfg(feature = "policy-files")]
mod files;
#[cfg(feature = "policy-files")]
mod live;
mod matrix;
#[cfg(any(feature = "cedar", feature = "rego"))]
mod nesting;
mod parts;
mod query;
#[cfg(feature = "rbac")]
mod rbac;
#[cfg(feature = "rego")]
mod rego;
mod reload;
#[cfg(feature = "policy-remote")]
mod remote;
mod step_up;
#[cfg(feature = "policy-files")]
mod test_table;
#[cfg(feature = "policy-files")]
mod toml_value;
#[cfg(any(feature = "policy-remote", feature = "rego"))]
mod unique;
mod verdict;

pub use attributes::Attributes;
pub use backend::PolicyBackend;
#[cfg(feature = "policy-cached")]
pub use cached::Cached;
#[cfg(feature = "cedar")]
pub use cedar::{Cedar, CedarBuilder, CedarEntity, CedarUid, EntitySource};
pub use combine::Combined;
#[cfg(feature = "policy-shadow")]
pub use combine::{Shadow, ShadowStats};
pub use directive::Directive;
pub use explain::{Explanation, explain};
#[cfg(all(feature = "guard", feature = "policy-files"))]
pub(crate) use files::read_file;
#[cfg(all(feature = "config", feature = "rbac"))]
pub(crate) use live::LONGEST_WATCH;
#[cfg(feature = "policy-files")]
pub use live::Reloaded;
pub use matrix::Matrix;
pub use parts::QueryParts;
pub use query::{AccessQuery, Resource};
#[cfg(feature = "rbac")]
pub use rbac::{Permission, Rbac, Role};
#[cfg(feature = "rego")]
pub use rego::{Rego, RegoBuilder};
pub use reload::ReloadState;
#[cfg(feature = "policy-remote")]
pub use remote::{AuthZen, AuthZenBuilder, DecisionPoint, Opa, OpaBuilder, PointHealth};
pub use step_up::StepUp;
#[cfg(feature = "guard")]
pub(crate) use step_up::scheme_of;
#[cfg(feature = "policy-files")]
pub use test_table::{TableError, test_table, test_table_text};
#[cfg(all(feature = "guard", feature = "policy-files"))]
pub(crate) use toml_value::json as toml_to_json;
pub use verdict::{Basis, Decision, Verdict};
pub(crate) use verdict::{Directives, Shadowed};
