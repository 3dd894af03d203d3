//! One publication to every connection of a tenant, a slice of the table a turn.
//!
//! Such a publication may have a million receivers, so it is not handed out where it arrives: it gets into
//! line, and each turn a bounded number of places is looked at. The line keeps the order: nobody sees two
//! of these in another order than their home took them. Who receives it is decided by when it reached
//! the shard: a connection accepted later gets nothing of it, one that was there gets it whole, if it is open
//! when its place is looked at.
//!
//! One that has other targets as well waits until all copies of its command are here; then it is known who
//! was served by them. Everything behind it waits too, no longer than mail takes between shards.
//!
//! The line is bounded. Whoever would make it long is refused where it publishes, as its own shard's line is as
//! long as the others', or nearly; what still does not fit is lost and counted.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::tenant_of;
use crate::base::counters::Counters;
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::hub::{Group, Groups, Publication, Served};
use crate::shard::state::Shard;

/// Places of the table looked at in one turn.
const SLICE: u32 = 1024;
/// Publications in line above which clients are refused.
const LONG: usize = 64;
/// Publications in line above which further ones are lost.
const MOST: usize = 1024;

/// A publication on its way to everyone.
#[derive(Debug)]
pub(super) struct Walk {
    publication: Arc<Publication>,
    state: State,
    /// The place to look at next, and one behind the last.
    cursor: u32,
    bound: u32,
    /// The generation of the first connection that came too late.
    newcomer: u32,
    /// Receivers so far, by whatever way this shard's copies came.
    reached: u64,
}

#[derive(Debug)]
enum State {
    /// Copies of its command are still to come.
    Awaits(Group),
    /// These were served by other copies.
    Ready(Served),
}

impl Walk {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// True when the connection was there when the publication came, and has not got it. Generations
    /// wrap, so one from more than half of them ago counts as new.
    fn is_for(&mut self, id: ConnId) -> bool {
        let is_new = id.generation.wrapping_sub(self.newcomer) < 1 << 31;
        match &mut self.state {
            State::Ready(served) => !is_new && !served.has(id.index),
            State::Awaits(_) => false,
        }
    }
}

/// The line.
#[derive(Debug, Default)]
pub(super) struct Walks {
    line: VecDeque<Walk>,
    /// What the publications in it cost, in bytes.
    bytes: u64,
}

impl Walks {
    /// True when the first may go on.
    pub(super) fn is_ready(&self) -> bool {
        self.line.front().is_some_and(Walk::is_ready)
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// True when clients are to publish nothing more to everyone for now.
    pub(super) fn is_long(&self) -> bool {
        self.line.len() >= LONG
    }

    /// Bytes of the publications in line.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last copy of a group has come: whom its copies served is known now.
    pub(super) fn complete(&mut self, group: &Group, groups: &mut Groups) {
        let waits = |walk: &&mut Walk| matches!(&walk.state, State::Awaits(own) if own == group);
        if let Some(walk) = self.line.iter_mut().find(waits) {
            walk.state = State::Ready(groups.take());
        }
    }

    /// Verifies the sum of bytes and the bound.
    pub(super) fn check(&self) {
        assert!(self.line.len() <= MOST, "the line to everyone is bounded");
        let bytes: u64 = self.line.iter().map(|walk| cost(&walk.publication)).sum();
        assert_eq!(bytes, self.bytes, "bytes of publications to everyone");
    }

    fn push(&mut self, walk: Walk, counters: &mut Counters) -> Result<(), Walk> {
        if self.line.len() >= MOST {
            counters.everyone_dropped_total += 1;
            return Err(walk);
        }
        self.bytes += cost(&walk.publication);
        self.line.push_back(walk);
        Ok(())
    }

    fn pop(&mut self) -> Option<Walk> {
        let walk = self.line.pop_front()?;
        self.bytes -= cost(&walk.publication);
        if self.line.is_empty() && self.line.capacity() > LONG {
            self.line = VecDeque::new();
        }
        Some(walk)
    }

    fn put_back(&mut self, walk: Walk) {
        self.bytes += cost(&walk.publication);
        self.line.push_front(walk);
    }
}

fn cost(publication: &Publication) -> u64 {
    let payload = publication.payload.as_ref().map_or(0, |raw| raw.get().len());
    (size_of::<Walk>() + size_of::<Publication>() + payload) as u64
}

impl Shard {
    /// Gets a publication to everyone into line. `reached`: whom this shard's copies served already.
    pub(super) fn get_in_line(
        &mut self,
        publication: &Arc<Publication>,
        group: Option<&Group>,
        reached: u64,
    ) {
        let rooms = &mut self.rooms;
        let state = match group.filter(|group| rooms.groups.awaits(group)) {
            Some(group) => State::Awaits(*group),
            None => State::Ready(rooms.groups.take()),
        };
        let walk = Walk {
            publication: Arc::clone(publication),
            state,
            cursor: 0,
            bound: self.table.touched(),
            newcomer: self.table.next_generation(),
            reached,
        };
        if let Err(walk) = rooms.walks.push(walk, &mut self.counters) {
            self.report_reached(&walk.publication, walk.reached);
        }
    }

    /// Hands publications in line to the next slice of connections. To be called once a turn.
    pub(super) fn walk_some(&mut self, now: Time) {
        if !self.rooms.walks.is_ready() {
            return;
        }
        self.settle(now);
        let mut left = SLICE;
        while left > 0 && self.rooms.walks.is_ready() {
            let Some(mut walk) = self.rooms.walks.pop() else { return };
            if walk.publication.is_over(now) {
                self.counters.outdated_total += 1;
                self.report_reached(&walk.publication, walk.reached);
                continue;
            }
            let end = walk.bound.min(walk.cursor.saturating_add(left));
            // A walk over an empty table is not free either.
            left -= end.saturating_sub(walk.cursor).clamp(1, left);
            walk.reached += self.walk_slice(&mut walk, end, now);
            walk.cursor = end;
            if end < walk.bound {
                self.rooms.walks.put_back(walk);
            } else {
                self.report_reached(&walk.publication, walk.reached);
            }
        }
    }

    fn walk_slice(&mut self, walk: &mut Walk, end: u32, now: Time) -> u64 {
        let publication = Arc::clone(&walk.publication);
        let (item, limits) = (self.item(&publication), self.queue_limits_for([&*publication.room]));
        let before = self.counters.deliveries_total;
        let delivered = self.delivered();
        let tenant = tenant_of(&publication.room);
        let (rooms, mut pusher) = self.pusher(&limits, now);
        for index in walk.cursor..end {
            if let Some(id) = pusher.addressee(index, tenant)
                && walk.is_for(id)
            {
                pusher.deliver(index, &item, (&rooms.hub, &mut rooms.replays));
            }
        }
        let losses = pusher.losses;
        self.note_losses(Some(&publication.room), losses);
        self.note_delivered(&publication.room, delivered);
        self.close_slow(now);
        self.counters.deliveries_total - before
    }
}
