use std::{sync::Arc, time::Duration};

use ::axum::{
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use crate::{
    admin::{Caller, Fault},
    api_key::{ApiKey, ApiKeyRecord, DEFAULT_OVERLAP, Hit, KeyView, Revocation},
    event::EventKind,
    key_admin::{CREATE, KeyAdmin, READ, REVOKE, ROTATE, body::Members, caller::Done, grant},
    mention::Telling,
};

/// Also where the router is nested under a path with parameters of its own.
type Id = Result<RawPathParams, RawPathParamsRejection>;

/// A key in clear: shown once, in the answer to the one who made it.
#[derive(Serialize)]
struct Made<'a> {
    key: &'a str,
    record: KeyView<'a>,
}

pub(super) async fn create(State(admin): State<Arc<KeyAdmin>>, caller: Caller, request: Request) -> Response {
    match try_create(&admin, &caller, request).await {
        Ok((key, hit)) => made(&caller, StatusCode::CREATED, &key, &hit),
        Err(fault) => caller.respond::<()>(Err(fault)),
    }
}

async fn try_create(admin: &KeyAdmin, caller: &Caller, request: Request) -> Result<(ApiKey, Hit), Fault> {
    let (json, own) = caller.ask(admin, CREATE, request).await?;
    // Read once: a second that begins in between would put the key's end past that of the caller's.
    let at = caller.at();
    let wanted = grant::read(admin, caller, &own, &json, at.unix_seconds())?;
    let (key, record) = admin.issuer.mint(wanted, at)?;

    caller.reach(admin, record.owner()).await?;
    own.taken(&record)?;
    let excess = grant::plan_exceeds(caller, record.plan());
    caller.hand_out(excess.or_else(|| own.exceeded_by(admin, &record, caller.principal()))).await?;

    let owner_disabled = admin.store.disablement(record.owner()).await?.is_some();
    caller.begins("create", admin.key(record.id()));
    let (what, owner) = (admin.key(record.id()), admin.owner(record.owner()));
    let (store, new) = (Arc::clone(&admin.store), record.clone());
    let insert = async move { store.insert(new).await.map(|()| true) };
    caller.change(insert, Some(Done { kind: EventKind::KeyCreated, what, owner, more: None })).await?;
    Ok((key, Hit::new(record.into()).with_owner_disabled(owner_disabled)))
}

pub(super) async fn rotate(State(admin): State<Arc<KeyAdmin>>, caller: Caller, id: Id, request: Request) -> Response {
    match try_rotate(&admin, &caller, id, request).await {
        Ok((key, hit)) => made(&caller, StatusCode::OK, &key, &hit),
        Err(fault) => caller.respond::<()>(Err(fault)),
    }
}

async fn try_rotate(admin: &KeyAdmin, caller: &Caller, id: Id, request: Request) -> Result<(ApiKey, Hit), Fault> {
    let (json, own) = caller.ask(admin, ROTATE, request).await?;
    let overlap = Members::read(&json, &["overlap"])?.seconds("overlap")?;
    let hit = caller.find(admin, &text(id)?).await?;

    // Who rotates a key gets it: they must hold what it may do.
    let overlap = overlap.map_or(DEFAULT_OVERLAP, Duration::from_secs);
    let (key, rotation) = admin.issuer.mint_rotation(hit.record(), overlap, caller.at())?;
    let record: ApiKeyRecord = rotation.record().clone();
    own.taken(&record)?;
    let excess = own.exceeded_by(admin, &record, caller.principal());
    let plan_exceeds = || {
        let kept = caller.keeps_plan(admin, record.owner());
        grant::plan_exceeds(caller, record.plan()).filter(|_| !kept)
    };
    caller.hand_out(excess.or_else(plan_exceeds)).await?;

    let (old, new) = (admin.key(hit.record().id()), admin.key(record.id()));
    caller.begins("rotate", old.clone());
    let more = Some(("key.rotated_to", new));
    let done = Done { kind: EventKind::KeyRotated, what: old, owner: admin.owner(record.owner()), more };
    let store = Arc::clone(&admin.store);
    if !caller.change(async move { store.rotate(rotation).await }, Some(done)).await? {
        return Err(Fault::no_such_key());
    }
    Ok((key, Hit::new(record.into()).with_owner_disabled(hit.owner_disabled())))
}

fn made(caller: &Caller, status: StatusCode, key: &ApiKey, hit: &Hit) -> Response {
    caller.respond(Ok((status, Made { key: key.expose(), record: KeyView::new(hit, caller.now()) })))
}

pub(super) async fn show(State(admin): State<Arc<KeyAdmin>>, caller: Caller, id: Id) -> Response {
    let found = async {
        caller.demand(READ).await?;
        caller.find(&admin, &text(id)?).await
    };
    shown(&caller, found.await)
}

pub(super) async fn revoke(State(admin): State<Arc<KeyAdmin>>, caller: Caller, id: Id, request: Request) -> Response {
    shown(&caller, try_revoke(&admin, &caller, id, request).await)
}

async fn try_revoke(admin: &KeyAdmin, caller: &Caller, id: Id, request: Request) -> Result<Hit, Fault> {
    let (json, _) = caller.ask(admin, REVOKE, request).await?;
    // The reason may be left out, and so may the object around it.
    let json: &[u8] = if json.is_empty() { b"{}" } else { &json };
    let reason = Members::read(json, &["reason"])?.text("reason")?.unwrap_or_default();
    let revocation = Revocation::new(caller.now(), &reason)?;
    let hit = caller.find(admin, &text(id)?).await?;

    let key = *hit.record().id();
    let what = admin.key(&key);
    caller.begins("revoke", what.clone());
    let (owner, more) = (admin.owner(hit.record().owner()), Some(("reason", Telling::reason(&reason))));
    // What is revoked stays as it is.
    let done = hit.record().revocation().is_none().then_some(Done { kind: EventKind::KeyRevoked, what, owner, more });
    let (store, made) = (Arc::clone(&admin.store), revocation.clone());
    if !caller.change(async move { store.revoke(&key, &made).await }, done).await? {
        return Err(Fault::no_such_key());
    }
    // It may have been revoked before, with another reason, or be purged by now.
    Ok(admin.store.get(&key).await?.unwrap_or_else(|| {
        let revoked = hit.record().revoked(&revocation);
        Hit::new(revoked.into()).with_owner_disabled(hit.owner_disabled())
    }))
}

fn shown(caller: &Caller, found: Result<Hit, Fault>) -> Response {
    match found {
        Ok(hit) => caller.respond(Ok((StatusCode::OK, KeyView::new(&hit, caller.now())))),
        Err(fault) => caller.respond::<()>(Err(fault)),
    }
}

/// The id as it was sent; what is no text is no id.
fn text(id: Id) -> Result<String, Fault> {
    let params = id.map_err(|_| Fault::no_such_key())?;
    let id = params.iter().filter(|(name, _)| *name == "key_id").last();
    id.map(|(_, id)| id.to_owned()).ok_or_else(Fault::no_such_key)
}
