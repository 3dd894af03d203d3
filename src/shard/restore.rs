//! Many rooms joined by one message.
//!
//! Each room is joined as by a message of its own, at its own home, and each answer is acted upon when it
//! comes: were the first to wait for the last, what is published in its room meanwhile would have to wait
//! as well. Only the reply waits, for there is one. So pushes of a room may come before it; what they
//! follow upon is in the reply all the same.
//!
//! A restore under way is a few bytes for each room, and has a question that another shard has yet to
//! answer; so there are no more of them than those questions, which are limited.

use serde_json::value::RawValue;

use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::time::Time;
use crate::session::command::check_return;
use crate::session::encode::{Reply, Restoration, Restored};
use crate::session::{Code, CommandError, Return};
use crate::shard::ledger::Figure;
use crate::shard::mail::{Asked, Joining, Question};
use crate::shard::state::Shard;

/// One message's rooms.
#[derive(Debug)]
struct Restore {
    conn: ConnId,
    reference: Option<Box<RawValue>>,
    rooms: Vec<Part>,
    /// The client has not asked for it and hears of what fails alone.
    is_recall: bool,
    /// Results still to come; never zero.
    left: usize,
}

/// A room, and what became of it, where that is known.
#[derive(Debug)]
struct Part {
    room: Box<str>,
    result: Option<Outcome>,
}

type Outcome = Result<Restoration, (Code, String)>;

impl Restore {
    /// What is told of it now.
    fn results(self) -> Vec<Restored> {
        let unknown = || Err((Code::Overloaded, CLOSING.to_owned()));
        let told =
            |part: Part| Restored { room: part.room, result: part.result.unwrap_or_else(unknown) };
        self.rooms.into_iter().map(told).collect()
    }
}

/// Why a room is not restored whose turn did not come.
const CLOSING: &str = "the connection is closing";

/// The restores under way.
#[derive(Debug)]
pub(super) struct Restores {
    open: Map<u64, Restore>,
    next: u64,
}

impl Restores {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { open: seed.map(), next: 0 }
    }

    /// Restores under way.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn begin(
        &mut self,
        conn: ConnId,
        reference: Option<&RawValue>,
        rooms: &[Return<'_>],
        is_recall: bool,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let part = |one: &Return<'_>| Part { room: one.room.as_ref().into(), result: None };
        let (left, rooms) = (rooms.len(), rooms.iter().map(part).collect());
        let reference = reference.map(RawValue::to_owned);
        self.open.insert(number, Restore { conn, reference, rooms, is_recall, left });
        number
    }

    /// Notes a result; the whole when it was the last.
    fn note(&mut self, (number, part): (u64, u16), result: Outcome) -> Option<Restore> {
        let restore = self.open.get_mut(&number)?;
        let place = restore.rooms.get_mut(usize::from(part))?;
        restore.left -= usize::from(place.result.replace(result).is_none());
        if restore.left > 0 {
            return None;
        }
        self.open.remove(&number)
    }

    /// Ends it before all results are there.
    fn cut(&mut self, number: u64) -> Option<Restore> {
        self.open.remove(&number)
    }
}

impl Shard {
    /// Joins the rooms, each for itself.
    pub(super) fn restore(
        &mut self,
        id: ConnId,
        rooms: Vec<Return<'_>>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let number = self.rooms.restores.begin(id, reference, &rooms, false);
        self.restore_as(number, id, rooms, now);
    }

    /// The same for one who was lost and has come back.
    pub(super) fn restore_recalled(&mut self, id: ConnId, rooms: Vec<Return<'_>>, now: Time) {
        let number = self.rooms.restores.begin(id, None, &rooms, true);
        self.restore_as(number, id, rooms, now);
    }

    fn restore_as(&mut self, number: u64, id: ConnId, rooms: Vec<Return<'_>>, now: Time) {
        for (at, Return { room, since }) in (0_u16..).zip(rooms) {
            let part = (number, at);
            let joined = self.may_go_on(id).and_then(|()| {
                let room = check_return(room, &self.settings.commands)?;
                self.join(id, &room, Joining { since, part: Some(part) }, None, now)
            });
            if let Err(CommandError { code, message, is_excess, .. }) = joined {
                self.counters.command_errors_total += 1;
                self.note_restored(part, Err((code, message)), now);
                if is_excess {
                    self.cut_restoring(number, id, now);
                }
            }
        }
        self.catch_up(id, now);
    }

    /// A connection that begins to close while its rooms are restored joins no more of them.
    fn may_go_on(&mut self, id: ConnId) -> Result<(), CommandError> {
        if self.table.get(id).is_some_and(|connection| connection.open().is_some()) {
            return Ok(());
        }
        Err(CommandError::new(Code::Overloaded, CLOSING, None))
    }

    /// Closes who restores more rooms than it may be in, where that is the rule. The reply is not lost for it: it goes
    /// ahead of the close, and of rooms that are not answered yet it says that the connection is closing.
    fn cut_restoring(&mut self, number: u64, id: ConnId, now: Time) {
        if !self.settings.limits.closes_excess {
            return;
        }
        if let Some(restore) = self.rooms.restores.cut(number) {
            self.reply_restored(restore, now);
        }
        self.close_excess(id, now);
    }

    /// Answers a join that the home, or a change of rights, has made void.
    pub(super) fn refuse_join(
        &mut self,
        question: &Question,
        code: Code,
        message: &str,
        now: Time,
    ) {
        let error = CommandError::new(code, message, question.reference.as_deref());
        if let Asked::Join(Joining { part: Some(part), .. }) = question.asked {
            self.counters.command_errors_total += 1;
            self.measures.ledger.count(question.to.conn.index, Figure::Refused, 1);
            let result = Err((code, error.message));
            self.note_restored(part, result, now);
            if error.is_excess {
                self.cut_restoring(part.0, question.to.conn, now);
            }
            return;
        }
        self.refuse(question.to.conn, &error, now);
    }

    /// Notes what became of one room; after the last the reply is sent.
    pub(super) fn note_restored(
        &mut self,
        part: (u64, u16),
        result: Result<Restoration, (Code, String)>,
        now: Time,
    ) {
        if let Some(done) = self.rooms.restores.note(part, result) {
            self.reply_restored(done, now);
        }
    }

    fn reply_restored(&mut self, mut done: Restore, now: Time) {
        let (conn, reference, is_recall) = (done.conn, done.reference.take(), done.is_recall);
        let results = done.results();
        if !is_recall {
            self.reply(conn, reference.as_deref(), &Reply::Restored(&results), now);
            return;
        }
        if self.table.get(conn).is_some() {
            self.rooms.replays.recalls.arrive(conn.index);
        }
        for Restored { room, result } in &results {
            if let Err((code, message)) = result {
                let message = format!("{room:?} was not joined again: {message}");
                self.refuse(conn, &CommandError::new(*code, message, None), now);
            }
        }
    }
}
