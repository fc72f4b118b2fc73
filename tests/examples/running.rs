//! An example as a process, and what the first comment of its source says.

use std::{
    env::consts::EXE_SUFFIX,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Where the comments say that they listen.
const ADDRESS: &str = "localhost:3000";

/// What a line of the comment is answered: an HTTP status, or the status of gRPC.
#[derive(Debug, PartialEq)]
pub enum Expected {
    Http(u16),
    Grpc(u16),
}

pub struct Guide {
    /// What is defined before, such as a shorthand.
    before: Vec<String>,
    pub cases: Vec<(String, Expected)>,
    /// How a certificate is made, if one is.
    pub certificate: Option<String>,
}

impl Guide {
    /// Of an example: the name of its file, or of its folder.
    pub fn read(example: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let [file, main] = [folder.join(format!("{example}.rs")), folder.join(example).join("main.rs")];
        let source = if file.is_file() { file } else { main };
        let (mut before, mut cases, mut certificate) = (Vec::new(), Vec::new(), None);
        for line in std::fs::read_to_string(source).unwrap().lines().take_while(|line| line.starts_with("//!")) {
            let line = line.trim_start_matches("//!").trim();
            if line.starts_with("call() {") || line.starts_with("ask() {") {
                before.push(line.to_owned());
            } else if line.starts_with("openssl ") {
                certificate = Some(line.to_owned());
            } else if ["curl ", "call ", "ask "].iter().any(|command| line.starts_with(command)) {
                let (command, expected) = line.rsplit_once(" # ").unwrap_or_else(|| panic!("{example}: {line}"));
                let expected = match expected.strip_prefix("grpc-status ") {
                    Some(status) => Expected::Grpc(status.parse().unwrap()),
                    None => Expected::Http(expected.parse().unwrap()),
                };
                cases.push((command.trim_end().to_owned(), expected));
            }
        }
        assert!(cases.len() >= 5, "{example}: {} lines", cases.len());
        Self { before, cases, certificate }
    }

    /// Sends each line, with these addresses in the place of those that it names, and these variables.
    pub async fn try_all(&self, addresses: &[(&str, &str)], exports: &[(String, String)]) {
        for (command, expected) in &self.cases {
            assert!(addresses.iter().any(|(named, _)| command.contains(named)), "{command}");
            let place = |text: String, (named, address): &(&str, &str)| text.replace(named, address);
            let placed = addresses.iter().fold(command.clone(), place);
            let answer = self.answer(&placed, exports, matches!(expected, Expected::Grpc(_))).await;
            assert_eq!(answer, *expected, "{command}");
        }
    }

    /// The status of the answer to a line.
    async fn answer(&self, command: &str, exports: &[(String, String)], grpc: bool) -> Expected {
        let script = self.before.iter().map(String::as_str).chain([command]).collect::<Vec<_>>().join("\n");
        let answer = shell(&script, exports).await;
        let status = if grpc {
            answer.lines().find_map(|line| line.strip_prefix("grpc-status: "))
        } else {
            answer.lines().rfind(|line| line.starts_with("HTTP/")).and_then(|line| line.split(' ').nth(1))
        };
        let status = status.unwrap_or_else(|| panic!("{command}: no status in {answer:?}")).trim().parse().unwrap();
        if grpc { Expected::Grpc(status) } else { Expected::Http(status) }
    }
}

/// What a script writes, with these variables.
pub async fn shell(script: &str, exports: &[(String, String)]) -> String {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).envs(exports.iter().cloned());
    // A proxy of the machine must not stand between curl and loopback.
    shell.env("no_proxy", "*").env("NO_PROXY", "*").stdin(Stdio::null()).kill_on_drop(true);
    let output = within(script, shell.output()).await.unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub struct Running {
    pub process: Child,
    pub exports: Vec<(String, String)>,
    pub address: String,
}

impl Running {
    pub async fn start(example: &str) -> Self {
        Self::start_with(example, &[], &[]).await
    }

    /// With these arguments and variables.
    pub async fn start_with(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let program: PathBuf = profile.join("examples").join(format!("{example}{EXE_SUFFIX}"));
        assert!(program.is_file(), "{} is missing; build it: cargo build --examples --all-features", program.display());
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().copied());
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

    /// Tries the lines of its comment.
    pub async fn try_guide(&self, guide: &Guide) {
        guide.try_all(&[(ADDRESS, &self.address)], &self.exports).await;
    }
}

/// Gives up after a minute: nothing here takes more than a few seconds.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}
