//! Step-up (RFC 9470): a policy or a rule asks for a stronger or a newer authentication, and the client is told which.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{Router, body::Body, routing};
use http::{Request, Response, StatusCode, header};
use portcullis::{
    Challenge, Clock, Confirmation, Connection, Instants, Now, Principal, PrincipalBuilder, PrincipalKind, TlsVersion,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    audit::AuditLayer,
    authn::{Authenticator, Outcome, authenticate_fn, one_of},
    client_cert::ClientCertAuthenticator,
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    guard::{
        Authorizer, GuardLayer, Requirement, RouteRules, RuleNames, acr, all, any, authenticated, authenticated_within,
        factors, not, policy, require, role, scope,
    },
    policy::{
        AccessQuery, Cedar, Combined, Decision, PolicyBackend, Rego, Resource, Shadow, StepUp, Verdict, explain,
        test_table_text,
    },
    stack::{Stack, StackBuilder},
    testing::{Captured, TestClock},
    tls::TlsLayer,
};
use support::{
    NOW, Still,
    certs::{Authority, client},
};
use tower::ServiceExt;

const ISSUER: &str = "https://id.example.com";
const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

fn alice() -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").roles(["clerk"])
}

fn gold() -> StepUp {
    StepUp::acr(["gold"]).unwrap()
}

fn lately() -> StepUp {
    StepUp::max_age(Duration::from_secs(300))
}

/// What is asked of it is what it answers: `allow`, `deny`, `unknown`, `gold`, `lately`, `both`, `met`.
#[derive(Clone, Copy, Debug)]
struct Parrot {
    waits: bool,
}

impl Parrot {
    fn answer(query: &AccessQuery<'_>) -> Verdict {
        match query.resource().map_or(query.action(), Resource::id) {
            "allow" => Verdict::allow(),
            "unknown" => Verdict::cannot_decide("for a test"),
            "gold" => Verdict::step_up(gold()).by("pay-4"),
            "lately" => Verdict::step_up(lately()),
            "both" => Verdict::step_up(gold().and(&lately())),
            "two" => Verdict::step_up(StepUp::factors(2).unwrap()),
            "met" => Verdict::step_up(StepUp::acr(["bronze"]).unwrap()),
            "allowed anyhow" => Verdict::allow().demanding(gold()),
            "nothing" => Verdict::not_applicable("not mine"),
            _ => Verdict::deny("no"),
        }
    }
}

#[async_trait]
impl PolicyBackend for Parrot {
    fn name(&self) -> &'static str {
        "parrot"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        if self.waits { Now::Wait } else { Now::Known(Self::answer(query)) }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        Self::answer(query)
    }
}

fn stack(who: Option<Principal>) -> StackBuilder {
    let challenge = Challenge::new("Bearer", "api").unwrap();
    let everybody = authenticate_fn(challenge, move |_, _| who.clone().map_or(Outcome::Absent, Outcome::verified));
    Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(everybody)
}

fn get(path: &str) -> Request<Body> {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    request
}

/// The status, and the challenge.
type Seen = (u16, Option<String>);

fn seen(response: &Response<Body>) -> Seen {
    let challenge = response.headers().get(header::WWW_AUTHENTICATE);
    (response.status().as_u16(), challenge.map(|value| value.to_str().unwrap().to_owned()))
}

/// What a client sees of a rule, and whether a policy that waits makes a difference.
async fn ask(guard: impl Fn() -> GuardLayer, who: Option<Principal>) -> (u16, Option<String>) {
    let mut answers = Vec::new();
    for waits in [false, true] {
        let stack = stack(who.clone()).policy(Parrot { waits }).route("GET /x", guard()).build().unwrap();
        let app = stack.protect(Router::new().route("/x", routing::get(async || "done")));
        answers.push(seen(&app.oneshot(get("/x")).await.unwrap()));
    }
    assert_eq!(answers[0], answers[1], "a policy that waits says the same");
    answers.remove(0)
}

fn step_up(parameters: &str) -> (u16, Option<String>) {
    (401, Some(format!("Bearer realm=\"api\", error=\"insufficient_user_authentication\"{parameters}")))
}

fn says(action: &str) -> Requirement {
    policy(action).unwrap()
}

#[tokio::test]
async fn a_policy_asks_for_it_in_its_verdict() {
    type Guard = fn() -> Requirement;
    let bronze = || alice().acr("bronze").auth_time(NOW - 1_000).build();
    type Row = (&'static str, Guard, Seen);
    let rows: [Row; 18] = [
        ("a class", || says("gold"), step_up(", acr_values=\"gold\"")),
        ("an age", || says("lately"), step_up(", max_age=\"300\"")),
        ("both", || says("both"), step_up(", acr_values=\"gold\", max_age=\"300\"")),
        ("factors", || says("two"), step_up(", error_description=\"2 different kinds of factors are needed\"")),
        ("made already: no circle", || says("met"), (403, None)),
        ("beside an allow it means nothing", || says("allowed anyhow"), (200, None)),
        ("two policies", || all((says("gold"), says("lately"))), step_up(", acr_values=\"gold\", max_age=\"300\"")),
        (
            "with a rule of its own",
            || all((says("lately"), acr(["silver"]).unwrap())),
            step_up(", acr_values=\"silver\", max_age=\"300\""),
        ),
        (
            "with a rule that is met",
            || all((acr(["bronze"]).unwrap(), says("lately"))),
            step_up(", acr_values=\"bronze\", max_age=\"300\""),
        ),
        ("a role that is held", || all((role("clerk").unwrap(), says("gold"))), step_up(", acr_values=\"gold\"")),
        ("a role that is not", || all((role("boss").unwrap(), says("gold"))), (403, None)),
        ("a role that is not, asked later", || all((says("gold"), role("boss").unwrap())), (403, None)),
        ("another policy denies", || all((says("gold"), says("no"))), (403, None)),
        ("a scope that is not", || all((says("gold"), scope("s").unwrap())), (403, None)),
        ("another way is open", || any((says("gold"), role("clerk").unwrap())), (200, None)),
        ("another way is closed", || any((role("boss").unwrap(), says("gold"))), step_up(", acr_values=\"gold\"")),
        ("nobody knows of the other way", || any((says("gold"), says("unknown"))), (503, None)),
        ("turned around", || all((authenticated(), not(not(says("gold"))))), (403, None)),
    ];
    for (name, requirement, expected) in rows {
        assert_eq!(ask(|| require(requirement()), Some(bronze())).await, expected, "{name}");
    }
    // However much was decided before: the record keeps 32 decisions, the challenge all that is demanded.
    let many = || Requirement::all_of((0..40).map(|_| says("allow")).chain([says("gold"), says("lately")])).unwrap();
    let asked = step_up(", acr_values=\"gold\", max_age=\"300\"");
    assert_eq!(ask(|| require(many()), Some(bronze())).await, asked);
    // What is met, and what stands under a `not`, is not asked for.
    let beside = || any((says("met"), all((says("gold"), not(not(says("lately")))))));
    let other_way = || any((beside(), says("gold")));
    assert_eq!(ask(|| require(other_way()), Some(bronze())).await, step_up(", acr_values=\"gold\""));
    // What is hidden stays so, and who is nobody learns nothing of it.
    assert_eq!(ask(|| require(says("gold")).hide(), Some(bronze())).await, (404, None));
    let (status, challenge) = ask(|| require(says("gold")), None).await;
    assert_eq!((status, challenge.as_deref()), (401, Some("Bearer realm=\"api\"")));
    // It is a denial: a `not` around it opens, and around what is allowed it never asks for more.
    assert_eq!(ask(|| require(not(says("gold"))), Some(bronze())).await, (200, None));
    assert_eq!(ask(|| require(not(says("allowed anyhow"))), Some(bronze())).await, (403, None));
    // The scheme is that of the token (RFC 9470 §3).
    let bound = alice().confirmation(Confirmation::new().with_key_thumbprint([7; 32])).build();
    let dpop = |parameters: &str| step_up(parameters).1.map(|text| text.replace("Bearer", "DPoP"));
    assert_eq!(ask(|| require(says("gold")), Some(bound.clone())).await.1, dpop(", acr_values=\"gold\""));
    assert_eq!(
        ask(|| require(authenticated_within(Duration::from_secs(5))), Some(bound)).await.1,
        dpop(", max_age=\"5\"")
    );
    let bound = || alice().confirmation(Confirmation::new().with_key_thumbprint([7; 32])).build();
    let missing = |realm: &str| Some(format!(r#"DPoP realm="{realm}", error="insufficient_scope", scope="s""#));
    assert_eq!(ask(|| require(scope("s").unwrap()), Some(bound())).await, (403, missing("api")));
    let bank = || require(scope("s").unwrap()).with_realm("bank").unwrap();
    assert_eq!(ask(bank, Some(bound())).await, (403, missing("bank")));
    let realm = || require(says("gold")).with_realm("bank").unwrap();
    assert!(ask(realm, Some(bronze())).await.1.unwrap().starts_with("Bearer realm=\"bank\", error="));
}

/// No log-in makes an API key or a certificate stronger, and no authorization server gives it scopes: nothing is asked for.
#[tokio::test]
async fn who_cannot_get_another_token_is_not_sent_for_one() {
    type Guard = fn() -> Requirement;
    let rows: [(&str, Guard, u16); 9] = [
        ("a scope", || scope("s").unwrap(), 403),
        ("a class", || acr(["gold"]).unwrap(), 403),
        ("an age", || authenticated_within(Duration::from_secs(300)), 403),
        ("factors", || factors(2).unwrap(), 403),
        ("by the policy", || says("gold"), 403),
        ("any of both", || any((scope("s").unwrap(), acr(["gold"]).unwrap())), 403),
        ("a scope and a class", || all((scope("s").unwrap(), says("gold"))), 403),
        ("what it has", || role("clerk").unwrap(), 200),
        ("nobody knows", || says("unknown"), 503),
    ];
    let bound = Confirmation::new().with_key_thumbprint([7; 32]);
    for (name, requirement, status) in rows {
        for builder in [alice(), alice().confirmation(bound)] {
            let key = builder.without_step_up().build();
            assert_eq!(ask(|| require(requirement()), Some(key)).await, (status, None), "{name}");
        }
    }
    let key = || Some(alice().without_step_up().build());
    assert_eq!(ask(|| require(says("gold")).hide(), key()).await, (404, None));
    let gold = alice().acr("gold").without_step_up().build();
    assert_eq!(ask(|| require(acr(["gold"]).unwrap()), Some(gold)).await, (200, None), "where it is told all the same");
    let handler = async |authz: Authorizer| authz.check("gold", None).await.map(|_| "done");
    for (who, expected) in [(key(), (403, None)), (Some(alice().build()), step_up(", acr_values=\"gold\""))] {
        let stack = stack(who).policy(Parrot { waits: false }).route("GET /x", require(authenticated()));
        let app = stack.build().unwrap().protect(Router::new().route("/x", routing::get(handler)));
        assert_eq!(seen(&app.oneshot(get("/x")).await.unwrap()), expected);
    }
}

/// A service that takes neither advertises Bearer tokens (RFC 9110 §11.6.1).
#[tokio::test]
async fn keys_and_certificates_are_such() {
    let store = Arc::new(MemoryKeyStore::new());
    let (key, record) = NewApiKey::for_subject("billing").scope("read").mint(AT).unwrap();
    store.add(record).unwrap();
    let by_key = || one_of((ApiKeyAuthenticator::new(Arc::clone(&store)), nobody()));
    let certificates = ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap().build().unwrap();
    let issued = Authority::new("clients").issue(&client(&["billing.internal"], &[]));
    type Row = (&'static str, fn() -> Requirement, u16);
    let rows: [Row; 4] = [
        ("nothing", authenticated, 200),
        ("a scope", || scope("write").unwrap(), 403),
        ("a class", || acr(["gold"]).unwrap(), 403),
        ("an age", || authenticated_within(Duration::from_secs(300)), 403),
    ];
    for (name, requirement, status) in rows {
        let stack = || Stack::builder().clock(Still).tls(TlsLayer::require()).route("GET /x", require(requirement()));
        let by_key = stack().authenticate(by_key()).build().unwrap();
        let by_certificate = stack().authenticate(certificates.clone()).build().unwrap();
        let mut with_key = get("/x");
        with_key.headers_mut().insert("x-api-key", key.expose().parse().unwrap());
        let mut with_certificate = get("/x");
        with_certificate.extensions_mut().insert(issued.connection());
        for (stack, request) in [(by_key, with_key), (by_certificate, with_certificate)] {
            let app = stack.protect(Router::new().route("/x", routing::get(async || "done")));
            assert_eq!(seen(&app.oneshot(request).await.unwrap()), (status, None), "{name}");
        }
    }
}

/// Takes nothing, and offers a Bearer token.
fn nobody() -> impl Authenticator {
    authenticate_fn(Challenge::new("Bearer", "api").unwrap(), |_, _| Outcome::Absent)
}

#[tokio::test]
async fn a_handler_asks_for_it_by_its_question() {
    let handler = async |authz: Authorizer, request: axum::extract::Request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let things: Vec<Resource> = query.split(',').map(|id| Resource::new("order", id)).collect();
        let authz = authz.with_realm("bank").unwrap();
        if request.headers().contains_key("x-hide") {
            return authz.hiding().check("pay", &things[0]).await.map(|_| "done".to_owned());
        }
        if request.headers().contains_key("x-filter") {
            let kept = authz.filter("pay", things, Clone::clone).await?;
            return Ok(kept.iter().map(|thing| thing.id().to_owned()).collect::<Vec<_>>().join(","));
        }
        authz.check_all("pay", &things).await?;
        authz.check("pay", &things[0]).await.map(|_| "done".to_owned())
    };
    let audit = Captured::new();
    let stack = stack(Some(alice().acr("bronze").build())).audit(AuditLayer::new(audit.clone()));
    let stack = stack.policy(Parrot { waits: true }).route("GET /pay", require(authenticated())).build().unwrap();
    let app = stack.protect(Router::new().route("/pay", routing::get(handler)));
    let ask = async |path: &str, field: Option<&'static str>| {
        let mut request = get(path);
        if let Some(field) = field {
            request.headers_mut().insert(field, header::HeaderValue::from_static("1"));
        }
        app.clone().oneshot(request).await.unwrap()
    };
    let asked = "Bearer realm=\"bank\", error=\"insufficient_user_authentication\", acr_values=\"gold\"";
    for (things, expected) in [
        ("gold", (401, Some(asked.to_owned()))),
        ("met", (403, None)),
        ("allow", (200, None)),
        ("allow,gold", (401, Some(asked.to_owned()))),
        ("gold,no", (403, None)),
        ("gold,unknown", (401, Some(asked.to_owned()))),
        ("unknown,no", (403, None)),
    ] {
        assert_eq!(seen(&ask(&format!("/pay?{things}"), None).await), expected, "{things}");
    }
    assert_eq!(seen(&ask("/pay?gold", Some("x-hide")).await), (404, None));
    assert_eq!(support::text(ask("/pay?allow,gold,no", Some("x-filter")).await).await, "allow");
    // The trail says what was demanded, and the client's body does not.
    let first = &audit.records()[0];
    let decision = first.decisions().find(|decision| decision.backend() == "parrot").unwrap();
    assert!(decision.reasons().any(|reason| reason == "step-up: acr gold"));
    assert_eq!(first.status(), Some(401));
}

#[tokio::test]
async fn the_examples_of_the_rfc() {
    // §3, figures 2 and 3; §6.1, figure 6.
    let token = |acr: &str, auth_time| {
        Principal::builder(PrincipalKind::User, "https://as.example.net", "someone@example.net", "jwt")
            .scopes(["purchase"])
            .acr(acr)
            .auth_time(auth_time)
            .build()
    };
    let class = StepUp::acr(["myACR"]).unwrap();
    let age = StepUp::max_age(Duration::from_secs(5));
    let at = |seconds: u64| Instants::new(seconds * 1_000_000_000, 0);
    let issued = 1_646_340_200;
    let good = token("myACR", 1_646_340_198);
    assert!(class.is_met_by(&good, at(issued)) && age.is_met_by(&good, at(issued)));
    assert!(!age.is_met_by(&good, at(issued + 4)), "six seconds");
    assert!(!class.is_met_by(&token("myacr", 1_646_340_198), at(issued)));

    let clock = TestClock::at_unix(issued);
    for (requirement, principal, parameters) in [
        (acr(["myACR"]).unwrap(), token("otherACR", issued), ", acr_values=\"myACR\""),
        (authenticated_within(Duration::from_secs(5)), token("myACR", issued - 6), ", max_age=\"5\""),
    ] {
        let challenge = Challenge::new("Bearer", "api").unwrap();
        let everybody = authenticate_fn(challenge, move |_, _| Outcome::verified(principal.clone()));
        let stack = Stack::builder().clock(clock.clone()).tls(TlsLayer::require()).authenticate(everybody);
        let app = stack.route("GET /x", require(requirement)).build().unwrap();
        let app = app.protect(Router::new().route("/x", routing::get(async || "done")));
        assert_eq!(seen(&app.oneshot(get("/x")).await.unwrap()), step_up(parameters));
    }
}

#[tokio::test]
async fn factors_are_of_different_kinds() {
    for (methods, count) in [
        (&[][..], 0),
        (&["pwd"], 1),
        (&["pwd", "pin", "kba"], 1),
        (&["otp", "sms", "hwk", "swk", "sc", "tel", "pop"], 1),
        (&["face", "fpt", "iris", "retina", "vbm"], 1),
        (&["pwd", "otp"], 2),
        (&["pwd", "hwk", "fpt"], 3),
        (&["mfa"], 2),
        (&["mfa", "pwd"], 2),
        (&["mfa", "pwd", "otp", "face"], 3),
        (&["geo", "rba", "user", "wia", "mca", "MFA", "Pwd", "pwd "], 0),
    ] {
        assert_eq!(alice().methods(methods.iter().copied()).build().factors(), count, "{methods:?}");
    }
    let two = || require(factors(2).unwrap());
    let weak = alice().methods(["pwd", "pin"]).build();
    let told = step_up(", error_description=\"2 different kinds of factors are needed\"");
    assert_eq!(ask(two, Some(weak.clone())).await, told);
    assert_eq!(ask(two, Some(alice().methods(["pwd", "otp"]).build())).await, (200, None));
    assert_eq!(two().to_string(), "factors 2");
    let class_too = || require(any((acr(["urn:example:mfa"]).unwrap(), factors(2).unwrap())));
    assert_eq!(ask(class_too, Some(weak)).await, step_up(", acr_values=\"urn:example:mfa\""));
    assert!(factors(0).is_err() && factors(4).is_err());

    let rules = RouteRules::from_toml("[routes]\n\"GET /x\" = { factors = 2 }", &RuleNames::new()).unwrap();
    let app = stack(Some(alice().methods(["pwd"]).build())).routes(rules).build().unwrap();
    let app = app.protect(Router::new().route("/x", routing::get(async || "done")));
    assert_eq!(app.oneshot(get("/x")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    for bad in ["{ factors = 4 }", "{ factors = \"2\" }", "{ factors = 2, acr = [\"gold\"] }"] {
        assert!(RouteRules::from_toml(&format!("[routes]\n\"GET /x\" = {bad}"), &RuleNames::new()).is_err(), "{bad}");
    }
}

#[test]
fn demands_come_together() {
    let of = |classes: &[&str]| StepUp::acr(classes.iter().copied()).unwrap();
    assert_eq!(of(&["a", "b", "c"]).and(&of(&["c", "b"])), of(&["b", "c"]));
    assert_eq!(of(&["a"]).and(&of(&["b"])), of(&["a"]), "no challenge asks for one of each");
    let both = StepUp::max_age(Duration::from_secs(60)).and(&lately()).and(&StepUp::factors(2).unwrap()).and(&gold());
    assert_eq!((both.max_age_seconds(), both.factor_count()), (Some(60), Some(2)));
    assert_eq!(both.acr_values().collect::<Vec<_>>(), ["gold"]);
    for bad in [&[][..], &[""], &["a b"], &["a\"b"], &["a\\b"], &["ä"], &["a\r\nb"]] {
        assert!(StepUp::acr(bad.iter().copied()).is_err(), "{bad:?}");
    }
    assert!(StepUp::factors(0).is_err() && StepUp::factors(4).is_err());
    // What another verdict demands is not taken over with its facts.
    let denied = Verdict::deny("no").with_facts_of(&Verdict::step_up(gold()));
    assert_eq!(denied.step_up_demand(), None);
    assert_eq!(Verdict::cannot_decide("?").demanding(gold()).step_up_demand(), None);
}

/// Answers the same, whatever is asked.
#[derive(Clone, Debug)]
struct Says(Verdict);

#[async_trait]
impl PolicyBackend for Says {
    fn name(&self) -> &'static str {
        "says"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(self.0.clone())
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        self.0.clone()
    }
}

#[tokio::test]
async fn policies_that_decide_together() {
    type Join = fn(Says) -> Combined;
    let (allow, deny, unknown) = (Verdict::allow(), Verdict::deny("no"), Verdict::cannot_decide("?"));
    let (one, other, silent) =
        (Verdict::step_up(gold()), Verdict::step_up(lately()), Verdict::not_applicable("not mine"));
    let joined = Some(gold().and(&lately()));
    type Row<'a> = (&'static str, Join, Vec<&'a Verdict>, Decision, Option<StepUp>);
    let rows: Vec<Row<'_>> = vec![
        ("all: allow", Combined::all_of, vec![&one, &allow], Decision::Deny, Some(gold())),
        ("all: a denial wins", Combined::all_of, vec![&one, &deny], Decision::Deny, None),
        ("all: silence is a denial", Combined::all_of, vec![&one, &silent], Decision::Deny, None),
        ("all: cannot decide", Combined::all_of, vec![&unknown, &one], Decision::Deny, Some(gold())),
        ("all: both", Combined::all_of, vec![&one, &other], Decision::Deny, joined.clone()),
        ("any: an allow wins", Combined::any_of, vec![&one, &allow], Decision::Allow, None),
        ("any: against a denial", Combined::any_of, vec![&deny, &one], Decision::Deny, Some(gold())),
        ("any: one way is enough", Combined::any_of, vec![&other, &one], Decision::Deny, Some(lately())),
        ("any: cannot decide", Combined::any_of, vec![&one, &unknown], Decision::CannotDecide, None),
        ("deny: a denial wins", Combined::deny_overrides, vec![&one, &deny], Decision::Deny, None),
        ("deny: allow", Combined::deny_overrides, vec![&allow, &one], Decision::Deny, Some(gold())),
        ("deny: silence", Combined::deny_overrides, vec![&silent, &one], Decision::Deny, Some(gold())),
        ("deny: both", Combined::deny_overrides, vec![&one, &other], Decision::Deny, joined),
        ("first", Combined::first_applicable, vec![&silent, &one, &allow], Decision::Deny, Some(gold())),
    ];
    let bronze = Verdict::step_up(StepUp::acr(["bronze"]).unwrap());
    let rows = rows.into_iter().chain([
        // Made already: denials like any other.
        ("all: one is met", Combined::all_of as Join, vec![&bronze, &other], Decision::Deny, None),
        ("all: the last is met", Combined::all_of, vec![&other, &bronze], Decision::Deny, None),
        ("any: one is met", Combined::any_of, vec![&bronze, &one], Decision::Deny, Some(gold())),
        ("any: the last is met", Combined::any_of, vec![&one, &bronze], Decision::Deny, Some(gold())),
        ("deny: one is met", Combined::deny_overrides, vec![&bronze, &one], Decision::Deny, None),
        ("first: it is met", Combined::first_applicable, vec![&silent, &bronze, &allow], Decision::Deny, None),
        ("none but one that is met", Combined::any_of, vec![&bronze], Decision::Deny, None),
    ]);
    let subject = alice().acr("bronze").build();
    let query = AccessQuery::new(&subject, "pay", AT);
    for (name, join, verdicts, decision, demand) in rows {
        let mut policies = verdicts.iter().map(|verdict| Says((*verdict).clone()));
        let first = join(policies.next().unwrap());
        let combined = policies.fold(first, Combined::with);
        let verdict = combined.decide(&query).await;
        assert_eq!((verdict.decision(), verdict.step_up_demand()), (decision, demand.as_ref()), "{name}");
        assert_eq!(combined.decide_now(&query), Now::Known(verdict.clone()), "{name}");
        assert_eq!(combined.decide_all(&[query]).await, [verdict], "{name}");
    }
    let shadow = Shadow::new(Says(Verdict::deny("no")), Says(Verdict::step_up(gold())));
    let _ = shadow.decide(&query).await;
    assert_eq!(shadow.stats().differences, 1, "a denial is not a demand");
    let text = explain(&Says(Verdict::step_up(gold())), &query).await.to_string();
    assert!(text.contains("step-up: acr gold"), "{text}");
}

const REGO: &str = r#"
    package pay

    default decision := {"allow": false}

    decision := {"allow": true} if { input.action == "pay"; "clerk" in input.subject.roles; input.subject.acr == "gold" }
    decision := {"allow": false, "rules": ["pay-4"], "step_up": {"acr_values": ["gold", "platinum"], "max_age": 300, "factors": 2}} if {
        input.action == "pay"; "clerk" in input.subject.roles; not input.subject.acr == "gold"
    }
    decision := {"allow": false, "step_up": {"acr_values": "gold platinum"}} if input.action == "text"
    decision := {"allow": true, "step_up": {"max_age": 1}} if input.action == "allows"
    decision := {"allow": false, "step_up": {}} if input.action == "empty"
    decision := {"allow": false, "step_up": "gold"} if input.action == "no object"
    decision := {"allow": false, "step_up": {"acr_values": [1]}} if input.action == "number"
    decision := {"allow": false, "step_up": {"max_age": -1}} if input.action == "negative"
    decision := {"allow": false, "step_up": {"max_age": "300"}} if input.action == "string"
    decision := {"allow": false, "step_up": {"factors": 9}} if input.action == "many"
    decision := {"allow": false, "step_up": {"acr_values": ["a\"b"]}} if input.action == "quote"
"#;

fn questions() -> PolicyFixture {
    let question = |who: PrincipalBuilder, action: &str| {
        PolicyQuestion::new(who.build(), action).on(Resource::new("account", "1"))
    };
    PolicyFixture::new(question(alice().acr("gold"), "pay"), question(alice().acr("gold"), "close"))
        .step_up(question(alice().acr("bronze"), "pay"))
}

#[tokio::test]
async fn rego_says_it_in_the_decision_document() {
    let rego = Rego::from_text("data.pay.decision", REGO).unwrap();
    policy_backend(&rego, questions()).await;
    policy_backend(&Combined::all_of(rego.clone()), questions()).await;
    let subject = alice().build();
    let ask = |action| AccessQuery::new(&subject, action, AT);
    let verdict = rego.decide(&ask("pay")).await;
    let demand = verdict.step_up_demand().unwrap();
    assert_eq!(demand.to_string(), "acr gold or platinum, authenticated within 300 s, factors 2");
    assert_eq!(verdict.rules().last(), Some(&Arc::from("pay-4")));
    let verdict = rego.decide(&ask("text")).await;
    assert_eq!(verdict.step_up_demand().unwrap().acr_values().collect::<Vec<_>>(), ["gold", "platinum"]);
    for broken in ["allows", "empty", "no object", "number", "negative", "string", "many", "quote"] {
        let verdict = rego.decide(&ask(broken)).await;
        assert_eq!(verdict.decision(), Decision::CannotDecide, "{broken}: {:?}", verdict.reasons());
        assert_eq!(verdict.step_up_demand(), None, "{broken}");
    }

    let table = r#"
        [[question]]
        subject = { subject = "alice", roles = ["clerk"] }
        action = "pay"
        expect = "EXPECTED"
    "#;
    assert_eq!(test_table_text(&rego, "t", &table.replace("EXPECTED", "step_up")).await.unwrap(), 1);
    let error = test_table_text(&rego, "t", &table.replace("EXPECTED", "deny")).await.unwrap_err();
    assert!(error.to_string().contains("expected deny, got step_up"), "{error}");
}

const SCHEMA: &str = r#"
    entity Role;
    entity User in [Role] { acr?: String, amr: Set<String> };
    entity Account;
    action "pay", "close", "seize" appliesTo { principal: User, resource: Account };
"#;

const CEDAR: &str = r#"
    @id("clerks-pay")
    permit (principal in Role::"clerk", action in [Action::"pay", Action::"seize"], resource);

    @id("gold-only")
    @step_up("acr_values=gold platinum; max_age=300")
    forbid (principal, action in [Action::"pay", Action::"close", Action::"seize"], resource)
    unless { principal has acr && principal.acr == "gold" };

    @id("two-factors")
    @step_up("factors=2")
    forbid (principal, action == Action::"pay", resource) unless { principal.amr.contains("otp") };

    @id("never-here")
    forbid (principal, action == Action::"seize", resource);
"#;

fn cedar(policies: &str) -> Result<Cedar, portcullis::ConfigError> {
    Cedar::builder().schema("pay.cedarschema", SCHEMA).policies("pay.cedar", policies).build()
}

#[tokio::test]
async fn cedar_says_it_on_what_forbids() {
    let policy = cedar(CEDAR).unwrap();
    let account = Resource::new("account", "1");
    let verdict = async |who: PrincipalBuilder, action: &str| {
        let who = who.build();
        policy.decide(&AccessQuery::new(&who, action, AT).on(&account)).await
    };
    let demand = async |who, action| verdict(who, action).await.step_up_demand().map(ToString::to_string);
    let both = "acr gold or platinum, authenticated within 300 s, factors 2";
    assert_eq!(demand(alice(), "pay").await.as_deref(), Some(both), "each of those that forbid");
    assert_eq!(demand(alice().acr("gold"), "pay").await.as_deref(), Some("factors 2"));
    assert!(verdict(alice().acr("gold").methods(["otp"]), "pay").await.is_allow());
    assert_eq!(demand(alice(), "seize").await, None, "one that forbids for good");
    assert_eq!(demand(alice(), "close").await, None, "nothing permits it after the step-up either");
    assert_eq!(demand(alice().roles(["guest"]), "pay").await, None, "nor that");
    assert_eq!(verdict(alice(), "close").await.decision(), Decision::Deny);

    let forbid = |annotation: &str| format!("{annotation} forbid (principal, action, resource);");
    assert!(cedar(&forbid("@step_up(\"acr_values=a b;max_age=0; factors=3\")")).is_ok());
    for bad in [
        "",
        "gold",
        "acr_values=",
        "max_age=-1",
        "max_age=1.5",
        "factors=4",
        "factors=2; factors=3",
        "max_age=5;",
        "age=5",
        "acr_values=a\\\"b",
    ] {
        let error = cedar(&forbid(&format!("@step_up(\"{bad}\")"))).unwrap_err();
        assert!(error.to_string().contains("step_up"), "{bad}: {error}");
    }
    let permit = "@step_up(\"factors=2\") permit (principal, action, resource);";
    assert!(cedar(permit).unwrap_err().to_string().contains("permit"));

    let one = "@step_up(\"acr_values=gold\") forbid (principal, action == Action::\"pay\", resource) \
        unless { principal has acr && principal.acr == \"gold\" };\n\
        permit (principal in Role::\"clerk\", action == Action::\"pay\", resource);";
    policy_backend(&cedar(one).unwrap(), questions()).await;
}

#[tokio::test]
async fn backends_of_ones_own_conform() {
    #[derive(Debug)]
    struct Payments;

    #[async_trait]
    impl PolicyBackend for Payments {
        fn name(&self) -> &'static str {
            "payments"
        }

        async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
            let who = query.subject();
            match query.action() {
                "pay" if !who.has_role("clerk") => Verdict::deny("no clerk"),
                "pay" if who.acr() == Some("gold") => Verdict::allow(),
                "pay" => Verdict::step_up(gold()),
                _ => Verdict::deny("unknown"),
            }
        }
    }
    policy_backend(&Payments, questions()).await;
    let erased: Arc<dyn PolicyBackend> = Arc::new(Payments);
    policy_backend(&erased, questions()).await;
    assert_eq!(Still.now(), AT);
}

#[tokio::test]
#[should_panic(expected = "must not be demanded")]
async fn a_backend_that_asks_in_a_circle_does_not_conform() {
    let question = |action: &str| PolicyQuestion::new(alice().acr("bronze").build(), action);
    #[derive(Debug)]
    struct Circle;

    #[async_trait]
    impl PolicyBackend for Circle {
        fn name(&self) -> &'static str {
            "circle"
        }

        async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
            match query.action() {
                "allow" if query.subject().has_role("clerk") => Verdict::allow(),
                "met" => Verdict::step_up(StepUp::acr(["bronze"]).unwrap()),
                _ => Verdict::deny("no"),
            }
        }
    }
    policy_backend(&Circle, PolicyFixture::new(question("allow"), question("deny")).step_up(question("met"))).await;
}
