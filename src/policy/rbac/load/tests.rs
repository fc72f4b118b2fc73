//! Everything that can be wrong with a policy, and where it is said to be.

use super::*;
use crate::policy::rbac::document::Format;

fn read(format: Format, text: &str) -> Result<Table, ConfigError> {
    load(Origin { file: Some("policy.toml"), format, text })
}

fn refused(text: &str) -> String {
    read(Format::Toml, text).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let long = format!("permissions = [\"{}\"]", "a".repeat(MAX_NAME_LEN + 1));
    for (name, body, expected) in [
        ("no TOML", "permissions = [", "line 2: TOML is not a policy"),
        ("no permissions", "", "missing field `permissions`"),
        ("empty list", "permissions = []", "permissions: [] must name at least one"),
        (
            "unknown field",
            "permissions = [\"a\"]\ndefault = 1",
            "line 3: TOML is not a policy: unknown field `default`",
        ),
        ("unknown field of a role", "permissions = [\"a\"]\n[roles.r]\ngrant = [\"a\"]", "line 4: TOML"),
        ("wrong type", "permissions = \"a\"", "line 2: TOML is not a policy: invalid type"),
        ("empty name", "permissions = [\"\"]", "line 2: permissions: \"\" must not be empty"),
        ("space", "permissions = [\"a b\"]", "permissions: \"a b\" must be ASCII letters"),
        ("wildcard", "permissions = [\"orders:*\"]", "permissions: \"orders:*\" has a `*`: wildcards stand"),
        ("too long", &long, "is longer than 128 bytes"),
        ("twice", "permissions = [\"a\", \"a\"]", "permissions: \"a\" stands twice"),
        ("role twice", "permissions = [\"a\"]\n[roles.r]\n[roles.r]", "line 4: TOML is not a policy: duplicate key"),
        ("empty role", "permissions = [\"a\"]\n[roles.\"\"]", "roles: \"\" must not be empty"),
        (
            "unknown permission",
            "permissions = [\"orders:read\"]\n[roles.r]\ngrants = [\"order:read\"]",
            "line 4: roles.r.grants: \"order:read\" is not in permissions; did you mean \"orders:read\"?",
        ),
        (
            "unknown permission of one's own",
            "permissions = [\"a\"]\n[roles.r]\ngrants_own = [\"b\"]",
            "roles.r.grants_own: \"b\" is not in permissions",
        ),
        (
            "grant twice",
            "permissions = [\"a\"]\n[roles.r]\ngrants = [\"a\", \"a\"]",
            "roles.r.grants: \"a\" stands twice",
        ),
        (
            "grant and own grant",
            "permissions = [\"a\"]\n[roles.r]\ngrants = [\"a\"]\ngrants_own = [\"a\"]",
            "roles.r.grants_own: \"a\" stands in grants too",
        ),
        (
            "unknown role",
            "permissions = [\"a\"]\n[roles.clerk]\n[roles.r]\ninherits = [\"clark\"]",
            "line 5: roles.r.inherits: \"clark\" is not a role of this policy; did you mean \"clerk\"?",
        ),
        (
            "inherits itself",
            "permissions = [\"a\"]\n[roles.r]\ninherits = [\"r\"]",
            "line 3: roles: \"r\" inherits itself in a circle: r -> r",
        ),
        (
            "a star in a segment",
            "permissions = [\"orders:read\"]\n[roles.r]\ngrants = [\"order*:read\"]",
            "line 4: roles.r.grants: \"order*:read\" has a `*` in a segment",
        ),
        (
            "a wildcard for nothing",
            "permissions = [\"orders:read\"]\n[roles.r]\ndenies = [\n\"stock:*\"]",
            "line 5: roles.r.denies: \"stock:*\" stands for no permission",
        ),
        (
            "denies what it grants",
            "permissions = [\"a:b\"]\n[roles.r]\ngrants = [\"a:b\"]\ndenies = [\"a:*\"]",
            "line 4: roles.r.grants: \"a:b\" is denied by the same role",
        ),
        (
            "exclusive roles inherited",
            "permissions = [\"a\"]\n[roles.r]\ninherits = [\"s\", \"t\"]\n[roles.s]\n[roles.t]\n\
             [[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]",
            "line 3: roles: \"r\" inherits more of the roles of exclusive.eyes",
        ),
        (
            "exclusive of an unknown role",
            "permissions = [\"a\"]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]",
            "line 5: exclusive.eyes.roles: \"s\" is not a role",
        ),
        (
            "one role excludes nothing",
            "permissions = [\"a\"]\n[roles.s]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\"]",
            "line 5: exclusive: \"eyes\" must name more roles than at_most",
        ),
        (
            "at most none",
            "permissions = [\"a\"]\n[roles.s]\n[roles.t]\n[[exclusive]]\nname = \"eyes\"\n\
             roles = [\"s\", \"t\"]\nat_most = 0",
            "exclusive: \"eyes\" must name more roles than at_most",
        ),
        (
            "exclusive roles assigned, one in every tenant and one in one",
            "permissions = [\"a\"]\n[roles.s]\n[roles.t]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]\n\
             [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"s\"]\n\
             [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"t\"]\ntenant = \"acme\"",
            "line 14: assignments.subject: \"bob\" is assigned more of the roles of exclusive.eyes",
        ),
        (
            "exclusive roles assigned, one to a kind and one in a tenant",
            "permissions = [\"a\"]\n[roles.s]\n[roles.t]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]\n\
             [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"s\"]\nkind = \"service\"\n\
             [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"t\"]\ntenant = \"acme\"",
            "line 15: assignments.subject: \"bob\" is assigned more of the roles of exclusive.eyes",
        ),
        (
            "assigned to an unknown kind",
            "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []\nkind = \"client\"",
            "line 7: assignments.kind: \"client\" is none of user, service and key",
        ),
        (
            "assigned an unknown role",
            "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"boss\"]",
            "line 6: assignments.roles: \"boss\" is not a role",
        ),
        (
            "assigned twice",
            "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []\n\
             [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []",
            "line 9: assignments.subject: \"bob\" stands twice for this tenant",
        ),
        (
            "assigned in no tenant",
            "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []\ntenant = \"\"",
            "line 7: assignments.tenant: \"\" must be 1 to 512 bytes",
        ),
    ] {
        let error = refused(&format!("version = \"1\"\n{body}"));
        assert!(error.starts_with("policy.toml: ") && error.contains(expected), "{name}: {error}");
    }
    assert!(refused("permissions = [\"a\"]").contains("missing field `version`"));
    assert!(refused("version = \"\"\npermissions = [\"a\"]").contains("version: \"\" must not be empty"));
}

#[test]
fn a_cycle_is_shown_without_what_leads_to_it() {
    let text = "version = \"1\"\npermissions = [\"p\"]\n\
        [roles.a]\ninherits = [\"b\"]\n[roles.b]\ninherits = [\"free\", \"c\"]\n\
        [roles.c]\ninherits = [\"d\"]\n[roles.d]\ninherits = [\"b\"]\n[roles.free]";
    assert!(
        refused(text).contains("line 5: roles: \"b\" inherits itself in a circle: b -> c -> d -> b"),
        "{}",
        refused(text)
    );
}

#[test]
fn sizes_are_bounded() {
    let many: Vec<String> = (0..=MAX_NAMES).map(|n| format!("\"p{n}\"")).collect();
    let text = format!("version = \"1\"\npermissions = [{}]", many.join(", "));
    assert!(refused(&text).contains("permissions: 4097 are too many: at most 4096"));
    assert!(refused(&" ".repeat(MAX_DOCUMENT_LEN + 1)).contains("bytes are too many"));
}

#[test]
fn json_is_read_as_strictly() {
    for (name, text, expected) in [
        ("no JSON", "{", "line 1: JSON is not a policy: EOF"),
        ("unknown member", "{\n\"default\": 1}", "line 2: JSON is not a policy: unknown field `default`"),
        ("a member twice", r#"{"version": "1", "version": "2"}"#, "duplicate field `version`"),
        ("text behind it", r#"{"version": "1", "permissions": ["a"]} x"#, "trailing characters"),
        (
            "a role twice",
            "{\"version\": \"1\", \"permissions\": [\"a\"], \"roles\": {\n\"r\": {},\n\"r\": {\"grants\": [\"a\"]}}}",
            "line 3: roles: \"r\" stands twice",
        ),
        (
            "unknown permission",
            "{\"version\": \"1\",\n\"permissions\": [\"a\"],\n\"roles\": {\"r\": {\"grants\":\n[\"b\"]}}}",
            "line 4: roles.r.grants: \"b\" is not in permissions",
        ),
        (
            "unknown permission with an escape",
            r#"{"version": "1", "permissions": ["a"], "roles": {"r": {"grants": ["\u0062"]}}}"#,
            "policy.toml: roles.r.grants: \"b\" is not in permissions",
        ),
        ("null", r#"{"version": "1", "permissions": null}"#, "invalid type: null"),
    ] {
        let error = read(Format::Json, text).unwrap_err().to_string();
        assert!(error.starts_with("policy.toml: ") && error.contains(expected), "{name}: {error}");
    }
    let text = r#"{"version": "1", "permissions": ["a"], "roles": {"r": {"grants": ["a"]}},
        "exclusive": [], "assignments": [{"issuer": "i", "subject": "s", "roles": ["r"]}]}"#;
    assert_eq!(read(Format::Json, text).unwrap().roles.len(), 1);
}
