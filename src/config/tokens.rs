//! What holds for the tokens of all issuers.

use std::time::Duration;

use crate::{
    config::{document::Document, problem::Report},
    error::ConfigError,
    jwt::{JwtAuthenticator, JwtAuthenticatorBuilder, TokenCache},
};

pub(super) fn settings(document: &Document, report: &mut Report<'_>) -> JwtAuthenticatorBuilder {
    let mut builder = JwtAuthenticator::builder();
    let Some(jwt) = &document.jwt else { return builder };
    let jwt = &jwt.value;
    if let Some(leeway) = &jwt.leeway {
        if leeway.value.0 > Duration::from_secs(300) {
            report.add(leeway.at, "jwt.leeway", format!("{:?}", leeway.value.0), "must be at most 300s");
        } else {
            builder = builder.leeway(leeway.value.0);
        }
    }
    if let Some(realm) = &jwt.realm {
        builder = builder.realm(&realm.value);
    }
    for header in &jwt.headers {
        builder = builder.header(&header.value);
    }
    if let Some(cache) = &jwt.cache {
        let cache = &cache.value;
        if cache.off {
            for (name, at) in [
                ("max_entries", cache.max_entries.as_ref().map(|entries| entries.at)),
                ("max_bytes", cache.max_bytes.as_ref().map(|bytes| bytes.at)),
                ("digest_keys", cache.digest_keys.value.then_some(cache.digest_keys.at)),
            ] {
                let Some(at) = at else { continue };
                let advice = "is of a cache, and it is off: remove one of them";
                report.add(at, format!("jwt.cache.{name}"), "the setting", advice);
            }
        }
        let mut made = TokenCache::new();
        if let Some(entries) = &cache.max_entries {
            made = made.max_entries(entries.value);
        }
        if let Some(bytes) = &cache.max_bytes {
            made = made.max_bytes(bytes.value);
        }
        if cache.digest_keys.value {
            made = made.digest_keys();
        }
        builder = if cache.off { builder.without_cache() } else { builder.cache(made) };
    }
    builder
}

/// Notes what is wrong with all issuers together, where the setting stands that the error is about.
pub(super) fn refuse(document: &Document, error: ConfigError, report: &mut Report<'_>) {
    let jwt = document.jwt.as_ref();
    let settings = jwt.map(|jwt| &jwt.value);
    let cache = settings.and_then(|jwt| jwt.cache.as_ref()).map(|cache| &cache.value);
    let place = match error.setting() {
        "challenge realm" | "challenge parameter" => {
            settings.and_then(|jwt| jwt.realm.as_ref()).map(|realm| (realm.at, "jwt.realm".to_owned()))
        }
        "JWT header field" => settings.and_then(|jwt| {
            // The last one, if it stands twice.
            let index = jwt.headers.iter().rposition(|header| format!("{:?}", header.value) == error.value())?;
            Some((jwt.headers.get(index)?.at, report.item("jwt.headers", index)))
        }),
        "entries of the token cache" => {
            let entries = cache.and_then(|cache| cache.max_entries.as_ref());
            entries.map(|entries| (entries.at, "jwt.cache.max_entries".to_owned()))
        }
        "bytes of the token cache" => {
            let bytes = cache.and_then(|cache| cache.max_bytes.as_ref());
            bytes.map(|bytes| (bytes.at, "jwt.cache.max_bytes".to_owned()))
        }
        _ => None,
    };
    let (at, field) = place.unwrap_or_else(|| (jwt.map_or(0, |jwt| jwt.at), "jwt".to_owned()));
    report.take::<()>(at, &field, Err(error));
}
