//! One publication to many queues.
//!
//! As a room's home this shard numbers a publication and sends one mail to each shard that has
//! members. As a member's shard it queues one reference per member to bytes that are encoded once for
//! the whole node; what several publications of one turn have in common is in `bundle`, and how everyone is
//! reached in `everyone`. Nothing here allocates per receiver.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::auth::{Place, place, tenant_of};
use crate::base::counters::Counters;
use crate::base::cursor::Cursor;
use crate::base::fate::Fate;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::shared::{Overflow, Shared};
use crate::base::time::{Tick, Time};
use crate::connection::{Disconnect, Form, Pause};
use crate::flow::outbound::{OutboundLimits, Pressure, Pushed, Store};
use crate::hub::{Class, Group, Hub, Publication, RoomKey, Target};
use crate::session::Session;
use crate::session::encode::{self, Push, Whom};
use crate::shard::bundle::Bundle;
use crate::shard::forms::Forms;
use crate::shard::mail::Mail;
use crate::shard::measures::Losses;
use crate::shard::outcomes::{Note, Outcomes};
use crate::shard::people::People;
use crate::shard::replay::Replays;
use crate::shard::state::{Rooms, Shard, enlist};
use crate::shard::table::Table;
use crate::shard::trail::Step;
use crate::shard::writes::Writes;
use crate::wire::websocket;

/// What is queued for the receivers of one publication in one shard.
pub(super) struct Item {
    forms: Forms<Shared>,
    /// The same for streams of several rooms, one for each publication; none while the shard has none, and of what is
    /// in no room.
    steps: SmallVec<[Step; 1]>,
    /// Its room and the number of the last of it, while anybody here notes that.
    place: Option<(Arc<str>, Cursor)>,
    /// Its room and its place there, where readers that are behind have it from the room's history later.
    pauses: Option<(Arc<str>, Cursor)>,
    /// Connections of this shard that must not get it.
    except: SmallVec<[ConnId; 2]>,
    /// Rooms with members here, who must not get it either.
    except_rooms: SmallVec<[RoomKey; 2]>,
}

impl Item {
    /// Its room and its place there, where whoever is behind has it later.
    pub(super) fn pauses(&self) -> Option<&(Arc<str>, Cursor)> {
        self.pauses.as_ref()
    }

    fn excepts_nobody(&self) -> bool {
        self.except.is_empty() && self.except_rooms.is_empty()
    }
}

/// Connections to which a room says nothing more for now.
type Paused = SmallVec<[u32; 4]>;

/// What is to be known of rooms to hand an item to a member, and where members have come in them.
pub(super) type Whither<'r> = (&'r Hub, &'r mut Replays);

/// Queues items for connections.
pub(super) struct Pusher<'a> {
    table: &'a mut Table,
    queues: &'a mut Store,
    writes: &'a mut Writes,
    counters: &'a mut Counters,
    people: &'a People,
    outcomes: &'a mut Outcomes,
    limits: &'a OutboundLimits,
    tick: Tick,
    /// True while nobody is to be written to for what is pushed, unless it is more than a queue should hold.
    waits: bool,
    pub(super) losses: Losses,
    /// Connections to which a room says nothing more for now.
    paused: Paused,
}

impl Pusher<'_> {
    pub(super) fn deliver(&mut self, index: u32, item: &Item, rooms: Whither<'_>) {
        let (hub, Replays { trails, recalls, .. }) = rooms;
        if !item.excepts_nobody() && self.is_excepted(index, item, hub) {
            return;
        }
        if item.pauses.is_some() && self.is_over(index) {
            return self.paused.push(index);
        }
        if !item.steps.is_empty() && trails.has(index) {
            for step in &item.steps {
                self.hand(index, &trails.lead(index, step));
            }
            return;
        }
        let (form, frame) = if item.forms.is_one() {
            (Form::Frame, &item.forms.frame)
        } else {
            let (form, window) = self.reader(index);
            (form, item.forms.read_with(form, window))
        };
        let is_queued = self.hand(index, frame);
        // Only who reads packets comes back with a place, so nobody else is looked for among those who might.
        if form == Form::Packet
            && is_queued
            && let Some((room, at)) = &item.place
        {
            recalls.give(index, room, at.offset);
        }
    }

    fn hand(&mut self, index: u32, frame: &Shared) -> bool {
        let pushed = self.push(index, frame.clone());
        if pushed.is_queued() {
            self.counters.deliveries_total += u64::from(frame.frames());
            self.counters.delivered_bytes_total += frame.size() as u64;
        } else {
            self.note_refused(index, frame, pushed);
        }
        pushed.is_queued()
    }

    /// Remembers what the queue did not take.
    fn note_refused(&mut self, index: u32, item: &Shared, pushed: Pushed) {
        let fate = match pushed {
            Pushed::SlowConsumer => Fate::TooSlow,
            Pushed::Closing => Fate::TooLate,
            _ => return,
        };
        if let Some((id, _)) = self.table.at(index) {
            self.note(id, item, fate);
        }
    }

    /// True while the connection's queue takes no publication.
    fn is_over(&mut self, index: u32) -> bool {
        let limits = self.limits;
        self.table.at(index).is_some_and(|(_, connection)| connection.outbound.is_over(limits))
    }

    fn is_excepted(&mut self, index: u32, item: &Item, hub: &Hub) -> bool {
        let Some((id, connection)) = self.table.at(index) else { return true };
        let is_excepted =
            item.except.contains(&id) || hub.is_in_any(&connection.member, &item.except_rooms);
        if is_excepted {
            self.note(id, &item.forms.frame, Fate::Excepted);
        }
        is_excepted
    }

    /// The connection has got the same by another target.
    fn skip(&mut self, index: u32, item: &Item) {
        if let Some((id, _)) = self.table.at(index) {
            self.note(id, &item.forms.frame, Fate::Twice);
        }
    }

    fn note(&mut self, id: ConnId, item: &Shared, fate: Fate) {
        self.outcomes.note(item.trace(), item.frames(), id, Note::Fate(fate));
    }

    /// How it reads: in which form, and with which window what is compressed.
    fn reader(&mut self, index: u32) -> (Form, Option<u8>) {
        let found = self.table.at(index);
        found.map_or((Form::Frame, None), |(_, one)| (one.form(), one.window()))
    }

    /// The connection at that index, if it is one that can be reached by more than a room: of that tenant,
    /// and past saying who it is.
    pub(super) fn addressee(&mut self, index: u32, tenant: Option<&str>) -> Option<ConnId> {
        let (id, connection) = self.table.at(index)?;
        let hears = |session| matches!(session, Session::Json(_) | Session::Events);
        let hears = connection.open().is_some_and(|open| hears(open.session));
        let own = self.people.get(index).and_then(|person| person.names().0);
        (hears && own == tenant).then_some(id)
    }

    /// Queues one item and acts on the answer, all but closing.
    fn push(&mut self, index: u32, item: Shared) -> Pushed {
        let Some((id, connection)) = self.table.at(index) else { return Pushed::Closing };
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
            Pushed::Closing => return pushed,
        }
        if !self.queues.losses.is_empty() {
            self.outcomes.note_lost(self.queues, id);
        }
        if connection.outbound.poll_pressure() == Some(Pressure::Congested) {
            connection.set_pause(Pause::Congested, true);
        }
        if !self.waits || connection.outbound.is_congested() {
            enlist(connection, index, self.writes);
        }
        pushed
    }
}

impl Shard {
    /// As the home of all their targets: numbers the drafts and sends them to the shards with receivers. What
    /// was numbered, and how many copies went out with publications in them.
    pub(super) fn number(
        &mut self,
        drafts: impl IntoIterator<Item = Publication>,
        group: Option<Group>,
        now: Time,
    ) -> (SmallVec<[Arc<Publication>; 1]>, u32) {
        let mut publications: SmallVec<[Arc<Publication>; 1]> = SmallVec::new();
        let mut shards: SmallVec<[ShardId; 16]> = SmallVec::new();
        // Every shard counts the copies of a group to know when it has them all.
        let mut all = group.is_some();
        for draft in drafts {
            let Some(publication) = self.number_one(draft, now) else { continue };
            let mut add = |shard: ShardId| {
                if !shards.contains(&shard) {
                    shards.push(shard);
                }
            };
            match &publication.to.target {
                Target::Room | Target::User => {
                    self.rooms.directory.shards(&publication.room).for_each(add);
                }
                Target::Connections(list) => list.iter().for_each(|address| add(address.shard)),
                Target::Everyone => all = true,
            }
            self.note_numbered(&publication, now);
            publications.push(publication);
        }
        if all {
            shards = (0..self.identity.shards).map(ShardId).collect();
        }
        let copies = if publications.is_empty() { 0 } else { shards.len() };
        // The local members first: then the bytes exist before another shard asks for them.
        let local = shards.iter().position(|shard| *shard == self.identity.id);
        if let Some(at) = local {
            shards.swap_remove(at);
            self.deliver(&publications, group.as_ref(), now);
        }
        for shard in shards {
            self.outbox.push(shard, Mail::Deliver { publications: publications.clone(), group });
        }
        (publications, u32::try_from(copies).unwrap_or(u32::MAX))
    }

    /// Queues publications, all from one command, for the receivers in this shard; one who is meant
    /// several times gets one.
    pub(super) fn deliver(
        &mut self,
        publications: &[Arc<Publication>],
        group: Option<&Group>,
        now: Time,
    ) {
        let limits = self.queue_limits_for(publications.iter().map(|one| &*one.room));
        for publication in publications {
            self.writes.note_published(publication.at);
            self.note_arrival(publication, now);
        }
        match (publications, group) {
            ([publication], None) if publication.is_over(now) => self.counters.outdated_total += 1,
            ([publication], None) if Bundle::is_for(publication) => {
                let bytes = publication.bytes(Class::WS_JSON, encode_ws_json);
                if !self.rooms.bundle.admits(publication, bytes.len(), &limits) {
                    self.settle(now);
                }
                let forms = self.publication_forms(publication);
                let step = self.step(publication, forms.event.as_ref());
                let trace = self.trace(publication);
                self.rooms.bundle.push(publication, (forms, step), trace);
            }
            ([publication], None) if publication.has_members() => {
                self.settle(now);
                let before = self.counters.deliveries_total;
                let item = self.item(publication);
                self.deliver_room(&publication.room, &item, &limits, now);
                self.report_reached(publication, self.counters.deliveries_total - before);
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
        if let Some((room, forms, (steps, last))) = self.rooms.bundle.take() {
            let place = self.place_of(&room, last);
            let limits = self.queue_limits_for([&*room]);
            let space = self.space_of(&room);
            let forms = forms.map(|one: Shared| one.counted_for(space.as_ref()));
            let (except, except_rooms) = (SmallVec::new(), SmallVec::new());
            let item = Item { forms, steps, place, pauses: None, except, except_rooms };
            self.deliver_room(&room, &item, &limits, now);
        }
    }

    fn deliver_room(&mut self, room: &str, item: &Item, limits: &OutboundLimits, now: Time) {
        let before = self.delivered();
        let mark = item.forms.frame.mark().map(|mark| &mark.room);
        let delay = mark.map_or(Duration::ZERO, |room| self.delay_of(room));
        if let Some(room) = mark.filter(|_| !delay.is_zero()) {
            self.writes.delays.begin(room, delay, now);
        }
        let (rooms, mut pusher) = self.pusher(limits, now);
        pusher.waits = !delay.is_zero();
        for member in rooms.hub.members(room).iter().filter(|member| member.is_confirmed()) {
            if !rooms.replays.is_paused(member.conn, room) {
                pusher.deliver(member.conn, item, (&rooms.hub, &mut rooms.replays));
            }
        }
        let (losses, paused) = (pusher.losses, pusher.paused);
        self.note_losses(Some(room), losses);
        self.pause_in(item, &paused);
        self.note_delivered(room, before);
        self.close_slow(now);
    }

    /// Queues what must not be dropped for the members of a room in this shard.
    pub(super) fn deliver_kept(
        &mut self,
        room: &str,
        forms: Forms<Shared>,
        except: Option<ConnAddress>,
        now: Time,
    ) {
        self.settle(now);
        let limits = self.queue_limits_for([room]);
        let space = self.space_of(room);
        let except = except.filter(|address| self.is_own(address));
        let except = except.map(|address| address.conn).into_iter().collect();
        let forms = forms.map(|one| one.counted_for(space.as_ref()));
        let (steps, except_rooms) = (SmallVec::new(), SmallVec::new());
        let item = Item { forms, steps, place: None, pauses: None, except, except_rooms };
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
        let (here, before) = (self.identity.id, self.counters.deliveries_total);
        let delivered = self.delivered();
        let (rooms, mut pusher) = self.pusher(limits, now);
        let served = rooms.groups.enter(group);
        let mut lost: SmallVec<[(&str, Losses, Paused); 2]> = SmallVec::new();
        for (publication, item) in publications.iter().zip(&items) {
            if publication.is_over(now) {
                pusher.counters.outdated_total += 1;
                lost.push((&publication.room, Losses::default(), SmallVec::new()));
                continue;
            }
            match &publication.to.target {
                Target::Room | Target::User => {
                    for member in rooms.hub.members(&publication.room) {
                        let is_paused = rooms.replays.is_paused(member.conn, &publication.room);
                        if !member.is_confirmed() || is_paused {
                            continue;
                        }
                        if served.first(member.conn) {
                            pusher.deliver(member.conn, item, (&rooms.hub, &mut rooms.replays));
                        } else {
                            pusher.skip(member.conn, item);
                        }
                    }
                }
                Target::Connections(list) => {
                    let tenant = tenant_of(&publication.room);
                    for address in list.iter().filter(|address| address.shard == here) {
                        let index = address.conn.index;
                        if pusher.addressee(index, tenant) == Some(address.conn)
                            && served.first(index)
                        {
                            pusher.deliver(index, item, (&rooms.hub, &mut rooms.replays));
                        }
                    }
                }
                Target::Everyone => {}
            }
            let paused = std::mem::take(&mut pusher.paused);
            lost.push((&publication.room, std::mem::take(&mut pusher.losses), paused));
        }
        for ((room, losses, paused), item) in lost.into_iter().zip(&items) {
            self.note_losses(Some(room), losses);
            self.pause_in(item, &paused);
        }
        let reached = self.counters.deliveries_total - before;
        // All are of one tenant, as one command or one key has named them.
        if let Some(publication) = publications.first() {
            self.note_delivered(&publication.room, delivered);
        }
        self.go_on(publications, group, reached);
        self.close_slow(now);
    }

    /// What is left to do of a command when those it names have its copies: everyone else, or the count.
    fn go_on(&mut self, publications: &[Arc<Publication>], group: Option<&Group>, reached: u64) {
        let to_all = |publication: &&Arc<Publication>| publication.to.target == Target::Everyone;
        if let Some(publication) = publications.iter().find(to_all) {
            self.get_in_line(publication, group, reached);
        } else if let Some(publication) = publications.first() {
            self.report_reached(publication, reached);
        }
        let Rooms { walks, groups, .. } = &mut self.rooms;
        if let Some(group) = group.filter(|group| !groups.awaits(group)) {
            walks.complete(group, groups);
        }
    }

    /// The parts of the shard that queueing needs, apart from the rooms that say for whom.
    pub(super) fn pusher<'a>(
        &'a mut self,
        limits: &'a OutboundLimits,
        now: Time,
    ) -> (&'a mut Rooms, Pusher<'a>) {
        let Self { table, queues, writes, counters, rooms, gate, measures, .. } = self;
        let (people, tick, losses) = (&gate.people, now.tick(), Losses::default());
        let outcomes = &mut measures.outcomes;
        let pusher = Pusher {
            table,
            queues,
            writes,
            counters,
            people,
            outcomes,
            limits,
            tick,
            waits: false,
            losses,
            paused: SmallVec::new(),
        };
        (rooms, pusher)
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
        let pushed = pusher.push(index, item.clone());
        pusher.note_refused(index, &item, pushed);
        let losses = pusher.losses;
        self.note_losses(None, losses);
        self.close_slow(now);
    }

    /// Closes those whose queues said stop; not while a room's members are being walked, which closing
    /// would change.
    pub(super) fn close_slow(&mut self, now: Time) {
        while let Some(id) = self.writes.slow.pop() {
            self.close(id, Disconnect::SlowConsumer, now);
        }
    }

    /// The event for streams of several rooms, if this shard has any and it is of a room.
    fn step(&mut self, publication: &Publication, event: Option<&Arc<[u8]>>) -> Option<Step> {
        if self.rooms.replays.trails.is_empty() {
            return None;
        }
        let mark = Some(publication.mark());
        let step = Step::of(publication, event?, mark)?;
        let body = step.body.traced(self.trace(publication));
        let body = body.counted_for(self.space_of(&publication.room).as_ref());
        Some(Step { body, ..step })
    }

    pub(super) fn item(&mut self, publication: &Publication) -> Item {
        let trace = self.trace(publication);
        let space = self.space_of(&publication.room);
        let marked = |bytes| Shared::marked(bytes, publication.mark()).traced(trace);
        let forms = self.publication_forms(publication);
        let steps = self.step(publication, forms.event.as_ref()).into_iter().collect();
        let forms = forms.map(|bytes| marked(bytes).counted_for(space.as_ref()));
        let place = self.place_of(&publication.room, publication.cursor);
        let pauses = publication.overflow == Overflow::Pause;
        let pauses = pauses.then(|| (Arc::clone(&publication.room), publication.cursor));
        let Some(all) = &publication.to.except else {
            let (except, except_rooms) = (SmallVec::new(), SmallVec::new());
            return Item { forms, steps, place, pauses, except, except_rooms };
        };
        let here = |address: &&ConnAddress| self.is_own(address);
        let rooms = all.rooms.iter().filter_map(|room| self.rooms.hub.key(room));
        Item {
            forms,
            steps,
            place,
            pauses,
            except: all.connections.iter().filter(here).map(|address| address.conn).collect(),
            except_rooms: rooms.collect(),
        }
    }

    /// Tells the connection, whose queue has space again, what it lost.
    pub(super) fn tell_gaps(&mut self, id: ConnId, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        for (room, lost) in connection.outbound.take_gaps(&mut self.queues, id.index) {
            let mut text = Vec::new();
            encode::gap(&mut text, whom(&room), lost);
            self.push_text(id, &text, now);
        }
    }
}

pub(super) fn encode_ws_json(publication: &Publication) -> Vec<u8> {
    websocket::text(&encode_json(publication))
}

pub(super) fn encode_json(publication: &Publication) -> Vec<u8> {
    let mut text = Vec::new();
    encode::publication(&mut text, &push_of(publication));
    text
}

/// A publication as its receivers see it.
pub(super) fn push_of(publication: &Publication) -> Push<'_> {
    Push {
        kind: &publication.kind,
        whom: whom(&publication.room),
        offset: publication.cursor.offset,
        payload: publication.payload.as_deref(),
        id: publication.id.as_deref(),
        from: publication.origin.connection(),
    }
}

/// What a receiver is told of the name within the node by which it was reached.
fn whom(name: &str) -> Whom<'_> {
    match place(name) {
        Place::Room(room) => Whom::Room(room),
        Place::User => Whom::User,
        Place::Connections => Whom::Connection,
        Place::Everyone => Whom::Everyone,
    }
}
