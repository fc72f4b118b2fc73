//! Several mistakes in one document: each is told, and nothing that comes of it.

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
            &[(2, "tls.host")],
        ),
        (format!("{KEYS}peppers = [{{ id = 'a', secret = 'b' }}]"), &[(5, "api_keys.peppers[0].secret")]),
    ] {
        let told = problems(&text, &files());
        let is: Vec<_> = told.iter().map(|problem| (problem.line().unwrap(), problem.field())).collect();
        assert_eq!(is, expected, "{text}\n{told}");
    }
}
