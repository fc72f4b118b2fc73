//! Provider profiles: each takes a token of the shape that its provider documents, and refuses what is near to one. The
//! tokens are made here: no test speaks to a provider.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;
#[path = "jwt/providers.rs"]
mod providers;
#[path = "jwt/signers.rs"]
mod signers;

use std::sync::Arc;

use http::StatusCode;
use mint::{key, token};
use portcullis::{
    Instants, Principal, PrincipalKind, Texts,
    authn::AuthnLayer,
    jwt::{Algorithm, ClaimPath, Issuer, IssuerProfile, JwtAuthenticator, KeySet, Provider},
    revocation::{MemoryRevocations, Revocation, RevocationStore},
};
use serde_json::{Value, json};
use support::{NOW, Probe, get, send, text, with};
use tower::Layer;

const JWT: &str = r#"{"alg":"RS256","typ":"JWT","kid":"2027"}"#;
const NO_TYP: &str = r#"{"alg":"RS256","kid":"2027"}"#;
const AT_JWT: &str = r#"{"alg":"RS256","typ":"at+jwt","kid":"2027"}"#;

fn keys() -> KeySet {
    KeySet::new([key(Algorithm::RS256).with_id("2027")]).unwrap()
}

fn at() -> Instants {
    Instants::new(NOW * 1_000_000_000, 0)
}

/// A profile, and a token that it takes.
struct Case {
    name: &'static str,
    profile: IssuerProfile,
    jwt: JwtAuthenticator,
    header: &'static str,
    claims: Value,
}

impl Case {
    fn new(name: &'static str, provider: Provider, header: &'static str, claims: Value) -> Self {
        Self::of(name, provider.fixed(keys()), header, claims)
    }

    fn of(name: &'static str, profile: IssuerProfile, header: &'static str, mut claims: Value) -> Self {
        // Good today, whenever that is: the layer reads the clock.
        let more = json!({"exp": 9_000_000_000_u64, "iat": 1_700_000_000});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let jwt = JwtAuthenticator::builder().issuer(profile.clone()).build().unwrap();
        Self { name, profile, jwt, header, claims }
    }

    fn verify(&self, header: &str, claims: &Value) -> Result<Principal, String> {
        let token = token(Algorithm::RS256, header, &claims.to_string());
        self.jwt.verify(&token, at()).map_err(|rejection| rejection.reason().to_owned())
    }

    fn principal(&self) -> Principal {
        self.verify(self.header, &self.claims).unwrap_or_else(|reason| panic!("{}: {reason}", self.name))
    }

    /// With this claim changed, or without it if the value is null.
    fn but(&self, path: impl Into<ClaimPathText>, value: Value) -> Value {
        let mut claims = self.claims.clone();
        let ClaimPathText(path) = path.into();
        let (last, parents) = path.split_last().unwrap();
        let mut object = &mut claims;
        for name in parents {
            object = &mut object[name.as_str()];
        }
        let object = object.as_object_mut().unwrap();
        match value {
            Value::Null => drop(object.remove(last).unwrap_or_else(|| panic!("{}: no {last}", self.name))),
            value => drop(object.insert(last.clone(), value)),
        }
        claims
    }

    fn takes(&self, path: impl Into<ClaimPathText>, value: Value) -> Principal {
        let claims = self.but(path, value);
        self.verify(self.header, &claims).unwrap_or_else(|reason| panic!("{}: {reason}", self.name))
    }

    fn takes_header(&self, header: &str) {
        assert_eq!(self.verify(header, &self.claims).err(), None, "{} {header}", self.name);
    }

    fn refuses_header(&self, header: &str) {
        assert!(self.verify(header, &self.claims).is_err(), "{} {header}", self.name);
    }

    fn refuses(&self, path: impl Into<ClaimPathText>, value: Value, reason: &str) {
        let claims = self.but(path, value);
        let refused = self.verify(self.header, &claims).map(|_| ());
        assert!(
            refused.as_ref().is_err_and(|refused| refused.starts_with(reason)),
            "{}: {reason}: {refused:?}",
            self.name
        );
    }
}

/// A way to a claim in the test's own tokens.
struct ClaimPathText(Vec<String>);

impl From<&str> for ClaimPathText {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl<const N: usize> From<[&str; N]> for ClaimPathText {
    fn from(names: [&str; N]) -> Self {
        Self(names.map(str::to_owned).into())
    }
}

fn strings(values: Texts<'_>) -> Vec<&str> {
    values.collect()
}

/// What holds for every profile, through the layer.
#[tokio::test]
async fn documented_tokens_pass_and_others_do_not() {
    for case in providers::all() {
        let probe = Probe::default();
        let service = AuthnLayer::new(case.jwt.clone()).dangerous_plain_http().layer(probe.clone());
        let bearing = |header: &str, claims: &Value| {
            let token = token(Algorithm::RS256, header, &claims.to_string());
            with(get("/"), "authorization", &format!("Bearer {token}"))
        };
        let response = send(&service, bearing(case.header, &case.claims)).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", case.name);
        assert_eq!(text(response).await, case.claims["sub"].as_str().unwrap(), "{}", case.name);

        let iss = case.claims["iss"].as_str().unwrap();
        let mut bad = vec![
            ("no sub", case.but("sub", Value::Null)),
            ("empty sub", case.but("sub", json!(""))),
            ("no exp", case.but("exp", Value::Null)),
            ("expired", case.but("exp", json!(1_000_000_000))),
            ("no iat", case.but("iat", Value::Null)),
            ("issued later", case.but("iat", json!(8_000_000_000_u64))),
            ("iat a string", case.but("iat", json!("1700000000"))),
            ("no iss", case.but("iss", Value::Null)),
            ("another iss", case.but("iss", json!("https://evil.example"))),
            ("longer iss", case.but("iss", json!(format!("{iss}x")))),
            ("iss with another slash", case.but("iss", json!(format!("{iss}/")))),
            ("iss in an array", case.but("iss", json!([iss]))),
            ("bound to a key", case.but("cnf", json!({"jkt": "x"}))),
        ];
        let binding = if case.claims.get("aud").is_some() { "aud" } else { "client_id" };
        bad.extend([
            ("no binding", case.but(binding, Value::Null)),
            ("for somebody else", case.but(binding, json!("somebody-else"))),
            ("for nobody", case.but(binding, json!([]))),
            ("binding of a wrong type", case.but(binding, json!(5))),
        ]);
        for (name, claims) in bad {
            let response = send(&service, bearing(case.header, &claims)).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{}: {name}", case.name);
        }
        for header in [
            r#"{"alg":"RS256","typ":"logout+jwt","kid":"2027"}"#,
            r#"{"alg":"RS256","typ":"dpop+jwt","kid":"2027"}"#,
            r#"{"alg":"RS256","typ":"application/okta-internal-at+jwt","kid":"2027"}"#,
            r#"{"alg":"PS256","typ":"JWT","kid":"2027"}"#,
            r#"{"alg":"RS256","typ":"JWT","kid":"other"}"#,
        ] {
            case.refuses_header(header);
        }
        assert_eq!(probe.seen.calls(), 1, "{}", case.name);
    }
}

/// The case with revocations, and a token of now.
fn revocable(case: Case) -> (Case, Arc<MemoryRevocations>) {
    let store = Arc::new(MemoryRevocations::new());
    let jwt = JwtAuthenticator::builder().issuer(case.profile.clone()).revocations(Arc::clone(&store));
    let case = Case { jwt: jwt.build().unwrap(), ..case };
    let mut claims = case.but("exp", json!(NOW + 600));
    claims.as_object_mut().unwrap().insert("iat".to_owned(), json!(NOW));
    (Case { claims, ..case }, store)
}

/// The client is called otherwise at each provider. Its revocation meets its tokens, and no others.
#[tokio::test]
async fn the_tokens_of_a_revoked_client_are_refused() {
    const WEB: &str = "14a90c0e-0000-4000-8000-000000000000";
    let clients = [
        ("google", "web.apps.googleusercontent.com"),
        ("entra", WEB),
        ("entra v1", WEB),
        ("auth0", "my_client_id"),
        ("okta", "nmdP1fcyvdVO11AL7ECm"),
        ("cognito access", "xxxxxxxxxxxxexample"),
        ("cognito id", "xxxxxxxxxxxxexample"),
        ("keycloak", "web"),
        ("firebase", "my-project"),
    ];
    let mut met = 0;
    for case in providers::all() {
        let Some((_, client)) = clients.iter().find(|(name, _)| *name == case.name) else {
            assert!(
                ["github actions", "kubernetes", "aks", "gitlab"].contains(&case.name),
                "{} has no client",
                case.name
            );
            continue;
        };
        met += 1;
        let (case, store) = revocable(case);
        let issuer = case.principal().issuer().to_owned();
        for (revoked, reason) in [("another", None), (*client, Some("the client's tokens are revoked"))] {
            store.revoke(&Revocation::client(&issuer, revoked).unwrap(), at()).await.unwrap();
            let refused = case.verify(case.header, &case.claims).err();
            assert_eq!(refused.as_deref(), reason, "{} of {revoked}", case.name);
        }
        if case.name == "google" {
            case.refuses("azp", Value::Null, "the client's tokens are revoked");
        }
        if case.name == "okta" {
            case.refuses("cid", json!(["nmdP1fcyvdVO11AL7ECm"]), "the claim that names the client is not a string");
            case.refuses("azp", json!("another-web"), "the client's tokens are revoked");
        }
    }
    assert_eq!(met, clients.len());
}

/// A token is revoked by what its issuer calls it, which at Entra is no `jti`.
#[tokio::test]
async fn a_token_is_revoked_by_its_id() {
    let ids = [
        ("entra", "fqiBqXLPj0eQa82S-IYFAA"),
        ("entra v1", "Q9wqC3RzGkuR1aXcd0sAAA"),
        ("okta", "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE"),
        ("keycloak", "trtcc:312ee6"),
        ("gitlab", "c82eeb0c"),
    ];
    for (name, id) in ids {
        let case = providers::all().into_iter().find(|case| case.name == name).unwrap();
        let (case, store) = revocable(case);
        let principal = case.principal();
        assert_eq!(principal.credential_id(), Some(id), "{name}");
        for (revoked, reason) in [("another", None), (id, Some("token is revoked"))] {
            store.revoke(&Revocation::token(principal.issuer(), revoked).unwrap(), at()).await.unwrap();
            assert_eq!(case.verify(case.header, &case.claims).err().as_deref(), reason, "{name}: {revoked}");
        }
        if name == "entra" {
            case.refuses("uti", json!(5), "the claim that names the token is not a string");
        }
    }
}

/// No token of one profile is good for another, although all are signed with one key here.
#[test]
fn no_profile_takes_the_token_of_another() {
    let cases = providers::all();
    for (place, token) in cases.iter().enumerate() {
        for (other, verifier) in cases.iter().enumerate() {
            let taken = verifier.verify(token.header, &token.claims).is_ok();
            assert_eq!(taken, place == other, "{} by {}", token.name, verifier.name);
        }
    }
}

#[test]
fn many_issuers_never_mix() {
    for count in [2, 8, 9, 40] {
        let name = |place: usize| format!("https://{place}.id.example.com");
        // Two keys of one kid: the even issuers have the one, the odd ones the other.
        let (even, odd) = (Algorithm::RS256, Algorithm::ES256);
        let of = |place: usize| if place.is_multiple_of(2) { even } else { odd };
        let mut builder = JwtAuthenticator::builder();
        for place in 0..count {
            let keys = KeySet::new([key(of(place)).with_id("same")]).unwrap();
            let issuer = Issuer::fixed(name(place), keys);
            builder = builder.issuer(
                issuer
                    .access_tokens("api")
                    .algorithms([of(place)])
                    .roles_claim(["roles".to_owned().as_str(), if place == 1 { "odd" } else { "even" }]),
            );
        }
        let jwt = builder.build().unwrap();
        let check = |iss: &str, algorithm: Algorithm| {
            let claims = json!({"iss": iss, "sub": "alice", "aud": "api", "exp": NOW + 60, "iat": NOW, "client_id": "web",
                "jti": "1", "roles": {"odd": ["a"], "even": ["b"]}});
            let header = format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"same"}}"#);
            jwt.verify(&token(algorithm, &header, &claims.to_string()), at())
        };
        let mut principals: Vec<Principal> = Vec::new();
        for place in 0..count {
            let principal = check(&name(place), of(place)).unwrap();
            assert_eq!(principal.issuer(), name(place));
            assert_eq!(strings(principal.roles()), [if place == 1 { "a" } else { "b" }]);
            assert!(principals.iter().all(|other| !other.is_same_as(&principal)), "{place} of {count}");
            principals.push(principal);
            let other = if of(place) == even { odd } else { even };
            assert!(check(&name(place), other).is_err(), "the key of another issuer, {place} of {count}");
        }
        for unknown in [name(count), String::new(), "https://0.id.example.com/".to_owned(), name(0).to_uppercase()] {
            let rejection = check(&unknown, even).unwrap_err();
            assert_eq!(rejection.reason(), "iss is missing or not known", "{unknown}");
        }
    }
}

#[test]
fn claims_of_the_users_own() {
    let profile =
        || Issuer::fixed("https://id.example.com", keys()).access_tokens("api").algorithms([Algorithm::RS256]);
    let claims = json!({"iss": "https://id.example.com", "sub": "alice", "aud": "api", "client_id": "web", "jti": "1",
        "https://example.com/roles": ["a"], "realm_access.roles": ["dotted"], "realm_access": {"roles": ["nested"]},
        "permissions": ["orders:read"], "env": "prod"});
    let with = |profile| Case::of("own", profile, AT_JWT, claims.clone());
    let roles = |path: ClaimPath| {
        let case = with(profile().roles_claim(path));
        case.principal().roles().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(roles("https://example.com/roles".into()), ["a"]);
    assert_eq!(roles("realm_access.roles".into()), ["dotted"]);
    assert_eq!(roles(["realm_access", "roles"].into()), ["nested"]);
    assert_eq!(roles(["realm_access", "other"].into()), [""; 0]);

    let case = with(profile().permissions_claim("permissions"));
    assert_eq!(strings(case.principal().permissions()), ["orders:read"]);
    for wrong in [json!("orders:read"), json!([1]), json!({}), json!([["a"]])] {
        case.refuses("permissions", wrong, "the permissions claim is not an array of strings");
    }
    let case = with(profile().roles_claim(["realm_access", "roles"]));
    for wrong in [json!("a"), json!([]), json!(["roles"]), json!(true), json!({"roles": "a"})] {
        case.refuses("realm_access", wrong, "the roles claim is not an array of strings");
    }
    let case = with(profile().claim_must_be("env", ["prod", "stage"]));
    assert_eq!(case.principal().subject(), "alice");
    assert_eq!(case.takes("env", json!("stage")).kind(), PrincipalKind::User);
    case.refuses("env", json!("dev"), "a claim has another value");
    case.refuses("env", json!(["prod"]), "a claim that the profile expects is not a string");
    case.refuses("env", Value::Null, "a claim that the profile expects is missing");
}

/// Which clients may call, how strongly whoever it is logged in: by the claims that every profile reads anyway.
#[test]
fn registered_claims_must_be_what_is_said() {
    let profile =
        || Issuer::fixed("https://id.example.com", keys()).access_tokens("api").algorithms([Algorithm::RS256]);
    let claims = json!({"iss": "https://id.example.com", "sub": "alice", "aud": "api", "client_id": "web", "azp": "web",
        "jti": "1", "acr": "urn:example:strong"});
    for (claim, value) in [("client_id", "web"), ("azp", "web"), ("jti", "1"), ("acr", "urn:example:strong")] {
        let may_lack = profile().may_lack(["client_id", "jti"]);
        let case = Case::of(claim, may_lack.claim_must_be(claim, ["x", value]), AT_JWT, claims.clone());
        case.principal();
        case.refuses(claim, json!("y"), "a claim has another value than the profile expects");
        case.refuses(claim, Value::Null, "a claim that the profile expects is missing");
        let required = Case::of(claim, profile().required([claim]), AT_JWT, claims.clone());
        required.principal();
        required.refuses(claim, Value::Null, &format!("{claim} is missing"));
        // Inside it there is nothing, and no value means nobody.
        for refused in [profile().claim_must_be([claim, "x"], ["y"]), profile().claim_must_be(claim, [""; 0])] {
            assert!(JwtAuthenticator::builder().issuer(refused).build().is_err(), "{claim}");
        }
    }
    for claim in ["iss", "sub", "aud", "exp", "iat", "amr", "cnf", "nonce"] {
        let built = JwtAuthenticator::builder().issuer(profile().claim_must_be(claim, ["x"])).build();
        assert!(built.unwrap_err().to_string().contains("has a meaning of its own"), "{claim}");
    }
}
