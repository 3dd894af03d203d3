//! The state of a shard, in named parts.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::counters::Counters;
use crate::base::id::{ConnAddress, ConnId, NodeTag, ShardId};
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::connection::{Connection, Disconnect};
use crate::flow::outbound::Store;
use crate::hub::{Directory, Groups, Hub, Repeats};
use crate::shard::admission::Gate;
use crate::shard::bundle::Bundle;
use crate::shard::everyone::Walks;
use crate::shard::history::MOST_REPEATS;
use crate::shard::joint::Joints;
use crate::shard::ledger::Ledger;
use crate::shard::mail::Outbox;
use crate::shard::measures::{Measures, SECOND};
use crate::shard::presence::Presence;
use crate::shard::quota::Quotas;
use crate::shard::relief::Relief;
use crate::shard::replay::Replays;
use crate::shard::restore::Restores;
use crate::shard::settings::Settings;
use crate::shard::shelf::Shelf;
use crate::shard::table::Table;
use crate::shard::writes::Writes;

/// Who the shard is; fixed for its life.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This shard.
    pub id: ShardId,
    /// The node, among those that work together.
    pub node: NodeTag,
    /// How many shards the node has.
    pub shards: u16,
    /// The key of every map of the node, and of the choice of a room's home.
    pub seed: Seed,
    /// Seeds the jitter; different for each shard.
    pub jitter: u64,
    /// Names this run of the node: part of every cursor.
    pub epoch: u64,
    /// Unix time in milliseconds at [`Time::ZERO`].
    pub started_unix_ms: u64,
    /// Connections to reserve memory for.
    pub capacity: usize,
}

/// Rooms, seen from both sides: those with members here, and those whose home is here.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) hub: Hub,
    pub(super) directory: Directory,
    pub(super) groups: Groups,
    /// Delivered in this turn and not queued yet.
    pub(super) bundle: Bundle,
    /// The rooms of tenants, where they are counted.
    pub(super) quotas: Quotas,
    /// On their way to everyone.
    pub(super) walks: Walks,
    /// Identifiers of publications to rooms whose home is here.
    pub(super) repeats: Repeats,
    /// Members that have not had everything they missed.
    pub(super) replays: Replays,
    /// Messages that join many rooms.
    pub(super) restores: Restores,
    /// Publications that wait for the store.
    pub(super) shelf: Shelf,
    /// Who observes whom.
    pub(super) presence: Presence,
    /// The homes' side of rooms whose history all nodes share.
    pub(super) joint: Joints,
}

/// What one core owns.
#[derive(Debug)]
pub struct Shard {
    pub(super) identity: Identity,
    /// The shard's own copy. It is held for the length of every message, and a count of holders that
    /// all cores share would travel between them as often.
    pub(super) settings: Rc<Settings>,
    pub(super) table: Table,
    pub(super) queues: Store,
    pub(super) rooms: Rooms,
    pub(super) writes: Writes,
    pub(super) outbox: Outbox,
    pub(super) gate: Gate,
    pub(super) relief: Relief,
    pub(super) counters: Counters,
    pub(super) measures: Measures,
    pub(super) rng: fastrand::Rng,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(identity: Identity, settings: Arc<Settings>) -> Self {
        let seed = &identity.seed;
        let mut directory = Directory::new(seed, identity.epoch);
        if settings.rooms.presence.nodes {
            directory.users.join_nodes(identity.shards);
        }
        let mut shard = Self {
            table: Table::new(identity.capacity),
            queues: Store::new(seed),
            rooms: Rooms {
                hub: Hub::new(seed),
                directory,
                groups: Groups::new(seed),
                bundle: Bundle::default(),
                quotas: Quotas::new(seed),
                walks: Walks::default(),
                repeats: Repeats::new(seed, MOST_REPEATS),
                replays: Replays::new(seed, identity.jitter),
                restores: Restores::new(seed),
                shelf: Shelf::new(seed),
                presence: Presence::new(seed),
                joint: Joints::new(seed),
            },
            writes: Writes::new(settings.capacity.flush_window),
            outbox: Outbox::new(identity.shards + u16::from(identity.node.is_some())),
            gate: Gate::new(identity.capacity, seed, &settings, identity.jitter),
            relief: Relief::default(),
            counters: Counters::default(),
            measures: Measures::default(),
            rng: fastrand::Rng::with_seed(identity.jitter),
            settings: Rc::new(own_settings(settings, seed)),
            identity,
        };
        shard.measures.ledger = Ledger::new(shard.settings.capacity.tenants);
        shard.remember_outcomes(Time::ZERO);
        shard.set_hoards(true);
        shard
    }

    /// The counters, gauges included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.connections = self.table.len() as u64;
        counters.tls_connections = self.gate.layers.len() as u64;
        counters.rooms = self.rooms.hub.len() as u64;
        counters.memberships = self.rooms.hub.memberships() as u64;
        counters.home_rooms = self.rooms.directory.len() as u64;
        self.count_history(&mut counters);
        counters.queued_bytes = self.queues.queued_bytes();
        counters.parked_mail = self.outbox.len() as u64;
        counters.everyone_waiting = self.rooms.walks.len() as u64;
        let people = &self.gate.people;
        counters.authenticated_connections = people.len() as u64;
        counters.metadata_bytes = people.metadata_bytes() as u64;
        counters.pending_tickets = people.pending.len() as u64;
        counters.revocations = people.revocations.len() as u64;
        counters.pending_questions = people.consults.questions.len() as u64;
        counters.held_commands = people.consults.len() as u64;
        counters.petitions = self.gate.people.petitions.len() as u64;
        counters.polling_connections = self.gate.people.petitions.carriers.len() as u64;
        counters.charged_bytes = self.charged();
        counters.parties = self.gate.seats.parties() as u64;
        counters.paced = self.gate.paces.active() as u64;
        counters.counted_parties = self.gate.tally.len() as u64;
        counters.shared_parties = self.gate.paces.accounts.len() as u64;
        counters.counted_rooms = self.rooms.quotas.counted();
        counters.awaited_commands = self.gate.paces.awaited.len();
        counters.awaited_elsewhere = self.gate.paces.awaited.sums.elsewhere();
        counters.waiting_joins = self.rooms.quotas.waiting() as u64;
        self.count_presence(&mut counters);
        self.table.codec.count(&mut counters);
        counters
    }

    fn count_history(&self, counters: &mut Counters) {
        let history = self.rooms.directory.history();
        counters.history_rooms = history.len() as u64;
        counters.history_publications = history.entries() as u64;
        counters.history_bytes = history.bytes();
        counters.replays = self.rooms.replays.len() as u64;
        counters.restores = self.rooms.restores.len() as u64;
        counters.lost_clients = self.rooms.replays.recalls.lost() as u64;
        counters.remembered_ids = self.rooms.repeats.len() as u64;
        let evicted = history.evicted();
        counters.history_evicted_count_total = evicted.count;
        counters.history_evicted_bytes_total = evicted.bytes;
        counters.history_evicted_age_total = evicted.age;
        counters.history_evicted_share_total = evicted.share;
        counters.forgotten_ids_total = self.rooms.repeats.forgotten();
        counters.waiting_to_be_stored = self.rooms.shelf.lines.len() as u64;
    }

    /// A connection's address within the node.
    pub(super) fn address(&self, conn: ConnId) -> ConnAddress {
        ConnAddress { node: self.identity.node, shard: self.identity.id, conn }
    }

    /// True for an address in this shard of this node.
    pub(super) fn is_own(&self, address: &ConnAddress) -> bool {
        address.shard == self.identity.id && address.node == self.identity.node
    }

    /// Begins the end of a connection: it leaves its rooms at once, its queue is flushed.
    pub(super) fn close(&mut self, id: ConnId, why: Disconnect, now: Time) {
        self.close_saying(id, why, None, now);
    }

    /// The same, with words of the application's own in the close frame.
    pub(super) fn close_saying(
        &mut self,
        id: ConnId,
        why: Disconnect,
        words: Option<&str>,
        now: Time,
    ) {
        self.settle(now);
        let deadline = now.tick().plus(self.settings.timeouts.close);
        let Some(connection) = self.table.get(id).filter(|c| c.is_living()) else { return };
        let was_open = connection.open().is_some();
        connection.begin_close_saying(why, words, deadline, &mut self.queues, id.index);
        self.note_lost(id);
        self.after_close(id, why, was_open, now);
    }

    /// What every end has in common once the connection itself has turned to closing.
    pub(super) fn after_close(&mut self, id: ConnId, why: Disconnect, was_open: bool, now: Time) {
        let until = now.tick().plus(self.settings.timeouts.close);
        let life = self.table.age(id, now.tick());
        self.report_end(id, why, life, now);
        self.note_end_of(id, life, now);
        self.leave_memo(id, why, now);
        if let Some(connection) = self.table.get(id) {
            self.rooms.hub.leave_all(&mut connection.member);
        }
        self.note_rooms(id.index);
        self.say_farewell(id, why, life);
        self.depart_person(id);
        self.measures.ledger.leave(id.index);
        let is_probe = self.end_probe(id);
        let is_reader = self.is_reading(id) || self.is_polling(id) || is_probe;
        self.gate.people.petitions.forget(id);
        self.rooms.replays.forget(id.index);
        self.gate.people.leave(id.index);
        self.rooms.presence.leave(id.index);
        if was_open {
            self.counters.open_connections -= 1;
            let is_stream = self.table.get(id).is_some_and(|connection| connection.is_stream());
            self.counters.stream_connections -= u64::from(is_stream);
            let packets = self.table.get(id).is_some_and(|connection| connection.speaks_packets());
            self.counters.packet_connections -= u64::from(packets);
            let deflates =
                self.table.get(id).is_some_and(|connection| connection.window().is_some());
            self.counters.deflate_connections -= u64::from(deflates);
            if !is_reader {
                let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
                self.measures.lives.note(millis, SECOND);
            }
        } else {
            self.gate.opening -= 1;
        }
        self.depart(id);
        why.count(&mut self.counters);
        self.table.wheel.set(id.index, until);
        self.enlist(id.index);
    }

    /// Puts a connection on the list of those that may want something of the driver.
    pub(super) fn enlist(&mut self, index: u32) {
        if let Some((_, connection)) = self.table.at(index) {
            enlist(connection, index, &mut self.writes);
        }
    }
}

/// The settings as the shard's own copy.
pub(super) fn own_settings(settings: Arc<Settings>, seed: &Seed) -> Settings {
    let mut settings = Arc::unwrap_or_clone(settings);
    settings.limits.tenants.know(seed);
    settings
}

/// Puts a connection on the list of those that may want something of the driver.
pub(super) fn enlist(connection: &mut Connection, index: u32, writes: &mut Writes) {
    if connection.enlist() {
        writes.enlist(index);
    }
}
