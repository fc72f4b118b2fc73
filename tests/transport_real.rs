//! Real clients and real proxies: curl, openssl, Python; nginx and HAProxy in front. They run on private ports of loopback,
//! with certificates that openssl made. Clients come from 127.0.0.2, proxies from 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{fmt::Display, net::SocketAddr};

use axum::{Router, extract::Request, routing::get};
use http::HeaderName;
use portcullis::{
    SecurityContext, Slot,
    client_cert::{ClientCertAuthenticator, ClientCertAuthenticatorBuilder},
    evidence::{CertificateHeader, ProxyProtocol, TrustedProxies},
    guard::{authenticated, public, require},
    stack::{Protected, Stack},
    tls::{ClientRoots, ProxiedListener, ServerCertificate, TlsLayer, TlsListener},
};
use support::foreign::{Running, free_port, must, openssl_certificates, run};
use tempfile::TempDir;

const PROXY: [&str; 1] = ["127.0.0.1"];

/// `address source secure version host subject`
async fn facts(request: Request) -> String {
    let context = SecurityContext::of(request.extensions()).unwrap();
    let client = context.client().unwrap();
    let address = client.address().map_or_else(|| "-".to_owned(), |address| address.to_string());
    let version = client.tls_version().map_or_else(|| "-".to_owned(), |version| format!("{version:?}"));
    let subject = context.identity(Slot::Subject).map_or_else(|| "-".to_owned(), |it| it.subject().to_owned());
    let host = client.forwarded_host().unwrap_or("-");
    format!("{address} {} {} {version} {host} {subject}\n", client.source().as_str(), client.is_secure())
}

fn app(proxies: TrustedProxies) -> Protected<Router> {
    app_with(proxies, ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap())
}

fn app_with(proxies: TrustedProxies, clients: ClientCertAuthenticatorBuilder) -> Protected<Router> {
    Stack::builder()
        .proxies(proxies)
        .tls(TlsLayer::require())
        .authenticate(clients.build().unwrap())
        .route("GET /open", public())
        .route("GET /guarded", require(authenticated()))
        .build()
        .unwrap()
        .protect(Router::new().route("/open", get(facts)).route("/guarded", get(facts)))
}

/// The files that openssl made.
struct Files(TempDir);

impl Files {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        openssl_certificates(folder.path());
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }

    fn tls_listener(&self) -> TlsListener {
        let certificate = ServerCertificate::from_pem_files(self.path("server.crt"), self.path("server.key")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        TlsListener::new(tokio::net::TcpListener::from_std(listener).unwrap(), certificate)
    }

    fn roots(&self) -> ClientRoots {
        ClientRoots::from_pem_file(self.path("ca.crt")).unwrap()
    }

    /// What curl gets from 127.0.0.2: the body and the status.
    fn curl(&self, url: &str, extra: &[&str]) -> String {
        let ca = self.path("ca.crt");
        let fixed = ["-sS", "--max-time", "20", "--noproxy", "*", "--interface", "127.0.0.2", "--cacert", &ca];
        let (text, _) = run("curl", &[&fixed[..], &["-w", "%{http_code}"], extra, &[url]].concat());
        text.replace('\n', " ")
    }

    /// The arguments that show the client's certificate.
    fn certificate(&self) -> [String; 4] {
        ["--cert".to_owned(), self.path("client.crt"), "--key".to_owned(), self.path("client.key")]
    }

    fn curl_with_certificate(&self, url: &str, extra: &[&str]) -> String {
        let certificate = self.certificate();
        let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
        self.curl(url, &[&certificate, extra].concat())
    }
}

fn serve_tls(listener: TlsListener, app: Protected<Router>) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
    address
}

async fn serve_plain(app: Protected<Router>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
    address
}

fn https(port: impl Display, path: &str) -> String {
    format!("https://localhost:{port}{path}")
}

/// Blocking programs run beside the server.
macro_rules! blocking {
    ($body:expr) => {
        tokio::task::spawn_blocking(move || $body).await.unwrap()
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl and openssl; tests/run installs them"]
async fn curl_speaks_tls() {
    let files = Files::make();
    let listener = files.tls_listener().with_http2().accept_client_certificates(&files.roots());
    let port = serve_tls(listener, app(TrustedProxies::none())).port();
    blocking!({
        let (open, guarded) = (https(port, "/open"), https(port, "/guarded"));
        let direct = "127.0.0.2 connection true Tls13 - ";
        for version in ["--http1.1", "--http2"] {
            assert_eq!(files.curl(&open, &[version]), format!("{direct}- 200"));
            assert_eq!(files.curl_with_certificate(&guarded, &[version]), format!("{direct}billing.internal 200"));
            assert!(files.curl(&guarded, &[version]).ends_with("401"));
            let other = ["-H", "Host: other.example", version];
            assert!(files.curl(&open, &other).ends_with("421"), "{version}: another host than SNI's");
        }
        assert!(files.curl(&open, &["--tls-max", "1.2"]).contains("Tls12"));
        assert!(files.curl(&open, &["--tls-max", "1.1"]).contains("error"), "no TLS 1.1");
        assert!(files.curl(&open, &["-X", "POST", "-H", "Early-Data: 1"]).ends_with("425"));
        let plain = files.curl(&format!("http://localhost:{port}/open"), &[]);
        assert!(plain.starts_with("000"), "{plain}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs openssl; tests/run installs it"]
async fn openssl_speaks_tls_and_reads_names_as_we_do() {
    let files = Files::make();
    let subjects = ClientCertAuthenticator::by_full_subject_name().allow_everybody_issued();
    let listener = files.tls_listener().with_http2().require_client_certificates(&files.roots());
    let address = serve_tls(listener, app_with(TrustedProxies::none(), subjects));
    blocking!({
        let (ca, address) = (files.path("ca.crt"), address.to_string());
        let (certificate, key) = (files.path("client.crt"), files.path("client.key"));
        let fixed =
            ["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", &ca, "-verify_return_error"];
        let identity = ["-cert", &certificate, "-key", &key];
        let shown = must("openssl", &[&fixed[..], &identity, &["-alpn", "h2,http/1.1", "-brief"]].concat());
        assert!(shown.contains("TLSv1.3") && shown.contains("Verification: OK"), "{shown}");
        let shown = must("openssl", &[&fixed[..], &identity, &["-alpn", "h2,http/1.1"]].concat());
        assert!(shown.contains("ALPN protocol: h2"), "{shown}");
        assert!(shown.contains("CN = tests"), "the server names the authority that it takes: {shown}");
        let (shown, success) = run("openssl", &[&fixed[..], &["-tls1_2", "-brief"]].concat());
        assert!(!success, "without a certificate: {shown}");
        let (shown, success) = run("openssl", &[&fixed[..], &identity, &["-tls1_1", "-brief"]].concat());
        assert!(!success, "TLS 1.1: {shown}");

        let printed =
            must("openssl", &["x509", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb", "-in", &certificate]);
        let printed = printed.trim().strip_prefix("subject=").unwrap();
        let port = address.rsplit(':').next().unwrap();
        let seen = files.curl_with_certificate(&https(port, "/guarded"), &[]);
        assert_eq!(seen, format!("127.0.0.2 connection true Tls13 - {printed} 200"));
        assert!(printed.contains(r#"O=Acme\, \"S"#) && printed.contains(r"OU=\ #1\ "), "{printed}");
    });
}

const PYTHON: &str = r#"
import http.client, ssl, sys
port, folder = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=folder + "/ca.crt")
def ask(context):
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    answers = []
    for _ in range(2):
        connection.request("GET", "/guarded")
        response = connection.getresponse()
        text = response.read().decode()
        answers.append((response.status, text.split(" ")[-1].strip() if response.status == 200 else ""))
    return answers, connection.sock.version()
print(ask(context))
context.load_cert_chain(folder + "/client.crt", folder + "/client.key")
print(ask(context))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and openssl; tests/run installs them"]
async fn python_speaks_tls() {
    let files = Files::make();
    let listener = files.tls_listener().accept_client_certificates(&files.roots());
    let port = serve_tls(listener, app(TrustedProxies::none())).port();
    blocking!({
        let shown = must("python3", &["-c", PYTHON, &port.to_string(), &files.0.path().display().to_string()]);
        let expected = "([(401, ''), (401, '')], 'TLSv1.3')\n([(200, 'billing.internal'), (200, 'billing.internal')], 'TLSv1.3')\n";
        assert_eq!(shown, expected);
    });
}

/// nginx in front of plain HTTP: terminates TLS, appends to `X-Forwarded-For`, forwards the certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx, curl and openssl; tests/run installs them"]
async fn nginx_in_front() {
    let files = Files::make();
    let header = CertificateHeader::escaped_pem(HeaderName::from_static("x-ssl-client-cert"));
    let proxies = TrustedProxies::x_forwarded(PROXY).unwrap().with_client_certificates(header);
    let counts = proxies.counts();
    let backend = serve_plain(app(proxies)).await;
    let real_ip = TrustedProxies::address_header(HeaderName::from_static("x-real-ip"), PROXY).unwrap();
    let real_ip = real_ip.with_scheme_header(HeaderName::from_static("x-scheme")).unwrap();
    let by_address = serve_plain(app(real_ip)).await;
    let (plain, secure, single) = (free_port(), free_port(), free_port());
    let folder = files.0.path().display();
    let tls = format!(
        "ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key;
         ssl_client_certificate {folder}/ca.crt; ssl_verify_client optional;"
    );
    let forward = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
         proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;";
    let conf = files.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn; worker_processes 1;
             events {{ worker_connections 64; }}
             http {{
                 access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
                 fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
                 large_client_header_buffers 4 64k; proxy_buffer_size 64k; proxy_buffers 8 64k;
                 server {{ listen 127.0.0.1:{plain}; location / {{ {forward} proxy_pass http://{backend}; }} }}
                 server {{ listen 127.0.0.1:{secure} ssl; {tls} location / {{ {forward} proxy_pass http://{backend}; }} }}
                 server {{ listen 127.0.0.1:{single} ssl; {tls} location / {{
                     proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Scheme $scheme;
                     proxy_pass http://{by_address}; }} }}
             }}"
        ),
    );
    blocking!({
        let prefix = files.0.path().display().to_string();
        let _nginx = Running::start("nginx", &["-p", &prefix, "-c", &conf, "-e", "stderr"], &[plain, secure, single]);
        let (open, guarded) = (https(secure, "/open"), https(secure, "/guarded"));
        let client = "127.0.0.2 proxy true - localhost ";
        assert_eq!(files.curl(&open, &[]), format!("{client}- 200"));
        assert_eq!(files.curl_with_certificate(&guarded, &[]), format!("{client}billing.internal 200"));
        assert!(files.curl(&guarded, &[]).ends_with("401"));
        assert!(files.curl(&format!("http://localhost:{plain}/open"), &[]).ends_with("403"), "plain HTTP");

        let flood = format!("X-Forwarded-For: {}", vec!["10.0.0.1"; 1_000].join(", "));
        let spoofs: [&[&str]; 9] = [
            &["-H", "X-Forwarded-For: 127.0.0.1"],
            &["-H", "X-Forwarded-For: 10.0.0.1", "-H", "X-Forwarded-For: 127.0.0.1,"],
            &["-H", "Forwarded: for=127.0.0.1;proto=https;host=evil.example"],
            &["-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Host: evil.example"],
            &["-H", "X-Real-IP: 127.0.0.1", "-H", "X_Forwarded_For: 127.0.0.1"],
            &["-H", "X-Forwarded-For: ::ffff:127.0.0.1, fe80::1%lo, unknown, 0177.0.0.1"],
            &["-H", "X-SSL-Client-Cert: -----BEGIN%20CERTIFICATE-----"],
            &["-H", "Client-Cert: :AAAA:", "-H", "X-Forwarded-Client-Cert: Hash=00"],
            &["-H", "Remote-User: root", "-H", "X-Forwarded-User: root"],
        ];
        for spoof in spoofs {
            assert_eq!(files.curl(&open, spoof), format!("{client}- 200"), "{spoof:?}");
            assert!(files.curl(&guarded, spoof).ends_with("401"), "{spoof:?}");
            assert!(files.curl(&format!("http://localhost:{plain}/open"), spoof).ends_with("403"), "{spoof:?}");
        }
        assert_eq!(counts.malformed(), 0);
        let flooded = files.curl(&open, &["-H", &flood]);
        assert!(flooded.ends_with("403") && counts.malformed() == 1, "{flooded}: the proxy's address, and no HTTPS");

        let address = "127.0.0.2 proxy true - - ";
        for spoof in [&[][..], &["-H", "X-Real-IP: 127.0.0.1", "-H", "X-Scheme: http"]] {
            assert_eq!(files.curl(&https(single, "/open"), spoof), format!("{address}- 200"));
        }
        let direct = files.curl(&format!("http://{backend}/open"), &["-H", "X-Forwarded-Proto: https"]);
        assert!(direct.ends_with("403"), "around the proxy, from 127.0.0.2: {direct}");
    });
}

/// HAProxy in front: passes TLS through or terminates it, and speaks the PROXY protocol; or writes headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs haproxy, curl and openssl; tests/run installs them"]
async fn haproxy_in_front() {
    let files = Files::make();
    let proxies = || ProxyProtocol::v2(PROXY).unwrap();
    let listener = files.tls_listener().accept_client_certificates(&files.roots()).with_proxy_protocol(proxies());
    let through = serve_tls(listener, app(TrustedProxies::none()));
    let listener = ProxiedListener::bind("127.0.0.1:0", proxies()).await.unwrap();
    let announced = listener.local_addr().unwrap();
    tokio::spawn(async move { portcullis::axum::serve(listener, app(TrustedProxies::none())).await });
    let header = CertificateHeader::client_cert();
    let headers = TrustedProxies::x_forwarded(PROXY).unwrap().with_client_certificates(header);
    let by_headers = serve_plain(app(headers)).await;

    let (passing, ending, plain, writing) = (free_port(), free_port(), free_port(), free_port());
    let folder = files.0.path().display();
    let crt = format!("ssl crt {folder}/server.pem ca-file {folder}/ca.crt verify optional alpn h2,http/1.1");
    let conf = files.write(
        "haproxy.cfg",
        &format!(
            "defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend passing
    mode tcp
    bind 127.0.0.1:{passing}
    default_backend through
backend through
    mode tcp
    server one {through} send-proxy-v2
frontend ending
    mode http
    bind 127.0.0.1:{ending} {crt}
    default_backend announced
frontend plain
    mode http
    bind 127.0.0.1:{plain}
    default_backend announced
backend announced
    mode http
    http-reuse never
    server one {announced} send-proxy-v2-ssl proxy-v2-options crc32c,authority,cert-cn
frontend writing
    mode http
    bind 127.0.0.1:{writing} {crt}
    default_backend headers
backend headers
    mode http
    option forwardfor
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request del-header Client-Cert
    http-request set-header Client-Cert :%[ssl_c_der,base64]: if {{ ssl_c_used }}
    server one {by_headers}
"
        ),
    );
    blocking!({
        let ports = [passing, ending, plain, writing];
        let _haproxy = Running::start("haproxy", &["-db", "-q", "-f", &conf], &ports);
        let own = "127.0.0.2 proxy_protocol true Tls13 - ";
        assert_eq!(files.curl(&https(passing, "/open"), &[]), format!("{own}- 200"));
        let named = files.curl_with_certificate(&https(passing, "/guarded"), &[]);
        assert_eq!(named, format!("{own}billing.internal 200"));

        for version in ["--http1.1", "--http2"] {
            assert_eq!(files.curl(&https(ending, "/open"), &[version]), format!("{own}- 200"), "{version}");
        }
        let old = files.curl(&https(ending, "/open"), &["--tls-max", "1.2"]);
        assert_eq!(old, "127.0.0.2 proxy_protocol true Tls12 - - 200");
        let nobody = files.curl_with_certificate(&https(ending, "/guarded"), &[]);
        assert!(nobody.ends_with("401"), "a common name in the PROXY protocol is nobody: {nobody}");
        let host = files.curl(&https(ending, "/open"), &["-H", "Host: other.example"]);
        assert!(host.ends_with("421"), "the server name that the proxy told: {host}");
        assert!(files.curl(&format!("http://localhost:{plain}/open"), &[]).ends_with("403"), "plain HTTP");
        for spoof in ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https", "Forwarded: for=127.0.0.1;proto=https"]
        {
            let answer = files.curl(&https(ending, "/open"), &["-H", spoof]);
            assert_eq!(answer, format!("{own}- 200"), "{spoof}");
            assert!(files.curl(&format!("http://localhost:{plain}/open"), &["-H", spoof]).ends_with("403"), "{spoof}");
        }
        for address in [through, announced] {
            let around = files.curl(&format!("http://{address}/open"), &[]);
            assert!(around.starts_with("000"), "without the protocol, or from a stranger: {around}");
        }

        let client = format!("127.0.0.2 proxy true - localhost:{writing} ");
        assert_eq!(
            files.curl(&https(writing, "/open"), &["-H", "X-Forwarded-For: 127.0.0.1"]),
            format!("{client}- 200")
        );
        let named = files.curl_with_certificate(&https(writing, "/guarded"), &["-H", "Client-Cert: :AAAA:"]);
        assert_eq!(named, format!("{client}billing.internal 200"));
        assert!(files.curl(&https(writing, "/guarded"), &["-H", "Client-Cert: :AAAA:"]).ends_with("401"));
    });
}
