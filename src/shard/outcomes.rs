//! What became of publications, remembered for a while: a ring of outcomes of fixed size.
//!
//! Whoever asks why a message was not seen asks afterwards. So each shard notes what becomes of a numbered
//! publication for each of its connections: one place of the ring, 32 bytes, when the publication is handed to the
//! kernel in a write, turned into "written" when the kernel has taken all of it; and one when it is dropped,
//! replaced, excepted, or lost with its connection. Nothing is noted when it is queued: what is queued is found in the
//! queue when somebody asks. That a publication has come is noted before what becomes of it, and whose a connection was
//! when it ends. So while its coming is remembered, everything that became of it is, and who has no outcome was
//! not meant. Names are kept as hashes of 64 bits.
//!
//! The ring has all its space from the start and no more ever. While it is off, a fan-out costs a comparison
//! for each write and none for each receiver.

use crate::base::fate::Fate;
use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::base::shared::Trace;
use crate::base::time::{Tick, Time};
use crate::contract::SendBatch;
use crate::flow::outbound::{How, Store};

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The publication was numbered here, by its home. The place's connection is its room's epoch.
    Numbered,
    /// It has come for the members here. The same.
    Arrived,
    /// It has come, and its time was over.
    Outdated,
    /// The connection has ended. The place's room is its user, if it had one, and the offset its age in
    /// milliseconds.
    Ended,
    /// For a connection.
    Fate(Fate),
}

/// A moment, in steps of a quarter of a millisecond; ends after nine years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// The tick.
    high: u32,
    /// 256 to a tick.
    low: u8,
}

impl Moment {
    /// Nanoseconds to a step: a tick has 256.
    const SHIFT: u32 = 18;

    fn of(now: Time) -> Self {
        let part = (now.as_nanos() >> Self::SHIFT) & 0xff;
        Self { high: now.tick().0, low: u8::try_from(part).unwrap_or(u8::MAX) }
    }

    fn next(self) -> Self {
        match self.low.checked_add(1) {
            Some(low) => Self { low, ..self },
            None => Self { high: self.high.saturating_add(1), low: 0 },
        }
    }

    /// Milliseconds since the node's start.
    pub(super) fn millis(self) -> u64 {
        let part = u64::from(self.low) << Self::SHIFT;
        (Tick(self.high).start().as_nanos() + part) / 1_000_000
    }
}

/// A place of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    room: u64,
    pub(super) offset: u64,
    pub(super) conn: ConnId,
    high: u32,
    low: u8,
    pub(super) note: Note,
    frames: u16,
}

/// Bytes of each outcome that is remembered.
pub const OUTCOME_BYTES: u64 = 32;

const _: () = assert!(size_of::<Place>() as u64 == OUTCOME_BYTES);
const _: () = assert!(Tick::LENGTH.as_nanos() == 256 << Moment::SHIFT);

impl Place {
    pub(super) fn at(&self) -> Moment {
        Moment { high: self.high, low: self.low }
    }

    /// True when it is about that publication.
    pub(super) fn is_about(&self, trace: Trace) -> bool {
        Trace { room: self.room, offset: self.offset }.covers(u32::from(self.frames), trace)
            && self.note != Note::Ended
    }

    /// True when it says that a connection of that user has ended.
    pub(super) fn is_end_of(&self, user: u64) -> bool {
        self.note == Note::Ended && self.room == user
    }
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Grows to `size` within what is reserved, and is written over from then on.
    places: Vec<Place>,
    /// A power of two, or zero while nothing is remembered.
    size: usize,
    /// Places ever written.
    count: u64,
    began: Moment,
    now: Moment,
}

impl Outcomes {
    /// Remembers so many outcomes from now on, and none of those before; zero: none at all.
    pub(super) fn resize(&mut self, size: usize, now: Time) {
        let now = Moment::of(now);
        let places = Vec::with_capacity(size);
        *self = Self { places, size, count: 0, began: now, now };
    }

    /// How many are remembered at most.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn is_on(&self) -> bool {
        self.size > 0
    }

    /// What is noted from now on happens at this time.
    pub(super) fn pass(&mut self, now: Time) {
        self.now = Moment::of(now);
    }

    /// The moment of what is noted now.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// What a publication is remembered by; nothing while the ring is off, and nothing of what has no number.
    pub(super) fn trace(&self, seed: &Seed, room: &str, offset: u64) -> Trace {
        if self.size == 0 || offset == 0 {
            return Trace::default();
        }
        Trace { room: name(seed, room), offset }
    }

    /// Notes something about a publication, or several that follow one another.
    pub(super) fn note(&mut self, trace: Trace, frames: u32, conn: ConnId, note: Note) {
        if self.size == 0 || !trace.is_some() {
            return;
        }
        self.put(trace, frames, conn, note);
    }

    /// Notes what the connection's queue has lost.
    pub(super) fn note_lost(&mut self, queues: &mut Store, conn: ConnId) {
        for lost in queues.losses.drain() {
            self.note(lost.trace, lost.frames, conn, Note::Fate(fate_of(lost.how)));
        }
    }

    /// Notes that a publication of this epoch has come or was numbered.
    pub(super) fn note_publication(&mut self, trace: Trace, epoch: u64, note: Note) {
        let (index, generation) = (epoch >> 32, epoch & u64::from(u32::MAX));
        let half = |half| u32::try_from(half).unwrap_or(u32::MAX);
        self.note(trace, 1, ConnId { index: half(index), generation: half(generation) }, note);
    }

    /// Notes the end of a connection of this age, of the user whose own room has that name.
    pub(super) fn note_end(&mut self, seed: &Seed, conn: ConnId, own: Option<&str>, millis: u64) {
        if self.size > 0 {
            let room = own.map_or(0, |own| name(seed, own));
            self.put(Trace { room, offset: millis }, 1, conn, Note::Ended);
        }
    }

    fn put(&mut self, trace: Trace, frames: u32, conn: ConnId, note: Note) {
        let Moment { high, low } = self.now;
        let place = Place {
            room: trace.room,
            offset: trace.offset,
            conn,
            high,
            low,
            note,
            frames: u16::try_from(frames).unwrap_or(u16::MAX),
        };
        let at = self.place_of(self.count);
        match self.places.get_mut(at) {
            Some(old) => *old = place,
            None => self.places.push(place),
        }
        self.count += 1;
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask leaves no more than a place has")]
    fn place_of(&self, number: u64) -> usize {
        number as usize & (self.size - 1)
    }

    /// Notes that what a write carries was handed to the kernel. The batch is tagged with where that stands.
    pub(super) fn hand_over(&mut self, conn: ConnId, batch: &mut SendBatch) {
        let tag = self.count;
        for item in batch.items() {
            if item.trace().is_some() {
                self.put(item.trace(), item.frames(), conn, Note::Fate(Fate::Writing));
            }
        }
        batch.tag = tag;
    }

    /// Notes that the kernel has taken all of a write to that connection.
    pub(super) fn written(&mut self, conn: ConnId, tag: u64) {
        let mut number = tag.max(self.oldest());
        // What follows belongs to other writes: no other one of this connection is noted before this one ends.
        while number < self.count {
            let (at, Moment { high, low }) = (self.place_of(number), self.now);
            let place = &mut self.places[at];
            if place.conn != conn || place.note != Note::Fate(Fate::Writing) {
                return;
            }
            (place.note, place.high, place.low) = (Note::Fate(Fate::Written), high, low);
            number += 1;
        }
    }

    /// The number of the oldest place that is remembered.
    pub(super) fn oldest(&self) -> u64 {
        self.count - self.places.len() as u64
    }

    /// One behind the number of the newest.
    pub(super) fn end(&self) -> u64 {
        self.count
    }

    /// The place of that number, while it is remembered.
    pub(super) fn get(&self, number: u64) -> Option<&Place> {
        let is_there = (self.oldest()..self.count).contains(&number);
        is_there.then(|| &self.places[self.place_of(number)])
    }

    /// Everything since then is remembered.
    pub(super) fn since(&self) -> Moment {
        if self.count == self.places.len() as u64 {
            return self.began;
        }
        // What was written over last may have been of the same moment as what stands now.
        self.get(self.oldest()).map_or(self.began, |place| place.at().next())
    }
}

/// What a room is remembered by, and a user by the room of its own; never zero.
pub(super) fn name(seed: &Seed, room: &str) -> u64 {
    seed.hash_one(room).max(1)
}

fn fate_of(how: How) -> Fate {
    match how {
        How::Dropped(overflow) => Fate::Dropped(overflow),
        How::Replaced => Fate::Replaced,
        How::Discarded => Fate::Lost,
    }
}
