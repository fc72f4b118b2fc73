//! Each example as its reader meets it: a process, the `export` lines that it prints, and the lines of its first comment,
//! pasted into a shell one after another.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{
    env::consts::EXE_SUFFIX,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use portcullis::testing::attack::{Profile, attack_url};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Where the comments say that they listen.
const ADDRESS: &str = "localhost:3000";

/// What a line of the comment is answered: an HTTP status, or the status of gRPC.
#[derive(Debug, PartialEq)]
enum Expected {
    Http(u16),
    Grpc(u16),
}

struct Guide {
    /// What is defined before, such as a shorthand.
    before: Vec<String>,
    cases: Vec<(String, Expected)>,
}

impl Guide {
    fn read(example: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{example}.rs"));
        let (mut before, mut cases) = (Vec::new(), Vec::new());
        for line in std::fs::read_to_string(source).unwrap().lines().take_while(|line| line.starts_with("//!")) {
            let line = line.trim_start_matches("//!").trim();
            if line.starts_with("call() {") || line.starts_with("ask() {") {
                before.push(line.to_owned());
            } else if ["curl ", "call ", "ask "].iter().any(|command| line.starts_with(command)) {
                let (command, expected) = line.rsplit_once(" # ").unwrap_or_else(|| panic!("{example}: {line}"));
                let expected = match expected.strip_prefix("grpc-status ") {
                    Some(status) => Expected::Grpc(status.parse().unwrap()),
                    None => Expected::Http(expected.parse().unwrap()),
                };
                assert!(command.contains(ADDRESS), "{example}: {command}");
                cases.push((command.trim_end().to_owned(), expected));
            }
        }
        Self { before, cases }
    }
}

struct Running {
    process: Child,
    exports: Vec<(String, String)>,
    address: String,
}

impl Running {
    async fn start(example: &str) -> Self {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let program: PathBuf = profile.join("examples").join(format!("{example}{EXE_SUFFIX}"));
        assert!(program.is_file(), "{} is missing; build it: cargo build --examples --all-features", program.display());
        let mut command = Command::new(program);
        command.env("PORT", "0").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut exports = Vec::new();
        loop {
            let line = within(example, lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("{example}: it ended"));
            if let Some(address) = line.strip_prefix("serving ") {
                return Self { process, exports, address: address.to_owned() };
            }
            let (name, value) = line.strip_prefix("export ").and_then(|line| line.split_once('=')).unwrap();
            exports.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The status of the answer to a line.
    async fn answer(&self, guide: &Guide, command: &str, grpc: bool) -> Expected {
        let script = guide.before.iter().map(String::as_str).chain([command]).collect::<Vec<_>>().join("\n");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script.replace(ADDRESS, &self.address)).envs(self.exports.iter().cloned());
        // A proxy of the machine must not stand between curl and loopback.
        shell.env("no_proxy", "*").env("NO_PROXY", "*").stdin(Stdio::null()).kill_on_drop(true);
        let output = within(command, shell.output()).await.unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8_lossy(&output.stdout);
        let status = if grpc {
            answer.lines().find_map(|line| line.strip_prefix("grpc-status: "))
        } else {
            answer.lines().rfind(|line| line.starts_with("HTTP/")).and_then(|line| line.split(' ').nth(1))
        };
        let status = status.unwrap_or_else(|| panic!("{command}: no status in {answer:?}")).trim().parse().unwrap();
        if grpc { Expected::Grpc(status) } else { Expected::Http(status) }
    }
}

/// Gives up after a minute: nothing here takes more than a few seconds.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

async fn tried(example: &str) {
    let guide = Guide::read(example);
    assert!(guide.cases.len() >= 5, "{example}: {} lines", guide.cases.len());
    let mut running = Running::start(example).await;
    for (command, expected) in &guide.cases {
        let answer = running.answer(&guide, command, matches!(expected, Expected::Grpc(_))).await;
        assert_eq!(answer, *expected, "{example}: {command}");
    }
    running.process.kill().await.unwrap();
}

/// Sends the attacks to an example: the routes that it serves to everybody, those that it guards, and the variable of a good key.
async fn attacked(example: &str, open: &[&str], guarded: &[&str], key: &str) {
    let mut running = Running::start(example).await;
    let (_, key) = running.exports.iter().find(|(name, _)| name == key).unwrap();
    let mut profile = Profile::new().api_key("x-api-key", key);
    for route in open {
        profile = profile.public(route).unwrap();
    }
    for route in guarded {
        profile = profile.route(route, []).unwrap();
    }
    let suite = attack_url(&format!("http://{}", running.address), profile).unwrap();
    let report = timeout(Duration::from_secs(300), suite.run()).await.unwrap().unwrap();
    assert!(report.is_clean(), "{example}: {report}");
    for attack in ["credential-missing", "identity-header", "path-encoded", "method-unlisted", "key-altered"] {
        assert!(report.sent().any(|(sent, count)| sent == attack && count > 0), "{example}: {attack}");
    }
    running.process.kill().await.unwrap();
}

macro_rules! attacked {
    ($($name:ident: $example:literal, $open:expr, $guarded:expr, $key:literal;)*) => {$(
        #[tokio::test]
        #[ignore = "needs the built examples; tests/run has them"]
        async fn $name() {
            attacked($example, &$open, &$guarded, $key).await;
        }
    )*};
}

attacked! {
    api_key_plans_is_clean: "api_key_plans", [], ["GET /report", "GET /admin/keys", "POST /admin/keys"], "GOLD";
    cedar_is_clean: "cedar", [], ["GET /orders/1", "DELETE /orders/1"], "CLERK";
    multi_tenant_is_clean: "multi_tenant", [], ["GET /orders", "GET /orders/1", "DELETE /orders/1"], "ALICE";
    plain_hyper_is_clean: "plain_hyper", ["GET /health"], ["GET /time"], "KEY";
}

macro_rules! tried {
    ($($example:ident)*) => {$(
        #[tokio::test]
        #[ignore = "needs curl and the built examples; tests/run has both"]
        async fn $example() {
            tried(stringify!($example)).await;
        }
    )*};
}

tried! { api_key_plans cedar custom_authenticator from_fn grpc multi_tenant plain_hyper rego }
