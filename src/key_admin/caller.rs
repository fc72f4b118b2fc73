use ::axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use ipnet::IpNet;

use crate::{
    admin::{Caller, Fault, finished},
    api_key::{ApiKeyRecord, HashScheme, Hit, KeyId, Owner},
    error::{ConfigError, StoreError},
    event::{self, Event, EventKind},
    key_admin::{ANY_OWNER, GRANT_ANY, KeyAdmin},
    mention::Telling,
    principal::{Principal, PrincipalKind},
    rejection::Rejection,
    voucher::Ended,
};

/// What was done, and to whose.
pub(super) struct Done {
    pub(super) kind: EventKind,
    pub(super) what: Telling,
    pub(super) owner: Telling,
    pub(super) more: Option<(&'static str, Telling)>,
}

impl Caller {
    /// The time by now in seconds since the Unix epoch.
    pub(super) fn now(&self) -> u64 {
        self.at().unix_seconds()
    }

    /// Demands the permission for a change, reads its body, and then what the caller's keys allow.
    pub(super) async fn ask(
        &self,
        admin: &KeyAdmin,
        permission: &str,
        request: Request,
    ) -> Result<(Bytes, OwnKeys), Fault> {
        let json = self.read_for(permission, request).await?;
        Ok((json, self.own_keys(admin).await?))
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.principal().tenant()
    }

    /// Whether what acts for the caller is of another tenant than they: what the two reach together is no tenant's.
    pub(super) fn spans_tenants(&self) -> bool {
        self.identities().any(|identity| identity.tenant().is_some() && identity.tenant() != self.tenant())
    }

    /// Whether the caller has a permission. What cannot be decided is a refusal of the request.
    async fn has(&self, permission: &str) -> Result<bool, Rejection> {
        match self.demand(permission).await {
            Ok(()) => Ok(true),
            Err(rejection) if rejection.status() == StatusCode::FORBIDDEN => Ok(false),
            Err(rejection) => Err(rejection),
        }
    }

    async fn may_grant_any(&self) -> Result<bool, Rejection> {
        self.has(GRANT_ANY).await
    }

    /// Whether the caller has the keys of all owners of their own tenant.
    pub(super) async fn reaches_tenant(&self) -> Result<bool, Rejection> {
        Ok(self.has(ANY_OWNER).await? || self.may_grant_any().await?)
    }

    /// Whether the keys of this name, in the caller's own tenant, are the caller's.
    pub(super) fn is_subject(&self, admin: &KeyAdmin, subject: &str) -> bool {
        admin.owner_issuers.contains(self.principal().issuer()) && self.principal().subject() == subject
    }

    /// Whether the keys of this owner keep their plan when the caller replaces them: their own do, if they are a person whose
    /// token names none, as most do not. One API key does not become another of its owner on a better plan.
    pub(super) fn keeps_plan(&self, admin: &KeyAdmin, owner: &Owner) -> bool {
        let by_key = self.identities().any(|principal| principal.kind() == PrincipalKind::Key);
        let own = owner.tenant() == self.tenant() && self.is_subject(admin, owner.subject());
        own && !by_key && self.principal().plan().is_none()
    }

    /// Whether the caller reaches the keys of an owner. None is an owner out of every reach but that of all: asking for them
    /// takes the same questions as for those of a foreign tenant.
    pub(super) async fn reaches(&self, admin: &KeyAdmin, owner: Option<&Owner>) -> Result<bool, Rejection> {
        let at_home = owner.filter(|owner| owner.tenant() == self.tenant() && !self.spans_tenants());
        if at_home.is_some_and(|owner| self.is_subject(admin, owner.subject())) {
            return Ok(true);
        }
        let any_owner = self.has(ANY_OWNER).await?;
        if any_owner && at_home.is_some() {
            return Ok(true);
        }
        self.may_grant_any().await
    }

    /// The key, if there is one that the caller reaches.
    pub(super) async fn find(&self, admin: &KeyAdmin, id: &str) -> Result<Hit, Fault> {
        let Ok(id) = id.parse::<KeyId>() else { return Err(Fault::no_such_key()) };
        let hit = admin.store.get(&id).await?;
        let reached = self.reaches(admin, hit.as_ref().map(|hit| hit.record().owner())).await?;
        match hit {
            Some(hit) if reached => Ok(hit),
            Some(_) => {
                self.context().note_telling("key.refused", admin.key(&id).text(" is out of reach"));
                Err(Fault::no_such_key())
            }
            None => Err(Fault::no_such_key()),
        }
    }

    /// Demands to reach an owner whom the caller named.
    pub(super) async fn reach(&self, admin: &KeyAdmin, owner: &Owner) -> Result<(), Fault> {
        if self.reaches(admin, Some(owner)).await? {
            return Ok(());
        }
        self.context().note_telling("key.refused", admin.owner(owner).text(" is out of reach"));
        let field = if owner.tenant() == self.tenant() && !self.spans_tenants() { "subject" } else { "tenant" };
        Err(Fault::not_held(field, "You do not reach this owner."))
    }

    /// Demands that the caller does not lift their own disablement: somebody else may have disabled them, and a token still works.
    pub(super) async fn enable(&self, admin: &KeyAdmin, owner: &Owner) -> Result<(), Fault> {
        let own = owner.tenant() == self.tenant() && self.is_subject(admin, owner.subject());
        if !own || self.may_grant_any().await? {
            return Ok(());
        }
        self.context().note_telling("key.refused", admin.owner(owner).text(" is the caller"));
        Err(Fault::not_held("subject", "Nobody enables themselves."))
    }

    /// Demands that the caller holds what they hand out with a record, and tells which member is too much.
    pub(super) async fn hand_out(&self, excess: Option<Excess>) -> Result<(), Fault> {
        let Some(excess) = excess else { return Ok(()) };
        if self.may_grant_any().await? {
            return Ok(());
        }
        let (field, note, detail) = match excess {
            Excess::NotHeld(field) => (field, format!("{field} is not held"), "You do not hold this yourself."),
            Excess::Unbound => {
                let note = "roles lacks one that binds its maker".to_owned();
                ("roles", note, "You have a role that your keys must have, too.")
            }
        };
        self.context().note("key.refused", &note);
        Err(Fault::not_held(field, detail))
    }

    /// The bounds of the API keys by which the caller acts, whichever slot they fill.
    async fn own_keys(&self, admin: &KeyAdmin) -> Result<OwnKeys, Fault> {
        let mut bounds = OwnKeys::default();
        for key in self.identities().filter(|principal| principal.kind() == PrincipalKind::Key) {
            bounds.end = bounds.end.into_iter().chain(key.expires_at()).min();
            // Where it may be used from, only its record tells; and it may end earlier by now, since it was rotated.
            let Some(hit) = Self::record_of(admin, &key).await? else {
                bounds.unknown = true;
                continue;
            };
            if !hit.is_active(self.now()) {
                return Err(Rejection::from(Ended::Revoked).into());
            }
            bounds.end = bounds.end.into_iter().chain(hit.record().expires()).min();
            bounds.peppered |= matches!(hit.record().scheme(), HashScheme::HmacSha256 { .. });
            bounds.environments.push(hit.record().environment().map(Into::into));
            if !hit.record().addresses().is_empty() {
                bounds.addresses.push(hit.record().addresses().to_vec());
            }
        }
        Ok(bounds)
    }

    /// The record of a caller's key; none if it is a key of another store, whatever has its id here.
    async fn record_of(admin: &KeyAdmin, key: &Principal) -> Result<Option<Hit>, Fault> {
        let Some(Ok(id)) = key.credential_id().map(str::parse::<KeyId>) else { return Ok(None) };
        let hit = admin.store.get(&id).await?;
        Ok(hit.filter(|hit| (hit.record().subject(), hit.record().tenant()) == (key.subject(), key.tenant())))
    }

    /// What is about to be done, in the audit record even if the request is given up while the store works.
    pub(super) fn begins(&self, what: &str, whose: Telling) {
        self.context().note_telling("key.change", Telling::default().text(what).text(" ").then(whose));
    }

    /// Makes a change, and tells it if the store made one. Who hangs up meanwhile must not hide what they did.
    pub(super) async fn change(
        &self,
        change: impl Future<Output = Result<bool, StoreError>> + Send + 'static,
        done: Option<Done>,
    ) -> Result<bool, Fault> {
        let caller = self.clone();
        let work = async move {
            let changed = change.await?;
            done.filter(|_| changed).into_iter().for_each(|done| caller.tell(done));
            Ok(changed)
        };
        let ended = |error| Err(Fault::away(error, None));
        finished(work).await.unwrap_or_else(ended)
    }

    /// What was done. Everything that the router changes is told here.
    fn tell(&self, Done { kind, what, owner, more }: Done) {
        let by = self.principal();
        self.context().note_telling(&kind.as_str().replacen('_', ".", 1), what.clone());
        if let Some((name, told)) = &more {
            self.context().note_telling(name, told.clone());
        }
        self.context().note_telling("owner", owner.clone());
        self.context().note_telling("by", Telling::principal(by));
        let told = Event::about_whom(kind, what).at(self.at()).by(self.context().request_id(), by.clone());
        let told = told.telling("owner", owner);
        event::tell(more.into_iter().fold(told, |told, (name, value)| told.telling(name, value)));
    }
}

/// In what a record goes beyond its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// A member has what they do not hold.
    NotHeld(&'static str),
    /// It lacks a role that takes something away from them.
    Unbound,
}

/// What the caller's own API keys allow at most.
#[derive(Debug, Default)]
pub(super) struct OwnKeys {
    /// When the first of them ends; None is never.
    pub(super) end: Option<u64>,
    /// Whether one of them was hashed under a pepper.
    peppered: bool,
    /// The environment of each of them.
    environments: Vec<Option<Box<str>>>,
    /// For each of them that is bound to networks, those networks.
    addresses: Vec<Vec<IpNet>>,
    /// Whether one of them has no record in this store, so that nobody can say what it is bound to.
    unknown: bool,
}

impl OwnKeys {
    /// What a key is bound to if nothing is said.
    pub(super) fn addresses(&self) -> &[IpNet] {
        self.addresses.first().map_or(&[], Vec::as_slice)
    }

    /// Refuses a key that nobody would take: where a key with a pepper lets its holder in, one without lets in nobody.
    pub(super) fn taken(&self, record: &ApiKeyRecord) -> Result<(), ConfigError> {
        if self.peppered && record.scheme() == HashScheme::Sha256 {
            let problem = "has no pepper, and your own key has one: nobody would take the new key";
            return Err(ConfigError::new("API key hash", record.scheme().to_string(), problem));
        }
        Ok(())
    }

    fn outlived_by(&self, record: &ApiKeyRecord) -> bool {
        self.end.is_some_and(|own| record.expires().is_none_or(|end| end > own))
    }

    fn left_by(&self, record: &ApiKeyRecord) -> bool {
        let within = |own: &[IpNet]| {
            let one = |network: &IpNet| own.iter().any(|allowed| allowed.contains(network));
            !record.addresses().is_empty() && record.addresses().iter().all(one)
        };
        self.unknown || !self.addresses.iter().all(|own| within(own))
    }

    /// The first thing in which a record goes beyond what its maker may do.
    pub(super) fn exceeded_by(&self, admin: &KeyAdmin, record: &ApiKeyRecord, maker: &Principal) -> Option<Excess> {
        let carried = |role: &str| record.roles().iter().any(|own| **own == *role);
        if !record.scopes().iter().all(|scope| maker.has_scope(scope)) {
            Some(Excess::NotHeld("scopes"))
        } else if !record.roles().iter().all(|role| maker.has_role(role)) {
            Some(Excess::NotHeld("roles"))
        } else if admin.binding_roles.iter().any(|role| maker.has_role(role) && !carried(role)) {
            Some(Excess::Unbound)
        } else if self.outlived_by(record) {
            Some(Excess::NotHeld("lifetime"))
        } else if self.left_by(record) {
            Some(Excess::NotHeld("addresses"))
        } else if self.environments.iter().any(|own| own.as_deref() != record.environment()) {
            Some(Excess::NotHeld("environment"))
        } else {
            None
        }
    }
}
