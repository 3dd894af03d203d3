//! Opening, reading, writing and closing one connection.
//!
//! Every request that the kernel holds for a connection is counted in its entry. A close cancels them
//! all and is done when the count is zero: only then is the descriptor closed, the index free and
//! `Closed` reported, so no answer can ever reach the index's next owner, and no request can reach
//! the descriptor number's next owner.
//!
//! One cancellation may not be enough: the kernel misses a request that it is just retrying, and says so.
//! What was missed, and what else is left, is cancelled when a turn has reaped the cancellation's answer,
//! until nothing is left.
//!
//! Pausing cancels the multishot recv; what it has read by then is delivered still. Resuming while
//! the cancellation is under way does nothing: the request's last answer finds the connection not
//! paused and asks again. A cancellation that hits a request made after it was asked is harmless for
//! the same reason.

#![expect(unsafe_code, reason = "requests to the ring")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};

use super::Idle;
use super::buffers::GROUP;
use super::driver::{Uring, bits};
use super::ring::Answer;
use super::token::{Kind, Token};
use crate::base::id::ConnId;
use crate::base::outside::Handed;
use crate::contract::{Event, SendBatch, SocketTicket};
use crate::driver::table::{Entry, Facts, token};
use crate::sys::epoll::{Interest, Readiness};
use crate::sys::socket;

/// What is reported of a connection no more once one of these holds.
const OVER: Facts = Facts::LOST.and(Facts::CLOSING);

impl Uring {
    pub(super) fn open(&mut self, conn: ConnId, ticket: SocketTicket) -> Option<Event<'static>> {
        let socket = self.tickets.remove(ticket.0 as usize);
        self.begin(conn, socket)
    }

    /// Reads from a socket from now on, as that connection.
    pub(super) fn begin(&mut self, conn: ConnId, socket: OwnedFd) -> Option<Event<'static>> {
        let entry = self.streams.table.open(conn, socket);
        if let Some(set) = &self.set
            && let Err(error) = set.poll.add(entry.fd(), token(conn), Interest::StreamReads)
        {
            entry.facts.set(Facts::LOST);
            return Some(Event::Lost { conn, error });
        }
        self.arm(conn);
        None
    }

    /// Asks for what arrives, if that is wanted and not asked already.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if entry.facts.any(OVER.and(Facts::ARMED).and(Facts::ENDED)) {
            return;
        }
        let fd = types::Fd(entry.fd().as_raw_fd());
        let (kind, request) = match self.idle {
            Idle::MultishotRecv if !entry.facts.any(Facts::PAUSED) => {
                (Kind::Recv, opcode::RecvMulti::new(fd, GROUP).build())
            }
            Idle::MultishotPoll => {
                let interest = bits(libc::POLLIN | libc::POLLRDHUP);
                (Kind::Poll, opcode::PollAdd::new(fd, interest).multi(true).build())
            }
            Idle::MultishotRecv | Idle::EpollSet => return,
        };
        entry.facts.set(Facts::ARMED);
        // SAFETY: names no memory but the provided buffers, which outlive the ring's last answer.
        unsafe { self.ask(conn, kind, request) };
    }

    /// Queues a request for a connection and counts it.
    ///
    /// # Safety
    /// As for `Ring::push`; the descriptor of the connection itself is seen to here.
    unsafe fn ask(&mut self, conn: ConnId, kind: Kind, request: squeue::Entry) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        entry.requests += 1;
        // SAFETY: the memory is the caller's to vouch for; the descriptor is closed only when
        // `requests` is zero.
        unsafe { self.ring.push(Token::of(kind, conn), request) };
    }

    pub(super) fn send(&mut self, conn: ConnId, batch: SendBatch) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if entry.facts.any(OVER) {
            return;
        }
        assert!(!entry.is_sending(), "a second write while one is in flight");
        entry.send = self.sends.begin(batch);
        self.ask_send(conn);
    }

    fn ask_send(&mut self, conn: ConnId) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        let request = self.sends.request(entry.send, entry.fd());
        // SAFETY: what the request names stands in `sends` until `finish`, which is called when the
        // answer has come.
        unsafe { self.ask(conn, Kind::Send, request) };
    }

    pub(super) fn finish(&mut self, conn: ConnId) {
        if let Some(entry) = self.streams.table.find(conn) {
            if entry.is_sending() {
                entry.facts.set(Facts::FINISH);
            } else {
                socket::finish(entry.fd());
            }
        }
    }

    pub(super) fn pause(&mut self, conn: ConnId) {
        self.streams.pause(conn);
        if self.idle == Idle::MultishotRecv {
            self.cancel_recv(conn);
        }
    }

    fn cancel_recv(&mut self, conn: ConnId) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if !entry.facts.any(Facts::ARMED) || entry.facts.any(Facts::CANCELLING) {
            return;
        }
        entry.facts.set(Facts::CANCELLING);
        let recv = Token::of(Kind::Recv, conn).to_bits();
        // SAFETY: a cancellation by token names neither memory nor a descriptor.
        unsafe { self.ask(conn, Kind::Cancel, opcode::AsyncCancel::new(recv).build()) };
    }

    pub(super) fn resume(&mut self, conn: ConnId) {
        self.streams.resume(conn);
        self.arm(conn);
    }

    pub(super) fn close(&mut self, conn: ConnId, abort: bool) -> Option<Event<'static>> {
        let entry = self.streams.table.find(conn)?;
        if entry.facts.any(Facts::CLOSING) {
            return None;
        }
        entry.facts.set(Facts::CLOSING);
        if abort {
            entry.facts.set(Facts::ABORT);
        }
        if entry.requests > 0 {
            self.cancel_next(conn, false);
            return None;
        }
        self.release(conn)
    }

    /// As a close, but that what was read before is still reported and the socket stays open.
    pub(super) fn hand_over(&mut self, conn: ConnId) -> Option<Event<'static>> {
        let entry = self.streams.table.find(conn)?;
        assert!(!entry.is_sending(), "a socket is handed over while a write is in flight");
        entry.facts.set(Facts::HANDING);
        self.close(conn, false)
    }

    /// Cancels one request that the kernel holds of a closing connection, unless a cancellation is under
    /// way; what is left after its answer is cancelled next. By token, which the kernel looks up by hash:
    /// by descriptor it walks all requests of the ring, and a storm of ends took minutes. That look-up
    /// still is most of what an end costs with many connections (there are 256 lists at most), so none is
    /// made in vain: `withdrawn` says that the kernel found what it was last asked to cancel, whose own
    /// answer then comes for certain.
    pub(super) fn cancel_next(&mut self, conn: ConnId, withdrawn: bool) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if entry.requests == 0 || entry.facts.any(Facts::CANCELLING) {
            return;
        }
        let is_armed = entry.facts.any(Facts::ARMED) && !withdrawn;
        let kind = match self.idle {
            Idle::MultishotRecv if is_armed => Kind::Recv,
            Idle::MultishotPoll if is_armed => Kind::Poll,
            _ if entry.is_sending() => Kind::Send,
            _ => return,
        };
        entry.facts.set(Facts::CANCELLING);
        let token = Token::of(kind, conn).to_bits();
        // SAFETY: a cancellation by token names neither memory nor a descriptor.
        unsafe { self.ask(conn, Kind::Cancel, opcode::AsyncCancel::new(token).build()) };
    }

    /// Lets go of a connection that the kernel holds nothing of any more, and says so.
    fn release(&mut self, conn: ConnId) -> Option<Event<'static>> {
        let facts = self.streams.table.find(conn)?.facts;
        if facts.any(Facts::HANDING) {
            if let (Some(set), Some(entry)) = (&self.set, self.streams.table.find(conn)) {
                // A socket that never came in is not there.
                let _ = set.poll.remove(entry.fd());
            }
            let socket = Handed::new(self.streams.table.release(conn)?);
            return Some(Event::HandedOver { conn, socket });
        }
        socket::close(self.streams.table.release(conn)?, facts.any(Facts::ABORT));
        Some(Event::Closed { conn })
    }

    pub(super) fn handle_connection(
        &mut self,
        answer: Answer,
        on_event: &mut dyn FnMut(Event<'_>),
    ) {
        let index = answer.token.index;
        let Some(entry) = self.streams.table.at(index) else {
            unreachable!("an index with requests in flight was released")
        };
        assert!(answer.token.fits(entry.generation), "an answer for a former owner of {index}");
        let conn = ConnId { index, generation: entry.generation };
        if !answer.more() {
            entry.requests -= 1;
            match answer.token.kind {
                Kind::Recv | Kind::Poll => entry.facts.clear(Facts::ARMED),
                Kind::Cancel => entry.facts.clear(Facts::CANCELLING),
                _ => {}
            }
        }
        match answer.token.kind {
            Kind::Recv => self.handle_recv(conn, answer, on_event),
            Kind::Poll => self.handle_poll(conn, answer, on_event),
            Kind::Send => self.handle_send(conn, answer, on_event),
            _ => self.handle_cancel(conn),
        }
        let Some(entry) = self.streams.table.find(conn) else { return };
        if !entry.facts.any(Facts::CLOSING) {
            return;
        }
        if entry.requests == 0 {
            if let Some(event) = self.release(conn) {
                on_event(event);
            }
        } else if answer.token.kind == Kind::Cancel {
            self.closing.push((conn, answer.outcome().is_ok()));
        }
    }

    fn handle_recv(&mut self, conn: ConnId, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        let mute = entry.facts.any(OVER.and(Facts::ENDED));
        // Whoever goes on with the socket will not find again what the kernel has taken out of it.
        let is_wanted = !mute || entry.facts.any(Facts::HANDING);
        let outcome = answer.outcome();
        if let (Some(id), Some(buffers)) = (answer.buffer(), &mut self.buffers) {
            if let Ok(length @ 1..) = outcome
                && is_wanted
            {
                on_event(Event::Received { conn, bytes: buffers.filled(id, length) });
            }
            buffers.give_back(id);
        }
        match outcome {
            Ok(0) if !mute => {
                entry.facts.set(Facts::ENDED);
                on_event(Event::ReceivedEnd { conn });
            }
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // Asked again at the end of the turn, when the buffers are back.
                Some(libc::ENOBUFS) => return self.starved.push(conn),
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                _ => self.streams.lose(conn, error, on_event),
            },
        }
        self.arm(conn);
    }

    fn handle_poll(&mut self, conn: ConnId, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        match answer.outcome() {
            Ok(found) => {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                let ready = Readiness::from_poll(token(conn), found);
                self.streams.handle_readable(conn, ready, on_event);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                _ => self.streams.lose(conn, error, on_event),
            },
        }
        self.arm(conn);
    }

    fn handle_send(&mut self, conn: ConnId, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        let over = entry.facts.any(OVER);
        let outcome = match answer.outcome() {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
        let again = match &outcome {
            Ok(bytes) => self.sends.advance(entry.send, *bytes),
            Err(error) => matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)),
        };
        if again && !over {
            return self.ask_send(conn);
        }
        let (batch, bytes) = self.sends.finish(entry.send);
        entry.send = Entry::NO_SEND;
        match outcome {
            _ if over => {}
            Ok(_) => {
                if entry.facts.any(Facts::FINISH) {
                    socket::finish(entry.fd());
                }
                on_event(Event::Sent { conn, batch, bytes });
            }
            Err(error) => self.streams.lose(conn, error, on_event),
        }
    }

    /// A recv that was asked while its predecessor was being cancelled may have outlived a pause.
    fn handle_cancel(&mut self, conn: ConnId) {
        let Some(entry) = self.streams.table.find(conn) else { return };
        if entry.facts.any(Facts::PAUSED) && !entry.facts.any(Facts::CLOSING) {
            self.cancel_recv(conn);
        }
    }
}
