//! What is said of a provider, and whether it can be.

use crate::error::ConfigError;

pub(super) fn refuse<T>(setting: &str, value: &str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError::new(setting, format!("{value:?}"), problem))
}

/// At least one, none empty.
pub(super) fn list<T: Into<String>>(
    setting: &str,
    values: impl IntoIterator<Item = T>,
) -> Result<Vec<String>, ConfigError> {
    let values: Vec<String> = values.into_iter().map(Into::into).collect();
    if values.is_empty() {
        return Err(ConfigError::new(setting, "none", "must be at least one"));
    }
    if values.iter().any(String::is_empty) {
        return refuse(setting, "", "must not be empty");
    }
    Ok(values)
}

pub(super) fn numbers<T: Into<String>>(
    setting: &str,
    values: impl IntoIterator<Item = T>,
) -> Result<Vec<String>, ConfigError> {
    let values = list(setting, values)?;
    match values.iter().find(|value| !value.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(name) => refuse(setting, name, "must be an id of digits: a name may change hands"),
        None => Ok(values),
    }
}

pub(super) fn guid(tenant: &str) -> Result<(), ConfigError> {
    let fits = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    if tenant.len() == 36 && tenant.bytes().enumerate().all(fits) {
        return Ok(());
    }
    refuse("Entra tenant", tenant, "must be a tenant id: a GUID in lower case")
}

pub(super) fn host(setting: &str, name: &str) -> Result<(), ConfigError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(());
    }
    refuse(setting, name, "must be a bare host name in lower case, without https:// and slashes")
}

/// An issuer as it stands in tokens: `http` for a provider on the same machine, and nothing that a parser would change.
pub(super) fn url(setting: &str, url: &str, part: &str) -> Result<(), ConfigError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'\\' | b'@');
    match rest {
        None => refuse(setting, url, "must begin with https:// or http://"),
        Some(rest) if rest.is_empty() || rest.starts_with('/') || !rest.bytes().all(fits) => {
            refuse(setting, url, "is not a plain URL")
        }
        Some(rest) if !rest.contains(part) => {
            Err(ConfigError::new(setting, format!("{url:?}"), format!("must have {part} in it")))
        }
        Some(_) => Ok(()),
    }
}

/// An issuer of a provider none of whose issuers ends with a slash: one that does is a slip, and would meet no token.
pub(super) fn slashless(setting: &str, issuer: &str, part: &str) -> Result<(), ConfigError> {
    match url(setting, issuer, part) {
        Ok(()) if issuer.ends_with('/') => refuse(setting, issuer, "must not end with a slash"),
        checked => checked,
    }
}
