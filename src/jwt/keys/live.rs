use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::{
    cycle::{Cycle, Rules},
    discovery::Discovery,
    file::JwksFile,
    http::{Http, JwksUrl},
    origin::JwkSource,
    source::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh},
};
use crate::{
    clock::{Clock, Instants, SystemClock},
    error::ConfigError,
    http_client::{Endpoint, FetchLimits, HttpFetch, HttpsFetch, UrlText},
    jwt::{Algorithm, jwk},
    now::Now,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Keys that follow their origin: a URL, an issuer's metadata, a file, or a [`JwkSource`] of your own. A clone costs one
/// reference count and shares the keys.
///
/// The [module docs](super) say what happens when. The task that refreshes in the background starts with
/// [`start`](Self::start), [`load`](Self::load), the first request or the first look at the readiness, and ends when the last
/// clone is dropped. It needs a tokio runtime with its timer; without one the requests refresh, as they come.
///
/// ```
/// use portcullis::jwt::{Algorithm, Issuer, JwtAuthenticator, keys::LiveKeys};
///
/// let keys = LiveKeys::discover("https://accounts.google.com").allow_host("www.googleapis.com").build()?;
/// let jwt = JwtAuthenticator::builder()
///     .issuer(
///         Issuer::with_keys("https://accounts.google.com", keys.clone())
///             .id_tokens("orders-app")
///             .algorithms([Algorithm::RS256]),
///     )
///     .build()?;
/// # let start = async {
/// keys.load().await?; // or start without keys, and answer 503 until they are there
/// # Ok::<(), portcullis::jwt::keys::KeysUnavailable>(())
/// # };
/// # drop((jwt, start));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct LiveKeys {
    cycle: Arc<Cycle>,
}

impl LiveKeys {
    /// Follows the JWK Set at this URL.
    pub fn jwks_url(url: impl Into<String>) -> LiveKeysBuilder {
        LiveKeysBuilder::new(Origin::Url(UrlText(url.into())))
    }

    /// Follows the JWK Set that the metadata of this issuer names: `/.well-known/openid-configuration` behind the issuer's
    /// path (OpenID Connect Discovery §4), or, if that is `4xx`, `/.well-known/oauth-authorization-server` before it
    /// (RFC 8414 §3).
    ///
    /// The `issuer` in the metadata must be this one, byte for byte; `jwks_uri` must be on its origin or on an
    /// [allowed host](LiveKeysBuilder::allow_host). Nothing else in the metadata counts: algorithms come from the profile.
    pub fn discover(issuer: impl Into<String>) -> LiveKeysBuilder {
        LiveKeysBuilder::new(Origin::Issuer(UrlText(issuer.into())))
    }

    /// Follows the JWK Set in this file: it is read again every few seconds.
    pub fn jwks_file(path: impl AsRef<Path>) -> LiveKeysBuilder {
        let mut builder = LiveKeysBuilder::new(Origin::File(path.as_ref().into()));
        builder.soft_life = Duration::from_secs(5);
        builder.interval = Duration::from_secs(1);
        builder
    }

    /// Follows a source of your own.
    pub fn from_source(source: impl JwkSource) -> LiveKeysBuilder {
        LiveKeysBuilder::new(Origin::Own(Box::new(source)))
    }

    /// Starts the task that refreshes, if it does not run yet. Does nothing outside a tokio runtime.
    pub fn start(&self) {
        if let Ok(runtime) = Handle::try_current() {
            self.cycle.start(&runtime);
        }
    }

    /// Waits until there are keys, or until it is clear that there are none for now: for a service that would rather not
    /// start without them.
    ///
    /// # Errors
    /// If the origin does not answer or has no usable key. Later requests and the task try again.
    pub async fn load(&self) -> Result<(), KeysUnavailable> {
        self.start();
        let at = self.cycle.clock().now();
        if self.cycle.snapshot(at).is_ok() {
            return Ok(());
        }
        match self.cycle.refresh_for(None, 0, at).await {
            Refresh::Unavailable(cause) => Err(cause),
            Refresh::LookAgain | Refresh::NothingNew => self.cycle.snapshot(self.cycle.clock().now()).map(drop),
        }
    }
}

impl fmt::Debug for LiveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveKeys").field("origin", &self.cycle.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeySource for LiveKeys {
    fn snapshot(&self, at: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        self.cycle.snapshot(at)
    }

    fn generation(&self, at: Instants) -> Option<u64> {
        self.cycle.generation(at)
    }

    fn refresh_now(&self, kid: Option<&str>, seen: u64, at: Instants) -> Now<Refresh> {
        self.cycle.refresh_now(kid, seen, at).map_or(Now::Wait, Now::Known)
    }

    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        self.cycle.refresh_for(kid, seen, at).await
    }

    /// A secret has no place in what is published, and is skipped.
    fn has_no_secrets(&self) -> bool {
        true
    }

    /// Starts the task: where traffic waits for the readiness, no request would.
    fn health(&self, at: Instants) -> KeyHealth {
        self.start();
        self.cycle.health(at)
    }
}

#[derive(Debug)]
enum Origin {
    Url(UrlText),
    Issuer(UrlText),
    File(Box<Path>),
    Own(Box<dyn JwkSource>),
}

/// Configures [`LiveKeys`].
#[must_use]
#[derive(Debug)]
pub struct LiveKeysBuilder {
    origin: Origin,
    http: Option<Arc<dyn HttpFetch>>,
    limits: FetchLimits,
    hosts: Vec<String>,
    http_on_loopback: bool,
    soft_life: Duration,
    trust: Duration,
    interval: Duration,
    rsa: Algorithm,
    clock: Arc<dyn Clock>,
}

impl LiveKeysBuilder {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            http: None,
            limits: FetchLimits::default(),
            hosts: Vec::new(),
            http_on_loopback: false,
            soft_life: Duration::from_secs(10 * 60),
            trust: 24 * HOUR,
            interval: Duration::from_secs(30),
            rsa: jwk::RSA,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Sends requests with this client. Default: an [`HttpsFetch`] that trusts the system's certificates.
    pub fn http(mut self, client: impl HttpFetch) -> Self {
        self.http = Some(Arc::new(client));
        self
    }

    /// Sets the limits of a fetch. Default: 5 s for all that one refresh takes, and 512 KiB for each document.
    pub const fn limits(mut self, limits: FetchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets the metadata of an issuer name a JWK Set on this host, on any port, besides the issuer's own origin.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Sets how long a set is fresh if its origin does not say; it is refreshed after 70 to 80 % of that. Default: 10 min
    /// (5 s for a file). What `Cache-Control` says comes first, within 1 min and 24 h.
    pub const fn fresh_for(mut self, fresh_for: Duration) -> Self {
        self.soft_life = fresh_for;
        self
    }

    /// Sets how long a set is trusted after its origin last confirmed it; then requests get `503`. Default: 24 h. It is
    /// measured with the monotonic clock.
    pub const fn trust_for(mut self, trust_for: Duration) -> Self {
        self.trust = trust_for;
        self
    }

    /// Takes RSA keys that have no `alg` for this algorithm, and no other: for an issuer that signs with PS256, say, and does not write it
    /// into its keys. Default RS256.
    pub const fn rsa_without_alg(mut self, algorithm: Algorithm) -> Self {
        self.rsa = algorithm;
        self
    }

    /// Takes the time of the task from this clock. It must be the one that the layers read.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Takes `http` URLs whose host is this machine, for tests and development.
    ///
    /// # Security
    /// Whoever can listen on the port can then issue tokens.
    pub const fn dangerous_http_on_loopback(mut self) -> Self {
        self.http_on_loopback = true;
        self
    }

    /// Finishes the keys. Nothing is fetched yet.
    ///
    /// # Errors
    /// If a URL is not `https` or has a user name or fragment; an allowed host is not a host name; a limit is zero or
    /// above 60 s or 16 MiB; a set would be fresh for less than 1 s or more than 24 h, or trusted for less time than it is
    /// fresh or more than 7 days; RSA keys would be for an algorithm that is not one of RSA; the HTTP client cannot be made.
    pub fn build(self) -> Result<LiveKeys, ConfigError> {
        let limits = self.limits;
        limits.check("key fetches")?;
        if self.soft_life < Duration::from_secs(1) || self.soft_life > 24 * HOUR {
            return Err(ConfigError::new("freshness of keys", format!("{:?}", self.soft_life), "is not 1 s to 24 h"));
        }
        if self.trust < self.soft_life || self.trust > 7 * 24 * HOUR {
            let problem = "is shorter than the keys are fresh, or above 7 days";
            return Err(ConfigError::new("trust in keys", format!("{:?}", self.trust), problem));
        }
        for host in &self.hosts {
            let url = Endpoint::parse(&format!("https://{host}"), false);
            if !url.is_ok_and(|url| url.host() == host.to_ascii_lowercase()) {
                return Err(ConfigError::new("allowed host", format!("{host:?}"), "is not a host name"));
            }
        }
        if !self.rsa.is_rsa() {
            return Err(ConfigError::new("algorithm of RSA keys without alg", self.rsa.name(), "is not one of RSA"));
        }
        let rules = Rules {
            soft_life: self.soft_life,
            trust: self.trust,
            interval: self.interval,
            rsa: self.rsa,
            timeout: limits.time(),
            max_bytes: limits.bytes(),
        };
        let http = |client: Option<Arc<dyn HttpFetch>>| {
            let client = match client {
                Some(client) => client,
                None => Arc::new(HttpsFetch::new()?),
            };
            Ok::<_, ConfigError>(Http { client, limits })
        };
        let source: Box<dyn JwkSource> = match self.origin {
            Origin::Own(source) => source,
            Origin::File(path) => Box::new(JwksFile::new(&path, limits.bytes())),
            Origin::Url(UrlText(url)) => {
                let url = Endpoint::parse(&url, self.http_on_loopback)?;
                Box::new(JwksUrl { url, http: http(self.http)? })
            }
            Origin::Issuer(UrlText(issuer)) => {
                Box::new(Discovery::new(&issuer, self.hosts, self.http_on_loopback, http(self.http)?)?)
            }
        };
        Ok(LiveKeys { cycle: Cycle::new(source, rules, self.clock) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        for url in ["https://user:hunter2@keys.example/jwks", "https://keys.example/jwks?code=hunter2"] {
            for builder in [LiveKeys::jwks_url(url), LiveKeys::discover(url)] {
                assert!(!format!("{builder:?}").contains("hunter2"));
                let built = builder.build();
                assert!(!format!("{built:?}").contains("hunter2"), "{built:?}");
                if let Err(error) = built {
                    assert!(!error.to_string().contains("hunter2"), "{error}");
                }
            }
        }
    }
}
