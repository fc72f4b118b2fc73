//! A stack as data: issuers, key stores, policy, quotas, proxies and sinks in a TOML document; code composes the rest.
//!
//! ```
//! use portcullis::config::Config;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_toml(r#"
//!     [tls]
//!     hosts = ["api.example.com"]
//!
//!     [quotas.flood]
//!     count = 1_000
//!     per = "second"
//!
//!     [[limits]]
//!     by = "client"
//!     quotas = ["flood"]
//!
//!     [routes]
//!     "GET /health" = "public"
//! "#)?;
//! let warnings = config.check()?; // all that is wrong, each with line, field and what to change
//! assert!(warnings.is_empty());
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let stack = config.builder().await?.no_store().build()?;
//! # let _ = stack;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! The document is strict: a field that is not known is an error, and so is a section whose feature is off. Secrets stand in
//! the environment or in files of their own, never in the document. The manual's page
#![cfg_attr(feature = "full", doc = "[on configuration](crate::manual::configuration)")]
#![cfg_attr(not(feature = "full"), doc = "on configuration")]
//! lists the sections, and says what can be changed without a restart.

mod api_keys;
mod document;
mod issuers;
mod jwt;
#[cfg(feature = "jwt-remote")]
mod keys;
mod limits;
mod live;
mod paths;
mod policy;
mod problem;
mod secret;
mod sinks;
#[cfg(feature = "jwt-remote")]
mod tokens;
mod transport;
mod tree;
mod value;

use std::{fmt, path::Path, sync::Arc};

pub use live::LiveConfig;
pub use problem::{Problem, Problems};

use crate::{
    authn::{Authenticator, one_of},
    config::{
        document::Document,
        live::Handles,
        problem::{Report, Sheet},
        tree::At,
    },
    guard::RuleNames,
    stack::{Stack, StackBuilder},
};

/// The longest document, in bytes.
const MAX_LEN: usize = 4 * 1024 * 1024;

/// A stack as a document. See the [module docs](self) for an example.
pub struct Config {
    sheet: Sheet,
    document: Document,
    names: RuleNames,
    authenticators: Vec<Box<dyn Authenticator>>,
    jwt: jwt::Additions,
}

impl Config {
    /// Reads a document.
    ///
    /// # Errors
    /// All mistakes of form, and what [`check`](Self::check) finds in the rest, but for names in the rules of routes, which code
    /// may add. A document without mistakes of form is not checked further here.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        Self::from_sheet(Sheet { file: "configuration".into(), text: text.into(), is_file: false })
    }

    /// Reads a document from a file. This blocks: call it at start. Paths in it are relative to the working directory of the
    /// process.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), with the file named; or if the file cannot be read or has more than 4 MiB.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Problems> {
        let path = path.as_ref();
        let file: Arc<str> = path.display().to_string().into();
        match crate::policy::read_file("configuration", path, MAX_LEN) {
            Ok(source) => Self::from_sheet(Sheet { file, text: source.text.into(), is_file: true }),
            Err(error) => {
                let sheet = Sheet { file, text: "".into(), is_file: true };
                let mut report = Report::new(&sheet);
                let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
                report.add(None, "document", "the file", format!("{}{cause}", error.problem()));
                Err(report.finish().err().unwrap_or_else(Problems::none))
            }
        }
    }

    fn from_sheet(sheet: Sheet) -> Result<Self, Problems> {
        let copy = sheet.clone();
        let mut report = Report::new(&copy);
        let document: Option<Document> = tree::read(&mut report);
        let config = Self {
            sheet,
            document: document.unwrap_or_default(),
            names: RuleNames::new(),
            authenticators: Vec::new(),
            jwt: jwt::Additions::default(),
        };
        if !report.is_clean() {
            config.prepare(&mut report);
        }
        report.finish()?;
        Ok(config)
    }

    /// Says what the names in the rules of routes stand for, besides permissions and roles: conditions and resources of your
    /// own.
    #[must_use]
    pub fn with_names(mut self, names: RuleNames) -> Self {
        self.names = names;
        self
    }

    /// Takes credentials of another kind as well, by an authenticator of your own; a request has one credential.
    #[must_use]
    pub fn with_authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push(Box::new(authenticator));
        self
    }

    /// Says of the authenticator of the document's issuers what the document cannot: revocations, proofs of possession, cookies. It is
    /// called each time the document is looked at, after what the document says; so make stores outside, and hand in clones.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use portcullis::{config::Config, revocation::MemoryRevocations};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let revocations = Arc::new(MemoryRevocations::new());
    /// let store = Arc::clone(&revocations); // `revocations` is for RevocationAdmin
    /// let config = Config::read("app.toml")?.with_jwt(move |jwt| jwt.revocations(Arc::clone(&store)));
    /// # let _ = config;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is wrong with it is told by [`check`](Self::check), at the section `jwt`; so is a document without `[[issuers]]`, whose
    /// tokens nobody would ask about.
    #[cfg(feature = "jwt-remote")]
    #[must_use]
    pub fn with_jwt(
        mut self,
        add: impl Fn(crate::jwt::JwtAuthenticatorBuilder) -> crate::jwt::JwtAuthenticatorBuilder + Send + Sync + 'static,
    ) -> Self {
        self.jwt.add(add);
        self
    }

    /// Looks for all that is wrong: it reads the secrets, the policy, the rules of routes and the key files, and connects to
    /// nothing. This blocks: call it at start, or in a program that checks a file before it is rolled out.
    ///
    /// A document that is accepted may still not be what was meant. What says so is given back, by line, and empty mostly: issuers that may
    /// assert each other's tenants, and API keys without a pepper. A service that starts says it in the log.
    ///
    /// # Errors
    /// Everything that is wrong, by line.
    pub fn check(&self) -> Result<Vec<Problem>, Problems> {
        let mut report = Report::new(&self.sheet);
        self.prepare(&mut report);
        let warnings = report.warnings();
        report.finish()?;
        Ok(warnings)
    }

    /// Opens the stores and sinks, and gives a builder for what code adds. For the parts that can be changed while requests
    /// run, see [`assemble`](Self::assemble).
    ///
    /// # Errors
    /// As [`check`](Self::check), or if a store or sink cannot be opened.
    pub async fn builder(self) -> Result<StackBuilder, Problems> {
        Ok(self.assemble().await?.0)
    }

    /// As [`builder`](Self::builder), with a handle on what can be changed while requests run. It must run inside a tokio
    /// runtime if files are watched or a store needs one.
    ///
    /// # Errors
    /// As [`builder`](Self::builder).
    pub async fn assemble(self) -> Result<(StackBuilder, LiveConfig), Problems> {
        let sheet = self.sheet.clone();
        let mut report = Report::new(&sheet);
        let prepared = self.prepare(&mut report);
        report.finish()?;

        let mut report = Report::new(&sheet);
        let mut stack = Stack::builder();
        let mut authenticators = self.authenticators;
        #[allow(unused_mut, reason = "without tokens and keys there is nothing to hold")]
        let mut handles = Handles::default();
        if let Some(jwt) = prepared.tokens {
            #[cfg(feature = "jwt-remote")]
            handles.jwt.replace(jwt.clone());
            authenticators.push(Box::new(jwt));
        }
        if let Some(written) = &self.document.api_keys
            && let Some(keys) = api_keys::open(written, &mut report).await
        {
            #[cfg(feature = "api-key")]
            handles.key_issuer.replace(keys.issuer());
            authenticators.push(Box::new(keys));
        }
        if authenticators.len() > 1 {
            stack = stack.authenticate(one_of(authenticators));
        } else if let Some(authenticator) = authenticators.pop() {
            // One alone has nothing to tell apart, and `one_of` says so at no cost.
            stack = stack.authenticate(one_of(vec![authenticator]));
        }
        if let Some(audit) = self.document.audit.as_ref().and_then(|audit| sinks::open(audit, &mut report)) {
            stack = stack.audit(audit);
        }
        if prepared.plain_http {
            stack = stack.dangerous_plain_http();
        }
        if let Some(tls) = prepared.tls {
            stack = stack.tls(tls);
        }
        if let Some(proxies) = prepared.proxies {
            stack = stack.proxies(proxies);
        }
        if self.document.no_store {
            stack = stack.no_store();
        }
        if let Some(budget) = prepared.failure_budget {
            stack = stack.failure_budget(budget);
        }
        let mut plans = Vec::new();
        for limit in prepared.limits {
            plans.push(limit.plans);
            stack = stack.limit(limit.layer);
        }
        stack = policy::add(stack, &self.document, &prepared.policy, &mut report);
        let mut routes_file = None;
        if let Some(routes) = prepared.routes {
            stack = stack.routes(routes.rules);
            routes_file = routes.text;
        }
        report.finish()?;
        Ok((stack, LiveConfig::new(sheet, routes_file, plans, prepared.policy, handles)))
    }

    /// The JSON Schema of the document (draft 2020-12), for editors and checks outside of a program. It tells forms; what
    /// [`check`](Self::check) finds besides, it cannot tell.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Document).to_value()
    }

    /// Makes all that can be made without opening stores and sinks.
    fn prepare(&self, report: &mut Report<'_>) -> Prepared {
        let document = &self.document;
        // Mistakes of form are told before code could tell the names in the rules.
        let names = if report.is_clean() { self.names.clone() } else { self.names.clone().unfinished() };
        let policy = policy::read(document, report);
        if let Some(keys) = &document.api_keys {
            api_keys::check(keys, report);
        }
        if let Some(audit) = &document.audit {
            sinks::check(audit, report);
        }
        let shared = limits::shared(document, report);
        let prepared = Prepared {
            tls: document.tls.as_ref().and_then(|tls| transport::tls(tls, report)),
            plain_http: document.dangerous_plain_http.as_ref().is_some_and(|plain| plain.value),
            proxies: document.proxies.as_ref().and_then(|proxies| transport::proxies(proxies, report)),
            tokens: issuers::read(document, &self.jwt, report),
            limits: limits::read(document, &shared, report),
            failure_budget: limits::failure_budget(document, report),
            routes: policy::routes(document, names, &policy, report),
            policy,
        };
        self.check_whole(report);
        prepared
    }

    /// What a builder would refuse, told with its line.
    fn check_whole(&self, report: &mut Report<'_>) {
        let document = &self.document;
        let plain = document.dangerous_plain_http.as_ref().filter(|plain| plain.value);
        if let (Some(plain), Some(_)) = (plain, &document.tls) {
            report.add(plain.at, "dangerous_plain_http", "true", "contradicts [tls]: remove one of them");
        }
        let credentials = document.issuers.first().map(|issuer| (issuer.at, "issuers"));
        let credentials = credentials.or_else(|| document.api_keys.as_ref().map(|keys| (keys.at, "api_keys")));
        let is_said = plain.is_some() || report.took_from("tls") || report.took_from("dangerous_plain_http");
        if let (Some((at, field)), false, None) = (credentials, is_said, &document.tls) {
            let advice = "are taken over plain HTTP: add a [tls] section, or say dangerous_plain_http = true";
            report.add(at, field, "credentials", advice);
        }
        transport::check_fields(document, report);
        paths::check(document, report);
    }
}

/// What is made of a document so far.
struct Prepared {
    tls: Option<crate::tls::TlsLayer>,
    plain_http: bool,
    proxies: Option<crate::evidence::TrustedProxies>,
    tokens: Option<jwt::Made>,
    limits: Vec<limits::Made>,
    failure_budget: Option<crate::rate_limit::FailureBudget>,
    policy: policy::Held,
    routes: Option<policy::Routes>,
}

/// Notes that a section is there and its feature is not.
#[allow(dead_code, reason = "with all features nothing is off")]
fn feature_is_off(at: usize, field: &str, feature: &str, report: &mut Report<'_>) {
    let advice =
        format!("is there, and this program is built without it: enable the feature `{feature}` of portcullis");
    report.add(at, field, "the section", advice);
}

/// The value, or a note that it is needed here.
fn needed<'a, T>(
    value: Option<&'a At<T>>,
    at: usize,
    field: &str,
    by: &str,
    report: &mut Report<'_>,
) -> Option<&'a At<T>> {
    if value.is_none() {
        let name = field.rsplit('.').next().unwrap_or(field);
        report.missing(at, field.to_owned(), format!("is there, and {by} needs it: add {name} = .."));
    }
    value
}

/// The word that says of which kind a section is, or a note that it is needed.
fn needed_word<T>(word: Option<T>, at: usize, field: &str, report: &mut Report<'_>) -> Option<T> {
    if word.is_none() {
        let name = field.rsplit('.').next().unwrap_or(field);
        report.missing(at, field.to_owned(), format!("is there: add {name} = .."));
    }
    word
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("file", &self.sheet.file)
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}
