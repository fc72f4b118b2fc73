use std::{fmt, time::Duration};

use super::{Target, valid_prefix};
use crate::{error::ConfigError, secret::Secret};

/// What the builders of all stores in Redis are told of the server.
pub(crate) struct Access {
    address: Secret,
    login: Option<(Option<String>, Secret)>,
    pub(crate) roots: Option<Vec<u8>>,
    /// Whether another machine may be asked over plain TCP.
    pub(crate) plain_tcp: bool,
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
}

/// The same, found to make sense.
pub(crate) struct Accepted {
    pub(crate) target: Target,
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
}

impl Access {
    /// The defaults, with this time-out.
    pub(crate) fn new(address: &str, timeout: Duration) -> Self {
        let address = Secret::from(address.to_owned());
        Self { address, login: None, roots: None, plain_tcp: false, prefix: "portcullis:".into(), timeout }
    }

    pub(crate) fn log_in(&mut self, user: Option<&str>, password: Secret) {
        self.login = Some((user.map(str::to_owned), password));
    }

    pub(crate) fn accept(self) -> Result<Accepted, ConfigError> {
        valid_prefix(&self.prefix)?;
        if self.timeout < Duration::from_millis(1) || self.timeout > Duration::from_secs(10) {
            return Err(ConfigError::new("time-out", format!("{:?}", self.timeout), "is not 1 ms to 10 s"));
        }
        let address = self.address.expose_str().unwrap_or_default();
        let mut target = Target::new(address, self.roots.as_deref(), self.plain_tcp)?;
        if let Some((user, password)) = self.login {
            target = target.with_login(user.as_deref(), &password)?;
        }
        Ok(Accepted { target, prefix: self.prefix, timeout: self.timeout })
    }
}

/// The address may hold a password.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
