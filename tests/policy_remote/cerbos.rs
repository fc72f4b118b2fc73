//! Cerbos, which speaks AuthZEN: its server, and a policy of its own language.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use portcullis::{
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    http_client::FetchLimits,
    policy::{AccessQuery, AuthZen, Decision, DecisionPoint, PolicyBackend, Resource, Verdict},
};
use tokio::net::TcpStream;

use crate::server::{ISSUER, at, person};

const POLICY: &str = "
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  version: default
  resource: order
  rules:
    - actions: ['orders:read']
      effect: EFFECT_ALLOW
      roles: ['clerk']
    - actions: ['orders:cancel']
      effect: EFFECT_ALLOW
      roles: ['clerk']
      condition:
        match:
          all:
            of:
              - expr: request.resource.attr.owner.id == request.principal.id
              - expr: request.resource.attr.status == 'open'
";

struct Cerbos {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Cerbos {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("order.yaml"), POLICY).unwrap();
        let socket = folder.path().join("grpc.sock");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "server:\n  httpListenAddr: '127.0.0.1:{port}'\n  grpcListenAddr: 'unix:{}'\ntelemetry:\n  disabled: true\n\
             storage:\n  driver: disk\n  disk:\n    directory: '{}'\n    watchForChanges: false\n",
            socket.display(),
            policies.display(),
        );
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        let machine = if cfg!(target_arch = "aarch64") { "cerbos-linux-arm64" } else { "cerbos-linux-x64" };
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop/node/node_modules/@cerbos");
        let mut command = Command::new(modules.join(machine).join(machine));
        command.args(["server", "--config"]).arg(folder.path().join("config.yaml"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Self { process, port, _folder: folder };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "it must not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    fn policy(&self) -> AuthZen {
        // The first answer of a process that has just started may take long on a machine that is busy.
        let limits = FetchLimits::new(Duration::from_secs(30), 64 * 1_024);
        let point = DecisionPoint::at(format!("http://127.0.0.1:{}", self.port)).dangerous_http_on_loopback();
        let policy = AuthZen::builder(point.limits(limits)).subjects(ISSUER, "user").roles_property("cerbos.roles");
        policy.resource_if_none("order", "any").build().unwrap()
    }
}

impl Drop for Cerbos {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "needs Cerbos, which tests/run installs"]
async fn cerbos_decides() {
    let server = Cerbos::start().await;
    let policy = server.policy();
    let (alice, bob) = (person("alice").roles(["clerk"]).build(), person("bob").roles(["clerk"]).build());
    let guest = person("guest").roles(["guest"]).build();
    let of = |status: &str| Resource::new("order", "42").owned_by(ISSUER, "alice").with("status", status);
    let (open, shut, parcel) = (of("open"), of("shut"), Resource::new("parcel", "1"));
    let table = [
        (AccessQuery::new(&alice, "orders:read", at()).on(&open), Decision::Allow),
        (AccessQuery::new(&alice, "orders:cancel", at()).on(&open), Decision::Allow),
        (AccessQuery::new(&alice, "orders:cancel", at()).on(&shut), Decision::Deny),
        (AccessQuery::new(&bob, "orders:cancel", at()).on(&open), Decision::Deny),
        (AccessQuery::new(&guest, "orders:read", at()).on(&open), Decision::Deny),
        (AccessQuery::new(&alice, "orders:read", at()).on(&parcel), Decision::Deny),
    ];
    for (query, expected) in &table {
        assert_eq!(policy.decide(query).await.decision(), *expected, "{query:?}");
    }
    let queries = table.map(|(query, _)| query);
    let verdicts = policy.decide_all(&queries).await;
    let expected = table.map(|(_, expected)| expected);
    assert_eq!(verdicts.iter().map(Verdict::decision).collect::<Vec<_>>(), expected);

    let question = |action: &str| PolicyQuestion::new(alice.clone(), action).on(open.clone());
    policy_backend(&policy, PolicyFixture::new(question("orders:read"), question("orders:ship"))).await;
}

#[tokio::test]
#[ignore = "needs Cerbos, which tests/run installs"]
async fn once_cerbos_is_gone_nothing_is_decided() {
    let mut server = Cerbos::start().await;
    let policy = server.policy();
    let alice = person("alice").roles(["clerk"]).build();
    let query = AccessQuery::new(&alice, "orders:read", at());
    assert_eq!(policy.decide(&query).await.decision(), Decision::Allow);
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    assert_eq!(policy.decide(&query).await.decision(), Decision::CannotDecide);
    assert!(policy.health().failure().is_some());
}
