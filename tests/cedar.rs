//! Cedar: what its examples document, how questions are put, entity sources, errors, reload and attacks.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

use std::{collections::HashMap, fs, path::Path};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, Principal, PrincipalBuilder, PrincipalKind, StoreError, StoreErrorKind,
    conformance::{PolicyFixture, PolicyQuestion, entity_source, policy_backend},
    guard::{from_path, policy, require},
    policy::{
        AccessQuery, Attributes, Cedar, CedarBuilder, CedarEntity, CedarUid, Decision, EntitySource, PolicyBackend,
        QueryParts, Reloaded, Resource, Verdict, explain,
    },
};
use serde_json::json;
use support::{NOW, on_route};

const ISSUER: &str = "https://id.example.com";

fn person(subject: &str) -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, subject, "jwt")
}

fn at() -> Instants {
    Instants::new(NOW * 1_000_000_000, 0)
}

fn now(policy: &Cedar, query: &AccessQuery<'_>) -> Verdict {
    match policy.decide_now(query) {
        Now::Known(verdict) => verdict,
        Now::Wait => panic!("nothing is to be waited for"),
    }
}

fn example(name: &str) -> CedarBuilder {
    let file = |end: &str| Path::new("tests/policies").join(format!("{name}.{end}"));
    Cedar::builder()
        .schema_file(file("cedarschema"))
        .policies_file(file("cedar"))
        .entities_file(file("json"))
        .issuer(ISSUER)
}

fn rules(verdict: &Verdict) -> Vec<&str> {
    verdict.rules().iter().map(|rule| &**rule).collect()
}

#[test]
fn the_document_cloud_of_the_cedar_examples() {
    let policy = example("document_cloud").build().unwrap();
    assert!(policy.check_action("ViewDocument").is_ok());
    let unknown = policy.check_action("viewDocument").unwrap_err();
    assert!(unknown.to_string().contains("\"viewDocument\" is no action of the schema"), "{unknown}");
    for (who, action, kind, id, decision, by) in [
        ("alice", "CreateDocument", "Drive", "drive", Decision::Allow, &["drive-owner"][..]),
        ("alice", "ViewDocument", "Document", "alice_public", Decision::Allow, &["document-owner", "public-view"]),
        ("charlie", "ViewDocument", "Document", "alice_public", Decision::Allow, &["public-view"]),
        // Alice has blocked Bob.
        ("bob", "ViewDocument", "Document", "alice_public", Decision::Deny, &["blocked-users"]),
        ("charlie", "CreateDocument", "Drive", "drive", Decision::Deny, &[]),
        ("charlie", "ModifyDocument", "Document", "alice_public", Decision::Allow, &["modifyACL"]),
        ("charlie", "DeleteDocument", "Document", "alice_public", Decision::Deny, &[]),
        ("alice", "DeleteGroup", "Group", "alice_personal", Decision::Allow, &["group-owner"]),
        ("alice", "DeleteGroup", "Group", "bob_personal", Decision::Deny, &[]),
    ] {
        let (subject, thing) = (person(who).build(), Resource::new(kind, id));
        let verdict = now(&policy, &AccessQuery::new(&subject, action, at()).on(&thing));
        assert_eq!((verdict.decision(), rules(&verdict)), (decision, by.to_vec()), "{who} {action} {id}: {verdict:?}");
    }
}

#[test]
fn the_photos_of_the_cedar_documentation_and_a_template() {
    let policy = example("photos").links_file("tests/policies/photos_links.json").version("7").build().unwrap();
    let verdict = |who: &str, action: &str, photo: &str| {
        let (subject, thing) = (person(who).build(), Resource::new("photo", photo));
        now(&policy, &AccessQuery::new(&subject, action, at()).on(&thing))
    };
    let alice = verdict("alice", "view", "VacationPhoto94.jpg");
    assert_eq!((alice.decision(), rules(&alice)), (Decision::Allow, vec!["alice-sees-janes-vacation"]));
    assert_eq!(alice.version().unwrap().as_ref(), "7");
    assert_eq!(verdict("bob", "view", "VacationPhoto94.jpg").decision(), Decision::Deny);
    assert_eq!(verdict("alice", "edit", "VacationPhoto94.jpg").decision(), Decision::Deny);
    let bob = verdict("bob", "comment", "trip.jpg");
    assert_eq!((bob.decision(), rules(&bob)), (Decision::Allow, vec!["trip-for-friends"]));
    assert_eq!(verdict("alice", "view", "trip.jpg").decision(), Decision::Deny);
}

const SHOP: &str = r#"
    namespace Shop {
        entity Role in [Role];
        entity Team in [Team];
        entity User in [Role, Team] { tenant?: String, scopes?: Set<String>, email?: String, level?: Long };
        entity Robot in [Role];
        entity Application;
        entity Order { owner?: User, tenant?: String, status: String, network?: ipaddr };
        type Where = { method?: String, address?: ipaddr, time: datetime, unix_time: Long, acr?: String, ticket?: String };
        action "orders:all";
        action "orders:read", "orders:cancel" in ["orders:all"]
            appliesTo { principal: [User, Robot], resource: Order, context: Where };
        action "orders:list" in ["orders:all"]
            appliesTo { principal: [User, Robot], resource: Application, context: { amount?: Long } };
    }
"#;

fn shop(policies: &str) -> CedarBuilder {
    Cedar::builder()
        .namespace("Shop")
        .principal_type(PrincipalKind::Service, "Robot")
        .without_resource("Application", "shop")
        .schema("shop.cedarschema", SHOP)
        .policies("shop.cedar", policies)
}

/// The verdict on an order of Alice's that is open.
fn on_order(policies: &str, who: PrincipalBuilder, action: &str) -> Verdict {
    let policy = shop(policies).build().unwrap();
    let (subject, attributes) = (who.build(), Attributes::new().with("ticket", "T-7").with("undeclared", "x"));
    let order = Resource::new("order", 42).owned_by(ISSUER, "alice").in_tenant("acme").with("status", "open");
    let order = order.with("network", "10.0.0.0/8").with("undeclared", 1);
    let query = AccessQuery::new(&subject, action, at())
        .on(&order)
        .with_attributes(&attributes)
        .with_route("GET", Some("/orders/{id}"))
        .with_address(Some("10.1.2.3".parse().unwrap()));
    now(&policy, &query)
}

#[test]
fn a_question_is_put_as_the_schema_declares() {
    let when = |condition: &str| {
        format!(
            "permit (principal, action in Shop::Action::\"orders:all\", resource is Shop::Order) when {{ {condition} }};"
        )
    };
    let alice = || {
        person("alice")
            .roles(["clerk"])
            .scopes(["orders", "mail"])
            .tenant("acme")
            .acr("high")
            .claims(r#"{"email": "alice@example.com", "level": 3}"#)
    };
    for condition in [
        r#"principal == Shop::User::"https://id.example.com#alice""#,
        r#"principal in Shop::Role::"clerk""#,
        r#"principal is Shop::User && principal has tenant && principal.tenant == "acme""#,
        r#"principal is Shop::User && principal has scopes && principal.scopes.contains("mail")"#,
        r#"principal is Shop::User && principal has email && principal.email like "*@example.com""#,
        r#"principal is Shop::User && principal has level && principal.level == 3"#,
        r#"resource has owner && resource.owner == principal"#,
        r#"resource has tenant && resource.tenant == "acme""#,
        r#"resource.status == "open" && resource == Shop::Order::"42""#,
        r#"resource has network && context has address && context.address.isInRange(resource.network)"#,
        r#"context has method && context.method == "GET""#,
        r#"context.time == datetime("2027-01-15T08:00:00Z") && context.unix_time == 1800000000"#,
        r#"context has acr && context.acr == "high""#,
        r#"context has ticket && context.ticket == "T-7""#,
    ] {
        let allowed = on_order(&when(condition), alice(), "orders:read");
        assert_eq!(allowed.decision(), Decision::Allow, "{condition}: {allowed:?}");
        assert_eq!(rules(&allowed), ["shop.cedar:1"], "a policy without an @id is named by its place");
        let denied = on_order(&when(&format!("!({condition})")), alice(), "orders:read");
        assert_eq!((denied.decision(), denied.is_firm()), (Decision::Deny, false), "{condition}: {denied:?}");
    }
}

/// Whichever part comes last, no attribute is left out: a forbid that looks at one would never be met.
#[test]
fn a_namespace_in_several_parts_is_one() {
    let entities = "entity User { suspended?: Bool }; entity Order { status: String };";
    let actions = "action read appliesTo { principal: User, resource: Order, context: { address?: ipaddr } };";
    let policies = r#"
        @id("open") permit (principal, action, resource);
        @id("suspended") forbid (principal, action, resource) when { principal has suspended && principal.suspended };
        @id("secret") forbid (principal, action, resource) when { resource.status == "secret" };
        @id("away") forbid (principal, action, resource) when { context has address && context.address.isIpv4() };
    "#;
    for parts in [[("e", entities), ("a", actions)], [("a", actions), ("e", entities)]] {
        let builder = parts.into_iter().fold(Cedar::builder(), |builder, (name, text)| builder.schema(name, text));
        let policy = builder.policies("p", policies).build().unwrap();
        let (good, eve) = (person("alice").build(), person("eve").claims(r#"{"suspended":true}"#).build());
        for (who, status, address, expected) in [
            (&good, "paid", None, "open"),
            (&eve, "paid", None, "suspended"),
            (&good, "secret", None, "secret"),
            (&good, "paid", Some([192, 0, 2, 1].into()), "away"),
        ] {
            let thing = Resource::new("Order", 1).with("status", status);
            let question = AccessQuery::new(who, "read", at()).on(&thing).with_address(address);
            assert_eq!(rules(&now(&policy, &question)), [expected], "{} of {status}", who.subject());
        }
    }
    let twice = Cedar::builder().schema("a", entities).schema("b", "entity User;").policies("p", policies).build();
    assert!(twice.unwrap_err().to_string().contains("User"));
}

#[test]
fn what_the_schema_does_not_know_is_denied() {
    let all = "permit (principal, action, resource);";
    let deny = |who: PrincipalBuilder, action: &str| {
        let verdict = on_order(all, who, action);
        assert_eq!((verdict.decision(), verdict.is_firm()), (Decision::Deny, true), "{verdict:?}");
        verdict.reasons()[0].to_string()
    };
    assert!(deny(person("alice"), "orders:drop").contains("no action \"orders:drop\""));
    assert!(deny(Principal::builder(PrincipalKind::Key, ISSUER, "k", "api_key"), "orders:read").contains("key"));
    assert!(deny(person("alice"), "orders:list").contains("Order"), "an action that is for another type");
    let robot = Principal::builder(PrincipalKind::Service, ISSUER, "r", "jwt");
    assert!(on_order(all, robot, "orders:read").is_allow());

    let policy = shop(all).build().unwrap();
    let alice = person("alice").build();
    assert!(now(&policy, &AccessQuery::new(&alice, "orders:list", at())).is_allow());
    let unknown = Resource::new("invoice", 1);
    assert_eq!(now(&policy, &AccessQuery::new(&alice, "orders:read", at()).on(&unknown)).decision(), Decision::Deny);
    let nothing = Cedar::builder().namespace("Shop").schema("s", SHOP).policies("p", all).build().unwrap();
    assert_eq!(now(&nothing, &AccessQuery::new(&alice, "orders:list", at())).decision(), Decision::Deny);
}

#[test]
fn what_fails_is_neither_allowed_nor_denied_by_luck() {
    let amount = |policies: &str, amount: i64| {
        let policy = shop(policies).build().unwrap();
        let (alice, attributes) = (person("alice").build(), Attributes::new().with("amount", amount));
        now(&policy, &AccessQuery::new(&alice, "orders:list", at()).with_attributes(&attributes))
    };
    let overflow = "context has amount && context.amount * 9223372036854775807 > 0";
    let list = "action == Shop::Action::\"orders:list\"";
    let permit = format!("permit (principal, {list}, resource);");
    let failing_forbid = format!("@id(\"f\") forbid (principal, {list}, resource) when {{ {overflow} }};");
    let failing_permit = format!("@id(\"p\") permit (principal, {list}, resource) when {{ {overflow} }};");
    let forbid = format!("forbid (principal, {list}, resource);");
    for (policies, decision) in [
        (format!("{permit}{failing_forbid}"), Decision::CannotDecide),
        (failing_forbid.clone(), Decision::CannotDecide),
        (failing_permit.clone(), Decision::CannotDecide),
        (format!("{permit}{failing_permit}"), Decision::CannotDecide),
        (format!("{forbid}{failing_permit}"), Decision::Deny),
        (format!("{permit}{forbid}{failing_forbid}"), Decision::Deny),
    ] {
        let verdict = amount(&policies, 2);
        assert_eq!(verdict.decision(), decision, "{policies}: {verdict:?}");
        // Without an overflow they say what they say.
        assert_ne!(amount(&policies, 0).decision(), Decision::CannotDecide, "{policies}");
    }
    let verdict = amount(&failing_forbid, 2);
    assert!(verdict.reasons().iter().any(|reason| reason.contains('f') && reason.contains("overflow")), "{verdict:?}");
}

#[test]
fn entities_that_do_not_fit_the_schema_cannot_be_decided() {
    let policy = shop(
        "permit (principal, action, resource); forbid (principal, action, resource is Shop::Order) when { resource.status == \"secret\" };",
    );
    let policy = policy.build().unwrap();
    let alice = person("alice").build();
    let decide = |order: Resource| now(&policy, &AccessQuery::new(&alice, "orders:read", at()).on(&order)).decision();
    let order = || Resource::new("order", 42);
    assert_eq!(decide(order().with("status", "open")), Decision::Allow);
    assert_eq!(decide(order().with("status", "secret")), Decision::Deny);
    // A value of another type would only be unequal to "secret", and allowed.
    for confused in [
        json!(["secret"]),
        json!({ "a": "secret" }),
        json!(1),
        json!(true),
        json!(1.5),
        json!({ "__entity": { "type": "Shop::User", "id": "secret" } }),
        json!({ "__extn": { "fn": "ip", "arg": "10.0.0.1" } }),
    ] {
        assert_eq!(decide(order().with("status", confused.clone())), Decision::CannotDecide, "{confused}");
    }
    assert_eq!(decide(order()), Decision::CannotDecide, "the schema demands a status");
    assert_eq!(decide(order().with("status", json!(null))), Decision::CannotDecide);
    let broken = person("alice").claims("{").build();
    let order = order().with("status", "open");
    let verdict = now(&policy, &AccessQuery::new(&broken, "orders:read", at()).on(&order));
    assert_eq!(verdict.decision(), Decision::CannotDecide);
    let odd = person("alice").claims(r#"{"level": "high"}"#).build();
    assert_eq!(
        now(&policy, &AccessQuery::new(&odd, "orders:read", at()).on(&order)).decision(),
        Decision::CannotDecide
    );
}

/// What a schema demands and nobody tells is not known: no `has` takes it for absent.
#[test]
fn what_the_schema_demands_must_be_told() {
    const SCHEMA: &str = r#"
        entity Role;
        entity User in [Role];
        entity Service in [Role] { clearance: Long };
        entity Key enum ["deploy"];
        entity Order { status: String };
        entity Note { status?: String };
        entity Shop { open: Bool };
        action read appliesTo { principal: [User, Service, Key], resource: [Order, Note, Shop] };
    "#;
    const POLICIES: &str = r#"
        permit (principal, action, resource);
        forbid (principal, action, resource is Order) when { resource has status && resource.status == "secret" };
        forbid (principal is Service, action, resource) when { principal has clearance && principal.clearance < 3 };
        forbid (principal, action, resource is Shop) when { resource has open && !resource.open };
    "#;
    const ENTITIES: &str =
        r#"[{ "uid": { "type": "Order", "id": "1" }, "attrs": { "status": "open" }, "parents": [] }]"#;
    let builder = || Cedar::builder().schema("s", SCHEMA).policies("p", POLICIES).entities("e", ENTITIES);
    let policy = builder().without_resource("Shop", "shop").build().unwrap();
    let of = |kind: PrincipalKind, claims: &str| {
        Principal::builder(kind, ISSUER, "x", "jwt").roles(["clerk"]).claims(claims).build()
    };
    let user = of(PrincipalKind::User, "{}");
    let on = |subject: &Principal, thing: Resource| now(&policy, &AccessQuery::new(subject, "read", at()).on(&thing));
    let undecided = on(&user, Resource::new("order", 42));
    assert_eq!(undecided.decision(), Decision::CannotDecide, "{undecided:?}");
    assert!(undecided.reasons()[0].contains("status"), "{undecided:?}");
    assert_eq!(on(&user, Resource::new("order", 42).with("status", "secret")).decision(), Decision::Deny);
    assert!(on(&user, Resource::new("order", 42).with("status", "open")).is_allow());
    assert!(on(&user, Resource::new("order", 1)).is_allow(), "a file tells");
    assert!(on(&user, Resource::new("note", 42)).is_allow(), "nothing is demanded");
    for (claims, decision) in [
        ("{}", Decision::CannotDecide),
        (r#"{"email": "x@example.com"}"#, Decision::CannotDecide),
        (r#"{"clearance": 2}"#, Decision::Deny),
        (r#"{"clearance": 3}"#, Decision::Allow),
    ] {
        let verdict = on(&of(PrincipalKind::Service, claims), Resource::new("note", 1));
        assert_eq!(verdict.decision(), decision, "{claims}: {verdict:?}");
    }
    let key = on(&of(PrincipalKind::Key, "{}"), Resource::new("note", 1));
    assert_eq!(key.decision(), Decision::Deny, "a key that is none of the list");
    let nothing = now(&policy, &AccessQuery::new(&user, "read", at()));
    assert_eq!(nothing.decision(), Decision::CannotDecide, "a question without a thing: {nothing:?}");
}

/// The owner that a question names is never left out, and always of the type that the schema declares.
#[test]
fn an_owner_is_of_the_declared_type_or_not_decided() {
    const SCHEMA: &str = r#"
        entity Customer, Service, Key;
        entity Order { owner?: Customer };
        entity Parcel { owner?: Key };
        entity Note { owner?: String };
        entity Shelf;
        action read appliesTo { principal: [Customer, Service, Key], resource: [Order, Parcel, Note, Shelf] };
    "#;
    const POLICIES: &str = r#"
        permit (principal, action, resource);
        forbid (principal, action, resource is Order) when { resource has owner && resource.owner != principal };
        forbid (principal, action, resource is Parcel) when { resource has owner && resource.owner != principal };
    "#;
    const ENTITIES: &str = r#"[{ "uid": { "type": "Order", "id": "kept" }, "parents": [],
        "attrs": { "owner": { "type": "Customer", "id": "alice" } } }]"#;
    // The order of a map of std changes with each policy that is built.
    for _ in 0..8 {
        let policy = Cedar::builder()
            .schema("s", SCHEMA)
            .policies("p", POLICIES)
            .entities("e", ENTITIES)
            .principal_type(PrincipalKind::User, "Customer")
            .issuer(ISSUER)
            .build()
            .unwrap();
        let of = |kind: PrincipalKind, id: &str| Principal::builder(kind, ISSUER, id, "jwt").build();
        let (alice, key) = (of(PrincipalKind::User, "alice"), of(PrincipalKind::Key, "k"));
        let thing = |kind: &'static str, id: &str| Resource::new(kind, id);
        let foreign = "https://evil.example";
        for (name, subject, resource, decision) in [
            ("hers", &alice, thing("order", "1").owned_by(ISSUER, "alice"), Decision::Allow),
            ("another's", &alice, thing("order", "1").owned_by(ISSUER, "bob"), Decision::Deny),
            ("nobody's", &alice, thing("order", "1"), Decision::Allow),
            ("a stranger's", &alice, thing("order", "1").owned_by(foreign, "bob"), Decision::CannotDecide),
            (
                "a stranger's of her name",
                &alice,
                thing("order", "1").owned_by(foreign, "alice"),
                Decision::CannotDecide,
            ),
            ("hers in a file", &alice, thing("order", "kept"), Decision::Allow),
            ("no longer hers", &alice, thing("order", "kept").owned_by(foreign, "bob"), Decision::CannotDecide),
            ("a key's", &key, thing("parcel", "1").owned_by(ISSUER, "k"), Decision::Allow),
            ("another key's", &key, thing("parcel", "1").owned_by(ISSUER, "other"), Decision::Deny),
            ("an owner that is a text", &alice, thing("note", "1").owned_by(ISSUER, "alice"), Decision::CannotDecide),
            ("the text itself", &alice, thing("note", "1").owned_by(ISSUER, "a").with("owner", "a"), Decision::Allow),
            ("no owner is declared", &alice, thing("shelf", "1").owned_by(foreign, "bob"), Decision::Allow),
        ] {
            let verdict = now(&policy, &AccessQuery::new(subject, "read", at()).on(&resource));
            assert_eq!(verdict.decision(), decision, "{name}: {verdict:?}");
        }
    }
}

/// Attributes may be what a client wrote: the fields of a body, or of a column of JSON.
#[test]
fn no_attribute_pretends_to_be_the_owner_or_the_tenant() {
    let policy = Cedar::builder()
        .issuer(ISSUER)
        .schema(
            "s",
            r#"
            entity User { tenant?: String };
            entity Tenant, Team;
            entity Order { owner?: User, tenant?: String };
            entity Room { owner?: Team, tenant?: Tenant };
            action cancel, see, book appliesTo { principal: User, resource: [Order, Room] };
            "#,
        )
        .policies(
            "p",
            r#"
            permit (principal, action == Action::"cancel", resource is Order)
            when { resource has owner && resource.owner == principal };
            permit (principal, action == Action::"see", resource is Order)
            when { principal has tenant && resource has tenant && principal.tenant == resource.tenant };
            permit (principal, action == Action::"book", resource is Room)
            when { resource has owner && resource.owner == Team::"t" && resource has tenant && resource.tenant == Tenant::"acme" };
            forbid (principal, action == Action::"see", resource is Order) unless { resource has tenant };
            "#,
        )
        .build()
        .unwrap();
    let mallory = Principal::builder(PrincipalKind::User, ISSUER, "mallory", "jwt").tenant("acme").build();
    let of = |id: &str| json!({ "type": "User", "id": id });
    let order = || Resource::new("order", 1);
    let alices = || order().owned_by(ISSUER, "alice").in_tenant("globex");
    let hers = || order().owned_by(ISSUER, "mallory").in_tenant("acme");
    let room = || Resource::new("room", 1).owned_by(ISSUER, "alice").in_tenant("globex");
    let (team, tenant) = (json!({ "type": "Team", "id": "t" }), json!({ "type": "Tenant", "id": "acme" }));
    for (name, thing, action, decision) in [
        ("another's", alices(), "cancel", Decision::Deny),
        ("a pretended owner", alices().with("owner", of("mallory")), "cancel", Decision::CannotDecide),
        (
            "in the longer form",
            alices().with("owner", json!({ "__entity": of("mallory") })),
            "cancel",
            Decision::CannotDecide,
        ),
        ("an owner that is a text", alices().with("owner", "mallory"), "cancel", Decision::CannotDecide),
        ("a pretended tenant", alices().with("tenant", "acme"), "see", Decision::CannotDecide),
        ("no tenant at all", alices().with("tenant", json!(null)), "see", Decision::Deny),
        ("a tenant that is a list", alices().with("tenant", json!(["acme"])), "see", Decision::CannotDecide),
        ("hers", hers(), "cancel", Decision::Allow),
        ("the same again", hers().with("owner", of("mallory")).with("tenant", "acme"), "cancel", Decision::Allow),
        (
            "the same in the longer form",
            hers().with("owner", json!({ "__entity": of("mallory") })),
            "cancel",
            Decision::Allow,
        ),
        ("an attribute alone", order().with("owner", of("mallory")), "cancel", Decision::Allow),
        ("a tenant by an attribute alone", order().with("tenant", "acme"), "see", Decision::Allow),
        (
            "a stranger's",
            order().owned_by("https://x", "m").with("owner", of("mallory")),
            "cancel",
            Decision::CannotDecide,
        ),
        ("declared as something else", room().with("owner", team).with("tenant", tenant), "book", Decision::Allow),
        ("what does not fit", room(), "book", Decision::CannotDecide),
    ] {
        let verdict = now(&policy, &AccessQuery::new(&mallory, action, at()).on(&thing));
        assert_eq!(verdict.decision(), decision, "{name}: {verdict:?}");
    }
}

#[test]
fn ids_are_never_parsed() {
    let policies = r#"
        permit (principal == Shop::User::"https://id.example.com#alice", action, resource);
        permit (principal in Shop::Role::"boss", action, resource);
    "#;
    let decide = |who: PrincipalBuilder| on_order(policies, who, "orders:read").decision();
    assert_eq!(decide(person("alice")), Decision::Allow);
    assert_eq!(decide(person("bob").roles(["boss"])), Decision::Allow);
    let long = "alice".repeat(20_000);
    for id in [
        "alice\"",
        "alice\n",
        "alice\0",
        "",
        "ALICE",
        "alice\" || true || \"",
        "Shop::User::\"alice\"",
        "x#alice",
        &long,
    ] {
        assert_eq!(decide(person(id)), Decision::Deny, "{id:.40}");
        assert_eq!(decide(person("bob").roles([id])), Decision::Deny, "{id:.40}");
    }
    for role in ["boss\", Shop::Role::\"boss", "boss\\", "Shop::Role::\"boss\""] {
        assert_eq!(decide(person("bob").roles([role])), Decision::Deny, "{role}");
    }
    // No issuer can end where another one goes on.
    let of = |issuer: &str, subject: &str| {
        let policies = "permit (principal == Shop::User::\"https://a#b#c\", action, resource);";
        on_order(policies, Principal::builder(PrincipalKind::User, issuer, subject, "jwt"), "orders:read").decision()
    };
    assert_eq!(of("https://a", "b#c"), Decision::Allow);
    assert_eq!(of("https://a#b", "c"), Decision::Deny);
    let own = shop("permit (principal == Shop::User::\"alice\", action, resource);").issuer(ISSUER).build().unwrap();
    let list = |who: Principal| now(&own, &AccessQuery::new(&who, "orders:list", at())).decision();
    assert_eq!(list(person("alice").build()), Decision::Allow);
    let foreign = Principal::builder(PrincipalKind::User, "https://evil.example", "alice", "jwt").build();
    assert_eq!(list(foreign), Decision::Deny);
}

#[test]
fn roles_are_in_roles_and_obligations_come_with_the_allow() {
    let entities = r#"[
        { "uid": { "type": "Shop::Role", "id": "manager" }, "attrs": {}, "parents": [{ "type": "Shop::Role", "id": "clerk" }] }
    ]"#;
    let policy = shop(
        "@obligation(\"log, mask\") @advice(\"ask\")\npermit (principal in Shop::Role::\"clerk\", action == Shop::Action::\"orders:list\", resource);",
    );
    let policy = policy.entities("roles.json", entities).build().unwrap();
    let list = |role: &str| {
        let alice = person("alice").roles([role]).build();
        now(&policy, &AccessQuery::new(&alice, "orders:list", at()))
    };
    let verdict = list("manager");
    assert!(verdict.is_allow() && list("clerk").is_allow() && !list("guest").is_allow());
    assert_eq!((verdict.obligations(), verdict.advice()), (&["log".into(), "mask".into()][..], &["ask".into()][..]));
    assert!(list("guest").obligations().is_empty());
}

/// Users and what they are in, from memory or from somebody to be waited for.
#[derive(Debug)]
struct Directory {
    entities: HashMap<CedarUid, Vec<CedarEntity>>,
    waits: bool,
    up: bool,
}

fn directory(waits: bool) -> Directory {
    let alice = CedarEntity::new("Shop::User", "alice").with("level", 7).within(CedarUid::new("Shop::Team", "north"));
    let north = CedarEntity::new("Shop::Team", "north").within(CedarUid::new("Shop::Team", "sales"));
    let order = CedarEntity::new("Shop::Order", "42")
        .with("status", "open")
        .with("owner", json!({ "type": "Shop::User", "id": "alice" }));
    let entities = [(alice.uid().clone(), vec![alice, north]), (order.uid().clone(), vec![order])];
    Directory { entities: entities.into(), waits, up: true }
}

impl Directory {
    fn find(&self, wanted: &CedarUid) -> Result<Vec<CedarEntity>, StoreError> {
        match self.up {
            true => Ok(self.entities.get(wanted).cloned().unwrap_or_default()),
            false => Err(StoreError::new(StoreErrorKind::Unavailable, "directory")),
        }
    }
}

#[async_trait]
impl EntitySource for Directory {
    fn entities_now(&self, wanted: &CedarUid, _: &AccessQuery<'_>) -> Now<Result<Vec<CedarEntity>, StoreError>> {
        if self.waits { Now::Wait } else { Now::Known(self.find(wanted)) }
    }

    async fn entities(&self, wanted: &CedarUid, _: &AccessQuery<'_>) -> Result<Vec<CedarEntity>, StoreError> {
        tokio::task::yield_now().await;
        self.find(wanted)
    }

    fn generation(&self) -> Option<u64> {
        (!self.waits).then_some(3)
    }
}

const OF_DIRECTORY: &str = r#"
    permit (principal is Shop::User in Shop::Team::"sales", action == Shop::Action::"orders:read", resource)
    when { principal has level && principal.level == 7 && resource has owner && resource.owner == principal };
"#;

#[tokio::test]
async fn entities_come_from_a_source() {
    for waits in [false, true] {
        let known = CedarUid::new("Shop::User", "alice");
        entity_source(&directory(waits), known, &person("alice").build()).await;
        let policy = shop(OF_DIRECTORY).issuer(ISSUER).source(directory(waits)).build().unwrap();
        // The credential says less than the directory knows.
        let alice = person("alice").claims(r#"{"level": 1}"#).build();
        let (order, bob) = (Resource::new("order", 42), person("bob").build());
        let query = AccessQuery::new(&alice, "orders:read", at()).on(&order);
        let verdict = policy.decide(&query).await;
        assert!(verdict.is_allow(), "{verdict:?}");
        assert_eq!(
            policy.decide(&AccessQuery::new(&bob, "orders:read", at()).on(&order)).await.decision(),
            Decision::Deny
        );
        // Of whom the thing is, question and source must agree.
        for (owner, decision) in [("alice", Decision::Allow), ("bob", Decision::CannotDecide)] {
            let owned = Resource::new("order", 42).owned_by(ISSUER, owner);
            let verdict = policy.decide(&AccessQuery::new(&alice, "orders:read", at()).on(&owned)).await;
            assert_eq!(verdict.decision(), decision, "{owner}: {verdict:?}");
        }
        assert_eq!(policy.generation(), Some(if waits { 0 } else { 3 }));
        assert_eq!(policy.parts(), QueryParts::ALL);

        let down =
            shop(OF_DIRECTORY).issuer(ISSUER).source(Directory { up: false, ..directory(waits) }).build().unwrap();
        let verdict = down.decide(&query).await;
        assert_eq!(verdict.decision(), Decision::CannotDecide);
        assert!(verdict.reasons()[0].contains("directory"), "{verdict:?}");
    }
}

/// A path names the tenant that the client likes: it does not outweigh what the application keeps of the thing.
#[tokio::test]
async fn a_path_does_not_say_whose_a_kept_thing_is() {
    const SCHEMA: &str = "entity User { tenant?: String }; entity Order { tenant?: String, owner?: User };
        action cancel appliesTo { principal: User, resource: Order };";
    const POLICIES: &str = "permit (principal, action, resource)
        when { principal has tenant && resource has tenant && principal.tenant == resource.tenant };";
    const FILE: &str = r#"[{ "uid": { "type": "Order", "id": "42" }, "parents": [],
        "attrs": { "tenant": "globex", "owner": { "type": "User", "id": "bob" } } }]"#;
    let builder = || Cedar::builder().issuer(ISSUER).schema("s", SCHEMA).policies("p", POLICIES);
    let kept = CedarEntity::new("Order", "42")
        .with("tenant", "globex")
        .with("owner", json!({ "__entity": { "type": "User", "id": "bob" } }));
    let source = || Directory { entities: [(kept.uid().clone(), vec![kept.clone()])].into(), waits: true, up: true };
    let stale = FILE.replace("globex", "acme");
    for (name, policy) in [
        ("a file", builder().entities("e", FILE)),
        ("a source", builder().source(source())),
        ("a source before a file", builder().entities("e", stale).source(source())),
    ] {
        let policy = policy.build().unwrap();
        let guard = || {
            let order = from_path("order", "{id}").unwrap().in_tenant("{tenant}").unwrap();
            require(portcullis::guard::policy("cancel").unwrap()).on(order).with_policy(policy.clone())
        };
        for (who, path, status) in [
            ("globex", "/t/globex/42", 200),
            ("acme", "/t/globex/42", 403),
            ("acme", "/t/acme/42", 503),
            ("acme", "/t/acme/43", 200),
        ] {
            let subject = person("alice").tenant(who);
            assert_eq!(on_route("/t/{tenant}/{id}", guard(), subject, path).await, status, "{name}: {who} {path}");
        }
        let globex = person("alice").tenant("globex").build();
        for (owner, decision) in [("bob", Decision::Allow), ("alice", Decision::CannotDecide)] {
            let order = Resource::new("order", 42).in_tenant("globex").owned_by(ISSUER, owner);
            let verdict = policy.decide(&AccessQuery::new(&globex, "cancel", at()).on(&order)).await;
            assert_eq!(verdict.decision(), decision, "{name}, {owner}: {verdict:?}");
        }
    }
}

/// Where the thing is who asks, both are one entity: what the question tells of the thing would be told of the principal.
#[test]
fn the_question_does_not_say_who_asks() {
    let builder = || {
        Cedar::builder()
            .issuer(ISSUER)
            .schema(
                "s",
                "entity User { admin?: Bool, level?: Long, net?: ipaddr, tags?: Set<String>, tenant?: String };
                 action update appliesTo { principal: User, resource: User };",
            )
            .policies(
                "p",
                r#"
                @id("level") permit (principal, action, resource) when { principal has level && principal.level >= 5 };
                @id("admin") permit (principal, action, resource) when { principal has admin && principal.admin };
                @id("tenant") permit (principal, action, resource) when { principal has tenant && principal.tenant == "globex" };
                "#,
            )
    };
    let kept = CedarEntity::new("User", "alice").with("level", 7);
    let source = Directory { entities: [(kept.uid().clone(), vec![kept])].into(), waits: false, up: true };
    let file = r#"[{ "uid": { "type": "User", "id": "alice" }, "attrs": { "level": 7 }, "parents": [] }]"#;
    let by_credential = builder().build().unwrap();
    let by_source = builder().source(source).build().unwrap();
    let by_file = builder().entities("e", file).build().unwrap();
    let claims = r#"{ "level": 1, "net": "10.0.0.0/8", "tags": ["a", "b"] }"#;
    let of = |id: &str| Resource::new("user", id);
    let (alice, bob) = (|| of("alice"), || of("bob"));
    for (name, policy, thing, decision) in [
        ("nothing told", &by_credential, alice(), Decision::Deny),
        ("of somebody else", &by_credential, bob().with("level", 9).with("admin", true), Decision::Deny),
        ("of somebody else in another tenant", &by_credential, bob().in_tenant("globex"), Decision::Deny),
        ("more than the credential says", &by_credential, alice().with("level", 9), Decision::CannotDecide),
        ("less", &by_credential, alice().with("level", 0), Decision::CannotDecide),
        ("what nobody says", &by_credential, alice().with("admin", true), Decision::CannotDecide),
        ("in another tenant", &by_credential, alice().in_tenant("globex"), Decision::CannotDecide),
        ("the same tenant", &by_credential, alice().in_tenant("acme"), Decision::Deny),
        ("the same", &by_credential, alice().with("level", 1), Decision::Deny),
        (
            "the same in other words",
            &by_credential,
            alice().with("tags", json!(["b", "a", "b"])).with("net", "10.0.0.0/8"),
            Decision::Deny,
        ),
        ("what the schema does not have", &by_credential, alice().with("shoe", 43), Decision::Deny),
        ("null", &by_credential, alice().with("admin", json!(null)), Decision::Deny),
        ("as the source says", &by_source, alice().with("level", 7), Decision::Allow),
        ("as the credential says, and not the source", &by_source, alice().with("level", 1), Decision::CannotDecide),
        ("as the file says", &by_file, alice().with("level", 7), Decision::Allow),
        ("more than the file says", &by_file, alice().with("level", 9), Decision::CannotDecide),
    ] {
        let who = person("alice").tenant("acme").claims(claims).build();
        let verdict = now(policy, &AccessQuery::new(&who, "update", at()).on(&thing));
        assert_eq!(verdict.decision(), decision, "{name}: {verdict:?}");
    }
    // Who has no tenant gets none by a path.
    let (nobodys, thing) = (person("alice").build(), alice().in_tenant("globex"));
    let verdict = now(&by_credential, &AccessQuery::new(&nobodys, "update", at()).on(&thing));
    assert_eq!(verdict.decision(), Decision::CannotDecide, "{verdict:?}");
    assert!(verdict.reasons()[0].contains("tells another tenant of User::\"alice\", who asks"), "{verdict:?}");
}

#[tokio::test]
async fn cedar_conforms() {
    let policies = "permit (principal in Shop::Role::\"clerk\", action == Shop::Action::\"orders:read\", resource);\n\
        permit (principal, action == Shop::Action::\"orders:cancel\", resource) when { context.unix_time * 9223372036854775807 > 0 };";
    let clerk = person("alice").roles(["clerk"]).build();
    let question = |action: &str, status: &str| {
        PolicyQuestion::new(clerk.clone(), action).on(Resource::new("order", 1).with("status", status))
    };
    let plain = shop(policies).build().unwrap();
    let fixture = PolicyFixture::new(question("orders:read", "open"), question("orders:list", "open"));
    policy_backend(&plain, fixture.undecidable(question("orders:cancel", "open"))).await;
    let least = Cedar::builder()
        .schema(
            "s",
            "entity Role; entity User in [Role]; entity T; action a appliesTo { principal: User, resource: T };",
        )
        .policies("p", "permit (principal in Role::\"clerk\", action == Action::\"a\", resource == T::\"1\");")
        .build()
        .unwrap();
    let on = |id: u8| PolicyQuestion::new(clerk.clone(), "a").on(Resource::new("T", id));
    policy_backend(&least, PolicyFixture::new(on(1), on(2))).await;
    assert!(!least.parts().has(QueryParts::METHOD) && !least.parts().has(QueryParts::TIME));
    for waits in [false, true] {
        let policy =
            shop(&format!("{policies}{OF_DIRECTORY}")).issuer(ISSUER).source(directory(waits)).build().unwrap();
        let fixture = PolicyFixture::new(question("orders:read", "open"), question("orders:list", "open"));
        policy_backend(&policy, fixture).await;
    }
    let order = Resource::new("order", 1).with("status", "open");
    let told = explain(&plain, &AccessQuery::new(&clerk, "orders:read", at()).on(&order)).await.to_string();
    assert!(told.contains("permit shop.cedar:1: applies") && told.contains("1 of 2 policies match by scope"), "{told}");
}

/// The parser goes one step deeper for each, until the process ends: a file that is watched must not do that.
#[test]
fn what_is_nested_too_deeply_is_refused() {
    let schema = |kind: String| {
        format!(
            "entity User;\nentity Order {{ n: {kind} }};\naction read appliesTo {{ principal: User, resource: Order }};"
        )
    };
    let built = |kind: String, condition: String| {
        let policy = format!("permit (principal, action, resource)\nwhen {{ {condition} }};");
        Cedar::builder().schema("s.cedarschema", schema(kind)).policies("p.cedar", policy).build()
    };
    let around = |open: &str, close: &str, times| format!("{}resource.n{}", open.repeat(times), close.repeat(times));
    for (name, condition) in [
        ("parentheses", around("(", ")", 20_000)),
        ("conjunctions", around("", " && resource.n", 20_000)),
        ("disjunctions", around("", "||resource.n", 20_000)),
        ("conditions", around("if resource.n then ", " else false", 5_000)),
        ("sets", around("[", "]", 20_000)),
        ("records", around("{a: ", "}", 20_000)),
        ("negations", around("!", "", 20_000)),
    ] {
        let error = built("Bool".to_owned(), condition).map(|_| ()).expect_err(name);
        assert!(error.to_string().contains("nested too deeply") && error.setting() == "p.cedar:2", "{name}: {error}");
    }
    let error = built(format!("{}Bool{}", "Set<".repeat(20_000), ">".repeat(20_000)), "true".to_owned()).unwrap_err();
    assert!(error.to_string().contains("nested too deeply") && error.setting() == "s.cedarschema:2", "{error}");
    for good in [
        around("", " && resource.n", 900),
        around("(", ")", 30),
        around("if resource.n then ", " else false", 190),
        format!("resource.n || \"{}\" like \"*\" // {}\n", "[".repeat(300), "(".repeat(300)),
        format!("resource.n{}", " || 1 < 2".repeat(900)),
    ] {
        assert!(built("Bool".to_owned(), good.clone()).is_ok(), "{good}: {:?}", built("Bool".to_owned(), good.clone()));
    }
}

#[test]
fn bad_documents_are_refused_with_file_line_and_reason() {
    let good = "permit (principal, action, resource);";
    let order = r#"[
        { "uid": { "type": "Shop::Team", "id": "a" }, "attrs": {}, "parents": [] },
        "#;
    for (policies, entities, links, parts) in [
        ("permit (principal, action,\n resource) when { ;", "[]", "[]", &["shop.cedar:2", "unexpected"][..]),
        (
            "permit (principal, action, resource);\n\npermit (principal, action == Shop::Action::\"nope\", resource);",
            "[]",
            "[]",
            &["shop.cedar:3", "nope"],
        ),
        (
            "// one\npermit (principal, action, resource is Shop::Order)\nwhen { resource.colour == 1 };",
            "[]",
            "[]",
            &["shop.cedar:3", "colour"],
        ),
        ("permit (principal is Shop::Nobody, action, resource);", "[]", "[]", &["shop.cedar:1", "Shop::Nobody"]),
        (
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") permit (principal, action, resource);",
            "[]",
            "[]",
            &["shop.cedar:2", "\"x\"", "shop.cedar:1"],
        ),
        ("// nothing", "[]", "[]", &["shop.cedar", "empty"]),
        ("@obligations(\"mask\") permit (principal, action, resource);", "[]", "[]", &["shop.cedar:1", "@obligation?"]),
        ("@StepUp(\"factors=2\") forbid (principal, action, resource);", "[]", "[]", &["shop.cedar:1", "@step_up?"]),
        ("@obligation(\"mask\") forbid (principal, action, resource);", "[]", "[]", &["shop.cedar:1", "on a forbid"]),
        ("@obligation(\"mask,\") permit (principal, action, resource);", "[]", "[]", &["shop.cedar:1", "empty name"]),
        (
            good,
            &format!(
                "{order}{{ \"uid\": {{ \"type\": \"Shop::Order\", \"id\": \"o\" }}, \"attrs\": {{ \"status\": 1 }}, \"parents\": [] }}]"
            ),
            "[]",
            &["entities.json:3", "status"],
        ),
        (
            good,
            &format!(
                "{order}{{ \"uid\": {{ \"type\": \"Shop::Ghost\", \"id\": \"o\" }}, \"attrs\": {{}}, \"parents\": [] }}]"
            ),
            "[]",
            &["entities.json:3", "Shop::Ghost"],
        ),
        (good, "[\n{ \"uid\": ", "[]", &["entities.json:2"]),
        (good, "[]", "[\n{ \"template_id\": \"t\", \"link_id\": \"l\", \"args\": {} }]", &["links.json:2", "\"l\""]),
        (
            "@id(\"t\") permit (principal == ?principal, action, resource);",
            "[]",
            "[{ \"template_id\": \"t\", \"link_id\": \"l\", \"args\": { \"?principal\": \"Shop::User::alice\" } }]",
            &["links.json:1", "?principal"],
        ),
        (
            "@id(\"t\") permit (principal == ?principal, action, resource);",
            "[]",
            "[{ \"template_id\": \"t\", \"link_id\": \"t\", \"args\": { \"?principal\": \"Shop::User::\\\"a\\\"\" } }]",
            &["links.json:1", "another policy"],
        ),
        (good, "[]", r#"[["t", "l", { "?principal": "Shop::User::\"a\"" }]]"#, &["links.json:1", "expected a table"]),
    ] {
        let built = shop(policies).entities("entities.json", entities).links("links.json", links).build();
        let error = built.expect_err(policies).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{policies}: {error}");
    }
    let refused = |builder: CedarBuilder| builder.build().unwrap_err().to_string();
    assert!(refused(Cedar::builder().policies("p", good)).contains("schema"));
    assert!(refused(Cedar::builder().schema("s", SHOP)).contains("policies"), "no document of policies at all");
    for empty in ["", " \n", "// forbid (principal, action, resource);"] {
        let error = refused(shop(good).policies("forbids.cedar", empty));
        assert!(error.contains("forbids.cedar") && error.contains("empty"), "{empty:?}: {error}");
    }
    let template = "@id(\"t\") forbid (principal == ?principal, action, resource);";
    shop(good).policies("templates.cedar", template).build().unwrap();
    assert!(
        refused(Cedar::builder().policies("p", good).schema("s.cedarschema", "entity A;\nentity B in [C];"))
            .contains('C')
    );
    assert!(
        refused(Cedar::builder().policies("p", good).schema("s.cedarschema", "entity A;\nentity"))
            .contains("s.cedarschema:2")
    );
    for (builder, name) in [
        (shop(good).role_type("Rule"), "Shop::Rule"),
        (shop(good).resource_type("order", "Ordre"), "Shop::Ordre"),
        (shop(good).principal_type(PrincipalKind::User, "Usr"), "Shop::Usr"),
        (shop(good).without_resource("App", "x"), "Shop::App"),
        (shop(good).namespace("Shap"), "Shap"),
    ] {
        let error = refused(builder);
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_bad_newer_policy_never_runs() {
    let dir = tempfile::tempdir().unwrap();
    let at_path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| fs::write(at_path(name), text).unwrap();
    let clerks = "permit (principal in Shop::Role::\"clerk\", action == Shop::Action::\"orders:list\", resource);";
    write("shop.cedar", clerks);
    write("shop.cedarschema", SHOP);
    write("entities.json", "[]");
    let policy = Cedar::builder()
        .namespace("Shop")
        .without_resource("Application", "shop")
        .policies_file(at_path("shop.cedar"))
        .schema_file(at_path("shop.cedarschema"))
        .entities_file(at_path("entities.json"))
        .build()
        .unwrap();
    let list = |role: &str| {
        let alice = person("alice").roles([role]).build();
        now(&policy, &AccessQuery::new(&alice, "orders:list", at())).is_allow()
    };
    assert!(list("clerk") && !list("boss"));
    let before = policy.version();
    for (name, bad, place) in [
        ("shop.cedar", "permit (principal, action, resource", "shop.cedar:1"),
        ("shop.cedar", "", "empty"),
        ("shop.cedar", "permit (principal is Shop::Nobody, action, resource);", "shop.cedar:1"),
        ("shop.cedarschema", "entity User;", "Shop"),
        ("entities.json", "[{}]", "entities.json:1"),
    ] {
        let good = fs::read_to_string(at_path(name)).unwrap();
        write(name, bad);
        let error = policy.reload().unwrap_err().to_string();
        assert!(error.contains(place), "{name}: {error}");
        assert!(policy.reload_state().unwrap().failing().unwrap().contains(place));
        assert!(list("clerk") && !list("boss"), "the policy that ran stays");
        write(name, &good);
        policy.reload().unwrap();
    }
    assert_eq!(policy.version(), before);
    let generation = policy.generation().unwrap();
    write(
        "entities.json",
        r#"[{ "uid": { "type": "Shop::Role", "id": "boss" }, "attrs": {}, "parents": [{ "type": "Shop::Role", "id": "clerk" }] }]"#,
    );
    assert_eq!(policy.reload().unwrap(), Reloaded::Replaced);
    assert!(list("clerk") && list("boss"));
    assert_eq!(policy.generation(), Some(generation + 1));
    assert_ne!(policy.version(), before);
}

/// Written by truncating it first: for a moment there is nothing in it.
#[test]
fn an_emptied_file_of_forbids_lets_no_permit_run_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at_path = |name: &str| dir.path().join(name);
    let forbid = "forbid (principal, action, resource) when { principal in Shop::Role::\"barred\" };";
    fs::write(at_path("permits.cedar"), "permit (principal, action, resource);").unwrap();
    fs::write(at_path("forbids.cedar"), forbid).unwrap();
    let policy = Cedar::builder()
        .namespace("Shop")
        .without_resource("Application", "shop")
        .schema("shop.cedarschema", SHOP)
        .policies_file(at_path("permits.cedar"))
        .policies_file(at_path("forbids.cedar"))
        .build()
        .unwrap();
    let barred = person("mallory").roles(["barred"]).build();
    let is_denied = || !now(&policy, &AccessQuery::new(&barred, "orders:list", at())).is_allow();
    assert!(is_denied());
    for half in ["", "// forbids", "forbid (principal, action, resource) when { prin"] {
        fs::write(at_path("forbids.cedar"), half).unwrap();
        let error = policy.reload().unwrap_err().to_string();
        assert!(error.contains("forbids.cedar"), "{half:?}: {error}");
        assert!(is_denied() && policy.reload_state().unwrap().failing().is_some(), "{half:?}");
    }
    fs::write(at_path("forbids.cedar"), forbid).unwrap();
    assert_eq!(policy.reload().unwrap(), Reloaded::Unchanged);
    assert!(is_denied() && policy.reload_state().unwrap().failing().is_none());
}

#[tokio::test]
async fn cedar_guards_a_route() {
    let guarded = |who: &'static str, path: &'static str| async move {
        let guard = require(policy("view").unwrap())
            .on(from_path("photo", "{photo}").unwrap())
            .with_policy(example("photos").build().unwrap());
        on_route("/photos/{photo}", guard, person(who), path).await
    };
    assert_eq!(guarded("alice", "/photos/VacationPhoto94.jpg").await, 200);
    assert_eq!(guarded("bob", "/photos/VacationPhoto94.jpg").await, 403);
    assert_eq!(guarded("alice", "/photos/other.jpg%22%20in%20Album").await, 403);
}
