//! The listeners: multishot accept, its pauses and its end.
//!
//! One request per listener accepts until it fails. A shortage of descriptors or memory ends it, the
//! others are cancelled, and none is asked again until the core says so.
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
use crate::contract::{Event, ListenerId, SocketTicket};
use crate::driver::table::place;
use crate::sys::socket;

/// The state of the listeners.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// None since `StopAccepting`.
    listening: Vec<Listening>,
    /// True since a shortage, until the core resumes.
    paused: bool,
}

#[derive(Debug)]
struct Listening {
    listener: OwnedFd,
    /// True while the kernel holds the accept request.
    armed: bool,
}

impl Acceptor {
    /// Takes the listeners over.
    ///
    /// # Errors
    /// When a descriptor is none.
    pub(super) fn new(listeners: Vec<OwnedFd>) -> io::Result<Self> {
        let mut listening = Vec::with_capacity(listeners.len());
        for listener in listeners {
            // Kernels before 6.0 answer an accept on a non-blocking listener with EAGAIN at once.
            socket::set_blocking(&listener)?;
            listening.push(Listening { listener, armed: false });
        }
        Ok(Self { listening, paused: false })
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
        if self.acceptor.paused {
            return;
        }
        for (one, at) in self.acceptor.listening.iter_mut().zip(0..).filter(|(one, _)| !one.armed) {
            one.armed = true;
            let request = opcode::AcceptMulti::new(types::Fd(one.listener.as_raw_fd()));
            // SAFETY: names no memory; the listener is closed only after the last answer.
            unsafe {
                let flags = libc::SOCK_CLOEXEC;
                self.ring.push(Token::listener(at), request.flags(flags).build());
            }
        }
    }

    pub(super) fn handle_accept(&mut self, answer: Answer, on_event: &mut dyn FnMut(Event<'_>)) {
        let at = u8::try_from(answer.token.index).unwrap_or(u8::MAX);
        if let Some(one) = self.acceptor.listening.get_mut(usize::from(at))
            && !answer.more()
        {
            one.armed = false;
        }
        match taken(answer) {
            Ok(socket) => {
                let peer = socket::peer(&socket);
                let socket = SocketTicket(place(self.tickets.insert(socket)));
                on_event(Event::Accepted { socket, listener: ListenerId(at), peer });
            }
            Err(error) if socket::is_shortage(&error) => {
                // The other listeners run into the same shortage; it is said once.
                if !std::mem::replace(&mut self.acceptor.paused, true) {
                    self.cancel_accepts();
                    on_event(Event::AcceptFailed { error });
                }
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
        let listening = std::mem::take(&mut self.acceptor.listening);
        for (_, at) in listening.iter().zip(0..).filter(|(one, _)| one.armed) {
            let accept = Token::listener(at);
            self.ring.cancel_and_reap(accept, |answer| {
                (answer.token == accept).then(|| {
                    drop(taken(answer));
                    !answer.more()
                })
            });
        }
        drop(listening);
    }

    fn cancel_accepts(&mut self) {
        for (_, at) in self.acceptor.listening.iter().zip(0..).filter(|(one, _)| one.armed) {
            let request = opcode::AsyncCancel::new(Token::listener(at).to_bits()).build();
            // SAFETY: a cancellation by token names neither memory nor a descriptor.
            unsafe { self.ring.push(Token::own(Kind::Other), request) };
        }
    }
}
