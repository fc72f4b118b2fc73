//! Where Redis is, and the way there.

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
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::error::ConfigError;

/// Who is asked.
#[derive(Clone)]
pub(super) struct Target {
    place: Place,
    pub(super) login: RedisConnectionInfo,
}

#[derive(Clone)]
enum Place {
    Tcp(String, u16),
    Tls(String, u16, ServerName<'static>, TlsConnector),
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such sockets"))]
    Unix(PathBuf),
}

/// A connection, which ends with this.
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    task: JoinHandle<()>,
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        !self.task.is_finished()
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
    /// server, in PEM; without them, the system's.
    pub(super) fn new(address: &str, roots: Option<&[u8]>) -> Result<Self, ConfigError> {
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
            (ConnectionAddr::Tcp(host, port), None) => Place::Tcp(host, port),
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

    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        let tcp = async |host: &str, port: u16| {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match &self.place {
            Place::Tcp(host, port) => self.log_in(tcp(host, *port).await?).await,
            Place::Tls(host, port, name, connector) => {
                let stream = tcp(host, *port).await?;
                self.log_in(connector.connect(name.clone(), stream).await?).await
            }
            #[cfg(unix)]
            Place::Unix(path) => self.log_in(tokio::net::UnixStream::connect(path).await?).await,
            #[cfg(not(unix))]
            Place::Unix(_) => Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()),
        }
    }

    async fn log_in(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, RedisError> {
        // Who asks limits the time.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (commands, run) = MultiplexedConnection::new_with_config(&self.login, stream, config).await?;
        Ok(Connection { commands, task: tokio::spawn(run) })
    }
}

/// TLS 1.3 or 1.2 with aws-lc-rs, whatever other crates of the program have chosen as rustls' default.
fn connector(roots: Option<&[u8]>) -> Result<TlsConnector, ConfigError> {
    let certificates = match roots {
        Some(pem) => CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| {
            ConfigError::new("certificate authorities", "PEM text", "cannot be read").caused_by(error)
        })?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(ConfigError::new("certificate authorities", "none", "would trust nobody"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("redis", "TLS", "cannot be set up").caused_by(error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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
            assert_eq!(format!("{:?}", Target::new(address, None).unwrap()), shown);
        }
        for address in ["", "secret", "http://secret@a/", "redis://", "rediss://:secret@a#insecure", "redis://a/secret"]
        {
            let error = Target::new(address, None).unwrap_err().to_string();
            assert!(error.starts_with("redis: the address ") && !error.contains("secret"), "{address}: {error}");
        }
        assert!(Target::new("redis://a", Some(b"")).is_err(), "authorities without TLS");
        assert!(Target::new("rediss://a", Some(b"")).is_err(), "no authority");
    }
}
