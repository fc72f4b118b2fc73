use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args as Flags, Parser, Subcommand};
use ipnet::IpNet;
use portcullis::api_key::KeyId;

const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 refused, or no such key; 2 wrong command line or input; 3 the store failed.";

/// Administers API keys.
#[derive(Parser)]
#[command(name = "keyctl", after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Where the keys are.
    #[arg(long, global = true, value_name = "STORE", conflicts_with = "store_env", help = crate::store::HELP)]
    pub(crate) store: Option<String>,
    /// The environment variable that says so, for an address with a password in it.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) store_env: Option<String>,
    /// Make the file or the tables of the store if they are not there.
    #[arg(long, global = true)]
    pub(crate) new: bool,
    /// Print objects, one a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes a key and prints it, this once.
    Create(Create),
    /// Lists keys.
    List(List),
    /// Shows one key.
    Show {
        #[arg(value_parser = id)]
        id: KeyId,
    },
    /// Replaces a key by a new one and prints that, this once.
    Rotate {
        #[arg(value_parser = id)]
        id: KeyId,
        /// How long the old key still works.
        #[arg(long, default_value = "24h", value_parser = duration)]
        overlap: Duration,
        /// The service takes keys without a pepper: to be said for a key of another system, which tells nothing about it.
        #[arg(long, conflicts_with = "pepper")]
        no_pepper: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Revokes a key, for good.
    Revoke {
        #[arg(value_parser = id)]
        id: KeyId,
        /// Why, for operators.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Disables an owner with all keys, those of later included.
    DisableOwner {
        #[command(flatten)]
        owner: Owner,
        /// Why, for operators.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Enables an owner again.
    EnableOwner {
        #[command(flatten)]
        owner: Owner,
    },
    /// Takes keys over that another system made, by their SHA-256 hashes: one JSON object a line, with "sha256", "subject" and
    /// "expires" (seconds since the Unix epoch, or "never"), and if you like "name", "tenant", "plan", "scopes", "roles", "environment",
    /// "addresses", "created". All lines are checked before the first is taken; those that are there already stay as they are.
    /// Take revoked keys off the list: whose record was purged would be brought back.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
    },
    /// Removes the records of keys that ended long ago.
    Purge {
        /// How long records are kept after the end of their keys.
        #[arg(long, value_parser = duration)]
        kept: Duration,
    },
}

#[derive(Flags)]
pub(crate) struct Create {
    /// Whose key it is.
    #[arg(long)]
    pub(crate) subject: String,
    /// The tenant of the owner.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// What the key is called.
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// The rate plan.
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// A scope; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// A role; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// A network that the key may be used from, such as 192.0.2.0/24; may be repeated.
    #[arg(long = "address", value_name = "NETWORK")]
    pub(crate) addresses: Vec<IpNet>,
    /// Something to keep with the key; may be repeated.
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<(String, String)>,
    /// How long the key lives, such as 90d, 12h or 1y; or never.
    #[arg(long, default_value = "1y", value_parser = life)]
    pub(crate) expires: Life,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How keys are made: as the service reads them.
#[derive(Flags)]
#[command(group(ArgGroup::new("pepper_source").args(["pepper_file", "pepper_env"])))]
pub(crate) struct Format {
    /// The prefix of the keys.
    #[arg(long, default_value = "pc")]
    pub(crate) prefix: String,
    /// The environment that the key is for.
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// The name of the pepper that keys are hashed under.
    #[arg(long, value_name = "ID", requires = "pepper_source")]
    pub(crate) pepper: Option<String>,
    /// The file with that pepper; one line end is cut off, as where a configuration names the file.
    #[arg(long, value_name = "FILE", requires = "pepper")]
    pub(crate) pepper_file: Option<PathBuf>,
    /// The environment variable with that pepper.
    #[arg(long, value_name = "NAME", requires = "pepper")]
    pub(crate) pepper_env: Option<String>,
}

#[derive(Flags)]
pub(crate) struct List {
    /// Of this tenant.
    #[arg(long, conflicts_with = "no_tenant")]
    pub(crate) tenant: Option<String>,
    /// Of no tenant.
    #[arg(long)]
    pub(crate) no_tenant: bool,
    /// Of this owner.
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// For this environment.
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// With this text in the name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Accepted now.
    #[arg(long)]
    pub(crate) active: bool,
}

#[derive(Flags)]
pub(crate) struct Owner {
    /// The owner's name.
    #[arg(long)]
    pub(crate) subject: String,
    /// The tenant of the owner.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) enum Life {
    For(Duration),
    Never,
}

fn id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|_| "an id is 16 characters of [0-9a-hjkmnp-tv-z]".to_owned())
}

fn life(text: &str) -> Result<Life, String> {
    if text == "never" { Ok(Life::Never) } else { duration(text).map(Life::For) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = || {
        let unit = text.chars().last()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            'y' => 365 * 24 * 60 * 60,
            _ => return None,
        };
        let count = text.strip_suffix(unit).filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()))?;
        count.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
    };
    read().ok_or_else(|| "a duration is a number and one of s, m, h, d, w, y, such as 90d".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
