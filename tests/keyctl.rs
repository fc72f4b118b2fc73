//! `keyctl` as a user runs it: a process, what it prints where, and its exit code.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    env::consts::EXE_SUFFIX,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use portcullis::{
    Instants,
    api_key::{KeyHash, KeyId, KeyLife, LastUse, NewApiKey, RecordFields, Revocation},
};
use serde_json::{Value, json};

const BORN: u64 = 1_700_000_000;

struct Output {
    code: i32,
    out: String,
    err: String,
}

impl Output {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    /// The lines of standard output as objects.
    fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The example beside this test's own executable, over a store of a few keys.
struct Keyctl {
    folder: tempfile::TempDir,
}

impl Keyctl {
    fn new() -> Self {
        let keyctl = Self { folder: tempfile::tempdir().unwrap() };
        keyctl.holds(&seed());
        keyctl
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces what the store holds.
    fn holds(&self, keys: &[RecordFields]) {
        let text = json!({"version": 1, "disabled": [], "keys": keys}).to_string();
        fs::write(self.path("keys.json"), text).unwrap();
        #[cfg(unix)]
        fs::set_permissions(self.path("keys.json"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn store(&self) -> String {
        self.path("keys.json").display().to_string()
    }

    fn command(&self) -> Command {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let example = profile.join("examples").join(format!("keyctl{EXE_SUFFIX}"));
        let hint = "build it first: cargo build --example keyctl --all-features";
        assert!(example.is_file(), "{} is missing; {hint}", example.display());
        let mut command = Command::new(example);
        command.env("KEYCTL_TEST_STORE", self.store()).env("KEYCTL_TEST_PEPPER", "p".repeat(32));
        command
    }

    /// Runs it with arguments that have no spaces in them; `\u{b7}` stands for one.
    fn run(&self, args: &str) -> Output {
        self.run_with(&format!("--store-env KEYCTL_TEST_STORE {args}"), "")
    }

    fn run_with(&self, args: &str, input: &str) -> Output {
        let args = args.split(' ').filter(|arg| !arg.is_empty()).map(|arg| arg.replace('\u{b7}', " "));
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that ends without reading it is fine.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The id whose bytes are all this, and its text.
fn id(byte: u8) -> String {
    KeyId::from_bytes([byte; 10]).to_string()
}

fn seed() -> Vec<RecordFields> {
    let fields = |byte: u8, subject: &str, expires| {
        RecordFields::new(KeyId::from_bytes([byte; 10]), KeyHash::from_bytes([0xcd; 32]), subject, BORN, expires)
    };
    let mut active = fields(1, "billing", None);
    active.tenant = Some("acme".to_owned());
    active.name = "nightly export".to_owned();
    active.scopes = vec!["orders:read".to_owned(), "orders:write".to_owned()];
    active.last_used = Some(LastUse::new(BORN + 60, Some([192, 0, 2, 7].into())));
    let expired = fields(2, "reports", Some(BORN + 1));
    let mut revoked = fields(3, "billing", None);
    revoked.revoked = Some(Revocation::new(BORN + 2, "found in a log").unwrap());
    vec![active, expired, revoked]
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn a_key_is_printed_once_and_alone() {
    let keyctl = Keyctl::new();
    let made = keyctl.run(
        "create --subject billing --tenant acme --scope orders:read --role clerk --address 192.0.2.0/24 \
         --metadata ticket=OPS-1 --expires 90d --name nightly\u{b7}export",
    );
    assert_eq!(made.code, 0, "{}", made.err);
    let key = made.out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("pc_v1_") && !key.contains(char::is_whitespace), "{key}");
    let (_, secret) = key.rsplit_once('_').unwrap();
    assert!(!made.err.contains(secret), "{}", made.err);
    assert!(made.err.contains(r#""billing" in "acme""#), "{}", made.err);

    let made = keyctl.run("--json create --subject billing --prefix acme --environment live --expires never").json();
    assert!(made["key"].as_str().unwrap().starts_with("acme_live_v1_"), "{made}");
    let record = &made["record"];
    assert_eq!(
        (&record["status"], &record["expires"], &record["environment"]),
        (&json!("active"), &json!("never"), &json!("live"))
    );
    assert_eq!(record["scheme"], "sha256");

    // Under a pepper, which never stands among the arguments.
    let file = keyctl.path("pepper");
    fs::write(&file, [7; 32]).unwrap();
    for source in ["--pepper-env KEYCTL_TEST_PEPPER".to_owned(), format!("--pepper-file {}", file.display())] {
        let made = keyctl.run(&format!("create --subject billing --json --pepper 2026-01 {source}"));
        assert_eq!(made.json()["record"]["scheme"], "hmac-sha256:2026-01", "{source}: {}", made.err);
    }
    // As where a configuration names the file, the line end that an editor adds is no part of it.
    fs::write(&file, [&[7; 31][..], b"\n"].concat()).unwrap();
    let weak = keyctl.run(&format!("create --subject billing --pepper 2026-01 --pepper-file {}", file.display()));
    assert_eq!((weak.code, weak.out.as_str()), (2, ""), "{}", weak.err);
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn keys_are_listed_as_a_table_and_as_objects() {
    let keyctl = Keyctl::new();
    let table = keyctl.run("list");
    let rows: Vec<String> =
        table.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "ID STATUS SUBJECT TENANT NAME SCOPES EXPIRES LAST USED".to_owned(),
        format!("{} active billing acme nightly export orders:read orders:write never 2023-11-14T22:14:20Z", id(1)),
        format!("{} expired reports - - - 2023-11-14T22:13:21Z -", id(2)),
        format!("{} revoked billing - - - never -", id(3)),
    ];
    assert_eq!(rows, expected);
    let column = |line: &str, text: &str| line.find(text).unwrap();
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(column(lines[0], "SUBJECT"), column(lines[1], "billing"), "aligned");
    assert_eq!(column(lines[0], "EXPIRES"), column(lines[3], "never"), "aligned");
    assert_eq!((table.code, table.err.as_str()), (0, "3 keys\n"));

    for (filter, expected) in [
        ("", vec![1, 2, 3]),
        ("--tenant acme", vec![1]),
        ("--no-tenant", vec![2, 3]),
        ("--subject billing", vec![1, 3]),
        ("--active", vec![1]),
        ("--name night", vec![1]),
        ("--environment live", vec![]),
        ("--subject billing --no-tenant --active", vec![]),
    ] {
        let listed = keyctl.run(&format!("list --json {filter}"));
        let ids: Vec<Value> = listed.objects().iter().map(|key| key["id"].clone()).collect();
        assert_eq!(ids, expected.into_iter().map(|byte| json!(id(byte))).collect::<Vec<_>>(), "{filter}");
        assert!(!listed.out.contains("cdcd") && !listed.out.contains("hash"), "{filter}: {}", listed.out);
    }
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn a_key_is_shown_rotated_and_revoked() {
    let keyctl = Keyctl::new();
    let shown = keyctl.run(&format!("show {}", id(3)));
    assert!(shown.out.contains("status         revoked\n"), "{}", shown.out);
    assert!(shown.out.contains("revoked        2023-11-14T22:13:22Z found in a log\n"), "{}", shown.out);
    assert!(!shown.out.contains("cdcd"), "{}", shown.out);
    assert_eq!(
        keyctl.run(&format!("show {} --json", id(1))).json()["last_used"],
        json!({"at": BORN + 60, "address": "192.0.2.7"})
    );

    let rotated = keyctl.run(&format!("rotate {} --overlap 0s", id(1)));
    assert_eq!(rotated.code, 0, "{}", rotated.err);
    assert!(rotated.out.starts_with("pc_v1_") && rotated.out.lines().count() == 1);
    assert!(rotated.err.contains(&format!("The old key {} ends: 20", id(1))), "{}", rotated.err);
    assert_eq!(keyctl.run(&format!("rotate {}", id(1))).code, 1, "it was rotated before, by another process");
    let keyctl = Keyctl::new();
    let rotated = keyctl.run(&format!("rotate {} --json", id(1))).json();
    assert_eq!(
        (&rotated["record"]["rotated_from"], &rotated["record"]["name"]),
        (&json!(id(1)), &json!("nightly export"))
    );

    let revoked = keyctl.run(&format!("revoke {} --reason left --json", id(1))).json();
    assert_eq!((&revoked["status"], &revoked["revoked"]["reason"]), (&json!("revoked"), &json!("left")));
    let revoked = keyctl.run(&format!("revoke {}", id(1)));
    assert_eq!((revoked.code, revoked.out.as_str(), revoked.err), (0, "", format!("key {} is revoked\n", id(1))));

    let changed = |command: &str| keyctl.run(&format!("{command} --subject billing --tenant acme --json")).json();
    let expected =
        |disabled, changed| json!({"subject": "billing", "tenant": "acme", "disabled": disabled, "changed": changed});
    assert_eq!(changed("disable-owner --reason left"), expected(true, true));
    assert_eq!(changed("disable-owner --reason again"), expected(true, false));
    let late = keyctl.run("create --subject billing --tenant acme --expires 1d --json").json();
    assert_eq!(late["record"]["status"], json!("disabled"), "{late}");
    assert!(keyctl.run("create --subject billing --tenant acme --expires 1d").err.contains("Its owner is disabled."));
    assert_eq!(changed("enable-owner"), expected(false, true));
    assert_eq!(keyctl.run("purge --kept 1d --json").json(), json!({"purged": 2}));
    assert_eq!(keyctl.run("purge --kept 1000y --json").json(), json!({"purged": 0}));
}

/// The new key is in the store, its hash alone, and the old one ends: nobody could print it again.
#[cfg(feature = "api-key-sqlite")]
#[tokio::test]
#[ignore = "needs the built example; tests/run builds it"]
async fn a_rotation_shows_the_new_key_whatever_becomes_of_the_store() {
    use sqlx::Connection;
    let keyctl = Keyctl::new();
    let store = keyctl.path("keys.db").display().to_string();
    let on = |args: &str| keyctl.run_with(&format!("--store {store} {args}"), "");
    let mut old = on("--new create --subject billing --json").json()["record"]["id"].as_str().unwrap().to_owned();
    let mut theirs = sqlx::SqliteConnection::connect(&format!("sqlite://{store}")).await.unwrap();
    // With the rotation all rows become such that none can be read.
    let dies = "CREATE TRIGGER dies AFTER UPDATE OF rotated_to ON portcullis_api_keys \
                BEGIN UPDATE portcullis_api_keys SET scopes = 'lost'; END";
    sqlx::raw_sql(dies).execute(&mut theirs).await.unwrap();
    for json in ["", " --json"] {
        let rotated = on(&format!("rotate {old}{json}"));
        assert_eq!((rotated.code, on("list").code), (0, 3), "{}", rotated.err);
        sqlx::raw_sql("UPDATE portcullis_api_keys SET scopes = '[]'").execute(&mut theirs).await.unwrap();
        let (key, new) = if json.is_empty() {
            assert!(rotated.err.contains(&format!("The old key {old} ends: not known")), "{}", rotated.err);
            (rotated.out.trim_end().to_owned(), rotated.err.split(' ').nth(1).unwrap().to_owned())
        } else {
            let shown = rotated.json();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&shown["key"]), text(&shown["record"]["id"]))
        };
        let format = portcullis::api_key::ApiKeyFormat::default();
        assert_eq!(format.parse(&key).unwrap().id().to_string(), new, "the key that it says it made");
        assert_eq!(on(&format!("show {new} --json")).json()["rotated_from"], json!(old), "and the one that is there");
        old = new;
    }
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn legacy_hashes_are_imported_all_or_none() {
    let keyctl = Keyctl::new();
    let line = |hash: &str| {
        json!({"sha256": hash, "subject": "old", "expires": "never", "scopes": ["orders:read"]}).to_string()
    };
    let (one, two) = (line(&"ab".repeat(32)), line(&"CD".repeat(32)));
    let file = keyctl.path("hashes");
    fs::write(&file, format!("{one}\n\n{two}\n{one}\n")).unwrap();
    let imported = keyctl.run(&format!("import {} --json", file.display()));
    assert_eq!(imported.json(), json!({"imported": 2, "present": 1}), "{}", imported.err);
    let imported = keyctl.run_with("--store-env KEYCTL_TEST_STORE import -", &one);
    assert_eq!((imported.code, imported.err.as_str()), (0, "0 keys imported, 1 were there already\n"));

    let live = json!({
        "sha256": "ef".repeat(32), "subject": "old", "expires": "never", "environment": "live", "addresses": ["10.1.0.0/16"],
    });
    assert_eq!(keyctl.run_with("--store-env KEYCTL_TEST_STORE import -", &live.to_string()).code, 0);
    let record = keyctl.run("--json list --environment live").json();
    assert_eq!((&record["environment"], &record["addresses"]), (&json!("live"), &json!(["10.1.0.0/16"])), "{record}");

    let key = "sk_live_0123456789abcdefghijklmnop";
    for (name, bad, expected) in [
        ("a key for a hash", line(key), "sha256 is not"),
        ("a short hash", line("ab"), "sha256 is not"),
        ("no end", json!({"sha256": "ab".repeat(32), "subject": "old"}).to_string(), "expires"),
        (
            "another word",
            json!({"sha256": "ab".repeat(32), "subject": "old", "expires": "soon"}).to_string(),
            "expires",
        ),
        (
            "unknown member",
            json!({"sha256": "ab".repeat(32), "subject": "old", "expires": 1, "x": 1}).to_string(),
            "`x`",
        ),
        ("no subject", json!({"sha256": "ab".repeat(32), "subject": "", "expires": 1}).to_string(), "subject"),
        (
            "no environment",
            json!({"sha256": "ab".repeat(32), "subject": "old", "expires": 1, "environment": "Live"}).to_string(),
            "environment",
        ),
        ("no JSON", "sha256".to_owned(), "line 2"),
    ] {
        fs::write(&file, format!("{one}\n{bad}\n")).unwrap();
        let refused = keyctl.run(&format!("import {}", file.display()));
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{name}: {}", refused.err);
        assert!(refused.err.contains("line 2") && refused.err.contains(expected), "{name}: {}", refused.err);
        assert!(!refused.err.contains(key), "{name}: a key is shown");
    }
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn the_exit_code_says_whose_fault_it_is() {
    let keyctl = Keyctl::new();
    let nobody = id(9);
    for (name, args, code, said) in [
        ("no such key to show", format!("show {nobody}"), 1, "no key"),
        ("no such key to rotate", format!("rotate {nobody}"), 1, "no key"),
        ("no such key to revoke", format!("revoke {nobody}"), 1, "no key"),
        ("an ended key", format!("rotate {}", id(2)), 1, "revoked or expired"),
        ("a revoked key", format!("rotate {}", id(3)), 1, "revoked or expired"),
        ("no command", String::new(), 2, "Usage"),
        ("unknown command", "delete".to_owned(), 2, "delete"),
        ("no id", "show pc_v1_x".to_owned(), 2, "16 characters"),
        ("no subject", "create".to_owned(), 2, "--subject"),
        ("two scopes in one", "create --subject x --scope a\u{b7}b".to_owned(), 2, "scope"),
        ("a control character", "create --subject x --name a\tb".to_owned(), 2, "control character"),
        ("no duration", "create --subject x --expires soon".to_owned(), 2, "90d"),
        ("no life", "create --subject x --expires 0d".to_owned(), 2, "life"),
        ("too long a life", "create --subject x --expires 99999999999999y".to_owned(), 2, "90d"),
        ("a pepper without its secret", "create --subject x --pepper a".to_owned(), 2, "--pepper"),
        ("a pepper that is not set", "create --subject x --pepper a --pepper-env NOT_SET_X".to_owned(), 2, "NOT_SET_X"),
        ("a tenant and none", "list --tenant a --no-tenant".to_owned(), 2, "cannot be used with"),
        ("another environment", format!("rotate {} --environment live", id(1)), 2, "environment"),
    ] {
        let output = keyctl.run(&args);
        assert_eq!((output.code, output.out.as_str()), (code, ""), "{name}: {}", output.err);
        assert!(output.err.contains(said), "{name}: {}", output.err);
    }
    for (name, args, code, said) in [
        ("no store", "list", 2, "say --store or"),
        ("unknown kind of store", "--store ftp://user:hunter2@host list", 2, "no such kind"),
        ("a store that is not there", "--store /nowhere/at/all.db list", 3, "/nowhere/at/all"),
        ("a store that cannot be made", "--store /nowhere/at/all.toml --new list", 3, "No such file or directory"),
        ("two stores", "--store x.db --store-env X list", 2, "cannot be used with"),
    ] {
        let output = keyctl.run_with(args, "");
        assert_eq!((output.code, output.out.as_str()), (code, ""), "{name}: {}", output.err);
        let once = output.err.matches(said).count() == 1;
        assert!(once && !output.err.contains("hunter2"), "{name}: {}", output.err);
    }
    fs::write(keyctl.path("keys.json"), "{}").unwrap();
    let broken = keyctl.run("list");
    assert_eq!(broken.code, 3, "{}", broken.err);
    let help = keyctl.run("--help");
    assert!(help.code == 0 && help.out.contains("Exit codes: 0 done"), "{}", help.out);
}

/// What a store does not say to clients, it says here.
#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn why_a_store_cannot_be_opened_is_told() {
    let keyctl = Keyctl::new();
    let text = keyctl.path("text.db");
    fs::write(&text, "no database, and long enough to have the header of one".repeat(20)).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let away = "postgres://u:hunter2@127.0.0.1:1/x".to_owned();
    for (name, store, said) in
        [("away", away, "refused"), ("no database", text.display().to_string(), "not a database")]
    {
        let output = keyctl.run_with(&format!("--store {store} list"), "");
        assert_eq!((output.code, output.out.as_str()), (3, ""), "{name}: {}", output.err);
        assert!(output.err.contains(said) && !output.err.contains("hunter2"), "{name}: {}", output.err);
    }
    for sslmode in ["", "verify_full"] {
        let mut command = keyctl.command();
        command.env("PGSSLMODE", sslmode).args(["--store", "postgres://u:hunter2@192.0.2.1/x", "list"]);
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && err.contains("PGSSLMODE") && !err.contains("hunter2"), "{err}");
    }
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn a_legacy_key_is_rotated_by_who_knows_of_the_pepper() {
    let keyctl = Keyctl::new();
    let line = json!({"sha256": "ab".repeat(32), "subject": "old", "expires": "never"}).to_string();
    assert_eq!(keyctl.run_with("--store-env KEYCTL_TEST_STORE import -", &line).code, 0);
    let listed = keyctl.run("--json list --subject old").json();
    let old = listed["id"].as_str().unwrap();
    let refused = keyctl.run(&format!("rotate {old}"));
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
    assert!(refused.err.contains("--pepper") && refused.err.contains("--no-pepper"), "{}", refused.err);
    assert_eq!(keyctl.run("--json list --subject old").json(), listed, "it does not end");
    let both = keyctl.run(&format!("rotate {old} --no-pepper --pepper a --pepper-env KEYCTL_TEST_PEPPER"));
    assert_eq!(both.code, 2, "{}", both.err);
    let rotated = keyctl.run(&format!("rotate {old} --pepper a --pepper-env KEYCTL_TEST_PEPPER --json"));
    assert_eq!(rotated.code, 0, "{}", rotated.err);

    let other = json!({"sha256": "cd".repeat(32), "subject": "other", "expires": "never"}).to_string();
    assert_eq!(keyctl.run_with("--store-env KEYCTL_TEST_STORE import -", &other).code, 0);
    let other = keyctl.run("--json list --subject other").json();
    let rotated = keyctl.run(&format!("rotate {} --no-pepper", other["id"].as_str().unwrap()));
    assert_eq!(rotated.code, 0, "{}", rotated.err);
    assert_eq!(keyctl.run(&format!("rotate {}", id(1))).code, 0, "a key of our own says by itself what it has");
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn what_it_prints_is_what_the_library_reads() {
    let keyctl = Keyctl::new();
    let printed = keyctl.run("create --subject billing").out;
    let format = portcullis::api_key::ApiKeyFormat::default();
    assert!(format.parse(printed.trim_end()).is_some(), "{printed}");
    // And what the library writes is what it reads.
    let at = Instants::new(BORN * 1_000_000_000, 0);
    let (_, record) = NewApiKey::for_subject("ci").lives(KeyLife::Never).mint(at).unwrap();
    keyctl.holds(&[record.fields()]);
    assert_eq!(keyctl.run("list --json").json()["id"], record.id().to_string());
}

#[test]
#[ignore = "needs the built example; tests/run builds it"]
fn a_store_of_each_kind_is_made_when_it_is_wanted() {
    let keyctl = Keyctl::new();
    for name in ["keys.db", "other.toml", "other.json"] {
        let store = keyctl.path(name).display().to_string();
        let on = |args: &str| keyctl.run_with(&format!("--store {store} {args}"), "");
        let mistyped = on("list");
        assert_eq!((mistyped.code, mistyped.out.as_str()), (3, ""), "{name}");
        assert!(mistyped.err.contains("--new") && !keyctl.path(name).exists(), "{name}: {}", mistyped.err);

        let made = on("--new create --subject billing --scope orders:read --json");
        assert_eq!(made.code, 0, "{name}: {}", made.err);
        let made = made.json()["record"]["id"].as_str().unwrap().to_owned();
        let listed = on("list --json").objects();
        assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(made)), "{name}: another process finds it");
        assert_eq!(on(&format!("rotate {made}")).code, 0, "{name}");
        assert_eq!(on(&format!("rotate {made}")).code, 1, "{name}: once");
        assert_eq!(on("list --json").objects().len(), 2, "{name}");
    }
    // A database of somebody else is left as it is.
    let store = keyctl.path("theirs.db");
    fs::write(&store, "").unwrap();
    let foreign = keyctl.run_with(&format!("--store {} list", store.display()), "");
    assert_eq!((foreign.code, fs::read(&store).unwrap().len()), (3, 0), "{}", foreign.err);
}
