//! Finds the JWK Set of an issuer: OpenID Connect Discovery 1.0 §4 and RFC 8414 §3.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::{runtime::Handle, time::timeout};

use super::{
    http::{Answer, Http},
    origin::{Fetched, JwkSource},
};
use crate::{
    error::{ConfigError, StoreError, StoreErrorKind},
    http_client::{Endpoint, nonsense, unavailable},
    jwt::{
        Refusal,
        json::{self, Members, Value},
    },
};

/// The JWK Set that an issuer's metadata names.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: Box<str>,
    origin: Endpoint,
    /// Where the metadata may be, in the order in which it is looked for.
    places: [Endpoint; 2],
    /// Hosts besides the issuer's own where the set may be.
    allowed_hosts: Box<[Box<str>]>,
    http_on_loopback: bool,
    http: Http,
    /// Where the set was the last time.
    found: Mutex<Option<Endpoint>>,
}

impl Discovery {
    pub(super) fn new(
        issuer: &str,
        allowed_hosts: Vec<String>,
        http_on_loopback: bool,
        http: Http,
    ) -> Result<Self, ConfigError> {
        let origin = Endpoint::parse(issuer, http_on_loopback)?;
        if issuer.contains('?') {
            let problem = "has a query, so there is no place for its metadata (RFC 8414 §2)";
            return Err(ConfigError::new("JWT issuer", format!("{:?}", origin.shown()), problem));
        }
        let (base, path) = (origin.base(), origin.path());
        let place = |url: String| Endpoint::parse(&url, http_on_loopback);
        let places = [
            place(format!("{base}{path}/.well-known/openid-configuration"))?,
            place(format!("{base}/.well-known/oauth-authorization-server{path}"))?,
        ];
        let allowed_hosts = allowed_hosts.into_iter().map(|host| host.to_ascii_lowercase().into()).collect();
        Ok(Self {
            issuer: issuer.into(),
            places,
            origin,
            allowed_hosts,
            http_on_loopback,
            http,
            found: Mutex::new(None),
        })
    }

    async fn discover(&self) -> Result<Endpoint, StoreError> {
        let mut missing = None;
        for place in &self.places {
            match self.http.get(place, None).await? {
                Answer::Document { text, .. } => {
                    return self.set_of(&text).map_err(|problem| nonsense(format!("{place}: {problem}")));
                }
                Answer::NotModified { .. } => return Err(nonsense(format!("{place} answers 304 unasked"))),
                Answer::Missing(status) => {
                    missing.get_or_insert_with(|| format!("{place} answers {}", status.as_u16()));
                }
            }
        }
        Err(unavailable(missing.unwrap_or_default()))
    }

    /// Checks metadata, and takes the place of the set out of it. What else it says, on algorithms above all, does not count.
    fn set_of(&self, text: &str) -> Result<Endpoint, String> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        let mut metadata = Metadata { issuer: None, jwks_uri: None };
        let malformed = Refusal("the metadata is not a JSON object");
        json::read(text, &mut metadata, malformed).map_err(|Refusal(problem)| problem.to_owned())?;
        // RFC 8414 §3.3, OpenID Connect Discovery §4.3: identical, or whoever answers may speak for another issuer.
        match metadata.issuer {
            Some(issuer) if *issuer == *self.issuer => {}
            Some(issuer) => return Err(format!("issuer is {:?}, not {:?}", shortened(&issuer), self.issuer)),
            None => return Err("the metadata has no issuer".to_owned()),
        }
        let Some(jwks_uri) = metadata.jwks_uri else { return Err("the metadata has no jwks_uri".to_owned()) };
        let set = Endpoint::parse(&jwks_uri, self.http_on_loopback && self.origin.origin().0 == "http");
        let set = set.map_err(|_| format!("jwks_uri {:?} is not a URL that may be fetched", shortened(&jwks_uri)))?;
        let same = set.origin() == self.origin.origin();
        if same || self.allowed_hosts.iter().any(|host| **host == *set.host()) {
            Ok(set)
        } else {
            Err(format!("jwks_uri is on host {:?}, which is neither the issuer's origin nor allowed", set.host()))
        }
    }

    fn found(&self) -> Option<Endpoint> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl JwkSource for Discovery {
    fn name(&self) -> &str {
        &self.issuer
    }

    /// Metadata is read each time, so that a set that moved is found; while it cannot be had, the last known place serves. What cannot
    /// be reached is mostly silent, so where a place is known, half of the time is left for it.
    async fn fetch(&self, validator: Option<&str>) -> Result<Fetched, StoreError> {
        let known = self.found();
        let discovered = match &known {
            Some(_) if Handle::try_current().is_ok() => {
                let half = self.http.limits.time() / 2;
                timeout(half, self.discover())
                    .await
                    .unwrap_or_else(|_| Err(unavailable(format!("no metadata within {half:?}"))))
            }
            Some(_) | None => self.discover().await,
        };
        let set = match (discovered, &known) {
            (Ok(set), _) => set,
            (Err(error), Some(known)) if error.kind() == StoreErrorKind::Unavailable => known.clone(),
            (Err(error), _) => return Err(error),
        };
        // A validator belongs to one URL, and is kept with it: what was found there last may not have been taken.
        let of_set = |validator: &str| format!("{} {validator}", set.uri());
        let prefix = of_set("");
        let fetched = self.http.get_set(&set, validator.and_then(|known| known.strip_prefix(&*prefix))).await?;
        let fetched = fetched.map_validator(of_set);
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        Ok(fetched)
    }
}

/// What of a fetched text an error shows.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

struct Metadata<'a> {
    issuer: Option<Cow<'a, str>>,
    jwks_uri: Option<Cow<'a, str>>,
}

impl<'de> Members<'de> for Metadata<'de> {
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
        match name {
            "issuer" => self.issuer = Some(value.text(Refusal("issuer is not a string"))?),
            "jwks_uri" => self.jwks_uri = Some(value.text(Refusal("jwks_uri is not a string"))?),
            _ => return value.skip(),
        }
        Ok(())
    }
}
