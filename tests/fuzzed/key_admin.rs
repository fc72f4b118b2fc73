//! A request to the router that administers API keys: a method and a target, the type of its body, the body. A body or a query
//! is refused as malformed exactly if a second reader finds it so; a key that is made is the one that this reader finds, a list
//! has the keys that it finds; and who may act for themselves alone reaches and hands out nothing of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use portcullis::{
    Principal, PrincipalKind,
    api_key::{ApiKeyAdmin, ApiKeyFormat, KeyFilter, KeyHash, KeyId, MAX_PAGE, MemoryKeyStore, RecordFields},
    key_admin::{KeyAdmin, rules},
};
use serde_json::{Map, Value};

use super::{
    json,
    memory::{NOW, now},
    router::{Asked, ask},
    routes::decoded,
};

const ISSUER: &str = "https://id.example.com";
const MEMBERS: [&str; 10] =
    ["subject", "tenant", "name", "plan", "scopes", "roles", "addresses", "not_before", "lifetime", "metadata"];
const FILTERS: [&str; 8] = ["tenant", "all_tenants", "subject", "environment", "name", "active", "after", "limit"];

/// Acts for herself, and for everybody.
static CALLERS: LazyLock<[Principal; 2]> = LazyLock::new(|| {
    let person = |name| Principal::builder(PrincipalKind::User, ISSUER, name, "test");
    let anna = person("anna").tenant("acme").plan("gold").roles(["support"]).scopes(["orders:read"]);
    [anna.build(), person("root").roles(["operator"]).build()]
});

/// Panics if something of that does not hold. Whether somebody got what they asked for.
pub fn check(data: &[u8]) -> bool {
    let Some(asked) = Asked::read(data) else { return false };
    CALLERS.iter().filter(|caller| of(caller, &asked)).count() > 0
}

fn of(caller: &Principal, asked: &Asked) -> bool {
    let store = store();
    let app = KeyAdmin::new(Arc::clone(&store)).with_owner_issuers([ISSUER]).router();
    let before = records(&*store);
    let (status, body) = ask(app, rules(""), caller, asked);
    let (after, answer) = (records(&*store), json::once(&body).unwrap_or_default());
    let done = (200..300).contains(&status);
    let is_new = |record: &&RecordFields| !before.iter().any(|old| old.id == record.id);
    if !done || asked.method == "GET" {
        assert_eq!(before, after, "{status}");
    }
    if caller.tenant().is_some() {
        let foreign = |all: &[RecordFields]| all.iter().filter(|key| !is_own(caller, key)).cloned().collect::<Vec<_>>();
        assert_eq!(foreign(&before), foreign(&after));
        let made = after.iter().filter(is_new);
        assert!(made.clone().all(|key| key.scopes.iter().all(|scope| caller.has_scope(scope))));
        assert!(made.clone().all(|key| key.roles.iter().all(|role| caller.has_role(role))));
    }
    if asked.is("POST", "/keys") {
        let wanted = json::once(&asked.body).and_then(|body| body.as_object().cloned()).filter(is_well_formed);
        match (asked.is_of("application/json"), &wanted) {
            (false, _) => assert_eq!(status, 415),
            (true, None) => assert_eq!(status, 400, "{answer}"),
            (true, Some(wanted)) if done => {
                let [made] = after.iter().filter(is_new).collect::<Vec<_>>()[..] else { panic!("not one") };
                is_as_wanted(caller, made, wanted);
                let key = ApiKeyFormat::default().parse(answer["key"].as_str().unwrap()).unwrap();
                assert_eq!((key.id(), &key.hash()), (made.id, &made.hash));
                assert!(answer["record"].get("hash").is_none());
            }
            (true, Some(_)) => assert!([403, 422].contains(&status), "{status}: {answer}"),
        }
    }
    if asked.is("GET", "/keys") {
        match filters(asked.uri.query().unwrap_or_default()) {
            None => assert_eq!(status, 400),
            Some(filters) if done => {
                let listed = answer["keys"].as_array().unwrap().iter();
                let listed: Vec<_> = listed.map(|key| key["id"].as_str().unwrap().to_owned()).collect();
                assert_eq!(listed, found(caller, &before, &filters), "{filters:?}");
            }
            Some(_) => assert!(status == 403 && caller.tenant().is_some(), "{status}"),
        }
    }
    done
}

/// With a key of hers, one of her colleague's and one of another tenant's.
fn store() -> Arc<MemoryKeyStore> {
    let store = MemoryKeyStore::new();
    for (byte, subject, tenant) in [(1, "anna", "acme"), (2, "bob", "acme"), (3, "anna", "other")] {
        let (id, hash) = (KeyId::from_bytes([byte; 10]), KeyHash::from_bytes([byte; 32]));
        let mut fields = RecordFields::new(id, hash, subject, NOW - 600, Some(NOW + 600));
        (fields.tenant, fields.plan, fields.name) = (Some(tenant.into()), Some("gold".into()), format!("of {subject}"));
        store.add(fields.check().unwrap()).unwrap();
    }
    Arc::new(store)
}

fn records(store: &dyn ApiKeyAdmin) -> Vec<RecordFields> {
    let hits = now(store.list(&KeyFilter::all(), None, MAX_PAGE)).unwrap();
    hits.iter().map(|hit| hit.record().fields()).collect()
}

fn is_own(caller: &Principal, key: &RecordFields) -> bool {
    key.subject == caller.subject() && key.tenant.as_deref() == caller.tenant()
}

fn is_well_formed(body: &Map<String, Value>) -> bool {
    let texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    let network = |text: &Value| text.as_str().is_some_and(|text| text.parse::<ipnet::IpNet>().is_ok());
    body.get("subject").is_some_and(Value::is_string)
        && body.iter().all(|(name, value)| match &**name {
            "subject" | "name" => value.is_string(),
            "tenant" | "plan" => value.is_string() || value.is_null(),
            "scopes" | "roles" => texts(value),
            "addresses" => value.as_array().is_some_and(|items| items.iter().all(network)),
            "not_before" => value.is_u64(),
            "lifetime" => value.is_u64() || value == "never",
            "metadata" => value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
            other => MEMBERS.contains(&other),
        })
}

fn is_as_wanted(caller: &Principal, made: &RecordFields, wanted: &Map<String, Value>) {
    let text_or = |name: &str, own: Option<&str>| match wanted.get(name) {
        None => own.map(str::to_owned),
        Some(said) => said.as_str().map(str::to_owned),
    };
    let texts = |name: &str| -> BTreeSet<&str> {
        wanted.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let is_set = |name: &str, made: &[String]| made.iter().map(String::as_str).collect::<BTreeSet<_>>() == texts(name);
    assert_eq!(wanted["subject"], *made.subject);
    assert_eq!(made.tenant, text_or("tenant", caller.tenant()));
    assert_eq!(made.plan, text_or("plan", caller.plan()));
    assert_eq!(made.name, text_or("name", Some("")).unwrap());
    assert!(is_set("scopes", &made.scopes) && is_set("roles", &made.roles));
    assert_eq!(made.addresses.is_empty(), texts("addresses").is_empty());
    let metadata = wanted.get("metadata").cloned().unwrap_or_else(|| Map::new().into());
    assert_eq!(serde_json::to_value(&made.metadata).unwrap(), metadata);
    assert_eq!(made.not_before, wanted.get("not_before").and_then(Value::as_u64));
    let start = made.not_before.map_or(NOW, |start| start.max(NOW));
    match wanted.get("lifetime") {
        None => assert!(made.expires.is_some_and(|end| end > start)),
        Some(life) => assert_eq!(made.expires, life.as_u64().map(|life| start + life)),
    }
}

/// The filters of a query; none if it is not what it should be.
fn filters(query: &str) -> Option<BTreeMap<String, String>> {
    let read = |text: &str| String::from_utf8_lossy(&decoded(text.replace('+', " ").as_bytes())).into_owned();
    let mut filters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_first = filters.insert(read(name), read(value)).is_none();
        if !is_first || !FILTERS.contains(&&*read(name)) {
            return None;
        }
    }
    let all = |name: &str, fits: &dyn Fn(&str) -> bool| filters.get(name).is_none_or(|value| fits(value));
    let is_flag = |value: &str| ["true", "false"].contains(&value);
    let is_size = |value: &str| !value.starts_with('+') && value.parse().is_ok_and(|size| (1..=1000).contains(&size));
    let fits = all("active", &is_flag)
        && all("all_tenants", &|value| is_flag(value) && !(value == "true" && filters.contains_key("tenant")))
        && all("after", &|value| value.parse::<KeyId>().is_ok())
        && all("limit", &is_size);
    fits.then_some(filters)
}

/// The ids of those keys that somebody reaches and asked for.
fn found(caller: &Principal, keys: &[RecordFields], filters: &BTreeMap<String, String>) -> Vec<String> {
    let said = |name: &str| filters.get(name).map(String::as_str);
    let tenant = said("tenant").or(caller.tenant()).filter(|tenant| !tenant.is_empty());
    let fits = |key: &&RecordFields| {
        (said("all_tenants") == Some("true") || key.tenant.as_deref() == tenant)
            && said("subject").is_none_or(|subject| key.subject == subject)
            && said("environment")
                .is_none_or(|environment| key.environment.as_deref().unwrap_or_default() == environment)
            && said("name").is_none_or(|part| key.name.contains(part))
            && said("after").is_none_or(|after| *key.id.to_string() > *after)
            && (caller.tenant().is_none() || is_own(caller, key))
    };
    let limit = said("limit").map_or(100, |limit| limit.parse().unwrap());
    keys.iter().filter(fits).take(limit).map(|key| key.id.to_string()).collect()
}
