//! Rooms whose publications wait a little before they are written, so that several go with one write.
//!
//! What is published in such a room is queued for its members at once, in its order and under its policy, and
//! only the write waits: nobody is put on the list of those to be written to for it. When the time is over,
//! counted from the first that waits, the members with anything queued are. Whatever else a member is sent
//! meanwhile takes along what waits, and a queue over its high water mark waits for nothing. So a delay holds up
//! nothing but the room's own publications, and no connection has to be remembered: a room stands here, and
//! not its members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Place, place};
use crate::base::time::Time;
use crate::shard::state::{Shard, enlist};

/// Rooms of which something waits.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// Since when, by name.
    rooms: BTreeMap<Arc<str>, Time>,
    /// The same rooms, by when their time is over.
    due: BTreeSet<(Time, Arc<str>)>,
}

impl Delays {
    /// Something of the room waits from now on, for so long at most.
    pub(super) fn begin(&mut self, room: &Arc<str>, delay: Duration, now: Time) {
        if !self.rooms.contains_key(room) {
            self.rooms.insert(Arc::clone(room), now);
            self.due.insert((now.plus(delay), Arc::clone(room)));
        }
    }

    /// The next room whose time is over, and since when something of it has waited.
    fn end(&mut self, now: Time) -> Option<(Arc<str>, Time)> {
        let (_, room) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        self.due.pop_first();
        let since = self.rooms.remove(&room)?;
        Some((room, since))
    }

    /// When the next time is over.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }
}

impl Shard {
    /// For how long the writes of the room's publications wait; not at all, of what is no room.
    pub(super) fn delay_of(&self, room: &str) -> Duration {
        match place(room) {
            Place::Room(name) => self.settings.rooms.write_delay_of(name),
            Place::User | Place::Connections | Place::Everyone => Duration::ZERO,
        }
    }

    /// Lets go of what has waited long enough.
    pub(super) fn release_delayed(&mut self, now: Time) {
        while let Some((room, since)) = self.writes.delays.end(now) {
            self.writes.note_published(since);
            for member in self.rooms.hub.members(&room) {
                if let Some((_, connection)) = self.table.at(member.conn)
                    && !connection.outbound.is_empty()
                {
                    enlist(connection, member.conn, &mut self.writes);
                }
            }
        }
    }
}
