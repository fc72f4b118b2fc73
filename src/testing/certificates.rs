#![expect(clippy::expect_used, reason = "test code stops where it cannot go on; nothing here depends on a client")]

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::{
    client::{ClientCertificate, Connection, TlsVersion},
    tls::ServerCertificate,
};

/// A certificate authority for tests, with a key of its own in each run, and the certificates that it issues.
///
/// ```
/// use portcullis::testing::TestAuthority;
///
/// let authority = TestAuthority::new("orders test authority");
/// let server = authority.server(["localhost"]);
/// let billing = authority.client("billing", ["spiffe://orders.invalid/billing"]);
/// let over_mutual_tls = billing.connection(); // for the extensions of a request
/// # let _ = (server.server_certificate(), over_mutual_tls);
/// ```
#[derive(Debug)]
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate of a [`TestAuthority`], and its key.
#[derive(Clone)]
pub struct TestCertificate {
    der: Vec<u8>,
    pem: String,
    key: String,
}

impl TestAuthority {
    /// Makes an authority of this name.
    ///
    /// # Panics
    /// If no key can be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        super::not_for_production();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, for who is to trust it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server of these names and addresses.
    ///
    /// # Panics
    /// If one of them is neither.
    #[must_use]
    pub fn server<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> TestCertificate {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("names of hosts, or addresses");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A certificate for a client: its common name, and URIs that name it, as SPIFFE does.
    ///
    /// # Panics
    /// If a URI is not ASCII.
    #[must_use]
    pub fn client<'u>(&self, name: &str, uris: impl IntoIterator<Item = &'u str>) -> TestCertificate {
        self.issue(&client(name, uris))
    }

    /// The same, of a certificate that ended in 2001.
    ///
    /// # Panics
    /// As [`client`](Self::client).
    #[must_use]
    pub fn ended_client<'u>(&self, name: &str, uris: impl IntoIterator<Item = &'u str>) -> TestCertificate {
        let mut params = client(name, uris);
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> TestCertificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        TestCertificate { der: certificate.der().to_vec(), pem: certificate.pem(), key: key.serialize_pem() }
    }
}

fn client<'u>(name: &str, uris: impl IntoIterator<Item = &'u str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = |uri: &str| SanType::URI(uri.try_into().expect("a URI is ASCII"));
    params.subject_alt_names = uris.into_iter().map(uri).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl TestCertificate {
    /// The certificate, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, in PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// What a TLS listener takes.
    ///
    /// # Panics
    /// If the certificate has ended.
    pub fn server_certificate(&self) -> ServerCertificate {
        ServerCertificate::from_pem(self.pem.as_bytes(), self.key.as_bytes()).expect("a certificate that is good now")
    }

    /// A connection over TLS 1.3 from 198.51.100.7 whose client proved that the certificate is its own.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection::tls(([198, 51, 100, 7], 52_100).into(), TlsVersion::Tls13)
            .with_client_certificate(ClientCertificate::from_der(&self.der))
    }
}

/// Without the key.
impl std::fmt::Debug for TestCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCertificate").field("pem", &self.pem).finish_non_exhaustive()
    }
}
