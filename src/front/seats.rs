//! How many connections a place has, and of which addresses.

use std::sync::Arc;

use super::options::Place;

#[expect(clippy::disallowed_types, reason = "all of it happens on the front's thread")]
type Lock<T> = std::sync::Mutex<T>;
#[expect(
    clippy::disallowed_types,
    reason = "no order of it is ever seen, and addresses are not chosen freely"
)]
type Map<K, V> = std::collections::HashMap<K, V>;

#[derive(Debug, Default)]
struct Taken {
    places: Vec<usize>,
    addresses: Map<(usize, String), usize>,
}

/// The seats of all places.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<Lock<Taken>>);

/// One of them, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    of: Seats,
    place: usize,
    address: String,
}

impl Seats {
    /// A seat for a connection from that address; `None` where there is none left.
    pub(super) fn take(&self, at: usize, place: &Place, address: Option<&str>) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let address = address.unwrap_or_default().to_owned();
        if taken.places.len() <= at {
            taken.places.resize(at + 1, 0);
        }
        let own = taken.addresses.get(&(at, address.clone())).copied().unwrap_or(0);
        let crowded = place.per_address > 0 && own >= place.per_address;
        if crowded || taken.places[at] >= place.connections {
            return None;
        }
        taken.places[at] += 1;
        taken.addresses.insert((at, address.clone()), own + 1);
        Some(Seat { of: self.clone(), place: at, address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        taken.places[self.place] -= 1;
        let key = (self.place, std::mem::take(&mut self.address));
        match taken.addresses.get_mut(&key) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = taken.addresses.remove(&key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_place_and_an_address_have_so_many_seats_and_they_come_back() {
        let place = Place {
            path: "/app/".to_owned(),
            url: String::new(),
            timeout: Duration::ZERO,
            idle: Duration::ZERO,
            body_bytes: 0,
            answer_bytes: 0,
            connections: 3,
            per_address: 2,
        };
        let seats = Seats::default();
        let one = seats.take(0, &place, Some("192.0.2.1")).expect("the first");
        let two = seats.take(0, &place, Some("192.0.2.1")).expect("the second");
        assert!(seats.take(0, &place, Some("192.0.2.1")).is_none(), "one address has two");
        let elsewhere = seats.take(1, &place, Some("192.0.2.1")).expect("another place");
        let three = seats.take(0, &place, Some("192.0.2.2")).expect("another address");
        assert!(seats.take(0, &place, None).is_none(), "the place has three");
        drop(one);
        let again = seats.take(0, &place, Some("192.0.2.1")).expect("a seat came back");
        drop(again);
        let nobody = seats.take(0, &place, None).expect("and again");
        drop((two, three, elsewhere, nobody));
        assert!(seats.0.lock().expect("a lock").addresses.is_empty(), "nothing is remembered");
    }
}
