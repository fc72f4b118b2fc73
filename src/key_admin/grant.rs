use std::{collections::BTreeSet, time::Duration};

use ipnet::IpNet;
use serde_json::value::RawValue;

use crate::{
    admin::{Caller, Fault},
    api_key::{KeyLife, MAX_TIME, NewApiKey},
    key_admin::{
        KeyAdmin,
        body::Members,
        caller::{Excess, OwnKeys},
    },
};

const MEMBERS: [&str; 10] =
    ["subject", "tenant", "name", "plan", "scopes", "roles", "addresses", "not_before", "lifetime", "metadata"];

/// The key that a body asks for; what it leaves out is as the [module docs](super) say.
pub(super) fn read(
    admin: &KeyAdmin,
    caller: &Caller,
    own: &OwnKeys,
    json: &[u8],
    now: u64,
) -> Result<NewApiKey, Fault> {
    let members = Members::read(json, &MEMBERS)?;
    let mut key = NewApiKey::for_subject(members.required_text("subject")?);
    if let Some(tenant) = members.text_or_null("tenant")?.unwrap_or_else(|| caller.tenant().map(str::to_owned)) {
        key = key.tenant(tenant);
    }
    let own_plan = || caller.principal().plan().map(str::to_owned);
    if let Some(plan) = members.text_or_null("plan")?.unwrap_or_else(own_plan) {
        known("plan", &plan, admin.known_plans.as_ref())?;
        key = key.plan(plan);
    }
    for role in members.texts("roles")? {
        known("roles", &role, admin.known_roles.as_ref())?;
        key = key.role(role);
    }
    let addresses: Option<Vec<IpNet>> = members.get("addresses", "a list of networks, such as 192.0.2.0/24")?;
    let addresses = addresses.unwrap_or_else(|| own.addresses().to_vec());
    key = addresses.into_iter().fold(key, NewApiKey::address);
    key = members.texts("scopes")?.into_iter().fold(key, NewApiKey::scope);
    key = members.text_map("metadata")?.into_iter().fold(key, |key, (name, value)| key.metadata(name, value));

    let not_before = members.seconds("not_before")?;
    if let Some(start) = not_before {
        key = key.not_before(start);
    }
    let start = not_before.map_or(now, |start| start.max(now));
    Ok(key.name(members.text("name")?.unwrap_or_default()).lives(life(&members, own, start)?))
}

fn known(field: &'static str, value: &str, known: Option<&BTreeSet<Box<str>>>) -> Result<(), Fault> {
    if known.is_none_or(|known| known.contains(value)) {
        return Ok(());
    }
    let shown: String = value.chars().take(64).collect();
    Err(Fault::value(format!("{shown:?} is not known.")).at(field))
}

fn life(members: &Members<'_>, own: &OwnKeys, start: u64) -> Result<KeyLife, Fault> {
    const FIELD: &str = "lifetime";
    let life = match members.get::<Box<RawValue>>(FIELD, "")? {
        Some(value) if serde_json::from_str::<String>(value.get()).is_ok_and(|text| text == "never") => {
            return Ok(KeyLife::Never);
        }
        Some(value) => {
            let expected = "This member must be a whole number of seconds, or \"never\".";
            Duration::from_secs(serde_json::from_str(value.get()).map_err(|_| Fault::member(FIELD, expected))?)
        }
        None => match (KeyLife::default(), own.end) {
            (KeyLife::For(life), Some(end)) => life.min(Duration::from_secs(end.saturating_sub(start))),
            (KeyLife::For(life), None) => life,
            (KeyLife::Never, _) => return Ok(KeyLife::Never),
        },
    };
    if life.is_zero() {
        return Err(Fault::value("The key would end before it begins.").at(FIELD));
    }
    if start.saturating_add(life.as_secs()) > MAX_TIME {
        return Err(Fault::value("The key would end after the year 9999; say \"never\".").at(FIELD));
    }
    Ok(KeyLife::For(life))
}

/// Whether the key is on a plan that the caller is not on.
pub(super) fn plan_exceeds(caller: &Caller, plan: Option<&str>) -> Option<Excess> {
    (plan != caller.principal().plan()).then_some(Excess::NotHeld("plan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_seconds_or_never() {
        let life = |value: &str| {
            let json = format!("{{\"lifetime\":{value}}}");
            Members::read(json.as_bytes(), &MEMBERS).and_then(|members| life(&members, &OwnKeys::default(), 0))
        };
        for never in ["\"never\"", " \"n\\u0065ver\" "] {
            assert!(matches!(life(never), Ok(KeyLife::Never)), "{never}");
        }
        assert!(matches!(life("60"), Ok(KeyLife::For(life)) if life.as_secs() == 60));
        for bad in ["\"Never\"", "\"60\"", "null", "0", "-1", "60.0", "[]"] {
            assert!(life(bad).is_err(), "{bad}");
        }
    }
}
