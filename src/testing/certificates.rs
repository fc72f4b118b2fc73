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
/// let billing = authority.client(["billing.internal", "spiffe://orders.invalid/billing"]);
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

    /// A certificate for a client of these names: with `://` in it a name is a URI, as SPIFFE has them, and otherwise one of DNS,
    /// such as `billing.internal`, or an address. They stand in the subject alternative name (RFC 5280 §4.2.1.6). The common name
    /// is the same in every certificate, and identifies nobody.
    ///
    /// # Panics
    /// If a name is not ASCII.
    #[must_use]
    pub fn client<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> TestCertificate {
        self.issue(&client(names))
    }

    /// The same, of a certificate that ended in 2001.
    ///
    /// # Panics
    /// As [`client`](Self::client).
    #[must_use]
    pub fn ended_client<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> TestCertificate {
        let mut params = client(names);
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> TestCertificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        TestCertificate { der: certificate.der().to_vec(), pem: certificate.pem(), key: key.serialize_pem() }
    }
}

fn client<'n>(names: impl IntoIterator<Item = &'n str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Where a service goes by it, everybody is the same, and a test sees it.
    params.distinguished_name.push(DnType::CommonName, "a client of a test");
    let named = |name: &str| match (name.contains("://"), name.parse()) {
        (true, _) => SanType::URI(name.try_into().expect("a URI is ASCII")),
        (false, Ok(address)) => SanType::IpAddress(address),
        (false, Err(_)) => SanType::DnsName(name.try_into().expect("a DNS name is ASCII")),
    };
    params.subject_alt_names = names.into_iter().map(named).collect();
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
            .with_client_certificate(self.client_certificate())
    }

    /// What a [`Connection`] knows of a client who proved that the certificate is its own.
    #[must_use]
    pub fn client_certificate(&self) -> ClientCertificate {
        ClientCertificate::from_der(&self.der)
    }
}

/// Without the key.
impl std::fmt::Debug for TestCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCertificate").field("pem", &self.pem).finish_non_exhaustive()
    }
}
