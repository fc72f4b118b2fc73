//! A Redis server of a test's own, on a port and in a folder of its own; it ends with the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread::sleep,
    time::Duration,
};

use tempfile::TempDir;

pub struct Server {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
    stopped: bool,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these settings of its own.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, port, arguments, process: None, stopped: false };
        server.restart();
        server
    }

    /// The only node of a cluster, without slots.
    pub fn start_in_cluster() -> Self {
        // The port of its bus would be ten thousand more than its own, which there may not be.
        Self::start_with(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()])
    }

    /// One that speaks TLS and nothing else, with this certificate and its key, in PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let arguments = ["--tls-port", &port.to_string(), "--tls-cert-file", "server.crt", "--tls-key-file"]
            .into_iter()
            .chain(["server.key", "--tls-auth-clients", "no", "--tls-ca-cert-file", "server.crt"])
            .map(str::to_owned)
            .collect();
        let mut server = Self { folder, port, arguments, process: None, stopped: false };
        server.restart();
        server
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Starts it again, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        let tls = self.arguments.iter().any(|argument| argument == "--tls-port");
        let port = if tls { "0".to_owned() } else { self.port.to_string() };
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", self.folder.path().to_str().unwrap(), "--unixsocket", self.socket().to_str().unwrap()])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server, which tests/run installs");
        self.process = Some(process);
        for _ in 0..1_000 {
            if self.is_ready() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("it does not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    fn is_ready(&self) -> bool {
        // What listens on the port might be another's.
        let answers = UnixStream::connect(self.socket()).is_ok() && self.say("PING").starts_with(['+', '-']);
        answers && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it in the middle of what it does: connections stay, and nobody answers.
    pub fn freeze(&mut self) {
        self.stopped = true;
        self.signal("STOP");
    }

    pub fn thaw(&mut self) {
        self.stopped = false;
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Says a command of words without spaces, as it stands, and gives the answer as it stands.
    pub fn say(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(text.as_bytes()).unwrap();
        // The server closes once it has answered all.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn keys(&self) -> Vec<String> {
        let answer = self.say("KEYS *");
        let lines = answer.lines().filter(|line| !line.starts_with(['*', '$']));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stopped {
            self.thaw();
        }
        self.kill();
    }
}

/// One that no connection gets by itself, and no other test of this process: a server that is started again has it still.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 20_000).unwrap();
    let ports = std::iter::repeat_with(|| 10_000 + (start + NEXT.fetch_add(1, Relaxed)) % 20_000);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(20_000).find(is_free).expect("a free port")
}
