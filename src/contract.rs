//! What a core and a kernel say to each other, and nothing else.
//!
//! Completions are the contract: the core submits an [`Op`], and some time later the driver reports an
//! [`Event`]. io_uring works that way by itself; epoll and the simulator emulate it. The rules, which
//! the contract tests hold against every driver:
//!
//! - After [`Event::Accepted`] the core answers with [`Op::Open`] or [`Op::Refuse`] for that ticket.
//! - After [`Op::Open`] the driver reads from the connection until [`Op::PauseReads`], end of stream,
//!   failure or [`Op::Close`]. A paused connection may still deliver what had been read already.
//! - At most one [`Op::Send`] is in flight per connection. It ends in [`Event::Sent`] with the whole
//!   batch taken by the kernel, or in [`Event::Lost`] or [`Event::Closed`] and the batch is dropped.
//! - [`Event::ReceivedEnd`] comes at most once, after the last [`Event::Received`]; writing is still
//!   possible.
//! - [`Event::Lost`] comes at most once; no other event but [`Event::Closed`] follows it. The core
//!   still has to submit [`Op::Close`].
//! - [`Op::Close`] is always answered by one [`Event::Closed`], the last event of that connection. Only
//!   then may the index be used again. Between the two the core accepts and ignores late events.
//! - [`Op::Look`] is answered at once, unless the connection was reported lost.
//! - [`Op::HandOver`] is submitted while no write is in flight, and nothing else after it. It is answered by
//!   [`Event::HandedOver`], the last event of that connection, or by [`Event::Closed`] where a driver's sockets are
//!   none that anybody else could use. Between the two only [`Event::Received`] may come; the peer's end and a
//!   failure are for the new owner to find.
//! - After [`Op::Adopt`] all is as after [`Op::Open`]. What has arrived before is reported, be it bytes, the peer's end
//!   or a failure.
//! - Submitting [`Op::Send`], [`Op::ShutdownWrite`] or a pause for a connection that the driver has
//!   already reported lost is allowed and ignored.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::ConnId;
use crate::base::outside::Handed;
use crate::base::shared::Shared;

/// A socket that was accepted and awaits the core's decision. Names a place in the driver's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketTicket(pub u32);

/// A listener, by its place among those the driver was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// What the kernel reports.
#[derive(Debug)]
pub enum Event<'a> {
    /// A socket arrived on a listener.
    Accepted {
        /// To be answered by [`Op::Open`] or [`Op::Refuse`].
        socket: SocketTicket,
        /// Where it arrived.
        listener: ListenerId,
        /// The remote end; `None` when the kernel no longer knows it.
        peer: Option<SocketAddr>,
    },
    /// The kernel refused a socket for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM).
    /// The driver has stopped accepting, on all listeners, until [`Op::ResumeAccept`].
    AcceptFailed {
        /// What the kernel said.
        error: io::Error,
    },
    /// Bytes arrived. They are lent: the handler may change them in place and must not keep them.
    Received {
        /// The connection.
        conn: ConnId,
        /// Never empty.
        bytes: &'a mut [u8],
    },
    /// The peer will send nothing more (its FIN arrived).
    ReceivedEnd {
        /// The connection.
        conn: ConnId,
    },
    /// The kernel took the whole batch. It comes back empty so that its memory can be used again.
    Sent {
        /// The connection.
        conn: ConnId,
        /// The batch, emptied by the driver.
        batch: SendBatch,
        /// How many bytes the kernel took.
        bytes: usize,
    },
    /// Reading or writing failed for good (reset, timed out by `TCP_USER_TIMEOUT`, ...).
    Lost {
        /// The connection.
        conn: ConnId,
        /// What the kernel said.
        error: io::Error,
    },
    /// The answer to [`Op::Look`].
    Looked {
        /// The connection.
        conn: ConnId,
        /// True when bytes of the peer's, its end or a failure may have arrived that no event has told of yet.
        unread: bool,
    },
    /// The socket is the driver's no more, and nothing of the connection is in flight any more.
    HandedOver {
        /// The connection.
        conn: ConnId,
        /// The socket, open as it was; whether calls on it wait is the driver's own affair and not to be relied on.
        socket: Handed,
    },
    /// The descriptor is closed and nothing of the connection is in flight any more.
    Closed {
        /// The connection.
        conn: ConnId,
    },
}

/// What a core asks of the kernel.
#[derive(Debug)]
pub enum Op {
    /// Adopt the accepted socket as `conn` and start reading.
    Open {
        /// The connection's identity from now on.
        conn: ConnId,
        /// The ticket from [`Event::Accepted`].
        socket: SocketTicket,
    },
    /// Go on with a socket that a driver of the same kind has let go of, as `conn`, and start reading.
    Adopt {
        /// The connection's identity from now on.
        conn: ConnId,
        /// The socket, from [`Event::HandedOver`].
        socket: Handed,
    },
    /// Close the accepted socket unseen.
    Refuse {
        /// The ticket from [`Event::Accepted`].
        socket: SocketTicket,
    },
    /// Write the batch.
    Send {
        /// The connection.
        conn: ConnId,
        /// What to write; never empty.
        batch: SendBatch,
    },
    /// Send FIN after what is in flight; reading goes on.
    ShutdownWrite {
        /// The connection.
        conn: ConnId,
    },
    /// Stop reading.
    PauseReads {
        /// The connection.
        conn: ConnId,
    },
    /// Read again.
    ResumeReads {
        /// The connection.
        conn: ConnId,
    },
    /// Say whether something of the peer's has arrived that was not reported, as a host that is behind may
    /// take a peer for silent whose words it has not read. Costs a system call.
    Look {
        /// The connection.
        conn: ConnId,
    },
    /// Let go of the socket, open as it is, for somebody else to go on with.
    HandOver {
        /// The connection.
        conn: ConnId,
    },
    /// End the connection and release its descriptor, in-flight work cancelled.
    Close {
        /// The connection.
        conn: ConnId,
        /// True to discard what the kernel still holds and reset the peer (`SO_LINGER` 0): for peers
        /// that are dead or hostile. False to let the kernel deliver what it took.
        abort: bool,
    },
    /// Accept again after [`Event::AcceptFailed`].
    ResumeAccept,
    /// Close the listeners for good: no socket is accepted after this returns.
    StopAccepting,
}

/// The bytes of one write: shared buffers in order, the first possibly begun already.
#[derive(Debug, Default)]
pub struct SendBatch {
    parts: SmallVec<[Shared; 4]>,
    /// Parts before this index are written entirely.
    first: usize,
    /// Bytes of `parts[first]` that are written already; less than its length.
    skip: usize,
    /// Bytes still to be written.
    left: usize,
    /// Frames that were pushed.
    frames: u64,
    /// Whatever the core knows the batch by. Drivers leave it alone, and so does [`SendBatch::clear`].
    pub tag: u64,
}

impl SendBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a buffer; an empty one is ignored.
    pub fn push(&mut self, part: Shared) {
        let length = part.bytes().len();
        if length > 0 {
            self.left += length;
            self.frames += u64::from(part.frames());
            self.parts.push(part);
        }
    }

    /// Appends several.
    pub fn extend(&mut self, parts: impl IntoIterator<Item = Shared>) {
        parts.into_iter().for_each(|part| self.push(part));
    }

    /// Bytes still to be written.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// True when every byte is written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Number of buffers not yet entirely written.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts.len() - self.first
    }

    /// Number of frames in it, also of those already written.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The slices still to be written, in order; none is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let skip = self.skip;
        self.parts[self.first..]
            .iter()
            .enumerate()
            .map(move |(at, part)| if at == 0 { &part.bytes()[skip..] } else { part.bytes() })
    }

    /// All buffers that were pushed, in order, also those already written.
    pub fn items(&self) -> impl Iterator<Item = &Shared> {
        self.parts.iter()
    }

    /// Notes that the kernel took `bytes` more.
    ///
    /// # Panics
    /// When that is more than was left: the driver's count is wrong.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.left, "the kernel took {bytes} of {} bytes", self.left);
        self.left -= bytes;
        self.skip += bytes;
        while self.first < self.parts.len() && self.skip >= self.parts[self.first].bytes().len() {
            self.skip -= self.parts[self.first].bytes().len();
            self.first += 1;
        }
    }

    /// Drops the buffers and keeps the memory that held them.
    pub fn clear(&mut self) {
        self.parts.clear();
        (self.first, self.skip, self.left, self.frames) = (0, 0, 0, 0);
    }

    /// True when the batch has heap memory worth keeping.
    #[must_use]
    pub fn is_spilled(&self) -> bool {
        self.parts.spilled()
    }
}

/// An implementation of the contract over some kernel interface. Owned by one thread.
pub trait Driver {
    /// Starts an operation. One that ends at once returns its completion, which the caller handles as
    /// if `wait` had reported it.
    fn submit(&mut self, op: Op) -> Option<Event<'static>>;

    /// Hands what was submitted to the kernel, waits for events or a wake-up for at most `timeout`
    /// (`None`: until something happens), and reports each event in turn. A bounded number of events
    /// is reported per call; a call may report none.
    ///
    /// # Errors
    /// Only when the interface itself has failed; the worker cannot go on.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()>;

    /// A hint after a crowd has gone: the core has no connection with the index `from` or a higher one,
    /// so what the driver remembered of them may go. It costs in proportion to what goes.
    fn trim(&mut self, from: u32) {
        let _ = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_batch_advanced_in_any_steps_yields_its_bytes_once(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            steps in prop::collection::vec(1usize..7, 0..64),
        ) {
            let whole: Vec<u8> = parts.concat();
            let mut batch = SendBatch::new();
            for part in &parts {
                batch.push(Shared::kept(part.as_slice()));
            }
            let mut written = Vec::new();
            for step in steps {
                let rest: Vec<u8> = batch.slices().flatten().copied().collect();
                prop_assert_eq!(rest.len(), batch.left());
                prop_assert!(batch.slices().all(|s| !s.is_empty()));
                let take = step.min(rest.len());
                written.extend_from_slice(&rest[..take]);
                batch.advance(take);
            }
            written.extend(batch.slices().flatten());
            prop_assert_eq!(written, whole);
        }
    }
}
