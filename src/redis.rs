//! Where a Redis server is, and the way there: what all stores in Redis share.

mod server;

use std::{fmt, path::PathBuf, sync::Arc};

use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName},
};

pub(crate) use self::server::Accepted;
pub use self::server::RedisServer;
use crate::{
    error::{ConfigError, StoreError, StoreErrorKind},
    loopback::is_loopback,
    roots,
    secret::Secret,
};

/// What errors of stores call it.
pub(crate) const BACKEND: &str = "redis";

/// The longest prefix of keys, in bytes.
const MAX_PREFIX_LEN: usize = 64;

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Target {
    place: Place,
    login: RedisConnectionInfo,
}

#[derive(Clone)]
enum Place {
    Tcp(String, u16),
    Tls(String, u16, ServerName<'static>, TlsConnector),
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such sockets"))]
    Unix(PathBuf),
}

/// A connection, which ends with this.
pub(crate) struct Connection {
    pub(crate) commands: MultiplexedConnection,
    task: JoinHandle<()>,
}

impl Connection {
    pub(crate) fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits until it is lost.
    #[cfg(feature = "dpop-redis")]
    pub(crate) async fn lost(&mut self) {
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refuse(problem: &str) -> ConfigError {
    // The address may hold a password.
    ConfigError::new("redis", "the address", problem)
}

impl Target {
    /// Reads `redis://`, `rediss://` and `redis+unix://` addresses. `roots` are the certificate authorities of a `rediss://`
    /// server, in PEM; without them, the system's. `plain_tcp` takes `redis://` to another machine as well.
    pub(crate) fn new(address: &str, roots: Option<&[u8]>, plain_tcp: bool) -> Result<Self, ConfigError> {
        let tls = ["rediss://", "valkeys://"].into_iter().find_map(|scheme| address.strip_prefix(scheme));
        let plain = tls.map(|rest| format!("redis://{rest}"));
        if tls.is_some() && address.contains('#') {
            return Err(refuse("has a fragment: certificates are always checked"));
        }
        if tls.is_none() && roots.is_some() {
            return Err(refuse("is not rediss://, and certificate authorities are set"));
        }
        let info = plain.as_deref().unwrap_or(address).into_connection_info();
        // The error may quote the address.
        let info = info.map_err(|_| refuse("is no redis://, rediss:// or redis+unix:// URL"))?;
        let place = match (info.addr().clone(), tls) {
            (ConnectionAddr::Tcp(host, port), None) if plain_tcp || is_loopback(&host) => Place::Tcp(host, port),
            (ConnectionAddr::Tcp(..), None) => {
                return Err(refuse("is plain TCP to another machine: take rediss://, or say dangerous_plain_tcp"));
            }
            (ConnectionAddr::Tcp(host, port), Some(_)) => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| refuse("has no host that a certificate names").caused_by(error))?;
                Place::Tls(host, port, name, connector(roots)?)
            }
            (ConnectionAddr::Unix(path), None) => Place::Unix(path),
            _ => return Err(refuse("is of a kind that is not supported")),
        };
        Ok(Self { place, login: info.redis_settings().clone() })
    }

    /// Logs in with this password, and this name if it is not the default user. Who stands in the address is not looked at.
    pub(crate) fn with_login(mut self, user: Option<&str>, password: &Secret) -> Result<Self, ConfigError> {
        let password = password.expose_str().ok_or_else(|| ConfigError::new("password", "bytes", "is no text"))?;
        // One that is made anew: a name, once it is there, cannot be taken away.
        let login = RedisConnectionInfo::default().set_db(self.login.db()).set_protocol(self.login.protocol());
        let login = login.set_password(password);
        self.login = match user {
            Some(user) => login.set_username(user),
            None => login,
        };
        Ok(self)
    }

    pub(crate) async fn connect(&self) -> Result<Connection, RedisError> {
        // Who asks limits the time.
        self.connect_as(&self.login, AsyncConnectionConfig::new()).await
    }

    /// One that is told what is published, beside the answers and in the order of the server: by RESP3, which Redis has from
    /// version 6 on. The listener must not wait.
    #[cfg(feature = "revocation-redis")]
    pub(crate) async fn connect_to_listen(
        &self,
        heard: impl Fn(redis::PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, RedisError> {
        let login = self.login.clone().set_protocol(redis::ProtocolVersion::RESP3);
        let listener = move |info| {
            heard(info);
            Ok::<_, std::convert::Infallible>(())
        };
        self.connect_as(&login, AsyncConnectionConfig::new().set_push_sender(listener)).await
    }

    async fn connect_as(
        &self,
        login: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Connection, RedisError> {
        let config = config.set_response_timeout(None).set_connection_timeout(None);
        let tcp = async |host: &str, port: u16| {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match &self.place {
            Place::Tcp(host, port) => log_in(login, config, tcp(host, *port).await?).await,
            Place::Tls(host, port, name, connector) => {
                let stream = tcp(host, *port).await?;
                log_in(login, config, connector.connect(name.clone(), stream).await?).await
            }
            #[cfg(unix)]
            Place::Unix(path) => log_in(login, config, tokio::net::UnixStream::connect(path).await?).await,
            #[cfg(not(unix))]
            Place::Unix(_) => Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()),
        }
    }
}

async fn log_in(
    login: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, RedisError> {
    let (commands, run) = MultiplexedConnection::new_with_config(login, stream, config).await?;
    Ok(Connection { commands, task: tokio::spawn(run) })
}

/// TLS 1.3 or 1.2 with aws-lc-rs, whatever other crates of the program have chosen as rustls' default.
fn connector(pem: Option<&[u8]>) -> Result<TlsConnector, ConfigError> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("redis", "TLS", "cannot be set up").caused_by(error))?
        .with_root_certificates(roots::trusted(pem)?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A brace would move the tag.
fn valid_prefix(prefix: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    if !prefix.is_empty() && prefix.len() <= MAX_PREFIX_LEN && prefix.bytes().all(allowed) {
        return Ok(());
    }
    Err(ConfigError::new("key prefix", format!("{prefix:?}"), "is not 1 to 64 visible ASCII characters without braces"))
}

/// Whether it cannot answer for now.
pub(crate) fn is_away(error: &RedisError) -> bool {
    const CODES: [&str; 9] =
        ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "BUSY", "OOM", "MISCONF", "NOREPLICAS"];
    error.is_io_error() || error.is_connection_dropped() || error.code().is_some_and(|code| CODES.contains(&code))
}

/// An error of a store: it cannot answer.
pub(crate) fn unavailable(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, BACKEND).caused_by(why)
}

/// An error of a store, as Redis tells it.
pub(crate) fn failed(error: RedisError) -> StoreError {
    let kind = if is_away(&error) { StoreErrorKind::Unavailable } else { StoreErrorKind::Corrupt };
    StoreError::new(kind, BACKEND).caused_by(error)
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(host, port) => write!(f, "redis://{host}:{port}"),
            Place::Tls(host, port, ..) => write!(f, "rediss://{host}:{port}"),
            Place::Unix(path) => write!(f, "redis+unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_never_shown() {
        for (address, shown) in [
            ("redis://:secret@127.0.0.1:6380/2", "redis://127.0.0.1:6380"),
            ("redis://orders:secret@redis.internal", "redis://redis.internal:6379"),
            ("redis+unix:///run/redis/redis.sock?pass=secret", "redis+unix:///run/redis/redis.sock"),
        ] {
            assert_eq!(format!("{:?}", Target::new(address, None, true).unwrap()), shown);
        }
        for address in ["", "secret", "http://secret@a/", "redis://", "rediss://:secret@a#insecure", "redis://a/secret"]
        {
            let error = Target::new(address, None, true).unwrap_err().to_string();
            assert!(error.starts_with("redis: the address ") && !error.contains("secret"), "{address}: {error}");
        }
        assert!(Target::new("redis://a", Some(b""), true).is_err(), "authorities without TLS");
        assert!(Target::new("rediss://a", Some(b""), true).is_err(), "no authority");
    }

    #[test]
    fn plain_tcp_stays_on_this_machine() {
        for (address, taken) in [
            ("redis://127.0.0.1", true),
            ("redis://:secret@127.1.2.3:6380/2", true),
            ("redis://[::1]:6380", true),
            ("redis://localhost", true),
            ("valkey://LOCALHOST", true),
            ("redis+unix:///run/redis/redis.sock", true),
            ("redis://:secret@redis.internal", false),
            ("valkey://redis.internal", false),
            ("redis://localhost.example.com", false),
            ("redis://127.0.0.1.example.com", false),
            ("redis://localhost:secret@192.0.2.1", false),
            ("redis://[2001:db8::1]", false),
            ("redis://10.0.0.7", false),
        ] {
            let target = Target::new(address, None, false).map_err(|error| error.to_string());
            assert_eq!(target.is_ok(), taken, "{address}: {target:?}");
            assert!(taken || target.is_err_and(|told| told.contains("rediss://") && !told.contains("secret")));
            assert!(Target::new(address, None, true).is_ok(), "{address}, and it was said");
        }
    }

    #[test]
    fn a_login_replaces_the_one_in_the_address() {
        for (address, user, name) in [
            ("redis://orders:old@127.0.0.1/2", None, None),
            ("redis://orders@127.0.0.1/2", Some("limits"), Some("limits")),
            ("redis://127.0.0.1/2", None, None),
        ] {
            let target = Target::new(address, None, false).unwrap();
            let login = target.with_login(user, &Secret::from("new".to_owned())).unwrap().login;
            assert_eq!((login.username(), login.password(), login.db()), (name, Some("new"), 2), "{address}");
        }
    }

    #[test]
    fn a_prefix_has_no_braces() {
        assert!(valid_prefix("orders:limits:").is_ok());
        for prefix in ["", "a b", "{a}", "ä", &"x".repeat(65)] {
            assert_eq!(valid_prefix(prefix).unwrap_err().setting(), "key prefix");
        }
    }
}
