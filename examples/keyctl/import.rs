//! Keys that another system made, by their hashes.

use std::{io::Read, path::Path};

use ipnet::IpNet;
use portcullis::api_key::{ApiKeyRecord, KeyHash, RecordFields};
use serde::Deserialize;

use crate::Failure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    subject: String,
    expires: End,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    name: String,
    tenant: Option<String>,
    plan: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    environment: Option<String>,
    #[serde(default)]
    addresses: Vec<IpNet>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum End {
    At(u64),
    Word(String),
}

/// The records that a file tells of: all of them, or none.
pub(crate) fn read(file: &Path, now: u64) -> Result<Vec<ApiKeyRecord>, Failure> {
    let shown = file.display();
    let unreadable = |error| Failure::Usage(format!("{shown}: {error}"));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
    } else {
        text = std::fs::read_to_string(file).map_err(unreadable)?;
    }
    let record = |(number, line): (usize, &str)| {
        record(line, now).map_err(|problem| Failure::Usage(format!("{shown}, line {}: {problem}", number + 1)))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(record).collect()
}

fn record(line: &str, now: u64) -> Result<ApiKeyRecord, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    // Not shown: it may be the key itself, in the wrong place.
    let hash = digest(&line.sha256).ok_or("sha256 is not 64 hexadecimal digits")?;
    let expires = match line.expires {
        End::At(unix_seconds) => Some(unix_seconds),
        End::Word(word) if word == "never" => None,
        End::Word(_) => return Err("expires is neither a number nor \"never\"".to_owned()),
    };
    let mut fields = RecordFields::legacy(hash, line.subject, line.created.unwrap_or(now), expires);
    fields.name = line.name;
    fields.tenant = line.tenant;
    fields.plan = line.plan;
    fields.scopes = line.scopes;
    fields.roles = line.roles;
    fields.environment = line.environment;
    fields.addresses = line.addresses;
    fields.check().map_err(|error| error.to_string())
}

fn digest(text: &str) -> Option<KeyHash> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * KeyHash::LEN)?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    Some(KeyHash::from_bytes(bytes.try_into().ok()?))
}
