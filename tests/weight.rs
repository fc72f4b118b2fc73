//! What the library brings along: how many crates beyond those of an axum service, and one version of each library of
//! cryptography. The page on performance has the numbers, under "Weight".

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code, helpers included")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// The most crates that the default features bring beyond an axum service.
const MOST: usize = 45;

/// What a service has without this library.
const SERVICE: &str = r#"
    [package]
    name = "service"
    version = "0.0.0"
    edition = "2024"
    [lib]
    path = "lib.rs"
    [workspace]
    [dependencies]
    axum = "0.8"
    serde = { version = "1", features = ["derive"] }
    serde_json = "1"
    tokio = { version = "1", features = ["full"] }
    tower-http = "0.7"
    tracing = "0.1"
    tracing-subscriber = "0.3"
"#;

/// Libraries that compute with keys, hash or compare in constant time, and what they are made of.
const CRYPTOGRAPHY: &[&str] = &[
    "aead",
    "aes",
    "aes-gcm",
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "blake2",
    "block-buffer",
    "chacha20",
    "cipher",
    "crypto-common",
    "curve25519-dalek",
    "der",
    "digest",
    "ecdsa",
    "ed25519",
    "ed25519-dalek",
    "elliptic-curve",
    "hkdf",
    "hmac",
    "jsonwebtoken",
    "md-5",
    "openssl",
    "openssl-sys",
    "p256",
    "p384",
    "p521",
    "pbkdf2",
    "pkcs1",
    "pkcs8",
    "primeorder",
    "ring",
    "rsa",
    "rustls",
    "rustls-webpki",
    "sec1",
    "sha1",
    "sha2",
    "sha3",
    "signature",
    "spki",
    "subtle",
    "universal-hash",
    "untrusted",
    "webpki-roots",
    "zeroize",
];

/// Every crate that the folder's package compiles, with its versions; nothing is fetched.
fn crates(folder: &Path, arguments: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut crates = BTreeMap::<String, BTreeSet<String>>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            crates.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    crates
}

/// The library's own with these features, without itself.
fn library(features: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let arguments: Vec<&str> = ["--locked"].iter().chain(features).copied().collect();
    let mut crates = crates(Path::new(env!("CARGO_MANIFEST_DIR")), &arguments);
    crates.remove("portcullis").unwrap();
    crates
}

/// Those of an axum service, in the versions of this lock.
fn service() -> BTreeMap<String, BTreeSet<String>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), SERVICE).unwrap();
    std::fs::write(folder.path().join("lib.rs"), "").unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    crates(folder.path(), &[])
}

/// How many of them the service has not; a crate in two versions counts once.
fn beyond(crates: &BTreeMap<String, BTreeSet<String>>, service: &BTreeMap<String, BTreeSet<String>>) -> usize {
    crates.keys().filter(|name| !service.contains_key(*name)).count()
}

/// Those that stand there in several versions.
fn twice(crates: &BTreeMap<String, BTreeSet<String>>) -> Vec<&str> {
    crates.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name.as_str()).collect()
}

fn of_cryptography<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    names.into_iter().filter(|name| CRYPTOGRAPHY.contains(name)).collect()
}

#[test]
fn the_default_features_are_light() {
    let (service, library) = (service(), library(&[]));
    let count = beyond(&library, &service);
    let new: Vec<&String> = library.keys().filter(|name| !service.contains_key(*name)).collect();
    assert!(count <= MOST, "{count} crates: {new:?}");
    for heavy in ["hyper-util", "reqwest", "sqlx", "redis", "rustls", "cedar-policy", "regorus", "x509-parser"] {
        assert!(!library.contains_key(heavy) || service.contains_key(heavy), "{heavy} is for a feature of its own");
    }
}

#[test]
fn the_default_features_have_one_library_of_cryptography() {
    let library = library(&[]);
    // jsonwebtoken asks for an older base64, and macros for two versions of syn, which is in no program.
    assert_eq!(twice(&library), ["base64", "syn"], "one version of everything else");
    assert_eq!(
        of_cryptography(library.keys().map(String::as_str)),
        ["aws-lc-rs", "aws-lc-sys", "jsonwebtoken", "signature", "subtle", "zeroize"],
        "it computes with aws-lc-rs alone: signature has traits, jsonwebtoken types, subtle and zeroize no algorithm"
    );
}

/// The exceptions are those of the page: sqlx hashes its migrations with an older sha2, and jsonwebtoken asks for an older
/// signature than RustCrypto does.
#[test]
#[ignore = "needs every dependency at hand; tests/run has built them"]
fn all_features_have_one_version_of_each_but_those_of_the_page() {
    let full = library(&["--features", "full"]);
    let older_sha2 = ["block-buffer", "crypto-common", "digest", "sha2"];
    assert_eq!(of_cryptography(twice(&full)), older_sha2);
    let all = library(&["--all-features"]);
    assert_eq!(of_cryptography(twice(&all)), [&older_sha2[..], &["signature"]].concat());
    for crates in [&full, &all] {
        for none in ["openssl", "openssl-sys", "native-tls", "ring"] {
            assert!(!crates.contains_key(none), "{none}");
        }
        assert!(twice(crates).len() <= 20, "{:?}", twice(crates));
    }
}

/// The numbers of one row: of each feature, beyond the default ones and alone.
fn rows(page: &str) -> Vec<(String, usize, usize)> {
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, features, more, alone, _] = &*cells else { continue };
        // `a`, `b` (a remark) / `c` | 1 / 2 | 3 / 4
        let groups: Vec<&str> = features.split(" / ").collect();
        let numbers = |cell: &str| cell.split(" / ").map(|number| number.parse().ok()).collect::<Option<Vec<usize>>>();
        let (Some(more), Some(alone)) = (numbers(more), numbers(alone)) else { continue };
        for (at, group) in groups.iter().enumerate() {
            let of = |numbers: &[usize]| *numbers.get(at).or(numbers.last()).unwrap();
            let names = group.split('`').skip(1).step_by(2);
            rows.extend(names.map(|name| (name.to_owned(), of(&more), of(&alone))));
        }
    }
    rows
}

#[test]
#[ignore = "needs every dependency at hand; tests/run has built them"]
fn the_page_has_the_numbers() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md")).unwrap();
    let page = page.split("\n## Weight").nth(1).unwrap();
    let service = service();
    assert!(page.contains(&format!("serde_json: {} crates", service.len())), "a service has {} crates", service.len());
    let default = beyond(&library(&[]), &service);
    let none = beyond(&library(&["--no-default-features"]), &service);
    let full = beyond(&library(&["--features", "full"]), &service);
    let mut wrong = Vec::new();
    for row in
        [format!("| none | {none} |"), format!("| **default** | **{default}** |"), format!("| `full` | {full} |")]
    {
        if !page.contains(&row) {
            wrong.push(row);
        }
    }
    let rows = rows(page);
    assert!(rows.len() > 30, "{rows:?}");
    for (feature, more, alone) in rows {
        let now_more = beyond(&library(&["--features", &feature]), &service) - default;
        let now_alone = beyond(&library(&["--no-default-features", "--features", &feature]), &service);
        if (now_more, now_alone) != (more, alone) {
            wrong.push(format!("{feature}: {now_more} and {now_alone}, not {more} and {alone}"));
        }
    }
    assert!(wrong.is_empty(), "it should say:\n{}", wrong.join("\n"));
}
