//! Keys that say whose tokens they sign, as Entra's published ones do.

use jsonwebtoken::EncodingKey;
use portcullis::{
    Instants,
    jwt::{Algorithm, Issuer, IssuerProfile, JwtAuthenticator, KeySet, Provider},
};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::{
    mint::{self, encode},
    support::NOW,
};

const API: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// The tenant of all personal accounts.
const PERSONAL: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

fn of(tenant: &str) -> String {
    format!("https://login.microsoftonline.com/{tenant}/v2.0")
}

fn jwk(kid: &str, pair: &KeyPair, issuer: Option<&str>) -> Value {
    let point = pair.public_key_raw();
    let (x, y) = point.split_first().unwrap().1.split_at(32);
    let mut jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": encode(x), "y": encode(y)});
    if let Some(issuer) = issuer {
        jwk.as_object_mut().unwrap().insert("issuer".to_owned(), json!(issuer));
    }
    jwk
}

/// A set of the shape of `common/discovery/v2.0/keys`.
fn common() -> KeySet {
    let keys = [
        jwk("work", &mint::P256, Some(&of("{tenantid}"))),
        jwk("personal", &mint::P256_OF_ANOTHER, Some(&of(PERSONAL))),
    ];
    KeySet::from_jwks(&json!({ "keys": keys }).to_string()).unwrap()
}

fn signed_by(pair: &KeyPair, kid: Option<&str>, iss: &str, tenant: &str) -> String {
    let kid = kid.map_or_else(String::new, |kid| format!(r#","kid":"{kid}""#));
    let claims = json!({"iss": iss, "tid": tenant, "sub": "alice", "oid": "o", "aud": API, "exp": NOW + 60, "iat": NOW,
        "ver": "2.0", "azp": "web", "azpacr": "0", "scp": "orders.read", "client_id": "web", "jti": "1"});
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    mint::signed(Algorithm::ES256, &key, &format!(r#"{{"alg":"ES256","typ":"at+jwt"{kid}}}"#), &claims.to_string())
}

fn verdict(profile: &IssuerProfile, token: &str) -> Result<(), String> {
    let jwt = JwtAuthenticator::builder().issuer(profile.clone()).build().unwrap();
    let verified = jwt.verify(token, Instants::new(NOW * 1_000_000_000, 0));
    verified.map(drop).map_err(|rejection| rejection.reason().to_owned())
}

#[test]
fn a_key_signs_for_its_issuer_alone() {
    let (work, personal) = (&*mint::P256, &*mint::P256_OF_ANOTHER);
    let entra = Provider::entra([TENANT, PERSONAL], API).unwrap().algorithms([Algorithm::ES256]).fixed(common());
    let own = Issuer::fixed(of(TENANT), common()).access_tokens(API).algorithms([Algorithm::ES256]);
    let rows = [
        ("work", work, Some("work"), TENANT, true),
        ("work, no kid", work, None, TENANT, true),
        ("personal", personal, Some("personal"), PERSONAL, true),
        ("personal, no kid", personal, None, PERSONAL, true),
        ("personal for a tenant", personal, Some("personal"), TENANT, false),
        ("personal for a tenant, no kid", personal, None, TENANT, false),
        ("a template means the personal tenant as well", work, Some("work"), PERSONAL, true),
    ];
    for (name, pair, kid, tenant, passes) in rows {
        let token = signed_by(pair, kid, &of(tenant), tenant);
        // Without a kid the other key is tried, and does not verify it.
        let reason = if kid.is_some() { "the issuer has no key for this kid and alg" } else { "signature is not good" };
        let expected = if passes { Ok(()) } else { Err(reason.to_owned()) };
        assert_eq!(verdict(&entra, &token), expected, "{name}");
        // Who does not know of Entra is told by the key as well.
        if tenant == TENANT {
            assert_eq!(verdict(&own, &token), expected, "{name}, an issuer of one's own");
        }
    }
}

#[test]
fn a_template_stands_for_one_tenant() {
    let verdict_of = |issuer: Option<&str>, iss: &str| {
        let set = json!({ "keys": [jwk("a", &mint::P256, issuer)] }).to_string();
        let profile = Issuer::fixed(iss, KeySet::from_jwks(&set).unwrap());
        let profile = profile.access_tokens(API).algorithms([Algorithm::ES256]);
        verdict(&profile, &signed_by(&mint::P256, Some("a"), iss, TENANT)).is_ok()
    };
    let (template, tenant) = (of("{tenantid}"), of(TENANT));
    let template = Some(template.as_str());
    let rows = [
        ("none", None, "https://id.example.com".to_owned(), true),
        ("the same", Some(&*tenant), of(TENANT), true),
        ("another", Some("https://id.example.com"), of(TENANT), false),
        ("a slash more", Some("https://id.example.com/"), "https://id.example.com".to_owned(), false),
        ("a template", template, of(TENANT), true),
        ("a way", template, of("a/b"), false),
        ("nothing", template, of(""), false),
        ("too short", template, "https://login.microsoftonline.com/v2.0".to_owned(), false),
        ("version 1", template, format!("https://sts.windows.net/{TENANT}/"), false),
        ("another host", template, format!("https://login.microsoftonline.us/{TENANT}/v2.0"), false),
        ("more behind", template, format!("{}/", of(TENANT)), false),
        ("the template itself is a name as well", template, of("{tenantid}"), true),
        ("empty", Some(""), of(TENANT), false),
    ];
    for (name, issuer, iss, passes) in rows {
        assert_eq!(verdict_of(issuer, &iss), passes, "{name}");
    }
}
