//! Issuers of tokens.

#[cfg(not(feature = "jwt-remote"))]
pub(super) fn read(
    document: &super::document::Document,
    report: &mut super::problem::Report<'_>,
) -> Option<Box<dyn crate::authn::Authenticator>> {
    if let Some(issuer) = document.issuers.first() {
        super::feature_is_off(issuer.at, "issuers", "jwt-remote", report);
    }
    if let Some(jwt) = &document.jwt {
        super::feature_is_off(jwt.at, "jwt", "jwt-remote", report);
    }
    None
}

#[cfg(feature = "jwt-remote")]
pub(super) use on::read;

#[cfg(feature = "jwt-remote")]
mod on {
    use crate::{
        authn::Authenticator,
        config::{
            document::{Document, Issuer as Written, Keys, ProviderText, TokensText},
            needed,
            problem::Report,
            tree::At,
        },
        jwt::{
            Algorithm, ClaimPath, Issuer, IssuerProfile, JwtAuthenticator, JwtAuthenticatorBuilder, Provider,
            TokenCache, keys::LiveKeys,
        },
        near::near,
    };

    const ALGORITHMS: [&str; 13] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
        "EdDSA",
    ];

    pub(in crate::config) fn read(document: &Document, report: &mut Report<'_>) -> Option<Box<dyn Authenticator>> {
        if document.issuers.is_empty() {
            if let Some(jwt) = document.jwt.as_ref().filter(|_| !report.took_from("issuers")) {
                report.add(jwt.at, "jwt", "the section", "is of no use without issuers: add [[issuers]]");
            }
            return None;
        }
        let settings = settings(document, report);
        let mut builder = settings.clone();
        let mut seen: Vec<(String, String)> = Vec::new();
        for (index, issuer) in document.issuers.iter().enumerate() {
            let field = report.item("issuers", index);
            let Some((name, profile)) = profile(issuer, &field, report) else { continue };
            // Each alone first: what is wrong with it has its own line then.
            let alone = JwtAuthenticator::builder().issuer(profile.clone()).build();
            if report.take(issuer.at, &field, alone).is_none() {
                continue;
            }
            if let Some((first, _)) = seen.iter().find(|(_, other)| *other == name) {
                let at = issuer.value.issuer.as_ref().map_or(issuer.at, |name| name.at);
                let advice = format!("stands in {first} as well: remove one of them");
                report.add(at, format!("{field}.issuer"), format!("{name:?}"), advice);
                continue;
            }
            seen.push((field, name));
            builder = builder.issuer(profile);
        }
        if seen.is_empty() {
            return None;
        }
        // What one issuer would refuse alone was told; what is left is of all of them.
        let at = document.jwt.as_ref().map_or(0, |jwt| jwt.at);
        report.take(at, "jwt", builder.build()).map(|jwt| Box::new(jwt) as Box<dyn Authenticator>)
    }

    fn settings(document: &Document, report: &mut Report<'_>) -> JwtAuthenticatorBuilder {
        let mut builder = JwtAuthenticator::builder();
        let Some(jwt) = &document.jwt else { return builder };
        let jwt = &jwt.value;
        if let Some(leeway) = &jwt.leeway {
            if leeway.value.0.as_secs() > 300 {
                report.add(leeway.at, "jwt.leeway", format!("{:?}", leeway.value.0), "must be at most 300s");
            } else {
                builder = builder.leeway(leeway.value.0);
            }
        }
        if let Some(realm) = &jwt.realm {
            builder = builder.realm(&realm.value);
        }
        for header in &jwt.headers {
            builder = builder.header(&header.value);
        }
        if let Some(cache) = &jwt.cache {
            let cache = &cache.value;
            if cache.off {
                for (name, at) in [
                    ("max_entries", cache.max_entries.as_ref().map(|entries| entries.at)),
                    ("max_bytes", cache.max_bytes.as_ref().map(|bytes| bytes.at)),
                    ("digest_keys", cache.digest_keys.value.then_some(cache.digest_keys.at)),
                ] {
                    let Some(at) = at else { continue };
                    let advice = "is of a cache, and it is off: remove one of them";
                    report.add(at, format!("jwt.cache.{name}"), "the setting", advice);
                }
            }
            let mut made = TokenCache::new();
            if let Some(entries) = &cache.max_entries {
                made = made.max_entries(entries.value);
            }
            if let Some(bytes) = &cache.max_bytes {
                made = made.max_bytes(bytes.value);
            }
            if cache.digest_keys.value {
                made = made.digest_keys();
            }
            builder = if cache.off { builder.without_cache() } else { builder.cache(made) };
        }
        builder
    }

    /// The issuer's name, and its profile.
    fn profile(written: &At<Written>, field: &str, report: &mut Report<'_>) -> Option<(String, IssuerProfile)> {
        let issuer = &written.value;
        strays(issuer, field, report);
        if let (Some(_), Some(array)) = (&issuer.scope_claim, &issuer.scope_array_claim) {
            let advice = "is in place of scope_claim: remove one of them";
            report.add(array.at, format!("{field}.scope_array_claim"), "a second claim", advice);
        }
        let algorithms = algorithms(issuer, field, report)?;
        let (name, profile) = match &issuer.provider {
            Some(provider) => {
                let mut made = self::provider(written, provider, field, report)?;
                if let Some(tokens) = issuer.tokens {
                    let advice = "is said by the provider: remove the line";
                    report.add(written.at, format!("{field}.tokens"), format!("{tokens:?}").to_lowercase(), advice);
                }
                if let Some(algorithms) = algorithms {
                    made = made.algorithms(algorithms);
                }
                let name = made.issuer().to_owned();
                let keys = keys(written, &name, field, report)?;
                (name, made.with_keys(keys))
            }
            None => {
                let name = needed(issuer.issuer.as_ref(), written.at, &format!("{field}.issuer"), "an issuer", report);
                let audience =
                    needed(issuer.audience.as_ref(), written.at, &format!("{field}.audience"), "an issuer", report);
                if algorithms.is_none() {
                    let advice = "is there, and an issuer without a provider needs it: add algorithms = [\"ES256\"]";
                    report.missing(written.at, format!("{field}.algorithms"), advice.to_owned());
                }
                let (name, audience, algorithms) = (name?, audience?, algorithms?);
                if audience.value.is_empty() {
                    report.add(
                        audience.at,
                        format!("{field}.audience"),
                        "\"\"",
                        "must not be empty: name this service",
                    );
                    return None;
                }
                let keys = keys(written, &name.value, field, report)?;
                let made = Issuer::with_keys(&name.value, keys);
                let made = match issuer.tokens.unwrap_or(TokensText::Access) {
                    TokensText::Access => made.access_tokens(&audience.value),
                    TokensText::Id => made.id_tokens(&audience.value),
                };
                (name.value.clone(), made.algorithms(algorithms))
            }
        };
        Some((name, with_claims(profile, issuer)))
    }

    /// Notes what is written and not read: it would restrict nothing.
    fn strays(issuer: &Written, field: &str, report: &mut Report<'_>) {
        let text = |text: &Option<At<String>>| text.as_ref().map(|text| (text.at, format!("{:?}", text.value)));
        let list = |list: &Option<At<Vec<String>>>| list.as_ref().map(|list| (list.at, format!("{:?}", list.value)));
        let provider = issuer.provider.as_ref().map(|provider| provider.value);
        let (read, client_claim): (&[&str], Option<&str>) = match provider {
            None => (&["issuer", "audience"], Some("client_id")),
            Some(ProviderText::Google) => (&["clients"], None),
            Some(ProviderText::Entra) => (&["tenants", "audience"], Some("azp")),
            Some(ProviderText::EntraV1) => (&["tenants", "audience"], Some("appid")),
            Some(ProviderText::Auth0) => (&["domain", "audience"], Some("azp")),
            Some(ProviderText::Okta) => (&["issuer", "audience"], Some("cid")),
            Some(ProviderText::Keycloak) => (&["issuer", "audience"], Some("azp")),
            Some(ProviderText::Kubernetes) => (&["issuer", "audience"], None),
            Some(ProviderText::CognitoAccess | ProviderText::CognitoId) => (&["pool", "clients"], None),
            Some(ProviderText::Firebase) => (&["project"], None),
            Some(ProviderText::GithubActions) => (&["audience", "owners"], None),
            Some(ProviderText::GitlabCi) => (&["issuer", "audience", "namespaces"], None),
        };
        let domain_claim = (provider == Some(ProviderText::Google)).then_some("hd");
        let tenant_claim = provider.is_none().then_some("tid");
        for (name, found, of, claim) in [
            ("issuer", text(&issuer.issuer), "other providers", None),
            ("audience", text(&issuer.audience), "other providers", None),
            ("clients", list(&issuer.clients), "google and cognito-*", client_claim),
            ("tenants", list(&issuer.tenants), "entra", tenant_claim),
            ("domain", text(&issuer.domain), "auth0", domain_claim),
            ("pool", text(&issuer.pool), "cognito-*", None),
            ("project", text(&issuer.project), "firebase", None),
            ("owners", list(&issuer.owners), "github-actions", None),
            ("namespaces", list(&issuer.namespaces), "gitlab-ci", None),
        ] {
            let Some((at, value)) = found.filter(|_| !read.contains(&name)) else { continue };
            let instead =
                claim.map_or(String::new(), |claim| format!(", or say claims = {{ {claim} = [..] }} instead"));
            report.add(at, format!("{field}.{name}"), value, format!("is of {of}: remove it{instead}"));
        }
    }

    fn with_claims(mut profile: IssuerProfile, issuer: &Written) -> IssuerProfile {
        let path = |path| ClaimPath::from(Vec::<String>::from(path));
        if let Some(claim) = &issuer.roles_claim {
            profile = profile.roles_claim(path(claim));
        }
        if let Some(claim) = &issuer.permissions_claim {
            profile = profile.permissions_claim(path(claim));
        }
        if let Some(claim) = &issuer.tenant_claim {
            profile = profile.tenant_claim(path(claim));
        }
        if let Some(claim) = &issuer.scope_claim {
            profile = profile.scope_claim(path(claim));
        }
        if let Some(claim) = &issuer.scope_array_claim {
            profile = profile.scope_array_claim(path(&claim.value));
        }
        if issuer.dangerous_untyped {
            profile = profile.dangerous_untyped();
        }
        if let Some(longest) = issuer.max_lifetime {
            profile = profile.max_lifetime(longest.0);
        }
        if let Some(oldest) = issuer.max_age {
            profile = profile.max_age(oldest.0);
        }
        for (claim, values) in &issuer.claims {
            profile = profile.claim_must_be(claim.as_str(), values.iter().cloned());
        }
        profile.may_lack(issuer.may_lack.iter().cloned()).required(issuer.required.iter().map(path))
    }

    /// The list, if there is one; none at all if it is not good.
    #[expect(clippy::option_option, reason = "no list is another thing than a bad one")]
    fn algorithms(issuer: &Written, field: &str, report: &mut Report<'_>) -> Option<Option<Vec<Algorithm>>> {
        let Some(written) = &issuer.algorithms else { return Some(None) };
        let mut known = Vec::new();
        for (index, name) in written.iter().enumerate() {
            match Algorithm::from_name(&name.value) {
                Some(algorithm) => known.push(algorithm),
                None => {
                    let meant = near(&name.value, ALGORITHMS);
                    let advice = format!("is no algorithm{meant}; there are: {}", ALGORITHMS.join(", "));
                    let item = report.item(&format!("{field}.algorithms"), index);
                    report.add(name.at, item, format!("{:?}", name.value), advice);
                }
            }
        }
        (known.len() == written.len()).then_some(Some(known))
    }

    fn keys(written: &At<Written>, name: &str, field: &str, report: &mut Report<'_>) -> Option<LiveKeys> {
        // What is left of an issuer would be told as wrong where it is not.
        if report.took_from(field) {
            return None;
        }
        let default =
            At { at: written.value.issuer.as_ref().map_or(written.at, |name| name.at), value: Keys::default() };
        let keys = written.value.keys.as_ref().unwrap_or(&default);
        let discover = keys.value.discover.as_ref();
        let places = usize::from(discover.is_some_and(|discover| discover.value))
            + usize::from(keys.value.url.is_some())
            + usize::from(keys.value.file.is_some());
        if places > 1 {
            let advice = "must say one place: discover = true, url = \"https://..\" or file = \"..\"";
            report.add(keys.at, format!("{field}.keys"), "several places", advice);
            return None;
        }
        if let (Some(discover), 0) = (discover, places) {
            let advice = "leaves no place of the keys: add url = \"https://..\" or file = \"..\"";
            report.add(discover.at, format!("{field}.keys.discover"), "false", advice);
            return None;
        }
        if keys.value.file.is_some() || keys.value.url.is_some() {
            for (index, host) in keys.value.allow_hosts.iter().enumerate() {
                let advice = "is of keys that the issuer's metadata names: remove it";
                let item = report.item(&format!("{field}.keys.allow_hosts"), index);
                report.add(host.at, item, format!("{:?}", host.value), advice);
            }
        }
        let loopback = &keys.value.dangerous_http_on_loopback;
        if keys.value.file.is_some() && loopback.value {
            let advice = "is of keys that come from a server: remove it";
            report.add(loopback.at, format!("{field}.keys.dangerous_http_on_loopback"), "true", advice);
        }
        let (at, of, mut builder) = match (&keys.value.url, &keys.value.file) {
            (Some(url), _) => (url.at, ".keys.url", LiveKeys::jwks_url(&url.value.0)),
            (None, Some(file)) => {
                if let Err(error) = std::fs::metadata(&file.value) {
                    let advice = format!("cannot be read: {error}");
                    report.add(file.at, format!("{field}.keys.file"), format!("{:?}", file.value), advice);
                    return None;
                }
                (file.at, ".keys.file", LiveKeys::jwks_file(&file.value))
            }
            (None, None) => (default.at, ".issuer", LiveKeys::discover(name)),
        };
        for host in &keys.value.allow_hosts {
            builder = builder.allow_host(&host.value);
        }
        if let Some(fresh) = keys.value.fresh_for {
            builder = builder.fresh_for(fresh.0);
        }
        if let Some(trust) = keys.value.trust_for {
            builder = builder.trust_for(trust.0);
        }
        if loopback.value {
            builder = builder.dangerous_http_on_loopback();
        }
        report.take(at, &format!("{field}{of}"), builder.build())
    }

    fn provider(
        written: &At<Written>,
        provider: &At<ProviderText>,
        field: &str,
        report: &mut Report<'_>,
    ) -> Option<Provider> {
        let issuer = &written.value;
        let by = format!("{:?}", provider.value);
        let mut text = |value: &Option<At<String>>, name: &str| {
            needed(value.as_ref(), provider.at, &format!("{field}.{name}"), &by, report).map(|text| text.value.clone())
        };
        let mut singles = [None, None];
        let lists = match provider.value {
            ProviderText::Google => Some((&issuer.clients, "clients")),
            ProviderText::Entra | ProviderText::EntraV1 => {
                singles = [text(&issuer.audience, "audience"), None];
                Some((&issuer.tenants, "tenants"))
            }
            ProviderText::Auth0 => {
                singles = [text(&issuer.domain, "domain"), text(&issuer.audience, "audience")];
                None
            }
            ProviderText::Okta | ProviderText::Keycloak | ProviderText::Kubernetes => {
                singles = [text(&issuer.issuer, "issuer"), text(&issuer.audience, "audience")];
                None
            }
            ProviderText::CognitoAccess | ProviderText::CognitoId => {
                singles = [text(&issuer.pool, "pool"), None];
                Some((&issuer.clients, "clients"))
            }
            ProviderText::Firebase => {
                singles = [text(&issuer.project, "project"), None];
                None
            }
            ProviderText::GithubActions => {
                singles = [text(&issuer.audience, "audience"), None];
                Some((&issuer.owners, "owners"))
            }
            ProviderText::GitlabCi => {
                singles = [text(&issuer.issuer, "issuer"), text(&issuer.audience, "audience")];
                Some((&issuer.namespaces, "namespaces"))
            }
        };
        let list = match lists {
            Some((value, name)) => {
                let list = needed(value.as_ref(), provider.at, &format!("{field}.{name}"), &by, report);
                list?.value.clone()
            }
            None => Vec::new(),
        };
        if report.took_from(field) {
            return None;
        }
        let [first, second] = singles;
        let made = match provider.value {
            ProviderText::Google => Provider::google(list),
            ProviderText::Entra => Provider::entra(list, first?),
            ProviderText::EntraV1 => Provider::entra_v1(list, first?),
            ProviderText::Auth0 => Provider::auth0(&first?, second?),
            ProviderText::Okta => Provider::okta(&first?, second?),
            ProviderText::Keycloak => Provider::keycloak(&first?, &second?),
            ProviderText::Kubernetes => Provider::kubernetes(&first?, second?),
            ProviderText::CognitoAccess => Provider::cognito_access(&first?, list),
            ProviderText::CognitoId => Provider::cognito_id(&first?, list),
            ProviderText::Firebase => Provider::firebase(&first?),
            ProviderText::GithubActions => Provider::github_actions(first?, list),
            ProviderText::GitlabCi => Provider::gitlab_ci(&first?, second?, list),
        };
        report.take(provider.at, &format!("{field}.provider"), made)
    }
}
