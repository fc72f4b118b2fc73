//! Refusals before authentication are told once a second for each source and kind, with a count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    audit::{AuditOutcome, AuditRecord, AuditRepeats},
    client::source,
    clock::{Clock, Instants, SystemClock},
    rejection::RejectionKind,
};

/// How long what was counted may wait.
const SECOND: Duration = Duration::from_secs(1);
/// The most sources and kinds that are told apart in a second.
const MAX_GROUPS: usize = 1024;
/// The most networks and kinds that are told apart beside them: whoever has a /48 has addresses for all groups, and must not take the
/// lines of strangers elsewhere.
const MAX_WIDE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The second that is counted now, since the Unix epoch.
    second: u64,
    groups: HashMap<Group, AuditRepeats>,
    /// Of those in `groups`, how many are of a source, and how many of a network around several.
    held: (usize, usize),
    /// Since when there is something to tell.
    pending: Option<Instants>,
}

/// Whose refusals, of which kind, what became of them, and whether a credential crossed the wire in the clear: which one has to be
/// replaced is told by a record.
type Group = (Whose, RejectionKind, AuditOutcome, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    /// Of one source, none without an address.
    Source(Option<IpAddr>),
    /// Of all in a network that found no room of their own.
    Around(IpAddr),
    /// Of all others.
    Others,
}

impl Repeats {
    /// Counts a refusal. False if it is the first of its group: it is a record of its own.
    pub(super) fn count(&mut self, record: &AuditRecord, due: &mut Vec<AuditRepeats>) -> bool {
        let Some(kind) = record.rejection() else { return false };
        let second = record.unix_nanos() / 1_000_000_000;
        // A request that took long counts to the second that is now; a clock that was set back begins anew.
        if second > self.second || second.saturating_add(60) < self.second {
            self.take(due);
            self.second = second;
        }
        let exposed = !record.exposed_credentials().is_empty();
        let outcome = record.outcome();
        let like = |whose| (whose, kind, outcome, exposed);
        let group = like(self.place(record.source(), like));
        match self.groups.get_mut(&group) {
            Some(repeats) => {
                repeats.count = repeats.count.saturating_add(1);
                repeats.many_sources |= record.source().map(network) != repeats.first.source().map(network);
                self.pending.get_or_insert_with(|| SystemClock.now());
                true
            }
            None => {
                let (sources, around) = &mut self.held;
                match group.0 {
                    Whose::Source(_) => *sources = sources.saturating_add(1),
                    Whose::Around(_) => *around = around.saturating_add(1),
                    Whose::Others => {}
                }
                self.groups.insert(group, AuditRepeats { first: record.clone(), count: 0, many_sources: false });
                false
            }
        }
    }

    /// Its own place if it has one or there is room, else that of the network around it, else that of all others.
    fn place(&self, source: Option<IpAddr>, like: impl Fn(Whose) -> Group) -> Whose {
        let (sources, around) = self.held;
        let fits = |whose, held, most| held < most || self.groups.contains_key(&like(whose));
        let own = Whose::Source(source.map(network));
        if fits(own, sources, MAX_GROUPS) {
            return own;
        }
        let wide = source.map(|source| Whose::Around(wide_network(source)));
        wide.filter(|wide| fits(*wide, around, MAX_WIDE)).unwrap_or(Whose::Others)
    }

    pub(super) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// How long what was counted may still wait. None if there is nothing.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.pending.map(|since| SECOND.saturating_sub(SystemClock.now().since(since)))
    }

    /// What was counted; each group begins anew.
    pub(super) fn take(&mut self, due: &mut Vec<AuditRepeats>) {
        self.pending = None;
        self.held = (0, 0);
        due.extend(self.groups.drain().map(|(_, repeats)| repeats).filter(|repeats| repeats.count > 0));
    }
}

/// Whoever has an IPv6 address has its /64.
fn network(address: IpAddr) -> IpAddr {
    match source(address) {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// The /48 around an IPv6 address, and the /24 around an IPv4 address: what one customer may have, and one machine may pose as.
fn wide_network(address: IpAddr) -> IpAddr {
    match source(address) {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80)),
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() >> 8 << 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{facts::Facts, record::sample_facts},
        client::{ClientInfo, Connection},
    };

    fn refusal(second: u64, address: &str, kind: RejectionKind) -> AuditRecord {
        exposing(second, address, kind, &[])
    }

    /// Credentials in these fields crossed the wire in the clear.
    fn exposing(second: u64, address: &str, kind: RejectionKind, fields: &[http::HeaderName]) -> AuditRecord {
        let mut facts = sample_facts("/");
        let facts_mut: &mut Facts = &mut facts;
        fields.iter().for_each(|field| facts_mut.trail.expose(field.clone()));
        facts_mut.unix_nanos = second * 1_000_000_000;
        facts_mut.rejection = Some((kind, "no".into()));
        facts_mut.client =
            Some(ClientInfo::from_connection(Connection::plain((address.parse::<IpAddr>().unwrap(), 1).into())));
        AuditRecord::new(facts.shareable())
    }

    /// A refusal because something panicked is not one more of those because a store is away.
    #[test]
    fn what_became_of_them_tells_refusals_apart() {
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        for (outcome, counted) in [
            (AuditOutcome::Failed, false),
            (AuditOutcome::Panicked, false),
            (AuditOutcome::Failed, true),
            (AuditOutcome::Panicked, true),
        ] {
            let mut facts = sample_facts("/");
            (facts.unix_nanos, facts.outcome) = (7_000_000_000, outcome);
            facts.rejection = Some((RejectionKind::Unavailable, "no".into()));
            assert_eq!(repeats.count(&AuditRecord::new(facts.shareable()), &mut due), counted, "{outcome:?}");
        }
    }

    #[test]
    fn a_source_and_kind_is_told_once_a_second() {
        use RejectionKind::{InvalidCredential, Unauthenticated};
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        for (name, second, address, kind, counted) in [
            ("the first", 7, "192.0.2.1", Unauthenticated, false),
            ("again", 7, "192.0.2.1", Unauthenticated, true),
            ("of another kind", 7, "192.0.2.1", InvalidCredential, false),
            ("of another source", 7, "192.0.2.2", Unauthenticated, false),
            ("of a network", 7, "2001:db8::1", Unauthenticated, false),
            ("of the same network", 7, "2001:db8::ffff:1", Unauthenticated, true),
            ("of the next network", 7, "2001:db8:0:1::1", Unauthenticated, false),
            ("late", 5, "192.0.2.1", Unauthenticated, true),
        ] {
            assert_eq!(repeats.count(&refusal(second, address, kind), &mut due), counted, "{name}");
        }
        assert!(due.is_empty() && repeats.is_pending());
        assert!(!repeats.count(&refusal(8, "192.0.2.1", Unauthenticated), &mut due), "the next second");
        let mut told: Vec<_> =
            due.iter().map(|due| (due.first().address().unwrap().to_string(), due.count())).collect();
        told.sort();
        assert_eq!(told, [("192.0.2.1".to_owned(), 2), ("2001:db8::1".to_owned(), 1)]);
        assert!(!repeats.is_pending());
    }

    /// Who asks without a credential first must not hide that one crossed the wire in the clear.
    #[test]
    fn an_exposed_credential_is_a_record_of_its_own() {
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        let exposing = || exposing(7, "192.0.2.1", RejectionKind::PlainHttp, &[http::header::AUTHORIZATION]);
        assert!(!repeats.count(&refusal(7, "192.0.2.1", RejectionKind::PlainHttp), &mut due));
        assert!(!repeats.count(&exposing(), &mut due), "it is told");
        assert!(repeats.count(&exposing(), &mut due), "and then counted");
        assert!(repeats.count(&refusal(7, "192.0.2.1", RejectionKind::PlainHttp), &mut due));
    }

    /// A flood of one refusal from each of so many networks in one second.
    fn flood(repeats: &mut Repeats, networks: impl Iterator<Item = IpAddr>) -> usize {
        let mut due = Vec::new();
        let counted = |address: IpAddr| {
            repeats.count(&refusal(7, &address.to_string(), RejectionKind::Unauthenticated), &mut due)
        };
        networks.map(counted).filter(|counted| !counted).count()
    }

    fn slash_64s(of: u16) -> impl Iterator<Item = IpAddr> {
        (0..=u16::MAX).map(move |n| Ipv6Addr::new(0x2001, 0xdb8, of, n, 0, 0, 0, 1).into())
    }

    #[test]
    fn a_flood_of_many_sources_is_bounded() {
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        // From all over: each from another /24.
        let records = flood(&mut repeats, (0..5000_u32).map(|n| Ipv4Addr::from_bits(n << 12).into()));
        assert_eq!(records, 1024 + 1024 + 1, "one for each source, for each network, and for all others");
        repeats.take(&mut due);
        assert_eq!((due.len(), due[0].count(), due[0].many_sources()), (1, 5000 - 2049, true));
        assert_eq!(flood(&mut repeats, slash_64s(1).take(5000)), 1024 + 1, "the next second begins anew");
    }

    /// Whoever has a /48 takes nobody else's line.
    #[test]
    fn a_flood_of_one_network_is_told_as_one() {
        use RejectionKind::{InvalidCredential, Unauthenticated};
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        assert_eq!(flood(&mut repeats, slash_64s(1)), 1024 + 1);
        for (name, address, kind, counted) in [
            ("a stranger", "192.0.2.1", Unauthenticated, false),
            ("again", "192.0.2.1", Unauthenticated, true),
            ("and again", "192.0.2.1", Unauthenticated, true),
            ("of another kind", "192.0.2.1", InvalidCredential, false),
            ("a stranger of another network", "198.51.100.1", Unauthenticated, false),
            ("again there", "198.51.100.1", Unauthenticated, true),
            ("the next /48", "2001:db8:2::1", Unauthenticated, false),
            ("again in the next /48", "2001:db8:2::2", Unauthenticated, true),
            ("a neighbour of the stranger", "198.51.100.2", Unauthenticated, true),
            ("one who had a line before", "2001:db8:1::1", Unauthenticated, true),
        ] {
            assert_eq!(repeats.count(&refusal(7, address, kind), &mut due), counted, "{name}");
        }
        repeats.take(&mut due);
        let mut told: Vec<_> = due
            .iter()
            .map(|due| (due.first().address().unwrap().to_string(), due.count(), due.many_sources()))
            .collect();
        told.sort();
        let expected = [
            ("192.0.2.1", 2, false),
            ("198.51.100.1", 2, true),
            ("2001:db8:1:400::1", 65_536 - 1025, true),
            ("2001:db8:1::1", 1, false),
            ("2001:db8:2::1", 1, false),
        ];
        assert_eq!(told, expected.map(|(address, count, many)| (address.to_owned(), count, many)));
    }
}
