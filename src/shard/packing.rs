//! Long payloads: they are compressed beside the shards, before anybody has their publication.
//!
//! Compressing takes a core a millisecond for each hundred kilobytes or so, which a turn has not to spare. What is
//! long in a publication is its payload, which is the same for all who read it; so its blocks are made once, by a
//! thread that has nothing else to do, and each shard puts them into its frames (`wire::websocket::frame_around`). Back
//! ends' publications have theirs made before they come to a shard at all. A client's is held meanwhile like one
//! that the application is asked about: what the same client says later about the same rooms waits behind it. So
//! only publications to rooms are: what is for users or connections would be passed by the next. Where too many
//! wait, or of one client too many, the publication goes plain and at once.

use std::collections::VecDeque;

use crate::base::id::{ConnId, ShardId};
use crate::base::packed::Packed;
use crate::base::time::Time;
use crate::session::{Command, Publish, Request, in_lines};
use crate::shard::held::{Held, Kept, Rooms, Wait};
use crate::shard::settings::Compression;
use crate::shard::state::Shard;
use crate::wire::websocket::Deflator;

/// Payloads of one shard that are compressed at one time.
pub const MOST_PACKED_AT_ONCE: usize = 64;

/// A payload that is to be compressed.
#[derive(Debug)]
pub struct Packing {
    /// The shard that the answer goes to.
    pub from: ShardId,
    /// Whose publication waits for it.
    pub conn: ConnId,
    /// Where it is held.
    pub place: u64,
    /// JSON as it goes out.
    pub payload: Box<str>,
}

/// What it became.
#[derive(Debug)]
pub struct PackingDone {
    /// Whose publication waits for it.
    pub conn: ConnId,
    /// Where it is held.
    pub place: u64,
    /// Its blocks.
    pub packed: Packed,
}

/// Compresses payloads that are too long for a shard.
#[derive(Debug)]
pub struct Packer {
    deflator: Deflator,
    rules: Compression,
}

impl Packer {
    /// One for these rules.
    #[must_use]
    pub fn new(rules: &Compression) -> Self {
        Self { deflator: Deflator::new(rules.level), rules: *rules }
    }

    /// Compresses the payload of a publication, if it is one of those.
    pub fn prepare(&mut self, publish: &mut Publish<'_>) {
        if let Some(payload) = self.rules.payload_beside(publish) {
            publish.packed = Some(self.deflator.pack(in_lines(payload).as_bytes()));
        }
    }

    /// Does what a shard has asked for.
    pub fn pack(&mut self, packing: &Packing) -> PackingDone {
        let packed = self.deflator.pack(packing.payload.as_bytes());
        PackingDone { conn: packing.conn, place: packing.place, packed }
    }
}

impl Compression {
    /// The payload, if it is to be compressed beside the shards and is not yet.
    #[must_use]
    pub fn payload_beside<'p>(&self, publish: &Publish<'p>) -> Option<&'p str> {
        let payload = publish.payload.filter(|_| publish.packed.is_none())?.get();
        let is_it = payload.len() > self.inline_bytes && payload.len() <= self.max_bytes;
        is_it.then_some(payload)
    }
}

/// What a shard has compressed elsewhere.
#[derive(Debug, Default)]
pub(super) struct Packings {
    /// On their way out of the shard.
    out: VecDeque<Packing>,
    /// Those that have no answer yet.
    waiting: usize,
}

impl Packings {
    /// Bytes of what has yet to leave.
    pub(super) fn bytes(&self) -> u64 {
        self.out.iter().map(|packing| packing.payload.len() as u64).sum()
    }

    /// Gives back what a crowd has left.
    pub(super) fn purge(&mut self) {
        self.out.shrink_to(self.out.len() * 2);
    }
}

impl Shard {
    /// Offers the payloads that are to be compressed elsewhere to `post`, in order, until it gives one back.
    pub fn poll_packings(&mut self, post: &mut dyn FnMut(Packing) -> Result<(), Packing>) {
        let out = &mut self.table.codec.packings.out;
        while let Some(packing) = out.pop_front() {
            if let Err(packing) = post(packing) {
                return out.push_front(packing);
            }
        }
    }

    /// True when a command is a publication to rooms whose payload is to be compressed first.
    pub(super) fn is_to_be_packed(&self, id: ConnId, request: &Request<'_>) -> bool {
        let (Some(rules), Command::Publish(publish)) =
            (&self.settings.capacity.compression, &request.command)
        else {
            return false;
        };
        // The other half of what may wait of a client is for what it says behind it.
        let most = usize::from(self.settings.limits.outstanding) / 2;
        rules.payload_beside(publish).is_some()
            && publish.targets.len() == publish.targets.rooms.len()
            && self.table.codec.packings.waiting < MOST_PACKED_AT_ONCE
            && self.gate.people.consults.count(id) < most
            && !self.awaits_enough(id)
    }

    /// Holds such a publication and has its payload compressed.
    pub(super) fn pack_first(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        text: &str,
        place: Option<u64>,
    ) {
        let place = place.unwrap_or_else(|| self.gate.people.consults.place());
        let rooms: Rooms = publish.targets.rooms.iter().map(|room| (&**room).into()).collect();
        let kept = Kept::Message { text: text.into(), rooms, packed: None };
        self.hold_command(id, Held { place, kept, wait: Wait::Packing(None) });
        let payload = in_lines(publish.payload.map_or("", |payload| payload.get())).into();
        let packings = &mut self.table.codec.packings;
        packings.waiting += 1;
        packings.out.push_back(Packing { from: self.identity.id, conn: id, place, payload });
        self.counters.deflated_beside_total += 1;
    }

    /// A payload was compressed. Its client may be gone by now, and its index in other hands.
    pub(super) fn handle_packed(&mut self, done: PackingDone, now: Time) {
        let PackingDone { conn, place, packed } = done;
        let packings = &mut self.table.codec.packings;
        packings.waiting = packings.waiting.saturating_sub(1);
        self.gate.people.consults.note_packed(conn, place, packed);
        self.advance(conn, now);
    }
}
