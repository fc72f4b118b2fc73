use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use http::HeaderName;

use crate::{
    authn::{Authenticator, Claim, Identity, Outcome},
    challenge::{Challenge, Challenges},
    client::{CertificateFacts, ClientCertificate},
    client_cert::{
        names::{Kind, Pattern, hex},
        spiffe::is_trust_domain,
    },
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    now::Now,
    principal::{Principal, PrincipalKind, Slot},
    rejection::{Rejection, RejectionKind},
};

const SCHEME: &str = "ClientCertificate";

/// Authenticates requests by the client's certificate. See the [module docs](crate::client_cert) for what is accepted.
///
/// A certificate of a connection is read once, by its first request; later ones cost a few comparisons and reference
/// counts. One that a proxy forwards is read anew with each request.
#[derive(Clone, Debug)]
pub struct ClientCertAuthenticator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Tells principals that were made by this authenticator apart from those of another.
    id: u64,
    settings: ClientCertAuthenticatorBuilder,
    offer: Challenge,
    refusal: Challenges,
}

/// Builds a [`ClientCertAuthenticator`].
#[must_use]
#[derive(Clone, Debug)]
pub struct ClientCertAuthenticatorBuilder {
    kind: Kind,
    allowed: Allowed,
    roles: Vec<(Pattern, Box<[Box<str>]>)>,
    tenants: Vec<(Pattern, Box<str>)>,
    slot: Slot,
    issuer: Arc<str>,
    realm: String,
}

#[derive(Clone, Debug)]
enum Allowed {
    Nobody,
    Listed(Vec<Pattern>),
    Everybody,
}

impl ClientCertAuthenticator {
    /// Identifies clients by a DNS name among the alternative names, in lower case. Wildcards name nobody.
    pub fn by_dns_name() -> ClientCertAuthenticatorBuilder {
        ClientCertAuthenticatorBuilder::new(Kind::DnsName)
    }

    /// Identifies clients by a URI among the alternative names, compared byte by byte.
    pub fn by_uri() -> ClientCertAuthenticatorBuilder {
        ClientCertAuthenticatorBuilder::new(Kind::Uri)
    }

    /// Identifies workloads by their SPIFFE ID (X.509-SVID), of these trust domains. A certificate must have exactly one
    /// URI. Every workload of the domains is allowed, unless [`allow`](ClientCertAuthenticatorBuilder::allow) says which.
    /// The principal's issuer is the trust domain, `spiffe://prod.example.com`.
    ///
    /// The roots that verify the chain may issue for each of the domains; a root of one domain that must not name
    /// workloads of another needs a listener of its own. Name constraints do not hold it: rustls knows those of DNS names and
    /// addresses alone.
    ///
    /// # Errors
    /// If the list is empty, or an item is not a trust domain.
    pub fn by_spiffe_id<I: IntoIterator<Item: AsRef<str>>>(
        trust_domains: I,
    ) -> Result<ClientCertAuthenticatorBuilder, ConfigError> {
        let domains: Box<[Box<str>]> = trust_domains.into_iter().map(|domain| domain.as_ref().into()).collect();
        if let Some(domain) = domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err(ConfigError::new("trust domains", format!("{domain:?}"), "is not a SPIFFE trust domain"));
        }
        if domains.is_empty() {
            return Err(ConfigError::new("trust domains", "[]", "must name a trust domain"));
        }
        let builder = ClientCertAuthenticatorBuilder::new(Kind::Spiffe(domains));
        Ok(ClientCertAuthenticatorBuilder { allowed: Allowed::Everybody, ..builder })
    }

    /// Identifies clients by the SHA-256 of their certificate: 64 hexadecimal digits, with or without colons in lists. A
    /// renewed certificate is another client.
    pub fn by_sha256() -> ClientCertAuthenticatorBuilder {
        ClientCertAuthenticatorBuilder::new(Kind::Sha256)
    }

    /// Identifies clients by the **full** distinguished name of the subject, as text (RFC 4514):
    /// `CN=billing,OU=Payments,O=Acme,C=DE`, as `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb` prints it. For
    /// authorities that write no alternative names. An attribute other than `CN`, `L`, `ST`, `O`, `OU`, `C`, `STREET`, `DC` and `UID`
    /// stands by its number with its value in DER, as `2.5.4.5=#13023737`, also where openssl has a name for it.
    ///
    /// A name that a proxy told without the certificate is compared as the proxy wrote it.
    pub fn by_full_subject_name() -> ClientCertAuthenticatorBuilder {
        ClientCertAuthenticatorBuilder::new(Kind::SubjectName)
    }

    /// The certificate's owner, or why it is nobody.
    fn identify(&self, certificate: &ClientCertificate, at: Instants) -> Result<Principal, Cow<'static, str>> {
        let facts = certificate.facts()?;
        if let Some((start, end)) = facts.validity {
            let now = i64::try_from(at.unix_seconds()).unwrap_or(i64::MAX);
            if now > end {
                return Err("is expired".into());
            }
            if now < start {
                return Err("is not valid yet".into());
            }
        }
        certificate.principal(self.shared.id, || self.make(facts))
    }

    fn make(&self, facts: &CertificateFacts) -> Result<Principal, Cow<'static, str>> {
        let settings = &self.shared.settings;
        let names = settings.kind.names(facts)?;
        let mut allowed = names.iter().filter(|name| settings.allows(name));
        let name = match (allowed.next(), allowed.next(), names.first()) {
            (Some(name), None, _) => name,
            (Some(_), Some(_), _) => {
                return Err(format!("has several {} that are allowed", settings.kind.describe_several()).into());
            }
            (None, _, Some(name)) => {
                return Err(format!("has a {} that is not allowed: {name}", settings.kind.describe()).into());
            }
            (None, _, None) => return Err(format!("has no {}", settings.kind.describe()).into()),
        };
        let mut roles: Vec<Box<str>> = Vec::new();
        for role in settings.roles.iter().filter(|(pattern, _)| pattern.matches(name)).flat_map(|(_, roles)| roles) {
            if !roles.contains(role) {
                roles.push(role.clone());
            }
        }
        let mut principal =
            Principal::builder(PrincipalKind::Service, settings.issuer_of(name), name.clone(), "client_cert")
                .credential_id(hex(&facts.sha256))
                .without_step_up()
                .roles(roles);
        // If several do, they say the same: `build` saw to that.
        if let Some((_, tenant)) = settings.tenants.iter().find(|(pattern, _)| pattern.matches(name)) {
            principal = principal.tenant(tenant);
        }
        if let Some(end) = facts.validity.and_then(|(_, end)| u64::try_from(end).ok()) {
            // The second of `notAfter` is within (RFC 5280 §4.1.2.5), that of `expires_at` is not.
            principal = principal.expires_at(end.saturating_add(1));
        }
        Ok(principal.build())
    }

    fn answer(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        let identified = match head.client() {
            Some(client) => match (client.malformed_certificate(), client.client_certificate()) {
                (Some(reason), _) => Err(format!("as forwarded {reason}").into()),
                (None, Some(certificate)) => self.identify(certificate, at),
                (None, None) => return Outcome::Absent,
            },
            // No layer looked at the connection yet.
            None => match head.connection().as_ref().and_then(|connection| connection.client_certificate()) {
                Some(certificate) => self.identify(certificate, at),
                None => return Outcome::Absent,
            },
        };
        match identified {
            Ok(principal) => {
                let identity = match self.shared.settings.slot {
                    Slot::Subject => Identity::from(principal),
                    Slot::Client => Identity::of_client(principal),
                };
                Outcome::Verified(identity.leaving_authorization().ambient())
            }
            Err(reason) => {
                let rejection =
                    Rejection::new(RejectionKind::InvalidCredential, format!("client certificate: {reason}"));
                Outcome::RefusedIfNeeded(rejection.with_challenges(self.shared.refusal.clone()))
            }
        }
    }
}

impl ClientCertAuthenticatorBuilder {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            allowed: Allowed::Nobody,
            roles: Vec::new(),
            tenants: Vec::new(),
            slot: Slot::Subject,
            issuer: "client-certificates".into(),
            realm: "api".to_owned(),
        }
    }

    /// Allows these clients, besides those allowed before. A DNS name may begin with `*.` for one label; a URI or SPIFFE ID
    /// may end with `/*` for everything below.
    ///
    /// # Errors
    /// If a name is not of the kind that clients are identified by.
    pub fn allow<I: IntoIterator<Item: AsRef<str>>>(mut self, names: I) -> Result<Self, ConfigError> {
        let mut listed = match self.allowed {
            Allowed::Listed(listed) => listed,
            Allowed::Nobody | Allowed::Everybody => Vec::new(),
        };
        for name in names {
            listed.push(Pattern::read(&self.kind, name.as_ref())?);
        }
        self.allowed = Allowed::Listed(listed);
        Ok(self)
    }

    /// Allows everybody to whom the roots issued a client certificate.
    pub fn allow_everybody_issued(mut self) -> Self {
        self.allowed = Allowed::Everybody;
        self
    }

    /// Gives these roles to the clients of this name, or of the names that it stands for as in [`allow`](Self::allow): first the client,
    /// then its roles. It allows nobody by itself.
    ///
    /// ```
    /// use portcullis::client_cert::ClientCertAuthenticator;
    ///
    /// let services = ClientCertAuthenticator::by_dns_name().allow(["*.internal"])?;
    /// assert!(services.clone().roles("billing.internal", ["invoices"])?.build().is_ok());
    /// assert!(services.roles("invoices", ["billing.internal"])?.build().is_err());
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As [`allow`](Self::allow). [`build`](Self::build) refuses roles for clients that are not allowed.
    pub fn roles<R: Into<Box<str>>>(
        mut self,
        name: impl AsRef<str>,
        roles: impl IntoIterator<Item = R>,
    ) -> Result<Self, ConfigError> {
        let pattern = Pattern::read(&self.kind, name.as_ref())?;
        self.roles.push((pattern, roles.into_iter().map(Into::into).collect()));
        Ok(self)
    }

    /// Says to which tenant the clients of this name belong, or of the names that it stands for as in [`allow`](Self::allow): first the
    /// client, then its tenant. It allows nobody by itself. Default: no tenant, so that a role policy, `same_tenant()` and a limit
    /// per tenant refuse them.
    ///
    /// ```
    /// use portcullis::client_cert::ClientCertAuthenticator;
    ///
    /// let tellers = ClientCertAuthenticator::by_spiffe_id(["bank.example"])?
    ///     .tenant("spiffe://bank.example/acme/*", "acme")?
    ///     .tenant("spiffe://bank.example/globex/*", "globex")?
    ///     .build()?;
    /// # let _ = tellers;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As [`allow`](Self::allow), or if the tenant is empty. [`build`](Self::build) refuses tenants for clients that are not allowed, and
    /// two tenants for one client.
    pub fn tenant(mut self, name: impl AsRef<str>, tenant: impl AsRef<str>) -> Result<Self, ConfigError> {
        let (pattern, tenant) = (Pattern::read(&self.kind, name.as_ref())?, tenant.as_ref());
        if tenant.is_empty() {
            return Err(ConfigError::new("tenant of client certificates", "\"\"", "must not be empty"));
        }
        self.tenants.push((pattern, tenant.into()));
        Ok(self)
    }

    /// Says that the certificate's owner does not act, but stands beside who does: it fills the slot of the client, and
    /// another authenticator the subject's, in [`one_of`](crate::authn::one_of) if the certificate may be missing, in
    /// [`both`](crate::authn::both) if not.
    pub const fn as_client(mut self) -> Self {
        self.slot = Slot::Client;
        self
    }

    /// Sets the [`issuer`](Principal::issuer) of the principals, `client-certificates` by default; SPIFFE IDs have their
    /// trust domain instead. Not empty. Two authenticators with roots that name clients independently need two.
    pub fn issuer_name(mut self, name: &str) -> Self {
        self.issuer = name.into();
        self
    }

    /// Sets the realm that challenges name (RFC 9110 §11.5), printable ASCII without quotes and backslashes, not empty. Default
    /// `api`.
    pub fn realm(mut self, realm: &str) -> Self {
        realm.clone_into(&mut self.realm);
        self
    }

    /// Finishes the authenticator.
    ///
    /// # Errors
    /// If nobody is allowed, roles or a tenant are given to clients none of whom is, a client would have two tenants, the issuer's name
    /// is empty, or the realm is one that a challenge cannot carry.
    pub fn build(self) -> Result<ClientCertAuthenticator, ConfigError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);

        if let Allowed::Nobody = self.allowed {
            let problem = "allows nobody: list clients with allow(..), or say allow_everybody_issued()";
            return Err(ConfigError::new("client certificates", "[]", problem));
        }
        let named = self.roles.iter().map(|(of, _)| (of, "roles", "its roles"));
        let named = named.chain(self.tenants.iter().map(|(of, _)| (of, "a tenant", "its tenant")));
        for (of, given, then) in named {
            if !self.may_allow(of) {
                let problem =
                    format!("is given {given}, and allow(..) does not name it: first the client's name, then {then}");
                return Err(ConfigError::new("client certificates", format!("{:?}", of.text()), problem));
            }
        }
        if let Some((one, other)) = self.torn_between() {
            let problem = format!("a client of this name belongs to {one:?} and to {:?}: it has one tenant", other.1);
            return Err(ConfigError::new("client certificates", format!("{:?}", other.0.text()), problem));
        }
        if self.issuer.is_empty() {
            return Err(ConfigError::new("issuer name", "\"\"", "must not be empty"));
        }
        let offer = Challenge::new(SCHEME, &self.realm)?;
        let refusal = [offer.clone().with("error", "invalid_certificate")?].into_iter().collect();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(ClientCertAuthenticator { shared: Arc::new(Shared { id, settings: self, offer, refusal }) })
    }

    /// Whether some of these may be allowed.
    fn may_allow(&self, names: &Pattern) -> bool {
        match &self.allowed {
            Allowed::Nobody => false,
            Allowed::Listed(listed) => listed.iter().any(|listed| listed.overlaps(names)),
            Allowed::Everybody => true,
        }
    }

    /// A tenant, and the names with another one to which some of its clients belong as well.
    fn torn_between(&self) -> Option<(&str, &(Pattern, Box<str>))> {
        self.tenants.iter().enumerate().find_map(|(at, other)| {
            let before = self.tenants.iter().take(at);
            let one = before.into_iter().find(|one| one.1 != other.1 && one.0.overlaps(&other.0))?;
            Some((&*one.1, other))
        })
    }

    fn allows(&self, name: &str) -> bool {
        match &self.allowed {
            Allowed::Nobody => false,
            Allowed::Listed(listed) => listed.iter().any(|pattern| pattern.matches(name)),
            Allowed::Everybody => true,
        }
    }

    fn issuer_of(&self, name: &str) -> Arc<str> {
        let domain = || name.strip_prefix("spiffe://")?.split('/').next();
        match (&self.kind, domain()) {
            (Kind::Spiffe(_), Some(domain)) => format!("spiffe://{domain}").into(),
            _ => Arc::clone(&self.issuer),
        }
    }
}

#[async_trait]
impl Authenticator for ClientCertAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        vec![self.shared.offer.clone()]
    }

    /// None: the certificate is evidence of the connection.
    fn credential_headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    fn claims(&self) -> Vec<Claim> {
        let what = match self.shared.settings.slot {
            Slot::Subject => "the client certificate",
            Slot::Client => "the client certificate of an application",
        };
        vec![Claim::all(what, "one lists all of the names, allow(..), of a kind that each certificate has")]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        Now::Known(self.answer(head, at))
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.answer(head, at)
    }
}
