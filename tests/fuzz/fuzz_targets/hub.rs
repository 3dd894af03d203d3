//! An interpreter of random operations over the hub and a set of pairs that has to equal it.
//!
//! Three bytes make an operation: what, which connection, which room.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use throng::base::map::Seed;
use throng::hub::{Hub, Joined, MemberRef};

const LIMIT: usize = 6;

fuzz_target!(|input: &[u8]| {
    let mut hub = Hub::new(&Seed::new(1));
    let mut members: Vec<MemberRef> = (0..64).map(|_| MemberRef::NONE).collect();
    let mut pairs: BTreeSet<(u32, String)> = BTreeSet::new();
    for operation in input.chunks_exact(3) {
        let conn = u32::from(operation[1] % 64);
        let room = format!("room {}", operation[2] % 32);
        let pair = (conn, room.clone());
        let count = pairs.iter().filter(|(other, _)| *other == conn).count();
        let member = &mut members[conn as usize];
        match operation[0] % 8 {
            0..4 => match hub.join(member, conn, &room, LIMIT) {
                Ok(Joined::New) => assert!(count < LIMIT && pairs.insert(pair)),
                Ok(Joined::Already) => assert!(pairs.contains(&pair)),
                Err(refused) => assert_eq!((refused.limit, count), (LIMIT, LIMIT)),
            },
            4..6 => assert_eq!(hub.leave(member, &room), pairs.remove(&pair)),
            6 => {
                assert_eq!(hub.leave_all(member), count);
                pairs.retain(|(other, _)| *other != conn);
            }
            _ => {
                if let Some((room, told)) = hub.poll_changed() {
                    let here = pairs.iter().filter(|(_, other)| **other == *room).count();
                    assert_eq!(told as usize, here);
                }
            }
        }
        let expected: BTreeSet<u32> =
            pairs.iter().filter(|(_, other)| *other == room).map(|(conn, _)| *conn).collect();
        let found: BTreeSet<u32> = hub.members(&room).iter().map(|member| member.conn).collect();
        assert_eq!(found, expected);
        assert_eq!(hub.memberships(), pairs.len());
        hub.check();
    }
});
