//! A table of mistakes in configuration files: each is told with its line, its field, and what to change.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "config_mistakes/several.rs"]
mod several;

use portcullis::{
    api_key::FileKeyStore,
    config::{Config, Problems},
};

/// The mistakes of a document. `@` stands for a directory with a policy, a secret and a bad policy in it.
fn problems(text: &str, dir: &tempfile::TempDir) -> Problems {
    let text = text.replace('@', dir.path().to_str().unwrap());
    match Config::from_toml(&text).and_then(|config| config.check()) {
        Err(problems) => problems,
        Ok(_) => panic!("is accepted: {text}"),
    }
}

fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("policy.toml", "version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['orders:read']\n");
    write("bad.toml", "version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['orders:raed']\n");
    write("lines.toml", "[routes]\n'GET /a' = 'public'\n'get /b' = 'public'\n");
    write("keys.json", "{}");
    FileKeyStore::create(dir.path().join("keys.toml")).unwrap();
    write("db", "nonsense hunter2");
    write("empty", "\n");
    write("short", "too short\n");
    write("redis", "redis://limits:secret@redis.internal");
    write("open", "0123456789012345678901234567890123456789");
    std::fs::write(dir.path().join("latin"), b"redis://:caf\xe9@127.0.0.1").unwrap();
    #[cfg(unix)]
    for (name, mode) in
        [("db", 0o600), ("latin", 0o600), ("empty", 0o600), ("short", 0o600), ("redis", 0o600), ("open", 0o644)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

const ISSUER: &str =
    "[tls]\n[[issuers]]\nissuer = 'https://id.example.com'\naudience = 'orders'\nalgorithms = ['ES256']\n";
const QUOTA: &str = "[quotas.flood]\ncount = 9\nper = 'second'\n";
const KEYS: &str = "[tls]\n[api_keys]\nstore = 'file'\npath = '@/keys.toml'\n";
const REDIS: &str = "[redis]\naddress = { file = '@/redis' }\ndangerous_plain_tcp = true\n";

/// What stands before, the mistake, the line in the whole, the field, and part of the advice.
const MISTAKES: &[(&str, &str, usize, &str, &str)] = &[
    (
        "[tls]\n",
        "[[issuers]]\nprovider = 'google'\nclients = ['c']\ndomain = 'example.com'",
        5,
        "issuers[0].domain",
        "is of auth0",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nprovider = 'kubernetes'\nissuer = 'https://k.example'\naudience = 'a'\nnamespaces = ['payments']",
        6,
        "issuers[0].namespaces",
        "is of gitlab-ci",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\naudience = 'a'\nalgorithms = ['ES256']\nclients = ['web']",
        6,
        "issuers[0].clients",
        "claims = { client_id = [..] }",
    ),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\n[redis]\naddress = { file = '@/redis' }",
        7,
        "redis",
        "is used by no limit",
    ),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\nshadow_until = '2999-01-01'",
        7,
        "limits[0].shadow_until",
        "at most 30 days ahead",
    ),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\nshadow_until = 'soon'",
        7,
        "limits[0].shadow_until",
        "must be a day",
    ),
    ("", "[routes]\n'GET /' = { role = 'clerk', shadow_until = '2999-01-01' }", 2, "routes", "at most 30 days ahead"),
    ("", "[tsl]", 1, "tsl", "did you mean \"tls\"?"),
    ("", "[tls]\nhost = ['a.example']", 2, "tls.host", "did you mean \"hosts\" or"),
    ("", "[tls]\nhosts = 'a.example'", 2, "tls.hosts", "must be a sequence"),
    ("", "[tls]\nhosts = []", 2, "tls.hosts", "must"),
    ("", "[tls]\nhsts = true", 2, "tls.hsts", "it must be a table"),
    ("", "[tls]\nexempt = ['/health']", 2, "tls.exempt[0]", "must be one method in upper case and a path"),
    ("", "[tls]\nexempt = ['GET /a', 'ANY /health']", 2, "tls.exempt[1]", "as in \"GET /health\""),
    ("", "[tls]\nexempt = ['get /health']", 2, "tls.exempt[0]", "upper case"),
    ("", "[tls]\nminimum_version = '1.1'", 2, "tls.minimum_version", "is none of 1.2, 1.3"),
    ("", "[tls]\nhsts = { max_age = 3600 }", 2, "tls.hsts.max_age", "as in \"60s\""),
    ("", "[tls]\nhsts = { max_age = '1 year' }", 2, "tls.hsts.max_age", "ms, s, min, h or d"),
    ("", "[tls]\nhsts = { max_age = '1d', preload = true }", 2, "tls.hsts", ""),
    ("dangerous_plain_http = true\n", "[tls]", 1, "dangerous_plain_http", "remove one of them"),
    ("", "[proxies]\nfamily = 'x-forwarded'\nnetworks = ['0.0.0.0/0']", 3, "proxies.networks", "wide"),
    ("", "[proxies]\nfamily = 'forwarded'", 1, "proxies.networks", "must name a proxy"),
    ("", "[proxies]\nnetworks = ['10.0.0.7']", 1, "proxies.family", "add family = .."),
    ("", "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']", 1, "proxies.header", "add header = .."),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'X-Forwarded-For'",
        4,
        "proxies.header",
        "is not a field with one address",
    ),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.0/8']\nheader = 'X-Real-Ip'",
        3,
        "proxies.networks",
        "wide",
    ),
    (ISSUER, "keys = { trust_for = '30d' }", 6, "issuers[0].keys.trust_for", "above 7 days"),
    (ISSUER, "[issuers.keys]\nurl = 'https://a.example/k'\nfresh_for = '0s'", 8, "issuers[0].keys.fresh_for", "1 s"),
    (
        ISSUER,
        "[issuers.keys]\nallow_hosts = [\n'b.example',\n'https://x']",
        9,
        "issuers[0].keys.allow_hosts[1]",
        "is not a host name",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nprovider = 'entra'\naudience = 'a'\n\
         tenants = ['11111111-2222-4333-8444-555555555555', '21111111-2222-4333-8444-555555555555']\n\
         [[issuers]]\nprovider = 'entra'\naudience = 'b'\ntenants = ['21111111-2222-4333-8444-555555555555']",
        9,
        "issuers[1].tenants",
        "stands in issuers[0] as well",
    ),
    (ISSUER, "[jwt]\nrealm = 'a\"b'", 7, "jwt.realm", "without quotes"),
    (ISSUER, "[jwt]\nheaders = [\n'x-token',\n'x-token']", 9, "jwt.headers[1]", "stands twice"),
    (ISSUER, "[jwt.cache]\nmax_entries = 0", 7, "jwt.cache.max_entries", "is not 1 to"),
    (ISSUER, "[jwt.cache]\nmax_bytes = 0", 7, "jwt.cache.max_bytes", "leaves no room"),
    (ISSUER, "[jwt]\nleeway = '300500ms'", 7, "jwt.leeway", "at most 300s"),
    (ISSUER, "[plans]\ngold = [['flood']]", 7, "plans.gold", "must be a table"),
    (REDIS, "timeout = '1min'", 4, "redis.timeout", "is not 1 ms to 10 s"),
    (REDIS, "prefix = '{'", 4, "redis.prefix", "without braces"),
    (REDIS, "share_percent = 0", 4, "redis.share_percent", "is not 1 to 100 %"),
    ("", "[proxies]\nfamily = 'forwarded'\nnetworks = ['10.0.0.7']\nhops = 0", 4, "proxies.hops", "1 to 64"),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\nalgorithms = ['ES256']",
        2,
        "issuers[0].audience",
        "add audience",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\naudiance = 'a'",
        4,
        "issuers[0].audiance",
        "did you mean \"audience\"",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'http://a.example'\naudience = 'a'\nalgorithms = ['ES256']",
        3,
        "issuers[0].issuer",
        "https",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\naudience = ''\nalgorithms = ['ES256']",
        4,
        "issuers[0].audience",
        "must not be empty",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\naudience = 'a'",
        2,
        "issuers[0].algorithms",
        "add algorithms = [\"ES256\"]",
    ),
    (
        "[tls]\n",
        "[[issuers]]\nissuer = 'https://a.example'\naudience = 'a'\nalgorithms = ['ES265']",
        5,
        "issuers[0].algorithms[0]",
        "did you mean \"ES256\"",
    ),
    ("[tls]\n", "[[issuers]]\nprovider = 'googel'", 3, "issuers[0].provider", "did you mean \"google\"?"),
    ("[tls]\n", "[[issuers]]\nprovider = 'google'", 3, "issuers[0].clients", "add clients = .."),
    (
        "[tls]\n",
        "[[issuers]]\nprovider = 'auth0'\ndomain = 'https://a.example'\naudience = 'a'",
        3,
        "issuers[0].provider",
        "",
    ),
    (ISSUER, "keys = { url = 'http://id.example.com/jwks' }", 6, "issuers[0].keys.url", "https"),
    (ISSUER, "keys = { file = '@/no.json' }", 6, "issuers[0].keys.file", "cannot be read"),
    (ISSUER, "keys = { file = '@' }", 6, "issuers[0].keys.file", "cannot be read"),
    (ISSUER, "keys = { file = '@/policy.toml' }", 6, "issuers[0].keys.file", "is not good"),
    (ISSUER, "keys = { file = '@/keys.json' }", 6, "issuers[0].keys.file", "is not good"),
    (ISSUER, "keys = { file = 'a', discover = true }", 6, "issuers[0].keys", "must say one place"),
    (ISSUER, "keys = { discover = false }", 6, "issuers[0].keys.discover", "says not where the keys are"),
    (
        ISSUER,
        "[[issuers]]\nissuer = 'https://id.example.com'\naudience = 'b'\nalgorithms = ['ES256']",
        7,
        "issuers[1].issuer",
        "stands in issuers[0] as well",
    ),
    (ISSUER, "[jwt]\nleeway = '10min'", 7, "jwt.leeway", "at most 300s"),
    (
        "",
        "[[issuers]]\nissuer = 'https://a.example'\naudience = 'a'\nalgorithms = ['ES256']",
        1,
        "issuers",
        "add a [tls] section",
    ),
    ("", "[tls]\n[api_keys]\nstore = 'file'", 2, "api_keys.path", "add path = .."),
    ("", "[tls]\n[api_keys]\nstore = 'file'\npath = '@/no.toml'", 4, "api_keys.path", "cannot be read"),
    ("", "[tls]\n[api_keys]\nstore = 'file'\npath = '@/policy.toml'", 4, "api_keys.path", "is not good"),
    ("", "[tls]\n[api_keys]\nstore = 'file'\npath = '@'", 4, "api_keys.path", "is not good"),
    (
        "",
        "[tls]\n[api_keys]\nstore = 'postgres'\naddress = { file = '@/db' }",
        4,
        "api_keys.address",
        "is no address of a PostgreSQL server",
    ),
    (
        "",
        "[tls]\n[api_keys]\nstore = 'sqlite'\npath = '@/no/keys.db'",
        4,
        "api_keys.path",
        "directory that is not there",
    ),
    (
        "",
        "[tls]\n[api_keys]\nstore = 'postgres'\naddress = 'postgres://u:hunter2@db/x'",
        4,
        "api_keys.address",
        "write { env = \"NAME\" }",
    ),
    (
        "",
        "[tls]\n[api_keys]\nstore = 'postgres'\naddress = { env = 'PORTCULLIS_NOT_SET' }",
        4,
        "api_keys.address",
        "is not set",
    ),
    ("", "[tls]\n[api_keys]\nstore = 'postgres'\naddress = { file = '@/empty' }", 4, "api_keys.address", "is empty"),
    (
        "",
        "[tls]\n[api_keys]\nstore = 'postgres'\naddress = { file = '@/latin' }",
        4,
        "api_keys.address",
        "is not UTF-8",
    ),
    ("", "[redis]\naddress = { file = '@/latin' }", 2, "redis.address", "is not UTF-8"),
    ("", "[tls]\n[api_keys]\nstore = 'postgres'\naddress = { }", 4, "api_keys.address", "must say one place"),
    (KEYS, "peppers = [{ id = 'a', secret = { file = '@/open' } }]", 5, "api_keys.peppers[0].secret", "chmod 0600"),
    (KEYS, "peppers = [{ id = 'a', secret = { file = '@/short' } }]", 5, "api_keys.peppers[0].secret", "32 bytes"),
    (KEYS, "peppers = ['hunter2']", 5, "api_keys.peppers[0]", ""),
    (KEYS, "peppers = []", 5, "api_keys.peppers", "at least one"),
    (KEYS, "accept_unpeppered = true", 5, "api_keys.accept_unpeppered", "there are none"),
    (
        KEYS,
        "peppers = [{ id = 'a', secret = { env = 'hunter2-hunter2-hunter2-hunter2-hunter2' } }]",
        5,
        "api_keys.peppers[0].secret",
        "no name of a variable",
    ),
    (
        KEYS,
        "peppers = [{ id = 'a', secret = 31415926535897932384626433832795 }]",
        5,
        "api_keys.peppers[0].secret",
        "write { env = \"NAME\" }",
    ),
    (KEYS, "peppers = [{ id = 'a', secret = 3.1415926e9 }]", 5, "api_keys.peppers[0].secret", "{ env = \"NAME\" }"),
    (KEYS, "peppers = [{ id = 'a', secret = { env = 31415926 } }]", 5, "api_keys.peppers[0].secret.env", "a string"),
    (KEYS, "peppers = [31415926]", 5, "api_keys.peppers[0]", ""),
    ("", "[redis]\naddress = { env = 'redis://hunter2.example' }", 2, "redis.address", "no name of a variable"),
    ("", "[redis]\naddress = { file = 'redis://db?password=hunter2' }", 2, "redis.address", "is no path"),
    ("", "[redis]\naddress = 31415926", 2, "redis.address", "write { env = \"NAME\" }"),
    (KEYS, "prefix = 'P'", 5, "api_keys.prefix", ""),
    (KEYS, "header = 'authorization'", 5, "api_keys.header", "carries something else"),
    ("", "[policy]\nfile = '@/no.toml'", 2, "policy.file", "cannot be read"),
    ("", "[policy]\nfile = '@/bad.toml'", 2, "policy.file", "did you mean \"orders:read\"?"),
    ("", "[policy]\nfile = 'policy.yaml'", 2, "policy.file", "must end in .toml or .json"),
    ("", "[policy]\nfile = '@/policy.toml'\nwatch = '10ms'", 3, "policy.watch", "at least 1s"),
    (
        "",
        "[policy]\nfile = '@/policy.toml'\n[routes]\n'GET /a' = { permission = 'orders:wirte' }",
        4,
        "routes",
        "orders:wirte",
    ),
    ("", "[routes]\n'GET /a' = 'public'\n'GET orders' = 'public'", 3, "routes", "starts with /"),
    ("", "[routes]\n'get /x' = 'public'\n'GET /a/:id' = 'public'", 2, "routes", "upper case"),
    ("", "[routes]\n'get /x' = 'public'\n'GET /a/:id' = 'public'", 3, "routes", "write a parameter as {id}"),
    (
        "",
        "[routes]\n'GET /a/{x}' = 'public'\n'GET /a/{y}' = 'deny'",
        3,
        "routes",
        "meets \"/a/{x}\", which takes the same paths",
    ),
    ("", "[routes]\n'GET /a' = 'public'\nfallback = 'deny'", 3, "routes.fallback", "move it before [routes]"),
    ("", "[routes]\n'GET /a' = { require = 'owner', resource = { type = 'order', id = '{id}' } }", 2, "routes", ""),
    ("", "routes_file = '@/lines.toml'", 1, "routes_file", "is not good: line 3: route: \"get /b\" must"),
    ("routes_file = 'a.toml'\n", "[routes]\n'GET /a' = 'public'", 1, "routes_file", "move all of them to one place"),
    ("", "[quotas.flood]\ncount = 0\nper = 'second'", 2, "quotas.flood.count", "at least 1"),
    ("", "[quotas.flood]\ncount = 9\nper = 'sec'", 3, "quotas.flood.per", "is none of second"),
    ("", "[quotas.flood]\ncount = 9\nper = 'second'\nburst = 0", 4, "quotas.flood.burst", "at least 1"),
    (QUOTA, "[[limits]]\nby = 'client'\nquotas = ['floods']", 6, "limits[0].quotas[0]", "did you mean \"flood\"?"),
    (
        QUOTA,
        "[[limits]]\nby = 'principal'\nquotas = ['flood']\nplans = ['gold']",
        7,
        "limits[0].plans[0]",
        "is no plan",
    ),
    (
        QUOTA,
        "[plans.gold]\nquotas = ['flood']\n[[limits]]\nby = 'principal'\nquotas = ['flood']",
        4,
        "plans.gold",
        "is named by no limit",
    ),
    (
        QUOTA,
        "[quotas.slow]\ncount = 1\nper = 'day'\n[[limits]]\nby = 'client'\nquotas = ['flood']",
        4,
        "quotas.slow",
        "is named by no limit, plan or failure budget",
    ),
    (QUOTA, "[[limits]]\nby = 'client'\nquotas = []", 6, "limits[0].quotas", "at least one"),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\nstore = 'redis'",
        7,
        "limits[0].store",
        "add a [redis] section",
    ),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\n[[limits]]\nby = 'client'\nquotas = ['flood']",
        7,
        "limits[1].name",
        "a name of its own",
    ),
    ("", "[redis]\naddress = { env = 'PORTCULLIS_NOT_SET' }", 2, "redis.address", "set it in the environment"),
    ("", "[redis]\naddress = { file = '@/redis' }", 1, "redis", "or say dangerous_plain_tcp"),
    ("", "[failure_budget]\nper_source = 'x'", 2, "failure_budget.per_source", "is no quota"),
    ("", "[audit]\nsink = 'json-lines'", 1, "audit.path", "add path = .."),
    ("", "[audit]\nsink = 'json-lines'\npath = '@/no/audit.jsonl'", 3, "audit.path", "directory that is not there"),
    ("", "[audit]\nsink = 'tracing'\npath = 'a'", 3, "audit.path", "remove it"),
    ("", "[audit]\nsink = 'tracing'\nwhen_full = 'wait'", 3, "audit.when_full", "remove it"),
    (KEYS, "migrate = false", 5, "api_keys.migrate", "remove it"),
    (
        QUOTA,
        "[[limits]]\nby = 'client'\nquotas = ['flood']\nplan_claim = 'plan'",
        7,
        "limits[0].plan_claim",
        "is never read",
    ),
    (
        ISSUER,
        "keys = { url = 'https://a.example/jwks', allow_hosts = ['b.example'] }",
        6,
        "issuers[0].keys.allow_hosts[0]",
        "remove it",
    ),
    (
        ISSUER,
        "keys = { file = '@/policy.toml', dangerous_http_on_loopback = true }",
        6,
        "issuers[0].keys.dangerous_http_on_loopback",
        "remove it",
    ),
    (
        ISSUER,
        "scope_claim = 'scope'\nscope_array_claim = 'scp'",
        7,
        "issuers[0].scope_array_claim",
        "remove one of them",
    ),
    (ISSUER, "[jwt]\ncache = { off = true, max_entries = 5 }", 7, "jwt.cache.max_entries", "it is off"),
    (ISSUER, "[jwt.cache]\noff = true\nmax_bytes = 5", 8, "jwt.cache.max_bytes", "it is off"),
    (ISSUER, "[jwt.cache]\noff = true\ndigest_keys = true", 8, "jwt.cache.digest_keys", "it is off"),
    ("", "[audit]\nsink = 'tracing'\ncapacity = 5", 3, "audit.capacity", "remove it"),
    (
        "[tls]\n",
        "[api_keys]\nstore = 'postgres'\naddress = { env = 'PORTCULLIS_NOT_SET' }\npath = 'a'",
        5,
        "api_keys.path",
        "is of the stores sqlite and file",
    ),
    (
        ISSUER,
        "keys = { file = '@/policy.toml', allow_hosts = ['a.example'] }",
        6,
        "issuers[0].keys.allow_hosts[0]",
        "remove it",
    ),
    ("", "[tls\n", 1, "document", "is not TOML"),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'Authorization'",
        4,
        "proxies.header",
        CARRIES,
    ),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'cookie'",
        4,
        "proxies.header",
        CARRIES,
    ),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'Proxy-Authorization'",
        4,
        "proxies.header",
        CARRIES,
    ),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'x-api-key'",
        4,
        "proxies.header",
        CARRIES,
    ),
    (
        "",
        "[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'x-real-ip'\nscheme_header = 'cookie'",
        5,
        "proxies.scheme_header",
        CARRIES,
    ),
    (
        KEYS,
        "header = 'X-Key'\n[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'x-key'",
        9,
        "proxies.header",
        "as api_keys.header says",
    ),
    (
        ISSUER,
        "[jwt]\nheaders = ['x-a', 'x-token']\n[proxies]\nfamily = 'address-header'\nnetworks = ['10.0.0.7']\nheader = 'X-Token'",
        11,
        "proxies.header",
        "as jwt.headers[1] says",
    ),
    (
        "",
        "[policy]\nfile = '@/policy.toml'\n[audit]\nsink = 'json-lines'\npath = '@/./policy.toml'",
        5,
        "audit.path",
        "is the file of policy.file as well",
    ),
    (KEYS, "[audit]\nsink = 'json-lines'\npath = '@/keys.toml'", 7, "audit.path", "is the file of api_keys.path"),
    (
        ISSUER,
        "keys = { file = '@/keys.json' }\n[audit]\nsink = 'json-lines'\npath = '@/keys.json'",
        9,
        "audit.path",
        "is the file of issuers[0].keys.file",
    ),
    (
        KEYS,
        "peppers = [{ id = 'a', secret = { file = '@/short' } }]\n[audit]\nsink = 'json-lines'\npath = '@/short'",
        8,
        "audit.path",
        "is the file of api_keys.peppers[0].secret",
    ),
    (
        "routes_file = '@/lines.toml'\n",
        "[audit]\nsink = 'json-lines'\npath = '@/lines.toml'",
        4,
        "audit.path",
        "is the file of routes_file",
    ),
    (
        "[tls]\n[api_keys]\nstore = 'sqlite'\npath = '@/new.db'\n",
        "[audit]\nsink = 'json-lines'\npath = '@/./new.db'",
        7,
        "audit.path",
        "is the file of api_keys.path",
    ),
    ("", "[audit]\nsink = 'json-lines'\npath = '@/a.jsonl'\ncapacity = 0", 4, "audit.capacity", "1 to 1000000"),
    ("", "[audit]\nsink = 'json-lines'\npath = '@/a.jsonl'\ncapacity = 1000001", 4, "audit.capacity", "1 to 1000000"),
    (ISSUER, "[jwt.cache]\nmax_bytes = 68719476737", 7, "jwt.cache.max_bytes", "is above 68719476736"),
    ("", "[policy]\nfile = '@/policy.toml'\nwatch = '25h'", 3, "policy.watch", "at most 1d"),
    (
        QUOTA,
        "[[limits]]\nby = 'principal'\nquotas = ['flood']\nplan_claim = ''",
        7,
        "limits[0].plan_claim",
        "must not be empty",
    ),
    (ISSUER, "roles_claim = ''", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "permissions_claim = ['a', '']", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "tenant_claim = []", 2, "issuers[0]", "has no name"),
    (ISSUER, "scope_claim = ''", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "scope_array_claim = ''", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "required = ['']", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "claims = { '' = ['a'] }", 2, "issuers[0]", "has an empty name"),
    (ISSUER, "may_lack = ['']", 2, "issuers[0]", ""),
    ("", "[tls]\nhsts = { max_age = '999ms' }", 2, "tls.hsts.max_age", "zero makes browsers forget the host"),
    ("", "[tls]\nhosts = ['a.example']\nredirect_to = ['b.example']", 3, "tls.redirect_to", "name it among the hosts"),
    (
        "",
        "[tls]\nhosts = ['*.a.example']\nredirect_to = ['a.example']",
        3,
        "tls.redirect_to",
        "name it among the hosts",
    ),
    ("", "[tls]\nhosts = ['a.example:443']\nredirect_to = ['a.example:8443']", 3, "tls.redirect_to", "with 421"),
];

const CARRIES: &str = "carries a credential";

/// Advice that leads into the next mistake is none.
#[test]
fn the_claim_that_is_advised_is_taken() {
    const CLIENTS: &str = "clients = ['web']";
    let (named, domain) = ("issuer = 'https://id.example/realms/a'\naudience = 'a'", "domain = 'a.example'");
    let okta = "issuer = 'https://id.example/oauth2/a'\naudience = 'a'";
    let tenants = "tenants = ['72f988bf-86f1-41af-91ab-2d7cd011db47']";
    let entra = format!("{tenants}\naudience = 'a'");
    let none = format!("{named}\nalgorithms = ['ES256']");
    let auth0 = format!("{domain}\naudience = 'a'");
    let rows = [
        ("", &*none, CLIENTS),
        ("", &none, tenants),
        ("entra", &entra, CLIENTS),
        ("entra-v1", &entra, CLIENTS),
        ("auth0", &auth0, CLIENTS),
        ("okta", okta, CLIENTS),
        ("keycloak", named, CLIENTS),
        ("google", CLIENTS, domain),
    ];
    let dir = files();
    for (provider, good, stray) in rows {
        let provider = if provider.is_empty() { String::new() } else { format!("provider = '{provider}'\n") };
        let good = format!("[tls]\n[[issuers]]\n{provider}{good}\n");
        let told = problems(&format!("{good}{stray}"), &dir);
        let claim = told.iter().find_map(|problem| {
            let (_, rest) = problem.advice().split_once("or say claims = { ")?;
            rest.split_once(" = [..] } instead").map(|(claim, _)| claim.to_owned())
        });
        let claim = claim.unwrap_or_else(|| panic!("no claim for {stray} of {good}: {told}"));
        let followed = format!("{good}claims = {{ {claim} = ['web'] }}");
        let checked = Config::from_toml(&followed).and_then(|config| config.check());
        assert!(checked.is_ok(), "{followed}: {checked:?}");
    }
}

#[test]
fn each_mistake_is_told_with_line_field_and_remedy() {
    assert!(MISTAKES.len() >= 30);
    let dir = files();
    let mut wrong = Vec::new();
    for (before, mistake, line, field, advice) in MISTAKES {
        let told = problems(&format!("{before}{mistake}"), &dir);
        let is = told.iter().any(|problem| {
            problem.line() == Some(*line) && problem.field() == *field && problem.advice().contains(advice)
        });
        if !is {
            wrong.push(format!("line {line}, {field}, {advice:?} of {mistake:?}:\n{told}"));
        }
        let shown = format!("{told} {told:?}");
        assert!(
            !["hunter2", "too short", "1415926"].iter().any(|secret| shown.contains(secret)),
            "a secret is shown: {shown}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
