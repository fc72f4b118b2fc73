use std::{fmt, sync::Arc};

use super::{
    client_roots::{ClientRoots, ROOTS},
    terms::Terms,
};
use crate::{error::ConfigError, log};

/// Changes the authorities whose client certificates a [`TlsListener`](super::TlsListener) takes, while it serves. Handshakes that
/// begin afterwards go by the new ones. Connections that are open stay open, also those of clients whose authority is gone: end
/// them with a new start, or give connections an age.
///
/// An authority is replaced in two steps, old and new one first, the new one alone once all clients have a certificate of it.
///
/// ```no_run
/// use portcullis::tls::{ClientRoots, ServerCertificate, TlsListener};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let certificate = ServerCertificate::from_pem_files("server.crt", "server.key")?;
/// let listener = TlsListener::bind("0.0.0.0:8443", certificate).await?
///     .require_client_certificates(&ClientRoots::from_pem_file("clients.pem")?);
/// let roots = listener.client_roots_reloader();
/// tokio::task::spawn_blocking(move || roots.reload()).await??; // on `SIGHUP`, for example
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientRootsReloader {
    terms: Arc<Terms>,
}

impl ClientRootsReloader {
    pub(super) const fn new(terms: Arc<Terms>) -> Self {
        Self { terms }
    }

    /// Takes certificates of these authorities from now on, and of no other.
    ///
    /// # Errors
    /// If the listener asks clients for no certificates.
    pub fn replace(&self, roots: ClientRoots) -> Result<(), ConfigError> {
        let replaced = self.terms.change_clients(|asked| asked.of(roots).map(Some).ok_or_else(nobody_is_asked));
        replaced.map(drop)
    }

    /// Reads the file again that the roots came from, and says whether it holds others than those that count; they count from now on then.
    /// Blocks as long as reading a small file takes; in async code call it in `spawn_blocking`.
    ///
    /// Replace the file by a rename: one that is written in pieces may hold fewer authorities for a moment, and counts so until the
    /// next time.
    ///
    /// # Errors
    /// If the listener asks clients for no certificates, the roots did not come from a file, or as [`ClientRoots::from_pem_file`]. The
    /// roots before count on then, and the log says so.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        let reloaded = self.terms.change_clients(|asked| {
            let now = asked.roots().ok_or_else(nobody_is_asked)?;
            let file = now.file().ok_or_else(|| ConfigError::new(ROOTS, "(PEM)", "did not come from a file"))?;
            let roots = ClientRoots::from_pem_file(file)?;
            Ok(if roots.are(now) { None } else { asked.of(roots) })
        });
        reloaded.inspect_err(|error: &ConfigError| {
            log::error(&format!("the authorities of clients were not reloaded, those before count on: {error}"));
        })
    }
}

fn nobody_is_asked() -> ConfigError {
    let problem = "stand for nothing: the listener asks clients for no certificates";
    ConfigError::new(ROOTS, "(none)", problem)
}

impl fmt::Debug for ClientRootsReloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRootsReloader").finish_non_exhaustive()
    }
}
