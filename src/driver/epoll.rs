//! The contract over epoll: the fallback that runs everywhere.
//!
//! Completions are emulated. A write is tried at once, which nearly always takes everything and ends
//! in `submit` itself; what the socket had no room for is kept and continued when the kernel reports
//! room. Streams are registered once, edge triggered, in both directions, so a short write costs no
//! `epoll_ctl`. Reading is [`super::streams`].
//!
//! Listeners are level triggered and accepted from in bounded bursts, so that a storm of arrivals
//! does not starve those who are in. For want of descriptors or memory they leave the set until the
//! core says otherwise: an epoll loop that keeps a listener it cannot accept from spins.
//!
//! This driver knows nothing of protocols, deadlines or rooms, and it holds no bytes but those of
//! unfinished writes.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::Options;
use super::streams::Streams;
use super::table::{Entry, Facts, conn_of, place, token};
use crate::base::id::ConnId;
use crate::base::outside::Handed;
use crate::contract::{Driver, Event, ListenerId, Op, SendBatch, SocketTicket};
use crate::sys::epoll::{Interest, Poll, Readiness};
use crate::sys::eventfd::WakeSource;
use crate::sys::socket;

/// The driver.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    /// None since `StopAccepting`.
    listeners: Vec<OwnedFd>,
    /// True while the listeners are out of the set for want of descriptors or memory.
    accept_paused: bool,
    /// Sockets that await the core's decision.
    tickets: Slab<OwnedFd>,
    streams: Streams,
    /// Writes that the kernel took in part.
    unfinished: Slab<Unfinished>,
    scratch: Vec<u8>,
    events_per_wait: usize,
    accepts_per_wait: usize,
    _wake: WakeSource,
}

#[derive(Debug)]
struct Unfinished {
    batch: SendBatch,
    /// Bytes of the whole batch.
    total: usize,
}

/// Tokens of what is no connection; a connection's has an index below `u32::MAX` in its upper half.
const WAKE: u64 = u64::MAX;
const LISTENERS: u64 = (u32::MAX as u64) << 32;

/// From how many parts on, and up to how many bytes, a batch is copied together before it is written.
/// Copying that much costs less than the kernel's walk over many small slices.
const COPY_PARTS: usize = 8;
const COPY_BYTES: usize = 64 * 1024;

impl Epoll {
    /// Makes the set and watches the wake-up and the listener.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, or ENOSPC at `fs.epoll.max_user_watches`.
    pub fn new(options: Options) -> io::Result<Self> {
        let poll = Poll::new(options.events_per_wait)?;
        poll.add(options.wake.as_fd(), WAKE, Interest::Wake)?;
        for (listener, token) in options.listeners.iter().zip(LISTENERS..) {
            poll.add(listener.as_fd(), token, Interest::Listener)?;
        }
        Ok(Self {
            poll,
            listeners: options.listeners,
            accept_paused: false,
            tickets: Slab::new(),
            streams: Streams::new(options.connections, options.read_buffer, options.reads_per_turn),
            unfinished: Slab::new(),
            scratch: Vec::new(),
            events_per_wait: options.events_per_wait.max(1),
            accepts_per_wait: options.accepts_per_wait.max(1),
            _wake: options.wake,
        })
    }

    fn open(&mut self, conn: ConnId, ticket: SocketTicket) -> Option<Event<'static>> {
        let socket = self.tickets.remove(ticket.0 as usize);
        self.begin(conn, socket)
    }

    fn begin(&mut self, conn: ConnId, socket: OwnedFd) -> Option<Event<'static>> {
        let entry = self.streams.table.open(conn, socket);
        match self.poll.add(entry.fd(), token(conn), Interest::Stream) {
            Ok(()) => None,
            Err(error) => {
                entry.facts.set(Facts::LOST);
                Some(Event::Lost { conn, error })
            }
        }
    }

    fn send(&mut self, conn: ConnId, mut batch: SendBatch) -> Option<Event<'static>> {
        let entry = self.streams.table.find(conn)?;
        if entry.facts.any(Facts::LOST) {
            return None;
        }
        assert!(!entry.is_sending(), "a second write while one is in flight");
        let total = batch.left();
        match write(entry.fd(), &mut batch, &mut self.scratch) {
            Ok(()) if batch.is_done() => {
                batch.clear();
                Some(Event::Sent { conn, batch, bytes: total })
            }
            Ok(()) => {
                entry.send = place(self.unfinished.insert(Unfinished { batch, total }));
                None
            }
            Err(error) => {
                entry.facts.set(Facts::LOST);
                Some(Event::Lost { conn, error })
            }
        }
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(entry) = self.streams.table.find(conn) {
            if entry.is_sending() {
                entry.facts.set(Facts::FINISH);
            } else {
                socket::finish(entry.fd());
            }
        }
    }

    fn close(&mut self, conn: ConnId, abort: bool) -> Option<Event<'static>> {
        self.drop_unfinished(conn);
        // Closing takes the socket out of the set; readiness of it that was fetched in the same wait
        // is recognised by the generation.
        socket::close(self.streams.table.release(conn)?, abort);
        Some(Event::Closed { conn })
    }

    fn hand_over(&mut self, conn: ConnId) -> Option<Event<'static>> {
        let entry = self.streams.table.find(conn)?;
        assert!(!entry.is_sending(), "a socket is handed over while a write is in flight");
        // It stays open, so it has to be taken out; one that never came in is not there.
        let _ = self.poll.remove(entry.fd());
        let socket = Handed::new(self.streams.table.release(conn)?);
        Some(Event::HandedOver { conn, socket })
    }

    fn drop_unfinished(&mut self, conn: ConnId) {
        if let Some(entry) = self.streams.table.find(conn)
            && entry.is_sending()
        {
            self.unfinished.remove(entry.send as usize);
            entry.send = Entry::NO_SEND;
        }
    }

    fn resume_accept(&mut self) -> Option<Event<'static>> {
        if !std::mem::take(&mut self.accept_paused) {
            return None;
        }
        for (listener, token) in self.listeners.iter().zip(LISTENERS..) {
            if let Err(error) = self.poll.add(listener.as_fd(), token, Interest::Listener) {
                self.pause_accept();
                return Some(Event::AcceptFailed { error });
            }
        }
        None
    }

    /// Takes the listeners out of the set; those that are not in it need no more.
    fn pause_accept(&mut self) {
        self.accept_paused = true;
        for listener in &self.listeners {
            let _ = self.poll.remove(listener.as_fd());
        }
    }

    fn accept(&mut self, at: u8, on_event: &mut dyn FnMut(Event<'_>)) {
        for _ in 0..self.accepts_per_wait {
            // A shortage at another listener in the same wait has stopped this one as well.
            let listener = self.listeners.get(usize::from(at)).filter(|_| !self.accept_paused);
            let Some(listener) = listener else { return };
            match socket::accept(listener) {
                Ok((socket, peer)) => {
                    let socket = SocketTicket(place(self.tickets.insert(socket)));
                    on_event(Event::Accepted { socket, listener: ListenerId(at), peer });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if socket::is_shortage(&error) => {
                    self.pause_accept();
                    return on_event(Event::AcceptFailed { error });
                }
                // The peer left before it was accepted (ECONNABORTED and the network errors that
                // Linux passes on from the new socket); the next one may be well.
                Err(_) => {}
            }
        }
    }

    fn handle_ready(&mut self, ready: Readiness, on_event: &mut dyn FnMut(Event<'_>)) {
        let conn = conn_of(ready.token);
        if ready.readable() {
            self.streams.handle_readable(conn, ready, on_event);
        }
        if ready.writable() {
            self.continue_write(conn, on_event);
        }
    }

    fn continue_write(&mut self, conn: ConnId, on_event: &mut dyn FnMut(Event<'_>)) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if !entry.is_sending() {
            return;
        }
        if entry.facts.any(Facts::LOST) {
            return self.drop_unfinished(conn);
        }
        let write_out = &mut self.unfinished[entry.send as usize];
        match write(entry.fd(), &mut write_out.batch, &mut self.scratch) {
            Ok(()) if write_out.batch.is_done() => {
                let Unfinished { mut batch, total } = self.unfinished.remove(entry.send as usize);
                entry.send = Entry::NO_SEND;
                if entry.facts.any(Facts::FINISH) {
                    socket::finish(entry.fd());
                }
                batch.clear();
                on_event(Event::Sent { conn, batch, bytes: total });
            }
            Ok(()) => {}
            Err(error) => {
                self.drop_unfinished(conn);
                self.streams.lose(conn, error, on_event);
            }
        }
    }
}

impl Driver for Epoll {
    fn submit(&mut self, op: Op) -> Option<Event<'static>> {
        match op {
            Op::Open { conn, socket } => return self.open(conn, socket),
            Op::Adopt { conn, socket } => return self.begin(conn, socket.into_fd()),
            Op::Refuse { socket } => drop(self.tickets.remove(socket.0 as usize)),
            Op::Send { conn, batch } => return self.send(conn, batch),
            Op::ShutdownWrite { conn } => self.finish(conn),
            Op::PauseReads { conn } => self.streams.pause(conn),
            Op::ResumeReads { conn } => self.streams.resume(conn),
            Op::Look { conn } => return self.streams.look(conn, false),
            Op::HandOver { conn } => return self.hand_over(conn),
            Op::Close { conn, abort } => return self.close(conn, abort),
            Op::ResumeAccept => return self.resume_accept(),
            Op::StopAccepting => self.listeners.clear(),
        }
        None
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        let waiting = self.streams.waiting().min(self.events_per_wait);
        let timeout = if waiting > 0 { Some(Duration::ZERO) } else { timeout };
        let count = self.poll.wait(timeout)?;
        for at in 0..count {
            let ready = self.poll.ready(at);
            match ready.token {
                WAKE => {}
                token if token >= LISTENERS => {
                    self.accept(u8::try_from(token - LISTENERS).unwrap_or(u8::MAX), on_event);
                }
                _ => self.handle_ready(ready, on_event),
            }
        }
        self.streams.serve_waiting(waiting, on_event);
        Ok(())
    }

    fn trim(&mut self, from: u32) {
        self.streams.trim(from);
    }
}

/// Writes until all is written or the kernel says that there is no room.
///
/// A short write is not taken for that word. Under `TCP_NOTSENT_LOWAT` a write stops as soon as
/// enough is unsent; the kernel then sends it, and often there is room again before the call
/// returns (on loopback, 45,804 bytes taken and at once 105,488 more). Waiting for the next edge
/// would leave the line idle until the peer's next acknowledgement.
fn write(socket: BorrowedFd<'_>, batch: &mut SendBatch, scratch: &mut Vec<u8>) -> io::Result<()> {
    while !batch.is_done() {
        match write_once(socket, batch, scratch) {
            Ok(written) => batch.advance(written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One write of what comes next, in the form that is cheapest for it.
fn write_once(
    socket: BorrowedFd<'_>,
    batch: &SendBatch,
    scratch: &mut Vec<u8>,
) -> io::Result<usize> {
    let parts = batch.parts();
    if parts > COPY_PARTS && batch.left() <= COPY_BYTES {
        scratch.clear();
        batch.slices().for_each(|slice| scratch.extend_from_slice(slice));
        return socket::write(socket, scratch);
    }
    match batch.slices().next() {
        Some(only) if parts == 1 => socket::write(socket, only),
        _ => {
            let slices: SmallVec<[IoSlice<'_>; 32]> =
                batch.slices().take(socket::MAX_SLICES).map(IoSlice::new).collect();
            socket::write_slices(socket, &slices)
        }
    }
}
