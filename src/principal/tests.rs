use super::*;

fn principal(issuer: &str) -> Principal {
    Principal::builder(PrincipalKind::User, issuer, "alice", "jwt").claims(r#"{"email":"a@example.com"}"#).build()
}

#[test]
fn the_same_subject_from_two_issuers_is_two_principals() {
    assert!(principal("https://a.example").is_same_as(&principal("https://a.example")));
    assert!(!principal("https://a.example").is_same_as(&principal("https://b.example")));
}

#[cfg(feature = "rbac")]
#[test]
fn roles_are_looked_up_once_for_each_policy() {
    use std::cell::Cell;

    let alice = principal("https://a.example");
    let looked = Cell::new(0);
    let ask = |policy: u64| {
        let find = || {
            looked.set(looked.get() + 1);
            Held { positions: [usize::try_from(policy).unwrap()].into(), ..Held::default() }
        };
        alice.known_roles(policy, find).map(|held| held.positions.to_vec())
    };
    for policy in [1, 2, 1, 3, 4, 2, 4] {
        let first = usize::try_from(policy).unwrap();
        assert_eq!(ask(policy), Some(vec![first]), "{policy}");
    }
    assert_eq!(looked.get(), 4, "once for each of four policies");
    assert_eq!(ask(5), None, "who is not remembered looks again");
    assert_eq!(looked.get(), 4);
    let copy = alice.clone_with(|builder| builder);
    assert!(copy == alice && !copy.facts().known.has_any());
}

#[test]
fn a_principal_is_what_it_says_however_it_is_kept() {
    let claims = r#"{"sub":"alice","jti":"t-1","scope":"a b","roles":["cl\u0065rk","buyer"],"org":""}"#;
    let within = |part: &str| claims.matches(part).next().unwrap();
    let issuer: Arc<str> = "https://a.example".into();
    let kept = Principal::of_claims(PrincipalKind::User, Arc::clone(&issuer), within("alice"), "jwt", claims)
        .credential_id(within("t-1"))
        .scopes(within("a b").split(' '))
        .roles(["clerk", within("buyer")])
        .methods(["pwd"])
        .tenant("")
        .keep(Terms { from: 1, until: 2, issuer: 3, generation: 4 }, &[7; 45]);
    let plain = Principal::builder(PrincipalKind::User, issuer, "alice", "jwt")
        .roles(["replaced"])
        .methods([String::from("pwd")])
        .roles(["clerk", "buyer"])
        .scopes(["a", "b"])
        .credential_id("t-1")
        .claims(claims)
        .tenant("")
        .build();
    assert_eq!(kept, plain);
    assert_eq!((kept.subject(), kept.credential_id(), kept.tenant()), ("alice", Some("t-1"), Some("")));
    assert_eq!((kept.scopes().len(), kept.plan()), (2, None));
    assert_eq!(kept.roles(), ["clerk", "buyer"]);
    assert_eq!(kept.facts().text.len(), claims.len() + "clerkpwd".len(), "what stands in the claims stands once");
    assert_eq!(kept.claims::<serde_json::Value>().unwrap()["roles"][0], "clerk");
    assert!(kept.is_kept_under(&[7; 45]) && !kept.is_kept_under(&[7; 44]) && !plain.is_kept_under(&[]));
    let others = [
        plain.clone_with(|builder| builder.roles(["clerk"])),
        plain.clone_with(|builder| builder.scopes(["ab"])),
        plain.clone_with(|builder| builder.scopes(["buyer"]).roles(["clerk"])),
        plain.clone_with(|builder| builder.methods::<&str>([])),
        plain.clone_with(|builder| builder.tenant("t-1")),
        plain.clone_with(|builder| builder.plan("")),
        plain.clone_with(|builder| builder.expires_at(0)),
        plain.clone_with(|builder| builder.claims("{}")),
    ];
    others.iter().for_each(|other| assert_ne!(kept, *other));
}

impl Principal {
    fn clone_with(&self, change: impl FnOnce(PrincipalBuilder) -> PrincipalBuilder) -> Self {
        change(PrincipalBuilder { facts: self.facts().clone(), claims_at: 0 }).build()
    }
}

#[test]
fn debug_keeps_the_claims_to_itself() {
    assert!(!format!("{:?}", principal("https://a.example")).contains("a@example.com"));
}

#[test]
fn claims_that_are_missing_are_an_error() {
    let key = Principal::builder(PrincipalKind::Key, "keys", "billing", "api_key").build();
    assert!(key.claims::<std::collections::HashMap<String, String>>().is_err());
    assert!(key.claims::<Option<String>>().is_err(), "also for a type that null fits");
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Profile<const N: usize> {
    email: String,
}

fn read<const N: usize>(principal: &Principal) -> Arc<Profile<N>> {
    principal.claims_shared().unwrap()
}

#[test]
fn claims_are_read_once_for_all_clones() {
    let alice = principal("https://a.example");
    assert!(Arc::ptr_eq(&read::<0>(&alice), &read::<0>(&alice.clone())));
    assert!(!Arc::ptr_eq(&read::<0>(&alice), &read::<0>(&principal("https://a.example"))));
    assert!(Arc::ptr_eq(&read::<1>(&alice), &read::<1>(&alice)), "also a second type");
    assert_eq!(*read::<0>(&alice), Profile { email: "a@example.com".to_owned() });
}

#[test]
fn four_types_are_kept_and_a_fifth_is_read_each_time() {
    let alice = principal("https://a.example");
    let first = (read::<0>(&alice), read::<1>(&alice), read::<2>(&alice), read::<3>(&alice));
    let again = (read::<0>(&alice), read::<1>(&alice), read::<2>(&alice), read::<3>(&alice));
    assert!(Arc::ptr_eq(&first.0, &again.0) && Arc::ptr_eq(&first.1, &again.1));
    assert!(Arc::ptr_eq(&first.2, &again.2) && Arc::ptr_eq(&first.3, &again.3));
    assert!(!Arc::ptr_eq(&read::<4>(&alice), &read::<4>(&alice)));
    assert_eq!(read::<4>(&alice).email, "a@example.com");
}

#[test]
fn claims_that_do_not_fit_are_not_kept() {
    let alice = principal("https://a.example");
    assert!(alice.claims_shared::<Vec<u8>>().is_err());
    assert!(alice.claims_shared::<Vec<u8>>().is_err());
    assert!(alice.facts().read.is_empty());
}

#[test]
fn what_was_read_is_no_part_of_the_principal() {
    let (alice, other) = (principal("https://a.example"), principal("https://a.example"));
    let shown = format!("{alice:?}");
    read::<0>(&alice);
    assert_eq!(alice, other);
    assert_eq!(format!("{alice:?}"), shown);
}

#[test]
fn threads_share_what_was_read() {
    let alice = principal("https://a.example");
    let read = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| scope.spawn(|| (read::<0>(&alice), read::<1>(&alice))));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(read.iter().all(|(one, two)| Arc::ptr_eq(one, &read[0].0) && Arc::ptr_eq(two, &read[0].1)));
}
