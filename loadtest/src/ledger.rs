//! What a subscriber should have had, what it had, and what became of the rest.
//!
//! Two independent witnesses are heard. Each publisher numbers what it sends to a room, and a [`Track`] follows
//! these numbers; the server numbers the publications of a room as well, and says how many of them it dropped
//! (`throng:gap`). So the engine's own account is checked against one that it does not write. A [`RoomLedger`]
//! holds both for one room of one session, and [`RoomLedger::finish`] settles them.

use crate::payload::Stamp;

/// What a sequence number was, when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The next one.
    InOrder,
    /// One after so many that have not arrived.
    Skipped(u64),
    /// One of those that were skipped.
    Late,
    /// One that has arrived before, or is older than the window can tell.
    Duplicate,
}

/// One publisher's sequence as one subscriber sees it. Numbers older than the last [`WINDOW`] count as
/// duplicates when they arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Track {
    /// The highest number so far.
    highest: u64,
    /// Which of the [`WINDOW`] numbers up to the highest have arrived; bit 0 is the highest.
    window: u64,
    missing: u64,
    received: u64,
}

/// Numbers that are told apart.
const WINDOW: u64 = 64;

impl Track {
    /// A subscriber that was there before number 1.
    pub(crate) fn from_start() -> Self {
        // The numbers before the first count as arrived, so that one of them is a duplicate.
        Self { window: u64::MAX, ..Self::default() }
    }

    /// A subscriber whose first number is the next to arrive.
    pub(crate) fn from_first(seq: u64) -> Self {
        Self { highest: seq.saturating_sub(1), window: u64::MAX, missing: 0, received: 0 }
    }

    /// Notes an arrival.
    pub(crate) fn note(&mut self, seq: u64) -> Seen {
        if seq > self.highest {
            let skipped = seq - self.highest - 1;
            let shift = skipped + 1;
            self.window = if shift < WINDOW { self.window << shift } else { 0 } | 1;
            self.highest = seq;
            self.missing += skipped;
            self.received += 1;
            return if skipped == 0 { Seen::InOrder } else { Seen::Skipped(skipped) };
        }
        let back = self.highest - seq;
        if back >= WINDOW || self.window & (1 << back) != 0 {
            return Seen::Duplicate;
        }
        self.window |= 1 << back;
        self.missing -= 1;
        self.received += 1;
        Seen::Late
    }

    /// How many have not arrived when `total` is the last number.
    pub(crate) fn finish(&self, total: u64) -> u64 {
        self.missing + total.saturating_sub(self.highest)
    }
}

/// The sum of many ledgers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) dropped_by_policy: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) offset_breaks: u64,
    pub(crate) corrupt: u64,
}

impl Tally {
    /// Adds another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.dropped_by_policy += other.dropped_by_policy;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.offset_breaks += other.offset_breaks;
        self.corrupt += other.corrupt;
    }
}

/// One room of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoomLedger {
    /// By stream; mostly one.
    tracks: Vec<(u32, Track)>,
    /// The offset that comes next, once it is known.
    next_offset: Option<u64>,
    /// Offsets skipped so far.
    skipped: u64,
    /// Losses told of.
    told: u64,
    duplicates: u32,
    reordered: u32,
    offset_repeats: u32,
    from_start: bool,
}

impl RoomLedger {
    /// An empty ledger. `from_start`: the member is there before anything is published, so that what precedes
    /// the first arrival of a stream was lost.
    pub(crate) fn new(from_start: bool) -> Self {
        Self { from_start, ..Self::default() }
    }

    /// Notes the reply to the join, with the room's latest offset.
    pub(crate) fn join(&mut self, offset: Option<u64>) {
        self.next_offset = offset.map(|offset| offset + 1);
    }

    /// The offset up to which everything was had or is missing, once it is known.
    pub(crate) fn cursor(&self) -> Option<u64> {
        self.next_offset.map(|next| next.saturating_sub(1))
    }

    /// Notes a publication.
    pub(crate) fn publication(&mut self, offset: Option<u64>, stamp: &Stamp) {
        let from_start = self.from_start;
        let at = self.tracks.iter().position(|(stream, _)| *stream == stamp.publisher);
        let at = at.unwrap_or_else(|| {
            let first = || Track::from_first(stamp.seq);
            let track = if from_start { Track::from_start() } else { first() };
            self.tracks.reserve_exact(1);
            self.tracks.push((stamp.publisher, track));
            self.tracks.len() - 1
        });
        match self.tracks[at].1.note(stamp.seq) {
            Seen::InOrder | Seen::Skipped(_) => {}
            Seen::Late => self.reordered += 1,
            Seen::Duplicate => self.duplicates += 1,
        }
        let Some(offset) = offset else { return };
        let next = self.next_offset.unwrap_or(offset);
        if offset < next {
            self.offset_repeats += 1;
            return;
        }
        self.skipped += offset - next;
        self.next_offset = Some(offset + 1);
    }

    /// Notes that the server said to have dropped `lost` publications.
    pub(crate) fn gap(&mut self, lost: u64) {
        self.told += lost;
    }

    /// Settles the account. `total_of` knows the last number of each stream that has ended; `complete` says
    /// that the session was there until then, so that what is missing at the tail was lost.
    pub(crate) fn finish(&self, total_of: &dyn Fn(u32) -> Option<u64>, complete: bool) -> Tally {
        let (mut received, mut missing) = (0, 0);
        for (stream, track) in &self.tracks {
            let total = total_of(*stream).filter(|_| complete);
            received += track.received;
            missing += track.finish(total.unwrap_or(0));
        }
        let dropped = missing.min(self.told);
        // Without offsets there is nothing to compare. What was told after the last publication is no skip.
        let numbered = self.next_offset.is_some();
        let unexplained = if numbered { self.skipped.saturating_sub(self.told) } else { 0 };
        let overstated = if complete { self.told.saturating_sub(missing) } else { 0 };
        Tally {
            expected: received + missing,
            received,
            dropped_by_policy: dropped,
            lost: missing - dropped,
            duplicates: u64::from(self.duplicates),
            reordered: u64::from(self.reordered),
            offset_breaks: u64::from(self.offset_repeats) + unexplained + overstated,
            corrupt: 0,
        }
    }

    /// Streams that were heard of, so that those which were not can be charged to a member from the start.
    pub(crate) fn has_heard(&self, stream: u32) -> bool {
        self.tracks.iter().any(|(heard, _)| *heard == stream)
    }

    /// Charges a member from the start for a stream of which nothing at all arrived.
    pub(crate) fn charge_silent(&mut self, stream: u32) {
        if self.from_start && !self.has_heard(stream) {
            self.tracks.push((stream, Track::from_start()));
        }
    }
}

#[cfg(test)]
mod tests;
