//! The document as it is written. A word that a section must have is optional here: a wrong one is taken out, and the rest of its
//! section is looked at all the same.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

use crate::config::{
    secret::SecretRef,
    tree::At,
    value::{Time, Url},
};

type Texts = Vec<At<String>>;

/// A stack as a document.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Portcullis configuration")]
pub(super) struct Document {
    /// Leaves HTTPS unenforced: whoever can read the wire then has every credential.
    pub(super) dangerous_plain_http: Option<At<bool>>,
    /// HTTPS enforcement.
    pub(super) tls: Option<At<Tls>>,
    /// The proxies whose word about the client counts.
    pub(super) proxies: Option<At<Proxies>>,
    /// What holds for the tokens of all issuers.
    pub(super) jwt: Option<At<Jwt>>,
    /// Whose tokens are taken.
    pub(super) issuers: Vec<At<Issuer>>,
    /// API keys.
    pub(super) api_keys: Option<At<ApiKeys>>,
    /// Roles and permissions.
    pub(super) policy: Option<At<Policy>>,
    /// The table of routes, in a file of its own.
    pub(super) routes_file: Option<At<String>>,
    /// The table of routes: method and path template to rule.
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub(super) routes: Option<At<IgnoredAny>>,
    /// The rule of paths that the table does not name.
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) fallback: Option<At<IgnoredAny>>,
    /// Quotas by name.
    pub(super) quotas: BTreeMap<String, At<QuotaText>>,
    /// Plans by name: which quotas hold for those who are on one.
    pub(super) plans: BTreeMap<String, At<Plan>>,
    /// What is limited.
    pub(super) limits: Vec<At<Limit>>,
    /// The server that limits of `store = "redis"` are counted in.
    pub(super) redis: Option<At<Redis>>,
    /// How many bad credentials a source may send.
    pub(super) failure_budget: Option<At<FailureBudgetText>>,
    /// Where the audit records go.
    pub(super) audit: Option<At<Audit>>,
    /// Keeps responses to authenticated requests out of every cache.
    pub(super) no_store: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    /// Hosts that are answered for; others get 421. Default: every host.
    pub(super) hosts: Option<At<Vec<String>>>,
    /// Hosts that are redirected from plain HTTP; of `hosts`, if those are there. Default: none, plain HTTP is refused.
    pub(super) redirect_to: Option<At<Vec<String>>>,
    /// Methods and paths that pass over plain HTTP without credentials, as in `GET /health`.
    pub(super) exempt: Texts,
    /// The oldest version that is taken, where this process terminates TLS.
    pub(super) minimum_version: Option<TlsVersionText>,
    /// Takes requests for another host than the one that the handshake named.
    pub(super) allow_any_server_name: bool,
    /// `Strict-Transport-Security`. Default: not sent.
    pub(super) hsts: Option<At<HstsText>>,
    /// Passes plain HTTP from loopback addresses, for development.
    pub(super) dangerous_plain_http_on_loopback: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum TlsVersionText {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HstsText {
    /// From 1 s; 0 s makes browsers forget the host.
    pub(super) max_age: At<Time>,
    #[serde(default)]
    pub(super) include_subdomains: bool,
    #[serde(default)]
    pub(super) preload: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Proxies {
    /// The one family of headers that they write.
    #[schemars(required, with = "FamilyText")]
    pub(super) family: Option<FamilyText>,
    /// Their addresses or networks.
    #[serde(default)]
    pub(super) networks: At<Vec<String>>,
    /// How many there are in a row, where their addresses change.
    pub(super) hops: Option<At<u8>>,
    /// The field with the client's address, of family `address-header`.
    pub(super) header: Option<At<String>>,
    /// The field with the scheme, of family `address-header`.
    pub(super) scheme_header: Option<At<String>>,
    /// Believes whoever connects through a Unix socket as well.
    #[serde(default)]
    pub(super) unix_sockets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FamilyText {
    XForwarded,
    Forwarded,
    AddressHeader,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Jwt {
    /// How far the issuers' clocks may be off. Default 60 s, at most 300 s.
    pub(super) leeway: Option<At<Time>>,
    /// The realm of the challenge. Default `api`.
    pub(super) realm: Option<At<String>>,
    /// Header fields that tokens are taken from as well.
    pub(super) headers: Texts,
    /// The cache of verified tokens.
    pub(super) cache: Option<At<Cache>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cache {
    /// Switches it off: each request pays for its signature check.
    pub(super) off: bool,
    pub(super) max_entries: Option<At<usize>>,
    pub(super) max_bytes: Option<At<usize>>,
    /// Keeps the digest of each token in place of the token.
    pub(super) digest_keys: At<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Issuer {
    /// The URL in `iss`, byte for byte. Also the realm at `keycloak`, the server at `okta`, the instance at `gitlab-ci`.
    pub(super) issuer: Option<At<String>>,
    /// The provider whose tokens these are; it says the kind of token, the claims and the algorithms.
    pub(super) provider: Option<At<ProviderText>>,
    /// Access tokens (RFC 9068), the default, or ID tokens; only without a provider.
    pub(super) tokens: Option<TokensText>,
    /// The audience, or for ID tokens the client.
    pub(super) audience: Option<At<String>>,
    /// Signature algorithms that are taken.
    pub(super) algorithms: Option<Texts>,
    /// Where the keys are. Default: where the issuer's metadata says (`discover`).
    pub(super) keys: Option<At<Keys>>,
    /// The clients of `google` and `cognito-*`.
    pub(super) clients: Option<At<Vec<String>>>,
    /// The tenants of `entra`.
    pub(super) tenants: Option<At<Vec<String>>>,
    /// The domain of `auth0`.
    pub(super) domain: Option<At<String>>,
    /// The user pool of `cognito-*`.
    pub(super) pool: Option<At<String>>,
    /// The project of `firebase`.
    pub(super) project: Option<At<String>>,
    /// The owners' ids of `github-actions`.
    pub(super) owners: Option<At<Vec<String>>>,
    /// The namespaces' ids of `gitlab-ci`.
    pub(super) namespaces: Option<At<Vec<String>>>,
    /// The claim with the roles: a name, or names that lead inwards.
    pub(super) roles_claim: Option<Path>,
    pub(super) permissions_claim: Option<Path>,
    pub(super) tenant_claim: Option<Path>,
    /// A string with spaces. Default `scope`.
    pub(super) scope_claim: Option<Path>,
    /// An array of scopes, in place of `scope_claim`.
    pub(super) scope_array_claim: Option<At<Path>>,
    /// Claims that must be there.
    pub(super) required: Vec<Path>,
    /// Claims that must have one of these values.
    pub(super) claims: BTreeMap<String, Vec<String>>,
    /// Claims of RFC 9068 that may lack: `client_id`, `iat`, `jti`.
    pub(super) may_lack: Vec<String>,
    /// Access tokens whose `typ` is `JWT` or absent are taken as well.
    pub(super) dangerous_untyped: bool,
    pub(super) max_lifetime: Option<Time>,
    pub(super) max_age: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ProviderText {
    Google,
    Entra,
    EntraV1,
    Auth0,
    Okta,
    CognitoAccess,
    CognitoId,
    Keycloak,
    Firebase,
    GithubActions,
    Kubernetes,
    GitlabCi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TokensText {
    Access,
    Id,
}

/// One of `discover`, `url` and `file`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    /// Asks the issuer's metadata.
    pub(super) discover: Option<At<bool>>,
    /// A JWK Set at this URL.
    pub(super) url: Option<At<Url>>,
    /// A JWK Set in this file; it is read again when it changes.
    pub(super) file: Option<At<String>>,
    /// Other hosts that the metadata may name.
    pub(super) allow_hosts: Texts,
    /// How long a set is fresh if its origin does not say. Default 10 min.
    pub(super) fresh_for: Option<At<Time>>,
    /// How long a set is trusted after its origin last confirmed it. Default 24 h.
    pub(super) trust_for: Option<At<Time>>,
    /// Takes `http` URLs of this machine, for tests and development.
    pub(super) dangerous_http_on_loopback: At<bool>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a name, or an array of names that lead inwards")]
pub(super) enum Path {
    Name(String),
    Inwards(Vec<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKeys {
    #[schemars(required, with = "StoreText")]
    pub(super) store: Option<StoreText>,
    /// The file of `sqlite` and `file`.
    pub(super) path: Option<At<String>>,
    /// The server of `postgres`, as `postgres://user:password@host/database`.
    pub(super) address: Option<At<SecretRef>>,
    /// How keys begin. Default `pc`.
    pub(super) prefix: Option<At<String>>,
    /// The one environment whose keys are taken.
    pub(super) environment: Option<At<String>>,
    /// The header field that keys come in. Default `X-API-Key`.
    pub(super) header: Option<At<String>>,
    pub(super) realm: Option<At<String>>,
    /// The store's name, the issuer of the principals. Default `api-keys`.
    pub(super) store_name: Option<At<String>>,
    /// The one tenant whose keys are taken.
    pub(super) tenant: Option<At<String>>,
    /// The current pepper first, then earlier ones.
    pub(super) peppers: Option<At<Vec<At<Pepper>>>>,
    /// Beside peppers, takes keys that were made before there was one.
    #[serde(default)]
    pub(super) accept_unpeppered: At<bool>,
    /// Makes or changes the tables of `sqlite` and `postgres` at start. Default: yes.
    pub(super) migrate: Option<At<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StoreText {
    Sqlite,
    Postgres,
    File,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pepper {
    pub(super) id: At<String>,
    /// At least 32 bytes.
    pub(super) secret: At<SecretRef>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// A policy in TOML or JSON, by the end of its name.
    pub(super) file: At<String>,
    /// How often the file is looked at, 1 s to 1 d. Default: never.
    pub(super) watch: Option<At<Time>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaText {
    /// How many requests.
    pub(super) count: At<u32>,
    #[schemars(required, with = "PeriodText")]
    pub(super) per: Option<PeriodText>,
    /// How many at once. Default: the count.
    pub(super) burst: Option<At<u32>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PeriodText {
    Second,
    Minute,
    Hour,
    Day,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Names of quotas.
    pub(super) quotas: At<Texts>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    #[schemars(required, with = "ByText")]
    pub(super) by: Option<ByText>,
    /// The scope in the store. Default: what `by` says.
    pub(super) name: Option<At<String>>,
    /// Names of quotas; with plans, of those who are on none.
    pub(super) quotas: At<Texts>,
    /// Names of plans.
    #[serde(default)]
    pub(super) plans: Texts,
    /// The claim that names the plan of a token. An API key has the plan of its record in either case.
    pub(super) plan_claim: Option<At<String>>,
    /// Where it is counted. Default: in memory.
    #[serde(default)]
    pub(super) store: At<CountedIn>,
    /// The day (`2026-12-24`, in UTC) until which it is tried out and refuses nothing: at most 30 days ahead.
    pub(super) shadow_until: Option<At<String>>,
    /// Sends no `RateLimit` fields.
    #[serde(default)]
    pub(super) without_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ByText {
    Client,
    Principal,
    Credential,
    Tenant,
    Route,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CountedIn {
    #[default]
    Memory,
    Redis,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redis {
    /// `rediss://host:port` over TLS, `redis://` on this machine, with `user:password@` before the host.
    pub(super) address: At<SecretRef>,
    /// Takes `redis://` to another machine: whoever can read the wire then has the password, whoever can write to it decides.
    #[serde(default)]
    pub(super) dangerous_plain_tcp: bool,
    /// How keys begin. Default `portcullis:`.
    pub(super) prefix: Option<At<String>>,
    /// How long a decision waits. Default 50 ms.
    pub(super) timeout: Option<At<Time>>,
    /// What decides while it is away. Default: this process.
    #[serde(default)]
    pub(super) when_away: AwayText,
    /// The share of each quota that this process decides by, in hundredths. Default 50.
    pub(super) share_percent: Option<At<u32>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AwayText {
    #[default]
    InProcess,
    Refuse,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FailureBudgetText {
    /// The name of a quota.
    pub(super) per_source: Option<At<String>>,
    /// The name of a quota, for one source and one key id.
    pub(super) per_key: Option<At<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    #[schemars(required, with = "SinkText")]
    pub(super) sink: Option<SinkText>,
    /// The file of `json-lines`.
    pub(super) path: Option<At<String>>,
    /// What happens while the queue is full. Default: wait.
    pub(super) when_full: Option<At<FullText>>,
    /// How many records may wait, 1 to 1 000 000. Default 10 000.
    pub(super) capacity: Option<At<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SinkText {
    JsonLines,
    Tracing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FullText {
    Wait,
    Discard,
}

impl From<&Path> for Vec<String> {
    fn from(path: &Path) -> Self {
        match path {
            Path::Name(name) => vec![name.clone()],
            Path::Inwards(names) => names.clone(),
        }
    }
}
