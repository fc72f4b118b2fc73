//! Other processes: what one is told another refuses, and what was answered outlives its process, however that ends.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::*;

const CHILD: &str = "PORTCULLIS_TEST_REVOCATIONS_FILE";

/// Another process, if it is told so: it revokes, or says how a token stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, as a process of its own"]
async fn another_process() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path), patient()).await;
    println!("\nsays loaded");
    for line in std::io::stdin().lines() {
        match line.unwrap().split_once(' ').unwrap() {
            ("revoke", jti) => match store.revoke(&token(jti), now()).await {
                Ok(()) => println!("\nsays done"),
                Err(error) => {
                    eprintln!("{error:?}");
                    println!("\nsays {:?}", error.kind());
                }
            },
            (_, jti) => {
                let standing = store.state().check_marks(&TokenMarks::new(ISSUER).token(jti), now());
                println!("\nsays {standing:?}");
            }
        }
    }
}

struct Other {
    child: Child,
    tell: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// `before` is what the shell does before it becomes the process.
    fn start(path: &Path, before: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "processes::another_process", "--include-ignored", "--nocapture"])
            .env(CHILD, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let mut other = Self { child, tell, lines };
        assert_eq!(other.hear(), "loaded");
        other
    }

    fn hear(&mut self) -> String {
        self.lines.find_map(|line| line.unwrap().strip_prefix("says ").map(str::to_owned)).expect("it answers")
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.tell, "{line}").unwrap();
        self.hear()
    }

    /// Without a chance to close anything (SIGKILL).
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_them() {
    let (_folder, path) = folder();
    let store = open(&path, patient()).await;
    let mut other = Other::start(&path, ":");
    assert_eq!(other.ask("ask here"), "Good");
    revoke(&*store, "here").await;
    until("the other process refuses", || other.ask("ask here") == "Revoked(Token)").await;
    assert_eq!(other.ask("revoke there"), "done");
    assert_eq!(other.ask("ask there"), "Revoked(Token)", "at once");
    until("this process refuses", || is_revoked(&*store, "there")).await;
    assert_eq!(other.ask("ask good"), "Good");
    other.kill();
    revoke(&*store, "later").await;
    assert!(store.state().is_fresh(now()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_a_process_that_is_killed() {
    let (_folder, path) = folder();
    let mut told = 0;
    for round in 0..5 {
        let mut other = Other::start(&path, ":");
        for _ in 0..=round {
            assert_eq!(other.ask(&format!("revoke t-{told}")), "done");
            told += 1;
        }
        // In the middle of one more, which may count or not.
        writeln!(other.tell, "revoke half-{round}").unwrap();
        other.kill();
        let store = open(&path, patient()).await;
        for number in 0..told {
            assert!(is_revoked(&*store, &format!("t-{number}")), "{round}: {number}");
        }
        assert!(!is_revoked(&*store, "good"));
    }
}

/// No file may grow any more, until there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_and_what_was_answered_stays() {
    let (_folder, path) = folder();
    drop(open(&path, patient()).await);
    let mut other = Other::start(&path, "trap '' XFSZ; ulimit -S -f 400");
    let mut told = 0;
    let refused = loop {
        assert!(told < 1_000, "the limit holds");
        match &*other.ask(&format!("revoke t-{told}")) {
            "done" => told += 1,
            error => break error.to_owned(),
        }
    };
    assert_eq!((told > 0, &*refused), (true, "Unavailable"));
    for _ in 0..3 {
        assert_eq!(other.ask("revoke again"), "Unavailable");
    }
    for number in 0..told {
        assert_eq!(other.ask(&format!("ask t-{number}")), "Revoked(Token)", "{number}");
    }
    assert_eq!((&*other.ask("ask again"), &*other.ask("ask good")), ("Good", "Good"), "requests go on");
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &other.child.id().to_string()]).status();
    if raised.is_ok_and(|status| status.success()) {
        assert_eq!(other.ask("revoke again"), "done", "there is room again");
    }
    other.kill();
    let store = open(&path, patient()).await;
    for number in 0..told {
        assert!(is_revoked(&*store, &format!("t-{number}")), "{number}");
    }
}
