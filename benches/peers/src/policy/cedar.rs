//! 1 000 policies of which 10 speak of the question, against cedar-policy alone with those 10, and with all.

use std::{fmt::Write, hint::black_box, str::FromStr};

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use portcullis::policy::{Cedar, Resource};

use super::{ISSUER, allows, person, query, role, timed};
use crate::ratio::measure;

const SCHEMA: &str = r#"
    entity Role;
    entity User in [Role];
    entity Order { status: String };
    action "orders:read" appliesTo { principal: User, resource: Order };
"#;

/// Ten policies for each role; the last one of them allows.
fn policies(roles: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    for role in roles.map(role) {
        for n in 0..10 {
            let status = if n == 9 { "open".to_owned() } else { format!("s{n}") };
            writeln!(
                text,
                "permit (principal in Role::\"{role}\", action == Action::\"orders:read\", resource) \
                 when {{ resource.status == \"{status}\" }};",
            )
            .expect("a text");
        }
    }
    text
}

fn uid(text: &str) -> EntityUid {
    EntityUid::from_str(text).expect("a uid")
}

fn entities() -> Entities {
    let entities = serde_json::json!([
        { "uid": { "type": "User", "id": "alice" }, "attrs": {}, "parents": [{ "type": "Role", "id": role(50) }] },
        { "uid": { "type": "Role", "id": role(50) }, "attrs": {}, "parents": [] },
        { "uid": { "type": "Order", "id": "42" }, "attrs": { "status": "open" }, "parents": [] },
    ]);
    Entities::from_json_value(entities, None).expect("entities")
}

fn request() -> Request {
    let (principal, resource) = (uid("User::\"alice\""), uid("Order::\"42\""));
    Request::new(principal, uid("Action::\"orders:read\""), resource, Context::empty(), None).expect("a request")
}

pub fn table() {
    let build = |text: String| {
        Cedar::builder().issuer(ISSUER).schema("s", SCHEMA).policies("p", text).build().expect("policies that fit")
    };
    let (all, few) = (build(policies(0..100)), build(policies(50..51)));
    let (principal, order) = (person(&role(50)), Resource::new("Order", 42).with("status", "open"));
    let query = query(&principal, "orders:read").on(&order);

    let set = |text: String| PolicySet::from_str(&text).expect("policies");
    let (bare_all, bare_few) = (set(policies(0..100)), set(policies(50..51)));
    let (authorizer, entities_before, request_before) = (Authorizer::new(), entities(), request());
    let bare = |set: &PolicySet, request: &Request, entities: &Entities| {
        let answer = authorizer.is_authorized(black_box(request), set, black_box(entities));
        assert_eq!(answer.decision(), Decision::Allow);
    };
    measure(&[
        timed("cedar-policy, those 10, all made before", || bare(&bare_few, &request_before, &entities_before)),
        timed("cedar-policy, those 10, made for each", || bare(&bare_few, &request(), &entities())),
        timed("cedar-policy, all 1 000, all made before", || bare(&bare_all, &request_before, &entities_before)),
        timed("Cedar, those 10", || assert!(allows(&few, &query))),
        timed("Cedar, 1 000 of which 10 apply", || assert!(allows(&all, &query))),
    ])
    .print("Cedar, one decision", "cedar-policy, those 10, all made before");
}
