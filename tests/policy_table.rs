//! A table of questions to a policy, and what is told when a verdict is another one.

use async_trait::async_trait;
use portcullis::policy::{AccessQuery, PolicyBackend, Rbac, StepUp, Verdict, test_table, test_table_text};

const SHOP: &str = r#"
    version = "7"
    permissions = ["orders:read", "orders:cancel"]
    [roles.clerk]
    grants = ["orders:read"]
    grants_own = ["orders:cancel"]
    [roles.boss]
    grants = ["*"]
"#;

const QUESTIONS: &str = r#"
[subjects.clerk]
subject = "alice"
roles = ["clerk"]
tenant = "acme"

[[question]]
name = "a clerk reads"
subject = "clerk"
action = "orders:read"
expect = "allow"
rules = ['role "clerk"']

[[question]]
name = "a clerk cancels her own order"
subject = "clerk"
action = "orders:cancel"
resource = { type = "order", id = "1", owner = "clerk", attributes = { open = true } }
expect = "allow"

[[question]]
subject = "clerk"
action = "orders:cancel"
resource = { type = "order", id = "2", owner = { subject = "bob" }, tenant = "acme" }
expect = "deny"

[[question]]
subject = { subject = "robot", issuer = "https://robots.example", kind = "service", roles = ["boss"] }
action = "orders:cancel"
address = "198.51.100.7"
method = "DELETE"
route = "/orders/{id}"
time = 1800000000
attributes = { urgent = true }
expect = "allow"
"#;

#[tokio::test]
async fn a_table_that_holds() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    assert_eq!(test_table_text(&shop, "questions.toml", QUESTIONS).await.unwrap(), 4);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), QUESTIONS).unwrap();
    assert_eq!(test_table(&shop, file.path()).await.unwrap(), 4);
}

#[tokio::test]
async fn what_does_not_hold_is_told_with_its_line() {
    let other = SHOP
        .replace("grants = [\"orders:read\"]", "grants = [\"orders:*\"]")
        .replace("grants_own = [\"orders:cancel\"]", "");
    let shop = Rbac::from_toml(&other).unwrap();
    let error = test_table_text(&shop, "questions.toml", QUESTIONS).await.unwrap_err();
    assert_eq!(error.failures().len(), 1);
    let expected = "\
1 of 4 questions got another verdict
questions.toml:21: alice of https://id.example.com: orders:cancel on order 2: expected deny, got allow by role \"clerk\"
    role clerk (of the credential): grants orders:*
    order 2 does not belong to the principal";
    assert_eq!(error.to_string(), expected);
    assert_eq!(format!("{error:?}"), expected, "unwrap shows the same");

    let strict = QUESTIONS.replace("rules = ['role \"clerk\"']", "rules = ['role \"boss\"']\nobligations = [\"mask\"]");
    let error = test_table_text(&Rbac::from_toml(SHOP).unwrap(), "q", &strict).await.unwrap_err().to_string();
    assert!(
        error.contains("q:7: a clerk reads: alice of") && error.contains("expected rules [\"role \\\"boss\\\"\"], got"),
        "{error}"
    );
    let strict = QUESTIONS.replace("rules = ['role \"clerk\"']", "obligations = [\"mask\"]");
    let error = test_table_text(&Rbac::from_toml(SHOP).unwrap(), "q", &strict).await.unwrap_err().to_string();
    assert!(error.contains("expected obligations [\"mask\"], got []"), "{error}");
}

#[tokio::test]
async fn a_table_that_is_none_does_not_pass() {
    let shop = Rbac::from_toml(SHOP).unwrap();
    let question = |more: &str| format!("[[question]]\nsubject = {{ subject = \"a\" }}\naction = \"x\"\n{more}");
    for (name, text, expected) in [
        ("empty", String::new(), "missing field `question`"),
        ("no questions", "question = []".to_owned(), "q: has no questions"),
        ("no TOML", "[[".to_owned(), "q:1: "),
        ("an unknown field", question("expect = \"deny\"\nwehn = 1"), "q:5: unknown field `wehn`"),
        ("no expectation", question(""), "missing field `expect`"),
        ("another verdict", question("expect = \"maybe\""), "q:4: unknown variant `maybe`"),
        (
            "an unknown subject",
            "[[question]]\nsubject = \"ghost\"\naction = \"x\"\nexpect = \"deny\"".to_owned(),
            "q:1: subject \"ghost\" is not in [subjects]",
        ),
        (
            "an unknown kind",
            question("expect = \"deny\"").replace("subject = \"a\"", "subject = \"a\", kind = \"dog\""),
            "kind \"dog\" is none of",
        ),
        ("a route without a method", question("expect = \"deny\"\nroute = \"/x\""), "q:1: a route needs a method"),
        ("no address", question("expect = \"deny\"\naddress = \"here\""), "invalid IP address"),
    ] {
        let error = test_table_text(&shop, "q", &text).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let error = test_table(&shop, "/does/not/exist.toml").await.unwrap_err().to_string();
    assert!(error.starts_with("/does/not/exist.toml: cannot be read"), "{error}");
}

/// Tells what it heard, after waiting.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl PolicyBackend for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        let subject = query.subject();
        let claims: serde_json::Value = subject.claims().unwrap_or_default();
        Verdict::cannot_decide("told").by(format!(
            "{} {:?} {:?} {:?} {:?} {claims} {} {:?} {:?} {:?} {}",
            subject.kind().as_str(),
            subject.scopes(),
            subject.acr(),
            subject.methods(),
            subject.auth_time(),
            query.client().map_or("-", portcullis::Principal::subject),
            query.attribute("n"),
            query.method(),
            query.address(),
            query.at().unix_seconds(),
        ))
    }
}

#[tokio::test]
async fn every_part_of_a_question_is_asked() {
    let text = r#"
[[question]]
subject = { subject = "k", kind = "key", scopes = ["a"], acr = "gold", amr = ["mfa"], auth_time = 7, claims = { dept = "x", level = 3 } }
client = { subject = "app" }
action = "x"
attributes = { n = [1, 2] }
method = "GET"
address = "::1"
time = 9
expect = "cannot_decide"
rules = ['key ["a"] Some("gold") ["mfa"] Some(7) {"dept":"x","level":3} app Some(Array [Number(1), Number(2)]) Some("GET") Some(::1) 9']
"#;
    assert_eq!(test_table_text(&Echo, "q", text).await.unwrap(), 1);
}

/// Dates are texts wherever they stand, and numbers that JSON does not have are no values.
#[tokio::test]
async fn dates_are_texts() {
    let text = r#"
[[question]]
subject = { subject = "k", claims = { since = 2026-01-01, spans = [{ end = 2026-01-01T08:30:00Z }] } }
client = { subject = "app" }
action = "x"
attributes = { n = [2026-01-01, { at = 08:30:00 }] }
expect = "cannot_decide"
rules = ['user [] None [] None {"since":"2026-01-01","spans":[{"end":"2026-01-01T08:30:00Z"}]} app Some(Array [String("2026-01-01"), Object {"at": String("08:30:00")}]) None None 1800000000']
"#;
    assert_eq!(test_table_text(&Echo, "q", text).await.unwrap(), 1);
    for (name, line) in [
        ("of the question", "attributes = { n = [nan] }"),
        ("of the thing", "resource = { type = \"t\", id = \"1\", attributes = { n = inf } }"),
        ("of the subject", "subject = { subject = \"k\", claims = { n = -inf } }"),
    ] {
        let subject = if line.starts_with("subject") { "" } else { "subject = { subject = \"k\" }\n" };
        let text = format!("[[question]]\n{subject}{line}\naction = \"x\"\nexpect = \"cannot_decide\"");
        let error = test_table_text(&Echo, "q", &text).await.unwrap_err().to_string();
        assert!(error.contains("q:1: ") && error.contains("is no number"), "{name}: {error}");
    }
}

/// Asks everybody for the same.
#[derive(Debug)]
struct Asks(StepUp);

#[async_trait]
impl PolicyBackend for Asks {
    fn name(&self) -> &'static str {
        "asks"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::step_up(self.0.clone())
    }
}

/// As the guard sees it: what the subject has done already helps nobody.
#[tokio::test]
async fn a_step_up_is_one_only_until_it_is_made() {
    let gold = Asks(StepUp::acr(["gold"]).unwrap());
    let question = |acr: &str, expect: &str| {
        format!("[[question]]\nsubject = {{ subject = \"a\", acr = \"{acr}\" }}\naction = \"x\"\nexpect = \"{expect}\"")
    };
    for (acr, expect, other) in [("silver", "step_up", "deny"), ("gold", "deny", "step_up")] {
        assert_eq!(test_table_text(&gold, "q", &question(acr, expect)).await.unwrap(), 1, "{acr}");
        let error = test_table_text(&gold, "q", &question(acr, other)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("expected {other}, got {expect}")), "{acr}: {error}");
    }
}

/// Where a question names no attributes, the policy hears of none, as from a guard.
#[cfg(feature = "rego")]
#[tokio::test]
async fn no_attributes_are_not_an_empty_object() {
    let text = "package t\ndefault allow := false\nallow if not input.attributes\nallow if input.attributes.urgent\n";
    let policy = portcullis::policy::Rego::from_text("data.t.allow", text).unwrap();
    let question = |attributes: &str, expect: &str| {
        format!(
            "[subjects.a]\nsubject = \"alice\"\n[[question]]\nsubject = \"a\"\naction = \"read\"\n{attributes}\nexpect = \"{expect}\"\n"
        )
    };
    for (attributes, expect) in
        [("", "allow"), ("attributes = { urgent = true }", "allow"), ("attributes = { other = 1 }", "deny")]
    {
        assert_eq!(test_table_text(&policy, "t.toml", &question(attributes, expect)).await.unwrap(), 1, "{attributes}");
    }
}
