//! One request for each answer that the library gives. The guide prints them, the self-test sends them.

use std::path::Path;

use portcullis::api_key::ApiKey;

use crate::{
    BoxError,
    identity::{Provider, tampered},
};

/// The ports of the service.
#[derive(Clone, Copy)]
pub(crate) struct Origins {
    pub(crate) secure: u16,
    pub(crate) plain: u16,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) header: Option<(&'static str, String)>,
    pub(crate) over_tls: bool,
    /// How often it is sent; the last answer counts.
    pub(crate) times: u32,
    pub(crate) expected: u16,
}

impl Case {
    fn new(name: &'static str, request: &'static str, header: Option<(&'static str, String)>, expected: u16) -> Self {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        Self { name, method, path, header, over_tls: true, times: 1, expected }
    }

    pub(crate) fn url(&self, origins: Origins) -> String {
        if self.over_tls {
            format!("https://localhost:{}{}", origins.secure, self.path)
        } else {
            format!("http://localhost:{}{}", origins.plain, self.path)
        }
    }

    pub(crate) fn curl(&self, origins: Origins, certificate: &Path) -> String {
        let mut line = "curl -si".to_owned();
        if self.over_tls {
            line += &format!(" --cacert {}", certificate.display());
        }
        if self.method != "GET" {
            line += &format!(" -X {}", self.method);
        }
        if let Some((name, value)) = &self.header {
            line += &format!(" -H '{name}: {value}'");
        }
        line += &format!(" {}", self.url(origins));
        if self.times > 1 { format!("for i in $(seq {}); do {line}; echo; done", self.times) } else { line }
    }
}

pub(crate) fn all(provider: &Provider, key: &ApiKey, now: u64) -> Result<Vec<Case>, BoxError> {
    let hour = 3600;
    let bearer = |token: &str| Some(("Authorization", format!("Bearer {token}")));
    let token = |subject: &str, role: &str, seconds: i64| provider.token(subject, role, now, seconds);
    let (alice, boss) = (token("alice", "customer", hour)?, token("erin", "manager", hour)?);
    let by_key = || Some(("X-API-Key", key.expose().to_owned()));

    let mut cases = vec![
        Case::new("public", "GET /health", None, 200),
        Case::new("allowed by key", "GET /orders", by_key(), 200),
        Case::new("allowed by token", "GET /me", bearer(&alice), 200),
        Case::new("allowed by role", "DELETE /orders/1", bearer(&boss), 204),
        Case::new("allowed by ownership", "GET /orders/1", bearer(&alice), 200),
        Case::new("no credential", "GET /orders", None, 401),
        Case::new("tampered token", "GET /me", bearer(&tampered(&alice)), 401),
        Case::new("expired token", "GET /me", bearer(&token("alice", "customer", -hour)?), 401),
        Case::new("tampered key", "GET /orders", Some(("X-API-Key", broken(key.expose()))), 401),
        Case::new("wrong role", "DELETE /orders/1", bearer(&alice), 403),
        Case::new("somebody else's order", "GET /orders/2", bearer(&alice), 403),
        Case::new("a path that the table does not name", "GET /admin", bearer(&boss), 403),
        Case::new("a path that could mean another", "GET /orders//1", bearer(&boss), 400),
    ];
    let mut flood = Case::new("too many requests", "GET /me", bearer(&token("mallory", "customer", hour)?), 429);
    flood.times = 25;
    let mut plain = Case::new("plain HTTP", "GET /health", None, 403);
    plain.over_tls = false;
    cases.extend([flood, plain]);
    Ok(cases)
}

/// The key with its last character changed.
fn broken(key: &str) -> String {
    let mut key = key.to_owned();
    let last = key.pop();
    key.push(if last == Some('0') { '1' } else { '0' });
    key
}
