//! Reading by readiness: the half that epoll and the polling forms of io_uring have in common.
//!
//! Readiness is reported once per change (edge triggered), so it is remembered until it has been
//! read up: a paused connection keeps it for the day it is resumed, and a connection with more to
//! read than its share of a turn waits in a list for the next. All connections of a shard read into
//! one buffer, which is lent to the handler and taken back when it returns; an idle connection has
//! none.
//!
//! A read that does not fill the buffer has emptied the socket, and what comes later is a new edge:
//! that saves the second read that would say `WouldBlock`. The exception is an end or an error that
//! is known to stand behind the bytes (no further edge will announce it), so then reading goes on.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use super::table::{Facts, Table};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::sys::epoll::Readiness;
use crate::sys::socket;

/// What stands between a ready socket and the core.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) table: Table,
    /// Connections that had more to read than their share; each at most once.
    waiting: VecDeque<ConnId>,
    buffer: Box<[u8]>,
    /// Reads per connection and turn.
    share: usize,
}

/// Connections for whose waiting memory is kept.
const KEPT: usize = 64;

/// How a bounded read ended.
enum Outcome {
    /// Nothing is left.
    Dry,
    /// The share is used up; there may be more.
    More,
    End,
    Failed(io::Error),
}

impl Streams {
    pub(super) fn new(connections: usize, buffer: usize, share: usize) -> Self {
        Self {
            table: Table::new(connections),
            waiting: VecDeque::new(),
            buffer: vec![0; buffer.max(1)].into_boxed_slice(),
            share: share.max(1),
        }
    }

    /// Whether something of the peer's lies unread: in the kernel, or, where the driver knows of some already,
    /// `elsewhere`.
    pub(super) fn look(&mut self, conn: ConnId, elsewhere: bool) -> Option<Event<'static>> {
        let entry = self.table.find(conn).filter(|entry| !entry.facts.any(Facts::LOST))?;
        let is_over = entry.facts.any(Facts::ENDED);
        let unread = elsewhere || !is_over && socket::is_readable(entry.fd());
        Some(Event::Looked { conn, unread })
    }

    /// Gives back what connections from index `from` on have cost.
    pub(super) fn trim(&mut self, from: u32) {
        self.table.trim(from as usize);
        self.waiting.shrink_to(KEPT);
    }

    /// How many can be read from without waiting for the kernel; those that join during a turn are
    /// served in the next.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Serves the `count` that have waited longest.
    pub(super) fn serve_waiting(&mut self, count: usize, on_event: &mut dyn FnMut(Event<'_>)) {
        for _ in 0..count {
            let Some(conn) = self.waiting.pop_front() else { return };
            if let Some(entry) = self.table.find(conn) {
                entry.facts.clear(Facts::QUEUED);
                self.serve(conn, on_event);
            }
        }
    }

    /// The kernel reported that a connection has something to read.
    pub(super) fn handle_readable(
        &mut self,
        conn: ConnId,
        ready: Readiness,
        on_event: &mut dyn FnMut(Event<'_>),
    ) {
        let Some(entry) = self.table.find(conn) else { return };
        entry.facts.set(Facts::READABLE);
        if ready.ending() {
            entry.facts.set(Facts::ENDING);
        }
        // Nobody reads from these, so nobody would find the failure by reading.
        let unread = entry.facts.any(Facts::PAUSED.and(Facts::ENDED));
        if unread && ready.failed() {
            if let Some(error) = socket::failure(entry.fd()) {
                self.lose(conn, error, on_event);
            }
        } else {
            self.serve(conn, on_event);
        }
    }

    /// Reports the connection as lost, unless that was done already.
    pub(super) fn lose(
        &mut self,
        conn: ConnId,
        error: io::Error,
        on_event: &mut dyn FnMut(Event<'_>),
    ) {
        let Some(entry) = self.table.find(conn) else { return };
        if !entry.facts.any(Facts::LOST.and(Facts::CLOSING)) {
            entry.facts.set(Facts::LOST);
            on_event(Event::Lost { conn, error });
        }
    }

    pub(super) fn pause(&mut self, conn: ConnId) {
        if let Some(entry) = self.table.find(conn) {
            entry.facts.set(Facts::PAUSED);
        }
    }

    /// Reads again; what became readable meanwhile is served in the next turn.
    pub(super) fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.table.find(conn) else { return };
        entry.facts.clear(Facts::PAUSED);
        if entry.facts.any(Facts::READABLE) {
            self.enqueue(conn);
        }
    }

    fn enqueue(&mut self, conn: ConnId) {
        let Some(entry) = self.table.find(conn) else { return };
        if !entry.facts.any(Facts::QUEUED) {
            entry.facts.set(Facts::QUEUED);
            self.waiting.push_back(conn);
        }
    }

    /// Reads one share, if the connection is to be read from.
    fn serve(&mut self, conn: ConnId, on_event: &mut dyn FnMut(Event<'_>)) {
        const MUTE: Facts = Facts::PAUSED.and(Facts::ENDED).and(Facts::LOST.and(Facts::CLOSING));
        let Some(entry) = self.table.find(conn) else { return };
        if entry.facts.any(MUTE) {
            return;
        }
        let until_end = entry.facts.any(Facts::ENDING);
        let mut outcome = Outcome::More;
        for _ in 0..self.share {
            match socket::read(entry.fd(), &mut self.buffer) {
                Ok(0) => outcome = Outcome::End,
                Ok(length) => {
                    on_event(Event::Received { conn, bytes: &mut self.buffer[..length] });
                    if length == self.buffer.len() || until_end {
                        continue;
                    }
                    outcome = Outcome::Dry;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => outcome = Outcome::Dry,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => outcome = Outcome::Failed(error),
            }
            break;
        }
        match outcome {
            Outcome::Dry => entry.facts.clear(Facts::READABLE.and(Facts::ENDING)),
            Outcome::More => self.enqueue(conn),
            Outcome::End => {
                entry.facts.clear(Facts::READABLE);
                entry.facts.set(Facts::ENDED);
                on_event(Event::ReceivedEnd { conn });
            }
            Outcome::Failed(error) => self.lose(conn, error, on_event),
        }
    }
}
