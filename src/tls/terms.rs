//! On which terms a listener's handshakes are made. They may change between two of them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::{
    ConfigBuilder, ServerConfig, WantsVerifier,
    server::{NoClientAuth, NoServerSessionStorage, danger::ClientCertVerifier},
};

use super::{certificate::ServerCertificate, client_roots::ClientRoots, reload::CertificateReloader, watch::Watch};

pub(super) struct Terms {
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    certificate: CertificateReloader,
    /// What the configuration below was made of. Locked while that is replaced.
    settings: Mutex<Settings>,
    config: RwLock<Arc<ServerConfig>>,
    /// Of the file with the authorities of clients.
    pub(super) roots: Watch,
}

struct Settings {
    http2: bool,
    clients: Clients,
}

/// Whether clients are asked for certificates, and whose count.
pub(super) enum Clients {
    NotAsked,
    Accepted(ClientRoots),
    Required(ClientRoots),
}

impl Clients {
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self {
            Self::NotAsked => Arc::new(NoClientAuth),
            Self::Accepted(roots) => roots.optional(),
            Self::Required(roots) => roots.required(),
        }
    }

    pub(super) const fn roots(&self) -> Option<&ClientRoots> {
        match self {
            Self::NotAsked => None,
            Self::Accepted(roots) | Self::Required(roots) => Some(roots),
        }
    }

    /// The same question, of other authorities. None where nobody is asked.
    pub(super) fn of(&self, roots: ClientRoots) -> Option<Self> {
        match self {
            Self::NotAsked => None,
            Self::Accepted(_) => Some(Self::Accepted(roots)),
            Self::Required(_) => Some(Self::Required(roots)),
        }
    }
}

impl Terms {
    pub(super) fn new(certificate: ServerCertificate) -> Self {
        let builder = certificate.builder.clone();
        let certificate = CertificateReloader::new(certificate);
        let settings = Settings { http2: false, clients: Clients::NotAsked };
        let config = RwLock::new(config(&builder, &certificate, &settings));
        Self { builder, certificate, settings: Mutex::new(settings), config, roots: Watch::default() }
    }

    pub(super) const fn certificate(&self) -> &CertificateReloader {
        &self.certificate
    }

    /// For one handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn offer_http2(&self) {
        self.edit(|settings| settings.http2 = true);
    }

    pub(super) fn ask_clients(&self, clients: Clients) {
        self.edit(|settings| settings.clients = clients);
    }

    /// Asks by other authorities from now on, if that is what comes of those that count now. Of two who change them at once, the second
    /// one sees what the first did; no handshake waits for either.
    pub(super) fn change_clients<E>(
        &self,
        change: impl FnOnce(&Clients) -> Result<Option<Clients>, E>,
    ) -> Result<bool, E> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clients) = change(&settings.clients)? else { return Ok(false) };
        settings.clients = clients;
        self.apply(&settings);
        Ok(true)
    }

    /// Whether the authorities of clients that count now came from a file.
    pub(super) fn has_roots_file(&self) -> bool {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.clients.roots().is_some_and(|roots| roots.file().is_some())
    }

    fn edit(&self, edit: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut settings);
        self.apply(&settings);
    }

    fn apply(&self, settings: &Settings) {
        let config = config(&self.builder, &self.certificate, settings);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

fn config(
    builder: &ConfigBuilder<ServerConfig, WantsVerifier>,
    certificate: &CertificateReloader,
    settings: &Settings,
) -> Arc<ServerConfig> {
    let verifier = settings.clients.verifier();
    let asks = verifier.offer_client_auth();
    let builder = builder.clone().with_client_cert_verifier(verifier);
    let mut config = builder.with_cert_resolver(certificate.resolver());
    let offered: &[&[u8]] = if settings.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    if asks {
        // A session that is resumed brings the client's certificate along, and nobody would see that it has expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Arc::new(config)
}
