//! A table of rules in TOML. Each rule that is read lets in exactly those whom a second reader of the table finds to meet it:
//! nobody, a clerk who proved who they are well, and a manager from another network who did not.

use std::sync::LazyLock;

use http::{Method, Request};
use portcullis::{
    Challenge, Connection, Principal, PrincipalKind, TlsVersion,
    authn::{Outcome, authenticate_fn},
    guard::{RouteRules, RuleNames, authenticated, scope},
    policy::Rbac,
    stack::Stack,
};
use toml::{Table, Value};

use super::{
    memory::{NOW, Reached, clock, handler, send},
    route_table::matches,
};

static POLICY: LazyLock<Rbac> = LazyLock::new(|| {
    let policy = r#"
        version = "1"
        permissions = ["orders:read", "orders:cancel"]
        [roles.clerk]
        grants = ["orders:read"]
        [roles.manager]
        grants = ["*"]
    "#;
    Rbac::from_toml(policy).unwrap()
});
static NAMES: LazyLock<RuleNames> = LazyLock::new(|| {
    RuleNames::new()
        .rbac(&POLICY)
        .condition("known", authenticated())
        .condition("reader", scope("orders:read").unwrap())
});

/// Who asks, from where, and what they may do.
struct Caller {
    principal: Option<Principal>,
    address: [u8; 4],
    permissions: &'static [&'static str],
}

static CALLERS: LazyLock<[Caller; 3]> = LazyLock::new(|| {
    let person = |name| Principal::builder(PrincipalKind::User, "https://id.example.com", name, "test");
    let clerk = person("alice").roles(["clerk"]).scopes(["orders:read"]).methods(["pwd", "otp"]);
    let clerk = clerk.acr("gold").auth_time(NOW - 1000).build();
    let manager = person("bob").roles(["manager"]).build();
    [
        Caller { principal: None, address: [198, 51, 100, 7], permissions: &[] },
        Caller { principal: Some(clerk), address: [198, 51, 100, 7], permissions: &["orders:read"] },
        Caller { principal: Some(manager), address: [10, 0, 0, 5], permissions: &["orders:read", "orders:cancel"] },
    ]
});

/// Panics if something of that does not hold. How often somebody got in.
pub fn check(text: &str) -> usize {
    let rules = match RouteRules::from_toml(text, &NAMES) {
        Ok(rules) => rules,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return 0;
        }
    };
    let table: Table = text.parse().expect("TOML");
    let written = table["routes"].as_table().expect("a table");
    assert!(table.keys().all(|name| name == "routes" || name == "fallback"));
    assert_eq!(rules.lines().count(), written.len());
    CALLERS.iter().map(|caller| of(caller, &rules, written, table.get("fallback"))).sum()
}

fn of(caller: &Caller, rules: &RouteRules, written: &Table, fallback: Option<&Value>) -> usize {
    let who = caller.principal.clone();
    let known = authenticate_fn(Challenge::new("Test", "fuzz").unwrap(), move |_, _| {
        who.clone().map_or(Outcome::Absent, Outcome::verified)
    });
    let stack = Stack::builder().dangerous_plain_http().clock(clock()).authenticate(known).policy(POLICY.clone());
    let Ok(stack) = stack.routes(rules.clone()).build() else { return 0 };
    let asks = |method: &str, path: &str| {
        let mut request = Request::builder().method(method).uri(path).body(()).ok()?;
        request.extensions_mut().insert(Connection::tls((caller.address, 52100).into(), TlsVersion::Tls13));
        let reached = Reached::default();
        send(stack.protect(handler(&reached)), request);
        let reached = reached.lock().unwrap().is_some();
        Some(reached)
    };
    let mut count = 0;
    let all = |path: &str| written.keys().filter(|line| about(line, path)).count();
    for (line, rule) in written {
        let (method, template) = line.split_once(' ').expect("it was taken");
        let path = template.replace("{id}", "7");
        // What else a path may mean is looked at elsewhere.
        let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/');
        let others = [path.clone(), format!("{path}/"), path.trim_end_matches('/').to_owned()];
        if !is_plain || others.iter().any(|other| all(other) != usize::from(about(line, other))) {
            continue;
        }
        let method = if method == "ANY" { Method::PATCH.as_str() } else { method };
        let Some(reached) = asks(method, &path) else { continue };
        let expected = caller.is_let_in(rule);
        assert!(expected.is_none_or(|expected| expected == reached), "{method} {path}: {rule:?}, {reached}");
        count += usize::from(reached);
    }
    if all("/not/named/by/anybody") == 0 && all("/not/named/by/anybody/") == 0 {
        let reached = asks("GET", "/not/named/by/anybody").expect("a request");
        let expected = fallback.map_or(Some(false), |rule| caller.is_let_in(rule));
        assert!(expected.is_none_or(|expected| expected == reached), "{fallback:?}, {reached}");
    }
    count
}

fn about(line: &str, path: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, template)| matches(template.as_bytes(), path.as_bytes()))
}

impl Caller {
    /// Whether a rule lets them in; none where this reader does not know.
    fn is_let_in(&self, rule: &Value) -> Option<bool> {
        match rule {
            Value::String(word) if word == "public" => Some(true),
            Value::String(word) if word == "deny" => Some(false),
            Value::Table(table) if table.get("require").is_some_and(|word| word.as_str() == Some("deny")) => {
                Some(false)
            }
            Value::Table(table) if ["resource", "shadow_until"].iter().any(|name| table.contains_key(*name)) => None,
            _ => self.principal.as_ref().map_or(Some(false), |who| self.meets(who, rule)),
        }
    }

    fn meets(&self, who: &Principal, rule: &Value) -> Option<bool> {
        let table = match rule {
            Value::Table(table) => table,
            word => return (word.as_str()? == "authenticated").then_some(true),
        };
        let of_rule = ["hide", "fulfilling"];
        let (name, said) = table.iter().find(|(name, _)| !of_rule.contains(&&***name))?;
        let mut texts = said.as_array().into_iter().flatten().filter_map(Value::as_str);
        let parts: Vec<_> = said.as_array().into_iter().flatten().map(|part| self.meets(who, part)).collect();
        let (text, number) = (said.as_str().unwrap_or_default(), said.as_integer().unwrap_or_default());
        match &**name {
            "require" => self.meets(who, said),
            "permission" => Some(self.permissions.contains(&text)),
            "policy" if self.permissions.contains(&text) => Some(true),
            "role" => Some(who.has_role(text)),
            "scope" => Some(who.has_scope(text)),
            "condition" => Some(text == "known" || who.has_scope("orders:read")),
            "network" => Some(texts.any(|network| self.is_in(network))),
            "hours" => is_within(said.as_table().expect("a table")),
            "acr" => Some(texts.any(|class| who.acr() == Some(class))),
            "amr" => Some(who.methods().contains(text)),
            "factors" => Some(number <= i64::from(who.factors())),
            // The issuer's clock may be ahead: by how much is looked at elsewhere.
            "authenticated_within" if who.auth_time().is_some() && (900..1100).contains(&number) => None,
            "authenticated_within" => Some(who.auth_time().is_some() && number > 1000),
            "all" => every(&parts, true),
            "any" => every(&parts, false),
            "not" => self.meets(who, said).map(|holds| !holds),
            _ => None,
        }
    }

    /// Whether their address begins as the network's does.
    fn is_in(&self, network: &str) -> bool {
        let Some((address, bits)) = network.split_once('/') else { return false };
        let Ok(net) = address.parse::<std::net::Ipv4Addr>() else { return false };
        let differs = u32::from(net) ^ u32::from_be_bytes(self.address);
        differs.leading_zeros() >= bits.parse().unwrap()
    }
}

/// What all of several come to, or any of them: one that is not so decides.
fn every(parts: &[Option<bool>], holds: bool) -> Option<bool> {
    if parts.contains(&Some(!holds)) {
        return Some(!holds);
    }
    parts.iter().all(Option::is_some).then_some(holds)
}

/// Whether Friday, 2027-01-15 08:00 UTC is within these hours, told by the minutes of the week.
fn is_within(hours: &Table) -> Option<bool> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    const WEEK: i64 = 7 * 24 * 60;
    let minutes = |text: &str| Some(text.get(..2)?.parse::<i64>().ok()? * 60 + text.get(3..)?.parse::<i64>().ok()?);
    let text = |name: &str| hours.get(name).and_then(Value::as_str);
    let (from, until) = (minutes(text("from")?)?, minutes(text("until")?)?);
    let offset = text("offset").map_or(Some(0), |text| {
        let minutes = minutes(text.get(1..)?)?;
        Some(if text.starts_with('-') { -minutes } else { minutes })
    })?;
    let now = 4 * 24 * 60 + 8 * 60 + offset;
    let days = hours.get("days").and_then(Value::as_array);
    let is_on = |day: &str| days.is_none_or(|days| days.iter().any(|on| on.as_str() == Some(day)));
    let length = (until - from).rem_euclid(24 * 60);
    let length = if length == 0 { 24 * 60 } else { length };
    let begins = (0..).zip(DAYS).filter(|(_, day)| is_on(day)).map(|(day, _)| day * 24 * 60 + from);
    Some(begins.into_iter().any(|begin| (now - begin).rem_euclid(WEEK) < length))
}
