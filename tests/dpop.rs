//! Tokens that are bound to a key (RFC 9449) or a certificate (RFC 8705): who has the token alone has nothing.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;
#[path = "jwt/owner.rs"]
mod owner;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{Method, Request, Response};
use mint::{AUDIENCE, CLAIMS, ISSUER, claims_but, key, with_claims};
use owner::{Owner, URL, but, claims_at, sha256};
use portcullis::{
    ClientCertificate, Clock, Connection, Instants, Secret, TlsVersion,
    authn::AuthnLayer,
    guard::{authenticated, require},
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet, Provider,
        bound::{Dpop, MemoryReplays, Nonces, ProofUse, Remembered, ReplayStore},
    },
    rate_limit::{FailureBudget, Quota},
    stack::Stack,
};
use serde_json::{Value, json};
use support::{Discard, NOW, Probe, Still, send};
use tower::Layer;

fn builder() -> JwtAuthenticatorBuilder {
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let profile = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(profile)
}

fn claims(token: &str, jti: &str) -> Value {
    claims_at(token, jti, NOW)
}

fn request(scheme: &str, token: &str, proofs: &[&str]) -> Request<()> {
    let mut request = Request::get("/orders?page=2").header("authorization", format!("{scheme} {token}"));
    for proof in proofs {
        request = request.header("dpop", *proof);
    }
    request.body(()).unwrap()
}

async fn answer(jwt: &JwtAuthenticator, request: Request<()>) -> Response<http_body_util::Full<bytes::Bytes>> {
    let layer = AuthnLayer::new(jwt.clone()).dangerous_plain_http();
    // The clock of the outermost layer is the request's.
    let audited = portcullis::audit::AuditLayer::new(Discard).with_clock(Still);
    send(&audited.layer(layer.layer(Probe::default())), request).await
}

fn challenges<B>(response: &Response<B>) -> String {
    let lines = response.headers().get_all("www-authenticate").iter().map(|line| line.to_str().unwrap());
    lines.collect::<Vec<_>>().join(" | ")
}

#[tokio::test]
async fn one_proof_is_taken_once_by_all_that_have_a_clone() {
    let dpop = Dpop::at([URL]).unwrap();
    let (one, two) = (builder().dpop(dpop.clone()).build().unwrap(), builder().dpop(dpop).build().unwrap());
    let owner = Owner::new();
    let token = owner.token();
    let proof = owner.proof(&claims(&token, "once"));
    assert_eq!(answer(&one, request("DPoP", &token, &[&proof])).await.status(), 200);
    assert_eq!(answer(&two, request("DPoP", &token, &[&proof])).await.status(), 401, "replay");
}

#[tokio::test]
async fn attacks_beside_the_happy_path() {
    let jwt = builder().dpop(Dpop::at([URL]).unwrap()).build().unwrap();
    let (owner, thief) = (Owner::new(), Owner::new());
    let token = owner.token();
    let good = |jti: &str| claims(&token, jti);
    for (scheme, htu) in
        [("DPoP", "https://api.example.com/orders"), ("dpop", "HTTPS://API.example.com:443/./%6frders?other#f")]
    {
        let proof = owner.proof(&but(good(htu), "htu", htu.into()));
        assert_eq!(answer(&jwt, request(scheme, &token, &[&proof])).await.status(), 200, "{htu}");
        // The token is remembered by now, the proof was used up.
        let again = answer(&jwt, request(scheme, &token, &[&proof])).await;
        assert_eq!(again.status(), 401, "replay");
        assert!(challenges(&again).contains("invalid_dpop_proof"), "{}", challenges(&again));
    }
    let other = with_claims(&claims_but("cnf", &json!({"jkt": owner.jkt()}).to_string()).replace("t-1", "t-2"));
    let private = but(owner.jwk(), "d", "AQ".into());
    let header = owner.header();
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("no proof", vec![]),
        ("two proofs", vec![owner.proof(&good("a1")), owner.proof(&good("a2"))]),
        ("another method", vec![owner.proof(&but(good("b"), "htm", "POST".into()))]),
        ("the method in another case", vec![owner.proof(&but(good("c"), "htm", "get".into()))]),
        ("another path", vec![owner.proof(&but(good("d"), "htu", "https://api.example.com/order".into()))]),
        (
            "the path in another case",
            vec![owner.proof(&but(good("e"), "htu", "https://api.example.com/Orders".into()))],
        ),
        ("an escaped slash", vec![owner.proof(&but(good("f"), "htu", "https://api.example.com%2forders".into()))]),
        ("another host", vec![owner.proof(&but(good("g"), "htu", "https://evil.example/orders".into()))]),
        ("another port", vec![owner.proof(&but(good("h"), "htu", "https://api.example.com:8443/orders".into()))]),
        ("another scheme", vec![owner.proof(&but(good("i"), "htu", "http://api.example.com/orders".into()))]),
        ("a path alone", vec![owner.proof(&but(good("j"), "htu", "/orders".into()))]),
        ("too old", vec![owner.proof(&but(good("k"), "iat", (NOW - 30).into()))]),
        ("from the future", vec![owner.proof(&but(good("l"), "iat", (NOW + 6).into()))]),
        ("iat as text", vec![owner.proof(&but(good("m"), "iat", NOW.to_string().into()))]),
        ("ath of another token", vec![owner.proof(&claims(&other, "n"))]),
        ("without jti", vec![owner.proof(&but(good("o"), "jti", Value::Null))]),
        ("without htm", vec![owner.proof(&but(good("p"), "htm", Value::Null))]),
        ("without htu", vec![owner.proof(&but(good("q"), "htu", Value::Null))]),
        ("without iat", vec![owner.proof(&but(good("r"), "iat", Value::Null))]),
        ("without ath", vec![owner.proof(&but(good("s"), "ath", Value::Null))]),
        ("typ JWT", vec![owner.sign(&but(header.clone(), "typ", "JWT".into()), &good("t"))]),
        ("typ of an access token", vec![owner.sign(&but(header.clone(), "typ", "at+jwt".into()), &good("u"))]),
        ("no typ", vec![owner.sign(&but(header.clone(), "typ", Value::Null), &good("u1"))]),
        ("typ of another tree", vec![owner.sign(&but(header.clone(), "typ", "text/dpop+jwt".into()), &good("u2"))]),
        ("alg none", vec![owner.sign(&but(header.clone(), "alg", "none".into()), &good("v"))]),
        ("alg HS256", vec![owner.sign(&but(header.clone(), "alg", "HS256".into()), &good("w"))]),
        ("without jwk", vec![owner.sign(&but(header.clone(), "jwk", Value::Null), &good("x"))]),
        ("a private key", vec![owner.sign(&but(header.clone(), "jwk", private), &good("y"))]),
        ("crit", vec![owner.sign(&but(header.clone(), "crit", json!(["a"])), &good("z"))]),
        ("signed by another key", vec![thief.sign(&header, &good("z1"))]),
        ("not a JWT", vec!["a.b".to_owned()]),
        ("two in one line", vec![format!("{0}, {0}", owner.proof(&good("z2")))]),
    ];
    for (name, proofs) in rows {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let refused = answer(&jwt, request("DPoP", &token, &proofs)).await;
        assert_eq!(refused.status(), 401, "{name}");
        let expected = r#"DPoP realm="api", algs="ES256 EdDSA ES384 ES512 PS256 RS256", error="invalid_dpop_proof""#;
        assert_eq!(challenges(&refused), expected, "{name}");
    }
    // A media type has no case, and `application/` goes without saying (RFC 7515 §4.1.9).
    for typ in ["application/dpop+jwt", "DPoP+JWT"] {
        let proof = owner.sign(&but(header.clone(), "typ", typ.into()), &good(typ));
        assert_eq!(answer(&jwt, request("DPoP", &token, &[&proof])).await.status(), 200, "{typ}");
    }
    // A refused proof uses nothing up.
    for (name, iat) in [("k", NOW - 29), ("l", NOW + 5)] {
        let proof = owner.proof(&but(good(name), "iat", iat.into()));
        assert_eq!(answer(&jwt, request("DPoP", &token, &[&proof])).await.status(), 200, "{name}");
    }

    let invalid_token = [
        ("the thief's own key", request("DPoP", &token, &[&thief.proof(&good("1"))])),
        (
            "an unbound token",
            request("DPoP", &with_claims(CLAIMS), &[&owner.proof(&claims(&with_claims(CLAIMS), "2"))]),
        ),
        ("a bad token", request("DPoP", &format!("{token}A"), &[&owner.proof(&good("3"))])),
        ("downgraded to Bearer", request("Bearer", &token, &[])),
        ("downgraded to Bearer, with a proof", request("Bearer", &token, &[&owner.proof(&good("4"))])),
    ];
    for (name, request) in invalid_token {
        let refused = answer(&jwt, request).await;
        assert_eq!(refused.status(), 401, "{name}");
        assert!(challenges(&refused).contains(r#"error="invalid_token""#), "{name}: {}", challenges(&refused));
    }
    assert_eq!(answer(&jwt, request("Bearer", &with_claims(CLAIMS), &[])).await.status(), 200, "unbound, as ever");
    assert!(jwt.verify(&token, Still.now()).is_err(), "without a request there is no proof");
    let head = answer(&jwt, {
        let mut request = request("DPoP", &token, &[&owner.proof(&good("head"))]);
        *request.method_mut() = Method::HEAD;
        request
    });
    assert_eq!(head.await.status(), 401, "a proof of GET is none of HEAD");
}

#[tokio::test]
async fn keycloak_calls_its_bound_tokens_by_another_type() {
    const REALM: &str = "https://login.example.com/realms/shop";
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let profile = Provider::keycloak(REALM, AUDIENCE).unwrap().algorithms([Algorithm::ES256]).fixed(keys);
    let jwt = JwtAuthenticator::builder().issuer(profile).dpop(Dpop::at([URL]).unwrap()).build().unwrap();
    let owner = Owner::new();
    let certificate = json!({"x5t#S256": sha256(b"stands for a certificate")});
    let rows = [
        ("bound", "DPoP", Some(json!({"jkt": owner.jkt()})), 200, 401),
        ("bound, by an old Keycloak", "Bearer", Some(json!({"jkt": owner.jkt()})), 200, 401),
        ("not bound", "Bearer", None, 401, 200),
        ("not bound, and says so", "DPoP", None, 401, 401),
        ("bound to a certificate", "DPoP", Some(certificate), 401, 401),
        ("a refresh token", "Refresh", Some(json!({"jkt": owner.jkt()})), 401, 401),
    ];
    for (name, typ, cnf, with_proof, without) in rows {
        let mut claims: Value = serde_json::from_str(CLAIMS).unwrap();
        (claims["iss"], claims["typ"], claims["azp"]) = (REALM.into(), typ.into(), "web".into());
        if let Some(cnf) = cnf {
            claims["cnf"] = cnf;
        }
        let token = with_claims(&claims.to_string());
        let proof = owner.proof(&claims_at(&token, name, NOW));
        assert_eq!(answer(&jwt, request("DPoP", &token, &[&proof])).await.status(), with_proof, "{name}");
        assert_eq!(answer(&jwt, request("Bearer", &token, &[])).await.status(), without, "{name}, as Bearer");
    }
}

#[tokio::test]
async fn what_is_not_set_up_stays_shut() {
    let owner = Owner::new();
    let token = owner.token();
    let proof = owner.proof(&claims(&token, "a"));
    let without = builder().build().unwrap();
    for scheme in ["DPoP", "Bearer"] {
        assert_eq!(answer(&without, request(scheme, &token, &[&proof])).await.status(), 401, "{scheme}");
    }
    let required = builder().dpop(Dpop::at([URL]).unwrap().required()).build().unwrap();
    // What would be refused is not offered, whatever was wrong.
    let offer = r#"DPoP realm="api", algs="ES256 EdDSA ES384 ES512 PS256 RS256""#;
    for (what, token) in [("unbound", with_claims(CLAIMS)), ("bound", token.clone()), ("forged", format!("{token}A"))] {
        let refused = answer(&required, request("Bearer", &token, &[])).await;
        assert_eq!(refused.status(), 401, "{what}");
        assert_eq!(challenges(&refused), format!(r#"{offer}, error="invalid_token""#), "{what}");
    }
    let bare = answer(&required, Request::get("/orders").body(()).unwrap()).await;
    assert_eq!((bare.status().as_u16(), challenges(&bare).as_str()), (401, offer));
    assert_eq!(answer(&required, request("DPoP", &token, &[&proof])).await.status(), 200);
    for bad in ["http://api.example.com", "api.example.com", "https://u@a", "https://a?b", "https://a#b", ""] {
        assert!(Dpop::at([bad]).is_err(), "{bad}");
    }
    assert!(Dpop::at([""; 0]).is_err() && Dpop::at(["http://localhost:8080"]).is_ok());
    for algorithms in [vec![], vec![Algorithm::ES256, Algorithm::HS256]] {
        assert!(builder().dpop(Dpop::at([URL]).unwrap().algorithms(algorithms)).build().is_err());
    }
    assert!(builder().dpop(Dpop::at([URL]).unwrap()).without_authorization().header("x-jwt").build().is_err());
    assert!(builder().resource_metadata("http://api.example.com/x").build().is_err());
}

#[tokio::test]
async fn nonces_are_demanded_and_rotate() {
    let nonces = || Nonces::with_secret(Secret::new(vec![7; 32])).unwrap();
    let jwt = builder().dpop(Dpop::at([URL]).unwrap().nonces(nonces())).build().unwrap();
    let owner = Owner::new();
    let token = owner.token();
    let first = answer(&jwt, request("DPoP", &token, &[&owner.proof(&claims(&token, "a"))])).await;
    assert_eq!(first.status(), 401);
    assert!(challenges(&first).ends_with(r#"error="use_dpop_nonce""#), "{}", challenges(&first));
    let nonce = first.headers()["dpop-nonce"].to_str().unwrap();
    assert_eq!(first.headers()["cache-control"], "no-store");
    let proof = owner.proof(&but(claims(&token, "b"), "nonce", nonce.into()));
    let second = answer(&jwt, request("DPoP", &token, &[&proof])).await;
    assert_eq!((second.status().as_u16(), second.headers().contains_key("dpop-nonce")), (200, false));
    let forged = owner.proof(&but(claims(&token, "c"), "nonce", nonce.to_lowercase().into()));
    assert!(answer(&jwt, request("DPoP", &token, &[&forged])).await.headers().contains_key("dpop-nonce"));
}

/// A clock that is moved by hand; clones share the hands.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Instants {
        let seconds = self.0.load(Ordering::SeqCst);
        Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000)
    }
}

/// RFC 9449 §8.2: a nonce is for one client, and no cache may hand it to others.
#[tokio::test]
async fn an_answer_with_a_nonce_is_stored_nowhere() {
    let handler = tower::service_fn(|_: Request<()>| async {
        let response = Response::builder().header("cache-control", "public").header("cache-control", "max-age=3600");
        Ok::<_, std::convert::Infallible>(response.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap())
    });
    let (owner, clock) = (Owner::new(), Hands::default());
    let dpop = Dpop::at([URL]).unwrap().nonces(Nonces::with_secret(Secret::new(vec![7; 32])).unwrap());
    let jwt = builder().dpop(dpop).build().unwrap();
    let audited = portcullis::audit::AuditLayer::new(Discard).with_clock(clock.clone());
    let layers = audited.layer(AuthnLayer::new(jwt.clone()).dangerous_plain_http().layer(handler));
    let stack = Stack::builder().clock(clock.clone()).dangerous_plain_http().authenticate(jwt);
    let stack = stack.fallback(require(authenticated())).build().unwrap().protect(handler);
    let token = owner.token();
    let bearing = |jti: &str, nonce: &str| {
        let claims = claims_at(&token, jti, NOW + clock.0.load(Ordering::SeqCst));
        request("DPoP", &token, &[&owner.proof(&but(claims, "nonce", nonce.into()))])
    };
    let first = send(&layers, bearing("first", "none")).await;
    let nonce = first.headers()["dpop-nonce"].to_str().unwrap().to_owned();
    let seen = |response: Response<http_body_util::Full<bytes::Bytes>>| {
        let values = response.headers().get_all("cache-control").iter().map(|value| value.to_str().unwrap());
        let values = values.collect::<Vec<_>>().join(", ");
        (response.status().as_u16(), response.headers().contains_key("dpop-nonce"), values)
    };
    for (seconds, with_nonce, kept) in [(0, false, "public, max-age=3600"), (150, true, "no-store")] {
        clock.0.store(seconds, Ordering::SeqCst);
        let expected = (200, with_nonce, kept.to_owned());
        assert_eq!(seen(send(&layers, bearing(&format!("a{seconds}"), &nonce)).await), expected, "{seconds} s");
        assert_eq!(seen(send(&stack, bearing(&format!("b{seconds}"), &nonce)).await), expected, "{seconds} s, stack");
    }
}

#[tokio::test]
async fn a_token_goes_with_its_certificate() {
    let der = b"stands for a certificate";
    let token = with_claims(&claims_but("cnf", &json!({"x5t#S256": sha256(der)}).to_string()));
    let jwt = builder().build().unwrap();
    let peer = "198.51.100.7:1".parse().unwrap();
    let with = |token: &str, der: Option<&[u8]>| {
        let mut request = request("Bearer", token, &[]);
        let connection = Connection::tls(peer, TlsVersion::Tls13);
        request.extensions_mut().insert(match der {
            Some(der) => connection.with_client_certificate(ClientCertificate::from_der(der)),
            None => connection,
        });
        request
    };
    for (name, request) in [("no certificate", with(&token, None)), ("not readable", with(&token, Some(der)))] {
        let refused = answer(&jwt, request).await;
        assert_eq!(refused.status(), 401, "{name}");
        assert!(challenges(&refused).contains("invalid_token"), "{name}");
    }
    let real = rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    let bound = with_claims(&claims_but("cnf", &json!({"x5t#S256": sha256(real.cert.der())}).to_string()));
    let other = rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    for round in ["first", "from the cache"] {
        assert_eq!(answer(&jwt, with(&bound, Some(real.cert.der()))).await.status(), 200, "{round}");
        assert_eq!(answer(&jwt, with(&bound, Some(other.cert.der()))).await.status(), 401, "{round}");
        assert_eq!(answer(&jwt, with(&bound, None)).await.status(), 401, "{round}");
    }
    let always = builder().certificate_bound().build().unwrap();
    assert_eq!(answer(&always, with(&with_claims(CLAIMS), Some(real.cert.der()))).await.status(), 401, "unbound");
    assert_eq!(answer(&always, with(&bound, Some(real.cert.der()))).await.status(), 200);
}

#[tokio::test]
async fn the_memory_store_keeps_its_bounds_and_its_word() {
    const SECOND: u64 = 1_000_000_000;
    let at = |seconds: u64| Instants::new(seconds * SECOND, 0);
    let store = MemoryReplays::new().with_bounds(4, 2).unwrap();
    let used = |key: u8, jti: &str, until: u64| ProofUse::new([key; 32], jti, until * SECOND);
    let ask = async |proof: ProofUse, now: u64| store.remember(&proof, at(now)).await.map_err(|error| error.kind());
    assert_eq!(ask(used(1, "a", 130), 100).await, Ok(Remembered::Fresh));
    assert_eq!(ask(used(1, "a", 135), 100).await, Ok(Remembered::Seen));
    assert_eq!(ask(used(2, "a", 130), 100).await, Ok(Remembered::Fresh), "another key's jti is another proof");
    assert_eq!(ask(used(1, "b", 130), 100).await, Ok(Remembered::Fresh));
    assert_eq!(ask(used(1, "c", 130), 100).await, Ok(Remembered::TooMany));
    assert_eq!(ask(used(3, "a", 130), 129).await, Ok(Remembered::Fresh));
    assert!(ask(used(4, "a", 160), 129).await.is_err(), "full: nothing that may be used again is forgotten");
    assert_eq!(store.len(), 4);
    assert_eq!(ask(used(4, "a", 160), 130).await, Ok(Remembered::Fresh), "what ended makes room");
    assert_eq!(ask(used(1, "a", 130), 100).await, Ok(Remembered::Seen), "a clock that went back opens nothing");
    assert!(MemoryReplays::new().with_bounds(0, 0).is_err() && MemoryReplays::new().with_bounds(1, 2).is_err());
}

#[tokio::test]
async fn forged_proofs_draw_on_the_failure_budget_of_their_source() {
    let jwt = builder().dpop(Dpop::at([URL]).unwrap()).build().unwrap();
    let (owner, thief) = (Owner::new(), Owner::new());
    let token = owner.token();
    let budget = FailureBudget::new().per_source(Quota::per_minute(6).burst(3)).unwrap();
    let stack = Stack::builder()
        .clock(Still)
        .dangerous_plain_http()
        .authenticate(jwt)
        .failure_budget(budget)
        .fallback(require(authenticated()));
    let service = stack.build().unwrap().protect(Probe::default());
    let from = |address: &str, proof: &str| {
        let mut request = request("DPoP", &token, &[proof]);
        let peer = (address.parse::<std::net::IpAddr>().unwrap(), 52_100).into();
        request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
        request
    };
    let (here, there) = ("198.51.100.7", "198.51.100.8");
    // Names the owner's key, and is signed by another: only the signature tells.
    let forged = |jti: &str| thief.sign(&owner.header(), &claims(&token, jti));
    for jti in ["a", "b", "c"] {
        let refused = send(&service, from(here, &forged(jti))).await;
        assert_eq!(refused.status(), 401, "{jti}");
        assert!(challenges(&refused).contains("invalid_dpop_proof"));
    }
    let good = owner.proof(&claims(&token, "d"));
    let spared = send(&service, from(here, &good)).await;
    assert_eq!(spared.status(), 429, "the budget is used up");
    assert!(spared.headers().contains_key("retry-after"));
    assert_eq!(send(&service, from(there, &good)).await.status(), 200, "another source has its own");
    // What costs no signature check is nobody's attack.
    for jti in ["e", "f", "g", "h"] {
        let old = owner.proof(&but(claims(&token, jti), "iat", (NOW - 100).into()));
        assert_eq!(send(&service, from(there, &old)).await.status(), 401);
    }
    let long = format!("{good}{}", "A".repeat(8 * 1024));
    assert_eq!(send(&service, from(there, &long)).await.status(), 401);
    assert_eq!(send(&service, from(there, &owner.proof(&claims(&token, "i")))).await.status(), 200);
}
