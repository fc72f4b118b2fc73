//! What the fuzz targets check, on their seeds, on what is like them, and on whatever comes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

#[path = "fuzzed/api_key.rs"]
mod api_key;
#[path = "fuzzed/audit.rs"]
mod audit;
#[path = "fuzzed/audit_line.rs"]
mod audit_line;
#[path = "fuzzed/authorization.rs"]
mod authorization;
#[path = "fuzzed/certificate_extensions.rs"]
mod certificate_extensions;
#[path = "fuzzed/client_certificate.rs"]
mod client_certificate;
#[path = "fuzzed/config.rs"]
mod config;
#[path = "fuzzed/cookie.rs"]
mod cookie;
#[path = "fuzzed/decision_point.rs"]
mod decision_point;
#[path = "fuzzed/der.rs"]
mod der;
#[path = "fuzzed/discovery.rs"]
mod discovery;
#[path = "fuzzed/distinguished_name.rs"]
mod distinguished_name;
#[path = "fuzzed/dpop_proof.rs"]
mod dpop_proof;
#[path = "fuzzed/evidence.rs"]
mod evidence;
#[path = "fuzzed/introspection.rs"]
mod introspection;
#[path = "fuzzed/json.rs"]
mod json;
#[path = "fuzzed/jwks.rs"]
mod jwks;
#[path = "fuzzed/jwt.rs"]
mod jwt;
#[path = "fuzzed/key_admin.rs"]
mod key_admin;
#[path = "fuzzed/key_file.rs"]
mod key_file;
#[path = "fuzzed/key_set_headers.rs"]
mod key_set_headers;
#[path = "fuzzed/logout_token.rs"]
mod logout_token;
#[path = "fuzzed/memory.rs"]
mod memory;
#[path = "fuzzed/policy_file.rs"]
mod policy_file;
#[path = "fuzzed/policy_table.rs"]
mod policy_table;
#[path = "fuzzed/problem.rs"]
mod problem;
#[path = "fuzzed/proxy_header.rs"]
mod proxy_header;
#[path = "fuzzed/public_key.rs"]
mod public_key;
#[path = "fuzzed/redirect.rs"]
mod redirect;
#[path = "fuzzed/revocation_admin.rs"]
mod revocation_admin;
#[path = "fuzzed/route_rules.rs"]
mod route_rules;
#[path = "fuzzed/route_table.rs"]
mod route_table;
#[path = "fuzzed/router.rs"]
mod router;
#[path = "fuzzed/routes.rs"]
mod routes;
#[path = "fuzzed/schema.rs"]
mod schema;
#[path = "fuzzed/shaped.rs"]
mod shaped;
#[path = "fuzzed/structured_fields.rs"]
mod structured_fields;
#[path = "fuzzed/traceparent.rs"]
mod traceparent;
#[path = "fuzzed/xfcc.rs"]
mod xfcc;

use std::{path::Path, sync::LazyLock, time::Duration};

use portcullis::{
    audit::{
        AuditSink, JsonLines,
        chain::{Chain, ChainKey, PublicKey},
    },
    testing::sample_record,
};
use proptest::{prelude::*, test_runner::TestRunner};

const POLICY: &str = include_str!("fuzzed/policy_file.seed");

/// A chained file of a dozen records, with checkpoints, and the key that signed them.
static CHAINED: LazyLock<(Vec<u8>, [PublicKey; 1])> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let key = ChainKey::generate().unwrap();
    let public = key.public_key();
    let chain = Chain::new(key).checkpoint_every(5, Duration::from_secs(600)).unwrap();
    let sink = JsonLines::builder().chain(chain).open(&path).unwrap();
    for number in 0..12 {
        sink.accept(sample_record(&format!("/{number}")).into()).unwrap();
    }
    drop(sink);
    (std::fs::read(path).unwrap(), [public])
});

const SEED: &str = include_str!("fuzzed/dpop_proof.seed");

/// A proof that passes.
static GOOD_PROOF: LazyLock<String> = LazyLock::new(|| {
    let (header, claims) = dpop_proof::good();
    dpop_proof::sign(header.as_bytes(), claims.as_bytes())
});

/// Panics if something does not hold.
type Check = fn(&[u8]);

/// Each fuzz target by its name, and what it checks.
const TARGETS: [(&str, Check); 35] = [
    ("api_key", api_key::check),
    ("audit", |data| with_text(data, audit::check)),
    ("audit_line", |data| {
        audit_line::check(data, &[]);
    }),
    ("authorization", authorization::check),
    ("certificate_extensions", |data| {
        certificate_extensions::check(data);
    }),
    ("client_certificate", client_certificate::check),
    ("config", |data| with_text(data, config::check)),
    ("cookie", |data| with_text(data, cookie::check)),
    ("decision_point", |data| {
        decision_point::check(data);
    }),
    ("discovery", discovery::check),
    ("distinguished_name", |data| {
        distinguished_name::check(data);
    }),
    ("dpop_proof", dpop_proof::check_input),
    ("evidence", evidence::check),
    ("introspection", |data| {
        introspection::check(data);
    }),
    ("jwks", |data| with_text(data, jwks::check)),
    ("jwt", |data| with_text(data, jwt::verify)),
    ("jwt_claims", |data| {
        jwt::sign_and_verify(jwt::HEADER.as_bytes(), data);
    }),
    ("jwt_header", |data| {
        jwt::sign_and_verify(data, jwt::CLAIMS.as_bytes());
    }),
    ("key_admin", |data| {
        key_admin::check(data);
    }),
    ("key_file", |data| with_text(data, key_file::check)),
    ("key_set_headers", |data| {
        key_set_headers::check(data);
    }),
    ("logout_token", |data| {
        logout_token::check(data);
    }),
    ("policy_file", |data| with_text(data, policy_file::check)),
    ("policy_table", |data| with_text(data, policy_table::check)),
    ("problem", problem::check),
    ("proxy_header", proxy_header::check),
    ("public_key", |data| {
        public_key::check(data);
    }),
    ("redirect", redirect::check),
    ("revocation_admin", |data| {
        revocation_admin::check(data);
    }),
    ("route_rules", |data| with_text(data, route_rules::check)),
    ("route_table", |data| with_text(data, route_table::check)),
    ("routes", routes::check),
    ("structured_fields", |data| with_text(data, structured_fields::check)),
    ("traceparent", |data| {
        traceparent::check(data);
    }),
    ("xfcc", |data| {
        xfcc::check(data);
    }),
];

/// As the fuzzer does it: what is no text is left out.
fn with_text<T>(data: &[u8], check: impl FnOnce(&str) -> T) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
}

/// The committed inputs of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_seed_of_every_target_passes() {
    for (name, check) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        seeds.iter().for_each(|seed| check(seed));
    }
}

#[test]
fn each_target_is_run_here() {
    let named = |directory: &str| {
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().path().file_stem().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let here = TARGETS.map(|(name, _)| name);
    assert_eq!(named("fuzz/fuzz_targets"), here);
    assert_eq!(named("fuzz/seeds"), here);
}

#[test]
fn every_target_takes_whatever_comes() {
    for (name, check) in TARGETS {
        let seeds = seeds(name);
        let like_a_seed = prop::sample::select(seeds).prop_flat_map(|seed| altered(&seed));
        let inputs = (like_a_seed, prop::collection::vec(any::<u8>(), 0..200));
        let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
        let held = runner.run(&inputs, |(altered, any)| {
            check(&altered);
            check(&any);
            Ok(())
        });
        assert!(held.is_ok(), "{name}: {held:?}");
    }
}

/// The text with some of its bytes cut out, doubled or replaced.
fn altered(seed: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seed = seed.to_vec();
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8, any::<u8>());
    prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = seed.clone();
        for (one, other, what, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let (one, other) = (one.index(bytes.len()), other.index(bytes.len()));
            let range = one.min(other)..one.max(other);
            match what {
                0 => drop(bytes.drain(range)),
                1 => bytes.extend_from_within(range),
                _ => bytes[one] = byte,
            }
        }
        bytes
    })
}

/// The lines that are finished.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")).collect()
}

/// One of the committed inputs of a target.
fn seed(target: &str, name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target).join(name)).unwrap()
}

/// Those that are good get through, and those that are not do not: else a check might hold of nothing.
#[test]
fn good_seeds_are_good_and_bad_ones_are_not() {
    let of_text =
        |check: fn(&str) -> bool, target: &str, name: &str| check(str::from_utf8(&seed(target, name)).unwrap());
    let of_bytes = |check: fn(&[u8]) -> bool, target: &str, name: &str| check(&seed(target, name));
    let rules = |text: &str| route_rules::check(text) > 0;
    for (name, good, bad) in [("config", "whole", "mistakes"), ("config", "small", "lists")] {
        assert!(of_text(config::check, name, good) && !of_text(config::check, name, bad), "{good} {bad}");
    }
    for (good, bad) in [("origin", "upgrade"), ("safe", "look-alike"), ("same-origin", "upgrade")] {
        assert!(of_text(cookie::check, "cookie", good) && !of_text(cookie::check, "cookie", bad), "{good} {bad}");
    }
    for (name, allowed) in
        [("document", 1), ("opa", 1), ("step-up", 0), ("evaluation", 1), ("error", 0), ("evaluations", 1)]
    {
        assert_eq!(decision_point::check(&seed("decision_point", name)), allowed, "{name}");
    }
    for name in ["create", "create-any", "list", "list-all", "rotate", "revoke", "disable"] {
        assert!(of_bytes(key_admin::check, "key_admin", name), "{name}");
    }
    for (good, bad) in
        [("toml", "lists"), ("toml", "cut-off"), ("json", "list"), ("json", "metadata"), ("json", "entry")]
    {
        assert!(
            of_text(key_file::check, "key_file", good) && !of_text(key_file::check, "key_file", bad),
            "{good} {bad}"
        );
    }
    for (good, bad) in [("session", "id-token"), ("subject", "form"), ("subject", "event")] {
        let passes = |name| of_bytes(logout_token::check, "logout_token", name);
        assert!(passes(good) && !passes(bad), "{good} {bad}");
    }
    for name in ["token", "session", "subject", "client", "everywhere"] {
        assert!(of_bytes(revocation_admin::check, "revocation_admin", name), "{name}");
    }
    for (name, bad) in [("a list", "key"), ("ahead", "later")] {
        assert!(!of_bytes(revocation_admin::check, "revocation_admin", bad), "{name}");
    }
    for (good, bad) in [("conditions", "lists"), ("circumstances", "lists")] {
        assert!(of_text(rules, "route_rules", good) && !of_text(rules, "route_rules", bad), "{good} {bad}");
    }
    for name in ["rest", "encoded"] {
        assert!(of_text(route_table::check, "route_table", name), "{name}");
    }
    type OfBytes = (&'static str, fn(&[u8]) -> bool, &'static [&'static str], &'static [&'static str]);
    let rows: [OfBytes; 5] = [
        (
            "certificate_extensions",
            certificate_extensions::check,
            &["workload", "names"],
            &["authority", "server", "hidden", "constructed"],
        ),
        ("distinguished_name", distinguished_name::check, &["plain", "several", "kinds"], &["behind"]),
        ("key_set_headers", key_set_headers::check, &["short", "twice", "stored"], &["unsaid"]),
        (
            "public_key",
            public_key::check,
            &["rsa", "pkcs1", "prime256v1", "secp384r1", "secp521r1", "pem"],
            &["numbers", "point", "cut-off"],
        ),
        ("xfcc", xfcc::check, &["names"], &["two", "appended"]),
    ];
    for (target, check, good, bad) in rows {
        for name in good {
            assert!(of_bytes(check, target, name), "{target} {name}");
        }
        for name in bad {
            assert!(!of_bytes(check, target, name), "{target} {name}");
        }
    }
    for bad in ["fails", "none"] {
        let passes = |name| of_text(policy_table::check, "policy_table", name);
        assert!(passes("passes") && !passes(bad), "{bad}");
    }
    let believed = |name| of_bytes(traceparent::check, "traceparent", name);
    assert!(believed("good") && believed("later") && !believed("twice"));
}

#[test]
fn the_seeds_are_what_they_should_be() {
    let (header, claims) = dpop_proof::good();
    assert!(
        dpop_proof::check(header.as_bytes(), claims.as_bytes())
            && !dpop_proof::check(claims.as_bytes(), header.as_bytes())
    );
    assert!(policy_file::check(POLICY));
    assert_eq!(audit_line::check(&CHAINED.0, &CHAINED.1), u64::try_from(lines(&CHAINED.0).len()).unwrap());
    assert!(structured_fields::check("a \"b\" \\c\n600\n60"));
    for (name, text) in [("empty", "\n1"), ("not ASCII", "ä\n1"), ("a control", "a\tb\n1"), ("zero", "a\n0")] {
        assert!(!structured_fields::check(text), "{name}");
    }
    // Bound to a certificate, which is not there.
    let (bound, unbound) = (introspection::ANSWER, introspection::ANSWER.replacen(r#""cnf""#, r#""no""#, 1));
    assert!(!introspection::check(bound.as_bytes()) && introspection::check(unbound.as_bytes()));
    assert!(jwt::sign_and_verify(jwt::HEADER.as_bytes(), jwt::CLAIMS.as_bytes()));
    assert!(audit_line::check(b"{}\n", &[]) == 0 && !policy_file::check("roles = 1"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn policy_files(bytes in altered(POLICY.as_bytes()), text in ".{0,200}") {
        policy_file::check(&String::from_utf8_lossy(&bytes));
        policy_file::check(&text);
    }

    #[test]
    fn audit_lines(bytes in altered(&CHAINED.0), other in prop::collection::vec(any::<u8>(), 0..300)) {
        // What is verified is what was written, from the first line on.
        let verified = usize::try_from(audit_line::check(&bytes, &CHAINED.1)).unwrap();
        let there = lines(&bytes);
        prop_assert!(lines(&CHAINED.0)[..verified].iter().all(|line| there.contains(line)));
        audit_line::check(&other, &CHAINED.1);
        audit_line::check(&bytes, &[]);
    }

    #[test]
    fn dpop_proofs(one in altered(GOOD_PROOF.as_bytes()), any in prop::collection::vec(any::<u8>(), 0..300)) {
        // Nobody can make another proof of a good one, and least of all of nothing.
        prop_assert!(one == GOOD_PROOF.as_bytes() || !dpop_proof::passes(&one), "{}", String::from_utf8_lossy(&one));
        prop_assert!(!dpop_proof::passes(&any));
    }

    #[test]
    fn dpop_headers_and_claims(
        header in altered(dpop_proof::good().0.as_bytes()),
        claims in altered(dpop_proof::good().1.as_bytes()),
        htu in "(https|HTTPS|http)://(api|API|evil)\\.example\\.com(:443|:0443|:80|:)?/(\\./|x/\\.\\./|%2[eE]/)?(orders|%6frders|Orders)[/?#]{0,2}",
        iat in 1_799_999_960_u64..1_800_000_010,
    ) {
        let (good_header, good_claims) = dpop_proof::good();
        dpop_proof::check(&header, good_claims.as_bytes());
        dpop_proof::check(good_header.as_bytes(), &claims);
        let other = good_claims.replace("https://api.example.com/orders", &htu).replace("1800000000", &iat.to_string());
        dpop_proof::check(good_header.as_bytes(), other.as_bytes());
        // As the fuzzer writes it.
        let seed = SEED.split_once('\n').unwrap();
        prop_assert!(dpop_proof::check(&dpop_proof::filled(seed.0.as_bytes()), &dpop_proof::filled(seed.1.as_bytes())));
    }

    #[test]
    fn introspection_answers(
        bytes in altered(introspection::ANSWER.replacen(r#""cnf""#, r#""no""#, 1).as_bytes()),
        other in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        introspection::check(&bytes);
        introspection::check(&other);
    }

    #[test]
    fn structured_fields(name in "[ -~]{0,70}", any_name in ".{0,20}", count: u32, burst: u32) {
        structured_fields::check(&format!("{name}\n{count}\n{burst}"));
        structured_fields::check(&format!("{any_name}\n{count}"));
    }
}
