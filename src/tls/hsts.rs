use std::time::Duration;

use http::HeaderValue;

use crate::error::ConfigError;

/// One year, the least that browsers' preload list takes (and OWASP ASVS 5.0, 3.4.1 asks for).
const YEAR: Duration = Duration::from_secs(31_536_000);

/// The `Strict-Transport-Security` header: how long a browser uses HTTPS only (RFC 6797 §6.1).
///
/// It pins every port of the host, and with `includeSubDomains` every host below it, until the time is over.
///
/// ```
/// use portcullis::tls::Hsts;
///
/// let hsts = Hsts::one_year().include_subdomains().preload()?;
/// assert_eq!(hsts.to_string(), "max-age=31536000; includeSubDomains; preload");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    max_age: Duration,
    subdomains: bool,
    preload: bool,
}

impl Hsts {
    /// For a year of 365 days from each response.
    pub const fn one_year() -> Self {
        Self::max_age(YEAR)
    }

    /// For this long from each response, in whole seconds, rounded down, but not to zero: that makes browsers forget the host
    /// (RFC 6797 §6.1.1), and has to be said as [`Duration::ZERO`]. Begin with minutes when a host turns to HTTPS for the first
    /// time.
    pub const fn max_age(max_age: Duration) -> Self {
        let forgets = max_age.is_zero();
        let max_age = if !forgets && max_age.as_secs() == 0 { Duration::from_secs(1) } else { max_age };
        Self { max_age, subdomains: false, preload: false }
    }

    /// All hosts below this one, too. Each of them must then speak HTTPS.
    pub const fn include_subdomains(mut self) -> Self {
        self.subdomains = true;
        self
    }

    /// Agrees to be put into the browsers' built-in list, from which it takes months to get out.
    ///
    /// # Errors
    /// If [`include_subdomains`](Self::include_subdomains) was not said before, or the time is shorter than a year.
    pub fn preload(mut self) -> Result<Self, ConfigError> {
        if !self.subdomains || self.max_age < YEAR {
            let problem = "cannot be preloaded: the list takes one year or more, with include_subdomains()";
            return Err(ConfigError::new("HSTS", format!("\"{self}\""), problem));
        }
        self.preload = true;
        Ok(self)
    }

    pub(super) fn value(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl std::fmt::Display for Hsts {
    /// The header's value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "max-age={}", self.max_age.as_secs())?;
        if self.subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload {
            f.write_str("; preload")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preload_needs_both() {
        assert!(Hsts::one_year().preload().is_err());
        let short = Hsts::max_age(YEAR - Duration::from_secs(1)).include_subdomains();
        assert_eq!(short.preload().unwrap_err().value(), "\"max-age=31535999; includeSubDomains\"");
        assert!(Hsts::max_age(YEAR * 2).include_subdomains().preload().is_ok());
    }

    #[test]
    fn values() {
        for (hsts, value) in [
            (Hsts::one_year(), "max-age=31536000"),
            (Hsts::max_age(Duration::ZERO), "max-age=0"),
            (Hsts::max_age(Duration::from_millis(1999)).include_subdomains(), "max-age=1; includeSubDomains"),
            (Hsts::max_age(Duration::from_nanos(1)), "max-age=1"),
            (Hsts::max_age(Duration::from_millis(999)), "max-age=1"),
            (Hsts::max_age(Duration::MAX), "max-age=18446744073709551615"),
        ] {
            assert_eq!(hsts.value().unwrap(), value);
        }
    }
}
