//! Where the keys of an issuer are.

use crate::{
    config::{
        document::{Issuer, Keys},
        problem::Report,
        tree::At,
    },
    error::ConfigError,
    http_client::FetchLimits,
    jwt::{
        Algorithm, KeySet,
        keys::{LiveKeys, LiveKeysBuilder},
    },
    policy::read_file,
};

/// Opens them. `published` are those that the issuer itself names, `algorithms` those of the issuer, as far as they are said.
pub(super) fn open(
    written: &At<Issuer>,
    published: LiveKeysBuilder,
    algorithms: &[Algorithm],
    field: &str,
    report: &mut Report<'_>,
) -> Option<LiveKeys> {
    // What is left of an issuer would be told as wrong where it is not.
    if report.took_from(field) {
        return None;
    }
    let default = At { at: written.value.issuer.as_ref().map_or(written.at, |name| name.at), value: Keys::default() };
    let keys = written.value.keys.as_ref().unwrap_or(&default);
    let discover = keys.value.discover.as_ref();
    let places = usize::from(discover.is_some_and(|discover| discover.value))
        + usize::from(keys.value.url.is_some())
        + usize::from(keys.value.file.is_some());
    if places > 1 {
        let advice = "must say one place: discover = true, url = \"https://..\" or file = \"..\"";
        report.add(keys.at, format!("{field}.keys"), "several places", advice);
        return None;
    }
    if let (Some(discover), 0) = (discover, places) {
        let advice = "says not where the keys are: add url = \"https://..\" or file = \"..\"";
        report.add(discover.at, format!("{field}.keys.discover"), "false", advice);
        return None;
    }
    if keys.value.file.is_some() || keys.value.url.is_some() {
        for (index, host) in keys.value.allow_hosts.iter().enumerate() {
            let advice = "is of keys that the issuer's metadata names: remove it";
            let item = report.item(&format!("{field}.keys.allow_hosts"), index);
            report.add(host.at, item, format!("{:?}", host.value), advice);
        }
    }
    let loopback = &keys.value.dangerous_http_on_loopback;
    if keys.value.file.is_some() && loopback.value {
        let advice = "is of keys that come from a server: remove it";
        report.add(loopback.at, format!("{field}.keys.dangerous_http_on_loopback"), "true", advice);
    }
    let (at, of, mut builder) = match (&keys.value.url, &keys.value.file) {
        (Some(url), _) => (url.at, ".keys.url", LiveKeys::jwks_url(&url.value.0)),
        (None, Some(file)) => {
            // A set that is bad later leaves the one before it; at start there is none.
            let set = read_file("JWK Set", file.value.as_ref(), FetchLimits::default().bytes());
            if let Err(error) = set.and_then(|set| KeySet::from_jwks(&set.text)) {
                report.bad_file(file.at, &format!("{field}.keys.file"), &file.value, "", &error);
                return None;
            }
            (file.at, ".keys.file", LiveKeys::jwks_file(&file.value))
        }
        (None, None) => (default.at, ".issuer", published),
    };
    // Where there is one algorithm for RSA, keys that do not say theirs can have no other.
    let mut of_rsa = algorithms.iter().filter(|algorithm| algorithm.is_rsa());
    if let (Some(only), None) = (of_rsa.next(), of_rsa.next()) {
        builder = builder.rsa_without_alg(*only);
    }
    for host in &keys.value.allow_hosts {
        builder = builder.allow_host(&host.value);
    }
    if let Some(fresh) = &keys.value.fresh_for {
        builder = builder.fresh_for(fresh.value.0);
    }
    if let Some(trust) = &keys.value.trust_for {
        builder = builder.trust_for(trust.value.0);
    }
    if loopback.value {
        builder = builder.dangerous_http_on_loopback();
    }
    let error = match builder.build() {
        Ok(keys) => return Some(keys),
        Err(error) => error,
    };
    let (at, field) = place_of(&error, &keys.value, field, report).unwrap_or_else(|| (at, format!("{field}{of}")));
    report.take(at, &field, Err(error))
}

/// Where the setting stands that an error is about, if it is not the place of the keys itself.
fn place_of(error: &ConfigError, keys: &Keys, field: &str, report: &Report<'_>) -> Option<(usize, String)> {
    match error.setting() {
        "freshness of keys" => Some((keys.fresh_for.as_ref()?.at, format!("{field}.keys.fresh_for"))),
        "trust in keys" => Some((keys.trust_for.as_ref()?.at, format!("{field}.keys.trust_for"))),
        "allowed host" => {
            let index = keys.allow_hosts.iter().position(|host| format!("{:?}", host.value) == error.value())?;
            Some((keys.allow_hosts.get(index)?.at, report.item(&format!("{field}.keys.allow_hosts"), index)))
        }
        _ => None,
    }
}
