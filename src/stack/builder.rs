use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    audit::AuditLayer,
    authn::{Authenticator, AuthnLayer},
    clock::{Clock, SystemClock},
    context::Stage,
    credential::fields::holds_credentials,
    error::ConfigError,
    evidence::{EvidenceLayer, TrustedProxies},
    gate::Step,
    guard::{Rule, decides_by_roles, parameters_of},
    policy::PolicyBackend,
    problem::{NotFoundApart, ProblemDetails, RejectionRenderer},
    rate_limit::{self, ConcurrencyLayer, FailureBudget, Limits, RateLimitLayer},
    stack::{
        Stack,
        agreement::{check_actions, warn_of_like_names},
        patience::{self, Patience},
        stages::Stages,
        table::RouteTable,
    },
    tls::TlsLayer,
};
#[cfg(feature = "rbac")]
use crate::{
    guard::role_policy,
    policy::Rbac,
    stack::agreement::{AskedPolicy, check_handles},
};

/// Puts a [`Stack`] together. The calls may come in any order; [`build`](Self::build) checks the whole.
#[must_use]
#[derive(Debug, Default)]
pub struct StackBuilder {
    clock: Vec<Arc<dyn Clock>>,
    renderer: Vec<Arc<dyn RejectionRenderer>>,
    not_found: Vec<Arc<dyn RejectionRenderer>>,
    audit: Vec<AuditLayer>,
    proxies: Vec<TrustedProxies>,
    tls: Vec<TlsLayer>,
    plain_http: bool,
    client_limits: Vec<Result<RateLimitLayer, ConfigError>>,
    client_concurrency: Vec<ConcurrencyLayer>,
    principal_concurrency: Vec<ConcurrencyLayer>,
    authn: Vec<AuthnLayer>,
    no_store: bool,
    outlives: bool,
    failure_budget: Vec<FailureBudget>,
    patience: Vec<Duration>,
    principal_limits: Vec<Result<RateLimitLayer, ConfigError>>,
    policy: Vec<Arc<dyn PolicyBackend>>,
    by_roles: bool,
    #[cfg(feature = "rbac")]
    rbac: Option<Rbac>,
    #[cfg(feature = "rbac")]
    handles_ask_their_own: bool,
    lines: Vec<(String, Rule)>,
    fallback: Vec<Rule>,
}

impl Stack {
    /// Starts a stack.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }
}

impl StackBuilder {
    /// Believes these proxies about who is calling. Without it, the connection alone counts.
    pub fn proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies.push(proxies);
        self
    }

    /// Enforces HTTPS.
    pub fn tls(mut self, tls: TlsLayer) -> Self {
        self.tls.push(tls);
        self
    }

    /// Leaves HTTPS unenforced. Whoever can read the wire then has every credential.
    pub fn dangerous_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Records every request, once. The records are dated by the stack's [`clock`](Self::clock).
    pub fn audit(mut self, audit: AuditLayer) -> Self {
        self.audit.push(audit);
        self
    }

    /// Limits each client address, before any credential is looked at: a ceiling against floods, not a quota.
    pub fn limit_clients(mut self, limits: impl Into<Limits>) -> Self {
        self.client_limits.push(RateLimitLayer::per_client(limits));
        self
    }

    /// Limits each authenticated principal, by one quota or by its plan.
    pub fn limit_principals(mut self, limits: impl Into<Limits>) -> Self {
        self.principal_limits.push(RateLimitLayer::per_principal(limits));
        self
    }

    /// Adds a limit with a store or options of its own; it goes where it belongs: one that goes by an identity inside
    /// authentication, any other outside. There may be several on each side; they are asked in the order of the calls, and each
    /// needs a [scope](RateLimitLayer::with_scope) of its own. What an earlier one took stays taken if a later one refuses, so
    /// put the quotas that belong together into one limit.
    pub fn limit(mut self, limit: RateLimitLayer) -> Self {
        if limit.stage() == Stage::ClientLimit {
            self.client_limits.push(Ok(limit));
        } else {
            self.principal_limits.push(Ok(limit));
        }
        self
    }

    /// Limits how many requests run at the same time: one such limit that goes by an identity, and one that does not.
    pub fn limit_concurrency(mut self, limit: ConcurrencyLayer) -> Self {
        if limit.stage() == Stage::ClientLimit {
            self.client_concurrency.push(limit);
        } else {
            self.principal_concurrency.push(limit);
        }
        self
    }

    /// Refuses credentials of a source that had too many bad ones, unless they are known.
    pub fn failure_budget(mut self, budget: FailureBudget) -> Self {
        self.failure_budget.push(budget);
        self
    }

    /// How long a request may wait for its decisions, all stages together; then it is refused with `503`, and its record names the
    /// stage and, of a limit or a policy, the name. Above zero and at most 10 min; 30 s by default: the stores and policies of this
    /// crate give up earlier by themselves unless they are told otherwise, and a proxy in front commonly later, after 60 s. The longest
    /// wait of a limit that throttles is added for its stage. What the handler waits for does not count, its
    /// [`Authorizer`](crate::guard::Authorizer) included.
    ///
    /// An answer that is there at once needs no timer. It takes a tokio runtime with its timer; elsewhere the waiting has no end, which
    /// the log says once.
    ///
    /// # Cancel safety
    /// The part's future is dropped, as when a client hangs up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use portcullis::stack::Stack;
    ///
    /// let stack = Stack::builder().dangerous_plain_http().decide_within(Duration::from_secs(5)).build()?;
    /// # let _ = stack;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn decide_within(mut self, time: Duration) -> Self {
        self.patience.push(time);
        self
    }

    /// Authenticates. Several kinds of credential are combined with [`one_of`](crate::authn::one_of) or
    /// [`both`](crate::authn::both).
    pub fn authenticate(mut self, authenticator: impl Authenticator) -> Self {
        self.authn.push(AuthnLayer::new(authenticator).allow_anonymous());
        self
    }

    /// Keeps responses to authenticated requests out of every cache; see [`AuthnLayer::no_store`].
    pub fn no_store(mut self) -> Self {
        self.no_store = true;
        self
    }

    /// Lets streams go on that outlast the credential they were asked for with. By default answers of `text/event-stream` and
    /// `application/grpc` end when a request with the same credential would be refused: when it expires or is revoked, and while
    /// nobody can say whether it was; not when its provider revokes an opaque token. See [`lifetime`](crate::lifetime).
    pub fn dangerous_streams_outlive_credentials(mut self) -> Self {
        self.outlives = true;
        self
    }

    /// Asks this policy: for the rules that name one, and for the handler's [`Authorizer`](crate::guard::Authorizer).
    ///
    /// A permission or role handle asks the role policy that it comes from. If that is a part of this one, combined with others,
    /// cached or boxed, the rest would not be asked; so `build` takes handles of this very policy alone, unless
    /// [`handles_ask_their_own_policy`](Self::handles_ask_their_own_policy) is said.
    pub fn policy(mut self, policy: impl PolicyBackend) -> Self {
        #[cfg(feature = "rbac")]
        {
            self.rbac = role_policy(&policy).cloned();
        }
        self.by_roles = decides_by_roles(&policy);
        self.policy.push(Arc::new(policy));
        self
    }

    /// Takes lines with permission and role handles of another role policy than the [`policy`](Self::policy) that is asked on them, or
    /// of one that is a part of it. What such a line demands is then asked of the role policy alone: what the others deny, those that
    /// it is combined with for example, does not count there, and the handler's [`Authorizer`](crate::guard::Authorizer) may be denied
    /// what the line allows. Where the whole is to decide, write [`policy("orders:read")`](crate::guard::policy).
    #[cfg(feature = "rbac")]
    pub fn handles_ask_their_own_policy(mut self) -> Self {
        self.handles_ask_their_own = true;
        self
    }

    /// Adds a line to the route table: a method and a path template, as in `DELETE /orders/{id}`, and the rule that
    /// holds there.
    ///
    /// The method `ANY` stands for all of them except TRACE, which is always refused, and CONNECT, which a line must name (a
    /// WebSocket over HTTP/2, RFC 8441). HEAD is decided as GET.
    /// Templates are matched as axum matches them, on the raw path; `{*rest}` takes the rest of the path. A segment that
    /// starts with `:` or `*`, as parameters did before axum 0.8, is refused by [`build`](Self::build).
    pub fn route(mut self, line: impl Into<String>, rule: impl Into<Rule>) -> Self {
        self.lines.push((line.into(), rule.into()));
        self
    }

    /// Adds the lines of a table that was read from a file, and its fallback if it has one.
    #[cfg(feature = "policy-files")]
    pub fn routes(mut self, rules: crate::guard::RouteRules) -> Self {
        let (lines, fallback) = rules.into_parts();
        self.lines.extend(lines);
        self.fallback.extend(fallback);
        self
    }

    /// Sets the rule for every path that the table does not name, in another spelling either. Without it they are refused: `401`
    /// to the anonymous, `403` to others.
    pub fn fallback(mut self, rule: impl Into<Rule>) -> Self {
        self.fallback.push(rule.into());
        self
    }

    /// Writes the bodies of refusals; [`ProblemDetails`] by default.
    pub fn renderer(mut self, renderer: impl RejectionRenderer) -> Self {
        self.renderer.push(Arc::new(renderer));
        self
    }

    /// Writes the bodies of what is not there ([`NotFound`](crate::RejectionKind::NotFound)) as the application itself does:
    /// what a rule [hides](crate::guard::GuardLayer::hide) then looks the same.
    pub fn not_found(mut self, renderer: impl RejectionRenderer) -> Self {
        self.not_found.push(Arc::new(renderer));
        self
    }

    /// Tells the time; [`SystemClock`] by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock.push(Arc::new(clock));
        self
    }

    /// Checks the whole and builds the stack.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the setting, if
    /// - a stage stands twice, or two limits have one scope,
    /// - there is authentication without TLS enforcement, and nobody said
    ///   [`dangerous_plain_http`](Self::dangerous_plain_http), or both were said,
    /// - two authenticators of [`one_of`](crate::authn::one_of) refuse each other's credentials,
    /// - a rule, the policy or a limit per principal needs an identity and there is no authentication,
    /// - a rule asks a policy about an action that this does not [know](PolicyBackend::check_action),
    /// - a rule asks a policy and there is none, or has a permission or role handle of another policy than the one that is asked there,
    /// - the proxies' address, scheme or certificate stands in a header field that the authenticator reads, or that carries a
    ///   credential,
    /// - a limit counts by a header field that the authenticator reads,
    /// - the authenticator reads a header field that is removed from every request, because proxies write such ones and none is
    ///   trusted ([evidence](crate::evidence)),
    /// - audit shall record a header field that the authenticator reads, or hide a path parameter that no line has,
    /// - a line of the table does not parse, stands twice or contradicts another,
    /// - a rule is about a thing that the path of its line does not name,
    /// - a quota, or the time to [decide within](Self::decide_within), is not accepted.
    pub fn build(self) -> Result<Stack, ConfigError> {
        let table = RouteTable::new(self.lines, once("fallback", self.fallback)?)?;
        let tls = once("tls", self.tls)?;
        let client_limits = each("limit_clients", self.client_limits, &[])?;
        let principal_limits = each("limit_principals", self.principal_limits, &client_limits)?;
        let client_concurrency = once("limit_concurrency", self.client_concurrency)?;
        let principal_concurrency = once("limit_concurrency", self.principal_concurrency)?;
        let authn = once("authenticate", self.authn)?;
        let policy = once("policy", self.policy)?;
        let proxies = once("proxies", self.proxies)?.unwrap_or_else(TrustedProxies::none);

        let authn = match (authn, &tls, self.plain_http) {
            (_, Some(_), true) => {
                return Err(ConfigError::new("dangerous_plain_http", "true", "contradicts tls, which is set as well"));
            }
            (Some(_), None, false) => {
                let problem = "is set without tls: add .tls(TlsLayer::require()), or say .dangerous_plain_http()";
                return Err(ConfigError::new("authenticate", "an authenticator", problem));
            }
            (Some(authn), None, true) => Some(authn.dangerous_plain_http()),
            (authn, _, _) => authn,
        };
        authn.as_ref().map_or(Ok(()), AuthnLayer::check)?;
        let authn = authn.map(|authn| if self.no_store { authn.no_store() } else { authn });
        let patience = Patience::new(once("decide_within", self.patience)?.unwrap_or(patience::DEFAULT))?;
        let failure_budget = once("failure_budget", self.failure_budget)?;
        if authn.is_none() {
            let needy = [
                ("policy", policy.as_ref().map(|policy| policy.name().to_owned())),
                ("limit_principals", principal_limits.first().map(|limit| format!("the limit {}", limit.scope()))),
                ("limit_concurrency", principal_concurrency.as_ref().map(|_| "a limit of principals".to_owned())),
                ("failure_budget", failure_budget.as_ref().map(|_| "a budget".to_owned())),
                ("route", table.rules().find(|(_, rule)| rule.needs_identity()).map(|(line, _)| line)),
            ];
            if let Some((setting, value)) =
                needy.into_iter().find_map(|(setting, needy)| needy.map(|value| (setting, value)))
            {
                let problem = "needs an identity, and there is no authentication: add .authenticate(..)";
                return Err(ConfigError::new(setting, value, problem));
            }
        }
        for line in table.lines() {
            line.rule
                .check_route(line.template)
                .map_err(|problem| ConfigError::new("route", line.to_string(), problem))?;
        }
        if let Some(fallback) = table.fallback() {
            fallback.check_route("/").map_err(|problem| ConfigError::new("fallback", fallback.to_string(), problem))?;
        }
        if policy.is_none()
            && let Some((line, _)) = table.rules().find(|(_, rule)| rule.needs_policy())
        {
            let problem = format!("is what {line} asks, and there is none: add .policy(..)");
            return Err(ConfigError::new("policy", "a policy", problem));
        }
        check_actions(&table, policy.as_deref())?;
        #[cfg(feature = "rbac")]
        {
            let asked = policy.as_ref().map(|policy| AskedPolicy { name: policy.name(), rbac: self.rbac.as_ref() });
            check_handles(&table, asked, self.handles_ask_their_own)?;
        }

        let authn = match failure_budget {
            Some(budget) => authn.map(|authn| authn.with_failure_budget(budget)),
            None => authn,
        };
        let audit = once("audit", self.audit)?;
        let mut recorded = audit.iter().flat_map(AuditLayer::headers);
        let read = |name: &&HeaderName| authn.iter().any(|authn| authn.credential_headers().contains(*name));
        let carries_credential = |name: &&HeaderName| read(name) || holds_credentials(name);
        if let Some(name) = proxies.fields().find(carries_credential) {
            return Err(ConfigError::new(
                "proxies",
                name.as_str(),
                "carries a credential, and no proxy's word: name another field",
            ));
        }
        let mut read_fields = authn.iter().flat_map(AuthnLayer::credential_headers);
        if let Some(name) = read_fields.find(|name| proxies.always_remove(name)) {
            let problem = "is removed from every request, as a field that proxies write: name another field, or by .proxies(..) \
                           the proxy that writes it";
            return Err(ConfigError::new("authenticate", name.as_str(), problem));
        }
        let counted = client_limits.iter().chain(&principal_limits).flat_map(RateLimitLayer::fields);
        let at_once = client_concurrency.iter().chain(&principal_concurrency).flat_map(ConcurrencyLayer::fields);
        if let Some(name) = counted.chain(at_once).find(read) {
            return Err(ConfigError::new("limit key", name.as_str(), rate_limit::CREDENTIAL));
        }
        if let Some(name) = recorded.find(read) {
            return Err(ConfigError::new(
                "audit header",
                name.as_str(),
                "is a credential, which is never recorded: do not name it in with_headers",
            ));
        }

        let in_a_line = |name: &str| table.lines().any(|line| parameters_of(line.template).contains(&name));
        if let Some(name) = audit.iter().flat_map(AuditLayer::hidden_parameters).find(|name| !in_a_line(name)) {
            let problem = "shall be hidden, and is a parameter of no line: it would hide nothing";
            return Err(ConfigError::new("hide_parameters", name, problem));
        }

        // What the authenticator reads is a credential to TLS enforcement as well, whatever the field is called.
        let fields = authn.iter().flat_map(AuthnLayer::credential_headers);
        let tls = tls.map(|tls| fields.cloned().fold(tls, TlsLayer::credential_header));

        let mut renderer = once("renderer", self.renderer)?.unwrap_or_else(|| Arc::new(ProblemDetails::new()));
        if let Some(not_found) = once("not_found", self.not_found)? {
            renderer = Arc::new(NotFoundApart { not_found, others: renderer });
        }
        let clock = once("clock", self.clock)?.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let authn = authn.map(|authn| authn.with_clock(Arc::clone(&clock)));
        // After the audit layer was made, which listens.
        let at = clock.now();
        table.announce(at);
        client_limits.iter().chain(&principal_limits).for_each(|limit| limit.announce(at));
        warn_of_like_names(client_limits.iter().chain(&principal_limits));
        client_concurrency.iter().chain(&principal_concurrency).for_each(|limit| limit.announce(at));
        Ok(Stack::new(Stages {
            renderer,
            // One reading of one clock for a request: the stack's.
            audit: audit.map(|audit| audit.with_clock(Arc::clone(&clock))),
            evidence: EvidenceLayer::new(proxies),
            clock,
            tls,
            client_concurrency,
            client_limits,
            authn,
            principal_concurrency,
            principal_limits,
            policy,
            patience,
            by_roles: self.by_roles,
            outlives: self.outlives,
            table,
        }))
    }
}

/// The one value of a stage that may stand once.
fn once<T>(setting: &'static str, mut values: Vec<T>) -> Result<Option<T>, ConfigError> {
    let value = values.pop();
    if values.is_empty() {
        Ok(value)
    } else {
        let remedy = match setting {
            "authenticate" => "join them with one_of or both",
            "policy" => "join them with Combined",
            _ => "remove all but one",
        };
        let problem = format!("are made, and a stack takes one: {remedy}");
        Err(ConfigError::new(setting, format!("{} calls", values.len() + 1), problem))
    }
}

/// The limits of one side, beside those of the other. Two of one scope would be one count if they shared a store.
fn each(
    setting: &'static str,
    limits: Vec<Result<RateLimitLayer, ConfigError>>,
    beside: &[RateLimitLayer],
) -> Result<Vec<RateLimitLayer>, ConfigError> {
    let limits = limits.into_iter().collect::<Result<Vec<_>, _>>()?;
    let twice = limits.iter().enumerate().find(|(index, limit)| {
        beside.iter().chain(limits.iter().take(*index)).any(|other| other.scope() == limit.scope())
    });
    match twice {
        None => Ok(limits),
        Some((_, limit)) => {
            let problem = "is the scope of two limits, which could be one count: give one another, .with_scope(..)";
            Err(ConfigError::new(setting, format!("{:?}", limit.scope()), problem))
        }
    }
}
