//! Every bad configuration is a `ConfigError` that names the setting and the offending value; a secret is described.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{fmt::Debug, time::Duration};

use http::Method;
use portcullis::{
    Challenge, ConfigError, Principal, PrincipalKind, Secret,
    api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore},
    authn::{Authenticator, Outcome, authenticate_fn},
    evidence::TrustedProxies,
    guard::{public, require, scope},
    jwt::{Algorithm, Issuer, IssuerProfile, JwtAuthenticator, Key, KeySet},
    policy::Rbac,
    rate_limit::{Quota, RateLimitLayer},
    stack::{Stack, StackBuilder},
    tls::{Hsts, TlsLayer},
};

const ISSUER: &str = "https://id.example.com";
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const POLICY: &str = r#"
version = "7"
permissions = ["orders:read"]
[roles.clerk]
grants = ["orders:read"]
"#;

/// A bad configuration: what it is called, what came of it, and the setting and value that the error names.
type Row = (&'static str, ConfigError, &'static str, &'static str);

fn row<T: Debug>(name: &'static str, built: Result<T, ConfigError>, setting: &'static str, value: &'static str) -> Row {
    match built {
        Ok(accepted) => panic!("{name} is accepted: {accepted:?}"),
        Err(error) => (name, error, setting, value),
    }
}

fn all_name_the_value(rows: impl IntoIterator<Item = Row>) {
    for (name, error, setting, value) in rows {
        assert_eq!((error.setting(), error.value()), (setting, value), "{name}");
        let text = error.to_string();
        let problem = text.strip_prefix(&format!("{setting}: {value} ")).map(str::trim);
        assert!(problem.is_some_and(|problem| !problem.is_empty()), "{name} says what is wrong: {text}");
    }
}

fn es256() -> Key {
    Key::from_jwk(None, P256).unwrap()
}

fn hs256() -> Key {
    Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32])).unwrap()
}

fn issuer() -> Issuer {
    Issuer::fixed(ISSUER, KeySet::new([es256()]).unwrap())
}

fn trust(profile: IssuerProfile) -> Result<JwtAuthenticator, ConfigError> {
    JwtAuthenticator::builder().issuer(profile).build()
}

#[test]
fn tokens() {
    const ES256: [Algorithm; 1] = [Algorithm::ES256];
    let nameless = Issuer::fixed("", KeySet::new([es256()]).unwrap());
    let mixed = Issuer::fixed(ISSUER, KeySet::new([es256(), hs256()]).unwrap()).access_tokens("orders-api");
    let both = [Algorithm::ES256, Algorithm::HS256];
    let audience = r#"audience of JWT issuer "https://id.example.com""#;
    let algorithms = r#"algorithms of JWT issuer "https://id.example.com""#;
    assert!(trust(issuer().access_tokens("orders-api").algorithms(ES256)).is_ok());
    all_name_the_value([
        row("empty audience", trust(issuer().access_tokens("").algorithms(ES256)), audience, r#""""#),
        row("empty client id", trust(issuer().id_tokens("").algorithms(ES256)), audience, r#""""#),
        row("empty issuer", trust(nameless.access_tokens("orders-api").algorithms(ES256)), "JWT issuer", r#""""#),
        row("no algorithm", trust(issuer().access_tokens("orders-api").algorithms([])), algorithms, "[]"),
        row("mixed, both allowed", trust(mixed.clone().algorithms(both)), algorithms, "symmetric and asymmetric keys"),
        row("mixed, one allowed", trust(mixed.algorithms(ES256)), algorithms, "symmetric and asymmetric keys"),
    ]);
}

/// A public RSA key (PKCS#1) with a modulus of this many bits and the exponent 65537.
fn rsa(bits: usize) -> Result<Key, ConfigError> {
    let element = |tag: u8, content: &[u8]| {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        // DER: the shortest form of the length.
        let length = match (high, low) {
            (0, ..0x80) => vec![low],
            (0, _) => vec![0x81, low],
            _ => vec![0x82, high, low],
        };
        [&[tag], &length[..], content].concat()
    };
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= modulus.len() * 8 - bits;
    if modulus[0] >= 0x80 {
        modulus.insert(0, 0);
    }
    Key::from_der(Algorithm::RS256, element(0x30, &[element(2, &modulus), element(2, &[1, 0, 1])].concat()))
}

#[test]
fn keys() {
    let secret = || Secret::from("s3cr3t-of-31-bytes-is-too-short".to_owned());
    assert_eq!(secret().expose().len(), 31);
    let short = Key::hmac(Algorithm::HS256, secret());
    let shown = format!("{:?} {}", short.as_ref().unwrap_err(), short.as_ref().unwrap_err());
    assert!(!shown.contains("s3cr3t") && !shown.contains("115, 51, 99"), "described, not shown: {shown}");
    assert!(rsa(2048).is_ok());
    all_name_the_value([
        row("HMAC under 256 bits", short, "JWT key", "a secret of 31 bytes"),
        row("no HMAC secret", Key::hmac(Algorithm::HS256, Secret::new(vec![])), "JWT key", "a secret of 0 bytes"),
        row("RSA of 1024 bits", rsa(1024), "JWT key", "an RSA modulus of 1024 bits"),
        row("RSA one bit short", rsa(2047), "JWT key", "an RSA modulus of 2047 bits"),
    ]);
}

#[test]
fn roles_and_permissions() {
    let policy = Rbac::from_toml(POLICY).unwrap();
    let changed = |from: &str, to: &str| Rbac::from_toml(&POLICY.replacen(from, to, 1));
    let grants = r#"grants = ["orders:read"]"#;
    all_name_the_value([
        row("unknown role", policy.role("clerc"), "role", r#""clerc""#),
        row("a role in another case", policy.role("Clerk"), "role", r#""Clerk""#),
        row("no role", policy.role(""), "role", r#""""#),
        row("unknown permission", policy.permission("orders:raed"), "permission", r#""orders:raed""#),
        row("a role for a permission", policy.permission("clerk"), "permission", r#""clerk""#),
        row(
            "unknown permission in the file",
            changed(grants, r#"grants = ["orders:write"]"#),
            "line 5: roles.clerk.grants",
            r#""orders:write""#,
        ),
        row(
            "unknown role in the file",
            changed(grants, r#"inherits = ["boss"]"#),
            "line 5: roles.clerk.inherits",
            r#""boss""#,
        ),
    ]);
}

#[test]
fn proxies() {
    let read = |network: &str| TrustedProxies::x_forwarded([network]);
    let standard = |network: &str| TrustedProxies::forwarded([network]);
    let setting = "trusted proxies";
    let address = |name| TrustedProxies::address_header(http::HeaderName::from_static(name), ["10.0.0.7"]);
    assert!(read("10.0.0.0/16").is_ok() && TrustedProxies::dangerous_wide_x_forwarded(["10.0.0.0/15"]).is_ok());
    assert!(standard("10.0.0.0/16").is_ok() && TrustedProxies::dangerous_wide_forwarded(["10.0.0.0/15"]).is_ok());
    all_name_the_value([
        row("a word", read("lan"), setting, "lan"),
        row("prefix out of range", read("10.0.0.0/33"), setting, "10.0.0.0/33"),
        row("a cut address", read("10.0.0/24"), setting, "10.0.0/24"),
        row("bits beyond the prefix", read("10.0.12.7/24"), setting, "10.0.12.7/24"),
        row("a word though wide", TrustedProxies::dangerous_wide_x_forwarded(["*"]), setting, "*"),
        row("wider than /16", read("10.0.0.0/15"), setting, "10.0.0.0/15"),
        row("everybody", read("0.0.0.0/0"), setting, "0.0.0.0/0"),
        row("wider than /16, mapped", read("::ffff:10.0.0.0/111"), setting, "::ffff:10.0.0.0/111"),
        row("wider than /32 of IPv6", read("2001::/31"), setting, "2001::/31"),
        row("wider than /16 in Forwarded", standard("10.0.0.0/15"), setting, "10.0.0.0/15"),
        row("an address in a credential", address("authorization"), "address header", "authorization"),
        row("an address in a key", address("x-api-key"), "address header", "x-api-key"),
        row("one of several", TrustedProxies::x_forwarded(["10.0.12.7", "10.0.0.0/8"]), setting, "10.0.0.0/8"),
    ]);
}

fn tickets() -> impl Authenticator {
    authenticate_fn(Challenge::new("Ticket", "events").unwrap(), |_, _| {
        Outcome::verified(Principal::builder(PrincipalKind::User, "box-office", "alice", "ticket").build())
    })
}

fn stack() -> StackBuilder {
    Stack::builder().tls(TlsLayer::require()).authenticate(tickets())
}

#[test]
fn quotas() {
    let per_client = |quota| RateLimitLayer::per_client(quota);
    let per_principal = |quota| RateLimitLayer::per_principal(quota);
    let plans = |claim| portcullis::rate_limit::Plans::new([Quota::per_second(1)]).unwrap().by_claim(claim);
    assert!(RateLimitLayer::per_principal(plans("plan")).is_ok());
    all_name_the_value([
        row("a claim without a name", RateLimitLayer::per_principal(plans("")), "plan claim", r#""""#),
        row("none for a client", per_client(Quota::per_second(0)), "per_second", "0"),
        row("none for a principal", per_principal(Quota::per_minute(0)), "per_minute", "0"),
        row("no burst for a client", per_client(Quota::per_hour(10).burst(0)), "burst", "0"),
        row("no burst for a principal", per_principal(Quota::per_day(10).burst(0)), "burst", "0"),
        row("none, whatever the burst", per_client(Quota::per_second(0).burst(5)), "per_second", "0"),
        row(
            "none, as the second quota",
            per_client(Quota::per_second(1)).unwrap().and(Quota::per_day(0)),
            "per_day",
            "0",
        ),
        row("in a stack, for a client", stack().limit_clients(Quota::per_second(0)).build(), "per_second", "0"),
        row("in a stack, for a principal", stack().limit_principals(Quota::per_hour(0)).build(), "per_hour", "0"),
        row("in a stack, no burst", stack().limit_clients(Quota::per_hour(1).burst(0)).build(), "burst", "0"),
    ]);
}

#[test]
fn realms_and_prefixes() {
    let profile = || issuer().access_tokens("orders-api").algorithms([Algorithm::ES256]);
    let jwt = |realm: &str| JwtAuthenticator::builder().issuer(profile()).realm(realm).build();
    let keys = |realm: &str| ApiKeyAuthenticator::new(MemoryKeyStore::new()).with_realm(realm);
    let realm = "challenge realm";
    let prefix = "API key prefix";
    all_name_the_value([
        row("empty realm", Challenge::new("Bearer", ""), realm, r#""""#),
        row("empty realm of tokens", jwt(""), realm, r#""""#),
        row("empty realm of keys", keys(""), realm, r#""""#),
        row("quote in a realm", jwt("a\"b"), "challenge parameter", r#"realm="a\"b""#),
        row("empty prefix", ApiKeyFormat::new(""), prefix, r#""""#),
        row("prefix with an underscore", ApiKeyFormat::new("acme_live"), prefix, r#""acme_live""#),
        row("prefix in upper case", ApiKeyFormat::new("ACME"), prefix, r#""ACME""#),
        row("prefix of one character", ApiKeyFormat::new("a"), prefix, r#""a""#),
        row("digit first", ApiKeyFormat::new("1acme"), prefix, r#""1acme""#),
        row("prefix of 17 characters", ApiKeyFormat::new("abcdefghijklmnopq"), prefix, r#""abcdefghijklmnopq""#),
    ]);
}

#[test]
fn transport() {
    let redirect = |host: &str| TlsLayer::require().redirect_to([host]);
    let short = Hsts::max_age(Duration::from_secs(60)).include_subdomains();
    let hosts = "redirect hosts";
    assert!(redirect("api.example.com:8443").is_ok());
    let (answering, to_port) = (TlsLayer::require().hosts(["a.example:443"]).unwrap(), r#""a.example:8443""#);
    assert!(answering.clone().redirect_to(["A.example"]).is_ok());
    assert!(TlsLayer::require().hosts(["*.example.com"]).unwrap().redirect_to(["www.example.com"]).is_ok());
    all_name_the_value([
        row("preload without subdomains", Hsts::one_year().preload(), "HSTS", r#""max-age=31536000""#),
        row("preload for a minute", short.preload(), "HSTS", r#""max-age=60; includeSubDomains""#),
        row("redirect to a URL", redirect("https://api.example.com"), hosts, r#""https://api.example.com""#),
        row("redirect to a path", redirect("api.example.com/x"), hosts, r#""api.example.com/x""#),
        row("redirect to any host", redirect("*.example.com"), hosts, r#""*.example.com""#),
        row("redirect with a user", redirect("a@example.com"), hosts, r#""a@example.com""#),
        row("redirect to no port", redirect("api.example.com:x"), hosts, r#""api.example.com:x""#),
        row("redirect with a line break", redirect("a\r\nb"), hosts, r#""a\r\nb""#),
        row("redirect to nothing", redirect(""), hosts, r#""""#),
        row("redirect outside of the hosts", answering.clone().redirect_to(["b.example"]), hosts, r#""b.example""#),
        row("hosts outside of a redirect", redirect("a.example:8443").unwrap().hosts(["b.example"]), hosts, to_port),
        row("a port that is not answered for", answering.redirect_to(["a.example", "a.example:8443"]), hosts, to_port),
        row("exempt path", TlsLayer::require().exempt(Method::GET, "health"), "exempt path", r#""health""#),
    ]);
}

#[test]
fn routes() {
    let line = |line: &str| stack().route(line, public()).build();
    assert!(line("GET /orders/{id}").is_ok());
    assert!(line("POST /orders:cancel").is_ok());
    let error = line("GET /orders/:id").unwrap_err().to_string();
    assert!(error.contains("{id}") && error.contains("{*rest}"), "{error}");
    all_name_the_value([
        row("no method", line("/orders"), "route", r#""/orders""#),
        row("nothing", line(""), "route", r#""""#),
        row("no path", line("GET"), "route", r#""GET""#),
        row("path without slash", line("GET orders"), "route", r#""GET orders""#),
        row("method in lower case", line("get /orders"), "route", r#""get /orders""#),
        row("two methods", line("GET,POST /orders"), "route", r#""GET,POST /orders""#),
        row("two spaces", line("GET  /orders"), "route", r#""GET  /orders""#),
        row("a method that is never allowed", line("TRACE /"), "route", r#""TRACE /""#),
        row("HEAD", line("HEAD /"), "route", r#""HEAD /""#),
        row("a query", line("GET /orders?all"), "route", r#""GET /orders?all""#),
        row("dot segments", line("GET /a/../b"), "route", r#""GET /a/../b""#),
        row("an open brace", line("GET /orders/{id"), "route", r#""GET /orders/{id""#),
        row("a parameter of old", line("GET /orders/:id"), "route", r#""GET /orders/:id""#),
        row("the rest of a path of old", line("ANY /files/*rest"), "route", r#""ANY /files/*rest""#),
        row("an asterisk", line("OPTIONS *"), "route", r#""OPTIONS *""#),
        row("a nameless parameter", line("GET /orders/{}"), "route", r#""GET /orders/{}""#),
        row(
            "the same twice",
            stack().route("GET /a", public()).route("GET /a", require(scope("a").unwrap())).build(),
            "route",
            r#""GET /a""#,
        ),
    ]);
}
