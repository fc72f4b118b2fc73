//! What code adds to a document: revocations for its issuers, and handles on what it made.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::{fmt::Write, sync::Arc, time::Duration};

use http::{Request, Response};
use portcullis::{
    Clock, Connection, Instants, SystemClock, TlsVersion,
    api_key::{ApiKeyAdmin, FileKeyStore, NewApiKey},
    config::Config,
    health::Health,
    revocation::{MemoryRevocations, Revocation, RevocationStore},
    stack::Stack,
    testing::TestIssuer,
};
use tower::{ServiceExt, service_fn};

const PEPPER: &str = "0123456789abcdef0123456789abcdef";

struct World {
    dir: tempfile::TempDir,
    issuer: TestIssuer,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), issuer: TestIssuer::new("orders-api") };
        std::fs::write(world.dir.path().join("jwks.json"), world.issuer.jwks()).unwrap();
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn issuers(&self) -> String {
        format!(
            "[tls]\n[[issuers]]\nissuer = '{}'\naudience = 'orders-api'\nalgorithms = ['ES256']\nkeys = {{ file = '{}' }}\n\
             [routes]\n'GET /orders' = 'authenticated'\n",
            self.issuer.name(),
            self.path("jwks.json")
        )
    }

    /// Its pepper stands in a file of its own.
    fn keys(&self) -> String {
        FileKeyStore::create(self.path("keys.toml")).unwrap();
        std::fs::write(self.path("pepper"), PEPPER).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(self.path("pepper"), private).unwrap();
        }
        format!(
            "[api_keys]\nstore = 'file'\npath = '{}'\nprefix = 'shop'\npeppers = [{{ id = 'a', secret = {{ file = '{}' }} }}]\n",
            self.path("keys.toml"),
            self.path("pepper")
        )
    }
}

async fn status(stack: &Stack, name: &str, value: &str) -> u16 {
    let app = service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new())));
    let mut request = Request::get("/orders").header(name, value).body(()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    stack.clone().protect(app).oneshot(request).await.unwrap().status().as_u16()
}

fn now() -> Instants {
    SystemClock::new().now()
}

#[tokio::test]
async fn tokens_of_a_documents_issuers_are_revoked() {
    let world = World::new();
    let revocations = Arc::new(MemoryRevocations::new());
    let store = Arc::clone(&revocations);
    let config = Config::from_toml(&world.issuers()).unwrap();
    let config = config.with_jwt(move |jwt| jwt.revocations(Arc::clone(&store)));
    config.check().unwrap();
    let (stack, live) = config.assemble().await.unwrap();
    let stack = stack.build().unwrap();
    let [alice, bob] =
        ["alice", "bob"].map(|subject| format!("Bearer {}", world.issuer.token().subject(subject).mint()));
    for token in [&alice, &bob] {
        assert_eq!(status(&stack, "authorization", token).await, 200);
    }
    let all = Revocation::subject(world.issuer.name(), "alice", now().unix_seconds()).unwrap();
    revocations.revoke(&all, now()).await.unwrap();
    assert_eq!(status(&stack, "authorization", &alice).await, 401, "a remembered token");
    assert_eq!(status(&stack, "authorization", &bob).await, 200);

    // Whoever watches the keys watches those that requests are asked with.
    let health = Health::new().watch_tokens(live.jwt().unwrap());
    assert!(health.look(now()).is_ready());
    assert!(live.key_issuer().is_none());
}

/// What nobody would ask must not look as if somebody did.
#[test]
fn what_code_says_of_tokens_is_checked_with_the_document() {
    let world = World::new();
    let told = |text: &str| {
        let config = Config::from_toml(text).unwrap().with_jwt(|jwt| jwt.revocations(MemoryRevocations::new()));
        config.check().map_err(|problems| problems.to_string())
    };
    assert_eq!(told(&world.issuers()), Ok(Vec::new()));
    let mut none = "[tls]\n[routes]\n'GET /orders' = 'authenticated'\n".to_owned();
    write!(none, "{}", world.keys()).unwrap();
    let refused = told(&none).unwrap_err();
    assert!(refused.contains("with_jwt") && refused.contains("[[issuers]]"), "{refused}");
    let config = Config::from_toml(&world.issuers()).unwrap().with_jwt(|jwt| jwt.leeway(Duration::from_secs(301)));
    let refused = config.check().unwrap_err().to_string();
    assert!(refused.contains("JWT leeway") || refused.contains("must be at most 300 s"), "{refused}");
}

/// Keys that an administration makes are of the document's form, and taken by its stack.
#[tokio::test]
async fn keys_are_made_as_the_document_says() {
    let world = World::new();
    let text = format!("[tls]\n{}[routes]\n'GET /orders' = 'authenticated'\n", world.keys());
    let (stack, live) = Config::from_toml(&text).unwrap().assemble().await.unwrap();
    let stack = stack.build().unwrap();
    let issuer = live.key_issuer().unwrap();
    assert!(!format!("{issuer:?}{live:?}").contains(PEPPER));
    assert!(live.jwt().is_none());
    let (key, record) = issuer.mint(NewApiKey::for_subject("billing"), now()).unwrap();
    assert!(key.expose().starts_with("shop_"));
    assert_eq!(record.scheme().to_string(), "hmac-sha256:a");
    let again = FileKeyStore::open(world.path("keys.toml")).unwrap();
    again.insert(record).await.unwrap();
    // The stack reads the file again when it has changed; until then a new start does.
    drop(stack);
    let stack = Config::from_toml(&text).unwrap().builder().await.unwrap().build().unwrap();
    assert_eq!(status(&stack, "x-api-key", key.expose()).await, 200);
}
