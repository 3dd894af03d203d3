//! Publications of one room that come in one turn, gathered into one item for every member.
//!
//! A burst of small publications to a large room costs, for each of them and each member, a place in the
//! member's queue and a slice of its write: as much as the kernel's part. What they say is the same for
//! everybody, so their frames are put together once for the shard, and each member gets one reference to
//! all of them. It is queued when the turn begins to write, or as soon as anything happens that it must
//! not be told after: a change of who is a member, and a publication that cannot join it.
//!
//! A publication with exceptions or a conflation key is not for everybody or may be replaced, and of one
//! that is counted it must be known at once whom it reaches, so they stay alone. A queue takes or drops a bundle as a whole and counts its publications; so a bundle has at most
//! a sixteenth of what queues take before policies apply, and at most 16 KiB.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::cursor::Cursor;
use crate::base::shared::{Mark, Overflow, Shared, Trace};
use crate::flow::outbound::OutboundLimits;
use crate::hub::Publication;
use crate::shard::forms::Forms;
use crate::shard::trail::Step;

/// What is gathered; empty between turns.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    /// The room and its policy; `None` exactly while nothing is gathered.
    mark: Option<Mark>,
    /// Which publication is the first. What becomes of an item is remembered by it, so the others' numbers follow.
    trace: Trace,
    /// One frame of each publication, and one in each other form of those that came while somebody read it. Who
    /// begins to read in between is no confirmed member before this is queued.
    frames: Vec<Arc<[u8]>>,
    events: Vec<Arc<[u8]>>,
    packets: Vec<Arc<[u8]>>,
    small: Vec<Arc<[u8]>>,
    small_packets: Vec<Arc<[u8]>>,
    /// The events of rooms, while anybody reads a stream of several.
    steps: SmallVec<[Step; 1]>,
    /// Where the last stands in the room.
    last: Cursor,
    /// Bytes of all of them.
    bytes: usize,
}

impl Bundle {
    /// True when this publication may share an item with others.
    pub(super) fn is_for(publication: &Publication) -> bool {
        publication.to.except.is_none()
            && !matches!(publication.overflow, Overflow::Conflate | Overflow::Pause)
            && publication.has_members()
            && publication.origin.slip().is_none()
    }

    /// True while nothing is gathered.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// True when the publication, whose frame has so many bytes, may join what is gathered.
    pub(super) fn admits(
        &self,
        publication: &Publication,
        bytes: usize,
        limits: &OutboundLimits,
    ) -> bool {
        let Some(mark) = &self.mark else { return true };
        let same = Arc::ptr_eq(&mark.room, &publication.room) || mark.room == publication.room;
        let follows = !self.trace.is_some()
            || self.trace.offset + self.frames.len() as u64 == publication.cursor.offset;
        same && follows
            && mark.overflow == publication.overflow
            && self.bytes + bytes <= limits.bundle_bytes()
            && self.frames.len() < limits.bundle_frames()
    }

    /// Adds a publication by its forms. `trace`: what it is remembered by.
    pub(super) fn push(
        &mut self,
        publication: &Publication,
        (forms, step): (Forms<Arc<[u8]>>, Option<Step>),
        trace: Trace,
    ) {
        if self.mark.is_none() {
            self.mark = Some(publication.mark());
            self.trace = trace;
        }
        self.bytes += forms.frame.len();
        self.last = publication.cursor;
        self.frames.push(forms.frame);
        self.events.extend(forms.event);
        self.packets.extend(forms.packet);
        self.small.extend(forms.small);
        self.small_packets.extend(forms.small_packet);
        self.steps.extend(step);
    }

    /// The room, an item of each form gathered, the events for streams of several rooms, each of which has an id of
    /// its own, and where the last stands; nothing is gathered then.
    pub(super) fn take(&mut self) -> Option<Taken> {
        let mark = self.mark.take()?;
        let room = Arc::clone(&mark.room);
        self.bytes = 0;
        let join = |pieces| join(pieces, &mark).map(|item| item.traced(self.trace));
        let (event, packet) = (join(&mut self.events), join(&mut self.packets));
        let (small, small_packet) = (join(&mut self.small), join(&mut self.small_packets));
        let frame = join(&mut self.frames)?;
        let forms = Forms { frame, event, packet, small, small_packet };
        Some((room, forms, (std::mem::take(&mut self.steps), self.last)))
    }
}

/// What was gathered.
type Taken = (Arc<str>, Forms<Shared>, (SmallVec<[Step; 1]>, Cursor));

/// One item of all these; `None` of none.
fn join(pieces: &mut Vec<Arc<[u8]>>, mark: &Mark) -> Option<Shared> {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    if count <= 1 {
        return pieces.pop().map(|piece| Shared::marked(piece, mark.clone()));
    }
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    pieces.drain(..).for_each(|piece| bytes.extend_from_slice(&piece));
    Some(Shared::bundle(bytes, count, mark.clone()))
}
