use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
#[cfg(feature = "tls-self-signed")]
use rustls_pki_types::{DnsName, ServerName};
use tokio_rustls::rustls::{
    ConfigBuilder, ServerConfig, WantsVerifier,
    crypto::aws_lc_rs,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Instants, SystemClock},
    error::ConfigError,
};

/// A server's certificate, the chain up to its issuer, and its private key. `Debug` shows none of them.
///
/// The key is checked to belong to the certificate, and the certificate to be valid now; whether it is for the right name is
/// not.
#[must_use]
#[derive(Clone)]
pub struct ServerCertificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    /// Where chain and key came from.
    pub(super) files: Option<(PathBuf, PathBuf)>,
}

impl ServerCertificate {
    /// Reads the chain (the server's own certificate first) and the key from PEM files. Blocks; call it at start.
    ///
    /// # Errors
    /// If a file cannot be read, or as [`from_pem`](Self::from_pem).
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let (chain_name, key_name) = (chain.display().to_string(), key.display().to_string());
        let read = |path: &Path, setting, name: &str| {
            std::fs::read(path).map_err(|source| ConfigError::new(setting, name, "cannot be read").caused_by(source))
        };
        let chain_pem = read(chain, CHAIN, &chain_name)?;
        let key_pem = Zeroizing::new(read(key, KEY, &key_name)?);
        let mut certificate = Self::read(&chain_pem, &chain_name, &key_pem, &key_name)?;
        certificate.files = Some((chain.into(), key.into()));
        Ok(certificate)
    }

    /// Reads the chain (the server's own certificate first) and the key (PKCS #8, PKCS #1 or SEC 1) from PEM.
    ///
    /// # Errors
    /// If the PEM does not parse, there is no certificate or no key in it, the key is of a kind that is not supported or
    /// does not belong to the certificate, or the certificate is expired or not valid yet.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        Self::read(chain, "(PEM)", key, "(PEM)")
    }

    /// Makes a key and a certificate for these names and addresses, signed by itself. For development and tests: no
    /// client trusts it until it is told to. The key stays in memory.
    ///
    /// # Errors
    /// If a name is neither a DNS name nor an address.
    #[cfg(feature = "tls-self-signed")]
    pub fn self_signed<I: IntoIterator<Item: AsRef<str>>>(names: I) -> Result<Self, ConfigError> {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        let shown = format!("{names:?}");
        if names.is_empty() {
            return Err(ConfigError::new("self-signed certificate", shown, "must name a host"));
        }
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let problem = "is neither a DNS name nor an address";
            return Err(ConfigError::new("self-signed certificate", format!("{name:?}"), problem));
        }
        let made = rcgen::generate_simple_self_signed(names).map_err(|source| {
            ConfigError::new("self-signed certificate", &*shown, "cannot be made").caused_by(source)
        })?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Self::certify(vec![made.cert.der().clone()], key, &shown, &shown)
    }

    /// The server's own certificate as PEM, for a client to trust. Not the key.
    #[cfg(feature = "tls-self-signed")]
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};

        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(self.key.cert.first().map(AsRef::<[u8]>::as_ref).unwrap_or_default());
        for (index, char) in text.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                pem.push('\n');
            }
            pem.push(char);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
        pem
    }

    fn read(chain: &[u8], chain_name: &str, key: &[u8], key_name: &str) -> Result<Self, ConfigError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ConfigError::new(CHAIN, chain_name, "is not PEM").caused_by(without_text(&source)))?;
        if chain.is_empty() {
            return Err(ConfigError::new(CHAIN, chain_name, "has no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| {
            ConfigError::new(KEY, key_name, "has no private key in PEM").caused_by(without_text(&source))
        })?;
        Self::certify(chain, key, chain_name, key_name)
    }

    fn certify(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        chain_name: &str,
        key_name: &str,
    ) -> Result<Self, ConfigError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        // At start, and at a reload: there is no request whose time could be used.
        valid_at(&chain, chain_name, SystemClock::new().now())?;
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|source| {
            ConfigError::new(KEY, key_name, "does not belong to the certificate, or is not supported").caused_by(source)
        })?;
        // The provider is named: what the process chose for others, or failed to choose, does not matter here.
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|source| ConfigError::new(CHAIN, chain_name, "cannot be served").caused_by(source))?;
        Ok(Self { key: Arc::new(key), builder, files: None })
    }
}

/// Whether a client could ask for it, or for what a wildcard stands for.
#[cfg(feature = "tls-self-signed")]
fn is_name(name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => DnsName::try_from(parent).is_ok(),
        None => ServerName::try_from(name).is_ok(),
    }
}

/// The server's own certificate is neither expired nor not valid yet. Those of the chain are the client's business: it may
/// know another way to a root.
fn valid_at(chain: &[CertificateDer<'_>], name: &str, at: Instants) -> Result<(), ConfigError> {
    let refuse = |problem: String| Err(ConfigError::new(CHAIN, name, problem));
    let Some(first) = chain.first() else { return refuse("has no certificate".to_owned()) };
    let Ok((_, certificate)) = X509Certificate::from_der(first) else {
        return refuse("has a certificate that does not parse".to_owned());
    };
    let validity = certificate.validity();
    let now = i64::try_from(at.unix_seconds()).unwrap_or(i64::MAX);
    if now > validity.not_after.timestamp() {
        return refuse(format!("is expired since {}", validity.not_after));
    }
    if now < validity.not_before.timestamp() {
        return refuse(format!("is not valid before {}", validity.not_before));
    }
    Ok(())
}

/// What is wrong, without the text that the parser quotes: it may be the private key.
pub(super) fn without_text(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end: each marker needs a line of its own",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a broken marker",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::NoItemsFound => "there is no section of this kind",
        _ => "it cannot be parsed",
    }
}

const CHAIN: &str = "certificate chain";
const KEY: &str = "private key";

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "tls-self-signed")]
mod tests {
    use super::*;

    fn pem(names: &[&str]) -> (String, String) {
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_is_checked_at_start() {
        let ((chain, key), (_, other)) = (pem(&["localhost"]), pem(&["localhost"]));
        assert!(ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
        for (name, chain, key, setting) in [
            ("another's key", &*chain, &*other, KEY),
            ("no key", &chain, "", KEY),
            ("a certificate for a key", &chain, &chain, KEY),
            ("no certificate", "", &key, CHAIN),
            ("a key for a certificate", &key, &key, CHAIN),
            ("broken base64", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key, CHAIN),
        ] {
            let error = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert_eq!(error.setting(), setting, "{name}");
        }
    }

    #[test]
    fn an_expired_certificate_is_named_with_its_file() {
        let (year, key) = (i64::from(365 * 86_400), rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let made = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (chain_file, key_file) = (folder.path().join("server.crt"), folder.path().join("server.key"));
        std::fs::write(&chain_file, made.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let error = ServerCertificate::from_pem_files(&chain_file, &key_file).unwrap_err();
        assert_eq!((error.setting(), error.value()), (CHAIN, &*chain_file.display().to_string()));
        assert!(error.to_string().contains("is expired since Jan  1 00:00:00 2021"), "{error}");

        let chain = [made.der().clone()];
        let at = |seconds: i64| Instants::new(u64::try_from(seconds).unwrap() * 1_000_000_000, 0);
        let start = 1_577_836_800;
        assert!(valid_at(&chain, "", at(start)).is_ok() && valid_at(&chain, "", at(start + year)).is_ok());
        assert!(valid_at(&chain, "", at(start - 1)).unwrap_err().to_string().contains("is not valid before"));
        assert!(valid_at(&chain, "", at(start + year + 86_401)).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ServerCertificate::from_pem_files("/nowhere/server.crt", "/nowhere/server.key").unwrap_err();
        assert_eq!((error.setting(), error.value()), (CHAIN, "/nowhere/server.crt"));
    }

    #[test]
    fn the_certificate_comes_back_as_pem() {
        let (chain, key) = pem(&["localhost", "127.0.0.1"]);
        let certificate = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let lines = |pem: &str| pem.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&certificate.certificate_pem()), lines(&chain));
    }

    #[test]
    fn self_signed_needs_a_name() {
        assert!(ServerCertificate::self_signed(["localhost", "127.0.0.1"]).is_ok());
        assert!(ServerCertificate::self_signed([""; 0]).is_err());
        assert_eq!(ServerCertificate::self_signed(["h\u{f6}st"]).unwrap_err().value(), "\"h\u{f6}st\"");
    }

    /// A key in an environment variable often lost its line breaks; the parser's error then quotes the text.
    #[test]
    fn an_error_shows_no_key() {
        let (chain, key) = pem(&["localhost"]);
        let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
        let inside = body.get(20..40).unwrap();
        let bytes = format!("{:?}", inside.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        let one_line = key.replace('\n', " ");
        let cut = key.replacen("-----\n", "--", 1).replace('\n', "");
        for (name, chain, key) in [
            ("in one line", &*chain, &*one_line),
            ("marker cut short", &chain, &cut),
            ("in place of the chain", &one_line, &key),
            ("in place of the chain, marker cut short", &cut, &key),
        ] {
            let error = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            let mut shown = format!("{error} {error:?}");
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                shown.push_str(&format!(" {error} {error:?}"));
                source = error.source();
            }
            assert!(!shown.contains(inside) && !shown.contains(bytes), "{name}: {shown}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", ServerCertificate::self_signed(["localhost"]).unwrap()), "ServerCertificate { .. }");
    }
}
