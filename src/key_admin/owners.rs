use std::sync::Arc;

use ::axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use crate::{
    admin::{Caller, Fault},
    api_key::{Owner, Revocation},
    event::EventKind,
    key_admin::{DISABLE_OWNER, KeyAdmin, body::Members, caller::Done},
    mention::Telling,
};

/// How an owner stands now.
#[derive(Serialize)]
struct Standing {
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<Revocation>,
    /// Whether this request changed it.
    changed: bool,
}

impl Standing {
    fn new(owner: &Owner, disabled: Option<Revocation>, changed: bool) -> Self {
        Self { subject: owner.subject().to_owned(), tenant: owner.tenant().map(str::to_owned), disabled, changed }
    }
}

pub(super) async fn disable(State(admin): State<Arc<KeyAdmin>>, caller: Caller, request: Request) -> Response {
    caller.respond(try_disable(&admin, &caller, request).await.map(|standing| (StatusCode::OK, standing)))
}

async fn try_disable(admin: &KeyAdmin, caller: &Caller, request: Request) -> Result<Standing, Fault> {
    let (owner, reason) = named(admin, caller, request, &["subject", "tenant", "reason"]).await?;
    let disablement = Revocation::new(caller.now(), &reason)?;
    caller.begins("disable", admin.owner(&owner));
    let done = done(admin, EventKind::OwnerDisabled, &owner, Some(("reason", Telling::reason(&reason))));
    let (store, whom) = (Arc::clone(&admin.store), owner.clone());
    let changed = caller.change(async move { store.disable_owner(&whom, &disablement).await }, Some(done)).await?;
    Ok(Standing::new(&owner, admin.store.disablement(&owner).await?, changed))
}

pub(super) async fn enable(State(admin): State<Arc<KeyAdmin>>, caller: Caller, request: Request) -> Response {
    caller.respond(try_enable(&admin, &caller, request).await.map(|standing| (StatusCode::OK, standing)))
}

async fn try_enable(admin: &KeyAdmin, caller: &Caller, request: Request) -> Result<Standing, Fault> {
    let (owner, _) = named(admin, caller, request, &["subject", "tenant"]).await?;
    caller.enable(admin, &owner).await?;
    caller.begins("enable", admin.owner(&owner));
    let done = done(admin, EventKind::OwnerEnabled, &owner, None);
    let (store, whom) = (Arc::clone(&admin.store), owner.clone());
    let changed = caller.change(async move { store.enable_owner(&whom).await }, Some(done)).await?;
    Ok(Standing::new(&owner, None, changed))
}

fn done(admin: &KeyAdmin, kind: EventKind, owner: &Owner, more: Option<(&'static str, Telling)>) -> Done {
    Done { kind, what: admin.subject(owner), owner: admin.owner(owner), more }
}

/// The owner that the body names, whom the caller reaches; and the reason, if there is one.
async fn named(admin: &KeyAdmin, caller: &Caller, request: Request, known: &[&str]) -> Result<(Owner, String), Fault> {
    let (json, _) = caller.ask(admin, DISABLE_OWNER, request).await?;
    let members = Members::read(&json, known)?;
    let owner = Owner::new(&members.required_text("subject")?)?;
    let tenant = members.text_or_null("tenant")?.unwrap_or_else(|| caller.tenant().map(str::to_owned));
    let owner = match tenant {
        Some(tenant) => owner.in_tenant(&tenant)?,
        None => owner,
    };
    let reason = members.text("reason")?.unwrap_or_default();
    caller.reach(admin, &owner).await?;
    Ok((owner, reason))
}
