//! Tokens that nobody may accept.

use std::net::SocketAddr;

use super::super::TestToken;
use crate::jwt::Algorithm;

/// Those that name no key.
pub(super) const WITHOUT_KID: [(&str, &str); 3] =
    [("token-foreign-key", "a key of nobody, no kid"), ("token-embedded-key", "jwk"), ("token-embedded-key", "x5c")];

/// How those end that name a place for their key, and a kid that is not the provider's.
pub(super) const UNKNOWN_KID: &str = "a kid of nobody";

/// Each with the id of its attack and what it is, in words.
///
/// `token` gives a good one, and `seen` is one of them that was sent, signed. Where each is good for once, what is made of
/// the text of one is made of another that was not. `key_place` is where a service could come to for a key.
pub(super) fn forgeries(
    token: impl Fn() -> TestToken,
    seen: &str,
    one_time: bool,
    key_place: Option<SocketAddr>,
) -> Vec<(&'static str, String, String)> {
    let mut forged: Vec<(&'static str, String, String)> = Vec::new();
    let mut add = |attack, what: &str, token: String| forged.push((attack, what.to_owned(), token));
    let good = token();
    let minted = if one_time { good.mint() } else { seen.to_owned() };
    let (message, signature) = minted.rsplit_once('.').unwrap_or_default();

    for bits in 0..16_u8 {
        let letter = |(place, c): (usize, char)| if bits >> place & 1 == 0 { c } else { c.to_ascii_uppercase() };
        let none: String = "none".chars().enumerate().map(letter).collect();
        // Some pick the key before they look at alg, and some do not where there is a key to pick.
        for (named, token) in [("", good.clone()), (", no kid", good.clone().without_header("kid"))] {
            let bare = token.unsigned(&none);
            add("token-alg-none", &format!("alg {none}, no signature{named}"), bare.clone());
            add("token-alg-none", &format!("alg {none}, a signature{named}"), format!("{bare}{signature}"));
        }
    }
    add("token-alg-none", "an empty alg", good.unsigned(""));
    for forged in good.by_public_key_as_secret() {
        add("token-hmac-public-key", "HS256 with a form of the public key", forged);
    }
    for secret in ["", "secret", "password", "changeme", "\0"] {
        let forged = good.by_secret(Algorithm::HS256, secret.as_bytes());
        add("token-weak-secret", &format!("HS256 with the secret {secret:?}"), forged);
    }
    let labels = ["HS256", "RS256", "PS256", "ES256", "es256", "ES256K", "unknown"];
    for name in labels.into_iter().filter(|name| *name != good.algorithm_name()) {
        add("token-algorithm-mislabelled", &format!("alg {name}"), token().header("alg", name).mint());
    }
    add("token-foreign-key", "a key of nobody, by the name of the provider's", token().by_foreign_key().mint());
    let [(foreign, no_kid), (embedded, jwk), (_, x5c)] = WITHOUT_KID;
    add(foreign, no_kid, token().by_foreign_key().without_header("kid").mint());
    add(embedded, jwk, token().by_foreign_key().embedding_key().without_header("kid").mint());
    add(embedded, "jwk, kid", token().by_foreign_key().embedding_key().mint());
    if let Some(certified) = token().by_foreign_key().embedding_certificate() {
        add(embedded, x5c, certified.clone().without_header("kid").mint());
        add(embedded, "x5c, kid", certified.mint());
    }
    for (name, scheme) in [("jku", "https"), ("jku", "http"), ("x5u", "https"), ("x5u", "http")] {
        let Some(place) = key_place else { break };
        let file = if name == "jku" { "jwks.json" } else { "cert.pem" };
        let led = token().by_foreign_key().header(name, format!("{scheme}://{place}/{file}"));
        add("token-key-url", &format!("{name} over {scheme}"), led.mint());
        let unknown = led.header("kid", "portcullis-test").mint();
        add("token-key-url", &format!("{name} over {scheme}, {UNKNOWN_KID}"), unknown);
    }
    for kid in ["../../../../dev/null", "/dev/null", "' UNION SELECT '' --", "| true", "https://mallory.invalid/", ""] {
        let named = token().header("kid", kid);
        add("token-key-id", &format!("kid {kid:?}, an empty secret"), named.by_secret(Algorithm::HS256, b""));
        add("token-key-id", &format!("kid {kid:?}, a key of nobody"), named.by_foreign_key().header("kid", kid).mint());
    }
    add("token-unsigned", "an empty signature", format!("{message}."));
    add("token-unsigned", "two parts", message.to_owned());
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let rest: String = signature.chars().skip(1).collect();
    add("token-signature-altered", "one character changed", format!("{message}.{flipped}{rest}"));
    let half: String = signature.chars().take(signature.len() / 2).collect();
    add("token-signature-altered", "half of the signature", format!("{message}.{half}"));
    let zeros = "A".repeat(signature.len());
    add("token-signature-altered", "a signature of zeros", format!("{message}.{zeros}"));
    let other = token().subject("portcullis-another").mint();
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    if let ([header, _, signature], [_, claims, _]) = (parts(seen).as_slice(), parts(&other).as_slice()) {
        add("token-claims-swapped", "claims of another", format!("{header}.{claims}.{signature}"));
    }
    for (what, ending) in [("padding", "=="), ("a line feed in encoded form", "%0A"), ("a fourth part", ".e30")] {
        add("token-signature-reencoded", what, format!("{minted}{ending}"));
    }
    if let Some(signature) = with_spare_bits(signature) {
        add("token-signature-reencoded", "spare bits of the last character", format!("{message}.{signature}"));
    }
    // A signature that has none of the characters in question is not rare.
    let standard = (0..64).find_map(|_| in_standard_alphabet(&token().anew().mint()));
    if let Some(standard) = standard {
        add("token-signature-reencoded", "the alphabet with + and /", standard);
    }
    add("token-duplicate-header", "alg twice", token().header_again("alg", "none").mint());
    let twice = token().claim_again("sub", "portcullis-another").mint();
    add("token-duplicate-claim", "sub twice", twice);
    let crit = token().header("crit", ["portcullis-test"]).header("portcullis-test", true).mint();
    add("token-critical-header", "an extension that nobody knows", crit);
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "token-introspection+jwt"] {
        add("token-type", &format!("typ {typ}"), token().header("typ", typ).mint());
    }
    add("token-expired", "an hour ago", token().expired().mint());
    add("token-expired", "in 1970", token().expires_at(1).mint());
    add("token-without-expiry", "no exp", token().without("exp").mint());
    add("token-not-yet-valid", "in an hour", token().not_yet_valid().mint());
    add("token-issued-in-future", "in an hour", token().issued_in_future().mint());
    add("token-issuer", "another", token().claim("iss", "https://mallory.invalid").mint());
    add("token-issuer", "none", token().without("iss").mint());
    add("token-issuer", "a slash more", token().claim("iss", format!("{}/", good.issuer_name())).mint());
    for (what, audience) in [("another", r#""portcullis-other""#), ("an empty list", "[]"), ("null", "null")] {
        add("token-audience", what, token().raw_claim("aud", audience).mint());
    }
    add("token-audience", "none", token().without("aud").mint());
    add("token-without-subject", "no sub", token().without("sub").mint());
    add("token-without-subject", "an empty sub", token().subject("").mint());
    for (claim, json) in [("exp", r#""9000000000""#), ("exp", "1e999"), ("nbf", r#""0""#), ("sub", "1")] {
        add("token-claim-type", &format!("{claim} {json}"), token().raw_claim(claim, json).mint());
    }
    for text in ["a", "..", "a.b.c", "eyJ.eyJ.eyJ", "null.null.null", "e30.e30.", "ey\u{7e}.a.b"] {
        add("token-garbage", text, text.to_owned());
    }
    add("token-garbage", "100 kB", format!("{message}.{}", "A".repeat(100_000)));
    forged
}

/// The same signature to whoever does not look at the bits that are left over in its last character (RFC 4648 §3.5).
fn with_spare_bits(signature: &str) -> Option<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (last, rest) = signature.as_bytes().split_last()?;
    if signature.len().is_multiple_of(4) {
        return None;
    }
    let value = ALPHABET.iter().position(|character| character == last)?;
    let last = ALPHABET.get(value | 1)?;
    Some(format!("{}{}", str::from_utf8(rest).ok()?, char::from(*last)))
}

/// The same signature in the alphabet of RFC 4648 §4. None where both alphabets spell it alike.
fn in_standard_alphabet(token: &str) -> Option<String> {
    let (message, signature) = token.rsplit_once('.')?;
    let standard = signature.replace('-', "+").replace('_', "/");
    (standard != signature).then(|| format!("{message}.{standard}"))
}
