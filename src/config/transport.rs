//! Proxies and HTTPS.

use http::{HeaderName, Method};

use crate::{
    client::TlsVersion,
    config::{
        document::{FamilyText, HstsText, Proxies, Tls, TlsVersionText},
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
    if let Some(hosts) = &tls.hosts {
        layer = report.take(hosts.at, "tls.hosts", layer.hosts(&hosts.value))?;
    }
    if let Some(hosts) = &tls.redirect_to {
        layer = report.take(hosts.at, "tls.redirect_to", layer.redirect_to(&hosts.value))?;
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
        layer = report.take(line.at, &field, layer.exempt(method, path))?;
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
    if let Some(hsts) = &tls.hsts {
        layer = layer.hsts(report.take(hsts.at, "tls.hsts", read_hsts(&hsts.value))?);
    }
    if tls.dangerous_plain_http_on_loopback {
        layer = layer.dangerous_plain_http_on_loopback();
    }
    Some(layer)
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
    let made = match proxies.family {
        FamilyText::XForwarded => TrustedProxies::x_forwarded(&networks.value),
        FamilyText::Forwarded => TrustedProxies::forwarded(&networks.value),
        FamilyText::AddressHeader => {
            let by = "the family address-header";
            let field = super::needed(proxies.header.as_ref(), written.at, "proxies.header", by, report)?;
            let name = header_name(field, "proxies.header", report)?;
            match TrustedProxies::address_header(name, &networks.value) {
                Err(error) if error.setting() == "address header" => {
                    return report.take(field.at, "proxies.header", Err(error));
                }
                made => made,
            }
        }
    };
    let mut made = report.take(at, "proxies.networks", made)?;
    if let Some(hops) = &proxies.hops {
        made = report.take(hops.at, "proxies.hops", made.with_hops(hops.value))?;
    }
    if let Some(field) = &proxies.scheme_header {
        let name = header_name(field, "proxies.scheme_header", report)?;
        made = report.take(field.at, "proxies.scheme_header", made.with_scheme_header(name))?;
    }
    if let (Some(header), FamilyText::XForwarded | FamilyText::Forwarded) = (&proxies.header, proxies.family) {
        let advice = "is of the family address-header: remove it, or set family = \"address-header\"";
        report.add(header.at, "proxies.header", format!("{:?}", header.value), advice);
    }
    Some(if proxies.unix_sockets { made.and_unix_sockets() } else { made })
}

pub(super) fn header_name(written: &At<String>, field: &str, report: &mut Report<'_>) -> Option<HeaderName> {
    let name = written.value.parse().ok();
    if name.is_none() {
        report.add(written.at, field, format!("{:?}", written.value), "must be the name of a header field");
    }
    name
}
