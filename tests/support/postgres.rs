//! A PostgreSQL server of a test's own, on a port and in a folder of its own; it ends with the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use tempfile::TempDir;

/// Selects a server that runs already, for the tests that do not stop it. Its database is written to.
pub const ADDRESS: &str = "PORTCULLIS_TEST_POSTGRES";

pub struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
    stopped: bool,
    tls: bool,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server refuses to run as root, and runs as this user then.
        let (user, group) = ids();
        std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        let data = folder.path().join("data");
        let made = run(&programs().join("initdb"))
            .args(["--pgdata", data.to_str().unwrap(), "--username", "test", "--encoding", "UTF8", "--locale", "C"])
            .args(["--auth", "trust", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder, port, process: None, stopped: false, tls: false };
        server.restart();
        server
    }

    pub fn address(&self) -> String {
        format!("postgres://test@127.0.0.1:{}/postgres", self.port)
    }

    /// A server that speaks TLS, with this certificate and its key, in PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let mut server = Self::start();
        let (user, group) = ids();
        let data = server.folder.path().join("data");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        }
        server.tls = true;
        server.stop();
        server.restart();
        server
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        let data = self.folder.path().join("data");
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let port = self.port.to_string();
        let server = run(&programs().join("postgres"))
            .args(["-D", data.to_str().unwrap(), "-p", &port, "-h", "127.0.0.1", "-F"])
            .args(["-c", "unix_socket_directories=", "-c", "max_connections=60"])
            .args(["-c", if self.tls { "ssl=on" } else { "ssl=off" }])
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(server);
        for _ in 0..1_000 {
            // It answers once it has read its log.
            let asked =
                Command::new(programs().join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && asked.unwrap().success() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("it does not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// Ends every session and the server, as an administrator who is in a hurry does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), "INT");
            process.wait().unwrap();
        }
    }

    /// Stops the server and its sessions in the middle of what they do: connections stay, and nobody answers.
    pub fn freeze(&mut self) {
        self.stopped = true;
        self.signal_all("STOP");
    }

    pub fn thaw(&mut self) {
        self.stopped = false;
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let server = self.process.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        signal(server, name);
        for child in children.split_whitespace() {
            signal(child.parse().unwrap(), name);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stopped {
            self.thaw();
        }
        self.stop();
    }
}

fn signal(process: u32, name: &str) {
    // One that has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", name, &process.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Debian keeps the server's programs out of the path.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        versions.map(|path| path.join("bin")).filter(|path| path.join("initdb").is_file()).collect();
    found.sort();
    found.pop().expect("no PostgreSQL in /usr/lib/postgresql; tests/run installs it")
}

fn run(program: &Path) -> Command {
    let mut command = Command::new(program);
    let (user, group) = ids();
    if is_root() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn is_root() -> bool {
    id(&["-u"]) == 0
}

fn ids() -> (u32, u32) {
    if is_root() { (id(&["-u", "postgres"]), id(&["-g", "postgres"])) } else { (id(&["-u"]), id(&["-g"])) }
}

fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the user postgres, of Debian's package")
}
