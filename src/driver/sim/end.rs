//! A host's end of a link: what one connection has in flight, and what becomes of it in one turn.
//!
//! Wherever the contract allows a driver more than one course, the generator chooses. The states here
//! are the contract's own; the assertions are its rules for the core.

use crate::base::id::ConnId;
use crate::contract::{Event, SendBatch};

use super::net::World;

/// Pieces of input that one connection may report in one turn.
const READS_A_TURN: usize = 4;

/// An event to be reported once the world is no longer borrowed.
#[derive(Debug)]
pub(super) enum Report {
    Received { conn: ConnId, bytes: Vec<u8> },
    Other(Event<'static>),
}

/// What stage a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// `Lost` was reported.
    Lost,
    /// `Close` was submitted; `Closed` follows in so many turns.
    Closing(u32),
}

/// A write in flight.
#[derive(Debug)]
struct Sending {
    batch: SendBatch,
    bytes: usize,
    /// Turns the completion is put off after the last byte was taken.
    late: u32,
}

/// One connection as its driver sees it.
#[derive(Debug)]
pub(super) struct End {
    conn: ConnId,
    link: usize,
    stage: Stage,
    /// True while the core wants input.
    is_reading: bool,
    /// Input that counts as read already and is reported although reading stopped, or the end closed.
    already_read: Vec<u8>,
    /// True once `ReceivedEnd` was reported.
    is_input_over: bool,
    /// True once the core has asked for the end to be written.
    is_output_over: bool,
    sending: Option<Sending>,
}

impl End {
    pub(super) fn new(conn: ConnId, link: usize) -> Self {
        Self {
            conn,
            link,
            stage: Stage::Open,
            is_reading: true,
            already_read: Vec::new(),
            is_input_over: false,
            is_output_over: false,
            sending: None,
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn link(&self) -> usize {
        self.link
    }

    pub(super) fn send(&mut self, batch: SendBatch, world: &mut World) -> Option<Event<'static>> {
        self.assert_not_closing("Send");
        assert!(!batch.is_done(), "{:?}: an empty batch was submitted", self.conn);
        assert!(self.sending.is_none(), "{:?}: a second batch was submitted", self.conn);
        if self.stage == Stage::Lost {
            return None;
        }
        let bytes = batch.left();
        self.sending = Some(Sending { batch, bytes, late: world.lateness() });
        if self.is_output_over {
            world.links[self.link].broken.get_or_insert(rustix::io::Errno::PIPE);
        }
        self.write(world)
    }

    pub(super) fn shutdown_write(&mut self, world: &mut World) {
        self.assert_not_closing("ShutdownWrite");
        self.is_output_over = true;
        if self.sending.is_none() {
            self.write_end(world);
        }
    }

    pub(super) fn set_reading(&mut self, reading: bool, world: &mut World) {
        self.assert_not_closing("PauseReads or ResumeReads");
        if self.is_reading && !reading && world.chance(world.faults.late) {
            self.already_read.append(&mut self.take(world));
        }
        self.is_reading = reading;
    }

    /// Tells whether input has arrived that was not reported.
    pub(super) fn look(&self, world: &World) -> Option<Event<'static>> {
        self.assert_not_closing("Look");
        let (link, now) = (&world.links[self.link], world.now(self.link));
        let unread = !self.already_read.is_empty()
            || link.broken.is_some()
            || link.inbound.is_readable(now)
            || link.inbound.is_ended(now) && !self.is_input_over;
        (self.stage == Stage::Open).then_some(Event::Looked { conn: self.conn, unread })
    }

    /// Lets go of the link. True when the answer is due at once.
    pub(super) fn close(&mut self, abort: bool, world: &mut World) -> bool {
        self.assert_not_closing("Close");
        let late = world.lateness();
        if late > 0 && self.stage == Stage::Open && self.is_reading && !self.is_input_over {
            self.already_read.append(&mut self.take(world));
        }
        if self.stage == Stage::Lost || late == 0 {
            self.already_read.clear();
            self.sending = None;
        }
        self.stage = Stage::Closing(late);
        let (now, due) = (world.now(self.link), world.due(self.link));
        world.links[self.link].close_server(abort, now, due);
        late == 0
    }

    /// Reports what happens in one turn. True when that ends with `Closed`.
    pub(super) fn turn(&mut self, world: &mut World, reports: &mut Vec<Report>) -> bool {
        match self.stage {
            Stage::Lost => {}
            Stage::Closing(turns) => return self.turn_closing(turns, world, reports),
            Stage::Open => {
                world.strike(self.link);
                let write_first = world.rng.bool();
                if write_first {
                    reports.extend(self.write(world).map(Report::Other));
                }
                self.read(world, reports);
                if !write_first {
                    reports.extend(self.write(world).map(Report::Other));
                }
                self.notice_loss(world, reports);
            }
        }
        false
    }

    /// Late events may come, but none has to, before the last one does.
    fn turn_closing(&mut self, turns: u32, world: &mut World, reports: &mut Vec<Report>) -> bool {
        if !self.already_read.is_empty() && world.rng.bool() {
            let bytes = std::mem::take(&mut self.already_read);
            reports.push(Report::Received { conn: self.conn, bytes });
        }
        if world.rng.bool()
            && let Some(sending) = self.sending.take_if(|sending| sending.batch.is_done())
        {
            reports.push(Report::Other(self.sent(sending)));
        }
        if turns > 1 {
            self.stage = Stage::Closing(turns - 1);
            return false;
        }
        reports.push(Report::Other(Event::Closed { conn: self.conn }));
        true
    }

    /// Hands to the link what it takes; the completion, when it is due.
    fn write(&mut self, world: &mut World) -> Option<Event<'static>> {
        let sending = self.sending.as_mut()?;
        let was_done = sending.batch.is_done();
        if !was_done {
            let link = &world.links[self.link];
            if link.broken.is_some() {
                return None;
            }
            let mut count = sending.batch.left().min(link.outbound.space());
            if world.chance(world.faults.short_write) {
                count = world.rng.usize(0..=count);
            }
            let due = world.due(self.link);
            let bytes = first_bytes(&sending.batch, count);
            sending.batch.advance(count);
            let link = &mut world.links[self.link];
            if link.is_client_gone && count > 0 {
                // The client's host answers with a reset; the bytes are nobody's.
                link.broken = Some(rustix::io::Errno::CONNRESET);
            } else {
                link.outbound.push(bytes, due);
            }
        }
        if !sending.batch.is_done() {
            return None;
        }
        if sending.late > 0 {
            sending.late -= u32::from(was_done);
            if sending.late > 0 {
                return None;
            }
        }
        let sending = self.sending.take()?;
        if self.is_output_over {
            self.write_end(world);
        }
        Some(self.sent(sending))
    }

    fn write_end(&mut self, world: &mut World) {
        let due = world.due(self.link);
        world.links[self.link].outbound.finish(due);
    }

    fn read(&mut self, world: &mut World, reports: &mut Vec<Report>) {
        let conn = self.conn;
        if !self.already_read.is_empty() {
            let bytes = std::mem::take(&mut self.already_read);
            reports.push(Report::Received { conn, bytes });
        }
        // The host reads a broken link to its end, or notices the break first.
        let gives_up = world.links[self.link].broken.is_some() && world.rng.bool();
        if !self.is_reading || self.is_input_over || gives_up {
            return;
        }
        for _ in 0..READS_A_TURN {
            let bytes = self.take(world);
            if bytes.is_empty() {
                break;
            }
            reports.push(Report::Received { conn, bytes });
        }
        if world.links[self.link].inbound.is_ended(world.now(self.link)) {
            self.is_input_over = true;
            reports.push(Report::Other(Event::ReceivedEnd { conn }));
        }
    }

    fn take(&self, world: &mut World) -> Vec<u8> {
        let most = world.rng.usize(1..=world.faults.max_read);
        let now = world.now(self.link);
        world.links[self.link].inbound.take(now, most)
    }

    fn notice_loss(&mut self, world: &mut World, reports: &mut Vec<Report>) {
        let Some(error) = world.links[self.link].error() else { return };
        // One that neither reads nor writes may not notice at once, as no call is there to fail.
        let is_busy = self.is_reading || self.sending.is_some();
        if is_busy || world.rng.bool() {
            self.stage = Stage::Lost;
            self.sending = None;
            reports.push(Report::Other(Event::Lost { conn: self.conn, error }));
        }
    }

    fn sent(&self, sending: Sending) -> Event<'static> {
        let Sending { mut batch, bytes, .. } = sending;
        batch.clear();
        Event::Sent { conn: self.conn, batch, bytes }
    }

    fn assert_not_closing(&self, op: &str) {
        let is_closing = matches!(self.stage, Stage::Closing(_));
        assert!(!is_closing, "{:?}: {op} was submitted after Close", self.conn);
    }
}

/// A copy of the first `count` bytes of what is left of a batch.
fn first_bytes(batch: &SendBatch, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for slice in batch.slices() {
        let more = slice.len().min(count - bytes.len());
        bytes.extend_from_slice(&slice[..more]);
    }
    bytes
}
