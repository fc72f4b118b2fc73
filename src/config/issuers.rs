//! Issuers of tokens.

#[cfg(not(feature = "jwt-remote"))]
pub(super) fn read(
    document: &super::document::Document,
    _: &super::jwt::Additions,
    report: &mut super::problem::Report<'_>,
) -> Option<super::jwt::Made> {
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
        config::{
            document::{Document, Issuer as Written, ProviderText, TokensText},
            jwt::{Additions, Made},
            keys, needed,
            problem::Report,
            tokens,
            tree::At,
        },
        jwt::{
            Algorithm, ClaimPath, Issuer, IssuerProfile, JwtAuthenticator, JwtAuthenticatorBuilder, Provider,
            keys::LiveKeys,
        },
        near::near,
    };

    const ALGORITHMS: [&str; 13] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
        "EdDSA",
    ];

    pub(in crate::config) fn read(document: &Document, additions: &Additions, report: &mut Report<'_>) -> Option<Made> {
        if document.issuers.is_empty() {
            if !additions.is_empty() && !report.took_from("issuers") {
                let advice = "are there, and code says more of their tokens (Config::with_jwt): add [[issuers]]";
                report.add(None, "issuers", "none", advice);
            }
            if let Some(jwt) = document.jwt.as_ref().filter(|_| !report.took_from("issuers")) {
                report.add(jwt.at, "jwt", "the section", "is of no use without issuers: add [[issuers]]");
            }
            return None;
        }
        let mut builder = tokens::settings(document, report);
        let mut seen: Vec<(String, String)> = Vec::new();
        for (index, issuer) in document.issuers.iter().enumerate() {
            let field = report.item("issuers", index);
            let Some(profile) = profile(issuer, &field, report) else { continue };
            // Each alone first: what is wrong with it has its own line then.
            let alone = JwtAuthenticator::builder().issuer(profile.clone()).build();
            if report.take(issuer.at, &field, alone).is_none() {
                continue;
            }
            let twice = |name: &str| seen.iter().find(|(_, other)| other == name).map(|(first, _)| first.clone());
            if let Some((name, first)) = profile.issuers().find_map(|name| Some((name, twice(name)?))) {
                let (at, of) = match (&issuer.value.issuer, &issuer.value.tenants) {
                    (Some(name), _) => (name.at, "issuer"),
                    (None, Some(tenants)) => (tenants.at, "tenants"),
                    (None, None) => (issuer.at, "issuer"),
                };
                let advice = format!("stands in {first} as well: remove one of them");
                report.add(at, format!("{field}.{of}"), format!("{name:?}"), advice);
                continue;
            }
            seen.extend(profile.issuers().map(|name| (field.clone(), name.to_owned())));
            builder = builder.issuer(profile);
        }
        if seen.is_empty() {
            return None;
        }
        let builder = additions.add_to(builder);
        warn_of_tenants(document, &builder, &seen, report);
        // What one issuer would refuse alone was told; what is left is of all of them.
        match builder.build() {
            Ok(jwt) => Some(jwt),
            Err(error) => {
                tokens::refuse(document, error, report);
                None
            }
        }
    }

    /// Notes which issuers may assert each other's tenants, where each of them stands. `seen` has their fields and names.
    fn warn_of_tenants(
        document: &Document,
        builder: &JwtAuthenticatorBuilder,
        seen: &[(String, String)],
        report: &mut Report<'_>,
    ) {
        for name in builder.of_any_tenant() {
            let field = seen.iter().find(|(_, other)| other == name).map(|(field, _)| field.as_str());
            let mut items = document.issuers.iter().enumerate();
            let of_it = items.find(|(index, _)| field == Some(report.item("issuers", *index).as_str()));
            let issuer = of_it.map(|(_, issuer)| issuer);
            let claim = issuer.and_then(|issuer| issuer.value.tenant_claim.as_ref()).map(Vec::<String>::from);
            let remedy = match claim.as_deref() {
                Some([claim]) => format!("list its own: claims = {{ {claim:?} = [..] }}"),
                Some(_) => "let it say them in a claim at the top of the token, and list its own in claims".to_owned(),
                None => "list its own by claim_must_be".to_owned(),
            };
            let field = field.map_or("issuers".to_owned(), |field| format!("{field}.tenant_claim"));
            let advice = format!("may assert any tenant, also those of another issuer: {remedy}");
            report.warn(issuer.map(|issuer| issuer.at), field, format!("{name:?}"), advice);
        }
    }

    fn profile(written: &At<Written>, field: &str, report: &mut Report<'_>) -> Option<IssuerProfile> {
        let issuer = &written.value;
        strays(issuer, field, report);
        if let (Some(_), Some(array)) = (&issuer.scope_claim, &issuer.scope_array_claim) {
            let advice = "is in place of scope_claim: remove one of them";
            report.add(array.at, format!("{field}.scope_array_claim"), "a second claim", advice);
        }
        let algorithms = algorithms(issuer, field, report)?;
        let profile = match &issuer.provider {
            Some(provider) => {
                let mut made = self::provider(written, provider, field, report)?;
                if let Some(tokens) = issuer.tokens {
                    let advice = "is said by the provider: remove the line";
                    report.add(written.at, format!("{field}.tokens"), format!("{tokens:?}").to_lowercase(), advice);
                }
                if let Some(algorithms) = &algorithms {
                    made = made.algorithms(algorithms.iter().copied());
                }
                let algorithms = algorithms.unwrap_or_default();
                let keys = keys::open(written, made.live_keys(), &algorithms, field, report)?;
                made.with_keys(keys)
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
                let keys = keys::open(written, LiveKeys::discover(&name.value), &algorithms, field, report)?;
                let made = Issuer::with_keys(&name.value, keys);
                let made = match issuer.tokens.unwrap_or(TokensText::Access) {
                    TokensText::Access => made.access_tokens(&audience.value),
                    TokensText::Id => made.id_tokens(&audience.value),
                };
                made.algorithms(algorithms)
            }
        };
        Some(with_claims(profile, issuer))
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
