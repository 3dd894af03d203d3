//! What became of a publication for somebody: the ring of outcomes, read when a back end asks.
//!
//! The ring is read a slice a turn, twice: first for connections of the user that have ended, then for what is
//! noted of the publication. It is written meanwhile; places that are written over before they are read take with
//! them that the publication has come, so the answer then is that it is not remembered, and never a wrong one. What
//! has no outcome may be in a queue still, which is looked at in the turn that reads the ring's end.

use std::sync::Arc;
use std::time::Duration;

use crate::base::cursor::Cursor;
use crate::base::fate::{Account, Destiny, Fate, Sighting};
use crate::base::id::{ConnAddress, ConnId};
use crate::base::shared::Trace;
use crate::base::time::Time;
use crate::hub::{Publication, Target};
use crate::shard::outcomes::{self, Moment, Note, Place};
use crate::shard::state::Shard;

/// A question about one publication and one user or connection.
#[derive(Clone, Debug)]
pub struct Explain {
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// The publication's number in it.
    pub offset: u64,
    /// For whom.
    pub of: Recipient,
}

/// Who asks why.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// A user, by the name of the room of its own.
    User(Arc<str>),
    /// A connection, of this tenant if one is named.
    Connection(ConnAddress, Option<Arc<str>>),
}

/// Places read in one turn.
const SLICE: u64 = 16_384;
/// Connections of one user that are told of.
const MOST: usize = 1000;

/// The ring being read.
#[derive(Debug)]
pub(super) struct Search {
    /// The number of the next place.
    at: u64,
    /// True in the second pass.
    fates: bool,
    /// In the order of their ids from the second pass on.
    people: Vec<Person>,
    numbered: Option<(Moment, u64)>,
    arrived: Option<(Moment, u64)>,
    outdated: bool,
}

#[derive(Debug)]
struct Person {
    conn: ConnId,
    begun: u64,
    ended: Option<Moment>,
    fate: Option<(Fate, Moment)>,
}

impl Search {
    /// Some places were written over before they were read.
    fn forget(&mut self) {
        (self.numbered, self.arrived, self.outdated) = (None, None, false);
        self.people.iter_mut().for_each(|person| person.fate = None);
    }

    fn add(&mut self, conn: ConnId, begun: u64, ended: Option<Moment>) {
        if let Some(person) = self.people.iter_mut().find(|person| person.conn == conn) {
            person.ended = ended;
        } else if self.people.len() < MOST {
            self.people.push(Person { conn, begun, ended, fate: None });
        }
    }

    fn read(&mut self, place: &Place) {
        let epoch = (u64::from(place.conn.index) << 32) | u64::from(place.conn.generation);
        match place.note {
            Note::Numbered => self.numbered = Some((place.at(), epoch)),
            Note::Arrived | Note::Outdated => {
                // Whatever was noted before was of an earlier life of the room.
                self.people.iter_mut().for_each(|person| person.fate = None);
                self.arrived = Some((place.at(), epoch));
                self.outdated = place.note == Note::Outdated;
            }
            Note::Fate(fate) => {
                let at = self.people.binary_search_by_key(&place.conn, |person| person.conn);
                if let Ok(at) = at {
                    self.people[at].fate = Some((fate, place.at()));
                }
            }
            Note::Ended => {}
        }
    }
}

impl Shard {
    /// What a publication is remembered by, if it is.
    pub(super) fn trace(&self, publication: &Publication) -> Trace {
        let outcomes = &self.measures.outcomes;
        if !outcomes.is_on() || publication.to.target != Target::Room {
            return Trace::default();
        }
        outcomes.trace(&self.identity.seed, &publication.room, publication.cursor.offset)
    }

    /// Begins to remember outcomes as the settings say, and forgets those before.
    pub(super) fn remember_outcomes(&mut self, now: Time) {
        let size = self.settings.capacity.outcomes;
        self.measures.outcomes.resize(size, now);
        self.queues.losses.want(size > 0);
    }

    /// As its room's home: a publication was numbered.
    pub(super) fn note_numbered(&mut self, publication: &Publication, now: Time) {
        self.note_publication(publication, Note::Numbered, now);
    }

    /// A publication has come for members here.
    pub(super) fn note_arrival(&mut self, publication: &Publication, now: Time) {
        let note = if publication.is_over(now) { Note::Outdated } else { Note::Arrived };
        self.note_publication(publication, note, now);
    }

    fn note_publication(&mut self, publication: &Publication, note: Note, now: Time) {
        if self.measures.outcomes.is_on() {
            let trace = self.trace(publication);
            self.measures.outcomes.pass(now);
            self.measures.outcomes.note_publication(trace, publication.cursor.epoch, note);
        }
    }

    /// A connection of this age ends.
    pub(super) fn note_end_of(&mut self, id: ConnId, life: Duration, now: Time) {
        let Self { measures, gate, identity, .. } = self;
        if measures.outcomes.is_on() {
            let own = gate.people.get(id.index).map(|person| &**person.own());
            let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
            measures.outcomes.pass(now);
            measures.outcomes.note_end(&identity.seed, id, own, millis);
        }
    }

    /// A connection's queue may have lost something.
    pub(super) fn note_lost(&mut self, id: ConnId) {
        if !self.queues.losses.is_empty() {
            self.measures.outcomes.note_lost(&mut self.queues, id);
        }
    }

    /// Reads on in the ring; the answer at its end.
    pub(super) fn explain(
        &mut self,
        search: Option<Box<Search>>,
        ask: &Explain,
        now: Time,
    ) -> (Option<Box<Search>>, Option<Box<Account>>) {
        if !self.measures.outcomes.is_on() {
            return (None, Some(Box::default()));
        }
        // What has come in this turn is in no queue before.
        self.settle(now);
        let trace =
            Trace { room: outcomes::name(&self.identity.seed, &ask.room), offset: ask.offset };
        let mut search = search.unwrap_or_else(|| Box::new(self.begin_search(ask, now)));
        if !self.search_on(&mut search, trace, ask) {
            return (Some(search), None);
        }
        (None, Some(Box::new(self.account(*search, trace, ask))))
    }

    fn begin_search(&mut self, ask: &Explain, now: Time) -> Search {
        let mut search = Search {
            at: self.measures.outcomes.oldest(),
            fates: false,
            people: Vec::new(),
            numbered: None,
            arrived: None,
            outdated: false,
        };
        let living: Vec<ConnId> = match &ask.of {
            Recipient::User(own) => {
                let members = self.rooms.hub.members(own).iter().take(MOST);
                let indexes: Vec<u32> = members.map(|member| member.conn).collect();
                let ids = indexes.into_iter().filter_map(|at| self.table.at(at).map(|(id, _)| id));
                ids.collect()
            }
            Recipient::Connection(address, tenant) => {
                self.named(address, tenant.as_deref()).into_iter().collect()
            }
        };
        let millis = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        for id in living {
            let life = self.table.age(id, now.tick()).as_millis();
            let begun = millis.saturating_sub(u64::try_from(life).unwrap_or(u64::MAX));
            search.add(id, begun, None);
        }
        search
    }

    /// Reads the next slice; true when that was the last.
    fn search_on(&self, search: &mut Search, trace: Trace, ask: &Explain) -> bool {
        let ring = &self.measures.outcomes;
        if search.at < ring.oldest() {
            search.forget();
            search.at = ring.oldest();
        }
        let end = ring.end().min(search.at + SLICE);
        let user = match &ask.of {
            Recipient::User(own) => Some(outcomes::name(&self.identity.seed, own)),
            Recipient::Connection(..) => None,
        };
        for place in (search.at..end).filter_map(|number| ring.get(number)) {
            if search.fates {
                if place.is_about(trace) {
                    search.read(place);
                }
            } else if self.is_end_of(place, user, &ask.of) {
                let begun = place.at().millis().saturating_sub(place.offset);
                search.add(place.conn, begun, Some(place.at()));
            }
        }
        search.at = end;
        if end < ring.end() {
            return false;
        }
        if search.fates {
            return true;
        }
        search.people.sort_unstable_by_key(|person| person.conn);
        (search.fates, search.at) = (true, ring.oldest());
        false
    }

    fn is_end_of(&self, place: &Place, user: Option<u64>, of: &Recipient) -> bool {
        match (user, of) {
            (Some(user), _) => place.is_end_of(user),
            // Whose it was is not remembered but as a hash, so a tenant's key learns nothing of it.
            (None, Recipient::Connection(address, None)) => {
                self.is_own(address) && place.note == Note::Ended && place.conn == address.conn
            }
            (None, _) => false,
        }
    }

    fn account(&mut self, search: Search, trace: Trace, ask: &Explain) -> Account {
        let started = self.identity.started_unix_ms;
        let unix = |at: Moment| started + at.millis();
        let sighting = |(at, epoch)| Sighting { at: unix(at), epoch };
        let position = self.rooms.directory.position(&ask.room);
        let mut account = Account {
            is_on: true,
            since: unix(self.measures.outcomes.since()),
            numbered: search.numbered.map(sighting),
            arrived: search.arrived.map(sighting),
            outdated: search.outdated,
            position: position.map(|(epoch, offset)| Cursor { epoch, offset }),
            connections: Vec::new(),
        };
        for Person { conn, begun, ended, fate } in search.people {
            let fate = self.fate(conn, trace, fate);
            account.connections.push(Destiny {
                conn: self.address(conn),
                begun: started + begun,
                ended: ended.map(unix),
                fate: fate.map(|(fate, at)| (fate, unix(at))),
            });
        }
        account
    }

    /// What is noted, or what the connection shows itself.
    fn fate(
        &mut self,
        conn: ConnId,
        trace: Trace,
        noted: Option<(Fate, Moment)>,
    ) -> Option<(Fate, Moment)> {
        let queues = &self.queues;
        let connection = self.table.get(conn);
        if let Some((Fate::Writing, at)) = noted {
            let is_writing = connection.is_some_and(|connection| connection.outbound.in_flight());
            return Some((if is_writing { Fate::Writing } else { Fate::CutOff }, at));
        }
        let is_queued = connection.is_some_and(|found| found.outbound.holds(queues, trace));
        if is_queued { Some((Fate::Queued, self.measures.outcomes.now())) } else { noted }
    }
}
