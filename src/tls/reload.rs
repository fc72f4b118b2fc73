use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    certificate::ServerCertificate,
    watch::{self, Watch},
};
use crate::{error::ConfigError, log};

const RELOAD: &str = "certificate reload";

/// Changes the certificate of a [`TlsListener`](super::TlsListener) while it serves. Connections that are open stay open;
/// handshakes that begin afterwards get the new one.
///
/// ```no_run
/// use std::time::Duration;
/// use portcullis::tls::{ServerCertificate, TlsListener};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let certificate = ServerCertificate::from_pem_files("server.crt", "server.key")?;
/// let listener = TlsListener::bind("0.0.0.0:8443", certificate).await?;
/// listener.certificate_reloader().reload_every(Duration::from_secs(3600))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CertificateReloader {
    current: Arc<Current>,
}

struct Current {
    key: RwLock<Arc<CertifiedKey>>,
    files: Option<(PathBuf, PathBuf)>,
    /// The chain that the files held last, which is not the one that is served after a `replace`. Locked while they are read, so that
    /// of two looks the later one counts.
    held: Mutex<Vec<CertificateDer<'static>>>,
    watch: Watch,
}

impl CertificateReloader {
    pub(super) fn new(certificate: ServerCertificate) -> Self {
        let held = Mutex::new(certificate.key.cert.clone());
        let current =
            Current { key: RwLock::new(certificate.key), files: certificate.files, held, watch: Watch::default() };
        Self { current: Arc::new(current) }
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>
    }

    /// Serves this certificate from now on, until the files hold another one than they did when they were last read.
    pub fn replace(&self, certificate: ServerCertificate) {
        self.current.replace(certificate);
    }

    /// Reads the files again that the first certificate came from, and says whether they hold another one than the last time; that one is
    /// served then. Blocks as long as reading two small files takes, and where they have changed 100 ms longer, until they stay the same, or
    /// 400 ms at most; call it on `SIGHUP`, for example, and in async code in `spawn_blocking`.
    ///
    /// # Errors
    /// If the certificate did not come from files, or as
    /// [`ServerCertificate::from_pem_files`]. The old certificate is served as before then, and the log says so.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        self.current.reload()
    }

    /// Why a newer certificate would not be served, while that is so: the last [`reload`](Self::reload) failed, or the runtime
    /// that [`reload_every`](Self::reload_every) was called in is gone, and with it the task that looks at the files. For a
    /// readiness check, long before the certificate ends; the operator reads it, no client does.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.current.watch.failing()
    }

    /// Calls [`reload`](Self::reload) again and again, this long after the last time, until the listener is gone; 10 ms to a day.
    /// Replace the files in any order: a pair that does not fit is tried again the next time. The task ends with the runtime that
    /// this is called in; if the listener is still there, the log and [`failing`](Self::failing) say so until this is called in
    /// another one.
    ///
    /// # Errors
    /// If the time is shorter or longer, the certificate did not come from files, or no tokio runtime with a timer runs here.
    pub fn reload_every(self, period: Duration) -> Result<(), ConfigError> {
        let no_file = "has no file to look at: the certificate did not come from files";
        let no_file = self.current.files.is_none().then_some(no_file);
        watch::reload_every((RELOAD, period), no_file, &self.current, |current| &current.watch, Current::reload)
    }
}

impl Current {
    fn replace(&self, certificate: ServerCertificate) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = certificate.key;
    }

    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reload(&self) -> Result<bool, ConfigError> {
        let Some((chain, key)) = &self.files else {
            return Err(ConfigError::new(RELOAD, "(PEM)", "did not come from files"));
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = newer(chain, key, &held);
        self.watch.note(&newer);
        match newer {
            Ok(None) => Ok(false),
            Ok(Some(certificate)) => {
                held.clone_from(&certificate.key.cert);
                self.replace(certificate);
                Ok(true)
            }
            Err(error) => {
                log::error(&format!("the certificate was not reloaded, the old one is served on: {error}"));
                Err(error)
            }
        }
    }
}

/// The certificate in the files if it is another one, once they stay the same.
fn newer(chain: &Path, key: &Path, held: &[CertificateDer<'_>]) -> Result<Option<ServerCertificate>, ConfigError> {
    watch::settled(
        || ServerCertificate::from_pem_files(chain, key),
        |read| read.key.cert != held,
        |one, other| one.key.cert == other.key.cert,
        || ConfigError::new(RELOAD, chain.display().to_string(), "changes while it is read"),
    )
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateReloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateReloader").field("files", &self.current.files).finish_non_exhaustive()
    }
}
