use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use crate::{
    error::ConfigError,
    jwt::{
        Algorithm,
        resource_metadata::{
            Claims, ResourceMetadata, Shared,
            urls::{Identifier, check_issuer, check_page},
        },
    },
};

/// How long clients and caches keep the document, unless it is said.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3_600);
const LONGEST_MAX_AGE: Duration = Duration::from_secs(86_400);
/// The longest text for people, and the longest type of authorization details, in bytes.
const MAX_TEXT: usize = 256;

/// Assembles a [`ResourceMetadata`]; made by [`ResourceMetadata::builder`]. What is not said is left out of the document.
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Clone, Debug)]
pub struct ResourceMetadataBuilder {
    resource: String,
    authorization_servers: Vec<String>,
    jwks_uri: Option<String>,
    scopes: Vec<String>,
    bearer: bool,
    signing: Vec<Algorithm>,
    /// The language, and the name in it.
    names: Vec<(Option<String>, String)>,
    documentation: Option<String>,
    policy: Option<String>,
    terms: Option<String>,
    certificate_bound: bool,
    dpop: Vec<Algorithm>,
    dpop_required: bool,
    details: Vec<String>,
    max_age: Duration,
}

impl ResourceMetadataBuilder {
    pub(super) const fn new(resource: String) -> Self {
        Self {
            resource,
            authorization_servers: Vec::new(),
            jwks_uri: None,
            scopes: Vec::new(),
            bearer: true,
            signing: Vec::new(),
            names: Vec::new(),
            documentation: None,
            policy: None,
            terms: None,
            certificate_bound: false,
            dpop: Vec::new(),
            dpop_required: false,
            details: Vec::new(),
            max_age: DEFAULT_MAX_AGE,
        }
    }

    /// Adds an issuer whose tokens are taken, by its identifier (`authorization_servers`).
    pub fn authorization_server(mut self, issuer: impl Into<String>) -> Self {
        self.authorization_servers.push(issuer.into());
        self
    }

    /// Says where the resource's own keys are, with which it signs or others encrypt for it (`jwks_uri`).
    pub fn jwks_uri(mut self, url: impl Into<String>) -> Self {
        self.jwks_uri = Some(url.into());
        self
    }

    /// Adds scopes that a client may ask for (`scopes_supported`). They need not be all that there are.
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Says that bearer tokens are not taken: `bearer_methods_supported` is `[]`. Else it is `["header"]`: tokens in URLs and in
    /// forms are never taken.
    pub const fn without_bearer(mut self) -> Self {
        self.bearer = false;
        self
    }

    /// Says with which algorithms the resource signs its answers (`resource_signing_alg_values_supported`). `none` does not
    /// exist here.
    pub fn signing_algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.signing.extend(algorithms);
        self
    }

    /// Names the API to people (`resource_name`).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push((None, name.into()));
        self
    }

    /// Names the API to people in another language, by its tag (BCP 47): `resource_name#de` (RFC 9728 §2.1).
    pub fn name_in(mut self, language: impl Into<String>, name: impl Into<String>) -> Self {
        self.names.push((Some(language.into()), name.into()));
        self
    }

    /// Says where developers read about the API (`resource_documentation`).
    pub fn documentation(mut self, url: impl Into<String>) -> Self {
        self.documentation = Some(url.into());
        self
    }

    /// Says where people read what may be done with the data (`resource_policy_uri`).
    pub fn policy_uri(mut self, url: impl Into<String>) -> Self {
        self.policy = Some(url.into());
        self
    }

    /// Says where people read the terms of service (`resource_tos_uri`).
    pub fn terms_of_service(mut self, url: impl Into<String>) -> Self {
        self.terms = Some(url.into());
        self
    }

    /// Says that tokens may be bound to a client's certificate (`tls_client_certificate_bound_access_tokens`, RFC 8705).
    pub const fn certificate_bound(mut self) -> Self {
        self.certificate_bound = true;
        self
    }

    /// Says with which algorithms proofs may be signed (`dpop_signing_alg_values_supported`, RFC 9449).
    pub fn dpop_algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.dpop.extend(algorithms);
        self
    }

    /// Says that tokens must be bound to a key (`dpop_bound_access_tokens_required`). Bearer tokens then are not taken:
    /// [`without_bearer`](Self::without_bearer) is said as well.
    pub const fn dpop_required(mut self) -> Self {
        (self.dpop_required, self.bearer) = (true, false);
        self
    }

    /// Adds types of authorization details that are understood (`authorization_details_types_supported`, RFC 9396).
    pub fn authorization_details_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.details.extend(types.into_iter().map(Into::into));
        self
    }

    /// Says how long clients and caches may keep the document, in whole seconds, at most a day. Default 1 h.
    pub const fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Finishes the document.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the value, if
    /// - the resource is not an `https` URL without fragment (RFC 9728 §2), or has a query, a user name, the port 443, a host that
    ///   is not in lower case, or a path that has other spellings (`%`, `.`, `..`, empty segments),
    /// - an authorization server is not an `https` URL without query and fragment, or another URL is not `https`,
    /// - a scope is not one scope token (RFC 6749 §3.3), an algorithm is symmetric, a language is no tag, a text is empty, longer
    ///   than 256 bytes or has control characters,
    /// - anything stands twice,
    /// - the age is more than a day.
    pub fn build(self) -> Result<ResourceMetadata, ConfigError> {
        let identifier = Identifier::parse(&self.resource)?;
        let (url, path) = (identifier.metadata_url(), identifier.metadata_path());
        self.check()?;

        let names = |algorithms: &[Algorithm]| -> Vec<&'static str> {
            algorithms.iter().map(|algorithm| algorithm.name()).collect()
        };
        let dpop_algorithms = names(&self.dpop);
        let mut document = Document(Map::new());
        document.put("resource", self.resource.as_str());
        document.put_all("authorization_servers", &self.authorization_servers);
        document.put_some("jwks_uri", self.jwks_uri);
        document.put_all("scopes_supported", &self.scopes);
        // The one list that says something when it is empty (RFC 9728 §2).
        document.put("bearer_methods_supported", if self.bearer { vec!["header"] } else { Vec::new() });
        document.put_all("resource_signing_alg_values_supported", &names(&self.signing));
        for (language, name) in self.names {
            match language {
                Some(language) => document.put(&format!("resource_name#{language}"), name),
                None => document.put("resource_name", name),
            }
        }
        document.put_some("resource_documentation", self.documentation);
        document.put_some("resource_policy_uri", self.policy);
        document.put_some("resource_tos_uri", self.terms);
        document.put_if("tls_client_certificate_bound_access_tokens", self.certificate_bound);
        document.put_all("authorization_details_types_supported", &self.details);
        document.put_all("dpop_signing_alg_values_supported", &dpop_algorithms);
        document.put_if("dpop_bound_access_tokens_required", self.dpop_required);

        let claims = Claims {
            authorization_servers: self.authorization_servers,
            bearer: self.bearer,
            certificate_bound: self.certificate_bound,
            dpop_algorithms,
            dpop_required: self.dpop_required,
        };
        let json = Value::Object(document.0).to_string().into();
        let shared = Shared { resource: self.resource, url, path, json, max_age: self.max_age, claims };
        Ok(ResourceMetadata { shared: Arc::new(shared) })
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.authorization_servers.iter().try_for_each(|issuer| check_issuer(issuer))?;
        check_page("jwks_uri", self.jwks_uri.as_deref())?;
        check_page("resource documentation", self.documentation.as_deref())?;
        check_page("resource policy", self.policy.as_deref())?;
        check_page("terms of service", self.terms.as_deref())?;
        let is_scope = |scope: &str| scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        check_all("scope", &self.scopes, "must be one scope token (RFC 6749 §3.3) of 1 to 256 bytes", is_scope)?;
        let is_text = |text: &str| !text.contains(char::is_control);
        let problem = "must be 1 to 256 bytes without control characters";
        check_all("authorization details type", &self.details, problem, is_text)?;
        for (_, name) in &self.names {
            check_all("resource name", std::slice::from_ref(name), problem, is_text)?;
        }
        let tags: Vec<String> = self.names.iter().filter_map(|(language, _)| language.clone()).collect();
        check_all("language", &tags, "must be a language tag (BCP 47)", is_language)?;
        once("authorization server", &self.authorization_servers)?;
        // Tags have no case (BCP 47 §2.1.1).
        let tag =
            |(language, _): &(Option<String>, String)| language.as_deref().unwrap_or_default().to_ascii_lowercase();
        once("language of the resource name", &self.names.iter().map(tag).collect::<Vec<_>>())?;
        for (setting, algorithms) in [("signing algorithm", &self.signing), ("DPoP algorithm", &self.dpop)] {
            if let Some(shared) = algorithms.iter().find(|algorithm| algorithm.is_symmetric()) {
                return Err(ConfigError::new(setting, shared.name(), "is symmetric: nobody else could check it"));
            }
            once(setting, &algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>())?;
        }
        if self.max_age > LONGEST_MAX_AGE {
            return Err(ConfigError::new("age of metadata", format!("{:?}", self.max_age), "must be at most a day"));
        }
        Ok(())
    }
}

/// Members of the document; what has no value is left out (RFC 9728 §3.2).
struct Document(Map<String, Value>);

impl Document {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_all<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        if !values.is_empty() {
            self.put(name, values.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        }
    }

    fn put_if(&mut self, name: &str, holds: bool) {
        if holds {
            self.put(name, true);
        }
    }
}

fn check_all(
    setting: &'static str,
    values: &[String],
    problem: &'static str,
    allowed: impl Fn(&str) -> bool,
) -> Result<(), ConfigError> {
    match values.iter().find(|value| value.is_empty() || value.len() > MAX_TEXT || !allowed(value)) {
        Some(value) => Err(ConfigError::new(setting, format!("{value:?}"), problem)),
        None => once(setting, values),
    }
}

fn once<T: AsRef<str>>(setting: &'static str, values: &[T]) -> Result<(), ConfigError> {
    let stands_before = |index, value: &str| values.iter().take(index).any(|other| other.as_ref() == value);
    match values.iter().enumerate().find(|(index, value)| stands_before(*index, value.as_ref())) {
        Some((_, value)) => Err(ConfigError::new(setting, format!("{:?}", value.as_ref()), "stands twice")),
        None => Ok(()),
    }
}

/// Letters, digits and hyphens: `de`, `pt-BR`, `zh-Hant`.
fn is_language(tag: &str) -> bool {
    tag.split('-').enumerate().all(|(index, part)| {
        let length = if index == 0 { 2..=8 } else { 1..=8 };
        length.contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()))
    })
}
