//! The forwarding and identity headers of a request, and which of them a handler must not see.

use http::{HeaderMap, HeaderName};

use super::trust::{Family, TrustedProxies};

/// What is removed before the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strip {
    Nothing,
    /// Everything but what the configured family's proxy wrote, if it came from one.
    AllBut(Option<Family>),
}

impl Strip {
    /// Looks at each name once; allocates nothing.
    pub(super) fn needed(headers: &HeaderMap, believed: Option<Family>, proxies: &TrustedProxies) -> Self {
        if headers.keys().any(|name| is_stray(name, believed, proxies)) {
            Self::AllBut(believed)
        } else {
            Self::Nothing
        }
    }

    pub(super) fn apply(self, headers: &mut HeaderMap, proxies: &TrustedProxies) {
        match self {
            Self::Nothing => {}
            Self::AllBut(believed) => {
                let stray: Vec<HeaderName> =
                    headers.keys().filter(|name| is_stray(name, believed, proxies)).map(HeaderName::clone).collect();
                for name in stray {
                    headers.remove(name);
                }
            }
        }
    }
}

/// Whether this crate's layers would take the request for a forwarded one.
pub(crate) fn any_forwarding(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| matches!(Kind::of(name.as_str()), Some(Kind::Of(_) | Kind::Other)))
}

pub(super) fn is_stray(name: &HeaderName, believed: Option<Family>, proxies: &TrustedProxies) -> bool {
    if proxies.names_field(name) {
        return believed.is_none();
    }
    // A proxy overwrites the field that is named, and no other spelling of it.
    if proxies.names_alike(name) {
        return true;
    }
    match Kind::of(name.as_str()) {
        None => false,
        Some(Kind::Of(family)) => believed != Some(family),
        Some(Kind::Other | Kind::Certificate) => true,
        // A proxy that overwrites `Remote-User` overwrites no `Remote_User`, and some gateways take them for the same.
        Some(Kind::Identity) => believed.is_none() || name.as_str().contains('_'),
    }
}

/// A header that a proxy writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of a family that can be configured.
    Of(Family),
    /// Of no such family, or spelt so that only a gateway would take it for one.
    Other,
    /// It says what certificate the client had. Only the configured one counts.
    Certificate,
    /// It says who the client is.
    Identity,
}

impl Kind {
    /// Most names are told apart by their first byte.
    fn of(name: &str) -> Option<Self> {
        match name.as_bytes() {
            // What most proxies write, before anything that takes longer.
            b"x-forwarded-for" | b"x-forwarded-proto" | b"x-forwarded-host" => Some(Self::Of(Family::XForwarded)),
            [b'x', b'-' | b'_', rest @ ..] => Self::of_x(name, rest),
            b"forwarded" => Some(Self::Of(Family::Forwarded)),
            [b'c', rest @ ..] if begins(rest, "lient-cert") => Some(Self::Certificate),
            [b'c', rest @ ..] if begins(rest, "f-access-authenticated-user-") => Some(Self::Identity),
            [b's', rest @ ..] if begins(rest, "sl-client-") => Some(Self::Certificate),
            [b'r', rest @ ..] if begins(rest, "emote-") => Some(Self::Identity),
            [b't', rest @ ..] if begins(rest, "ailscale-user-") => Some(Self::Identity),
            _ => None,
        }
    }

    fn of_x(name: &str, rest: &[u8]) -> Option<Self> {
        let first = rest.first()?;
        match first {
            b'f' if is(rest, "forwarded-client-cert") => Some(Self::Certificate),
            b'f' if begins(rest, "forwarded") => {
                let family = name.starts_with("x-forwarded-") && !name.as_bytes().contains(&b'_');
                Some(if family { Self::Of(Family::XForwarded) } else { Self::Other })
            }
            b'r' if is(rest, "real-ip") => Some(Self::Other),
            b'r' if begins(rest, "remote-") => Some(Self::Identity),
            b'a' if begins(rest, "amzn-mtls-clientcert") || begins(rest, "arr-clientcert") => Some(Self::Certificate),
            b'a' if begins(rest, "auth-request-") || begins(rest, "amzn-oidc-") => Some(Self::Identity),
            b'a' if begins(rest, "authenticated-") || begins(rest, "authentik-") => Some(Self::Identity),
            b'a' if is(rest, "apigateway-api-userinfo") => Some(Self::Identity),
            b'c' if begins(rest, "client-cert") => Some(Self::Certificate),
            b'e' if is(rest, "endpoint-api-userinfo") => Some(Self::Identity),
            b'g' if begins(rest, "goog-authenticated-user-") || begins(rest, "goog-iap-jwt") => Some(Self::Identity),
            b'm' if begins(rest, "ms-client-principal") => Some(Self::Identity),
            b'p' if begins(rest, "pomerium-claim-") => Some(Self::Identity),
            b's' if begins(rest, "ssl-client-") || begins(rest, "ssl-cert") => Some(Self::Certificate),
            b't' if begins(rest, "tls-client-") => Some(Self::Certificate),
            b'w' if begins(rest, "webauth-") => Some(Self::Identity),
            _ => None,
        }
    }
}

/// Whether a name is this one; an underscore is as good as a hyphen.
fn is(name: &[u8], other: &str) -> bool {
    name.len() == other.len() && begins(name, other)
}

/// Whether some gateways take one name for the other.
pub(super) fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let read = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| read(*one) == read(*other))
}

fn begins(name: &[u8], with: &str) -> bool {
    let same = |(byte, expected): (&u8, u8)| *byte == expected || (*byte == b'_' && expected == b'-');
    name.len() >= with.len() && name.iter().zip(with.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FORWARDING: [&str; 12] = [
        "forwarded",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-user",
        "x-real-ip",
        "x_forwarded_for",
        "x-forwarded_for",
        "x_real_ip",
    ];
    const CERTIFICATE: [&str; 10] = [
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "client-cert",
        "client-cert-chain",
        "client_cert",
        "ssl-client-cert",
        "x-ssl-client-verify",
        "x-client-cert",
        "x-arr-clientcert",
        "x-amzn-mtls-clientcert-leaf",
    ];
    const SPELT_WELL: [&str; 18] = [
        "remote-user",
        "remote-groups",
        "remote-email",
        "x-remote-user",
        "x-remote-group",
        "x-remote-extra-scopes",
        "x-apigateway-api-userinfo",
        "x-authentik-groups",
        "x-endpoint-api-userinfo",
        "x-ms-client-principal",
        "x-ms-client-principal-name",
        "x-pomerium-claim-email",
        "x-webauth-user",
        "cf-access-authenticated-user-email",
        "tailscale-user-login",
        "x-auth-request-email",
        "x-goog-authenticated-user-id",
        "x-amzn-oidc-identity",
    ];
    const SPELT_FOR_A_GATEWAY: [&str; 6] = [
        "remote_user",
        "remote_groups",
        "x-remote_user",
        "x_auth_request_email",
        "x-amzn-oidc_data",
        "tailscale_user_login",
    ];
    const OTHERS: [&str; 12] = [
        "cf-access-jwt-assertion",
        "client",
        "forwarded-x",
        "host",
        "remote",
        "ssl",
        "tailscale",
        "x-ms-request-id",
        "x-real-ip-address",
        "x-remote",
        "x-request-id",
        "x-ssl",
    ];

    fn left(believed: Option<Family>, proxies: &TrustedProxies) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in FORWARDING.into_iter().chain(CERTIFICATE).chain(SPELT_WELL).chain(SPELT_FOR_A_GATEWAY).chain(OTHERS)
        {
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }
        let strip = Strip::needed(&headers, believed, proxies);
        assert_eq!(strip, Strip::AllBut(believed));
        strip.apply(&mut headers, proxies);
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    fn sorted(names: &[&[&str]]) -> Vec<String> {
        let mut names: Vec<String> = names.iter().flat_map(|names| names.iter().map(ToString::to_string)).collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_believed_family_stays() {
        let forwarded = TrustedProxies::forwarded(["10.0.12.7"]).unwrap();
        assert_eq!(left(None, &forwarded), sorted(&[&OTHERS]));
        assert_eq!(left(Some(Family::Forwarded), &forwarded), sorted(&[&OTHERS, &SPELT_WELL, &["forwarded"]]));
        let x_forwarded = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
        let family: Vec<_> = FORWARDING.into_iter().filter(|name| name.starts_with("x-forwarded-")).collect();
        assert_eq!(left(Some(Family::XForwarded), &x_forwarded), sorted(&[&OTHERS, &SPELT_WELL, &family]));
    }

    #[test]
    fn a_field_that_is_named_stays_from_a_proxy_and_goes_from_others() {
        let name = HeaderName::from_static("x-real-ip");
        let proxies = TrustedProxies::address_header(name, ["10.0.12.7"]).unwrap();
        assert_eq!(left(Some(Family::Address), &proxies), sorted(&[&OTHERS, &SPELT_WELL, &["x-real-ip"]]));
        assert_eq!(left(None, &proxies), sorted(&[&OTHERS]));
        let name = HeaderName::from_static("x-request-id");
        let unusual = TrustedProxies::address_header(name, ["10.0.12.7"]).unwrap();
        let others: Vec<_> = OTHERS.into_iter().filter(|name| *name != "x-request-id").collect();
        assert_eq!(left(None, &unusual), sorted(&[&others]));
    }

    #[cfg(feature = "client-cert")]
    #[test]
    fn the_named_certificate_header_alone_stays() {
        let proxies = TrustedProxies::forwarded(["10.0.12.7"]).unwrap();
        let proxies = proxies.with_client_certificates(crate::evidence::CertificateHeader::client_cert());
        let stay = ["forwarded", "client-cert"];
        assert_eq!(left(Some(Family::Forwarded), &proxies), sorted(&[&OTHERS, &SPELT_WELL, &stay]));
        assert_eq!(left(None, &proxies), sorted(&[&OTHERS]));
    }

    /// Some gateways take `Cf_Connecting_Ip` for the field that the proxy writes; it overwrites the one that is named alone.
    #[test]
    fn another_spelling_of_a_field_that_is_named_goes_always() {
        let name = HeaderName::from_static;
        let hyphens = TrustedProxies::address_header(name("cf-connecting-ip"), ["10.0.12.7"]).unwrap();
        let hyphens = hyphens.with_scheme_header(name("cf-visitor-scheme")).unwrap();
        let underscore = TrustedProxies::address_header(name("cf_connecting-ip"), ["10.0.12.7"]).unwrap();
        for (proxies, field, is_stray_from_the_proxy) in [
            (&hyphens, "cf-connecting-ip", false),
            (&hyphens, "cf_connecting_ip", true),
            (&hyphens, "cf-connecting_ip", true),
            (&hyphens, "cf_visitor_scheme", true),
            (&hyphens, "cf-visitor-scheme", false),
            (&hyphens, "cf-connecting-ip-", false),
            (&hyphens, "cf-connecting", false),
            (&underscore, "cf_connecting-ip", false),
            (&underscore, "cf-connecting-ip", true),
            (&underscore, "cf_connecting_ip", true),
        ] {
            assert_eq!(is_stray(&name(field), Some(Family::Address), proxies), is_stray_from_the_proxy, "{field}");
        }
        for field in ["cf-connecting-ip", "cf_connecting_ip", "cf-connecting_ip", "cf_visitor_scheme"] {
            assert!(is_stray(&name(field), None, &hyphens), "{field} of a stranger");
        }
    }

    #[cfg(feature = "client-cert")]
    #[test]
    fn another_spelling_of_the_named_certificate_header_goes_always() {
        let header = crate::evidence::CertificateHeader::escaped_pem(HeaderName::from_static("x-mesh-cert"));
        let proxies = TrustedProxies::forwarded(["10.0.12.7"]).unwrap().with_client_certificates(header);
        for (field, stray) in [("x-mesh-cert", false), ("x_mesh_cert", true), ("x-mesh_cert", true)] {
            let name = HeaderName::from_static(field);
            assert_eq!(is_stray(&name, Some(Family::Forwarded), &proxies), stray, "{field}");
            assert!(is_stray(&name, None, &proxies), "{field} of a stranger");
        }
    }

    #[test]
    fn nothing_is_removed_where_nothing_is_stray() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
        assert_eq!(Strip::needed(&headers, Some(Family::XForwarded), &proxies), Strip::Nothing);
        assert!(any_forwarding(&headers));
    }
}
