//! How strongly, or how lately, a person must have proved who they are: what a rule or a policy demands (RFC 9470).

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    challenge::{Challenge, Challenges},
    clock::Instants,
    error::ConfigError,
    principal::Principal,
};

/// How far ahead of ours the issuer's clock may be.
const LEEWAY: u64 = 60;
/// As many kinds of factors as there are.
const MOST_FACTORS: u8 = 3;

/// A demand to prove who one is more strongly, or again: authentication context classes, an age, a number of factors; at least
/// one of them. The client gets `401` and is told (RFC 9470 §3); with a token that meets it, the question is asked anew. Who came with
/// an API key or a client certificate, which no log-in makes stronger, gets a plain `403`.
///
/// ```
/// use std::time::Duration;
/// use portcullis::policy::{StepUp, Verdict};
///
/// let demand = StepUp::acr(["urn:example:gold"])?.and(&StepUp::max_age(Duration::from_secs(300)));
/// assert_eq!(demand.to_string(), "acr urn:example:gold, authenticated within 300 s");
/// let verdict = Verdict::step_up(demand); // a denial that says what would help
/// assert!(!verdict.is_allow());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUp {
    acr_values: Box<[Arc<str>]>,
    /// Seconds.
    max_age: Option<u64>,
    factors: Option<u8>,
}

impl StepUp {
    /// Demands one of these classes (`acr`), the one to ask for first; compared byte for byte.
    ///
    /// # Errors
    /// If the list is empty, or one is not 1 to 256 bytes of printable ASCII without space, `"` and `\`.
    pub fn acr<'n>(classes: impl IntoIterator<Item = &'n str>) -> Result<Self, ConfigError> {
        let acr_values = classes.into_iter().map(acr_class).collect::<Result<Box<[Arc<str>]>, _>>()?;
        if acr_values.is_empty() {
            return Err(ConfigError::new("acr", "[]", "must name at least one class"));
        }
        Ok(Self { acr_values, max_age: None, factors: None })
    }

    /// Demands that the person proved who they are (`auth_time`) not longer ago than this, in whole seconds. The issuer's clock may
    /// be 60 seconds ahead.
    #[must_use]
    pub fn max_age(age: Duration) -> Self {
        Self { acr_values: Box::default(), max_age: Some(age.as_secs()), factors: None }
    }

    /// Demands as many different kinds of factors, by [`Principal::factors`].
    ///
    /// RFC 9470 has no parameter for it: the client is told in words. Demand a class as well where the issuer has one.
    ///
    /// # Errors
    /// If it is not 1 to 3.
    pub fn factors(count: u8) -> Result<Self, ConfigError> {
        if !(1..=MOST_FACTORS).contains(&count) {
            return Err(ConfigError::new("factors", count.to_string(), "must be 1 to 3"));
        }
        Ok(Self { acr_values: Box::default(), max_age: None, factors: Some(count) })
    }

    /// Demands the other as well: the classes that both take, the shorter age, the larger number. Where no class is in both lists,
    /// this one's stays: a challenge cannot ask for one of each.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        let both: Box<[Arc<str>]> =
            self.acr_values.iter().filter(|class| other.acr_values.contains(class)).cloned().collect();
        if self.acr_values.is_empty() {
            self.acr_values.clone_from(&other.acr_values);
        } else if !both.is_empty() {
            self.acr_values = both;
        }
        self.max_age = self.max_age.into_iter().chain(other.max_age).min();
        self.factors = self.factors.max(other.factors);
        self
    }

    /// The demand of parts that came from outside: a policy's answer, an annotation. None where nothing is demanded.
    #[cfg(any(feature = "cedar", feature = "policy-remote", feature = "rego"))]
    pub(crate) fn of_parts(
        classes: &[&str],
        max_age: Option<u64>,
        factors: Option<u64>,
    ) -> Result<Option<Self>, ConfigError> {
        let classes = if classes.is_empty() { None } else { Some(Self::acr(classes.iter().copied())?) };
        let factors = factors.map(|count| Self::factors(u8::try_from(count).unwrap_or(u8::MAX))).transpose()?;
        let age = max_age.map(|seconds| Self::max_age(Duration::from_secs(seconds)));
        Ok([classes, age, factors].into_iter().flatten().reduce(|demand, other| demand.and(&other)))
    }

    /// The classes, the one to ask for first.
    pub fn acr_values(&self) -> impl ExactSizeIterator<Item = &str> {
        self.acr_values.iter().map(AsRef::as_ref)
    }

    /// How long ago the person may have proved who they are, in whole seconds.
    #[must_use]
    pub const fn max_age_seconds(&self) -> Option<u64> {
        self.max_age
    }

    /// How many different kinds of factors.
    #[must_use]
    pub const fn factor_count(&self) -> Option<u8> {
        self.factors
    }

    /// Whether a principal meets it. What its credential does not say fails it.
    #[must_use]
    pub fn is_met_by(&self, principal: &Principal, at: Instants) -> bool {
        let now = at.unix_seconds();
        let classed = self.acr_values.is_empty()
            || principal.acr().is_some_and(|acr| self.acr_values.iter().any(|class| **class == *acr));
        let fresh = self.max_age.is_none_or(|max_age| {
            principal
                .auth_time()
                .is_some_and(|then| then <= now.saturating_add(LEEWAY) && now.saturating_sub(then) <= max_age)
        });
        classed && fresh && self.factors.is_none_or(|count| principal.factors() >= count)
    }

    /// What the client is told (RFC 9470 §3).
    pub(crate) fn challenges(&self, scheme: &str, realm: &str) -> Result<Challenges, ConfigError> {
        let mut challenge = Challenge::new(scheme, realm)?.with("error", "insufficient_user_authentication")?;
        if let Some(count) = self.factors {
            let words = format!("{count} different kinds of factors are needed");
            challenge = challenge.with("error_description", &words)?;
        }
        if !self.acr_values.is_empty() {
            challenge = challenge.with("acr_values", &self.acr_values.join(" "))?;
        }
        if let Some(max_age) = self.max_age {
            challenge = challenge.with("max_age", &max_age.to_string())?;
        }
        Ok([challenge].into_iter().collect())
    }
}

fn acr_class(class: &str) -> Result<Arc<str>, ConfigError> {
    let is_token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if class.is_empty() || class.len() > 256 || !class.bytes().all(is_token) {
        let problem = "must be 1 to 256 bytes of printable ASCII without space, \" and \\";
        return Err(ConfigError::new("acr", format!("{class:?}"), problem));
    }
    Ok(class.into())
}

/// The scheme that the challenge names: the one that the authenticator `offers` where its tokens do not come in `Authorization`, or
/// else that of the principal's token. None where its credential is no token, and a challenge would ask for what nobody can get.
pub(crate) fn scheme_of(principal: &Principal, offers: Option<&'static str>) -> Option<&'static str> {
    principal.can_step_up().then(|| match (offers, principal.confirmation()) {
        (Some(offered), _) => offered,
        (None, Some(confirmation)) if confirmation.key_thumbprint().is_some() => "DPoP",
        (None, Some(_) | None) => "Bearer",
    })
}

impl fmt::Display for StepUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = (!self.acr_values.is_empty()).then(|| format!("acr {}", self.acr_values.join(" or ")));
        let age = self.max_age.map(|seconds| format!("authenticated within {seconds} s"));
        let factors = self.factors.map(|count| format!("factors {count}"));
        let parts: Vec<String> = [classes, age, factors].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
