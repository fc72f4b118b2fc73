//! The certificate authorities that a client trusts.

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::error::ConfigError;

const SETTING: &str = "certificate authorities";

/// Those of this PEM text, each of which must be one; without a text the system's, as far as they can be read.
pub(crate) fn trusted(pem: Option<&[u8]>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate
                    .map_err(|error| ConfigError::new(SETTING, "PEM text", "cannot be read").caused_by(error))?;
                // Left out, it would be missed when the peer's certificate is changed to one of it.
                roots.add(certificate).map_err(|error| {
                    ConfigError::new(SETTING, "PEM text", "has a certificate that is no authority's").caused_by(error)
                })?;
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(ConfigError::new(SETTING, "none", "would trust nobody"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_a_text_is_one() {
        let good = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap().cert.pem();
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(trusted(Some(good.repeat(2).as_bytes())).unwrap().len(), 2);
        for (name, pem, problem) in [
            ("nothing", String::new(), "trust nobody"),
            ("a bad one", bad.to_owned(), "no authority's"),
            ("a bad one behind a good one", format!("{good}{bad}"), "no authority's"),
            ("a bad one before a good one", format!("{bad}{good}"), "no authority's"),
            ("no base64", bad.replace("AAAA", "!"), "cannot be read"),
        ] {
            let error = trusted(Some(pem.as_bytes())).unwrap_err();
            assert!(error.setting() == SETTING && error.to_string().contains(problem), "{name}: {error}");
        }
    }
}
