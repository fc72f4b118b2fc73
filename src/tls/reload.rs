use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::ServerCertificate;
use crate::{
    error::ConfigError,
    log,
    lookout::{Lookout, has_timer},
};

/// The shortest time between two looks at the files.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest: a certificate that nobody looks for any more ends unseen.
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long files that have changed must stay as they are.
const SETTLING: Duration = Duration::from_millis(100);
/// How often they are read again for that before the next look has to do.
const MOST_READINGS: usize = 4;

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
    /// Why what the files hold is not served, while that is so.
    cause: Mutex<Option<String>>,
    lookout: Lookout,
}

impl CertificateReloader {
    pub(super) fn new(certificate: ServerCertificate) -> Self {
        let held = Mutex::new(certificate.key.cert.clone());
        let current = Current {
            key: RwLock::new(certificate.key),
            files: certificate.files,
            held,
            cause: Mutex::default(),
            lookout: Lookout::default(),
        };
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
        let cause = self.current.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cause.or_else(|| self.current.lookout.ended().map(str::to_owned))
    }

    /// Calls [`reload`](Self::reload) again and again, this long after the last time, until the listener is gone; 10 ms to a day.
    /// Replace the files in any order: a pair that does not fit is tried again the next time. The task ends with the runtime that
    /// this is called in; if the listener is still there, the log and [`failing`](Self::failing) say so until this is called in
    /// another one.
    ///
    /// # Errors
    /// If the time is shorter or longer, the certificate did not come from files, or no tokio runtime with a timer runs here.
    pub fn reload_every(self, period: Duration) -> Result<(), ConfigError> {
        let refuse = |problem: &str| ConfigError::new("certificate reload", format!("{period:?}"), problem);
        if !(SHORTEST..=LONGEST).contains(&period) {
            return Err(refuse("must be 10 ms to a day"));
        }
        if self.current.files.is_none() {
            return Err(refuse("has no file to look at: the certificate did not come from files"));
        }
        let runtime = Handle::try_current().map_err(|_| refuse("needs a tokio runtime: call it inside one"))?;
        if !has_timer() {
            return Err(refuse("needs a tokio runtime with a timer: enable_time"));
        }
        let current: Weak<Current> = Arc::downgrade(&self.current);
        let mark = self.current.lookout.begin("certificate reload".to_owned());
        drop(self);
        runtime.spawn(async move {
            let _mark = mark;
            loop {
                sleep(period).await;
                let Some(current) = current.upgrade() else { return };
                // What went wrong is in the log.
                let _ = spawn_blocking(move || current.reload()).await;
            }
        });
        Ok(())
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
            return Err(ConfigError::new("certificate reload", "(PEM)", "did not come from files"));
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = newer(chain, key, &held);
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = newer.as_ref().err().map(ToString::to_string);
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

/// The certificate in the files if it is another one, once they stay the same: written in pieces, a chain is for a moment one that ends
/// between two of its certificates.
fn newer(chain: &Path, key: &Path, held: &[CertificateDer<'_>]) -> Result<Option<ServerCertificate>, ConfigError> {
    let mut last = ServerCertificate::from_pem_files(chain, key)?;
    if last.key.cert == held {
        return Ok(None);
    }
    for _ in 0..MOST_READINGS {
        std::thread::sleep(SETTLING);
        let again = ServerCertificate::from_pem_files(chain, key)?;
        if again.key.cert == last.key.cert {
            return Ok(Some(again));
        }
        last = again;
    }
    Err(ConfigError::new("certificate reload", chain.display().to_string(), "changes while it is read"))
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
