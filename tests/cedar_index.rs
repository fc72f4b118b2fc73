//! Cedar finds policies by their scope: the answer is the one of all policies, whatever they are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, str::FromStr};

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicyId, PolicySet, Request, Schema, SlotId};
use portcullis::{
    Instants, Now, Principal, PrincipalKind,
    policy::{AccessQuery, Attributes, Cedar, Decision, PolicyBackend, Resource},
};
use proptest::prelude::*;
use serde_json::json;

const ISSUER: &str = "https://id.example.com";

const SCHEMA: &str = r#"
    entity Group in [Group];
    entity User in [Group] { level: Long };
    entity Service in [Group] { level: Long };
    entity Folder in [Folder];
    entity Doc in [Folder] { open: Bool };
    action all;
    action some in [all];
    action read in [some]
        appliesTo { principal: [User, Service], resource: [Doc, Folder], context: { n: Long } };
    action write in [all, some]
        appliesTo { principal: [User, Service], resource: [Doc, Folder], context: { n: Long } };
    action admin
        appliesTo { principal: [User, Service], resource: [Doc, Folder], context: { n: Long } };
"#;

/// A policy without its effect: the constraints, a condition, and whether the entities are slots.
#[derive(Clone, Debug)]
struct Written {
    permit: bool,
    principal: Constraint,
    action: String,
    resource: Constraint,
    condition: &'static str,
    linked: bool,
}

#[derive(Clone, Debug)]
enum Constraint {
    Any,
    Is(&'static str),
    Eq(String),
    In(String),
    IsIn(&'static str, String),
}

impl Constraint {
    /// With the entity or, if there is one, with the slot; and what goes into the slot.
    fn text(&self, name: &str, slot: bool) -> (String, Option<&String>) {
        let of = |uid: &String| if slot { format!("?{name}") } else { uid.clone() };
        match self {
            Self::Any => (name.to_owned(), None),
            Self::Is(kind) => (format!("{name} is {kind}"), None),
            Self::Eq(uid) => (format!("{name} == {}", of(uid)), Some(uid)),
            Self::In(uid) => (format!("{name} in {}", of(uid)), Some(uid)),
            Self::IsIn(kind, uid) => (format!("{name} is {kind} in {}", of(uid)), Some(uid)),
        }
    }
}

impl Written {
    fn text(&self, id: usize) -> String {
        let effect = if self.permit { "permit" } else { "forbid" };
        let principal = self.principal.text("principal", self.linked).0;
        let resource = self.resource.text("resource", self.linked).0;
        format!("@id(\"p{id}\")\n{effect} ({principal}, {}, {resource}){};\n", self.action, self.condition)
    }

    fn slots(&self) -> Vec<(&'static str, &String)> {
        let principal = self.principal.text("principal", true).1.map(|uid| ("?principal", uid));
        let resource = self.resource.text("resource", true).1.map(|uid| ("?resource", uid));
        principal.into_iter().chain(resource).filter(|_| self.linked).collect()
    }
}

fn uid(kind: &'static str, count: usize) -> impl Strategy<Value = String> {
    (0..count).prop_map(move |number| format!("{kind}::\"{number}\""))
}

fn principal() -> impl Strategy<Value = Constraint> {
    prop_oneof![
        2 => Just(Constraint::Any),
        1 => prop_oneof![Just("User"), Just("Service")].prop_map(Constraint::Is),
        3 => prop_oneof![uid("User", 4), uid("Service", 2)].prop_map(Constraint::Eq),
        3 => uid("Group", 4).prop_map(Constraint::In),
        1 => uid("User", 4).prop_map(Constraint::In),
        2 => uid("Group", 4).prop_map(|group| Constraint::IsIn("User", group)),
    ]
}

fn resource() -> impl Strategy<Value = Constraint> {
    prop_oneof![
        2 => Just(Constraint::Any),
        1 => prop_oneof![Just("Doc"), Just("Folder")].prop_map(Constraint::Is),
        2 => prop_oneof![uid("Doc", 4), uid("Folder", 3)].prop_map(Constraint::Eq),
        3 => uid("Folder", 4).prop_map(Constraint::In),
        2 => uid("Folder", 4).prop_map(|folder| Constraint::IsIn("Doc", folder)),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let action = prop_oneof![
        Just("action"),
        Just("action == Action::\"read\""),
        Just("action == Action::\"write\""),
        Just("action in Action::\"all\""),
        Just("action in [Action::\"some\", Action::\"all\", Action::\"admin\"]"),
        Just("action in [Action::\"read\", Action::\"admin\"]"),
    ];
    let condition = prop_oneof![
        3 => Just(""),
        1 => Just(" when { context.n > 1 }"),
        1 => Just(" when { principal.level == 2 }"),
        1 => Just(" when { resource has open && resource.open }"),
        1 => Just(" unless { principal in Group::\"1\" }"),
        // Entities that only the policy names.
        1 => Just(" when { User::\"3\".level == 3 }"),
        // Fails for some.
        1 => Just(" when { context.n * 9223372036854775807 > 0 }"),
    ];
    (any::<bool>(), principal(), action, resource(), condition, any::<bool>()).prop_map(
        |(permit, principal, action, resource, condition, linked)| Written {
            permit,
            principal,
            action: action.to_owned(),
            resource,
            condition,
            linked,
        },
    )
}

/// Who is in which group, and which group, folder and document is in which other.
fn world() -> impl Strategy<Value = String> {
    let groups = |count: usize| proptest::collection::vec(proptest::collection::vec(0..4_usize, 0..3), count);
    (groups(4), groups(2), groups(4), groups(4), groups(4)).prop_map(|(users, services, inner, docs, folders)| {
        let mut entities = Vec::new();
        let mut put = |kind: &str, id: usize, attributes: serde_json::Value, of: &str, parents: Vec<usize>| {
            let parents: BTreeSet<usize> = parents.into_iter().collect();
            let parents: Vec<_> = parents.into_iter().map(|id| json!({ "type": of, "id": id.to_string() })).collect();
            entities.push(
                json!({ "uid": { "type": kind, "id": id.to_string() }, "attrs": attributes, "parents": parents }),
            );
        };
        for (id, parents) in users.into_iter().enumerate() {
            put("User", id, json!({ "level": id }), "Group", parents);
        }
        for (id, parents) in services.into_iter().enumerate() {
            put("Service", id, json!({ "level": id }), "Group", parents);
        }
        for (id, parents) in docs.into_iter().enumerate() {
            put("Doc", id, json!({ "open": id % 2 == 0 }), "Folder", parents);
        }
        // No circles: only in what has a lower number.
        for (id, parents) in inner.into_iter().enumerate() {
            put("Group", id, json!({}), "Group", parents.into_iter().filter(|parent| *parent < id).collect());
        }
        for (id, parents) in folders.into_iter().enumerate() {
            put("Folder", id, json!({}), "Folder", parents.into_iter().filter(|parent| *parent < id).collect());
        }
        json!(entities).to_string()
    })
}

/// What Cedar says when it evaluates all policies: who decided, and whether one failed.
fn unindexed(
    set: &PolicySet,
    schema: &Schema,
    entities: &str,
    uids: [EntityUid; 3],
    n: i64,
) -> (bool, Vec<String>, bool) {
    let [principal, action, resource] = uids;
    let entities = Entities::from_json_str(entities, Some(schema)).unwrap();
    let context = Context::from_json_value(json!({ "n": n }), Some((schema, &action))).unwrap();
    let request = Request::new(principal, action, resource, context, Some(schema)).unwrap();
    let response = Authorizer::new().is_authorized(&request, set, &entities);
    let allowed = response.decision() == cedar_policy::Decision::Allow;
    let mut reasons: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    reasons.sort();
    (allowed, reasons, response.diagnostics().errors().next().is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_indexed_answer_is_the_answer_of_all_policies(
        policies in proptest::collection::vec(written(), 1..24),
        entities in world(),
        n in 0..4_i64,
    ) {
        let (mut texts, mut links, mut set) = (String::new(), Vec::new(), PolicySet::new());
        for (number, policy) in policies.iter().enumerate() {
            let text = policy.text(number);
            texts.push_str(&text);
            let id = PolicyId::new(format!("p{number}"));
            let slots = policy.slots();
            if slots.is_empty() {
                set.add(cedar_policy::Policy::parse(Some(id), text).unwrap()).unwrap();
                continue;
            }
            set.add_template(cedar_policy::Template::parse(Some(id.clone()), text).unwrap()).unwrap();
            let args: serde_json::Map<String, serde_json::Value> =
                slots.iter().map(|(slot, uid)| ((*slot).to_owned(), json!(uid))).collect();
            links.push(json!({ "template_id": format!("p{number}"), "link_id": format!("l{number}"), "args": args }));
            let slot = |name: &str| if name == "?principal" { SlotId::principal() } else { SlotId::resource() };
            let values = slots.iter().map(|(name, uid)| (slot(name), EntityUid::from_str(uid).unwrap())).collect();
            set.link(id, PolicyId::new(format!("l{number}")), values).unwrap();
        }
        let schema = Schema::from_cedarschema_str(SCHEMA).unwrap().0;
        let indexed = Cedar::builder()
            .issuer(ISSUER)
            .schema("s", SCHEMA)
            .policies("p", texts)
            .links("l", json!(links).to_string())
            .entities("e", entities.clone())
            .build()
            .unwrap();

        let attributes = Attributes::new().with("n", n);
        // Twice: the second answer comes from a set that is kept.
        for _ in 0..2 {
            for (kind, of, who) in [(PrincipalKind::User, "User", 0..4), (PrincipalKind::Service, "Service", 0..2)] {
                for who in who {
                    let subject = Principal::builder(kind, ISSUER, who.to_string(), "jwt").build();
                    for action in ["read", "write", "admin"] {
                        for (thing, id) in [("Doc", 0), ("Doc", 1), ("Folder", 2), ("Folder", 9)] {
                            let resource = Resource::new(thing, id);
                            let query = AccessQuery::new(&subject, action, Instants::new(0, 0)).on(&resource);
                            let Now::Known(verdict) = indexed.decide_now(&query.with_attributes(&attributes)) else {
                                panic!("nothing is to be waited for")
                            };
                            let uids = [format!("{of}::\"{who}\""), format!("Action::\"{action}\""), format!("{thing}::\"{id}\"")]
                                .map(|uid| EntityUid::from_str(&uid).unwrap());
                            let (allowed, reasons, failed) = unindexed(&set, &schema, &entities, uids, n);
                            let forbidden = !allowed && !reasons.is_empty();
                            let expected = match (failed, forbidden, allowed) {
                                (_, true, _) => Decision::Deny,
                                (true, false, _) => Decision::CannotDecide,
                                (false, false, true) => Decision::Allow,
                                (false, false, false) => Decision::Deny,
                            };
                            prop_assert_eq!(verdict.decision(), expected, "{} {} {} {}", who, action, thing, id);
                            let mut rules: Vec<String> = verdict.rules().iter().map(ToString::to_string).collect();
                            rules.sort();
                            if expected != Decision::CannotDecide {
                                prop_assert_eq!(rules, reasons);
                            }
                        }
                    }
                }
            }
        }
    }
}
