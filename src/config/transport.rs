//! Proxies and HTTPS.

use http::{HeaderName, Method};

use crate::{
    client::TlsVersion,
    config::{
        document::{Document, FamilyText, HstsText, Proxies, Tls, TlsVersionText},
        needed_word,
        problem::Report,
        tree::At,
    },
    error::ConfigError,
    evidence::TrustedProxies,
    tls::{Hsts, TlsLayer},
};

pub(super) fn tls(written: &At<Tls>, report: &mut Report<'_>) -> Option<TlsLayer> {
    let tls = &written.value;
    let mut layer = TlsLayer::require();
    // A setting that is not good is noted, and those after it are looked at without it.
    if let Some(hosts) = &tls.hosts {
        let set = layer.clone().hosts(&hosts.value);
        layer = report.take(hosts.at, "tls.hosts", set).unwrap_or(layer);
    }
    if let Some(hosts) = &tls.redirect_to {
        let set = layer.clone().redirect_to(&hosts.value);
        layer = report.take(hosts.at, "tls.redirect_to", set).unwrap_or(layer);
    }
    for (index, line) in tls.exempt.iter().enumerate() {
        let field = report.item("tls.exempt", index);
        // Methods are told apart by case, and none is called ANY: such a line would be about no request.
        let method = |name: &str| {
            let is_one = name != "ANY" && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            name.parse::<Method>().ok().filter(|_| is_one)
        };
        let parts = line.value.split_once(' ').and_then(|(name, path)| Some((method(name)?, path)));
        let Some((method, path)) = parts else {
            let advice = "must be one method in upper case and a path, as in \"GET /health\"";
            report.add(line.at, field, format!("{:?}", line.value), advice);
            continue;
        };
        let set = layer.clone().exempt(method, path);
        layer = report.take(line.at, &field, set).unwrap_or(layer);
    }
    if let Some(version) = tls.minimum_version {
        layer = layer.minimum_version(match version {
            TlsVersionText::Tls12 => TlsVersion::Tls12,
            TlsVersionText::Tls13 => TlsVersion::Tls13,
        });
    }
    if tls.allow_any_server_name {
        layer = layer.allow_any_server_name();
    }
    if let Some(hsts) = tls.hsts.as_ref().and_then(|hsts| hsts_of(hsts, report)) {
        layer = layer.hsts(hsts);
    }
    if tls.dangerous_plain_http_on_loopback {
        layer = layer.dangerous_plain_http_on_loopback();
    }
    Some(layer)
}

fn hsts_of(written: &At<HstsText>, report: &mut Report<'_>) -> Option<Hsts> {
    let max_age = &written.value.max_age;
    if max_age.value.0.as_secs() == 0 && !max_age.value.0.is_zero() {
        let advice =
            "is below a second, and zero makes browsers forget the host: say 1s or more, or 0s if that is meant";
        report.add(max_age.at, "tls.hsts.max_age", format!("{:?}", max_age.value.0), advice);
        return None;
    }
    report.take(written.at, "tls.hsts", read_hsts(&written.value))
}

fn read_hsts(written: &HstsText) -> Result<Hsts, ConfigError> {
    let mut hsts = Hsts::max_age(written.max_age.value.0);
    if written.include_subdomains {
        hsts = hsts.include_subdomains();
    }
    if written.preload { hsts.preload() } else { Ok(hsts) }
}

pub(super) fn proxies(written: &At<Proxies>, report: &mut Report<'_>) -> Option<TrustedProxies> {
    let proxies = &written.value;
    let networks = &proxies.networks;
    if report.took_from("proxies.networks") {
        return None;
    }
    // A field that is not there has no place of its own.
    let at = if networks.at == 0 { written.at } else { networks.at };
    let header = proxies.header.as_ref().and_then(|field| header_name(field, "proxies.header", report));
    let family = needed_word(proxies.family, written.at, "proxies.family", report);
    let made = match family {
        // What is wrong with the networks is so in each family.
        Some(FamilyText::XForwarded) | None => TrustedProxies::x_forwarded(&networks.value),
        Some(FamilyText::Forwarded) => TrustedProxies::forwarded(&networks.value),
        Some(FamilyText::AddressHeader) => {
            let by = "the family address-header";
            let field = super::needed(proxies.header.as_ref(), written.at, "proxies.header", by, report)?;
            match TrustedProxies::address_header(header?, &networks.value) {
                Err(error) if error.setting() == "address header" => {
                    return report.take(field.at, "proxies.header", Err(error));
                }
                made => made,
            }
        }
    };
    let mut made = report.take(at, "proxies.networks", made)?;
    let family = family?;
    if let Some(hops) = &proxies.hops {
        let set = made.clone().with_hops(hops.value);
        made = report.take(hops.at, "proxies.hops", set).unwrap_or(made);
    }
    if let Some(field) = &proxies.scheme_header {
        let name = header_name(field, "proxies.scheme_header", report)?;
        made = report.take(field.at, "proxies.scheme_header", made.with_scheme_header(name))?;
    }
    if let (Some(header), FamilyText::XForwarded | FamilyText::Forwarded) = (&proxies.header, family) {
        let advice = "is of the family address-header: remove it, or set family = \"address-header\"";
        report.add(header.at, "proxies.header", format!("{:?}", header.value), advice);
    }
    Some(if proxies.unix_sockets { made.and_unix_sockets() } else { made })
}

/// Notes if a proxy's word shall stand in a field that keys or tokens come in: what a client sends there would be its address.
pub(super) fn check_fields(document: &Document, report: &mut Report<'_>) {
    let Some(proxies) = document.proxies.as_ref().map(|proxies| &proxies.value) else { return };
    let keys = document.api_keys.iter().filter_map(|keys| keys.value.header.as_ref());
    let keys = keys.map(|header| (header, "api_keys.header".to_owned()));
    let tokens = document.jwt.iter().flat_map(|jwt| jwt.value.headers.iter().enumerate());
    let tokens = tokens.map(|(index, header)| (header, report.item("jwt.headers", index)));
    let taken: Vec<_> = keys.chain(tokens).collect();
    for (field, header) in [("proxies.header", &proxies.header), ("proxies.scheme_header", &proxies.scheme_header)] {
        let Some(header) = header else { continue };
        let same = taken.iter().find(|(other, _)| other.value.eq_ignore_ascii_case(&header.value));
        if let Some((_, of)) = same {
            let advice = format!("carries a credential, as {of} says, and no proxy's word: name another field");
            report.add(header.at, field, format!("{:?}", header.value), advice);
        }
    }
}

pub(super) fn header_name(written: &At<String>, field: &str, report: &mut Report<'_>) -> Option<HeaderName> {
    let name = written.value.parse().ok();
    if name.is_none() {
        report.add(written.at, field, format!("{:?}", written.value), "must be the name of a header field");
    }
    name
}
