use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tower::Layer;

use super::{
    strip::Strip,
    trust::{Family, TrustedProxies},
    undeclared, walk,
};
use crate::{
    client::{AddressSource, ClientInfo, Connection, ForwardedCertificate},
    clock::{Clock, SystemClock},
    context::{Envelope, Stage},
    gate::{Amend, Gate, Step},
    head::RequestHead,
    now::Now,
    rejection::Rejection,
};

/// The record's word for a forwarding header that does not parse where it matters.
const MALFORMED: &str = "malformed_forwarding_header";
/// The record's word for a certificate header that does not parse.
#[cfg(feature = "client-cert")]
const MALFORMED_CERTIFICATE: &str = "malformed_client_certificate_header";
/// The record's word for forwarding and identity headers that nobody vouches for.
pub(crate) const REMOVED: &str = "forwarding_headers_removed";

/// Finds out who is calling, and over what. See the [module docs](crate::evidence).
///
/// It refuses nothing by itself.
///
/// ```
/// use portcullis::evidence::{EvidenceLayer, TrustedProxies};
///
/// let layer = EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.7"])?);
/// # let _ = layer;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct EvidenceLayer {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    proxies: TrustedProxies,
    clock: Arc<dyn Clock>,
}

impl EvidenceLayer {
    /// Believes these proxies, and nobody else.
    pub fn new(proxies: TrustedProxies) -> Self {
        Self { shared: Arc::new(Shared { proxies, clock: Arc::new(SystemClock::new()) }) }
    }

    /// Reads the time from this clock if this is the outermost layer; otherwise the layer outside has read it already.
    /// Default: [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.shared).clock = Arc::new(clock);
        self
    }

    fn observe(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Strip {
        let proxies = &self.shared.proxies;
        let told = head.see_connection(|connection| match proxies.believed(connection) {
            Some(family) => {
                let (client, strip) = self.through_proxy(family, connection, head.headers(), envelope);
                (envelope.by_trusted_proxy, envelope.client) = (true, Some(client));
                Some(strip)
            }
            None => {
                envelope.client = Some(ClientInfo::of_connection(connection));
                None
            }
        });
        let strip = told.flatten().unwrap_or_else(|| Strip::needed(head.headers(), None, proxies));
        if strip != Strip::Nothing {
            proxies.count_removed();
            envelope.trail.flag(REMOVED);
            if !envelope.by_trusted_proxy {
                undeclared::tell(head, envelope.at);
            }
        }
        strip
    }

    /// What a trusted proxy says.
    fn through_proxy(
        &self,
        family: Family,
        connection: &Connection,
        headers: &HeaderMap,
        envelope: &mut Envelope,
    ) -> (ClientInfo, Strip) {
        let proxies = &self.shared.proxies;
        let peer = connection.peer().map(|peer| peer.ip().to_canonical());
        let (found, strip) = walk::walk(headers, peer, family, proxies);
        let source = if found.malformed {
            proxies.count_malformed();
            envelope.trail.flag(MALFORMED);
            AddressSource::MalformedProxyHeader
        } else {
            AddressSource::Proxy
        };
        let certificate = self.certificate(&found, headers, envelope);
        (ClientInfo::from_proxy(found.address, source, found.secure, found.host, certificate), strip)
    }

    #[cfg(not(feature = "client-cert"))]
    fn certificate(&self, _: &walk::Found, _: &HeaderMap, _: &mut Envelope) -> ForwardedCertificate {
        ForwardedCertificate::None
    }

    /// The certificate that the proxy forwards. A client that did not come over HTTPS has shown none.
    #[cfg(feature = "client-cert")]
    fn certificate(&self, found: &walk::Found, headers: &HeaderMap, envelope: &mut Envelope) -> ForwardedCertificate {
        let proxies = &self.shared.proxies;
        let Some(header) = proxies.certificate_header() else { return ForwardedCertificate::None };
        let told = match header.read(headers) {
            ForwardedCertificate::Known(_) if !found.secure => {
                ForwardedCertificate::Malformed("is told of a client that did not come over HTTPS")
            }
            told => told,
        };
        if matches!(told, ForwardedCertificate::Malformed(_)) {
            proxies.count_malformed();
            envelope.trail.flag(MALFORMED_CERTIFICATE);
        }
        told
    }
}

impl<S> Layer<S> for EvidenceLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl Step for EvidenceLayer {
    type Memo = Strip;

    fn stage(&self) -> Stage {
        Stage::Evidence
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Strip, Rejection>> {
        Now::Known(Ok(self.observe(head, envelope)))
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<Strip, Rejection> {
        Ok(self.observe(&head, envelope))
    }

    fn amend_request(&self, memo: &Strip, headers: &mut HeaderMap) {
        memo.apply(headers, &self.shared.proxies);
    }
}

impl Amend for Strip {
    fn amend(self, _: StatusCode, _: &mut HeaderMap) {}
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{TlsVersion, clock::Instants};

    fn observe(peer: &str, fields: &[(&str, &str)]) -> Envelope {
        let mut request = Request::builder();
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(Connection::tls(peer.parse().unwrap(), TlsVersion::Tls13));
        let layer = EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap());
        let mut envelope = Envelope::new(Instants::new(0, 0));
        layer.observe(&RequestHead::of(&request), &mut envelope);
        envelope
    }

    #[test]
    fn what_is_wrong_shows_in_the_record() {
        let (proxy, stranger) = ("10.0.12.7:1", "198.51.100.7:1");
        for (name, peer, fields, flags) in [
            ("nothing", proxy, &[][..], &[][..]),
            ("in order", proxy, &[("x-forwarded-for", "192.0.2.1")], &[]),
            ("garbage", proxy, &[("x-forwarded-for", "?")], &[MALFORMED]),
            ("the other family", proxy, &[("forwarded", "for=192.0.2.1")], &[REMOVED]),
            ("a stranger", stranger, &[("x-forwarded-for", "192.0.2.1")], &[REMOVED]),
            ("a stranger's garbage", stranger, &[("x-forwarded-for", "?")], &[REMOVED]),
        ] {
            assert_eq!(observe(peer, fields).trail.rare().flags, flags, "{name}");
        }
    }

    #[test]
    fn the_proxy_s_tls_is_not_the_client_s() {
        let secure = |peer, fields| observe(peer, fields).client.unwrap().is_secure();
        assert!(!secure("10.0.12.7:1", &[("x-forwarded-for", "192.0.2.1")]));
        assert!(!secure("10.0.12.7:1", &[("x-forwarded-proto", "http")]));
        assert!(secure("10.0.12.7:1", &[("x-forwarded-proto", "https")]));
        assert!(secure("198.51.100.7:1", &[("x-forwarded-proto", "http")]), "a stranger's own TLS");
    }
}
