//! One question to the store for all who ask for a key at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::quality::RandomState;
use tokio::sync::OnceCell;

use super::voids::OwnerSlot;
use crate::{
    api_key::{Hit, KeyId},
    error::StoreError,
};

/// What the store said.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) found: Result<Option<Hit>, Arc<StoreError>>,
    pub(super) owner: Option<OwnerSlot>,
    /// The number of the changes before the store was asked.
    pub(super) number: u64,
    /// When the request came that asked it, by the monotonic clock.
    pub(super) loaded_at: u64,
}

/// A question under way. Who comes first asks; if they go away before the answer, the next one asks again.
pub(super) type Flight = OnceCell<Landed>;

/// All questions under way: as many as there are requests that wait, at most.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<KeyId, Aboard, RandomState>>);

#[derive(Debug)]
struct Aboard {
    flight: Arc<Flight>,
    seats: usize,
}

impl Flights {
    /// Takes a seat; in a new flight if there is none.
    pub(super) fn board(&self, id: KeyId) -> Seat<'_> {
        let mut flights = self.lock();
        if let Some(aboard) = flights.get_mut(&id) {
            aboard.seats = aboard.seats.saturating_add(1);
            return Seat { flights: self, id, flight: Arc::clone(&aboard.flight), joined: true };
        }
        let flight = Arc::new(Flight::new());
        flights.insert(id, Aboard { flight: Arc::clone(&flight), seats: 1 });
        Seat { flights: self, id, flight, joined: false }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Aboard, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Who waits for a flight. The first to leave after it has landed, and the last one to leave, take it away.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    flights: &'a Flights,
    id: KeyId,
    pub(super) flight: Arc<Flight>,
    pub(super) joined: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let Some(aboard) = flights.get_mut(&self.id) else { return };
        if !Arc::ptr_eq(&aboard.flight, &self.flight) {
            return;
        }
        aboard.seats = aboard.seats.saturating_sub(1);
        if aboard.seats == 0 || self.flight.initialized() {
            flights.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(flights: &Flights, last: u8) -> Seat<'_> {
        flights.board(KeyId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, last]))
    }

    fn land(seat: &Seat<'_>) {
        let landed = Landed { found: Ok(None), owner: None, number: 0, loaded_at: 0 };
        seat.flight.set(landed).unwrap();
    }

    #[test]
    fn the_last_to_leave_takes_the_flight_away() {
        let flights = Flights::default();
        let (one, two, other) = (board(&flights, 1), board(&flights, 1), board(&flights, 2));
        assert!(!one.joined && two.joined && !other.joined);
        assert_eq!(flights.len(), 2);
        drop(one);
        assert_eq!(flights.len(), 2, "somebody waits still");
        drop(two);
        assert_eq!(flights.len(), 1);
        drop(other);
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn a_flight_that_landed_is_not_boarded_again() {
        let flights = Flights::default();
        let (one, two) = (board(&flights, 1), board(&flights, 1));
        land(&one);
        drop(one);
        assert_eq!(flights.len(), 0);
        let next = board(&flights, 1);
        assert!(!next.joined);
        drop(two);
        assert_eq!(flights.len(), 1, "who was on the old one leaves the new one alone");
        drop(next);
        assert_eq!(flights.len(), 0);
    }
}
