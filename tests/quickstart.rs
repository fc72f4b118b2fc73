//! The quickstart as its reader meets it: a process, the lines it prints, and `curl`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{
    env::consts::EXE_SUFFIX,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// One line of the guide with its comment.
struct Case {
    name: String,
    expected: u16,
    command: String,
}

impl Case {
    /// How many requests the line sends.
    fn requests(&self) -> usize {
        let repeated = self.command.strip_prefix("for i in $(seq ").and_then(|rest| rest.split_once(')'));
        repeated.map_or(1, |(count, _)| count.parse().unwrap())
    }

    /// The token or key that the line carries.
    fn credential(&self) -> Option<&str> {
        let (_, header) = self.command.split_once("-H '")?;
        let (header, _) = header.split_once('\'').unwrap();
        let (_, value) = header.split_once(": ").unwrap();
        Some(value.strip_prefix("Bearer ").unwrap_or(value))
    }

    /// The status of the last answer.
    async fn run(&self) -> u16 {
        let mut shell = Command::new("sh");
        // A proxy of the machine must not stand between curl and loopback.
        shell.args(["-c", &self.command]).env("no_proxy", "*").env("NO_PROXY", "*");
        let output = within(&self.name, shell.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}: {errors}", self.name, output.status);
        let answer = String::from_utf8_lossy(&output.stdout);
        let last = answer.lines().rfind(|line| line.starts_with("HTTP/"));
        let status = last.and_then(|line| line.split(' ').nth(1));
        status.unwrap_or_else(|| panic!("{}: no status in {answer:?}", self.name)).parse().unwrap()
    }
}

/// What the example prints before it waits.
#[derive(Default)]
struct Guide {
    cases: Vec<Case>,
    audit: PathBuf,
    keys: PathBuf,
    /// Whether it says that it found keys of an earlier start.
    reused: bool,
}

impl Guide {
    async fn read(output: &mut Lines<BufReader<ChildStdout>>) -> Self {
        let mut guide = Self::default();
        let mut comment = None;
        loop {
            let Some(line) = output.next_line().await.unwrap() else { panic!("the example ended") };
            if line.starts_with("Ctrl-C ") {
                return guide;
            } else if let Some(path) = line.strip_prefix("audit records: ") {
                guide.audit = path.into();
            } else if let Some(path) = line.strip_prefix("keys: ") {
                guide.keys = path.into();
            } else if line.starts_with("the file was there: ") {
                guide.reused = true;
            } else if let Some(text) = line.strip_prefix("# ") {
                let (name, status) = text.rsplit_once(" -> ").unwrap();
                comment = Some((name.to_owned(), status.parse().unwrap()));
            } else if let Some((name, expected)) = comment.take() {
                guide.cases.push(Case { name, expected, command: line });
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs curl and the built example; tests/run has both"]
async fn the_printed_lines_get_the_printed_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = start(folder.path());
    let mut output = BufReader::new(service.stdout.take().unwrap()).lines();
    let guide = within("the guide", Guide::read(&mut output)).await;
    assert!(guide.cases.len() >= 10, "{} cases", guide.cases.len());

    for case in &guide.cases {
        assert_eq!(case.run().await, case.expected, "{}: {}", case.name, case.command);
    }

    interrupt(&service).await;
    let rest = within("the last words", async {
        let mut rest = Vec::new();
        while let Some(line) = output.next_line().await.unwrap() {
            rest.push(line);
        }
        rest
    });
    let rest = rest.await;
    assert_eq!(within("the end", service.wait()).await.unwrap().code(), Some(0), "{rest:?}");

    let audit = fs::read_to_string(&guide.audit).unwrap();
    // One record for each request, or one more of those that are counted together.
    let mut recorded = 0;
    for line in audit.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        recorded += match entry["entry"].as_str().unwrap() {
            "decided" => 1,
            "repeated" => usize::try_from(entry["count"].as_u64().unwrap()).unwrap(),
            other => panic!("{other}: {line}"),
        };
    }
    assert_eq!(recorded, guide.cases.iter().map(Case::requests).sum::<usize>());
    let credentials: Vec<&str> = guide.cases.iter().filter_map(Case::credential).collect();
    assert!(credentials.len() >= 5, "{} credentials", credentials.len());
    for credential in credentials {
        // The signature of a token, the secret of a key: what stands before it may be known.
        let (_, secret) = credential.rsplit_once('.').or_else(|| credential.rsplit_once('_')).unwrap();
        assert!(secret.len() >= 16 && !audit.contains(secret), "a credential is in the audit file");
    }
}

#[tokio::test]
#[ignore = "needs curl and the built example; tests/run has both"]
async fn keys_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys: Vec<String> = Vec::new();
    for earlier in 0..3 {
        let mut service = start(folder.path());
        let mut output = BufReader::new(service.stdout.take().unwrap()).lines();
        let guide = within("the guide", Guide::read(&mut output)).await;
        assert_eq!(guide.reused, earlier > 0, "a second start says that it found keys");
        assert_eq!(guide.keys.parent(), Some(folder.path()));

        let mut allowed = guide.cases.into_iter().find(|case| case.name == "allowed by key").unwrap();
        keys.push(allowed.credential().unwrap().to_owned());
        let new = keys.last().unwrap();
        let log = guide.keys.with_file_name("quickstart-keys.db-wal");
        let stored = [fs::read(&guide.keys).unwrap(), fs::read(log).unwrap()].concat();
        let secret = new.rsplit_once('_').unwrap().1.as_bytes();
        assert!(!stored.windows(secret.len()).any(|window| window == secret), "a secret is in the file");
        // The keys of all starts, in the place of the new one.
        let command = allowed.command.clone();
        for key in &keys {
            allowed.command = command.replace(new, key);
            assert_eq!(allowed.run().await, 200, "{}", allowed.command);
        }

        interrupt(&service).await;
        assert_eq!(within("the end", service.wait()).await.unwrap().code(), Some(0));
    }
}

/// Starts the example beside this test's own executable. Its files go into the folder.
fn start(folder: &Path) -> Child {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(format!("quickstart{EXE_SUFFIX}"));
    let hint = "build it first: cargo build --example quickstart --features tls-self-signed,api-key-sqlite";
    assert!(example.is_file(), "{} is missing; {hint}", example.display());
    let mut command = Command::new(example);
    command
        .args(["--port", "0", "--keys"])
        .arg(folder.join("quickstart-keys.db"))
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

/// What Ctrl-C sends.
async fn interrupt(service: &Child) {
    let kill = format!("kill -INT {}", service.id().unwrap());
    assert!(within("kill", Command::new("sh").args(["-c", &kill]).status()).await.unwrap().success());
}

/// Gives up after a minute: nothing here takes more than a few seconds.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}
