//! How long the texts of a record may be, in one place: every constructor asks here.

use ipnet::IpNet;

use crate::error::ConfigError;

/// The last second of the year 9999: every time of a record is at most this, so that it fits every column and format.
pub const MAX_TIME: u64 = 253_402_300_799;

pub(super) const SUBJECT: usize = 256;
pub(super) const TENANT: usize = 256;
const NAME: usize = 256;
const PLAN: usize = 64;
const SCOPE: usize = 128;
const ROLE: usize = 128;
const REASON: usize = 512;
const METADATA_NAME: usize = 64;
const METADATA_VALUE: usize = 512;
const MOST_SCOPES: usize = 128;
const MOST_ROLES: usize = 64;
const MOST_ADDRESSES: usize = 64;
const MOST_METADATA: usize = 32;

type Checked = Result<(), ConfigError>;

pub(super) fn name(value: &str) -> Checked {
    text("API key name", value, 0, NAME)
}

pub(super) fn subject(value: &str) -> Checked {
    text("API key subject", value, 1, SUBJECT)
}

pub(super) fn tenant(value: &str) -> Checked {
    text("API key tenant", value, 1, TENANT)
}

pub(super) fn plan(value: &str) -> Checked {
    text("API key plan", value, 1, PLAN)
}

pub(super) fn reason(value: &str) -> Checked {
    text("API key revocation reason", value, 0, REASON)
}

pub(super) fn scopes<'a>(values: impl ExactSizeIterator<Item = &'a str>) -> Checked {
    at_most("API key scopes", values.len(), MOST_SCOPES)?;
    let token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    for scope in values {
        text("API key scope", scope, 1, SCOPE)?;
        if !scope.bytes().all(token) {
            return Err(wrong("API key scope", scope, "must be a scope-token (RFC 6749 §3.3)"));
        }
    }
    Ok(())
}

pub(super) fn roles<'a>(values: impl ExactSizeIterator<Item = &'a str>) -> Checked {
    at_most("API key roles", values.len(), MOST_ROLES)?;
    for role in values {
        text("API key role", role, 1, ROLE)?;
    }
    Ok(())
}

pub(super) fn addresses(values: &[IpNet]) -> Checked {
    at_most("API key addresses", values.len(), MOST_ADDRESSES)?;
    let mapped = |net: &IpNet| match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.prefix_len() >= 96 && net.network().to_ipv4_mapped().is_some(),
    };
    for net in values {
        if net.trunc() != *net {
            return Err(wrong("API key address", &net.to_string(), "has bits beyond its prefix"));
        }
        if mapped(net) {
            return Err(wrong("API key address", &net.to_string(), "must be written as IPv4"));
        }
    }
    Ok(())
}

pub(super) fn metadata<'a>(entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Checked {
    at_most("API key metadata", entries.len(), MOST_METADATA)?;
    for (name, value) in entries {
        text("API key metadata name", name, 1, METADATA_NAME)?;
        text("API key metadata value", value, 0, METADATA_VALUE)?;
    }
    Ok(())
}

pub(super) fn time(setting: &str, unix_seconds: u64) -> Checked {
    if unix_seconds > MAX_TIME {
        return Err(ConfigError::new(setting, unix_seconds.to_string(), "is after the year 9999"));
    }
    Ok(())
}

fn text(setting: &str, value: &str, least: usize, most: usize) -> Checked {
    if value.len() < least {
        return Err(wrong(setting, value, "must not be empty"));
    }
    if value.len() > most {
        return Err(wrong(setting, value, &format!("is longer than {most} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(wrong(setting, value, "has a control character"));
    }
    Ok(())
}

fn at_most(setting: &str, count: usize, most: usize) -> Checked {
    if count > most {
        return Err(ConfigError::new(setting, format!("a list of {count}"), format!("has more than {most} entries")));
    }
    Ok(())
}

/// Shows a long value by its beginning.
fn wrong(setting: &str, value: &str, problem: &str) -> ConfigError {
    const SHOWN: usize = 64;
    let beginning: String = value.chars().take(SHOWN).collect();
    let more = if beginning.len() < value.len() { ".." } else { "" };
    ConfigError::new(setting, format!("{beginning:?}{more}"), problem)
}
