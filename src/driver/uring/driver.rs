//! The driver: operations in, completions out.
//!
//! `submit` only queues requests; `wait` hands all of them down and sleeps in the same system call,
//! then reports what was answered. What concerns the listener is in `accept`, what concerns one
//! connection in `connections`; here stand the loop, the wake-up and the end.
//!
//! At its end the driver cancels everything and waits until the kernel has answered, because answers
//! may still be written into buffers it owns. Should the kernel not answer within five seconds, the
//! buffers are leaked: wasted memory is a lesser evil than memory somebody else writes to.

#![expect(unsafe_code, reason = "requests to the ring")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};
use slab::Slab;

use super::accept::{Acceptor, taken};
use super::buffers::Buffers;
use super::ring::{Answer, Ring};
use super::sends::Sends;
use super::token::{Kind, Token};
use super::{Idle, Options as Sizes};
use crate::base::id::ConnId;
use crate::contract::{Driver, Event, Op};
use crate::driver::Options;
use crate::driver::streams::Streams;
use crate::driver::table::conn_of;
use crate::sys::epoll::Poll;
use crate::sys::eventfd::WakeSource;
use crate::sys::socket;

/// The driver. Belongs to the thread that made it.
pub struct Uring {
    // Declared first, dropped first: what the kernel was lent outlives the ring.
    pub(super) ring: Ring,
    pub(super) sends: Sends,
    /// `None` in the polling forms.
    pub(super) buffers: Option<Buffers>,
    pub(super) streams: Streams,
    pub(super) acceptor: Acceptor,
    /// Sockets that await the core's decision.
    pub(super) tickets: Slab<OwnedFd>,
    /// Connections whose multishot recv ended because no buffer was free.
    pub(super) starved: Vec<ConnId>,
    /// Connections whose close found requests that its cancellation may have missed.
    pub(super) closing: Vec<(ConnId, bool)>,
    pub(super) idle: Idle,
    pub(super) set: Option<Set>,
    wake: WakeSource,
    events_per_wait: usize,
}

/// The epoll set of [`Idle::EpollSet`].
pub(super) struct Set {
    pub(super) poll: Poll,
    /// True when the set may hold readiness that was not fetched.
    ready: bool,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Uring {
    /// Makes the ring for the calling thread and arms the wake-up and the listeners.
    ///
    /// # Errors
    /// What [`probe`](super::probe()) explains; EMFILE, ENFILE, ENOMEM.
    pub fn new(options: Options) -> io::Result<Self> {
        let Sizes { entries, buffers, buffer_bytes, idle } = options.uring;
        let ring = Ring::new(entries)?;
        let (buffers, set) = match idle {
            Idle::MultishotRecv => (Some(Buffers::new(&ring, buffers, buffer_bytes)?), None),
            Idle::MultishotPoll => (None, None),
            Idle::EpollSet => {
                (None, Some(Set { poll: Poll::new(options.events_per_wait)?, ready: false }))
            }
        };
        let mut driver = Self {
            ring,
            sends: Sends::default(),
            buffers,
            streams: Streams::new(options.connections, options.read_buffer, options.reads_per_turn),
            acceptor: Acceptor::new(options.listeners)?,
            tickets: Slab::new(),
            starved: Vec::new(),
            closing: Vec::new(),
            idle,
            set,
            wake: options.wake,
            events_per_wait: options.events_per_wait.max(1),
        };
        driver.arm_poll(Kind::Wake);
        if driver.set.is_some() {
            driver.arm_poll(Kind::Set);
        }
        driver.arm_accept();
        Ok(driver)
    }

    /// Watches one of the driver's own descriptors; each change is answered once.
    fn arm_poll(&mut self, kind: Kind) {
        let fd: BorrowedFd<'_> = match (&self.set, kind) {
            (Some(set), Kind::Set) => set.poll.as_fd(),
            _ => self.wake.as_fd(),
        };
        let request = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), bits(libc::POLLIN));
        // SAFETY: a poll names no memory; both descriptors live as long as the driver, whose end
        // waits for the answer.
        unsafe { self.ring.push(Token::own(kind), request.multi(true).build()) };
    }

    fn handle_answer(&mut self, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        match answer.token.kind {
            Kind::Accept => self.handle_accept(answer, on_event),
            Kind::Wake | Kind::Set => {
                if let (Kind::Set, Some(set)) = (answer.token.kind, &mut self.set) {
                    set.ready = true;
                }
                if !answer.more() {
                    self.arm_poll(answer.token.kind);
                }
            }
            Kind::Recv | Kind::Poll | Kind::Send | Kind::Cancel => {
                self.handle_connection(answer, on_event);
            }
            Kind::Other => {}
        }
    }

    /// Fetches what is ready in the epoll set and reads it.
    fn serve_set(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let Some(set) = self.set.as_mut().filter(|set| set.ready) else { return Ok(()) };
        let count = set.poll.wait(Some(Duration::ZERO))?;
        // A list that came back full may have left some behind, for which no new edge comes.
        set.ready = count == self.events_per_wait;
        for at in 0..count {
            let ready = set.poll.ready(at);
            let conn = conn_of(ready.token);
            self.streams.handle_readable(conn, ready, on_event);
        }
        Ok(())
    }
}

impl Driver for Uring {
    fn submit(&mut self, op: Op) -> Option<Event<'static>> {
        match op {
            Op::Open { conn, socket } => return self.open(conn, socket),
            Op::Adopt { conn, socket } => return self.begin(conn, socket.into_fd()),
            Op::Refuse { socket } => drop(self.tickets.remove(socket.0 as usize)),
            Op::Send { conn, batch } => self.send(conn, batch),
            Op::ShutdownWrite { conn } => self.finish(conn),
            Op::PauseReads { conn } => self.pause(conn),
            Op::ResumeReads { conn } => self.resume(conn),
            // An answer that was not looked at yet may be of anybody's bytes.
            Op::Look { conn } => return self.streams.look(conn, self.ring.has_answers()),
            Op::HandOver { conn } => return self.hand_over(conn),
            Op::Close { conn, abort } => return self.close(conn, abort),
            Op::ResumeAccept => self.resume_accept(),
            Op::StopAccepting => self.stop_accepting(),
        }
        None
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        let waiting = self.streams.waiting().min(self.events_per_wait);
        let at_once = waiting > 0 || self.set.as_ref().is_some_and(|set| set.ready);
        self.ring.enter(if at_once { Some(Duration::ZERO) } else { timeout })?;
        for _ in 0..self.events_per_wait {
            let Some(answer) = self.ring.reap() else { break };
            self.handle_answer(answer, on_event);
        }
        self.serve_set(on_event)?;
        self.streams.serve_waiting(waiting, on_event);
        // By now every buffer lent in this turn is back.
        for conn in std::mem::take(&mut self.starved) {
            self.arm(conn);
        }
        for (conn, withdrawn) in std::mem::take(&mut self.closing) {
            self.cancel_next(conn, withdrawn);
        }
        Ok(())
    }

    fn trim(&mut self, from: u32) {
        self.streams.trim(from);
        self.sends.trim();
        self.ring.trim();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let answered = self.ring.wind_up(|answer| {
            if answer.token.kind == Kind::Accept {
                drop(taken(answer));
            }
        });
        if !answered {
            std::mem::forget(self.buffers.take());
            std::mem::forget(std::mem::take(&mut self.sends));
        }
        for socket in self.tickets.drain() {
            socket::close(socket, true);
        }
    }
}

/// The bits of `poll(2)` as a request takes them.
pub(super) fn bits(poll: libc::c_short) -> u32 {
    u32::from(poll.cast_unsigned())
}
