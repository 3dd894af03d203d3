//! The driver: one listener and the connections accepted from it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use slab::Slab;

use super::end::{End, Report};
use super::net::{World, address};
use crate::base::id::ConnId;
use crate::contract::{Driver, Event, Op, SocketTicket};

/// Sockets accepted in one turn.
const ACCEPTS_A_TURN: usize = 64;

/// Turns that pass when a driver is dropped: more than any delay, and far from overflow.
const AFTERLIFE: u64 = 1 << 40;

/// A host of the network, as the contract has it. Dropping it resets all it holds, as a process that
/// is killed leaves its peers.
#[derive(Debug)]
pub struct SimDriver {
    world: Rc<RefCell<World>>,
    /// Its number in the network.
    host: usize,
    /// False from a failed accept until the core resumes.
    is_accepting: bool,
    /// Links that wait for the core's decision, by ticket.
    tickets: Slab<usize>,
    /// Connections, by index.
    ends: Vec<Option<End>>,
}

impl SimDriver {
    pub(super) fn new(world: Rc<RefCell<World>>, host: usize) -> Self {
        Self { world, host, is_accepting: true, tickets: Slab::new(), ends: Vec::new() }
    }

    /// Connections not yet closed.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.ends.iter().flatten().count()
    }

    fn open(&mut self, conn: ConnId, socket: SocketTicket) {
        let link = self.redeem(socket);
        if self.ends.len() <= conn.key() {
            self.ends.resize_with(conn.key() + 1, || None);
        }
        let place = &mut self.ends[conn.key()];
        assert!(place.is_none(), "{conn:?} was opened in a place not yet closed");
        *place = Some(End::new(conn, link));
    }

    fn refuse(&mut self, socket: SocketTicket) {
        let link = self.redeem(socket);
        let mut world = self.world.borrow_mut();
        let (now, due) = (world.now(link), world.due(link));
        world.links[link].close_server(false, now, due);
    }

    fn redeem(&mut self, socket: SocketTicket) -> usize {
        let ticket = self.tickets.try_remove(socket.0 as usize);
        ticket.unwrap_or_else(|| panic!("{socket:?} is no ticket, or was answered before"))
    }

    fn close(&mut self, conn: ConnId, abort: bool) -> Option<Event<'static>> {
        let is_closed = self.with(conn, |end, world| end.close(abort, world));
        is_closed.then(|| {
            self.ends[conn.key()] = None;
            Event::Closed { conn }
        })
    }

    fn with<T>(&mut self, conn: ConnId, act: impl FnOnce(&mut End, &mut World) -> T) -> T {
        let place = self.ends.get_mut(conn.key()).and_then(Option::as_mut);
        let end = place.filter(|end| end.conn() == conn);
        let end = end.unwrap_or_else(|| panic!("{conn:?} is not open, and an operation named it"));
        act(end, &mut self.world.borrow_mut())
    }

    fn stop_accepting(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let host = &mut world.hosts[self.host];
        host.is_listening = false;
        for link in host.backlog.drain(..) {
            world.links[link].close_server(true, host.turn, host.turn);
        }
    }

    fn accept(&mut self, reports: &mut Vec<Report>) {
        let world = &mut *self.world.borrow_mut();
        for _ in 0..ACCEPTS_A_TURN {
            if !self.is_accepting || world.hosts[self.host].backlog.is_empty() {
                return;
            }
            if world.chance(world.faults.accept_failure) {
                self.is_accepting = false;
                let error = if world.rng.bool() { Errno::MFILE } else { Errno::NOBUFS };
                reports.push(Report::Other(Event::AcceptFailed { error: error.into() }));
                return;
            }
            let Some(link) = world.hosts[self.host].backlog.pop_front() else { return };
            let is_broken = world.links[link].broken.is_some();
            if is_broken && world.rng.bool() {
                // The kernel dropped it from the queue (ECONNABORTED), which a driver passes over.
                world.links[link].is_server_gone = true;
                continue;
            }
            let ticket = u32::try_from(self.tickets.insert(link)).unwrap_or_else(|_| {
                panic!("more than {} sockets wait for the core's decision", u32::MAX)
            });
            let socket = SocketTicket(ticket);
            let peer = (!is_broken).then(|| address(link));
            let listener = world.links[link].listener;
            reports.push(Report::Other(Event::Accepted { socket, listener, peer }));
        }
    }
}

impl Driver for SimDriver {
    fn submit(&mut self, op: Op) -> Option<Event<'static>> {
        match op {
            Op::Open { conn, socket } => self.open(conn, socket),
            Op::Adopt { conn, .. } => unreachable!("{conn:?}: nobody lets go of a socket here"),
            Op::Refuse { socket } => self.refuse(socket),
            Op::Send { conn, batch } => {
                return self.with(conn, |end, world| end.send(batch, world));
            }
            Op::ShutdownWrite { conn } => self.with(conn, End::shutdown_write),
            Op::PauseReads { conn } => {
                self.with(conn, |end, world| end.set_reading(false, world));
            }
            Op::ResumeReads { conn } => {
                self.with(conn, |end, world| end.set_reading(true, world));
            }
            Op::Look { conn } => return self.with(conn, |end, world| end.look(world)),
            // There is no socket that anybody could go on with.
            Op::HandOver { conn } => return self.close(conn, true),
            Op::Close { conn, abort } => return self.close(conn, abort),
            Op::ResumeAccept => self.is_accepting = true,
            Op::StopAccepting => self.stop_accepting(),
        }
        None
    }

    fn trim(&mut self, from: u32) {
        let rest = self.ends.iter().skip(from as usize);
        assert!(rest.flatten().next().is_none(), "a connection from index {from} on is open");
        self.ends.truncate(from as usize);
    }

    /// One turn. Never blocks and ignores the timeout.
    fn wait(
        &mut self,
        _timeout: Option<Duration>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        let mut reports = Vec::new();
        self.world.borrow_mut().hosts[self.host].turn += 1;
        self.accept(&mut reports);
        {
            let world = &mut *self.world.borrow_mut();
            let mut order: Vec<usize> =
                (0..self.ends.len()).filter(|index| self.ends[*index].is_some()).collect();
            world.rng.shuffle(&mut order);
            for index in order {
                let place = &mut self.ends[index];
                if place.as_mut().is_some_and(|end| end.turn(world, &mut reports)) {
                    *place = None;
                }
            }
        }
        for report in reports {
            match report {
                Report::Received { conn, mut bytes } => {
                    on_event(Event::Received { conn, bytes: &mut bytes });
                }
                Report::Other(event) => on_event(event),
            }
        }
        Ok(())
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.stop_accepting();
        let world = &mut *self.world.borrow_mut();
        let now = world.hosts[self.host].turn;
        let held = self.ends.iter().flatten().map(End::link);
        for link in held.chain(self.tickets.iter().map(|(_, link)| *link)) {
            world.links[link].close_server(true, now, now);
        }
        // No more turns will be counted here, and what was under way still has to arrive.
        world.hosts[self.host].turn += AFTERLIFE;
    }
}
