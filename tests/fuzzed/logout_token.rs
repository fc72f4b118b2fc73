//! The header and the claims of a logout token, one a line, which are signed here, and then the form that it is sent in; or a
//! form that nobody signed. It ends exactly the session, or else what the subject was issued, that a second reader finds in the
//! claims, if this reader finds the issuer, us alone as audience, the event and times that are right; and only once. With one
//! bit off in the signature it ends nothing.

use std::sync::{Arc, LazyLock};

use axum::Router;
use http::{HeaderValue, Method, Uri};
use portcullis::{
    Principal, PrincipalKind,
    guard::public,
    jwt::{Algorithm, LogoutTokens},
    revocation::Revocation,
    revocation_admin::BackchannelLogout,
};
use serde_json::{Value, json};

use super::{
    json::once,
    jwt::{ISSUER, LEEWAY, forged, issuer, sign},
    memory::{NOW, clock},
    revocation_admin::Store,
    router::{Asked, ask},
    routes::decoded,
};

const CLIENT: &str = "orders-web";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

static NOBODY: LazyLock<Principal> =
    LazyLock::new(|| Principal::builder(PrincipalKind::User, ISSUER, "nobody", "test").build());

/// Where tokens are sent to, and what they ended.
struct Endpoint {
    store: Arc<Store>,
    app: Router,
}

/// Panics if something of that does not hold. Whether somebody is logged out.
pub fn check(data: &[u8]) -> bool {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else {
        assert!(Endpoint::new().end(data).1.is_empty(), "nobody signed it");
        return false;
    };
    let token = sign(header, claims);
    let form = parts.next().unwrap_or(b"logout_token=$TOKEN");
    let filled = |token: &str| String::from_utf8_lossy(form).replace("$TOKEN", token);

    let endpoint = Endpoint::new();
    assert!(endpoint.end(filled(&forged(&token)).as_bytes()).1.is_empty(), "a signature that is none");
    let expected = ended(header, claims).filter(|_| is_sent_once(&filled(&token), &token));
    let (status, told) = endpoint.end(filled(&token).as_bytes());
    let all = |revocation: &Revocation| {
        let (issuer, value) = (revocation.issuer().to_owned(), revocation.value().to_owned());
        (revocation.kind(), issuer, value, revocation.last_issue(), revocation.end())
    };
    assert_eq!(status, if told.is_empty() { 400 } else { 200 });
    // What else a token says may be a reason to refuse it.
    if !told.is_empty() || says_no_more(header, claims) {
        let told: Vec<_> = told.iter().map(all).collect();
        assert_eq!(told, expected.iter().map(all).collect::<Vec<_>>(), "{}", String::from_utf8_lossy(claims));
    }
    assert!(endpoint.end(filled(&token).as_bytes()).1.is_empty(), "the second time");
    !told.is_empty()
}

impl Endpoint {
    fn new() -> Self {
        let tokens = LogoutTokens::new([issuer().logout_tokens(CLIENT).algorithms([Algorithm::HS256])]).unwrap();
        let store = Arc::new(Store::asked());
        let app = BackchannelLogout::new(tokens, Arc::clone(&store)).with_clock(clock()).router("/logout").unwrap();
        Self { store, app }
    }

    /// The status for a form, and what it ended.
    fn end(&self, form: &[u8]) -> (u16, Vec<Revocation>) {
        let asked = Asked {
            method: Method::POST,
            uri: Uri::from_static("/logout"),
            media: Some(HeaderValue::from_static("application/x-www-form-urlencoded")),
            body: form.to_vec(),
        };
        let (status, _) = ask(self.app.clone(), vec![("POST /logout".to_owned(), public())], &NOBODY, &asked);
        (status, self.store.told())
    }
}

/// Whether the form has the token once, and nothing else of its name.
fn is_sent_once(form: &str, token: &str) -> bool {
    let read = |text: &str| decoded(text.replace('+', " ").as_bytes()).into_owned();
    let pairs = form.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let tokens = pairs.filter(|(name, _)| read(name) == b"logout_token").map(|(_, value)| read(value));
    tokens.collect::<Vec<_>>() == [token.as_bytes()]
}

/// Whether there is nothing in a token but what is looked at here.
fn says_no_more(header: &[u8], claims: &[u8]) -> bool {
    let only = |of: &[u8], names: &[&str]| {
        let read = once(of).filter(Value::is_object);
        read.filter(|of| of.as_object().is_some_and(|of| of.keys().all(|name| names.contains(&&**name))))
    };
    let claims = only(claims, &["iss", "aud", "iat", "exp", "jti", "sid", "sub", "events"]);
    only(header, &["alg", "typ", "kid"]).is_some()
        && claims.is_some_and(|claims| claims["events"] == json!({ EVENT: {} }))
}

/// What a token ends.
fn ended(header: &[u8], claims: &[u8]) -> Option<Revocation> {
    let (header, claims) = (once(header)?, once(claims)?);
    let typ = header.get("typ").map_or(Some("jwt"), Value::as_str)?.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    let has_none = |of: &Value, names: &[&str]| names.iter().all(|name| of.get(name).is_none());
    let is_plain = header["alg"] == "HS256" && has_none(&header, &["crit", "b64", "zip", "enc", "jwk", "cty"]);
    let is_ours = header.get("kid").is_none_or(|kid| kid == "a") && ["jwt", "logout+jwt"].contains(&typ);
    let ours = |audience: &Value| audience == CLIENT;
    let aud = match &claims["aud"] {
        Value::Array(all) => !all.is_empty() && all.iter().all(ours),
        one => ours(one),
    };
    let now = NOW as f64;
    let of_time =
        |name: &str| claims.get(name).map_or(Some(now), Value::as_f64).filter(|time| (0.0..1e10).contains(time));
    let in_time = claims["exp"].is_number() && of_time("exp")? > now - LEEWAY && claims["iat"].is_number();
    let mut begins = ["nbf", "iat", "auth_time"].into_iter().map(of_time);
    let begun = begins.all(|time| time.is_some_and(|time| time <= now + LEEWAY));
    let says = claims["iss"] == ISSUER && claims["events"][EVENT].is_object();
    let text = |name: &str| match claims.get(name) {
        None => Some(None),
        Some(text) => text.as_str().filter(|text| !text.is_empty()).map(Some),
    };
    let others = has_none(&claims, &["nonce", "at_hash", "c_hash", "token_introspection", "cnf"]);
    let is_good = is_plain && is_ours && aud && in_time && begun && says && others && text("jti")?.is_some();
    let (sid, sub) = (text("sid")?, text("sub")?);
    let issued = claims["iat"].as_f64()? as u64;
    match (sid, sub) {
        _ if !is_good => None,
        (Some(sid), _) => Revocation::session(ISSUER, sid).ok(),
        (None, Some(sub)) => Revocation::subject(ISSUER, sub, issued).ok(),
        (None, None) => None,
    }
}
