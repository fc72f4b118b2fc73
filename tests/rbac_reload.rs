//! A policy that is replaced while requests are decided by it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portcullis::{
    Challenge, Instants, Now, Principal, PrincipalKind,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    guard::require,
    policy::{AccessQuery, PolicyBackend, Rbac, Reloaded},
};
use support::{Probe, get, send};
use tower::Layer;

const FULL: &str = "version = \"1\"\npermissions = [\"orders:read\", \"orders:cancel\"]\n[roles.clerk]\n\
    grants = [\"orders:*\"]\n[roles.boss]\ninherits = [\"clerk\"]\n";
const LESS: &str = "version = \"2\"\npermissions = [\"orders:cancel\", \"orders:read\"]\n[roles.boss]\n\
    [roles.clerk]\ngrants = [\"orders:read\"]\n";
const GONE: &str = "version = \"3\"\npermissions = [\"orders:list\"]\n[roles.guest]\ngrants = [\"orders:list\"]\n";

fn clerk() -> Principal {
    Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").roles(["clerk"]).build()
}

fn allows(policy: &Rbac, action: &str) -> bool {
    let clerk = clerk();
    match policy.decide_now(&AccessQuery::new(&clerk, action, Instants::new(0, 0))) {
        Now::Known(verdict) => verdict.is_allow(),
        Now::Wait => panic!("rbac never waits"),
    }
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf, Rbac) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    let policy = Rbac::from_toml_file(&path).unwrap();
    (dir, path, policy)
}

#[test]
fn handles_follow_the_newer_policy() {
    let policy = Rbac::from_toml(FULL).unwrap();
    let [read, cancel] = ["orders:read", "orders:cancel"].map(|name| policy.permission(name).unwrap());
    let role = policy.role("clerk").unwrap();
    let boss = Principal::builder(PrincipalKind::User, "i", "bob", "jwt").roles(["boss"]).build();
    assert!(read.is_held_by(&clerk()) && cancel.is_held_by(&clerk()) && role.is_held_by(&boss));
    policy.replace_with_toml(LESS).unwrap();
    assert!(read.is_held_by(&clerk()) && !cancel.is_held_by(&clerk()) && !role.is_held_by(&boss));
    assert!(read.belongs_to(&policy), "it is still the same policy");
    policy.replace_with_toml(GONE).unwrap();
    assert!(!read.is_held_by(&clerk()) && !role.is_held_by(&clerk()), "what the policy does not know is denied");
    assert!(role.permissions().is_empty());
    assert!(policy.permission("orders:read").is_err() && policy.permission("orders:list").is_ok());
    policy
        .replace_with_json(r#"{"version": "4", "permissions": ["orders:read"], "roles": {"clerk": {"grants": ["*"]}}}"#)
        .unwrap();
    assert!(read.is_held_by(&clerk()) && role.is_held_by(&clerk()) && !cancel.is_held_by(&clerk()));
    assert_eq!(policy.generation(), Some(3));
    assert_eq!(policy.version().as_ref(), "4");
}

#[test]
fn a_handle_that_is_made_late_is_known_at_once() {
    let policy = Rbac::from_toml(FULL).unwrap();
    assert!(policy.permission("orders:read").unwrap().is_held_by(&clerk()));
    assert!(policy.permission("orders:cancel").unwrap().is_held_by(&clerk()), "on the same thread");
    let generation = policy.generation();
    let late = policy.clone();
    let held = std::thread::spawn(move || late.role("clerk").unwrap().is_held_by(&clerk())).join().unwrap();
    assert!(held);
    assert_eq!(policy.generation(), generation, "a handle changes no answer");
}

#[test]
fn two_policies_on_one_thread_keep_apart() {
    let (full, less) = (Rbac::from_toml(FULL).unwrap(), Rbac::from_toml(LESS).unwrap());
    for _ in 0..3 {
        assert!(allows(&full, "orders:cancel") && !allows(&less, "orders:cancel"));
    }
}

#[test]
fn a_bad_file_is_refused_and_the_running_policy_stays() {
    let (_dir, path, policy) = written(FULL);
    assert_eq!(policy.reload().unwrap(), Reloaded::Unchanged);
    let file = path.display().to_string();
    for (name, text, expected) in [
        (
            "unknown role",
            "version = \"2\"\npermissions = [\"a\"]\n[roles.r]\ninherits = [\"boss\"]",
            "line 4: roles.r.inherits: \"boss\" is not a role",
        ),
        (
            "cycle",
            "version = \"2\"\npermissions = [\"a\"]\n[roles.r]\ninherits = [\"s\"]\n[roles.s]\ninherits = [\"r\"]",
            "line 3: roles: \"r\" inherits itself in a circle: r -> s -> r",
        ),
        (
            "a permission that nobody defines",
            "version = \"2\"\npermissions = [\"a\"]\n[roles.r]\ngrants = [\"b\"]",
            "line 4: roles.r.grants: \"b\" is not in permissions",
        ),
        ("half a file", &FULL.replace("orders:cancel\"]", ""), "TOML is not a policy: "),
        ("empty", "", "TOML is not a policy: missing field"),
        ("no UTF-8 text", "\u{0}", "TOML is not a policy"),
    ] {
        let before = policy.reload_state().unwrap();
        std::fs::write(&path, text).unwrap();
        let error = policy.reload().unwrap_err().to_string();
        assert!(error.starts_with(&file) && error.contains(expected), "{name}: {error}");
        let state = policy.reload_state().unwrap();
        assert_eq!(state.failures(), before.failures() + 1, "{name}");
        assert!(state.failing().unwrap().contains(expected), "{name}: {state:?}");
        assert!(policy.reload().is_err(), "{name}");
        assert_eq!(
            policy.reload_state().unwrap().failures(),
            before.failures() + 1,
            "{name}: a file that stays bad counts once"
        );
        assert!(allows(&policy, "orders:cancel"), "{name}");
        assert_eq!((policy.version().as_ref(), policy.generation()), ("1", Some(0)), "{name}");
    }
    std::fs::write(&path, LESS).unwrap();
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    assert!(!allows(&policy, "orders:cancel") && policy.reload_state().unwrap().failing().is_none());
    assert!(policy.replace_with_toml("nonsense").is_err());
    assert!(policy.reload_state().unwrap().failing().is_some() && allows(&policy, "orders:read"));
    let fixed = Rbac::from_toml(FULL).unwrap();
    assert!(fixed.reload().is_err() && fixed.watch(Duration::from_secs(5)).is_err(), "a text has no file");
}

/// A token that was verified once, and is remembered as it was: what its roles mean is the newest policy's to say.
#[tokio::test]
async fn a_permission_taken_away_is_refused_at_the_next_request_of_a_known_token() {
    let (_dir, path, policy) = written(FULL);
    let remembered = clerk();
    let authn =
        authenticate_fn(Challenge::new("Test", "tests").unwrap(), move |_, _| Outcome::verified(remembered.clone()));
    let guard = require(policy.permission("orders:cancel").unwrap());
    let app = AuthnLayer::new(authn).dangerous_plain_http().layer(guard.layer(Probe::default()));
    assert_eq!(send(&app, get("/")).await.status(), 200);
    std::fs::write(&path, LESS).unwrap();
    policy.reload().unwrap();
    assert_eq!(send(&app, get("/")).await.status(), 403);
    std::fs::write(&path, FULL).unwrap();
    policy.reload().unwrap();
    assert_eq!(send(&app, get("/")).await.status(), 200);
}

#[test]
fn a_policy_that_was_put_by_hand_is_not_undone_by_a_look_that_fails() {
    let (_dir, path, policy) = written(FULL);
    policy.replace_with_toml(LESS).unwrap();
    for trouble in ["", "nonsense"] {
        std::fs::write(&path, trouble).unwrap();
        assert!(policy.reload().is_err());
        replace(&path, FULL);
        assert_eq!(policy.reload().unwrap(), Reloaded::Unchanged, "{trouble:?}");
        assert!(!allows(&policy, "orders:cancel") && policy.reload_state().unwrap().failing().is_none());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(policy.reload().is_err());
    policy.replace_with_toml(GONE).unwrap();
    assert!(policy.reload_state().unwrap().failing().is_some(), "the file is away all the same");
    replace(&path, FULL);
    policy.reload().unwrap();
    assert_eq!(policy.version().as_ref(), "3");
    replace(&path, LESS);
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    assert!(allows(&policy, "orders:read") && policy.reload_state().unwrap().failing().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_file_is_watched() {
    let (_dir, path, policy) = written(FULL);
    assert!(policy.watch(Duration::from_millis(10)).is_err(), "too often");
    policy.watch(Duration::from_secs(5)).unwrap();
    replace(&path, LESS);
    until(|| !allows(&policy, "orders:cancel")).await;
    replace(&path, "nonsense");
    until(|| policy.reload_state().unwrap().failing().is_some()).await;
    assert!(allows(&policy, "orders:read"));
}

/// As careful editors write: the new file takes the old one's place at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Time that stands still passes by itself, but only while nobody else runs.
async fn until(is: impl Fn() -> bool) {
    for _ in 0..100 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came");
}

/// A policy of many rules, the answers of which tell its version.
fn large(version: usize) -> String {
    const ROLES: usize = 1_000;
    let mut text = format!("version = \"{version}\"\npermissions = [\"even\", \"odd\", ");
    (0..20).for_each(|n| write!(text, "\"p{n}\", ").unwrap());
    writeln!(text, "]\n[roles.clerk]\ngrants = [\"{}\"]", if version.is_multiple_of(2) { "even" } else { "odd" })
        .unwrap();
    for role in 0..ROLES {
        let grants: Vec<String> = (0..10).map(|n| format!("\"p{}\"", (role + n) % 20)).collect();
        writeln!(text, "[roles.r{role}]\ngrants = [{}]", grants.join(", ")).unwrap();
    }
    text
}

/// Ten thousand rules are replaced while other threads ask: each answer is one policy's or the other's, never a mix.
#[test]
fn readers_see_one_policy_or_the_next_while_ten_thousand_rules_are_replaced() {
    let policy = Rbac::from_toml(&large(0)).unwrap();
    let texts = [large(1), large(2)];
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (policy, done) = (policy.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let (mut last, mut asked) = (0, 0_u64);
                let clerk = clerk();
                while !done.load(Ordering::Relaxed) {
                    let before = policy.generation().unwrap();
                    let query = AccessQuery::new(&clerk, "even", Instants::new(0, 0));
                    let Now::Known(verdict) = policy.decide_now(&query) else { panic!("rbac never waits") };
                    let version: u64 = verdict.version().unwrap().parse().unwrap();
                    assert_eq!(
                        verdict.is_allow(),
                        version.is_multiple_of(2),
                        "the answer is that of the version it names"
                    );
                    let after = policy.generation().unwrap();
                    assert!(before >= last && after >= before, "a generation never goes back");
                    (last, asked) = (after, asked + 1);
                }
                asked
            })
        })
        .collect();
    for round in 0..6 {
        policy.replace_with_toml(&texts[round % 2]).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    assert_eq!(policy.generation(), Some(6));
}

fn watched() -> (tempfile::TempDir, Rbac) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, FULL).unwrap();
    let policy = Rbac::from_toml_file(&path).unwrap();
    (folder, policy)
}

/// The task would panic as it begins to wait, and nobody would hear of it.
#[test]
fn a_runtime_without_a_timer_is_an_error() {
    let (_folder, policy) = watched();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async { policy.watch(Duration::from_secs(1)) }).unwrap_err();
    assert!(error.to_string().contains("timer"), "{error}");
    assert_eq!(policy.reload_state().unwrap().failing(), None, "nobody was told that it would be looked at");
}

/// What is taken out of the file would be granted for ever, and all would look well.
#[test]
fn a_watch_that_went_with_its_runtime_is_told_until_another_one_begins() {
    let (folder, policy) = watched();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let failing = || policy.reload_state().unwrap().failing().map(str::to_owned);
    let (first, second, third) = (runtime(), runtime(), runtime());
    let begin = |runtime: &tokio::runtime::Runtime| runtime.block_on(async { policy.watch(Duration::from_secs(1)) });
    begin(&first).unwrap();
    begin(&second).unwrap();
    drop(first);
    assert_eq!(failing(), None, "another one looks");
    drop(second);
    assert!(failing().unwrap().contains("nobody looks"));
    std::fs::write(folder.path().join("policy.toml"), LESS).unwrap();
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    assert!(failing().is_some(), "once is not again and again");
    begin(&third).unwrap();
    assert_eq!(failing(), None);
    std::fs::write(folder.path().join("policy.toml"), "nonsense").unwrap();
    assert!(policy.reload().is_err());
    drop(third);
    assert!(!failing().unwrap().contains("nobody looks"), "what is wrong with the file comes first");
}
