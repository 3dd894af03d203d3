//! The connection by itself: its size, its end, its beginning and its deadlines.
//!
//! No shard and no driver takes part. Each file holds one theme and drives a [`Connection`] by its
//! public functions only; what a shard makes of the answers is tested there.
//!
//! [`Connection`]: super::Connection

mod closing;
mod opening;
mod timing;

use super::{Connection, Phase};

/// What a slab keeps for each key: the record, or the number of the next free place.
#[expect(dead_code, reason = "only its size is looked at")]
enum Entry {
    Vacant(usize),
    Occupied(Connection),
}

#[test]
fn a_connection_costs_sixty_four_bytes_and_its_place_in_the_slab_no_more() {
    assert_eq!(size_of::<Connection>(), 64);
    assert_eq!(size_of::<Entry>(), 64, "the slab's mark fits into a niche of the record");
    assert!(size_of::<Phase>() <= 16, "the phase shares the record with its queue");
}
