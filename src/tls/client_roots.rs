use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::certificate::without_text;
use crate::error::ConfigError;

/// The authorities whose client certificates a [`TlsListener`](super::TlsListener) takes.
///
/// rustls verifies the chain at the handshake: signatures, validity, name constraints, and the use for clients. Whoever one
/// of these authorities issued a client certificate to gets through, so use an authority of your own, never the roots of
/// the public web.
#[derive(Clone)]
pub struct ClientRoots {
    required: Arc<dyn ClientCertVerifier>,
    optional: Arc<dyn ClientCertVerifier>,
    certificates: Arc<[CertificateDer<'static>]>,
    file: Option<PathBuf>,
}

impl ClientRoots {
    /// Reads certificates from a PEM file. Blocks; call it at start.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`from_pem`](Self::from_pem).
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let pem = std::fs::read(path)
            .map_err(|source| ConfigError::new(ROOTS, &*name, "cannot be read").caused_by(source))?;
        Ok(Self { file: Some(path.to_owned()), ..Self::read(&pem, &name)? })
    }

    /// Reads certificates from PEM, at least one.
    ///
    /// # Errors
    /// If the PEM does not parse, there is no certificate in it, or one cannot be used as a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ConfigError> {
        Self::read(pem, "(PEM)")
    }

    fn read(pem: &[u8], name: &str) -> Result<Self, ConfigError> {
        let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate
                .map_err(|source| ConfigError::new(ROOTS, name, "is not PEM").caused_by(without_text(&source)))?;
            roots.add(certificate.clone()).map_err(|source| {
                ConfigError::new(ROOTS, name, "has a certificate that is no root").caused_by(source)
            })?;
            certificates.push(certificate);
        }
        if roots.is_empty() {
            return Err(ConfigError::new(ROOTS, name, "has no certificate in it"));
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let refused = |source| ConfigError::new(ROOTS, name, "cannot verify clients").caused_by(source);
        let required = builder().build().map_err(|error| refused(error.to_string()))?;
        let optional = builder().allow_unauthenticated().build().map_err(|error| refused(error.to_string()))?;
        Ok(Self { required, optional, certificates: certificates.into(), file: None })
    }

    /// Whether these are the same authorities, in the same order.
    pub(super) fn are(&self, others: &Self) -> bool {
        self.certificates == others.certificates
    }

    /// Where they were read.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn required(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.required)
    }

    pub(super) fn optional(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.optional)
    }
}

pub(super) const ROOTS: &str = "client roots";

impl fmt::Debug for ClientRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRoots").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "tls-self-signed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_root_is_refused() {
        let made = rcgen::generate_simple_self_signed(["clients".to_owned()]).unwrap();
        assert!(ClientRoots::from_pem(made.cert.pem().as_bytes()).is_ok());
        for (name, pem) in [
            ("nothing", String::new()),
            ("a key", made.signing_key.serialize_pem()),
            ("broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned()),
            ("no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
        ] {
            assert_eq!(ClientRoots::from_pem(pem.as_bytes()).unwrap_err().setting(), ROOTS, "{name}");
        }
        assert_eq!(ClientRoots::from_pem_file("/nowhere/ca.crt").unwrap_err().value(), "/nowhere/ca.crt");
    }
}
