use std::{collections::BTreeMap, sync::Arc};

use ::axum::{extract::State, response::Response};
use form_urlencoded::parse;
use http::{StatusCode, Uri};
use serde::Serialize;

use crate::{
    admin::{Caller, Fault},
    api_key::{Hit, KeyFilter, KeyId, KeyView, MAX_PAGE},
    key_admin::{KeyAdmin, READ, caller::Excess},
};

/// How many keys a page has, unless something else is said.
const PAGE: usize = 100;

#[derive(Serialize)]
struct Page<'a> {
    keys: Vec<KeyView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a KeyId>,
}

pub(super) async fn list(State(admin): State<Arc<KeyAdmin>>, caller: Caller, uri: Uri) -> Response {
    match try_list(&admin, &caller, uri.query().unwrap_or_default()).await {
        Ok(hits) => {
            let keys = hits.iter().map(|hit| KeyView::new(hit, caller.now())).collect();
            let next = hits.last().map(|hit| hit.record().id());
            caller.respond(Ok((StatusCode::OK, Page { keys, next })))
        }
        Err(fault) => caller.respond::<()>(Err(fault)),
    }
}

async fn try_list(admin: &KeyAdmin, caller: &Caller, query: &str) -> Result<Vec<Hit>, Fault> {
    caller.demand(READ).await?;
    let asked = Asked::read(query)?;
    let filter = confine(admin, caller, &asked).await?;
    let filter = asked.narrow(filter, caller.now());
    Ok(admin.store.list(&filter, asked.after.as_ref(), asked.limit).await?)
}

/// The filter of those keys that the caller reaches and asks for.
async fn confine(admin: &KeyAdmin, caller: &Caller, asked: &Asked) -> Result<KeyFilter, Fault> {
    let tenant = match &asked.tenant {
        Some(tenant) if tenant.is_empty() => None,
        Some(tenant) => Some(tenant.as_str()),
        None => caller.tenant(),
    };
    let filter = match tenant {
        Some(tenant) => KeyFilter::all().tenant(tenant),
        None => KeyFilter::all().without_tenant(),
    };
    if asked.all_tenants || tenant != caller.tenant() || caller.spans_tenants() {
        caller.hand_out(Some(Excess::NotHeld("tenant"))).await?;
        return Ok(if asked.all_tenants { KeyFilter::all() } else { filter });
    }
    let own = caller.principal().subject();
    let asks_own = caller.is_subject(admin, own) && asked.subject.as_deref().is_none_or(|subject| subject == own);
    if (asks_own && asked.subject.is_some()) || caller.reaches_tenant().await? {
        Ok(filter)
    } else if asks_own {
        Ok(filter.subject(own))
    } else {
        Err(Fault::not_held("subject", "You do not reach the keys of this owner."))
    }
}

/// What the query says.
#[derive(Debug, Default)]
struct Asked {
    tenant: Option<String>,
    all_tenants: bool,
    subject: Option<String>,
    environment: Option<String>,
    name: Option<String>,
    active: bool,
    after: Option<KeyId>,
    limit: usize,
}

impl Asked {
    fn read(query: &str) -> Result<Self, Fault> {
        let mut pairs = BTreeMap::new();
        for (name, value) in parse(query.as_bytes()) {
            let shown = || name.chars().take(64).collect::<String>();
            if pairs.contains_key(&name) {
                return Err(Fault::query(shown(), "This filter stands twice."));
            }
            pairs.insert(name, value.into_owned());
        }
        let mut take = |name: &str| pairs.remove(name);
        let asked = Self {
            tenant: take("tenant"),
            all_tenants: flag("all_tenants", take("all_tenants"))?,
            subject: take("subject"),
            environment: take("environment"),
            name: take("name"),
            active: flag("active", take("active"))?,
            after: take("after")
                .map(|id| id.parse())
                .transpose()
                .map_err(|_| Fault::query("after", "This is no id."))?,
            limit: take("limit").map_or(Ok(PAGE), |limit| page_size(&limit))?,
        };
        match pairs.keys().next() {
            Some(name) => Err(Fault::query(name.chars().take(64).collect::<String>(), "There is no such filter.")),
            None if asked.all_tenants && asked.tenant.is_some() => {
                Err(Fault::query("tenant", "This filter contradicts all_tenants."))
            }
            None => Ok(asked),
        }
    }

    fn narrow(&self, mut filter: KeyFilter, now: u64) -> KeyFilter {
        if let Some(subject) = &self.subject {
            filter = filter.subject(subject.as_str());
        }
        match self.environment.as_deref() {
            None => {}
            Some("") => filter = filter.without_environment(),
            Some(environment) => filter = filter.environment(environment),
        }
        if let Some(name) = &self.name {
            filter = filter.name_contains(name.as_str());
        }
        if self.active { filter.active_at(now) } else { filter }
    }
}

fn flag(name: &'static str, value: Option<String>) -> Result<bool, Fault> {
    match value.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::query(name, "This filter must be true or false.")),
    }
}

fn page_size(limit: &str) -> Result<usize, Fault> {
    let digits = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
    let limit = limit.parse().ok().filter(|limit| digits && (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| Fault::query("limit", format!("This filter must be 1 to {MAX_PAGE}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let asked = Asked::read("subject=a%20b+c&tenant=&active=true&after=0123456789abcdef&limit=1000").unwrap();
        assert_eq!(asked.subject.as_deref(), Some("a b c"));
        assert_eq!((asked.tenant.as_deref(), asked.active, asked.limit), (Some(""), true, 1000));
        assert_eq!(Asked::read("").unwrap().limit, PAGE);
        for (name, query, field) in [
            ("unknown", "subjects=a", "subjects"),
            ("twice", "subject=a&subject=a", "subject"),
            ("twice by escape", "subject=a&s%75bject=b", "subject"),
            ("no truth", "active=yes", "active"),
            ("no id", "after=1", "after"),
            ("no page", "limit=0", "limit"),
            ("too much", "limit=1001", "limit"),
            ("a sign", "limit=%2B1", "limit"),
            ("too much for a number", "limit=99999999999999999999999", "limit"),
            ("one tenant and all", "tenant=a&all_tenants=true", "tenant"),
        ] {
            let fault = format!("{:?}", Asked::read(query).unwrap_err());
            assert!(fault.contains(&format!("field: Some(\"{field}\")")), "{name}: {fault}");
        }
    }
}
