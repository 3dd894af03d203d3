//! One publication to many queues.
//!
//! As a room's home this shard numbers a publication and sends one mail to each shard that has
//! members. As a member's shard it queues one reference per member to bytes that are encoded once for
//! the whole node; what several publications of one turn have in common is in `bundle`. Nothing here
//! allocates per receiver.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::auth::plain;
use crate::base::counters::Counters;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::shared::Shared;
use crate::base::time::{Tick, Time};
use crate::connection::{Disconnect, Pause};
use crate::flow::outbound::{OutboundLimits, Pressure, Pushed, Store};
use crate::hub::{Class, Group, Publication};
use crate::session::encode::{self, Push};
use crate::shard::bundle::Bundle;
use crate::shard::mail::Mail;
use crate::shard::measures::Losses;
use crate::shard::state::{Rooms, Shard, enlist};
use crate::shard::table::Table;
use crate::shard::writes::Writes;
use crate::wire::websocket;

/// What is queued for the members of one room in one shard.
struct Item {
    frame: Shared,
    /// Connections of this shard that must not get it.
    except: SmallVec<[ConnId; 2]>,
}

/// Queues items for connections.
struct Pusher<'a> {
    table: &'a mut Table,
    queues: &'a mut Store,
    writes: &'a mut Writes,
    counters: &'a mut Counters,
    limits: &'a OutboundLimits,
    tick: Tick,
    losses: Losses,
}

impl Pusher<'_> {
    fn deliver(&mut self, index: u32, item: &Item) {
        if !item.except.is_empty()
            && let Some((id, _)) = self.table.at(index)
            && item.except.contains(&id)
        {
            return;
        }
        let is_queued = self.push(index, item.frame.clone());
        if is_queued {
            self.counters.deliveries_total += u64::from(item.frame.frames());
        }
    }

    /// Queues one item and acts on the answer, all but closing; true when it is in the queue.
    fn push(&mut self, index: u32, item: Shared) -> bool {
        let Some((id, connection)) = self.table.at(index) else { return false };
        let pushed = connection.outbound.push(self.queues, index, item, self.tick, self.limits);
        match pushed {
            Pushed::Queued => {}
            Pushed::DroppedNew(count) => {
                self.counters.dropped_new_total += u64::from(count);
                self.losses[0] += u64::from(count);
            }
            Pushed::DroppedOldest(count) | Pushed::DroppedAll(count) => {
                self.counters.dropped_oldest_total += u64::from(count);
                self.losses[1] += u64::from(count);
            }
            Pushed::Conflated => {
                self.counters.conflated_total += 1;
                self.losses[2] += 1;
            }
            Pushed::SlowConsumer => {
                self.losses[3] += 1;
                self.writes.slow.push(id);
            }
            Pushed::Closing => return false,
        }
        if connection.outbound.poll_pressure() == Some(Pressure::Congested) {
            connection.set_pause(Pause::Congested, true);
        }
        enlist(connection, index, self.writes);
        pushed.is_queued()
    }
}

impl Shard {
    /// As the home of all their rooms: numbers the drafts and sends them to the shards with members.
    pub(super) fn number(
        &mut self,
        drafts: impl IntoIterator<Item = Publication>,
        group: Option<Group>,
        now: Time,
    ) {
        let mut publications: SmallVec<[Arc<Publication>; 1]> = SmallVec::new();
        let mut shards: SmallVec<[ShardId; 16]> = SmallVec::new();
        for draft in drafts {
            let Some(publication) = self.number_one(draft, now) else { continue };
            for shard in self.rooms.directory.shards(&publication.room) {
                if !shards.contains(&shard) {
                    shards.push(shard);
                }
            }
            publications.push(publication);
        }
        if group.is_some() {
            // Every shard counts the copies of a group to know when it has them all.
            shards = (0..self.identity.shards).map(ShardId).collect();
        }
        // The local members first: then the bytes exist before another shard asks for them.
        let local = shards.iter().position(|shard| *shard == self.identity.id);
        if let Some(at) = local {
            shards.swap_remove(at);
            self.deliver(&publications, group.as_ref(), now);
        }
        for shard in shards {
            self.outbox.push(shard, Mail::Deliver { publications: publications.clone(), group });
        }
    }

    /// Queues publications, all from one command, for the members in this shard; a member of several of
    /// the rooms gets one.
    pub(super) fn deliver(
        &mut self,
        publications: &[Arc<Publication>],
        group: Option<&Group>,
        now: Time,
    ) {
        let limits = self.queue_limits();
        for publication in publications {
            self.writes.note_published(publication.at);
        }
        match (publications, group) {
            ([publication], None) if publication.is_over(now) => self.counters.outdated_total += 1,
            ([publication], None) if Bundle::is_for(publication) => {
                let bytes = publication.bytes(Class::WS_JSON, encode_ws_json);
                if !self.rooms.bundle.admits(publication, bytes.len(), &limits) {
                    self.settle(now);
                }
                self.rooms.bundle.push(publication, Arc::clone(bytes));
            }
            ([publication], None) => {
                self.settle(now);
                let item = self.item(publication);
                self.deliver_room(&publication.room, &item, &limits, now);
            }
            _ => {
                self.settle(now);
                self.deliver_once(publications, group, &limits, now);
            }
        }
    }

    /// Queues what is gathered. To be called before anything that its receivers must be told after it,
    /// and before who they are changes.
    pub(super) fn settle(&mut self, now: Time) {
        if let Some((room, frame)) = self.rooms.bundle.take() {
            let limits = self.queue_limits();
            let item = Item { frame, except: SmallVec::new() };
            self.deliver_room(&room, &item, &limits, now);
        }
    }

    fn deliver_room(&mut self, room: &str, item: &Item, limits: &OutboundLimits, now: Time) {
        let (rooms, mut pusher) = self.pusher(limits, now);
        for member in rooms.hub.members(room).iter().filter(|member| member.is_confirmed()) {
            pusher.deliver(member.conn, item);
        }
        let losses = pusher.losses;
        self.note_losses(Some(room), losses);
        self.close_slow(now);
    }

    /// Queues what must not be dropped for the members of a room in this shard.
    pub(super) fn deliver_kept(
        &mut self,
        room: &str,
        bytes: &Arc<[u8]>,
        except: Option<ConnAddress>,
        now: Time,
    ) {
        self.settle(now);
        let limits = self.queue_limits();
        let except = except.filter(|address| address.shard == self.identity.id);
        let except = except.map(|address| address.conn).into_iter().collect();
        let item = Item { frame: Shared::common(Arc::clone(bytes)), except };
        self.deliver_room(room, &item, &limits, now);
    }

    fn deliver_once(
        &mut self,
        publications: &[Arc<Publication>],
        group: Option<&Group>,
        limits: &OutboundLimits,
        now: Time,
    ) {
        let items: SmallVec<[Item; 2]> =
            publications.iter().map(|publication| self.item(publication)).collect();
        let (rooms, mut pusher) = self.pusher(limits, now);
        let served = rooms.groups.enter(group);
        let mut lost: SmallVec<[(&str, Losses); 2]> = SmallVec::new();
        for (publication, item) in publications.iter().zip(&items) {
            if publication.is_over(now) {
                pusher.counters.outdated_total += 1;
                continue;
            }
            for member in rooms.hub.members(&publication.room) {
                if member.is_confirmed() && served.first(member.conn) {
                    pusher.deliver(member.conn, item);
                }
            }
            lost.push((&publication.room, std::mem::take(&mut pusher.losses)));
        }
        for (room, losses) in lost {
            self.note_losses(Some(room), losses);
        }
        self.close_slow(now);
    }

    /// The parts of the shard that queueing needs, apart from the rooms that say for whom.
    fn pusher<'a>(
        &'a mut self,
        limits: &'a OutboundLimits,
        now: Time,
    ) -> (&'a mut Rooms, Pusher<'a>) {
        let Self { table, queues, writes, counters, rooms, .. } = self;
        let (tick, losses) = (now.tick(), Losses::default());
        (rooms, Pusher { table, queues, writes, counters, limits, tick, losses })
    }

    /// Queues one item for one connection and acts on what the queue says.
    pub(super) fn push_item(
        &mut self,
        index: u32,
        item: Shared,
        limits: &OutboundLimits,
        now: Time,
    ) {
        let (_, mut pusher) = self.pusher(limits, now);
        pusher.push(index, item);
        let losses = pusher.losses;
        self.note_losses(None, losses);
        self.close_slow(now);
    }

    /// Closes those whose queues said stop; not while a room's members are being walked, which closing
    /// would change.
    fn close_slow(&mut self, now: Time) {
        while let Some(id) = self.writes.slow.pop() {
            self.close(id, Disconnect::SlowConsumer, now);
        }
    }

    fn item(&self, publication: &Publication) -> Item {
        let bytes = publication.bytes(Class::WS_JSON, encode_ws_json);
        let here = |address: &&ConnAddress| address.shard == self.identity.id;
        Item {
            frame: Shared::marked(Arc::clone(bytes), publication.mark()),
            except: publication.except.iter().filter(here).map(|address| address.conn).collect(),
        }
    }

    /// Tells the connection, whose queue has space again, what it lost.
    pub(super) fn tell_gaps(&mut self, id: ConnId, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        for (room, lost) in connection.outbound.take_gaps(&mut self.queues, id.index) {
            let mut text = Vec::new();
            encode::gap(&mut text, plain(&room), lost);
            self.push_text(id, &text, now);
        }
    }
}

pub(super) fn encode_ws_json(publication: &Publication) -> Vec<u8> {
    let mut text = Vec::new();
    encode::publication(&mut text, &push_of(publication));
    websocket::text(&text)
}

/// A publication as its receivers see it.
pub(super) fn push_of(publication: &Publication) -> Push<'_> {
    Push {
        kind: &publication.kind,
        room: plain(&publication.room),
        offset: publication.offset,
        payload: publication.payload.as_deref(),
        id: publication.id.as_deref(),
        from: publication.from,
    }
}
