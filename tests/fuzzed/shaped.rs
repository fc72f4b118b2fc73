//! Inputs of the shape that they should have, or nearly.

use proptest::prelude::*;

use super::{
    certificate_extensions, cookie, decision_point, der::element, distinguished_name, key_admin, key_set_headers,
    logout_token, policy_table, revocation_admin, route_rules, route_table, traceparent, xfcc,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn trace_ids(
        fields in prop::collection::vec(
            "(traceparent|Traceparent|x-request-id): (00|01|ff|0A)-(0{32}|[0-9a-f]{31,33}|4BF9[0-9a-f]{28})-(0{16}|[0-9a-f]{16})-0[0-9a-f](-x|x)?",
            0..3,
        ),
    ) {
        traceparent::check(fields.join("\n").as_bytes());
    }

    #[test]
    fn freshness_of_keys(
        fields in prop::collection::vec(
            "(cache-control: ((public|max-age=(\"[0-9]{1,5}\"|[0-9]{1,6}|-1|x)|no-store|no-cache(=\"a\")?|a=\"(b|,|max-age=9|\\\\\"|\\\\\\\\| ){0,4}\"|a=\")(,|, | ,,)){0,3}(public|max-age=70)|age: [0-9]{1,4}|etag: (W/)?\"[a-z]{0,3}\")",
            0..4,
        ),
    ) {
        key_set_headers::check(fields.join("\n").as_bytes());
    }

    #[test]
    fn forwarded_certificates(
        pairs in prop::collection::vec(
            "(By|Hash|hash|Subject|URI|DNS|a|)(=|)(468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688|spiffe://prod\\.example/a|urn:b|\"([a,;=]|\\\\\"|\\\\\\\\){0,4}\"| \"x\"|)[ ]?",
            0..5,
        ),
        separators in prop::collection::vec("[;,]", 5),
    ) {
        let text: String = pairs.iter().zip(&separators).flat_map(|(pair, separator)| [&**pair, separator]).collect();
        xfcc::check(text.trim_end_matches([';', ',']).as_bytes());
        xfcc::check(pairs.join("\n").as_bytes());
    }

    #[test]
    fn names_in_der(
        parts in prop::collection::vec(
            prop::collection::vec(
                (
                    prop::sample::select(vec![&[0x55_u8, 4, 3][..], &[0x55, 4, 10], &[0x2a, 3], &[0x55, 0x80, 4, 3], &[0x55, 0x84]]),
                    prop::sample::select(vec![0x0c_u8, 0x12, 0x13, 0x16, 0x1e, 0x2c, 0x4c, 0x8c, 0x14, 0x1f]),
                    "[a,+=#\\\\ \"\u{0}\u{e4}]{0,4}",
                    prop::sample::select(vec![&[][..], &[], &[], &[5, 0], &[0]]),
                ),
                0..3,
            ),
            0..3,
        ),
    ) {
        let part = |attributes: &Vec<(&[u8], u8, String, &[u8])>| {
            let attribute = |(oid, tag, value, more): &(&[u8], u8, String, &[u8])| {
                element(0x30, &[&element(6, oid)[..], &element(*tag, value.as_bytes()), more].concat())
            };
            element(0x31, &attributes.iter().flat_map(attribute).collect::<Vec<_>>())
        };
        distinguished_name::check(&parts.iter().flat_map(part).collect::<Vec<_>>());
    }

    #[test]
    fn extensions_of_certificates(
        names in prop::collection::vec((prop::sample::select(vec![0x81_u8, 0x82, 0x86]), "(spiffe://prod\\.example/|urn:|)[a.*/ ]{1,3}"), 0..3),
        others in prop::collection::vec(
            prop::sample::select(vec![
                (&[0x55_u8, 29, 15][..], &[3_u8, 2, 7, 0x80][..]),
                (&[0x55, 29, 15], &[3, 2, 1, 0x06]),
                (&[0x55, 29, 15], &[3, 2, 3, 0x08]),
                (&[0x55, 29, 19], &[0x30, 0]),
                (&[0x55, 29, 19], &[0x30, 3, 1, 1, 0xff]),
                (&[0x55, 29, 37], &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1]),
                (&[0x55, 29, 37], &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2]),
                (&[0x55, 29, 37], &[0x30, 6, 6, 4, 0x55, 29, 37, 0]),
            ]),
            0..3,
        ),
    ) {
        let names: Vec<u8> = names.iter().flat_map(|(tag, name)| element(*tag, name.as_bytes())).collect();
        let alternative = element(0x30, &names);
        let all = [(&[0x55_u8, 29, 17][..], &alternative[..])].into_iter().chain(others);
        let extension = |(oid, value): (&[u8], &[u8])| element(0x30, &[element(6, oid), element(4, value)].concat());
        certificate_extensions::check(&all.flat_map(extension).collect::<Vec<_>>());
    }

    #[test]
    fn tables_of_questions(
        questions in prop::collection::vec(
            "subject = (\"(a|b)\"|\\{ subject = \"c\"(, kind = \"(user|dog)\")? \\})\naction = \"[d-g]\"\nexpect = \"(allow|deny|step_up|cannot_decide)\"(\ntime = (-1|0|9223372036854775807))?(\nmethod = \"GET\")?(\nroute = \"/\")?(\nclient = \"a\")?(\nresource = \\{ type = \"t\", id = \"1\"(, owner = \"(a|b)\")? \\})?",
            0..4,
        ),
    ) {
        let questions: String = questions.iter().map(|question| format!("[[question]]\n{question}\n")).collect();
        policy_table::check(&format!("{questions}[subjects.a]\nsubject = \"a\"\n"));
    }

    #[test]
    fn cookies(
        method in "GET|HEAD|POST|DELETE|CONNECT|get",
        cookies in prop::collection::vec("(__Host-session|__host-session|__Host-s|a)[ \t]?==?[ ]?(\\$TOKEN|x|\"\")?(;|; )?", 0..4),
        others in prop::collection::vec(
            "(origin: (https://app\\.example\\.com|https://evil\\.example|null)|sec-fetch-site: (same-origin|same-site|none|cross-site)|upgrade: websocket|sec-websocket-key: a|authorization: (Bearer|Basic) (\\$TOKEN|x))",
            0..3,
        ),
        split: bool,
    ) {
        let cookies = cookies.join(if split { "\ncookie: " } else { ";" });
        cookie::check(&format!("{method}\ncookie: {cookies}\n{}", others.join("\n")));
    }

    #[test]
    fn hours_of_rules(
        from in "(0[0-9]|1[0-9]|2[0-4]):[0-5][0-9]",
        until in "(0[0-9]|1[0-9]|2[0-4]):[0-5][0-9]",
        days in prop::sample::subsequence(vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 1..7),
        offset in "[+-](0[0-9]|1[0-4]):[0-5][0-9]",
        negates: bool,
    ) {
        let hours = format!("{{ hours = {{ from = \"{from}\", until = \"{until}\", days = {days:?}, offset = \"{offset}\" }} }}");
        let rule = if negates { format!("{{ not = {hours} }}") } else { hours };
        route_rules::check(&format!("[routes]\n\"GET /a\" = {rule}"));
    }

    #[test]
    fn combined_rules(rule in rule()) {
        route_rules::check(&format!("fallback = {rule}\n[routes]\n\"PUT /a/{{id}}\" = {rule}"));
    }

    #[test]
    fn tables_of_routes(
        lines in prop::collection::btree_set("(GET|POST|ANY|CONNECT) (/(a|b|\\{id\\}|a-\\{id\\}|\\{\\{|%41)){1,3}(/|/\\{\\*rest\\})?", 1..5),
        request in "(GET|HEAD|POST|CONNECT|PATCH) (/(a|b|A|a-b|x|%41|\\{)){1,4}/?",
    ) {
        let lines: Vec<_> = lines.into_iter().collect();
        route_table::check(&format!("{}\n{request}", lines.join("\n")));
    }

    #[test]
    fn lists_of_keys(
        query in prop::collection::vec(
            "(subject=(anna|bob)|tenant=(acme|other)?|all_tenants=(true|false|1)|name=(of|%61nn|a\\+n)|active=true|environment=(live)?|after=(040g2081040g2081|041|0000000000000000)|limit=(0|1|2|1000|1001|\\+1|%31)|x=1|)",
            0..4,
        ),
    ) {
        key_admin::check(format!("GET /keys?{}", query.join("&")).as_bytes());
    }

    #[test]
    fn revocations(
        path in "(/tokens|/sessions|/subjects|/clients|/keys)/revoke|/log-out-everywhere",
        members in prop::collection::vec(
            "\"issuer\":\"https://(id|evil)\\.example\\.com\"|\"(jti|sid|sub|client_id|kid)\":(\"\"|\"a\"|\"\\\\u0000\"|7)|\"(exp|issued_until)\":(null|1\\.0|(1799999|1800000)[0-9]{3}|1900000000)",
            0..4,
        ),
    ) {
        let known = "\"issuer\":\"https://id.example.com\"";
        for body in [members.join(","), [known.to_owned(), members.join(",")].join(",")] {
            revocation_admin::check(format!("POST {path}\napplication/json\n{{{body}}}").as_bytes());
        }
    }

    #[test]
    fn logout_tokens(
        typ in "logout\\+jwt|Logout\\+JWT|application/logout\\+jwt|JWT|at\\+jwt",
        iss in "https://(id|id|id|evil)\\.example\\.com",
        aud in "\"orders-web\"|\\[\"orders-web\"\\]|\\[\"orders-web\",\"b\"\\]|\\[\\]|\"b\"",
        iat in "1800000(0|1)[0-9]{2}(\\.5)?",
        exp in "(1799999|1800000)9[0-9]{2}",
        who in "(\"sid\":(\"s\"|\"\"|7),)?(\"sub\":(\"a\"|\"\"|null),)?",
        event in "\\{\\}|\\{\"a\":1\\}|1|\"\"",
        more in "(\"nonce\":\"n\",)?(\"nbf\":1800000(0|1)00,)?",
    ) {
        let events = format!("{{\"http://schemas.openid.net/event/backchannel-logout\":{event}}}");
        let claims = format!(
            "{{\"iss\":\"{iss}\",\"aud\":{aud},\"iat\":{iat},\"exp\":{exp},{who}{more}\"jti\":\"l\",\"events\":{events}}}"
        );
        logout_token::check(format!("{{\"alg\":\"HS256\",\"typ\":\"{typ}\"}}\n{claims}").as_bytes());
    }

    #[test]
    fn decisions(
        decision in "true|false|null|1|\"true\"|\\{\"allow\":(true|false|1)(,\"(obligations|advice|reasons|rules)\":(\\[\\]|\\[\"a\"\\]|\\[\\{\"name\":\"a\",\"b\":1\\}\\]|\\[1\\]|\\{\\}|null)){0,2}(,\"step_up\":\\{(\"max_age\":(1|\"1\"))?\\})?\\}",
        context in "null|1|\\{\\}|\\{\"obligations\":(\\[\"a\"\\]|\\[1\\]|\"a\")\\}|\\{\"error\":\\{\"status\":(404|500|\"404\")\\}\\}",
    ) {
        let one = format!("{{\"decision\":{decision},\"context\":{context}}}");
        let two = format!("\"evaluations\":[{one},{{\"decision\":true,\"context\":{context}}}]");
        decision_point::check(format!("{{\"result\":{decision}}}").as_bytes());
        decision_point::check(one.as_bytes());
        decision_point::check(format!("{{{two},\"result\":{context}}}").as_bytes());
    }
}

/// A rule of a table, a few conditions deep.
fn rule() -> impl Strategy<Value = String> {
    let one = prop::sample::select(vec![
        "\"authenticated\"",
        "{ role = \"clerk\" }",
        "{ permission = \"orders:cancel\" }",
        "{ scope = \"orders:read\" }",
        "{ condition = \"known\" }",
        "{ network = [\"10.0.0.0/8\"] }",
        "{ acr = [\"gold\"] }",
        "{ factors = 2 }",
        "{ authenticated_within = 60 }",
        "{ policy = \"orders:read\" }",
        "{ policy = \"no-such-action\" }",
    ]);
    one.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let several = (any::<bool>(), prop::collection::vec(inner.clone(), 1..4));
        let several = several
            .prop_map(|(all, parts)| format!("{{ {} = [{}] }}", if all { "all" } else { "any" }, parts.join(", ")));
        prop_oneof![inner.prop_map(|part| format!("{{ not = {part} }}")), several]
    })
}
