//! How far a stream of several rooms has come in each of them.
//!
//! A browser that loses its stream comes back with the id of the last event and nothing else, so that id has
//! to say it all. A stream of one room needs no more than the event's own place, which is the same for all who
//! read it. A stream of several has a *trail*: where it has come in its other rooms is written in front of the
//! event's own place, for it alone; the event itself stays the one that all share. The id is of the same event
//! block, so whoever has an event has its id as well, and nothing is missed or repeated wherever the stream breaks.
//!
//! The other rooms are named by hashes that are the same in every process, so that another node, or the next one
//! here, understands them. Two rooms of one hash in one stream are told apart by nothing, so neither is
//! remembered: they begin with the newest. A trail has at most 64 rooms, some thirty bytes each in every event.

use std::fmt::Write as _;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::auth::{Place, place};
use crate::base::cursor::Cursor;
use crate::base::map::{Map, Seed};
use crate::base::shared::{Mark, Shared};
use crate::hub::Publication;

/// Rooms of a stream that are remembered.
const MOST: usize = 64;
/// Trails for which space is kept.
const KEPT: usize = 256;

/// What stands before the place in the id of an event; only the reader of several rooms has more there.
pub(super) const FIELD: &str = "id: ";

/// A room's name, hashed in one way for ever (FNV-1a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sign(u32);

impl Sign {
    /// The sign of the room that its members call so.
    pub(super) fn of(room: &str) -> Self {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
        Self(room.as_bytes().iter().fold(2_166_136_261, step))
    }
}

/// One event on its way to streams of several rooms.
#[derive(Debug)]
pub(super) struct Step {
    /// The event without the beginning of its first line, [`FIELD`].
    pub(super) body: Shared,
    /// The room it is of.
    pub(super) sign: Sign,
    /// Its place there.
    pub(super) at: Cursor,
}

impl Step {
    /// The event of a publication; `None` for one that is in no room.
    pub(super) fn of(
        publication: &Publication,
        event: &Arc<[u8]>,
        mark: Option<Mark>,
    ) -> Option<Self> {
        let Place::Room(room) = place(&publication.room) else { return None };
        let body = Shared::tail(Arc::clone(event), FIELD.len(), mark);
        Some(Self { body, sign: Sign::of(room), at: publication.cursor })
    }
}

/// The rooms of one stream, each with the place up to where it has had everything, if that is known.
type Trail = SmallVec<[(Sign, Option<Cursor>); 4]>;

/// The trails of a shard.
#[derive(Debug)]
pub(super) struct Trails(Map<u32, Trail>);

impl Trails {
    pub(super) fn new(seed: &Seed) -> Self {
        Self(seed.map())
    }

    /// True while no stream has several rooms.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the connection at that index is a stream of several rooms.
    pub(super) fn has(&self, index: u32) -> bool {
        self.0.contains_key(&index)
    }

    /// A stream begins; `known` says where it has left off in a room.
    pub(super) fn begin<'r>(
        &mut self,
        index: u32,
        rooms: impl Iterator<Item = &'r str>,
        known: impl Fn(&str) -> Option<Cursor>,
    ) {
        let mut trail = Trail::new();
        let mut names: SmallVec<[&str; 8]> = SmallVec::new();
        for room in rooms {
            if names.len() < MOST && !names.contains(&room) {
                names.push(room);
                trail.push((Sign::of(room), known(room)));
            }
        }
        let signs: SmallVec<[Sign; 8]> = trail.iter().map(|(sign, _)| *sign).collect();
        trail.retain(|(sign, _)| signs.iter().filter(|other| *other == sign).count() == 1);
        if names.len() > 1 {
            self.0.insert(index, trail);
        }
    }

    /// From now on the stream has had everything of the room up to there.
    pub(super) fn set(&mut self, index: u32, sign: Sign, at: Cursor) {
        let Some(trail) = self.0.get_mut(&index) else { return };
        if let Some((_, place)) = trail.iter_mut().find(|(own, _)| *own == sign) {
            *place = Some(at);
        }
    }

    /// What stands in front of the place of an event of the room in the stream's ids: the other rooms. Empty
    /// for a stream of one room, and while nothing is known of the others.
    pub(super) fn others(&self, index: u32, sign: Sign) -> String {
        let mut text = String::new();
        let places = self.0.get(&index).into_iter().flatten();
        for (other, at) in places.filter(|(other, _)| *other != sign) {
            if let Some(Cursor { epoch, offset }) = at {
                text.push(if text.is_empty() { '~' } else { ',' });
                // Text cannot fail to be written to.
                let _ = write!(text, "{:x}-{epoch:x}-{offset:x}", other.0);
            }
        }
        if !text.is_empty() {
            text.push('~');
        }
        text
    }

    /// The event as that stream is to have it; the stream has come so far then.
    pub(super) fn lead(&mut self, index: u32, step: &Step) -> Shared {
        self.set(index, step.sign, step.at);
        let lead = [FIELD, &self.others(index, step.sign)].concat();
        Shared::led(lead, &step.body)
    }

    /// The connection has ended.
    pub(super) fn forget(&mut self, index: u32) {
        if self.0.is_empty() || self.0.remove(&index).is_none() {
            return;
        }
        if self.0.capacity() > KEPT && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(KEPT.max(self.0.len() * 2));
        }
    }
}

/// The event's own place in an id, and what stands in front of it.
pub(super) fn split(id: &str) -> (&str, &str) {
    let led = id.strip_prefix('~').and_then(|rest| rest.split_once('~'));
    led.map_or(("", id), |(others, own)| (others, own))
}

/// Where one who saw an event with that id last has left off in a room that is not the event's own.
pub(super) fn other(others: &str, room: &str) -> Option<Cursor> {
    let sign = Sign::of(room);
    let mut found = others.split(',').filter_map(read).filter(|(other, _)| *other == sign);
    let (_, at) = found.next()?;
    found.next().is_none().then_some(at)
}

fn read(text: &str) -> Option<(Sign, Cursor)> {
    let mut parts = text.splitn(3, '-');
    let sign = u32::from_str_radix(parts.next()?, 16).ok()?;
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    Some((Sign(sign), Cursor { epoch: number()?, offset: number()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(epoch: u64, offset: u64) -> Cursor {
        Cursor { epoch, offset }
    }

    #[test]
    fn a_stream_of_one_room_has_no_trail() {
        let mut trails = Trails::new(&Seed::new(1));
        trails.begin(7, ["a", "a"].into_iter(), |_| None);
        assert!(trails.is_empty() && trails.others(7, Sign::of("a")).is_empty());
    }

    #[test]
    fn a_sign_is_the_same_in_every_process() {
        assert_eq!(Sign::of("lobby"), Sign(0x1c5a_0ed3));
        assert_eq!(Sign::of(""), Sign(0x811c_9dc5), "the published basis of FNV-1a");
        assert_eq!(Sign::of("a"), Sign(0xe40c_292c), "and its published first value");
    }

    #[test]
    fn two_rooms_of_one_sign_are_not_remembered() {
        // They collide under FNV-1a in 32 bits.
        let (one, two) = ("costarring", "liquid");
        assert_eq!(Sign::of(one), Sign::of(two));
        let mut trails = Trails::new(&Seed::new(1));
        trails.begin(1, [one, two, "c"].into_iter(), |_| Some(at(1, 1)));
        let others = trails.others(1, Sign::of("d"));
        let (others, _) = split(&others);
        assert_eq!((other(others, one), other(others, two)), (None, None));
        assert_eq!(other(others, "c"), Some(at(1, 1)));
        let twice = format!("{others},{others}");
        assert_eq!(other(&twice, "c"), None, "a forged id says nothing either");
    }

    #[test]
    fn no_more_rooms_are_remembered_than_an_id_may_name() {
        let rooms: Vec<String> = (0..1000).map(|number| format!("room {number}")).collect();
        let mut trails = Trails::new(&Seed::new(1));
        trails.begin(1, rooms.iter().map(String::as_str), |_| Some(at(u64::MAX, u64::MAX)));
        let others = trails.others(1, Sign::of("other"));
        assert_eq!(others.split(',').count(), MOST);
        assert!(others.len() <= MOST * 43 + 1, "{}", others.len());
        trails.forget(1);
        assert!(trails.is_empty());
    }

    proptest! {
        #[test]
        fn what_an_id_says_of_the_other_rooms_is_where_the_stream_was(
            places in prop::collection::vec(prop::option::of((any::<u64>(), any::<u64>())), 2..40),
            own in "[a-z~.,-]{0,8}",
        ) {
            let rooms: Vec<String> = (0..places.len()).map(|number| format!("r{number}")).collect();
            let place = |room: &str| {
                let number: usize = room[1..].parse().expect("a number");
                places[number].map(|(epoch, offset)| at(epoch, offset))
            };
            let mut trails = Trails::new(&Seed::new(1));
            trails.begin(3, rooms.iter().map(String::as_str), place);
            let id = format!("{}1.2.{own}", trails.others(3, Sign::of(&own)));
            let (others, rest) = split(&id);
            prop_assert_eq!(rest, format!("1.2.{own}"));
            for room in &rooms {
                prop_assert_eq!(other(others, room), place(room), "{}", &id);
            }
        }

        #[test]
        fn any_id_is_read_without_a_panic(id in ".*", room in ".*") {
            let (others, _) = split(&id);
            let _ = other(others, &room);
        }
    }
}
