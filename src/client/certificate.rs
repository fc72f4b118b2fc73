#[cfg(feature = "client-cert")]
use std::sync::OnceLock;
use std::{fmt, sync::Arc};

#[cfg(feature = "client-cert")]
use super::x509::CertificateFacts;
#[cfg(feature = "client-cert")]
use crate::principal::Principal;

/// A client's certificate, whose chain was verified by whoever terminated TLS: this process, or a trusted proxy.
///
/// Who it belongs to is read once, when somebody asks, and shared by all clones: a connection reads its certificate once
/// and not for each request. A clone costs one reference count. `Debug` shows nothing of it.
///
/// ```
/// use portcullis::{ClientCertificate, Connection, TlsVersion};
///
/// # fn accepted(der: &[u8]) -> Connection {
/// // `der` is what the TLS library verified, such as the first of rustls' `peer_certificates()`.
/// let peer = "198.51.100.7:52100".parse().unwrap();
/// Connection::tls(peer, TlsVersion::Tls13).with_client_certificate(ClientCertificate::from_der(der))
/// # }
/// ```
#[derive(Clone)]
pub struct ClientCertificate {
    shared: Arc<Shared>,
}

struct Shared {
    form: Form,
    #[cfg(feature = "client-cert")]
    facts: OnceLock<Result<CertificateFacts, &'static str>>,
    /// Of the first authenticator that asked, with its id.
    #[cfg(feature = "client-cert")]
    principal: OnceLock<(u64, Principal)>,
}

#[derive(PartialEq, Eq)]
enum Form {
    Der(Box<[u8]>),
    /// A proxy named what is in it, and kept the certificate to itself.
    #[cfg(feature = "client-cert")]
    Told(CertificateFacts),
}

impl ClientCertificate {
    /// Takes the certificate (X.509, DER) that was verified.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Self {
        Self::of(Form::Der(der.into()))
    }

    #[cfg(feature = "client-cert")]
    pub(crate) fn told(facts: CertificateFacts) -> Self {
        Self::of(Form::Told(facts))
    }

    fn of(form: Form) -> Self {
        let shared = Shared {
            form,
            #[cfg(feature = "client-cert")]
            facts: OnceLock::new(),
            #[cfg(feature = "client-cert")]
            principal: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The certificate in DER. None if a proxy told what is in it, and not the certificate.
    #[must_use]
    pub fn der(&self) -> Option<&[u8]> {
        match &self.shared.form {
            Form::Der(der) => Some(der),
            #[cfg(feature = "client-cert")]
            Form::Told(_) => None,
        }
    }

    /// The SHA-256 of the certificate in DER, as a token that is bound to it names it (`x5t#S256`, RFC 8705 §3.1). None if
    /// the certificate does not parse.
    #[cfg(feature = "client-cert")]
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.facts().ok().map(|facts| facts.sha256)
    }

    /// What is in it, or why that cannot be told.
    #[cfg(feature = "client-cert")]
    pub(crate) fn facts(&self) -> Result<&CertificateFacts, &'static str> {
        match &self.shared.form {
            Form::Told(facts) => Ok(facts),
            Form::Der(der) => {
                let facts = self.shared.facts.get_or_init(|| CertificateFacts::read(der));
                facts.as_ref().map_err(|reason| *reason)
            }
        }
    }

    /// The principal that the authenticator of this id makes of the certificate: once, if it is the first that asks.
    #[cfg(feature = "client-cert")]
    pub(crate) fn principal<E>(&self, id: u64, make: impl FnOnce() -> Result<Principal, E>) -> Result<Principal, E> {
        match self.shared.principal.get() {
            Some((of, principal)) if *of == id => Ok(principal.clone()),
            Some(_) => make(),
            None => {
                let principal = make()?;
                let _ = self.shared.principal.set((id, principal.clone()));
                Ok(principal)
            }
        }
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) || self.shared.form == other.shared.form
    }
}

impl Eq for ClientCertificate {}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
