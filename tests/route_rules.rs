//! Rules of routes from a table in TOML: what they mean, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use http::Method;
use portcullis::{
    Challenge, Principal, PrincipalKind,
    authn::{Outcome, authenticate_fn},
    guard::{RouteRules, RuleNames, check, from_head},
    policy::{Rbac, Resource},
    stack::Stack,
    tls::TlsLayer,
};
use support::{NOW, Probe, Still, get, send, with};

fn rbac() -> Rbac {
    Rbac::from_toml(
        "version = \"1\"\npermissions = [\"orders:read\", \"orders:cancel\"]\n[roles.clerk]\ngrants = [\"orders:read\"]\n\
         grants_own = [\"orders:cancel\"]\n[roles.boss]\ninherits = [\"clerk\"]",
    )
    .unwrap()
}

fn names() -> RuleNames {
    RuleNames::new().rbac(&rbac()).condition("even", check("even", |_, head| head.path().ends_with('2'))).resource(
        "alices",
        from_head("alices", |_, _| Some(Resource::new("x", 1).owned_by("https://id.test", "alice"))),
    )
}

fn read(text: &str) -> Result<RouteRules, String> {
    RouteRules::from_toml(text, &names()).map_err(|error| error.to_string())
}

/// `Test NAME ROLE`: everybody has the scope `s`, the class `silver` and proved it a minute ago.
fn authenticator() -> impl portcullis::authn::Authenticator {
    authenticate_fn(Challenge::new("Test", "tests").unwrap(), |head, _| match head.authorization() {
        Ok(Some(credential)) => {
            let (name, role) = credential.token().split_once('.').unwrap_or((credential.token(), ""));
            let builder = Principal::builder(PrincipalKind::User, "https://id.test", name, "test").tenant("acme");
            let builder = builder.scopes(["s"]).acr("silver").auth_time(NOW - 60).methods(["pwd"]);
            Outcome::verified(builder.roles([role]).build())
        }
        Ok(None) => Outcome::Absent,
        Err(rejection) => Outcome::Refused(rejection),
    })
}

const TABLE: &str = r#"
fallback = { require = "deny", hide = true }

[routes]
"GET /health" = "public"
"GET /closed" = "deny"
"GET /any" = "authenticated"
"GET /read" = { permission = "orders:read" }
"GET /cancel" = { permission = "orders:cancel" }
"GET /own" = { permission_or_owner = "orders:cancel" }
"GET /role" = { role = "clerk" }
"GET /scope" = { scope = "s" }
"GET /scopeless" = { scope = "t" }
"GET /policy" = { policy = "orders:read" }
"GET /named/{n}" = { condition = "even" }
"GET /network" = { network = ["198.51.100.0/24"] }
"GET /hours" = { hours = { from = "08:00", until = "09:00", days = ["fri"], offset = "+00:00" } }
"GET /weekend" = { hours = { from = "08:00", until = "09:00", days = ["sat", "sun"] } }
"GET /silver" = { acr = ["gold", "silver"] }
"GET /gold" = { acr = ["gold"] }
"GET /pwd" = { amr = "pwd" }
"GET /fresh" = { authenticated_within = 60 }
"GET /old" = { authenticated_within = 59 }
"GET /both" = { all = [{ role = "clerk" }, { scope = "s" }, "authenticated"] }
"GET /either" = { any = [{ role = "nobody" }, { scope = "s" }] }
"GET /not" = { not = { role = "clerk" } }
"GET /mine" = { require = "owner", resource = "alices" }
"GET /t/{t}/{id}" = { require = "same_tenant", resource = { type = "x", id = "{id}", tenant = "{t}" }, hide = true }
"GET /attribute" = { attribute = { name = "open", value = true }, resource = "alices" }
"#;

#[tokio::test]
async fn what_the_rules_mean() {
    let table = TABLE.replace("{ role = \"nobody\" }", "{ role = \"boss\" }");
    // Handles of another policy than the one that the stack asks are an error, as they are when they are made in code.
    let other = Stack::builder().tls(TlsLayer::require()).authenticate(authenticator()).policy(rbac());
    assert!(other.routes(read(&table).unwrap()).build().is_err());
    let policy = rbac();
    let names = names().rbac(&policy);
    let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(authenticator()).policy(policy);
    let app = stack.routes(RouteRules::from_toml(&table, &names).unwrap()).build().unwrap().protect(Probe::default());
    for (path, [anonymous, alice, bob, clerk, boss]) in [
        // nobody, alice, bob, a clerk, a boss
        ("/health", [200, 200, 200, 200, 200]),
        ("/closed", [401, 403, 403, 403, 403]),
        ("/any", [401, 200, 200, 200, 200]),
        ("/read", [401, 403, 403, 200, 200]),
        ("/cancel", [401, 403, 403, 403, 403]),
        ("/own", [401, 403, 403, 200, 200]),
        ("/role", [401, 403, 403, 200, 200]),
        ("/scope", [401, 200, 200, 200, 200]),
        ("/scopeless", [401, 403, 403, 403, 403]),
        ("/policy", [401, 403, 403, 200, 200]),
        ("/named/2", [401, 200, 200, 200, 200]),
        ("/named/3", [401, 403, 403, 403, 403]),
        ("/network", [401, 200, 200, 200, 200]),
        ("/hours", [401, 200, 200, 200, 200]),
        ("/weekend", [401, 403, 403, 403, 403]),
        ("/silver", [401, 200, 200, 200, 200]),
        ("/gold", [401, 401, 401, 401, 401]),
        ("/pwd", [401, 200, 200, 200, 200]),
        ("/fresh", [401, 200, 200, 200, 200]),
        ("/old", [401, 401, 401, 401, 401]),
        ("/both", [401, 403, 403, 200, 200]),
        ("/either", [401, 200, 200, 200, 200]),
        ("/not", [401, 200, 200, 403, 403]),
        ("/mine", [401, 200, 403, 403, 403]),
        ("/t/acme/1", [401, 200, 200, 200, 200]),
        ("/t/globex/1", [401, 404, 404, 404, 404]),
        ("/attribute", [401, 403, 403, 403, 403]),
        ("/unknown", [401, 404, 404, 404, 404]),
    ] {
        for (who, expected) in
            [("", anonymous), ("alice", alice), ("bob", bob), ("carol.clerk", clerk), ("dave.boss", boss)]
        {
            let request =
                if who.is_empty() { get(path) } else { with(get(path), "authorization", &format!("Test {who}")) };
            assert_eq!(send(&app, request).await.status().as_u16(), expected, "{path} for {who:?}");
        }
    }
    let mut post = with(get("/any"), "authorization", "Test alice");
    *post.method_mut() = Method::POST;
    assert_eq!(send(&app, post).await.status(), 404, "a method that no line names");
    for path in ["/t/acme/../any", "//any", "/an%79/..", "/t/acme%2F1/x", "/any;x", "/any%00", "/t%5Cacme"] {
        let mut request = with(get("/"), "authorization", "Test alice");
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(send(&app, request).await.status(), 400, "{path}");
    }
}

/// A date in a rule is the text that it is in JSON, in lists and tables too: else a `not` would let everybody pass.
#[tokio::test]
async fn dates_are_compared_as_texts() {
    let sealed = from_head("orders", |head, _| {
        let order = Resource::new("order", 1).with("dates", serde_json::json!([{ "day": "2026-01-01" }]));
        Some(order.with("sealed_on", if head.path().ends_with('1') { "2026-01-01" } else { "2026-01-02" }))
    });
    let table = r#"
        [routes]
        "GET /sealed/{n}" = { attribute = { name = "sealed_on", value = 2026-01-01 }, resource = "orders" }
        "GET /open/{n}" = { not = { attribute = { name = "sealed_on", value = 2026-01-01 } }, resource = "orders" }
        "GET /inside" = { attribute = { name = "dates", value = [{ day = 2026-01-01 }] }, resource = "orders" }
        "GET /never" = { not = { attribute = { name = "dates", value = [{ day = 2026-01-01 }] } }, resource = "orders" }
    "#;
    let rules = RouteRules::from_toml(table, &RuleNames::new().resource("orders", sealed)).unwrap();
    let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(authenticator()).routes(rules);
    let app = stack.build().unwrap().protect(Probe::default());
    for (path, expected) in
        [("/sealed/1", 200), ("/sealed/2", 403), ("/open/1", 403), ("/open/2", 200), ("/inside", 200), ("/never", 403)]
    {
        let request = with(get(path), "authorization", "Test alice");
        assert_eq!(send(&app, request).await.status().as_u16(), expected, "{path}");
    }
}

#[test]
fn what_reviewers_read() {
    let rules = read(
        "[routes]\n\"GET /b\" = \"public\"\n\"GET /a/{id}\" = { any = [\"owner\", { network = [\"10.0.0.0/8\"] }], \
         resource = { type = \"x\", id = \"{id}\" }, hide = true }",
    )
    .unwrap();
    let lines: Vec<(&str, String)> = rules.lines().collect();
    let guarded = "any(owner, network 10.0.0.0/8) on x {id}, hidden".to_owned();
    assert_eq!(lines, [("GET /b", "public".to_owned()), ("GET /a/{id}", guarded)], "in the order of the file");
}

#[test]
fn what_is_not_good_is_refused_with_its_line() {
    let rule = |rule: &str| format!("[routes]\n\n\"GET /x\" = {rule}");
    for (name, text, expected) in [
        ("no TOML", "[routes".to_owned(), "line 1: rules: TOML is not a table of rules"),
        ("no routes", "fallback = \"deny\"".to_owned(), "missing field `routes`"),
        (
            "an unknown field",
            "default = 1\n[routes]".to_owned(),
            "line 1: rules: TOML is not a table of rules: unknown field `default`",
        ),
        ("a route twice", "[routes]\n\"GET /x\" = \"public\"\n\"GET /x\" = \"deny\"".to_owned(), "line 3: rules: TOML"),
        (
            "an unknown word",
            rule("\"pubic\""),
            "line 3: routes: \"GET /x\" has a rule that is not good: rule: \"pubic\" is none of",
        ),
        (
            "an unknown condition",
            rule("{ rol = \"x\" }"),
            "line 3: rules: TOML is not a table of rules: unknown field `rol`",
        ),
        ("no condition", rule("{ }"), "must have exactly one condition"),
        ("no condition, hidden", rule("{ hide = true }"), "must have exactly one condition"),
        (
            "two conditions",
            rule("{ role = \"clerk\", scope = \"s\" }"),
            "[\"role\", \"scope\"] must have exactly one condition",
        ),
        ("a number", rule("7"), "a word or a table of one condition"),
        ("an unknown permission", rule("{ permission = \"orders:raed\" }"), "did you mean \"orders:read\"?"),
        ("an unknown role", rule("{ role = \"clark\" }"), "did you mean \"clerk\"?"),
        ("an unknown name", rule("{ condition = \"odd\" }"), "condition: \"odd\" is not named by the application"),
        (
            "an unknown resource",
            rule("{ require = \"owner\", resource = \"bobs\" }"),
            "resource: \"bobs\" is not named",
        ),
        (
            "an unknown field of a resource",
            rule("{ require = \"owner\", resource = { type = \"x\", id = \"1\", own = 1 } }"),
            "unknown field `own`",
        ),
        ("an empty list", rule("{ all = [] }"), "must name at least one requirement"),
        (
            "public in a condition",
            rule("{ any = [\"public\", { role = \"clerk\" }] }"),
            "nor public or deny as a whole rule",
        ),
        ("not public", rule("{ not = \"public\" }"), "nor public or deny"),
        ("deny beside a condition", rule("{ require = \"deny\", role = \"clerk\" }"), "which it would make moot"),
        ("hidden inside", rule("{ any = [{ role = \"clerk\", hide = true }] }"), "belongs to the whole rule"),
        ("no network", rule("{ network = [\"10.0.0.1/8\"] }"), "has bits behind its prefix"),
        ("no time", rule("{ hours = { from = \"8\", until = \"9\" } }"), "must be a time of the day"),
        ("a list for hours", rule("{ hours = [\"08:00\", \"09:00\", [\"fri\"], \"+00:00\"] }"), "expected a table"),
        ("a list for an attribute", rule("{ not = { attribute = [\"n\", 1] } }"), "expected a table"),
        (
            "no day",
            rule("{ hours = { from = \"08:00\", until = \"09:00\", days = [\"holiday\"] } }"),
            "unknown variant `holiday`",
        ),
        (
            "emptied list of days",
            rule("{ hours = { from = \"08:00\", until = \"09:00\", days = [] } }"),
            "must name at least one day",
        ),
        (
            "no number that is equal to itself",
            rule("{ not = { attribute = { name = \"n\", value = [nan] } } }"),
            "line 3: routes: \"GET /x\" has a rule that is not good: attribute: \"n\" NaN is no number that can be compared",
        ),
        ("two scopes", rule("{ scope = \"a b\" }"), "must be one scope token"),
        (
            "a bad fallback",
            "fallback = \"pass\"\n[routes]".to_owned(),
            "line 1: fallback: the rule is not good: rule: \"pass\"",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let without = RouteRules::from_toml("[routes]\n\"GET /x\" = { permission = \"orders:read\" }", &RuleNames::new());
    assert!(without.unwrap_err().to_string().contains("needs a role policy"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rule("\"pubic\"")).unwrap();
    let error = RouteRules::from_toml_file(file.path(), &RuleNames::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line 3: routes:", file.path().display())), "{error}");
    assert!(RouteRules::from_toml_file("/does/not/exist.toml", &RuleNames::new()).is_err());
    // What is wrong with the route itself, the stack finds.
    let bad = read("[routes]\n\"get /x\" = \"public\"").unwrap();
    assert!(Stack::builder().routes(bad).build().is_err());
}
