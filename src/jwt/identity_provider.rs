mod checks;

use std::sync::Arc;

use self::checks::{guid, host, list, numbers, refuse, slashless, url};
#[cfg(feature = "jwt-remote")]
use crate::jwt::keys::{LiveKeys, LiveKeysBuilder};
use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, IssuerProfile, KeySet,
        keys::{KeySource, Keys},
        profile::{ScopeForm, ServiceIf, TokenKind, Untyped},
        rules::{Bind, NameRule, Rules},
    },
};

/// The token profile of a well-known identity provider. It says what [`Issuer`](crate::jwt::Issuer) has to be told: issuer,
/// token kind, the claim that binds the token to us, algorithms, required claims, and how claims map to the
/// [`Principal`](crate::Principal). It becomes an [`IssuerProfile`] with the keys of the provider, and can be changed as any
/// other there.
///
/// Each profile was written from the provider's documentation, which its constructor names, and was **not tested against the
/// live service**.
///
/// ```no_run
/// use portcullis::jwt::{JwtAuthenticator, KeySet, Provider};
///
/// let keys = KeySet::from_jwks_file("keycloak.jwks")?;
/// let jwt = JwtAuthenticator::builder()
///     .issuer(Provider::keycloak("https://login.example.com/realms/shop", "orders-api")?.fixed(keys))
///     .build()?;
/// # let _ = jwt;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Provider {
    names: Vec<NameRule>,
    rules: Rules,
    published: Published,
}

/// Where a provider has its keys.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "jwt-remote"), expect(dead_code, reason = "only who fetches keys asks"))]
enum Published {
    /// Where the metadata of the first issuer says: at its own origin, or on one of these hosts.
    Metadata(&'static [&'static str]),
    /// At this URL, those of all its issuers.
    Set(&'static str),
}

impl Provider {
    fn new(issuer: impl Into<String>, rules: Rules) -> Self {
        Self {
            names: vec![NameRule::exactly(issuer.into())],
            rules: Rules { algorithms: vec![Algorithm::RS256], ..rules },
            published: Published::Metadata(&[]),
        }
    }

    const fn with_key_hosts(mut self, hosts: &'static [&'static str]) -> Self {
        self.published = Published::Metadata(hosts);
        self
    }

    /// The keys that the provider publishes: those that its metadata names, at its own origin or on the host that it documents. Google
    /// and Firebase: `www.googleapis.com`. Entra v1.0: `login.windows.net` and `login.microsoftonline.com`. Entra v2.0 with several
    /// tenants: the set of all tenants, `https://login.microsoftonline.com/common/discovery/v2.0/keys`, as the set that one tenant's
    /// metadata names is for that tenant.
    ///
    /// ```no_run
    /// use portcullis::jwt::Provider;
    ///
    /// let google = Provider::google(["web.apps.googleusercontent.com"])?;
    /// let keys = google.live_keys().build()?;
    /// let profile = google.with_keys(keys);
    /// # let _ = profile;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    #[cfg(feature = "jwt-remote")]
    pub fn live_keys(&self) -> LiveKeysBuilder {
        match self.published {
            Published::Set(url) => LiveKeys::jwks_url(url),
            Published::Metadata(hosts) => {
                let issuer = self.names.first().map_or("", |name| &name.iss);
                hosts.iter().fold(LiveKeys::discover(issuer), |keys, host| keys.allow_host(*host))
            }
        }
    }

    /// Allows these signature algorithms and no other (RFC 8725 §3.1). Default: RS256, which all of these providers sign with
    /// unless they are set up otherwise.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.rules.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Verifies with keys that do not change while the service runs. There must be one for each algorithm.
    pub fn fixed(self, keys: KeySet) -> IssuerProfile {
        IssuerProfile::new(self.names, Keys::Fixed(keys), self.rules)
    }

    /// Takes keys from this source, which may change while the service runs.
    pub fn with_keys(self, keys: impl KeySource) -> IssuerProfile {
        IssuerProfile::new(self.names, Keys::Source(Arc::new(keys)), self.rules)
    }

    /// Google: ID tokens for any of these OAuth clients. Source: Google Identity, "OpenID Connect" and "Verify the Google ID
    /// token on your server side".
    ///
    /// - `iss` is `https://accounts.google.com`, or the bare `accounts.google.com`, which Google documents as well; the
    ///   principal's issuer is the former for both, because it is one person.
    /// - `aud` is a client; so is `azp` if it is there. An app on a phone has a client of its own: list it too.
    /// - Anybody with a Google account gets such a token. To take those of one Workspace domain alone, add
    ///   `.claim_must_be("hd", ["example.com"])`.
    ///
    /// # Errors
    /// If there is no client or an empty one.
    pub fn google<T: Into<String>>(clients: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        const ISSUER: &str = "https://accounts.google.com";
        let mut rules = Rules::new(TokenKind::Id, Bind::Audience(list("Google clients", clients)?));
        require(&mut rules, ["iat"]);
        let mut provider = Self::new(ISSUER, rules).with_key_hosts(GOOGLE_KEYS);
        provider.names.push(NameRule {
            iss: "accounts.google.com".to_owned(),
            issuer: ISSUER.to_owned(),
            tenant: None,
        });
        Ok(provider)
    }

    /// Microsoft Entra ID, v2.0 access tokens of these tenants for this API. Source: Microsoft identity platform, "Access
    /// token claims reference" and "Secure applications and APIs by validating claims".
    ///
    /// - `iss` is `https://login.microsoftonline.com/{tenant}/v2.0` with one of the tenants, and `tid` is the same one;
    ///   `ver` is `2.0`. `tenants` are ids (GUIDs in lower case), not `common` and not names.
    /// - `audience` is the API's application id, a GUID: what v2.0 tokens have in `aud`.
    /// - `azp` and `azpacr` are required; no ID token has the latter. `scp` or `roles` is required: without one of them the
    ///   tenant never granted the API, as Microsoft documents it.
    /// - Scopes are `scp`, roles are `roles` (app roles), the tenant is `tid`. Groups and directory roles by choice:
    ///   `.roles_claim("groups")`, `.roles_claim("wids")`; with many groups Entra leaves them out of the token.
    /// - The principal is a service if `sub` is `oid`, as in app-only tokens, else a user. `sub` is another one in each API.
    ///
    /// # Errors
    /// If there is no tenant, one is not a GUID in lower case, or the audience is empty.
    pub fn entra<T: Into<String>>(
        tenants: impl IntoIterator<Item = T>,
        audience: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let mut provider = entra("2.0", ["azp", "azpacr"], tenants, audience, |tenant| {
            format!("https://login.microsoftonline.com/{tenant}/v2.0")
        })?;
        if provider.names.len() > 1 {
            provider.published = Published::Set("https://login.microsoftonline.com/common/discovery/v2.0/keys");
        }
        Ok(provider)
    }

    /// Microsoft Entra ID, v1.0 access tokens: those of an API whose manifest does not ask for v2.0. As
    /// [`entra`](Self::entra), but `iss` is `https://sts.windows.net/{tenant}/`, `ver` is `1.0`, `appid` and `appidacr` are
    /// required, `appid` is the client for [revocations](crate::revocation), and the audience is usually the application id URI,
    /// `api://` and a GUID.
    ///
    /// # Errors
    /// As [`entra`](Self::entra).
    pub fn entra_v1<T: Into<String>>(
        tenants: impl IntoIterator<Item = T>,
        audience: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let issuer_of = |tenant: &str| format!("https://sts.windows.net/{tenant}/");
        let mut provider = entra("1.0", ["appid", "appidacr"], tenants, audience, issuer_of)?;
        provider.rules.client = Some("appid".into());
        Ok(provider.with_key_hosts(&["login.windows.net", "login.microsoftonline.com"]))
    }

    /// Auth0: access tokens of this tenant for this API identifier. Source: Auth0 Docs, "Access Token Profiles".
    ///
    /// - `domain` is the tenant's domain or custom domain, `shop.eu.auth0.com`; `iss` is `https://{domain}/`.
    /// - Both of Auth0's formats are taken: its own (`typ` of `JWT`, client in `azp`) and RFC 9068 (`at+jwt`, `client_id`);
    ///   one of the two client claims is required. ID tokens are refused by their audience, which is a client: no
    ///   application may have the API identifier as its id.
    /// - Scopes are `scope`, permissions are `permissions`. Roles come in a claim that the tenant names itself:
    ///   `.roles_claim("https://example.com/roles")`. Organizations: `.tenant_claim("org_id")`.
    /// - The principal is a service if `sub` is the client and `@clients`.
    ///
    /// # Errors
    /// If the domain is not a bare host name, or the audience is empty.
    pub fn auth0(domain: &str, audience: impl Into<String>) -> Result<Self, ConfigError> {
        host("Auth0 domain", domain)?;
        let mut rules = access(Untyped::WithoutIdClaims, "Auth0 audience", audience)?;
        require(&mut rules, ["iat"]);
        rules.required.push(vec!["azp".into(), "client_id".into()]);
        rules.permissions = Some("permissions".into());
        rules.service_if = ServiceIf::SubjectIsClientWith("@clients");
        Ok(Self::new(format!("https://{domain}/"), rules))
    }

    /// Okta: access tokens of a custom authorization server. Source: Okta Developer, "Validate access tokens" and "OpenID
    /// Connect & OAuth 2.0 API", access token payload.
    ///
    /// - `issuer` is the server's issuer URI, `https://shop.okta.com/oauth2/default`. The org authorization server, without
    ///   `/oauth2/`, issues tokens for Okta's own APIs, which nobody else can verify.
    /// - `typ` is absent, or `JWT` or `at+jwt`; `cid`, `iat` and `jti` are required. No ID token has `cid`.
    /// - Scopes are `scp`, an array; roles are `groups`, if the server has such a claim.
    /// - The client is `cid`, for [revocations](crate::revocation) too. The principal is a service if `sub` is `cid`. Else `sub` is the
    ///   login name, which Okta lets people change: where that matters, map `sub` to something lasting in the server's settings.
    ///
    /// # Errors
    /// If the issuer is not a URL with `/oauth2/` in it and no slash at the end, or the audience is empty.
    pub fn okta(issuer: &str, audience: impl Into<String>) -> Result<Self, ConfigError> {
        slashless("Okta issuer", issuer, "/oauth2/")?;
        let mut rules = access(Untyped::WithoutIdClaims, "Okta audience", audience)?;
        require(&mut rules, ["iat", "jti", "cid"]);
        rules.scope = Some(("scp".into(), ScopeForm::Array));
        rules.roles = Some("groups".into());
        rules.client = Some("cid".into());
        rules.service_if = ServiceIf::SubjectIs("cid".into());
        Ok(Self::new(issuer, rules))
    }

    /// AWS Cognito: access tokens of a user pool for any of these app clients. Source: Amazon Cognito Developer Guide,
    /// "Understanding the access token" and "Verifying JSON web tokens".
    ///
    /// - `pool` is the pool's id, `eu-west-1_AbCdEfGhI`, and `iss` is made of it.
    /// - Such tokens have no `aud`: `client_id` is one of the clients, and `token_use` is `access`. One that has an `aud`, by a
    ///   resource binding, is refused.
    /// - Scopes are `scope`, roles are `cognito:groups`. The principal is a service if `sub` is `client_id`.
    ///
    /// # Errors
    /// If the pool is not a region, `_` and letters or digits; if there is no client or an empty one.
    pub fn cognito_access<T: Into<String>>(
        pool: &str,
        clients: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let bind = Bind::ClientId(list("Cognito clients", clients)?);
        cognito(pool, "access", Rules::new(TokenKind::Access(Untyped::ToldByClaim), bind))
    }

    /// AWS Cognito: ID tokens of a user pool for any of these app clients. Source: Amazon Cognito Developer Guide,
    /// "Understanding the identity (ID) token". As [`cognito_access`](Self::cognito_access), but `aud` is one of the clients
    /// and `token_use` is `id`.
    ///
    /// # Errors
    /// As [`cognito_access`](Self::cognito_access).
    pub fn cognito_id<T: Into<String>>(pool: &str, clients: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        cognito(pool, "id", Rules::new(TokenKind::Id, Bind::Audience(list("Cognito clients", clients)?)))
    }

    /// Keycloak: access tokens of a realm for this client. Source: Keycloak Server Administration Guide, "OIDC token and SAML
    /// assertion mappings" and "Audience support".
    ///
    /// - `realm` is the realm's URL, `https://login.example.com/realms/shop`.
    /// - The header's `typ` is `JWT` or `at+jwt`, the claim `typ` is `Bearer`, or `DPoP` in a token that is bound to a key
    ///   (`cnf.jkt`): ID and refresh tokens have another there. `azp`, `iat` and `jti` are required.
    /// - `client` is in `aud`, which Keycloak only fills if the realm has an audience mapper, or a role of the client is in
    ///   scope.
    /// - Roles are those of this client, `resource_access.{client}.roles`; a role of the same name at another client or in the
    ///   realm is another role. Realm roles instead: `.roles_claim(["realm_access", "roles"])`.
    /// - Every principal is a [`User`](crate::PrincipalKind::User), the service account of a client too: its `sub` is the id of a
    ///   user that Keycloak made for it, and only `preferred_username` tells, which people may choose where they register
    ///   themselves. Give service accounts a role that nobody else has, and ask for that.
    ///
    /// # Errors
    /// If the realm is not a URL with `/realms/` in it and no slash at the end, or the client is empty.
    pub fn keycloak(realm: &str, client: &str) -> Result<Self, ConfigError> {
        const DPOP: &str = "DPoP";
        slashless("Keycloak realm", realm, "/realms/")?;
        let mut rules = access(Untyped::ToldByClaim, "Keycloak client", client)?;
        require(&mut rules, ["azp", "iat", "jti"]);
        rules.expected.push(("typ".into(), vec!["Bearer".to_owned(), DPOP.to_owned()]));
        rules.key_bound_if = Some(("typ".into(), DPOP));
        rules.roles = Some(["resource_access", client, "roles"].into());
        Ok(Self::new(realm, rules))
    }

    /// Firebase Authentication, also Google Cloud Identity Platform: ID tokens of this project. Source: Firebase, "Verify ID
    /// tokens".
    ///
    /// - `iss` is `https://securetoken.google.com/{project}`, `aud` is the project; `iat` and `auth_time` are required and
    ///   not in the future.
    /// - Custom claims stand at the top level: `.roles_claim("roles")`. With multi-tenancy:
    ///   `.tenant_claim(["firebase", "tenant"])`.
    ///
    /// # Errors
    /// If the project is not of lower-case letters, digits and `-`.
    pub fn firebase(project: &str) -> Result<Self, ConfigError> {
        if project.is_empty() || !project.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return refuse("Firebase project", project, "must be of lower-case letters, digits and `-`");
        }
        let mut rules = Rules::new(TokenKind::Id, Bind::Audience(vec![project.to_owned()]));
        require(&mut rules, ["iat", "auth_time"]);
        Ok(Self::new(format!("https://securetoken.google.com/{project}"), rules).with_key_hosts(GOOGLE_KEYS))
    }

    /// GitHub Actions: the identity of a workflow run. Source: GitHub Docs, "OpenID Connect reference".
    ///
    /// - `audience` is what the workflow asks for; choose one of your own, not GitHub's default.
    /// - **Anybody** on GitHub gets a token with any audience. So `owners` is required: the ids of the users and
    ///   organizations whose repositories may call, as digits, compared with `repository_owner_id`. Ids, because the name of
    ///   an account that is gone can be taken by somebody else. Narrow it further with
    ///   `.claim_must_be("repository_id", [..])`, `.claim_must_be("ref", ["refs/heads/main"])` and so on: workflows of a pull
    ///   request run in the repository too.
    /// - The principal is a service, its tenant the owner's id, its subject as `repo:octo-org/octo-repo:ref:refs/heads/main`.
    ///
    /// # Errors
    /// If the audience is empty, there is no owner, or one is not of digits.
    pub fn github_actions<T: Into<String>>(
        audience: impl Into<String>,
        owners: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let mut rules = workload("GitHub Actions audience", audience)?;
        require(&mut rules, ["iat", "jti", "repository_id"]);
        rules.expected.push(("repository_owner_id".into(), numbers("GitHub owners", owners)?));
        rules.tenant = Some("repository_owner_id".into());
        Ok(Self::new("https://token.actions.githubusercontent.com", rules))
    }

    /// Kubernetes: tokens of service accounts, bound to an audience. Source: Kubernetes Documentation, "Managing Service
    /// Accounts" and "Configure Service Accounts for Pods", service account token volume projection.
    ///
    /// - `issuer` is what the API server was started with, `--service-account-issuer`, byte for byte. That of AKS ends with a
    ///   slash: `https://eastus.oic.prod-aks.azure.com/{tenant}/{cluster}/`.
    /// - `iat` and `["kubernetes.io", "serviceaccount", "uid"]` are required. Tokens of the old kind, in a Secret, have neither
    ///   `exp` nor this issuer, and are refused.
    /// - The principal is a service, its tenant the namespace, its subject as `system:serviceaccount:shop:orders`.
    /// - A token outlives its pod until `exp`: only the API server knows that the pod is gone.
    ///
    /// # Errors
    /// If the issuer is not a URL, or the audience is empty.
    pub fn kubernetes(issuer: &str, audience: impl Into<String>) -> Result<Self, ConfigError> {
        url("Kubernetes issuer", issuer, "")?;
        let mut rules = workload("Kubernetes audience", audience)?;
        require(&mut rules, ["iat"]);
        rules.required.push(vec![["kubernetes.io", "serviceaccount", "uid"].into()]);
        rules.tenant = Some(["kubernetes.io", "namespace"].into());
        Ok(Self::new(issuer, rules))
    }

    /// GitLab CI: the ID token of a job. Source: GitLab Docs, "OpenID Connect (OIDC) authentication using ID tokens".
    ///
    /// - `instance` is the URL of the instance, `https://gitlab.com`; `audience` is the job's `aud`.
    /// - **Anybody** on the instance gets a token with any audience. So `namespaces` is required: the ids of the groups or
    ///   users whose projects may call, as digits, compared with `namespace_id`, the group that the project stands in
    ///   directly. Narrow it further with `.claim_must_be("project_id", [..])` or
    ///   `.claim_must_be("ref_protected", ["true"])`.
    /// - The principal is a service, its tenant the namespace's id, its subject as
    ///   `project_path:shop/orders:ref_type:branch:ref:main`.
    ///
    /// # Errors
    /// If the instance is not a URL without a slash at the end, the audience is empty, there is no namespace, or one is not
    /// of digits.
    pub fn gitlab_ci<T: Into<String>>(
        instance: &str,
        audience: impl Into<String>,
        namespaces: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        slashless("GitLab instance", instance, "")?;
        let mut rules = workload("GitLab audience", audience)?;
        require(&mut rules, ["iat", "jti", "project_id"]);
        rules.expected.push(("namespace_id".into(), numbers("GitLab namespaces", namespaces)?));
        rules.tenant = Some("namespace_id".into());
        Ok(Self::new(instance, rules))
    }
}

/// Where Google's keys are, Firebase's too.
const GOOGLE_KEYS: &[&str] = &["www.googleapis.com"];

fn entra<T: Into<String>>(
    version: &str,
    client_claims: [&str; 2],
    tenants: impl IntoIterator<Item = T>,
    audience: impl Into<String>,
    issuer_of: impl Fn(&str) -> String,
) -> Result<Provider, ConfigError> {
    let mut rules = access(Untyped::WithoutIdClaims, "Entra audience", audience)?;
    require(&mut rules, ["iat"]);
    require(&mut rules, client_claims);
    rules.required.push(vec!["scp".into(), "roles".into()]);
    expect(&mut rules, "ver", version);
    rules.scope = Some(("scp".into(), ScopeForm::Text));
    rules.roles = Some("roles".into());
    rules.tenant = Some("tid".into());
    rules.token_id = Some("uti".into());
    rules.service_if = ServiceIf::SubjectIs("oid".into());
    let mut provider = Provider::new("", rules);
    provider.names = list("Entra tenants", tenants)?
        .into_iter()
        .map(|tenant| {
            guid(&tenant)?;
            let iss = issuer_of(&tenant);
            Ok(NameRule { tenant: Some(("tid".into(), tenant)), ..NameRule::exactly(iss) })
        })
        .collect::<Result<_, ConfigError>>()?;
    Ok(provider)
}

fn cognito(pool: &str, token_use: &str, mut rules: Rules) -> Result<Provider, ConfigError> {
    let region = match pool.split_once('_') {
        Some((region, id))
            if !region.is_empty()
                && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !id.is_empty()
                && id.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            region
        }
        Some(_) | None => return refuse("Cognito user pool", pool, "must be a region, `_` and letters or digits"),
    };
    require(&mut rules, ["iat"]);
    expect(&mut rules, "token_use", token_use);
    rules.roles = Some("cognito:groups".into());
    Ok(Provider::new(format!("https://cognito-idp.{region}.amazonaws.com/{pool}"), rules))
}

fn access(untyped: Untyped, setting: &str, audience: impl Into<String>) -> Result<Rules, ConfigError> {
    Ok(Rules::new(TokenKind::Access(untyped), Bind::Audience(list(setting, [audience])?)))
}

fn workload(setting: &str, audience: impl Into<String>) -> Result<Rules, ConfigError> {
    let rules = Rules::new(TokenKind::Workload, Bind::Audience(list(setting, [audience])?));
    Ok(Rules { service_if: ServiceIf::Always, ..rules })
}

fn require<const N: usize>(rules: &mut Rules, claims: [&str; N]) {
    rules.required.extend(claims.map(|claim| vec![claim.into()]));
}

fn expect(rules: &mut Rules, claim: &str, value: &str) {
    rules.expected.push((claim.into(), vec![value.to_owned()]));
}
