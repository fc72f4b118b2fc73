//! Several mistakes in one document: each is told, and nothing that comes of it.

use portcullis::config::Config;

use super::{ISSUER, KEYS, QUOTA, files, problems};

#[test]
fn all_mistakes_are_told_at_once() {
    let told = problems(
        "no_stroe = true\n[tls]\nhost = []\n[quotas.a]\ncount = 0\nper = 'minute'\n[[limits]]\nby = 'client'\n\
         quotas = ['b']\n[audit]\nsink = 'file'\n",
        &files(),
    );
    let lines: Vec<_> = told.iter().map(|problem| (problem.line().unwrap(), problem.field())).collect();
    let expected =
        [(1, "no_stroe"), (3, "tls.host"), (5, "quotas.a.count"), (9, "limits[0].quotas[0]"), (11, "audit.sink")];
    assert_eq!(lines, expected, "{told}");
}

/// A wrong word takes itself out of a document, and not what stands beside it or after it.
#[test]
fn a_wrong_word_hides_no_other_mistake() {
    let all = "[proxies]\nfamily = 'x-forwardd'\nnetworks = ['10.0.0.0/8']\n[quotas.a]\ncount = 0\nper = 'sec'\n\
               [[limits]]\nby = 'ip'\nquotas = ['b']\n[audit]\nsink = 'file'\npath = '@/no/a'\ncapacity = 0\n[routes]\n\
               'GET /a' = { permision = 'x' }\n'GET /b' = { hours = { from = '9', until = '17:00', days = ['noday'] } }\n\
               'get /c' = 'public'\n'GET /d' = 'publik'\n'GET /e' = { condition = 'told-by-code' }\n\
               'GET /f' = { role = 'told-by-code', resource = 'told-by-code' }\n[routes.'GET /g']\nhide = true\n\
               permission = 5\n";
    let whole: &[_] = &[
        (2, "proxies.family"),
        (3, "proxies.networks"),
        (5, "quotas.a.count"),
        (6, "quotas.a.per"),
        (8, "limits[0].by"),
        (9, "limits[0].quotas[0]"),
        (11, "audit.sink"),
        (12, "audit.path"),
        (13, "audit.capacity"),
        (15, "routes"),
        (16, "routes"),
        (17, "routes"),
        (18, "routes"),
        (23, "routes"),
    ];
    for (text, expected) in [
        (all, whole),
        ("[tls]\n[api_keys]\nstore = 'sqllite'\nprefix = 'P'", &[(3, "api_keys.store"), (4, "api_keys.prefix")]),
        (
            "[policy]\nfile = '@/bad.toml'\n[routes]\n'GET /a' = { permission = 'orders:read' }\n'get /b' = 'public'",
            &[(2, "policy.file"), (5, "routes")],
        ),
        (
            "[tls]\nminimum_version = '1.1'\nhosts = []\nexempt = ['GET a']\nhsts = { max_age = '1ms' }",
            &[(2, "tls.minimum_version"), (3, "tls.hosts"), (4, "tls.exempt[0]"), (5, "tls.hsts.max_age")],
        ),
        ("[routes]\n'GET /a' = { scop = 'x' }\n'GET /b' = { all = [] }", &[(2, "routes"), (3, "routes")]),
    ] {
        let told = problems(text, &files());
        let is: Vec<_> = told.iter().map(|problem| (problem.line().unwrap(), problem.field())).collect();
        assert_eq!(is, expected, "{text}\n{told}");
    }
}

/// What is wrong with a document, by line and field: this, and nothing that comes of it.
#[test]
fn one_mistake_leads_to_no_other() {
    let limits = "[[limits]]\nby = 'client'\nquotas = ['flood']\n[[limits]]\nby = 'ip'\nquotas = ['flood']\n\
                  [[limits]]\nby = 'principal'\n";
    let secret = "address = { file = '@/redis' }\ndangerous_plain_tcp = true\n";
    let ten: String =
        (0..10).map(|n| format!("[[limits]]\nby = 'client'\nname = 'n{n}'\nquotas = ['flood']\n")).collect();
    for (text, expected) in [
        (format!("{QUOTA}{limits}quota = ['flood']"), &[(8, "limits[1].by"), (12, "limits[2].quota")][..]),
        (format!("{QUOTA}{limits}"), &[(8, "limits[1].by"), (10, "limits[2].quotas")]),
        (format!("{QUOTA}[[limits]]\nby = 'client'"), &[(4, "limits[0].quotas")]),
        (
            format!("{QUOTA}[[limits]]\nby = 'client'\n[[limits]]\nby = 'route'\nquotas = ['floods']"),
            &[(4, "limits[0].quotas"), (8, "limits[1].quotas[0]")],
        ),
        (
            format!("{QUOTA}{ten}[[limits]]\nby = 'ip'\nquotas = ['flood']").replacen("by = 'client'\n", "", 1),
            &[(4, "limits[0].by"), (44, "limits[10].by")],
        ),
        (
            format!("{QUOTA}{limits}quotas = ['flood']\nstore = 'redis'\n[redis]\n{secret}").replace("store", "stroe"),
            &[(8, "limits[1].by"), (13, "limits[2].stroe")],
        ),
        (
            format!("{QUOTA}[[limits]]\nby = 'client'\nquotas = ['flood']\nstore = 'redis'\n[redis]\n{secret}x = 1"),
            &[(11, "redis.x")],
        ),
        (
            format!("{QUOTA}[[limits]]\nby = 'client'\nquotas = ['flood']\nstore = 'redis'\n[redis]\naddress = 'a'"),
            &[(9, "redis.address")],
        ),
        (
            "[quotas.flood]\ncount = 9\nper = 'sec'\n[[limits]]\nby = 'client'\nquotas = ['flood']".to_owned(),
            &[(3, "quotas.flood.per")],
        ),
        (format!("{QUOTA}[[limits]]\nby = 'client'\nquotas = [5]"), &[(6, "limits[0].quotas[0]")]),
        (
            format!("{QUOTA}[[limits]]\nby = 'client'\nquotas = [5, 'floods']"),
            &[(6, "limits[0].quotas[0]"), (6, "limits[0].quotas[1]")],
        ),
        (format!("{QUOTA}[[limits]]\nby = 'client'\nquotas = ['floods']"), &[(6, "limits[0].quotas[0]")]),
        ("[proxies]\nfamily = 'forwarded'\nnetworks = '10.0.0.7'".to_owned(), &[(3, "proxies.networks")]),
        (ISSUER.replace("['ES256']", "[256]"), &[(5, "issuers[0].algorithms[0]")]),
        (ISSUER.replace("[tls]", "tls = true"), &[(1, "tls")]),
        (ISSUER.replace("audience", "audince") + "[jwt]\nrealm = 'orders'", &[(4, "issuers[0].audince")]),
        ("[tls]\n[jwt]\nrealm = 'orders'\n[[issuers]]\nprovider = 'googel'".to_owned(), &[(5, "issuers[0].provider")]),
        (
            "[tls]\nhost = []\n[routes]\n'GET /' = { condition = 'own-device' }\nfallback = 'deny'".to_owned(),
            &[(2, "tls.host"), (5, "routes.fallback")],
        ),
        (format!("{KEYS}peppers = [{{ id = 'a', secret = 'b' }}]"), &[(5, "api_keys.peppers[0].secret")]),
    ] {
        let told = problems(&text, &files());
        let is: Vec<_> = told.iter().map(|problem| (problem.line().unwrap(), problem.field())).collect();
        assert_eq!(is, expected, "{text}\n{told}");
    }
}

/// Records into a policy would be the end of it, by whatever name the file is called.
#[test]
fn no_records_go_into_another_file_of_the_document() {
    let dir = files();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("logs")).unwrap();
    std::fs::hard_link(at("policy.toml"), at("linked")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("policy.toml"), at("logs/audit.jsonl")).unwrap();
    let app = at("app.toml");
    for (path, of) in [
        ("app.toml", Some("this document")),
        ("logs/../policy.toml", Some("policy.file")),
        #[cfg(unix)]
        ("linked", Some("policy.file")),
        #[cfg(unix)]
        ("logs/audit.jsonl", Some("policy.file")),
        ("other.jsonl", None),
        ("logs/policy.toml", None),
    ] {
        let (policy, records) = (at("policy.toml"), at(path));
        let text = format!("[policy]\nfile = {policy:?}\n[audit]\nsink = 'json-lines'\npath = {records:?}\n");
        std::fs::write(&app, text).unwrap();
        let checked = Config::read(&app).and_then(|config| config.check());
        let told = checked.err().map(|problems| problems.to_string());
        match (of, &told) {
            (None, None) => {}
            (Some(of), Some(told)) => assert!(told.contains(&format!("is the file of {of} as well")), "{path}: {told}"),
            _ => panic!("{path}: {told:?}"),
        }
    }
}

/// What is accepted and may not be what was meant: no mistake, and told all the same where a document is checked.
#[test]
fn what_may_not_be_meant_is_a_warning() {
    let dir = files();
    let issuer = |name: &str, more: &str| {
        let issuer = ISSUER.replace("https://id.example.com", &format!("https://{name}.example"));
        format!("{issuer}{more}\n")
    };
    let tenant = "tenant_claim = 'org'";
    let own = "tenant_claim = 'org'\nclaims = { org = ['acme'] }";
    for (name, text, told) in [
        ("one issuer", issuer("a", tenant), &[][..]),
        ("both have a list", issuer("a", own) + &issuer("b", own).replace("[tls]\n", ""), &[]),
        (
            "one may assert any",
            issuer("a", own) + &issuer("b", tenant).replace("[tls]\n", ""),
            &["issuers[1].tenant_claim"],
        ),
        (
            "both may",
            issuer("a", tenant) + &issuer("b", "tenant_claim = ['org', 'id']").replace("[tls]\n", ""),
            &["issuers[0].tenant_claim", "issuers[1].tenant_claim"],
        ),
        ("no pepper", "[tls]\n[api_keys]\nstore = 'file'\npath = '@/keys.toml'\n".to_owned(), &["api_keys.peppers"]),
    ] {
        let text = text.replace('@', dir.path().to_str().unwrap());
        let warnings = Config::from_toml(&text).and_then(|config| config.check()).unwrap();
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field()).collect();
        assert_eq!(fields, told, "{name}: {text}");
        assert!(warnings.iter().all(|warning| warning.line().is_some()), "{name}: {warnings:?}");
    }
    let text = issuer("a", tenant) + &issuer("b", tenant).replace("[tls]\n", "");
    let warnings = Config::from_toml(&text).and_then(|config| config.check()).unwrap();
    let advice = "may assert any tenant, also those of another issuer: list its own: claims = { \"org\" = [..] }";
    assert_eq!(warnings[0].advice(), advice);
}
