use std::sync::Arc;

use http::StatusCode;

use super::render::{ProblemDetails, RejectionRenderer, Rendered, Request};
use crate::{error::ConfigError, rejection::Rejection};

/// Sends browsers to a log-in page in place of a bare `401`: a [navigation](Request::navigation) for which somebody must be
/// authenticated, or authenticated better, is answered with `303` (RFC 9110 §15.4.4) to the page, with `return_to`, the percent-encoded path
/// and query that the browser asked for. Every other refusal is rendered by [`ProblemDetails`], or [`otherwise`](Self::otherwise).
///
/// ```
/// use portcullis::problem::LogInRedirect;
///
/// let renderer = LogInRedirect::to("/login")?; // for `StackBuilder::renderer` or `ProblemLayer::with_renderer`
/// assert!(LogInRedirect::to("//login.example.net").is_err(), "another host");
/// # let _ = renderer;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Security
/// Anybody can make a link to the log-in page with a `return_to` of theirs: the page goes on only to what begins with one `/` and neither
/// another `/` nor a `\` behind it.
#[derive(Clone, Debug)]
#[must_use]
pub struct LogInRedirect {
    page: Box<str>,
    others: Arc<dyn RejectionRenderer>,
}

impl LogInRedirect {
    /// The page: a path of this host, as `/login`, or an `https` URL. It has neither query nor fragment, and must be open to everybody.
    ///
    /// # Errors
    /// If it is none of the two.
    pub fn to(page: &str) -> Result<Self, ConfigError> {
        if !is_target(page) || page.contains(['?', '#']) {
            let problem = "must be a path or an https URL, without query and fragment";
            return Err(ConfigError::new("log-in page", format!("{page:?}"), problem));
        }
        Ok(Self { page: page.into(), others: Arc::new(ProblemDetails::new()) })
    }

    /// Renders everything else with this.
    pub fn otherwise(self, renderer: impl RejectionRenderer) -> Self {
        Self { others: Arc::new(renderer), ..self }
    }

    /// Where a refused request goes, if it is one of a browser that comes from elsewhere than the page.
    fn location(&self, rejection: &Rejection, request: &Request) -> Option<String> {
        let target = request.navigation().filter(|_| rejection.status() == StatusCode::UNAUTHORIZED)?;
        // A page that nobody may see would send to itself for ever.
        if target.split('?').next() == Some(&*self.page) {
            return None;
        }
        let mut location = format!("{}?return_to=", self.page);
        for byte in target.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                location.push(byte.into());
            } else {
                location.push('%');
                location
                    .extend([byte >> 4, byte & 0xf].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16)));
            }
        }
        Some(location)
    }
}

impl RejectionRenderer for LogInRedirect {
    fn render(&self, rejection: &Rejection, request: &Request) -> Option<Rendered> {
        let redirect = self.location(rejection, request).and_then(|location| Rendered::see_other(&location).ok());
        redirect.or_else(|| self.others.render(rejection, request))
    }
}

/// Whether it may stand in `Location`: on this host, or elsewhere under a name that was chosen.
pub(super) fn is_target(text: &str) -> bool {
    let is_here = text.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']));
    let host =
        text.strip_prefix("https://").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric()));
    (is_here || host) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
