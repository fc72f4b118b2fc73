use std::{fmt, sync::Arc, time::Duration};

use super::{Target, valid_prefix};
use crate::{error::ConfigError, secret::Secret};

/// A server of Redis or Valkey, and the way there: the same for every store that is kept in it. A text is one, with the defaults.
///
/// | setting | default |
/// |---|---|
/// | log-in | what stands in the address |
/// | certificate authorities | those of the system |
/// | plain TCP | to this machine alone |
/// | key prefix | `portcullis:` |
///
/// `Debug` shows the prefix alone: the address may hold a password.
///
/// ```
/// # #[cfg(all(feature = "rate-limit-redis", feature = "revocation-redis"))]
/// # async fn example(password: portcullis::Secret) -> Result<(), portcullis::ConfigError> {
/// use portcullis::{RedisServer, rate_limit::RedisLimits, revocation::RedisRevocations};
///
/// let server = RedisServer::at("rediss://redis.internal").login(Some("orders"), password).prefix("orders:");
/// let limits = RedisLimits::builder(server.clone()).build()?;
/// let revocations = RedisRevocations::builder(server).build()?;
/// # let _ = (limits, revocations);
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone)]
pub struct RedisServer {
    address: Arc<Secret>,
    login: Option<(Option<String>, Arc<Secret>)>,
    roots: Option<Vec<u8>>,
    plain_tcp: bool,
    prefix: String,
}

/// The same, found to make sense.
pub(crate) struct Accepted {
    pub(crate) target: Target,
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
}

impl RedisServer {
    /// The server at this address: `rediss://host:port` over TLS, `redis://` on this machine, `redis+unix:///path`, with `user:password@`
    /// before the host and `/number` of a database behind it. Nothing is looked at before a store is built.
    pub fn at(address: &str) -> Self {
        let address = Arc::new(Secret::from(address.to_owned()));
        Self { address, login: None, roots: None, plain_tcp: false, prefix: "portcullis:".into() }
    }

    /// Logs in with this password, and this name if it is not the default user. One that stands in the address is not looked at then.
    pub fn login(mut self, user: Option<&str>, password: impl Into<Secret>) -> Self {
        self.login = Some((user.map(str::to_owned), Arc::new(password.into())));
        self
    }

    /// Trusts these certificate authorities and no other, for a `rediss://` address: PEM, one or several, each of which must
    /// be one. Without it, those of the system.
    pub fn roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Asks a server on another machine over plain TCP too, by a `redis://` address. Whoever can read the wire then has the password and
    /// sees who asks; whoever can write to it grants and refuses requests over a quota, lets proofs pass twice, keeps revocations away and
    /// revokes.
    pub fn dangerous_plain_tcp(mut self) -> Self {
        self.plain_tcp = true;
        self
    }

    /// Begins every key, and every channel, with this, so that several services may use one server apart from each other: 1 to 64
    /// visible ASCII characters without braces. Processes that share what is kept there say the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// With how long a store waits for an answer.
    pub(crate) fn accept(self, timeout: Duration) -> Result<Accepted, ConfigError> {
        valid_prefix(&self.prefix)?;
        if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(10) {
            return Err(ConfigError::new("time-out", format!("{timeout:?}"), "is not 1 ms to 10 s"));
        }
        let address = self.address.expose_str().unwrap_or_default();
        let mut target = Target::new(address, self.roots.as_deref(), self.plain_tcp)?;
        if let Some((user, password)) = self.login {
            target = target.with_login(user.as_deref(), &password)?;
        }
        Ok(Accepted { target, prefix: self.prefix, timeout })
    }
}

impl From<&str> for RedisServer {
    fn from(address: &str) -> Self {
        Self::at(address)
    }
}

impl From<&String> for RedisServer {
    fn from(address: &String) -> Self {
        Self::at(address)
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
