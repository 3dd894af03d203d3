//! Writes in flight and the memory the kernel reads for them.
//!
//! From the request to its answer the batch, the list of slices and the message header stay where
//! they are: each write has a box of its own that does not move. The boxes of finished writes are
//! kept for the next ones, up to a limit, with the memory of their lists: a shard in steady state
//! allocates nothing to write.
//!
//! A write asks for everything (`MSG_WAITALL`): the kernel waits for room by itself and answers when
//! all is taken. What is answered short all the same is asked again for the rest.

#![expect(unsafe_code, reason = "message headers that the kernel reads")]

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{opcode, squeue, types};
use slab::Slab;

use crate::contract::SendBatch;
use crate::driver::table::place;
use crate::sys::socket::MAX_SLICES;

/// Boxes kept for later writes.
const SPARES: usize = 1024;
/// Those that stay when a crowd has gone.
const SPARES_AT_REST: usize = 64;
/// A list of slices longer than this is not kept.
const SPARE_SLICES: usize = 64;

struct InFlight {
    batch: SendBatch,
    /// Bytes of the whole batch.
    total: usize,
    slices: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl InFlight {
    fn new() -> Self {
        // SAFETY: a message header is numbers and pointers, for which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        Self { batch: SendBatch::new(), total: 0, slices: Vec::new(), header }
    }
}

/// All writes in flight of one driver.
#[derive(Default)]
pub(super) struct Sends {
    #[expect(clippy::vec_box, reason = "the kernel holds addresses into the boxes")]
    spares: Vec<Box<InFlight>>,
    in_flight: Slab<Box<InFlight>>,
}

impl Sends {
    /// Takes a batch in and returns its place.
    pub(super) fn begin(&mut self, batch: SendBatch) -> u32 {
        let mut send = self.spares.pop().unwrap_or_else(|| Box::new(InFlight::new()));
        send.total = batch.left();
        send.batch = batch;
        place(self.in_flight.insert(send))
    }

    /// The request for what is left of a write. What it names stays valid until [`Sends::finish`].
    pub(super) fn request(&mut self, place: u32, socket: BorrowedFd<'_>) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let socket = types::Fd(socket.as_raw_fd());
        let send = &mut *self.in_flight[place as usize];
        if send.batch.parts() == 1
            && let Some(only) = send.batch.slices().next()
        {
            let length = u32::try_from(only.len()).unwrap_or(u32::MAX);
            return opcode::Send::new(socket, only.as_ptr(), length).flags(flags).build();
        }
        send.slices.clear();
        send.slices.extend(send.batch.slices().take(MAX_SLICES).map(|slice| libc::iovec {
            iov_base: slice.as_ptr().cast_mut().cast(),
            iov_len: slice.len(),
        }));
        send.header.msg_iov = send.slices.as_mut_ptr();
        send.header.msg_iovlen = send.slices.len();
        opcode::SendMsg::new(socket, &raw const send.header).flags(flags.cast_unsigned()).build()
    }

    /// Gives back what a burst has left behind.
    pub(super) fn trim(&mut self) {
        self.spares.truncate(SPARES_AT_REST);
        if self.in_flight.is_empty() {
            self.in_flight.shrink_to_fit();
        }
    }

    /// Notes what the kernel took. True when something is left.
    pub(super) fn advance(&mut self, place: u32, bytes: usize) -> bool {
        let send = &mut self.in_flight[place as usize];
        send.batch.advance(bytes);
        !send.batch.is_done()
    }

    /// Ends a write whose last request was answered. Returns the emptied batch and its whole length.
    pub(super) fn finish(&mut self, place: u32) -> (SendBatch, usize) {
        let mut send = self.in_flight.remove(place as usize);
        let mut batch = std::mem::take(&mut send.batch);
        let total = send.total;
        batch.clear();
        if self.spares.len() < SPARES && send.slices.capacity() <= SPARE_SLICES {
            self.spares.push(send);
        }
        (batch, total)
    }
}
