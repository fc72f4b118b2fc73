use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tower::Layer;

use super::{
    hosts::{self, Hosts},
    hsts::Hsts,
    redirect::Targets,
};
use crate::{
    client::{AddressSource, ClientInfo, TlsVersion},
    clock::{Clock, SystemClock},
    context::{Envelope, Stage},
    credential::fields::KNOWN,
    error::ConfigError,
    evidence::{REMOVED, any_forwarding},
    gate::{Amend, Gate, Step},
    head::RequestHead,
    now::Now,
    rejection::{Rejection, RejectionKind},
};

const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The record's word for a credential that anybody on the way could read; the request was refused.
const EXPOSED: &str = "credential_over_plain_http";
/// The record's word for a credential that was removed from an exempt request.
const IGNORED: &str = "credential_ignored_over_plain_http";

/// Refuses plain HTTP. See the [module docs](crate::tls).
///
/// ```
/// use http::Method;
/// use portcullis::tls::{Hsts, TlsLayer};
///
/// let layer = TlsLayer::require()
///     .hsts(Hsts::one_year().include_subdomains())
///     .redirect_to(["www.example.com"])?
///     .exempt(Method::GET, "/health")?;
/// # let _ = layer;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct TlsLayer {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    minimum: Option<TlsVersion>,
    hsts: Option<HeaderValue>,
    redirect: Option<Targets>,
    exempt: Vec<(Method, Box<str>)>,
    credentials: Vec<HeaderName>,
    plain_on_loopback: bool,
    hosts: Option<Hosts>,
    any_server_name: bool,
    clock: Arc<dyn Clock>,
}

impl TlsLayer {
    /// Refuses plain HTTP with `403`, sends no `Strict-Transport-Security`, and takes any TLS version and any host; but a
    /// host that is another one than the handshake's (`421`), and early data for what is not safe or has a DPoP proof (`425`).
    pub fn require() -> Self {
        let shared = Shared {
            minimum: None,
            hsts: None,
            redirect: None,
            exempt: Vec::new(),
            credentials: KNOWN.to_vec(),
            plain_on_loopback: false,
            hosts: None,
            any_server_name: false,
            clock: Arc::new(SystemClock::new()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends `GET` and `HEAD` for one of these hosts on to HTTPS, with `308`, path and query kept. Everything else is
    /// refused as before. Default: no redirect, because a client that is redirected never learns that its credential
    /// crossed the wire in the clear (OWASP ASVS 5.0, 4.1.2).
    ///
    /// An item is a host, or `host:port` for another port than 443. The request's host picks the item: `Host` or the
    /// authority (RFC 9110 §7.2), or what a trusted proxy says it was.
    ///
    /// # Errors
    /// If the list is empty, or an item is not a host, or none of the [`hosts`](Self::hosts) if those are said.
    pub fn redirect_to<I: IntoIterator<Item: AsRef<str>>>(mut self, hosts: I) -> Result<Self, ConfigError> {
        let targets = Targets::read(hosts)?;
        answered_for(&targets, self.shared.hosts.as_ref())?;
        self.set().redirect = Some(targets);
        Ok(self)
    }

    /// Answers for these hosts alone, and refuses others with `421` (RFC 9110 §15.5.20); a request that names no host, or
    /// two, is refused with `400`. Default: every host.
    ///
    /// An item is a host, or `host:port` if no other port counts (a request that names none means 443); `*.example.com` is one label more than `example.com`.
    /// The request's host is what [`redirect_to`](Self::redirect_to) says. Exempt paths are left out.
    ///
    /// # Errors
    /// If the list is empty, or an item is not a host, or a redirect leads to another one.
    pub fn hosts<I: IntoIterator<Item: AsRef<str>>>(mut self, hosts: I) -> Result<Self, ConfigError> {
        let hosts = Hosts::read(hosts)?;
        self.shared.redirect.as_ref().map_or(Ok(()), |targets| answered_for(targets, Some(&hosts)))?;
        self.set().hosts = Some(hosts);
        Ok(self)
    }

    /// Takes requests for another host than the one that the handshake named (SNI). For a server whose certificates and
    /// client roots are the same for all of its hosts, and whose clients do not understand `421`.
    pub fn allow_any_server_name(mut self) -> Self {
        self.set().any_server_name = true;
        self
    }

    /// Sends `Strict-Transport-Security` with responses to requests over HTTPS, in place of what the handler set. Never
    /// for `localhost` and address literals (RFC 6797 §8.1.1). Default: not sent.
    pub fn hsts(mut self, hsts: Hsts) -> Self {
        self.set().hsts = hsts.value();
        self
    }

    /// Passes this method and path over plain HTTP, for a health check. Both are compared exactly: `/health` is neither
    /// `/health/` nor `/Health`, and `GET` is not `HEAD`. The query may be anything.
    ///
    /// Credentials are removed from such a request: `Authorization`, `Proxy-Authorization`, `Cookie`, `X-API-Key`, `Api-Key`,
    /// `X-Auth-Token`, `DPoP`, `X-Goog-IAP-JWT-Assertion`, `X-Amzn-Oidc-Data`, `X-Amzn-Oidc-Accesstoken`,
    /// `X-Amz-Security-Token`, `Cf-Access-Jwt-Assertion`, and what [`credential_header`](Self::credential_header) names.
    ///
    /// # Errors
    /// If the path does not begin with `/`, or has a `?` or `#`.
    pub fn exempt(mut self, method: Method, path: impl Into<String>) -> Result<Self, ConfigError> {
        let path = path.into();
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(ConfigError::new("exempt path", format!("{path:?}"), "must begin with / and have no query"));
        }
        self.set().exempt.push((method, path.into()));
        Ok(self)
    }

    /// Treats this header as a credential, too, when it comes over plain HTTP. A `Stack` says it of every field that its
    /// authenticator reads; where layers are stacked by hand it must be said for fields of your own.
    pub fn credential_header(mut self, name: HeaderName) -> Self {
        let credentials = &mut self.set().credentials;
        if !credentials.contains(&name) {
            credentials.push(name);
        }
        self
    }

    /// Refuses older versions with `403`, where this process terminated TLS. Behind a proxy the version is not known, and
    /// the proxy has to see to it. Default: none, because rustls speaks nothing below TLS 1.2 (RFC 9325 §3.1.1).
    pub fn minimum_version(mut self, version: TlsVersion) -> Self {
        self.set().minimum = Some(version);
        self
    }

    /// Passes plain HTTP, credentials and all, if the connection's other end is a loopback address and nothing hints at a
    /// proxy: neither a trusted one, nor any forwarding header. For development.
    ///
    /// A proxy on the same machine that writes no forwarding header looks like a local client.
    pub fn dangerous_plain_http_on_loopback(mut self) -> Self {
        self.set().plain_on_loopback = true;
        self
    }

    /// Reads the time from this clock if this is the outermost layer; otherwise the layer outside has read it already.
    /// Default: [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.set().clock = Arc::new(clock);
        self
    }

    fn set(&mut self) -> &mut Shared {
        Arc::make_mut(&mut self.shared)
    }

    fn verify(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Result<Passed, Rejection> {
        let shared = &*self.shared;
        let proxied = shared.plain_on_loopback
            && (envelope.trail.rare().flags.contains(&REMOVED) || any_forwarding(head.headers()));
        let client = envelope.client_or_connection(|| head.connection())?;
        if client.is_secure() {
            return self.over_tls(head, client);
        }
        if shared.plain_on_loopback && !proxied && is_local(client) {
            return self.over_loopback(head);
        }
        let refusal = (!self.is_exempt(head)).then(|| self.refusal(head, client));
        let mut exposed = shared.credentials.iter().filter(|name| head.headers().contains_key(*name)).peekable();
        let credential = exposed.peek().is_some();
        if credential {
            envelope.trail.flag(if refusal.is_some() { EXPOSED } else { IGNORED });
            exposed.for_each(|name| envelope.trail.expose(name.clone()));
        }
        refusal.map_or(Ok(Passed::plain(credential)), Err)
    }

    fn refusal(&self, head: &RequestHead<'_>, client: &ClientInfo) -> Rejection {
        let redirect = self.shared.redirect.as_ref();
        match redirect.map(|targets| targets.answer(head.method(), head.uri(), host(head, client))) {
            Some(Ok(redirect)) => redirect,
            Some(Err(reason)) => Rejection::new(RejectionKind::PlainHttp, reason),
            None => Rejection::new(RejectionKind::PlainHttp, "plain HTTP"),
        }
    }

    fn over_tls(&self, head: &RequestHead<'_>, client: &ClientInfo) -> Result<Passed, Rejection> {
        let shared = &*self.shared;
        let server_name = if shared.any_server_name { None } else { client.server_name() };
        let hosts = self.hosts_of(head);
        let checked = hosts.is_some() || server_name.is_some();
        let named = (checked || shared.hsts.is_some()).then(|| hosts::named(head, client.forwarded_host()));
        let sts = match (&shared.hsts, &named) {
            (None, _) => Sts::AsIs,
            (Some(_), Some(Ok(host))) if host.is_local_or_literal() => Sts::Remove,
            (Some(value), _) => Sts::Set(value.clone()),
        };
        let below = shared.minimum.is_some_and(|minimum| client.tls_version().is_some_and(|it| it < minimum));
        let answer = match &named {
            _ if below => Err(Rejection::new(RejectionKind::PlainHttp, "the TLS version is below the minimum")),
            Some(named) if checked => hosts::check(named, hosts, 443, server_name),
            Some(_) | None => Ok(()),
        };
        match (answer.and_then(|()| no_replay(head)), sts) {
            (Ok(()), sts) => Ok(Passed { sts, drop_credentials: false }),
            (Err(rejection), Sts::Set(value)) => Err(rejection.with_header(header::STRICT_TRANSPORT_SECURITY, value)),
            (Err(rejection), Sts::AsIs | Sts::Remove) => Err(rejection),
        }
    }

    /// Plain HTTP of this machine: the list of hosts keeps a foreign name out that was bound to it.
    fn over_loopback(&self, head: &RequestHead<'_>) -> Result<Passed, Rejection> {
        if let Some(hosts) = self.hosts_of(head) {
            hosts::check(&hosts::named(head, None), Some(hosts), 80, None)?;
        }
        no_replay(head).map(|()| Passed::plain(false))
    }

    /// The list that the request is held to: a health check asks for an address.
    fn hosts_of(&self, head: &RequestHead<'_>) -> Option<&Hosts> {
        self.shared.hosts.as_ref().filter(|_| !self.is_exempt(head))
    }

    fn is_exempt(&self, head: &RequestHead<'_>) -> bool {
        self.shared.exempt.iter().any(|(method, path)| method == head.method() && **path == *head.path())
    }
}

/// A redirect to a host that is not answered for would be a way into `421`.
fn answered_for(targets: &Targets, hosts: Option<&Hosts>) -> Result<(), ConfigError> {
    let Some(outside) = hosts.and_then(|hosts| targets.outside(hosts)) else { return Ok(()) };
    let problem = "is none of the hosts that are answered for, and would be refused with 421: name it among the hosts, also if \
                   another server answers for it";
    Err(ConfigError::new("redirect hosts", format!("{outside:?}"), problem))
}

/// Early data can be sent again by whoever recorded it. Several or invalid values count as one that says so (RFC 8470 §5.1).
fn no_replay(head: &RequestHead<'_>) -> Result<(), Rejection> {
    let reason = if !head.method().is_safe() {
        "early data, and the method is not safe"
    } else if head.headers().contains_key(DPOP) {
        "early data, and a proof that is for one use"
    } else {
        return Ok(());
    };
    if head.headers().contains_key(EARLY_DATA) {
        return Err(Rejection::new(RejectionKind::TooEarly, reason));
    }
    Ok(())
}

/// Whether the client sits on this machine and talks to us directly.
fn is_local(client: &ClientInfo) -> bool {
    client.source() == AddressSource::Connection
        && client.address().is_some_and(|address| IpAddr::is_loopback(&address))
}

/// The host that the client asked for. A second `Host` makes it unknown.
fn host<'a>(head: &RequestHead<'a>, client: &'a ClientInfo) -> Option<&'a str> {
    client
        .forwarded_host()
        .or_else(|| head.uri().authority().map(http::uri::Authority::as_str))
        .or_else(|| head.single_header(&header::HOST).ok().flatten())
}

impl<S> Layer<S> for TlsLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl Step for TlsLayer {
    type Memo = Passed;

    fn stage(&self) -> Stage {
        Stage::Tls
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Passed, Rejection>> {
        Now::Known(self.verify(head, envelope))
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<Passed, Rejection> {
        self.verify(&head, envelope)
    }

    fn amend_request(&self, memo: &Passed, headers: &mut HeaderMap) {
        if memo.drop_credentials {
            for name in &self.shared.credentials {
                headers.remove(name);
            }
        }
    }
}

/// A request that passed.
#[derive(Debug)]
pub(crate) struct Passed {
    sts: Sts,
    drop_credentials: bool,
}

/// What becomes of the response's `Strict-Transport-Security`.
#[derive(Debug)]
enum Sts {
    AsIs,
    Remove,
    Set(HeaderValue),
}

impl Passed {
    /// Over plain HTTP, where the header must not be sent (RFC 6797 §7.2).
    const fn plain(drop_credentials: bool) -> Self {
        Self { sts: Sts::Remove, drop_credentials }
    }
}

impl Amend for Passed {
    fn amend(self, _: StatusCode, headers: &mut HeaderMap) {
        match self.sts {
            Sts::AsIs => {}
            Sts::Remove => {
                headers.remove(header::STRICT_TRANSPORT_SECURITY);
            }
            Sts::Set(value) => {
                headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{Connection, clock::Instants};

    fn flags(layer: &TlsLayer, path: &str, fields: &[(&str, &str)]) -> Vec<&'static str> {
        let mut request = Request::get(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(Connection::plain("198.51.100.7:1".parse().unwrap()));
        let mut envelope = Envelope::new(Instants::new(0, 0));
        let _ = layer.verify(&RequestHead::of(&request), &mut envelope);
        envelope.trail.rare().flags.clone()
    }

    #[test]
    fn an_exposed_credential_shows_in_the_record() {
        let layer = TlsLayer::require()
            .exempt(Method::GET, "/health")
            .unwrap()
            .redirect_to(["a.example"])
            .unwrap()
            .credential_header(HeaderName::from_static("x-device-key"));
        let names = ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-device-key"];
        for name in names {
            assert_eq!(flags(&layer, "/", &[(name, "secret")]), [EXPOSED], "{name}");
            assert_eq!(flags(&layer, "/", &[(name, "secret"), ("host", "a.example")]), [EXPOSED], "{name}, redirected");
            assert_eq!(flags(&layer, "/health", &[(name, "secret")]), [IGNORED], "{name}, exempt");
        }
        assert!(flags(&layer, "/", &[("host", "a.example")]).is_empty());
        assert!(flags(&layer, "/health", &[]).is_empty());
    }

    #[test]
    fn an_exempt_path_is_a_path() {
        for path in ["", "health", "*", "/health?x", "/health#x", "http://a/health"] {
            assert_eq!(TlsLayer::require().exempt(Method::GET, path).unwrap_err().value(), format!("{path:?}"));
        }
    }
}
