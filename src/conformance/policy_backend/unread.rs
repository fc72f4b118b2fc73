//! Questions that differ in one part alone.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use crate::{
    clock::Instants,
    policy::{AccessQuery, Attributes, QueryParts, Resource},
    principal::{Confirmation, Principal, PrincipalKind},
};

const NAME: &str = "portcullis-conformance";
/// In nanoseconds.
const HOUR: u64 = 3600 * 1_000_000_000;
const YEAR: u64 = 365 * 24 * HOUR;
/// What leads into other hours of the day and other days of the week.
const HOURS: [u64; 9] = [7, 14, 21, 24, 48, 72, 96, 120, 144];

const OF_A_PRINCIPAL: [QueryParts; 7] = [
    QueryParts::SUBJECT,
    QueryParts::ROLES,
    QueryParts::SCOPES,
    QueryParts::PERMISSIONS,
    QueryParts::TENANT,
    QueryParts::STRENGTH,
    QueryParts::CLAIMS,
];

/// A question, and others that differ from it in one part each.
pub(super) struct Alike<'a> {
    pub(super) query: AccessQuery<'a>,
    pub(super) others: Vec<(QueryParts, AccessQuery<'a>)>,
}

/// Who and what a question can be about.
pub(super) struct Others {
    people: Vec<Principal>,
    things: Vec<Resource>,
}

impl Others {
    /// What the fixture's questions name, besides somebody who has everything and somebody who has nothing: the answer to one of
    /// them may hang on what only another has.
    pub(super) fn new<'a>(questions: impl Iterator<Item = (&'a Principal, Option<&'a Resource>)>) -> Self {
        let (mut people, mut things) = (vec![rich(), poor()], Vec::new());
        for (subject, resource) in questions {
            let mut own = Resource::new(NAME, NAME).owned_by(subject.issuer(), subject.subject());
            if let Some(tenant) = subject.tenant() {
                own = own.in_tenant(tenant);
            }
            people.push(subject.clone());
            things.push(own);
            things.extend(resource.cloned());
            if let Some((issuer, name)) = resource.and_then(Resource::owner) {
                people.push(Principal::builder(subject.kind(), issuer, name, subject.credential()).build());
            }
        }
        let odd = Resource::new(NAME, "another");
        things.extend([odd.clone().owned_by(NAME, NAME).in_tenant(NAME).with(NAME, true), odd]);
        Self { people, things }
    }

    /// Everybody who differs from `subject` in one part that is not among `parts`.
    pub(super) fn principals(&self, parts: QueryParts, subject: &Principal) -> Vec<(QueryParts, Principal)> {
        let unread = OF_A_PRINCIPAL.into_iter().filter(|part| !parts.has(*part));
        unread.flat_map(|part| self.people.iter().map(move |from| (part, with_part(subject, part, from)))).collect()
    }

    /// Everything that differs from `resource` in one part that is not among `parts`.
    pub(super) fn resources(&self, parts: QueryParts, resource: Option<&Resource>) -> Vec<(QueryParts, Resource)> {
        let mut changed = Vec::new();
        for from in &self.things {
            let named = |of: &Resource| Resource::new(of.kind().to_owned(), of.id());
            if !parts.has(QueryParts::RESOURCE) {
                let facts = resource.map_or_else(|| named(from), |of| with_facts(named(from), of));
                changed.push((QueryParts::RESOURCE, facts));
            }
            if !parts.has(QueryParts::RESOURCE_FACTS) {
                // Without a thing, facts are those of one that is named besides.
                let name = resource.or((!parts.has(QueryParts::RESOURCE)).then_some(from));
                changed.extend(name.map(|of| (QueryParts::RESOURCE_FACTS, with_facts(named(of), from))));
            }
        }
        changed
    }
}

/// Questions that must all get one verdict if it depends on `parts` alone; `principals` and `resources` are those that [`Others`]
/// gave for the question.
pub(super) fn alike<'a>(
    parts: QueryParts,
    query: AccessQuery<'a>,
    others: &'a Others,
    principals: &'a [(QueryParts, Principal)],
    resources: &'a [(QueryParts, Resource)],
) -> [Alike<'a>; 2] {
    static ATTRIBUTES: LazyLock<Attributes> = LazyLock::new(|| Attributes::new().with(NAME, "an attribute"));
    static NO_ATTRIBUTES: Attributes = Attributes::new();
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77));
    const INSIDE: [IpAddr; 3] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77))];
    let at = query.at();
    let later = Instants::new(at.unix_nanos().saturating_add(YEAR), at.monotonic_nanos().saturating_add(YEAR));
    let earlier = Instants::new(at.unix_nanos().saturating_sub(YEAR), at.monotonic_nanos().saturating_sub(YEAR));

    let mut changed = vec![
        (QueryParts::ATTRIBUTES, query.with_attributes(&ATTRIBUTES)),
        (QueryParts::ATTRIBUTES, query.with_attributes(&NO_ATTRIBUTES)),
        (QueryParts::METHOD, query.with_route(NAME, None)),
        (QueryParts::METHOD, query.with_route("GET", None)),
        (QueryParts::METHOD, query.with_route("DELETE", None)),
        (QueryParts::ADDRESS, query.with_address(Some(V4))),
        (QueryParts::ADDRESS, query.with_address(Some(V6))),
        (QueryParts::TIME, query.at_time(later)),
        (QueryParts::TIME, query.at_time(earlier)),
    ];
    changed.extend(HOURS.map(|hours| {
        let by = hours.saturating_mul(HOUR);
        let later = Instants::new(at.unix_nanos().saturating_add(by), at.monotonic_nanos().saturating_add(by));
        (QueryParts::TIME, query.at_time(later))
    }));
    changed.extend(INSIDE.map(|address| (QueryParts::ADDRESS, query.with_address(Some(address)))));
    changed.extend(others.people.iter().map(|client| (QueryParts::CLIENT, query.with_client(Some(client)))));
    changed.extend(resources.iter().map(|(part, resource)| (*part, query.on(resource))));
    let of = |subject| AccessQuery::new(subject, query.action(), at);
    changed.extend(
        principals.iter().map(|(part, subject)| (*part, query.resource().map_or(of(subject), |on| of(subject).on(on)))),
    );
    // Without a thing there are no facts of one either. One that has none is no thing to who reads facts alone.
    if !parts.has(QueryParts::RESOURCE_FACTS) || !query.resource().is_some_and(has_facts) {
        changed.push((QueryParts::RESOURCE, of(query.subject())));
    }
    // A question without a method has no route.
    let got = query.with_route("GET", None);
    let routed = vec![(QueryParts::ROUTE, query.with_route("GET", Some("/portcullis-conformance")))];
    [(query, changed), (got, routed)].map(|(query, mut others)| {
        others.retain(|(part, _)| !parts.has(*part));
        Alike { query, others }
    })
}

fn has_facts(thing: &Resource) -> bool {
    thing.owners().next().is_some() || thing.tenant().is_some() || !thing.attributes().is_empty()
}

/// Has something in each part.
fn rich() -> Principal {
    Principal::builder(PrincipalKind::Service, NAME, "rich", NAME)
        .roles([NAME])
        .scopes([NAME])
        .permissions([NAME])
        .tenant(NAME)
        .acr(NAME)
        .methods(["hwk", "fpt", NAME])
        .auth_time(u64::from(u32::MAX))
        .credential_id(NAME)
        .plan(NAME)
        .expires_at(u64::from(u32::MAX))
        .claims(r#"{"portcullis-conformance": true}"#)
        .confirmation(Confirmation::new().with_key_thumbprint([7; 32]))
        .build()
}

fn poor() -> Principal {
    Principal::builder(PrincipalKind::Key, NAME, "poor", "another").build()
}

/// Who is as `of`, but for one part, which is that of `from`.
fn with_part(of: &Principal, part: QueryParts, from: &Principal) -> Principal {
    let of = |asked| if part == asked { from } else { of };
    let (named, strength, claims) = (of(QueryParts::SUBJECT), of(QueryParts::STRENGTH), of(QueryParts::CLAIMS));
    let mut builder = Principal::builder(claims.kind(), named.issuer(), named.subject(), claims.credential())
        .roles(of(QueryParts::ROLES).roles())
        .scopes(of(QueryParts::SCOPES).scopes())
        .permissions(of(QueryParts::PERMISSIONS).permissions())
        .methods(strength.methods());
    if let Some(tenant) = of(QueryParts::TENANT).tenant() {
        builder = builder.tenant(tenant);
    }
    if let Some(class) = strength.acr() {
        builder = builder.acr(class);
    }
    if let Some(time) = strength.auth_time() {
        builder = builder.auth_time(time);
    }
    if let Some(id) = claims.credential_id() {
        builder = builder.credential_id(id);
    }
    if let Some(plan) = claims.plan() {
        builder = builder.plan(plan);
    }
    if let Some(end) = claims.expires_at() {
        builder = builder.expires_at(end);
    }
    if let Some(text) = claims.claims_text() {
        builder = builder.claims(text);
    }
    if let Some(bound) = claims.confirmation() {
        builder = builder.confirmation(*bound);
    }
    builder.build()
}

/// The thing that `named` names, with what is known of `from`.
fn with_facts(mut named: Resource, from: &Resource) -> Resource {
    if let Some((issuer, subject)) = from.owner() {
        named = named.owned_by(issuer, subject);
    }
    let further = from.owners().skip(from.owner().iter().len());
    named = further.fold(named, |named, (issuer, subject)| named.also_owned_by(issuer, subject));
    if let Some(tenant) = from.tenant() {
        named = named.in_tenant(tenant);
    }
    from.attributes().iter().fold(named, |named, (name, value)| named.with(name.to_owned(), value.clone()))
}
