//! What the log says of an authenticator that is built well and may not be what was meant.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "support/lines.rs"]
mod lines;
#[path = "jwt/mint.rs"]
mod mint;
#[path = "jwt/signers.rs"]
mod signers;

use mint::key;
use portcullis::jwt::{Algorithm, Issuer, IssuerProfile, JwtAuthenticator, KeySet, Provider};
use tracing_subscriber::layer::SubscriberExt;

const TENANT: &str = "8f6ac3ea-4d1c-4a2f-9a3b-0c5d1e2f3a4b";

fn keys() -> KeySet {
    KeySet::new([key(Algorithm::RS256).with_id("2027")]).unwrap()
}

fn issuer(name: &str) -> IssuerProfile {
    Issuer::fixed(format!("https://{name}.example"), keys()).access_tokens("api").algorithms([Algorithm::RS256])
}

#[test]
fn issuers_that_speak_for_each_others_tenants_are_told() {
    let lines = lines::Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let open = |name: &str| issuer(name).tenant_claim("org");
    let listed = |name: &str, claim: &str| open(name).claim_must_be(claim, ["acme"]);
    let entra = || Provider::entra([TENANT], "api").unwrap().fixed(keys());
    let nested = || issuer("nested").tenant_claim(["org", "id"]);
    tracing::subscriber::with_default(subscriber, || {
        for (name, profiles, told) in [
            ("one", vec![open("a")], &[][..]),
            ("no tenants", vec![issuer("a"), issuer("b")], &[]),
            ("one has tenants", vec![open("a"), issuer("b")], &[]),
            ("both may assert any", vec![open("a"), open("b")], &["https://a.example", "https://b.example"]),
            ("one may", vec![listed("a", "org"), open("b"), issuer("c")], &["https://b.example"]),
            ("both have a list", vec![listed("a", "org"), listed("b", "org")], &[]),
            ("a list for another claim", vec![listed("a", "org"), listed("b", "azp")], &["https://b.example"]),
            ("a claim inside another", vec![listed("a", "org"), nested()], &["https://nested.example"]),
            ("and its list", vec![listed("a", "org"), nested().claim_must_be(["org", "id"], ["acme"])], &[]),
            ("Entra's list", vec![entra(), listed("a", "org")], &[]),
            ("beside Entra's list", vec![entra(), open("a")], &["https://a.example"]),
            ("Entra, by another claim", vec![entra().tenant_claim("org"), listed("a", "org")], &["https://login"]),
        ] {
            let mut builder = JwtAuthenticator::builder();
            for profile in profiles {
                builder = builder.issuer(profile);
            }
            builder.build().unwrap();
            let said = lines.take();
            assert_eq!(said.len(), told.len(), "{name}: {said:?}");
            for (line, issuer) in said.iter().zip(told) {
                let expected = format!("WARN issuer \"{issuer}");
                assert!(line.starts_with(&expected) && line.contains("claim_must_be"), "{name}: {line}");
            }
        }
    });
}

#[test]
fn revocations_that_a_restart_forgets_are_told() {
    let lines = lines::Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(subscriber, || {
        let _ = portcullis::revocation::MemoryRevocations::new();
    });
    let told = lines.here();
    assert!(matches!(&*told, [line] if line.starts_with("WARN revocations are kept in memory")), "{told:?}");
}
