//! The listener: multishot accept, its pauses and its end.
//!
//! One request accepts until it fails. A shortage of descriptors or memory ends it, and it is not
//! asked again until the core says so.
//!
//! An answer to this request carries a descriptor that nobody else knows; whoever drops the answer
//! must close it. So the end of accepting is awaited: the request is cancelled, its last answer is
//! reaped, sockets that slipped in are closed, and only then the listener is. A listener closed under
//! a pending accept stays bound until the kernel gets round to it, and the next process on the port
//! would be refused.

#![expect(unsafe_code, reason = "descriptors made by the kernel, requests to the ring")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, types};

use super::driver::Uring;
use super::ring::Answer;
use super::token::{Kind, Token};
use crate::contract::{Event, SocketTicket};
use crate::driver::table::place;
use crate::sys::socket;

/// The state of the listener.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// `None` from the start or since `StopAccepting`.
    listener: Option<OwnedFd>,
    /// True while the kernel holds the accept request.
    armed: bool,
    /// True since a shortage, until the core resumes.
    paused: bool,
}

impl Acceptor {
    /// Takes the listener over.
    ///
    /// # Errors
    /// When the descriptor is none.
    pub(super) fn new(listener: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(listener) = &listener {
            // Kernels before 6.0 answer an accept on a non-blocking listener with EAGAIN at once.
            socket::set_blocking(listener)?;
        }
        Ok(Self { listener, armed: false, paused: false })
    }
}

/// The socket that an answer to the accept request carries.
pub(super) fn taken(answer: Answer) -> io::Result<OwnedFd> {
    answer.outcome()?;
    // SAFETY: the kernel opened this descriptor for us just now and named it in this answer only.
    Ok(unsafe { OwnedFd::from_raw_fd(answer.result) })
}

impl Uring {
    pub(super) fn arm_accept(&mut self) {
        let Acceptor { listener, armed, paused } = &mut self.acceptor;
        let Some(listener) = listener.as_ref().filter(|_| !*armed && !*paused) else { return };
        *armed = true;
        let request = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()));
        // SAFETY: names no memory; the listener is closed only after the last answer.
        unsafe {
            let flags = libc::SOCK_CLOEXEC;
            self.ring.push(Token::own(Kind::Accept), request.flags(flags).build());
        }
    }

    pub(super) fn handle_accept(&mut self, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        if !answer.more() {
            self.acceptor.armed = false;
        }
        match taken(answer) {
            Ok(socket) => {
                let peer = socket::peer(&socket);
                let socket = SocketTicket(place(self.tickets.insert(socket)));
                on_event(Event::Accepted { socket, peer });
            }
            Err(error) if socket::is_shortage(&error) => {
                self.acceptor.paused = true;
                if self.acceptor.armed {
                    self.cancel_accept();
                }
                on_event(Event::AcceptFailed { error });
            }
            // The peer left before it was accepted, or the request was cancelled.
            Err(_) => {}
        }
        self.arm_accept();
    }

    pub(super) fn resume_accept(&mut self) {
        self.acceptor.paused = false;
        self.arm_accept();
    }

    pub(super) fn stop_accepting(&mut self) {
        let Some(listener) = self.acceptor.listener.take() else { return };
        if self.acceptor.armed {
            let accept = Token::own(Kind::Accept);
            self.acceptor.armed = !self.ring.cancel_and_reap(accept, |answer| {
                (answer.token.kind == Kind::Accept).then(|| {
                    drop(taken(answer));
                    !answer.more()
                })
            });
        }
        drop(listener);
    }

    fn cancel_accept(&mut self) {
        let request = opcode::AsyncCancel::new(Token::own(Kind::Accept).to_bits()).build();
        // SAFETY: a cancellation by token names neither memory nor a descriptor.
        unsafe { self.ring.push(Token::own(Kind::Other), request) };
    }
}
