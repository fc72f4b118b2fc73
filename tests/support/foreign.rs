//! Programs that are not ours, started on private ports and stopped when dropped.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that runs until it is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a program and waits until these ports of 127.0.0.1 answer, at most for ten seconds.
    #[expect(clippy::disallowed_methods, reason = "a deadline for a real server")]
    pub fn start(program: &str, arguments: &[&str], ports: &[u16]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
        let mut running = Self(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        for port in ports {
            while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], *port))).is_err() {
                let ended = running.0.try_wait().unwrap();
                assert!(ended.is_none() && Instant::now() < deadline, "{program} does not listen on {port}: {ended:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program writes, and whether it succeeded.
pub fn run(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// What it writes if it succeeds.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let (text, success) = run(program, arguments);
    assert!(success, "{program} {arguments:?}: {text}");
    text
}

/// Certificates as an operator makes them with openssl: `ca`, `server` (of localhost) and `client` (of the DNS name
/// `billing.internal` and a SPIFFE ID), `.crt` and `.key` each.
pub fn openssl_certificates(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let request = |name: &str, subject: &str, extra: &[&str]| {
        let (key, out) = (path(&format!("{name}.key")), path(&format!("{name}.csr")));
        let mut arguments =
            vec!["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &out, "-subj", subject];
        arguments.extend(extra);
        must("openssl", &arguments);
    };
    let (ca_key, ca) = (path("ca.key"), path("ca.crt"));
    let new =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tests", "-keyout", &ca_key];
    must("openssl", &[&new[..], &["-out", &ca]].concat());
    for (name, subject, extensions) in [
        ("server", "/CN=localhost", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n"),
        (
            "client",
            "/C=DE/O=Acme, \"Söhne\" \\+ Co/OU= #1 /CN=billing",
            "subjectAltName=DNS:billing.internal,URI:spiffe://prod.example/billing\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n",
        ),
    ] {
        request(name, subject, &["-utf8"]);
        std::fs::write(folder.join("extensions"), extensions).unwrap();
        let (csr, out, file) = (path(&format!("{name}.csr")), path(&format!("{name}.crt")), path("extensions"));
        let sign = ["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "30"];
        must("openssl", &[&sign[..], &["-extfile", &file, "-out", &out]].concat());
    }
    // HAProxy reads chain and key from one file.
    let both = [std::fs::read(path("server.crt")).unwrap(), std::fs::read(path("server.key")).unwrap()].concat();
    std::fs::write(folder.join("server.pem"), both).unwrap();
}
