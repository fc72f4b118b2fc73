//! Where in a request a token stands.

use http::{HeaderName, HeaderValue, header};

use crate::{
    authn::{Claim, Identity, Outcome},
    challenge::Challenges,
    credential::{self, fields::TAKEN},
    error::ConfigError,
    head::RequestHead,
    jwt::CsrfRules,
    rejection::{Rejection, RejectionKind},
};

/// What to do about two authenticators for one place.
pub(super) const SEVERAL: &str =
    "give one JwtAuthenticator all of the issuers, .issuer(..) for each, and join an Introspection to it with by_shape";

/// A cookie that carries a token, and the rules that keep other sites from using it. It exists only with both.
///
/// ```
/// use portcullis::jwt::{CookiePlace, CsrfRules};
///
/// let place = CookiePlace::new("__Host-session", CsrfRules::origins(["https://app.example.com"])?)?;
/// assert!(CookiePlace::new("session", CsrfRules::same_origin()).is_err(), "any subdomain could set it");
/// # let _ = place;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CookiePlace {
    name: Box<str>,
    rules: CsrfRules,
}

impl CookiePlace {
    /// Reads the cookie of this name. It begins with `__Host-` or, if subdomains must share it, `__Secure-`, in exactly these
    /// letters: browsers only keep such a cookie if it came over HTTPS, and `__Host-` only from this very host (RFC 6265bis
    /// §4.1.3).
    ///
    /// # Errors
    /// If the name does not begin so, ends there, or is not a token (RFC 9110 §5.6.2).
    pub fn new(name: impl Into<String>, rules: CsrfRules) -> Result<Self, ConfigError> {
        let name = name.into();
        let refuse = |problem| Err(ConfigError::new("cookie", format!("{name:?}"), problem));
        let Some(rest) = name.strip_prefix("__Host-").or_else(|| name.strip_prefix("__Secure-")) else {
            return refuse("must begin with __Host- or __Secure-");
        };
        if rest.is_empty() || !rest.bytes().all(is_token) {
            return refuse("must have a name of token characters behind its prefix");
        }
        Ok(Self { name: name.into(), rules })
    }

    /// The cookie's value, if the request may use it.
    fn find<'a>(&self, head: &RequestHead<'a>) -> Result<Option<&'a str>, (RejectionKind, &'static str)> {
        // HTTP/2 may split the field into lines (RFC 9113 §8.2.3).
        let lines = head.headers().get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        let Some(value) = value_of(&self.name, lines).map_err(|refused| match refused {
            BadCookie::Twice => (RejectionKind::InvalidRequest, "cookie: stands twice"),
            BadCookie::LookAlike => (RejectionKind::InvalidRequest, "cookie: a name that differs in case alone"),
        })?
        else {
            return Ok(None);
        };
        if !self.rules.admit(head) {
            return Err((RejectionKind::CrossSite, "cookie: a request that another site may have caused"));
        }
        match std::str::from_utf8(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err((RejectionKind::InvalidCredential, "cookie: not text")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadCookie {
    Twice,
    /// Browsers compare prefixes without regard to case, so it may have been set by whom the prefix should keep out.
    LookAlike,
}

/// Reads `Cookie` (RFC 6265 §4.2.1, §5.4): pairs with `;` between them. White space around a pair and around its name does
/// not count, quotes belong to the value. What other cookies hold does not matter.
fn value_of<'a>(name: &str, lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, BadCookie> {
    let mut found = None;
    for pair in lines.flat_map(|line| line.split(|&byte| byte == b';')) {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
        let Some((key, value)) = pair.split_at_checked(equals) else { continue };
        let key = key.trim_ascii();
        if !key.eq_ignore_ascii_case(name.as_bytes()) {
            continue;
        }
        if key != name.as_bytes() {
            return Err(BadCookie::LookAlike);
        }
        if found.replace(value.strip_prefix(b"=").unwrap_or(value).trim_ascii()).is_some() {
            return Err(BadCookie::Twice);
        }
    }
    Ok(found)
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// What goes along with a refusal.
pub(super) struct Told {
    pub(super) invalid_request: Challenges,
    pub(super) invalid_token: Challenges,
}

impl Told {
    fn with(&self, rejection: Rejection) -> Rejection {
        match rejection.kind() {
            RejectionKind::InvalidRequest => rejection.with_challenges(self.invalid_request.clone()),
            RejectionKind::InvalidCredential => rejection.with_challenges(self.invalid_token.clone()),
            _ => rejection,
        }
    }
}

/// The places that an authenticator looks into.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) authorization: bool,
    /// Whether `DPoP` is a scheme as well.
    pub(super) dpop: bool,
    pub(super) headers: Vec<HeaderName>,
    pub(super) cookies: Vec<CookiePlace>,
}

impl Places {
    /// `Authorization`, these fields and these cookies.
    pub(super) fn new(
        authorization: bool,
        headers: Vec<String>,
        cookies: Vec<CookiePlace>,
    ) -> Result<Self, ConfigError> {
        let mut names: Vec<HeaderName> = Vec::with_capacity(headers.len());
        for name in headers {
            let refuse = |problem| Err(ConfigError::new("JWT header field", format!("{name:?}"), problem));
            match HeaderName::try_from(&*name) {
                Ok(field) if TAKEN.contains(&field) => return refuse("has a meaning of its own"),
                Ok(field) if names.contains(&field) => return refuse("stands twice"),
                Ok(field) => names.push(field),
                Err(_) => return refuse("is not a field name"),
            }
        }
        for (place, cookie) in cookies.iter().enumerate() {
            if cookies.iter().skip(place.saturating_add(1)).any(|other| other.name.eq_ignore_ascii_case(&cookie.name)) {
                return Err(ConfigError::new("JWT cookie", format!("{:?}", cookie.name), "stands twice"));
            }
        }
        if !authorization && names.is_empty() && cookies.is_empty() {
            return Err(ConfigError::new("places of JWTs", "none", "must be at least one"));
        }
        Ok(Self { authorization, dpop: false, headers: names, cookies })
    }

    /// The scheme that a challenge names: `Bearer` where a client can use it. The others are not registered; they only say
    /// what kind of credential is missing (RFC 9110 §15.5.2 wants a challenge).
    pub(super) fn scheme(&self) -> &'static str {
        self.other_scheme().unwrap_or("Bearer")
    }

    /// The scheme of tokens that do not come in `Authorization`, if none may.
    const fn other_scheme(&self) -> Option<&'static str> {
        match (self.authorization, self.headers.is_empty()) {
            (true, _) => None,
            (false, false) => Some("JWT"),
            (false, true) => Some("Cookie"),
        }
    }

    /// The fields that may carry a token.
    pub(super) fn fields(&self) -> Vec<HeaderName> {
        let authorization = self.authorization.then_some(header::AUTHORIZATION);
        let cookie = (!self.cookies.is_empty()).then_some(header::COOKIE);
        authorization.into_iter().chain(self.headers.iter().cloned()).chain(cookie).collect()
    }

    /// The fields and cookies that are its own, whatever stands there.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let field = |name| Claim::all(format!("the field {name}"), SEVERAL);
        let cookie = |cookie: &CookiePlace| Claim::all(format!("the cookie {}", cookie.name), SEVERAL);
        self.headers.iter().map(field).chain(self.cookies.iter().map(cookie)).collect()
    }

    /// What may be the token, where [`find`](Self::find) would find none besides it: unchecked.
    pub(super) fn guess<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        if !self.authorization || !self.headers.is_empty() || head.hides_authorization() {
            return None;
        }
        credential::unchecked(head.headers(), b"Bearer")
    }

    /// What may be a token in `Authorization`: unchecked.
    #[cfg(feature = "introspection")]
    pub(super) fn in_authorization<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        if !self.authorization || head.hides_authorization() {
            return None;
        }
        let behind = |scheme: &str| credential::unchecked(head.headers(), scheme.as_bytes());
        behind("Bearer").or_else(|| behind("DPoP").filter(|_| self.dpop))
    }

    /// The token of a request. `told` goes along with a refusal; `takes` says which tokens of `Authorization` are ours. One that is
    /// malformed is anybody's, and the layer's to tell of.
    pub(super) fn find<'a>(
        &self,
        head: &RequestHead<'a>,
        told: &Told,
        takes: impl Fn(&str) -> bool,
    ) -> Result<Option<Presented<'a>>, Outcome> {
        let mut found = None;
        if self.authorization
            && let Some(credential) = head.authorization()?
            && takes(credential.token())
        {
            let token = credential.token();
            if credential.is_scheme("Bearer") {
                found = Some(Presented { token, place: Place::Authorization, scheme: None, with_proof: false });
            } else if self.dpop && credential.is_scheme("DPoP") {
                found = Some(Presented { token, place: Place::Authorization, scheme: None, with_proof: true });
            }
        }
        let scheme = self.other_scheme();
        for name in &self.headers {
            if let Some(token) = head.single_header(name).map_err(|rejection| told.with(rejection))?
                && found.replace(Presented { token, place: Place::Header, scheme, with_proof: false }).is_some()
            {
                let reason = "two tokens where one is taken";
                return Err(told.with(Rejection::new(RejectionKind::InvalidRequest, reason)).into());
            }
        }
        // A cookie is sent without anybody's doing: it only counts where nothing was sent on purpose.
        if found.is_some() || self.cookies.is_empty() || head.headers().contains_key(header::AUTHORIZATION) {
            return Ok(found);
        }
        for cookie in &self.cookies {
            let refuse = |(kind, reason)| Outcome::RefusedIfNeeded(told.with(Rejection::new(kind, reason)));
            if let Some(token) = cookie.find(head).map_err(refuse)?
                && found.replace(Presented { token, place: Place::Cookie, scheme, with_proof: false }).is_some()
            {
                return Err(refuse((RejectionKind::InvalidRequest, "two cookies where one is taken")));
            }
        }
        Ok(found)
    }
}

/// A token, and where it stood.
pub(super) struct Presented<'a> {
    pub(super) token: &'a str,
    place: Place,
    scheme: Option<&'static str>,
    /// It came with the scheme `DPoP`.
    pub(super) with_proof: bool,
}

#[derive(Clone, Copy)]
enum Place {
    Authorization,
    Header,
    Cookie,
}

impl Presented<'_> {
    /// What the verification of the token means for the request.
    pub(super) fn conclude(&self, verified: Result<Identity, Rejection>) -> Outcome {
        let verified = verified.map(|identity| identity.offered_as(self.scheme));
        match (self.place, verified) {
            (Place::Authorization, Ok(identity)) => Outcome::Verified(identity),
            (Place::Header, Ok(identity)) => Outcome::Verified(identity.leaving_authorization()),
            (Place::Cookie, Ok(identity)) => Outcome::Verified(identity.ambient().leaving_authorization()),
            (Place::Authorization | Place::Header, Err(rejection)) => rejection.into(),
            (Place::Cookie, Err(rejection)) => Outcome::RefusedIfNeeded(rejection),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "__Host-s";

    fn read<'a>(lines: &[&'a str]) -> Result<Option<&'a [u8]>, BadCookie> {
        value_of(NAME, lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn cookies_are_read_strictly() {
        let good: [(&[&str], Option<&str>); 12] = [
            (&[], None),
            (&[""], None),
            (&["a=1; b=2"], None),
            (&["__Host-s"], None),
            (&["; ;=;=__Host-s=x"], None),
            (&["__Host-s2=x; a__Host-s=y; __Host-=z"], None),
            (&["__Host-s="], Some("")),
            (&["__Host-s=a=b"], Some("a=b")),
            (&["a=1;__Host-s=x;b=2"], Some("x")),
            (&["a=1 ;\t__Host-s \t= x\t; b"], Some("x")),
            (&["__Host-s=\"x\""], Some("\"x\"")),
            (&["a=1", "__Host-s=x"], Some("x")),
        ];
        for (lines, value) in good {
            assert_eq!(read(lines), Ok(value.map(str::as_bytes)), "{lines:?}");
        }
        let bad: [(&[&str], BadCookie); 6] = [
            (&["__Host-s=x; __Host-s=x"], BadCookie::Twice),
            (&["__Host-s=x", "a; __Host-s=y"], BadCookie::Twice),
            (&["__Host-s=; __Host-s="], BadCookie::Twice),
            (&["__host-s=x"], BadCookie::LookAlike),
            (&["__Host-s=x; __Host-S=y"], BadCookie::LookAlike),
            (&["__HOST-S=y; __Host-s=x"], BadCookie::LookAlike),
        ];
        for (lines, refused) in bad {
            assert_eq!(read(lines), Err(refused), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let _ = value_of(NAME, lines.iter().map(Vec::as_slice));
        }

        /// However a browser writes it, our cookie is found once, and none where there is none.
        #[test]
        fn what_is_written_is_read(
            before in proptest::collection::vec(("[a-zA-Z]{1,5}", "[!-:<-~]{0,9}"), 0..4),
            after in proptest::collection::vec(("[a-zA-Z]{1,5}", "[!-:<-~]{0,9}"), 0..4),
            value in "[!-:<-~]{0,20}",
            split in any::<bool>(),
        ) {
            let write = |cookies: &[(String, String)]| {
                cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
            };
            let ours = vec![format!("{NAME}={value}")];
            let pairs = [write(&before), ours.clone(), write(&after)].concat();
            let lines = if split { pairs } else { vec![pairs.join("; ")] };
            let found = value_of(NAME, lines.iter().map(|line| line.as_bytes()));
            prop_assert_eq!(found, Ok(Some(value.as_bytes())));
            let others = [write(&before), write(&after)].concat().join("; ");
            prop_assert_eq!(value_of(NAME, [others.as_bytes()].into_iter()), Ok(None));
            let twice = [lines, ours].concat();
            prop_assert_eq!(value_of(NAME, twice.iter().map(|line| line.as_bytes())), Err(BadCookie::Twice));
        }
    }
}
