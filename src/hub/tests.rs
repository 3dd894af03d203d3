//! Hub, directory and groups against naive twins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::directory::home;
use super::*;
use crate::base::cursor::Cursor;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::map::Seed;
use crate::base::shared::Overflow;
use crate::base::time::Time;

#[derive(Clone, Debug)]
enum Step {
    Join(u32, u8),
    Leave(u32, u8),
    LeaveAll(u32),
    Tell(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u32, 0..9u8).prop_map(|(conn, room)| Step::Join(conn, room)),
        4 => (0..12u32, 0..9u8).prop_map(|(conn, room)| Step::Leave(conn, room)),
        1 => (0..12u32).prop_map(Step::LeaveAll),
        2 => (0..4usize).prop_map(Step::Tell),
    ];
    prop::collection::vec(step, 1..300)
}

const LIMIT: usize = 5;

/// The pairs of connection and room, and in which order rooms changed.
#[derive(Default)]
struct Twin {
    pairs: BTreeSet<(u32, String)>,
    changed: Vec<String>,
}

impl Twin {
    fn rooms_of(&self, conn: u32) -> BTreeSet<String> {
        self.pairs.iter().filter(|(c, _)| *c == conn).map(|(_, room)| room.clone()).collect()
    }

    fn members(&self, room: &str) -> BTreeSet<u32> {
        self.pairs.iter().filter(|(_, r)| r == room).map(|(conn, _)| *conn).collect()
    }

    fn mark(&mut self, room: &str) {
        if !self.changed.iter().any(|known| known == room) {
            self.changed.push(room.to_owned());
        }
    }

    fn leave(&mut self, conn: u32, room: &str) -> bool {
        let was = self.pairs.remove(&(conn, room.to_owned()));
        if was {
            self.mark(room);
        }
        was
    }

    fn join(&mut self, conn: u32, room: &str) -> Result<Joined, TooManyRooms> {
        let rooms = self.rooms_of(conn);
        if rooms.contains(room) {
            return Ok(Joined::Already);
        }
        if rooms.len() >= LIMIT {
            return Err(TooManyRooms { limit: LIMIT });
        }
        self.pairs.insert((conn, room.to_owned()));
        self.mark(room);
        Ok(Joined::New)
    }
}

fn compare(hub: &Hub, members: &[MemberRef], twin: &Twin) {
    hub.check();
    for room in (0..9u8).map(|room| format!("room {room}")) {
        let list: Vec<u32> = hub.members(&room).iter().map(|member| member.conn).collect();
        let set: BTreeSet<u32> = list.iter().copied().collect();
        assert_eq!(list.len(), set.len(), "each member once");
        assert_eq!(set, twin.members(&room));
        assert_eq!(hub.key(&room).is_some(), !set.is_empty());
    }
    for (conn, member) in (0u32..).zip(members) {
        let rooms: BTreeSet<String> = hub.rooms_of(member).map(|name| name.to_string()).collect();
        assert_eq!(rooms, twin.rooms_of(conn));
        assert_eq!(hub.count_of(member), rooms.len());
        assert_eq!(member.is_none(), rooms.is_empty(), "who is in no room costs nothing");
        assert!(
            (0..9u8)
                .map(|room| format!("room {room}"))
                .all(|room| { hub.is_member(member, &room) == rooms.contains(&room) })
        );
    }
    let occupied: BTreeSet<&String> = twin.pairs.iter().map(|(_, room)| room).collect();
    assert_eq!((hub.len(), hub.memberships()), (occupied.len(), twin.pairs.len()));
}

proptest! {
    #[test]
    fn a_hub_equals_a_set_of_pairs(steps in steps()) {
        let mut hub = Hub::new(&Seed::new(3));
        let mut members: Vec<MemberRef> = (0..12).map(|_| MemberRef::NONE).collect();
        let mut twin = Twin::default();
        for step in steps {
            match step {
                Step::Join(conn, room) => {
                    let room = format!("room {room}");
                    let joined = hub.join(&mut members[conn as usize], conn, &room, LIMIT);
                    prop_assert_eq!(joined, twin.join(conn, &room));
                }
                Step::Leave(conn, room) => {
                    let room = format!("room {room}");
                    let left = hub.leave(&mut members[conn as usize], &room);
                    prop_assert_eq!(left, twin.leave(conn, &room));
                }
                Step::LeaveAll(conn) => {
                    let rooms = twin.rooms_of(conn);
                    let in_order: Vec<_> =
                        hub.rooms_of(&members[conn as usize]).map(|room| room.to_string()).collect();
                    prop_assert_eq!(hub.leave_all(&mut members[conn as usize]), rooms.len());
                    for room in in_order {
                        twin.leave(conn, &room);
                    }
                }
                Step::Tell(times) => {
                    for _ in 0..times {
                        let told = hub.poll_changed().map(|(room, n)| (room.to_string(), n as usize));
                        let next = (!twin.changed.is_empty()).then(|| twin.changed.remove(0));
                        let expected = next.map(|room| {
                            let count = twin.members(&room).len();
                            (room, count)
                        });
                        prop_assert_eq!(told, expected);
                    }
                }
            }
            compare(&hub, &members, &twin);
        }
    }

    #[test]
    fn a_directory_equals_a_map_of_counts(
        steps in prop::collection::vec((0..5u8, 0..4u16, 0..3u32, any::<bool>()), 1..200),
    ) {
        let mut directory = Directory::new(&Seed::new(3), 1000);
        let mut counts: BTreeMap<(String, u16), u32> = BTreeMap::new();
        let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
        let mut cursors = BTreeSet::new();
        for (room, shard, count, publish) in steps {
            let room = format!("room {room}");
            let of_room = |counts: &BTreeMap<(String, u16), u32>| -> Vec<(u16, u32)> {
                let mine = counts.iter().filter(|((name, _), _)| *name == room);
                mine.map(|((_, shard), count)| (*shard, *count)).collect()
            };
            if publish {
                let number = directory.number(&room);
                let expected = (!of_room(&counts).is_empty()).then(|| {
                    let latest = numbers.entry(room.clone()).or_insert(0);
                    *latest += 1;
                    *latest
                });
                prop_assert_eq!(number.map(|cursor| cursor.offset), expected);
                if number.is_some() {
                    let position = directory.position(&room);
                    prop_assert!(cursors.insert((room.clone(), position)), "no cursor twice");
                }
            } else {
                directory.set_count(&Arc::from(room.as_str()), ShardId(shard), count);
                counts.insert((room.clone(), shard), count);
                counts.retain(|_, count| *count > 0);
            }
            let here = of_room(&counts);
            if here.is_empty() {
                numbers.remove(&room);
            }
            directory.check();
            let shards: BTreeSet<u16> = directory.shards(&room).map(|shard| shard.0).collect();
            prop_assert_eq!(directory.shards(&room).count(), shards.len());
            prop_assert_eq!(shards, here.iter().map(|(shard, _)| *shard).collect());
            let members: u64 = here.iter().map(|(_, count)| u64::from(*count)).sum();
            prop_assert_eq!(directory.members(&room), members);
            let latest = numbers.get(&room).copied().unwrap_or(0);
            let latest = (!here.is_empty()).then_some(latest);
            prop_assert_eq!(directory.position(&room).map(|(_, offset)| offset), latest);
            let rooms: BTreeSet<&String> = counts.keys().map(|(room, _)| room).collect();
            prop_assert_eq!(directory.len(), rooms.len());
        }
    }

    /// Commands to several rooms, several homes, copies in any order: each member once per command.
    #[test]
    fn a_member_of_several_target_rooms_is_served_exactly_once(
        rooms in prop::collection::vec(prop::collection::btree_set(0..20u32, 0..12), 1..8),
        commands in prop::collection::vec(prop::collection::btree_set(0..8usize, 1..6), 1..10),
        order: u64,
        shards in 1..5u16,
    ) {
        let seed = Seed::new(3);
        let mut mails = Vec::new();
        for (id, targets) in (0u64..).zip(&commands) {
            let targets = targets.iter().copied().filter(|room| *room < rooms.len());
            let mut homes: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
            for room in targets {
                homes.entry(home(&seed, &format!("room {room}"), shards)).or_default().push(room);
            }
            let group = Group { id, homes: u16::try_from(homes.len()).expect("few") };
            mails.extend(homes.into_values().map(|rooms| (group, rooms)));
        }
        mails.sort_by_key(|(group, rooms)| Seed::new(order).hash_one((group.id, rooms)));
        let mut groups = Groups::new(&seed);
        let mut served: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for (group, targets) in &mails {
            let set = groups.enter(Some(group));
            for conn in targets.iter().flat_map(|room| &rooms[*room]) {
                if set.first(*conn) {
                    *served.entry((group.id, *conn)).or_default() += 1;
                }
            }
        }
        let mut expected = BTreeMap::new();
        for (id, targets) in (0u64..).zip(&commands) {
            for conn in targets.iter().filter_map(|room| rooms.get(*room)).flatten() {
                expected.insert((id, *conn), 1);
            }
        }
        prop_assert_eq!(served, expected);
        prop_assert!(groups.is_empty(), "every group is forgotten after its last copy");
    }

    #[test]
    fn a_home_is_one_of_the_shards(room in ".{0,20}", shards in 1..=u16::MAX) {
        prop_assert!(home(&Seed::new(9), &room, shards).0 < shards);
    }
}

#[test]
fn a_mail_without_a_group_starts_from_nobody_served() {
    let mut groups = Groups::new(&Seed::new(1));
    assert!(groups.enter(None).first(1));
    assert!(groups.enter(None).first(1), "the next mail is another command");
    let lone = Group { id: 7, homes: 1 };
    assert!(groups.enter(Some(&lone)).first(1));
    assert!(groups.is_empty(), "a group of one home is not kept");
}

#[test]
fn homes_are_spread_over_the_shards() {
    let mut counts = [0u32; 8];
    for room in 0..8000 {
        counts[usize::from(home(&Seed::new(4), &format!("room {room}"), 8).0)] += 1;
    }
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
}

#[test]
fn many_joins_and_leaves_leave_no_memory_behind() {
    let mut hub = Hub::new(&Seed::new(1));
    let mut directory = Directory::new(&Seed::new(1), 1);
    let mut stays = MemberRef::NONE;
    hub.join(&mut stays, u32::MAX - 1, "stays", 9).expect("below the limit");
    let (mut joins, mut leaves) = (0, 0);
    let mut after_first = None;
    for round in 0..17 {
        let mut members: Vec<MemberRef> = (0..20_000).map(|_| MemberRef::NONE).collect();
        for (conn, member) in (0..).zip(&mut members) {
            for room in [format!("user {conn}"), "lobby".to_owned(), format!("{}", conn % 100)] {
                hub.join(member, conn, &room, 9).expect("below the limit");
                joins += 1;
            }
        }
        while let Some((room, count)) = hub.poll_changed() {
            directory.set_count(&room, ShardId(0), count);
        }
        assert!(hub.capacity() > 40_000 && directory.capacity() > 20_000, "it was in use");
        for member in &mut members {
            let left = hub.leave_all(member);
            assert_eq!(left, 3);
            leaves += left;
        }
        while let Some((room, count)) = hub.poll_changed() {
            directory.set_count(&room, ShardId(0), count);
        }
        assert_eq!((hub.len(), directory.len()), (1, 1), "round {round}");
        assert!(hub.capacity() <= 1500, "{} entries kept", hub.capacity());
        assert!(directory.capacity() <= 300, "{} entries kept", directory.capacity());
        let kept = (hub.capacity(), directory.capacity());
        assert_eq!(
            *after_first.get_or_insert(kept),
            kept,
            "round {round} keeps what the first did"
        );
    }
    assert!(joins >= 1_000_000 && joins == leaves, "{joins} joins and {leaves} leaves");
    hub.check();
}

#[test]
fn a_member_who_joins_and_leaves_within_a_turn_is_told_as_none() {
    let mut hub = Hub::new(&Seed::new(1));
    let mut member = MemberRef::default();
    hub.join(&mut member, 4, "a", 9).expect("below the limit");
    assert!(hub.leave(&mut member, "a"));
    assert_eq!(hub.poll_changed(), Some((Arc::from("a"), 0)));
    assert_eq!(hub.poll_changed(), None);
    hub.join(&mut member, 4, "b", 9).expect("below the limit");
    hub.leave_all(&mut member);
    hub.join(&mut member, 4, "b", 9).expect("below the limit");
    assert_eq!(hub.poll_changed(), Some((Arc::from("b"), 1)));
    hub.check();
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

fn publication() -> Publication {
    let address = ConnAddress::alone(ShardId(1), ConnId { index: 2, generation: 3 });
    Publication {
        room: Arc::from("a"),
        cursor: Cursor { epoch: 1, offset: 1 },
        at: Time::ZERO,
        kind: raw("\"chat\""),
        payload: Some(Arc::from(raw("{}"))),
        id: None,
        to: Audience {
            target: Target::Room,
            except: Some(Arc::new(Except { connections: [address].into(), ..Except::default() })),
        },
        overflow: Overflow::DropNew,
        key: 5,
        origin: Origin::Connection(address),
        terms: Terms::default(),
        encoded: Encoded::default(),
    }
}

#[test]
fn a_publication_is_encoded_once_for_all_threads() {
    let publication = Arc::new(publication());
    let encodings = AtomicUsize::new(0);
    let encode = |publication: &Publication| {
        encodings.fetch_add(1, Ordering::SeqCst);
        publication.kind.get().as_bytes().to_vec()
    };
    assert!(!publication.is_encoded(Class::WS_JSON));
    let buffers: Vec<Arc<[u8]>> = std::thread::scope(|scope| {
        let shards =
            [(); 4].map(|()| scope.spawn(|| Arc::clone(publication.bytes(Class::WS_JSON, encode))));
        shards.into_iter().map(|shard| shard.join().expect("no panic")).collect()
    });
    assert_eq!(encodings.load(Ordering::SeqCst), 1);
    assert!(buffers.iter().all(|buffer| Arc::ptr_eq(buffer, &buffers[0])), "one buffer");
    assert!(publication.is_encoded(Class::WS_JSON));
}

#[test]
fn a_publication_excepts_the_named_generation_only() {
    let publication = publication();
    let named = publication.to.except.as_ref().expect("an exception").connections[0];
    let successor = ConnAddress { conn: ConnId { generation: 4, ..named.conn }, ..named };
    assert!(publication.excepts(named) && !publication.excepts(successor));
    assert_eq!(publication.mark().key, 5);
}
