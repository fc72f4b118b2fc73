//! Refusals before authentication are told once a second for each source and kind, with a count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{
    audit::{AuditRecord, AuditRepeats},
    client::source,
    clock::{Clock, Instants, SystemClock},
    rejection::RejectionKind,
};

/// How long what was counted may wait.
const SECOND: Duration = Duration::from_secs(1);
/// The most sources and kinds that are told apart in a second.
const MAX_GROUPS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The second that is counted now, since the Unix epoch.
    second: u64,
    groups: HashMap<Group, AuditRepeats>,
    /// Since when there is something to tell.
    pending: Option<Instants>,
}

/// A source, none for all of those that find no room of their own; and whether a credential crossed the wire in the clear: which one
/// has to be replaced is told by a record.
type Group = (Option<IpAddr>, RejectionKind, bool);

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
        let own = (record.source().map(network), kind, exposed);
        let room = self.groups.len() < MAX_GROUPS || self.groups.contains_key(&own);
        let group = if room { own } else { (None, kind, exposed) };
        match self.groups.get_mut(&group) {
            Some(repeats) => {
                repeats.count = repeats.count.saturating_add(1);
                repeats.many_sources |= group != own;
                self.pending.get_or_insert_with(|| SystemClock.now());
                true
            }
            None => {
                let many_sources = group != own;
                self.groups.insert(group, AuditRepeats { first: record.clone(), count: 0, many_sources });
                false
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::record::{Facts, sample_facts},
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

    #[test]
    fn a_flood_of_many_sources_is_bounded() {
        let (mut repeats, mut due) = (Repeats::default(), Vec::new());
        let mut records = 0;
        for n in 0..5000_u32 {
            let address = IpAddr::from(n.to_be_bytes()).to_string();
            records += u32::from(!repeats.count(&refusal(7, &address, RejectionKind::Unauthenticated), &mut due));
        }
        assert_eq!(records, 1025);
        repeats.take(&mut due);
        assert_eq!((due.len(), due[0].count(), due[0].many_sources()), (1, 5000 - 1025, true));
    }
}
