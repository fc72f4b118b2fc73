//! Stacks from a document: they answer as those from code do, change while requests run, and keep secrets to themselves.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{borrow::Cow, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use portcullis::{
    Clock, Connection, SystemClock, TlsVersion,
    api_key::{ApiKeyAuthenticator, ApiKeyFormat, FileKeyStore, KeyIssuer, NewApiKey},
    audit::{AuditEntry, AuditLayer},
    authn::one_of,
    config::Config,
    event::EventKind,
    evidence::TrustedProxies,
    guard::{public, require},
    jwt::{Algorithm, Issuer, JwtAuthenticator},
    policy::Rbac,
    rate_limit::{Plans, Quota},
    stack::Stack,
    testing::Captured,
    tls::TlsLayer,
};
use support::{Probe, send, with};

const POLICY: &str = "version = '1'\npermissions = ['orders:list', 'orders:cancel']\n[roles.clerk]\n\
    grants = ['orders:list']\n[roles.manager]\ngrants = ['*']\n";

struct Files {
    dir: tempfile::TempDir,
    clerk: String,
    gold: String,
    token: String,
    foreign: String,
    expired: String,
}

impl Files {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("policy.toml"), POLICY).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.public_key_raw();
        let jwk = serde_json::json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        });
        std::fs::write(dir.path().join("keys.json"), serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
        let now = SystemClock::new().now().unix_nanos() / 1_000_000_000;
        let mint = |audience: &str, expires: u64| {
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
            (header.typ, header.kid) = (Some("at+jwt".into()), Some("1".into()));
            let claims = serde_json::json!({
                "iss": "https://id.example.com", "sub": "ada", "aud": audience, "client_id": "shop", "jti": "1",
                "iat": now - 7_200, "exp": expires, "roles": ["manager"],
            });
            let key = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        let store = FileKeyStore::create(dir.path().join("keys.toml")).unwrap();
        let issuer = KeyIssuer::new().with_format(ApiKeyFormat::new("shop").unwrap());
        let at = SystemClock::new().now();
        let mut keys = Vec::new();
        for key in [NewApiKey::for_subject("billing").role("clerk"), NewApiKey::for_subject("rich").plan("gold")] {
            let (key, record) = issuer.mint(key, at).unwrap();
            portcullis::api_key::ApiKeyAdmin::insert(&store, record).await.unwrap();
            keys.push(key.expose().to_owned());
        }
        Self {
            clerk: keys[0].clone(),
            gold: keys[1].clone(),
            token: mint("orders-api", now + 3_600),
            foreign: mint("other-api", now + 3_600),
            expired: mint("orders-api", now - 3_600),
            dir,
        }
    }

    fn document(&self, gold: u32) -> String {
        let dir = self.dir.path().to_str().unwrap();
        format!(
            "[tls]\nhosts = ['api.example.com']\n\
             [proxies]\nfamily = 'x-forwarded'\nnetworks = ['10.0.12.7']\n\
             [[issuers]]\nissuer = 'https://id.example.com'\naudience = 'orders-api'\nalgorithms = ['ES256']\n\
             roles_claim = 'roles'\nkeys = {{ file = '{dir}/keys.json' }}\n\
             [api_keys]\nstore = 'file'\npath = '{dir}/keys.toml'\nprefix = 'shop'\n\
             [policy]\nfile = '{dir}/policy.toml'\n\
             [routes]\n'GET /health' = 'public'\n'GET /orders' = {{ permission = 'orders:list' }}\n\
             'DELETE /orders/{{id}}' = {{ permission = 'orders:cancel' }}\n\
             [quotas.flood]\ncount = 20\nper = 'day'\n[quotas.standard]\ncount = 4\nper = 'day'\n\
             [quotas.gold]\ncount = {gold}\nper = 'day'\n[plans.gold]\nquotas = ['gold']\n\
             [[limits]]\nby = 'client'\nquotas = ['flood']\n\
             [[limits]]\nby = 'principal'\nquotas = ['standard']\nplans = ['gold']\n"
        )
    }

    fn by_code(&self) -> Stack {
        let policy = Rbac::from_toml_file(self.path("policy.toml")).unwrap();
        let (list, cancel) = (policy.permission("orders:list").unwrap(), policy.permission("orders:cancel").unwrap());
        let issuer = Issuer::jwks_file("https://id.example.com", self.path("keys.json")).unwrap();
        let issuer = issuer.access_tokens("orders-api").algorithms([Algorithm::ES256]).roles_claim("roles");
        let keys = ApiKeyAuthenticator::new(FileKeyStore::open(self.path("keys.toml")).unwrap());
        let daily = |count, name: &'static str| [Quota::per_day(count).named(Cow::Borrowed(name))];
        Stack::builder()
            .tls(TlsLayer::require().hosts(["api.example.com"]).unwrap())
            .proxies(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
            .limit_clients(Plans::new(daily(20, "flood")).unwrap())
            .authenticate(one_of((
                JwtAuthenticator::builder().issuer(issuer).build().unwrap(),
                keys.with_format(ApiKeyFormat::new("shop").unwrap()),
            )))
            .limit_principals(Plans::new(daily(4, "standard")).unwrap().with("gold", daily(6, "gold")).unwrap())
            .policy(policy)
            .route("GET /health", public())
            .route("GET /orders", require(list))
            .route("DELETE /orders/{id}", require(cancel))
            .build()
            .unwrap()
    }
}

fn request(method: &str, path: &str, peer: &str, host: &str) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path).header("host", host).body(()).unwrap();
    request.extensions_mut().insert(Connection::tls(format!("{peer}:52100").parse().unwrap(), TlsVersion::Tls13));
    request
}

/// The requests: what is asked for, and with which field.
fn requests(files: &Files) -> Vec<Request<()>> {
    let bearer = |token: &str| format!("Bearer {token}");
    let api = "api.example.com";
    let of = |method, path, name, value: &str| with(request(method, path, "198.51.100.7", api), name, value);
    let mut requests = vec![
        request("GET", "/health", "198.51.100.1", api),
        request("HEAD", "/health", "198.51.100.1", api),
        request("POST", "/health", "198.51.100.1", api),
        request("GET", "/health", "198.51.100.1", "other.example.com"),
        request("GET", "/orders", "198.51.100.1", api),
        request("GET", "/nowhere", "198.51.100.1", api),
        with(request("GET", "/health", "10.0.12.7", api), "x-forwarded-proto", "http"),
        with(
            with(request("GET", "/orders", "10.0.12.7", api), "x-forwarded-for", "198.51.100.9"),
            "x-forwarded-proto",
            "https",
        ),
        of("GET", "/orders", "x-api-key", &files.clerk),
        of("DELETE", "/orders/7", "x-api-key", &files.clerk),
        of("GET", "/nowhere", "x-api-key", &files.clerk),
        of("GET", "/orders", "x-api-key", "shop_v1_nonsense"),
        of("GET", "/orders", "authorization", &bearer(&files.token)),
        of("DELETE", "/orders/7", "authorization", &bearer(&files.token)),
        of("DELETE", "/orders/7/8", "authorization", &bearer(&files.token)),
        of("GET", "/orders", "authorization", &bearer(&files.foreign)),
        of("GET", "/orders", "authorization", &bearer(&files.expired)),
        of("GET", "/orders", "authorization", "Bearer a.b.c"),
        of("GET", "/orders", "authorization", "Basic YTpi"),
        with(of("GET", "/orders", "authorization", &bearer(&files.token)), "x-api-key", &files.clerk),
    ];
    let mut plain = request("GET", "/health", "198.51.100.1", api);
    plain.extensions_mut().insert(Connection::plain("198.51.100.1:52100".parse().unwrap()));
    requests.push(plain);
    // The quota of the plan, and then beyond that of the address.
    requests.extend((0..10).map(|_| with(request("GET", "/orders", "198.51.100.20", api), "x-api-key", &files.gold)));
    requests.extend((0..4).map(|_| of("GET", "/orders", "x-api-key", &files.clerk)));
    requests.extend((0..8).map(|_| of("GET", "/health", "accept", "*/*")));
    requests
}

async fn answers(stack: Stack, requests: Vec<Request<()>>) -> Vec<(StatusCode, Vec<String>)> {
    let service = stack.protect(Probe::default());
    let mut answers = Vec::new();
    for request in requests {
        let response = send(&service, request).await;
        let fields = ["www-authenticate", "ratelimit-policy", "cache-control", "content-type", "vary"];
        let shown = fields.iter().flat_map(|name| response.headers().get_all(*name)).map(|value| format!("{value:?}"));
        answers.push((response.status(), shown.collect()));
    }
    answers
}

#[tokio::test]
async fn from_code_and_from_a_document_they_answer_alike() {
    let files = Files::new().await;
    let config = Config::from_toml(&files.document(6)).unwrap();
    let from_document = config.builder().await.unwrap().build().unwrap();
    let by_document = answers(from_document, requests(&files)).await;
    let by_code = answers(files.by_code(), requests(&files)).await;
    assert!(by_code.len() >= 30);
    for (index, (code, document)) in by_code.iter().zip(&by_document).enumerate() {
        assert_eq!(code, document, "request {index}");
    }
    // They are not all refused in one way.
    for status in [200, 401, 403, 421, 429] {
        assert!(by_code.iter().any(|(code, _)| code.as_u16() == status), "no {status}: {by_code:?}");
    }
}

/// The slash at the end of an issuer's name is taken as it is where issuers may have one.
#[tokio::test]
async fn the_issuer_of_a_cluster_may_end_with_a_slash() {
    let files = Files::new().await;
    let build = async |provider: &str| {
        let issuer = format!(
            "[[issuers]]\nprovider = '{provider}'\nissuer = 'https://eastus.oic.prod-aks.azure.com/realms/1/'\n\
             audience = 'orders'\nkeys = {{ file = '{}' }}\n[api_keys]",
            files.path("keys.json").display()
        );
        let config = Config::from_toml(&files.document(6).replacen("[api_keys]", &issuer, 1)).unwrap();
        config.builder().await.map(|_| ()).map_err(|errors| errors.to_string())
    };
    assert_eq!(build("kubernetes").await, Ok(()));
    let refused = build("keycloak").await.unwrap_err();
    assert!(refused.contains("must not end with a slash"), "{refused}");
}

/// Each provider takes its own settings, and none that it would not read: a restriction that is not read restricts nothing.
#[tokio::test]
async fn a_provider_takes_its_own_settings_and_no_others() {
    const OF_SOME: [(&str, &str); 9] = [
        ("issuer", "'https://other.example/oauth2/realms/shop'"),
        ("audience", "'orders'"),
        ("clients", "['web']"),
        ("tenants", "['11111111-2222-4333-8444-555555555555']"),
        ("domain", "'shop.eu.auth0.com'"),
        ("pool", "'eu-west-1_A1b2'"),
        ("project", "'shop'"),
        ("owners", "['1']"),
        ("namespaces", "['1']"),
    ];
    let files = Files::new().await;
    let keys = format!("keys = {{ file = '{}' }}", files.path("keys.json").display());
    let build = async |settings: &str| {
        let issuer = format!("[[issuers]]\n{settings}\n{keys}\n[api_keys]");
        let config = Config::from_toml(&files.document(6).replacen("[api_keys]", &issuer, 1)).unwrap();
        config.builder().await.map(|_| ()).map_err(|errors| errors.to_string())
    };
    for (provider, own) in [
        (None, &["issuer", "audience"][..]),
        (Some("google"), &["clients"]),
        (Some("entra"), &["tenants", "audience"]),
        (Some("entra-v1"), &["tenants", "audience"]),
        (Some("auth0"), &["domain", "audience"]),
        (Some("okta"), &["issuer", "audience"]),
        (Some("keycloak"), &["issuer", "audience"]),
        (Some("kubernetes"), &["issuer", "audience"]),
        (Some("cognito-access"), &["pool", "clients"]),
        (Some("cognito-id"), &["pool", "clients"]),
        (Some("firebase"), &["project"]),
        (Some("github-actions"), &["audience", "owners"]),
        (Some("gitlab-ci"), &["issuer", "audience", "namespaces"]),
    ] {
        let first = match provider {
            Some(provider) => format!("provider = '{provider}'"),
            None => "algorithms = ['ES256']".to_owned(),
        };
        let settings = OF_SOME.iter().filter(|(name, _)| own.contains(name));
        let good = settings.fold(first, |text, (name, value)| format!("{text}\n{name} = {value}"));
        assert_eq!(build(&good).await, Ok(()), "{good}");
        for (name, value) in OF_SOME.iter().filter(|(name, _)| !own.contains(name)) {
            let refused = build(&format!("{good}\n{name} = {value}")).await.unwrap_err();
            assert!(refused.contains(&format!("issuers[1].{name}: ")), "{provider:?}, {name}: {refused}");
            assert_eq!(refused.lines().count(), 1, "{refused}");
        }
    }
}

#[tokio::test]
async fn quotas_change_while_requests_run_and_nothing_else() {
    let files = Files::new().await;
    let path = files.path("app.toml");
    std::fs::write(&path, files.document(1)).unwrap();
    let (stack, live) = Config::read(&path).unwrap().assemble().await.unwrap();
    let service = stack.build().unwrap().protect(Probe::default());
    let ask = async || {
        let request = request("GET", "/nowhere", "198.51.100.20", "api.example.com");
        send(&service, with(request, "x-api-key", &files.gold)).await.status().as_u16()
    };
    assert_eq!((ask().await, ask().await), (403, 429));
    std::fs::write(&path, files.document(8)).unwrap();
    live.reload().unwrap();
    // All of the burst was used, and stays used. A quota of another name begins whole.
    assert_eq!(ask().await, 429);
    std::fs::write(
        &path,
        files.document(8).replace("gold]\ncount", "best]\ncount").replace("['gold']\n[[", "['best']\n[["),
    )
    .unwrap();
    live.reload().unwrap();
    assert_eq!(ask().await, 403);

    std::fs::write(&path, files.document(8).replace("api.example.com", "www.example.com")).unwrap();
    let refused = live.reload().unwrap_err().to_string();
    assert!(refused.contains("tls: the section has changed, which needs a restart"), "{refused}");
    // Shadow mode is not switched on by a reload, whose days go on to be counted from the start.
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let text = files.document(8);
    std::fs::write(&path, text.replacen("[[limits]]\n", &format!("[[limits]]\nshadow_until = '{day}'\n"), 1)).unwrap();
    let refused = live.reload().unwrap_err().to_string();
    assert!(refused.contains("limits: the section has changed, which needs a restart"), "{refused}");
    std::fs::write(&path, files.document(0)).unwrap();
    assert!(live.reload().unwrap_err().to_string().contains("quotas.gold.count: 0 must be at least 1"));
    assert_eq!(live.policy().unwrap().version().as_ref(), "1");
}

/// What stands in a file of its own is compared as well; a secret is not read again.
#[tokio::test]
async fn a_table_of_routes_in_another_file_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let (path, routes) = (dir.path().join("app.toml"), dir.path().join("routes.toml"));
    let redis = dir.path().join("redis");
    std::fs::write(&redis, "redis://127.0.0.1:1").unwrap();
    let write = |count: u32| {
        let text = format!(
            "routes_file = '{}'\n[tls]\n[quotas.flood]\ncount = {count}\nper = 'second'\n[[limits]]\nby = 'client'\n\
             quotas = ['flood']\nstore = 'redis'\n[redis]\n\
             address = {{ file = '{}', dangerous_readable_by_all = true }}\n",
            routes.display(),
            redis.display()
        );
        std::fs::write(&path, text).unwrap();
    };
    let open = "[routes]\n'GET /orders' = 'public'\n";
    std::fs::write(&routes, open).unwrap();
    write(9);
    let (_, live) = Config::read(&path).unwrap().assemble().await.unwrap();
    std::fs::remove_file(&redis).unwrap();
    write(10);
    live.reload().unwrap();
    std::fs::write(&routes, format!("# as it was\n{open}")).unwrap();
    live.reload().unwrap();

    let refused = || live.reload().unwrap_err().to_string();
    for other in [open.replace("public", "deny"), "[routes".to_owned()] {
        std::fs::write(&routes, other).unwrap();
        let told = refused();
        assert!(
            told.contains("app.toml:1: routes_file: ") && told.contains("has changed, which needs a restart"),
            "{told}"
        );
    }
    std::fs::remove_file(&routes).unwrap();
    assert!(refused().contains("cannot be read"), "{}", refused());
    assert_eq!(refused().lines().count(), 1, "{}", refused());
}

/// The failure budget is made once: a newer document that says something else of it is refused, and not taken for taken over.
#[tokio::test]
async fn a_quota_of_the_failure_budget_does_not_change() {
    let files = Files::new().await;
    let budget = |quotas: &str| {
        format!("{quotas}\n[failure_budget]\nper_source = 'bad'\nper_key = 'worse'\n{}", files.document(6))
    };
    let text = budget("[quotas]\nbad = { count = 5, per = 'minute' }\nworse = { count = 3, per = 'minute' }");
    let (_, live) = Config::from_toml(&text).unwrap().assemble().await.unwrap();
    let apply = |text: &str| live.apply(&Config::from_toml(text).unwrap()).map_err(|problems| problems.to_string());
    for (name, from, to) in [
        ("the count", "bad = { count = 5,", "bad = { count = 50,"),
        ("the period", "count = 3, per = 'minute'", "count = 3, per = 'second'"),
        ("a burst", "count = 3, per = 'minute'", "count = 3, per = 'minute', burst = 9"),
    ] {
        let refused = apply(&text.replace(from, to)).unwrap_err();
        let of = if name == "the count" { "quotas.bad" } else { "quotas.worse" };
        assert!(refused.contains(&format!("{of}: the quota is one of [failure_budget]")), "{name}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{name}: {refused}");
    }
    let gone = apply(&text.replace("bad = {", "good = {")).unwrap_err();
    assert!(gone.contains("failure_budget.per_source: \"bad\" is no quota"), "{gone}");
    let other = apply(&text.replace("per_source = 'bad'", "per_source = 'worse'")).unwrap_err();
    assert!(other.contains("failure_budget: the section has changed"), "{other}");
    apply(&text).unwrap();
    apply(&text.replace("count = 6", "count = 8")).unwrap();
}

/// Whoever looks for who was let through, and when, finds the day on which the quota grew.
#[tokio::test]
async fn quotas_that_change_are_told() {
    let document = |quotas: &str, limit: &str| {
        format!(
            "{quotas}\n[tls]\nhosts = ['api.example.com']\n[[limits]]\nby = 'principal'\n{limit}\n\
            [routes]\n'GET /health' = 'public'\n"
        )
    };
    let flood = |count: u32| format!("[quotas.flood]\ncount = {count}\nper = 'second'\n");
    let by_flood = "quotas = ['flood']";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.toml");
    let write = |text: String| std::fs::write(&path, text).unwrap();
    write(document(&flood(10), by_flood));
    let (_, live) = Config::read(&path).unwrap().assemble().await.unwrap();
    let heard = Captured::new();
    let _hears = AuditLayer::new(heard.clone());
    // The events of other tests are heard as well.
    let told = || -> Vec<Vec<(String, String)>> {
        let mine = heard.entries().into_iter().filter_map(|entry| match entry {
            AuditEntry::Event(event) if *event.about() == *path.display().to_string() => Some(event),
            _ => None,
        });
        mine.map(|event| {
            assert_eq!(event.kind(), EventKind::LimitsChanged);
            event.details().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
        })
        .collect()
    };
    let detail = |name: &str, value: &str| (name.to_owned(), value.to_owned());

    live.reload().unwrap();
    write(document(&flood(10).replace("10", "1_0 # as it was"), by_flood));
    live.reload().unwrap();
    write(document(&flood(0), by_flood));
    assert!(live.reload().is_err());
    write(document(&flood(99), by_flood).replace("api.", "www."));
    assert!(live.reload().is_err());
    assert!(told().is_empty(), "nothing was taken over that says something else");

    write(document(&flood(20), by_flood));
    live.reload().unwrap();
    live.reload().unwrap();
    let grown = r#"flood: {"count":10,"per":"second"} -> {"count":20,"per":"second"}"#;
    assert_eq!(told(), [vec![detail("changes", "1"), detail("quotas", grown)]], "once");

    let other = "[quotas.other]\ncount = 5\nper = 'minute'\n[plans.gold]\nquotas = ['other']\n";
    live.apply(&Config::from_toml(&document(other, "quotas = ['other']\nplans = ['gold']")).unwrap()).unwrap();
    assert_eq!(told().len(), 1, "a text is no file");
    write(document(&flood(20), by_flood));
    live.reload().unwrap();
    let back = [
        detail("changes", "5"),
        detail("quotas", r#"flood: none -> {"count":20,"per":"second"}"#),
        detail("quotas", r#"other: {"count":5,"per":"minute"} -> none"#),
        detail("plans", r#"gold: {"quotas":["other"]} -> none"#),
        detail("limits", r#"principal.quotas: ["other"] -> ["flood"]"#),
        detail("limits", r#"principal.plans: ["gold"] -> none"#),
    ];
    assert_eq!(told()[1], back, "against what was taken over last");

    let one = |n: u32| format!("[quotas.q{n}]\ncount = 1\nper = 'day'\n[plans.p{n}]\nquotas = ['q{n}']\n");
    let names: Vec<String> = (0..20).map(|n| format!("'p{n}'")).collect();
    let by_many = format!("{by_flood}\nplans = [{}]", names.join(", "));
    write(document(&format!("{}{}", flood(20), (0..20).map(one).collect::<String>()), &by_many));
    live.reload().unwrap();
    let event = &told()[2];
    assert_eq!((event.len(), &event[0]), (8, &detail("changes", "41")), "the rest is counted");
}

#[test]
fn the_schema_in_docs_is_that_of_the_document() {
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.schema.json"));
    let kept: serde_json::Value = serde_json::from_str(&kept.unwrap()).unwrap();
    assert_eq!(kept, Config::schema(), "run: cargo run --features full --example check_config -- --schema");
}

/// What a validator that is not ours says: `None` if the document fits the schema.
fn validated(document: &str) -> Option<String> {
    use std::{io::Write, process::Stdio};

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document: serde_json::Value = toml::from_str(document).unwrap();
    let mut python = std::process::Command::new(root.join("target/interop/python/bin/python"))
        .arg(root.join("tests/interop/python/validate.py"))
        .arg(root.join("docs/configuration.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator itself failed");
    Some(String::from_utf8(output.stdout).unwrap()).filter(|problem| !problem.is_empty())
}

#[tokio::test]
#[ignore = "needs the Python packages that tests/run installs"]
async fn a_schema_validator_takes_what_is_good_and_nothing_else() {
    let example = std::fs::read_to_string("examples/config/app.toml").unwrap();
    let document = Files::new().await.document(6);
    for good in [&example, &document] {
        assert_eq!(validated(good), None, "{good}");
    }
    for (wrong, part) in [
        (example.replace("[proxies]", "[proxy]"), "proxy"),
        (example.replace("watch = \"5s\"", "watch = 5"), "5 is not of type"),
        (example.replace("count = 600", "count = \"many\""), "many"),
        (example.replace("family = \"x-forwarded\"", "family = \"all\""), "all"),
        (example.replace("sink = \"tracing\"", ""), "sink"),
    ] {
        assert_ne!(wrong, example);
        let problem = validated(&wrong).unwrap_or_else(|| String::from("nothing"));
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

#[test]
fn the_example_is_in_order() {
    // Tests run where the package is, which its paths are relative to.
    Config::read("examples/config/app.toml").and_then(|config| config.check()).unwrap();
}

/// An address is read when the document is checked, and again when its store is opened. What is gone by then stops the start: without a
/// word there would be no authenticator of API keys.
#[cfg(unix)]
#[tokio::test]
async fn an_address_that_goes_missing_meanwhile_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("address");
    // Whoever opens one end waits for the other: it is read once, and has no name any more by then.
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap();
    assert!(made.success());
    let end = path.clone();
    let once = std::thread::spawn(move || {
        let mut end = std::fs::OpenOptions::new().write(true).open(&end).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::io::Write::write_all(&mut end, b"postgres://orders@127.0.0.1:1/orders").unwrap();
    });
    let document = format!(
        "[tls]\n[api_keys]\nstore = 'postgres'\naddress = {{ file = '{}' }}\n[routes]\n'GET /' = 'public'\n",
        dir.path().join("address").display()
    );
    let problems = Config::from_toml(&document).unwrap().builder().await.err().unwrap();
    once.join().unwrap();
    let told: Vec<_> = problems.iter().map(|problem| (problem.line(), problem.field())).collect();
    assert_eq!(told, [(Some(4), "api_keys.address")], "{problems}");
    assert!(problems.to_string().contains("cannot be read"), "{problems}");
}

#[tokio::test]
async fn debug_shows_where_secrets_are_and_not_what() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pepper");
    std::fs::write(&path, "hunter2-hunter2-hunter2-hunter2-hunter2\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    let config = Config::from_toml(&format!(
        "# hunter2 was here\n[tls]\n[[issuers]]\nissuer = 'https://id.example.com'\naudience = 'a'\nalgorithms = ['ES256']\n\
         keys = {{ url = 'https://k.example/jwks?code=hunter2' }}\n[api_keys]\nstore = 'sqlite'\npath = '{}'\n\
         peppers = [{{ id = 'a', secret = {{ file = '{}' }} }}]\n",
        dir.path().join("keys.db").display(),
        path.display()
    ))
    .unwrap();
    config.check().unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("pepper") && shown.contains("https://k.example/jwks"), "{shown}");
    let (_, live) = config.assemble().await.unwrap();
    let shown = format!("{shown}{live:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
