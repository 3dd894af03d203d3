//! The home's side of publications that are to be taken once over all nodes, by their `id`s.
//!
//! What this node has taken itself it knows, and answers from that. About all else it asks: the publication stands in its
//! room's line, with what is published behind it, until the bridge has told whether any node had taken it before. That
//! costs a round trip to Redis, and so only those rooms pay for it whose namespace remembers `id`s, only for publications
//! that have one, and only where the configuration asks for it. What nobody can tell is decided as a node does that works
//! alone. Of a connection without a user no other node can know anything; nor is asked about what is for several rooms,
//! as no two of them may be decided differently in one piece of work.

use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ShardId;
use crate::base::time::Time;
use crate::hub::{By, Durable, Publication, Target};
use crate::shard::mail::Mail;
use crate::shard::shelf::{Work, cost};
use crate::shard::state::Shard;

/// Publications to a room that are to be taken once by all nodes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The room's home.
    pub home: ShardId,
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// Of each who published it where under which `id`, as every node would write it: JSON.
    pub names: Vec<String>,
    /// How long that is to be remembered.
    pub window: Duration,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The room.
    pub room: Arc<str>,
    /// For each whether no node had taken it; `None`: nobody can tell.
    pub first: Vec<Option<bool>>,
}

/// Who published it where under which identifier, as every node would write it.
fn name(draft: &Publication) -> Option<String> {
    let once = draft.terms.once.as_ref().filter(|once| once.by != By::Connection)?;
    let id = draft.id.as_ref()?;
    serde_json::to_string(&(&once.by, &*draft.room, id.get())).ok()
}

impl Shard {
    /// True when all nodes are to be asked about this.
    pub(super) fn must_ask_nodes(&self, drafts: &[Publication], now: Time) -> bool {
        let [draft] = drafts else { return false };
        if self.settings.capacity.ids.is_none() || !self.is_linked() {
            return false;
        }
        let Some(once) = draft.terms.once.as_ref() else { return false };
        once.by != By::Connection
            && draft.id.is_some()
            && draft.to.target == Target::Room
            && draft.terms.durable == Durable::No
            && draft.terms.keep.is_none()
            && !self.memory_of(&draft.room).repeats.is_zero()
            && !self.rooms.repeats.has(once.name, now.tick())
    }

    /// Asks all nodes about what stood at the front of a room's line.
    pub(super) fn ask_nodes(&mut self, room: &Arc<str>, works: Vec<(u64, Work)>) {
        let window = self.memory_of(room).repeats;
        let names = works.iter().map(|(_, work)| {
            // What has none would not be asked about.
            work.drafts.first().and_then(name).unwrap_or_default()
        });
        let naming = Naming {
            home: self.identity.id,
            room: Arc::clone(room),
            names: names.collect(),
            window,
        };
        self.rooms.shelf.asked.insert(Arc::clone(room), works);
        self.push_across(Mail::Name(Box::new(naming)));
    }

    /// All nodes have answered.
    pub(super) fn handle_named(&mut self, named: &Named, now: Time) {
        let Some(works) = self.rooms.shelf.asked.remove(&named.room) else { return };
        let window = self.memory_of(&named.room).repeats;
        let known = named.first.iter().copied().chain(std::iter::repeat(None));
        let mut fresh = Vec::with_capacity(works.len());
        for ((id, work), first) in works.into_iter().zip(known) {
            if first != Some(false) {
                fresh.push((id, cost(&work.drafts), work));
                continue;
            }
            let once = work.drafts.first().and_then(|draft| draft.terms.once.as_ref());
            if let Some(once) = once.filter(|_| !window.is_zero()) {
                let until = now.tick().plus(window);
                self.rooms.repeats.first(once.name, until, now.tick());
            }
            self.counters.repeats_total += 1;
            self.send_part(work.across);
            self.tell_repeat(work.then, now);
        }
        self.rooms.shelf.lines.go_on(&named.room, fresh);
        self.pump(now);
    }
}
