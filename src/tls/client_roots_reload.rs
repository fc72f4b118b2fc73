use std::{fmt, sync::Arc, time::Duration};

use super::{
    client_roots::{ClientRoots, ROOTS},
    terms::{Clients, Terms},
    watch,
};
use crate::{error::ConfigError, log};

/// Changes the authorities whose client certificates a [`TlsListener`](super::TlsListener) takes, while it serves. Handshakes that
/// begin afterwards go by the new ones. Connections that are open stay open, also those of clients whose authority is gone: end
/// them with a new start, or give connections an age.
///
/// An authority is replaced in two steps, old and new one first, the new one alone once all clients have a certificate of it.
///
/// ```no_run
/// use std::time::Duration;
/// use portcullis::tls::{ClientRoots, ServerCertificate, TlsListener};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let certificate = ServerCertificate::from_pem_files("server.crt", "server.key")?;
/// let listener = TlsListener::bind("0.0.0.0:8443", certificate).await?
///     .require_client_certificates(&ClientRoots::from_pem_file("clients.pem")?);
/// listener.client_roots_reloader().reload_every(Duration::from_secs(3600))?;
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

    /// Takes certificates of these authorities from now on, and of no other. Waits for a [`reload`](Self::reload) that is under way.
    ///
    /// # Errors
    /// If the listener asks clients for no certificates.
    pub fn replace(&self, roots: ClientRoots) -> Result<(), ConfigError> {
        let replaced = self.terms.change_clients(|asked| {
            let asked = asked.of(roots).map(Some).ok_or_else(nobody_is_asked)?;
            // Before anybody else changes them, as below: what is noted last is what came last.
            self.terms.roots.note(&Ok(()));
            Ok(asked)
        });
        replaced.map(drop)
    }

    /// Reads the file again that the roots came from, and says whether it holds others than those that count; they count from now on then.
    /// Blocks as long as reading a small file takes, and where it has changed 100 ms longer, until it stays the same, or 400 ms at most;
    /// in async code call it in `spawn_blocking`.
    ///
    /// Replace the file by a rename: of one that is written more slowly, in pieces, fewer authorities may count until the next time.
    ///
    /// # Errors
    /// If the listener asks clients for no certificates, the roots did not come from a file, or as [`ClientRoots::from_pem_file`]. The
    /// roots before count on then, and the log says so.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        reload(&self.terms)
    }

    /// Why newer authorities would not count, while that is so: the last [`reload`](Self::reload) failed, or the runtime that
    /// [`reload_every`](Self::reload_every) was called in is gone, and with it the task that looks at the file. For a readiness check;
    /// the operator reads it, no client does.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.terms.roots.failing()
    }

    /// Calls [`reload`](Self::reload) again and again, this long after the last time, until the listener is gone; 10 ms to a day. Roots
    /// that [`replace`](Self::replace) took from memory have no file, and stay. The task ends with the runtime that this is called in; if
    /// the listener is still there, the log and [`failing`](Self::failing) say so until this is called in another one.
    ///
    /// # Errors
    /// If the time is shorter or longer, the roots did not come from a file, the listener asks clients for no certificates, or no
    /// tokio runtime with a timer runs here.
    pub fn reload_every(self, period: Duration) -> Result<(), ConfigError> {
        let no_file =
            (!self.terms.has_roots_file()).then_some("has no file to look at: no roots of clients came from one");
        let look = |terms: &Terms| if terms.has_roots_file() { reload(terms) } else { Ok(false) };
        watch::reload_every(("reload of client roots", period), no_file, &self.terms, |terms| &terms.roots, look)
    }
}

fn reload(terms: &Terms) -> Result<bool, ConfigError> {
    let reloaded = terms.change_clients(|asked| {
        let newer = newer(asked);
        terms.roots.note(&newer);
        newer
    });
    reloaded.inspect_err(|error: &ConfigError| {
        log::error(&format!("the authorities of clients were not reloaded, those before count on: {error}"));
    })
}

/// The same question of the authorities in the file, if they are others than those that count, once the file stays the same.
fn newer(asked: &Clients) -> Result<Option<Clients>, ConfigError> {
    let now = asked.roots().ok_or_else(nobody_is_asked)?;
    let file = now.file().ok_or_else(|| ConfigError::new(ROOTS, "(PEM)", "did not come from a file"))?;
    let newer = watch::settled(
        || ClientRoots::from_pem_file(file),
        |roots| !roots.are(now),
        ClientRoots::are,
        || ConfigError::new(ROOTS, file.display().to_string(), "changes while it is read"),
    )?;
    Ok(newer.and_then(|roots| asked.of(roots)))
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
