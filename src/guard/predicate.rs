//! Conditions over principal, thing and circumstances: attribute-based access control, and relations.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use crate::{
    clock::Instants,
    error::ConfigError,
    guard::{
        hours::Hours,
        requirement::{Node, Requirement, named_printable},
    },
    policy::{AccessQuery, Decision, Resource, StepUp},
    principal::Principal,
};

/// A condition with a name that records show.
#[derive(Clone)]
pub(crate) struct Predicate {
    name: Arc<str>,
    thing: Thing,
    test: Arc<Test>,
}

/// What a predicate has to do with the thing of its guard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thing {
    /// It can only be asked about one, and looks at this of it; a test of somebody else's looks at what it likes.
    Needed(Option<Fact>),
    /// It may look at one: what a test of somebody else's does, nobody knows.
    Seen,
    /// It passes whatever the thing is.
    Ignored,
}

/// What is told of a thing beyond which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Owner,
    Tenant,
    Attributes,
}

type Test = dyn Fn(&AccessQuery<'_>) -> Decision + Send + Sync;

impl Predicate {
    fn requirement(
        name: impl Into<Arc<str>>,
        thing: Thing,
        test: impl Fn(&AccessQuery<'_>) -> Decision + Send + Sync + 'static,
    ) -> Requirement {
        Node::Predicate(Self { name: name.into(), thing, test: Arc::new(test) }).into()
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it can only be asked where the guard names a thing.
    pub(crate) const fn needs_resource(&self) -> bool {
        matches!(self.thing, Thing::Needed(_))
    }

    /// What it looks at of the thing. Where the guard's thing can never tell it, that is not known, rather than not so.
    pub(crate) const fn fact(&self) -> Option<Fact> {
        match self.thing {
            Thing::Needed(fact) => fact,
            Thing::Seen | Thing::Ignored => None,
        }
    }

    /// Whether it may look at the thing that the guard names.
    #[cfg(feature = "stack")]
    pub(crate) const fn looks_at_thing(&self) -> bool {
        !matches!(self.thing, Thing::Ignored)
    }

    pub(crate) fn test(&self, query: &AccessQuery<'_>) -> Decision {
        (self.test)(query)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Predicate").field(&self.name).finish()
    }
}

const fn allow_if(holds: bool) -> Decision {
    if holds { Decision::Allow } else { Decision::Deny }
}

/// Of the thing; the guard refuses before a predicate is asked without one.
fn of_resource(query: &AccessQuery<'_>, test: impl Fn(&Resource, &Principal) -> bool) -> Decision {
    query.resource().map_or(Decision::CannotDecide, |resource| allow_if(test(resource, query.subject())))
}

/// Demands that a test of your own over the whole question passes. `name` is what records show, and the action that the
/// question names.
///
/// The test says [`Decision::CannotDecide`] if it could not find out what it must know: `not` leaves that as it is, so that
/// what is missing opens nothing. It must be quick and must not block.
///
/// ```
/// use portcullis::{guard::{predicate, require}, policy::Decision};
///
/// let small = require(predicate("at most a thousand", |query| match query.attribute("amount").and_then(|n| n.as_u64()) {
///     Some(amount) if amount <= 1_000 => Decision::Allow,
///     Some(_) => Decision::Deny,
///     None => Decision::CannotDecide,
/// }));
/// # let _ = small;
/// ```
pub fn predicate<F>(name: &'static str, test: F) -> Requirement
where
    F: Fn(&AccessQuery<'_>) -> Decision + Send + Sync + 'static,
{
    Predicate::requirement(name, Thing::Seen, test)
}

/// Demands that a test of your own over the thing and the principal passes: a relation, such as membership. The guard must
/// name a thing ([`GuardLayer::on`](crate::guard::GuardLayer::on)).
pub fn relation<F>(name: &'static str, test: F) -> Requirement
where
    F: Fn(&Resource, &Principal) -> bool + Send + Sync + 'static,
{
    Predicate::requirement(name, Thing::Needed(None), move |query| of_resource(query, &test))
}

/// Demands that the thing belongs to the principal: issuer and subject are the same. A thing without an owner belongs to
/// nobody. The guard must name a thing ([`GuardLayer::on`](crate::guard::GuardLayer::on)), by a function
/// ([`from_head`](crate::guard::from_head)) that may tell its owner: whose a thing of the path is cannot be decided.
#[must_use]
pub fn owner() -> Requirement {
    Predicate::requirement("owner", Thing::Needed(Some(Fact::Owner)), |query| of_resource(query, Resource::is_owned_by))
}

/// Demands that thing and principal are of the same tenant; one without a tenant is of none. The guard must name a thing
/// ([`GuardLayer::on`](crate::guard::GuardLayer::on)), and one of the path with
/// [`in_tenant`](crate::guard::ResourceSource::in_tenant): without, it cannot be decided.
#[must_use]
pub fn same_tenant() -> Requirement {
    Predicate::requirement("same tenant", Thing::Needed(Some(Fact::Tenant)), |query| {
        of_resource(query, |resource, principal| resource.tenant().is_some() && resource.tenant() == principal.tenant())
    })
}

/// Demands that an attribute of the thing has this value. A thing without the attribute does not pass. The guard must name a
/// thing ([`GuardLayer::on`](crate::guard::GuardLayer::on)), by a function ([`from_head`](crate::guard::from_head)) that may tell
/// attributes: those of a thing of the path cannot be decided.
///
/// # Errors
/// If the name is empty, longer than 256 bytes or has control characters.
pub fn attribute(name: &str, value: impl Into<Value>) -> Result<Requirement, ConfigError> {
    let (name, value) = (named_printable("attribute", name)?, value.into());
    let shown = format!("{name} is {value}");
    Ok(Predicate::requirement(shown, Thing::Needed(Some(Fact::Attributes)), move |query| {
        of_resource(query, |resource, _| resource.attribute(&name) == Some(&value))
    }))
}

/// Demands that the client's address is in one of these networks, in CIDR notation; IPv4 in IPv6 counts as IPv4, in a network from
/// `::ffff:0:0/96` on as in an address, so that no wider one of IPv6, `::/0` say, has an IPv4 address in it. Where the address is not
/// known, it cannot be decided (`503`), also behind a `not`.
///
/// The address is only as good as the trust in proxies; see the manual's page on evidence.
///
/// ```
/// use portcullis::guard::{network, require};
///
/// let office = require(network(["198.51.100.0/24", "2001:db8:7::/48"])?);
/// # let _ = office;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Errors
/// If the list is empty, or one is no network: `10.0.0.1/8` has bits behind its prefix.
pub fn network<'n>(networks: impl IntoIterator<Item = &'n str>) -> Result<Requirement, ConfigError> {
    let networks: Vec<&str> = networks.into_iter().collect();
    let read = |text: &&str| match text.parse::<IpNet>() {
        Ok(network) if network.trunc() == network => Ok(unmapped_network(network)),
        Ok(network) => {
            let problem = format!("has bits behind its prefix: write {}", network.trunc());
            Err(ConfigError::new("network", *text, problem))
        }
        Err(error) => Err(ConfigError::new("network", format!("{text:?}"), "is not CIDR").caused_by(error)),
    };
    let nets = networks.iter().map(read).collect::<Result<Vec<IpNet>, _>>()?;
    if nets.is_empty() {
        return Err(ConfigError::new("network", "[]", "must name at least one network"));
    }
    let shown = format!("network {}", networks.join(" or "));
    Ok(Predicate::requirement(shown, Thing::Ignored, move |query| {
        query.address().map_or(Decision::CannotDecide, |address| {
            let address = unmapped(address);
            allow_if(nets.iter().any(|network| network.contains(&address)))
        })
    }))
}

/// `::ffff:203.0.113.0/120` is `203.0.113.0/24`: it would have none of the addresses that it names.
fn unmapped_network(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network };
    let base = six.network().to_ipv4_mapped();
    let four = base.zip(six.prefix_len().checked_sub(96)).and_then(|(base, prefix)| Ipv4Net::new(base, prefix).ok());
    four.map_or(network, IpNet::V4)
}

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Demands that the request comes within these hours.
#[must_use]
pub fn during(hours: Hours) -> Requirement {
    Predicate::requirement(hours.to_string(), Thing::Ignored, move |query| {
        allow_if(hours.has(query.at().unix_seconds()))
    })
}

/// Demands that the person used this method to prove who they are (`amr`, RFC 8176), `mfa` for example.
///
/// # Errors
/// If the name is empty, longer than 256 bytes or has control characters.
pub fn amr(method: &str) -> Result<Requirement, ConfigError> {
    let method = named_printable("amr", method)?;
    Ok(Predicate::requirement(format!("amr {method}"), Thing::Ignored, move |query| {
        allow_if(query.subject().methods().contains(&method))
    }))
}

/// How strongly, or how lately, the person must have proved who they are. What is missing can be mended by proving it again.
#[derive(Clone, Debug)]
pub(crate) struct Strength {
    demand: StepUp,
    shown: Arc<str>,
}

impl Strength {
    fn requirement(demand: StepUp) -> Requirement {
        let shown = demand.to_string().into();
        Node::Strength(Self { demand, shown }).into()
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.shown
    }

    pub(crate) const fn demand(&self) -> &StepUp {
        &self.demand
    }

    pub(crate) fn is_met_by(&self, principal: &Principal, at: Instants) -> bool {
        self.demand.is_met_by(principal, at)
    }
}

/// Demands one of these authentication context classes (`acr`), the one to ask for first. A request whose token has another or
/// none gets `401` and is told which (RFC 9470), if nothing else is missing.
///
/// # Errors
/// If the list is empty, or one is not 1 to 256 bytes of printable ASCII without space, `"` and `\`.
pub fn acr<'n>(classes: impl IntoIterator<Item = &'n str>) -> Result<Requirement, ConfigError> {
    StepUp::acr(classes).map(Strength::requirement)
}

/// Demands that the person proved who they are (`auth_time`) not longer ago than this, in whole seconds. A request whose token
/// is older or does not say gets `401` and is told so (RFC 9470 `max_age`), if nothing else is missing. The issuer's clock may
/// be 60 seconds ahead.
#[must_use]
pub fn authenticated_within(max_age: Duration) -> Requirement {
    Strength::requirement(StepUp::max_age(max_age))
}

/// Demands that the person proved who they are by as many different kinds of factors, as the issuer tells it in `amr` (RFC 8176):
/// something they know, have, are. [`Principal::factors`] says what counts. A request whose token tells of fewer gets `401`
/// (RFC 9470), if nothing else is missing.
///
/// The RFC has no parameter for the number, so that it stands in `error_description`. Where the issuer has a class that means as much,
/// let it do as well, and the client can ask for it:
///
/// ```
/// use portcullis::guard::{acr, any, factors, require};
///
/// let transfer = require(any((acr(["urn:example:mfa"])?, factors(2)?)));
/// # let _ = transfer;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Errors
/// If it is not 1 to 3.
pub fn factors(count: u8) -> Result<Requirement, ConfigError> {
    StepUp::factors(count).map(Strength::requirement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::PrincipalKind;

    const NOW: u64 = 1_800_000_000;

    fn alice() -> crate::principal::PrincipalBuilder {
        Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt")
    }

    /// What a requirement of one predicate says.
    fn ask(requirement: &Requirement, subject: &Principal, change: impl Fn(AccessQuery<'_>) -> Decision) -> Decision {
        let _ = requirement;
        change(AccessQuery::new(subject, "x", Instants::new(NOW * 1_000_000_000, 0)))
    }

    fn test_of(requirement: Requirement) -> Predicate {
        match requirement.node() {
            Node::Predicate(predicate) => predicate.clone(),
            other => panic!("{other:?} is no predicate"),
        }
    }

    #[test]
    fn relations_to_the_thing() {
        let alice = alice().tenant("acme").build();
        let stranger = Principal::builder(PrincipalKind::User, "https://evil.example", "alice", "jwt").build();
        let own =
            Resource::new("order", 1).owned_by("https://id.example.com", "alice").in_tenant("acme").with("open", true);
        let other = Resource::new("order", 2).owned_by("https://id.example.com", "bob").in_tenant("globex");
        let nobodys = Resource::new("order", 3).with("open", "true");
        for (name, requirement, [of_own, of_other, of_nobody, by_stranger]) in [
            ("owner", owner(), [true, false, false, false]),
            ("tenant", same_tenant(), [true, false, false, false]),
            ("attribute", attribute("open", true).unwrap(), [true, false, false, true]),
            ("relation", relation("odd", |thing, _| thing.id() != "2"), [true, false, true, true]),
        ] {
            let predicate = test_of(requirement.clone());
            assert!(predicate.needs_resource(), "{name}");
            for (subject, thing, expected) in [
                (&alice, &own, of_own),
                (&alice, &other, of_other),
                (&alice, &nobodys, of_nobody),
                (&stranger, &own, by_stranger),
            ] {
                let decision = ask(&requirement, subject, |query| predicate.test(&query.on(thing)));
                assert_eq!(decision, allow_if(expected), "{name} {thing:?}");
            }
            assert_eq!(ask(&requirement, &alice, |query| predicate.test(&query)), Decision::CannotDecide, "{name}");
        }
    }

    #[test]
    fn networks() {
        let office = test_of(network(["198.51.100.0/24", "2001:db8:7::/48"]).unwrap());
        assert_eq!(&**office.name(), "network 198.51.100.0/24 or 2001:db8:7::/48");
        let alice = alice().build();
        for (address, expected) in [
            ("198.51.100.7", Decision::Allow),
            ("198.51.101.7", Decision::Deny),
            ("2001:db8:7::1", Decision::Allow),
            ("2001:db8:8::1", Decision::Deny),
            ("::ffff:198.51.100.7", Decision::Allow),
            ("::198.51.100.7", Decision::Deny),
        ] {
            let address = Some(address.parse().unwrap());
            let query = AccessQuery::new(&alice, "x", Instants::new(0, 0)).with_address(address);
            assert_eq!(office.test(&query), expected, "{address:?}");
        }
        assert_eq!(office.test(&AccessQuery::new(&alice, "x", Instants::new(0, 0))), Decision::CannotDecide);
        let mapped = test_of(network(["::ffff:203.0.113.0/120", "::ffff:198.51.100.7/128"]).unwrap());
        for (address, expected) in [
            ("203.0.113.9", Decision::Allow),
            ("::ffff:203.0.113.9", Decision::Allow),
            ("198.51.100.7", Decision::Allow),
            ("203.0.114.9", Decision::Deny),
            ("198.51.100.8", Decision::Deny),
        ] {
            let query = AccessQuery::new(&alice, "x", Instants::new(0, 0)).with_address(address.parse().ok());
            assert_eq!(mapped.test(&query), expected, "{address}");
        }
        for bad in [&[][..], &["198.51.100.7/24"], &["198.51.100.7"], &["office"], &["10.0.0.0/33"]] {
            assert!(network(bad.iter().copied()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn strength() {
        let strength = |requirement: Requirement| match requirement.node() {
            Node::Strength(strength) => strength.clone(),
            other => panic!("{other:?} is no strength"),
        };
        let gold = strength(acr(["gold", "silver"]).unwrap());
        for (class, expected) in [(Some("gold"), true), (Some("silver"), true), (Some("Gold"), false), (None, false)] {
            let subject = class.map_or(alice(), |class| alice().acr(class)).build();
            assert_eq!(gold.is_met_by(&subject, Instants::new(NOW * 1_000_000_000, 0)), expected, "{class:?}");
        }
        let fresh = strength(authenticated_within(Duration::from_secs(300)));
        for (then, expected) in [
            (Some(NOW), true),
            (Some(NOW - 300), true),
            (Some(NOW - 301), false),
            (Some(NOW + 60), true),
            (Some(NOW + 61), false),
            (Some(u64::MAX), false),
            (None, false),
        ] {
            let subject = then.map_or(alice(), |then| alice().auth_time(then)).build();
            assert_eq!(fresh.is_met_by(&subject, Instants::new(NOW * 1_000_000_000, 0)), expected, "{then:?}");
        }
        for bad in [&[][..], &["a b"], &["a\"b"], &[""]] {
            assert!(acr(bad.iter().copied()).is_err(), "{bad:?}");
        }
        let mfa = test_of(amr("mfa").unwrap());
        let query = |subject: &Principal| mfa.test(&AccessQuery::new(subject, "x", Instants::new(0, 0)));
        assert_eq!(query(&alice().methods(["pwd", "mfa"]).build()), Decision::Allow);
        assert_eq!(query(&alice().methods(["pwd"]).build()), Decision::Deny);
    }
}
