//! What is remembered of clients of Socket.IO, so that one that was lost comes back to its rooms.
//!
//! A client of the library is given a secret with its connect, the *pid*, and remembers the last string at the end of an
//! event, which here is the place of a publication: its room and its number there. One that is lost shows both when it
//! connects again. The place says up to where it has heard; but that is of one room, and it may be in many. So
//! each connection has a *memo*: its rooms, and in which order it was given what. All that stands before the shown
//! place in that line the client has had, and what stands behind it, in whatever room, it has not.
//!
//! The line is bounded. What falls out of it is taken for heard, which is right for whoever has heard something
//! later; who shows an earlier place, or one that is in no line, is not recalled. A memo outlives its connection for a
//! limited time, and all memos of the lost together have a limited number of bytes: the oldest goes first.
//!
//! Nothing here asks, sends or decides who may join; `comeback` does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use crate::auth::plain;
use crate::base::cursor::Cursor;
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::time::Tick;

/// What a connection was given that it may not have heard; more of it is taken for heard.
const MOST_GIVEN: usize = 1024;
/// Bytes of one of those.
const GIVEN_BYTES: u64 = size_of::<(Arc<str>, u64)>() as u64;
/// Bytes of a memo without rooms, and of a room in it without its name, about.
const MEMO_BYTES: u64 = 256;
const ROOM_BYTES: u64 = 64;
/// Bytes of a place that a client shows.
const MOST_SHOWN: usize = 1024;
/// Digits of a pid.
const DIGITS: usize = 32;

/// A pid as clients write it.
pub(super) fn written(pid: u128) -> String {
    format!("{pid:032x}")
}

fn read(pid: &str) -> Option<u128> {
    let is_whole = pid.len() == DIGITS && !pid.starts_with('+');
    u128::from_str_radix(pid, 16).ok().filter(|_| is_whole)
}

/// A place as it stands at the end of an event.
fn place(shown: &str) -> Option<(Cursor, &str)> {
    let mut parts = shown.splitn(3, '.');
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let offset = parts.next()?.parse().ok()?;
    Some((Cursor { epoch, offset }, parts.next()?))
}

/// What one connection was given.
#[derive(Debug)]
pub(super) struct Memo {
    pid: u128,
    /// Its rooms by their names within the node, each with the place up to where it surely had everything.
    rooms: Map<Arc<str>, Cursor>,
    /// What came then, in order: a room, and the number of the last of one or several publications.
    given: VecDeque<(Arc<str>, u64)>,
    /// What fell out of that last.
    gone: Option<(Arc<str>, u64)>,
}

impl Memo {
    fn new(pid: u128, seed: &Seed) -> Self {
        Self { pid, rooms: seed.map(), given: VecDeque::new(), gone: None }
    }

    /// The connection is a member from there on.
    fn join(&mut self, room: &Arc<str>, at: Cursor) {
        self.rooms.insert(Arc::clone(room), at);
    }

    fn give(&mut self, room: &Arc<str>, offset: u64) {
        if !self.rooms.contains_key(room) {
            return;
        }
        if self.given.len() == MOST_GIVEN {
            self.forget_first();
        }
        self.given.push_back((Arc::clone(room), offset));
    }

    fn forget_first(&mut self) {
        let Some((room, offset)) = self.given.pop_front() else { return };
        if let Some(at) = self.rooms.get_mut(&room) {
            at.offset = at.offset.max(offset);
        }
        self.gone = Some((room, offset));
    }

    /// How much of what was given had come when the shown place was the last: so many whole, and the place itself.
    fn heard(&self, shown: &str) -> Option<Heard> {
        let (at, name) = place(shown)?;
        let known = self.rooms.iter().find(|(room, _)| plain(room) == name);
        if known.is_some_and(|(_, floor)| floor.epoch != at.epoch) {
            return None;
        }
        let is_it = |(room, offset): &(Arc<str>, u64)| plain(room) == name && *offset == at.offset;
        if self.gone.as_ref().is_some_and(is_it) {
            return Some((0, None));
        }
        if known.is_some_and(|(_, floor)| floor.offset >= at.offset) {
            return None;
        }
        let mut given = self.given.iter();
        let found = given.position(|(room, last)| plain(room) == name && *last >= at.offset)?;
        Some((found, Some((Arc::clone(&self.given[found].0), at))))
    }

    /// The rooms, each with the place from which it goes on for one who shows this; `None` when that cannot be
    /// said.
    pub(super) fn places(&self, shown: Option<&str>) -> Option<Vec<(Arc<str>, Cursor)>> {
        let (whole, last) = match shown {
            Some(shown) => self.heard(shown)?,
            None if self.gone.is_some() => return None,
            None => (0, None),
        };
        let mut rooms = self.rooms.clone();
        let last = last.as_ref().map(|(room, at)| (room, at.offset));
        let given = self.given.iter().take(whole).map(|(room, offset)| (room, *offset));
        for (room, offset) in given.chain(last) {
            if let Some(at) = rooms.get_mut(room) {
                at.offset = at.offset.max(offset);
            }
        }
        let mut places: Vec<(Arc<str>, Cursor)> = rooms.into_iter().collect();
        places.sort();
        Some(places)
    }

    fn bytes(&self) -> u64 {
        let rooms: u64 = self.rooms.keys().map(|room| room.len() as u64 + ROOM_BYTES).sum();
        MEMO_BYTES + rooms + self.given.len() as u64 * GIVEN_BYTES
    }
}

/// So many of what was given, and the place behind them that was heard last, unless it is gone.
type Heard = (usize, Option<(Arc<str>, Cursor)>);

/// A memo whose connection has ended.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) memo: Memo,
    /// The own room of the user whose it was; nobody else is recalled by it.
    who: Option<Arc<str>>,
    until: Tick,
}

impl Left {
    /// What it costs, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.memo.bytes()
    }
}

/// What a client has shown with its connect.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) pid: u128,
    /// The place that it heard last.
    pub(super) shown: Option<Box<str>>,
}

impl Wish {
    /// What it showed, if that can be any of ours.
    pub(super) fn of(pid: &str, shown: Option<&str>) -> Option<Self> {
        let fits = shown.is_none_or(|shown| shown.len() <= MOST_SHOWN);
        let pid = read(pid).filter(|_| fits)?;
        Some(Self { pid, shown: shown.map(Box::from) })
    }
}

/// One who has shown a pid and hears nothing before it is decided what comes of it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) conn: ConnId,
    pub(super) wish: Wish,
    /// Shards that have yet to say whether they have the memo.
    pub(super) shards: u16,
    /// The memo, once it is found.
    pub(super) left: Option<Left>,
    /// The rooms of it, and how many of their homes have yet to say whether they reach back so far.
    pub(super) rooms: Vec<(Arc<str>, Cursor)>,
    pub(super) homes: usize,
}

/// The memos of a shard.
#[derive(Debug)]
pub(super) struct Recalls {
    seed: Seed,
    key: hmac::Key,
    made: u64,
    /// By the connections' places.
    here: Map<u32, Box<Memo>>,
    /// Those by their pids.
    pids: Map<u128, u32>,
    left: Map<u128, Left>,
    /// When which of those is too old, in order; some may be gone since.
    ends: VecDeque<(Tick, u128)>,
    /// Bytes of those.
    bytes: u64,
    pub(super) wishes: Map<u32, Wish>,
    pub(super) claims: Map<u32, Claim>,
}

impl Recalls {
    /// No memos; `number` is known to nobody else.
    pub(super) fn new(seed: &Seed, number: u64) -> Self {
        let parts = [0, 1, 2].map(|part: u64| seed.hash_one(("recall", number, part)));
        let bytes: Vec<u8> =
            parts.iter().chain([&number]).flat_map(|part| part.to_le_bytes()).collect();
        Self {
            seed: seed.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            made: 0,
            here: seed.map(),
            pids: seed.map(),
            left: seed.map(),
            ends: VecDeque::new(),
            bytes: 0,
            wishes: seed.map(),
            claims: seed.map(),
        }
    }

    /// True while nobody here has a memo.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    /// Memos whose connections have ended.
    pub(super) fn lost(&self) -> usize {
        self.left.len()
    }

    /// Bytes of all memos, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.here.len() as u64 * MEMO_BYTES
    }

    /// The pid of a connection that has a memo.
    pub(super) fn pid(&self, index: u32) -> Option<u128> {
        self.here.get(&index).map(|memo| memo.pid)
    }

    /// A connection has a memo from now on, under a new pid.
    pub(super) fn begin(&mut self, index: u32) {
        self.made += 1;
        let mut secret = [0; 16];
        let tag = hmac::sign(&self.key, &self.made.to_le_bytes());
        secret.copy_from_slice(&tag.as_ref()[..16]);
        let memo = Memo::new(u128::from_be_bytes(secret), &self.seed);
        self.put(index, memo);
    }

    /// The same under the pid of a memo that the client was recalled by, with what it heard last.
    pub(super) fn go_on(&mut self, index: u32, Wish { pid, shown }: &Wish) {
        let mut memo = Memo::new(*pid, &self.seed);
        memo.gone = shown.as_deref().and_then(place).map(|(at, room)| (room.into(), at.offset));
        self.put(index, memo);
    }

    fn put(&mut self, index: u32, memo: Memo) {
        self.pids.insert(memo.pid, index);
        self.here.insert(index, Box::new(memo));
    }

    /// The connection is a member of the room, and goes on behind that place.
    pub(super) fn join(&mut self, index: u32, room: &Arc<str>, at: Cursor) {
        if let Some(memo) = self.here.get_mut(&index) {
            memo.join(room, at);
        }
    }

    /// The connection is no member of the room any more.
    pub(super) fn part(&mut self, index: u32, room: &str) {
        if let Some(memo) = self.here.get_mut(&index) {
            memo.rooms.remove(room);
        }
    }

    /// The connection was given what the room numbered so.
    pub(super) fn give(&mut self, index: u32, room: &Arc<str>, offset: u64) {
        if self.here.is_empty() {
            return;
        }
        if let Some(memo) = self.here.get_mut(&index) {
            memo.give(room, offset);
        }
    }

    /// The connection's place in the table is another's from now on.
    pub(super) fn forget(&mut self, index: u32) -> Option<Memo> {
        let memo = self.here.remove(&index)?;
        self.pids.remove(&memo.pid);
        Some(*memo)
    }

    /// The connection was lost; what it was given is kept as long as that, for its user, if it was in rooms still.
    pub(super) fn lose(
        &mut self,
        mut memo: Memo,
        who: Option<Arc<str>>,
        is_in: impl Fn(&str) -> bool,
        until: Tick,
    ) {
        memo.rooms.retain(|room, _| is_in(room));
        self.keep(Left { memo, who, until });
    }

    /// Keeps a memo that its connection does not need.
    pub(super) fn keep(&mut self, left: Left) {
        let pid = left.memo.pid;
        self.bytes += left.bytes();
        self.ends.push_back((left.until, pid));
        if let Some(before) = self.left.insert(pid, left) {
            self.bytes -= before.bytes();
        }
        if self.ends.len() > 1024 + 2 * self.left.len() {
            let left = &self.left;
            self.ends.retain(|(until, pid)| left.get(pid).is_some_and(|one| one.until == *until));
        }
    }

    /// The connection here that has that pid.
    pub(super) fn holder(&self, pid: u128) -> Option<u32> {
        self.pids.get(&pid).copied()
    }

    /// The memo of that pid and that user.
    pub(super) fn take(&mut self, pid: u128, who: Option<&Arc<str>>, now: Tick) -> Option<Left> {
        let fits = |left: &&Left| left.who.as_ref() == who && left.until > now;
        self.left.get(&pid).filter(fits)?;
        let left = self.left.remove(&pid)?;
        self.bytes -= left.bytes();
        Some(left)
    }

    /// Lets go of what is too old, and of the oldest while all are more than so many bytes.
    pub(super) fn expire(&mut self, now: Tick, most: u64) {
        while let Some((until, pid)) = self.ends.front().copied() {
            if until > now && self.bytes <= most {
                return;
            }
            self.ends.pop_front();
            if self.left.get(&pid).is_some_and(|left| left.until == until)
                && let Some(left) = self.left.remove(&pid)
            {
                self.bytes -= left.bytes();
            }
        }
    }

    /// When [`Recalls::expire`] has something to do.
    pub(super) fn due(&self) -> Option<Tick> {
        self.ends.front().map(|(until, _)| *until)
    }

    /// Asserts that the memos are those of connections, and are counted.
    pub(super) fn check(&self, is_packets: impl Fn(u32) -> bool) {
        assert_eq!(self.here.len(), self.pids.len(), "memos and pids");
        for (index, memo) in &self.here {
            assert_eq!(self.pids.get(&memo.pid), Some(index), "whose pid it is");
            assert!(is_packets(*index), "connection {index} has a memo");
            assert!(memo.given.len() <= MOST_GIVEN, "what connection {index} was given");
        }
        assert_eq!(self.bytes, self.left.values().map(Left::bytes).sum::<u64>(), "bytes of memos");
        assert!(self.left.len() <= self.ends.len(), "memos without an end");
        for claim in self.claims.keys().chain(self.wishes.keys()) {
            assert!(is_packets(*claim), "connection {claim} wants to be recalled");
        }
    }
}

/// How long, where that is not for ever, and zero is never.
pub(super) fn until(now: Tick, time: Duration) -> Option<Tick> {
    (!time.is_zero()).then(|| now.plus(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: u64 = 7;

    fn at(offset: u64) -> Cursor {
        Cursor { epoch: EPOCH, offset }
    }

    fn shown(room: &str, offset: u64) -> String {
        format!("{EPOCH:x}.{offset}.{room}")
    }

    fn recalls() -> Recalls {
        Recalls::new(&Seed::new(1), 2)
    }

    /// The memo of a connection in rooms from their beginnings, that was given these.
    fn given(rooms: &[&str], numbers: &[(usize, u64)]) -> Memo {
        let mut memo = Memo::new(1, &Seed::new(1));
        let names: Vec<Arc<str>> = rooms.iter().map(|room| Arc::from(*room)).collect();
        names.iter().for_each(|room| memo.join(room, at(0)));
        numbers.iter().for_each(|(room, offset)| memo.give(&names[*room], *offset));
        memo
    }

    fn offsets(memo: &Memo, shown: Option<&str>) -> Option<Vec<u64>> {
        Some(memo.places(shown)?.iter().map(|(_, at)| at.offset).collect())
    }

    #[test]
    fn a_place_in_one_room_says_what_was_heard_of_all() {
        let memo = given(&["a", "b"], &[(0, 1), (1, 1), (0, 2), (1, 4), (0, 3)]);
        assert_eq!(offsets(&memo, None), Some(vec![0, 0]), "it has heard nothing");
        assert_eq!(offsets(&memo, Some(&shown("b", 1))), Some(vec![1, 1]));
        assert_eq!(offsets(&memo, Some(&shown("a", 2))), Some(vec![2, 1]));
        assert_eq!(
            offsets(&memo, Some(&shown("b", 3))),
            Some(vec![2, 3]),
            "in the midst of several"
        );
        assert_eq!(offsets(&memo, Some(&shown("a", 3))), Some(vec![3, 4]));
    }

    #[test]
    fn a_place_that_was_never_given_recalls_nobody() {
        let memo = given(&["a", "b"], &[(0, 1), (1, 1)]);
        for wrong in ["", "7", "7.1", "7.1.c", "8.1.a", "7.2.a", "7.0.a", "7.x.a", "x.1.a"] {
            assert_eq!(offsets(&memo, Some(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_fell_out_of_the_line_counts_as_heard_and_an_older_place_as_none() {
        let many: Vec<(usize, u64)> =
            (1..=MOST_GIVEN as u64 + 3).map(|offset| (0, offset)).collect();
        let memo = given(&["a"], &many);
        assert_eq!(memo.given.len(), MOST_GIVEN);
        assert_eq!(offsets(&memo, None), None);
        assert_eq!(offsets(&memo, Some(&shown("a", 2))), None);
        assert_eq!(offsets(&memo, Some(&shown("a", 3))), Some(vec![3]), "the last that fell out");
        assert_eq!(offsets(&memo, Some(&shown("a", 9))), Some(vec![9]));
    }

    #[test]
    fn who_was_recalled_and_heard_nothing_since_is_recalled_again() {
        let mut recalls = recalls();
        let wish = Wish::of(&written(5), Some("7.9.a")).expect("a wish");
        recalls.go_on(3, &wish);
        recalls.join(3, &"a".into(), at(9));
        recalls.join(3, &"b".into(), at(2));
        let memo = recalls.forget(3).expect("a memo");
        assert_eq!((memo.pid, offsets(&memo, Some("7.9.a"))), (5, Some(vec![9, 2])));
    }

    #[test]
    fn a_pid_is_whole_or_none_and_no_two_are_alike() {
        let mut recalls = recalls();
        let mut pids = std::collections::BTreeSet::new();
        for index in 0..100 {
            recalls.begin(index);
            let pid = recalls.pid(index).expect("a pid");
            assert!(pids.insert(pid));
            assert_eq!(Wish::of(&written(pid), None).map(|wish| wish.pid), Some(pid));
        }
        for wrong in ["", "1", "+0000000000000000000000000000001", "zz"] {
            assert!(Wish::of(wrong, None).is_none(), "{wrong}");
        }
        assert!(Wish::of(&written(1), Some(&"a".repeat(MOST_SHOWN + 1))).is_none());
        assert_ne!(Recalls::new(&Seed::new(1), 3).key.sign_one(), recalls.key.sign_one());
    }

    trait SignOne {
        fn sign_one(&self) -> Vec<u8>;
    }

    impl SignOne for hmac::Key {
        fn sign_one(&self) -> Vec<u8> {
            hmac::sign(self, b"1").as_ref().to_vec()
        }
    }

    #[test]
    fn a_memo_is_its_users_and_no_longer_than_its_time() {
        let mut recalls = recalls();
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        let lose = |recalls: &mut Recalls, pid: u128, until: u32| {
            let mut memo = given(&["a", "b"], &[]);
            memo.pid = pid;
            recalls.lose(memo, Some(Arc::clone(&ada)), |room| room == "a", Tick(until));
        };
        lose(&mut recalls, 1, 10);
        assert!(recalls.take(1, Some(&bob), Tick(5)).is_none(), "another's");
        assert!(recalls.take(1, None, Tick(5)).is_none(), "nobody's");
        assert!(recalls.take(1, Some(&ada), Tick(10)).is_none(), "too late");
        let left = recalls.take(1, Some(&ada), Tick(9)).expect("the memo");
        assert_eq!(left.memo.places(None).expect("places").len(), 1, "it has left the other room");
        assert!(recalls.take(1, Some(&ada), Tick(9)).is_none(), "it is taken once");
        lose(&mut recalls, 2, 10);
        lose(&mut recalls, 3, 20);
        recalls.expire(Tick(10), u64::MAX);
        assert_eq!((recalls.lost(), recalls.due()), (1, Some(Tick(20))));
        recalls.expire(Tick(11), 0);
        assert_eq!(
            (recalls.lost(), recalls.bytes(), recalls.due()),
            (0, 0, None),
            "too many bytes"
        );
        for round in 0..5000 {
            lose(&mut recalls, 9, 30 + round);
            recalls.take(9, Some(&ada), Tick(12)).expect("the memo");
        }
        assert!(recalls.ends.len() < 2000, "{} ends of nothing", recalls.ends.len());
        recalls.check(|_| true);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(usize),
        Part(usize),
        /// So many of one room in one piece.
        Give(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0..4usize).prop_map(Step::Join),
            1 => (0..4usize).prop_map(Step::Part),
            9 => (0..4usize, 1..4u64).prop_map(|(room, count)| Step::Give(room, count)),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// Whatever a client was given, and however much of it came: it goes on behind what it heard of each room,
        /// and never in front of where it last joined.
        #[test]
        fn a_client_goes_on_behind_what_it_heard(steps in steps(), cut in 0..200usize) {
            let names: Vec<Arc<str>> = (0..4).map(|n| Arc::from(format!("r{n}"))).collect();
            let mut memo = Memo::new(1, &Seed::new(1));
            let (mut offsets, mut floors) = ([0_u64; 4], [None; 4]);
            // What came, one by one: the room and its number.
            let mut came: Vec<(usize, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Join(room) if floors[room].is_none() => {
                        floors[room] = Some(offsets[room]);
                        memo.join(&names[room], at(offsets[room]));
                    }
                    Step::Join(_) => {}
                    Step::Part(room) => {
                        floors[room] = None;
                        memo.rooms.remove(&names[room]);
                    }
                    Step::Give(room, count) => {
                        if floors[room].is_some() {
                            came.extend((1..=count).map(|more| (room, offsets[room] + more)));
                            memo.give(&names[room], offsets[room] + count);
                        }
                        // Where it is not a member the room goes on all the same.
                        offsets[room] += count;
                    }
                }
            }
            let heard = &came[..cut.min(came.len())];
            let last = heard.last().map(|(room, offset)| shown(&names[*room], *offset));
            let Some(places) = memo.places(last.as_deref()) else {
                // It cannot be said only where the room was left or joined anew behind that.
                let (room, offset) = heard.last().expect("without a place everything is known");
                prop_assert!(floors[*room].is_some_and(|floor| floor >= *offset));
                return Ok(());
            };
            let in_rooms: Vec<usize> = (0..4).filter(|room| floors[*room].is_some()).collect();
            prop_assert_eq!(places.len(), in_rooms.len());
            for (room, (name, place)) in in_rooms.into_iter().zip(places) {
                prop_assert_eq!(&name, &names[room]);
                let own = heard.iter().filter(|(other, _)| *other == room).map(|(_, offset)| *offset);
                let expected = own.max().into_iter().chain(floors[room]).max();
                prop_assert_eq!(Some(place.offset), expected);
            }
        }

        #[test]
        fn whatever_a_client_shows_is_no_panic(pid in ".{0,40}", shown in ".{0,40}") {
            let memo = given(&["a"], &[(0, 1)]);
            let _ = memo.places(Some(&shown));
            let _ = Wish::of(&pid, Some(&shown));
        }
    }
}
