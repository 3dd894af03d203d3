//! From the workers to the thread: what is said of a connection by a channel, its socket beside it.
//!
//! A worker has a descriptor table of its own, so the numbers by which other threads are woken mean nothing to it: a
//! channel that wakes its receiver would write to whatever has that number there. What wakes the thread is the socket
//! itself, which the kernel carries over. Each has the number of what was said of it before; a socket that could not
//! be sent leaves words behind that nobody asks for, and the next number passes over them.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::tally::{Tally, count, less};
use crate::base::outside::{Handed, Passage};
use crate::sys::rights;

/// A worker's end.
#[derive(Debug)]
pub struct Line {
    pub(super) passages: Sender<(u64, Passage)>,
    /// Made before the worker parts with the common descriptor table, and held there as well.
    pub(super) sockets: Arc<UnixStream>,
    pub(super) tally: Arc<Tally>,
    /// Of the last that was left.
    pub(super) number: u64,
}

impl Line {
    /// What the worker has to keep open when it parts with the common table.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// Leaves a connection with the thread; never waits. Without space for it the connection is closed.
    pub fn hand_on(&mut self, passage: Passage, socket: Handed) {
        let socket = socket.into_fd();
        self.number += 1;
        // Counted here, so that there is no moment at which neither its shard nor the thread has it.
        count(&self.tally.connections);
        let is_said = self.passages.try_send((self.number, passage)).is_ok();
        if !is_said || rights::send(&self.sockets, self.number, &socket).is_err() {
            less(&self.tally.connections);
            count(&self.tally.lost);
        }
    }
}

/// What was said of the socket with that number.
pub(super) fn said_of(number: u64, passages: &Receiver<(u64, Passage)>) -> Option<Passage> {
    while let Ok((own, passage)) = passages.try_recv() {
        if own == number {
            return Some(passage);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn passage(place: usize) -> Passage {
        Passage { place, client: None, said: Vec::new(), unread: Vec::new(), seal: None }
    }

    #[test]
    fn a_socket_finds_its_words_and_what_finds_no_space_is_counted() {
        let (ours, theirs) = rights::pair().expect("two ends");
        let (passages, said) = bounded(3);
        let tally = Arc::new(Tally::default());
        let sockets = Arc::new(theirs);
        let mut line = Line { passages, sockets, tally: Arc::clone(&tally), number: 0 };
        let socket = || Handed::new(std::fs::File::open("/dev/null").expect("a file").into());
        line.hand_on(passage(0), socket());
        // The words of one whose socket did not get through.
        line.number += 1;
        line.passages.try_send((line.number, passage(1))).expect("space");
        line.hand_on(passage(2), socket());
        line.hand_on(passage(3), socket());
        let counted = |name| tally.pairs().find(|(own, _)| *own == name).expect("a counter").1;
        assert_eq!((counted("proxy_connections"), counted("proxy_lost_total")), (2, 1));
        for place in [0, 2] {
            let (number, socket) = rights::receive(&ours).expect("a socket");
            assert!(socket.is_some());
            assert_eq!(said_of(number, &said).expect("its words").place, place);
        }
        assert!(rights::receive(&ours).is_err(), "the last found no space");
    }
}
